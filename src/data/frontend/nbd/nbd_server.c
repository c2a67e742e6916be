/*
 * nbd_server.c: a client's life from accept to close, and the server's.
 *
 * A client is a fiber that shakes hands and then receives requests until there are no more. Closing the server cuts every
 * connection and waits for the fibers.
 */
#include "data/frontend/nbd/nbd_conn.h"

#include "base/log.h"
#include "data/frontend/nbd/nbd_tls.h"
#include "data/frontend/where.h"

#define HANDSHAKE_BYTES	 (NBD_OPTION_MAX + 1 * KiB)
#define BUDGET_MIN_BYTES (64 * MiB) /* the largest request, and as much left for others */

/* ---- a client ----------------------------------------------------------------------------------------------------------- */

int nbd_drop(struct nbd_conn *c, const char *because)
{
	if (!c->dropped_because)
		c->dropped_because = because;
	return OXE_PROTO;
}

void nbd_conn_break(struct nbd_conn *c)
{
	c->is_broken = true;
	link_shutdown(&c->link);
}

static void log_end(struct nbd_conn *c)
{
	const char *peer = rt_conn_peer(c->link.conn), *export = c->engine ? engine_name(c->engine) : "";
	if (c->dropped_because) {
		c->server->stats.connections_dropped++;
		LOG_WARN("nbd.dropped", "a client was dropped", F_STR("peer", peer), F_STR("export", export),
			 F_STR("because", c->dropped_because));
	} else if (c->engine) {
		LOG_INFO("nbd.detached", "a client left", F_STR("peer", peer), F_STR("export", export));
	}
}

static struct nbd_share *share_find(struct nbd_server *server, const struct engine *e)
{
	struct nbd_share *s;
	list_for_each (s, &server->shares, link)
		if (s->engine == e)
			return s;
	s = mem_zalloc(sizeof(*s));
	s->engine = e;
	list_add_tail(&server->shares, &s->link);
	return s;
}

void nbd_conn_attach(struct nbd_conn *c, struct engine *e)
{
	c->engine = e;
	c->share = share_find(c->server, e);
	c->share->users++;
}

static void conn_detach(struct nbd_conn *c)
{
	if (--c->share->users == 0) {
		assert(c->share->lent_bytes == 0);
		list_del(&c->share->link);
		free(c->share);
	}
	engine_close(c->engine);
}

static void conn_free(struct nbd_conn *c)
{
	struct nbd_request *r;
	while ((r = list_pop(&c->free_requests, struct nbd_request, link)))
		free(r);
	log_end(c);
	if (!c->dropped_because)
		link_bye(&c->link);
	if (c->engine)
		conn_detach(c);
	link_fini(&c->link);
	list_del(&c->link_in_server);
	listeners_left(&c->server->listeners);
	free(c);
}

static void conn_run(void *arg)
{
	struct nbd_conn *c = arg;
	struct nbd_server *server = c->server;
	if (nbd_handshake(c) == 0) {
		LOG_INFO("nbd.attached", "a client attached", F_STR("peer", rt_conn_peer(c->link.conn)),
			 F_STR("export", engine_name(c->engine)), F_U64("tls", c->link.tls != NULL));
		nbd_transmission(c);
	}
	conn_free(c);
	group_done(&server->fibers);
}

static void conn_start(struct listener *l, struct rt_conn *conn)
{
	struct nbd_server *server = l->set->server;
	struct nbd_conn *c = mem_zalloc(sizeof(*c));
	c->server = server;
	c->tls_required = server->options.tls.mode == NBD_TLS_REQUIRED && !l->is_unix;
	c->is_near = l->is_unix || where_is_near(rt_conn_local(conn), rt_conn_peer(conn));
	link_init(&c->link, server->rt, conn, HANDSHAKE_BYTES, server->options.stall_timeout_ns);
	waitq_init(&c->room);
	list_init(&c->replies);
	list_init(&c->free_requests);
	group_init(&c->requests);
	list_add_tail(&server->connections, &c->link_in_server);
	group_add(&server->fibers, 1);
	if (server->tls)
		fiber_spawn_big(server->rt, "nbd-conn", conn_run, c);
	else
		fiber_spawn(server->rt, "nbd-conn", conn_run, c);
}

