/*
 * host_ublk.c: block devices that we serve, by Linux's ublk driver.
 *
 *     FETCH          an ordinary entry in the reactor's ring for each tag; its completion is a request
 *     pread, pwrite  on /dev/ublkcN copy the payload, when we have a buffer for it: one system call, which never waits
 *     COMMIT         answers, and fetches the next one with the same entry
 *
 * Why copies by system call, and not buffers handed to the driver at FETCH: those would be depth times the largest request
 * for each device, resident after the first burst, busy or not; so one bounded pool serves all devices, and the kernel
 * writes into our memory at no other time than inside that call. It costs some 0.2 us a request.
 *
 * Three rules keep a killed server from leaving what only a reboot mends (Linux 6.12):
 *
 *     This process never waits for a request to a device of its own to end: it does not read, write or open it, nor set
 *     attributes of its queue. A thread of ours that waited so when we are killed would keep /dev/ublkcN open, and as long as
 *     that is open nobody can recover the device and answer the request. START_DEV, however, reads the partition table, in a
 *     thread of ours and holding the device's lock. The kernel leaves that out if the server is not privileged, and so the
 *     entries that fetch are made without CAP_SYS_ADMIN (a personality).
 *
 *     All entries that fetch go to the kernel in one system call, which a kill does not divide: a device of which only some
 *     tags were fetched can neither be served nor recovered.
 *
 *     If all tags are in our hands when we are killed, no entry is left whose end tells the driver, and it finds out when
 *     a request times out: after 30 s, which is lowered to 1 s (nothing fails: while we live the timer starts anew).
 */
#include "host/host_ublk.h"

#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/capability.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECOVER_PAUSE_NS (2 * NS_PER_MS)
#define DISCARD_SECTORS	 (GiB / UBLK_SECTOR_BYTES) /* of one request */
#define BLOCK_SHIFT	 12			   /* what the store likes best to write */
#define CLUSTER_SHIFT	 16
#define DEVICES_MAX	 1024

static_assert(RT_BLK_IO_BYTES <= (uint64_t)1 << UBLK_PAYLOAD_SHIFT, "a payload fits its place");

struct host_blk;

struct blk_tag {
	struct host_op op;
	struct host_blk *owner;
	uint32_t number;
	struct list link; /* in ready, from its completion until it is taken */
};

struct host_blk {
	struct rt_blk blk;
	struct host_ublk *ublk;
	int fd; /* of /dev/ublkcN */
	const struct ublk_request_wire *requests;
	size_t requests_bytes;
	bool recovering, fetched;
	uint32_t with_kernel, with_us; /* tags */
	struct list ready;
	struct waitq taker;
	struct blk_tag tags[RT_BLK_DEPTH];
};

static struct host_blk *blk_of(struct rt_blk *blk)
{
	return container_of(blk, struct host_blk, blk);
}

static struct host *host_of_blk(struct host_blk *b)
{
	return host_of(b->blk.rt);
}

static int result_of(int res)
{
	return res < 0 ? err_from_errno(-res) : 0;
}

/* ---- what there is --------------------------------------------------------------------------------------------------- */

static int blk_probe(struct rt *rt, bool *can_grow)
{
	struct host_ublk *u;
	int err = host_ublk_open(host_of(rt), &u);
	if (!err)
		*can_grow = ublk_features(u) & UBLK_FLAG_UPDATE_SIZE;
	return err;
}

static enum rt_blk_state state_of(const struct ublk_device_wire *w)
{
	return w->state == UBLK_STATE_DEAD   ? RT_BLK_MADE
	       : w->state == UBLK_STATE_LIVE ? RT_BLK_SERVED
					     : RT_BLK_ORPHANED;
}

static int params_get(struct host_ublk *u, uint32_t number, struct ublk_params_wire *params)
{
	*params = (struct ublk_params_wire){.len_bytes = UBLK_PARAMS_BYTES};
	return ublk_control_buffer(u, UBLK_GET_PARAMS, number, params, sizeof(*params));
}

static void spec_read(struct rt_blk_spec *spec, const struct ublk_params_wire *p)
{
	spec->size_bytes = p->basic.device_sectors * UBLK_SECTOR_BYTES;
	spec->lba_bytes = p->basic.logical_shift < 32 ? 1u << p->basic.logical_shift : 0;
	spec->read_only = p->basic.attributes & UBLK_ATTRIBUTE_READ_ONLY;
}

