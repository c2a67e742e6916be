/*
 * nvme_host_queue.c: one queue: a connection, the commands on it, and the sender.
 *
 * A command that has something to say is on `to_send`; the first to get there starts the sender, a fiber that runs after all
 * that are ready now. By then whatever was submitted in this turn is there too, and goes out in one send.
 */
#include "base/crc32c.h"
#include "data/replica/nvme_host_impl.h"

#define BATCH_COMMANDS 64u
#define BATCH_PARTS    (3 * BATCH_COMMANDS) /* a piece is a header, data, and its digest */
#define BATCH_BYTES    MiB

/* ---- slots ------------------------------------------------------------------------------------------------------------ */

void nvme_queue_init(struct nvme_queue *q, struct nvme_host *h, uint16_t qid, uint32_t depth)
{
	*q = (struct nvme_queue){.host = h, .qid = qid, .command_count = depth, .is_ended = true};
	q->commands = mem_zalloc(depth * sizeof(*q->commands));
	q->buffer = mem_alloc(NVME_HOST_RECEIVE_BYTES);
	list_init(&q->free);
	list_init(&q->to_send);
	for (uint32_t i = 0; i < depth; i++) {
		q->commands[i].cid = (uint16_t)i;
		list_add_tail(&q->free, &q->commands[i].link);
	}
}

void nvme_queue_free(struct nvme_queue *q)
{
	assert(!q->conn && q->in_flight == 0);
	free(q->commands);
	free(q->buffer);
}

static bool command_is_busy(const struct nvme_command *c)
{
	return c->io || c->call;
}

struct nvme_command *nvme_queue_find(struct nvme_queue *q, uint16_t cid)
{
	uint32_t index = cid & ((1u << NVME_HOST_INDEX_BITS) - 1);
	struct nvme_command *c = index < q->command_count ? &q->commands[index] : NULL;
	return c && c->cid == cid && command_is_busy(c) && !c->is_answered ? c : NULL;
}

/* Most recently used first: its memory is still warm. The id changes with each use, so that an answer to an earlier one is
 * not taken for this one's. */
static struct nvme_command *command_take(struct nvme_queue *q, uint64_t timeout_ns)
{
	struct nvme_command *c = list_pop(&q->free, struct nvme_command, link);
	assert(c && !q->is_ended);
	q->in_flight++;
	c->cid = (uint16_t)(c->cid + (1u << NVME_HOST_INDEX_BITS));
	c->is_begun = c->is_sending = c->is_answered = c->is_lost = c->is_aborted = false;
	c->passed_bytes = c->granted_bytes = 0;
	c->way = NVME_WAY_NONE;
	c->data = NULL;
	c->len_bytes = 0;
	c->deadline_ns = timeout_ns ? rt_now_ns(q->host->rt) + timeout_ns : UINT64_MAX;
	return c;
}

/* The slot is free before anybody hears of it, so that the next request can have it. */
static void command_finish(struct nvme_queue *q, struct nvme_command *c)
{
	struct nvme_host_io *io = c->io;
	struct nvme_call *call = c->call;
	if (io) {
		io->value = c->value;
		io->got_bytes = c->way == NVME_WAY_IN ? c->passed_bytes : 0;
	}
	c->io = NULL;
	c->call = NULL;
	list_add_head(&q->free, &c->link);
	q->in_flight--;
	if (io && c->is_lost) {
		nvme_host_io_lost(q->host, io, c->is_begun, q->is_buried);
	} else if (io) {
		nvme_host_answered(q->host, io, c->status);
	} else {
		call->is_busy = false;
		call->status = c->status;
		call->value = c->value;
		call->result = c->is_lost ? OXE_CLOSED : nvme_host_error(c->status);
		call->done(call);
	}
}

/* Ended; but what the kernel still reads is not given back yet. */
static void command_end(struct nvme_queue *q, struct nvme_command *c)
{
	c->is_answered = true;
	if (c->is_sending)
		return;
	list_del(&c->link); /* it may have been about to send more */
	command_finish(q, c);
}

void nvme_command_answer(struct nvme_queue *q, struct nvme_command *c, uint16_t status, uint64_t value)
{
	c->status = status;
	c->value = value;
	command_end(q, c);
}

void nvme_queue_end(struct nvme_queue *q, bool is_buried)
{
	q->is_ended = true;
	q->is_buried = is_buried;
	for (uint32_t i = 0; i < q->command_count; i++) {
		struct nvme_command *c = &q->commands[i];
		if (!command_is_busy(c) || c->is_answered)
			continue;
		c->is_lost = true;
		c->status = NVME_STATUS_HOST_PATH;
		command_end(q, c);
	}
}

