/*
 * store_test.c: the pool through its public face, on a memory disk of the host. What crashes do to it is the simulator's
 * affair (src/sim); here are the promises that hold while nothing goes wrong, and the doors.
 */
#include "base/crc32c.h"
#include "base/prng.h"
#include "base/test.h"
#include "data/store/pool.h"
#include "data/store/super_format.h"
#include "host/host.h"

#include <stdio.h>

#define DISK_BYTES (64 * MiB)

static unsigned disk_serial;
static char disk_path[64];

static struct uuid an_id(uint8_t n)
{
	struct uuid id = {{0x0b, 0x0c, n}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	id.b[15] = n;
	return id;
}

static struct rt_disk *disk_again(void)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), disk_path, 0, 0, &disk));
	return disk;
}

static struct rt_disk *disk_new(uint64_t size_bytes)
{
	snprintf(disk_path, sizeof(disk_path), "mem:%llu:store%u", (unsigned long long)size_bytes,
		 disk_serial++);
	return disk_again();
}

static struct pool *pool_on(struct rt_disk *disk)
{
	struct pool *pool;
	struct pool_format_spec spec = {.id = an_id(1), .name = "p"};
	CHECK_OK(pool_format(disk, &spec, false));
	CHECK_OK(pool_open(disk, NULL, &pool));
	return pool;
}

static struct pool *pool_fresh(void)
{
	return pool_on(disk_new(DISK_BYTES));
}

static struct pool *pool_reopen(struct pool *pool)
{
	CHECK_OK(pool_close(pool));
	CHECK_OK(pool_open(disk_again(), NULL, &pool));
	return pool;
}

static void check_clean_fn(void *ctx, const struct pool_problem *p)
{
	(void)ctx;
	fprintf(stderr, "problem: %s\n", p->text);
}

static void check_clean(struct pool *pool)
{
	struct pool_check_result r;
	CHECK_OK(pool_check(pool, check_clean_fn, NULL, &r));
	CHECK_EQ(r.problem_count, 0);
}

static struct uuid make_volume(struct pool *pool, uint8_t n, const char *name, uint64_t size_bytes)
{
	struct volume_spec spec = {.id = an_id(n), .size_bytes = size_bytes};
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	CHECK_OK(volume_create(pool, &spec));
	return spec.id;
}

static struct vol *open_id(struct pool *pool, struct uuid id)
{
	struct vol *v;
	CHECK_OK(vol_open(pool, &id, &v));
	return v;
}

/* Bytes that depend on where they are and on `version`. */
static void pattern(uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	struct prng rng;
	for (uint64_t i = 0; i < len_bytes; i += 512) {
		prng_seed(&rng, (offset_bytes + i) * 1000003 + version);
		prng_fill(&rng, data + i, 512);
	}
}

static void write_pattern(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *data = aligned_alloc(4096, u64_align_up(len_bytes, 4096));
	pattern(data, offset_bytes, len_bytes, version);
	CHECK_OK(vol_write(v, data, offset_bytes, len_bytes, 0));
	free(data);
}

/* version 0: zeroes. */
static void expect(struct vol *v, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *data = aligned_alloc(4096, u64_align_up(len_bytes, 4096));
	uint8_t *wanted = calloc(1, len_bytes);
	if (version)
		pattern(wanted, offset_bytes, len_bytes, version);
	memset(data, 0xee, len_bytes);
	CHECK_OK(vol_read(v, data, offset_bytes, len_bytes));
	for (uint64_t i = 0; i < len_bytes; i++) {
		if (data[i] != wanted[i])
			test_fail(__FILE__, __LINE__, "byte %llu is not version %llu",
				  (unsigned long long)(offset_bytes + i), (unsigned long long)version);
	}
	free(data);
	free(wanted);
}

static void in_fiber(void *arg)
{
	((void (*)(void))arg)();
	host_rt_stop(rt_current());
}

static void run(void (*fn)(void))
{
	struct rt *rt = host_rt_new(&(struct host_options){0});
	fiber_spawn(rt, "test", in_fiber, (void *)fn);
	host_rt_run(rt);
	host_rt_free(rt);
}

#define STORE_TEST(name)                                                                                     \
	static void name##_body(void);                                                                       \
	TEST(name)                                                                                           \
	{                                                                                                    \
		run(name##_body);                                                                            \
	}                                                                                                    \
	static void name##_body(void)

STORE_TEST(what_was_never_written_reads_as_zeroes)
{
	struct pool *pool = pool_fresh();
	struct vol *v = open_id(pool, make_volume(pool, 2, "v", 8 * MiB));
	expect(v, 0, 128 * KiB, 0);
	expect(v, 8 * MiB - 512, 512, 0);
	vol_close(v);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(writes_of_every_size_and_place_come_back_also_after_reopening)
{
	static const struct {
		uint64_t offset_bytes, len_bytes;
	} writes[] = {{0, 4096},
		      {8192, 512},
		      {12288 + 512, 1024},
		      {65536 - 4096, 8192},
		      {131072, 65536},
		      {300 * KiB, 1 * MiB},
		      {2 * MiB + 512, 2 * MiB - 1024},
		      {7 * MiB, 1 * MiB}};
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 8 * MiB);
	for (unsigned round = 1; round <= 3; round++) {
		struct vol *v = open_id(pool, id);
		for (size_t i = 0; i < ARRAY_COUNT(writes); i++)
			write_pattern(v, writes[i].offset_bytes, writes[i].len_bytes, round);
		for (size_t i = 0; i < ARRAY_COUNT(writes); i++)
			expect(v, writes[i].offset_bytes, writes[i].len_bytes, round);
		expect(v, 4096, 4096, 0);
		expect(v, 8192 + 512, 3584, 0);
		vol_close(v);
		check_clean(pool);
		pool = pool_reopen(pool);
		v = open_id(pool, id);
		for (size_t i = 0; i < ARRAY_COUNT(writes); i++)
			expect(v, writes[i].offset_bytes, writes[i].len_bytes, round);
		vol_close(v);
	}
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_snapshot_does_not_change_when_its_volume_does)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s1 = an_id(10), s2 = an_id(11);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 256 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s1, "s1", NULL));
	CHECK_OK(snapshot_create(pool, &id, &s1, "s1", NULL)); /* twice is once */
	write_pattern(v, 4096, 4096, 2);
	CHECK_OK(vol_trim(v, 64 * KiB, 64 * KiB));
	CHECK_OK(snapshot_create(pool, &id, &s2, "s2", NULL));
	write_pattern(v, 4096 + 512, 512, 3);
	struct vol *snap1 = open_id(pool, s1), *snap2 = open_id(pool, s2);
	expect(snap1, 0, 256 * KiB, 1);
	expect(snap2, 4096, 4096, 2);
	expect(snap2, 64 * KiB, 64 * KiB, 0);
	expect(snap2, 128 * KiB, 64 * KiB, 1);
	expect(v, 4096, 512, 2);
	expect(v, 4096 + 512, 512, 3);
	expect(v, 64 * KiB, 64 * KiB, 0);
	CHECK_ERR(vol_write(snap1, "", 0, 0, 0), OXE_ROFS);
	vol_close(snap1);
	vol_close(snap2);
	vol_close(v);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(deleting_snapshots_merges_them_and_gives_space_back)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 8 * MiB);
	struct vol *v = open_id(pool, id);
	struct pool_stats before, after;
	write_pattern(v, 0, 1 * MiB, 1);
	for (uint8_t i = 0; i < 5; i++) {
		struct uuid s = an_id((uint8_t)(20 + i));
		char name[16];
		snprintf(name, sizeof(name), "s%u", i);
		CHECK_OK(snapshot_create(pool, &id, &s, name, NULL));
		write_pattern(v, i * 8192, 4096, 10 + i);
		write_pattern(v, 512 * KiB + i * 64 * KiB, 60 * KiB, 10 + i);
		CHECK_OK(vol_zero(v, 256 * KiB + i * 4096, 4096, 0));
	}
	pool_stats(pool, &before);
	for (uint8_t i = 0; i < 5; i += 2) {
		struct uuid s = an_id((uint8_t)(20 + i));
		CHECK_OK(snapshot_delete(pool, &s));
	}
	CHECK_OK(pool_jobs_wait(pool));
	struct uuid s1 = an_id(21), s3 = an_id(23);
	struct vol *snap = open_id(pool, s1);
	expect(snap, 0, 4096, 10);
	expect(snap, 8192, 4096, 1);
	expect(snap, 256 * KiB, 4096, 0);
	expect(snap, 260 * KiB, 4096, 1);
	vol_close(snap);
	CHECK_OK(snapshot_delete(pool, &s1));
	CHECK_OK(snapshot_delete(pool, &s3));
	CHECK_OK(pool_jobs_wait(pool));
	for (uint8_t i = 0; i < 5; i++) {
		expect(v, i * 8192u, 4096, 10u + i);
		expect(v, i * 8192u + 4096, 4096, 1);
		expect(v, 512 * KiB + i * 64 * KiB, 60 * KiB, 10u + i);
		expect(v, 512 * KiB + i * 64 * KiB + 60 * KiB, 4096, 1);
		expect(v, 256 * KiB + i * 4096u, 4096, 0);
	}
	check_clean(pool);
	pool_stats(pool, &after);
	CHECK(after.data_bytes < before.data_bytes);
	CHECK_EQ(after.data_bytes, 1 * MiB);
	CHECK_EQ(after.layer_count, 1);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

