/* listener.c: see listener.h. */
#include "data/frontend/listener.h"

#include "base/log.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

void listeners_init(struct listeners *s, struct rt *rt, const struct listener_ops *ops, void *server,
		    uint32_t connections_max)
{
	*s = (struct listeners){.rt = rt, .ops = ops, .server = server, .connections_max = connections_max};
	list_init(&s->all);
	group_init(&s->fibers);
}

/* Logged once each time the limit is reached, not for each of thousands. */
static void refuse_one_too_many(struct listeners *s, struct rt_conn *conn)
{
	s->refused++;
	if (!s->was_full)
		LOG_WARN(s->ops->full_event, "connections are refused: the limit is reached",
			 F_STR("peer", rt_conn_peer(conn)), F_U64("limit", s->connections_max));
	s->was_full = true;
	rt_conn_close(conn);
}

static void accepted(struct listener *l, struct rt_conn *conn)
{
	struct listeners *s = l->set;
	s->accepted++;
	if (s->connections >= s->connections_max) {
		refuse_one_too_many(s, conn);
		return;
	}
	s->was_full = false;
	s->connections++;
	s->ops->start(l, conn);
}

static void listener_free(struct listener *l)
{
	free(l->address);
	free(l);
}

/* A listener that was closed may be gone, and is not asked again. */
static void listener_run(void *arg)
{
	struct listener *l = arg;
	struct listeners *s = l->set;
	struct rt_conn *conn;
	while (!l->is_closed) {
		int err = rt_accept(l->listener, &conn);
		if (err == 0 && !s->is_closing)
			accepted(l, conn);
		else if (err == 0)
			rt_conn_close(conn);
		else if (err != OXE_SHUTDOWN)
			fiber_sleep(ACCEPT_PAUSE_NS); /* out of descriptors: some will be closed */
		else
			break;
	}
	if (l->is_replaced)
		listener_free(l);
	group_done(&s->fibers);
}

static void listener_close(struct listener *l)
{
	if (l->is_closed)
		return;
	l->is_closed = true;
	rt_listener_close(l->listener);
}

static void listener_replace(struct listeners *s, const char *address)
{
	struct listener *l, *old = NULL;
	list_for_each (l, &s->all, link)
		if (strcmp(l->address, address) == 0)
			old = l;
	if (!old)
		return;
	listener_close(old);
	old->is_replaced = true;
	list_del(&old->link);
}

int listeners_listen(struct listeners *s, const char *address, const struct listener **out)
{
	struct rt_listener *listener;
	int err = rt_listen(s->rt, address, &listener);
	if (err)
		return err;
	struct listener *l = mem_alloc(sizeof(*l));
	*l = (struct listener){
		.set = s,
		.listener = listener,
		.address = mem_strdup(rt_listener_address(listener)),
		.id = ++s->last_id,
		.is_unix = strncmp(address, "unix:", 5) == 0,
	};
	listener_replace(s, l->address);
	list_add_tail(&s->all, &l->link);
	group_add(&s->fibers, 1);
	fiber_spawn(s->rt, s->ops->fiber_name, listener_run, l);
	*out = l;
	return 0;
}

void listeners_left(struct listeners *s)
{
	assert(s->connections > 0);
	s->connections--;
}

void listeners_close(struct listeners *s)
{
	struct listener *l;
	s->is_closing = true;
	list_for_each (l, &s->all, link)
		listener_close(l);
}

void listeners_fini(struct listeners *s)
{
	struct listener *l;
	assert(s->is_closing);
	group_wait(&s->fibers);
	while ((l = list_pop(&s->all, struct listener, link)))
		listener_free(l);
}
