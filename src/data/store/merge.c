/*
 * merge.c: one step of a merge (S6): some clusters of a nameless layer move into its only child.
 *
 * Per cluster, of the blocks that only the layer has ("below") and those that the child has ("above"):
 *
 *     nothing above        the child's entry takes over the layer's cluster        a pointer moves
 *     nothing below        the layer's cluster is given back
 *     both                 the smaller side is copied into the larger one's cluster, to places nobody can see
 *
 * Both clusters are held alone meanwhile: readers see the old entries until the records are written, writers wait. Copies are
 * flushed before the record that makes them the only ones.
 */
#include "data/store/cluster_op.h"
#include "data/store/flush.h"
#include "data/store/job.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

#define MERGE_CLUSTERS 16u

struct merge {
	struct jobs *jobs;
	struct layer *layer, *child;
	uint32_t index, count;
	struct cluster_hold from[MERGE_CLUSTERS], to[MERGE_CLUSTERS];
	struct record_merge records[MERGE_CLUSTERS];
	struct page *leaf, *child_leaf;
	uint8_t *buffer; /* a cluster */
	uint64_t copied_bytes;
};

static int copy_blocks(struct merge *m, uint32_t from, uint32_t to, uint16_t mask)
{
	struct rt_disk *disk = m->jobs->pool->disk;
	int err = 0;
	for (unsigned first = 0; !err && first < BLOCKS_PER_CLUSTER; first++) {
		unsigned count = 0;
		while (first + count < BLOCKS_PER_CLUSTER && (mask >> (first + count) & 1))
			count++;
		if (!count)
			continue;
		uint64_t offset_bytes = first * POOL_BLOCK_BYTES, len_bytes = count * POOL_BLOCK_BYTES;
		err = rt_disk_read(disk, m->buffer, len_bytes,
				   (uint64_t)from * POOL_CLUSTER_BYTES + offset_bytes);
		if (!err)
			err = rt_disk_write(disk, m->buffer, len_bytes,
					    (uint64_t)to * POOL_CLUSTER_BYTES + offset_bytes, 0);
		m->copied_bytes += len_bytes;
		first += count;
	}
	return err;
}

static bool will_be_grafted(const struct layer *l)
{
	return l->volume && l->volume->flags & VOLUME_FRESH && !MUTANT(76);
}

/* Which cluster the merged entry keeps: pointers move where masks allow, else the smaller side is copied into places of the
 * larger that nobody can see. */
static int plan_one(struct merge *m, uint32_t index, struct record_merge *r)
{
	const struct map_entry *p = map_entry_view(m->leaf, index), *c = map_entry_view(m->child_leaf, index);
	uint16_t below = p->defined & (uint16_t)~p->zero & (uint16_t)~c->defined;
	uint16_t above = c->defined & (uint16_t)~c->zero;
	*r = (struct record_merge){.head = {.type = RECORD_MERGE, .len_bytes = sizeof(*r)},
				   .layer = number_of(m->layer->number),
				   .child = number_of(m->child->number),
				   .index = index,
				   .defined = c->defined | p->defined,
				   .zero = c->zero | (MUTANT(38) ? 0 : p->zero & (uint16_t)~c->defined)};
	if (!m->layer->parent && !will_be_grafted(m->layer)) { /* nothing left to hide */
		r->defined &= (uint16_t)~r->zero;
		r->zero = 0;
	}
	r->cluster = above ? c->cluster : below ? p->cluster : 0;
	if (!above || !below)
		return 0;
	if (__builtin_popcount(below) <= __builtin_popcount(above))
		return copy_blocks(m, p->cluster, c->cluster, below);
	r->cluster = p->cluster;
	return copy_blocks(m, c->cluster, p->cluster, above);
}

/* A merge moves blocks away from where their unsettled records say they are: settle those first. */
static int settle_all(struct merge *m)
{
	struct flush *f = m->jobs->pool->flush;
	uint64_t seq, latest = 0;
	for (uint32_t i = 0; i < m->count; i++) {
		if (unsettled_get(f, m->layer->number, m->index + i, UINT16_MAX, &seq))
			latest = u64_max(latest, seq);
		if (unsettled_get(f, m->child->number, m->index + i, UINT16_MAX, &seq))
			latest = u64_max(latest, seq);
	}
	return latest && !MUTANT(11) ? flush_settle(f, latest) : 0;
}

