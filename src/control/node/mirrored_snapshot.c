/*
 * mirrored_snapshot.c: snapshots of mirrored volumes, and what is read of the one or the other by name: extents, ids. They are nowhere on record:
 * which there are is known by the engine, and so by the volume's home alone, while it serves.
 */
#include "control/node/mirrored.h"

#include "base/log.h"

#include <stdio.h>

/* ---- finding one ----------------------------------------------------------------------------------------------------- */

struct layer_search {
	const char *name; /* or */
	const struct uuid *id;
	struct replica_layer *found;
	bool is_found;
};

static bool layer_look(void *ctx, const struct replica_layer *layer)
{
	struct layer_search *s = ctx;
	bool is_it = s->id ? uuid_equal(s->id, &layer->id) : strcmp(s->name, layer->name) == 0;
	if (is_it) {
		*s->found = *layer;
		s->is_found = true;
	}
	return !is_it;
}

static bool layer_find(const struct mirrored *v, const char *name, struct replica_layer *out)
{
	struct uuid id;
	struct layer_search s = {.name = name, .found = out};
	if (!v->mirror)
		return false;
	mirror_snapshot_walk(v->mirror, layer_look, &s);
	if (!s.is_found && uuid_parse(name, &id) == 0) {
		s.id = &id;
		mirror_snapshot_walk(v->mirror, layer_look, &s);
	}
	return s.is_found;
}

/* The volume of "VOLUME@SNAPSHOT", or the one that has a snapshot of this uuid. */
static const struct fact_volume *volume_by_snapshot(const struct node *n, const char *ref,
						    const char **snapshot)
{
	char volume[POOL_NAME_MAX + UUID_TEXT_LEN + 1];
	const char *at = strchr(ref, '@');
	struct replica_layer layer;
	struct mirrored *v;
	struct uuid id;
	*snapshot = at ? at + 1 : ref;
	if (at && (size_t)(at - ref) >= sizeof(volume))
		return NULL;
	if (at) {
		snprintf(volume, sizeof(volume), "%.*s", (int)(at - ref), ref);
		return mirrored_by_ref(n, volume);
	}
	if (uuid_parse(ref, &id) != 0)
		return NULL;
	list_for_each (v, &n->mirrored, link) {
		if (layer_find(v, ref, &layer))
			return facts_volume(&n->meta.facts, &v->id);
	}
	return NULL;
}

bool mirrored_has_snapshot(const struct node *n, const char *ref)
{
	const char *snapshot;
	return volume_by_snapshot(n, ref, &snapshot) != NULL;
}

static int snapshot_enter(struct node *n, const char *ref, struct mirrored **v, struct replica_layer *layer,
			  struct node_why *why)
{
	const char *name;
	const struct fact_volume *f = volume_by_snapshot(n, ref, &name);
	if (!f)
		return why_set(why, OXE_NOENT, "there is no snapshot \"%.120s\"", ref);
	struct uuid id = f->id;
	int err = mirrored_engine_enter(n, &id, v, why);
	if (err || layer_find(*v, name, layer))
		return err;
	why_set(why, OXE_NOENT, "the volume \"%s\" has no snapshot \"%.80s\"", (*v)->name, name);
	why_hint(why, "'oxbow snapshot list %s' shows them", (*v)->name);
	return mirrored_engine_leave(*v, OXE_NOENT);
}

/* ---- taken, shown, renamed, deleted, gone back to -------------------------------------------------------------------- */

static void snapshot_describe(const struct mirrored *v, const struct replica_layer *layer,
			      struct node_snapshot *out)
{
	*out = (struct node_snapshot){
		.info = {.id = layer->id,
			 .volume_id = v->id,
			 .size_bytes = layer->size_bytes,
			 .open_count = engines_open_count(v->node->options.engines, &layer->id)}};
	memcpy(out->info.name, layer->name, sizeof(out->info.name));
	snprintf(out->volume_name, sizeof(out->volume_name), "%s", v->name);
}

