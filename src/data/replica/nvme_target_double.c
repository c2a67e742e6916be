/* nvme_target_double.c: see nvme_target_double.h. */
#include "data/replica/nvme_target_double.h"

#include "base/crc32c.h"
#include "base/test.h"

#include <stdio.h>

#define CONTROLLER_MQES(t) NVME_CAP_MQES((t)->entries)

struct transfer {
	struct list link;
	struct double_conn *conn;
	struct nvme_sqe sqe;
	uint16_t ttag;
	uint8_t *data;
	uint32_t len_bytes, got_bytes, asked_bytes;
};

/* ---- sending ---------------------------------------------------------------------------------------------------------------- */

void double_send(struct double_conn *c, const void *head, size_t head_bytes, const void *data,
		 size_t data_bytes)
{
	le32 digest = nvmetcp_data_digest(crc32c(0, data, data_bytes));
	struct rt_iovec parts[3] = {
		{(void *)head, head_bytes}, {(void *)data, data_bytes}, {&digest, sizeof(digest)}};
	fmutex_lock(&c->sending);
	int err = rt_send(c->conn, parts, data_bytes == 0 ? 1 : c->terms.data_digest ? 3 : 2);
	(void)err;
	fmutex_unlock(&c->sending);
}

void double_respond(struct double_conn *c, uint16_t cid, uint16_t status, uint64_t result)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_cqe cqe = nvme_cqe_set(cid, c->qid, 0, status, result);
	double_send(c, head, nvmetcp_response_build(head, &c->terms, &cqe), NULL, 0);
}

void double_c2h(struct double_conn *c, uint16_t cid, uint8_t flags, uint32_t offset_bytes, const void *data,
		uint32_t len_bytes)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	size_t n = nvmetcp_c2h_data_build(head, &c->terms, flags, cid, offset_bytes, len_bytes);
	double_send(c, head, n, data, len_bytes);
}

static void answer_data(struct double_conn *c, uint16_t cid, const uint8_t *data, uint32_t len_bytes)
{
	struct nvme_target_double *t = c->target;
	uint32_t step = t->data_bytes ? t->data_bytes : len_bytes;
	for (uint32_t at = 0; at < len_bytes; at += step) {
		uint32_t n = (uint32_t)u64_min(step, len_bytes - at);
		uint8_t flags = at + n < len_bytes ? 0 : NVMETCP_FLAG_LAST;
		if (flags && !t->no_success_flag)
			flags |= NVMETCP_FLAG_SUCCESS;
		double_c2h(c, cid, flags, at, data + at, n);
	}
	if (t->no_success_flag)
		double_respond(c, cid, NVME_STATUS_SUCCESS, 0);
}

/* ---- admin ------------------------------------------------------------------------------------------------------------------- */

