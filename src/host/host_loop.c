/*
 * host_loop.c: the reactor's loop and its ring.
 *
 * A turn: read the clock, open the mail, finish what needed no kernel, fire timers and run fibers, then one system call
 * that submits everything they queued and, if nothing is left to run, sleeps until a completion, a note or a timer.
 *
 * Overload. Submission ring full: what is queued is submitted at once and the turn goes on. Completion ring full: the
 * kernel keeps the rest and says so; should it refuse new work meanwhile, completions are copied aside (never run in the
 * middle of somebody's turn) and it is asked again.
 */
#include "host/host_internal.h"

#include "base/log.h"

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Fibers run in one turn before the kernel is asked for news, so that busy fibers cannot keep completions waiting. */
#define TURN_SWITCHES 1024

/* More completions than this in one turn: see spin_pays(). */
#define SPIN_REAPED_MAX 2

_Noreturn static void host_die(const char *what, int os_errno)
{
	fprintf(stderr, "oxbow: %s: %s\n", what, strerror(os_errno));
	abort();
}

/* ---- clock, chance, stacks ----------------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t host_now_exact_ns(struct rt *rt)
{
	(void)rt;
	return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t host_wall_ns(struct rt *rt)
{
	(void)rt;
	return clock_ns(CLOCK_REALTIME);
}

static void host_random(struct rt *rt, void *data, size_t len_bytes)
{
	(void)rt;
	for (char *p = data, *end = p + len_bytes; p < end;) {
		ssize_t n = getrandom(p, (size_t)(end - p), 0);
		if (n > 0)
			p += n;
		else if (errno != EINTR)
			host_die("no randomness", errno);
	}
}

static void *host_stack_map(struct rt *rt, size_t size_bytes)
{
	(void)rt;
	size_t guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
	char *low = mmap(NULL, size_bytes + guard_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (low == MAP_FAILED)
		return NULL;
	if (mprotect(low, guard_bytes, PROT_NONE)) {
		munmap(low, size_bytes + guard_bytes);
		return NULL;
	}
	return low + guard_bytes;
}

static void host_stack_unmap(struct rt *rt, void *low, size_t size_bytes)
{
	(void)rt;
	size_t guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
	munmap((char *)low - guard_bytes, size_bytes + guard_bytes);
}

static void host_memory_unneeded(struct rt *rt, void *low, size_t size_bytes)
{
	(void)rt;
	madvise(low, size_bytes, MADV_DONTNEED); /* if it cannot, the memory just stays */
}

/* ---- the inbox ----------------------------------------------------------------------------------------------------- */

static void host_ring_bell(struct host *h)
{
	uint64_t one = 1;
	ssize_t n = write(h->wake_fd, &one, sizeof(one));
	(void)n; /* fails only when the counter is full, and then the bell rings already */
}

/* Both sides order their store before their load (push, then asleep; asleep, then inbox), so one of them sees the other. */
void host_msg_send(struct host *h, struct host_msg *msg)
{
	msg->next = atomic_load_explicit(&h->inbox, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&h->inbox, &msg->next, msg))
		;
	if (atomic_load(&h->asleep) && atomic_exchange(&h->asleep, false))
		host_ring_bell(h);
}

static struct host_msg *inbox_take(struct host *h)
{
	struct host_msg *newest = atomic_load_explicit(&h->inbox, memory_order_relaxed);
	if (!newest)
		return NULL;
	newest = atomic_exchange(&h->inbox, NULL);
	struct host_msg *oldest = NULL;
	while (newest) {
		struct host_msg *next = newest->next;
		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	return oldest;
}

static void inbox_open(struct host *h)
{
	for (struct host_msg *m = inbox_take(h), *next; m; m = next) {
		next = m->next;
		m->run(m);
	}
}

struct post {
	struct host_msg msg;
	struct rt *target;
	void (*fn)(void *arg);
	void *arg;
};

static void post_run(struct host_msg *msg)
{
	struct post *p = container_of(msg, struct post, msg);
	fiber_spawn(p->target, "post", p->fn, p->arg);
	free(p);
}

static void host_post(struct rt *target, void (*fn)(void *arg), void *arg)
{
	if (target == rt_current()) {
		fiber_spawn(target, "post", fn, arg);
		return;
	}
	struct post *p = mem_alloc(sizeof(*p));
	*p = (struct post){.msg = {.run = post_run}, .target = target, .fn = fn, .arg = arg};
	host_msg_send(host_of(target), &p->msg);
}

/* ---- the ring ------------------------------------------------------------------------------------------------------ */

/* Best first: one thread submits and its completions wait for it to ask; then the same by courtesy; then old kernels. */
static const unsigned ring_flags[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	0,
};

/* Disabled until the thread that will run it enables it: SINGLE_ISSUER binds to that thread. */
static int ring_open(struct host *h, unsigned entries)
{
	int ret = -EINVAL;
	for (size_t i = 0; i < ARRAY_COUNT(ring_flags) && ret == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = ring_flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
				 IORING_SETUP_CLAMP,
			.cq_entries = entries * 4,
		};
		ret = io_uring_queue_init_params(entries, &h->ring, &params);
	}
	unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
	if (ret == 0 && (h->ring.features & needed) != needed) {
		io_uring_queue_exit(&h->ring);
		ret = -ENOSYS;
	}
	return ret;
}

