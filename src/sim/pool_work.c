/* pool_work.c: see pool_work.h. */
#include "sim/pool_work.h"

#include "data/store/super.h"
#include "sim/pool_value.h"

#include <stdarg.h>
#include <stdio.h>

#define BLOCK_SECTORS  (POOL_BLOCK_BYTES / VALUE_BYTES)
#define POOL_BYTES_MAX (48 * MiB)

struct client {
	struct work *work;
	uint32_t index;
	uint8_t *buf;
};

void work_init(struct work *w, struct sim *sim, struct sim_disk *disk, struct rt_disk *rt_disk,
	       struct pool *pool, struct model *model, const struct work_profile *profile)
{
	*w = (struct work){.sim = sim,
			   .disk = disk,
			   .rt_disk = rt_disk,
			   .pool = pool,
			   .model = model,
			   .profile = *profile};
	w->steps_left = profile->operations;
	fmutex_init(&w->control);
	group_init(&w->clients);
	for (size_t i = 0; i < ARRAY_COUNT(w->reading_since); i++)
		w->reading_since[i] = NEVER;
}

/* ---- small words -------------------------------------------------------------------------------------------------------- */

OX_PRINTF(2, 3) static void work_fail(struct work *w, const char *format, ...)
{
	va_list args;
	if (w->why[0])
		return;
	va_start(args, format);
	vsnprintf(w->why, sizeof(w->why), format, args);
	va_end(args);
}

static uint64_t below(struct work *w, uint64_t bound)
{
	return prng_below(sim_prng(w->sim), bound);
}

static bool one_in(struct work *w, uint64_t n)
{
	return prng_one_in(sim_prng(w->sim), n);
}

static struct uuid new_id(struct work *w)
{
	uint8_t random[16];
	prng_fill(sim_prng(w->sim), random, sizeof(random));
	return uuid_from_random(random);
}

static bool work_over(const struct work *w)
{
	return w->why[0] || w->pool_failed;
}

/* An error of a call that may meet one. True if the client goes on. */
static bool error_is_expected(struct work *w, const char *call, int err)
{
	bool full = w->profile.room_bytes != 0, expected = full || w->profile.errors_expected;
	if (err == OXE_FAILED || (err == OXE_IO && !full)) {
		if (!expected)
			work_fail(w, "%s returned %s on a disk without errors", call, err_name(err));
		w->pool_failed |= err == OXE_FAILED;
		return expected;
	}
	if (err == OXE_NOSPC && full)
		return true;
	work_fail(w, "%s returned %s", call, err_name(err));
	return false;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------------- */

static struct model_volume *pick_volume(struct work *w)
{
	size_t start = below(w, MODEL_VOLUMES);
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		struct model_volume *v = &w->model->volumes[(start + i) % MODEL_VOLUMES];
		if (v->presence == PRESENT && !v->closing)
			return v;
	}
	return NULL;
}

static struct model_snapshot *pick_snapshot(struct work *w, struct model_volume *v)
{
	size_t start = below(w, MODEL_SNAPSHOTS);
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		struct model_snapshot *s = &v->snapshots[(start + i) % MODEL_SNAPSHOTS];
		if (s->presence == PRESENT)
			return s;
	}
	return NULL;
}

/* A volume with an open handle, held until volume_release. NULL: there is none now. */
static struct model_volume *volume_acquire(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	if (v && !v->handle) {
		fmutex_lock(&w->control);
		if (v->presence == PRESENT && !v->handle) {
			int err = vol_open(w->pool, &v->id, &v->handle);
			if (err && !error_is_expected(w, "vol_open", err))
				v->handle = NULL;
			if (err)
				v->handle = NULL;
		}
		fmutex_unlock(&w->control);
	}
	if (!v || !v->handle || v->closing || work_over(w))
		return NULL;
	v->users++;
	return v;
}

static void volume_release(struct model_volume *v)
{
	v->users--;
}

struct span {
	uint64_t first, count; /* sectors */
};

/* On a full file system others come and go. */
static void room_change(struct work *w)
{
	uint64_t room_bytes = w->profile.room_bytes;
	if (room_bytes)
		sim_disk_faults(w->disk)->space_bytes =
			one_in(w, 3) ? 0 : room_bytes / 2 + below(w, room_bytes);
}

/* On a tight pool all clients meet at one cluster for a while: it is read, freed and written by several at once. */
static struct span hot_span(const struct work *w, const struct model_volume *v)
{
	uint64_t cluster = w->steps_left / 16 % content_cluster_count(v->content);
	uint64_t first = cluster * CONTENT_CLUSTER_SECTORS;
	return (struct span){first, u64_min(CONTENT_CLUSTER_SECTORS, v->content->sector_count - first)};
}

/* In a fresh volume only whole blocks: what lies in the rest of one is not there yet. */
static struct span span_of(const struct model_volume *v, uint64_t first, uint64_t count)
{
	if (!v->is_fresh)
		return (struct span){first, count};
	uint64_t end = u64_align_up(first + count, BLOCK_SECTORS);
	first = u64_align_down(first, BLOCK_SECTORS);
	return (struct span){first, end - first};
}

