/* readahead.c: see readahead.h for the rules. */
#include "data/store/readahead.h"

#include "data/store/vol.h"

#define READ_MAX    (512 * KiB) /* larger reads keep the disk busy by themselves */
#define DEPTH_MAX   2u		/* more at a time, too */
#define RUN_MIN	    (16 * KiB)	/* read in a row, before anything is read ahead */
#define WINDOW_MIN  (64 * KiB)
#define WINDOW_MAX  (512 * KiB)
#define WINDOWS	    2u /* ahead of a reader */
#define PATIENCE_NS (2 * NS_PER_S)

struct window {
	struct list link; /* in the pool, in the order they were begun */
	struct vol *vol;
	uint64_t offset_bytes, end_bytes;
	uint64_t copied_bytes; /* each is asked for once */
	uint64_t begun_ns;
	uint8_t *data;
	uint32_t users; /* who loads it, and readers that wait */
	bool loading, dropped;
	struct waitq waiters;
};

struct readahead {
	struct pool *pool;
	struct list windows;
	struct rt_bufpool *buffers;
	uint64_t served_bytes;
	struct rt_timer timer; /* armed while there are windows */
};

/* ---- windows ---------------------------------------------------------------------------------------------------------------- */

static void window_free_unused(struct readahead *ra, struct window *w)
{
	if (!w->dropped || w->users > 0)
		return;
	rt_buf_put(ra->buffers, w->data, w->end_bytes - w->offset_bytes);
	free(w);
}

/* Nobody finds it any more, and who waits for it goes elsewhere. */
static void window_unlist(struct window *w)
{
	w->dropped = true;
	list_del(&w->link);
	waitq_wake_all(&w->waiters);
}

static void window_drop(struct readahead *ra, struct window *w)
{
	window_unlist(w);
	window_free_unused(ra, w);
}

static void window_leave(struct readahead *ra, struct window *w)
{
	w->users--;
	window_free_unused(ra, w);
}

static struct window *window_find(const struct readahead *ra, const struct vol *vol, uint64_t at_bytes)
{
	struct window *w;
	list_for_each (w, &ra->windows, link)
		if (w->vol == vol && at_bytes >= w->offset_bytes && at_bytes < w->end_bytes)
			return w;
	return NULL;
}

/* Windows whose reader did not come. */
static void timer_fired(struct rt_timer *timer)
{
	struct readahead *ra = container_of(timer, struct readahead, timer);
	uint64_t now_ns = rt_now_ns(ra->pool->rt);
	struct window *w, *tmp;
	list_for_each_safe (w, tmp, &ra->windows, link)
		if (!w->loading && now_ns - w->begun_ns >= PATIENCE_NS)
			window_drop(ra, w);
	if (!list_empty(&ra->windows))
		timer_arm(ra->pool->rt, timer, now_ns + PATIENCE_NS);
}

static void window_load(void *arg)
{
	struct window *w = arg;
	struct vol *vol = w->vol;
	struct readahead *ra = vol->pool->readahead;
	int err = vol_read_stored(vol, w->data, w->offset_bytes, w->end_bytes - w->offset_bytes);
	w->loading = false;
	if (err && !w->dropped)
		window_unlist(w);
	waitq_wake_all(&w->waiters);
	window_leave(ra, w);
	group_done(&vol->calls);
}

static bool is_changing(const struct vol *vol)
{
	return vol->volume && vol->volume->writers > 0 && !MUTANT(91);
}

static bool window_begin(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct readahead *ra = vol->pool->readahead;
	/* If there is no room none is taken from others: readers that took turns at that would read everything twice. */
	uint8_t *data = is_changing(vol) ? NULL : rt_buf_try(ra->buffers, len_bytes);
	if (!data)
		return false;
	struct window *w = mem_alloc(sizeof(*w));
	*w = (struct window){.vol = vol,
			     .offset_bytes = offset_bytes,
			     .end_bytes = offset_bytes + len_bytes,
			     .begun_ns = rt_now_ns(vol->pool->rt),
			     .data = data,
			     .users = 1,
			     .loading = true};
	waitq_init(&w->waiters);
	list_add_tail(&ra->windows, &w->link);
	if (ra->timer.heap_index == 0)
		timer_arm(vol->pool->rt, &ra->timer, w->begun_ns + PATIENCE_NS);
	group_add(&vol->calls, 1);
	fiber_spawn(vol->pool->rt, "readahead", window_load, w);
	return true;
}

/* ---- streams ---------------------------------------------------------------------------------------------------------------- */

