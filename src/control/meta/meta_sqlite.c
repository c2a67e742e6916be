/*
 * meta_sqlite.c: fibers in front of meta_sqlite_db.c: every call goes to the store's reactor, takes its turn there, and does its SQL on a
 * worker thread.
 *
 * The database knows that a lease is there; when it ends is known here, on a clock that does not outlive the process, so that after a
 * start each has its whole time again. Lease verbs take their turn like all others: a lease is never kept alive while it is being ended.
 */
#include "control/meta/meta_sqlite.h"

#include "control/meta/meta_sqlite_db.h"

static_assert(META_SQLITE_WHY_BYTES == META_WHY_BYTES, "one text is handed through");

struct lease {
	struct list link;
	uint64_t id, deadline_ns;
	uint32_t ttl_s;
};

struct meta_sqlite {
	struct rt *rt;
	struct meta_db *db; /* used on worker threads, by whose turn it is */
	struct fmutex turn;
	struct waitq changed; /* watches that have heard everything so far */
	struct list leases;
	struct rt_timer expiry;
	bool is_expiring; /* a fiber is ending leases, or the disk failed one that did */
	uint64_t expire_after_ns;
	struct rt_group expirers;
	uint32_t client_count;
	bool is_shared;
};

struct client {
	struct meta meta;
	struct meta_sqlite *store;
};

static struct meta_sqlite *store_of(struct meta *m)
{
	return container_of(m, struct client, meta)->store;
}

/* ---- on a worker thread ---------------------------------------------------------------------------------------------------- */

enum call_kind { OPEN, CREATE, CLOSE, READ, COMMIT, EVENTS, LEASE_ADD, LEASE_END };

struct call {
	enum call_kind kind;
	struct meta_sqlite *store;
	int err;
	const struct meta_query *query;
	const struct meta_txn *txn;
	const char *text; /* OPEN, CREATE: the path; EVENTS: the prefix */
	uint64_t number;  /* OPEN: keep_revisions; EVENTS: from; leases: the id; after COMMIT: the revision */
	uint32_t ttl_s;
	struct meta_list *list;
	const struct uuid *id;
	char *why;
};

static void lease_read(void *ctx, uint64_t id, uint32_t ttl_s)
{
	struct meta_sqlite *store = ctx;
	struct lease *lease = mem_zalloc(sizeof(*lease));
	*lease = (struct lease){.id = id, .ttl_s = ttl_s};
	if (!META_MUTANT(LEASE_FORGOTTEN))
		list_add_tail(&store->leases, &lease->link);
	else
		free(lease);
}

static int work_open(struct call *c)
{
	struct meta_sqlite *store = c->store;
	int err = store->is_shared ? meta_db_open_shared(c->text, c->number, &store->db, c->why)
				   : meta_db_open(c->text, c->number, &store->db, c->why);
	if (err)
		return err;
	err = meta_db_leases(store->db, lease_read, store);
	if (err)
		meta_db_close(store->db);
	return err;
}

static int work_do(struct call *c)
{
	struct meta_db *db = c->store ? c->store->db : NULL;
	switch (c->kind) {
	case OPEN:
		return work_open(c);
	case CREATE:
		return meta_db_create(c->text, c->id, c->why);
	case CLOSE:
		meta_db_close(db);
		return 0;
	case READ:
		return meta_db_read(db, c->query, c->list);
	case COMMIT:
		return meta_db_commit(db, c->txn, &c->number);
	case EVENTS:
		return meta_db_events(db, c->text, c->number, c->list);
	case LEASE_ADD:
		return meta_db_lease_add(db, c->number, c->ttl_s);
	case LEASE_END:
		return meta_db_lease_end(db, c->number);
	}
	abort();
}

static void work(void *arg)
{
	struct call *c = arg;
	c->err = work_do(c);
}

/* ---- on the store's reactor -------------------------------------------------------------------------------------------------- */

/* One request in its turn. */
static void call_take_turn(void *arg)
{
	struct call *c = arg;
	fmutex_lock(&c->store->turn);
	rt_offload(work, c);
	if (c->kind == COMMIT && !c->err)
		waitq_wake_all(&c->store->changed);
	fmutex_unlock(&c->store->turn);
}

static int call_run(struct call *c)
{
	rt_call(c->store->rt, call_take_turn, c);
	return c->err;
}

