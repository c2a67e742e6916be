/* engine_testrt.c: see engine_testrt.h. */
#include "data/engine/engine_testrt.h"

#include "base/prng.h"
#include "rt/rt_platform.h"

#include <stdio.h>
#include <sys/mman.h>

#define PIPE_BYTES (64 * KiB)

struct testrt {
	struct rt rt;
	struct prng rng;
	bool cut;
	bool is_frozen; /* or was: each fiber is run by a turn of its own, timers first */
	struct list ios, listeners;
	unsigned conns, exhausted;
};

static struct testrt the;

/* One direction. */
struct pipe {
	uint8_t *bytes;
	size_t start, len;
	bool ended; /* the writer's end, or the reader's disinterest */
	struct waitq changed;
};

struct wire {
	struct pipe to[2];
	unsigned ends;
};

struct rt_conn_mem {
	struct rt_conn conn;
	struct wire *wire;
	unsigned side; /* receives from to[side] */
	bool shut;
	char local[64];
};

struct rt_listener_mem {
	struct rt_listener listener;
	struct list link, backlog;
	struct waitq arrived;
	char address[64];
	bool closed;
	unsigned accepting;
};

struct backlog_item {
	struct list link;
	struct rt_conn_mem *conn;
};

/* ---- connections ------------------------------------------------------------------------------------------------------- */

static void pipe_init(struct pipe *p)
{
	*p = (struct pipe){.bytes = mem_alloc(PIPE_BYTES)};
	waitq_init(&p->changed);
}

static struct rt_conn_mem *end_new(struct wire *w, unsigned side)
{
	struct rt_conn_mem *c = mem_zalloc(sizeof(*c));
	c->conn.rt = &the.rt;
	c->wire = w;
	c->side = side;
	w->ends++;
	the.conns++;
	return c;
}

static void pipe_end(struct pipe *p)
{
	p->ended = true;
	waitq_wake_all(&p->changed);
}

static void test_conn_shutdown(struct rt_conn *conn)
{
	struct rt_conn_mem *c = container_of(conn, struct rt_conn_mem, conn);
	c->shut = true;
	pipe_end(&c->wire->to[0]);
	pipe_end(&c->wire->to[1]);
}

static void test_conn_close(struct rt_conn *conn)
{
	struct rt_conn_mem *c = container_of(conn, struct rt_conn_mem, conn);
	test_conn_shutdown(conn);
	if (--c->wire->ends == 0) {
		free(c->wire->to[0].bytes);
		free(c->wire->to[1].bytes);
		free(c->wire);
	}
	the.conns--;
	free(c);
}

static int test_recv(struct rt_conn *conn, void *data, size_t len_bytes, size_t *got_bytes)
{
	struct rt_conn_mem *c = container_of(conn, struct rt_conn_mem, conn);
	struct pipe *p = &c->wire->to[c->side];
	while (p->len == 0 && !p->ended && !c->shut)
		waitq_wait(&p->changed);
	if (c->shut)
		return OXE_CLOSED;
	size_t n = u64_min(u64_min(len_bytes, p->len), PIPE_BYTES - p->start);
	if (the.cut && n > 1 && prng_one_in(&the.rng, 2))
		n = 1 + prng_below(&the.rng, n);
	memcpy(data, p->bytes + p->start, n);
	p->start = (p->start + n) % PIPE_BYTES;
	p->len -= n;
	waitq_wake_all(&p->changed);
	*got_bytes = n;
	return 0;
}

static int pipe_put(struct rt_conn_mem *c, struct pipe *p, const uint8_t *data, size_t len_bytes)
{
	while (len_bytes > 0) {
		while (p->len == PIPE_BYTES && !p->ended && !c->shut)
			waitq_wait(&p->changed);
		if (p->ended || c->shut)
			return OXE_CLOSED;
		size_t at = (p->start + p->len) % PIPE_BYTES;
		size_t n = u64_min(u64_min(len_bytes, PIPE_BYTES - p->len), PIPE_BYTES - at);
		memcpy(p->bytes + at, data, n);
		p->len += n;
		data += n;
		len_bytes -= n;
		waitq_wake_all(&p->changed);
	}
	return 0;
}

