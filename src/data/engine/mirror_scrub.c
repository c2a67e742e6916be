/*
 * mirror_scrub.c: members compared in the background by checksum: the volume as it is, and each snapshot.
 *
 *     a window of the volume     writes to it wait, all members are asked, writes go on
 *     of a snapshot              all members are asked: it never changes
 *
 *     what differs               in the volume                              in a snapshot
 *     more than half agree       the others get it from one of these        the others are put out, and filled anew from the lowest
 *                                                                           snapshot in which they differ
 *     one cannot read it         it is written again (V10)                  reported
 *     no more than half agree    reported, and left                         reported, and left
 *
 * Never a guess: of two members nobody knows which is right. What differs is looked at again with the window to ourselves before anything is
 * written, so that nothing is repaired that was merely on its way.
 *
 * Layers that no user named are not compared by themselves: members may have sealed them while they differed, where that is settled above
 * (mirror_settle.c). What they hold is seen through the layer above them.
 */
#include "base/crc32c.h"
#include "base/log.h"
#include "data/engine/mirror_impl.h"

struct scrub {
	struct mirror *m;
	const struct replica_layer *layer; /* NULL: the volume as it is */
	uint64_t offset_bytes, len_bytes;
	struct scrub_sums {
		struct scrub *s;
		struct copy *copy;
		struct rt_group *group;
		int err;
		bool answered;
		uint32_t crcs[WINDOW_BLOCKS];
	} sums[VIEW_REPLICAS_MAX];
	uint32_t members; /* that were asked */
	uint8_t *data;
	struct work work;
	/* What was told last: what goes on from there is told in the same words. */
	uint64_t told_end_bytes;
	uint32_t told_odd;
};

/* ---- asking ---------------------------------------------------------------------------------------------------------------- */

static void sums_ask(void *arg)
{
	struct scrub_sums *a = arg;
	const struct scrub *s = a->s;
	struct replica *r = a->copy->replica;
	uint64_t session = a->copy->session_number;
	a->err = r->ops->layer_checksums(r, s->layer ? &s->layer->id : NULL, s->offset_bytes, s->len_bytes,
					 a->crcs);
	a->answered = mirror_copy_answered(a->copy, session, a->err);
	group_done(a->group);
}

/* OXE_BUSY: somebody did not answer, or there is nobody to compare with. Another error is what a member says that neither has it nor lacks
 * it by damage: it is just being deleted. */
static int sums_said(const struct scrub *s)
{
	int err = 0;
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++) {
		if (!(s->members >> i & 1))
			continue;
		if (!s->sums[i].answered)
			return OXE_BUSY;
		if (s->sums[i].err && s->sums[i].err != OXE_IO && s->sums[i].err != OXE_CORRUPT)
			err = s->sums[i].err;
	}
	return err;
}

/* Inside the gate, all at once. */
static int window_ask(struct scrub *s)
{
	struct mirror *m = s->m;
	struct rt_group group;
	s->members = mirror_copies_members(m);
	if (copies_at_most_one(s->members) || (s->members & ~mirror_copies_open(m)))
		return OXE_BUSY;
	group_init(&group);
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		if (!(s->members >> i & 1))
			continue;
		s->sums[i] = (struct scrub_sums){.s = s, .copy = m->copies[i], .group = &group};
		group_add(&group, 1);
		fiber_spawn(m->rt, "mirror-sums", sums_ask, &s->sums[i]);
	}
	group_wait(&group);
	return sums_said(s);
}

/* ---- judging --------------------------------------------------------------------------------------------------------------- */

static bool cannot_read(const struct scrub *s, uint32_t i)
{
	return s->sums[i].err != 0;
}

/* Members that can read the block and say the same as member i. */
static uint32_t same_as(const struct scrub *s, uint32_t i, uint64_t block)
{
	uint32_t set = 0;
	for (uint32_t j = 0; j < VIEW_REPLICAS_MAX; j++)
		if ((s->members >> j & 1) && !cannot_read(s, j) &&
		    s->sums[j].crcs[block] == s->sums[i].crcs[block])
			set |= 1u << j;
	return set;
}

