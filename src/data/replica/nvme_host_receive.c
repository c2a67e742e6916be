/*
 * nvme_host_receive.c: what the target says, checked, and put where it belongs.
 *
 * Small PDUs are decoded out of a large buffer, many to one receive; the rest of long data is received straight into the
 * caller's memory. Nothing is touched on the word of a PDU before it was held against the command it names: that it is in
 * flight, begun, goes this way, and that the range is the next one in order and ends inside the command.
 */
#include "base/crc32c.h"
#include "data/nvme/nvme_status.h"
#include "data/replica/nvme_host_impl.h"

#define DIRECT_MIN_BYTES (16 * KiB) /* less than this is worth a copy: other PDUs come with it */

/* ---- what an answer means ------------------------------------------------------------------------------------------------- */

static const struct {
	uint16_t status;
	int err;
} meanings[] = {
	{NVME_STATUS_LBA_RANGE, OXE_RANGE},
	{NVME_STATUS_CAPACITY_EXCEEDED, OXE_NOSPC},
	{NVME_STATUS_WRITE_PROTECTED, OXE_ROFS},
	{NVME_STATUS_READ_ONLY_RANGE, OXE_ROFS},
	{NVME_STATUS_COMPARE_FAILURE, OXE_DIFFERS},
	{NVME_STATUS_INVALID_OPCODE, OXE_UNSUPPORTED},
	{NVME_STATUS_INVALID_FIELD, OXE_INVAL},
	{NVME_STATUS_INVALID_NAMESPACE, OXE_NOENT},
	{NVME_STATUS_NAMESPACE_NOT_READY, OXE_NOTREADY},
	{NVME_STATUS_ABORT_REQUESTED, OXE_CANCELLED},
	{NVME_STATUS_RESERVATION_CONFLICT, OXE_PERM},
	{NVME_STATUS_ACCESS_DENIED, OXE_PERM},
	{NVME_STATUS_OPERATION_DENIED, OXE_PERM},
	{NVME_STATUS_ANA_TRANSITION, OXE_NOTREADY},
	{NVME_STATUS_ANA_INACCESSIBLE, OXE_NOTREADY},
	{NVME_STATUS_TRANSIENT_TRANSPORT, OXE_NOTREADY},
	{NVME_STATUS_INTERRUPTED, OXE_NOTREADY},
	{NVME_STATUS_PATH_INTERNAL, OXE_NOTREADY},
	{NVME_STATUS_ANA_PERSISTENT_LOSS, OXE_NOTREADY},
	{NVME_STATUS_ABORTED_SQ_DELETION, OXE_CANCELLED},
	{NVME_STATUS_POWER_LOSS, OXE_CANCELLED},
	{NVME_STATUS_HOST_ABORTED, OXE_CANCELLED},
};

int nvme_host_error(uint16_t status)
{
	uint16_t code = status & NVME_STATUS_CODE_MASK;
	if (code == NVME_STATUS_SUCCESS)
		return 0;
	for (size_t i = 0; i < ARRAY_COUNT(meanings); i++)
		if (meanings[i].status == code)
			return meanings[i].err;
	return OXE_IO;
}

