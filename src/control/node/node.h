/*
 * node.h: performs actions on this host: knows its pools, keeps them open, and carries out what the API asks of them.
 * The only room of control/ that enters data/.
 *
 *     known pool        {uuid, name, path hint} in a small file, rewritten whole and atomically. What is in the pools is
 *                       never repeated there: the disk is the only truth. A pool is known by the UUID on its disk; if the
 *                       hint's path holds another, every other place is tried and a condition says so
 *     keeper            one fiber a known pool: open (recover), watch, close when a device error stopped it, open again with
 *                       backoff (keeper.h). One stuck pool never delays another
 *     condition         what is wrong with a pool and what a person can do; there is one exactly while it is not serving
 *     reference         how people name things: POOL, VOLUME, POOL/VOLUME, [POOL/]VOLUME@SNAPSHOT, or a uuid anywhere
 *     mirrored volume   lies in several pools, here or on other nodes, and in none of them for people to see: "VOLUME". What there is of
 *                       nodes, pools and mirrored volumes is on record in the metastore (facts.h); the volume's engine runs on the
 *                       node that is its home
 *
 *   who owns memory   infos are copies; `struct node_why` is the caller's and is filled when a call fails
 *   which reactor     the one in node_options; every call is made from its fibers and Suspends unless it says otherwise
 *   errors            those of data/store/pool.h. OXE_NOTREADY: the thing may be in a pool that is not open (yet)
 *   idempotence       as in data/store/pool.h, by the caller's id; `created` tells the first time from the later ones
 */
#ifndef OXBOW_CONTROL_NODE_NODE_H
#define OXBOW_CONTROL_NODE_NODE_H

#include "data/engine/engine.h"
#include "data/engine/view.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/ublk/ublk.h"

#define NODE_PATH_MAX	   256 /* with the NUL, as in struct rt_disk_info */
#define NODE_ADDRESSES_MAX 16
#define NODE_NQN_SIZE	   256 /* with the NUL */

struct meta;
struct node;
struct replica_door;

/* Why a call failed, for a person: what happened, and what to do next. */
struct node_why {
	char message[480];
	char hint[240]; /* "" if there is no advice */
};

struct node_process {
	uint64_t resident_bytes, virtual_bytes, cpu_ns, start_wall_ns;
	uint32_t open_files, threads;
};

/* What the node needs of the host beside rt: a place for its list, and a look around. Supplied by cmd/, or by a test. All
 * may suspend. */
struct node_platform {
	void *ctx;
	/* The saved text, to be free()d. OXE_NOENT if nothing was ever saved. */
	int (*state_load)(void *ctx, char **text);
	/* Replace it atomically and durably. */
	int (*state_save)(void *ctx, const char *text);
	/* Paths that may hold pools, beside the known ones, to be free()d each and as a whole. */
	size_t (*paths_scan)(void *ctx, char ***paths);
	void (*process_stats)(void *ctx, struct node_process *out);
	/* Make clients that hold this pool's volumes go away, so that a failed pool can be closed; NULL: nobody can. */
	void (*pool_evict)(void *ctx, const char *pool_name);
	/* Volumes came, went, or changed; NULL: nobody wants to know. Must not suspend. */
	void (*volumes_changed)(void *ctx);
	/* Who may connect to this volume changed; NULL: nobody wants to know. May suspend. */
	void (*access_changed)(void *ctx, const struct uuid *volume_id);
	/* Clients of this volume are to go away: it is served elsewhere, or not at all, from now on. NULL: nobody can. */
	void (*volume_evict)(void *ctx, const struct uuid *volume_id);
	/* Nobody elsewhere uses this pool's copies any more when it returns; NULL: nobody ever does. May suspend. */
	void (*copies_evict)(void *ctx, const struct uuid *pool_id);
	/* The metastore; `words`, of NODE_WORDS_SIZE bytes, say what is wrong with it. NULL: there is none, and no mirrored volume. */
	int (*meta_open)(void *ctx, struct meta **out, char *words);
	void (*meta_close)(void *ctx, struct meta *m);
};
#define NODE_WORDS_SIZE 256

