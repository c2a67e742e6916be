/* replica_copy.c: doors, copies, sessions, the fence and the note. See replica_copy.h. */
#include "data/replica/replica_copy.h"

#include "base/log.h"
#include "base/mutant.h"
#include "base/prng.h"

struct replica_door {
	struct pool *pool;
	struct uuid boot_id;
	struct htab copies;
};

struct replica_door *replica_door_new(struct pool *pool, const struct uuid *boot_id)
{
	struct replica_door *d = mem_zalloc(sizeof(*d));
	d->pool = pool;
	d->boot_id = *boot_id;
	return d;
}

void replica_door_free(struct replica_door *d)
{
	assert(d->copies.count == 0);
	htab_free(&d->copies);
	free(d);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------- */

/* What a start finds again: the volume's id with another pattern laid over it. */
static struct uuid fresh_id_of(const struct uuid *volume_id)
{
	static const uint8_t pattern[16] = {'j', 'o', 'i', 'n', 'i', 'n', 0,   'g',
					    0,	 'n', 'e', 'w', 'h', 'e', 'a', 'd'};
	struct uuid id = *volume_id;
	for (unsigned i = 0; i < sizeof(id.b); i++)
		id.b[i] ^= pattern[i];
	return id;
}

static struct copy *copy_find(struct replica_door *d, const struct uuid *volume_id)
{
	uint64_t hash = hash_bytes(volume_id->b, sizeof(volume_id->b));
	for (struct hnode *n = htab_first(&d->copies, hash); n; n = htab_next(n)) {
		struct copy *c = container_of(n, struct copy, node);
		if (uuid_equal(&c->volume_id, volume_id))
			return c;
	}
	return NULL;
}

static struct copy *copy_get(struct replica_door *d, const struct uuid *volume_id)
{
	struct copy *c = copy_find(d, volume_id);
	if (c)
		return c;
	c = mem_zalloc(sizeof(*c));
	c->door = d;
	c->pool = d->pool;
	c->volume_id = *volume_id;
	c->fresh_id = fresh_id_of(volume_id);
	fmutex_init(&c->control);
	group_init(&c->calls);
	waitq_init(&c->released);
	waitq_init(&c->note_turn);
	htab_insert(&d->copies, &c->node, hash_bytes(volume_id->b, sizeof(volume_id->b)));
	return c;
}

struct replica *replica_local_new(struct replica_door *d, const struct uuid *volume_id)
{
	struct local *l = mem_zalloc(sizeof(*l));
	l->copy = copy_get(d, volume_id);
	l->copy->replicas++;
	l->base = (struct replica){.ops = &replica_local_ops,
				   .pool_id = pool_ident(d->pool)->id,
				   .volume_id = *volume_id,
				   .is_local = true};
	return &l->base;
}

int replica_local_delete(struct replica_door *d, const struct uuid *volume_id)
{
	struct uuid fresh_id = fresh_id_of(volume_id);
	int err = volume_delete(d->pool, &fresh_id);
	return err ? err : volume_delete(d->pool, volume_id);
}

struct local *local_of(struct replica *r)
{
	return container_of(r, struct local, base);
}

/* Whoever opens the copy just now has its volume in hand: that ends first, and then the volume is his. */
static void session_close(struct local *l)
{
	struct copy *c = l->copy;
	fmutex_lock(&c->control);
	if (c->current == l) {
		assert(c->calls.pending == 0);
		copy_unload(c);
		c->current = NULL;
	}
	fmutex_unlock(&c->control);
}

void local_close(struct replica *r)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	if (c->current == l)
		session_close(l);
	free(l);
	if (--c->replicas > 0)
		return;
	htab_remove(&c->door->copies, &c->node);
	free(c);
}

/* ---- the note -------------------------------------------------------------------------------------------------------------- */

static int note_write(struct copy *c)
{
	uint8_t data[REPLICA_NOTE_BYTES_MAX];
	uint64_t covers = c->note_wanted;
	c->note_busy = true;
	uint32_t len_bytes = replica_note_encode(&c->note, data);
	int err = vol_note_set(c->vol, POOL_NOTE_REPLICA, data, len_bytes);
	c->note_busy = false;
	if (!err)
		c->note_written = covers;
	waitq_wake_all(&c->note_turn);
	return err;
}

int copy_note_store(struct copy *c)
{
	uint64_t wanted = ++c->note_wanted;
	int err = 0;
	while (!err && c->note_written < wanted) {
		if (c->note_busy)
			waitq_wait(&c->note_turn);
		else
			err = note_write(c);
	}
	return err;
}

