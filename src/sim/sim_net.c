/*
 * sim_net.c: TCP and unix sockets between simulated machines, as an application sees them.
 *
 * A wire joins two ends. Each direction is a queue of segments in order; the first is delivered when its time has come and
 * the way is open, and is tried again later when it is not, as TCP retransmits; after GIVE_UP_TRIES the sender's end is reset.
 * A killed process resets its peers, because its kernel lives; a machine without power says nothing, and answers with a
 * reset only when it is back and is sent something it does not know. The wire lives until both ends are closed and no
 * segment is under way.
 */
#include "sim/sim_private.h"

#include <stdio.h>

#define SEGMENT_MAX_BYTES 16384u
#define GIVE_UP_TRIES	  50u
#define BACKLOG		  128u

enum segment_kind { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RESET };

struct segment {
	struct list link;
	enum segment_kind kind;
	uint64_t when_ns;
	uint32_t tries;
	size_t len_bytes;
	uint8_t data[];
};

struct wire;

struct end {
	struct rt_conn base;
	struct list link;  /* on sim->net_ends while open */
	struct list queue; /* on its port until accepted */
	struct sim_node *node;
	struct wire *wire;
	struct list sending; /* segments on their way to the other end */
	bool pump_armed;
	uint64_t last_when_ns;	  /* of the last segment: order is kept */
	size_t outstanding_bytes; /* sent, not yet received by the peer's process */
	uint8_t *inbox;
	size_t inbox_len, inbox_at, inbox_capacity;
	bool open, shut, peer_finished, reset;
	struct waitq receiver, sender;
	char peer_text[64], local_text[80];
};

struct wire {
	struct sim *sim;
	struct end ends[2];
	uint32_t refs; /* open ends and armed pumps */
};

/* As in host_net.c: it goes when it was closed and an rt_accept() has said OXE_SHUTDOWN, so that an acceptor that was busy elsewhere may
 * still ask; if none ever asked, at the close; if one stopped asking, with the sim. */
struct port {
	struct rt_listener base;
	struct list link, pending; /* ends to accept */
	struct sim_node *node;
	bool is_unix, any_host, loopback, closed, asked;
	uint32_t number, pending_count, inside;
	char path[108], text[160];
	struct waitq acceptors;
};

void net_init(struct sim *sim)
{
	list_init(&sim->net_ports);
	list_init(&sim->net_closed);
	list_init(&sim->net_ends);
	sim->next_port = 49152;
	sim->net_faults = (struct sim_net_faults){
		.latency_min_ns = 20 * NS_PER_US,
		.latency_max_ns = 100 * NS_PER_US,
		.split_one_in = 4,
		.retransmit_ns = 200 * NS_PER_MS,
		.window_bytes = 256 * KiB,
	};
}

struct sim_net_faults *sim_net_faults(struct sim *sim)
{
	return &sim->net_faults;
}

/* ---- partitions -------------------------------------------------------------------------------------------------------- */

void sim_net_cut(struct sim *sim, struct sim_node *from, struct sim_node *to)
{
	sim->cuts = mem_realloc(sim->cuts, (sim->cut_count + 1) * sizeof(*sim->cuts));
	sim->cuts[sim->cut_count++] = (struct sim_cut){from, to};
	sim_trace(sim, "net.cut", from->index, to->index, 0);
}

void sim_net_heal(struct sim *sim, struct sim_node *from, struct sim_node *to)
{
	sim_trace(sim, "net.heal", from->index, to->index, 0);
	for (size_t i = 0; i < sim->cut_count;) {
		if (sim->cuts[i].from == from && sim->cuts[i].to == to)
			sim->cuts[i] = sim->cuts[--sim->cut_count];
		else
			i++;
	}
}

void sim_net_heal_all(struct sim *sim)
{
	sim_trace(sim, "net.heal_all", 0, 0, 0);
	sim->cut_count = 0;
}

static bool way_is_open(const struct sim *sim, const struct sim_node *from, const struct sim_node *to)
{
	for (size_t i = 0; i < sim->cut_count; i++) {
		if (sim->cuts[i].from == from && sim->cuts[i].to == to)
			return false;
	}
	return to->has_power;
}

/* ---- wires ---------------------------------------------------------------------------------------------------------------- */

static struct end *end_of(const struct rt_conn *c)
{
	return container_of(c, struct end, base);
}

