/* replica_note.h: what a copy must know of itself after a restart, to and from its note. No I/O. */
#ifndef OXBOW_DATA_REPLICA_REPLICA_NOTE_H
#define OXBOW_DATA_REPLICA_REPLICA_NOTE_H

#include "data/replica/replica_format.h"

struct replica_note {
	uint64_t epoch;
	struct uuid engine_id, join_id, join_ending_id; /* nil: none */
	struct uuid boot_id;				/* nil: not known */
	bool fill_begun;
	unsigned shift; /* of the regions */
	struct replica_regions intents;
	struct replica_regions may_lack; /* some of the intents */
};

static inline bool regions_have(const struct replica_regions *r, unsigned region)
{
	return r->bits[region / 8] >> region % 8 & 1;
}

static inline void regions_unite(struct replica_regions *r, const struct replica_regions *others)
{
	for (size_t i = 0; i < sizeof(r->bits); i++)
		r->bits[i] |= others->bits[i];
}

static inline bool regions_none(const struct replica_regions *r)
{
	uint8_t any = 0;
	for (size_t i = 0; i < sizeof(r->bits); i++)
		any |= r->bits[i];
	return any == 0;
}

/* The same bytes, at least, in regions of another size: a volume that changed its own has others. */
void regions_rescale(struct replica_regions *r, unsigned shift, unsigned new_shift);

/* It is opened on a machine of this boot. On another one than before, what was acknowledged and not flushed may be gone: that can be
 * where it has an intent (V6). False: nothing has changed. */
bool replica_note_boot(struct replica_note *note, const struct uuid *boot_id);

/* Returns the length. Should there be no room to say exactly where it may lack something, it says so of all its intents. */
uint32_t replica_note_encode(const struct replica_note *note, uint8_t data[REPLICA_NOTE_BYTES_MAX]);
/* OXE_CORRUPT if it is no such note; OXE_VERSION if a newer program wrote it. */
OX_CHECKED int replica_note_decode(const uint8_t *data, uint32_t len_bytes, struct replica_note *out);

#endif
