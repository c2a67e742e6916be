/*
 * pool_content.h: what a volume or snapshot may hold: for each 512-byte sector, the values that are allowed, and why.
 *
 * Most sectors have one value. One that was written since the last flush has several, each with three moments of the model's
 * own clock (which counts submissions and answers):
 *
 *     submitted     the write was handed in
 *     done          it was answered; NEVER while in flight, or when nobody was left to answer
 *     superseded    a write handed in after `done` was answered; NEVER while it is a current value
 *
 * Everything promised follows from these. A read handed in at s may return a value superseded after s. A kill leaves what is
 * current. A power cut leaves anything that is still listed. A flush handed in at t, answered, strikes out what was
 * superseded by t. A durable write (FUA) strikes out what was done before it was handed in. What is struck out is kept for
 * as long as a read under way may return it.
 */
#ifndef OXBOW_SIM_POOL_CONTENT_H
#define OXBOW_SIM_POOL_CONTENT_H

#include "base/base.h"

#define NEVER UINT64_MAX

/* Tags of a volume that is to be grafted upon another: both read as zeroes. */
#define TAG_UNSAID UINT64_MAX	    /* nothing was said there: what lies below will show */
#define TAG_MAYBE  (UINT64_MAX - 1) /* zeroes, or nothing was said */

struct alt {
	uint64_t tag, submitted, done, superseded;
	bool struck; /* not even a power cut brings it back; a read that began before may still return it */
};

struct alt_set {
	uint32_t count, capacity;
	struct alt alts[];
};

struct content {
	uint64_t sector_count;
	bool is_fresh;	       /* nothing is said of what was never written */
	uint64_t *tags;	       /* the value, where there is one */
	struct alt_set **sets; /* the values, where there are several; else NULL */
	uint32_t *open;	       /* sectors that have, or lately had, a set */
	size_t open_count, open_capacity;
	uint8_t *listed;   /* the sector is in `open` */
	uint64_t *touched; /* for each 64 KiB, when it was written last */
	uint64_t *
		stamps; /* for each 4 KiB, the same; of two copies with one stamp, neither was written since */
};

#define CONTENT_CLUSTER_SECTORS 128u
#define CONTENT_BLOCK_SECTORS	8u

struct content *content_new(uint64_t sector_count);	  /* all zeroes */
struct content *content_new_fresh(uint64_t sector_count); /* nothing said */
struct content *content_copy(const struct content *from);
void content_free(struct content *c);
void content_grow(struct content *c, uint64_t sector_count);
uint64_t content_cluster_count(const struct content *c);

void content_write_begin(struct content *c, uint64_t first, uint64_t count, uint64_t tag, uint64_t now);
enum content_answer { ANSWER_DONE, ANSWER_DURABLE, ANSWER_UNCHANGED, ANSWER_UNKNOWN };
/* The answer to the write that was handed in at `submitted`. */
void content_write_end(struct content *c, uint64_t first, uint64_t count, uint64_t submitted, uint64_t now,
		       enum content_answer answer);
/* A flush that was handed in at `submitted` was answered; the oldest read under way was handed in at `oldest_read`. */
void content_flushed(struct content *c, uint64_t submitted, uint64_t oldest_read);
/* A read handed in at `submitted` returned `tag`: with nothing in flight, that is the current value from now on. */
void content_settle(struct content *c, uint64_t sector, uint64_t tag, uint64_t submitted, uint64_t now);
/* What a reader of `below` finds once `above`, a fresh one, is grafted upon it. Nothing of `below` is open. */
struct content *content_graft(const struct content *below, const struct content *above, uint64_t now);
/* The sector was found to read as `tag`, which `from` allows. */
void content_learn(struct content *c, const struct content *from, uint64_t sector, uint64_t tag);
/* Set the one value; forget all others. */
void content_set(struct content *c, uint64_t sector, uint64_t tag);

/* After a power cut, counting everything that is not struck out. */
#define ANY_TIME 0
/* May the sector hold `tag`, counting values that were current at `since` or later? NEVER: that are current now. */
bool content_allows(const struct content *c, uint64_t sector, uint64_t tag, uint64_t since);
/* May something in these 64 KiB have more than one value? */
bool content_is_open(const struct content *c, uint64_t cluster);
/* May sector `sector` of `a`, looked at since `since`, hold what the snapshot `b` holds there? Beyond its end are zeroes. */
bool content_may_equal(const struct content *a, const struct content *b, uint64_t sector, uint64_t since);

uint64_t content_block_count(const struct content *c);
/* A 4 KiB block: no write to it was answered since `begin`, and none is under way. */
bool content_block_is_untouched(const struct content *c, uint64_t block, uint64_t begin);
/* Every sector has one value, and not all of them are zero. */
bool content_block_is_data(const struct content *c, uint64_t block);
/* It may have been written, be it with zeroes. */
bool content_block_may_be_data(const struct content *c, uint64_t block);
/* For a block of `a` that is data: can the reader of `b` find the same there / is it the same write they both find? */
bool content_block_may_be_shared(const struct content *a, const struct content *b, uint64_t block);
bool content_block_is_shared(const struct content *a, const struct content *b, uint64_t block);
/* Of the copy `c` of `from`: what was stamped at `begin` or later, and what is being written, is stamped `stamp` now: it is not known
 * which write the copy has. */
void content_restamp(struct content *c, const struct content *from, uint64_t begin, uint64_t stamp);

/* What a snapshot taken between `begin` and `now` may hold. */
struct content *content_snapshot(const struct content *from, uint64_t begin, uint64_t now);
/* "17 (done), 18 (in flight)" for people. */
void content_describe(const struct content *c, uint64_t sector, char *text, size_t size_bytes);

#endif
