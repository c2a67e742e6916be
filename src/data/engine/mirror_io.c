/*
 * mirror_io.c: what clients ask for.
 *
 *     write     range, settled, intents, gate, every copy                                   V1, V6, V7
 *     read      range, settled, gate, lease, one member; another if that one cannot         V5, V10
 *
 * While a copy is joining, its new head has nothing below it yet, so it gets whole blocks: a write that begins or ends inside one
 * is filled up from a member first.
 */
#include "data/engine/mirror_impl.h"

#include <stdalign.h>

/* ---- in and out ------------------------------------------------------------------------------------------------------------ */

int mirror_call_begin(struct mirror *m)
{
	while (m->requests >= MIRROR_REQUESTS_MAX && !m->closing)
		waitq_wait(&m->room);
	if (m->closing)
		return OXE_SHUTDOWN;
	m->requests++;
	m->calls++;
	/* How large it is, a copy has to say first. */
	while (m->size_bytes == 0 && !mirror_over(m))
		waitq_wait(&m->changed);
	return 0;
}

int mirror_call_end(struct mirror *m, int err)
{
	m->requests--;
	waitq_wake_all(&m->room);
	return m->was_fenced ? OXE_FENCED : err;
}

static int range_check(const struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t end_bytes;
	if (mirror_over(m))
		return mirror_over(m);
	if (!u64_add_checked(offset_bytes, len_bytes, &end_bytes) || end_bytes > m->size_bytes)
		return OXE_RANGE;
	return u64_is_aligned(offset_bytes | len_bytes, m->lba_bytes) ? 0 : OXE_ALIGN;
}

void mirror_blocks_lock(struct mirror *m, struct range *r, uint64_t offset_bytes, uint64_t len_bytes,
			bool changes)
{
	uint64_t first = u64_align_down(offset_bytes, POOL_BLOCK_BYTES);
	uint64_t last = u64_align_up(offset_bytes + len_bytes, POOL_BLOCK_BYTES);
	for (;;) {
		mirror_settle_wait(m, offset_bytes, len_bytes);
		mirror_range_lock(&m->ranges, r, first, MUTANT(209) ? first : last, changes);
		if (!regions_any(&m->unsettled, region_of(m, offset_bytes),
				 region_last(m, offset_bytes, len_bytes)) ||
		    mirror_over(m))
			return;
		mirror_range_unlock(&m->ranges, r);
	}
}

/* ---- reads ----------------------------------------------------------------------------------------------------------------- */

/* V5: until then no newer engine can have served: it would have fenced a member first. */
static uint64_t lease_ends_ns(const struct mirror *m)
{
	uint32_t members = mirror_copies_members(m);
	uint64_t heard_ns = UINT64_MAX / 2;
	if (copies_at_most_one(members) || MUTANT(207))
		return UINT64_MAX;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (members >> i & 1)
			heard_ns = MUTANT(243) ? m->copies[i]->heard_ns
					       : u64_min(heard_ns, m->copies[i]->heard_ns);
	return heard_ns + m->options.lease_ns;
}

static int read_ask(struct replica *r, struct reading *reading)
{
	return r->ops->read(r, reading->data, reading->offset_bytes, reading->len_bytes);
}

/* Inside the gate. Not done: nobody could be asked, or the lease is over. */
static void read_once(struct mirror *m, struct reading *r)
{
	struct copy *c;
	while (!m->was_fenced && rt_now_ns(m->rt) < lease_ends_ns(m) &&
	       (c = mirror_copy_to_ask(m, r->could_not))) {
		uint64_t session = c->session_number;
		c->reads++;
		int err = r->ask(c->replica, r);
		c->reads--;
		if (!mirror_copy_answered(c, session, err))
			continue;
		/* What was read before the lease ended was the newest then. */
		r->is_done = err == 0 || (err != OXE_IO && err != OXE_CORRUPT);
		r->err = err;
		if (r->is_done)
			return;
		r->could_not |= mirror_copy_bit(c);
	}
	r->is_done = r->could_not && !(mirror_copies_members(m) & ~r->could_not);
}

