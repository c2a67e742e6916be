/* cluster_history.c: see cluster_history.h. */
#include "sim/cluster_history.h"

#include "base/prng.h"

#include <stdio.h>

#define NOT_ENDED UINT64_MAX
#define MARK	  0x6174616420737469ull /* the second word of what a client wrote */

struct entry {
	uint64_t value, asked, ended;
	bool acknowledged, durable;
	bool seen_over; /* a read showed that it is over; a loss of power may show otherwise */
	bool is_past;	/* while pruning */
};

struct sector {
	struct entry *entries;
	uint32_t count, room;
	bool is_fresh; /* something in it is not durable */
};

struct history {
	struct sector *sectors;
	uint64_t sector_count, now;
};

struct history *history_new(uint64_t sectors)
{
	struct history *h = mem_zalloc(sizeof(*h));
	h->sectors = mem_zalloc(sectors * sizeof(*h->sectors));
	h->sector_count = sectors;
	return h;
}

void history_free(struct history *h)
{
	for (uint64_t i = 0; i < h->sector_count; i++)
		free(h->sectors[i].entries);
	free(h->sectors);
	free(h);
}

void history_grow(struct history *h, uint64_t sectors)
{
	struct sector *more;
	if (sectors <= h->sector_count)
		return;
	more = mem_zalloc(sectors * sizeof(*more));
	memcpy(more, h->sectors, h->sector_count * sizeof(*more));
	free(h->sectors);
	h->sectors = more;
	h->sector_count = sectors;
}

uint64_t history_now(struct history *h)
{
	return ++h->now;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------- */

void history_fill(uint8_t sector[HISTORY_SECTOR_BYTES], uint64_t value, uint64_t number)
{
	uint64_t words[HISTORY_SECTOR_BYTES / 8];
	memset(words, 0, sizeof(words));
	if (value) {
		words[0] = value;
		words[1] = MARK;
		for (size_t i = 2; i < ARRAY_COUNT(words); i++)
			words[i] = hash_u64(value * 131 + number * 7 + i);
	}
	memcpy(sector, words, sizeof(words));
}

bool history_is_data(const uint8_t *sector)
{
	uint64_t mark;
	memcpy(&mark, sector + 8, sizeof(mark));
	return mark == MARK;
}

static bool value_of(const uint8_t *sector, uint64_t number, uint64_t *value)
{
	uint8_t wanted[HISTORY_SECTOR_BYTES];
	memcpy(value, sector, 8);
	history_fill(wanted, *value, number);
	return memcmp(wanted, sector, sizeof(wanted)) == 0;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------------- */

static void entry_add(struct sector *s, const struct entry *e)
{
	if (s->count == s->room) {
		s->room = s->room ? 2 * s->room : 4;
		s->entries = realloc(s->entries, s->room * sizeof(*e));
		assert(s->entries);
	}
	s->entries[s->count++] = *e;
}

/* Did an acknowledged write happen wholly after it, and before that moment? */
static bool is_covered(const struct sector *s, const struct entry *e, uint64_t moment, bool durably)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const struct entry *u = &s->entries[i];
		if (u->acknowledged && u->asked > e->ended && u->ended < moment && (!durably || u->durable))
			return true;
	}
	return false;
}

/* The first entry of a sector is what it was made with: zeroes. */
static void sector_begin(struct sector *s)
{
	struct entry made = {.acknowledged = true, .durable = true};
	if (s->count == 0)
		entry_add(s, &made);
}

static void sector_prune(struct sector *s)
{
	uint32_t kept = 0;
	s->is_fresh = false;
	for (uint32_t i = 0; i < s->count; i++)
		s->entries[i].is_past = is_covered(s, &s->entries[i], NOT_ENDED, true);
	for (uint32_t i = 0; i < s->count; i++) {
		if (s->entries[i].is_past)
			continue;
		s->is_fresh |= !s->entries[i].durable;
		s->entries[kept++] = s->entries[i];
	}
	s->count = kept;
}

/* ---- writes --------------------------------------------------------------------------------------------------------------------- */

