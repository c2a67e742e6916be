/*
 * pool_unsettled_test.c: two stories of a block within the second before it is settled (flush.h), each told with a crash at every
 * moment; and once more with the rule left out that prevents a loss, which must be seen.
 *
 * Written, flushed, zeroed beside other data, written again, and a power cut (docs/findings.md, 6). The flushed data lies where the last write goes. If that write is on the disk and the records of the zero and of the write are
 * not, the flushed record finds other data than its own, and the block falls back to what the snapshot below says of it: a
 * flushed write is lost. Every subset of what a power cut can take is tried.
 *
 * Written, written again, of which a device error leaves some sectors and not others, and a kill (docs/findings.md, 7). The block is
 * neither what the first record says nor what the second does. It must not be taken for nothing.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/pool_mutants.h"
#include "sim/pool_value.h"
#include "sim/sim.h"

#include <stdio.h>

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (16 * MiB)
#define BLOCK_SECTORS	 (POOL_BLOCK_BYTES / VALUE_BYTES)
#define MOMENTS_MAX	 64u
#define SUBSET_MAX	 10u /* writes of which all subsets are tried */
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)

enum { BELOW = 1, NEIGHBOUR, FLUSHED, OVER }; /* tags: in the snapshot, beside, flushed, after the zero */

static const struct uuid volume_id = {{0x0b, 0x0f, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid snapshot_id = {{0x0b, 0x0f, 2, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct sim *sim;
	struct sim_node *node;
	struct sim_disk *disk;
	bool over, watching;
	struct sim_frozen *moments[MOMENTS_MAX];
	unsigned moment_count;
	void (*story)(struct life *l, struct vol *vol, struct pool *pool);
	uint64_t found[BLOCK_SECTORS]; /* the tags in the block after a crash */
};

static void life_begin(struct life *l, uint64_t seed)
{
	*l = (struct life){.sim = sim_new(seed)};
	l->node = sim_node_new(l->sim, "a");
	sim_node_start(l->node);
}

static void life_run(struct life *l, void (*fn)(void *arg))
{
	l->over = false;
	fiber_spawn_big(sim_node_rt(l->node), "life", fn, l);
	CHECK_EQ(sim_run(l->sim, &l->over, sim_now_ns(l->sim) + VIRTUAL_LIMIT_NS), SIM_DONE);
}

static void life_end(struct life *l)
{
	for (unsigned i = 0; i < l->moment_count; i++)
		sim_frozen_free(l->moments[i]);
	l->moment_count = 0;
	sim_node_stop(l->node);
	sim_free(l->sim);
}

static struct rt_disk *disk_open(void)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	return disk;
}

static int block_try(struct vol *vol, unsigned block, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	value_fill(data, block * BLOCK_SECTORS, BLOCK_SECTORS, tag);
	return vol_write(vol, data, block * POOL_BLOCK_BYTES, sizeof(data), 0);
}

static void block_write(struct vol *vol, unsigned block, uint64_t tag)
{
	CHECK_OK(block_try(vol, block, tag));
}

static void moment_keep(void *ctx, struct sim_disk *disk)
{
	struct life *l = ctx;
	if (l->watching && l->moment_count < MOMENTS_MAX)
		l->moments[l->moment_count++] = sim_disk_freeze(disk);
}

static void flushed_and_zeroed(struct life *l, struct vol *vol, struct pool *pool)
{
	block_write(vol, 0, BELOW);
	CHECK_OK(snapshot_create(pool, &volume_id, &snapshot_id, "s", NULL));
	block_write(vol, 1, NEIGHBOUR);
	block_write(vol, 0, FLUSHED);
	CHECK_OK(vol_flush(vol));
	l->watching = true;
	CHECK_OK(vol_zero(vol, 0, POOL_BLOCK_BYTES, 0));
	block_write(vol, 0, OVER);
}

/* The record goes first, and the data is the second write. */
static void torn_by_an_error(struct life *l, struct vol *vol, struct pool *pool)
{
	(void)pool;
	block_write(vol, 0, BELOW);
	sim_disk_faults(l->disk)->fail_write_nth = 2;
	l->watching = true;
	CHECK_ERR(block_try(vol, 0, OVER), OXE_IO);
}

static void story_main(void *arg)
{
	struct life *l = arg;
	struct pool_format_spec format = {.id = {{0x0b, 0x0f}}, .name = "p"};
	struct volume_spec spec = {.id = volume_id, .name = "v", .size_bytes = MiB};
	struct rt_disk *disk = disk_open();
	struct pool *pool;
	struct vol *vol;
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, NULL, &pool));
	CHECK_OK(volume_create(pool, &spec));
	CHECK_OK(vol_open(pool, &volume_id, &vol));
	l->story(l, vol, pool);
	l->watching = false;
	l->moments[l->moment_count++] = sim_disk_freeze(l->disk);
	vol_close(vol);
	CHECK_OK(pool_close(pool));
	l->over = true;
}

