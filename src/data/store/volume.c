/*
 * volume.c: control operations on volumes and snapshots. Each is one record (design idea 1).
 *
 * They run one at a time under pool->control, so what an operation checked is still so when it commits. Each first asks
 * whether it has been done already: the same id with the same facts is success.
 */
#include "base/log.h"
#include "data/store/flush.h"
#include "data/store/job.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

/* ---- helpers -------------------------------------------------------------------------------------------------------------------- */

static int control_enter(struct pool *pool)
{
	if (pool->options.read_only)
		return OXE_ROFS;
	fmutex_lock(&pool->control);
	int err = pool->failed ? OXE_FAILED : pool->closing ? OXE_SHUTDOWN : 0;
	if (err)
		fmutex_unlock(&pool->control);
	return err;
}

/* For what makes or names something: with part of the catalog lost nobody knows whether it is there already. */
static int control_enter_whole(struct pool *pool)
{
	int err = control_enter(pool);
	if (!err && catalog_is_damaged(pool->catalog)) {
		fmutex_unlock(&pool->control);
		return OXE_CORRUPT;
	}
	return err;
}

static int control_leave(struct pool *pool, int err)
{
	fmutex_unlock(&pool->control);
	return err;
}

static void name_put(uint8_t out[64], const char *name)
{
	memset(out, 0, 64);
	memcpy(out, name, strlen(name));
}

static bool id_is_taken(const struct pool *pool, const struct uuid *id)
{
	return uuid_is_nil(id) || catalog_volume_by_id(pool->catalog, id) ||
	       catalog_layer_by_id(pool->catalog, id);
}

static bool any_open(const struct volume *v)
{
	const struct layer *l;
	bool open = v->open_count > 0;
	list_for_each (l, &v->layers, in_volume)
		open = open || l->open_count > 0;
	return open;
}

/* ---- create and clone ----------------------------------------------------------------------------------------------------------- */

static int spec_check(const struct volume_spec *spec)
{
	if (uuid_is_nil(&spec->id))
		return OXE_INVAL;
	if (spec->size_bytes < VOLUME_SIZE_MIN || spec->size_bytes > VOLUME_SIZE_MAX ||
	    spec->size_bytes % POOL_BLOCK_BYTES)
		return OXE_INVAL;
	return spec->lba_bytes == 512 || spec->lba_bytes == 4096 ? 0 : OXE_INVAL;
}

/* 1: done before; 0: go on; OXE_EXISTS. */
static int created_before(struct pool *pool, const struct volume_spec *spec, const struct layer *parent)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, &spec->id);
	if (v) {
		bool same = strcmp(v->name, spec->name) == 0 && v->size_bytes == spec->size_bytes &&
			    v->lba_bytes == spec->lba_bytes;
		const struct layer *l = v->head;
		while (same && parent && l && l != parent)
			l = l->parent;
		/* A clone that has been flattened since has no parent to compare. */
		return same && (!parent || l || !(v->flags & VOLUME_FLATTEN)) ? 1 : OXE_EXISTS;
	}
	if (id_is_taken(pool, &spec->id) || catalog_volume_by_name(pool->catalog, spec->name))
		return OXE_EXISTS;
	return 0;
}

static int create_with_slots(struct pool *pool, const struct volume_spec *spec, const struct layer *parent,
			     uint32_t flags, uint32_t slot, uint32_t head_slot)
{
	struct uuid head_id = rt_random_uuid(pool->rt);
	struct record_volume_create r = {.head = {.type = RECORD_VOLUME_CREATE, .len_bytes = sizeof(r)},
					 .number = number_of(catalog_new_number(pool->catalog)),
					 .head_number = number_of(catalog_new_number(pool->catalog)),
					 .parent = number_of(parent ? parent->number : 0),
					 .slot = slot,
					 .head_slot = head_slot,
					 .size_bytes = number_of(spec->size_bytes),
					 .created_wall_ns = number_of(rt_wall_ns(pool->rt)),
					 .lba_bytes = spec->lba_bytes,
					 .flags = flags};
	memcpy(r.id, spec->id.b, sizeof(r.id));
	memcpy(r.head_id, head_id.b, sizeof(r.head_id));
	name_put(r.name, spec->name);
	return record_do(pool, &r.head, true);
}