struct node_options {
	struct rt *rt;
	struct engines *engines;
	struct node_platform platform;
	uint64_t cache_bytes; /* for each pool's metadata; 0: the store's default */
	bool no_discard;      /* as in struct pool_options */
	const char *name;     /* of this node, for people; NULL: its id */
	struct uuid boot_id;  /* of this machine since it was switched on: replica.h */
	bool meta_is_shared;  /* by several nodes: each shows the others that it lives */
	const char *
		cluster_secret; /* what nodes prove to each other for copies; NULL: none. Stays the caller's */
	/* For how long a copy elsewhere may be silent until it counts as lost, and one that is lost is then waited for. 0: as
	 * replica_remote.h and mirror.h have it. */
	uint64_t copy_timeout_ns, copy_grace_ns;
};

struct node *node_new(const struct node_options *options);
/* Loads the list and starts a keeper for each known pool; does not wait for them. If the list cannot be read nothing is
 * opened and the node says why it is not ready: it never overwrites a list it could not read. */
void node_start(struct node *n);
/* Ends the keepers and closes the pools. For tests: a daemon just ends. */
void node_stop(struct node *n);
void node_free(struct node *n);
struct rt *node_rt(const struct node *n);

/* ---- readiness ----------------------------------------------------------------------------------------------------- */

struct node_condition {
	const char *reason; /* static, CamelCase: what programs match */
	char message[480], hint[240];
	uint64_t since_wall_ns;
};

/* Ready: the list was read, every known pool serves, and whatever was held (below) was released. Does not suspend. */
bool node_is_ready(const struct node *n);
/* Each reason why not; `pool_name` is "" for the node's own. Does not suspend, nor may fn. */
void node_reasons_walk(const struct node *n,
		       void (*fn)(void *ctx, const char *pool_name, const struct node_condition *c),
		       void *ctx);
/* Suspends until the node is ready or the deadline passes; returns node_is_ready. */
bool node_ready_wait(struct node *n, uint64_t deadline_ns);
/* A part of the daemon that is not up (a listener, the pool asked for at start) holds back readiness under its own name
 * until released. Set again to change the reason. Does not suspend. */
void node_hold(struct node *n, const char *name, const char *reason, const char *message, const char *hint);
void node_release(struct node *n, const char *name);

/* Where clients can connect: "unix:/path", "tcp:host:port". For the URIs the API shows. Do not suspend. */
enum node_protocol { NODE_NBD, NODE_NVME_TCP };
void node_address_add(struct node *n, const char *address, enum node_protocol protocol, bool tls);
struct node_address {
	char text[NODE_PATH_MAX];
	enum node_protocol protocol;
	bool tls;
};
size_t node_addresses(const struct node *n, const struct node_address **out);

/* ---- pools --------------------------------------------------------------------------------------------------------- */

enum node_pool_state { NODE_POOL_RECOVERING, NODE_POOL_OPEN, NODE_POOL_WAITING, NODE_POOL_CLOSING };
const char *node_pool_state_name(enum node_pool_state state); /* "recovering" ... */

struct node_pool_info {
	struct uuid id;
	char name[POOL_NAME_MAX + 1], path[NODE_PATH_MAX];
	enum node_pool_state state;
	bool has_condition,
		has_stats; /* stats only while open. A condition may stand while it is open: damage (S9) */
	struct node_condition condition;
	struct pool_stats stats;
	uint64_t open_ns;  /* how long opening took the last time; 0: never opened */
	uint64_t opens;	   /* how often it was opened since the daemon started */
	uint64_t attempts; /* how often that was tried */
};

