/*
 * nvme_mirror_test.c: the host against the target over a mirror, two machines under a seed: what a client on another node sees when
 * copies are lost and return, and when another engine takes the volume over. The load is oxbow-bench's: it knows what every unit must hold.
 */
#include "bench_load.h"
#include "data/engine/mirror_double.h"
#include "data/frontend/nvmf/nvmf.h"

static struct {
	struct sim_node *client;
	struct nvmf_server *server;
	struct load_options load;
	struct load_result result;
	char nqn[NVMF_NQN_SIZE];
	bool is_loaded;
	int err;
} w;

static char address[] = "tcp:10.0.0.1:4420";

static void load_main(void *arg)
{
	(void)arg;
	w.err = load_run(sim_node_rt(w.client), &w.load, &w.result);
	w.is_loaded = true;
}

static void load_begin(uint64_t time_ns)
{
	memset(&w, 0, sizeof(w));
	w.server = nvmf_server_new(mirrored.engines, NULL);
	CHECK_OK(nvmf_server_listen(w.server, "tcp:0.0.0.0:4420", NULL));
	nvmf_volume_nqn(&mirrored.volume, w.nqn);
	w.load = (struct load_options){.kind = LOAD_MIXED,
				       .read_percent = 40,
				       .block_bytes = mirrored.seed % 2 ? 4 * KiB : 16 * KiB,
				       .depth = mirrored.seed % 3 ? 8 : 1,
				       .queues = 1 + (uint32_t)mirrored.seed % 3,
				       .time_ns = time_ns,
				       .connect_ns = 60 * NS_PER_S,
				       .seed = mirrored.seed,
				       .verify = true,
				       .targets = {{address, w.nqn}},
				       .target_count = 1};
	w.client = sim_node_new(mirrored.sim, "client");
	fiber_spawn_big(sim_node_start(w.client), "load", load_main, NULL);
	sim_net_faults(mirrored.sim)->latency_min_ns = 2 * NS_PER_MS; /* few operations, much time */
	sim_net_faults(mirrored.sim)->latency_max_ns = 8 * NS_PER_MS;
}

static void load_end(void)
{
	while (!w.is_loaded)
		fiber_sleep(NS_PER_MS);
	nvmf_server_close(w.server);
	fiber_sleep(10 * NS_PER_S); /* the client's last fibers */
	sim_node_stop(w.client);
	if (w.err || w.result.wrong_units || w.result.errors)
		test_fail(__FILE__, __LINE__, "seed %llu: %s, %llu wrong, %llu failed: %s",
			  (unsigned long long)mirrored.seed, err_name(w.err),
			  (unsigned long long)w.result.wrong_units, (unsigned long long)w.result.errors,
			  w.result.first_wrong);
	CHECK(w.result.checked_units >= 8);
}

static void evict(void)
{
	nvmf_server_evict_volume(w.server, &mirrored.volume);
}

WITH_COPIES(copies_that_are_lost_and_return_are_pauses_and_lose_nothing, 3)
{
	load_begin(60 * NS_PER_S);
	for (unsigned i = 0; i < 3; i++) {
		fiber_sleep(NS_PER_S);
		mirrored.is_cut[i] = true;
		fiber_sleep(8 * NS_PER_S);
		mirrored.is_cut[i] = false;
		mirror_double_whole();
	}
	load_end();
	CHECK_EQ(w.result.associations, 1);
}

/* Longer than any time-out of the host. */
WITH_COPIES(all_copies_lost_for_long_are_a_pause_and_lose_nothing, 2)
{
	load_begin(30 * NS_PER_S);
	for (unsigned round = 0; round < 3; round++) {
		fiber_sleep(3 * NS_PER_S);
		mirrored.is_cut[0] = mirrored.is_cut[1] = true;
		fiber_sleep(100 * NS_PER_S);
		mirrored.is_cut[0] = mirrored.is_cut[1] = false;
	}
	load_end();
}

WITH_COPIES(an_engine_that_is_fenced_again_and_again_under_load_is_a_pause_and_loses_nothing, 2)
{
	load_begin(60 * NS_PER_S);
	for (unsigned round = 0; round < 4; round++) {
		fiber_sleep(3 * NS_PER_S);
		mirror_double_usurp();
		fiber_sleep(round * NS_PER_S);
		mirror_double_down(evict);
		fiber_sleep(round % 2 * 5 * NS_PER_S);
		mirror_double_up();
	}
	load_end();
	CHECK(w.result.associations > 4);
	CHECK(w.result.replayed > 0 || w.load.depth == 1);
}

WITH_COPIES(fenced_while_all_copies_are_lost_is_a_pause_and_loses_nothing, 2)
{
	load_begin(30 * NS_PER_S);
	for (unsigned round = 0; round < 2; round++) {
		fiber_sleep(3 * NS_PER_S);
		mirrored.is_cut[0] = mirrored.is_cut[1] = true;
		fiber_sleep(20 * NS_PER_S);
		mirror_double_down(evict);
		mirror_double_up();
		fiber_sleep(50 * NS_PER_S);
		mirrored.is_cut[0] = mirrored.is_cut[1] = false;
	}
	load_end();
	CHECK(w.result.associations > 2);
}
