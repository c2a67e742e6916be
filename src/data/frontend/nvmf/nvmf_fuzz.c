/*
 * nvmf_fuzz.c: anything a host can say, in any state: no crash, no leak, no byte more memory than allowed, and an end.
 *
 * The input is a program for a host with up to three connections:
 *
 *     byte 0        the seed that cuts the streams into pieces; its bits choose digests, a slow disk, and whether TLS is allowed
 *     byte 1        the prelude: nothing; initialized; an admin queue; with an I/O queue; a discovery controller; with 6 and 7 hosts
 *                   have to prove a secret, which this one has: an admin queue, and one that has proved itself
 *     then, again and again, a verb and its operands:
 *         choose a connection | raw bytes | a well-formed header of any type | a command, more or less sensible, with data or without
 *         | a reservation command
 *         | a message of authentication, right, wrong or none, or a request for one
 *         | data for an R2T, right or not | a property | a Connect | wait a while | the volume grows | a connection ends
 *
 * What is not enough operands is zero. The other side is the whole target on virtual time, over a store of arrays, and every run
 * goes on until no timer is left.
 */
#include "base/crc32c.h"
#include "base/fuzz.h"
#include "data/engine/engine_testrt.h"
#include "data/engine/pool_double.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/nvme/nvme_auth_proof.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvmetcp_pdu.h"

#define ADDRESS	    "tcp:fuzz:4420"
#define VERBS_MAX   200
#define VOLUME_SIZE (1 * MiB)
#define CONNS	    3
#define HOST_NQN    "nqn.fuzz"
#define SECRET	    "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define HEARD_BYTES 128 /* a challenge without a group */

/* One connection; what the target says is only looked through for tags and ids to use. */
struct end {
	struct rt_conn *conn;
	uint16_t r2t_cid, r2t_tag;
	uint32_t r2t_length;
	uint8_t heard[HEARD_BYTES]; /* of the last data: the challenge, perhaps */
};

static struct {
	struct rt *rt;
	struct pool *pool;
	struct engines *engines;
	struct nvmf_server *server;
	struct uuid volume;
	struct input in;
	struct nvmetcp_terms terms;
	struct end ends[CONNS];
	unsigned chosen;
	uint16_t cid, cntlid;
	struct rt_group readers;
	uint64_t volume_bytes;
	bool has_tls;
} f;

static uint8_t scratch[80 * KiB];

static size_t take_bytes(struct input *in, size_t n)
{
	n = u64_min(n, sizeof(scratch));
	take_into(in, scratch, n);
	return n;
}

static void say(const void *data, size_t len_bytes)
{
	struct end *e = &f.ends[f.chosen];
	int err = e->conn && len_bytes ? rt_send(e->conn, &(struct rt_iovec){(void *)data, len_bytes}, 1) : 0;
	(void)err; /* hung up: the rest of the program is said to nobody */
}

/* ---- what comes back ----------------------------------------------------------------------------------------------------------- */

static bool hear(struct rt_conn *conn, void *data, size_t len_bytes)
{
	size_t got;
	for (size_t done = 0; done < len_bytes; done += got)
		if (rt_recv(conn, (uint8_t *)data + done, len_bytes - done, &got) || got == 0)
			return false;
	return true;
}

static bool hear_rest(struct end *e, size_t len_bytes)
{
	uint8_t bytes[4096];
	if (len_bytes >= HEARD_BYTES) {
		if (!hear(e->conn, e->heard, HEARD_BYTES))
			return false;
		len_bytes -= HEARD_BYTES;
	}
	for (size_t n; len_bytes > 0; len_bytes -= n) {
		n = u64_min(len_bytes, sizeof(bytes));
		if (!hear(e->conn, bytes, n))
			return false;
	}
	return true;
}

