/*
 * hist.h: a histogram of durations, 4 buckets to each power of two: a value is known within 19 %. Adding costs a few
 * instructions; merging and reading are for whoever reports.
 */
#ifndef OXBOW_BASE_HIST_H
#define OXBOW_BASE_HIST_H

#include "base/base.h"

#define HIST_BUCKETS 160 /* covers up to 2^40 ns, 18 minutes; larger values count in the last */

struct hist {
	uint64_t count, sum;
	uint64_t buckets[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t value);
/* The least upper bound of a bucket below which at least `permille` / 1000 of the values lie; 0 if empty. */
uint64_t hist_quantile(const struct hist *h, unsigned permille);
/* The largest value bucket `index` counts, inclusive. */
uint64_t hist_bucket_limit(unsigned index);

#endif