static void identify_controller(struct nvme_target_double *t, struct nvme_id_ctrl *id)
{
	id->mdts = 5; /* 128 KiB */
	id->acl = 3;
	id->oaes = le32_of(NVME_OAES_NAMESPACE);
	id->ioccsz =
		le32_of((64 + (t->capsule_bytes == UINT32_MAX ? 0 : t->capsule_bytes)) / NVME_CAPSULE_UNIT);
	id->oncs = le16_of(NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
	id->vwc = NVME_VWC_PRESENT;
}

static void identify_namespace(struct nvme_target_double *t, struct nvme_id_ns *id)
{
	id->nsze = id->ncap = le64_of(t->size_bytes / t->lba_bytes);
	id->lbaf[0].data_shift = t->lba_bytes == 512 ? 9 : 12;
}

static void identify_descriptors(struct nvme_target_double *t, uint8_t *page)
{
	struct nvme_ns_descriptor d = {.type = NVME_NIDT_UUID, .length = sizeof(t->uuid)};
	memcpy(page, &d, sizeof(d));
	memcpy(page + sizeof(d), &t->uuid, sizeof(t->uuid));
}

static void answer_identify(struct double_conn *c, const struct nvme_sqe *sqe)
{
	static uint8_t page[NVME_IDENTIFY_BYTES];
	uint8_t *copy = mem_alloc(sizeof(page));
	memset(page, 0, sizeof(page));
	switch (le32_get(sqe->cdw10) & 0xff) {
	case NVME_CNS_CONTROLLER:
		identify_controller(c->target, (void *)page);
		break;
	case NVME_CNS_NAMESPACE:
		identify_namespace(c->target, (void *)page);
		break;
	case NVME_CNS_NAMESPACE_DESCRIPTORS:
		identify_descriptors(c->target, page);
		break;
	default:
		double_respond(c, le16_get(sqe->cid), NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR, 0);
		free(copy);
		return;
	}
	memcpy(copy, page, sizeof(page));
	answer_data(c, le16_get(sqe->cid), copy, sizeof(page));
	free(copy);
}

static void answer_fabrics(struct double_conn *c, const struct nvme_sqe *sqe)
{
	const struct nvme_property *p = (const void *)sqe;
	uint64_t value = 0;
	if (p->fctype == NVME_FABRICS_PROPERTY_SET && le32_get(p->offset) == NVME_PROPERTY_CC)
		c->is_enabled = le64_get(p->value) & NVME_CC_EN;
	else if (p->fctype == NVME_FABRICS_PROPERTY_GET && le32_get(p->offset) == NVME_PROPERTY_CAP)
		value = CONTROLLER_MQES(c->target) | NVME_CAP_CSS_NVM;
	else if (p->fctype == NVME_FABRICS_PROPERTY_GET && le32_get(p->offset) == NVME_PROPERTY_CSTS)
		value = c->is_enabled ? NVME_CSTS_RDY : 0;
	double_respond(c, le16_get(sqe->cid), NVME_STATUS_SUCCESS, value);
}

static void answer_event_request(struct double_conn *c, const struct nvme_sqe *sqe)
{
	struct nvme_target_double *t = c->target;
	if (t->event_conn != c)
		t->event_count = 0;
	t->event_conn = c;
	t->events[t->event_count++ % ARRAY_COUNT(t->events)] = *sqe;
}

void double_grow(struct nvme_target_double *t, uint64_t size_bytes)
{
	t->bytes = mem_realloc(t->bytes, size_bytes);
	memset(t->bytes + t->size_bytes, 0, size_bytes - t->size_bytes);
	t->size_bytes = size_bytes;
	if (t->event_conn && t->event_count > 0)
		double_respond(
			t->event_conn, le16_get(t->events[--t->event_count].cid), NVME_STATUS_SUCCESS,
			NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_NAMESPACE, NVME_LOG_CHANGED_NAMESPACES));
}

static void answer_admin(struct double_conn *c, const struct nvme_sqe *sqe)
{
	struct nvme_target_double *t = c->target;
	uint16_t cid = le16_get(sqe->cid);
	uint8_t page[NVME_IDENTIFY_BYTES] = {0};
	uint64_t result = 0;
	t->admin_commands++;
	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		answer_identify(c, sqe);
		return;
	case NVME_ADMIN_GET_LOG_PAGE:
		answer_data(c, cid, page, sizeof(page));
		return;
	case NVME_ADMIN_ASYNC_EVENT:
		answer_event_request(c, sqe);
		return;
	case NVME_ADMIN_SET_FEATURES:
		if ((le32_get(sqe->cdw10) & 0xff) == NVME_FEATURE_QUEUES)
			result = (t->queues_max - 1) | (uint64_t)(t->queues_max - 1) << 16;
		break;
	case NVME_ADMIN_KEEP_ALIVE:
		t->keep_alives++;
		break;
	case NVME_ADMIN_ABORT:
		t->aborts++;
		break;
	default:
		break;
	}
	double_respond(c, cid, NVME_STATUS_SUCCESS, result);
}

/* ---- I/O ------------------------------------------------------------------------------------------------------------------------- */

static bool in_range(const struct nvme_target_double *t, uint64_t lba, uint64_t blocks)
{
	uint64_t end = t->size_bytes / t->lba_bytes;
	return lba <= end && blocks <= end - lba;
}

static uint16_t trim(struct nvme_target_double *t, const struct nvme_dsm_range *range)
{
	uint64_t lba = le64_get(range->lba), blocks = le32_get(range->blocks);
	if (!in_range(t, lba, blocks))
		return NVME_STATUS_LBA_RANGE | NVME_STATUS_DNR;
	memset(t->bytes + lba * t->lba_bytes, 0, blocks * t->lba_bytes);
	return NVME_STATUS_SUCCESS;
}