/* What the target says must be well-formed, whatever it was told. */
static bool hear_pdu(struct end *e)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault;
	if (!hear(e->conn, head, sizeof(struct nvmetcp_ch)))
		return false;
	struct nvmetcp_terms terms = f.terms;
	if (nvmetcp_ch_check(&terms, (void *)head, &pdu, &fault)) { /* before ICResp nothing is agreed upon */
		terms.header_digest = terms.data_digest = false;
		if (nvmetcp_ch_check(&terms, (void *)head, &pdu, &fault))
			abort();
	}
	if (!hear(e->conn, head + sizeof(struct nvmetcp_ch), pdu.head_bytes - sizeof(struct nvmetcp_ch)))
		return false;
	if (nvmetcp_head_check(&terms, &pdu, head, &fault))
		abort();
	const struct nvmetcp_r2t *w = (void *)head;
	if (pdu.type == NVMETCP_R2T) {
		e->r2t_cid = le16_get(w->cccid);
		e->r2t_tag = le16_get(w->ttag);
		e->r2t_length = le32_get(w->length);
	}
	const struct nvme_cqe *cqe = &((struct nvmetcp_response *)head)->cqe;
	if (pdu.type == NVMETCP_RESPONSE && nvme_cqe_status(cqe) == 0 && le64_get(cqe->result) != 0)
		f.cntlid = (uint16_t)le64_get(cqe->result);
	size_t padding = pdu.data_offset_bytes - pdu.head_bytes;
	return hear_rest(e, padding + pdu.data_bytes + (pdu.has_data_digest ? NVMETCP_DIGEST_BYTES : 0));
}

static void listen_run(void *arg)
{
	struct end *e = arg;
	while (hear_pdu(e))
		;
	group_done(&f.readers);
}

/* ---- verbs ------------------------------------------------------------------------------------------------------------------------ */

static void say_data(size_t len_bytes)
{
	le32 digest = le32_of(crc32c(0, scratch, len_bytes));
	say(scratch, len_bytes);
	if (f.terms.data_digest)
		say(&digest, sizeof(digest));
}

static void say_command(struct nvme_sqe *sqe, uint32_t capsule_bytes)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	sqe->cid = le16_of(++f.cid);
	sqe->flags |= NVME_SQE_PSDT_SGL;
	say(head, nvmetcp_command_build(head, &f.terms, sqe, capsule_bytes));
	if (capsule_bytes > 0)
		say_data(capsule_bytes);
}

static void say_icreq(uint8_t hpda)
{
	uint8_t head[sizeof(struct nvmetcp_icreq)];
	uint8_t digests = (f.terms.header_digest ? NVMETCP_DIGEST_HEADER : 0) |
			  (f.terms.data_digest ? NVMETCP_DIGEST_DATA : 0);
	say(head, nvmetcp_icreq_build(head, hpda, digests, 0));
}

static void say_connect(uint16_t qid, uint16_t entries, uint16_t cntlid, bool discovery, uint8_t cattr)
{
	struct nvme_connect sqe = {.opcode = NVME_FABRICS,
				   .fctype = NVME_FABRICS_CONNECT,
				   .qid = le16_of(qid),
				   .sqsize = le16_of(entries),
				   .cattr = cattr,
				   .kato_ms = le32_of(cattr * 100u)};
	struct nvme_connect_data data = {.cntlid = le16_of(cntlid)};
	sqe.sgl = (struct nvme_sgl){.length = le32_of(sizeof(data)), .identifier = NVME_SGL_INCAPSULE};
	if (discovery)
		nvme_nqn_put(data.subnqn, NVME_NQN_DISCOVERY);
	else
		nvme_nqn_of_volume(&f.volume, data.subnqn);
	data.hostid[0] = cattr & 0x80 ? 2 : 1;
	nvme_nqn_put(data.hostnqn, HOST_NQN);
	memcpy(scratch, &data, sizeof(data));
	say_command((void *)&sqe, sizeof(data));
}

static void say_property(uint32_t offset, uint32_t value, uint8_t fctype)
{
	struct nvme_property sqe = {
		.opcode = NVME_FABRICS, .fctype = fctype, .offset = le32_of(offset), .value = le64_of(value)};
	say_command((void *)&sqe, 0);
}

