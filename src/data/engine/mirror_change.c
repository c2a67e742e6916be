/*
 * mirror_change.c: the steps that change the view, and what the copies have to do before the next write (V2, V3, V8).
 *
 * A change is a copy of the view, edited, and swapped for the one that was read. When nobody knows whether that happened, the view is not
 * known: nothing is acknowledged, sealed or changed until it is (V2).
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

#include <stdio.h>

/* ---- reading and swapping ------------------------------------------------------------------------------------------------- */

void mirror_retry_later(struct mirror *m)
{
	mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, m->retries++));
}

/* A copy is out of the view. A joining one that goes has failed to join, and waits longer each time (no loop without progress). */
static void copy_left(struct mirror *m, struct copy *c, enum view_role role_before)
{
	LOG_WARN("copy.out", "a copy is out of the view", F_UUID("volume", &m->options.volume_id),
		 F_UUID("pool", &c->pool_id), F_U64("epoch", m->view.epoch), F_ERR(c->last_err));
	if (role_before == VIEW_JOINING || c->failed)
		c->joins_failed++;
	c->join_not_before_ns =
		rt_now_ns(m->rt) + (c->joins_failed ? mirror_backoff_ns(m, c->joins_failed) * 4 : 0);
	c->failed = 0;
	c->has_chain = c->was_grafted = false;
	mirror_absence_begin(c);
}

/* Salvaged (V9) it may be the first member that answers, and was never in the view: nothing was asked of it, or known from it. */
static void member_became(struct mirror *m, struct copy *c, enum view_role before)
{
	if (before == VIEW_ABSENT || !m->size_bytes) /* one that joined was given the volume's */
		m->size_bytes = u64_max(m->size_bytes, c->state.size_bytes);
	m->lba_bytes = c->state.lba_bytes;
	if (!m->first_open_ns)
		m->first_open_ns = rt_now_ns(m->rt);
	if (before != VIEW_ABSENT)
		return;
	m->salvages++;
	m->layers_agreed = false;
	c->is_adopted = false;
	mirror_settle_lacking(m, c);
}

static void role_changed(struct mirror *m, struct copy *c, enum view_role before, enum view_role now)
{
	if (now == VIEW_ABSENT)
		copy_left(m, c, before);
	if (now == VIEW_JOINING) {
		c->has_chain = c->was_grafted = c->state.is_joining = false;
		c->state.may_lack = (struct replica_regions){{0}}; /* of what it had */
		c->is_adopted = true;
	}
	if (now == VIEW_MEMBER) {
		member_became(m, c, before);
		c->joins_failed = 0;
		c->suspect_id = (struct uuid){0};
	}
}

static void roles_compare(struct mirror *m, struct view *before)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		const struct view_replica *now = &m->view.replicas[i],
					  *old = view_find(before, &now->pool_id);
		if (old && old->role != now->role)
			role_changed(m, m->copies[i], old->role, now->role);
	}
}

