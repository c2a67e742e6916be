/*
 * engine.c: see engine.h. One volume or snapshot, opened once however many frontends serve it, counted and timed.
 *
 * An engine is known by the id of what it serves, so a rename changes nothing. Opening and closing are serialised by one
 * mutex: two clients that arrive together share one handle, and none sees a handle that is half open or half closed.
 */
#include "data/engine/engine.h"

#include "data/engine/engine_internal.h"

#include <stdio.h>

#define IN_FLIGHT_MAX                                                                                        \
	1024 /* calls of one engine; the next waits its turn, and with it whoever reads the client's socket */

/* ---- the set of pools ----------------------------------------------------------------------------------------------- */

struct engines *engines_new(struct rt *rt)
{
	struct engines *set = mem_zalloc(sizeof(*set));
	set->rt = rt;
	list_init(&set->pools);
	list_init(&set->open);
	list_init(&set->records);
	fmutex_init(&set->opening);
	return set;
}

void engines_free(struct engines *set)
{
	assert(list_empty(&set->open));
	engine_records_free(set, NULL);
	struct engine_pool *p;
	while ((p = list_pop(&set->pools, struct engine_pool, link)))
		free(p);
	free(set);
}

void engines_add_pool(struct engines *set, struct pool *pool)
{
	struct engine_pool *p = mem_zalloc(sizeof(*p));
	p->pool = pool;
	list_add_tail(&set->pools, &p->link);
}

static bool pool_is_open(const struct engines *set, const struct pool *pool)
{
	const struct engine *e;
	list_for_each (e, &set->open, link)
		if (e->pool == pool)
			return true;
	return false;
}

int engines_remove_pool(struct engines *set, struct pool *pool)
{
	/* The mutex's holder may be about to open one. */
	if (set->opening.holder || pool_is_open(set, pool))
		return OXE_BUSY;
	engine_records_free(set, pool);
	struct engine_pool *p, *tmp;
	list_for_each_safe (p, tmp, &set->pools, link) {
		if (p->pool == pool) {
			list_del(&p->link);
			free(p);
		}
	}
	return 0;
}

/* ---- open and close --------------------------------------------------------------------------------------------------- */

static struct engine *find_open(struct engines *set, const struct engine_target *target)
{
	struct engine *e;
	list_for_each (e, &set->open, link)
		if (e->pool == target->pool && uuid_equal(&e->id, &target->id))
			return e;
	return NULL;
}

static int open_new(struct engines *set, const struct engine_target *target, struct engine **out)
{
	struct vol *vol;
	int err = vol_open(target->pool, &target->id, &vol);
	if (err)
		return err;
	struct engine *e = mem_zalloc(sizeof(*e));
	e->set = set;
	e->rt = set->rt;
	e->pool = target->pool;
	e->vol = vol;
	e->id = target->id;
	e->volume_id = target->volume_id;
	memcpy(e->name, target->name, sizeof(e->name));
	e->stats = engine_record_get(set, target);
	waitq_init(&e->room);
	list_add_tail(&set->open, &e->link);
	*out = e;
	return 0;
}

static int open_locked(struct engines *set, const struct engine_target *target, struct engine **out)
{
	int err = 0;
	*out = find_open(set, target);
	if (!*out)
		err = open_new(set, target, out);
	if (err == 0)
		(*out)->stats->open_count++;
	return err;
}

int engine_open(struct engines *set, const char *export_name, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve(set, export_name, &target);
	if (err == 0)
		err = open_locked(set, &target, out);
	fmutex_unlock(&set->opening);
	return err;
}

int engine_open_volume(struct engines *set, const struct uuid *volume_id, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve_volume(set, volume_id, &target);
	if (err == 0)
		err = open_locked(set, &target, out);
	fmutex_unlock(&set->opening);
	return err;
}

int engine_open_id(struct engines *set, const struct uuid *id, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve_id(set, id, &target);
	if (err == 0)
		err = open_locked(set, &target, out);
	fmutex_unlock(&set->opening);
	return err;
}

void engine_close(struct engine *e)
{
	struct engines *set = e->set;
	fmutex_lock(&set->opening);
	assert(e->stats->open_count > 0);
	if (--e->stats->open_count == 0) {
		assert(e->stats->in_flight == 0);
		vol_close(e->vol);
		list_del(&e->link);
		free(e);
	}
	fmutex_unlock(&set->opening);
}

const struct vol_info *engine_info(const struct engine *e)
{
	return vol_info(e->vol);
}

const char *engine_name(const struct engine *e)
{
	return e->name;
}

const struct uuid *engine_volume_id(const struct engine *e)
{
	return &e->volume_id;
}

