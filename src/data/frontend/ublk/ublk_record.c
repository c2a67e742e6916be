/* ublk_record.c: see ublk_record.h. What is read was written by us, or by a person, or by a broken disk: each field is checked. */
#include "data/frontend/ublk/ublk_record.h"

#include "base/err.h"
#include "data/frontend/ublk/ublk.h"

#define HEAD	    "oxbow-ublk "
#define VERSION	    "1"
#define MAGIC	    0x4fu
#define MARK_SHIFT  56
#define OWNER_BITS  20
#define OWNER_SHIFT 36

void ublk_record_begin(struct text *out)
{
	text_add(out, HEAD VERSION "\n");
}

void ublk_record_add(struct text *out, const struct ublk_line *line)
{
	char id[UUID_TEXT_LEN + 1];
	text_printf(out, "%s ", uuid_format(&line->id, id));
	if (line->number == UBLK_NO_NUMBER)
		text_add(out, "-");
	else
		text_printf(out, "%u", line->number);
	text_printf(out, " %s %s\n", line->leaving ? "leaving" : "attached", *line->name ? line->name : "-");
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* The next word, up to `end`, into a buffer; false if there is none or it does not fit. */
static bool word_take(const char **at, char end, char *out, size_t out_bytes)
{
	size_t len = 0;
	while ((*at)[len] && (*at)[len] != ' ' && (*at)[len] != '\n')
		len++;
	if (len == 0 || len >= out_bytes || (*at)[len] != end)
		return false;
	memcpy(out, *at, len);
	out[len] = '\0';
	*at += len + 1;
	return true;
}

int ublk_record_open(const char **at)
{
	char version[8];
	if (strncmp(*at, HEAD, strlen(HEAD)) != 0)
		return OXE_CORRUPT;
	*at += strlen(HEAD);
	if (!word_take(at, '\n', version, sizeof(version)))
		return OXE_CORRUPT;
	return strcmp(version, VERSION) == 0 ? 0 : OXE_VERSION;
}

static bool number_parse(const char *text, uint32_t *out)
{
	uint64_t number = 0;
	if (strcmp(text, "-") == 0) {
		*out = UBLK_NO_NUMBER;
		return true;
	}
	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9')
			return false;
		number = number * 10 + (uint64_t)(*p - '0');
	}
	*out = (uint32_t)number;
	return number < UBLK_NO_NUMBER;
}

/* [POOL/]VOLUME[@SNAPSHOT] of the bytes names may have, so that it is safe in a path. */
static bool name_is_sane(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/@";
	return name[strspn(name, allowed)] == '\0' && !strstr(name, "..") && *name != '/';
}

static bool want_parse(const char *text, bool *leaving)
{
	*leaving = strcmp(text, "leaving") == 0;
	return *leaving || strcmp(text, "attached") == 0;
}

int ublk_record_next(const char **at, struct ublk_line *out)
{
	char id[UUID_TEXT_LEN + 1], number[11], want[16];
	if (!**at)
		return OXE_NOENT;
	*out = (struct ublk_line){0};
	if (!word_take(at, ' ', id, sizeof(id)) || uuid_parse(id, &out->id) ||
	    !word_take(at, ' ', number, sizeof(number)) || !number_parse(number, &out->number) ||
	    !word_take(at, ' ', want, sizeof(want)) || !want_parse(want, &out->leaving) ||
	    !word_take(at, '\n', out->name, sizeof(out->name)) || !name_is_sane(out->name))
		return OXE_CORRUPT;
	if (strcmp(out->name, "-") == 0)
		out->name[0] = '\0';
	return 0;
}

/* ---- marks ----------------------------------------------------------------------------------------------------------- */

/* The finisher of splitmix64: every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t owner_part(const char *identity)
{
	uint64_t x = 0;
	for (const char *p = identity; *p; p++)
		x = mix(x ^ (uint8_t)*p);
	return ((uint64_t)MAGIC << MARK_SHIFT) | ((x & (((uint64_t)1 << OWNER_BITS) - 1)) << OWNER_SHIFT);
}

uint64_t ublk_mark(const char *identity, const struct uuid *id)
{
	uint64_t x = 0;
	for (size_t i = 0; i < sizeof(id->b); i++)
		x = mix(x ^ id->b[i]);
	return owner_part(identity) | (x & (((uint64_t)1 << OWNER_SHIFT) - 1));
}

bool ublk_mark_is_ours(const char *identity, uint64_t mark)
{
	return mark >> OWNER_SHIFT == owner_part(identity) >> OWNER_SHIFT;
}