/* Who is left is all there is: what it refuses is for the client to hear. */
static void last_one_forgiven(struct mirror *m)
{
	uint32_t members = mirror_copies_members(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (members == 1u << i)
			m->copies[i]->failed = 0;
}

/* What was done for the seals of the view before counts for this one if it names the same. */
static bool seals_are_done(const struct mirror *m, const struct view *before)
{
	const struct view *now = &m->view;
	bool same = now->seal_count == before->seal_count &&
		    memcmp(now->seals, before->seals, sizeof(now->seals)) == 0;
	return now->seal_count == 0 || (m->seals_done && same);
}

/* It is, or has just become, ours. */
static void view_follow(struct mirror *m, struct view *before)
{
	m->seals_done = seals_are_done(m, before);
	m->agreed &= m->view.epoch == before->epoch;
	mirror_copies_follow_view(m);
	if (m->claimed)
		roles_compare(m, before);
	m->claimed = true;
	last_one_forgiven(m);
}

/* What is there now, for certain. */
static void view_install(struct mirror *m, const struct view *v, uint64_t revision)
{
	struct view *before = mem_zalloc(sizeof(*before));
	*before = m->view;
	m->view = *v;
	m->revision = revision;
	m->view_is_known = true;
	m->swap_in_doubt = false;
	m->retries = 0;
	if (uuid_equal(&v->engine_id, &m->options.engine_id))
		view_follow(m, before);
	else if (m->claimed)
		mirror_fenced(m, "the view");
	free(before);
	mirror_kick(m);
}

static int view_read(struct mirror *m)
{
	uint64_t revision;
	struct view *v = mem_zalloc(sizeof(*v));
	int err = m->options.views->get(m->options.views, &m->options.volume_id, v, &revision);
	if (!err)
		view_install(m, v, revision);
	free(v);
	return err;
}

/* 0: it is the view now. Else it is not, or (view_is_known false) nobody knows. */
static int view_swap(struct mirror *m, const struct view *next)
{
	uint64_t revision = 0;
	assert(view_check(next) == 0);
	if (next != &m->swap_view)
		m->swap_view = *next;
	m->swap_revision = m->revision;
	m->view_is_known = false;
	m->swap_in_doubt = true;
	int err = m->options.views->swap(m->options.views, &m->swap_view, m->swap_revision, &revision);
	if (!err || (MUTANT(211) && err == OXE_INDOUBT)) {
		view_install(m, &m->swap_view, revision);
	} else if (err == OXE_NOTREADY || err == OXE_DIFFERS) {
		m->view_is_known = err == OXE_NOTREADY;
		m->swap_in_doubt = false;
	}
	if (err == OXE_NOTREADY)
		mirror_retry_later(m);
	return err;
}

/* The same swap again: either it was done, or it is now, or something else is there. */
static int swap_again(struct mirror *m)
{
	uint64_t revision = 0;
	int err = m->options.views->swap(m->options.views, &m->swap_view, m->swap_revision, &revision);
	if (!err)
		view_install(m, &m->swap_view, revision);
	else if (err == OXE_DIFFERS)
		err = view_read(m);
	return err;
}

void mirror_step_ask(struct mirror *m)
{
	int err = m->swap_in_doubt ? swap_again(m) : view_read(m);
	if (err)
		mirror_retry_later(m);
}

/* ---- changes ------------------------------------------------------------------------------------------------------------------ */

struct view *mirror_change_begin(struct mirror *m, bool new_epoch)
{
	struct view *next = mem_zalloc(sizeof(*next));
	*next = m->view;
	next->epoch += new_epoch;
	return next;
}

int mirror_change_end(struct mirror *m, struct view *next, const char *event, const char *what)
{
	int err = view_swap(m, next);
	LOG_INFO(event, what, F_UUID("volume", &m->options.volume_id),
		 F_UUID("engine", &m->options.engine_id), F_U64("epoch", next->epoch),
		 F_U64("members", view_count(next, VIEW_MEMBER)),
		 F_U64("joining", view_count(next, VIEW_JOINING)), F_ERR(err));
	free(next);
	return err;
}

void mirror_step_claim(struct mirror *m)
{
	struct view *next = mirror_change_begin(m, true);
	next->engine_id = m->options.engine_id;
	if (MUTANT(253))
		next->revert_layer_id = (struct uuid){0};
	(void)mirror_change_end(m, next, "engine.claimed", "this engine takes the volume");
}

static struct uuid seal_add(struct mirror *m, struct view *next)
{
	struct uuid id = rt_random_uuid(m->rt);
	assert(next->seal_count < VIEW_SEALS_MAX); /* mirror_plan.h */
	next->seals[next->seal_count++] = id;
	return id;
}

/* It is as the seal says, but for what was being written. Of one that was joining nothing new is known: its old chain is as before,
 * unless the new head may have been put upon it. */
static void entry_put_out(struct mirror *m, struct view *next, uint32_t index, const struct uuid *seal_id)
{
	struct view_replica *e = &next->replicas[index];
	struct copy *c = m->copies[index];
	bool was_member = e->role == VIEW_MEMBER;
	next->must_wait |= was_member && !c->was_opened && !MUTANT(208);
	e->role = VIEW_ABSENT;
	memset(&e->join_id, 0, sizeof(e->join_id));
	if ((view_is_reverting(next) || !uuid_is_nil(&c->suspect_id)) && !MUTANT(252)) {
		/* It may have gone back, or not; or it is to be filled from further below: nothing is known of its head. */
		view_replica_unknown(e);
	} else if (was_member) {
		e->seal_id = *seal_id;
		e->missed_shift = replica_region_shift(m->size_bytes);
		if (!MUTANT(206))
			e->missed = mirror_regions_at_risk(m);
	} else if (c->was_grafted) {
		memset(&e->seal_id, 0, sizeof(e->seal_id));
		memset(&e->missed, 0, sizeof(e->missed));
		e->missed_shift = 0;
	}
}

static bool hold_ask(struct mirror *m, struct request *q, uint32_t set);

/* V11: until now those that go had what was not flushed, too. Afterwards nobody asks them any more. */
static bool flush_those_left(struct mirror *m, uint32_t copies)
{
	struct request flush = {.kind = REQUEST_FLUSH};
	uint32_t left = mirror_copies_members(m) & mirror_copies_open(m) & ~copies;
	return MUTANT(224) || hold_ask(m, &flush, left);
}

void mirror_step_put_out(struct mirror *m, uint32_t copies)
{
	mirror_gate_hold(m);
	if (!flush_those_left(m, copies)) {
		mirror_retry_later(m);
		return;
	}
	struct view *next = mirror_change_begin(m, true);
	struct uuid seal_id = seal_add(m, next);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (copies >> i & 1)
			entry_put_out(m, next, i, &seal_id);
	(void)mirror_change_end(m, next, "view.removed",
				"copies that do not answer are taken out of the view");
}

void mirror_step_tidy(struct mirror *m)
{
	struct view *next = mirror_change_begin(m, false);
	next->seal_count = 0;
	memset(next->seals, 0, sizeof(next->seals));
	next->must_wait = false;
	(void)mirror_change_end(m, next, "view.settled", "all copies in the view have sealed");
}

/* V8. What it missed, and what it wrote when it was last written to, are where its old head may differ from the seal. */
static void entry_join(struct view_replica *e, const struct copy *c, const struct uuid *join_id)
{
	e->role = VIEW_JOINING;
	e->join_id = *join_id;
	if (uuid_is_nil(&e->seal_id) || view_replica_is_doubted(e))
		return;
	if (replica_region_shift(c->state.size_bytes) == e->missed_shift) {
		if (!MUTANT(221))
			regions_or(&e->missed, &c->state.intents);
		return;
	}
	memset(&e->seal_id, 0, sizeof(e->seal_id));
	memset(&e->missed, 0, sizeof(e->missed));
	e->missed_shift = 0;
}

static uint32_t index_of(uint32_t copies)
{
	return (uint32_t)__builtin_ctz(copies);
}

void mirror_step_join(struct mirror *m, uint32_t copies)
{
	uint32_t i = index_of(copies);
	mirror_gate_hold(m);
	if (m->unfinished || m->copies[i]->session != MIRROR_OPEN)
		return;
	struct view *next = mirror_change_begin(m, true);
	struct uuid join_id = seal_add(m, next);
	entry_join(&next->replicas[i], m->copies[i], &join_id);
	(void)mirror_change_end(m, next, "view.joining", "a copy gets every write from now on");
}

void mirror_step_admit(struct mirror *m, uint32_t copies)
{
	uint32_t i = index_of(copies);
	struct copy *c = m->copies[i];
	mirror_gate_hold(m);
	if (m->unfinished || c->session != MIRROR_OPEN || !regions_empty(&m->unsettled))
		return;
	uint64_t session = c->session_number;
	c->was_grafted = true;
	int err = c->replica->ops->join_end(c->replica);
	if (!mirror_copy_answered(c, session, err))
		return;
	if (err) {
		mirror_copy_fail(c, err, "its new head could not be put upon its chain");
		return;
	}
	c->state.is_joining = false;
	struct view *next = mirror_change_begin(m, true);
	struct view_replica *e = &next->replicas[i];
	*e = (struct view_replica){.pool_id = e->pool_id, .role = VIEW_MEMBER};
	(void)mirror_change_end(m, next, "view.admitted", "a copy has everything, and is read from now on");
}

/* ---- sealing ------------------------------------------------------------------------------------------------------------------ */

void mirror_seal_name(const struct uuid *id, char name[POOL_NAME_MAX + 1])
{
	char text[UUID_TEXT_LEN + 1];
	uuid_format(id, text);
	snprintf(name, POOL_NAME_MAX + 1, "~%.8s%.4s", text, text + 9);
}

/* A joining copy has not to seal what it begins upon. */
static uint32_t joining_upon(const struct mirror *m, const struct uuid *seal_id)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		const struct view_replica *e = &m->view.replicas[i];
		set |= (uint32_t)(e->role == VIEW_JOINING && uuid_equal(&e->join_id, seal_id)) << i;
	}
	return set;
}

