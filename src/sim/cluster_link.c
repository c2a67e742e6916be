/*
 * cluster_link.c: a copy on another node, through calls that a network carries.
 *
 *     call --> under way --> carried out there --> answer under way --> answered
 *                 |                 |                    |
 *                 | cut: waits      | process gone       | cut, or lost
 *                 v                 v                    v
 *              late, after the caller has given up     OXE_INDOUBT to the caller, at once or at its time-out
 *
 * A call that was given up is still carried out when it arrives: a ghost, which the fence has to keep out (V4).
 */
#include "sim/cluster.h"

enum call_kind {
	CALL_OPEN,
	CALL_PING,
	CALL_CREATE,
	CALL_READ,
	CALL_WRITE,
	CALL_ZERO,
	CALL_TRIM,
	CALL_FLUSH,
	CALL_INTENTS,
	CALL_MADE_GOOD,
	CALL_SEAL,
	CALL_LAYER_DELETE,
	CALL_LAYER_RENAME,
	CALL_REVERT,
	CALL_GROW,
	CALL_LAYERS,
	CALL_LAYER_READ,
	CALL_LAYER_EXTENTS,
	CALL_LAYER_CHECKSUMS,
	CALL_JOIN_BEGIN,
	CALL_FILL,
	CALL_FILL_GROW,
	CALL_FILL_SEAL,
	CALL_JOIN_END,
};

/* What is asked, with all it points to; and what is answered. */
struct call {
	struct list link;
	struct link_replica *owner;
	enum call_kind kind;
	uint64_t epoch, offset_bytes, len_bytes;
	unsigned flags;
	struct uuid id, other_id;
	bool has_id, has_other_id, wants_filled;
	char name[POOL_NAME_MAX + 1];
	struct volume_spec spec;
	uint8_t *data; /* its own: payload, or room for the answer */
	size_t data_bytes, max, count, filled_count;
	struct replica_state state;

	struct cluster_node *from, *to;
	uint64_t from_incarnation, to_incarnation; /* to: 0 until it has arrived */
	struct fiber *waiter;			   /* NULL: given up, or nobody is left */
	struct replica *there;			   /* the session, and the process it is in */
	uint64_t there_incarnation;
	int result;
	bool is_answered;
	uint32_t holders;
};

struct link_replica {
	struct replica replica;
	struct cluster_node *from, *to;
	struct replica *
		there; /* the session that was opened last, in the process `there_incarnation` of the other node */
	uint64_t there_incarnation;
};

static uint64_t way_ns(struct cluster *cl)
{
	return cl->faults.call_min_ns +
	       prng_below(cl->rng, cl->faults.call_max_ns - cl->faults.call_min_ns + 1);
}

/* Held by the caller, by the way it goes, and by its time limit. */
static void call_release(struct call *c)
{
	if (--c->holders > 0)
		return;
	list_del(&c->link);
	free(c->data);
	free(c);
}

/* ---- there ---------------------------------------------------------------------------------------------------------------------- */

static int call_layers(struct replica *r, struct call *c)
{
	return r->ops->layers(r, (struct replica_layer *)c->data, c->max, &c->count,
			      c->wants_filled ? &c->filled_count : NULL);
}

static int call_layer(struct replica *r, struct call *c)
{
	const struct uuid *id = c->has_id ? &c->id : NULL, *since = c->has_other_id ? &c->other_id : NULL;
	if (c->kind == CALL_LAYER_READ)
		return r->ops->layer_read(r, id, c->data, c->offset_bytes, c->len_bytes);
	if (c->kind == CALL_LAYER_EXTENTS)
		return r->ops->layer_extents(r, id, since, c->offset_bytes, c->len_bytes,
					     (struct vol_extent *)c->data, c->max, &c->count);
	return r->ops->layer_checksums(r, id, c->offset_bytes, c->len_bytes, (uint32_t *)c->data);
}

static int call_data(struct replica *r, struct call *c)
{
	switch (c->kind) {
	case CALL_READ:
		return r->ops->read(r, c->data, c->offset_bytes, c->len_bytes);
	case CALL_WRITE:
		return r->ops->write(r, c->data, c->offset_bytes, c->len_bytes, c->flags);
	case CALL_ZERO:
		return r->ops->zero(r, c->offset_bytes, c->len_bytes, c->flags);
	case CALL_TRIM:
		return r->ops->trim(r, c->offset_bytes, c->len_bytes);
	case CALL_FLUSH:
		return r->ops->flush(r);
	default:
		return r->ops->fill(r, c->data, c->offset_bytes, c->len_bytes);
	}
}

