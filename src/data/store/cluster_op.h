/*
 * cluster_op.h: who is changing which blocks of a cluster right now.
 *
 * Overwrites in place of settled blocks run side by side and only leave a count (inplace_enter). Everything that changes a
 * map entry (first touches, zeroes, merges, and overwrites of unsettled blocks) holds its blocks:
 *
 *     held blocks    nobody else changes them, or writes to them in place
 *     held alone     besides, no write in place anywhere in the cluster is under way: the cluster may go away or be copied
 *
 * A held change is applied to the map when it is committed, but it is not *visible* until it is complete: until then readers
 * get the old entry for the held blocks (cluster_visible). So what a reader has seen is never lost by a crash.
 */
#ifndef OXBOW_DATA_STORE_CLUSTER_OP_H
#define OXBOW_DATA_STORE_CLUSTER_OP_H

#include "data/store/store.h"

struct cluster_op; /* one for each cluster with holds */

struct cluster_hold {
	struct list link;
	struct cluster_op *op; /* NULL: not held */
	uint16_t mask;
	bool changed; /* `old` is what readers see for the blocks in mask */
	struct map_entry old;
};

struct cluster_ops *cluster_ops_new(void);
void cluster_ops_free(struct cluster_ops *ops);

/* Hold the blocks, waiting for others to let go. Several clusters are taken in ascending order of index. Suspends. */
void cluster_hold(struct cluster_ops *ops, struct cluster_hold *h, struct layer *layer, uint32_t index,
		  uint16_t mask, bool alone);
/* From now on, until release, readers of the held blocks see `old`. */
void cluster_hold_changed(struct cluster_hold *h, const struct map_entry *old);
void cluster_release(struct cluster_ops *ops, struct cluster_hold *h);

/* May the blocks be written in place now? If so counts the write in; inplace_leave when done. */
bool inplace_enter(struct cluster_ops *ops, const struct layer *layer, uint32_t index, uint16_t mask);
void inplace_leave(struct cluster_ops *ops, const struct layer *layer, uint32_t index);
/* Suspends until the holds that were in the way may have gone. */
void inplace_wait(struct cluster_ops *ops, const struct layer *layer, uint32_t index, uint16_t mask);

/* What readers see of one layer's entry: with several holds the entry can differ from block to block, so for the lowest
 * block of `mask` returns the entry and narrows *mask to the blocks it is true of. */
struct map_entry cluster_visible(struct cluster_ops *ops, const struct layer *layer, uint32_t index,
				 const struct map_entry *now, uint16_t *mask);

#endif
