/*
 * rt.h: the one door to the world: fibers, clock, timers, disks, network, randomness, worker threads.
 *
 * A `struct rt` is a reactor: one thread that runs fibers to completion or to their next wait. Everything above this door
 * (data/, most of control/) is written against it and runs unchanged on host/ (io_uring, sockets, real time) and on sim/
 * (a seed, virtual time, faulty disks and nets). The core in rt/ (run queue, timers, waiting) is the same for both.
 *
 *   who owns memory   objects handed out are owned by the caller until closed; buffers passed in stay the caller's and must
 *                     not move until the call returns (or `done` runs)
 *   which reactor     every object belongs to the reactor that made it and is touched by its fibers alone, so nothing here
 *                     locks. rt_post() and rt_call() are the only ways across, and the only calls safe from other threads
 *   units             times in nanoseconds, sizes and offsets in bytes
 *   errors            0 or an OXE_ code (base/err.h)
 *
 * A call that can suspend the calling fiber says "Suspends". State read before it may have changed after it.
 */
#ifndef OXBOW_RT_RT_H
#define OXBOW_RT_RT_H

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"
#include "base/uuid.h"

struct rt;
struct fiber;
struct rt_ops;

/* ---- the clock and chance ---------------------------------------------------------------------------------------- */

/* Monotonic, from an arbitrary origin. As of the start of this turn of the loop on the host: cheap, at most a turn old. */
uint64_t rt_now_ns(struct rt *rt);
/* Monotonic and exact, for measuring; costs a clock read. */
uint64_t rt_now_exact_ns(struct rt *rt);
/* Since 1970, UTC; may jump. Only for showing to people, never for deciding. */
uint64_t rt_wall_ns(struct rt *rt);
/* From the kernel's generator on the host, from the seed in the simulator. */
void rt_random(struct rt *rt, void *data, size_t len_bytes);
uint64_t rt_random_u64(struct rt *rt);
struct uuid rt_random_uuid(struct rt *rt);

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

/* The reactor of the calling fiber (or of the loop, inside a `done` or timer callback). */
struct rt *rt_current(void);
/* The calling fiber; NULL on the loop's own stack, where nothing may suspend. */
struct fiber *fiber_current(void);

/* Start `fn(arg)` as a fiber of this reactor, from a fiber of it or before it runs. It is put at the end of the run queue;
 * the caller goes on. `name` is static text, for traces. Nothing is returned: fibers are joined with rt_group. */
void fiber_spawn(struct rt *rt, const char *name, void (*fn)(void *arg), void *arg);
/* The same with a 256 KiB stack instead of 64 KiB, for foreign libraries (TLS) that like to use it. */
void fiber_spawn_big(struct rt *rt, const char *name, void (*fn)(void *arg), void *arg);
/* Suspends until the other ready fibers have run once. */
void fiber_yield(void);
/* Suspends for at least `ns`. */
void fiber_sleep(uint64_t ns);

/* Waiting, the primitive under everything else. A fiber parks itself; whoever holds its pointer makes it ready, once. */
void fiber_park(void);		   /* Suspends until fiber_ready(). */
void fiber_ready(struct fiber *f); /* Puts a parked fiber on the run queue. Does not suspend. */

/* ---- waiting for each other --------------------------------------------------------------------------------------- */

/* A queue of fibers waiting for something the owner describes. FIFO. Zero-fill is not enough: waitq_init(). */
struct waitq {
	struct list waiters;
};
void waitq_init(struct waitq *q);
/* Suspends until woken. Re-check the condition after: another fiber may have been first. */
void waitq_wait(struct waitq *q);
/* As above, or until the clock passes deadline_ns: then returns false. */
bool waitq_wait_until(struct waitq *q, uint64_t deadline_ns);
void waitq_wake_one(struct waitq *q);
void waitq_wake_all(struct waitq *q);
bool waitq_empty(const struct waitq *q);

/* Mutual exclusion between fibers of one reactor, held across suspensions; FIFO, so nobody starves. */
struct fmutex {
	struct fiber *holder;
	struct waitq waiters;
};
void fmutex_init(struct fmutex *m);
void fmutex_lock(struct fmutex *m); /* Suspends. */
void fmutex_unlock(struct fmutex *m);

/* A count of things under way; wait for none. group_add before starting a thing, group_done when it ends. */
struct rt_group {
	uint32_t pending;
	struct waitq waiters;
};
void group_init(struct rt_group *g);
void group_add(struct rt_group *g, uint32_t count);
void group_done(struct rt_group *g);
void group_wait(struct rt_group *g); /* Suspends until pending is 0. */