struct node_pool_spec {
	struct uuid id; /* nil: chosen here */
	char name[POOL_NAME_MAX + 1], path[NODE_PATH_MAX];
	uint64_t size_bytes;	   /* of a file to be made; 0: what is there is taken as it is */
	char force[NODE_PATH_MAX]; /* the path again: overwrite what is there. Else "" */
};

/* A new pool on a disk or file. What holds anything is refused (OXE_OCCUPIED) unless forced by name. */
OX_CHECKED int node_pool_create(struct node *n, const struct node_pool_spec *spec, bool *created,
				struct node_pool_info *out, struct node_why *why);
/* Make a pool known that is already on `path`. For one that is known and not open: try there, now. */
OX_CHECKED int node_pool_import(struct node *n, const char *path, bool *created, struct node_pool_info *out,
				struct node_why *why);
/* Create, or import what is there: for the pool a daemon is given at start. Holds back readiness until done. */
OX_CHECKED int node_pool_ensure(struct node *n, const char *path, uint64_t size_bytes, const char *name,
				struct node_why *why);
/* Close it and forget it: the disk can go elsewhere. OXE_BUSY while clients hold its volumes. */
OX_CHECKED int node_pool_export(struct node *n, const char *ref, struct node_why *why);
/* Take over new space. `size_bytes` 0: as much as the disk now has; else a file is first extended to it. */
OX_CHECKED int node_pool_grow(struct node *n, const char *ref, uint64_t size_bytes,
			      struct node_pool_info *out, struct node_why *why);
OX_CHECKED int node_pool_check(struct node *n, const char *ref,
			       void (*fn)(void *ctx, const struct pool_problem *p), void *ctx,
			       struct pool_check_result *out, struct node_why *why);
/* Do not suspend. */
OX_CHECKED int node_pool_get(const struct node *n, const char *ref, struct node_pool_info *out,
			     struct node_why *why);
void node_pool_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_pool_info *p), void *ctx);

/* ---- volumes ------------------------------------------------------------------------------------------------------- */

#define NODE_NAME_SIZE 128

/* One copy of a mirrored volume. */
struct node_copy_info {
	struct uuid pool_id;
	char pool_name[POOL_NAME_MAX + 1], node_name[NODE_NAME_SIZE]; /* "": not known */
	const char *role,
		*session; /* "member" ...; "open", "lost", "never", or "" where its engine is not. Static */
	int last_err;
	char why[200];		     /* what is wrong with it, in words; "" nothing */
	uint64_t lost_since_wall_ns; /* 0: it answers */
	uint64_t filled_bytes, compared_bytes;
	uint32_t joins_failed;
};

/* Members compared with each other: the present run, or the last. */
struct node_scrub_info {
	bool is_running;
	uint64_t runs_done; /* to their end, since its engine started */
	uint64_t done_bytes, todo_bytes, differed_bytes, repaired_bytes;
};

struct node_mirror_info {
	struct uuid home_id;
	char home_name[NODE_NAME_SIZE];
	const char *state,
		*doing; /* "creating", "live", "deleting"; what its engine does next, "" elsewhere. Static */
	bool is_here, serves;
	uint64_t epoch;
	uint32_t intent_count, unsettled_count, held_requests, copy_count;
	struct node_copy_info copies[VIEW_REPLICAS_MAX];
	struct node_scrub_info scrub; /* zero where its engine is not */
	bool has_condition;	      /* it does not serve, or a copy is away */
	struct node_condition condition;
};

struct node_volume {
	struct volume_info info;
	struct uuid pool_id; /* nil for a mirrored one */
	char pool_name[POOL_NAME_MAX + 1];
	bool is_mirrored;
	struct node_mirror_info mirror;
};

/* `pool_ref` "": the only known pool. */
OX_CHECKED int node_volume_create(struct node *n, const char *pool_ref, const struct volume_spec *spec,
				  bool *created, struct node_volume *out, struct node_why *why);
