/* where.c: see where.h. */
#include "data/frontend/where.h"

struct where where_of(const char *address)
{
	const char *host = strncmp(address, "tcp:", 4) == 0 ? address + 4 : address,
		   *colon = strrchr(host, ':');
	struct where w = {.host = host, .port = colon ? colon + 1 : ""};
	w.host_bytes = colon ? (size_t)(colon - host) : strlen(host);
	w.is_v6 = *host == '[' && w.host_bytes >= 2;
	if (w.is_v6) {
		w.host++;
		w.host_bytes -= 2;
	}
	/* An IPv4 host on a socket that takes both. */
	const char *mapped = "::ffff:";
	if (w.is_v6 && strncmp(w.host, mapped, strlen(mapped)) == 0 && memchr(w.host, '.', w.host_bytes)) {
		w.is_v6 = false;
		w.host += strlen(mapped);
		w.host_bytes -= strlen(mapped);
	}
	return w;
}

bool where_is_host(const struct where *w, const char *host)
{
	return w->host_bytes == strlen(host) && memcmp(w->host, host, w->host_bytes) == 0;
}

bool where_is_loopback(const struct where *w)
{
	return where_is_host(w, "::1") || where_is_host(w, "localhost") ||
	       (!w->is_v6 && strncmp(w->host, "127.", 4) == 0);
}

bool where_is_near(const char *local, const char *peer)
{
	struct where a = where_of(local), b = where_of(peer);
	if (where_is_loopback(&b))
		return true;
	return b.host_bytes > 0 && a.host_bytes == b.host_bytes && memcmp(a.host, b.host, a.host_bytes) == 0;
}
