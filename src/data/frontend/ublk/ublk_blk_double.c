/* ublk_blk_double.c: see ublk_blk_double.h. Behaves as Linux 6.12 was seen to, where it matters to a server. */
#include "data/frontend/ublk/ublk_blk_double.h"

#include "base/test.h"
#include "rt/rt_platform.h"

#define DEVICES_MAX 8

struct user_io {
	struct list link;
	struct rt_blk_request r;
	void *data;
	bool taken, done;
	int result;
	struct fiber *fiber;
};

struct served;

struct device {
	struct rt_blk_info info;
	bool exists, held;
	struct list ios; /* oldest first */
	struct served *server;
};

/* A server's handle: dead when its process was "killed". */
struct served {
	struct rt_blk blk;
	struct device *device;
	bool recovering, started, stopped, dead;
	struct waitq taker;
	struct list link;
};

static struct {
	struct rt_ops ops;
	struct rt *rt;
	struct device devices[DEVICES_MAX];
	struct list servers;
	int fail[BLK_DOUBLE_STEPS];
	bool can_grow, dead;
} k;

static struct served *served_of(struct rt_blk *blk)
{
	return container_of(blk, struct served, blk);
}

static struct device *device_at(uint32_t number)
{
	return number < DEVICES_MAX && k.devices[number].exists ? &k.devices[number] : NULL;
}

static int failure(enum blk_double_step step)
{
	return k.dead ? OXE_SHUTDOWN : k.fail[step];
}

/* ---- the door ---------------------------------------------------------------------------------------------------------- */

static int op_probe(struct rt *rt, bool *can_grow)
{
	(void)rt;
	fiber_yield();
	*can_grow = k.can_grow;
	return failure(BLK_DOUBLE_PROBE);
}

static int op_list(struct rt *rt, struct rt_blk_info *infos, size_t max, size_t *count)
{
	(void)rt;
	fiber_yield();
	*count = 0;
	for (uint32_t i = 0; i < DEVICES_MAX && *count < max; i++)
		if (k.devices[i].exists)
			infos[(*count)++] = k.devices[i].info;
	return failure(BLK_DOUBLE_PROBE);
}

static struct rt_blk *handle_new(struct device *d, bool recovering)
{
	struct served *s = mem_zalloc(sizeof(*s));
	s->blk = (struct rt_blk){.rt = k.rt, .spec = d->info.spec};
	s->device = d;
	s->recovering = recovering;
	waitq_init(&s->taker);
	list_add_tail(&k.servers, &s->link);
	d->server = s;
	return &s->blk;
}

static int number_pick(uint32_t wanted)
{
	if (wanted != RT_BLK_ANY_NUMBER)
		return device_at(wanted) ? -1 : (int)wanted;
	for (int i = 0; i < DEVICES_MAX; i++)
		if (!k.devices[i].exists)
			return i;
	return -1;
}

static int op_make(struct rt *rt, const struct rt_blk_spec *spec, struct rt_blk **out)
{
	(void)rt;
	fiber_yield();
	int number = number_pick(spec->number);
	if (failure(BLK_DOUBLE_MAKE) || number < 0)
		return failure(BLK_DOUBLE_MAKE) ? failure(BLK_DOUBLE_MAKE) : OXE_EXISTS;
	struct device *d = &k.devices[number];
	*d = (struct device){.exists = true,
			     .info = {.spec = *spec, .state = RT_BLK_MADE, .is_like_ours = true}};
	d->info.spec.number = (uint32_t)number;
	list_init(&d->ios);
	*out = handle_new(d, false);
	return 0;
}

static int op_recover(struct rt *rt, uint32_t number, uint64_t deadline_ns, struct rt_blk **out)
{
	(void)rt, (void)deadline_ns;
	fiber_yield();
	struct device *d = device_at(number);
	if (failure(BLK_DOUBLE_RECOVER) || !d || d->info.state != RT_BLK_ORPHANED)
		return failure(BLK_DOUBLE_RECOVER) ? failure(BLK_DOUBLE_RECOVER) : d ? OXE_BUSY : OXE_NOENT;
	*out = handle_new(d, true);
	return 0;
}