/* ---- the sender ------------------------------------------------------------------------------------------------------- */

struct batch {
	struct nvme_command *commands[BATCH_COMMANDS];
	struct rt_iovec parts[BATCH_PARTS];
	size_t command_count, part_count;
	uint64_t bytes;
};

static void batch_part(struct batch *b, void *data, size_t len_bytes)
{
	b->parts[b->part_count++] = (struct rt_iovec){data, len_bytes};
	b->bytes += len_bytes;
}

/* The header in place, and the data behind it with its digest. */
static void batch_data(struct batch *b, struct nvme_queue *q, struct nvme_command *c, uint32_t len_bytes)
{
	uint8_t *data = c->data + c->passed_bytes;
	c->passed_bytes += len_bytes;
	batch_part(b, data, len_bytes);
	if (q->terms.data_digest) {
		c->data_digest = nvmetcp_data_digest(crc32c(0, data, len_bytes));
		batch_part(b, &c->data_digest, sizeof(c->data_digest));
	}
}

/* Its data lies in the capsule if start() said so: it is `granted` before anybody asked. */
static void batch_capsule(struct batch *b, struct nvme_queue *q, struct nvme_command *c)
{
	c->is_begun = true;
	batch_part(b, c->head, c->head_bytes);
	if (c->granted_bytes)
		batch_data(b, q, c, c->granted_bytes);
}

static void batch_granted(struct batch *b, struct nvme_queue *q, struct nvme_command *c)
{
	uint32_t n = (uint32_t)u64_min(c->granted_bytes - c->passed_bytes, q->data_pdu_bytes);
	uint8_t flags = c->passed_bytes + n == c->granted_bytes ? NVMETCP_FLAG_LAST : 0;
	c->head_bytes = (uint32_t)nvmetcp_h2c_data_build(c->head, &q->terms, flags, c->cid, c->ttag,
							 c->passed_bytes, n);
	batch_part(b, c->head, c->head_bytes);
	batch_data(b, q, c, n);
}

static bool batch_take(struct batch *b, struct nvme_queue *q)
{
	if (list_empty(&q->to_send) || b->command_count == BATCH_COMMANDS || b->bytes >= BATCH_BYTES)
		return false;
	struct nvme_command *c = list_pop(&q->to_send, struct nvme_command, link);
	c->is_sending = true;
	if (c->is_begun)
		batch_granted(b, q, c);
	else
		batch_capsule(b, q, c);
	b->commands[b->command_count++] = c;
	return true;
}

static void batch_sent(struct batch *b, struct nvme_queue *q)
{
	for (size_t i = 0; i < b->command_count; i++) {
		struct nvme_command *c = b->commands[i];
		c->is_sending = false;
		if (c->is_answered)
			command_finish(q, c);
		else if (c->passed_bytes < c->granted_bytes)
			list_add_tail(&q->to_send, &c->link);
	}
}

static int queue_put(struct nvme_queue *q, const struct rt_iovec *parts, size_t part_count)
{
	return q->tls ? tls_send(q->tls, parts, part_count) : rt_send(q->conn, parts, part_count);
}

/* What is still to be sent when the queue ends is the receiver's to end, with all the rest. */
static void sender_run(void *arg)
{
	struct nvme_queue *q = arg;
	struct batch b;
	while (!list_empty(&q->to_send) && !q->is_ended) {
		b.command_count = b.part_count = 0;
		b.bytes = 0;
		while (batch_take(&b, q))
			;
		int err = queue_put(q, b.parts, b.part_count);
		if (err)
			nvme_host_lose(q->host, err, "queue %u: a send failed: %s", q->qid, err_text(err));
		batch_sent(&b, q);
	}
	q->has_sender = false;
	group_done(&q->host->streams);
}

static void queue_send(struct nvme_queue *q, struct nvme_command *c)
{
	list_add_tail(&q->to_send, &c->link);
	if (q->has_sender)
		return;
	q->has_sender = true;
	group_add(&q->host->streams, 1);
	nvme_host_spawn(q->host, "nvme-send", sender_run, q);
}

void nvme_command_grant(struct nvme_queue *q, struct nvme_command *c, uint16_t ttag, uint32_t granted_bytes)
{
	c->ttag = ttag;
	c->granted_bytes = granted_bytes;
	if (!c->is_sending)
		queue_send(q, c);
}

/* ---- starting ----------------------------------------------------------------------------------------------------------- */

static void sgl_set(struct nvme_sqe *sqe, uint8_t identifier, uint32_t len_bytes)
{
	sqe->flags = NVME_SQE_PSDT_SGL;
	sqe->sgl = (struct nvme_sgl){.length = le32_of(len_bytes), .identifier = identifier};
}

