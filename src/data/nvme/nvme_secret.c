/* nvme_secret.c: see nvme_secret.h. */
#include "data/nvme/nvme_secret.h"

#include "base/bytes.h"
#include "base/err.h"

#define PREFIX	     "DHHC-1:"
#define CRC_BYTES    4
#define BINARY_MAX   (NVME_SECRET_BYTES_MAX + CRC_BYTES)
#define PREFIX_BYTES (sizeof(PREFIX) - 1)
#define HEAD_BYTES   (PREFIX_BYTES + 3) /* with "HH:" */

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

static bool is_length(size_t len_bytes)
{
	return len_bytes == 32 || len_bytes == 48 || len_bytes == 64;
}

static int take_binary(const uint8_t *binary, size_t bytes, struct nvme_secret *out)
{
	le32 crc;
	if (bytes <= CRC_BYTES || !is_length(bytes - CRC_BYTES))
		return OXE_INVAL;
	memcpy(&crc, binary + bytes - CRC_BYTES, sizeof(crc));
	if (le32_get(crc) != crc32(binary, bytes - CRC_BYTES))
		return OXE_INVAL;
	out->len_bytes = (uint8_t)(bytes - CRC_BYTES);
	memcpy(out->key, binary, out->len_bytes);
	return 0;
}

int nvme_secret_parse(const char *text, struct nvme_secret *out)
{
	uint8_t binary[BINARY_MAX + 3];
	size_t length = strlen(text);
	memset(out, 0, sizeof(*out));
	if (length <= HEAD_BYTES || length >= NVME_SECRET_TEXT_SIZE || text[length - 1] != ':' ||
	    memcmp(text, PREFIX, PREFIX_BYTES) != 0)
		return OXE_INVAL;
	const char *hash = text + PREFIX_BYTES;
	if (hash[0] != '0' || hash[1] < '0' || hash[1] > '0' + NVME_SECRET_HASH_MAX || hash[2] != ':')
		return OXE_INVAL;
	size_t bytes = base64_decode(text + HEAD_BYTES, length - HEAD_BYTES - 1, binary);
	out->hash = (uint8_t)(hash[1] - '0');
	int err = take_binary(binary, bytes, out);
	explicit_bzero(binary, sizeof(binary));
	if (err)
		memset(out, 0, sizeof(*out));
	return err;
}

char *nvme_secret_format(const struct nvme_secret *s, char text[NVME_SECRET_TEXT_SIZE])
{
	uint8_t binary[BINARY_MAX + 3] = {0};
	le32 crc = le32_of(crc32(s->key, s->len_bytes));
	size_t bytes = s->len_bytes + sizeof(crc);
	assert(is_length(s->len_bytes) && s->hash <= NVME_SECRET_HASH_MAX);
	memcpy(binary, s->key, s->len_bytes);
	memcpy(binary + s->len_bytes, &crc, sizeof(crc));
	memcpy(text, PREFIX "00:", HEAD_BYTES);
	text[HEAD_BYTES - 2] = (char)('0' + s->hash);
	char *to = text + HEAD_BYTES;
	for (size_t at = 0; at < bytes; at += 3) {
		uint32_t value = (uint32_t)binary[at] << 16 | (uint32_t)binary[at + 1] << 8 | binary[at + 2];
		for (size_t i = 0; i < 4; i++)
			*to++ = at + i <= bytes ? alphabet[value >> (18 - 6 * i) & 63] : '=';
	}
	memcpy(to, ":", sizeof(":"));
	explicit_bzero(binary, sizeof(binary));
	return text;
}

bool nvme_secret_is_sound(const struct nvme_secret *s)
{
	bool is_right = s->len_bytes == 0 ? s->hash == 0 : is_length(s->len_bytes);
	return is_right && s->hash <= NVME_SECRET_HASH_MAX &&
	       bytes_are_zero(s->key + s->len_bytes, sizeof(s->key) - s->len_bytes);
}
