/*
 * engine.c: see engine.h. One volume or snapshot, opened once however many frontends serve it, counted and timed. What is behind it
 * is in engine_store.c and engine_mirror.c.
 *
 * An engine is known by the id of what it serves, so a rename changes nothing. Opening and closing are serialised by one
 * mutex: two clients that arrive together share one handle, and none sees a handle that is half open or half closed.
 */
#include "data/engine/engine.h"

#include "data/engine/engine_internal.h"

#define IN_FLIGHT_MAX                                                                                        \
	1024 /* calls of one engine; the next waits its turn, and with it whoever reads the client's socket */

/* ---- the set of pools ----------------------------------------------------------------------------------------------- */

struct engines *engines_new(struct rt *rt)
{
	struct engines *set = mem_zalloc(sizeof(*set));
	set->rt = rt;
	list_init(&set->pools);
	list_init(&set->mirrors);
	list_init(&set->open);
	list_init(&set->records);
	fmutex_init(&set->opening);
	return set;
}

void engines_free(struct engines *set)
{
	assert(list_empty(&set->open));
	engine_records_free(set);
	struct engine_pool *p;
	while ((p = list_pop(&set->pools, struct engine_pool, link)))
		free(p);
	struct engine_mirror *m;
	while ((m = list_pop(&set->mirrors, struct engine_mirror, link)))
		free(m);
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
		if (e->target.pool == pool)
			return true;
	return false;
}

int engines_remove_pool(struct engines *set, struct pool *pool)
{
	/* The mutex's holder may be about to open one. */
	if (set->opening.holder || pool_is_open(set, pool))
		return OXE_BUSY;
	engine_records_forget(set, pool, NULL);
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
		if (engine_target_equal(&e->target, target))
			return e;
	return NULL;
}

static const struct engine_ops *ops_of(const struct engine_target *target)
{
	if (!target->mirror)
		return &engine_store_ops;
	return engine_target_is_snapshot(target) ? &engine_layer_ops : &engine_mirror_ops;
}

static int open_new(struct engines *set, const struct engine_target *target, struct engine **out)
{
	struct engine *e = mem_zalloc(sizeof(*e));
	e->set = set;
	e->rt = set->rt;
	e->ops = ops_of(target);
	e->target = *target;
	int err = e->ops->open(e);
	if (err) {
		free(e);
		return err;
	}
	e->read_only = e->ops->info(e)->read_only;
	e->stats = engine_record_get(set, target);
	waitq_init(&e->room);
	list_add_tail(&set->open, &e->link);
	*out = e;
	return 0;
}

static int open_locked(struct engines *set, const struct engine_target *target, struct engine **out)
{
	int err = target->mirror ? engine_mirror_over(target->mirror) : 0;
	if (err) /* also if somebody has it open still */
		return err;
	*out = find_open(set, target);
	if (!*out)
		err = open_new(set, target, out);
	if (err == 0)
		(*out)->stats->open_count++;
	return err;
}

static int open_resolved(struct engines *set, int err, const struct engine_target *target,
			 struct engine **out)
{
	return err ? err : open_locked(set, target, out);
}

int engine_open(struct engines *set, const char *export_name, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = open_resolved(set, engine_resolve(set, export_name, &target), &target, out);
	fmutex_unlock(&set->opening);
	return err;
}

int engine_open_volume(struct engines *set, const struct uuid *volume_id, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = open_resolved(set, engine_resolve_volume(set, volume_id, &target), &target, out);
	fmutex_unlock(&set->opening);
	return err;
}

int engine_open_id(struct engines *set, const struct uuid *id, struct engine **out)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = open_resolved(set, engine_resolve_id(set, id, &target), &target, out);
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
		e->ops->close(e);
		list_del(&e->link);
		free(e);
	}
	fmutex_unlock(&set->opening);
}

bool engines_is_open(const struct engines *set, const struct uuid *id)
{
	const struct engine *e;
	list_for_each (e, &set->open, link)
		if (uuid_equal(&e->target.id, id))
			return true;
	return false;
}

uint32_t engines_open_count(const struct engines *set, const struct uuid *id)
{
	const struct engine *e;
	uint32_t count = 0;
	list_for_each (e, &set->open, link)
		if (uuid_equal(&e->target.id, id))
			count += e->stats->open_count;
	return count;
}

