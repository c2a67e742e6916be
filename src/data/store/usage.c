/*
 * usage.c: what a snapshot shares and what it alone holds on to, counted from the maps.
 *
 * A block that a snapshot sees is exclusive if nobody else sees it: none of the branches above it lets it through, and on the
 * way down to the layer that holds it no other reader stands and no side branch lets it through. Everything is done on the 16
 * blocks of a cluster at once, as masks. The tree stands still meanwhile: jobs are paused and control operations wait.
 */
#include "data/store/resolve.h"
#include "data/store/store.h"

static int entry_of(struct layer *l, uint32_t index, struct map_entry *e)
{
	struct page *leaf;
	*e = (struct map_entry){0};
	int err = page_get(&l->map, 0, index / PAGE_FANOUT, false, &leaf);
	if (err)
		return err == OXE_NOENT ? 0 : err;
	*e = *map_entry_view(leaf, index);
	page_unpin(leaf);
	return 0;
}

static bool is_reader(const struct layer *l)
{
	return l->named || !l->sealed;
}

/* Which of `mask`, defined below `l`, some reader at or above `l` sees through it. */
static int seen_through(struct layer *l, uint32_t index, uint16_t mask, uint16_t *seen)
{
	struct map_entry e;
	struct layer *child;
	int err = entry_of(l, index, &e);
	mask &= (uint16_t)~e.defined;
	if (err || !mask)
		return err;
	if (is_reader(l)) {
		*seen |= mask;
		return 0;
	}
	list_for_each (child, &l->children, sibling) {
		err = seen_through(child, index, mask, seen);
		if (err)
			return err;
	}
	return 0;
}

static int seen_by_branches(struct layer *l, const struct layer *except, uint32_t index, uint16_t *seen)
{
	struct layer *child;
	list_for_each (child, &l->children, sibling) {
		int err = child == except || MUTANT(54) ? 0 : seen_through(child, index, UINT16_MAX, seen);
		if (err)
			return err;
	}
	return 0;
}

static int count_cluster(struct layer *snapshot, uint32_t index, struct snapshot_usage *out)
{
	uint16_t open = UINT16_MAX, hidden = UINT16_MAX;
	const struct layer *from = NULL;
	for (struct layer *l = snapshot; l && open; from = l, l = l->parent) {
		struct map_entry e;
		uint16_t seen = 0;
		int err = entry_of(l, index, &e);
		if (!err)
			err = seen_by_branches(l, from, index, &seen);
		if (err)
			return err;
		hidden = l != snapshot && is_reader(l) && !MUTANT(53) ? 0 : hidden & (uint16_t)~seen;
		uint16_t data = e.defined & open & (uint16_t)~e.zero;
		out->referenced_bytes += (unsigned)__builtin_popcount(data) * POOL_BLOCK_BYTES;
		out->exclusive_bytes += (unsigned)__builtin_popcount(data & hidden) * POOL_BLOCK_BYTES;
		open &= (uint16_t)~e.defined;
	}
	return 0;
}

static int count_all(struct pool *pool, struct layer *snapshot, struct snapshot_usage *out)
{
	uint32_t index = 0;
	for (;; index++) {
		int err = resolve_next(pool, resolve_from, snapshot, NULL, index, &index);
		if (err)
			return err == OXE_NOENT ? 0 : err;
		err = count_cluster(snapshot, index, out);
		if (err)
			return err;
		if (index % PAGE_FANOUT == 0)
			fiber_yield();
	}
}

int snapshot_usage(struct pool *pool, const struct uuid *snapshot_id, struct snapshot_usage *out)
{
	*out = (struct snapshot_usage){0};
	fmutex_lock(&pool->control);
	jobs_pause(pool->jobs);
	struct layer *l = catalog_layer_by_id(pool->catalog, snapshot_id);
	int err = catalog_is_damaged(pool->catalog) ? OXE_CORRUPT /* who else sees a block is not known */
		  : l && l->named		    ? count_all(pool, l, out)
						    : OXE_NOENT;
	out->shared_bytes = out->referenced_bytes - out->exclusive_bytes;
	jobs_resume(pool->jobs);
	fmutex_unlock(&pool->control);
	return err;
}
