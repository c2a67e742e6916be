/*
 * pool_value.h: what the simulated clients write: sectors that say who they are.
 *
 * Each 512-byte sector carries a magic, its tag (one for each write, never reused: the volume's serial and a version) and the
 * sector number it was written to, and the rest follows from these. So a byte that belongs somewhere else, or to another
 * time, or to half a sector, is known for what it is. Tag 0 is all zeroes.
 */
#ifndef OXBOW_SIM_POOL_VALUE_H
#define OXBOW_SIM_POOL_VALUE_H

#include "base/base.h"

#define VALUE_BYTES 512u

static inline uint64_t value_tag(uint64_t volume_serial, uint64_t version)
{
	return volume_serial << 40 | version;
}

/* Fill `count` sectors that go to sector `first` and on. */
void value_fill(void *data, uint64_t first, uint64_t count, uint64_t tag);
bool value_is(const void *sector, uint64_t number, uint64_t tag);
/* The tag a sector claims to have; 0 for zeroes and for what is none of ours. */
uint64_t value_tag_of(const void *sector);
/* "version 17 of volume 3, sector 40", "zeroes", "garbage" ... */
void value_describe(const void *sector, char *text, size_t size_bytes);

#endif
