/*
 * engine_mirror.c: what is served of a mirror: the volume and its snapshots, whose every call is the mirror's own; and which mirrors there
 * are.
 *
 * A mirror that is over (fenced, or stopped) opens nothing any more: whoever comes next is to find the one that comes in its place, and
 * not to be thrown out by this one again and again.
 */
#include "data/engine/engine_internal.h"

#include <stdio.h>

/* ---- which there are ----------------------------------------------------------------------------------------------------- */

static struct engine_mirror *mirror_by_id(const struct engines *set, const struct uuid *volume_id)
{
	struct engine_mirror *m;
	list_for_each (m, &set->mirrors, link)
		if (uuid_equal(mirror_volume_id(m->mirror), volume_id))
			return m;
	return NULL;
}

static struct engine_mirror *mirror_by_name(const struct engines *set, const char *name)
{
	struct engine_mirror *m;
	list_for_each (m, &set->mirrors, link)
		if (strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

static void name_set(struct engine_mirror *m, const char *name)
{
	snprintf(m->name, sizeof(m->name), "%s", name);
}

int engines_add_mirror(struct engines *set, const struct engine_mirror_options *o)
{
	struct engine_target found;
	if (pool_name_check(o->name) || !o->notes)
		return OXE_INVAL;
	if (mirror_by_name(set, o->name) ||
	    engine_resolve_volume(set, mirror_volume_id(o->mirror), &found) != OXE_NOENT)
		return OXE_EXISTS;
	struct engine_mirror *m = mem_zalloc(sizeof(*m));
	m->mirror = o->mirror;
	m->notes = o->notes;
	name_set(m, o->name);
	list_add_tail(&set->mirrors, &m->link);
	return 0;
}

int engines_rename_mirror(struct engines *set, const struct uuid *volume_id, const char *name)
{
	struct engine_mirror *m = mirror_by_id(set, volume_id), *other = mirror_by_name(set, name);
	struct engine *e;
	if (!m)
		return OXE_NOENT;
	if (pool_name_check(name))
		return OXE_INVAL;
	if (other && other != m)
		return OXE_EXISTS;
	name_set(m, name);
	list_for_each (e, &set->open, link)
		if (e->target.mirror == m)
			engine_target_rename(&e->target);
	engine_records_rename(set, m);
	return 0;
}

static bool is_in_use(const struct engines *set, const struct engine_mirror *m)
{
	const struct engine *e;
	if (m->users > 0)
		return true;
	list_for_each (e, &set->open, link)
		if (e->target.mirror == m)
			return true;
	return false;
}

int engines_remove_mirror(struct engines *set, const struct uuid *volume_id)
{
	struct engine_mirror *m = mirror_by_id(set, volume_id);
	if (!m)
		return 0;
	/* The mutex's holder may be about to open it. */
	if (set->opening.holder || is_in_use(set, m))
		return OXE_BUSY;
	engine_records_forget(set, NULL, m);
	list_del(&m->link);
	free(m);
	return 0;
}

int engine_mirror_over(const struct engine_mirror *m)
{
	int err = mirror_wait(m->mirror, 0);
	return err == OXE_TIMEOUT ? 0 : err;
}

bool engine_mirror_serves(const struct engine_mirror *m)
{
	struct mirror_status status;
	mirror_status(m->mirror, &status);
	return status.serves;
}

/* ---- an engine of the volume ------------------------------------------------------------------------------------------------------ */

static struct mirror *mirror_of(const struct engine *e)
{
	return e->target.mirror->mirror;
}

/* Does not wait until it serves: that is for whoever opens it (engine_wait). */
static int head_open(struct engine *e)
{
	e->info.id = e->target.id;
	return 0;
}

static void mirrored_close(struct engine *e)
{
	(void)e;
}

static int mirrored_wait(struct engine *e, uint64_t deadline_ns)
{
	return mirror_wait(mirror_of(e), deadline_ns);
}

static const struct vol_info *head_info(struct engine *e)
{
	e->info.size_bytes = mirror_size_bytes(mirror_of(e));
	e->info.lba_bytes = mirror_lba_bytes(mirror_of(e));
	return &e->info;
}

static int head_read(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return mirror_read(mirror_of(e), data, offset_bytes, len_bytes);
}

static int head_write(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		      unsigned vol_flags)
{
	return mirror_write(mirror_of(e), data, offset_bytes, len_bytes, vol_flags);
}

static int head_zero(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	return mirror_zero(mirror_of(e), offset_bytes, len_bytes, vol_flags);
}

static int head_trim(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes)
{
	return mirror_trim(mirror_of(e), offset_bytes, len_bytes);
}

static int head_flush(struct engine *e)
{
	return mirror_flush(mirror_of(e));
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------------- */

struct layer_search {
	const char *name;
	const struct uuid *id;
	struct replica_layer *out;
	bool is_found;
};

static bool look_at(void *ctx, const struct replica_layer *layer)
{
	struct layer_search *s = ctx;
	s->is_found = s->name ? strcmp(layer->name, s->name) == 0 : uuid_equal(&layer->id, s->id);
	if (s->is_found)
		*s->out = *layer;
	return !s->is_found;
}

int engine_mirror_snapshot(const struct engine_mirror *m, const char *name, const struct uuid *id,
			   struct replica_layer *out)
{
	struct layer_search s = {.name = name, .id = id, .out = out};
	mirror_snapshot_walk(m->mirror, look_at, &s);
	return s.is_found ? 0 : OXE_NOENT;
}

struct name_walk {
	bool (*fn)(void *ctx, const char *snapshot);
	void *ctx;
};

static bool pass_name(void *ctx, const struct replica_layer *layer)
{
	struct name_walk *w = ctx;
	return w->fn(w->ctx, layer->name);
}

static void mirror_names_walk(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot), void *ctx)
{
	struct name_walk w = {fn, ctx};
	mirror_snapshot_walk(mirror_of(e), pass_name, &w);
}

static int mirror_extents_since(struct engine *e, const struct uuid *layer_id, const char *since_snapshot,
				uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
				size_t max_extents, size_t *extent_count)
{
	struct replica_layer since;
	int err = since_snapshot ? engine_mirror_snapshot(e->target.mirror, since_snapshot, NULL, &since) : 0;
	if (err)
		return err;
	return mirror_extents(mirror_of(e), layer_id, since_snapshot ? &since.id : NULL, offset_bytes,
			      len_bytes, extents, max_extents, extent_count);
}

static int head_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes,
			uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			size_t *extent_count)
{
	return mirror_extents_since(e, NULL, since_snapshot, offset_bytes, len_bytes, extents, max_extents,
				    extent_count);
}

const struct engine_ops engine_mirror_ops = {
	.open = head_open,
	.close = mirrored_close,
	.wait = mirrored_wait,
	.info = head_info,
	.read = head_read,
	.write = head_write,
	.zero = head_zero,
	.trim = head_trim,
	.flush = head_flush,
	.extents = head_extents,
	.snapshot_walk = mirror_names_walk,
};

/* ---- an engine of a snapshot: it is never written, and stays as large as it was ------------------------------------------------------ */

static int layer_open(struct engine *e)
{
	struct replica_layer layer;
	int err = engine_mirror_snapshot(e->target.mirror, NULL, &e->target.id, &layer);
	if (err)
		return err;
	e->info = (struct vol_info){.id = layer.id, .size_bytes = layer.size_bytes, .read_only = true};
	return 0;
}

static const struct vol_info *layer_info(struct engine *e)
{
	e->info.lba_bytes = mirror_lba_bytes(mirror_of(e));
	return &e->info;
}

static int layer_read(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return mirror_layer_read(mirror_of(e), &e->target.id, data, offset_bytes, len_bytes);
}

/* What it holds was durable before it was there. */
static int layer_flush(struct engine *e)
{
	(void)e;
	return 0;
}

static int layer_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes,
			 uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			 size_t *extent_count)
{
	return mirror_extents_since(e, &e->target.id, since_snapshot, offset_bytes, len_bytes, extents,
				    max_extents, extent_count);
}

const struct engine_ops engine_layer_ops = {
	.open = layer_open,
	.close = mirrored_close,
	.wait = mirrored_wait,
	.info = layer_info,
	.read = layer_read,
	.flush = layer_flush,
	.extents = layer_extents,
	.snapshot_walk = mirror_names_walk,
};
