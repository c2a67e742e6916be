/*
 * sim.h: the world under a seed: machines, virtual time, disks and networks that fail, and a trace of everything.
 *
 *     struct sim *sim = sim_new(seed);
 *     struct sim_node *node = sim_node_new(sim, "a");
 *     sim_disk_new(node, "/dev/sda", 16 * MiB, 4096);
 *     fiber_spawn(sim_node_start(node), "main", fn, arg);
 *     sim_run(sim, &done, deadline_ns);
 *
 * Everything random comes from one generator seeded by sim_new, time moves only when nothing is ready, and equal times are
 * settled by order of arrival: the same seed and the same calls give the same run, bit for bit, which sim_trace_hash()
 * proves. Nothing depends on an address or on the real clock. Simulations nest: one may be run to its end inside a callback
 * of another (that is how crash states are tried while the run they come from stands still).
 *
 *   who owns memory   the sim owns nodes and disks. A killed process leaves its heap behind, as nobody is left to free it:
 *                     crash a fork of the disks (below) rather than the node where that matters
 *   errors            those of rt.h; a misuse by the code under test that no real machine would allow is an assert
 */
#ifndef OXBOW_SIM_SIM_H
#define OXBOW_SIM_SIM_H

#include "base/prng.h"
#include "rt/rt.h"

#include <stdio.h>

struct sim;
struct sim_node;
struct sim_disk;

/* ---- the world ----------------------------------------------------------------------------------------------------- */

struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *sim); /* nodes that still run are killed */
/* The one generator. Whoever draws from it is part of the run. */
struct prng *sim_prng(struct sim *sim);
uint64_t sim_now_ns(const struct sim *sim);
/* Take ready fibers in an order the seed chooses, instead of first come, first served. */
void sim_shuffle(struct sim *sim, bool shuffle);

enum sim_end {
	SIM_DONE,  /* *done became true */
	SIM_STUCK, /* it did not, and nothing will ever happen again */
	SIM_LATE,  /* it did not before deadline_ns */
};
/* Run until *done, or to the end of all events if `done` is NULL (then SIM_DONE). */
enum sim_end sim_run(struct sim *sim, const bool *done, uint64_t deadline_ns);
/* Run `fn(arg)` on the loop's stack at a time. */
void sim_at(struct sim *sim, uint64_t when_ns, void (*fn)(void *arg), void *arg);

/* ---- the trace ------------------------------------------------------------------------------------------------------ */

/* Record an event: `what` is static text. All of it enters the hash; the last few hundred are kept for people. */
void sim_trace(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c);
uint64_t sim_trace_hash(const struct sim *sim);
void sim_trace_print(const struct sim *sim, FILE *out, size_t last_count);

/* ---- machines -------------------------------------------------------------------------------------------------------- */

/* A machine: its disks, an address (10.0.0.1 for the first, and so on), and at most one process. `name` is static text. */
struct sim_node *sim_node_new(struct sim *sim, const char *name);
/* Start the process: a fresh reactor. Power is on after. */
struct rt *sim_node_start(struct sim_node *node);
struct rt *sim_node_rt(struct sim_node *node); /* NULL when nothing runs */
/* An orderly end: no fiber may be left. */
void sim_node_stop(struct sim_node *node);
/* kill -9. Each 4 KiB-aligned piece of a write in flight happens wholly or not at all; nothing completed is lost; peers
 * get a reset. Not from a fiber of that node. */
void sim_node_kill(struct sim_node *node);
/* The plug. Unflushed writes are lost, kept or torn, each for itself, and peers hear nothing. */
void sim_node_power_cut(struct sim_node *node);
/* The process is gone and the power too, or the process only. */
bool sim_node_has_power(const struct sim_node *node);

/* SIGSTOP, until SIGCONT: no fiber of the process runs, and it hears of nothing. What it has asked its disks for is done, its connections stay
 * and fill up, its clock goes on. Ends with the process, too. Not from a fiber; once more is no harm. */
void sim_node_pause(struct sim_node *node);
void sim_node_resume(struct sim_node *node);
bool sim_node_is_paused(const struct sim_node *node);

/* How fast its clock runs, in thousandths of the world's time, ever since the world began: rt_now_ns, and all deadlines. The calendar is right
 * everywhere. While nothing runs. */
void sim_node_set_clock(struct sim_node *node, uint32_t permille);

/* ---- disks ------------------------------------------------------------------------------------------------------------ */

enum sim_discard {
	SIM_DISCARD_KEEPS, /* accepted and ignored: the old data stays */
	SIM_DISCARD_ZEROES,
	SIM_DISCARD_GARBAGE, /* something else is there */
	SIM_DISCARD_MIXED,   /* one of these, sector by sector */
	SIM_DISCARD_REFUSED, /* the device knows no discards, and says so */
};

/* "One in n" is a chance for each request; 0 is never. Change them at any time. */
struct sim_disk_faults {
	uint64_t latency_min_ns, latency_max_ns; /* reads and writes, evenly between */
	uint64_t flush_ns;
	uint32_t stall_one_in; /* a request that takes stall_ns */
	uint64_t stall_ns;
	uint32_t read_error_one_in, write_error_one_in, flush_error_one_in; /* OXE_IO; a write in part */
	uint64_t fail_read_nth, fail_write_nth;				    /* the nth from now on, once */
	uint64_t fail_nth;	   /* the same, of reads, writes and flushes counted together */
	uint32_t misdirect_one_in; /* a write that lands somewhere else, and says it is done */
	uint32_t rot_one_in;	   /* a write during which one bit flips somewhere on the disk */
	uint32_t latent_one_in; /* a write during which a page somewhere becomes unreadable until rewritten */
	enum sim_discard discard;
	uint32_t torn_bytes;  /* at a power cut writes tear at multiples of this: 512, 4096; 0: they do not */
	bool write_through;   /* a disk without a volatile cache: every completed write is durable */
	uint64_t space_bytes; /* under a pool file: more written pages than this are OXE_NOSPC. 0: no limit */
};

