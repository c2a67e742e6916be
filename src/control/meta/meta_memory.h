/*
 * meta_memory.h: the metastore for the simulator: one store in memory, clients on many machines, and between each of them and the store
 * a network that delays, loses, reorders and lies about nothing.
 *
 *     struct meta_memory *store = meta_memory_new(sim_node_start(server), seed, 0);
 *     struct meta *m = meta_memory_client(store, sim_node_rt(node));
 *     meta_memory_faults(m)->lost_answer_one_in = 20;
 *
 * Deterministic: chance comes from its own seed, time from the clock of the store's reactor. The store's machine is one that is never
 * killed; what a real one does instead is an outage. A request goes its own way once it is sent: it may take effect after its
 * caller was told that the outcome is unknown, and even after its caller was killed.
 *
 *   who owns memory   the store owns its clients; meta_memory_free frees whatever there is
 *   which reactor     the store has one, each client has one; all of them turn on the same thread, as in the simulator
 */
#ifndef OXBOW_CONTROL_META_META_MEMORY_H
#define OXBOW_CONTROL_META_META_MEMORY_H

#include "control/meta/meta.h"
#include "rt/rt.h"

struct meta_memory;

/* keep_revisions: how much history, 0: META_KEEP_REVISIONS. */
struct meta_memory *meta_memory_new(struct rt *rt, uint64_t seed, uint64_t keep_revisions);
/* Once no fiber of the store's or a client's reactor runs any more. */
void meta_memory_free(struct meta_memory *store);

struct meta *meta_memory_client(struct meta_memory *store, struct rt *rt);
/* Its process was killed: whatever it waited for is forgotten, what it sent goes on. Instead of meta_close. */
void meta_memory_drop(struct meta *m);

/* "One in n" is a chance for each request; 0 is never. Change them at any time. */
struct meta_memory_faults {
	bool cut;			     /* nothing passes between this client and the store */
	uint64_t delay_min_ns, delay_max_ns; /* each way, evenly between */
	uint64_t limit_ns;		     /* a call without an answer ends after this; 0: 5 s */
	uint32_t refused_one_in;	     /* OXE_NOTREADY: surely not done */
	uint32_t lost_request_one_in;	     /* it never arrives, and nobody says so */
	uint32_t lost_answer_one_in;	     /* it is done, and nobody says so */
	uint32_t reset_one_in;	/* the client gives up early, while the request is still under way */
	uint32_t late_one_in;	/* the request takes up to late_ns longer */
	uint64_t late_ns;	/* longer than limit_ns: it arrives when the client has given up */
	uint32_t outage_one_in; /* at this request the store goes away, for everybody */
	uint64_t outage_min_ns, outage_max_ns; /* evenly between */
};
struct meta_memory_faults *meta_memory_faults(struct meta *m);

/* The store is away from now on: requests that arrive are lost. No lease ends meanwhile, and all start anew after it. */
void meta_memory_outage(struct meta_memory *store, uint64_t for_ns);
uint64_t meta_memory_revision(const struct meta_memory *store);

#endif
