/* pool_discard_test.c: when what became free is discarded, and that nobody has to suffer for it (src/data/store/discard.h). What a
 * discard must never touch is the affair of the runs with crashes (pool_run.c), whose disks lie about discards. */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/sim.h"

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (16 * MiB)
#define VOLUME_BYTES	 (32 * MiB) /* more than there is */
#define SLOW_NS		 (5 * NS_PER_S)
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)

static const struct uuid volume_id = {{0x0b, 0x0d, 1, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct sim *sim;
	struct sim_disk *disk;
	struct pool_options options;
	void (*story)(struct life *l, struct pool *pool, struct vol *vol);
	bool over;
};

static void story_main(void *arg)
{
	struct life *l = arg;
	struct pool_format_spec format = {.id = {{0x0b, 0x0d}}, .name = "p"};
	struct volume_spec spec = {.id = volume_id, .name = "v", .size_bytes = VOLUME_BYTES};
	struct rt_disk *disk;
	struct pool *pool;
	struct vol *vol;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, &l->options, &pool));
	CHECK_OK(volume_create(pool, &spec));
	CHECK_OK(vol_open(pool, &spec.id, &vol));
	l->story(l, pool, vol);
	vol_close(vol);
	CHECK_OK(pool_close(pool));
	l->over = true;
}

static void story_tell(const struct pool_options *options,
		       void (*story)(struct life *l, struct pool *pool, struct vol *vol))
{
	struct life l = {.sim = sim_new(7), .options = *options, .story = story};
	struct sim_node *node = sim_node_new(l.sim, "a");
	l.disk = sim_disk_new(node, DISK, DISK_BYTES, 512);
	sim_node_start(node);
	fiber_spawn_big(sim_node_rt(node), "story", story_main, &l);
	CHECK_EQ(sim_run(l.sim, &l.over, VIRTUAL_LIMIT_NS), SIM_DONE);
	sim_node_stop(node);
	sim_free(l.sim);
}

static void latency_set(struct life *l, uint64_t ns)
{
	sim_disk_faults(l->disk)->latency_min_ns = sim_disk_faults(l->disk)->latency_max_ns = ns;
}

static uint64_t discards(const struct life *l)
{
	return sim_disk_counts(l->disk)->discards;
}

/* Writes whole clusters from the front until there is no space; returns how many there were space for. */
static uint64_t fill(struct vol *vol, uint64_t clusters)
{
	static _Alignas(4096) uint8_t data[POOL_CLUSTER_BYTES];
	for (uint64_t i = 0; i < clusters; i++) {
		int err = vol_write(vol, data, i * POOL_CLUSTER_BYTES, POOL_CLUSTER_BYTES, 0);
		if (err) {
			CHECK_ERR(err, OXE_NOSPC);
			return i;
		}
	}
	return clusters;
}

static void full_and_half_of_it_discarded(struct life *l, struct pool *pool, struct vol *vol)
{
	(void)pool;
	uint64_t half = fill(vol, VOLUME_BYTES / POOL_CLUSTER_BYTES) / 2;
	CHECK(half > 50);
	CHECK_OK(vol_trim(vol, 0, half * POOL_CLUSTER_BYTES));
	CHECK_OK(vol_flush(vol));
	latency_set(l, SLOW_NS);
	while (discards(l) == 0)
		fiber_sleep(NS_PER_MS);
	latency_set(l, 100 * NS_PER_US);
	uint64_t again = fill(vol, half);
	CHECK(again + 2 >= half); /* metadata may have taken some */
}

TEST(nobody_is_told_that_the_pool_is_full_because_space_is_being_discarded)
{
	story_tell(&(struct pool_options){.discard_after_ms = 1}, full_and_half_of_it_discarded);
}

/* When nothing is unsettled any more that would be flushed anyway. */
static void write_and_trim(struct vol *vol)
{
	CHECK_EQ(fill(vol, 64), 64);
	fiber_sleep(30 * NS_PER_S);
	CHECK_OK(vol_trim(vol, 0, 64 * POOL_CLUSTER_BYTES));
}

static void trimmed_and_left_alone(struct life *l, struct pool *pool, struct vol *vol)
{
	struct pool_stats s;
	write_and_trim(vol);
	fiber_sleep(NS_PER_S);
	CHECK_EQ(discards(l), 0); /* it rests */
	fiber_sleep(60 * NS_PER_S);
	uint64_t count = discards(l);
	pool_stats(pool, &s);
	CHECK(s.discarded_bytes >= 64 * POOL_CLUSTER_BYTES);
	CHECK(count > 0 && count <= 8); /* in runs */
	fiber_sleep(60 * NS_PER_S);
	CHECK_EQ(discards(l), count); /* and no more */
}

TEST(what_was_trimmed_goes_back_in_runs_after_a_rest_though_no_client_flushes)
{
	story_tell(&(struct pool_options){0}, trimmed_and_left_alone);
}

static void written_again_before_the_rest_is_over(struct life *l, struct pool *pool, struct vol *vol)
{
	struct pool_stats s;
	(void)l;
	fill(vol, VOLUME_BYTES / POOL_CLUSTER_BYTES);
	CHECK_OK(vol_trim(vol, 0, 8 * POOL_CLUSTER_BYTES));
	CHECK_EQ(fill(vol, 8), 8);
	fiber_sleep(60 * NS_PER_S);
	pool_stats(pool, &s);
	CHECK(s.discarded_bytes <= 4 * POOL_CLUSTER_BYTES); /* metadata */
}

TEST(what_is_used_again_at_once_is_not_discarded)
{
	story_tell(&(struct pool_options){0}, written_again_before_the_rest_is_over);
}

static void trimmed_on_a_disk_that_knows_none(struct life *l, struct pool *pool, struct vol *vol)
{
	struct pool_stats s;
	sim_disk_faults(l->disk)->discard = SIM_DISCARD_REFUSED;
	write_and_trim(vol);
	fiber_sleep(120 * NS_PER_S);
	CHECK_EQ(discards(l), 1);
	pool_stats(pool, &s);
	CHECK(!s.failed);
	CHECK_EQ(s.discarded_bytes, 0);
	CHECK(fill(vol, 64) == 64);
}

TEST(a_disk_that_knows_no_discards_is_asked_once_and_nothing_is_counted)
{
	story_tell(&(struct pool_options){.discard_after_ms = 1}, trimmed_on_a_disk_that_knows_none);
}

static void trimmed_for_nothing(struct life *l, struct pool *pool, struct vol *vol)
{
	(void)pool;
	write_and_trim(vol);
	fiber_sleep(120 * NS_PER_S);
	CHECK_EQ(discards(l), 0);
}

TEST(a_pool_that_shall_keep_its_space_sends_no_discards)
{
	story_tell(&(struct pool_options){.no_discard = true, .discard_after_ms = 1}, trimmed_for_nothing);
}
