/*
 * bytes.h: integers to and from bytes: little-endian on our disks, big-endian on NBD's wire.
 *
 * Layouts are C structs of le16/le32/le64 (byte arrays in disguise: alignment 1, no padding), so that a struct can be laid
 * over bytes from outside and a static assert can pin its size.
 */
#ifndef OXBOW_BASE_BYTES_H
#define OXBOW_BASE_BYTES_H

#include "base/base.h"

typedef struct {
	uint8_t b[2];
} le16, be16;
typedef struct {
	uint8_t b[4];
} le32, be32;
typedef struct {
	uint8_t b[8];
} le64, be64;

static_assert(sizeof(le64) == 8 && _Alignof(le64) == 1, "wire integers have no padding");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "host is little-endian: loads below are plain");

#define BYTES_DEFINE(bits)                                                                                   \
	static inline uint##bits##_t le##bits##_get(le##bits x)                                              \
	{                                                                                                    \
		uint##bits##_t v;                                                                            \
		memcpy(&v, x.b, sizeof(v));                                                                  \
		return v;                                                                                    \
	}                                                                                                    \
	static inline le##bits le##bits##_of(uint##bits##_t v)                                               \
	{                                                                                                    \
		le##bits x;                                                                                  \
		memcpy(x.b, &v, sizeof(v));                                                                  \
		return x;                                                                                    \
	}                                                                                                    \
	static inline uint##bits##_t be##bits##_get(be##bits x)                                              \
	{                                                                                                    \
		uint##bits##_t v;                                                                            \
		memcpy(&v, x.b, sizeof(v));                                                                  \
		return __builtin_bswap##bits(v);                                                             \
	}                                                                                                    \
	static inline be##bits be##bits##_of(uint##bits##_t v)                                               \
	{                                                                                                    \
		be##bits x;                                                                                  \
		v = __builtin_bswap##bits(v);                                                                \
		memcpy(x.b, &v, sizeof(v));                                                                  \
		return x;                                                                                    \
	}

BYTES_DEFINE(16)
BYTES_DEFINE(32)
BYTES_DEFINE(64)
#undef BYTES_DEFINE

/* True if all `len_bytes` bytes are zero. */
static inline bool bytes_are_zero(const void *data, size_t len_bytes)
{
	const char *p = data;
	return len_bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, len_bytes - 1) == 0);
}

#endif
