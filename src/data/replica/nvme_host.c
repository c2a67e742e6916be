/*
 * nvme_host.c: requests in and out, the life of the association, and its clock.
 *
 *     submit ---> a queue with room ---> answered ---> done
 *        |             ^       |
 *        v  dispatch   |       v lost, and to be replayed
 *      waiting --------+---- waiting, in its old place
 *
 * Requests wait in the order they were submitted, and are started in that order: what was lost goes back to where it stood.
 */
#include "data/nvme/nvme_auth_format.h"
#include "data/replica/nvme_host_impl.h"

#include "base/log.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_psk.h"
#include "data/nvme/nvme_status.h"
#include "data/replica/replica_wire.h"

#include <stdarg.h>
#include <stdio.h>

#define RW_BLOCKS_MAX 65536u

/* ---- the end of a request ------------------------------------------------------------------------------------------------- */

/* `done` of what no answer ended, from a fiber: never before the submit returns. Others run between one batch and the next, as
 * some callers will submit again at once, and be refused again. */
static void ender_run(void *arg)
{
	struct nvme_host *h = arg;
	struct nvme_host_io *io;
	struct list batch;
	list_init(&batch);
	while (!list_empty(&h->ended)) {
		list_splice_tail(&batch, &h->ended);
		while ((io = list_pop(&batch, struct nvme_host_io, link)))
			io->done(io);
		fiber_yield();
	}
	h->has_ender = false;
	group_done(&h->enders);
}

static void io_end_later(struct nvme_host *h, struct nvme_host_io *io, int result)
{
	io->result = result;
	h->status.in_doubt += result == OXE_INDOUBT;
	list_add_tail(&h->ended, &io->link);
	if (h->has_ender)
		return;
	h->has_ender = true;
	group_add(&h->enders, 1);
	fiber_spawn(h->rt, "nvme-end", ender_run, h);
}

static bool io_mutates(const struct nvme_host_io *io)
{
	return io->op == NVME_HOST_WRITE || io->op == NVME_HOST_ZERO || io->op == NVME_HOST_TRIM;
}

/* To where it stood: before everything submitted later. What is lost was submitted before what never started, so that its
 * place is near the front. */
static void io_wait_again(struct nvme_host *h, struct nvme_host_io *io)
{
	struct nvme_host_io *later;
	h->waiting_count++;
	list_for_each (later, &h->waiting, link) {
		if (later->order > io->order) {
			list_insert_between(&io->link, later->link.prev, &later->link);
			return;
		}
	}
	list_add_tail(&h->waiting, &io->link);
}

static void io_leave_flight(struct nvme_host *h, struct nvme_host_io *io)
{
	h->status.in_flight--;
	if (io->is_replayed)
		list_del(&io->link);
}

/* A copy of it may still be on its way, on a connection that was given up here and is not ended there: a target keeps such a
 * one for two keep alive time-outs at most. Until then nothing starts that could be overtaken by it. */
static void hold_for_ghosts(struct nvme_host *h)
{
	h->retry_at_ns = rt_now_ns(h->rt) + 2 * h->options.keep_alive_ns + NS_PER_S;
}

void nvme_host_io_lost(struct nvme_host *h, struct nvme_host_io *io, bool was_begun, bool is_buried)
{
	io_leave_flight(h, io);
	if (h->options.lost == NVME_HOST_REPLAY && !h->is_closing) {
		if (was_begun && io_mutates(io) && !is_buried)
			hold_for_ghosts(h);
		io->is_replayed |= was_begun;
		h->status.replayed += was_begun;
		io_wait_again(h, io);
	} else {
		io_end_later(h, io, was_begun || io->is_replayed ? OXE_INDOUBT : OXE_CLOSED);
	}
}

static void io_retry(struct nvme_host *h, struct nvme_host_io *io)
{
	h->retry_at_ns = u64_max(h->retry_at_ns, rt_now_ns(h->rt) + NVME_HOST_RETRY_NS);
	io->is_replayed = true;
	io_wait_again(h, io);
	nvme_host_watch(h, h->retry_at_ns);
}

