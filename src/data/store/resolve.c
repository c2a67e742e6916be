/*
 * resolve.c: see resolve.h.
 *
 * The cache is a table of sets of eight; the set is chosen by cluster index alone, so that forgetting a cluster in every chain
 * is one look at one set. `generation` counts changes of shape: a walk that suspended starts over if it has moved, since the
 * layer it stands on may be gone.
 */
#include "data/store/resolve.h"

#include "base/prng.h"
#include "data/store/cluster_op.h"

#define WAYS 8u

struct answer {
	uint64_t layer;	      /* 0: empty */
	uint64_t era;	      /* of the cache when it was put in; another: empty */
	uint32_t index, used; /* used: a clock for replacement */
	struct resolved resolved;
};

struct resolve_cache {
	struct answer *answers;
	size_t set_count; /* power of two */
	uint32_t clock;
	uint64_t era, generation;
};

struct resolve_cache *resolve_cache_new(uint64_t limit_bytes)
{
	struct resolve_cache *c = mem_zalloc(sizeof(*c));
	c->set_count = 16;
	while (c->set_count * 2 * WAYS * sizeof(struct answer) <= limit_bytes)
		c->set_count *= 2;
	c->answers = mem_zalloc(c->set_count * WAYS * sizeof(*c->answers));
	return c;
}

void resolve_cache_free(struct resolve_cache *c)
{
	free(c->answers);
	free(c);
}

static struct answer *set_of(struct resolve_cache *c, uint32_t index)
{
	return c->answers + (hash_u64(index) & (c->set_count - 1)) * WAYS;
}

static const struct resolved *recall(struct resolve_cache *c, const struct layer *l, uint32_t index)
{
	struct answer *set = set_of(c, index);
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].layer == l->number && set[i].index == index && set[i].era == c->era) {
			set[i].used = ++c->clock;
			return &set[i].resolved;
		}
	}
	return NULL;
}

static bool answer_is_live(const struct resolve_cache *c, const struct answer *a)
{
	return a->layer && a->era == c->era;
}

static void remember(struct resolve_cache *c, const struct layer *l, uint32_t index, const struct resolved *r)
{
	struct answer *set = set_of(c, index), *victim = set;
	for (unsigned i = 1; i < WAYS && answer_is_live(c, victim); i++) {
		if (!answer_is_live(c, &set[i]) || set[i].used < victim->used)
			victim = &set[i];
	}
	*victim = (struct answer){
		.layer = l->number, .era = c->era, .index = index, .used = ++c->clock, .resolved = *r};
}

void resolve_forget(struct pool *pool, const struct layer *layer, uint32_t index)
{
	struct resolve_cache *c = pool->resolved;
	if (!layer->sealed || MUTANT(3))
		return;
	struct answer *set = set_of(c, index);
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].index == index)
			set[i].layer = 0;
	}
	c->generation++;
}

void resolve_forget_all(struct pool *pool)
{
	struct resolve_cache *c = pool->resolved;
	c->era++;
	c->generation++;
}

uint64_t resolve_generation(const struct pool *pool)
{
	return pool->resolved->generation;
}

/* ---- walking ------------------------------------------------------------------------------------------------------------- */

/* One layer's leaf, resident: *leaf is NULL if the layer has none there. *suspended: the world may have changed. */
static int leaf_of(struct layer *l, uint32_t index, struct page **leaf, bool *suspended)
{
	bool absent;
	*suspended = false;
	*leaf = page_peek(&l->map, 0, index / PAGE_FANOUT, &absent);
	if (*leaf || absent)
		return 0;
	*suspended = true;
	int err = page_get(&l->map, 0, index / PAGE_FANOUT, false, leaf);
	if (err == OXE_NOENT) {
		*leaf = NULL;
		return 0;
	}
	if (!err)
		page_unpin(*leaf); /* stays while nothing suspends */
	return err;
}

static void add_part(struct resolved *r, uint32_t cluster, uint16_t mask)
{
	for (unsigned i = 0; i < r->part_count; i++) {
		if (r->clusters[i] == cluster) {
			r->masks[i] |= mask;
			return;
		}
	}
	r->clusters[r->part_count] = cluster;
	r->masks[r->part_count++] = mask;
}

/* What one entry decides of `mask`; returns what it leaves open. */
static uint16_t take_entry(struct resolved *r, const struct map_entry *e, uint16_t mask)
{
	uint16_t take = e->defined & mask, data = take & (uint16_t)~e->zero;
	r->zero |= take & e->zero;
	if (data)
		add_part(r, e->cluster, data);
	return mask & (uint16_t)~take;
}

