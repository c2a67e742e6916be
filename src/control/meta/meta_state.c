/*
 * meta_state.c: keys in a sorted array, each with its versions from old to new, and one log of all versions in the order of revisions.
 *
 * Compaction moves the log's head: a version that leaves the log is, of its key, the newest one as of the compacted revision, so the
 * one before it can go, and it goes too if it is a deletion. What a watch or an old page may still ask for is never touched.
 */
#include "control/meta/meta_state.h"

struct meta_item {
	char *key;
	struct list versions; /* oldest first */
};

struct version {
	struct list link;     /* of its item */
	struct list log_link; /* unlinked once compacted */
	struct meta_item *item;
	struct meta_entry entry; /* key and value are the item's and the version's own */
};

struct lease {
	struct list link;
	uint64_t id, deadline_ns;
	uint32_t ttl_s;
};

void meta_state_init(struct meta_state *s, uint64_t keep_revisions)
{
	*s = (struct meta_state){.keep_revisions = keep_revisions};
	list_init(&s->log);
	list_init(&s->leases);
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

/* Of the first item that is not before `key`. */
static size_t item_index(const struct meta_state *s, const char *key)
{
	size_t low = 0, high = s->item_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(s->items[middle]->key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct meta_item *item_find(const struct meta_state *s, const char *key)
{
	size_t index = item_index(s, key);
	return index < s->item_count && strcmp(s->items[index]->key, key) == 0 ? s->items[index] : NULL;
}

static struct meta_item *item_get(struct meta_state *s, const char *key)
{
	struct meta_item *item = item_find(s, key);
	if (item)
		return item;
	if (s->item_count == s->item_capacity) {
		s->item_capacity = 2 * s->item_capacity + 16;
		s->items = mem_realloc(s->items, s->item_capacity * sizeof(s->items[0]));
	}
	size_t index = item_index(s, key);
	memmove(&s->items[index + 1], &s->items[index], (s->item_count++ - index) * sizeof(s->items[0]));
	item = s->items[index] = mem_zalloc(sizeof(*item));
	item->key = mem_strdup(key);
	list_init(&item->versions);
	return item;
}

static void item_drop(struct meta_state *s, struct meta_item *item)
{
	size_t index = item_index(s, item->key);
	assert(s->items[index] == item && list_empty(&item->versions));
	memmove(&s->items[index], &s->items[index + 1], (--s->item_count - index) * sizeof(s->items[0]));
	free(item->key);
	free(item);
}

/* What the key is as of a revision: NULL if it is absent. */
static const struct version *item_at(const struct meta_item *item, uint64_t revision)
{
	for (const struct list *at = item->versions.prev; at != &item->versions; at = at->prev) {
		const struct version *v = list_entry(at, struct version, link);
		if (v->entry.mod_revision <= revision)
			return v->entry.deleted ? NULL : v;
	}
	return NULL;
}

static const struct version *key_now(const struct meta_state *s, const char *key)
{
	const struct meta_item *item = item_find(s, key);
	return item ? item_at(item, s->revision) : NULL;
}

/* ---- versions -------------------------------------------------------------------------------------------------------- */

static void version_free(struct version *v)
{
	list_del(&v->link);
	list_del(&v->log_link);
	free(v->entry.value);
	free(v);
}

static void version_add(struct meta_state *s, const struct meta_write *write, uint64_t revision)
{
	struct version *v = mem_zalloc(sizeof(*v));
	v->item = item_get(s, write->key);
	v->entry = (struct meta_entry){.key = v->item->key,
				       .value_len_bytes = write->value_len_bytes,
				       .mod_revision = revision,
				       .lease = write->lease,
				       .deleted = write->is_delete};
	if (!write->is_delete) {
		v->entry.value = mem_alloc(write->value_len_bytes + 1);
		memcpy(v->entry.value, write->value_len_bytes ? write->value : "", write->value_len_bytes);
	}
	list_add_tail(&v->item->versions, &v->link);
	list_add_tail(&s->log, &v->log_link);
}

/* `v` has left the log: see the file's story. */
static void version_compact(struct meta_state *s, struct version *v)
{
	struct meta_item *item = v->item;
	struct version *oldest = list_first(&item->versions, struct version, link);
	list_del(&v->log_link);
	if (oldest != v)
		version_free(oldest);
	assert(list_first(&item->versions, struct version, link) == v);
	if (v->entry.deleted || META_MUTANT(COMPACTS_LIVE))
		version_free(v);
	if (list_empty(&item->versions))
		item_drop(s, item);
}

static void state_compact(struct meta_state *s)
{
	if (s->revision <= s->keep_revisions)
		return;
	s->compacted = s->revision - s->keep_revisions;
	while (!list_empty(&s->log)) {
		struct version *v = list_first(&s->log, struct version, log_link);
		if (v->entry.mod_revision > s->compacted)
			break;
		version_compact(s, v);
	}
}

void meta_state_free(struct meta_state *s)
{
	while (s->item_count > 0) {
		struct meta_item *item = s->items[s->item_count - 1];
		struct version *v, *next;
		list_for_each_safe (v, next, &item->versions, link)
			version_free(v);
		item_drop(s, item);
	}
	struct lease *lease;
	while ((lease = list_pop(&s->leases, struct lease, link)))
		free(lease);
	free(s->items);
	*s = (struct meta_state){0};
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static int revision_check(const struct meta_state *s, uint64_t revision)
{
	return revision > s->revision ? OXE_RANGE : revision < s->compacted ? OXE_COMPACTED : 0;
}

static size_t query_start(const struct meta_state *s, const struct meta_query *query)
{
	size_t index = item_index(s, query->prefix);
	if (query->after && strcmp(query->after, query->prefix) >= 0) {
		index = item_index(s, query->after);
		index += index < s->item_count && strcmp(s->items[index]->key, query->after) == 0;
	}
	return index;
}

static bool query_wants(const struct meta_query *query, const char *key)
{
	return query->is_exact ? strcmp(key, query->prefix) == 0 : meta_key_has_prefix(key, query->prefix);
}

int meta_state_read(struct meta_state *s, const struct meta_query *query, struct meta_list *out)
{
	bool is_new = query->revision == 0 || META_MUTANT(PAGE_IS_NEW);
	size_t len_bytes = 0;
	int err = query->revision ? revision_check(s, query->revision) : 0;
	if (err)
		return err;
	out->revision = is_new ? s->revision : query->revision;
	if (META_MUTANT(READ_IS_OLD) && is_new && out->revision > s->compacted)
		out->revision--;
	for (size_t i = query_start(s, query); i < s->item_count && query_wants(query, s->items[i]->key);
	     i++) {
		const struct version *v = item_at(s->items[i], out->revision);
		if (!v)
			continue;
		out->more = out->count == query->limit || len_bytes > META_PAGE_FULL_BYTES;
		if (out->more)
			break;
		meta_list_add(out, &v->entry);
		len_bytes += meta_entry_size_bytes(&v->entry);
	}
	return 0;
}

int meta_state_events(struct meta_state *s, const char *prefix, uint64_t from_revision, struct meta_list *out)
{
	struct version *v;
	size_t len_bytes = 0;
	if (from_revision > s->revision + 1)
		return OXE_RANGE;
	if (from_revision <= s->compacted && !META_MUTANT(WATCH_GAP))
		return OXE_COMPACTED;
	list_for_each (v, &s->log, log_link) {
		if (v->entry.mod_revision < from_revision || !meta_key_has_prefix(v->entry.key, prefix))
			continue;
		bool is_full = out->count >= META_PAGE_MAX_COUNT || len_bytes > META_PAGE_FULL_BYTES;
		is_full |= META_MUTANT(WATCH_SPLITS) && out->count > 0;
		if (is_full && (v->entry.mod_revision != out->revision || META_MUTANT(WATCH_SPLITS)))
			break;
		meta_list_add(out, &v->entry);
		len_bytes += meta_entry_size_bytes(&v->entry);
		out->revision = v->entry.mod_revision;
	}
	if (!out->count)
		out->revision = s->revision;
	return 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

static struct lease *lease_find(const struct meta_state *s, uint64_t id)
{
	struct lease *lease;
	list_for_each (lease, &s->leases, link) {
		if (lease->id == id)
			return lease;
	}
	return NULL;
}

#ifdef OXBOW_MUTANTS
/* Was the value the same when the key had this revision? */
static bool value_was(const struct meta_state *s, const struct meta_compare *compare,
		      const struct version *now)
{
	const struct meta_item *item = item_find(s, compare->key);
	const struct version *then = item ? item_at(item, compare->mod_revision) : NULL;
	return then && now && then->entry.value_len_bytes == now->entry.value_len_bytes &&
	       memcmp(then->entry.value, now->entry.value, now->entry.value_len_bytes) == 0;
}
#else
#define value_was(s, compare, now) false
#endif

static int txn_decide(const struct meta_state *s, const struct meta_txn *txn)
{
	for (size_t i = 0; i < txn->compare_count; i++) {
		const struct version *now = key_now(s, txn->compares[i].key);
		bool holds = (now ? now->entry.mod_revision : 0) == txn->compares[i].mod_revision;
		if (META_MUTANT(COMPARES_VALUE) && !holds)
			holds = value_was(s, &txn->compares[i], now);
		if (!holds && !(META_MUTANT(COMPARES_FIRST) && i > 0))
			return OXE_DIFFERS;
	}
	for (size_t i = 0; i < txn->write_count; i++) {
		if (txn->writes[i].lease && !lease_find(s, txn->writes[i].lease))
			return OXE_NOENT;
	}
	return 0;
}

/* Whether it is any change. */
static bool write_apply(struct meta_state *s, const struct meta_write *write)
{
	if (write->is_delete && !key_now(s, write->key))
		return false;
	version_add(s, write, s->revision + 1);
	return true;
}

int meta_state_commit(struct meta_state *s, const struct meta_txn *txn, uint64_t *revision)
{
	bool changed = META_MUTANT(TXN_TEARS) && txn->write_count > 1 && write_apply(s, &txn->writes[0]);
	int err = txn_decide(s, txn);
	for (size_t i = changed; i < txn->write_count && !err; i++)
		changed |= write_apply(s, &txn->writes[i]);
	s->revision += changed;
	if (changed)
		state_compact(s);
	*revision = s->revision;
	return err;
}

/* ---- leases ------------------------------------------------------------------------------------------------------------- */

int meta_state_lease_grant(struct meta_state *s, uint64_t id, uint32_t ttl_s, uint64_t now_ns)
{
	struct lease *lease = lease_find(s, id);
	if (lease && lease->ttl_s != ttl_s)
		return OXE_EXISTS;
	if (!lease) {
		lease = mem_zalloc(sizeof(*lease));
		*lease = (struct lease){.id = id, .ttl_s = ttl_s};
		list_add_tail(&s->leases, &lease->link);
	}
	lease->deadline_ns = now_ns + ttl_s * NS_PER_S;
	return 0;
}

int meta_state_lease_keep(struct meta_state *s, uint64_t id, uint64_t now_ns, uint32_t *ttl_s)
{
	struct lease *lease = lease_find(s, id);
	if (!lease)
		return OXE_NOENT;
	lease->deadline_ns = now_ns + lease->ttl_s * NS_PER_S / (META_MUTANT(LEASE_IS_SHORT) ? 2 : 1);
	*ttl_s = lease->ttl_s;
	return 0;
}

static bool lease_holds(const struct version *v, uint64_t id)
{
	if (!v || META_MUTANT(LEASE_KEEPS_KEYS))
		return false;
	if (META_MUTANT(LEASE_STICKS) && &v->item->versions != v->link.prev)
		return list_entry(v->link.prev, struct version, link)->entry.lease == id;
	return v->entry.lease == id;
}

/* Its keys go in one revision. */
static void lease_end(struct meta_state *s, struct lease *lease)
{
	bool changed = false;
	for (size_t i = 0; i < s->item_count; i++) {
		if (lease_holds(item_at(s->items[i], s->revision), lease->id))
			changed |= write_apply(
				s, &(struct meta_write){.key = s->items[i]->key, .is_delete = true});
	}
	s->revision += changed;
	if (changed)
		state_compact(s);
	list_del(&lease->link);
	free(lease);
}

void meta_state_lease_revoke(struct meta_state *s, uint64_t id)
{
	struct lease *lease = lease_find(s, id);
	if (lease)
		lease_end(s, lease);
}

void meta_state_leases_expire(struct meta_state *s, uint64_t now_ns)
{
	struct lease *lease, *next;
	list_for_each_safe (lease, next, &s->leases, link) {
		if (lease->deadline_ns <= now_ns)
			lease_end(s, lease);
	}
}

void meta_state_leases_renew(struct meta_state *s, uint64_t now_ns)
{
	struct lease *lease;
	list_for_each (lease, &s->leases, link)
		lease->deadline_ns = u64_max(lease->deadline_ns, now_ns + lease->ttl_s * NS_PER_S);
}

uint64_t meta_state_next_expiry_ns(const struct meta_state *s)
{
	uint64_t next_ns = UINT64_MAX;
	const struct lease *lease;
	list_for_each (lease, &s->leases, link)
		next_ns = u64_min(next_ns, lease->deadline_ns);
	return next_ns;
}