bool mirror_all_answered(struct mirror *m, const struct request *q, uint32_t set)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (q->refused >> i & 1)
			mirror_copy_fail(m->copies[i], q->err, "it could not do what the view asks for");
	return !q->refused && (q->done & set) == set;
}

static bool hold_ask(struct mirror *m, struct request *q, uint32_t set)
{
	q->pending = set;
	mirror_request_ask(m, q, set);
	return mirror_all_answered(m, q, set);
}

/* Its new head may be on its chain already: then the join was ended, and the view does not know yet. */
static bool join_began(struct copy *c, const struct uuid *join_id)
{
	uint64_t session = c->session_number;
	struct replica_state *s = &c->state;
	if (s->is_joining && uuid_equal(&s->join_id, join_id) && !MUTANT(235))
		return true;
	int err = c->replica->ops->join_begin(c->replica, join_id, c->m->size_bytes);
	if (!mirror_copy_answered(c, session, err))
		return false;
	if (err)
		mirror_copy_fail(c, err, "it could not begin a new head");
	s->is_joining = !err;
	s->join_id = *join_id;
	return !err;
}

static bool seal_one(struct mirror *m, const struct uuid *seal_id)
{
	char name[POOL_NAME_MAX + 1];
	uint32_t joining = joining_upon(m, seal_id);
	struct request q = {.kind = REQUEST_SEAL, .layer_id = seal_id, .name = name, .epoch = m->view.epoch};
	mirror_seal_name(seal_id, name);
	bool done = hold_ask(m, &q, mirror_copies_in_view(m) & ~joining);
	for (uint32_t i = 0; done && i < m->view.replica_count; i++)
		if (joining >> i & 1)
			done = join_began(m->copies[i], seal_id);
	return done;
}