#define CHAIN	       40u
#define CHAIN_CLUSTERS 64u

/* A volume of which the oldest snapshot holds CHAIN_CLUSTERS clusters and each later one another. */
static struct uuid chain_make(struct pool *pool)
{
	struct uuid id = make_volume(pool, 2, "v", 8 * MiB);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, CHAIN_CLUSTERS * 64 * KiB, 1);
	for (uint8_t i = 0; i < CHAIN; i++) {
		struct uuid s = an_id((uint8_t)(20 + i));
		char name[16];
		snprintf(name, sizeof(name), "s%u", i);
		CHECK_OK(snapshot_create(pool, &id, &s, name, NULL));
		write_pattern(v, i * 64 * KiB, 4096, 10u + i);
	}
	vol_close(v);
	return id;
}

static uint64_t records_written(struct pool *pool)
{
	struct pool_stats stats;
	pool_stats(pool, &stats);
	return stats.journal_records_written;
}

STORE_TEST(a_deleted_volume_s_data_is_given_back_where_it_is_and_not_moved_through_its_snapshots)
{
	struct pool *pool = pool_fresh();
	struct uuid id = chain_make(pool);
	uint64_t before = records_written(pool);
	CHECK_OK(volume_delete(pool, &id));
	CHECK_OK(pool_jobs_wait(pool));
	CHECK(records_written(pool) - before < 4 * CHAIN);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_clone_starts_equal_goes_its_own_way_and_outlives_its_origin)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s = an_id(10);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 512 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	struct volume_spec linked = {.id = an_id(30), .name = "linked"},
			   full = {.id = an_id(31), .name = "full"};
	CHECK_OK(volume_clone(pool, &linked, &s, false));
	CHECK_OK(volume_clone(pool, &full, &s, true));
	struct vol *a = open_id(pool, linked.id), *b = open_id(pool, full.id);
	write_pattern(a, 0, 8192, 2);
	write_pattern(v, 0, 8192, 3);
	expect(a, 0, 8192, 2);
	expect(a, 8192, 504 * KiB, 1);
	CHECK_OK(pool_jobs_wait(pool));
	expect(b, 0, 512 * KiB, 1);
	struct volume_info info;
	CHECK_OK(volume_get(pool, &full.id, &info));
	CHECK(!info.is_clone && !info.is_flattening);
	CHECK_OK(volume_get(pool, &linked.id, &info));
	CHECK(info.is_clone);
	vol_close(v);
	CHECK_OK(volume_delete(pool, &id));
	CHECK_OK(pool_jobs_wait(pool));
	expect(a, 0, 8192, 2);
	expect(a, 8192, 504 * KiB, 1);
	expect(b, 0, 512 * KiB, 1);
	check_clean(pool);
	vol_close(a);
	vol_close(b);
	pool = pool_reopen(pool);
	a = open_id(pool, linked.id);
	expect(a, 0, 8192, 2);
	expect(a, 8192, 504 * KiB, 1);
	vol_close(a);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_job_that_waited_for_a_low_rate_goes_on_at_once_when_it_is_raised)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s = an_id(10);
	struct volume_spec full = {.id = an_id(31), .name = "full"};
	struct volume_info info;
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 512 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	pool_set_background_rate(pool, 1); /* after one cluster: 18 hours of waiting */
	CHECK_OK(volume_clone(pool, &full, &s, true));
	for (info.own_bytes = 0; info.own_bytes == 0; fiber_yield())
		CHECK_OK(volume_get(pool, &full.id, &info));
	CHECK_EQ(info.own_bytes, 64 * KiB);
	pool_set_background_rate(pool, 1 * GiB);
	CHECK_OK(pool_jobs_wait(pool));
	CHECK_OK(volume_get(pool, &full.id, &info));
	CHECK_EQ(info.own_bytes, 512 * KiB);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_revert_goes_back_once_even_if_asked_twice)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s = an_id(10), head = an_id(40);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 64 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	write_pattern(v, 0, 64 * KiB, 2);
	CHECK_ERR(volume_revert(pool, &id, &s, &head), OXE_BUSY);
	vol_close(v);
	CHECK_OK(volume_grow(pool, &id, 8 * MiB));
	CHECK_OK(volume_revert(pool, &id, &s, &head));
	v = open_id(pool, id);
	CHECK_EQ(vol_info(v)->size_bytes, 4 * MiB);
	expect(v, 0, 64 * KiB, 1);
	write_pattern(v, 0, 64 * KiB, 3);
	CHECK_OK(volume_revert(pool, &id, &s, &head));
	expect(v, 0, 64 * KiB, 3);
	vol_close(v);
	CHECK_OK(pool_jobs_wait(pool));
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(creating_twice_is_creating_once_and_another_thing_is_refused)
{
	struct pool *pool = pool_fresh();
	struct volume_spec spec = {.id = an_id(2), .name = "v", .size_bytes = MiB};
	CHECK_OK(volume_create(pool, &spec));
	CHECK_OK(volume_create(pool, &spec));
	spec.size_bytes = 2 * MiB;
	CHECK_ERR(volume_create(pool, &spec), OXE_EXISTS);
	spec.id = an_id(3);
	CHECK_ERR(volume_create(pool, &spec), OXE_EXISTS);
	snprintf(spec.name, sizeof(spec.name), "../etc");
	CHECK_ERR(volume_create(pool, &spec), OXE_INVAL);
	snprintf(spec.name, sizeof(spec.name), "w");
	spec.size_bytes = 4097;
	CHECK_ERR(volume_create(pool, &spec), OXE_INVAL);
	struct uuid nobody = an_id(99);
	CHECK_OK(volume_delete(pool, &nobody));
	CHECK_OK(snapshot_delete(pool, &nobody));
	CHECK_ERR(volume_grow(pool, &nobody, MiB), OXE_NOENT);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(requests_outside_the_volume_or_off_its_sectors_are_refused)
{
	static _Alignas(4096) uint8_t data[8192];
	struct pool *pool = pool_fresh();
	struct vol *v = open_id(pool, make_volume(pool, 2, "v", MiB));
	CHECK_ERR(vol_read(v, data, MiB, 512), OXE_RANGE);
	CHECK_ERR(vol_read(v, data, UINT64_MAX - 511, 512), OXE_RANGE);
	CHECK_ERR(vol_write(v, data, MiB - 512, 1024, 0), OXE_RANGE);
	CHECK_ERR(vol_write(v, data, 100, 512, 0), OXE_ALIGN);
	CHECK_ERR(vol_zero(v, 0, 513, 0), OXE_ALIGN);
	CHECK_OK(vol_read(v, data, MiB, 0));
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_full_pool_says_so_loses_nothing_and_recovers_when_trimmed)
{
	struct pool *pool = pool_on(disk_new(16 * MiB));
	struct vol *v = open_id(pool, make_volume(pool, 2, "v", 64 * MiB));
	static _Alignas(4096) uint8_t data[65536];
	uint64_t written = 0;
	for (;; written += sizeof(data)) {
		pattern(data, written, sizeof(data), 1);
		int err = vol_write(v, data, written, sizeof(data), 0);
		if (err) {
			CHECK_ERR(err, OXE_NOSPC);
			break;
		}
	}
	CHECK(written > 8 * MiB);
	CHECK_OK(vol_flush(v));
	check_clean(pool);
	expect(v, 0, written, 1);
	CHECK_OK(vol_trim(v, 0, 4 * MiB));
	write_pattern(v, 32 * MiB, 3 * MiB, 2);
	expect(v, 0, 4 * MiB, 0);
	expect(v, 4 * MiB, written - 4 * MiB, 1);
	expect(v, 32 * MiB, 3 * MiB, 2);
	check_clean(pool);
	vol_close(v);
	pool = pool_reopen(pool);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(formatting_refuses_another_pool_and_repeats_its_own)
{
	struct pool *pool = pool_fresh();
	CHECK_OK(pool_close(pool));
	struct rt_disk *disk = disk_again();
	struct pool_format_spec same = {.id = an_id(1), .name = "p"}, other = {.id = an_id(9), .name = "q"};
	struct pool_ident ident;
	CHECK_OK(pool_format(disk, &same, false));
	CHECK_ERR(pool_format(disk, &other, false), OXE_OCCUPIED);
	CHECK_OK(pool_identify(disk, &ident));
	CHECK(uuid_equal(&ident.id, &same.id));
	CHECK(ident.generation > 1);
	CHECK_OK(pool_format(disk, &other, true));
	CHECK_OK(pool_identify(disk, &ident));
	CHECK(uuid_equal(&ident.id, &other.id));
	rt_disk_close(disk);
}

STORE_TEST(extents_tell_holes_from_data_and_what_changed_since_a_snapshot)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 1024 * MiB), s = an_id(10);
	struct vol *v = open_id(pool, id);
	struct vol_extent e[8];
	size_t n;
	write_pattern(v, 1 * MiB, 128 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	write_pattern(v, 1 * MiB + 4096, 4096, 2);
	CHECK_OK(vol_extents(v, NULL, 0, 1024 * MiB, e, 8, &n));
	CHECK_EQ(n, 3);
	CHECK_EQ(e[0].len_bytes, 1 * MiB);
	CHECK_EQ(e[0].flags, VOL_EXTENT_HOLE | VOL_EXTENT_ZERO);
	CHECK_EQ(e[1].len_bytes, 128 * KiB);
	CHECK_EQ(e[1].flags, 0);
	CHECK_EQ(e[2].offset_bytes + e[2].len_bytes, 1024 * MiB);
	CHECK_OK(vol_extents(v, &s, 1 * MiB, 128 * KiB, e, 8, &n));
	CHECK_EQ(n, 3);
	CHECK_EQ(e[1].offset_bytes, 1 * MiB + 4096);
	CHECK_EQ(e[1].len_bytes, 4096);
	CHECK_EQ(e[1].flags, VOL_EXTENT_CHANGED);
	CHECK_OK(vol_extents(v, &s, 1 * MiB, 128 * KiB, e, 2, &n));
	CHECK_EQ(n, 2);
	CHECK_ERR(vol_extents(v, &id, 0, MiB, e, 8, &n), OXE_NOENT);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(usage_of_snapshots_says_what_deleting_would_free)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s1 = an_id(10), s2 = an_id(11);
	struct snapshot_usage u;
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 128 * KiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s1, "s1", NULL));
	write_pattern(v, 0, 64 * KiB, 2);
	CHECK_OK(snapshot_create(pool, &id, &s2, "s2", NULL));
	write_pattern(v, 0, 4 * KiB, 3);
	CHECK_OK(snapshot_usage(pool, &s1, &u));
	CHECK_EQ(u.referenced_bytes, 128 * KiB);
	CHECK_EQ(u.exclusive_bytes, 64 * KiB);
	CHECK_OK(snapshot_usage(pool, &s2, &u));
	CHECK_EQ(u.referenced_bytes, 128 * KiB);
	CHECK_EQ(u.exclusive_bytes, 4 * KiB);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_pool_grows_and_uses_the_new_space)
{
	struct pool *pool = pool_fresh();
	struct pool_stats before, after;
	pool_stats(pool, &before);
	CHECK_OK(pool_grow(pool)); /* nothing new: nothing happens */
	pool_stats(pool, &after);
	CHECK_EQ(before.total_bytes, after.total_bytes);
	CHECK_EQ(after.total_bytes,
		 after.data_bytes + after.metadata_bytes + after.journal_bytes + after.free_bytes);
	CHECK_OK(pool_close(pool));
}

