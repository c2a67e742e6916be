/* nvmf_auth.c: see nvmf_auth.h. */
#include "data/frontend/nvmf/nvmf_auth.h"

#include "base/err.h"

/* ---- what may follow what ------------------------------------------------------------------------------------------------ */

#define NO AUTH_REFUSING

enum nvmf_auth_state nvmf_auth_next(enum nvmf_auth_state state, enum nvmf_auth_event event)
{
	static const uint8_t next[AUTH_STATES][AUTH_EVENTS] = {
		/*                    NEGOTIATE         REPLY        SUCCESS2   FAILURE2   FETCH */
		[AUTH_IDLE] = {AUTH_CHALLENGING, NO, NO, NO, NO},
		[AUTH_CHALLENGING] = {NO, NO, NO, AUTH_OVER, AUTH_CHALLENGED},
		[AUTH_CHALLENGED] = {NO, AUTH_AGREED, NO, AUTH_OVER, NO},
		[AUTH_AGREED] = {NO, NO, NO, AUTH_OVER, AUTH_IDLE},
		[AUTH_PROVED] = {NO, NO, NO, AUTH_OVER, AUTH_DOUBTED},
		[AUTH_DOUBTED] = {NO, NO, AUTH_IDLE, AUTH_OVER, NO},
		[AUTH_REFUSING] = {NO, NO, NO, AUTH_OVER, AUTH_OVER},
		[AUTH_OVER] = {AUTH_OVER, AUTH_OVER, AUTH_OVER, AUTH_OVER, AUTH_OVER},
	};
	return next[state][event];
}

#undef NO

/* ---- messages from the host ---------------------------------------------------------------------------------------------- */

int nvmf_auth_event_of(const void *message, size_t len_bytes, enum nvmf_auth_event *out, uint16_t *t_id)
{
	static const struct {
		uint8_t type, id, bytes, event;
	} kinds[] = {
		{NVME_AUTH_COMMON, NVME_AUTH_NEGOTIATE, sizeof(struct nvme_auth_negotiate),
		 AUTH_ON_NEGOTIATE},
		{NVME_AUTH_DHCHAP, NVME_AUTH_REPLY, sizeof(struct nvme_auth_reply), AUTH_ON_REPLY},
		{NVME_AUTH_DHCHAP, NVME_AUTH_SUCCESS2, sizeof(struct nvme_auth_success2), AUTH_ON_SUCCESS2},
		{NVME_AUTH_COMMON, NVME_AUTH_FAILURE2, sizeof(struct nvme_auth_failure), AUTH_ON_FAILURE2},
	};
	const struct nvme_auth_head *head = message;
	if (len_bytes < sizeof(*head))
		return NVME_AUTH_WRONG_PAYLOAD;
	*t_id = le16_get(head->t_id);
	for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
		if (head->type != kinds[i].type || head->id != kinds[i].id)
			continue;
		*out = kinds[i].event;
		return len_bytes < kinds[i].bytes ? NVME_AUTH_WRONG_PAYLOAD : 0;
	}
	return NVME_AUTH_WRONG_MESSAGE;
}

static uint32_t bits_of(const uint8_t *numbers, size_t count)
{
	uint32_t bits = 0;
	for (size_t i = 0; i < count; i++)
		bits |= numbers[i] < 32 ? 1u << numbers[i] : 0;
	return bits;
}

int nvmf_auth_negotiate_decode(const void *message, size_t len_bytes, struct nvmf_auth_offer *out)
{
	const struct nvme_auth_negotiate *w = message;
	const struct nvme_auth_protocol *p = (const void *)(w + 1);
	*out = (struct nvmf_auth_offer){0};
	if (len_bytes < sizeof(*w) || w->protocols == 0 || len_bytes < sizeof(*w) + w->protocols * sizeof(*p))
		return NVME_AUTH_WRONG_PAYLOAD;
	if (w->sc_c) /* there is no secure channel to go on with */
		return NVME_AUTH_CONCAT_MISMATCH;
	for (size_t i = 0; i < w->protocols; i++, p++) {
		if (p->id != NVME_AUTH_DHCHAP)
			continue;
		if (p->hashes > sizeof(p->hash) || p->groups > sizeof(p->group))
			return NVME_AUTH_WRONG_PAYLOAD;
		out->hashes |= bits_of(p->hash, p->hashes);
		out->groups |= bits_of(p->group, p->groups);
		return 0;
	}
	return NVME_AUTH_NOT_USABLE;
}

/* The hash as wide as the secret, else the next wider, else the widest there is. */
static uint8_t choose_hash(uint32_t hashes, size_t secret_bytes)
{
	uint8_t chosen = 0;
	for (uint8_t hash = NVME_AUTH_SHA256; hash <= NVME_AUTH_SHA512; hash++) {
		bool is_enough = chosen && auth_hash_bytes(chosen) >= secret_bytes;
		if ((hashes & 1u << hash) && !is_enough)
			chosen = hash;
	}
	return chosen;
}

static uint8_t choose_group(uint32_t groups, uint8_t least)
{
	uint8_t group = least;
	while (group < NVME_AUTH_GROUPS && !(groups & 1u << group))
		group++;
	return group;
}

