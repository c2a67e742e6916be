/* hist.c: see hist.h. Values 0..3 have a bucket each; from 4 on, bucket = 4 * (exponent - 1) + the two bits below the top. */
#include "base/hist.h"

static unsigned bucket_of(uint64_t value)
{
	if (value < 4)
		return (unsigned)value;
	unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
	unsigned index = 4 * (exponent - 1) + (unsigned)(value >> (exponent - 2) & 3);
	return index < HIST_BUCKETS ? index : HIST_BUCKETS - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	h->buckets[bucket_of(value)]++;
}

uint64_t hist_bucket_limit(unsigned index)
{
	if (index < 4)
		return index;
	unsigned exponent = index / 4 + 1;
	uint64_t low = (uint64_t)(4 + index % 4) << (exponent - 2);
	return low + ((uint64_t)1 << (exponent - 2)) - 1;
}

uint64_t hist_quantile(const struct hist *h, unsigned permille)
{
	uint64_t wanted = u64_div_up(h->count * permille, 1000);
	uint64_t seen = 0;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= wanted && seen > 0)
			return hist_bucket_limit(i);
	}
	return 0;
}
