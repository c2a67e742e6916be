/*
 * cluster.h: whole nodes in one process under a seed: engines, copies, pools, the ways between them, and the store of views.
 *
 *     node       a machine of the simulator with one disk, a pool on it, and a process that opens the pool and may run an engine
 *     link       a copy on another node: calls take time, wait, get lost and arrive late, as they would over a network (cluster_link.c);
 *                or a wire, which is given from outside: the real protocol over the simulated network
 *     views      the store of views, with delays, absence and unknown outcomes (cluster_views.c)
 *     history    what clients were promised (cluster_history.h)
 *     run        a seed: clients, faults, and in the end everything must be well (cluster_run.c)
 */
#ifndef OXBOW_SIM_CLUSTER_H
#define OXBOW_SIM_CLUSTER_H

#include "data/engine/mirror.h"
#include "data/replica/replica.h"
#include "sim/cluster_history.h"
#include "sim/sim.h"

#define CLUSTER_NODES 4u

struct cluster;
struct cluster_node;

/* The ways between nodes, if they are not cluster_link.c's. */
struct cluster_wire {
	/* A process has opened its pool, and answers others from now on. From a fiber of it. */
	void (*serve)(struct cluster_node *node);
	struct replica *(*replica_new)(struct cluster_node *from, struct cluster_node *to,
				       const struct uuid *volume_id);
};

struct cluster_faults {
	uint64_t call_min_ns, call_max_ns; /* one way */
	uint64_t call_timeout_ns;
	uint32_t call_lost_one_in; /* of calls: it arrives, and the answer does not; 0: never */
	uint64_t views_min_ns, views_max_ns;
	uint32_t views_absent_one_in, views_unknown_one_in;
};

struct cluster_engine {
	struct mirror *mirror;
	struct uuid id;
	uint64_t number;
	struct cluster_node *node;
	bool is_over; /* fenced, or its process is gone */
};

struct cluster_node {
	struct cluster *cluster;
	uint32_t index;
	struct sim_node *machine;
	struct uuid pool_id, boot_id;
	uint64_t incarnation; /* of the process; 0: none has started */
	bool is_up;	      /* the process runs */
	bool has_all;	      /* of what a member must have; its machine was not off since */
	bool is_dead;	      /* it could not open its pool, and is to be started again */
	bool has_lost_sectors;
	bool has_filler;   /* a volume that takes the room of its pool */
	struct pool *pool; /* NULL: not opened (yet) */
	struct replica_door *door;
	struct cluster_engine *engine; /* the one it runs; NULL: none */
	uint64_t restart_ns;	       /* when to start again; 0: nothing planned */
};

struct cluster {
	struct sim *sim;
	struct prng *rng;
	struct cluster_faults faults;
	const struct cluster_wire *wire; /* NULL: calls */
	struct cluster_node nodes[CLUSTER_NODES];
	bool cut[CLUSTER_NODES][CLUSTER_NODES]; /* from, to */
	struct list calls;			/* between nodes */
	struct uuid volume_id;

	/* The store of views. */
	struct view view;
	uint64_t revision;
	bool views_cut[CLUSTER_NODES]; /* for this node they are away */
	uint64_t swaps;

	struct history *history;
	bool failed;
	char what[1000];
};

/* Zeroed, and aligned so that where the heap happens to be decides nothing: the store treats other payloads in another way. */
static inline uint8_t *cluster_buffer(size_t len_bytes)
{
	size_t room_bytes = u64_align_up(len_bytes + 1, RT_IO_ALIGN);
	uint8_t *buffer = aligned_alloc(RT_IO_ALIGN, room_bytes);
	assert(buffer);
	memset(buffer, 0, room_bytes);
	return buffer;
}

/* The first failure stays. */
void cluster_fail(struct cluster *cl, const char *format, ...) OX_PRINTF(2, 3);

/* ---- cluster_link.c ---- */

struct replica *link_new(struct cluster_node *from, struct cluster_node *to, const struct uuid *volume_id);
/* The world is about to end: nobody waits any more. Then free what is left, after it has. */
void link_calls_abandon(struct cluster *cl);
void link_calls_free(struct cluster *cl);
/* A process is gone. Calls it made are nobody's any more; calls made to it end: at once where its machine still says so. */
void link_node_gone(struct cluster_node *node, bool power_too);

/* ---- cluster_views.c ---- */

struct view_store *views_new(struct cluster_node *node);

#endif
