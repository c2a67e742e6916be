/* pool_damage.c: see pool_damage.h. */
#include "sim/pool_damage.h"

#include "base/crc32c.h"
#include "data/store/journal_format.h"
#include "data/store/store.h"
#include "data/store/super.h"

#include <stdio.h>

#define PLACES_MAX 256u
#define TRIES	   4u /* another target, before giving up */

/* Where a metadata page is that the newest superblock needs. */
struct place {
	enum damage_target target;
	uint64_t page, owner, index, level;
};

struct survey {
	const struct sim_disk *disk;
	struct prng *rng;
	struct super newest, older; /* generation 0: there is none */
	struct place places[PLACES_MAX];
	size_t count;
	uint64_t data_page, data_pages_seen; /* one of them, drawn */
};

static void page_peek_at(const struct sim_disk *disk, uint64_t page, uint8_t *image)
{
	sim_disk_peek(disk, image, PAGE_BYTES, page * PAGE_BYTES);
}

/* ---- finding the pages -------------------------------------------------------------------------------------------------- */

static void survey_supers(struct survey *s)
{
	uint8_t image[SUPER_BYTES];
	struct super found[2];
	for (unsigned slot = 0; slot < 2; slot++) {
		page_peek_at(s->disk, slot * (SUPER_SLOT_BYTES / PAGE_BYTES), image);
		if (super_decode(image, UINT64_MAX, &found[slot]) || found[slot].generation % 2 != slot)
			found[slot] = (struct super){0};
	}
	unsigned newest = found[1].generation > found[0].generation;
	s->newest = found[newest];
	if (found[newest ^ 1].generation + 1 == found[newest].generation)
		s->older = found[newest ^ 1];
}

static bool page_is_whole(const uint8_t *image)
{
	const struct page_header_disk *h = (const void *)image;
	return le32_get(h->crc) == crc32c_around(image, PAGE_BYTES, offsetof(struct page_header_disk, crc));
}

static void survey_tree(struct survey *s, enum damage_target target, uint64_t owner, uint64_t page,
			uint64_t level, uint64_t index);

static void survey_catalog_leaf(struct survey *s, const uint8_t *image)
{
	const struct catalog_entry_disk *entries = (const void *)(image + PAGE_HEADER_BYTES);
	for (uint32_t i = 0; i < CATALOG_PER_PAGE; i++) {
		const struct catalog_entry_disk *e = &entries[i];
		if (e->kind == CATALOG_LAYER && le64_get(e->map.page))
			survey_tree(s, DAMAGE_MAP, le64_get(e->number), le64_get(e->map.page),
				    le32_get(e->map.height) - 1, 0);
	}
}

static void survey_map_leaf(struct survey *s, const uint8_t *image)
{
	const struct map_entry *entries = (const void *)(image + PAGE_HEADER_BYTES);
	for (uint32_t i = 0; i < PAGE_FANOUT; i++) {
		uint16_t data = entries[i].defined & (uint16_t)~entries[i].zero;
		for (unsigned block = 0; data && block < PAGES_PER_CLUSTER; block++) {
			if (data >> block & 1 && prng_one_in(s->rng, ++s->data_pages_seen))
				s->data_page = (uint64_t)entries[i].cluster * PAGES_PER_CLUSTER + block;
		}
	}
}

static void survey_tree(struct survey *s, enum damage_target target, uint64_t owner, uint64_t page,
			uint64_t level, uint64_t index)
{
	uint8_t image[PAGE_BYTES];
	const struct inner_entry *inner = (const void *)(image + PAGE_HEADER_BYTES);
	if (page == 0 || s->count == PLACES_MAX)
		return;
	page_peek_at(s->disk, page, image);
	if (!page_is_whole(image))
		return;
	s->places[s->count++] = (struct place){target, page, owner, index, level};
	for (uint64_t i = 0; level > 0 && i < PAGE_FANOUT; i++)
		survey_tree(s, target, owner, inner[i].page, level - 1, index * PAGE_FANOUT + i);
	if (level == 0 && target == DAMAGE_CATALOG)
		survey_catalog_leaf(s, image);
	else if (level == 0 && target == DAMAGE_MAP)
		survey_map_leaf(s, image);
}

