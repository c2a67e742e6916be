/*
 * routes.c: the table of routes and their functions. A function takes decoded arguments (route.h), asks the node, and shows
 * what came of it; it holds no policy of its own.
 */
#include "control/api/route.h"

/* Lists are {"KEY": [...]}, so that paging can be added beside them. */
static void result_list(struct call *c, const char *key, struct js *list)
{
	c->result = js_object();
	js_set(c->result, key, list);
}

static void result_created(struct call *c, bool created, struct js *value)
{
	c->status = created ? 201 : 200;
	c->result = value;
}

static int result_none(struct call *c, int err)
{
	c->status = 204;
	return err;
}

/* ---- the daemon ------------------------------------------------------------------------------------------------------ */

static int version_get(struct call *c)
{
	c->result = js_object();
	js_set_text(c->result, "version", OXBOW_VERSION);
	js_set_text(c->result, "api", "v1");
	return 0;
}

/* That it answers at all is the news: the reactor runs. */
static int health_get(struct call *c)
{
	c->result = js_object();
	js_set_text(c->result, "status", "ok");
	return 0;
}

static void push_reason(void *ctx, const char *pool_name, const struct node_condition *condition)
{
	js_push(ctx, show_condition(pool_name, condition));
}

static int ready_get(struct call *c)
{
	struct js *reasons = js_array();
	bool ready = node_ready_wait(c->api->node, arg_deadline_ns(c));
	node_reasons_walk(c->api->node, push_reason, reasons);
	c->status = ready ? 200 : 503;
	c->result = js_object();
	js_set_bool(c->result, "ready", ready);
	js_set(c->result, "reasons", reasons);
	return 0;
}

static int stats_get(struct call *c)
{
	struct js *process = show_process(c->api->node);
	uint64_t up_ns = rt_now_ns(node_rt(c->api->node)) - c->api->started_ns;
	c->result = js_object();
	js_set_time(c->result, "started", c->api->started_wall_ns);
	js_set_u64(c->result, "uptime_ms", up_ns / NS_PER_MS);
	js_set(c->result, "process", process);
	js_set(c->result, "exports", show_engine_stats(c->api->node));
	return 0;
}

static int metrics_get(struct call *c)
{
	c->content_type = "text/plain; version=0.0.4; charset=utf-8";
	metrics_print(c->api, &c->text);
	return 0;
}

struct events_print {
	struct text *text;
	uint64_t last_id;
};

static void event_print(void *ctx, const struct event *event)
{
	struct events_print *p = ctx;
	char time[JS_TIME_MAX];
	text_printf(p->text, "%s{\"id\":%llu,\"time\":\"%s\",%s}",
		    p->text->data[p->text->len_bytes - 1] == '[' ? "" : ",", (unsigned long long)event->id,
		    js_time_format(event->wall_ns, time), event->json);
	p->last_id = event->id;
}

/* Events are kept as JSON text, so the list is put together as text. An `after` from the future (the clock was set back over
 * a restart) means all. */
static int events_get(struct call *c)
{
	struct events *ring = c->api->events;
	uint64_t after = arg_number(c, "after", 0);
	if (after > events_last_id(ring))
		after = 0;
	if (arg_number(c, "wait", 0))
		events_wait(ring, after, arg_deadline_ns(c));
	struct events_print p = {&c->text, after};
	c->content_type = "application/json";
	text_add(&c->text, "{\"events\":[");
	events_walk(ring, after, (uint32_t)arg_number(c, "limit", 1000), event_print, &p);
	text_printf(&c->text, "],\"next\":%llu}", (unsigned long long)p.last_id);
	return 0;
}

/* ---- pools ----------------------------------------------------------------------------------------------------------- */

static bool push_pool(void *ctx, const struct node_pool_info *pool)
{
	js_push(ctx, show_pool(pool));
	return true;
}

static int pools_list(struct call *c)
{
	struct js *list = js_array();
	node_pool_walk(c->api->node, push_pool, list);
	result_list(c, "pools", list);
	return 0;
}

static int pools_create(struct call *c)
{
	struct node_pool_spec spec = {.size_bytes = arg_number(c, "size_bytes", 0)};
	struct node_pool_info pool;
	bool created;
	if (arg_is_set(c, "id"))
		spec.id = arg(c, "id")->uuid;
	memcpy(spec.name, arg_text(c, "name"), sizeof(spec.name));
	memcpy(spec.path, arg_text(c, "path"), sizeof(spec.path));
	memcpy(spec.force, arg_text(c, "force"), sizeof(spec.force));
	int err = node_pool_create(c->api->node, &spec, &created, &pool, &c->why);
	if (!err)
		result_created(c, created, show_pool(&pool));
	return err;
}

