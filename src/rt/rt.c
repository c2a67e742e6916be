/* rt.c: the door itself: each verb to the platform's form of it, and the suspending forms of what the platform completes. */
#include "rt/rt_internal.h"

uint64_t rt_now_ns(struct rt *rt)
{
	return rt->now_ns;
}

uint64_t rt_now_exact_ns(struct rt *rt)
{
	return rt->ops->now_exact_ns(rt);
}

uint64_t rt_wall_ns(struct rt *rt)
{
	return rt->ops->wall_ns(rt);
}

void rt_random(struct rt *rt, void *data, size_t len_bytes)
{
	rt->ops->random(rt, data, len_bytes);
}

uint64_t rt_random_u64(struct rt *rt)
{
	uint64_t x;
	rt_random(rt, &x, sizeof(x));
	return x;
}

struct uuid rt_random_uuid(struct rt *rt)
{
	uint8_t bytes[16];
	rt_random(rt, bytes, sizeof(bytes));
	return uuid_from_random(bytes);
}

/* ---- between reactors -------------------------------------------------------------------------------------------- */

void rt_post(struct rt *target, void (*fn)(void *arg), void *arg)
{
	target->ops->post(target, fn, arg);
}

struct call {
	void (*fn)(void *arg);
	void *arg;
	struct rt *home;
	struct fiber *fiber; /* once parked */
	bool done;
};

/* Back on the caller's reactor. `c` is on the caller's stack: it is gone once the caller runs. */
static void call_return(void *arg)
{
	struct call *c = arg;
	c->done = true;
	if (c->fiber)
		fiber_ready(c->fiber);
}

static void call_run(void *arg)
{
	struct call *c = arg;
	struct rt *home = c->home;
	c->fn(c->arg);
	rt_post(home, call_return, c);
}

void rt_call(struct rt *target, void (*fn)(void *arg), void *arg)
{
	struct call c = {.fn = fn, .arg = arg, .home = rt_current()};
	assert(c.home && fiber_current());
	if (target == c.home) {
		fn(arg);
		return;
	}
	rt_post(target, call_run, &c);
	if (c.done)
		return;
	c.fiber = fiber_current();
	fiber_park();
}

void rt_offload(void (*fn)(void *arg), void *arg)
{
	struct rt *rt = rt_current();
	assert(rt);
	rt->ops->offload(rt, fn, arg);
}

/* ---- disks ------------------------------------------------------------------------------------------------------- */

int rt_disk_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes, struct rt_disk **out)
{
	return rt->ops->disk_open(rt, path, flags, size_bytes, out);
}

void rt_disk_close(struct rt_disk *disk)
{
	disk->rt->ops->disk_close(disk);
}

const struct rt_disk_info *rt_disk_info(const struct rt_disk *disk)
{
	return &disk->info;
}

void rt_disk_expect(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes)
{
	if (disk->rt->ops->disk_expect)
		disk->rt->ops->disk_expect(disk, len_bytes, offset_bytes);
}

int rt_disk_grow(struct rt_disk *disk, uint64_t size_bytes)
{
	return disk->rt->ops->disk_grow(disk, size_bytes);
}

int rt_disk_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes)
{
	return rt->ops->disk_probe(rt, path, what, what_size_bytes);
}

/* What direct I/O demands is demanded of everybody, so that the simulator finds what a real disk would refuse. */
void rt_io_submit(struct rt_io *io)
{
	uint32_t lba_bytes = io->disk->info.lba_bytes;
	assert(u64_is_aligned(io->offset_bytes, lba_bytes) && u64_is_aligned(io->len_bytes, lba_bytes));
	if (io->op == RT_IO_READ || io->op == RT_IO_WRITE)
		assert(io->len_bytes && u64_is_aligned((uintptr_t)io->data, RT_MEMORY_ALIGN));
	assert(io->done);
	io->disk->rt->ops->io_submit(io);
}

struct io_wait {
	struct rt_io io;
	struct fiber *fiber; /* once parked */
	bool done;
};

static void io_wait_done(struct rt_io *io)
{
	struct io_wait *w = container_of(io, struct io_wait, io);
	w->done = true;
	if (w->fiber)
		fiber_ready(w->fiber);
}

static int io_run(struct io_wait *w)
{
	w->io.done = io_wait_done;
	rt_io_submit(&w->io);
	if (!w->done) {
		w->fiber = fiber_current();
		fiber_park();
	}
	return w->io.result;
}

int rt_disk_read(struct rt_disk *disk, void *data, uint64_t len_bytes, uint64_t offset_bytes)
{
	struct io_wait w = {.io = {.disk = disk,
				   .op = RT_IO_READ,
				   .data = data,
				   .offset_bytes = offset_bytes,
				   .len_bytes = len_bytes}};
	return io_run(&w);
}

