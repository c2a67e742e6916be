/* nvme_host_auth.c: see nvme_host_auth.h. */
#include "data/replica/nvme_host_auth.h"

static int wrong(struct nvme_host_auth *a, int err, const char *because)
{
	a->because = because;
	return err;
}

static struct nvme_auth_head head_of(const struct nvme_host_auth *a, uint8_t type, uint8_t id)
{
	return (struct nvme_auth_head){.type = type, .id = id, .t_id = le16_of(a->t_id)};
}

/* ---- said ----------------------------------------------------------------------------------------------------------------- */

size_t nvme_host_auth_negotiate(const struct nvme_host_auth *a, uint8_t *out)
{
	struct nvme_auth_negotiate w = {.head = head_of(a, NVME_AUTH_COMMON, NVME_AUTH_NEGOTIATE),
					.protocols = 1};
	struct nvme_auth_protocol p = {.id = NVME_AUTH_DHCHAP,
				       .hashes = 3,
				       .hash = {NVME_AUTH_SHA256, NVME_AUTH_SHA384, NVME_AUTH_SHA512}};
	for (uint8_t group = a->least_group; group < NVME_AUTH_GROUPS; group++)
		p.group[p.groups++] = group;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), &p, sizeof(p));
	return sizeof(w) + sizeof(p);
}

size_t nvme_host_auth_reply(const struct nvme_host_auth *a, uint8_t *out)
{
	size_t hash_bytes = auth_hash_bytes(a->hash), key_bytes = auth_group_bytes(a->group);
	bool wants_proof = nvme_host_auth_wants_proof(a);
	struct nvme_auth_reply w = {
		.head = head_of(a, NVME_AUTH_DHCHAP, NVME_AUTH_REPLY),
		.hash_bytes = (uint8_t)hash_bytes,
		.has_challenge = wants_proof,
		.key_bytes = le16_of((uint16_t)key_bytes),
		.sequence = le32_of(wants_proof ? a->host_sequence : 0),
	};
	uint8_t *at = out + sizeof(w);
	memcpy(out, &w, sizeof(w));
	memcpy(at, a->response, hash_bytes);
	memset(at + hash_bytes, 0, hash_bytes);
	if (wants_proof)
		memcpy(at + hash_bytes, a->host_challenge, hash_bytes);
	memcpy(at + 2 * hash_bytes, a->host_key, key_bytes);
	return sizeof(w) + 2 * hash_bytes + key_bytes;
}

