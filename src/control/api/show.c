/* show.c: things as JSON. One function a kind, so that lists, replies to changes and single lookups all say the same. */
#include "control/api/route.h"

#include <stdio.h>

struct js *show_condition(const char *pool_name, const struct node_condition *c)
{
	struct js *o = js_object();
	if (*pool_name)
		js_set_text(o, "pool", pool_name);
	js_set_text(o, "reason", c->reason);
	js_set_text(o, "message", c->message);
	js_set_text(o, "hint", c->hint);
	js_set_time(o, "since", c->since_wall_ns);
	return o;
}

static struct js *show_pool_space(const struct pool_stats *s)
{
	struct js *o = js_object();
	js_set_u64(o, "total_bytes", s->total_bytes);
	js_set_u64(o, "data_bytes", s->data_bytes);
	js_set_u64(o, "metadata_bytes", s->metadata_bytes);
	js_set_u64(o, "journal_bytes", s->journal_bytes);
	js_set_u64(o, "free_bytes", s->free_bytes);
	js_set_u64(o, "reserve_bytes", s->reserve_bytes);
	return o;
}

static struct js *show_recovery(const struct node_pool_info *pool)
{
	struct js *o = js_object();
	js_set_u64(o, "open_us", pool->open_ns / NS_PER_US);
	js_set_u64(o, "recovery_us", pool->stats.recovery_ns / NS_PER_US);
	js_set_u64(o, "records", pool->stats.recovery_records);
	js_set_u64(o, "blocks_verified", pool->stats.recovery_blocks_verified);
	js_set_u64(o, "blocks_rejected", pool->stats.recovery_blocks_rejected);
	return o;
}

static struct js *show_damage(const struct pool_stats *s)
{
	struct js *o = js_object();
	js_set_bool(o, "is_list_damaged", s->catalog_damaged);
	js_set_u64(o, "damaged_volume_count", s->damaged_volume_count);
	js_set_u64(o, "metadata_pages_lost", s->metadata_pages_lost);
	return o;
}

static struct js *show_check(const struct pool_stats *s)
{
	struct js *o = js_object();
	js_set_u64(o, "pages_read", s->check_pages_read);
	js_set_u64(o, "pages_total", s->check_pages_total);
	return o;
}

struct js *show_pool(const struct node_pool_info *pool)
{
	struct js *o = js_object(), *conditions = js_array();
	js_set_uuid(o, "id", &pool->id);
	js_set_text(o, "name", pool->name);
	js_set_text(o, "path", pool->path);
	js_set_text(o, "state", node_pool_state_name(pool->state));
	if (pool->has_condition)
		js_push(conditions, show_condition("", &pool->condition));
	js_set(o, "conditions", conditions);
	js_set_u64(o, "opens", pool->opens);
	js_set_u64(o, "attempts", pool->attempts);
	if (!pool->has_stats)
		return o;
	js_set(o, "space", show_pool_space(&pool->stats));
	js_set(o, "recovery", show_recovery(pool));
	js_set(o, "damage", show_damage(&pool->stats));
	js_set_u64(o, "volume_count", pool->stats.volume_count);
	js_set_u64(o, "snapshot_count", pool->stats.snapshot_count);
	js_set_u64(o, "layer_count", pool->stats.layer_count);
	if (pool->stats.check_pages_total)
		js_set(o, "check", show_check(&pool->stats));
	return o;
}

/* Where a client reaches the volume: as the NBD URI scheme has it, nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME; and
 * nvme+tcp://HOST:PORT/NQN. */
static void push_uri(struct js *uris, const struct node_address *a, const char *export_name, const char *nqn)
{
	char uri[NODE_PATH_MAX + ENGINE_EXPORT_NAME_MAX + NODE_NQN_SIZE + 64];
	if (a->protocol == NODE_NVME_TCP)
		snprintf(uri, sizeof(uri), "nvme+tcp://%s/%s", strchr(a->text, ':') + 1, nqn);
	else if (strncmp(a->text, "unix:", 5) == 0)
		snprintf(uri, sizeof(uri), "nbd%s+unix:///%s?socket=%s", a->tls ? "s" : "", export_name,
			 a->text + 5);
	else
		snprintf(uri, sizeof(uri), "nbd%s://%s/%s", a->tls ? "s" : "", strchr(a->text, ':') + 1,
			 export_name);
	js_push_text(uris, uri);
}

