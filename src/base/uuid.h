/* uuid.h: 16 bytes that name things for ever; RFC 9562 text form, lower case. Randomness comes from the caller. */
#ifndef OXBOW_BASE_UUID_H
#define OXBOW_BASE_UUID_H

#include "base/base.h"

#define UUID_TEXT_LEN 36 /* without the final NUL */

struct uuid {
	uint8_t b[16];
};

static_assert(sizeof(struct uuid) == 16, "a uuid is 16 bytes on disk");

/* Make a version 4 uuid out of 16 random bytes. */
struct uuid uuid_from_random(const uint8_t random[16]);
/* OXE_INVAL unless `text` is exactly the 36-character form (either case). */
OX_CHECKED int uuid_parse(const char *text, struct uuid *out);
/* Writes 36 characters and a NUL into `text`, and returns it. */
char *uuid_format(const struct uuid *id, char text[UUID_TEXT_LEN + 1]);
bool uuid_is_nil(const struct uuid *id);

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

#endif
