/*
 * mirror.c: see mirror.h. The life of an engine: gather the facts, ask the plan (mirror_plan.h), take the step, again.
 */
#include "data/engine/mirror.h"

#include "base/log.h"
#include "data/engine/mirror_impl.h"

#define GRACE_NS	 (2 * NS_PER_S)
#define LEASE_NS	 (2 * NS_PER_S)
#define RETRY_NS	 (50 * NS_PER_MS)
#define INTENT_IDLE_NS	 (5 * NS_PER_S)
#define INTENTS_MAX	 1024u
#define ABSENT_MAX_NS	 (86400 * NS_PER_S)
#define FILLS_MAX	 2u
#define BACKGROUND_SHARE 25u
#define BUFFERS_BYTES	 (16 * MiB)

/* ---- waking and waiting ---------------------------------------------------------------------------------------------------- */

void mirror_kick(struct mirror *m)
{
	waitq_wake_all(&m->changed);
}

void mirror_pause(struct mirror *m, uint64_t until_ns)
{
	if (until_ns == UINT64_MAX)
		waitq_wait(&m->changed);
	else
		waitq_wait_until(&m->changed, until_ns);
}

void mirror_fenced(struct mirror *m, const char *by)
{
	if (m->was_fenced)
		return;
	m->was_fenced = true;
	m->serves = false;
	LOG_WARN("engine.fenced", "another engine has the volume", F_UUID("volume", &m->options.volume_id),
		 F_U64("epoch", m->view.epoch), F_STR("seen_at", by));
	waitq_wake_all(&m->gate);
	waitq_wake_all(&m->intents_changed);
	mirror_kick(m);
}

/* Doubling, up to twenty times the first; a random half of it is taken off. */
uint64_t mirror_backoff_ns(struct mirror *m, uint32_t tries)
{
	uint64_t most_ns = m->options.retry_ns * 20, ns = m->options.retry_ns;
	while (tries-- > 0 && ns < most_ns)
		ns *= 2;
	ns = u64_min(ns, most_ns);
	return ns / 2 + rt_random_u64(m->rt) % (ns / 2 + 1);
}

/* ---- the facts ------------------------------------------------------------------------------------------------------------- */

static void copy_facts(const struct mirror *m, uint32_t index, struct mirror_copy_facts *f)
{
	const struct copy *c = m->copies[index];
	enum view_role role = m->view.replicas[index].role;
	*f = (struct mirror_copy_facts){
		.session = c->session,
		.silent_since_ns = c->silent_since_ns,
		.failed = c->failed != 0,
		.may_lack = mirror_copy_may_lack(c),
		.is_empty = c->session == MIRROR_OPEN && !c->state.exists,
		.is_partial = role == VIEW_JOINING ? c->state.fill_begun && !c->state.is_joining
						   : c->state.is_joining || c->state.fill_begun,
		.has_chain = c->has_chain && regions_empty(&m->unsettled) && !mirror_copy_may_lack(c),
		.may_join = role == VIEW_ABSENT && c->session == MIRROR_OPEN && c->state.exists,
		.join_not_before_ns = c->join_not_before_ns};
}

static void salvage_facts(const struct mirror *m, struct mirror_facts *f)
{
	const struct order *o = mirror_salvage_ordered(m);
	f->has_salvage = o != NULL;
	for (uint32_t i = 0; o && i < m->view.replica_count; i++)
		if (uuid_equal(&m->view.replicas[i].pool_id, o->id))
			f->salvage = 1u << i;
}

void mirror_facts_gather(const struct mirror *m, struct mirror_facts *f)
{
	*f = (struct mirror_facts){.now_ns = rt_now_ns(m->rt),
				   .grace_ns = m->options.grace_ns,
				   .engine_id = m->options.engine_id,
				   .was_fenced = m->was_fenced,
				   .view_is_known = m->view_is_known,
				   .view = &m->view,
				   .seals_done = m->seals_done,
				   .serves = m->serves,
				   .wait_until_ns =
					   m->first_open_ns + m->options.lease_ns + m->options.lease_ns / 5,
				   .has_unfinished = m->unfinished > 0,
				   .has_order = !list_empty(&m->orders) && regions_empty(&m->unsettled)};
	if (!m->claimed)
		return;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		copy_facts(m, i, &f->copies[i]);
	salvage_facts(m, f);
}