/* Few places are written often, so that overwrites, overlaps and neighbours meet. */
static struct span pick_span(struct work *w, const struct model_volume *v, uint64_t max_bytes)
{
	if (w->profile.tight && one_in(w, 2))
		return hot_span(w, v);
	uint64_t unit = v->lba_bytes / VALUE_BYTES, units = v->content->sector_count / unit;
	uint64_t max_units = u64_min(units, max_bytes / v->lba_bytes);
	static const uint32_t sizes[] = {1, 8, 8, 8, 16, 32, 128, 512};
	uint64_t size = (w->profile.tight && one_in(w, 2) ? 512 : sizes[below(w, ARRAY_COUNT(sizes))]) / unit;
	uint64_t count = u64_max(1, u64_min(max_units, one_in(w, 3) ? 1 + below(w, 2 * size + 1) : size));
	uint64_t range = w->profile.tight || one_in(w, 3) ? units : u64_max(1, units / 8);
	uint64_t first = below(w, range);
	if (one_in(w, 2))
		first = first * unit / BLOCK_SECTORS * BLOCK_SECTORS / unit;
	first = u64_min(first, units - count);
	return span_of(v, first * unit, count * unit);
}

/* ---- data calls ------------------------------------------------------------------------------------------------------------------ */

static enum content_answer answer_for(int err, bool durable, bool all_or_nothing)
{
	if (err == 0)
		return durable ? ANSWER_DURABLE : ANSWER_DONE;
	return err == OXE_NOSPC && all_or_nothing ? ANSWER_UNCHANGED : ANSWER_UNKNOWN;
}

static void data_answered(struct work *w, struct model_volume *v, const char *call, struct span at,
			  uint64_t submitted, int err, bool durable)
{
	content_write_end(
		v->content, at.first, at.count, submitted, model_tick(w->model),
		answer_for(err, durable, strcmp(call, "op.write.end") == 0 && !w->profile.room_bytes));
	sim_trace(w->sim, call, v->serial, at.first << 32 | at.count, (uint64_t)(int64_t)err);
	if (err && err != OXE_NOSPC)
		error_is_expected(w, call, err);
}

static void step_write(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	if (!v)
		return;
	struct span at = pick_span(w, v, w->profile.write_bytes_max);
	bool durable = one_in(w, w->profile.durable_one_in);
	uint64_t tag = value_tag(v->serial, ++w->model->version), submitted = model_tick(w->model);
	value_fill(c->buf, at.first, at.count, tag);
	content_write_begin(v->content, at.first, at.count, tag, submitted);
	sim_trace(w->sim, durable ? "op.write.fua" : "op.write", v->serial, at.first << 32 | at.count, tag);
	int err = vol_write(v->handle, c->buf, at.first * VALUE_BYTES, at.count * VALUE_BYTES,
			    durable ? VOL_FUA : 0);
	data_answered(w, v, "op.write.end", at, submitted, err, durable);
	volume_release(v);
}

static void step_zero(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	if (!v)
		return;
	struct span at = pick_span(w, v, 1 * MiB);
	bool durable = one_in(w, 6);
	unsigned flags = (durable ? VOL_FUA : 0) | (one_in(w, 4) ? VOL_NO_HOLE : 0);
	uint64_t submitted = model_tick(w->model);
	content_write_begin(v->content, at.first, at.count, 0, submitted);
	sim_trace(w->sim, "op.zero", v->serial, at.first << 32 | at.count, flags);
	int err = vol_zero(v->handle, at.first * VALUE_BYTES, at.count * VALUE_BYTES, flags);
	data_answered(w, v, "op.zero.end", at, submitted, err, durable);
	volume_release(v);
}

/* Only whole blocks inside the range are trimmed. */
static struct span whole_blocks(struct span at)
{
	uint64_t first = u64_align_up(at.first, BLOCK_SECTORS);
	uint64_t end = u64_align_down(at.first + at.count, BLOCK_SECTORS);
	return (struct span){first, end > first ? end - first : 0};
}

static void step_trim(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	if (!v)
		return;
	struct span at = pick_span(w, v, 1 * MiB), whole = whole_blocks(at);
	uint64_t submitted = model_tick(w->model);
	content_write_begin(v->content, whole.first, whole.count, 0, submitted);
	sim_trace(w->sim, "op.trim", v->serial, at.first << 32 | at.count, 0);
	int err = vol_trim(v->handle, at.first * VALUE_BYTES, at.count * VALUE_BYTES);
	data_answered(w, v, "op.trim.end", whole, submitted, err, false);
	if (err == OXE_NOSPC)
		work_fail(w, "S8: a trim found no space");
	volume_release(v);
}

