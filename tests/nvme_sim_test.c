/*
 * nvme_sim_test.c: the host against the target as they are, two machines under a seed, over a network that cuts, resets,
 * delays and splits. The load is oxbow-bench's: it knows what every unit must hold.
 */
#include "base/test.h"
#include "bench_load.h"
#include "data/engine/pool_double.h"
#include "data/frontend/nvmf/nvmf.h"
#include "sim/sim.h"

#include <stdio.h>

#define VOLUME_BYTES (2 * MiB)
#define SEEDS	     8

static struct world {
	struct sim *sim;
	struct sim_node *client, *server;
	struct engines *engines;
	struct pool *pool;
	struct nvmf_server *nvmf;
	struct uuid volume;
	struct load_options load;
	struct load_result result;
	char address[64], nqn[NVMF_NQN_SIZE];
	bool is_served, is_loaded, is_closed;
	int err;
} w;

static void serve(void *arg)
{
	(void)arg;
	w.engines = engines_new(sim_node_rt(w.server));
	engines_add_pool(w.engines, w.pool);
	w.nvmf = nvmf_server_new(w.engines, NULL);
	CHECK_OK(nvmf_server_listen(w.nvmf, "tcp:0.0.0.0:4420", NULL));
	w.is_served = true;
}

static void load(void *arg)
{
	(void)arg;
	w.err = load_run(sim_node_rt(w.client), &w.load, &w.result);
	w.is_loaded = true;
}

static void close_server(void *arg)
{
	(void)arg;
	nvmf_server_close(w.nvmf);
	CHECK_OK(engines_remove_pool(w.engines, w.pool));
	engines_free(w.engines);
	w.is_closed = true;
}

static void world_start(uint64_t seed, struct load_options load_options)
{
	memset(&w, 0, sizeof(w));
	w.sim = sim_new(seed);
	sim_shuffle(w.sim, seed & 1);
	w.client = sim_node_new(w.sim, "client");
	w.server = sim_node_new(w.sim, "server");
	w.pool = pool_double_new("tank");
	w.volume = pool_double_volume(w.pool, "disk", VOLUME_BYTES, seed % 3 ? 512 : 4096);
	pool_double_delay(w.pool, seed % 5 * 100 * NS_PER_US);
	nvmf_volume_nqn(&w.volume, w.nqn);
	snprintf(w.address, sizeof(w.address), "tcp:%s:4420", sim_node_address(w.server));
	w.load = load_options;
	w.load.targets[0] = (struct load_target){w.address, w.nqn};
	w.load.target_count = 1;
	w.load.seed = seed;
	w.load.verify = true;
	w.load.connect_ns = 60 * NS_PER_S;
	fiber_spawn(sim_node_start(w.server), "serve", serve, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_served, UINT64_MAX), SIM_DONE);
	fiber_spawn_big(sim_node_start(w.client), "load", load, NULL);
}

static void world_end(void)
{
	if (sim_run(w.sim, &w.is_loaded, sim_now_ns(w.sim) + 3600 * NS_PER_S) != SIM_DONE)
		test_fail(__FILE__, __LINE__, "the load never ended");
	fiber_spawn(sim_node_rt(w.server), "close", close_server, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_closed, UINT64_MAX), SIM_DONE);
	sim_run(w.sim, NULL, UINT64_MAX);
	sim_node_stop(w.client);
	sim_node_stop(w.server);
	pool_double_free(w.pool);
	sim_free(w.sim);
}

static void check_whole(uint64_t seed)
{
	const struct load_result *r = &w.result;
	if (w.err || r->wrong_units || r->errors)
		test_fail(__FILE__, __LINE__, "seed %llu: %s, %llu wrong, %llu failed: %s",
			  (unsigned long long)seed, err_name(w.err), (unsigned long long)r->wrong_units,
			  (unsigned long long)r->errors, r->first_wrong);
	CHECK(r->checked_units >= 8);
}