/* ---- notes ---- */

static void note_expect(struct pool *pool, struct uuid id, enum pool_note_kind kind, const char *wanted)
{
	char data[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes = 0;
	int err = pool_note_get(pool, &id, kind, data, &len_bytes);
	if (!wanted) {
		CHECK_ERR(err, OXE_NOENT);
		return;
	}
	CHECK_OK(err);
	CHECK_EQ(len_bytes, strlen(wanted));
	CHECK(memcmp(data, wanted, len_bytes) == 0);
}

static void note_put(struct pool *pool, struct uuid id, enum pool_note_kind kind, const char *text)
{
	CHECK_OK(pool_note_set(pool, &id, kind, text, (uint32_t)strlen(text)));
}

STORE_TEST(a_note_stays_with_its_volume_whatever_is_done_to_that_and_goes_with_it)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s = an_id(10), head = an_id(40);
	note_put(pool, id, POOL_NOTE_USER, "one");
	note_put(pool, id, POOL_NOTE_ACCESS, "who");
	note_put(pool, id, POOL_NOTE_USER, "two, which is longer");
	note_put(pool, id, POOL_NOTE_USER, "two, which is longer");
	CHECK_OK(volume_rename(pool, &id, "w"));
	CHECK_OK(volume_grow(pool, &id, 8 * MiB));
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	struct volume_spec clone = {.id = an_id(30), .name = "clone"};
	CHECK_OK(volume_clone(pool, &clone, &s, false));
	CHECK_OK(volume_revert(pool, &id, &s, &head));
	for (unsigned round = 0; round < 2; round++) {
		note_expect(pool, id, POOL_NOTE_USER, "two, which is longer");
		note_expect(pool, id, POOL_NOTE_ACCESS, "who");
		note_expect(pool, id, POOL_NOTE_RESERVATION, NULL);
		note_expect(pool, clone.id, POOL_NOTE_USER, NULL);
		check_clean(pool);
		pool = pool_reopen(pool);
	}
	CHECK_OK(pool_note_set(pool, &id, POOL_NOTE_USER, NULL, 0));
	CHECK_OK(pool_note_set(pool, &id, POOL_NOTE_USER, NULL, 0));
	note_expect(pool, id, POOL_NOTE_USER, NULL);
	pool = pool_reopen(pool);
	note_expect(pool, id, POOL_NOTE_ACCESS, "who");
	CHECK_OK(volume_delete(pool, &id));
	note_expect(pool, id, POOL_NOTE_ACCESS, NULL);
	CHECK_OK(pool_jobs_wait(pool));
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_note_that_is_too_long_of_no_kind_or_of_no_volume_is_refused)
{
	static uint8_t data[POOL_NOTE_BYTES_MAX + 1], back[POOL_NOTE_BYTES_MAX];
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", MiB), nobody = an_id(99);
	uint32_t len_bytes;
	memset(data, 0x5a, sizeof(data));
	CHECK_OK(pool_note_set(pool, &id, POOL_NOTE_REPLICA, data, POOL_NOTE_BYTES_MAX));
	CHECK_ERR(pool_note_set(pool, &id, POOL_NOTE_REPLICA, data, POOL_NOTE_BYTES_MAX + 1), OXE_INVAL);
	CHECK_ERR(pool_note_set(pool, &id, POOL_NOTE_KINDS, data, 1), OXE_INVAL);
	CHECK_ERR(pool_note_get(pool, &id, POOL_NOTE_KINDS, back, &len_bytes), OXE_INVAL);
	CHECK_ERR(pool_note_set(pool, &nobody, POOL_NOTE_USER, data, 1), OXE_NOENT);
	CHECK_ERR(pool_note_get(pool, &nobody, POOL_NOTE_USER, back, &len_bytes), OXE_NOENT);
	CHECK_OK(pool_note_get(pool, &id, POOL_NOTE_REPLICA, back, &len_bytes));
	CHECK_EQ(len_bytes, POOL_NOTE_BYTES_MAX);
	CHECK(memcmp(back, data, len_bytes) == 0);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(many_large_notes_fill_the_journal_and_are_all_there)
{
	static uint8_t data[POOL_NOTE_BYTES_MAX], back[POOL_NOTE_BYTES_MAX];
	struct pool *pool = pool_on(disk_new(16 * MiB)); /* a journal of 64 blocks */
	struct uuid ids[20];
	uint32_t len_bytes;
	for (unsigned i = 0; i < 20; i++) {
		char name[8];
		snprintf(name, sizeof(name), "v%u", i);
		ids[i] = make_volume(pool, (uint8_t)(20 + i), name, MiB);
	}
	for (unsigned i = 0; i < 400; i++) {
		memset(data, (int)(i / 20), sizeof(data));
		CHECK_OK(pool_note_set(pool, &ids[i % 20], (enum pool_note_kind)(i % 4), data,
				       POOL_NOTE_BYTES_MAX - i));
	}
	pool = pool_reopen(pool);
	for (unsigned i = 380; i < 400; i++) {
		CHECK_OK(pool_note_get(pool, &ids[i % 20], (enum pool_note_kind)(i % 4), back, &len_bytes));
		CHECK_EQ(len_bytes, POOL_NOTE_BYTES_MAX - i);
		memset(data, (int)(i / 20), sizeof(data));
		CHECK(memcmp(back, data, len_bytes) == 0);
	}
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

/* ---- older formats ---- */

static void super_set_version(struct rt_disk *disk, unsigned slot, uint32_t version)
{
	uint8_t *image = aligned_alloc(4096, SUPER_BYTES);
	struct super_disk *s = (void *)image;
	CHECK_OK(rt_disk_read(disk, image, SUPER_BYTES, (uint64_t)slot * SUPER_SLOT_BYTES));
	s->version = le32_of(version);
	s->crc = le32_of(crc32c_around(image, SUPER_BYTES, offsetof(struct super_disk, crc)));
	CHECK_OK(rt_disk_write(disk, image, SUPER_BYTES, (uint64_t)slot * SUPER_SLOT_BYTES, 0));
	free(image);
}

static uint32_t super_version(struct rt_disk *disk, unsigned slot)
{
	uint8_t *image = aligned_alloc(4096, SUPER_BYTES);
	CHECK_OK(rt_disk_read(disk, image, SUPER_BYTES, (uint64_t)slot * SUPER_SLOT_BYTES));
	uint32_t version = le32_get(((struct super_disk *)image)->version);
	free(image);
	return version;
}

STORE_TEST(a_pool_of_the_first_format_opens_and_both_its_superblocks_are_of_the_newest_then)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 256 * KiB, 1);
	vol_close(v);
	CHECK_OK(pool_close(pool));
	struct rt_disk *disk = disk_again();
	super_set_version(disk, 0, 1);
	super_set_version(disk, 1, 1);
	rt_disk_close(disk);
	CHECK_OK(pool_open(disk_again(), NULL, &pool));
	CHECK_EQ(pool_ident(pool)->format_version, SUPER_FORMAT_VERSION);
	struct pool_stats stats;
	pool_stats(pool, &stats);
	CHECK_EQ(stats.checkpoints, 2); /* before anybody could make a record */
	v = open_id(pool, id);
	expect(v, 0, 256 * KiB, 1);
	vol_close(v);
	note_put(pool, id, POOL_NOTE_USER, "new");
	check_clean(pool);
	CHECK_OK(pool_close(pool));
	disk = disk_again();
	CHECK_EQ(super_version(disk, 0), SUPER_FORMAT_VERSION);
	CHECK_EQ(super_version(disk, 1), SUPER_FORMAT_VERSION);
	rt_disk_close(disk);
}

