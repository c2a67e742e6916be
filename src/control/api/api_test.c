/* api_test.c: the routes as functions: what they take, what they refuse and how they say so. */
#include "control/api/api_double.h"

#include "base/test.h"

#include <stdio.h>

#define ID_A "11111111-1111-4111-8111-111111111111"
#define ID_B "22222222-2222-4222-8222-222222222222"
#define ID_C "33333333-3333-4333-8333-333333333333"

static struct world *world;

static void in_world(void (*fn)(struct world *w))
{
	world = world_new();
	world_run(world, fn);
	world_free(world);
}

/* The status alone. */
static int status_of(const char *method, const char *target, const char *body)
{
	struct world_answer a = world_call(world, method, target, body);
	world_answer_free(&a);
	return a.status;
}

static void expect_refused(const char *method, const char *target, const char *body, int status,
			   const char *error, const char *in_message)
{
	struct world_answer a = world_call(world, method, target, body);
	CHECK_EQ(a.status, status);
	CHECK_STR(js_text(js_get(a.body, "error")), error);
	CHECK(strstr(js_text(js_get(a.body, "message")), in_message) != NULL);
	CHECK(js_text(js_get(a.body, "hint")) != NULL);
	world_answer_free(&a);
}

static uint64_t number(const struct world_answer *a, const char *key)
{
	uint64_t n;
	CHECK(js_u64(js_get(a->body, key), &n));
	return n;
}

/* ---- the form of calls ----------------------------------------------------------------------------------------------- */

static void forms(struct world *w)
{
	(void)w;
	expect_refused("GET", "/v1/nothing", NULL, 404, "NOENT", "/v1/nothing");
	expect_refused("GET", "", NULL, 404, "NOENT", "");
	expect_refused("GET", "/v1/volumes/", NULL, 400, "INVAL", "path");
	expect_refused("GET", "/v1/volumes/a%2", NULL, 400, "INVAL", "path");
	expect_refused("GET", "/v1/volumes/a%00b", NULL, 400, "INVAL", "path");
	expect_refused("GET", "/v1/volumes/%ff", NULL, 400, "INVAL", "path");
	expect_refused("GET", "/v1/events?after=x", NULL, 400, "INVAL", "after");
	expect_refused("GET", "/v1/events?after=99999999999999999999", NULL, 400, "INVAL", "after");
	expect_refused("GET", "/v1/events?after=1&after=2", NULL, 400, "INVAL", "twice");
	expect_refused("GET", "/v1/events?before=1", NULL, 400, "INVAL", "before");
	expect_refused("GET", "/v1/events?wait=301", NULL, 400, "INVAL", "wait");
	expect_refused("POST", "/v1/volumes", "{", 400, "INVAL", "JSON");
	expect_refused("POST", "/v1/volumes", "[]", 400, "INVAL", "object");
	expect_refused("POST", "/v1/volumes", "{}", 400, "INVAL", "name");
	expect_refused("POST", "/v1/volumes", "{\"name\":1}", 400, "INVAL", "string");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":\"1\"}", 400, "INVAL",
		       "size_bytes");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":-1}", 400, "INVAL",
		       "size_bytes");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"a\",\"size\":1}", 400, "INVAL", "size");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"../a\",\"size_bytes\":1}", 400, "INVAL", "name");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":1,\"id\":\"x\"}", 400, "INVAL",
		       "id");
	expect_refused("GET", "/v1/version", "{\"a\":1}", 400, "INVAL", "a");
}

TEST(a_malformed_call_is_refused_and_told_where)
{
	in_world(forms);
}

static void methods(struct world *w)
{
	struct world_answer a = world_call(w, "PUT", "/v1/volumes/x", NULL);
	CHECK_EQ(a.status, 405);
	CHECK_STR(a.allow, "GET, PATCH, DELETE");
	world_answer_free(&a);
}

