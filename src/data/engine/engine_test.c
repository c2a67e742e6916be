/* engine_test.c: names, shared handles and what is counted, over a store of arrays on virtual time. */
#include "base/test.h"
#include "data/engine/engine.h"
#include "data/engine/pool_double.h"
#include "data/engine/engine_testrt.h"

#include <stdio.h>

#define SIZE (1 * MiB)

static struct {
	struct rt *rt;
	struct pool *tank, *lake;
	struct uuid disk;
	struct engines *set;
	void (*body)(void);
} t;

static void body_fiber(void *arg)
{
	(void)arg;
	t.body();
}

/* Two pools: "tank" holds volumes disk (with snapshots mon, tue) and both; "lake" holds both. */
static void with_pools(void (*body)(void))
{
	t.rt = testrt_new(1, false);
	t.tank = pool_double_new("tank");
	t.lake = pool_double_new("lake");
	t.disk = pool_double_volume(t.tank, "disk", SIZE, 512);
	pool_double_snapshot(t.tank, &t.disk, "mon");
	pool_double_snapshot(t.tank, &t.disk, "tue");
	pool_double_volume(t.tank, "both", SIZE, 512);
	pool_double_volume(t.lake, "both", SIZE, 4096);
	t.set = engines_new(t.rt);
	engines_add_pool(t.set, t.tank);
	engines_add_pool(t.set, t.lake);
	t.body = body;
	fiber_spawn_big(t.rt, "test", body_fiber, NULL);
	testrt_run(t.rt);
	engines_free(t.set);
	pool_double_free(t.tank);
	pool_double_free(t.lake);
	testrt_free(t.rt);
}

#define WITH_POOLS(test_name)                                                                                \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		with_pools(test_name##_body);                                                                \
	}                                                                                                    \
	static void test_name##_body(void)

static void expect_name(const char *export_name, const char *full_name, bool read_only)
{
	struct engine *e;
	CHECK_OK(engine_open(t.set, export_name, &e));
	CHECK_STR(engine_name(e), full_name);
	CHECK_EQ(engine_info(e)->read_only, read_only);
	engine_close(e);
}

WITH_POOLS(a_volume_is_found_by_its_short_name_and_its_long_one)
{
	expect_name("disk", "tank/disk", false);
	expect_name("tank/disk", "tank/disk", false);
	expect_name("disk@mon", "tank/disk@mon", true);
	expect_name("tank/disk@tue", "tank/disk@tue", true);
	expect_name("lake/both", "lake/both", false);
}

WITH_POOLS(a_volume_is_found_by_its_id_and_shares_its_engine_with_its_name)
{
	struct engine *by_id, *by_name;
	struct uuid nobody = {.b = {9}};
	CHECK_OK(engine_open_volume(t.set, &t.disk, &by_id));
	CHECK_OK(engine_open(t.set, "disk", &by_name));
	CHECK(by_id == by_name);
	CHECK_STR(engine_name(by_id), "tank/disk");
	engine_close(by_id);
	engine_close(by_name);
	CHECK_ERR(engine_open_volume(t.set, &nobody, &by_id), OXE_NOENT);
}

static bool pick_id(void *ctx, const struct snapshot_info *s)
{
	*(struct uuid *)ctx = s->id;
	return false;
}

WITH_POOLS(a_volume_and_a_snapshot_are_found_by_their_ids)
{
	struct engine *by_id;
	struct uuid snapshot, nobody = {.b = {0xff}};
	snapshot_walk(t.tank, &t.disk, pick_id, &snapshot);
	CHECK_OK(engine_open_id(t.set, &t.disk, &by_id));
	CHECK_STR(engine_name(by_id), "tank/disk");
	engine_close(by_id);
	CHECK_OK(engine_open_id(t.set, &snapshot, &by_id));
	CHECK_STR(engine_name(by_id), "tank/disk@mon");
	CHECK(engine_info(by_id)->read_only);
	engine_close(by_id);
	CHECK_ERR(engine_open_id(t.set, &nobody, &by_id), OXE_NOENT);
}

WITH_POOLS(a_name_that_names_nothing_or_two_things_is_refused)
{
	struct engine *e;
	static const char *const nothing[] = {
		"",	     "@",     "/",     "disk@",	     "disk@wed",	  "@mon",
		"lake/disk", "tank/", "/disk", "tank/disk/", "tank/disk@mon@tue", "DISK",
		"disk ",     "nobody"};
	for (size_t i = 0; i < ARRAY_COUNT(nothing); i++)
		CHECK_ERR(engine_open(t.set, nothing[i], &e), OXE_NOENT);
	char long_name[400];
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	CHECK_ERR(engine_open(t.set, long_name, &e), OXE_NOENT);
	CHECK_ERR(engine_open(t.set, "both", &e), OXE_INVAL);
}

struct seen {
	char names[512];
	size_t len, stop_after;
};

static bool note_export(void *ctx, const struct engine_export *e)
{
	struct seen *s = ctx;
	s->len += (size_t)snprintf(s->names + s->len, sizeof(s->names) - s->len, "%s%s ", e->name,
				   e->read_only ? "(ro)" : "");
	return --s->stop_after > 0;
}