static int op_start(struct rt_blk *blk)
{
	struct served *s = served_of(blk);
	fiber_yield();
	s->started = true;
	if (failure(BLK_DOUBLE_START))
		return failure(BLK_DOUBLE_START);
	s->device->info.state = RT_BLK_SERVED;
	waitq_wake_one(&s->taker);
	return 0;
}

static int op_grow(struct rt_blk *blk, uint64_t size_bytes)
{
	fiber_yield();
	if (!k.can_grow || k.dead)
		return OXE_UNSUPPORTED;
	blk->spec.size_bytes = served_of(blk)->device->info.spec.size_bytes = size_bytes;
	return 0;
}

static struct user_io *io_untaken(struct device *d)
{
	struct user_io *io;
	list_for_each (io, &d->ios, link)
		if (!io->taken)
			return io;
	return NULL;
}

static unsigned taken_count(const struct device *d)
{
	unsigned count = 0;
	const struct user_io *io;
	list_for_each (io, &d->ios, link)
		count += io->taken;
	return count;
}

static int op_next(struct rt_blk *blk, struct rt_blk_request *out)
{
	struct served *s = served_of(blk);
	struct user_io *io;
	for (;;) {
		if (s->dead || (s->stopped && taken_count(s->device) == 0))
			return OXE_SHUTDOWN;
		if (s->started && !s->stopped && (io = io_untaken(s->device)))
			break;
		waitq_wait(&s->taker);
	}
	io->taken = true;
	*out = io->r;
	return 0;
}

static struct user_io *io_by_tag(struct served *s, uint32_t tag)
{
	struct user_io *io;
	list_for_each (io, &s->device->ios, link)
		if (io->r.tag == tag && io->taken)
			return io;
	return NULL;
}

static int op_payload_get(struct rt_blk *blk, const struct rt_blk_request *r, void *data)
{
	struct served *s = served_of(blk);
	struct user_io *io = s->dead ? NULL : io_by_tag(s, r->tag);
	if (!io)
		return OXE_IO;
	CHECK_EQ(io->r.op, RT_BLK_WRITE);
	memcpy(data, io->data, r->len_bytes);
	return 0;
}

static int op_payload_put(struct rt_blk *blk, const struct rt_blk_request *r, const void *data)
{
	struct served *s = served_of(blk);
	struct user_io *io = s->dead ? NULL : io_by_tag(s, r->tag);
	if (!io)
		return OXE_IO;
	CHECK_EQ(io->r.op, RT_BLK_READ);
	memcpy(io->data, data, r->len_bytes);
	return 0;
}

static void io_answer(struct user_io *io, int result)
{
	list_del(&io->link);
	io->result = result;
	io->done = true;
	fiber_ready(io->fiber);
}

static void op_done(struct rt_blk *blk, const struct rt_blk_request *r, int err)
{
	struct served *s = served_of(blk);
	if (s->dead)
		return;
	struct user_io *io = io_by_tag(s, r->tag);
	CHECK(io);
	io_answer(io, err);
	waitq_wake_one(&s->taker);
}

static int op_held(struct rt *rt, uint32_t number)
{
	(void)rt;
	fiber_yield();
	return device_at(number) && device_at(number)->held ? OXE_BUSY : 0;
}

static void ios_fail(struct device *d, bool taken_too)
{
	struct user_io *io, *next;
	list_for_each_safe (io, next, &d->ios, link)
		if (taken_too || !io->taken)
			io_answer(io, OXE_IO);
}

static int op_stop(struct rt_blk *blk)
{
	struct served *s = served_of(blk);
	fiber_yield();
	if (failure(BLK_DOUBLE_STOP))
		return failure(BLK_DOUBLE_STOP);
	s->stopped = true;
	while (taken_count(s->device) && !s->dead)
		fiber_sleep(NS_PER_MS);
	if (s->dead)
		return 0;
	ios_fail(s->device, false);
	s->device->info.state = RT_BLK_MADE;
	waitq_wake_one(&s->taker);
	return 0;
}

