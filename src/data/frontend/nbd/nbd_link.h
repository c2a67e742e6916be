/*
 * nbd_link.h: one client's stream of bytes, plain or TLS, buffered on the way in, with deadlines both ways.
 *
 * Small messages are decoded out of a large buffer, many to one receive; a large payload goes around it, straight to where
 * it is wanted. One fiber receives, one may send besides.
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_LINK_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_LINK_H

#include "rt/rt.h"

struct nbd_tls;

struct nbd_link {
	struct rt *rt;
	struct rt_conn *conn;
	struct nbd_tls *tls; /* NULL: plain */
	uint8_t *buffer;
	size_t capacity, start, end; /* what was received and not yet taken is [start, end) */
	uint64_t stall_ns;
	uint64_t overall_deadline_ns, rx_deadline_ns, tx_deadline_ns; /* 0: none */
	struct rt_timer timer;
	bool timed_out;
};

/* Takes the connection. */
void nbd_link_init(struct nbd_link *l, struct rt *rt, struct rt_conn *conn, size_t capacity,
		   uint64_t stall_ns);
/* Nobody may be receiving or sending. */
void nbd_link_fini(struct nbd_link *l);
/* A larger buffer; keeps what is in it. */
void nbd_link_resize(struct nbd_link *l, size_t capacity);
/* The deadline for everything (the handshake's); 0: none. */
void nbd_link_deadline(struct nbd_link *l, uint64_t deadline_ns);
/* Both directions end soon. Idempotent, does not suspend. */
void nbd_link_shutdown(struct nbd_link *l);

/* The bytes at hand. */
static inline size_t nbd_link_buffered(const struct nbd_link *l)
{
	return l->end - l->start;
}

static inline const uint8_t *nbd_link_bytes(const struct nbd_link *l)
{
	return l->buffer + l->start;
}

/* Take n of them (n <= buffered). */
static inline void nbd_link_take(struct nbd_link *l, size_t n)
{
	assert(n <= nbd_link_buffered(l));
	l->start += n;
}

/* Suspends until `need` bytes (at most the capacity) are at hand. With `exactly`, no byte past them is received: a large
 * payload follows and is wanted elsewhere. OXE_CLOSED at an end of stream, between messages or inside one; OXE_TIMEOUT if
 * the peer stalled inside one. */
OX_CHECKED int nbd_link_fill(struct nbd_link *l, size_t need, bool exactly);
/* Suspends until n bytes are in `data`, or thrown away. Errors as above. */
OX_CHECKED int nbd_link_read(struct nbd_link *l, void *data, size_t n);
OX_CHECKED int nbd_link_skip(struct nbd_link *l, uint64_t n);
/* Suspends until all is sent. */
OX_CHECKED int nbd_link_send(struct nbd_link *l, const struct rt_iovec *parts, size_t part_count);

#endif