STORE_TEST(a_pool_with_one_superblock_of_a_newer_format_is_left_alone)
{
	struct pool *pool = pool_fresh();
	CHECK_OK(pool_close(pool));
	for (unsigned slot = 0; slot < 2; slot++) {
		struct rt_disk *disk = disk_again();
		super_set_version(disk, slot, SUPER_FORMAT_VERSION + 1);
		rt_disk_close(disk);
		CHECK_ERR(pool_open(disk_again(), NULL, &pool), OXE_VERSION);
		disk = disk_again();
		super_set_version(disk, slot, SUPER_FORMAT_VERSION);
		rt_disk_close(disk);
	}
	CHECK_OK(pool_open(disk_again(), NULL, &pool));
	CHECK_OK(pool_close(pool));
}

/* ---- large things ---- */

static const uint64_t far_places[] = {0,       15 * MiB, 4 * GiB - 64 * KiB,
				      5 * GiB, 1 * TiB,	 10 * TiB - 128 * KiB};

static void write_far(struct vol *v, uint64_t version)
{
	for (size_t i = 0; i < ARRAY_COUNT(far_places); i++)
		write_pattern(v, far_places[i], 128 * KiB, version);
}

static void expect_far(struct vol *v, uint64_t version)
{
	for (size_t i = 0; i < ARRAY_COUNT(far_places); i++)
		expect(v, far_places[i], 128 * KiB, version);
}