TEST(a_wrong_method_is_told_the_right_ones)
{
	in_world(methods);
}

/* ---- pools ----------------------------------------------------------------------------------------------------------- */

static void pools(struct world *w)
{
	CHECK_EQ(status_of("GET", "/v1/ready", NULL), 200);
	expect_refused("POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":4096}", 404, "NOENT",
		       "no pool");
	expect_refused("POST", "/v1/pools", "{\"name\":\"a\",\"path\":\"relative\"}", 400, "INVAL",
		       "absolute");
	expect_refused("POST", "/v1/pools", "{\"name\":\"a\",\"path\":\"/nowhere/to/be/found\"}", 404,
		       "NOENT", "nothing");
	expect_refused("POST", "/v1/pools", "{\"name\":\"a\",\"path\":\"mem:67108864:x\",\"force\":\"/y\"}",
		       400, "INVAL", "force");
	static const char create[] = "{\"name\":\"one\",\"path\":\"mem:67108864:one\",\"id\":\"" ID_A "\"}";
	CHECK_EQ(status_of("POST", "/v1/pools", create), 201);
	CHECK_EQ(status_of("POST", "/v1/pools", create), 200);
	expect_refused("POST", "/v1/pools", "{\"name\":\"one\",\"path\":\"mem:67108864:two\"}", 409, "EXISTS",
		       "one");
	expect_refused("POST", "/v1/pools", "{\"name\":\"two\",\"path\":\"mem:67108864:one\"}", 409, "EXISTS",
		       "one");
	CHECK_EQ(status_of("GET", "/v1/pools/one", NULL), 200);
	CHECK_EQ(status_of("GET", "/v1/pools/" ID_A, NULL), 200);
	CHECK_EQ(status_of("POST", "/v1/pools/one/check", NULL), 200);
	CHECK_EQ(status_of("POST", "/v1/pools/one/export", NULL), 204);
	CHECK_EQ(status_of("GET", "/v1/pools/one", NULL), 404);
	expect_refused("POST", "/v1/pools", "{\"name\":\"two\",\"path\":\"mem:67108864:one\"}", 409,
		       "OCCUPIED", "one");
	CHECK_EQ(status_of("POST", "/v1/pools/import", "{\"path\":\"mem:67108864:one\"}"), 201);
	CHECK_EQ(status_of("POST", "/v1/pools/import", "{\"path\":\"mem:67108864:one\"}"), 200);
	expect_refused("POST", "/v1/pools/import", "{\"path\":\"mem:67108864:empty\"}", 409, "NOTPOOL",
		       "import");
	(void)w;
}

TEST(pools_are_made_once_and_never_over_something)
{
	in_world(pools);
}

static void save_fails(struct world *w)
{
	w->save_err = OXE_NOSPC;
	CHECK_EQ(status_of("POST", "/v1/pools", "{\"name\":\"one\",\"path\":\"mem:67108864:unsaved\"}"), 507);
	CHECK_EQ(status_of("GET", "/v1/pools/one", NULL), 404);
	w->save_err = 0;
	CHECK_EQ(status_of("POST", "/v1/pools/import", "{\"path\":\"mem:67108864:unsaved\"}"), 201);
}

TEST(a_pool_that_could_not_be_remembered_is_not_shown_and_its_disk_is_released)
{
	in_world(save_fails);
}

/* ---- volumes and snapshots ------------------------------------------------------------------------------------------- */

