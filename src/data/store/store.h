/*
 * store.h: the pool from inside: what the files of this room share. Everything outside uses pool.h.
 *
 *     pool.c        format, identify, open, close, grow, stats         vol.c       open handles; reads
 *     recover.c     superblock -> replay -> verify -> ready            write.c     writes, zeroes: first touch and in place
 *     checkpoint.c  freeze, write, superblock                          resolve.c   which layer says what a block is
 *     record.c      the fold: what each record makes true              volume.c    create, clone, snapshot, revert, delete ...
 *     catalog.c     volumes and layers in memory and in pages          job.c       background work: merge.c, flatten.c, and drop
 *     journal.c     the ring                                           check.c     everything reachable against what is marked
 *     flush.c       shared flushes, the flush mark, unsettled blocks
 *     space.c       clusters            metapage.c   metadata pages on disk
 *     cache.c       metadata pages in memory             discard.c   free clusters go back to the device
 *
 * The state of a pool is the fold of its records over its last checkpoint. A live operation does:
 *
 *     prepare   bring in every page the record will touch, take locks, reserve journal room      may suspend, may fail
 *     commit    append the record and apply it to memory, in one breath                          never suspends, never fails
 *     wait      for the journal block (and the data) to be written; then others may see it
 *
 * and recovery does prepare and apply for each record it reads. There is no other way to change metadata.
 */
#ifndef OXBOW_DATA_STORE_STORE_H
#define OXBOW_DATA_STORE_STORE_H

#include "base/htab.h"
#include "base/mutant.h"
#include "data/store/cache.h"
#include "data/store/catalog.h"
#include "data/store/journal_format.h"
#include "data/store/pool.h"
#include "data/store/space.h"

struct journal;
struct flush;
struct checkpoint;
struct jobs;
struct discard;
struct cluster_ops;
struct resolve_cache;
struct metapages;

struct pool {
	struct rt *rt;
	struct rt_disk *disk;
	struct pool_options options;
	struct pool_ident ident; /* generation: of the newest durable superblock */
	uint64_t created_wall_ns, cluster_count, first_cluster, journal_blocks;
	uint64_t dirty_limit; /* pages that may be dirty before writers wait for a checkpoint */
	bool failed, closing;
	bool recovering; /* nothing has been written yet: pages that cannot be read are given up (metapage.c) */
	bool replaying; /* recovery folds the journal: what a record is about may be lost (record.c) */
	uint32_t open_handles;

	struct cache *cache;
	struct space *space;
	struct metapages *metapages;
	struct journal *journal;
	struct flush *flush;
	struct catalog *catalog;
	struct checkpoint *checkpoint;
	struct jobs *jobs;
	struct discard *discard;
	struct cluster_ops *ops;
	struct resolve_cache *resolved;
	struct readahead *readahead;
	struct fmutex control; /* one control operation at a time */

	uint64_t recovery_ns, recovery_records, recovery_blocks_verified, recovery_blocks_rejected;
	uint32_t
		pages_lost; /* metadata pages that were needed and could not be believed, beside those of maps */
	uint64_t *given_up; /* pages that could not be read */
	size_t given_up_count;
	bool has_waited;       /* for a page to become readable */
	bool overruling;       /* the superblock before leads to records that recovery rejected */
	uint64_t records_lost; /* replayed about something lost */
	uint64_t check_pages_read, check_pages_total; /* of the check under way; 0: there is none */
};

/* What cannot be read is asked for again, so often. */
#define READ_TRIES   5u
#define READ_WAIT_NS (200 * NS_PER_MS)

/* Memory for device requests: payload, or as much as something counts. NULL: the caller returns OXE_NOMEM and has changed nothing, or
 * does without. A single page is page_image_alloc, small things are mem_alloc: these stop the process (base.h). */
static inline void *io_alloc(size_t len_bytes)
{
	return aligned_alloc(RT_IO_ALIGN, len_bytes);
}

/* A device error that leaves memory ahead of the disk: stop acknowledging, wake everybody. Logged here, once. */
void pool_fail(struct pool *pool, int err, const char *why);

/* Metadata in memory as before anything was read: for recovery, which may have to begin again. */
void pool_state_reset(struct pool *pool);

/* A user's name or a system's. */
static inline int pool_any_name_check(const char *name)
{
	return pool_name_is_system(name) ? pool_system_name_check(name) : pool_name_check(name);
}

/* Limits that follow from the pool's size. */
void pool_size_limits(struct pool *pool);

/* ---- record.c: the fold ---- */

