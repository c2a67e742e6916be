/* meta_sqlite_test.c: the SQLite form keeps the contract, on threads and over kill -9. */
#include "control/meta/meta_sqlite.h"

#include "base/prng.h"
#include "base/test.h"
#include "control/meta/meta_contract.h"
#include "control/meta/meta_sqlite_contract.h"
#include "control/meta/meta_sqlite_db.h"
#include "control/meta/sqlite_disk_double.h"
#include "host/host.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct meta_sqlite *store_open(const char *path, uint64_t keep_revisions)
{
	struct meta_sqlite *store;
	char why[META_SQLITE_WHY_BYTES];
	CHECK_OK(meta_sqlite_open(rt_current(), path, keep_revisions, &store, why));
	return store;
}

/* ---- the contract ---------------------------------------------------------------------------------------------------------- */

struct contract_run {
	const struct meta_contract *contract;
	struct sqlite_place place;
};

static void contract_main(void *arg)
{
	struct contract_run *run = arg;
	struct meta_sqlite *store = store_open(run->place.path, META_CONTRACT_KEEP);
	struct meta *a = meta_sqlite_client(store, rt_current()),
		    *b = meta_sqlite_client(store, rt_current());
	run->contract->run(a, b);
	meta_close(a);
	meta_close(b);
	meta_sqlite_close(store);
}

TEST(the_sqlite_form_keeps_the_contract)
{
	for (const struct meta_contract *c = meta_contracts; c->name; c++) {
		struct contract_run run = {.contract = c};
		sqlite_place_new(&run.place);
		sqlite_run_on_host(contract_main, &run);
		sqlite_place_remove(&run.place);
	}
}

TEST(a_lease_outlives_a_restart_with_its_whole_time)
{
	sqlite_run_lease_restart();
}

/* ---- a disk that fails ------------------------------------------------------------------------------------------------------- */

static void stopped_check(struct meta *m, uint64_t revision)
{
	struct meta_list list;
	struct meta_watch *w;
	uint64_t until_ns;
	CHECK_ERR(meta_put(m, "k", "2", 1, META_ANY, 0, &revision), OXE_INDOUBT);
	CHECK_ERR(meta_put(m, "k", "3", 1, META_ANY, 0, &revision), OXE_FAILED);
	CHECK_ERR(meta_get(m, "k", &list), OXE_FAILED);
	CHECK_ERR(meta_lease_keep(m, 4, &until_ns), OXE_FAILED);
	CHECK_ERR(meta_lease_grant(m, 4, 60, &until_ns), OXE_FAILED);
	CHECK_ERR(meta_lease_grant(m, 5, 60, &until_ns), OXE_FAILED);
	CHECK_ERR(meta_lease_revoke(m, 4), OXE_FAILED);
	CHECK_OK(meta_watch_open(m, "", 1, &w));
	CHECK_ERR(meta_watch_next(w, UINT64_MAX, &list), OXE_FAILED);
	meta_watch_close(w);
}

static void stopped_main(void *arg)
{
	struct sqlite_place *place = arg;
	uint64_t revision, until_ns;
	struct meta_list found;
	struct meta_sqlite *store = store_open(place->path, 0);
	struct meta *m = meta_sqlite_client(store, rt_current());
	CHECK_OK(meta_lease_grant(m, 4, 60, &until_ns));
	CHECK_OK(meta_put(m, "k", "1", 1, 0, 4, &revision));
	sqlite_disk_fail(DISK_SYNC, 1, false);
	stopped_check(m, revision);
	meta_close(m);
	meta_sqlite_close(store);
	store = store_open(place->path, 0);
	m = meta_sqlite_client(store, rt_current());
	CHECK_OK(meta_lease_keep(m, 4, &until_ns));
	CHECK_OK(meta_get(m, "k", &found));
	CHECK(found.count == 1 && found.revision <= revision + 1); /* in doubt: the old or the new */
	meta_list_free(&found);
	meta_close(m);
	meta_sqlite_close(store);
}

TEST(a_store_that_stopped_says_so_to_every_call_and_opens_again)
{
	struct sqlite_place place;
	sqlite_place_new(&place);
	sqlite_disk_install(place.folder);
	sqlite_run_on_host(stopped_main, &place);
	sqlite_disk_install("");
	sqlite_place_remove(&place);
}

