/* sim_private.h: what the files of sim/ share: the world, the machine, the event. */
#ifndef OXBOW_SIM_SIM_PRIVATE_H
#define OXBOW_SIM_SIM_PRIVATE_H

#include "rt/rt_platform.h"
#include "sim/sim.h"

struct sim_event {
	uint64_t when_ns, order; /* order settles equal times */
	void (*fn)(void *arg);
	void *arg;
};

struct trace_entry {
	uint64_t when_ns, a, b, c;
	const char *what;
};

#define TRACE_KEPT 4096u

struct sim_cut {
	struct sim_node *from, *to;
};

struct sim {
	struct prng rng;
	uint64_t now_ns, next_order, offload_ns;
	struct sim_event *events; /* binary heap from index 1 */
	size_t event_count, event_capacity;
	bool shuffle;
	struct list nodes;
	uint32_t node_count;
	uint64_t trace_hash, trace_count;
	struct trace_entry *trace; /* a ring of TRACE_KEPT */
	struct sim_net_faults net_faults;
	struct list net_ports, net_closed; /* listeners, and those that were closed and may still be asked */
	struct list net_ends;		   /* every end of a connection that is not closed */
	struct sim_cut *cuts;
	size_t cut_count;
	uint32_t next_port;
};

struct sim_node {
	struct rt rt; /* first: ops find the node by it */
	struct sim *sim;
	struct list link, disks;
	const char *name;
	char address[16];
	uint32_t index;
	uint64_t incarnation; /* counts starts; what was sent to an earlier one is lost */
	bool runs, has_power;
	bool paused; /* it runs, and no code of it does */
	uint32_t clock_permille;
};

static inline struct sim_node *node_of(struct rt *rt)
{
	return container_of(rt, struct sim_node, rt);
}

/* ---- sim_loop.c ---- */
void sim_after(struct sim *sim, uint64_t delay_ns, void (*fn)(void *arg), void *arg);
/* What its clock says, and when in the world's time it will say so. */
uint64_t node_clock_ns(const struct sim_node *node);
uint64_t node_moment_ns(const struct sim_node *node, uint64_t clock_ns);
/* Around a completion that runs code of the node. */
void node_enter(struct sim_node *node);
void node_leave(void);
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high); /* inclusive */
bool sim_chance(struct sim *sim, uint32_t one_in);		    /* 0: never */

/* ---- sim_disk.c ---- */
int disk_op_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes, struct rt_disk **out);
void disk_op_close(struct rt_disk *base);
int disk_op_grow(struct rt_disk *base, uint64_t size_bytes);
int disk_op_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes);
void disk_op_submit(struct rt_io *io);
void node_disks_crash(struct sim_node *node, bool power_cut);
void node_disks_free(struct sim_node *node);
/* Say what was done while the node was paused. */
void node_disks_tell(struct sim_node *node);

/* ---- sim_net.c ---- */
void net_init(struct sim *sim);
void net_fini(struct sim *sim);
void net_node_gone(struct sim_node *node, bool power_cut);
int net_op_listen(struct rt *rt, const char *address, struct rt_listener **out);
const char *net_op_listener_address(const struct rt_listener *l);
int net_op_accept(struct rt_listener *l, struct rt_conn **out);
void net_op_listener_close(struct rt_listener *l);
int net_op_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out);
int net_op_recv(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes);
int net_op_send(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count);
void net_op_shutdown(struct rt_conn *c);
void net_op_close(struct rt_conn *c);
const char *net_op_peer(const struct rt_conn *c);
const char *net_op_local(const struct rt_conn *c);

#endif
