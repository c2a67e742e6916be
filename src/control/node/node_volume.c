/*
 * node_volume.c: what people ask of volumes, snapshots and jobs: find by reference, enter the pool, call the store, explain.
 *
 * Finding does not suspend and only sees open pools, so what was found can be entered at once. What is not found while some
 * pool is not open is "not ready" rather than "not there": nobody shall recreate a volume because its disk was late.
 */
#include "control/node/node_impl.h"

#include "data/frontend/nvmf/nvmf.h"

#include "base/log.h"

#include <stdio.h>

#define REF_MAX (3 * POOL_NAME_MAX + 3 + UUID_TEXT_LEN)

/* A reference taken apart: any part may be "". */
struct ref {
	char pool[REF_MAX], volume[REF_MAX], snapshot[REF_MAX];
	bool has_snapshot, is_id;
	struct uuid id;
};

struct found {
	struct node_pool *p;
	struct volume_info volume;
	struct snapshot_info snapshot;
	bool is_snapshot;
};

static bool pool_is_open(const struct node_pool *p)
{
	return p->pool && !p->closing;
}

static int ref_parse(const char *text, struct ref *ref, struct node_why *why)
{
	*ref = (struct ref){0};
	if (strlen(text) >= REF_MAX || !*text)
		return why_set(why, OXE_INVAL, "\"%.80s\" is no reference to a volume or snapshot", text);
	const char *slash = strchr(text, '/'), *rest = slash ? slash + 1 : text;
	const char *at = strchr(rest, '@');
	if (slash)
		memcpy(ref->pool, text, (size_t)(slash - text));
	memcpy(ref->volume, rest, at ? (size_t)(at - rest) : strlen(rest));
	ref->has_snapshot = at != NULL;
	if (at)
		memcpy(ref->snapshot, at + 1, strlen(at + 1));
	ref->is_id = !at && uuid_parse(rest, &ref->id) == 0;
	if ((slash && !*ref->pool) || !*ref->volume || (at && !*ref->snapshot)) {
		why_set(why, OXE_INVAL, "\"%s\" is no reference", text);
		why_hint(why, "say VOLUME, POOL/VOLUME, or VOLUME@SNAPSHOT");
		return OXE_INVAL;
	}
	return 0;
}

/* ---- finding --------------------------------------------------------------------------------------------------------- */

static bool pool_matches(const struct node_pool *p, const char *pool_ref)
{
	struct uuid id;
	return !*pool_ref || strcmp(p->name, pool_ref) == 0 ||
	       (uuid_parse(pool_ref, &id) == 0 && uuid_equal(&id, &p->id));
}

/* Is it a volume or snapshot of this pool, as the reference says it? */
static bool found_in_pool(struct node_pool *p, const struct ref *ref, struct found *out)
{
	out->p = p;
	out->is_snapshot = false;
	if (ref->is_id && volume_get(p->pool, &ref->id, &out->volume) == 0)
		return true;
	if (ref->is_id && snapshot_get(p->pool, &ref->id, &out->snapshot) == 0) {
		out->is_snapshot = true;
		return volume_get(p->pool, &out->snapshot.volume_id, &out->volume) == 0;
	}
	struct uuid volume_id;
	int err = uuid_parse(ref->volume, &volume_id) == 0 ? volume_get(p->pool, &volume_id, &out->volume)
							   : OXE_NOENT;
	if (err && volume_find(p->pool, ref->volume, &out->volume) != 0)
		return false;
	if (!ref->has_snapshot)
		return true;
	out->is_snapshot = true;
	return snapshot_find(p->pool, &out->volume.id, ref->snapshot, &out->snapshot) == 0;
}

/* With part of the list of volumes lost nobody knows that something is not there: it is not "deleted already", and a controller
 * shall not make it again (S9). */
static int maybe_lost(const struct node_pool *p, const char *text, struct node_why *why)
{
	struct pool_stats stats;
	pool_stats(p->pool, &stats);
	if (!stats.catalog_damaged)
		return 0;
	why_set(why, OXE_CORRUPT,
		"\"%s\" is not found, but the pool \"%s\" has lost part of its list: it may be there", text,
		p->name);
	why_hint(why, "see 'oxbow pool show %s'", p->name);
	return OXE_CORRUPT;
}

