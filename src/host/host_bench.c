/*
 * host_bench.c: what the door itself costs. Run by hand: host_bench [DIRECTORY [SUBSTRING]]
 *
 * Each line is the median of five rounds; files of 64 MiB are made in DIRECTORY (default /tmp) and removed.
 */
#include "base/prng.h"
#include "host/host.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define ROUNDS	   5
#define FILE_BYTES (64 * MiB)

static const char *directory = "/tmp", *wanted = "";
static struct rt *second;
static struct rt_group group;

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Time `count` of something per call of `fn`, five times; print the median per one. */
static void measure(const char *name, uint64_t count, void (*fn)(uint64_t count))
{
	double ns[ROUNDS];
	if (!strstr(name, wanted))
		return;
	fn(count / 10 + 1);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t start_ns = rt_now_exact_ns(rt_current());
		fn(count);
		ns[i] = (double)(rt_now_exact_ns(rt_current()) - start_ns) / (double)count;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare_double);
	printf("%-44s %10.1f ns  %10.0f /s\n", name, ns[ROUNDS / 2], 1e9 / ns[ROUNDS / 2]);
	fflush(stdout);
}

static void must(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "host_bench: %s: %s\n", what, err_text(err));
		exit(1);
	}
}

/* ---- fibers ------------------------------------------------------------------------------------------------------- */

static void yield_many(void *arg)
{
	for (uint64_t i = *(uint64_t *)arg; i; i--)
		fiber_yield();
	group_done(&group);
}

static void bench_yields(uint64_t count, unsigned fibers)
{
	uint64_t each = count / fibers;
	group_init(&group);
	group_add(&group, fibers);
	for (unsigned i = 0; i < fibers; i++)
		fiber_spawn(rt_current(), "yield", yield_many, &each);
	group_wait(&group);
}

static void bench_yield_2(uint64_t count)
{
	bench_yields(count, 2);
}

static void bench_yield_1000(uint64_t count)
{
	bench_yields(count, 1000);
}

static void spawned(void *arg)
{
	group_done(&group);
	(void)arg;
}

static void bench_spawn(uint64_t count)
{
	group_init(&group);
	for (uint64_t i = 0; i < count; i++) {
		group_add(&group, 1);
		fiber_spawn(rt_current(), "spawned", spawned, NULL);
		if (i % 64 == 63)
			group_wait(&group);
	}
	group_wait(&group);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void bench_call(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		rt_call(second, nothing, NULL);
}

static void bench_offload(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		rt_offload(nothing, NULL);
}

/* ---- sockets ------------------------------------------------------------------------------------------------------ */

#define ASK_BYTES    4160 /* a 4 KiB write with its header */
#define ANSWER_BYTES 64

static struct rt_listener *listener;
static struct rt_conn *client;
static char ask[ASK_BYTES], answer[ANSWER_BYTES];

static int recv_all(struct rt_conn *c, char *data, size_t len_bytes)
{
	for (size_t done = 0, got; done < len_bytes; done += got) {
		if (rt_recv(c, data + done, len_bytes - done, &got) || got == 0)
			return OXE_CLOSED;
	}
	return 0;
}

/* As a frontend would: one large buffer, and the answers to all whole requests in it in one send. */
static void answer_requests(void *arg)
{
	static char replies[64 * ANSWER_BYTES];
	struct rt_conn *c = arg;
	size_t room = 256 * KiB, got, have = 0;
	char *buf = mem_alloc(room);
	while (rt_recv(c, buf, room, &got) == 0 && got) {
		have += got;
		size_t whole = have / ASK_BYTES;
		have -= whole * ASK_BYTES;
		if (whole && rt_send(c, &(struct rt_iovec){replies, whole * ANSWER_BYTES}, 1))
			break;
	}
	rt_conn_close(c);
	free(buf);
}

static void serve(void *arg)
{
	struct rt_conn *c;
	while (rt_accept(arg, &c) == 0)
		fiber_spawn(rt_current(), "answer", answer_requests, c);
}

static void serve_on_second(void *arg)
{
	must(rt_listen(rt_current(), arg, &listener), "listen");
	fiber_spawn(rt_current(), "serve", serve, listener);
}

static void stop_serving(void *arg)
{
	rt_listener_close(arg);
}

static void bench_ping_pong(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		must(rt_send(client, &(struct rt_iovec){ask, sizeof(ask)}, 1), "send");
		must(recv_all(client, answer, sizeof(answer)), "receive");
	}
}

