/*
 * ublk_device.c: requests taken, carried out, and answered in whatever order they finish.
 *
 *     taker     the next request -> check -> a fiber for the rest; then the next
 *     request   an engine -> a buffer -> a write's payload -> one call of the engine -> a read's payload -> the answer
 *
 * The kernel keeps a write's payload until we answer. So a request whose engine went away gives its buffer back, waits with
 * empty hands, and begins anew with the next engine: twice done is once done, as with what the kernel itself asks again after
 * a kill.
 */
#include "data/frontend/ublk/ublk_device.h"

#include "base/err.h"

struct request {
	struct ublk_device *device;
	struct rt_blk_request r;
};

/* ---- pure ------------------------------------------------------------------------------------------------------------ */

static bool op_moves_data(enum rt_blk_op op)
{
	return op == RT_BLK_READ || op == RT_BLK_WRITE;
}

int ublk_request_check(const struct rt_blk_request *r, const struct rt_blk_spec *spec)
{
	uint64_t end_bytes;
	if (r->op > RT_BLK_ZERO)
		return OXE_UNSUPPORTED;
	if (r->op == RT_BLK_FLUSH)
		return 0;
	if (spec->read_only && r->op != RT_BLK_READ)
		return OXE_ROFS;
	if (!u64_add_checked(r->offset_bytes, r->len_bytes, &end_bytes) || end_bytes > spec->size_bytes)
		return OXE_RANGE;
	if (r->len_bytes == 0 || !u64_is_aligned(r->offset_bytes | r->len_bytes, spec->lba_bytes))
		return OXE_ALIGN;
	return op_moves_data(r->op) && r->len_bytes > RT_BLK_IO_BYTES ? OXE_TOOBIG : 0;
}

static unsigned vol_flags_of(const struct rt_blk_request *r)
{
	return (r->flags & RT_BLK_FUA ? VOL_FUA : 0u) | (r->flags & RT_BLK_NO_HOLE ? VOL_NO_HOLE : 0u);
}

/* ---- one request ------------------------------------------------------------------------------------------------------- */

static int engine_call(struct engine *e, const struct rt_blk_request *r, void *data)
{
	unsigned flags = vol_flags_of(r);
	int err;
	switch (r->op) {
	case RT_BLK_READ:
		return engine_read(e, data, r->offset_bytes, r->len_bytes);
	case RT_BLK_WRITE:
		return engine_write(e, data, r->offset_bytes, r->len_bytes, flags & VOL_FUA);
	case RT_BLK_ZERO:
		return engine_zero(e, r->offset_bytes, r->len_bytes, flags);
	case RT_BLK_DISCARD:
		err = engine_trim(e, r->offset_bytes, r->len_bytes);
		return !err && flags & VOL_FUA ? engine_flush(e) : err;
	default:
		return engine_flush(e);
	}
}

/* Buffers come in powers of two; accounts are kept in what they really take. */
static uint64_t buffer_bytes(uint64_t need_bytes)
{
	uint64_t bytes = RT_IO_ALIGN;
	while (bytes < need_bytes)
		bytes *= 2;
	return bytes;
}

/* A device may hold three times what it leaves for all others: what waits inside a volume whose copies do not answer keeps its buffers. */
static bool has_memory(const struct ublk_device *d, uint64_t bytes)
{
	const struct ublk_memory *m = d->memory;
	if (m->lent_bytes + bytes > m->budget_bytes)
		return false;
	return d->lent_bytes == 0 || d->lent_bytes + bytes <= 3 * (m->budget_bytes - m->lent_bytes - bytes);
}

static void *payload_take(struct ublk_device *d, uint64_t len_bytes)
{
	uint64_t bytes = buffer_bytes(len_bytes);
	while (!has_memory(d, bytes))
		waitq_wait(&d->memory->room);
	d->lent_bytes += bytes;
	d->memory->lent_bytes += bytes;
	return rt_buf_get(d->memory->buffers, bytes);
}