/* Everything is held. Copies must be durable before a record makes them the only ones. */
static int merge_copy(struct merge *m)
{
	int err = settle_all(m);
	for (uint32_t i = 0; !err && i < m->count; i++)
		err = plan_one(m, m->index + i, &m->records[i]);
	if (!err && m->copied_bytes && !MUTANT(12))
		err = flush_wait(m->jobs->pool->flush);
	return err;
}

/* Bring in the bitmap pages of both sides of every cluster. */
static int merge_pin(struct merge *m, struct pins *pins)
{
	int err = 0;
	for (uint32_t i = 0; !err && i < 2 * m->count; i++) {
		uint32_t cluster = map_entry_view(i % 2 ? m->leaf : m->child_leaf, m->index + i / 2)->cluster;
		if (!cluster)
			continue;
		err = space_bitmap_pin(m->jobs->pool->space, cluster, &pins->pages[pins->count]);
		pins->count += !err && pins->pages[pins->count];
	}
	return err;
}

static int merge_commit(struct merge *m, struct journal_room *room)
{
	struct pool *pool = m->jobs->pool;
	struct pins pins = {.count = 0};
	uint64_t seq = 0;
	int err = merge_pin(m, &pins);
	for (uint32_t i = 0; !err && i < m->count; i++) {
		cluster_hold_changed(&m->from[i], map_entry_view(m->leaf, m->index + i));
		cluster_hold_changed(&m->to[i], map_entry_view(m->child_leaf, m->index + i));
		seq = record_commit(pool, &m->records[i].head);
		flush_moved(pool->flush, seq);
		room->records--;
	}
	pins_release(&pins);
	return err ? err : journal_wait(pool->journal, seq);
}

static int merge_held(struct merge *m, struct journal_room *room)
{
	struct pool *pool = m->jobs->pool;
	int err = merge_copy(m);
	if (err)
		return err;
	uint32_t ticket =
		space_read_enter(pool->space); /* readers still see the old entries until the holds go */
	err = merge_commit(m, room);
	for (uint32_t i = 0; i < m->count; i++) {
		cluster_release(pool->ops, &m->from[i]);
		cluster_release(pool->ops, &m->to[i]);
		resolve_forget(pool, m->layer, m->index + i); /* answers found meanwhile were the old ones */
	}
	space_read_leave(pool->space, ticket);
	return err;
}

static int merge_hold(struct merge *m)
{
	struct pool *pool = m->jobs->pool;
	struct journal_room room = journal_room_for(m->count);
	int err = checkpoint_throttle(pool);
	if (!err)
		err = journal_reserve(pool->journal, room);
	if (err)
		return err;
	for (uint32_t i = 0; i < m->count; i++) {
		cluster_hold(pool->ops, &m->from[i], m->layer, m->index + i, UINT16_MAX, true);
		cluster_hold(pool->ops, &m->to[i], m->child, m->index + i, UINT16_MAX, true);
	}
	err = merge_held(m, &room);
	for (uint32_t i = 0; i < m->count; i++) { /* after an error */
		cluster_release(pool->ops, &m->from[i]);
		cluster_release(pool->ops, &m->to[i]);
	}
	journal_unreserve(pool->journal, room);
	return err;
}

static int merge_leaves(struct merge *m)
{
	int err = page_get(&m->layer->map, 0, m->index / PAGE_FANOUT, false, &m->leaf);
	if (err)
		return err;
	err = tree_raise(&m->child->map, m->index / PAGE_FANOUT + 1);
	if (!err)
		err = page_get(&m->child->map, 0, m->index / PAGE_FANOUT, true, &m->child_leaf);
	if (!err) {
		err = merge_hold(m);
		page_unpin(m->child_leaf);
	}
	page_unpin(m->leaf);
	return err;
}

int merge_step(struct jobs *j, struct layer *l, uint32_t *index)
{
	struct merge *m = mem_zalloc(sizeof(*m));
	m->jobs = j;
	m->layer = l;
	m->child = list_first(&l->children, struct layer, sibling);
	int err = layer_next_run(l, index, MERGE_CLUSTERS, &m->count);
	if (!err) {
		m->index = *index;
		m->buffer = io_alloc(POOL_CLUSTER_BYTES);
		err = m->buffer ? merge_leaves(m) : OXE_NOMEM;
		*index += m->count;
		j->done_clusters += m->count;
		jobs_spend(j, m->copied_bytes);
		free(m->buffer);
	}
	free(m);
	return err;
}
