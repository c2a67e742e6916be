/*
 * space.c: see space.h for the picture.
 *
 * `blocked` holds the clusters whose bit is 0 but which may not be handed out: those in windows, in quarantine, and held.
 * Quarantine is a FIFO by journal block; behind it stand two generations of readers: a batch that became durable in read
 * generation g is usable when no reader of generation g or earlier is left.
 */
#include "data/store/space.h"

#include "base/log.h"
#include "base/u32map.h"
#include "data/store/discard.h"
#include "data/store/flush.h"
#include "data/store/metapage.h"
#include "data/store/store.h"

#define WINDOW_MAX     64u
#define AHEAD_CLUSTERS 1024u /* 64 MiB of a sparse pool file are asked for in one go */
#define QUARANTINE_MAX 4096u /* beyond this a flush is asked for in the background */

struct freed {
	uint32_t cluster;
	uint64_t seq;
};

struct freed_queue { /* a ring-less FIFO: taken from `first`, compacted when empty */
	struct freed *items;
	size_t first, count, capacity;
};

struct u32list {
	uint32_t *items;
	size_t count, capacity;
};

struct space {
	struct pool *pool;
	struct tree bitmap;
	uint32_t *free_in_leaf; /* 0 bits that belong to clusters anyone may own */
	bool *lost;		/* by leaf: the page cannot be believed */
	uint64_t leaf_count, free_bits, cursor;
	uint64_t reserve_clusters;
	uint64_t ahead_from, ahead_to; /* told to the disk as about to be written */

	struct u32map blocked;
	uint64_t windowed, held; /* held: while they are discarded */
	struct list windows;
	struct freed_queue quarantine; /* waiting for their record */
	struct u32list draining[2];    /* waiting for readers, by read generation & 1 */
	uint32_t readers[2];
	uint32_t waiting[2]; /* fibers in space_readers_wait, in the same way */
	uint64_t read_generation;
	struct waitq drained;
};

static void u32list_add(struct u32list *l, uint32_t value)
{
	if (l->count == l->capacity) {
		l->capacity = l->capacity ? l->capacity * 2 : 16;
		l->items = mem_realloc(l->items, l->capacity * sizeof(*l->items));
	}
	l->items[l->count++] = value;
}

/* ---- making and loading ------------------------------------------------------------------------------------------- */

uint64_t space_bitmap_leaves(uint64_t cluster_count)
{
	return u64_div_up(cluster_count, BITMAP_BITS_PER_PAGE);
}

/* Clusters of a leaf that can be owned: not the superblocks, the journal, or beyond the end. */
static uint32_t leaf_span(const struct space *s, uint64_t leaf, uint64_t *first)
{
	uint64_t low = u64_max(leaf * BITMAP_BITS_PER_PAGE, s->pool->first_cluster);
	uint64_t high = u64_min((leaf + 1) * BITMAP_BITS_PER_PAGE, s->pool->cluster_count);
	*first = low;
	return high > low ? (uint32_t)(high - low) : 0;
}

static void size_to_pool(struct space *s)
{
	uint64_t first, old_count = s->leaf_count;
	s->leaf_count = space_bitmap_leaves(s->pool->cluster_count);
	s->free_in_leaf = mem_realloc(s->free_in_leaf, s->leaf_count * sizeof(*s->free_in_leaf));
	s->lost = mem_realloc(s->lost, s->leaf_count * sizeof(*s->lost));
	for (uint64_t i = old_count; i < s->leaf_count; i++) {
		s->free_in_leaf[i] = leaf_span(s, i, &first);
		s->lost[i] = false;
	}
	s->reserve_clusters = 2 + 3 * (s->pool->dirty_limit + 64) / PAGES_PER_CLUSTER;
}

struct space *space_new(struct pool *pool)
{
	struct space *s = mem_zalloc(sizeof(*s));
	s->pool = pool;
	s->cursor = pool->first_cluster;
	list_init(&s->windows);
	waitq_init(&s->drained);
	tree_init(&s->bitmap, pool, PAGE_BITMAP, 0, (struct root){0});
	return s;
}

