/*
 * engine_internal.h: what the files of this room share.
 *
 *     engine.c         engines, opened and closed; what passes through them
 *     engine_store.c   what is served of a pool
 *     engine_mirror.c  what is served of a mirror; which mirrors there are
 *     engine_names.c   export names: resolved, listed
 *     engine_stats.c   records of what passed, which outlive the engine
 */
#ifndef OXBOW_DATA_ENGINE_ENGINE_INTERNAL_H
#define OXBOW_DATA_ENGINE_ENGINE_INTERNAL_H

#include "data/engine/engine.h"

struct engine_pool {
	struct list link;
	struct pool *pool;
};

struct engine_mirror {
	struct list link;
	struct mirror *mirror;
	struct engine_notes *notes;
	char name[POOL_NAME_MAX + 1];
	uint32_t users; /* calls that hold on to it beside the open engines */
};

struct engines {
	struct rt *rt;
	struct list pools, mirrors, open, records;
	struct fmutex opening;
};

/* What an export name stands for: of a pool, or of a mirror. */
struct engine_target {
	struct pool *pool;
	struct engine_mirror *mirror;
	struct uuid id, volume_id;	       /* equal unless it is a snapshot */
	char name[ENGINE_EXPORT_NAME_MAX + 1]; /* in full */
};

/* What is behind an engine, as engine.h has it. */
struct engine_ops {
	int (*open)(struct engine *e);
	void (*close)(struct engine *e);
	int (*wait)(struct engine *e, uint64_t deadline_ns);
	const struct vol_info *(*info)(struct engine *e);
	int (*read)(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes);
	/* Of what is not read-only. */
	int (*write)(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		     unsigned vol_flags);
	int (*zero)(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags);
	int (*trim)(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes);
	int (*flush)(struct engine *e);
	int (*extents)(struct engine *e, const char *since_snapshot, uint64_t offset_bytes,
		       uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
		       size_t *extent_count);
	void (*snapshot_walk)(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot), void *ctx);
};
extern const struct engine_ops engine_store_ops, engine_mirror_ops, engine_layer_ops;

struct engine {
	struct list link;
	struct engines *set;
	struct rt *rt;
	const struct engine_ops *ops;
	struct engine_target target;
	struct vol *vol;      /* of a pool's */
	struct vol_info info; /* of a mirror's */
	bool read_only;
	struct engine_stats *stats; /* counts opens and calls in flight, too */
	struct waitq room;
};

static inline bool engine_target_is_snapshot(const struct engine_target *t)
{
	return !uuid_equal(&t->id, &t->volume_id);
}

static inline bool engine_target_equal(const struct engine_target *a, const struct engine_target *b)
{
	return a->pool == b->pool && a->mirror == b->mirror && uuid_equal(&a->id, &b->id);
}

/* ---- engine_names.c ---- */

OX_CHECKED int engine_resolve(struct engines *set, const char *export_name, struct engine_target *out);
OX_CHECKED int engine_resolve_volume(struct engines *set, const struct uuid *volume_id,
				     struct engine_target *out);
OX_CHECKED int engine_resolve_id(struct engines *set, const struct uuid *id, struct engine_target *out);
/* A mirror is called otherwise now: the name in full of what is served of it. */
void engine_target_rename(struct engine_target *t);

/* ---- engine_mirror.c ---- */

/* OXE_FENCED or OXE_SHUTDOWN, once it is over. Suspends. */
OX_CHECKED int engine_mirror_over(const struct engine_mirror *m);
/* Else its snapshots may not be known yet. Does not suspend. */
bool engine_mirror_serves(const struct engine_mirror *m);
/* A named layer, by name or by id (the other NULL). OXE_NOENT. Does not suspend. */
OX_CHECKED int engine_mirror_snapshot(const struct engine_mirror *m, const char *name, const struct uuid *id,
				      struct replica_layer *out);

/* ---- engine_stats.c ---- */

/* The record of a target, new or from an earlier open. */
struct engine_stats *engine_record_get(struct engines *set, const struct engine_target *target);
/* Forget what is of this pool, or of this mirror (the other NULL). None may be in use. */
void engine_records_forget(struct engines *set, const struct pool *pool, const struct engine_mirror *mirror);
void engine_records_free(struct engines *set);
/* The mirror is called otherwise now. */
void engine_records_rename(struct engines *set, const struct engine_mirror *mirror);

#endif
