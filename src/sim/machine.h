/*
 * machine.h: for tests: a world under a seed with one machine in it, whose process does one thing after another.
 *
 * `fn` runs in a fiber of that process, and must end within an hour of the simulator's time.
 */
#ifndef OXBOW_SIM_MACHINE_H
#define OXBOW_SIM_MACHINE_H

#include "sim/sim.h"

#define MACHINE_LIMIT_NS (3600 * NS_PER_S)

struct machine {
	struct sim *sim;
	struct sim_node *node;
};

static inline struct machine machine_begin(uint64_t seed)
{
	struct machine m = {.sim = sim_new(seed)};
	m.node = sim_node_new(m.sim, "a");
	sim_node_start(m.node);
	return m;
}

struct machine_run {
	void (*fn)(void *arg);
	void *arg;
	bool over;
};

static inline void machine_main(void *arg)
{
	struct machine_run *r = arg;
	r->fn(r->arg);
	r->over = true;
}

static inline void machine_run(const struct machine *m, void (*fn)(void *arg), void *arg)
{
	struct machine_run r = {fn, arg, false};
	fiber_spawn_big(sim_node_rt(m->node), "machine", machine_main, &r);
	enum sim_end end = sim_run(m->sim, &r.over, sim_now_ns(m->sim) + MACHINE_LIMIT_NS);
	assert(end == SIM_DONE);
}

/* No fiber may be left. */
static inline void machine_end(const struct machine *m)
{
	sim_node_stop(m->node);
	sim_free(m->sim);
}

#endif