int mirrored_snapshot_create(struct node *n, const struct uuid *volume_id, const struct uuid *id,
			     const char *name, bool *created, uint64_t *pause_ns, struct node_snapshot *out,
			     struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	char text[UUID_TEXT_LEN + 1];
	int err = mirrored_engine_enter(n, volume_id, &v, why);
	if (err)
		return err;
	*created = !layer_find(v, uuid_format(id, text), &layer);
	err = mirror_snapshot(v->mirror, id, name, pause_ns);
	mirrored_engine_said(why, err, v->name, "take a snapshot of");
	if (!err && *created)
		LOG_INFO("snapshot.created", "a snapshot was taken", F_UUID("snapshot", id),
			 F_STR("snapshot_name", name), F_UUID("volume", &v->id),
			 F_STR("volume_name", v->name), F_U64("pause_us", *pause_ns / NS_PER_US));
	if (!err && !layer_find(v, text, &layer))
		err = why_set(why, OXE_NOENT, "the snapshot was deleted meanwhile");
	if (!err)
		snapshot_describe(v, &layer, out);
	node_volumes_changed(n);
	return mirrored_engine_leave(v, err);
}

int mirrored_snapshot_get(struct node *n, const char *ref, struct node_snapshot *out, struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	int err = snapshot_enter(n, ref, &v, &layer, why);
	if (err)
		return err;
	snapshot_describe(v, &layer, out);
	return mirrored_engine_leave(v, 0);
}

int mirrored_snapshot_rename(struct node *n, const char *ref, const char *name, struct node_snapshot *out,
			     struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	int err = snapshot_enter(n, ref, &v, &layer, why);
	if (err)
		return err;
	err = mirror_layer_rename(v->mirror, &layer.id, name);
	mirrored_engine_said(why, err, v->name, "rename a snapshot of");
	if (!err) {
		LOG_INFO("snapshot.renamed", "a snapshot was renamed", F_UUID("snapshot", &layer.id),
			 F_STR("snapshot_name", name), F_STR("old_name", layer.name));
		snprintf(layer.name, sizeof(layer.name), "%s", name);
		snapshot_describe(v, &layer, out);
	}
	node_volumes_changed(n);
	return mirrored_engine_leave(v, err);
}

int mirrored_snapshot_delete(struct node *n, const char *ref, struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	int err = snapshot_enter(n, ref, &v, &layer, why);
	if (err)
		return err;
	err = mirror_layer_delete(v->mirror, &layer.id);
	mirrored_engine_said(why, err, v->name, "delete a snapshot of");
	if (!err)
		LOG_INFO("snapshot.deleted", "a snapshot was deleted; its layer is merged in the background",
			 F_UUID("snapshot", &layer.id), F_STR("snapshot_name", layer.name),
			 F_UUID("volume", &v->id), F_STR("volume_name", v->name));
	node_volumes_changed(n);
	return mirrored_engine_leave(v, err);
}

struct snapshot_walk {
	const struct mirrored *v;
	bool (*fn)(void *ctx, const struct node_snapshot *s);
	void *ctx;
	bool stopped;
};

static bool snapshot_walked(void *ctx, const struct replica_layer *layer)
{
	struct snapshot_walk *w = ctx;
	struct node_snapshot s;
	snapshot_describe(w->v, layer, &s);
	w->stopped = !w->fn(w->ctx, &s);
	return !w->stopped;
}

bool mirrored_snapshot_walk(struct node *n, const struct uuid *volume_id,
			    bool (*fn)(void *ctx, const struct node_snapshot *s), void *ctx)
{
	struct snapshot_walk w = {.fn = fn, .ctx = ctx};
	struct mirrored *v;
	list_for_each (v, &n->mirrored, link) {
		w.v = v;
		if (!w.stopped && v->mirror && (!volume_id || uuid_equal(volume_id, &v->id)))
			mirror_snapshot_walk(v->mirror, snapshot_walked, &w);
	}
	return !w.stopped;
}

static int edit_size_is(struct fact_volume *f, const void *arg, struct node_why *why)
{
	(void)why;
	f->size_bytes = *(const uint64_t *)arg;
	return 0;
}

