/* meta_sqlite_contract.c: see meta_sqlite_contract.h. A transaction writes its number into three keys; so what is there tells which was last. */
#include "control/meta/meta_sqlite_contract.h"

#include "base/test.h"
#include "control/meta/meta_sqlite.h"
#include "control/meta/meta_sqlite_db.h"
#include "control/meta/sqlite_disk_double.h"
#include "host/host.h"

#include <stdio.h>
#include <unistd.h>

#define KEYS	    3u
#define SMALL_TXNS  40u
#define LARGE_TXNS  140u
#define LARGE_BYTES (24 * KiB)

static const struct uuid the_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
static const char *const the_keys[KEYS] = {"a", "b", "c"};

struct power_run {
	char folder[64], image[64], path[96], image_path[96];
	struct prng rng;
	struct meta_db *db;
	uint64_t answered, sent; /* numbers of transactions; their revisions are the same */
	uint64_t keep_revisions;
	size_t value_bytes;
	uint8_t *value;
	unsigned images;
	bool large, is_looking;
};

static void run_begin(struct power_run *r, uint64_t seed)
{
	sqlite_disk_folder_new(r->folder, sizeof(r->folder));
	sqlite_disk_folder_new(r->image, sizeof(r->image));
	snprintf(r->path, sizeof(r->path), "%s/meta.db", r->folder);
	snprintf(r->image_path, sizeof(r->image_path), "%s/meta.db", r->image);
	prng_seed(&r->rng, seed);
	sqlite_disk_install(r->folder);
}

static void folder_remove(const char *folder)
{
	static const char *const names[] = {"meta.db", "meta.db-wal", "meta.db-journal"};
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	CHECK_EQ(rmdir(folder), 0);
}

static void run_end(struct power_run *r)
{
	sqlite_disk_install("");
	folder_remove(r->folder);
	folder_remove(r->image);
}

/* ---- what must be there -------------------------------------------------------------------------------------------------- */

static uint64_t value_number(const struct meta_entry *e)
{
	uint64_t number;
	CHECK(e->value_len_bytes >= sizeof(number));
	memcpy(&number, e->value, sizeof(number));
	for (size_t i = sizeof(number); i < e->value_len_bytes; i++)
		CHECK_EQ(((uint8_t *)e->value)[i], (uint8_t)number);
	return number;
}

/* Each kept revision has its three changes. */
static void check_history(struct meta_db *db, uint64_t last, uint64_t keep_revisions)
{
	uint64_t from = last > keep_revisions ? last - keep_revisions + 1 : 1;
	while (from <= last) {
		struct meta_list list = {0};
		CHECK_OK(meta_db_events(db, "", from, &list));
		CHECK(list.count > 0 && list.count % KEYS == 0);
		for (size_t i = 0; i < list.count; i++) {
			CHECK_EQ(list.entries[i].mod_revision, from + i / KEYS);
			CHECK_EQ(value_number(&list.entries[i]), from + i / KEYS);
		}
		from = list.revision + 1;
		meta_list_free(&list);
	}
}

/* Returns the transaction that was last. */
static uint64_t check_store(const char *path, uint64_t keep_revisions)
{
	struct meta_db *db;
	struct meta_list list = {0};
	char why[META_WHY_BYTES];
	int err = meta_db_open(path, keep_revisions, &db, why);
	if (err)
		test_fail(__FILE__, __LINE__, "after a power cut: %s, %s", err_name(err), why);
	CHECK_OK(meta_db_read(db, &(struct meta_query){.prefix = "", .limit = 100}, &list));
	uint64_t last = list.revision;
	CHECK_EQ(list.count, last ? KEYS : 0);
	for (size_t i = 0; i < list.count; i++) {
		CHECK_EQ(list.entries[i].mod_revision, last);
		CHECK_EQ(value_number(&list.entries[i]), last);
	}
	meta_list_free(&list);
	check_history(db, last, keep_revisions);
	meta_db_close(db);
	return last;
}

/* ---- cutting the power ------------------------------------------------------------------------------------------------------ */

static void cut_power(struct power_run *r)
{
	r->is_looking = true;
	sqlite_disk_image(r->image, &r->rng);
	uint64_t last = check_store(r->image_path, r->keep_revisions);
	if (last < r->answered || last > r->sent)
		test_fail(__FILE__, __LINE__, "after a power cut the last is %llu; answered %llu, sent %llu",
			  (unsigned long long)last, (unsigned long long)r->answered,
			  (unsigned long long)r->sent);
	r->images++;
	r->is_looking = false;
}

