/*
 * flush.h: device flushes shared by all who wait, and the flush mark (S2, S3).
 *
 * A first touch sends its data and its record (a DEFINE with a CRC) to the device together. Until both are known to be on
 * stable storage, and a durable mark in the journal says so, the block is *unsettled*: recovery believes the record only if
 * the data matches a CRC. So an unsettled block must not simply be overwritten in place:
 *
 *     block          an overwrite ...
 *     settled        is one write in place, no metadata
 *     unsettled,     sends a DEFINE_OVER with the new CRC ahead, waits for it, then writes in place ("ahead write"):
 *       no flush       whichever of the two contents a kill leaves, one CRC matches; if a device error left some sectors old
 *       since          and some new, each has a CRC of its own there. A power cut may lose both: nobody was promised either
 *     unsettled,     settles first: flush, mark, flush. The old content was promised to survive power loss, and an ahead
 *       flushed        write could lose it
 *
 * An ahead write and a device flush exclude each other (flush_ahead_enter): a flush in the middle of one would promise the
 * old content while the new is half-way.
 */
#ifndef OXBOW_DATA_STORE_FLUSH_H
#define OXBOW_DATA_STORE_FLUSH_H

#include "data/store/resolve.h"
#include "data/store/store.h"

struct flush *flush_new(struct pool *pool);
void flush_free(struct flush *f);
/* Start and stop the background settler. flush_stop waits for its end. */
void flush_start(struct flush *f, uint64_t settled_seq);
void flush_stop(struct flush *f);
void flush_fail(struct flush *f); /* the pool has failed: wake everybody who waits */

/* Everything that had completed when this was called is on stable storage when it returns 0. Suspends. */
OX_CHECKED int flush_wait(struct flush *f);
/* Every record up to `seq` is on stable storage when it returns 0; no flush if one has covered it already. Suspends. */
OX_CHECKED int flush_records(struct flush *f, uint64_t seq);
/* Have the background do a flush soon (quarantine is filling up). Does not suspend. */
void flush_ask(struct flush *f);
/* Every record up to `seq`, with its data, is durable and a durable mark says so. Suspends. */
OX_CHECKED int flush_settle(struct flush *f, uint64_t seq);
/* Wait until every DEFINE up to `seq` has its data written (or rejected). Suspends. */
OX_CHECKED int flush_defines_wait(struct flush *f, uint64_t seq);

/* Wait while so many blocks are unsettled that a recovery would take long to verify them (S5). Suspends. */
OX_CHECKED int flush_throttle(struct flush *f);

/* A DEFINE whose data is on its way. begin: right after the append, so that they are in order of seq. */
struct define_op {
	struct list link;
	uint64_t seq;
};
void flush_define_begin(struct flush *f, struct define_op *op, uint64_t seq);
void flush_define_end(struct flush *f, struct define_op *op);

/* Record `seq` says that settled blocks are elsewhere now. Until it is durable, no write in place there is, whatever the
 * device was asked: a power cut would take the blocks back to where they were. Neither suspends. */
void flush_moved(struct flush *f, uint64_t seq);
bool flush_moves_are_durable(const struct flush *f);

/* The CRCs of the sectors of each block of a cluster. */
struct sector_crcs {
	uint32_t of[BLOCKS_PER_CLUSTER][SECTORS_PER_BLOCK];
};

/* The table of unsettled blocks. `mask` of blocks of cluster `index` in layer `layer`; `crcs` of these, copied. None suspends. */
void unsettled_add(struct flush *f, uint64_t layer, uint32_t index, uint16_t mask, uint64_t seq,
		   const struct sector_crcs *crcs);
/* The CRCs of an unsettled block, as it lies on the device. */
const uint32_t *unsettled_crcs(struct flush *f, uint64_t layer, uint32_t index, unsigned block);
/* Which of the blocks are unsettled; *seq receives the record to settle. */
uint16_t unsettled_get(struct flush *f, uint64_t layer, uint32_t index, uint16_t mask, uint64_t *seq);

/* True: the caller may overwrite these unsettled blocks with an ahead write, and must flush_ahead_leave after. False: they
 * were flushed, or a flush is under way: settle instead. Does not suspend. */
bool flush_ahead_enter(struct flush *f, uint64_t layer, uint32_t index);
void flush_ahead_leave(struct flush *f);

uint64_t flush_count(const struct flush *f); /* of device flushes */

#endif
