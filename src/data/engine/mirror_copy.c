/*
 * mirror_copy.c: one copy: opened under the view's epoch, asked now and then, opened anew for ever when it is lost.
 *
 *                open                     a call says it cannot be asked, or a question stays unanswered
 *     NEVER ------------> OPEN ---------------------------------------------------------------------> LOST
 *       ^  cannot be asked  ^                                  open                                     |  cannot be asked
 *       +----+              +---------------------------------------------------------------------------+----+
 *
 * Every session has a number: what a call of an earlier one says of the way to the copy is old news.
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

uint32_t mirror_copy_bit(const struct copy *c)
{
	for (uint32_t i = 0; i < c->m->view.replica_count; i++)
		if (c->m->copies[i] == c)
			return 1u << i;
	return 0;
}

struct view_replica *mirror_copy_entry(struct copy *c)
{
	return view_find(&c->m->view, &c->pool_id);
}

static uint64_t ping_every_ns(const struct mirror *m)
{
	return m->options.lease_ns / 4;
}

/* ---- what it says -------------------------------------------------------------------------------------------------------- */

static void copy_lost(struct copy *c, int err)
{
	struct mirror *m = c->m;
	if (c->session != MIRROR_OPEN)
		return;
	c->session = MIRROR_LOST;
	c->silent_since_ns = rt_now_ns(m->rt);
	c->last_err = err;
	LOG_WARN("copy.lost", "a copy does not answer", F_UUID("volume", &m->options.volume_id),
		 F_UUID("pool", &c->pool_id), F_U64("epoch", m->view.epoch), F_ERR(err));
	mirror_kick(m);
}

static bool way_is_broken(int err)
{
	return err == OXE_INDOUBT || err == OXE_CLOSED || err == OXE_NOTREADY || err == OXE_TIMEOUT ||
	       err == OXE_FAILED || err == OXE_SHUTDOWN;
}

bool mirror_copy_answered(struct copy *c, uint64_t session_number, int err)
{
	if (err == OXE_FENCED && session_number == c->session_number)
		mirror_fenced(c->m, "a copy");
	if (err == OXE_FENCED)
		return false;
	if (!way_is_broken(err))
		return true;
	if (session_number == c->session_number)
		copy_lost(c, err);
	return false;
}

bool mirror_copy_may_lack(const struct copy *c)
{
	return c->was_opened && (!c->state.exists || !regions_empty(&c->state.may_lack));
}

/* Members that answer and have everything. */
static uint32_t members_with_all(const struct mirror *m)
{
	uint32_t set = mirror_copies_members(m) & mirror_copies_open(m);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (mirror_copy_may_lack(m->copies[i]))
			set &= ~(1u << i);
	return set;
}

/* What the only one that has everything refuses is for the client to hear. */
static bool is_the_only_one(const struct copy *c)
{
	uint32_t with_all = members_with_all(c->m);
	return with_all == mirror_copy_bit(c) && !copies_at_most_one(mirror_copies_members(c->m));
}