static int create(struct pool *pool, const struct volume_spec *spec, const struct layer *parent,
		  uint32_t flags)
{
	uint32_t slot, head_slot;
	int err = space_admit_metadata(pool->space);
	if (!err)
		err = catalog_slot_take(pool->catalog, &slot);
	if (err)
		return err;
	err = catalog_slot_take(pool->catalog, &head_slot);
	if (err) {
		catalog_slot_give(pool->catalog, slot);
		return err;
	}
	err = create_with_slots(pool, spec, parent, flags, slot, head_slot);
	if (err && !pool->failed) { /* nothing was committed */
		catalog_slot_give(pool->catalog, slot);
		catalog_slot_give(pool->catalog, head_slot);
	}
	return err;
}

static int create_empty(struct pool *pool, const struct volume_spec *spec_in, uint32_t flags)
{
	struct volume_spec spec = *spec_in;
	spec.lba_bytes = spec.lba_bytes ? spec.lba_bytes : 512;
	int err = spec_check(&spec);
	if (!err)
		err = control_enter_whole(pool);
	if (err)
		return err;
	int before = created_before(pool, &spec, NULL);
	err = before ? (before > 0 ? 0 : before) : create(pool, &spec, NULL, flags);
	return control_leave(pool, err);
}

int volume_create(struct pool *pool, const struct volume_spec *spec)
{
	int err = pool_name_check(spec->name);
	return err ? err : create_empty(pool, spec, 0);
}

int volume_create_any(struct pool *pool, const struct volume_spec *spec)
{
	int err = pool_any_name_check(spec->name);
	return err ? err : create_empty(pool, spec, 0);
}

int volume_create_fresh(struct pool *pool, const struct volume_spec *spec)
{
	int err = pool_system_name_check(spec->name);
	return err ? err : create_empty(pool, spec, VOLUME_FRESH);
}

static int clone_locked(struct pool *pool, struct volume_spec *spec, const struct uuid *snapshot_id,
			bool full_copy)
{
	struct layer *parent = catalog_layer_by_id(pool->catalog, snapshot_id);
	if (!parent || !parent->named)
		return OXE_NOENT;
	spec->size_bytes = spec->size_bytes ? spec->size_bytes : parent->size_bytes;
	spec->lba_bytes = spec->lba_bytes ? spec->lba_bytes : parent->volume->lba_bytes;
	int err = spec->size_bytes < parent->size_bytes ? OXE_INVAL : spec_check(spec);
	if (err)
		return err;
	int before = created_before(pool, spec, parent);
	if (before)
		return before > 0 ? 0 : before;
	return create(pool, spec, parent, full_copy ? VOLUME_FLATTEN : 0);
}

int volume_clone(struct pool *pool, const struct volume_spec *spec_in, const struct uuid *snapshot_id,
		 bool full_copy)
{
	struct volume_spec spec = *spec_in;
	int err = pool_name_check(spec.name);
	if (!err)
		err = control_enter_whole(pool);
	if (err)
		return err;
	err = clone_locked(pool, &spec, snapshot_id, full_copy);
	jobs_kick(pool->jobs);
	return control_leave(pool, err);
}

/* ---- change --------------------------------------------------------------------------------------------------------------------- */

/* Flags that a job takes away meanwhile stay away. */
static int volume_set(struct pool *pool, const struct volume *v, const char *name, uint64_t size_bytes,
		      uint32_t more_flags, uint32_t less_flags)
{
	struct record_volume_set r = {.head = {.type = RECORD_VOLUME_SET, .len_bytes = sizeof(r)},
				      .number = number_of(v->number),
				      .size_bytes = number_of(size_bytes)};
	struct record_try t;
	name_put(r.name, name);
	int err = record_begin(pool, &r.head, &t);
	if (err)
		return err;
	r.flags = (v->flags | more_flags) & ~less_flags;
	return record_end(pool, &r.head, &t, !MUTANT(37));
}