static int not_found(struct node *n, const struct ref *ref, const char *text, struct node_why *why)
{
	struct node_pool *p;
	bool pool_known = false;
	list_for_each (p, &n->pools, link) {
		if (!pool_matches(p, ref->pool))
			continue;
		pool_known = true;
		if (!pool_is_open(p)) {
			why_set(why, OXE_NOTREADY,
				"\"%s\" is in no open pool, and the pool \"%s\" is not open", text, p->name);
			why_hint(why, "see 'oxbow pool show %s'", p->name);
			return OXE_NOTREADY;
		}
	}
	if (!n->list_is_known)
		return why_set(why, OXE_NOTREADY, "the known pools are not read yet");
	if (!*ref->pool && n->options.platform.meta_open && !n->meta.is_known)
		return why_set(why, OXE_NOTREADY,
			       "\"%s\" is in no open pool, and the metastore is not read yet", text);
	if (!pool_known && *ref->pool) {
		why_set(why, OXE_NOENT, "no pool \"%s\" is known", ref->pool);
		why_hint(why, "'oxbow pool list' shows what is known");
		return OXE_NOENT;
	}
	list_for_each (p, &n->pools, link) {
		int err = pool_matches(p, ref->pool) ? maybe_lost(p, text, why) : 0;
		if (err)
			return err;
	}
	why_set(why, OXE_NOENT, "there is no %s \"%s\"", ref->has_snapshot ? "snapshot" : "volume", text);
	why_hint(why, ref->has_snapshot ? "'oxbow snapshot list' shows what there is"
					: "'oxbow volume list' shows what there is");
	return OXE_NOENT;
}

static int find_any(struct node *n, const char *text, struct found *out, struct node_why *why)
{
	struct ref ref;
	struct node_pool *p;
	struct found one;
	unsigned count = 0;
	int err = ref_parse(text, &ref, why);
	if (err)
		return err;
	list_for_each (p, &n->pools, link) {
		if (pool_matches(p, ref.pool) && pool_is_open(p) && found_in_pool(p, &ref, &one)) {
			*out = one;
			count++;
		}
	}
	if (count > 1) {
		why_set(why, OXE_INVAL, "%u pools have a \"%s\"", count, text);
		why_hint(why, "say which: POOL/%s", text);
		return OXE_INVAL;
	}
	return count ? 0 : not_found(n, &ref, text, why);
}

/* A name without a pool means one thing: a mirrored volume's is made, and others beside it, so that it does; a pool that comes from
 * elsewhere may bring another. OXE_NOENT: it is not mirrored. */
static int mirrored_find_ref(struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	struct node_pool *p;
	struct volume_info info;
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	if (!f)
		return OXE_NOENT;
	*id = f->id;
	list_for_each (p, &n->pools, link) {
		if (!pool_is_open(p) || strcmp(ref, f->name) != 0 || volume_find(p->pool, ref, &info) != 0)
			continue;
		why_set(why, OXE_INVAL, "\"%s\" is a mirrored volume, and one of the pool \"%s\"", ref,
			p->name);
		why_hint(why, "say %s/%s, or the uuid of the mirrored one", p->name, ref);
		return OXE_INVAL;
	}
	return 0;
}

int export_id_find(struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	struct found f;
	if (mirrored_by_ref(n, ref) || mirrored_has_snapshot(n, ref))
		return mirrored_export_id(n, ref, id, why);
	int err = find_any(n, ref, &f, why);
	if (!err)
		*id = f.is_snapshot ? f.snapshot.id : f.volume.id;
	return err;
}

static int find_volume(struct node *n, const char *text, struct found *out, struct node_why *why)
{
	int err = find_any(n, text, out, why);
	if (err || !out->is_snapshot)
		return err;
	why_set(why, OXE_NOENT, "\"%s\" is a snapshot, not a volume", text);
	why_hint(why, "its volume is \"%s/%s\"", out->p->name, out->volume.name);
	return OXE_NOENT;
}

static int find_snapshot(struct node *n, const char *text, struct found *out, struct node_why *why)
{
	int err = find_any(n, text, out, why);
	if (err || out->is_snapshot)
		return err;
	why_set(why, OXE_NOENT, "\"%s\" is a volume, not a snapshot", text);
	why_hint(why, "say VOLUME@SNAPSHOT; 'oxbow snapshot list %s' shows them", out->volume.name);
	return OXE_NOENT;
}

/* Found, and its pool entered: leave it with pool_leave, or a reread. */
static int volume_enter(struct node *n, const char *text, struct found *out, struct node_why *why)
{
	int err = find_volume(n, text, out, why);
	return err ? err : pool_enter(out->p, why);
}