/* What was aborted may have been carried out in part. */
static int aborted_result(const struct nvme_host_io *io)
{
	return io_mutates(io) ? OXE_INDOUBT : OXE_TIMEOUT;
}

void nvme_host_answered(struct nvme_host *h, struct nvme_host_io *io, uint16_t status)
{
	bool is_ours = h->options.is_copy && replica_wire_status_is_ours(status);
	int err = is_ours ? replica_wire_error_of(status) : nvme_host_error(status);
	bool is_replay = h->options.lost == NVME_HOST_REPLAY && !h->is_closing;
	io_leave_flight(h, io);
	h->has_answered = true;
	if (unlikely(is_replay && nvme_host_is_retryable(status))) {
		io_retry(h, io);
		return;
	}
	io->result = err == OXE_CANCELLED && !is_ours ? aborted_result(io) : err;
	h->status.in_doubt += io->result == OXE_INDOUBT;
	io->done(io);
	if (!list_empty(&h->waiting))
		nvme_host_dispatch(h);
}

/* ---- the start of a request ---------------------------------------------------------------------------------------------- */

uint64_t nvme_host_max_bytes(const struct nvme_host *h, enum nvme_host_op op)
{
	const struct nvme_host_limits *l = &h->limits;
	uint64_t lba_bytes = h->info.lba_bytes;
	switch (op) {
	case NVME_HOST_ZERO:
		return u64_min(l->zero_max_bytes, RW_BLOCKS_MAX * lba_bytes);
	case NVME_HOST_TRIM:
		return l->trim_blocks_max * lba_bytes;
	case NVME_HOST_FLUSH:
		return 0;
	case NVME_HOST_OTHER:
		return l->max_bytes;
	default:
		return u64_min(l->max_bytes, RW_BLOCKS_MAX * lba_bytes);
	}
}

/* By what the namespace is now. */
static int io_check(const struct nvme_host *h, const struct nvme_host_io *io)
{
	const struct nvme_host_info *info = &h->info;
	if (io->op == NVME_HOST_FLUSH)
		return 0;
	if (io->op == NVME_HOST_OTHER)
		return io->len_bytes > h->limits.max_bytes ? OXE_TOOBIG : 0;
	if ((io->offset_bytes | io->len_bytes) % info->lba_bytes)
		return OXE_ALIGN;
	if (io->len_bytes == 0 || io->op >= NVME_HOST_OPS)
		return OXE_INVAL;
	if (io->offset_bytes > info->size_bytes || io->len_bytes > info->size_bytes - io->offset_bytes)
		return OXE_RANGE;
	return io->len_bytes > nvme_host_max_bytes(h, io->op) ? OXE_TOOBIG : 0;
}

static bool has_room_for(const struct nvme_queue *q, const struct nvme_host_io *io)
{
	bool leaves_one = q->host->options.is_copy && !io->is_urgent && q->depth > 1;
	return nvme_queue_has_room(q) && !(leaves_one && q->in_flight + 1 == q->depth);
}

/* In turn; but the commands of a copy go by the first that has room. What is submitted at once is then one send, and one wake-up of the
 * target, whose queues are all served by one thread. */
static struct nvme_queue *queue_with_room(struct nvme_host *h, const struct nvme_host_io *io)
{
	if (h->options.is_copy)
		h->next_queue = 0;
	for (uint32_t i = 0; i < h->queue_count; i++) {
		struct nvme_queue *q = &h->queues[h->next_queue];
		h->next_queue = h->next_queue + 1 < h->queue_count ? h->next_queue + 1 : 0;
		if (has_room_for(q, io))
			return q;
	}
	return NULL;
}

static bool io_overlap(const struct nvme_host_io *a, const struct nvme_host_io *b)
{
	return (io_mutates(a) || io_mutates(b)) && a->offset_bytes < b->offset_bytes + b->len_bytes &&
	       b->offset_bytes < a->offset_bytes + a->len_bytes;
}

/* Something that was lost and is on its way again must be carried out before this is. */
static bool io_must_wait(const struct nvme_host *h, const struct nvme_host_io *io)
{
	const struct nvme_host_io *earlier;
	list_for_each (earlier, &h->replays, link) {
		if (io_overlap(earlier, io))
			return true;
	}
	return false;
}

