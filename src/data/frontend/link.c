/*
 * link.c: see link.h.
 *
 * Deadlines cost a store on the fast path: each direction keeps the time by which its present wait must end, and one timer
 * looks at them. It is armed when a wait with a deadline begins and finds it idle; when it fires early (the wait it was armed
 * for is long over), it goes to the earliest deadline there is now, or rests.
 */
#include "data/frontend/link.h"

#define SLOWEST_BYTES_PER_S 17476ull   /* a MiB a minute: slower peers hold memory others wait for */
#define DIRECT_MIN_BYTES    (16 * KiB) /* a rest of a payload worth a receive of its own */
#define SEND_PATIENCE	    4

static uint64_t earliest_deadline(const struct link *l)
{
	const uint64_t deadlines[] = {l->overall_deadline_ns, l->rx_deadline_ns, l->tx_deadline_ns};
	uint64_t earliest = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_COUNT(deadlines); i++)
		if (deadlines[i] != 0)
			earliest = u64_min(earliest, deadlines[i]);
	return earliest;
}

static void timer_fired(struct rt_timer *timer)
{
	struct link *l = container_of(timer, struct link, timer);
	uint64_t deadline_ns = earliest_deadline(l);
	if (deadline_ns <= rt_now_ns(l->rt)) {
		l->timed_out = true;
		rt_conn_shutdown(l->conn);
	} else if (deadline_ns != UINT64_MAX) {
		timer_arm(l->rt, timer, deadline_ns);
	}
}

static void watch(struct link *l, uint64_t deadline_ns)
{
	if (l->timer.heap_index == 0 || deadline_ns < l->timer.deadline_ns)
		timer_arm(l->rt, &l->timer, deadline_ns);
}

/* By when `bytes` must have passed. */
static uint64_t pace_deadline_ns(const struct link *l, uint64_t bytes, unsigned patience)
{
	uint64_t ns = l->stall_ns + bytes / SLOWEST_BYTES_PER_S * NS_PER_S;
	return rt_now_ns(l->rt) + patience * ns;
}

static void rx_watch(struct link *l, uint64_t bytes)
{
	l->rx_deadline_ns = pace_deadline_ns(l, bytes, 1);
	watch(l, l->rx_deadline_ns);
}

void link_init(struct link *l, struct rt *rt, struct rt_conn *conn, size_t capacity, uint64_t stall_ns)
{
	*l = (struct link){.rt = rt, .conn = conn, .stall_ns = stall_ns};
	timer_init(&l->timer, timer_fired);
	link_resize(l, capacity);
}

void link_fini(struct link *l)
{
	timer_cancel(l->rt, &l->timer);
	if (l->tls)
		tls_free(l->tls);
	rt_conn_close(l->conn);
	free(l->buffer);
}

void link_resize(struct link *l, size_t capacity)
{
	uint8_t *larger = mem_alloc(capacity);
	size_t kept = link_buffered(l);
	assert(kept <= capacity);
	if (kept > 0)
		memcpy(larger, link_bytes(l), kept);
	free(l->buffer);
	l->buffer = larger;
	l->capacity = capacity;
	l->start = 0;
	l->end = kept;
}

void link_deadline(struct link *l, uint64_t deadline_ns)
{
	l->overall_deadline_ns = deadline_ns;
	if (deadline_ns != 0)
		watch(l, deadline_ns);
}

void link_bye(struct link *l)
{
	if (!l->tls)
		return;
	link_deadline(l, rt_now_ns(l->rt) + l->stall_ns);
	tls_bye(l->tls);
}

void link_shutdown(struct link *l)
{
	rt_conn_shutdown(l->conn);
}

/* One receive of at least a byte. */
static int receive_some(struct link *l, void *data, size_t len_bytes, size_t *got_bytes)
{
	int err = l->tls ? tls_recv(l->tls, data, len_bytes, got_bytes)
			 : rt_recv(l->conn, data, len_bytes, got_bytes);
	if (l->timed_out)
		return OXE_TIMEOUT;
	if (err)
		return err;
	return *got_bytes == 0 ? OXE_CLOSED : 0;
}

/* Make room for `need` bytes from start on, and for a good receive. */
static void compact(struct link *l, size_t need)
{
	size_t kept = link_buffered(l);
	if (kept == 0) {
		l->start = l->end = 0;
	} else if (l->capacity - l->start < need || l->end > l->capacity / 2) {
		memmove(l->buffer, link_bytes(l), kept);
		l->start = 0;
		l->end = kept;
	}
}

static int fill_slowly(struct link *l, size_t need, bool exactly)
{
	compact(l, need);
	bool watched = false;
	int err = 0;
	while (err == 0 && link_buffered(l) < need) {
		size_t room = exactly ? need - link_buffered(l) : l->capacity - l->end;
		size_t got = 0;
		if (!watched && link_buffered(l) > 0) {
			rx_watch(l, need);
			watched = true;
		}
		err = receive_some(l, l->buffer + l->end, room, &got);
		if (err == 0)
			l->end += got;
	}
	l->rx_deadline_ns = 0;
	return err;
}

int link_fill(struct link *l, size_t need, bool exactly)
{
	assert(need <= l->capacity);
	return likely(link_buffered(l) >= need) ? 0 : fill_slowly(l, need, exactly);
}

static size_t copy_buffered(struct link *l, void *data, size_t n)
{
	size_t copied = u64_min(n, link_buffered(l));
	memcpy(data, link_bytes(l), copied);
	l->start += copied;
	return copied;
}

static int receive_directly(struct link *l, uint8_t *data, size_t n)
{
	int err = 0;
	size_t got = 0;
	rx_watch(l, n);
	for (size_t done = 0; err == 0 && done < n; done += got)
		err = receive_some(l, data + done, n - done, &got);
	l->rx_deadline_ns = 0;
	return err;
}

int link_read(struct link *l, void *data, size_t n)
{
	size_t done = copy_buffered(l, data, n);
	size_t rest = n - done;
	if (rest == 0)
		return 0;
	if (rest >= DIRECT_MIN_BYTES || rest > l->capacity)
		return receive_directly(l, (uint8_t *)data + done, rest);
	rx_watch(l, rest);
	int err = link_fill(l, rest, false);
	if (err == 0)
		copy_buffered(l, (uint8_t *)data + done, rest);
	return err;
}

int link_skip(struct link *l, uint64_t n)
{
	rx_watch(l, n);
	int err = 0;
	while (err == 0 && n > 0) {
		size_t step = u64_min(n, link_buffered(l));
		link_take(l, step);
		n -= step;
		if (n == 0)
			break;
		size_t got = 0;
		l->start = l->end = 0;
		err = receive_some(l, l->buffer, l->capacity, &got);
		if (err == 0)
			l->end = got;
	}
	l->rx_deadline_ns = 0;
	return err;
}

static uint64_t parts_bytes(const struct rt_iovec *parts, size_t part_count)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < part_count; i++)
		sum += parts[i].len_bytes;
	return sum;
}

int link_send(struct link *l, const struct rt_iovec *parts, size_t part_count)
{
	l->tx_deadline_ns = pace_deadline_ns(l, parts_bytes(parts, part_count), SEND_PATIENCE);
	watch(l, l->tx_deadline_ns);
	int err = l->tls ? tls_send(l->tls, parts, part_count) : rt_send(l->conn, parts, part_count);
	l->tx_deadline_ns = 0;
	return l->timed_out ? OXE_TIMEOUT : err;
}
