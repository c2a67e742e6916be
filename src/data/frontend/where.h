/*
 * where.h: addresses as text, taken apart and compared; and whether a client is on this node. Pure.
 */
#ifndef OXBOW_DATA_FRONTEND_WHERE_H
#define OXBOW_DATA_FRONTEND_WHERE_H

#include "base/base.h"

/* tcp:HOST:PORT or tcp:[HOST]:PORT taken apart, and the same without "tcp:". Points into the text. */
struct where {
	const char *host, *port;
	size_t host_bytes;
	bool is_v6;
};
struct where where_of(const char *address);
bool where_is_loopback(const struct where *w);
bool where_is_host(const struct where *w, const char *host);

/* Does the peer come from an address of ours (rt_conn_local, rt_conn_peer)? What takes this node's memory away takes it, too (V11). */
bool where_is_near(const char *local, const char *peer);

#endif