static int snapshot_enter(struct node *n, const char *text, struct found *out, struct node_why *why)
{
	int err = find_snapshot(n, text, out, why);
	return err ? err : pool_enter(out->p, why);
}

/* A snapshot named beside a volume: its bare name, uuid, or a whole reference. */
static int find_snapshot_of(struct node *n, const struct found *volume, const char *text, struct uuid *id,
			    struct node_why *why)
{
	struct snapshot_info info;
	struct found f;
	if (snapshot_find(volume->p->pool, &volume->volume.id, text, &info) == 0) {
		*id = info.id;
		return 0;
	}
	bool is_reference = strchr(text, '@') || uuid_parse(text, id) == 0;
	if (!is_reference) {
		int err = maybe_lost(volume->p, text, why);
		if (err)
			return err;
		why_set(why, OXE_NOENT, "the volume \"%s\" has no snapshot \"%.80s\"", volume->volume.name,
			text);
		why_hint(why, "'oxbow snapshot list %s' shows them", volume->volume.name);
		return OXE_NOENT;
	}
	int err = find_snapshot(n, text, &f, why);
	if (!err)
		*id = f.snapshot.id;
	return err;
}

static void volume_out(const struct node_pool *p, const struct volume_info *info, struct node_volume *out)
{
	out->is_mirrored = false;
	out->info = *info;
	out->pool_id = p->id;
	memcpy(out->pool_name, p->name, sizeof(out->pool_name));
}

static void snapshot_out(const struct node_pool *p, const struct snapshot_info *info, const char *volume_name,
			 struct node_snapshot *out)
{
	out->info = *info;
	out->pool_id = p->id;
	memcpy(out->pool_name, p->name, sizeof(out->pool_name));
	snprintf(out->volume_name, sizeof(out->volume_name), "%s", volume_name);
}

/* What a change left behind, read again. It may be gone again already: then that is the answer. */
static int volume_reread(struct node_pool *p, int err, const struct uuid *id, struct node_volume *out,
			 struct node_why *why)
{
	struct volume_info info;
	if (err)
		return pool_leave(p, err);
	err = volume_get(p->pool, id, &info);
	if (err)
		why_failed(why, err, "the volume was deleted meanwhile");
	else
		volume_out(p, &info, out);
	node_volumes_changed(p->node);
	return pool_leave(p, err);
}

static int snapshot_reread(struct node_pool *p, int err, const struct uuid *id, struct node_snapshot *out,
			   struct node_why *why)
{
	struct snapshot_info info;
	struct volume_info volume = {.name = ""};
	if (err)
		return pool_leave(p, err);
	err = snapshot_get(p->pool, id, &info);
	if (!err)
		err = volume_get(p->pool, &info.volume_id, &volume);
	if (err)
		why_failed(why, err, "the snapshot was deleted meanwhile");
	else
		snapshot_out(p, &info, volume.name, out);
	return pool_leave(p, err);
}

void node_volume_nqn(const struct uuid *volume_id, char nqn[NODE_NQN_SIZE])
{
	static_assert(NODE_NQN_SIZE == NVMF_NQN_SIZE, "a name's field");
	nvmf_volume_nqn(volume_id, nqn);
}

void node_snapshot_nqn(const struct uuid *snapshot_id, char nqn[NODE_NQN_SIZE])
{
	nvmf_snapshot_nqn(snapshot_id, nqn);
}

/* ---- volumes --------------------------------------------------------------------------------------------------------- */

static struct node_pool *pool_for_create(struct node *n, const char *pool_ref, int *err, struct node_why *why)
{
	if (*pool_ref)
		return pool_by_ref(n, pool_ref, err, why);
	if (!list_empty(&n->pools) && n->pools.next == n->pools.prev)
		return list_first(&n->pools, struct node_pool, link);
	if (list_empty(&n->pools)) {
		*err = why_set(why, OXE_NOENT, "there is no pool yet");
		why_hint(why, "make one: oxbow pool create PATH --name NAME --size 10G");
	} else {
		*err = why_set(why, OXE_INVAL, "there are several pools: say which");
		why_hint(why, "add --pool POOL; 'oxbow pool list' shows them");
	}
	return NULL;
}

static int name_check(const char *name, struct node_why *why)
{
	if (pool_name_check(name) == 0)
		return 0;
	return why_set(why, OXE_INVAL,
		       "\"%.80s\" is no name: 1 to %u of [A-Za-z0-9._-], not starting with . or -", name,
		       POOL_NAME_MAX);
}

