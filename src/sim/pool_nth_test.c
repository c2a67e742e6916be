/*
 * pool_nth_test.c: one device request of a control operation fails, and each of them has its turn.
 *
 * The same small pool is made once and frozen. For every operation, and for n = 1, 2, ... until the operation ends before its
 * nth request, a fork of it runs the operation with the nth read, write or flush failing. Whatever the operation returned, what
 * the disk then holds is opened in a machine that works: the pool is whole, the operation is done or absent (done, if it said
 * so), can be repeated, and nobody else's data has changed.
 *
 * Besides, one allocation of it that is large, or grows with what people make, fails, each in turn: the operation then says OXE_NOMEM,
 * or does without, and the pool goes on.
 *
 * The process is not killed but its disk forked as a kill would leave it: so the process can go on and close its pool, which
 * must work after any error, and leaves no memory behind.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/machine.h"
#include "sim/pool_value.h"

#include <signal.h>
#include <stdio.h>

#define DISK	      "/var/pool" /* a file: it grows, and formatting writes all of its journal */
#define DISK_BYTES    (16 * MiB)
#define GROWN_BYTES   (20 * MiB)
#define BLOCKS	      64u /* that have data in them: 4 clusters */
#define BLOCK_SECTORS (POOL_BLOCK_BYTES / VALUE_BYTES)
#define JOB_RETRY_NS  (61 * NS_PER_S) /* a job that could not go on is tried again after a minute */

/* ---- what is in the pool ---------------------------------------------------------------------------------------------- */

/* What a reader may find: S and T are snapshots of the volume, S the older, which the clone continues. Each but S overwrites
 * single blocks of every cluster, so that merging and flattening have to copy. */
enum content { ZEROES, S, T, VOLUME, CLONE };

/* The things that may be there. Several with one id are what an operation makes of the first. */
enum thing {
	SNAP_S,
	SNAP_T,
	SNAP_NEW,
	VOL,
	VOL_GROWN,
	VOL_RENAMED,
	VOL_NOTED,
	VOL_REVERTED,
	LINKED,
	LINKED_FLAT,
	LINKED_ALONE,
	NEW_EMPTY,
	NEW_LINKED,
	NEW_COPY,
	NEW_WORKED_ON,
	THINGS
};

#define ID(n)                                                                                                \
	{                                                                                                    \
		{                                                                                            \
			0x0b, 0x0d, n, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, n                           \
		}                                                                                            \
	}
#define HAS(thing) (1u << (thing))
#define KNOWN	   (HAS(SNAP_S) | HAS(SNAP_T) | HAS(VOL) | HAS(LINKED))

static const struct uuid pool_id = ID(1), s_id = ID(2), t_id = ID(3), v_id = ID(4), c_id = ID(5),
			 new_id = ID(6), head_id = ID(7);

static const struct thing_facts {
	const struct uuid *id;
	const char *name;
	enum content content;
	uint64_t size_bytes;
	bool is_snapshot, is_reverted, is_noted;
	bool is_linked; /* needs another volume's layers, and nothing is being done about that */
	bool is_heir;	/* linked, until what it alone still needs has been merged into it */
} things[THINGS] = {
	[SNAP_S] = {&s_id, "s", S, MiB, .is_snapshot = true},
	[SNAP_T] = {&t_id, "t", T, MiB, .is_snapshot = true},
	[SNAP_NEW] = {&new_id, "new", VOLUME, MiB, .is_snapshot = true},
	[VOL] = {&v_id, "v", VOLUME, MiB},
	[VOL_GROWN] = {&v_id, "v", VOLUME, 2 * MiB},
	[VOL_RENAMED] = {&v_id, "w", VOLUME, MiB},
	[VOL_NOTED] = {&v_id, "v", VOLUME, MiB, .is_noted = true},
	[VOL_REVERTED] = {&v_id, "v", T, MiB, .is_reverted = true},
	[LINKED] = {&c_id, "c", CLONE, MiB, .is_linked = true},
	[LINKED_FLAT] = {&c_id, "c", CLONE, MiB},
	[LINKED_ALONE] = {&c_id, "c", CLONE, MiB, .is_heir = true},
	[NEW_EMPTY] = {&new_id, "new", ZEROES, MiB},
	[NEW_LINKED] = {&new_id, "new", S, MiB, .is_linked = true},
	[NEW_COPY] = {&new_id, "new", S, MiB},
	[NEW_WORKED_ON] = {&new_id, "new", CLONE, MiB, .is_linked = true},
};