/* One row a fault, for --list-faults. Ends with a NULL name. */
struct sim_fault_text {
	const char *name, *text;
};
extern const struct sim_fault_text sim_fault_texts[];

/* A disk in a machine. Unwritten space reads as zeroes. */
struct sim_disk *sim_disk_new(struct sim_node *node, const char *path, uint64_t size_bytes,
			      uint32_t lba_bytes);
struct sim_disk *sim_disk_find(struct sim_node *node, const char *path);
/* Unwritten space reads as garbage: a disk that served somebody else. Before the first write. */
void sim_disk_fill(struct sim_disk *disk, uint64_t fill_seed);
struct sim_disk_faults *sim_disk_faults(struct sim_disk *disk);
/* Whoever provides a block device makes it larger. Its opener hears of it by rt_disk_grow. */
void sim_disk_enlarge(struct sim_disk *disk, uint64_t size_bytes);
/* What rt_disk_probe says about it; static text. NULL: judge by whether both ends are zero. */
void sim_disk_set_probe(struct sim_disk *disk, const char *what);

struct sim_disk_counts {
	uint64_t reads, writes, flushes, discards, read_bytes, written_bytes;
	uint64_t errors;   /* requests that failed, and may have been done in part */
	uint64_t refusals; /* writes for which there was no room: nothing of them was done */
};
const struct sim_disk_counts *sim_disk_counts(const struct sim_disk *disk);

/* Damage at a chosen place, on the medium and in its cache. */
void sim_disk_flip_bit(struct sim_disk *disk, uint64_t offset_bytes, unsigned bit);
void sim_disk_make_unreadable(struct sim_disk *disk, uint64_t offset_bytes, uint64_t len_bytes);
/* Look at, or change, what a read would find, without being an I/O. */
void sim_disk_peek(const struct sim_disk *disk, void *data, uint64_t len_bytes, uint64_t offset_bytes);
void sim_disk_poke(struct sim_disk *disk, const void *data, uint64_t len_bytes, uint64_t offset_bytes);

/* ---- crash states ------------------------------------------------------------------------------------------------------ */

/* Called on the loop's stack just before a write, flush or discard takes effect, when every fiber has run as far as it can:
 * the moments between which crash states differ. It may freeze and fork disks and run other simulations. */
void sim_disk_watch(struct sim_disk *disk, void (*fn)(void *ctx, struct sim_disk *disk), void *ctx);

/* A disk at one moment: what is durable, what is written but not flushed, what is in flight. Costs a pointer for each of
 * the latter two. */
struct sim_frozen;
struct sim_frozen *sim_disk_freeze(const struct sim_disk *disk);
void sim_frozen_free(struct sim_frozen *frozen);
/* How many writes a power cut may lose: first those done, in the order they were done, then those in flight. */
size_t sim_frozen_unflushed(const struct sim_frozen *frozen);
size_t sim_frozen_in_flight(const struct sim_frozen *frozen); /* of these, not done yet */
/* Where the index-th of them went, for people. */
void sim_frozen_write(const struct sim_frozen *frozen, size_t index, uint64_t *offset_bytes,
		      uint64_t *len_bytes);

enum sim_fate { SIM_LOST, SIM_KEPT, SIM_TORN };

/* A new disk of `node` that holds the frozen one after a power cut in which each unflushed write had the fate given:
 * fates[i] for the i-th. What a torn one leaves is drawn from the node's sim, so `node` should be of a sim of its own. */
struct sim_disk *sim_disk_fork_power_cut(struct sim_node *node, const char *path,
					 const struct sim_frozen *frozen, const uint8_t *fates);
/* The same after a kill: what was done stays, still unflushed; of what was in flight, each piece is drawn. */
struct sim_disk *sim_disk_fork_kill(struct sim_node *node, const char *path, const struct sim_frozen *frozen);

/* ---- the network --------------------------------------------------------------------------------------------------------- */

struct sim_net_faults {
	uint64_t latency_min_ns, latency_max_ns;
	uint64_t bytes_per_s;	/* 0: no limit */
	uint32_t split_one_in;	/* a receive that returns less than is there; 1: always */
	uint32_t reset_one_in;	/* a sent segment at which the connection breaks for both ends */
	uint64_t reset_nth;	/* the same for the nth segment from now on, once */
	uint64_t retransmit_ns; /* how long a segment that could not pass waits until it is tried again */
	size_t window_bytes;	/* sent but not received: more than this and the sender waits */
};
struct sim_net_faults *sim_net_faults(struct sim *sim);

/* Nothing passes from one node to the other (both ways: call twice) until healed. Bytes wait, as TCP's would. */
void sim_net_cut(struct sim *sim, struct sim_node *from, struct sim_node *to);
void sim_net_heal(struct sim *sim, struct sim_node *from, struct sim_node *to);
void sim_net_heal_all(struct sim *sim);
/* "10.0.0.1" */
const char *sim_node_address(const struct sim_node *node);

/* ---- offloaded work ------------------------------------------------------------------------------------------------------ */

/* Virtual time that rt_offload costs. */
void sim_set_offload_ns(struct sim *sim, uint64_t cost_ns);

#endif