/* Pages pinned so that applying a record cannot need I/O. */
struct pins {
	struct page *pages[2 + PAGE_FANOUT];
	uint32_t count;
};
void pins_release(struct pins *pins);
/* Load and pin what applying `record` to the state as it is now will touch. Suspends. */
OX_CHECKED int record_prepare(struct pool *pool, const struct record_head *record, struct pins *pins);
/* Make it true in memory. OXE_CORRUPT if it contradicts the state: only recovery may see that. Does not suspend.
 *
 * S9: recovery may meet records about what is lost, a layer or volume of a damaged catalog or a map page that cannot be believed.
 * They change what can be changed. A cluster they give to someone is in use from then on, and one they give back stays so: what is
 * lost may own it. What could not be noted is disowned, lest it be believed later without this record. */
OX_CHECKED int record_apply(struct pool *pool, uint64_t seq, const struct record_head *record);
/* Is the record long enough for its type, and its numbers sane? For bytes from disk. */
OX_CHECKED int record_check(const struct record_head *record);
/* Append and apply: the commit of a live operation. Needs a journal reservation; returns the journal block. */
uint64_t record_commit(struct pool *pool, const struct record_head *record);

/* A record on its way, for operations that look once more between what suspends and the commit: a record says what is so when it
 * commits, and volumes are opened, renamed or gone while an operation waits for room. */
struct record_try {
	struct pins pins;
	uint32_t reserved_records, reserved_blocks;
};
/* Reserve and prepare. What prepare does not look at (record.c) may be put into the record later. Suspends. */
OX_CHECKED int record_begin(struct pool *pool, const struct record_head *record, struct record_try *t);
/* Instead of the end. Does not suspend. */
void record_give_up(struct pool *pool, struct record_try *t);
/* Commits in one breath with the caller, then waits until it is written; with `durable` also flushed. Suspends. */
OX_CHECKED int record_end(struct pool *pool, const struct record_head *record, struct record_try *t,
			  bool durable);
/* Begin and end. For operations of which nothing can change meanwhile. Suspends. */
OX_CHECKED int record_do(struct pool *pool, const struct record_head *record, bool durable);

static inline uint64_t number_get(struct number_disk n)
{
	return (uint64_t)n.high << 32 | n.low;
}

static inline struct number_disk number_of(uint64_t n)
{
	return (struct number_disk){.low = (uint32_t)n, .high = (uint32_t)(n >> 32)};
}

/* The map entry of a cluster in a resident leaf page, for reading. */
static inline const struct map_entry *map_entry_view(const struct page *leaf, uint32_t index)
{
	return (const struct map_entry *)page_view(leaf) + index % PAGE_FANOUT;
}

/* ---- checkpoint.c ---- */

struct super;
struct checkpoint *checkpoint_new(struct pool *pool);
void checkpoint_free(struct checkpoint *c);
void checkpoint_start(struct checkpoint *c, uint64_t replay_seq);
void checkpoint_stop(struct checkpoint *c); /* waits for a running one to end. Suspends. */
void checkpoint_ask(struct pool *pool);
/* Called after each commit: asks when the journal or the dirty pages call for it. Does not suspend. */
void checkpoint_poll(struct pool *pool);
/* Wait while too many pages are dirty. Suspends. */
OX_CHECKED int checkpoint_throttle(struct pool *pool);
OX_CHECKED int checkpoint_wait(struct pool *pool); /* one that starts from now on. Suspends. */
void checkpoint_fail(struct checkpoint *c);
uint64_t checkpoint_count(const struct checkpoint *c);

/* ---- write.c ---- */
/* For flatten: define blocks of a layer that it does not define yet, from the right places of `cluster_data` (one cluster).
 * `mask` is one run of neighbours. OXE_EXISTS, and nothing has happened, if the layer defines any of them by now. *seq is the record's block, 0 if
 * none. Suspends. */
OX_CHECKED int layer_define(struct pool *pool, struct layer *layer, uint32_t index, uint16_t mask,
			    const uint8_t *cluster_data, uint64_t *seq);

/* ---- recover.c ---- */
OX_CHECKED int pool_recover(struct pool *pool);

/* ---- job.c ---- */
struct jobs *jobs_new(struct pool *pool);
void jobs_free(struct jobs *j);
void jobs_start(struct jobs *j);
void jobs_stop(struct jobs *j);
/* A layer lost its name or a child, or a volume began flattening: there may be work. Does not suspend. */
void jobs_kick(struct jobs *j);
void jobs_rate_changed(struct jobs *j); /* does not suspend */
/* Hold the worker between steps, for check; counted. jobs_pause suspends until the step under way has ended. */
void jobs_pause(struct jobs *j);
void jobs_resume(struct jobs *j);

#endif
