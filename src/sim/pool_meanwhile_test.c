/*
 * pool_meanwhile_test.c: what happens to a volume while a control operation, or the end of a job, waits for a checkpoint.
 *
 * Many writes and a device that takes seconds to flush: checkpoints cannot keep up, and whoever has a record to write waits.
 * Meanwhile a volume that is to be deleted, or reverted, is opened: then it stays. Or a volume that has just been flattened is deleted,
 * before that is written down. And one operation that takes long lets others have their turn.
 */
#include "base/test.h"
#include "data/store/page_format.h"
#include "data/store/pool.h"
#include "sim/machine.h"
#include "sim/pool_value.h"

#define DISK	      "/dev/sda"
#define DISK_BYTES    (256 * MiB)
#define CROWD	      100u
#define FLUSH_NS      (10 * NS_PER_S)
#define LEAF_BYTES    (PAGE_FANOUT * POOL_CLUSTER_BYTES)
#define BLOCK_SECTORS (POOL_BLOCK_BYTES / VALUE_BYTES)
#define MOMENTS	      50u
#define MOMENT_NS     (2 * NS_PER_S)
#define LEAVES	      100u
#define SLOWLY	      1u /* byte a second */

enum { BEFORE = 1, AFTER }; /* tags: in the snapshot, and since */

