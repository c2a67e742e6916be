/* way.c: see way.h. */
#include "control/node/way.h"

#include <stdio.h>

struct way {
	struct replica base;
	struct list link;
	struct ways *ways;
	struct replica *behind; /* NULL: nothing */
	struct way_place place; /* where `behind` is, or why there is none */
	uint32_t users;		/* calls that went through */
	uint32_t holders;	/* fibers that let it go: it is not freed under them */
	bool is_closed;		/* by who had it */
	bool is_let_go;		/* somebody waits for users, to close what is behind */
	struct waitq changed;	/* users is 0; it was let go */
	uint64_t lost_since_wall_ns;
};

#define COPY_NAME "~copy-"

bool way_name_is_copy(const char *name)
{
	return strncmp(name, COPY_NAME, sizeof(COPY_NAME) - 1) == 0;
}

static struct way *way_of(struct replica *r)
{
	return container_of(r, struct way, base);
}

/* ---- through it ---------------------------------------------------------------------------------------------------------- */

static bool cannot_be_asked(int err)
{
	return err == OXE_INDOUBT || err == OXE_CLOSED || err == OXE_NOTREADY;
}

static int way_enter(struct way *w)
{
	if (!w->behind || w->is_let_go)
		return OXE_CLOSED;
	w->users++;
	return 0;
}

static int way_leave(struct way *w, int err)
{
	if (cannot_be_asked(err) && !w->lost_since_wall_ns)
		w->lost_since_wall_ns = rt_wall_ns(w->ways->rt);
	if (--w->users == 0)
		waitq_wake_all(&w->changed);
	return err;
}

/* A verb with its arguments, carried to what is behind. */
#define THROUGH(r, verb, ...)                                                                                \
	({                                                                                                   \
		struct way *way_ = way_of(r);                                                                \
		int err_ = way_enter(way_);                                                                  \
		if (!err_)                                                                                   \
			err_ = way_leave(way_, way_->behind->ops->verb(way_->behind, ##__VA_ARGS__));        \
		err_;                                                                                        \
	})

static int way_ping(struct replica *r)
{
	return THROUGH(r, ping);
}

static int way_create(struct replica *r, const struct volume_spec *spec)
{
	struct volume_spec named = *spec;
	char text[UUID_TEXT_LEN + 1];
	snprintf(named.name, sizeof(named.name), COPY_NAME "%s", uuid_format(&spec->id, text));
	return THROUGH(r, create, &named);
}

static int way_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return THROUGH(r, read, data, offset_bytes, len_bytes);
}

static int way_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		     unsigned vol_flags)
{
	return THROUGH(r, write, data, offset_bytes, len_bytes, vol_flags);
}

static int way_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	return THROUGH(r, zero, offset_bytes, len_bytes, vol_flags);
}

static int way_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	return THROUGH(r, trim, offset_bytes, len_bytes);
}

static int way_flush(struct replica *r)
{
	return THROUGH(r, flush);
}

static int way_intents_set(struct replica *r, const struct replica_regions *regions)
{
	return THROUGH(r, intents_set, regions);
}

static int way_made_good(struct replica *r)
{
	return THROUGH(r, made_good);
}

static int way_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	return THROUGH(r, seal, epoch, layer_id, name);
}

static int way_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	return THROUGH(r, layer_delete, layer_id);
}

static int way_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return THROUGH(r, layer_rename, layer_id, name);
}

static int way_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	return THROUGH(r, revert, layer_id, head_id);
}

static int way_grow(struct replica *r, uint64_t size_bytes)
{
	return THROUGH(r, grow, size_bytes);
}

static int way_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
		      size_t *filled_count)
{
	return THROUGH(r, layers, layers, max, count, filled_count);
}

static int way_layer_read(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			  uint64_t len_bytes)
{
	return THROUGH(r, layer_read, layer_id, data, offset_bytes, len_bytes);
}

static int way_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
			     uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			     size_t max_extents, size_t *extent_count)
{
	return THROUGH(r, layer_extents, layer_id, since_id, offset_bytes, len_bytes, extents, max_extents,
		       extent_count);
}

static int way_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
			       uint64_t len_bytes, uint32_t *crcs)
{
	return THROUGH(r, layer_checksums, layer_id, offset_bytes, len_bytes, crcs);
}

static int way_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	return THROUGH(r, join_begin, join_id, size_bytes);
}

static int way_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return THROUGH(r, fill, data, offset_bytes, len_bytes);
}

static int way_fill_grow(struct replica *r, uint64_t size_bytes)
{
	return THROUGH(r, fill_grow, size_bytes);
}

static int way_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return THROUGH(r, fill_seal, layer_id, name);
}

static int way_join_end(struct replica *r)
{
	return THROUGH(r, join_end);
}

/* ---- where it leads ------------------------------------------------------------------------------------------------------- */