void space_free(struct space *s)
{
	free(s->draining[0].items);
	free(s->draining[1].items);
	free(s->quarantine.items);
	free(s->free_in_leaf);
	free(s->lost);
	u32map_free(&s->blocked);
	free(s);
}

static uint32_t count_free_bits(struct space *s, uint64_t leaf, const struct page *p)
{
	const uint8_t *bits = page_view(p);
	uint64_t first, free_bits = 0;
	uint32_t span = leaf_span(s, leaf, &first);
	for (uint64_t i = 0; i < span; i++) {
		uint64_t bit = (first + i) % BITMAP_BITS_PER_PAGE;
		free_bits += !(bits[bit / 8] >> bit % 8 & 1);
	}
	return (uint32_t)free_bits;
}

/* What is given back below it is not noted, so it must not be believed again. */
static void leaf_lose(struct space *s, uint64_t leaf)
{
	if (s->lost[leaf])
		return;
	s->lost[leaf] = true;
	s->free_bits -= u64_min(s->free_bits, s->free_in_leaf[leaf]);
	s->free_in_leaf[leaf] = 0;
	s->pool->pages_lost++;
	LOG_ERROR("pool.bitmap_page_lost",
		  "which clusters are free is not known in a part of the pool: none of them is used",
		  F_UUID("pool", &s->pool->ident.id), F_U64("first_cluster", leaf * BITMAP_BITS_PER_PAGE));
}

static int leaf_disown(struct space *s, uint64_t leaf)
{
	leaf_lose(s, leaf);
	return page_disown(&s->bitmap, leaf);
}

static int load_single_leaf(struct space *s)
{
	struct page *p;
	int err = page_get(&s->bitmap, 0, 0, true, &p);
	if (err)
		return err == OXE_CORRUPT ? leaf_disown(s, 0) : err;
	s->free_in_leaf[0] = count_free_bits(s, 0, p);
	page_unpin(p);
	return 0;
}

/* The level above the leaves remembers how much is free below each: one page for 496 GiB of pool. */
static int load_leaf_counts(struct space *s)
{
	for (uint64_t leaf = 0; leaf < s->leaf_count; leaf += PAGE_FANOUT) {
		struct page *p;
		int err = page_get(&s->bitmap, 1, leaf / PAGE_FANOUT, true, &p);
		for (uint64_t i = 0; err == OXE_CORRUPT && i < PAGE_FANOUT && leaf + i < s->leaf_count; i++)
			leaf_lose(s, leaf + i);
		if (err == OXE_CORRUPT) {
			err = leaf_disown(s, leaf);
			if (err)
				return err;
			continue;
		}
		if (err)
			return err;
		const struct inner_entry *e = page_view(p);
		for (uint64_t i = 0; i < PAGE_FANOUT && leaf + i < s->leaf_count; i++) {
			if (e[i].page && e[i].aux <= s->free_in_leaf[leaf + i])
				s->free_in_leaf[leaf + i] = e[i].aux;
		}
		page_unpin(p);
	}
	return 0;
}

int space_load(struct space *s, struct root bitmap)
{
	size_to_pool(s);
	tree_init(&s->bitmap, s->pool, PAGE_BITMAP, 0, bitmap);
	int err = tree_raise(&s->bitmap, s->leaf_count);
	if (!err)
		err = s->leaf_count == 1 ? load_single_leaf(s) : load_leaf_counts(s);
	for (uint64_t i = 0; !err && i < s->leaf_count; i++)
		s->free_bits += s->free_in_leaf[i];
	return err;
}

struct root space_bitmap_root(const struct space *s)
{
	return s->bitmap.root;
}

int space_grow_prepare(struct space *s, uint64_t cluster_count)
{
	return tree_raise(&s->bitmap, space_bitmap_leaves(cluster_count));
}