static int sqlite_read(struct meta *m, const struct meta_query *query, struct meta_list *out)
{
	return call_run(&(struct call){.kind = READ, .store = store_of(m), .query = query, .list = out});
}

static int sqlite_commit(struct meta *m, const struct meta_txn *txn, uint64_t *revision)
{
	struct call c = {.kind = COMMIT, .store = store_of(m), .txn = txn};
	int err = call_run(&c);
	*revision = c.number;
	return err;
}

/* ---- leases ------------------------------------------------------------------------------------------------------------------- */

static struct lease *lease_find(struct meta_sqlite *store, uint64_t id)
{
	struct lease *lease;
	list_for_each (lease, &store->leases, link) {
		if (lease->id == id)
			return lease;
	}
	return NULL;
}

static uint64_t now_ns(const struct meta_sqlite *store)
{
	return rt_now_exact_ns(store->rt);
}

static struct lease *lease_due(struct meta_sqlite *store)
{
	struct lease *lease;
	list_for_each (lease, &store->leases, link) {
		if (lease->deadline_ns <= now_ns(store))
			return lease;
	}
	return NULL;
}

static void expiry_arm(struct meta_sqlite *store)
{
	uint64_t next_ns = UINT64_MAX;
	struct lease *lease;
	list_for_each (lease, &store->leases, link)
		next_ns = u64_min(next_ns, lease->deadline_ns);
	if (next_ns == UINT64_MAX || store->is_expiring)
		timer_cancel(store->rt, &store->expiry);
	else
		timer_arm(store->rt, &store->expiry, u64_max(next_ns, store->expire_after_ns));
}

/* In the caller's turn. If the database fails, the lease and its keys are still there, for whoever opens it again. */
static int lease_end(struct meta_sqlite *store, struct lease *lease)
{
	struct call c = {.kind = LEASE_END, .store = store, .number = lease->id};
	rt_offload(work, &c);
	if (!c.err) {
		list_del(&lease->link);
		free(lease);
		waitq_wake_all(&store->changed);
	}
	return c.err;
}

static void expire_main(void *arg)
{
	struct meta_sqlite *store = arg;
	struct lease *lease;
	int err = 0;
	fmutex_lock(&store->turn);
	while (!err && (lease = lease_due(store)))
		err = lease_end(store, lease);
	store->is_expiring = err && err != OXE_NOSPC;
	store->expire_after_ns = err ? now_ns(store) + NS_PER_S : 0; /* a full disk may have room again */
	expiry_arm(store);
	fmutex_unlock(&store->turn);
	group_done(&store->expirers);
}

static void expiry_due(struct rt_timer *timer)
{
	struct meta_sqlite *store = container_of(timer, struct meta_sqlite, expiry);
	store->is_expiring = true;
	group_add(&store->expirers, 1);
	fiber_spawn(store->rt, "meta.expire", expire_main, store);
}

static int grant(struct call *c)
{
	struct meta_sqlite *store = c->store;
	struct lease *lease = lease_find(store, c->number);
	if (meta_db_has_failed(store->db))
		return OXE_FAILED;
	if (lease && lease->ttl_s != c->ttl_s)
		return OXE_EXISTS;
	if (!lease) {
		rt_offload(work, c);
		if (c->err)
			return c->err;
		lease = mem_zalloc(sizeof(*lease));
		*lease = (struct lease){.id = c->number, .ttl_s = c->ttl_s};
		list_add_tail(&store->leases, &lease->link);
	}
	lease->deadline_ns = now_ns(store) + lease->ttl_s * NS_PER_S;
	return 0;
}

static void grant_take_turn(void *arg)
{
	struct call *c = arg;
	fmutex_lock(&c->store->turn);
	c->err = c->store->is_shared ? OXE_INVAL : grant(c);
	expiry_arm(c->store);
	fmutex_unlock(&c->store->turn);
}

static void keep_take_turn(void *arg)
{
	struct call *c = arg;
	fmutex_lock(&c->store->turn);
	struct lease *lease = lease_find(c->store, c->number);
	c->err = meta_db_has_failed(c->store->db) ? OXE_FAILED : lease ? 0 : OXE_NOENT;
	if (!c->err) {
		lease->deadline_ns = now_ns(c->store) + lease->ttl_s * NS_PER_S;
		c->ttl_s = lease->ttl_s;
	}
	expiry_arm(c->store);
	fmutex_unlock(&c->store->turn);
}

