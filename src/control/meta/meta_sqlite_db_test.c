/* meta_sqlite_db_test.c: what is in the file survives power cuts, and what is wrong with a file is said. */
#include "control/meta/meta_sqlite_db.h"

#include "base/prng.h"
#include "base/test.h"
#include "control/meta/meta_sqlite_contract.h"
#include "control/meta/sqlite_disk_double.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct uuid id_1 = {{1}}, id_2 = {{2}};
static char folder[64], path[128], copy[128], why[META_WHY_BYTES];

static void folder_begin(void)
{
	sqlite_disk_folder_new(folder, sizeof(folder));
	snprintf(path, sizeof(path), "%s/meta.db", folder);
	snprintf(copy, sizeof(copy), "%s/copy.db", folder);
}

static void folder_end(void)
{
	static const char *const ends[] = {"", "-wal", "-journal"};
	const char *bases[] = {path, copy};
	for (unsigned i = 0; i < ARRAY_COUNT(ends) * ARRAY_COUNT(bases); i++) {
		char name[160];
		snprintf(name, sizeof(name), "%s%s", bases[i % 2], ends[i / 2]);
		unlink(name);
	}
	CHECK_EQ(rmdir(folder), 0);
}

static void put_u64(struct meta_db *db, const char *key, uint64_t value)
{
	struct meta_write write = {.key = key, .value = &value, .value_len_bytes = sizeof(value)};
	uint64_t revision;
	CHECK_OK(meta_db_commit(db, &(struct meta_txn){NULL, 0, &write, 1}, &revision));
}

static uint8_t *file_read(const char *name, size_t *len_bytes)
{
	struct stat st;
	FILE *in = fopen(name, "rb");
	CHECK(in && stat(name, &st) == 0);
	uint8_t *data = mem_alloc((size_t)st.st_size + 1);
	*len_bytes = fread(data, 1, (size_t)st.st_size, in);
	fclose(in);
	return data;
}

static void file_write(const char *name, const void *data, size_t len_bytes)
{
	FILE *out = fopen(name, "wb");
	CHECK(out && fwrite(data, 1, len_bytes, out) == len_bytes && fclose(out) == 0);
}