static void verb_choose(struct input *in)
{
	f.chosen = (unsigned)take(in, 1) % CONNS;
}

static void verb_raw(struct input *in)
{
	say(scratch, take_bytes(in, take(in, 1)));
}

static void verb_header(struct input *in)
{
	struct nvmetcp_ch ch = {.type = (uint8_t)take(in, 1) % 12,
				.flags = (uint8_t)take(in, 1),
				.hlen = (uint8_t)take(in, 1),
				.pdo = (uint8_t)take(in, 1),
				.plen = le32_of((uint32_t)take(in, 2))};
	say(&ch, sizeof(ch));
	say(scratch, take_bytes(in, take(in, 1)));
}

static void verb_connect(struct input *in)
{
	uint64_t how = take(in, 1);
	if (how & 1)
		say_icreq((uint8_t)(how >> 3));
	uint16_t qid = (uint16_t)take(in, 1) % 20, entries = (uint16_t)take(in, 1) % 140;
	say_connect(qid, entries, how & 2 || qid ? f.cntlid : NVME_CNTLID_ANY, how & 4, (uint8_t)take(in, 1));
}

static void verb_property(struct input *in)
{
	uint64_t which = take(in, 1);
	uint32_t value = which & 1 ? (uint32_t)take(in, 4) : NVME_CC_EN | NVME_CC_ENTRY_SIZES;
	say_property(which & 2 ? (uint32_t)take(in, 1) : NVME_PROPERTY_CC, value,
		     which & 4 ? NVME_FABRICS_PROPERTY_GET : NVME_FABRICS_PROPERTY_SET);
}

static void verb_disconnect(struct input *in)
{
	struct nvme_disconnect sqe = {.opcode = NVME_FABRICS,
				      .fctype = NVME_FABRICS_DISCONNECT,
				      .format = le16_of(take(in, 1) == 1)};
	say_command((void *)&sqe, 0);
}

/* How much data belongs to it, if it is what it looks like. */
static uint32_t io_data_bytes(const struct nvme_sqe *sqe)
{
	if (sqe->opcode == NVME_IO_DATASET_MANAGEMENT)
		return ((le32_get(sqe->cdw10) & 0xff) + 1) * 16;
	return nvme_rw_blocks(sqe) * 512;
}

static void verb_io(struct input *in)
{
	static const uint8_t opcodes[] = {NVME_IO_READ,
					  NVME_IO_WRITE,
					  NVME_IO_FLUSH,
					  NVME_IO_COMPARE,
					  NVME_IO_WRITE,
					  NVME_IO_WRITE_ZEROES,
					  NVME_IO_VERIFY,
					  NVME_IO_DATASET_MANAGEMENT,
					  NVME_IO_RESERVATION_REGISTER,
					  NVME_IO_READ};
	struct nvme_sqe sqe = {.opcode = opcodes[take(in, 1) % ARRAY_COUNT(opcodes)], .nsid = le32_of(1)};
	uint64_t how = take(in, 1);
	uint32_t blocks = how & 1 ? (uint32_t)take(in, 2) + 1 : (uint32_t)(how >> 4) + 1;
	nvme_rw_set(&sqe, how & 2 ? take(in, 8) : take(in, 1), blocks,
		    (uint32_t)(how & 12) << 28 | (how & 8 ? 1u << 25 : 0));
	sqe.flags = how & 64 ? (uint8_t)take(in, 1) & NVME_SQE_FUSE_MASK : 0;
	if (sqe.opcode == NVME_IO_DATASET_MANAGEMENT)
		sqe.cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE);
	uint32_t data_bytes = io_data_bytes(&sqe);
	bool brings = (sqe.opcode & 3) == NVME_OPCODE_DATA_TO_CONTROLLER,
	     in_capsule = brings && data_bytes <= NVMF_CAPSULE_MAX && (how & 4);
	sqe.sgl = (struct nvme_sgl){.length = le32_of(data_bytes),
				    .identifier = in_capsule ? NVME_SGL_INCAPSULE : NVME_SGL_TRANSPORT};
	if (in_capsule)
		take_bytes(in, data_bytes);
	say_command(&sqe, in_capsule ? data_bytes : 0);
}

