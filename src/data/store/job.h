/*
 * job.h: the background worker from inside: what job.c (which job, when), merge.c and flatten.c (one step of one) share.
 */
#ifndef OXBOW_DATA_STORE_JOB_H
#define OXBOW_DATA_STORE_JOB_H

#include "data/store/store.h"

struct jobs {
	struct pool *pool;
	bool started, stopping, stopped, kicked, idle, stepping;
	uint32_t paused;
	int logged_err;	 /* said already, since the jobs were last started on */
	int stuck_err;	 /* of a job that could not go on in the last pass */
	uint64_t number; /* of the layer or volume being worked on; 0: none */
	uint64_t done_clusters, total_clusters;
	uint64_t not_before_ns; /* the rate limit */
	struct waitq work, changed;
};

/* May the next step begin? Waits for the rate and for whoever paused us. False: stop. */
bool jobs_step_begin(struct jobs *j);
/* A step copied so much: the next one waits for the rate. Does not suspend. */
void jobs_spend(struct jobs *j, uint64_t bytes);
/* The next run of clusters of the layer that have something, at or after *index; OXE_NOENT at the end. Suspends. */
OX_CHECKED int layer_next_run(struct layer *l, uint32_t *index, uint32_t max, uint32_t *count);

/* Move the next clusters of a layer, at or after *index, into its only child; moves *index on. OXE_NOENT: none is left. */
OX_CHECKED int merge_step(struct jobs *j, struct layer *l, uint32_t *index);
/* Copy everything that a volume sees of others' layers into its own, then let go of them. OXE_SHUTDOWN if stopped. */
OX_CHECKED int flatten(struct jobs *j, uint64_t volume_number);

#endif
