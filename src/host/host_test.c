/* host_test.c: the door on a real kernel: files, sockets, threads, and what happens at the bounds. */
#include "base/bytes.h"
#include "base/test.h"
#include "host/host.h"
#include "host/host_spin.h"
#include "rt/rt_sanitize.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if OX_TSAN
#define MANY_FIBERS 1200
#else
#define MANY_FIBERS 10000
#endif

/* ---- helpers ------------------------------------------------------------------------------------------------------ */

static char scratch[64];

static const char *scratch_path(const char *name)
{
	static char paths[8][160];
	static unsigned next;
	char *path = paths[next++ % ARRAY_COUNT(paths)];
	snprintf(path, sizeof(paths[0]), "%s/%s", scratch, name);
	return path;
}

__attribute__((constructor)) static void scratch_make(void)
{
	const char *base = getenv("TMPDIR");
	snprintf(scratch, sizeof(scratch), "%.40s/oxbow-XXXXXX", base ? base : "/tmp");
	CHECK(mkdtemp(scratch));
}

__attribute__((destructor)) static void scratch_remove(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	CHECK(system(command) == 0);
}

struct main_fiber {
	void (*fn)(void);
};

static void main_fiber_run(void *arg)
{
	((struct main_fiber *)arg)->fn();
	host_rt_stop(rt_current());
}

/* Run `fn` as the first fiber of a reactor of its own, until it returns. */
static void run_with(const struct host_options *options, void (*fn)(void))
{
	struct rt *rt = host_rt_new(options);
	struct main_fiber m = {fn};
	CHECK(rt);
	fiber_spawn(rt, "main", main_fiber_run, &m);
	host_rt_run(rt);
	host_rt_free(rt);
}

static void run(void (*fn)(void))
{
	run_with(&(struct host_options){0}, fn);
}

static void *pages(size_t len_bytes, int fill)
{
	void *data = aligned_alloc(RT_IO_ALIGN, len_bytes);
	memset(data, fill, len_bytes);
	return data;
}

static void file_write(const char *path, const void *data, size_t len_bytes, off_t offset_bytes)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(pwrite(fd, data, len_bytes, offset_bytes), len_bytes);
	close(fd);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------ */

static void sleeps_are_not_short(void)
{
	struct rt *rt = rt_current();
	uint64_t start_ns = rt_now_exact_ns(rt);
	fiber_sleep(20 * NS_PER_MS);
	CHECK(rt_now_exact_ns(rt) - start_ns >= 20 * NS_PER_MS);
	CHECK(rt_now_ns(rt) - start_ns >= 20 * NS_PER_MS);
	CHECK(rt_wall_ns(rt) > 1700000000 * NS_PER_S);
	struct uuid a = rt_random_uuid(rt), b = rt_random_uuid(rt);
	CHECK(!uuid_equal(&a, &b));
}

