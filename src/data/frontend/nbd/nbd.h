/*
 * nbd.h: the NBD server. Exports what the engine room serves, by name, on unix and TCP sockets.
 *
 *     listener  -> connection fiber: handshake, then receives requests
 *                    -> a fiber a request: the engine's answer
 *                         -> sender fiber: gathers the replies that are ready into one send
 *
 * Fixed newstyle with structured replies and extended headers, metadata contexts base:allocation and
 * oxbow:changed-since:SNAPSHOT, optional TLS. Any number of connections may share an export: one engine serves them all,
 * so a flush on one covers what was answered on any (NBD_FLAG_CAN_MULTI_CONN).
 *
 *   who owns memory   the server owns everything; options are copied
 *   which reactor     that of `engines`; every call from a fiber of it, and Suspends unless it says otherwise
 *   errors            0 or OXE_; what a client does wrong is answered to the client, or logged with its address and dropped
 *
 * A client is a stranger. What it can make us hold, and what happens at the limit:
 *
 *     an option's length      16 KiB; up to 1 MiB skipped and refused, beyond it dropped
 *     options before GO       options_max, then dropped
 *     an export that is to be served soon (a mirror without an answer of its copies yet): part of the handshake
 *     the handshake's length  handshake_timeout_ns, then dropped
 *     contexts                8 a connection; more are refused
 *     a request's payload     32 MiB; a write beyond it is read, thrown away and refused
 *     requests in flight      requests_max a connection; then its socket is not read (back-pressure)
 *     payload bytes           connection_bytes_max a connection, buffer_budget_bytes in all, and no connection more than it
 *                             leaves for all others, nor an export more than three times that; the same
 *     a message in halves     stall_timeout_ns and a minute a MiB for the rest of it, then dropped; the same for replies
 *                             nobody reads, four times as patient
 *     connections             connections_max; then closed as soon as accepted
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_H

#include "data/engine/engine.h"

struct nbd_server;

enum nbd_tls_mode {
	NBD_TLS_OFF,
	NBD_TLS_OPTIONAL, /* for clients that ask */
	NBD_TLS_REQUIRED, /* on TCP; a unix socket is guarded by its file's mode, and there it stays optional */
};

struct nbd_tls_options {
	enum nbd_tls_mode mode;
	const char *certificate_file, *key_file; /* PEM */
	const char *client_ca_file; /* PEM; if given, clients must show a certificate it signed */
};

struct nbd_options { /* 0 means the default in brackets */
	struct nbd_tls_options tls;
	uint64_t buffer_budget_bytes;  /* [256 MiB] at least 64 MiB */
	uint64_t connection_bytes_max; /* [64 MiB] */
	uint64_t handshake_timeout_ns; /* [60 s] */
	uint64_t stall_timeout_ns;     /* [30 s] */
	uint32_t connections_max;      /* [512] */
	uint32_t requests_max;	       /* [256] */
	uint32_t options_max;	       /* [256] */
};

/* `options` may be NULL. OXE_INVAL if a certificate, key or CA cannot be used (logged which, and why). */
OX_CHECKED int nbd_server_new(struct engines *engines, const struct nbd_options *options,
			      struct nbd_server **out);
/* Serve on one more address. `bound` (may be NULL) gets the address with its port, valid until the server is closed. Where it
 * listened before (a unix socket whose file is gone) the new listener takes the place of the old, and `bound` of the old goes. */
OX_CHECKED int nbd_server_listen(struct nbd_server *server, const char *address, const char **bound);
/* End the connections to this pool's exports: the pool failed, and can only be opened again once nobody holds it. Clients
 * connect anew when it is back. Does not suspend. */
void nbd_server_evict(struct nbd_server *server, const char *pool_name);
/* The same of one volume and its snapshots: a mirror is over, and another may come in its place. */
void nbd_server_evict_volume(struct nbd_server *server, const struct uuid *volume_id);
/* Stops listening, ends every connection (requests under way are carried out, unanswered), and frees. A request inside a mirror that
 * waits ends when it serves again, or is stopped (mirror_stop): so mirrors are stopped first. */
void nbd_server_close(struct nbd_server *server);

struct nbd_stats {
	uint64_t connections_accepted, connections_refused; /* refused: beyond connections_max */
	uint64_t connections_dropped;			    /* for breaking the protocol, or its pace */
	uint64_t requests;
	uint32_t connections;
};
/* Does not suspend. */
void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *out);

#endif
