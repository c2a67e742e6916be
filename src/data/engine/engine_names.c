/*
 * engine_names.c: export names.
 *
 *     [POOL/]VOLUME[@SNAPSHOT]    in a pool
 *     VOLUME[@SNAPSHOT]           mirrored: it is in no one pool
 *
 * Names hold neither '/' nor '@' (pool_name_check), so the parts are where those are.
 */
#include "data/engine/engine_internal.h"

#include <stdio.h>

struct name_parts {
	char pool[POOL_NAME_MAX + 1], volume[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];
};

static bool copy_part(char part[POOL_NAME_MAX + 1], const char *text, size_t len_bytes)
{
	if (len_bytes > POOL_NAME_MAX)
		return false;
	memcpy(part, text, len_bytes);
	part[len_bytes] = '\0';
	return pool_name_check(part) == 0;
}

/* False if no object can have such a name. */
static bool parse(const char *name, struct name_parts *out)
{
	*out = (struct name_parts){0};
	const char *slash = strchr(name, '/');
	if (slash && !copy_part(out->pool, name, (size_t)(slash - name)))
		return false;
	const char *volume = slash ? slash + 1 : name;
	const char *at = strchr(volume, '@');
	if (at && !copy_part(out->snapshot, at + 1, strlen(at + 1)))
		return false;
	return copy_part(out->volume, volume, at ? (size_t)(at - volume) : strlen(volume));
}

static bool is_pool_meant(const struct pool *pool, const struct name_parts *parts)
{
	return !parts->pool[0] || strcmp(pool_ident(pool)->name, parts->pool) == 0;
}

