/*
 * journal.c: see journal.h and journal_format.h.
 *
 * Block s of the ring is built in memory slot s % mem_blocks:
 *
 *     tail ........ written ........ issued ........ open
 *       on disk, needed   |  being written  |  closed  |  being filled
 *
 * A block is closed (header, chain, CRC) when a record does not fit any more, when the writer wants it, or by journal_cut.
 * Closing is in order, so the chain value is known at once.
 */
#include "data/store/journal.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "data/store/store.h"

#define MEM_BLOCKS_MAX 256u
#define WRITES_MAX     2u  /* at the device at once */
#define WRITE_BLOCKS   64u /* in one of them */
#define MARGIN_BLOCKS  4u  /* kept free in the ring for forced marks */
#define SCAN_BLOCKS    64u

/* However usual records are packed, a block that is closed for lack of room for one holds at least so many; or a large one, which
 * is counted for two full blocks: its own, and the one before, which it may have closed early. */
#define RECORDS_PER_BLOCK JOURNAL_RECORDS_PER_BLOCK

struct write {
	struct rt_io io;
	struct journal *journal;
	uint64_t first_seq, block_count;
	bool busy, done;
};

struct journal {
	struct pool *pool;
	uint64_t block_count, mem_blocks, incarnation;
	uint64_t tail_seq, written_seq, issued_seq, open_seq;
	uint64_t mark;
	uint32_t chain;
	uint32_t open_used;
	struct journal_room reserved;
	uint8_t *memory;
	struct write writes[WRITES_MAX];
	uint64_t blocks_written, records_written;
	bool stopping, stopped;
	struct waitq room, written, work, ended;
};

int journal_new(struct pool *pool, uint64_t block_count, struct journal **out)
{
	struct journal *j = mem_zalloc(sizeof(*j));
	j->pool = pool;
	j->block_count = block_count;
	j->mem_blocks = u64_min(MEM_BLOCKS_MAX, block_count / 2);
	j->memory = io_alloc(j->mem_blocks * JOURNAL_BLOCK_BYTES);
	if (!j->memory) {
		free(j);
		return OXE_NOMEM;
	}
	j->stopped = true;
	waitq_init(&j->room);
	waitq_init(&j->written);
	waitq_init(&j->work);
	waitq_init(&j->ended);
	*out = j;
	return 0;
}

void journal_free(struct journal *j)
{
	assert(j->stopped);
	free(j->memory);
	free(j);
}

static uint8_t *slot(const struct journal *j, uint64_t seq)
{
	return j->memory + seq % j->mem_blocks * JOURNAL_BLOCK_BYTES;
}

static uint64_t block_offset_bytes(uint64_t block_count, uint64_t seq)
{
	return JOURNAL_FIRST_CLUSTER * (uint64_t)POOL_CLUSTER_BYTES + seq % block_count * JOURNAL_BLOCK_BYTES;
}

/* ---- appending -------------------------------------------------------------------------------------------------------- */

/* In memory: the open block when everything reserved has been appended and `records` more, while the writer is busy, so that they
 * gather in full blocks. */
static bool memory_has_room(const struct journal *j, uint32_t records, uint64_t margin)
{
	uint64_t end = j->open_seq + 2 + (j->reserved.records + records) / RECORDS_PER_BLOCK + margin;
	return end - j->written_seq < j->mem_blocks;
}

/* In the ring an idle writer takes what there is, so that every breath may begin blocks of its own: whoever begins one has reserved
 * it. The margin is for blocks that nobody has reserved: forced marks. When it is used up they wait, as all others do, for
 * checkpoints, which need no room: they write down what has been appended, and wait for nobody who has yet to append. */
static bool ring_has_room(const struct journal *j, uint32_t blocks, uint64_t margin)
{
	uint64_t reserved = j->reserved.blocks + blocks;
	if (MUTANT(69))
		reserved = u64_min(reserved, j->block_count / 2);
	return j->open_seq + 2 + reserved + margin - j->tail_seq < j->block_count;
}

static int wait_room(struct journal *j, struct journal_room room, uint64_t margin)
{
	while (!j->pool->failed) {
		bool ring = ring_has_room(j, room.blocks, margin) || MUTANT(24);
		if (ring && memory_has_room(j, room.records, margin))
			return 0;
		if (!ring)
			checkpoint_ask(j->pool);
		waitq_wait(&j->room);
	}
	return OXE_FAILED;
}

static uint32_t record_cost(const struct record_head *record)
{
	return record->len_bytes <= RECORD_BYTES_USUAL ? 1 : 2 * RECORDS_PER_BLOCK;
}

struct journal_room journal_room_for(uint32_t records)
{
	return (struct journal_room){records, (uint32_t)u64_div_up(records, RECORDS_PER_BLOCK)};
}