static uint16_t carry_out(struct nvme_target_double *t, const struct nvme_sqe *sqe, const uint8_t *data,
			  uint32_t len_bytes)
{
	uint64_t lba = nvme_rw_lba(sqe), bytes = (uint64_t)nvme_rw_blocks(sqe) * t->lba_bytes;
	if (sqe->opcode == NVME_IO_FLUSH)
		return NVME_STATUS_SUCCESS;
	if (sqe->opcode == NVME_IO_DATASET_MANAGEMENT)
		return trim(t, (const void *)data);
	if (!in_range(t, lba, nvme_rw_blocks(sqe)))
		return NVME_STATUS_LBA_RANGE | NVME_STATUS_DNR;
	uint8_t *at = t->bytes + lba * t->lba_bytes;
	switch (sqe->opcode) {
	case NVME_IO_WRITE_ZEROES:
		memset(at, 0, bytes);
		return NVME_STATUS_SUCCESS;
	case NVME_IO_COMPARE:
		return len_bytes == bytes && memcmp(at, data, bytes) == 0 ? NVME_STATUS_SUCCESS
									  : NVME_STATUS_COMPARE_FAILURE;
	case NVME_IO_WRITE:
		CHECK_EQ(len_bytes, bytes);
		memcpy(at, data, bytes);
		t->writes++;
		return NVME_STATUS_SUCCESS;
	default:
		return NVME_STATUS_INVALID_OPCODE | NVME_STATUS_DNR;
	}
}

static void answer_io(struct double_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		      uint32_t len_bytes)
{
	struct nvme_target_double *t = c->target;
	uint64_t lba = nvme_rw_lba(sqe);
	t->io_commands++;
	if (sqe->opcode == NVME_IO_READ && in_range(t, lba, nvme_rw_blocks(sqe))) {
		uint32_t n = nvme_rw_blocks(sqe) * t->lba_bytes;
		uint8_t *copy = mem_alloc(n);
		memcpy(copy, t->bytes + lba * t->lba_bytes, n);
		answer_data(c, le16_get(sqe->cid), copy, n);
		free(copy);
	} else if (sqe->opcode == NVME_IO_READ) {
		double_respond(c, le16_get(sqe->cid), NVME_STATUS_LBA_RANGE | NVME_STATUS_DNR, 0);
	} else {
		double_respond(c, le16_get(sqe->cid), carry_out(t, sqe, data, len_bytes), 0);
	}
}

static void answer_connect(struct double_conn *c, const struct nvme_sqe *sqe)
{
	const struct nvme_connect *w = (const void *)sqe;
	struct nvme_target_double *t = c->target;
	c->qid = le16_get(w->qid);
	c->is_connected = true;
	double_respond(c, le16_get(sqe->cid), NVME_STATUS_SUCCESS, c->qid == 0 ? t->next_cntlid++ : 1);
}

/* One command with all its data, in a fiber. Owns the transfer. */
static void command_run(void *arg)
{
	struct transfer *x = arg;
	struct double_conn *c = x->conn;
	struct nvme_target_double *t = c->target;
	if (t->pause_max_ns && c->qid > 0)
		fiber_sleep(prng_below(&t->rng, t->pause_max_ns) + 1);
	if (t->hook && !x->asked_bytes && t->hook(t, c, &x->sqe))
		; /* seen to */
	else if (x->sqe.opcode == NVME_FABRICS &&
		 ((const struct nvme_connect *)&x->sqe)->fctype == NVME_FABRICS_CONNECT)
		answer_connect(c, &x->sqe);
	else if (x->sqe.opcode == NVME_FABRICS)
		answer_fabrics(c, &x->sqe);
	else if (c->qid == NVME_ADMIN_QUEUE)
		answer_admin(c, &x->sqe);
	else
		answer_io(c, &x->sqe, x->data, x->len_bytes);
	free(x->data);
	free(x);
	group_done(&c->commands);
}