WITH_POOLS(exports_are_listed_by_the_shortest_name_that_is_unique)
{
	struct seen s = {.stop_after = 100};
	engines_walk(t.set, note_export, &s);
	CHECK_STR(s.names, "disk disk@mon(ro) disk@tue(ro) tank/both lake/both ");
	s = (struct seen){.stop_after = 2};
	engines_walk(t.set, note_export, &s);
	CHECK_STR(s.names, "disk disk@mon(ro) ");
}

static bool note_snapshot(void *ctx, const char *name)
{
	struct seen *s = ctx;
	s->len += (size_t)snprintf(s->names + s->len, sizeof(s->names) - s->len, "%s ", name);
	return true;
}

WITH_POOLS(snapshots_are_walked_from_the_volume_and_from_any_of_them)
{
	static const char *const names[] = {"disk", "disk@mon"};
	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		struct engine *e;
		struct seen s = {.len = 0};
		CHECK_OK(engine_open(t.set, names[i], &e));
		engine_snapshot_walk(e, note_snapshot, &s);
		CHECK_STR(s.names, "mon tue ");
		engine_close(e);
	}
}

WITH_POOLS(all_who_open_a_volume_share_one_engine)
{
	struct engine *a, *b, *c;
	CHECK_OK(engine_open(t.set, "disk", &a));
	CHECK_OK(engine_open(t.set, "tank/disk", &b));
	CHECK_OK(engine_open(t.set, "disk@mon", &c));
	CHECK(a == b && a != c);
	CHECK_ERR(engines_remove_pool(t.set, t.tank), OXE_BUSY);
	engine_close(a);
	engine_close(c);
	CHECK_ERR(engines_remove_pool(t.set, t.tank), OXE_BUSY);
	engine_close(b);
	CHECK_OK(engines_remove_pool(t.set, t.tank));
	CHECK_ERR(engine_open(t.set, "disk", &a), OXE_NOENT);
	CHECK_OK(engine_open(t.set, "both", &a)); /* unique now */
	engine_close(a);
}

static struct rt_group openers;
static struct engine *shared;

static void open_and_close(void *arg)
{
	struct engine *e;
	(void)arg;
	CHECK_OK(engine_open(t.set, "disk", &e));
	CHECK(!shared || shared == e);
	shared = e;
	fiber_yield();
	engine_close(e);
	group_done(&openers);
}

WITH_POOLS(opens_that_arrive_together_see_one_whole_handle)
{
	group_init(&openers);
	group_add(&openers, 20);
	shared = NULL;
	for (int i = 0; i < 20; i++)
		fiber_spawn(t.rt, "opener", open_and_close, NULL);
	group_wait(&openers);
	CHECK_OK(engines_remove_pool(t.set, t.tank));
}

static struct engine_stats copied;
static unsigned record_count;

static bool copy_stats(void *ctx, const char *name, const struct engine_stats *s)
{
	record_count++;
	if (strcmp(name, ctx) == 0)
		copied = *s;
	return true;
}

static const struct engine_stats *stats_of(const char *name)
{
	memset(&copied, 0, sizeof(copied));
	record_count = 0;
	engines_stats_walk(t.set, copy_stats, (void *)name);
	return &copied;
}

WITH_POOLS(what_passes_is_counted_timed_and_kept_after_close)
{
	static uint8_t block[4096];
	struct engine *e;
	CHECK_OK(engine_open(t.set, "disk", &e));
	pool_double_delay(t.tank, 3 * NS_PER_MS);
	CHECK_OK(engine_write(e, block, 0, 4096, VOL_FUA));
	CHECK_OK(engine_read(e, block, 0, 4096));
	CHECK_OK(engine_read(e, block, 4096, 512));
	CHECK_OK(engine_zero(e, 0, 8192, 0));
	CHECK_OK(engine_trim(e, 0, 16384));
	CHECK_OK(engine_flush(e));
	pool_double_fail(t.tank, OXE_IO);
	CHECK_ERR(engine_read(e, block, 0, 512), OXE_IO);
	pool_double_fail(t.tank, 0);
	CHECK_EQ(stats_of("tank/disk")->open_count, 1);
	engine_close(e);
	static const uint64_t ops[ENGINE_OPS] = {3, 1, 1, 1, 1},
			      bytes[ENGINE_OPS] = {5120, 4096, 8192, 16384, 0};
	const struct engine_stats *s = stats_of("tank/disk");
	for (int op = 0; op < ENGINE_OPS; op++) {
		CHECK_EQ(s->ops[op], ops[op]);
		CHECK_EQ(s->bytes[op], bytes[op]);
		CHECK_EQ(s->errors[op], op == ENGINE_READ);
		CHECK_EQ(s->latency_ns[op].count, ops[op]);
		CHECK(hist_quantile(&s->latency_ns[op], 500) >= 3 * NS_PER_MS);
	}
	CHECK_EQ(s->in_flight, 0);
	CHECK_EQ(s->open_count, 0);
	CHECK_STR(engine_op_name(ENGINE_TRIM), "trim");
}

