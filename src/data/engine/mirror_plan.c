/* mirror_plan.c: see mirror_plan.h, whose table this is. */
#include "data/engine/mirror_plan.h"

#include "base/mutant.h"

const char *mirror_todo_name(enum mirror_todo todo)
{
	static const char *const names[MIRROR_TODOS] = {"stop",	  "ask",  "claim", "salvage", "put out",
							"revert", "seal", "serve", "tidy",    "admit",
							"order",  "join", "wait"};
	return todo < MIRROR_TODOS ? names[todo] : "unknown";
}

/* ---- sets of copies, as bits ------------------------------------------------------------------------------------------- */

/* The bound is said twice so that a compiler sees it, too. */
static uint32_t copies_count(const struct mirror_facts *f)
{
	return f->view->replica_count < VIEW_REPLICAS_MAX ? f->view->replica_count : VIEW_REPLICAS_MAX;
}

static uint32_t copies_of(const struct mirror_facts *f, enum view_role role)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++)
		set |= (uint32_t)(f->view->replicas[i].role == role) << i;
	return set;
}

static uint32_t plan_open(const struct mirror_facts *f)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++)
		set |= (uint32_t)(f->copies[i].session == MIRROR_OPEN) << i;
	return set;
}

/* V12: who has been silent for long enough. */
static uint32_t copies_silent(const struct mirror_facts *f)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++) {
		const struct mirror_copy_facts *c = &f->copies[i];
		bool silent = c->session != MIRROR_OPEN && f->now_ns >= c->silent_since_ns + f->grace_ns;
		set |= (uint32_t)silent << i;
	}
	return set;
}

static uint32_t copies_failed(const struct mirror_facts *f)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++)
		set |= (uint32_t)f->copies[i].failed << i;
	return set;
}

static uint32_t copies_that_may_lack(const struct mirror_facts *f)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++)
		set |= (uint32_t)(f->copies[i].may_lack && !MUTANT(241)) << i;
	return set;
}

static uint64_t grace_ends_ns(const struct mirror_facts *f, uint32_t silent)
{
	uint64_t until_ns = UINT64_MAX;
	for (uint32_t i = 0; i < copies_count(f); i++)
		if (silent >> i & 1)
			until_ns = u64_min(until_ns, f->copies[i].silent_since_ns + f->grace_ns);
	return until_ns;
}

