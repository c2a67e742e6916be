/* nbd_tls.h: TLS as NBD has it: by certificates, begun in the middle of the handshake. */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_TLS_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_TLS_H

#include "data/frontend/link.h"
#include "data/frontend/nbd/nbd.h"

/* OXE_INVAL if a file cannot be used (logged). */
OX_CHECKED int nbd_tls_context_new(const struct nbd_tls_options *options, struct tls_context **out);

/* The handshake, as server, on a link that is plain so far; link->tls is set. When it fails, `because` says why (static
 * text). Suspends; from a big stack. */
OX_CHECKED int nbd_tls_start(const struct tls_context *context, struct link *link, const char **because);

#endif