static void volumes(struct world *w)
{
	world_pool(w);
	static const char create[] = "{\"name\":\"db\",\"size_bytes\":1048576,\"id\":\"" ID_A "\"}";
	CHECK_EQ(status_of("POST", "/v1/volumes", create), 201);
	CHECK_EQ(status_of("POST", "/v1/volumes", create), 200);
	expect_refused("POST", "/v1/volumes", "{\"name\":\"db\",\"size_bytes\":1048576}", 409, "EXISTS",
		       "db");
	expect_refused("POST", "/v1/volumes", "{\"name\":\"odd\",\"size_bytes\":1000}", 400, "INVAL", "4096");
	static const char *const refs[] = {"/v1/volumes/db", "/v1/volumes/fast%2Fdb", ("/v1/volumes/" ID_A)};
	for (size_t i = 0; i < ARRAY_COUNT(refs); i++)
		CHECK_EQ(status_of("GET", refs[i], NULL), 200);
	CHECK_EQ(status_of("GET", "/v1/volumes/slow%2Fdb", NULL), 404);
	CHECK_EQ(status_of("GET", "/v1/volumes?pool=slow", NULL), 404);
	struct world_answer a =
		world_call(w, "PATCH", "/v1/volumes/db", "{\"name\":\"db2\",\"size_bytes\":2097152}");
	CHECK_EQ(a.status, 200);
	CHECK_EQ(number(&a, "size_bytes"), 2097152);
	CHECK_STR(js_text(js_get(a.body, "name")), "db2");
	world_answer_free(&a);
	expect_refused("PATCH", "/v1/volumes/db2", "{\"size_bytes\":4096}", 400, "INVAL", "only grows");
	CHECK_EQ(status_of("GET", "/v1/volumes/db", NULL), 404);
	CHECK_EQ(status_of("DELETE", "/v1/volumes/db", NULL), 404);
	CHECK_EQ(status_of("DELETE", "/v1/volumes/" ID_A, NULL), 204);
	CHECK_EQ(status_of("DELETE", "/v1/volumes/" ID_A, NULL), 204);
}

TEST(volumes_are_created_shown_changed_and_deleted_and_doing_it_twice_is_doing_it_once)
{
	in_world(volumes);
}

static void snapshots(struct world *w)
{
	world_pool(w);
	CHECK_EQ(status_of("POST", "/v1/volumes", "{\"name\":\"db\",\"size_bytes\":1048576}"), 201);
	static const char create[] = "{\"name\":\"monday\",\"id\":\"" ID_B "\"}";
	CHECK_EQ(status_of("POST", "/v1/volumes/db/snapshots", create), 201);
	CHECK_EQ(status_of("POST", "/v1/volumes/db/snapshots", create), 200);
	expect_refused("POST", "/v1/volumes/db/snapshots", "{\"name\":\"monday\"}", 409, "EXISTS", "monday");
	static const char *const refs[] = {"/v1/snapshots/db@monday", "/v1/snapshots/fast%2Fdb@monday",
					   ("/v1/snapshots/" ID_B), "/v1/snapshots/db%40monday"};
	for (size_t i = 0; i < ARRAY_COUNT(refs); i++)
		CHECK_EQ(status_of("GET", refs[i], NULL), 200);
	expect_refused("GET", "/v1/snapshots/db", NULL, 404, "NOENT", "not a snapshot");
	expect_refused("GET", "/v1/volumes/db@monday", NULL, 404, "NOENT", "not a volume");
	expect_refused("GET", "/v1/snapshots/db@", NULL, 400, "INVAL", "no reference");
	CHECK_EQ(status_of("GET", "/v1/snapshots/db@monday/usage", NULL), 200);
	CHECK_EQ(status_of("GET", "/v1/volumes/db/extents?since=monday&limit=1", NULL), 200);
	CHECK_EQ(status_of("GET", "/v1/volumes/db/extents?since=tuesday", NULL), 404);
	CHECK_EQ(status_of("GET", "/v1/volumes/db@monday/extents", NULL), 200);
	expect_refused("GET", "/v1/volumes/db/extents?offset_bytes=1048577", NULL, 400, "RANGE", "offset");
	CHECK_EQ(status_of("POST", "/v1/snapshots/db@monday/clone",
			   "{\"name\":\"copy\",\"size_bytes\":2097152}"),
		 201);
	CHECK_EQ(status_of("POST", "/v1/volumes/db/revert", "{\"snapshot\":\"monday\"}"), 200);
	CHECK_EQ(status_of("POST", "/v1/volumes/db/revert", "{\"snapshot\":\"sunday\"}"), 404);
	CHECK_EQ(status_of("PATCH", "/v1/snapshots/db@monday", "{\"name\":\"mon\"}"), 200);
	CHECK_EQ(status_of("GET", "/v1/snapshots", NULL), 200);
	CHECK_EQ(status_of("DELETE", "/v1/snapshots/db@mon", NULL), 204);
	CHECK_EQ(status_of("DELETE", "/v1/snapshots/" ID_B, NULL), 204);
	CHECK_EQ(status_of("DELETE", "/v1/snapshots/db@mon", NULL), 404);
}

