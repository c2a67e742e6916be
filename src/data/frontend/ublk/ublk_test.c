/* ublk_test.c: attachments and devices over a kernel double and a store of arrays, on virtual time. */
#include "base/log.h"
#include "base/test.h"
#include "data/engine/engine_testrt.h"
#include "data/engine/pool_double.h"
#include "data/frontend/ublk/ublk.h"
#include "data/frontend/ublk/ublk_blk_double.h"
#include "data/frontend/ublk/ublk_device.h"
#include "data/frontend/ublk/ublk_record.h"

#include <stdio.h>

#define SIZE	 (2 * MiB)
#define IDENTITY "/var/lib/oxbow"

static struct {
	struct rt *rt;
	struct pool *pool;
	struct uuid disk, other, snapshot;
	struct engines *set;
	struct ublk_server *server;
	char *saved; /* the record; NULL: none */
	int load_err, save_err;
	unsigned saves;
	bool dead; /* the process of the server, to be stopped yet */
	struct rt_group callers;
	char linked[200], unlinked[200]; /* "name number", the last ones */
	void (*body)(void);
} t;

static int record_load(void *ctx, char **text)
{
	(void)ctx;
	fiber_yield();
	if (t.load_err || !t.saved)
		return t.load_err ? t.load_err : OXE_NOENT;
	*text = mem_strdup(t.saved);
	return 0;
}

static int record_save(void *ctx, const char *text)
{
	(void)ctx;
	fiber_yield();
	if (t.save_err || t.dead)
		return t.dead ? OXE_SHUTDOWN : t.save_err;
	t.saves++;
	free(t.saved);
	t.saved = mem_strdup(text);
	return 0;
}

static void link_set(void *ctx, const char *name, uint32_t number)
{
	(void)ctx;
	char *text = number == UBLK_NO_NUMBER ? t.unlinked : t.linked;
	snprintf(text, sizeof(t.linked), "%s %d", name, (int)number);
}

static void server_new(void)
{
	struct ublk_options options = {.record_load = record_load,
				       .record_save = record_save,
				       .link = link_set,
				       .identity = IDENTITY};
	blk_double_revive();
	t.dead = false;
	t.server = ublk_server_new(t.set, &options);
}

static bool count_unsettled(void *ctx, const struct ublk_info *a)
{
	*(unsigned *)ctx += a->state != UBLK_SERVING;
	return true;
}

static unsigned unsettled(void)
{
	unsigned count = 0;
	ublk_server_walk(t.server, count_unsettled, &count);
	return count;
}

static void server_settle(void)
{
	while (unsettled())
		ublk_server_change_wait(t.server);
}

static void server_start(void)
{
	server_new();
	CHECK_OK(ublk_server_start(t.server));
	server_settle();
}

/* The process is gone: what it holds in memory with it, the kernel's devices and the record are what is left. */
static void server_kill(void)
{
	t.dead = true;
	blk_double_kill();
	ublk_server_stop(t.server);
	group_wait(&t.callers);
	ublk_server_stop(t.server);
	ublk_server_free(t.server);
	t.server = NULL;
}

static void caller_spawn(void (*fn)(void *arg), const struct uuid *id)
{
	group_add(&t.callers, 1);
	fiber_spawn(t.rt, "caller", fn, (void *)(uintptr_t)id);
}

static void server_restart(void)
{
	server_kill();
	server_start();
}

static bool pick_snapshot(void *ctx, const struct snapshot_info *s)
{
	(void)ctx;
	t.snapshot = s->id;
	return false;
}

static void body_fiber(void *arg)
{
	(void)arg;
	server_start();
	t.body();
	if (t.server)
		server_kill();
}

static void with_server(void (*body)(void))
{
	memset(&t, 0, sizeof(t));
	t.rt = testrt_new(1, false);
	group_init(&t.callers);
	blk_double_install(t.rt);
	t.pool = pool_double_new("tank");
	t.disk = pool_double_volume(t.pool, "disk", SIZE, 512);
	pool_double_snapshot(t.pool, &t.disk, "mon");
	t.other = pool_double_volume(t.pool, "other", SIZE, 4096);
	snapshot_walk(t.pool, &t.disk, pick_snapshot, NULL);
	t.set = engines_new(t.rt);
	engines_add_pool(t.set, t.pool);
	t.body = body;
	fiber_spawn_big(t.rt, "test", body_fiber, NULL);
	testrt_run(t.rt);
	blk_double_free();
	engines_free(t.set);
	pool_double_free(t.pool);
	testrt_free(t.rt);
	free(t.saved);
}

