/*
 * node_reap.c: frees the space of copies that are none any more. Which those are is on record (facts.h): written by the transaction that
 * deletes the volume, or before a copy is forgotten; nothing is ever deleted because nobody seems to know it.
 *
 *     on record    a view has the pool      to do
 *     waiting      yes                      nothing: it is a copy still, or again
 *                  no                       record that it has begun
 *     begun        yes                      record that it has not: a copy is only added again while it has not begun (mirrored_copies.c)
 *                  no                       delete what is there, and then the record
 *
 * Each node does this for the pools it has open; a pool that is away is seen to when it is back.
 */
#include "control/node/node_impl.h"

#include "base/log.h"

#define RETRY_NS NS_PER_S

static int is_copy(struct node *n, const struct fact_reap *r, bool *yes)
{
	struct view *view = mem_zalloc(sizeof(*view));
	uint64_t revision;
	int err = n->views.store.get(&n->views.store, &r->volume_id, view, &revision);
	*yes = !err && view_find(view, &r->pool_id);
	free(view);
	return err == OXE_NOENT ? 0 : err;
}

static int record(struct node *n, const struct fact_reap *r, char *value)
{
	char key[FACT_KEY_SIZE];
	struct node_why why;
	fact_reap_key(key, &r->pool_id, &r->volume_id);
	return node_meta_put(n, key, value, r->revision, "a copy to be removed", &why);
}

static int copy_delete(struct node *n, const struct fact_reap *r)
{
	struct node_why why;
	struct node_pool *p = pool_by_id(n, &r->pool_id);
	int err = p ? pool_enter(p, &why) : OXE_NOTREADY;
	if (err)
		return err;
	err = p->door ? replica_local_delete(p->door, &r->volume_id) : OXE_NOTREADY;
	return pool_leave(p, err);
}

/* OXE_BUSY: it is to be looked at again. */
static int reap_one(struct node *n, const struct fact_reap *r)
{
	bool yes;
	int err = is_copy(n, r, &yes);
	if (err)
		return err;
	if (yes)
		return r->begun ? record(n, r, fact_reap_value(false)) : 0;
	if (!r->begun)
		return record(n, r, fact_reap_value(true));
	err = copy_delete(n, r);
	if (!err)
		err = record(n, r, NULL);
	if (!err)
		LOG_INFO("copy.reaped", "a copy of a volume that is none any more was removed",
			 F_UUID("volume", &r->volume_id), F_UUID("pool", &r->pool_id));
	return err;
}

static bool is_here(const struct node *n, const struct uuid *pool_id)
{
	const struct node_pool *p = pool_by_id(n, pool_id);
	return p && p->door && !p->closing;
}

/* Copied: the table may change while one is seen to. To be free()d. */
static struct fact_reap *collect(const struct node *n, size_t *count)
{
	const struct fact_reap *r;
	struct fact_reap *batch = NULL;
	*count = 0;
	list_for_each (r, &n->meta.facts.reaps, link) {
		if (!is_here(n, &r->pool_id))
			continue;
		batch = mem_realloc(batch, (*count + 1) * sizeof(*batch));
		batch[(*count)++] = *r;
	}
	return batch;
}

static bool reap_all(struct node *n)
{
	size_t count;
	struct fact_reap *batch = collect(n, &count);
	bool all_well = true;
	for (size_t i = 0; i < count && !n->meta.leaving; i++)
		all_well &= reap_one(n, &batch[i]) == 0;
	free(batch);
	return all_well;
}

static void reaper_main(void *arg)
{
	struct node *n = arg;
	while (!n->meta.leaving) {
		uint64_t kicks = n->reap_kicks;
		bool all_well = reap_all(n);
		if (n->meta.leaving || kicks != n->reap_kicks)
			continue;
		if (all_well)
			waitq_wait(&n->reap_changed);
		else
			waitq_wait_until(&n->reap_changed, rt_now_ns(n->options.rt) + RETRY_NS);
	}
	group_done(&n->keepers);
}

void reaper_kick(struct node *n)
{
	n->reap_kicks++;
	waitq_wake_all(&n->reap_changed);
}

void reaper_start(struct node *n)
{
	group_add(&n->keepers, 1);
	fiber_spawn(n->options.rt, "reaper", reaper_main, n);
}
