/*
 * nvmf_conn.h: subsystems, controllers, connections and commands, and what the files of the target share about them. Private
 * to this directory.
 *
 *     nvmf_server.c       listens, accepts, counts, ends
 *     nvmf_receive.c      PDUs received, and what they do to the commands of their connection
 *     nvmf_request.c      a command's memory, its data, its fiber
 *     nvmf_reply.c        PDUs built, queued, gathered, sent
 *     nvmf_controller.c   subsystems and controllers: made, found, ended; keep alive; asynchronous events
 *     nvmf_fabrics.c      Connect, properties, Disconnect
 *     nvmf_admin.c        admin commands but those two:
 *     nvmf_identify.c     Identify
 *     nvmf_log.c          Get Log Page
 *     nvmf_io.c           I/O commands
 *     nvmf_foreign.c      subsystems that are somebody else's
 *     nvmf_auth_run.c     authentication, on a queue
 *     nvmf_auth.c         the messages and states of that, and what proves a secret (pure; proofs: data/nvme/nvme_auth_proof.h)
 *     nvmf_gate.c         who may connect, by the volume's list
 *     nvmf_fence.c        reservations: who may pass, made durable, told
 *     nvmf_command.c      what an entry says (pure)
 *     nvmf_access.c       what such a list is, and its note (pure)
 *     nvmf_reservation.c  what a reservation is, and becomes (pure)
 *     nvmf_status.c       who is here, for people
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_CONN_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_CONN_H

#include "data/frontend/link.h"
#include "data/frontend/listener.h"
#include "data/frontend/where.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/frontend/nvmf/nvmf_reservation.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvmetcp_pdu.h"

#define NVMF_BATCH_PARTS   128 /* of one send, */
#define NVMF_BATCH_ANSWERS 128 /* and what they are the parts of */
#define NVMF_OUT_PARTS	   4
#define NVMF_SLOTS_MAX                                                                                       \
	(NVMF_ENTRIES_MAX + NVMF_BATCH_ANSWERS) /* a queue of commands, and answers on their way */
#define NVMF_EVENTS_MAX	    4 /* requests for asynchronous events a host may leave with us */
#define NVMF_ABORTS_MAX	    4
#define NVMF_ERRORS_KEPT    16
#define NVMF_NOTICES_KEPT   16
#define NVMF_KATO_UNIT_MS   100	       /* KAS: keep alive time-outs are rounded up to it */
#define NVMF_RECEIVE_MIN    (16 * KiB) /* of a connection's buffer; it grows for hosts that send much */
#define NVMF_MODEL	    "Oxbow volume"
#define NVMF_MODEL_SNAPSHOT "Oxbow snapshot"

/* By an address, as a host, at a volume: authentications that failed since the last that did not. */
#define NVMF_AUTH_FAILURES_KEPT 64
struct nvmf_auth_failures {
	uint64_t key;
	uint32_t count;
	uint64_t next_ns; /* no challenge before */
};

struct nvmf_auth;

struct nvmf_server {
	struct rt *rt;
	struct engines *engines;
	struct nvmf_options options; /* defaults filled in */
	struct rt_bufpool *payloads;
	uint64_t lent_bytes;	 /* of it */
	struct waitq memory;	 /* commands, until some of it is returned */
	struct waitq departures; /* hosts that connect anew, until what they left has ended */
	struct list connections, subsystems, controllers;
	struct listeners listeners;
	uint16_t last_cntlid;
	uint64_t discovery_generation, discovery_hash;
	struct nvmf_auth_failures auth_failures[NVMF_AUTH_FAILURES_KEPT]; /* by key; a newcomer displaces */
	struct nvmf_foreign foreign;					  /* run is NULL: there is none */
	struct nvme_secret foreign_secret, foreign_tls_key;
	uint64_t access_changes; /* of all lists: what hosts discover may be another */
	struct rt_group fibers;
	struct nvmf_stats stats; /* but what the listeners count */
};

/* Reservations of a volume. */
struct nvmf_fence {
	struct nvmf_reservation reservation;
	bool is_read;	    /* from the volume's note */
	struct fmutex turn; /* to change it */
	struct list inside; /* commands that touch data, by fence_link */
	struct waitq left;  /* who waits for some of them to end */
};