static void ring_enable(struct host *h)
{
	if (!h->ring_enabled) {
		/* By its bare name: Debian's liburing 2.3 forgets to export io_uring_enable_rings(). */
		int ret = io_uring_register((unsigned)h->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
		if (ret < 0)
			host_die("cannot enable the io_uring", -ret);
		h->has_file_slots = io_uring_register_files_sparse(&h->ring, HOST_FILE_SLOTS) == 0;
		h->ring_enabled = true;
	}
	if (!h->plain_ring_fd)
		io_uring_register_ring_fd(&h->ring); /* if refused, the plain one is used */
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool ring_has_news(struct host *h)
{
	unsigned flags = IO_URING_READ_ONCE(*h->ring.sq.kflags);
	return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* Copy up to `max` completions out and hand their room back to the kernel, before any of them runs. */
static size_t cqes_copy(struct host *h, struct host_cqe *out, size_t max)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	size_t count = 0;
	io_uring_for_each_cqe(&h->ring, head, cqe)
	{
		if (count == max)
			break;
		out[count++] =
			(struct host_cqe){(struct host_op *)(uintptr_t)cqe->user_data, cqe->res, cqe->flags};
	}
	io_uring_cq_advance(&h->ring, (unsigned)count);
	return count;
}

static void cqes_stash(struct host *h)
{
	size_t room = io_uring_cq_ready(&h->ring);
	if (h->stash_count + room > h->stash_capacity) {
		h->stash_capacity = (h->stash_count + room) * 2;
		h->stash = mem_realloc(h->stash, h->stash_capacity * sizeof(*h->stash));
	}
	h->stash_count += cqes_copy(h, h->stash + h->stash_count, room);
}

static void cqes_run(const struct host_cqe *cqes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (cqes[i].op)
			cqes[i].op->complete(cqes[i].op, cqes[i].res, cqes[i].flags);
	}
}

/* Run what has completed. What completes because of that waits for the next turn, by the bound. */
static void cqes_reap(struct host *h)
{
	struct host_cqe batch[128];
	h->last_reaped = (uint32_t)(h->stash_count + io_uring_cq_ready(&h->ring));
	if (h->stash_count) {
		struct host_cqe *stash = h->stash;
		size_t count = h->stash_count;
		h->stash = NULL;
		h->stash_count = h->stash_capacity = 0;
		cqes_run(stash, count);
		free(stash);
	}
	for (size_t left = io_uring_cq_ready(&h->ring); left;) {
		size_t count = cqes_copy(h, batch, u64_min(left, ARRAY_COUNT(batch)));
		cqes_run(batch, count);
		left -= count;
		if (!count)
			break;
	}
}

/* The kernel takes what is queued, or says why not. EINTR can leave entries behind: the next call takes them along. */
static bool ring_result_is_fatal(int ret)
{
	return ret < 0 && ret != -EINTR && ret != -EBUSY && ret != -EAGAIN && ret != -ETIME;
}

struct io_uring_sqe *host_sqe(struct host *h)
{
	struct io_uring_sqe *sqe;
	while (!(sqe = io_uring_get_sqe(&h->ring))) {
		int ret = io_uring_submit(&h->ring);
		if (ring_result_is_fatal(ret))
			host_die("io_uring_submit", -ret);
		if (ret == -EBUSY || ret == -EAGAIN) {
			cqes_stash(h);
			io_uring_get_events(&h->ring);
		}
	}
	return sqe;
}

static void wait_complete(struct host_op *op, int res, uint32_t flags)
{
	(void)flags;
	struct host_wait *w = container_of(op, struct host_wait, op);
	w->res = res;
	w->done = true;
	fiber_ready(w->fiber);
}

int host_await(struct io_uring_sqe *sqe, struct host_wait *w)
{
	*w = (struct host_wait){.op = {wait_complete}, .fiber = fiber_current()};
	io_uring_sqe_set_data(sqe, &w->op);
	fiber_park();
	assert(w->done);
	return w->res;
}

void host_cancel(struct host *h, struct host_op *op)
{
	struct io_uring_sqe *sqe = host_sqe(h);
	io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

/* ---- a turn -------------------------------------------------------------------------------------------------------- */

/* Edge-triggered: each ring of the bell is one completion, and the counter is never read. */
static void wake_complete(struct host_op *op, int res, uint32_t flags)
{
	(void)res;
	if (!(flags & IORING_CQE_F_MORE))
		container_of(op, struct host, wake_op)->wake_armed = false;
}

static void wake_arm(struct host *h)
{
	struct io_uring_sqe *sqe = host_sqe(h);
	io_uring_prep_poll_multishot(sqe, h->wake_fd, POLLIN);
	h->wake_op.complete = wake_complete;
	io_uring_sqe_set_data(sqe, &h->wake_op);
	h->wake_armed = true;
}

/* Runs the `done` of requests no kernel was needed for. What they submit is for the next turn. */
static void done_ios_run(struct host *h)
{
	struct list batch;
	struct rt_io *io;
	list_init(&batch);
	list_splice_tail(&batch, &h->done_ios);
	while ((io = list_pop(&batch, struct rt_io, link)))
		io->done(io);
}

static bool nothing_to_run(struct host *h)
{
	return list_empty(&h->done_ios) && !h->stash_count && !atomic_load(&h->inbox) &&
	       !atomic_load(&h->stopping);
}

static int ring_wait(struct host *h)
{
	struct io_uring_cqe *cqe;
	uint64_t deadline_ns = rt_core_next_deadline_ns(&h->rt);
	if (deadline_ns == UINT64_MAX)
		return io_uring_submit_and_wait(&h->ring, 1);
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	uint64_t wait_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	struct __kernel_timespec ts = {(long long)(wait_ns / NS_PER_S), (long long)(wait_ns % NS_PER_S)};
	return io_uring_submit_and_wait_timeout(&h->ring, &cqe, 1, &ts, NULL);
}

static bool ring_is_quiet(struct host *h)
{
	return !ring_has_news(h) && !io_uring_cq_ready(&h->ring) && nothing_to_run(h);
}

/* Look for so long, or until the next timer, whether something comes. Reads memory only: whoever brings news to a reactor that
 * is awake just leaves it there. */
static bool spin(struct host *h, uint64_t limit_ns)
{
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	uint64_t end_ns = u64_min(now_ns + limit_ns, rt_core_next_deadline_ns(&h->rt));
	while (now_ns < end_ns) {
		for (int i = 0; i < 16; i++) {
			if (!ring_is_quiet(h))
				return true;
			cpu_relax();
		}
		now_ns = clock_ns(CLOCK_MONOTONIC);
	}
	return false;
}

/* Before sleeping; true if there is something to do after all. Not worth it when completions come many at a time: while we
 * sleep they gather, and are cheaper together. */
static bool spin_pays(struct host *h)
{
	bool for_disk = h->disk_in_flight > 0;
	struct host_spin *s = &h->spin[for_disk];
	if (h->last_reaped > SPIN_REAPED_MAX || !ring_is_quiet(h) || !spin_wanted(s))
		return false;
	if (io_uring_sq_ready(&h->ring)) {
		int ret = io_uring_submit(&h->ring);
		if (ring_result_is_fatal(ret))
			host_die("io_uring_submit", -ret);
		if (!ring_is_quiet(h)) /* it was done at once, which says nothing about waiting */
			return true;
	}
	bool came = spin(h, for_disk ? SPIN_DISK_NS : SPIN_NS);
	spin_learn(s, came);
	return came;
}

static int ring_poll(struct host *h)
{
	if (io_uring_sq_ready(&h->ring))
		return io_uring_submit_and_get_events(&h->ring);
	return ring_has_news(h) ? io_uring_get_events(&h->ring) : 0;
}

static void ring_turn(struct host *h, bool busy)
{
	int ret;
	if (!h->wake_armed)
		wake_arm(h);
	if (!busy && spin_pays(h))
		busy = true;
	if (!busy)
		atomic_store(&h->asleep, true);
	if (busy || !nothing_to_run(h))
		ret = ring_poll(h);
	else
		ret = ring_wait(h);
	atomic_store_explicit(&h->asleep, false, memory_order_relaxed);
	if (ring_result_is_fatal(ret))
		host_die("io_uring_enter", -ret);
}

void host_rt_run(struct rt *rt)
{
	struct host *h = host_of(rt);
	ring_enable(h);
	rt_core_enter(rt);
	while (!atomic_load_explicit(&h->stopping, memory_order_relaxed)) {
		rt->now_ns = clock_ns(CLOCK_MONOTONIC);
		cqes_reap(h);
		inbox_open(h);
		done_ios_run(h);
		bool busy = rt_core_run(rt, TURN_SWITCHES);
		ring_turn(h, busy);
	}
	rt_core_enter(NULL);
	atomic_store(&h->stopping, false);
	if (!h->plain_ring_fd)
		io_uring_unregister_ring_fd(&h->ring);
}

void host_rt_stop(struct rt *rt)
{
	struct host *h = host_of(rt);
	atomic_store(&h->stopping, true);
	host_ring_bell(h);
}

/* ---- birth and death ------------------------------------------------------------------------------------------------- */

static const struct rt_ops host_ops = {
	.now_exact_ns = host_now_exact_ns,
	.wall_ns = host_wall_ns,
	.random = host_random,
	.stack_map = host_stack_map,
	.stack_unmap = host_stack_unmap,
	.memory_unneeded = host_memory_unneeded,
	.post = host_post,
	.offload = host_offload,
	.disk_open = host_disk_open,
	.disk_close = host_disk_close,
	.disk_grow = host_disk_grow,
	.disk_expect = host_disk_expect,
	.disk_probe = host_disk_probe,
	.io_submit = host_io_submit,
	.listen = host_listen,
	.listener_address = host_listener_address,
	.accept = host_accept,
	.listener_close = host_listener_close,
	.connect = host_connect,
	.recv = host_recv,
	.send = host_send,
	.conn_shutdown = host_conn_shutdown,
	.conn_close = host_conn_close,
	.conn_peer = host_conn_peer,
	.conn_local = host_conn_local,
	.blk = &host_blk_ops,
};

static struct rt *host_refused(struct host *h, const char *what, int os_errno)
{
	LOG_ERROR("host.refused", "the kernel refuses what a reactor needs", F_STR("what", what),
		  F_STR("reason", strerror(os_errno)));
	if (h->wake_fd >= 0)
		close(h->wake_fd);
	free(h);
	return NULL;
}

struct rt *host_rt_new(const struct host_options *options)
{
	struct host *h = mem_zalloc(sizeof(*h));
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->wake_fd < 0)
		return host_refused(h, "eventfd", errno);
	int ret = ring_open(h, options->ring_entries ? options->ring_entries : 1024);
	if (ret < 0)
		return host_refused(h, "io_uring", -ret);
	rt_core_init(&h->rt, &host_ops);
	h->rt.now_ns = clock_ns(CLOCK_MONOTONIC);
	h->plain_ring_fd = options->plain_ring_fd;
	list_init(&h->done_ios);
	list_init(&h->listeners);
	h->workers = host_workers_start(options->worker_threads ? options->worker_threads : 2);
	return &h->rt;
}

void host_rt_free(struct rt *rt)
{
	struct host *h = host_of(rt);
	assert(rt->fibers_live == 0 && h->open_objects == 0 && list_empty(&h->done_ios));
	host_workers_stop(h->workers);
	for (struct host_msg *m = inbox_take(h), *next; m; m = next) {
		next = m->next;
		if (m->run == post_run)
			free(container_of(m, struct post, msg));
		else
			m->run(m); /* a job nobody waits for: it frees itself */
	}
	host_listeners_free(h);
	host_ublk_free(h);
	io_uring_queue_exit(&h->ring);
	close(h->wake_fd);
	free(h->stash);
	rt_core_fini(rt);
	free(h);
}
