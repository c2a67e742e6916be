/*
 * flatten.c: copying what a volume shares with others, until it depends on nobody.
 *
 * The lowest layer that is the volume's own stands on a foreign one. Block by block, what it sees only below itself is defined
 * in it (what it looks like does not change, so it may be sealed or not). When all is there and settled, it lets go.
 */
#include "data/store/flush.h"
#include "data/store/job.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

static struct layer *lowest_own(const struct volume *v)
{
	struct layer *l = v->head;
	while (l->parent && l->parent->volume == v)
		l = l->parent;
	return l;
}

/* Copy the blocks of one cluster that the layer sees only below itself. */
static int flatten_cluster(struct jobs *j, struct layer *l, uint32_t index, uint8_t *buffer,
			   uint64_t *last_seq)
{
	struct pool *pool = j->pool;
	struct resolved r;
	uint16_t wanted = 0;
	int err = resolve_blocks(pool, resolve_from, l->parent, index, UINT16_MAX, &r);
	for (unsigned i = 0; !err && i < r.part_count; i++)
		wanted |= r.masks[i];
	if (!err && wanted)
		err = cluster_read(pool, resolve_from, l->parent, index, wanted, buffer);
	for (unsigned block = 0; !err && block < BLOCKS_PER_CLUSTER;) {
		struct page *leaf;
		uint64_t seq = 0;
		int leaf_err = page_get(&l->map, 0, index / PAGE_FANOUT, false, &leaf);
		uint16_t defined = leaf_err ? 0 : map_entry_view(leaf, index)->defined;
		if (!leaf_err)
			page_unpin(leaf);
		if (!((wanted & ~defined) >> block & 1)) {
			block++;
			continue;
		}
		unsigned last = block;
		while (last + 1 < BLOCKS_PER_CLUSTER && (wanted & ~defined) >> (last + 1) & 1)
			last++;
		err = layer_define(pool, l, index, block_mask(block, last), buffer, &seq);
		*last_seq = u64_max(*last_seq, seq);
		jobs_spend(j, (last - block + 1) * POOL_BLOCK_BYTES);
		if (err != OXE_EXISTS ||
		    MUTANT(18)) /* else a client wrote to one of them meanwhile: look again */
			block = last + 1;
		err = err == OXE_EXISTS ? 0 : err;
	}
	return err;
}

/* The volume may be renamed, grown, or gone, until the record that says it is not to be flattened any more commits. */
static int flatten_unmark(struct pool *pool, uint64_t number)
{
	struct record_volume_set set = {.head = {.type = RECORD_VOLUME_SET, .len_bytes = sizeof(set)},
					.number = number_of(number)};
	struct record_try t;
	int err = record_begin(pool, &set.head, &t);
	if (err)
		return err;
	const struct volume *v = catalog_volume(pool->catalog, number);
	if (!v) {
		record_give_up(pool, &t);
		return 0;
	}
	set.size_bytes = number_of(v->size_bytes);
	set.flags = v->flags & ~(uint32_t)VOLUME_FLATTEN;
	memcpy(set.name, v->name, strlen(v->name));
	return record_end(pool, &set.head, &t, true);
}

/* Everything is in the volume's own layers: settle it, then let go of the rest. */
static int flatten_finish(struct pool *pool, uint64_t number, struct layer *l, uint64_t last_seq)
{
	struct record_layer_one detach = {.head = {.type = RECORD_LAYER_DETACH, .len_bytes = sizeof(detach)},
					  .number = number_of(l->number)};
	int err = last_seq && !MUTANT(13) ? flush_settle(pool->flush, last_seq) : 0;
	if (!err && l->parent)
		err = record_do(pool, &detach.head, false);
	return err ? err : flatten_unmark(pool, number);
}

/* Blocks that an earlier life, or a cancelled try, left unsettled count too. */
static uint64_t everything_so_far(const struct pool *pool)
{
	return journal_open_seq(pool->journal) - 1;
}

static int flatten_step(struct jobs *j, uint64_t number, uint32_t *index, uint8_t *buffer, bool *finished)
{
	struct pool *pool = j->pool;
	struct volume *v = catalog_volume(pool->catalog, number);
	uint64_t last_seq = 0;
	*finished = !v || !(v->flags & VOLUME_FLATTEN);
	if (*finished)
		return 0;
	struct layer *l = lowest_own(v);
	j->total_clusters = u64_div_up(v->size_bytes, POOL_CLUSTER_BYTES);
	int err = l->parent ? resolve_next(pool, resolve_from, l->parent, NULL, *index, index) : OXE_NOENT;
	j->done_clusters = *index;
	if (!err)
		err = flatten_cluster(j, l, (*index)++, buffer, &last_seq);
	if (err != OXE_NOENT)
		return err;
	v = catalog_volume(pool->catalog, number);
	*finished = true;
	if (!v || lowest_own(v) != l) { /* reverted meanwhile: start over */
		*finished = !v;
		*index = 0;
		return 0;
	}
	return flatten_finish(pool, number, l, everything_so_far(pool));
}

int flatten(struct jobs *j, uint64_t number)
{
	uint8_t *buffer = io_alloc(POOL_CLUSTER_BYTES);
	uint32_t index = 0;
	bool finished = false;
	int err = buffer ? 0 : OXE_NOMEM;
	uint64_t target = 0; /* the layer copied into: another one has to be looked at from its beginning */
	j->number = number;
	while (!err && !finished) {
		struct volume *v;
		if (!jobs_step_begin(j)) {
			err = OXE_SHUTDOWN;
			break;
		}
		v = catalog_volume(j->pool->catalog, number);
		if (v && lowest_own(v)->number != target) {
			target = lowest_own(v)->number;
			index = 0;
		}
		err = flatten_step(j, number, &index, buffer, &finished);
	}
	free(buffer);
	return err;
}
