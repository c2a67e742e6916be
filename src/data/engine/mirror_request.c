/*
 * mirror_request.c: the gate, and one call carried to every copy in the view (V1).
 *
 *                      +-------- a copy is lost: leave the gate, wait until it is back or out of the view ----------+
 *                      v                                                                                            |
 *     begin --> enter the gate --> inside() --> ask those pending, all at once --> leave --> none pending? --no-----+
 *                      ^                |                                                        | yes
 *                      |                | OXE_BUSY                                               v
 *                      +--- outside() <-+                                                     the answer
 *
 * A copy that was lost may have carried the call out, or do it until its next session begins; in that session it is asked again, which
 * changes nothing if it has: no overlapping request begins before this one ends. A copy that left the view counts no longer.
 */
#include "data/engine/mirror_impl.h"

/* ---- sets ------------------------------------------------------------------------------------------------------------- */

static uint32_t copies_of_role(const struct mirror *m, bool joining_too)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		enum view_role role = m->view.replicas[i].role;
		set |= (uint32_t)(role == VIEW_MEMBER || (joining_too && role == VIEW_JOINING)) << i;
	}
	return set;
}

uint32_t mirror_copies_in_view(const struct mirror *m)
{
	return copies_of_role(m, true);
}

uint32_t mirror_copies_members(const struct mirror *m)
{
	return copies_of_role(m, false);
}

uint32_t mirror_copies_open(const struct mirror *m)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		set |= (uint32_t)(m->copies[i]->session == MIRROR_OPEN) << i;
	return set;
}

/* ---- the gate ---------------------------------------------------------------------------------------------------------- */

int mirror_gate_enter(struct mirror *m)
{
	while (!m->serves && !mirror_over(m))
		waitq_wait(&m->gate);
	if (mirror_over(m))
		return mirror_over(m);
	m->inside++;
	return 0;
}

void mirror_gate_leave(struct mirror *m)
{
	assert(m->inside > 0);
	if (--m->inside == 0)
		waitq_wake_all(&m->left);
}

void mirror_gate_hold(struct mirror *m)
{
	if (m->serves) {
		m->serves = false;
		m->hold_since_ns = rt_now_exact_ns(m->rt);
		m->holds++;
	}
	while (m->inside > 0)
		waitq_wait(&m->left);
}

void mirror_gate_open(struct mirror *m)
{
	if (m->serves)
		return;
	if (m->hold_since_ns)
		m->hold_ns_max = u64_max(m->hold_ns_max, rt_now_exact_ns(m->rt) - m->hold_since_ns);
	m->serves = true;
	waitq_wake_all(&m->gate);
	mirror_kick(m);
}

/* ---- every copy at once ------------------------------------------------------------------------------------------------- */

static int copy_call(struct replica *r, struct request *q)
{
	switch (q->kind) {
	case REQUEST_WRITE:
		return r->ops->write(r, q->data, q->offset_bytes, q->len_bytes, MUTANT(261) ? 0 : q->flags);
	case REQUEST_ZERO:
		return r->ops->zero(r, q->offset_bytes, q->len_bytes, q->flags);
	case REQUEST_TRIM:
		return r->ops->trim(r, q->offset_bytes, q->len_bytes);
	case REQUEST_FLUSH:
		return r->ops->flush(r);
	case REQUEST_INTENTS:
		return r->ops->intents_set(r, q->regions);
	case REQUEST_LAYER_DELETE:
		return r->ops->layer_delete(r, q->layer_id);
	case REQUEST_SEAL:
		return r->ops->seal(r, q->epoch, q->layer_id, q->name);
	case REQUEST_GROW:
		return r->ops->grow(r, q->len_bytes);
	case REQUEST_RENAME:
		return r->ops->layer_rename(r, q->layer_id, q->name);
	case REQUEST_REVERT:
		return mirror_copy_revert(r, q);
	}
	return OXE_INVAL;
}

struct part {
	struct request *q;
	struct copy *copy;
	struct rt_group *group;
};

static void answer_note(struct request *q, struct copy *c, int err)
{
	uint32_t bit = mirror_copy_bit(c);
	q->pending &= ~bit;
	if (!err) {
		q->done |= bit;
		return;
	}
	if (!q->refused) {
		q->err = err;
		q->refused_by = bit;
	}
	q->refused |= bit;
}

