/*
 * checkpoint.c: writing the state as of one journal block, in the background, while I/O goes on (S5).
 *
 *     reserve   enough metadata pages for everything dirty                             may suspend, repeat
 *     freeze    cut the journal at J; every dirty page gets an address and an image    one breath
 *     write     the images; wait until the journal and the data of its DEFINEs up to J are written
 *     flush     all of that is on stable storage
 *     super     the new superblock, durably: from here on recovery starts at J + 1
 *     release   what only the superblock before last needed: held pages, journal up to the previous J
 *
 * A crash anywhere before `super` leaves the old superblock and everything it needs.
 */
#include "base/log.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/super.h"
#include "data/store/metapage.h"
#include "data/store/store.h"

#define WRITE_PAGES 16u /* images side by side in one write: a cluster */
#define WRITES_MAX  8u	/* of those at once */

struct checkpoint {
	struct pool *pool;
	uint64_t started, finished; /* counted */
	uint64_t replay_seq;	    /* of the newest durable superblock */
	bool asked, stopping, stopped;
	struct waitq work, done;
};

struct checkpoint *checkpoint_new(struct pool *pool)
{
	struct checkpoint *c = mem_zalloc(sizeof(*c));
	c->pool = pool;
	c->stopped = true;
	waitq_init(&c->work);
	waitq_init(&c->done);
	return c;
}

void checkpoint_free(struct checkpoint *c)
{
	assert(c->stopped);
	free(c);
}

/* ---- writing the images ------------------------------------------------------------------------------------------------------ */

struct image_write {
	struct pool *pool;
	struct frozen **images;
	size_t count, next;
	uint64_t generation;
	int err;
	struct rt_group writers;
};

/* How many of the images from `first` on lie side by side on disk. */
static size_t run_length(const struct image_write *w, size_t first)
{
	size_t n = 1;
	while (n < WRITE_PAGES && first + n < w->count &&
	       w->images[first + n]->address == w->images[first]->address + n)
		n++;
	return n;
}

static int write_run(struct image_write *w, size_t first, size_t count, uint8_t *buffer)
{
	for (size_t i = 0; i < count; i++) {
		struct frozen *f = w->images[first + i];
		memcpy(buffer + i * PAGE_BYTES, f->data, PAGE_BYTES);
		page_seal(w->pool, f, w->generation, buffer + i * PAGE_BYTES);
	}
	return rt_disk_write(w->pool->disk, buffer, count * PAGE_BYTES,
			     w->images[first]->address * PAGE_BYTES, 0);
}

/* Without memory for a run: the images as they are, one by one. Nobody needs the headers of what is in memory. */
static int write_singly(struct image_write *w, size_t first, size_t count)
{
	int err = 0;
	for (size_t i = first; !err && i < first + count; i++) {
		struct frozen *f = w->images[i];
		page_seal(w->pool, f, w->generation, f->data);
		err = rt_disk_write(w->pool->disk, f->data, PAGE_BYTES, f->address * PAGE_BYTES, 0);
	}
	return err;
}

/* One of several fibers that take runs until none is left. */
static void write_images(void *arg)
{
	struct image_write *w = arg;
	uint8_t *buffer = io_alloc(WRITE_PAGES * PAGE_BYTES);
	while (!w->err && w->next < w->count) {
		size_t first = w->next, count = run_length(w, first);
		w->next += count;
		int err = buffer ? write_run(w, first, count, buffer) : write_singly(w, first, count);
		w->err = w->err ? w->err : err;
	}
	free(buffer);
	group_done(&w->writers);
}

static int images_write(struct pool *pool, struct frozen **images, size_t count, uint64_t generation)
{
	struct image_write w = {.pool = pool, .images = images, .count = count, .generation = generation};
	group_init(&w.writers);
	group_add(&w.writers, WRITES_MAX);
	for (unsigned i = 0; i < WRITES_MAX; i++)
		fiber_spawn(pool->rt, "checkpoint-write", write_images, &w);
	group_wait(&w.writers);
	return w.err;
}

/* ---- the phases ---------------------------------------------------------------------------------------------------------------- */

/* What the freeze can need: every dirty page, a page and its parents for each touched slot, the usage table. */
static uint64_t pages_needed(const struct pool *pool)
{
	return cache_dirty_count(pool->cache) + 2 * catalog_touched_slots(pool->catalog) + 8 +
	       2 * (uint64_t)metapages_table_pages(pool->metapages);
}

static int reserve_pages(struct pool *pool)
{
	int err = metapages_trim(pool->metapages);
	while (!err && metapages_ready(pool->metapages) < pages_needed(pool))
		err = metapages_reserve(pool->metapages, pages_needed(pool));
	return err;
}

struct freeze {
	struct super super;
	struct frozen **images;
	size_t count, capacity;
	uint64_t last_seq; /* J */
};