static int pools_import(struct call *c)
{
	struct node_pool_info pool;
	bool created;
	int err = node_pool_import(c->api->node, arg_text(c, "path"), &created, &pool, &c->why);
	if (!err)
		result_created(c, created, show_pool(&pool));
	return err;
}

static int pool_show(struct call *c)
{
	struct node_pool_info pool;
	int err = node_pool_get(c->api->node, param(c, 0), &pool, &c->why);
	if (!err)
		c->result = show_pool(&pool);
	return err;
}

static int pool_export_post(struct call *c)
{
	return result_none(c, node_pool_export(c->api->node, param(c, 0), &c->why));
}

static int pool_grow_post(struct call *c)
{
	struct node_pool_info pool;
	uint64_t size_bytes = arg_number(c, "size_bytes", 0);
	int err = node_pool_grow(c->api->node, param(c, 0), size_bytes, &pool, &c->why);
	if (!err)
		c->result = show_pool(&pool);
	return err;
}

#define PROBLEMS_SHOWN_MAX 1000

static void push_problem(void *ctx, const struct pool_problem *problem)
{
	static const char *const kinds[] = {"page", "owned_twice", "leaked", "unmarked", "chain", "count"};
	if (js_length(ctx) == PROBLEMS_SHOWN_MAX)
		return;
	struct js *o = js_object();
	js_set_text(o, "kind", kinds[problem->kind]);
	js_set_text(o, "text", problem->text);
	js_push(ctx, o);
}

static int pool_check_post(struct call *c)
{
	struct pool_check_result r;
	struct js *problems = js_array();
	int err = node_pool_check(c->api->node, param(c, 0), push_problem, problems, &r, &c->why);
	if (err) {
		js_free(problems);
		return err;
	}
	c->result = js_object();
	js_set_u64(c->result, "problem_count", r.problem_count);
	js_set_u64(c->result, "pages_read", r.pages_read);
	js_set_u64(c->result, "clusters_reachable", r.clusters_reachable);
	js_set_u64(c->result, "layers", r.layers);
	js_set(c->result, "problems", problems);
	return 0;
}

/* ---- volumes --------------------------------------------------------------------------------------------------------- */

struct volume_list {
	struct node *node;
	struct js *list;
};

static bool push_volume(void *ctx, const struct node_volume *v)
{
	struct volume_list *l = ctx;
	js_push(l->list, show_volume(l->node, v));
	return true;
}

static int volumes_list(struct call *c)
{
	struct volume_list l = {c->api->node, js_array()};
	int err = node_volume_walk(c->api->node, arg_text(c, "pool"), push_volume, &l, &c->why);
	result_list(c, "volumes", l.list);
	return err;
}

static struct volume_spec volume_spec_of(struct call *c)
{
	struct volume_spec spec = {.id = arg_uuid_or_new(c, "id"),
				   .size_bytes = arg_number(c, "size_bytes", 0)};
	memcpy(spec.name, arg_text(c, "name"), sizeof(spec.name));
	return spec;
}

static int volumes_create(struct call *c)
{
	struct volume_spec spec = volume_spec_of(c);
	struct node_volume v;
	bool created;
	spec.lba_bytes = (uint32_t)arg_number(c, "block_size_bytes", 512);
	if (arg_is_set(c, "copies") && arg_is_set(c, "pool")) {
		c->why = (struct node_why){"a volume lies in one pool, or has copies in several: not both",
					   "leave \"pool\" out"};
		return OXE_INVAL;
	}
	int err = arg_is_set(c, "copies") ? node_volume_create_mirrored(c->api->node, arg_text(c, "copies"),
									&spec, &created, &v, &c->why)
					  : node_volume_create(c->api->node, arg_text(c, "pool"), &spec,
							       &created, &v, &c->why);
	if (!err)
		result_created(c, created, show_volume(c->api->node, &v));
	return err;
}

