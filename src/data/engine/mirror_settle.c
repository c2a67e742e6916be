/*
 * mirror_settle.c: members made equal where they may differ (V6): after an engine crashed, after a copy's machine was off, after a write that some
 * copies refused, after a read that one could not answer.
 *
 * Region by region, window by window. A window is read from one member, whole; the others are asked for checksums, and what differs
 * anywhere is written everywhere; a joining copy, which has no checksums worth asking for, gets all of it. Whoever wants to read or write in
 * such a region waits, and its region comes first.
 *
 * Everywhere: also where it is right already, and there first. Members may have sealed while they differed. Then their layers differ, and a
 * copy that is filled with one layer from one of them and the next from another must find in some later layer of each what is right.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "data/engine/mirror_impl.h"

/* ---- marks ---------------------------------------------------------------------------------------------------------------- */

static uint8_t source_of(const struct copy *from)
{
	return from ? (uint8_t)(__builtin_ctz(mirror_copy_bit(from)) + 1) : 0;
}

static void region_mark(struct mirror *m, uint32_t region, const struct copy *from)
{
	regions_add(&m->unsettled, region);
	m->settle_from[region] = source_of(from);
}

void mirror_settle_mark(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes, const struct copy *from)
{
	uint32_t last = region_last(m, offset_bytes, len_bytes);
	for (uint32_t r = region_of(m, offset_bytes); r <= last; r++)
		region_mark(m, r, from);
	mirror_kick(m);
}

/* In regions of another size there is nothing to compare them with: then it is anywhere. */
void mirror_settle_lacking(struct mirror *m, const struct copy *c)
{
	if (replica_region_shift(c->state.size_bytes) == replica_region_shift(m->size_bytes))
		regions_or(&m->unsettled, &c->state.may_lack);
	else
		memset(&m->unsettled, 0xff, sizeof(m->unsettled));
	mirror_kick(m);
}

/* The settling fiber looks by itself for as long as there is anything unsettled: waking it from here would wake everybody else who waits. */
void mirror_settle_wait(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint32_t first = region_of(m, offset_bytes), last = region_last(m, offset_bytes, len_bytes);
	while (regions_any(&m->unsettled, first, last) && !mirror_over(m)) {
		m->settle_first = regions_next(&m->unsettled, first);
		waitq_wait(&m->changed);
	}
}

/* ---- a window ------------------------------------------------------------------------------------------------------------- */

struct window {
	struct mirror *m;
	uint64_t offset_bytes, len_bytes;
	uint8_t *data;
	struct copy *source;
	bool differs[WINDOW_BLOCKS]; /* in somebody */
	bool is_lost[WINDOW_BLOCKS]; /* nobody can read it */
	uint32_t differing;	     /* who that is */
};

static int blocks_write(const struct window *w, struct copy *c, uint64_t first, uint64_t count)
{
	uint64_t at = first * REPLICA_CHECKSUM_BYTES,
		 len_bytes = u64_min(count * REPLICA_CHECKSUM_BYTES, w->len_bytes - at);
	struct replica *r = c->replica;
	if (bytes_are_zero(w->data + at, len_bytes))
		return r->ops->zero(r, w->offset_bytes + at, len_bytes, 0);
	return r->ops->write(r, w->data + at, w->offset_bytes + at, len_bytes, 0);
}

static uint32_t block_crc(const struct window *w, uint64_t block)
{
	uint64_t at = block * REPLICA_CHECKSUM_BYTES;
	return crc32c(0, w->data + at, u64_min(REPLICA_CHECKSUM_BYTES, w->len_bytes - at));
}

static uint64_t block_count(const struct window *w)
{
	return u64_div_up(w->len_bytes, REPLICA_CHECKSUM_BYTES);
}

/* One that cannot even be read for comparing differs in everything. */
static int differences_look(struct window *w, struct copy *c)
{
	uint32_t crcs[WINDOW_BLOCKS];
	int err = c->replica->ops->layer_checksums(c->replica, NULL, w->offset_bytes, w->len_bytes, crcs);
	bool unreadable = err == OXE_IO || err == OXE_CORRUPT;
	for (uint64_t b = 0; (!err || unreadable) && b < block_count(w); b++) {
		if (w->is_lost[b] || (!unreadable && crcs[b] == block_crc(w, b)))
			continue;
		w->differs[b] = true;
		w->differing |= mirror_copy_bit(c);
	}
	return unreadable ? 0 : err;
}

/* In runs: what differs, or everything that could be read. */
static int runs_write(const struct window *w, struct copy *c, bool all)
{
	int err = 0;
	for (uint64_t b = 0, run = 0; !err && b <= block_count(w); b++) {
		bool wanted = b < block_count(w) && (all ? !w->is_lost[b] : w->differs[b]);
		if (!wanted && run)
			err = blocks_write(w, c, b - run, run);
		run = wanted ? run + 1 : 0;
	}
	return err;
}