static void op_close(struct rt_blk *blk)
{
	struct served *s = served_of(blk);
	CHECK(waitq_empty(&s->taker));
	if (!s->dead)
		s->device->server = NULL;
	list_del(&s->link);
	free(s);
}

static int op_remove(struct rt *rt, uint32_t number)
{
	(void)rt;
	fiber_yield();
	struct device *d = device_at(number);
	if (failure(BLK_DOUBLE_STOP))
		return failure(BLK_DOUBLE_STOP);
	if (!d)
		return 0;
	CHECK(!d->server);
	ios_fail(d, true);
	d->exists = false;
	return 0;
}

static const struct rt_blk_ops blk_ops = {
	.probe = op_probe,
	.list = op_list,
	.make = op_make,
	.recover = op_recover,
	.start = op_start,
	.grow = op_grow,
	.next = op_next,
	.payload_get = op_payload_get,
	.payload_put = op_payload_put,
	.done = op_done,
	.held = op_held,
	.stop = op_stop,
	.close = op_close,
	.remove = op_remove,
};

/* ---- the test's side ------------------------------------------------------------------------------------------------------ */

void blk_double_install(struct rt *rt)
{
	memset(&k, 0, sizeof(k));
	list_init(&k.servers);
	k.rt = rt;
	k.ops = *rt->ops;
	k.ops.blk = &blk_ops;
	rt->ops = &k.ops;
}

void blk_double_free(void)
{
	CHECK(list_empty(&k.servers));
	for (uint32_t i = 0; i < DEVICES_MAX; i++)
		CHECK(!k.devices[i].exists || list_empty(&k.devices[i].ios));
}

int blk_double_io(uint32_t number, enum rt_blk_op op, unsigned flags, uint64_t offset_bytes,
		  uint64_t len_bytes, void *data)
{
	static uint32_t tags;
	struct device *d = device_at(number);
	CHECK(d && d->info.state != RT_BLK_MADE);
	struct user_io io = {.r = {op, flags, tags++ % 4096, offset_bytes, len_bytes},
			     .data = data,
			     .fiber = fiber_current()};
	list_add_tail(&d->ios, &io.link);
	if (d->server)
		waitq_wake_one(&d->server->taker);
	fiber_park();
	CHECK(io.done);
	return io.result;
}

unsigned blk_double_waiting(uint32_t number)
{
	unsigned count = 0;
	const struct user_io *io;
	list_for_each (io, &k.devices[number].ios, link)
		count++;
	return count;
}

unsigned blk_double_taken(uint32_t number)
{
	return taken_count(&k.devices[number]);
}

void blk_double_kill(void)
{
	struct served *s;
	struct user_io *io;
	k.dead = true;
	list_for_each (s, &k.servers, link) {
		struct device *d = s->device;
		if (s->dead)
			continue;
		s->dead = true;
		d->server = NULL;
		if (d->info.state == RT_BLK_SERVED)
			d->info.state = RT_BLK_ORPHANED;
		list_for_each (io, &d->ios, link)
			io->taken = false;
		waitq_wake_one(&s->taker);
	}
}

void blk_double_revive(void)
{
	k.dead = false;
}

void blk_double_reboot(void)
{
	blk_double_kill();
	for (uint32_t i = 0; i < DEVICES_MAX; i++)
		k.devices[i].exists = false;
}

void blk_double_add(const struct rt_blk_info *info)
{
	struct device *d = &k.devices[info->spec.number];
	CHECK(!d->exists);
	*d = (struct device){.exists = true, .info = *info};
	list_init(&d->ios);
}

unsigned blk_double_count(void)
{
	unsigned count = 0;
	for (uint32_t i = 0; i < DEVICES_MAX; i++)
		count += k.devices[i].exists;
	return count;
}

const struct rt_blk_info *blk_double_info(uint32_t number)
{
	struct device *d = device_at(number);
	return d ? &d->info : NULL;
}

void blk_double_hold(uint32_t number, bool held)
{
	k.devices[number].held = held;
}

void blk_double_fail(enum blk_double_step step, int err)
{
	k.fail[step] = err;
}

void blk_double_can_grow(bool can)
{
	k.can_grow = can;
}
