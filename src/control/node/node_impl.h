/*
 * node_impl.h: what node.c (lifecycle, readiness), node_state.c (the list), node_pool.c (pool actions), node_keeper.c (the
 * keeper fibers), node_volume.c (what is in pools), node_meta.c (the metastore), node_nodes.c (the nodes that share it), node_mirror.c
 * (the keepers of mirrored volumes), node_mirrored.c, mirrored_*.c and node_salvage.c (what is asked of those; mirrored.h has what they share) and
 * node_reap.c (copies that are none any more) and node_orphan.c (copies that nothing names) share.
 *
 * A pool may be closed by its keeper while a call into it is suspended. So every call enters and leaves: `users` counts those
 * inside, and whoever closes first changes the state, so that nobody enters any more, and then waits for users to be 0.
 */
#ifndef OXBOW_CONTROL_NODE_NODE_IMPL_H
#define OXBOW_CONTROL_NODE_NODE_IMPL_H

#include "control/node/facts.h"
#include "control/node/keeper.h"
#include "control/node/node.h"
#include "control/node/views.h"
#include "control/node/way.h"

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

	struct pool *pool;	   /* NULL unless open */
	struct replica_door *door; /* for copies in it; NULL unless open, and while it is being closed */
	struct rt_disk *disk;
	uint32_t users;
	uint64_t open_ns, opens, attempts;

	bool has_condition; /* why it is not open */
	struct node_condition condition;
	uint64_t
		damage_since_wall_ns; /* open, and part of its metadata is lost; 0: as far as is known it is whole */
};

/* A mirrored volume whose home is this node, or was a moment ago. */
struct mirrored {
	struct list link;
	struct node *node;
	struct uuid id;
	char name[POOL_NAME_MAX + 1]; /* under which it is served */
	struct mirror *mirror;	      /* NULL: no engine runs here */
	bool was_served;	      /* by any engine since the daemon started */
	bool is_poked;
	struct fmutex lock; /* the keeper's step, or a verb that stops the engine */
	struct waitq changed;
	uint32_t users; /* verbs that hold it */
	uint32_t failures;
	uint64_t retry_ns;	      /* not before */
	uint64_t waits_since_wall_ns; /* 0: it serves */
	bool has_condition;
	struct node_condition condition;
	struct engine_notes notes;
};

#define NODE_META_WHY 256
#define NODE_BEAT_NS  (5 * NS_PER_S)

