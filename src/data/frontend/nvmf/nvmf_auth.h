/*
 * nvmf_auth.h: DH-HMAC-CHAP from the controller's side, without connections: messages taken apart and built, what may follow
 * what, and what proves a secret. The host's side is data/replica/nvme_host_auth.h.
 *
 *     host                    controller
 *     NEGOTIATE      ->                       which hashes and groups it has
 *                    <-       CHALLENGE       the hash, the group, C1, g^x
 *     REPLY          ->                       R1; C2 if the controller shall prove itself, too; g^y
 *                    <-       SUCCESS1        R2 if it was asked for; the host is believed, unless it still has to agree
 *     SUCCESS2       ->                       it believes the controller
 *
 *     FAILURE1 stands where the controller says no, FAILURE2 where the host does
 *
 *   errors   of decoding: 0, or an enum nvme_auth_explanation, which is the answer
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_AUTH_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_AUTH_H

#include "data/nvme/nvme_auth_proof.h"

/* ---- what may follow what ---------------------------------------------------------------------------------------------------- */

enum nvmf_auth_state {
	AUTH_IDLE,	  /* nothing under way */
	AUTH_CHALLENGING, /* a challenge is to be fetched */
	AUTH_CHALLENGED,  /* a reply is to come */
	AUTH_AGREED,	  /* SUCCESS1 is to be fetched */
	AUTH_PROVED,	  /* the same, and SUCCESS2 is to come then */
	AUTH_DOUBTED,	  /* SUCCESS2 or FAILURE2 is to come */
	AUTH_REFUSING,	  /* FAILURE1 is to be fetched */
	AUTH_OVER,	  /* it was; or the host has refused us */
	AUTH_STATES
};
enum nvmf_auth_event {
	AUTH_ON_NEGOTIATE,
	AUTH_ON_REPLY,
	AUTH_ON_SUCCESS2,
	AUTH_ON_FAILURE2,
	AUTH_ON_FETCH,
	AUTH_EVENTS
};
/* The state after it; AUTH_REFUSING for what cannot come now. A reply that asks for proof moves on to AUTH_PROVED instead of
 * AUTH_AGREED; what fails moves to AUTH_REFUSING: both are for the caller to say. */
enum nvmf_auth_state nvmf_auth_next(enum nvmf_auth_state state, enum nvmf_auth_event event);

/* ---- messages ------------------------------------------------------------------------------------------------------------------ */

/* What a message from the host is, by its head. NVME_AUTH_WRONG_PAYLOAD, _MESSAGE. */
OX_CHECKED int nvmf_auth_event_of(const void *message, size_t len_bytes, enum nvmf_auth_event *out,
				  uint16_t *t_id);

struct nvmf_auth_offer {
	uint32_t hashes, groups; /* bits by number */
};
OX_CHECKED int nvmf_auth_negotiate_decode(const void *message, size_t len_bytes, struct nvmf_auth_offer *out);

/* `group_wanted` 0: any, but the null group only if there is no other; else 1 + the least group. */
OX_CHECKED int nvmf_auth_choose(const struct nvmf_auth_offer *offer, size_t secret_bytes,
				uint8_t group_wanted, uint8_t *hash, uint8_t *group);

/* One transaction. Holds secrets: wipe it. */
struct nvmf_auth_exchange {
	uint16_t t_id;
	uint8_t hash, group;
	struct nvme_secret secret, controller_secret;
	char hostnqn[NVME_NQN_FIELD], subnqn[NVME_NQN_FIELD];
	uint32_t sequence, host_sequence;
	uint8_t challenge[NVME_AUTH_HASH_BYTES_MAX], host_challenge[NVME_AUTH_HASH_BYTES_MAX];
	uint8_t exponent[AUTH_PRIVATE_BYTES];
	uint8_t key[NVME_AUTH_GROUP_BYTES_MAX], host_key[NVME_AUTH_GROUP_BYTES_MAX]; /* public ones */
	bool wants_proof;							     /* the host, of us */
	uint8_t host_response[NVME_AUTH_HASH_BYTES_MAX], response[NVME_AUTH_HASH_BYTES_MAX];
};

/* Fills the rest of `x` from the host's reply: hash, group and t_id are known. */
OX_CHECKED int nvmf_auth_reply_decode(const void *message, size_t len_bytes, struct nvmf_auth_exchange *x);

/* Each returns the length; `out` has NVME_AUTH_BYTES_MAX. */
size_t nvmf_auth_challenge_build(const struct nvmf_auth_exchange *x, uint8_t *out);
size_t nvmf_auth_success1_build(const struct nvmf_auth_exchange *x, uint8_t *out);
size_t nvmf_auth_failure1_build(uint16_t t_id, uint8_t explanation, uint8_t *out);

/* ---- proof ----------------------------------------------------------------------------------------------------------------------- */

/* x->key, from x->exponent. Takes milliseconds. */
OX_CHECKED int nvmf_auth_key_make(struct nvmf_auth_exchange *x);
/* Is the host's response right? Then x->response is ours, if it wants one. 0, or an explanation. Takes milliseconds. */
OX_CHECKED int nvmf_auth_verify(struct nvmf_auth_exchange *x);

#endif
