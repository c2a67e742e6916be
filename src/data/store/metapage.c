/*
 * metapage.c: see metapage.h.
 *
 * The table is an array of {cluster, used, held}. A page is ready if neither mask has it.
 */
#include "data/store/metapage.h"

#include "base/log.h"
#include "base/u32map.h"
#include "data/store/space.h"
#include "data/store/store.h"

struct cluster_list {
	uint32_t *items;
	size_t count, capacity;
};

/* What checkpoint g gives up stays as it is until checkpoint g + 1 is durable: until then g - 1 is the fallback. Three
 * generations are in the air at once: g - 1 waiting, g being written, g + 1 collecting. */
#define GENERATIONS 3u

struct held {
	uint64_t *pages;
	size_t count, capacity;
	struct cluster_list cooling; /* whole metadata clusters that went back to the bitmap */
};

struct metapages {
	struct pool *pool;
	struct usage_entry *table;
	size_t count, capacity, cursor;
	uint64_t ready;
	struct u32map index;	       /* cluster -> index in the table */
	struct held held[GENERATIONS]; /* by generation % GENERATIONS of the checkpoint that frees them */
	uint64_t next_generation;      /* of the checkpoint being prepared */
	uint64_t *usage_pages;	       /* where the newest usage table lies */
	uint32_t usage_page_count;
};

struct metapages *metapages_new(struct pool *pool)
{
	struct metapages *m = mem_zalloc(sizeof(*m));
	m->pool = pool;
	return m;
}