int mirrored_revert(struct node *n, const struct uuid *volume_id, const char *snapshot,
		    const struct uuid *head_id, struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	const char *at = strchr(snapshot, '@');
	int err = mirrored_engine_enter(n, volume_id, &v, why);
	if (err)
		return err;
	if (!layer_find(v, at ? at + 1 : snapshot, &layer)) {
		why_set(why, OXE_NOENT, "the volume \"%s\" has no snapshot \"%.80s\"", v->name, snapshot);
		why_hint(why, "'oxbow snapshot list %s' shows them", v->name);
		return mirrored_engine_leave(v, OXE_NOENT);
	}
	err = mirror_revert(v->mirror, &layer.id, head_id, NULL);
	mirrored_engine_said(why, err, v->name, "revert");
	if (!err)
		LOG_INFO("volume.reverted", "a mirrored volume was reverted to a snapshot",
			 F_UUID("volume", &v->id), F_STR("volume_name", v->name),
			 F_UUID("snapshot", &layer.id), F_UUID("head", head_id));
	if (!err)
		err = mirrored_record_edit(n, volume_id, edit_size_is, &layer.size_bytes, why);
	node_volumes_changed(n);
	return mirrored_engine_leave(v, err);
}

/* ---- extents --------------------------------------------------------------------------------------------------------- */

/* `since` by its name, uuid or whole reference; "": none. */
static int since_find(const struct mirrored *v, const char *since, struct uuid *id, struct node_why *why)
{
	struct replica_layer layer;
	const char *at = strchr(since, '@');
	if (!*since)
		return 0;
	if (!layer_find(v, at ? at + 1 : since, &layer))
		return why_set(why, OXE_NOENT, "the volume \"%s\" has no snapshot \"%.80s\"", v->name, since);
	*id = layer.id;
	return 0;
}

static int export_enter(struct node *n, const char *ref, struct mirrored **v, struct replica_layer *layer,
			bool *is_snapshot, struct node_why *why)
{
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	*is_snapshot = !f;
	if (!f)
		return snapshot_enter(n, ref, v, layer, why);
	struct uuid id = f->id;
	layer->size_bytes = f->size_bytes;
	return mirrored_engine_enter(n, &id, v, why);
}

int mirrored_extents(struct node *n, const char *ref, const char *since, uint64_t offset_bytes,
		     uint64_t len_bytes, struct vol_extent *extents, size_t max_extents, size_t *extent_count,
		     uint64_t *end_bytes, struct node_why *why)
{
	struct replica_layer layer;
	struct uuid since_id;
	struct mirrored *v;
	bool is_snapshot;
	int err = export_enter(n, ref, &v, &layer, &is_snapshot, why);
	if (err)
		return err;
	err = since_find(v, since, &since_id, why);
	if (!err && offset_bytes > layer.size_bytes)
		err = why_set(why, OXE_RANGE, "offset %llu lies behind the end, %llu",
			      (unsigned long long)offset_bytes, (unsigned long long)layer.size_bytes);
	if (err)
		return mirrored_engine_leave(v, err);
	len_bytes = u64_min(len_bytes, layer.size_bytes - offset_bytes);
	*end_bytes = offset_bytes + len_bytes;
	if (len_bytes)
		err = mirror_extents(v->mirror, is_snapshot ? &layer.id : NULL, *since ? &since_id : NULL,
				     offset_bytes, len_bytes, extents, max_extents, extent_count);
	mirrored_engine_said(why, err, ref, "list the extents of");
	if (!err && *extent_count)
		*end_bytes = extents[*extent_count - 1].offset_bytes + extents[*extent_count - 1].len_bytes;
	return mirrored_engine_leave(v, err);
}

/* ---- the id of a volume or snapshot ---------------------------------------------------------------------------------- */

int mirrored_export_id(struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	struct replica_layer layer;
	struct mirrored *v;
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	if (f) {
		*id = f->id;
		return uuid_equal(&f->home_id, &n->id) ? 0 : mirrored_elsewhere(n, f, why);
	}
	int err = snapshot_enter(n, ref, &v, &layer, why);
	if (err)
		return err;
	*id = layer.id;
	return mirrored_engine_leave(v, 0);
}
