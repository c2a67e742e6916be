/* replica_note.c: see replica_note.h. */
#include "data/replica/replica_note.h"

#include "base/crc32c.h"
#include "base/mutant.h"

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

/* A bit for each region of the intents. */
static void lacks_encode(const struct replica_note *note, struct replica_regions *bits)
{
	uint64_t at = 0;
	*bits = (struct replica_regions){{0}};
	for (unsigned region = 0; region < REPLICA_REGIONS; region++) {
		if (!regions_have(&note->intents, region))
			continue;
		if (regions_have(&note->may_lack, region))
			region_set(bits, at);
		at++;
	}
}

static void wire_of(const struct replica_note *note, struct replica_note_wire *w)
{
	*w = (struct replica_note_wire){.magic = le32_of(REPLICA_NOTE_MAGIC),
					.version = le16_of(REPLICA_NOTE_VERSION),
					.flags = note->fill_begun ? REPLICA_NOTE_FILL_BEGUN : 0,
					.shift = (uint8_t)note->shift,
					.epoch = le64_of(note->epoch)};
	memcpy(w->engine, note->engine_id.b, sizeof(w->engine));
	memcpy(w->join, note->join_id.b, sizeof(w->join));
	memcpy(w->join_ending, note->join_ending_id.b, sizeof(w->join_ending));
	memcpy(w->boot, note->boot_id.b, sizeof(w->boot));
}

