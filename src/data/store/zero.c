/*
 * zero.c: making ranges read as zeroes, and trim.
 *
 * Whole blocks are marked in the head's map, cluster by cluster, up to RUN clusters with one record; what reads as zeroes
 * already is passed over, so a discard of a large empty volume costs nothing; but not in a fresh volume, which will stand on
 * something that does not. A cluster whose last data block goes is given back, so it is held alone: no write in place may land in it
 * later.
 */
#include "data/store/cluster_op.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

#define RUN 32u

static const _Alignas(RT_IO_ALIGN) uint8_t zeroes[POOL_CLUSTER_BYTES];

struct zero_run {
	struct vol *vol;
	struct layer *head;
	uint32_t index, count;
	uint16_t mask;
	struct cluster_hold holds[RUN];
	uint32_t held;
};

static bool is_fresh(const struct vol *vol)
{
	return vol->volume->flags & VOLUME_FRESH && !MUTANT(75);
}

static void run_commit(struct zero_run *z, const struct record_zero *r, struct pins *pins,
		       struct journal_room *room, uint64_t *seq)
{
	struct pool *pool = z->vol->pool;
	struct page *leaf = page_peek(&z->head->map, 0, z->index / PAGE_FANOUT, NULL);
	for (uint32_t i = 0; i < z->count; i++)
		cluster_hold_changed(&z->holds[i], map_entry_view(leaf, z->index + i));
	*seq = record_commit(pool, &r->head);
	room->records--;
	pins_release(pins);
}

/* Everything is held and reserved. The ticket keeps clusters that are given back from being reused while readers still see
 * the old entry. */
static int run_record(struct zero_run *z, struct journal_room room)
{
	struct pool *pool = z->vol->pool;
	struct record_zero r = {.head = {.type = RECORD_ZERO, .len_bytes = sizeof(r)},
				.layer = number_of(z->head->number),
				.index = z->index,
				.count = z->count,
				.mask = z->mask,
				.flags = is_fresh(z->vol) ? ZERO_SAID : 0};
	struct pins pins;
	uint64_t seq;
	int err = record_prepare(pool, &r.head, &pins);
	if (!err)
		run_commit(z, &r, &pins, &room, &seq);
	journal_unreserve(pool->journal, room);
	return err ? err : journal_wait(pool->journal, seq);
}

static int run_zero(struct zero_run *z)
{
	struct pool *pool = z->vol->pool;
	struct journal_room room = journal_room_for(1);
	int err = checkpoint_throttle(pool);
	if (!err)
		err = space_admit_metadata(pool->space);
	if (!err)
		err = journal_reserve(pool->journal, room);
	if (err)
		return err;
	for (z->held = 0; z->held < z->count; z->held++)
		cluster_hold(pool->ops, &z->holds[z->held], z->head, z->index + z->held, z->mask, true);
	uint32_t ticket = space_read_enter(pool->space);
	err = run_record(z, room);
	while (z->held > 0)
		cluster_release(pool->ops, &z->holds[--z->held]);
	space_read_leave(pool->space, ticket);
	return err;
}

/* Does any of these blocks hold data, as readers see it, or will it when the volume stands on something? */
static int needs_zero(struct vol *vol, uint32_t index, uint16_t mask, bool *needed)
{
	struct resolved r;
	int err = resolve_blocks(vol->pool, vol_top, vol, index, mask, &r);
	*needed = !err && (r.part_count > 0 || (r.hole && is_fresh(vol)));
	return err;
}

/* Extend the run over following clusters that are whole, under the same leaf, and need it. */
static int run_extend(struct zero_run *z, uint32_t end_index)
{
	while (z->mask == UINT16_MAX && z->count < RUN && z->index + z->count < end_index &&
	       (z->index + z->count) % PAGE_FANOUT) {
		bool needed;
		int err = needs_zero(z->vol, z->index + z->count, UINT16_MAX, &needed);
		if (err || !needed)
			return err;
		z->count++;
	}
	return 0;
}