static const struct uuid crowd_id = {{0x0b, 0x12, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid volume_id = {{0x0b, 0x12, 2, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid snapshot_id = {{0x0b, 0x12, 3, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid head_id = {{0x0b, 0x12, 4, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid clone_id = {{0x0b, 0x12, 5, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct machine m;
	struct sim_disk *disk;
	struct pool *pool;
	struct vol *crowd_vol;
	struct rt_group crowd, others;
	int (*operation)(struct life *l);
	const struct uuid *id; /* what is opened meanwhile */
	uint64_t stall_ns;
	uint64_t next_leaf; /* of the crowd's map */
	bool enough, answered;
	int err;
};

/* ---- a pool with too much to write down ------------------------------------------------------------------------------------------- */

static void block_write(struct life *l, const struct uuid *id, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct vol *vol;
	CHECK_OK(vol_open(l->pool, id, &vol));
	value_fill(data, 0, BLOCK_SECTORS, tag);
	CHECK_OK(vol_write(vol, data, 0, sizeof(data), VOL_FUA));
	vol_close(vol);
}

static bool block_is(struct vol *vol, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	CHECK_OK(vol_read(vol, data, 0, sizeof(data)));
	return value_is(data, 0, tag);
}

static struct rt_disk *disk_open(void)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	return disk;
}

static void pool_make(struct life *l)
{
	struct pool_format_spec format = {.id = {{0x0b, 0x12}}, .name = "p"};
	struct volume_spec crowd = {.id = crowd_id, .name = "crowd", .size_bytes = TiB};
	struct volume_spec volume = {.id = volume_id, .name = "v", .size_bytes = MiB};
	struct rt_disk *disk = disk_open();
	CHECK_OK(pool_format(disk, &format, false));
	rt_disk_close(disk);
	CHECK_OK(pool_open(disk_open(), NULL, &l->pool));
	CHECK_OK(volume_create(l->pool, &crowd));
	CHECK_OK(volume_create(l->pool, &volume));
	block_write(l, &crowd_id, BEFORE);
	block_write(l, &volume_id, BEFORE);
	CHECK_OK(snapshot_create(l->pool, &volume_id, &snapshot_id, "s", NULL));
	block_write(l, &volume_id, AFTER);
}

/* Each write makes another page of the map dirty: as many as may be are soon, and until they are written down nobody commits. */
static void writer_main(void *arg)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct life *l = arg;
	while (!l->enough)
		CHECK_OK(vol_write(l->crowd_vol, data, l->next_leaf++ * LEAF_BYTES, sizeof(data), 0));
	group_done(&l->crowd);
}

static void crowd_begin(struct life *l)
{
	sim_disk_faults(l->disk)->flush_ns = FLUSH_NS;
	CHECK_OK(vol_open(l->pool, &crowd_id, &l->crowd_vol));
	group_init(&l->crowd);
	group_add(&l->crowd, CROWD);
	for (unsigned i = 0; i < CROWD; i++)
		fiber_spawn(rt_current(), "crowd", writer_main, l);
	fiber_sleep(FLUSH_NS / 10); /* a checkpoint is under way, and has to flush */
}

static void crowd_end(struct life *l)
{
	struct pool_check_result result;
	l->enough = true;
	group_wait(&l->crowd);
	vol_close(l->crowd_vol);
	sim_disk_faults(l->disk)->flush_ns = 0;
	CHECK_OK(pool_jobs_wait(l->pool));
	CHECK_OK(pool_check(l->pool, NULL, NULL, &result));
	CHECK_EQ(result.problem_count, 0);
	CHECK_OK(pool_close(l->pool));
}

static void life_run(struct life *l, void (*fn)(void *arg))
{
	l->m = machine_begin(1);
	l->disk = sim_disk_new(l->m.node, DISK, DISK_BYTES, 512);
	machine_run(&l->m, fn, l);
	machine_end(&l->m);
}

/* ---- opened meanwhile ---------------------------------------------------------------------------------------------------------- */

static void operation_main(void *arg)
{
	struct life *l = arg;
	l->err = l->operation(l);
	l->answered = true;
	group_done(&l->others);
}

static void opened_main(void *arg)
{
	struct life *l = arg;
	struct vol *vol;
	pool_make(l);
	crowd_begin(l);
	group_init(&l->others);
	group_add(&l->others, 1);
	fiber_spawn(rt_current(), "operation", operation_main, l);
	fiber_yield(); /* all of them have begun, and what has not ended waits */
	CHECK(!l->answered);
	CHECK_OK(vol_open(l->pool, l->id, &vol));
	group_wait(&l->others);
	CHECK_EQ(l->err, OXE_BUSY);
	CHECK(block_is(vol, l->id == &snapshot_id ? BEFORE : AFTER));
	vol_close(vol);
	CHECK_OK(l->operation(l));
	crowd_end(l);
}

static int run_delete(struct life *l)
{
	return volume_delete(l->pool, &volume_id);
}

static int run_revert(struct life *l)
{
	return volume_revert(l->pool, &volume_id, &snapshot_id, &head_id);
}

static int run_snapshot_delete(struct life *l)
{
	return snapshot_delete(l->pool, &snapshot_id);
}

TEST(a_volume_that_is_opened_while_its_deletion_waits_for_a_checkpoint_is_not_deleted)
{
	struct life l = {.operation = run_delete, .id = &volume_id};
	life_run(&l, opened_main);
}

TEST(a_volume_whose_snapshot_is_opened_while_its_deletion_waits_for_a_checkpoint_is_not_deleted)
{
	struct life l = {.operation = run_delete, .id = &snapshot_id};
	life_run(&l, opened_main);
}

TEST(a_volume_that_is_opened_while_its_revert_waits_for_a_checkpoint_is_not_reverted)
{
	struct life l = {.operation = run_revert, .id = &volume_id};
	life_run(&l, opened_main);
}

TEST(a_snapshot_that_is_opened_while_its_deletion_waits_for_a_checkpoint_is_not_deleted)
{
	struct life l = {.operation = run_snapshot_delete, .id = &snapshot_id};
	life_run(&l, opened_main);
}

/* ---- deleted meanwhile ---------------------------------------------------------------------------------------------------------- */

/* A clone with a note. Its copy is under way: what comes next is the end, and waits for the rate. */
static void flattened_almost(struct life *l)
{
	struct volume_spec clone = {.id = clone_id, .name = "c"};
	struct pool_options slowly = {.background_bytes_per_s = SLOWLY};
	pool_make(l);
	CHECK_OK(volume_clone(l->pool, &clone, &snapshot_id, false));
	CHECK_OK(pool_note_set(l->pool, &clone_id, POOL_NOTE_ACCESS, "note", 4));
	CHECK_OK(pool_close(l->pool));
	CHECK_OK(pool_open(disk_open(), &slowly, &l->pool));
	CHECK_OK(volume_flatten(l->pool, &clone_id, true));
	struct volume_info info;
	do {
		fiber_sleep(NS_PER_MS);
		CHECK_OK(volume_get(l->pool, &clone_id, &info));
	} while (info.own_bytes == 0);
}

/* Begins before the others, and waits for the clone's note. */
static void delete_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(volume_delete(l->pool, &clone_id));
	group_done(&l->others);
}

static void delete_begin(struct life *l)
{
	struct sim_disk_faults *f = sim_disk_faults(l->disk);
	uint64_t reads = sim_disk_counts(l->disk)->reads;
	group_init(&l->others);
	group_add(&l->others, 1);
	f->stall_ns = l->stall_ns;
	f->stall_one_in = 1;
	fiber_spawn(rt_current(), "delete", delete_main, l);
	fiber_yield();
	f->stall_one_in = 0;
	CHECK_EQ(sim_disk_counts(l->disk)->reads, reads + 1);
}

static void deleted_main(void *arg)
{
	struct life *l = arg;
	flattened_almost(l);
	delete_begin(l);
	crowd_begin(l);
	fiber_yield();
	pool_set_background_rate(l->pool, 0);
	group_wait(&l->others);
	crowd_end(l);
}

TEST(a_volume_may_be_deleted_at_any_moment_of_the_end_of_its_flattening)
{
	for (unsigned i = 0; i < MOMENTS; i++) {
		struct life l = {.stall_ns = (i + 1) * MOMENT_NS};
		life_run(&l, deleted_main);
	}
}

/* ---- counting ------------------------------------------------------------------------------------------------------------------- */

static int run_usage(struct life *l)
{
	struct snapshot_usage u;
	return snapshot_usage(l->pool, &snapshot_id, &u);
}

static void leaves_make(struct life *l)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct vol *vol;
	pool_make(l);
	CHECK_OK(snapshot_delete(l->pool, &snapshot_id));
	CHECK_OK(volume_grow(l->pool, &volume_id, LEAVES * LEAF_BYTES));
	CHECK_OK(vol_open(l->pool, &volume_id, &vol));
	for (uint64_t i = 0; i < LEAVES; i++)
		CHECK_OK(vol_write(vol, data, i * LEAF_BYTES, sizeof(data), 0));
	vol_close(vol);
	CHECK_OK(pool_jobs_wait(l->pool));
	CHECK_OK(snapshot_create(l->pool, &volume_id, &snapshot_id, "s", NULL));
	CHECK_OK(pool_close(l->pool));
	CHECK_OK(pool_open(disk_open(), NULL, &l->pool)); /* each leaf has to be read again */
}

static void counted_main(void *arg)
{
	struct life *l = arg;
	leaves_make(l);
	group_init(&l->others);
	group_add(&l->others, 1);
	fiber_spawn(rt_current(), "usage", operation_main, l);
	fiber_yield();
	CHECK_OK(volume_rename(l->pool, &volume_id, "w"));
	CHECK(!l->answered);
	group_wait(&l->others);
	CHECK_OK(l->err);
	CHECK_OK(pool_close(l->pool));
}

TEST(a_volume_is_renamed_while_the_usage_of_a_snapshot_is_counted)
{
	struct life l = {.operation = run_usage};
	life_run(&l, counted_main);
}