static struct end *peer_of(struct end *e)
{
	return e == &e->wire->ends[0] ? &e->wire->ends[1] : &e->wire->ends[0];
}

static void end_init(struct wire *wire, struct end *e, struct sim_node *node)
{
	e->wire = wire;
	e->node = node;
	e->base.rt = &node->rt;
	e->open = true;
	list_init(&e->sending);
	list_init(&e->queue);
	list_add_tail(&wire->sim->net_ends, &e->link);
	waitq_init(&e->receiver);
	waitq_init(&e->sender);
	wire->refs++;
}

static struct wire *wire_new(struct sim_node *from, struct sim_node *to)
{
	struct wire *wire = mem_zalloc(sizeof(*wire));
	wire->sim = from->sim;
	end_init(wire, &wire->ends[0], from);
	end_init(wire, &wire->ends[1], to);
	return wire;
}

static void end_fini(struct end *e)
{
	struct segment *s;
	while ((s = list_pop(&e->sending, struct segment, link)) != NULL)
		free(s);
	free(e->inbox);
}

static void wire_unref(struct wire *wire)
{
	if (--wire->refs > 0)
		return;
	end_fini(&wire->ends[0]);
	end_fini(&wire->ends[1]);
	free(wire);
}

/* Make the waiting fibers look again. Those of a process that is gone cannot. */
static void end_wake(struct end *e)
{
	if (!e->open || !e->node->runs)
		return;
	waitq_wake_all(&e->receiver);
	waitq_wake_all(&e->sender);
}

static void end_reset(struct end *e)
{
	e->reset = true;
	end_wake(e);
}

/* Out of the application's hands: closed by it, or its process is gone. */
static void end_drop(struct end *e)
{
	if (!e->open)
		return;
	e->open = false;
	list_del(&e->link);
	wire_unref(e->wire);
}

static void pump(void *arg);

static void pump_arm(struct end *e, uint64_t when_ns)
{
	if (e->pump_armed)
		return;
	e->pump_armed = true;
	e->wire->refs++;
	sim_at(e->wire->sim, when_ns, pump, e);
}

static void segment_send(struct end *e, enum segment_kind kind, const void *data, size_t len_bytes)
{
	struct sim *sim = e->wire->sim;
	const struct sim_net_faults *f = &sim->net_faults;
	struct segment *s = mem_alloc(sizeof(*s) + len_bytes);
	uint64_t passage_ns = f->bytes_per_s ? len_bytes * NS_PER_S / f->bytes_per_s : 0;
	uint64_t when_ns = sim->now_ns + sim_between(sim, f->latency_min_ns, f->latency_max_ns);
	*s = (struct segment){.kind = kind, .len_bytes = len_bytes};
	if (len_bytes)
		memcpy(s->data, data, len_bytes);
	s->when_ns = e->last_when_ns = u64_max(when_ns, e->last_when_ns) + passage_ns;
	e->outstanding_bytes += len_bytes;
	list_add_tail(&e->sending, &s->link);
	pump_arm(e, s->when_ns);
}

static void inbox_add(struct end *e, const struct segment *s)
{
	if (e->inbox_at == e->inbox_len)
		e->inbox_at = e->inbox_len = 0;
	if (e->inbox_len + s->len_bytes > e->inbox_capacity) {
		e->inbox_capacity = 2 * (e->inbox_len + s->len_bytes);
		e->inbox = mem_realloc(e->inbox, e->inbox_capacity);
	}
	memcpy(e->inbox + e->inbox_len, s->data, s->len_bytes);
	e->inbox_len += s->len_bytes;
}

static bool is_nth(uint64_t *left)
{
	return *left > 0 && --*left == 0;
}

static void deliver(struct end *from, struct segment *s)
{
	struct end *to = peer_of(from);
	struct sim *sim = from->wire->sim;
	sim_trace(sim, "net.deliver", from->node->index, s->len_bytes, (uint64_t)s->kind);
	if (s->kind == SEGMENT_RESET) {
		end_reset(to);
	} else if (!to->open) {
		if (s->kind == SEGMENT_DATA)
			segment_send(to, SEGMENT_RESET, NULL, 0);
	} else if (s->kind == SEGMENT_FIN) {
		to->peer_finished = true;
		end_wake(to);
	} else if (sim_chance(sim, sim->net_faults.reset_one_in) || is_nth(&sim->net_faults.reset_nth)) {
		end_reset(to);
		end_reset(from);
	} else {
		inbox_add(to, s);
		end_wake(to);
	}
}

