/*
 * nvme_psk.h: from the key that was configured for a host to the one a TLS session uses (NVMe TCP transport specification 1.1, 3.6.1):
 *
 *     configured key (nvme_secret.h) --HostNQN--> retained key --identity--> TLS key
 *
 * and the name it goes by. The name tells the hash, and with it the cipher suite:
 *
 *     version 0   NVMe0R01 HOSTNQN SUBNQN              R01 SHA-256, R02 SHA-384
 *     version 1   NVMe1R01 HOSTNQN SUBNQN DIGEST       which says, too, which key it is
 *
 * Each step is HKDF of RFC 5869 and HKDF-Expand-Label as RFC 8446 writes it, lengths included. Pure functions.
 */
#ifndef OXBOW_DATA_NVME_NVME_PSK_H
#define OXBOW_DATA_NVME_NVME_PSK_H

#include "data/nvme/nvme_format.h"
#include "data/nvme/nvme_secret.h"
#include "data/tls/tls.h"

struct nvme_psk_name {
	uint8_t version; /* 0, 1 */
	enum tls_hash hash;
	char hostnqn[NVME_NQN_FIELD], subnqn[NVME_NQN_FIELD]; /* zero-padded */
};

/* OXE_INVAL: it is no such name. The digest is not looked at: it is right if nvme_psk_make makes the same name. */
OX_CHECKED int nvme_psk_name_parse(const char *identity, struct nvme_psk_name *out);
/* The key for TLS, with its name. `configured` is a sound one, the NQNs are valid. OXE_RANGE: a name of version 0 this long cannot be
 * used. The caller wipes *out. */
OX_CHECKED int nvme_psk_make(const struct nvme_secret *configured, uint8_t version, const char *hostnqn,
			     const char *subnqn, struct tls_psk *out);

#endif
