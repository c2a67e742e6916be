/*
 * mirror_snapshot.c: snapshots of a mirrored volume: the list of them, their names, reading them, and going back to one.
 *
 * Names are changed, and the volume goes back, as orders: one at a time, with the gate held, so a start finds one of them half done at most.
 *
 *     a name     half changed is made one by mirror_layers_agree(); a copy that was away hears of it when it is filled
 *     a revert   the view says so first; then, inside the same hold, each member drops the system's layers above the snapshot, and its head;
 *                then the view says that it is done. In between nothing is written or sealed, and a member that has gone back already
 *                knows it by the id of its head: so whoever finds such a view does all of it again, and nothing is done twice.
 *                If no member will, and none has, the view is put back, and the asker told
 *
 * A snapshot that has younger ones stays: their layers would be in no chain any more, and no copy could be filled with them.
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

/* ---- the list -------------------------------------------------------------------------------------------------------------- */

struct replica_layer *mirror_snapshot_find(const struct mirror *m, const struct uuid *id)
{
	for (size_t i = 0; i < m->snapshot_count; i++)
		if (uuid_equal(&m->snapshots[i].id, id))
			return &m->snapshots[i];
	return NULL;
}

static bool name_is_taken(const struct mirror *m, const char *name)
{
	for (size_t i = 0; i < m->snapshot_count; i++)
		if (strcmp(m->snapshots[i].name, name) == 0)
			return true;
	return false;
}

void mirror_snapshot_note(struct mirror *m, const struct uuid *id, const char *name, uint64_t size_bytes)
{
	if (mirror_snapshot_find(m, id))
		return;
	if (m->snapshot_count == m->snapshot_room) {
		m->snapshot_room = m->snapshot_room ? 2 * m->snapshot_room : 16;
		m->snapshots = mem_realloc(m->snapshots, m->snapshot_room * sizeof(*m->snapshots));
	}
	struct replica_layer *l = &m->snapshots[m->snapshot_count++];
	*l = (struct replica_layer){.id = *id, .size_bytes = size_bytes};
	strncpy(l->name, name, POOL_NAME_MAX);
}

void mirror_snapshot_forget(struct mirror *m, const struct uuid *id)
{
	struct replica_layer *l = mirror_snapshot_find(m, id);
	if (!l)
		return;
	size_t after = m->snapshot_count - (size_t)(l - m->snapshots) - 1;
	memmove(l, l + 1, after * sizeof(*l));
	m->snapshot_count--;
}

void mirror_snapshot_walk(const struct mirror *m, bool (*fn)(void *ctx, const struct replica_layer *layer),
			  void *ctx)
{
	for (size_t i = 0; i < m->snapshot_count; i++)
		if (!fn(ctx, &m->snapshots[i]))
			break;
}

/* A copy that is just read from there has to finish first. */
int mirror_layer_delete(struct mirror *m, const struct uuid *layer_id)
{
	int err = mirror_call_begin(m);
	if (err)
		return err;
	for (uint32_t tries = 0;; tries++) {
		struct request q = {.kind = REQUEST_LAYER_DELETE, .layer_id = layer_id};
		err = mirror_request_run(m, &q);
		if (!err)
			mirror_snapshot_forget(m, layer_id);
		if (err != OXE_BUSY)
			return mirror_call_end(m, err);
		mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, tries));
	}
}

/* ---- reading --------------------------------------------------------------------------------------------------------------- */

static int layer_ask(struct replica *r, struct reading *reading)
{
	return r->ops->layer_read(r, reading->layer_id, reading->data, reading->offset_bytes,
				  reading->len_bytes);
}

int mirror_layer_read(struct mirror *m, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
		      uint64_t len_bytes)
{
	struct reading r = {.ask = layer_ask,
			    .layer_id = layer_id,
			    .data = data,
			    .offset_bytes = offset_bytes,
			    .len_bytes = len_bytes};
	int err = mirror_call_begin(m);
	if (err)
		return err;
	return mirror_call_end(m, len_bytes > 0 ? mirror_reading_run(m, &r) : 0);
}