static int call_run(struct replica *r, struct call *c)
{
	switch (c->kind) {
	case CALL_OPEN:
		return r->ops->open(r, c->epoch, &c->id, &c->state);
	case CALL_PING:
		return r->ops->ping(r);
	case CALL_CREATE:
		return r->ops->create(r, &c->spec);
	case CALL_INTENTS:
		return r->ops->intents_set(r, (struct replica_regions *)c->data);
	case CALL_MADE_GOOD:
		return r->ops->made_good(r);
	case CALL_SEAL:
		return r->ops->seal(r, c->epoch, &c->id, c->name);
	case CALL_LAYER_DELETE:
		return r->ops->layer_delete(r, &c->id);
	case CALL_LAYER_RENAME:
		return r->ops->layer_rename(r, &c->id, c->name);
	case CALL_REVERT:
		return r->ops->revert(r, &c->id, &c->other_id);
	case CALL_GROW:
		return r->ops->grow(r, c->len_bytes);
	case CALL_LAYERS:
		return call_layers(r, c);
	case CALL_LAYER_READ:
	case CALL_LAYER_EXTENTS:
	case CALL_LAYER_CHECKSUMS:
		return call_layer(r, c);
	case CALL_JOIN_BEGIN:
		return r->ops->join_begin(r, &c->id, c->len_bytes);
	case CALL_FILL_GROW:
		return r->ops->fill_grow(r, c->len_bytes);
	case CALL_FILL_SEAL:
		return r->ops->fill_seal(r, &c->id, c->name);
	case CALL_JOIN_END:
		return r->ops->join_end(r);
	default:
		return call_data(r, c);
	}
}

/* ---- the ways --------------------------------------------------------------------------------------------------------------------- */

static void caller_wake(struct call *c)
{
	struct fiber *waiter = c->waiter;
	c->waiter = NULL;
	if (waiter)
		fiber_ready(waiter);
}

/* The way ends here. */
static void call_end(struct call *c, int result)
{
	c->is_answered = c->waiter != NULL;
	c->result = result;
	caller_wake(c);
	call_release(c);
}

static void later(struct call *c, uint64_t ns, void (*fn)(void *arg))
{
	struct sim *sim = c->from->cluster->sim;
	sim_at(sim, sim_now_ns(sim) + ns, fn, c);
}

static void answer_arrives(void *arg)
{
	struct call *c = arg;
	struct cluster *cl = c->from->cluster;
	if (c->waiter && cl->cut[c->to->index][c->from->index])
		later(c, 20 * NS_PER_MS, answer_arrives);
	else
		call_end(c, c->result);
}

static void call_there(void *arg)
{
	struct call *c = arg;
	struct cluster *cl = c->from->cluster;
	c->result = call_run(c->there, c);
	c->to_incarnation = 0;
	if (cl->faults.call_lost_one_in && prng_one_in(cl->rng, cl->faults.call_lost_one_in))
		c->result = OXE_INDOUBT;
	later(c, way_ns(cl), answer_arrives);
}

/* A session is one open, like a connection: what was sent in an earlier one arrives in that one, and is refused there. A new process knows
 * nothing of the old one's. */
static bool there_find(struct call *c)
{
	struct cluster_node *to = c->to;
	if (!to->is_up || !to->door)
		return false;
	if (c->kind != CALL_OPEN)
		return c->there && c->there_incarnation == to->incarnation;
	c->there = replica_local_new(to->door, &c->owner->replica.volume_id);
	c->there_incarnation = to->incarnation;
	return true;
}

static void call_arrives(void *arg)
{
	struct call *c = arg;
	struct cluster *cl = c->from->cluster;
	bool nobody_waits = !c->waiter;
	if (cl->cut[c->from->index][c->to->index] && (!nobody_waits || prng_one_in(cl->rng, 3))) {
		later(c, 20 * NS_PER_MS, call_arrives);
		return;
	}
	if (cl->cut[c->from->index][c->to->index] || (nobody_waits && prng_one_in(cl->rng, 2))) {
		call_release(c);
		return;
	}
	if (!there_find(c)) {
		call_end(c, OXE_CLOSED);
		return;
	}
	c->to_incarnation = c->to->incarnation;
	fiber_spawn(sim_node_rt(c->to->machine), "link-call", call_there, c);
}

/* The caller waits no longer. The call goes on without it. */
static void limit_passed(void *arg)
{
	struct call *c = arg;
	caller_wake(c);
	call_release(c);
}

static struct call *call_new(struct replica *r, enum call_kind kind)
{
	struct link_replica *l = container_of(r, struct link_replica, replica);
	struct call *c = mem_zalloc(sizeof(*c));
	c->owner = l;
	c->kind = kind;
	c->from = l->from;
	c->to = l->to;
	c->from_incarnation = l->from->incarnation;
	c->there = kind == CALL_OPEN ? NULL : l->there;
	c->there_incarnation = l->there_incarnation;
	c->holders = 3;
	list_add_tail(&l->from->cluster->calls, &c->link);
	return c;
}