bool engine_is_of_pool(const struct engine *e, const char *pool_name)
{
	size_t length = strlen(pool_name);
	return strncmp(e->name, pool_name, length) == 0 && e->name[length] == '/';
}

/* ---- what passes ------------------------------------------------------------------------------------------------------- */

static uint64_t op_begin(struct engine *e)
{
	while (unlikely(e->stats->in_flight >= IN_FLIGHT_MAX))
		waitq_wait(&e->room);
	e->stats->in_flight++;
	return rt_now_exact_ns(e->rt);
}

static int op_end(struct engine *e, enum engine_op op, uint64_t begin_ns, uint64_t len_bytes, int err)
{
	struct engine_stats *s = e->stats;
	s->ops[op]++;
	s->bytes[op] += len_bytes;
	s->errors[op] += err != 0;
	hist_add(&s->latency_ns[op], rt_now_exact_ns(e->rt) - begin_ns);
	s->in_flight--;
	if (unlikely(!waitq_empty(&e->room)))
		waitq_wake_one(&e->room);
	return err;
}

int engine_read(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t begin_ns = op_begin(e);
	int err = vol_read(e->vol, data, offset_bytes, len_bytes);
	return op_end(e, ENGINE_READ, begin_ns, len_bytes, err);
}

int engine_write(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		 unsigned vol_flags)
{
	if (vol_info(e->vol)->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = vol_write(e->vol, data, offset_bytes, len_bytes, vol_flags);
	return op_end(e, ENGINE_WRITE, begin_ns, len_bytes, err);
}

int engine_zero(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	if (vol_info(e->vol)->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = vol_zero(e->vol, offset_bytes, len_bytes, vol_flags);
	return op_end(e, ENGINE_ZERO, begin_ns, len_bytes, err);
}

int engine_trim(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (vol_info(e->vol)->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = vol_trim(e->vol, offset_bytes, len_bytes);
	return op_end(e, ENGINE_TRIM, begin_ns, len_bytes, err);
}

int engine_flush(struct engine *e)
{
	uint64_t begin_ns = op_begin(e);
	int err = vol_flush(e->vol);
	return op_end(e, ENGINE_FLUSH, begin_ns, 0, err);
}

static int snapshot_id_of(struct engine *e, const char *snapshot, struct uuid *id)
{
	struct snapshot_info info;
	int err = snapshot_find(e->pool, &e->volume_id, snapshot, &info);
	if (err == 0)
		*id = info.id;
	return err;
}

int engine_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes, uint64_t len_bytes,
		   struct vol_extent *extents, size_t max_extents, size_t *extent_count)
{
	struct uuid since;
	int err = since_snapshot ? snapshot_id_of(e, since_snapshot, &since) : 0;
	if (err)
		return err;
	return vol_extents(e->vol, since_snapshot ? &since : NULL, offset_bytes, len_bytes, extents,
			   max_extents, extent_count);
}

struct name_walk {
	bool (*fn)(void *ctx, const char *snapshot);
	void *ctx;
};

static bool pass_name(void *ctx, const struct snapshot_info *s)
{
	struct name_walk *w = ctx;
	return w->fn(w->ctx, s->name);
}

void engine_snapshot_walk(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot), void *ctx)
{
	struct name_walk w = {fn, ctx};
	snapshot_walk(e->pool, &e->volume_id, pass_name, &w);
}

/* ---- notes ----------------------------------------------------------------------------------------------------------------- */

static bool is_snapshot(const struct engine *e)
{
	return !uuid_equal(&e->id, &e->volume_id);
}

int engine_note_set(struct engine *e, enum pool_note_kind kind, const void *data, uint32_t len_bytes)
{
	if (is_snapshot(e) || vol_info(e->vol)->read_only)
		return OXE_ROFS;
	return pool_note_set(e->pool, &e->volume_id, kind, data, len_bytes);
}

int engine_note_get(struct engine *e, enum pool_note_kind kind, void *data, uint32_t *len_bytes)
{
	return is_snapshot(e) ? OXE_NOENT : pool_note_get(e->pool, &e->volume_id, kind, data, len_bytes);
}

/* With the mutex no pool is taken away meanwhile (engines_remove_pool). */
int engines_note_get(struct engines *set, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		     uint32_t *len_bytes)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve_volume(set, volume_id, &target);
	if (err == 0)
		err = pool_note_get(target.pool, volume_id, kind, data, len_bytes);
	fmutex_unlock(&set->opening);
	return err;
}

int engines_volume_of(struct engines *set, const struct uuid *id, struct uuid *volume_id)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve_id(set, id, &target);
	fmutex_unlock(&set->opening);
	if (err == 0)
		*volume_id = target.volume_id;
	return err;
}
