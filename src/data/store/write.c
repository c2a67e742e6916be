/*
 * write.c: writing to a volume's head (S2).
 *
 * A write is cut into pieces, one a cluster. What a piece needs depends on what the head says of its blocks:
 *
 *     IN_PLACE   every block has settled data     one device write, no metadata, no lock
 *     FIRST      no block has unsettled data      data and DEFINE record together; done when both are
 *     AHEAD      a block has unsettled data that  DEFINE first, then the data (flush.h says why)
 *                no flush has covered
 *
 * (unsettled data that a flush has covered is settled first, which makes the piece one of the others). Pieces that are not IN_PLACE go
 * through the phases of store.h together, up to BATCH of them:
 *
 *     prepare   hold the blocks, bring in pages, fill up partial blocks, set clusters aside      may suspend, may fail
 *     commit    records appended and applied, FIRST data sent                                    in one breath
 *     wait      data and journal; AHEAD data after its record
 *     finish    unsettled blocks noted, holds released: readers see the new data
 */
#include "base/crc32c.h"
#include "data/store/cluster_op.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

#define BATCH 16u

enum piece_kind { PIECE_IN_PLACE, PIECE_FIRST, PIECE_AHEAD };

struct piece {
	struct cut cut;
	const uint8_t *data; /* of the first byte of the blocks in cut.mask, once they are whole */
	uint8_t *bounce;     /* ours, if the caller's blocks were not whole or not aligned */
	uint16_t define;     /* blocks the records are about: those without settled data */
	uint32_t cluster;    /* set aside for this piece; 0: none */
	struct page *leaf, *bitmap;
	struct cluster_hold hold;
	struct define_op op;
	struct map_entry old;
	struct batch_io io;
	struct io_batch batch;
	uint64_t seq; /* of the last record */
	bool committed, ahead;
	struct sector_crcs crcs; /* of the blocks in define */
};

struct write {
	struct pool *pool;
	struct vol *vol; /* NULL for layer_define: whole blocks, nothing to fill in */
	struct layer *head;
	bool only_undefined; /* give up, without harm, on a piece whose blocks the layer defines by now */
	struct piece pieces[BATCH];
	uint32_t count;
	struct journal_room room;
};

/* ---- what the head says ----------------------------------------------------------------------------------------------------- */

static uint16_t data_blocks(const struct map_entry *e)
{
	return e->defined & (uint16_t)~e->zero;
}

static enum piece_kind classify(struct pool *pool, const struct layer *head, const struct cut *c,
				const struct map_entry *e, uint64_t *settle_seq)
{
	uint16_t stored = data_blocks(e) & c->mask;
	/* Of all blocks, not only the stored ones: one that was zeroed since may come back if a power cut takes the ZERO, and then
	 * its unsettled record must find its data, not ours. */
	uint16_t asked = MUTANT(6) ? stored : c->mask;
	uint16_t unsettled = unsettled_get(pool->flush, head->number, c->index, asked, settle_seq);
	if (unsettled && !MUTANT(5))
		return PIECE_AHEAD;
	return stored == c->mask ? PIECE_IN_PLACE : PIECE_FIRST;
}

static uint64_t place_bytes(uint32_t cluster, const struct cut *c)
{
	return (uint64_t)cluster * POOL_CLUSTER_BYTES + c->offset_bytes;
}

/* Can the device take exactly these bytes from exactly this memory? */
static bool directly(const struct pool *pool, const struct cut *c, const void *data)
{
	return u64_is_aligned((uintptr_t)data, 512) &&
	       u64_is_aligned(c->offset_bytes | c->len_bytes, rt_disk_info(pool->disk)->lba_bytes);
}

/* ---- in place --------------------------------------------------------------------------------------------------------------- */