/* After a crash in the middle of growing, some copies are larger: no client was told, and all become so. */
static bool sizes_even(struct mirror *m)
{
	struct request q = {.kind = REQUEST_GROW, .len_bytes = m->size_bytes};
	return hold_ask(m, &q, mirror_copies_in_view(m));
}

/* Of the engine before: where its writes may have reached some and not others (V6). */
static void intents_adopt(struct mirror *m)
{
	uint32_t in_view = mirror_copies_in_view(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		struct copy *c = m->copies[i];
		if (!(in_view >> i & 1) || c->is_adopted)
			continue;
		c->is_adopted = true;
		if (replica_region_shift(c->state.size_bytes) == replica_region_shift(m->size_bytes))
			regions_or(&m->unsettled, MUTANT(204) ? &m->unsettled : &c->state.intents);
	}
	regions_or(&m->active, &m->unsettled);
}

/* A snapshot that some copies have made when another was lost: what is written next is in it nowhere, so it is made in all that are left
 * before the gate opens, and before anything is sealed upon it. */
static bool begun_snapshot_end(struct mirror *m)
{
	struct order *o = list_empty(&m->orders) ? NULL : list_first(&m->orders, struct order, link);
	if (!o || !o->has_begun)
		return true;
	struct request q = {.kind = REQUEST_SEAL, .layer_id = o->id, .name = o->name, .epoch = m->view.epoch};
	return hold_ask(m, &q, mirror_copies_in_view(m));
}

void mirror_step_seal(struct mirror *m)
{
	mirror_gate_hold(m);
	bool done = begun_snapshot_end(m);
	for (uint32_t i = 0; done && i < m->view.seal_count; i++)
		done = MUTANT(202) || seal_one(m, &m->view.seals[i]);
	if (!done) {
		mirror_retry_later(m);
		return;
	}
	m->seals_done = true;
}