static void run_moment(void *ctx, const char *path, enum disk_op op)
{
	struct power_run *r = ctx;
	bool is_rare = op != DISK_WRITE || strcmp(path, r->path) == 0;
	if (!r->is_looking && (!r->large || prng_one_in(&r->rng, is_rare ? 10 : 100)))
		cut_power(r);
}

static int run_txn(struct power_run *r)
{
	struct meta_write writes[KEYS];
	uint64_t number = ++r->sent, revision;
	memset(r->value, (int)(uint8_t)number, r->value_bytes);
	memcpy(r->value, &number, sizeof(number));
	for (unsigned i = 0; i < KEYS; i++)
		writes[i] = (struct meta_write){
			.key = the_keys[i], .value = r->value, .value_len_bytes = r->value_bytes};
	int err = meta_db_commit(r->db, &(struct meta_txn){NULL, 0, writes, KEYS}, &revision);
	if (!err) {
		CHECK_EQ(revision, number);
		r->answered = number;
	}
	return err;
}

unsigned sqlite_run_power_cuts(uint64_t seed, bool large)
{
	struct power_run r = {.large = large,
			      .keep_revisions = large ? 4 : 10,
			      .value_bytes = large ? LARGE_BYTES : sizeof(uint64_t)};
	char why[META_WHY_BYTES];
	run_begin(&r, seed);
	r.value = mem_alloc(r.value_bytes);
	CHECK_OK(meta_db_create(r.path, &the_id, why));
	sqlite_disk_on_moment(run_moment, &r);
	for (unsigned starts = 0; starts < 2; starts++) {
		CHECK_OK(meta_db_open(r.path, r.keep_revisions, &r.db, why));
		for (unsigned i = 0; i < (large ? LARGE_TXNS : SMALL_TXNS); i++)
			CHECK_OK(run_txn(&r));
		meta_db_close(r.db);
	}
	CHECK_EQ(check_store(r.path, r.keep_revisions), r.answered);
	free(r.value);
	run_end(&r);
	return r.images;
}

/* ---- failing ------------------------------------------------------------------------------------------------------------------ */

/* The disk has failed a transaction; the store has stopped. What is true is on the disk, before and after a power cut. */
static void check_stopped(struct power_run *r)
{
	struct meta_list list;
	r->sent++;
	CHECK_ERR(run_txn(r), OXE_FAILED);
	r->sent -= 2;
	CHECK_ERR(meta_db_read(r->db, &(struct meta_query){.prefix = "", .limit = 1}, &list), OXE_FAILED);
	cut_power(r);
	meta_db_close(r->db);
	uint64_t last = check_store(r->path, r->keep_revisions);
	CHECK(last >= r->answered && last <= r->sent);
	r->db = NULL;
}

/* Returns false once the failure came. */
static bool run_until_failure(struct power_run *r, bool is_full)
{
	int err = run_txn(r);
	if (!err)
		return true;
	if (err != OXE_INDOUBT) /* surely not done: the next one has its number */
		r->sent--;
	if (is_full) {
		CHECK_ERR(err, OXE_NOSPC);
		cut_power(r);
		CHECK_OK(run_txn(r));
		cut_power(r);
	} else {
		CHECK(err == OXE_INDOUBT || err == OXE_IO || err == OXE_FAILED);
		check_stopped(r);
	}
	return false;
}

/* One run, in which the nth operation of a kind fails. False if there are not so many. */
static bool run_with_failure(uint64_t seed, enum disk_op op, uint64_t nth, bool is_full)
{
	struct power_run r = {.keep_revisions = 3, .value_bytes = LARGE_BYTES};
	char why[META_WHY_BYTES];
	bool goes_on = true;
	run_begin(&r, seed);
	r.value = mem_alloc(r.value_bytes);
	CHECK_OK(meta_db_create(r.path, &the_id, why));
	CHECK_OK(meta_db_open(r.path, r.keep_revisions, &r.db, why));
	sqlite_disk_fail(op, nth, is_full);
	for (unsigned i = 0; i < LARGE_TXNS && goes_on; i++)
		goes_on = run_until_failure(&r, is_full);
	sqlite_disk_fail(op, 0, false);
	if (r.db)
		meta_db_close(r.db);
	CHECK(check_store(r.path, r.keep_revisions) >= r.answered);
	free(r.value);
	run_end(&r);
	return !goes_on;
}