int volume_flatten(struct pool *pool, const struct uuid *volume_id, bool start)
{
	int err = control_enter(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	if (!v)
		return control_leave(pool, catalog_absent(pool->catalog));
	bool has_below = !(v->flags & VOLUME_FRESH); /* else a graft might meet the end of the job */
	bool is_so = v->flags & VOLUME_FLATTEN, shall_be = start && has_below;
	if (is_so != shall_be)
		err = volume_set(pool, v, v->name, v->size_bytes, shall_be ? VOLUME_FLATTEN : 0,
				 shall_be ? 0 : VOLUME_FLATTEN);
	jobs_kick(pool->jobs);
	return control_leave(pool, err);
}

int volume_grow(struct pool *pool, const struct uuid *volume_id, uint64_t size_bytes)
{
	int err = control_enter(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	if (!v)
		err = catalog_absent(pool->catalog);
	else if (v->head->map.lost)
		err = OXE_CORRUPT;
	else if (size_bytes < v->size_bytes || size_bytes > VOLUME_SIZE_MAX || size_bytes % POOL_BLOCK_BYTES)
		err = OXE_INVAL;
	else if (size_bytes > v->size_bytes)
		err = volume_set(pool, v, v->name, size_bytes, 0, 0);
	return control_leave(pool, err);
}

int volume_shrink(struct pool *pool, const struct uuid *volume_id, uint64_t size_bytes)
{
	struct vol *vol;
	uint64_t old_bytes;
	int err = size_bytes < VOLUME_SIZE_MIN || size_bytes % POOL_BLOCK_BYTES ? OXE_INVAL : 0;
	if (!err)
		err = vol_open(pool, volume_id, &vol);
	if (err)
		return err;
	old_bytes = vol_info(vol)->size_bytes;
	if (!vol->volume)
		err = OXE_NOENT;
	else if (size_bytes < old_bytes)
		err = vol_zero(vol, size_bytes, old_bytes - size_bytes, 0);
	if (!err)
		err = control_enter(pool);
	if (!err) {
		struct volume *v = vol->volume;
		if (size_bytes < v->size_bytes)
			err = volume_set(pool, v, v->name, size_bytes, 0, 0);
		control_leave(pool, 0);
	}
	vol_close(vol);
	return err;
}

int volume_rename(struct pool *pool, const struct uuid *volume_id, const char *name)
{
	int err = pool_name_check(name);
	if (!err)
		err = control_enter_whole(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct volume *other = catalog_volume_by_name(pool->catalog, name);
	if (!v)
		err = OXE_NOENT;
	else if (other && other != v)
		err = OXE_EXISTS;
	else if (!other)
		err = volume_set(pool, v, name, v->size_bytes, 0, 0);
	return control_leave(pool, err);
}

/* Whoever opens something does not wait for control operations: what must not be open is looked at in one breath with the commit. */
static int end_unless(struct pool *pool, bool is_open, const struct record_head *record, struct record_try *t)
{
	if (!is_open)
		return record_end(pool, record, t, true);
	record_give_up(pool, t);
	return OXE_BUSY;
}

static int volume_delete_unless_open(struct pool *pool, const struct volume *v)
{
	struct record_volume_delete r = {.head = {.type = RECORD_VOLUME_DELETE, .len_bytes = sizeof(r)},
					 .number = number_of(v->number)};
	struct record_try t;
	int err = record_begin(pool, &r.head, &t);
	return err ? err : end_unless(pool, any_open(v), &r.head, &t);
}

int volume_delete(struct pool *pool, const struct uuid *volume_id)
{
	int err = control_enter(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	if (v)
		err = any_open(v) ? OXE_BUSY : volume_delete_unless_open(pool, v);
	else if (catalog_is_damaged(pool->catalog))
		err = OXE_CORRUPT;
	jobs_kick(pool->jobs); /* also when it was done before: asked again, a stuck job is tried again */
	return control_leave(pool, err);
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------------------ */

/* The pause: from closing the gate to opening it. Nothing in between waits for the device except writes already on their way. */
static uint64_t seal(struct pool *pool, struct volume *v, const struct record_snapshot *r, uint64_t *pause_ns)
{
	uint64_t begin_ns = rt_now_exact_ns(pool->rt);
	if (!MUTANT(4))
		gate_close(v);
	uint64_t seq = record_commit(pool, &r->head);
	gate_open(v);
	if (pause_ns)
		*pause_ns = rt_now_exact_ns(pool->rt) - begin_ns;
	return seq;
}

static int snapshot_with_slot(struct pool *pool, struct volume *v, const struct uuid *id, const char *name,
			      uint32_t slot, uint64_t *pause_ns)
{
	struct uuid head_id = rt_random_uuid(pool->rt);
	struct record_snapshot r = {.head = {.type = RECORD_SNAPSHOT, .len_bytes = sizeof(r)},
				    .volume = number_of(v->number),
				    .new_head = number_of(catalog_new_number(pool->catalog)),
				    .new_head_slot = slot,
				    .created_wall_ns = number_of(rt_wall_ns(pool->rt)),
				    .size_bytes = number_of(v->size_bytes)};
	memcpy(r.id, id->b, sizeof(r.id));
	memcpy(r.new_head_id, head_id.b, sizeof(r.new_head_id));
	name_put(r.name, name);
	struct journal_room room = journal_room_of(&r.head);
	int err = checkpoint_throttle(pool);
	if (!err)
		err = journal_reserve(pool->journal, room);
	if (err)
		return err;
	uint64_t seq = seal(pool, v, &r, pause_ns);
	journal_unreserve(pool->journal, (struct journal_room){.blocks = room.blocks});
	err = journal_wait(pool->journal, seq);
	return err ? err : flush_wait(pool->flush);
}

static int snapshot_locked(struct pool *pool, const struct uuid *volume_id, const struct uuid *id,
			   const char *name, uint64_t *pause_ns)
{
	uint32_t slot;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct layer *l = catalog_layer_by_id(pool->catalog, id);
	if (!v)
		return OXE_NOENT;
	if (l)
		return l->volume == v && l->named && strcmp(l->name, name) == 0 ? 0 : OXE_EXISTS;
	if (id_is_taken(pool, id) || catalog_snapshot_by_name(pool->catalog, v, name))
		return OXE_EXISTS;
	int err = space_admit_metadata(pool->space);
	if (!err)
		err = catalog_slot_take(pool->catalog, &slot);
	if (err)
		return err;
	err = snapshot_with_slot(pool, v, id, name, slot, pause_ns);
	if (err && !pool->failed)
		catalog_slot_give(pool->catalog, slot);
	return err;
}

int layer_seal(struct pool *pool, const struct uuid *volume_id, const struct uuid *layer_id, const char *name,
	       uint64_t *pause_ns)
{
	int err = pool_any_name_check(name);
	if (!err)
		err = control_enter_whole(pool);
	if (err)
		return err;
	return control_leave(pool, snapshot_locked(pool, volume_id, layer_id, name, pause_ns));
}

int snapshot_create(struct pool *pool, const struct uuid *volume_id, const struct uuid *snapshot_id,
		    const char *name, uint64_t *pause_ns)
{
	int err = pool_name_check(name);
	return err ? err : layer_seal(pool, volume_id, snapshot_id, name, pause_ns);
}

/* Without a name it is given back. */
static int layer_set_name(struct pool *pool, const struct layer *l, const char *name)
{
	struct record_layer_set r = {.head = {.type = RECORD_LAYER_SET, .len_bytes = sizeof(r)},
				     .number = number_of(l->number),
				     .flags = name ? LAYER_NAMED : 0};
	struct record_try t;
	name_put(r.name, name ? name : "");
	int err = record_begin(pool, &r.head, &t);
	return err ? err : end_unless(pool, !name && l->open_count > 0, &r.head, &t);
}

int snapshot_delete(struct pool *pool, const struct uuid *snapshot_id)
{
	int err = control_enter(pool);
	if (err)
		return err;
	struct layer *l = catalog_layer_by_id(pool->catalog, snapshot_id);
	if (l && l->named)
		err = l->open_count > 0 ? OXE_BUSY : layer_set_name(pool, l, NULL);
	else if (!l && catalog_is_damaged(pool->catalog))
		err = OXE_CORRUPT;
	jobs_kick(pool->jobs);
	return control_leave(pool, err);
}

int layer_rename(struct pool *pool, const struct uuid *layer_id, const char *name)
{
	int err = pool_any_name_check(name);
	if (!err)
		err = control_enter_whole(pool);
	if (err)
		return err;
	struct layer *l = catalog_layer_by_id(pool->catalog, layer_id);
	struct layer *other = l && l->named ? catalog_snapshot_by_name(pool->catalog, l->volume, name) : NULL;
	if (!l || !l->named)
		err = OXE_NOENT;
	else if (other && other != l)
		err = OXE_EXISTS;
	else if (!other)
		err = layer_set_name(pool, l, name);
	return control_leave(pool, err);
}

int snapshot_rename(struct pool *pool, const struct uuid *snapshot_id, const char *name)
{
	int err = pool_name_check(name);
	return err ? err : layer_rename(pool, snapshot_id, name);
}

static int revert_to(struct pool *pool, struct volume *v, const struct layer *l, const struct uuid *head_id)
{
	struct record_revert r = {.head = {.type = RECORD_REVERT, .len_bytes = sizeof(r)},
				  .volume = number_of(v->number),
				  .layer = number_of(l->number),
				  .new_head = number_of(catalog_new_number(pool->catalog))};
	struct record_try t;
	memcpy(r.new_head_id, head_id->b, sizeof(r.new_head_id));
	int err = catalog_slot_take(pool->catalog, &r.new_head_slot);
	if (err)
		return err;
	err = record_begin(pool, &r.head, &t);
	if (!err)
		err = end_unless(pool, v->open_count > 0, &r.head, &t);
	if (err && !pool->failed)
		catalog_slot_give(pool->catalog, r.new_head_slot);
	jobs_kick(pool->jobs);
	return err;
}

int volume_revert(struct pool *pool, const struct uuid *volume_id, const struct uuid *snapshot_id,
		  const struct uuid *head_id)
{
	int err = control_enter_whole(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct layer *l = catalog_layer_by_id(pool->catalog, snapshot_id);
	if (!v || !l || !l->named)
		err = OXE_NOENT;
	else if (uuid_equal(&v->head->id, head_id))
		err = 0;
	else if (l->volume != v)
		err = OXE_INVAL;
	else if (id_is_taken(pool, head_id))
		err = OXE_EXISTS;
	else if (v->open_count > 0)
		err = OXE_BUSY;
	else
		err = revert_to(pool, v, l, head_id);
	return control_leave(pool, err);
}

/* ---- grafts --------------------------------------------------------------------------------------------------------------------- */

static bool names_clash(const struct catalog *c, const struct volume *v, const struct volume *fresh)
{
	const struct layer *l;
	list_for_each (l, &fresh->layers, in_volume) {
		if (l->named && catalog_snapshot_by_name(c, v, l->name))
			return true;
	}
	return false;
}

/* No layer is smaller than what it stands on: what lies beyond its end would show when a volume upon it grows. */
static bool sizes_fit(const struct layer *base, const struct volume *fresh)
{
	const struct layer *l;
	list_for_each (l, &fresh->layers, in_volume) {
		if (l->named && l->size_bytes < base->size_bytes)
			return false;
	}
	return fresh->size_bytes >= base->size_bytes;
}

/* Does it define no block at all? */
static int layer_is_empty(struct layer *l)
{
	uint32_t index = 0, count;
	int err = l->cluster_count ? 0 : layer_next_run(l, &index, 1, &count);
	return err == OXE_NOENT ? 0 : err ? err : OXE_INVAL;
}

static int graft_check(struct pool *pool, struct volume *v, struct volume *fresh, const struct uuid *head_id)
{
	const struct layer *base = v->head->parent;
	if (v == fresh || !(fresh->flags & VOLUME_FRESH) || !uuid_equal(&fresh->head->id, head_id) ||
	    fresh->lba_bytes != v->lba_bytes)
		return OXE_INVAL;
	if (!base || base->volume != v || !base->named || !sizes_fit(base, fresh))
		return OXE_INVAL;
	if (names_clash(pool->catalog, v, fresh))
		return OXE_EXISTS;
	return v->open_count || fresh->open_count ? OXE_BUSY : layer_is_empty(v->head);
}

/* A layer of it may be merged into the next at any time: told in one breath with the commit. */
static void graft_tell(const struct volume *v, const struct volume *fresh, struct record_graft *r)
{
	const struct layer *root = fresh->head;
	while (root->parent)
		root = root->parent;
	r->base = number_of(v->head->parent->number);
	r->root = number_of(root->number);
	r->top = number_of(fresh->head->number);
	r->size_bytes = number_of(fresh->size_bytes);
}

static int graft(struct pool *pool, struct volume *v, struct volume *fresh)
{
	struct record_graft r = {.head = {.type = RECORD_GRAFT, .len_bytes = sizeof(r)},
				 .volume = number_of(v->number),
				 .fresh = number_of(fresh->number)};
	struct record_try t;
	int err = record_begin(pool, &r.head, &t);
	if (err)
		return err;
	if (v->open_count || fresh->open_count) { /* meanwhile */
		record_give_up(pool, &t);
		return OXE_BUSY;
	}
	graft_tell(v, fresh, &r);
	jobs_kick(pool->jobs); /* they look when this waits */
	return record_end(pool, &r.head, &t, !MUTANT(77));
}

int volume_graft(struct pool *pool, const struct uuid *volume_id, const struct uuid *fresh_id,
		 const struct uuid *head_id)
{
	int err = control_enter_whole(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct volume *fresh = catalog_volume_by_id(pool->catalog, fresh_id);
	if (v && uuid_equal(&v->head->id, head_id))
		return control_leave(pool, 0);
	if (!v || !fresh)
		return control_leave(pool, OXE_NOENT);
	gate_close(v); /* nothing is written into the head that was found empty */
	err = graft_check(pool, v, fresh, head_id);
	if (!err)
		err = graft(pool, v, fresh);
	gate_open(v);
	return control_leave(pool, err);
}

/* ---- notes ---------------------------------------------------------------------------------------------------------------------- */

static int note_page(struct volume *v, enum pool_note_kind kind, struct page **page)
{
	int err = page_get(&v->notes, 0, kind, false, page);
	if (err)
		return err;
	const struct note_disk *note = page_view(*page);
	if (le32_get(note->len_bytes) > 0)
		return 0;
	page_unpin(*page);
	return OXE_NOENT;
}

/* 1: it is so already. */
static int note_is(struct volume *v, enum pool_note_kind kind, const void *data, uint32_t len_bytes)
{
	struct page *page;
	int err = note_page(v, kind, &page);
	if (err)
		return err == OXE_NOENT ? len_bytes == 0 : err;
	const struct note_disk *note = page_view(page);
	bool same = le32_get(note->len_bytes) == len_bytes && memcmp(note->data, data, len_bytes) == 0;
	page_unpin(page);
	return same;
}

static int note_set(struct pool *pool, const struct volume *v, enum pool_note_kind kind, const void *data,
		    uint32_t len_bytes, bool admit, bool durable)
{
	size_t record_bytes = sizeof(struct record_note_set) + u64_align_up(len_bytes, 4);
	struct record_note_set *r = mem_zalloc(record_bytes);
	r->head = (struct record_head){.type = RECORD_NOTE_SET, .len_bytes = (uint16_t)record_bytes};
	r->volume = number_of(v->number);
	r->kind = (uint8_t)kind;
	r->len_bytes = (uint16_t)len_bytes;
	if (len_bytes)
		memcpy(r->data, data, len_bytes);
	int err = admit ? space_admit_metadata(pool->space) : 0;
	if (!err)
		err = record_do(pool, &r->head, durable);
	free(r);
	return err;
}

int pool_note_set(struct pool *pool, const struct uuid *volume_id, enum pool_note_kind kind, const void *data,
		  uint32_t len_bytes)
{
	static_assert((unsigned)POOL_NOTE_KINDS == NOTE_KINDS && POOL_NOTE_BYTES_MAX == NOTE_BYTES_MAX, "");
	if ((unsigned)kind >= NOTE_KINDS || len_bytes > NOTE_BYTES_MAX)
		return OXE_INVAL;
	int err = control_enter(pool);
	if (err)
		return err;
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	int is_so = v ? note_is(v, kind, data, len_bytes) : catalog_absent(pool->catalog);
	if (v && is_so == OXE_CORRUPT)
		is_so = 0; /* whatever it was, it is to be this */
	err = is_so > 0 ? 0
	      : is_so	? is_so
			: note_set(pool, v, kind, data, len_bytes, len_bytes > 0, !MUTANT(39));
	return control_leave(pool, err);
}

static void note_copy(struct page *page, void *data, uint32_t *len_bytes)
{
	const struct note_disk *note = page_view(page);
	*len_bytes = (uint32_t)u64_min(le32_get(note->len_bytes), NOTE_BYTES_MAX);
	memcpy(data, note->data, *len_bytes);
	page_unpin(page);
}

int pool_note_get(struct pool *pool, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		  uint32_t *len_bytes)
{
	struct page *page;
	if ((unsigned)kind >= NOTE_KINDS)
		return OXE_INVAL;
	fmutex_lock(&pool->control); /* the volume stays while its page is read */
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	int err = pool->failed ? OXE_FAILED : v ? note_page(v, kind, &page) : catalog_absent(pool->catalog);
	if (!err)
		note_copy(page, data, len_bytes);
	fmutex_unlock(&pool->control);
	return err;
}

static int vol_note_put(struct vol *vol, enum pool_note_kind kind, const void *data, uint32_t len_bytes)
{
	struct page *page;
	int before = note_page(vol->volume, kind, &page);
	if (!before)
		page_unpin(page);
	if (before && before != OXE_NOENT)
		return before;
	return note_set(vol->pool, vol->volume, kind, data, len_bytes, before && len_bytes, false);
}

/* The handle keeps the volume, and the gate makes it wait for a check: so it need not wait for control operations. */
int vol_note_set(struct vol *vol, enum pool_note_kind kind, const void *data, uint32_t len_bytes)
{
	if ((unsigned)kind >= NOTE_KINDS || len_bytes > NOTE_BYTES_MAX || !vol->volume)
		return OXE_INVAL;
	if (vol->info.read_only)
		return OXE_ROFS;
	if (vol->pool->failed)
		return OXE_FAILED;
	group_add(&vol->calls, 1);
	gate_enter(vol->volume);
	int err = vol_note_put(vol, kind, data, len_bytes);
	gate_leave(vol->volume);
	if (!err && !MUTANT(78))
		err = flush_wait(vol->pool->flush);
	group_done(&vol->calls);
	return err;
}

int vol_note_get(struct vol *vol, enum pool_note_kind kind, void *data, uint32_t *len_bytes)
{
	struct page *page;
	if ((unsigned)kind >= NOTE_KINDS || !vol->volume)
		return OXE_INVAL;
	group_add(&vol->calls, 1);
	int err = vol->pool->failed ? OXE_FAILED : note_page(vol->volume, kind, &page);
	if (!err)
		note_copy(page, data, len_bytes);
	group_done(&vol->calls);
	return err;
}

/* ---- looking -------------------------------------------------------------------------------------------------------------------- */

/* To users. */
static bool is_shown(const struct layer *l)
{
	return l && layer_is_snapshot(l);
}

static bool volume_is_shown(const struct volume *v)
{
	return v && !pool_name_is_system(v->name);
}

static void volume_describe(const struct volume *v, struct volume_info *out)
{
	const struct layer *origin = volume_origin(v);
	*out = (struct volume_info){.id = v->id,
				    .head_id = v->head->id,
				    .size_bytes = v->size_bytes,
				    .created_wall_ns = v->created_wall_ns,
				    .lba_bytes = v->lba_bytes,
				    .open_count = v->open_count,
				    .snapshot_count = v->snapshot_count,
				    .own_bytes = v->cluster_count * POOL_CLUSTER_BYTES,
				    .head_bytes = v->head->cluster_count * POOL_CLUSTER_BYTES,
				    .is_flattening = v->flags & VOLUME_FLATTEN};
	memcpy(out->name, v->name, sizeof(out->name));
	out->is_clone = origin && !origin->map.lost;
	if (out->is_clone)
		out->origin_id = origin->id;
	out->is_damaged = catalog_is_damaged(v->head->map.pool->catalog) && !volume_is_whole(v);
}

static void snapshot_describe(const struct layer *l, struct snapshot_info *out)
{
	*out = (struct snapshot_info){.id = l->id,
				      .volume_id = l->volume->id,
				      .size_bytes = l->size_bytes,
				      .created_wall_ns = l->created_wall_ns,
				      .own_bytes = l->cluster_count * POOL_CLUSTER_BYTES,
				      .child_count = l->child_count,
				      .open_count = l->open_count};
	memcpy(out->name, l->name, sizeof(out->name));
	if (l->parent)
		out->parent_id = l->parent->id;
}

int volume_find(const struct pool *pool, const char *name, struct volume_info *out)
{
	struct volume *v = catalog_volume_by_name(pool->catalog, name);
	if (!volume_is_shown(v))
		return catalog_absent(pool->catalog);
	volume_describe(v, out);
	return 0;
}

int volume_get(const struct pool *pool, const struct uuid *id, struct volume_info *out)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, id);
	if (!volume_is_shown(v))
		return catalog_absent(pool->catalog);
	volume_describe(v, out);
	return 0;
}

int volume_get_any(const struct pool *pool, const struct uuid *id, struct volume_info *out)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, id);
	if (!v)
		return catalog_absent(pool->catalog);
	volume_describe(v, out);
	return 0;
}

int snapshot_find(const struct pool *pool, const struct uuid *volume_id, const char *name,
		  struct snapshot_info *out)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct layer *l = v ? catalog_snapshot_by_name(pool->catalog, v, name) : NULL;
	if (!is_shown(l))
		return catalog_absent(pool->catalog);
	snapshot_describe(l, out);
	return 0;
}

int layer_get_any(const struct pool *pool, const struct uuid *id, struct snapshot_info *out)
{
	struct layer *l = catalog_layer_by_id(pool->catalog, id);
	if (!l || !l->named)
		return catalog_absent(pool->catalog);
	snapshot_describe(l, out);
	return 0;
}

int snapshot_get(const struct pool *pool, const struct uuid *id, struct snapshot_info *out)
{
	return is_shown(catalog_layer_by_id(pool->catalog, id)) ? layer_get_any(pool, id, out)
								: catalog_absent(pool->catalog);
}

void volume_walk(const struct pool *pool, bool (*fn)(void *ctx, const struct volume_info *v), void *ctx)
{
	struct volume *v;
	list_for_each (v, catalog_volumes(pool->catalog), age) {
		struct volume_info info;
		if (!volume_is_shown(v))
			continue;
		volume_describe(v, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void volume_walk_any(const struct pool *pool, bool (*fn)(void *ctx, const struct volume_info *v), void *ctx)
{
	struct volume *v;
	list_for_each (v, catalog_volumes(pool->catalog), age) {
		struct volume_info info;
		volume_describe(v, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void snapshot_walk(const struct pool *pool, const struct uuid *volume_id,
		   bool (*fn)(void *ctx, const struct snapshot_info *s), void *ctx)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	struct layer *l;
	if (!v)
		return;
	list_for_each (l, &v->layers, in_volume) {
		struct snapshot_info info;
		if (!is_shown(l))
			continue;
		snapshot_describe(l, &info);
		if (!fn(ctx, &info))
			return;
	}
}

/* The named layers of the chain from the head down; NULL if something of it is lost. */
static const struct layer **chain_of(const struct volume *v, uint32_t *count)
{
	const struct layer **chain = NULL;
	uint32_t capacity = 0;
	*count = 0;
	for (const struct layer *l = v->head->map.lost ? v->head : v->head->parent; l; l = l->parent) {
		if (l->map.lost) {
			free(chain);
			return NULL;
		}
		if (*count == capacity) {
			capacity = capacity ? 2 * capacity : 64;
			chain = mem_realloc(chain, capacity * sizeof(*chain));
		}
		chain[*count] = l;
		*count += l->named;
	}
	return chain ? chain : mem_alloc(sizeof(*chain));
}

int volume_chain(const struct pool *pool, const struct uuid *volume_id,
		 bool (*fn)(void *ctx, const struct layer_info *l), void *ctx)
{
	struct volume *v = catalog_volume_by_id(pool->catalog, volume_id);
	uint32_t count;
	if (!v)
		return catalog_absent(pool->catalog);
	const struct layer **chain = chain_of(v, &count);
	if (!chain)
		return OXE_CORRUPT;
	while (count > 0) {
		const struct layer *l = chain[--count];
		struct layer_info info = {
			.id = l->id, .size_bytes = l->size_bytes, .is_origins = l->volume != v};
		memcpy(info.name, l->name, sizeof(info.name));
		if (!fn(ctx, &info))
			break;
	}
	free(chain);
	return 0;
}
