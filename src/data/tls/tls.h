/*
 * tls.h: TLS over a connection, as server or client, by certificates or by a key both sides have (PSK). The only file that knows
 * OpenSSL is tls.c.
 *
 * A session never waits for the network inside the library: ciphertext passes through two memory buffers, and our functions move
 * those to and from the socket. So no fiber is ever suspended in there, and one receiving and one sending fiber share a session
 * without a lock. Handshakes want a big stack (fiber_spawn_big).
 *
 *   who owns memory   a session does not own its connection; keys are copied, and wiped when done with
 *   which reactor     that of the connection
 *   errors            0, OXE_CLOSED (the peer ended it), OXE_PROTO (it is no TLS, or not as it should be), or of the socket
 *
 * What a peer can make us hold: 64 KiB of ciphertext, a record, and an offer of keys of at most 16 KiB. Sessions are never resumed,
 * and no tickets are sent: what cannot be resumed needs no keeping.
 */
#ifndef OXBOW_DATA_TLS_TLS_H
#define OXBOW_DATA_TLS_TLS_H

#include "rt/rt.h"

#define TLS_IDENTITY_MAX 1023
#define TLS_KEY_MAX	 48

enum tls_hash { TLS_SHA256 = 1, TLS_SHA384 = 2 };

/* A key that both sides have, and the name under which the client offers it. SHA-256 goes with TLS_AES_128_GCM_SHA256, SHA-384 with
 * TLS_AES_256_GCM_SHA384. */
struct tls_psk {
	enum tls_hash hash;
	uint8_t key_bytes;
	uint8_t key[TLS_KEY_MAX];
	char identity[TLS_IDENTITY_MAX + 1];
};

struct tls_context; /* what the sessions of a server have in common */
struct tls;	    /* one session */

struct tls_files {
	const char *certificate_file, *key_file; /* PEM */
	const char *client_ca_file; /* PEM; if given, clients must show a certificate it signed */
};

/* A server by certificates, TLS 1.2 or 1.3. OXE_INVAL: *what and *file name what cannot be used, *because says why (valid until the next
 * call). */
OX_CHECKED int tls_context_new(const struct tls_files *files, struct tls_context **out, const char **what,
			       const char **file, const char **because);
void tls_context_free(struct tls_context *context);

/* The handshake, as server. When it fails, `because` says why (static text). Suspends. */
OX_CHECKED int tls_accept(const struct tls_context *context, struct rt_conn *conn, struct tls **out,
			  const char **because);

/* The same by keys, TLS 1.3. `find` is asked for each identity that the client offers until it knows one: true, and the key is in
 * *out. It may suspend. `early` is what was received already. */
struct tls_keys {
	bool (*find)(void *ctx, const char *identity, struct tls_psk *out);
	void *ctx;
};
OX_CHECKED int tls_accept_key(const struct tls_keys *keys, struct rt_conn *conn, const void *early,
			      size_t early_bytes, struct tls **out, const char **because);
/* The handshake as client, which offers one key. Suspends. */
OX_CHECKED int tls_connect_key(const struct tls_psk *psk, struct rt_conn *conn, struct tls **out,
			       const char **because);
void tls_free(struct tls *tls);

/* As rt_recv and rt_send. Suspend. */
OX_CHECKED int tls_recv(struct tls *tls, void *data, size_t len_bytes, size_t *got_bytes);
OX_CHECKED int tls_send(struct tls *tls, const struct rt_iovec *parts, size_t part_count);
/* Say goodbye, so that the peer knows the end for one. Suspends. */
void tls_bye(struct tls *tls);

/* HMAC with that hash: 32 or 48 bytes. OXE_NOMEM. Does not suspend. */
static inline size_t tls_hash_bytes(enum tls_hash hash)
{
	return hash == TLS_SHA256 ? 32 : 48;
}
OX_CHECKED int tls_hmac(enum tls_hash hash, const void *key, size_t key_bytes, const void *data,
			size_t len_bytes, uint8_t *out);

#endif