static bool even_said(struct copy *c, uint64_t session, int err)
{
	if (!mirror_copy_answered(c, session, err))
		return false;
	if (err)
		(void)mirror_copy_fail(c, err, "it could not be made equal to another");
	return !err;
}

static bool member_compare(struct window *w, struct copy *c)
{
	uint64_t session = c->session_number;
	return even_said(c, session, differences_look(w, c));
}

static bool has_lost(const struct window *w)
{
	bool any = false;
	for (uint64_t b = 0; b < block_count(w); b++)
		any |= w->is_lost[b];
	return any;
}

/* One that is right already need not have room to say it again. One that joins must have all of it: what it has below is older. */
static bool copy_even(const struct window *w, uint32_t index)
{
	struct copy *c = w->m->copies[index];
	uint64_t session = c->session_number;
	if (w->m->view.replicas[index].role == VIEW_JOINING && has_lost(w))
		return even_said(c, session, OXE_IO);
	if (w->m->view.replicas[index].role == VIEW_JOINING)
		return even_said(c, session, runs_write(w, c, true));
	int err = runs_write(w, c, false);
	if (err == OXE_NOSPC && !(w->differing >> index & 1))
		err = 0;
	return even_said(c, session, err);
}

/* Members that have all that was acknowledged there, as far as is known. */
static uint32_t members_that_have(const struct mirror *m, uint32_t region)
{
	uint32_t set = mirror_copies_members(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (regions_has(&m->copies[i]->state.may_lack, region) && !MUTANT(222))
			set &= ~(1u << i);
	return set;
}

/* The one named, as long as it is a member and lacks nothing: it alone may have what was acknowledged. Else one that has it. Should there be
 * none, any. */
static struct copy *source_choose(struct mirror *m, uint32_t region, uint32_t except)
{
	uint32_t named = m->settle_from[region], have = members_that_have(m, region) & ~except;
	uint32_t bit = named ? 1u << (named - 1) : 0;
	if (bit & have)
		return (bit & mirror_copies_open(m)) ? m->copies[named - 1] : NULL;
	return mirror_copy_to_read(m, have ? ~have : except);
}

/* V10. One of those in `set` that can read it; what cannot be read in one copy another has. Returns 0, OXE_IO: nobody can; OXE_NOTREADY: not
 * all of them answer. */
static int read_from_any(struct window *w, uint32_t region, uint64_t at, uint64_t len_bytes)
{
	uint32_t except = 0;
	struct copy *c;
	while ((c = source_choose(w->m, region, except))) {
		uint64_t session = c->session_number;
		int err = c->replica->ops->read(c->replica, w->data + at, w->offset_bytes + at, len_bytes);
		if (!err && except && regions_has(&c->state.may_lack, region))
			LOG_WARN("block.doubted",
				 "only a copy that may lack what was written last can read it",
				 F_UUID("volume", &w->m->options.volume_id), F_UUID("pool", &c->pool_id),
				 F_U64("offset", w->offset_bytes + at));
		if (!err)
			return 0;
		if (!mirror_copy_answered(c, session, err))
			return OXE_NOTREADY;
		c->last_err = err;
		except |= mirror_copy_bit(c);
	}
	return mirror_copies_members(w->m) & ~except ? OXE_NOTREADY : OXE_IO;
}

/* A block that nobody can read stays as it is, everywhere. */
static int blocks_read(struct window *w, uint32_t region)
{
	int err = 0;
	for (uint64_t b = 0; (!err || err == OXE_IO) && b < block_count(w); b++) {
		uint64_t at = b * REPLICA_CHECKSUM_BYTES;
		err = read_from_any(w, region, at, u64_min(REPLICA_CHECKSUM_BYTES, w->len_bytes - at));
		w->is_lost[b] = err == OXE_IO;
	}
	w->source = NULL; /* of all of it nobody is */
	return err == OXE_IO ? 0 : err;
}

/* The nearest that has what was acknowledged there reads all of it, or each block is read where it can be. */
static bool window_read(struct window *w, uint32_t region)
{
	memset(w->is_lost, 0, sizeof(w->is_lost));
	struct copy *c = source_choose(w->m, region, 0);
	if (!c)
		return false;
	uint64_t session = c->session_number;
	int err = c->replica->ops->read(c->replica, w->data, w->offset_bytes, w->len_bytes);
	w->source = c;
	if (err && mirror_copy_answered(c, session, err))
		err = blocks_read(w, region);
	return !err;
}

static bool copies_even(const struct window *w, uint32_t set)
{
	for (uint32_t i = 0; i < w->m->view.replica_count; i++)
		if ((set >> i & 1) && !copy_even(w, i))
			return false;
	return true;
}

/* Inside the gate. False: not all of them answered, or nobody can read it. */
static bool window_even(struct window *w, uint32_t region)
{
	struct mirror *m = w->m;
	uint32_t in_view = mirror_copies_in_view(m);
	if (in_view & ~mirror_copies_open(m))
		return false;
	if (copies_at_most_one(in_view))
		return true;
	if (!window_read(w, region))
		return false;
	memset(w->differs, 0, sizeof(w->differs));
	w->differing = 0;
	bool even = true;
	uint32_t members = mirror_copies_members(m);
	for (uint32_t i = 0; even && i < m->view.replica_count; i++)
		if ((members >> i & 1) && m->copies[i] != w->source)
			even = member_compare(w, m->copies[i]);
	return even && (MUTANT(227) || copies_even(w, members & ~w->differing)) &&
	       copies_even(w, w->differing) && copies_even(w, in_view & ~members);
}

/* ---- a region ------------------------------------------------------------------------------------------------------------- */

/* One try. Then, if need be, another when something has changed, but not at once: no loop without progress. */
static int window_settle(struct window *w, uint32_t region)
{
	struct mirror *m = w->m;
	for (uint32_t tries = 0;; tries++) {
		int err = mirror_gate_enter(m);
		if (err)
			return err;
		bool even = window_even(w, region);
		mirror_gate_leave(m);
		if (even)
			return 0;
		mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, tries));
	}
}