STORE_TEST(a_volume_of_ten_tebibytes_in_a_pool_of_eight_gibibytes_is_as_good_as_a_small_one)
{
	struct pool *pool = pool_on(disk_new(8 * GiB)); /* several bitmap leaves, maps three levels high */
	struct uuid id = make_volume(pool, 2, "v", 10 * TiB), s = an_id(10);
	struct vol_extent extents[16];
	size_t count;
	struct vol *v = open_id(pool, id);
	write_far(v, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	write_far(v, 2);
	CHECK_OK(vol_extents(v, NULL, 0, 10 * TiB, extents, 16, &count));
	CHECK_EQ(count, 2 * ARRAY_COUNT(far_places) - 1);
	check_clean(pool);
	vol_close(v);
	pool = pool_reopen(pool);
	check_clean(pool);
	v = open_id(pool, id);
	expect_far(v, 2);
	CHECK_OK(vol_trim(v, 0, 10 * TiB));
	expect_far(v, 0);
	vol_close(v);
	v = open_id(pool, s);
	expect_far(v, 1);
	vol_close(v);
	CHECK_OK(snapshot_delete(pool, &s));
	CHECK_OK(pool_jobs_wait(pool));
	struct pool_stats stats;
	pool_stats(pool, &stats);
	CHECK_EQ(stats.data_bytes, 0);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_volume_that_grows_keeps_its_data_while_its_map_grows_higher)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 64 * KiB);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 64 * KiB, 1);
	for (uint64_t size_bytes = 16 * MiB; size_bytes <= VOLUME_SIZE_MAX; size_bytes *= 16) {
		CHECK_OK(volume_grow(pool, &id, size_bytes));
		CHECK_EQ(vol_info(v)->size_bytes, size_bytes);
		write_pattern(v, size_bytes - 4096, 4096, 2);
		expect(v, 0, 64 * KiB, 1);
		expect(v, size_bytes - 4096, 4096, 2);
		CHECK_OK(pool_checkpoint(pool));
	}
	CHECK_ERR(volume_grow(pool, &id, VOLUME_SIZE_MAX + 4096), OXE_INVAL);
	CHECK_ERR(volume_grow(pool, &id, 64 * KiB), OXE_INVAL);
	check_clean(pool);
	vol_close(v);
	pool = pool_reopen(pool);
	v = open_id(pool, id);
	expect(v, 0, 64 * KiB, 1);
	expect(v, 16 * MiB - 4096, 4096, 2);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_thousand_snapshots_of_a_thousand_volumes_open_again)
{
	struct pool *pool = pool_on(disk_new(1 * GiB));
	struct uuid chain = make_volume(pool, 2, "chain", 4 * MiB);
	struct vol *v = open_id(pool, chain);
	for (unsigned i = 0; i < 1000; i++) {
		struct uuid s = an_id(3), id = an_id(4);
		char name[32];
		memcpy(s.b + 2, &i, sizeof(i));
		memcpy(id.b + 2, &i, sizeof(i));
		snprintf(name, sizeof(name), "s%u", i);
		write_pattern(v, i % 512 * 8192, 4096, i + 1);
		CHECK_OK(snapshot_create(pool, &chain, &s, name, NULL));
		struct volume_spec spec = {.id = id, .size_bytes = MiB};
		snprintf(spec.name, sizeof(spec.name), "v%u", i);
		CHECK_OK(volume_create(pool, &spec));
	}
	vol_close(v);
	pool = pool_reopen(pool);
	v = open_id(pool, chain);
	for (unsigned i = 488; i < 1000; i++)
		expect(v, i % 512 * 8192, 4096, i + 1);
	vol_close(v);
	check_clean(pool);
	CHECK_OK(volume_delete(pool, &chain));
	CHECK_OK(pool_jobs_wait(pool));
	check_clean(pool);
	struct pool_stats stats;
	pool_stats(pool, &stats);
	CHECK_EQ(stats.volume_count, 1000);
	CHECK_EQ(stats.data_bytes, 0);
	CHECK_OK(pool_close(pool));
}

/* ---- damage ---- */

static bool is_metadata(struct rt_disk *disk, uint64_t page, uint8_t *image)
{
	struct uuid id = an_id(1);
	CHECK_OK(rt_disk_read(disk, image, 4096, page * 4096));
	return memcmp(image + 40, &id, 16) == 0 || memcmp(image + 8, &id, 16) == 0 ||
	       memcmp(image, "OXBOWSB1", 8) == 0;
}

static void flip(struct rt_disk *disk, uint64_t page, uint64_t bit, uint8_t *image)
{
	CHECK_OK(rt_disk_read(disk, image, 4096, page * 4096));
	image[bit / 8] ^= (uint8_t)(1u << bit % 8);
	CHECK_OK(rt_disk_write(disk, image, 4096, page * 4096, 0));
}

/* Everything must read as written, or not at all. Returns how many reads failed. */
static unsigned read_damaged(struct pool *pool, const struct uuid *id, uint64_t version)
{
	static _Alignas(4096) uint8_t data[65536], wanted[65536];
	struct vol *v;
	unsigned failed = 0;
	if (vol_open(pool, id, &v))
		return 1;
	for (uint64_t at = 0; at < 2 * MiB; at += sizeof(data)) {
		int err = vol_read(v, data, at, sizeof(data));
		pattern(wanted, at, sizeof(wanted), version);
		if (err)
			CHECK_ERR(err, OXE_CORRUPT);
		else
			CHECK(memcmp(data, wanted, sizeof(data)) == 0);
		failed += err != 0;
	}
	vol_close(v);
	return failed;
}

/* Returns whether anything noticed. */
static bool open_damaged(const struct uuid *volume, const struct uuid *snapshot)
{
	struct pool_options options = {.read_only = true};
	struct pool *pool;
	int err = pool_open(disk_again(), &options, &pool);
	if (err)
		return true;
	unsigned failed = read_damaged(pool, volume, 2) + read_damaged(pool, snapshot, 1);
	CHECK_OK(pool_close(pool));
	return failed > 0;
}