#define WITH_SERVER(test_name)                                                                               \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		with_server(test_name##_body);                                                               \
	}                                                                                                    \
	static void test_name##_body(void)

static struct ublk_info attach(const struct uuid *id)
{
	struct ublk_info info;
	bool created;
	CHECK_OK(ublk_server_attach(t.server, id, &created, &info));
	CHECK(created);
	CHECK_EQ(info.state, UBLK_SERVING);
	return info;
}

static int attach_err(const struct uuid *id, struct ublk_info *info)
{
	bool created;
	return ublk_server_attach(t.server, id, &created, info);
}

static int io(uint32_t number, enum rt_blk_op op, uint64_t offset_bytes, uint64_t len_bytes, void *data)
{
	return blk_double_io(number, op, 0, offset_bytes, len_bytes, data);
}

/* ---- what a device does ------------------------------------------------------------------------------------------------ */

WITH_SERVER(what_is_written_to_the_device_is_read_from_it_and_is_in_the_volume)
{
	static uint8_t out[8192], in[8192];
	struct engine *e;
	struct ublk_info info = attach(&t.disk);
	memset(out, 0x5a, sizeof(out));
	CHECK_STR(t.linked, "tank/disk 0");
	CHECK_EQ(info.size_bytes, SIZE);
	CHECK_EQ(info.lba_bytes, 512);
	CHECK_OK(io(info.number, RT_BLK_WRITE, 512, sizeof(out), out));
	CHECK_OK(io(info.number, RT_BLK_READ, 512, sizeof(in), in));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	CHECK_OK(engine_open(t.set, "disk", &e));
	memset(in, 0, sizeof(in));
	CHECK_OK(engine_read(e, in, 512, sizeof(in)));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	engine_close(e);
}

WITH_SERVER(zeroed_and_discarded_blocks_read_as_zeroes)
{
	static uint8_t data[3 * 4096];
	uint32_t number = attach(&t.disk).number;
	memset(data, 1, sizeof(data));
	CHECK_OK(io(number, RT_BLK_WRITE, 0, sizeof(data), data));
	CHECK_OK(io(number, RT_BLK_ZERO, 0, 4096, NULL));
	CHECK_OK(blk_double_io(number, RT_BLK_DISCARD, RT_BLK_FUA, 4096, 4096, NULL));
	CHECK_OK(io(number, RT_BLK_READ, 0, sizeof(data), data));
	for (size_t i = 0; i < sizeof(data); i++)
		CHECK_EQ(data[i], i >= 8192);
}

static bool sum_ops(void *ctx, const char *name, const struct engine_stats *s)
{
	(void)name;
	for (int op = 0; op < ENGINE_OPS; op++)
		((uint64_t *)ctx)[op] += s->ops[op];
	return true;
}

WITH_SERVER(a_flush_reaches_the_engine_and_so_does_one_after_a_discard_with_fua)
{
	uint64_t ops[ENGINE_OPS] = {0};
	uint32_t number = attach(&t.disk).number;
	CHECK_OK(io(number, RT_BLK_FLUSH, 0, 0, NULL));
	CHECK_OK(blk_double_io(number, RT_BLK_DISCARD, RT_BLK_FUA, 0, 4096, NULL));
	engines_stats_walk(t.set, sum_ops, ops);
	CHECK_EQ(ops[ENGINE_FLUSH], 2);
	CHECK_EQ(ops[ENGINE_TRIM], 1);
}

WITH_SERVER(a_snapshot_is_a_read_only_device)
{
	static uint8_t data[4096];
	struct ublk_info info = attach(&t.snapshot);
	CHECK(info.read_only);
	CHECK_STR(info.name, "tank/disk@mon");
	CHECK_OK(io(info.number, RT_BLK_READ, 0, sizeof(data), data));
	CHECK_ERR(io(info.number, RT_BLK_WRITE, 0, sizeof(data), data), OXE_ROFS);
	CHECK_ERR(io(info.number, RT_BLK_DISCARD, 0, 4096, NULL), OXE_ROFS);
}