/* The reader that goes on here; or a new one, in the place of whoever has not come for longest. */
static struct readahead_stream *stream_at(struct vol *vol, uint64_t offset_bytes)
{
	struct readahead_stream *s = vol->streams, *oldest = s;
	for (; s < vol->streams + READAHEAD_STREAMS; s++) {
		if (s->used && s->next_bytes == offset_bytes)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct readahead_stream){.next_bytes = offset_bytes};
	return oldest;
}

/* Windows grow with what was read in a row, and end where clusters end. */
static void stream_look_ahead(struct vol *vol, struct readahead_stream *s)
{
	uint64_t size_bytes = vol_info(vol)->size_bytes;
	uint64_t window = u64_min(u64_align_up(s->run_bytes, WINDOW_MIN), WINDOW_MAX);
	uint64_t enough = s->next_bytes + WINDOWS * window;
	s->ahead_bytes = u64_max(s->ahead_bytes, s->next_bytes);
	while (s->ahead_bytes < u64_min(enough, size_bytes)) {
		uint64_t end = u64_min(u64_align_down(s->ahead_bytes + window, WINDOW_MIN), size_bytes);
		if (!window_begin(vol, s->ahead_bytes, end - s->ahead_bytes))
			return;
		s->ahead_bytes = end;
	}
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

/* Up to `len_bytes` that a window has, once it has them; 0: it was dropped. */
static uint64_t window_copy(struct readahead *ra, struct window *w, uint8_t *data, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	uint64_t n = u64_min(len_bytes, w->end_bytes - offset_bytes);
	w->users++;
	while (w->loading && !w->dropped)
		waitq_wait(&w->waiters);
	if (w->dropped) {
		n = 0;
	} else {
		memcpy(data, w->data + (offset_bytes - w->offset_bytes), n);
		w->copied_bytes += n;
		if (w->copied_bytes >= w->end_bytes - w->offset_bytes)
			window_unlist(w);
	}
	window_leave(ra, w);
	return n;
}

static bool windows_copy(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct readahead *ra = vol->pool->readahead;
	uint64_t end = offset_bytes + len_bytes;
	for (uint64_t n; offset_bytes < end; data += n, offset_bytes += n) {
		struct window *w = window_find(ra, vol, offset_bytes);
		n = w ? window_copy(ra, w, data, offset_bytes, end - offset_bytes) : 0;
		if (n == 0)
			return false;
	}
	ra->served_bytes += len_bytes;
	return true;
}

bool readahead_read(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (len_bytes > READ_MAX || rt_disk_info(vol->pool->disk)->never_waits)
		return false;
	struct readahead_stream *s = stream_at(vol, offset_bytes);
	bool goes_on = s->run_bytes > 0;
	s->used = ++vol->stream_clock;
	s->next_bytes += len_bytes;
	s->run_bytes += len_bytes;
	if (!goes_on)
		return false;
	if (s->run_bytes >= RUN_MIN && vol->reading <= DEPTH_MAX)
		stream_look_ahead(vol, s);
	return windows_copy(vol, data, offset_bytes, len_bytes);
}

static bool is_of_volume(const struct window *w, const struct volume *v)
{
	return v && w->vol->volume == v;
}

void readahead_changing(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct readahead *ra = vol->pool->readahead;
	struct window *w, *tmp;
	list_for_each_safe (w, tmp, &ra->windows, link)
		if (is_of_volume(w, vol->volume) && w->offset_bytes < offset_bytes + len_bytes &&
		    offset_bytes < w->end_bytes && !MUTANT(90))
			window_drop(ra, w);
}

/* ---- birth and death -------------------------------------------------------------------------------------------------------- */

void readahead_forget(struct vol *vol)
{
	struct readahead *ra = vol->pool->readahead;
	struct window *w, *tmp;
	list_for_each_safe (w, tmp, &ra->windows, link)
		if (w->vol == vol)
			window_drop(ra, w);
}

struct readahead *readahead_new(struct pool *pool)
{
	struct readahead *ra = mem_zalloc(sizeof(*ra));
	ra->pool = pool;
	list_init(&ra->windows);
	ra->buffers = rt_bufpool_new(pool->rt, READAHEAD_BYTES_MAX);
	timer_init(&ra->timer, timer_fired);
	return ra;
}

void readahead_free(struct readahead *ra)
{
	assert(list_empty(&ra->windows));
	rt_bufpool_free(ra->buffers);
	timer_cancel(ra->pool->rt, &ra->timer);
	free(ra);
}

uint64_t readahead_served_bytes(const struct readahead *ra)
{
	return ra->served_bytes;
}
