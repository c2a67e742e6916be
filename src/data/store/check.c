/*
 * check.c: S9: everything reachable against everything marked.
 *
 *     pages       each page of each tree is what its parent says, and in exactly the places the usage table says
 *     clusters    each is named by one map entry, or is a metadata cluster, or is free; never two of these
 *     layers      parents exist and are older; counters agree with the maps
 *
 * Beside a page that cannot be read, what is marked and reachable from nowhere may belong to what that page named: it is not
 * called leaked but counted, and counters that depend on it are not judged.
 *
 * It runs on the open pool. Jobs are paused, control operations wait and writers are held at their gates, so that what is in
 * memory stands still; readers go on.
 */
#include "base/log.h"
#include "base/u32map.h"
#include "data/store/metapage.h"
#include "data/store/vol.h"

#include <stdarg.h>
#include <stdio.h>

struct check {
	struct pool *pool;
	void (*fn)(void *ctx, const struct pool_problem *p);
	void *ctx;
	struct pool_check_result *out;
	uint8_t *owned;	     /* a bit for each cluster: some map entry names it */
	struct u32map pages; /* metadata cluster -> mask of pages found in trees */
	uint64_t owned_count;
	uint64_t unreadable;		  /* pages */
	uint64_t clusters_may, pages_may; /* marked, and may belong to what those named */
};

OX_PRINTF(3, 4) static void problem(struct check *c, enum pool_problem_kind kind, const char *format, ...)
{
	struct pool_problem p = {.kind = kind};
	va_list args;
	va_start(args, format);
	vsnprintf(p.text, sizeof(p.text), format, args);
	va_end(args);
	c->out->problem_count++;
	if (c->fn)
		c->fn(c->ctx, &p);
}

/* ---- pages --------------------------------------------------------------------------------------------------------------------------- */

static void page_found(struct check *c, const struct tree *t, uint64_t page)
{
	uint32_t cluster = (uint32_t)(page / PAGES_PER_CLUSTER), mask = 0;
	uint32_t bit = 1u << page % PAGES_PER_CLUSTER;
	c->pool->check_pages_read = ++c->out->pages_read;
	u32map_get(&c->pages, cluster, &mask);
	if (mask & bit)
		problem(c, POOL_PROBLEM_OWNED_TWICE,
			"metadata page %llu is in two places, one of them the %s of %llu",
			(unsigned long long)page, t->kind == PAGE_MAP ? "map" : "tree",
			(unsigned long long)t->owner);
	u32map_put(&c->pages, cluster, mask | bit);
}

typedef void leaf_fn(struct check *c, struct tree *t, const struct page *leaf);

static void walk_page(struct check *c, struct tree *t, unsigned level, uint64_t index, leaf_fn *fn)
{
	struct page *p;
	int err = page_get(t, level, index, false, &p);
	if (err == OXE_NOENT)
		return;
	if (err) {
		c->unreadable++;
		problem(c, POOL_PROBLEM_PAGE, "page at level %u index %llu of kind %d owner %llu: %s", level,
			(unsigned long long)index, (int)t->kind, (unsigned long long)t->owner, err_text(err));
		return;
	}
	if (p->address)
		page_found(c, t, p->address);
	fiber_yield(); /* others run, though every page be in memory */
	for (uint64_t i = 0; level > 0 && i < PAGE_FANOUT; i++)
		walk_page(c, t, level - 1, index * PAGE_FANOUT + i, fn);
	if (level == 0 && fn)
		fn(c, t, p);
	page_unpin(p);
}

static void walk_tree(struct check *c, struct tree *t, leaf_fn *fn)
{
	if (t->root.height > 0)
		walk_page(c, t, t->root.height - 1, 0, fn);
}

/* ---- maps ---------------------------------------------------------------------------------------------------------------------------- */

static bool own(struct check *c, uint32_t cluster)
{
	uint8_t bit = (uint8_t)(1u << cluster % 8);
	bool before = c->owned[cluster / 8] & bit;
	c->owned[cluster / 8] |= bit;
	c->owned_count += !before;
	return !before;
}

static void check_leaf(struct check *c, struct tree *t, const struct page *leaf)
{
	for (uint32_t i = 0; i < PAGE_FANOUT; i++) {
		const struct map_entry *e = map_entry_view(leaf, i);
		if (!e->cluster)
			continue;
		c->out->clusters_reachable++;
		if (e->cluster < c->pool->first_cluster || e->cluster >= c->pool->cluster_count)
			problem(c, POOL_PROBLEM_CHAIN,
				"layer %llu names cluster %u, which is outside the pool",
				(unsigned long long)t->owner, e->cluster);
		else if (!own(c, e->cluster))
			problem(c, POOL_PROBLEM_OWNED_TWICE, "cluster %u is owned twice, once by layer %llu",
				e->cluster, (unsigned long long)t->owner);
	}
}