int nvmf_auth_choose(const struct nvmf_auth_offer *offer, size_t secret_bytes, uint8_t group_wanted,
		     uint8_t *hash, uint8_t *group)
{
	*hash = choose_hash(offer->hashes, secret_bytes);
	if (*hash == 0)
		return NVME_AUTH_HASH_UNUSABLE;
	*group = choose_group(offer->groups, group_wanted ? group_wanted - 1 : NVME_AUTH_FFDHE2048);
	if (*group == NVME_AUTH_GROUPS && group_wanted == 0)
		*group = choose_group(offer->groups, NVME_AUTH_GROUP_NULL);
	return *group == NVME_AUTH_GROUPS ? NVME_AUTH_GROUP_UNUSABLE : 0;
}

int nvmf_auth_reply_decode(const void *message, size_t len_bytes, struct nvmf_auth_exchange *x)
{
	const struct nvme_auth_reply *w = message;
	const uint8_t *at = (const uint8_t *)(w + 1);
	size_t hash_bytes = auth_hash_bytes(x->hash), key_bytes = auth_group_bytes(x->group);
	if (len_bytes < sizeof(*w) || w->hash_bytes != hash_bytes || le16_get(w->key_bytes) != key_bytes ||
	    w->has_challenge > 1 || len_bytes < sizeof(*w) + 2 * hash_bytes + key_bytes)
		return NVME_AUTH_WRONG_PAYLOAD;
	x->wants_proof = w->has_challenge;
	x->host_sequence = le32_get(w->sequence);
	memcpy(x->host_response, at, hash_bytes);
	memcpy(x->host_challenge, at + hash_bytes, hash_bytes);
	memcpy(x->host_key, at + 2 * hash_bytes, key_bytes);
	return 0;
}

/* ---- messages to it -------------------------------------------------------------------------------------------------------- */

static struct nvme_auth_head head_of(uint8_t type, uint8_t id, uint16_t t_id)
{
	return (struct nvme_auth_head){.type = type, .id = id, .t_id = le16_of(t_id)};
}

size_t nvmf_auth_challenge_build(const struct nvmf_auth_exchange *x, uint8_t *out)
{
	size_t hash_bytes = auth_hash_bytes(x->hash), key_bytes = auth_group_bytes(x->group);
	struct nvme_auth_challenge w = {
		.head = head_of(NVME_AUTH_DHCHAP, NVME_AUTH_CHALLENGE, x->t_id),
		.hash_bytes = (uint8_t)hash_bytes,
		.hash = x->hash,
		.group = x->group,
		.key_bytes = le16_of((uint16_t)key_bytes),
		.sequence = le32_of(x->sequence),
	};
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), x->challenge, hash_bytes);
	memcpy(out + sizeof(w) + hash_bytes, x->key, key_bytes);
	return sizeof(w) + hash_bytes + key_bytes;
}

size_t nvmf_auth_success1_build(const struct nvmf_auth_exchange *x, uint8_t *out)
{
	size_t hash_bytes = auth_hash_bytes(x->hash);
	struct nvme_auth_success1 w = {
		.head = head_of(NVME_AUTH_DHCHAP, NVME_AUTH_SUCCESS1, x->t_id),
		.hash_bytes = (uint8_t)hash_bytes,
		.has_response = x->wants_proof,
	};
	memcpy(out, &w, sizeof(w));
	if (!x->wants_proof)
		return sizeof(w);
	memcpy(out + sizeof(w), x->response, hash_bytes);
	return sizeof(w) + hash_bytes;
}

size_t nvmf_auth_failure1_build(uint16_t t_id, uint8_t explanation, uint8_t *out)
{
	struct nvme_auth_failure w = {
		.head = head_of(NVME_AUTH_COMMON, NVME_AUTH_FAILURE1, t_id),
		.reason = NVME_AUTH_REASON_FAILED,
		.explanation = explanation,
	};
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

/* ---- proof ------------------------------------------------------------------------------------------------------------------- */

int nvmf_auth_key_make(struct nvmf_auth_exchange *x)
{
	return x->group ? auth_public_key(x->group, x->exponent, x->key) : 0;
}

static int verify_with(struct nvmf_auth_exchange *x, const uint8_t *shared)
{
	uint8_t wanted[NVME_AUTH_HASH_BYTES_MAX];
	struct nvme_auth_proof p = {.hash = x->hash,
				    .secret = &x->secret,
				    .is_host = true,
				    .hostnqn = x->hostnqn,
				    .subnqn = x->subnqn,
				    .sequence = x->sequence,
				    .t_id = x->t_id,
				    .challenge = x->challenge,
				    .shared = shared,
				    .shared_bytes = auth_group_bytes(x->group)};
	if (nvme_auth_respond(&p, wanted) ||
	    !nvme_auth_are_equal(wanted, x->host_response, auth_hash_bytes(x->hash)))
		return NVME_AUTH_FAILED;
	if (!x->wants_proof)
		return 0;
	if (!nvme_secret_is_set(&x->controller_secret)) /* we have nothing to prove */
		return NVME_AUTH_FAILED;
	p.secret = &x->controller_secret;
	p.is_host = false;
	p.sequence = x->host_sequence;
	p.challenge = x->host_challenge;
	return nvme_auth_respond(&p, x->response) ? NVME_AUTH_FAILED : 0;
}

int nvmf_auth_verify(struct nvmf_auth_exchange *x)
{
	uint8_t shared[NVME_AUTH_GROUP_BYTES_MAX];
	if (x->group == NVME_AUTH_GROUP_NULL)
		return verify_with(x, NULL);
	if (auth_shared_key(x->group, x->exponent, x->host_key, shared))
		return NVME_AUTH_WRONG_PAYLOAD;
	int explanation = verify_with(x, shared);
	explicit_bzero(shared, sizeof(shared));
	return explanation;
}
