/*
 * frame_double.h: what the tests of the network frontends stand in: a pool "tank" of arrays with a volume "disk", engines over it,
 * in virtual time. Not part of any product binary.
 */
#ifndef OXBOW_DATA_FRONTEND_FRAME_DOUBLE_H
#define OXBOW_DATA_FRONTEND_FRAME_DOUBLE_H

#include "data/engine/engine.h"
#include "data/engine/engine_testrt.h"
#include "data/engine/pool_double.h"

#define FRAME_SIZE (8 * MiB) /* of the volume */

struct frame {
	struct rt *rt;
	struct pool *pool;
	struct engines *engines;
	struct uuid volume;
	uint32_t lba_bytes; /* its */
};

extern struct frame frame;

/* Under each of `seeds` seeds, in a frame made anew: run `fiber` until nothing can happen any more. From the second seed on what
 * arrives is cut into pieces. Everything must be given back in the end. */
void frame_run(unsigned seeds, uint32_t lba_bytes, void (*fiber)(void *arg));

#endif
