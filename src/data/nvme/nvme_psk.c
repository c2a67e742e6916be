/* nvme_psk.c: see nvme_psk.h. */
#include "data/nvme/nvme_psk.h"

#include "base/err.h"
#include "data/nvme/nvme_nqn.h"

#include <stdio.h>

#define PREFIX_BYTES  9 /* "NVMe0R01 " */
#define CONTEXT_MAX   255
#define LABEL_MAX     32
#define INFO_MAX      (2 + 1 + LABEL_MAX + 1 + CONTEXT_MAX + 1)
#define BASE64_SIZE   (TLS_KEY_MAX / 3 * 4 + 1)
#define DIGEST_SUFFIX "NVMe-over-Fabrics"

static_assert(PREFIX_BYTES + 2 * NVME_NQN_FIELD + BASE64_SIZE <= TLS_IDENTITY_MAX, "every name fits");

/* ---- names ------------------------------------------------------------------------------------------------------------------ */

/* The word at *at into an NQN's field, *at behind it. */
static bool take_nqn(const char **at, char field[NVME_NQN_FIELD])
{
	size_t length = strcspn(*at, " ");
	memset(field, 0, NVME_NQN_FIELD);
	if (length > NVME_NQN_MAX)
		return false;
	memcpy(field, *at, length);
	*at += length;
	return nvme_nqn_is_valid(field);
}

static bool take_space(const char **at)
{
	bool is_there = **at == ' ';
	*at += is_there;
	return is_there;
}

int nvme_psk_name_parse(const char *identity, struct nvme_psk_name *out)
{
	const char *at = identity + PREFIX_BYTES;
	memset(out, 0, sizeof(*out));
	if (strncmp(identity, "NVMe", 4) != 0 || (identity[4] != '0' && identity[4] != '1') ||
	    strncmp(identity + 5, "R0", 2) != 0 || (identity[7] != '1' && identity[7] != '2') ||
	    identity[8] != ' ')
		return OXE_INVAL;
	out->version = (uint8_t)(identity[4] - '0');
	out->hash = identity[7] == '1' ? TLS_SHA256 : TLS_SHA384;
	bool is_right = take_nqn(&at, out->hostnqn) && take_space(&at) && take_nqn(&at, out->subnqn);
	if (is_right && out->version == 1)
		is_right = take_space(&at) && strlen(at) == tls_hash_bytes(out->hash) / 3 * 4 +
								    (tls_hash_bytes(out->hash) % 3 ? 4 : 0);
	else
		is_right = is_right && *at == '\0';
	return is_right ? 0 : OXE_INVAL;
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

/* HKDF-Expand-Label(HKDF-Extract(0, key), label, context, the hash's length): one block is all there is to expand. */
static int derive(enum tls_hash hash, const uint8_t *key, const char *label, const char *context,
		  uint8_t out[TLS_KEY_MAX])
{
	static const uint8_t salt[TLS_KEY_MAX];
	uint8_t extracted[TLS_KEY_MAX], info[INFO_MAX];
	size_t bytes = tls_hash_bytes(hash), context_bytes = strlen(context);
	if (context_bytes > CONTEXT_MAX)
		return OXE_RANGE;
	int label_bytes = snprintf((char *)info + 3, LABEL_MAX, "tls13 %s", label);
	info[0] = 0;
	info[1] = (uint8_t)bytes;
	info[2] = (uint8_t)label_bytes;
	uint8_t *at = info + 3 + label_bytes;
	*at++ = (uint8_t)context_bytes;
	memcpy(at, context, context_bytes);
	at += context_bytes;
	*at++ = 1; /* the number of the block */
	int err = tls_hmac(hash, salt, bytes, key, bytes, extracted);
	if (err == 0)
		err = tls_hmac(hash, extracted, bytes, info, (size_t)(at - info), out);
	explicit_bzero(extracted, sizeof(extracted));
	return err;
}

static int retain(const struct nvme_secret *configured, enum tls_hash hash, const char *hostnqn,
		  uint8_t out[TLS_KEY_MAX])
{
	if (configured->hash)
		return derive(hash, configured->key, "HostNQN", hostnqn, out);
	memcpy(out, configured->key, configured->len_bytes);
	return 0;
}

static int digest(enum tls_hash hash, const uint8_t *retained, const char *hostnqn, const char *subnqn,
		  char text[BASE64_SIZE])
{
	char data[2 * NVME_NQN_FIELD + sizeof(DIGEST_SUFFIX)];
	uint8_t mac[TLS_KEY_MAX];
	int length = snprintf(data, sizeof(data), "%s %s " DIGEST_SUFFIX, hostnqn, subnqn);
	int err = tls_hmac(hash, retained, tls_hash_bytes(hash), data, (size_t)length, mac);
	if (err == 0)
		nvme_base64(mac, tls_hash_bytes(hash), text);
	return err;
}

/* The name, and of it what the key is bound to. */
static int name(struct tls_psk *psk, uint8_t version, const uint8_t *retained, const char *hostnqn,
		const char *subnqn, char context[TLS_IDENTITY_MAX + 1])
{
	char text[BASE64_SIZE];
	int err = version ? digest(psk->hash, retained, hostnqn, subnqn, text) : 0;
	if (err)
		return err;
	snprintf(psk->identity, sizeof(psk->identity), "NVMe%uR%02u %s %s%s%s", version, psk->hash, hostnqn,
		 subnqn, version ? " " : "", version ? text : "");
	if (version)
		snprintf(context, TLS_IDENTITY_MAX + 1, "%02u %s", psk->hash, text);
	else
		strcpy(context, psk->identity);
	return 0;
}

int nvme_psk_make(const struct nvme_secret *configured, uint8_t version, const char *hostnqn,
		  const char *subnqn, struct tls_psk *out)
{
	uint8_t retained[TLS_KEY_MAX];
	char context[TLS_IDENTITY_MAX + 1];
	assert(nvme_secret_is_set(configured) && nvme_tls_key_is_sound(configured) && version <= 1);
	out->hash = configured->len_bytes == 32 ? TLS_SHA256 : TLS_SHA384;
	out->key_bytes = (uint8_t)tls_hash_bytes(out->hash);
	int err = retain(configured, out->hash, hostnqn, retained);
	if (err == 0)
		err = name(out, version, retained, hostnqn, subnqn, context);
	if (err == 0)
		err = derive(out->hash, retained, "nvme-tls-psk", context, out->key);
	explicit_bzero(retained, sizeof(retained));
	return err;
}
