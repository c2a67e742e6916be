/*
 * tls_offer.h: the keys a TLS 1.3 client offers (RFC 8446, 4.2.11), taken apart: what lies in the extension pre_shared_key of its hello.
 * Pure functions over bytes of a stranger's.
 */
#ifndef OXBOW_DATA_TLS_TLS_OFFER_H
#define OXBOW_DATA_TLS_TLS_OFFER_H

#include "base/base.h"

struct tls_offer {
	const uint8_t *at, *end; /* identities not looked at yet */
};

/* OXE_PROTO: the bytes are no such extension. `data` must stay. */
OX_CHECKED int tls_offer_open(const void *data, size_t len_bytes, struct tls_offer *out);
/* The next identity that is text of at most max_bytes, as a string of max_bytes + 1; others are passed over. False: there is none. */
OX_CHECKED bool tls_offer_next(struct tls_offer *offer, char *identity, size_t max_bytes);

#endif
