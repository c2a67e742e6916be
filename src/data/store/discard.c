/*
 * discard.c: see discard.h.
 *
 * What is to be discarded is a bitmap of its own, with memory for those leaves of the pool's only in which there is something: 4 KiB
 * for 2 GiB. That is its bound, and it is never full: what comes twice is one bit, and nobody waits to put one there. Where the
 * disk is slow it just takes longer. A bit may stand for a cluster that was given out again; the pool's bitmap is asked when its
 * turn comes, and from then on, with no other fiber in between, it is held.
 */
#include "data/store/discard.h"

#include "base/log.h"
#include "data/store/flush.h"
#include "data/store/journal.h"

#define REST_MS_DEFAULT 2000u
#define RUN_MAX		256u /* clusters: 16 MiB in one request */
#define GRAIN		16u /* a MiB that is free altogether goes as one: a disk may not be able to let go of less */
#define PAUSE_FACTOR	9u
#define RESTS_MAX	10u /* while clients change things */
#define BUSY_RECORDS	64u /* in one rest */

struct discard {
	struct pool *pool;
	uint8_t **pending; /* by leaf of the bitmap; NULL: nothing */
	uint64_t leaf_count, done_bytes;
	bool kicked, refused, stopping, stopped;
	struct waitq work, ended;
};

static_assert(BITMAP_BITS_PER_PAGE % GRAIN == 0, "a grain is under one page");

struct discard *discard_new(struct pool *pool)
{
	struct discard *d = mem_zalloc(sizeof(*d));
	d->pool = pool;
	d->stopped = true;
	waitq_init(&d->work);
	waitq_init(&d->ended);
	return d;
}

void discard_free(struct discard *d)
{
	assert(d->stopped);
	for (uint64_t leaf = 0; leaf < d->leaf_count; leaf++)
		free(d->pending[leaf]);
	free(d->pending);
	free(d);
}

static bool is_off(const struct discard *d)
{
	return d->pool->options.no_discard || d->pool->options.read_only || d->refused;
}

void discard_expect(struct discard *d)
{
	if (d->kicked || is_off(d))
		return;
	d->kicked = true;
	waitq_wake_all(&d->work);
}

static uint8_t *leaf_bits(struct discard *d, uint64_t leaf)
{
	if (leaf >= d->leaf_count) {
		d->pending = mem_realloc(d->pending, (leaf + 1) * sizeof(*d->pending));
		while (d->leaf_count <= leaf)
			d->pending[d->leaf_count++] = NULL;
	}
	if (!d->pending[leaf])
		d->pending[leaf] = mem_zalloc(BITMAP_BITS_PER_PAGE / 8);
	return d->pending[leaf];
}

void discard_add(struct discard *d, uint32_t cluster)
{
	uint32_t bit = cluster % BITMAP_BITS_PER_PAGE;
	if (is_off(d))
		return;
	leaf_bits(d, cluster / BITMAP_BITS_PER_PAGE)[bit / 8] |= (uint8_t)(1u << bit % 8);
	discard_expect(d);
}

uint64_t discard_bytes(const struct discard *d)
{
	return d->done_bytes;
}

/* ---- choosing -------------------------------------------------------------------------------------------------------- */

struct run {
	uint32_t from, to; /* clusters */
};

static bool is_pending(const uint8_t *bits, uint64_t cluster)
{
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE;
	return bits[bit / 8] >> bit % 8 & 1;
}

static bool grain_is_free(const struct space *s, const struct page *page, uint64_t cluster)
{
	uint64_t first = cluster / GRAIN * GRAIN;
	for (uint64_t c = first; c < first + GRAIN; c++) {
		if (!space_is_free(s, page, c))
			return false;
	}
	return true;
}

static bool grain_is_pending(const uint8_t *bits, uint64_t cluster)
{
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE / GRAIN * GRAIN;
	return bits[bit / 8] || bits[bit / 8 + 1];
}

/* At most a quarter of what can be had at once is held: where space is short it is about to be used again. */
static uint32_t run_max(const struct pool *pool)
{
	struct space_numbers n;
	space_numbers(pool->space, &n);
	return (uint32_t)u64_min(RUN_MAX, n.usable_clusters / 4);
}

/* The clusters from `from` on, below `end`, that go in one request: free, and to be discarded or in a grain that is. */
static struct run run_from(const struct pool *pool, const struct page *page, const uint8_t *bits,
			   uint64_t from, uint64_t end)
{
	const struct space *s = pool->space;
	uint32_t max = run_max(pool);
	uint64_t to = max >= GRAIN && grain_is_free(s, page, from) ? from / GRAIN * GRAIN : from;
	struct run run = {.from = (uint32_t)to};
	while (to < end && to - run.from < max) {
		if (to % GRAIN == 0 && to + GRAIN - run.from <= max && grain_is_pending(bits, to) &&
		    grain_is_free(s, page, to))
			to += GRAIN;
		else if (is_pending(bits, to) && space_is_free(s, page, to))
			to++;
		else
			break;
	}
	run.to = (uint32_t)to;
	return run;
}

static void pending_clear(uint8_t *bits, uint64_t cluster)
{
	uint64_t bit = cluster % BITMAP_BITS_PER_PAGE;
	bits[bit / 8] &= (uint8_t) ~(1u << bit % 8);
}

/* The next run of a leaf, at or after `from`; from == to: none. What is in use again is forgotten; what is neither that nor free
 * stays pending: it may be in a window, and be given back. Does not suspend. */
