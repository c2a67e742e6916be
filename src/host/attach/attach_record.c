/* attach_record.c: see attach_record.h. What is read was written by us, or by a person, or by a broken disk: each value is checked. */
#include "host/attach/attach_record.h"

#include "base/err.h"

#include <stdio.h>

#define HEAD	       "oxbow-attachment "
#define VERSION_LINE   "1\n"
#define LINE_MAX_BYTES 1024

static const char *const phase_names[ATTACH_PHASE_COUNT] = {"intended", "made", "leaving"};
static const char *const by_names[ATTACH_BY_COUNT] = {"nvme", "ublk", "nbd"};

const char *attach_phase_name(enum attach_phase phase)
{
	return phase_names[phase];
}

const char *attach_by_name(enum attach_by by)
{
	return by_names[by];
}

static bool name_find(const char *const *names, unsigned count, const char *name, unsigned *out)
{
	for (*out = 0; *out < count; ++*out) {
		if (strcmp(names[*out], name) == 0)
			return true;
	}
	return false;
}

int attach_by_parse(const char *name, enum attach_by *out)
{
	unsigned i;
	if (!name_find(by_names, ATTACH_BY_COUNT, name, &i))
		return OXE_INVAL;
	*out = (enum attach_by)i;
	return 0;
}

/* ---- what may stand in a value --------------------------------------------------------------------------------------- */

#define NAME_BYTES "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@"

bool attach_link_is_sane(const char *link)
{
	const char *part = link;
	if (strlen(link) >= ATTACH_NAME_SIZE)
		return false;
	for (;;) {
		size_t len = strspn(part, NAME_BYTES);
		if (len == 0 || *part == '.')
			return false;
		if (!part[len])
			return true;
		if (part[len] != '/')
			return false;
		part += len + 1;
	}
}

bool attach_owner_is_sane(const char *owner)
{
	size_t len = strlen(owner);
	return len > 0 && len < ATTACH_OWNER_SIZE && owner[strspn(owner, NAME_BYTES ":/")] == '\0';
}

static bool device_is_sane(const char *device)
{
	return strncmp(device, "/dev/", 5) == 0 && attach_link_is_sane(device + 5);
}

static bool is_printable(const char *value)
{
	for (const char *p = value; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	}
	return true;
}

static bool is_path(const char *value)
{
	return *value == '/' && is_printable(value);
}

static bool is_uuid(const char *value)
{
	struct uuid id;
	return uuid_parse(value, &id) == 0;
}

/* ---- texts ----------------------------------------------------------------------------------------------------------- */

static const struct field {
	const char *word;
	size_t offset, size;
	bool (*is_sane)(const char *value);
} fields[] = {
#define FIELD(word, member, check)                                                                           \
	{                                                                                                    \
		word, offsetof(struct attach_record, member), sizeof(((struct attach_record *)0)->member),   \
			check                                                                                \
	}
	FIELD("volume", volume, is_printable),
	FIELD("link", link, attach_link_is_sane),
	FIELD("device", device, device_is_sane),
	FIELD("at", at, is_printable),
	FIELD("host-nqn", host_nqn, is_printable),
	FIELD("host-id", host_id, is_uuid),
	FIELD("secret-file", secret_file, is_path),
	FIELD("controller-secret-file", controller_secret_file, is_path),
#undef FIELD
};

void attach_record_print(const struct attach_record *r, struct text *out)
{
	char id[UUID_TEXT_LEN + 1];
	text_printf(out, HEAD VERSION_LINE "id %s\nphase %s\nby %s\n", uuid_format(&r->id, id),
		    phase_names[r->phase], by_names[r->by]);
	if (r->read_only)
		text_add(out, "read-only yes\n");
	if (r->block_size_bytes)
		text_printf(out, "block-size %u\n", r->block_size_bytes);
	for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
		const char *value = (const char *)r + fields[i].offset;
		if (*value)
			text_printf(out, "%s %s\n", fields[i].word, value);
	}
	for (unsigned i = 0; i < r->owner_count; i++)
		text_printf(out, "owner %s\n", r->owners[i]);
	text_add(out, "end\n");
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

struct seen {
	bool id, phase, by, read_only, block_size;
};

/* True once a record. */
static bool once(bool *seen)
{
	bool first = !*seen;
	*seen = true;
	return first;
}

static bool text_take(struct attach_record *r, const char *word, const char *value)
{
	for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
		const struct field *f = &fields[i];
		char *to = (char *)r + f->offset;
		if (strcmp(f->word, word) != 0)
			continue;
		if (*to || !*value || strlen(value) >= f->size || !f->is_sane(value))
			return false;
		memcpy(to, value, strlen(value) + 1);
		return true;
	}
	return false;
}

