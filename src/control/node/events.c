/* events.c: see events.h. */
#include "control/node/events.h"

#include "base/text.h"

#define EVENT_JSON_MAX 4096

struct event_slot {
	uint64_t wall_ns;
	char *json;
};

struct events {
	struct rt *rt;
	struct waitq arrivals;
	uint64_t first_id; /* of slot 0 in its first round */
	uint64_t count;	   /* ever added */
	uint32_t capacity;
	struct event_slot slots[];
};

struct events *events_new(struct rt *rt, uint32_t capacity)
{
	struct events *ring = mem_zalloc(sizeof(*ring) + capacity * sizeof(ring->slots[0]));
	ring->rt = rt;
	ring->capacity = capacity;
	ring->first_id = rt_wall_ns(rt) / NS_PER_US + 1;
	waitq_init(&ring->arrivals);
	return ring;
}

void events_free(struct events *ring)
{
	for (uint32_t i = 0; i < ring->capacity; i++)
		free(ring->slots[i].json);
	free(ring);
}

char *event_format(const struct log_event *event)
{
	char raw[EVENT_JSON_MAX];
	if (log_format_json(event, raw, sizeof(raw)) >= sizeof(raw) - 1) {
		struct log_event bare = *event;
		bare.field_count = 0;
		log_format_json(&bare, raw, sizeof(raw));
	}
	size_t size_bytes = strlen(raw) + 1;
	char *json = mem_alloc(size_bytes);
	text_utf8(json, size_bytes, raw);
	return json;
}

static void events_take(struct events *ring, uint64_t wall_ns, char *json)
{
	struct event_slot *slot = &ring->slots[ring->count % ring->capacity];
	free(slot->json);
	*slot = (struct event_slot){.wall_ns = wall_ns, .json = json};
	ring->count++;
	waitq_wake_all(&ring->arrivals);
}

void events_add_json(struct events *ring, uint64_t wall_ns, const char *json)
{
	events_take(ring, wall_ns, mem_strdup(json));
}

void events_add(struct events *ring, uint64_t wall_ns, const struct log_event *event)
{
	events_take(ring, wall_ns, event_format(event));
}

uint64_t events_last_id(const struct events *ring)
{
	return ring->first_id + ring->count - 1;
}

/* How many events with an id up to and with `after` there ever were, and are not to be shown again. */
static uint64_t seen_count(const struct events *ring, uint64_t after)
{
	uint64_t kept_from = ring->count > ring->capacity ? ring->count - ring->capacity : 0;
	uint64_t seen = after >= ring->first_id ? after - ring->first_id + 1 : 0;
	return u64_min(u64_max(seen, kept_from), ring->count);
}

void events_walk(const struct events *ring, uint64_t after, uint32_t limit,
		 void (*fn)(void *ctx, const struct event *event), void *ctx)
{
	uint64_t at = seen_count(ring, after);
	uint64_t end = u64_min(ring->count, at + limit);
	for (; at < end; at++) {
		const struct event_slot *slot = &ring->slots[at % ring->capacity];
		struct event event = {ring->first_id + at, slot->wall_ns, slot->json};
		fn(ctx, &event);
	}
}

void events_wait(struct events *ring, uint64_t after, uint64_t deadline_ns)
{
	while (seen_count(ring, after) == ring->count) {
		if (!waitq_wait_until(&ring->arrivals, deadline_ns))
			return;
	}
}
