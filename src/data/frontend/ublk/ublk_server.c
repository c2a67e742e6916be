/*
 * ublk_server.c: attachments, kept as wanted; see ublk.h.
 *
 *     attach    record it -> keeper: engine, device made (number recorded), started -> serving
 *     detach    record that it is leaving -> keeper: device stopped, deleted, engine closed -> record without it
 *     start     record -> keepers; a keeper finds its device by the mark and takes it as it is: orphaned: recovered;
 *               made and never started, or stopped: deleted, and made anew; none: made
 *
 * A keeper is level-triggered: it looks at what is there and what is wanted, does the next thing, and when that fails says why
 * and tries again, less and less often. Only the first try of an attach ends the attachment: nobody relied on it yet.
 */
#include "base/err.h"
#include "base/log.h"
#include "data/frontend/ublk/ublk.h"
#include "data/frontend/ublk/ublk_device.h"
#include "data/frontend/ublk/ublk_record.h"

#include <stdio.h>

#define BUDGET_BYTES   (64 * MiB)
#define RETRY_MIN_NS   (2 * NS_PER_MS)
#define RETRY_MAX_NS   NS_PER_S
#define RECOVER_MAX_NS (10 * NS_PER_S) /* in one try; the next follows */
#define SAY_AFTER_NS   (5 * NS_PER_S)  /* pools take their time to open */
#define DEVICES_MAX    1024
/* Of a mirror that serves nothing yet: in one try; and how soon the end of the attachment is noticed meanwhile. */
#define SERVED_WITHIN_NS (5 * NS_PER_S)
#define SERVED_STEP_NS	 (NS_PER_S / 10)

struct ublk_server {
	struct rt *rt;
	struct engines *engines;
	struct ublk_options options;
	struct ublk_memory memory;
	struct list attachments;
	struct rt_group keepers;
	struct fmutex saving;
	struct waitq any_changed;
	int start_err;
	bool stopping;
};

struct attachment {
	struct list link; /* in attachments, until it has ended */
	struct ublk_server *server;
	struct ublk_info info;
	struct waitq changed;
	struct ublk_device device;
	const char *said;			/* what of its state was last put into the log */
	bool leaving, is_trial, ended, renamed; /* renamed: the record has another name */
	int trial_err;
	uint32_t users; /* calls that wait for it: who comes last frees */
};

const char *ublk_state_name(enum ublk_state state)
{
	static const char *const names[] = {"starting", "serving", "waiting", "leaving"};
	return names[state];
}

/* ---- attachments ------------------------------------------------------------------------------------------------------- */

static void attachment_changed(struct attachment *a)
{
	waitq_wake_all(&a->changed);
	waitq_wake_all(&a->server->any_changed);
}

static void state_set(struct attachment *a, enum ublk_state state, const char *message)
{
	a->info.state = state;
	snprintf(a->info.message, sizeof(a->info.message), "%s", message);
	if (!*message)
		a->said = "";
	attachment_changed(a);
}

/* The same, and into the log, once. `message` is static text. */
static void state_say(struct attachment *a, enum ublk_state state, const char *message)
{
	state_set(a, state, message);
	if (strcmp(message, a->said) == 0)
		return;
	a->said = message;
	LOG_WARN("ublk.waiting", message, F_UUID("volume", &a->info.id), F_STR("name", a->info.name),
		 F_I64("number", a->info.number == UBLK_NO_NUMBER ? -1 : (int64_t)a->info.number));
}

static struct attachment *attachment_find(const struct ublk_server *s, const struct uuid *id)
{
	struct attachment *a;
	list_for_each (a, &s->attachments, link)
		if (uuid_equal(&a->info.id, id))
			return a;
	return NULL;
}

static struct attachment *attachment_new(struct ublk_server *s, const struct ublk_line *line)
{
	struct attachment *a = mem_zalloc(sizeof(*a));
	a->server = s;
	a->info = (struct ublk_info){.id = line->id, .number = line->number, .state = UBLK_STARTING};
	memcpy(a->info.name, line->name, sizeof(a->info.name));
	a->leaving = line->leaving;
	a->said = "";
	waitq_init(&a->changed);
	ublk_device_init(&a->device, s->rt, &s->memory, &a->changed);
	list_add_tail(&s->attachments, &a->link);
	return a;
}