static int info_get(struct host_ublk *u, uint32_t number, struct rt_blk_info *out)
{
	struct ublk_device_wire w = {0};
	struct ublk_params_wire params;
	int res = ublk_control_buffer(u, UBLK_GET_INFO, number, &w, sizeof(w));
	if (res < 0)
		return res;
	*out = (struct rt_blk_info){
		.spec = {.number = number, .mark = w.server_word},
		.state = state_of(&w),
		.is_like_ours = (w.flags & UBLK_FLAGS_WANTED) == UBLK_FLAGS_WANTED && w.queue_count == 1 &&
				w.queue_depth == RT_BLK_DEPTH && w.io_bytes_max == RT_BLK_IO_BYTES,
	};
	res = params_get(u, number, &params);
	if (res >= 0)
		spec_read(&out->spec, &params);
	return 0;
}

struct listing {
	uint32_t numbers[DEVICES_MAX];
	size_t count;
};

static void listing_work(void *arg)
{
	struct listing *l = arg;
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/ublk-char");
	while (dir && (entry = readdir(dir)) && l->count < DEVICES_MAX) {
		if (sscanf(entry->d_name, "ublkc%u", &l->numbers[l->count]) == 1)
			l->count++;
	}
	if (dir)
		closedir(dir);
}

static int blk_list(struct rt *rt, struct rt_blk_info *infos, size_t max, size_t *count)
{
	struct host_ublk *u;
	int err = host_ublk_open(host_of(rt), &u);
	*count = 0;
	if (err)
		return err;
	struct listing *l = mem_zalloc(sizeof(*l));
	host_offload(rt, listing_work, l);
	for (size_t i = 0; i < l->count && *count < max; i++) {
		if (info_get(u, l->numbers[i], &infos[*count]) == 0)
			(*count)++; /* else it has gone meanwhile */
	}
	free(l);
	return 0;
}

static void tag_complete(struct host_op *op, int res, uint32_t flags);

/* ---- making ---------------------------------------------------------------------------------------------------------- */

static struct host_blk *blk_new(struct rt *rt, struct host_ublk *u, const struct rt_blk_spec *spec)
{
	struct host_blk *b = mem_zalloc(sizeof(*b));
	b->blk.rt = rt;
	b->blk.spec = *spec;
	b->ublk = u;
	b->fd = -1;
	list_init(&b->ready);
	waitq_init(&b->taker);
	for (uint32_t i = 0; i < RT_BLK_DEPTH; i++) {
		b->tags[i] = (struct blk_tag){.op = {tag_complete}, .owner = b, .number = i};
		list_init(&b->tags[i].link);
	}
	host_of(rt)->open_objects++;
	return b;
}

static void blk_close(struct rt_blk *blk)
{
	struct host_blk *b = blk_of(blk);
	assert(b->with_kernel == 0 && b->with_us == 0 && waitq_empty(&b->taker));
	if (b->requests)
		munmap((void *)(uintptr_t)b->requests, b->requests_bytes);
	if (b->fd >= 0)
		close(b->fd);
	host_of_blk(b)->open_objects--;
	free(b);
}

static int char_device_open(struct host_blk *b)
{
	char path[32];
	snprintf(path, sizeof(path), "/dev/ublkc%u", b->blk.spec.number);
	b->fd = open(path, O_RDWR | O_CLOEXEC);
	return b->fd < 0 ? err_from_errno(errno) : 0;
}

static int params_set(struct host_ublk *u, const struct rt_blk_spec *spec)
{
	uint8_t logical_shift = (uint8_t)__builtin_ctz(spec->lba_bytes);
	uint32_t read_only = spec->read_only ? UBLK_ATTRIBUTE_READ_ONLY : 0;
	struct ublk_params_wire p = {
		.len_bytes = UBLK_PARAMS_BYTES,
		.types = UBLK_PARAM_BASIC | UBLK_PARAM_DISCARD,
		.basic = {.attributes = UBLK_ATTRIBUTE_VOLATILE | UBLK_ATTRIBUTE_FUA | read_only,
			  .logical_shift = logical_shift,
			  .physical_shift = BLOCK_SHIFT,
			  .io_min_shift = BLOCK_SHIFT,
			  .io_best_shift = CLUSTER_SHIFT,
			  .sectors_max = RT_BLK_IO_BYTES / UBLK_SECTOR_BYTES,
			  .device_sectors = spec->size_bytes / UBLK_SECTOR_BYTES},
		.discard = {.granularity = 1u << BLOCK_SHIFT,
			    .discard_sectors_max = DISCARD_SECTORS,
			    .zero_sectors_max = DISCARD_SECTORS,
			    .segments_max = 1},
	};
	return result_of(ublk_control_buffer(u, UBLK_SET_PARAMS, spec->number, &p, sizeof(p)));
}