unsigned sqlite_run_device_errors(uint64_t seed, bool is_full)
{
	unsigned tried = 0;
	for (uint64_t nth = 1; run_with_failure(seed, DISK_WRITE, nth, is_full); nth += 1 + nth / 8)
		tried++;
	for (uint64_t nth = 1; !is_full && run_with_failure(seed, DISK_SYNC, nth, false); nth += 1 + nth / 16)
		tried++;
	return tried;
}

/* ---- creating ------------------------------------------------------------------------------------------------------------------- */

static void creation_moment(void *ctx, const char *path, enum disk_op op)
{
	struct power_run *r = ctx;
	char why[META_WHY_BYTES];
	struct meta_db *db;
	(void)path;
	(void)op;
	if (r->is_looking)
		return;
	r->is_looking = true;
	sqlite_disk_image(r->image, &r->rng);
	int err = meta_db_open(r->image_path, 10, &db, why);
	CHECK(err == 0 || err == OXE_NOENT);
	if (!err)
		meta_db_close(db);
	CHECK_OK(meta_db_create(r->image_path, &the_id, why));
	CHECK_EQ(check_store(r->image_path, 10), 0);
	r->images++;
	r->is_looking = false;
}

unsigned sqlite_run_power_cuts_of_creation(uint64_t seed)
{
	struct power_run r = {0};
	char why[META_WHY_BYTES];
	run_begin(&r, seed);
	sqlite_disk_on_moment(creation_moment, &r);
	CHECK_OK(meta_db_create(r.path, &the_id, why));
	run_end(&r);
	return r.images;
}

/* ---- the real world ----------------------------------------------------------------------------------------------------------- */

struct host_run {
	struct rt *rt;
	void (*fn)(void *arg);
	void *arg;
};

static void host_main(void *arg)
{
	struct host_run *run = arg;
	run->fn(run->arg);
	host_rt_stop(run->rt);
}

void sqlite_run_on_host(void (*fn)(void *arg), void *arg)
{
	struct host_run run = {host_rt_new(&(struct host_options){0}), fn, arg};
	CHECK(run.rt);
	fiber_spawn(run.rt, "test", host_main, &run);
	host_rt_run(run.rt);
	host_rt_free(run.rt);
}

void sqlite_place_new(struct sqlite_place *place)
{
	char why[META_WHY_BYTES];
	sqlite_disk_folder_new(place->folder, sizeof(place->folder));
	snprintf(place->path, sizeof(place->path), "%s/meta.db", place->folder);
	CHECK_OK(meta_db_create(place->path, &the_id, why));
}

void sqlite_place_remove(struct sqlite_place *place)
{
	folder_remove(place->folder);
}

static struct meta_sqlite *store_open(const char *path)
{
	struct meta_sqlite *store;
	char why[META_SQLITE_WHY_BYTES];
	CHECK_OK(meta_sqlite_open(rt_current(), path, 0, &store, why));
	return store;
}

#define LEASE_S 1u

static void lease_begin(const char *path)
{
	struct meta_sqlite *store = store_open(path);
	struct meta *m = meta_sqlite_client(store, rt_current());
	uint64_t until_ns, revision;
	CHECK_OK(meta_lease_grant(m, 33, LEASE_S, &until_ns));
	CHECK_OK(meta_put(m, "held", "", 0, 0, 33, &revision));
	meta_close(m);
	meta_sqlite_close(store);
}

static void lease_restart_main(void *arg)
{
	struct sqlite_place *place = arg;
	struct meta_watch *w;
	struct meta_list changes;
	lease_begin(place->path);
	uint64_t started_ns = rt_now_exact_ns(rt_current()), until_ns;
	struct meta_sqlite *store = store_open(place->path);
	struct meta *m = meta_sqlite_client(store, rt_current());
	CHECK_OK(meta_lease_keep(m, 33, &until_ns));
	CHECK_OK(meta_watch_open(m, "", 2, &w));
	CHECK_OK(meta_watch_next(w, started_ns + 20 * NS_PER_S, &changes));
	CHECK(rt_now_exact_ns(rt_current()) >= started_ns + LEASE_S * NS_PER_S);
	CHECK(changes.count == 1 && changes.entries[0].deleted);
	meta_list_free(&changes);
	meta_watch_close(w);
	meta_close(m);
	meta_sqlite_close(store);
}

void sqlite_run_lease_restart(void)
{
	struct sqlite_place place;
	sqlite_place_new(&place);
	sqlite_run_on_host(lease_restart_main, &place);
	sqlite_place_remove(&place);
}
