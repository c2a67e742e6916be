/*
 * node_impl.h: what node.c (lifecycle, readiness), node_state.c (the list), node_pool.c (pool actions), node_keeper.c (the
 * keeper fibers) and node_volume.c (what is in pools) share.
 *
 * A pool may be closed by its keeper while a call into it is suspended. So every call enters and leaves: `users` counts those
 * inside, and whoever closes first changes the state, so that nobody enters any more, and then waits for users to be 0.
 */
#ifndef OXBOW_CONTROL_NODE_NODE_IMPL_H
#define OXBOW_CONTROL_NODE_NODE_IMPL_H

#include "control/node/keeper.h"
#include "control/node/node.h"

struct node_pool {
	struct list link;
	struct node *node;
	struct uuid id;
	char name[POOL_NAME_MAX + 1], path[NODE_PATH_MAX];

	struct keeper keeper;
	bool leaving; /* being exported, or the node stops: the keeper ends, and frees nothing */
	bool poked;
	bool closing; /* nobody may enter */
	bool keeper_running;
	struct waitq changed; /* for the keeper: poked, leaving; for closers: users, keeper_running */

	struct pool *pool; /* NULL unless open */
	struct rt_disk *disk;
	uint32_t users;
	uint64_t open_ns, opens, attempts;

	bool has_condition; /* why it is not open */
	struct node_condition condition;
	uint64_t
		damage_since_wall_ns; /* open, and part of its metadata is lost; 0: as far as is known it is whole */
};

struct node_hold {
	struct list link;
	char name[32];
	struct node_condition condition;
};

/* Where pools were before they moved: when disks change places, the hint of one is the place of another, and is forgotten as
 * soon as that one is found. At the bound the oldest goes. */
#define NODE_PLACES_MAX 64

struct node {
	struct node_options options;
	char *places[NODE_PLACES_MAX];
	size_t place_count;
	struct list pools;	  /* of node_pool, in the order of the list file */
	struct list holds;	  /* of node_hold */
	struct fmutex membership; /* create, import, export, and writing the list */
	struct fmutex access;	  /* changing who may connect: lists are read, changed and written whole */
	struct fmutex search;	  /* looking for a pool on all disks */
	struct waitq ready_changed;
	struct rt_group keepers;
	uint64_t background_bytes_per_s;
	bool list_is_known; /* the list file was read, or there is none: it may be written */
	struct node_address addresses[NODE_ADDRESSES_MAX];
	size_t address_count;
	struct ublk_server *ublk; /* NULL: none */
	struct nvmf_server *nvmf; /* NULL: none */
};

/* ---- why (node_why.c) ------------------------------------------------------------------------------------------------ */

/* Fill `why` and return `err`. The hint is the general one for the error (may be ""). */
int why_set(struct node_why *why, int err, const char *format, ...) OX_PRINTF(3, 4);
/* The same: "<what>: <sentence of err>". */
int why_failed(struct node_why *why, int err, const char *format, ...) OX_PRINTF(3, 4);
/* The same of a file on the host, where no space is not the pool's. */
int why_file_failed(struct node_why *why, int err, const char *format, ...) OX_PRINTF(3, 4);
void why_hint(struct node_why *why, const char *format, ...) OX_PRINTF(2, 3);

/* ---- node.c ---------------------------------------------------------------------------------------------------------- */

void node_ready_check(struct node *n);	   /* something changed: wake who waits for readiness */
void node_volumes_changed(struct node *n); /* tell the platform */
struct node_pool *node_pool_new(struct node *n, const struct uuid *id, const char *name, const char *path);
void node_pool_free(struct node_pool *p);
void condition_set(struct node_pool *p, const char *reason, const char *message, const char *hint);
void condition_clear(struct node_pool *p);
/* Look whether metadata of the open pool is lost (S9), and remember since when. It serves all the same. */
void damage_look(struct node_pool *p, const struct pool_stats *stats);
void damage_condition(const struct node_pool *p, const struct pool_stats *stats, struct node_condition *out);

/* ---- node_state.c ---------------------------------------------------------------------------------------------------- */

/* Fills n->pools (not started) and the settings. */
int node_state_load(struct node *n, struct node_why *why);
int node_state_save(struct node *n, struct node_why *why);
void place_remember(struct node *n, const char *path);
/* The pool is somewhere else than its hint says. Not saved yet. */
void pool_path_set(struct node_pool *p, const char *path);

/* ---- node_keeper.c --------------------------------------------------------------------------------------------------- */

void keeper_start(struct node_pool *p);
/* Publishes an open pool: engines, background rate, state. */
void pool_opened(struct node_pool *p, struct rt_disk *disk, struct pool *pool, uint64_t open_ns);
/* Ends the keeper and closes the pool. OXE_BUSY, and nothing happened, if clients hold it. */
int pool_retire(struct node_pool *p);

/* ---- node_volume.c, node_ublk.c ---------------------------------------------------------------------------------------- */

/* The id of a volume or snapshot. */
int export_id_find(struct node *n, const char *ref, struct uuid *id, struct node_why *why);
void ublk_grown(struct node *n, const struct uuid *id);

/* ---- node_pool.c ----------------------------------------------------------------------------------------------------- */

struct node_pool *pool_by_id(const struct node *n, const struct uuid *id);
struct node_pool *pool_by_ref(const struct node *n, const char *ref, int *err, struct node_why *why);
/* Enter an open pool, or say why not. */
int pool_enter(struct node_pool *p, struct node_why *why);
/* Leave it, with what the call returned: OXE_FAILED wakes the keeper. Returns err. */
int pool_leave(struct node_pool *p, int err);

#endif