TEST(a_sleep_lasts_at_least_as_long_as_asked)
{
	run(sleeps_are_not_short);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void idle_costs_nothing(void)
{
	uint64_t start_ns = thread_cpu_ns();
	fiber_sleep(200 * NS_PER_MS);
	CHECK(thread_cpu_ns() - start_ns < 5 * NS_PER_MS);
}

TEST(an_idle_reactor_sleeps_in_the_kernel)
{
	run(idle_costs_nothing);
}

static struct {
	struct rt_timer timers[10];
	size_t fired;
} clockwork;

static void clockwork_tick(struct rt_timer *t)
{
	CHECK_EQ(t - clockwork.timers, clockwork.fired);
	CHECK(rt_now_ns(rt_current()) >= t->deadline_ns);
	clockwork.fired++;
}

static void timers_in_order(void)
{
	struct rt *rt = rt_current();
	uint64_t now_ns = rt_now_exact_ns(rt);
	clockwork.fired = 0;
	for (size_t i = ARRAY_COUNT(clockwork.timers); i-- > 0;) {
		timer_init(&clockwork.timers[i], clockwork_tick);
		timer_arm(rt, &clockwork.timers[i], now_ns + (i + 1) * NS_PER_MS);
	}
	fiber_sleep(20 * NS_PER_MS);
	CHECK_EQ(clockwork.fired, ARRAY_COUNT(clockwork.timers));
}

TEST(timers_fire_in_the_order_of_their_deadlines)
{
	run(timers_in_order);
}

static struct rt_group group;

static void sleep_a_little(void *arg)
{
	fiber_sleep((uintptr_t)arg % 16 * NS_PER_MS);
	group_done(&group);
}

static void many_fibers(void)
{
	group_init(&group);
	group_add(&group, MANY_FIBERS);
	for (uintptr_t i = 0; i < MANY_FIBERS; i++)
		fiber_spawn(rt_current(), "sleeper", sleep_a_little, (void *)i);
	group_wait(&group);
}

TEST(ten_thousand_fibers_sleep_at_once)
{
	run(many_fibers);
}

static struct rt *alarm_target;

static void on_alarm(int signal)
{
	(void)signal;
	host_rt_stop(alarm_target);
}

TEST(a_signal_handler_can_stop_the_loop)
{
	struct sigaction action = {.sa_handler = on_alarm}, old;
	alarm_target = host_rt_new(&(struct host_options){0});
	CHECK(alarm_target);
	sigaction(SIGALRM, &action, &old);
	struct itimerval delay = {.it_value = {.tv_usec = 20000}};
	setitimer(ITIMER_REAL, &delay, NULL);
	host_rt_run(alarm_target);
	sigaction(SIGALRM, &old, NULL);
	host_rt_free(alarm_target);
}

TEST(a_loop_that_was_stopped_runs_again)
{
	struct rt *rt = host_rt_new(&(struct host_options){.plain_ring_fd = true});
	for (int i = 0; i < 3; i++) {
		struct main_fiber m = {sleeps_are_not_short};
		fiber_spawn(rt, "main", main_fiber_run, &m);
		host_rt_run(rt);
	}
	host_rt_free(rt);
}

static void note_thread(void *arg)
{
	*(pthread_t *)arg = pthread_self();
}

static void offload_many(void *arg)
{
	pthread_t thread = pthread_self();
	for (int i = 0; i < 50; i++) {
		rt_offload(note_thread, &thread);
		CHECK(!pthread_equal(thread, pthread_self()));
	}
	group_done(&group);
	(void)arg;
}

static void offload(void)
{
	group_init(&group);
	group_add(&group, 20);
	for (int i = 0; i < 20; i++)
		fiber_spawn(rt_current(), "offload", offload_many, NULL);
	group_wait(&group);
}

TEST(blocking_work_runs_on_another_thread)
{
	run(offload);
}

/* ---- two reactors --------------------------------------------------------------------------------------------------- */

static struct {
	struct rt *rt[2];
	pthread_t thread;
	uint32_t calls, posts;
} pair;

static void *second_main(void *arg)
{
	host_rt_run(arg);
	return NULL;
}

static void pair_run(void (*fn)(void))
{
	struct main_fiber m = {fn};
	memset(&pair, 0, sizeof(pair));
	pair.rt[0] = host_rt_new(&(struct host_options){0});
	pair.rt[1] = host_rt_new(&(struct host_options){0});
	CHECK(pair.rt[0] && pair.rt[1]);
	CHECK(pthread_create(&pair.thread, NULL, second_main, pair.rt[1]) == 0);
	fiber_spawn(pair.rt[0], "main", main_fiber_run, &m);
	host_rt_run(pair.rt[0]);
	host_rt_stop(pair.rt[1]);
	pthread_join(pair.thread, NULL);
	host_rt_free(pair.rt[0]);
	host_rt_free(pair.rt[1]);
}

static void called(void *arg)
{
	CHECK(rt_current() == pair.rt[1]);
	CHECK(pthread_equal(pthread_self(), pair.thread));
	pair.calls++;
	if (pair.calls % 100 == 0)
		fiber_sleep(NS_PER_MS);
	(void)arg;
}

static void posted(void *arg)
{
	CHECK_EQ((uintptr_t)arg, pair.posts);
	pair.posts++;
}

static void call_many(void *arg)
{
	for (int i = 0; i < 200; i++) {
		rt_call(pair.rt[1], called, NULL);
		CHECK(rt_current() == pair.rt[0]);
	}
	group_done(&group);
	(void)arg;
}

static void read_posts(void *arg)
{
	*(uint32_t *)arg = pair.posts;
}

static void two_reactors(void)
{
	group_init(&group);
	group_add(&group, 10);
	for (int i = 0; i < 10; i++)
		fiber_spawn(rt_current(), "caller", call_many, NULL);
	for (uintptr_t i = 0; i < 1000; i++)
		rt_post(pair.rt[1], posted, (void *)i);
	group_wait(&group);
	uint32_t posts;
	rt_call(pair.rt[1], read_posts, &posts);
	CHECK_EQ(posts, 1000);
}

TEST(two_reactors_call_each_other_and_notes_keep_their_order)
{
	pair_run(two_reactors);
}

static void disk_of_two_in_second(void *arg)
{
	struct rt_disk *disk;
	CHECK_ERR(rt_disk_open(rt_current(), arg, 0, 0, &disk), OXE_BUSY);
}

static void disk_of_two(void)
{
	struct rt_disk *disk;
	const char *path = scratch_path("two");
	CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_CREATE, MiB, &disk));
	rt_call(pair.rt[1], disk_of_two_in_second, (void *)(uintptr_t)path);
	rt_disk_close(disk);
}

TEST(a_disk_held_by_one_reactor_is_busy_for_another)
{
	pair_run(disk_of_two);
}

/* ---- disks ---------------------------------------------------------------------------------------------------------- */

static void disk_round_trip(const char *path)
{
	struct rt_disk *disk;
	uint8_t *out = pages(3 * MiB, 0x5a), *in = pages(3 * MiB, 0);
	CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_CREATE, 16 * MiB, &disk));
	CHECK_EQ(rt_disk_info(disk)->size_bytes, 16 * MiB);
	CHECK_STR(rt_disk_info(disk)->path, path);
	for (size_t i = 0; i < 3 * MiB; i += 4096)
		memcpy(out + i, &i, sizeof(i));
	CHECK_OK(rt_disk_write(disk, out, 3 * MiB, 4096, 0));
	CHECK_OK(rt_disk_write(disk, out, 512, 8 * MiB + 512, RT_IO_FUA));
	CHECK_OK(rt_disk_flush(disk));
	CHECK_OK(rt_disk_read(disk, in, 3 * MiB, 4096));
	CHECK(memcmp(in, out, 3 * MiB) == 0);
	CHECK_OK(rt_disk_read(disk, in, 4096, 8 * MiB));
	CHECK(bytes_are_zero(in, 512) && memcmp(in + 512, out, 512) == 0);
	CHECK_OK(rt_disk_discard(disk, MiB, 0));
	CHECK_OK(rt_disk_discard(disk, 0, 0));
	CHECK_OK(rt_disk_read(disk, in, MiB, 0));
	CHECK_ERR(rt_disk_read(disk, in, 4096, 16 * MiB), OXE_IO);
	CHECK_ERR(rt_disk_read(disk, in, 8192, 16 * MiB - 4096), OXE_IO);
	CHECK_OK(rt_disk_grow(disk, 32 * MiB));
	CHECK_EQ(rt_disk_info(disk)->size_bytes, 32 * MiB);
	CHECK_ERR(rt_disk_grow(disk, MiB), OXE_INVAL);
	CHECK_OK(rt_disk_write(disk, out, 4096, 32 * MiB - 4096, 0));
	rt_disk_close(disk);
	CHECK_OK(rt_disk_open(rt_current(), path, 0, 0, &disk));
	CHECK_EQ(rt_disk_info(disk)->size_bytes, 32 * MiB);
	CHECK_OK(rt_disk_read(disk, in, 4096, 32 * MiB - 4096));
	CHECK(memcmp(in, out, 4096) == 0);
	rt_disk_close(disk);
	free(out);
	free(in);
}