static uint16_t take_layer(struct pool *pool, struct resolved *r, const struct layer *l, uint32_t index,
			   const struct page *leaf, uint16_t mask)
{
	uint16_t open = 0;
	while (mask) {
		uint16_t same = mask;
		struct map_entry e = cluster_visible(pool->ops, l, index, map_entry_view(leaf, index), &same);
		open |= take_entry(r, &e, same);
		mask &= (uint16_t)~same;
	}
	return open;
}

static void take_answer(struct resolved *r, const struct resolved *known, uint16_t mask)
{
	r->zero |= known->zero & mask;
	r->hole |= known->hole & mask;
	for (unsigned i = 0; i < known->part_count; i++) {
		if (known->masks[i] & mask)
			add_part(r, known->clusters[i], known->masks[i] & mask);
	}
}

/* Layers from `l` down. 0, an error, or 1: something moved while a page was read, start over. */
static int walk(struct pool *pool, struct layer *l, uint32_t index, uint16_t mask, struct resolved *r)
{
	uint64_t generation = pool->resolved->generation;
	for (; l && mask; l = l->parent) {
		struct page *leaf;
		bool suspended;
		const struct resolved *known = l->sealed ? recall(pool->resolved, l, index) : NULL;
		if (known) {
			take_answer(r, known, mask);
			return 0;
		}
		int err = leaf_of(l, index, &leaf, &suspended);
		if (suspended && pool->resolved->generation != generation)
			return 1;
		if (err)
			return err;
		if (leaf)
			mask = take_layer(pool, r, l, index, leaf, mask);
	}
	r->hole |= mask;
	return 0;
}

/* The sealed part is always walked for the whole cluster, so that the answer can be kept. */
static int resolve_sealed(struct pool *pool, struct layer *l, uint32_t index, uint16_t mask,
			  struct resolved *out)
{
	const struct resolved *known = recall(pool->resolved, l, index);
	struct resolved whole = {0};
	if (!known) {
		uint64_t generation = pool->resolved->generation;
		int err = walk(pool, l, index, UINT16_MAX, &whole);
		if (err)
			return err;
		if (generation != pool->resolved->generation)
			return 1;
		remember(pool->resolved, l, index, &whole);
		known = &whole;
	}
	take_answer(out, known, mask);
	return 0;
}

static int resolve_once(struct pool *pool, struct layer *top, uint32_t index, uint16_t mask,
			struct resolved *out)
{
	struct page *leaf;
	bool suspended;
	uint64_t generation = pool->resolved->generation;
	if (top->sealed)
		return resolve_sealed(pool, top, index, mask, out);
	int err = leaf_of(top, index, &leaf, &suspended);
	if (suspended && (top->sealed || generation != pool->resolved->generation))
		return 1;
	if (err)
		return err;
	if (leaf)
		mask = take_layer(pool, out, top, index, leaf, mask);
	if (!mask)
		return 0;
	if (top->parent)
		return resolve_sealed(pool, top->parent, index, mask, out);
	out->hole |= mask;
	return 0;
}

struct layer *resolve_from(void *ctx)
{
	return ctx;
}

int resolve_blocks(struct pool *pool, resolve_top_fn *top, void *ctx, uint32_t index, uint16_t mask,
		   struct resolved *out)
{
	int err;
	do {
		out->hole = out->zero = out->part_count = 0;
		err = resolve_once(pool, top(ctx), index, mask, out);
	} while (err > 0);
	return err;
}

static int next_once(struct pool *pool, struct layer *top, const struct layer *stop, uint32_t index,
		     uint32_t *found)
{
	uint64_t generation = pool->resolved->generation, best = UINT64_MAX;
	for (struct layer *l = top; l && l != stop; l = l->parent) {
		uint64_t leaf_index = index / PAGE_FANOUT;
		struct page *leaf;
		int err = page_next_leaf(&l->map, &leaf_index, &leaf);
		if (!err)
			page_unpin(leaf);
		if (pool->resolved->generation != generation)
			return 1;
		if (err && err != OXE_NOENT)
			return err;
		if (!err)
			best = u64_min(best, leaf_index);
	}
	if (best == UINT64_MAX)
		return OXE_NOENT;
	*found = (uint32_t)u64_max(index, best * PAGE_FANOUT);
	return 0;
}

int resolve_next(struct pool *pool, resolve_top_fn *top, void *ctx, const struct layer *stop, uint32_t index,
		 uint32_t *found)
{
	int err;
	do
		err = next_once(pool, top(ctx), stop, index, found);
	while (err > 0);
	return err;
}
