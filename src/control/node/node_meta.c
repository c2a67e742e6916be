/*
 * node_meta.c: the node and the metastore: a client that is kept open, the table of facts that follows it (facts.h), and what this node
 * says of itself there.
 *
 *     metastore fiber   open, list everything, watch; after any error close, wait a little, open again
 *     registrar fiber   this node, and each pool it has open, are on record; with a metastore that others share, now and then a sign of life
 *
 * Without a metastore nothing that is served stops: the table stays as it was, engines go on under the view they have, and what would
 * change something is OXE_NOTREADY.
 */
#include "control/node/node_impl.h"

#include "base/log.h"

#include <stdio.h>

#define WATCH_NS     (5 * NS_PER_S)
#define RETRY_MIN_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (10 * NS_PER_S)
#define COMMIT_NS    (10 * NS_PER_S)
#define REGISTER_NS  NS_PER_S /* after a failure */
#define HOLD	     "metastore"

/* ---- using it ------------------------------------------------------------------------------------------------------------ */

struct meta *node_meta_enter(void *ctx)
{
	struct node *n = ctx;
	if (!n->meta.client || n->meta.must_close)
		return NULL;
	n->meta.users++;
	return n->meta.client;
}

/* A store that its disk has failed is opened anew, which reads what is true. */
void node_meta_leave(void *ctx, int err)
{
	struct node *n = ctx;
	n->meta.users--;
	if (err == OXE_FAILED) {
		n->meta.must_close = true;
		if (n->meta.watch)
			meta_watch_cancel(n->meta.watch);
	}
	waitq_wake_all(&n->meta.changed);
}

int node_meta_away(struct node *n, struct node_why *why)
{
	if (!n->options.platform.meta_open) {
		why_set(why, OXE_NOTREADY, "this daemon has no metastore, and so no mirrored volumes");
		return OXE_NOTREADY;
	}
	why_set(why, OXE_NOTREADY, "the metastore cannot be reached%s%.200s", *n->meta.why ? ": " : "",
		n->meta.why);
	why_hint(why, "it is tried again by itself; see 'oxbow ready'");
	return OXE_NOTREADY;
}

static bool facts_wait(struct node *n, uint64_t revision, uint64_t deadline_ns)
{
	while (n->meta.revision < revision) {
		if (!waitq_wait_until(&n->meta.facts_changed, deadline_ns))
			return n->meta.revision >= revision;
	}
	return true;
}

int node_meta_commit(struct node *n, const struct meta_txn *txn, const char *what, struct node_why *why)
{
	uint64_t revision, deadline_ns = rt_now_exact_ns(n->options.rt) + COMMIT_NS;
	struct meta *m = node_meta_enter(n);
	if (!m)
		return node_meta_away(n, why);
	int err = meta_commit_settled(m, txn, deadline_ns, &revision);
	node_meta_leave(n, err);
	if (err == OXE_FAILED || err == OXE_BUSY)
		err = OXE_NOTREADY;
	if (err) {
		why_failed(why, err, "%s: the metastore says", what);
		if (err == OXE_DIFFERS)
			why_hint(why, "somebody else changed it at the same moment: look, and try again");
		return err;
	}
	facts_wait(n, revision, deadline_ns);
	return 0;
}

int node_meta_put(struct node *n, const char *key, char *value, uint64_t revision, const char *what,
		  struct node_why *why)
{
	const struct meta_compare compare = {.key = key, .mod_revision = revision};
	const struct meta_write write = {.key = key,
					 .value = value,
					 .value_len_bytes = value ? strlen(value) : 0,
					 .is_delete = !value};
	const struct meta_txn txn = {
		.compares = &compare, .compare_count = 1, .writes = &write, .write_count = 1};
	int err = node_meta_commit(n, &txn, what, why);
	free(value);
	return err;
}

/* ---- following it ---------------------------------------------------------------------------------------------------------- */

static void entry_apply(struct node *n, struct facts *f, const struct meta_entry *e)
{
	int err = facts_apply(f, e, rt_now_ns(n->options.rt));
	if (err)
		LOG_ERROR("metastore.record_refused",
			  "a record of the metastore is not understood, and passed over",
			  F_STR("key", e->key), F_U64("revision", e->mod_revision), F_ERR(err));
}

/* All pages, as of one moment. A store whose format is another's is not used at all. */
static int facts_read(struct node *n, struct meta *m, struct facts *out, uint64_t *revision)
{
	struct meta_list page = {.more = true};
	char after[META_KEY_MAX_BYTES + 1] = "";
	int err = 0;
	*revision = 0;
	while (!err && page.more) {
		const struct meta_range range = {
			.prefix = "", .after = *after ? after : NULL, .revision = *revision};
		page = (struct meta_list){0};
		err = meta_range(m, &range, &page);
		if (err)
			break;
		*revision = page.revision;
		for (size_t i = 0; i < page.count; i++) {
			const struct meta_entry *e = &page.entries[i];
			if (strcmp(e->key, "format") == 0)
				err = facts_apply(out, e, 0);
			else
				entry_apply(n, out, e);
		}
		if (page.count)
			snprintf(after, sizeof(after), "%s", page.entries[page.count - 1].key);
		bool more = page.more;
		meta_list_free(&page);
		page.more = more;
	}
	return err;
}

