/* nvmf_host_double.c: see nvmf_host_double.h. */
#include "data/frontend/nvmf/nvmf_host_double.h"

#include "base/crc32c.h"
#include "base/test.h"
#include "data/nvme/nvme_nqn.h"

#define CAPSULE_BYTES 8192

struct host host_open_raw(const char *address)
{
	struct host h = {
		.terms = {.side = NVMETCP_SIDE_HOST, .rx_data_max = 16 * MiB}, .next_cid = 1, .hostid = 1};
	CHECK_OK(rt_connect(rt_current(), address, UINT64_MAX, &h.conn));
	return h;
}

int host_secure(struct host *h, const struct tls_psk *psk)
{
	const char *because;
	return tls_connect_key(psk, h->conn, &h->tls, &because);
}

void host_close(struct host *h)
{
	if (h->tls)
		tls_free(h->tls);
	rt_conn_close(h->conn);
}

void host_send(struct host *h, const void *data, size_t len_bytes)
{
	/* The target may have hung up: the test looks at what it says, not at this. */
	const struct rt_iovec part = {(void *)data, len_bytes};
	int err = len_bytes == 0 ? 0 : h->tls ? tls_send(h->tls, &part, 1) : rt_send(h->conn, &part, 1);
	(void)err;
}

bool host_recv(struct host *h, void *data, size_t len_bytes)
{
	size_t got;
	for (size_t done = 0; done < len_bytes; done += got) {
		uint8_t *at = (uint8_t *)data + done;
		int err = h->tls ? tls_recv(h->tls, at, len_bytes - done, &got)
				 : rt_recv(h->conn, at, len_bytes - done, &got);
		if (err || got == 0)
			return false;
	}
	return true;
}

static void recv_data(struct host *h, struct host_pdu *out)
{
	uint8_t padding[NVMETCP_HEAD_MAX];
	le32 digest;
	CHECK(host_recv(h, padding, out->pdu.data_offset_bytes - out->pdu.head_bytes));
	CHECK(host_recv(h, out->data, out->pdu.data_bytes));
	if (!out->pdu.has_data_digest)
		return;
	CHECK(host_recv(h, &digest, sizeof(digest)));
	CHECK_EQ(le32_get(digest), crc32c(0, out->data, out->pdu.data_bytes));
}

bool host_pdu(struct host *h, struct host_pdu *out)
{
	struct nvmetcp_fault fault;
	if (!host_recv(h, out->head, sizeof(struct nvmetcp_ch)))
		return false;
	CHECK_OK(nvmetcp_ch_check(&h->terms, (void *)out->head, &out->pdu, &fault));
	CHECK(host_recv(h, out->head + sizeof(struct nvmetcp_ch),
			out->pdu.head_bytes - sizeof(struct nvmetcp_ch)));
	CHECK_OK(nvmetcp_head_check(&h->terms, &out->pdu, out->head, &fault));
	out->data = mem_alloc(out->pdu.data_bytes + 1);
	if (out->pdu.data_bytes > 0)
		recv_data(h, out);
	return true;
}

bool host_is_cut(struct host *h, uint16_t *fes)
{
	struct host_pdu in;
	*fes = 0;
	while (host_pdu(h, &in)) {
		if (in.pdu.type == NVMETCP_C2H_TERM)
			*fes = le16_get(((struct nvmetcp_term *)in.head)->fes);
		free(in.data);
	}
	return true;
}

void host_initialize(struct host *h, uint8_t digests, uint8_t hpda)
{
	struct host_pdu in;
	uint8_t icreq[sizeof(struct nvmetcp_icreq)];
	host_send(h, icreq, nvmetcp_icreq_build(icreq, hpda, digests, 0));
	CHECK(host_pdu(h, &in));
	const struct nvmetcp_icresp *w = (void *)in.head;
	CHECK_EQ(in.pdu.type, NVMETCP_ICRESP);
	CHECK_EQ(w->digests, digests);
	h->terms.header_digest = digests & NVMETCP_DIGEST_HEADER;
	h->terms.data_digest = digests & NVMETCP_DIGEST_DATA;
	h->terms.rx_pda = hpda;
	h->terms.tx_pda = w->cpda;
	h->maxh2cdata = le32_get(w->maxh2cdata);
	free(in.data);
}

