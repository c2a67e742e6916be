/*
 * nbd_tls.h: TLS over a connection. The only file here that knows GnuTLS is nbd_tls.c.
 *
 * The session never waits for the network: ciphertext passes through two memory buffers, and our functions move those to and
 * from the socket. So no fiber is ever suspended inside the library, and one receiving and one sending fiber share a session
 * without a lock. Call from big stacks (fiber_spawn_big).
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_TLS_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_TLS_H

#include "data/frontend/nbd/nbd.h"
#include "data/frontend/link.h"

struct nbd_tls_context; /* certificates and policy, one a server */

/* OXE_INVAL if a file cannot be used (logged), OXE_UNSUPPORTED without the library. */
OX_CHECKED int nbd_tls_context_new(const struct nbd_tls_options *options, struct nbd_tls_context **out);
void nbd_tls_context_free(struct nbd_tls_context *context);

/* The handshake, as server, on a link that is plain so far; link->tls is set. When it fails, `because` says why (static
 * text). Suspends. */
OX_CHECKED int nbd_tls_start(struct nbd_tls_context *context, struct link *link, const char **because);

#endif