static void survey_usage(struct survey *s)
{
	uint8_t image[PAGE_BYTES];
	uint64_t page = s->newest.usage_page;
	for (uint64_t i = 0; page && i < s->newest.usage_pages && s->count < PLACES_MAX; i++) {
		page_peek_at(s->disk, page, image);
		s->places[s->count++] = (struct place){DAMAGE_USAGE, page, 0, i, 0};
		page = le64_get(((const struct page_header_disk *)image)->next);
	}
}

static uint64_t journal_page(const struct survey *s, uint64_t seq)
{
	return JOURNAL_FIRST_CLUSTER * PAGES_PER_CLUSTER + seq % s->newest.journal_blocks;
}

/* Journal blocks to be replayed that a later one's flush mark covers. */
static void survey_journal(struct survey *s)
{
	uint8_t image[PAGE_BYTES];
	const struct journal_block_disk *h = (const void *)image;
	uint64_t first = s->newest.replay_seq, seq = first, mark = 0;
	uint32_t chain = s->newest.replay_chain;
	for (;; seq++, chain = le32_get(h->crc), mark = u64_max(mark, le64_get(h->settled_seq))) {
		page_peek_at(s->disk, journal_page(s, seq), image);
		if (le32_get(h->magic) != JOURNAL_MAGIC || le64_get(h->seq) != seq ||
		    le32_get(h->prev_crc) != chain || !page_is_whole(image))
			break;
	}
	for (uint64_t i = first; i <= mark && i + 1 < seq && s->count < PLACES_MAX; i++)
		s->places[s->count++] = (struct place){DAMAGE_JOURNAL, journal_page(s, i), 0, i, 0};
}
static_assert(offsetof(struct journal_block_disk, crc) == offsetof(struct page_header_disk, crc), "layout");

static void survey_disk(struct survey *s)
{
	survey_supers(s);
	if (!s->newest.generation)
		return;
	survey_tree(s, DAMAGE_CATALOG, 0, s->newest.catalog.page, s->newest.catalog.height - 1, 0);
	survey_tree(s, DAMAGE_BITMAP, 0, s->newest.bitmap.page, s->newest.bitmap.height - 1, 0);
	survey_usage(s);
	survey_journal(s);
}

static bool pick_place(struct survey *s, enum damage_target target, struct damage *d)
{
	uint64_t seen = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct place *p = &s->places[i];
		if (p->target != target || !prng_one_in(s->rng, ++seen))
			continue;
		d->page = p->page;
		d->owner = p->owner;
		d->index = p->index;
		d->level = p->level;
	}
	return seen > 0;
}

static bool pick_target(struct survey *s, struct damage *d)
{
	uint64_t newest_slot = s->newest.generation % 2;
	bool map = prng_one_in(s->rng, 4); /* most pages are */
	d->target = map ? DAMAGE_MAP : (enum damage_target)prng_below(s->rng, DAMAGE_TARGETS);
	switch (d->target) {
	case DAMAGE_SUPER_NEWEST:
		d->page = newest_slot * (SUPER_SLOT_BYTES / PAGE_BYTES);
		return s->older.generation != 0;
	case DAMAGE_SUPER_OLDER:
		d->page = (newest_slot ^ 1) * (SUPER_SLOT_BYTES / PAGE_BYTES);
		return s->newest.generation != 0;
	case DAMAGE_DATA:
		d->page = s->data_page;
		return s->data_pages_seen > 0;
	default:
		return pick_place(s, d->target, d);
	}
}

/* ---- damaging it --------------------------------------------------------------------------------------------------------- */

static bool is_page_of_tree(const struct damage *d)
{
	return d->target >= DAMAGE_MAP && d->target <= DAMAGE_USAGE;
}

static void reseal(uint8_t *image)
{
	struct page_header_disk *h = (void *)image;
	h->crc = le32_of(0);
	h->crc = le32_of(crc32c(0, image, PAGE_BYTES));
}

/* Each field of the header but the CRC says something that the parent knows too. */
static void header_twist(struct prng *rng, uint8_t *image)
{
	struct page_header_disk *h = (void *)image;
	uint64_t by = 1 + prng_below(rng, 3);
	switch (prng_below(rng, 7)) {
	case 0:
		h->kind = (uint8_t)(h->kind % 4 + 1);
		break;
	case 1:
		h->level = (uint8_t)(h->level + by);
		break;
	case 2:
		h->owner = le64_of(le64_get(h->owner) + by);
		break;
	case 3:
		h->index = le64_of(le64_get(h->index) + by);
		break;
	case 4:
		h->page = le64_of(le64_get(h->page) + by);
		break;
	case 5:
		h->generation = le64_of(le64_get(h->generation) - by);
		break;
	default:
		h->pool_id[prng_below(rng, sizeof(h->pool_id))] ^= 1;
	}
	reseal(image);
}

