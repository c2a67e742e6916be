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
		sim_node_set_clock(n->machine, clock_permille(r));
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
	r->pauses = pauses(spec->seed);
	r->clocks_differ = clocks_differ(spec->seed);
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