static void io_start(struct nvme_host *h, struct nvme_queue *q, struct nvme_host_io *io)
{
	int err = io_check(h, io);
	if (unlikely(err)) {
		io_end_later(h, io, err);
		return;
	}
	h->status.in_flight++;
	h->status.commands++;
	if (io->is_replayed)
		list_add_tail(&h->replays, &io->link);
	nvme_queue_start_io(q, io);
}

static bool may_start(const struct nvme_host *h)
{
	return h->state == NVME_HOST_LIVE && !h->is_lost && !h->is_closing;
}

void nvme_host_dispatch(struct nvme_host *h)
{
	while (!list_empty(&h->waiting) && may_start(h) && rt_now_ns(h->rt) >= h->retry_at_ns) {
		struct nvme_host_io *io = list_first(&h->waiting, struct nvme_host_io, link);
		struct nvme_queue *q = io_must_wait(h, io) ? NULL : queue_with_room(h, io);
		if (!q)
			return;
		list_del(&io->link);
		h->waiting_count--;
		io_start(h, q, io);
	}
}

/* What cannot start now. */
static void io_wait(struct nvme_host *h, struct nvme_host_io *io)
{
	if (h->is_closing || (h->options.lost == NVME_HOST_REPORT && !may_start(h))) {
		io_end_later(h, io, OXE_CLOSED);
	} else if (h->waiting_count >= h->options.waiting_max) {
		io_end_later(h, io, OXE_BUSY);
	} else {
		if (io->is_urgent)
			list_add_head(&h->waiting, &io->link);
		else
			list_add_tail(&h->waiting, &io->link);
		h->waiting_count++;
	}
}

void nvme_host_submit(struct nvme_host *h, struct nvme_host_io *io)
{
	struct nvme_queue *q = NULL;
	io->order = ++h->last_order;
	io->is_replayed = false;
	if (may_start(h) && (list_empty(&h->waiting) || io->is_urgent) && !io_must_wait(h, io))
		q = queue_with_room(h, io);
	if (likely(q != NULL))
		io_start(h, q, io);
	else
		io_wait(h, io);
}

/* ---- as calls ------------------------------------------------------------------------------------------------------------------ */

struct io_call {
	struct nvme_host_io io;
	struct fiber *fiber;
	bool is_done;
};

static void call_done(struct nvme_host_io *io)
{
	struct io_call *call = container_of(io, struct io_call, io);
	call->is_done = true;
	fiber_ready(call->fiber);
}

int nvme_host_do(struct nvme_host *h, struct nvme_host_io *io)
{
	struct io_call call = {.io = *io, .fiber = fiber_current()};
	call.io.done = call_done;
	nvme_host_submit(h, &call.io);
	while (!call.is_done)
		fiber_park();
	io->value = call.io.value;
	io->got_bytes = call.io.got_bytes;
	return io->result = call.io.result;
}

static int call_one(struct nvme_host *h, enum nvme_host_op op, void *data, uint64_t offset_bytes,
		    uint64_t len_bytes, uint32_t flags)
{
	struct nvme_host_io io = {
		.op = op, .flags = flags, .data = data, .offset_bytes = offset_bytes, .len_bytes = len_bytes};
	return nvme_host_do(h, &io);
}

/* Before the host was live once its limits are not known: the first piece waits until they are, by being small. */
static uint64_t piece_bytes(const struct nvme_host *h, enum nvme_host_op op)
{
	uint64_t max_bytes = h->info.lba_bytes ? nvme_host_max_bytes(h, op) : 0;
	return max_bytes ? max_bytes : 4 * KiB;
}

static int call_pieces(struct nvme_host *h, enum nvme_host_op op, void *data, uint64_t offset_bytes,
		       uint64_t len_bytes, uint32_t flags)
{
	int err = len_bytes ? 0 : OXE_INVAL;
	while (!err && len_bytes > 0) {
		uint64_t n = u64_min(len_bytes, piece_bytes(h, op));
		err = call_one(h, op, data, offset_bytes, n, flags);
		data = data ? (uint8_t *)data + n : NULL;
		offset_bytes += n;
		len_bytes -= n;
	}
	return err;
}