static int snapshot_clone(struct call *c)
{
	struct volume_spec spec = volume_spec_of(c);
	struct node_volume v;
	bool created;
	int err = node_volume_clone(c->api->node, param(c, 0), &spec, arg_bool(c, "full_copy"), &created, &v,
				    &c->why);
	if (!err)
		result_created(c, created, show_volume(c->api->node, &v));
	return err;
}

static int volume_result(struct call *c, int err, const struct node_volume *v)
{
	if (!err)
		c->result = show_volume(c->api->node, v);
	return err;
}

static int volume_show(struct call *c)
{
	struct node_volume v;
	int err = node_volume_get(c->api->node, param(c, 0), &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_patch(struct call *c)
{
	struct node_volume v;
	int err = node_volume_change(c->api->node, param(c, 0), arg_text_or_null(c, "name"),
				     arg_number(c, "size_bytes", 0), &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_delete_call(struct call *c)
{
	return result_none(c, node_volume_delete(c->api->node, param(c, 0), &c->why));
}

static int volume_flatten_post(struct call *c)
{
	struct node_volume v;
	int err = node_volume_flatten(c->api->node, param(c, 0), true, &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_flatten_delete(struct call *c)
{
	struct node_volume v;
	int err = node_volume_flatten(c->api->node, param(c, 0), false, &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_revert_post(struct call *c)
{
	struct node_volume v;
	struct uuid head_id = arg_uuid_or_new(c, "head_id");
	int err =
		node_volume_revert(c->api->node, param(c, 0), arg_text(c, "snapshot"), &head_id, &v, &c->why);
	return volume_result(c, err, &v);
}

/* ---- copies and homes ---- */

static int volume_copy_put(struct call *c)
{
	struct node_volume v;
	int err = node_copy_add(c->api->node, param(c, 0), param(c, 1), &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_copy_delete(struct call *c)
{
	struct node_volume v;
	int err = node_copy_forget(c->api->node, param(c, 0), param(c, 1), &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_scrub_post(struct call *c)
{
	struct node_volume v;
	int err = node_volume_scrub(c->api->node, param(c, 0), true, arg_number(c, "bytes_per_s", 0), &v,
				    &c->why);
	return volume_result(c, err, &v);
}

static int volume_scrub_delete(struct call *c)
{
	struct node_volume v;
	int err = node_volume_scrub(c->api->node, param(c, 0), false, 0, &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_move_post(struct call *c)
{
	struct node_volume v;
	int err = node_volume_move(c->api->node, param(c, 0), arg_text(c, "node"), &v, &c->why);
	return volume_result(c, err, &v);
}

static int volume_salvage_post(struct call *c)
{
	struct node_volume v;
	int err = node_volume_salvage(c->api->node, param(c, 0), arg_text(c, "pool"),
				      arg_bool(c, "accept_loss"), &v, &c->why);
	return volume_result(c, err, &v);
}

static bool push_node(void *ctx, const struct node_info *i)
{
	js_push(ctx, show_node(i));
	return true;
}

static int nodes_list(struct call *c)
{
	struct js *list = js_array();
	node_walk(c->api->node, push_node, list);
	result_list(c, "nodes", list);
	return 0;
}

/* ---- who may connect ---- */

static void push_host(void *ctx, const struct node_host *host)
{
	js_push(ctx, show_host(host));
}

static int volume_hosts_list(struct call *c)
{
	struct js *list = js_array();
	int err = node_volume_hosts(c->api->node, param(c, 0), push_host, list, &c->why);
	result_list(c, "hosts", list);
	return err;
}

static int volume_host_put(struct call *c)
{
	struct node_host host;
	bool created;
	const struct node_host_secrets secrets = {.secret = arg_text(c, "secret"),
						  .controller_secret = arg_text(c, "controller_secret"),
						  .tls_key = arg_text(c, "tls_key")};
	int err =
		node_volume_allow(c->api->node, param(c, 0), param(c, 1), &secrets, &created, &host, &c->why);
	if (!err)
		result_created(c, created, show_host(&host));
	return err;
}

static int volume_host_delete(struct call *c)
{
	return result_none(c, node_volume_disallow(c->api->node, param(c, 0), param(c, 1),
						   arg_bool(c, "to_anyone"), &c->why));
}

static int volume_hosts_delete(struct call *c)
{
	return result_none(
		c, node_volume_disallow_all(c->api->node, param(c, 0), arg_bool(c, "to_anyone"), &c->why));
}

/* ---- who is connected, and who has reserved ---- */

static bool push_association(void *ctx, const struct nvmf_association *a)
{
	js_push(ctx, show_association(a));
	return true;
}

static int nvme_get(struct call *c)
{
	struct nvmf_stats stats = {0};
	struct uuid id;
	bool is_one = arg_is_set(c, "volume"), is_served = node_nvme_stats(c->api->node, &stats);
	int err = is_one ? node_export_id(c->api->node, arg_text(c, "volume"), &id, &c->why) : 0;
	if (err)
		return err;
	struct js *list = js_array();
	node_nvme_walk(c->api->node, is_one ? &id : NULL, push_association, list);
	result_list(c, "associations", list);
	js_set_bool(c->result, "is_served", is_served);
	js_set(c->result, "stats", show_nvme_stats(&stats));
	return 0;
}

static int volume_reservation_get(struct call *c)
{
	struct node_reservation r;
	int err = node_volume_reservation(c->api->node, param(c, 0), &r, &c->why);
	if (!err)
		c->result = show_reservation(&r);
	return err;
}

static int volume_reservation_delete(struct call *c)
{
	return result_none(c, node_volume_unreserve(c->api->node, param(c, 0), &c->why));
}

static struct js *show_extent(const struct vol_extent *e, bool with_changed)
{
	struct js *o = js_object();
	js_set_u64(o, "offset_bytes", e->offset_bytes);
	js_set_u64(o, "length_bytes", e->len_bytes);
	js_set_bool(o, "hole", e->flags & VOL_EXTENT_HOLE);
	js_set_bool(o, "zero", e->flags & VOL_EXTENT_ZERO);
	if (with_changed)
		js_set_bool(o, "changed", e->flags & VOL_EXTENT_CHANGED);
	return o;
}

/* `next_offset_bytes` is where the next page begins: null at the end of the range asked for. */
static int extents_get(struct call *c)
{
	uint64_t offset = arg_number(c, "offset_bytes", 0),
		 length = arg_number(c, "length_bytes", UINT64_MAX);
	size_t limit = arg_number(c, "limit", 1000), count;
	uint64_t end = 0, range_end;
	struct vol_extent *extents = mem_zalloc(limit * sizeof(*extents));
	int err = node_extents(c->api->node, param(c, 0), arg_text(c, "since"), offset, length, extents,
			       limit, &count, &end, &c->why);
	if (!err) {
		struct js *list = js_array();
		for (size_t i = 0; i < count; i++)
			js_push(list, show_extent(&extents[i], arg_is_set(c, "since")));
		bool more =
			count == limit && (!u64_add_checked(offset, length, &range_end) || end < range_end);
		result_list(c, "extents", list);
		js_set(c->result, "next_offset_bytes", js_null());
		if (more)
			js_set_u64(c->result, "next_offset_bytes", end);
	}
	free(extents);
	return err;
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------- */

static bool push_snapshot(void *ctx, const struct node_snapshot *s)
{
	js_push(ctx, show_snapshot(s));
	return true;
}

static int snapshots_list_of(struct call *c, const char *volume_ref)
{
	struct js *list = js_array();
	int err = node_snapshot_walk(c->api->node, volume_ref, push_snapshot, list, &c->why);
	result_list(c, "snapshots", list);
	return err;
}

static int snapshots_list(struct call *c)
{
	return snapshots_list_of(c, "");
}

static int volume_snapshots_list(struct call *c)
{
	return snapshots_list_of(c, param(c, 0));
}

static int volume_snapshots_create(struct call *c)
{
	struct node_snapshot s;
	struct uuid id = arg_uuid_or_new(c, "id");
	uint64_t pause_ns;
	bool created;
	int err = node_snapshot_create(c->api->node, param(c, 0), &id, arg_text(c, "name"), &created,
				       &pause_ns, &s, &c->why);
	if (err)
		return err;
	result_created(c, created, show_snapshot(&s));
	js_set_u64(c->result, "pause_us", pause_ns / NS_PER_US);
	return 0;
}

static int snapshot_result(struct call *c, int err, const struct node_snapshot *s)
{
	if (!err)
		c->result = show_snapshot(s);
	return err;
}

static int snapshot_show(struct call *c)
{
	struct node_snapshot s;
	int err = node_snapshot_get(c->api->node, param(c, 0), &s, &c->why);
	return snapshot_result(c, err, &s);
}

static int snapshot_patch(struct call *c)
{
	struct node_snapshot s;
	int err = node_snapshot_rename(c->api->node, param(c, 0), arg_text(c, "name"), &s, &c->why);
	return snapshot_result(c, err, &s);
}

static int snapshot_delete_call(struct call *c)
{
	return result_none(c, node_snapshot_delete(c->api->node, param(c, 0), &c->why));
}

static int snapshot_usage_get(struct call *c)
{
	struct node_snapshot s;
	struct snapshot_usage usage;
	int err = node_snapshot_usage(c->api->node, param(c, 0), &s, &usage, &c->why);
	if (err)
		return err;
	c->result = js_object();
	js_set_uuid(c->result, "id", &s.info.id);
	js_set_text(c->result, "name", s.info.name);
	js_set_text(c->result, "volume", s.volume_name);
	js_set_text(c->result, "pool", s.pool_name);
	js_set_u64(c->result, "referenced_bytes", usage.referenced_bytes);
	js_set_u64(c->result, "exclusive_bytes", usage.exclusive_bytes);
	js_set_u64(c->result, "shared_bytes", usage.shared_bytes);
	return 0;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------------ */

#define JOB_POLL_NS (50 * NS_PER_MS)

static bool push_job(void *ctx, const struct node_job *job)
{
	js_push(ctx, show_job(job, "running"));
	return true;
}

static int jobs_list(struct call *c)
{
	struct js *list = js_array();
	node_job_walk(c->api->node, push_job, list);
	result_list(c, "jobs", list);
	js_set_u64(c->result, "rate_bytes_per_s", node_job_rate(c->api->node));
	return 0;
}

static int job_id(struct call *c, struct uuid *id)
{
	if (uuid_parse(param(c, 0), id) == 0)
		return 0;
	struct node_why why = {"a job is named by its uuid", "'oxbow job list' shows them"};
	c->why = why;
	return OXE_INVAL;
}

/* How it ended. Only flattening can be cancelled, and what was flattened to the end has no origin any more. */
static const char *job_end(struct node *n, const struct node_job *job)
{
	struct node_volume v;
	struct node_why gone;
	char text[UUID_TEXT_LEN + 1];
	bool is_flatten = job->info.kind == POOL_JOB_FLATTEN;
	if (is_flatten && node_volume_get(n, uuid_format(&job->info.id, text), &v, &gone) == 0 &&
	    v.info.is_clone)
		return "cancelled";
	return "done";
}

/* With `wait`: until it has ended, or time is up. A job is derived from what is on disk, so one that has ended is nowhere any
 * more; only who saw it running is told how it ended. */
static int job_show(struct call *c)
{
	struct node *n = c->api->node;
	struct node_job job, now;
	struct node_why gone;
	struct uuid id;
	uint64_t deadline_ns = arg_deadline_ns(c);
	int err = job_id(c, &id);
	if (!err)
		err = node_job_get(n, &id, &job, &c->why);
	if (err)
		return err;
	bool running = true;
	while (rt_now_ns(node_rt(n)) < deadline_ns && running) {
		fiber_sleep(JOB_POLL_NS);
		running = node_job_get(n, &id, &now, &gone) == 0;
		job = running ? now : job;
	}
	const char *state = running ? "running" : job_end(n, &job);
	if (strcmp(state, "done") == 0)
		job.info.done_clusters = job.info.total_clusters;
	c->result = show_job(&job, state);
	return 0;
}

static int job_delete(struct call *c)
{
	struct uuid id;
	int err = job_id(c, &id);
	if (!err)
		err = node_job_cancel(c->api->node, &id, &c->why);
	return result_none(c, err);
}

static int jobs_rate_put(struct call *c)
{
	int err = node_job_rate_set(c->api->node, arg_number(c, "bytes_per_s", 0), &c->why);
	if (err)
		return err;
	c->result = js_object();
	js_set_u64(c->result, "bytes_per_s", node_job_rate(c->api->node));
	return 0;
}

/* ---- block devices --------------------------------------------------------------------------------------------------- */

static bool push_ublk(void *ctx, const struct ublk_info *a)
{
	js_push(ctx, show_ublk(a));
	return true;
}

static int ublk_list(struct call *c)
{
	struct js *list = js_array();
	node_ublk_walk(c->api->node, push_ublk, list);
	result_list(c, "devices", list);
	return 0;
}

static int ublk_attach(struct call *c)
{
	struct ublk_info a;
	bool created;
	int err = node_ublk_attach(c->api->node, arg_text(c, "volume"), &created, &a, &c->why);
	if (!err)
		result_created(c, created, show_ublk(&a));
	return err;
}

static int ublk_show(struct call *c)
{
	struct ublk_info a;
	int err = node_ublk_get(c->api->node, param(c, 0), &a, &c->why);
	if (!err)
		c->result = show_ublk(&a);
	return err;
}

static int ublk_detach(struct call *c)
{
	return result_none(c, node_ublk_detach(c->api->node, param(c, 0), arg_bool(c, "force"), &c->why));
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

#define WAIT                                                                                                 \
	{                                                                                                    \
		"wait", FIELD_WAIT, false                                                                    \
	}
#define ID                                                                                                   \
	{                                                                                                    \
		"id", FIELD_UUID, false                                                                      \
	}
#define NAME                                                                                                 \
	{                                                                                                    \
		"name", FIELD_NAME, true                                                                     \
	}
#define SIZE                                                                                                 \
	{                                                                                                    \
		"size_bytes", FIELD_BYTES, false                                                             \
	}

/* clang-format off */
const struct route api_routes[] = {
	{"GET",    "/v1/version", version_get, .statuses = "200"},
	{"GET",    "/v1/health", health_get, .statuses = "200"},
	{"GET",    "/v1/ready", ready_get, .query = {WAIT}, .statuses = "200 503"},
	{"GET",    "/v1/stats", stats_get, .statuses = "200"},
	{"GET",    "/metrics", metrics_get, .statuses = "200"},
	{"GET",    "/v1/events", events_get,
	 .query = {{"after", FIELD_BYTES, false}, {"limit", FIELD_COUNT, false}, WAIT}, .statuses = "200"},

	{"GET",    "/v1/pools", pools_list, .statuses = "200"},
	{"POST",   "/v1/pools", pools_create,
	 .body = {NAME, {"path", FIELD_PATH, true}, ID, SIZE, {"force", FIELD_PATH, false}},
	 .statuses = "200 201 403 404 409 507"},
	{"POST",   "/v1/pools/import", pools_import, .body = {{"path", FIELD_PATH, true}},
	 .statuses = "200 201 403 404 409 507"},
	{"GET",    "/v1/pools/{pool}", pool_show, .statuses = "200 404"},
	{"POST",   "/v1/pools/{pool}/export", pool_export_post, .statuses = "204 404 409 507"},
	{"POST",   "/v1/pools/{pool}/grow", pool_grow_post, .body = {SIZE}, .statuses = "200 404 507"},
	{"POST",   "/v1/pools/{pool}/check", pool_check_post, .statuses = "200 404"},

	{"GET",    "/v1/volumes", volumes_list, .query = {{"pool", FIELD_REF, false}}, .statuses = "200 404"},
	{"POST",   "/v1/volumes", volumes_create,
	 .body = {NAME, {"size_bytes", FIELD_BYTES, true}, ID, {"pool", FIELD_REF, false},
		  {"block_size_bytes", FIELD_BLOCK_SIZE, false}, {"copies", FIELD_REF, false}},
	 .statuses = "200 201 404 409 507"},
	{"GET",    "/v1/volumes/{volume}", volume_show, .statuses = "200 404"},
	{"PATCH",  "/v1/volumes/{volume}", volume_patch, .body = {{"name", FIELD_NAME, false}, SIZE},
	 .statuses = "200 404 409"},
	{"DELETE", "/v1/volumes/{volume}", volume_delete_call, .statuses = "204 404 409"},
	{"POST",   "/v1/volumes/{volume}/flatten", volume_flatten_post, .statuses = "200 404"},
	{"DELETE", "/v1/volumes/{volume}/flatten", volume_flatten_delete, .statuses = "200 404"},
	{"POST",   "/v1/volumes/{volume}/revert", volume_revert_post,
	 .body = {{"snapshot", FIELD_REF, true}, {"head_id", FIELD_UUID, false}},
	 .statuses = "200 404 409"},
	{"GET",    "/v1/volumes/{volume}/extents", extents_get,
	 .query = {{"since", FIELD_REF, false}, {"offset_bytes", FIELD_BYTES, false},
		   {"length_bytes", FIELD_BYTES, false}, {"limit", FIELD_COUNT, false}},
	 .statuses = "200 404"},
	{"PUT",    "/v1/volumes/{volume}/copies/{pool}", volume_copy_put, .statuses = "200 404 409"},
	{"DELETE", "/v1/volumes/{volume}/copies/{pool}", volume_copy_delete, .statuses = "200 404 409"},
	{"POST",   "/v1/volumes/{volume}/scrub", volume_scrub_post, .body = {{"bytes_per_s", FIELD_BYTES, false}},
	 .statuses = "200 404"},
	{"DELETE", "/v1/volumes/{volume}/scrub", volume_scrub_delete, .statuses = "200 404"},
	{"POST",   "/v1/volumes/{volume}/salvage", volume_salvage_post,
	 .body = {{"pool", FIELD_REF, true}, {"accept_loss", FIELD_BOOL, false}}, .statuses = "200 404 409"},
	{"POST",   "/v1/volumes/{volume}/move", volume_move_post, .body = {{"node", FIELD_REF, true}},
	 .statuses = "200 404 409"},
	{"GET",    "/v1/volumes/{volume}/hosts", volume_hosts_list, .statuses = "200 404"},
	{"DELETE", "/v1/volumes/{volume}/hosts", volume_hosts_delete,
	 .query = {{"to_anyone", FIELD_BOOL, false}}, .statuses = "204 404 409"},
	{"PUT",    "/v1/volumes/{volume}/hosts/{host}", volume_host_put,
	 .body = {{"secret", FIELD_REF, false}, {"controller_secret", FIELD_REF, false}, {"tls_key", FIELD_REF, false}},
	 .statuses = "200 201 404 507"},
	{"DELETE", "/v1/volumes/{volume}/hosts/{host}", volume_host_delete,
	 .query = {{"to_anyone", FIELD_BOOL, false}}, .statuses = "204 404 409"},
	{"GET",    "/v1/volumes/{volume}/reservation", volume_reservation_get, .statuses = "200 404"},
	{"DELETE", "/v1/volumes/{volume}/reservation", volume_reservation_delete, .statuses = "204 404"},
	{"GET",    "/v1/volumes/{volume}/snapshots", volume_snapshots_list, .statuses = "200 404"},
	{"POST",   "/v1/volumes/{volume}/snapshots", volume_snapshots_create, .body = {NAME, ID},
	 .statuses = "200 201 404 409 507"},

	{"GET",    "/v1/snapshots", snapshots_list, .statuses = "200"},
	{"GET",    "/v1/snapshots/{snapshot}", snapshot_show, .statuses = "200 404"},
	{"PATCH",  "/v1/snapshots/{snapshot}", snapshot_patch, .body = {NAME}, .statuses = "200 404 409"},
	{"DELETE", "/v1/snapshots/{snapshot}", snapshot_delete_call, .statuses = "204 404 409"},
	{"GET",    "/v1/snapshots/{snapshot}/usage", snapshot_usage_get, .statuses = "200 404"},
	{"POST",   "/v1/snapshots/{snapshot}/clone", snapshot_clone,
	 .body = {NAME, ID, SIZE, {"full_copy", FIELD_BOOL, false}}, .statuses = "200 201 404 409 507"},

	{"GET",    "/v1/ublk", ublk_list, .statuses = "200"},
	{"POST",   "/v1/ublk", ublk_attach, .body = {{"volume", FIELD_REF, true}},
	 .statuses = "200 201 403 404 409 507"},
	{"GET",    "/v1/ublk/{volume}", ublk_show, .statuses = "200 404"},
	{"POST",   "/v1/ublk/{volume}/detach", ublk_detach, .body = {{"force", FIELD_BOOL, false}},
	 .statuses = "204 404 409 507"},

	{"GET",    "/v1/nvme", nvme_get, .query = {{"volume", FIELD_REF, false}}, .statuses = "200 404"},

	{"GET",    "/v1/nodes", nodes_list, .statuses = "200"},

	{"GET",    "/v1/jobs", jobs_list, .statuses = "200"},
	{"PUT",    "/v1/jobs/rate", jobs_rate_put, .body = {{"bytes_per_s", FIELD_BYTES, true}},
	 .statuses = "200 507"},
	{"GET",    "/v1/jobs/{job}", job_show, .query = {WAIT}, .statuses = "200 404"},
	{"DELETE", "/v1/jobs/{job}", job_delete, .statuses = "204 404 409"},
};
/* clang-format on */

const size_t api_route_count = ARRAY_COUNT(api_routes);