struct host host_open(const char *address, uint8_t digests, uint8_t hpda)
{
	struct host h = host_open_raw(address);
	host_initialize(&h, digests, hpda);
	return h;
}

/* ---- commands ------------------------------------------------------------------------------------------------------------- */

static void send_digest(struct host *h, const void *data, uint32_t len_bytes)
{
	le32 digest = le32_of(crc32c(0, data, len_bytes));
	if (h->terms.data_digest)
		host_send(h, &digest, sizeof(digest));
}

uint16_t host_command(struct host *h, struct nvme_sqe *sqe, const void *data, uint32_t data_bytes,
		      bool in_capsule)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	uint16_t cid = h->next_cid++;
	sqe->cid = le16_of(cid);
	sqe->flags |= NVME_SQE_PSDT_SGL;
	if (sqe->sgl.identifier == 0) {
		sqe->sgl.length = le32_of(data_bytes);
		sqe->sgl.identifier = in_capsule ? NVME_SGL_INCAPSULE : NVME_SGL_TRANSPORT;
	}
	host_send(h, head, nvmetcp_command_build(head, &h->terms, sqe, in_capsule ? data_bytes : 0));
	if (in_capsule && data_bytes > 0) {
		host_send(h, data, data_bytes);
		send_digest(h, data, data_bytes);
	}
	return cid;
}

void host_data(struct host *h, uint8_t flags, uint16_t cid, uint16_t ttag, uint32_t offset, const void *data,
	       uint32_t len_bytes)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	host_send(h, head, nvmetcp_h2c_data_build(head, &h->terms, flags, cid, ttag, offset, len_bytes));
	host_send(h, data, len_bytes);
	send_digest(h, data, len_bytes);
}

/* In pieces, as an R2T may be answered. */
static void answer_r2t(struct host *h, const struct nvmetcp_r2t *w, const uint8_t *out)
{
	uint32_t length = le32_get(w->length), step = length > 64 * KiB ? 48 * KiB : length;
	CHECK(out != NULL);
	for (uint32_t done = 0; done < length; done += step) {
		step = (uint32_t)u64_min(step, length - done);
		host_data(h, done + step == length ? NVMETCP_FLAG_LAST : 0, le16_get(w->cccid),
			  le16_get(w->ttag), le32_get(w->offset) + done, out + le32_get(w->offset) + done,
			  step);
	}
}

uint16_t host_finish(struct host *h, uint16_t cid, void *in, const void *out, uint64_t *result)
{
	for (;;) {
		struct host_pdu p;
		CHECK(host_pdu(h, &p));
		const struct nvmetcp_data *data = (void *)p.head;
		const struct nvme_cqe *cqe = &((struct nvmetcp_response *)p.head)->cqe;
		uint8_t type = (uint8_t)p.pdu.type, flags = p.pdu.flags;
		if (type == NVMETCP_C2H_DATA && in)
			memcpy((uint8_t *)in + le32_get(data->offset), p.data, p.pdu.data_bytes);
		free(p.data);
		CHECK(type != NVMETCP_C2H_DATA || le16_get(data->cccid) == cid);
		if (type == NVMETCP_R2T)
			answer_r2t(h, (void *)p.head, out);
		if (type == NVMETCP_C2H_DATA && (flags & NVMETCP_FLAG_SUCCESS))
			return 0;
		if (type != NVMETCP_RESPONSE)
			continue;
		CHECK_EQ(le16_get(cqe->cid), cid);
		if (result)
			*result = le64_get(cqe->result);
		return nvme_cqe_status(cqe);
	}
}

