/*
 * nvmf.h: the NVMe over TCP target. Serves every volume the engine room has: one subsystem a volume, one namespace in it; and
 * every snapshot in the same way, to be read only, by whoever may have its volume.
 *
 *     listener  -> connection fiber: one queue of a controller; receives PDUs
 *                    -> a fiber a command: waits for memory and for its data (R2T), calls the engine, answers
 *                         -> sender fiber: gathers what is ready into one send
 *     controller   one host's association with one volume: an admin queue, up to NVMF_QUEUES_MAX I/O queues
 *     subsystem    a volume: nqn.2026-11.dev.oxbow:volume:UUID, a snapshot: ...:snapshot:UUID, or the well-known discovery subsystem;
 *                  or somebody else's (nvmf_foreign.h)
 *
 *   who owns memory   the server owns everything; options are copied
 *   which reactor     that of `engines`; every call from a fiber of it, and Suspends unless it says otherwise
 *   errors            0 or OXE_; what a host does wrong is answered to the host, or logged with its address and dropped
 *
 * What holds across a host's reconnect: a host that closed its connections gets a new association with the volume only when
 * every command of the old one has ended. So a write it gave up, and sent again, cannot overtake what it writes next.
 *
 * A host is a stranger. What it can make us hold, and what happens at the limit:
 *
 *     the time to connect     handshake_timeout_ns from accept to a connected queue, then dropped. Connect waits half of what is
 *                             left of it for a mirror that does not serve yet, and for what the host left behind; then the host is
 *                             told to try again
 *     entries of a queue      NVMF_ENTRIES_MAX; a larger queue is refused, more commands than entries are dropped with their host
 *     data of one command     MDTS, 1 MiB; more is refused with the command
 *     data in a capsule       8 KiB; more ends the connection
 *     payload bytes           connection_bytes_max a connection, buffer_budget_bytes in all, and no connection more than it
 *                             leaves for all others, nor a volume more than three times that; then commands wait for memory,
 *                             and at most a queue of them
 *     data that was asked for R2T: stall_timeout_ns without any of it, then dropped
 *     a PDU in halves         stall_timeout_ns and a minute a MiB for the rest of it, then dropped; the same for answers
 *                             nobody reads, four times as patient
 *     silence                 between one and two keep alive time-outs, then the association ends: hosts rely on that
 *     a TLS handshake         part of the time to connect; tls.h says what it holds
 *     authentication          handshake_timeout_ns, then dropped; failures cost time (nvmf_auth_run.c)
 *     connections             connections_max; then closed as soon as accepted
 *     asynchronous events     four requests; more are refused. One notice of a kind is outstanding until its log is read
 *     reservations            64 registrants a volume; more are refused. Sixteen unread notices a controller; later ones are lost
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_H

#include "data/engine/engine.h"
#include "data/frontend/nvmf/nvmf_foreign.h"
#include "data/frontend/nvmf/nvmf_reservation.h"

#define NVMF_ENTRIES_MAX 128 /* of one queue */
#define NVMF_QUEUES_MAX	 16  /* I/O queues of one controller */

#define NVMF_NQN_SIZE	   256
#define NVMF_REFERRALS_MAX 16
#define NVMF_PEER_SIZE	   128

struct nvmf_server;

enum nvmf_tls_mode { /* nvmf_tls.c says what each means */
		     NVMF_TLS_OFF,
		     NVMF_TLS_ALLOWED,
		     NVMF_TLS_REQUIRED, /* but on loopback addresses */
};

struct nvmf_options {		       /* 0 means the default in brackets */
	uint64_t buffer_budget_bytes;  /* [256 MiB] at least 16 MiB */
	uint64_t connection_bytes_max; /* [32 MiB] at least 4 MiB */
	uint64_t handshake_timeout_ns; /* [30 s] */
	uint64_t stall_timeout_ns;     /* [30 s] */
	uint32_t connections_max;      /* [2048] */
	/* Of this run of the machine's kernel: a reservation that is not to persist through power loss ends with it. Nil: unknown,
	 * and then none ends so. */
	struct uuid boot_id;
	uint8_t auth_group; /* [2048 bits, if the host has it] 1 + the least enum nvme_auth_group */
	/* Other discovery services, tcp:HOST:PORT, that hosts who ask are told of. The texts stay the caller's, and as long as the server. */
	const char *referrals[NVMF_REFERRALS_MAX];
	size_t referral_count;
	bool discovers_snapshots; /* hosts that ask are told of them, too: they may be many */
	bool authenticated_only; /* a volume is only for hosts that its list has a secret or, through TLS, a key for */
	enum nvmf_tls_mode tls;		    /* [off] but for what is foreign */
	const struct nvmf_foreign *foreign; /* [none] copied */
};

