/*
 * log.h: structured events. An event is logged once, by its owner, with ids and epochs.
 *
 *     LOG_INFO("pool.imported", "pool is ready", F_UUID("pool", &id), F_U64("recovery_ms", ms));
 *
 * `event` is a stable dotted name that programs match; `message` is for people; the fields carry the facts. Where the line
 * goes is the sink's affair: cmd/ installs one that writes text or JSON with a time stamp, the simulator one that keeps
 * the lines of a failing seed. Without a sink nothing is written. One sink a process, set before any thread starts.
 */
#ifndef OXBOW_BASE_LOG_H
#define OXBOW_BASE_LOG_H

#include "base/base.h"
#include "base/uuid.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

enum log_field_type { LOG_FIELD_U64, LOG_FIELD_I64, LOG_FIELD_STR, LOG_FIELD_UUID, LOG_FIELD_ERR };

struct log_field {
	const char *key;
	enum log_field_type type;
	union {
		uint64_t u64;
		int64_t i64;
		const char *str; /* NULL prints as "" */
		const struct uuid *uuid;
		int err; /* an OXE_ code, printed by name */
	};
};

struct log_event {
	enum log_level level;
	const char *event, *message;
	const struct log_field *fields;
	size_t field_count;
};

typedef void log_sink_fn(void *ctx, const struct log_event *event);

/* `sink` may be NULL. Events below `min_level` are dropped before they reach it. */
void log_sink_set(log_sink_fn *sink, void *ctx, enum log_level min_level);
void log_emit(enum log_level level, const char *event, const char *message, const struct log_field *fields,
	      size_t field_count);

/* "debug", "info", "warn" or "error". */
const char *log_level_name(enum log_level level);

/* One line without a newline: `event: message key=value ...` or a JSON object's members (no braces, no time stamp).
 * Text values are escaped. Returns the length written, cut at size_bytes - 1 as snprintf cuts. */
size_t log_format_text(const struct log_event *event, char *line, size_t size_bytes);
size_t log_format_json(const struct log_event *event, char *line, size_t size_bytes);

#define F_U64(k, v)  ((struct log_field){.key = (k), .type = LOG_FIELD_U64, .u64 = (v)})
#define F_I64(k, v)  ((struct log_field){.key = (k), .type = LOG_FIELD_I64, .i64 = (v)})
#define F_STR(k, v)  ((struct log_field){.key = (k), .type = LOG_FIELD_STR, .str = (v)})
#define F_UUID(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_UUID, .uuid = (v)})
#define F_ERR(v)     ((struct log_field){.key = "error", .type = LOG_FIELD_ERR, .err = (v)})

#define LOG_AT(level, event, message, ...)                                                                   \
	do {                                                                                                 \
		const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                                 \
		log_emit(level, event, message, log_fields_ + 1, ARRAY_COUNT(log_fields_) - 1);              \
	} while (0)

#define LOG_DEBUG(event, message, ...) LOG_AT(LOG_LEVEL_DEBUG, event, message, ##__VA_ARGS__)
#define LOG_INFO(event, message, ...)  LOG_AT(LOG_LEVEL_INFO, event, message, ##__VA_ARGS__)
#define LOG_WARN(event, message, ...)  LOG_AT(LOG_LEVEL_WARN, event, message, ##__VA_ARGS__)
#define LOG_ERROR(event, message, ...) LOG_AT(LOG_LEVEL_ERROR, event, message, ##__VA_ARGS__)

#endif
