/*
 * meta_sqlite_db.c: the one file that knows SQLite.
 *
 * Every change is a row of `version`: a key, the revision that wrote it, and its value, or NULL for a deletion. What a key is, now or at
 * any revision that is kept, is its newest row up to there. Compaction deletes rows as meta_state.c does: when a revision is compacted,
 * whatever its keys were before goes, and its deletions go themselves.
 *
 * SQLite checks the shape of its pages and not what is in them, so each row carries a CRC32C of what it says.
 *
 * The file is ours by its application id, and its schema is numbered by user_version. Nothing is written to a file that is not ours
 * or is damaged. The lock is held for as long as the file is open (locking_mode=EXCLUSIVE): the kernel drops it with the process. A shared
 * one is locked for each transaction alone, and what is known of the store's revision is read again in each.
 *
 * An fsync that failed may have dropped what it was to write, and the next one says nothing. So the first error of the device ends the
 * use of this connection, checkpoints included, which is why they are not left to SQLite's own hook: that one ignores errors. What has not
 * been checkpointed is still in the WAL, and opening again reads it from there.
 */
#include "control/meta/meta_sqlite_db.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/text.h"

#include <sqlite3.h>
#include <stdio.h>

#define APPLICATION_ID	 0x4f784d53 /* "OxMS" */
#define CHECKPOINT_PAGES 1000
#define SHARED_BUSY_MS	 2000
#define KEYS_END	 "\x7f" /* after a prefix: greater than every key that has it */
#define KEY_NEXT	 "\x01" /* after a key: greater than it, and not than any other key that is */

enum statement {
	SQL_BEGIN,
	SQL_BEGIN_READ,
	SQL_STORE,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_NEXT_KEY,
	SQL_KEY_AT,
	SQL_EVENTS,
	SQL_ADD,
	SQL_ADVANCE,
	SQL_FORGET_OLDER,
	SQL_FORGET_DELETED,
	SQL_LEASES,
	SQL_LEASE,
	SQL_LEASE_ADD,
	SQL_LEASE_DROP,
	SQL_LEASE_KEY,
	SQL_COUNT
};

static const char *const statements[SQL_COUNT] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_BEGIN_READ] = "BEGIN",
	[SQL_STORE] = "SELECT revision, compacted, crc FROM store",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_NEXT_KEY] = "SELECT key FROM version WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT 1",
	[SQL_KEY_AT] =
		"SELECT key, revision, value, lease, crc FROM version WHERE key = ?1 AND revision <= ?2 "
		"ORDER BY revision DESC LIMIT 1",
	[SQL_EVENTS] = "SELECT key, revision, value, lease, crc FROM version WHERE revision >= ?1 "
		       "AND +key >= ?2 AND +key < ?3 ORDER BY revision, seq",
	[SQL_ADD] = "INSERT INTO version (key, revision, value, lease, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
	[SQL_ADVANCE] = "UPDATE store SET revision = ?1, compacted = ?2, crc = ?3",
	[SQL_FORGET_OLDER] =
		"DELETE FROM version WHERE seq IN (SELECT older.seq FROM version AS newer "
		"JOIN version AS older ON older.key = newer.key AND older.revision < newer.revision "
		"WHERE newer.revision > ?1 AND newer.revision <= ?2)",
	[SQL_FORGET_DELETED] = "DELETE FROM version WHERE revision > ?1 AND revision <= ?2 AND value IS NULL",
	[SQL_LEASES] = "SELECT id, ttl_s, crc FROM lease ORDER BY id",
	[SQL_LEASE] = "SELECT 1 FROM lease WHERE id = ?1",
	[SQL_LEASE_ADD] = "INSERT INTO lease (id, ttl_s, crc) VALUES (?1, ?2, ?3)",
	[SQL_LEASE_DROP] = "DELETE FROM lease WHERE id = ?1",
	[SQL_LEASE_KEY] = "SELECT key FROM version AS v WHERE lease = ?1 AND lease <> 0 AND revision = "
			  "(SELECT max(revision) FROM version WHERE key = v.key) ORDER BY key LIMIT 1",
};

/* From schema i to i + 1. A step that was released is never changed. */
static const char *const migrations[] = {
	"CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL CHECK (length(id) = "
	"16),"
	"  revision INTEGER NOT NULL, compacted INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;"
	"CREATE TABLE version (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, revision INTEGER NOT NULL, value "
	"BLOB,"
	"  lease INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;"
	"CREATE UNIQUE INDEX version_by_key ON version (key, revision);"
	"CREATE INDEX version_by_revision ON version (revision);"
	"CREATE INDEX version_by_lease ON version (lease) WHERE lease <> 0;"
	"CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;",
};
#define SCHEMA_VERSION ((int)ARRAY_COUNT(migrations))

