/*
 * nvmf_request.c: a command, from the entry that names it to the answer.
 *
 *     its fiber   memory -> (a write: R2T, and sleep until the receiver has put the data there) -> run -> answer
 *
 * The receiver, which brings the data that lets others end, never waits for memory: so those who wait wait for commands that
 * can end. Commands of one connection wait in a line, so that only the first of them
 * is woken when memory comes back.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#define LARGE_BYTES (32 * KiB) /* data that deserves a receive of its own */

/* ---- the pool of requests --------------------------------------------------------------------------------------------- */

static struct nvmf_request *slot_new(struct nvmf_conn *c)
{
	assert(c->slot_count < NVMF_SLOTS_MAX);
	struct nvmf_request *r = mem_zalloc(sizeof(*r));
	r->slot = (uint16_t)c->slot_count;
	list_init(&r->link);
	list_init(&r->range_link);
	list_init(&r->fence_link);
	list_init(&r->r2t.link);
	list_init(&r->answer.link);
	r->r2t.request = r->answer.request = r;
	r->answer.is_answer = true;
	c->slots[c->slot_count++] = r;
	return r;
}

struct nvmf_request *nvmf_request_new(struct nvmf_conn *c, const struct nvme_sqe *sqe)
{
	struct nvmf_request *r = list_pop(&c->free_requests, struct nvmf_request, link);
	if (!r)
		r = slot_new(c);
	r->conn = c;
	r->sqe = *sqe;
	r->state = NVMF_RUNNING;
	r->status = 0;
	r->payload = NULL;
	r->payload_bytes = 0;
	r->received_bytes = r->answer_bytes = 0;
	r->result = 0;
	r->data_is_bad = false;
	r->waiter = NULL;
	r->fused = NULL;
	c->outstanding++;
	group_add(&c->requests, 1);
	return r;
}

static void payload_return(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	if (r->payload_is_extra) {
		free(r->payload);
	} else {
		rt_buf_put(c->server->payloads, r->payload, r->payload_bytes);
		c->in_flight_bytes -= r->payload_bytes;
		c->server->lent_bytes -= r->payload_bytes;
		if (r->payload_of)
			r->payload_of->lent_bytes -= r->payload_bytes;
		if (!waitq_empty(&c->server->memory))
			waitq_wake_all(&c->server->memory);
	}
	r->payload = NULL;
	r->payload_is_extra = false;
}