/* ---- listening ------------------------------------------------------------------------------------------------------------ */

static const struct listener_ops listening = {
	.fiber_name = "nbd-listen",
	.full_event = "nbd.full",
	.start = conn_start,
};

int nbd_server_listen(struct nbd_server *server, const char *address, const char **bound)
{
	const struct listener *l;
	int err = listeners_listen(&server->listeners, address, &l);
	if (err)
		return err;
	if (bound)
		*bound = l->address;
	LOG_INFO("nbd.listening", "NBD is served", F_STR("address", l->address));
	return 0;
}

/* ---- the server ----------------------------------------------------------------------------------------------------------- */

static struct nbd_options with_defaults(const struct nbd_options *given)
{
	static const struct nbd_options none = {0};
	const struct nbd_options *o = given ? given : &none;
	return (struct nbd_options){
		.tls.mode = o->tls.mode,
		.buffer_budget_bytes = u64_max(u64_or(o->buffer_budget_bytes, 256 * MiB), BUDGET_MIN_BYTES),
		.connection_bytes_max = u64_or(o->connection_bytes_max, 64 * MiB),
		.handshake_timeout_ns = u64_or(o->handshake_timeout_ns, 60 * NS_PER_S),
		.stall_timeout_ns = u64_or(o->stall_timeout_ns, 30 * NS_PER_S),
		.connections_max = (uint32_t)u64_or(o->connections_max, 512),
		.requests_max = (uint32_t)u64_or(o->requests_max, 256),
		.options_max = (uint32_t)u64_or(o->options_max, 256),
	};
}

int nbd_server_new(struct engines *engines, const struct nbd_options *options, struct nbd_server **out)
{
	struct tls_context *tls = NULL;
	if (options && options->tls.mode != NBD_TLS_OFF) {
		int err = nbd_tls_context_new(&options->tls, &tls);
		if (err)
			return err;
	}
	struct nbd_server *server = mem_zalloc(sizeof(*server));
	server->rt = rt_current();
	server->engines = engines;
	server->options = with_defaults(options);
	server->tls = tls;
	server->payloads = rt_bufpool_new(server->rt, server->options.buffer_budget_bytes);
	waitq_init(&server->memory);
	list_init(&server->connections);
	list_init(&server->shares);
	listeners_init(&server->listeners, server->rt, &listening, server, server->options.connections_max);
	group_init(&server->fibers);
	*out = server;
	return 0;
}

static void cut_connections(struct nbd_server *server)
{
	struct nbd_conn *c;
	list_for_each (c, &server->connections, link_in_server)
		nbd_conn_break(c);
}

void nbd_server_evict(struct nbd_server *server, const char *pool_name)
{
	struct nbd_conn *c;
	list_for_each (c, &server->connections, link_in_server)
		if (c->engine && engine_is_of_pool(c->engine, pool_name))
			nbd_conn_break(c);
}

void nbd_server_evict_volume(struct nbd_server *server, const struct uuid *volume_id)
{
	struct nbd_conn *c;
	list_for_each (c, &server->connections, link_in_server)
		if (c->engine && engine_is_of_volume(c->engine, volume_id))
			nbd_conn_break(c);
}

void nbd_server_close(struct nbd_server *server)
{
	listeners_close(&server->listeners);
	cut_connections(server);
	group_wait(&server->fibers);
	listeners_fini(&server->listeners);
	rt_bufpool_free(server->payloads);
	if (server->tls)
		tls_context_free(server->tls);
	free(server);
}

void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *out)
{
	*out = server->stats;
	out->connections = server->listeners.connections;
	out->connections_accepted = server->listeners.accepted;
	out->connections_refused = server->listeners.refused;
}
