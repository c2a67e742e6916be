/*
 * engine_internal.h: what the files of this room share.
 *
 *     engine.c        engines, opened and closed; what passes through them
 *     engine_names.c  export names: resolved, listed
 *     engine_stats.c  records of what passed, which outlive the engine
 */
#ifndef OXBOW_DATA_ENGINE_ENGINE_INTERNAL_H
#define OXBOW_DATA_ENGINE_ENGINE_INTERNAL_H

#include "data/engine/engine.h"

struct engine_pool {
	struct list link;
	struct pool *pool;
};

struct engines {
	struct rt *rt;
	struct list pools, open, records;
	struct fmutex opening;
};

struct engine {
	struct list link;
	struct engines *set;
	struct rt *rt;
	struct pool *pool;
	struct vol *vol;
	struct uuid id, volume_id; /* equal unless it serves a snapshot */
	char name[ENGINE_EXPORT_NAME_MAX + 1];
	struct engine_stats *stats; /* counts opens and calls in flight, too */
	struct waitq room;
};

/* What an export name stands for. */
struct engine_target {
	struct pool *pool;
	struct uuid id, volume_id;
	char name[ENGINE_EXPORT_NAME_MAX + 1]; /* in full */
};

/* ---- engine_names.c ---- */

OX_CHECKED int engine_resolve(struct engines *set, const char *export_name, struct engine_target *out);
OX_CHECKED int engine_resolve_volume(struct engines *set, const struct uuid *volume_id,
				     struct engine_target *out);
OX_CHECKED int engine_resolve_id(struct engines *set, const struct uuid *id, struct engine_target *out);

/* ---- engine_stats.c ---- */

/* The record of a target, new or from an earlier open. */
struct engine_stats *engine_record_get(struct engines *set, const struct engine_target *target);
/* Forget a pool's records; NULL: all. None may be in use. */
void engine_records_free(struct engines *set, const struct pool *pool);

#endif
