/*
 * usage.c: what a snapshot shares and what it alone holds on to, counted from the maps.
 *
 * A block that a snapshot sees is exclusive if nobody else sees it: none of the branches above it lets it through, and on the
 * way down to the layer that holds it no other reader stands and no side branch lets it through. Everything is done on the 16
 * blocks of a cluster at once, as masks, and on the clusters of one leaf of the map at once, so that a layer is looked up once for
 * them. The tree stands still for a leaf: jobs are paused and control operations wait. Between leaves they have their turn.
 */
#include "data/store/store.h"

#define LAYERS_A_TURN 32u /* looked at before others run */

/* A mask for each cluster of a leaf. */
struct masks {
	uint16_t of[PAGE_FANOUT];
};

struct count {
	struct layer *snapshot;
	uint64_t leaf;
	struct masks open;   /* not defined by any layer so far, from the snapshot down */
	struct masks hidden; /* from every other reader */
	struct snapshot_usage *out;
	uint32_t looked_at;
};

static bool masks_any(const struct masks *m)
{
	uint16_t all = 0;
	for (unsigned i = 0; i < PAGE_FANOUT; i++)
		all |= m->of[i];
	return all != 0;
}

static void others_run(struct count *c)
{
	if (++c->looked_at % LAYERS_A_TURN == 0)
		fiber_yield();
}

/* The layer's leaf, pinned; NULL if it says nothing there. */
static int leaf_of(struct count *c, struct layer *l, struct page **leaf)
{
	others_run(c);
	int err = page_get(&l->map, 0, c->leaf, false, leaf);
	if (err)
		*leaf = NULL;
	return err == OXE_NOENT ? 0 : err;
}

static bool is_reader(const struct layer *l)
{
	return l->named || !l->sealed;
}

/* What the layer does not say itself. */
static int let_through(struct count *c, struct layer *l, struct masks *m)
{
	struct page *leaf;
	int err = leaf_of(c, l, &leaf);
	if (err || !leaf)
		return err;
	const struct map_entry *entries = page_view(leaf);
	for (unsigned i = 0; i < PAGE_FANOUT; i++)
		m->of[i] &= (uint16_t)~entries[i].defined;
	page_unpin(leaf);
	return 0;
}

static int seen_by_branches(struct count *c, struct layer *l, const struct layer *except,
			    const struct masks *wanted, struct masks *seen);

/* Which of `wanted`, defined below `l`, some reader at or above `l` sees through it. */
static int seen_through(struct count *c, struct layer *l, const struct masks *wanted, struct masks *seen)
{
	struct masks *m = mem_alloc(sizeof(*m)); /* nameless layers may be many upon each other */
	*m = *wanted;
	int err = let_through(c, l, m);
	if (!err && is_reader(l)) {
		for (unsigned i = 0; i < PAGE_FANOUT; i++)
			seen->of[i] |= m->of[i];
	} else if (!err && masks_any(m)) {
		err = seen_by_branches(c, l, NULL, m, seen);
	}
	free(m);
	return err;
}

static int seen_by_branches(struct count *c, struct layer *l, const struct layer *except,
			    const struct masks *wanted, struct masks *seen)
{
	struct layer *child;
	list_for_each (child, &l->children, sibling) {
		int err = child == except || MUTANT(54) ? 0 : seen_through(c, child, wanted, seen);
		if (err)
			return err;
	}
	return 0;
}

/* `from` is the layer above, on the way from the snapshot; NULL: this is it. */
static int hide(struct count *c, struct layer *l, const struct layer *from)
{
	struct masks seen = {0};
	int err = 0;
	if (from && is_reader(l) && !MUTANT(53))
		memset(&c->hidden, 0, sizeof(c->hidden));
	else if (masks_any(&c->hidden))
		err = seen_by_branches(c, l, from, &c->hidden, &seen);
	for (unsigned i = 0; i < PAGE_FANOUT; i++)
		c->hidden.of[i] &= (uint16_t)~seen.of[i];
	return err;
}

static int count_layer(struct count *c, struct layer *l)
{
	struct page *leaf;
	int err = leaf_of(c, l, &leaf);
	if (err || !leaf)
		return err;
	const struct map_entry *entries = page_view(leaf);
	for (unsigned i = 0; i < PAGE_FANOUT; i++) {
		uint16_t data = entries[i].defined & c->open.of[i] & (uint16_t)~entries[i].zero;
		c->out->referenced_bytes += (unsigned)__builtin_popcount(data) * POOL_BLOCK_BYTES;
		c->out->exclusive_bytes +=
			(unsigned)__builtin_popcount(data & c->hidden.of[i]) * POOL_BLOCK_BYTES;
		c->open.of[i] &= (uint16_t)~entries[i].defined;
	}
	page_unpin(leaf);
	return 0;
}

static int count_leaf(struct count *c)
{
	const struct layer *from = NULL;
	int err = 0;
	memset(&c->open, 0xff, sizeof(c->open));
	memset(&c->hidden, 0xff, sizeof(c->hidden));
	for (struct layer *l = c->snapshot; !err && l && masks_any(&c->open); from = l, l = l->parent) {
		err = hide(c, l, from);
		if (!err)
			err = count_layer(c, l);
	}
	return err;
}

/* The first leaf at or after `leaf` that some layer of the chain has; OXE_NOENT if none. */
static int leaf_next(struct count *c, uint64_t leaf)
{
	c->leaf = UINT64_MAX;
	for (struct layer *l = c->snapshot; l && c->leaf != leaf; l = l->parent) {
		uint64_t at = leaf;
		struct page *page;
		int err = page_next_leaf(&l->map, &at, &page);
		if (err && err != OXE_NOENT)
			return err;
		if (!err) {
			page_unpin(page);
			c->leaf = u64_min(c->leaf, at);
		}
		others_run(c);
	}
	return c->leaf == UINT64_MAX ? OXE_NOENT : 0;
}

/* One leaf, at or after *leaf; moves it on. *over: there was none. */
static int count_next(struct pool *pool, const struct uuid *snapshot_id, uint64_t *leaf, bool *over,
		      struct snapshot_usage *out)
{
	struct layer *l = catalog_layer_by_id(pool->catalog, snapshot_id);
	if (catalog_is_damaged(pool->catalog))
		return OXE_CORRUPT; /* who else sees a block is not known */
	if (!l || !l->named)
		return OXE_NOENT;
	struct count *c = mem_zalloc(sizeof(*c));
	c->snapshot = l;
	c->out = out;
	int err = leaf_next(c, *leaf);
	*over = err == OXE_NOENT;
	if (!err)
		err = count_leaf(c);
	*leaf = c->leaf + 1;
	free(c);
	return *over ? 0 : err;
}

int snapshot_usage(struct pool *pool, const struct uuid *snapshot_id, struct snapshot_usage *out)
{
	uint64_t leaf = 0;
	bool over = false;
	int err = 0;
	*out = (struct snapshot_usage){0};
	while (!err && !over) {
		fmutex_lock(&pool->control);
		jobs_pause(pool->jobs);
		err = count_next(pool, snapshot_id, &leaf, &over, out);
		jobs_resume(pool->jobs);
		fmutex_unlock(&pool->control);
		fiber_yield(); /* jobs, and who waits, go on */
	}
	out->shared_bytes = out->referenced_bytes - out->exclusive_bytes;
	return err;
}
