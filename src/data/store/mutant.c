/* mutant.c: the table of mutant.h. */
#include "data/store/mutant.h"

const struct mutant_row mutant_rows[] = {
#define MUTANT_ROW(name, text) {#name, text},
	MUTANTS(MUTANT_ROW)
#undef MUTANT_ROW
		{NULL, NULL},
};

#ifdef OXBOW_MUTANTS
const bool mutants_are_built = true;
#else
const bool mutants_are_built = false;
#endif
uint32_t mutant_chosen;
