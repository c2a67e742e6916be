/*
 * engine_names.c: export names.
 *
 *     [POOL/]VOLUME[@SNAPSHOT]
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

/* The volume, in whichever pool it is; OXE_INVAL if in several that could be meant. */
static int find_volume(struct engines *set, const struct name_parts *parts, struct pool **pool,
		       struct volume_info *info)
{
	struct engine_pool *p;
	struct volume_info found;
	size_t count = 0;
	list_for_each (p, &set->pools, link) {
		if (!is_pool_meant(p->pool, parts) || volume_find(p->pool, parts->volume, &found))
			continue;
		*pool = p->pool;
		*info = found;
		count++;
	}
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

static void format_full(char name[ENGINE_EXPORT_NAME_MAX + 1], const struct pool *pool, const char *volume,
			const char *snapshot)
{
	snprintf(name, ENGINE_EXPORT_NAME_MAX + 1, "%s/%s%s%s", pool_ident(pool)->name, volume,
		 snapshot[0] ? "@" : "", snapshot);
}

int engine_resolve(struct engines *set, const char *export_name, struct engine_target *out)
{
	struct name_parts parts;
	struct volume_info volume;
	struct snapshot_info snapshot;
	if (!parse(export_name, &parts))
		return OXE_NOENT;
	int err = find_volume(set, &parts, &out->pool, &volume);
	if (err)
		return err;
	out->id = out->volume_id = volume.id;
	format_full(out->name, out->pool, volume.name, parts.snapshot);
	if (!parts.snapshot[0])
		return 0;
	err = snapshot_find(out->pool, &volume.id, parts.snapshot, &snapshot);
	out->id = snapshot.id;
	return err;
}

int engine_resolve_volume(struct engines *set, const struct uuid *volume_id, struct engine_target *out)
{
	struct engine_pool *p;
	struct volume_info found;
	size_t count = 0;
	list_for_each (p, &set->pools, link) {
		if (volume_get(p->pool, volume_id, &found))
			continue;
		out->pool = p->pool;
		format_full(out->name, p->pool, found.name, "");
		count++;
	}
	out->id = out->volume_id = *volume_id;
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

static int resolve_snapshot(struct engines *set, const struct uuid *id, struct engine_target *out)
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
	return count == 1 ? 0 : count == 0 ? OXE_NOENT : OXE_INVAL;
}

int engine_resolve_id(struct engines *set, const struct uuid *id, struct engine_target *out)
{
	int err = engine_resolve_volume(set, id, out);
	return err == OXE_NOENT ? resolve_snapshot(set, id, out) : err;
}

/* ---- listing ---------------------------------------------------------------------------------------------------------- */

struct export_walk {
	struct engines *set;
	struct pool *pool;
	const struct volume_info *volume;
	bool is_unique; /* the volume's bare name, among all pools */
	bool stopped;
	bool (*fn)(void *ctx, const struct engine_export *e);
	void *ctx;
};

static bool pass_export(struct export_walk *w, const struct uuid *id, const char *snapshot,
			uint64_t size_bytes, bool read_only)
{
	struct engine_export e = {
		.id = *id,
		.volume_id = w->volume->id,
		.size_bytes = size_bytes,
		.lba_bytes = w->volume->lba_bytes,
		.read_only = read_only,
		.is_snapshot = snapshot[0] != '\0',
	};
	format_full(e.name, w->pool, w->volume->name, snapshot);
	if (w->is_unique) {
		const char *bare = strchr(e.name, '/') + 1;
		memmove(e.name, bare, strlen(bare) + 1);
	}
	w->stopped = !w->fn(w->ctx, &e);
	return !w->stopped;
}

static bool pass_snapshot(void *ctx, const struct snapshot_info *s)
{
	return pass_export(ctx, &s->id, s->name, s->size_bytes, true);
}

static bool is_bare_name_unique(struct engines *set, const char *volume)
{
	struct name_parts parts = {0};
	struct pool *pool;
	struct volume_info info;
	snprintf(parts.volume, sizeof(parts.volume), "%s", volume);
	return find_volume(set, &parts, &pool, &info) == 0;
}

static bool pass_volume(void *ctx, const struct volume_info *v)
{
	struct export_walk *w = ctx;
	w->volume = v;
	w->is_unique = is_bare_name_unique(w->set, v->name);
	if (!pass_export(w, &v->id, "", v->size_bytes, false))
		return false;
	if (v->snapshot_count > 0)
		snapshot_walk(w->pool, &v->id, pass_snapshot, w);
	return !w->stopped;
}

void engines_walk(struct engines *set, bool (*fn)(void *ctx, const struct engine_export *e), void *ctx)
{
	struct export_walk w = {.set = set, .fn = fn, .ctx = ctx};
	struct engine_pool *p;
	list_for_each (p, &set->pools, link) {
		w.pool = p->pool;
		if (!w.stopped)
			volume_walk(p->pool, pass_volume, &w);
	}
}