/* ---- two reactors ------------------------------------------------------------------------------------------------------------- */

#define FAR_SWAPS 50u

struct far {
	struct sqlite_place place;
	struct meta_sqlite *store;
	struct rt *rt; /* another thread's */
	pthread_t thread;
	struct rt_group group;
	unsigned swaps;
};

/* Adds one to a counter FAR_SWAPS times, as a client of the reactor it runs on. */
static void far_count(struct meta *m)
{
	for (unsigned wins = 0; wins < FAR_SWAPS;) {
		struct meta_list found;
		unsigned value = 0;
		uint64_t revision;
		CHECK_OK(meta_get(m, "counter", &found));
		if (found.count)
			memcpy(&value, found.entries[0].value, sizeof(value));
		uint64_t mod_revision = found.count ? found.entries[0].mod_revision : 0;
		meta_list_free(&found);
		value++;
		int err = meta_put(m, "counter", &value, sizeof(value), mod_revision, 0, &revision);
		CHECK(err == 0 || err == OXE_DIFFERS);
		wins += err == 0;
	}
}

static void far_main(void *arg)
{
	struct far *f = arg;
	struct meta *m = meta_sqlite_client(f->store, rt_current());
	struct meta_watch *w;
	struct meta_list changes;
	far_count(m);
	CHECK_OK(meta_watch_open(m, "counter", 1, &w));
	for (uint64_t last = 0; last < 2 * FAR_SWAPS; meta_list_free(&changes)) {
		CHECK_OK(meta_watch_next(w, UINT64_MAX, &changes));
		for (size_t i = 0; i < changes.count; i++)
			CHECK_EQ(changes.entries[i].mod_revision, ++last);
	}
	meta_watch_cancel(w);
	CHECK_ERR(meta_watch_next(w, UINT64_MAX, &changes), OXE_CANCELLED);
	meta_watch_close(w);
	meta_close(m);
}

static void near_main(void *arg)
{
	struct far *f = arg;
	struct meta *m = meta_sqlite_client(f->store, rt_current());
	far_count(m);
	meta_close(m);
	group_done(&f->group);
}

static void *far_thread(void *arg)
{
	host_rt_run(arg);
	return NULL;
}

static void two_reactors_main(void *arg)
{
	struct far *f = arg;
	f->store = store_open(f->place.path, 0);
	group_init(&f->group);
	group_add(&f->group, 1);
	fiber_spawn(rt_current(), "near", near_main, f);
	rt_call(f->rt, far_main, f);
	group_wait(&f->group);
	host_rt_stop(f->rt);
	CHECK_EQ(pthread_join(f->thread, NULL), 0); /* it rings this reactor's bell until it has ended */
	meta_sqlite_close(f->store);
}

TEST(clients_on_two_reactors_share_a_store)
{
	struct far f = {.rt = host_rt_new(&(struct host_options){0})};
	CHECK(f.rt);
	sqlite_place_new(&f.place);
	CHECK_EQ(pthread_create(&f.thread, NULL, far_thread, f.rt), 0);
	sqlite_run_on_host(two_reactors_main, &f);
	host_rt_free(f.rt);
	sqlite_place_remove(&f.place);
}

/* ---- kill -9 -------------------------------------------------------------------------------------------------------------------- */

#define KILLS	20u
#define WRITERS 4u

/* What a writer was answered, through a pipe that outlives it. */
struct answer {
	uint64_t writer, value, revision;
};

struct victim {
	const char *path;
	int out;
	struct meta_sqlite *store;
	struct meta *clients[2];
	uint64_t writer; /* the next to begin */
	struct rt_group group;
};

static void victim_writer(void *arg)
{
	struct victim *v = arg;
	struct answer a = {.writer = v->writer++};
	struct meta *m = v->clients[a.writer % 2];
	struct meta_list found;
	char key[16];
	snprintf(key, sizeof(key), "k/%u", (unsigned)a.writer);
	CHECK_OK(meta_get(m, key, &found));
	uint64_t mod_revision = found.count ? found.entries[0].mod_revision : 0;
	if (found.count)
		memcpy(&a.value, found.entries[0].value, sizeof(a.value));
	meta_list_free(&found);
	for (;; mod_revision = a.revision) {
		a.value++;
		CHECK_OK(meta_put(m, key, &a.value, sizeof(a.value), mod_revision, 0, &a.revision));
		CHECK_EQ(write(v->out, &a, sizeof(a)), (ssize_t)sizeof(a));
	}
}

