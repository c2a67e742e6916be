/*
 * nvme_host.h: the host (initiator) of NVMe over TCP: one namespace of one subsystem, read and written from fibers.
 *
 *     struct nvme_host *h = nvme_host_new(rt, &(struct nvme_host_options){.address = "tcp:10.0.0.2:4420", ...});
 *     nvme_host_wait(h, deadline_ns)          until it is live the first time
 *     nvme_host_read(h, data, offset_bytes, len_bytes) ...
 *     nvme_host_close(h);
 *
 * An association is one admin queue and `queues` I/O queues, each a TCP connection. It is made, kept alive, and made anew for
 * ever, with back-off and jitter, until the host is closed. When any of its connections ends, all of them do.
 *
 *     who              does
 *     life fiber       what the state below says: makes the association, keeps it, takes it down
 *     receiver         one a queue: what the target says, checked, into the callers' memory
 *     sender           one a queue, while there is something to send: capsules and data, gathered
 *
 * The state, moved by nvme_host_step() alone (nvme_host_state.h has the table):
 *
 *                        open                made
 *     DISCONNECTED ------------> CONNECTING ------> LIVE
 *       ^      ^  back-off over      |                | lost: a connection, the protocol, a time-out
 *       |      +---------------+     | failed         v
 *       |                      |     +--------> RESETTING
 *       |         gone         |                     |
 *       +----------------------+---------------------+
 *     each of them, closed ----> DELETING -- gone --> DELETED
 *
 * What a command that was sent and not answered becomes when its connection ends is the caller's choice:
 *
 *     NVME_HOST_REPORT  it ends with OXE_INDOUBT: it may or may not have been carried out. What was never sent, and all that
 *                       is submitted while the host is not live, ends with OXE_CLOSED: it certainly was not. For replicas.
 *     NVME_HOST_REPLAY  it is sent again on the next association; the caller sees a pause. While such a command is unanswered,
 *                       a later one that overlaps it waits, so that they are carried out in the order they were submitted.
 *                       For clients.
 *
 * Ghosts. A write that is replayed may have a copy of itself on the old connection, in the network or in the target, and that
 * copy must not be carried out after something newer. Where the target ended the connection there is none: it must end what it
 * holds of a host before it serves that host anew (data/frontend/nvmf does). Where the connection was given up here, all
 * requests wait until the target's keep alive has certainly ended the old association: two time-outs, and a second.
 *
 * With a key every connection is TLS 1.3, in which both sides prove that they have it; never is anything sent in the clear then.
 *
 *   who owns memory   options are copied, and a key is wiped at the end; a request and its data are the caller's, and stay until `done` has run
 *   which reactor     that of `rt`; every call from a fiber of it
 *   errors            0, those above, or what the target answered: OXE_RANGE, OXE_NOSPC, OXE_ROFS, OXE_IO, OXE_CORRUPT,
 *                     OXE_DIFFERS (a compare), OXE_UNSUPPORTED, OXE_INVAL, OXE_NOTREADY, OXE_PERM. OXE_TIMEOUT: not answered
 *                     in time, aborted, and without effect (a read, a compare); a write in that place is OXE_INDOUBT
 *   what is durable   as the target says: what was answered before a flush that was answered
 *
 * Copies (is_copy; docs/protocol.md). The namespace is not looked at: its blocks are of REPLICA_WIRE_LBA bytes, and the target judges
 * ranges. A status of type 7h is an OXE_ code. There is one association: when it has ended, or could not be made, that is all. And a
 * command that is late is not aborted, but ends it. For NVME_HOST_REPORT.
 *
 * A target is a stranger too. What it says is checked before anything is touched; whatever is wrong ends the association
 * with a sentence, never more. What it can make us hold, and the other bounds:
 *
 *     commands in flight    queues times queue_depth; then requests wait
 *     requests waiting      waiting_max; then OXE_BUSY
 *     memory of a queue     RECEIVE_BYTES and a few hundred bytes a command: nothing grows with what a target says
 *     a message in halves   part of the commands' deadlines: what is not answered in command_timeout_ns is aborted, and what
 *                           is not answered abort_timeout_ns later, or has no Abort left, ends the association
 *     making it             connect_timeout_ns in all
 */
