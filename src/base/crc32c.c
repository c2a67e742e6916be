/*
 * crc32c.c: by the CPU's crc32 instruction where there is one, else by table.
 *
 * The instruction has a latency of three cycles and a throughput of one, so a 4 KiB page is done as three streams that are
 * folded together at the end: the fold multiplies a stream's CRC by x^(8*n), by table. The tables are made before main().
 */
#include "base/crc32c.h"

#define POLY	     0x82F63B78u
#define STREAM_BYTES 1360u /* three streams and a 16-byte tail make a 4 KiB page; a multiple of 8 */

static uint32_t byte_table[256];
static uint32_t shift_table[4][256]; /* CRC state byte k = v advanced over STREAM_BYTES zero bytes */

static uint32_t advance_zeroes(uint32_t crc, size_t len_bytes)
{
	while (len_bytes-- > 0)
		crc = byte_table[crc & 0xff] ^ (crc >> 8);
	return crc;
}

__attribute__((constructor)) static void tables_make(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? POLY : 0);
		byte_table[i] = crc;
	}
	uint32_t advanced_bit[32]; /* a CRC is linear: 32 single bits give every value */
	for (uint32_t bit = 0; bit < 32; bit++)
		advanced_bit[bit] = advance_zeroes(1u << bit, STREAM_BYTES);
	for (uint32_t i = 0; i < 4 * 256; i++) {
		for (uint32_t bit = 0; bit < 8; bit++) {
			if (i >> bit & 1)
				shift_table[i / 256][i % 256] ^= advanced_bit[i / 256 * 8 + bit];
		}
	}
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len_bytes)
{
	const uint8_t *p = data;
	crc = ~crc;
	for (size_t i = 0; i < len_bytes; i++)
		crc = byte_table[(crc ^ p[i]) & 0xff] ^ (crc >> 8);
	return ~crc;
}

#if defined(__x86_64__)

static uint64_t load_u64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t shift_stream(uint32_t crc)
{
	return shift_table[0][crc & 0xff] ^ shift_table[1][(crc >> 8) & 0xff] ^
	       shift_table[2][(crc >> 16) & 0xff] ^ shift_table[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_three_streams(uint32_t crc, const uint8_t *p)
{
	uint64_t a = crc, b = 0, c = 0;
	for (size_t i = 0; i < STREAM_BYTES; i += 8) {
		a = __builtin_ia32_crc32di(a, load_u64(p + i));
		b = __builtin_ia32_crc32di(b, load_u64(p + STREAM_BYTES + i));
		c = __builtin_ia32_crc32di(c, load_u64(p + 2 * STREAM_BYTES + i));
	}
	return shift_stream(shift_stream((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p,
							       size_t len_bytes)
{
	crc = ~crc;
	for (; len_bytes >= 3 * STREAM_BYTES; len_bytes -= 3 * STREAM_BYTES) {
		crc = crc32c_three_streams(crc, p);
		p += 3 * STREAM_BYTES;
	}
	for (; len_bytes >= 8; len_bytes -= 8, p += 8)
		crc = (uint32_t)__builtin_ia32_crc32di(crc, load_u64(p));
	for (; len_bytes > 0; len_bytes--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len_bytes)
{
	if (!__builtin_cpu_supports("sse4.2"))
		return crc32c_portable(crc, data, len_bytes);
	return crc32c_sse42(crc, data, len_bytes);
}

#else

uint32_t crc32c(uint32_t crc, const void *data, size_t len_bytes)
{
	return crc32c_portable(crc, data, len_bytes);
}

#endif

uint32_t crc32c_around(const void *data, size_t len_bytes, size_t field_offset)
{
	static const uint8_t no_crc[4];
	const uint8_t *p = data;
	size_t after = field_offset + sizeof(no_crc);
	uint32_t crc = crc32c(crc32c(0, p, field_offset), no_crc, sizeof(no_crc));
	return crc32c(crc, p + after, len_bytes - after);
}