static uint64_t oldest_read(const struct work *w)
{
	uint64_t oldest = NEVER;
	for (size_t i = 0; i < ARRAY_COUNT(w->reading_since); i++)
		oldest = u64_min(oldest, w->reading_since[i]);
	return oldest;
}

static void volume_flushed(struct work *w, struct model_volume *v, uint64_t submitted)
{
	content_flushed(v->content, submitted, oldest_read(w));
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		if (v->snapshots[i].content)
			content_flushed(v->snapshots[i].content, submitted, oldest_read(w));
	}
}

static void step_flush(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	if (!v)
		return;
	uint64_t submitted = model_tick(w->model);
	sim_trace(w->sim, "op.flush", v->serial, submitted, 0);
	int err = vol_flush(v->handle);
	sim_trace(w->sim, "op.flush.end", v->serial, submitted, (uint64_t)(int64_t)err);
	if (err)
		error_is_expected(w, "vol_flush", err);
	else
		volume_flushed(w, v, submitted);
	volume_release(v);
}

static void sectors_check(struct work *w, const char *name, struct content *content, const uint8_t *data,
			  struct span at, uint64_t submitted, bool snapshot)
{
	char found[120], allowed[200];
	for (uint64_t i = 0; i < at.count; i++, data += VALUE_BYTES) {
		uint64_t sector = at.first + i, tag = value_tag_of(data);
		if (value_is(data, sector, tag) &&
		    content_allows(content, sector, tag, snapshot ? NEVER : submitted)) {
			content_settle(content, sector, tag, submitted, w->model->clock);
			continue;
		}
		value_describe(data, found, sizeof(found));
		content_describe(content, sector, allowed, sizeof(allowed));
		work_fail(w, "a read of %s sector %llu found %s, allowed version %s", name,
			  (unsigned long long)sector, found, allowed);
		return;
	}
}

static void step_read(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	if (!v)
		return;
	struct span at = pick_span(w, v, 256 * KiB);
	uint64_t submitted = w->reading_since[c->index] = model_tick(w->model);
	sim_trace(w->sim, "op.read", v->serial, at.first << 32 | at.count, 0);
	int err = vol_read(v->handle, c->buf, at.first * VALUE_BYTES, at.count * VALUE_BYTES);
	sim_trace(w->sim, "op.read.end", v->serial, at.first << 32 | at.count, (uint64_t)(int64_t)err);
	model_tick(w->model);
	if (err)
		error_is_expected(w, "vol_read", err);
	else
		sectors_check(w, v->name, v->content, c->buf, at, submitted, false);
	w->reading_since[c->index] = NEVER;
	volume_release(v);
}

/* What is said to be a hole or zero must read as zeroes, and what is not said to have changed as in the snapshot `since`, if
 * there is one. Not more than was written after it may be said to have changed. */
static void extent_check_sector(struct work *w, const struct model_volume *v,
				const struct model_snapshot *since, unsigned flags, uint64_t s,
				uint64_t submitted)
{
	const struct content *c = v->content;
	const char *says = NULL;
	if ((flags & (VOL_EXTENT_HOLE | VOL_EXTENT_ZERO)) && !content_allows(c, s, 0, submitted))
		says = "zero";
	else if (since && !(flags & VOL_EXTENT_CHANGED) &&
		 !content_may_equal(c, since->content, s, submitted))
		says = "unchanged";
	else if (flags & VOL_EXTENT_CHANGED &&
		 (!since || content_block_is_untouched(c, s / BLOCK_SECTORS, since->begin)))
		says = "changed";
	if (says)
		work_fail(w, "extents of %s call sector %llu %s", v->name, (unsigned long long)s, says);
}

static void extents_check(struct work *w, const struct model_volume *v, const struct model_snapshot *since,
			  const struct vol_extent *extents, size_t count, struct span at, uint64_t submitted)
{
	uint64_t expected = at.first * VALUE_BYTES, end = (at.first + at.count) * VALUE_BYTES;
	for (size_t i = 0; i < count; i++) {
		const struct vol_extent *e = &extents[i];
		if (e->offset_bytes != expected || e->len_bytes == 0 ||
		    e->offset_bytes + e->len_bytes > end) {
			work_fail(w, "extents of %s are not consecutive", v->name);
			return;
		}
		expected += e->len_bytes;
		for (uint64_t s = e->offset_bytes / VALUE_BYTES; s < expected / VALUE_BYTES; s++)
			extent_check_sector(w, v, since, e->flags, s, submitted);
	}
}