STORE_TEST(a_flipped_bit_of_metadata_is_an_error_or_harmless_and_never_other_bytes)
{
	struct pool *pool = pool_on(disk_new(16 * MiB));
	struct uuid id = make_volume(pool, 2, "v", 4 * MiB), s = an_id(10);
	uint8_t *image = aligned_alloc(4096, 4096);
	struct prng rng;
	unsigned pages = 0, noticed = 0;
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 2 * MiB, 1);
	CHECK_OK(snapshot_create(pool, &id, &s, "s", NULL));
	CHECK_OK(pool_checkpoint(pool));
	write_pattern(v, 0, 2 * MiB, 2);
	vol_close(v);
	CHECK_OK(pool_checkpoint(pool)); /* so that the checkpoint before the last knows no better */
	CHECK_OK(pool_close(pool));
	prng_seed(&rng, 5);
	for (uint64_t page = 0; page < 16 * MiB / 4096; page++) {
		struct rt_disk *disk = disk_again();
		uint64_t bit = prng_below(&rng, 4096 * 8);
		bool metadata = is_metadata(disk, page, image);
		if (metadata)
			flip(disk, page, bit, image);
		rt_disk_close(disk);
		if (!metadata)
			continue;
		pages++;
		noticed += open_damaged(&id, &s);
		disk = disk_again();
		flip(disk, page, bit, image);
		rt_disk_close(disk);
	}
	printf("   %u metadata pages damaged, one at a time; %u noticed\n", pages, noticed);
	CHECK(pages > 12 && noticed >= 3 && noticed < pages);
	CHECK(!open_damaged(&id, &s));
	free(image);
}

struct watch {
	struct pool *pool;
	struct rt_group ended;
	uint64_t seen, last, total;
	bool over;
};

static void watch_check(void *arg)
{
	struct watch *w = arg;
	struct pool_stats s;
	for (; !w->over; fiber_yield()) {
		pool_stats(w->pool, &s);
		if (!s.check_pages_total) /* not begun, or ended */
			continue;
		CHECK(s.check_pages_read <= s.check_pages_total && s.check_pages_read >= w->last);
		w->seen += s.check_pages_read > w->last;
		w->last = s.check_pages_read;
		w->total = u64_max(w->total, s.check_pages_total);
	}
	group_done(&w->ended);
}

STORE_TEST(a_check_lets_others_run_and_tells_them_how_far_it_is)
{
	struct pool *pool = pool_fresh();
	struct pool_check_result r;
	struct watch w = {.pool = pool};
	for (unsigned n = 0; n < 200; n++) { /* a map each */
		char name[8];
		snprintf(name, sizeof(name), "v%u", n);
		struct uuid id = make_volume(pool, (uint8_t)n, name, MiB);
		struct vol *v = open_id(pool, id);
		write_pattern(v, 0, 4096, 1);
		vol_close(v);
	}
	group_init(&w.ended);
	group_add(&w.ended, 1);
	fiber_spawn(rt_current(), "watch", watch_check, &w);
	CHECK_OK(pool_check(pool, NULL, NULL, &r));
	w.over = true;
	group_wait(&w.ended);
	CHECK_EQ(r.problem_count, 0);
	CHECK_EQ(w.total, r.pages_read);
	CHECK(w.seen >= 4);
	CHECK_OK(pool_close(pool));
}

/* ---- many things at once ---- */

struct hammer {
	struct vol *vol;
	uint64_t seed, base_bytes;
	struct rt_group *group;
	uint64_t versions[256]; /* of 4 KiB blocks from base_bytes */
};

static void hammer_fiber(void *arg)
{
	struct hammer *h = arg;
	struct prng rng;
	prng_seed(&rng, h->seed);
	for (unsigned i = 1; i <= 400; i++) {
		uint64_t block = prng_below(&rng, 256),
			 count = 1 + prng_below(&rng, u64_min(40, 256 - block));
		uint64_t offset_bytes = h->base_bytes + block * 4096, kind = prng_below(&rng, 8);
		if (kind == 0)
			CHECK_OK(vol_trim(h->vol, offset_bytes, count * 4096));
		else if (kind == 1)
			CHECK_OK(vol_flush(h->vol));
		else if (kind < 6)
			write_pattern(h->vol, offset_bytes, count * 4096, h->seed * 1000 + i);
		for (uint64_t k = 0; k < count; k++) {
			if (kind == 0)
				h->versions[block + k] = 0;
			else if (kind >= 2 && kind < 6)
				h->versions[block + k] = h->seed * 1000 + i;
			expect(h->vol, offset_bytes + k * 4096, 4096, h->versions[block + k]);
		}
	}
	group_done(h->group);
}

STORE_TEST(many_writers_snapshots_and_merges_at_once_keep_every_block)
{
	struct pool *pool = pool_on(disk_new(256 * MiB));
	struct uuid id = make_volume(pool, 2, "v", 32 * MiB);
	struct vol *v = open_id(pool, id);
	struct rt_group group;
	static struct hammer hammers[8];
	memset(hammers, 0, sizeof(hammers));
	group_init(&group);
	for (unsigned i = 0; i < 8; i++) {
		hammers[i] = (struct hammer){.vol = v, .seed = i + 1, .base_bytes = i * MiB, .group = &group};
		group_add(&group, 1);
		fiber_spawn(rt_current(), "hammer", hammer_fiber, &hammers[i]);
	}
	for (unsigned i = 0; group.pending > 0; i++) {
		struct uuid s = an_id(100), old = s;
		char name[16];
		memcpy(s.b + 2, &i, sizeof(i));
		memcpy(old.b + 2, &(unsigned){i - 3}, sizeof(i));
		snprintf(name, sizeof(name), "s%u", i);
		CHECK_OK(snapshot_create(pool, &id, &s, name, NULL));
		CHECK_OK(snapshot_delete(pool, &old));
		if (i % 8 == 0)
			CHECK_OK(pool_checkpoint(pool));
		fiber_sleep(NS_PER_MS);
	}
	group_wait(&group);
	check_clean(pool);
	vol_close(v);
	pool = pool_reopen(pool);
	CHECK_OK(pool_jobs_wait(pool));
	check_clean(pool);
	v = open_id(pool, id);
	for (unsigned i = 0; i < 8; i++) {
		for (unsigned b = 0; b < 256; b++)
			expect(v, hammers[i].base_bytes + b * 4096, 4096, hammers[i].versions[b]);
	}
	vol_close(v);
	CHECK_OK(pool_close(pool));
}

/* ---- what copies of a volume need --------------------------------------------------------------------------------------- */

static bool count_snapshot(void *ctx, const struct snapshot_info *s)
{
	++*(unsigned *)ctx;
	return s != NULL;
}

static bool chain_text(void *ctx, const struct layer_info *l)
{
	char *text = ctx;
	size_t used = strlen(text);
	snprintf(text + used, 256 - used, "%s%s%s", used ? " " : "", l->name, l->is_origins ? "*" : "");
	return true;
}

static void expect_chain(struct pool *pool, uint8_t volume, const char *wanted)
{
	char text[256] = "";
	struct uuid id = an_id(volume);
	CHECK_OK(volume_chain(pool, &id, chain_text, text));
	CHECK(strcmp(text, wanted) == 0);
}