/* The pool's cluster_count is already the new one. */
void space_grow(struct space *s, uint64_t old_cluster_count)
{
	uint64_t last = s->leaf_count - 1;
	uint64_t in_last =
		u64_min(s->pool->cluster_count, s->leaf_count * BITMAP_BITS_PER_PAGE) - old_cluster_count;
	if (!s->lost[last])
		s->free_in_leaf[last] += (uint32_t)in_last;
	s->free_bits += s->pool->cluster_count - old_cluster_count - (s->lost[last] ? in_last : 0);
	size_to_pool(s);
}

/* ---- making lost pages again -------------------------------------------------------------------------------------------- */

static void bits_set(uint8_t *bits, const struct space *s, uint32_t cluster)
{
	if (cluster && cluster < s->pool->cluster_count)
		bits[cluster / 8] |= (uint8_t)(1u << cluster % 8);
}

static int bits_of_layer(struct space *s, struct layer *l, uint8_t *bits)
{
	for (uint64_t leaf = 0;; leaf++) {
		struct page *p;
		int err = page_next_leaf(&l->map, &leaf, &p);
		if (err)
			return err == OXE_NOENT ? 0 : err;
		for (uint32_t i = 0; i < PAGE_FANOUT; i++)
			bits_set(bits, s, map_entry_view(p, i)->cluster);
		page_unpin(p);
	}
}

struct bits_of_metadata {
	const struct space *s;
	uint8_t *bits;
};

static void bits_of_usage(void *ctx, const struct usage_entry *e)
{
	struct bits_of_metadata *m = ctx;
	bits_set(m->bits, m->s, e->cluster);
}

/* A bit for each cluster that has an owner. OXE_CORRUPT: not all owners are known. */
static int owners_collect(struct space *s, uint8_t *bits)
{
	struct bits_of_metadata m = {s, bits};
	struct layer *l;
	int err = catalog_is_damaged(s->pool->catalog) || s->pool->records_lost ? OXE_CORRUPT : 0;
	list_for_each (l, catalog_layers(s->pool->catalog), age)
		err = err ? err : bits_of_layer(s, l, bits);
	metapages_walk(s->pool->metapages, bits_of_usage, &m);
	return err;
}

static int leaf_rebuild(struct space *s, uint64_t leaf, const uint8_t *bits)
{
	struct page *p;
	int err = page_drop_lost(&s->bitmap, leaf);
	if (!err)
		err = page_get(&s->bitmap, 0, leaf, true, &p);
	if (err)
		return err;
	uint64_t first = leaf * BITMAP_BITS_PER_PAGE;
	uint64_t count = u64_min(s->pool->cluster_count - first, BITMAP_BITS_PER_PAGE);
	memcpy(page_edit(p), bits + first / 8, u64_div_up(count, 8));
	s->lost[leaf] = false;
	s->free_in_leaf[leaf] = count_free_bits(s, leaf, p);
	s->free_bits += s->free_in_leaf[leaf];
	s->pool->pages_lost--;
	page_unpin(p);
	return 0;
}

static bool any_lost(const struct space *s)
{
	for (uint64_t leaf = 0; leaf < s->leaf_count; leaf++) {
		if (s->lost[leaf])
			return true;
	}
	return false;
}

int space_rebuild_lost(struct space *s)
{
	if (!any_lost(s))
		return 0;
	uint8_t *bits = calloc(1, s->pool->cluster_count / 8 + 1);
	if (!bits)
		return OXE_NOMEM;
	int err = owners_collect(s, bits);
	for (uint64_t leaf = 0; !err && leaf < s->leaf_count; leaf++)
		err = s->lost[leaf] ? leaf_rebuild(s, leaf, bits) : 0;
	LOG_WARN("pool.bitmap_rebuilt", "which clusters are free was found out again from the maps",
		 F_UUID("pool", &s->pool->ident.id), F_ERR(err));
	free(bits);
	return err == OXE_CORRUPT ? 0 : err;
}

