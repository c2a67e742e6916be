/*
 * nvme_host_fuzz.c: anything a target can say, to any command, in any state of the association: no crash, no byte outside the
 * callers' buffers, every request ended once, and an end.
 *
 *     byte 0        the seed that cuts the stream into pieces
 *     byte 1        bits: digests, replay or report, in-capsule data, two queues
 *     byte 2        how many commands are obeyed before the program begins (about 12 make the association)
 *     then a verb and its operands for each command, until one says that enough was said:
 *         obey | respond | data | R2T | a PDU header of these bytes | raw bytes | wait | hang up
 *
 * What is not enough operands is zero, and zero is to obey, so that every run ends live. Buffers are allocated to the byte.
 */
#include "base/crc32c.h"
#include "base/fuzz.h"
#include "data/engine/engine_testrt.h"
#include "data/nvme/nvmetcp_pdu.h"
#include "data/replica/nvme_host.h"

#define ADDRESS	    "tcp:10.0.0.66:4420"
#define VOLUME_SIZE (256 * KiB)
#define REQUESTS    14

static struct {
	struct rt *rt;
	struct input in;
	struct rt_listener *listener;
	struct rt_group fibers;
	unsigned flags;
	uint32_t obeyed;
	uint32_t ended;
} f;

struct peer {
	struct rt_conn *conn;
	struct nvmetcp_terms terms;
	uint16_t qid;
};

static uint8_t zeroes[70 * KiB];

/* ---- what it can say ------------------------------------------------------------------------------------------------------------ */

static void say(struct peer *p, const void *data, size_t len_bytes)
{
	int err = len_bytes ? rt_send(p->conn, &(struct rt_iovec){(void *)data, len_bytes}, 1) : 0;
	(void)err; /* hung up: it is said to nobody */
}

static void say_response(struct peer *p, uint16_t cid, uint16_t status, uint64_t value)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_cqe cqe = nvme_cqe_set(cid, p->qid, 0, status, value);
	say(p, head, nvmetcp_response_build(head, &p->terms, &cqe));
}

static void say_data(struct peer *p, uint16_t cid, uint8_t flags, uint32_t offset, const void *data,
		     uint32_t n)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	le32 digest = nvmetcp_data_digest(crc32c(0, data, n));
	say(p, head, nvmetcp_c2h_data_build(head, &p->terms, flags, cid, offset, n));
	say(p, data, n);
	if (p->terms.data_digest)
		say(p, &digest, sizeof(digest));
}

static void say_r2t(struct peer *p, uint16_t cid, uint32_t offset, uint32_t n)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	say(p, head, nvmetcp_r2t_build(head, &p->terms, cid, 1, offset, n));
}

/* ---- obeying --------------------------------------------------------------------------------------------------------------------- */

static void obey_identify(struct peer *p, const struct nvme_sqe *sqe)
{
	uint8_t page[NVME_IDENTIFY_BYTES] = {0};
	unsigned cns = le32_get(sqe->cdw10) & 0xff;
	if (cns == NVME_CNS_CONTROLLER) {
		struct nvme_id_ctrl *id = (void *)page;
		id->mdts = 4;
		id->oaes = le32_of(NVME_OAES_NAMESPACE);
		id->ioccsz = le32_of(f.flags & 8 ? 4 : 4 + 512);
	} else if (cns == NVME_CNS_NAMESPACE) {
		struct nvme_id_ns *id = (void *)page;
		id->nsze = le64_of(VOLUME_SIZE / 512);
		id->lbaf[0].data_shift = 9;
	}
	say_data(p, le16_get(sqe->cid), NVMETCP_FLAG_LAST | NVMETCP_FLAG_SUCCESS, 0, page, sizeof(page));
}

static void obey_admin(struct peer *p, const struct nvme_sqe *sqe)
{
	const struct nvme_connect *w = (const void *)sqe;
	const struct nvme_property *property = (const void *)sqe;
	uint64_t value = 0;
	if (sqe->opcode == NVME_FABRICS && w->fctype == NVME_FABRICS_CONNECT)
		p->qid = le16_get(w->qid);
	else if (sqe->opcode == NVME_FABRICS)
		value = le32_get(property->offset) == NVME_PROPERTY_CSTS ? NVME_CSTS_RDY : NVME_CAP_MQES(64);
	else if (sqe->opcode == NVME_ADMIN_SET_FEATURES)
		value = 1 | 1 << 16;
	say_response(p, le16_get(sqe->cid), NVME_STATUS_SUCCESS, value);
}

static void obey_io(struct peer *p, const struct nvme_sqe *sqe, bool has_data)
{
	uint16_t cid = le16_get(sqe->cid);
	uint32_t n = le32_get(sqe->sgl.length);
	if (sqe->opcode == NVME_IO_READ && n <= sizeof(zeroes))
		say_data(p, cid, NVMETCP_FLAG_LAST | NVMETCP_FLAG_SUCCESS, 0, zeroes, n);
	else if (n > 0 && !has_data && (sqe->opcode & 3) == NVME_OPCODE_DATA_TO_CONTROLLER)
		say_r2t(p, cid, 0, n); /* its data is answered when it comes */
	else
		say_response(p, cid, NVME_STATUS_SUCCESS, 0);
}