/* Keys are few, so that they meet. */
static void verb_reserve(struct input *in)
{
	static const uint8_t opcodes[] = {NVME_IO_RESERVATION_REGISTER, NVME_IO_RESERVATION_ACQUIRE,
					  NVME_IO_RESERVATION_RELEASE, NVME_IO_RESERVATION_REPORT};
	struct nvme_sqe sqe = {.opcode = opcodes[take(in, 1) % ARRAY_COUNT(opcodes)], .nsid = le32_of(1)};
	uint64_t how = take(in, 1);
	uint32_t persist = (uint32_t)(how & 0xc0) << 24, type = (uint32_t)take(in, 1) << 8;
	struct nvme_reservation_keys keys = {le64_of(take(in, 1) % 4), le64_of(take(in, 1) % 4)};
	bool brings = sqe.opcode != NVME_IO_RESERVATION_REPORT;
	sqe.cdw10 = le32_of(brings ? (uint32_t)(how & 15) | type | persist : (uint32_t)how);
	sqe.cdw11 = le32_of(how & 1);
	sqe.sgl = (struct nvme_sgl){.length = le32_of(brings ? sizeof(keys) : (uint32_t)(how + 1) * 4),
				    .identifier = brings ? NVME_SGL_INCAPSULE : NVME_SGL_TRANSPORT};
	memcpy(scratch, &keys, sizeof(keys));
	say_command(&sqe, brings ? sizeof(keys) : 0);
}

static void verb_admin(struct input *in)
{
	static const uint8_t opcodes[] = {NVME_ADMIN_IDENTIFY,	   NVME_ADMIN_GET_LOG_PAGE,
					  NVME_ADMIN_SET_FEATURES, NVME_ADMIN_GET_FEATURES,
					  NVME_ADMIN_ASYNC_EVENT,  NVME_ADMIN_ABORT,
					  NVME_ADMIN_KEEP_ALIVE,   0x80};
	struct nvme_sqe sqe = {.opcode = opcodes[take(in, 1) % ARRAY_COUNT(opcodes)],
			       .nsid = le32_of((uint32_t)take(in, 1))};
	uint32_t length = sqe.opcode == NVME_ADMIN_IDENTIFY ? 4096 : 0;
	sqe.cdw10 = le32_of((uint32_t)take(in, 4));
	sqe.cdw11 = le32_of((uint32_t)take(in, 4));
	if (sqe.opcode == NVME_ADMIN_GET_LOG_PAGE)
		length = ((le32_get(sqe.cdw10) >> 16) + ((le32_get(sqe.cdw11) & 0xffff) << 16) + 1) * 4;
	else if (length == 0)
		length = (uint32_t)take(in, 2);
	sqe.cdw12 = le32_of((uint32_t)take(in, 2));
	sqe.sgl = (struct nvme_sgl){.length = le32_of(length), .identifier = NVME_SGL_TRANSPORT};
	if (sqe.opcode == NVME_ADMIN_ABORT)
		sqe.cdw10 = le32_of((uint32_t)f.cid << 16 | (le32_get(sqe.cdw10) & 1));
	say_command(&sqe, 0);
}

/* A command of any bytes. */
static void verb_odd_command(struct input *in)
{
	struct nvme_sqe sqe;
	take_bytes(in, sizeof(sqe));
	memcpy(&sqe, scratch, sizeof(sqe));
	say_command(&sqe, (uint32_t)take_bytes(in, take(in, 1)) & ~3u);
}

