/*
 * pool_mutants.h: the bugs that can be planted in the store to see them caught.
 *
 * Where the store does something that must not be left out, MUTANT(n) stands beside it and leaves it out
 * (data/store/store.h). In a product it is the constant false; a build with OXBOW_MUTANTS asks which one is active.
 */
#ifndef OXBOW_SIM_POOL_MUTANTS_H
#define OXBOW_SIM_POOL_MUTANTS_H

#include "base/base.h"

struct pool_mutant {
	unsigned number;
	const char *text;
	bool rare; /* caught only after a long search: left to --rare */
};
extern const struct pool_mutant pool_mutants[]; /* ends with number 0 */
extern unsigned mutant_active;			/* 0: none */

#endif