TEST(what_does_not_fit_the_device_is_refused)
{
	const struct rt_blk_spec spec = {.size_bytes = SIZE, .lba_bytes = 4096};
	const struct {
		struct rt_blk_request r;
		int err;
	} cases[] = {
		{{RT_BLK_READ, 0, 0, 0, 4096}, 0},
		{{RT_BLK_READ, 0, 0, SIZE - 4096, 4096}, 0},
		{{RT_BLK_READ, 0, 0, SIZE - 4096, 8192}, OXE_RANGE},
		{{RT_BLK_READ, 0, 0, UINT64_MAX - 4095, 4096}, OXE_RANGE},
		{{RT_BLK_WRITE, 0, 0, 512, 4096}, OXE_ALIGN},
		{{RT_BLK_WRITE, 0, 0, 4096, 512}, OXE_ALIGN},
		{{RT_BLK_WRITE, 0, 0, 4096, 0}, OXE_ALIGN},
		{{RT_BLK_WRITE, 0, 0, 0, RT_BLK_IO_BYTES + 4096}, OXE_TOOBIG},
		{{RT_BLK_DISCARD, 0, 0, 0, SIZE}, 0},
		{{RT_BLK_FLUSH, 0, 0, UINT64_MAX, 7}, 0},
		{{RT_BLK_UNKNOWN, 0, 0, 0, 4096}, OXE_UNSUPPORTED},
	};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
		CHECK_ERR(ublk_request_check(&cases[i].r, &spec), cases[i].err);
}

WITH_SERVER(a_request_that_was_refused_is_answered)
{
	uint32_t number = attach(&t.disk).number;
	CHECK_ERR(io(number, RT_BLK_READ, SIZE, 512, NULL), OXE_RANGE);
	CHECK_ERR(io(number, RT_BLK_UNKNOWN, 0, 512, NULL), OXE_UNSUPPORTED);
}

WITH_SERVER(an_error_of_the_volume_is_an_error_of_that_request_alone)
{
	static uint8_t data[4096];
	uint32_t number = attach(&t.disk).number;
	pool_double_fail(t.pool, OXE_NOSPC);
	CHECK_ERR(io(number, RT_BLK_WRITE, 0, sizeof(data), data), OXE_NOSPC);
	pool_double_fail(t.pool, 0);
	CHECK_OK(io(number, RT_BLK_WRITE, 0, sizeof(data), data));
}

/* ---- attach and detach --------------------------------------------------------------------------------------------------- */

WITH_SERVER(attaching_twice_is_attaching_once_and_so_is_detaching)
{
	struct ublk_info first = attach(&t.disk), again;
	bool created;
	CHECK_OK(ublk_server_attach(t.server, &t.disk, &created, &again));
	CHECK(!created);
	CHECK_EQ(again.number, first.number);
	CHECK_EQ(blk_double_count(), 1);
	CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
	CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
	CHECK_EQ(blk_double_count(), 0);
	CHECK_STR(t.unlinked, "tank/disk -1");
	CHECK_STR(t.saved, "oxbow-ublk 1\n");
}

WITH_SERVER(a_detached_volume_can_be_attached_again_and_can_be_used_otherwise)
{
	struct engine *e;
	attach(&t.disk);
	CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
	CHECK_OK(engine_open(t.set, "disk", &e));
	engine_close(e);
	attach(&t.disk);
}

WITH_SERVER(a_device_that_is_mounted_is_not_detached_unless_forced)
{
	uint32_t number = attach(&t.disk).number;
	blk_double_hold(number, true);
	CHECK_ERR(ublk_server_detach(t.server, &t.disk, false), OXE_BUSY);
	CHECK_OK(io(number, RT_BLK_FLUSH, 0, 0, NULL));
	CHECK_OK(ublk_server_detach(t.server, &t.disk, true));
	CHECK_EQ(blk_double_count(), 0);
}

WITH_SERVER(without_ublk_attach_says_so_and_leaves_nothing)
{
	struct ublk_info info;
	blk_double_fail(BLK_DOUBLE_PROBE, OXE_UNSUPPORTED);
	CHECK_ERR(attach_err(&t.disk, &info), OXE_UNSUPPORTED);
	CHECK(strstr(info.message, "no ublk driver"));
	CHECK_EQ(t.saves, 0);
}

