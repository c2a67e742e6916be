/*
 * metapage.h: who owns which metadata page.
 *
 * Metadata pages live 16 to a cluster. The table of those clusters is small: it is kept in memory and written whole with every
 * checkpoint (the USAGE pages). A page freed by checkpoint g is held until superblock g + 1 is durable, because until then
 * superblock g - 1 is the fallback and its tree still points to it.
 *
 *     ready --alloc--> used by the tree --free--> held --checkpoint g + 1 durable--> ready
 *
 * A cluster with nothing but ready pages may go back to the bitmap; it cools for as long before data can have it.
 */
#ifndef OXBOW_DATA_STORE_METAPAGE_H
#define OXBOW_DATA_STORE_METAPAGE_H

#include "data/store/cache.h"

struct metapages;

struct metapages *metapages_new(struct pool *pool);
void metapages_free(struct metapages *m);
/* Read one page, into PAGE_BYTES. While a pool is opened (pool->recovering) a page that cannot be read, though the superblock can, is
 * OXE_CORRUPT: as lost as one that cannot be believed (S9), in this life of the pool; the next start asks again. OXE_IO: the disk
 * cannot be read, or the pool is open. Suspends. */
OX_CHECKED int metapage_read(struct pool *pool, uint64_t page, uint8_t *image);
/* Read the table of the superblock's generation. Suspends. */
OX_CHECKED int metapages_load(struct metapages *m, uint64_t page, uint32_t page_count);

/* Have at least `pages` pages ready to allocate without waiting. Suspends. */
OX_CHECKED int metapages_reserve(struct metapages *m, uint64_t pages);
uint64_t metapages_ready(const struct metapages *m);
uint64_t metapages_clusters(const struct metapages *m);
uint64_t metapage_alloc(struct metapages *m);
void metapage_free(struct metapages *m, uint64_t page);
/* Does the newest table know this page as part of a tree? */
bool metapage_is_used(const struct metapages *m, uint64_t page);

/* The table: how many pages it takes; and, at the freeze, its new images appended to *images (as cache_freeze). Returns the
 * address of the first, 0 if there is no metadata. */
uint32_t metapages_table_pages(const struct metapages *m);
uint64_t metapages_table_freeze(struct metapages *m, struct frozen **images[], size_t *count,
				size_t *capacity);
/* The freeze of one checkpoint is over / the superblock of `generation` is durable. */
void metapages_frozen(struct metapages *m);
void metapages_durable(struct metapages *m, uint64_t generation);
/* Give clusters that are not needed back to the bitmap. Suspends. */
OX_CHECKED int metapages_trim(struct metapages *m);

/* For the checker: the table's own pages, and every metadata cluster with its masks. */
void metapages_walk_table_pages(const struct metapages *m, void (*fn)(void *ctx, uint64_t page), void *ctx);
void metapages_walk(const struct metapages *m, void (*fn)(void *ctx, const struct usage_entry *e), void *ctx);

#endif