struct node_meta {
	struct meta *client; /* NULL: away */
	struct meta_watch *watch;
	uint32_t users;
	bool must_close, leaving, is_known; /* known: the facts are those of some moment */
	struct facts facts;
	uint64_t revision, opens; /* of the facts; how often it was opened */
	struct waitq changed, facts_changed, register_kick;
	uint64_t register_kicks;
	char why[NODE_META_WHY]; /* what was wrong last; "" nothing */
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
	struct uuid id;
	char name[FACT_TEXT_MAX];
	struct node_meta meta;
	struct views views;
	struct ways ways;
	struct list mirrored; /* of struct mirrored */
	struct waitq reap_changed;
	uint64_t reap_kicks;
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

/* ---- node_meta.c ----------------------------------------------------------------------------------------------------- */

void node_meta_init(struct node *n);
void node_meta_start(struct node *n);
void node_meta_stop(struct node *n); /* the fibers end by themselves (n->keepers) */
/* The client, held until left; NULL: there is none now. `ctx` is the node. */
struct meta *node_meta_enter(void *ctx);
void node_meta_leave(void *ctx, int err);
/* Says why there is none. OXE_NOTREADY. */
int node_meta_away(struct node *n, struct node_why *why);
/* meta_commit_settled; when it returns 0 the facts have it. `what` begins the sentence of a failure. */
OX_CHECKED int node_meta_commit(struct node *n, const struct meta_txn *txn, const char *what,
				struct node_why *why);
/* One key, which was of this revision. Frees the value; NULL deletes. */
OX_CHECKED int node_meta_put(struct node *n, const char *key, char *value, uint64_t revision,
			     const char *what, struct node_why *why);
void node_register_kick(struct node *n); /* a pool was opened, or an address stands */
void pool_unregister(struct node *n, const struct uuid *pool_id);

/* ---- node_mirror.c ---------------------------------------------------------------------------------------------------- */

void mirrored_init(struct node *n);
/* The facts changed: keepers look, and those that are missing start. Does not suspend. */
void mirrored_look(struct node *n);
struct mirrored *mirrored_find(const struct node *n, const struct uuid *id);
/* Its engine ends, with v->lock held. By force its clients are sent away, and come back to whoever serves then; else OXE_BUSY while
 * there are any. */
int mirrored_engine_stop(struct mirrored *v, bool by_force);
void mirrored_poke(struct mirrored *v);

/* ---- node_mirrored.c, mirrored_*.c: as node.h has them, of mirrored volumes ---------------------------------------------------------------- */

/* By name or uuid; NULL: there is none. Does not suspend. */
const struct fact_volume *mirrored_by_ref(const struct node *n, const char *ref);
/* Is it "VOLUME@SNAPSHOT" of one, or the uuid of a snapshot? */
bool mirrored_has_snapshot(const struct node *n, const char *ref);
OX_CHECKED int mirrored_get(struct node *n, const struct uuid *id, struct node_volume *out,
			    struct node_why *why);
/* pool_id NULL: all. */
void mirrored_walk(struct node *n, const struct uuid *pool_id,
		   bool (*fn)(void *ctx, const struct node_volume *v), void *ctx);
OX_CHECKED int mirrored_rename(struct node *n, const struct uuid *id, const char *name, struct node_why *why);
OX_CHECKED int mirrored_grow(struct node *n, const struct uuid *id, uint64_t size_bytes,
			     struct node_why *why);
OX_CHECKED int mirrored_delete(struct node *n, const struct uuid *id, struct node_why *why);
OX_CHECKED int mirrored_revert(struct node *n, const struct uuid *volume_id, const char *snapshot,
			       const struct uuid *head_id, struct node_why *why);
OX_CHECKED int mirrored_snapshot_create(struct node *n, const struct uuid *volume_id, const struct uuid *id,
					const char *name, bool *created, uint64_t *pause_ns,
					struct node_snapshot *out, struct node_why *why);
OX_CHECKED int mirrored_snapshot_get(struct node *n, const char *ref, struct node_snapshot *out,
				     struct node_why *why);
OX_CHECKED int mirrored_snapshot_rename(struct node *n, const char *ref, const char *name,
					struct node_snapshot *out, struct node_why *why);
OX_CHECKED int mirrored_snapshot_delete(struct node *n, const char *ref, struct node_why *why);
/* volume_id NULL: of all. False: fn stopped it. */
bool mirrored_snapshot_walk(struct node *n, const struct uuid *volume_id,
			    bool (*fn)(void *ctx, const struct node_snapshot *s), void *ctx);
OX_CHECKED int mirrored_extents(struct node *n, const char *ref, const char *since, uint64_t offset_bytes,
				uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
				size_t *extent_count, uint64_t *end_bytes, struct node_why *why);
OX_CHECKED int mirrored_export_id(struct node *n, const char *ref, struct uuid *id, struct node_why *why);
/* Why it does not serve. Does not suspend. */
void mirrored_condition(const struct mirrored *v, struct node_condition *out);
/* What cannot be done with a mirrored volume, said so. OXE_UNSUPPORTED. */
int mirrored_cannot(const char *ref, const char *what, struct node_why *why);

/* ---- mirrored_notes.c ---------------------------------------------------------------------------------------------------- */

/* A mirrored volume's notes: as pool_note_get and pool_note_set; OXE_NOTREADY, OXE_DIFFERS. */
OX_CHECKED int node_note_get(struct node *n, const struct uuid *volume_id, enum pool_note_kind kind,
			     void *data, uint32_t *len_bytes);
OX_CHECKED int node_note_set(struct node *n, const struct uuid *volume_id, enum pool_note_kind kind,
			     const void *data, uint32_t len_bytes);

/* ---- node_nodes.c -------------------------------------------------------------------------------------------------------- */

/* Its name, or what there is instead. */
const char *node_call(const struct node *n, const struct uuid *id, char out[NODE_NAME_SIZE]);
/* By name or uuid. OXE_NOENT, OXE_INVAL: several are called so. */
OX_CHECKED int node_resolve(const struct node *n, const char *ref, struct uuid *id, struct node_why *why);

/* ---- node_orphan.c ---- */

/* The pool is open, and has copies that nothing on record names. False: it has none. Does not suspend. */
bool orphans_condition(const struct node_pool *p, struct node_condition *out);

/* ---- node_reap.c --------------------------------------------------------------------------------------------------------- */

void reaper_start(struct node *n);
void reaper_kick(struct node *n);

/* ---- node_volume.c: is it a name and a size that a volume can have? --------------------------------------------------------- */

OX_CHECKED int volume_spec_check(const struct volume_spec *spec, struct node_why *why);

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
