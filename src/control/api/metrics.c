/*
 * metrics.c: GET /metrics, the Prometheus text format 0.0.4. Units are seconds and bytes, counters end in _total.
 *
 * Latency buckets are powers of two from 4 us to 17 s, which the histograms of base/hist.h give exactly. An operation that
 * never happened on an export has no histogram, so that thousands of idle volumes cost nothing.
 */
#include "control/api/route.h"

#include <stdio.h>

#define BUCKET_FIRST_POWER 12 /* 4,096 ns */
#define BUCKET_LAST_POWER  34

static void head(struct text *out, const char *name, const char *type, const char *help)
{
	text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void label(struct text *out, const char *value)
{
	for (const char *p = value; *p; p++) {
		if (*p == '\n')
			text_add(out, "\\n");
		else if (*p == '\\' || *p == '"')
			text_printf(out, "\\%c", *p);
		else
			text_add_bytes(out, p, 1);
	}
}

static void single(struct text *out, const char *name, const char *type, const char *help, double value)
{
	head(out, name, type, help);
	text_printf(out, "%s %.17g\n", name, value);
}

/* ---- pools ----------------------------------------------------------------------------------------------------------- */

static const struct pool_metric {
	const char *name, *type, *help;
	size_t offset;
	double scale; /* 0: 1 */
} pool_metrics[] = {
#define POOL_METRIC(field, name, type, help, scale)                                                          \
	{                                                                                                    \
		name, type, help, offsetof(struct pool_stats, field), scale                                  \
	}
	POOL_METRIC(total_bytes, "oxbow_pool_size_bytes", "gauge", "Size of the pool's disk.", 0),
	POOL_METRIC(data_bytes, "oxbow_pool_data_bytes", "gauge", "Space that holds data.", 0),
	POOL_METRIC(metadata_bytes, "oxbow_pool_metadata_bytes", "gauge", "Space that holds metadata.", 0),
	POOL_METRIC(free_bytes, "oxbow_pool_free_bytes", "gauge", "Space that is free.", 0),
	POOL_METRIC(reserve_bytes, "oxbow_pool_reserve_bytes", "gauge",
		    "Space kept back so that deleting works.", 0),
	POOL_METRIC(journal_bytes, "oxbow_pool_journal_bytes", "gauge", "Size of the journal.", 0),
	POOL_METRIC(journal_used_bytes, "oxbow_pool_journal_used_bytes", "gauge",
		    "Journal that a start would replay.", 0),
	POOL_METRIC(journal_blocks_written, "oxbow_pool_journal_blocks_total", "counter",
		    "Journal blocks written.", 0),
	POOL_METRIC(journal_records_written, "oxbow_pool_journal_records_total", "counter",
		    "Journal records written.", 0),
	POOL_METRIC(checkpoints, "oxbow_pool_checkpoints_total", "counter", "Checkpoints written.", 0),
	POOL_METRIC(device_flushes, "oxbow_pool_device_flushes_total", "counter",
		    "Flushes sent to the device.", 0),
	POOL_METRIC(discarded_bytes, "oxbow_pool_discarded_bytes_total", "counter",
		    "Free space given back to the device.", 0),
	POOL_METRIC(cache_used_bytes, "oxbow_pool_cache_used_bytes", "gauge", "Metadata in memory.", 0),
	POOL_METRIC(cache_misses, "oxbow_pool_cache_misses_total", "counter",
		    "Metadata pages read from the disk.", 0),
	POOL_METRIC(recovery_ns, "oxbow_pool_recovery_seconds", "gauge", "How long the last recovery took.",
		    1e-9),
	POOL_METRIC(recovery_records, "oxbow_pool_recovery_records", "gauge",
		    "Records the last recovery replayed.", 0),
	POOL_METRIC(recovery_blocks_rejected, "oxbow_pool_recovery_blocks_rejected", "gauge",
		    "Blocks whose data had not arrived.", 0),
#undef POOL_METRIC
};

struct pool_print {
	struct text *out;
	const struct pool_metric *metric;
};

static void pool_line(struct text *out, const char *name, const struct node_pool_info *pool, double value)
{
	text_printf(out, "%s{pool=\"", name);
	label(out, pool->name);
	text_printf(out, "\"} %.17g\n", value);
}

static bool pool_value(void *ctx, const struct node_pool_info *pool)
{
	struct pool_print *p = ctx;
	uint64_t value;
	if (!pool->has_stats)
		return true;
	memcpy(&value, (const char *)&pool->stats + p->metric->offset, sizeof(value));
	pool_line(p->out, p->metric->name, pool,
		  (double)value * (p->metric->scale != 0 ? p->metric->scale : 1));
	return true;
}

static bool pool_up(void *ctx, const struct node_pool_info *pool)
{
	pool_line(ctx, "oxbow_pool_up", pool, pool->state == NODE_POOL_OPEN);
	return true;
}

static bool pool_volumes(void *ctx, const struct node_pool_info *pool)
{
	if (pool->has_stats)
		pool_line(ctx, "oxbow_pool_volumes", pool, pool->stats.volume_count);
	return true;
}

static bool pool_snapshots(void *ctx, const struct node_pool_info *pool)
{
	if (pool->has_stats)
		pool_line(ctx, "oxbow_pool_snapshots", pool, pool->stats.snapshot_count);
	return true;
}

static bool pool_list_damaged(void *ctx, const struct node_pool_info *pool)
{
	if (pool->has_stats)
		pool_line(ctx, "oxbow_pool_list_damaged", pool, pool->stats.catalog_damaged);
	return true;
}

static bool pool_damaged_volumes(void *ctx, const struct node_pool_info *pool)
{
	if (pool->has_stats)
		pool_line(ctx, "oxbow_pool_damaged_volumes", pool, pool->stats.damaged_volume_count);
	return true;
}

static bool pool_pages_lost(void *ctx, const struct node_pool_info *pool)
{
	if (pool->has_stats)
		pool_line(ctx, "oxbow_pool_metadata_pages_lost", pool, pool->stats.metadata_pages_lost);
	return true;
}

static void damage_print(struct node *n, struct text *out)
{
	head(out, "oxbow_pool_list_damaged", "gauge",
	     "1 if part of the list of volumes and snapshots is lost.");
	node_pool_walk(n, pool_list_damaged, out);
	head(out, "oxbow_pool_damaged_volumes", "gauge", "Volumes that are known to miss data.");
	node_pool_walk(n, pool_damaged_volumes, out);
	head(out, "oxbow_pool_metadata_pages_lost", "gauge",
	     "Metadata pages that could not be believed, beside those of volumes' maps.");
	node_pool_walk(n, pool_pages_lost, out);
}

static bool pool_opens(void *ctx, const struct node_pool_info *pool)
{
	pool_line(ctx, "oxbow_pool_opens_total", pool, (double)pool->opens);
	return true;
}

static void pools_print(struct node *n, struct text *out)
{
	head(out, "oxbow_pool_up", "gauge", "1 if the pool is open and serving.");
	node_pool_walk(n, pool_up, out);
	head(out, "oxbow_pool_volumes", "gauge", "Volumes in the pool.");
	node_pool_walk(n, pool_volumes, out);
	head(out, "oxbow_pool_snapshots", "gauge", "Snapshots in the pool.");
	node_pool_walk(n, pool_snapshots, out);
	head(out, "oxbow_pool_opens_total", "counter", "How often the pool was opened.");
	node_pool_walk(n, pool_opens, out);
	damage_print(n, out);
	for (size_t i = 0; i < ARRAY_COUNT(pool_metrics); i++) {
		struct pool_print p = {out, &pool_metrics[i]};
		head(out, p.metric->name, p.metric->type, p.metric->help);
		node_pool_walk(n, pool_value, &p);
	}
}

/* ---- volumes --------------------------------------------------------------------------------------------------------- */

static void export_labels(struct text *out, const char *metric, const char *name, enum engine_op op)
{
	text_printf(out, "%s{export=\"", metric);
	label(out, name);
	text_printf(out, "\",op=\"%s\"", node_op_name(op));
}

static bool export_ops(void *ctx, const char *name, const struct engine_stats *s)
{
	for (int op = 0; op < ENGINE_OPS; op++) {
		export_labels(ctx, "oxbow_volume_ops_total", name, (enum engine_op)op);
		text_printf(ctx, "} %llu\n", (unsigned long long)s->ops[op]);
	}
	return true;
}

static bool export_bytes(void *ctx, const char *name, const struct engine_stats *s)
{
	for (int op = 0; op < ENGINE_OPS; op++) {
		export_labels(ctx, "oxbow_volume_bytes_total", name, (enum engine_op)op);
		text_printf(ctx, "} %llu\n", (unsigned long long)s->bytes[op]);
	}
	return true;
}

static bool export_errors(void *ctx, const char *name, const struct engine_stats *s)
{
	for (int op = 0; op < ENGINE_OPS; op++) {
		export_labels(ctx, "oxbow_volume_errors_total", name, (enum engine_op)op);
		text_printf(ctx, "} %llu\n", (unsigned long long)s->errors[op]);
	}
	return true;
}

static bool export_in_flight(void *ctx, const char *name, const struct engine_stats *s)
{
	text_add(ctx, "oxbow_volume_in_flight{export=\"");
	label(ctx, name);
	text_printf(ctx, "\"} %u\n", s->in_flight);
	return true;
}

/* The index of the last bucket of struct hist whose values are below 2^power. */
static unsigned bucket_index(unsigned power)
{
	return 4 * (power - 2) + 3;
}

static void export_histogram(struct text *out, const char *name, enum engine_op op, const struct hist *h)
{
	uint64_t below = 0;
	unsigned at = 0;
	for (unsigned power = BUCKET_FIRST_POWER; power <= BUCKET_LAST_POWER; power++) {
		for (; at <= bucket_index(power); at++)
			below += h->buckets[at];
		export_labels(out, "oxbow_volume_latency_seconds_bucket", name, op);
		text_printf(out, ",le=\"%.9g\"} %llu\n", (double)((uint64_t)1 << power) / 1e9,
			    (unsigned long long)below);
	}
	export_labels(out, "oxbow_volume_latency_seconds_bucket", name, op);
	text_printf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)h->count);
	export_labels(out, "oxbow_volume_latency_seconds_sum", name, op);
	text_printf(out, "} %.17g\n", (double)h->sum / 1e9);
	export_labels(out, "oxbow_volume_latency_seconds_count", name, op);
	text_printf(out, "} %llu\n", (unsigned long long)h->count);
}

