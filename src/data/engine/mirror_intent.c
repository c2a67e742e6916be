/*
 * mirror_intent.c: which regions are being written (V6).
 *
 *     a write          pins its regions; those that are not active it adds to `wanted`, and waits
 *     intents fiber    wanted -> durable on every copy in the view -> active
 *     now and then     active, not pinned, not used for a while, not unsettled -> no longer active; then the copies are flushed;
 *                      then the smaller set is made durable. In that order: a write that comes meanwhile asks anew, and waits
 *
 * With one copy in the view nothing can differ, and nothing is noted.
 */
#include "data/engine/mirror_impl.h"

bool mirror_intents_cover(const struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (copies_at_most_one(mirror_copies_in_view(m)) || MUTANT(203))
		return true;
	for (uint32_t r = region_of(m, offset_bytes); r <= region_last(m, offset_bytes, len_bytes); r++)
		if (!regions_has(&m->active, r))
			return false;
	return true;
}

static void pin_count(struct mirror *m, struct intent_pin *pin)
{
	pin->first = region_of(m, pin->offset_bytes);
	pin->last = region_last(m, pin->offset_bytes, pin->len_bytes);
	for (uint32_t r = pin->first; r <= pin->last; r++)
		m->pins[r]++;
}

void mirror_intents_pin(struct mirror *m, struct intent_pin *pin, uint64_t offset_bytes, uint64_t len_bytes)
{
	*pin = (struct intent_pin){.offset_bytes = offset_bytes, .len_bytes = len_bytes};
	if (MUTANT(203)) { /* nothing is left of intents, so that what they cost can be measured */
		list_init(&pin->link);
		pin->first = 1;
		return;
	}
	list_add_tail(&m->pinned, &pin->link);
	pin_count(m, pin);
	for (uint32_t r = pin->first; r <= pin->last; r++)
		regions_add(&m->used, r);
}

void mirror_intents_unpin(struct mirror *m, struct intent_pin *pin)
{
	list_del(&pin->link);
	for (uint32_t r = pin->first; r <= pin->last; r++) {
		assert(m->pins[r] > 0);
		m->pins[r]--;
		regions_add(&m->used, r);
	}
}

void mirror_intents_none(struct mirror *m)
{
	memset(&m->active, 0, sizeof(m->active));
	memset(&m->forgetting, 0, sizeof(m->forgetting));
}

void mirror_intents_regions_anew(struct mirror *m)
{
	struct intent_pin *pin;
	memset(m->pins, 0, REPLICA_REGIONS * sizeof(*m->pins));
	list_for_each (pin, &m->pinned, link)
		pin_count(m, pin);
	memset(&m->used, 0xff, sizeof(m->used));
	memset(&m->wanted, 0, sizeof(m->wanted)); /* whoever waits asks again */
	waitq_wake_all(&m->intents_changed);
}

/* A copy that has no room even to note it ends the request. */
int mirror_intents_get(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t failures = m->intents_failures;
	while (!mirror_intents_cover(m, offset_bytes, len_bytes)) {
		if (mirror_over(m))
			return mirror_over(m);
		if (m->intents_failures != failures)
			return m->intents_err;
		for (uint32_t r = region_of(m, offset_bytes); r <= region_last(m, offset_bytes, len_bytes);
		     r++)
			regions_add(&m->wanted, r);
		mirror_kick(m);
		waitq_wait(&m->intents_changed);
	}
	return 0;
}

struct replica_regions mirror_regions_at_risk(const struct mirror *m)
{
	struct replica_regions r = m->active;
	regions_or(&r, &m->unsettled);
	regions_or(&r, &m->forgetting);
	return r;
}

/* ---- the fiber ----------------------------------------------------------------------------------------------------------- */

/* The size may have changed while the gate was closed, and with it what a region is. */
struct intents_request {
	struct request q;
	unsigned shift;
};

static int intents_inside(struct mirror *m, struct request *q)
{
	return container_of(q, struct intents_request, q)->shift == replica_region_shift(m->size_bytes)
		       ? 0
		       : OXE_BUSY;
}

static int intents_note(struct mirror *m, const struct replica_regions *set)
{
	struct intents_request i = {.q = {.kind = REQUEST_INTENTS, .regions = set, .inside = intents_inside},
				    .shift = replica_region_shift(m->size_bytes)};
	return mirror_request_run(m, &i.q);
}

static int add_wanted(struct mirror *m)
{
	struct replica_regions set = mirror_regions_at_risk(m);
	regions_or(&set, &m->wanted);
	memset(&m->wanted, 0, sizeof(m->wanted));
	int err = intents_note(m, &set);
	if (!err) {
		m->active = set;
	} else if (err != OXE_BUSY) { /* they ask again */
		m->intents_failures++;
		m->intents_err = err;
	}
	waitq_wake_all(&m->intents_changed);
	return err;
}

static bool idle_regions(struct mirror *m, struct replica_regions *idle)
{
	bool many = regions_count(&m->active) > m->options.intents_max;
	*idle = m->active;
	regions_or(idle, &m->forgetting);
	regions_subtract(idle, &m->unsettled);
	regions_subtract(idle, &m->used);
	if (!many)
		regions_subtract(idle, &m->used_before);
	for (uint32_t r = regions_next(idle, 0); r < REPLICA_REGIONS; r = regions_next(idle, r + 1))
		if (m->pins[r] && !MUTANT(216))
			regions_remove(idle, r);
	return !regions_empty(idle);
}

/* What is not active any more is still noted on the copies, until the last step: they know more than they have to, never less. */
static int forget_idle(struct mirror *m)
{
	struct replica_regions idle, smaller;
	bool any = idle_regions(m, &idle);
	m->used_before = m->used;
	memset(&m->used, 0, sizeof(m->used));
	if (!any)
		return 0;
	regions_subtract(&m->active, &idle);
	m->forgetting = idle;
	struct request flush = {.kind = REQUEST_FLUSH};
	int err = MUTANT(215) ? 0 : mirror_request_run(m, &flush);
	if (err)
		return err; /* still at risk; the next time tries again */
	memset(&m->forgetting, 0, sizeof(m->forgetting));
	smaller = m->active = mirror_regions_at_risk(m);
	return intents_note(m, &smaller);
}

static void wait_for_work(struct mirror *m, uint64_t until_ns)
{
	while (!mirror_over(m) && regions_empty(&m->wanted) && rt_now_ns(m->rt) < until_ns)
		mirror_pause(m, regions_empty(&m->active) ? UINT64_MAX : until_ns);
}

void mirror_intents_fiber(void *arg)
{
	struct mirror *m = arg;
	uint64_t next_ns = rt_now_ns(m->rt) + m->options.intent_idle_ns;
	while (!mirror_over(m)) {
		wait_for_work(m, next_ns);
		if (!regions_empty(&m->wanted))
			(void)add_wanted(m);
		if (rt_now_ns(m->rt) < next_ns)
			continue;
		(void)forget_idle(m);
		next_ns = rt_now_ns(m->rt) + m->options.intent_idle_ns;
	}
	waitq_wake_all(&m->intents_changed);
	group_done(&m->fibers);
}