/* One step over whole blocks: skip, or mark a run. Returns the bytes dealt with. */
static int zero_step(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, uint64_t *done_bytes)
{
	struct cut c = cut_at(offset_bytes, len_bytes);
	uint32_t next = c.index;
	bool needed;
	*done_bytes = len_bytes;
	int err = is_fresh(vol) ? 0 : resolve_next(vol->pool, vol_top, vol, NULL, c.index, &next);
	if (err == OXE_NOENT)
		return 0;
	if (!err && next > c.index) {
		*done_bytes = u64_min(len_bytes, (uint64_t)next * POOL_CLUSTER_BYTES - offset_bytes);
		return 0;
	}
	*done_bytes = c.len_bytes;
	if (!err)
		err = needs_zero(vol, c.index, c.mask, &needed);
	if (err || !needed)
		return err;
	struct zero_run z = {
		.vol = vol, .head = vol->volume->head, .index = c.index, .count = 1, .mask = c.mask};
	uint64_t end_index = (offset_bytes + len_bytes) / POOL_CLUSTER_BYTES;
	err = run_extend(&z, (uint32_t)end_index);
	if (!err)
		err = run_zero(&z);
	*done_bytes = c.len_bytes + (uint64_t)(z.count - 1) * POOL_CLUSTER_BYTES;
	return err;
}

static int zero_blocks(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	gate_enter(vol->volume);
	readahead_changing(vol, offset_bytes, len_bytes);
	int err = 0;
	while (!err && len_bytes > 0) {
		uint64_t done_bytes;
		err = zero_step(vol, offset_bytes, len_bytes, &done_bytes);
		offset_bytes += done_bytes;
		len_bytes -= done_bytes;
	}
	gate_leave(vol->volume);
	return err;
}

static int write_zeroes(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	int err = 0;
	while (!err && len_bytes > 0) {
		uint64_t step = u64_min(len_bytes, sizeof(zeroes));
		err = vol_write(vol, zeroes, offset_bytes, step, 0);
		offset_bytes += step;
		len_bytes -= step;
	}
	return err;
}

/* The whole blocks inside [offset, offset + len); empty if there are none. */
static void inner_blocks(uint64_t offset_bytes, uint64_t len_bytes, uint64_t *start, uint64_t *end)
{
	*start = u64_align_up(offset_bytes, POOL_BLOCK_BYTES);
	*end = u64_align_down(offset_bytes + len_bytes, POOL_BLOCK_BYTES);
	if (*end < *start)
		*end = *start;
}

static int zero_with_edges(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t start, end, last = offset_bytes + len_bytes;
	inner_blocks(offset_bytes, len_bytes, &start, &end);
	uint64_t head_end = u64_min(start, last);
	int err = write_zeroes(vol, offset_bytes, head_end - offset_bytes);
	if (!err && end > start)
		err = zero_blocks(vol, start, end - start);
	if (!err && last > u64_max(end, head_end))
		err = write_zeroes(vol, u64_max(end, head_end), last - u64_max(end, head_end));
	return err;
}

int vol_zero(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	int err = vol_check(vol, offset_bytes, len_bytes, true);
	if (err || len_bytes == 0)
		return err;
	group_add(&vol->calls, 1);
	if (flags & VOL_NO_HOLE)
		err = write_zeroes(vol, offset_bytes, len_bytes);
	else
		err = zero_with_edges(vol, offset_bytes, len_bytes);
	if (!err && (flags & VOL_FUA))
		err = flush_wait(vol->pool->flush);
	group_done(&vol->calls);
	return err;
}

int vol_trim(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t start, end;
	int err = vol_check(vol, offset_bytes, len_bytes, true);
	if (err)
		return err;
	inner_blocks(offset_bytes, len_bytes, &start, &end);
	if (start == end)
		return 0;
	group_add(&vol->calls, 1);
	err = zero_blocks(vol, start, end - start);
	group_done(&vol->calls);
	return err;
}