static void step_extents(struct client *c)
{
	struct work *w = c->work;
	struct model_volume *v = volume_acquire(w);
	struct vol_extent extents[32];
	size_t count = 0;
	if (!v)
		return;
	struct span at = pick_span(w, v, 1 * MiB);
	struct model_snapshot *since = one_in(w, 2) ? pick_snapshot(w, v) : NULL;
	bool below = since && v->ancestors >> (since - v->snapshots) & 1;
	uint64_t submitted = w->reading_since[c->index] = model_tick(w->model);
	if (since)
		since->users++;
	int err = vol_extents(v->handle, since ? &since->id : NULL, at.first * VALUE_BYTES,
			      at.count * VALUE_BYTES, extents, ARRAY_COUNT(extents), &count);
	if (since)
		since->users--;
	sim_trace(w->sim, "op.extents", v->serial, count, (uint64_t)(int64_t)err);
	if (since && !below && err != OXE_NOENT && !w->pool_failed)
		work_fail(w, "extents of %s since %s, on which it does not stand: %s", v->name, since->name,
			  err_name(err));
	else if (err && (!since || below))
		error_is_expected(w, "vol_extents", err);
	else if (!err)
		extents_check(w, v, since, extents, count, at, submitted);
	w->reading_since[c->index] = NEVER;
	volume_release(v);
}

/* ---- control calls: with the control mutex held ------------------------------------------------------------------------------------- */

/* True if the call was answered with 0; else what the caller promised is undone, or unknown for good. */
static bool control_answered(struct work *w, const char *call, int err, bool may_lack_space, bool *undone)
{
	sim_trace(w->sim, call, (uint64_t)(int64_t)err, 0, 0);
	*undone = false;
	if (err == 0)
		return true;
	if (err == OXE_NOSPC && may_lack_space)
		*undone = true;
	else
		error_is_expected(w, call, err);
	if (err && !*undone && !w->why[0])
		w->pool_failed = true; /* what became of it is known only after the next start */
	return false;
}

static void name_draw(struct work *w, char *name, size_t size_bytes, const char *stem)
{
	snprintf(name, size_bytes, "%s-%llu", stem, (unsigned long long)++w->model->serial);
}

static void control_create(struct work *w)
{
	struct model_volume *v = model_volume_free_slot(w->model);
	bool undone;
	if (!v || v >= w->model->volumes + w->profile.volumes_max)
		return;
	uint64_t blocks = w->profile.volume_bytes_max / POOL_BLOCK_BYTES;
	if (!w->profile.tight)
		blocks = 1 + below(w, blocks);
	v->presence = APPEARING;
	v->id = new_id(w);
	name_draw(w, v->name, sizeof(v->name), "v");
	v->serial = w->model->serial;
	v->size_bytes = blocks * POOL_BLOCK_BYTES;
	v->lba_bytes = one_in(w, 3) ? 4096 : 512;
	v->content = content_new(v->size_bytes / VALUE_BYTES);
	struct volume_spec spec = {.id = v->id, .size_bytes = v->size_bytes, .lba_bytes = v->lba_bytes};
	snprintf(spec.name, sizeof(spec.name), "%s", v->name);
	int err = volume_create(w->pool, &spec);
	if (control_answered(w, "op.create", err, true, &undone))
		v->presence = PRESENT;
	else if (undone)
		model_volume_drop(v);
	if (!err && one_in(w, 4) && (err = volume_create(w->pool, &spec)) != 0)
		error_is_expected(w, "volume_create, again,", err);
}

static void control_clone(struct work *w)
{
	struct model_volume *from = pick_volume(w), *v = model_volume_free_slot(w->model);
	struct model_snapshot *s = from ? pick_snapshot(w, from) : NULL;
	bool undone;
	if (!s || !v || from->is_fresh || v >= w->model->volumes + w->profile.volumes_max)
		return;
	v->presence = APPEARING;
	v->id = new_id(w);
	name_draw(w, v->name, sizeof(v->name), "c");
	v->serial = w->model->serial;
	v->size_bytes = s->size_bytes + (one_in(w, 3) ? POOL_BLOCK_BYTES * below(w, 40) : 0);
	v->lba_bytes = from->lba_bytes;
	v->content = content_copy(s->content);
	content_grow(v->content, v->size_bytes / VALUE_BYTES);
	struct volume_spec spec = {.id = v->id, .size_bytes = v->size_bytes};
	snprintf(spec.name, sizeof(spec.name), "%s", v->name);
	bool full_copy = one_in(w, 3);
	w->model->flattened |= full_copy;
	int err = volume_clone(w->pool, &spec, &s->id, full_copy);
	if (control_answered(w, "op.clone", err, true, &undone))
		v->presence = PRESENT;
	else if (undone)
		model_volume_drop(v);
}

/* Keep others out, wait for those inside, and close the handle. */
static void volume_close_for(struct model_volume *v)
{
	v->closing = true;
	while (v->users > 0)
		fiber_sleep(20 * NS_PER_US);
	if (v->handle)
		vol_close(v->handle);
	v->handle = NULL;
}

static void control_delete(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	bool undone;
	if (!v)
		return;
	volume_close_for(v);
	v->presence = VANISHING;
	int err = volume_delete(w->pool, &v->id);
	struct uuid id = v->id;
	if (control_answered(w, "op.delete", err, false, &undone))
		model_volume_drop(v);
	v->closing = false;
	if (!err && one_in(w, 4) && (err = volume_delete(w->pool, &id)) != 0)
		error_is_expected(w, "volume_delete, again,", err);
}

