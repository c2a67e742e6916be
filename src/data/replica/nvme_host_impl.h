/*
 * nvme_host_impl.h: what the files of the host share. Private to them.
 *
 *     nvme_host_state.c    which state comes after which
 *     nvme_host.c          requests in and out, the life fiber, time-outs
 *     nvme_host_make.c     making an association: connect, enable, identify, queues
 *     nvme_host_prove.c    authentication, of a queue that is being made; its messages are nvme_host_auth.h
 *     nvme_host_queue.c    a queue: its connection, its commands, and the sender
 *     nvme_host_receive.c  what the target says
 *
 * A command is a slot of a queue. It goes FREE -> QUEUED -> (sent, answered) -> FREE; `is_sending` says that the sender's
 * memory, the caller's data among it, is in the kernel's hands: an answer that arrives meanwhile waits for it, so that
 * nobody's buffer is given back while it is still being read.
 */
#ifndef OXBOW_DATA_REPLICA_NVME_HOST_IMPL_H
#define OXBOW_DATA_REPLICA_NVME_HOST_IMPL_H

#include "data/nvme/nvme_secret.h"
#include "data/nvme/nvmetcp_pdu.h"
#include "data/replica/nvme_host.h"
#include "data/tls/tls.h"

#define NVME_HOST_ADMIN_DEPTH 31u
#define NVME_HOST_ADMIN_CAPSULE                                                                              \
	8192u /* bytes of data every target takes inside an admin or Fabrics capsule */
#define NVME_HOST_RECEIVE_BYTES (256 * KiB)
#define NVME_HOST_ABORTS	4u
#define NVME_HOST_RETRY_NS	(100 * NS_PER_MS) /* after an answer that asks for another try */
#define NVME_HOST_GRACE_NS	(50 * NS_PER_MS) /* for other connections to be ended by a target that died */
#define NVME_HOST_INDEX_BITS	10		 /* of a command's id; the rest counts its uses */

static_assert(NVME_HOST_DEPTH_MAX <= 1u << NVME_HOST_INDEX_BITS, "a slot's index fits a command id");

enum nvme_way { NVME_WAY_NONE, NVME_WAY_OUT, NVME_WAY_IN };

/* A command of the host's own: admin and Fabrics. `done` runs once, on any fiber, and must not suspend. */
struct nvme_call {
	struct nvme_sqe sqe;
	void *data;
	uint32_t len_bytes;
	enum nvme_way way;
	uint64_t timeout_ns; /* 0: none */
	void (*done)(struct nvme_call *call);
	int result;	 /* 0, or what `status` means, or OXE_CLOSED */
	uint16_t status; /* as answered */
	uint64_t value;	 /* dwords 0 and 1 of the answer */
	struct nvme_host *host;
	struct fiber *fiber;
	bool is_busy;
};

struct nvme_command {
	struct list link;	 /* of its queue: free, or to be sent */
	struct nvme_host_io *io; /* what it carries out: one of these two; both NULL: free */
	struct nvme_call *call;
	uint16_t cid;
	bool is_begun;	  /* the target may have seen it */
	bool is_sending;  /* a piece of it is with the kernel */
	bool is_answered; /* ended, but for that */
	bool is_lost;	  /* by the end of its queue rather than by an answer */
	bool is_aborted;  /* an Abort for it was sent */
	uint16_t status;
	uint64_t value;
	uint64_t deadline_ns; /* UINT64_MAX: none */
	enum nvme_way way;
	uint8_t *data;
	uint32_t len_bytes;
	uint32_t passed_bytes;	/* received from the target, or taken by the sender */
	uint32_t granted_bytes; /* OUT: how far it was asked for */
	uint16_t ttag;
	struct nvme_dsm_range range; /* TRIM: its data */
	uint8_t head[NVMETCP_HEAD_MAX];
	uint32_t head_bytes;
	le32 data_digest;
};

struct nvme_queue {
	struct nvme_host *host;
	uint16_t qid;
	struct rt_conn *conn; /* NULL: closed */
	struct tls *tls;      /* NULL: in the clear */
	bool is_buried;	      /* the target ended it */
	bool is_ended;	      /* its receiver has left: nothing more can start */
	bool has_sender;
	struct nvmetcp_terms terms;
	uint32_t data_pdu_bytes;   /* the most data in one H2CData */
	uint32_t capsule_bytes;	   /* the most data inside a capsule */
	uint32_t depth, in_flight; /* as agreed */
	uint32_t command_count;	   /* as allocated */
	struct nvme_command *commands;
	struct list free, to_send;
	uint8_t *buffer;
	size_t start, end; /* received and not yet taken */
};

struct nvme_host_limits { /* as the target told */
	uint64_t max_bytes, zero_max_bytes;
	uint32_t trim_blocks_max, capsule_bytes, entries_max, commands_max, aborts_max;
	bool has_namespace_events;
};

struct nvme_host {
	struct rt *rt;
	struct nvme_host_options options; /* defaults filled in; texts owned */
	char *address, *subsystem_nqn, *host_nqn;
	struct nvme_secret secret, controller_secret; /* none: not set */
	struct tls_psk *psk;			      /* NULL: in the clear */
	enum nvme_host_state state;
	struct nvme_host_status status;
	struct nvme_host_info info;
	struct nvme_host_limits limits;
	uint16_t cntlid;
	uint32_t backoff_step;

