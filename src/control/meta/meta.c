/*
 * meta.c: what all forms of the metastore share: the checks of what is asked, the lists of what is answered, and the waiting for
 * an outcome that is unknown.
 */
#include "control/meta/meta_form.h"

#define SETTLE_WAIT_MIN_NS (10 * NS_PER_MS)
#define SETTLE_WAIT_MAX_NS NS_PER_S

#ifdef OXBOW_MUTANTS
enum meta_mutant meta_mutant_active;
#endif

/* ---- lists -------------------------------------------------------------------------------------------------------- */

size_t meta_entry_size_bytes(const struct meta_entry *entry)
{
	return strlen(entry->key) + entry->value_len_bytes;
}

/* Grows at each power of two, so that the list needs no capacity. */
void meta_list_add(struct meta_list *list, const struct meta_entry *entry)
{
	if ((list->count & (list->count - 1)) == 0)
		list->entries = mem_realloc(list->entries, 2 * (list->count + 1) * sizeof(list->entries[0]));
	struct meta_entry *copy = &list->entries[list->count++];
	*copy = *entry;
	copy->key = mem_strdup(entry->key);
	copy->value = NULL;
	if (!entry->deleted) {
		copy->value = mem_alloc(entry->value_len_bytes + 1); /* an empty value is there too */
		memcpy(copy->value, entry->value_len_bytes ? entry->value : "", entry->value_len_bytes);
	}
}

void meta_list_free(struct meta_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->entries[i].key);
		free(list->entries[i].value);
	}
	free(list->entries);
	*list = (struct meta_list){0};
}

/* ---- what may be asked --------------------------------------------------------------------------------------------- */

bool meta_key_has_prefix(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0;
}

/* How a key may begin. */
static int prefix_check(const char *prefix)
{
	size_t len_bytes = strnlen(prefix, META_KEY_MAX_BYTES + 1);
	for (size_t i = 0; i < len_bytes; i++) {
		if (prefix[i] <= ' ' || prefix[i] > '~')
			return OXE_INVAL;
	}
	return len_bytes > META_KEY_MAX_BYTES ? OXE_TOOBIG : 0;
}

static int key_check(const char *key)
{
	return key[0] == '\0' ? OXE_INVAL : prefix_check(key);
}

static bool txn_writes_before(const struct meta_txn *txn, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (strcmp(txn->writes[i].key, txn->writes[index].key) == 0)
			return true;
	}
	return false;
}

/* Adds what it holds to *len_bytes. */
static int write_check(const struct meta_write *write, size_t *len_bytes)
{
	int err = key_check(write->key);
	if (!err && write->is_delete && (write->value_len_bytes || write->lease))
		err = OXE_INVAL;
	if (!err && (write->lease > META_LEASE_MAX_ID || (write->value_len_bytes && !write->value)))
		err = OXE_INVAL;
	if (!err && write->value_len_bytes > META_VALUE_MAX_BYTES)
		err = OXE_TOOBIG;
	if (!err)
		*len_bytes += strlen(write->key) + write->value_len_bytes;
	return err;
}

static int txn_check(const struct meta_txn *txn)
{
	size_t len_bytes = 0;
	int err = 0;
	if (txn->compare_count > META_TXN_MAX_COUNT || txn->write_count > META_TXN_MAX_COUNT)
		return OXE_TOOBIG;
	if (txn->compare_count + txn->write_count == 0)
		return OXE_INVAL;
	for (size_t i = 0; i < txn->compare_count && !err; i++) {
		err = key_check(txn->compares[i].key);
		len_bytes += err ? 0 : strlen(txn->compares[i].key);
	}
	for (size_t i = 0; i < txn->write_count && !err; i++)
		err = write_check(&txn->writes[i], &len_bytes);
	for (size_t i = 0; i < txn->write_count && !err; i++)
		err = txn_writes_before(txn, i) ? OXE_INVAL : 0;
	return err ? err : len_bytes > META_TXN_MAX_BYTES ? OXE_TOOBIG : 0;
}