static int size_check(uint64_t size_bytes, struct node_why *why)
{
	if (size_bytes >= VOLUME_SIZE_MIN && size_bytes <= VOLUME_SIZE_MAX &&
	    u64_is_aligned(size_bytes, POOL_BLOCK_BYTES))
		return 0;
	return why_set(why, OXE_INVAL, "%llu is no volume size: a multiple of 4096, up to 128 TiB",
		       (unsigned long long)size_bytes);
}

int volume_spec_check(const struct volume_spec *spec, struct node_why *why)
{
	int err = name_check(spec->name, why);
	return err ? err : size_check(spec->size_bytes, why);
}

static int not_a_mirrored_name(struct node *n, const char *name, struct node_why *why)
{
	if (!facts_volume_named(&n->meta.facts, name))
		return 0;
	why_set(why, OXE_EXISTS, "there is a mirrored volume \"%s\"", name);
	why_hint(why, "choose another name: a mirrored volume is known by it alone");
	return OXE_EXISTS;
}

int node_volume_create(struct node *n, const char *pool_ref, const struct volume_spec *spec, bool *created,
		       struct node_volume *out, struct node_why *why)
{
	struct volume_info before;
	int err = volume_spec_check(spec, why);
	if (!err)
		err = not_a_mirrored_name(n, spec->name, why);
	if (err)
		return err;
	struct node_pool *p = pool_for_create(n, pool_ref, &err, why);
	if (p)
		err = pool_enter(p, why);
	if (err)
		return err;
	*created = volume_get(p->pool, &spec->id, &before) != 0;
	err = volume_create(p->pool, spec);
	if (!err && *created)
		LOG_INFO("volume.created", "a volume was created", F_UUID("volume", &spec->id),
			 F_STR("volume_name", spec->name), F_UUID("pool", &p->id),
			 F_U64("size_bytes", spec->size_bytes));
	why_failed(why, err, "cannot create the volume \"%s\"", spec->name);
	return volume_reread(p, err, &spec->id, out, why);
}

int node_volume_clone(struct node *n, const char *snapshot_ref, const struct volume_spec *spec,
		      bool full_copy, bool *created, struct node_volume *out, struct node_why *why)
{
	struct found f;
	struct volume_info before;
	int err = name_check(spec->name, why);
	if (!err && spec->size_bytes)
		err = size_check(spec->size_bytes, why);
	if (!err && mirrored_has_snapshot(n, snapshot_ref))
		err = mirrored_cannot(snapshot_ref, "cloned", why);
	if (!err)
		err = not_a_mirrored_name(n, spec->name, why);
	if (!err)
		err = snapshot_enter(n, snapshot_ref, &f, why);
	if (err)
		return err;
	*created = volume_get(f.p->pool, &spec->id, &before) != 0;
	err = volume_clone(f.p->pool, spec, &f.snapshot.id, full_copy);
	if (!err && *created)
		LOG_INFO("volume.cloned", "a volume was cloned from a snapshot", F_UUID("volume", &spec->id),
			 F_STR("volume_name", spec->name), F_UUID("snapshot", &f.snapshot.id),
			 F_UUID("pool", &f.p->id));
	why_failed(why, err, "cannot clone \"%s\" as \"%s\"", snapshot_ref, spec->name);
	return volume_reread(f.p, err, &spec->id, out, why);
}

int node_volume_get(struct node *n, const char *ref, struct node_volume *out, struct node_why *why)
{
	struct found f;
	struct uuid id;
	int err = mirrored_find_ref(n, ref, &id, why);
	if (err != OXE_NOENT)
		return err ? err : mirrored_get(n, &id, out, why);
	err = find_volume(n, ref, &f, why);
	if (!err)
		volume_out(f.p, &f.volume, out);
	return err;
}

static int volume_change(const struct found *f, const char *name, uint64_t size_bytes, struct node_why *why)
{
	int err = 0;
	if (name) {
		err = volume_rename(f->p->pool, &f->volume.id, name);
		why_failed(why, err, "cannot rename \"%s\" to \"%s\"", f->volume.name, name);
	}
	if (!err && size_bytes && size_bytes < f->volume.size_bytes)
		err = why_set(why, OXE_INVAL, "a volume only grows, and \"%s\" has %llu bytes",
			      f->volume.name, (unsigned long long)f->volume.size_bytes);
	else if (!err && size_bytes)
		err = why_failed(why, volume_grow(f->p->pool, &f->volume.id, size_bytes),
				 "cannot grow \"%s\" to %llu bytes", f->volume.name,
				 (unsigned long long)size_bytes);
	if (!err)
		LOG_INFO("volume.changed", "a volume was renamed or grown", F_UUID("volume", &f->volume.id),
			 F_STR("volume_name", name ? name : f->volume.name), F_U64("size_bytes", size_bytes));
	return err;
}

