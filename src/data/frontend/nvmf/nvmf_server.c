/*
 * nvmf_server.c: a connection's life from accept to close, and the server's.
 *
 * A connection is a fiber that receives until there is no more. Closing the server cuts
 * every connection and waits for the fibers.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"

#define BUDGET_MIN_BYTES     (16 * MiB) /* a few of the largest commands, and as much left for others */
#define CONNECTION_MIN_BYTES (4 * MiB)

/* ---- a connection --------------------------------------------------------------------------------------------------------- */

int nvmf_drop(struct nvmf_conn *c, const char *because)
{
	if (!c->dropped_because)
		c->dropped_because = because;
	return OXE_PROTO;
}

void nvmf_conn_break(struct nvmf_conn *c)
{
	if (c->is_broken)
		return;
	c->is_broken = true;
	link_shutdown(&c->link); /* the receiver ends */
	nvmf_requests_give_up(c);
}

static void log_end(struct nvmf_conn *c)
{
	const struct nvmf_controller *ctrl = c->controller;
	const char *peer = rt_conn_peer(c->link.conn);
	const char *host = ctrl ? ctrl->hostnqn : "", *subsystem = ctrl ? ctrl->subnqn : "";
	if (c->dropped_because) {
		c->server->stats.connections_dropped++;
		LOG_WARN("nvmf.dropped", "a host was dropped", F_STR("peer", peer), F_STR("host", host),
			 F_STR("subsystem", subsystem), F_U64("queue", c->qid),
			 F_STR("because", c->dropped_because));
	} else if (ctrl && c->qid == NVME_ADMIN_QUEUE) {
		LOG_INFO("nvmf.left", "a host left", F_STR("peer", peer), F_STR("host", host),
			 F_STR("subsystem", subsystem), F_U64("controller", ctrl->cntlid));
	}
}

static void conn_free(struct nvmf_conn *c)
{
	for (uint32_t i = 0; i < c->slot_count; i++)
		free(c->slots[i]);
	log_end(c);
	nvmf_auth_free(c);
	if (c->controller)
		nvmf_controller_leave(c);
	link_fini(&c->link);
	free(c->tls_peer);
	list_del(&c->link_in_server);
	listeners_left(&c->server->listeners);
	free(c);
}

static void conn_run(void *arg)
{
	struct nvmf_conn *c = arg;
	struct nvmf_server *server = c->server;
	nvmf_receive(c);
	nvmf_conn_break(c);
	if (c->controller)
		nvmf_controller_part(c);
	if (c->fused_first)
		nvmf_request_free(c->fused_first);
	group_wait(&c->requests);
	conn_free(c);
	group_done(&server->fibers);
}

static struct nvmetcp_terms terms_at_first(void)
{
	return (struct nvmetcp_terms){
		.side = NVMETCP_SIDE_CONTROLLER,
		.rx_capsule_data_max = NVMF_CAPSULE_MAX,
		.rx_data_max = NVMF_DATA_MAX,
	};
}

static void conn_start(struct listener *l, struct rt_conn *conn)
{
	struct nvmf_server *server = l->set->server;
	struct nvmf_conn *c = mem_zalloc(sizeof(*c));
	c->server = server;
	c->terms = terms_at_first();
	c->tls_required = nvmf_tls_is_required(server, l);
	c->entries = 1;
	link_init(&c->link, server->rt, conn, NVMF_RECEIVE_MIN, server->options.stall_timeout_ns);
	fmutex_init(&c->memory_turn);
	list_init(&c->free_requests);
	list_init(&c->out);
	group_init(&c->requests);
	list_add_tail(&server->connections, &c->link_in_server);
	group_add(&server->fibers, 1);
	if (server->options.tls != NVMF_TLS_OFF || nvme_secret_is_set(&server->foreign_tls_key))
		fiber_spawn_big(server->rt, "nvmf-conn", conn_run, c);
	else
		fiber_spawn(server->rt, "nvmf-conn", conn_run, c);
}

/* ---- listening ------------------------------------------------------------------------------------------------------------- */

static const struct listener_ops listening = {
	.fiber_name = "nvmf-listen",
	.full_event = "nvmf.full",
	.start = conn_start,
};

int nvmf_server_listen(struct nvmf_server *server, const char *address, const char **bound)
{
	const struct listener *l;
	if (strncmp(address, "tcp:", 4) != 0)
		return OXE_INVAL;
	int err = listeners_listen(&server->listeners, address, &l);
	if (err)
		return err;
	if (bound)
		*bound = l->address;
	LOG_INFO("nvmf.listening", "NVMe over TCP is served", F_STR("address", l->address));
	nvmf_server_changed(server);
	return 0;
}