static struct js *show_uris(struct node *n, const char *export_name, const char *nqn)
{
	const struct node_address *addresses;
	struct js *uris = js_array();
	size_t count = node_addresses(n, &addresses);
	for (size_t i = 0; i < count; i++)
		push_uri(uris, &addresses[i], export_name, nqn);
	return uris;
}

static struct js *show_copy(const struct node_copy_info *c)
{
	struct js *o = js_object();
	js_set_text(o, "pool", c->pool_name);
	js_set_uuid(o, "pool_id", &c->pool_id);
	js_set_text(o, "node", c->node_name);
	js_set_text(o, "role", c->role);
	js_set_text(o, "session", c->session);
	js_set_text(o, "last_error", c->last_err ? err_name(c->last_err) : "");
	js_set_text(o, "why", c->why);
	js_set_time(o, "lost_since", c->lost_since_wall_ns);
	js_set_u64(o, "filled_bytes", c->filled_bytes);
	js_set_u64(o, "compared_bytes", c->compared_bytes);
	js_set_u64(o, "joins_failed", c->joins_failed);
	return o;
}

static struct js *show_scrub(const struct node_scrub_info *s)
{
	struct js *o = js_object();
	js_set_bool(o, "is_running", s->is_running);
	js_set_u64(o, "runs_done", s->runs_done);
	js_set_u64(o, "done_bytes", s->done_bytes);
	js_set_u64(o, "todo_bytes", s->todo_bytes);
	js_set_u64(o, "differed_bytes", s->differed_bytes);
	js_set_u64(o, "repaired_bytes", s->repaired_bytes);
	return o;
}

static struct js *show_mirror(const struct node_mirror_info *m)
{
	struct js *o = js_object(), *copies = js_array(), *conditions = js_array();
	js_set_text(o, "home", m->home_name);
	js_set_uuid(o, "home_id", &m->home_id);
	js_set_bool(o, "is_here", m->is_here);
	js_set_text(o, "state", m->state);
	js_set_bool(o, "serves", m->serves);
	js_set_text(o, "doing", m->doing);
	js_set_u64(o, "epoch", m->epoch);
	js_set_u64(o, "intents", m->intent_count);
	js_set_u64(o, "unsettled", m->unsettled_count);
	js_set_u64(o, "held_requests", m->held_requests);
	for (uint32_t i = 0; i < m->copy_count; i++)
		js_push(copies, show_copy(&m->copies[i]));
	js_set(o, "copies", copies);
	js_set(o, "scrub", show_scrub(&m->scrub));
	if (m->has_condition)
		js_push(conditions, show_condition("", &m->condition));
	js_set(o, "conditions", conditions);
	return o;
}

struct js *show_node(const struct node_info *node)
{
	struct js *o = js_object();
	js_set_uuid(o, "id", &node->id);
	js_set_text(o, "name", node->name);
	js_set_text(o, "address", node->address);
	js_set_bool(o, "is_this", node->is_this);
	js_set_bool(o, "is_alive", node->is_alive);
	js_set_u64(o, "pool_count", node->pool_count);
	js_set_u64(o, "volume_count", node->volume_count);
	return o;
}

