/* engine_mirror_test.c: an engine over a mirror of copies in pools of one machine, on the simulator's disks. */
#include "data/engine/mirror_double.h"

#include <stdio.h>

#define SIZE	MIRROR_DOUBLE_BYTES
#define FOREVER (UINT64_MAX / 2)

static struct engine *opened(void)
{
	struct engine *e;
	CHECK_OK(engine_open(mirrored.engines, "disk", &e));
	CHECK_OK(engine_wait(e, FOREVER));
	return e;
}

static void cut(bool is_cut)
{
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++)
		mirrored.is_cut[i] = is_cut;
}

static uint64_t from_now(uint64_t ns)
{
	return rt_now_ns(mirrored.rt) + ns;
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

struct seen {
	char names[512];
	size_t len;
};

static bool note_export(void *ctx, const struct engine_export *e)
{
	struct seen *s = ctx;
	s->len += (size_t)snprintf(s->names + s->len, sizeof(s->names) - s->len, "%s%s ", e->name,
				   e->is_mirrored ? "(mirrored)" : "");
	return true;
}

static void expect_exports(const char *wanted)
{
	struct seen s = {.len = 0};
	engines_walk(mirrored.engines, note_export, &s);
	CHECK_STR(s.names, wanted);
}

WITH_COPIES(a_mirrored_volume_is_found_by_name_and_by_id_and_shares_one_engine, 2)
{
	struct engine *e = opened(), *by_id, *by_any_id;
	CHECK_OK(engine_open_volume(mirrored.engines, &mirrored.volume, &by_id));
	CHECK_OK(engine_open_id(mirrored.engines, &mirrored.volume, &by_any_id));
	CHECK(by_id == e && by_any_id == e);
	CHECK_STR(engine_name(e), "disk");
	CHECK(!engine_is_of_pool(e, "p0") && !engine_is_of_pool(e, "disk"));
	CHECK(engine_is_of_volume(e, &mirrored.volume));
	CHECK(uuid_equal(engine_volume_id(e), &mirrored.volume));
	CHECK(engines_is_open(mirrored.engines, &mirrored.volume));
	CHECK_EQ(engines_open_count(mirrored.engines, &mirrored.volume), 3);
	engine_close(by_id);
	engine_close(by_any_id);
	CHECK_EQ(engines_open_count(mirrored.engines, &mirrored.volume), 1);
	engine_close(e);
	CHECK(!engines_is_open(mirrored.engines, &mirrored.volume));
	CHECK_EQ(engines_open_count(mirrored.engines, &mirrored.volume), 0);
}

WITH_COPIES(a_copy_in_a_pool_is_not_to_be_had, 2)
{
	static const char *const names[] = {"~copy", "p0/~copy", "p1/~copy", "p0/disk", "disk@mon"};
	struct engine *e;
	mirror_double_whole();
	expect_exports("disk(mirrored) ");
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		CHECK_ERR(engine_open(mirrored.engines, names[i], &e), OXE_NOENT);
	mirror_double_down(NULL); /* nor when no mirror stands for it */
	expect_exports("");
	CHECK_ERR(engine_open(mirrored.engines, "disk", &e), OXE_NOENT);
	CHECK_ERR(engine_open_id(mirrored.engines, &mirrored.volume, &e), OXE_NOENT);
	mirror_double_up();
}

WITH_COPIES(a_name_that_a_pools_volume_and_a_mirrored_one_have_means_neither, 2)
{
	struct volume_spec spec = {.name = "disk", .id = rt_random_uuid(mirrored.rt), .size_bytes = SIZE};
	struct engine *e;
	CHECK_OK(volume_create(mirrored.pools[2], &spec));
	CHECK_ERR(engine_open(mirrored.engines, "disk", &e), OXE_INVAL);
	CHECK_OK(engine_open(mirrored.engines, "p2/disk", &e));
	CHECK_STR(engine_name(e), "p2/disk");
	engine_close(e);
	CHECK_OK(engine_open_volume(mirrored.engines, &mirrored.volume, &e));
	CHECK_STR(engine_name(e), "disk");
	engine_close(e);
	expect_exports("p2/disk disk(mirrored) ");
	CHECK_OK(volume_delete(mirrored.pools[2], &spec.id));
	CHECK_OK(engine_open(mirrored.engines, "disk", &e));
	engine_close(e);
}

WITH_COPIES(a_mirrors_name_and_id_are_served_once, 1)
{
	struct engine_mirror_options o = {
		.name = "disk", .mirror = mirrored.mirror, .notes = &mirrored.notes};
	CHECK_ERR(engines_add_mirror(mirrored.engines, &o), OXE_EXISTS);
	o.name = "another";
	CHECK_ERR(engines_add_mirror(mirrored.engines, &o), OXE_EXISTS);
	o.name = "~disk";
	CHECK_ERR(engines_add_mirror(mirrored.engines, &o), OXE_INVAL);
	o.name = "p0/disk";
	CHECK_ERR(engines_add_mirror(mirrored.engines, &o), OXE_INVAL);
}

static bool note_name(void *ctx, const char *name, const struct engine_stats *s)
{
	struct seen *seen = ctx;
	seen->len += (size_t)snprintf(seen->names + seen->len, sizeof(seen->names) - seen->len, "%s %u ",
				      name, s->open_count);
	return true;
}

WITH_COPIES(a_rename_is_seen_where_it_is_open_and_where_it_is_counted, 1)
{
	struct engine *e = opened(), *again;
	struct seen s = {.len = 0};
	struct uuid nobody = {{9}};
	CHECK_OK(engines_rename_mirror(mirrored.engines, &mirrored.volume, "tape"));
	CHECK_OK(engines_rename_mirror(mirrored.engines, &mirrored.volume, "tape"));
	CHECK_STR(engine_name(e), "tape");
	CHECK_ERR(engine_open(mirrored.engines, "disk", &again), OXE_NOENT);
	CHECK_OK(engine_open(mirrored.engines, "tape", &again));
	CHECK(again == e);
	engines_stats_walk(mirrored.engines, note_name, &s);
	CHECK_STR(s.names, "tape 2 ");
	CHECK_ERR(engines_rename_mirror(mirrored.engines, &nobody, "other"), OXE_NOENT);
	CHECK_ERR(engines_rename_mirror(mirrored.engines, &mirrored.volume, "a/b"), OXE_INVAL);
	engine_close(again);
	engine_close(e);
}

/* ---- what passes ------------------------------------------------------------------------------------------------------------ */

WITH_COPIES(what_is_written_through_an_engine_is_read_through_it, 2)
{
	static uint8_t out[64 * KiB], in[64 * KiB];
	struct engine *e = opened();
	memset(out, 7, sizeof(out));
	CHECK_OK(engine_write(e, out, 4096, sizeof(out), 0));
	CHECK_OK(engine_zero(e, 8192, 4096, 0));
	memset(out + 4096, 0, 4096);
	CHECK_OK(engine_trim(e, 16384, 4096));
	memset(out + 12288, 0, 4096);
	CHECK_OK(engine_flush(e));
	CHECK_OK(engine_read(e, in, 4096, sizeof(in)));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	CHECK_ERR(engine_read(e, in, SIZE, 512), OXE_RANGE);
	CHECK_ERR(engine_read(e, in, 1, 512), OXE_ALIGN);
	CHECK_EQ(engine_info(e)->lba_bytes, 512);
	CHECK(!engine_info(e)->read_only);
	CHECK(uuid_equal(&engine_info(e)->id, &mirrored.volume));
	engine_close(e);
}

WITH_COPIES(a_volume_that_grows_is_seen_to_be_larger, 2)
{
	static uint8_t block[4096];
	struct engine *e = opened();
	CHECK_EQ(engine_info(e)->size_bytes, SIZE);
	CHECK_ERR(engine_write(e, block, SIZE, 4096, 0), OXE_RANGE);
	CHECK_OK(mirror_grow(mirrored.mirror, 2 * SIZE));
	CHECK_EQ(engine_info(e)->size_bytes, 2 * SIZE);
	CHECK_OK(engine_write(e, block, SIZE, 4096, 0));
	engine_close(e);
}

static struct engine_stats copied;

static bool copy_stats(void *ctx, const char *name, const struct engine_stats *s)
{
	(void)ctx;
	CHECK_STR(name, "disk");
	copied = *s;
	return false;
}

WITH_COPIES(what_passes_is_counted_and_the_time_it_waited_too, 2)
{
	static uint8_t block[4096];
	struct engine *e = opened();
	CHECK_OK(engine_write(e, block, 0, 4096, 0));
	mirrored.is_cut[1] = true; /* it is waited for, and then put out of the view */
	CHECK_OK(engine_write(e, block, 0, 4096, 0));
	mirrored.is_cut[1] = false;
	CHECK_OK(engine_read(e, block, 0, 512));
	CHECK_OK(engine_flush(e));
	engine_close(e);
	engines_stats_walk(mirrored.engines, copy_stats, NULL); /* outlives the engine */
	CHECK_EQ(copied.ops[ENGINE_WRITE], 2);
	CHECK_EQ(copied.bytes[ENGINE_WRITE], 8192);
	CHECK_EQ(copied.bytes[ENGINE_READ], 512);
	CHECK_EQ(copied.ops[ENGINE_FLUSH], 1);
	CHECK_EQ(copied.errors[ENGINE_WRITE], 0);
	CHECK_EQ(copied.latency_ns[ENGINE_WRITE].count, 2);
	CHECK(hist_quantile(&copied.latency_ns[ENGINE_WRITE], 999) >= 2 * NS_PER_S);
	CHECK_EQ(copied.in_flight, 0);
	mirror_double_whole();
}

WITH_COPIES(while_one_copy_on_another_node_is_all_there_is_every_write_is_durable, 2)
{
	static uint8_t block[4096];
	mirror_double_down(NULL); /* how near they are is seen when they are opened */
	mirrored.is_far[1] = true;
	mirror_double_up();
	struct engine *e = opened();
	mirror_double_whole();
	uint64_t before = mirrored.durable;
	CHECK_OK(engine_write(e, block, 0, 4096, 0));
	CHECK_EQ(mirrored.durable, before);
	mirrored.is_cut[0] = true;
	CHECK_OK(engine_write(e, block, 0, 4096, 0));
	before = mirrored.durable;
	CHECK_OK(engine_write(e, block, 4096, 4096, 0));
	CHECK_OK(engine_zero(e, 8192, 4096, 0));
	CHECK_EQ(mirrored.durable, before + 2);
	mirrored.is_cut[0] = false;
	mirror_double_whole();
	engine_close(e);
}

/* V11 */
WITH_COPIES(two_copies_on_one_other_machine_lose_their_power_together_so_every_write_is_durable, 2)
{
	static uint8_t block[4096];
	mirror_double_down(NULL);
	mirrored.is_far[0] = mirrored.is_far[1] = true; /* and of one boot, as all of them are here */
	mirror_double_up();
	struct engine *e = opened();
	mirror_double_whole();
	uint64_t before = mirrored.durable;
	CHECK_OK(engine_write(e, block, 0, 4096, 0));
	CHECK_EQ(mirrored.durable, before + 2);
	engine_close(e);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------------------- */

#define WORKERS 12u

static struct {
	struct engine *engine;
	struct rt_group group;
	bool stop;
	uint32_t done, lost, versions[WORKERS];
} load;

/* Each has a block of its own, and knows the last version of it that was acknowledged. */
static void worker(void *arg)
{
	uint32_t n = (uint32_t)(uintptr_t)arg;
	uint8_t block[4096];
	while (!load.stop) {
		memset(block, (int)(load.versions[n] + 1), sizeof(block));
		int err = engine_write(load.engine, block, n * 64 * KiB, sizeof(block), 0);
		if (engine_is_lost(err)) {
			load.lost++;
			break;
		}
		CHECK_OK(err);
		load.versions[n]++;
		load.done++;
		fiber_sleep(20 * NS_PER_MS);
	}
	group_done(&load.group);
}

static void load_begin(struct engine *e)
{
	memset(&load, 0, sizeof(load));
	load.engine = e;
	group_init(&load.group);
	group_add(&load.group, WORKERS);
	for (uint32_t n = 0; n < WORKERS; n++)
		fiber_spawn(mirrored.rt, "worker", worker, (void *)(uintptr_t)n);
}

static void load_end(void)
{
	load.stop = true;
	group_wait(&load.group);
}

/* What was acknowledged is there; what was not may be. */
static void load_check(struct engine *e)
{
	uint8_t block[4096];
	for (uint32_t n = 0; n < WORKERS; n++) {
		CHECK_OK(engine_read(e, block, n * 64 * KiB, sizeof(block)));
		CHECK(block[0] == (uint8_t)load.versions[n] ||
		      (load.lost && block[0] == (uint8_t)(load.versions[n] + 1)));
	}
}

WITH_COPIES(a_call_waits_while_no_copy_answers_and_is_no_error, 2)
{
	struct engine *e = opened();
	load_begin(e);
	fiber_sleep(100 * NS_PER_MS);
	cut(true);
	fiber_sleep(10 * NS_PER_S);
	uint32_t done = load.done;
	fiber_sleep(600 * NS_PER_S);
	CHECK_EQ(load.done, done);
	CHECK_ERR(engine_wait(e, from_now(NS_PER_S)), OXE_TIMEOUT);
	cut(false);
	CHECK_OK(engine_wait(e, FOREVER));
	fiber_sleep(5 * NS_PER_S);
	CHECK(load.done > done);
	load_end();
	CHECK_EQ(load.lost, 0);
	load_check(e);
	engine_close(e);
}

WITH_COPIES(a_copy_that_is_lost_under_load_and_returns_is_a_pause, 3)
{
	struct engine *e = opened();
	load_begin(e);
	for (unsigned i = 0; i < 3; i++) {
		mirrored.is_cut[i] = true;
		fiber_sleep(10 * NS_PER_S);
		mirrored.is_cut[i] = false;
		mirror_double_whole();
	}
	load_end();
	CHECK_EQ(load.lost, 0);
	CHECK(load.done > 1000);
	load_check(e);
	engine_close(e);
}

WITH_COPIES(before_a_copy_has_answered_an_engine_knows_no_size_and_waits, 2)
{
	struct engine *e;
	mirror_double_down(NULL);
	cut(true);
	mirror_double_up();
	CHECK_OK(engine_open(mirrored.engines, "disk", &e));
	CHECK_ERR(engine_wait(e, from_now(100 * NS_PER_S)), OXE_TIMEOUT);
	CHECK_EQ(engine_info(e)->size_bytes, 0);
	expect_exports("disk(mirrored) ");
	cut(false);
	CHECK_OK(engine_wait(e, FOREVER));
	CHECK_EQ(engine_info(e)->size_bytes, SIZE);
	engine_close(e);
}

/* ---- over -------------------------------------------------------------------------------------------------------------------- */

WITH_COPIES(an_engine_fenced_under_load_says_so_and_is_opened_no_more, 2)
{
	struct engine *e = opened(), *again;
	load_begin(e);
	fiber_sleep(NS_PER_S);
	mirror_double_usurp();
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(load.lost, WORKERS);
	CHECK_ERR(engine_wait(e, 0), OXE_FENCED);
	CHECK_ERR(engine_open(mirrored.engines, "disk", &again), OXE_FENCED);
	CHECK_ERR(engine_open_volume(mirrored.engines, &mirrored.volume, &again), OXE_FENCED);
	CHECK_ERR(engines_remove_mirror(mirrored.engines, &mirrored.volume), OXE_BUSY);
	load_end();
	engine_close(e);
	mirror_double_down(NULL);
	mirror_double_up();
	e = opened();
	load_check(e);
	engine_close(e);
}

WITH_COPIES(a_mirror_that_is_stopped_while_it_waits_lets_go_of_everybody, 2)
{
	struct engine *e = opened(), *again;
	load_begin(e);
	fiber_sleep(100 * NS_PER_MS);
	cut(true);
	fiber_sleep(60 * NS_PER_S);
	CHECK_ERR(engines_remove_mirror(mirrored.engines, &mirrored.volume), OXE_BUSY);
	CHECK_EQ(load.lost, 0);
	mirror_stop(mirrored.mirror);
	group_wait(&load.group);
	CHECK_EQ(load.lost, WORKERS);
	CHECK_ERR(engine_open(mirrored.engines, "disk", &again), OXE_SHUTDOWN);
	engine_close(e);
	mirror_double_down(NULL);
	cut(false);
	mirror_double_up();
	e = opened();
	load_check(e);
	engine_close(e);
}

/* ---- notes ------------------------------------------------------------------------------------------------------------------- */

WITH_COPIES(a_mirrored_volumes_notes_are_where_its_options_say, 2)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	struct engine *e = opened();
	CHECK_ERR(engine_note_get(e, POOL_NOTE_ACCESS, note, &len_bytes), OXE_NOENT);
	CHECK_OK(engine_note_set(e, POOL_NOTE_ACCESS, "mine", 5));
	CHECK_OK(engine_note_get(e, POOL_NOTE_ACCESS, note, &len_bytes));
	CHECK_EQ(len_bytes, 5);
	CHECK_STR((char *)mirrored.note[POOL_NOTE_ACCESS], "mine");
	engine_close(e);
	memset(note, 0, sizeof(note));
	CHECK_OK(engines_note_get(mirrored.engines, &mirrored.volume, POOL_NOTE_ACCESS, note, &len_bytes));
	CHECK_STR((char *)note, "mine");
	mirrored.notes_err = OXE_NOTREADY;
	CHECK_ERR(engines_note_get(mirrored.engines, &mirrored.volume, POOL_NOTE_ACCESS, note, &len_bytes),
		  OXE_NOTREADY);
	mirrored.notes_err = 0;
}

static void note_read(void *arg)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	CHECK_ERR(engines_note_get(mirrored.engines, &mirrored.volume, POOL_NOTE_USER, note, &len_bytes),
		  OXE_NOENT);
	*(bool *)arg = true;
}