/* Who is right: more than half of all members, or all that can read it if somebody cannot. 0: nobody knows. */
static uint32_t right_ones(const struct scrub *s, uint64_t block)
{
	uint32_t best = 0, readers = 0;
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++) {
		if (!(s->members >> i & 1) || cannot_read(s, i))
			continue;
		uint32_t same = same_as(s, i, block);
		readers |= 1u << i;
		if (__builtin_popcount(same) > __builtin_popcount(best))
			best = same;
	}
	bool most = 2 * __builtin_popcount(best) > __builtin_popcount(s->members) || MUTANT(281);
	return most || best == readers ? best : 0;
}

static bool block_differs(const struct scrub *s, uint64_t block)
{
	return right_ones(s, block) != s->members;
}

static uint64_t block_count(const struct scrub *s)
{
	return u64_div_up(s->len_bytes, REPLICA_CHECKSUM_BYTES);
}

static bool window_differs(const struct scrub *s)
{
	for (uint64_t b = 0; b < block_count(s); b++)
		if (block_differs(s, b))
			return true;
	return false;
}

/* ---- telling --------------------------------------------------------------------------------------------------------------- */

static bool somebody_cannot_read(const struct scrub *s)
{
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++)
		if ((s->members >> i & 1) && cannot_read(s, i))
			return true;
	return false;
}

static void tell_anew(struct scrub *s, struct mirror_finding *f, uint32_t odd)
{
	struct mirror *m = s->m;
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		if (!(odd >> i & 1))
			continue;
		LOG_WARN("scrub.differs",
			 f->is_repaired ? "a member differed from the others, and is repaired"
					: "members differ",
			 F_UUID("volume", &m->options.volume_id), F_UUID("layer", &f->layer_id),
			 F_U64("offset", f->offset_bytes), F_UUID("pool", &m->copies[i]->pool_id));
		f->pool_ids[f->pool_count++] = m->copies[i]->pool_id;
	}
	if (m->scrub.status.finding_count < MIRROR_FINDINGS_MAX)
		m->scrub.status.findings[m->scrub.status.finding_count++] = *f;
}

/* `odd`: who differs from the others; all members, if nobody knows. */
static void tell(struct scrub *s, uint64_t block, uint32_t odd, bool repaired)
{
	struct mirror_scrub_status *st = &s->m->scrub.status;
	struct mirror_finding f = {.layer_id = s->layer ? s->layer->id : (struct uuid){{0}},
				   .offset_bytes = s->offset_bytes + block * REPLICA_CHECKSUM_BYTES,
				   .len_bytes = REPLICA_CHECKSUM_BYTES,
				   .is_unreadable = somebody_cannot_read(s),
				   .is_repaired = repaired};
	struct mirror_finding *last = st->finding_count ? &st->findings[st->finding_count - 1] : NULL;
	st->differed_bytes += REPLICA_CHECKSUM_BYTES;
	st->repaired_bytes += repaired ? REPLICA_CHECKSUM_BYTES : 0;
	if (last && f.offset_bytes == s->told_end_bytes && odd == s->told_odd && block > 0 &&
	    last->is_repaired == repaired && last->is_unreadable == f.is_unreadable &&
	    uuid_equal(&last->layer_id, &f.layer_id))
		last->len_bytes += REPLICA_CHECKSUM_BYTES;
	else
		tell_anew(s, &f, odd);
	s->told_end_bytes = f.offset_bytes + REPLICA_CHECKSUM_BYTES;
	s->told_odd = odd;
}

/* ---- the volume as it is --------------------------------------------------------------------------------------------------- */

