/*
 * u32map.h: a hash map from uint32_t to uint32_t, open addressing, for sets of clusters. Key UINT32_MAX is not allowed.
 * Owns its memory; zero-fill is an empty map.
 */
#ifndef OXBOW_BASE_U32MAP_H
#define OXBOW_BASE_U32MAP_H

#include "base/base.h"

struct u32map {
	struct {
		uint32_t key, value;
	} * slots;
	uint32_t count, capacity; /* capacity: 0 or a power of two */
};

void u32map_free(struct u32map *m);
/* Sets or replaces. */
void u32map_put(struct u32map *m, uint32_t key, uint32_t value);
/* True, with the value in *value (may be NULL), if present. */
bool u32map_get(const struct u32map *m, uint32_t key, uint32_t *value);
/* True if it was there. */
bool u32map_remove(struct u32map *m, uint32_t key);

#endif