/* A joining copy without a new head has it on its chain already, unless its pool is not the one it was. */
static bool joining_is_sound(struct copy *c)
{
	struct view_replica *e = mirror_copy_entry(c);
	size_t count = 0;
	if (e->role != VIEW_JOINING || (c->state.is_joining && uuid_equal(&c->state.join_id, &e->join_id)))
		return true;
	struct replica_layer *layers = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*layers));
	uint64_t session = c->session_number;
	int err = c->replica->ops->layers(c->replica, layers, REPLICA_LAYERS_MAX, &count, NULL);
	bool answered = mirror_copy_answered(c, session, err);
	for (size_t i = 0; !err && i < count; i++)
		c->was_grafted |= uuid_equal(&layers[i].id, &e->join_id);
	free(layers);
	c->has_chain |= c->was_grafted;
	if (answered && !c->was_grafted)
		mirror_copy_fail(c, err ? err : OXE_NOENT, "the new head it had begun is gone");
	return c->was_grafted;
}

bool mirror_copies_agree(struct mirror *m)
{
	struct replica_regions set;
	struct request q = {.kind = REQUEST_INTENTS, .regions = &set};
	bool sound = true;
	mirror_gate_hold(m);
	for (uint32_t i = 0; sound && i < m->view.replica_count; i++)
		sound = joining_is_sound(m->copies[i]);
	intents_adopt(m);
	set = mirror_regions_at_risk(m);
	sound = sound && begun_snapshot_end(m);
	m->layers_agreed = sound && (m->layers_agreed || mirror_layers_agree(m));
	m->agreed = m->layers_agreed && sizes_even(m) && hold_ask(m, &q, mirror_copies_in_view(m));
	if (!m->agreed)
		mirror_retry_later(m);
	return m->agreed;
}

/* ---- orders ------------------------------------------------------------------------------------------------------------------- */

static int order_snapshot(struct mirror *m, struct order *o)
{
	struct request q = {.kind = REQUEST_SEAL, .layer_id = o->id, .name = o->name, .epoch = m->view.epoch};
	q.pending = mirror_copies_in_view(m);
	m->layers_agreed = m->agreed = false;
	mirror_request_ask(m, &q, q.pending);
	if (q.refused && q.done)
		(void)mirror_all_answered(m, &q, q.pending); /* those that refused are put out */
	o->has_begun |= q.done != 0;
	m->layers_agreed = (!q.pending || (MUTANT(257) && q.done)) && !q.refused;
	if (m->layers_agreed)
		mirror_snapshot_note(m, o->id, o->name, m->size_bytes);
	return q.refused && !q.done ? q.err : m->layers_agreed ? 0 : ORDER_AGAIN;
}

/* Regions are counted by size: with none noted nothing has to be counted anew. */
static int intents_clear(struct mirror *m)
{
	struct replica_regions none = {0};
	struct request flush = {.kind = REQUEST_FLUSH}, clear = {.kind = REQUEST_INTENTS, .regions = &none};
	if (!hold_ask(m, &flush, mirror_copies_in_view(m)) || !hold_ask(m, &clear, mirror_copies_in_view(m)))
		return ORDER_AGAIN;
	mirror_intents_none(m);
	return 0;
}

static int order_grow(struct mirror *m, struct order *o)
{
	struct request q = {.kind = REQUEST_GROW, .len_bytes = o->size_bytes};
	unsigned grown = replica_region_shift(o->size_bytes) - replica_region_shift(m->size_bytes);
	if (o->size_bytes <= m->size_bytes)
		return o->size_bytes == m->size_bytes ? 0 : OXE_INVAL;
	if (grown) {
		int err = intents_clear(m);
		if (err)
			return err;
	}
	q.pending = mirror_copies_in_view(m);
	mirror_request_ask(m, &q, q.pending);
	if (q.refused && !q.done)
		return q.err;
	(void)mirror_all_answered(m, &q, mirror_copies_in_view(m));
	if ((q.pending && !MUTANT(258)) || q.refused)
		return ORDER_AGAIN;
	m->size_bytes = o->size_bytes;
	if (grown)
		mirror_intents_regions_anew(m);
	return 0;
}