static int region_settle(struct mirror *m, uint32_t region)
{
	unsigned shift = replica_region_shift(m->size_bytes);
	uint64_t begin = (uint64_t)region << shift,
		 end = u64_min(begin + ((uint64_t)1 << shift), m->size_bytes);
	struct range range;
	struct window w = {.m = m, .data = rt_buf_get(m->buffers, WINDOW_BYTES)};
	int err = 0;
	mirror_range_lock(&m->ranges, &range, begin, end, true);
	for (w.offset_bytes = begin; !err && w.offset_bytes < end; w.offset_bytes += WINDOW_BYTES) {
		w.len_bytes = u64_min(WINDOW_BYTES, end - w.offset_bytes);
		err = window_settle(&w, region);
	}
	if (!err) {
		regions_remove(&m->unsettled, region);
		m->settle_from[region] = 0;
	}
	mirror_range_unlock(&m->ranges, &range);
	rt_buf_put(m->buffers, w.data, WINDOW_BYTES);
	return err;
}

/* ---- in the end ----------------------------------------------------------------------------------------------------------- */

static struct copy *one_to_make_good(const struct mirror *m)
{
	uint32_t set = mirror_copies_in_view(m) & mirror_copies_open(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((set >> i & 1) && !regions_empty(&m->copies[i]->state.may_lack))
			return m->copies[i];
	return NULL;
}

/* Inside the gate. It has what any has, and says so from now on, also to the engine that comes after this one. */
static bool copy_make_good(struct copy *c)
{
	uint64_t session = c->session_number;
	int err = c->replica->ops->made_good(c->replica);
	if (!mirror_copy_answered(c, session, err) || session != c->session_number)
		return false;
	c->last_err = err ? err : c->last_err;
	if (!err)
		c->state.may_lack = (struct replica_regions){{0}};
	return !err;
}

/* Everything is settled. */
static void make_good(struct mirror *m, uint32_t *tries)
{
	struct copy *c;
	bool done = true;
	if (mirror_gate_enter(m))
		return;
	while (done && (regions_empty(&m->unsettled) || MUTANT(239)) && (c = one_to_make_good(m)))
		done = copy_make_good(c);
	mirror_gate_leave(m);
	*tries = done ? 0 : *tries + 1;
	if (!done)
		mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, *tries));
	mirror_kick(m);
}

static void settle_next(struct mirror *m, uint32_t region)
{
	if (m->settle_first < REPLICA_REGIONS && regions_has(&m->unsettled, m->settle_first))
		region = m->settle_first;
	m->settle_first = REPLICA_REGIONS;
	if (region_settle(m, region) == 0 && regions_empty(&m->unsettled))
		LOG_INFO("engine.settled", "members are equal again", F_UUID("volume", &m->options.volume_id),
			 F_U64("epoch", m->view.epoch));
	mirror_kick(m);
}

void mirror_settle_fiber(void *arg)
{
	struct mirror *m = arg;
	uint32_t tries = 0;
	while (!mirror_over(m)) {
		uint32_t region = MUTANT(239) && m->serves && one_to_make_good(m)
					  ? REPLICA_REGIONS
					  : regions_next(&m->unsettled, 0);
		if (!m->serves || (region == REPLICA_REGIONS && !one_to_make_good(m)))
			mirror_pause(m, UINT64_MAX);
		else if (region < REPLICA_REGIONS)
			settle_next(m, region);
		else
			make_good(m, &tries);
	}
	group_done(&m->fibers);
}