static void verb_data(struct input *in)
{
	const struct end *e = &f.ends[f.chosen];
	uint8_t head[NVMETCP_HEAD_MAX];
	uint64_t how = take(in, 1);
	uint32_t offset = how & 1 ? (uint32_t)take(in, 2) * 4 : 0;
	uint32_t length =
		how & 2 ? (uint32_t)take(in, 2) * 4 : (uint32_t)u64_min(e->r2t_length, sizeof(scratch));
	uint16_t tag = how & 4 ? (uint16_t)take(in, 1) : e->r2t_tag;
	length = (uint32_t)u64_min(length, sizeof(scratch));
	fiber_yield();
	say(head, nvmetcp_h2c_data_build(head, &f.terms, how & 8 ? 0 : NVMETCP_FLAG_LAST, e->r2t_cid, tag,
					 offset, length));
	take_bytes(in, length);
	if (how & 16)
		say(scratch, length / 2); /* and then something else */
	else if (length > 0)
		say_data(length);
}

/* ---- authentication -------------------------------------------------------------------------------------------------------------------- */

static struct nvme_auth_command auth_command(uint8_t fctype, uint32_t length)
{
	return (struct nvme_auth_command){.opcode = NVME_FABRICS,
					  .fctype = fctype,
					  .spsp0 = NVME_AUTH_SPSP,
					  .spsp1 = NVME_AUTH_SPSP,
					  .secp = NVME_AUTH_SECP,
					  .length = le32_of(length)};
}

/* What lies in scratch; brought along, or to be asked for. */
static void say_message(size_t len_bytes, bool in_capsule)
{
	struct nvme_auth_command sqe = auth_command(NVME_FABRICS_AUTH_SEND, (uint32_t)len_bytes);
	sqe.sgl = (struct nvme_sgl){.length = le32_of((uint32_t)len_bytes),
				    .identifier = in_capsule ? NVME_SGL_INCAPSULE : NVME_SGL_TRANSPORT};
	say_command((void *)&sqe, in_capsule ? (uint32_t)len_bytes : 0);
}

static void say_fetch(uint32_t length)
{
	struct nvme_auth_command sqe = auth_command(NVME_FABRICS_AUTH_RECEIVE, length);
	sqe.sgl = (struct nvme_sgl){.length = le32_of(length), .identifier = NVME_SGL_TRANSPORT};
	say_command((void *)&sqe, 0);
}

/* Groups are slow: there is one with `slow` alone. */
static size_t make_negotiate(uint16_t t_id, bool slow)
{
	struct nvme_auth_negotiate w = {.head = {.t_id = le16_of(t_id)}, .protocols = 1};
	struct nvme_auth_protocol p = {.id = NVME_AUTH_DHCHAP, .hashes = 3, .hash = {1, 2, 3}, .groups = 1};
	p.group[0] = slow ? NVME_AUTH_FFDHE2048 : NVME_AUTH_GROUP_NULL;
	memcpy(scratch, &w, sizeof(w));
	memcpy(scratch + sizeof(w), &p, sizeof(p));
	return sizeof(w) + sizeof(p);
}

/* Right, if what was heard is a challenge without a group. */
static size_t make_reply(uint16_t t_id, bool wants_proof, uint8_t spoil)
{
	const struct nvme_auth_challenge *c = (const void *)f.ends[f.chosen].heard;
	uint8_t hash = auth_hash_bytes(c->hash) ? c->hash : NVME_AUTH_SHA256;
	size_t hash_bytes = auth_hash_bytes(hash);
	char subnqn[NVME_NQN_FIELD];
	struct nvme_secret secret;
	struct nvme_auth_reply w = {
		.head = {.type = NVME_AUTH_DHCHAP, .id = NVME_AUTH_REPLY, .t_id = le16_of(t_id)},
		.hash_bytes = (uint8_t)hash_bytes,
		.has_challenge = wants_proof};
	if (nvme_secret_parse(SECRET, &secret))
		abort();
	struct nvme_auth_proof p = {.hash = hash,
				    .secret = &secret,
				    .is_host = true,
				    .hostnqn = HOST_NQN,
				    .subnqn = nvme_nqn_of_volume(&f.volume, subnqn),
				    .sequence = le32_get(c->sequence),
				    .t_id = t_id,
				    .challenge = (const uint8_t *)(c + 1)};
	memset(scratch, 0, sizeof(w) + 2 * hash_bytes);
	memcpy(scratch, &w, sizeof(w));
	if (nvme_auth_respond(&p, scratch + sizeof(w)))
		abort();
	scratch[sizeof(w)] ^= spoil;
	return sizeof(w) + 2 * hash_bytes;
}

