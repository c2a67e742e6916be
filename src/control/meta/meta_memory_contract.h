/*
 * meta_memory_contract.h: runs of the memory form under a seed, each with a property that must hold whatever the network does. A
 * property that does not hold ends the process and names the seed. meta_memory_test runs many, meta_mutants_test with bugs planted.
 */
#ifndef OXBOW_CONTROL_META_META_MEMORY_CONTRACT_H
#define OXBOW_CONTROL_META_META_MEMORY_CONTRACT_H

#include "base/base.h"

/* Every contract of meta_contract.h, over a network with delays and no losses. */
void memory_run_contracts(uint64_t seed);
/* Clients read and swap two keys under every fault: each key is one register (meta_linear_contract.h). *unknown is how many
 * outcomes were unknown. Returns a hash of all that was asked and answered, and when. */
uint64_t memory_run_registers(uint64_t seed, unsigned *unknown);
/* Watches over lost requests, lost answers, partitions and outages see just what happened. Returns how often they were cut. */
unsigned memory_run_watches(uint64_t seed);
/* Clients that hold a key by a lease, and are delayed, cut off and killed: no two are ever sure to hold it at once. Returns how
 * often one came to hold it. */
unsigned memory_run_locks(uint64_t seed);

#endif