/* Data that goes out lies in the capsule where it fits, or waits until it is asked for. */
static void command_start(struct nvme_queue *q, struct nvme_command *c, struct nvme_sqe *sqe)
{
	bool in_capsule = c->way == NVME_WAY_OUT && c->len_bytes <= q->capsule_bytes;
	sqe->cid = le16_of(c->cid);
	sgl_set(sqe, in_capsule ? NVME_SGL_INCAPSULE : NVME_SGL_TRANSPORT, c->len_bytes);
	c->granted_bytes = in_capsule ? c->len_bytes : 0;
	c->head_bytes = (uint32_t)nvmetcp_command_build(c->head, &q->terms, sqe, c->granted_bytes);
	nvme_host_watch(q->host, c->deadline_ns);
	queue_send(q, c);
}

void nvme_queue_start_call(struct nvme_queue *q, struct nvme_call *call)
{
	struct nvme_command *c = command_take(q, call->timeout_ns);
	struct nvme_sqe sqe = call->sqe;
	call->is_busy = true;
	c->call = call;
	c->way = call->way;
	c->data = call->data;
	c->len_bytes = call->len_bytes;
	command_start(q, c, &sqe);
}

static void call_wake(struct nvme_call *call)
{
	if (call->fiber)
		fiber_ready(call->fiber);
}

int nvme_queue_call(struct nvme_queue *q, struct nvme_call *call)
{
	if (!nvme_queue_has_room(q))
		return call->result = OXE_CLOSED;
	call->done = call_wake;
	call->fiber = fiber_current();
	nvme_queue_start_call(q, call);
	while (call->is_busy)
		fiber_park();
	return call->result;
}

static uint8_t opcode_of(enum nvme_host_op op)
{
	static const uint8_t opcodes[NVME_HOST_OPS] = {
		[NVME_HOST_READ] = NVME_IO_READ,
		[NVME_HOST_WRITE] = NVME_IO_WRITE,
		[NVME_HOST_FLUSH] = NVME_IO_FLUSH,
		[NVME_HOST_ZERO] = NVME_IO_WRITE_ZEROES,
		[NVME_HOST_TRIM] = NVME_IO_DATASET_MANAGEMENT,
		[NVME_HOST_COMPARE] = NVME_IO_COMPARE,
	};
	return opcodes[op];
}

static void sqe_trim(struct nvme_command *c, struct nvme_sqe *sqe, uint64_t lba, uint32_t blocks)
{
	c->range = (struct nvme_dsm_range){.blocks = le32_of(blocks), .lba = le64_of(lba)};
	c->way = NVME_WAY_OUT;
	c->data = (uint8_t *)&c->range;
	c->len_bytes = sizeof(c->range);
	sqe->cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE);
}

static void sqe_range(struct nvme_command *c, struct nvme_sqe *sqe, const struct nvme_host_io *io,
		      uint32_t lba_bytes)
{
	uint64_t lba = io->offset_bytes / lba_bytes;
	uint32_t blocks = (uint32_t)(io->len_bytes / lba_bytes);
	if (io->op == NVME_HOST_FLUSH)
		return;
	if (io->op == NVME_HOST_TRIM) {
		sqe_trim(c, sqe, lba, blocks);
		return;
	}
	nvme_rw_set(sqe, lba, blocks,
		    (io->flags & NVME_HOST_FUA ? NVME_RW_FUA : 0) |
			    (io->op == NVME_HOST_ZERO && !(io->flags & NVME_HOST_NO_HOLE) ? NVME_RW_DEALLOCATE
											  : 0));
	if (io->op == NVME_HOST_ZERO)
		return;
	c->way = io->op == NVME_HOST_READ ? NVME_WAY_IN : NVME_WAY_OUT;
	c->data = io->data;
	c->len_bytes = (uint32_t)io->len_bytes;
}

static void sqe_other(struct nvme_command *c, struct nvme_sqe *sqe, const struct nvme_host_io *io)
{
	le32 nsid = sqe->nsid;
	*sqe = *io->entry;
	sqe->nsid = nsid;
	if (io->len_bytes == 0)
		return;
	c->way = sqe->opcode & NVME_OPCODE_DATA_TO_HOST ? NVME_WAY_IN : NVME_WAY_OUT;
	c->data = io->data;
	c->len_bytes = (uint32_t)io->len_bytes;
}

void nvme_queue_start_io(struct nvme_queue *q, struct nvme_host_io *io)
{
	uint64_t timeout_ns = io->timeout_ns ? io->timeout_ns : q->host->options.command_timeout_ns;
	struct nvme_command *c = command_take(q, timeout_ns);
	struct nvme_sqe sqe = {.opcode = opcode_of(io->op), .nsid = le32_of(q->host->options.namespace_id)};
	c->io = io;
	if (io->op == NVME_HOST_OTHER)
		sqe_other(c, &sqe, io);
	else
		sqe_range(c, &sqe, io, q->host->info.lba_bytes);
	command_start(q, c, &sqe);
}

