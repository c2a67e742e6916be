/* cluster_mutants.h: the bugs that can be planted in the mirror to see them caught (data/engine/mirror_impl.h). */
#ifndef OXBOW_SIM_CLUSTER_MUTANTS_H
#define OXBOW_SIM_CLUSTER_MUTANTS_H

#include "sim/pool_mutants.h"

extern const struct pool_mutant cluster_mutants[]; /* ends with number 0 */

#endif