/* In every loop some layer stands on one that is not older. */
static bool is_in_loop(const struct check *c, const struct layer *l)
{
	uint32_t steps = catalog_layer_count(c->pool->catalog);
	const struct layer *below = l->parent;
	if (!below || below->number < l->number)
		return false;
	while (below && below != l && steps-- > 0)
		below = below->parent;
	return below == l;
}

static void check_layer(struct check *c, struct layer *l)
{
	uint64_t before = c->out->clusters_reachable;
	const struct layer *child;
	uint32_t children = 0;
	uint64_t unreadable = c->unreadable;
	c->out->layers++;
	walk_tree(c, &l->map, check_leaf);
	if (c->unreadable == unreadable && c->out->clusters_reachable - before != l->cluster_count)
		problem(c, POOL_PROBLEM_COUNT, "layer %llu counts %llu clusters, its map names %llu",
			(unsigned long long)l->number, (unsigned long long)l->cluster_count,
			(unsigned long long)(c->out->clusters_reachable - before));
	if (l->parent && l->parent->map.lost)
		problem(c, POOL_PROBLEM_CHAIN, "layer %llu stands on layer %llu, which is lost",
			(unsigned long long)l->number, (unsigned long long)l->parent->number);
	else if (l->parent && !l->parent->sealed)
		problem(c, POOL_PROBLEM_CHAIN, "layer %llu stands on layer %llu, which is not sealed",
			(unsigned long long)l->number, (unsigned long long)l->parent->number);
	else if (is_in_loop(c, l))
		problem(c, POOL_PROBLEM_CHAIN, "layer %llu stands on itself", (unsigned long long)l->number);
	list_for_each (child, &l->children, sibling)
		children++;
	if (children != l->child_count)
		problem(c, POOL_PROBLEM_COUNT, "layer %llu counts %u children and has %u",
			(unsigned long long)l->number, l->child_count, children);
	if (l->volume && l->volume->lost)
		problem(c, POOL_PROBLEM_CHAIN, "layer %llu belongs to volume %llu, which is lost",
			(unsigned long long)l->number, (unsigned long long)l->volume->number);
	else if (!l->sealed && !(l->volume && l->volume->head == l))
		problem(c, POOL_PROBLEM_CHAIN, "layer %llu is a head without a volume",
			(unsigned long long)l->number);
}

/* ---- what is marked -------------------------------------------------------------------------------------------------------------------- */

static void check_usage(void *ctx, const struct usage_entry *e)
{
	struct check *c = ctx;
	uint32_t found = 0;
	u32map_get(&c->pages, e->cluster, &found);
	if (found & (uint32_t)~e->used)
		problem(c, POOL_PROBLEM_UNMARKED,
			"pages %04x of metadata cluster %u are in use and marked free",
			found & (uint32_t)~e->used, e->cluster);
	if (c->unreadable)
		c->pages_may += (unsigned)__builtin_popcount(e->used & ~found);
	else if (e->used & ~found)
		problem(c, POOL_PROBLEM_LEAKED,
			"pages %04x of metadata cluster %u are marked used and reachable from nowhere",
			e->used & ~found, e->cluster);
	if (!own(c, e->cluster))
		problem(c, POOL_PROBLEM_OWNED_TWICE, "cluster %u is both data and metadata", e->cluster);
	u32map_remove(&c->pages, e->cluster);
}

/* One bitmap leaf against what was found. Absent: all of it should be free. */
static void check_bits(struct check *c, uint64_t leaf, const uint8_t *bits)
{
	uint64_t first = leaf * BITMAP_BITS_PER_PAGE;
	uint64_t end = u64_min(first + BITMAP_BITS_PER_PAGE, c->pool->cluster_count);
	for (uint64_t i = u64_max(first, c->pool->first_cluster); i < end; i++) {
		bool marked = bits && (bits[(i - first) / 8] >> (i - first) % 8 & 1);
		bool owned = c->owned[i / 8] >> i % 8 & 1;
		if (marked && !owned && c->unreadable)
			c->clusters_may++;
		else if (marked && !owned)
			problem(c, POOL_PROBLEM_LEAKED,
				"cluster %llu is marked used and reachable from nowhere",
				(unsigned long long)i);
		if (!marked && owned)
			problem(c, POOL_PROBLEM_UNMARKED, "cluster %llu is in use and marked free",
				(unsigned long long)i);
	}
}

static void check_bitmap(struct check *c)
{
	struct tree *t = space_bitmap(c->pool->space);
	for (uint64_t leaf = 0; leaf < space_bitmap_leaves(c->pool->cluster_count); leaf++) {
		struct page *p = NULL;
		fiber_yield();
		int err = page_get(t, 0, leaf, false, &p);
		if (err && err != OXE_NOENT)
			continue; /* the walk over its pages has said so */
		check_bits(c, leaf, p ? page_view(p) : NULL);
		if (p)
			page_unpin(p);
	}
}

