/* nvme_secret.c: see nvme_secret.h. */
#include "data/nvme/nvme_secret.h"

#include "base/bytes.h"
#include "base/err.h"

#define CRC_BYTES  4
#define BINARY_MAX (NVME_SECRET_BYTES_MAX + CRC_BYTES)

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* CRC-32 (of Ethernet, not the store's CRC-32C): a few dozen bytes, now and then. */
static uint32_t crc32(const uint8_t *data, size_t len_bytes)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < len_bytes; i++) {
		crc ^= data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static int digit_of(char c)
{
	const char *at = c ? strchr(alphabet, c) : NULL;
	return at ? (int)(at - alphabet) : -1;
}

/* Four characters give up to three bytes; 0: they are no base64, or '=' is not at the end. */
static size_t quad_decode(const char *text, bool is_last, uint8_t out[3])
{
	size_t bytes = text[3] != '=' ? 3 : text[2] != '=' ? 2 : 1;
	uint32_t value = 0;
	if (bytes < 3 && !is_last)
		return 0;
	for (size_t i = 0; i < 4; i++) {
		int digit = i <= bytes ? digit_of(text[i]) : 0;
		if (digit < 0)
			return 0;
		value = value << 6 | (uint32_t)digit;
	}
	for (size_t i = 0; i < 3; i++)
		out[i] = (uint8_t)(value >> (16 - 8 * i));
	for (size_t i = bytes; i < 3; i++)
		if (out[i]) /* bits that say nothing: another text for the same secret */
			return 0;
	return bytes;
}

/* 0: it is no base64, or too long. */
static size_t base64_decode(const char *text, size_t length, uint8_t out[BINARY_MAX + 3])
{
	size_t total = 0;
	if (length % 4 != 0)
		return 0;
	for (size_t at = 0; at < length; at += 4) {
		size_t bytes = total < BINARY_MAX ? quad_decode(text + at, at + 4 == length, out + total) : 0;
		if (bytes == 0)
			return 0;
		total += bytes;
	}
	return total;
}

/* The two kinds of text differ in how they begin, and in which lengths go with which hash. */
struct form {
	const char *prefix;
	bool (*is_length)(uint8_t hash, size_t len_bytes);
};

static bool is_secret_length(uint8_t hash, size_t len_bytes)
{
	return hash <= NVME_SECRET_HASH_MAX && (len_bytes == 32 || len_bytes == 48 || len_bytes == 64);
}

/* As long as what the hash gives; without one, either. */
static bool is_tls_key_length(uint8_t hash, size_t len_bytes)
{
	return (hash <= 1 && len_bytes == 32) || ((hash == 0 || hash == 2) && len_bytes == 48);
}

static const struct form secret_form = {"DHHC-1:", is_secret_length};
static const struct form tls_key_form = {"NVMeTLSkey-1:", is_tls_key_length};

static int take_binary(const struct form *form, uint8_t hash, const uint8_t *binary, size_t bytes,
		       struct nvme_secret *out)
{
	le32 crc;
	if (bytes <= CRC_BYTES || !form->is_length(hash, bytes - CRC_BYTES))
		return OXE_INVAL;
	memcpy(&crc, binary + bytes - CRC_BYTES, sizeof(crc));
	if (le32_get(crc) != crc32(binary, bytes - CRC_BYTES))
		return OXE_INVAL;
	out->hash = hash;
	out->len_bytes = (uint8_t)(bytes - CRC_BYTES);
	memcpy(out->key, binary, out->len_bytes);
	return 0;
}

static int parse(const struct form *form, const char *text, struct nvme_secret *out)
{
	uint8_t binary[BINARY_MAX + 3];
	size_t length = strlen(text), prefix_bytes = strlen(form->prefix),
	       head_bytes = prefix_bytes + strlen("HH:");
	memset(out, 0, sizeof(*out));
	if (length <= head_bytes || length >= NVME_SECRET_TEXT_SIZE || text[length - 1] != ':' ||
	    memcmp(text, form->prefix, prefix_bytes) != 0)
		return OXE_INVAL;
	const char *hash = text + prefix_bytes;
	if (hash[0] != '0' || hash[1] < '0' || hash[1] > '9' || hash[2] != ':')
		return OXE_INVAL;
	size_t bytes = base64_decode(text + head_bytes, length - head_bytes - 1, binary);
	int err = take_binary(form, (uint8_t)(hash[1] - '0'), binary, bytes, out);
	explicit_bzero(binary, sizeof(binary));
	return err;
}

/* Whole groups of three bytes, the last one filled up; returns the end. */
static char *base64_put(char *to, const uint8_t *data, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 3) {
		uint32_t value = 0;
		for (size_t i = 0; i < 3; i++)
			value = value << 8 | (at + i < bytes ? data[at + i] : 0);
		for (size_t i = 0; i < 4; i++)
			*to++ = at + i <= bytes ? alphabet[value >> (18 - 6 * i) & 63] : '=';
	}
	return to;
}

char *nvme_base64(const uint8_t *data, size_t len_bytes, char *text)
{
	*base64_put(text, data, len_bytes) = '\0';
	return text;
}

static char *format(const struct form *form, const struct nvme_secret *s, char *text)
{
	uint8_t binary[BINARY_MAX];
	le32 crc = le32_of(crc32(s->key, s->len_bytes));
	size_t head_bytes = strlen(form->prefix) + strlen("HH:");
	assert(form->is_length(s->hash, s->len_bytes));
	memcpy(binary, s->key, s->len_bytes);
	memcpy(binary + s->len_bytes, &crc, sizeof(crc));
	strcpy(text, form->prefix);
	strcat(text, "00:");
	text[head_bytes - 2] = (char)('0' + s->hash);
	char *to = base64_put(text + head_bytes, binary, s->len_bytes + sizeof(crc));
	memcpy(to, ":", sizeof(":"));
	explicit_bzero(binary, sizeof(binary));
	return text;
}

static bool is_sound(const struct form *form, const struct nvme_secret *s)
{
	bool is_right = s->len_bytes == 0 ? s->hash == 0 : form->is_length(s->hash, s->len_bytes);
	return is_right && bytes_are_zero(s->key + s->len_bytes, sizeof(s->key) - s->len_bytes);
}

int nvme_secret_parse(const char *text, struct nvme_secret *out)
{
	return parse(&secret_form, text, out);
}

char *nvme_secret_format(const struct nvme_secret *s, char text[NVME_SECRET_TEXT_SIZE])
{
	return format(&secret_form, s, text);
}

bool nvme_secret_is_sound(const struct nvme_secret *s)
{
	return is_sound(&secret_form, s);
}

int nvme_tls_key_parse(const char *text, struct nvme_secret *out)
{
	return parse(&tls_key_form, text, out);
}

char *nvme_tls_key_format(const struct nvme_secret *s, char text[NVME_SECRET_TEXT_SIZE])
{
	return format(&tls_key_form, s, text);
}

bool nvme_tls_key_is_sound(const struct nvme_secret *s)
{
	return is_sound(&tls_key_form, s);
}