/* Deliver what is due. One pump a direction is armed while anything is on the way. */
static void pump(void *arg)
{
	struct end *e = arg;
	struct wire *wire = e->wire;
	struct sim *sim = wire->sim;
	e->pump_armed = false;
	while (!list_empty(&e->sending)) {
		struct segment *s = list_first(&e->sending, struct segment, link);
		if (s->when_ns > sim->now_ns) {
			pump_arm(e, s->when_ns);
			break;
		}
		if (!way_is_open(sim, e->node, peer_of(e)->node) && ++s->tries < GIVE_UP_TRIES) {
			pump_arm(e, sim->now_ns + sim->net_faults.retransmit_ns + 1);
			break;
		}
		list_del(&s->link);
		if (s->tries >= GIVE_UP_TRIES)
			end_reset(e);
		else
			deliver(e, s);
		free(s);
	}
	wire_unref(wire);
}

/* ---- sending and receiving ---------------------------------------------------------------------------------------------------- */

static bool end_is_dead(const struct end *e)
{
	return e->reset || e->shut;
}

int net_op_recv(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes)
{
	struct end *e = end_of(c);
	struct sim *sim = e->wire->sim;
	while (!end_is_dead(e) && e->inbox_at == e->inbox_len && !e->peer_finished)
		waitq_wait(&e->receiver);
	*got_bytes = 0;
	if (end_is_dead(e))
		return OXE_CLOSED;
	size_t there = u64_min(len_bytes, e->inbox_len - e->inbox_at);
	if (there > 1 && sim_chance(sim, sim->net_faults.split_one_in))
		there = sim_between(sim, 1, there);
	if (there > 0)
		memcpy(data, e->inbox + e->inbox_at, there);
	e->inbox_at += there;
	*got_bytes = there;
	peer_of(e)->outstanding_bytes -= there;
	if (peer_of(e)->open && peer_of(e)->node->runs)
		waitq_wake_all(&peer_of(e)->sender);
	return 0;
}

/* As much as the window lets through. */
static size_t send_some(struct end *e, const uint8_t *data, size_t len_bytes)
{
	struct sim *sim = e->wire->sim;
	size_t window = sim->net_faults.window_bytes;
	size_t room = window > e->outstanding_bytes ? window - e->outstanding_bytes : 0;
	size_t step = u64_min(u64_min(len_bytes, room), SEGMENT_MAX_BYTES);
	if (step > 1 && sim_chance(sim, sim->net_faults.split_one_in))
		step = sim_between(sim, 1, step);
	if (step > 0)
		segment_send(e, SEGMENT_DATA, data, step);
	return step;
}

static int send_part(struct end *e, const uint8_t *data, size_t len_bytes)
{
	while (len_bytes > 0) {
		if (end_is_dead(e))
			return OXE_CLOSED;
		size_t step = send_some(e, data, len_bytes);
		if (step == 0)
			waitq_wait(&e->sender);
		data += step;
		len_bytes -= step;
	}
	return end_is_dead(e) ? OXE_CLOSED : 0;
}

int net_op_send(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count)
{
	for (size_t i = 0; i < part_count; i++) {
		int err = send_part(end_of(c), parts[i].data, parts[i].len_bytes);
		if (err)
			return err;
	}
	return 0;
}

void net_op_shutdown(struct rt_conn *c)
{
	struct end *e = end_of(c);
	if (end_is_dead(e))
		return;
	e->shut = true;
	segment_send(e, SEGMENT_FIN, NULL, 0);
	end_wake(e);
}

/* Closing with unread bytes is a reset, as in Linux. */
void net_op_close(struct rt_conn *c)
{
	struct end *e = end_of(c);
	assert(waitq_empty(&e->receiver) && waitq_empty(&e->sender));
	if (!e->reset && e->inbox_at < e->inbox_len)
		segment_send(e, SEGMENT_RESET, NULL, 0);
	else if (!end_is_dead(e))
		segment_send(e, SEGMENT_FIN, NULL, 0);
	end_drop(e);
}

const char *net_op_peer(const struct rt_conn *c)
{
	return end_of(c)->peer_text;
}