static void check_counts(struct check *c)
{
	struct space_numbers n;
	space_numbers(c->pool->space, &n);
	uint64_t free_clusters = c->pool->cluster_count - c->pool->first_cluster - c->owned_count;
	if (c->unreadable ? n.free_clusters > free_clusters : n.free_clusters != free_clusters)
		problem(c, POOL_PROBLEM_COUNT, "%llu clusters are counted free, %llu are",
			(unsigned long long)n.free_clusters, (unsigned long long)free_clusters);
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------------- */

static void usage_page_found(void *ctx, uint64_t page)
{
	struct check *c = ctx;
	page_found(c, space_bitmap(c->pool->space), page);
}

/* Damage that the walk over the pages does not show: entries that make no sense, a page that could not be read at the start. */
static void check_damage(struct check *c)
{
	if (c->unreadable || !catalog_is_damaged(c->pool->catalog))
		return;
	c->unreadable++;
	problem(c, POOL_PROBLEM_PAGE,
		"part of the list of volumes and layers was lost when the pool was opened");
}

static void check_volume_counts(struct check *c, const struct volume *v)
{
	const struct layer *l, *origin = v->head;
	uint64_t clusters = 0;
	uint32_t snapshots = 0;
	list_for_each (l, &v->layers, in_volume) {
		clusters += l->cluster_count;
		snapshots += layer_is_snapshot(l);
	}
	while (origin && origin->volume == v)
		origin = origin->parent;
	if (clusters != v->cluster_count || snapshots != v->snapshot_count)
		problem(c, POOL_PROBLEM_COUNT,
			"volume %s counts %llu clusters and %u snapshots, and has %llu and %u", v->name,
			(unsigned long long)v->cluster_count, v->snapshot_count, (unsigned long long)clusters,
			snapshots);
	if (origin != volume_origin(v))
		problem(c, POOL_PROBLEM_CHAIN, "volume %s does not stand on the layer it is said to",
			v->name);
}

/* What the walk over the layers has not seen of volumes. */
static void check_volumes(struct check *c)
{
	struct volume *v;
	list_for_each (v, catalog_volumes(c->pool->catalog), age) {
		walk_tree(c, &v->notes, NULL);
		check_volume_counts(c, v);
		if (v->head->map.lost)
			problem(c, POOL_PROBLEM_CHAIN, "the head of volume %s, layer %llu, is lost", v->name,
				(unsigned long long)v->head->number);
	}
}

static void check_everything(struct check *c)
{
	struct layer *l;
	walk_tree(c, catalog_tree(c->pool->catalog), NULL);
	check_damage(c);
	list_for_each (l, catalog_layers(c->pool->catalog), age)
		check_layer(c, l);
	check_volumes(c);
	walk_tree(c, space_bitmap(c->pool->space), NULL);
	metapages_walk_table_pages(c->pool->metapages, usage_page_found, c);
	metapages_walk(c->pool->metapages, check_usage, c);
	if (c->pages.count)
		problem(c, POOL_PROBLEM_UNMARKED,
			"%u clusters hold metadata pages and are not in the usage table", c->pages.count);
	check_bitmap(c);
	check_counts(c);
	if (c->clusters_may || c->pages_may)
		problem(c, POOL_PROBLEM_PAGE,
			"%llu clusters and %llu metadata pages may belong to what the unreadable pages "
			"named: they stay as they are",
			(unsigned long long)c->clusters_may, (unsigned long long)c->pages_may);
}

static void count_used(void *ctx, const struct usage_entry *e)
{
	uint64_t *count = ctx;
	*count += (unsigned)__builtin_popcount(e->used);
}

/* At least one, so that a check under way is seen to be. */
static uint64_t pages_expected(const struct pool *pool)
{
	uint64_t count = 0;
	metapages_walk(pool->metapages, count_used, &count);
	return u64_max(count, 1);
}

static void gates_close(struct pool *pool)
{
	struct volume *v;
	list_for_each (v, catalog_volumes(pool->catalog), age)
		gate_close(v);
}

static void gates_open(struct pool *pool)
{
	struct volume *v;
	list_for_each (v, catalog_volumes(pool->catalog), age)
		gate_open(v);
}

int pool_check(struct pool *pool, void (*fn)(void *ctx, const struct pool_problem *p), void *ctx,
	       struct pool_check_result *out)
{
	struct check c = {.pool = pool, .fn = fn, .ctx = ctx, .out = out};
	*out = (struct pool_check_result){0};
	if (pool->failed)
		return OXE_FAILED;
	fmutex_lock(&pool->control);
	jobs_pause(pool->jobs);
	gates_close(pool);
	int err = pool->options.read_only ? 0 : checkpoint_wait(pool);
	if (!err) {
		c.owned = calloc(1, pool->cluster_count / 8 + 1);
		err = c.owned ? 0 : OXE_NOMEM;
	}
	if (!err) {
		pool->check_pages_total = pages_expected(pool);
		check_everything(&c);
		pool->check_pages_read = pool->check_pages_total = 0;
	}
	free(c.owned);
	u32map_free(&c.pages);
	gates_open(pool);
	jobs_resume(pool->jobs);
	fmutex_unlock(&pool->control);
	return err;
}
