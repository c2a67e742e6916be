/*
 * cluster_process.c: the processes of the nodes, the engines in them, and the minder who starts both.
 *
 * A process opens its pool and its door, answers the others over the wire if there is one, and may run one engine with clients. It ends by
 * kill or power cut alone, and its engine with it. The minder looks every few milliseconds: what is down is started again when its time has come, a
 * process whose pool has failed is killed, and where no engine is left one is started somewhere.
 */
#include "sim/cluster_private.h"

static void process_main(void *arg)
{
	struct cluster_node *n = arg;
	struct rt_disk *disk;
	struct pool *pool;
	int err = rt_disk_open(rt_current(), "/dev/sda", 0, 0, &disk);
	if (!err)
		err = pool_open(disk, NULL, &pool);
	if (err && the_run->climate == FAIR) {
		cluster_fail(n->cluster, "node %u does not open its pool: %s", n->index, err_name(err));
		return;
	}
	n->is_dead = err != 0;
	if (err)
		return;
	n->pool = pool;
	n->door = replica_door_new(pool, &n->boot_id);
	if (n->cluster->wire)
		n->cluster->wire->serve(n);
}

void process_start(struct cluster_node *n)
{
	if (!sim_node_has_power(n->machine) || uuid_is_nil(&n->boot_id))
		prng_fill(n->cluster->rng, &n->boot_id, sizeof(n->boot_id));
	struct rt *rt = sim_node_start(n->machine);
	n->incarnation++;
	n->is_up = true;
	n->is_dead = false;
	n->restart_ns = 0;
	n->pool = NULL;
	n->door = NULL;
	fiber_spawn(rt, "process", process_main, n);
}

static void process_gone(struct cluster_node *n, bool power_too)
{
	struct run *r = the_run;
	if (!n->is_up)
		return;
	link_node_gone(n, power_too);
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (r->engines[i]->node == n)
			engine_over(r->engines[i]);
	n->engine = NULL;
	n->pool = NULL;
	n->door = NULL;
	n->is_up = false;
	if (power_too) {
		sim_node_power_cut(n->machine);
		memset(&n->boot_id, 0, sizeof(n->boot_id));
		n->has_all = false;
		r->report->power_cuts++;
	} else {
		sim_node_kill(n->machine);
		r->report->kills++;
	}
	n->restart_ns = now_ns(r) + 50 * NS_PER_MS + chance(r, 6 * NS_PER_S);
}

/* ---- engines ------------------------------------------------------------------------------------------------------------------------------- */

/* Its clients are answered, one by one, unless its process is gone. */
void engine_over(struct cluster_engine *e)
{
	if (e->is_over)
		return;
	e->is_over = true;
	the_run->engine_wanted_ns = now_ns(the_run) + chance(the_run, 2 * NS_PER_S);
}

static struct replica *copy_find(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	struct cluster_node *from = ctx;
	struct cluster *cl = from->cluster;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *to = &cl->nodes[i];
		if (!uuid_equal(&to->pool_id, pool_id))
			continue;
		if (to != from && cl->wire)
			return cl->wire->replica_new(from, to, volume_id);
		if (to != from)
			return link_new(from, to, volume_id);
		return from->door ? replica_local_new(from->door, volume_id) : NULL;
	}
	return NULL;
}

static void engine_main(void *arg)
{
	struct cluster_engine *e = arg;
	struct cluster_node *n = e->node;
	struct mirror_options options = {.volume_id = n->cluster->volume_id,
					 .engine_id = e->id,
					 .views = views_new(n),
					 .replica_new = copy_find,
					 .ctx = n,
					 .intent_idle_ns = NS_PER_S,
					 .absent_max_ns = 8 * NS_PER_S,
					 .absent_max_bytes = 2 * MiB};
	int err = mirror_new(rt_current(), &options, &e->mirror);
	if (err)
		cluster_fail(n->cluster, "mirror_new: %s", err_name(err));
	for (uint32_t i = 0; !err && i < CLIENTS; i++)
		fiber_spawn(rt_current(), "client", client_main, e);
}

/* On a node that runs none; an older one elsewhere may live on without knowing. */
void engine_start(struct run *r)
{
	uint32_t first = (uint32_t)chance(r, CLUSTER_NODES);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[(first + i) % CLUSTER_NODES];
		if (!n->is_up || (n->engine && !n->engine->is_over) || r->engine_count == ENGINES_MAX)
			continue;
		struct cluster_engine *e = mem_zalloc(sizeof(*e));
		e->node = n;
		e->number = ++r->report->engines;
		prng_fill(r->cluster.rng, &e->id, sizeof(e->id));
		n->engine = r->engines[r->engine_count++] = e;
		sim_trace(r->cluster.sim, "engine", e->number, n->index, 0);
		fiber_spawn(sim_node_rt(n->machine), "engine", engine_main, e);
		return;
	}
}

static bool an_engine_lives(const struct run *r)
{
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (!r->engines[i]->is_over)
			return true;
	return false;
}

/* Else the one that lives was there before: it may serve for as long as nobody opens its copies, and change no view. */
static bool the_owner_lives(const struct run *r)
{
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (!r->engines[i]->is_over && uuid_equal(&r->engines[i]->id, &r->cluster.view.engine_id))
			return true;
	return false;
}

void node_down(struct run *r, struct cluster_node *n, bool power_too)
{
	if (!n->is_up)
		return;
	sim_trace(r->cluster.sim, power_too ? "power-cut" : "kill", n->index, 0, 0);
	clients_cut_off(r, n); /* first: what they had asked lies on their stacks */
	process_gone(n, power_too);
}

/* ---- the minder ---------------------------------------------------------------------------------------------------------------------------- */

static bool pool_failed(const struct cluster_node *n)
{
	struct pool_stats stats;
	if (!n->pool)
		return false;
	pool_stats(n->pool, &stats);
	return stats.failed;
}

static bool is_member(const struct cluster_node *n)
{
	struct view_replica *e = view_find(&n->cluster->view, &n->pool_id);
	return e && e->role == VIEW_MEMBER;
}

/* Whoever is no member has everything when it becomes one. */
static void who_has_all(struct run *r)
{
	bool all = true;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		n->has_all |= !is_member(n);
		all &= n->has_all;
	}
	if (all || !all_is_even(r))
		return;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		r->cluster.nodes[i].has_all = true;
}

/* V3, V11: is there a machine that stays on, and has everything that was acknowledged? */
bool another_has_all(struct run *r, const struct cluster_node *cut)
{
	bool any = false;
	who_has_all(r);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		const struct cluster_node *n = &r->cluster.nodes[i];
		any |= n != cut && n->has_all && !n->has_lost_sectors && is_member(n);
	}
	return any || !is_member(cut);
}

void minder(void *arg)
{
	struct run *r = arg;
	if (r->is_done)
		return;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		if (pool_failed(n) || n->is_dead)
			node_down(r, n, false);
		if (!n->is_up && n->restart_ns && now_ns(r) >= n->restart_ns)
			process_start(n);
	}
	if (!an_engine_lives(r) && now_ns(r) >= r->engine_wanted_ns)
		engine_start(r);
	if (r->faults_are_over && !the_owner_lives(r) && now_ns(r) >= r->engine_wanted_ns + 10 * NS_PER_S) {
		r->engine_wanted_ns = now_ns(r);
		engine_start(r);
	}
	who_has_all(r);
	if (r->faults_are_over)
		fillers_delete(r);
	sim_at(r->cluster.sim, now_ns(r) + 20 * NS_PER_MS, minder, r);
}