WITH_SERVER(an_attach_that_fails_leaves_neither_device_nor_record)
{
	struct ublk_info info;
	static const enum blk_double_step steps[] = {BLK_DOUBLE_MAKE, BLK_DOUBLE_START};
	for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
		blk_double_fail(steps[i], OXE_SYS);
		CHECK_ERR(attach_err(&t.disk, &info), OXE_SYS);
		blk_double_fail(steps[i], 0);
		CHECK_EQ(blk_double_count(), 0);
		CHECK_STR(t.saved, "oxbow-ublk 1\n");
	}
	attach(&t.disk);
}

WITH_SERVER(an_attach_that_cannot_be_recorded_makes_nothing)
{
	struct ublk_info info;
	t.save_err = OXE_NOSPC;
	CHECK_ERR(attach_err(&t.disk, &info), OXE_NOSPC);
	CHECK_EQ(blk_double_count(), 0);
	CHECK_EQ(unsettled(), 0);
}

static void detach_fiber(void *arg)
{
	int err = ublk_server_detach(t.server, arg, true);
	CHECK(!err || t.dead);
	group_done(&t.callers);
}

WITH_SERVER(a_detach_the_kernel_refuses_is_tried_until_it_succeeds)
{
	attach(&t.disk);
	blk_double_fail(BLK_DOUBLE_STOP, OXE_SYS);
	caller_spawn(detach_fiber, &t.disk);
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(blk_double_count(), 1);
	blk_double_fail(BLK_DOUBLE_STOP, 0);
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(blk_double_count(), 0);
	CHECK_STR(t.saved, "oxbow-ublk 1\n");
}

/* ---- killed ------------------------------------------------------------------------------------------------------------------ */

struct user {
	uint32_t number;
	enum rt_blk_op op;
	int result;
	bool done;
	uint8_t data[4096];
};

static void user_fiber(void *arg)
{
	struct user *u = arg;
	u->result = io(u->number, u->op, 4096, sizeof(u->data), u->data);
	u->done = true;
}

WITH_SERVER(a_kill_costs_those_who_wait_a_pause_and_no_error)
{
	static struct user write, read;
	uint32_t number = attach(&t.disk).number;
	write = (struct user){.number = number, .op = RT_BLK_WRITE, .result = -1};
	memset(write.data, 7, sizeof(write.data));
	pool_double_delay(t.pool, NS_PER_S);
	fiber_spawn(t.rt, "user", user_fiber, &write);
	fiber_sleep(NS_PER_MS);
	CHECK_EQ(blk_double_taken(number), 1);
	server_kill();
	CHECK_EQ(blk_double_info(number)->state, RT_BLK_ORPHANED);
	read = (struct user){.number = number, .op = RT_BLK_READ, .result = -1};
	fiber_spawn(t.rt, "user", user_fiber, &read);
	fiber_sleep(NS_PER_S);
	CHECK(!write.done && !read.done);
	CHECK_EQ(blk_double_waiting(number), 2);
	pool_double_delay(t.pool, 0);
	server_start();
	fiber_sleep(NS_PER_S);
	CHECK(write.done && read.done);
	CHECK_OK(write.result);
	CHECK_OK(read.result);
	CHECK_EQ(blk_double_count(), 1);
	CHECK_OK(io(number, RT_BLK_READ, 4096, sizeof(read.data), read.data));
	CHECK_EQ(read.data[100], 7);
}

WITH_SERVER(several_devices_come_back_each_as_its_own_volume)
{
	static uint8_t data[4096];
	uint32_t disk = attach(&t.disk).number, other = attach(&t.other).number;
	memset(data, 1, sizeof(data));
	CHECK_OK(io(disk, RT_BLK_WRITE, 0, sizeof(data), data));
	memset(data, 2, sizeof(data));
	CHECK_OK(io(other, RT_BLK_WRITE, 0, sizeof(data), data));
	server_restart();
	CHECK_EQ(blk_double_count(), 2);
	CHECK_OK(io(disk, RT_BLK_READ, 0, sizeof(data), data));
	CHECK_EQ(data[0], 1);
	CHECK_OK(io(other, RT_BLK_READ, 0, sizeof(data), data));
	CHECK_EQ(data[0], 2);
}

