/*
 * pool_damage.h: damage to one page of a pool, and what may come of it.
 *
 * The page is chosen among those that the newest superblock needs, by reading the disk as format.md says it is laid out. One page
 * is damaged at a time, so that what is lost is exactly what hangs under it:
 *
 *     superblock    either one               the other is used, and nothing is lost
 *     journal       a block that a later     the pool does not open: going on would lose what was acknowledged
 *                   flush mark vouches for
 *     map           of one layer             reads through that layer, in the page's range, may fail. Everything else is right
 *     catalog                                the objects it lists, and reads that lead through them. Often nothing: the
 *                                            checkpoint before may have all of it
 *     bitmap                                 nothing: it is made anew
 *     usage                                  nothing, if the superblock before is there; else the pool does not open
 *     data          only unreadable: it      reads of that one block may fail, whoever sees it
 *                   has no checksum yet
 *
 * A page that cannot be read is as one that cannot be believed.
 *
 * A pool that did not open is as it was, and healed it has everything. So has one that opened, if no journal record was about what
 * was damaged: after a clean close there is none; else the page may have been disowned (format.md).
 */
#ifndef OXBOW_SIM_POOL_DAMAGE_H
#define OXBOW_SIM_POOL_DAMAGE_H

#include "data/store/page_format.h"
#include "data/store/pool.h"
#include "sim/sim.h"

enum damage_target {
	DAMAGE_SUPER_NEWEST,
	DAMAGE_SUPER_OLDER,
	DAMAGE_JOURNAL,
	DAMAGE_MAP,
	DAMAGE_BITMAP,
	DAMAGE_CATALOG,
	DAMAGE_USAGE,
	DAMAGE_DATA,
	DAMAGE_TARGETS
};

enum damage_kind {
	DAMAGE_BIT,	    /* one bit flips */
	DAMAGE_GARBAGE,	    /* or all of them, at random */
	DAMAGE_MISDIRECTED, /* another page of the pool was written here */
	DAMAGE_STALE,  /* the last write here was lost: an older state of the same page is what there is */
	DAMAGE_HEADER, /* whole, and right in all but one field of its header */
	DAMAGE_UNREADABLE, /* until written again */
	DAMAGE_KINDS
};

struct damage {
	enum damage_target target;
	enum damage_kind kind;
	bool at_rest;		      /* the pool had been closed: no journal to replay */
	bool has_older;		      /* the superblock before the newest is whole */
	bool opened;		      /* the pool has been open with it */
	uint64_t page;		      /* its number, in 4 KiB */
	uint64_t owner, index, level; /* of a metadata page */
	uint64_t bad_block; /* of data: the block of its volume, once a reader has met it; else UINT64_MAX */
	uint64_t reported;  /* problems with pages that pool_check has found */
	uint8_t before[PAGE_BYTES], after[PAGE_BYTES];
};

/* Draw a target and damage it. False: this disk has no such target now, and is as it was. */
bool damage_do(struct damage *d, struct sim_disk *disk, struct prng *rng, bool at_rest);
/* Undo it, unless the page has been written since. */
void damage_heal(const struct damage *d, struct sim_disk *disk);

bool damage_excuses_open(const struct damage *d, int err);
bool damage_forbids_open(const struct damage *d);
/* A block of the open volume or snapshot `id` that could not be read or written. */
bool damage_excuses_io(struct damage *d, const struct pool *pool, const struct uuid *id, uint64_t block,
		       int err);
/* An object of the open pool that could not be found, or opened. */
bool damage_excuses_object(const struct damage *d, const struct pool *pool, int err);
/* A problem of pool_check; counts it. */
bool damage_excuses_problem(struct damage *d, const struct pool_problem *p);
/* Is nothing missing once the page is healed? */
bool damage_is_undone(const struct damage *d);
/* Must pool_check have found it? */
bool damage_must_show(const struct damage *d);
/* "a map page is stale" */
const char *damage_text(const struct damage *d, char *text, size_t size_bytes);

#endif