static void part_run(void *arg)
{
	struct part *p = arg;
	uint64_t session = p->copy->session_number;
	int err = copy_call(p->copy->replica, p->q);
	if (MUTANT(244) && err == OXE_INDOUBT)
		err = 0;
	if (mirror_copy_answered(p->copy, session, err))
		answer_note(p->q, p->copy, err);
	group_done(p->group);
}

/* The copies' indices stay what they are while anybody is inside the gate, or holds it. */
void mirror_request_ask(struct mirror *m, struct request *q, uint32_t set)
{
	struct part parts[VIEW_REPLICAS_MAX];
	struct rt_group group;
	uint32_t count = 0;
	group_init(&group);
	set &= q->pending & mirror_copies_open(m);
	if (MUTANT(260) && q->kind == REQUEST_FLUSH)
		q->pending = set &= ~set + 1;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (set >> i & 1)
			parts[count++] = (struct part){.q = q, .copy = m->copies[i], .group = &group};
	group_add(&group, count);
	for (uint32_t i = 1; i < count; i++)
		fiber_spawn(m->rt, "mirror-part", part_run, &parts[i]);
	if (count > 0)
		part_run(&parts[0]);
	group_wait(&group);
}

/* ---- until all have it --------------------------------------------------------------------------------------------------- */

/* Some did it and others said no: those cannot stay as they are. What a full pool or the asker's own mistake is, is for the asker. */
static void blame(struct mirror *m, struct request *q)
{
	if (!(q->done & mirror_copies_in_view(m)) || q->err == OXE_RANGE || q->err == OXE_ALIGN ||
	    q->err == OXE_BUSY || q->err == OXE_INVAL)
		return;
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		if (!(q->refused >> i & 1))
			continue;
		if (q->err == OXE_NOSPC && m->view.replicas[i].role == VIEW_MEMBER)
			continue;
		if (!mirror_copy_fail(m->copies[i], q->err, "it refused what others accepted"))
			continue;
		q->refused &= ~(1u << i);
		q->pending |= 1u << i;
	}
	if (!q->refused)
		q->err = 0;
}

static bool can_go_on(const struct mirror *m, const struct request *q)
{
	uint32_t in_view = mirror_copies_in_view(m);
	if (mirror_over(m) || (q->pending & ~in_view))
		return true;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((q->pending >> i & 1) && m->copies[i]->session == MIRROR_OPEN && !m->copies[i]->failed)
			return true;
	return false;
}

static void wait_for_copies(struct mirror *m, struct request *q)
{
	if (!q->has_begun) {
		q->has_begun = true;
		m->unfinished++;
	}
	while (!can_go_on(m, q))
		waitq_wait(&m->changed);
}

/* V3: what a copy did, and then its machine was off, it does again: should it be the only one that did, nobody else would have it. */
static void doubt(struct mirror *m, struct request *q)
{
	if (m->lacks_seen == q->lacks_seen || MUTANT(225))
		return;
	q->lacks_seen = m->lacks_seen;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((q->done >> i & 1) && mirror_copy_may_lack(m->copies[i])) {
			q->done &= ~(1u << i);
			q->pending |= 1u << i;
		}
}

static int ask_all(struct mirror *m, struct request *q, bool *first)
{
	int err = q->inside ? q->inside(m, q) : 0;
	if (err)
		return err;
	if (*first || q->salvages_seen != m->salvages) {
		q->pending = mirror_copies_in_view(m);
		q->done = q->refused = 0; /* nothing was done where it counts now */
		q->err = 0;
		q->salvages_seen = m->salvages;
		q->lacks_seen = m->lacks_seen;
	}
	*first = false;
	q->pending &= mirror_copies_in_view(m);
	mirror_request_ask(m, q, q->pending);
	if (MUTANT(210) && q->done)
		q->pending &= mirror_copies_open(m);
	blame(m, q);
	doubt(m, q);
	return 0;
}

int mirror_request_run(struct mirror *m, struct request *q)
{
	bool first = true;
	int err;
	do {
		if (!first)
			wait_for_copies(m, q);
		err = mirror_gate_enter(m);
		if (err)
			break;
		err = ask_all(m, q, &first);
		mirror_gate_leave(m);
		if (err == OXE_BUSY && q->outside)
			err = q->outside(m, q);
	} while (!err && (first || (q->pending && !(MUTANT(201) && q->done))));
	if (q->has_begun) {
		m->unfinished--;
		mirror_kick(m);
	}
	return err ? err : q->err;
}