/* V10: another had it. Where it could not be read it is written again; not in a layer, which is never written. */
static void read_repair(struct mirror *m, const struct reading *r)
{
	if (!r->could_not || r->err || r->ask != read_ask)
		return;
	struct copy *good = mirror_copy_to_read(m, r->could_not);
	if (good)
		mirror_settle_mark(m, r->offset_bytes, r->len_bytes, good);
}

int mirror_reading_run(struct mirror *m, struct reading *r)
{
	for (;;) {
		int err = mirror_gate_enter(m);
		if (err)
			return err;
		read_once(m, r);
		if (r->is_done)
			read_repair(m, r);
		mirror_gate_leave(m);
		if (r->is_done)
			return r->err;
		mirror_pause(m, rt_now_ns(m->rt) + m->options.lease_ns / 4);
	}
}

/* V10: no member can read all of it, but each block some member may. */
static int read_by_block(struct mirror *m, const struct reading *all)
{
	int err = 0;
	for (uint64_t at = 0; !err && at < all->len_bytes;) {
		uint64_t offset_bytes = all->offset_bytes + at,
			 next = u64_align_down(offset_bytes, POOL_BLOCK_BYTES) + POOL_BLOCK_BYTES;
		struct reading r = {.ask = all->ask,
				    .layer_id = all->layer_id,
				    .data = (uint8_t *)all->data + at,
				    .offset_bytes = offset_bytes,
				    .len_bytes = u64_min(next - offset_bytes, all->len_bytes - at)};
		err = mirror_reading_run(m, &r);
		at += r.len_bytes;
	}
	return err;
}

int mirror_read(struct mirror *m, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct range range;
	struct reading r = {
		.ask = read_ask, .data = data, .offset_bytes = offset_bytes, .len_bytes = len_bytes};
	int err = mirror_call_begin(m);
	if (err)
		return err;
	err = range_check(m, offset_bytes, len_bytes);
	if (!err && len_bytes > 0) {
		mirror_blocks_lock(m, &range, offset_bytes, len_bytes, false);
		err = mirror_reading_run(m, &r);
		if ((err == OXE_IO || err == OXE_CORRUPT) && !copies_at_most_one(r.could_not) && !MUTANT(230))
			err = read_by_block(m, &r);
		mirror_range_unlock(&m->ranges, &range);
	}
	return mirror_call_end(m, err);
}

/* ---- whole blocks ----------------------------------------------------------------------------------------------------------- */

struct change {
	struct request q;
	uint8_t *whole; /* of m->buffers: the request's blocks in full */
	uint64_t whole_bytes;
};

static bool somebody_joins(const struct mirror *m)
{
	return mirror_copies_in_view(m) & ~mirror_copies_members(m);
}

static int block_fetch(struct mirror *m, uint8_t *block, uint64_t offset_bytes)
{
	struct reading r = {.ask = read_ask,
			    .data = block,
			    .offset_bytes = offset_bytes,
			    .len_bytes = u64_min(POOL_BLOCK_BYTES, m->size_bytes - offset_bytes)};
	read_once(m, &r);
	return r.is_done ? r.err : OXE_BUSY;
}

/* Inside the gate, once: from then on the request is whole blocks for everybody. */
static int widen(struct mirror *m, struct change *ch)
{
	struct request *q = &ch->q;
	uint64_t begin_bytes = u64_align_down(q->offset_bytes, POOL_BLOCK_BYTES);
	uint64_t end_bytes =
		u64_min(u64_align_up(q->offset_bytes + q->len_bytes, POOL_BLOCK_BYTES), m->size_bytes);
	uint64_t last = u64_align_down(end_bytes - 1, POOL_BLOCK_BYTES);
	int err = block_fetch(m, ch->whole, begin_bytes);
	if (!err && last != begin_bytes)
		err = block_fetch(m, ch->whole + (last - begin_bytes), last);
	if (err)
		return err;
	memcpy(ch->whole + (q->offset_bytes - begin_bytes), q->data, q->len_bytes);
	q->data = ch->whole;
	q->offset_bytes = begin_bytes;
	q->len_bytes = end_bytes - begin_bytes;
	return 0;
}