/* Where the clusters of a request lie, if every piece of it can be written in place now; then each is counted in. */
static bool in_place_enter_all(struct pool *pool, struct layer *head, const uint8_t *data,
			       uint64_t offset_bytes, uint64_t len_bytes, struct cut cuts[BATCH],
			       uint32_t clusters[BATCH], uint32_t *count)
{
	*count = 0;
	if (pool->failed && !MUTANT(55)) /* its maps may say what no record on disk does */
		return false;
	for (; len_bytes > 0; ++*count) {
		uint64_t seq;
		struct cut c = cut_at(offset_bytes, len_bytes);
		struct page *leaf = page_peek(&head->map, 0, c.index / PAGE_FANOUT, NULL);
		if (*count == BATCH || !leaf || !directly(pool, &c, data))
			return false;
		const struct map_entry *e = map_entry_view(leaf, c.index);
		if (classify(pool, head, &c, e, &seq) != PIECE_IN_PLACE ||
		    !inplace_enter(pool->ops, head, c.index, c.mask))
			return false;
		cuts[*count] = c;
		clusters[*count] = e->cluster;
		data += c.len_bytes;
		offset_bytes += c.len_bytes;
		len_bytes -= c.len_bytes;
	}
	return true;
}

/* 0 or an error if the request was written in place; 1: it is not that simple. Neighbours on disk go as one request. */
static int try_in_place(struct pool *pool, struct layer *head, const uint8_t *data, uint64_t offset_bytes,
			uint64_t len_bytes, unsigned flags)
{
	struct batch_io ios[BATCH];
	struct io_batch b;
	struct cut cuts[BATCH];
	uint32_t clusters[BATCH], count;
	bool durable = flags & VOL_FUA, by_device = durable && flush_moves_are_durable(pool->flush);
	int err = 1;
	io_batch_init(&b, ios, BATCH);
	if (in_place_enter_all(pool, head, data, offset_bytes, len_bytes, cuts, clusters, &count)) {
		for (uint32_t i = 0; i < count; data += cuts[i++].len_bytes)
			io_batch_add(&b, pool->disk, RT_IO_WRITE, (void *)(uintptr_t)data,
				     place_bytes(clusters[i], &cuts[i]), cuts[i].len_bytes,
				     by_device && !MUTANT(17) ? RT_IO_FUA : 0);
		io_batch_submit(&b);
		err = io_batch_wait(&b);
	}
	while (count > 0)
		inplace_leave(pool->ops, head, cuts[--count].index);
	if (err == 0 && durable && !by_device)
		err = flush_wait(pool->flush);
	return err;
}

/* ---- prepare ---------------------------------------------------------------------------------------------------------------- */

/* Make the piece whole aligned blocks: what the caller leaves out of a block is read from the chain. */
static int piece_fill(struct write *w, struct piece *p)
{
	struct cut *c = &p->cut;
	if (c->whole_blocks && u64_is_aligned((uintptr_t)p->data, 512))
		return 0;
	unsigned first = (unsigned)__builtin_ctz(c->mask), last = 31u - (unsigned)__builtin_clz(c->mask);
	p->bounce = io_alloc(POOL_CLUSTER_BYTES);
	if (!p->bounce)
		return OXE_NOMEM;
	uint16_t edges = c->whole_blocks ? 0 : block_mask(first, first) | block_mask(last, last);
	int err = edges ? cluster_read(w->pool, vol_top, w->vol, c->index, edges, p->bounce) : 0;
	if (err)
		return err;
	memcpy(p->bounce + c->offset_bytes, p->data, c->len_bytes);
	c->offset_bytes = first * POOL_BLOCK_BYTES;
	c->len_bytes = (last - first + 1) * POOL_BLOCK_BYTES;
	c->whole_blocks = true;
	p->data = p->bounce + c->offset_bytes;
	return 0;
}

static bool lacks_cluster(const struct piece *p)
{
	return !p->cluster && !map_entry_view(p->leaf, p->cut.index)->cluster;
}

/* A cluster for the piece if the head has none here; its bitmap page stays in until the commit. */
static int piece_set_aside(struct write *w, struct piece *p)
{
	struct space *space = w->pool->space;
	if (!lacks_cluster(p))
		return 0;
	int err = space_window_fill(space, &w->head->window);
	if (err)
		return err;
	p->cluster = space_window_take(space, &w->head->window);
	return space_bitmap_pin(space, p->cluster, &p->bitmap);
}