WITH_COPIES(while_a_note_is_read_its_mirror_stays_and_others_are_opened, 2)
{
	struct engine *e;
	bool done = false;
	fiber_spawn_big(mirrored.rt, "reader", note_read, &done);
	fiber_yield();
	CHECK_ERR(engines_remove_mirror(mirrored.engines, &mirrored.volume), OXE_BUSY);
	CHECK_OK(engine_open(mirrored.engines, "disk", &e));
	CHECK(!done);
	engine_close(e);
	while (!done)
		fiber_sleep(NS_PER_MS);
}

/* ---- snapshots --------------------------------------------------------------------------------------------------------------- */

static struct uuid snapshot(const char *name)
{
	struct uuid id = rt_random_uuid(mirrored.rt);
	CHECK_OK(mirror_snapshot(mirrored.mirror, &id, name, NULL));
	return id;
}

static void write_page(struct engine *e, uint64_t page, uint8_t with)
{
	uint8_t data[4096];
	memset(data, with, sizeof(data));
	CHECK_OK(engine_write(e, data, page * 4096, sizeof(data), 0));
}

static void expect_page(struct engine *e, uint64_t page, uint8_t wanted)
{
	uint8_t data[4096];
	CHECK_OK(engine_read(e, data, page * 4096, sizeof(data)));
	CHECK_EQ(data[0], wanted);
	CHECK_EQ(data[4095], wanted);
}

