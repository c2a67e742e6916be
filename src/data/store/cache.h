/*
 * cache.h: metadata pages in memory, paged in on demand under a limit, frozen for checkpoints.
 *
 *              page_get: read and believed            page_edit
 *     (disk) ------------------------------> clean -------------> dirty <---.
 *        ^                                     |  ^                 |       | page_edit: the image is
 *        |  evicted: unpinned, least recent    |  |                 |       | copied first if a checkpoint
 *        `-------------------------------------'  '----- freeze ----'-------' still has to write it
 *                                                  (new address; image kept until written)
 *
 *   - A page keeps its parent resident, so marking a path dirty never needs I/O.
 *   - A dirty page is never evicted and never written in place: cache_freeze gives it a new address (S4).
 *   - An empty MAP or NOTE page is not written at all: freeze drops it from its parent.
 *
 * Belongs to one pool. Only page_get and page_next suspend.
 */
#ifndef OXBOW_DATA_STORE_CACHE_H
#define OXBOW_DATA_STORE_CACHE_H

#include "data/store/page_format.h"
#include "rt/rt.h"

struct pool;
struct cache;

struct root {
	uint64_t page;
	uint32_t generation, height;
};

struct tree {
	struct pool *pool;
	enum page_kind kind;
	uint64_t owner;
	struct root root;
	struct list pages;     /* resident */
	struct layer *layer;   /* whose map this is, */
	struct volume *volume; /* or whose notes; both NULL for the pool's own trees */
	bool lost; /* where its root is was on a page that cannot be believed: every page of it is OXE_CORRUPT */
};

struct frozen;

struct page {
	struct page *hash_next;
	struct tree *tree;
	uint64_t index;
	uint8_t level;
	bool dirty, loading, referenced;
	int error;	     /* of the load, for those who waited */
	uint32_t pins;	     /* callers, and resident children */
	uint64_t address;    /* 0: not on disk yet */
	uint32_t generation; /* of the image at address */
	uint8_t *data;	     /* PAGE_BYTES; the header part is not kept up */
	struct frozen *frozen;
	struct page *parent;
	struct list tree_link, lru_link, dirty_link;
	struct waitq waiters;
};

/* An image on its way to disk. Owned by the checkpoint. */
struct frozen {
	struct page *page; /* NULL once the page is gone */
	uint8_t *data;	   /* shared with page->data until that is edited */
	uint64_t address, index, owner;
	uint64_t next; /* of a usage page */
	uint8_t kind, level;
};

struct cache *cache_new(struct pool *pool, uint64_t limit_bytes);
void cache_free(struct cache *cache);
uint64_t cache_dirty_count(const struct cache *cache);
uint64_t cache_page_count(const struct cache *cache);
uint64_t cache_miss_count(const struct cache *cache);

/* Memory for one page, as aligned as the device wants it. Cannot fail, as mem_alloc (base.h). What is larger is asked for with
 * io_alloc (store.h). */
uint8_t *page_image_alloc(void);

void tree_init(struct tree *t, struct pool *pool, enum page_kind kind, uint64_t owner, struct root root);
/* Forget the tree's pages; those on disk are given back with the next checkpoint. Nothing may be pinned. */
void tree_discard(struct tree *t);
/* Before that, when every page of it that can be believed is resident: what else it names cannot be, and its place is given back with
 * the next checkpoint. (But what an inner page that cannot be believed names is not known, and stays in use.) */
void tree_give_back_lost(struct tree *t);
/* Leaves a tree of this height can hold. */
uint64_t tree_leaf_capacity(uint32_t height);
/* Levels needed for `leaf_count` leaves. */
uint32_t tree_height_for(uint64_t leaf_count);
/* Raise the tree so that it can hold leaf_count leaves. A root that cannot be believed stays where it is, under the new one:
 * what hangs under it is lost, the rest of the tree is not. Suspends (a resident root must know what is above it now). */
OX_CHECKED int tree_raise(struct tree *t, uint64_t leaf_count);

/* A pinned page. OXE_NOENT if there is none and `create` is false, OXE_CORRUPT, OXE_IO. Suspends if it is not resident. */
OX_CHECKED int page_get(struct tree *t, unsigned level, uint64_t index, bool create, struct page **out);
/* Leaf `index` cannot be believed: let nobody believe it ever again, should it be readable later. For when what it said is no
 * longer true, and could not be changed. The page above keeps its address, without a generation. Suspends. */
OX_CHECKED int page_disown(struct tree *t, uint64_t index);
/* Leaf `index` cannot be believed, and what it said is known from elsewhere: take it out of the tree, with all that hangs under the
 * topmost page that cannot be believed. The next page_get creates it. Suspends. */
OX_CHECKED int page_drop_lost(struct tree *t, uint64_t index);
/* Leaf `index` cannot be believed, and is to be written anew, all of it: an empty page in its place, pinned. OXE_CORRUPT if what
 * cannot be believed is above it. For who changes the page in the same breath. Suspends. */
OX_CHECKED int page_renew(struct tree *t, uint64_t index, struct page **out);
/* The pinned leaf with the least index >= *index that exists, and its index; OXE_NOENT after the last. Suspends. */
OX_CHECKED int page_next_leaf(struct tree *t, uint64_t *index, struct page **out);
/* The page if it is resident and loaded, without a pin; else NULL. *absent (may be NULL) tells "known not to exist". */
struct page *page_peek(struct tree *t, unsigned level, uint64_t index, bool *absent);
void page_unpin(struct page *p);
static inline void page_pin(struct page *p)
{
	p->pins++;
}

/* The payload, for reading, and for changing (then the page and those above it are dirty). */
static inline const void *page_view(const struct page *p)
{
	return p->data + PAGE_HEADER_BYTES;
}
void *page_edit(struct page *p);

/* The checkpoint's instant: every dirty page gets an address from the space and becomes an image to write; parents and
 * roots point to the new places. Images are appended to *images (an array grown with mem_realloc). Trees of the given kind
 * only. Does not suspend. */
void cache_freeze(struct cache *cache, enum page_kind kind, uint32_t generation, struct frozen **images[],
		  size_t *count, size_t *capacity);
void frozen_add(struct frozen *f, struct frozen **images[], size_t *count, size_t *capacity);
/* An image is on disk: forget it. */
void frozen_release(struct frozen *f);
/* Write the header of `f` into `image` (PAGE_BYTES, payload already there) and seal it with its CRC. */
void page_seal(struct pool *pool, const struct frozen *f, uint64_t generation, uint8_t *image);
/* Check a page read from `address`. 0 or OXE_CORRUPT, logged with the reason. */
OX_CHECKED int page_believe(struct pool *pool, const uint8_t *image, enum page_kind kind, uint64_t owner,
			    unsigned level, uint64_t index, uint64_t address, uint32_t generation);

#endif