static void file_disk(void)
{
	disk_round_trip(scratch_path("disk"));
}

static void memory_disk(void)
{
	disk_round_trip("mem:16777216:round-trip");
}

TEST(a_file_holds_what_was_written_across_close_and_growth)
{
	run(file_disk);
}

TEST(a_memory_disk_does_too)
{
	run(memory_disk);
}

static void open_errors(void)
{
	struct rt *rt = rt_current();
	struct rt_disk *disk, *other;
	const char *path = scratch_path("excl"), *link = scratch_path("link");
	CHECK_ERR(rt_disk_open(rt, scratch_path("none"), 0, 0, &disk), OXE_NOENT);
	CHECK_ERR(rt_disk_open(rt, scratch, 0, 0, &disk), OXE_INVAL);
	CHECK_ERR(rt_disk_open(rt, "/dev/null", 0, 0, &disk), OXE_INVAL);
	CHECK_ERR(rt_disk_open(rt, scratch_path("no/such/dir"), RT_DISK_CREATE, MiB, &disk), OXE_NOENT);
	CHECK_ERR(rt_disk_open(rt, path, RT_DISK_CREATE, 1000, &disk), OXE_INVAL);
	CHECK(access(path, F_OK) != 0);
	CHECK_OK(rt_disk_open(rt, path, RT_DISK_CREATE, MiB, &disk));
	CHECK_ERR(rt_disk_open(rt, path, RT_DISK_CREATE, MiB, &other), OXE_EXISTS);
	CHECK_ERR(rt_disk_open(rt, path, 0, 0, &other), OXE_BUSY);
	CHECK_ERR(rt_disk_open(rt, path, RT_DISK_READONLY, 0, &other), OXE_BUSY);
	CHECK(symlink(path, link) == 0);
	CHECK_ERR(rt_disk_open(rt, link, 0, 0, &other), OXE_BUSY);
	rt_disk_close(disk);
	CHECK_OK(rt_disk_open(rt, link, 0, 0, &disk));
	rt_disk_close(disk);
	CHECK_ERR(rt_disk_open(rt, "mem:1:x", 0, 0, &disk), OXE_INVAL);
	CHECK_ERR(rt_disk_open(rt, "mem:4096:", 0, 0, &disk), OXE_INVAL);
	CHECK_OK(rt_disk_open(rt, "mem:4096:x", 0, 0, &disk));
	CHECK_ERR(rt_disk_open(rt, "mem:4096:x", 0, 0, &other), OXE_BUSY);
	rt_disk_close(disk);
}

TEST(a_disk_is_held_exclusively_and_each_refusal_has_its_error)
{
	run(open_errors);
}

static void readonly_disk(void)
{
	struct rt_disk *disk, *second;
	const char *path = scratch_path("readonly");
	uint8_t *page = pages(4096, 7);
	file_write(path, page, 4096, 0);
	CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_READONLY, 0, &disk));
	CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_READONLY, 0, &second));
	CHECK_ERR(rt_disk_open(rt_current(), path, 0, 0, &second), OXE_BUSY);
	memset(page, 0, 4096);
	CHECK_OK(rt_disk_read(disk, page, 4096, 0));
	CHECK_EQ(page[100], 7);
	CHECK_ERR(rt_disk_write(disk, page, 4096, 0, 0), OXE_ROFS);
	CHECK_ERR(rt_disk_discard(disk, 4096, 0), OXE_ROFS);
	rt_disk_close(disk);
	rt_disk_close(second);
	free(page);
}

TEST(readers_share_a_disk_and_cannot_change_it)
{
	run(readonly_disk);
}

static void device_disk(void)
{
	struct rt_disk *disk, *other;
	const char *path = getenv("OXBOW_TEST_DEVICE");
	uint8_t *out = pages(MiB, 0x5a), *in = pages(MiB, 0);
	CHECK_OK(rt_disk_open(rt_current(), path, 0, 0, &disk));
	CHECK(rt_disk_info(disk)->is_block_device && rt_disk_info(disk)->size_bytes >= 4 * MiB);
	CHECK_ERR(rt_disk_open(rt_current(), path, 0, 0, &other), OXE_BUSY);
	CHECK_OK(rt_disk_write(disk, out, MiB, MiB, RT_IO_FUA));
	CHECK_OK(rt_disk_flush(disk));
	CHECK_OK(rt_disk_read(disk, in, MiB, MiB));
	CHECK(memcmp(in, out, MiB) == 0);
	CHECK_OK(rt_disk_discard(disk, MiB, MiB));
	CHECK_OK(rt_disk_grow(disk, 0));
	rt_disk_close(disk);
	CHECK_OK(rt_disk_open(rt_current(), path, 0, 0, &disk));
	rt_disk_close(disk);
	free(out);
	free(in);
}

/* Overwrites the device named in OXBOW_TEST_DEVICE (a loop device, say); nothing to do without. */
TEST(a_block_device_is_held_exclusively_written_and_discarded)
{
	if (getenv("OXBOW_TEST_DEVICE"))
		run(device_disk);
}

/* Hundreds of requests in one turn, through rings of 8 and 32 entries. */
#define FLOOD 3000

static struct flood_io {
	struct rt_io io;
	bool done;
} flood_ios[FLOOD];
static bool flood_submitting;

static void flood_done(struct rt_io *io)
{
	struct flood_io *f = container_of(io, struct flood_io, io);
	CHECK(!flood_submitting && !f->done);
	CHECK_OK(io->result);
	f->done = true;
	group_done(&group);
}

static void flood(struct rt_disk *disk, enum rt_io_op op, uint8_t *data)
{
	group_init(&group);
	group_add(&group, FLOOD);
	flood_submitting = true;
	for (size_t i = 0; i < FLOOD; i++) {
		flood_ios[i] = (struct flood_io){.io = {.disk = disk,
							.op = op,
							.data = data + i * 4096,
							.offset_bytes = i * 4096,
							.len_bytes = 4096,
							.done = flood_done}};
		rt_io_submit(&flood_ios[i].io);
	}
	flood_submitting = false;
	group_wait(&group);
}