/* ---- timers ------------------------------------------------------------------------------------------------------- */

/* Runs `fn` on the loop's stack (it must not suspend) once, at or after deadline_ns. The struct is the caller's. */
struct rt_timer {
	uint64_t deadline_ns;
	void (*fn)(struct rt_timer *timer);
	size_t heap_index; /* 0: not armed */
	uint64_t order;	   /* the core's: timers of one deadline fire in the order they were armed */
};
void timer_init(struct rt_timer *t, void (*fn)(struct rt_timer *timer));
void timer_arm(struct rt *rt, struct rt_timer *t, uint64_t deadline_ns); /* re-arms if armed */
void timer_cancel(struct rt *rt, struct rt_timer *t);			 /* harmless if not armed */

/* ---- between reactors and threads ---------------------------------------------------------------------------------- */

/* Run `fn(arg)` in a new fiber of `target`. Safe from any thread; never suspends; messages from one thread keep order. */
void rt_post(struct rt *target, void (*fn)(void *arg), void *arg);
/* The same, and Suspends the calling fiber until fn has returned. If target is the caller's own reactor, calls fn directly. */
void rt_call(struct rt *target, void (*fn)(void *arg), void *arg);
/* Run `fn(arg)` on a worker thread (in the simulator: at once, costing virtual time) and suspend until it is done. For what
 * blocks or computes long: it must touch nothing that a reactor owns. Suspends. */
void rt_offload(void (*fn)(void *arg), void *arg);

/* ---- disks -------------------------------------------------------------------------------------------------------- */

enum rt_io_op { RT_IO_READ, RT_IO_WRITE, RT_IO_FLUSH, RT_IO_DISCARD };
enum {
	RT_IO_FUA = 1
}; /* the write is on stable storage when done (the device's cache is passed or flushed) */

struct rt_disk;

/* One request to a disk. Fill the first part, submit, keep it until `done` has run (on the loop's stack: must not suspend,
 * may submit more, may make fibers ready). A write that failed may have been carried out in part. */
struct rt_io {
	struct rt_disk *disk;
	enum rt_io_op op;
	uint32_t flags;
	void *data;	       /* READ and WRITE: aligned to RT_MEMORY_ALIGN */
	uint64_t offset_bytes; /* multiple of the disk's lba_bytes */
	uint64_t len_bytes;    /* multiple of the disk's lba_bytes; 0 for FLUSH */
	void (*done)(struct rt_io *io);
	int result; /* 0, or OXE_IO, OXE_NOSPC (the file system under a pool file is full), OXE_SYS */
	/* For the platform. */
	struct list link;
	uint64_t private[4];
};

#define RT_IO_ALIGN 4096
/* What direct I/O needs of a payload in memory. Less than a page, so that the middle of a client's buffer can go to disk. */
#define RT_MEMORY_ALIGN 512

struct rt_disk_info {
	uint64_t size_bytes;
	uint32_t lba_bytes; /* 512 or 4096: the smallest write; larger ones may be torn at multiples of it */
	bool is_block_device, is_memory;
	bool never_waits; /* reads and writes of it take a copy and no longer: memory, a file in memory */
	bool refuses_discards; /* it has said so to one: from then on they do nothing, and are no error */
	char path[256];	       /* as opened, for messages; never an identity */
};

enum {
	RT_DISK_READONLY = 1,
	RT_DISK_CREATE = 2, /* a sparse file of `size_bytes`; OXE_EXISTS if something is there */
};

/* Open a block device or regular file for direct I/O, held exclusively: OXE_BUSY if any process has it open as a pool.
 * Once it is open, nothing that a holder before wrote can arrive any more, even one that was killed while writing (a reader
 * who may not write to the file is not promised that).
 * "mem:SIZE_BYTES:NAME" is plain memory that lives as long as the process. `size_bytes` only matters with RT_DISK_CREATE.
 * Suspends. */
OX_CHECKED int rt_disk_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes,
			    struct rt_disk **out);
void rt_disk_close(struct rt_disk *disk);
const struct rt_disk_info *rt_disk_info(const struct rt_disk *disk);
/* Extend a regular file to size_bytes, or notice that a block device has grown; the new size is in rt_disk_info. Suspends. */
OX_CHECKED int rt_disk_grow(struct rt_disk *disk, uint64_t size_bytes);
/* Advice: [offset, offset + len) is about to be written for the first time. A sparse file takes the space in one go, which makes
 * those first writes cheaper (4 KiB at depth 1 on ext4: 1.4 times as many a second); others ignore it. Does not suspend. */
