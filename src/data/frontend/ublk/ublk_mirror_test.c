/* ublk_mirror_test.c: a block device over a mirror whose copies come and go, and which another engine takes over. */
#include "data/engine/mirror_double.h"
#include "data/frontend/ublk/ublk.h"
#include "data/frontend/ublk/ublk_blk_double.h"

#define USERS	   4u
#define PAGE_BYTES 4096

static struct {
	struct ublk_server *server;
	char *saved;
	bool is_dead; /* the server's process: what it would save is not */
	struct rt_group users;
	bool stop;
	uint32_t number, written[USERS], done;
} t;

static int record_load(void *ctx, char **text)
{
	(void)ctx;
	if (!t.saved)
		return OXE_NOENT;
	*text = mem_strdup(t.saved);
	return 0;
}

static int record_save(void *ctx, const char *text)
{
	(void)ctx;
	if (t.is_dead)
		return OXE_SHUTDOWN;
	free(t.saved);
	t.saved = mem_strdup(text);
	return 0;
}

static void cut(bool is_cut)
{
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++)
		mirrored.is_cut[i] = is_cut;
}

static void serve(void)
{
	struct ublk_options o = {.record_load = record_load, .record_save = record_save, .identity = "here"};
	memset(&t, 0, sizeof(t));
	group_init(&t.users);
	blk_double_install(mirrored.rt);
	t.server = ublk_server_new(mirrored.engines, &o);
	CHECK_OK(ublk_server_start(t.server));
}

static void serve_end(void)
{
	t.is_dead = true;
	blk_double_kill();
	ublk_server_stop(t.server);
	ublk_server_free(t.server);
	blk_double_free();
	free(t.saved);
}

static void evict(void)
{
	ublk_server_evict_volume(t.server, &mirrored.volume);
}

static int attach(void)
{
	struct ublk_info info;
	bool created;
	int err = ublk_server_attach(t.server, &mirrored.volume, &created, &info);
	t.number = info.number;
	return err;
}

static void user_main(void *arg)
{
	uint32_t n = (uint32_t)(uintptr_t)arg;
	uint8_t page[PAGE_BYTES];
	while (!t.stop) {
		memset(page, (int)(t.written[n] + 1), sizeof(page));
		CHECK_OK(blk_double_io(t.number, RT_BLK_WRITE, 0, n * 64 * KiB, sizeof(page), page));
		t.written[n]++;
		t.done++;
		fiber_sleep(5 * NS_PER_MS);
	}
	group_done(&t.users);
}

static void load_begin(void)
{
	CHECK_OK(attach());
	group_add(&t.users, USERS);
	for (uint32_t n = 0; n < USERS; n++)
		fiber_spawn(mirrored.rt, "user", user_main, (void *)(uintptr_t)n);
}

static void load_end(void)
{
	uint8_t page[PAGE_BYTES];
	t.stop = true;
	group_wait(&t.users);
	for (uint32_t n = 0; n < USERS; n++) {
		CHECK_OK(blk_double_io(t.number, RT_BLK_READ, 0, n * 64 * KiB, sizeof(page), page));
		CHECK_EQ(page[0], (uint8_t)t.written[n]);
	}
	CHECK_OK(ublk_server_detach(t.server, &mirrored.volume, false));
}

WITH_COPIES(copies_lost_under_a_device_are_a_pause, 2)
{
	serve();
	load_begin();
	fiber_sleep(NS_PER_S);
	mirrored.is_cut[0] = true;
	fiber_sleep(10 * NS_PER_S);
	mirrored.is_cut[0] = false;
	mirror_double_whole();
	cut(true);
	fiber_sleep(100 * NS_PER_S);
	uint32_t done = t.done;
	cut(false);
	fiber_sleep(10 * NS_PER_S);
	CHECK(t.done > done);
	load_end();
	serve_end();
}

WITH_COPIES(a_device_goes_on_with_the_engine_that_comes_after_a_fenced_one, 2)
{
	serve();
	load_begin();
	for (unsigned round = 0; round < 3; round++) {
		fiber_sleep(NS_PER_S);
		mirror_double_usurp();
		fiber_sleep(round * NS_PER_S);
		mirror_double_down(evict);
		fiber_sleep(round * 5 * NS_PER_S);
		mirror_double_up();
		fiber_sleep(10 * NS_PER_S);
	}
	load_end();
	CHECK(t.done > 500);
	serve_end();
}

WITH_COPIES(a_device_goes_on_with_the_next_engine_after_one_that_was_stopped_while_it_waited, 2)
{
	serve();
	load_begin();
	fiber_sleep(NS_PER_S);
	cut(true);
	fiber_sleep(20 * NS_PER_S);
	mirror_double_down(evict);
	mirror_double_up();
	fiber_sleep(60 * NS_PER_S);
	cut(false);
	load_end();
	serve_end();
}

#define READERS 100u

static uint8_t large[RT_BLK_IO_BYTES];

static void read_large(void *arg)
{
	uint8_t *data = mem_alloc(RT_BLK_IO_BYTES);
	CHECK_OK(blk_double_io(*(uint32_t *)arg, RT_BLK_READ, 0, 0, RT_BLK_IO_BYTES, data));
	free(data);
	group_done(&t.users);
}

WITH_COPIES(a_device_that_waits_for_copies_does_not_starve_another, 2)
{
	struct volume_spec spec = {
		.name = "other", .id = rt_random_uuid(mirrored.rt), .size_bytes = MIRROR_DOUBLE_BYTES};
	struct ublk_info other;
	bool created;
	serve();
	CHECK_OK(volume_create(mirrored.pools[2], &spec));
	CHECK_OK(ublk_server_attach(t.server, &spec.id, &created, &other));
	CHECK_OK(attach());
	cut(true);
	group_add(&t.users, READERS);
	for (unsigned i = 0; i < READERS; i++)
		fiber_spawn(mirrored.rt, "reader", read_large, &t.number);
	fiber_sleep(10 * NS_PER_S);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(blk_double_io(other.number, RT_BLK_READ, 0, 0, sizeof(large), large));
	CHECK(rt_now_ns(mirrored.rt) - begin_ns < NS_PER_S);
	cut(false);
	group_wait(&t.users);
	CHECK_OK(ublk_server_detach(t.server, &spec.id, false));
	CHECK_OK(ublk_server_detach(t.server, &mirrored.volume, false));
	serve_end();
}

static const char *said;

static bool take_message(void *ctx, const struct ublk_info *a)
{
	(void)ctx;
	said = a->message;
	return false;
}

WITH_COPIES(a_device_of_a_mirror_that_does_not_serve_is_not_made_and_one_on_record_waits_for_it, 2)
{
	serve();
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
	CHECK_ERR(attach(), OXE_TIMEOUT);
	CHECK_EQ(blk_double_count(), 0);
	cut(false);
	CHECK_OK(attach());
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
	fiber_sleep(60 * NS_PER_S);
	ublk_server_walk(t.server, take_message, NULL);
	CHECK(*said);
	cut(false);
	load_begin();
	fiber_sleep(10 * NS_PER_S);
	load_end();
	CHECK(t.done > 50);
	serve_end();
}
