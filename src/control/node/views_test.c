/* views_test.c: the store of views over a metastore that loses answers, arrives late, and goes away. */
#include "base/prng.h"
#include "base/test.h"
#include "control/meta/meta_memory.h"
#include "control/node/facts.h"
#include "control/node/views.h"
#include "sim/sim.h"

#define SEEDS 300u
#define SWAPS 40u

static const struct uuid volume_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

struct world {
	struct sim *sim;
	struct rt *rt;
	struct meta_memory *store;
	struct meta *client;
	struct views views;
	bool is_away, done;
	uint32_t entered, in_doubt;
	void (*body)(struct world *w);
};

static struct meta *enter(void *ctx)
{
	struct world *w = ctx;
	if (w->is_away)
		return NULL;
	w->entered++;
	return w->client;
}

static void leave(void *ctx, int err)
{
	struct world *w = ctx;
	(void)err;
	w->entered--;
}

static void body_main(void *arg)
{
	struct world *w = arg;
	w->body(w);
	CHECK(w->entered == 0);
	w->done = true;
}

static void world_run(uint64_t seed, void (*body)(struct world *w), uint32_t *in_doubt)
{
	struct world w = {.sim = sim_new(seed), .body = body};
	struct sim_node *server = sim_node_new(w.sim, "meta"), *node = sim_node_new(w.sim, "node");
	w.store = meta_memory_new(sim_node_start(server), seed, 0);
	w.rt = sim_node_start(node);
	w.client = meta_memory_client(w.store, w.rt);
	views_init(&w.views, enter, leave, &w);
	fiber_spawn(w.rt, "body", body_main, &w);
	CHECK(sim_run(w.sim, &w.done, 3600 * NS_PER_S) == SIM_DONE);
	if (in_doubt)
		*in_doubt += w.in_doubt;
	sim_free(w.sim);
	meta_memory_free(w.store);
}

static struct view *view_new(uint64_t epoch)
{
	struct view *v = mem_zalloc(sizeof(*v));
	v->volume_id = volume_id;
	v->engine_id = (struct uuid){{(uint8_t)(epoch | 1)}};
	v->epoch = epoch;
	v->replica_count = 1;
	v->replicas[0].pool_id = (struct uuid){{7}};
	v->replicas[0].role = VIEW_MEMBER;
	return v;
}

static int get(struct world *w, struct view *out, uint64_t *revision)
{
	return w->views.store.get(&w->views.store, &volume_id, out, revision);
}

static int swap(struct world *w, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	return w->views.store.swap(&w->views.store, v, revision, new_revision);
}

static void body_basics(struct world *w)
{
	struct view *v = view_new(1), *seen = view_new(9);
	uint64_t revision = 0, again = 0;
	CHECK(get(w, seen, &revision) == OXE_NOENT);
	CHECK(swap(w, v, 0, &revision) == 0);
	CHECK(get(w, seen, &again) == 0 && again == revision && seen->epoch == 1);
	v->epoch = 2;
	CHECK(swap(w, v, revision + 1, &again) == OXE_DIFFERS);
	CHECK(swap(w, v, revision, &again) == 0 && again > revision);
	w->is_away = true;
	CHECK(get(w, seen, &revision) == OXE_NOTREADY);
	CHECK(swap(w, v, again, &revision) == OXE_NOTREADY);
	w->is_away = false;
	meta_memory_faults(w->client)->cut = true;
	CHECK(get(w, seen, &revision) == OXE_NOTREADY);
	free(v);
	free(seen);
}

TEST(a_view_is_what_was_swapped_last_and_a_swap_of_another_revision_differs)
{
	world_run(1, body_basics, NULL);
}

static void body_corrupt(struct world *w)
{
	struct view *v = view_new(1), *seen = view_new(9);
	char key[FACT_KEY_SIZE];
	uint8_t *bytes = mem_zalloc(VIEW_BYTES_MAX);
	uint64_t revision;
	size_t len_bytes = view_encode(v, bytes);
	fact_key(key, "view", &volume_id);
	bytes[len_bytes - 1] ^= 1;
	CHECK(meta_put(w->client, key, bytes, len_bytes, 0, 0, &revision) == 0);
	CHECK(get(w, seen, &revision) == OXE_CORRUPT);
	v->volume_id.b[0] ^= 1; /* another volume's view under this key */
	len_bytes = view_encode(v, bytes);
	CHECK(meta_put(w->client, key, bytes, len_bytes, META_ANY, 0, &revision) == 0);
	CHECK(get(w, seen, &revision) == OXE_CORRUPT);
	free(bytes);
	free(v);
	free(seen);
}

TEST(a_view_that_is_damaged_or_another_volumes_is_refused)
{
	world_run(1, body_corrupt, NULL);
}

/* As an engine does (view.h): the same swap again until it is settled. */
static int swap_settled(struct world *w, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	for (;;) {
		int err = swap(w, v, revision, new_revision);
		if (err != OXE_INDOUBT && err != OXE_NOTREADY)
			return err;
		w->in_doubt += err == OXE_INDOUBT;
		fiber_sleep(50 * NS_PER_MS);
	}
}

static int get_settled(struct world *w, struct view *out, uint64_t *revision)
{
	int err;
	while ((err = get(w, out, revision)) == OXE_NOTREADY)
		fiber_sleep(50 * NS_PER_MS);
	return err;
}

static void faults_set(struct world *w)
{
	struct meta_memory_faults *f = meta_memory_faults(w->client);
	f->delay_min_ns = NS_PER_MS;
	f->delay_max_ns = 30 * NS_PER_MS;
	f->limit_ns = 200 * NS_PER_MS;
	f->refused_one_in = 6;
	f->lost_request_one_in = f->lost_answer_one_in = f->reset_one_in = 4;
	f->late_one_in = 4;
	f->late_ns = 4 * NS_PER_S;
	f->outage_one_in = 40;
	f->outage_min_ns = 100 * NS_PER_MS;
	f->outage_max_ns = 6 * NS_PER_S;
}

/* Alone on the key: every swap that is settled happened once, none comes later, and epochs never go back. */
static void body_doubts(struct world *w)
{
	struct view *v = view_new(1), *seen = view_new(9);
	uint64_t revision = 0, looked = 0;
	faults_set(w);
	for (uint64_t epoch = 1; epoch <= SWAPS; epoch++) {
		v->epoch = epoch;
		CHECK(swap_settled(w, v, revision, &revision) == 0);
		CHECK(get_settled(w, seen, &looked) == 0);
		CHECK(seen->epoch == epoch && looked == revision);
	}
	free(v);
	free(seen);
}

TEST(a_swap_in_doubt_is_settled_by_the_same_swap_and_happens_once)
{
	uint32_t in_doubt = 0;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		world_run(seed, body_doubts, &in_doubt);
	CHECK(in_doubt > SEEDS); /* it was put to the test */
}