/* The volume, in whichever pool it is, or mirrored; OXE_INVAL if several could be meant. */
static int find_volume(struct engines *set, const struct name_parts *parts, struct engine_target *out,
		       struct volume_info *info)
{
	struct engine_pool *p;
	struct engine_mirror *m;
	struct volume_info found;
	size_t count = 0;
	*out = (struct engine_target){0};
	list_for_each (p, &set->pools, link) {
		if (!is_pool_meant(p->pool, parts) || volume_find(p->pool, parts->volume, &found))
			continue;
		out->pool = p->pool;
		*info = found;
		count++;
	}
	list_for_each (m, &set->mirrors, link) {
		if (parts->pool[0] || strcmp(m->name, parts->volume) != 0)
			continue;
		out->mirror = m;
		count++;
	}
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

static void format_full(char name[ENGINE_EXPORT_NAME_MAX + 1], const struct pool *pool, const char *volume,
			const char *snapshot)
{
	snprintf(name, ENGINE_EXPORT_NAME_MAX + 1, "%s%s%s%s%s", pool ? pool_ident(pool)->name : "",
		 pool ? "/" : "", volume, snapshot[0] ? "@" : "", snapshot);
}

static int resolve_in_pool(struct engine_target *out, const struct volume_info *volume, const char *snapshot)
{
	struct snapshot_info found;
	out->id = out->volume_id = volume->id;
	format_full(out->name, out->pool, volume->name, snapshot);
	if (!snapshot[0])
		return 0;
	int err = snapshot_find(out->pool, &volume->id, snapshot, &found);
	if (err == 0)
		out->id = found.id;
	return err;
}

static int resolve_in_mirror(struct engine_target *out, const char *snapshot)
{
	struct replica_layer found;
	out->id = out->volume_id = *mirror_volume_id(out->mirror->mirror);
	format_full(out->name, NULL, out->mirror->name, snapshot);
	if (!snapshot[0])
		return 0;
	int err = engine_mirror_snapshot(out->mirror, snapshot, NULL, &found);
	if (err == 0)
		out->id = found.id;
	return err && !engine_mirror_serves(out->mirror) ? OXE_NOTREADY : err;
}

int engine_resolve(struct engines *set, const char *export_name, struct engine_target *out)
{
	struct name_parts parts;
	struct volume_info volume;
	if (!parse(export_name, &parts))
		return OXE_NOENT;
	int err = find_volume(set, &parts, out, &volume);
	if (err)
		return err;
	return out->mirror ? resolve_in_mirror(out, parts.snapshot)
			   : resolve_in_pool(out, &volume, parts.snapshot);
}

int engine_resolve_volume(struct engines *set, const struct uuid *volume_id, struct engine_target *out)
{
	struct engine_pool *p;
	struct engine_mirror *m;
	struct volume_info found;
	size_t count = 0;
	*out = (struct engine_target){.id = *volume_id, .volume_id = *volume_id};
	list_for_each (p, &set->pools, link) {
		if (volume_get(p->pool, volume_id, &found))
			continue;
		out->pool = p->pool;
		format_full(out->name, p->pool, found.name, "");
		count++;
	}
	list_for_each (m, &set->mirrors, link) {
		if (!uuid_equal(mirror_volume_id(m->mirror), volume_id))
			continue;
		out->mirror = m;
		format_full(out->name, NULL, m->name, "");
		count++;
	}
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

/* How many of them have it. */
static size_t snapshot_in_pools(struct engines *set, const struct uuid *id, struct engine_target *out)
{
	struct engine_pool *p;
	struct snapshot_info snapshot;
	struct volume_info volume;
	size_t count = 0;
	list_for_each (p, &set->pools, link) {
		if (snapshot_get(p->pool, id, &snapshot) || volume_get(p->pool, &snapshot.volume_id, &volume))
			continue;
		*out = (struct engine_target){.pool = p->pool, .id = *id, .volume_id = volume.id};
		format_full(out->name, p->pool, volume.name, snapshot.name);
		count++;
	}
	return count;
}

static size_t snapshot_in_mirrors(struct engines *set, const struct uuid *id, struct engine_target *out)
{
	struct engine_mirror *m;
	struct replica_layer layer;
	size_t count = 0;
	list_for_each (m, &set->mirrors, link) {
		if (engine_mirror_snapshot(m, NULL, id, &layer))
			continue;
		*out = (struct engine_target){
			.mirror = m, .id = *id, .volume_id = *mirror_volume_id(m->mirror)};
		format_full(out->name, NULL, m->name, layer.name);
		count++;
	}
	return count;
}

int engine_resolve_id(struct engines *set, const struct uuid *id, struct engine_target *out)
{
	int err = engine_resolve_volume(set, id, out);
	if (err != OXE_NOENT)
		return err;
	size_t count = snapshot_in_pools(set, id, out) + snapshot_in_mirrors(set, id, out);
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

void engine_target_rename(struct engine_target *t)
{
	char snapshot[POOL_NAME_MAX + 1] = "";
	const char *at = strchr(t->name, '@');
	if (at)
		snprintf(snapshot, sizeof(snapshot), "%s", at + 1);
	format_full(t->name, NULL, t->mirror->name, snapshot);
}

/* ---- listing ---------------------------------------------------------------------------------------------------------- */

struct export_walk {
	struct engines *set;
	struct pool *pool; /* NULL: of a mirror */
	const char *volume;
	struct uuid volume_id;
	uint32_t lba_bytes;
	bool is_unique; /* the volume's bare name, among all there are */
	bool stopped;
	bool (*fn)(void *ctx, const struct engine_export *e);
	void *ctx;
};

static bool pass_export(struct export_walk *w, const struct uuid *id, const char *snapshot,
			uint64_t size_bytes)
{
	bool is_snapshot = snapshot[0] != '\0';
	struct engine_export e = {
		.id = *id,
		.volume_id = w->volume_id,
		.size_bytes = size_bytes,
		.lba_bytes = w->lba_bytes,
		.read_only = is_snapshot,
		.is_snapshot = is_snapshot,
		.is_mirrored = !w->pool,
	};
	format_full(e.name, w->is_unique ? NULL : w->pool, w->volume, snapshot);
	w->stopped = !w->fn(w->ctx, &e);
	return !w->stopped;
}

static bool pass_snapshot(void *ctx, const struct snapshot_info *s)
{
	return pass_export(ctx, &s->id, s->name, s->size_bytes);
}

static bool pass_layer(void *ctx, const struct replica_layer *layer)
{
	return pass_export(ctx, &layer->id, layer->name, layer->size_bytes);
}

static bool is_bare_name_unique(struct engines *set, const char *volume)
{
	struct name_parts parts = {0};
	struct engine_target found;
	struct volume_info info;
	snprintf(parts.volume, sizeof(parts.volume), "%s", volume);
	return find_volume(set, &parts, &found, &info) == 0;
}

static bool pass_volume(void *ctx, const struct volume_info *v)
{
	struct export_walk *w = ctx;
	w->volume = v->name;
	w->volume_id = v->id;
	w->lba_bytes = v->lba_bytes;
	w->is_unique = is_bare_name_unique(w->set, v->name);
	if (!pass_export(w, &v->id, "", v->size_bytes))
		return false;
	if (v->snapshot_count > 0)
		snapshot_walk(w->pool, &v->id, pass_snapshot, w);
	return !w->stopped;
}

static void pass_mirror(struct export_walk *w, const struct engine_mirror *m)
{
	w->pool = NULL;
	w->volume = m->name;
	w->volume_id = *mirror_volume_id(m->mirror);
	w->lba_bytes = mirror_lba_bytes(m->mirror);
	w->is_unique = true;
	if (pass_export(w, &w->volume_id, "", mirror_size_bytes(m->mirror)))
		mirror_snapshot_walk(m->mirror, pass_layer, w);
}

void engines_walk(struct engines *set, bool (*fn)(void *ctx, const struct engine_export *e), void *ctx)
{
	struct export_walk w = {.set = set, .fn = fn, .ctx = ctx};
	struct engine_pool *p;
	struct engine_mirror *m;
	list_for_each (p, &set->pools, link) {
		w.pool = p->pool;
		if (!w.stopped)
			volume_walk(p->pool, pass_volume, &w);
	}
	list_for_each (m, &set->mirrors, link)
		if (!w.stopped)
			pass_mirror(&w, m);
}