int engine_wait(struct engine *e, uint64_t deadline_ns)
{
	return e->ops->wait(e, deadline_ns);
}

const struct vol_info *engine_info(const struct engine *e)
{
	return e->ops->info((struct engine *)e);
}

const char *engine_name(const struct engine *e)
{
	return e->target.name;
}

const struct uuid *engine_volume_id(const struct engine *e)
{
	return &e->target.volume_id;
}

bool engine_is_of_pool(const struct engine *e, const char *pool_name)
{
	return e->target.pool && strcmp(pool_ident(e->target.pool)->name, pool_name) == 0;
}

bool engine_is_of_volume(const struct engine *e, const struct uuid *volume_id)
{
	return uuid_equal(&e->target.volume_id, volume_id);
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
	int err = e->ops->read(e, data, offset_bytes, len_bytes);
	return op_end(e, ENGINE_READ, begin_ns, len_bytes, err);
}

int engine_write(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		 unsigned vol_flags)
{
	if (e->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = e->ops->write(e, data, offset_bytes, len_bytes, vol_flags);
	return op_end(e, ENGINE_WRITE, begin_ns, len_bytes, err);
}

int engine_zero(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	if (e->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = e->ops->zero(e, offset_bytes, len_bytes, vol_flags);
	return op_end(e, ENGINE_ZERO, begin_ns, len_bytes, err);
}

int engine_trim(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (e->read_only)
		return OXE_ROFS;
	uint64_t begin_ns = op_begin(e);
	int err = e->ops->trim(e, offset_bytes, len_bytes);
	return op_end(e, ENGINE_TRIM, begin_ns, len_bytes, err);
}

int engine_flush(struct engine *e)
{
	uint64_t begin_ns = op_begin(e);
	int err = e->ops->flush(e);
	return op_end(e, ENGINE_FLUSH, begin_ns, 0, err);
}

int engine_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes, uint64_t len_bytes,
		   struct vol_extent *extents, size_t max_extents, size_t *extent_count)
{
	return e->ops->extents(e, since_snapshot, offset_bytes, len_bytes, extents, max_extents,
			       extent_count);
}

void engine_snapshot_walk(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot), void *ctx)
{
	e->ops->snapshot_walk(e, fn, ctx);
}

/* ---- notes ----------------------------------------------------------------------------------------------------------------- */

static int note_set(const struct engine_target *t, enum pool_note_kind kind, const void *data,
		    uint32_t len_bytes)
{
	if (!t->mirror)
		return pool_note_set(t->pool, &t->volume_id, kind, data, len_bytes);
	return t->mirror->notes->set(t->mirror->notes, &t->volume_id, kind, data, len_bytes);
}

static int note_get(const struct engine_target *t, enum pool_note_kind kind, void *data, uint32_t *len_bytes)
{
	if (!t->mirror)
		return pool_note_get(t->pool, &t->volume_id, kind, data, len_bytes);
	return t->mirror->notes->get(t->mirror->notes, &t->volume_id, kind, data, len_bytes);
}

int engine_note_set(struct engine *e, enum pool_note_kind kind, const void *data, uint32_t len_bytes)
{
	if (engine_target_is_snapshot(&e->target) || e->read_only)
		return OXE_ROFS;
	return note_set(&e->target, kind, data, len_bytes);
}

int engine_note_get(struct engine *e, enum pool_note_kind kind, void *data, uint32_t *len_bytes)
{
	return engine_target_is_snapshot(&e->target) ? OXE_NOENT
						     : note_get(&e->target, kind, data, len_bytes);
}

/* With the mutex no pool is taken away meanwhile (engines_remove_pool). Where a mirrored volume's notes are may take its time to
 * answer, and nobody else waits for that: the mirror is held instead. */
int engines_note_get(struct engines *set, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		     uint32_t *len_bytes)
{
	struct engine_target target;
	fmutex_lock(&set->opening);
	int err = engine_resolve_volume(set, volume_id, &target);
	if (err == 0 && !target.mirror)
		err = note_get(&target, kind, data, len_bytes);
	fmutex_unlock(&set->opening);
	if (err || !target.mirror)
		return err;
	target.mirror->users++;
	err = note_get(&target, kind, data, len_bytes);
	target.mirror->users--;
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