static int leaf_get(struct pool *pool, struct layer *head, uint32_t index, struct page **leaf)
{
	int err = page_get(&head->map, 0, index / PAGE_FANOUT, false, leaf);
	if (err != OXE_NOENT)
		return err;
	err = space_admit_metadata(pool->space);
	if (!err)
		err = tree_raise(&head->map, index / PAGE_FANOUT + 1);
	return err ? err : page_get(&head->map, 0, index / PAGE_FANOUT, true, leaf);
}

static int piece_prepare(struct write *w, struct piece *p)
{
	struct pool *pool = w->pool;
	bool alone = !directly(pool, &p->cut, p->data) || !p->cut.whole_blocks || w->only_undefined;
	int err = leaf_get(pool, w->head, p->cut.index, &p->leaf);
	if (err)
		return err;
	cluster_hold(pool->ops, &p->hold, w->head, p->cut.index, p->cut.mask, alone);
	return piece_fill(w, p);
}

static void doors_leave(struct write *w)
{
	for (uint32_t i = 0; i < w->count; i++) {
		if (w->pieces[i].ahead)
			flush_ahead_leave(w->pool->flush);
		w->pieces[i].ahead = false;
	}
}

/* Take the ahead door for every piece that must, without waiting. If one is shut, none is taken, and *settle_seq says what to
 * settle: a flush waits for those inside, so nobody may wait for a flush while holding a door. */
static bool doors_enter(struct write *w, uint64_t *settle_seq)
{
	struct pool *pool = w->pool;
	for (uint32_t i = 0; i < w->count; i++) {
		struct piece *p = &w->pieces[i];
		if (classify(pool, w->head, &p->cut, map_entry_view(p->leaf, p->cut.index), settle_seq) !=
		    PIECE_AHEAD)
			continue;
		p->ahead = flush_ahead_enter(pool->flush, w->head->number, p->cut.index);
		if (!p->ahead) {
			doors_leave(w);
			return false;
		}
	}
	return true;
}

/* While one piece was prepared, others may have settled, flushed, or freed a cluster that an earlier piece counted on. Ends
 * without a suspension between the last look and the commit. */
static int pieces_ready(struct write *w)
{
	for (;;) {
		bool lacking = false;
		uint64_t settle_seq = 0;
		int err = 0;
		for (uint32_t i = 0; !err && i < w->count; i++)
			err = piece_set_aside(w, &w->pieces[i]);
		for (uint32_t i = 0; !err && i < w->count; i++)
			lacking = lacking || lacks_cluster(&w->pieces[i]);
		if (!err && !lacking) {
			if (doors_enter(w, &settle_seq))
				return 0;
			err = flush_settle(w->pool->flush, settle_seq);
		}
		if (err)
			return err;
	}
}

/* ---- commit ----------------------------------------------------------------------------------------------------------------- */

static const uint8_t *block_data(const struct piece *p, unsigned block)
{
	return p->data + (block - (unsigned)__builtin_ctz(p->cut.mask)) * POOL_BLOCK_BYTES;
}

static void piece_sum(struct piece *p)
{
	for (unsigned block = 0; block < BLOCKS_PER_CLUSTER; block++) {
		if (!(p->define >> block & 1))
			continue;
		for (unsigned i = 0; i < SECTORS_PER_BLOCK; i++)
			p->crcs.of[block][i] =
				crc32c(0, block_data(p, block) + i * SECTOR_BYTES, SECTOR_BYTES);
	}
}

/* The waiting for the data begins with the first record of the piece. */
static void record_send(struct write *w, struct piece *p, const struct record_head *head)
{
	bool first = p->seq == 0;
	p->seq = record_commit(w->pool, head);
	w->room.records--;
	if (first)
		flush_define_begin(w->pool->flush, &p->op, p->seq);
}

