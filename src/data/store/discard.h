/*
 * discard.h: space that became free goes back to the device: to the file system under a sparse file, to the flash of an SSD.
 *
 *     free, usable ---- discard_add: to be discarded ---- held (nobody is given it) ---- discarded ----> free, usable
 *                            |
 *                            '-- given out meanwhile: nothing is done, it is in use
 *
 * It is advice, in the background and never in a hurry: freed space rests a while, so that what is used again at once is never
 * discarded and neighbours come together, and longer while clients allocate and free; one request is under way at a time, and the
 * device is left alone for nine times as long as it took. Nothing of it is durable or needs to be: nobody assumes anything of a free cluster's content (S1), and S4 has
 * passed before a cluster comes here. What had not been discarded at a crash is not, unless it is freed once more by the replay.
 */
#ifndef OXBOW_DATA_STORE_DISCARD_H
#define OXBOW_DATA_STORE_DISCARD_H

#include "data/store/store.h"

struct discard;

struct discard *discard_new(struct pool *pool);
void discard_free(struct discard *d);
void discard_start(struct discard *d);
void discard_stop(struct discard *d); /* waits for the request under way. Suspends. */
void discard_fail(struct discard *d); /* the pool has failed */
/* The cluster became usable. Costs a bit. Does not suspend. */
void discard_add(struct discard *d, uint32_t cluster);
/* A cluster went into quarantine: have it come out, though nobody needs it. Does not suspend. */
void discard_expect(struct discard *d);
uint64_t discard_bytes(const struct discard *d); /* so far */

#endif