/* Whose write a reader of `content` finds in a block. */
static enum content block_owner(enum content content, unsigned block)
{
	switch (content) {
	case T:
		return block % 4 == 1 ? T : S;
	case VOLUME:
		return block % 4 == 2 || block % 8 == 1 ? VOLUME : block_owner(T, block);
	case CLONE:
		return block % 4 == 3 ? CLONE : S;
	default:
		return content;
	}
}

static uint64_t block_tag(enum content content, unsigned block)
{
	enum content owner = block_owner(content, block);
	return owner == ZEROES ? 0 : value_tag(1, owner);
}

/* ---- a machine with the pool ------------------------------------------------------------------------------------------ */

struct life {
	const struct row *row;
	struct machine m;
	struct sim_disk *disk;
	struct pool *pool; /* NULL: not open */
	uint64_t nth;
	bool must_be_done, reached;
	int err;
};

/* `prepare` is what comes before without a fault, NULL for nothing; `run` may be called again and again. */
struct row {
	const char *name;
	int (*prepare)(struct life *l);
	int (*run)(struct life *l);
	bool has_jobs;		/* pool_jobs_wait is part of it */
	uint64_t size_bytes;	/* of the pool in the end */
	unsigned before, after; /* things there are; 0 and 0: there is no pool before */
};

static struct rt_disk *disk_open(void)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	return disk;
}

static int try_open(struct life *l)
{
	struct pool_options options = {.cache_bytes = 4 * MiB};
	struct pool *pool;
	int err = pool_open(disk_open(), &options, &pool);
	l->pool = err ? NULL : pool;
	return err;
}

static int close_if_open(struct life *l)
{
	struct pool *pool = l->pool;
	l->pool = NULL;
	return pool ? pool_close(pool) : 0;
}

static void life_begin(struct life *l, const struct row *row, uint64_t seed)
{
	*l = (struct life){.row = row, .m = machine_begin(seed)};
	sim_shuffle(l->m.sim, seed > 1);
}

static void close_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(close_if_open(l));
}

static void life_end(struct life *l)
{
	machine_run(&l->m, close_main, l);
	machine_end(&l->m);
}

/* ---- the operations --------------------------------------------------------------------------------------------------- */

static int run_format(struct life *l)
{
	struct pool_format_spec spec = {.id = pool_id, .name = "p"};
	struct rt_disk *disk = disk_open();
	(void)l;
	int err = pool_format(disk, &spec, false);
	rt_disk_close(disk);
	return err;
}

static int run_open(struct life *l)
{
	int err = close_if_open(l);
	return err ? err : try_open(l);
}

#define OPERATION(name, call)                                                                                \
	static int name(struct life *l)                                                                      \
	{                                                                                                    \
		return call;                                                                                 \
	}

static const struct volume_spec volume = {.id = ID(4), .name = "v", .size_bytes = MiB};
static const struct volume_spec clone = {.id = ID(5), .name = "c"};
static const struct volume_spec new_volume = {.id = ID(6), .name = "new", .size_bytes = MiB};
static const struct volume_spec new_clone = {.id = ID(6), .name = "new"};

static uint8_t note[POOL_NOTE_BYTES_MAX]; /* larger than anything else in the journal */

OPERATION(run_create, volume_create(l->pool, &new_volume))
OPERATION(run_clone, volume_clone(l->pool, &new_clone, &s_id, false))
OPERATION(run_full_copy, volume_clone(l->pool, &new_clone, &s_id, true))
OPERATION(run_snapshot, snapshot_create(l->pool, &v_id, &new_id, "new", NULL))
OPERATION(run_snapshot_delete, snapshot_delete(l->pool, &t_id))
OPERATION(run_revert, volume_revert(l->pool, &v_id, &t_id, &head_id))
OPERATION(run_grow, volume_grow(l->pool, &v_id, 2 * MiB))
OPERATION(run_rename, volume_rename(l->pool, &v_id, "w"))
OPERATION(run_flatten, volume_flatten(l->pool, &c_id, true))
OPERATION(run_delete, volume_delete(l->pool, &v_id))
OPERATION(run_pool_grow, pool_grow(l->pool))
OPERATION(run_note, pool_note_set(l->pool, &v_id, POOL_NOTE_RESERVATION, note, sizeof(note)))
OPERATION(run_checkpoint, pool_checkpoint(l->pool))