/* What SQLite's own check cannot know. One row for each thing that is wrong. */
static const char sanity_sql[] =
	"SELECT 'there is no row that says which store this is' WHERE (SELECT count(*) FROM store) <> 1 "
	"UNION ALL SELECT 'its revision is less than what was compacted' FROM store "
	"  WHERE compacted < 0 OR revision < compacted "
	"UNION ALL SELECT 'a key has a revision the store has not come to' FROM version, store "
	"  WHERE version.revision < 1 OR version.revision > store.revision "
	"UNION ALL SELECT 'there is a key or value that this store would not take' FROM version "
	"  WHERE length(CAST(key AS BLOB)) NOT BETWEEN 1 AND 512 OR key GLOB '*[^!-~]*' OR length(value) > "
	"65536 "
	"UNION ALL SELECT 'a deletion names a lease' FROM version WHERE lease <> 0 AND value IS NULL "
	"UNION ALL SELECT 'a key names a lease that is none' FROM version AS v WHERE lease <> 0 "
	"  AND revision = (SELECT max(revision) FROM version WHERE key = v.key) "
	"  AND lease NOT IN (SELECT id FROM lease) "
	"UNION ALL SELECT 'there is a lease that this store would not give' FROM lease "
	"  WHERE id < 1 OR ttl_s NOT BETWEEN 1 AND 86400";
static_assert(META_KEY_MAX_BYTES == 512 && META_VALUE_MAX_BYTES == 65536 && META_LEASE_MAX_S == 86400,
	      "the check above says the same");

struct meta_db {
	sqlite3 *sql;
	sqlite3_stmt *prepared[SQL_COUNT];
	struct uuid id;
	uint64_t revision, compacted, keep_revisions;
	int wal_pages; /* after the last commit */
	bool failed, is_shared;
};

/* ---- SQLite's words and ours ------------------------------------------------------------------------------------------- */

static int err_from_sqlite(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return OXE_BUSY;
	case SQLITE_FULL:
		return OXE_NOSPC;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return OXE_CORRUPT;
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		return OXE_PERM;
	case SQLITE_IOERR:
		return OXE_IO;
	case SQLITE_NOMEM:
		return OXE_NOMEM;
	default:
		return OXE_SYS;
	}
}

/* An error after which the connection's idea of the file may not be the disk's. */
static int db_note(struct meta_db *db, int rc)
{
	int err = err_from_sqlite(rc);
	bool is_others = db->is_shared && err == OXE_BUSY;
	db->failed |= err && err != OXE_NOSPC && err != OXE_NOMEM && !is_others;
	return err;
}

static sqlite3_stmt *sql_take(struct meta_db *db, enum statement which)
{
	sqlite3_reset(db->prepared[which]);
	return db->prepared[which];
}

/* Done with its rows, so that it holds nothing open. */
static void sql_end(struct meta_db *db, enum statement which)
{
	sqlite3_reset(db->prepared[which]);
	sqlite3_clear_bindings(db->prepared[which]);
}

static int sql_run(struct meta_db *db, enum statement which)
{
	int rc = sqlite3_step(db->prepared[which]);
	sql_end(db, which);
	return db_note(db, rc);
}

/* What was not bound would be NULL, and a comparison with it would answer another question. Only memory can be missing. */
static void bound(int rc)
{
	assert(rc == SQLITE_OK);
}

static void bind_text(sqlite3_stmt *s, int index, const char *text)
{
	bound(sqlite3_bind_text(s, index, text, -1, SQLITE_TRANSIENT));
}

static void bind_number(sqlite3_stmt *s, int index, uint64_t number)
{
	bound(sqlite3_bind_int64(s, index, (sqlite3_int64)u64_min(number, INT64_MAX)));
}