WITH_SERVER(a_volume_renamed_meanwhile_is_linked_by_its_new_name_only)
{
	char id[UUID_TEXT_LEN + 1];
	attach(&t.disk);
	server_kill();
	free(t.saved);
	CHECK(asprintf(&t.saved, "oxbow-ublk 1\n%s 0 attached tank/before\n", uuid_format(&t.disk, id)) > 0);
	server_start();
	CHECK_STR(t.unlinked, "tank/before -1");
	CHECK_STR(t.linked, "tank/disk 0");
	CHECK(strstr(t.saved, " 0 attached tank/disk\n"));
}

static void attach_fiber(void *arg)
{
	struct ublk_info info;
	int err = attach_err(arg, &info);
	CHECK(!err || t.dead);
	group_done(&t.callers);
}

/* Each try kills one switch of fibers later, until the attach is done before the kill. */
WITH_SERVER(an_attach_killed_anywhere_is_finished_or_undone_at_the_next_start)
{
	unsigned undone = 0, finished = 0;
	for (unsigned switches = 0; switches < 40; switches++) {
		caller_spawn(attach_fiber, &t.disk);
		for (unsigned i = 0; i < switches; i++)
			fiber_yield();
		server_restart();
		unsigned count = blk_double_count();
		CHECK(count <= 1);
		undone += count == 0;
		finished += count == 1;
		if (count == 1)
			CHECK_OK(io(0, RT_BLK_FLUSH, 0, 0, NULL));
		CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
		CHECK_EQ(blk_double_count(), 0);
	}
	CHECK(undone > 0 && finished > 0);
}

WITH_SERVER(a_detach_killed_anywhere_is_finished_or_had_not_begun)
{
	unsigned there = 0, gone = 0;
	for (unsigned switches = 0; switches < 40; switches++) {
		attach(&t.disk);
		caller_spawn(detach_fiber, &t.disk);
		for (unsigned i = 0; i < switches; i++)
			fiber_yield();
		server_kill();
		server_new();
		CHECK_OK(ublk_server_start(t.server));
		fiber_sleep(NS_PER_S);
		unsigned count = blk_double_count();
		there += count == 1;
		gone += count == 0;
		CHECK_EQ(unsettled(), 0);
		CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
	}
	CHECK(there > 0 && gone > 0);
}

WITH_SERVER(after_a_reboot_the_device_is_made_anew_with_its_number)
{
	attach(&t.other);
	uint32_t number = attach(&t.disk).number;
	CHECK_EQ(number, 1);
	CHECK_OK(ublk_server_detach(t.server, &t.other, false));
	server_kill();
	blk_double_reboot();
	server_start();
	CHECK_EQ(blk_double_count(), 1);
	CHECK(blk_double_info(1));
	CHECK_STR(t.linked, "tank/disk 1");
}

WITH_SERVER(after_a_reboot_a_number_somebody_else_has_taken_is_left_to_him)
{
	struct rt_blk_info foreign = {.spec = {.number = 0, .mark = 12}, .state = RT_BLK_SERVED};
	attach(&t.disk);
	server_kill();
	blk_double_reboot();
	blk_double_add(&foreign);
	server_start();
	CHECK_EQ(blk_double_count(), 2);
	CHECK_EQ(blk_double_info(0)->spec.mark, 12);
	CHECK_OK(io(1, RT_BLK_FLUSH, 0, 0, NULL));
	CHECK(strstr(t.saved, " 1 attached tank/disk\n"));
}

WITH_SERVER(a_device_of_ours_on_no_record_is_removed_and_other_peoples_are_not_touched)
{
	struct uuid nobody = {.b = {9}};
	struct rt_blk_info ours = {.spec = {.number = 2, .mark = ublk_mark(IDENTITY, &nobody)},
				   .state = RT_BLK_ORPHANED,
				   .is_like_ours = true};
	struct rt_blk_info neighbours = {.spec = {.number = 3, .mark = ublk_mark("/elsewhere", &nobody)},
					 .state = RT_BLK_ORPHANED,
					 .is_like_ours = true};
	struct rt_blk_info foreign = {.spec = {.number = 4}, .state = RT_BLK_ORPHANED};
	blk_double_add(&ours);
	blk_double_add(&neighbours);
	blk_double_add(&foreign);
	server_restart();
	CHECK(!blk_double_info(2));
	CHECK(blk_double_info(3) && blk_double_info(4));
}