const char *net_op_local(const struct rt_conn *c)
{
	return end_of(c)->local_text;
}

/* ---- addresses -------------------------------------------------------------------------------------------------------------------- */

struct target {
	bool is_unix, any_host, loopback;
	uint32_t number;
	char host[64];
	const char *path;
};

static int address_parse(const char *address, struct target *t)
{
	*t = (struct target){0};
	if (strncmp(address, "unix:", 5) == 0) {
		t->is_unix = true;
		t->path = address + 5;
		return strlen(t->path) < sizeof(((struct port *)NULL)->path) ? 0 : OXE_INVAL;
	}
	const char *colon = strrchr(address, ':');
	if (strncmp(address, "tcp:", 4) != 0 || !colon || colon < address + 5)
		return OXE_INVAL;
	size_t host_len = (size_t)(colon - address - 4);
	if (host_len >= sizeof(t->host))
		return OXE_INVAL;
	memcpy(t->host, address + 4, host_len);
	t->number = (uint32_t)strtoul(colon + 1, NULL, 10);
	t->any_host = strcmp(t->host, "0.0.0.0") == 0 || strcmp(t->host, "[::]") == 0;
	t->loopback = strcmp(t->host, "127.0.0.1") == 0 || strcmp(t->host, "[::1]") == 0 ||
		      strcmp(t->host, "localhost") == 0;
	return t->number < 65536 ? 0 : OXE_INVAL;
}

static struct sim_node *target_node(struct sim_node *from, const struct target *t)
{
	struct sim_node *node;
	if (t->is_unix || t->loopback)
		return from;
	list_for_each (node, &from->sim->nodes, link) {
		if (strcmp(t->host, node->address) == 0 || strcmp(t->host, node->name) == 0)
			return node;
	}
	return NULL;
}

static struct port *port_find(struct sim_node *node, const struct target *t, const struct sim_node *from)
{
	struct port *port;
	list_for_each (port, &node->sim->net_ports, link) {
		if (port->node != node || port->is_unix != t->is_unix || (port->loopback && from != node))
			continue;
		if (t->is_unix ? strcmp(port->path, t->path) == 0 : port->number == t->number)
			return port;
	}
	return NULL;
}

/* ---- listening ------------------------------------------------------------------------------------------------------------------------ */

static struct port *port_of(const struct rt_listener *l)
{
	return container_of(l, struct port, base);
}

static struct port *port_new(struct sim_node *node, const struct target *t)
{
	struct port *port = mem_zalloc(sizeof(*port));
	port->base.rt = &node->rt;
	port->node = node;
	port->is_unix = t->is_unix;
	port->any_host = t->any_host;
	port->loopback = t->loopback;
	port->number = t->number ? t->number : node->sim->next_port++;
	if (t->is_unix) {
		snprintf(port->path, sizeof(port->path), "%s", t->path);
		snprintf(port->text, sizeof(port->text), "unix:%s", t->path);
	} else {
		snprintf(port->text, sizeof(port->text), "tcp:%s:%u", t->host, port->number);
	}
	list_init(&port->pending);
	waitq_init(&port->acceptors);
	list_add_tail(&node->sim->net_ports, &port->link);
	return port;
}

int net_op_listen(struct rt *rt, const char *address, struct rt_listener **out)
{
	struct sim_node *node = node_of(rt);
	struct target t;
	int err = address_parse(address, &t);
	if (err)
		return err;
	if (!t.is_unix && !t.any_host && target_node(node, &t) != node)
		return OXE_INVAL;
	fiber_sleep(10 * NS_PER_US);
	if ((t.is_unix || t.number) && port_find(node, &t, node))
		return OXE_BUSY;
	*out = &port_new(node, &t)->base;
	return 0;
}

const char *net_op_listener_address(const struct rt_listener *l)
{
	return port_of(l)->text;
}

static void pending_refuse(struct port *port)
{
	struct end *e;
	while ((e = list_pop(&port->pending, struct end, queue)) != NULL) {
		segment_send(e, SEGMENT_RESET, NULL, 0);
		end_drop(e);
	}
}