static int order_add(struct mirror *m, struct order *o)
{
	if (view_find(&m->view, o->id))
		return 0;
	if (m->view.replica_count == VIEW_REPLICAS_MAX)
		return OXE_NOSPC;
	struct view *next = mirror_change_begin(m, true);
	next->replicas[next->replica_count++] = (struct view_replica){.pool_id = *o->id, .role = VIEW_ABSENT};
	return mirror_change_end(m, next, "view.copy_added", "a copy is to be made") == 0 ? 0 : ORDER_AGAIN;
}

static int order_forget(struct mirror *m, struct order *o)
{
	struct view_replica *e = view_find(&m->view, o->id);
	if (!e)
		return 0;
	if (e->role == VIEW_MEMBER && view_count(&m->view, VIEW_MEMBER) == 1)
		return OXE_BUSY;
	struct view *next = mirror_change_begin(m, true);
	size_t index = (size_t)(e - m->view.replicas);
	memmove(&next->replicas[index], &next->replicas[index + 1],
		(--next->replica_count - index) * sizeof(next->replicas[0]));
	memset(&next->replicas[next->replica_count], 0, sizeof(next->replicas[0]));
	return mirror_change_end(m, next, "view.copy_forgotten", "a copy is no longer one") == 0
		       ? 0
		       : ORDER_AGAIN;
}

static int order_run(struct mirror *m, struct order *o)
{
	switch (o->kind) {
	case ORDER_SNAPSHOT:
		return order_snapshot(m, o);
	case ORDER_GROW:
		return order_grow(m, o);
	case ORDER_ADD:
		return order_add(m, o);
	case ORDER_FORGET:
		return order_forget(m, o);
	case ORDER_RENAME:
		return mirror_order_rename(m, o);
	case ORDER_REVERT:
		return mirror_order_revert(m, o);
	case ORDER_LET_GO:
		return mirror_order_let_go(m, o);
	case ORDER_SALVAGE:
		break;
	}
	return OXE_INVAL;
}

/* One at a time. */
void mirror_step_order(struct mirror *m)
{
	struct order *o = list_first(&m->orders, struct order, link);
	uint64_t begin_ns = rt_now_exact_ns(m->rt);
	mirror_gate_hold(m);
	if (m->unfinished || list_empty(&m->orders) || list_first(&m->orders, struct order, link) != o)
		return;
	if (!regions_empty(&m->unsettled) && !MUTANT(231))
		return; /* some refused what was under way: equal again first, or they would seal what differs */
	int err = order_run(m, o);
	if (list_empty(&m->orders) || list_first(&m->orders, struct order, link) != o)
		return; /* mirror_close ended it */
	o->pause_ns += rt_now_exact_ns(m->rt) - begin_ns;
	if (err == ORDER_AGAIN)
		return;
	list_del(&o->link);
	o->result = err;
	o->is_done = true;
	mirror_kick(m);
}

int mirror_order_give(struct mirror *m, struct order *o)
{
	if (mirror_over(m))
		return mirror_over(m);
	m->requests++;
	list_add_tail(&m->orders, &o->link);
	mirror_kick(m);
	while (!o->is_done && !m->was_fenced)
		waitq_wait(&m->changed);
	if (!o->is_done) {
		list_del(&o->link);
		o->result = OXE_FENCED;
	}
	m->requests--;
	waitq_wake_all(&m->room);
	return o->result;
}

int mirror_snapshot(struct mirror *m, const struct uuid *layer_id, const char *name, uint64_t *pause_ns)
{
	struct order o = {.kind = ORDER_SNAPSHOT, .id = layer_id, .name = name};
	int err = mirror_order_give(m, &o);
	if (pause_ns)
		*pause_ns = o.pause_ns;
	return err;
}

int mirror_grow(struct mirror *m, uint64_t size_bytes)
{
	struct order o = {.kind = ORDER_GROW, .size_bytes = size_bytes};
	return mirror_order_give(m, &o);
}

int mirror_copy_add(struct mirror *m, const struct uuid *pool_id)
{
	struct order o = {.kind = ORDER_ADD, .id = pool_id};
	return mirror_order_give(m, &o);
}

int mirror_copy_forget(struct mirror *m, const struct uuid *pool_id)
{
	struct order o = {.kind = ORDER_FORGET, .id = pool_id};
	return mirror_order_give(m, &o);
}
