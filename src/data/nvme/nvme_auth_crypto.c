/*
 * nvme_auth_crypto.c: see nvme_auth_crypto.h. Hashes and the primes are GnuTLS's, the exponentiation is GMP's, in time that does
 * not depend on the exponent.
 */
#include "data/nvme/nvme_auth_crypto.h"

#include "base/err.h"

#include <gmp.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

static_assert((int)GNUTLS_MAC_SHA256 == (int)GNUTLS_DIG_SHA256, "a hash and its HMAC have one number");

static const gnutls_datum_t *prime_of(uint8_t group)
{
	switch (group) {
	case NVME_AUTH_FFDHE2048:
		return &gnutls_ffdhe_2048_group_prime;
	case NVME_AUTH_FFDHE3072:
		return &gnutls_ffdhe_3072_group_prime;
	case NVME_AUTH_FFDHE4096:
		return &gnutls_ffdhe_4096_group_prime;
	case NVME_AUTH_FFDHE6144:
		return &gnutls_ffdhe_6144_group_prime;
	case NVME_AUTH_FFDHE8192:
		return &gnutls_ffdhe_8192_group_prime;
	default:
		return NULL;
	}
}

size_t auth_group_bytes(uint8_t group)
{
	static const uint16_t bytes[NVME_AUTH_GROUPS] = {0, 256, 384, 512, 768, 1024};
	return group < NVME_AUTH_GROUPS ? bytes[group] : 0;
}

size_t auth_hash_bytes(uint8_t hash)
{
	static const uint8_t bytes[] = {0, 32, 48, 64};
	return hash < ARRAY_COUNT(bytes) ? bytes[hash] : 0;
}

static gnutls_mac_algorithm_t algorithm_of(uint8_t hash)
{
	static const gnutls_mac_algorithm_t algorithms[] = {
		[NVME_AUTH_SHA256] = GNUTLS_MAC_SHA256,
		[NVME_AUTH_SHA384] = GNUTLS_MAC_SHA384,
		[NVME_AUTH_SHA512] = GNUTLS_MAC_SHA512,
	};
	assert(auth_hash_bytes(hash) > 0);
	return algorithms[hash];
}

int auth_digest(uint8_t hash, const void *data, size_t len_bytes, uint8_t *out)
{
	gnutls_digest_algorithm_t algorithm = (gnutls_digest_algorithm_t)algorithm_of(hash);
	return gnutls_hash_fast(algorithm, data, len_bytes, out) ? OXE_NOMEM : 0;
}

int auth_hmac(uint8_t hash, const void *key, size_t key_bytes, const struct auth_part *parts,
	      size_t part_count, uint8_t *out)
{
	gnutls_hmac_hd_t h;
	if (gnutls_hmac_init(&h, algorithm_of(hash), key, key_bytes))
		return OXE_NOMEM;
	int error = 0;
	for (size_t i = 0; error == 0 && i < part_count; i++)
		if (parts[i].len_bytes > 0)
			error = gnutls_hmac(h, parts[i].data, parts[i].len_bytes);
	gnutls_hmac_deinit(h, out);
	return error ? OXE_NOMEM : 0;
}

/* ---- groups ----------------------------------------------------------------------------------------------------------------- */

static void import(mpz_t to, const uint8_t *data, size_t len_bytes)
{
	mpz_init(to);
	mpz_import(to, len_bytes, 1, 1, 1, 0, data);
}

static void wipe(mpz_t x)
{
	size_t limbs = mpz_size(x);
	if (limbs > 0)
		explicit_bzero(mpz_limbs_modify(x, (mp_size_t)limbs), limbs * sizeof(mp_limb_t));
	mpz_clear(x);
}

/* Zeroes in front, to the length of the prime. */
static void export(const mpz_t from, size_t len_bytes, uint8_t *out)
{
	size_t bytes = mpz_sgn(from) ? (mpz_sizeinbase(from, 2) + 7) / 8 : 0;
	memset(out, 0, len_bytes);
	mpz_export(out + len_bytes - bytes, NULL, 1, 1, 1, 0, from);
}

static void power(const mpz_t base, const uint8_t exponent[AUTH_PRIVATE_BYTES], const mpz_t prime,
		  size_t len_bytes, uint8_t *out)
{
	mpz_t e, result;
	import(e, exponent, AUTH_PRIVATE_BYTES);
	mpz_setbit(e, 8 * AUTH_PRIVATE_BYTES - 1); /* never zero, and always as long */
	mpz_init(result);
	mpz_powm_sec(result, base, e, prime);
	export(result, len_bytes, out);
	wipe(e);
	wipe(result);
}

int auth_public_key(uint8_t group, const uint8_t exponent[AUTH_PRIVATE_BYTES], uint8_t *out)
{
	const gnutls_datum_t *p = prime_of(group);
	mpz_t prime, two;
	assert(p && p->size >= auth_group_bytes(group));
	import(prime, p->data, p->size);
	mpz_init_set_ui(two, 2);
	power(two, exponent, prime, auth_group_bytes(group), out);
	mpz_clear(two);
	mpz_clear(prime);
	return 0;
}

/* 2 to p - 2: the others would make the shared key a known one. */
static bool is_of_group(const mpz_t x, const mpz_t prime)
{
	mpz_t most;
	mpz_init(most);
	mpz_sub_ui(most, prime, 2);
	bool is_right = mpz_cmp_ui(x, 2) >= 0 && mpz_cmp(x, most) <= 0;
	mpz_clear(most);
	return is_right;
}

int auth_shared_key(uint8_t group, const uint8_t exponent[AUTH_PRIVATE_BYTES], const uint8_t *peer_public,
		    uint8_t *out)
{
	const gnutls_datum_t *p = prime_of(group);
	mpz_t prime, peer;
	assert(p);
	import(prime, p->data, p->size);
	import(peer, peer_public, auth_group_bytes(group));
	bool is_right = is_of_group(peer, prime);
	if (is_right)
		power(peer, exponent, prime, auth_group_bytes(group), out);
	mpz_clear(peer);
	mpz_clear(prime);
	return is_right ? 0 : OXE_INVAL;
}
