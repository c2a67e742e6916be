/* size.c: see size.h. */
#include "base/size.h"

#include "base/err.h"

#include <stdio.h>
#include <strings.h>

static const char unit_letters[] = "BKMGTPE";

/* The power of 1024 a unit stands for, or -1. */
static int unit_power(const char *unit)
{
	if (*unit == '\0')
		return 0;
	const char *found = strchr(unit_letters, *unit >= 'a' ? *unit - 'a' + 'A' : *unit);
	int power = found ? (int)(found - unit_letters) : -1;
	if (power < 0 || power > 5)
		return -1;
	bool ends = unit[1] == '\0';
	bool ends_ib = power > 0 && strcasecmp(unit + 1, "ib") == 0;
	return ends || ends_ib ? power : -1;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Reads digits up to `max_digits` of them; false if there is none, too many, or they overflow. */
static bool digits_read(const char **text, unsigned max_digits, uint64_t *value, unsigned *count)
{
	*value = 0;
	*count = 0;
	for (; is_digit(**text); (*text)++, (*count)++) {
		if (*count == max_digits || !u64_mul_checked(*value, 10, value) ||
		    !u64_add_checked(*value, (uint64_t)(**text - '0'), value))
			return false;
	}
	return *count > 0;
}

static uint64_t fraction_bytes(uint64_t fraction, unsigned digits, uint64_t unit)
{
	unsigned __int128 scaled = (unsigned __int128)fraction * unit;
	for (; digits > 0; digits--)
		scaled /= 10;
	return (uint64_t)scaled;
}

int size_parse(const char *text, uint64_t *bytes)
{
	uint64_t whole, fraction = 0;
	unsigned whole_digits, fraction_digits = 0;
	if (!digits_read(&text, 20, &whole, &whole_digits))
		return whole_digits ? OXE_RANGE : OXE_INVAL;
	if (*text == '.') {
		text++;
		if (!digits_read(&text, 9, &fraction, &fraction_digits))
			return OXE_INVAL;
	}
	if (*text == ' ')
		text++;
	int power = unit_power(text);
	if (power < 0 || (power == 0 && fraction_digits))
		return OXE_INVAL;
	uint64_t unit = (uint64_t)1 << (10 * power);
	if (!u64_mul_checked(whole, unit, &whole) ||
	    !u64_add_checked(whole, fraction_bytes(fraction, fraction_digits, unit), bytes))
		return OXE_RANGE;
	return 0;
}

char *size_format(uint64_t bytes, char text[SIZE_TEXT_MAX])
{
	unsigned power = 0;
	while (power < 6 && bytes >> (10 * power) >= 1024)
		power++;
	if (power == 0) {
		snprintf(text, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
		return text;
	}
	unsigned __int128 unit = (unsigned __int128)1 << (10 * power);
	unsigned tenths = (unsigned)(((unsigned __int128)bytes * 10 + unit / 2) / unit);
	if (tenths >= 10240 && power < 6) {
		tenths = 10;
		power++;
	}
	if (tenths % 10)
		snprintf(text, SIZE_TEXT_MAX, "%u.%u %ciB", tenths / 10, tenths % 10, unit_letters[power]);
	else
		snprintf(text, SIZE_TEXT_MAX, "%u %ciB", tenths / 10, unit_letters[power]);
	return text;
}
