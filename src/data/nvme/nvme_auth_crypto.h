/*
 * nvme_auth_crypto.h: the arithmetic of authentication: hashes, HMAC, and Diffie-Hellman over the ffdhe groups (RFC 7919). The only
 * file here that knows GnuTLS and GMP is nvme_auth_crypto.c. Pure functions; those over groups take milliseconds: rt_offload.
 *
 *   errors      OXE_INVAL: a public key that is none of the group. OXE_NOMEM: the library fails
 */
#ifndef OXBOW_DATA_NVME_NVME_AUTH_CRYPTO_H
#define OXBOW_DATA_NVME_NVME_AUTH_CRYPTO_H

#include "data/nvme/nvme_auth_format.h"

#define AUTH_PRIVATE_BYTES 64 /* of an exponent: twice the strength of the largest group, and more */

struct auth_part {
	const void *data;
	size_t len_bytes;
};

/* Of enum nvme_auth_hash, nvme_auth_group; 0: no such thing, or the null group. */
size_t auth_hash_bytes(uint8_t hash);
size_t auth_group_bytes(uint8_t group);

OX_CHECKED int auth_digest(uint8_t hash, const void *data, size_t len_bytes, uint8_t *out);
OX_CHECKED int auth_hmac(uint8_t hash, const void *key, size_t key_bytes, const struct auth_part *parts,
			 size_t part_count, uint8_t *out);
/* Both fill auth_group_bytes(group), most significant byte first. */
OX_CHECKED int auth_public_key(uint8_t group, const uint8_t exponent[AUTH_PRIVATE_BYTES], uint8_t *out);
OX_CHECKED int auth_shared_key(uint8_t group, const uint8_t exponent[AUTH_PRIVATE_BYTES],
			       const uint8_t *peer_public, uint8_t *out);

#endif
