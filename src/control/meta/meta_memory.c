/*
 * meta_memory.c: meta_state.c behind a network that is drawn from a seed.
 *
 * A call is a request: a copy of what was asked, in memory of its own, that a fiber of the store's reactor carries there, performs and
 * carries back. The caller waits for it with a limit. Both ends may let go first, in any order:
 *
 *     UNDERWAY   the carrier has it. If the caller has let go, the carrier frees it at the end
 *     ANSWERING  the answer is on its way as a message. If the caller has let go, the message frees it
 *     LOST       the carrier has let go, nothing will come. The caller frees it
 *     ANSWERED   the caller takes the results and frees it
 *
 * A killed client can free nothing, and messages to its reactor are never delivered: its requests stay listed until the store is freed.
 *
 * A watch asks for changes from where it is, and its request waits at the store until there are some. Its position moves only when an
 * answer has arrived, so whatever is lost on the way is asked for again: that is all there is to a cut and a reconnect.
 */
#include "control/meta/meta_memory.h"

#include "base/prng.h"
#include "control/meta/meta_state.h"

/* A request of a watch is answered after this, also if there is nothing to tell; and asked again after that: it may have been lost. */
#define WATCH_QUIET_NS (5 * NS_PER_S)
#define WATCH_LIMIT_NS (10 * NS_PER_S)

struct meta_memory {
	struct rt *rt;
	struct prng rng;
	struct meta_state state;
	uint64_t away_until_ns;
	struct rt_timer expiry;
	struct waitq changed;	       /* requests of watches, waiting at the store */
	struct list requests, clients; /* all there are */
};

struct client {
	struct meta meta;
	struct list link;
	struct meta_memory *store;
	struct meta_memory_faults faults;
	bool dropped;
};

enum request_state { UNDERWAY, ANSWERING, LOST, ANSWERED };
enum request_kind { READ, COMMIT, EVENTS, LEASE_GRANT, LEASE_KEEP, LEASE_REVOKE };

struct request {
	struct list link;
	struct client *client;
	enum request_kind kind;
	enum request_state state;
	bool abandoned; /* by its caller */
	struct waitq waiters;
	uint64_t give_up_ns; /* of a request of a watch: when it leaves the store */
	/* What is asked; texts and arrays are its own. */
	struct meta_query query; /* READ; EVENTS: prefix and revision */
	struct meta_txn txn;
	uint64_t lease;
	uint32_t ttl_s;
	/* What is answered. */
	int err;
	uint64_t revision;
	struct meta_list list;
};

static struct client *client_of(struct meta *m)
{
	return container_of(m, struct client, meta);
}

static uint64_t draw_between(struct meta_memory *store, uint64_t low, uint64_t high)
{
	return high > low ? low + prng_below(&store->rng, high - low + 1) : low;
}