static void control_grow(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	bool undone;
	if (!v)
		return;
	v->new_size_bytes = v->size_bytes + POOL_BLOCK_BYTES * below(w, 100);
	int err = volume_grow(w->pool, &v->id, v->new_size_bytes);
	bool done = control_answered(w, "op.grow", err, true, &undone);
	if (done) {
		v->size_bytes = v->new_size_bytes;
		content_grow(v->content, v->size_bytes / VALUE_BYTES);
	}
	if (done || undone)
		v->new_size_bytes = 0;
}

static void control_rename(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	bool undone;
	if (!v || v->is_fresh)
		return;
	name_draw(w, v->new_name, sizeof(v->new_name), "r");
	int err = volume_rename(w->pool, &v->id, v->new_name);
	bool done = control_answered(w, "op.rename", err, true, &undone);
	if (done)
		memcpy(v->name, v->new_name, sizeof(v->name));
	if (done || undone)
		v->new_name[0] = '\0';
}

/* True if it is there. */
static bool snapshot_take(struct work *w, struct model_volume *v, struct model_snapshot *s, const char *stem)
{
	uint64_t pause_ns;
	bool undone;
	s->presence = APPEARING;
	s->id = new_id(w);
	s->size_bytes = v->size_bytes;
	s->begin = w->reading_since[WORK_CLIENTS] = model_tick(w->model);
	s->ancestors = v->ancestors;
	name_draw(w, s->name, sizeof(s->name), stem);
	int err = layer_seal(w->pool, &v->id, &s->id, s->name, &pause_ns);
	uint64_t now = model_tick(w->model);
	w->reading_since[WORK_CLIENTS] = NEVER;
	if (control_answered(w, "op.snapshot", err, true, &undone)) {
		s->presence = PRESENT;
		s->content = content_snapshot(v->content, s->begin, now);
		model_snapshot_taken(v, s);
		if (one_in(w, 4) && (err = layer_seal(w->pool, &v->id, &s->id, s->name, NULL)) != 0)
			error_is_expected(w, "snapshot_create, again,", err);
	} else if (undone) {
		model_snapshot_drop(s);
	}
	return s->presence == PRESENT;
}

static void control_snapshot(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? model_snapshot_free_slot(v) : NULL;
	if (s)
		snapshot_take(w, v, s, "s");
}

static void snapshot_drop(struct work *w, struct model_volume *v, struct model_snapshot *s)
{
	bool undone;
	s->presence = VANISHING;
	while (s->users > 0)
		fiber_sleep(20 * NS_PER_US);
	int err = snapshot_delete(w->pool, &s->id);
	if (control_answered(w, "op.snapshot_delete", err, false, &undone))
		model_snapshot_gone(v, s);
}

static void control_snapshot_delete(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? pick_snapshot(w, v) : NULL;
	if (s)
		snapshot_drop(w, v, s);
}

static void control_snapshot_rename(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? pick_snapshot(w, v) : NULL;
	bool undone;
	if (!s)
		return;
	name_draw(w, s->new_name, sizeof(s->new_name), "t");
	int err = snapshot_rename(w->pool, &s->id, s->new_name);
	bool done = control_answered(w, "op.snapshot_rename", err, true, &undone);
	if (done)
		memcpy(s->name, s->new_name, sizeof(s->name));
	if (done || undone)
		s->new_name[0] = '\0';
}

static void control_revert(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? pick_snapshot(w, v) : NULL;
	bool undone;
	if (!s)
		return;
	volume_close_for(v);
	v->reverting_head = new_id(w);
	v->new_size_bytes = s->size_bytes;
	v->reverting_to = (int)(s - v->snapshots);
	int err = volume_revert(w->pool, &v->id, &s->id, &v->reverting_head);
	bool done = control_answered(w, "op.revert", err, true, &undone);
	if (done) {
		content_free(v->content);
		v->content = content_copy(s->content);
		v->size_bytes = s->size_bytes;
		v->ancestors = s->ancestors | 1u << (s - v->snapshots);
		if (one_in(w, 4) && (err = volume_revert(w->pool, &v->id, &s->id, &v->reverting_head)) != 0)
			error_is_expected(w, "volume_revert, again,", err);
	}
	if (done || undone) {
		v->reverting_to = -1;
		v->new_size_bytes = 0;
	}
	v->closing = false;
}

static void control_flatten(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	bool undone;
	if (!v)
		return;
	w->model->flattened = true;
	control_answered(w, "op.flatten", volume_flatten(w->pool, &v->id, !one_in(w, 4)), true, &undone);
}

/* ---- fresh volumes and grafts ---- */

