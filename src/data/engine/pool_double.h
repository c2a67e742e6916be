/* pool_double.h: the store's interface over plain arrays, for tests of the rooms above it until the store is there. */
#ifndef OXBOW_DATA_ENGINE_POOL_DOUBLE_H
#define OXBOW_DATA_ENGINE_POOL_DOUBLE_H

#include "data/store/pool.h"

struct pool *pool_double_new(const char *name);
void pool_double_free(struct pool *pool);
struct uuid pool_double_volume(struct pool *pool, const char *name, uint64_t size_bytes, uint32_t lba_bytes);
void pool_double_snapshot(struct pool *pool, const struct uuid *volume_id, const char *name);
void pool_double_remove(struct pool *pool, const struct uuid *id);
void pool_double_grow(struct pool *pool, const struct uuid *id, uint64_t size_bytes);
/* The next calls that read or write fail with this (and those that open, with OXE_FAILED); 0: no more. */
void pool_double_fail(struct pool *pool, int err);
/* How many calls so far asked for durability: flushes, and what had VOL_FUA. */
uint64_t pool_double_durable(const struct pool *pool);
/* Every call waits this long first. */
void pool_double_delay(struct pool *pool, uint64_t ns);

#endif