static bool note_snapshot(void *ctx, const char *name)
{
	struct seen *s = ctx;
	s->len += (size_t)snprintf(s->names + s->len, sizeof(s->names) - s->len, "%s ", name);
	return true;
}

WITH_COPIES(a_mirrored_volumes_snapshots_are_served_by_name_and_by_id_and_take_no_writes, 2)
{
	static uint8_t block[4096];
	struct engine *e = opened(), *mon, *by_id;
	struct uuid volume_id, id;
	struct seen s = {.len = 0};
	write_page(e, 1, 1);
	id = snapshot("mon");
	write_page(e, 1, 2);
	snapshot("tue");
	write_page(e, 1, 3);
	CHECK_OK(mirror_grow(mirrored.mirror, 2 * SIZE));
	expect_exports("disk(mirrored) disk@mon(mirrored) disk@tue(mirrored) ");
	engine_snapshot_walk(e, note_snapshot, &s);
	CHECK_STR(s.names, "mon tue ");
	CHECK_OK(engine_open(mirrored.engines, "disk@mon", &mon));
	CHECK_OK(engine_open_id(mirrored.engines, &id, &by_id));
	CHECK(mon == by_id && mon != e);
	CHECK_OK(engine_wait(mon, FOREVER));
	CHECK_STR(engine_name(mon), "disk@mon");
	CHECK_EQ(engine_info(mon)->size_bytes, SIZE);
	CHECK_EQ(engine_info(mon)->lba_bytes, 512);
	CHECK(engine_info(mon)->read_only && engine_is_of_volume(mon, &mirrored.volume));
	CHECK(engines_is_open(mirrored.engines, &id));
	CHECK_OK(engines_volume_of(mirrored.engines, &id, &volume_id));
	CHECK(uuid_equal(&volume_id, &mirrored.volume));
	expect_page(mon, 1, 1);
	expect_page(mon, 2, 0);
	expect_page(e, 1, 3);
	CHECK_ERR(engine_write(mon, block, 0, 4096, 0), OXE_ROFS);
	CHECK_ERR(engine_zero(mon, 0, 4096, 0), OXE_ROFS);
	CHECK_ERR(engine_trim(mon, 0, 4096), OXE_ROFS);
	CHECK_ERR(engine_read(mon, block, SIZE, 4096), OXE_RANGE);
	CHECK_ERR(engine_note_set(mon, POOL_NOTE_ACCESS, "x", 2), OXE_ROFS);
	CHECK_OK(engine_flush(mon));
	CHECK_ERR(engine_open(mirrored.engines, "disk@wed", &by_id), OXE_NOENT);
	CHECK_OK(engines_rename_mirror(mirrored.engines, &mirrored.volume, "tape"));
	CHECK_STR(engine_name(mon), "tape@mon");
	engine_close(mon);
	engine_close(mon);
	engine_close(e);
}