static void overload(void)
{
	static const char *const names[] = {"flood", "mem:12288000:flood"};
	uint8_t *out = pages(FLOOD * 4096, 0), *in = pages(FLOOD * 4096, 0);
	for (size_t i = 0; i < FLOOD; i++)
		memcpy(out + i * 4096, &i, sizeof(i));
	for (size_t n = 0; n < ARRAY_COUNT(names); n++) {
		struct rt_disk *disk;
		const char *path = n ? names[n] : scratch_path(names[n]);
		CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_CREATE, FLOOD * 4096, &disk));
		flood(disk, RT_IO_WRITE, out);
		memset(in, 0, FLOOD * 4096);
		flood(disk, RT_IO_READ, in);
		CHECK(memcmp(in, out, FLOOD * 4096) == 0);
		rt_disk_close(disk);
	}
	free(out);
	free(in);
}

TEST(more_requests_than_the_ring_has_places_all_complete_and_none_inside_submit)
{
	run_with(&(struct host_options){.ring_entries = 8}, overload);
}

/* ---- probing -------------------------------------------------------------------------------------------------------- */

static void probe_expect(const char *path, const char *wanted)
{
	char what[64] = "?";
	CHECK_OK(rt_disk_probe(rt_current(), path, what, sizeof(what)));
	CHECK_STR(what, wanted);
}

/* A file of 4 MiB with these bytes somewhere. */
static const char *file_with(const char *name, const void *data, size_t len_bytes, off_t offset_bytes)
{
	const char *path = scratch_path(name);
	file_write(path, "", 0, 0);
	CHECK(truncate(path, 4 * MiB) == 0);
	file_write(path, data, len_bytes, offset_bytes);
	return path;
}

static void probe_foreign_disks(void)
{
	static const uint8_t ext4_features[] = {0x3c, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0};
	static const uint8_t dos_entry[] = {0, 0, 2, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 16, 0, 0};
	const char *path = file_with("ext4", "\x53\xef", 2, 0x438);
	file_write(path, ext4_features, sizeof(ext4_features), 0x45c);
	file_write(path, "\x00\x04\x00\x00", 4, 0x404);
	probe_expect(path, "ext4 file system");
	path = file_with("luks", "LUKS\xba\xbe\x00\x01", 8, 0);
	probe_expect(path, "crypto_LUKS");
	path = file_with("dos", "\x55\xaa", 2, 510);
	file_write(path, dos_entry, sizeof(dos_entry), 446);
	probe_expect(path, "DOS partition table");
}

static void probe_our_own(void)
{
	char what[64];
	probe_expect(file_with("ours", "OXBOWSB1", 8, 0), "Oxbow pool");
	probe_expect(file_with("ours2", "OXBOWSB1", 8, 64 * KiB), "Oxbow pool");
	probe_expect(file_with("zero", "", 0, 0), "");
	probe_expect(file_with("head", "x", 1, MiB - 1), "non-zero data");
	probe_expect(file_with("tail", "x", 1, 4 * MiB - 1), "non-zero data");
	probe_expect(file_with("middle", "x", 1, 2 * MiB), "");
	file_write(scratch_path("empty"), "", 0, 0);
	probe_expect(scratch_path("empty"), "");
	file_write(scratch_path("tiny"), "hello", 5, 0);
	probe_expect(scratch_path("tiny"), "non-zero data");
	CHECK_ERR(rt_disk_probe(rt_current(), scratch_path("none"), what, sizeof(what)), OXE_NOENT);
	CHECK_ERR(rt_disk_probe(rt_current(), scratch, what, sizeof(what)), OXE_INVAL);
}

static void probe_memory(void)
{
	struct rt_disk *disk;
	uint8_t *page = pages(4096, 0);
	memcpy(page, "OXBOWSB1", 8);
	probe_expect("mem:8192:probe", "");
	CHECK_OK(rt_disk_open(rt_current(), "mem:8192:probe", 0, 0, &disk));
	CHECK_OK(rt_disk_write(disk, page, 4096, 0, 0));
	rt_disk_close(disk);
	probe_expect("mem:8192:probe", "Oxbow pool");
	free(page);
}

TEST(a_probe_names_what_others_wrote)
{
	run(probe_foreign_disks);
}

TEST(a_probe_knows_our_pools_and_is_wary_of_any_other_byte)
{
	run(probe_our_own);
}

TEST(a_memory_disk_can_be_probed)
{
	run(probe_memory);
}

/* ---- network ---------------------------------------------------------------------------------------------------------- */

/* Send back whatever comes, until the end. */
static void echo_conn(void *arg)
{
	struct rt_conn *c = arg;
	uint8_t *buf = pages(64 * KiB, 0);
	size_t got;
	while (rt_recv(c, buf, 64 * KiB, &got) == 0 && got) {
		struct rt_iovec part = {buf, got};
		if (rt_send(c, &part, 1))
			break;
	}
	rt_conn_close(c);
	free(buf);
	group_done(&group);
}

static void echo_server(void *arg)
{
	struct rt_conn *c;
	int err;
	while ((err = rt_accept(arg, &c)) == 0) {
		group_add(&group, 1);
		fiber_spawn(rt_current(), "echo", echo_conn, c);
	}
	CHECK_ERR(err, OXE_SHUTDOWN);
	group_done(&group);
}

static struct rt_listener *echo_start(const char *address)
{
	struct rt_listener *l;
	CHECK_OK(rt_listen(rt_current(), address, &l));
	group_init(&group);
	group_add(&group, 1);
	fiber_spawn(rt_current(), "server", echo_server, l);
	return l;
}

static void recv_all(struct rt_conn *c, uint8_t *data, size_t len_bytes)
{
	for (size_t done = 0, got; done < len_bytes; done += got) {
		CHECK_OK(rt_recv(c, data + done, len_bytes - done, &got));
		CHECK(got > 0);
	}
}

