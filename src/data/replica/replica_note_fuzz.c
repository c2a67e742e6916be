/*
 * replica_note_fuzz.c: any bytes where a copy's note should be. The checksum is put right first, or nothing would ever get past it. What
 * is believed can be written, and says the same again.
 */
#include "base/crc32c.h"
#include "data/replica/replica_note.h"

#include <stdlib.h>

static bool same(const struct replica_note *a, const struct replica_note *b)
{
	return a->epoch == b->epoch && uuid_equal(&a->engine_id, &b->engine_id) &&
	       uuid_equal(&a->join_id, &b->join_id) && uuid_equal(&a->join_ending_id, &b->join_ending_id) &&
	       uuid_equal(&a->boot_id, &b->boot_id) && a->fill_begun == b->fill_begun &&
	       a->shift == b->shift && memcmp(&a->intents, &b->intents, sizeof(a->intents)) == 0 &&
	       memcmp(&a->may_lack, &b->may_lack, sizeof(a->may_lack)) == 0;
}

/* Nothing is lacking where there is no intent; and after another boot something may be wherever there is one. */
static void boot(struct replica_note *note)
{
	struct uuid now = {{1}};
	for (unsigned r = 0; r < REPLICA_REGIONS; r++) {
		if (regions_have(&note->may_lack, r) && !regions_have(&note->intents, r))
			abort();
	}
	if (replica_note_boot(note, &now) &&
	    memcmp(&note->may_lack, &note->intents, sizeof(note->intents)) != 0)
		abort();
	if (replica_note_boot(note, &now))
		abort();
}

/* Regions of another size cover at least the same bytes. */
static void rescale(const struct replica_note *note, unsigned new_shift)
{
	struct replica_regions there = note->intents;
	regions_rescale(&there, note->shift, new_shift);
	regions_rescale(&there, new_shift, note->shift);
	for (unsigned r = 0; new_shift >= note->shift && r < REPLICA_REGIONS; r++) {
		if (regions_have(&note->intents, r) && !regions_have(&there, r))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct replica_note note, again;
	uint8_t *copy, back[REPLICA_NOTE_BYTES_MAX];
	if (size_bytes < 1 || size_bytes > POOL_NOTE_BYTES_MAX + 1)
		return 0;
	unsigned new_shift = REPLICA_REGION_SHIFT_MIN +
			     data[0] % (REPLICA_REGION_SHIFT_MAX - REPLICA_REGION_SHIFT_MIN + 1);
	size_bytes--;
	copy = memcpy(mem_alloc(size_bytes + !size_bytes), data + 1,
		      size_bytes); /* reading past its end is seen */
	if (size_bytes >= REPLICA_NOTE_HEADER_1_BYTES) {
		struct replica_note_wire *w = (void *)copy;
		w->magic = le32_of(REPLICA_NOTE_MAGIC);
		w->crc = le32_of(crc32c_around(copy, size_bytes, offsetof(struct replica_note_wire, crc)));
	}
	if (replica_note_decode(copy, (uint32_t)size_bytes, &note) == 0) {
		uint32_t len_bytes = replica_note_encode(&note, back);
		if (len_bytes > sizeof(back) || replica_note_decode(back, len_bytes, &again) ||
		    !same(&note, &again))
			abort();
		rescale(&note, new_shift);
		boot(&note);
	}
	free(copy);
	return 0;
}
