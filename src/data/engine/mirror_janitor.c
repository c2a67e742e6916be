/*
 * mirror_janitor.c: layers that no user named are merged away when no copy needs them any more.
 *
 *     the view's seals       until all have sealed
 *     a copy's join layer    until it is a member
 *     an absent copy's seal  until it is back; at the latest until it has been away for absent_max_ns, or absent_max_bytes were written since
 *                            it left, as far as this engine knows. Then the view lets go of it: should the copy return, it is compared whole
 *
 * While somebody joins all of them stay: one may be the last that both have. What is wanted of them besides (who differs where) is in the view,
 * so that merging one too early costs time, and no data.
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

#define LOOK_AGAIN_NS (NS_PER_S)

static bool layer_is_needed(const struct mirror *m, const struct uuid *id)
{
	for (uint32_t i = 0; i < m->view.seal_count; i++)
		if (uuid_equal(&m->view.seals[i], id))
			return true;
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		const struct view_replica *e = &m->view.replicas[i];
		if (uuid_equal(&e->seal_id, id) || uuid_equal(&e->join_id, id))
			return true;
	}
	return false;
}

static bool may_clean(const struct mirror *m)
{
	return m->serves && m->view_is_known && m->view.seal_count == 0 &&
	       view_count(&m->view, VIEW_JOINING) == 0;
}

/* ---- what absent copies need ----------------------------------------------------------------------------------------------- */

void mirror_absence_begin(struct copy *c)
{
	c->absent_since_ns = rt_now_ns(c->m->rt);
	c->absent_since_bytes = c->m->written_bytes;
}

static bool holds_layers(const struct view_replica *e)
{
	return e->role == VIEW_ABSENT && !uuid_is_nil(&e->seal_id) && !view_replica_is_doubted(e);
}

static bool is_over_the_limit(const struct mirror *m, const struct copy *c)
{
	uint64_t max_bytes = m->options.absent_max_bytes ? m->options.absent_max_bytes : m->size_bytes;
	return rt_now_ns(m->rt) - c->absent_since_ns >= m->options.absent_max_ns ||
	       m->written_bytes - c->absent_since_bytes >= max_bytes;
}

int mirror_order_let_go(struct mirror *m, struct order *o)
{
	struct view_replica *e = view_find(&m->view, o->id);
	if (!e || !holds_layers(e))
		return 0;
	struct view *next = mirror_change_begin(m, true);
	*view_find(next, o->id) = (struct view_replica){.pool_id = *o->id, .role = VIEW_ABSENT};
	return mirror_change_end(m, next, "view.let_go",
				 "no layers are kept any more for a copy that is away") == 0
		       ? 0
		       : ORDER_AGAIN;
}

/* One at a time. False: nobody is over the limit. */
static bool let_go_of_one(struct mirror *m)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		struct uuid pool_id = m->view.replicas[i].pool_id;
		struct order o = {.kind = ORDER_LET_GO, .id = &pool_id};
		if (!holds_layers(&m->view.replicas[i]) || !is_over_the_limit(m, m->copies[i]))
			continue;
		return mirror_order_give(m, &o) == 0;
	}
	return false;
}

static bool somebody_holds_layers(const struct mirror *m)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (holds_layers(&m->view.replicas[i]))
			return true;
	return false;
}

/* ---- merging away ---------------------------------------------------------------------------------------------------------- */

static int janitor_inside(struct mirror *m, struct request *q)
{
	return !m->view_is_known || layer_is_needed(m, q->layer_id) ? OXE_BUSY : 0;
}

/* False: a copy reads it, or it is needed after all. */
static bool layer_drop(struct mirror *m, const struct uuid *id)
{
	struct request q = {.kind = REQUEST_LAYER_DELETE, .layer_id = id, .inside = janitor_inside};
	int err = mirror_request_run(m, &q);
	if (err && err != OXE_BUSY && err != OXE_FENCED && err != OXE_SHUTDOWN)
		LOG_INFO("layer.kept", "a layer that nobody needs could not be deleted yet",
			 F_UUID("volume", &m->options.volume_id), F_UUID("layer", id), F_ERR(err));
	return !err;
}

/* Inside the gate. SIZE_MAX: nobody said. */
static size_t layers_not_needed(struct mirror *m, struct replica_layer *layers)
{
	size_t count = 0, kept = 0;
	struct copy *c = mirror_copy_to_read(m, 0);
	if (!c)
		return SIZE_MAX;
	uint64_t session = c->session_number;
	int err = c->replica->ops->layers(c->replica, layers, REPLICA_LAYERS_MAX, &count, NULL);
	if (!mirror_copy_answered(c, session, err) || err)
		return SIZE_MAX;
	for (size_t i = 0; i < count; i++)
		if (pool_name_is_system(layers[i].name) && !layers[i].is_origins &&
		    !layer_is_needed(m, &layers[i].id))
			layers[kept++] = layers[i];
	return kept;
}

/* False: there is something left to do, later. */
static bool clean(struct mirror *m)
{
	struct replica_layer *layers = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*layers));
	size_t count = SIZE_MAX;
	if (mirror_gate_enter(m) == 0) {
		count = layers_not_needed(m, layers);
		mirror_gate_leave(m);
	}
	bool done = count != SIZE_MAX;
	for (size_t i = 0; done && i < count; i++)
		done = may_clean(m) && layer_drop(m, &layers[i].id);
	free(layers);
	return done;
}

/* After each change of the view there may be layers that nobody needs any more. */
void mirror_janitor_fiber(void *arg)
{
	struct mirror *m = arg;
	uint64_t cleaned_epoch = 0;
	while (!mirror_over(m)) {
		uint64_t epoch = m->view.epoch;
		if (!may_clean(m) || (cleaned_epoch == epoch && !somebody_holds_layers(m))) {
			mirror_pause(m, UINT64_MAX);
			continue;
		}
		if (let_go_of_one(m))
			continue;
		if (cleaned_epoch != epoch && clean(m))
			cleaned_epoch = epoch;
		else if (!mirror_over(m))
			mirror_pause(m, rt_now_ns(m->rt) + LOOK_AGAIN_NS);
	}
	group_done(&m->fibers);
}