static void control_fresh(struct work *w)
{
	struct model_volume *other = pick_volume(w), *v = model_volume_free_slot(w->model);
	bool undone;
	if (!other || !v || v >= w->model->volumes + w->profile.volumes_max)
		return;
	v->presence = APPEARING;
	v->is_fresh = true;
	v->id = new_id(w);
	name_draw(w, v->name, sizeof(v->name), "~f");
	v->serial = w->model->serial;
	v->size_bytes = other->size_bytes + (one_in(w, 3) ? POOL_BLOCK_BYTES * below(w, 40) : 0);
	v->lba_bytes = other->lba_bytes;
	v->content = content_new_fresh(v->size_bytes / VALUE_BYTES);
	struct volume_spec spec = {.id = v->id, .size_bytes = v->size_bytes, .lba_bytes = v->lba_bytes};
	snprintf(spec.name, sizeof(spec.name), "%s", v->name);
	int err = volume_create_fresh(w->pool, &spec);
	if (control_answered(w, "op.fresh", err, true, &undone))
		v->presence = PRESENT;
	else if (undone)
		model_volume_drop(v);
}

/* One to graft, and one of the same blocks to graft it upon. */
static struct model_volume *pick_fresh(struct work *w, struct model_volume **upon)
{
	struct model_volume *found = NULL;
	*upon = NULL;
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		struct model_volume *v = &w->model->volumes[i];
		if (v->presence == PRESENT && !v->closing && v->is_fresh && (!found || one_in(w, 2)))
			found = v;
	}
	for (size_t i = 0; found && i < MODEL_VOLUMES; i++) {
		struct model_volume *v = &w->model->volumes[i];
		if (v->presence == PRESENT && !v->closing && !v->is_fresh &&
		    v->lba_bytes == found->lba_bytes && v->size_bytes <= found->size_bytes &&
		    (!*upon || one_in(w, 2)))
			*upon = v;
	}
	return *upon ? found : NULL;
}

/* Everything written to it is durable and known; its head is sealed, and a new one is empty. */
static bool graft_prepare(struct work *w, struct model_volume *v, struct model_volume *fresh)
{
	struct model_snapshot *s = model_snapshot_free_slot(v);
	uint64_t submitted = model_tick(w->model);
	for (size_t i = 0; i < MODEL_SNAPSHOTS && !work_over(w); i++) {
		if (fresh->snapshots[i].presence == PRESENT)
			snapshot_drop(w, fresh, &fresh->snapshots[i]);
	}
	if (!s || work_over(w) || !snapshot_take(w, v, s, "~j"))
		return false;
	volume_flushed(w, v, submitted);
	for (uint64_t i = 0; i < content_cluster_count(v->content); i++) {
		if (content_is_open(v->content, i))
			return false;
	}
	return true;
}

static void graft_done(struct work *w, struct model_volume *v)
{
	int err;
	model_graft_end(w->model, v, true);
	if (one_in(w, 4) && (err = volume_graft(w->pool, &v->id, &v->grafted_id, &v->grafted_head)) != 0)
		error_is_expected(w, "volume_graft, again,", err);
}

static void graft(struct work *w, struct model_volume *v, struct model_volume *fresh)
{
	struct volume_info info;
	bool undone;
	int err = volume_get_any(w->pool, &fresh->id, &info);
	if (err) {
		error_is_expected(w, "volume_get_any", err);
		return;
	}
	v->grafted_id = fresh->id;
	v->grafted_head = info.head_id;
	v->grafted = content_graft(v->content, fresh->content, model_tick(w->model));
	fresh->presence = VANISHING;
	err = volume_graft(w->pool, &v->id, &fresh->id, &info.head_id);
	if (control_answered(w, "op.graft", err, true, &undone))
		graft_done(w, v);
	else if (undone)
		model_graft_end(w->model, v, false);
}

static void control_graft(struct work *w)
{
	struct model_volume *v, *fresh = pick_fresh(w, &v);
	if (!fresh)
		return;
	volume_close_for(v);
	volume_close_for(fresh);
	if (graft_prepare(w, v, fresh))
		graft(w, v, fresh);
	v->closing = fresh->closing = false;
}

/* The size that the newest superblock says. */
static uint64_t super_pool_bytes(const struct work *w)
{
	struct super newest = {0}, s;
	uint8_t image[SUPER_BYTES];
	for (unsigned slot = 0; slot < 2; slot++) {
		sim_disk_peek(w->disk, image, sizeof(image), slot * SUPER_SLOT_BYTES);
		if (super_decode(image, rt_disk_info(w->rt_disk)->size_bytes, &s) == 0 &&
		    s.generation > newest.generation)
			newest = s;
	}
	return newest.cluster_count * POOL_CLUSTER_BYTES;
}