/* Of reservations, for one controller. */
struct nvmf_notices {
	uint64_t count; /* ever */
	uint8_t masked; /* feature 82h */
	uint8_t kept;
	struct nvme_log_reservation pages[NVMF_NOTICES_KEPT]; /* the oldest first */
};

/* A volume or a snapshot that some host holds. */
struct nvmf_subsystem {
	struct list link, controllers;
	uint32_t users;		   /* beside the controllers */
	uint64_t lent_bytes;	   /* of the server's payloads, to commands of all its controllers */
	struct uuid id, volume_id; /* the latter: whose list says who may */
	struct list writes, fused; /* ranges, see nvmf_io.c */
	struct waitq ranges;
	struct nvmf_fence fence;
};

enum nvmf_event {
	NVMF_EVENT_NAMESPACE,
	NVMF_EVENT_ANA,
	NVMF_EVENT_DISCOVERY,
	NVMF_EVENT_RESERVATION,
	NVMF_EVENTS
};

struct nvmf_conn;

struct nvmf_controller {
	struct list link_in_server, link_in_subsystem;
	struct nvmf_server *server;
	struct nvmf_subsystem *subsystem; /* NULL: of the discovery subsystem, or foreign */
	struct engine *engine;		  /* NULL: the same */
	void *foreign;			  /* the session; NULL: it is not foreign */
	struct uuid foreign_id;
	uint16_t cntlid;
	bool is_tls;	 /* its connections came through TLS, by the host's key */
	bool must_prove; /* itself, on every queue: the list has a secret for it */
	bool is_near;	 /* the host is this node: what takes our memory away takes the host, too (V11) */
	uint8_t hostid[16];
	char hostnqn[NVME_NQN_FIELD], subnqn[NVME_NQN_FIELD];
	struct nvmf_conn *queues[NVMF_QUEUES_MAX + 1]; /* by qid; [0] is the admin queue */
	uint32_t conn_count;			       /* which hold it; the last one frees it */
	uint32_t parting_count; /* of these, closed, with commands that may not have ended */
	bool is_ending;
	uint32_t cc, csts;

	uint32_t kato_ms; /* 0: none */
	struct rt_timer keep_alive;
	bool was_heard; /* since the timer was armed */

	uint32_t events_wanted;		  /* feature 0Bh */
	struct list event_requests;	  /* waiting */
	uint32_t events_due, events_told; /* bits by enum nvmf_event; told: until its log is read */
	bool namespace_changed;
	uint64_t size_told;
	struct nvmf_notices notices;

	uint64_t since_wall_ns, command_count;
	uint64_t error_count;
	struct nvme_log_error errors[NVMF_ERRORS_KEPT]; /* error n at n % NVMF_ERRORS_KEPT */
};

/* RECEIVING: the receiver is writing into its payload, and alone may end that. */
enum nvmf_request_state { NVMF_FREE, NVMF_RUNNING, NVMF_AWAITING_DATA, NVMF_RECEIVING };

/* What goes to the host about a command: an R2T, or its answer. */
struct nvmf_out {
	struct list link;
	struct nvmf_request *request;
	bool is_answer;
	struct rt_iovec parts[NVMF_OUT_PARTS];
	size_t part_count;
};

/* A command from its capsule to the end of its answer. Pooled by its connection. */
struct nvmf_request {
	struct list link;
	struct nvmf_conn *conn;
	uint16_t slot; /* in conn->slots: the transfer tag */
	enum nvmf_request_state state;
	uint16_t status; /* found before it ran */
	struct nvme_sqe sqe;
	struct nvmf_command command;
	void *payload; /* of the server's pool; NULL: none */
	uint64_t payload_bytes;
	bool payload_is_extra;		   /* allocated beyond the pool */
	struct nvmf_subsystem *payload_of; /* on whose account it is; NULL: on none */
	uint32_t received_bytes;	   /* of the data asked for */
	uint32_t answer_bytes;		   /* of the payload, that go to the host */
	uint64_t result;
	bool data_is_bad;	    /* by its digest */
	struct fiber *waiter;	    /* for data */
	struct nvmf_request *fused; /* the command before this one: they are one */
	struct list range_link, fence_link;
	struct nvmf_out r2t, answer;
	le32 data_digest;
	uint8_t r2t_head[sizeof(struct nvmetcp_r2t) + NVMETCP_DIGEST_BYTES];
	uint8_t data_head[NVMETCP_HEAD_MAX];
	uint8_t answer_head[sizeof(struct nvmetcp_response) + NVMETCP_DIGEST_BYTES];
};