struct journal_room journal_room_of(const struct record_head *record)
{
	return (struct journal_room){record_cost(record), 1};
}

int journal_reserve(struct journal *j, struct journal_room room)
{
	assert(room.blocks <= JOURNAL_ROOM_BLOCKS_MAX);
	int err = wait_room(j, room, MARGIN_BLOCKS);
	j->reserved.records += err ? 0 : room.records;
	j->reserved.blocks += err ? 0 : room.blocks;
	return err;
}

void journal_unreserve(struct journal *j, struct journal_room room)
{
	assert(j->reserved.records >= room.records && j->reserved.blocks >= room.blocks);
	j->reserved.records -= room.records;
	j->reserved.blocks -= room.blocks;
	waitq_wake_all(&j->room);
}

static void close_block(struct journal *j)
{
	struct journal_block_disk *h = (void *)slot(j, j->open_seq);
	memset(h, 0, sizeof(*h));
	h->magic = le32_of(JOURNAL_MAGIC);
	memcpy(h->pool_id, &j->pool->ident.id, sizeof(h->pool_id));
	h->seq = le64_of(j->open_seq);
	h->settled_seq = le64_of(j->mark);
	h->incarnation = le64_of(j->incarnation);
	h->prev_crc = le32_of(j->chain);
	h->used_bytes = le16_of((uint16_t)j->open_used);
	memset((uint8_t *)h + JOURNAL_HEADER_BYTES + j->open_used, 0, JOURNAL_PAYLOAD_BYTES - j->open_used);
	j->chain = crc32c(0, h, JOURNAL_BLOCK_BYTES);
	h->crc = le32_of(j->chain);
	j->open_seq++;
	j->open_used = 0;
	assert(j->open_seq - j->tail_seq < j->block_count || MUTANT(24) || MUTANT(69));
	assert(j->open_seq - j->written_seq < j->mem_blocks);
}

uint64_t journal_append(struct journal *j, const struct record_head *record)
{
	uint32_t cost = record_cost(record);
	assert(j->reserved.records >= cost && j->reserved.blocks > 0);
	assert(record->len_bytes <= RECORD_BYTES_MAX && record->len_bytes % 4 == 0);
	j->reserved.records -= cost;
	if (j->open_used + record->len_bytes > JOURNAL_PAYLOAD_BYTES)
		close_block(j);
	memcpy(slot(j, j->open_seq) + JOURNAL_HEADER_BYTES + j->open_used, record, record->len_bytes);
	j->open_used += record->len_bytes;
	j->records_written++;
	waitq_wake_one(&j->work);
	return j->open_seq;
}

uint64_t journal_cut(struct journal *j, uint32_t *chain)
{
	if (j->open_used > 0) {
		close_block(j);
		waitq_wake_one(&j->work);
	}
	*chain = j->chain;
	return j->open_seq - 1;
}

int journal_force(struct journal *j, uint64_t *seq)
{
	int err = wait_room(j, (struct journal_room){0}, 0);
	if (err)
		return err;
	close_block(j);
	waitq_wake_one(&j->work);
	*seq = j->open_seq - 1;
	return 0;
}

void journal_set_mark(struct journal *j, uint64_t settled_seq)
{
	j->mark = u64_max(j->mark, settled_seq);
}

int journal_wait(struct journal *j, uint64_t seq)
{
	while (j->written_seq < seq && !j->pool->failed)
		waitq_wait(&j->written);
	return j->written_seq >= seq ? 0 : OXE_FAILED;
}

void journal_release(struct journal *j, uint64_t tail_seq)
{
	assert(tail_seq >= j->tail_seq && tail_seq <= j->open_seq);
	j->tail_seq = tail_seq;
	waitq_wake_all(&j->room);
}

void journal_fail(struct journal *j)
{
	waitq_wake_all(&j->room);
	waitq_wake_all(&j->written);
	waitq_wake_all(&j->work);
}

/* ---- the writer ------------------------------------------------------------------------------------------------------- */

/* Writes may finish in any order; what counts as written is the unbroken prefix. */
static void advance_written(struct journal *j)
{
	for (unsigned i = 0; i < WRITES_MAX; i++) {
		struct write *w = &j->writes[i];
		if (w->busy && w->done && w->first_seq == j->written_seq + 1) {
			j->written_seq += w->block_count;
			j->blocks_written += w->block_count;
			w->busy = false;
			i = UINT32_MAX; /* start over: the other one may follow */
		}
	}
}