static void facts_tell(struct node *n, uint64_t revision)
{
	n->meta.revision = revision;
	n->meta.is_known = true;
	waitq_wake_all(&n->meta.facts_changed);
	mirrored_look(n);
}

/* The first to come says which format it is. */
static int format_ensure(struct meta *m)
{
	uint64_t revision;
	char *value = fact_format_value();
	int err = meta_put(m, "format", value, strlen(value), 0, 0, &revision);
	free(value);
	return err == OXE_DIFFERS ? 0 : err;
}

static int watch_all(struct node *n, struct meta *m, uint64_t revision)
{
	int err = meta_watch_open(m, "", revision + 1, &n->meta.watch);
	while (!err && !n->meta.must_close && !n->meta.leaving) {
		struct meta_list list;
		err = meta_watch_next(n->meta.watch, rt_now_exact_ns(n->options.rt) + WATCH_NS, &list);
		if (err == OXE_TIMEOUT || err == OXE_BUSY) { /* busy: another process holds it */
			if (err == OXE_BUSY)
				fiber_sleep(RETRY_MIN_NS);
			err = 0;
			continue;
		}
		if (err)
			break;
		for (size_t i = 0; i < list.count; i++)
			entry_apply(n, &n->meta.facts, &list.entries[i]);
		facts_tell(n, list.revision);
		meta_list_free(&list);
	}
	if (n->meta.watch)
		meta_watch_close(n->meta.watch);
	n->meta.watch = NULL;
	return err;
}

static int follow(struct node *n, struct meta *m)
{
	struct facts fresh;
	uint64_t revision;
	facts_init(&fresh);
	int err = facts_read(n, m, &fresh, &revision);
	if (!err && !fresh.has_format)
		err = format_ensure(m);
	if (err) {
		facts_clear(&fresh);
		return err;
	}
	facts_take(&n->meta.facts, &fresh);
	facts_tell(n, revision);
	n->meta.why[0] = '\0';
	node_release(n, HOLD);
	node_register_kick(n);
	do
		err = watch_all(n, m, n->meta.revision);
	while (!err && !n->meta.must_close && !n->meta.leaving);
	return err;
}

/* ---- keeping it open -------------------------------------------------------------------------------------------------------- */

static void client_close(struct node *n)
{
	n->meta.must_close = true; /* nobody enters */
	while (n->meta.users > 0)
		waitq_wait(&n->meta.changed);
	struct meta *m = n->meta.client;
	n->meta.client = NULL;
	n->meta.must_close = false;
	n->options.platform.meta_close(n->options.platform.ctx, m);
}

static void trouble(struct node *n, int err, const char *words)
{
	char message[480];
	bool is_new = !*n->meta.why;
	snprintf(n->meta.why, sizeof(n->meta.why), "%s", *words ? words : err_text(err));
	snprintf(message, sizeof(message), "the metastore cannot be used: %.300s", n->meta.why);
	if (is_new)
		LOG_ERROR("metastore.away", message, F_ERR(err));
	if (!n->meta.is_known)
		node_hold(n, HOLD, err == OXE_VERSION ? "MetastoreTooNew" : "MetastoreAway", message,
			  err == OXE_VERSION ? "upgrade oxbowd on this host"
					     : "it is tried again by itself; see --metastore");
}

static int metastore_use(struct node *n, char words[NODE_META_WHY])
{
	struct meta *m;
	words[0] = '\0';
	int err = n->options.platform.meta_open(n->options.platform.ctx, &m, words);
	if (err)
		return err;
	n->meta.client = m;
	n->meta.opens++;
	err = follow(n, m);
	client_close(n);
	return err;
}

static void metastore_main(void *arg)
{
	struct node *n = arg;
	uint64_t wait_ns = RETRY_MIN_NS;
	char words[NODE_META_WHY];
	while (!n->meta.leaving) {
		uint64_t began_ns = rt_now_ns(n->options.rt);
		int err = metastore_use(n, words);
		if (n->meta.leaving)
			break;
		if (err && err != OXE_COMPACTED && err != OXE_CANCELLED)
			trouble(n, err, words);
		if (rt_now_ns(n->options.rt) - began_ns > RETRY_MAX_NS)
			wait_ns = RETRY_MIN_NS;
		waitq_wait_until(&n->meta.changed, rt_now_ns(n->options.rt) + wait_ns);
		wait_ns = u64_min(2 * wait_ns, RETRY_MAX_NS);
	}
	group_done(&n->keepers);
}

/* ---- what this node says of itself ------------------------------------------------------------------------------------------- */

