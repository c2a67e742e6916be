/*
 * pool_unsettled_test.c: four stories of a block within the second before it is settled (flush.h), each told with a crash at every
 * moment; and once more with the rule left out that prevents a loss, which must be seen.
 *
 * Written, flushed, zeroed beside other data, written again, and a power cut (docs/findings.md, 6). The flushed data lies where the last write goes. If that write is on the disk and the records of the zero and of the write are
 * not, the flushed record finds other data than its own, and the block falls back to what the snapshot below says of it: a
 * flushed write is lost. Every subset of what a power cut can take is tried.
 *
 * Written, written again, of which a device error leaves some sectors and not others, and a kill (docs/findings.md, 7). The block is
 * neither what the first record says nor what the second does. It must not be taken for nothing.
 *
 * Written on a used disk, and a power cut that takes the data and leaves the record (docs/findings.md, 14). The next start rejects the
 * record, and is killed at any moment; the one after it is killed, too, and takes the newest superblock along. Whatever these
 * starts made durable, the fourth must not believe the record: the disk holds somebody else's bytes there.
 *
 * Written over since a snapshot, which is deleted while another is being merged (docs/findings.md, 2), and a power cut. The merge that
 * follows copies what was written over into the snapshot's cluster. If that is on the disk and the record of the deletion is not, the
 * snapshot is back with other content.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "data/store/super_format.h"
#include "sim/machine.h"
#include "sim/pool_mutants.h"
#include "sim/pool_value.h"

#include <stdio.h>

#define DISK		   "/dev/sda"
#define DISK_BYTES	   (16 * MiB)
#define BLOCK_SECTORS	   (POOL_BLOCK_BYTES / VALUE_BYTES)
#define BLOCKS_PER_CLUSTER (POOL_CLUSTER_BYTES / POOL_BLOCK_BYTES)
#define MOMENTS_MAX	   64u
#define SUBSET_MAX	   10u /* writes of which all subsets are tried */

enum { BELOW = 1, NEIGHBOUR, FLUSHED, OVER }; /* tags: in the snapshot, beside, flushed, after the zero */

