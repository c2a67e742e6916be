/*
 * meta_sqlite_contract.h: runs of the SQLite form with a disk that loses power and fails, each with a property that must hold. A property
 * that does not hold ends the process. meta_sqlite_db_test runs them, meta_mutants_test with bugs planted.
 */
#ifndef OXBOW_CONTROL_META_META_SQLITE_CONTRACT_H
#define OXBOW_CONTROL_META_META_SQLITE_CONTRACT_H

#include "base/base.h"

/* The power is cut at every operation of a run of small transactions, and at some of one of large ones that checkpoints: everything that was
 * answered is there, nothing is there in part, and the history has no gap. Returns how many images were tried. */
unsigned sqlite_run_power_cuts(uint64_t seed, bool large);
/* The same during a creation, which is then gone on with. */
unsigned sqlite_run_power_cuts_of_creation(uint64_t seed);
/* Each write, then each sync, fails in turn, also during checkpoints: what was answered is there after a power cut, what was refused is not,
 * and only what was in doubt may be either. With is_full there is no room for a write instead, and the store goes on after it. Returns how
 * many failures were tried. */
unsigned sqlite_run_device_errors(uint64_t seed, bool is_full);
/* A lease that was there when the store was closed ends after the next start, not before its whole time. In real time. */
void sqlite_run_lease_restart(void);

/* Run a function as a fiber of a new reactor of the real world, to its end. */
void sqlite_run_on_host(void (*fn)(void *arg), void *arg);
/* A new store in a new folder, under /dev/shm where there is one; and both gone again. */
struct sqlite_place {
	char folder[64], path[96];
};
void sqlite_place_new(struct sqlite_place *place);
void sqlite_place_remove(struct sqlite_place *place);

#endif