int nvme_host_read(struct nvme_host *h, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return call_pieces(h, NVME_HOST_READ, data, offset_bytes, len_bytes, 0);
}

int nvme_host_write(struct nvme_host *h, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		    unsigned flags)
{
	return call_pieces(h, NVME_HOST_WRITE, (void *)data, offset_bytes, len_bytes, flags);
}

int nvme_host_flush(struct nvme_host *h)
{
	return call_one(h, NVME_HOST_FLUSH, NULL, 0, 0, 0);
}

int nvme_host_zero(struct nvme_host *h, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	return call_pieces(h, NVME_HOST_ZERO, NULL, offset_bytes, len_bytes, flags);
}

int nvme_host_trim(struct nvme_host *h, uint64_t offset_bytes, uint64_t len_bytes)
{
	return call_pieces(h, NVME_HOST_TRIM, NULL, offset_bytes, len_bytes, 0);
}

int nvme_host_compare(struct nvme_host *h, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return call_pieces(h, NVME_HOST_COMPARE, (void *)data, offset_bytes, len_bytes, 0);
}

/* ---- the clock ------------------------------------------------------------------------------------------------------------------- */

void nvme_host_watch(struct nvme_host *h, uint64_t deadline_ns)
{
	if (deadline_ns >= h->next_deadline_ns)
		return;
	h->next_deadline_ns = deadline_ns;
	waitq_wake_all(&h->changed);
}

static struct nvme_call *free_abort(struct nvme_host *h)
{
	for (uint32_t i = 0; i < u64_min(NVME_HOST_ABORTS, h->limits.aborts_max); i++)
		if (!h->aborts[i].is_busy)
			return &h->aborts[i];
	return NULL;
}

static void call_ignored(struct nvme_call *call)
{
	(void)call;
}

/* Whatever the Abort is answered, the command itself is, or is not, in time. */
static void command_abort(struct nvme_host *h, struct nvme_queue *q, struct nvme_command *c)
{
	struct nvme_call *call = free_abort(h);
	c->is_aborted = true;
	c->deadline_ns = rt_now_ns(h->rt) + h->options.abort_timeout_ns;
	if (!call || !nvme_queue_has_room(&h->admin))
		return;
	*call = (struct nvme_call){
		.sqe = {.opcode = NVME_ADMIN_ABORT, .cdw10 = le32_of((uint32_t)c->cid << 16 | q->qid)},
		.timeout_ns = h->options.command_timeout_ns,
		.done = call_ignored,
	};
	h->status.aborted++;
	nvme_queue_start_call(&h->admin, call);
}

static void command_late(struct nvme_host *h, struct nvme_queue *q, struct nvme_command *c)
{
	if (q->qid != NVME_ADMIN_QUEUE && !c->is_aborted && !h->options.is_copy)
		command_abort(h, q, c);
	else
		nvme_host_lose(h, OXE_TIMEOUT, "queue %u: %s was not answered in time", q->qid,
			       c->call == &h->keep_alive ? "a keep alive"
			       : c->is_aborted		 ? "a command, aborted,"
							 : "a command");
}

/* The earliest deadline of what is in flight; what is late is dealt with. */
static uint64_t queue_check(struct nvme_host *h, struct nvme_queue *q, uint64_t now_ns)
{
	uint64_t next_ns = UINT64_MAX;
	for (uint32_t i = 0; q->in_flight > 0 && i < q->command_count; i++) {
		struct nvme_command *c = &q->commands[i];
		if (!(c->io || c->call) || c->is_answered)
			continue;
		if (c->deadline_ns <= now_ns && !h->is_lost)
			command_late(h, q, c);
		next_ns = u64_min(next_ns, c->deadline_ns);
	}
	return next_ns;
}

static void keep_alive_done(struct nvme_call *call)
{
	nvme_host_watch(call->host, call->host->keep_alive_at_ns);
}