struct nvmf_tls_peer {
	char hostnqn[NVME_NQN_FIELD], subnqn[NVME_NQN_FIELD];
};

struct nvmf_conn {
	struct nvmf_server *server;
	struct list link_in_server;
	struct link link;
	struct nvmetcp_terms terms;
	const char *dropped_because; /* static text; NULL: the host left in order */
	bool tls_required;
	struct nvmf_tls_peer *tls_peer; /* whose key it came with; NULL: in the clear */

	/* What Connect agreed upon. */
	struct nvmf_controller *controller; /* NULL: not connected */
	uint16_t qid, entries, sq_head;	    /* before Connect one entry, for that */
	bool no_flow_control;
	struct nvmf_auth *auth; /* NULL: nobody spoke of authentication */

	struct nvmf_request *slots[NVMF_SLOTS_MAX];
	uint32_t slot_count;
	uint32_t outstanding; /* commands whose answer the host cannot have seen */
	uint64_t in_flight_bytes;
	uint32_t awaiting;	 /* commands whose data was asked for */
	uint32_t awaiting_large; /* of these, so large that it should land where it is wanted */
	struct nvmf_request *fused_first;
	struct fmutex memory_turn;
	struct list free_requests, out;
	bool is_initialized;	    /* ICReq was answered */
	bool is_sending, is_broken; /* broken: nothing can be sent any more */
	bool is_leaving;	    /* Disconnect was answered */
	struct rt_group requests;   /* request and sender fibers */
};

/* ---- nvmf_server.c ---------------------------------------------------------------------------------------------------- */

/* Note why the host is dropped (the first reason stays); returns OXE_PROTO. */
int nvmf_drop(struct nvmf_conn *c, const char *because);
/* End the connection: nothing more is sent, what waits for the host gives up. Does not suspend; a timer may call it. */
void nvmf_conn_break(struct nvmf_conn *c);

/* ---- nvmf_receive.c ------------------------------------------------------------------------------------------------------ */

/* Suspends until the host leaves or is dropped. Commands may still be under way. */
void nvmf_receive(struct nvmf_conn *c);

/* ---- nvmf_request.c ------------------------------------------------------------------------------------------------------ */

/* Counted as outstanding; the caller has seen that there is room. */
struct nvmf_request *nvmf_request_new(struct nvmf_conn *c, const struct nvme_sqe *sqe);
/* Returns all it holds. */
void nvmf_request_free(struct nvmf_request *r);
/* Memory for the payload, from the connection's share. Suspends. OXE_CLOSED if the connection broke meanwhile. */
OX_CHECKED int nvmf_payload_get(struct nvmf_request *r, uint64_t bytes);
/* The same for data that came in a capsule (at most NVMF_CAPSULE_MAX), without waiting: from beyond the budget if need be. */
void nvmf_payload_get_capsule(struct nvmf_request *r, uint64_t bytes);
/* Start its fiber: data, then nvmf_io_run() or nvmf_admin_run(), then the answer. */
void nvmf_request_start(struct nvmf_request *r);
/* Data came for a request in state NVMF_AWAITING_DATA: all of it. */
void nvmf_request_data_done(struct nvmf_request *r);
/* A broken connection's commands that wait for data or memory need not. */
void nvmf_requests_give_up(struct nvmf_conn *c);
/* Receive what a write or a compare asks for (R2T), if it did not come with it. OXE_CLOSED if the connection broke. */
OX_CHECKED int nvmf_fetch_data(struct nvmf_request *r);
/* Of a buffer for a command: what is compared is read beside what came. */
uint64_t nvmf_payload_need(const struct nvmf_request *r);

/* ---- nvmf_reply.c -------------------------------------------------------------------------------------------------------- */

/* Complete a request: with the first answer_bytes of its payload, if the status is 0. */
void nvmf_answer(struct nvmf_request *r, uint16_t status);
void nvmf_ask_data(struct nvmf_request *r);
/* ICResp or a TermReq. Suspends. OXE_BUSY: the sender is at it. */
OX_CHECKED int nvmf_send_now(struct nvmf_conn *c, const void *data, size_t len_bytes);

/* ---- nvmf_controller.c --------------------------------------------------------------------------------------------------- */

