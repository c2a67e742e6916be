/* pool_double.c: see pool_double.h. A block is a hole until written; each block knows when it last changed. */
#include "data/engine/pool_double.h"

#include <stdio.h>

struct object { /* a volume or a snapshot */
	struct list link;
	struct object *volume; /* a snapshot's; NULL: it is a volume */
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes;
	uint32_t lba_bytes, opens;
	uint8_t *bytes;
	uint64_t *changed_at; /* per block; 0: a hole never written */
	bool *is_hole;
	uint64_t taken_at;
	uint8_t notes[POOL_NOTE_KINDS][POOL_NOTE_BYTES_MAX];
	uint32_t note_bytes[POOL_NOTE_KINDS];
};

struct pool {
	struct pool_ident ident;
	struct list objects;
	uint64_t clock, delay_ns, durable;
	uint32_t next_id;
	int fail;
};

struct vol {
	struct pool *pool;
	struct object *object;
	struct vol_info info;
};

struct pool *pool_double_new(const char *name)
{
	struct pool *p = mem_zalloc(sizeof(*p));
	snprintf(p->ident.name, sizeof(p->ident.name), "%s", name);
	list_init(&p->objects);
	p->clock = 1;
	return p;
}

static void object_free(struct object *o)
{
	list_del(&o->link);
	free(o->bytes);
	free(o->changed_at);
	free(o->is_hole);
	free(o);
}

void pool_double_free(struct pool *p)
{
	while (!list_empty(&p->objects))
		object_free(list_first(&p->objects, struct object, link));
	free(p);
}

static struct object *object_new(struct pool *p, const char *name, uint64_t size_bytes, uint32_t lba_bytes)
{
	struct object *o = mem_zalloc(sizeof(*o));
	uint64_t blocks = size_bytes / POOL_BLOCK_BYTES;
	snprintf(o->name, sizeof(o->name), "%s", name);
	p->next_id++;
	memcpy(o->id.b, &p->next_id, sizeof(p->next_id));
	memcpy(o->id.b + 4, p->ident.name, 8);
	o->size_bytes = size_bytes;
	o->lba_bytes = lba_bytes;
	o->bytes = mem_zalloc(size_bytes);
	o->changed_at = mem_zalloc(blocks * sizeof(uint64_t));
	o->is_hole = mem_alloc(blocks);
	memset(o->is_hole, true, blocks);
	list_add_tail(&p->objects, &o->link);
	return o;
}

static struct object *object_of(const struct pool *p, const struct uuid *id)
{
	struct object *o;
	list_for_each (o, &p->objects, link)
		if (uuid_equal(&o->id, id))
			return o;
	return NULL;
}

struct uuid pool_double_volume(struct pool *p, const char *name, uint64_t size_bytes, uint32_t lba_bytes)
{
	return object_new(p, name, size_bytes, lba_bytes)->id;
}

void pool_double_snapshot(struct pool *p, const struct uuid *volume_id, const char *name)
{
	struct object *v = object_of(p, volume_id);
	struct object *s = object_new(p, name, v->size_bytes, v->lba_bytes);
	uint64_t blocks = v->size_bytes / POOL_BLOCK_BYTES;
	s->volume = v;
	s->taken_at = p->clock++;
	memcpy(s->bytes, v->bytes, v->size_bytes);
	memcpy(s->changed_at, v->changed_at, blocks * sizeof(uint64_t));
	memcpy(s->is_hole, v->is_hole, blocks);
}

void pool_double_remove(struct pool *p, const struct uuid *id)
{
	object_free(object_of(p, id));
}

void pool_double_grow(struct pool *p, const struct uuid *id, uint64_t size_bytes)
{
	struct object *o = object_of(p, id);
	uint64_t before = o->size_bytes / POOL_BLOCK_BYTES, blocks = size_bytes / POOL_BLOCK_BYTES;
	assert(size_bytes >= o->size_bytes);
	o->bytes = mem_realloc(o->bytes, size_bytes);
	memset(o->bytes + o->size_bytes, 0, size_bytes - o->size_bytes);
	o->changed_at = mem_realloc(o->changed_at, blocks * sizeof(uint64_t));
	memset(o->changed_at + before, 0, (blocks - before) * sizeof(uint64_t));
	o->is_hole = mem_realloc(o->is_hole, blocks);
	memset(o->is_hole + before, true, blocks - before);
	o->size_bytes = size_bytes;
}

void pool_double_fail(struct pool *p, int err)
{
	p->fail = err;
}