/* ---- the connection ------------------------------------------------------------------------------------------------------- */

int nvme_queue_get(struct nvme_queue *q, void *data, size_t len_bytes, size_t *got_bytes)
{
	int err = q->tls ? tls_recv(q->tls, data, len_bytes, got_bytes)
			 : rt_recv(q->conn, data, len_bytes, got_bytes);
	return err ? err : *got_bytes ? 0 : OXE_CLOSED;
}

static int receive_all(struct nvme_queue *q, void *data, size_t len_bytes)
{
	int err = 0;
	size_t got = 0;
	for (size_t done = 0; !err && done < len_bytes; done += got)
		err = nvme_queue_get(q, (uint8_t *)data + done, len_bytes - done, &got);
	return err;
}

/* ICReq and ICResp: the digests are used if both want them. */
static int queue_agree(struct nvme_queue *q)
{
	struct nvmetcp_icreq ask;
	struct nvmetcp_icresp answer;
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault = {.what = "a PDU that is no ICResp"};
	const struct nvme_host_options *o = &q->host->options;
	uint8_t wanted =
		(o->header_digest ? NVMETCP_DIGEST_HEADER : 0) | (o->data_digest ? NVMETCP_DIGEST_DATA : 0);
	nvmetcp_icreq_build(&ask, 0, wanted, 0);
	int err = queue_put(q, &(struct rt_iovec){&ask, sizeof(ask)}, 1);
	if (!err)
		err = receive_all(q, &answer.ch, sizeof(answer.ch));
	if (err)
		return err;
	err = nvmetcp_ch_check(&q->terms, &answer.ch, &pdu, &fault);
	if (!err && pdu.type != NVMETCP_ICRESP)
		err = OXE_PROTO;
	if (!err)
		err = receive_all(q, &answer.ch + 1, sizeof(answer) - sizeof(answer.ch));
	if (!err)
		err = nvmetcp_head_check(&q->terms, &pdu, &answer, &fault);
	if (!err && (answer.digests & ~wanted)) {
		fault.what = "an ICResp with digests nobody asked for";
		err = OXE_PROTO;
	}
	if (err == OXE_PROTO)
		nvme_host_lose(q->host, err, "queue %u: the target sent %s", q->qid, fault.what);
	if (err)
		return err;
	q->terms.header_digest = answer.digests & NVMETCP_DIGEST_HEADER;
	q->terms.data_digest = answer.digests & NVMETCP_DIGEST_DATA;
	q->terms.tx_pda = answer.cpda;
	q->data_pdu_bytes = (uint32_t)u64_align_down(le32_get(answer.maxh2cdata), 4);
	return 0;
}

static int queue_secure(struct nvme_queue *q)
{
	const char *because;
	int err = tls_connect_key(q->host->psk, q->conn, &q->tls, &because);
	if (err)
		nvme_host_lose(q->host, err, "queue %u: no TLS: %s", q->qid, because);
	return err;
}

int nvme_queue_open(struct nvme_queue *q, uint32_t depth, uint64_t deadline_ns)
{
	struct nvme_host *h = q->host;
	assert(!q->conn && depth <= q->command_count);
	int err = rt_connect(h->rt, h->address, deadline_ns, &q->conn);
	if (err) {
		q->conn = NULL;
		return err;
	}
	if (h->is_lost || h->is_closing)
		return OXE_CLOSED;
	err = h->psk ? queue_secure(q) : 0;
	if (err)
		return err;
	q->terms = (struct nvmetcp_terms){.side = NVMETCP_SIDE_HOST, .rx_data_max = UINT32_MAX};
	q->start = q->end = 0;
	q->depth = depth;
	q->capsule_bytes = q->qid == NVME_ADMIN_QUEUE ? NVME_HOST_ADMIN_CAPSULE : h->limits.capsule_bytes;
	err = queue_agree(q);
	if (err)
		return err;
	q->is_ended = false;
	group_add(&h->streams, 1);
	nvme_host_spawn(h, "nvme-receive", nvme_queue_receive, q);
	return 0;
}

void nvme_queue_close(struct nvme_queue *q)
{
	assert(q->in_flight == 0 && !q->has_sender);
	if (q->tls)
		tls_free(q->tls);
	if (q->conn)
		rt_conn_close(q->conn);
	q->tls = NULL;
	q->conn = NULL;
	q->is_ended = true;
}