static void attachment_release(struct attachment *a)
{
	if (--a->users == 0)
		free(a);
}

static int record_save(struct ublk_server *s)
{
	struct text text = {0};
	struct attachment *a;
	fmutex_lock(&s->saving);
	ublk_record_begin(&text);
	list_for_each (a, &s->attachments, link) {
		struct ublk_line line = {.id = a->info.id, .number = a->info.number, .leaving = a->leaving};
		memcpy(line.name, a->info.name, sizeof(line.name));
		ublk_record_add(&text, &line);
	}
	int err = s->options.record_save(s->options.ctx, text_get(&text));
	fmutex_unlock(&s->saving);
	text_free(&text);
	if (err)
		LOG_ERROR("ublk.record_failed", "the record of attached devices could not be saved",
			  F_ERR(err));
	return err;
}

/* ---- the engine under a device ------------------------------------------------------------------------------------------- */

static void link_make(struct attachment *a, bool there)
{
	struct ublk_options *o = &a->server->options;
	if (o->link && *a->info.name)
		o->link(o->ctx, a->info.name, there ? a->info.number : UBLK_NO_NUMBER);
}

/* Under another name than it had, the old name's link goes. */
static void name_take(struct attachment *a, const char *name)
{
	if (strcmp(a->info.name, name) == 0)
		return;
	link_make(a, false);
	snprintf(a->info.name, sizeof(a->info.name), "%s", name);
	a->renamed = true;
}

static bool is_over(const struct attachment *a)
{
	return a->leaving || a->server->stopping;
}

/* Until then its size is not known, and what is asked of it would wait. */
static int engine_wait_until_served(struct attachment *a, struct engine *e)
{
	struct rt *rt = a->server->rt;
	uint64_t until_ns = rt_now_ns(rt) + SERVED_WITHIN_NS;
	int err;
	do
		err = engine_wait(e, rt_now_ns(rt) + SERVED_STEP_NS);
	while (err == OXE_TIMEOUT && !is_over(a) && rt_now_ns(rt) < until_ns);
	return err;
}

static int engine_get(struct attachment *a)
{
	struct engine *e;
	if (a->device.engine)
		return 0;
	int err = engine_open_id(a->server->engines, &a->info.id, &e);
	if (err)
		return err;
	err = engine_wait_until_served(a, e);
	if (err) {
		engine_close(e);
		return err;
	}
	name_take(a, engine_name(e));
	ublk_device_engine_set(&a->device, e);
	return 0;
}

static void engine_let_go(struct attachment *a)
{
	struct engine *e = ublk_device_engine_take(&a->device);
	if (e)
		engine_close(e);
}

/* ---- the device ---------------------------------------------------------------------------------------------------------- */

/* OXE_NOENT: there is none with the attachment's mark. */
static int device_find(struct attachment *a, struct rt_blk_info *out)
{
	struct ublk_server *s = a->server;
	struct rt_blk_info *infos = mem_alloc(DEVICES_MAX * sizeof(*infos));
	uint64_t mark = ublk_mark(s->options.identity, &a->info.id);
	size_t count;
	int err = rt_blk_list(s->rt, infos, DEVICES_MAX, &count), found = OXE_NOENT;
	for (size_t i = 0; !err && i < count; i++) {
		if (infos[i].spec.mark != mark)
			continue;
		*out = infos[i];
		found = 0;
	}
	free(infos);
	return err ? err : found;
}

/* With the number it had, if that is free: after a reboot /dev/ublkb3 is again what it was. */
static int device_make(struct attachment *a, struct rt_blk **out)
{
	struct ublk_server *s = a->server;
	const struct vol_info *v = engine_info(a->device.engine);
	struct rt_blk_spec spec = {.number = a->info.number == UBLK_NO_NUMBER ? RT_BLK_ANY_NUMBER
									      : a->info.number,
				   .lba_bytes = v->lba_bytes,
				   .size_bytes = v->size_bytes,
				   .read_only = v->read_only,
				   .mark = ublk_mark(s->options.identity, &a->info.id)};
	int err = rt_blk_make(s->rt, &spec, out);
	if (err == OXE_EXISTS) {
		spec.number = RT_BLK_ANY_NUMBER;
		err = rt_blk_make(s->rt, &spec, out);
	}
	if (err)
		return err;
	a->info.number = rt_blk_spec(*out)->number;
	err = record_save(s);
	if (err)
		rt_blk_close(*out); /* the device is found by its mark, and removed */
	return err;
}

