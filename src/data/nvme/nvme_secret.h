/*
 * nvme_secret.h: the secret a host or a subsystem proves itself with (DH-HMAC-CHAP), the key a host comes through TLS with, and their
 * forms as text:
 *
 *     DHHC-1:HH:BASE64:      HH: 00 the secret is the key; 01, 02, 03 it is transformed with SHA-256, -384, -512 first
 *                            BASE64: 32, 48 or 64 bytes of secret, and their CRC-32
 *     NVMeTLSkey-1:HH:BASE64:
 *                            HH: 00 the key is used as it is; 01, 02 it is bound to the host's NQN first, with SHA-256, -384
 *                            BASE64: 32 or 48 bytes (01: 32, 02: 48), and their CRC-32
 *
 * Pure functions over text. Whoever holds a secret wipes it (explicit_bzero) when done with it.
 */
#ifndef OXBOW_DATA_NVME_NVME_SECRET_H
#define OXBOW_DATA_NVME_NVME_SECRET_H

#include "base/base.h"

#define NVME_SECRET_BYTES_MAX 64
#define NVME_SECRET_TEXT_SIZE 104 /* with the NUL */
#define NVME_SECRET_HASH_MAX  3

struct nvme_secret { /* all zero: none */
	uint8_t hash;
	uint8_t len_bytes; /* 0, 32, 48 or 64 */
	uint8_t key[NVME_SECRET_BYTES_MAX];
};

/* OXE_INVAL: it has not that form, or its sum is wrong. */
OX_CHECKED int nvme_secret_parse(const char *text, struct nvme_secret *out);
/* Of one that is there. Returns `text`. */
char *nvme_secret_format(const struct nvme_secret *s, char text[NVME_SECRET_TEXT_SIZE]);
/* Is it none, or one that nvme_secret_parse would give? */
bool nvme_secret_is_sound(const struct nvme_secret *s);

/* The same of a key for TLS. */
OX_CHECKED int nvme_tls_key_parse(const char *text, struct nvme_secret *out);
char *nvme_tls_key_format(const struct nvme_secret *s, char text[NVME_SECRET_TEXT_SIZE]);
bool nvme_tls_key_is_sound(const struct nvme_secret *s);

/* Four characters for each three bytes begun, and a NUL. Returns `text`. */
char *nvme_base64(const uint8_t *data, size_t len_bytes, char *text);

static inline bool nvme_secret_is_set(const struct nvme_secret *s)
{
	return s->len_bytes != 0;
}

#endif