static bool is_whole(const struct mirror *m, const struct request *q)
{
	uint64_t end_bytes = q->offset_bytes + q->len_bytes;
	return u64_is_aligned(q->offset_bytes, POOL_BLOCK_BYTES) &&
	       (u64_is_aligned(end_bytes, POOL_BLOCK_BYTES) || end_bytes == m->size_bytes);
}

/* ---- changes ----------------------------------------------------------------------------------------------------------------- */

/* V11: one machine that the engine is not on has all there is, and its power may be cut. Whose boot is the same is one machine. */
static bool must_be_durable(const struct mirror *m)
{
	uint32_t members = mirror_copies_members(m);
	const struct copy *first = m->copies[__builtin_ctz(members)];
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		const struct copy *c = m->copies[i];
		if (members >> i & 1 &&
		    (c->replica->is_local || !uuid_equal(&c->state.boot_id, &first->state.boot_id)))
			return false;
	}
	return true;
}

static int change_inside(struct mirror *m, struct request *q)
{
	struct change *ch = container_of(q, struct change, q);
	if (q->offset_bytes + q->len_bytes > m->size_bytes)
		return OXE_RANGE; /* it has shrunk meanwhile */
	if (!mirror_intents_cover(m, q->offset_bytes, q->len_bytes))
		return OXE_BUSY;
	if (q->kind == REQUEST_WRITE && somebody_joins(m) && !is_whole(m, q) && !MUTANT(212)) {
		if (!ch->whole)
			return OXE_BUSY;
		int err = widen(m, ch);
		if (err)
			return err;
	}
	if (q->kind != REQUEST_TRIM && must_be_durable(m))
		q->flags |= VOL_FUA;
	return 0;
}

static int change_outside(struct mirror *m, struct request *q)
{
	struct change *ch = container_of(q, struct change, q);
	uint64_t whole_bytes = u64_align_up(q->len_bytes, POOL_BLOCK_BYTES) + POOL_BLOCK_BYTES;
	int err = mirror_intents_get(m, q->offset_bytes, q->len_bytes);
	if (err || q->kind != REQUEST_WRITE || is_whole(m, q))
		return err;
	if (ch->whole) { /* a block could not be fetched: when something has changed */
		mirror_pause(m, rt_now_ns(m->rt) + m->options.lease_ns / 4);
		return 0;
	}
	ch->whole = rt_buf_get(m->buffers, whole_bytes);
	ch->whole_bytes = whole_bytes;
	return 0;
}

/* Some copies said no, and others may have done it, or part of it: equal again before anybody reads there. The one that said no is what
 * the others can be made equal to without needing room. */
static void change_failed(struct mirror *m, const struct request *q)
{
	uint32_t in_view = mirror_copies_in_view(m);
	if (q->refused && !copies_at_most_one(in_view) && !MUTANT(219))
		mirror_settle_mark(m, q->offset_bytes, q->len_bytes,
				   (q->refused_by & mirror_copies_members(m))
					   ? m->copies[__builtin_ctz(q->refused_by)]
					   : NULL);
}

static int change_run(struct mirror *m, struct change *ch)
{
	uint64_t offset_bytes = ch->q.offset_bytes, len_bytes = ch->q.len_bytes;
	struct range range;
	struct intent_pin pin;
	ch->q.inside = change_inside;
	ch->q.outside = change_outside;
	mirror_intents_pin(m, &pin, offset_bytes, len_bytes);
	mirror_blocks_lock(m, &range, offset_bytes, len_bytes, true);
	int err = mirror_request_run(m, &ch->q);
	change_failed(m, &ch->q);
	m->written_bytes += err ? 0 : len_bytes;
	mirror_range_unlock(&m->ranges, &range);
	mirror_intents_unpin(m, &pin);
	if (ch->whole)
		rt_buf_put(m->buffers, ch->whole, ch->whole_bytes);
	return err;
}