#define ASKS_A_SEND 16

static void send_asks(void *arg)
{
	struct rt_iovec asks[ASKS_A_SEND];
	for (size_t i = 0; i < ASKS_A_SEND; i++)
		asks[i] = (struct rt_iovec){ask, sizeof(ask)};
	for (uint64_t left = *(uint64_t *)arg, now; left; left -= now) {
		now = u64_min(left, ASKS_A_SEND);
		must(rt_send(client, asks, now), "send");
	}
	group_done(&group);
}

static void bench_pipelined(uint64_t count)
{
	static char answers[64 * KiB];
	size_t got;
	group_init(&group);
	group_add(&group, 1);
	fiber_spawn(rt_current(), "ask", send_asks, &count);
	for (uint64_t left = count * ANSWER_BYTES; left; left -= got)
		must(rt_recv(client, answers, u64_min(left, sizeof(answers)), &got), "receive");
	group_wait(&group);
}

#define MANY_CLIENTS 32

static void ask_and_wait(void *arg)
{
	char reply[ANSWER_BYTES];
	struct rt_conn *c;
	must(rt_connect(rt_current(), rt_listener_address(listener), UINT64_MAX, &c), "connect");
	for (uint64_t i = *(uint64_t *)arg; i; i--) {
		must(rt_send(c, &(struct rt_iovec){ask, sizeof(ask)}, 1), "send");
		must(recv_all(c, reply, sizeof(reply)), "receive");
	}
	rt_conn_close(c);
	group_done(&group);
}

static void bench_many_clients(uint64_t count)
{
	uint64_t each = count / MANY_CLIENTS;
	group_init(&group);
	group_add(&group, MANY_CLIENTS);
	for (int i = 0; i < MANY_CLIENTS; i++)
		fiber_spawn(rt_current(), "client", ask_and_wait, &each);
	group_wait(&group);
}

/* One side on each reactor, and so a thread each: two processors, one waking the other. */
static void bench_socket(const char *kind, const char *address)
{
	char name[64];
	rt_call(second, serve_on_second, (void *)(uintptr_t)address);
	must(rt_connect(rt_current(), rt_listener_address(listener), UINT64_MAX, &client), "connect");
	snprintf(name, sizeof(name), "%s 4160->64 ping-pong, two reactors", kind);
	measure(name, 20000, bench_ping_pong);
	snprintf(name, sizeof(name), "%s 4160->64 pipelined, two reactors", kind);
	measure(name, 200000, bench_pipelined);
	snprintf(name, sizeof(name), "%s 4160->64, 32 clients, two reactors", kind);
	measure(name, 200000, bench_many_clients);
	rt_conn_close(client);
	rt_call(second, stop_serving, listener);
	must(rt_listen(rt_current(), address, &listener), "listen");
	fiber_spawn(rt_current(), "serve", serve, listener);
	must(rt_connect(rt_current(), rt_listener_address(listener), UINT64_MAX, &client), "connect");
	snprintf(name, sizeof(name), "%s 4160->64 ping-pong, one reactor", kind);
	measure(name, 20000, bench_ping_pong);
	rt_conn_close(client);
	rt_listener_close(listener);
	fiber_sleep(NS_PER_MS);
}

/* ---- disks -------------------------------------------------------------------------------------------------------- */

static struct rt_disk *disk;

struct reader {
	void *page;
	uint64_t count;
	struct prng rng;
	bool writes;
};

static void read_randomly(void *arg)
{
	struct reader *r = arg;
	for (; r->count; r->count--) {
		uint64_t offset_bytes = prng_below(&r->rng, FILE_BYTES / 4096) * 4096;
		if (r->writes)
			must(rt_disk_write(disk, r->page, 4096, offset_bytes, 0), "write");
		else
			must(rt_disk_read(disk, r->page, 4096, offset_bytes), "read");
	}
	group_done(&group);
}