static int extents_ask(struct replica *r, struct reading *reading)
{
	return r->ops->layer_extents(r, reading->layer_id, reading->since_id, reading->offset_bytes,
				     reading->len_bytes, reading->extents, reading->max, reading->count);
}

/* Of the head no more than is settled, and nothing that is just being written. */
static int extents_of_head(struct mirror *m, struct reading *r)
{
	struct range range;
	uint64_t end_bytes;
	if (!u64_add_checked(r->offset_bytes, r->len_bytes, &end_bytes) || end_bytes > m->size_bytes)
		return OXE_RANGE;
	mirror_blocks_lock(m, &range, r->offset_bytes, r->len_bytes, false);
	int err = mirror_reading_run(m, r);
	mirror_range_unlock(&m->ranges, &range);
	return err;
}

int mirror_extents(struct mirror *m, const struct uuid *layer_id, const struct uuid *since_id,
		   uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents, size_t max,
		   size_t *count)
{
	struct reading r = {.ask = extents_ask,
			    .layer_id = layer_id,
			    .since_id = since_id,
			    .offset_bytes = offset_bytes,
			    .len_bytes = len_bytes,
			    .extents = extents,
			    .max = max,
			    .count = count};
	int err = mirror_call_begin(m);
	if (err)
		return err;
	*count = 0;
	if (len_bytes > 0)
		err = layer_id ? mirror_reading_run(m, &r) : extents_of_head(m, &r);
	return mirror_call_end(m, err);
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

/* A copy that joins may have neither the layer yet nor room for the name: its filling sees to that. One that is filled has both. */
static bool joining_renamed(struct mirror *m, const struct order *o)
{
	uint32_t joining = mirror_copies_in_view(m) & ~mirror_copies_members(m);
	struct request q = {.kind = REQUEST_RENAME, .layer_id = o->id, .name = o->name, .pending = joining};
	mirror_request_ask(m, &q, joining);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((q.refused >> i & 1) && m->copies[i]->has_chain)
			mirror_copy_fail(m->copies[i], q.err, "it could not rename a layer");
	return !q.pending;
}

int mirror_order_rename(struct mirror *m, struct order *o)
{
	struct replica_layer *l = mirror_snapshot_find(m, o->id);
	struct request q = {.kind = REQUEST_RENAME,
			    .layer_id = o->id,
			    .name = o->name,
			    .pending = mirror_copies_members(m)};
	if (!l)
		return OXE_NOENT;
	if (strcmp(l->name, o->name) != 0 && name_is_taken(m, o->name))
		return OXE_EXISTS;
	m->renames++;
	mirror_request_ask(m, &q, q.pending);
	if (q.refused && !q.done)
		return q.err;
	if (!mirror_all_answered(m, &q, mirror_copies_members(m)) || !joining_renamed(m, o))
		return ORDER_AGAIN;
	memset(l->name, 0, sizeof(l->name));
	strncpy(l->name, o->name, POOL_NAME_MAX);
	return 0;
}

int mirror_layer_rename(struct mirror *m, const struct uuid *layer_id, const char *name)
{
	struct order o = {.kind = ORDER_RENAME, .id = layer_id, .name = name};
	int err = pool_name_check(name);
	return err ? err : mirror_order_give(m, &o);
}

/* ---- going back ------------------------------------------------------------------------------------------------------------ */

static void entry_follow_revert(struct view_replica *e)
{
	if (e->role != VIEW_MEMBER && !(MUTANT(252) && e->role == VIEW_ABSENT))
		view_replica_unknown(e);
}

static int revert_promise(struct mirror *m, const struct order *o)
{
	struct view *next = mirror_change_begin(m, true);
	next->revert_layer_id = *o->id;
	next->revert_head_id = *o->head_id;
	for (uint32_t i = 0; i < next->replica_count; i++)
		entry_follow_revert(&next->replicas[i]);
	(void)mirror_change_end(m, next, "view.reverting", "the volume goes back to a snapshot");
	return ORDER_AGAIN;
}

int mirror_order_revert(struct mirror *m, struct order *o)
{
	struct replica_layer *l = mirror_snapshot_find(m, o->id);
	if (uuid_equal(&m->view.revert_head_id, o->head_id) && !MUTANT(255))
		return 0; /* the plan has had it done before it came to an order */
	if (uuid_equal(&m->revert_refused_id, o->head_id)) {
		m->revert_refused_id = (struct uuid){0};
		return m->revert_err;
	}
	if (!l)
		return OXE_NOENT;
	if (l != &m->snapshots[m->snapshot_count - 1])
		return OXE_BUSY;
	return revert_promise(m, o);
}

static int above_delete(struct replica *r, const struct replica_layer *layers, size_t first, size_t count)
{
	int err = 0;
	for (size_t i = first; !err && i < count; i++)
		if (pool_name_is_system(layers[i].name))
			err = r->ops->layer_delete(r, &layers[i].id);
	return err;
}

int mirror_copy_revert(struct replica *r, struct request *q)
{
	struct replica_layer *layers = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*layers));
	size_t count = 0, at = 0;
	int err = r->ops->layers(r, layers, REPLICA_LAYERS_MAX, &count, NULL);
	while (!err && at < count && !uuid_equal(&layers[at].id, q->layer_id))
		at++;
	if (!err && at == count)
		err = OXE_NOENT;
	if (!err)
		err = above_delete(r, layers, at + 1, count);
	if (!err)
		err = r->ops->revert(r, q->layer_id, q->head_id);
	if (!err)
		q->len_bytes = layers[at].size_bytes;
	free(layers);
	return err;
}

