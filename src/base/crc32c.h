/* crc32c.h: CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4 has the vectors). */
#ifndef OXBOW_BASE_CRC32C_H
#define OXBOW_BASE_CRC32C_H

#include "base/base.h"

/* CRC of `len_bytes` bytes, continuing from `crc` (0 to start). Uses the CPU's instruction where there is one. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len_bytes);
/* CRC of a block that carries its own CRC: the 4 bytes at field_offset count as zero. */
uint32_t crc32c_around(const void *data, size_t len_bytes, size_t field_offset);
/* crc32c by table, for the test that compares the two. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len_bytes);

#endif