void metapages_free(struct metapages *m)
{
	for (unsigned i = 0; i < GENERATIONS; i++) {
		free(m->held[i].pages);
		free(m->held[i].cooling.items);
	}
	free(m->usage_pages);
	free(m->table);
	u32map_free(&m->index);
	free(m);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

/* Records about a page that could not be read are passed over: should it be readable a moment later, it must not be believed. Not
 * until recovery begins again, or the next start. */
static bool is_given_up(const struct pool *pool, uint64_t page)
{
	for (size_t i = 0; i < pool->given_up_count; i++) {
		if (pool->given_up[i] == page)
			return !MUTANT(72);
	}
	return false;
}

static void give_up(struct pool *pool, uint64_t page)
{
	LOG_ERROR("pool.page_unreadable",
		  "a metadata page cannot be read: what hangs under it is lost for now",
		  F_UUID("pool", &pool->ident.id), F_U64("page", page));
	pool->given_up = mem_realloc(pool->given_up, (pool->given_up_count + 1) * sizeof(*pool->given_up));
	pool->given_up[pool->given_up_count++] = page;
}

/* Something else is written there now. */
static void forget_given_up(struct pool *pool, uint64_t page)
{
	for (size_t i = 0; i < pool->given_up_count; i++) {
		if (pool->given_up[i] == page)
			pool->given_up[i] = pool->given_up[--pool->given_up_count];
	}
}

/* A path that fails over, or a disk that has just been plugged in, is waited for, once. */
static int read_patiently(struct pool *pool, uint64_t page, uint8_t *image)
{
	int err = OXE_IO;
	for (unsigned i = 0; err == OXE_IO && i < READ_TRIES; i++) {
		if (!pool->has_waited)
			fiber_sleep(READ_WAIT_NS);
		err = rt_disk_read(pool->disk, image, PAGE_BYTES, page * PAGE_BYTES);
	}
	pool->has_waited = true;
	return err;
}

/* The superblock that this began with could be read. If it no longer can, it is not the page. */
static int disk_error(struct pool *pool, uint8_t *image)
{
	return MUTANT(73) ? 0
			  : rt_disk_read(pool->disk, image, SUPER_BYTES,
					 pool->ident.generation % 2 * SUPER_SLOT_BYTES);
}

int metapage_read(struct pool *pool, uint64_t page, uint8_t *image)
{
	if (is_given_up(pool, page))
		return OXE_CORRUPT;
	int err = rt_disk_read(pool->disk, image, PAGE_BYTES, page * PAGE_BYTES);
	if (err != OXE_IO || !pool->recovering)
		return err;
	err = read_patiently(pool, page, image);
	if (err != OXE_IO || disk_error(pool, image))
		return err;
	give_up(pool, page);
	return OXE_CORRUPT;
}

/* ---- the table ---------------------------------------------------------------------------------------------------------- */

static void cluster_list_add(struct cluster_list *l, uint32_t value)
{
	if (l->count == l->capacity) {
		l->capacity = l->capacity ? l->capacity * 2 : 16;
		l->items = mem_realloc(l->items, l->capacity * sizeof(*l->items));
	}
	l->items[l->count++] = value;
}

static void table_add(struct metapages *m, struct usage_entry entry)
{
	if (m->count == m->capacity) {
		m->capacity = m->capacity ? m->capacity * 2 : 64;
		m->table = mem_realloc(m->table, m->capacity * sizeof(*m->table));
	}
	u32map_put(&m->index, entry.cluster, (uint32_t)m->count);
	m->table[m->count++] = entry;
	m->ready += (unsigned)__builtin_popcount((uint16_t) ~(entry.used | entry.held));
}

static struct held *held_by(struct metapages *m, uint64_t generation)
{
	return &m->held[generation % GENERATIONS];
}

static void hold_page(struct metapages *m, uint64_t generation, uint64_t page)
{
	struct held *h = held_by(m, generation);
	if (h->count == h->capacity) {
		h->capacity = h->capacity ? h->capacity * 2 : 64;
		h->pages = mem_realloc(h->pages, h->capacity * sizeof(*h->pages));
	}
	h->pages[h->count++] = page;
}

static int usage_entry_load(struct metapages *m, const struct usage_entry *e)
{
	if (e->cluster == 0)
		return 0;
	if (e->cluster < m->pool->first_cluster || e->cluster >= m->pool->cluster_count ||
	    (e->used & e->held) || u32map_get(&m->index, e->cluster, NULL))
		return OXE_CORRUPT;
	table_add(m, *e);
	for (unsigned i = 0; i < PAGES_PER_CLUSTER; i++) {
		if (e->held >> i & 1)
			hold_page(m, m->next_generation - 1, (uint64_t)e->cluster * PAGES_PER_CLUSTER + i);
	}
	return 0;
}

static int usage_page_load(struct metapages *m, uint32_t index, uint64_t *page, uint8_t *image)
{
	struct pool *pool = m->pool;
	if (*page == 0 || *page >= pool->cluster_count * PAGES_PER_CLUSTER)
		return OXE_CORRUPT;
	int err = metapage_read(pool, *page, image);
	if (!err)
		err = page_believe(pool, image, PAGE_USAGE, 0, 0, index, *page,
				   (uint32_t)pool->ident.generation);
	const struct usage_entry *entries = (void *)(image + PAGE_HEADER_BYTES);
	for (uint32_t k = 0; !err && k < USAGE_PER_PAGE; k++)
		err = usage_entry_load(m, &entries[k]);
	m->usage_pages[index] = *page;
	*page = le64_get(((struct page_header_disk *)image)->next);
	return err;
}

int metapages_load(struct metapages *m, uint64_t page, uint32_t page_count)
{
	m->next_generation = m->pool->ident.generation + 1;
	uint8_t *image = page_image_alloc();
	int err = 0;
	if (page_count > m->pool->cluster_count / USAGE_PER_PAGE + 1)
		err = OXE_CORRUPT;
	else
		m->usage_pages = mem_realloc(m->usage_pages, page_count * sizeof(*m->usage_pages));
	for (uint32_t i = 0; !err && i < page_count; i++, m->usage_page_count++)
		err = usage_page_load(m, i, &page, image);
	free(image);
	return err;
}

uint64_t metapages_ready(const struct metapages *m)
{
	return m->ready;
}

uint64_t metapages_clusters(const struct metapages *m)
{
	return m->count;
}

static int table_grow(struct metapages *m)
{
	uint32_t cluster;
	int err = space_cluster_take(m->pool->space, &cluster);
	if (!err)
		table_add(m, (struct usage_entry){.cluster = cluster});
	return err;
}

int metapages_reserve(struct metapages *m, uint64_t pages)
{
	int err = 0;
	while (!err && m->ready < pages)
		err = table_grow(m);
	return err;
}

uint64_t metapage_alloc(struct metapages *m)
{
	assert(m->ready > 0);
	for (;; m->cursor++) {
		if (m->cursor >= m->count)
			m->cursor = 0;
		struct usage_entry *e = &m->table[m->cursor];
		uint16_t ready = (uint16_t) ~(e->used | e->held);
		if (!ready)
			continue;
		unsigned i = (unsigned)__builtin_ctz(ready);
		e->used |= (uint16_t)(1u << i);
		m->ready--;
		uint64_t page = (uint64_t)e->cluster * PAGES_PER_CLUSTER + i;
		forget_given_up(m->pool, page);
		return page;
	}
}

static struct usage_entry *usage_of(struct metapages *m, uint64_t page, uint16_t *bit)
{
	uint32_t index;
	bool known = u32map_get(&m->index, (uint32_t)(page / PAGES_PER_CLUSTER), &index);
	assert(known);
	*bit = (uint16_t)(1u << page % PAGES_PER_CLUSTER);
	return &m->table[index];
}

bool metapage_is_used(const struct metapages *m, uint64_t page)
{
	uint32_t index;
	return u32map_get(&m->index, (uint32_t)(page / PAGES_PER_CLUSTER), &index) &&
	       (m->table[index].used >> page % PAGES_PER_CLUSTER & 1);
}

void metapage_free(struct metapages *m, uint64_t page)
{
	uint16_t bit;
	struct usage_entry *e = usage_of(m, page, &bit);
	assert(e->used & bit);
	e->used &= (uint16_t)~bit;
	e->held |= bit;
	hold_page(m, m->next_generation, page);
}

void metapages_frozen(struct metapages *m)
{
	m->next_generation++;
}

void metapages_durable(struct metapages *m, uint64_t generation)
{
	struct held *h = held_by(m, MUTANT(34) ? generation : generation - 1);
	for (size_t i = 0; i < h->count; i++) {
		uint16_t bit;
		struct usage_entry *e = usage_of(m, h->pages[i], &bit);
		assert(e->held & bit);
		e->held &= (uint16_t)~bit;
		m->ready++;
	}
	h->count = 0;
	for (size_t i = 0; i < h->cooling.count; i++)
		space_cluster_usable(m->pool->space, h->cooling.items[i]);
	h->cooling.count = 0;
}

static void table_remove(struct metapages *m, size_t index)
{
	u32map_remove(&m->index, m->table[index].cluster);
	m->ready -= PAGES_PER_CLUSTER;
	m->table[index] = m->table[--m->count];
	if (index < m->count)
		u32map_put(&m->index, m->table[index].cluster, (uint32_t)index);
}

static int table_give_back(struct metapages *m, size_t index)
{
	struct page *page;
	uint32_t cluster = m->table[index].cluster;
	int err = space_bitmap_pin(m->pool->space, cluster, &page);
	if (err)
		return err;
	if (index < m->count && m->table[index].cluster == cluster && !m->table[index].used &&
	    !m->table[index].held) {
		space_cluster_cool(m->pool->space, cluster);
		cluster_list_add(&held_by(m, m->next_generation)->cooling, cluster);
		table_remove(m, index);
	}
	if (page)
		page_unpin(page);
	return 0;
}

/* Keep a quarter as many ready pages as are used, and a few: what a checkpoint gives back, the next one takes again. */
int metapages_trim(struct metapages *m)
{
	uint64_t keep = m->pool->dirty_limit / 4 + m->count * PAGES_PER_CLUSTER / 4 + 64;
	int err = 0;
	for (size_t i = m->count; !err && i-- > 0 && m->ready > keep;) {
		if (i < m->count && !m->table[i].used && !m->table[i].held)
			err = table_give_back(m, i);
	}
	return err;
}

uint32_t metapages_table_pages(const struct metapages *m)
{
	return (uint32_t)u64_div_up(m->count, USAGE_PER_PAGE);
}

static struct frozen *usage_image(const struct metapages *m, uint32_t index)
{
	struct frozen *f = mem_zalloc(sizeof(*f));
	size_t first = (size_t)index * USAGE_PER_PAGE;
	size_t entries = u64_min(m->count - first, USAGE_PER_PAGE);
	*f = (struct frozen){.address = m->usage_pages[index], .index = index, .kind = PAGE_USAGE};
	f->next = index + 1 < m->usage_page_count ? m->usage_pages[index + 1] : 0;
	f->data = page_image_alloc();
	memset(f->data, 0, PAGE_BYTES);
	memcpy(f->data + PAGE_HEADER_BYTES, m->table + first, entries * sizeof(*m->table));
	return f;
}

uint64_t metapages_table_freeze(struct metapages *m, struct frozen **images[], size_t *count,
				size_t *capacity)
{
	for (uint32_t i = 0; i < m->usage_page_count; i++)
		metapage_free(m, m->usage_pages[i]);
	m->usage_page_count = metapages_table_pages(m);
	m->usage_pages = mem_realloc(m->usage_pages, m->usage_page_count * sizeof(*m->usage_pages));
	for (uint32_t i = 0; i < m->usage_page_count; i++)
		m->usage_pages[i] = metapage_alloc(m);
	for (uint32_t i = 0; i < m->usage_page_count; i++)
		frozen_add(usage_image(m, i), images, count, capacity);
	return m->usage_page_count ? m->usage_pages[0] : 0;
}

void metapages_walk_table_pages(const struct metapages *m, void (*fn)(void *ctx, uint64_t page), void *ctx)
{
	for (uint32_t i = 0; i < m->usage_page_count; i++)
		fn(ctx, m->usage_pages[i]);
}

void metapages_walk(const struct metapages *m, void (*fn)(void *ctx, const struct usage_entry *e), void *ctx)
{
	for (size_t i = 0; i < m->count; i++)
		fn(ctx, &m->table[i]);
}