void history_write_begin(struct history *h, struct history_write *w, uint64_t first, uint64_t count,
			 uint64_t value)
{
	*w = (struct history_write){.first = first, .count = count, .value = value, .asked = history_now(h)};
	struct entry e = {.value = value, .asked = w->asked, .ended = NOT_ENDED};
	for (uint64_t i = first; i < first + count; i++) {
		sector_begin(&h->sectors[i]);
		entry_add(&h->sectors[i], &e);
		h->sectors[i].is_fresh = true;
	}
}

void history_write_end(struct history *h, const struct history_write *w, bool acknowledged)
{
	uint64_t ended = history_now(h);
	for (uint64_t i = w->first; i < w->first + w->count; i++) {
		struct sector *s = &h->sectors[i];
		for (uint32_t j = 0; j < s->count; j++) {
			if (s->entries[j].asked != w->asked)
				continue;
			s->entries[j].ended = ended;
			s->entries[j].acknowledged = acknowledged;
		}
	}
}

void history_write_durable(struct history *h, const struct history_write *w)
{
	for (uint64_t i = w->first; i < w->first + w->count; i++) {
		struct sector *s = &h->sectors[i];
		for (uint32_t j = 0; j < s->count; j++)
			s->entries[j].durable |= s->entries[j].asked == w->asked;
		sector_prune(s);
	}
}

void history_flush_end(struct history *h, uint64_t asked)
{
	for (uint64_t i = 0; i < h->sector_count; i++) {
		struct sector *s = &h->sectors[i];
		if (!s->is_fresh)
			continue;
		for (uint32_t j = 0; j < s->count; j++)
			s->entries[j].durable |= s->entries[j].acknowledged && s->entries[j].ended < asked;
		sector_prune(s);
	}
}

void history_power_loss(struct history *h)
{
	uint64_t now = history_now(h);
	for (uint64_t i = 0; i < h->sector_count; i++) {
		struct sector *s = &h->sectors[i];
		for (uint32_t j = 0; s->is_fresh && j < s->count; j++) {
			struct entry *e = &s->entries[j];
			e->seen_over = false;
			if (e->durable || e->ended == NOT_ENDED)
				continue;
			e->acknowledged = false;
			e->ended = now;
		}
	}
}

/* ---- reads ---------------------------------------------------------------------------------------------------------------------- */

static bool may_be(const struct sector *s, const struct entry *e, uint64_t asked)
{
	return !e->seen_over && !is_covered(s, e, asked, false);
}

static bool sector_allows(const struct sector *s, uint64_t asked, uint64_t value)
{
	bool found = s->count == 0 && value == 0;
	for (uint32_t i = 0; i < s->count; i++)
		found |= s->entries[i].value == value && may_be(s, &s->entries[i], asked);
	return found;
}

/* What had ended before the read began, and is something else, is over. */
static void sector_seen(struct sector *s, uint64_t asked, uint64_t value)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (s->entries[i].value != value && s->entries[i].ended < asked)
			s->entries[i].seen_over = true;
}

static void sector_explain(const struct sector *s, uint64_t asked, uint64_t number, const char *found,
			   char *why, size_t why_bytes)
{
	size_t used = (size_t)snprintf(why, why_bytes, "sector %llu, asked at %llu: found %s; it may be",
				       (unsigned long long)number, (unsigned long long)asked, found);
	for (uint32_t i = 0; i < s->count && used < why_bytes; i++) {
		const struct entry *e = &s->entries[i];
		if (may_be(s, e, asked))
			used += (size_t)snprintf(why + used, why_bytes - used, " %llu (%llu-%lld%s)",
						 (unsigned long long)e->value, (unsigned long long)e->asked,
						 (long long)e->ended, e->acknowledged ? "" : ", unknown");
	}
	for (uint32_t i = 0; i < s->count && used < why_bytes; i++) {
		const struct entry *e = &s->entries[i];
		if (!may_be(s, e, asked))
			used += (size_t)snprintf(why + used, why_bytes - used,
						 "; over is %llu (%llu-%lld%s%s)",
						 (unsigned long long)e->value, (unsigned long long)e->asked,
						 (long long)e->ended, e->acknowledged ? "" : ", unknown",
						 e->seen_over ? ", not seen by a read" : "");
	}
}