static uint64_t soon(void)
{
	return rt_now_exact_ns(rt_current()) + 5 * NS_PER_S;
}

static void talk(const char *address, const char *peer_prefix)
{
	struct rt_listener *l = echo_start(address);
	struct rt_conn *c;
	char text[16] = "";
	char words[] = "hello, world";
	const struct rt_iovec parts[] = {{words, 0},	 {words, 5},	 {words, 0},
					 {words + 5, 2}, {words + 7, 5}, {words, 0}};
	CHECK_OK(rt_connect(rt_current(), rt_listener_address(l), soon(), &c));
	CHECK(strncmp(rt_conn_peer(c), peer_prefix, strlen(peer_prefix)) == 0);
	bool is_unix = strncmp(peer_prefix, "unix:", 5) == 0;
	CHECK(is_unix ? !*rt_conn_local(c)
		      : strncmp(rt_conn_local(c) + 4, peer_prefix, strlen(peer_prefix)) == 0);
	for (int i = 0; i < 100; i++) {
		CHECK_OK(rt_send(c, parts, ARRAY_COUNT(parts)));
		recv_all(c, (uint8_t *)text, 12);
		CHECK_STR(text, "hello, world");
	}
	rt_conn_close(c);
	rt_listener_close(l);
	group_wait(&group);
}

static void talk_everywhere(void)
{
	char address[128];
	struct rt_listener *l;
	snprintf(address, sizeof(address), "unix:%s", scratch_path("echo.sock"));
	talk(address, "unix:pid=");
	CHECK(access(scratch_path("echo.sock"), F_OK) != 0);
	talk("tcp:127.0.0.1:0", "127.0.0.1:");
	talk("tcp:[::1]:0", "[::1]:");
	talk("tcp:localhost:0", "");
	static const char *const wrong[] = {
		"",	      "unix:",	      "tcp:",		"tcp:127.0.0.1",
		"tcp:::1:80", "tcp:[::1]",    "tcp:[::1]:x",	"tcp:1.2.3.4:65536",
		"udp:x:1",    "tcp:[a.b]:80", "tcp:[1.2.3.4]:5"};
	for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
		CHECK_ERR(rt_listen(rt_current(), wrong[i], &l), OXE_INVAL);
}

TEST(bytes_travel_over_unix_sockets_and_both_kinds_of_tcp)
{
	run(talk_everywhere);
}

struct bulk {
	struct rt_conn *conn;
	uint8_t *data;
	size_t len_bytes;
};

static void bulk_send(void *arg)
{
	struct bulk *b = arg;
	struct rt_iovec parts[40];
	size_t each = b->len_bytes / ARRAY_COUNT(parts);
	for (size_t i = 0; i < ARRAY_COUNT(parts); i++)
		parts[i] = (struct rt_iovec){b->data + i * each, each};
	CHECK_OK(rt_send(b->conn, parts, ARRAY_COUNT(parts)));
	group_done(&group);
}

/* Far more than the sockets hold, so that sends are cut short and wait, in both directions at once. */
static void bulk_over(const char *address)
{
	size_t len_bytes = 40 * 200000;
	struct rt_listener *l = echo_start(address);
	struct bulk b = {.data = pages(u64_align_up(len_bytes, 4096), 0), .len_bytes = len_bytes};
	uint8_t *back = pages(u64_align_up(len_bytes, 4096), 1);
	for (size_t i = 0; i + 8 <= len_bytes; i += 8)
		memcpy(b.data + i, &i, 8);
	CHECK_OK(rt_connect(rt_current(), rt_listener_address(l), soon(), &b.conn));
	group_add(&group, 1);
	fiber_spawn(rt_current(), "bulk", bulk_send, &b);
	recv_all(b.conn, back, len_bytes);
	CHECK(memcmp(b.data, back, len_bytes) == 0);
	rt_conn_shutdown(b.conn);
	rt_listener_close(l);
	group_wait(&group);
	rt_conn_close(b.conn);
	free(b.data);
	free(back);
}

static void bulk(void)
{
	char address[128];
	snprintf(address, sizeof(address), "unix:%s", scratch_path("bulk.sock"));
	bulk_over(address);
	bulk_over("tcp:127.0.0.1:0");
}

TEST(more_than_the_socket_holds_is_sent_whole_and_in_order)
{
	run(bulk);
}

struct half {
	struct rt_conn *conn;
	int err;
};

static void recv_until_error(void *arg)
{
	struct half *h = arg;
	char byte;
	size_t got;
	h->err = rt_recv(h->conn, &byte, 1, &got);
	group_done(&group);
}

static void send_until_error(void *arg)
{
	struct half *h = arg;
	static char block[65536];
	struct rt_iovec part = {block, sizeof(block)};
	while ((h->err = rt_send(h->conn, &part, 1)) == 0)
		;
	group_done(&group);
}

static struct rt_conn *timer_conn;

static void shutdown_by_timer(struct rt_timer *t)
{
	rt_conn_shutdown(timer_conn);
	rt_conn_shutdown(timer_conn);
	(void)t;
}

static void shutdown_over(const char *address)
{
	struct rt_listener *l;
	struct rt_conn *near, *far;
	struct rt_timer timer;
	char byte;
	size_t got;
	CHECK_OK(rt_listen(rt_current(), address, &l));
	CHECK_OK(rt_connect(rt_current(), rt_listener_address(l), soon(), &near));
	CHECK_OK(rt_accept(l, &far));
	struct half in = {.conn = near}, out = {.conn = near};
	group_init(&group);
	group_add(&group, 2);
	fiber_spawn(rt_current(), "in", recv_until_error, &in);
	fiber_spawn(rt_current(), "out", send_until_error, &out);
	timer_conn = near;
	timer_init(&timer, shutdown_by_timer);
	timer_arm(rt_current(), &timer, rt_now_exact_ns(rt_current()) + 20 * NS_PER_MS);
	group_wait(&group);
	CHECK_ERR(in.err, OXE_CLOSED);
	CHECK_ERR(out.err, OXE_CLOSED);
	CHECK_ERR(rt_recv(near, &byte, 1, &got), OXE_CLOSED);
	CHECK_ERR(rt_send(near, &(struct rt_iovec){&byte, 1}, 1), OXE_CLOSED);
	rt_conn_close(near);
	rt_conn_close(far);
	rt_listener_close(l);
}