/* ---- the life -------------------------------------------------------------------------------------------------------------- */

static void doing_note(struct mirror *m, const struct mirror_step *step)
{
	if (m->doing == step->todo && m->awaited == step->awaited)
		return;
	m->doing = step->todo;
	m->awaited = step->awaited;
	LOG_DEBUG("engine.step", mirror_todo_name(step->todo), F_UUID("volume", &m->options.volume_id),
		  F_U64("epoch", m->view.epoch), F_U64("copies", step->copies),
		  F_U64("awaited", step->awaited));
}

static void serve(struct mirror *m)
{
	if (!m->agreed && !mirror_copies_agree(m))
		return;
	mirror_gate_open(m);
	mirror_fill_start(m);
}

static void step_take(struct mirror *m, const struct mirror_step *step)
{
	switch (step->todo) {
	case MIRROR_ASK:
		mirror_step_ask(m);
		break;
	case MIRROR_CLAIM:
		mirror_step_claim(m);
		break;
	case MIRROR_SALVAGE:
		mirror_step_salvage(m, step->copies);
		break;
	case MIRROR_PUT_OUT:
		mirror_step_put_out(m, step->copies);
		break;
	case MIRROR_REVERT:
		mirror_step_revert(m);
		break;
	case MIRROR_SEAL:
		mirror_step_seal(m);
		break;
	case MIRROR_SERVE:
		serve(m);
		break;
	case MIRROR_TIDY:
		mirror_step_tidy(m);
		break;
	case MIRROR_ADMIT:
		mirror_step_admit(m, step->copies);
		break;
	case MIRROR_ORDER:
		mirror_step_order(m);
		break;
	case MIRROR_JOIN:
		mirror_step_join(m, step->copies);
		break;
	case MIRROR_WAIT:
		mirror_fill_start(m);
		mirror_pause(m, step->until_ns);
		break;
	case MIRROR_STOP:
	case MIRROR_TODOS:
		break;
	}
}

static void life_fiber(void *arg)
{
	struct mirror *m = arg;
	while (!m->closing) {
		struct mirror_facts facts;
		mirror_facts_gather(m, &facts);
		struct mirror_step step = mirror_plan(&facts);
		doing_note(m, &step);
		if (step.todo == MIRROR_STOP)
			break;
		step_take(m, &step);
	}
	group_done(&m->fibers);
}

/* ---- begin and end ----------------------------------------------------------------------------------------------------------- */

static int options_fill(struct rt *rt, const struct mirror_options *from, struct mirror_options *o)
{
	*o = *from;
	if (uuid_is_nil(&o->volume_id) || !o->views || !o->replica_new)
		return OXE_INVAL;
	if (uuid_is_nil(&o->engine_id))
		o->engine_id = rt_random_uuid(rt);
	o->grace_ns = o->grace_ns ? o->grace_ns : GRACE_NS;
	o->lease_ns = o->lease_ns ? o->lease_ns : LEASE_NS;
	o->retry_ns = o->retry_ns ? o->retry_ns : RETRY_NS;
	o->intent_idle_ns = o->intent_idle_ns ? o->intent_idle_ns : INTENT_IDLE_NS;
	o->absent_max_ns = o->absent_max_ns ? o->absent_max_ns : ABSENT_MAX_NS;
	o->fills_max = o->fills_max ? o->fills_max : FILLS_MAX;
	o->background_share = o->background_share ? o->background_share : BACKGROUND_SHARE;
	o->intents_max = o->intents_max ? o->intents_max : INTENTS_MAX;
	return 0;
}

static void spawn(struct mirror *m, const char *name, void (*fn)(void *arg))
{
	group_add(&m->fibers, 1);
	fiber_spawn(m->rt, name, fn, m);
}