static size_t make_head(uint8_t type, uint8_t id, uint16_t t_id, size_t len_bytes)
{
	struct nvme_auth_head w = {.type = type, .id = id, .t_id = le16_of(t_id)};
	memset(scratch, 0, len_bytes);
	memcpy(scratch, &w, sizeof(w));
	return len_bytes;
}

static void verb_auth(struct input *in)
{
	uint64_t what = take(in, 1), how = take(in, 1);
	uint16_t t_id = how & 1;
	bool in_capsule = !(how & 2);
	switch (what % 8) {
	case 0:
		say_message(make_negotiate(t_id, how >= 0xf0), in_capsule);
		break;
	case 1:
		fiber_sleep(NS_PER_MS); /* so that there is something to reply to */
		say_message(make_reply(t_id, how & 4, how & 8 ? (uint8_t)how : 0), in_capsule);
		break;
	case 2:
		say_message(make_head(NVME_AUTH_DHCHAP, NVME_AUTH_SUCCESS2, t_id, 16), in_capsule);
		break;
	case 3:
		say_message(make_head(NVME_AUTH_COMMON, NVME_AUTH_FAILURE2, t_id, 8), in_capsule);
		break;
	case 4:
		say_message(take_bytes(in, how), in_capsule);
		break;
	case 5:
		say_fetch((uint32_t)how * 4);
		break;
	default:
		say_fetch(NVME_AUTH_BYTES_MAX);
	}
}

static void verb_wait(struct input *in)
{
	uint64_t tenths = take(in, 1);
	fiber_sleep(tenths * tenths * (NS_PER_S / 100));
}

static void verb_grow(struct input *in)
{
	(void)in;
	if (f.volume_bytes > 4 * VOLUME_SIZE)
		return;
	f.volume_bytes += VOLUME_SIZE / 4;
	pool_double_grow(f.pool, &f.volume, f.volume_bytes);
	nvmf_server_changed(f.server);
}

static void verb_fail(struct input *in)
{
	static const int errors[] = {0, OXE_IO, OXE_NOSPC, OXE_FAILED};
	pool_double_fail(f.pool, errors[take(in, 1) % ARRAY_COUNT(errors)]);
}

static void verb_end(struct input *in)
{
	(void)in;
	if (f.ends[f.chosen].conn)
		rt_conn_shutdown(f.ends[f.chosen].conn);
}

static void (*const verbs[])(struct input *in) = {
	verb_choose, verb_raw,	verb_header,  verb_connect, verb_property,    verb_disconnect,
	verb_io,     verb_io,	verb_reserve, verb_admin,   verb_odd_command, verb_data,
	verb_data,   verb_wait, verb_grow,    verb_end,	    verb_fail,	      verb_auth,
};

/* ---- the run ---------------------------------------------------------------------------------------------------------------------------- */

/* This host has to prove that it has the secret. */
static void allow(void)
{
	static struct nvmf_access list;
	struct nvmf_access_host h;
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	const char *because;
	bool is_new;
	nvmf_access_wipe(&list);
	if (nvmf_access_host_make(HOST_NQN,
				  &(struct nvmf_access_texts){.secret = SECRET, .controller_secret = SECRET},
				  &h, &because) ||
	    nvmf_access_put(&list, &h, &is_new) ||
	    pool_note_set(f.pool, &f.volume, POOL_NOTE_ACCESS, note, nvmf_access_encode(&list, note)))
		abort();
}

static void authenticate(void)
{
	say_message(make_negotiate(0, false), true);
	say_fetch(NVME_AUTH_BYTES_MAX);
	fiber_sleep(10 * NS_PER_MS);
	say_message(make_reply(0, false, 0), true);
	say_fetch(NVME_AUTH_BYTES_MAX);
	fiber_sleep(10 * NS_PER_MS);
}

