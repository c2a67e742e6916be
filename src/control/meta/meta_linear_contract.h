/*
 * meta_linear_contract.h: was a register one register? Given what clients asked and were answered, and when, is there an order of single
 * moments, each between call and answer, in which a plain variable would have given the same answers?
 */
#ifndef OXBOW_CONTROL_META_META_LINEAR_CONTRACT_H
#define OXBOW_CONTROL_META_META_LINEAR_CONTRACT_H

#include "base/base.h"

enum linear_kind {
	LINEAR_READ,	/* found `value` */
	LINEAR_SWAP,	/* from `expected` to `value`: done */
	LINEAR_DIFFERS, /* a swap whose compare did not hold */
	LINEAR_UNKNOWN, /* a swap: done at any time after the call, or never */
	LINEAR_OR_NOT,	/* a swap: done before the answer, or never */
};

struct linear_op {
	enum linear_kind kind;
	uint32_t expected, value; /* 0: absent; every other value is written by one swap only */
	uint64_t called, answered;
};

#define LINEAR_MAX_OPS 64

/* The register is absent at first. Of two operations with equal times either may be first. */
bool linear_check(const struct linear_op *ops, size_t count);

#endif