static bool export_latency(void *ctx, const char *name, const struct engine_stats *s)
{
	for (int op = 0; op < ENGINE_OPS; op++) {
		if (s->latency_ns[op].count)
			export_histogram(ctx, name, (enum engine_op)op, &s->latency_ns[op]);
	}
	return true;
}

static void exports_print(struct node *n, struct text *out)
{
	head(out, "oxbow_volume_ops_total", "counter", "Requests carried out.");
	node_exports_walk(n, export_ops, out);
	head(out, "oxbow_volume_bytes_total", "counter", "Bytes of the requests carried out.");
	node_exports_walk(n, export_bytes, out);
	head(out, "oxbow_volume_errors_total", "counter", "Requests that failed.");
	node_exports_walk(n, export_errors, out);
	head(out, "oxbow_volume_in_flight", "gauge", "Requests under way.");
	node_exports_walk(n, export_in_flight, out);
	head(out, "oxbow_volume_latency_seconds", "histogram", "Time from request to answer.");
	node_exports_walk(n, export_latency, out);
}

/* ---- mirrored volumes that are served here --------------------------------------------------------------------------- */

static double mirror_serves(const struct node_mirror_info *m)
{
	return m->serves;
}

static double mirror_epoch(const struct node_mirror_info *m)
{
	return (double)m->epoch;
}

