/*
 * sim_hints.h: which seed caught a planted bug the last time (tests/mutant-seeds), to be tried before all others.
 *
 * A hint makes the suite quick and proves nothing: a bug is caught by the seed it names today, or by the search, or it is missed.
 *
 * A line is "MUTANT SEED STATES", and '#' begins a comment. One process, one table; it is read once and written whole.
 */
#ifndef OXBOW_CMD_SIM_HINTS_H
#define OXBOW_CMD_SIM_HINTS_H

#include "base/base.h"

#define SIM_HINTS_MAX 1000u

struct sim_hint {
	uint32_t mutant, states; /* states: as in --states */
	uint64_t seed;		 /* 0: none */
};

/* 0, or -errno. A line that is none is -EINVAL, and *line says which. A file that does not exist is an empty one. */
OX_CHECKED int sim_hints_load(const char *path, uint32_t *line);
/* NULL: none. Valid until the next sim_hint_set. */
const struct sim_hint *sim_hint_find(uint32_t mutant);
/* False if the table is full. */
bool sim_hint_set(const struct sim_hint *hint);
/* Writes them in the order of their mutants. 0, or -errno. */
OX_CHECKED int sim_hints_save(const char *path);

#endif