static bool fits(const struct rt_blk_info *device, const struct vol_info *v)
{
	return device->is_like_ours && device->spec.lba_bytes == v->lba_bytes &&
	       device->spec.read_only == v->read_only && device->spec.size_bytes <= v->size_bytes;
}

static int device_recover(struct attachment *a, const struct rt_blk_info *found, struct rt_blk **out)
{
	struct rt *rt = a->server->rt;
	if (!fits(found, engine_info(a->device.engine)))
		return OXE_CORRUPT;
	a->info.number = found->spec.number;
	return rt_blk_recover(rt, found->spec.number, rt_now_ns(rt) + RECOVER_MAX_NS, out);
}

static int device_get(struct attachment *a, struct rt_blk **out, bool *recovered)
{
	struct rt_blk_info found;
	int err = device_find(a, &found);
	*recovered = err == 0 && found.state != RT_BLK_MADE;
	if (*recovered)
		return device_recover(a, &found, out);
	if (err == 0)
		err = rt_blk_remove(a->server->rt, found.spec.number);
	return err && err != OXE_NOENT ? err : device_make(a, out);
}

static void device_close(struct attachment *a)
{
	struct ublk_device *d = &a->device;
	while (!d->ended)
		waitq_wait(&a->changed);
	rt_blk_close(d->blk);
	d->blk = NULL;
}

/* The block device goes; ours to close after. What still waits for an engine fails. */
static int device_stop(struct attachment *a)
{
	struct ublk_device *d = &a->device;
	if (!d->blk)
		return 0;
	if (!d->engine || d->engine_lost)
		ublk_device_give_up(d);
	int err = d->ended ? 0 : rt_blk_stop(d->blk);
	if (!err)
		device_close(a);
	return err;
}

/* The volume may have grown, now or while nobody served it. Returns what is to be said about it. */
static const char *size_follow(struct attachment *a)
{
	uint64_t size_bytes = engine_info(a->device.engine)->size_bytes;
	if (size_bytes > a->info.size_bytes && rt_blk_grow(a->device.blk, size_bytes) == 0)
		a->info.size_bytes = size_bytes;
	return size_bytes <= a->info.size_bytes ? ""
						: "the volume is larger than its device: this kernel (before "
						  "Linux 6.16) cannot resize one in "
						  "use; detach and attach it to see all of it";
}

static void device_up(struct attachment *a, bool recovered)
{
	const struct rt_blk_spec *spec = rt_blk_spec(a->device.blk);
	a->info.size_bytes = spec->size_bytes;
	a->info.lba_bytes = spec->lba_bytes;
	a->info.read_only = spec->read_only;
	link_make(a, true);
	if (a->renamed && record_save(a->server) == 0)
		a->renamed = false;
	LOG_INFO(recovered ? "ublk.recovered" : "ublk.attached",
		 recovered ? "the device goes on where it was left" : "the device is there",
		 F_STR("name", a->info.name), F_U64("number", a->info.number));
	state_say(a, UBLK_SERVING, size_follow(a));
}

/* Engine and device, serving. On failure both are let go. */
static int come_up(struct attachment *a)
{
	struct rt_blk *blk = NULL;
	bool recovered = false;
	int err = engine_get(a);
	if (err)
		return err;
	err = device_get(a, &blk, &recovered);
	if (!err) {
		ublk_device_serve(&a->device, blk);
		err = rt_blk_start(blk);
	}
	if (!err) {
		device_up(a, recovered);
		return 0;
	}
	if (device_stop(a))
		LOG_ERROR("ublk.stuck", "a device that could not be started could not be stopped either",
			  F_U64("number", a->info.number));
	engine_let_go(a);
	return err;
}

/* ---- the keeper ---------------------------------------------------------------------------------------------------------- */

