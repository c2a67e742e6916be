/* fuzz.h: a fuzzer's input, read from its front. What has ended reads as zeroes, so that every input is a whole program. For fuzzers only. */
#ifndef OXBOW_BASE_FUZZ_H
#define OXBOW_BASE_FUZZ_H

#include "base/base.h"

struct input {
	const uint8_t *at, *end;
};

/* A number of n bytes, the highest first. */
static inline uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;
	while (n-- > 0 && in->at < in->end)
		v = v << 8 | *in->at++;
	return v;
}

/* That many bytes. */
static inline void take_into(struct input *in, void *out, size_t n)
{
	size_t have = u64_min(n, (size_t)(in->end - in->at));
	memcpy(out, in->at, have);
	memset((uint8_t *)out + have, 0, n - have);
	in->at += have;
}

#endif