/* Maps and notes first: their new roots go into the catalog; the bitmap after everything that could have changed it. */
static void freeze(struct pool *pool, struct freeze *f)
{
	uint64_t generation = pool->ident.generation + 1;
	uint32_t low = (uint32_t)generation;
	struct space_numbers numbers;
	f->last_seq = journal_cut(pool->journal, &f->super.replay_chain);
	cache_freeze(pool->cache, PAGE_MAP, low, &f->images, &f->count, &f->capacity);
	cache_freeze(pool->cache, PAGE_NOTE, low, &f->images, &f->count, &f->capacity);
	catalog_write_slots(pool->catalog);
	cache_freeze(pool->cache, PAGE_CATALOG, low, &f->images, &f->count, &f->capacity);
	cache_freeze(pool->cache, PAGE_BITMAP, low, &f->images, &f->count, &f->capacity);
	f->super.usage_pages = metapages_table_pages(pool->metapages);
	f->super.usage_page = metapages_table_freeze(pool->metapages, &f->images, &f->count, &f->capacity);
	metapages_frozen(pool->metapages);
	space_numbers(pool->space, &numbers);
	f->super.pool_id = pool->ident.id;
	memcpy(f->super.name, pool->ident.name, sizeof(f->super.name));
	f->super.generation = generation;
	f->super.created_wall_ns = pool->created_wall_ns;
	f->super.cluster_count = pool->cluster_count;
	f->super.journal_blocks = pool->journal_blocks;
	f->super.replay_seq = f->last_seq + 1;
	f->super.next_number = catalog_next_number(pool->catalog);
	f->super.free_clusters = numbers.free_clusters;
	f->super.bitmap = space_bitmap_root(pool->space);
	f->super.catalog = catalog_root(pool->catalog);
	f->super.overrules = pool->overruling;
}

static int make_durable(struct pool *pool, struct freeze *f)
{
	int err = images_write(pool, f->images, f->count, f->super.generation);
	if (!err)
		err = journal_wait(pool->journal, f->last_seq);
	if (!err && !MUTANT(7))
		err = flush_defines_wait(pool->flush, f->last_seq);
	if (!err && !MUTANT(8))
		err = flush_wait(pool->flush);
	if (!err)
		err = super_write(pool->disk, &f->super);
	return err;
}

static void release(struct checkpoint *c, const struct freeze *f)
{
	struct pool *pool = c->pool;
	uint64_t previous_replay_seq = c->replay_seq;
	pool->ident.generation = f->super.generation;
	pool->ident.format_version = SUPER_FORMAT_VERSION;
	c->replay_seq = f->super.replay_seq;
	metapages_durable(pool->metapages, f->super.generation);
	journal_release(pool->journal, MUTANT(9) ? c->replay_seq : previous_replay_seq);
}

static int checkpoint_run(struct checkpoint *c)
{
	struct pool *pool = c->pool;
	struct freeze f = {0};
	int err = reserve_pages(pool);
	if (!err) {
		freeze(pool, &f);
		err = make_durable(pool, &f);
	}
	for (size_t i = 0; i < f.count; i++)
		frozen_release(f.images[i]);
	free(f.images);
	if (!err)
		release(c, &f);
	return err;
}

/* ---- the background fiber -------------------------------------------------------------------------------------------------------- */

static void checkpointer(void *arg)
{
	struct checkpoint *c = arg;
	while (!c->pool->failed) {
		while (!c->asked && !c->stopping && !c->pool->failed)
			waitq_wait(&c->work);
		if (!c->asked || c->pool->failed)
			break;
		c->asked = false;
		c->started++;
		int err = checkpoint_run(c);
		if (err)
			pool_fail(c->pool, err, "a checkpoint could not be written");
		else
			c->finished = c->started;
		waitq_wake_all(&c->done);
	}
	c->stopped = true;
	waitq_wake_all(&c->done);
}

void checkpoint_start(struct checkpoint *c, uint64_t replay_seq)
{
	c->replay_seq = replay_seq;
	c->stopped = false;
	fiber_spawn(c->pool->rt, "checkpoint", checkpointer, c);
}

void checkpoint_stop(struct checkpoint *c)
{
	c->stopping = true;
	waitq_wake_all(&c->work);
	while (!c->stopped)
		waitq_wait(&c->done);
}

void checkpoint_fail(struct checkpoint *c)
{
	waitq_wake_all(&c->work);
	waitq_wake_all(&c->done);
}

void checkpoint_ask(struct pool *pool)
{
	pool->checkpoint->asked = true;
	waitq_wake_one(&pool->checkpoint->work);
}

/* A quarter of the ring since the last one, twice over, leaves half the ring for what comes while one is written. */
void checkpoint_poll(struct pool *pool)
{
	struct checkpoint *c = pool->checkpoint;
	uint64_t since = journal_open_seq(pool->journal) - c->replay_seq;
	if (!c->asked && c->started == c->finished &&
	    (since > pool->journal_blocks / 4 || cache_dirty_count(pool->cache) > pool->dirty_limit / 2))
		checkpoint_ask(pool);
}

int checkpoint_throttle(struct pool *pool)
{
	struct checkpoint *c = pool->checkpoint;
	while (!pool->failed && cache_dirty_count(pool->cache) >= pool->dirty_limit) {
		checkpoint_ask(pool);
		waitq_wait(&c->done);
	}
	return pool->failed ? OXE_FAILED : 0;
}

int checkpoint_wait(struct pool *pool)
{
	struct checkpoint *c = pool->checkpoint;
	uint64_t wanted = c->started + 1;
	while (c->finished < wanted && !pool->failed && !c->stopped) {
		c->asked = c->asked || c->started < wanted;
		waitq_wake_one(&c->work);
		waitq_wait(&c->done);
	}
	return c->finished >= wanted ? 0 : OXE_FAILED;
}

uint64_t checkpoint_count(const struct checkpoint *c)
{
	return c->finished;
}
