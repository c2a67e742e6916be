/* flush.c: see flush.h for the rules. */
#include "data/store/flush.h"

#include "base/prng.h"
#include "data/store/journal.h"
#include "data/store/space.h"

#define UNSETTLED_SOON	  4096u	   /* blocks: beyond this the settler does not wait for its time ... */
#define UNSETTLED_MAX	  16384u   /* ... and here first touches wait for it */
#define SETTLE_AFTER_NS	  NS_PER_S /* so recovery never has many blocks to verify (S5) */
#define UNSETTLED_BUCKETS 4096u

struct unsettled {
	struct unsettled *hash_next;
	struct list link; /* by age of the last change */
	uint64_t layer;
	uint32_t index;
	uint16_t mask;
	uint64_t seq;	       /* the newest record about it */
	uint64_t flushes_seen; /* flushes begun when the first of its blocks was complete */
	struct sector_crcs crcs;
};

struct flush {
	struct pool *pool;
	uint64_t begun, finished; /* flushes, counted */
	bool running, closing;	  /* closing: waiting for ahead writes to leave */
	uint32_t ahead;
	struct waitq done, ahead_left, defined;

	struct list defines; /* in flight, by seq */
	uint64_t flushed_seq, settled_seq, moved_seq;
	uint64_t durable_seq; /* records, whether or not they have their data */
	struct fmutex settle_lock;

	struct unsettled *buckets[UNSETTLED_BUCKETS];
	struct list unsettled;
	uint32_t unsettled_blocks;
	bool asked, stopping, stopped;
	struct waitq work, ended;
};

struct flush *flush_new(struct pool *pool)
{
	struct flush *f = mem_zalloc(sizeof(*f));
	f->pool = pool;
	f->stopped = true;
	list_init(&f->defines);
	list_init(&f->unsettled);
	fmutex_init(&f->settle_lock);
	waitq_init(&f->done);
	waitq_init(&f->ahead_left);
	waitq_init(&f->defined);
	waitq_init(&f->work);
	waitq_init(&f->ended);
	return f;
}

/* ---- the table of unsettled blocks ------------------------------------------------------------------------------------ */

static struct unsettled **bucket(struct flush *f, uint64_t layer, uint32_t index)
{
	return &f->buckets[hash_u64(layer << 32 ^ index) % UNSETTLED_BUCKETS];
}

static struct unsettled *unsettled_find(struct flush *f, uint64_t layer, uint32_t index)
{
	struct unsettled *u = *bucket(f, layer, index);
	while (u && !(u->layer == layer && u->index == index))
		u = u->hash_next;
	return u;
}

static void unsettled_remove(struct flush *f, struct unsettled *u)
{
	struct unsettled **link = bucket(f, u->layer, u->index);
	while (*link != u)
		link = &(*link)->hash_next;
	*link = u->hash_next;
	list_del(&u->link);
	f->unsettled_blocks -= (unsigned)__builtin_popcount(u->mask);
	free(u);
}

void unsettled_add(struct flush *f, uint64_t layer, uint32_t index, uint16_t mask, uint64_t seq,
		   const struct sector_crcs *crcs)
{
	struct unsettled *u = unsettled_find(f, layer, index);
	if (u && u->seq <= f->settled_seq) {
		unsettled_remove(f, u);
		u = NULL;
	}
	if (!u) {
		u = mem_zalloc(sizeof(*u));
		*u = (struct unsettled){.hash_next = *bucket(f, layer, index),
					.layer = layer,
					.index = index,
					.flushes_seen = f->begun};
		*bucket(f, layer, index) = u;
		list_init(&u->link);
	} else {
		list_del(&u->link);
	}
	list_add_tail(&f->unsettled, &u->link);
	f->unsettled_blocks += (unsigned)__builtin_popcount(mask & (uint16_t)~u->mask);
	u->mask |= mask;
	u->seq = u64_max(u->seq, seq);
	for (unsigned block = 0; block < BLOCKS_PER_CLUSTER; block++) {
		if (mask >> block & 1)
			memcpy(u->crcs.of[block], crcs->of[block], sizeof(u->crcs.of[block]));
	}
	waitq_wake_one(&f->work);
}