static int device_add(struct host_ublk *u, struct rt_blk_spec *spec)
{
	struct ublk_device_wire w = {.queue_count = 1,
				     .queue_depth = RT_BLK_DEPTH,
				     .io_bytes_max = RT_BLK_IO_BYTES,
				     .device = spec->number,
				     .flags = UBLK_FLAGS_WANTED,
				     .server_word = spec->mark};
	int res = ublk_control_buffer(u, UBLK_ADD, spec->number, &w, sizeof(w));
	if (res >= 0)
		spec->number = w.device;
	return result_of(res);
}

static int blk_remove(struct rt *rt, uint32_t number)
{
	struct host_ublk *u;
	int err = host_ublk_open(host_of(rt), &u);
	if (err)
		return err;
	int res = ublk_control_simple(u, UBLK_STOP, number, 0);
	if (res >= 0)
		res = ublk_control_simple(u, UBLK_DELETE, number, 0);
	return res == -ENODEV ? 0 : result_of(res);
}

static int blk_make(struct rt *rt, const struct rt_blk_spec *wanted, struct rt_blk **out)
{
	struct rt_blk_spec spec = *wanted;
	struct host_ublk *u;
	int err = host_ublk_open(host_of(rt), &u);
	if (!err)
		err = device_add(u, &spec);
	if (err)
		return err;
	struct host_blk *b = blk_new(rt, u, &spec);
	err = params_set(u, &spec);
	if (!err)
		err = char_device_open(b);
	if (!err) {
		*out = &b->blk;
		return 0;
	}
	blk_close(&b->blk);
	if (blk_remove(rt, spec.number))
		LOG_WARN("ublk.left", "a half-made device could not be deleted",
			 F_U64("number", spec.number));
	return err;
}

/* ---- recovering ------------------------------------------------------------------------------------------------------ */

/* EINVAL for an orphan: another recovery got this far before it was killed, and the queue is as that left it: reset. */
static int recovery_start(struct host_ublk *u, uint32_t number, struct rt_blk_info *info)
{
	int res = ublk_control_simple(u, UBLK_RECOVERY_START, number, 0);
	int res_info = info_get(u, number, info);
	if (res_info < 0)
		return res_info;
	return res == -EINVAL && info->state == RT_BLK_ORPHANED ? 0 : res;
}

static int recovery_wait(struct host_ublk *u, uint32_t number, uint64_t deadline_ns, struct rt_blk_info *info)
{
	int res;
	while ((res = recovery_start(u, number, info)) == -EBUSY && rt_now_ns(rt_current()) < deadline_ns)
		fiber_sleep(RECOVER_PAUSE_NS);
	return res < 0 ? err_from_errno(-res) : 0;
}