static void write_done(struct rt_io *io)
{
	struct write *w = container_of(io, struct write, io);
	struct journal *j = w->journal;
	w->done = true;
	if (io->result) {
		w->busy = false;
		pool_fail(j->pool, io->result, "a journal write failed");
	} else {
		advance_written(j);
	}
	waitq_wake_all(&j->written);
	waitq_wake_all(&j->room);
	waitq_wake_one(&j->work);
}

static struct write *idle_write(struct journal *j)
{
	for (unsigned i = 0; i < WRITES_MAX; i++) {
		if (!j->writes[i].busy)
			return &j->writes[i];
	}
	return NULL;
}

/* A run ends at the end of the ring and of the memory, which need not be the same place. */
static void issue_run(struct journal *j, struct write *w)
{
	uint64_t first = j->issued_seq + 1;
	uint64_t run = u64_min(j->open_seq - first, WRITE_BLOCKS);
	run = u64_min(run, j->mem_blocks - first % j->mem_blocks);
	run = u64_min(run, j->block_count - first % j->block_count);
	*w = (struct write){.journal = j, .first_seq = first, .block_count = run, .busy = true};
	w->io = (struct rt_io){.disk = j->pool->disk,
			       .op = RT_IO_WRITE,
			       .data = slot(j, first),
			       .offset_bytes = block_offset_bytes(j->block_count, first),
			       .len_bytes = run * JOURNAL_BLOCK_BYTES,
			       .done = write_done};
	j->issued_seq += run;
	rt_io_submit(&w->io);
}

static bool writer_has_work(const struct journal *j)
{
	return j->open_used > 0 || j->issued_seq + 1 < j->open_seq;
}

static bool writer_is_idle(const struct journal *j)
{
	for (unsigned i = 0; i < WRITES_MAX; i++) {
		if (j->writes[i].busy && !(j->pool->failed && j->writes[i].done))
			return false;
	}
	return true;
}

static void writer(void *arg)
{
	struct journal *j = arg;
	for (;;) {
		bool may_write = !j->pool->failed && writer_has_work(j);
		struct write *w = may_write ? idle_write(j) : NULL;
		if (w) {
			if (j->issued_seq + 1 == j->open_seq)
				close_block(j);
			issue_run(j, w);
		} else if (j->stopping && !may_write && writer_is_idle(j)) {
			break;
		} else {
			waitq_wait(&j->work);
		}
	}
	j->stopped = true;
	waitq_wake_all(&j->ended);
}

void journal_start(struct journal *j, struct journal_position at)
{
	j->incarnation = rt_random_u64(j->pool->rt);
	j->tail_seq = at.tail_seq;
	j->written_seq = j->issued_seq = at.last_seq;
	j->open_seq = at.last_seq + 1;
	j->chain = at.chain;
	j->mark = at.settled_seq;
	j->stopped = false;
	/* journal_written_mark reads the slot of the last written block, which this life did not build. */
	((struct journal_block_disk *)slot(j, at.last_seq))->settled_seq = le64_of(at.settled_seq);
	fiber_spawn(j->pool->rt, "journal", writer, j);
}

void journal_stop(struct journal *j)
{
	j->stopping = true;
	waitq_wake_all(&j->work);
	while (!j->stopped)
		waitq_wait(&j->ended);
}

uint64_t journal_written_seq(const struct journal *j)
{
	return j->written_seq;
}

uint64_t journal_written_mark(const struct journal *j)
{
	return le64_get(((const struct journal_block_disk *)slot(j, j->written_seq))->settled_seq);
}

uint64_t journal_used_blocks(const struct journal *j)
{
	return j->open_seq - j->tail_seq;
}

uint64_t journal_open_seq(const struct journal *j)
{
	return j->open_seq;
}

uint64_t journal_block_count(const struct journal *j)
{
	return j->block_count;
}

uint64_t journal_blocks_written(const struct journal *j)
{
	return j->blocks_written;
}

uint64_t journal_records_written(const struct journal *j)
{
	return j->records_written;
}

/* ---- reading back ----------------------------------------------------------------------------------------------------- */

static bool block_is_whole(const struct pool *pool, const uint8_t *image, uint64_t seq)
{
	const struct journal_block_disk *h = (const void *)image;
	return le32_get(h->magic) == JOURNAL_MAGIC && le64_get(h->seq) == seq &&
	       memcmp(h->pool_id, &pool->ident.id, sizeof(h->pool_id)) == 0 &&
	       le16_get(h->used_bytes) <= JOURNAL_PAYLOAD_BYTES &&
	       (MUTANT(23) || le32_get(h->crc) == crc32c_around(image, JOURNAL_BLOCK_BYTES,
								offsetof(struct journal_block_disk, crc)));
}