int net_op_accept(struct rt_listener *l, struct rt_conn **out)
{
	struct port *port = port_of(l);
	port->inside++;
	port->asked = true;
	while (!port->closed && list_empty(&port->pending))
		waitq_wait(&port->acceptors);
	port->inside--;
	if (port->closed) {
		if (port->inside == 0) {
			list_del(&port->link);
			free(port);
		}
		return OXE_SHUTDOWN;
	}
	*out = &list_pop(&port->pending, struct end, queue)->base;
	port->pending_count--;
	return 0;
}

void net_op_listener_close(struct rt_listener *l)
{
	struct port *port = port_of(l);
	list_del(&port->link);
	port->closed = true;
	pending_refuse(port);
	waitq_wake_all(&port->acceptors);
	if (port->asked)
		list_add_tail(&port->node->sim->net_closed, &port->link);
	else
		free(port);
}

/* ---- connecting ---------------------------------------------------------------------------------------------------------------------------- */

static void ends_name(struct end *client, struct end *server, const struct port *port)
{
	if (port->is_unix) {
		snprintf(client->peer_text, sizeof(client->peer_text), "unix:pid=%u,uid=0",
			 server->node->index);
		snprintf(server->peer_text, sizeof(server->peer_text), "unix:pid=%u,uid=0",
			 client->node->index);
		return;
	}
	snprintf(client->peer_text, sizeof(client->peer_text), "%s:%u", server->node->address, port->number);
	snprintf(server->peer_text, sizeof(server->peer_text), "%s:%u", client->node->address,
		 client->node->sim->next_port++);
	snprintf(client->local_text, sizeof(client->local_text), "tcp:%s", server->peer_text);
	snprintf(server->local_text, sizeof(server->local_text), "tcp:%s", client->peer_text);
}

static void handshake(struct sim_node *from, struct port *port, struct rt_conn **out)
{
	struct wire *wire = wire_new(from, port->node);
	ends_name(&wire->ends[0], &wire->ends[1], port);
	list_add_tail(&port->pending, &wire->ends[1].queue);
	port->pending_count++;
	if (port->node->runs)
		waitq_wake_one(&port->acceptors);
	sim_trace(from->sim, "net.connect", from->index, port->node->index, port->number);
	*out = &wire->ends[0].base;
}

int net_op_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out)
{
	struct sim_node *from = node_of(rt);
	struct sim *sim = from->sim;
	struct target t;
	int err = address_parse(address, &t);
	struct sim_node *to = err ? NULL : target_node(from, &t);
	if (!to)
		return err ? err : OXE_NOENT;
	for (;;) {
		fiber_sleep(2 *
			    sim_between(sim, sim->net_faults.latency_min_ns, sim->net_faults.latency_max_ns));
		bool open = way_is_open(sim, from, to) && way_is_open(sim, to, from);
		struct port *port = open ? port_find(to, &t, from) : NULL;
		if (node_clock_ns(from) >= deadline_ns)
			return OXE_TIMEOUT;
		if (open && !port)
			return t.is_unix ? OXE_NOENT : OXE_CLOSED;
		if (port && port->pending_count < BACKLOG) {
			handshake(from, port, out);
			return 0;
		}
		fiber_sleep(u64_min(sim->net_faults.retransmit_ns, deadline_ns - node_clock_ns(from)));
	}
}

/* ---- the end of a process ---------------------------------------------------------------------------------------------------------------------- */

static void ports_gone(struct sim_node *node)
{
	struct port *port, *next;
	list_for_each_safe (port, next, &node->sim->net_ports, link) {
		struct end *e;
		if (port->node != node)
			continue;
		while ((e = list_pop(&port->pending, struct end, queue)) != NULL)
			;
		list_del(&port->link);
		free(port);
	}
}

void net_node_gone(struct sim_node *node, bool power_cut)
{
	struct sim *sim = node->sim;
	struct end *e, *next;
	ports_gone(node);
	list_for_each_safe (e, next, &sim->net_ends, link) {
		if (e->node != node)
			continue;
		if (!power_cut && !end_is_dead(e))
			segment_send(e, SEGMENT_RESET, NULL, 0);
		struct segment *s;
		while (power_cut && (s = list_pop(&e->sending, struct segment, link)) != NULL)
			free(s);
		end_drop(e);
	}
}

void net_fini(struct sim *sim)
{
	struct port *port;
	assert(list_empty(&sim->net_ports) && list_empty(&sim->net_ends));
	while ((port = list_pop(&sim->net_closed, struct port, link)) != NULL)
		free(port);
}
