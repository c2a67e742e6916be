/*
 * nvmf_auth_test.c: authentication: what may follow what; the arithmetic; and hosts of our own that prove themselves, or fail to,
 * against the target in virtual time.
 */
#include "base/prng.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_auth.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"

#define ALL 0xffffffffu
#define S32 "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define S48 "DHHC-1:00:MDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J51wkKvA==:"
#define S64                                                                                                  \
	"DHHC-1:00:QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKUVhfZm10e4KJkJeepayzusHIz9bd5Ovy+eQY" \
	"loY=:"
#define STRANSFORMED "DHHC-1:01:tOVlODJmo6wvuXBE40yX8W05nDfezspkES7I+UI0HaULVs0T:"

static void allow(const char *secret, const char *controller_secret)
{
	target_allow(HOST_NQN, &(struct nvmf_access_texts){secret, controller_secret, NULL}, true);
}

/* ---- a host's side ------------------------------------------------------------------------------------------------------------ */

static uint8_t message[NVME_AUTH_BYTES_MAX];

static uint16_t auth_send(struct host *h, size_t len_bytes)
{
	struct nvme_auth_command sqe = {.opcode = NVME_FABRICS,
					.fctype = NVME_FABRICS_AUTH_SEND,
					.spsp0 = NVME_AUTH_SPSP,
					.spsp1 = NVME_AUTH_SPSP,
					.secp = NVME_AUTH_SECP,
					.length = le32_of((uint32_t)len_bytes)};
	uint16_t cid = host_command(h, (void *)&sqe, message, (uint32_t)len_bytes, true);
	return host_finish(h, cid, NULL, NULL, NULL);
}

/* The id of the message that came. */
static uint8_t auth_receive(struct host *h)
{
	struct nvme_auth_command sqe = {.opcode = NVME_FABRICS,
					.fctype = NVME_FABRICS_AUTH_RECEIVE,
					.spsp0 = NVME_AUTH_SPSP,
					.spsp1 = NVME_AUTH_SPSP,
					.secp = NVME_AUTH_SECP,
					.length = le32_of(sizeof(message))};
	uint16_t cid = host_command(h, (void *)&sqe, NULL, sizeof(message), false);
	CHECK_EQ(host_finish(h, cid, message, NULL, NULL), 0);
	return ((struct nvme_auth_head *)message)->id;
}

static uint16_t send_negotiate(struct host *h, uint32_t groups)
{
	struct nvme_auth_negotiate w = {.head = {.t_id = le16_of(77)}, .protocols = 1};
	struct nvme_auth_protocol p = {.id = NVME_AUTH_DHCHAP, .hashes = 3, .hash = {1, 2, 3}};
	for (uint8_t group = 0; group < NVME_AUTH_GROUPS; group++)
		if (groups & 1u << group)
			p.group[p.groups++] = group;
	memcpy(message, &w, sizeof(w));
	memcpy(message + sizeof(w), &p, sizeof(p));
	return auth_send(h, sizeof(w) + sizeof(p));
}

struct prover {
	struct nvme_secret secret, controller_secret;
	struct nvmf_auth_exchange x;
	uint8_t shared[NVME_AUTH_GROUP_BYTES_MAX];
};

static struct nvme_auth_proof proof_of(const struct prover *p, bool is_host)
{
	return (struct nvme_auth_proof){
		.hash = p->x.hash,
		.secret = is_host ? &p->secret : &p->controller_secret,
		.is_host = is_host,
		.hostnqn = HOST_NQN,
		.subnqn = target.nqn,
		.sequence = is_host ? p->x.sequence : p->x.host_sequence,
		.t_id = 77,
		.challenge = is_host ? p->x.challenge : p->x.host_challenge,
		.shared = p->x.group ? p->shared : NULL,
		.shared_bytes = auth_group_bytes(p->x.group),
	};
}

static void take_challenge(struct prover *p)
{
	const struct nvme_auth_challenge *w = (void *)message;
	size_t hash_bytes = auth_hash_bytes(w->hash), key_bytes = auth_group_bytes(w->group);
	CHECK_EQ(le16_get(w->head.t_id), 77);
	CHECK_EQ(w->hash_bytes, hash_bytes);
	CHECK_EQ(le16_get(w->key_bytes), key_bytes);
	p->x.hash = w->hash;
	p->x.group = w->group;
	p->x.sequence = le32_get(w->sequence);
	memcpy(p->x.challenge, w + 1, hash_bytes);
	memset(p->x.exponent, 0x5a, sizeof(p->x.exponent));
	if (w->group == 0)
		return;
	CHECK_OK(nvmf_auth_key_make(&p->x));
	CHECK_OK(auth_shared_key(w->group, p->x.exponent, (uint8_t *)(w + 1) + hash_bytes, p->shared));
}

