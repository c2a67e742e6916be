/* pool_format_test.c: a format that is killed, and done again: what it then promised survives a power cut. */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/sim.h"

#define DISK	   "/dev/sda"
#define DISK_BYTES (16 * MiB)
#define WRITES_MAX 16u /* moments of a format at which it is killed */

/* A machine that formats the disk as far as it gets. */
struct formatting {
	struct sim *sim;
	struct sim_disk *disk;
	struct sim_frozen *frozen; /* before the nth write of the first format */
	uint64_t nth;
	bool done;
};

static void format(void *arg)
{
	struct formatting *f = arg;
	struct pool_format_spec spec = {.id = {{1, 2, 3, 4, 5, 6, 0x40, 7, 0x80, 8}}, .name = "p"};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	rt_disk_close(disk);
	f->done = true;
}

static void identify(void *arg)
{
	struct formatting *f = arg;
	struct pool_ident ident;
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_identify(disk, &ident));
	rt_disk_close(disk);
	f->done = true;
}

static void freeze_nth(void *ctx, struct sim_disk *disk)
{
	struct formatting *f = ctx;
	if (f->nth && --f->nth == 0)
		f->frozen = sim_disk_freeze(disk);
}

static void run(struct formatting *f, struct sim_node *node, void (*fn)(void *arg))
{
	f->done = false;
	fiber_spawn_big(sim_node_start(node), "format", fn, f);
	CHECK(sim_run(f->sim, &f->done, 60 * NS_PER_S) == SIM_DONE);
	sim_node_stop(node);
}

/* False: a format has no nth write. */
static bool killed_at(uint64_t seed, uint64_t nth)
{
	uint8_t all_lost[64] = {SIM_LOST};
	struct formatting f = {.sim = sim_new(seed), .nth = nth};
	struct sim_node *first = sim_node_new(f.sim, "first"), *second = sim_node_new(f.sim, "second");
	f.disk = sim_disk_new(first, DISK, DISK_BYTES, 512);
	sim_disk_watch(f.disk, freeze_nth, &f);
	run(&f, first, format);
	if (f.frozen) {
		struct sim_node *third = sim_node_new(f.sim, "third");
		struct sim_disk *again = sim_disk_fork_kill(second, DISK, f.frozen);
		run(&f, second, format);
		struct sim_frozen *end = sim_disk_freeze(again);
		CHECK(sim_frozen_unflushed(end) <= ARRAY_COUNT(all_lost));
		sim_disk_fork_power_cut(third, DISK, end, all_lost);
		run(&f, third, identify);
		sim_frozen_free(end);
		sim_frozen_free(f.frozen);
	}
	bool reached = f.frozen != NULL;
	sim_free(f.sim);
	return reached;
}

TEST(a_pool_formatted_again_after_a_kill_survives_a_power_cut)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		for (uint64_t nth = 1; nth <= WRITES_MAX && killed_at(seed, nth); nth++)
			;
	}
}
