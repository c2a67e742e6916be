/*
 * nvmf_reply.c: what goes to the host, from a status to the wire.
 *
 * What is ready joins its connection's queue. The first to do so starts the sender, a fiber that runs after all that are
 * ready now: by then the answers of everything that completed in this turn are in the queue, and go out in one send. What a
 * read gives is sent from where the disk put it.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/crc32c.h"

#define BATCH_BYTES    (1 * MiB) /* then send: buffers are returned when their batch is out */
#define HEAD_MAX_BYTES 160
#define HEADS_BYTES    (8 * KiB)

static_assert(HEAD_MAX_BYTES >= NVMETCP_HEAD_MAX, "headers are gathered, data is not");

/* ---- the sender --------------------------------------------------------------------------------------------------------- */

struct batch {
	struct list outs;
	struct rt_iovec parts[NVMF_BATCH_PARTS];
	size_t part_count, out_count;
	uint64_t bytes;
	uint8_t heads[HEADS_BYTES]; /* small parts, one after another */
	size_t heads_bytes;
};

/* Small parts that follow one another become one: the kernel takes few parts at a time. */
static void batch_add(struct batch *b, const struct rt_iovec *part)
{
	struct rt_iovec *last = b->part_count ? &b->parts[b->part_count - 1] : NULL;
	uint8_t *at = b->heads + b->heads_bytes;
	b->bytes += part->len_bytes;
	if (part->len_bytes > HEAD_MAX_BYTES) {
		b->parts[b->part_count++] = *part;
		return;
	}
	memcpy(at, part->data, part->len_bytes);
	b->heads_bytes += part->len_bytes;
	if (last && (uint8_t *)last->data + last->len_bytes == at)
		last->len_bytes += part->len_bytes;
	else
		b->parts[b->part_count++] = (struct rt_iovec){at, part->len_bytes};
}

static bool batch_has_room(const struct batch *b)
{
	return b->out_count < NVMF_BATCH_ANSWERS && b->part_count + NVMF_OUT_PARTS <= NVMF_BATCH_PARTS &&
	       b->heads_bytes + NVMF_OUT_PARTS * HEAD_MAX_BYTES <= HEADS_BYTES && b->bytes < BATCH_BYTES;
}

static bool batch_take(struct batch *b, struct nvmf_conn *c)
{
	struct nvmf_out *out = list_first(&c->out, struct nvmf_out, link);
	if (list_empty(&c->out) || !batch_has_room(b))
		return false;
	for (size_t i = 0; i < out->part_count; i++)
		batch_add(b, &out->parts[i]);
	b->out_count++;
	c->outstanding -= out->is_answer; /* from now on the host may have seen it */
	list_del(&out->link);
	list_add_tail(&b->outs, &out->link);
	return true;
}

static void batch_send(struct batch *b, struct nvmf_conn *c)
{
	if (c->is_broken)
		return;
	int err = link_send(&c->link, b->parts, b->part_count);
	if (err == OXE_TIMEOUT)
		nvmf_drop(c, "it does not read its answers");
	if (err)
		nvmf_conn_break(c);
}

/* An R2T is in no later batch than its command's answer, so the command may go when that is out. */
static void batch_done(struct batch *b)
{
	struct nvmf_out *out;
	while ((out = list_pop(&b->outs, struct nvmf_out, link)))
		if (out->is_answer)
			nvmf_request_free(out->request);
}

static void sender_run(void *arg)
{
	struct nvmf_conn *c = arg;
	struct batch b;
	list_init(&b.outs);
	while (!list_empty(&c->out)) {
		b.part_count = b.out_count = b.heads_bytes = 0;
		b.bytes = 0;
		while (batch_take(&b, c))
			;
		batch_send(&b, c);
		batch_done(&b);
	}
	c->is_sending = false;
	if (c->is_leaving)
		nvmf_conn_break(c);
	group_done(&c->requests);
}

static void sender_start(struct nvmf_conn *c)
{
	c->is_sending = true;
	group_add(&c->requests, 1);
	if (c->link.tls)
		fiber_spawn_big(c->server->rt, "nvmf-send", sender_run, c);
	else
		fiber_spawn(c->server->rt, "nvmf-send", sender_run, c);
}

static void enqueue(struct nvmf_conn *c, struct nvmf_out *out)
{
	list_add_tail(&c->out, &out->link);
	if (!c->is_sending)
		sender_start(c);
}

int nvmf_send_now(struct nvmf_conn *c, const void *data, size_t len_bytes)
{
	if (c->is_sending)
		return OXE_BUSY;
	c->is_sending = true;
	int err = link_send(&c->link, &(struct rt_iovec){(void *)data, len_bytes}, 1);
	c->is_sending = false;
	if (!list_empty(&c->out)) /* which came meanwhile */
		sender_start(c);
	return err;
}

/* ---- PDUs --------------------------------------------------------------------------------------------------------------- */

static void out_add(struct nvmf_out *out, void *data, size_t len_bytes)
{
	assert(out->part_count < ARRAY_COUNT(out->parts));
	out->parts[out->part_count++] = (struct rt_iovec){data, len_bytes};
}

void nvmf_ask_data(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	r->r2t.part_count = 0;
	out_add(&r->r2t, r->r2t_head,
		nvmetcp_r2t_build(r->r2t_head, &c->terms, le16_get(r->sqe.cid), r->slot, 0,
				  r->command.data_bytes));
	enqueue(c, &r->r2t);
}

static void add_data(struct nvmf_request *r, bool is_all)
{
	struct nvmf_conn *c = r->conn;
	uint8_t flags = NVMETCP_FLAG_LAST | (is_all ? NVMETCP_FLAG_SUCCESS : 0);
	out_add(&r->answer, r->data_head,
		nvmetcp_c2h_data_build(r->data_head, &c->terms, flags, le16_get(r->sqe.cid), 0,
				       r->answer_bytes));
	out_add(&r->answer, r->payload, r->answer_bytes);
	if (!c->terms.data_digest)
		return;
	r->data_digest = nvmetcp_data_digest(crc32c(0, r->payload, r->answer_bytes));
	out_add(&r->answer, &r->data_digest, sizeof(r->data_digest));
}

/* Without flow control of the submission queue the data can say that all is well, and no response needs to follow. */
static bool is_data_enough(const struct nvmf_request *r, uint16_t status)
{
	return r->conn->no_flow_control && status == 0 && r->result == 0 && r->answer_bytes > 0;
}

void nvmf_answer(struct nvmf_request *r, uint16_t status)
{
	struct nvmf_conn *c = r->conn;
	bool is_enough = is_data_enough(r, status);
	if (status)
		nvmf_error_note(r, status);
	r->answer.part_count = 0;
	if (status == 0 && r->answer_bytes > 0)
		add_data(r, is_enough);
	if (!is_enough) {
		struct nvme_cqe cqe =
			nvme_cqe_set(le16_get(r->sqe.cid), c->qid, c->no_flow_control ? 0xffff : c->sq_head,
				     status, r->result);
		out_add(&r->answer, r->answer_head, nvmetcp_response_build(r->answer_head, &c->terms, &cqe));
	}
	enqueue(c, &r->answer);
}