static int note_load(struct copy *c)
{
	uint8_t data[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	c->note_wanted = c->note_written = 0;
	int err = vol_note_get(c->vol, POOL_NOTE_REPLICA, data, &len_bytes);
	if (err == OXE_NOENT) { /* a volume that never was a copy */
		c->note = (struct replica_note){.shift = REPLICA_REGION_SHIFT_MIN};
		return 0;
	}
	if (!err)
		err = replica_note_decode(data, len_bytes, &c->note);
	if (err)
		LOG_ERROR("replica.note_lost", "what a copy knew of itself cannot be believed",
			  F_UUID("pool", &pool_ident(c->pool)->id), F_UUID("volume", &c->volume_id),
			  F_ERR(err));
	return err;
}

/* ---- the volume ------------------------------------------------------------------------------------------------------------ */

/* A join that had ended when the process died: all that was left to do was to say so. */
static void note_settle(struct copy *c, const struct uuid *head_id)
{
	if (uuid_is_nil(&c->note.join_ending_id) || !uuid_equal(&c->note.join_ending_id, head_id))
		return;
	c->note.join_id = c->note.join_ending_id = (struct uuid){0};
	c->note.fill_begun = false;
	c->note_wanted++;
}

static int fresh_load(struct copy *c)
{
	struct volume_info info;
	int err = volume_get_any(c->pool, &c->fresh_id, &info);
	if (err == OXE_NOENT || (!err && uuid_is_nil(&c->note.join_id)))
		return 0;
	return err ? err : vol_open(c->pool, &c->fresh_id, &c->fresh);
}

void copy_follow_size(struct copy *c)
{
	unsigned shift = replica_region_shift(vol_info(copy_top(c))->size_bytes);
	regions_rescale(&c->note.intents, c->note.shift, shift);
	regions_rescale(&c->note.may_lack, c->note.shift, shift);
	regions_rescale(&c->left, c->note.shift, shift);
	c->note.shift = shift;
}

int copy_load(struct copy *c)
{
	struct volume_info info;
	int err = volume_get_any(c->pool, &c->volume_id, &info);
	if (!err)
		err = vol_open(c->pool, &c->volume_id, &c->vol);
	if (err)
		return err;
	err = note_load(c);
	if (!err) {
		note_settle(c, &info.head_id);
		err = fresh_load(c);
	}
	if (!err) {
		copy_follow_size(c);
		c->note_wanted += replica_note_boot(&c->note, &c->door->boot_id);
	}
	c->fill_begun_durable = c->note.fill_begun;
	if (err)
		copy_unload(c);
	return err;
}

void copy_unload(struct copy *c)
{
	if (c->vol)
		vol_close(c->vol);
	if (c->fresh)
		vol_close(c->fresh);
	c->vol = c->fresh = NULL;
}

bool copy_has_failed(const struct copy *c)
{
	struct pool_stats stats;
	pool_stats(c->pool, &stats);
	return stats.failed;
}

struct layer_search {
	const struct uuid *id;
	bool own, found;
};

static bool layer_compare(void *ctx, const struct layer_info *l)
{
	struct layer_search *s = ctx;
	if (uuid_equal(&l->id, s->id) && !(s->own && l->is_origins))
		s->found = true;
	return !s->found;
}

bool copy_has_layer(const struct copy *c, const struct uuid *id, bool own)
{
	struct layer_search s = {.id = id, .own = own};
	int err = volume_chain(c->pool, &c->volume_id, layer_compare, &s);
	if (!err && !s.found && c->fresh)
		err = volume_chain(c->pool, &c->fresh_id, layer_compare, &s);
	return !err && s.found;
}

/* ---- sessions -------------------------------------------------------------------------------------------------------------- */

static int session_check(const struct local *l)
{
	if (l->session == SESSION_FENCED)
		return OXE_FENCED;
	if (l->session != SESSION_OPEN)
		return OXE_CLOSED;
	return l->copy->vol ? 0 : OXE_NOENT;
}

int call_enter(struct local *l)
{
	struct copy *c = l->copy;
	uint64_t serial = l->serial;
	int err = session_check(l);
	while (!err && c->held) {
		waitq_wait(&c->released);
		err = l->serial == serial ? session_check(l) : OXE_FENCED;
	}
	if (!err)
		group_add(&c->calls, 1);
	return err;
}

/* A pool that has failed, or is being closed, answers nothing any more. */
static int answer(struct local *l, int err, bool changes)
{
	if (err != OXE_FAILED && err != OXE_SHUTDOWN)
		return err;
	if (l->session == SESSION_OPEN)
		l->session = SESSION_OVER;
	return changes ? OXE_INDOUBT : OXE_CLOSED;
}

int call_leave(struct local *l, int err, bool changes)
{
	group_done(&l->copy->calls);
	return answer(l, err, changes);
}

int control_enter(struct local *l)
{
	uint64_t serial = l->serial;
	int err = session_check(l);
	if (err)
		return err;
	fmutex_lock(&l->copy->control);
	err = l->serial == serial ? session_check(l) : OXE_FENCED;
	if (err)
		fmutex_unlock(&l->copy->control);
	return err;
}

int control_leave(struct local *l, int err, bool changes)
{
	fmutex_unlock(&l->copy->control);
	return answer(l, err, changes);
}

void copy_hold(struct copy *c)
{
	c->held = true;
	group_wait(&c->calls);
}

void copy_release(struct copy *c)
{
	c->held = false;
	waitq_wake_all(&c->released);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static void state_tell(const struct copy *c, struct replica_state *out)
{
	out->boot_id = c->door->boot_id;
	out->exists = c->vol != NULL;
	if (!c->vol)
		return;
	out->size_bytes = vol_info(copy_top(c))->size_bytes;
	out->lba_bytes = vol_info(c->vol)->lba_bytes;
	out->is_joining = c->fresh != NULL;
	out->fill_begun = c->note.fill_begun;
	if (c->fresh)
		out->join_id = c->note.join_id;
	out->intents = c->note.intents;
	out->may_lack = c->note.may_lack;
}

/* V4. */
static bool is_fenced(const struct replica_note *n, uint64_t epoch, const struct uuid *engine_id)
{
	bool other = !uuid_is_nil(&n->engine_id) && !uuid_equal(&n->engine_id, engine_id);
	return (epoch < n->epoch || (epoch == n->epoch && other)) && !MUTANT(232);
}

/* The epoch is durable before anybody hears of it, and so is another boot. Without a volume there is nowhere to keep it but here. */
static int epoch_raise(struct copy *c, uint64_t epoch, const struct uuid *engine_id)
{
	struct replica_note before = c->note;
	if (c->note.epoch == epoch && uuid_equal(&c->note.engine_id, engine_id) &&
	    c->note_wanted == c->note_written)
		return 0;
	c->note.epoch = epoch;
	c->note.engine_id = *engine_id;
	int err = c->vol && !MUTANT(236) ? copy_note_store(c) : 0;
	if (err) {
		c->note.epoch = before.epoch;
		c->note.engine_id = before.engine_id;
	}
	return err;
}

/* From here on nothing of an earlier session begins, and when this returns nothing of it is under way. */
static void sessions_end(struct copy *c)
{
	if (c->current && !MUTANT(238))
		c->current->session = SESSION_FENCED;
	c->current = NULL;
	if (!MUTANT(237))
		group_wait(&c->calls);
}

static int open_locked(struct local *l, uint64_t epoch, const struct uuid *engine_id,
		       struct replica_state *out)
{
	struct copy *c = l->copy;
	int err = copy_has_failed(c) ? OXE_FAILED : c->vol ? 0 : copy_load(c);
	if (err && err != OXE_NOENT)
		return err;
	if (is_fenced(&c->note, epoch, engine_id))
		return OXE_FENCED;
	out->epoch_before = c->note.epoch;
	err = epoch_raise(c, epoch, engine_id);
	if (err)
		return err;
	sessions_end(c);
	l->session = SESSION_OPEN;
	l->serial++;
	c->current = l;
	c->left = c->note.intents;
	state_tell(c, out);
	return 0;
}

int local_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id, struct replica_state *out)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	*out = (struct replica_state){0};
	fmutex_lock(&c->control);
	int err = open_locked(l, epoch, engine_id, out);
	if (err && !c->current)
		copy_unload(c);
	if (err == OXE_FAILED || err == OXE_SHUTDOWN)
		err = OXE_INDOUBT;
	fmutex_unlock(&c->control);
	return err;
}

static int create_locked(struct copy *c, const struct volume_spec *spec)
{
	struct replica_note session = c->note;
	int err = volume_create_any(c->pool, spec);
	if (err || c->vol)
		return err;
	err = copy_load(c);
	if (err)
		return err;
	c->note.epoch = u64_max(c->note.epoch, session.epoch);
	c->note.engine_id = session.engine_id;
	err = copy_note_store(c);
	if (err)
		copy_unload(c);
	return err;
}

/* A death between the volume and its note leaves an empty volume that no view names, and that an engine of any epoch may open. */
int local_create(struct replica *r, const struct volume_spec *spec)
{
	struct local *l = local_of(r);
	int err = session_check(l);
	if (err && err != OXE_NOENT)
		return err;
	if (!uuid_equal(&spec->id, &l->copy->volume_id))
		return OXE_INVAL;
	uint64_t serial = l->serial;
	fmutex_lock(&l->copy->control);
	err = l->serial == serial ? session_check(l) : OXE_FENCED;
	if (!err || err == OXE_NOENT)
		err = create_locked(l->copy, spec);
	return control_leave(l, err, true);
}
