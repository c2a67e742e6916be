/*
 * pool_work.h: the clients of a simulated pool: several fibers that do everything pool.h offers, in an order the seed
 * chooses, and tell the model before and after each call.
 *
 * Data calls run in any number at once, and may overlap. Control calls run one at a time, beside data calls.
 */
#ifndef OXBOW_SIM_POOL_WORK_H
#define OXBOW_SIM_POOL_WORK_H

#include "sim/pool_model.h"
#include "sim/sim.h"

#define WORK_CLIENTS 12u

struct work_profile {
	uint32_t clients, operations;
	uint64_t volume_bytes_max;
	uint32_t write_bytes_max;
	uint32_t volumes_max;
	uint32_t control_one_in; /* a client's step is a control call */
	uint32_t flush_one_in;	 /* of data steps */
	uint32_t durable_one_in; /* of writes */
	bool tight;		 /* every volume as large as may be, most writes large */
	bool grafts;		 /* fresh volumes, and their chains grafted upon others */
	bool chains;		 /* snapshots, clones, flattening and merges above all */
	uint64_t swarm;		 /* which kinds of steps are left out and which are frequent; 0: as usual */
	bool errors_expected;	 /* the disk fails requests now and then */
	uint64_t
		room_bytes; /* the file system under the pool has no more than this, now and then; 0: it has */
};

struct work {
	struct sim *sim;
	struct sim_disk *disk;
	struct rt_disk *rt_disk; /* the pool's own handle on it */
	struct pool *pool;
	struct model *model;
	struct work_profile profile;
	struct fmutex control;
	struct rt_group clients;
	uint32_t steps_left;
	uint64_t
		reading_since[WORK_CLIENTS + 1]; /* NEVER: not reading; the last: a snapshot is being taken */
	bool pool_failed; /* a device error stopped it, as it may when errors are expected */
	char why[400];	  /* what went wrong; empty: nothing */
};

/* `rt_disk` is what the pool was opened on, `disk` the device behind it. */
void work_init(struct work *w, struct sim *sim, struct sim_disk *disk, struct rt_disk *rt_disk,
	       struct pool *pool, struct model *model, const struct work_profile *profile);
/* Returns when the clients are through, with every handle closed. Suspends. */
void work_run(struct work *w);

#endif