static void bind_joined(sqlite3_stmt *s, int index, const char *text, const char *end)
{
	char joined[META_KEY_MAX_BYTES + 2];
	snprintf(joined, sizeof(joined), "%s%s", text, end);
	bind_text(s, index, joined);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static uint32_t numbers_crc(uint32_t crc, uint64_t a, uint64_t b)
{
	le64 numbers[] = {le64_of(a), le64_of(b)};
	return crc32c(crc, numbers, sizeof(numbers));
}

/* A deletion and an empty value are not the same. */
static uint32_t entry_crc(const struct meta_entry *entry)
{
	uint32_t crc = numbers_crc(entry->deleted, entry->mod_revision, entry->lease);
	crc = crc32c(crc, entry->key, strlen(entry->key) + 1);
	return crc32c(crc, entry->value, entry->value_len_bytes);
}

/* Of `version`: key, revision, value, lease, crc. Text and value are SQLite's until the next step. */
static int row_entry(sqlite3_stmt *s, struct meta_entry *entry)
{
	*entry = (struct meta_entry){
		.key = (char *)(uintptr_t)sqlite3_column_text(s, 0),
		.mod_revision = (uint64_t)sqlite3_column_int64(s, 1),
		.value = (void *)(uintptr_t)sqlite3_column_blob(s, 2),
		.value_len_bytes = (size_t)sqlite3_column_bytes(s, 2),
		.lease = (uint64_t)sqlite3_column_int64(s, 3),
		.deleted = sqlite3_column_type(s, 2) == SQLITE_NULL,
	};
	return entry->key && sqlite3_column_int64(s, 4) == entry_crc(entry) ? 0 : OXE_CORRUPT;
}

static uint32_t store_crc(const struct uuid *id, uint64_t revision, uint64_t compacted)
{
	return numbers_crc(crc32c(0, id->b, sizeof(id->b)), revision, compacted);
}

static int row_note(struct meta_db *db, int err)
{
	db->failed |= err == OXE_CORRUPT;
	return err;
}

/* The key of SQL_NEXT_KEY or SQL_LEASE_KEY, after a step that said `rc`. OXE_NOENT: there is no row. */
static int row_key(struct meta_db *db, sqlite3_stmt *s, int rc, char key[META_KEY_MAX_BYTES + 2])
{
	int err = db_note(db, rc);
	if (err || rc != SQLITE_ROW)
		return err ? err : OXE_NOENT;
	const char *text = (const char *)sqlite3_column_text(s, 0);
	if (!text || strlen(text) > META_KEY_MAX_BYTES)
		return row_note(db, OXE_CORRUPT);
	snprintf(key, META_KEY_MAX_BYTES + 2, "%s", text);
	return 0;
}

static int row_note(struct meta_db *db, int err);

/* How far others have come; in a transaction, so that it stays so. */
static int store_look(struct meta_db *db)
{
	sqlite3_stmt *s = sql_take(db, SQL_STORE);
	int rc = sqlite3_step(s), err = db_note(db, rc);
	if (!err && rc == SQLITE_ROW) {
		uint64_t revision = (uint64_t)sqlite3_column_int64(s, 0),
			 compacted = (uint64_t)sqlite3_column_int64(s, 1);
		if (sqlite3_column_int64(s, 2) == store_crc(&db->id, revision, compacted)) {
			db->revision = revision;
			db->compacted = compacted;
		} else {
			err = row_note(db, OXE_CORRUPT);
		}
	}
	sql_end(db, SQL_STORE);
	return err;
}

static void roll_back(struct meta_db *db);

/* What is read until reading_end is of one moment. */
static int reading_begin(struct meta_db *db)
{
	if (db->failed)
		return OXE_FAILED;
	if (!db->is_shared)
		return 0;
	int err = sql_run(db, SQL_BEGIN_READ);
	if (!err)
		err = store_look(db);
	if (err)
		roll_back(db);
	return err;
}

static int reading_end(struct meta_db *db, int err)
{
	if (db->is_shared)
		roll_back(db);
	return err;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

/* The row of a key as of a revision; ended by the caller. OXE_NOENT: the key is absent there. */
static int key_at(struct meta_db *db, const char *key, uint64_t revision, struct meta_entry *entry)
{
	sqlite3_stmt *s = sql_take(db, SQL_KEY_AT);
	bind_text(s, 1, key);
	bind_number(s, 2, revision);
	int rc = sqlite3_step(s), err = db_note(db, rc);
	if (!err)
		err = rc == SQLITE_ROW ? row_note(db, row_entry(s, entry)) : OXE_NOENT;
	return err ? err : entry->deleted ? OXE_NOENT : 0;
}

/* Adds the key to `out` if it is there at out->revision. */
static int read_key(struct meta_db *db, const char *key, struct meta_list *out)
{
	struct meta_entry entry;
	int err = key_at(db, key, out->revision, &entry);
	if (!err)
		meta_list_add(out, &entry);
	sql_end(db, SQL_KEY_AT);
	return err == OXE_NOENT ? 0 : err;
}

/* The first key from `from` on that has the prefix, into `from`; OXE_NOENT if there is none. */
static int next_key(struct meta_db *db, const char *prefix, char from[META_KEY_MAX_BYTES + 2])
{
	sqlite3_stmt *s = sql_take(db, SQL_NEXT_KEY);
	bind_text(s, 1, from);
	bind_joined(s, 2, prefix, KEYS_END);
	int err = row_key(db, s, sqlite3_step(s), from);
	sql_end(db, SQL_NEXT_KEY);
	return err;
}

/* Whether the key is there as of out->revision; if it still fits, in `out`. */
static int read_or_probe(struct meta_db *db, const char *key, struct meta_list *out, bool is_full)
{
	struct meta_list probe = {.revision = out->revision};
	if (!is_full)
		return read_key(db, key, out);
	int err = read_key(db, key, &probe);
	out->more = probe.count > 0;
	meta_list_free(&probe);
	return err;
}

/* Key by key: history makes many rows of one key, and those between are stepped over. */
static int read_range(struct meta_db *db, const struct meta_query *query, struct meta_list *out)
{
	char key[META_KEY_MAX_BYTES + 2];
	size_t len_bytes = 0;
	int err;
	bool is_after = query->after && strcmp(query->after, query->prefix) >= 0;
	snprintf(key, sizeof(key), "%s%s", is_after ? query->after : query->prefix, is_after ? KEY_NEXT : "");
	while (!out->more && !(err = next_key(db, query->prefix, key))) {
		size_t count_before = out->count;
		bool is_full = out->count == query->limit || len_bytes > META_PAGE_FULL_BYTES;
		err = read_or_probe(db, key, out, is_full);
		if (err)
			return err;
		if (out->count > count_before)
			len_bytes += meta_entry_size_bytes(&out->entries[count_before]);
		strcat(key, KEY_NEXT);
	}
	return out->more || err == OXE_NOENT ? 0 : err;
}

static int read_now(struct meta_db *db, const struct meta_query *query, struct meta_list *out)
{
	if (query->revision > db->revision)
		return OXE_RANGE;
	if (query->revision && query->revision < db->compacted)
		return OXE_COMPACTED;
	out->revision = query->revision ? query->revision : db->revision;
	int err = query->is_exact ? read_key(db, query->prefix, out) : read_range(db, query, out);
	if (err)
		meta_list_free(out);
	return err;
}

int meta_db_read(struct meta_db *db, const struct meta_query *query, struct meta_list *out)
{
	int err = reading_begin(db);
	return err ? err : reading_end(db, read_now(db, query, out));
}

/* False when the batch is full; whole revisions only. */
static bool events_add(struct meta_list *out, const struct meta_entry *entry, size_t *len_bytes)
{
	bool is_full = out->count >= META_PAGE_MAX_COUNT || *len_bytes > META_PAGE_FULL_BYTES;
	if (is_full && entry->mod_revision != out->revision)
		return false;
	meta_list_add(out, entry);
	*len_bytes += meta_entry_size_bytes(entry);
	out->revision = entry->mod_revision;
	return true;
}

static int events_now(struct meta_db *db, const char *prefix, uint64_t from_revision, struct meta_list *out)
{
	size_t len_bytes = 0;
	int rc = SQLITE_DONE, err = 0;
	if (from_revision > db->revision + 1)
		return OXE_RANGE;
	if (from_revision <= db->compacted)
		return OXE_COMPACTED;
	sqlite3_stmt *s = sql_take(db, SQL_EVENTS);
	bind_number(s, 1, from_revision);
	bind_text(s, 2, prefix);
	bind_joined(s, 3, prefix, KEYS_END);
	while (!err && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		struct meta_entry entry;
		err = row_note(db, row_entry(s, &entry));
		if (!err && !events_add(out, &entry, &len_bytes))
			break;
	}
	sql_end(db, SQL_EVENTS);
	err = err ? err : db_note(db, rc);
	if (err)
		meta_list_free(out);
	else if (!out->count)
		out->revision = db->revision;
	return err;
}

int meta_db_events(struct meta_db *db, const char *prefix, uint64_t from_revision, struct meta_list *out)
{
	int err = reading_begin(db);
	return err ? err : reading_end(db, events_now(db, prefix, from_revision, out));
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

/* 0 if the key is absent. */
static int key_revision(struct meta_db *db, const char *key, uint64_t *mod_revision)
{
	struct meta_entry entry;
	int err = key_at(db, key, INT64_MAX, &entry);
	*mod_revision = err ? 0 : entry.mod_revision;
	sql_end(db, SQL_KEY_AT);
	return err == OXE_NOENT ? 0 : err;
}

static int lease_check(struct meta_db *db, uint64_t lease)
{
	sqlite3_stmt *s = sql_take(db, SQL_LEASE);
	bind_number(s, 1, lease);
	int rc = sqlite3_step(s), err = db_note(db, rc);
	sql_end(db, SQL_LEASE);
	return err ? err : rc == SQLITE_ROW ? 0 : OXE_NOENT;
}

static int txn_decide(struct meta_db *db, const struct meta_txn *txn)
{
	int err = 0;
	for (size_t i = 0; i < txn->compare_count && !err; i++) {
		uint64_t mod_revision;
		err = key_revision(db, txn->compares[i].key, &mod_revision);
		if (!err && mod_revision != txn->compares[i].mod_revision)
			err = OXE_DIFFERS;
	}
	for (size_t i = 0; i < txn->write_count && !err; i++)
		err = txn->writes[i].lease ? lease_check(db, txn->writes[i].lease) : 0;
	return err;
}

/* Adds the row, of the revision that is being made. *changed stays as it is for a deletion of nothing. */
static int write_apply(struct meta_db *db, const struct meta_write *write, bool *changed)
{
	uint64_t mod_revision = 1;
	int err = write->is_delete ? key_revision(db, write->key, &mod_revision) : 0;
	if (err || mod_revision == 0)
		return err;
	struct meta_entry entry = {.key = (char *)(uintptr_t)write->key,
				   .value = (void *)(uintptr_t)(write->value_len_bytes ? write->value : ""),
				   .value_len_bytes = write->value_len_bytes,
				   .mod_revision = db->revision + 1,
				   .lease = write->lease,
				   .deleted = write->is_delete};
	sqlite3_stmt *s = sql_take(db, SQL_ADD);
	bind_text(s, 1, entry.key);
	bind_number(s, 2, entry.mod_revision);
	if (!entry.deleted)
		bound(sqlite3_bind_blob(s, 3, entry.value, (int)entry.value_len_bytes, SQLITE_TRANSIENT));
	bind_number(s, 4, entry.lease);
	bind_number(s, 5, entry_crc(&entry));
	*changed = true;
	return sql_run(db, SQL_ADD);
}

static int forget(struct meta_db *db, enum statement which, uint64_t compacted)
{
	sqlite3_stmt *s = sql_take(db, which);
	bind_number(s, 1, db->compacted);
	bind_number(s, 2, compacted);
	return sql_run(db, which);
}

/* The revision that is being made, and what is compacted with it. */
static int advance(struct meta_db *db, uint64_t compacted)
{
	sqlite3_stmt *s = sql_take(db, SQL_ADVANCE);
	bind_number(s, 1, db->revision + 1);
	bind_number(s, 2, compacted);
	bind_number(s, 3, store_crc(&db->id, db->revision + 1, compacted));
	int err = sql_run(db, SQL_ADVANCE);
	if (!err && compacted > db->compacted)
		err = forget(db, SQL_FORGET_OLDER, compacted);
	if (!err && compacted > db->compacted)
		err = forget(db, SQL_FORGET_DELETED, compacted);
	return err;
}

/* A full disk is noticed before the record of the commit is written: not done. Of another error nobody knows. */
static int commit_end(struct meta_db *db)
{
	int err = sql_run(db, SQL_COMMIT);
	if (err && err != OXE_NOSPC) {
		db->failed = true;
		return OXE_INDOUBT;
	}
	return err;
}

static void roll_back(struct meta_db *db)
{
	if (!sqlite3_get_autocommit(db->sql) && sql_run(db, SQL_ROLLBACK))
		db->failed = true;
}

/* Its failure is not that of the commit before it. */
static void checkpoint(struct meta_db *db)
{
	if (db->wal_pages < CHECKPOINT_PAGES || db->failed)
		return;
	int rc = sqlite3_wal_checkpoint_v2(db->sql, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	(void)db_note(db, rc);
	db->wal_pages = 0;
}

/* The end of what began with SQL_BEGIN: all of it or, after an error, nothing. */
static int db_finish(struct meta_db *db, int err, bool changed)
{
	uint64_t next = db->revision + 1;
	uint64_t compacted = next > db->keep_revisions ? next - db->keep_revisions : 0;
	compacted = u64_max(compacted, db->compacted);
	if (!err && changed)
		err = advance(db, compacted);
	if (!err)
		err = commit_end(db);
	if (err) {
		roll_back(db);
		return err;
	}
	if (changed) {
		db->revision = next;
		db->compacted = compacted;
	}
	checkpoint(db);
	return 0;
}

static int db_begin(struct meta_db *db)
{
	int err = db->failed ? OXE_FAILED : sql_run(db, SQL_BEGIN);
	if (err || !db->is_shared)
		return err;
	err = store_look(db);
	if (err)
		roll_back(db);
	return err;
}

int meta_db_commit(struct meta_db *db, const struct meta_txn *txn, uint64_t *revision)
{
	bool changed = false;
	int err = db_begin(db);
	if (err)
		return err;
	err = txn_decide(db, txn);
	for (size_t i = 0; i < txn->write_count && !err; i++)
		err = write_apply(db, &txn->writes[i], &changed);
	err = db_finish(db, err, changed);
	*revision = db->revision;
	return err;
}

/* ---- leases --------------------------------------------------------------------------------------------------------------- */

int meta_db_leases(struct meta_db *db, void (*each)(void *ctx, uint64_t lease, uint32_t ttl_s), void *ctx)
{
	sqlite3_stmt *s = sql_take(db, SQL_LEASES);
	int rc = SQLITE_DONE, err = 0;
	while (!err && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		uint64_t id = (uint64_t)sqlite3_column_int64(s, 0);
		uint32_t ttl_s = (uint32_t)sqlite3_column_int64(s, 1);
		err = sqlite3_column_int64(s, 2) == numbers_crc(0, id, ttl_s) ? 0 : OXE_CORRUPT;
		if (!err)
			each(ctx, id, ttl_s);
	}
	sql_end(db, SQL_LEASES);
	return err ? err : db_note(db, rc);
}

int meta_db_lease_add(struct meta_db *db, uint64_t lease, uint32_t ttl_s)
{
	int err = db_begin(db);
	if (err)
		return err;
	sqlite3_stmt *s = sql_take(db, SQL_LEASE_ADD);
	bind_number(s, 1, lease);
	bind_number(s, 2, ttl_s);
	bind_number(s, 3, numbers_crc(0, lease, ttl_s));
	return db_finish(db, sql_run(db, SQL_LEASE_ADD), false);
}

/* One of its keys; OXE_NOENT if it has none any more. */
static int lease_key(struct meta_db *db, uint64_t lease, char key[META_KEY_MAX_BYTES + 2])
{
	sqlite3_stmt *s = sql_take(db, SQL_LEASE_KEY);
	bind_number(s, 1, lease);
	int err = row_key(db, s, sqlite3_step(s), key);
	sql_end(db, SQL_LEASE_KEY);
	return err;
}

int meta_db_lease_end(struct meta_db *db, uint64_t lease)
{
	char key[META_KEY_MAX_BYTES + 2];
	bool changed = false;
	int err = db_begin(db);
	if (err)
		return err;
	while (!err) {
		err = lease_key(db, lease, key);
		if (!err)
			err = write_apply(db, &(struct meta_write){.key = key, .is_delete = true}, &changed);
	}
	if (err == OXE_NOENT) {
		bind_number(sql_take(db, SQL_LEASE_DROP), 1, lease);
		err = sql_run(db, SQL_LEASE_DROP);
	}
	return db_finish(db, err, changed);
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static int refuse(char why[META_WHY_BYTES], int err, const char *what, const char *detail)
{
	snprintf(why, META_WHY_BYTES, "%s%s%.160s", what, detail ? ": " : "", detail ? detail : "");
	return err;
}

/* The first column of the first row, as a number and as text. */
static int ask(sqlite3 *sql, const char *text, sqlite3_int64 *number, char words[META_WHY_BYTES])
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(sql, text, -1, &s, NULL);
	*number = 0;
	words[0] = '\0';
	if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		const char *answer = (const char *)sqlite3_column_text(s, 0);
		snprintf(words, META_WHY_BYTES, "%s", answer ? answer : "");
		*number = sqlite3_column_int64(s, 0);
	}
	sqlite3_finalize(s);
	return rc;
}

/* A question that must have an answer. */
static int ask_number(sqlite3 *sql, const char *text, sqlite3_int64 *number, char why[META_WHY_BYTES])
{
	char words[META_WHY_BYTES];
	int rc = ask(sql, text, number, words), err = err_from_sqlite(rc);
	if (err)
		return refuse(why, err, err == OXE_BUSY ? "another process has it open" : "it cannot be read",
			      sqlite3_errmsg(sql));
	return 0;
}

static int run_text(sqlite3 *sql, const char *text, char why[META_WHY_BYTES])
{
	int err = err_from_sqlite(sqlite3_exec(sql, text, NULL, NULL, NULL));
	return err ? refuse(why, err, "it cannot be written", sqlite3_errmsg(sql)) : 0;
}

static int on_commit(void *ctx, sqlite3 *sql, const char *name, int pages)
{
	struct meta_db *db = ctx;
	(void)sql;
	(void)name;
	db->wal_pages = pages;
	return SQLITE_OK;
}

/* Nothing here writes: first it must be known whose file it is. */
static int file_open(const char *path, int flags, bool is_shared, sqlite3 **out, char why[META_WHY_BYTES])
{
	int rc = sqlite3_open_v2(path, out, flags | SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_CANTOPEN && sqlite3_system_errno(*out) == ENOENT)
		return refuse(why, OXE_NOENT, "there is no such file or directory", NULL);
	if (rc == SQLITE_CANTOPEN && sqlite3_system_errno(*out))
		return refuse(why, err_from_errno(sqlite3_system_errno(*out)), "it cannot be opened",
			      strerror(sqlite3_system_errno(*out)));
	if (rc != SQLITE_OK)
		return refuse(why, err_from_sqlite(rc), "it cannot be opened", sqlite3_errmsg(*out));
	sqlite3_extended_result_codes(*out, 1);
	sqlite3_db_config(*out, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(*out, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(*out, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* until all is found well */
	if (is_shared)
		sqlite3_busy_timeout(*out, SHARED_BUSY_MS);
	else if (run_text(*out, "PRAGMA locking_mode = EXCLUSIVE", why))
		return OXE_SYS;
	return run_text(*out, "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0",
			why);
}

/* OXE_NOENT: nothing yet, as a creation that was killed leaves it. OXE_OCCUPIED: somebody else's. */
static int whose_file(sqlite3 *sql, sqlite3_int64 *schema, char why[META_WHY_BYTES])
{
	sqlite3_int64 application, tables = 0;
	int err = ask_number(sql, "PRAGMA application_id", &application, why);
	if (!err)
		err = ask_number(sql, "PRAGMA user_version", schema, why);
	if (!err)
		err = ask_number(sql, "SELECT count(*) FROM sqlite_schema", &tables, why);
	if (err)
		return err;
	if (application == 0 && *schema == 0 && tables == 0)
		return refuse(why, OXE_NOENT, "its creation was never finished", NULL);
	if (application != APPLICATION_ID)
		return refuse(why, OXE_OCCUPIED, "it is the database of another program", NULL);
	if (*schema > SCHEMA_VERSION)
		return refuse(why, OXE_VERSION, "it was written by a newer version of this program", NULL);
	return *schema < 1 ? refuse(why, OXE_CORRUPT, "it has no schema version", NULL) : 0;
}

/* What SQLite can tell of any file. */
static int check_integrity(sqlite3 *sql, char why[META_WHY_BYTES])
{
	char words[META_WHY_BYTES];
	sqlite3_int64 number;
	int rc = ask(sql, "PRAGMA integrity_check(1)", &number, words);
	if (err_from_sqlite(rc))
		return refuse(why, err_from_sqlite(rc), "it cannot be read", sqlite3_errmsg(sql));
	return strcmp(words, "ok") == 0 ? 0 : refuse(why, OXE_CORRUPT, "it is damaged", words);
}

static int check_sanity(sqlite3 *sql, char why[META_WHY_BYTES])
{
	char words[META_WHY_BYTES];
	sqlite3_int64 number;
	int rc = ask(sql, sanity_sql, &number, words);
	if (rc == SQLITE_ROW)
		return refuse(why, OXE_CORRUPT, "it is damaged", words);
	if (rc == SQLITE_ERROR)
		return refuse(why, OXE_CORRUPT, "its tables are not those of its version",
			      sqlite3_errmsg(sql));
	return rc == SQLITE_DONE ? 0
				 : refuse(why, err_from_sqlite(rc), "it cannot be read", sqlite3_errmsg(sql));
}

static int set_durable(sqlite3 *sql, char why[META_WHY_BYTES])
{
	char words[META_WHY_BYTES];
	sqlite3_int64 number;
	int rc = ask(sql, "PRAGMA journal_mode = WAL", &number, words);
	if (err_from_sqlite(rc) || strcmp(words, "wal") != 0)
		return refuse(why, err_from_sqlite(rc) ? err_from_sqlite(rc) : OXE_SYS,
			      "it cannot be written", sqlite3_errmsg(sql));
	return run_text(
		sql, META_MUTANT(NO_SYNC) ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", why);
}

/* All steps from a schema on and what else is asked, in one transaction. After an error it is rolled back when the file is closed. */
static int migrate(sqlite3 *sql, int from, const char *and_then, char why[META_WHY_BYTES])
{
	struct text text = {0};
	text_add(&text, "BEGIN IMMEDIATE;");
	for (int v = from; v < SCHEMA_VERSION; v++)
		text_add(&text, migrations[v]);
	text_printf(&text, "PRAGMA application_id = %d; PRAGMA user_version = %d; %s; COMMIT", APPLICATION_ID,
		    SCHEMA_VERSION, and_then);
	int err = run_text(sql, text_get(&text), why);
	text_free(&text);
	return err;
}

static int read_store(struct meta_db *db, char why[META_WHY_BYTES])
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db->sql, "SELECT id, revision, compacted, crc FROM store", -1, &s, NULL);
	bool is_good = rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW &&
		       sqlite3_column_bytes(s, 0) == sizeof(db->id);
	if (is_good) {
		memcpy(&db->id, sqlite3_column_blob(s, 0), sizeof(db->id));
		db->revision = (uint64_t)sqlite3_column_int64(s, 1);
		db->compacted = (uint64_t)sqlite3_column_int64(s, 2);
		is_good = sqlite3_column_int64(s, 3) == store_crc(&db->id, db->revision, db->compacted);
	}
	sqlite3_finalize(s);
	return is_good ? 0
		       : refuse(why, OXE_CORRUPT, "it is damaged", "the row that says which store this is");
}

/* Every row says what was written there. */
static int check_rows(sqlite3 *sql, char why[META_WHY_BYTES])
{
	sqlite3_stmt *s = NULL;
	struct meta_entry entry = {0};
	int err = 0, rc = sqlite3_prepare_v2(sql, "SELECT key, revision, value, lease, crc FROM version", -1,
					     &s, NULL);
	while (rc == SQLITE_OK && !err && sqlite3_step(s) == SQLITE_ROW)
		err = row_entry(s, &entry);
	if (err)
		refuse(why, err, "it is damaged: the value of a key", entry.key);
	sqlite3_finalize(s);
	return err;
}

static void lease_ignore(void *ctx, uint64_t lease, uint32_t ttl_s)
{
	(void)ctx;
	(void)lease;
	(void)ttl_s;
}

static int check_leases(struct meta_db *db, char why[META_WHY_BYTES])
{
	int err = meta_db_leases(db, lease_ignore, NULL);
	return err ? refuse(why, err, "it is damaged", "a lease") : 0;
}

static int prepare_all(struct meta_db *db, char why[META_WHY_BYTES])
{
	for (int i = 0; i < SQL_COUNT; i++) {
		int rc = sqlite3_prepare_v3(db->sql, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
					    &db->prepared[i], NULL);
		if (rc != SQLITE_OK)
			return refuse(why, OXE_CORRUPT, "its tables are not those of its version",
				      sqlite3_errmsg(db->sql));
	}
	sqlite3_wal_autocheckpoint(db->sql, 0);
	sqlite3_wal_hook(db->sql, on_commit, db);
	sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return 0;
}

void meta_db_close(struct meta_db *db)
{
	if (db->failed)
		sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(db->prepared[i]);
	sqlite3_close(db->sql);
	free(db);
}

static int db_open(const char *path, uint64_t keep_revisions, bool is_shared, struct meta_db **out,
		   char why[META_WHY_BYTES])
{
	struct meta_db *db = mem_zalloc(sizeof(*db));
	sqlite3_int64 schema = 0;
	db->keep_revisions = keep_revisions;
	db->is_shared = is_shared;
	int err = file_open(path, 0, is_shared, &db->sql, why);
	if (!err)
		err = whose_file(db->sql, &schema, why);
	if (!err)
		err = check_integrity(db->sql, why);
	if (!err)
		err = set_durable(db->sql, why);
	if (!err && schema < SCHEMA_VERSION)
		err = migrate(db->sql, (int)schema, "", why);
	if (!err)
		err = check_sanity(db->sql, why);
	if (!err)
		err = check_rows(db->sql, why);
	if (!err)
		err = read_store(db, why);
	if (!err)
		err = prepare_all(db, why);
	if (!err)
		err = check_leases(db, why);
	if (err)
		meta_db_close(db);
	else
		*out = db;
	return err;
}

int meta_db_open(const char *path, uint64_t keep_revisions, struct meta_db **out, char why[META_WHY_BYTES])
{
	return db_open(path, keep_revisions, false, out, why);
}

int meta_db_open_shared(const char *path, uint64_t keep_revisions, struct meta_db **out,
			char why[META_WHY_BYTES])
{
	return db_open(path, keep_revisions, true, out, why);
}

const struct uuid *meta_db_id(const struct meta_db *db)
{
	return &db->id;
}

bool meta_db_has_failed(const struct meta_db *db)
{
	return db->failed;
}

/* ---- creating ----------------------------------------------------------------------------------------------------------------- */

static int create_in(sqlite3 *sql, const struct uuid *id, char why[META_WHY_BYTES])
{
	char row[160], hex[2 * sizeof(id->b) + 1];
	int err = set_durable(sql, why);
	for (size_t i = 0; i < sizeof(id->b); i++)
		snprintf(hex + 2 * i, 3, "%02x", id->b[i]);
	snprintf(row, sizeof(row), "INSERT INTO store VALUES (1, x'%s', 0, 0, %u)", hex, store_crc(id, 0, 0));
	return err ? err : migrate(sql, 0, row, why);
}

/* Is the store that is there the one that was asked for? */
static int check_same(const char *path, const struct uuid *id, char why[META_WHY_BYTES])
{
	struct meta_db *db;
	int err = meta_db_open(path, META_KEEP_REVISIONS, &db, why);
	if (err)
		return err;
	if (!uuid_equal(&db->id, id))
		err = refuse(why, OXE_EXISTS, "there is another store already", NULL);
	meta_db_close(db);
	return err;
}

int meta_db_create(const char *path, const struct uuid *id, char why[META_WHY_BYTES])
{
	sqlite3 *sql = NULL;
	sqlite3_int64 schema;
	bool is_there = false;
	int err = file_open(path, SQLITE_OPEN_CREATE, false, &sql, why);
	if (!err) {
		err = whose_file(sql, &schema, why);
		is_there = !err;
		if (err == OXE_NOENT)
			err = create_in(sql, id, why);
		else if (err == OXE_CORRUPT)
			err = refuse(why, OXE_OCCUPIED, "there is a file that is no database", NULL);
	}
	sqlite3_close(sql);
	return err || !is_there ? err : check_same(path, id, why);
}
