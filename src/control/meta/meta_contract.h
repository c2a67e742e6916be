/*
 * meta_contract.h: what meta.h promises, as tests that every form of the metastore must pass.
 *
 *     for (const struct meta_contract *c = meta_contracts; c->name; c++)
 *             make a new store and two clients of it, and on a fiber of their reactor: c->run(a, b);
 *
 * A promise that is broken ends the process, as CHECK does. Time is real or virtual; some promises take seconds of it.
 */
#ifndef OXBOW_CONTROL_META_META_CONTRACT_H
#define OXBOW_CONTROL_META_META_CONTRACT_H

#include "control/meta/meta.h"

/* The store keeps this many revisions of history, and has none yet. */
#define META_CONTRACT_KEEP 200

struct meta_contract {
	const char *name; /* the promise; NULL ends the table */
	void (*run)(struct meta *a, struct meta *b);
};
extern const struct meta_contract meta_contracts[];

#endif