uint64_t pool_double_durable(const struct pool *p)
{
	return p->durable;
}

void pool_double_delay(struct pool *p, uint64_t ns)
{
	p->delay_ns = ns;
}

/* ---- pool.h ------------------------------------------------------------------------------------------------------------ */

int pool_name_check(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	return n == 0 || name[n] || n > POOL_NAME_MAX || name[0] == '.' || name[0] == '-' ? OXE_INVAL : 0;
}

const struct pool_ident *pool_ident(const struct pool *p)
{
	return &p->ident;
}

static struct volume_info volume_info_of(const struct object *o)
{
	struct volume_info v = {
		.id = o->id, .size_bytes = o->size_bytes, .lba_bytes = o->lba_bytes, .snapshot_count = 1};
	memcpy(v.name, o->name, sizeof(v.name));
	return v;
}

static struct snapshot_info snapshot_info_of(const struct object *o)
{
	struct snapshot_info s = {.id = o->id, .volume_id = o->volume->id, .size_bytes = o->size_bytes};
	memcpy(s.name, o->name, sizeof(s.name));
	return s;
}

int volume_find(const struct pool *p, const char *name, struct volume_info *out)
{
	struct object *o;
	list_for_each (o, &p->objects, link) {
		if (!o->volume && strcmp(o->name, name) == 0) {
			*out = volume_info_of(o);
			return 0;
		}
	}
	return OXE_NOENT;
}

int volume_get(const struct pool *p, const struct uuid *id, struct volume_info *out)
{
	struct object *o = object_of(p, id);
	if (!o || o->volume)
		return OXE_NOENT;
	*out = volume_info_of(o);
	return 0;
}

int snapshot_find(const struct pool *p, const struct uuid *volume_id, const char *name,
		  struct snapshot_info *out)
{
	struct object *o;
	list_for_each (o, &p->objects, link) {
		if (o->volume && uuid_equal(&o->volume->id, volume_id) && strcmp(o->name, name) == 0) {
			*out = snapshot_info_of(o);
			return 0;
		}
	}
	return OXE_NOENT;
}

int snapshot_get(const struct pool *p, const struct uuid *id, struct snapshot_info *out)
{
	struct object *o = object_of(p, id);
	if (!o || !o->volume)
		return OXE_NOENT;
	*out = snapshot_info_of(o);
	return 0;
}

void volume_walk(const struct pool *p, bool (*fn)(void *ctx, const struct volume_info *v), void *ctx)
{
	struct object *o;
	list_for_each (o, &p->objects, link) {
		if (o->volume)
			continue;
		struct volume_info v = volume_info_of(o);
		if (!fn(ctx, &v))
			return;
	}
}

void snapshot_walk(const struct pool *p, const struct uuid *volume_id,
		   bool (*fn)(void *ctx, const struct snapshot_info *s), void *ctx)
{
	struct object *o;
	list_for_each (o, &p->objects, link) {
		if (!o->volume || !uuid_equal(&o->volume->id, volume_id))
			continue;
		struct snapshot_info s = snapshot_info_of(o);
		if (!fn(ctx, &s))
			return;
	}
}

int vol_open(struct pool *p, const struct uuid *id, struct vol **out)
{
	struct object *o = object_of(p, id);
	if (p->fail == OXE_FAILED)
		return OXE_FAILED;
	if (!o)
		return OXE_NOENT;
	fiber_yield();
	struct vol *v = mem_zalloc(sizeof(*v));
	v->pool = p;
	v->object = o;
	v->info = (struct vol_info){o->id, o->size_bytes, o->lba_bytes, o->volume != NULL};
	o->opens++;
	*out = v;
	return 0;
}

void vol_close(struct vol *v)
{
	fiber_yield();
	v->object->opens--;
	free(v);
}

const struct vol_info *vol_info(const struct vol *v)
{
	((struct vol *)v)->info.size_bytes = v->object->size_bytes; /* which may have grown */
	return &v->info;
}

static int begin(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t end;
	if (v->pool->delay_ns)
		fiber_sleep(v->pool->delay_ns);
	if (v->pool->fail)
		return v->pool->fail;
	if (!u64_add_checked(offset_bytes, len_bytes, &end) || end > v->object->size_bytes)
		return OXE_RANGE;
	return u64_is_aligned(offset_bytes | len_bytes, v->info.lba_bytes) ? 0 : OXE_ALIGN;
}

