/*
 * engine_stats.c: what passed through each export, kept by the id of what it served for as long as that exists.
 */
#include "data/engine/engine_internal.h"

struct record {
	struct list link;
	struct engine_target target;
	struct engine_stats stats;
};

static struct record *find(struct engines *set, const struct engine_target *target)
{
	struct record *r;
	list_for_each (r, &set->records, link)
		if (engine_target_equal(&r->target, target))
			return r;
	return NULL;
}

static void forget(struct record *r)
{
	assert(r->stats.open_count == 0);
	list_del(&r->link);
	free(r);
}

static bool still_exists(const struct record *r)
{
	struct volume_info volume;
	struct snapshot_info snapshot;
	struct replica_layer layer;
	const struct engine_target *t = &r->target;
	bool is_snapshot = engine_target_is_snapshot(t);
	if (t->mirror) /* a volume's ends with its mirror */
		return !is_snapshot || engine_mirror_snapshot(t->mirror, NULL, &t->id, &layer) == 0;
	return is_snapshot ? snapshot_get(t->pool, &t->id, &snapshot) == 0
			   : volume_get(t->pool, &t->id, &volume) == 0;
}

static void forget_the_gone(struct engines *set)
{
	struct record *r, *tmp;
	list_for_each_safe (r, tmp, &set->records, link)
		if (r->stats.open_count == 0 && !still_exists(r))
			forget(r);
}

struct engine_stats *engine_record_get(struct engines *set, const struct engine_target *target)
{
	struct record *r = find(set, target);
	if (!r) {
		forget_the_gone(set); /* so that what comes and goes does not pile up where nobody walks */
		r = mem_zalloc(sizeof(*r));
		list_add_tail(&set->records, &r->link);
	}
	r->target = *target;
	return &r->stats;
}

void engine_records_forget(struct engines *set, const struct pool *pool, const struct engine_mirror *mirror)
{
	struct record *r, *tmp;
	list_for_each_safe (r, tmp, &set->records, link)
		if (r->target.pool == pool && r->target.mirror == mirror)
			forget(r);
}

void engine_records_free(struct engines *set)
{
	struct record *r, *tmp;
	list_for_each_safe (r, tmp, &set->records, link)
		forget(r);
}

void engine_records_rename(struct engines *set, const struct engine_mirror *mirror)
{
	struct record *r;
	list_for_each (r, &set->records, link)
		if (r->target.mirror == mirror)
			engine_target_rename(&r->target);
}

void engines_stats_walk(struct engines *set,
			bool (*fn)(void *ctx, const char *name, const struct engine_stats *s), void *ctx)
{
	struct record *r;
	forget_the_gone(set);
	list_for_each (r, &set->records, link)
		if (!fn(ctx, r->target.name, &r->stats))
			return;
}

const char *engine_op_name(enum engine_op op)
{
	static const char *const names[ENGINE_OPS] = {
		[ENGINE_READ] = "read", [ENGINE_WRITE] = "write", [ENGINE_ZERO] = "zero",
		[ENGINE_TRIM] = "trim", [ENGINE_FLUSH] = "flush",
	};
	return names[op];
}
