/*
 * nvmf_receive.c: PDUs, received and taken apart.
 *
 *     common header -> header -> (a capsule's data | a transfer's data, straight into its command's memory) -> the next
 *
 * Many small PDUs come out of one receive. While data is expected that is large, a header is received alone, so that the data
 * after it lands where the disk will take it from. Only the receiver reads the socket, and it waits for nothing but the host.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "data/nvme/nvme_status.h"

#define RECEIVE_BYTES (256 * KiB) /* once a host has shown that it sends that much at a time */
#define PDU_MIN_BYTES 24	  /* no PDU is shorter */

struct received {
	struct nvmetcp_pdu pdu;
	uint8_t head[NVMETCP_HEAD_MAX];
};

/* ---- what is wrong with it ------------------------------------------------------------------------------------------------ */

/* Say why in a TermReq, and end. */
static int terminate(struct nvmf_conn *c, const struct nvmetcp_fault *fault, const void *head,
		     size_t head_bytes)
{
	uint8_t term[NVMETCP_TERM_BYTES_MAX];
	size_t term_bytes = nvmetcp_term_build(term, &c->terms, fault, head, head_bytes);
	/* Between two batches of the sender, or not at all: it is a courtesy. */
	int err = c->is_broken ? OXE_CLOSED : nvmf_send_now(c, term, term_bytes);
	(void)err;
	return nvmf_drop(c, fault->what);
}

static int refuse_pdu(struct nvmf_conn *c, const struct received *in, enum nvmetcp_fes fes, uint32_t fei,
		      const char *what)
{
	return terminate(c, &(struct nvmetcp_fault){fes, fei, what}, in->head, in->pdu.head_bytes);
}

/* ---- data ------------------------------------------------------------------------------------------------------------------- */

/* The way from the header to the data. */
static int skip_padding(struct nvmf_conn *c, const struct nvmetcp_pdu *pdu)
{
	uint32_t padding_bytes = pdu->data_offset_bytes - pdu->head_bytes;
	return padding_bytes ? link_skip(&c->link, padding_bytes) : 0;
}

/* pdu->data_bytes into `data`, and its digest. */
static int receive_data(struct nvmf_conn *c, const struct nvmetcp_pdu *pdu, void *data, bool *is_bad)
{
	le32 digest;
	int err = link_read(&c->link, data, pdu->data_bytes);
	if (err || !pdu->has_data_digest)
		return err;
	err = link_read(&c->link, &digest, sizeof(digest));
	if (err == 0 && le32_get(digest) != crc32c(0, data, pdu->data_bytes))
		*is_bad = true;
	return err;
}

static int skip_data(struct nvmf_conn *c, const struct nvmetcp_pdu *pdu)
{
	return link_skip(&c->link, pdu->data_bytes + (pdu->has_data_digest ? NVMETCP_DIGEST_BYTES : 0));
}

/* ---- commands ---------------------------------------------------------------------------------------------------------------- */

static uint16_t decode(const struct nvmf_conn *c, const struct nvme_sqe *sqe, uint32_t capsule_bytes,
		       struct nvmf_command *out)
{
	if (sqe->opcode == NVME_FABRICS)
		return nvmf_fabrics_decode(sqe, capsule_bytes, out);
	if (c->qid == NVME_ADMIN_QUEUE)
		return nvmf_admin_decode(sqe, capsule_bytes, out);
	if (c->controller->foreign)
		return nvmf_foreign_decode(sqe, capsule_bytes, out);
	struct nvmf_bounds bounds = nvmf_bounds_of(c, capsule_bytes);
	return nvmf_io_decode(sqe, &bounds, out);
}

static bool is_connect(const struct nvme_sqe *sqe)
{
	return sqe->opcode == NVME_FABRICS &&
	       ((const struct nvme_connect *)sqe)->fctype == NVME_FABRICS_CONNECT;
}

/* A queue is connected once, and until then nothing else can be done with it. Commands proper want an enabled controller. */
static uint16_t check_order(const struct nvmf_conn *c, const struct nvme_sqe *sqe)
{
	bool is_out_of_order = is_connect(sqe) == (c->controller != NULL);
	if (is_out_of_order || (sqe->opcode != NVME_FABRICS && !(c->controller->csts & NVME_CSTS_RDY)))
		return NVME_STATUS_SEQUENCE_ERROR | NVME_STATUS_DNR;
	return nvmf_auth_admits(c, sqe) ? 0 : NVME_STATUS_AUTH_REQUIRED | NVME_STATUS_DNR;
}

