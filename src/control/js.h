/*
 * js.h: JSON values, over jansson, which no other file includes.
 *
 *   who owns memory   js_set and js_push take the value given; what a getter returns belongs to its parent; js_free() a root
 *   errors            building cannot fail (base.h: memory), text that is not UTF-8 is repaired (text_utf8);
 *                     reading from outside goes through js_parse, which bounds depth and refuses repeated keys
 *   numbers           integers up to 2^63 - 1; a larger one that we build is shown as 2^63 - 1
 */
#ifndef OXBOW_CONTROL_JS_H
#define OXBOW_CONTROL_JS_H

#include "base/base.h"
#include "base/err.h"
#include "base/uuid.h"

#define JS_DEPTH_MAX 16 /* arrays and objects inside each other */

struct js; /* a value; never defined: it is jansson's */

struct js *js_object(void);
struct js *js_array(void);
struct js *js_null(void);
void js_free(struct js *value); /* NULL is harmless */

void js_set(struct js *object, const char *key, struct js *value);
void js_set_text(struct js *object, const char *key, const char *text); /* NULL: null */
void js_set_u64(struct js *object, const char *key, uint64_t number);
void js_set_bool(struct js *object, const char *key, bool value);
void js_set_uuid(struct js *object, const char *key, const struct uuid *id); /* nil: null */
/* A time since 1970 as RFC 3339, UTC: "2024-05-01T10:00:00.123Z". 0: null. */
void js_set_time(struct js *object, const char *key, uint64_t wall_ns);
void js_push(struct js *array, struct js *value);
void js_push_text(struct js *array, const char *text);

/* OXE_INVAL, with why and where in `why`. `text` need not be terminated. */
OX_CHECKED int js_parse(const char *text, size_t len_bytes, struct js **out, char *why,
			size_t why_size_bytes);
/* For what our own daemon wrote: repeated keys pass, and the last counts. NULL if it is not JSON. */
struct js *js_load(const char *text, size_t len_bytes);
/* To be free()d. With `indent`, over several lines and ending in a newline. */
char *js_print(const struct js *value, bool indent);

/* NULL if `object` is NULL, no object, or has no such key. */
struct js *js_get(const struct js *object, const char *key);
bool js_is_object(const struct js *value);
bool js_is_array(const struct js *value);
bool js_is_bool(const struct js *value);
bool js_is_null(const struct js *value); /* also if there is no value */
/* The text of a string; NULL if it is none. */
const char *js_text(const struct js *value);
/* False unless it is an integer of 0 or more. */
bool js_u64(const struct js *value, uint64_t *number);
bool js_true(const struct js *value);
/* Elements of an array or members of an object; 0 for anything else. */
size_t js_length(const struct js *value);
struct js *js_at(const struct js *array, size_t index);
/* Calls `fn` for each member; it returns false to stop. */
void js_walk(const struct js *object, bool (*fn)(void *ctx, const char *key, struct js *value), void *ctx);

#define JS_TIME_MAX 32
/* RFC 3339 with milliseconds. Returns `text`. */
char *js_time_format(uint64_t wall_ns, char text[JS_TIME_MAX]);

#endif