WITH_POOLS(a_record_ends_with_its_volume)
{
	expect_name("disk", "tank/disk", false);
	expect_name("disk@mon", "tank/disk@mon", true);
	stats_of("");
	CHECK_EQ(record_count, 2);
	struct uuid id = pool_double_volume(t.tank, "brief", SIZE, 512);
	expect_name("brief", "tank/brief", false);
	stats_of("");
	CHECK_EQ(record_count, 3);
	pool_double_remove(t.tank, &id);
	stats_of("");
	CHECK_EQ(record_count, 2);
}

WITH_POOLS(a_snapshot_takes_no_writes)
{
	static uint8_t block[4096];
	struct engine *e;
	CHECK_OK(engine_open(t.set, "disk@mon", &e));
	CHECK_ERR(engine_write(e, block, 0, 4096, 0), OXE_ROFS);
	CHECK_ERR(engine_zero(e, 0, 4096, 0), OXE_ROFS);
	CHECK_ERR(engine_trim(e, 0, 4096), OXE_ROFS);
	CHECK_OK(engine_read(e, block, 0, 4096));
	CHECK_OK(engine_flush(e));
	engine_close(e);
}

WITH_POOLS(changes_are_told_since_a_snapshot_by_name)
{
	static uint8_t block[4096];
	struct vol_extent x[4];
	struct engine *e;
	size_t n;
	CHECK_OK(engine_open(t.set, "disk", &e));
	CHECK_OK(engine_write(e, block, 8192, 4096, 0));
	CHECK_OK(engine_extents(e, "tue", 0, 65536, x, 4, &n));
	CHECK_EQ(n, 3);
	CHECK(x[1].offset_bytes == 8192 && x[1].len_bytes == 4096 && x[1].flags == VOL_EXTENT_CHANGED);
	CHECK_ERR(engine_extents(e, "wed", 0, 65536, x, 4, &n), OXE_NOENT);
	engine_close(e);
}

WITH_POOLS(a_snapshot_tells_its_volume_by_its_id_alone)
{
	struct engine *s;
	struct uuid found, nobody = {.b = {9}};
	CHECK_OK(engine_open(t.set, "disk@mon", &s));
	CHECK(uuid_equal(engine_volume_id(s), &t.disk));
	CHECK_OK(engines_volume_of(t.set, &engine_info(s)->id, &found));
	CHECK(uuid_equal(&found, &t.disk));
	CHECK_OK(engines_volume_of(t.set, &t.disk, &found));
	CHECK(uuid_equal(&found, &t.disk));
	CHECK_ERR(engines_volume_of(t.set, &nobody, &found), OXE_NOENT);
	engine_close(s);
}

WITH_POOLS(a_volume_keeps_its_notes_and_a_snapshot_has_none)
{
	struct engine *e, *s;
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	CHECK_OK(engine_open(t.set, "disk", &e));
	CHECK_OK(engine_open(t.set, "disk@mon", &s));
	CHECK_ERR(engine_note_get(e, POOL_NOTE_RESERVATION, note, &len_bytes), OXE_NOENT);
	CHECK_OK(engine_note_set(e, POOL_NOTE_RESERVATION, "mine", 5));
	CHECK_ERR(engine_note_set(s, POOL_NOTE_RESERVATION, "its", 4), OXE_ROFS);
	CHECK_ERR(engine_note_get(s, POOL_NOTE_RESERVATION, note, &len_bytes), OXE_NOENT);
	CHECK_ERR(engine_note_get(e, POOL_NOTE_USER, note, &len_bytes), OXE_NOENT);
	engine_close(e);
	CHECK_OK(engine_open(t.set, "tank/disk", &e));
	CHECK_OK(engine_note_get(e, POOL_NOTE_RESERVATION, note, &len_bytes));
	CHECK_EQ(len_bytes, 5);
	CHECK_STR((char *)note, "mine");
	engine_close(e);
	engine_close(s);
}

static struct engine *busy;
static uint32_t most_in_flight;

static void read_once(void *arg)
{
	uint8_t block[512];
	(void)arg;
	CHECK_OK(engine_read(busy, block, 0, 512));
	group_done(&openers);
}

static void watch(void *arg)
{
	(void)arg;
	uint32_t now = stats_of("tank/disk")->in_flight;
	most_in_flight = now > most_in_flight ? now : most_in_flight;
}

WITH_POOLS(calls_in_flight_are_bounded_and_the_rest_wait_their_turn)
{
	CHECK_OK(engine_open(t.set, "disk", &busy));
	pool_double_delay(t.tank, NS_PER_MS);
	group_init(&openers);
	group_add(&openers, 3000);
	most_in_flight = 0;
	for (int i = 0; i < 3000; i++)
		fiber_spawn(t.rt, "reader", read_once, NULL);
	for (int i = 0; i < 10; i++) {
		fiber_sleep(NS_PER_MS / 2);
		watch(NULL);
	}
	group_wait(&openers);
	CHECK_EQ(most_in_flight, 1024);
	CHECK_EQ(stats_of("tank/disk")->ops[ENGINE_READ], 3000);
	engine_close(busy);
}