static bool block_write(struct scrub *s, uint32_t i, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct copy *c = s->m->copies[i];
	uint64_t session = c->session_number;
	int err = c->replica->ops->write(c->replica, s->data, offset_bytes, len_bytes, 0);
	if (mirror_copy_answered(c, session, err) && err)
		c->last_err = err;
	return !err;
}

/* Inside the gate, with the window to ourselves. What is read is what was summed, or it is left for another time. */
static bool block_repair(struct scrub *s, uint64_t block, uint32_t right)
{
	struct mirror *m = s->m;
	struct copy *good = m->copies[__builtin_ctz(right)];
	uint64_t at = block * REPLICA_CHECKSUM_BYTES, offset_bytes = s->offset_bytes + at,
		 len_bytes = u64_min(REPLICA_CHECKSUM_BYTES, s->len_bytes - at),
		 session = good->session_number;
	uint32_t odd = s->members & ~right;
	int err = good->replica->ops->read(good->replica, s->data, offset_bytes, len_bytes);
	bool done = mirror_copy_answered(good, session, err) && !err &&
		    crc32c(0, s->data, len_bytes) == s->sums[__builtin_ctz(right)].crcs[block];
	for (uint32_t i = 0; done && i < m->view.replica_count; i++)
		if (odd >> i & 1)
			done = MUTANT(282) || block_write(s, i, offset_bytes, len_bytes);
	return done;
}

static void window_repair(struct scrub *s)
{
	for (uint64_t b = 0; b < block_count(s); b++) {
		uint32_t right = right_ones(s, b);
		if (right == s->members)
			continue;
		tell(s, b, right ? s->members & ~right : s->members, right && block_repair(s, b, right));
	}
}

enum { SAME, DIFFERS, AGAIN };

/* Inside the gate. */
static int window_compare(struct scrub *s)
{
	int err = window_ask(s);
	return err == OXE_BUSY ? AGAIN : !err && window_differs(s) ? DIFFERS : SAME;
}

static int head_look(struct scrub *s, bool repair)
{
	struct mirror *m = s->m;
	struct range range;
	int said = SAME;
	mirror_blocks_lock(m, &range, s->offset_bytes, MUTANT(283) ? 1 : s->len_bytes, repair);
	if (mirror_gate_enter(m) == 0) {
		if (s->offset_bytes + s->len_bytes <= m->size_bytes)
			said = window_compare(s);
		if (said == DIFFERS && repair)
			window_repair(s);
		mirror_gate_leave(m);
	}
	mirror_range_unlock(&m->ranges, &range);
	return said;
}

static int head_window(struct scrub *s)
{
	int said = head_look(s, false);
	return said == DIFFERS ? head_look(s, true) : said;
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------------- */

/* A copy that is wrong in a snapshot is filled anew from there, the lowest such first; when all has been looked at. */
static void suspect(struct scrub *s, uint32_t odd)
{
	for (uint32_t i = 0; i < s->m->view.replica_count; i++)
		if ((odd >> i & 1) && !cannot_read(s, i) && uuid_is_nil(&s->m->copies[i]->suspect_id))
			s->m->copies[i]->suspect_id = s->layer->id;
}

static int layer_window(struct scrub *s)
{
	struct mirror *m = s->m;
	if (mirror_gate_enter(m))
		return SAME;
	int said = window_compare(s);
	for (uint64_t b = 0; said == DIFFERS && b < block_count(s); b++) {
		uint32_t right = right_ones(s, b), odd = right ? s->members & ~right : s->members;
		if (right == s->members)
			continue;
		tell(s, b, odd, false);
		if (2 * __builtin_popcount(right) > __builtin_popcount(s->members))
			suspect(s, odd);
	}
	mirror_gate_leave(m);
	return said;
}

/* One may be away: it is waited for. One that is put out, or deleted, is not. */
static void window_look(struct scrub *s)
{
	struct mirror *m = s->m;
	mirror_work_begin(m, &s->work);
	for (uint32_t tries = 0; !mirror_over(m) && m->scrub.wanted; tries++) {
		int said = s->layer ? layer_window(s) : head_window(s);
		if (said != AGAIN || copies_at_most_one(mirror_copies_members(m)))
			break;
		mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, tries));
	}
	m->scrub.status.done_bytes += s->len_bytes;
	mirror_work_end(m, &s->work, s->len_bytes, m->scrub.bytes_per_s);
}