/* The data of a capsule belongs to it, whatever is thought of it. */
static int take_capsule_data(struct nvmf_request *r, const struct nvmetcp_pdu *pdu)
{
	struct nvmf_conn *c = r->conn;
	const struct nvmf_command *command = &r->command;
	if (pdu->data_bytes == 0)
		return 0;
	int err = skip_padding(c, pdu);
	if (err || r->status || !command->in_capsule)
		return err ? err : skip_data(c, pdu);
	nvmf_payload_get_capsule(r, u64_max(pdu->data_bytes, nvmf_payload_need(r)));
	err = receive_data(c, pdu, r->payload, &r->data_is_bad);
	if (err == 0 && command->capsule_offset > 0)
		memmove(r->payload, (uint8_t *)r->payload + command->capsule_offset, command->data_bytes);
	return err;
}

/* The first of two fused commands waits for the second, which must be the next. True if this is settled. */
static bool pair_fused(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	struct nvmf_request *first = c->fused_first;
	uint8_t fuse = nvmf_fuse(&r->sqe);
	if (likely(!first && !fuse))
		return false;
	c->fused_first = NULL;
	if (first && fuse == NVME_SQE_FUSE_SECOND) {
		r->fused = first;
		nvmf_request_start(r);
		return true;
	}
	if (first)
		nvmf_answer(first, NVME_STATUS_FUSED_MISSING | NVME_STATUS_DNR);
	if (fuse == NVME_SQE_FUSE_FIRST)
		c->fused_first = r;
	else if (fuse)
		nvmf_answer(r, NVME_STATUS_FUSED_MISSING | NVME_STATUS_DNR);
	return fuse != 0;
}

/* A command that came, with its data: on its way. */
static void dispatch(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	if (c->qid != NVME_ADMIN_QUEUE && pair_fused(r))
		return;
	if (r->status)
		nvmf_answer(r, r->status);
	else if (is_connect(&r->sqe))
		nvmf_connect_run(r);
	else if (r->sqe.opcode == NVME_ADMIN_ASYNC_EVENT && c->qid == NVME_ADMIN_QUEUE)
		nvmf_event_wait(r);
	else
		nvmf_request_start(r);
}

static int take_command(struct nvmf_conn *c, const struct received *in)
{
	const struct nvme_sqe *sqe = &((const struct nvmetcp_command *)in->head)->sqe;
	if (c->outstanding >= c->entries)
		return nvmf_drop(c, "more commands than its queue has entries");
	struct nvmf_request *r = nvmf_request_new(c, sqe);
	c->server->stats.commands++;
	c->sq_head = (uint16_t)((c->sq_head + 1) % c->entries);
	if (c->controller) {
		c->controller->was_heard = true;
		c->controller->command_count++;
	}
	r->status = check_order(c, sqe);
	if (r->status == 0)
		r->status = decode(c, sqe, in->pdu.data_bytes, &r->command);
	int err = take_capsule_data(r, &in->pdu);
	if (err)
		nvmf_request_free(r);
	else
		dispatch(r);
	return err;
}

/* ---- data that was asked for ------------------------------------------------------------------------------------------------- */

/* The data of one PDU into its command's memory, and the command on its way if it was the last. */
static int receive_asked(struct nvmf_conn *c, const struct received *in, struct nvmf_request *r)
{
	r->state = NVMF_RECEIVING;
	int err = skip_padding(c, &in->pdu);
	if (err == 0)
		err = receive_data(c, &in->pdu, (uint8_t *)r->payload + r->received_bytes, &r->data_is_bad);
	if (err == 0)
		r->received_bytes += in->pdu.data_bytes;
	r->state = NVMF_AWAITING_DATA;
	if (err || c->is_broken || r->received_bytes == r->command.data_bytes)
		nvmf_request_data_done(r);
	else
		link_deadline(&c->link, rt_now_ns(c->server->rt) + c->server->options.stall_timeout_ns);
	return err;
}

