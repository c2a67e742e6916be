/* replica_note.c: see replica_note.h. */
#include "data/replica/replica_note.h"

#include "base/crc32c.h"

static unsigned regions_count(const struct replica_regions *r)
{
	unsigned count = 0;
	for (size_t i = 0; i < sizeof(r->bits); i++)
		count += (unsigned)__builtin_popcount(r->bits[i]);
	return count;
}

static void region_set(struct replica_regions *r, uint64_t region)
{
	if (region < REPLICA_REGIONS)
		r->bits[region / 8] |= (uint8_t)(1u << region % 8);
}

void regions_rescale(struct replica_regions *r, unsigned shift, unsigned new_shift)
{
	struct replica_regions old = *r;
	if (shift == new_shift)
		return;
	*r = (struct replica_regions){{0}};
	for (uint64_t region = 0; region < REPLICA_REGIONS; region++) {
		if (!regions_have(&old, (unsigned)region))
			continue;
		uint64_t first = region << shift >> new_shift, last = ((region + 1) << shift) - 1;
		for (uint64_t i = first; i <= u64_min(last >> new_shift, REPLICA_REGIONS - 1); i++)
			region_set(r, i);
	}
}

/* Bytes of the bitmap up to the last that is not zero. */
static unsigned bitmap_bytes(const struct replica_regions *r)
{
	unsigned len_bytes = sizeof(r->bits);
	while (len_bytes > 0 && r->bits[len_bytes - 1] == 0)
		len_bytes--;
	return len_bytes;
}

static void list_encode(const struct replica_regions *r, uint8_t *data)
{
	for (unsigned region = 0; region < REPLICA_REGIONS; region++) {
		le16 wire = le16_of((uint16_t)region);
		if (!regions_have(r, region))
			continue;
		memcpy(data, &wire, sizeof(wire));
		data += sizeof(wire);
	}
}

uint32_t replica_note_encode(const struct replica_note *note, uint8_t data[REPLICA_NOTE_BYTES_MAX])
{
	unsigned count = regions_count(&note->intents), len_bytes = bitmap_bytes(&note->intents);
	bool is_list = count * sizeof(le16) <= len_bytes;
	struct replica_note_wire w = {.magic = le32_of(REPLICA_NOTE_MAGIC),
				      .version = le16_of(REPLICA_NOTE_VERSION),
				      .flags = note->fill_begun ? REPLICA_NOTE_FILL_BEGUN : 0,
				      .form = is_list ? REPLICA_NOTE_LIST : REPLICA_NOTE_BITMAP,
				      .shift = (uint8_t)note->shift,
				      .count = le16_of((uint16_t)(is_list ? count : len_bytes)),
				      .epoch = le64_of(note->epoch)};
	memcpy(w.engine, note->engine_id.b, sizeof(w.engine));
	memcpy(w.join, note->join_id.b, sizeof(w.join));
	memcpy(w.join_ending, note->join_ending_id.b, sizeof(w.join_ending));
	memcpy(data, &w, sizeof(w));
	if (is_list)
		list_encode(&note->intents, data + sizeof(w));
	else
		memcpy(data + sizeof(w), note->intents.bits, len_bytes);
	uint32_t total = (uint32_t)(sizeof(w) + (is_list ? count * sizeof(le16) : len_bytes));
	w.crc = le32_of(crc32c(0, data, total));
	memcpy(data, &w, sizeof(w));
	return total;
}

static int list_decode(const uint8_t *data, uint32_t count, struct replica_regions *out)
{
	unsigned next = 0;
	for (uint32_t i = 0; i < count; i++, data += sizeof(le16)) {
		le16 wire;
		memcpy(&wire, data, sizeof(wire));
		unsigned region = le16_get(wire);
		if (region < next || region >= REPLICA_REGIONS)
			return OXE_CORRUPT;
		region_set(out, region);
		next = region + 1;
	}
	return 0;
}

static int intents_decode(uint8_t form, uint32_t count, const uint8_t *data, uint32_t len_bytes,
			  struct replica_regions *out)
{
	if (form == REPLICA_NOTE_LIST)
		return count <= REPLICA_REGIONS && len_bytes == count * sizeof(le16)
			       ? list_decode(data, count, out)
			       : OXE_CORRUPT;
	if (form != REPLICA_NOTE_BITMAP || count > sizeof(out->bits) || len_bytes != count ||
	    (count > 0 && data[count - 1] == 0))
		return OXE_CORRUPT;
	memcpy(out->bits, data, count);
	return 0;
}

int replica_note_decode(const uint8_t *data, uint32_t len_bytes, struct replica_note *out)
{
	struct replica_note_wire w;
	*out = (struct replica_note){0};
	if (len_bytes < sizeof(w))
		return OXE_CORRUPT;
	memcpy(&w, data, sizeof(w));
	if (le32_get(w.magic) != REPLICA_NOTE_MAGIC ||
	    le32_get(w.crc) != crc32c_around(data, len_bytes, offsetof(struct replica_note_wire, crc)))
		return OXE_CORRUPT;
	if (le16_get(w.version) != REPLICA_NOTE_VERSION)
		return OXE_VERSION;
	if (w.flags & ~REPLICA_NOTE_FILL_BEGUN || w.reserved || w.shift < REPLICA_REGION_SHIFT_MIN ||
	    w.shift > REPLICA_REGION_SHIFT_MAX)
		return OXE_CORRUPT;
	out->epoch = le64_get(w.epoch);
	memcpy(out->engine_id.b, w.engine, sizeof(w.engine));
	memcpy(out->join_id.b, w.join, sizeof(w.join));
	memcpy(out->join_ending_id.b, w.join_ending, sizeof(w.join_ending));
	out->shift = w.shift;
	out->fill_begun = w.flags & REPLICA_NOTE_FILL_BEGUN;
	return intents_decode(w.form, le16_get(w.count), data + sizeof(w), len_bytes - (uint32_t)sizeof(w),
			      &out->intents);
}