/* The disk grows, and then the pool over it; or the pool is asked though the disk has not grown. */
static void control_pool_grow(struct work *w)
{
	struct model *m = w->model;
	bool undone;
	uint64_t bytes = rt_disk_info(w->rt_disk)->size_bytes + below(w, 40) * POOL_CLUSTER_BYTES;
	if (bytes > POOL_BYTES_MAX)
		return;
	if (rt_disk_info(w->rt_disk)->is_block_device)
		sim_disk_enlarge(w->disk, bytes);
	m->new_pool_bytes = bytes;
	int err = rt_disk_grow(w->rt_disk, bytes);
	if (err)
		work_fail(w, "rt_disk_grow returned %s", err_name(err));
	if (!control_answered(w, "op.pool_grow", pool_grow(w->pool), false, &undone))
		return;
	m->pool_bytes = bytes;
	m->new_pool_bytes = 0;
	if (super_pool_bytes(w) != bytes)
		work_fail(w, "the pool has grown to %llu bytes, and its superblock says %llu",
			  (unsigned long long)bytes, (unsigned long long)super_pool_bytes(w));
}

static void control_note(struct work *w)
{
	uint8_t data[POOL_NOTE_BYTES_MAX];
	struct model_volume *v = pick_volume(w);
	bool undone;
	if (!v)
		return;
	v->new_note_kind = (int)below(w, POOL_NOTE_KINDS);
	v->new_note = one_in(w, 4) ? 0 : ++w->model->serial;
	uint32_t len_bytes = model_note_fill(data, v->new_note);
	enum pool_note_kind kind = (enum pool_note_kind)v->new_note_kind;
	bool through_handle = w->profile.grafts && v->handle && one_in(w, 2);
	int err = through_handle ? vol_note_set(v->handle, kind, data, len_bytes)
				 : pool_note_set(w->pool, &v->id, kind, data, len_bytes);
	bool done = control_answered(w, "op.note", err, true, &undone);
	if (done)
		v->notes[v->new_note_kind] = v->new_note;
	if (done || undone)
		v->new_note_kind = -1;
}

static void control_checkpoint(struct work *w)
{
	bool undone;
	control_answered(w, "op.checkpoint", pool_checkpoint(w->pool), false, &undone);
}

static void control_jobs_wait(struct work *w)
{
	bool undone;
	control_answered(w, "op.jobs_wait", pool_jobs_wait(w->pool), true, &undone);
}

/* Read part of a snapshot: it never changes. */
static void control_snapshot_read(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? pick_snapshot(w, v) : NULL;
	struct vol *vol;
	if (!s)
		return;
	uint64_t count = u64_min(s->content->sector_count, 256);
	uint64_t first = below(w, s->content->sector_count / BLOCK_SECTORS) * BLOCK_SECTORS;
	count = u64_min(count, s->content->sector_count - first);
	int err = vol_open(w->pool, &s->id, &vol);
	if (err) {
		error_is_expected(w, "vol_open of a snapshot", err);
		return;
	}
	uint8_t *buf = aligned_alloc(RT_IO_ALIGN, count * VALUE_BYTES);
	uint64_t submitted = model_tick(w->model);
	err = vol_read(vol, buf, first * VALUE_BYTES, count * VALUE_BYTES);
	model_tick(w->model);
	if (err)
		error_is_expected(w, "vol_read of a snapshot", err);
	else
		sectors_check(w, s->name, s->content, buf, (struct span){first, count}, submitted, true);
	free(buf);
	vol_close(vol);
}

/* Count what a snapshot shares, and compare with what the model can say about it. */
static void control_usage(struct work *w)
{
	struct model_volume *v = pick_volume(w);
	struct model_snapshot *s = v ? pick_snapshot(w, v) : NULL;
	struct model_usage may;
	struct snapshot_usage u;
	if (!s)
		return;
	model_usage_least(w->model, s, &may);
	int err = snapshot_usage(w->pool, &s->id, &u);
	sim_trace(w->sim, "op.usage", u.referenced_bytes, u.exclusive_bytes, (uint64_t)(int64_t)err);
	if (err) {
		error_is_expected(w, "snapshot_usage", err);
		return;
	}
	model_usage_most(w->model, v, s, &may);
	uint64_t referenced = u.referenced_bytes / POOL_BLOCK_BYTES;
	uint64_t exclusive = u.exclusive_bytes / POOL_BLOCK_BYTES;
	if (referenced < may.referenced_min || referenced > may.referenced_max ||
	    exclusive < may.exclusive_min || exclusive > may.exclusive_max ||
	    u.shared_bytes != u.referenced_bytes - u.exclusive_bytes)
		work_fail(w,
			  "snapshot %s is said to use %llu blocks, %llu alone; wanted %llu to %llu, "
			  "%llu to %llu",
			  s->name, (unsigned long long)referenced, (unsigned long long)exclusive,
			  (unsigned long long)may.referenced_min, (unsigned long long)may.referenced_max,
			  (unsigned long long)may.exclusive_min, (unsigned long long)may.exclusive_max);
}

static void problem_note(void *ctx, const struct pool_problem *p)
{
	work_fail(ctx, "pool_check: %s", p->text);
}

static void control_check(struct work *w)
{
	struct pool_check_result result;
	int err = pool_check(w->pool, problem_note, w, &result);
	if (err)
		error_is_expected(w, "pool_check", err);
	else if (result.problem_count)
		work_fail(w, "pool_check found problems");
}

