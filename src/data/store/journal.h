/*
 * journal.h: the ring of records: appended in one order, written in groups, read back after a crash.
 *
 *     journal_reserve    room for records, in memory and in the ring; waits for it          Suspends
 *     journal_append     the record gets its place: block `seq`. The caller applies it now   never suspends
 *     (writer fiber)     blocks that have records go to disk together, up to two writes at a time
 *     journal_wait       until everything up to `seq` is written (survives kill -9, not yet power loss)   Suspends
 *
 * A write error stops the pool: what is in memory is ahead of the disk, so nothing more may be acknowledged.
 */
#ifndef OXBOW_DATA_STORE_JOURNAL_H
#define OXBOW_DATA_STORE_JOURNAL_H

#include "data/store/journal_format.h"
#include "rt/rt.h"

struct pool;
struct journal;

/* Where a journal goes on: after block `last_seq` with chain value `chain`. Blocks from tail_seq on are still needed. */
struct journal_position {
	uint64_t tail_seq, last_seq, settled_seq;
	uint32_t chain;
};

/* OXE_NOMEM. */
OX_CHECKED int journal_new(struct pool *pool, uint64_t block_count, struct journal **out);
void journal_free(struct journal *j);
/* Start writing from there. Spawns the writer. */
void journal_start(struct journal *j, struct journal_position at);
/* Waits until the writer has written everything and has ended. */
void journal_stop(struct journal *j);

/* What records need: memory, where they gather in full blocks while the writer is busy, and blocks of the ring, of which an
 * idle writer gives each breath new ones. */
struct journal_room {
	uint32_t records; /* a large one counts for several */
	uint32_t blocks;
};
/* For `records` usual ones that are appended in one breath; for this one. */
struct journal_room journal_room_for(uint32_t records);
struct journal_room journal_room_of(const struct record_head *record);
#define JOURNAL_RECORDS_PER_BLOCK (JOURNAL_PAYLOAD_BYTES / RECORD_BYTES_USUAL)
/* For everything that one request can ask for. Two of them fit the smallest ring, beside what a checkpoint leaves in it. */
#define JOURNAL_ROOM_BLOCKS_MAX (JOURNAL_BYTES_MIN / JOURNAL_BLOCK_BYTES * 3 / 8)

/* Room for all of it at once (waiting with half of it would be a deadlock), JOURNAL_ROOM_BLOCKS_MAX at most. 0 or OXE_FAILED. An
 * append uses up its record; the rest, and all blocks, are given back: those of a breath when it is over. */
OX_CHECKED int journal_reserve(struct journal *j, struct journal_room room);
void journal_unreserve(struct journal *j, struct journal_room room);
/* Returns the block's seq. */
uint64_t journal_append(struct journal *j, const struct record_head *record);
/* 0 or OXE_FAILED. */
OX_CHECKED int journal_wait(struct journal *j, uint64_t seq);

/* Everything appended so far ends with the returned block: later records go to later ones. `chain` receives the value the
 * next block will carry. Does not suspend. */
uint64_t journal_cut(struct journal *j, uint32_t *chain);
/* Blocks closed from now on carry this flush mark. Does not suspend. */
void journal_set_mark(struct journal *j, uint64_t settled_seq);
/* The mark carried by block journal_written_seq: once that block is durable, the mark is. */
uint64_t journal_written_mark(const struct journal *j);
/* Close a block now, if need be an empty one, so that the mark gets on its way; *seq is that block. Suspends for room. */
OX_CHECKED int journal_force(struct journal *j, uint64_t *seq);
/* Blocks before tail_seq are not needed any more. */
void journal_release(struct journal *j, uint64_t tail_seq);

uint64_t journal_written_seq(const struct journal *j);
uint64_t journal_used_blocks(const struct journal *j);
uint64_t journal_open_seq(const struct journal *j);
uint64_t journal_block_count(const struct journal *j);
uint64_t journal_blocks_written(const struct journal *j);
uint64_t journal_records_written(const struct journal *j);
/* Wake everybody who waits: the pool has failed. */
void journal_fail(struct journal *j);

/* ---- reading back ---- */

/* Called for each record in order. An error ends the scan with that error. */
typedef int journal_record_fn(void *ctx, uint64_t seq, const struct record_head *record);
/* First pass (`fn` NULL): find the end and the newest mark. Second pass: call `fn` up to the end found. Starts after
 * at->last_seq with at->chain and moves `at` along. OXE_CORRUPT: a block that was durable is damaged; a torn tail is no
 * error. Suspends. */
OX_CHECKED int journal_scan(struct pool *pool, uint64_t block_count, struct journal_position *at,
			    uint64_t end_seq, journal_record_fn *fn, void *ctx);
/* Check and walk the records of one block image. For scan, and for the fuzzer. 0 or OXE_CORRUPT. */
OX_CHECKED int journal_block_walk(const uint8_t *image, uint64_t seq, journal_record_fn *fn, void *ctx);

#endif
