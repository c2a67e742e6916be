/*
 * space.h: which clusters are free, and when a freed one may be used again.
 *
 * The truth is the BITMAP tree: one bit a cluster, 1 is in use. A free bit is not yet a usable cluster:
 *
 *     free bit ---- window (reserved for one head, in memory) ---- record applied ----> in use
 *         ^                                                                              |
 *         '-- released: the record is durable and no read that began before it is left --'-- record applied: quarantine (S4)
 *
 * What was released is also discarded when it has rested a while (discard.h), and held for the time that takes.
 *
 * The reserve (S8): ordinary writes stop at `reserve` free clusters, new metadata pages at half of it; checkpoints and
 * deletes use what is left.
 */
#ifndef OXBOW_DATA_STORE_SPACE_H
#define OXBOW_DATA_STORE_SPACE_H

#include "data/store/cache.h"

struct space;

struct space *space_new(struct pool *pool);
void space_free(struct space *s);
/* Load the bitmap's upper pages. Suspends.
 *
 * A bitmap page that cannot be believed costs what was free below it (S9): its clusters are all taken for owned, nobody is given
 * one of them, and giving one back changes nothing. If all maps are whole recovery makes the page anew; else it stays where it is,
 * for a checker to name. */
OX_CHECKED int space_load(struct space *s, struct root bitmap);
struct root space_bitmap_root(const struct space *s);
uint64_t space_bitmap_leaves(uint64_t cluster_count);

/* ---- clusters ---- */

/* A run of clusters under one bitmap page, set aside for one writer. Zero-fill is an empty one. */
struct space_window {
	uint32_t next, end;
	uint32_t want;	     /* size of the next one: doubles while a writer keeps using them up */
	struct page *bitmap; /* pinned while the window is not empty */
	struct list link;    /* among all windows that are not empty: taken back when space runs out */
};

/* Make the window non-empty, and keep the bitmap page of its clusters resident. OXE_NOSPC at the reserve. Suspends. */
OX_CHECKED int space_window_fill(struct space *s, struct space_window *w);
/* The next cluster of a non-empty window. Does not suspend. */
uint32_t space_window_take(struct space *s, struct space_window *w);
/* Give back what was not taken. */
void space_window_release(struct space *s, struct space_window *w);

/* A cluster that was taken but will not be used after all. */
void space_untake(struct space *s, uint32_t cluster);

/* Bring the bitmap page of `cluster` in and pin it into *out, so that the next two cannot wait. *out is NULL if it is lost.
 * Suspends. */
OX_CHECKED int space_bitmap_pin(struct space *s, uint32_t cluster, struct page **out);
/* The fold: set or clear the bit of a resident page; a cleared one goes into quarantine until block `seq` of the journal is
 * durable. OXE_CORRUPT if the bit is so already or the cluster can be nobody's: two records disagree about an owner. */
OX_CHECKED int space_mark_used(struct space *s, uint32_t cluster);
OX_CHECKED int space_mark_free(struct space *s, uint32_t cluster, uint64_t seq);
/* As space_mark_used, but a cluster that is somebody's already is no error. For recovery beside lost metadata: the owner may
 * be among what was lost. */
OX_CHECKED int space_claim(struct space *s, uint32_t cluster);
/* OXE_NOSPC unless there is room for new metadata (control operations, new map pages). */
OX_CHECKED int space_admit_metadata(const struct space *s);
/* Every record up to `seq` is durable: quarantined clusters up to there become usable once their readers are gone. */
void space_durable(struct space *s, uint64_t seq);
/* New clusters at the end are free. Suspends. */
OX_CHECKED int space_grow_prepare(struct space *s, uint64_t cluster_count);
void space_grow(struct space *s, uint64_t old_cluster_count);

/* Readers: what a read finds may be freed while it waits for the device; it is not reused until the read has left. */
uint32_t space_read_enter(struct space *s);
void space_read_leave(struct space *s, uint32_t ticket);
/* Until every read has left that is under way now. Those that begin meanwhile do not count. Suspends. */
void space_readers_wait(struct space *s);

/* Recovery, at its end: replace bitmap pages that are lost by what the maps and the usage table say, if these are whole.
 * Suspends. */
OX_CHECKED int space_rebuild_lost(struct space *s);

/* ---- for discards (discard.h). None suspends. `leaf` is the bitmap page of the cluster. ---- */

bool space_is_owned(const struct page *leaf, uint64_t cluster);
/* Anyone may own it, nobody does, and nobody is about to. */
bool space_is_free(const struct space *s, const struct page *leaf, uint64_t cluster);
/* Free clusters [from, to) are given to nobody until they are let go. Who finds no space meanwhile waits for that. */
void space_hold(struct space *s, uint32_t from, uint32_t to);
void space_unhold(struct space *s, uint32_t from, uint32_t to);
bool space_has_quarantine(const struct space *s);

/* ---- for metadata (metapage.h) ---- */

/* Take one, marked used without a record: a checkpoint makes it so. Suspends. */
OX_CHECKED int space_cluster_take(struct space *s, uint32_t *cluster);
/* Marked free, its bitmap page resident, but not usable until space_cluster_usable. Do not suspend. */
void space_cluster_cool(struct space *s, uint32_t cluster);
void space_cluster_usable(struct space *s, uint32_t cluster);

/* ---- numbers ---- */
struct space_numbers {
	uint64_t free_clusters;	  /* 0 bits */
	uint64_t usable_clusters; /* for ordinary writes, now */
	uint64_t metadata_clusters, reserve_clusters, quarantined_clusters;
};
void space_numbers(const struct space *s, struct space_numbers *out);

/* For the checker, and for freezing: the bitmap, and how many clusters under one of its leaves are free. */
struct tree *space_bitmap(struct space *s);
uint32_t space_leaf_free(const struct space *s, uint64_t leaf);

#endif