uint16_t host_connect(struct host *h, uint16_t qid, uint16_t cntlid, const char *subnqn, uint16_t entries)
{
	struct nvme_connect sqe = {.opcode = NVME_FABRICS,
				   .fctype = NVME_FABRICS_CONNECT,
				   .qid = le16_of(qid),
				   .sqsize = le16_of((uint16_t)(entries - 1)),
				   .cattr = h->cattr,
				   .kato_ms = le32_of(h->kato_ms)};
	struct nvme_connect_data data = {.cntlid = le16_of(cntlid)};
	uint64_t result;
	memset(data.hostid, h->hostid, sizeof(data.hostid));
	nvme_nqn_put(data.subnqn, subnqn);
	nvme_nqn_put(data.hostnqn, h->hostnqn ? h->hostnqn : HOST_NQN);
	uint16_t cid = host_command(h, (void *)&sqe, &data, sizeof(data), true);
	uint16_t status = host_finish(h, cid, NULL, NULL, &result);
	if (status == 0) {
		h->cntlid = (uint16_t)result;
		h->qid = qid;
	}
	return status;
}

uint16_t host_property_set(struct host *h, uint32_t offset, uint32_t value)
{
	struct nvme_property sqe = {.opcode = NVME_FABRICS,
				    .fctype = NVME_FABRICS_PROPERTY_SET,
				    .offset = le32_of(offset),
				    .value = le64_of(value)};
	return host_finish(h, host_command(h, (void *)&sqe, NULL, 0, false), NULL, NULL, NULL);
}

uint16_t host_property_get(struct host *h, uint32_t offset, bool is_wide, uint64_t *value)
{
	struct nvme_property sqe = {.opcode = NVME_FABRICS,
				    .fctype = NVME_FABRICS_PROPERTY_GET,
				    .size = is_wide,
				    .offset = le32_of(offset)};
	return host_finish(h, host_command(h, (void *)&sqe, NULL, 0, false), NULL, NULL, value);
}

struct host host_begin(const char *address, const char *subnqn, uint8_t digests)
{
	struct host h = host_open(address, digests, 0);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, subnqn, 32), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	return h;
}

struct host host_queue(const char *address, const struct host *admin, const char *subnqn, uint16_t qid,
		       uint8_t digests)
{
	struct host h = host_open(address, digests, 0);
	h.hostid = admin->hostid;
	h.hostnqn = admin->hostnqn;
	CHECK_EQ(host_connect(&h, qid, admin->cntlid, subnqn, 128), 0);
	return h;
}

uint16_t host_admin(struct host *h, uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11, void *in,
		    uint32_t in_bytes, uint64_t *result)
{
	struct nvme_sqe sqe = {
		.opcode = opcode, .nsid = le32_of(nsid), .cdw10 = le32_of(cdw10), .cdw11 = le32_of(cdw11)};
	return host_finish(h, host_command(h, &sqe, NULL, in_bytes, false), in, NULL, result);
}

uint16_t host_io(struct host *h, uint8_t opcode, uint64_t lba, uint32_t blocks, uint32_t flags, void *in,
		 const void *out, uint32_t data_bytes)
{
	struct nvme_sqe sqe = {.opcode = opcode, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, lba, blocks, flags);
	bool in_capsule = out && data_bytes <= CAPSULE_BYTES;
	return host_finish(h, host_command(h, &sqe, out, data_bytes, in_capsule), in, out, NULL);
}

uint16_t host_log(struct host *h, uint8_t log, void *in, uint32_t in_bytes, uint64_t offset)
{
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = le32_of(NVME_NSID_ALL)};
	uint32_t dwords = in_bytes / 4 - 1;
	sqe.cdw10 = le32_of(log | dwords << 16);
	sqe.cdw11 = le32_of(dwords >> 16);
	sqe.cdw12 = le32_of((uint32_t)offset);
	sqe.cdw13 = le32_of((uint32_t)(offset >> 32));
	return host_finish(h, host_command(h, &sqe, NULL, in_bytes, false), in, NULL, NULL);
}