void rt_disk_expect(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes);
/* What a foreign program would see on this path: writes e.g. "ext4 file system" or "GPT partition table" into `what`
 * (empty: nothing known, and the first and last MiB are zero or the file is new). Never opens for writing. Suspends. */
OX_CHECKED int rt_disk_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes);

/* Never suspends, never calls done before it returns. */
void rt_io_submit(struct rt_io *io);

/* Suspends until the one request is done; returns its result. */
OX_CHECKED int rt_disk_read(struct rt_disk *disk, void *data, uint64_t len_bytes, uint64_t offset_bytes);
OX_CHECKED int rt_disk_write(struct rt_disk *disk, const void *data, uint64_t len_bytes,
			     uint64_t offset_bytes, unsigned flags);
/* Everything whose `done` ran before this was submitted is on stable storage after. */
OX_CHECKED int rt_disk_flush(struct rt_disk *disk);
/* Advice: the content becomes undefined (S1: nothing is assumed about it). 0 also where discards are not known. */
OX_CHECKED int rt_disk_discard(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes);

/* ---- payload buffers ----------------------------------------------------------------------------------------------- */

/* A bounded pool of aligned buffers. When its budget is out, rt_buf_get waits: back-pressure, not malloc. What lies unused for a
 * second or two goes back to the system. */
struct rt_bufpool;
struct rt_bufpool *rt_bufpool_new(struct rt *rt, uint64_t budget_bytes);
void rt_bufpool_free(struct rt_bufpool *pool);
/* A buffer of at least len_bytes, aligned to RT_IO_ALIGN, contents undefined. len_bytes must be at most the budget.
 * FIFO among waiters. Suspends. */
void *rt_buf_get(struct rt_bufpool *pool, size_t len_bytes);
/* The same without waiting: NULL when the budget is out or others wait. */
void *rt_buf_try(struct rt_bufpool *pool, size_t len_bytes);
/* len_bytes as given to rt_buf_get. Poisoned under ASan until given out again. */
void rt_buf_put(struct rt_bufpool *pool, void *buf, size_t len_bytes);

/* ---- network ------------------------------------------------------------------------------------------------------- */

struct rt_listener;
struct rt_conn;

struct rt_iovec {
	void *data;
	size_t len_bytes;
};

/* Addresses are text: "unix:/run/oxbow/nbd.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:10809"; port 0 picks one. A stale unix
 * socket file (nobody listens) is replaced; a live one is OXE_BUSY. Unix sockets are made with mode 0660. Suspends. */
OX_CHECKED int rt_listen(struct rt *rt, const char *address, struct rt_listener **out);
/* The address in the same form, with the port that was picked. */
const char *rt_listener_address(const struct rt_listener *l);
/* The next connection. OXE_SHUTDOWN after rt_listener_close, OXE_SYS if the process is out of descriptors (wait and ask
 * again). Suspends. */
OX_CHECKED int rt_accept(struct rt_listener *l, struct rt_conn **out);
/* Stops accepting; a fiber inside rt_accept returns OXE_SHUTDOWN, and frees nothing: the struct goes when both are done. */
void rt_listener_close(struct rt_listener *l);

OX_CHECKED int rt_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out);
/* At least one byte into `data`; *got_bytes = 0 is the peer's orderly end. One receiver at a time. Suspends. */
OX_CHECKED int rt_recv(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes);
/* All of it, in order, or an error after which nothing more can be sent. One sender at a time; one receiver may be
 * active besides. Suspends. */
OX_CHECKED int rt_send(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count);
/* Both directions end: a fiber inside rt_recv or rt_send returns OXE_CLOSED soon. Callable from a timer. Idempotent. */
void rt_conn_shutdown(struct rt_conn *c);
/* Ends and frees. No fiber may be inside rt_recv or rt_send. */
void rt_conn_close(struct rt_conn *c);
/* For logs: "127.0.0.1:53412" or "unix:pid=123,uid=0". */
const char *rt_conn_peer(const struct rt_conn *c);
/* Where the peer reached us, in the form of rt_listen: "tcp:10.0.0.7:4420", whatever wildcard was listened on. "" if that is
 * no TCP address. */
const char *rt_conn_local(const struct rt_conn *c);

/* ---- block devices that we serve ------------------------------------------------------------------------------------ */