static void payload_return(struct ublk_device *d, void *data, uint64_t len_bytes)
{
	uint64_t bytes = buffer_bytes(len_bytes);
	rt_buf_put(d->memory->buffers, data, bytes);
	d->lent_bytes -= bytes;
	d->memory->lent_bytes -= bytes;
	if (unlikely(!waitq_empty(&d->memory->room)))
		waitq_wake_all(&d->memory->room);
}

static int payload_call(struct ublk_device *d, struct engine *e, const struct rt_blk_request *r)
{
	void *data = payload_take(d, r->len_bytes);
	int err = r->op == RT_BLK_WRITE ? rt_blk_payload_get(d->blk, r, data) : 0;
	if (!err)
		err = engine_call(e, r, data);
	if (!err && r->op == RT_BLK_READ)
		err = rt_blk_payload_put(d->blk, r, data);
	payload_return(d, data, r->len_bytes);
	return err;
}

/* The engine, entered; NULL if none will come. */
static struct engine *engine_enter(struct ublk_device *d)
{
	while ((!d->engine || d->engine_lost) && !d->giving_up)
		waitq_wait(&d->engine_came);
	if (!d->engine || d->engine_lost)
		return NULL;
	d->engine_users++;
	return d->engine;
}

static void engine_leave(struct ublk_device *d, int err)
{
	d->engine_users--;
	if (engine_is_lost(err))
		d->engine_lost = true;
	if (d->engine_lost || d->engine_users == 0)
		waitq_wake_all(d->changed);
}

static int request_carry_out(struct ublk_device *d, const struct rt_blk_request *r)
{
	for (;;) {
		struct engine *e = engine_enter(d);
		if (!e)
			return OXE_SHUTDOWN;
		int err = op_moves_data(r->op) ? payload_call(d, e, r) : engine_call(e, r, NULL);
		engine_leave(d, err);
		if (!engine_is_lost(err))
			return err;
	}
}

static void request_main(void *arg)
{
	struct request *q = arg;
	struct ublk_device *d = q->device;
	rt_blk_done(d->blk, &q->r, request_carry_out(d, &q->r));
	free(q);
	group_done(&d->requests);
}

/* ---- the device -------------------------------------------------------------------------------------------------------- */

static void request_start(struct ublk_device *d, const struct rt_blk_request *r)
{
	int err = ublk_request_check(r, rt_blk_spec(d->blk));
	if (err) {
		rt_blk_done(d->blk, r, err);
		return;
	}
	struct request *q = mem_alloc(sizeof(*q));
	*q = (struct request){.device = d, .r = *r};
	group_add(&d->requests, 1);
	fiber_spawn(d->rt, "ublk-request", request_main, q);
}

static void taker_main(void *arg)
{
	struct ublk_device *d = arg;
	struct rt_blk_request r;
	while (rt_blk_next(d->blk, &r) == 0)
		request_start(d, &r);
	group_wait(&d->requests);
	d->ended = true;
	waitq_wake_all(d->changed);
}

void ublk_device_init(struct ublk_device *d, struct rt *rt, struct ublk_memory *memory, struct waitq *changed)
{
	*d = (struct ublk_device){.rt = rt, .memory = memory, .changed = changed};
	waitq_init(&d->engine_came);
	group_init(&d->requests);
}

void ublk_device_serve(struct ublk_device *d, struct rt_blk *blk)
{
	d->blk = blk;
	d->ended = false;
	fiber_spawn(d->rt, "ublk-taker", taker_main, d);
}

void ublk_device_engine_set(struct ublk_device *d, struct engine *e)
{
	d->engine = e;
	d->engine_lost = false;
	waitq_wake_all(&d->engine_came);
}

struct engine *ublk_device_engine_take(struct ublk_device *d)
{
	struct engine *e = d->engine;
	d->engine = NULL;
	while (d->engine_users)
		waitq_wait(d->changed);
	return e;
}

void ublk_device_give_up(struct ublk_device *d)
{
	d->giving_up = true;
	waitq_wake_all(&d->engine_came);
}
