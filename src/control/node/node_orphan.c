/*
 * node_orphan.c: copies of mirrored volumes that are in a pool here, and that nothing on record names: the metastore was lost, or the pool comes from
 * nodes with another one. They stay as they are, and are served to nobody; a person is told that they are there.
 *
 *     on record                                          a copy in the pool
 *     a view that has the pool                           is a copy
 *     the volume, and no view that is known here         may be one, and nothing is said
 *     that it is to be reaped                            is seen to
 *     nothing of these                                   is an orphan
 */
#include "base/size.h"
#include "control/node/node_impl.h"

#include <stdio.h>

struct orphans {
	const struct node_pool *pool;
	uint32_t count;
	struct uuid first_id;
	uint64_t own_bytes;
};

static bool view_has(const struct fact_view *view, const struct uuid *pool_id)
{
	for (uint32_t i = 0; i < view->count; i++)
		if (uuid_equal(&view->pools[i], pool_id))
			return true;
	return false;
}

static bool is_named(const struct node *n, const struct uuid *pool_id, const struct uuid *volume_id)
{
	const struct fact_view *view = facts_view(&n->meta.facts, volume_id);
	if (facts_reap(&n->meta.facts, pool_id, volume_id))
		return true;
	return view ? view_has(view, pool_id) : facts_volume(&n->meta.facts, volume_id) != NULL;
}

static bool look(void *ctx, const struct volume_info *v)
{
	struct orphans *o = ctx;
	if (!way_name_is_copy(v->name) || is_named(o->pool->node, &o->pool->id, &v->id))
		return true;
	if (!o->count++)
		o->first_id = v->id;
	o->own_bytes += v->own_bytes;
	return true;
}

bool orphans_condition(const struct node_pool *p, struct node_condition *out)
{
	struct orphans o = {.pool = p};
	char id[UUID_TEXT_LEN + 1], size[SIZE_TEXT_MAX];
	if (!p->node->meta.is_known)
		return false;
	volume_walk_any(p->pool, look, &o);
	if (!o.count)
		return false;
	*out = (struct node_condition){.reason = "CopiesUnknown"};
	snprintf(out->message, sizeof(out->message),
		 "%u %s (%s) in this pool %s on record in the metastore, and not served: of volume %s%s",
		 o.count, o.count == 1 ? "copy" : "copies", size_format(o.own_bytes, size),
		 o.count == 1 ? "is not" : "are not", uuid_format(&o.first_id, id),
		 o.count == 1 ? "" : " and others");
	snprintf(out->hint, sizeof(out->hint),
		 "was metastore.db lost, or is it not the one of these volumes (oxbowd --metastore)? Nothing "
		 "in the "
		 "pool is removed");
	return true;
}
