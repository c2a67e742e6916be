/*
 * nvme_host_auth.h: DH-HMAC-CHAP from the host's side, without connections: messages built and taken apart, and both proofs. The
 * controller's side, and the order of messages, is in data/frontend/nvmf/nvmf_auth.h; nvme_host_prove.c says them on a queue.
 *
 *     nvme_host_auth_negotiate()            -> NEGOTIATE
 *     nvme_host_auth_take_challenge()       <- CHALLENGE
 *     nvme_host_auth_work()                 the arithmetic of both proofs; milliseconds: rt_offload
 *     nvme_host_auth_reply()                -> REPLY
 *     nvme_host_auth_take_success()         <- SUCCESS1
 *     nvme_host_auth_agree(), _refuse()     -> SUCCESS2, FAILURE2; only where the controller had to prove itself
 *
 * A group is never weaker than the host said: somebody in between may take groups out of the offer, but not put one in that the
 * host does not have.
 *
 *   who owns memory   the caller; names and secrets stay until the exchange is over. It holds secrets: wipe it
 *   errors            0; OXE_PERM: the other does not believe us, or we not it. OXE_UNSUPPORTED: nothing in common.
 *                     OXE_PROTO: no such message can come now. `because` is the sentence
 */
#ifndef OXBOW_DATA_REPLICA_NVME_HOST_AUTH_H
#define OXBOW_DATA_REPLICA_NVME_HOST_AUTH_H

#include "base/err.h"
#include "data/nvme/nvme_auth_proof.h"

struct nvme_host_auth {
	/* Filled in by the caller; all of it but the exponent and host_challenge before the first message. */
	const char *hostnqn, *subnqn;
	struct nvme_secret secret,
		controller_secret; /* the latter: the controller must prove it. None: it need not */
	uint8_t least_group;	   /* enum nvme_auth_group */
	uint16_t t_id;
	uint32_t host_sequence; /* not 0 */
	uint8_t exponent[AUTH_PRIVATE_BYTES], host_challenge[NVME_AUTH_HASH_BYTES_MAX];
	/* As it goes on. */
	uint8_t hash, group;
	uint32_t sequence;
	uint8_t challenge[NVME_AUTH_HASH_BYTES_MAX];
	uint8_t key[NVME_AUTH_GROUP_BYTES_MAX],
		host_key[NVME_AUTH_GROUP_BYTES_MAX]; /* public: the controller's, ours */
	uint8_t response[NVME_AUTH_HASH_BYTES_MAX],
		wanted[NVME_AUTH_HASH_BYTES_MAX]; /* ours, and the controller's */
	bool doubts;	     /* the controller's proof is wrong: it is to be told (nvme_host_auth_refuse) */
	const char *because; /* static text; NULL: nothing is wrong */
};

static inline bool nvme_host_auth_wants_proof(const struct nvme_host_auth *a)
{
	return nvme_secret_is_set(&a->controller_secret);
}

/* Each returns the length; `out` has NVME_AUTH_BYTES_MAX. */
size_t nvme_host_auth_negotiate(const struct nvme_host_auth *a, uint8_t *out);
size_t nvme_host_auth_reply(const struct nvme_host_auth *a, uint8_t *out);
size_t nvme_host_auth_agree(const struct nvme_host_auth *a, uint8_t *out);
size_t nvme_host_auth_refuse(const struct nvme_host_auth *a, uint8_t *out);

OX_CHECKED int nvme_host_auth_take_challenge(struct nvme_host_auth *a, const void *message, size_t len_bytes);
OX_CHECKED int nvme_host_auth_work(struct nvme_host_auth *a);
OX_CHECKED int nvme_host_auth_take_success(struct nvme_host_auth *a, const void *message, size_t len_bytes);

#endif