static void shutdowns(void)
{
	char address[128];
	snprintf(address, sizeof(address), "unix:%s", scratch_path("shut.sock"));
	shutdown_over(address);
	shutdown_over("tcp:127.0.0.1:0");
}

TEST(a_shutdown_wakes_the_receiver_and_the_sender)
{
	run(shutdowns);
}

static void peer_end(void)
{
	struct rt_listener *l;
	struct rt_conn *near, *far;
	char bytes[8] = "bye";
	size_t got;
	CHECK_OK(rt_listen(rt_current(), "tcp:127.0.0.1:0", &l));
	CHECK_OK(rt_connect(rt_current(), rt_listener_address(l), soon(), &near));
	CHECK_OK(rt_accept(l, &far));
	CHECK_OK(rt_send(near, &(struct rt_iovec){bytes, 3}, 1));
	rt_conn_close(near);
	CHECK_OK(rt_recv(far, bytes, sizeof(bytes), &got));
	CHECK_EQ(got, 3);
	CHECK_OK(rt_recv(far, bytes, sizeof(bytes), &got));
	CHECK_EQ(got, 0);
	rt_conn_close(far);
	rt_listener_close(l);
}

TEST(the_peers_orderly_end_is_zero_bytes)
{
	run(peer_end);
}

static void connect_errors(void)
{
	struct rt *rt = rt_current();
	struct rt_listener *l;
	struct rt_conn *c;
	char address[128];
	snprintf(address, sizeof(address), "unix:%s", scratch_path("nobody.sock"));
	CHECK_ERR(rt_connect(rt, address, soon(), &c), OXE_NOENT);
	CHECK_OK(rt_listen(rt, "tcp:127.0.0.1:0", &l));
	snprintf(address, sizeof(address), "%s", rt_listener_address(l));
	rt_listener_close(l);
	CHECK_ERR(rt_connect(rt, address, soon(), &c), OXE_CLOSED);
	CHECK_ERR(rt_connect(rt, "nonsense", soon(), &c), OXE_INVAL);
}

TEST(a_connection_nobody_answers_is_refused_with_its_reason)
{
	run(connect_errors);
}

/* A listener whose backlog is full: the kernel makes a connect wait. */
static void connect_deadline(void)
{
	struct rt *rt = rt_current();
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char address[128];
	struct rt_conn *c[2];
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s", scratch_path("full.sock"));
	snprintf(address, sizeof(address), "unix:%s", addr.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 0) == 0);
	CHECK_OK(rt_connect(rt, address, soon(), &c[0]));
	uint64_t start_ns = rt_now_exact_ns(rt);
	CHECK_ERR(rt_connect(rt, address, start_ns + 30 * NS_PER_MS, &c[1]), OXE_TIMEOUT);
	CHECK(rt_now_exact_ns(rt) - start_ns >= 30 * NS_PER_MS);
	rt_conn_close(c[0]);
	close(fd);
}

TEST(a_connect_gives_up_at_its_deadline)
{
	run(connect_deadline);
}