#ifndef OXBOW_DATA_REPLICA_NVME_HOST_H
#define OXBOW_DATA_REPLICA_NVME_HOST_H

#include "data/nvme/nvme_format.h"
#include "data/replica/nvme_host_state.h"
#include "rt/rt.h"

#define NVME_HOST_QUEUES_MAX 64u
#define NVME_HOST_DEPTH_MAX  1024u

struct nvme_host;

enum nvme_host_lost { NVME_HOST_REPORT, NVME_HOST_REPLAY };

struct nvme_host_options {	   /* 0 means the default in brackets */
	const char *address;	   /* as in rt.h */
	const char *subsystem_nqn; /* at most NVME_NQN_MAX bytes, as is host_nqn */
	const char *host_nqn;	   /* [nqn.2014-08.org.nvmexpress:uuid:HOST_ID] */
	struct uuid host_id;	   /* [random] */
	const char *tls_key;	   /* [none: in the clear] NVMeTLSkey-1:...:, as nvme_secret.h has it */
	bool tls_old_name;	   /* offer it by the older form of its name, without a digest */
	const char *secret;	   /* [none] DHHC-1:...: what it proves to a target that asks for that */
	const char *
		controller_secret; /* [none] what the target must prove, whether it asks for anything or not */
	uint8_t least_group;	   /* [ffdhe2048] 1 + the least enum nvme_auth_group */
	uint32_t namespace_id;	   /* [1] */
	uint32_t queues;	   /* [1] fewer if the target allows fewer */
	uint32_t queue_depth;	   /* [127] fewer if the target allows fewer */
	uint32_t waiting_max;	   /* [4096] */
	bool header_digest, data_digest; /* asked for; used if the target agrees */
	bool no_in_capsule;		 /* wait to be asked for every byte of data */
	enum nvme_host_lost lost;
	bool is_copy;		     /* the subsystem is a copy of ours (below) */
	uint64_t connect_timeout_ns; /* [5 s] */
	uint64_t command_timeout_ns; /* [30 s] */
	uint64_t abort_timeout_ns;   /* [5 s] */
	uint64_t keep_alive_ns;	     /* [5 s] what the target is told; it is sent one twice as often */
	uint64_t reconnect_min_ns; /* [20 ms] doubles up to the next, and a random half of it is taken off */
	uint64_t reconnect_max_ns; /* [2 s] */
};

/* OXE_INVAL if a name is missing or too long, a key or a secret is none, or a number beyond its maximum. Starts connecting; does not suspend. */
OX_CHECKED int nvme_host_new(struct rt *rt, const struct nvme_host_options *options, struct nvme_host **out);
/* Suspends until it is live: 0. OXE_TIMEOUT at the deadline: nvme_host_status() says what keeps it. OXE_SHUTDOWN: closed. Of a copy
 * that cannot be reached: last_error of the status. */
OX_CHECKED int nvme_host_wait(struct nvme_host *h, uint64_t deadline_ns);
/* Ends what is in flight or waits (as when a connection ends under NVME_HOST_REPORT), takes the association down, and frees.
 * No other fiber may be inside a call of it but those whose requests this ends. Suspends, connect_timeout_ns at most. */
void nvme_host_close(struct nvme_host *h);

/* ---- requests ------------------------------------------------------------------------------------------------------ */

enum nvme_host_op {
	NVME_HOST_READ,
	NVME_HOST_WRITE,
	NVME_HOST_FLUSH,
	NVME_HOST_ZERO,	   /* reads as zeroes after; the target may keep no space for it */
	NVME_HOST_TRIM,	   /* advice: what it reads as after is the target's affair */
	NVME_HOST_COMPARE, /* OXE_DIFFERS if it is not `data` */
	NVME_HOST_OTHER,   /* an I/O command of the caller's making: `entry` */
	NVME_HOST_OPS
};
enum {
	NVME_HOST_FUA = 1,     /* WRITE, ZERO: durable when answered */
	NVME_HOST_NO_HOLE = 2, /* ZERO: the target keeps the space */
};