/* ---- readers and quarantine ------------------------------------------------------------------------------------------ */

static void release_drained(struct space *s)
{
	unsigned old = (s->read_generation + 1) & 1;
	while (s->readers[old] == 0 || MUTANT(33)) {
		struct u32list *l = &s->draining[old];
		bool younger_wait = s->draining[old ^ 1].count + s->waiting[old ^ 1] > 0;
		for (size_t i = 0; i < l->count; i++) {
			u32map_remove(&s->blocked, l->items[i]);
			discard_add(s->pool->discard, l->items[i]);
		}
		if (l->count + s->waiting[old] > 0)
			waitq_wake_all(&s->drained);
		l->count = 0;
		s->waiting[old] = 0;
		if (!younger_wait)
			return;
		s->read_generation++; /* new readers count on the other side; what waited there drains next */
		old ^= 1;
	}
}

uint32_t space_read_enter(struct space *s)
{
	uint32_t side = s->read_generation & 1;
	s->readers[side]++;
	return side;
}

void space_read_leave(struct space *s, uint32_t side)
{
	assert(s->readers[side] > 0);
	if (--s->readers[side] == 0)
		release_drained(s);
}

void space_readers_wait(struct space *s)
{
	uint64_t mine = s->read_generation; /* the readers there are now are of this one or the one before */
	s->waiting[mine & 1]++;
	release_drained(s);
	while (s->read_generation == mine || (s->read_generation == mine + 1 && s->readers[mine & 1] > 0))
		waitq_wait(&s->drained);
}

void space_durable(struct space *s, uint64_t seq)
{
	struct freed_queue *q = &s->quarantine;
	bool moved = false;
	for (; q->count > 0 && q->items[q->first].seq <= seq; q->first++, q->count--, moved = true)
		u32list_add(&s->draining[s->read_generation & 1], q->items[q->first].cluster);
	if (q->count == 0)
		q->first = 0;
	if (moved)
		release_drained(s);
}

static void quarantine_add(struct space *s, uint32_t cluster, uint64_t seq)
{
	struct freed_queue *q = &s->quarantine;
	if (q->first + q->count == q->capacity) {
		if (q->count > 0)
			memmove(q->items, q->items + q->first, q->count * sizeof(*q->items));
		q->first = 0;
		if (q->count * 2 >= q->capacity) {
			q->capacity = q->capacity ? q->capacity * 2 : 64;
			q->items = mem_realloc(q->items, q->capacity * sizeof(*q->items));
		}
	}
	q->items[q->first + q->count++] = (struct freed){cluster, seq};
	u32map_put(&s->blocked, cluster, 0);
	discard_expect(s->pool->discard);
	if (q->count == QUARANTINE_MAX)
		flush_ask(s->pool->flush);
}

bool space_has_quarantine(const struct space *s)
{
	return s->quarantine.count + s->draining[0].count + s->draining[1].count > 0;
}

/* ---- clusters -------------------------------------------------------------------------------------------------------- */

static uint64_t usable(const struct space *s, uint64_t keep)
{
	uint64_t taken = s->blocked.count + keep;
	return s->free_bits > taken ? s->free_bits - taken : 0;
}

int space_bitmap_pin(struct space *s, uint32_t cluster, struct page **out)
{
	uint64_t leaf = cluster / BITMAP_BITS_PER_PAGE;
	*out = NULL;
	if (cluster < s->pool->first_cluster || cluster >= s->pool->cluster_count)
		return OXE_CORRUPT;
	if (s->lost[leaf])
		return 0;
	int err = page_get(&s->bitmap, 0, leaf, true, out);
	if (err != OXE_CORRUPT)
		return err;
	*out = NULL;
	return leaf_disown(s, leaf);
}