static bool node_differs(const struct fact_node *was, const struct fact_node *is)
{
	return !was || strcmp(was->name, is->name) != 0 || was->address_count != is->address_count ||
	       memcmp(was->addresses, is->addresses, sizeof(is->addresses)) != 0;
}

static void node_describe(const struct node *n, struct fact_node *out)
{
	*out = (struct fact_node){.id = n->id};
	snprintf(out->name, sizeof(out->name), "%s", n->name);
	for (size_t i = 0; i < n->address_count && out->address_count < FACT_ADDRESSES_MAX; i++) {
		if (n->addresses[i].protocol != NODE_NVME_TCP)
			continue;
		if (strlen(n->addresses[i].text) < FACT_TEXT_MAX)
			snprintf(out->addresses[out->address_count++], FACT_TEXT_MAX, "%s",
				 n->addresses[i].text);
	}
}

static int node_register(struct node *n, bool beat)
{
	struct fact_node is;
	struct node_why why;
	char key[FACT_KEY_SIZE];
	const struct fact_node *was = facts_node(&n->meta.facts, &n->id);
	node_describe(n, &is);
	if (!node_differs(was, &is) && !beat)
		return 0;
	is.beat = was ? was->beat + 1 : 1;
	fact_key(key, "node", &n->id);
	return node_meta_put(n, key, fact_node_value(&is), was ? was->revision : 0, "this node", &why);
}

static const struct node_pool *pool_unregistered(const struct node *n)
{
	const struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		const struct fact_pool *was = facts_pool(&n->meta.facts, &p->id);
		if (!p->door || p->closing)
			continue;
		if (!was || !uuid_equal(&was->node_id, &n->id) || strcmp(was->name, p->name) != 0)
			return p;
	}
	return NULL;
}

static int pool_register(struct node *n, const struct node_pool *p)
{
	struct fact_pool is = {.id = p->id, .node_id = n->id};
	struct node_why why;
	char key[FACT_KEY_SIZE];
	const struct fact_pool *was = facts_pool(&n->meta.facts, &p->id);
	memcpy(is.name, p->name, sizeof(is.name));
	fact_key(key, "pool", &p->id);
	return node_meta_put(n, key, fact_pool_value(&is), was ? was->revision : 0, "a pool", &why);
}

static int register_all(struct node *n, bool beat)
{
	const struct node_pool *p;
	if (!n->meta.is_known)
		return OXE_NOTREADY;
	int err = node_register(n, beat);
	while (!err && (p = pool_unregistered(n)))
		err = pool_register(n, p);
	return err;
}

/* Only a metastore that others share is told that we live: alone there is nobody who would ask. */
static void registrar_main(void *arg)
{
	struct node *n = arg;
	uint64_t beat_ns = n->options.meta_is_shared ? NODE_BEAT_NS : UINT64_MAX / 2, last_ns = 0;
	while (!n->meta.leaving) {
		uint64_t now_ns = rt_now_ns(n->options.rt), kicks = n->meta.register_kicks;
		bool beat = n->options.meta_is_shared && now_ns >= last_ns + beat_ns;
		int err = register_all(n, beat);
		if (!err && beat)
			last_ns = now_ns;
		uint64_t wait_ns = err ? REGISTER_NS : beat_ns;
		if (!n->meta.leaving && kicks == n->meta.register_kicks)
			waitq_wait_until(&n->meta.register_kick, rt_now_ns(n->options.rt) + wait_ns);
	}
	group_done(&n->keepers);
}

void node_register_kick(struct node *n)
{
	n->meta.register_kicks++;
	waitq_wake_all(&n->meta.register_kick);
}

void pool_unregister(struct node *n, const struct uuid *pool_id)
{
	struct node_why why;
	char key[FACT_KEY_SIZE];
	const struct fact_pool *was = facts_pool(&n->meta.facts, pool_id);
	if (!was || !uuid_equal(&was->node_id, &n->id))
		return;
	fact_key(key, "pool", pool_id);
	if (node_meta_put(n, key, NULL, was->revision, "a pool", &why) != 0)
		LOG_WARN("pool.still_registered", why.message, F_UUID("pool", pool_id));
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------------ */

void node_meta_init(struct node *n)
{
	facts_init(&n->meta.facts);
	waitq_init(&n->meta.changed);
	waitq_init(&n->meta.facts_changed);
	waitq_init(&n->meta.register_kick);
}

void node_meta_start(struct node *n)
{
	if (!n->options.platform.meta_open || !n->list_is_known)
		return;
	node_hold(n, HOLD, "MetastoreAway", "the metastore is being opened", "");
	group_add(&n->keepers, 2);
	fiber_spawn(n->options.rt, "metastore", metastore_main, n);
	fiber_spawn(n->options.rt, "registrar", registrar_main, n);
}

void node_meta_stop(struct node *n)
{
	n->meta.leaving = true;
	if (n->meta.watch)
		meta_watch_cancel(n->meta.watch);
	waitq_wake_all(&n->meta.changed);
	waitq_wake_all(&n->meta.register_kick);
	reaper_kick(n);
	mirrored_look(n);
}
