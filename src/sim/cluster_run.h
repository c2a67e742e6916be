/*
 * cluster_run.h: one seed of a cluster: clients work, everything that can fail fails, and when that stops all must be well.
 *
 * Checked all the time: each sector linearizable for its clients (an unknown outcome stays possible until a read settles it, and then never
 * flips; no acknowledged write is lost; what a fenced engine says counts like what any other says), snapshots as they were.
 * Checked in the end, when faults have stopped: the volume serves, every copy is a member within a bound, members are equal in head and
 * layers, each pool's check finds nothing, and the view has not changed more often than there were reasons.
 */
#ifndef OXBOW_SIM_CLUSTER_RUN_H
#define OXBOW_SIM_CLUSTER_RUN_H

#include "base/base.h"

#include <stdio.h>

struct cluster_wire;

struct cluster_spec {
	uint64_t seed;
	const struct cluster_wire *wire; /* cluster.h; NULL: calls of our own between nodes */
	FILE *story;			 /* the last events, when it fails; NULL: nowhere */
	/* What is logged, line by line. NULL: nobody wants it. */
	void (*tell)(uint64_t now_ns, const char *line);
};

struct cluster_report {
	uint64_t requests, kills, power_cuts, engines, swaps, filled_bytes, virtual_ns, hash;
	bool failed;
	char what[1000];
};

/* False if it failed. */
bool cluster_run(const struct cluster_spec *spec, struct cluster_report *report);

#endif