/* While one is unanswered its own deadline is what counts; the admin queue always empties, or ends the association. */
static void keep_alive(struct nvme_host *h, uint64_t now_ns)
{
	if (h->keep_alive.is_busy)
		return;
	if (now_ns < h->keep_alive_at_ns) {
		nvme_host_watch(h, h->keep_alive_at_ns);
		return;
	}
	if (!nvme_queue_has_room(&h->admin)) {
		nvme_host_watch(h, now_ns + NVME_HOST_RETRY_NS);
		return;
	}
	h->keep_alive_at_ns = now_ns + h->options.keep_alive_ns / 2;
	h->keep_alive = (struct nvme_call){
		.sqe = {.opcode = NVME_ADMIN_KEEP_ALIVE},
		.timeout_ns = h->options.keep_alive_ns,
		.done = keep_alive_done,
		.host = h,
	};
	nvme_queue_start_call(&h->admin, &h->keep_alive);
}

static void look_run(void *arg)
{
	struct nvme_host *h = arg;
	int err = nvme_host_look(h);
	if (!err)
		nvme_host_listen(h);
	group_done(&h->helpers);
}

static void look(struct nvme_host *h)
{
	h->wants_look = false;
	group_add(&h->helpers, 1);
	fiber_spawn(h->rt, "nvme-look", look_run, h);
}

/* What is due by now; when to come again. */
static uint64_t serve_due(struct nvme_host *h)
{
	uint64_t now_ns = rt_now_ns(h->rt);
	if (h->wants_look)
		look(h);
	keep_alive(h, now_ns);
	uint64_t next_ns = queue_check(h, &h->admin, now_ns);
	for (uint32_t i = 0; i < h->queue_count; i++)
		next_ns = u64_min(next_ns, queue_check(h, &h->queues[i], now_ns));
	nvme_host_dispatch(h);
	if (h->retry_at_ns > now_ns)
		next_ns = u64_min(next_ns, h->retry_at_ns);
	return next_ns;
}

/* ---- the life ---------------------------------------------------------------------------------------------------------------------- */

static void shut_all(struct nvme_host *h)
{
	h->is_shut = true;
	if (h->admin.conn)
		rt_conn_shutdown(h->admin.conn);
	for (uint32_t i = 0; i < h->options.queues; i++)
		if (h->queues[i].conn)
			rt_conn_shutdown(h->queues[i].conn);
}

void nvme_host_lose(struct nvme_host *h, int err, const char *format, ...)
{
	if (h->is_lost || h->is_closing)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(h->status.why, sizeof(h->status.why), format, args);
	va_end(args);
	h->status.last_error = err;
	h->is_lost = true;
	if (h->state == NVME_HOST_LIVE)
		timer_arm(h->rt, &h->grace, rt_now_ns(h->rt) + NVME_HOST_GRACE_NS);
	else
		shut_all(h);
	waitq_wake_all(&h->changed);
}

void nvme_host_lose_because(struct nvme_host *h, int err, const char *because)
{
	nvme_host_lose(h, err, "%s", because);
	if (h->is_closing)
		return;
	snprintf(h->status.why, sizeof(h->status.why), "%s", because);
	h->status.last_error = err;
}

static void grace_over(struct rt_timer *timer)
{
	shut_all(container_of(timer, struct nvme_host, grace));
}

/* Nothing is tried again: who waits hears of it, and then it is only to be closed. */
static enum nvme_host_event be_spent(struct nvme_host *h)
{
	h->is_spent = true;
	waitq_wake_all(&h->watchers);
	while (!h->is_closing)
		waitq_wait(&h->changed);
	return NVME_HOST_CLOSE;
}

static enum nvme_host_event back_off(struct nvme_host *h)
{
	const struct nvme_host_options *o = &h->options;
	uint64_t pause_ns = 0;
	bool is_first = !h->status.associations && !h->status.failed_tries;
	if (o->is_copy && !is_first)
		return be_spent(h);
	if (!is_first) {
		pause_ns = u64_min(o->reconnect_min_ns << u64_min(h->backoff_step, 20), o->reconnect_max_ns);
		pause_ns = pause_ns / 2 + rt_random_u64(h->rt) % (pause_ns / 2 + 1);
		h->backoff_step++;
	}
	uint64_t until_ns = rt_now_ns(h->rt) + pause_ns;
	while (!h->is_closing && rt_now_ns(h->rt) < until_ns)
		if (!waitq_wait_until(&h->changed, until_ns))
			break;
	return h->is_closing ? NVME_HOST_CLOSE : NVME_HOST_DUE;
}