/* Of the first 64 pages, this one is told as changed. */
static void expect_changed(struct engine *e, const char *since, uint64_t page)
{
	struct vol_extent x[16];
	size_t n;
	CHECK_OK(engine_extents(e, since, 0, 64 * 4096, x, ARRAY_COUNT(x), &n));
	for (size_t i = 0; i < n; i++)
		if (x[i].flags & VOL_EXTENT_CHANGED)
			CHECK(x[i].offset_bytes == page * 4096 && x[i].len_bytes == 4096);
		else
			CHECK(page * 4096 < x[i].offset_bytes ||
			      page * 4096 >= x[i].offset_bytes + x[i].len_bytes);
}

WITH_COPIES(what_has_changed_since_a_mirrored_volumes_snapshot_is_told_by_its_name, 2)
{
	struct engine *e = opened(), *tue;
	struct vol_extent x[8];
	size_t n;
	write_page(e, 1, 1);
	snapshot("mon");
	write_page(e, 16, 2);
	snapshot("tue");
	write_page(e, 32, 3);
	expect_changed(e, "tue", 32);
	CHECK_OK(engine_open(mirrored.engines, "disk@tue", &tue));
	expect_changed(tue, "mon", 16);
	CHECK_ERR(engine_extents(e, "wed", 0, 4096, x, 8, &n), OXE_NOENT);
	CHECK_OK(engine_extents(e, NULL, 0, 64 * 4096, x, 8, &n));
	CHECK(n > 1 && (x[0].flags & VOL_EXTENT_HOLE));
	engine_close(tue);
	engine_close(e);
}