struct js *show_volume(struct node *n, const struct node_volume *v)
{
	struct js *o = js_object();
	char export_name[ENGINE_EXPORT_NAME_MAX + 1], nqn[NODE_NQN_SIZE];
	node_volume_nqn(&v->info.id, nqn);
	if (v->is_mirrored)
		snprintf(export_name, sizeof(export_name), "%s", v->info.name);
	else
		snprintf(export_name, sizeof(export_name), "%s/%s", v->pool_name, v->info.name);
	js_set_uuid(o, "id", &v->info.id);
	js_set_text(o, "name", v->info.name);
	js_set_text(o, "pool", v->pool_name);
	js_set_uuid(o, "pool_id", &v->pool_id);
	js_set_u64(o, "size_bytes", v->info.size_bytes);
	js_set_u64(o, "block_size_bytes", v->info.lba_bytes);
	js_set_time(o, "created", v->info.created_wall_ns);
	js_set_uuid(o, "head_id", &v->info.head_id);
	js_set_u64(o, "own_bytes", v->info.own_bytes);
	js_set_u64(o, "head_bytes", v->info.head_bytes);
	js_set_u64(o, "snapshot_count", v->info.snapshot_count);
	js_set_u64(o, "open_count", v->info.open_count);
	js_set_bool(o, "is_clone", v->info.is_clone);
	js_set_uuid(o, "origin_id", &v->info.origin_id);
	js_set_bool(o, "is_flattening", v->info.is_flattening);
	js_set_bool(o, "is_damaged", v->info.is_damaged);
	js_set_text(o, "nqn", nqn);
	bool is_elsewhere = v->is_mirrored && !v->mirror.is_here;
	js_set(o, "uris", is_elsewhere ? js_array() : show_uris(n, export_name, nqn));
	js_set(o, "mirror", v->is_mirrored ? show_mirror(&v->mirror) : js_null());
	return o;
}

struct js *show_host(const struct node_host *host)
{
	struct js *o = js_object();
	js_set_text(o, "nqn", host->nqn);
	js_set_bool(o, "has_secret", host->has_secret);
	js_set_bool(o, "has_controller_secret", host->has_controller_secret);
	js_set_bool(o, "has_tls_key", host->has_tls_key);
	return o;
}

static struct js *show_registrant(const struct node_registrant *one)
{
	struct js *o = js_object();
	char key[19];
	snprintf(key, sizeof(key), "0x%llx", (unsigned long long)one->key);
	js_set_uuid(o, "host_id", &one->host_id);
	js_set_text(o, "key", key);
	js_set_bool(o, "is_holder", one->is_holder);
	return o;
}

struct js *show_reservation(const struct node_reservation *r)
{
	struct js *o = js_object(), *registrants = js_array();
	js_set_bool(o, "is_unreadable", r->is_unreadable);
	js_set_text(o, "type", r->type);
	js_set_bool(o, "persists", r->persists);
	js_set_u64(o, "generation", r->generation);
	for (size_t i = 0; i < r->count; i++)
		js_push(registrants, show_registrant(&r->registrants[i]));
	js_set(o, "registrants", registrants);
	return o;
}

struct js *show_association(const struct nvmf_association *a)
{
	struct js *o = js_object();
	js_set_text(o, "host", a->hostnqn);
	js_set_uuid(o, "host_id", &a->host_id);
	js_set_text(o, "peer", a->peer);
	js_set_text(o, "subsystem", a->subnqn);
	js_set_text(o, "volume", a->name);
	js_set_uuid(o, "id", &a->id);
	js_set_u64(o, "controller", a->controller);
	js_set_u64(o, "io_queues", a->io_queues);
	js_set_time(o, "since", a->since_wall_ns);
	js_set_u64(o, "keep_alive_ms", a->keep_alive_ms);
	js_set_u64(o, "commands", a->commands);
	js_set_u64(o, "errors", a->errors);
	js_set_bool(o, "is_tls", a->is_tls);
	js_set_bool(o, "is_authenticated", a->is_authenticated);
	js_set_bool(o, "header_digest", a->header_digest);
	js_set_bool(o, "data_digest", a->data_digest);
	js_set_bool(o, "is_registrant", a->is_registrant);
	js_set_bool(o, "is_holder", a->is_holder);
	return o;
}

struct js *show_nvme_stats(const struct nvmf_stats *s)
{
	struct js *o = js_object();
	js_set_u64(o, "connections", s->connections);
	js_set_u64(o, "controllers", s->controllers);
	js_set_u64(o, "connections_accepted", s->connections_accepted);
	js_set_u64(o, "connections_refused", s->connections_refused);
	js_set_u64(o, "connections_dropped", s->connections_dropped);
	js_set_u64(o, "commands", s->commands);
	js_set_u64(o, "errors", s->errors);
	js_set_u64(o, "hosts_refused", s->hosts_refused);
	js_set_u64(o, "hosts_proved", s->hosts_proved);
	js_set_u64(o, "proofs_failed", s->proofs_failed);
	return o;
}