	struct nvme_queue admin, *queues; /* queues: options.queues of them */
	uint32_t queue_count, next_queue; /* as agreed */
	struct list waiting;		  /* nvme_host_io by order */
	uint32_t waiting_count;
	struct list replays; /* nvme_host_io in flight that were in flight before */
	struct list ended;   /* nvme_host_io on the way to `done`, by a fiber of its own */
	bool has_ender;
	uint64_t last_order, retry_at_ns; /* no request starts before */

	bool is_lost, is_shut, is_closing, is_over, wants_look;
	bool is_spent;		   /* a copy's one association is over, or could not be made */
	bool has_answered;	   /* a request, since the association was made */
	uint64_t next_deadline_ns; /* what the life fiber sleeps until, at most */
	struct waitq changed;	   /* the life fiber */
	struct waitq watchers;	   /* nvme_host_wait */
	struct rt_group streams;   /* receivers and senders */
	struct rt_group helpers;   /* other fibers that use the queues */
	struct rt_group enders;	   /* the fiber that calls `done` */
	struct rt_timer make_limit, grace;
	struct nvme_call keep_alive, event, aborts[NVME_HOST_ABORTS];
	uint64_t keep_alive_at_ns;
};

/* A fiber of the host's: TLS likes a big stack. */
static inline void nvme_host_spawn(struct nvme_host *h, const char *name, void (*fn)(void *arg), void *arg)
{
	if (h->psk)
		fiber_spawn_big(h->rt, name, fn, arg);
	else
		fiber_spawn(h->rt, name, fn, arg);
}

/* ---- nvme_host.c ---- */

/* The association ends, for the reason given. The first reason counts. Does not suspend; harmless when it ends already. */
void nvme_host_lose(struct nvme_host *h, int err, const char *format, ...) OX_PRINTF(3, 4);
/* The same, but this reason counts: a target's last word, heard when the end of the connection behind it was seen already. */
void nvme_host_lose_because(struct nvme_host *h, int err, const char *because);
/* What has become of a request whose slot is free again: answered with `status`, or lost with its queue; is_buried: the target has
 * ended that connection itself, so nothing of it can still be on its way there. */
void nvme_host_answered(struct nvme_host *h, struct nvme_host_io *io, uint16_t status);
void nvme_host_io_lost(struct nvme_host *h, struct nvme_host_io *io, bool was_begun, bool is_buried);
/* Start what waits, as far as there is room. */
void nvme_host_dispatch(struct nvme_host *h);
/* A deadline to be looked at no later than this. */
void nvme_host_watch(struct nvme_host *h, uint64_t deadline_ns);

/* ---- nvme_host_make.c ---- */

/* Suspends. Whatever is wrong is told to nvme_host_lose(). */
OX_CHECKED int nvme_host_make(struct nvme_host *h);
/* Identify the namespace anew, after the target said it had changed. Suspends. */
OX_CHECKED int nvme_host_look(struct nvme_host *h);
/* Wait for the next event of the target. Does not suspend. */
void nvme_host_listen(struct nvme_host *h);

/* ---- nvme_host_prove.c ---- */

/* Authenticate on a queue that has connected. The association is lost if that fails. Suspends. */
OX_CHECKED int nvme_host_prove(struct nvme_queue *q);

/* ---- nvme_host_queue.c ---- */

void nvme_queue_init(struct nvme_queue *q, struct nvme_host *h, uint16_t qid, uint32_t depth);
void nvme_queue_free(struct nvme_queue *q);
/* A connection, agreed upon (ICReq), with a receiver. Suspends. */
OX_CHECKED int nvme_queue_open(struct nvme_queue *q, uint32_t depth, uint64_t deadline_ns);
/* At least a byte from its connection, or OXE_CLOSED. Suspends. */
OX_CHECKED int nvme_queue_get(struct nvme_queue *q, void *data, size_t len_bytes, size_t *got_bytes);
/* After both its fibers have left. */
void nvme_queue_close(struct nvme_queue *q);
static inline bool nvme_queue_has_room(const struct nvme_queue *q)
{
	return q->in_flight < q->depth && !q->is_ended;
}
/* Needs room. Do not suspend. */
void nvme_queue_start_io(struct nvme_queue *q, struct nvme_host_io *io);
void nvme_queue_start_call(struct nvme_queue *q, struct nvme_call *call);
/* Start, and wait for the answer. Suspends. */
OX_CHECKED int nvme_queue_call(struct nvme_queue *q, struct nvme_call *call);
/* The answer to a command has come. */
void nvme_command_answer(struct nvme_queue *q, struct nvme_command *c, uint16_t status, uint64_t value);
/* The target asks for data up to `granted_bytes`. */
void nvme_command_grant(struct nvme_queue *q, struct nvme_command *c, uint16_t ttag, uint32_t granted_bytes);
/* The command of this id in flight, or NULL. */
struct nvme_command *nvme_queue_find(struct nvme_queue *q, uint16_t cid);

/* ---- nvme_host_receive.c ---- */

/* The receiver's fiber, argument the queue. */
void nvme_queue_receive(void *arg);
/* Every command in flight is lost; the receiver's last act. */
void nvme_queue_end(struct nvme_queue *q, bool is_buried);

/* What an answer's status means to the caller. */
int nvme_host_error(uint16_t status);
/* It asks for another try, and one may help. */
bool nvme_host_is_retryable(uint16_t status);

#endif