TEST(snapshots_are_taken_found_by_every_name_cloned_reverted_to_and_deleted)
{
	in_world(snapshots);
}

/* ---- the rest -------------------------------------------------------------------------------------------------------- */

static void jobs(struct world *w)
{
	(void)w;
	CHECK_EQ(status_of("GET", "/v1/jobs", NULL), 200);
	CHECK_EQ(status_of("GET", "/v1/jobs/" ID_A, NULL), 404);
	CHECK_EQ(status_of("GET", "/v1/jobs/x", NULL), 400);
	CHECK_EQ(status_of("DELETE", "/v1/jobs/" ID_A, NULL), 404);
	CHECK_EQ(status_of("PUT", "/v1/jobs/rate", "{\"bytes_per_s\":1000000}"), 200);
	CHECK(strstr(w->state, "1000000") != NULL);
}

/* ---- who may connect, who has reserved: notes that nobody can read ------------------------------------------------------- */

static void note_spoil(struct world *w, enum pool_note_kind kind)
{
	struct engine *e;
	CHECK_OK(engine_open(w->engines, "disk", &e));
	CHECK_OK(engine_note_set(e, kind, "rubbish", 7));
	engine_close(e);
}

static void unreadable(struct world *w)
{
	world_pool(w);
	CHECK_EQ(status_of("POST", "/v1/volumes", "{\"name\":\"disk\",\"size_bytes\":1048576}"), 201);
	note_spoil(w, POOL_NOTE_ACCESS);
	note_spoil(w, POOL_NOTE_RESERVATION);
	expect_refused("GET", "/v1/volumes/disk/hosts", NULL, 500, "CORRUPT", "who may connect");
	expect_refused("DELETE", "/v1/volumes/disk/hosts/nqn.x:a", NULL, 500, "CORRUPT", "who may connect");
	expect_refused("DELETE", "/v1/volumes/disk/hosts", NULL, 409, "BUSY", "anybody");
	struct world_answer a = world_call(w, "GET", "/v1/volumes/disk/reservation", NULL);
	CHECK_EQ(a.status, 200);
	CHECK(js_true(js_get(a.body, "is_unreadable")));
	world_answer_free(&a);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(status_of("DELETE", "/v1/volumes/disk/hosts?to_anyone=true", NULL), 204);
		CHECK_EQ(status_of("DELETE", "/v1/volumes/disk/reservation", NULL), 204);
	}
	CHECK_EQ(status_of("GET", "/v1/volumes/disk/hosts", NULL), 200);
	a = world_call(w, "GET", "/v1/volumes/disk/reservation", NULL);
	CHECK(!js_true(js_get(a.body, "is_unreadable")));
	CHECK_STR(js_text(js_get(a.body, "type")), "none");
	world_answer_free(&a);
}

TEST(a_list_and_a_reservation_that_cannot_be_read_are_said_so_and_taken_away_on_request)
{
	in_world(unreadable);
}

TEST(the_limit_on_jobs_is_remembered)
{
	in_world(jobs);
}