static int row_run(struct life *l)
{
	int err = l->row->run(l);
	return err || !l->row->has_jobs ? err : pool_jobs_wait(l->pool);
}

/* ---- making the pool -------------------------------------------------------------------------------------------------- */

static void content_write(struct pool *pool, enum content content, const struct uuid *id)
{
	uint8_t *block = aligned_alloc(RT_IO_ALIGN, POOL_BLOCK_BYTES);
	struct vol *vol;
	CHECK_OK(vol_open(pool, id, &vol));
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (block_owner(content, i) != content)
			continue;
		value_fill(block, i * BLOCK_SECTORS, BLOCK_SECTORS, block_tag(content, i));
		CHECK_OK(vol_write(vol, block, i * POOL_BLOCK_BYTES, POOL_BLOCK_BYTES, 0));
	}
	CHECK_OK(vol_flush(vol));
	vol_close(vol);
	free(block);
}

/* The older half is in a checkpoint, the rest in the journal. */
static void base_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(run_format(l));
	struct rt_disk *disk = disk_open();
	CHECK_OK(rt_disk_grow(disk, GROWN_BYTES));
	rt_disk_close(disk);
	CHECK_OK(try_open(l));
	CHECK_OK(volume_create(l->pool, &volume));
	content_write(l->pool, S, &v_id);
	CHECK_OK(snapshot_create(l->pool, &v_id, &s_id, "s", NULL));
	content_write(l->pool, T, &v_id);
	CHECK_OK(pool_checkpoint(l->pool));
	CHECK_OK(snapshot_create(l->pool, &v_id, &t_id, "t", NULL));
	content_write(l->pool, VOLUME, &v_id);
	CHECK_OK(volume_clone(l->pool, &clone, &s_id, false));
	content_write(l->pool, CLONE, &c_id);
}

static struct sim_frozen *base_make(void)
{
	struct life l;
	life_begin(&l, NULL, 1);
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, base_main, &l);
	struct sim_frozen *frozen = sim_disk_freeze(l.disk);
	life_end(&l);
	return frozen;
}

/* Open, and let the job fiber come to rest: what it looks at during the operation it was told to by the operation. */
static int open_idle(struct life *l)
{
	int err = try_open(l);
	return err ? err : pool_jobs_wait(l->pool);
}

/* Besides, give a checkpoint something to write. */
static int work(struct life *l)
{
	CHECK_OK(open_idle(l));
	CHECK_OK(run_clone(l));
	content_write(l->pool, CLONE, &new_id);
	return 0;
}

#define WORKED (KNOWN | HAS(NEW_WORKED_ON))
#define SMALL  DISK_BYTES

static const struct row rows[] = {
	{"pool_format", NULL, run_format, false, SMALL, 0, 0},
	{"pool_open", NULL, run_open, false, SMALL, KNOWN, KNOWN},
	{"volume_create", open_idle, run_create, false, SMALL, KNOWN, KNOWN | HAS(NEW_EMPTY)},
	{"volume_clone", open_idle, run_clone, false, SMALL, KNOWN, KNOWN | HAS(NEW_LINKED)},
	{"volume_clone full_copy", open_idle, run_full_copy, true, SMALL, KNOWN, KNOWN | HAS(NEW_COPY)},
	{"snapshot_create", open_idle, run_snapshot, false, SMALL, KNOWN, KNOWN | HAS(SNAP_NEW)},
	{"snapshot_delete", open_idle, run_snapshot_delete, true, SMALL, KNOWN, KNOWN ^ HAS(SNAP_T)},
	{"volume_revert", open_idle, run_revert, false, SMALL, KNOWN, KNOWN ^ HAS(VOL) ^ HAS(VOL_REVERTED)},
	{"volume_grow", open_idle, run_grow, false, SMALL, KNOWN, KNOWN ^ HAS(VOL) ^ HAS(VOL_GROWN)},
	{"volume_rename", open_idle, run_rename, false, SMALL, KNOWN, KNOWN ^ HAS(VOL) ^ HAS(VOL_RENAMED)},
	{"pool_note_set", open_idle, run_note, false, SMALL, KNOWN, KNOWN ^ HAS(VOL) ^ HAS(VOL_NOTED)},
	{"volume_flatten", open_idle, run_flatten, true, SMALL, KNOWN,
	 KNOWN ^ HAS(LINKED) ^ HAS(LINKED_FLAT)},
	{"volume_delete", open_idle, run_delete, true, SMALL, KNOWN, HAS(LINKED_ALONE)},
	{"pool_grow", work, run_pool_grow, false, GROWN_BYTES, WORKED, WORKED},
	{"pool_checkpoint", work, run_checkpoint, false, SMALL, WORKED, WORKED},
	{"pool_close", work, close_if_open, false, SMALL, WORKED, WORKED},
};