/* An older state of the same page, as if it had been at this address. Without one on the disk, a page of another place. */
static void make_stale(struct survey *s, const struct damage *d, uint8_t *image)
{
	const struct page_header_disk *now = (const void *)d->before;
	struct page_header_disk *h = (void *)image;
	for (uint64_t page = 0; page < s->newest.cluster_count * PAGES_PER_CLUSTER; page++) {
		page_peek_at(s->disk, page, image);
		if (h->kind == now->kind && h->level == now->level && h->pad0[0] == 0 &&
		    le64_get(h->owner) == le64_get(now->owner) &&
		    le64_get(h->index) == le64_get(now->index) &&
		    memcmp(h->pool_id, now->pool_id, sizeof(h->pool_id)) == 0 &&
		    le64_get(h->generation) < le64_get(now->generation) && page_is_whole(image)) {
			h->page = now->page;
			reseal(image);
			return;
		}
	}
	memcpy(image, d->before, PAGE_BYTES);
	h->generation = le64_of(le64_get(h->generation) - 1);
	reseal(image);
}

/* The image of another page that is in use. */
static void make_misdirected(struct survey *s, const struct damage *d, uint8_t *image)
{
	uint64_t from = s->older.generation ? (s->older.generation % 2) * (SUPER_SLOT_BYTES / PAGE_BYTES)
					    : s->data_page;
	if (s->count > 0 && !(d->target == DAMAGE_SUPER_NEWEST && prng_one_in(s->rng, 2)))
		from = s->places[prng_below(s->rng, s->count)].page;
	page_peek_at(s->disk, from, image);
}

static void image_damage(struct survey *s, struct damage *d)
{
	uint8_t *image = d->after;
	memcpy(image, d->before, PAGE_BYTES);
	switch (d->kind) {
	case DAMAGE_BIT:
		image[prng_below(s->rng, PAGE_BYTES)] ^= (uint8_t)(1u << prng_below(s->rng, 8));
		break;
	case DAMAGE_GARBAGE:
		prng_fill(s->rng, image, PAGE_BYTES);
		break;
	case DAMAGE_MISDIRECTED:
		make_misdirected(s, d, image);
		break;
	case DAMAGE_STALE:
		make_stale(s, d, image);
		break;
	case DAMAGE_HEADER:
		header_twist(s->rng, image);
		break;
	default:
		break;
	}
}

static bool kind_suits(const struct damage *d)
{
	if (d->target == DAMAGE_DATA)
		return d->kind == DAMAGE_UNREADABLE;
	return is_page_of_tree(d) || (d->kind != DAMAGE_STALE && d->kind != DAMAGE_HEADER);
}

static bool damage_draw(struct survey *s, struct damage *d)
{
	bool found = false;
	for (unsigned i = 0; !found && i < TRIES; i++)
		found = pick_target(s, d);
	if (!found)
		return false;
	do
		d->kind = (enum damage_kind)prng_below(s->rng, DAMAGE_KINDS);
	while (!kind_suits(d));
	page_peek_at(s->disk, d->page, d->before);
	image_damage(s, d);
	return d->kind == DAMAGE_UNREADABLE || memcmp(d->before, d->after, PAGE_BYTES) != 0;
}

bool damage_do(struct damage *d, struct sim_disk *disk, struct prng *rng, bool at_rest)
{
	struct survey *s = mem_zalloc(sizeof(*s));
	*d = (struct damage){.at_rest = at_rest, .bad_block = UINT64_MAX};
	s->disk = disk;
	s->rng = rng;
	survey_disk(s);
	d->has_older = s->older.generation != 0;
	bool done = damage_draw(s, d);
	if (done && d->kind == DAMAGE_UNREADABLE)
		sim_disk_make_unreadable(disk, d->page * PAGE_BYTES, PAGE_BYTES);
	else if (done)
		sim_disk_poke(disk, d->after, PAGE_BYTES, d->page * PAGE_BYTES);
	free(s);
	return done;
}