void nvmf_request_free(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	assert(r->state == NVMF_RUNNING);
	if (r->payload)
		payload_return(r);
	r->state = NVMF_FREE;
	list_add_head(&c->free_requests, &r->link);
	group_done(&c->requests);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

/* Buffers come in powers of two; accounts are kept in what they really take. */
static uint64_t buffer_bytes(uint64_t need_bytes)
{
	uint64_t pages = u64_div_up(need_bytes, RT_IO_ALIGN);
	return pages <= 1 ? RT_IO_ALIGN : (uint64_t)RT_IO_ALIGN << (64 - __builtin_clzll(pages - 1));
}

static struct nvmf_subsystem *subsystem_of(const struct nvmf_conn *c)
{
	return c->controller ? c->controller->subsystem : NULL;
}

/* A connection may hold as much as it leaves for all others together. So a few that take and never read cannot hold
 * everything: each newcomer finds something left, and small commands find a way past large ones. All connections of a volume may hold
 * three times what they leave: one that waits for its copies keeps what was asked of it, also when those who asked are gone. */
static bool has_memory(const struct nvmf_conn *c, uint64_t bytes)
{
	const struct nvmf_options *o = &c->server->options;
	const struct nvmf_subsystem *s = subsystem_of(c);
	uint64_t mine = c->in_flight_bytes + bytes, lent = c->server->lent_bytes + bytes;
	if (c->in_flight_bytes > 0 && mine > o->connection_bytes_max)
		return false;
	if (lent > o->buffer_budget_bytes)
		return false;
	uint64_t left = o->buffer_budget_bytes - lent;
	return mine <= left && (!s || s->lent_bytes + bytes <= 3 * left);
}

static void payload_take(struct nvmf_request *r, uint64_t bytes)
{
	struct nvmf_conn *c = r->conn;
	r->payload = rt_buf_try(c->server->payloads, bytes);
	assert(r->payload); /* the accounts say so */
	r->payload_bytes = bytes;
	c->in_flight_bytes += bytes;
	c->server->lent_bytes += bytes;
	r->payload_of = subsystem_of(c);
	if (r->payload_of)
		r->payload_of->lent_bytes += bytes;
}

int nvmf_payload_get(struct nvmf_request *r, uint64_t bytes)
{
	struct nvmf_conn *c = r->conn;
	bytes = buffer_bytes(bytes);
	fmutex_lock(&c->memory_turn);
	while (!c->is_broken && !has_memory(c, bytes))
		waitq_wait(&c->server->memory);
	fmutex_unlock(&c->memory_turn);
	if (c->is_broken)
		return OXE_CLOSED;
	payload_take(r, bytes);
	return 0;
}

void nvmf_payload_get_capsule(struct nvmf_request *r, uint64_t bytes)
{
	bytes = buffer_bytes(bytes);
	assert(bytes <= 2 * NVMF_CAPSULE_MAX);
	if (has_memory(r->conn, bytes)) {
		payload_take(r, bytes);
		return;
	}
	r->payload = aligned_alloc(RT_IO_ALIGN, bytes);
	assert(r->payload); /* as mem_alloc: without a page there is no going on */
	r->payload_bytes = bytes;
	r->payload_is_extra = true;
}

/* ---- its fiber ----------------------------------------------------------------------------------------------------------- */

/* By when some of the data that is expected must come. */
static void watch_data(struct nvmf_conn *c)
{
	uint64_t now_ns = rt_now_ns(c->server->rt);
	link_deadline(&c->link, c->awaiting ? now_ns + c->server->options.stall_timeout_ns : 0);
}

static int receive_asked_data(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	if (c->is_broken)
		return OXE_CLOSED;
	bool is_large = r->command.data_bytes >= LARGE_BYTES;
	r->received_bytes = 0;
	r->state = NVMF_AWAITING_DATA;
	r->waiter = fiber_current();
	c->awaiting++;
	c->awaiting_large += is_large;
	watch_data(c);
	nvmf_ask_data(r);
	fiber_park();
	c->awaiting_large -= is_large;
	c->awaiting--;
	watch_data(c);
	return r->received_bytes == r->command.data_bytes ? 0 : OXE_CLOSED;
}

void nvmf_request_data_done(struct nvmf_request *r)
{
	struct fiber *waiter = r->waiter;
	r->state = NVMF_RUNNING;
	r->waiter = NULL;
	fiber_ready(waiter);
}

void nvmf_requests_give_up(struct nvmf_conn *c)
{
	assert(c->is_broken);
	for (uint32_t i = 0; i < c->slot_count; i++)
		if (c->slots[i]->state == NVMF_AWAITING_DATA)
			nvmf_request_data_done(c->slots[i]);
	waitq_wake_all(&c->server->memory);
}

uint64_t nvmf_payload_need(const struct nvmf_request *r)
{
	bool is_compare = r->sqe.opcode == NVME_IO_COMPARE && r->conn->qid != NVME_ADMIN_QUEUE;
	return (is_compare ? 2 : 1) * (uint64_t)r->command.data_bytes;
}

int nvmf_fetch_data(struct nvmf_request *r)
{
	bool is_wanted = r->command.data == NVMF_DATA_TO_CONTROLLER && !r->command.in_capsule;
	return is_wanted ? receive_asked_data(r) : 0;
}

/* The payload buffer, and in it the data the command brings. */
static int prepare(struct nvmf_request *r)
{
	int err = 0;
	if (r->command.data != NVMF_NO_DATA && !r->payload)
		err = nvmf_payload_get(r, nvmf_payload_need(r));
	return err ? err : nvmf_fetch_data(r);
}

static uint16_t carry_out(struct nvmf_request *r)
{
	if (r->data_is_bad)
		return NVME_STATUS_TRANSIENT_TRANSPORT;
	if (r->sqe.opcode == NVME_FABRICS)
		return nvmf_fabrics_run(r);
	if (r->conn->qid == NVME_ADMIN_QUEUE)
		return nvmf_admin_run(r);
	return r->conn->controller->foreign ? nvmf_foreign_run(r) : nvmf_io_run(r);
}

static void request_run(void *arg)
{
	struct nvmf_request *r = arg;
	if (r->fused) {
		nvmf_pair_run(r);
		return;
	}
	int err = prepare(r);
	if (err)
		nvmf_request_free(r); /* the connection is broken: there is nobody to answer */
	else
		nvmf_answer(r, carry_out(r));
}

void nvmf_request_start(struct nvmf_request *r)
{
	struct rt *rt = r->conn->server->rt;
	uint8_t fctype = ((const struct nvme_connect *)&r->sqe)->fctype;
	bool is_auth = r->sqe.opcode == NVME_FABRICS &&
		       (fctype == NVME_FABRICS_AUTH_SEND || fctype == NVME_FABRICS_AUTH_RECEIVE);
	if (is_auth) /* foreign libraries, where offloading is a plain call */
		fiber_spawn_big(rt, "nvmf-auth", request_run, r);
	else
		fiber_spawn(rt, "nvmf-request", request_run, r);
}
