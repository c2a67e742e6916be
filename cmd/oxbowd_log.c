/*
 * oxbowd_log.c: where events go: a line on stderr, and the ring behind GET /v1/events.
 *
 * Under systemd (JOURNAL_STREAM is set) a text line begins with its priority, "<6>", and has no time: the journal adds its own.
 * An event of another thread is made into text there and posted to the reactor for the ring.
 */
#include "oxbowd.h"

#include "control/js.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static struct {
	struct rt *rt;
	struct events *ring;
	pthread_t reactor_thread;
	bool json, journal;
	enum log_level level;
} log_state;

/* syslog's numbers */
static int priority(enum log_level level)
{
	static const int numbers[] = {7, 6, 4, 3};
	return numbers[level];
}

static size_t head_format(const struct log_event *event, uint64_t wall_ns, char *line, size_t size_bytes)
{
	char time[JS_TIME_MAX];
	js_time_format(wall_ns, time);
	if (log_state.json)
		return (size_t)snprintf(line, size_bytes, "{\"time\":\"%s\",", time);
	if (log_state.journal)
		return (size_t)snprintf(line, size_bytes, "<%d>", priority(event->level));
	return (size_t)snprintf(line, size_bytes, "%s %-5s ", time, log_level_name(event->level));
}

/* One write(2) a line, so that lines of several threads do not mix. */
static void line_write(const struct log_event *event, uint64_t wall_ns)
{
	char line[LINE_MAX_BYTES];
	size_t used = head_format(event, wall_ns, line, sizeof(line));
	size_t room = sizeof(line) - used - 2;
	used += log_state.json ? log_format_json(event, line + used, room)
			       : log_format_text(event, line + used, room);
	if (log_state.json)
		line[used++] = '}';
	line[used++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, used);
	(void)written; /* nobody is left to be told */
}

struct posted {
	uint64_t wall_ns;
	char *json;
};

static void posted_add(void *arg)
{
	struct posted *p = arg;
	events_add_json(log_state.ring, p->wall_ns, p->json);
	free(p->json);
	free(p);
}

static void ring_add(const struct log_event *event, uint64_t wall_ns)
{
	if (pthread_equal(pthread_self(), log_state.reactor_thread)) {
		events_add(log_state.ring, wall_ns, event);
		return;
	}
	struct posted *p = mem_alloc(sizeof(*p));
	*p = (struct posted){wall_ns, event_format(event)};
	rt_post(log_state.rt, posted_add, p);
}

static void sink(void *ctx, const struct log_event *event)
{
	(void)ctx;
	uint64_t wall_ns = rt_wall_ns(log_state.rt);
	if (event->level >= log_state.level)
		line_write(event, wall_ns);
	if (event->level >= LOG_LEVEL_INFO)
		ring_add(event, wall_ns);
}

void daemon_log_start(const struct daemon_options *options, struct rt *rt, struct events *ring)
{
	log_state.rt = rt;
	log_state.ring = ring;
	log_state.reactor_thread = pthread_self();
	log_state.json = options->log_json;
	log_state.journal = getenv("JOURNAL_STREAM") != NULL;
	log_state.level = options->log_level;
	log_sink_set(sink, NULL, options->log_level < LOG_LEVEL_INFO ? options->log_level : LOG_LEVEL_INFO);
}
