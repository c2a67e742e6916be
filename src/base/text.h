/* text.h: text that grows: a NUL-terminated buffer, appended to. The holder owns it: text_free, or take `data` and free() it. */
#ifndef OXBOW_BASE_TEXT_H
#define OXBOW_BASE_TEXT_H

#include "base/base.h"

struct text {
	char *data; /* NULL while empty */
	size_t len_bytes, capacity_bytes;
};

void text_add_bytes(struct text *t, const void *bytes, size_t len_bytes);
void text_add(struct text *t, const char *literal);
void text_printf(struct text *t, const char *format, ...) OX_PRINTF(2, 3);
/* The content as a string: never NULL, valid until the next append. */
const char *text_get(const struct text *t);
void text_free(struct text *t);

/* Copies `from` into `to` (of `size_bytes`), replacing every byte that is not part of well-formed UTF-8 with '?', and
 * cutting at a character's edge. What came from a disk or a kernel can then stand in JSON. */
void text_utf8(char *to, size_t size_bytes, const char *from);
/* The length in bytes of the well-formed UTF-8 character at `s` (1 to 4), 0 if there is none. Reads no byte past a NUL. */
size_t text_utf8_length(const char *s);

#endif
