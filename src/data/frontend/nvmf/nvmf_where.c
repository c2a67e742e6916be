/* nvmf_where.c: addresses as text: taken apart, compared. */
#include "data/frontend/nvmf/nvmf_conn.h"

struct nvmf_where nvmf_where_of(const char *address)
{
	const char *host = strncmp(address, "tcp:", 4) == 0 ? address + 4 : address,
		   *colon = strrchr(host, ':');
	struct nvmf_where w = {.host = host, .port = colon ? colon + 1 : ""};
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

bool nvmf_where_is_host(const struct nvmf_where *w, const char *host)
{
	return w->host_bytes == strlen(host) && memcmp(w->host, host, w->host_bytes) == 0;
}

bool nvmf_where_is_loopback(const struct nvmf_where *w)
{
	return nvmf_where_is_host(w, "::1") || nvmf_where_is_host(w, "localhost") ||
	       (!w->is_v6 && strncmp(w->host, "127.", 4) == 0);
}

bool nvmf_is_near(const char *local, const char *peer)
{
	struct nvmf_where a = nvmf_where_of(local), b = nvmf_where_of(peer);
	if (nvmf_where_is_loopback(&b))
		return true;
	return b.host_bytes > 0 && a.host_bytes == b.host_bytes && memcmp(a.host, b.host, a.host_bytes) == 0;
}