static const struct uuid volume_id = {{0x0b, 0x0f, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid snapshot_id = {{0x0b, 0x0f, 2, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct machine m;
	struct sim_disk *disk;
	bool watching;
	struct sim_frozen *moments[MOMENTS_MAX];
	unsigned moment_count;
	void (*story)(struct life *l, struct vol *vol, struct pool *pool);
	uint64_t found[BLOCK_SECTORS]; /* the tags in the block after a crash */
};

static void life_end(struct life *l)
{
	for (unsigned i = 0; i < l->moment_count; i++)
		sim_frozen_free(l->moments[i]);
	l->moment_count = 0;
	machine_end(&l->m);
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
	*l = (struct life){.m = machine_begin(1)};
	l->disk = kept == KILL ? sim_disk_fork_kill(l->m.node, DISK, frozen)
			       : sim_disk_fork_power_cut(l->m.node, DISK, frozen, fates);
	sim_disk_faults(l->disk)->fail_write_nth = 0;
	machine_run(&l->m, look_main, l);
	life_end(l);
}

static void story_tell(struct life *l, uint64_t seed,
		       void (*story)(struct life *, struct vol *, struct pool *))
{
	*l = (struct life){.m = machine_begin(seed)};
	l->story = story;
	l->disk = sim_disk_new(l->m.node, DISK, DISK_BYTES, 512);
	sim_disk_watch(l->disk, moment_keep, l);
	machine_run(&l->m, story_main, l);
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

/* ---- rejected, by a start that is killed ----------------------------------------------------------------------------------- */

static void first_touched(struct life *l, struct vol *vol, struct pool *pool)
{
	(void)pool;
	CHECK_OK(vol_flush(vol));
	l->watching = true;
	block_write(vol, 0, OVER);
}

/* Opens the pool, with each device write of that kept, and the end of it. */
static void start_main(void *arg)
{
	struct life *l = arg;
	struct pool *pool;
	sim_disk_watch(l->disk, moment_keep, l);
	l->watching = true;
	CHECK_OK(pool_open(disk_open(), NULL, &pool));
	l->watching = false;
	CHECK(l->moment_count < MOMENTS_MAX);
	l->moments[l->moment_count++] = sim_disk_freeze(l->disk);
	CHECK_OK(pool_close(pool));
}

static uint64_t slot_generation(const struct sim_disk *disk, unsigned slot)
{
	struct super_disk super;
	sim_disk_peek(disk, &super, sizeof(super), (uint64_t)slot * SUPER_SLOT_BYTES);
	return memcmp(super.magic, SUPER_MAGIC, sizeof(super.magic)) == 0 ? le64_get(super.generation) : 0;
}

static void newest_superblock_damage(struct sim_disk *disk)
{
	unsigned slot = slot_generation(disk, 1) > slot_generation(disk, 0);
	if (slot_generation(disk, slot ^ 1) > 0)
		sim_disk_flip_bit(disk, (uint64_t)slot * SUPER_SLOT_BYTES + 1000, 3);
}

static void believe_main(void *arg)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct life *l = arg;
	struct pool *pool;
	struct vol *vol;
	newest_superblock_damage(l->disk);
	CHECK_OK(pool_open(disk_open(), NULL, &pool));
	CHECK_OK(vol_open(pool, &volume_id, &vol));
	CHECK_OK(vol_read(vol, data, 0, sizeof(data)));
	for (unsigned i = 0; i < BLOCK_SECTORS; i++)
		l->found[i] = value_is(data + i * VALUE_BYTES, i, 0) ? 0 : OVER;
	vol_close(vol);
	CHECK_OK(pool_close(pool));
}

/* A life on what a kill at that moment left. */
static void life_after(struct life *l, const struct sim_frozen *frozen, void (*fn)(void *arg))
{
	*l = (struct life){.m = machine_begin(1)};
	l->disk = sim_disk_fork_kill(l->m.node, DISK, frozen);
	machine_run(&l->m, fn, l);
}

static unsigned believed_after(const struct sim_frozen *rejecting, unsigned *tried)
{
	struct life second, third;
	unsigned believed = 0;
	life_after(&second, rejecting, start_main);
	for (unsigned m = 0; m < second.moment_count; m++, ++*tried) {
		life_after(&third, second.moments[m], believe_main);
		believed += third.found[0] != 0;
		life_end(&third);
	}
	life_end(&second);
	return believed;
}

/* The data is lost and the record is kept: the one write of two that goes to the journal. */
static struct sim_frozen *unproven_freeze(struct life *first)
{
	*first = (struct life){.m = machine_begin(1)};
	first->story = first_touched;
	first->disk = sim_disk_new(first->m.node, DISK, DISK_BYTES, 512);
	sim_disk_fill(first->disk, 7);
	sim_disk_watch(first->disk, moment_keep, first);
	machine_run(&first->m, story_main, first);
	return first->moments[first->moment_count - 1];
}

static unsigned times_believed(unsigned mutant)
{
	struct life first, rejecting;
	unsigned believed = 0, tried = 0;
	mutant_active = mutant;
	const struct sim_frozen *frozen = unproven_freeze(&first);
	uint8_t fates[2];
	CHECK_EQ(sim_frozen_unflushed(frozen), 2);
	for (unsigned kept = 0; kept < 2; kept++) {
		fates[kept] = SIM_KEPT;
		fates[kept ^ 1] = SIM_LOST;
		rejecting = (struct life){.m = machine_begin(1)};
		rejecting.disk = sim_disk_fork_power_cut(rejecting.m.node, DISK, frozen, fates);
		machine_run(&rejecting.m, start_main, &rejecting);
		for (unsigned m = 0; m < rejecting.moment_count; m++)
			believed += believed_after(rejecting.moments[m], &tried);
		life_end(&rejecting);
	}
	life_end(&first);
	mutant_active = 0;
	printf("   %u times killed twice, %u believed what had been rejected\n", tried, believed);
	return believed;
}

TEST(what_a_start_rejected_is_not_believed_by_a_later_one_that_lost_the_newest_superblock)
{
	CHECK_EQ(times_believed(0), 0);
}

TEST(the_belief_is_seen_when_a_start_writes_a_mark_over_what_another_rejected)
{
	CHECK(times_believed(67) > 0);
}

/* ---- copied over a snapshot whose deletion may be lost ----------------------------------------------------------------------- */

#define DELAY_STEP_NS (100 * NS_PER_US)
#define DELAYS	      12u
#define SHARED_BLOCKS 6u /* of the snapshot: more than are written over since, so that these are copied */

static const struct uuid other_id = {{0x0b, 0x0f, 3, 0, 0, 0, 0x40, 0, 0x80}};

struct deletion {
	struct life *life;
	struct pool *pool;
	struct rt_group done;
};

static uint64_t deletion_delay_ns;

static void snapshot_delete_later(void *arg)
{
	struct deletion *d = arg;
	fiber_sleep(deletion_delay_ns);
	d->life->watching = true;
	CHECK_OK(snapshot_delete(d->pool, &snapshot_id));
	group_done(&d->done);
}

static void deleted_beside_a_merge(struct life *l, struct vol *vol, struct pool *pool)
{
	struct deletion d = {.life = l, .pool = pool};
	for (unsigned i = 1; i < 4; i++)
		block_write(vol, i * BLOCKS_PER_CLUSTER, NEIGHBOUR);
	CHECK_OK(snapshot_create(pool, &volume_id, &other_id, "other", NULL));
	for (unsigned i = 0; i < SHARED_BLOCKS; i++)
		block_write(vol, i, BELOW);
	CHECK_OK(snapshot_create(pool, &volume_id, &snapshot_id, "s", NULL));
	block_write(vol, 0, OVER);
	CHECK_OK(vol_flush(vol));
	group_init(&d.done);
	group_add(&d.done, 1);
	fiber_spawn_big(rt_current(), "delete", snapshot_delete_later, &d);
	CHECK_OK(snapshot_delete(pool, &other_id));
	group_wait(&d.done);
	CHECK_OK(pool_jobs_wait(pool));
}

/* The snapshot is gone, or as it was. */
static void snapshot_look_main(void *arg)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct life *l = arg;
	struct pool *pool;
	struct vol *vol;
	CHECK_OK(pool_open(disk_open(), NULL, &pool));
	l->found[0] = BELOW;
	if (vol_open(pool, &snapshot_id, &vol) == 0) {
		CHECK_OK(vol_read(vol, data, 0, sizeof(data)));
		l->found[0] = value_tag_of(data);
		vol_close(vol);
	}
	CHECK_OK(pool_close(pool));
}

/* One write that is not flushed is lost. */
static bool snapshot_is_other(const struct sim_frozen *frozen, size_t lost)
{
	struct life l;
	uint8_t fates[MOMENTS_MAX];
	for (size_t i = 0; i < sim_frozen_unflushed(frozen); i++)
		fates[i] = i == lost ? SIM_LOST : SIM_KEPT;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_power_cut(l.m.node, DISK, frozen, fates);
	machine_run(&l.m, snapshot_look_main, &l);
	life_end(&l);
	return l.found[0] != BELOW;
}

static unsigned snapshots_with_other_content(unsigned mutant)
{
	unsigned tried = 0, other = 0;
	mutant_active = mutant;
	for (unsigned i = 0; i < DELAYS; i++) {
		struct life l;
		deletion_delay_ns = i * DELAY_STEP_NS;
		story_tell(&l, 1, deleted_beside_a_merge);
		for (unsigned m = 0; m < l.moment_count; m++) {
			for (size_t k = 0; k < sim_frozen_unflushed(l.moments[m]); k++, tried++)
				other += snapshot_is_other(l.moments[m], k);
		}
		life_end(&l);
	}
	mutant_active = 0;
	printf("   %u power cuts, after %u a snapshot was back with other content\n", tried, other);
	return other;
}

TEST(a_snapshot_whose_deletion_a_power_cut_takes_has_what_it_had)
{
	CHECK_EQ(snapshots_with_other_content(0), 0);
}

TEST(the_loss_is_seen_when_a_merge_does_not_wait_for_the_deletion_to_be_durable)
{
	CHECK(snapshots_with_other_content(14) > 0);
}
