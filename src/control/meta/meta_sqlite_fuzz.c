/*
 * meta_sqlite_fuzz.c: any bytes where a metastore's file should be.
 *
 * An even first byte: the rest is the file. An odd one: the rest are rows, put into a good file with CRCs that are right, or nothing
 * would ever get past them: what is tested is that rows with a good CRC are still data and not trusted.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "control/meta/meta_sqlite_db.h"

#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static char path[64], why[META_WHY_BYTES];
static const struct uuid id = {{1}};

struct input {
	const uint8_t *data;
	size_t left_bytes;
};

static uint64_t take(struct input *in, size_t count)
{
	uint64_t number = 0;
	for (; count > 0 && in->left_bytes > 0; count--, in->left_bytes--)
		number = number << 8 | *in->data++;
	return number;
}

static uint32_t numbers_crc(uint32_t crc, uint64_t a, uint64_t b)
{
	le64 numbers[] = {le64_of(a), le64_of(b)};
	return crc32c(crc, numbers, sizeof(numbers));
}

static void bind(sqlite3_stmt *s, int index, uint64_t number)
{
	sqlite3_bind_int64(s, index, (sqlite3_int64)number);
}

static void row_version(sqlite3 *sql, struct input *in)
{
	char key[8] = "";
	uint64_t revision = take(in, 1), lease = take(in, 1), key_bytes = take(in, 1) % sizeof(key);
	uint64_t value_bytes = take(in, 1);
	bool deleted = value_bytes == 255;
	sqlite3_stmt *s = NULL;
	for (uint64_t i = 0; i < key_bytes; i++)
		key[i] = (char)take(in, 1);
	value_bytes = u64_min(value_bytes, deleted ? 0 : in->left_bytes);
	uint32_t crc = numbers_crc(deleted, revision, lease);
	crc = crc32c(crc, key, strlen(key) + 1);
	crc = crc32c(crc, in->data, value_bytes);
	sqlite3_prepare_v2(
		sql, "INSERT INTO version (revision, lease, key, value, crc) VALUES (?1, ?2, ?3, ?4, ?5)", -1,
		&s, NULL);
	bind(s, 1, revision);
	bind(s, 2, lease);
	sqlite3_bind_text(s, 3, key, -1, SQLITE_TRANSIENT);
	if (!deleted)
		sqlite3_bind_blob(s, 4, value_bytes ? (const void *)in->data : "", (int)value_bytes,
				  SQLITE_TRANSIENT);
	bind(s, 5, crc);
	sqlite3_step(s);
	sqlite3_finalize(s);
	take(in, value_bytes);
}

static void row_lease(sqlite3 *sql, struct input *in)
{
	uint64_t lease = take(in, 1), ttl_s = take(in, 4);
	sqlite3_stmt *s = NULL;
	sqlite3_prepare_v2(sql, "INSERT INTO lease (id, ttl_s, crc) VALUES (?1, ?2, ?3)", -1, &s, NULL);
	bind(s, 1, lease);
	bind(s, 2, ttl_s);
	bind(s, 3, numbers_crc(0, lease, ttl_s));
	sqlite3_step(s);
	sqlite3_finalize(s);
}

static void row_store(sqlite3 *sql, struct input *in)
{
	uint64_t revision = take(in, 1), compacted = take(in, 1);
	sqlite3_stmt *s = NULL;
	sqlite3_prepare_v2(sql, "UPDATE store SET revision = ?1, compacted = ?2, crc = ?3", -1, &s, NULL);
	bind(s, 1, revision);
	bind(s, 2, compacted);
	bind(s, 3, numbers_crc(crc32c(0, id.b, sizeof(id.b)), revision, compacted));
	sqlite3_step(s);
	sqlite3_finalize(s);
}

static void rows_write(struct input *in)
{
	sqlite3 *sql;
	if (meta_db_create(path, &id, why) || sqlite3_open(path, &sql) != SQLITE_OK)
		abort();
	sqlite3_exec(sql, "PRAGMA synchronous = OFF; BEGIN", NULL, NULL, NULL);
	row_store(sql, in);
	while (in->left_bytes > 0) {
		if (take(in, 1) % 4)
			row_version(sql, in);
		else
			row_lease(sql, in);
	}
	sqlite3_exec(sql, "COMMIT", NULL, NULL, NULL);
	sqlite3_close(sql);
}

static void file_write(const uint8_t *data, size_t size_bytes)
{
	FILE *out = fopen(path, "wb");
	if (!out || fwrite(data, 1, size_bytes, out) != size_bytes || fclose(out))
		abort();
}

static void file_remove(void)
{
	static const char *const ends[] = {"", "-wal", "-journal", "-shm"};
	for (unsigned i = 0; i < ARRAY_COUNT(ends); i++) {
		char name[80];
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

static void lease_note(void *ctx, uint64_t lease, uint32_t ttl_s)
{
	if (lease < 1 || ttl_s < 1 || ttl_s > META_LEASE_MAX_S)
		abort(); /* what is believed is in bounds */
	*(uint64_t *)ctx = lease;
}

/* Every verb, on what was believed. */
static void use(struct meta_db *db)
{
	struct meta_list list = {0};
	struct meta_write writes[] = {{.key = "k", .value = "new", .value_len_bytes = 3},
				      {.key = "a", .is_delete = true}};
	uint64_t lease = 0, revision;
	(void)!meta_db_read(db, &(struct meta_query){.prefix = "", .limit = META_PAGE_MAX_COUNT}, &list);
	uint64_t before = list.revision;
	for (size_t i = 0; i < list.count; i++) {
		if (!list.entries[i].key[0] || list.entries[i].mod_revision > before)
			abort();
	}
	meta_list_free(&list);
	(void)!meta_db_events(db, "", before / 2 + 1, &list);
	meta_list_free(&list);
	(void)!meta_db_leases(db, lease_note, &lease);
	if (lease && meta_db_lease_end(db, lease) == OXE_CORRUPT)
		return;
	if (meta_db_commit(db, &(struct meta_txn){NULL, 0, writes, 2}, &revision) == 0 && revision <= before)
		abort(); /* revisions never go back */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct input in = {data + 1, size_bytes - 1};
	struct meta_db *db;
	if (size_bytes < 2)
		return 0;
	snprintf(path, sizeof(path), "/dev/shm/oxbow-meta-fuzz-%d.db", (int)getpid());
	file_remove();
	if (data[0] % 2)
		rows_write(&in);
	else
		file_write(in.data, in.left_bytes);
	if (!meta_db_open(path, 3, &db, why)) {
		use(db);
		meta_db_close(db);
	}
	file_remove();
	return 0;
}