static void make_expired(struct rt_timer *timer)
{
	struct nvme_host *h = container_of(timer, struct nvme_host, make_limit);
	nvme_host_lose(h, OXE_TIMEOUT, "no association in time");
}

static enum nvme_host_event make(struct nvme_host *h)
{
	h->is_lost = h->is_shut = false;
	h->next_deadline_ns = 0; /* nobody looks at deadlines yet: the limit is for all of it */
	timer_arm(h->rt, &h->make_limit, rt_now_ns(h->rt) + h->options.connect_timeout_ns);
	int err = nvme_host_make(h);
	timer_cancel(h->rt, &h->make_limit);
	if (h->is_closing)
		return NVME_HOST_CLOSE;
	if (!err && !h->is_lost)
		return NVME_HOST_MADE;
	if (h->status.failed_tries++ == 0 && !h->options.is_copy) /* a copy's user tells of it */
		LOG_WARN("nvme.host_waits", "no association with the target; trying on",
			 F_STR("address", h->address), F_STR("subsystem", h->subsystem_nqn),
			 F_STR("why", h->status.why), F_ERR(h->status.last_error));
	return NVME_HOST_FAILED;
}

static enum nvme_host_event serve(struct nvme_host *h)
{
	uint64_t began_ns = rt_now_ns(h->rt);
	h->status.associations++;
	h->status.failed_tries = 0;
	h->has_answered = false;
	h->keep_alive_at_ns = began_ns + h->options.keep_alive_ns / 2;
	LOG_INFO("nvme.host_live", "association with the target", F_STR("address", h->address),
		 F_STR("subsystem", h->subsystem_nqn), F_U64("queues", h->queue_count),
		 F_U64("association", h->status.associations));
	waitq_wake_all(&h->watchers);
	nvme_host_listen(h);
	while (!h->is_lost && !h->is_closing) {
		h->next_deadline_ns = UINT64_MAX;
		uint64_t next_ns = serve_due(h);
		h->next_deadline_ns = u64_min(h->next_deadline_ns, next_ns);
		if (!h->is_lost && !h->is_closing && h->next_deadline_ns > rt_now_ns(h->rt))
			waitq_wait_until(&h->changed, h->next_deadline_ns);
	}
	if (h->has_answered || rt_now_ns(h->rt) - began_ns > h->options.reconnect_max_ns)
		h->backoff_step = 0; /* one that ends as soon as it is made is no progress */
	if (h->is_closing)
		return NVME_HOST_CLOSE;
	LOG_WARN("nvme.host_lost", "the association with the target ended", F_STR("address", h->address),
		 F_STR("subsystem", h->subsystem_nqn), F_STR("why", h->status.why),
		 F_ERR(h->status.last_error), F_U64("in_flight", h->status.in_flight));
	return NVME_HOST_LOSS;
}

static void end_waiting(struct nvme_host *h)
{
	struct nvme_host_io *io;
	while ((io = list_pop(&h->waiting, struct nvme_host_io, link))) {
		h->waiting_count--;
		io_end_later(h, io, io->is_replayed ? OXE_INDOUBT : OXE_CLOSED);
	}
}

/* No fiber is inside a connection when it is closed, and every command has become something else by then. */
static enum nvme_host_event take_down(struct nvme_host *h)
{
	if (!h->is_lost || h->is_closing)
		shut_all(h);
	h->is_lost = true;
	group_wait(&h->streams);
	timer_cancel(h->rt, &h->grace);
	group_wait(&h->helpers);
	nvme_queue_close(&h->admin);
	for (uint32_t i = 0; i < h->options.queues; i++)
		nvme_queue_close(&h->queues[i]);
	assert(h->status.in_flight == 0 && list_empty(&h->replays));
	if (h->options.lost == NVME_HOST_REPORT || h->is_closing)
		end_waiting(h);
	return NVME_HOST_GONE;
}

