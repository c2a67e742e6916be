/* uuid.c: see uuid.h. */
#include "base/uuid.h"

#include "base/err.h"

static const char hex_digits[] = "0123456789abcdef";

struct uuid uuid_from_random(const uint8_t random[16])
{
	struct uuid id;
	memcpy(id.b, random, sizeof(id.b));
	id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40); /* version 4 */
	id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80); /* variant 10 */
	return id;
}

/* A dash stands before these byte positions of the text form. */
static bool dash_before(size_t byte_index)
{
	return byte_index == 4 || byte_index == 6 || byte_index == 8 || byte_index == 10;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_parse(const char *text, struct uuid *out)
{
	struct uuid id;
	for (size_t i = 0; i < sizeof(id.b); i++) {
		if (dash_before(i) && *text++ != '-')
			return OXE_INVAL;
		int high = hex_value(text[0]);
		int low = high < 0 ? -1 : hex_value(text[1]);
		if (low < 0)
			return OXE_INVAL;
		id.b[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text != '\0')
		return OXE_INVAL;
	*out = id;
	return 0;
}

char *uuid_format(const struct uuid *id, char text[UUID_TEXT_LEN + 1])
{
	char *p = text;
	for (size_t i = 0; i < sizeof(id->b); i++) {
		if (dash_before(i))
			*p++ = '-';
		*p++ = hex_digits[id->b[i] >> 4];
		*p++ = hex_digits[id->b[i] & 15];
	}
	*p = '\0';
	return text;
}

bool uuid_is_nil(const struct uuid *id)
{
	static const struct uuid nil;
	return uuid_equal(id, &nil);
}