static struct run run_find(struct discard *d, const struct page *page, uint8_t *bits, uint64_t from)
{
	struct space *s = d->pool->space;
	uint64_t end = u64_min(u64_align_down(from, BITMAP_BITS_PER_PAGE) + BITMAP_BITS_PER_PAGE,
			       d->pool->cluster_count);
	for (uint64_t c = from; c < end; c++) {
		if (c % 8 == 0 && bits[c % BITMAP_BITS_PER_PAGE / 8] == 0) {
			c += 7;
			continue;
		}
		if (!is_pending(bits, c))
			continue;
		if (MUTANT(66))
			return (struct run){(uint32_t)c, (uint32_t)c + 1};
		if (space_is_free(s, page, c))
			return run_from(d->pool, page, bits, c, end);
		if (space_is_owned(page, c))
			pending_clear(bits, c);
	}
	return (struct run){0};
}

/* ---- discarding ------------------------------------------------------------------------------------------------------ */

static void pause_until(struct discard *d, uint64_t deadline_ns)
{
	while (!d->stopping && !d->pool->failed && waitq_wait_until(&d->work, deadline_ns))
		;
}

static void run_discard(struct discard *d, const struct run *run, uint8_t *bits)
{
	struct pool *pool = d->pool;
	uint64_t len_bytes = (run->to - run->from) * (uint64_t)POOL_CLUSTER_BYTES;
	uint64_t begin_ns = rt_now_exact_ns(pool->rt);
	for (uint64_t c = run->from; c < run->to; c++)
		pending_clear(bits, c);
	space_hold(pool->space, run->from, run->to);
	int err = rt_disk_discard(pool->disk, len_bytes, run->from * (uint64_t)POOL_CLUSTER_BYTES);
	space_unhold(pool->space, run->from, run->to);
	d->refused = err || rt_disk_info(pool->disk)->refuses_discards;
	if (err)
		LOG_WARN("pool.discard_failed", "the disk failed a discard; no more are sent to it",
			 F_UUID("pool", &pool->ident.id), F_ERR(err));
	if (d->refused)
		return;
	d->done_bytes += len_bytes;
	uint64_t now_ns = rt_now_exact_ns(pool->rt);
	pause_until(d, now_ns + PAUSE_FACTOR * (now_ns - begin_ns));
}

/* Who looks at a damaged pool shall find what is free as it is (S9). */
static bool is_damaged(const struct pool *pool)
{
	return pool->pages_lost || pool->records_lost || catalog_is_damaged(pool->catalog);
}

static bool goes_on(const struct discard *d)
{
	return !d->stopping && !d->refused && !d->pool->failed && !is_damaged(d->pool) &&
	       run_max(d->pool) > 0;
}

static bool leaf_is_empty(const uint8_t *bits)
{
	return bytes_are_zero(bits, BITMAP_BITS_PER_PAGE / 8);
}

/* The bitmap's page is brought in for each run: anything may happen between two of them. */
static void leaf_discard(struct discard *d, uint64_t leaf)
{
	uint64_t at = u64_max(leaf * BITMAP_BITS_PER_PAGE, d->pool->first_cluster);
	while (goes_on(d)) {
		struct page *page;
		if (space_bitmap_pin(d->pool->space, (uint32_t)at, &page) != 0 || !page)
			return;
		struct run run = run_find(d, page, d->pending[leaf], at);
		page_unpin(page);
		if (run.from == run.to)
			break;
		run_discard(d, &run, d->pending[leaf]); /* holds it before anybody else runs */
		at = run.to;
		if (at / BITMAP_BITS_PER_PAGE != leaf || at >= d->pool->cluster_count)
			break;
	}
	if (leaf_is_empty(d->pending[leaf])) {
		free(d->pending[leaf]);
		d->pending[leaf] = NULL;
	}
}

static void pass(struct discard *d)
{
	for (uint64_t leaf = 0; leaf < d->leaf_count && goes_on(d); leaf++) {
		if (!d->pending[leaf])
			continue;
		leaf_discard(d, leaf);
		fiber_yield();
	}
}

/* Clients come first: while they allocate and free, the pool rests on, though not for ever. */
static void rest(struct discard *d)
{
	const struct pool *pool = d->pool;
	uint64_t ms = pool->options.discard_after_ms ? pool->options.discard_after_ms : REST_MS_DEFAULT;
	for (unsigned i = 0; i < RESTS_MAX && !d->stopping && !pool->failed; i++) {
		uint64_t records = journal_records_written(pool->journal);
		pause_until(d, rt_now_ns(pool->rt) + ms * NS_PER_MS);
		if (journal_records_written(pool->journal) - records < BUSY_RECORDS)
			return;
	}
}

static void discarder(void *arg)
{
	struct discard *d = arg;
	while (!d->stopping && !d->pool->failed) {
		if (!d->kicked) {
			waitq_wait(&d->work); /* idle is idle */
			continue;
		}
		rest(d);
		d->kicked = false;
		if (space_has_quarantine(d->pool->space))
			flush_ask(d->pool->flush); /* what comes out of it is for the next pass */
		pass(d);
	}
	d->stopped = true;
	waitq_wake_all(&d->ended);
}

void discard_start(struct discard *d)
{
	if (is_off(d))
		return;
	d->stopped = false;
	fiber_spawn(d->pool->rt, "discarder", discarder, d);
}

void discard_fail(struct discard *d)
{
	waitq_wake_all(&d->work);
}

void discard_stop(struct discard *d)
{
	d->stopping = true;
	waitq_wake_all(&d->work);
	while (!d->stopped)
		waitq_wait(&d->ended);
}