WITH_SERVER(a_record_that_cannot_be_read_costs_no_device_and_is_not_overwritten)
{
	struct ublk_info info;
	static const char *const broken[] = {"", "oxbow-ublk 2\n", "oxbow-ublk 1\nnonsense\n"};
	attach(&t.disk);
	server_kill();
	for (size_t i = 0; i < ARRAY_COUNT(broken); i++) {
		free(t.saved);
		t.saved = mem_strdup(broken[i]);
		server_new();
		CHECK(ublk_server_start(t.server) != 0);
		CHECK(attach_err(&t.disk, &info) != 0);
		CHECK_EQ(blk_double_count(), 1);
		CHECK_STR(t.saved, broken[i]);
		server_kill();
	}
}

WITH_SERVER(a_device_that_is_not_as_its_volume_is_is_left_alone_and_can_be_detached)
{
	attach(&t.disk);
	server_kill();
	struct rt_blk_info odd = *blk_double_info(0);
	odd.spec.lba_bytes = 4096;
	blk_double_reboot();
	blk_double_add(&odd);
	server_new();
	CHECK_OK(ublk_server_start(t.server));
	fiber_sleep(NS_PER_S);
	CHECK_EQ(unsettled(), 1);
	CHECK_EQ(blk_double_info(0)->state, RT_BLK_ORPHANED);
	CHECK_OK(ublk_server_detach(t.server, &t.disk, false));
	CHECK_EQ(blk_double_count(), 0);
}

static bool pick_info(void *ctx, const struct ublk_info *a)
{
	*(struct ublk_info *)ctx = *a;
	return false;
}

/* The volume has grown while its device could not. */
static struct ublk_info recover_smaller(bool can_grow)
{
	struct ublk_info info;
	attach(&t.disk);
	server_kill();
	struct rt_blk_info smaller = *blk_double_info(0);
	smaller.spec.size_bytes = SIZE / 2;
	blk_double_reboot();
	blk_double_add(&smaller);
	blk_double_can_grow(can_grow);
	server_start();
	ublk_server_walk(t.server, pick_info, &info);
	return info;
}

WITH_SERVER(a_device_smaller_than_its_volume_is_grown_where_the_kernel_can)
{
	struct ublk_info info = recover_smaller(true);
	CHECK_EQ(info.size_bytes, SIZE);
	CHECK_STR(info.message, "");
	CHECK_OK(ublk_server_grown(t.server, &t.disk));
}

WITH_SERVER(where_the_kernel_cannot_grow_a_device_it_says_so)
{
	struct ublk_info info = recover_smaller(false);
	CHECK_EQ(info.size_bytes, SIZE / 2);
	CHECK(strstr(info.message, "cannot resize"));
	CHECK_ERR(ublk_server_grown(t.server, &t.disk), OXE_UNSUPPORTED);
}

/* ---- pools that come and go ------------------------------------------------------------------------------------------------- */

/* What the node does with a pool whose device failed. */
static void pool_close_failed(void)
{
	pool_double_fail(t.pool, OXE_FAILED);
	ublk_server_evict(t.server, "tank");
	fiber_sleep(NS_PER_MS);
	CHECK_OK(engines_remove_pool(t.set, t.pool));
	pool_double_fail(t.pool, 0);
}

WITH_SERVER(while_the_pool_is_away_requests_wait_and_then_go_on)
{
	static struct user user;
	uint32_t number = attach(&t.disk).number;
	pool_close_failed();
	user = (struct user){.number = number, .op = RT_BLK_WRITE, .result = -1};
	fiber_spawn(t.rt, "user", user_fiber, &user);
	fiber_sleep(5 * NS_PER_S);
	CHECK(!user.done);
	CHECK_EQ(unsettled(), 1);
	engines_add_pool(t.set, t.pool);
	fiber_sleep(5 * NS_PER_S);
	CHECK(user.done);
	CHECK_OK(user.result);
	CHECK_EQ(unsettled(), 0);
}

WITH_SERVER(a_request_a_failing_pool_refused_is_asked_again_when_it_is_back)
{
	static struct user user;
	uint32_t number = attach(&t.disk).number;
	pool_double_fail(t.pool, OXE_FAILED);
	user = (struct user){.number = number, .op = RT_BLK_WRITE, .result = -1};
	memset(user.data, 3, sizeof(user.data));
	fiber_spawn(t.rt, "user", user_fiber, &user);
	fiber_sleep(5 * NS_PER_S);
	CHECK(!user.done);
	pool_double_fail(t.pool, 0);
	fiber_sleep(5 * NS_PER_S);
	CHECK(user.done);
	CHECK_OK(user.result);
	CHECK_OK(io(number, RT_BLK_READ, 4096, sizeof(user.data), user.data));
	CHECK_EQ(user.data[0], 3);
}