static double mirror_intents(const struct node_mirror_info *m)
{
	return m->intent_count;
}

static double mirror_held(const struct node_mirror_info *m)
{
	return m->held_requests;
}

static double copy_is_member(const struct node_copy_info *c)
{
	return strcmp(c->role, "member") == 0;
}

static double copy_answers(const struct node_copy_info *c)
{
	return strcmp(c->session, "open") == 0;
}

static double copy_filled(const struct node_copy_info *c)
{
	return (double)c->filled_bytes;
}

static double copy_compared(const struct node_copy_info *c)
{
	return (double)c->compared_bytes;
}

static const struct mirror_metric {
	const char *name, *help;
	double (*of_mirror)(const struct node_mirror_info *m); /* or */
	double (*of_copy)(const struct node_copy_info *c);
} mirror_metrics[] = {
	{"oxbow_mirror_serves", "1 if the volume serves; 0: it waits.", mirror_serves, NULL},
	{"oxbow_mirror_epoch", "Epoch of its view.", mirror_epoch, NULL},
	{"oxbow_mirror_intents", "Regions that are being written.", mirror_intents, NULL},
	{"oxbow_mirror_held_requests", "Requests that wait because it does not serve.", mirror_held, NULL},
	{"oxbow_copy_member", "1 if the copy is in sync.", NULL, copy_is_member},
	{"oxbow_copy_answers", "1 if the copy answers.", NULL, copy_answers},
	{"oxbow_copy_filled_bytes", "Bytes that its last filling moved.", NULL, copy_filled},
	{"oxbow_copy_compared_bytes", "Bytes that its last filling compared.", NULL, copy_compared},
};

