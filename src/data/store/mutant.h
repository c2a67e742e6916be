/*
 * mutant.h: bugs that are planted to see them caught.
 *
 * Where the store does something that must not be left out, `if (MUTANT(NAME))` stands beside it and leaves it out. In a
 * product MUTANT() is the constant false and the compiler forgets it; built with -DOXBOW_MUTANTS it asks which of them was
 * chosen (oxbow-sim --mutants chooses each in turn, and every one must be caught: docs say which test guards which line).
 */
#ifndef OXBOW_DATA_STORE_MUTANT_H
#define OXBOW_DATA_STORE_MUTANT_H

#include "base/base.h"

/* clang-format off */
#define MUTANTS(X)                                                                                           \
	X(NONE, "nothing is planted")
/* clang-format on */

enum mutant {
#define MUTANT_ENUM(name, text) MUTANT_##name,
	MUTANTS(MUTANT_ENUM)
#undef MUTANT_ENUM
};

struct mutant_row {
	const char *name, *text;
};
extern const struct mutant_row mutant_rows[]; /* from 1; ends with a NULL name */
extern const bool mutants_are_built;
extern uint32_t mutant_chosen;

#ifdef OXBOW_MUTANTS
#define MUTANT(name) unlikely(mutant_chosen == MUTANT_##name)
#else
#define MUTANT(name) false
#endif

#endif
