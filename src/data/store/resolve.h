/*
 * resolve.h: which layer of a chain says what a block is (S1), and a memory of the answers (S7).
 *
 * From the top down, the first layer whose entry defines a block decides. Sealed layers do not change, so the answer for the
 * sealed part of a chain is kept, for whole clusters: a chain of 250 is walked once. A merge changes where sealed data lies:
 * it forgets the cluster in every chain.
 */
#ifndef OXBOW_DATA_STORE_RESOLVE_H
#define OXBOW_DATA_STORE_RESOLVE_H

#include "data/store/store.h"

#define BLOCKS_PER_CLUSTER (POOL_CLUSTER_BYTES / POOL_BLOCK_BYTES)
static_assert(BLOCKS_PER_CLUSTER == 16, "masks are 16 bits");

/* Where the asked-for blocks of one cluster are. Every block is in exactly one of `hole`, `zero` or a part. */
struct resolved {
	uint16_t hole; /* no layer says anything */
	uint16_t zero; /* a layer says zeroes */
	uint16_t part_count;
	uint16_t masks[BLOCKS_PER_CLUSTER];
	uint32_t clusters[BLOCKS_PER_CLUSTER];
};

struct resolve_cache *resolve_cache_new(uint64_t limit_bytes);
void resolve_cache_free(struct resolve_cache *c);

/* The top of a chain may change while the answer is being found (a snapshot, a merge): it is asked for again each time. */
typedef struct layer *resolve_top_fn(void *ctx);
/* For a chain whose top stands still: ctx is the layer. */
struct layer *resolve_from(void *ctx);

/* OXE_CORRUPT or OXE_IO if a map page in the way cannot be read. Suspends if a page is not resident. */
OX_CHECKED int resolve_blocks(struct pool *pool, resolve_top_fn *top, void *ctx, uint32_t index,
			      uint16_t mask, struct resolved *out);
/* The first cluster index >= index for which some layer of the chain, from the top down to but without `stop` (NULL: to the
 * root), has a leaf page; OXE_NOENT if none. Suspends. */
OX_CHECKED int resolve_next(struct pool *pool, resolve_top_fn *top, void *ctx, const struct layer *stop,
			    uint32_t index, uint32_t *found);

/* The fold changed cluster `index` of a layer / the shape of a chain. Neither suspends. */
void resolve_forget(struct pool *pool, const struct layer *layer, uint32_t index);
void resolve_forget_all(struct pool *pool);
/* Counts those changes: layers that were looked at before it moved may be gone. */
uint64_t resolve_generation(const struct pool *pool);

#endif