static bool draw_chance(struct meta_memory *store, uint32_t one_in)
{
	return one_in && prng_one_in(&store->rng, one_in);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static struct request *request_new(struct client *c, enum request_kind kind)
{
	struct request *r = mem_zalloc(sizeof(*r));
	r->client = c;
	r->kind = kind;
	waitq_init(&r->waiters);
	list_add_tail(&c->store->requests, &r->link);
	return r;
}

static void txn_free(const struct meta_txn *txn)
{
	for (size_t i = 0; i < txn->compare_count; i++)
		free((char *)(uintptr_t)txn->compares[i].key);
	for (size_t i = 0; i < txn->write_count; i++) {
		free((char *)(uintptr_t)txn->writes[i].key);
		free((void *)(uintptr_t)txn->writes[i].value);
	}
	free((void *)(uintptr_t)txn->compares);
	free((void *)(uintptr_t)txn->writes);
}

static struct meta_txn txn_copy(const struct meta_txn *txn)
{
	struct meta_compare *compares = mem_alloc((txn->compare_count + 1) * sizeof(*compares));
	struct meta_write *writes = mem_alloc((txn->write_count + 1) * sizeof(*writes));
	for (size_t i = 0; i < txn->compare_count; i++) {
		compares[i] = txn->compares[i];
		compares[i].key = mem_strdup(compares[i].key);
	}
	for (size_t i = 0; i < txn->write_count; i++) {
		size_t len_bytes = txn->writes[i].value_len_bytes;
		writes[i] = txn->writes[i];
		writes[i].key = mem_strdup(writes[i].key);
		writes[i].value =
			memcpy(mem_alloc(len_bytes + 1), len_bytes ? txn->writes[i].value : "", len_bytes);
	}
	return (struct meta_txn){compares, txn->compare_count, writes, txn->write_count};
}

static void request_free(struct request *r)
{
	list_del(&r->link);
	txn_free(&r->txn);
	free((char *)(uintptr_t)r->query.prefix);
	free((char *)(uintptr_t)r->query.after);
	meta_list_free(&r->list);
	free(r);
}

/* ---- at the store -------------------------------------------------------------------------------------------------------- */

static void expiry_arm(struct meta_memory *store)
{
	uint64_t next_ns = meta_state_next_expiry_ns(&store->state);
	if (next_ns == UINT64_MAX)
		timer_cancel(store->rt, &store->expiry);
	else
		timer_arm(store->rt, &store->expiry, next_ns);
}

/* After anything that may have changed the state. */
static void store_settle(struct meta_memory *store)
{
	expiry_arm(store);
	waitq_wake_all(&store->changed);
}

static void expiry_due(struct rt_timer *timer)
{
	struct meta_memory *store = container_of(timer, struct meta_memory, expiry);
	meta_state_leases_expire(&store->state, rt_now_ns(store->rt));
	store_settle(store);
}

static bool store_is_away(const struct meta_memory *store)
{
	return rt_now_exact_ns(store->rt) < store->away_until_ns;
}

void meta_memory_outage(struct meta_memory *store, uint64_t for_ns)
{
	store->away_until_ns = u64_max(store->away_until_ns, rt_now_exact_ns(store->rt) + for_ns);
	meta_state_leases_renew(&store->state, store->away_until_ns);
}

static void request_perform(struct meta_memory *store, struct request *r)
{
	struct meta_state *s = &store->state;
	uint64_t now_ns = rt_now_ns(store->rt);
	switch (r->kind) {
	case READ:
		r->err = meta_state_read(s, &r->query, &r->list);
		break;
	case COMMIT:
		r->err = meta_state_commit(s, &r->txn, &r->revision);
		break;
	case EVENTS:
		r->err = meta_state_events(s, r->query.prefix, r->query.revision, &r->list);
		break;
	case LEASE_GRANT:
		r->err = meta_state_lease_grant(s, r->lease, r->ttl_s, now_ns);
		break;
	case LEASE_KEEP:
		r->err = meta_state_lease_keep(s, r->lease, now_ns, &r->ttl_s);
		break;
	case LEASE_REVOKE:
		meta_state_lease_revoke(s, r->lease);
		break;
	}
}

static bool request_is_over(const struct request *r)
{
	return r->abandoned || r->client->dropped;
}

/* Suspends until there are changes to tell of, or until it is time to say how far there were none. False: nobody will hear it. */
static bool events_wait(struct meta_memory *store, struct request *r)
{
	bool in_time = true;
	while (!request_is_over(r)) {
		request_perform(store, r);
		if (r->err || r->list.count || !in_time)
			return true;
		r->query.revision = r->list.revision + 1;
		in_time = waitq_wait_until(&store->changed, r->give_up_ns);
	}
	return false;
}

static bool request_arrives(struct meta_memory *store, struct request *r)
{
	const struct meta_memory_faults *f = &r->client->faults;
	uint64_t delay_ns = draw_between(store, f->delay_min_ns, f->delay_max_ns);
	if (draw_chance(store, f->late_one_in))
		delay_ns += draw_between(store, 0, f->late_ns);
	bool is_lost = f->cut || draw_chance(store, f->lost_request_one_in);
	if (delay_ns)
		fiber_sleep(delay_ns);
	if (draw_chance(store, f->outage_one_in))
		meta_memory_outage(store, draw_between(store, f->outage_min_ns, f->outage_max_ns));
	return !is_lost && !f->cut && !store_is_away(store);
}

static bool answer_returns(struct meta_memory *store, struct request *r)
{
	const struct meta_memory_faults *f = &r->client->faults;
	uint64_t delay_ns = draw_between(store, f->delay_min_ns, f->delay_max_ns);
	bool is_lost = f->cut || store_is_away(store) || draw_chance(store, f->lost_answer_one_in);
	if (delay_ns)
		fiber_sleep(delay_ns);
	return !is_lost && !f->cut && !request_is_over(r);
}

static void answer_arrive(void *arg)
{
	struct request *r = arg;
	if (r->abandoned) {
		request_free(r);
		return;
	}
	r->state = ANSWERED;
	waitq_wake_all(&r->waiters);
}

static void request_carry(void *arg)
{
	struct request *r = arg;
	struct meta_memory *store = r->client->store;
	bool is_alive = request_arrives(store, r);
	if (is_alive && r->kind == EVENTS)
		is_alive = events_wait(store, r);
	else if (is_alive)
		request_perform(store, r);
	if (is_alive && r->kind != READ && r->kind != EVENTS)
		store_settle(store);
	if (is_alive && answer_returns(store, r)) {
		r->state = ANSWERING;
		rt_post(r->client->meta.rt, answer_arrive, r);
	} else if (request_is_over(r)) {
		request_free(r);
	} else {
		r->state = LOST;
	}
}

/* ---- at the client --------------------------------------------------------------------------------------------------------- */

static void request_send(struct request *r)
{
	rt_post(r->client->store->rt, request_carry, r);
}

/* The caller waits for it no more. */
static void request_abandon(struct request *r)
{
	if (r->state == LOST || r->state == ANSWERED)
		request_free(r);
	else
		r->abandoned = true;
}

static uint64_t call_limit_ns(struct client *c)
{
	uint64_t limit_ns = c->faults.limit_ns ? c->faults.limit_ns : META_CALL_LIMIT_NS;
	if (draw_chance(c->store, c->faults.reset_one_in))
		limit_ns = u64_min(limit_ns, draw_between(c->store, 0, 2 * c->faults.delay_max_ns));
	return limit_ns;
}

/* Sends it and waits. 0: it is answered, and the caller frees it. Else it is no longer the caller's. */
static int request_run(struct request *r)
{
	struct client *c = r->client;
	uint64_t deadline_ns = rt_now_exact_ns(c->meta.rt) + call_limit_ns(c);
	if (draw_chance(c->store, c->faults.refused_one_in)) {
		request_free(r);
		return OXE_NOTREADY;
	}
	request_send(r);
	while (r->state != ANSWERED && waitq_wait_until(&r->waiters, deadline_ns))
		;
	if (r->state == ANSWERED)
		return 0;
	int err = r->kind == READ ? OXE_NOTREADY : OXE_INDOUBT;
	request_abandon(r);
	return err;
}

static int memory_read(struct meta *m, const struct meta_query *query, struct meta_list *out)
{
	struct request *r = request_new(client_of(m), READ);
	r->query = *query;
	r->query.prefix = mem_strdup(query->prefix);
	r->query.after = query->after ? mem_strdup(query->after) : NULL;
	int err = request_run(r);
	if (err)
		return err;
	err = r->err;
	*out = r->list;
	r->list = (struct meta_list){0};
	request_free(r);
	return err;
}

static int memory_commit(struct meta *m, const struct meta_txn *txn, uint64_t *revision)
{
	struct request *r = request_new(client_of(m), COMMIT);
	r->txn = txn_copy(txn);
	int err = request_run(r);
	if (err)
		return err;
	err = r->err;
	*revision = r->revision;
	request_free(r);
	return err;
}

static int lease_call(struct meta *m, enum request_kind kind, uint64_t lease, uint32_t *ttl_s)
{
	struct request *r = request_new(client_of(m), kind);
	r->lease = lease;
	r->ttl_s = *ttl_s;
	int err = request_run(r);
	if (err)
		return err;
	err = r->err;
	*ttl_s = r->ttl_s;
	request_free(r);
	return err;
}

static int memory_lease_grant(struct meta *m, uint64_t lease, uint32_t ttl_s)
{
	return lease_call(m, LEASE_GRANT, lease, &ttl_s);
}

static int memory_lease_keep(struct meta *m, uint64_t lease, uint32_t *ttl_s)
{
	return lease_call(m, LEASE_KEEP, lease, ttl_s);
}

static int memory_lease_revoke(struct meta *m, uint64_t lease)
{
	uint32_t ttl_s = 0;
	return lease_call(m, LEASE_REVOKE, lease, &ttl_s);
}

/* ---- watches ---------------------------------------------------------------------------------------------------------------- */

struct watch {
	struct meta_watch watch;
	char *prefix;
	uint64_t next_revision;
	struct request *pending; /* asked, from next_revision on */
	uint64_t pending_until_ns;
	bool cancelled;
	bool was_cut; /* the last request had no answer */
};

static struct watch *watch_of(struct meta_watch *w)
{
	return container_of(w, struct watch, watch);
}

static int memory_watch_open(struct meta *m, const char *prefix, uint64_t from_revision,
			     struct meta_watch **out)
{
	struct watch *w = mem_zalloc(sizeof(*w));
	w->watch.meta = m;
	w->prefix = mem_strdup(prefix);
	w->next_revision = from_revision;
	*out = &w->watch;
	return 0;
}

static uint64_t watch_resume_revision(const struct watch *w)
{
	if (META_MUTANT(WATCH_SKIPS) && w->was_cut)
		return client_of(w->watch.meta)->store->state.revision + 1;
	if (META_MUTANT(WATCH_REPEATS) && w->was_cut && w->next_revision > 1)
		return w->next_revision - 1;
	return w->next_revision;
}

static void watch_ask(struct watch *w)
{
	struct client *c = client_of(w->watch.meta);
	struct request *r = request_new(c, EVENTS);
	w->pending_until_ns = rt_now_exact_ns(c->meta.rt) + WATCH_LIMIT_NS;
	r->give_up_ns = w->pending_until_ns - WATCH_LIMIT_NS + WATCH_QUIET_NS;
	r->query = (struct meta_query){.prefix = mem_strdup(w->prefix), .revision = watch_resume_revision(w)};
	w->pending = r;
	request_send(r);
}

/* Suspends until the pending request is answered (true), or not in time, or cancelled. One without an answer is given up: it was
 * lost, or there was nothing to tell. */
static bool watch_wait(struct watch *w, uint64_t deadline_ns)
{
	struct request *r = w->pending;
	uint64_t until_ns = u64_min(deadline_ns, w->pending_until_ns);
	bool in_time = true;
	while (r->state != ANSWERED && !w->cancelled && in_time)
		in_time = waitq_wait_until(&r->waiters, until_ns);
	if (r->state != ANSWERED && rt_now_exact_ns(w->watch.meta->rt) >= w->pending_until_ns) {
		request_abandon(r);
		w->pending = NULL;
		w->was_cut = true;
	}
	return w->pending && r->state == ANSWERED;
}

/* What was answered, perhaps nothing but how far there was nothing. */
static int watch_take(struct watch *w, struct meta_list *out)
{
	struct request *r = w->pending;
	int err = r->err;
	*out = r->list;
	r->list = (struct meta_list){0};
	request_free(r);
	w->pending = NULL;
	w->was_cut = false;
	if (!err)
		w->next_revision = out->revision + 1;
	return err;
}

static int memory_watch_next(struct meta_watch *base, uint64_t deadline_ns, struct meta_list *out)
{
	struct watch *w = watch_of(base);
	int err = 0;
	while (!w->cancelled && !err && !out->count) {
		if (!w->pending)
			watch_ask(w);
		if (watch_wait(w, deadline_ns) && !w->cancelled)
			err = watch_take(w, out);
		else if (rt_now_exact_ns(base->meta->rt) >= deadline_ns)
			err = OXE_TIMEOUT;
	}
	return out->count ? 0 : w->cancelled ? OXE_CANCELLED : err;
}

static void memory_watch_cancel(struct meta_watch *base)
{
	struct watch *w = watch_of(base);
	w->cancelled = true;
	if (w->pending)
		waitq_wake_all(&w->pending->waiters);
}

static void watchers_look(void *arg)
{
	struct meta_memory *store = arg;
	waitq_wake_all(&store->changed);
}

static void memory_watch_close(struct meta_watch *base)
{
	struct watch *w = watch_of(base);
	struct meta_memory *store = client_of(base->meta)->store;
	if (w->pending) {
		request_abandon(w->pending);
		rt_post(store->rt, watchers_look, store);
	}
	free(w->prefix);
	free(w);
}

/* ---- clients and the store --------------------------------------------------------------------------------------------------- */

static void memory_close(struct meta *m)
{
	struct client *c = client_of(m);
	c->dropped = true; /* freed with the store: something it sent may still be on its way */
	rt_post(c->store->rt, watchers_look, c->store);
}

static const struct meta_ops memory_ops = {
	.read = memory_read,
	.commit = memory_commit,
	.watch_open = memory_watch_open,
	.watch_next = memory_watch_next,
	.watch_cancel = memory_watch_cancel,
	.watch_close = memory_watch_close,
	.lease_grant = memory_lease_grant,
	.lease_keep = memory_lease_keep,
	.lease_revoke = memory_lease_revoke,
	.close = memory_close,
};

struct meta *meta_memory_client(struct meta_memory *store, struct rt *rt)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->meta = (struct meta){.ops = &memory_ops, .rt = rt};
	c->store = store;
	list_add_tail(&store->clients, &c->link);
	return &c->meta;
}

struct meta_memory_faults *meta_memory_faults(struct meta *m)
{
	return &client_of(m)->faults;
}

void meta_memory_drop(struct meta *m)
{
	memory_close(m);
}

uint64_t meta_memory_revision(const struct meta_memory *store)
{
	return store->state.revision;
}

struct meta_memory *meta_memory_new(struct rt *rt, uint64_t seed, uint64_t keep_revisions)
{
	struct meta_memory *store = mem_zalloc(sizeof(*store));
	store->rt = rt;
	prng_seed(&store->rng, seed);
	meta_state_init(&store->state, keep_revisions ? keep_revisions : META_KEEP_REVISIONS);
	timer_init(&store->expiry, expiry_due);
	waitq_init(&store->changed);
	list_init(&store->requests);
	list_init(&store->clients);
	return store;
}

void meta_memory_free(struct meta_memory *store)
{
	struct request *r, *next;
	struct client *c;
	list_for_each_safe (r, next, &store->requests, link)
		request_free(r);
	while ((c = list_pop(&store->clients, struct client, link)))
		free(c);
	meta_state_free(&store->state);
	free(store);
}
