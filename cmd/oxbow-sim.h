/*
 * oxbow-sim.h: the parts of oxbow-sim.
 *
 *     oxbow-sim.c     the command line
 *     sim_seeds.c     processes that take seed after seed, and what came of it
 *     sim_mutants.c   bugs planted in turn, each to be caught
 *     sim_hints.c     which seed caught one the last time
 *     sim_wire.c      the real protocol between the nodes of a cluster
 */
#ifndef OXBOW_CMD_OXBOW_SIM_H
#define OXBOW_CMD_OXBOW_SIM_H

#include "base/base.h"

#include <stdatomic.h>
#include <sys/types.h>

#define WORKERS_MAX 64u

enum {
	EXIT_FINE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DIED = 3,
	EXIT_MORE = 4 /* of a worker: another takes its place */
};

struct options {
	uint64_t first_seed, last_seed, only_state, for_s;
	uint32_t states, workers, mutant;
	bool mutants, rare, keep_going, print_hash, cluster, wire, tell, learn;
	const char *hints; /* file; NULL: none */
};
extern struct options options;

struct worker {
	pid_t pid;
	_Atomic uint64_t seed, state_id, since_s;
};

/* Of the last run, in memory that all processes share. */
struct shared {
	_Atomic uint64_t next_seed, seeds, states, points, writes, steps, failures, failed_seed;
	_Atomic uint64_t requests, kills, engines, virtual_ms; /* of clusters */
	_Atomic bool stop;
	char failure[400];
	struct worker workers[WORKERS_MAX];
};
extern struct shared *shared;

uint64_t clock_s(void);

/* Once, before the first run. False: no memory. */
bool seeds_prepare(void);
/* Run the seeds of the options; `show`: print how far it is. True if none failed. */
bool seeds_run(bool show);

extern const bool mutants_are_built;
/* Each planted bug must be caught by some seed. Returns an exit status. */
int mutants_run(void);
void mutants_list(void);

#endif