bool nvme_host_is_retryable(uint16_t status)
{
	int err = nvme_host_error(status);
	return err == OXE_CANCELLED || (err == OXE_NOTREADY && !(status & NVME_STATUS_DNR));
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------ */

static size_t buffered(const struct nvme_queue *q)
{
	return q->end - q->start;
}

static int fill_slowly(struct nvme_queue *q, size_t need)
{
	int err = 0;
	if (q->start == q->end) {
		q->start = q->end = 0;
	} else if (NVME_HOST_RECEIVE_BYTES - q->start < need || q->end > NVME_HOST_RECEIVE_BYTES / 2) {
		memmove(q->buffer, q->buffer + q->start, buffered(q));
		q->end -= q->start;
		q->start = 0;
	}
	while (!err && buffered(q) < need) {
		size_t got = 0;
		err = nvme_queue_get(q, q->buffer + q->end, NVME_HOST_RECEIVE_BYTES - q->end, &got);
		q->end += err ? 0 : got;
	}
	return err;
}

/* `need` bytes, a header's worth, at hand. */
static int fill(struct nvme_queue *q, size_t need)
{
	return likely(buffered(q) >= need) ? 0 : fill_slowly(q, need);
}

static int skip(struct nvme_queue *q, size_t len_bytes)
{
	int err = fill(q, len_bytes);
	q->start += err ? 0 : len_bytes;
	return err;
}

static int read_into(struct nvme_queue *q, uint8_t *data, size_t len_bytes)
{
	int err = 0;
	while (!err && len_bytes > 0) {
		size_t got = u64_min(len_bytes, buffered(q));
		if (got > 0) {
			memcpy(data, q->buffer + q->start, got);
			q->start += got;
		} else if (len_bytes >= DIRECT_MIN_BYTES) {
			err = nvme_queue_get(q, data, len_bytes, &got);
		} else {
			err = fill_slowly(q, len_bytes);
		}
		data += got;
		len_bytes -= got;
	}
	return err;
}

/* ---- PDUs --------------------------------------------------------------------------------------------------------------------- */

static int broken(struct nvme_queue *q, const char *what)
{
	nvme_host_lose(q->host, OXE_PROTO, "queue %u: the target sent %s", q->qid, what);
	return OXE_PROTO;
}

/* The command a PDU is about, if it is one that can have been seen by the target. */
static struct nvme_command *find_begun(struct nvme_queue *q, le16 cid)
{
	struct nvme_command *c = nvme_queue_find(q, le16_get(cid));
	return c && c->is_begun ? c : NULL;
}

/* Of an admin command that reads, less than all is an answer too: what is missing reads as zeroes. And whoever makes a command of
 * his own is told how much came. */
static bool may_be_short(const struct nvme_command *c)
{
	return c->way == NVME_WAY_IN && (c->call || c->io->op == NVME_HOST_OTHER);
}

static int take_response(struct nvme_queue *q, const struct nvmetcp_response *w)
{
	struct nvme_command *c = find_begun(q, w->cqe.cid);
	uint16_t status = nvme_cqe_status(&w->cqe);
	if (!c)
		return broken(q, "an answer to a command that is not in flight");
	if (!(status & NVME_STATUS_CODE_MASK) && c->passed_bytes != c->len_bytes && !may_be_short(c))
		return broken(q, "a success before all of the data had passed");
	nvme_command_answer(q, c, status, le64_get(w->cqe.result));
	return 0;
}

static int check_r2t(struct nvme_queue *q, const struct nvmetcp_r2t *w, const struct nvme_command *c)
{
	uint32_t offset = le32_get(w->offset), length = le32_get(w->length);
	if (!c || c->way != NVME_WAY_OUT)
		return broken(q, "an R2T for a command that has no data to send");
	if (c->passed_bytes != c->granted_bytes)
		return broken(q, "an R2T before the last one was answered");
	if (offset != c->granted_bytes || length > c->len_bytes - offset)
		return broken(q, "an R2T for a range that is not the command's next");
	return 0;
}

static int take_r2t(struct nvme_queue *q, const struct nvmetcp_r2t *w)
{
	struct nvme_command *c = find_begun(q, w->cccid);
	int err = check_r2t(q, w, c);
	if (!err)
		nvme_command_grant(q, c, le16_get(w->ttag), le32_get(w->offset) + le32_get(w->length));
	return err;
}

static int check_data(struct nvme_queue *q, const struct nvmetcp_data *w, const struct nvme_command *c)
{
	uint32_t offset = le32_get(w->offset), length = le32_get(w->length);
	if (!c || c->way != NVME_WAY_IN)
		return broken(q, "data for a command that wants none");
	if (offset != c->passed_bytes || length > c->len_bytes - offset)
		return broken(q, "data for a range that is not the command's next");
	if (w->ch.flags & NVMETCP_FLAG_SUCCESS &&
	    (!(w->ch.flags & NVMETCP_FLAG_LAST) || length != c->len_bytes - offset))
		return broken(q, "data that stands for a success, but is not the last");
	return 0;
}

static int check_data_digest(struct nvme_queue *q, const uint8_t *data, size_t len_bytes)
{
	le32 digest;
	int err = read_into(q, digest.b, sizeof(digest));
	if (!err && le32_get(digest) != crc32c(0, data, len_bytes))
		return broken(q, "data that is not what its digest says");
	return err;
}

/* The header is copied: what is received next may move the buffer it lies in. */
static int take_data(struct nvme_queue *q, const struct nvmetcp_data *w, const struct nvmetcp_pdu *pdu)
{
	struct nvme_command *c = find_begun(q, w->cccid);
	bool is_success = w->ch.flags & NVMETCP_FLAG_SUCCESS;
	int err = check_data(q, w, c);
	if (err)
		return err;
	uint8_t *data = c->data + c->passed_bytes;
	err = skip(q, pdu->data_offset_bytes - pdu->head_bytes);
	if (!err)
		err = read_into(q, data, pdu->data_bytes);
	if (!err && pdu->has_data_digest)
		err = check_data_digest(q, data, pdu->data_bytes);
	if (err)
		return err;
	c->passed_bytes += pdu->data_bytes;
	if (is_success)
		nvme_command_answer(q, c, NVME_STATUS_SUCCESS, 0);
	return 0;
}

static int take_term(struct nvme_queue *q, const struct nvmetcp_term *w)
{
	nvme_host_lose(q->host, OXE_PROTO, "queue %u: the target ends the connection: %s (%u)", q->qid,
		       nvmetcp_fes_text(le16_get(w->fes)), le32_get(w->fei));
	return OXE_PROTO;
}

static int take_pdu(struct nvme_queue *q, const struct nvmetcp_pdu *pdu)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	memcpy(head, q->buffer + q->start, pdu->head_bytes);
	q->start += pdu->head_bytes;
	switch (pdu->type) {
	case NVMETCP_RESPONSE:
		return take_response(q, (const void *)head);
	case NVMETCP_C2H_DATA:
		return take_data(q, (const void *)head, pdu);
	case NVMETCP_R2T:
		return take_r2t(q, (const void *)head);
	case NVMETCP_C2H_TERM:
		return take_term(q, (const void *)head);
	default:
		return broken(q, "a PDU out of sequence");
	}
}

static int receive_pdu(struct nvme_queue *q)
{
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault;
	int err = fill(q, sizeof(struct nvmetcp_ch));
	if (err)
		return err;
	err = nvmetcp_ch_check(&q->terms, (const struct nvmetcp_ch *)(q->buffer + q->start), &pdu, &fault);
	if (err)
		return broken(q, fault.what);
	err = fill(q, pdu.head_bytes);
	if (err)
		return err;
	err = nvmetcp_head_check(&q->terms, &pdu, q->buffer + q->start, &fault);
	return err ? broken(q, fault.what) : take_pdu(q, &pdu);
}

void nvme_queue_receive(void *arg)
{
	struct nvme_queue *q = arg;
	struct nvme_host *h = q->host;
	int err = 0;
	while (!err)
		err = receive_pdu(q);
	bool is_buried = err == OXE_CLOSED && !h->is_shut;
	nvme_host_lose(h, err, "queue %u: the connection ended: %s", q->qid, err_text(err));
	nvme_queue_end(q, is_buried);
	group_done(&h->streams);
}
