/* vol.h: what vol.c, write.c, zero.c and volume.c share about open handles. */
#ifndef OXBOW_DATA_STORE_VOL_H
#define OXBOW_DATA_STORE_VOL_H

#include "data/store/readahead.h"
#include "data/store/resolve.h"
#include "data/store/store.h"

/* A handle is on a volume (reads and writes its head, whichever that is) or on a sealed layer. */
struct vol {
	struct pool *pool;
	struct volume *volume; /* NULL for a snapshot */
	struct layer *layer;   /* NULL for a volume */
	struct vol_info info;
	struct rt_group calls; /* under way */
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint32_t stream_clock;
	uint32_t reading; /* reads of the handle's user under way */
};

/* Checks every door: range, alignment, failed pool. 0 or OXE_RANGE, OXE_ALIGN, OXE_FAILED, OXE_ROFS. */
OX_CHECKED int vol_check(const struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, bool write);
struct layer *vol_top(void *vol);

/* Writers of one volume pass a gate; sealing the head closes it and waits for those inside. Suspend. */
void gate_enter(struct volume *v);
void gate_leave(struct volume *v);
void gate_close(struct volume *v);
void gate_open(struct volume *v);

/* One cluster's share of [offset, offset + len). */
struct cut {
	uint32_t index;
	uint32_t offset_bytes, len_bytes; /* inside the cluster */
	uint16_t mask;			  /* blocks touched, also in part */
	bool whole_blocks;
};
struct cut cut_at(uint64_t offset_bytes, uint64_t len_bytes);

/* Blocks first..last inclusive. */
static inline uint16_t block_mask(unsigned first, unsigned last)
{
	return (uint16_t)(((2u << last) - 1) & ~((1u << first) - 1));
}

/* Several device requests, waited for together. */
struct batch_io {
	struct rt_io io;
	struct io_batch *batch;
};
struct io_batch {
	struct batch_io *ios;
	uint32_t count, capacity;
	struct rt_group group;
	int err; /* the first error */
};
/* `ios` is the caller's array. Neighbours on disk and in memory become one request. Does not suspend. */
void io_batch_init(struct io_batch *b, struct batch_io *ios, uint32_t capacity);
void io_batch_add(struct io_batch *b, struct rt_disk *disk, enum rt_io_op op, void *data,
		  uint64_t offset_bytes, uint64_t len_bytes, unsigned flags);
void io_batch_submit(struct io_batch *b);
int io_batch_wait(struct io_batch *b); /* Suspends. Each io's own result is in ios[].io. */

/* Read blocks of one cluster as readers of the chain see them, into cluster-relative places of `data` (a whole cluster).
 * Suspends. */
OX_CHECKED int cluster_read(struct pool *pool, resolve_top_fn *top, void *ctx, uint32_t index, uint16_t mask,
			    uint8_t *data);

/* Read what is stored, aligned for the device and in range. Suspends. */
OX_CHECKED int vol_read_stored(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes);

#endif
