/* text.c: see text.h. */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

static void text_reserve(struct text *t, size_t more_bytes)
{
	size_t wanted = t->len_bytes + more_bytes + 1;
	if (wanted <= t->capacity_bytes)
		return;
	t->capacity_bytes = u64_max(wanted, t->capacity_bytes * 2);
	t->data = mem_realloc(t->data, t->capacity_bytes);
}

void text_add_bytes(struct text *t, const void *bytes, size_t len_bytes)
{
	text_reserve(t, len_bytes);
	if (len_bytes)
		memcpy(t->data + t->len_bytes, bytes, len_bytes);
	t->len_bytes += len_bytes;
	t->data[t->len_bytes] = '\0';
}

void text_add(struct text *t, const char *literal)
{
	text_add_bytes(t, literal, strlen(literal));
}

void text_printf(struct text *t, const char *format, ...)
{
	va_list args, again;
	assert(format);
	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	assert(n >= 0);
	text_reserve(t, (size_t)n);
	vsnprintf(t->data + t->len_bytes, (size_t)n + 1, format, again);
	va_end(again);
	t->len_bytes += (size_t)n;
}

const char *text_get(const struct text *t)
{
	return t->data ? t->data : "";
}

void text_free(struct text *t)
{
	free(t->data);
	*t = (struct text){0};
}

static bool is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* By the table of RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF. */
size_t text_utf8_length(const char *s)
{
	unsigned char a = (unsigned char)s[0], b = a ? (unsigned char)s[1] : 0;
	if (a == 0)
		return 0;
	if (a < 0x80)
		return 1;
	if (a < 0xc2 || a > 0xf4 || !is_continuation(s[1]))
		return 0;
	if (a < 0xe0)
		return 2;
	if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b > 0x9f) || !is_continuation(s[2]))
		return 0;
	if (a < 0xf0)
		return 3;
	if ((a == 0xf0 && b < 0x90) || (a == 0xf4 && b > 0x8f) || !is_continuation(s[3]))
		return 0;
	return 4;
}

void text_utf8(char *to, size_t size_bytes, const char *from)
{
	size_t used = 0;
	while (*from) {
		size_t n = text_utf8_length(from);
		if (used + (n ? n : 1) >= size_bytes)
			break;
		memcpy(to + used, n ? from : "?", n ? n : 1);
		used += n ? n : 1;
		from += n ? n : 1;
	}
	to[used] = '\0';
}