void damage_heal(const struct damage *d, struct sim_disk *disk)
{
	uint8_t now[PAGE_BYTES];
	page_peek_at(disk, d->page, now);
	if (memcmp(now, d->after, PAGE_BYTES) == 0)
		sim_disk_poke(disk, d->before, PAGE_BYTES, d->page * PAGE_BYTES);
}

/* ---- what may come of it ---------------------------------------------------------------------------------------------------- */

/* A metadata page that could not be read when the pool was opened is as one that cannot be believed from then on. */
static bool error_fits(const struct damage *d, int err)
{
	return d->kind != DAMAGE_UNREADABLE ? err == OXE_CORRUPT
					    : err == OXE_IO || (err == OXE_CORRUPT && is_page_of_tree(d));
}

bool damage_excuses_open(const struct damage *d, int err)
{
	if (!error_fits(d, err))
		return false;
	return d->target == DAMAGE_JOURNAL || (d->target == DAMAGE_USAGE && !d->has_older);
}

bool damage_forbids_open(const struct damage *d)
{
	return d->target == DAMAGE_JOURNAL;
}

static const struct layer *top_of(const struct pool *pool, const struct uuid *id)
{
	const struct volume *v = catalog_volume_by_id(pool->catalog, id);
	return v ? v->head : catalog_layer_by_id(pool->catalog, id);
}

/* Does a reader of `id` look at the damaged page's layer? */
static bool stands_on(const struct pool *pool, const struct uuid *id, uint64_t layer)
{
	const struct layer *l = top_of(pool, id);
	while (l && l->number != layer)
		l = l->parent;
	return l != NULL;
}

static bool stands_on_lost(const struct pool *pool, const struct uuid *id)
{
	const struct layer *l = top_of(pool, id);
	while (l && !l->map.lost)
		l = l->parent;
	return l != NULL;
}

static bool is_under(const struct damage *d, uint64_t block)
{
	uint64_t span = PAGE_FANOUT * PAGES_PER_CLUSTER;
	for (uint64_t i = 0; i < d->level; i++)
		span *= PAGE_FANOUT;
	return block / span == d->index;
}

bool damage_excuses_io(struct damage *d, const struct pool *pool, const struct uuid *id, uint64_t block,
		       int err)
{
	if (!error_fits(d, err))
		return false;
	if (d->target == DAMAGE_MAP)
		return is_under(d, block) && stands_on(pool, id, d->owner);
	if (d->target == DAMAGE_CATALOG)
		return stands_on_lost(pool, id);
	if (d->target != DAMAGE_DATA || block % PAGES_PER_CLUSTER != d->page % PAGES_PER_CLUSTER)
		return false;
	d->bad_block = d->bad_block == UINT64_MAX ? block : d->bad_block;
	return d->bad_block == block;
}

bool damage_excuses_problem(struct damage *d, const struct pool_problem *p)
{
	d->reported += p->kind == POOL_PROBLEM_PAGE;
	return d->target == DAMAGE_MAP || d->target == DAMAGE_CATALOG;
}

bool damage_excuses_object(const struct damage *d, const struct pool *pool, int err)
{
	return d->target == DAMAGE_CATALOG && err == OXE_CORRUPT && catalog_is_damaged(pool->catalog);
}

bool damage_is_undone(const struct damage *d)
{
	bool noted = d->opened && !d->at_rest; /* records about what is lost */
	return d->target != DAMAGE_DATA &&
	       !(noted && (d->target == DAMAGE_MAP || d->target == DAMAGE_CATALOG));
}

bool damage_must_show(const struct damage *d)
{
	return d->target == DAMAGE_MAP && d->at_rest;
}

const char *damage_text(const struct damage *d, char *text, size_t size_bytes)
{
	static const char *const targets[DAMAGE_TARGETS] = {
		"the newest superblock", "the older superblock", "a journal block", "a map page",
		"a bitmap page",	 "a catalog page",	 "a usage page",    "a data block",
	};
	static const char *const kinds[DAMAGE_KINDS] = {
		"has a bit flipped", "is garbage",	   "is another page",
		"is stale",	     "has a false header", "cannot be read",
	};
	snprintf(text, size_bytes, "%s (page %llu of layer %llu) %s%s", targets[d->target],
		 (unsigned long long)d->page, (unsigned long long)d->owner, kinds[d->kind],
		 d->at_rest ? " after a close" : "");
	return text;
}
