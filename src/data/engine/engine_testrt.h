/*
 * engine_testrt.h: a reactor for the tests and fuzzers of the rooms that serve volumes: virtual time, connections and
 * disks in memory.
 *
 * What arrives is cut into pieces of random length under a seed, so that every message is sooner or later seen in halves.
 * Not part of any product binary.
 */
#ifndef OXBOW_DATA_ENGINE_ENGINE_TESTRT_H
#define OXBOW_DATA_ENGINE_ENGINE_TESTRT_H

#include "rt/rt.h"

/* One at a time. `cut` lets receives return fewer bytes than there are. */
struct rt *testrt_new(uint64_t seed, bool cut);
/* Run until nothing can happen any more: no fiber ready, no timer armed, no I/O under way. */
void testrt_run(struct rt *rt);
/* All fibers must have ended. */
void testrt_free(struct rt *rt);

/* Let the process stand still: what the calling fiber does until it next waits happens meanwhile, and then so much time has
 * passed. Suspends at first. */
void testrt_freeze(struct rt *rt);
void testrt_thaw(struct rt *rt, uint64_t after_ns);

/* The next `count` calls of rt_accept find the process out of descriptors. */
void testrt_exhaust(struct rt *rt, unsigned count);

/* How many connections are open, both ends counted. */
unsigned testrt_conns(void);

#endif
