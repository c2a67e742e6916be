/*
 * mirror_salvage.c: the volume goes on with one copy, because a person said so (V9).
 *
 *     before   members [sure, silent] [may lack]   absent, joining ...
 *     after    the one that was named is the only member; every other copy is absent, and doubted
 *
 * One swap, and nothing before it that could be left half done but the end of a join, which is done again without harm. What the others may have
 * that this one has not is lost, on purpose. Who returns is therefore doubted (view.h): it may have sealed a layer of the same id after this
 * copy lost what is in it, so that layers prove nothing, and everything is compared.
 *
 * The view's seals go: they were there to tell who was left behind from whom, and the others may have done them with other content. So does a
 * revert that this copy, not being a member, had no part in.
 *
 * What nobody here can know is whether the members that do not answer serve somebody: an engine that has only them, and cannot see the view, is not
 * fenced by this. Whoever says salvage vouches that they are off.
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

/* ---- the order ------------------------------------------------------------------------------------------------------------- */

const struct order *mirror_salvage_ordered(const struct mirror *m)
{
	const struct order *o;
	list_for_each (o, &m->orders, link)
		if (o->kind == ORDER_SALVAGE)
			return o;
	return NULL;
}

static void order_end(struct mirror *m, int result)
{
	struct order *o;
	list_for_each (o, &m->orders, link) {
		if (o->kind != ORDER_SALVAGE)
			continue;
		list_del(&o->link);
		o->result = result;
		o->is_done = true;
		break;
	}
	mirror_kick(m);
}

/* ---- what it has ----------------------------------------------------------------------------------------------------------- */

/* Made by order, and nothing was ever put in it. */
static bool says_nothing(struct copy *c)
{
	struct replica_layer layers[1];
	struct vol_extent extents[2];
	struct replica_ops const *ops = c->replica->ops;
	uint64_t session = c->session_number;
	size_t count = 0;
	int err = ops->layers(c->replica, layers, 1, &count, NULL);
	if (!mirror_copy_answered(c, session, err) || err || count > 0)
		return false;
	err = ops->layer_extents(c->replica, NULL, NULL, 0, c->state.size_bytes, extents, 2, &count);
	return mirror_copy_answered(c, session, err) && !err && count == 1 &&
	       (extents[0].flags & VOL_EXTENT_HOLE);
}

/* Its new head goes upon its chain, if that is whole. OXE_BUSY: it is not. */
static int join_finish(struct copy *c)
{
	uint64_t session = c->session_number;
	bool was_grafted = c->was_grafted;
	if (!c->state.is_joining)
		return 0;
	c->was_grafted = true;
	int err = c->replica->ops->join_end(c->replica);
	if (!mirror_copy_answered(c, session, err))
		return OXE_NOTREADY;
	c->state.is_joining = err != 0;
	c->was_grafted = was_grafted || !err;
	return err == OXE_INVAL ? OXE_BUSY : err;
}

static int copy_prepare(struct mirror *m, struct copy *c)
{
	enum view_role role = mirror_copy_entry(c)->role;
	struct mirror_facts facts;
	mirror_facts_gather(m, &facts);
	int err = mirror_salvage_check(&facts);
	if (!err && role == VIEW_ABSENT && says_nothing(c))
		err = OXE_NOENT;
	if (!err && role == VIEW_JOINING)
		err = join_finish(c);
	return !err && c->session != MIRROR_OPEN ? OXE_NOTREADY : err;
}

/* ---- the view -------------------------------------------------------------------------------------------------------------- */

static void entry_leave(struct mirror *m, struct view *next, uint32_t index, const struct uuid *doubt_id)
{
	struct view_replica *e = &next->replicas[index];
	next->must_wait |= e->role == VIEW_MEMBER && !m->copies[index]->was_opened;
	*e = (struct view_replica){.pool_id = e->pool_id,
				   .role = VIEW_ABSENT,
				   .seal_id = *doubt_id,
				   .missed_shift = VIEW_DOUBT_SHIFT};
	memset(&e->missed, 0xff, sizeof(e->missed));
}

static void loss_log(const struct mirror *m, const struct copy *c, enum view_role role, int err)
{
	LOG_WARN("volume.salvaged",
		 "a person had the volume go on with one copy, whatever others may have had",
		 F_UUID("volume", &m->options.volume_id), F_UUID("pool", &c->pool_id),
		 F_STR("was", view_role_name(role)), F_U64("epoch_before", c->state.epoch_before),
		 F_U64("epoch", m->view.epoch), F_U64("regions_in_doubt", regions_count(&c->state.intents)),
		 F_U64("region_bytes", (uint64_t)1 << replica_region_shift(c->state.size_bytes)), F_ERR(err));
}

static int view_salvage(struct mirror *m, uint32_t index)
{
	struct copy *c = m->copies[index];
	enum view_role role = m->view.replicas[index].role;
	struct uuid doubt_id = rt_random_uuid(m->rt);
	struct view *next = mirror_change_begin(m, true);
	next->seal_count = 0;
	memset(next->seals, 0, sizeof(next->seals));
	if (role != VIEW_MEMBER && view_is_reverting(next))
		next->revert_layer_id = next->revert_head_id = (struct uuid){0};
	for (uint32_t i = 0; i < next->replica_count; i++)
		if (i != index)
			entry_leave(m, next, i, &doubt_id);
	next->replicas[index] = (struct view_replica){.pool_id = c->pool_id, .role = VIEW_MEMBER};
	int err = mirror_change_end(m, next, "view.salvaged", "one copy is all there is from now on");
	loss_log(m, c, role, err);
	return err;
}

/* And answers. */
static bool is_alone(const struct mirror *m, uint32_t index)
{
	return m->view.replicas[index].role == VIEW_MEMBER && mirror_copies_in_view(m) == 1u << index &&
	       m->copies[index]->session == MIRROR_OPEN;
}

/* A swap that failed is tried again by the plan, for as long as the order stands. */
void mirror_step_salvage(struct mirror *m, uint32_t copies)
{
	if (!copies) {
		order_end(m, OXE_NOENT);
		return;
	}
	uint32_t index = (uint32_t)__builtin_ctz(copies);
	if (is_alone(m, index)) {
		order_end(m, 0);
		return;
	}
	mirror_gate_hold(m);
	int err = copy_prepare(m, m->copies[index]);
	if (err)
		order_end(m, err);
	else
		(void)view_salvage(m, index);
}

int mirror_salvage(struct mirror *m, const struct uuid *pool_id)
{
	struct order o = {.kind = ORDER_SALVAGE, .id = pool_id};
	return mirror_order_give(m, &o);
}

int mirror_salvage_look(const struct mirror *m, const struct uuid *pool_id, struct mirror_loss *out)
{
	struct mirror_facts f;
	*out = (struct mirror_loss){.role = VIEW_ABSENT};
	mirror_facts_gather(m, &f);
	f.salvage = 0;
	for (uint32_t i = 0; m->claimed && i < m->view.replica_count; i++) {
		const struct copy *c = m->copies[i];
		if (!uuid_equal(&c->pool_id, pool_id))
			continue;
		f.salvage = 1u << i;
		out->role = m->view.replicas[i].role;
		out->epoch_before = c->state.epoch_before;
		out->region_count = regions_count(&c->state.intents);
		out->region_bytes = (uint64_t)1 << replica_region_shift(c->state.size_bytes);
		out->is_alone = is_alone(m, i);
	}
	return out->is_alone ? 0 : m->claimed ? mirror_salvage_check(&f) : OXE_NOTREADY;
}