/* ---- checking what is left -------------------------------------------------------------------------------------------- */

static bool snapshot_is_there(const struct pool *pool, const struct thing_facts *f)
{
	struct snapshot_info by_id, by_name;
	return snapshot_get(pool, f->id, &by_id) == 0 &&
	       snapshot_find(pool, &by_id.volume_id, f->name, &by_name) == 0 &&
	       uuid_equal(&by_name.id, f->id) && uuid_equal(&by_id.volume_id, &v_id) &&
	       by_id.size_bytes == f->size_bytes;
}

static bool note_is_there(struct pool *pool, const struct uuid *id)
{
	uint8_t data[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	int err = pool_note_get(pool, id, POOL_NOTE_RESERVATION, data, &len_bytes);
	CHECK(err == 0 || err == OXE_NOENT);
	CHECK(err || (len_bytes == sizeof(note) && memcmp(data, note, sizeof(note)) == 0));
	return err == 0;
}

static bool volume_is_there(struct pool *pool, const struct thing_facts *f)
{
	struct volume_info by_id, by_name;
	return volume_get(pool, f->id, &by_id) == 0 && volume_find(pool, f->name, &by_name) == 0 &&
	       uuid_equal(&by_name.id, f->id) && by_id.size_bytes == f->size_bytes &&
	       uuid_equal(&by_id.head_id, &head_id) == f->is_reverted &&
	       note_is_there(pool, f->id) == f->is_noted &&
	       (f->is_heir || (by_id.is_clone && !by_id.is_flattening) == f->is_linked);
}

/* All of `wanted` and nothing else. */
static bool things_are(struct pool *pool, unsigned wanted)
{
	struct pool_stats stats;
	uint32_t volumes = 0, snapshots = 0;
	for (unsigned i = 0; i < THINGS; i++) {
		const struct thing_facts *f = &things[i];
		if (!(wanted & HAS(i)))
			continue;
		if (f->is_snapshot ? !snapshot_is_there(pool, f) : !volume_is_there(pool, f))
			return false;
		volumes += !f->is_snapshot;
		snapshots += f->is_snapshot;
	}
	pool_stats(pool, &stats);
	return stats.volume_count == volumes && stats.snapshot_count == snapshots;
}

static bool is_done(const struct life *l)
{
	struct pool_stats stats;
	pool_stats(l->pool, &stats);
	CHECK(stats.total_bytes == SMALL || stats.total_bytes == l->row->size_bytes);
	bool done = things_are(l->pool, l->row->after);
	CHECK(done || things_are(l->pool, l->row->before));
	return done && stats.total_bytes == l->row->size_bytes;
}

static void content_check(struct pool *pool, const struct thing_facts *f)
{
	uint64_t len_bytes = BLOCKS * POOL_BLOCK_BYTES;
	uint8_t *data = aligned_alloc(RT_IO_ALIGN, len_bytes);
	struct vol *vol;
	CHECK_OK(vol_open(pool, f->id, &vol));
	CHECK_OK(vol_read(vol, data, 0, len_bytes));
	for (unsigned i = 0; i < BLOCKS * BLOCK_SECTORS; i++)
		if (!value_is(data + i * VALUE_BYTES, i, block_tag(f->content, i / BLOCK_SECTORS)))
			test_fail(__FILE__, __LINE__, "sector %u of %s has changed", i, f->name);
	vol_close(vol);
	free(data);
}

static void problem_print(void *ctx, const struct pool_problem *p)
{
	(void)ctx;
	fprintf(stderr, "problem: %s\n", p->text);
}

static void check_all(struct pool *pool, unsigned there)
{
	struct pool_check_result result;
	CHECK_OK(pool_check(pool, problem_print, NULL, &result));
	CHECK_EQ(result.problem_count, 0);
	for (unsigned i = 0; i < THINGS; i++)
		if (there & HAS(i))
			content_check(pool, &things[i]);
}

static bool job_count_one(void *ctx, const struct pool_job *j)
{
	(void)j;
	++*(unsigned *)ctx;
	return true;
}

static unsigned job_count(const struct pool *pool)
{
	unsigned count = 0;
	pool_job_walk(pool, job_count_one, &count);
	return count;
}

static bool is_formatted(void)
{
	struct pool_ident ident;
	struct rt_disk *disk = disk_open();
	int err = pool_identify(disk, &ident);
	rt_disk_close(disk);
	return err == 0 && uuid_equal(&ident.id, &pool_id);
}

/* After the crash: what is there, the operation again, and what is there then. */
static void after_main(void *arg)
{
	struct life *l = arg;
	bool done = l->row->before == 0 && is_formatted();
	if (l->row->before) {
		CHECK_OK(try_open(l));
		done = is_done(l);
		check_all(l->pool, done ? l->row->after : l->row->before);
	}
	CHECK(done || !l->must_be_done);
	CHECK_OK(row_run(l));
	if (!l->pool)
		CHECK_OK(try_open(l));
	CHECK(is_done(l));
	CHECK_OK(pool_jobs_wait(l->pool));
	CHECK_EQ(job_count(l->pool), 0);
	check_all(l->pool, l->row->after);
}

/* ---- memory that cannot be had ---------------------------------------------------------------------------------------- */

/* The store's large allocations (io_alloc in store.h), and those that grow with what people make (mem_try_realloc), come by here: the
 * linker sees to it. */
static uint64_t fail_allocation_nth;

void *__real_mem_try_realloc(void *old, size_t size_bytes);
void *__wrap_mem_try_realloc(void *old, size_t size_bytes);

void *__wrap_mem_try_realloc(void *old, size_t size_bytes)
{
	if (fail_allocation_nth > 0 && --fail_allocation_nth == 0)
		return NULL;
	return __real_mem_try_realloc(old, size_bytes);
}

void *__real_aligned_alloc(size_t align_bytes, size_t len_bytes);
void *__wrap_aligned_alloc(size_t align_bytes, size_t len_bytes);

void *__wrap_aligned_alloc(size_t align_bytes, size_t len_bytes)
{
	bool large = len_bytes > POOL_BLOCK_BYTES; /* a single page is had, or the process stops */
	if (large && fail_allocation_nth > 0 && --fail_allocation_nth == 0)
		return NULL;
	return __real_aligned_alloc(align_bytes, len_bytes);
}

/* ---- the sweep -------------------------------------------------------------------------------------------------------- */

enum ending { KILLED, POWER_CUT, CARRIED_ON };

static const char *const ending_names[] = {"a kill", "a power cut", "carrying on"};

static struct {
	const char *row;
	uint64_t seed, nth;
	enum ending ending;
	bool memory; /* an allocation fails, not a request */
} now;

/* A failed CHECK and an assert of the store both end here. */
static void say_where(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "  in %s, %s %llu failing, then %s\n", now.row, now.memory ? "allocation" : "request",
		(unsigned long long)now.nth, ending_names[now.ending]);
}

