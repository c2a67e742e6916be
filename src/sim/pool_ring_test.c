/*
 * pool_ring_test.c: more requests at once than the smallest journal has blocks, while a checkpoint takes its time (docs/findings.md, 17
 * and 23); and once more with the rule left out that has them wait, which must be seen.
 *
 * All of them have reserved their records before the first is written; then each waits for the one before, as they are for
 * one cluster, and an idle writer gives each a block of its own. Their blocks must not go round the ring into those that the
 * older superblock needs: the newest is lost at the worst moment.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "data/store/super_format.h"
#include "sim/machine.h"
#include "sim/pool_mutants.h"

#define DISK	      "/dev/sda"
#define DISK_BYTES    (16 * MiB)
#define JOURNAL_BYTES (256 * KiB)
#define REQUESTS      100u /* blocks of the journal: 64 */
#define FLUSH_NS      (10 * NS_PER_S)
#define MUTANT_HALF   69u

static const struct uuid volume_id = {{0x0b, 0x11, 1, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct machine m;
	struct sim_disk *disk;
	struct pool *pool;
	struct vol *vol;
	struct rt_group requests;
	uint64_t used_bytes; /* of the journal, at the worst moment ... */
	struct sim_frozen *worst;
	bool lost, watching;
};

static void life_end(struct life *l)
{
	if (l->worst)
		sim_frozen_free(l->worst);
	machine_end(&l->m);
}

static struct rt_disk *disk_open(void)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	return disk;
}

/* ---- the life with many requests ----------------------------------------------------------------------------------------- */

static void moment_look(void *ctx, struct sim_disk *disk)
{
	struct life *l = ctx;
	struct pool_stats s;
	if (!l->watching)
		return;
	pool_stats(l->pool, &s);
	if (s.journal_used_bytes < l->used_bytes)
		return;
	if (l->worst)
		sim_frozen_free(l->worst);
	l->used_bytes = s.journal_used_bytes;
	l->worst = sim_disk_freeze(disk);
}

static void trim_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(vol_trim(l->vol, 0, POOL_BLOCK_BYTES));
	group_done(&l->requests);
}

static void pool_make(struct life *l)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES] = {1};
	struct pool_format_spec format = {.id = {{0x0b, 0x11}}, .name = "p", .journal_bytes = JOURNAL_BYTES};
	struct volume_spec volume = {.id = volume_id, .name = "v", .size_bytes = MiB};
	struct rt_disk *disk = disk_open();
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, NULL, &l->pool));
	CHECK_OK(volume_create(l->pool, &volume));
	CHECK_OK(vol_open(l->pool, &volume_id, &l->vol));
	CHECK_OK(vol_write(l->vol, data, 0, sizeof(data), 0));
	CHECK_OK(pool_checkpoint(l->pool));
	CHECK_OK(pool_checkpoint(l->pool));
}

static void requests_main(void *arg)
{
	struct life *l = arg;
	pool_make(l);
	sim_disk_faults(l->disk)->flush_ns = FLUSH_NS;
	sim_disk_watch(l->disk, moment_look, l);
	l->watching = true;
	group_init(&l->requests);
	group_add(&l->requests, REQUESTS);
	for (unsigned i = 0; i < REQUESTS; i++)
		fiber_spawn(rt_current(), "trim", trim_main, l);
	group_wait(&l->requests);
	l->watching = false;
	vol_close(l->vol);
	CHECK_OK(pool_close(l->pool));
}

/* ---- the life after it --------------------------------------------------------------------------------------------------- */

static uint64_t slot_generation(const struct sim_disk *disk, unsigned slot)
{
	struct super_disk super;
	sim_disk_peek(disk, &super, sizeof(super), (uint64_t)slot * SUPER_SLOT_BYTES);
	return le64_get(super.generation);
}

static bool is_trimmed(struct life *l)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	CHECK_OK(vol_open(l->pool, &volume_id, &l->vol));
	CHECK_OK(vol_read(l->vol, data, 0, sizeof(data)));
	vol_close(l->vol);
	CHECK_OK(pool_close(l->pool));
	return data[0] == 0;
}

static void fall_back_main(void *arg)
{
	struct life *l = arg;
	unsigned newest = slot_generation(l->disk, 1) > slot_generation(l->disk, 0);
	sim_disk_flip_bit(l->disk, (uint64_t)newest * SUPER_SLOT_BYTES + 1000, 3);
	l->lost = pool_open(disk_open(), NULL, &l->pool) != 0 || !is_trimmed(l);
}

/* Is anything lost when the newest superblock is, at the moment when most of the ring was in use? */
static bool falling_back_loses(unsigned mutant, uint64_t *used_bytes)
{
	struct life l, after;
	mutant_active = mutant;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 512);
	machine_run(&l.m, requests_main, &l);
	mutant_active = 0;
	after = (struct life){.m = machine_begin(1)};
	after.disk = sim_disk_fork_kill(after.m.node, DISK, l.worst);
	machine_run(&after.m, fall_back_main, &after);
	*used_bytes = l.used_bytes;
	life_end(&after);
	life_end(&l);
	return after.lost;
}

TEST(requests_that_wait_for_each_other_never_run_over_the_journal_that_the_older_superblock_needs)
{
	uint64_t used_bytes;
	CHECK(!falling_back_loses(0, &used_bytes));
	CHECK(used_bytes < JOURNAL_BYTES);
	CHECK(used_bytes > JOURNAL_BYTES / 2); /* they did wait for it */
}

TEST(the_loss_is_seen_when_what_is_reserved_counts_for_half_the_ring_at_most)
{
	uint64_t used_bytes;
	CHECK(falling_back_loses(MUTANT_HALF, &used_bytes));
	CHECK(used_bytes > JOURNAL_BYTES);
}
