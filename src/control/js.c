/* js.c: see js.h. The only file that knows jansson. */
#include "control/js.h"

#include "base/text.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

static struct js *wrap(json_t *value)
{
	return (struct js *)value;
}

static json_t *unwrap(const struct js *value)
{
	return (json_t *)(uintptr_t)value;
}

/* As in base.h: a daemon without a few bytes of memory stops, and restarts clean. */
static json_t *made(json_t *value)
{
	if (!value)
		abort();
	return value;
}

struct js *js_object(void)
{
	return wrap(made(json_object()));
}

struct js *js_array(void)
{
	return wrap(made(json_array()));
}

struct js *js_null(void)
{
	return wrap(json_null());
}

void js_free(struct js *value)
{
	json_decref(unwrap(value));
}

static void set(struct js *object, const char *key, json_t *value)
{
	if (json_object_set_new(unwrap(object), key, made(value)) != 0)
		abort();
}

void js_set(struct js *object, const char *key, struct js *value)
{
	set(object, key, unwrap(value));
}

static json_t *text_value(const char *text)
{
	json_t *value = json_string(text);
	if (value)
		return value;
	size_t size_bytes = strlen(text) + 1;
	char *repaired = mem_alloc(size_bytes);
	text_utf8(repaired, size_bytes, text);
	value = json_string(repaired);
	free(repaired);
	return made(value);
}

void js_set_text(struct js *object, const char *key, const char *text)
{
	set(object, key, text ? text_value(text) : json_null());
}

void js_set_u64(struct js *object, const char *key, uint64_t number)
{
	set(object, key, json_integer((json_int_t)u64_min(number, INT64_MAX)));
}

void js_set_bool(struct js *object, const char *key, bool value)
{
	set(object, key, json_boolean(value));
}

void js_set_uuid(struct js *object, const char *key, const struct uuid *id)
{
	char text[UUID_TEXT_LEN + 1];
	js_set_text(object, key, uuid_is_nil(id) ? NULL : uuid_format(id, text));
}

char *js_time_format(uint64_t wall_ns, char text[JS_TIME_MAX])
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	struct tm parts;
	gmtime_r(&seconds, &parts);
	size_t used = strftime(text, JS_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text + used, JS_TIME_MAX - used, ".%03uZ", (unsigned)(wall_ns / NS_PER_MS % 1000));
	return text;
}

void js_set_time(struct js *object, const char *key, uint64_t wall_ns)
{
	char text[JS_TIME_MAX];
	js_set_text(object, key, wall_ns ? js_time_format(wall_ns, text) : NULL);
}

void js_push(struct js *array, struct js *value)
{
	if (json_array_append_new(unwrap(array), unwrap(value)) != 0)
		abort();
}

void js_push_text(struct js *array, const char *text)
{
	js_push(array, wrap(text_value(text)));
}

/* Nesting of the text, looked at before the parser recurses into it. Brackets inside strings do not count. */
static bool depth_is_bounded(const char *text, size_t len_bytes)
{
	unsigned depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < len_bytes; i++) {
		char c = text[i];
		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '{' || c == '['))
			depth++;
		else if (!in_string && (c == '}' || c == ']') && depth > 0)
			depth--;
		if (depth > JS_DEPTH_MAX)
			return false;
	}
	return true;
}

int js_parse(const char *text, size_t len_bytes, struct js **out, char *why, size_t why_size_bytes)
{
	json_error_t error;
	if (!depth_is_bounded(text, len_bytes)) {
		snprintf(why, why_size_bytes, "more than %d levels deep", JS_DEPTH_MAX);
		return OXE_INVAL;
	}
	*out = wrap(json_loadb(text, len_bytes, JSON_REJECT_DUPLICATES, &error));
	if (!*out)
		snprintf(why, why_size_bytes, "%.160s at line %d, column %d", error.text, error.line,
			 error.column);
	return *out ? 0 : OXE_INVAL;
}

struct js *js_load(const char *text, size_t len_bytes)
{
	return depth_is_bounded(text, len_bytes) ? wrap(json_loadb(text, len_bytes, 0, NULL)) : NULL;
}

char *js_print(const struct js *value, bool indent)
{
	char *text = json_dumps(unwrap(value), JSON_ENCODE_ANY | (indent ? JSON_INDENT(2) : JSON_COMPACT));
	if (!text)
		abort();
	if (!indent)
		return text;
	size_t len_bytes = strlen(text);
	text = mem_realloc(text, len_bytes + 2);
	memcpy(text + len_bytes, "\n", 2);
	return text;
}

struct js *js_get(const struct js *object, const char *key)
{
	return wrap(json_object_get(unwrap(object), key));
}

bool js_is_object(const struct js *value)
{
	return json_is_object(unwrap(value));
}

bool js_is_array(const struct js *value)
{
	return json_is_array(unwrap(value));
}

bool js_is_bool(const struct js *value)
{
	return json_is_boolean(unwrap(value));
}

bool js_is_null(const struct js *value)
{
	return !value || json_is_null(unwrap(value));
}

const char *js_text(const struct js *value)
{
	return json_string_value(unwrap(value));
}

bool js_u64(const struct js *value, uint64_t *number)
{
	if (!json_is_integer(unwrap(value)) || json_integer_value(unwrap(value)) < 0)
		return false;
	*number = (uint64_t)json_integer_value(unwrap(value));
	return true;
}

bool js_true(const struct js *value)
{
	return json_is_true(unwrap(value));
}

size_t js_length(const struct js *value)
{
	return js_is_object(value) ? json_object_size(unwrap(value)) : json_array_size(unwrap(value));
}

struct js *js_at(const struct js *array, size_t index)
{
	return wrap(json_array_get(unwrap(array), index));
}

void js_walk(const struct js *object, bool (*fn)(void *ctx, const char *key, struct js *value), void *ctx)
{
	const char *key;
	json_t *value;
	json_object_foreach(unwrap(object), key, value)
	{
		if (!fn(ctx, key, wrap(value)))
			return;
	}
}