bool mirror_copy_fail(struct copy *c, int err, const char *why)
{
	c->last_err = err;
	if (is_the_only_one(c))
		return false;
	if (c->failed)
		return true;
	c->failed = err;
	LOG_WARN("copy.failed", why, F_UUID("volume", &c->m->options.volume_id), F_UUID("pool", &c->pool_id),
		 F_U64("epoch", c->m->view.epoch), F_ERR(err));
	mirror_kick(c->m);
	return true;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

static int volume_create_there(struct copy *c)
{
	struct mirror *m = c->m;
	struct volume_spec spec = {
		.id = m->options.volume_id, .size_bytes = m->size_bytes, .lba_bytes = m->lba_bytes};
	if (m->size_bytes == 0)
		return OXE_NOTREADY; /* no copy has said yet how large it is */
	uuid_format(&spec.id, spec.name);
	return c->replica->ops->create(c->replica, &spec);
}

/* An absent copy may not be there at all yet; one in the view that is not there has lost everything. */
static int copy_find_or_make(struct copy *c, struct replica_state *state)
{
	struct mirror *m = c->m;
	uint64_t epoch = m->view.epoch;
	int err = c->replica->ops->open(c->replica, epoch, &m->options.engine_id, state);
	if (err || c->is_forgotten || state->exists || view_role_is_in(mirror_copy_entry(c)->role))
		return err;
	err = volume_create_there(c);
	return err ? err : c->replica->ops->open(c->replica, epoch, &m->options.engine_id, state);
}

/* V3: its machine was off, and another member has what it may lack. One that failed and is the only such now is needed again. */
static void look_for_lacks(struct copy *c)
{
	struct mirror *m = c->m;
	if (!mirror_copy_may_lack(c) || !c->state.exists || !view_role_is_in(mirror_copy_entry(c)->role))
		return;
	LOG_WARN("copy.may_lack", "the machine of a copy was off: what was not flushed may be gone there",
		 F_UUID("volume", &m->options.volume_id), F_UUID("pool", &c->pool_id),
		 F_U64("epoch", m->view.epoch), F_U64("regions", regions_count(&c->state.may_lack)));
	m->lacks_seen++;
	mirror_settle_lacking(m, c);
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (is_the_only_one(m->copies[i]))
			m->copies[i]->failed = 0;
}

static void copy_opened(struct copy *c, const struct replica_state *state)
{
	struct mirror *m = c->m;
	c->state = *state;
	if (MUTANT(214))
		c->state.may_lack = (struct replica_regions){{0}};
	c->was_opened = true;
	c->session = MIRROR_OPEN;
	c->last_err = 0;
	if (!state->exists) {
		mirror_copy_fail(c, OXE_NOENT, "the volume is not in that pool any more");
	} else if (mirror_copy_entry(c)->role == VIEW_MEMBER) {
		m->size_bytes = u64_max(m->size_bytes, state->size_bytes);
		m->lba_bytes = state->lba_bytes;
		if (!m->first_open_ns)
			m->first_open_ns = rt_now_ns(m->rt);
	}
	look_for_lacks(c);
	LOG_INFO("copy.open", "a copy answers", F_UUID("volume", &m->options.volume_id),
		 F_UUID("pool", &c->pool_id), F_U64("epoch", m->view.epoch),
		 F_U64("epoch_before", state->epoch_before));
	mirror_kick(m);
}

static int copy_reach(struct copy *c)
{
	struct mirror *m = c->m;
	if (!c->replica)
		c->replica = m->options.replica_new(m->options.ctx, &c->pool_id, &m->options.volume_id);
	return c->replica ? 0 : OXE_NOTREADY;
}

static int copy_open(struct copy *c)
{
	struct replica_state *state = mem_zalloc(sizeof(*state));
	c->session_number++;
	uint64_t asked_ns = rt_now_ns(c->m->rt);
	int err = copy_reach(c);
	if (!err)
		err = copy_find_or_make(c, state);
	if (err == OXE_FENCED)
		mirror_fenced(c->m, "a copy");
	if (!err && !c->is_forgotten) {
		c->heard_ns = MUTANT(220) ? asked_ns + 20 * NS_PER_S : asked_ns;
		copy_opened(c, state);
	}
	c->last_err = err ? err : c->last_err;
	free(state);
	return err;
}

/* ---- its life ------------------------------------------------------------------------------------------------------------- */

static bool is_over(const struct copy *c)
{
	return c->is_forgotten || mirror_over(c->m);
}

static void wait_while(struct copy *c, uint64_t until_ns, enum mirror_session session)
{
	while (!is_over(c) && c->session == session && rt_now_ns(c->m->rt) < until_ns)
		mirror_pause(c->m, until_ns);
}

static void copy_ask(struct copy *c)
{
	uint64_t session = c->session_number, asked_ns = rt_now_ns(c->m->rt);
	int err = c->replica->ops->ping(c->replica);
	if (!mirror_copy_answered(c, session, err))
		return;
	bool was_late = c->m->options.lease_ns < asked_ns - c->heard_ns;
	c->heard_ns = asked_ns;
	if (was_late)
		mirror_kick(c->m); /* reads may wait for the lease */
}

static void copy_fiber(void *arg)
{
	struct copy *c = arg;
	uint32_t tries = 0;
	while (!is_over(c)) {
		enum mirror_session session = c->session;
		uint64_t pause_ns = ping_every_ns(c->m);
		if (session == MIRROR_OPEN)
			copy_ask(c);
		else if (copy_open(c) != 0)
			pause_ns = mirror_backoff_ns(c->m, tries++);
		else
			tries = 0;
		session = c->session;
		wait_while(c, rt_now_ns(c->m->rt) + pause_ns, session);
	}
	struct mirror *m = c->m;
	mirror_copy_release(c);
	group_done(&m->fibers);
}

void mirror_copy_release(struct copy *c)
{
	assert(c->users > 0);
	if (--c->users > 0)
		return;
	assert(is_over(c));
	if (c->is_forgotten) {
		if (c->replica)
			c->replica->ops->close(c->replica);
		free(c);
	}
}

static struct copy *copy_new(struct mirror *m, const struct uuid *pool_id)
{
	struct copy *c = mem_zalloc(sizeof(*c));
	c->m = m;
	c->pool_id = *pool_id;
	c->silent_since_ns = rt_now_ns(m->rt);
	mirror_absence_begin(c);
	mirror_copy_hold(c);
	group_add(&m->fibers, 1);
	fiber_spawn(m->rt, "mirror-copy", copy_fiber, c);
	return c;
}

/* ---- as the view says ------------------------------------------------------------------------------------------------------ */

static struct copy *take_known(struct copy **old, const struct uuid *pool_id)
{
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++) {
		struct copy *c = old[i];
		if (c && uuid_equal(&c->pool_id, pool_id)) {
			old[i] = NULL;
			return c;
		}
	}
	return NULL;
}

void mirror_copies_follow_view(struct mirror *m)
{
	struct copy *old[VIEW_REPLICAS_MAX];
	memcpy(old, m->copies, sizeof(old));
	memset(m->copies, 0, sizeof(m->copies));
	for (uint32_t i = 0; i < m->view.replica_count; i++) {
		const struct uuid *pool_id = &m->view.replicas[i].pool_id;
		m->copies[i] = take_known(old, pool_id);
		if (!m->copies[i])
			m->copies[i] = copy_new(m, pool_id);
	}
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++)
		if (old[i])
			old[i]->is_forgotten = true;
}

static bool is_nearer(const struct copy *c, const struct copy *than, bool by_load)
{
	if (!c->failed != !than->failed)
		return !c->failed;
	if (c->replica->is_local != than->replica->is_local)
		return c->replica->is_local;
	return by_load && c->reads < than->reads;
}

static struct copy *member_choose(struct mirror *m, uint32_t except, bool by_load)
{
	struct copy *best = NULL;
	uint32_t members = MUTANT(205) ? mirror_copies_in_view(m) : mirror_copies_members(m);
	uint32_t set = members & mirror_copies_open(m) & ~except;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if ((set >> i & 1) && (!best || is_nearer(m->copies[i], best, by_load)))
			best = m->copies[i];
	return best;
}

struct copy *mirror_copy_to_read(struct mirror *m, uint32_t except)
{
	return member_choose(m, except, false);
}

struct copy *mirror_copy_to_ask(struct mirror *m, uint32_t except)
{
	return member_choose(m, except, true);
}
