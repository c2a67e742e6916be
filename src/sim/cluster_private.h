/*
 * cluster_private.h: what the files of a cluster's run share: the run, its clients' requests and snapshots, and who does what.
 *
 * There is one run at a time (the_run), on one thread; a callback that gets a node or an engine finds the run there. What is drawn is drawn from the
 * one generator of the seed, so that the order of draws is part of the run. The run owns its engines and snapshots to its end; a `doing` lies
 * on its client's stack.
 */
#ifndef OXBOW_SIM_CLUSTER_PRIVATE_H
#define OXBOW_SIM_CLUSTER_PRIVATE_H

#include "sim/cluster.h"
#include "sim/cluster_run.h"

#define VOLUME_BYTES	 (6 * MiB)
#define VOLUME_BYTES_MAX (12 * MiB)
#define DISK_BYTES	 (96 * MiB)
#define CLIENTS		 3u
#define REQUEST_SECTORS	 64u
#define SNAPSHOTS_MAX	 12u
#define ENGINES_MAX	 400u
#define WELL_WITHIN_NS	 (120 * NS_PER_S)
#define HOT_PLACES	 12u
#define LOST_MAX	 64u

enum climate { FAIR, DISK_ERRORS, LOST_SECTORS, SMALL_POOLS, NO_SPACE_BELOW };

struct snapshot {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	struct history_image *image; /* NULL: nobody knows what it holds */
	bool is_deleted;	     /* or being so */
	bool is_renamed;	     /* nobody knows what it is called */
};

/* A request of a client, until it has ended. */
struct doing {
	struct list link;
	struct cluster_engine *engine;
	struct history_write write;
	bool is_write;
};

struct run {
	struct cluster cluster;
	struct list doing;
	struct cluster_engine *engines[ENGINES_MAX];
	uint32_t engine_count;
	uint64_t next_value, size_bytes;
	struct snapshot snapshots[SNAPSHOTS_MAX];
	uint32_t snapshot_count;
	uint32_t actions_left;
	struct cluster_engine *snapshot_under_way; /* who makes one, or the like; NULL: nobody */
	bool faults_are_over, clients_stop, is_done;
	enum climate climate;
	bool clocks_differ, pauses;
	uint64_t lost[LOST_MAX]; /* sectors of node 0 */
	uint32_t lost_count;
	uint64_t engine_wanted_ns; /* none is left: when to start one */
	uint64_t hot[HOT_PLACES];
	uint64_t swaps_at_peace, peace_ns;
	struct cluster_report *report;
	void (*tell)(uint64_t now_ns, const char *line);
};

extern struct run *the_run; /* cluster_run.c */

static inline uint64_t chance(struct run *r, uint64_t below)
{
	return prng_below(r->cluster.rng, below);
}

static inline uint64_t now_ns(const struct run *r)
{
	return sim_now_ns(r->cluster.sim);
}

/* Said by an engine that another has replaced, or that is being stopped. */
static inline bool is_over_error(int err)
{
	return err == OXE_FENCED || err == OXE_SHUTDOWN;
}

/* ---- cluster_process.c ---- */

void process_start(struct cluster_node *n);
/* By a kill, or with its machine. Not from one of its fibers. */
void node_down(struct run *r, struct cluster_node *n, bool power_too);
/* On a node that runs none; an older one elsewhere may live on without knowing. */
void engine_start(struct run *r);
/* Its clients are answered, one by one, unless its process is gone. */
void engine_over(struct cluster_engine *e);
/* V3, V11: is there a machine that stays on, and has everything that was acknowledged? */
bool another_has_all(struct run *r, const struct cluster_node *cut);
/* With a struct run, on the loop's stack; comes again by itself until the run is done. So do the director and the judge. */
void minder(void *arg);

/* ---- cluster_clients.c ---- */

/* A fiber, with a struct cluster_engine. */
void client_main(void *arg);
/* Of a process that is about to be gone: its fibers never run again. */
void clients_cut_off(struct run *r, struct cluster_node *n);

/* ---- cluster_director.c ---- */

enum climate climate_of(uint64_t seed);
/* Each in a quarter of the seeds, and both in an eighth. */
bool pauses(uint64_t seed);
bool clocks_differ(uint64_t seed);
/* Drawn anew for each node; nothing is drawn where they do not differ. */
uint32_t clock_permille(struct run *r);
/* A volume that takes nearly all the room there is. */
OX_CHECKED int filler_make(struct cluster_node *n, struct pool *pool);
void fillers_delete(struct run *r);
void heal_all(struct run *r);
void director(void *arg);

/* ---- cluster_peace.c ---- */

struct cluster_engine *engine_that_serves(const struct run *r, struct mirror_status *status);
bool all_is_even(const struct run *r);
/* Fails the seed, and says how things stand. */
void explain_stuck(struct run *r);
void judge_peace(void *arg);

/* ---- cluster_rot.c ---- */

/* From a fiber of the engine's process; waits until all is even again. `members` are all the copies there are. OXE_FENCED: another engine
 * began meanwhile; nothing was judged, and what had rotted is as it was. */
OX_CHECKED int rot_one(struct run *r, struct cluster_engine *e, uint32_t members);

#endif