/* One DEFINE of the blocks in `mask`. */
static void piece_define(struct write *w, struct piece *p, uint32_t cluster, uint16_t mask)
{
	uint8_t space[sizeof(struct record_define) + 4 * BLOCKS_PER_CLUSTER];
	struct record_define *r = (void *)space;
	unsigned count = 0;
	for (unsigned block = 0; block < BLOCKS_PER_CLUSTER; block++) {
		if (mask >> block & 1)
			r->crc[count++] = crc32c(0, block_data(p, block), POOL_BLOCK_BYTES);
	}
	r->head = (struct record_head){.type = RECORD_DEFINE,
				       .len_bytes = (uint16_t)(sizeof(*r) + count * sizeof(uint32_t))};
	r->layer = number_of(w->head->number);
	r->index = p->cut.index;
	r->cluster = cluster;
	r->mask = mask;
	r->pad = 0;
	record_send(w, p, &r->head);
}

/* One DEFINE_OVER of the lowest blocks in `mask`. Returns those left. */
static uint16_t piece_define_over(struct write *w, struct piece *p, uint32_t cluster, uint16_t mask)
{
	_Alignas(8) uint8_t
		space[sizeof(struct record_define_over) + OVER_BLOCKS_MAX * sizeof(struct over_block)];
	struct record_define_over *r = (void *)space;
	unsigned count = 0;
	*r = (struct record_define_over){
		.layer = number_of(w->head->number), .index = p->cut.index, .cluster = cluster};
	for (; mask && count < OVER_BLOCKS_MAX; mask &= (uint16_t)(mask - 1)) {
		unsigned block = (unsigned)__builtin_ctz(mask);
		struct over_block *b = &r->blocks[count++];
		b->crc = crc32c(0, block_data(p, block), POOL_BLOCK_BYTES);
		memcpy(b->old_crcs, unsettled_crcs(w->pool->flush, w->head->number, p->cut.index, block),
		       sizeof(b->old_crcs));
		memcpy(b->new_crcs, p->crcs.of[block], sizeof(b->new_crcs));
		r->mask |= (uint16_t)(1u << block);
	}
	r->head =
		(struct record_head){.type = RECORD_DEFINE_OVER,
				     .len_bytes = (uint16_t)(sizeof(*r) + count * sizeof(struct over_block))};
	record_send(w, p, &r->head);
	return mask;
}

/* Records that commit a piece: those of blocks over unsettled data, and one for the others. */
#define RECORDS_MAX(blocks) (1 + ((blocks) + OVER_BLOCKS_MAX - 1) / OVER_BLOCKS_MAX)

static uint32_t records_max(const struct piece *p)
{
	return RECORDS_MAX((unsigned)__builtin_popcount(p->cut.mask));
}

static_assert(BATCH + (BATCH * RECORDS_MAX(BLOCKS_PER_CLUSTER) + JOURNAL_RECORDS_PER_BLOCK - 1) /
				      JOURNAL_RECORDS_PER_BLOCK <=
		      JOURNAL_ROOM_BLOCKS_MAX,
	      "the largest batch fits the smallest journal");

/* Perhaps each piece needs a REJECT, one after the other. */
static struct journal_room rejects_room(const struct write *w)
{
	return (struct journal_room){w->count, w->count};
}

/* For everything: the commit of all pieces is one breath. */
static struct journal_room write_room(const struct write *w)
{
	uint32_t records = 0;
	for (uint32_t i = 0; i < w->count; i++)
		records += records_max(&w->pieces[i]);
	struct journal_room commit = journal_room_for(records), rejects = rejects_room(w);
	return (struct journal_room){commit.records + rejects.records, commit.blocks + rejects.blocks};
}

static void committed_unreserve(struct write *w)
{
	struct journal_room rejects = rejects_room(w);
	journal_unreserve(w->pool->journal, (struct journal_room){w->room.records - rejects.records,
								  w->room.blocks - rejects.blocks});
	w->room = rejects;
}

static void piece_send(struct write *w, struct piece *p, uint32_t cluster)
{
	io_batch_init(&p->batch, &p->io, 1);
	io_batch_add(&p->batch, w->pool->disk, RT_IO_WRITE, (void *)(uintptr_t)p->data,
		     place_bytes(cluster, &p->cut), p->cut.len_bytes, 0);
	io_batch_submit(&p->batch);
}

