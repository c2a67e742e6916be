/*
 * pool_run.h: one seed: a pool lives, is crashed after every device write in every way, recovers and is checked.
 *
 * A run is a few lives. In each, clients work on the pool, and between any two device writes the disk is frozen; of the crash
 * states it could leave, some (or all) are made, recovered in a simulation of their own, checked against the model, and
 * crashed again inside the recovery, three deep. Then the life goes on as if nothing had happened. The next life begins with
 * one of the crash states of this one, so that pools are worked on that have crashed before.
 */
#ifndef OXBOW_SIM_POOL_RUN_H
#define OXBOW_SIM_POOL_RUN_H

#include "base/base.h"

#define RUN_STATE_ALL 0u

struct run_spec {
	uint64_t seed;
	uint32_t
		states; /* crash states to aim at; RUN_STATE_ALL: at every write, every subset where there are few */
	uint64_t only_state; /* 0: all of them; else only the one of this number, with those inside it */
};

struct run_report {
	uint64_t states, points, lives, device_writes, steps, hash;
	bool failed;
	char what[600];	   /* the sentence */
	char where[200];   /* the crash state */
	uint64_t state_id; /* for only_state; 0: the run itself failed, outside any crash state */
};

/* Called before each crash state and life, for whoever wants to know how far a run was when the process died. */
extern void (*run_progress)(uint64_t seed, uint64_t state_id);

/* Say nothing on stderr when a run fails. */
extern bool run_is_quiet;
/* How many of the last events to print. */
extern uint32_t run_event_lines;
/* For a signal handler: where the run was, and its last events to stderr. The process must be about to end. */
void run_dying(char *where, size_t size_bytes);

/* Run it. False if it failed: then *report says how, and the last events of the failing simulation went to stderr. */
bool pool_run(const struct run_spec *spec, struct run_report *report);

#endif
