/*
 * cluster_run.c: one seed: the beginning of its world, its life, and its end; see cluster_run.h.
 *
 *     director   on the loop's stack, every few hundred milliseconds: does one thing to the world, or undoes one
 *     minder     the same, often: restarts processes when their time has come, and starts an engine where none is left
 *     clients    fibers in the process of an engine: read, write, zero, trim, flush, snapshots, deletions, growth
 *     peace      on the loop's stack, often: when the faults have stopped, is all well?
 */
#include "sim/cluster_run.h"

#include "base/log.h"
#include "sim/cluster_private.h"

#include <stdarg.h>
#include <stdio.h>

struct run *the_run; /* for callbacks that get a node */

void cluster_fail(struct cluster *cl, const char *format, ...)
{
	va_list args;
	if (cl->failed)
		return;
	cl->failed = true;
	va_start(args, format);
	vsnprintf(cl->what, sizeof(cl->what), format, args);
	va_end(args);
	the_run->is_done = true;
}

/* ---- processes ----------------------------------------------------------------------------------------------------------------------------- */

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

/* ---- the beginning ------------------------------------------------------------------------------------------------------------------------- */

static void pool_make(void *arg)
{
	struct cluster_node *n = arg;
	struct rt_disk *disk;
	struct pool_format_spec spec = {.id = n->pool_id};
	struct pool *pool;
	snprintf(spec.name, sizeof(spec.name), "pool%u", n->index);
	int err = rt_disk_open(rt_current(), "/dev/sda", 0, 0, &disk);
	if (!err)
		err = pool_format(disk, &spec, false);
	if (!err)
		err = pool_open(disk, NULL, &pool);
	if (!err && view_find(&n->cluster->view, &n->pool_id)) {
		struct volume_spec volume = {
			.id = n->cluster->volume_id, .size_bytes = VOLUME_BYTES, .lba_bytes = 512};
		memcpy(volume.name, "volume", sizeof("volume"));
		err = volume_create(pool, &volume);
	}
	if (!err && the_run->climate == SMALL_POOLS && chance(the_run, 2))
		err = filler_make(n, pool);
	if (!err)
		err = pool_close(pool);
	if (err)
		cluster_fail(n->cluster, "making a pool: %s", err_name(err));
	n->restart_ns = 1;
}

static void world_make(struct run *r)
{
	struct cluster *cl = &r->cluster;
	static const char *const names[CLUSTER_NODES] = {"a", "b", "c", "d"};
	prng_fill(cl->rng, &cl->volume_id, sizeof(cl->volume_id));
	cl->view = (struct view){.volume_id = cl->volume_id, .epoch = 1};
	cl->revision = 1;
	uint32_t copies = 2 + (uint32_t)chance(r, 3);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &cl->nodes[i];
		*n = (struct cluster_node){
			.cluster = cl, .index = i, .machine = sim_node_new(cl->sim, names[i])};
		prng_fill(cl->rng, &n->pool_id, sizeof(n->pool_id));
		sim_disk_new(n->machine, "/dev/sda", DISK_BYTES, 512);
		if (i < copies)
			cl->view.replicas[cl->view.replica_count++] = (struct view_replica){
				.pool_id = n->pool_id,
				.role = i < 2 || chance(r, 2) ? VIEW_MEMBER : VIEW_ABSENT};
	}
	for (uint32_t i = 0; i < HOT_PLACES; i++)
		r->hot[i] = chance(r, VOLUME_BYTES / HISTORY_SECTOR_BYTES - 64);
	heal_all(r);
}

static void pools_make(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		fiber_spawn(sim_node_start(n->machine), "format", pool_make, n);
	}
	(void)sim_run(r->cluster.sim, NULL, UINT64_MAX);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		sim_node_stop(r->cluster.nodes[i].machine);
		process_start(&r->cluster.nodes[i]);
	}
}

static void log_line(void *ctx, const struct log_event *event)
{
	struct run *r = ctx;
	char line[600];
	log_format_text(event, line, sizeof(line));
	r->tell(now_ns(r), line);
}

static void run_live(struct run *r)
{
	world_make(r);
	pools_make(r);
	r->actions_left = 10 + (uint32_t)chance(r, 30);
	sim_at(r->cluster.sim, now_ns(r), minder, r);
	sim_at(r->cluster.sim, now_ns(r) + 3 * NS_PER_S, director, r);
	sim_at(r->cluster.sim, now_ns(r) + 200 * NS_PER_MS, judge_peace, r);
	if (!r->cluster.failed && sim_run(r->cluster.sim, &r->is_done, 3600 * NS_PER_S) != SIM_DONE)
		cluster_fail(&r->cluster, "an hour passed, or nothing will ever happen again");
}

/* What was to happen later happens now, to nobody: no process is up, and nobody waits. */
static void world_end(struct run *r)
{
	r->is_done = true;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		r->cluster.nodes[i].is_up = false;
	link_calls_abandon(&r->cluster);
	sim_free(r->cluster.sim);
}

static void run_end(struct run *r)
{
	for (uint32_t i = 0; i < r->snapshot_count; i++)
		if (r->snapshots[i].image)
			history_image_free(r->snapshots[i].image);
	for (uint32_t i = 0; i < r->engine_count; i++)
		free(r->engines[i]);
	history_free(r->cluster.history);
}

bool cluster_run(const struct cluster_spec *spec, struct cluster_report *report)
{
	struct run *r = the_run = mem_zalloc(sizeof(*r));
	*report = (struct cluster_report){0};
	r->report = report;
	r->size_bytes = VOLUME_BYTES;
	list_init(&r->doing);
	list_init(&r->cluster.calls);
	r->cluster.wire = spec->wire;
	r->cluster.sim = sim_new(spec->seed);
	r->cluster.rng = sim_prng(r->cluster.sim);
	r->cluster.history = history_new(VOLUME_BYTES_MAX / HISTORY_SECTOR_BYTES);
	sim_shuffle(r->cluster.sim, spec->seed % 2);
	r->climate = climate_of(spec->seed);
	r->tell = spec->tell;
	if (r->tell)
		log_sink_set(log_line, r, LOG_LEVEL_DEBUG);
	run_live(r);
	report->swaps = r->cluster.swaps;
	report->virtual_ns = now_ns(r);
	report->hash = sim_trace_hash(r->cluster.sim);
	report->failed = r->cluster.failed;
	memcpy(report->what, r->cluster.what, sizeof(report->what));
	if (report->failed && spec->story)
		sim_trace_print(r->cluster.sim, spec->story, 40);
	log_sink_set(NULL, NULL, LOG_LEVEL_ERROR);
	world_end(r);
	link_calls_free(&r->cluster);
	run_end(r);
	free(r);
	return !report->failed;
}