/* `options` may be NULL. */
struct nvmf_server *nvmf_server_new(struct engines *engines, const struct nvmf_options *options);
/* Serve on one more address, tcp:HOST:PORT. `bound` (may be NULL) gets it with its port, valid until the server is closed. */
OX_CHECKED int nvmf_server_listen(struct nvmf_server *server, const char *address, const char **bound);
/* Volumes came, went, or changed their size: hosts that asked for it are told. Does not suspend. */
void nvmf_server_changed(struct nvmf_server *server);
/* Who may connect to this volume has changed (nvmf_access.h): whoever may not any more is disconnected. Suspends. */
void nvmf_server_access_changed(struct nvmf_server *server, const struct uuid *volume_id);
/* End the associations with this pool's volumes: the pool failed, and can only be opened again once nobody holds it. Hosts
 * connect anew by themselves and go on when it is back. Does not suspend. */
void nvmf_server_evict(struct nvmf_server *server, const char *pool_name);
/* The same of one volume and its snapshots: a mirror is over, and another may come in its place. */
void nvmf_server_evict_volume(struct nvmf_server *server, const struct uuid *volume_id);
/* Stops listening, ends every connection (commands under way are carried out, unanswered), and frees. A command inside a mirror that
 * waits ends when it serves again, or is stopped (mirror_stop): so mirrors are stopped first. */
void nvmf_server_close(struct nvmf_server *server);

/* The name of a volume's subsystem, and of a snapshot's, for ever. Do not suspend. */
void nvmf_volume_nqn(const struct uuid *volume_id, char nqn[NVMF_NQN_SIZE]);
void nvmf_snapshot_nqn(const struct uuid *snapshot_id, char nqn[NVMF_NQN_SIZE]);

/* ---- what is there (nvmf_status.c) ------------------------------------------------------------------------------------ */

struct nvmf_stats {
	uint64_t connections_accepted, connections_refused; /* refused: beyond connections_max */
	uint64_t connections_dropped;			    /* for breaking the protocol, or its pace */
	uint64_t commands, errors;			    /* errors: commands answered with a status */
	uint64_t hosts_refused;				    /* by a volume's list */
	uint64_t hosts_proved, proofs_failed;		    /* authentications, a queue each */
	uint32_t connections, controllers;
};
/* Does not suspend. */
void nvmf_server_stats(const struct nvmf_server *server, struct nvmf_stats *out);

/* One host's association with one volume, or with discovery. */
struct nvmf_association {
	char hostnqn[NVMF_NQN_SIZE], subnqn[NVMF_NQN_SIZE];
	struct uuid host_id;
	struct uuid id; /* of what is served; nil: discovery. Foreign: as it says */
	char name[ENGINE_EXPORT_NAME_MAX +
		  1];		   /* "POOL/VOLUME[@SNAPSHOT]"; "": discovery. Foreign: "copy:..." */
	char peer[NVMF_PEER_SIZE]; /* where its admin queue comes from */
	uint16_t controller;
	uint32_t io_queues, keep_alive_ms; /* 0: none */
	uint64_t since_wall_ns, commands, errors;
	bool is_tls, is_authenticated, header_digest, data_digest; /* as the admin queue has it */
	bool is_registrant, is_holder;				   /* of the volume's reservation */
};
/* Of associations that are not about to end. Does not suspend, nor may `fn`; it returns false to stop. */
void nvmf_server_walk(const struct nvmf_server *server,
		      bool (*fn)(void *ctx, const struct nvmf_association *a), void *ctx);

/* Who is registered with a volume, and who holds it: with hosts connected as they see it, otherwise as the pool has noted it.
 * OXE_CORRUPT, OXE_VERSION: the note cannot be believed, and keeps every host out. Suspends. */
OX_CHECKED int nvmf_server_reservation(struct nvmf_server *server, const struct uuid *volume_id,
				       struct nvmf_reservation *out);
/* An operator's word: take every registration and the reservation away, and a note that cannot be believed with them. Hosts that
 * were registered are told that they were preempted. Durable when it returns 0. *was_there: false if there was nothing to take.
 * OXE_NOENT: no such volume. OXE_CORRUPT: not even the page it is on can be believed. Suspends. */
OX_CHECKED int nvmf_server_reservation_clear(struct nvmf_server *server, const struct uuid *volume_id,
					     bool *was_there);

#endif