static int mark(struct space *s, uint32_t cluster, bool used)
{
	if (cluster < s->pool->first_cluster || cluster >= s->pool->cluster_count)
		return OXE_CORRUPT;
	uint64_t leaf = cluster / BITMAP_BITS_PER_PAGE, bit = cluster % BITMAP_BITS_PER_PAGE;
	if (s->lost[leaf])
		return 0;
	struct page *p = page_peek(&s->bitmap, 0, leaf, NULL);
	assert(p); /* the caller pinned it: space_bitmap_pin, or a window */
	const uint8_t *bits = page_view(p);
	if ((bits[bit / 8] >> bit % 8 & 1) == used)
		return OXE_CORRUPT;
	uint8_t *edit = page_edit(p);
	edit[bit / 8] ^= (uint8_t)(1u << bit % 8);
	s->free_in_leaf[leaf] += used ? -1u : 1u;
	s->free_bits += used ? -(uint64_t)1 : 1;
	return 0;
}

int space_mark_used(struct space *s, uint32_t cluster)
{
	int err = mark(s, cluster, true);
	if (!err)
		u32map_remove(&s->blocked, cluster); /* it left its window */
	return err;
}

int space_mark_free(struct space *s, uint32_t cluster, uint64_t seq)
{
	int err = mark(s, cluster, false);
	if (!err && !MUTANT(32) && !s->lost[cluster / BITMAP_BITS_PER_PAGE])
		quarantine_add(s, cluster, seq);
	return err;
}

static bool is_marked(struct space *s, uint32_t cluster)
{
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE;
	struct page *p = page_peek(&s->bitmap, 0, cluster / BITMAP_BITS_PER_PAGE, NULL);
	const uint8_t *bits = p ? page_view(p) : NULL;
	return bits && (bits[bit / 8] >> bit % 8 & 1);
}

int space_claim(struct space *s, uint32_t cluster)
{
	if (cluster < s->pool->first_cluster || cluster >= s->pool->cluster_count)
		return OXE_CORRUPT;
	return is_marked(s, cluster) ? 0 : space_mark_used(s, cluster);
}

static bool cluster_is_free(const struct space *s, const uint8_t *bits, uint64_t cluster)
{
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE;
	return !(bits[bit / 8] >> bit % 8 & 1) && !u32map_get(&s->blocked, (uint32_t)cluster, NULL);
}

/* The first run of up to `want` free clusters in [from, to), all under one page. Length 0: none. */
static uint32_t find_run(const struct space *s, const struct page *p, uint64_t from, uint64_t to,
			 uint32_t want, uint64_t *start)
{
	const uint8_t *bits = page_view(p);
	uint32_t length = 0;
	for (uint64_t c = from; c < to && length < want; c++) {
		if (length == 0 && c % 8 == 0 && bits[c % BITMAP_BITS_PER_PAGE / 8] == 0xff) {
			c += 7;
			continue;
		}
		if (cluster_is_free(s, bits, c)) {
			if (length++ == 0)
				*start = c;
		} else if (length > 0) {
			break;
		}
	}
	return length;
}

/* Search one leaf, from `from` on. A pinned page and a run, or length 0 and no pin. */
static int search_leaf(struct space *s, uint64_t leaf, uint64_t from, uint32_t want, struct page **page,
		       uint64_t *start, uint32_t *length)
{
	uint64_t first;
	uint64_t to = leaf_span(s, leaf, &first);
	to += first;
	*length = 0;
	if (s->free_in_leaf[leaf] == 0)
		return 0;
	int err = page_get(&s->bitmap, 0, leaf, true, page);
	if (err == OXE_CORRUPT && leaf_disown(s, leaf))
		return OXE_CORRUPT;
	if (err)
		return err;
	*length = find_run(s, *page, u64_max(first, from), to, want, start);
	if (*length == 0)
		page_unpin(*page);
	return 0;
}