/* ---- a run ----------------------------------------------------------------------------------------------------------------- */

static void layer_scrub(struct scrub *s, uint64_t size_bytes)
{
	struct mirror *m = s->m;
	for (s->offset_bytes = 0; s->offset_bytes < size_bytes && m->scrub.wanted && !mirror_over(m);
	     s->offset_bytes += WINDOW_BYTES) {
		s->len_bytes = u64_min(WINDOW_BYTES, size_bytes - s->offset_bytes);
		window_look(s);
	}
}

static void suspects_out(struct mirror *m)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (!uuid_is_nil(&m->copies[i]->suspect_id) && view_role_is_in(m->view.replicas[i].role))
			mirror_copy_fail(m->copies[i], OXE_CORRUPT,
					 "a snapshot in it is not what the other members have");
}

static void run(struct scrub *s)
{
	struct mirror *m = s->m;
	struct mirror_scrub_status *st = &m->scrub.status;
	size_t count = m->snapshot_count;
	struct replica_layer *layers = mem_zalloc((count + 1) * sizeof(*layers));
	uint64_t size_bytes = m->size_bytes;
	for (size_t i = 0; i < count; i++)
		layers[i] = m->snapshots[i];
	st->todo_bytes = size_bytes;
	for (size_t i = 0; i < count; i++)
		st->todo_bytes += layers[i].size_bytes;
	for (size_t i = 0; i < count; i++) {
		s->layer = &layers[i];
		layer_scrub(s, layers[i].size_bytes);
	}
	s->layer = NULL;
	layer_scrub(s, size_bytes);
	free(layers);
	suspects_out(m);
}

static void scrub_fiber(void *arg)
{
	struct mirror *m = arg;
	struct scrub *s = mem_zalloc(sizeof(*s));
	*s = (struct scrub){.m = m, .data = rt_buf_get(m->buffers, REPLICA_CHECKSUM_BYTES)};
	while (!m->serves && !mirror_over(m) && m->scrub.wanted)
		mirror_pause(m, UINT64_MAX);
	if (m->scrub.wanted && !mirror_over(m))
		run(s);
	LOG_INFO("scrub.done", m->scrub.wanted ? "members were compared" : "comparing members was stopped",
		 F_UUID("volume", &m->options.volume_id), F_U64("bytes", m->scrub.status.done_bytes),
		 F_U64("differed", m->scrub.status.differed_bytes),
		 F_U64("repaired", m->scrub.status.repaired_bytes));
	m->scrub.status.runs_done += m->scrub.wanted && !mirror_over(m);
	m->scrub.status.is_running = m->scrub.wanted = false;
	rt_buf_put(m->buffers, s->data, REPLICA_CHECKSUM_BYTES);
	free(s);
	mirror_kick(m);
	group_done(&m->fibers);
}

void mirror_scrub_start(struct mirror *m, uint64_t bytes_per_s)
{
	struct mirror_scrub_status *st = &m->scrub.status;
	m->scrub.bytes_per_s = bytes_per_s;
	m->scrub.wanted = true;
	if (st->is_running || mirror_over(m))
		return;
	*st = (struct mirror_scrub_status){.is_running = true, .runs_done = st->runs_done};
	group_add(&m->fibers, 1);
	fiber_spawn(m->rt, "mirror-scrub", scrub_fiber, m);
}

void mirror_scrub_stop(struct mirror *m)
{
	m->scrub.wanted = false;
	mirror_kick(m);
}

void mirror_scrub_status(const struct mirror *m, struct mirror_scrub_status *out)
{
	*out = m->scrub.status;
}