static void transfer_start(struct transfer *x)
{
	group_add(&x->conn->commands, 1);
	fiber_spawn(x->conn->target->rt, "double-command", command_run, x);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------- */

static int receive_all(struct double_conn *c, void *data, size_t len_bytes)
{
	int err = 0;
	size_t got = 0;
	for (size_t done = 0; !err && done < len_bytes; done += got) {
		err = rt_recv(c->conn, (uint8_t *)data + done, len_bytes - done, &got);
		if (!err && got == 0)
			err = OXE_CLOSED;
	}
	return err;
}

static void transfer_ask(struct transfer *x)
{
	struct double_conn *c = x->conn;
	uint8_t head[NVMETCP_HEAD_MAX];
	uint32_t step = c->target->r2t_bytes ? c->target->r2t_bytes : x->len_bytes;
	uint32_t n = (uint32_t)u64_min(step, x->len_bytes - x->asked_bytes);
	size_t head_bytes =
		nvmetcp_r2t_build(head, &c->terms, le16_get(x->sqe.cid), x->ttag, x->asked_bytes, n);
	x->asked_bytes += n;
	double_send(c, head, head_bytes, NULL, 0);
}

static bool wants_r2t(const struct nvme_sqe *sqe)
{
	return sqe->sgl.identifier == NVME_SGL_TRANSPORT && sqe->opcode != NVME_FABRICS &&
	       (sqe->opcode & 3) == NVME_OPCODE_DATA_TO_CONTROLLER && le32_get(sqe->sgl.length) > 0;
}

static int take_command(struct double_conn *c, const struct nvmetcp_command *w, uint32_t data_bytes)
{
	struct transfer *x = mem_zalloc(sizeof(*x));
	x->conn = c;
	x->sqe = w->sqe;
	x->len_bytes = le32_get(w->sqe.sgl.length);
	bool asks = data_bytes == 0 && wants_r2t(&w->sqe);
	if (data_bytes || asks) {
		CHECK(!data_bytes || x->len_bytes == data_bytes);
		x->data = mem_alloc(x->len_bytes);
	}
	if (asks && c->target->hook && c->target->hook(c->target, c, &x->sqe)) {
		free(x->data);
		free(x);
		return 0;
	}
	if (asks) {
		x->ttag = c->next_ttag++;
		list_add_tail(&c->transfers, &x->link);
		transfer_ask(x);
		return 0;
	}
	int err = data_bytes ? receive_all(c, x->data, data_bytes) : 0;
	le32 digest;
	if (!err && data_bytes && c->terms.data_digest) {
		err = receive_all(c, &digest, sizeof(digest));
		CHECK(err || le32_get(digest) == crc32c(0, x->data, data_bytes));
	}
	if (err) {
		free(x->data);
		free(x);
		return err;
	}
	transfer_start(x);
	return 0;
}

static struct transfer *transfer_find(struct double_conn *c, uint16_t ttag)
{
	struct transfer *x;
	list_for_each (x, &c->transfers, link)
		if (x->ttag == ttag)
			return x;
	return NULL;
}

static int take_h2c(struct double_conn *c, const struct nvmetcp_data *w)
{
	struct transfer *x = transfer_find(c, le16_get(w->ttag));
	uint32_t n = le32_get(w->length);
	le32 digest;
	CHECK(x && le32_get(w->offset) == x->got_bytes && n <= x->asked_bytes - x->got_bytes);
	CHECK(n <= c->target->maxh2cdata);
	c->target->h2c_pdus++;
	int err = receive_all(c, x->data + x->got_bytes, n);
	if (!err && c->terms.data_digest) {
		err = receive_all(c, &digest, sizeof(digest));
		CHECK(err || le32_get(digest) == crc32c(0, x->data + x->got_bytes, n));
	}
	if (err)
		return err;
	x->got_bytes += n;
	CHECK_EQ((w->ch.flags & NVMETCP_FLAG_LAST) != 0, x->got_bytes == x->asked_bytes);
	if (x->got_bytes == x->len_bytes) {
		list_del(&x->link);
		transfer_start(x);
	} else if (x->got_bytes == x->asked_bytes) {
		transfer_ask(x);
	}
	return 0;
}

static int take_icreq(struct double_conn *c, const struct nvmetcp_icreq *w)
{
	struct nvme_target_double *t = c->target;
	uint8_t out[NVMETCP_HEAD_MAX];
	uint8_t digests = w->digests & t->digests;
	double_send(c, out, nvmetcp_icresp_build(out, t->cpda, digests, t->maxh2cdata), NULL, 0);
	c->terms.header_digest = digests & NVMETCP_DIGEST_HEADER;
	c->terms.data_digest = digests & NVMETCP_DIGEST_DATA;
	c->terms.rx_pda = t->cpda;
	c->terms.tx_pda = w->hpda;
	return 0;
}

static int take_pdu(struct double_conn *c)
{
	uint8_t head[NVMETCP_HEAD_MAX], padding[NVMETCP_HEAD_MAX];
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault = {0};
	int err = receive_all(c, head, sizeof(struct nvmetcp_ch));
	if (err)
		return err;
	if (nvmetcp_ch_check(&c->terms, (const void *)head, &pdu, &fault))
		test_fail(__FILE__, __LINE__, "the host sent %s", fault.what);
	err = receive_all(c, head + sizeof(struct nvmetcp_ch), pdu.head_bytes - sizeof(struct nvmetcp_ch));
	if (!err && nvmetcp_head_check(&c->terms, &pdu, head, &fault))
		test_fail(__FILE__, __LINE__, "the host sent %s", fault.what);
	if (!err)
		err = receive_all(c, padding, pdu.data_offset_bytes - pdu.head_bytes);
	if (err)
		return err;
	switch (pdu.type) {
	case NVMETCP_ICREQ:
		return take_icreq(c, (const void *)head);
	case NVMETCP_COMMAND:
		return take_command(c, (const void *)head, pdu.data_bytes);
	case NVMETCP_H2C_DATA:
		return take_h2c(c, (const void *)head);
	default:
		return OXE_CLOSED;
	}
}

static void conn_free(struct double_conn *c)
{
	struct transfer *x;
	while ((x = list_pop(&c->transfers, struct transfer, link))) {
		free(x->data);
		free(x);
	}
	if (c->target->event_conn == c)
		c->target->event_conn = NULL;
	list_del(&c->link);
	rt_conn_close(c->conn);
	free(c);
}

static void conn_run(void *arg)
{
	struct double_conn *c = arg;
	struct nvme_target_double *t = c->target;
	while (take_pdu(c) == 0)
		;
	rt_conn_shutdown(c->conn);
	group_wait(&c->commands);
	conn_free(c);
	group_done(&t->fibers);
}

static void conn_start(struct nvme_target_double *t, struct rt_conn *conn)
{
	struct double_conn *c = mem_zalloc(sizeof(*c));
	*c = (struct double_conn){
		.target = t,
		.conn = conn,
		.terms = {.side = NVMETCP_SIDE_CONTROLLER,
			  .rx_capsule_data_max = MiB,
			  .rx_data_max = t->maxh2cdata},
	};
	fmutex_init(&c->sending);
	group_init(&c->commands);
	list_init(&c->transfers);
	list_add_tail(&t->conns, &c->link);
	t->connections++;
	group_add(&t->fibers, 1);
	fiber_spawn(t->rt, "double-conn", conn_run, c);
}

static void accept_run(void *arg)
{
	struct nvme_target_double *t = arg;
	struct rt_conn *conn;
	while (rt_accept(t->listener, &conn) == 0)
		conn_start(t, conn);
	group_done(&t->fibers);
}

/* ---- from outside ---------------------------------------------------------------------------------------------------------------- */

static uint32_t default_of(uint32_t value, uint64_t otherwise)
{
	return value ? value : (uint32_t)otherwise;
}

void double_open(struct nvme_target_double *t, struct rt *rt, const char *address)
{
	t->rt = rt;
	t->size_bytes = t->size_bytes ? t->size_bytes : MiB;
	t->lba_bytes = default_of(t->lba_bytes, 512);
	t->capsule_bytes = default_of(t->capsule_bytes, 8192);
	t->maxh2cdata = default_of(t->maxh2cdata, 128 * KiB);
	t->entries = default_of(t->entries, 128);
	t->queues_max = default_of(t->queues_max, 8);
	if (!t->bytes)
		t->bytes = mem_zalloc(t->size_bytes);
	prng_seed(&t->rng, t->seed);
	list_init(&t->conns);
	group_init(&t->fibers);
	t->is_closing = false;
	CHECK_OK(rt_listen(rt, address, &t->listener));
	group_add(&t->fibers, 1);
	fiber_spawn(rt, "double-accept", accept_run, t);
}

void double_cut(struct nvme_target_double *t)
{
	struct double_conn *c;
	list_for_each (c, &t->conns, link)
		rt_conn_shutdown(c->conn);
}

void double_close(struct nvme_target_double *t)
{
	t->is_closing = true;
	rt_listener_close(t->listener);
	double_cut(t);
	group_wait(&t->fibers);
	free(t->bytes);
	t->bytes = NULL;
}