STORE_TEST(a_layer_with_a_name_of_the_systems_is_there_and_no_user_sees_or_makes_one)
{
	struct pool *pool = pool_fresh();
	struct pool_stats stats;
	struct volume_info volume;
	struct snapshot_info info;
	unsigned count = 0;
	struct uuid id = make_volume(pool, 2, "v", MiB), user = an_id(3), system = an_id(4), other = an_id(5);
	CHECK_OK(snapshot_create(pool, &id, &user, "s", NULL));
	CHECK_ERR(snapshot_create(pool, &id, &system, "~e-1", NULL), OXE_INVAL);
	CHECK_ERR(layer_seal(pool, &id, &system, "~", NULL), OXE_INVAL);
	CHECK_ERR(layer_seal(pool, &id, &system, "~~a", NULL), OXE_INVAL);
	CHECK_OK(layer_seal(pool, &id, &system, "~e-1", NULL));
	CHECK_OK(layer_seal(pool, &id, &system, "~e-1", NULL));
	CHECK_ERR(layer_seal(pool, &id, &other, "~e-1", NULL), OXE_EXISTS);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_ERR(snapshot_get(pool, &system, &info), OXE_NOENT);
		CHECK_ERR(snapshot_find(pool, &id, "~e-1", &info), OXE_NOENT);
		count = 0;
		snapshot_walk(pool, &id, count_snapshot, &count);
		CHECK_EQ(count, 1);
		CHECK_OK(volume_get(pool, &id, &volume));
		CHECK_EQ(volume.snapshot_count, 1);
		pool_stats(pool, &stats);
		CHECK_EQ(stats.snapshot_count, 1);
		CHECK_EQ(stats.layer_count, 3);
		expect_chain(pool, 2, "s ~e-1");
		pool = pool_reopen(pool);
	}
	CHECK_ERR(snapshot_rename(pool, &user, "~s"), OXE_INVAL);
	CHECK_OK(layer_rename(pool, &system, "t"));
	pool_stats(pool, &stats);
	CHECK_EQ(stats.snapshot_count, 2);
	CHECK_OK(layer_rename(pool, &system, "~t"));
	CHECK_OK(snapshot_delete(pool, &system));
	CHECK_OK(pool_jobs_wait(pool));
	pool_stats(pool, &stats);
	CHECK_EQ(stats.snapshot_count, 1);
	expect_chain(pool, 2, "s");
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(the_chain_of_a_clone_tells_which_layers_are_its_origins)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", MiB), below = an_id(3), layer = an_id(4), own = an_id(5);
	struct volume_spec clone = {.id = an_id(6), .name = "c"};
	CHECK_OK(snapshot_create(pool, &id, &below, "a", NULL));
	CHECK_OK(layer_seal(pool, &id, &layer, "~b", NULL));
	CHECK_OK(volume_clone(pool, &clone, &layer, false));
	CHECK_OK(snapshot_create(pool, &clone.id, &own, "own", NULL));
	expect_chain(pool, 6, "a* ~b* own");
	expect_chain(pool, 2, "a ~b");
	CHECK_ERR(volume_chain(pool, &layer, chain_text, NULL), OXE_NOENT);
	CHECK_OK(pool_close(pool));
}

static struct uuid make_fresh(struct pool *pool, uint8_t n, uint64_t size_bytes)
{
	struct volume_spec spec = {.id = an_id(n), .size_bytes = size_bytes};
	snprintf(spec.name, sizeof(spec.name), "~join-%u", n);
	CHECK_OK(volume_create_fresh(pool, &spec));
	return spec.id;
}

static struct uuid head_of(struct pool *pool, struct uuid id)
{
	struct volume_info info;
	CHECK_OK(volume_get_any(pool, &id, &info));
	return info.head_id;
}

static void seal_as(struct pool *pool, struct uuid volume, uint8_t layer, const char *name)
{
	struct uuid id = an_id(layer);
	CHECK_OK(layer_seal(pool, &volume, &id, name, NULL));
}

/* v: version 1 everywhere, sealed as "~j". */
static struct uuid volume_to_join(struct pool *pool, uint64_t size_bytes)
{
	struct uuid id = make_volume(pool, 2, "v", size_bytes);
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, size_bytes, 1);
	vol_close(v);
	return id;
}

/* Version 2 in [0, 64 KiB), zeroes in [128 KiB, 256 KiB) and [1 MiB, 1 MiB + 8 KiB), the rest is not said. */
static void write_fresh(struct pool *pool, struct uuid id)
{
	struct vol *v = open_id(pool, id);
	write_pattern(v, 0, 64 * KiB, 2);
	CHECK_OK(vol_zero(v, 128 * KiB, 64 * KiB, 0));
	CHECK_OK(vol_trim(v, 192 * KiB, 64 * KiB));
	CHECK_OK(vol_zero(v, MiB, 8 * KiB, 0));
	vol_close(v);
}

static void expect_joined(struct pool *pool, struct uuid id)
{
	struct vol *v = open_id(pool, id);
	expect(v, 0, 64 * KiB, 2);
	expect(v, 64 * KiB, 64 * KiB, 1);
	expect(v, 128 * KiB, 128 * KiB, 0);
	expect(v, 256 * KiB, MiB - 256 * KiB, 1);
	expect(v, MiB, 8 * KiB, 0);
	expect(v, MiB + 8 * KiB, MiB - 8 * KiB, 1);
	expect(v, 2 * MiB, MiB, 0);
	vol_close(v);
}