static enum nvme_host_event act(struct nvme_host *h, enum nvme_host_action action)
{
	switch (action) {
	case NVME_HOST_BACK_OFF:
		return back_off(h);
	case NVME_HOST_MAKE:
		return make(h);
	case NVME_HOST_SERVE:
		return serve(h);
	case NVME_HOST_TAKE_DOWN:
		return take_down(h);
	default:
		abort();
	}
}

static void life_run(void *arg)
{
	struct nvme_host *h = arg;
	struct nvme_host_step step = {NVME_HOST_DISCONNECTED, NVME_HOST_BACK_OFF};
	while (step.action != NVME_HOST_END) {
		step = nvme_host_step(h->state, act(h, step.action));
		h->state = step.next;
		h->status.since_ns = rt_now_ns(h->rt);
	}
	group_wait(&h->enders);
	h->is_over = true;
	waitq_wake_all(&h->watchers);
}

/* ---- birth and death --------------------------------------------------------------------------------------------------------------- */

static void default_u64(uint64_t *value, uint64_t otherwise)
{
	*value = *value ? *value : otherwise;
}

static void default_u32(uint32_t *value, uint32_t otherwise)
{
	*value = *value ? *value : otherwise;
}

static void options_fill(struct nvme_host_options *o, struct rt *rt)
{
	if (uuid_is_nil(&o->host_id))
		o->host_id = rt_random_uuid(rt);
	default_u32(&o->namespace_id, 1);
	default_u32(&o->queues, 1);
	default_u32(&o->queue_depth, 127);
	default_u32(&o->waiting_max, 4096);
	default_u64(&o->connect_timeout_ns, 5 * NS_PER_S);
	default_u64(&o->command_timeout_ns, 30 * NS_PER_S);
	default_u64(&o->abort_timeout_ns, 5 * NS_PER_S);
	default_u64(&o->keep_alive_ns, 5 * NS_PER_S);
	default_u64(&o->reconnect_min_ns, 20 * NS_PER_MS);
	default_u64(&o->reconnect_max_ns, 2 * NS_PER_S);
}

static bool nqn_fits(const char *nqn)
{
	char field[NVME_NQN_FIELD];
	if (!nqn || strlen(nqn) > NVME_NQN_MAX)
		return false;
	nvme_nqn_put(field, nqn);
	return nvme_nqn_is_valid(field);
}

static int options_check(const struct nvme_host_options *o)
{
	bool numbers = o->queues <= NVME_HOST_QUEUES_MAX && !(o->is_copy && o->lost == NVME_HOST_REPLAY) &&
		       o->queue_depth <= NVME_HOST_DEPTH_MAX && o->keep_alive_ns >= NS_PER_MS &&
		       o->keep_alive_ns / NS_PER_MS <= UINT32_MAX && o->least_group <= NVME_AUTH_GROUPS;
	return o->address && nqn_fits(o->subsystem_nqn) && (!o->host_nqn || nqn_fits(o->host_nqn)) && numbers
		       ? 0
		       : OXE_INVAL;
}

static int secret_take(const char *text, struct nvme_secret *out)
{
	return text ? nvme_secret_parse(text, out) : 0;
}

/* Whom we do not prove ourselves to cannot be asked to: that is one exchange. */
static int secrets_take(struct nvme_host *h)
{
	int err = secret_take(h->options.secret, &h->secret);
	if (!err)
		err = secret_take(h->options.controller_secret, &h->controller_secret);
	h->options.secret = h->options.controller_secret = NULL;
	if (!err && nvme_secret_is_set(&h->controller_secret) && !nvme_secret_is_set(&h->secret))
		err = OXE_INVAL;
	return err;
}

static char *host_nqn_of(const struct nvme_host_options *o)
{
	char text[UUID_TEXT_LEN + 1], nqn[NVME_NQN_FIELD];
	if (o->host_nqn)
		return mem_strdup(o->host_nqn);
	snprintf(nqn, sizeof(nqn), "%s%s", NVME_NQN_HOST_PREFIX, uuid_format(&o->host_id, text));
	return mem_strdup(nqn);
}