static void piece_commit(struct write *w, struct piece *p)
{
	struct pool *pool = w->pool;
	uint64_t seq;
	p->old = *map_entry_view(p->leaf, p->cut.index);
	uint32_t cluster = p->old.cluster ? p->old.cluster : p->cluster;
	uint16_t stored = data_blocks(&p->old) & p->cut.mask;
	/* What was zeroed since is not gone over: the old data there must not come back. */
	uint16_t over = unsettled_get(pool->flush, w->head->number, p->cut.index, stored, &seq);
	uint16_t fresh = p->cut.mask & (uint16_t)~stored;
	p->define = fresh | over;
	p->committed = true;
	if (p->define)
		cluster_hold_changed(&p->hold, &p->old);
	piece_sum(p);
	if (fresh)
		piece_define(w, p, cluster, fresh);
	while (over)
		over = piece_define_over(w, p, cluster, over);
	if (p->cluster && p->cluster != cluster)
		space_untake(pool->space, p->cluster); /* somebody else's piece of this cluster came first */
	p->cluster = cluster;
	if (!p->ahead || MUTANT(30))
		piece_send(w, p, cluster);
}

/* ---- wait and finish -------------------------------------------------------------------------------------------------------- */

/* The data did not arrive: take back what the record said, before the flush mark can vouch for it. */
static void piece_reject(struct write *w, struct piece *p)
{
	struct pool *pool = w->pool;
	uint16_t fresh = p->define & (uint16_t)~data_blocks(&p->old);
	uint16_t zero = fresh & p->old.zero;
	struct record_reject r = {.head = {.type = RECORD_REJECT, .len_bytes = sizeof(r)},
				  .layer = number_of(w->head->number),
				  .index = p->cut.index,
				  .undefined = fresh & (uint16_t)~zero,
				  .zero = zero};
	struct pins pins;
	if (!fresh)
		return;
	int err = record_prepare(pool, &r.head, &pins); /* resident: this piece has changed them */
	if (!err) {
		p->seq = record_commit(pool, &r.head);
		w->room.records--;
		pins_release(&pins);
		err = journal_wait(pool->journal, p->seq);
	}
	if (err)
		pool_fail(pool, err, "a record could not be taken back");
}

static int piece_wait(struct write *w, struct piece *p)
{
	struct pool *pool = w->pool;
	int err = p->define ? journal_wait(pool->journal, p->seq) : 0;
	if (p->ahead && !err && !MUTANT(30))
		piece_send(w, p, p->cluster);
	if (!p->ahead || !err) {
		int io_err = io_batch_wait(&p->batch);
		err = err ? err : io_err;
	}
	if (err && p->define && !pool->failed && !MUTANT(56))
		piece_reject(w, p);
	return err;
}

static void piece_finish(struct write *w, struct piece *p, int err)
{
	struct pool *pool = w->pool;
	if (p->committed && p->define) {
		if (!err && !MUTANT(31))
			unsettled_add(pool->flush, w->head->number, p->cut.index, p->define, p->seq,
				      &p->crcs);
		flush_define_end(pool->flush, &p->op);
	}
	if (p->ahead)
		flush_ahead_leave(pool->flush);
	if (!p->committed && p->cluster)
		space_untake(pool->space, p->cluster);
	cluster_release(pool->ops, &p->hold);
	if (p->bitmap)
		page_unpin(p->bitmap);
	if (p->leaf)
		page_unpin(p->leaf);
	free(p->bounce);
}

/* Room for all records, reserved before anything is held. */
static int write_prepare(struct write *w)
{
	struct pool *pool = w->pool;
	struct journal_room room = write_room(w);
	int err = checkpoint_throttle(pool);
	if (!err)
		err = flush_throttle(pool->flush);
	if (!err)
		err = journal_reserve(pool->journal, room);
	if (err)
		return err;
	w->room = room;
	for (uint32_t i = 0; !err && i < w->count; i++)
		err = piece_prepare(w, &w->pieces[i]);
	for (uint32_t i = 0; !err && w->only_undefined && i < w->count; i++) {
		if (map_entry_view(w->pieces[i].leaf, w->pieces[i].cut.index)->defined &
		    w->pieces[i].cut.mask)
			return OXE_EXISTS;
	}
	return err ? err : pieces_ready(w);
}

