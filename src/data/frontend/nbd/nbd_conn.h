/*
 * nbd_conn.h: one client, and what the files of the server share about it. Private to this directory.
 *
 *     nbd_server.c        accepts, counts, ends; the connection fiber runs the two stories below one after the other
 *     nbd_handshake.c     options, until an export is agreed upon
 *     nbd_meta.c          metadata contexts: which there are, which were chosen, and BLOCK_STATUS
 *     nbd_transmission.c  receives requests and carries them out
 *     nbd_reply.c         replies: built, queued, gathered, sent
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_CONN_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_CONN_H

#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_command.h"
#include "data/frontend/link.h"
#include "data/frontend/listener.h"

#define NBD_CONTEXTS_MAX 8
#define NBD_CONTEXT_MAX                                                                                      \
	(sizeof(NBD_CONTEXT_CHANGED) - 1 + POOL_NAME_MAX) /* a context's name, without the NUL */
#define NBD_CONTEXT_ALLOC   "base:allocation"
#define NBD_CONTEXT_CHANGED "oxbow:changed-since:"
#define NBD_OPTION_MAX	    (16 * KiB)
#define NBD_REPLY_PARTS_MAX 64 /* iovecs of one reply */

struct tls_context;

struct nbd_server {
	struct rt *rt;
	struct engines *engines;
	struct nbd_options options; /* defaults filled in; the file names are not kept */
	struct tls_context *tls;
	struct rt_bufpool *payloads;
	uint64_t lent_bytes; /* of it */
	struct waitq memory; /* receivers, until some of it is returned */
	struct list connections, shares;
	struct listeners listeners;
	struct rt_group fibers;
	struct nbd_stats stats; /* but what the listeners count */
};

/* What the connections to one export hold together. */
struct nbd_share {
	struct list link;
	const struct engine *engine;
	uint32_t users;
	uint64_t lent_bytes; /* of the server's payloads */
};

/* The form of replies, each including those before it. */
enum nbd_form { NBD_FORM_SIMPLE, NBD_FORM_STRUCTURED, NBD_FORM_EXTENDED };

struct nbd_context {
	char snapshot[POOL_NAME_MAX + 1]; /* empty: base:allocation */
};

struct nbd_conn {
	struct nbd_server *server;
	struct list link_in_server;
	struct link link;
	bool tls_required;
	bool is_near; /* the client is on this node: what takes our memory away takes it, too (V11) */
	const char *dropped_because; /* static text; NULL: the client left in order */

	/* What the handshake agreed upon. */
	bool no_zeroes;
	enum nbd_form form;
	struct nbd_context contexts[NBD_CONTEXTS_MAX];
	uint32_t context_count;
	char contexts_of[ENGINE_EXPORT_NAME_MAX + 1]; /* the engine_name they were chosen for */
	struct engine *engine;
	struct nbd_share *share; /* the engine's; NULL: there is none yet */

	/* Transmission. */
	uint32_t in_flight; /* requests taken and not yet answered */
	uint64_t in_flight_bytes;
	struct waitq room; /* the receiver, while requests_max are in flight */
	struct list replies, free_requests;
	bool is_sending, is_broken; /* broken: nothing can be sent any more */
	struct rt_group requests;   /* request and sender fibers */
};

/* A request from its header to the end of its reply. Pooled by its connection. */
struct nbd_request {
	struct list link;
	struct nbd_conn *conn;
	struct nbd_command command;
	void *payload; /* of the server's pool; NULL: none */
	size_t payload_bytes;
	uint32_t context_mask; /* BLOCK_STATUS: which of the connection's contexts */
	void *extra;	       /* malloc'd, freed with the reply */
	struct rt_iovec *parts, own_parts[2];
	size_t part_count;
	uint8_t head[sizeof(struct nbd_extended_reply_wire) + 96];
};

/* ---- nbd_server.c ---------------------------------------------------------------------------------------------------- */

/* Note why the client is dropped (the first reason stays); returns OXE_PROTO. */
int nbd_drop(struct nbd_conn *c, const char *because);
/* Nothing more is sent or received. Does not suspend. */
void nbd_conn_break(struct nbd_conn *c);
/* The export is agreed upon; the connection takes the engine. */
void nbd_conn_attach(struct nbd_conn *c, struct engine *e);

/* ---- nbd_handshake.c --------------------------------------------------------------------------------------------------- */

/* Suspends until c->engine is open and transmission begins: 0; or the connection is to end. */
OX_CHECKED int nbd_handshake(struct nbd_conn *c);
/* Reply to an option, for nbd_meta.c. Suspend. */
OX_CHECKED int nbd_option_reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data,
				size_t len_bytes);
OX_CHECKED int nbd_option_refuse(struct nbd_conn *c, uint32_t option, uint32_t type, const char *sentence);
/* Open the export of that name, "" being the only volume there is, once it can be served. Suspends for that up to the end of the handshake's
 * time: OXE_TIMEOUT, and what ends the connection is noted. */
OX_CHECKED int nbd_export_open(struct nbd_conn *c, const char *name, struct engine **out);

/* A cursor over an option's data; every read is checked. */
struct nbd_cursor {
	const uint8_t *at, *end;
};
OX_CHECKED bool nbd_cursor_u16(struct nbd_cursor *in, uint16_t *out);
OX_CHECKED bool nbd_cursor_u32(struct nbd_cursor *in, uint32_t *out);
/* A 32-bit length and that many bytes; `*text` points into the data. */
OX_CHECKED bool nbd_cursor_string(struct nbd_cursor *in, const char **text, size_t *len_bytes);
/* Such a string as an export's name. A name that cannot be one of ours (too long, NUL bytes) becomes "?", which names
 * nothing; false only if the data ends too soon. */
OX_CHECKED bool nbd_cursor_name(struct nbd_cursor *in, char name[ENGINE_EXPORT_NAME_MAX + 1]);

/* ---- nbd_meta.c ------------------------------------------------------------------------------------------------------ */

/* LIST_META_CONTEXT and SET_META_CONTEXT with their data. */
OX_CHECKED int nbd_option_meta(struct nbd_conn *c, uint32_t option, struct nbd_cursor in);
/* How large a payload buffer BLOCK_STATUS wants, and its answer. */
size_t nbd_status_payload_bytes(const struct nbd_conn *c);
void nbd_status_answer(struct nbd_request *r);

/* ---- nbd_transmission.c ------------------------------------------------------------------------------------------------ */

/* Suspends until the client disconnects or is dropped, and all it asked for has been carried out. */
void nbd_transmission(struct nbd_conn *c);

/* ---- nbd_reply.c ------------------------------------------------------------------------------------------------------- */

/* A request with the command in it; counted in flight. */
struct nbd_request *nbd_request_new(struct nbd_conn *c, const struct nbd_command *command);
/* Returns all it holds. */
void nbd_request_free(struct nbd_request *r);

/* Write the head of one chunk (structured or extended form), whose payload is `length` bytes; returns the head's length. */
size_t nbd_chunk_head(const struct nbd_request *r, uint16_t flags, uint16_t type, uint64_t length, void *out);
/* Complete a request: error is 0 or NBD_E..., sentence (may be NULL) goes along where the form carries one. */
void nbd_reply_error(struct nbd_request *r, uint32_t error, const char *sentence);
void nbd_reply_done(struct nbd_request *r, int err);
/* Complete a READ with the first command.length bytes of the payload. */
void nbd_reply_data(struct nbd_request *r);
/* Complete a request whose r->parts (at most NBD_REPLY_PARTS_MAX) are ready. */
void nbd_reply_parts(struct nbd_request *r);

#endif