static void mark(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes, bool is_hole)
{
	for (uint64_t b = offset_bytes / 4096; len_bytes && b <= (offset_bytes + len_bytes - 1) / 4096; b++) {
		v->object->is_hole[b] = is_hole;
		v->object->changed_at[b] = v->pool->clock;
	}
}

int vol_read(struct vol *v, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	int err = begin(v, offset_bytes, len_bytes);
	if (err == 0 && len_bytes)
		memcpy(data, v->object->bytes + offset_bytes, len_bytes);
	return err;
}

int vol_write(struct vol *v, const void *data, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	assert(!v->info.read_only);
	v->pool->durable += (flags & VOL_FUA) != 0;
	int err = begin(v, offset_bytes, len_bytes);
	if (err || len_bytes == 0)
		return err;
	memcpy(v->object->bytes + offset_bytes, data, len_bytes);
	mark(v, offset_bytes, len_bytes, false);
	return 0;
}

static void zero_blocks(struct vol *v, uint64_t first, uint64_t end, bool is_hole)
{
	if (first >= end)
		return;
	memset(v->object->bytes + first, 0, end - first);
	mark(v, first, end - first, is_hole);
}

int vol_zero(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	v->pool->durable += (flags & VOL_FUA) != 0;
	int err = begin(v, offset_bytes, len_bytes);
	if (err || len_bytes == 0)
		return err;
	uint64_t end = offset_bytes + len_bytes;
	zero_blocks(v, offset_bytes, end, false);
	if (!(flags & VOL_NO_HOLE))
		zero_blocks(v, u64_align_up(offset_bytes, 4096), u64_align_down(end, 4096), true);
	return 0;
}

int vol_trim(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes)
{
	int err = begin(v, offset_bytes, len_bytes);
	if (err == 0)
		zero_blocks(v, u64_align_up(offset_bytes, 4096),
			    u64_align_down(offset_bytes + len_bytes, 4096), true);
	return err;
}

int vol_flush(struct vol *v)
{
	v->pool->durable++;
	return begin(v, 0, 0);
}

int vol_extents(struct vol *v, const struct uuid *since, uint64_t offset_bytes, uint64_t len_bytes,
		struct vol_extent *extents, size_t max_extents, size_t *extent_count)
{
	int err = begin(v, offset_bytes, len_bytes);
	const struct object *o = v->object, *s = since ? object_of(v->pool, since) : NULL;
	if (err || (since && (!s || s->volume != (o->volume ? o->volume : o) ||
			      (o->volume && s->taken_at >= o->taken_at))))
		return err ? err : OXE_NOENT;
	*extent_count = 0;
	for (uint64_t at = offset_bytes, end = offset_bytes + len_bytes; at < end;) {
		uint64_t next = u64_min(end, u64_align_down(at, 4096) + 4096);
		unsigned flags = o->is_hole[at / 4096] ? VOL_EXTENT_HOLE | VOL_EXTENT_ZERO : 0;
		if (s && o->changed_at[at / 4096] > s->taken_at)
			flags |= VOL_EXTENT_CHANGED;
		if (*extent_count > 0 && extents[*extent_count - 1].flags == flags)
			extents[*extent_count - 1].len_bytes += next - at;
		else if (*extent_count == max_extents)
			break;
		else
			extents[(*extent_count)++] = (struct vol_extent){at, next - at, flags};
		at = next;
	}
	return 0;
}

/* At once, whatever the delay: a note is a record in the journal, and may be done before writes that came earlier. */
int pool_note_set(struct pool *p, const struct uuid *volume_id, enum pool_note_kind kind, const void *data,
		  uint32_t len_bytes)
{
	struct object *o = object_of(p, volume_id);
	fiber_yield();
	if (p->fail)
		return p->fail;
	if (!o || o->volume)
		return OXE_NOENT;
	if (kind >= POOL_NOTE_KINDS || len_bytes > POOL_NOTE_BYTES_MAX)
		return OXE_INVAL;
	memcpy(o->notes[kind], data, len_bytes);
	o->note_bytes[kind] = len_bytes;
	return 0;
}

int pool_note_get(struct pool *p, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		  uint32_t *len_bytes)
{
	struct object *o = object_of(p, volume_id);
	fiber_yield();
	if (p->fail)
		return p->fail;
	if (!o || o->volume || kind >= POOL_NOTE_KINDS || o->note_bytes[kind] == 0)
		return OXE_NOENT;
	memcpy(data, o->notes[kind], o->note_bytes[kind]);
	*len_bytes = o->note_bytes[kind];
	return 0;
}