/* It says so, and nothing has stopped. */
static void memory_judge(const struct life *l)
{
	struct pool_stats stats = {.failed = false};
	if (l->err)
		CHECK_ERR(l->err, OXE_NOMEM);
	if (l->pool)
		pool_stats(l->pool, &stats);
	CHECK(!stats.failed);
}

static void operation_main(void *arg)
{
	struct life *l = arg;
	struct sim_disk_faults *faults = sim_disk_faults(l->disk);
	if (l->row->prepare)
		CHECK_OK(l->row->prepare(l));
	uint64_t *countdown = now.memory ? &fail_allocation_nth : &faults->fail_nth;
	*countdown = l->nth;
	l->err = row_run(l);
	l->reached = *countdown == 0;
	*countdown = 0;
	CHECK(l->reached || l->err == 0);
	if (now.memory)
		memory_judge(l);
	CHECK(!l->row->has_jobs || l->err != OXE_IO || job_count(l->pool) > 0);
}

/* An error that did not stop the pool is over when the call returns, or, a job's, when the job is tried again. */
static void carry_on_main(void *arg)
{
	struct life *l = arg;
	struct pool_stats stats = {.failed = false};
	if (l->pool)
		pool_stats(l->pool, &stats);
	if (l->err && !stats.failed) {
		fiber_sleep(l->row->has_jobs ? JOB_RETRY_NS : 0);
		CHECK_OK(row_run(l));
		l->err = 0;
	}
	CHECK_OK(close_if_open(l));
}

