/*
 * host_ublk_control.c: commands to /dev/ublk-control.
 *
 * They go through a small ring of their own, because they need large submission entries and the reactor's ring has ordinary
 * ones. The kernel carries each out in a thread of its own (some wait, for requests to end or for a server to appear), so
 * the reactor never waits in one, and one stuck device does not delay another. An eventfd, polled by the reactor's ring,
 * says when answers are there. All of it is made when the first command is sent.
 */
#include "host/host_ublk.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CONTROL_ENTRIES 32

struct host_ublk {
	struct host *host;
	struct io_uring ring;
	int control_fd, bell_fd;
	bool bell_armed;
	struct host_op bell_op;
	uint64_t features;
};

struct control_wait {
	struct fiber *fiber;
	int res;
	bool done;
};

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void answers_take(struct host_ublk *u)
{
	struct io_uring_cqe *cqe;
	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct control_wait *w = io_uring_cqe_get_data(cqe);
		w->res = cqe->res;
		w->done = true;
		io_uring_cqe_seen(&u->ring, cqe);
		fiber_ready(w->fiber);
	}
}

static void bell_rang(struct host_op *op, int res, uint32_t flags);

/* Edge-triggered, as the reactor's own bell: each ring is one completion, and the counter is never read. */
static void bell_arm(struct host_ublk *u)
{
	struct io_uring_sqe *sqe = host_sqe(u->host);
	io_uring_prep_poll_multishot(sqe, u->bell_fd, POLLIN);
	u->bell_op.complete = bell_rang;
	io_uring_sqe_set_data(sqe, &u->bell_op);
	u->bell_armed = true;
}

static void bell_rang(struct host_op *op, int res, uint32_t flags)
{
	struct host_ublk *u = container_of(op, struct host_ublk, bell_op);
	(void)res;
	if (!(flags & IORING_CQE_F_MORE))
		bell_arm(u); /* an answer that came in between has rung: arming looks at once */
	answers_take(u);
}

/* ---- commands ------------------------------------------------------------------------------------------------------ */

int ublk_control(struct host_ublk *u, uint32_t op, const struct ublk_control_wire *command)
{
	struct control_wait w = {.fiber = fiber_current()};
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	if (!sqe)
		return -EAGAIN; /* cannot be: each is submitted before the next is taken */
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = u->control_fd;
	sqe->cmd_op = op;
	memcpy(sqe->cmd, command, sizeof(*command));
	io_uring_sqe_set_data(sqe, &w);
	int ret;
	do
		ret = io_uring_submit(&u->ring);
	while (ret == -EINTR || ret == -EAGAIN || ret == -EBUSY);
	assert(ret == 1);
	fiber_park();
	assert(w.done);
	return w.res;
}

int ublk_control_simple(struct host_ublk *u, uint32_t op, uint32_t device, uint64_t value)
{
	struct ublk_control_wire c = {.device = device, .queue = UBLK_NO_QUEUE, .value = value};
	return ublk_control(u, op, &c);
}

int ublk_control_buffer(struct host_ublk *u, uint32_t op, uint32_t device, void *buffer, size_t len_bytes)
{
	struct ublk_control_wire c = {.device = device,
				      .queue = UBLK_NO_QUEUE,
				      .buffer_address = (uintptr_t)buffer,
				      .buffer_bytes = (uint16_t)len_bytes};
	return ublk_control(u, op, &c);
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

static void ublk_close_all(struct host_ublk *u)
{
	if (u->bell_fd >= 0)
		close(u->bell_fd);
	close(u->control_fd);
	free(u);
}

/* What we need came with Linux 6.5, which is also the first that can be asked. */
static int features_ask(struct host_ublk *u)
{
	uint64_t features = 0;
	int res = ublk_control_buffer(u, UBLK_GET_FEATURES, UBLK_ANY_DEVICE, &features, sizeof(features));
	if (res == -EPERM || res == -EACCES)
		return OXE_PERM;
	if (res < 0 || (features & UBLK_FLAGS_WANTED) != UBLK_FLAGS_WANTED)
		return OXE_UNSUPPORTED;
	u->features = features;
	return 0;
}

static int ring_make(struct host_ublk *u)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQE128};
	int res = io_uring_queue_init_params(CONTROL_ENTRIES, &u->ring, &params);
	if (res < 0)
		return err_from_errno(-res);
	u->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	res = u->bell_fd < 0 ? -errno : io_uring_register_eventfd(&u->ring, u->bell_fd);
	if (res < 0)
		io_uring_queue_exit(&u->ring);
	return res < 0 ? err_from_errno(-res) : 0;
}

static int control_open(int *fd)
{
	*fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	return errno == EACCES || errno == EPERM		      ? OXE_PERM
	       : errno == ENOENT || errno == ENXIO || errno == ENODEV ? OXE_UNSUPPORTED
								      : err_from_errno(errno);
}

/* From now on memory this thread asks for is not found by writing to a disk that waits for this thread. */
static void io_flusher_become(void)
{
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

static int ublk_new(struct host *h)
{
	struct host_ublk *u = mem_zalloc(sizeof(*u));
	u->host = h;
	u->bell_fd = -1;
	int err = control_open(&u->control_fd);
	if (err) {
		free(u);
		return err;
	}
	err = ring_make(u);
	if (err) {
		ublk_close_all(u);
		return err;
	}
	bell_arm(u);
	io_flusher_become();
	h->ublk = u;
	return 0;
}

int host_ublk_open(struct host *h, struct host_ublk **out)
{
	int err = h->ublk ? 0 : ublk_new(h);
	if (!err && !h->ublk->features)
		err = features_ask(h->ublk);
	if (!err)
		*out = h->ublk;
	return err;
}

uint64_t ublk_features(const struct host_ublk *u)
{
	return u->features;
}

void host_ublk_free(struct host *h)
{
	if (!h->ublk)
		return;
	io_uring_queue_exit(&h->ublk->ring);
	ublk_close_all(h->ublk);
	h->ublk = NULL;
}