static uint32_t first_of(uint32_t set)
{
	return set & (~set + 1);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------- */

static struct mirror_step step_of(enum mirror_todo todo, uint32_t copies)
{
	return (struct mirror_step){.todo = todo, .copies = copies, .until_ns = UINT64_MAX};
}

static struct mirror_step wait_for(uint32_t awaited, uint64_t until_ns)
{
	return (struct mirror_step){.todo = MIRROR_WAIT, .awaited = awaited, .until_ns = until_ns};
}

static bool must_wait_still(const struct mirror_facts *f)
{
	return f->view->must_wait && f->now_ns < f->wait_until_ns;
}

static struct mirror_step plan_join(const struct mirror_facts *f, uint32_t absent)
{
	uint64_t until_ns = UINT64_MAX;
	for (uint32_t i = 0; i < copies_count(f); i++) {
		const struct mirror_copy_facts *c = &f->copies[i];
		if (!(absent >> i & 1) || !c->may_join || c->session != MIRROR_OPEN)
			continue;
		if (f->now_ns >= c->join_not_before_ns)
			return step_of(MIRROR_JOIN, 1u << i);
		until_ns = u64_min(until_ns, c->join_not_before_ns);
	}
	return wait_for(0, until_ns);
}

/* Everybody in the view answers. */
static struct mirror_step plan_whole(const struct mirror_facts *f)
{
	uint32_t ready = 0;
	if (view_is_reverting(f->view))
		return step_of(MIRROR_REVERT, 0);
	if (!f->seals_done)
		return step_of(MIRROR_SEAL, 0);
	if (must_wait_still(f))
		return wait_for(0, f->wait_until_ns);
	if (!f->serves)
		return step_of(MIRROR_SERVE, 0);
	if (f->view->seal_count > 0 || f->view->must_wait)
		return step_of(MIRROR_TIDY, 0);
	if (f->has_unfinished)
		return wait_for(0, UINT64_MAX);
	for (uint32_t i = 0; i < copies_count(f); i++)
		ready |= (uint32_t)(f->view->replicas[i].role == VIEW_JOINING && f->copies[i].has_chain) << i;
	if (ready)
		return step_of(MIRROR_ADMIT, first_of(ready));
	if (f->has_order)
		return step_of(MIRROR_ORDER, 0);
	return plan_join(f, copies_of(f, VIEW_ABSENT));
}

static uint32_t copies_empty(const struct mirror_facts *f)
{
	uint32_t set = 0;
	for (uint32_t i = 0; i < copies_count(f); i++)
		set |= (uint32_t)f->copies[i].is_empty << i;
	return set;
}

/* Members that answer have everything, or as much as anybody: all are here. */
static bool is_whole_without(const struct mirror_facts *f)
{
	uint32_t members = copies_of(f, VIEW_MEMBER), open = plan_open(f);
	uint32_t here = members & open & ~copies_empty(f);
	return (here & ~copies_that_may_lack(f)) || (here && !(members & ~open));
}

int mirror_salvage_check(const struct mirror_facts *f)
{
	if (!f->salvage)
		return OXE_NOENT;
	if (is_whole_without(f))
		return OXE_EXISTS;
	const struct mirror_copy_facts *c = &f->copies[__builtin_ctz(f->salvage) % VIEW_REPLICAS_MAX];
	if (c->session != MIRROR_OPEN)
		return OXE_NOTREADY;
	return c->is_empty ? OXE_NOENT : c->is_partial ? OXE_BUSY : 0;
}

/* Who has just fallen silent, or has not been asked yet, may be back in a moment, and nothing be lost. */
static struct mirror_step plan_salvage(const struct mirror_facts *f)
{
	uint32_t away = (copies_of(f, VIEW_MEMBER) | f->salvage) & ~plan_open(f) & ~copies_silent(f);
	if (away && f->salvage && !is_whole_without(f))
		return wait_for(away, grace_ends_ns(f, away));
	return step_of(MIRROR_SALVAGE, f->salvage);
}

struct mirror_step mirror_plan(const struct mirror_facts *f)
{
	if (f->was_fenced)
		return step_of(MIRROR_STOP, 0);
	if (!f->view_is_known)
		return step_of(MIRROR_ASK, 0);
	if (!uuid_equal(&f->view->engine_id, &f->engine_id))
		return step_of(MIRROR_CLAIM, 0);
	if (f->has_salvage)
		return plan_salvage(f);

	uint32_t members = copies_of(f, VIEW_MEMBER), in_view = members | copies_of(f, VIEW_JOINING);
	uint32_t open = plan_open(f), silent = copies_silent(f) & in_view,
		 failed = copies_failed(f) & in_view;
	if (!(members & open))
		return wait_for(members, UINT64_MAX);
	uint32_t have_all = members & open & ~copies_that_may_lack(f);
	if (!have_all && (members & ~open))
		return wait_for(members & ~open, UINT64_MAX);
	if (!have_all) /* all are here, and nobody has more: each is as good as any */
		have_all = members;
	/* V12: a member goes only while another is left that has everything. One that has failed is better than none. */
	if (!(have_all & ~failed))
		failed &= ~members;
	if (silent | failed)
		return step_of(MIRROR_PUT_OUT, silent | failed);
	if (in_view & ~open)
		return wait_for(in_view & ~open, grace_ends_ns(f, in_view & ~open));
	return plan_whole(f);
}