/* Next fit over the whole pool. A leaf that cannot be read is passed over: it costs its own clusters, not the pool (S9). */
static int find_clusters(struct space *s, uint32_t want, struct page **page, uint64_t *start,
			 uint32_t *length)
{
	uint64_t first_leaf = s->cursor / BITMAP_BITS_PER_PAGE;
	int err = 0;
	for (uint64_t i = 0; i <= s->leaf_count; i++) {
		uint64_t leaf = (first_leaf + i) % s->leaf_count;
		int leaf_err = search_leaf(s, leaf, i == 0 ? s->cursor : 0, want, page, start, length);
		err = leaf_err ? leaf_err : err;
		if (!leaf_err && *length > 0) {
			s->cursor = *start + *length;
			if (s->cursor >= s->pool->cluster_count)
				s->cursor = s->pool->first_cluster;
			return 0;
		}
	}
	return err ? err : OXE_NOSPC;
}

static void windows_take_back(struct space *s)
{
	while (!list_empty(&s->windows))
		space_window_release(s, list_first(&s->windows, struct space_window, link));
}

/* Something comes back by itself: when readers leave, or a discard ends. */
static bool will_drain(const struct space *s)
{
	return s->held > 0 || (space_has_quarantine(s) && s->quarantine.count == 0);
}

/* Try to have an ordinary cluster available: reclaim quarantine and other writers' windows before saying the pool is full. */
static int make_usable(struct space *s)
{
	while (usable(s, s->reserve_clusters) == 0) {
		windows_take_back(s);
		if (usable(s, s->reserve_clusters) > 0)
			return 0;
		if (!space_has_quarantine(s) && s->held == 0)
			return OXE_NOSPC;
		int err = space_has_quarantine(s) ? flush_wait(s->pool->flush) : 0;
		if (err)
			return err;
		if (usable(s, s->reserve_clusters) == 0 && will_drain(s))
			waitq_wait(&s->drained);
	}
	return 0;
}

/* Writers move through the pool in one direction: tell the disk where they will be next, before they are there. */
static void expect_ahead(struct space *s, uint64_t start)
{
	bool is_inside = start >= s->ahead_from && start < s->ahead_to;
	if (is_inside && s->ahead_to - start > AHEAD_CLUSTERS / 2)
		return;
	uint64_t from = is_inside ? s->ahead_to : start;
	s->ahead_from = start;
	s->ahead_to = u64_min(from + AHEAD_CLUSTERS, s->pool->cluster_count);
	if (s->ahead_to > from)
		rt_disk_expect(s->pool->disk, (s->ahead_to - from) * POOL_CLUSTER_BYTES,
			       from * POOL_CLUSTER_BYTES);
}

int space_window_fill(struct space *s, struct space_window *w)
{
	struct page *page;
	uint64_t start;
	uint32_t length;
	while (w->next == w->end) {
		int err = make_usable(s);
		if (err)
			return err;
		w->want = (uint32_t)u64_min(w->want ? w->want * 2 : 1, WINDOW_MAX);
		uint32_t want = (uint32_t)u64_min(w->want, u64_div_up(usable(s, s->reserve_clusters), 8));
		err = find_clusters(s, want, &page, &start, &length);
		if (err)
			return err;
		if (w->next != w->end || usable(s, s->reserve_clusters) < length) { /* somebody was faster */
			page_unpin(page);
			continue;
		}
		expect_ahead(s, start);
		w->next = (uint32_t)start;
		w->end = w->next + length;
		w->bitmap = page; /* keeps the pin */
		for (uint32_t c = w->next; c < w->end; c++)
			u32map_put(&s->blocked, c, 0);
		list_add_tail(&s->windows, &w->link);
	}
	return 0;
}

static void window_empty(struct space_window *w)
{
	list_del(&w->link);
	page_unpin(w->bitmap);
	w->next = w->end = 0;
	w->bitmap = NULL;
}