static int key_take(struct nvme_host *h, const char *text)
{
	struct nvme_secret configured;
	int err = nvme_tls_key_parse(text, &configured);
	if (err)
		return err;
	h->options.tls_key = NULL; /* the text is the caller's */
	h->psk = mem_zalloc(sizeof(*h->psk));
	err = nvme_psk_make(&configured, h->options.tls_old_name ? 0 : 1, h->host_nqn,
			    h->options.subsystem_nqn, h->psk);
	explicit_bzero(&configured, sizeof(configured));
	if (err) {
		free(h->psk);
		h->psk = NULL;
	}
	return err == OXE_RANGE ? OXE_INVAL : err;
}

static void host_init(struct nvme_host *h, struct rt *rt)
{
	h->rt = rt;
	list_init(&h->waiting);
	list_init(&h->replays);
	list_init(&h->ended);
	waitq_init(&h->changed);
	waitq_init(&h->watchers);
	group_init(&h->streams);
	group_init(&h->helpers);
	group_init(&h->enders);
	timer_init(&h->make_limit, make_expired);
	timer_init(&h->grace, grace_over);
	nvme_queue_init(&h->admin, h, NVME_ADMIN_QUEUE, NVME_HOST_ADMIN_DEPTH);
	h->queues = mem_zalloc(h->options.queues * sizeof(*h->queues));
	for (uint32_t i = 0; i < h->options.queues; i++)
		nvme_queue_init(&h->queues[i], h, (uint16_t)(i + 1), h->options.queue_depth);
}

int nvme_host_new(struct rt *rt, const struct nvme_host_options *options, struct nvme_host **out)
{
	struct nvme_host_options o = *options;
	options_fill(&o, rt);
	int err = options_check(&o);
	if (err)
		return err;
	struct nvme_host *h = mem_zalloc(sizeof(*h));
	h->options = o;
	h->host_nqn = host_nqn_of(&o);
	err = secrets_take(h);
	if (!err && o.tls_key)
		err = key_take(h, o.tls_key);
	if (err) {
		free(h->host_nqn);
		explicit_bzero(h, sizeof(*h));
		free(h);
		return err;
	}
	h->address = mem_strdup(o.address);
	h->subsystem_nqn = mem_strdup(o.subsystem_nqn);
	host_init(h, rt);
	h->status.since_ns = rt_now_ns(rt);
	fiber_spawn_big(rt, "nvme-life", life_run,
			h); /* it may do arithmetic itself: where there are no workers, and of TLS */
	*out = h;
	return 0;
}

int nvme_host_wait(struct nvme_host *h, uint64_t deadline_ns)
{
	while (h->state != NVME_HOST_LIVE) {
		if (h->is_closing)
			return OXE_SHUTDOWN;
		if (h->is_spent)
			return h->status.last_error ? h->status.last_error : OXE_CLOSED;
		if (!waitq_wait_until(&h->watchers, deadline_ns) && h->state != NVME_HOST_LIVE)
			return OXE_TIMEOUT;
	}
	return 0;
}

void nvme_host_close(struct nvme_host *h)
{
	assert(!h->is_closing);
	h->is_closing = true;
	shut_all(h);
	waitq_wake_all(&h->changed);
	while (!h->is_over)
		waitq_wait(&h->watchers);
	nvme_queue_free(&h->admin);
	for (uint32_t i = 0; i < h->options.queues; i++)
		nvme_queue_free(&h->queues[i]);
	free(h->queues);
	if (h->psk)
		explicit_bzero(h->psk, sizeof(*h->psk));
	free(h->psk);
	free(h->address);
	free(h->subsystem_nqn);
	free(h->host_nqn);
	explicit_bzero(&h->secret, sizeof(h->secret));
	explicit_bzero(&h->controller_secret, sizeof(h->controller_secret));
	free(h);
}

const struct nvme_host_info *nvme_host_info(const struct nvme_host *h)
{
	return &h->info;
}

void nvme_host_status(const struct nvme_host *h, struct nvme_host_status *out)
{
	*out = h->status;
	out->state = h->state;
	out->waiting = h->waiting_count;
}