static int take_data(struct nvmf_conn *c, const struct received *in)
{
	const struct nvmetcp_data *w = (const void *)in->head;
	uint16_t slot = le16_get(w->ttag);
	struct nvmf_request *r = slot < c->slot_count ? c->slots[slot] : NULL;
	if (!r || r->state != NVMF_AWAITING_DATA || r->sqe.cid.b[0] != w->cccid.b[0] ||
	    r->sqe.cid.b[1] != w->cccid.b[1])
		return refuse_pdu(c, in, NVMETCP_FES_INVALID_HEADER, offsetof(struct nvmetcp_data, ttag),
				  "data that was not asked for");
	uint32_t rest = r->command.data_bytes - r->received_bytes;
	if (le32_get(w->offset) != r->received_bytes || in->pdu.data_bytes > rest)
		return refuse_pdu(c, in, NVMETCP_FES_DATA_RANGE, offsetof(struct nvmetcp_data, offset),
				  "data out of order, or beyond what was asked for");
	bool is_last = in->pdu.flags & NVMETCP_FLAG_LAST;
	if (is_last != (in->pdu.data_bytes == rest))
		return refuse_pdu(c, in, NVMETCP_FES_INVALID_HEADER, offsetof(struct nvmetcp_ch, flags),
				  "data that ends early, or does not end");
	c->controller->was_heard = true;
	return receive_asked(c, in, r);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------ */

static int take_icreq(struct nvmf_conn *c, const struct received *in)
{
	const struct nvmetcp_icreq *w = (const void *)in->head;
	uint8_t answer[sizeof(struct nvmetcp_icresp)];
	uint8_t digests = w->digests & (NVMETCP_DIGEST_HEADER | NVMETCP_DIGEST_DATA);
	nvmetcp_icresp_build(answer, 0, digests, NVMF_DATA_MAX);
	int err = nvmf_send_now(c, answer, sizeof(answer));
	c->terms.header_digest = digests & NVMETCP_DIGEST_HEADER;
	c->terms.data_digest = digests & NVMETCP_DIGEST_DATA;
	c->terms.tx_pda = w->hpda;
	c->is_initialized = true;
	return err;
}

static int take_term(struct nvmf_conn *c, const struct received *in)
{
	const struct nvmetcp_term *w = (const void *)in->head;
	LOG_WARN("nvmf.terminated", "a host ended the connection", F_STR("peer", rt_conn_peer(c->link.conn)),
		 F_STR("because", nvmetcp_fes_text(le16_get(w->fes))), F_U64("field", le32_get(w->fei)));
	return OXE_CLOSED;
}

static int take_pdu(struct nvmf_conn *c, const struct received *in)
{
	if (c->is_broken) /* while it came */
		return OXE_CLOSED;
	bool is_first = in->pdu.type == NVMETCP_ICREQ;
	if (in->pdu.type != NVMETCP_H2C_TERM && is_first == c->is_initialized)
		return refuse_pdu(c, in, NVMETCP_FES_SEQUENCE, 0, "a PDU that cannot come now");
	switch (in->pdu.type) {
	case NVMETCP_ICREQ:
		return take_icreq(c, in);
	case NVMETCP_COMMAND:
		return take_command(c, in);
	case NVMETCP_H2C_DATA:
		return take_data(c, in);
	default:
		return take_term(c, in);
	}
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------------- */

static int check_ch(struct nvmf_conn *c, struct received *in)
{
	struct nvmetcp_fault fault;
	const struct nvmetcp_ch *ch = (const void *)link_bytes(&c->link);
	int err = nvmetcp_ch_check(&c->terms, ch, &in->pdu, &fault);
	return err ? terminate(c, &fault, ch, sizeof(*ch)) : 0;
}

static int check_head(struct nvmf_conn *c, struct received *in)
{
	struct nvmetcp_fault fault;
	memcpy(in->head, link_bytes(&c->link), in->pdu.head_bytes);
	link_take(&c->link, in->pdu.head_bytes);
	int err = nvmetcp_head_check(&c->terms, &in->pdu, in->head, &fault);
	return err ? terminate(c, &fault, in->head, in->pdu.head_bytes) : 0;
}

/* Suspends for one PDU. */
static int receive_pdu(struct nvmf_conn *c)
{
	struct received in;
	bool exactly = c->awaiting_large > 0;
	int err = link_fill(&c->link, PDU_MIN_BYTES, exactly);
	if (err)
		return err;
	if (link_buffered(&c->link) == NVMF_RECEIVE_MIN && c->link.capacity == NVMF_RECEIVE_MIN)
		link_resize(&c->link, RECEIVE_BYTES);
	err = check_ch(c, &in);
	if (err == 0)
		err = link_fill(&c->link, in.pdu.head_bytes, exactly);
	if (err == 0)
		err = check_head(c, &in);
	return err ? err : take_pdu(c, &in);
}

void nvmf_receive(struct nvmf_conn *c)
{
	static const struct nvmetcp_fault in_the_clear = {
		NVMETCP_FES_SEQUENCE, 0, "it came in the clear, where TLS is required (--nvme-tls)"};
	bool is_refused;
	int err;
	link_deadline(&c->link, rt_now_ns(c->server->rt) + c->server->options.handshake_timeout_ns);
	err = nvmf_tls_begin(c, &is_refused);
	if (is_refused)
		err = terminate(c, &in_the_clear, NULL, 0);
	while (err == 0 && !c->is_broken)
		err = receive_pdu(c);
	if (err == OXE_TIMEOUT)
		nvmf_drop(c, c->controller ? "it stalled in the middle of something"
					   : "it did not connect in time");
}