static const char *why_waiting(int err)
{
	switch (err) {
	case OXE_NOENT:
		return "no open pool has this volume";
	case OXE_TIMEOUT:
		return "no copy of this volume can be asked; 'oxbow volume show' says for whom it waits";
	case OXE_FENCED:
		return "a newer engine has this volume";
	case OXE_UNSUPPORTED:
		return "this kernel has no ublk driver, or one older than Linux 6.5 ('modprobe ublk_drv' "
		       "loads it)";
	case OXE_PERM:
		return "the kernel lets only root (CAP_SYS_ADMIN) make block devices";
	case OXE_CORRUPT:
		return "the device is not as the volume is (block size, read-only, size): it is left alone; "
		       "detaching removes it";
	case OXE_BUSY:
		return "the kernel has not let go of the device's last server yet";
	default:
		return err_text(err);
	}
}

/* Until it is over or the time is up. The longer it lasts, the longer the pauses. */
static void pause_before_retry(struct attachment *a, uint64_t since_ns)
{
	struct rt *rt = a->server->rt;
	uint64_t now_ns = rt_now_ns(rt), wait_ns = (now_ns - since_ns) / 8;
	wait_ns = u64_min(u64_max(wait_ns, RETRY_MIN_NS), RETRY_MAX_NS);
	while (!is_over(a) && waitq_wait_until(&a->changed, now_ns + wait_ns))
		;
}

/* The pool has gone, or the mirror: let go of it, so that it can be closed, and wait until the volume is served again. */
static void engine_replace(struct attachment *a)
{
	uint64_t since_ns = rt_now_ns(a->server->rt);
	int err;
	state_say(a, UBLK_WAITING, "its volume is not served; what is asked of the device waits");
	engine_let_go(a);
	while (!is_over(a) && !a->device.ended && (err = engine_get(a)) != 0)
		pause_before_retry(a, since_ns);
	if (a->device.engine) {
		state_say(a, UBLK_SERVING, size_follow(a));
		LOG_INFO("ublk.resumed", "the volume is served again and the device goes on",
			 F_STR("name", a->info.name), F_U64("number", a->info.number));
	}
}

/* While all is well. */
static void serve(struct attachment *a)
{
	struct ublk_device *d = &a->device;
	while (!is_over(a) && !d->ended) {
		if (d->engine_lost)
			engine_replace(a);
		else
			waitq_wait(&a->changed);
	}
}

/* Somebody else's hand stopped the device (or the test did). */
static void device_lost(struct attachment *a)
{
	device_close(a);
	engine_let_go(a);
	if (!a->server->stopping)
		state_say(a, UBLK_WAITING, "somebody stopped the device; it is made anew");
}

static int device_delete(struct attachment *a)
{
	struct rt_blk_info found;
	int err = device_stop(a);
	if (!err)
		err = device_find(a, &found);
	if (!err)
		err = rt_blk_remove(a->server->rt, found.spec.number);
	return err == OXE_NOENT || err == OXE_UNSUPPORTED ? 0 : err;
}

/* The server ends: what is ours of it goes, the device and its line in the record stay. */
static void let_be(struct attachment *a)
{
	ublk_device_give_up(&a->device);
	if (a->device.blk)
		device_close(a);
	engine_let_go(a);
	list_del(&a->link);
}

/* Everything of it goes, and then its line in the record. */
static void go_down(struct attachment *a)
{
	uint64_t since_ns = rt_now_ns(a->server->rt);
	int err;
	link_make(a, false);
	state_set(a, UBLK_LEAVING, "");
	while ((err = device_delete(a)) != 0 && !a->server->stopping) {
		state_say(a, UBLK_LEAVING, "the kernel does not let go of the device yet; it is tried again");
		fiber_sleep(u64_min(u64_max((rt_now_ns(a->server->rt) - since_ns) / 8, RETRY_MIN_NS),
				    RETRY_MAX_NS));
	}
	if (err) {
		let_be(a);
		return;
	}
	engine_let_go(a);
	list_del(&a->link);
	if (record_save(a->server) == 0 && !a->trial_err)
		LOG_INFO("ublk.detached", "the device is gone", F_STR("name", a->info.name));
}

static void keep(struct attachment *a)
{
	uint64_t since_ns = rt_now_ns(a->server->rt);
	while (!is_over(a)) {
		int err = come_up(a);
		if (!err) {
			a->is_trial = false;
			serve(a);
			since_ns = rt_now_ns(a->server->rt);
		}
		if (a->device.blk && a->device.ended)
			device_lost(a);
		if (err && a->is_trial) {
			snprintf(a->info.message, sizeof(a->info.message), "%s", why_waiting(err));
			a->trial_err = err;
			a->leaving = true;
		} else if (err && !is_over(a)) {
			bool is_long = rt_now_ns(a->server->rt) - since_ns > SAY_AFTER_NS;
			(is_long ? state_say : state_set)(a, UBLK_WAITING, why_waiting(err));
			pause_before_retry(a, since_ns);
		}
	}
}