static int blk_recover(struct rt *rt, uint32_t number, uint64_t deadline_ns, struct rt_blk **out)
{
	struct host_ublk *u;
	struct rt_blk_info info;
	int err = host_ublk_open(host_of(rt), &u);
	if (!err)
		err = recovery_wait(u, number, deadline_ns, &info);
	if (err)
		return err;
	struct host_blk *b = blk_new(rt, u, &info.spec);
	b->recovering = true;
	err = char_device_open(b);
	if (err)
		blk_close(&b->blk);
	else
		*out = &b->blk;
	return err;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static void tag_send(struct host_blk *b, uint32_t tag, uint32_t op, int result, uint16_t personality)
{
	struct io_uring_sqe *sqe = host_sqe(host_of_blk(b));
	struct ublk_io_wire w = {.tag = (uint16_t)tag, .result = result};
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = b->fd;
	sqe->cmd_op = op;
	sqe->personality = personality;
	memcpy(sqe->cmd, &w, sizeof(w));
	io_uring_sqe_set_data(sqe, &b->tags[tag].op);
	b->with_kernel++;
}

/* 0: a request. Anything else: the device is stopped and the tag comes back empty. */
static void tag_complete(struct host_op *op, int res, uint32_t flags)
{
	(void)flags;
	struct blk_tag *t = container_of(op, struct blk_tag, op);
	struct host_blk *b = t->owner;
	b->with_kernel--;
	if (res == 0) {
		b->with_us++;
		list_add_tail(&b->ready, &t->link);
	} else if (res != -ENODEV) {
		LOG_ERROR("ublk.refused", "the kernel refuses to hand out requests",
			  F_U64("number", b->blk.spec.number), F_U64("tag", t->number),
			  F_STR("reason", strerror(-res)));
	}
	waitq_wake_one(&b->taker);
}

static enum rt_blk_op op_of(uint32_t op_flags)
{
	switch (op_flags & UBLK_OP_MASK) {
	case UBLK_OP_READ:
		return RT_BLK_READ;
	case UBLK_OP_WRITE:
		return RT_BLK_WRITE;
	case UBLK_OP_FLUSH:
		return RT_BLK_FLUSH;
	case UBLK_OP_DISCARD:
		return RT_BLK_DISCARD;
	case UBLK_OP_ZERO:
		return RT_BLK_ZERO;
	default:
		return RT_BLK_UNKNOWN;
	}
}

static void request_read(const struct host_blk *b, uint32_t tag, struct rt_blk_request *out)
{
	const struct ublk_request_wire w = b->requests[tag];
	*out = (struct rt_blk_request){
		.op = op_of(w.op_flags),
		.flags = (w.op_flags & UBLK_REQ_FUA ? RT_BLK_FUA : 0u) |
			 (w.op_flags & UBLK_REQ_NO_UNMAP ? RT_BLK_NO_HOLE : 0u),
		.tag = tag,
		.offset_bytes = w.first_sector * UBLK_SECTOR_BYTES,
		.len_bytes =
			(w.op_flags & UBLK_OP_MASK) == UBLK_OP_FLUSH ? 0 : w.sector_count * UBLK_SECTOR_BYTES,
	};
}

static int blk_next(struct rt_blk *blk, struct rt_blk_request *out)
{
	struct host_blk *b = blk_of(blk);
	struct blk_tag *t;
	while (!(t = list_pop(&b->ready, struct blk_tag, link))) {
		if (b->fetched && b->with_kernel == 0 && b->with_us == 0)
			return OXE_SHUTDOWN;
		waitq_wait(&b->taker);
	}
	request_read(b, t->number, out);
	return 0;
}

static off_t payload_place(uint32_t tag, uint64_t at_bytes)
{
	return (off_t)(UBLK_PAYLOAD_BASE + ((uint64_t)tag << UBLK_PAYLOAD_SHIFT) + at_bytes);
}

static int blk_payload_get(struct rt_blk *blk, const struct rt_blk_request *r, void *data)
{
	for (uint64_t at = 0; at < r->len_bytes;) {
		ssize_t n = pread(blk_of(blk)->fd, (char *)data + at, r->len_bytes - at,
				  payload_place(r->tag, at));
		if (n <= 0 && !(n < 0 && errno == EINTR))
			return OXE_IO;
		at += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static int blk_payload_put(struct rt_blk *blk, const struct rt_blk_request *r, const void *data)
{
	for (uint64_t at = 0; at < r->len_bytes;) {
		ssize_t n = pwrite(blk_of(blk)->fd, (const char *)data + at, r->len_bytes - at,
				   payload_place(r->tag, at));
		if (n <= 0 && !(n < 0 && errno == EINTR))
			return OXE_IO;
		at += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static void blk_done(struct rt_blk *blk, const struct rt_blk_request *r, int err)
{
	struct host_blk *b = blk_of(blk);
	bool moves_data = r->op == RT_BLK_READ || r->op == RT_BLK_WRITE;
	int result = moves_data ? (int)r->len_bytes : 0;
	assert(b->with_us > 0);
	b->with_us--;
	tag_send(b, r->tag, UBLK_COMMIT_AND_FETCH, err ? -err_errno(err) : result, 0);
}

/* ---- starting and stopping ----------------------------------------------------------------------------------------------- */

static int capabilities_call(long call, struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	return syscall(call, &header, data) ? errno : 0;
}

/* This thread's credentials without CAP_SYS_ADMIN, as the ring knows them; 0 if there can be none such. */
static uint16_t personality_make(struct host *h)
{
	struct __user_cap_data_struct all[2], fewer[2];
	if (capabilities_call(SYS_capget, all))
		return 0;
	memcpy(fewer, all, sizeof(all));
	fewer[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
	if (capabilities_call(SYS_capset, fewer))
		return 0;
	int id = io_uring_register_personality(&h->ring);
	int err = capabilities_call(SYS_capset, all);
	assert(err == 0); /* what was dropped from the effective set is still permitted */
	return id > 0 ? (uint16_t)id : 0;
}

static int submit_all(struct host *h)
{
	int res = 0;
	while (io_uring_sq_ready(&h->ring) && (res >= 0 || res == -EINTR || res == -EAGAIN))
		res = io_uring_submit(&h->ring);
	return res;
}

/* In one system call: see the top. */
static int fetch_all(struct host_blk *b)
{
	struct host *h = host_of_blk(b);
	uint16_t personality = personality_make(h);
	if (!personality)
		return OXE_PERM;
	int res = submit_all(h);
	for (uint32_t i = 0; i < RT_BLK_DEPTH; i++)
		tag_send(b, i, UBLK_FETCH, 0, personality);
	b->fetched = true;
	if (res >= 0)
		res = submit_all(h);
	io_uring_unregister_personality(&h->ring, personality);
	return result_of(res);
}

/* After the fetching: a recovery that is killed before it may not leave the driver thinking it is ours alone to map. */
static int requests_map(struct host_blk *b)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	b->requests_bytes = u64_align_up(RT_BLK_DEPTH * sizeof(*b->requests), page_bytes);
	void *mapped = mmap(NULL, b->requests_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, b->fd, 0);
	if (mapped == MAP_FAILED)
		return err_from_errno(errno);
	b->requests = mapped;
	return 0;
}

/* Setting it waits until no request is under way, which is not for this process to do (the first rule): a child of a child does
 * it, whom nobody waits for. What this process has open does not go along. */
static void timeout_work(void *arg)
{
	static char sh[] = "sh", minus_c[] = "-c", path_variable[] = "PATH=/usr/bin:/bin";
	static char script[] =
		"{ [ \"$(cat \"$1\")\" = 1000 ] || echo 1000 >\"$1\"; } </dev/null >/dev/null 2>&1 &";
	char path[64], *arguments[] = {sh, minus_c, script, sh, path, NULL};
	char *environment[] = {path_variable, NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;
	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/io_timeout", *(const uint32_t *)arg);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	int err = posix_spawn(&pid, "/bin/sh", &actions, NULL, arguments, environment);
	posix_spawn_file_actions_destroy(&actions);
	while (!err && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (err)
		LOG_WARN("ublk.slow_recovery",
			 "the request timeout could not be lowered: after a kill under full load it may take "
			 "30 s "
			 "until the device can be recovered",
			 F_STR("path", path), F_STR("reason", strerror(err)));
}

static void timeout_lower(struct host_blk *b)
{
	uint32_t number = b->blk.spec.number;
	host_offload(b->blk.rt, timeout_work, &number);
}

/* An entry that was refused has completed by now, and nothing would ever be ready. */
static int fetched_check(struct host_blk *b)
{
	struct rt_blk_info info;
	int res = info_get(b->ublk, b->blk.spec.number, &info); /* a turn of the loop, at least */
	if (res < 0)
		return err_from_errno(-res);
	return b->with_kernel + b->with_us == RT_BLK_DEPTH ? 0 : OXE_SYS;
}

static int blk_start(struct rt_blk *blk)
{
	struct host_blk *b = blk_of(blk);
	uint32_t op = b->recovering ? UBLK_RECOVERY_END : UBLK_START;
	int res, err = fetch_all(b);
	if (!err)
		err = requests_map(b);
	if (!err)
		err = fetched_check(b);
	if (err)
		return err;
	do
		res = ublk_control_simple(b->ublk, op, blk->spec.number, (uint64_t)getpid());
	while (res == -EINTR);
	if (res >= 0)
		timeout_lower(b);
	return result_of(res);
}

static int blk_stop(struct rt_blk *blk)
{
	blk_of(blk)->fetched = true; /* also if it never came to that: no request will come */
	waitq_wake_one(&blk_of(blk)->taker);
	return result_of(ublk_control_simple(blk_of(blk)->ublk, UBLK_STOP, blk->spec.number, 0));
}

static int blk_grow(struct rt_blk *blk, uint64_t size_bytes)
{
	struct host_blk *b = blk_of(blk);
	if (!(ublk_features(b->ublk) & UBLK_FLAG_UPDATE_SIZE))
		return OXE_UNSUPPORTED;
	int res = ublk_control_simple(b->ublk, UBLK_UPDATE_SIZE, blk->spec.number,
				      size_bytes / UBLK_SECTOR_BYTES);
	if (res >= 0)
		blk->spec.size_bytes = size_bytes;
	return result_of(res);
}

#define HELD_PARTS_MAX 32

struct held_work {
	uint32_t number;
	char devices[HELD_PARTS_MAX][16]; /* "MAJOR:MINOR" of it and its partitions */
	size_t device_count;
	int err;
};

static void held_device_add(struct held_work *w, const char *path)
{
	FILE *file = fopen(path, "re");
	if (file && w->device_count < HELD_PARTS_MAX &&
	    fscanf(file, "%15s", w->devices[w->device_count]) == 1)
		w->device_count++;
	if (file)
		fclose(file);
}

static size_t held_glob(const char *pattern, struct held_work *add_to)
{
	glob_t found;
	if (glob(pattern, GLOB_NOSORT, NULL, &found))
		return 0;
	size_t count = found.gl_pathc;
	for (size_t i = 0; add_to && i < count; i++)
		held_device_add(add_to, found.gl_pathv[i]);
	globfree(&found);
	return count;
}

/* How many there are in sysfs of `name`, under the device and its partitions. */
static size_t held_entries(const struct held_work *w, const char *name, struct held_work *add_to)
{
	char pattern[96];
	snprintf(pattern, sizeof(pattern), "/sys/block/ublkb%u/%s", w->number, name);
	size_t count = held_glob(pattern, add_to);
	snprintf(pattern, sizeof(pattern), "/sys/block/ublkb%u/ublkb%up*/%s", w->number, w->number, name);
	return count + held_glob(pattern, add_to);
}

/* The third word of a line of mountinfo. */
static bool is_mount_of(const struct held_work *w, const char *line)
{
	char device[16];
	if (sscanf(line, "%*u %*u %15s", device) != 1)
		return false;
	for (size_t i = 0; i < w->device_count; i++) {
		if (strcmp(device, w->devices[i]) == 0)
			return true;
	}
	return false;
}

/* The device or a partition of it, by path, as swaps and file systems on several devices are listed. */
static bool is_path_in(const struct held_work *w, const char *line)
{
	char path[32];
	int len = snprintf(path, sizeof(path), "/dev/ublkb%u", w->number);
	const char *at = strstr(line, path);
	return at && (at[len] < '0' || at[len] > '9');
}

static bool is_listed(const struct held_work *w, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	bool listed = false;
	while (file && !listed && getline(&line, &size, file) > 0)
		listed = is_mount_of(w, line) || is_path_in(w, line);
	free(line);
	if (file)
		fclose(file);
	return listed;
}

/* Asked of lists, and not by opening the device exclusively: opening waits for whoever is just closing it, and he for his writes,
 * and they for us (the first rule). */
static void held_work(void *arg)
{
	struct held_work *w = arg;
	held_entries(w, "dev", w);
	bool held = held_entries(w, "holders/*", NULL) || is_listed(w, "/proc/self/mountinfo") ||
		    is_listed(w, "/proc/swaps");
	w->err = held ? OXE_BUSY : 0;
}

static int blk_held(struct rt *rt, uint32_t number)
{
	struct held_work w = {.number = number};
	host_offload(rt, held_work, &w);
	return w.err;
}

const struct rt_blk_ops host_blk_ops = {
	.probe = blk_probe,
	.list = blk_list,
	.make = blk_make,
	.recover = blk_recover,
	.start = blk_start,
	.grow = blk_grow,
	.next = blk_next,
	.payload_get = blk_payload_get,
	.payload_put = blk_payload_put,
	.done = blk_done,
	.held = blk_held,
	.stop = blk_stop,
	.close = blk_close,
	.remove = blk_remove,
};