OX_CHECKED int node_volume_clone(struct node *n, const char *snapshot_ref, const struct volume_spec *spec,
				 bool full_copy, bool *created, struct node_volume *out,
				 struct node_why *why);
/* A mirrored volume with a copy in each of these pools, "POOL,POOL...", of this node or others; this node is its home. Returns when it
 * serves; OXE_NOTREADY: it is on record, and does not serve yet. */
OX_CHECKED int node_volume_create_mirrored(struct node *n, const char *pools, const struct volume_spec *spec,
					   bool *created, struct node_volume *out, struct node_why *why);
/* One copy more, filled in the background; one less. 0 if it is so. OXE_BUSY: the last member is not forgotten. */
OX_CHECKED int node_copy_add(struct node *n, const char *ref, const char *pool_ref, struct node_volume *out,
			     struct node_why *why);
OX_CHECKED int node_copy_forget(struct node *n, const char *ref, const char *pool_ref,
				struct node_volume *out, struct node_why *why);
/* Compare its members once, in the background, at most so many bytes a second (0: no limit), and repair what more than half agree on; or
 * stop. */
OX_CHECKED int node_volume_scrub(struct node *n, const char *ref, bool start, uint64_t bytes_per_s,
				 struct node_volume *out, struct node_why *why);
/* Another node is its home from now on: an engine starts there, and the one before is fenced. */
OX_CHECKED int node_volume_move(struct node *n, const char *ref, const char *node_ref,
				struct node_volume *out, struct node_why *why);
/* V9: go on with the copy in that pool alone, whatever other members that never return may have. Without accept_loss nothing is done: OXE_BUSY,
 * and `why` says what would be lost. Refused as mirror_salvage has it. 0: it is salvaged, and serves or is about to. */
OX_CHECKED int node_volume_salvage(struct node *n, const char *ref, const char *pool_ref, bool accept_loss,
				   struct node_volume *out, struct node_why *why);
OX_CHECKED int node_volume_get(struct node *n, const char *ref, struct node_volume *out,
			       struct node_why *why);
/* Rename (unless `name` is NULL) and grow (unless size_bytes is 0), in this order. */
OX_CHECKED int node_volume_change(struct node *n, const char *ref, const char *name, uint64_t size_bytes,
				  struct node_volume *out, struct node_why *why);
/* By uuid, a volume that is not there is deleted already: 0. By name it is OXE_NOENT. */
OX_CHECKED int node_volume_delete(struct node *n, const char *ref, struct node_why *why);
OX_CHECKED int node_volume_flatten(struct node *n, const char *ref, bool start, struct node_volume *out,
				   struct node_why *why);
/* `snapshot` is a name, a uuid or a full reference. */
OX_CHECKED int node_volume_revert(struct node *n, const char *ref, const char *snapshot,
				  const struct uuid *head_id, struct node_volume *out, struct node_why *why);
/* `pool_ref` "": of every pool. Does not suspend, nor may fn. */
OX_CHECKED int node_volume_walk(struct node *n, const char *pool_ref,
				bool (*fn)(void *ctx, const struct node_volume *v), void *ctx,
				struct node_why *why);
/* Of mirrored ones alone. Does not suspend, nor may fn. */
void node_mirrored_walk(struct node *n, bool (*fn)(void *ctx, const struct node_volume *v), void *ctx);
/* As vol_extents, of a volume or snapshot. `since` "": none; else a snapshot's name, uuid or reference. A len_bytes of
 * UINT64_MAX means to the end; *end_bytes is where the description ends. */
OX_CHECKED int node_extents(struct node *n, const char *ref, const char *since, uint64_t offset_bytes,
			    uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			    size_t *extent_count, uint64_t *end_bytes, struct node_why *why);

/* ---- the nodes that share a metastore -------------------------------------------------------------------------------- */

