/* replica_double.h: a copy that keeps nothing: it looks at all it is given, fills all it has to give, and answers what it is told to. For
 * tests and fuzzers. */
#ifndef OXBOW_DATA_REPLICA_REPLICA_DOUBLE_H
#define OXBOW_DATA_REPLICA_REPLICA_DOUBLE_H

#include "data/replica/replica.h"

/* `next` is asked before each answer: an OXE_ code or 0. It may suspend. */
struct replica *replica_double_new(int (*next)(void *ctx), void *ctx);
/* How many there are. */
unsigned replica_double_count(void);

#endif