struct mirror_print {
	const struct mirror_metric *metric;
	struct text *out;
};

static void mirror_labels(const struct mirror_print *p, const char *volume, const struct node_copy_info *c)
{
	text_printf(p->out, "%s{volume=\"", p->metric->name);
	label(p->out, volume);
	if (c) {
		text_add(p->out, "\",pool=\"");
		label(p->out, c->pool_name);
		text_add(p->out, "\",node=\"");
		label(p->out, c->node_name);
	}
	text_add(p->out, "\"} ");
}

static bool mirror_value(void *ctx, const struct node_volume *v)
{
	const struct mirror_print *p = ctx;
	const struct node_mirror_info *m = &v->mirror;
	if (!m->is_here)
		return true;
	if (p->metric->of_mirror) {
		mirror_labels(p, v->info.name, NULL);
		text_printf(p->out, "%.17g\n", p->metric->of_mirror(m));
		return true;
	}
	for (uint32_t i = 0; i < m->copy_count; i++) {
		mirror_labels(p, v->info.name, &m->copies[i]);
		text_printf(p->out, "%.17g\n", p->metric->of_copy(&m->copies[i]));
	}
	return true;
}

static void mirrors_print(struct node *n, struct text *out)
{
	for (size_t i = 0; i < ARRAY_COUNT(mirror_metrics); i++) {
		struct mirror_print p = {&mirror_metrics[i], out};
		head(out, p.metric->name, "gauge", p.metric->help);
		node_mirrored_walk(n, mirror_value, &p);
	}
}

/* ---- NVMe over TCP ----------------------------------------------------------------------------------------------------- */

struct host_print {
	struct text *out;
	const char *name;
	uint64_t (*value)(const struct nvmf_association *a);
};

static uint64_t host_queues(const struct nvmf_association *a)
{
	return a->io_queues;
}

static uint64_t host_commands(const struct nvmf_association *a)
{
	return a->commands;
}

static uint64_t host_errors(const struct nvmf_association *a)
{
	return a->errors;
}

static uint64_t host_registered(const struct nvmf_association *a)
{
	return a->is_registrant;
}

static uint64_t host_holds(const struct nvmf_association *a)
{
	return a->is_holder;
}

/* The controller's id tells two associations of one host with one volume apart. */
static bool host_value(void *ctx, const struct nvmf_association *a)
{
	struct host_print *p = ctx;
	if (uuid_is_nil(&a->id)) /* whoever asks for the list is gone soon */
		return true;
	text_printf(p->out, "%s{host=\"", p->name);
	label(p->out, a->hostnqn);
	text_add(p->out, "\",export=\"");
	label(p->out, a->name);
	text_printf(p->out, "\",controller=\"%u\"} %llu\n", a->controller, (unsigned long long)p->value(a));
	return true;
}