static void stale_socket(void)
{
	struct rt *rt = rt_current();
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct rt_listener *l, *second;
	struct stat st;
	char address[128];
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s", scratch_path("stale.sock"));
	snprintf(address, sizeof(address), "unix:%s", addr.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	CHECK_ERR(rt_listen(rt, address, &l), OXE_BUSY);
	close(fd);
	CHECK_OK(rt_listen(rt, address, &l));
	CHECK_ERR(rt_listen(rt, address, &second), OXE_BUSY);
	CHECK(stat(addr.sun_path, &st) == 0);
	CHECK_EQ(st.st_mode & 07777, 0660);
	rt_listener_close(l);
	file_write(addr.sun_path, "mine", 4, 0);
	CHECK_ERR(rt_listen(rt, address, &l), OXE_EXISTS);
	CHECK(stat(addr.sun_path, &st) == 0 && st.st_size == 4);
}

TEST(a_stale_socket_is_replaced_a_live_one_is_busy_and_a_file_is_left_alone)
{
	run(stale_socket);
}

static void out_of_descriptors(void)
{
	struct rt *rt = rt_current();
	struct rt_listener *l;
	struct rt_conn *near, *far;
	struct rlimit old, low;
	CHECK_OK(rt_listen(rt, "tcp:127.0.0.1:0", &l));
	CHECK_OK(rt_connect(rt, rt_listener_address(l), soon(), &near));
	CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	low = old;
	low.rlim_cur = 3;
	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	CHECK_ERR(rt_accept(l, &far), OXE_SYS);
	CHECK_ERR(rt_accept(l, &far), OXE_SYS);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	CHECK_OK(rt_accept(l, &far));
	rt_conn_close(near);
	rt_conn_close(far);
	rt_listener_close(l);
	CHECK_ERR(rt_accept(l, &far), OXE_SHUTDOWN);
}

TEST(accept_recovers_when_descriptors_are_free_again)
{
	run(out_of_descriptors);
}

static uint64_t file_held_bytes(const char *path)
{
	struct stat st;
	CHECK(stat(path, &st) == 0);
	return (uint64_t)st.st_blocks * 512;
}

static void expected_space(void)
{
	struct rt_disk *d;
	const char *path = scratch_path("expected");
	CHECK_OK(rt_disk_open(rt_current(), path, RT_DISK_CREATE, 16 * MiB, &d));
	struct statfs fs;
	CHECK(statfs(path, &fs) == 0);
	rt_disk_expect(d, 4 * MiB, 14 * MiB); /* beyond the end it is cut */
	rt_disk_close(d);
	while (fs.f_type != TMPFS_MAGIC &&
	       file_held_bytes(path) < 2 * MiB) /* the harness ends a test that hangs */
		fiber_sleep(NS_PER_MS);
	CHECK(file_held_bytes(path) < 3 * MiB);
	unlink(path);
}

TEST(a_sparse_file_takes_the_space_that_is_about_to_be_written)
{
	run(expected_space);
}

/* ---- spinning ------------------------------------------------------------------------------------------------------- */

/* Of `waits` waits, how many were spun for; `came(i)` says how each ended. */
static unsigned spins_of(struct host_spin *s, unsigned waits, bool (*came)(unsigned i))
{
	unsigned spins = 0;
	for (unsigned i = 0; i < waits; i++) {
		if (!spin_wanted(s))
			continue;
		spins++;
		spin_learn(s, came(i));
	}
	return spins;
}

static bool never(unsigned i)
{
	(void)i;
	return false;
}

static bool always(unsigned i)
{
	(void)i;
	return true;
}

static bool every_other(unsigned i)
{
	return i % 2;
}

static bool nearly_always(unsigned i)
{
	return i % 20;
}

TEST(a_reactor_spins_only_where_it_nearly_always_pays)
{
	struct host_spin s = {0};
	CHECK(spins_of(&s, 100000, never) < 500);
	CHECK(spins_of(&s, 100000, every_other) < 5000);
	CHECK(spins_of(&s, 100000, nearly_always) > 90000);
	CHECK(spins_of(&s, 1000, always) > 700); /* it finds out within SPIN_SKIP_MAX waits */
}

/* ---- a killed process ------------------------------------------------------------------------------------------------ */

#define VICTIM_WRITERS	   32
#define VICTIM_WRITE_BYTES (64 * KiB)

/* Where the one that will be killed listens; it tells over the pipe when it holds all it should. */
struct victim {
	char unix_address[128], tcp_address[128];
};
static struct victim victim;
static const char *victim_disk;
static int victim_pipe;

static void accept_for_ever(void *arg)
{
	struct rt_conn *c;
	while (rt_accept(arg, &c) == 0)
		;
}

static void write_for_ever(void *arg)
{
	struct rt_disk *disk = arg;
	void *data = pages(VICTIM_WRITE_BYTES, 3);
	for (uint64_t i = 0;; i++)
		CHECK_OK(rt_disk_write(disk, data, VICTIM_WRITE_BYTES, i % 256 * VICTIM_WRITE_BYTES, 0));
}

static void listen_and_accept(const char *address, char bound[128])
{
	struct rt_listener *l;
	CHECK_OK(rt_listen(rt_current(), address, &l));
	fiber_spawn(rt_current(), "accept", accept_for_ever, l);
	snprintf(bound, 128, "%s", rt_listener_address(l));
}

static void victim_main(void)
{
	struct victim v;
	struct rt_disk *disk;
	char address[128];
	snprintf(address, sizeof(address), "unix:%s", scratch_path("victim.sock"));
	listen_and_accept(address, v.unix_address);
	listen_and_accept("tcp:127.0.0.1:0", v.tcp_address);
	CHECK_OK(rt_disk_open(rt_current(), victim_disk, RT_DISK_CREATE, 256 * VICTIM_WRITE_BYTES, &disk));
	for (int i = 0; i < VICTIM_WRITERS; i++)
		fiber_spawn(rt_current(), "write", write_for_ever, disk);
	fiber_sleep(20 * NS_PER_MS); /* so that it dies in the middle of its work */
	CHECK_EQ(write(victim_pipe, &v, sizeof(v)), sizeof(v));
	fiber_sleep(60 * NS_PER_S);
}

static void victim_kill(void)
{
	int ends[2], status;
	CHECK(pipe(ends) == 0);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		victim_pipe = ends[1];
		run(victim_main);
		_exit(1);
	}
	close(ends[1]);
	CHECK_EQ(read(ends[0], &victim, sizeof(victim)), sizeof(victim));
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	close(ends[0]);
}

static void check_refused(int family, const void *address, socklen_t len_bytes)
{
	int fd = socket(family, SOCK_STREAM, 0);
	CHECK(connect(fd, address, len_bytes) != 0);
	CHECK_EQ(errno, ECONNREFUSED);
	close(fd);
}

static void check_nobody_listens(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	snprintf(un.sun_path, sizeof(un.sun_path), "%.100s", victim.unix_address + strlen("unix:"));
	in.sin_port = htons((uint16_t)atoi(strrchr(victim.tcp_address, ':') + 1));
	check_refused(AF_UNIX, &un, sizeof(un));
	check_refused(AF_INET, &in, sizeof(in));
}

/* On other file systems the lock goes with the ring, a little later. */
static void check_lock_is_free(void)
{
	struct statfs fs;
	int fd = open(victim_disk, O_RDWR);
	CHECK(fd >= 0 && fstatfs(fd, &fs) == 0);
	if (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC)
		CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
	close(fd);
}

static void succeed_victim(void)
{
	struct rt_listener *l[2];
	struct rt_disk *disk;
	CHECK_OK(rt_listen(rt_current(), victim.unix_address, &l[0]));
	CHECK_OK(rt_listen(rt_current(), victim.tcp_address, &l[1]));
	CHECK_OK(rt_disk_open(rt_current(), victim_disk, 0, 0, &disk));
	rt_disk_close(disk);
	rt_listener_close(l[0]);
	rt_listener_close(l[1]);
}

TEST(what_a_killed_process_held_is_free_the_moment_it_is_gone)
{
	victim_disk = scratch_path("victim");
	victim_kill();
	check_nobody_listens();
	check_lock_is_free();
	run(succeed_victim);
	CHECK(unlink(victim_disk) == 0);
}

/* ---- the survivor ------------------------------------------------------------------------------------------------------------------ */