/* A clone ID_C that is being flattened, at a byte a second. */
static void begin_flattening(struct world *w)
{
	static char data[256 * KiB] = {1};
	struct engine *e;
	world_pool(w);
	CHECK_EQ(status_of("POST", "/v1/volumes", "{\"name\":\"jobs-of\",\"size_bytes\":1048576}"), 201);
	CHECK_OK(engine_open(w->engines, "fast/jobs-of", &e));
	CHECK_OK(engine_write(e, data, 0, sizeof(data), 0));
	engine_close(e);
	CHECK_EQ(status_of("POST", "/v1/volumes/jobs-of/snapshots", "{\"name\":\"s\"}"), 201);
	CHECK_EQ(status_of("PUT", "/v1/jobs/rate", "{\"bytes_per_s\":1}"), 200);
	CHECK_EQ(status_of("POST", "/v1/snapshots/jobs-of@s/clone",
			   "{\"name\":\"jobs-copy\",\"id\":\"" ID_C "\",\"full_copy\":true}"),
		 201);
}

struct job_waiter {
	struct rt_group ended;
	char state[16];
	bool whole;
};

static void wait_for_job(void *arg)
{
	struct job_waiter *waiter = arg;
	struct world_answer a = world_call(world, "GET", "/v1/jobs/" ID_C "?wait=300", NULL);
	CHECK_EQ(a.status, 200);
	snprintf(waiter->state, sizeof(waiter->state), "%s", js_text(js_get(a.body, "state")));
	waiter->whole = number(&a, "done_bytes") == number(&a, "total_bytes");
	world_answer_free(&a);
	group_done(&waiter->ended);
}

/* Somebody waits for the job already when the call is made. */
static struct job_waiter job_ended_by(struct world *w, const char *method, const char *target,
				      const char *body)
{
	struct job_waiter waiter = {.whole = false};
	group_init(&waiter.ended);
	group_add(&waiter.ended, 1);
	begin_flattening(w);
	fiber_spawn_big(w->rt, "waiter", wait_for_job, &waiter);
	fiber_yield();
	CHECK_EQ(status_of(method, target, body) / 100, 2);
	group_wait(&waiter.ended);
	CHECK_EQ(status_of("DELETE", "/v1/volumes/jobs-copy", NULL), 204);
	CHECK_EQ(status_of("DELETE", "/v1/volumes/jobs-of", NULL), 204); /* memory outlives a world */
	return waiter;
}

static void cancelled(struct world *w)
{
	struct job_waiter waiter = job_ended_by(w, "DELETE", "/v1/jobs/" ID_C, NULL);
	CHECK_STR(waiter.state, "cancelled");
	CHECK(!waiter.whole);
}

TEST(who_waits_for_a_job_that_is_cancelled_is_not_told_that_it_is_done)
{
	in_world(cancelled);
}

static void set_free(struct world *w)
{
	struct job_waiter waiter = job_ended_by(w, "PUT", "/v1/jobs/rate", "{\"bytes_per_s\":0}");
	CHECK_STR(waiter.state, "done");
	CHECK(waiter.whole);
}

TEST(who_waits_for_a_job_is_told_when_it_is_done)
{
	in_world(set_free);
}

static void events(struct world *w)
{
	struct log_field fields[] = {F_STR("bad", "a\xff\"")};
	struct log_event event = {LOG_LEVEL_INFO, "test.event", "it happened", fields, 1};
	for (int i = 0; i < 150; i++)
		events_add(w->events, 1, &event);
	struct world_answer a = world_call(w, "GET", "/v1/events", NULL);
	CHECK_EQ(js_length(js_get(a.body, "events")), 100);
	CHECK_STR(js_text(js_get(js_at(js_get(a.body, "events"), 0), "bad")), "a?\"");
	char target[80];
	snprintf(target, sizeof(target), "/v1/events?after=%llu", (unsigned long long)number(&a, "next") - 3);
	world_answer_free(&a);
	a = world_call(w, "GET", target, NULL);
	CHECK_EQ(js_length(js_get(a.body, "events")), 3);
	snprintf(target, sizeof(target), "/v1/events?after=%llu&wait=0",
		 (unsigned long long)number(&a, "next"));
	world_answer_free(&a);
	a = world_call(w, "GET", target, NULL);
	CHECK_EQ(js_length(js_get(a.body, "events")), 0);
	world_answer_free(&a);
}

