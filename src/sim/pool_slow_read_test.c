/*
 * pool_slow_read_test.c: a read that the device keeps for half a minute, while the cluster it is of changes hands (docs/findings.md,
 * 22); and once more without the rule that has the merge wait for it, which must be seen.
 *
 *     v (head) ---.                       v (head) ---.
 *                  snapshot with data                  snapshot, deleted: merged into v      the data is v's alone
 *     c ----------'   ^                   c (flattened)
 *                     '-- a read of c is under way ------------------------------------------ still is, when v writes there
 *
 * What v writes may go over the data in place, or be copied over it by the merge itself. A write of c to a part of a block reads
 * the rest of it, and would keep for good what it should never have seen.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/pool_mutants.h"
#include "sim/pool_value.h"
#include "sim/sim.h"

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (16 * MiB)
#define BLOCK_SECTORS	 (POOL_BLOCK_BYTES / VALUE_BYTES)
#define SLOW_NS		 (30 * NS_PER_S)
#define SOON_NS		 NS_PER_S
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)
#define MUTANT_NO_WAIT	 68u

enum { SHARED = 1, LATER, CLONE_S }; /* tags: in the snapshot, what the origin and the clone write after it */

static const struct uuid volume_id = {{0x0b, 0x10, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid snapshot_id = {{0x0b, 0x10, 2, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid clone_id = {{0x0b, 0x10, 3, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid own_id = {{0x0b, 0x10, 4, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct sim_disk *disk;
	struct pool *pool;
	struct vol *volume, *clone;
	void (*slow)(struct life *l); /* what of the clone has to wait for its read of block 0 */
	bool is_copied;		      /* by the merge; else the origin writes over it in place */
	bool slow_over, over;
	uint64_t tags[BLOCK_SECTORS]; /* what was found in block 0 */
};

static void blocks_write(struct vol *vol, unsigned first, unsigned count, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_CLUSTER_BYTES];
	value_fill(data, first * BLOCK_SECTORS, count * BLOCK_SECTORS, tag);
	CHECK_OK(vol_write(vol, data, first * POOL_BLOCK_BYTES, count * POOL_BLOCK_BYTES, 0));
}

static void block_look(struct life *l)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	CHECK_OK(vol_read(l->clone, data, 0, sizeof(data)));
	for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
		l->tags[i] = value_tag_of(data + i * VALUE_BYTES);
		CHECK(value_is(data + i * VALUE_BYTES, i, l->tags[i]));
	}
}

static void sector_write(struct life *l)
{
	static _Alignas(4096) uint8_t data[VALUE_BYTES];
	value_fill(data, 0, 1, CLONE_S);
	CHECK_OK(vol_write(l->clone, data, 0, sizeof(data), 0));
}

static void slow_main(void *arg)
{
	struct life *l = arg;
	l->slow(l);
	l->slow_over = true;
}

/* Ends when the read is with the device, which keeps it. */
static void slow_begin(struct life *l)
{
	struct sim_disk_faults *f = sim_disk_faults(l->disk);
	uint64_t reads = sim_disk_counts(l->disk)->reads;
	f->stall_ns = SLOW_NS;
	f->stall_one_in = 1;
	fiber_spawn_big(rt_current(), "slow", slow_main, l);
	fiber_yield();
	f->stall_one_in = 0;
	CHECK_EQ(sim_disk_counts(l->disk)->reads, reads + 1);
	CHECK(!l->slow_over);
}

static void family_make(struct life *l)
{
	struct volume_spec volume = {.id = volume_id, .name = "v", .size_bytes = MiB};
	struct volume_spec clone = {.id = clone_id, .name = "c"};
	CHECK_OK(volume_create(l->pool, &volume));
	CHECK_OK(vol_open(l->pool, &volume_id, &l->volume));
	blocks_write(l->volume, 0, 4, SHARED);
	CHECK_OK(snapshot_create(l->pool, &volume_id, &snapshot_id, "s", NULL));
	CHECK_OK(volume_clone(l->pool, &clone, &snapshot_id, false));
	/* Into this it is flattened: beside a write to its head, which would have to end first. */
	CHECK_OK(snapshot_create(l->pool, &clone_id, &own_id, "own", NULL));
	CHECK_OK(vol_open(l->pool, &clone_id, &l->clone));
	if (l->is_copied)
		blocks_write(l->volume, 0, 1, LATER); /* one block into three others' cluster */
}

/* The merge waits; nobody else does. (A check lets writes end first that have begun.) */
static void others_go_on(struct life *l)
{
	struct pool_check_result r;
	uint64_t begin_ns = rt_now_ns(rt_current());
	blocks_write(l->volume, 8, 1, LATER);
	CHECK_OK(vol_flush(l->volume));
	if (l->slow == block_look) {
		CHECK_OK(pool_check(l->pool, NULL, NULL, &r));
		CHECK_EQ(r.problem_count, 0);
	}
	CHECK(rt_now_ns(rt_current()) - begin_ns < SOON_NS);
}

static void story_main(void *arg)
{
	struct life *l = arg;
	struct pool_format_spec format = {.id = {{0x0b, 0x10}}, .name = "p"};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, NULL, &l->pool));
	family_make(l);
	slow_begin(l);
	CHECK_OK(volume_flatten(l->pool, &clone_id, true));
	CHECK_OK(snapshot_delete(l->pool, &snapshot_id));
	others_go_on(l);
	CHECK_OK(pool_jobs_wait(l->pool));
	blocks_write(l->volume, 0, 1, LATER);
	while (!l->slow_over)
		fiber_sleep(NS_PER_MS);
	if (l->slow != block_look)
		block_look(l);
	vol_close(l->volume);
	vol_close(l->clone);
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

/* The tag of the block's last sector: `slow` may have written the first. */
static uint64_t tag_found(void (*slow)(struct life *l), bool is_copied, unsigned mutant)
{
	struct life l = {.slow = slow, .is_copied = is_copied};
	struct sim *sim = sim_new(1);
	struct sim_node *node = sim_node_new(sim, "a");
	mutant_active = mutant;
	l.disk = sim_disk_new(node, DISK, DISK_BYTES, 512);
	sim_node_start(node);
	fiber_spawn_big(sim_node_rt(node), "story", story_main, &l);
	CHECK_EQ(sim_run(sim, &l.over, VIRTUAL_LIMIT_NS), SIM_DONE);
	sim_node_stop(node);
	sim_free(sim);
	mutant_active = 0;
	CHECK_EQ(l.tags[0], slow == sector_write ? CLONE_S : l.tags[1]);
	return l.tags[BLOCK_SECTORS - 1];
}

TEST(a_slow_read_of_a_clone_never_finds_what_its_origin_wrote_in_place_after_the_clone_was_flattened)
{
	CHECK_EQ(tag_found(block_look, false, 0), SHARED);
}

TEST(a_slow_read_of_a_clone_never_finds_what_a_merge_copied_over_it_after_the_clone_was_flattened)
{
	CHECK_EQ(tag_found(block_look, true, 0), SHARED);
}

TEST(a_write_to_a_part_of_a_block_never_keeps_what_the_origin_wrote_after_the_clone_was_flattened)
{
	CHECK_EQ(tag_found(sector_write, false, 0), SHARED);
	CHECK_EQ(tag_found(sector_write, true, 0), SHARED);
}

TEST(the_later_write_is_seen_when_a_merge_does_not_wait_for_reads)
{
	CHECK_EQ(tag_found(block_look, false, MUTANT_NO_WAIT), LATER);
	CHECK_EQ(tag_found(block_look, true, MUTANT_NO_WAIT), LATER);
	CHECK_EQ(tag_found(sector_write, true, MUTANT_NO_WAIT), LATER);
}