static void look_main(void *arg)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct life *l = arg;
	struct pool *pool;
	struct vol *vol;
	CHECK_OK(pool_open(disk_open(), NULL, &pool));
	CHECK_OK(vol_open(pool, &volume_id, &vol));
	CHECK_OK(vol_read(vol, data, 0, sizeof(data)));
	for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
		l->found[i] = value_tag_of(data + i * VALUE_BYTES);
		CHECK(l->found[i] <= OVER && value_is(data + i * VALUE_BYTES, i, l->found[i]));
	}
	vol_close(vol);
	CHECK_OK(pool_close(pool));
	l->over = true;
}

#define KILL UINT32_MAX /* what of the writes in flight then gets through, is drawn */

/* Of the writes that are not flushed, those with a bit in `kept` survive a power cut. */
static void look_after(struct life *l, const struct sim_frozen *frozen, uint32_t kept)
{
	uint8_t fates[MOMENTS_MAX];
	size_t count = sim_frozen_unflushed(frozen);
	CHECK(count <= SUBSET_MAX);
	for (size_t i = 0; i < count; i++)
		fates[i] = kept >> i & 1 ? SIM_KEPT : SIM_LOST;
	life_begin(l, 1);
	l->disk = kept == KILL ? sim_disk_fork_kill(l->node, DISK, frozen)
			       : sim_disk_fork_power_cut(l->node, DISK, frozen, fates);
	sim_disk_faults(l->disk)->fail_write_nth = 0;
	life_run(l, look_main);
	life_end(l);
}

static void story_tell(struct life *l, uint64_t seed,
		       void (*story)(struct life *, struct vol *, struct pool *))
{
	life_begin(l, seed);
	l->story = story;
	l->disk = sim_disk_new(l->node, DISK, DISK_BYTES, 512);
	sim_disk_watch(l->disk, moment_keep, l);
	life_run(l, story_main);
	CHECK(l->moment_count > 1 && l->moment_count < MOMENTS_MAX);
}

struct outcomes {
	unsigned tried, lost; /* lost: the flushed write, and what came after it is not there either */
	bool seen[OVER + 1];
};

static struct outcomes outcomes_of(unsigned mutant)
{
	struct outcomes o = {0};
	struct life l, after;
	mutant_active = mutant;
	story_tell(&l, 1, flushed_and_zeroed);
	for (unsigned m = 0; m < l.moment_count; m++) {
		for (uint32_t kept = 0; kept < 1u << sim_frozen_unflushed(l.moments[m]); kept++) {
			look_after(&after, l.moments[m], kept);
			o.seen[after.found[0]] = true;
			o.lost += after.found[0] == BELOW;
			o.tried++;
		}
	}
	life_end(&l);
	mutant_active = 0;
	printf("   %u power cuts, %u lost the flushed write\n", o.tried, o.lost);
	return o;
}

TEST(a_flushed_write_is_not_lost_to_a_zero_and_a_write_over_it_that_a_power_cut_takes)
{
	struct outcomes o = outcomes_of(0);
	CHECK_EQ(o.lost, 0);
	CHECK(o.seen[FLUSHED] && o.seen[0] && o.seen[OVER]);
}

TEST(the_loss_is_seen_when_a_first_touch_does_not_ask_for_zeroed_blocks)
{
	CHECK(outcomes_of(6).lost > 0);
}

/* How many kills, at any moment after the error, lost the first write from a sector; and how many blocks were part old, part new. */
static unsigned losses_after_error(unsigned mutant, unsigned *mixed)
{
	unsigned lost = 0, tried = 0;
	*mixed = 0;
	mutant_active = mutant;
	for (uint64_t seed = 1; seed <= 20; seed++) { /* what the error leaves is drawn */
		struct life l, after;
		story_tell(&l, seed, torn_by_an_error);
		for (unsigned m = 0; m < l.moment_count; m++, tried++) {
			unsigned old = 0, new = 0;
			look_after(&after, l.moments[m], KILL);
			for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
				old += after.found[i] == BELOW;
				new += after.found[i] == OVER;
			}
			lost += old + new < BLOCK_SECTORS;
			*mixed += old && new;
		}
		life_end(&l);
	}
	mutant_active = 0;
	printf("   %u kills, %u lost the first write, %u blocks mixed\n", tried, lost, *mixed);
	return lost;
}

TEST(a_write_is_not_lost_to_one_over_it_that_a_device_error_tears_before_a_kill)
{
	unsigned mixed;
	CHECK_EQ(losses_after_error(0, &mixed), 0);
	CHECK(mixed > 0);
}

TEST(the_loss_is_seen_when_recovery_takes_a_mixed_block_for_none)
{
	unsigned mixed;
	CHECK(losses_after_error(40, &mixed) > 0);
}