struct node_info {
	struct uuid id;
	char name[NODE_NAME_SIZE], address[NODE_NAME_SIZE]; /* address of its copies; "" it serves none */
	bool is_this, is_alive;				    /* alive: it said so lately */
	uint32_t pool_count, volume_count; /* on record with it; volumes: those it is the home of */
};
/* Does not suspend, nor may fn. */
void node_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_info *i), void *ctx);
/* The door of an open pool, for copies of engines elsewhere; NULL: it is not open, or about to be closed. `ctx` is the node. Does not
 * suspend. */
struct replica_door *node_door_find(void *ctx, const struct uuid *pool_id);

/* ---- who may connect to a volume over NVMe (node_access.c) ------------------------------------------------------------- */

/* One on a volume's list; with an empty list anybody who reaches the listener may. Secrets go in and never come out. */
struct node_host {
	char nqn[NODE_NQN_SIZE];
	bool has_secret, has_controller_secret, has_tls_key;
};

/* "": none. */
struct node_host_secrets {
	const char *secret, *controller_secret; /* text as `nvme gen-dhchap-key` makes it */
	const char *tls_key;			/* the same of `nvme gen-tls-key` */
};

/* Put a host on the list, or give one that is there these secrets and no others. OXE_RANGE: the list is
 * full. */
OX_CHECKED int node_volume_allow(struct node *n, const char *ref, const char *nqn,
				 const struct node_host_secrets *secrets, bool *created,
				 struct node_host *out, struct node_why *why);
/* Take a host off it, and its connections away. The last one only `to_anyone`: an empty list keeps nobody out (else
 * OXE_BUSY). One that is not on it is off it already: 0. */
OX_CHECKED int node_volume_disallow(struct node *n, const char *ref, const char *nqn, bool to_anyone,
				    struct node_why *why);
/* Take the whole list away, also one that cannot be read; only `to_anyone` (else OXE_BUSY). OXE_CORRUPT: not even the page it is
 * on can be believed. */
OX_CHECKED int node_volume_disallow_all(struct node *n, const char *ref, bool to_anyone,
					struct node_why *why);
/* In the order they were put there. fn must not suspend. */
OX_CHECKED int node_volume_hosts(struct node *n, const char *ref,
				 void (*fn)(void *ctx, const struct node_host *host), void *ctx,
				 struct node_why *why);

/* ---- who is connected over NVMe (node_nvme.c) ------------------------------------------------------------------------ */

/* The target; not the node's to free. Does not suspend. */
void node_nvme_set(struct node *n, struct nvmf_server *server);
/* False: NVMe is not served. Does not suspend. */
bool node_nvme_stats(const struct node *n, struct nvmf_stats *out);
/* As nvmf_server_walk; of one volume or snapshot only, unless `id` is NULL. Does not suspend, nor may fn. */
void node_nvme_walk(const struct node *n, const struct uuid *id,
		    bool (*fn)(void *ctx, const struct nvmf_association *a), void *ctx);
/* The id of a volume or snapshot. */
OX_CHECKED int node_export_id(struct node *n, const char *ref, struct uuid *id, struct node_why *why);

struct node_registrant {
	struct uuid host_id;
	uint64_t key;
	bool is_holder;
};

struct node_reservation {
	bool is_unreadable; /* and so keeps every host out; nothing below is known then */
	const char *type;   /* static: "none", "write exclusive" ... */
	bool persists;	    /* through power loss */
	uint32_t generation;
	size_t count;
	struct node_registrant registrants[NVMF_REGISTRANTS_MAX];
};

OX_CHECKED int node_volume_reservation(struct node *n, const char *ref, struct node_reservation *out,
				       struct node_why *why);
/* Take every registration and the reservation away, readable or not. None is no error. Who was registered is told. */
OX_CHECKED int node_volume_unreserve(struct node *n, const char *ref, struct node_why *why);

/* ---- snapshots ----------------------------------------------------------------------------------------------------- */

struct node_snapshot {
	struct snapshot_info info;
	struct uuid pool_id;
	char pool_name[POOL_NAME_MAX + 1], volume_name[POOL_NAME_MAX + 1];
};