static void sql_run(const char *name, const char *text)
{
	sqlite3 *sql;
	CHECK_EQ(sqlite3_open(name, &sql), SQLITE_OK);
	CHECK_EQ(sqlite3_exec(sql, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
	CHECK_EQ(sqlite3_exec(sql, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
}

/* ---- power and devices -------------------------------------------------------------------------------------------------- */

TEST(what_was_answered_survives_a_power_cut_at_every_moment)
{
	unsigned images = 0;
	for (uint64_t seed = 1; seed <= 2; seed++)
		images += sqlite_run_power_cuts(seed, false);
	printf("   %u images\n", images);
	CHECK(images > 400);
}

TEST(what_was_answered_survives_a_power_cut_during_a_checkpoint)
{
	unsigned images = sqlite_run_power_cuts(3, true);
	printf("   %u images\n", images);
	CHECK(images > 100);
}

TEST(a_creation_that_lost_power_is_gone_on_with)
{
	unsigned images = 0;
	for (uint64_t seed = 1; seed <= 10; seed++)
		images += sqlite_run_power_cuts_of_creation(seed);
	printf("   %u images\n", images);
	CHECK(images > 100);
}

TEST(a_device_that_fails_a_write_or_a_sync_is_not_believed_again)
{
	unsigned tried = sqlite_run_device_errors(1, false);
	printf("   %u failures\n", tried);
	CHECK(tried > 50);
}

TEST(a_full_disk_refuses_and_goes_on)
{
	unsigned tried = sqlite_run_device_errors(2, true);
	printf("   %u failures\n", tried);
	CHECK(tried > 30);
}

/* ---- creating and opening ------------------------------------------------------------------------------------------------------- */

TEST(creating_twice_is_creating_once)
{
	struct meta_db *db;
	folder_begin();
	CHECK_ERR(meta_db_open(path, 10, &db, why), OXE_NOENT);
	CHECK(access(path, F_OK) != 0); /* open never creates */
	CHECK_OK(meta_db_create(path, &id_1, why));
	CHECK_OK(meta_db_open(path, 10, &db, why));
	CHECK(uuid_equal(meta_db_id(db), &id_1));
	put_u64(db, "k", 1);
	meta_db_close(db);
	CHECK_OK(meta_db_create(path, &id_1, why));
	CHECK_ERR(meta_db_create(path, &id_2, why), OXE_EXISTS);
	CHECK_OK(meta_db_open(path, 10, &db, why));
	struct meta_list list = {0};
	CHECK_OK(meta_db_read(db, &(struct meta_query){.prefix = "k", .is_exact = true, .limit = 1}, &list));
	CHECK_EQ(list.count, 1);
	meta_list_free(&list);
	CHECK_ERR(meta_db_create("/nonexistent/meta.db", &id_1, why), OXE_NOENT);
	meta_db_close(db);
	folder_end();
}

TEST(a_store_is_open_once)
{
	struct meta_db *db, *other;
	folder_begin();
	CHECK_OK(meta_db_create(path, &id_1, why));
	CHECK_OK(meta_db_open(path, 10, &db, why));
	CHECK_ERR(meta_db_open(path, 10, &other, why), OXE_BUSY);
	CHECK_STR(why, "another process has it open: database is locked");
	CHECK_ERR(meta_db_create(path, &id_1, why), OXE_BUSY);
	put_u64(db, "k", 1);
	meta_db_close(db);
	folder_end();
}

#define SHARERS 3u
#define COUNTS	100u

/* Adds one to "k", whatever the others do meanwhile. */
static void count_once(struct meta_db *db)
{
	const struct meta_query query = {.prefix = "k", .is_exact = true, .limit = 1};
	uint64_t revision;
	int err;
	do {
		struct meta_list found = {0};
		uint64_t value = 1, mod_revision = 0;
		err = meta_db_read(db, &query, &found);
		if (!err && found.count) {
			memcpy(&value, found.entries[0].value, sizeof(value));
			value++;
			mod_revision = found.entries[0].mod_revision;
		}
		const struct meta_compare compare = {.key = "k", .mod_revision = mod_revision};
		const struct meta_write write = {
			.key = "k", .value = &value, .value_len_bytes = sizeof(value)};
		const struct meta_txn txn = {
			.compares = &compare, .compare_count = 1, .writes = &write, .write_count = 1};
		if (!err)
			err = meta_db_commit(db, &txn, &revision);
		meta_list_free(&found);
	} while (err == OXE_DIFFERS || err == OXE_BUSY);
	CHECK_OK(err);
}

static pid_t sharer_start(uint32_t counts)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	struct meta_db *db;
	int err;
	while ((err = meta_db_open_shared(path, 10000, &db, why)) == OXE_BUSY)
		;
	CHECK_OK(err);
	for (uint32_t i = 0; i < counts; i++)
		count_once(db);
	meta_db_close(db);
	_exit(0);
}

TEST(processes_that_share_a_store_see_one_history_also_when_one_is_killed)
{
	struct meta_db *db;
	struct meta_list events = {0};
	pid_t pids[SHARERS], victim;
	int status, err;
	folder_begin();
	CHECK_OK(meta_db_create(path, &id_1, why));
	victim = sharer_start(UINT32_MAX); /* what SQLite knows of an open file must not be inherited */
	for (uint32_t i = 0; i < SHARERS; i++)
		pids[i] = sharer_start(COUNTS);
	while ((err = meta_db_open_shared(path, 10000, &db, why)) == OXE_BUSY)
		;
	CHECK_OK(err);
	for (uint32_t i = 0; i < SHARERS; i++) {
		CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
		CHECK_EQ(status, 0);
	}
	kill(victim, SIGKILL);
	CHECK_EQ(waitpid(victim, &status, 0), victim);
	count_once(db);
	uint64_t next = 1, value;
	do {
		meta_list_free(&events);
		CHECK_OK(meta_db_events(db, "", next, &events));
		for (size_t i = 0; i < events.count; i++, next++) {
			memcpy(&value, events.entries[i].value, sizeof(value));
			CHECK(value == next && events.entries[i].mod_revision == next);
		}
	} while (events.count);
	CHECK(next > SHARERS * COUNTS + 1);
	meta_db_close(db);
	folder_end();
}

/* Refused with these words, and not touched. */
static void check_refused(const void *content, size_t len_bytes, int err, const char *words)
{
	struct meta_db *db;
	size_t after_bytes;
	file_write(copy, content, len_bytes);
	CHECK_ERR(meta_db_open(copy, 10, &db, why), err);
	if (!strstr(why, words))
		test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", why, words);
	uint8_t *after = file_read(copy, &after_bytes);
	CHECK_EQ(after_bytes, len_bytes);
	CHECK(memcmp(after, content, len_bytes) == 0);
	free(after);
}

TEST(a_file_that_is_not_ours_or_newer_is_left_as_it_is)
{
	size_t len_bytes;
	uint8_t *data;
	char text[8192];
	folder_begin();
	memset(text, 'x', sizeof(text));
	check_refused(text, sizeof(text), OXE_CORRUPT, "not a database");
	CHECK_ERR(meta_db_create(copy, &id_1, why), OXE_OCCUPIED);
	check_refused("", 0, OXE_NOENT, "never finished");
	sql_run(path, "CREATE TABLE somebody (elses TEXT); INSERT INTO somebody VALUES ('data')");
	data = file_read(path, &len_bytes);
	check_refused(data, len_bytes, OXE_OCCUPIED, "another program");
	CHECK_ERR(meta_db_create(copy, &id_1, why), OXE_OCCUPIED);
	free(data);
	CHECK_EQ(unlink(path), 0);
	CHECK_OK(meta_db_create(path, &id_1, why));
	sql_run(path, "PRAGMA user_version = 2");
	data = file_read(path, &len_bytes);
	check_refused(data, len_bytes, OXE_VERSION, "newer version");
	free(data);
	sql_run(path, "PRAGMA user_version = 1; ALTER TABLE version RENAME TO versions");
	data = file_read(path, &len_bytes);
	check_refused(data, len_bytes, OXE_CORRUPT, "tables are not those");
	free(data);
	folder_end();
}

static void damage(const char *text, const char *words)
{
	struct meta_db *db;
	unlink(path);
	CHECK_OK(meta_db_create(path, &id_1, why));
	CHECK_OK(meta_db_open(path, 10, &db, why));
	for (unsigned i = 0; i < 5; i++)
		put_u64(db, "k", i);
	CHECK_OK(meta_db_lease_add(db, 7, 30));
	meta_db_close(db);
	sql_run(path, text);
	CHECK_ERR(meta_db_open(path, 10, &db, why), OXE_CORRUPT);
	if (!strstr(why, words))
		test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", why, words);
}

TEST(what_cannot_be_is_noticed_and_named)
{
	folder_begin();
	damage("DELETE FROM store", "which store this is");
	damage("UPDATE store SET revision = 3", "has not come to");
	damage("UPDATE store SET revision = 300", "which store this is");
	damage("UPDATE store SET compacted = 50", "less than what was compacted");
	damage("UPDATE version SET value = x'00' WHERE revision = 3", "the value of a key: k");
	damage("UPDATE version SET lease = 7 WHERE revision = 3", "the value of a key: k");
	damage("UPDATE version SET lease = 8 WHERE revision = 5", "a lease that is none");
	damage("UPDATE version SET lease = 7, value = NULL WHERE revision = 5", "a deletion names a lease");
	damage("UPDATE version SET key = 'a b' WHERE revision = 3", "would not take");
	damage("UPDATE version SET value = zeroblob(65537) WHERE revision = 3", "would not take");
	damage("UPDATE lease SET ttl_s = 31", "a lease");
	damage("UPDATE lease SET ttl_s = 0", "would not give");
	folder_end();
}

/* ---- damage -------------------------------------------------------------------------------------------------------------------- */

#define DAMAGED_KEYS 60u
#define DAMAGES	     1000u

static void content_add(uint64_t *hash, const struct meta_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct meta_entry *e = &list->entries[i];
		*hash = hash_u64(*hash ^ hash_bytes(e->key, strlen(e->key)) ^ e->mod_revision);
		*hash = hash_u64(*hash ^ hash_bytes(e->deleted ? "" : e->value, e->value_len_bytes) ^
				 e->lease);
	}
	*hash = hash_u64(*hash ^ list->revision);
}

/* Of all keys and all history; 0 if something could not be read. */
static uint64_t content_hash(struct meta_db *db)
{
	struct meta_list now = {0}, history = {0};
	uint64_t hash = 0;
	int err = meta_db_read(db, &(struct meta_query){.prefix = "", .limit = 200}, &now);
	content_add(&hash, &now);
	if (!err)
		err = meta_db_events(db, "", 2, &history);
	content_add(&hash, &history);
	meta_list_free(&now);
	meta_list_free(&history);
	return err ? 0 : hash;
}

static uint64_t open_and_hash(const char *name, bool *is_refused)
{
	struct meta_db *db;
	uint64_t hash = 0;
	int err = meta_db_open(name, 100, &db, why);
	*is_refused = err;
	if (err)
		CHECK(why[0] != '\0');
	if (!err)
		hash = content_hash(db);
	if (!err)
		meta_db_close(db);
	return hash;
}

TEST(a_bit_that_flips_in_the_file_is_noticed_or_harmless)
{
	struct meta_db *db;
	struct prng rng;
	size_t len_bytes;
	unsigned refused = 0;
	bool is_refused;
	folder_begin();
	prng_seed(&rng, 7);
	CHECK_OK(meta_db_create(path, &id_1, why));
	CHECK_OK(meta_db_open(path, 100, &db, why));
	CHECK_OK(meta_db_lease_add(db, 5, 30));
	for (uint64_t i = 0; i < DAMAGED_KEYS; i++) {
		char key[32];
		snprintf(key, sizeof(key), "some/key/%02u", (unsigned)i % 40);
		put_u64(db, key, i);
	}
	meta_db_close(db);
	uint64_t hash = open_and_hash(path, &is_refused);
	CHECK(hash != 0);
	uint8_t *data = file_read(path, &len_bytes);
	for (unsigned i = 0; i < DAMAGES; i++) {
		size_t at = prng_below(&rng, len_bytes);
		uint8_t bit = (uint8_t)(1 << prng_below(&rng, 8));
		data[at] ^= bit;
		file_write(copy, data, len_bytes);
		data[at] ^= bit;
		uint64_t found = open_and_hash(copy, &is_refused);
		refused += is_refused;
		if (found && found != hash)
			test_fail(__FILE__, __LINE__, "a bit at %zu changed what is read", at);
	}
	printf("   %u of %u refused at open\n", refused, DAMAGES);
	CHECK(refused > DAMAGES / 10); /* most of the file is room for more */
	free(data);
	folder_end();
}
