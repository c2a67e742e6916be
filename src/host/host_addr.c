/* host_addr.c: see host_addr.h. */
#include "host/host_addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

bool addr_is_unix(const struct host_addr *addr)
{
	return addr->any.sa_family == AF_UNIX;
}

static int unix_parse(const char *path, struct host_addr *out)
{
	size_t len_bytes = strlen(path);
	if (len_bytes == 0 || len_bytes >= sizeof(out->un.sun_path))
		return OXE_INVAL;
	*out = (struct host_addr){.len_bytes = sizeof(out->un)};
	out->un.sun_family = AF_UNIX;
	memcpy(out->un.sun_path, path, len_bytes + 1);
	return 0;
}

static int port_parse(const char *text, uint16_t *port)
{
	unsigned value = 0;
	if (!*text)
		return OXE_INVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || (value = value * 10 + (unsigned)(*text - '0')) > UINT16_MAX)
			return OXE_INVAL;
	}
	*port = htons((uint16_t)value);
	return 0;
}

static bool number_parse(const char *host, uint16_t port, struct host_addr *out)
{
	*out = (struct host_addr){.len_bytes = sizeof(out->in)};
	if (inet_pton(AF_INET, host, &out->in.sin_addr) == 1) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = port;
		return true;
	}
	*out = (struct host_addr){.len_bytes = sizeof(out->in6)};
	if (inet_pton(AF_INET6, host, &out->in6.sin6_addr) == 1) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = port;
		return true;
	}
	return false;
}

struct resolve {
	const char *host;
	struct host_addr addr;
	bool found;
};

static void resolve_work(void *arg)
{
	struct resolve *r = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list;
	if (getaddrinfo(r->host, NULL, &hints, &list))
		return;
	if (list->ai_addrlen <= sizeof(r->addr.in6)) {
		r->addr.len_bytes = list->ai_addrlen;
		memcpy(&r->addr.any, list->ai_addr, list->ai_addrlen);
		r->found = true;
	}
	freeaddrinfo(list);
}

static int name_resolve(const char *host, uint16_t port, struct host_addr *out)
{
	struct resolve r = {.host = host};
	rt_offload(resolve_work, &r);
	if (!r.found)
		return OXE_NOENT;
	*out = r.addr;
	if (out->any.sa_family == AF_INET)
		out->in.sin_port = port;
	else
		out->in6.sin6_port = port;
	return 0;
}

/* "HOST:PORT"; a v6 number stands in brackets. */
static int tcp_parse(const char *text, struct host_addr *out)
{
	char host[256];
	uint16_t port;
	const char *colon = strrchr(text, ':');
	bool brackets = text[0] == '[';
	if (!colon || colon == text || (size_t)(colon - text) >= sizeof(host))
		return OXE_INVAL;
	if (brackets && (colon[-1] != ']' || colon - text < 3))
		return OXE_INVAL;
	size_t len_bytes = (size_t)(colon - text) - (brackets ? 2 : 0);
	memcpy(host, text + brackets, len_bytes);
	host[len_bytes] = '\0';
	if (port_parse(colon + 1, &port))
		return OXE_INVAL;
	if (!brackets && strchr(host, ':'))
		return OXE_INVAL;
	if (number_parse(host, port, out))
		return brackets == (out->any.sa_family == AF_INET6) ? 0 : OXE_INVAL;
	return brackets ? OXE_INVAL : name_resolve(host, port, out);
}

int addr_parse(const char *text, struct host_addr *out)
{
	if (strncmp(text, "unix:", 5) == 0)
		return unix_parse(text + 5, out);
	if (strncmp(text, "tcp:", 4) == 0)
		return tcp_parse(text + 4, out);
	return OXE_INVAL;
}

void addr_format(const struct host_addr *addr, char text[ADDR_TEXT_SIZE])
{
	char host[INET6_ADDRSTRLEN];
	if (addr->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &addr->in.sin_addr, host, sizeof(host));
		snprintf(text, ADDR_TEXT_SIZE, "tcp:%s:%u", host, ntohs(addr->in.sin_port));
	} else if (addr->any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &addr->in6.sin6_addr, host, sizeof(host));
		snprintf(text, ADDR_TEXT_SIZE, "tcp:[%s]:%u", host, ntohs(addr->in6.sin6_port));
	} else {
		snprintf(text, ADDR_TEXT_SIZE, "unix:%.*s", (int)sizeof(addr->un.sun_path),
			 addr->un.sun_path);
	}
}