uint32_t replica_note_encode(const struct replica_note *note, uint8_t data[REPLICA_NOTE_BYTES_MAX])
{
	unsigned count = regions_count(&note->intents), len_bytes = bitmap_bytes(&note->intents);
	bool is_list = count * sizeof(le16) <= len_bytes;
	struct replica_regions lacks;
	struct replica_note_wire w;
	wire_of(note, &w);
	w.form = is_list ? REPLICA_NOTE_LIST : REPLICA_NOTE_BITMAP;
	w.count = le16_of((uint16_t)(is_list ? count : len_bytes));
	if (is_list)
		list_encode(&note->intents, data + sizeof(w));
	else
		memcpy(data + sizeof(w), note->intents.bits, len_bytes);
	uint32_t total = (uint32_t)(sizeof(w) + (is_list ? count * sizeof(le16) : len_bytes));
	lacks_encode(note, &lacks);
	if (MUTANT(234))
		lacks = (struct replica_regions){{0}};
	unsigned lacks_bytes = bitmap_bytes(&lacks);
	if (lacks_bytes > REPLICA_NOTE_BYTES_MAX - total) {
		w.flags |= REPLICA_NOTE_LACKS_ALL;
		lacks_bytes = 0;
	}
	w.lacks_bytes = le16_of((uint16_t)lacks_bytes);
	memcpy(data + total, lacks.bits, lacks_bytes);
	total += lacks_bytes;
	memcpy(data, &w, sizeof(w));
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

static int bitmap_decode(const uint8_t *data, uint32_t count, struct replica_regions *out)
{
	if (count > sizeof(out->bits) || (count > 0 && data[count - 1] == 0))
		return OXE_CORRUPT;
	memcpy(out->bits, data, count);
	return 0;
}

/* *used_bytes: how many they take. */
static int intents_decode(const struct replica_note_wire *w, const uint8_t *data, uint32_t len_bytes,
			  struct replica_regions *out, uint32_t *used_bytes)
{
	uint32_t count = le16_get(w->count);
	*used_bytes = w->form == REPLICA_NOTE_LIST ? count * (uint32_t)sizeof(le16) : count;
	if (*used_bytes > len_bytes || count > REPLICA_REGIONS)
		return OXE_CORRUPT;
	if (w->form == REPLICA_NOTE_LIST)
		return list_decode(data, count, out);
	return w->form == REPLICA_NOTE_BITMAP ? bitmap_decode(data, count, out) : OXE_CORRUPT;
}

static int lacks_decode(const struct replica_note_wire *w, const uint8_t *data, uint32_t len_bytes,
			struct replica_note *out)
{
	struct replica_regions bits = {{0}};
	bool all = w->flags & REPLICA_NOTE_LACKS_ALL;
	uint64_t at = 0;
	if (len_bytes != le16_get(w->lacks_bytes) || (all && len_bytes) ||
	    bitmap_decode(data, len_bytes, &bits))
		return OXE_CORRUPT;
	for (unsigned region = 0; region < REPLICA_REGIONS; region++) {
		if (!regions_have(&out->intents, region))
			continue;
		if (all || regions_have(&bits, (unsigned)at))
			region_set(&out->may_lack, region);
		at++;
	}
	for (; at < REPLICA_REGIONS; at++) {
		if (regions_have(&bits, (unsigned)at))
			return OXE_CORRUPT;
	}
	return 0;
}

/* *header_bytes: how long it is, in that version. */
static int header_decode(const uint8_t *data, uint32_t len_bytes, struct replica_note_wire *w,
			 uint32_t *header_bytes)
{
	*w = (struct replica_note_wire){0};
	*header_bytes = REPLICA_NOTE_HEADER_1_BYTES;
	if (len_bytes < *header_bytes)
		return OXE_CORRUPT;
	memcpy(w, data, *header_bytes);
	if (le32_get(w->magic) != REPLICA_NOTE_MAGIC ||
	    le32_get(w->crc) != crc32c_around(data, len_bytes, offsetof(struct replica_note_wire, crc)))
		return OXE_CORRUPT;
	if (le16_get(w->version) == 1)
		return w->flags & REPLICA_NOTE_LACKS_ALL ? OXE_CORRUPT : 0;
	if (le16_get(w->version) != REPLICA_NOTE_VERSION)
		return OXE_VERSION;
	*header_bytes = sizeof(*w);
	if (len_bytes < sizeof(*w))
		return OXE_CORRUPT;
	memcpy(w, data, sizeof(*w));
	return 0;
}

static bool header_is_sound(const struct replica_note_wire *w)
{
	static const uint8_t zeroes[sizeof(w->reserved2)];
	return !(w->flags & ~(REPLICA_NOTE_FILL_BEGUN | REPLICA_NOTE_LACKS_ALL)) && !w->reserved &&
	       w->shift >= REPLICA_REGION_SHIFT_MIN && w->shift <= REPLICA_REGION_SHIFT_MAX &&
	       memcmp(w->reserved2, zeroes, sizeof(zeroes)) == 0;
}

int replica_note_decode(const uint8_t *data, uint32_t len_bytes, struct replica_note *out)
{
	struct replica_note_wire w;
	uint32_t header_bytes, used_bytes;
	*out = (struct replica_note){0};
	int err = header_decode(data, len_bytes, &w, &header_bytes);
	if (err)
		return err;
	if (!header_is_sound(&w))
		return OXE_CORRUPT;
	out->epoch = le64_get(w.epoch);
	memcpy(out->engine_id.b, w.engine, sizeof(w.engine));
	memcpy(out->join_id.b, w.join, sizeof(w.join));
	memcpy(out->join_ending_id.b, w.join_ending, sizeof(w.join_ending));
	memcpy(out->boot_id.b, w.boot, sizeof(w.boot));
	out->shift = w.shift;
	out->fill_begun = w.flags & REPLICA_NOTE_FILL_BEGUN;
	data += header_bytes;
	len_bytes -= header_bytes;
	err = intents_decode(&w, data, len_bytes, &out->intents, &used_bytes);
	return err ? err : lacks_decode(&w, data + used_bytes, len_bytes - used_bytes, out);
}

bool replica_note_boot(struct replica_note *note, const struct uuid *boot_id)
{
	if (uuid_equal(&note->boot_id, boot_id))
		return false;
	if (!MUTANT(242))
		regions_unite(&note->may_lack, &note->intents);
	note->boot_id = *boot_id;
	return true;
}
