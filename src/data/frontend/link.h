/*
 * link.h: one client's stream of bytes, plain or TLS, buffered on the way in, with deadlines both ways.
 *
 * Small messages are decoded out of a large buffer, many to one receive; a large payload goes around it, straight to where
 * it is wanted. One fiber receives, one may send besides.
 */
#ifndef OXBOW_DATA_FRONTEND_LINK_H
#define OXBOW_DATA_FRONTEND_LINK_H

#include "data/tls/tls.h"

struct link {
	struct rt *rt;
	struct rt_conn *conn;
	struct tls *tls; /* NULL: plain; whoever has shaken hands puts it there, and the link frees it */
	uint8_t *buffer;
	size_t capacity, start, end; /* what was received and not yet taken is [start, end) */
	uint64_t stall_ns;
	uint64_t overall_deadline_ns, rx_deadline_ns, tx_deadline_ns; /* 0: none */
	struct rt_timer timer;
	bool timed_out;
};

/* Takes the connection. */
void link_init(struct link *l, struct rt *rt, struct rt_conn *conn, size_t capacity, uint64_t stall_ns);
/* Nobody may be receiving or sending. */
void link_fini(struct link *l);
/* A larger buffer; keeps what is in it. */
void link_resize(struct link *l, size_t capacity);
/* The deadline for everything (the handshake's); 0: none. */
void link_deadline(struct link *l, uint64_t deadline_ns);
/* Say goodbye, so that the peer of a TLS link knows the end for one; nothing on a plain one. Suspends. */
void link_bye(struct link *l);
/* Both directions end soon. Idempotent, does not suspend. */
void link_shutdown(struct link *l);

/* The bytes at hand. */
static inline size_t link_buffered(const struct link *l)
{
	return l->end - l->start;
}

static inline const uint8_t *link_bytes(const struct link *l)
{
	return l->buffer + l->start;
}

/* Take n of them (n <= buffered). */
static inline void link_take(struct link *l, size_t n)
{
	assert(n <= link_buffered(l));
	l->start += n;
}

/* Suspends until `need` bytes (at most the capacity) are at hand. With `exactly`, no byte past them is received: a large
 * payload follows and is wanted elsewhere. OXE_CLOSED at an end of stream, between messages or inside one; OXE_TIMEOUT if
 * the peer stalled inside one. */
OX_CHECKED int link_fill(struct link *l, size_t need, bool exactly);
/* Suspends until n bytes are in `data`, or thrown away. Errors as above. */
OX_CHECKED int link_read(struct link *l, void *data, size_t n);
OX_CHECKED int link_skip(struct link *l, uint64_t n);
/* Suspends until all is sent. */
OX_CHECKED int link_send(struct link *l, const struct rt_iovec *parts, size_t part_count);

#endif