/* ---- the server --------------------------------------------------------------------------------------------------------------- */

static struct nvmf_options with_defaults(const struct nvmf_options *given)
{
	static const struct nvmf_options none = {0};
	const struct nvmf_options *o = given ? given : &none;
	struct nvmf_options filled = {
		.buffer_budget_bytes = u64_max(u64_or(o->buffer_budget_bytes, 256 * MiB), BUDGET_MIN_BYTES),
		.connection_bytes_max =
			u64_max(u64_or(o->connection_bytes_max, 32 * MiB), CONNECTION_MIN_BYTES),
		.handshake_timeout_ns = u64_or(o->handshake_timeout_ns, 30 * NS_PER_S),
		.stall_timeout_ns = u64_or(o->stall_timeout_ns, 30 * NS_PER_S),
		.connections_max = (uint32_t)u64_or(o->connections_max, 2048),
		.auth_group = o->auth_group,
		.discovers_snapshots = o->discovers_snapshots,
		.authenticated_only = o->authenticated_only,
		.tls = o->tls,
		.boot_id = o->boot_id,
		.referral_count = o->referral_count,
	};
	assert(o->referral_count <= NVMF_REFERRALS_MAX);
	memcpy(filled.referrals, o->referrals, sizeof(filled.referrals));
	return filled;
}

struct nvmf_server *nvmf_server_new(struct engines *engines, const struct nvmf_options *options)
{
	struct nvmf_server *server = mem_zalloc(sizeof(*server));
	server->rt = rt_current();
	server->engines = engines;
	server->options = with_defaults(options);
	nvmf_foreign_init(server, options ? options->foreign : NULL);
	server->payloads = rt_bufpool_new(server->rt, server->options.buffer_budget_bytes);
	server->last_cntlid = (uint16_t)rt_random_u64(server->rt);
	waitq_init(&server->memory);
	waitq_init(&server->departures);
	list_init(&server->connections);
	listeners_init(&server->listeners, server->rt, &listening, server, server->options.connections_max);
	list_init(&server->subsystems);
	list_init(&server->controllers);
	group_init(&server->fibers);
	return server;
}

static void tell_size(struct nvmf_controller *ctrl)
{
	uint64_t size_bytes = engine_info(ctrl->engine)->size_bytes;
	if (size_bytes == ctrl->size_told)
		return;
	ctrl->size_told = size_bytes;
	ctrl->namespace_changed = true;
	nvmf_event_raise(ctrl, NVMF_EVENT_NAMESPACE);
}

static void tell_volumes(struct nvmf_controller *ctrl)
{
	if (nvmf_discovery_hash(ctrl->server) != ctrl->server->discovery_hash)
		nvmf_event_raise(ctrl, NVMF_EVENT_DISCOVERY);
}

/* Volumes are walked only if there is somebody who wants to know: they may be many, and made one after another. */
void nvmf_server_changed(struct nvmf_server *server)
{
	struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server) {
		if (nvmf_is_volume(ctrl))
			tell_size(ctrl);
		else if (nvmf_is_discovery(ctrl) && ctrl->events_wanted)
			tell_volumes(ctrl);
	}
}

void nvmf_server_evict(struct nvmf_server *server, const char *pool_name)
{
	struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server)
		if (ctrl->engine && engine_is_of_pool(ctrl->engine, pool_name))
			nvmf_controller_end(ctrl, "its pool is to be closed");
}

void nvmf_server_evict_volume(struct nvmf_server *server, const struct uuid *volume_id)
{
	struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server)
		if (ctrl->engine && engine_is_of_volume(ctrl->engine, volume_id))
			nvmf_controller_end(ctrl, "its volume is not served here any more");
}

void nvmf_server_close(struct nvmf_server *server)
{
	struct nvmf_conn *c;
	listeners_close(&server->listeners);
	list_for_each (c, &server->connections, link_in_server)
		nvmf_conn_break(c);
	group_wait(&server->fibers);
	listeners_fini(&server->listeners);
	rt_bufpool_free(server->payloads);
	explicit_bzero(server, sizeof(*server));
	free(server);
}

void nvmf_volume_nqn(const struct uuid *volume_id, char nqn[NVMF_NQN_SIZE])
{
	static_assert(NVMF_NQN_SIZE == NVME_NQN_FIELD, "a name's field");
	nvme_nqn_of_volume(volume_id, nqn);
}

void nvmf_snapshot_nqn(const struct uuid *snapshot_id, char nqn[NVMF_NQN_SIZE])
{
	nvme_nqn_of_snapshot(snapshot_id, nqn);
}