/* Otherwise the program would never come as far as it believes. */
static void must_be_ready(void)
{
	struct nvmf_stats stats;
	nvmf_server_stats(f.server, &stats);
	assert(stats.hosts_proved > 0);
}

static void prelude(unsigned which)
{
	if (which == 0)
		return;
	if (which >= 6)
		allow();
	f.chosen = 0;
	say_icreq(0);
	if (which == 1)
		return;
	say_connect(0, 31, NVME_CNTLID_ANY, which == 4, 0);
	if (which == 6)
		return;
	if (which == 7)
		authenticate();
	say_property(NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES, NVME_FABRICS_PROPERTY_SET);
	fiber_sleep(NS_PER_MS);
	if (which < 3 || which == 4)
		return;
	f.chosen = 1;
	say_icreq(0);
	say_connect(1, 127, f.cntlid, false, which == 5 ? NVME_CATTR_NO_SQ_FLOW_CONTROL : 0);
	fiber_sleep(NS_PER_MS);
	if (which == 7)
		must_be_ready();
}

static void open_ends(void)
{
	group_init(&f.readers);
	for (unsigned i = 0; i < CONNS; i++) {
		f.ends[i] = (struct end){0};
		if (rt_connect(f.rt, ADDRESS, UINT64_MAX, &f.ends[i].conn))
			abort();
		group_add(&f.readers, 1);
		fiber_spawn(f.rt, "listen", listen_run, &f.ends[i]);
	}
}

static void host_fiber(void *arg)
{
	(void)arg;
	struct nvmf_options options = {.buffer_budget_bytes = 16 * MiB,
				       .connection_bytes_max = 4 * MiB,
				       .tls = f.has_tls ? NVMF_TLS_ALLOWED : NVMF_TLS_OFF};
	f.server = nvmf_server_new(f.engines, &options);
	if (nvmf_server_listen(f.server, ADDRESS, NULL))
		abort();
	open_ends();
	prelude((unsigned)take(&f.in, 1) % 8);
	for (int i = 0; i < VERBS_MAX && f.in.at < f.in.end; i++)
		verbs[take(&f.in, 1) % ARRAY_COUNT(verbs)](&f.in);
	fiber_sleep(NS_PER_S);
	for (unsigned i = 0; i < CONNS; i++)
		rt_conn_shutdown(f.ends[i].conn);
	group_wait(&f.readers);
	for (unsigned i = 0; i < CONNS; i++)
		rt_conn_close(f.ends[i].conn);
	fiber_sleep(NS_PER_S);
	nvmf_server_close(f.server);
}

static bool is_quiet(void *ctx, const char *name, const struct engine_stats *s)
{
	(void)ctx, (void)name;
	assert(s->in_flight == 0 && s->open_count == 0);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	f.in = (struct input){data, data + size};
	uint64_t seed = take(&f.in, 1);
	f.terms = (struct nvmetcp_terms){.side = NVMETCP_SIDE_HOST,
					 .header_digest = seed & 4,
					 .data_digest = seed & 8,
					 .rx_data_max = NVMF_DATA_MAX};
	f.rt = testrt_new(seed, seed & 1);
	f.pool = pool_double_new("tank");
	f.volume_bytes = VOLUME_SIZE;
	f.volume = pool_double_volume(f.pool, "disk", VOLUME_SIZE, 512);
	f.chosen = 0;
	f.cid = f.cntlid = 0;
	pool_double_delay(f.pool, seed & 2 ? NS_PER_MS : 0);
	f.engines = engines_new(f.rt);
	engines_add_pool(f.engines, f.pool);
	f.has_tls = seed & 16;
	fiber_spawn(f.rt, "host", host_fiber, NULL);
	testrt_run(f.rt);
	engines_stats_walk(f.engines, is_quiet, NULL);
	engines_free(f.engines);
	pool_double_free(f.pool);
	testrt_free(f.rt);
	return 0;
}
