/* log.c: events to text; see log.h. */
#include "base/log.h"

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

static struct {
	log_sink_fn *fn;
	void *ctx;
	enum log_level min_level;
} sink;

void log_sink_set(log_sink_fn *fn, void *ctx, enum log_level min_level)
{
	sink.fn = fn;
	sink.ctx = ctx;
	sink.min_level = min_level;
}

void log_emit(enum log_level level, const char *event, const char *message, const struct log_field *fields,
	      size_t field_count)
{
	struct log_event e = {level, event, message, fields, field_count};
	if (sink.fn && level >= sink.min_level)
		sink.fn(sink.ctx, &e);
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	return names[level];
}

/* A line being written; `used` never passes size - 1. */
struct line {
	char *text;
	size_t used, size;
};

static void line_char(struct line *l, char c)
{
	if (l->used + 1 < l->size)
		l->text[l->used++] = c;
}

OX_PRINTF(2, 3) static void line_printf(struct line *l, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = vsnprintf(l->text + l->used, l->size - l->used, format, args);
	va_end(args);
	if (n > 0)
		l->used = u64_min(l->used + (size_t)n, l->size - 1);
}

/* The inside of a JSON string. Bytes of 0x80 and up pass: they are UTF-8 or somebody's honest mistake. */
static void line_escaped(struct line *l, const char *text)
{
	for (const char *p = text ? text : ""; *p; p++) {
		unsigned char c = (unsigned char)*p;
		if (c == '"' || c == '\\')
			line_printf(l, "\\%c", c);
		else if (c == '\n')
			line_printf(l, "\\n");
		else if (c < 0x20 || c == 0x7f)
			line_printf(l, "\\u%04x", c);
		else
			line_char(l, (char)c);
	}
}

static void line_quoted(struct line *l, const char *text)
{
	line_char(l, '"');
	line_escaped(l, text);
	line_char(l, '"');
}

/* A text value stands bare in a text line when nothing in it can be mistaken. */
static bool text_is_plain(const char *text)
{
	if (!text || !*text)
		return false;
	for (const char *p = text; *p; p++) {
		if (*p <= ' ' || *p == '"' || *p == '\\' || *p == '=' || *p == 0x7f)
			return false;
	}
	return true;
}

static void line_value(struct line *l, const struct log_field *f, bool json)
{
	char uuid_text[UUID_TEXT_LEN + 1];
	const char *text = f->str;
	switch (f->type) {
	case LOG_FIELD_U64:
		line_printf(l, "%llu", (unsigned long long)f->u64);
		return;
	case LOG_FIELD_I64:
		line_printf(l, "%lld", (long long)f->i64);
		return;
	case LOG_FIELD_UUID:
		text = uuid_format(f->uuid, uuid_text);
		break;
	case LOG_FIELD_ERR:
		text = err_name(f->err);
		break;
	case LOG_FIELD_STR:
		break;
	}
	if (json || !text_is_plain(text))
		line_quoted(l, text);
	else
		line_printf(l, "%s", text);
}

size_t log_format_text(const struct log_event *event, char *text, size_t size_bytes)
{
	struct line l = {text, 0, size_bytes};
	line_printf(&l, "%s: %s", event->event, event->message);
	for (size_t i = 0; i < event->field_count; i++) {
		line_printf(&l, " %s=", event->fields[i].key);
		line_value(&l, &event->fields[i], false);
	}
	text[l.used] = '\0';
	return l.used;
}

size_t log_format_json(const struct log_event *event, char *text, size_t size_bytes)
{
	struct line l = {text, 0, size_bytes};
	line_printf(&l, "\"level\":\"%s\",\"event\":", log_level_name(event->level));
	line_quoted(&l, event->event);
	line_printf(&l, ",\"message\":");
	line_quoted(&l, event->message);
	for (size_t i = 0; i < event->field_count; i++) {
		line_printf(&l, ",\"%s\":", event->fields[i].key);
		line_value(&l, &event->fields[i], true);
	}
	text[l.used] = '\0';
	return l.used;
}