static int mirrored_change(struct node *n, const struct uuid *id, const char *name, uint64_t size_bytes,
			   struct node_volume *out, struct node_why *why)
{
	int err = name ? mirrored_rename(n, id, name, why) : 0;
	if (!err && size_bytes)
		err = mirrored_grow(n, id, size_bytes, why);
	return err ? err : mirrored_get(n, id, out, why);
}

int node_volume_change(struct node *n, const char *ref, const char *name, uint64_t size_bytes,
		       struct node_volume *out, struct node_why *why)
{
	struct found f;
	struct uuid id;
	int err = name ? name_check(name, why) : 0;
	if (!err && size_bytes)
		err = size_check(size_bytes, why);
	if (err)
		return err;
	err = mirrored_find_ref(n, ref, &id, why);
	if (err != OXE_NOENT)
		return err ? err : mirrored_change(n, &id, name, size_bytes, out, why);
	err = name ? not_a_mirrored_name(n, name, why) : 0;
	if (!err)
		err = volume_enter(n, ref, &f, why);
	if (err)
		return err;
	err = volume_change(&f, name, size_bytes, why);
	if (!err && size_bytes)
		ublk_grown(n, &f.volume.id);
	return volume_reread(f.p, err, &f.volume.id, out, why);
}

typedef int enter_fn(struct node *n, const char *text, struct found *out, struct node_why *why);

/* Enter for deleting. By id, what is not there (and cannot be in a pool that is not open) is deleted already: *gone. */
static int delete_enter(struct node *n, const char *ref, enter_fn *enter, struct found *out, bool *gone,
			struct node_why *why)
{
	struct uuid id;
	int err = find_any(n, ref, out, why);
	*gone = err == OXE_NOENT && uuid_parse(ref, &id) == 0;
	if (*gone)
		return 0;
	return err ? err : enter(n, ref, out, why);
}

int node_volume_delete(struct node *n, const char *ref, struct node_why *why)
{
	struct found f;
	struct uuid id;
	bool gone;
	int err = mirrored_find_ref(n, ref, &id, why);
	if (err != OXE_NOENT)
		return err ? err : mirrored_delete(n, &id, why);
	err = delete_enter(n, ref, volume_enter, &f, &gone, why);
	if (err || gone)
		return err;
	err = volume_delete(f.p->pool, &f.volume.id);
	if (!err)
		LOG_INFO("volume.deleted", "a volume was deleted", F_UUID("volume", &f.volume.id),
			 F_STR("volume_name", f.volume.name), F_UUID("pool", &f.p->id));
	node_volumes_changed(n);
	return pool_leave(f.p, why_failed(why, err, "cannot delete the volume \"%s\"", f.volume.name));
}

int node_volume_flatten(struct node *n, const char *ref, bool start, struct node_volume *out,
			struct node_why *why)
{
	struct found f;
	if (mirrored_by_ref(n, ref))
		return mirrored_cannot(ref, "flattened", why);
	int err = volume_enter(n, ref, &f, why);
	if (err)
		return err;
	err = volume_flatten(f.p->pool, &f.volume.id, start);
	if (!err)
		LOG_INFO("volume.flatten", start ? "copying what a clone shares" : "flattening was cancelled",
			 F_UUID("volume", &f.volume.id), F_STR("volume_name", f.volume.name));
	why_failed(why, err, "cannot flatten the volume \"%s\"", f.volume.name);
	return volume_reread(f.p, err, &f.volume.id, out, why);
}

int node_volume_revert(struct node *n, const char *ref, const char *snapshot, const struct uuid *head_id,
		       struct node_volume *out, struct node_why *why)
{
	struct found f;
	struct uuid snapshot_id, id;
	int err = mirrored_find_ref(n, ref, &id, why);
	if (!err)
		err = mirrored_revert(n, &id, snapshot, head_id, why);
	if (err != OXE_NOENT || mirrored_by_ref(n, ref))
		return err ? err : mirrored_get(n, &id, out, why);
	err = find_volume(n, ref, &f, why);
	if (!err)
		err = find_snapshot_of(n, &f, snapshot, &snapshot_id, why);
	if (!err)
		err = pool_enter(f.p, why);
	if (err)
		return err;
	err = volume_revert(f.p->pool, &f.volume.id, &snapshot_id, head_id);
	if (!err)
		LOG_INFO("volume.reverted", "a volume was reverted to a snapshot",
			 F_UUID("volume", &f.volume.id), F_STR("volume_name", f.volume.name),
			 F_UUID("snapshot", &snapshot_id), F_UUID("head", head_id));
	why_failed(why, err, "cannot revert \"%s\" to \"%.80s\"", f.volume.name, snapshot);
	return volume_reread(f.p, err, &f.volume.id, out, why);
}