static void send_reply(struct host *h, struct prover *p)
{
	size_t hash_bytes = auth_hash_bytes(p->x.hash), key_bytes = auth_group_bytes(p->x.group);
	bool wants = nvme_secret_is_set(&p->controller_secret);
	struct nvme_auth_reply w = {.head = {.type = 1, .id = NVME_AUTH_REPLY, .t_id = le16_of(77)},
				    .hash_bytes = (uint8_t)hash_bytes,
				    .has_challenge = wants,
				    .key_bytes = le16_of((uint16_t)key_bytes),
				    .sequence = le32_of(9)};
	uint8_t *at = message + sizeof(w);
	struct nvme_auth_proof proof = proof_of(p, true);
	p->x.host_sequence = 9;
	memset(p->x.host_challenge, wants ? 0xc2 : 0, sizeof(p->x.host_challenge));
	memcpy(message, &w, sizeof(w));
	CHECK_OK(nvme_auth_respond(&proof, at));
	memcpy(at + hash_bytes, p->x.host_challenge, hash_bytes);
	memcpy(at + 2 * hash_bytes, p->x.key, key_bytes);
	CHECK_EQ(auth_send(h, sizeof(w) + 2 * hash_bytes + key_bytes), 0);
}

static struct prover prover_of(const char *secret, const char *controller_secret)
{
	struct prover p = {0};
	CHECK_OK(nvme_secret_parse(secret, &p.secret));
	if (controller_secret)
		CHECK_OK(nvme_secret_parse(controller_secret, &p.controller_secret));
	return p;
}

/* Up to SUCCESS1 or FAILURE1, whose id it returns; a proof of the controller's is checked, and agreed to. */
static uint8_t authenticate(struct host *h, struct prover *p, uint32_t groups)
{
	CHECK_EQ(send_negotiate(h, groups), 0);
	uint8_t id = auth_receive(h);
	if (id != NVME_AUTH_CHALLENGE)
		return id;
	take_challenge(p);
	send_reply(h, p);
	id = auth_receive(h);
	const struct nvme_auth_success1 *w = (void *)message;
	if (id != NVME_AUTH_SUCCESS1 || !nvme_secret_is_set(&p->controller_secret))
		return id;
	uint8_t wanted[NVME_AUTH_HASH_BYTES_MAX];
	struct nvme_auth_proof proof = proof_of(p, false);
	CHECK_EQ(w->has_response, 1);
	CHECK_OK(nvme_auth_respond(&proof, wanted));
	CHECK(memcmp(wanted, w + 1, auth_hash_bytes(p->x.hash)) == 0);
	struct nvme_auth_success2 agreed = {.head = {.type = 1, .id = 4, .t_id = le16_of(77)}};
	memcpy(message, &agreed, sizeof(agreed));
	CHECK_EQ(auth_send(h, sizeof(agreed)), 0);
	return id;
}

static struct host begin(void)
{
	struct host h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32), 0);
	return h;
}

static uint16_t enable(struct host *h)
{
	return host_property_set(h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES);
}

static void expect_proof(const char *secret, const char *controller_secret, uint32_t groups, uint8_t hash,
			 uint8_t group)
{
	struct prover p = prover_of(secret, controller_secret);
	allow(secret, controller_secret);
	struct host h = begin();
	CHECK_EQ(authenticate(&h, &p, groups), NVME_AUTH_SUCCESS1);
	CHECK_EQ(p.x.hash, hash);
	CHECK_EQ(p.x.group, group);
	CHECK_EQ(enable(&h), 0);
	host_close(&h);
}

/* Refused, with this explanation, and cut off. */
static void expect_failure(struct host *h, uint8_t id, uint8_t explanation)
{
	const struct nvme_auth_failure *w = (void *)message;
	uint16_t fes;
	CHECK_EQ(id, NVME_AUTH_FAILURE1);
	CHECK_EQ(w->reason, NVME_AUTH_REASON_FAILED);
	CHECK_EQ(w->explanation, explanation);
	CHECK(host_is_cut(h, &fes));
	host_close(h);
}

/* ---- those who are right ------------------------------------------------------------------------------------------------------ */

WITH_TARGET(a_host_proves_itself_with_each_hash_and_group_and_the_volume_to_it)
{
	expect_proof(S32, NULL, 1, NVME_AUTH_SHA256, NVME_AUTH_GROUP_NULL);
	expect_proof(S48, S32, 1, NVME_AUTH_SHA384, NVME_AUTH_GROUP_NULL);
	expect_proof(S64, STRANSFORMED, ALL, NVME_AUTH_SHA512, NVME_AUTH_FFDHE2048);
	expect_proof(STRANSFORMED, S64, 1u << NVME_AUTH_FFDHE3072, NVME_AUTH_SHA256, NVME_AUTH_FFDHE3072);
	expect_proof(S32, S32, 1u << NVME_AUTH_FFDHE4096, NVME_AUTH_SHA256, NVME_AUTH_FFDHE4096);
	expect_proof(S32, S32, 1u << NVME_AUTH_FFDHE6144, NVME_AUTH_SHA256, NVME_AUTH_FFDHE6144);
	expect_proof(S32, S32, 1u << NVME_AUTH_FFDHE8192, NVME_AUTH_SHA256, NVME_AUTH_FFDHE8192);
}

