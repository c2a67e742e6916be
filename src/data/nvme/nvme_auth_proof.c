/* nvme_auth_proof.c: see nvme_auth_proof.h. */
#include "data/nvme/nvme_auth_proof.h"

#include "base/err.h"

/* The key a secret stands for: itself, or bound to the name of whoever has it. Returns its length; 0: no memory. */
static size_t key_of(const struct nvme_secret *s, const char *nqn, uint8_t key[NVME_AUTH_HASH_BYTES_MAX])
{
	static const char label[] = "NVMe-over-Fabrics";
	struct auth_part parts[] = {{nqn, strlen(nqn)}, {label, sizeof(label) - 1}};
	if (s->hash == 0) {
		memcpy(key, s->key, s->len_bytes);
		return s->len_bytes;
	}
	int err = auth_hmac(s->hash, s->key, s->len_bytes, parts, ARRAY_COUNT(parts), key);
	return err ? 0 : auth_hash_bytes(s->hash);
}

/* With a group the challenge is mixed with what only the two of them know. */
static int mix_challenge(const struct nvme_auth_proof *p, uint8_t out[NVME_AUTH_HASH_BYTES_MAX])
{
	uint8_t hashed[NVME_AUTH_HASH_BYTES_MAX];
	size_t hash_bytes = auth_hash_bytes(p->hash);
	struct auth_part part = {p->challenge, hash_bytes};
	if (!p->shared) {
		memcpy(out, p->challenge, hash_bytes);
		return 0;
	}
	int err = auth_digest(p->hash, p->shared, p->shared_bytes, hashed);
	if (err == 0)
		err = auth_hmac(p->hash, hashed, hash_bytes, &part, 1, out);
	explicit_bzero(hashed, sizeof(hashed));
	return err;
}

int nvme_auth_respond(const struct nvme_auth_proof *p, uint8_t *out)
{
	uint8_t key[NVME_AUTH_HASH_BYTES_MAX], mixed[NVME_AUTH_HASH_BYTES_MAX], zero = 0;
	const char *own = p->is_host ? p->hostnqn : p->subnqn, *other = p->is_host ? p->subnqn : p->hostnqn;
	const char *role = p->is_host ? "HostHost" : "Controller";
	le32 sequence = le32_of(p->sequence);
	le16 t_id = le16_of(p->t_id);
	struct auth_part parts[] = {
		{mixed, auth_hash_bytes(p->hash)},
		{&sequence, sizeof(sequence)},
		{&t_id, sizeof(t_id)},
		{&zero, 1}, /* no secure channel */
		{role, strlen(role)},
		{own, strlen(own)},
		{&zero, 1},
		{other, strlen(other)},
	};
	size_t key_bytes = key_of(p->secret, own, key);
	int err = key_bytes ? mix_challenge(p, mixed) : OXE_NOMEM;
	if (err == 0)
		err = auth_hmac(p->hash, key, key_bytes, parts, ARRAY_COUNT(parts), out);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(mixed, sizeof(mixed));
	return err;
}

bool nvme_auth_are_equal(const uint8_t *a, const uint8_t *b, size_t len_bytes)
{
	volatile uint8_t differ = 0;
	for (size_t i = 0; i < len_bytes; i++)
		differ = differ | (a[i] ^ b[i]);
	return differ == 0;
}

int nvme_auth_group_parse(const char *name, uint8_t *group)
{
	static const char *const names[NVME_AUTH_GROUPS] = {"null",	 "ffdhe2048", "ffdhe3072",
							    "ffdhe4096", "ffdhe6144", "ffdhe8192"};
	for (uint8_t i = 0; i < NVME_AUTH_GROUPS; i++) {
		if (strcmp(name, names[i]) == 0) {
			*group = i;
			return 0;
		}
	}
	return OXE_INVAL;
}