TEST(events_are_kept_up_to_a_bound_and_paged_by_id)
{
	in_world(events);
}

static void daemon_routes(struct world *w)
{
	world_pool(w);
	static const char *const targets[] = {"/v1/version", "/v1/health", "/v1/stats", "/metrics",
					      "/v1/pools"};
	for (size_t i = 0; i < ARRAY_COUNT(targets); i++)
		CHECK_EQ(status_of("GET", targets[i], NULL), 200);
	node_hold(w->node, "test", "Testing", "held by a test", "release it");
	struct world_answer a = world_call(w, "GET", "/v1/ready", NULL);
	CHECK_EQ(a.status, 503);
	CHECK_STR(js_text(js_get(js_at(js_get(a.body, "reasons"), 0), "reason")), "Testing");
	world_answer_free(&a);
	node_release(w->node, "test");
	CHECK_EQ(status_of("GET", "/v1/ready?wait=1", NULL), 200);
}

TEST(readiness_is_held_back_and_says_by_what)
{
	in_world(daemon_routes);
}

/* ---- the list of pools ------------------------------------------------------------------------------------------------ */

static void list_is_kept(struct world *w)
{
	char *before = mem_strdup(w->state);
	CHECK_EQ(status_of("GET", "/v1/ready", NULL), 503);
	CHECK_EQ(status_of("PUT", "/v1/jobs/rate", "{\"bytes_per_s\":1}"), 503);
	CHECK_EQ(status_of("GET", "/v1/volumes/db", NULL), 503);
	CHECK_STR(w->state, before);
	free(before);
}

TEST(a_list_of_pools_that_makes_no_sense_is_never_written_over)
{
	static const char *const bad[] = {"",
					  "{",
					  "[]",
					  "{\"format\":1}",
					  "{\"format\":2,\"pools\":[]}",
					  "{\"format\":1,\"pools\":[{\"id\":\"x\"}]}"};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		world = world_new_with(bad[i]);
		world_run(world, list_is_kept);
		world_free(world);
	}
}

static void absent_pool(struct world *w)
{
	expect_refused("GET", "/v1/volumes/db", NULL, 503, "NOTREADY", "not open");
	CHECK_EQ(status_of("GET", "/v1/ready", NULL), 503);
	struct world_answer a = world_call(w, "GET", "/v1/pools/gone", NULL);
	while (number(&a, "attempts") == 0) {
		world_answer_free(&a);
		fiber_sleep(NS_PER_MS);
		a = world_call(w, "GET", "/v1/pools/gone", NULL);
	}
	const struct js *condition = js_at(js_get(a.body, "conditions"), 0);
	CHECK_STR(js_text(js_get(a.body, "state")), "waiting");
	CHECK_STR(js_text(js_get(condition, "reason")), "PoolAbsent");
	world_answer_free(&a);
	CHECK_EQ(status_of("POST", "/v1/pools/gone/check", NULL), 503);
	CHECK_EQ(status_of("POST", "/v1/pools/gone/export", NULL), 204);
	CHECK_EQ(status_of("GET", "/v1/ready", NULL), 200);
}

TEST(a_known_pool_whose_disk_is_gone_is_a_condition_and_its_volumes_are_not_ready_rather_than_unknown)
{
	world = world_new_with("{\"format\":1,\"pools\":[{\"id\":\"" ID_A
			       "\",\"name\":\"gone\",\"path\":\"/nowhere/to/be/found\"}]}");
	world_run(world, absent_pool);
	world_free(world);
}