/* Suspends until there is an answer, or no hope of one. The caller releases it. */
static int call_do(struct call *c)
{
	c->waiter = fiber_current();
	later(c, way_ns(c->from->cluster), call_arrives);
	later(c, c->from->cluster->faults.call_timeout_ns, limit_passed);
	fiber_park();
	return c->is_answered ? c->result : OXE_INDOUBT;
}

static int call_finish(struct call *c)
{
	int result = call_do(c);
	call_release(c);
	return result;
}

void link_node_gone(struct cluster_node *node, bool power_too)
{
	struct call *c, *tmp;
	list_for_each_safe (c, tmp, &node->cluster->calls, link) {
		if (c->from == node && c->from_incarnation == node->incarnation)
			c->waiter = NULL;
		if (c->to == node && c->to_incarnation == node->incarnation) {
			c->to_incarnation = 0;
			if (power_too)
				call_release(c); /* nobody says anything: its time limit ends it */
			else
				call_end(c, OXE_INDOUBT);
		}
	}
}

/* ---- the copy ------------------------------------------------------------------------------------------------------------------- */

static uint8_t *room(struct call *c, const void *data, size_t len_bytes)
{
	c->data = cluster_buffer(len_bytes);
	c->data_bytes = len_bytes;
	if (data)
		memcpy(c->data, data, len_bytes);
	return c->data;
}

static void id_put(struct call *c, const struct uuid *id)
{
	c->has_id = id != NULL;
	if (id)
		c->id = *id;
}

static void name_put(struct call *c, const char *name)
{
	strncpy(c->name, name, POOL_NAME_MAX);
}

static void range_put(struct call *c, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	c->offset_bytes = offset_bytes;
	c->len_bytes = len_bytes;
	c->flags = flags;
}

static int link_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		     struct replica_state *out)
{
	struct call *c = call_new(r, CALL_OPEN);
	c->epoch = epoch;
	id_put(c, engine_id);
	int err = call_do(c);
	if (!err) {
		*out = c->state;
		c->owner->there = c->there;
		c->owner->there_incarnation = c->there_incarnation;
	}
	call_release(c);
	return err;
}

static int link_ping(struct replica *r)
{
	return call_finish(call_new(r, CALL_PING));
}

static int link_create(struct replica *r, const struct volume_spec *spec)
{
	struct call *c = call_new(r, CALL_CREATE);
	c->spec = *spec;
	return call_finish(c);
}

static int link_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct call *c = call_new(r, CALL_READ);
	range_put(c, offset_bytes, len_bytes, 0);
	room(c, NULL, len_bytes);
	int err = call_do(c);
	if (!err)
		memcpy(data, c->data, len_bytes);
	call_release(c);
	return err;
}

static int link_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		      unsigned vol_flags)
{
	struct call *c = call_new(r, CALL_WRITE);
	range_put(c, offset_bytes, len_bytes, vol_flags);
	room(c, data, len_bytes);
	return call_finish(c);
}

static int link_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	struct call *c = call_new(r, CALL_ZERO);
	range_put(c, offset_bytes, len_bytes, vol_flags);
	return call_finish(c);
}

static int link_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct call *c = call_new(r, CALL_TRIM);
	range_put(c, offset_bytes, len_bytes, 0);
	return call_finish(c);
}

static int link_flush(struct replica *r)
{
	return call_finish(call_new(r, CALL_FLUSH));
}

static int link_intents_set(struct replica *r, const struct replica_regions *regions)
{
	struct call *c = call_new(r, CALL_INTENTS);
	room(c, regions, sizeof(*regions));
	return call_finish(c);
}

static int link_made_good(struct replica *r)
{
	return call_finish(call_new(r, CALL_MADE_GOOD));
}

static int link_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	struct call *c = call_new(r, CALL_SEAL);
	c->epoch = epoch;
	id_put(c, layer_id);
	name_put(c, name);
	return call_finish(c);
}

static int link_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	struct call *c = call_new(r, CALL_LAYER_DELETE);
	id_put(c, layer_id);
	return call_finish(c);
}

static int link_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	struct call *c = call_new(r, CALL_LAYER_RENAME);
	id_put(c, layer_id);
	name_put(c, name);
	return call_finish(c);
}

static int link_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	struct call *c = call_new(r, CALL_REVERT);
	id_put(c, layer_id);
	c->other_id = *head_id;
	return call_finish(c);
}

static int link_grow(struct replica *r, uint64_t size_bytes)
{
	struct call *c = call_new(r, CALL_GROW);
	range_put(c, 0, size_bytes, 0);
	return call_finish(c);
}