/* A block device of this machine whose requests come to us (on Linux: ublk). The kernel keeps it when this process dies, holds
 * back what is asked of it, and asks again whoever recovers it: its users see a pause. So it is made in two steps, with time
 * to note its number in between, and a later process finds it by number and mark.
 *
 * Where there are none (an old kernel, the simulator) every call that can fail is OXE_UNSUPPORTED. */
struct rt_blk;

#define RT_BLK_ANY_NUMBER UINT32_MAX
#define RT_BLK_DEPTH	  128 /* requests in flight, of one device */
#define RT_BLK_IO_BYTES	  (1 * MiB)

enum rt_blk_state {
	RT_BLK_MADE,	/* never started, or stopped: nobody can have it open */
	RT_BLK_SERVED,	/* by a process that lives, or is just dying */
	RT_BLK_ORPHANED /* its server is gone: its users wait */
};

struct rt_blk_spec {
	uint32_t number; /* N of /dev/ublkbN, or RT_BLK_ANY_NUMBER */
	uint32_t lba_bytes;
	uint64_t size_bytes;
	uint64_t mark; /* ours, kept by the device */
	bool read_only;
};

struct rt_blk_info {
	struct rt_blk_spec spec;
	enum rt_blk_state state;
	bool is_like_ours; /* made with the features this program makes them with: it could be recovered */
};

/* Can devices be made at all? Then 0, and whether they can grow while in use. Suspends. */
OX_CHECKED int rt_blk_probe(struct rt *rt, bool *can_grow);
/* Every device of the machine, whoever made it: at most `max` of them. Suspends. */
OX_CHECKED int rt_blk_list(struct rt *rt, struct rt_blk_info *infos, size_t max, size_t *count);
/* A new device that nobody sees yet. OXE_EXISTS: the number is taken. Suspends. */
OX_CHECKED int rt_blk_make(struct rt *rt, const struct rt_blk_spec *spec, struct rt_blk **out);
/* Take over a device whose server died: waits, until deadline_ns, for the kernel to be done with that one (OXE_BUSY). Suspends. */
OX_CHECKED int rt_blk_recover(struct rt *rt, uint32_t number, uint64_t deadline_ns, struct rt_blk **out);
/* Begin, or go on, to serve; a fiber must be taking requests, or this may never return. Suspends. */
OX_CHECKED int rt_blk_start(struct rt_blk *blk);
const struct rt_blk_spec *rt_blk_spec(const struct rt_blk *blk); /* with its number */
/* Larger only. OXE_UNSUPPORTED if this kernel cannot. Suspends. */
OX_CHECKED int rt_blk_grow(struct rt_blk *blk, uint64_t size_bytes);

enum rt_blk_op { RT_BLK_READ, RT_BLK_WRITE, RT_BLK_FLUSH, RT_BLK_DISCARD, RT_BLK_ZERO, RT_BLK_UNKNOWN };
enum { RT_BLK_FUA = 1, RT_BLK_NO_HOLE = 2 };

/* As the kernel put it: nothing in it has been checked against the device. */
struct rt_blk_request {
	enum rt_blk_op op;
	unsigned flags;
	uint32_t tag; /* below RT_BLK_DEPTH: names it until it is done */
	uint64_t offset_bytes, len_bytes;
};

/* The next request. OXE_SHUTDOWN: the device was stopped and all is done. One fiber at a time. Suspends. */
OX_CHECKED int rt_blk_next(struct rt_blk *blk, struct rt_blk_request *out);
/* Copy a write's payload out of it, or what was read into it. Do not suspend. */
OX_CHECKED int rt_blk_payload_get(struct rt_blk *blk, const struct rt_blk_request *r, void *data);
OX_CHECKED int rt_blk_payload_put(struct rt_blk *blk, const struct rt_blk_request *r, const void *data);
/* Answer it; the tag is free for another. Does not suspend. */
void rt_blk_done(struct rt_blk *blk, const struct rt_blk_request *r, int err);

/* OXE_BUSY if it is mounted, swapped on, or under another device. Suspends. */
OX_CHECKED int rt_blk_held(struct rt *rt, uint32_t number);
/* The block device disappears; what is in flight is answered first, so somebody must be taking requests, and rt_blk_next then
 * returns OXE_SHUTDOWN. Suspends. */
OX_CHECKED int rt_blk_stop(struct rt_blk *blk);
/* Free our side, after rt_blk_next has returned OXE_SHUTDOWN or if the device was never started. The device stays. */
void rt_blk_close(struct rt_blk *blk);
/* Delete a device that nobody serves, in any state. 0 if there is none. Suspends. */
OX_CHECKED int rt_blk_remove(struct rt *rt, uint32_t number);

#endif