struct volume_walk {
	struct node_pool *p;
	bool (*fn)(void *ctx, const struct node_volume *v);
	void *ctx;
	bool stopped;
};

static bool volume_walked(void *ctx, const struct volume_info *info)
{
	struct volume_walk *w = ctx;
	struct node_volume v;
	volume_out(w->p, info, &v);
	w->stopped = !w->fn(w->ctx, &v);
	return !w->stopped;
}

int node_volume_walk(struct node *n, const char *pool_ref, bool (*fn)(void *ctx, const struct node_volume *v),
		     void *ctx, struct node_why *why)
{
	struct volume_walk w = {.fn = fn, .ctx = ctx};
	struct node_pool *only = NULL;
	int err = 0;
	if (*pool_ref && !(only = pool_by_ref(n, pool_ref, &err, why)))
		return err;
	list_for_each (w.p, &n->pools, link) {
		if (!w.stopped && pool_matches(w.p, pool_ref) && pool_is_open(w.p))
			volume_walk(w.p->pool, volume_walked, &w);
	}
	if (!w.stopped)
		mirrored_walk(n, only ? &only->id : NULL, fn, ctx);
	return 0;
}

/* ---- extents --------------------------------------------------------------------------------------------------------- */

static int extents_range(uint64_t size_bytes, uint64_t offset_bytes, uint64_t *len_bytes,
			 struct node_why *why)
{
	if (offset_bytes <= size_bytes) {
		*len_bytes = u64_min(*len_bytes, size_bytes - offset_bytes);
		return 0;
	}
	return why_set(why, OXE_RANGE, "offset %llu lies behind the end, %llu",
		       (unsigned long long)offset_bytes, (unsigned long long)size_bytes);
}