/* It greets each client, ends the first connection itself, and waits for what the second says. */
static void greeter_main(void)
{
	struct rt_listener *l;
	struct rt_conn *first, *second;
	char h = 'h';
	struct rt_iovec hello = {&h, 1};
	size_t got;
	CHECK_OK(rt_listen(rt_current(), "tcp:127.0.0.1:0", &l));
	uint16_t port = (uint16_t)atoi(strrchr(rt_listener_address(l), ':') + 1);
	CHECK_EQ(write(victim_pipe, &port, sizeof(port)), sizeof(port));
	CHECK_OK(rt_accept(l, &first));
	CHECK_OK(rt_send(first, &hello, 1));
	rt_conn_close(first);
	CHECK_OK(rt_accept(l, &second));
	CHECK_OK(rt_send(second, &hello, 1));
	CHECK(rt_recv(second, &(char){0}, 1, &got) != 0);
}

static pid_t greeter_start(uint16_t *port)
{
	int ends[2];
	CHECK(pipe2(ends, O_CLOEXEC) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		victim_pipe = ends[1];
		CHECK_OK(host_survivor_start());
		run(greeter_main);
		_exit(1);
	}
	close(ends[1]);
	CHECK_EQ(read(ends[0], port, sizeof(*port)), sizeof(*port));
	close(ends[0]);
	return pid;
}

static int greeted_connect(uint16_t port)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
	const struct timeval patience = {.tv_sec = 20};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char byte;
	CHECK(connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	CHECK_EQ(recv(fd, &byte, 1, 0), 1);
	return fd;
}

/* All of its TCP sockets, as a ring that is not taken apart yet has them. */
static size_t sockets_hold(pid_t pid, int *held, size_t max)
{
	size_t count = 0;
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(pidfd >= 0);
	for (int fd = 0; fd < 100; fd++) {
		int family, copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		socklen_t len_bytes = sizeof(family);
		bool is_tcp = copy >= 0 &&
			      getsockopt(copy, SOL_SOCKET, SO_DOMAIN, &family, &len_bytes) == 0 &&
			      family == AF_INET;
		if (is_tcp && count < max)
			held[count++] = copy;
		else if (copy >= 0)
			close(copy);
	}
	close(pidfd);
	return count;
}

TEST(a_connection_ends_with_its_process_though_something_still_holds_the_socket)
{
	uint16_t port;
	char byte;
	int held[8];
	pid_t pid = greeter_start(&port);
	int ended = greeted_connect(port);
	CHECK_EQ(recv(ended, &byte, 1, 0), 0); /* by the server, while the survivor has it, too */
	int fd = greeted_connect(port);
	size_t count = sockets_hold(pid, held, ARRAY_COUNT(held));
	CHECK_EQ(count, 2); /* the listener is one */
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	CHECK_EQ(recv(fd, &byte, 1, 0), 0);
	while (count > 0)
		close(held[--count]);
	close(ended);
	close(fd);
}

/* ---- buffers -------------------------------------------------------------------------------------------------------- */

static struct rt_bufpool *pool;
static unsigned turn;

static void borrow(void *arg)
{
	void *buf = rt_buf_get(pool, 64 * KiB);
	CHECK_EQ((uintptr_t)arg, turn);
	turn++;
	memset(buf, 1, 64 * KiB);
	fiber_sleep(NS_PER_MS);
	rt_buf_put(pool, buf, 64 * KiB);
	group_done(&group);
}

static void back_pressure(void)
{
	pool = rt_bufpool_new(rt_current(), 256 * KiB);
	turn = 0;
	group_init(&group);
	group_add(&group, 40);
	for (uintptr_t i = 0; i < 40; i++)
		fiber_spawn(rt_current(), "borrow", borrow, (void *)i);
	group_wait(&group);
	rt_bufpool_free(pool);
}

static uint64_t resident_bytes(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	CHECK(file && fscanf(file, "%*u %llu", &pages) == 1);
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void burst(void)
{
	void *bufs[64];
	pool = rt_bufpool_new(rt_current(), 64 * MiB);
	for (unsigned i = 0; i < 64; i++) {
		bufs[i] = rt_buf_get(pool, MiB);
		memset(bufs[i], 1, MiB);
	}
	uint64_t peak_bytes = resident_bytes();
	for (unsigned i = 0; i < 64; i++)
		rt_buf_put(pool, bufs[i], MiB);
	uint64_t deadline_ns = rt_now_ns(rt_current()) + 20 * NS_PER_S;
	while (resident_bytes() > peak_bytes - 48 * MiB && rt_now_ns(rt_current()) < deadline_ns)
		fiber_sleep(50 * NS_PER_MS);
	CHECK(resident_bytes() <= peak_bytes - 48 * MiB);
	rt_bufpool_free(pool);
}

TEST(the_memory_of_a_burst_goes_back_to_the_system)
{
	run(burst);
}

TEST(an_empty_buffer_pool_is_back_pressure_in_order)
{
	run(back_pressure);
}

/* ---- block devices that we serve: what there is to see without a driver; the rest is tests/ublk_kernel_test.py's ---------- */

static void no_driver(void)
{
	struct rt *rt = rt_current();
	struct rt_blk_spec spec = {.number = RT_BLK_ANY_NUMBER, .lba_bytes = 512, .size_bytes = MiB};
	struct rt_blk_info info;
	struct rt_blk *blk;
	bool can_grow;
	size_t count;
	CHECK_ERR(rt_blk_probe(rt, &can_grow), OXE_UNSUPPORTED);
	CHECK_ERR(rt_blk_list(rt, &info, 1, &count), OXE_UNSUPPORTED);
	CHECK_EQ(count, 0);
	CHECK_ERR(rt_blk_make(rt, &spec, &blk), OXE_UNSUPPORTED);
	CHECK_ERR(rt_blk_recover(rt, 0, 0, &blk), OXE_UNSUPPORTED);
	CHECK_ERR(rt_blk_remove(rt, 0), OXE_UNSUPPORTED);
}

TEST(a_kernel_without_ublk_makes_no_block_devices_and_says_so)
{
	if (access("/dev/ublk-control", F_OK) != 0)
		run(no_driver);
}
