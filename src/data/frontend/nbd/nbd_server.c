/*
 * nbd_server.c: listeners, and a client's life from accept to close.
 *
 * A listener is a fiber that accepts; a client is a fiber that shakes hands and then receives requests until there are no
 * more. Closing the server cuts every connection and waits for the fibers.
 */
#include "data/frontend/nbd/nbd_conn.h"

#include "base/log.h"
#include "data/frontend/nbd/nbd_tls.h"

#define HANDSHAKE_BYTES	 (NBD_OPTION_MAX + 1 * KiB)
#define BUDGET_MIN_BYTES (64 * MiB) /* the largest request, and as much left for others */
#define ACCEPT_PAUSE_NS	 (100 * NS_PER_MS)

struct nbd_listener {
	struct list link;
	struct nbd_server *server;
	struct rt_listener *listener;
	bool tls_required;
	bool replaced; /* another listens at its address: it is in no list, and goes when its fiber ends */
};

/* ---- a client ----------------------------------------------------------------------------------------------------------- */

int nbd_drop(struct nbd_conn *c, const char *because)
{
	if (!c->dropped_because)
		c->dropped_because = because;
	return OXE_PROTO;
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

static void conn_free(struct nbd_conn *c)
{
	struct nbd_request *r;
	while ((r = list_pop(&c->free_requests, struct nbd_request, link)))
		free(r);
	log_end(c);
	if (!c->dropped_because)
		link_bye(&c->link);
	if (c->engine)
		engine_close(c->engine);
	link_fini(&c->link);
	list_del(&c->link_in_server);
	c->server->stats.connections--;
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

static void conn_start(struct nbd_listener *l, struct rt_conn *conn)
{
	struct nbd_server *server = l->server;
	struct nbd_conn *c = mem_zalloc(sizeof(*c));
	c->server = server;
	c->tls_required = l->tls_required;
	link_init(&c->link, server->rt, conn, HANDSHAKE_BYTES, server->options.stall_timeout_ns);
	waitq_init(&c->room);
	list_init(&c->replies);
	list_init(&c->free_requests);
	group_init(&c->requests);
	list_add_tail(&server->connections, &c->link_in_server);
	server->stats.connections++;
	group_add(&server->fibers, 1);
	if (server->tls)
		fiber_spawn_big(server->rt, "nbd-conn", conn_run, c);
	else
		fiber_spawn(server->rt, "nbd-conn", conn_run, c);
}

/* ---- listening ------------------------------------------------------------------------------------------------------------ */

/* Logged once each time the limit is reached, not for each of thousands. */
static void refuse_one_too_many(struct nbd_server *server, struct rt_conn *conn)
{
	server->stats.connections_refused++;
	if (!server->was_full)
		LOG_WARN("nbd.full", "connections are refused: the limit is reached",
			 F_STR("peer", rt_conn_peer(conn)), F_U64("limit", server->options.connections_max));
	server->was_full = true;
	rt_conn_close(conn);
}

static void accepted(struct nbd_listener *l, struct rt_conn *conn)
{
	struct nbd_server *server = l->server;
	server->stats.connections_accepted++;
	if (server->stats.connections >= server->options.connections_max) {
		refuse_one_too_many(server, conn);
		return;
	}
	server->was_full = false;
	conn_start(l, conn);
}

static void listener_run(void *arg)
{
	struct nbd_listener *l = arg;
	struct nbd_server *server = l->server;
	struct rt_conn *conn;
	while (!server->closing && !l->replaced) {
		int err = rt_accept(l->listener, &conn);
		if (err == 0 && !server->closing)
			accepted(l, conn);
		else if (err == 0)
			rt_conn_close(conn);
		else if (err != OXE_SHUTDOWN)
			fiber_sleep(ACCEPT_PAUSE_NS); /* out of descriptors: some will be closed */
		else
			break;
	}
	if (l->replaced)
		free(l);
	group_done(&server->fibers);
}

/* Somebody removed the socket file: nobody can reach the old listener any more. Its clients stay. */
static void listener_replace(struct nbd_server *server, const char *address)
{
	struct nbd_listener *l, *old = NULL;
	list_for_each (l, &server->listeners, link) {
		if (strcmp(rt_listener_address(l->listener), address) == 0)
			old = l;
	}
	if (!old)
		return;
	old->replaced = true;
	list_del(&old->link);
	rt_listener_close(old->listener);
}

int nbd_server_listen(struct nbd_server *server, const char *address, const char **bound)
{
	struct rt_listener *listener;
	int err = rt_listen(server->rt, address, &listener);
	if (err)
		return err;
	struct nbd_listener *l = mem_zalloc(sizeof(*l));
	l->server = server;
	l->listener = listener;
	l->tls_required = server->options.tls.mode == NBD_TLS_REQUIRED && strncmp(address, "unix:", 5) != 0;
	listener_replace(server, rt_listener_address(listener));
	list_add_tail(&server->listeners, &l->link);
	group_add(&server->fibers, 1);
	fiber_spawn(server->rt, "nbd-listen", listener_run, l);
	if (bound)
		*bound = rt_listener_address(listener);
	LOG_INFO("nbd.listening", "NBD is served", F_STR("address", rt_listener_address(listener)));
	return 0;
}

/* ---- the server ----------------------------------------------------------------------------------------------------------- */

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
	return value ? value : fallback;
}

static struct nbd_options with_defaults(const struct nbd_options *given)
{
	static const struct nbd_options none = {0};
	const struct nbd_options *o = given ? given : &none;
	return (struct nbd_options){
		.tls.mode = o->tls.mode,
		.buffer_budget_bytes =
			u64_max(or_default(o->buffer_budget_bytes, 256 * MiB), BUDGET_MIN_BYTES),
		.connection_bytes_max = or_default(o->connection_bytes_max, 64 * MiB),
		.handshake_timeout_ns = or_default(o->handshake_timeout_ns, 60 * NS_PER_S),
		.stall_timeout_ns = or_default(o->stall_timeout_ns, 30 * NS_PER_S),
		.connections_max = (uint32_t)or_default(o->connections_max, 512),
		.requests_max = (uint32_t)or_default(o->requests_max, 256),
		.options_max = (uint32_t)or_default(o->options_max, 256),
	};
}

int nbd_server_new(struct engines *engines, const struct nbd_options *options, struct nbd_server **out)
{
	struct nbd_tls_context *tls = NULL;
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
	list_init(&server->listeners);
	group_init(&server->fibers);
	*out = server;
	return 0;
}

static void cut_connections(struct nbd_server *server)
{
	struct nbd_conn *c;
	list_for_each (c, &server->connections, link_in_server)
		link_shutdown(&c->link);
}

void nbd_server_evict(struct nbd_server *server, const char *pool_name)
{
	struct nbd_conn *c;
	size_t length = strlen(pool_name);
	list_for_each (c, &server->connections, link_in_server) {
		const char *name = c->engine ? engine_name(c->engine) : "";
		if (strncmp(name, pool_name, length) == 0 && name[length] == '/')
			link_shutdown(&c->link);
	}
}

void nbd_server_close(struct nbd_server *server)
{
	struct nbd_listener *l;
	server->closing = true;
	list_for_each (l, &server->listeners, link)
		rt_listener_close(l->listener);
	cut_connections(server);
	group_wait(&server->fibers);
	while ((l = list_pop(&server->listeners, struct nbd_listener, link)))
		free(l);
	rt_bufpool_free(server->payloads);
	if (server->tls)
		nbd_tls_context_free(server->tls);
	free(server);
}

void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *out)
{
	*out = server->stats;
}