static bool block_size_take(struct attach_record *r, const char *value)
{
	uint32_t bytes = 0;
	for (const char *p = value; *p; p++) {
		if (*p < '0' || *p > '9' || bytes > ATTACH_BLOCK_SIZE_MAX)
			return false;
		bytes = bytes * 10 + (uint32_t)(*p - '0');
	}
	r->block_size_bytes = bytes;
	return bytes == 512 || bytes == ATTACH_BLOCK_SIZE_MAX;
}

static bool owner_take(struct attach_record *r, const char *value)
{
	return attach_owner_is_sane(value) && attach_owner_find(r, value) == r->owner_count &&
	       attach_owner_add(r, value) == 0;
}

static bool value_take(struct attach_record *r, struct seen *seen, const char *word, const char *value)
{
	unsigned i;
	if (strcmp(word, "id") == 0)
		return once(&seen->id) && uuid_parse(value, &r->id) == 0;
	if (strcmp(word, "phase") == 0) {
		bool known = name_find(phase_names, ATTACH_PHASE_COUNT, value, &i);
		r->phase = known ? (enum attach_phase)i : ATTACH_INTENDED;
		return known && once(&seen->phase);
	}
	if (strcmp(word, "by") == 0)
		return once(&seen->by) && attach_by_parse(value, &r->by) == 0;
	if (strcmp(word, "read-only") == 0)
		return r->read_only = once(&seen->read_only) && strcmp(value, "yes") == 0;
	if (strcmp(word, "block-size") == 0)
		return once(&seen->block_size) && block_size_take(r, value);
	if (strcmp(word, "owner") == 0)
		return owner_take(r, value);
	return text_take(r, word, value);
}

/* "word value" out of the text, up to its newline; the rest in *at. */
static bool line_take(const char **at, char line[LINE_MAX_BYTES])
{
	size_t len = strcspn(*at, "\n");
	if ((*at)[len] != '\n' || len >= LINE_MAX_BYTES)
		return false;
	memcpy(line, *at, len);
	line[len] = '\0';
	*at += len + 1;
	return true;
}

static bool is_whole(const struct attach_record *r, const struct seen *seen)
{
	return seen->id && seen->phase && seen->by && !uuid_is_nil(&r->id) && *r->volume && *r->link &&
	       r->owner_count > 0 && (r->by == ATTACH_BY_UBLK || *r->at) &&
	       (r->by != ATTACH_BY_NVME || (*r->host_nqn && *r->host_id));
}

int attach_record_parse(const char *text, struct attach_record *out)
{
	char line[LINE_MAX_BYTES], *value;
	struct seen seen = {0};
	memset(out, 0, sizeof(*out)); /* padding too: records are compared */
	if (strncmp(text, HEAD, strlen(HEAD)) != 0)
		return OXE_CORRUPT;
	text += strlen(HEAD);
	if (strncmp(text, VERSION_LINE, strlen(VERSION_LINE)) != 0)
		return strchr(text, '\n') ? OXE_VERSION : OXE_CORRUPT;
	text += strlen(VERSION_LINE);
	while (line_take(&text, line)) {
		if (strcmp(line, "end") == 0)
			return !*text && is_whole(out, &seen) ? 0 : OXE_CORRUPT;
		value = strchr(line, ' ');
		if (!value)
			return OXE_CORRUPT;
		*value++ = '\0';
		if (!value_take(out, &seen, line, value))
			return OXE_CORRUPT;
	}
	return OXE_CORRUPT;
}

/* ---- owners ---------------------------------------------------------------------------------------------------------- */

unsigned attach_owner_find(const struct attach_record *r, const char *owner)
{
	unsigned i = 0;
	while (i < r->owner_count && strcmp(r->owners[i], owner) != 0)
		i++;
	return i;
}

int attach_owner_add(struct attach_record *r, const char *owner)
{
	assert(attach_owner_is_sane(owner));
	if (attach_owner_find(r, owner) < r->owner_count)
		return 0;
	if (r->owner_count == ATTACH_OWNERS_MAX)
		return OXE_TOOBIG;
	snprintf(r->owners[r->owner_count++], ATTACH_OWNER_SIZE, "%s", owner);
	return 0;
}

void attach_owner_remove(struct attach_record *r, const char *owner)
{
	unsigned i = attach_owner_find(r, owner);
	if (i == r->owner_count)
		return;
	r->owner_count--;
	memmove(r->owners[i], r->owners[i + 1], (r->owner_count - i) * sizeof(r->owners[0]));
	memset(r->owners[r->owner_count], 0, sizeof(r->owners[0]));
}