static void keeper_main(void *arg)
{
	struct attachment *a = arg;
	struct ublk_server *s = a->server;
	keep(a);
	if (a->leaving && !s->stopping)
		go_down(a);
	else
		let_be(a);
	a->ended = true;
	attachment_changed(a);
	attachment_release(a);
	group_done(&s->keepers);
}

static void keeper_start(struct attachment *a)
{
	a->users++;
	group_add(&a->server->keepers, 1);
	fiber_spawn(a->server->rt, "ublk-keeper", keeper_main, a);
}

/* ---- attach and detach ------------------------------------------------------------------------------------------------------ */

static int attach_new(struct ublk_server *s, const struct uuid *id, struct attachment **out)
{
	struct ublk_line line = {.id = *id, .number = UBLK_NO_NUMBER};
	struct attachment *a = attachment_new(s, &line);
	a->is_trial = true;
	int err = record_save(s);
	if (err) {
		list_del(&a->link);
		free(a);
		return err;
	}
	keeper_start(a);
	*out = a;
	return 0;
}

/* Before anything is recorded: what cannot be here at all. */
static int attach_possible(struct ublk_server *s, struct ublk_info *out)
{
	bool can_grow;
	int err = s->start_err ? s->start_err : rt_blk_probe(s->rt, &can_grow);
	if (err)
		snprintf(out->message, sizeof(out->message), "%s",
			 s->start_err ? "the record of attached devices could not be read at the start"
				      : why_waiting(err));
	return err;
}

static int attach_wait(struct attachment *a, struct ublk_info *out)
{
	a->users++;
	while (!a->ended && a->info.state == UBLK_STARTING)
		waitq_wait(&a->changed);
	*out = a->info;
	while (a->leaving && !a->ended)
		waitq_wait(&a->changed);
	int err = a->trial_err ? a->trial_err : a->leaving ? OXE_BUSY : 0;
	if (a->trial_err)
		snprintf(out->message, sizeof(out->message), "%s", why_waiting(a->trial_err));
	attachment_release(a);
	return err;
}

int ublk_server_attach(struct ublk_server *s, const struct uuid *id, bool *created, struct ublk_info *out)
{
	*out = (struct ublk_info){.id = *id, .number = UBLK_NO_NUMBER};
	int err = attach_possible(s, out);
	struct attachment *a = attachment_find(s, id);
	if (a && a->leaving)
		return OXE_BUSY;
	*created = !err && !a;
	if (*created)
		err = attach_new(s, id, &a);
	return err ? err : attach_wait(a, out);
}

int ublk_server_detach(struct ublk_server *s, const struct uuid *id, bool force)
{
	struct attachment *a = attachment_find(s, id);
	if (!a)
		return s->start_err;
	a->users++;
	int err = !force && a->device.blk && !a->leaving ? rt_blk_held(s->rt, a->info.number) : 0;
	if (!err && !a->ended && !a->leaving) {
		a->leaving = true;
		err = record_save(s);
		a->leaving = !err;
		attachment_changed(a);
	}
	while (!err && !a->ended)
		waitq_wait(&a->changed);
	attachment_release(a);
	return err;
}

/* ---- the server -------------------------------------------------------------------------------------------------------------- */

struct ublk_server *ublk_server_new(struct engines *engines, const struct ublk_options *options)
{
	struct ublk_server *s = mem_zalloc(sizeof(*s));
	s->rt = rt_current();
	s->engines = engines;
	s->options = *options;
	s->options.identity = mem_strdup(options->identity);
	s->memory.budget_bytes = u64_max(
		options->buffer_budget_bytes ? options->buffer_budget_bytes : BUDGET_BYTES, RT_BLK_IO_BYTES);
	s->memory.buffers = rt_bufpool_new(s->rt, s->memory.budget_bytes);
	waitq_init(&s->memory.room);
	s->start_err = OXE_NOTREADY;
	list_init(&s->attachments);
	group_init(&s->keepers);
	fmutex_init(&s->saving);
	waitq_init(&s->any_changed);
	return s;
}

