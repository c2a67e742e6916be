/* host_internal.h: what the files of host/ share: the reactor, its ring, its inbox and its workers. */
#ifndef OXBOW_HOST_HOST_INTERNAL_H
#define OXBOW_HOST_HOST_INTERNAL_H

#include "host/host.h"
#include "host/host_spin.h"
#include "rt/rt_platform.h"

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

/* Whoever waits for a completion; a ring entry's user_data points here (or is 0: nobody cares). Runs on the loop's stack. */
struct host_op {
	void (*complete)(struct host_op *op, int res, uint32_t flags);
};

/* A completion copied out of the ring when the ring had to be emptied in the middle of a turn. */
struct host_cqe {
	struct host_op *op;
	int res;
	uint32_t flags;
};

/* A note to a reactor from any thread; `run` is called on its loop's stack and owns the note. */
struct host_msg {
	struct host_msg *next;
	void (*run)(struct host_msg *msg);
};

#define HOST_FILE_SLOTS 64

/* How long something held by somebody is asked for again before it is OXE_BUSY: a fifth of a second. */
#define HOST_BUSY_TRIES	   40
#define HOST_BUSY_PAUSE_NS (5 * NS_PER_MS)

struct host_workers;

struct host {
	struct rt rt;
	struct io_uring ring;
	bool ring_enabled, plain_ring_fd, has_file_slots;
	uint64_t file_slots_used; /* a bit each */

	struct host_cqe *stash;
	size_t stash_count, stash_capacity;
	struct list done_ios; /* rt_io that need no kernel: their `done` runs next turn */

	_Atomic(struct host_msg *) inbox; /* newest first */
	atomic_bool asleep;		  /* set around a blocking wait: a poster then must ring */
	atomic_bool stopping;
	int wake_fd; /* eventfd, watched by a multishot poll */
	bool wake_armed;
	struct host_op wake_op;

	struct host_workers *workers;
	struct list listeners;	/* all, so that ones nobody asks again are freed in the end */
	uint32_t open_objects;	/* disks and connections */
	struct host_ublk *ublk; /* the way to the ublk driver; NULL until asked for */

	struct host_spin spin[2]; /* [1]: while the disk is at work */
	uint32_t disk_in_flight;  /* requests the kernel has */
	uint32_t last_reaped;	  /* completions of the last turn */
};

static inline struct host *host_of(struct rt *rt)
{
	return container_of(rt, struct host, rt);
}

/* ---- host_loop.c ---- */

/* A fresh ring entry; if the ring is full, what is queued goes to the kernel first. The caller preps it, then sets op. */
struct io_uring_sqe *host_sqe(struct host *h);

/* The rest of one blocking call: hand in a prepared entry, suspend, return its result (-errno or more). */
struct host_wait {
	struct host_op op;
	struct fiber *fiber;
	int res;
	bool done;
};
int host_await(struct io_uring_sqe *sqe, struct host_wait *wait);
/* Ask the kernel to give up what `op` waits for; it completes with -ECANCELED, or as it would have. */
void host_cancel(struct host *h, struct host_op *op);

/* From any thread. */
void host_msg_send(struct host *h, struct host_msg *msg);

/* ---- host_worker.c ---- */

/* `work` runs on a worker thread, then `finish` on the loop's stack of `home`. The caller owns the memory until then. */
struct host_job {
	struct host_msg msg;
	struct host *home;
	void (*work)(struct host_job *job);
	void (*finish)(struct host_job *job);
	struct host_job *next;
};

struct host_workers *host_workers_start(unsigned count);
void host_workers_stop(struct host_workers *w); /* after what is queued */
void host_job_start(struct host *h, struct host_job *job);
void host_offload(struct rt *rt, void (*fn)(void *arg), void *arg);

/* ---- host_disk.c, host_mem.c, host_probe.c ---- */

struct mem_disk;

struct host_disk {
	struct rt_disk disk;
	int fd, slot; /* slot: index among the ring's registered files, or -1 */
	int hold_fd;  /* what holds the file for us: a descriptor of its own, or fd (see host_disk.c) */
	bool read_only, is_memory_file;
	uint32_t in_flight;
	struct mem_disk *mem;
};

int host_disk_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes,
		   struct rt_disk **out);
void host_disk_close(struct rt_disk *disk);
int host_disk_grow(struct rt_disk *disk, uint64_t size_bytes);
void host_disk_expect(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes);
int host_disk_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes);
void host_io_submit(struct rt_io *io);
/* Complete without the kernel, next turn. */
void host_io_finish_later(struct host *h, struct rt_io *io, int result);

bool mem_path(const char *path);
int mem_disk_open(struct host_disk *d, const char *path, unsigned flags);
void mem_disk_close(struct host_disk *d);
int mem_disk_grow(struct host_disk *d, uint64_t size_bytes);
int mem_disk_probe(const char *path, char *what, size_t what_size_bytes);
/* Carries the request out at once; its result. */
int mem_disk_io(struct host_disk *d, struct rt_io *io);

/* What the bytes at both ends of a disk say by themselves: "Oxbow pool", "non-zero data" or "". */
#define PROBE_END_BYTES MiB
const char *probe_bytes(const uint8_t *head, size_t head_bytes, const uint8_t *tail, size_t tail_bytes);
bool probe_is_oxbow(const uint8_t *head, size_t head_bytes);

/* ---- host_net.c, host_addr.c ---- */

int host_listen(struct rt *rt, const char *address, struct rt_listener **out);
const char *host_listener_address(const struct rt_listener *l);
int host_accept(struct rt_listener *l, struct rt_conn **out);
void host_listener_close(struct rt_listener *l);
void host_listeners_free(struct host *h);
int host_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out);
int host_recv(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes);
int host_send(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count);
void host_conn_shutdown(struct rt_conn *c);
void host_conn_close(struct rt_conn *c);
const char *host_conn_peer(const struct rt_conn *c);
const char *host_conn_local(const struct rt_conn *c);

/* ---- host_ublk.c, host_ublk_control.c ---- */

extern const struct rt_blk_ops host_blk_ops;
void host_ublk_free(struct host *h);

#endif