/* A new association, as Connect on queue 0 asks for it. Suspends, until what the same host left behind has ended. Returns 0 or a
 * status, with *result where that has one. */
OX_CHECKED uint16_t nvmf_controller_new(struct nvmf_conn *c, const struct nvme_connect *sqe,
					const struct nvme_connect_data *data, uint64_t *result);
/* Connect on another queue: joins the controller. */
OX_CHECKED uint16_t nvmf_controller_join(struct nvmf_conn *c, const struct nvme_connect *sqe,
					 const struct nvme_connect_data *data, uint64_t *result);
bool nvmf_is_of_host(const struct nvmf_controller *ctrl, const struct nvme_connect_data *data);
/* The connection receives nothing any more; without its admin queue a controller ends. Does not suspend. */
void nvmf_controller_part(struct nvmf_conn *c);
/* The connection is gone. Suspends. */
void nvmf_controller_leave(struct nvmf_conn *c);
/* End all its connections. Does not suspend. */
void nvmf_controller_end(struct nvmf_controller *ctrl, const char *because);
void nvmf_keep_alive_set(struct nvmf_controller *ctrl, uint32_t kato_ms);

/* Something happened that a host may have asked to be told. */
void nvmf_event_raise(struct nvmf_controller *ctrl, enum nvmf_event event);
/* A request for events, to be kept until there is one. */
void nvmf_event_wait(struct nvmf_request *r);
/* The log that goes with it was read. */
void nvmf_event_seen(struct nvmf_controller *ctrl, enum nvmf_event event);
/* Keep a failed command for the error log. */
void nvmf_error_note(struct nvmf_request *r, uint16_t status);

/* The subsystem of what this engine serves, made if there is none; given back, it goes with its last controller and user. */
struct nvmf_subsystem *nvmf_subsystem_get(struct nvmf_server *server, const struct engine *engine);
void nvmf_subsystem_put(struct nvmf_subsystem *s);
/* That of a volume or snapshot, if some host holds it; NULL. */
struct nvmf_subsystem *nvmf_subsystem_find(struct nvmf_server *server, const struct uuid *id);

static inline bool nvmf_is_discovery(const struct nvmf_controller *ctrl)
{
	return !ctrl->subsystem && !ctrl->foreign;
}

static inline bool nvmf_is_volume(const struct nvmf_controller *ctrl)
{
	return ctrl->subsystem != NULL;
}

/* ---- nvmf_foreign.c ---------------------------------------------------------------------------------------------------------- */

void nvmf_foreign_init(struct nvmf_server *server, const struct nvmf_foreign *foreign);
bool nvmf_foreign_knows(const struct nvmf_server *server, const char *subnqn);
/* End what this host has of the subsystem, and wait until it has ended. False: that takes too long. Suspends. */
OX_CHECKED bool nvmf_foreign_end_older(struct nvmf_conn *c, const struct nvme_connect_data *data,
				       uint64_t until_ns);
/* May this host have it? 0, or a status; a refusal is logged. */
OX_CHECKED uint16_t nvmf_foreign_check(struct nvmf_controller *ctrl, const char *peer);
/* Identify; an I/O command. They suspend. */
OX_CHECKED uint16_t nvmf_foreign_identify(struct nvmf_request *r);
OX_CHECKED uint16_t nvmf_foreign_run(struct nvmf_request *r);

/* ---- nvmf_gate.c ----------------------------------------------------------------------------------------------------------- */

/* The volume's list, to be wiped and freed (nvmf_gate_free). Suspends. Any error, and nobody may connect. */
OX_CHECKED int nvmf_gate_read(struct nvmf_server *server, const struct uuid *volume_id,
			      struct nvmf_access **out);
void nvmf_gate_free(struct nvmf_access *access);
/* May this host have the volume? 0, or a status; a refusal is logged. Suspends. */
OX_CHECKED uint16_t nvmf_gate_check(struct nvmf_controller *ctrl, const char *peer);
/* Is the volume there for this host; and only through TLS? Suspends. */
bool nvmf_gate_shows(struct nvmf_server *server, const struct uuid *volume_id, const char *hostnqn,
		     bool *by_tls);

/* ---- nvmf_tls.c ------------------------------------------------------------------------------------------------------------- */

