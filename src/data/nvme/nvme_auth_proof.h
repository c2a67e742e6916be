/*
 * nvme_auth_proof.h: what proves a secret in DH-HMAC-CHAP (NVM Express base specification 2.0, 8.13.5): for either side, of either
 * side. Pure functions.
 */
#ifndef OXBOW_DATA_NVME_NVME_AUTH_PROOF_H
#define OXBOW_DATA_NVME_NVME_AUTH_PROOF_H

#include "data/nvme/nvme_auth_crypto.h"
#include "data/nvme/nvme_secret.h"

struct nvme_auth_proof {
	uint8_t hash;
	const struct nvme_secret *secret;
	bool is_host; /* whose proof; the other asked for it */
	const char *hostnqn, *subnqn;
	uint32_t sequence;
	uint16_t t_id;
	const uint8_t *challenge;
	const uint8_t *shared; /* NULL: the null group */
	size_t shared_bytes;
};
/* What proves the secret: auth_hash_bytes(hash) bytes. OXE_NOMEM. */
OX_CHECKED int nvme_auth_respond(const struct nvme_auth_proof *p, uint8_t *out);
/* "null", "ffdhe2048" ... "ffdhe8192", as people write it. OXE_INVAL. */
OX_CHECKED int nvme_auth_group_parse(const char *name, uint8_t *group);
/* In time that does not tell where they differ. */
bool nvme_auth_are_equal(const uint8_t *a, const uint8_t *b, size_t len_bytes);

#endif