int node_extents(struct node *n, const char *ref, const char *since, uint64_t offset_bytes,
		 uint64_t len_bytes, struct vol_extent *extents, size_t max_extents, size_t *extent_count,
		 uint64_t *end_bytes, struct node_why *why)
{
	struct found f;
	struct uuid since_id;
	struct vol *vol;
	*extent_count = 0;
	if (mirrored_by_ref(n, ref) || mirrored_has_snapshot(n, ref))
		return mirrored_extents(n, ref, since, offset_bytes, len_bytes, extents, max_extents,
					extent_count, end_bytes, why);
	int err = find_any(n, ref, &f, why);
	if (!err && *since)
		err = find_snapshot_of(n, &f, since, &since_id, why);
	if (!err)
		err = extents_range(f.is_snapshot ? f.snapshot.size_bytes : f.volume.size_bytes, offset_bytes,
				    &len_bytes, why);
	if (!err)
		err = pool_enter(f.p, why);
	if (err)
		return err;
	*end_bytes = offset_bytes + len_bytes;
	err = vol_open(f.p->pool, f.is_snapshot ? &f.snapshot.id : &f.volume.id, &vol);
	if (!err) {
		if (len_bytes)
			err = vol_extents(vol, *since ? &since_id : NULL, offset_bytes, len_bytes, extents,
					  max_extents, extent_count);
		vol_close(vol);
	}
	if (!err && *extent_count)
		*end_bytes = extents[*extent_count - 1].offset_bytes + extents[*extent_count - 1].len_bytes;
	why_failed(why, err, "cannot list the extents of \"%s\"", ref);
	if (err == OXE_NOENT && *since)
		why_hint(why,
			 "'since' must be a snapshot below it in its own chain: 'oxbow snapshot list %s'",
			 f.volume.name);
	return pool_leave(f.p, err);
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------- */

int node_snapshot_create(struct node *n, const char *volume_ref, const struct uuid *id, const char *name,
			 bool *created, uint64_t *pause_ns, struct node_snapshot *out, struct node_why *why)
{
	struct found f;
	struct snapshot_info before;
	struct uuid volume_id;
	*pause_ns = 0;
	int err = name_check(name, why);
	if (err)
		return err;
	err = mirrored_find_ref(n, volume_ref, &volume_id, why);
	if (err != OXE_NOENT)
		return err ? err
			   : mirrored_snapshot_create(n, &volume_id, id, name, created, pause_ns, out, why);
	err = volume_enter(n, volume_ref, &f, why);
	if (err)
		return err;
	*created = snapshot_get(f.p->pool, id, &before) != 0;
	err = snapshot_create(f.p->pool, &f.volume.id, id, name, pause_ns);
	if (!err && *created)
		LOG_INFO("snapshot.created", "a snapshot was taken", F_UUID("snapshot", id),
			 F_STR("snapshot_name", name), F_UUID("volume", &f.volume.id),
			 F_STR("volume_name", f.volume.name), F_U64("pause_us", *pause_ns / NS_PER_US));
	why_failed(why, err, "cannot take the snapshot \"%s@%s\"", f.volume.name, name);
	return snapshot_reread(f.p, err, id, out, why);
}

int node_snapshot_get(struct node *n, const char *ref, struct node_snapshot *out, struct node_why *why)
{
	struct found f;
	if (mirrored_has_snapshot(n, ref))
		return mirrored_snapshot_get(n, ref, out, why);
	int err = find_snapshot(n, ref, &f, why);
	if (!err)
		snapshot_out(f.p, &f.snapshot, f.volume.name, out);
	return err;
}

int node_snapshot_rename(struct node *n, const char *ref, const char *name, struct node_snapshot *out,
			 struct node_why *why)
{
	struct found f;
	int err = name_check(name, why);
	if (!err && mirrored_has_snapshot(n, ref))
		return mirrored_snapshot_rename(n, ref, name, out, why);
	if (!err)
		err = snapshot_enter(n, ref, &f, why);
	if (err)
		return err;
	err = snapshot_rename(f.p->pool, &f.snapshot.id, name);
	if (!err)
		LOG_INFO("snapshot.renamed", "a snapshot was renamed", F_UUID("snapshot", &f.snapshot.id),
			 F_STR("snapshot_name", name), F_STR("old_name", f.snapshot.name));
	why_failed(why, err, "cannot rename the snapshot \"%s\"", ref);
	return snapshot_reread(f.p, err, &f.snapshot.id, out, why);
}

int node_snapshot_delete(struct node *n, const char *ref, struct node_why *why)
{
	struct found f;
	bool gone;
	if (mirrored_has_snapshot(n, ref))
		return mirrored_snapshot_delete(n, ref, why);
	int err = delete_enter(n, ref, snapshot_enter, &f, &gone, why);
	if (err || gone)
		return err;
	err = snapshot_delete(f.p->pool, &f.snapshot.id);
	if (!err)
		LOG_INFO("snapshot.deleted", "a snapshot was deleted; its layer is merged in the background",
			 F_UUID("snapshot", &f.snapshot.id), F_STR("snapshot_name", f.snapshot.name),
			 F_UUID("volume", &f.volume.id), F_STR("volume_name", f.volume.name));
	return pool_leave(f.p, why_failed(why, err, "cannot delete the snapshot \"%s\"", ref));
}

int node_snapshot_usage(struct node *n, const char *ref, struct node_snapshot *out,
			struct snapshot_usage *usage, struct node_why *why)
{
	struct found f;
	if (mirrored_has_snapshot(n, ref))
		return mirrored_cannot(ref, "counted", why);
	int err = snapshot_enter(n, ref, &f, why);
	if (err)
		return err;
	err = snapshot_usage(f.p->pool, &f.snapshot.id, usage);
	why_failed(why, err, "cannot count what \"%s\" uses", ref);
	return snapshot_reread(f.p, err, &f.snapshot.id, out, why);
}

struct snapshot_walk {
	struct node_pool *p;
	char volume_name[POOL_NAME_MAX + 1];
	bool (*fn)(void *ctx, const struct node_snapshot *s);
	void *ctx;
	bool stopped;
};

static bool snapshot_walked(void *ctx, const struct snapshot_info *info)
{
	struct snapshot_walk *w = ctx;
	struct node_snapshot s;
	snapshot_out(w->p, info, w->volume_name, &s);
	w->stopped = !w->fn(w->ctx, &s);
	return !w->stopped;
}

static bool snapshots_of_volume(void *ctx, const struct volume_info *info)
{
	struct snapshot_walk *w = ctx;
	memcpy(w->volume_name, info->name, sizeof(w->volume_name));
	if (info->snapshot_count)
		snapshot_walk(w->p->pool, &info->id, snapshot_walked, w);
	return !w->stopped;
}

int node_snapshot_walk(struct node *n, const char *volume_ref,
		       bool (*fn)(void *ctx, const struct node_snapshot *s), void *ctx, struct node_why *why)
{
	struct snapshot_walk w = {.fn = fn, .ctx = ctx};
	struct found f;
	struct uuid id;
	int err = *volume_ref ? mirrored_find_ref(n, volume_ref, &id, why) : OXE_NOENT;
	if (err != OXE_NOENT) {
		if (!err)
			mirrored_snapshot_walk(n, &id, fn, ctx);
		return err;
	}
	if (*volume_ref) {
		err = find_volume(n, volume_ref, &f, why);
		w.p = err ? NULL : f.p;
		if (!err)
			snapshots_of_volume(&w, &f.volume);
		return err;
	}
	list_for_each (w.p, &n->pools, link) {
		if (!w.stopped && pool_is_open(w.p))
			volume_walk(w.p->pool, snapshots_of_volume, &w);
	}
	if (!w.stopped)
		mirrored_snapshot_walk(n, NULL, fn, ctx);
	return 0;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------------ */

struct job_walk {
	const struct node_pool *p;
	bool (*fn)(void *ctx, const struct node_job *j);
	void *ctx;
	bool stopped;
};

static bool job_walked(void *ctx, const struct pool_job *info)
{
	struct job_walk *w = ctx;
	struct node_job job = {.info = *info, .pool_id = w->p->id};
	memcpy(job.pool_name, w->p->name, sizeof(job.pool_name));
	w->stopped = !w->fn(w->ctx, &job);
	return !w->stopped;
}

void node_job_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_job *j), void *ctx)
{
	struct job_walk w = {.fn = fn, .ctx = ctx};
	struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		w.p = p;
		if (!w.stopped && pool_is_open(p))
			pool_job_walk(p->pool, job_walked, &w);
	}
}