/* The caller pins the bitmap page again if it suspends before the record is applied. */
uint32_t space_window_take(struct space *s, struct space_window *w)
{
	(void)s;
	assert(w->next < w->end);
	uint32_t cluster = w->next++;
	if (w->next == w->end)
		window_empty(w);
	return cluster;
}

void space_window_release(struct space *s, struct space_window *w)
{
	if (w->next == w->end)
		return;
	for (uint32_t c = w->next; c < w->end; c++)
		u32map_remove(&s->blocked, c);
	window_empty(w);
	w->want = 0;
}

void space_untake(struct space *s, uint32_t cluster)
{
	u32map_remove(&s->blocked, cluster);
}

/* The next best place; nobody's window, no reserve. Quarantine is hurried along before giving up. */
int space_cluster_take(struct space *s, uint32_t *cluster)
{
	struct page *page;
	uint64_t start;
	uint32_t length;
	int err = find_clusters(s, 1, &page, &start, &length);
	if (err == OXE_NOSPC && space_has_quarantine(s)) {
		err = flush_wait(s->pool->flush);
		if (!err)
			err = find_clusters(s, 1, &page, &start, &length);
	}
	while (err == OXE_NOSPC && s->held > 0) {
		waitq_wait(&s->drained);
		err = find_clusters(s, 1, &page, &start, &length);
	}
	if (err)
		return err;
	err = mark(s, (uint32_t)start, true);
	assert(!err);
	page_unpin(page);
	*cluster = (uint32_t)start;
	return 0;
}

void space_cluster_cool(struct space *s, uint32_t cluster)
{
	int err = mark(s, cluster, false);
	assert(!err);
	u32map_put(&s->blocked, cluster, 0);
}

void space_cluster_usable(struct space *s, uint32_t cluster)
{
	u32map_remove(&s->blocked, cluster);
	discard_add(s->pool->discard, cluster);
}

/* What is held will be there when it is needed. */
int space_admit_metadata(const struct space *s)
{
	return s->free_bits + s->held > s->blocked.count + s->reserve_clusters / 2 ? 0 : OXE_NOSPC;
}

/* ---- discards -------------------------------------------------------------------------------------------------------- */

bool space_is_owned(const struct page *leaf, uint64_t cluster)
{
	const uint8_t *bits = page_view(leaf);
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE;
	return bits[bit / 8] >> bit % 8 & 1;
}

bool space_is_free(const struct space *s, const struct page *leaf, uint64_t cluster)
{
	return cluster >= s->pool->first_cluster && cluster < s->pool->cluster_count &&
	       cluster_is_free(s, page_view(leaf), cluster);
}

/* A sparse file gets the space back that it took ahead for the next writers: they have to tell it again. */
void space_hold(struct space *s, uint32_t from, uint32_t to)
{
	for (uint32_t c = from; c < to && !MUTANT(65); c++)
		u32map_put(&s->blocked, c, 0);
	s->held += MUTANT(65) ? 0 : to - from;
	if (from < s->ahead_to && to > s->ahead_from)
		s->ahead_to = u64_max(s->ahead_from, from);
}

void space_unhold(struct space *s, uint32_t from, uint32_t to)
{
	if (MUTANT(65))
		return;
	for (uint32_t c = from; c < to; c++)
		u32map_remove(&s->blocked, c);
	s->held -= to - from;
	waitq_wake_all(&s->drained);
}

uint32_t space_leaf_free(const struct space *s, uint64_t leaf)
{
	return s->free_in_leaf[leaf];
}

struct tree *space_bitmap(struct space *s)
{
	return &s->bitmap;
}

void space_numbers(const struct space *s, struct space_numbers *out)
{
	*out = (struct space_numbers){
		.free_clusters = s->free_bits,
		.usable_clusters = usable(s, s->reserve_clusters),
		.metadata_clusters = metapages_clusters(s->pool->metapages),
		.reserve_clusters = s->reserve_clusters,
		.quarantined_clusters = s->quarantine.count + s->draining[0].count + s->draining[1].count,
	};
}