static int record_take(struct ublk_server *s, const char *text)
{
	struct ublk_line line;
	int err = ublk_record_open(&text);
	while (!err && (err = ublk_record_next(&text, &line)) == 0) {
		if (!attachment_find(s, &line.id))
			attachment_new(s, &line);
	}
	return err == OXE_NOENT ? 0 : err;
}

static int record_read(struct ublk_server *s)
{
	char *text = NULL;
	struct attachment *a;
	int err = s->options.record_load(s->options.ctx, &text);
	if (err == OXE_NOENT)
		return 0;
	if (!err)
		err = record_take(s, text);
	free(text);
	while (err && (a = list_pop(&s->attachments, struct attachment, link)))
		free(a);
	return err;
}

static bool is_wanted(struct ublk_server *s, uint64_t mark)
{
	struct attachment *a;
	list_for_each (a, &s->attachments, link)
		if (ublk_mark(s->options.identity, &a->info.id) == mark)
			return true;
	return false;
}

static void reap_one(struct ublk_server *s, const struct rt_blk_info *i)
{
	int err = rt_blk_remove(s->rt, i->spec.number);
	LOG_WARN("ublk.reaped",
		 err ? "a device of this server's that is on no record could not be removed"
		     : "a device of this server's that is on no record was removed",
		 F_U64("number", i->spec.number), F_ERR(err));
}

/* Devices with our mark that the record does not know. Without a driver there are none. */
static void reap(struct ublk_server *s)
{
	struct rt_blk_info *infos = mem_alloc(DEVICES_MAX * sizeof(*infos));
	size_t count;
	if (rt_blk_list(s->rt, infos, DEVICES_MAX, &count))
		count = 0;
	for (size_t i = 0; i < count; i++) {
		if (ublk_mark_is_ours(s->options.identity, infos[i].spec.mark) &&
		    !is_wanted(s, infos[i].spec.mark))
			reap_one(s, &infos[i]);
	}
	free(infos);
}

int ublk_server_start(struct ublk_server *s)
{
	struct attachment *a;
	s->start_err = record_read(s);
	if (s->start_err)
		return s->start_err;
	reap(s);
	list_for_each (a, &s->attachments, link)
		keeper_start(a);
	return 0;
}

void ublk_server_stop(struct ublk_server *s)
{
	struct attachment *a;
	s->stopping = true;
	list_for_each (a, &s->attachments, link)
		attachment_changed(a);
	group_wait(&s->keepers);
}

void ublk_server_free(struct ublk_server *s)
{
	assert(list_empty(&s->attachments));
	rt_bufpool_free(s->memory.buffers);
	free((char *)(uintptr_t)s->options.identity);
	free(s);
}

void ublk_server_walk(const struct ublk_server *s, bool (*fn)(void *ctx, const struct ublk_info *a),
		      void *ctx)
{
	const struct attachment *a;
	list_for_each (a, &s->attachments, link)
		if (!fn(ctx, &a->info))
			return;
}

void ublk_server_change_wait(struct ublk_server *s)
{
	waitq_wait(&s->any_changed);
}

void ublk_server_evict(struct ublk_server *s, const char *pool_name)
{
	struct attachment *a;
	list_for_each (a, &s->attachments, link) {
		if (!a->device.engine || !engine_is_of_pool(a->device.engine, pool_name))
			continue;
		a->device.engine_lost = true;
		waitq_wake_all(&a->changed);
	}
}

void ublk_server_evict_volume(struct ublk_server *s, const struct uuid *volume_id)
{
	struct attachment *a;
	list_for_each (a, &s->attachments, link) {
		if (!a->device.engine || !engine_is_of_volume(a->device.engine, volume_id))
			continue;
		a->device.engine_lost = true;
		waitq_wake_all(&a->changed);
	}
}

int ublk_server_grown(struct ublk_server *s, const struct uuid *id)
{
	struct attachment *a = attachment_find(s, id);
	if (!a || a->info.state != UBLK_SERVING || !a->device.engine)
		return 0;
	a->users++;
	const char *message = size_follow(a);
	state_say(a, a->info.state, message);
	attachment_release(a);
	return *message ? OXE_UNSUPPORTED : 0;
}