struct job_search {
	const struct uuid *id;
	struct node_job *out;
	bool found;
};

static bool job_matched(void *ctx, const struct node_job *j)
{
	struct job_search *s = ctx;
	s->found = uuid_equal(&j->info.id, s->id);
	if (s->found)
		*s->out = *j;
	return !s->found;
}

static bool all_pools_open(const struct node *n)
{
	struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		if (!pool_is_open(p))
			return false;
	}
	return n->list_is_known;
}

int node_job_get(const struct node *n, const struct uuid *id, struct node_job *out, struct node_why *why)
{
	struct job_search s = {.id = id, .out = out};
	char text[UUID_TEXT_LEN + 1];
	node_job_walk(n, job_matched, &s);
	if (s.found)
		return 0;
	if (!all_pools_open(n))
		return why_set(why, OXE_NOTREADY, "the job %s may be in a pool that is not open",
			       uuid_format(id, text));
	why_set(why, OXE_NOENT, "there is no job %s: it has ended, or never was", uuid_format(id, text));
	why_hint(why, "'oxbow job list' shows what is running");
	return OXE_NOENT;
}

int node_job_cancel(struct node *n, const struct uuid *id, struct node_why *why)
{
	struct node_job job;
	char text[UUID_TEXT_LEN + 1];
	int err = node_job_get(n, id, &job, why);
	if (err)
		return err;
	if (!job.info.is_cancellable) {
		why_set(why, OXE_UNSUPPORTED, "a %s cannot be cancelled: some data may have moved already",
			pool_job_kind_name(job.info.kind));
		why_hint(why, "slow it down instead: oxbow job throttle 10M");
		return OXE_UNSUPPORTED;
	}
	struct node_volume volume;
	return node_volume_flatten(n, uuid_format(id, text), false, &volume, why);
}

uint64_t node_job_rate(const struct node *n)
{
	return n->background_bytes_per_s;
}

int node_job_rate_set(struct node *n, uint64_t bytes_per_s, struct node_why *why)
{
	struct node_pool *p;
	fmutex_lock(&n->membership);
	uint64_t before = n->background_bytes_per_s;
	n->background_bytes_per_s = bytes_per_s;
	int err = node_state_save(n, why);
	if (err)
		n->background_bytes_per_s = before;
	list_for_each (p, &n->pools, link) {
		if (!err && pool_is_open(p))
			pool_set_background_rate(p->pool, bytes_per_s);
	}
	fmutex_unlock(&n->membership);
	if (!err)
		LOG_INFO("jobs.throttled", "the limit on background copying was set",
			 F_U64("bytes_per_s", bytes_per_s));
	return err;
}
