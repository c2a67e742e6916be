/*
 * mirror_settle.c: members made equal where they may differ (V6): after an engine crashed, after a copy's machine was off, after a write that some
 * copies refused, after a read that one could not answer.
 *
 * Region by region, window by window. A window is read from one member, whole; the others are asked for checksums and get what
 * differs; a joining copy, which has no checksums worth asking for, gets all of it. Whoever wants to read or write in such a region
 * waits, and its region comes first.
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

static const struct copy *one_that_stayed(const struct mirror *m)
{
	uint32_t members = mirror_copies_members(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (!MUTANT(222) && (members >> i & 1) && m->copies[i]->was_opened &&
		    !m->copies[i]->has_rebooted)
			return m->copies[i];
	return NULL;
}

void mirror_settle_after_reboot(struct mirror *m)
{
	struct replica_regions risk = mirror_regions_at_risk(m);
	const struct copy *from = one_that_stayed(m);
	for (uint32_t r = regions_next(&risk, 0); r < REPLICA_REGIONS; r = regions_next(&risk, r + 1))
		region_mark(m, r, from);
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

/* What differs, in runs. One that cannot even be read for comparing gets everything. */
static int member_even(const struct window *w, struct copy *c)
{
	uint32_t crcs[WINDOW_BLOCKS];
	uint64_t count = u64_div_up(w->len_bytes, REPLICA_CHECKSUM_BYTES);
	int err = c->replica->ops->layer_checksums(c->replica, NULL, w->offset_bytes, w->len_bytes, crcs);
	if (err == OXE_IO || err == OXE_CORRUPT)
		return blocks_write(w, c, 0, count);
	for (uint64_t b = 0, run = 0; !err && b <= count; b++) {
		bool differs = b < count && crcs[b] != block_crc(w, b);
		if (!differs && run)
			err = blocks_write(w, c, b - run, run);
		run = differs ? run + 1 : 0;
	}
	return err;
}

static bool copy_even(const struct window *w, uint32_t index)
{
	struct copy *c = w->m->copies[index];
	uint64_t session = c->session_number;
	bool joining = w->m->view.replicas[index].role == VIEW_JOINING;
	int err = joining ? blocks_write(w, c, 0, u64_div_up(w->len_bytes, REPLICA_CHECKSUM_BYTES))
			  : member_even(w, c);
	if (!mirror_copy_answered(c, session, err))
		return false;
	if (err)
		mirror_copy_fail(c, err, "it could not be made equal to another");
	return !err;
}

/* The one named, as long as it is a member: it alone may have what was acknowledged. */
static struct copy *source_choose(struct mirror *m, uint32_t region, uint32_t except)
{
	uint32_t named = m->settle_from[region];
	uint32_t bit = named ? 1u << (named - 1) : 0;
	if ((bit & mirror_copies_members(m)) && !(bit & except))
		return (bit & mirror_copies_open(m)) ? m->copies[named - 1] : NULL;
	return mirror_copy_to_read(m, except);
}

static bool window_read(struct window *w, uint32_t region)
{
	uint32_t except = 0;
	for (;;) {
		w->source = source_choose(w->m, region, except);
		if (!w->source)
			return false;
		struct replica *r = w->source->replica;
		uint64_t session = w->source->session_number;
		int err = r->ops->read(r, w->data, w->offset_bytes, w->len_bytes);
		if (!err)
			return true;
		if (!mirror_copy_answered(w->source, session, err))
			return false;
		w->source->last_err = err;
		except |= mirror_copy_bit(w->source);
	}
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
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((in_view >> i & 1) && m->copies[i] != w->source && !copy_even(w, i))
			return false;
	return true;
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

static void all_settled(struct mirror *m)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		m->copies[i]->has_rebooted = false;
	LOG_INFO("engine.settled", "members are equal again", F_UUID("volume", &m->options.volume_id),
		 F_U64("epoch", m->view.epoch));
}

void mirror_settle_fiber(void *arg)
{
	struct mirror *m = arg;
	while (!mirror_over(m)) {
		uint32_t region = regions_next(&m->unsettled, 0);
		if (region == REPLICA_REGIONS || !m->serves) {
			mirror_pause(m, UINT64_MAX);
			continue;
		}
		if (m->settle_first < REPLICA_REGIONS && regions_has(&m->unsettled, m->settle_first))
			region = m->settle_first;
		m->settle_first = REPLICA_REGIONS;
		if (region_settle(m, region) == 0 && regions_empty(&m->unsettled))
			all_settled(m);
		mirror_kick(m);
	}
	group_done(&m->fibers);
}