static int write_run(struct write *w)
{
	uint64_t settle_seq = 0;
	int err = write_prepare(w);
	if (!err && w->pool->failed && !MUTANT(55)) /* while it was prepared */
		err = OXE_FAILED;
	if (!err) {
		for (uint32_t i = 0; i < w->count; i++)
			piece_commit(w, &w->pieces[i]);
		committed_unreserve(w);
	}
	for (uint32_t i = 0; i < w->count; i++) {
		struct piece *p = &w->pieces[i];
		int piece_err = p->committed ? piece_wait(w, p) : err;
		if (p->committed && p->ahead && piece_err)
			settle_seq = p->seq;
		piece_finish(w, p, piece_err);
		err = err ? err : piece_err;
	}
	journal_unreserve(w->pool->journal, w->room);
	/* An ahead write that failed half-way is part old, part new: the next one over it would not know which of its sectors are
	 * which. Settled, nobody compares any more. */
	if (settle_seq && !w->pool->failed && flush_settle(w->pool->flush, settle_seq))
		return OXE_FAILED;
	return err;
}

/* Up to BATCH clusters that are not simply in place. Returns the bytes covered in *done_bytes. */
static int write_batch(struct vol *vol, const uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes,
		       uint64_t *done_bytes)
{
	struct write *w = mem_zalloc(sizeof(*w));
	w->pool = vol->pool;
	w->vol = vol;
	w->head = vol->volume->head;
	*done_bytes = 0;
	while (w->count < BATCH && *done_bytes < len_bytes) {
		struct piece *p = &w->pieces[w->count++];
		p->cut = cut_at(offset_bytes + *done_bytes, len_bytes - *done_bytes);
		p->data = data + *done_bytes;
		*done_bytes += p->cut.len_bytes;
	}
	int err = write_run(w);
	free(w);
	return err;
}

int layer_define(struct pool *pool, struct layer *layer, uint32_t index, uint16_t mask,
		 const uint8_t *cluster_data, uint64_t *seq)
{
	struct write *w = mem_zalloc(sizeof(*w));
	struct piece *p = &w->pieces[0];
	uint32_t first = (uint32_t)__builtin_ctz(mask);
	w->pool = pool;
	w->head = layer;
	w->only_undefined = true;
	w->count = 1;
	p->cut = cut_at((uint64_t)index * POOL_CLUSTER_BYTES + first * POOL_BLOCK_BYTES,
			(uint64_t)__builtin_popcount(mask) * POOL_BLOCK_BYTES);
	assert(p->cut.mask == mask);
	p->data = cluster_data + first * POOL_BLOCK_BYTES;
	int err = write_run(w);
	*seq = p->seq;
	free(w);
	return err;
}

static int write_all(struct vol *vol, const uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes,
		     unsigned flags)
{
	int err = try_in_place(vol->pool, vol->volume->head, data, offset_bytes, len_bytes, flags);
	if (err <= 0)
		return err;
	while (len_bytes > 0) {
		uint64_t done_bytes;
		err = write_batch(vol, data, offset_bytes, len_bytes, &done_bytes);
		if (err)
			return err;
		data += done_bytes;
		offset_bytes += done_bytes;
		len_bytes -= done_bytes;
	}
	return flags & VOL_FUA && !MUTANT(29) ? flush_wait(vol->pool->flush) : 0;
}

int vol_write(struct vol *vol, const void *data, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	int err = vol_check(vol, offset_bytes, len_bytes, true);
	if (err || len_bytes == 0)
		return err;
	group_add(&vol->calls, 1);
	gate_enter(vol->volume);
	readahead_changing(vol, offset_bytes, len_bytes);
	err = write_all(vol, data, offset_bytes, len_bytes, flags);
	gate_leave(vol->volume);
	group_done(&vol->calls);
	return err;
}
