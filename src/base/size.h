/*
 * size.h: sizes as people write them: "10G", "512MiB", "1.5T", "4096".
 *
 * Units are powers of 1024: K, M, G, T, P, each bare or with "iB", in either case; "B" is one byte. "GB" is refused because
 * it means 10^9 to one half of the world and 2^30 to the other.
 */
#ifndef OXBOW_BASE_SIZE_H
#define OXBOW_BASE_SIZE_H

#include "base/base.h"

#define SIZE_TEXT_MAX 16 /* "1023.9 TiB" and the NUL fit */

/* Decimal digits, an optional fraction (up to 9 digits, only with a unit above B; what is left of a byte is dropped), an
 * optional space, an optional unit. OXE_INVAL if it is anything else, OXE_RANGE if it passes 2^64 - 1. */
OX_CHECKED int size_parse(const char *text, uint64_t *bytes);
/* The shortest text with at most one decimal, rounded: "0 B", "1.5 GiB". Returns `text`. */
char *size_format(uint64_t bytes, char text[SIZE_TEXT_MAX]);

#endif
