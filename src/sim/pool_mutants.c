/* pool_mutants.c: see pool_mutants.h. */
#include "sim/pool_mutants.h"

unsigned mutant_active;

const struct pool_mutant pool_mutants[] = {
	{0, NULL},
};