static int test_send(struct rt_conn *conn, const struct rt_iovec *parts, size_t part_count)
{
	struct rt_conn_mem *c = container_of(conn, struct rt_conn_mem, conn);
	int err = 0;
	for (size_t i = 0; err == 0 && i < part_count; i++)
		err = pipe_put(c, &c->wire->to[1 - c->side], parts[i].data, parts[i].len_bytes);
	return err;
}

/* Who comes to a loopback address is on it; others come from one host elsewhere. */
static const char *test_conn_peer(const struct rt_conn *conn)
{
	const struct rt_conn_mem *c = container_of(conn, const struct rt_conn_mem, conn);
	if (strncmp(c->local, "tcp:", 4) != 0)
		return "test";
	return strncmp(c->local, "tcp:127.", 8) == 0 ? "127.0.0.1:50000" : "10.9.9.9:50000";
}

/* The address that was connected to: here a wildcard is reached as 127.0.0.1. */
static const char *test_conn_local(const struct rt_conn *conn)
{
	return container_of(conn, const struct rt_conn_mem, conn)->local;
}

/* ---- listeners ---------------------------------------------------------------------------------------------------------- */

static int test_listen(struct rt *rt, const char *address, struct rt_listener **out)
{
	struct rt_listener_mem *l = mem_zalloc(sizeof(*l));
	l->listener.rt = rt;
	snprintf(l->address, sizeof(l->address), "%s", address);
	list_init(&l->backlog);
	waitq_init(&l->arrived);
	list_add_tail(&the.listeners, &l->link);
	*out = &l->listener;
	return 0;
}

static const char *test_listener_address(const struct rt_listener *listener)
{
	return container_of(listener, struct rt_listener_mem, listener)->address;
}

static void listener_free(struct rt_listener_mem *l)
{
	struct backlog_item *item;
	while ((item = list_pop(&l->backlog, struct backlog_item, link))) {
		test_conn_close(&item->conn->conn);
		free(item);
	}
	free(l);
}

static int test_accept(struct rt_listener *listener, struct rt_conn **out)
{
	struct rt_listener_mem *l = container_of(listener, struct rt_listener_mem, listener);
	if (the.exhausted > 0) {
		the.exhausted--;
		return OXE_SYS;
	}
	l->accepting++;
	while (!l->closed && list_empty(&l->backlog))
		waitq_wait(&l->arrived);
	l->accepting--;
	if (l->closed) {
		listener_free(l);
		return OXE_SHUTDOWN;
	}
	struct backlog_item *item = list_pop(&l->backlog, struct backlog_item, link);
	*out = &item->conn->conn;
	free(item);
	return 0;
}

static void test_listener_close(struct rt_listener *listener)
{
	struct rt_listener_mem *l = container_of(listener, struct rt_listener_mem, listener);
	l->closed = true;
	list_del(&l->link);
	if (l->accepting)
		waitq_wake_all(&l->arrived);
	else
		listener_free(l);
}

static void local_describe(struct rt_conn_mem *c, const char *address)
{
	const char *wildcard = "tcp:0.0.0.0:";
	if (strncmp(address, wildcard, strlen(wildcard)) == 0)
		snprintf(c->local, sizeof(c->local), "tcp:127.0.0.1:%s", address + strlen(wildcard));
	else if (strncmp(address, "tcp:", 4) == 0)
		snprintf(c->local, sizeof(c->local), "%s", address);
}

static int test_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out)
{
	(void)rt, (void)deadline_ns;
	struct rt_listener_mem *l;
	list_for_each (l, &the.listeners, link) {
		if (strcmp(l->address, address) != 0)
			continue;
		struct wire *w = mem_zalloc(sizeof(*w));
		pipe_init(&w->to[0]);
		pipe_init(&w->to[1]);
		struct backlog_item *item = mem_zalloc(sizeof(*item));
		item->conn = end_new(w, 0);
		local_describe(item->conn, address);
		list_add_tail(&l->backlog, &item->link);
		waitq_wake_one(&l->arrived);
		*out = &end_new(w, 1)->conn;
		return 0;
	}
	return OXE_CLOSED;
}

/* ---- disks --------------------------------------------------------------------------------------------------------------- */

struct rt_disk_mem {
	struct rt_disk disk;
	uint8_t *bytes;
};