static struct load_options options_of(uint64_t seed)
{
	return (struct load_options){
		.kind = seed % 2 ? LOAD_MIXED : LOAD_RANDWRITE,
		.read_percent = 40,
		.block_bytes = seed % 4 == 0 ? 32 * KiB : 4 * KiB,
		.depth = seed % 3 == 0 ? 1 : 24,
		.queues = 1 + (uint32_t)seed % 4,
		.time_ns = 100 * NS_PER_MS,
		.digests = seed % 5 == 1,
		.no_in_capsule = seed % 7 == 2,
	};
}

TEST(host_and_target_agree_on_a_good_network)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		world_start(seed, options_of(seed));
		world_end();
		check_whole(seed);
		CHECK_EQ(w.result.associations, 1);
		CHECK_EQ(w.result.replayed, 0);
	}
}

TEST(resets_at_any_moment_are_pauses_and_lose_nothing)
{
	uint64_t replayed = 0;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		world_start(seed, options_of(seed));
		sim_net_faults(w.sim)->reset_one_in = 300;
		w.load.time_ns = NS_PER_S;
		world_end();
		check_whole(seed);
		replayed += w.result.replayed;
	}
	CHECK(replayed > 100);
}

/* One way, then the other, then both: connections that are half open until somebody's keep alive says so. */
static void cut_and_heal(void *arg)
{
	static uint32_t count;
	uint64_t next_ns = sim_now_ns(w.sim);
	(void)arg;
	if (w.is_loaded)
		return;
	switch (count++ % 6) {
	case 0:
		sim_net_cut(w.sim, w.client, w.server);
		break;
	case 2:
		sim_net_cut(w.sim, w.server, w.client);
		break;
	case 4:
		sim_net_cut(w.sim, w.client, w.server);
		sim_net_cut(w.sim, w.server, w.client);
		break;
	default:
		sim_net_heal_all(w.sim);
	}
	next_ns += prng_below(sim_prng(w.sim), 20 * NS_PER_S);
	sim_at(w.sim, next_ns, cut_and_heal, NULL);
}

/* The bytes of a write wait in the network while its connection is given up, and arrive after the next one was made. */
static void cut_and_heal_soon(void *arg)
{
	static bool is_cut;
	(void)arg;
	if (w.is_loaded)
		return;
	if (is_cut)
		sim_net_heal_all(w.sim);
	else
		sim_net_cut(w.sim, w.client, w.server);
	is_cut = !is_cut;
	sim_at(w.sim, sim_now_ns(w.sim) + 5 * NS_PER_S + prng_below(sim_prng(w.sim), 3 * NS_PER_S),
	       cut_and_heal_soon, NULL);
}

TEST(a_write_that_arrives_when_its_connection_was_long_given_up_overwrites_nothing_newer)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct load_options o = options_of(seed);
		o.time_ns = 120 * NS_PER_S;
		o.depth = 4;
		o.size_bytes = 8 * o.block_bytes; /* the same few units again and again */
		o.kind = LOAD_MIXED;
		o.read_percent = 70;
		world_start(seed, o);
		sim_net_faults(w.sim)->latency_min_ns = 10 * NS_PER_MS;
		sim_net_faults(w.sim)->latency_max_ns = 30 * NS_PER_MS;
		sim_net_faults(w.sim)->retransmit_ns = 3 * NS_PER_S;
		sim_at(w.sim, sim_now_ns(w.sim) + NS_PER_S, cut_and_heal_soon, NULL);
		world_end();
		check_whole(seed);
		CHECK(w.result.associations > 3);
	}
}

TEST(a_partition_of_any_length_either_way_is_a_pause_and_loses_nothing)
{
	uint64_t associations = 0;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct load_options o = options_of(seed);
		o.time_ns = 120 * NS_PER_S;
		o.depth = 2;
		world_start(seed, o);
		sim_net_faults(w.sim)->latency_min_ns = 5 * NS_PER_MS; /* few operations, much time */
		sim_net_faults(w.sim)->latency_max_ns = 20 * NS_PER_MS;
		sim_at(w.sim, sim_now_ns(w.sim) + NS_PER_S, cut_and_heal, NULL);
		world_end();
		check_whole(seed);
		associations += w.result.associations;
	}
	CHECK(associations > 2 * SEEDS);
}