static int link_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
		       size_t *filled_count)
{
	struct call *c = call_new(r, CALL_LAYERS);
	c->max = max;
	c->wants_filled = filled_count != NULL;
	room(c, NULL, max * sizeof(*layers));
	int err = call_do(c);
	if (!err) {
		memcpy(layers, c->data, c->count * sizeof(*layers));
		*count = c->count;
	}
	if (!err && filled_count)
		*filled_count = c->filled_count;
	call_release(c);
	return err;
}

static int link_layer_read(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			   uint64_t len_bytes)
{
	struct call *c = call_new(r, CALL_LAYER_READ);
	id_put(c, layer_id);
	range_put(c, offset_bytes, len_bytes, 0);
	room(c, NULL, len_bytes);
	int err = call_do(c);
	if (!err)
		memcpy(data, c->data, len_bytes);
	call_release(c);
	return err;
}

static int link_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
			      uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			      size_t max_extents, size_t *extent_count)
{
	struct call *c = call_new(r, CALL_LAYER_EXTENTS);
	id_put(c, layer_id);
	c->has_other_id = since_id != NULL;
	if (since_id)
		c->other_id = *since_id;
	range_put(c, offset_bytes, len_bytes, 0);
	c->max = max_extents;
	room(c, NULL, max_extents * sizeof(*extents));
	int err = call_do(c);
	if (!err) {
		memcpy(extents, c->data, c->count * sizeof(*extents));
		*extent_count = c->count;
	}
	call_release(c);
	return err;
}

static int link_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
				uint64_t len_bytes, uint32_t *crcs)
{
	struct call *c = call_new(r, CALL_LAYER_CHECKSUMS);
	size_t answer_bytes = u64_div_up(len_bytes, REPLICA_CHECKSUM_BYTES) * sizeof(*crcs);
	id_put(c, layer_id);
	range_put(c, offset_bytes, len_bytes, 0);
	room(c, NULL, answer_bytes);
	int err = call_do(c);
	if (!err)
		memcpy(crcs, c->data, answer_bytes);
	call_release(c);
	return err;
}

static int link_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	struct call *c = call_new(r, CALL_JOIN_BEGIN);
	id_put(c, join_id);
	range_put(c, 0, size_bytes, 0);
	return call_finish(c);
}

static int link_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct call *c = call_new(r, CALL_FILL);
	range_put(c, offset_bytes, len_bytes, 0);
	if (data)
		room(c, data, len_bytes);
	return call_finish(c);
}

static int link_fill_grow(struct replica *r, uint64_t size_bytes)
{
	struct call *c = call_new(r, CALL_FILL_GROW);
	range_put(c, 0, size_bytes, 0);
	return call_finish(c);
}

static int link_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name)
{
	struct call *c = call_new(r, CALL_FILL_SEAL);
	id_put(c, layer_id);
	name_put(c, name);
	return call_finish(c);
}

static int link_join_end(struct replica *r)
{
	return call_finish(call_new(r, CALL_JOIN_END));
}

/* Calls under way may still mention it: it is not freed, as the heap of a killed process is not. */
static void link_close(struct replica *r)
{
	(void)r;
}

static const struct replica_ops link_ops = {
	.open = link_open,
	.ping = link_ping,
	.create = link_create,
	.read = link_read,
	.write = link_write,
	.zero = link_zero,
	.trim = link_trim,
	.flush = link_flush,
	.intents_set = link_intents_set,
	.made_good = link_made_good,
	.seal = link_seal,
	.layer_delete = link_layer_delete,
	.layer_rename = link_layer_rename,
	.revert = link_revert,
	.grow = link_grow,
	.layers = link_layers,
	.layer_read = link_layer_read,
	.layer_extents = link_layer_extents,
	.layer_checksums = link_layer_checksums,
	.join_begin = link_join_begin,
	.fill = link_fill,
	.fill_grow = link_fill_grow,
	.fill_seal = link_fill_seal,
	.join_end = link_join_end,
	.close = link_close,
};

struct replica *link_new(struct cluster_node *from, struct cluster_node *to, const struct uuid *volume_id)
{
	struct link_replica *l = mem_zalloc(sizeof(*l));
	l->replica = (struct replica){.ops = &link_ops, .pool_id = to->pool_id, .volume_id = *volume_id};
	l->from = from;
	l->to = to;
	return &l->replica;
}

void link_calls_abandon(struct cluster *cl)
{
	struct call *c;
	list_for_each (c, &cl->calls, link)
		c->waiter = NULL;
}

void link_calls_free(struct cluster *cl)
{
	struct call *c;
	while ((c = list_pop(&cl->calls, struct call, link))) {
		free(c->data);
		free(c);
	}
}
