/*
 * host.h: the door to the real world: a reactor on io_uring, sockets, clocks and a few worker threads.
 *
 *     struct rt *rt = host_rt_new(&(struct host_options){0});
 *     fiber_spawn(rt, "main", main_fiber, NULL);
 *     host_rt_run(rt);                             until somebody calls host_rt_stop()
 *
 * One thread runs one reactor. A process may have several; they talk through rt_post() and rt_call(). An idle reactor
 * sleeps in the kernel. Whatever queues up during a turn of the loop goes to the kernel in one system call at its end.
 */
#ifndef OXBOW_HOST_HOST_H
#define OXBOW_HOST_HOST_H

#include "rt/rt.h"

struct host_options {
	unsigned
		ring_entries; /* submissions queued between two system calls; 0: 1024. More are sent on at once. */
	unsigned worker_threads; /* for rt_offload; 0: 2 */
	bool plain_ring_fd; /* do not register the ring's own descriptor (it saves a lookup on each call) */
};

/* From then on there is a second process, which ends connections that were accepted here as soon as this process is gone, however that
 * came. Once, before there is a thread or a file that nobody else may have. 0, or OXE_: then they end when the kernel gets to it. */
OX_CHECKED int host_survivor_start(void);
/* From any thread; it may be another than the one that runs it. NULL if the kernel refuses (logged as "host.refused"). */
struct rt *host_rt_new(const struct host_options *options);
/* Turn the loop on the calling thread until host_rt_stop(). May be called again, by the same thread. */
void host_rt_run(struct rt *rt);
/* Make host_rt_run() return at the end of its turn. From any thread, and from a signal handler. */
void host_rt_stop(struct rt *rt);
/* After host_rt_run() has returned. Every fiber must have ended and every disk and connection be closed (asserted): a
 * daemon that stops just exits (design idea 2), this is for tests and tools. */
void host_rt_free(struct rt *rt);

#endif