WITH_COPIES(a_snapshot_of_a_mirror_that_does_not_serve_yet_may_be_there_later, 2)
{
	struct engine *e;
	CHECK_OK(mirror_wait(mirrored.mirror, FOREVER));
	snapshot("mon");
	mirror_double_down(NULL);
	cut(true);
	mirror_double_up();
	CHECK_ERR(engine_open(mirrored.engines, "disk@mon", &e), OXE_NOTREADY);
	cut(false);
	CHECK_OK(mirror_wait(mirrored.mirror, FOREVER));
	CHECK_OK(engine_open(mirrored.engines, "disk@mon", &e));
	engine_close(e);
	CHECK_ERR(engine_open(mirrored.engines, "disk@tue", &e), OXE_NOENT);
}

WITH_COPIES(a_snapshot_is_read_on_while_a_copy_is_lost_and_its_record_goes_with_it, 2)
{
	struct engine *e = opened(), *mon;
	struct seen s = {.len = 0};
	write_page(e, 1, 1);
	struct uuid id = snapshot("mon");
	CHECK_OK(engine_open(mirrored.engines, "disk@mon", &mon));
	for (unsigned i = 0; i < 2; i++) {
		mirrored.is_cut[i] = true;
		expect_page(mon, 1, 1);
		mirrored.is_cut[i] = false;
		mirror_double_whole();
	}
	engine_close(mon);
	engines_stats_walk(mirrored.engines, note_name, &s);
	CHECK_STR(s.names, "disk 1 disk@mon 0 ");
	CHECK_OK(mirror_layer_delete(mirrored.mirror, &id));
	s.len = 0;
	engines_stats_walk(mirrored.engines, note_name, &s);
	CHECK_STR(s.names, "disk 1 ");
	CHECK_ERR(engine_open(mirrored.engines, "disk@mon", &mon), OXE_NOENT);
	engine_close(e);
}