static void revoke_take_turn(void *arg)
{
	struct call *c = arg;
	fmutex_lock(&c->store->turn);
	struct lease *lease = lease_find(c->store, c->number);
	c->err = meta_db_has_failed(c->store->db) ? OXE_FAILED : lease ? lease_end(c->store, lease) : 0;
	expiry_arm(c->store);
	fmutex_unlock(&c->store->turn);
}

static int sqlite_lease_grant(struct meta *m, uint64_t lease, uint32_t ttl_s)
{
	struct call c = {.kind = LEASE_ADD, .store = store_of(m), .number = lease, .ttl_s = ttl_s};
	rt_call(c.store->rt, grant_take_turn, &c);
	return c.err;
}

static int sqlite_lease_keep(struct meta *m, uint64_t lease, uint32_t *ttl_s)
{
	struct call c = {.store = store_of(m), .number = lease};
	rt_call(c.store->rt, keep_take_turn, &c);
	*ttl_s = c.ttl_s;
	return c.err;
}

static int sqlite_lease_revoke(struct meta *m, uint64_t lease)
{
	struct call c = {.store = store_of(m), .number = lease};
	rt_call(c.store->rt, revoke_take_turn, &c);
	return c.err;
}

/* ---- watches -------------------------------------------------------------------------------------------------------------------- */

/* Touched on the store's reactor only. */
struct watch {
	struct meta_watch watch;
	struct meta_sqlite *store;
	char *prefix;
	uint64_t next_revision;
	bool cancelled;
};

struct next {
	struct watch *w;
	uint64_t deadline_ns;
	struct meta_list *list;
	int err;
};

static struct watch *watch_of(struct meta_watch *w)
{
	return container_of(w, struct watch, watch);
}

static int sqlite_watch_open(struct meta *m, const char *prefix, uint64_t from_revision,
			     struct meta_watch **out)
{
	struct watch *w = mem_zalloc(sizeof(*w));
	w->watch.meta = m;
	w->store = store_of(m);
	w->prefix = mem_strdup(prefix);
	w->next_revision = from_revision;
	*out = &w->watch;
	return 0;
}

/* Nobody says what another process did: that is looked for. False: it is too late. */
static bool change_wait(struct meta_sqlite *store, uint64_t deadline_ns)
{
	uint64_t look_ns = store->is_shared ? now_ns(store) + META_SQLITE_LOOK_NS : UINT64_MAX;
	if (look_ns >= deadline_ns)
		return waitq_wait_until(&store->changed, deadline_ns);
	waitq_wait_until(&store->changed, look_ns);
	return true;
}

/* Between looking and waiting nothing suspends, and who changes something wakes in its turn: no change is slept through. */
static void next_take_turns(void *arg)
{
	struct next *n = arg;
	struct watch *w = n->w;
	bool in_time = true;
	n->err = 0;
	while (!w->cancelled && !n->err && !n->list->count && in_time) {
		struct call c = {.kind = EVENTS,
				 .store = w->store,
				 .text = w->prefix,
				 .number = w->next_revision,
				 .list = n->list};
		call_take_turn(&c);
		n->err = c.err;
		if (!n->err) /* also past what others changed: it is no reason to look there again */
			w->next_revision = n->list->revision + 1;
		if (!n->err && !n->list->count && !w->cancelled)
			in_time = change_wait(w->store, n->deadline_ns);
	}
	if (!n->err && !n->list->count)
		n->err = w->cancelled ? OXE_CANCELLED : OXE_TIMEOUT;
}

static int sqlite_watch_next(struct meta_watch *base, uint64_t deadline_ns, struct meta_list *out)
{
	struct next n = {.w = watch_of(base), .deadline_ns = deadline_ns, .list = out};
	rt_call(n.w->store->rt, next_take_turns, &n);
	return n.err;
}

static void cancel_run(void *arg)
{
	struct watch *w = arg;
	w->cancelled = true;
	waitq_wake_all(&w->store->changed);
}

/* A message keeps its place before the next call of the same client, and before its close. */
static void sqlite_watch_cancel(struct meta_watch *base)
{
	struct watch *w = watch_of(base);
	if (base->meta->rt == w->store->rt)
		cancel_run(w);
	else
		rt_post(w->store->rt, cancel_run, w);
}