size_t nvme_host_auth_agree(const struct nvme_host_auth *a, uint8_t *out)
{
	struct nvme_auth_success2 w = {.head = head_of(a, NVME_AUTH_DHCHAP, NVME_AUTH_SUCCESS2)};
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

size_t nvme_host_auth_refuse(const struct nvme_host_auth *a, uint8_t *out)
{
	struct nvme_auth_failure w = {.head = head_of(a, NVME_AUTH_COMMON, NVME_AUTH_FAILURE2),
				      .reason = NVME_AUTH_REASON_FAILED,
				      .explanation = NVME_AUTH_FAILED};
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

/* ---- heard ---------------------------------------------------------------------------------------------------------------- */

static const char *explanation_text(uint8_t explanation)
{
	static const char *const texts[] = {
		[NVME_AUTH_FAILED] = "the target does not believe us: the secret is another",
		[NVME_AUTH_NOT_USABLE] = "the target does not know DH-HMAC-CHAP",
		[NVME_AUTH_CONCAT_MISMATCH] = "the target wants a secure channel",
		[NVME_AUTH_HASH_UNUSABLE] = "the target has no hash in common",
		[NVME_AUTH_GROUP_UNUSABLE] = "the target has no group in common",
		[NVME_AUTH_WRONG_PAYLOAD] = "the target could not read a message of authentication",
		[NVME_AUTH_WRONG_MESSAGE] = "the target expected another message of authentication",
	};
	const char *text = explanation < ARRAY_COUNT(texts) ? texts[explanation] : NULL;
	return text ? text : "the target refuses authentication";
}

/* Is it the message that must come now, and as long as its head at least? */
static int check_head(struct nvme_host_auth *a, const void *message, size_t len_bytes, uint8_t id,
		      size_t wanted_bytes)
{
	const struct nvme_auth_failure *w = message;
	if (len_bytes < sizeof(*w) || le16_get(w->head.t_id) != a->t_id)
		return wrong(a, OXE_PROTO, "the target sent no message of this authentication");
	if (w->head.type == NVME_AUTH_COMMON && w->head.id == NVME_AUTH_FAILURE1)
		return wrong(a, OXE_PERM, explanation_text(w->explanation));
	if (w->head.type != NVME_AUTH_DHCHAP || w->head.id != id || len_bytes < wanted_bytes)
		return wrong(a, OXE_PROTO, "the target sent another message of authentication than was due");
	return 0;
}

int nvme_host_auth_take_challenge(struct nvme_host_auth *a, const void *message, size_t len_bytes)
{
	const struct nvme_auth_challenge *w = message;
	int err = check_head(a, message, len_bytes, NVME_AUTH_CHALLENGE, sizeof(*w));
	if (err)
		return err;
	size_t hash_bytes = auth_hash_bytes(w->hash), key_bytes = auth_group_bytes(w->group);
	if (hash_bytes == 0 || w->group >= NVME_AUTH_GROUPS || w->group < a->least_group)
		return wrong(a, OXE_UNSUPPORTED, "the target chose a hash or a group that was not offered");
	if (w->hash_bytes != hash_bytes || le16_get(w->key_bytes) != key_bytes ||
	    len_bytes < sizeof(*w) + hash_bytes + key_bytes)
		return wrong(a, OXE_PROTO, "the target sent a challenge whose lengths cannot be");
	a->hash = w->hash;
	a->group = w->group;
	a->sequence = le32_get(w->sequence);
	memcpy(a->challenge, w + 1, hash_bytes);
	memcpy(a->key, (const uint8_t *)(w + 1) + hash_bytes, key_bytes);
	return 0;
}

int nvme_host_auth_take_success(struct nvme_host_auth *a, const void *message, size_t len_bytes)
{
	const struct nvme_auth_success1 *w = message;
	size_t hash_bytes = auth_hash_bytes(a->hash);
	int err = check_head(a, message, len_bytes, NVME_AUTH_SUCCESS1, sizeof(*w));
	if (err || !nvme_host_auth_wants_proof(a))
		return err;
	a->doubts = w->has_response != 1 || w->hash_bytes != hash_bytes ||
		    len_bytes < sizeof(*w) + hash_bytes ||
		    !nvme_auth_are_equal((const uint8_t *)(w + 1), a->wanted, hash_bytes);
	return a->doubts ? wrong(a, OXE_PERM, "the target did not prove itself: its secret is another") : 0;
}

/* ---- both proofs ---------------------------------------------------------------------------------------------------------- */

static int work_with(struct nvme_host_auth *a, const uint8_t *shared)
{
	struct nvme_auth_proof p = {.hash = a->hash,
				    .secret = &a->secret,
				    .is_host = true,
				    .hostnqn = a->hostnqn,
				    .subnqn = a->subnqn,
				    .sequence = a->sequence,
				    .t_id = a->t_id,
				    .challenge = a->challenge,
				    .shared = shared,
				    .shared_bytes = auth_group_bytes(a->group)};
	int err = nvme_auth_respond(&p, a->response);
	if (err || !nvme_host_auth_wants_proof(a))
		return err;
	p.secret = &a->controller_secret;
	p.is_host = false;
	p.sequence = a->host_sequence;
	p.challenge = a->host_challenge;
	return nvme_auth_respond(&p, a->wanted);
}

int nvme_host_auth_work(struct nvme_host_auth *a)
{
	uint8_t shared[NVME_AUTH_GROUP_BYTES_MAX];
	if (a->group == NVME_AUTH_GROUP_NULL)
		return work_with(a, NULL);
	int err = auth_public_key(a->group, a->exponent, a->host_key);
	if (!err && auth_shared_key(a->group, a->exponent, a->key, shared))
		return wrong(a, OXE_PROTO, "the target's key would make the shared one known to anybody");
	if (!err)
		err = work_with(a, shared);
	explicit_bzero(shared, sizeof(shared));
	return err;
}