/* May nobody come in the clear there? */
bool nvmf_tls_is_required(const struct nvmf_server *server, const struct listener *l);
/* The first byte is waited for, and the TLS handshake done if that is what it begins. *is_refused: it does not, and it must.
 * Suspends. */
OX_CHECKED int nvmf_tls_begin(struct nvmf_conn *c, bool *is_refused);
/* Does Connect say what was said by the name of the key, if there was one? A refusal is logged. */
bool nvmf_tls_admits(const struct nvmf_conn *c, const struct nvme_connect_data *data);

/* ---- nvmf_auth_run.c ------------------------------------------------------------------------------------------------------- */

/* A connected queue has to authenticate before anything else. */
void nvmf_auth_require(struct nvmf_conn *c);
/* May this command be carried out yet? */
bool nvmf_auth_admits(const struct nvmf_conn *c, const struct nvme_sqe *sqe);
/* Has the host proved itself on this queue? */
bool nvmf_auth_has_proved(const struct nvmf_conn *c);
/* Authentication Send or Receive. Suspends, for seconds if need be, and wants a big stack. */
OX_CHECKED uint16_t nvmf_auth_run(struct nvmf_request *r);
void nvmf_auth_free(struct nvmf_conn *c);

/* ---- nvmf_fence.c --------------------------------------------------------------------------------------------------------- */

struct nvmf_page; /* of a log, see nvmf_page_add */

void nvmf_fence_init(struct nvmf_fence *f);
/* Read the note, the first time. Suspends. Any error, and the volume may not be used: nobody knows who may. */
OX_CHECKED int nvmf_fence_read(struct nvmf_controller *ctrl);
/* May this command, which touches data, be carried out? Then it is inside until nvmf_fence_leave. Do not suspend. */
OX_CHECKED bool nvmf_fence_enter(struct nvmf_request *r);
void nvmf_fence_leave(struct nvmf_request *r);
/* A reservation command: 0 with *status, or OXE_. Durable when it returns, and no command that it shuts out is under way. Suspends. */
OX_CHECKED int nvmf_fence_run(struct nvmf_request *r, uint16_t *status);
/* Feature 83h. The first suspends, and is durable when it returns 0. */
OX_CHECKED int nvmf_fence_set_persists(struct nvmf_controller *ctrl, bool persists);
bool nvmf_fence_persists(const struct nvmf_controller *ctrl);
/* The log page of the oldest notice; it was read. */
void nvmf_fence_put_log(struct nvmf_controller *ctrl, struct nvmf_page *out);
void nvmf_fence_log_seen(struct nvmf_controller *ctrl);

/* ---- nvmf_fabrics.c, nvmf_admin.c, nvmf_identify.c, nvmf_log.c, nvmf_io.c --------------------------------------------------- */

/* Each carries out a command whose data, if it takes any, is in r->payload; returns its status, and leaves what it gives in
 * r->payload (answer_bytes) and r->result. All suspend. */
OX_CHECKED uint16_t nvmf_fabrics_run(struct nvmf_request *r);
OX_CHECKED uint16_t nvmf_admin_run(struct nvmf_request *r);
OX_CHECKED uint16_t nvmf_identify_run(struct nvmf_request *r);
/* What every controller with a namespace says of itself. */
void nvmf_identify_common(const struct nvmf_controller *ctrl, const char *model, const struct uuid *id,
			  struct nvme_id_ctrl *w);
/* An identifier of the namespace; where the next one goes. */
uint8_t *nvmf_identify_descriptor(uint8_t *out, uint8_t type, const void *id, uint8_t id_bytes);
OX_CHECKED uint16_t nvmf_log_run(struct nvmf_request *r);
OX_CHECKED uint16_t nvmf_io_run(struct nvmf_request *r);
/* Two fused commands, to the end of both answers. Suspends. */
void nvmf_pair_run(struct nvmf_request *second);
/* Connect, by the receiver itself. */
void nvmf_connect_run(struct nvmf_request *r);
struct nvmf_bounds nvmf_bounds_of(const struct nvmf_conn *c, uint32_t capsule_bytes);
/* Append to a log page that is being written; only what was asked for of it is kept. */
void nvmf_page_add(struct nvmf_page *p, const void *data, uint64_t len_bytes);
/* A number that changes when volumes or listeners come or go. */
uint64_t nvmf_discovery_hash(struct nvmf_server *server);

#endif