int rt_disk_write(struct rt_disk *disk, const void *data, uint64_t len_bytes, uint64_t offset_bytes,
		  unsigned flags)
{
	struct io_wait w = {.io = {.disk = disk,
				   .op = RT_IO_WRITE,
				   .flags = flags,
				   .data = (void *)(uintptr_t)data,
				   .offset_bytes = offset_bytes,
				   .len_bytes = len_bytes}};
	return io_run(&w);
}

int rt_disk_flush(struct rt_disk *disk)
{
	struct io_wait w = {.io = {.disk = disk, .op = RT_IO_FLUSH}};
	return io_run(&w);
}

int rt_disk_discard(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes)
{
	struct io_wait w = {.io = {.disk = disk,
				   .op = RT_IO_DISCARD,
				   .offset_bytes = offset_bytes,
				   .len_bytes = len_bytes}};
	return io_run(&w);
}

/* ---- network ------------------------------------------------------------------------------------------------------ */

int rt_listen(struct rt *rt, const char *address, struct rt_listener **out)
{
	return rt->ops->listen(rt, address, out);
}

const char *rt_listener_address(const struct rt_listener *l)
{
	return l->rt->ops->listener_address(l);
}

int rt_accept(struct rt_listener *l, struct rt_conn **out)
{
	return l->rt->ops->accept(l, out);
}

void rt_listener_close(struct rt_listener *l)
{
	l->rt->ops->listener_close(l);
}

int rt_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out)
{
	return rt->ops->connect(rt, address, deadline_ns, out);
}

int rt_recv(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes)
{
	return c->rt->ops->recv(c, data, len_bytes, got_bytes);
}

int rt_send(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count)
{
	return c->rt->ops->send(c, parts, part_count);
}

void rt_conn_shutdown(struct rt_conn *c)
{
	c->rt->ops->conn_shutdown(c);
}

void rt_conn_close(struct rt_conn *c)
{
	c->rt->ops->conn_close(c);
}

const char *rt_conn_peer(const struct rt_conn *c)
{
	return c->rt->ops->conn_peer(c);
}

const char *rt_conn_local(const struct rt_conn *c)
{
	return c->rt->ops->conn_local(c);
}

/* ---- block devices that we serve ---------------------------------------------------------------------------------- */

int rt_blk_probe(struct rt *rt, bool *can_grow)
{
	return rt->ops->blk ? rt->ops->blk->probe(rt, can_grow) : OXE_UNSUPPORTED;
}

int rt_blk_list(struct rt *rt, struct rt_blk_info *infos, size_t max, size_t *count)
{
	return rt->ops->blk ? rt->ops->blk->list(rt, infos, max, count) : OXE_UNSUPPORTED;
}

int rt_blk_make(struct rt *rt, const struct rt_blk_spec *spec, struct rt_blk **out)
{
	return rt->ops->blk ? rt->ops->blk->make(rt, spec, out) : OXE_UNSUPPORTED;
}

int rt_blk_recover(struct rt *rt, uint32_t number, uint64_t deadline_ns, struct rt_blk **out)
{
	return rt->ops->blk ? rt->ops->blk->recover(rt, number, deadline_ns, out) : OXE_UNSUPPORTED;
}

int rt_blk_held(struct rt *rt, uint32_t number)
{
	return rt->ops->blk ? rt->ops->blk->held(rt, number) : OXE_UNSUPPORTED;
}

int rt_blk_remove(struct rt *rt, uint32_t number)
{
	return rt->ops->blk ? rt->ops->blk->remove(rt, number) : OXE_UNSUPPORTED;
}

int rt_blk_start(struct rt_blk *blk)
{
	return blk->rt->ops->blk->start(blk);
}

const struct rt_blk_spec *rt_blk_spec(const struct rt_blk *blk)
{
	return &blk->spec;
}

int rt_blk_grow(struct rt_blk *blk, uint64_t size_bytes)
{
	return blk->rt->ops->blk->grow(blk, size_bytes);
}

int rt_blk_next(struct rt_blk *blk, struct rt_blk_request *out)
{
	return blk->rt->ops->blk->next(blk, out);
}

int rt_blk_payload_get(struct rt_blk *blk, const struct rt_blk_request *r, void *data)
{
	return blk->rt->ops->blk->payload_get(blk, r, data);
}

int rt_blk_payload_put(struct rt_blk *blk, const struct rt_blk_request *r, const void *data)
{
	return blk->rt->ops->blk->payload_put(blk, r, data);
}

void rt_blk_done(struct rt_blk *blk, const struct rt_blk_request *r, int err)
{
	blk->rt->ops->blk->done(blk, r, err);
}

int rt_blk_stop(struct rt_blk *blk)
{
	return blk->rt->ops->blk->stop(blk);
}

void rt_blk_close(struct rt_blk *blk)
{
	blk->rt->ops->blk->close(blk);
}