bool history_read_end(struct history *h, uint64_t asked, uint64_t first, uint64_t count, const uint8_t *data,
		      char *why, size_t why_bytes)
{
	for (uint64_t i = 0; i < count; i++) {
		struct sector *s = &h->sectors[first + i];
		uint64_t value;
		char found[40];
		bool is_ours = value_of(data + i * HISTORY_SECTOR_BYTES, first + i, &value);
		if (is_ours && sector_allows(s, asked, value)) {
			sector_seen(s, asked, value);
			continue;
		}
		snprintf(found, sizeof(found), is_ours ? "%llu" : "garbage that begins with %llx",
			 (unsigned long long)value);
		sector_explain(s, asked, first + i, found, why, why_bytes);
		return false;
	}
	return true;
}

/* ---- images --------------------------------------------------------------------------------------------------------------------- */

struct choice {
	uint64_t number, value;
};

struct history_image {
	struct choice *choices; /* by number */
	size_t count, room;
	uint64_t sectors;
};

static void choice_add(struct history_image *image, uint64_t number, uint64_t value)
{
	if (image->count == image->room) {
		image->room = image->room ? 2 * image->room : 256;
		image->choices = realloc(image->choices, image->room * sizeof(*image->choices));
		assert(image->choices);
	}
	image->choices[image->count++] = (struct choice){number, value};
}

struct history_image *history_image_new(struct history *h, uint64_t asked)
{
	struct history_image *image = mem_zalloc(sizeof(*image));
	image->sectors = h->sector_count;
	for (uint64_t i = 0; i < h->sector_count; i++) {
		const struct sector *s = &h->sectors[i];
		for (uint32_t j = 0; j < s->count; j++)
			if (may_be(s, &s->entries[j], asked))
				choice_add(image, i, s->entries[j].value);
	}
	return image;
}

void history_image_free(struct history_image *image)
{
	free(image->choices);
	free(image);
}

uint64_t history_image_sectors(const struct history_image *image)
{
	return image->sectors;
}

static size_t choice_first(const struct history_image *image, uint64_t number)
{
	size_t low = 0, high = image->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (image->choices[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* It settles what was not known, as a read does. */
static bool choice_settle(struct history_image *image, size_t *at, uint64_t number, uint64_t value)
{
	size_t first = *at, end = first;
	bool found = false;
	for (; end < image->count && image->choices[end].number == number; end++)
		found |= image->choices[end].value == value;
	for (size_t i = first; found && i < end; i++)
		image->choices[i].value = value;
	*at = end;
	return end == first ? value == 0 : found;
}

bool history_image_check(struct history_image *image, uint64_t first, uint64_t count, const uint8_t *data,
			 char *why, size_t why_bytes)
{
	size_t at = choice_first(image, first);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t value;
		bool is_ours = value_of(data + i * HISTORY_SECTOR_BYTES, first + i, &value);
		if (choice_settle(image, &at, first + i, value) && is_ours)
			continue;
		snprintf(why, why_bytes, "sector %llu of the snapshot has %s%llu, which it cannot",
			 (unsigned long long)(first + i), is_ours ? "" : "garbage that begins with ",
			 (unsigned long long)value);
		return false;
	}
	return true;
}

/* ---- going back ------------------------------------------------------------------------------------------------------------- */

/* Of a sector that was never written, too: somebody may write it before the revert happens. */
void history_revert_begin(struct history *h, struct history_write *w, const struct history_image *image)
{
	size_t at = 0;
	*w = (struct history_write){.count = h->sector_count, .asked = history_now(h)};
	for (uint64_t i = 0; i < h->sector_count; i++) {
		struct sector *s = &h->sectors[i];
		struct entry e = {.asked = w->asked, .ended = NOT_ENDED};
		size_t first = at;
		sector_begin(s);
		for (; at < image->count && image->choices[at].number == i; at++) {
			e.value = image->choices[at].value;
			if (at == first || e.value != image->choices[at - 1].value)
				entry_add(s, &e);
		}
		if (at == first)
			entry_add(s, &e);
		s->is_fresh = true;
	}
}

void history_revert_end(struct history *h, const struct history_write *w, bool acknowledged)
{
	history_write_end(h, w, acknowledged);
	for (uint64_t i = 0; acknowledged && i < h->sector_count; i++) {
		struct sector *s = &h->sectors[i];
		for (uint32_t j = 0; j < s->count; j++)
			s->entries[j].durable |= s->entries[j].asked == w->asked;
		sector_prune(s);
	}
}