static bool lease_is_good(uint64_t lease)
{
	return lease >= 1 && lease <= META_LEASE_MAX_ID;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

int meta_get(struct meta *m, const char *key, struct meta_list *out)
{
	int err = key_check(key);
	*out = (struct meta_list){0};
	return err ? err
		   : m->ops->read(m, &(struct meta_query){.prefix = key, .is_exact = true, .limit = 1}, out);
}

int meta_range(struct meta *m, const struct meta_range *range, struct meta_list *out)
{
	int err = prefix_check(range->prefix);
	*out = (struct meta_list){0};
	if (!err && range->after)
		err = key_check(range->after);
	if (err)
		return err;
	uint32_t limit =
		range->limit && range->limit < META_PAGE_MAX_COUNT ? range->limit : META_PAGE_MAX_COUNT;
	struct meta_query query = {
		.prefix = range->prefix, .after = range->after, .revision = range->revision, .limit = limit};
	return m->ops->read(m, &query, out);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

int meta_commit(struct meta *m, const struct meta_txn *txn, uint64_t *revision)
{
	int err = txn_check(txn);
	return err ? err : m->ops->commit(m, txn, revision);
}

static int write_one(struct meta *m, const struct meta_write *write, uint64_t mod_revision,
		     uint64_t *revision)
{
	struct meta_compare compare = {.key = write->key, .mod_revision = mod_revision};
	struct meta_txn txn = {.compares = &compare,
			       .compare_count = mod_revision != META_ANY,
			       .writes = write,
			       .write_count = 1};
	return meta_commit(m, &txn, revision);
}

int meta_put(struct meta *m, const char *key, const void *value, size_t value_len_bytes,
	     uint64_t mod_revision, uint64_t lease, uint64_t *revision)
{
	struct meta_write write = {
		.key = key, .value = value, .value_len_bytes = value_len_bytes, .lease = lease};
	return write_one(m, &write, mod_revision, revision);
}

int meta_delete(struct meta *m, const char *key, uint64_t mod_revision, uint64_t *revision)
{
	return write_one(m, &(struct meta_write){.key = key, .is_delete = true}, mod_revision, revision);
}

/* ---- waiting for an outcome ------------------------------------------------------------------------------------------ */

static bool txn_compares(const struct meta_txn *txn, const char *key)
{
	for (size_t i = 0; i < txn->compare_count; i++) {
		if (strcmp(txn->compares[i].key, key) == 0)
			return true;
	}
	return false;
}

static bool txn_can_settle(const struct meta_txn *txn)
{
	for (size_t i = 0; i < txn->write_count; i++) {
		if (!txn_compares(txn, txn->writes[i].key))
			return false;
	}
	return txn->write_count > 0;
}

/* The write that tells whose the transaction was: its first put, or a delete if there is no other. */
static const struct meta_write *txn_sign(const struct meta_txn *txn)
{
	for (size_t i = 0; i < txn->write_count; i++) {
		if (!txn->writes[i].is_delete)
			return &txn->writes[i];
	}
	return &txn->writes[0];
}

static bool sign_is_there(const struct meta_write *sign, const struct meta_list *found)
{
	if (sign->is_delete || !found->count)
		return sign->is_delete && !found->count;
	return found->entries[0].value_len_bytes == sign->value_len_bytes &&
	       memcmp(found->entries[0].value, sign->value, sign->value_len_bytes) == 0;
}

/* 0: what the transaction writes is there, since *revision. OXE_DIFFERS: it is not. */
static int sign_look(struct meta *m, const struct meta_write *sign, uint64_t *revision)
{
	struct meta_list found;
	int err = meta_get(m, sign->key, &found);
	if (err)
		return err;
	if (!sign_is_there(sign, &found))
		err = OXE_DIFFERS;
	else
		*revision = found.count ? found.entries[0].mod_revision : found.revision;
	meta_list_free(&found);
	return err;
}

/* Once more. Sets *in_doubt if one that was sent may have been done, or may yet be. */
static int settle_try(struct meta *m, const struct meta_txn *txn, bool *in_doubt, uint64_t *revision)
{
	int err = meta_commit(m, txn, revision);
	if (err == OXE_INDOUBT && META_MUTANT(DOUBT_IS_YES))
		return 0;
	if (err == OXE_INDOUBT && META_MUTANT(DOUBT_IS_NO))
		return sign_look(m, txn_sign(txn), revision);
	if (err == OXE_INDOUBT)
		*in_doubt = true;
	if (err == OXE_DIFFERS && *in_doubt) /* because one before was done, or because of another writer */
		err = sign_look(m, txn_sign(txn), revision);
	return err;
}

/* A second apart at most, and never two callers in step. */
static void settle_wait(struct meta *m, unsigned tries, uint64_t deadline_ns)
{
	uint64_t now_ns = rt_now_exact_ns(m->rt);
	uint64_t wait_ns = u64_min(SETTLE_WAIT_MIN_NS << (tries < 8 ? tries : 8), SETTLE_WAIT_MAX_NS);
	wait_ns = wait_ns / 2 + rt_random_u64(m->rt) % wait_ns;
	if (now_ns < deadline_ns)
		fiber_sleep(u64_min(wait_ns, deadline_ns - now_ns));
}

int meta_commit_settled(struct meta *m, const struct meta_txn *txn, uint64_t deadline_ns, uint64_t *revision)
{
	bool in_doubt = false;
	int err = txn_check(txn);
	if (err || !txn_can_settle(txn))
		return err ? err : OXE_INVAL;
	for (unsigned tries = 0;; tries++) {
		err = settle_try(m, txn, &in_doubt, revision);
		if (!err || err == OXE_DIFFERS || err == OXE_NOENT)
			return err;
		bool ask_again = err == OXE_INDOUBT || err == OXE_NOTREADY;
		if (!ask_again || rt_now_exact_ns(m->rt) >= deadline_ns)
			return in_doubt ? OXE_INDOUBT : err;
		settle_wait(m, tries, deadline_ns);
	}
}

/* ---- watching ------------------------------------------------------------------------------------------------------- */

int meta_watch_open(struct meta *m, const char *prefix, uint64_t from_revision, struct meta_watch **out)
{
	int err = prefix_check(prefix);
	if (!err && (from_revision == 0 || from_revision > INT64_MAX))
		err = OXE_INVAL;
	return err ? err : m->ops->watch_open(m, prefix, from_revision, out);
}

int meta_watch_next(struct meta_watch *w, uint64_t deadline_ns, struct meta_list *out)
{
	*out = (struct meta_list){0};
	return w->meta->ops->watch_next(w, deadline_ns, out);
}

void meta_watch_cancel(struct meta_watch *w)
{
	w->meta->ops->watch_cancel(w);
}

void meta_watch_close(struct meta_watch *w)
{
	w->meta->ops->watch_close(w);
}

/* ---- leases --------------------------------------------------------------------------------------------------------- */

int meta_lease_grant(struct meta *m, uint64_t lease, uint32_t ttl_s, uint64_t *until_ns)
{
	uint64_t before_ns = rt_now_exact_ns(m->rt);
	if (!lease_is_good(lease) || ttl_s == 0 || ttl_s > META_LEASE_MAX_S)
		return OXE_INVAL;
	int err = m->ops->lease_grant(m, lease, ttl_s);
	if (!err)
		*until_ns = before_ns + ttl_s * NS_PER_S;
	return err;
}

int meta_lease_keep(struct meta *m, uint64_t lease, uint64_t *until_ns)
{
	uint64_t before_ns = rt_now_exact_ns(m->rt);
	uint32_t ttl_s = 0;
	int err = lease_is_good(lease) ? m->ops->lease_keep(m, lease, &ttl_s) : OXE_INVAL;
	if (!err)
		*until_ns = before_ns + ttl_s * NS_PER_S;
	return err;
}

int meta_lease_revoke(struct meta *m, uint64_t lease)
{
	return lease_is_good(lease) ? m->ops->lease_revoke(m, lease) : OXE_INVAL;
}

void meta_close(struct meta *m)
{
	m->ops->close(m);
}