WITH_SERVER(a_device_whose_pool_is_away_can_be_detached_and_what_waits_fails)
{
	static struct user user;
	uint32_t number = attach(&t.disk).number;
	pool_close_failed();
	user = (struct user){.number = number, .op = RT_BLK_READ, .result = -1};
	fiber_spawn(t.rt, "user", user_fiber, &user);
	fiber_sleep(NS_PER_S);
	CHECK_OK(ublk_server_detach(t.server, &t.disk, true));
	CHECK(user.done && user.result != 0);
	CHECK_EQ(blk_double_count(), 0);
	engines_add_pool(t.set, t.pool);
}

WITH_SERVER(more_payload_than_the_budget_waits_its_turn)
{
	enum { USERS = 100 };
	static struct user users[USERS];
	uint32_t number = attach(&t.disk).number;
	pool_double_delay(t.pool, NS_PER_MS);
	for (int i = 0; i < USERS; i++) {
		users[i] = (struct user){
			.number = number, .op = i % 2 ? RT_BLK_WRITE : RT_BLK_READ, .result = -1};
		fiber_spawn(t.rt, "user", user_fiber, &users[i]);
	}
	fiber_sleep(NS_PER_S);
	for (int i = 0; i < USERS; i++)
		CHECK_OK(users[i].result);
}

/* ---- the record --------------------------------------------------------------------------------------------------------------- */

TEST(a_record_is_read_as_it_was_written)
{
	struct text text = {0};
	struct ublk_line out, a = {.id = {.b = {1, 2}}, .number = 7, .name = "tank/disk@mon"};
	struct ublk_line b = {.id = {.b = {3}}, .number = UBLK_NO_NUMBER, .leaving = true};
	ublk_record_begin(&text);
	ublk_record_add(&text, &a);
	ublk_record_add(&text, &b);
	const char *at = text_get(&text);
	CHECK_OK(ublk_record_open(&at));
	CHECK_OK(ublk_record_next(&at, &out));
	CHECK(uuid_equal(&out.id, &a.id) && out.number == 7 && !out.leaving);
	CHECK_STR(out.name, a.name);
	CHECK_OK(ublk_record_next(&at, &out));
	CHECK(uuid_equal(&out.id, &b.id) && out.number == UBLK_NO_NUMBER && out.leaving);
	CHECK_STR(out.name, "");
	CHECK_ERR(ublk_record_next(&at, &out), OXE_NOENT);
	text_free(&text);
}

#define ID "01020304-0506-4708-890a-0b0c0d0e0f10"

TEST(a_line_that_was_not_written_by_us_is_refused)
{
	static const char *const lines[] = {
		"x",
		"\n",
		ID,
		ID " 1 attached",
		ID " 1 attached tank/disk",
		ID " 1 detached tank/disk\n",
		ID " -1 attached tank/disk\n",
		ID " 4294967295 attached tank/disk\n",
		ID " 99999999999 attached tank/disk\n",
		ID " 1 attached ../etc\n",
		ID " 1 attached /etc/passwd\n",
		ID " 1 attached tank/a b\n",
		"01020304-0506-4708-890a-0b0c0d0e0f1 1 attached tank/disk\n",
	};
	for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
		struct ublk_line line;
		const char *at = lines[i];
		CHECK_ERR(ublk_record_next(&at, &line), OXE_CORRUPT);
	}
}

TEST(a_mark_tells_servers_and_volumes_apart)
{
	struct uuid a = {.b = {1}}, b = {.b = {[15] = 1}};
	uint64_t mark = ublk_mark(IDENTITY, &a);
	CHECK(ublk_mark(IDENTITY, &b) != mark);
	CHECK_EQ(ublk_mark(IDENTITY, &a), mark);
	CHECK(ublk_mark_is_ours(IDENTITY, mark));
	CHECK(!ublk_mark_is_ours("/srv/oxbow", mark));
	CHECK(!ublk_mark_is_ours(IDENTITY, 0));
}