static void close_run(void *arg)
{
	struct watch *w = arg;
	free(w->prefix);
	free(w);
}

static void sqlite_watch_close(struct meta_watch *base)
{
	struct watch *w = watch_of(base);
	rt_call(w->store->rt, close_run, w);
}

/* ---- clients and the store --------------------------------------------------------------------------------------------------------- */

static void client_count_up(void *arg)
{
	((struct meta_sqlite *)arg)->client_count++;
}

static void client_count_down(void *arg)
{
	((struct meta_sqlite *)arg)->client_count--;
}

static void sqlite_close(struct meta *m)
{
	struct client *c = container_of(m, struct client, meta);
	rt_call(c->store->rt, client_count_down, c->store);
	free(c);
}

static const struct meta_ops sqlite_ops = {
	.read = sqlite_read,
	.commit = sqlite_commit,
	.watch_open = sqlite_watch_open,
	.watch_next = sqlite_watch_next,
	.watch_cancel = sqlite_watch_cancel,
	.watch_close = sqlite_watch_close,
	.lease_grant = sqlite_lease_grant,
	.lease_keep = sqlite_lease_keep,
	.lease_revoke = sqlite_lease_revoke,
	.close = sqlite_close,
};

struct meta *meta_sqlite_client(struct meta_sqlite *store, struct rt *rt)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->meta = (struct meta){.ops = &sqlite_ops, .rt = rt};
	c->store = store;
	rt_call(store->rt, client_count_up, store);
	return &c->meta;
}

int meta_sqlite_create(struct rt *rt, const char *path, const struct uuid *id,
		       char why[META_SQLITE_WHY_BYTES])
{
	struct call c = {.kind = CREATE, .text = path, .id = id, .why = why};
	(void)rt;
	why[0] = '\0';
	rt_offload(work, &c);
	return c.err;
}

static void leases_free(struct meta_sqlite *store)
{
	struct lease *lease;
	while ((lease = list_pop(&store->leases, struct lease, link)))
		free(lease);
}

static struct meta_sqlite *store_new(struct rt *rt)
{
	struct meta_sqlite *store = mem_zalloc(sizeof(*store));
	store->rt = rt;
	fmutex_init(&store->turn);
	waitq_init(&store->changed);
	list_init(&store->leases);
	group_init(&store->expirers);
	timer_init(&store->expiry, expiry_due);
	return store;
}

static int sqlite_open(struct rt *rt, const char *path, uint64_t keep_revisions, bool is_shared,
		       struct meta_sqlite **out, char why[META_SQLITE_WHY_BYTES])
{
	struct meta_sqlite *store = store_new(rt);
	store->is_shared = is_shared;
	struct call c = {.kind = OPEN,
			 .store = store,
			 .text = path,
			 .number = keep_revisions ? keep_revisions : META_KEEP_REVISIONS,
			 .why = why};
	struct lease *lease;
	why[0] = '\0';
	rt_offload(work, &c);
	if (c.err) {
		leases_free(store);
		free(store);
		return c.err;
	}
	list_for_each (lease, &store->leases, link)
		lease->deadline_ns = now_ns(store) + lease->ttl_s * NS_PER_S;
	expiry_arm(store);
	*out = store;
	return 0;
}

int meta_sqlite_open(struct rt *rt, const char *path, uint64_t keep_revisions, struct meta_sqlite **out,
		     char why[META_SQLITE_WHY_BYTES])
{
	return sqlite_open(rt, path, keep_revisions, false, out, why);
}

int meta_sqlite_open_shared(struct rt *rt, const char *path, uint64_t keep_revisions,
			    struct meta_sqlite **out, char why[META_SQLITE_WHY_BYTES])
{
	return sqlite_open(rt, path, keep_revisions, true, out, why);
}

const struct uuid *meta_sqlite_id(const struct meta_sqlite *store)
{
	return meta_db_id(store->db);
}

void meta_sqlite_close(struct meta_sqlite *store)
{
	struct call c = {.kind = CLOSE, .store = store};
	assert(store->client_count == 0 && waitq_empty(&store->changed));
	timer_cancel(store->rt, &store->expiry);
	group_wait(&store->expirers);
	timer_cancel(store->rt, &store->expiry); /* an expirer may have armed it */
	rt_offload(work, &c);
	leases_free(store);
	free(store);
}