WITH_TARGET(until_it_has_proved_itself_a_queue_carries_out_nothing_else)
{
	struct prover p = prover_of(S32, NULL);
	uint8_t page[4096];
	allow(S32, NULL);
	struct host h = begin(), io = host_open(ADDRESS, 0, 0);
	CHECK_EQ(enable(&h), NVME_STATUS_AUTH_REQUIRED | DNR);
	CHECK_EQ(authenticate(&h, &p, 1), NVME_AUTH_SUCCESS1);
	CHECK_EQ(enable(&h), 0);
	CHECK_EQ(host_connect(&io, 1, h.cntlid, target.nqn, 32), 0);
	CHECK_EQ(host_io(&io, NVME_IO_READ, 0, 8, 0, page, NULL, 4096), NVME_STATUS_AUTH_REQUIRED | DNR);
	CHECK_EQ(authenticate(&io, &p, 1), NVME_AUTH_SUCCESS1);
	CHECK_EQ(host_io(&io, NVME_IO_READ, 0, 8, 0, page, NULL, 4096), 0);
	CHECK_EQ(authenticate(&h, &p, 1), NVME_AUTH_SUCCESS1); /* again */
	host_close(&io);
	host_close(&h);
}

/* ---- those who are not --------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_host_with_another_secret_is_refused_and_cut_off)
{
	struct prover p = prover_of(STRANSFORMED, NULL);
	allow(S32, NULL);
	struct host h = begin();
	expect_failure(&h, authenticate(&h, &p, ALL), NVME_AUTH_FAILED);
	h = begin();
	expect_failure(&h, authenticate(&h, &p, 1), NVME_AUTH_FAILED);
}

WITH_TARGET(a_host_that_wants_proof_of_a_volume_that_has_none_is_refused)
{
	struct prover p = prover_of(S32, S48);
	allow(S32, NULL);
	struct host h = begin();
	expect_failure(&h, authenticate(&h, &p, 1), NVME_AUTH_FAILED);
}

WITH_TARGET(a_key_that_makes_the_shared_one_known_is_refused)
{
	struct prover p = prover_of(S32, NULL);
	allow(S32, NULL);
	struct host h = begin();
	CHECK_EQ(send_negotiate(&h, ALL), 0);
	CHECK_EQ(auth_receive(&h), NVME_AUTH_CHALLENGE);
	take_challenge(&p);
	memset(p.x.key, 0, sizeof(p.x.key));
	p.x.key[255] = 1;
	send_reply(&h, &p);
	expect_failure(&h, auth_receive(&h), NVME_AUTH_WRONG_PAYLOAD);
}

WITH_TARGET(messages_out_of_turn_and_nonsense_end_the_connection)
{
	allow(S32, NULL);
	struct host h = begin();
	expect_failure(&h, auth_receive(&h), NVME_AUTH_WRONG_MESSAGE);
	h = begin();
	CHECK_EQ(send_negotiate(&h, 0), 0);
	expect_failure(&h, auth_receive(&h), NVME_AUTH_GROUP_UNUSABLE);
	h = begin();
	memset(message, 0xee, 64);
	CHECK_EQ(auth_send(&h, 64), 0);
	expect_failure(&h, auth_receive(&h), NVME_AUTH_WRONG_MESSAGE);
	h = begin();
	CHECK_EQ(send_negotiate(&h, 1), 0);
	CHECK_EQ(send_negotiate(&h, 1), 0);
	expect_failure(&h, auth_receive(&h), NVME_AUTH_WRONG_MESSAGE);
}

WITH_TARGET(a_host_that_does_not_finish_authenticating_in_time_is_dropped)
{
	struct nvmf_stats stats;
	uint16_t fes;
	allow(S32, NULL);
	struct host h = begin();
	uint64_t begin_ns = rt_now_ns(frame.rt);
	CHECK_EQ(send_negotiate(&h, 1), 0);
	CHECK_EQ(auth_receive(&h), NVME_AUTH_CHALLENGE);
	CHECK(host_is_cut(&h, &fes));
	CHECK(rt_now_ns(frame.rt) - begin_ns >= 29 * NS_PER_S);
	host_close(&h);
	nvmf_server_stats(target.server, &stats);
	CHECK_EQ(stats.connections_dropped, 1);
}

WITH_TARGET(a_host_that_fails_again_and_again_waits_longer_each_time)
{
	struct prover p = prover_of(STRANSFORMED, NULL);
	uint64_t begin_ns = rt_now_ns(frame.rt);
	allow(S32, NULL);
	for (int i = 0; i < 3; i++) {
		struct host h = begin();
		expect_failure(&h, authenticate(&h, &p, 1), NVME_AUTH_FAILED);
	}
	CHECK(rt_now_ns(frame.rt) - begin_ns < 250 * NS_PER_MS);
	for (int i = 0; i < 4; i++) {
		struct host h = begin();
		expect_failure(&h, authenticate(&h, &p, 1), NVME_AUTH_FAILED);
	}
	CHECK(rt_now_ns(frame.rt) - begin_ns >= (250 + 500 + 1000 + 2000) * NS_PER_MS);
	expect_proof(S32, NULL, 1, NVME_AUTH_SHA256, NVME_AUTH_GROUP_NULL);
}