static void hosts_print(struct node *n, struct text *out)
{
	static const struct {
		const char *name, *type, *help;
		uint64_t (*value)(const struct nvmf_association *a);
	} metrics[] = {
		{"oxbow_nvme_host_io_queues", "gauge", "I/O queues of a connected host.", host_queues},
		{"oxbow_nvme_host_commands_total", "counter", "Commands of a connected host.", host_commands},
		{"oxbow_nvme_host_errors_total", "counter", "Commands of a connected host that failed.",
		 host_errors},
		{"oxbow_nvme_host_is_registrant", "gauge", "1 if the host is registered for a reservation.",
		 host_registered},
		{"oxbow_nvme_host_is_holder", "gauge", "1 if the host holds the volume's reservation.",
		 host_holds},
	};
	for (size_t i = 0; i < ARRAY_COUNT(metrics); i++) {
		struct host_print p = {out, metrics[i].name, metrics[i].value};
		head(out, metrics[i].name, metrics[i].type, metrics[i].help);
		node_nvme_walk(n, NULL, host_value, &p);
	}
}

static void nvme_print(struct node *n, struct text *out)
{
	struct nvmf_stats s;
	if (!node_nvme_stats(n, &s))
		return;
	single(out, "oxbow_nvme_connections", "gauge", "Connections, one a queue.", s.connections);
	single(out, "oxbow_nvme_controllers", "gauge", "Associations of hosts with volumes or discovery.",
	       s.controllers);
	single(out, "oxbow_nvme_connections_total", "counter", "Connections accepted.",
	       (double)s.connections_accepted);
	single(out, "oxbow_nvme_connections_refused_total", "counter", "Connections beyond the limit.",
	       (double)s.connections_refused);
	single(out, "oxbow_nvme_connections_dropped_total", "counter",
	       "Connections ended for breaking the protocol or its pace.", (double)s.connections_dropped);
	single(out, "oxbow_nvme_commands_total", "counter", "Commands received.", (double)s.commands);
	single(out, "oxbow_nvme_errors_total", "counter", "Commands answered with an error.",
	       (double)s.errors);
	single(out, "oxbow_nvme_hosts_refused_total", "counter", "Hosts refused by a volume's list.",
	       (double)s.hosts_refused);
	single(out, "oxbow_nvme_authentications_total", "counter", "Queues whose host proved its secret.",
	       (double)s.hosts_proved);
	single(out, "oxbow_nvme_authentications_failed_total", "counter",
	       "Proofs of a secret that were wrong.", (double)s.proofs_failed);
	hosts_print(n, out);
}

/* ---- the process ----------------------------------------------------------------------------------------------------- */

static bool count_job(void *ctx, const struct node_job *job)
{
	(void)job;
	++*(unsigned *)ctx;
	return true;
}

static void process_print(struct api *api, struct text *out)
{
	struct node_process p;
	unsigned jobs = 0;
	node_process_stats(api->node, &p);
	node_job_walk(api->node, count_job, &jobs);
	head(out, "oxbow_build_info", "gauge", "The version that runs.");
	text_add(out, "oxbow_build_info{version=\"" OXBOW_VERSION "\"} 1\n");
	single(out, "oxbow_ready", "gauge", "1 if every known pool serves.", node_is_ready(api->node));
	single(out, "oxbow_jobs", "gauge", "Background jobs under way.", jobs);
	single(out, "oxbow_events_last_id", "gauge", "Id of the newest event.",
	       (double)events_last_id(api->events));
	single(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)p.resident_bytes);
	single(out, "process_virtual_memory_bytes", "gauge", "Virtual memory.", (double)p.virtual_bytes);
	single(out, "process_cpu_seconds_total", "counter", "User and system time.", (double)p.cpu_ns / 1e9);
	single(out, "process_open_fds", "gauge", "Open file descriptors.", p.open_files);
	single(out, "process_threads", "gauge", "Threads.", p.threads);
	single(out, "process_start_time_seconds", "gauge", "Start, since 1970.",
	       (double)p.start_wall_ns / 1e9);
}

void metrics_print(struct api *api, struct text *out)
{
	process_print(api, out);
	pools_print(api->node, out);
	exports_print(api->node, out);
	mirrors_print(api->node, out);
	nvme_print(api->node, out);
}