/* No copy would, and none has: it never was. */
static void revert_give_up(struct mirror *m, int err)
{
	struct view *next = mirror_change_begin(m, true);
	m->revert_refused_id = m->view.revert_head_id;
	m->revert_err = err;
	next->revert_layer_id = next->revert_head_id = (struct uuid){0};
	(void)mirror_change_end(m, next, "view.revert_refused", "no copy goes back to the snapshot");
}

/* All heads are the snapshot: nothing differs, and what was noted of the head before is of no use. */
static void revert_done(struct mirror *m, uint64_t size_bytes)
{
	uint32_t in_view = mirror_copies_in_view(m);
	m->size_bytes = size_bytes;
	mirror_intents_none(m);
	mirror_intents_regions_anew(m);
	memset(&m->unsettled, 0, sizeof(m->unsettled));
	memset(m->settle_from, 0, REPLICA_REGIONS);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		m->copies[i]->is_adopted |= in_view >> i & 1;
	m->layers_agreed = m->agreed = false;
	struct view *next = mirror_change_begin(m, true);
	next->revert_layer_id = (struct uuid){0};
	(void)mirror_change_end(m, next, "view.reverted", "the volume is as the snapshot has it");
}

void mirror_step_revert(struct mirror *m)
{
	struct request q = {.kind = REQUEST_REVERT,
			    .layer_id = &m->view.revert_layer_id,
			    .head_id = &m->view.revert_head_id};
	mirror_gate_hold(m);
	q.pending = mirror_copies_in_view(m);
	mirror_request_ask(m, &q, q.pending);
	if ((q.pending && !(MUTANT(251) && q.done)) || q.err == OXE_BUSY)
		mirror_retry_later(m);
	else if (q.refused && !q.done)
		revert_give_up(m, q.err);
	else if (mirror_all_answered(m, &q, MUTANT(251) ? q.done : mirror_copies_in_view(m)))
		revert_done(m, q.len_bytes);
}

int mirror_revert(struct mirror *m, const struct uuid *layer_id, const struct uuid *head_id,
		  uint64_t *pause_ns)
{
	struct order o = {.kind = ORDER_REVERT, .id = layer_id, .head_id = head_id};
	if (uuid_is_nil(layer_id) || uuid_is_nil(head_id))
		return OXE_INVAL;
	int err = mirror_order_give(m, &o);
	if (pause_ns)
		*pause_ns = o.pause_ns;
	return err;
}