static void after_check(const struct life *before)
{
	struct life l;
	struct sim_frozen *frozen = sim_disk_freeze(before->disk);
	life_begin(&l, before->row, now.seed);
	l.must_be_done = before->err == 0;
	l.disk = now.ending == POWER_CUT ? sim_disk_fork_power_cut(l.m.node, DISK, frozen, NULL)
					 : sim_disk_fork_kill(l.m.node, DISK, frozen);
	machine_run(&l.m, after_main, &l);
	life_end(&l);
	sim_frozen_free(frozen);
}

/* False: the operation ended before its nth request. */
static bool nth_try(const struct row *row, const struct sim_frozen *base)
{
	struct life l;
	life_begin(&l, row, now.seed);
	l.nth = now.nth;
	l.disk = row->before ? sim_disk_fork_kill(l.m.node, DISK, base)
			     : sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, operation_main, &l);
	if (now.ending == CARRIED_ON)
		machine_run(&l.m, carry_on_main, &l);
	after_check(&l);
	life_end(&l);
	return l.reached;
}

static void sweep(enum ending ending, bool memory)
{
	struct sim_frozen *base = base_make();
	uint64_t failed = 0;
	signal(SIGABRT, say_where);
	now.ending = ending;
	now.memory = memory;
	now.seed = 1 + ending; /* which part of a failed write gets through, and which fiber is first */
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		now.row = row->name;
		for (now.nth = 1; nth_try(row, base); now.nth++)
			failed++;
		CHECK(memory || now.nth > 1);
	}
	CHECK(failed > 0);
	printf("%llu %s failed, then %s\n", (unsigned long long)failed, memory ? "allocations" : "requests",
	       ending_names[ending]);
	sim_frozen_free(base);
}

TEST(after_a_failed_request_and_a_kill_an_operation_is_done_or_absent_and_can_be_repeated)
{
	sweep(KILLED, false);
}

TEST(after_a_failed_request_and_a_power_cut_an_operation_is_done_or_absent_and_can_be_repeated)
{
	sweep(POWER_CUT, false);
}

TEST(after_a_failed_request_that_did_not_stop_the_pool_the_operation_can_be_repeated)
{
	sweep(CARRIED_ON, false);
}

TEST(after_a_failed_allocation_and_a_kill_an_operation_is_done_or_absent_and_can_be_repeated)
{
	sweep(KILLED, true);
}

TEST(after_a_failed_allocation_the_pool_goes_on_and_the_operation_can_be_repeated)
{
	sweep(CARRIED_ON, true);
}

/* ---- many things ------------------------------------------------------------------------------------------------------ */

#define CROWD 40u /* volumes: five pages of the catalog with their heads */

static int crowd_create(struct life *l, unsigned i)
{
	struct volume_spec spec = {.id = new_id, .size_bytes = MiB};
	spec.id.b[3] = (uint8_t)(1 + i);
	snprintf(spec.name, sizeof(spec.name), "crowd-%u", i);
	return volume_create(l->pool, &spec);
}

static void crowd_main(void *arg)
{
	struct life *l = arg;
	struct pool_stats stats;
	unsigned refused = 0;
	CHECK_OK(run_format(l));
	CHECK_OK(try_open(l));
	for (unsigned i = 0; i < CROWD; i++) {
		for (uint64_t nth = 1;; nth++) {
			fail_allocation_nth = nth;
			int err = crowd_create(l, i);
			fail_allocation_nth = 0;
			if (!err)
				break;
			CHECK_ERR(err, OXE_NOMEM);
			refused++;
		}
	}
	CHECK(refused > 3);
	CHECK_OK(run_open(l));
	pool_stats(l->pool, &stats);
	CHECK_EQ(stats.volume_count, CROWD);
	CHECK_EQ(stats.layer_count, CROWD);
	check_all(l->pool, 0);
}

TEST(a_volume_for_whose_place_there_is_no_memory_can_be_made_when_there_is)
{
	struct life l;
	life_begin(&l, NULL, 1);
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, crowd_main, &l);
	life_end(&l);
}