/* One request. Fill the first part, submit, keep it until `done` has run: on a fiber of the host's that must not be
 * suspended, never before nvme_host_submit() returns. It may submit more. */
struct nvme_host_io {
	enum nvme_host_op op;
	uint32_t flags;
	void *data;	       /* READ, WRITE, COMPARE, OTHER: any alignment */
	uint64_t offset_bytes; /* multiple of the namespace's lba_bytes */
	uint64_t len_bytes; /* the same, not 0, at most nvme_host_max_bytes(); 0 for FLUSH, any for OTHER */
	/* OTHER: the opcode, which says which way the data goes, and dwords 2-5 and 10-15. The caller's, until `done`. */
	const struct nvme_sqe *entry;
	uint64_t timeout_ns; /* [command_timeout_ns] */
	bool is_urgent; /* of a copy: before all that wait, into an entry that each queue keeps for such */
	void (*done)(struct nvme_host_io *io);
	int result;
	uint64_t value;	    /* OTHER: dwords 0 and 1 of the answer */
	uint32_t got_bytes; /* OTHER: of data, which may be fewer than asked for */
	/* The host's. */
	struct list link; /* waiting, or in flight for another time, or on the way to `done` */
	uint64_t order;	  /* of submission */
	bool is_replayed; /* was in flight when an association ended */
};

/* Does not suspend. */
void nvme_host_submit(struct nvme_host *h, struct nvme_host_io *io);
/* The longest request of this kind that one struct nvme_host_io may be; 0 until it was live once. */
uint64_t nvme_host_max_bytes(const struct nvme_host *h, enum nvme_host_op op);

/* The same as calls of a fiber, of any length (in several commands, one after the other). Suspend. */
OX_CHECKED int nvme_host_read(struct nvme_host *h, void *data, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int nvme_host_write(struct nvme_host *h, const void *data, uint64_t offset_bytes,
			       uint64_t len_bytes, unsigned flags);
OX_CHECKED int nvme_host_flush(struct nvme_host *h);
OX_CHECKED int nvme_host_zero(struct nvme_host *h, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags);
OX_CHECKED int nvme_host_trim(struct nvme_host *h, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int nvme_host_compare(struct nvme_host *h, const void *data, uint64_t offset_bytes,
				 uint64_t len_bytes);

/* As a call; of one command. The caller fills the first part, and finds the second filled. Suspends. */
OX_CHECKED int nvme_host_do(struct nvme_host *h, struct nvme_host_io *io);

/* ---- what it knows ---------------------------------------------------------------------------------------------------- */

struct nvme_host_info { /* of the namespace, as last identified; all 0 until it was live once */
	uint64_t size_bytes;
	uint32_t lba_bytes;
	uint32_t queues, queue_depth; /* as agreed */
	bool volatile_cache;	      /* a flush means something */
	bool read_only;
	bool has_trim, has_zero, has_compare;
	struct uuid uuid; /* nil if the target told none */
};
/* Do not suspend; the pointer is valid until nvme_host_close. */
const struct nvme_host_info *nvme_host_info(const struct nvme_host *h);

struct nvme_host_status {
	enum nvme_host_state state;
	uint64_t since_ns;     /* when the state was entered */
	uint32_t failed_tries; /* to connect, since it was last live */
	int last_error;	       /* why it was last lost or could not be made; 0: never */
	char why[160];	       /* the same as a sentence */
	uint64_t associations; /* made so far */
	uint64_t commands, replayed, in_doubt, aborted;
	uint32_t in_flight, waiting;
};
void nvme_host_status(const struct nvme_host *h, struct nvme_host_status *out);

#endif