static int test_disk_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes,
			  struct rt_disk **out)
{
	(void)flags;
	struct rt_disk_mem *d = mem_zalloc(sizeof(*d));
	d->disk.rt = rt;
	d->disk.info = (struct rt_disk_info){.size_bytes = size_bytes, .lba_bytes = 512, .is_memory = true};
	snprintf(d->disk.info.path, sizeof(d->disk.info.path), "%s", path);
	d->bytes = mem_zalloc(size_bytes);
	*out = &d->disk;
	return 0;
}

static void test_disk_close(struct rt_disk *disk)
{
	struct rt_disk_mem *d = container_of(disk, struct rt_disk_mem, disk);
	free(d->bytes);
	free(d);
}

static void test_io_submit(struct rt_io *io)
{
	list_add_tail(&the.ios, &io->link);
}

static void io_finish(struct rt_io *io)
{
	struct rt_disk_mem *d = container_of(io->disk, struct rt_disk_mem, disk);
	io->result = 0;
	if (io->op == RT_IO_READ)
		memcpy(io->data, d->bytes + io->offset_bytes, io->len_bytes);
	else if (io->op == RT_IO_WRITE)
		memcpy(d->bytes + io->offset_bytes, io->data, io->len_bytes);
	rt_core_enter(&the.rt);
	io->done(io);
	rt_core_enter(NULL);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------ */

static uint64_t test_now(struct rt *rt)
{
	return rt->now_ns;
}

static void test_random(struct rt *rt, void *data, size_t len_bytes)
{
	(void)rt;
	prng_fill(&the.rng, data, len_bytes);
}

static void *test_stack_map(struct rt *rt, size_t size_bytes)
{
	(void)rt;
	void *low = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return low == MAP_FAILED ? NULL : low;
}

static void test_stack_unmap(struct rt *rt, void *low, size_t size_bytes)
{
	(void)rt;
	munmap(low, size_bytes);
}

static void test_post(struct rt *target, void (*fn)(void *arg), void *arg)
{
	fiber_spawn(target, "post", fn, arg);
}

static void test_offload(struct rt *rt, void (*fn)(void *arg), void *arg)
{
	(void)rt;
	fn(arg);
}

static const struct rt_ops test_ops = {
	.now_exact_ns = test_now,
	.wall_ns = test_now,
	.random = test_random,
	.stack_map = test_stack_map,
	.stack_unmap = test_stack_unmap,
	.post = test_post,
	.offload = test_offload,
	.disk_open = test_disk_open,
	.disk_close = test_disk_close,
	.io_submit = test_io_submit,
	.listen = test_listen,
	.listener_address = test_listener_address,
	.accept = test_accept,
	.listener_close = test_listener_close,
	.connect = test_connect,
	.recv = test_recv,
	.send = test_send,
	.conn_shutdown = test_conn_shutdown,
	.conn_close = test_conn_close,
	.conn_peer = test_conn_peer,
	.conn_local = test_conn_local,
};

struct rt *testrt_new(uint64_t seed, bool cut)
{
	the = (struct testrt){.cut = cut};
	prng_seed(&the.rng, seed);
	rt_core_init(&the.rt, &test_ops);
	list_init(&the.ios);
	list_init(&the.listeners);
	return &the.rt;
}

static bool turn(struct rt *rt)
{
	if (rt_core_run(rt, the.is_frozen))
		return true;
	struct rt_io *io = list_pop(&the.ios, struct rt_io, link);
	if (io) {
		io_finish(io);
		return true;
	}
	uint64_t deadline_ns = rt_core_next_deadline_ns(rt);
	if (deadline_ns != UINT64_MAX)
		rt->now_ns = u64_max(rt->now_ns, deadline_ns);
	return deadline_ns != UINT64_MAX;
}

void testrt_run(struct rt *rt)
{
	while (turn(rt))
		;
}

void testrt_free(struct rt *rt)
{
	assert(rt->fibers_live == 0 && the.conns == 0);
	rt_core_fini(rt);
}

void testrt_freeze(struct rt *rt)
{
	(void)rt;
	the.is_frozen = true;
	fiber_sleep(1); /* the loop comes round before the next fiber does */
}

void testrt_thaw(struct rt *rt, uint64_t after_ns)
{
	rt->now_ns += after_ns;
}

void testrt_exhaust(struct rt *rt, unsigned count)
{
	assert(rt == &the.rt);
	the.exhausted = count;
}

unsigned testrt_conns(void)
{
	return the.conns;
}