static void obey(struct peer *p, const struct nvme_sqe *sqe, bool has_data)
{
	if (sqe->opcode == NVME_FABRICS)
		obey_admin(p, sqe);
	else if (p->qid > 0)
		obey_io(p, sqe, has_data);
	else if (sqe->opcode == NVME_ADMIN_IDENTIFY || sqe->opcode == NVME_ADMIN_GET_LOG_PAGE)
		obey_identify(p, sqe);
	else if (sqe->opcode != NVME_ADMIN_ASYNC_EVENT)
		obey_admin(p, sqe);
}

/* ---- verbs ----------------------------------------------------------------------------------------------------------------------- */

static uint16_t take_cid(uint16_t cid)
{
	return (uint16_t)(cid ^ (take(&f.in, 1) % 4 ? 0 : take(&f.in, 2)));
}

static uint32_t take_number(uint32_t close_to)
{
	uint64_t how = take(&f.in, 1);
	return how % 3 == 0   ? (uint32_t)take(&f.in, 4)
	       : how % 3 == 1 ? close_to
			      : close_to + (uint32_t)(int8_t)take(&f.in, 1) * 4;
}

static void odd_data(struct peer *p, uint16_t cid, uint32_t wanted)
{
	uint8_t flags = (uint8_t)(take(&f.in, 1) & (NVMETCP_FLAG_LAST | NVMETCP_FLAG_SUCCESS));
	uint32_t offset = take_number(0);
	uint32_t n = take_number(wanted) % (uint32_t)sizeof(zeroes);
	if (n > 0)
		say_data(p, cid, flags, offset, zeroes, n);
}

static void odd_head(struct peer *p)
{
	struct nvmetcp_data w = {.ch = {.type = (uint8_t)take(&f.in, 1), .flags = (uint8_t)take(&f.in, 1)}};
	w.ch.hlen = (uint8_t)(24 + (int8_t)take(&f.in, 1) % 3 * 4);
	w.ch.pdo = (uint8_t)take(&f.in, 1);
	w.ch.plen = le32_of((uint32_t)take(&f.in, 2));
	w.cccid = le16_of((uint16_t)take(&f.in, 2));
	w.offset = le32_of((uint32_t)take(&f.in, 4));
	w.length = le32_of((uint32_t)take(&f.in, 4));
	say(p, &w, sizeof(w));
}

static void odd_bytes(struct peer *p)
{
	size_t n = u64_min(take(&f.in, 1), (uint64_t)(f.in.end - f.in.at));
	say(p, f.in.at, n);
	f.in.at += n;
}

/* False to hang up. */
static bool odd(struct peer *p, const struct nvme_sqe *sqe, bool has_data)
{
	uint16_t cid = le16_get(sqe->cid);
	uint32_t wanted = le32_get(sqe->sgl.length);
	for (;;) {
		switch (take(&f.in, 1) % 12) {
		default:
			obey(p, sqe, has_data);
			return true;
		case 2:
			return true; /* swallowed */
		case 3:
			say_response(p, take_cid(cid), (uint16_t)take(&f.in, 2) & 0x7fff, take(&f.in, 8));
			break;
		case 4:
			odd_data(p, take_cid(cid), wanted);
			break;
		case 5: {
			uint16_t of = take_cid(cid);
			uint32_t offset = take_number(0), n = take_number(wanted);
			say_r2t(p, of, offset, n);
			break;
		}
		case 6:
			odd_head(p);
			break;
		case 7:
			odd_bytes(p);
			break;
		case 8:
			fiber_sleep(take(&f.in, 1) * 100 * NS_PER_MS);
			break;
		case 9:
			return false;
		}
	}
}

/* ---- its connections ---------------------------------------------------------------------------------------------------------------- */

static int receive_all(struct peer *p, void *data, size_t len_bytes)
{
	uint8_t dump[4096];
	int err = 0;
	size_t got = 0;
	for (size_t done = 0; !err && done < len_bytes; done += got) {
		size_t n = len_bytes - done;
		err = data ? rt_recv(p->conn, (uint8_t *)data + done, n, &got)
			   : rt_recv(p->conn, dump, u64_min(n, sizeof(dump)), &got);
		if (!err && got == 0)
			err = OXE_CLOSED;
	}
	return err;
}

static void answer_icreq(struct peer *p)
{
	uint8_t out[NVMETCP_HEAD_MAX];
	uint8_t digests = f.flags & 3;
	say(p, out, nvmetcp_icresp_build(out, 0, digests, 8192));
	p->terms.header_digest = digests & NVMETCP_DIGEST_HEADER;
	p->terms.data_digest = digests & NVMETCP_DIGEST_DATA;
}

