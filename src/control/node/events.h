/*
 * events.h: the last structured events (base/log.h), kept in memory for GET /v1/events.
 *
 * The ring is fed from the log's sink. At its bound the oldest event goes. An event's id only grows, also across restarts of
 * the daemon as long as the wall clock does: ids start at the microsecond the process started. So `after=ID` means the same
 * before and after a restart.
 *
 *   which reactor     the one given; everything here is called on it
 */
#ifndef OXBOW_CONTROL_NODE_EVENTS_H
#define OXBOW_CONTROL_NODE_EVENTS_H

#include "base/log.h"
#include "rt/rt.h"

#define EVENTS_CAPACITY 10000

struct events;

struct event {
	uint64_t id, wall_ns;
	const char *
		json; /* members of an object without braces, as log_format_json writes, and UTF-8 throughout */
};

struct events *events_new(struct rt *rt, uint32_t capacity);
void events_free(struct events *ring);
/* Does not suspend. */
void events_add(struct events *ring, uint64_t wall_ns, const struct log_event *event);
/* The same for an event of another thread, which was made into text there (event_format) and posted. */
void events_add_json(struct events *ring, uint64_t wall_ns, const char *json);
/* Members of an object without braces, UTF-8 throughout, to be free()d. Fields are left out if there are too many. */
char *event_format(const struct log_event *event);
uint64_t events_last_id(const struct events *ring);
/* Calls `fn` for the events with a larger id than `after`, oldest first, at most `limit`. Does not suspend, nor may fn. */
void events_walk(const struct events *ring, uint64_t after, uint32_t limit,
		 void (*fn)(void *ctx, const struct event *event), void *ctx);
/* Suspends until there is an event with a larger id than `after`, or the deadline passes. */
void events_wait(struct events *ring, uint64_t after, uint64_t deadline_ns);

#endif
