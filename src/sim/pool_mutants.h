/*
 * pool_mutants.h: the bugs that can be planted in the store to see them caught.
 *
 * base/mutant.h says how they are planted.
 */
#ifndef OXBOW_SIM_POOL_MUTANTS_H
#define OXBOW_SIM_POOL_MUTANTS_H

#include "base/base.h"
#include "base/mutant.h"

struct pool_mutant {
	unsigned number;
	const char *text;
	bool rare; /* caught only after a long search: left to --rare */
};
extern const struct pool_mutant pool_mutants[]; /* ends with number 0 */

#endif