/* What is behind is closed once nothing is under way there. One at a time lets go; another waits for that. */
static void behind_close(struct way *w)
{
	while (w->is_let_go)
		waitq_wait(&w->changed);
	if (!w->behind)
		return;
	w->is_let_go = true;
	while (w->users > 0)
		waitq_wait(&w->changed);
	w->behind->ops->close(w->behind);
	w->behind = NULL;
	w->is_let_go = false;
	waitq_wake_all(&w->changed);
}

static bool place_equal(const struct way_place *a, const struct way_place *b)
{
	return a->door == b->door && strcmp(a->address, b->address) == 0;
}

static struct replica *behind_make(struct way *w)
{
	struct ways *all = w->ways;
	if (w->place.door)
		return replica_local_new(w->place.door, &w->base.volume_id);
	if (*w->place.address && all->remote_new)
		return all->remote_new(all->ctx, w->place.address, &w->base.pool_id, &w->base.volume_id);
	return NULL;
}

/* Look, until nothing suspended between looking and making: a door may go meanwhile. */
static int way_find(struct way *w)
{
	struct way_place place;
	for (;;) {
		place = (struct way_place){0};
		w->ways->look(w->ways->ctx, &w->base.pool_id, &place);
		if (w->behind && !w->is_let_go && place_equal(&place, &w->place))
			return 0;
		if (!w->behind && !w->is_let_go)
			break;
		behind_close(w);
	}
	w->place = place;
	w->behind = behind_make(w);
	if (w->behind)
		w->base.is_local = w->behind->is_local;
	return w->behind ? 0 : OXE_NOTREADY;
}

static int way_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		    struct replica_state *out)
{
	struct way *w = way_of(r);
	*out = (struct replica_state){0};
	int err = way_find(w);
	if (!err)
		err = THROUGH(r, open, epoch, engine_id, out);
	if (!err)
		w->lost_since_wall_ns = 0;
	else if (!w->lost_since_wall_ns)
		w->lost_since_wall_ns = rt_wall_ns(w->ways->rt);
	return err;
}

static void way_close(struct replica *r)
{
	struct way *w = way_of(r);
	behind_close(w);
	list_del(&w->link);
	w->is_closed = true;
	if (!w->holders)
		free(w);
}

static const struct replica_ops way_ops = {
	.open = way_open,
	.ping = way_ping,
	.create = way_create,
	.read = way_read,
	.write = way_write,
	.zero = way_zero,
	.trim = way_trim,
	.flush = way_flush,
	.intents_set = way_intents_set,
	.made_good = way_made_good,
	.seal = way_seal,
	.layer_delete = way_layer_delete,
	.layer_rename = way_layer_rename,
	.revert = way_revert,
	.grow = way_grow,
	.layers = way_layers,
	.layer_read = way_layer_read,
	.layer_extents = way_layer_extents,
	.layer_checksums = way_layer_checksums,
	.join_begin = way_join_begin,
	.fill = way_fill,
	.fill_grow = way_fill_grow,
	.fill_seal = way_fill_seal,
	.join_end = way_join_end,
	.close = way_close,
};

/* ---- all of them ------------------------------------------------------------------------------------------------------------ */

void ways_init(struct ways *w, struct rt *rt)
{
	*w = (struct ways){.rt = rt};
	list_init(&w->all);
}

struct replica *way_new(struct ways *ways, const struct uuid *pool_id, const struct uuid *volume_id)
{
	struct way *w = mem_zalloc(sizeof(*w));
	w->base = (struct replica){.ops = &way_ops, .pool_id = *pool_id, .volume_id = *volume_id};
	w->ways = ways;
	waitq_init(&w->changed);
	list_add_tail(&ways->all, &w->link);
	return &w->base;
}

static struct way *way_through(const struct ways *ways, const struct replica_door *door)
{
	struct way *w;
	list_for_each (w, &ways->all, link) {
		if (w->behind && w->place.door == door)
			return w;
	}
	return NULL;
}

bool ways_hold(const struct ways *ways, const struct replica_door *door)
{
	return way_through(ways, door) != NULL;
}

/* A way may be closed, and others come, while one is waited for: look from the start each time. */
void ways_let_go(struct ways *ways, const struct replica_door *door)
{
	struct way *w;
	while ((w = way_through(ways, door))) {
		w->holders++;
		behind_close(w);
		if (--w->holders == 0 && w->is_closed)
			free(w);
	}
}

void way_status(const struct ways *ways, const struct uuid *pool_id, const struct uuid *volume_id,
		struct way_status *out)
{
	struct way *w;
	*out = (struct way_status){0};
	list_for_each (w, &ways->all, link) {
		if (!uuid_equal(&w->base.pool_id, pool_id) || !uuid_equal(&w->base.volume_id, volume_id))
			continue;
		out->is_there = true;
		out->lost_since_wall_ns = w->lost_since_wall_ns;
		memcpy(out->address, w->place.address, sizeof(out->address));
		const char *why = w->behind && *w->place.address && ways->remote_why
					  ? ways->remote_why(w->behind)
					  : w->place.why;
		snprintf(out->why, sizeof(out->why), "%s", why);
	}
}