int journal_block_walk(const uint8_t *image, uint64_t seq, journal_record_fn *fn, void *ctx)
{
	const struct journal_block_disk *h = (const void *)image;
	const uint8_t *at = image + JOURNAL_HEADER_BYTES;
	uint32_t left = le16_get(h->used_bytes);
	if (left > JOURNAL_PAYLOAD_BYTES)
		return OXE_CORRUPT;
	while (left > 0) {
		struct record_head head;
		if (left < sizeof(head))
			return OXE_CORRUPT;
		memcpy(&head, at, sizeof(head));
		if (head.len_bytes < sizeof(head) || head.len_bytes > left ||
		    head.len_bytes > RECORD_BYTES_MAX || head.len_bytes % 4)
			return OXE_CORRUPT;
		_Alignas(8) uint8_t record[RECORD_BYTES_MAX];
		memcpy(record, at, head.len_bytes);
		int err = fn(ctx, seq, (const void *)record);
		if (err)
			return err;
		at += head.len_bytes;
		left -= head.len_bytes;
	}
	return 0;
}

/* Ring blocks read ahead of the scan. */
struct scan {
	struct pool *pool;
	uint64_t block_count, first_seq, loaded;
	uint8_t *buffer;
};

static int scan_block(struct scan *s, uint64_t seq, const uint8_t **image)
{
	if (seq < s->first_seq || seq >= s->first_seq + s->loaded) {
		uint64_t run = u64_min(SCAN_BLOCKS, s->block_count - seq % s->block_count);
		uint64_t offset_bytes = block_offset_bytes(s->block_count, seq);
		int err = rt_disk_read(s->pool->disk, s->buffer, run * JOURNAL_BLOCK_BYTES, offset_bytes);
		if (err && run > 1) { /* a bad sector further on is not this block's affair */
			run = 1;
			err = rt_disk_read(s->pool->disk, s->buffer, JOURNAL_BLOCK_BYTES, offset_bytes);
		}
		if (err)
			return err;
		s->first_seq = seq;
		s->loaded = run;
	}
	*image = s->buffer + (seq - s->first_seq) * JOURNAL_BLOCK_BYTES;
	return 0;
}

static int scan_forward(struct scan *s, struct journal_position *at, uint64_t end_seq, journal_record_fn *fn,
			void *ctx)
{
	while (at->last_seq < end_seq) {
		const uint8_t *image;
		uint64_t seq = at->last_seq + 1;
		int err = scan_block(s, seq, &image);
		if (err)
			return err;
		const struct journal_block_disk *h = (const void *)image;
		if (!block_is_whole(s->pool, image, seq) ||
		    (le32_get(h->prev_crc) != at->chain && !MUTANT(22)))
			return 0;
		err = fn ? journal_block_walk(image, seq, fn, ctx) : 0;
		if (err)
			return err;
		at->last_seq = seq;
		at->chain = le32_get(h->crc);
		at->settled_seq = u64_max(at->settled_seq, le64_get(h->settled_seq));
	}
	return 0;
}

/* The chain ends at `at`. A later block whose flush mark covers the missing one proves that it was durable once: that is
 * damage, not a torn tail, and going on would silently lose what was acknowledged. */
static int look_for_damage(struct scan *s, const struct journal_position *at)
{
	uint64_t missing = at->last_seq + 1;
	uint64_t window = u64_min(2 * MEM_BLOCKS_MAX, s->block_count - 1);
	for (uint64_t seq = missing + 1; seq < missing + window; seq++) {
		const uint8_t *image;
		if (scan_block(s, seq, &image))
			continue; /* a place that cannot be read proves nothing */
		const struct journal_block_disk *h = (const void *)image;
		if (!block_is_whole(s->pool, image, seq) || le64_get(h->settled_seq) < missing)
			continue;
		LOG_ERROR("pool.journal_corrupt", "a journal block that was durable is damaged",
			  F_UUID("pool", &s->pool->ident.id), F_U64("block", missing),
			  F_U64("offset_bytes", block_offset_bytes(s->block_count, missing)),
			  F_U64("proved_by_block", seq));
		return OXE_CORRUPT;
	}
	return 0;
}

int journal_scan(struct pool *pool, uint64_t block_count, struct journal_position *at, uint64_t end_seq,
		 journal_record_fn *fn, void *ctx)
{
	struct scan s = {.pool = pool, .block_count = block_count};
	s.buffer = io_alloc(SCAN_BLOCKS * JOURNAL_BLOCK_BYTES);
	if (!s.buffer)
		return OXE_NOMEM;
	int err = scan_forward(&s, at, end_seq, fn, ctx);
	if (!err && !fn)
		err = MUTANT(63) ? 0 : look_for_damage(&s, at);
	else if (!err && at->last_seq != end_seq)
		err = OXE_CORRUPT; /* readable a moment ago */
	free(s.buffer);
	return err;
}
