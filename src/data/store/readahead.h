/*
 * readahead.h: who reads a volume from front to back finds what comes next in memory.
 *
 * A client that asks for one or two pieces at a time waits for the disk each time. After a few such reads what follows is read in larger
 * pieces, *windows*, while the client is busy with the last. Nothing is read ahead for anybody else, and nothing is kept: a window
 * goes when it has been read once, when nobody came for it, and with its handle. This is no cache.
 *
 * A window is never stale. Its bytes are those of the volume from the moment its read began until it goes, because
 *
 *     no window is begun while a write, zero or trim of the volume is under way
 *     a write, zero or trim that begins drops every window that it overlaps, also one that is being read
 *
 * and a reader copies from a window in one breath. What else moves data (merge, flatten, a snapshot) does not change what is read.
 *
 *   who owns memory   the pool, at most READAHEAD_BYTES_MAX, given back when it lies unused; while all of it is in use, nothing
 *                     more is read ahead
 *   which reactor     that of the pool
 *   errors            none: what could not be read ahead is read when it is asked for, and then says what is wrong
 */
#ifndef OXBOW_DATA_STORE_READAHEAD_H
#define OXBOW_DATA_STORE_READAHEAD_H

#include "data/store/store.h"

#define READAHEAD_BYTES_MAX (8 * MiB)
#define READAHEAD_STREAMS   4u /* readers of one handle that are told apart */

/* One reader going forward. */
struct readahead_stream {
	uint64_t next_bytes;  /* where it goes on, if it does */
	uint64_t run_bytes;   /* read in a row */
	uint64_t ahead_bytes; /* the end of what was read ahead for it */
	uint32_t used;	      /* a clock for replacement; 0: none */
};

struct readahead;
struct readahead *readahead_new(struct pool *pool);
void readahead_free(struct readahead *ra);

/* A read of the handle, aligned for the device: true if `data` was filled from windows. Begins new ones. Suspends. */
bool readahead_read(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes);
/* Inside the gate, before the first byte changes. Does not suspend. */
void readahead_changing(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes);
/* The handle goes; nobody is inside a call of it. Does not suspend. */
void readahead_forget(struct vol *vol);

uint64_t readahead_served_bytes(const struct readahead *ra);

#endif