int mirror_new(struct rt *rt, const struct mirror_options *options, struct mirror **out)
{
	struct mirror *m = mem_zalloc(sizeof(*m));
	int err = options_fill(rt, options, &m->options);
	if (err) {
		free(m);
		return err;
	}
	m->rt = rt;
	m->settle_first = REPLICA_REGIONS;
	m->pins = mem_zalloc(REPLICA_REGIONS * sizeof(*m->pins));
	m->settle_from = mem_zalloc(REPLICA_REGIONS);
	m->buffers = rt_bufpool_new(rt, BUFFERS_BYTES);
	group_init(&m->fibers);
	waitq_init(&m->changed);
	waitq_init(&m->gate);
	waitq_init(&m->room);
	waitq_init(&m->left);
	waitq_init(&m->intents_changed);
	list_init(&m->orders);
	list_init(&m->pinned);
	mirror_ranges_init(&m->ranges);
	spawn(m, "mirror-life", life_fiber);
	spawn(m, "mirror-intents", mirror_intents_fiber);
	spawn(m, "mirror-settle", mirror_settle_fiber);
	spawn(m, "mirror-janitor", mirror_janitor_fiber);
	*out = m;
	return 0;
}

static bool can_be_asked(const struct mirror *m)
{
	return m->serves && (mirror_copies_members(m) & mirror_copies_open(m));
}

int mirror_wait(struct mirror *m, uint64_t deadline_ns)
{
	while (!can_be_asked(m) && !mirror_over(m))
		if (!waitq_wait_until(&m->changed, deadline_ns))
			return OXE_TIMEOUT;
	return mirror_over(m);
}

static void orders_end(struct mirror *m)
{
	struct order *o;
	while ((o = list_pop(&m->orders, struct order, link))) {
		o->result = mirror_over(m);
		o->is_done = true;
	}
}

void mirror_stop(struct mirror *m)
{
	m->closing = true;
	m->serves = false;
	waitq_wake_all(&m->gate);
	waitq_wake_all(&m->intents_changed);
	waitq_wake_all(&m->room);
	orders_end(m);
	mirror_kick(m);
}

void mirror_close(struct mirror *m)
{
	mirror_stop(m);
	group_wait(&m->fibers);
	while (m->requests > 0)
		waitq_wait(&m->room);
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++) {
		struct copy *c = m->copies[i];
		if (c && c->replica)
			c->replica->ops->close(c->replica);
		free(c);
	}
	rt_bufpool_free(m->buffers);
	free(m->snapshots);
	free(m->pins);
	free(m->settle_from);
	free(m);
}

/* ---- looking --------------------------------------------------------------------------------------------------------------- */

static void copy_status(const struct mirror *m, uint32_t index, struct mirror_copy_status *out)
{
	const struct copy *c = m->copies[index];
	*out = (struct mirror_copy_status){.pool_id = c->pool_id,
					   .role = m->view.replicas[index].role,
					   .session = c->session,
					   .may_lack = mirror_copy_may_lack(c),
					   .last_err = c->last_err,
					   .filled_bytes = c->filled_bytes,
					   .compared_bytes = c->compared_bytes,
					   .fill_done_bytes = c->fill_done_bytes,
					   .fill_todo_bytes = c->fill_todo_bytes,
					   .joins_failed = c->joins_failed};
}

void mirror_status(const struct mirror *m, struct mirror_status *out)
{
	*out = (struct mirror_status){.serves = m->serves,
				      .was_fenced = m->was_fenced,
				      .doing = m->doing,
				      .awaited = m->awaited,
				      .epoch = m->view.epoch,
				      .size_bytes = m->size_bytes,
				      .lba_bytes = m->lba_bytes,
				      .intent_count = regions_count(&m->active),
				      .unsettled_count = regions_count(&m->unsettled),
				      .held_requests = m->serves ? 0 : m->requests,
				      .holds = m->holds,
				      .hold_ns_max = m->hold_ns_max};
	if (!m->claimed)
		return;
	out->copy_count = m->view.replica_count;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		copy_status(m, i, &out->copies[i]);
}

const struct uuid *mirror_volume_id(const struct mirror *m)
{
	return &m->options.volume_id;
}

uint64_t mirror_size_bytes(const struct mirror *m)
{
	return m->size_bytes;
}

uint32_t mirror_lba_bytes(const struct mirror *m)
{
	return m->lba_bytes;
}