/* ---- clients -------------------------------------------------------------------------------------------------------------------------- */

/* Runs that leave things out go deeper into the rest: each kind of step keeps its weight, has four times as much, or none. */
static uint32_t swarm_weight(const struct work *w, uint32_t weight, size_t kind)
{
	static const uint32_t factors[] = {1, 1, 4, 0};
	uint64_t draw = hash_u64(w->profile.swarm + kind * 0x9e3779b97f4a7c15ULL);
	return w->profile.swarm ? weight * factors[draw % ARRAY_COUNT(factors)] : weight;
}

#define GRAFT_WEIGHT 12u
#define DATA_KINDS   100u /* data steps are told from control steps by this */

static const struct {
	uint32_t weight, chains_weight;
	void (*fn)(struct work *w);
} control_steps[] = {
	{6, 2, control_create},
	{4, 10, control_clone},
	{3, 2, control_delete},
	{2, 0, control_grow},
	{2, 0, control_rename},
	{14, 10, control_snapshot},
	{8, 10, control_snapshot_delete},
	{1, 0, control_snapshot_rename},
	{3, 2, control_revert},
	{2, 10, control_flatten},
	{6, 1, control_checkpoint},
	{1, 0, control_jobs_wait},
	{5, 2, control_snapshot_read},
	{2, 0, control_check},
	{3, 1, control_note},
	{1, 0, control_pool_grow},
	{3, 5, control_usage},
	{GRAFT_WEIGHT, GRAFT_WEIGHT, control_fresh}, /* these two in some runs only */
	{GRAFT_WEIGHT, GRAFT_WEIGHT, control_graft},
};

static uint32_t control_weight(const struct work *w, size_t kind)
{
	uint32_t weight = w->profile.chains ? control_steps[kind].chains_weight : control_steps[kind].weight;
	if (control_steps[kind].fn == control_fresh || control_steps[kind].fn == control_graft)
		return w->profile.grafts ? weight : 0;
	return swarm_weight(w, weight, kind);
}

static const struct {
	uint32_t weight;
	void (*fn)(struct client *c);
} data_steps[] = {{30, step_write}, {6, step_zero}, {7, step_trim}, {20, step_read}, {2, step_extents}};

static void step_control(struct work *w)
{
	uint64_t total = 0, pick;
	for (size_t i = 0; i < ARRAY_COUNT(control_steps); i++)
		total += control_weight(w, i);
	if (total == 0)
		return;
	pick = below(w, total);
	fmutex_lock(&w->control);
	for (size_t i = 0; i < ARRAY_COUNT(control_steps) && !work_over(w); i++) {
		uint32_t weight = control_weight(w, i);
		if (pick < weight) {
			control_steps[i].fn(w);
			break;
		}
		pick -= weight;
	}
	fmutex_unlock(&w->control);
}

static void step_data(struct client *c)
{
	uint64_t total = 0, pick;
	for (size_t i = 0; i < ARRAY_COUNT(data_steps); i++)
		total += swarm_weight(c->work, data_steps[i].weight, DATA_KINDS + i);
	if (total == 0)
		return;
	pick = below(c->work, total);
	for (size_t i = 0; i < ARRAY_COUNT(data_steps); i++) {
		uint32_t weight = swarm_weight(c->work, data_steps[i].weight, DATA_KINDS + i);
		if (pick < weight) {
			data_steps[i].fn(c);
			return;
		}
		pick -= weight;
	}
}

static void client_main(void *arg)
{
	struct client *c = arg;
	struct work *w = c->work;
	while (w->steps_left > 0 && !work_over(w)) {
		w->steps_left--;
		if (one_in(w, 30))
			room_change(w);
		if (!pick_volume(w) || one_in(w, w->profile.control_one_in))
			step_control(w);
		else if (one_in(w, w->profile.flush_one_in))
			step_flush(c);
		else
			step_data(c);
		if (one_in(w, 4))
			fiber_sleep(below(w, 500 * NS_PER_US));
	}
	free(c->buf);
	free(c);
	group_done(&w->clients);
}

static void first_volume(struct work *w)
{
	fmutex_lock(&w->control);
	if (!pick_volume(w))
		control_create(w);
	fmutex_unlock(&w->control);
}

static void handles_close(struct work *w)
{
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		struct model_volume *v = &w->model->volumes[i];
		assert(v->users == 0);
		if (v->handle)
			vol_close(v->handle);
		v->handle = NULL;
		v->closing = false;
	}
}

void work_run(struct work *w)
{
	first_volume(w);
	group_add(&w->clients, w->profile.clients);
	for (uint32_t i = 0; i < w->profile.clients; i++) {
		struct client *c = mem_alloc(sizeof(*c));
		*c = (struct client){w, i, aligned_alloc(RT_IO_ALIGN, MiB)};
		fiber_spawn(rt_current(), "client", client_main, c);
	}
	group_wait(&w->clients);
	handles_close(w);
}