static bool answer_command(struct peer *p, const struct nvmetcp_command *w)
{
	bool has_data = le32_get(w->ch.plen) > NVMETCP_HEAD_MAX;
	if (f.obeyed > 0) {
		f.obeyed--;
		obey(p, &w->sqe, has_data);
		return true;
	}
	return odd(p, &w->sqe, has_data);
}

static bool answer(struct peer *p, const uint8_t *head)
{
	const struct nvmetcp_ch *ch = (const void *)head;
	const struct nvmetcp_data *data = (const void *)head;
	switch (ch->type) {
	case NVMETCP_ICREQ:
		answer_icreq(p);
		return true;
	case NVMETCP_COMMAND:
		return answer_command(p, (const void *)head);
	case NVMETCP_H2C_DATA:
		if (ch->flags & NVMETCP_FLAG_LAST)
			say_response(p, le16_get(data->cccid), NVME_STATUS_SUCCESS, 0);
		return true;
	default:
		return false;
	}
}

static bool take_pdu(struct peer *p)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	const struct nvmetcp_ch *ch = (const void *)head;
	if (receive_all(p, head, sizeof(*ch)))
		return false;
	assert(ch->hlen <= sizeof(head) &&
	       le32_get(ch->plen) >= ch->hlen); /* what the host says is well formed */
	if (receive_all(p, head + sizeof(*ch), ch->hlen - sizeof(*ch)) ||
	    receive_all(p, NULL, le32_get(ch->plen) - ch->hlen))
		return false;
	return answer(p, head);
}

static void peer_run(void *arg)
{
	struct peer *p = arg;
	while (take_pdu(p))
		;
	rt_conn_close(p->conn);
	free(p);
	group_done(&f.fibers);
}

static void accept_run(void *arg)
{
	struct rt_conn *conn;
	(void)arg;
	while (rt_accept(f.listener, &conn) == 0) {
		struct peer *p = mem_zalloc(sizeof(*p));
		*p = (struct peer){.conn = conn, .terms = {.side = NVMETCP_SIDE_CONTROLLER}};
		group_add(&f.fibers, 1);
		fiber_spawn(f.rt, "peer", peer_run, p);
	}
	group_done(&f.fibers);
}

/* ---- the host's side --------------------------------------------------------------------------------------------------------------- */

static void request_done(struct nvme_host_io *io)
{
	assert(io->result <= 0 && io->len_bytes != 1);
	io->len_bytes = 1; /* once */
	f.ended++;
}

static void requests_submit(struct nvme_host *h, struct nvme_host_io *ios)
{
	static const uint32_t sizes[] = {512, 4096, 8192, 12288, 65536};
	for (uint32_t i = 0; i < REQUESTS; i++) {
		uint32_t n = sizes[i % ARRAY_COUNT(sizes)];
		enum nvme_host_op op = i % NVME_HOST_OTHER;
		ios[i] = (struct nvme_host_io){.op = op, .done = request_done, .offset_bytes = i * 8192};
		ios[i].len_bytes = op == NVME_HOST_FLUSH ? 0 : n;
		ios[i].data = mem_zalloc(n);
		nvme_host_submit(h, &ios[i]);
	}
}

static void main_fiber(void *arg)
{
	static struct nvme_host_io ios[REQUESTS];
	struct nvme_host *h;
	struct nvme_host_options options = {
		.address = ADDRESS,
		.subsystem_nqn = "nqn.2026-11.dev.oxbow:fuzz",
		.queue_depth = 8,
		.queues = f.flags & 16 ? 2 : 1,
		.lost = f.flags & 4 ? NVME_HOST_REPLAY : NVME_HOST_REPORT,
		.header_digest = f.flags & 1,
		.data_digest = f.flags & 2,
		.command_timeout_ns = 3 * NS_PER_S,
		.abort_timeout_ns = NS_PER_S,
	};
	(void)arg;
	if (rt_listen(f.rt, ADDRESS, &f.listener) || nvme_host_new(f.rt, &options, &h))
		abort();
	group_add(&f.fibers, 1);
	fiber_spawn(f.rt, "accept", accept_run, NULL);
	int err = nvme_host_wait(h, rt_now_ns(f.rt) + 10 * NS_PER_S);
	(void)err; /* it may never be */
	f.ended = 0;
	requests_submit(h, ios);
	fiber_sleep(20 * NS_PER_S);
	nvme_host_close(h);
	assert(f.ended == REQUESTS);
	for (uint32_t i = 0; i < REQUESTS; i++)
		free(ios[i].data);
	rt_listener_close(f.listener);
	group_wait(&f.fibers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + size};
	uint64_t seed = take(&f.in, 1);
	f.flags = (unsigned)take(&f.in, 1);
	f.obeyed = (uint32_t)take(&f.in, 1) % 64;
	f.rt = testrt_new(seed, seed & 1);
	group_init(&f.fibers);
	fiber_spawn_big(f.rt, "main", main_fiber, NULL);
	testrt_run(f.rt);
	testrt_free(f.rt);
	return 0;
}