static void bench_disk(uint64_t count, unsigned depth, bool writes)
{
	static struct reader readers[32];
	group_init(&group);
	group_add(&group, depth);
	for (unsigned i = 0; i < depth; i++) {
		readers[i] = (struct reader){aligned_alloc(4096, 4096), count / depth, {{0}}, writes};
		memset(readers[i].page, 1, 4096);
		prng_seed(&readers[i].rng, i + 1);
		fiber_spawn(rt_current(), "reader", read_randomly, &readers[i]);
	}
	group_wait(&group);
	for (unsigned i = 0; i < depth; i++)
		free(readers[i].page);
}

static void bench_read_1(uint64_t count)
{
	bench_disk(count, 1, false);
}

static void bench_read_32(uint64_t count)
{
	bench_disk(count, 32, false);
}

static void bench_write_32(uint64_t count)
{
	bench_disk(count, 32, true);
}

static void bench_flush(uint64_t count)
{
	while (count--)
		must(rt_disk_flush(disk), "flush");
}

static void disk_fill(void)
{
	void *zeroes = aligned_alloc(4096, MiB);
	memset(zeroes, 1, MiB);
	for (uint64_t at = 0; at < FILE_BYTES; at += MiB)
		must(rt_disk_write(disk, zeroes, MiB, at, 0), "fill");
	must(rt_disk_flush(disk), "flush");
	free(zeroes);
}

static void bench_disk_at(const char *kind, const char *path, uint64_t count)
{
	char name[64];
	unlink(path);
	must(rt_disk_open(rt_current(), path, RT_DISK_CREATE, FILE_BYTES, &disk), path);
	disk_fill();
	snprintf(name, sizeof(name), "%s 4k random read, depth 1", kind);
	measure(name, count, bench_read_1);
	snprintf(name, sizeof(name), "%s 4k random read, depth 32", kind);
	measure(name, count, bench_read_32);
	snprintf(name, sizeof(name), "%s 4k random write, depth 32", kind);
	measure(name, count, bench_write_32);
	snprintf(name, sizeof(name), "%s flush", kind);
	measure(name, 100, bench_flush);
	rt_disk_close(disk);
	unlink(path);
}

/* ---- all of it ---------------------------------------------------------------------------------------------------- */

static void bench_all(void *arg)
{
	char path[200], address[256];
	measure("fiber switch (yield), 2 fibers", 5000000, bench_yield_2);
	measure("fiber switch (yield), 1000 fibers", 5000000, bench_yield_1000);
	measure("fiber spawn, run and end", 2000000, bench_spawn);
	measure("rt_call to an idle reactor and back", 20000, bench_call);
	measure("rt_offload and back", 20000, bench_offload);
	snprintf(path, sizeof(path), "%s/oxbow-bench-%d", directory, getpid());
	snprintf(address, sizeof(address), "unix:%s.sock", path);
	bench_socket("unix", address);
	bench_socket("tcp", "tcp:127.0.0.1:0");
	bench_disk_at("file", path, 20000);
	snprintf(path, sizeof(path), "/dev/shm/oxbow-bench-%d", getpid());
	bench_disk_at("tmpfs", path, 100000);
	snprintf(path, sizeof(path), "mem:%llu:bench", (unsigned long long)FILE_BYTES);
	bench_disk_at("memory", path, 1000000);
	host_rt_stop(second);
	host_rt_stop(rt_current());
	(void)arg;
}

static void *second_main(void *arg)
{
	host_rt_run(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	if (argc > 1)
		directory = argv[1];
	if (argc > 2)
		wanted = argv[2];
	struct rt *first = host_rt_new(&(struct host_options){0});
	second = host_rt_new(&(struct host_options){0});
	if (!first || !second || pthread_create(&thread, NULL, second_main, second))
		return 1;
	fiber_spawn(first, "bench", bench_all, NULL);
	host_rt_run(first);
	pthread_join(thread, NULL);
	host_rt_free(first);
	host_rt_free(second);
	return 0;
}
