/* u32map.c: linear probing; removal shifts the cluster back, so there are no tombstones. See u32map.h. */
#include "base/u32map.h"

#include "base/prng.h"

#define EMPTY UINT32_MAX

static uint32_t slot_of(const struct u32map *m, uint32_t key)
{
	return (uint32_t)hash_u64(key) & (m->capacity - 1);
}

static uint32_t find_slot(const struct u32map *m, uint32_t key)
{
	uint32_t i = slot_of(m, key);
	while (m->slots[i].key != EMPTY && m->slots[i].key != key)
		i = (i + 1) & (m->capacity - 1);
	return i;
}

static void grow(struct u32map *m)
{
	struct u32map old = *m;
	m->capacity = old.capacity ? old.capacity * 2 : 16;
	m->slots = mem_alloc(m->capacity * sizeof(*m->slots));
	for (uint32_t i = 0; i < m->capacity; i++)
		m->slots[i].key = EMPTY;
	for (uint32_t i = 0; i < old.capacity; i++) {
		if (old.slots[i].key != EMPTY)
			m->slots[find_slot(m, old.slots[i].key)] = old.slots[i];
	}
	free(old.slots);
}

void u32map_free(struct u32map *m)
{
	free(m->slots);
	*m = (struct u32map){0};
}

void u32map_put(struct u32map *m, uint32_t key, uint32_t value)
{
	assert(key != EMPTY);
	if (m->count * 2 >= m->capacity)
		grow(m);
	uint32_t i = find_slot(m, key);
	m->count += m->slots[i].key == EMPTY;
	m->slots[i].key = key;
	m->slots[i].value = value;
}

bool u32map_get(const struct u32map *m, uint32_t key, uint32_t *value)
{
	if (m->count == 0)
		return false;
	uint32_t i = find_slot(m, key);
	if (m->slots[i].key == EMPTY)
		return false;
	if (value)
		*value = m->slots[i].value;
	return true;
}

bool u32map_remove(struct u32map *m, uint32_t key)
{
	if (m->count == 0)
		return false;
	uint32_t hole = find_slot(m, key);
	if (m->slots[hole].key == EMPTY)
		return false;
	m->count--;
	uint32_t mask = m->capacity - 1;
	for (uint32_t i = (hole + 1) & mask; m->slots[i].key != EMPTY; i = (i + 1) & mask) {
		uint32_t home = slot_of(m, m->slots[i].key);
		if (((i - home) & mask) >= ((i - hole) & mask)) { /* it may live in the hole */
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole].key = EMPTY;
	return true;
}