const uint32_t *unsettled_crcs(struct flush *f, uint64_t layer, uint32_t index, unsigned block)
{
	const struct unsettled *u = unsettled_find(f, layer, index);
	assert(u && (u->mask >> block & 1));
	return u->crcs.of[block];
}

uint16_t unsettled_get(struct flush *f, uint64_t layer, uint32_t index, uint16_t mask, uint64_t *seq)
{
	if (list_empty(&f->unsettled))
		return 0;
	struct unsettled *u = unsettled_find(f, layer, index);
	if (!u || u->seq <= f->settled_seq)
		return 0;
	*seq = u->seq;
	return u->mask & mask;
}

static void forget_settled(struct flush *f)
{
	while (!list_empty(&f->unsettled)) {
		struct unsettled *u = list_first(&f->unsettled, struct unsettled, link);
		if (u->seq > f->settled_seq)
			break;
		unsettled_remove(f, u);
	}
}

void flush_free(struct flush *f)
{
	assert(f->stopped && list_empty(&f->defines));
	while (!list_empty(&f->unsettled))
		unsettled_remove(f, list_first(&f->unsettled, struct unsettled, link));
	free(f);
}

/* ---- flushes ---------------------------------------------------------------------------------------------------------- */

/* Every record up to here is written and has its data. */
static uint64_t complete_seq(const struct flush *f)
{
	uint64_t written = journal_written_seq(f->pool->journal);
	if (list_empty(&f->defines) || MUTANT(25))
		return written;
	return u64_min(written, list_first(&f->defines, struct define_op, link)->seq - 1);
}

void flush_define_begin(struct flush *f, struct define_op *op, uint64_t seq)
{
	assert(list_empty(&f->defines) || list_last(&f->defines, struct define_op, link)->seq <= seq);
	op->seq = seq;
	list_add_tail(&f->defines, &op->link);
}

void flush_define_end(struct flush *f, struct define_op *op)
{
	list_del(&op->link);
	waitq_wake_all(&f->defined);
}

int flush_defines_wait(struct flush *f, uint64_t seq)
{
	while (!f->pool->failed && !list_empty(&f->defines) &&
	       list_first(&f->defines, struct define_op, link)->seq <= seq)
		waitq_wait(&f->defined);
	return f->pool->failed ? OXE_FAILED : 0;
}

int flush_throttle(struct flush *f)
{
	while (!f->pool->failed && f->unsettled_blocks >= UNSETTLED_MAX) {
		flush_ask(f);
		waitq_wait(&f->done);
	}
	return f->pool->failed ? OXE_FAILED : 0;
}

bool flush_ahead_enter(struct flush *f, uint64_t layer, uint32_t index)
{
	struct unsettled *u = unsettled_find(f, layer, index);
	if (f->running || f->closing || !u || (u->flushes_seen != f->begun && !MUTANT(28)))
		return false;
	f->ahead++;
	return true;
}

void flush_ahead_leave(struct flush *f)
{
	assert(f->ahead > 0);
	if (--f->ahead == 0)
		waitq_wake_all(&f->ahead_left);
}

/* One device flush. What it covers is noted before it is sent. */
static void flush_run(struct flush *f)
{
	struct pool *pool = f->pool;
	f->closing = true;
	while (f->ahead > 0)
		waitq_wait(&f->ahead_left);
	f->closing = false;
	f->running = true;
	uint64_t number = ++f->begun;
	uint64_t complete = complete_seq(f), written = journal_written_seq(pool->journal);
	uint64_t mark = journal_written_mark(pool->journal);
	int err = pool->failed ? OXE_FAILED : rt_disk_flush(pool->disk);
	f->running = false;
	if (err) {
		pool_fail(pool, err, "a device flush failed");
	} else {
		f->finished = number;
		f->flushed_seq = u64_max(f->flushed_seq, complete);
		f->settled_seq = u64_max(f->settled_seq, MUTANT(26) ? complete : mark);
		journal_set_mark(pool->journal, f->flushed_seq);
		forget_settled(f);
		f->durable_seq = u64_max(f->durable_seq, written);
		space_durable(pool->space, written);
	}
	waitq_wake_all(&f->done);
}