static void victim_main(void *arg)
{
	struct victim *v = arg;
	v->store = store_open(v->path, 20);
	for (unsigned i = 0; i < ARRAY_COUNT(v->clients); i++)
		v->clients[i] = meta_sqlite_client(v->store, rt_current());
	group_init(&v->group);
	group_add(&v->group, 1);
	for (unsigned i = 0; i < WRITERS; i++)
		fiber_spawn(rt_current(), "writer", victim_writer, v);
	group_wait(&v->group); /* until it is killed */
}

static pid_t victim_start(const char *path, int *in)
{
	int ends[2];
	CHECK_EQ(pipe(ends), 0);
	fflush(NULL);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		struct victim v = {.path = path, .out = ends[1]};
		close(ends[0]);
		sqlite_run_on_host(victim_main, &v);
		_exit(1);
	}
	close(ends[1]);
	*in = ends[0];
	return pid;
}

static bool answer_read(int in, struct answer *a)
{
	size_t len_bytes = 0;
	while (len_bytes < sizeof(*a)) {
		ssize_t n = read(in, (char *)a + len_bytes, sizeof(*a) - len_bytes);
		CHECK(n >= 0);
		if (n == 0)
			return false; /* what it was killed in the middle of saying was not said */
		len_bytes += (size_t)n;
	}
	return true;
}

struct ledger {
	struct answer last[WRITERS];
	uint64_t revision;
};

static void ledger_note(struct ledger *l, const struct answer *a)
{
	CHECK(a->writer < WRITERS);
	CHECK_EQ(a->value, l->last[a->writer].value + 1);
	CHECK(a->revision > l->last[a->writer].revision);
	l->last[a->writer] = *a;
	l->revision = u64_max(l->revision, a->revision);
}

/* Each key has what was answered last, or the one write that was not answered any more. */
static void ledger_check(struct ledger *l, const char *path)
{
	struct meta_db *db;
	char why[META_WHY_BYTES];
	CHECK_OK(meta_db_open(path, 20, &db, why));
	for (unsigned i = 0; i < WRITERS; i++) {
		struct meta_list found = {0};
		uint64_t value = 0;
		char key[16];
		snprintf(key, sizeof(key), "k/%u", i);
		CHECK_OK(meta_db_read(db, &(struct meta_query){.prefix = key, .is_exact = true, .limit = 1},
				      &found));
		CHECK(found.revision >= l->revision);
		l->revision = found.revision;
		if (found.count)
			memcpy(&value, found.entries[0].value, sizeof(value));
		CHECK(value == l->last[i].value || value == l->last[i].value + 1);
		CHECK(value != l->last[i].value || !value ||
		      found.entries[0].mod_revision >= l->last[i].revision);
		l->last[i].value = value;
		meta_list_free(&found);
	}
	meta_db_close(db);
}

TEST(kill_9_loses_no_answered_write_and_no_revision_goes_back)
{
	struct sqlite_place place;
	struct ledger ledger = {0};
	struct prng rng;
	unsigned answers = 0;
	prng_seed(&rng, 9);
	sqlite_place_new(&place);
	for (unsigned kills = 0; kills < KILLS; kills++) {
		struct meta_db *db;
		struct answer a;
		char why[META_WHY_BYTES];
		int in, status;
		pid_t pid = victim_start(place.path, &in);
		for (uint64_t i = prng_below(&rng, 200); i > 0 && answer_read(in, &a); i--, answers++)
			ledger_note(&ledger, &a);
		if (kills % 4 == 3 && answer_read(in, &a)) {
			ledger_note(&ledger, &a);
			CHECK_ERR(meta_db_open(place.path, 20, &db, why), OXE_BUSY);
		}
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		for (; answer_read(in, &a); answers++)
			ledger_note(&ledger, &a);
		close(in);
		ledger_check(&ledger, place.path);
	}
	printf("   %u answers\n", answers);
	sqlite_place_remove(&place);
}
