/* replica_note.h: what a copy must know of itself after a restart, to and from its note. No I/O. */
#ifndef OXBOW_DATA_REPLICA_REPLICA_NOTE_H
#define OXBOW_DATA_REPLICA_REPLICA_NOTE_H

#include "data/replica/replica_format.h"

struct replica_note {
	uint64_t epoch;
	struct uuid engine_id, join_id, join_ending_id; /* nil: none */
	bool fill_begun;
	unsigned shift; /* of the intents */
	struct replica_regions intents;
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

/* The same bytes, at least, in regions of another size: a volume that changed its own has others. */
void regions_rescale(struct replica_regions *r, unsigned shift, unsigned new_shift);

/* Returns the length. */
uint32_t replica_note_encode(const struct replica_note *note, uint8_t data[REPLICA_NOTE_BYTES_MAX]);
/* OXE_CORRUPT if it is no such note; OXE_VERSION if a newer program wrote it. */
OX_CHECKED int replica_note_decode(const uint8_t *data, uint32_t len_bytes, struct replica_note *out);

#endif