struct js *show_snapshot(const struct node_snapshot *s)
{
	struct js *o = js_object();
	char nqn[NODE_NQN_SIZE];
	node_snapshot_nqn(&s->info.id, nqn);
	js_set_uuid(o, "id", &s->info.id);
	js_set_text(o, "name", s->info.name);
	js_set_text(o, "volume", s->volume_name);
	js_set_uuid(o, "volume_id", &s->info.volume_id);
	js_set_text(o, "pool", s->pool_name);
	js_set_uuid(o, "pool_id", &s->pool_id);
	js_set_u64(o, "size_bytes", s->info.size_bytes);
	js_set_time(o, "created", s->info.created_wall_ns);
	js_set_u64(o, "own_bytes", s->info.own_bytes);
	js_set_uuid(o, "parent_id", &s->info.parent_id);
	js_set_u64(o, "child_count", s->info.child_count);
	js_set_u64(o, "open_count", s->info.open_count);
	js_set_text(o, "nqn", nqn);
	return o;
}

struct js *show_ublk(const struct ublk_info *a)
{
	struct js *o = js_object();
	char path[32];
	snprintf(path, sizeof(path), "/dev/ublkb%u", a->number);
	js_set_uuid(o, "id", &a->id);
	js_set_text(o, "volume", a->name);
	js_set_text(o, "device", a->number == UBLK_NO_NUMBER ? "" : path);
	js_set_text(o, "state", node_ublk_state_name(a));
	js_set_u64(o, "size_bytes", a->size_bytes);
	js_set_u64(o, "block_size_bytes", a->lba_bytes);
	js_set_bool(o, "read_only", a->read_only);
	js_set_text(o, "message", a->message);
	return o;
}

struct js *show_job(const struct node_job *job, const char *state)
{
	struct js *o = js_object();
	js_set_uuid(o, "id", &job->info.id);
	js_set_text(o, "kind", node_job_kind_name(job));
	js_set_text(o, "state", state);
	js_set_text(o, "subject", job->info.subject);
	js_set_text(o, "pool", job->pool_name);
	js_set_u64(o, "done_bytes", job->info.done_clusters * POOL_CLUSTER_BYTES);
	js_set_u64(o, "total_bytes", job->info.total_clusters * POOL_CLUSTER_BYTES);
	js_set_bool(o, "is_cancellable", job->info.is_cancellable);
	return o;
}

static struct js *show_op(const struct engine_stats *s, enum engine_op op)
{
	struct js *o = js_object();
	js_set_u64(o, "ops", s->ops[op]);
	js_set_u64(o, "bytes", s->bytes[op]);
	js_set_u64(o, "errors", s->errors[op]);
	js_set_u64(o, "p50_us", hist_quantile(&s->latency_ns[op], 500) / NS_PER_US);
	js_set_u64(o, "p99_us", hist_quantile(&s->latency_ns[op], 990) / NS_PER_US);
	js_set_u64(o, "p999_us", hist_quantile(&s->latency_ns[op], 999) / NS_PER_US);
	return o;
}

static bool push_engine(void *ctx, const char *name, const struct engine_stats *s)
{
	struct js *o = js_object();
	js_set_text(o, "export", name);
	js_set_u64(o, "in_flight", s->in_flight);
	js_set_u64(o, "open_count", s->open_count);
	for (int op = 0; op < ENGINE_OPS; op++)
		js_set(o, node_op_name((enum engine_op)op), show_op(s, (enum engine_op)op));
	js_push(ctx, o);
	return true;
}

struct js *show_engine_stats(struct node *n)
{
	struct js *list = js_array();
	node_exports_walk(n, push_engine, list);
	return list;
}

struct js *show_process(struct node *n)
{
	struct node_process p;
	struct js *o = js_object();
	node_process_stats(n, &p);
	js_set_u64(o, "resident_bytes", p.resident_bytes);
	js_set_u64(o, "virtual_bytes", p.virtual_bytes);
	js_set_u64(o, "cpu_ms", p.cpu_ns / NS_PER_MS);
	js_set_u64(o, "open_files", p.open_files);
	js_set_u64(o, "threads", p.threads);
	return o;
}