static int change_checked(struct mirror *m, enum request_kind kind, const void *data, uint64_t offset_bytes,
			  uint64_t len_bytes, unsigned flags)
{
	struct change ch = {.q = {.kind = kind,
				  .flags = flags,
				  .data = data,
				  .offset_bytes = offset_bytes,
				  .len_bytes = len_bytes}};
	return len_bytes > 0 ? change_run(m, &ch) : 0;
}

int mirror_write(struct mirror *m, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		 unsigned vol_flags)
{
	int err = mirror_call_begin(m);
	if (err)
		return err;
	err = range_check(m, offset_bytes, len_bytes);
	if (!err)
		err = change_checked(m, REQUEST_WRITE, data, offset_bytes, len_bytes, vol_flags);
	return mirror_call_end(m, err);
}

/* Part of a block is written, as zeroes: a new head has to get it whole. */
static int zero_part(struct mirror *m, uint64_t begin_bytes, uint64_t end_bytes, unsigned vol_flags)
{
	static const alignas(RT_IO_ALIGN) uint8_t zeroes[POOL_BLOCK_BYTES];
	return change_checked(m, REQUEST_WRITE, zeroes, begin_bytes, end_bytes - begin_bytes,
			      vol_flags & VOL_FUA);
}

static int zero_checked(struct mirror *m, uint64_t begin_bytes, uint64_t end_bytes, unsigned vol_flags)
{
	uint64_t first = u64_align_up(begin_bytes, POOL_BLOCK_BYTES),
		 last = u64_align_down(end_bytes, POOL_BLOCK_BYTES);
	if (end_bytes == m->size_bytes)
		last = end_bytes;
	if (first >= last) {
		uint64_t middle = u64_min(first, end_bytes);
		int err = middle > begin_bytes ? zero_part(m, begin_bytes, middle, vol_flags) : 0;
		return err || middle == end_bytes ? err : zero_part(m, middle, end_bytes, vol_flags);
	}
	int err = first > begin_bytes ? zero_part(m, begin_bytes, first, vol_flags) : 0;
	if (!err)
		err = change_checked(m, REQUEST_ZERO, NULL, first, last - first, vol_flags);
	return err || last == end_bytes ? err : zero_part(m, last, end_bytes, vol_flags);
}

int mirror_zero(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	int err = mirror_call_begin(m);
	if (err)
		return err;
	err = range_check(m, offset_bytes, len_bytes);
	if (!err && len_bytes > 0)
		err = zero_checked(m, offset_bytes, offset_bytes + len_bytes, vol_flags);
	return mirror_call_end(m, err);
}

/* Whole blocks only, so that every copy does the same. */
int mirror_trim(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t first = u64_align_up(offset_bytes, POOL_BLOCK_BYTES);
	uint64_t last = u64_align_down(offset_bytes + len_bytes, POOL_BLOCK_BYTES);
	int err = mirror_call_begin(m);
	if (err)
		return err;
	err = range_check(m, offset_bytes, len_bytes);
	if (!err && first < last)
		err = change_checked(m, REQUEST_TRIM, NULL, first, last - first, 0);
	return mirror_call_end(m, err);
}

/* What a copy may lack was acknowledged: it has it again before this is (S3). */
static int flush_inside(struct mirror *m, struct request *q)
{
	(void)q;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (view_role_is_in(m->view.replicas[i].role) && mirror_copy_may_lack(m->copies[i]) &&
		    !MUTANT(223))
			return OXE_BUSY;
	return 0;
}

static int flush_outside(struct mirror *m, struct request *q)
{
	(void)q;
	mirror_pause(m, rt_now_ns(m->rt) + m->options.lease_ns / 4);
	return 0;
}

int mirror_flush(struct mirror *m)
{
	struct request q = {.kind = REQUEST_FLUSH, .inside = flush_inside, .outside = flush_outside};
	int err = mirror_call_begin(m);
	if (err)
		return err;
	err = mirror_request_run(m, &q);
	return mirror_call_end(m, err);
}