STORE_TEST(a_chain_grafted_upon_another_hides_what_it_says_and_shows_the_rest)
{
	struct pool *pool = pool_fresh();
	struct pool_stats stats;
	struct volume_info info;
	struct uuid id = volume_to_join(pool, 2 * MiB), fresh = make_fresh(pool, 3, 3 * MiB);
	seal_as(pool, id, 4, "~j"); /* younger than the layer that goes upon it */
	write_fresh(pool, fresh);
	seal_as(pool, fresh, 5, "s");
	struct uuid head = head_of(pool, fresh);
	struct vol *layer_reader = open_id(pool, an_id(5));
	expect(layer_reader, 0, 64 * KiB, 2);
	expect(layer_reader, 64 * KiB, 64 * KiB, 0);
	expect(layer_reader, MiB, MiB, 0);
	CHECK_OK(volume_graft(pool, &id, &fresh, &head));
	expect(layer_reader, 64 * KiB, 64 * KiB, 1); /* what was found before is not remembered */
	expect(layer_reader, MiB + 8 * KiB, MiB - 8 * KiB, 1);
	vol_close(layer_reader);
	CHECK_OK(volume_graft(pool, &id, &fresh, &head));
	for (unsigned i = 0; i < 3; i++) {
		expect_joined(pool, id);
		expect_chain(pool, 2, "~j s");
		CHECK_ERR(volume_get_any(pool, &fresh, &info), OXE_NOENT);
		CHECK_OK(volume_get(pool, &id, &info));
		CHECK_EQ(info.size_bytes, 3 * MiB);
		CHECK(uuid_equal(&info.head_id, &head));
		check_clean(pool);
		CHECK_OK(pool_jobs_wait(pool));
		pool_stats(pool, &stats);
		CHECK_EQ(stats.layer_count, 3);
		CHECK_EQ(stats.volume_count, 1);
		pool = pool_reopen(pool);
	}
	struct uuid layer = an_id(4);
	CHECK_OK(snapshot_delete(pool, &layer));
	CHECK_OK(pool_jobs_wait(pool));
	expect_joined(pool, id);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(what_was_zeroed_in_a_fresh_volume_stays_said_when_its_layers_are_merged)
{
	struct pool *pool = pool_fresh();
	struct uuid id = volume_to_join(pool, 2 * MiB), fresh = make_fresh(pool, 3, 3 * MiB),
		    layer = an_id(5);
	write_fresh(pool, fresh);
	seal_as(pool, id, 4, "~j");
	seal_as(pool, fresh, 5, "~s");
	CHECK_OK(snapshot_delete(pool, &layer));
	CHECK_OK(pool_jobs_wait(pool));
	struct uuid head = head_of(pool, fresh);
	CHECK_OK(volume_graft(pool, &id, &fresh, &head));
	expect_joined(pool, id);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

static void open_fails_to_graft(struct pool *pool, struct uuid open, struct uuid id, struct uuid fresh)
{
	struct uuid head = head_of(pool, fresh);
	struct vol *v = open_id(pool, open);
	CHECK_ERR(volume_graft(pool, &id, &fresh, &head), OXE_BUSY);
	vol_close(v);
}

STORE_TEST(a_graft_upon_what_is_open_has_said_something_or_is_not_sealed_is_refused)
{
	struct pool *pool = pool_fresh();
	struct uuid id = volume_to_join(pool, MiB), fresh = make_fresh(pool, 3, MiB), none = an_id(99);
	struct uuid other = make_volume(pool, 7, "w", MiB), head = head_of(pool, fresh);
	CHECK_ERR(volume_graft(pool, &id, &fresh, &head), OXE_INVAL); /* nothing sealed */
	seal_as(pool, id, 4, "~j");
	seal_as(pool, other, 8, "~j");
	struct uuid other_head = head_of(pool, other);
	CHECK_ERR(volume_graft(pool, &id, &none, &head), OXE_NOENT);
	CHECK_ERR(volume_graft(pool, &none, &fresh, &head), OXE_NOENT);
	CHECK_ERR(volume_graft(pool, &id, &fresh, &none), OXE_INVAL);	    /* another head */
	CHECK_ERR(volume_graft(pool, &id, &other, &other_head), OXE_INVAL); /* an ordinary volume */
	open_fails_to_graft(pool, id, id, fresh);
	open_fails_to_graft(pool, fresh, id, fresh);
	struct vol *v = open_id(pool, id);
	CHECK_OK(vol_zero(v, 0, 4096, 0)); /* a mark, and no cluster */
	vol_close(v);
	CHECK_ERR(volume_graft(pool, &id, &fresh, &head), OXE_INVAL);
	seal_as(pool, id, 5, "s");
	seal_as(pool, fresh, 6, "s");
	head = head_of(pool, fresh);
	CHECK_ERR(volume_graft(pool, &id, &fresh, &head), OXE_EXISTS);
	struct uuid layer = an_id(5);
	CHECK_OK(layer_rename(pool, &layer, "t"));
	CHECK_OK(volume_graft(pool, &id, &fresh, &head));
	expect_chain(pool, 2, "~j t s");
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

static unsigned fill_pool(struct vol *v, uint64_t size_bytes)
{
	unsigned written = 0;
	uint8_t *data = aligned_alloc(4096, 64 * KiB);
	pattern(data, 0, 64 * KiB, 7);
	for (uint64_t at = 0; at < size_bytes; at += 64 * KiB) {
		int err = vol_write(v, data, at, 64 * KiB, 0);
		CHECK(err == 0 || err == OXE_NOSPC);
		written += err == 0;
	}
	free(data);
	return written;
}

STORE_TEST(a_note_set_through_a_handle_is_the_volumes_and_is_replaced_also_on_a_full_pool)
{
	struct pool *pool = pool_fresh();
	struct uuid id = make_volume(pool, 2, "v", 128 * MiB), layer = an_id(3);
	uint8_t data[POOL_NOTE_BYTES_MAX], back[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes = 0;
	struct vol *v = open_id(pool, id);
	CHECK_ERR(vol_note_get(v, POOL_NOTE_REPLICA, back, &len_bytes), OXE_NOENT);
	pattern(data, 0, 2048, 1);
	CHECK_OK(vol_note_set(v, POOL_NOTE_REPLICA, data, 2048));
	CHECK(fill_pool(v, 128 * MiB) < 2048);
	for (uint64_t version = 2; version < 2000; version++) {
		pattern(data, 0, 2048, version);
		CHECK_OK(vol_note_set(v, POOL_NOTE_REPLICA, data, 2048));
	}
	CHECK_OK(vol_note_get(v, POOL_NOTE_REPLICA, back, &len_bytes));
	CHECK(len_bytes == 2048 && memcmp(data, back, 2048) == 0);
	CHECK_ERR(vol_note_set(v, POOL_NOTE_REPLICA, data, POOL_NOTE_BYTES_MAX + 1), OXE_INVAL);
	vol_close(v);
	pool = pool_reopen(pool);
	CHECK_OK(pool_note_get(pool, &id, POOL_NOTE_REPLICA, back, &len_bytes));
	CHECK(len_bytes == 2048 && memcmp(data, back, 2048) == 0);
	CHECK_OK(snapshot_create(pool, &id, &layer, "s", NULL));
	v = open_id(pool, layer);
	CHECK_ERR(vol_note_set(v, POOL_NOTE_REPLICA, data, 2048), OXE_INVAL);
	vol_close(v);
	check_clean(pool);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_fresh_volume_has_nothing_to_flatten_and_a_graft_holds_though_it_was_asked_to)
{
	struct pool *pool = pool_fresh();
	struct volume_info info;
	struct uuid id = volume_to_join(pool, 2 * MiB), fresh = make_fresh(pool, 3, 3 * MiB);
	seal_as(pool, id, 4, "~j");
	write_fresh(pool, fresh);
	CHECK_OK(volume_flatten(pool, &fresh, true));
	CHECK_OK(volume_get_any(pool, &fresh, &info));
	CHECK(!info.is_flattening);
	CHECK_OK(volume_graft(pool, &id, &fresh, &info.head_id));
	CHECK_OK(pool_jobs_wait(pool));
	expect_joined(pool, id);
	CHECK_OK(pool_close(pool));
}

STORE_TEST(a_volume_that_was_shrunk_and_grows_again_shows_nothing_of_what_it_had)
{
	struct pool *pool = pool_fresh();
	struct uuid id = volume_to_join(pool, 2 * MiB);
	seal_as(pool, id, 4, "~a");
	CHECK_OK(volume_shrink(pool, &id, 3 * MiB));
	CHECK_OK(volume_shrink(pool, &id, MiB));
	CHECK_OK(volume_shrink(pool, &id, MiB));
	CHECK_ERR(volume_shrink(pool, &id, 1000), OXE_INVAL);
	pool = pool_reopen(pool);
	struct vol *v = open_id(pool, id);
	CHECK_EQ(vol_info(v)->size_bytes, MiB);
	CHECK_OK(volume_grow(pool, &id, 2 * MiB));
	expect(v, 0, MiB, 1);
	expect(v, MiB, MiB, 0);
	vol_close(v);
	CHECK_OK(pool_close(pool));
}