OX_CHECKED int node_snapshot_create(struct node *n, const char *volume_ref, const struct uuid *id,
				    const char *name, bool *created, uint64_t *pause_ns,
				    struct node_snapshot *out, struct node_why *why);
OX_CHECKED int node_snapshot_get(struct node *n, const char *ref, struct node_snapshot *out,
				 struct node_why *why);
OX_CHECKED int node_snapshot_rename(struct node *n, const char *ref, const char *name,
				    struct node_snapshot *out, struct node_why *why);
/* As node_volume_delete. */
OX_CHECKED int node_snapshot_delete(struct node *n, const char *ref, struct node_why *why);
OX_CHECKED int node_snapshot_usage(struct node *n, const char *ref, struct node_snapshot *out,
				   struct snapshot_usage *usage, struct node_why *why);
/* `volume_ref` "": of every volume of every pool. Does not suspend, nor may fn. */
OX_CHECKED int node_snapshot_walk(struct node *n, const char *volume_ref,
				  bool (*fn)(void *ctx, const struct node_snapshot *s), void *ctx,
				  struct node_why *why);

/* ---- jobs ---------------------------------------------------------------------------------------------------------- */

struct node_job {
	struct pool_job info;
	struct uuid pool_id;
	char pool_name[POOL_NAME_MAX + 1];
};

/* Does not suspend, nor may fn. */
void node_job_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_job *j), void *ctx);
/* Does not suspend. OXE_NOENT: there is none (any more). */
OX_CHECKED int node_job_get(const struct node *n, const struct uuid *id, struct node_job *out,
			    struct node_why *why);
OX_CHECKED int node_job_cancel(struct node *n, const struct uuid *id, struct node_why *why);
/* The limit on background copying in every pool, remembered over restarts; 0: none. */
uint64_t node_job_rate(const struct node *n);
OX_CHECKED int node_job_rate_set(struct node *n, uint64_t bytes_per_s, struct node_why *why);

/* ---- what passed through each export ------------------------------------------------------------------------------- */

/* As engines_stats_walk. Does not suspend, nor may fn. */
void node_exports_walk(struct node *n, bool (*fn)(void *ctx, const char *name, const struct engine_stats *s),
		       void *ctx);

/* ---- volumes and snapshots as block devices of this host ------------------------------------------------------------- */

/* Who makes them; not the node's to free. Does not suspend. */
void node_ublk_set(struct node *n, struct ublk_server *server);
/* As ublk_server_attach and ublk_server_detach. `ref` may also be a device: /dev/ublkbN. */
OX_CHECKED int node_ublk_attach(struct node *n, const char *ref, bool *created, struct ublk_info *out,
				struct node_why *why);
OX_CHECKED int node_ublk_detach(struct node *n, const char *ref, bool force, struct node_why *why);
/* Do not suspend, nor may fn. */
OX_CHECKED int node_ublk_get(struct node *n, const char *ref, struct ublk_info *out, struct node_why *why);
void node_ublk_walk(struct node *n, bool (*fn)(void *ctx, const struct ublk_info *a), void *ctx);
const char *node_ublk_state_name(const struct ublk_info *a);

/* ---- names of things, so that rooms above need not enter data/ ------------------------------------------------------- */

bool node_name_is_valid(const char *name); /* as pool_name_check */
const char *node_op_name(enum engine_op op);
const char *node_job_kind_name(const struct node_job *job);
/* By which NVMe hosts know a volume, and a snapshot. */
void node_volume_nqn(const struct uuid *volume_id, char nqn[NODE_NQN_SIZE]);
void node_snapshot_nqn(const struct uuid *snapshot_id, char nqn[NODE_NQN_SIZE]);

/* ---- the process --------------------------------------------------------------------------------------------------- */

void node_process_stats(struct node *n, struct node_process *out);

#endif