void flush_moved(struct flush *f, uint64_t seq)
{
	f->moved_seq = u64_max(f->moved_seq, seq);
}

bool flush_moves_are_durable(const struct flush *f)
{
	return f->moved_seq <= f->durable_seq || MUTANT(16);
}

int flush_wait(struct flush *f)
{
	uint64_t wanted = f->begun + (MUTANT(27) && f->running ? 0 : 1);
	while (f->finished < wanted && !f->pool->failed) {
		if (f->running || f->closing)
			waitq_wait(&f->done);
		else
			flush_run(f);
	}
	return f->finished >= wanted ? 0 : OXE_FAILED;
}

int flush_records(struct flush *f, uint64_t seq)
{
	int err = journal_wait(f->pool->journal, seq);
	return err || f->durable_seq >= seq ? err : flush_wait(f);
}

void flush_ask(struct flush *f)
{
	f->asked = true;
	waitq_wake_one(&f->work);
}

/* Flush the data, get a block with the mark written, flush that. Each step may have happened by itself already. */
static int settle_locked(struct flush *f, uint64_t seq)
{
	uint64_t block;
	int err = 0;
	while (!err && f->settled_seq < seq) {
		err = flush_defines_wait(f, seq);
		if (!err)
			err = journal_wait(f->pool->journal, seq);
		if (!err && f->flushed_seq < seq)
			err = flush_wait(f);
		if (!err && f->settled_seq < seq && journal_written_mark(f->pool->journal) < seq) {
			err = journal_force(f->pool->journal, &block);
			if (!err)
				err = journal_wait(f->pool->journal, block);
		}
		if (!err && f->settled_seq < seq)
			err = flush_wait(f);
	}
	return err;
}

int flush_settle(struct flush *f, uint64_t seq)
{
	if (f->settled_seq >= seq)
		return 0;
	fmutex_lock(&f->settle_lock);
	int err = settle_locked(f, seq);
	fmutex_unlock(&f->settle_lock);
	return err;
}

uint64_t flush_count(const struct flush *f)
{
	return f->begun;
}

/* ---- the background settler ------------------------------------------------------------------------------------------- */

static void settler_wait(struct flush *f)
{
	while (!f->stopping && !f->asked && list_empty(&f->unsettled))
		waitq_wait(&f->work); /* idle is idle */
	uint64_t deadline_ns = rt_now_ns(f->pool->rt) + SETTLE_AFTER_NS;
	while (!f->stopping && !f->asked && f->unsettled_blocks < UNSETTLED_SOON) {
		if (!waitq_wait_until(&f->work, deadline_ns))
			return;
	}
}

static void settler(void *arg)
{
	struct flush *f = arg;
	while (!f->stopping && !f->pool->failed) {
		settler_wait(f);
		if (f->stopping || f->pool->failed)
			break;
		bool asked = f->asked;
		f->asked = false;
		int err = list_empty(&f->unsettled) ? 0 : flush_settle(f, complete_seq(f));
		if (!err && asked)
			err = flush_wait(f);
		(void)err; /* a failed flush has already failed the pool, which logged it */
	}
	f->stopped = true;
	waitq_wake_all(&f->ended);
}

void flush_start(struct flush *f, uint64_t settled_seq)
{
	f->settled_seq = f->flushed_seq = settled_seq;
	f->stopped = false;
	fiber_spawn(f->pool->rt, "settler", settler, f);
}

void flush_fail(struct flush *f)
{
	waitq_wake_all(&f->done);
	waitq_wake_all(&f->defined);
	waitq_wake_all(&f->work);
}

void flush_stop(struct flush *f)
{
	f->stopping = true;
	waitq_wake_all(&f->work);
	waitq_wake_all(&f->defined);
	while (!f->stopped)
		waitq_wait(&f->ended);
}
