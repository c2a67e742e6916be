/* host_addr.h: addresses as text (rt.h) and as the kernel wants them. */
#ifndef OXBOW_HOST_HOST_ADDR_H
#define OXBOW_HOST_HOST_ADDR_H

#include "rt/rt.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDR_TEXT_SIZE 160

struct host_addr {
	socklen_t len_bytes;
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
};

/* OXE_INVAL if `text` is no address; OXE_NOENT if a host name is not known. Numbers are parsed in place; a name is asked of
 * the resolver on a worker thread: Suspends. */
OX_CHECKED int addr_parse(const char *text, struct host_addr *out);
/* "tcp:127.0.0.1:10809", "tcp:[::1]:10809" or "unix:/path". */
void addr_format(const struct host_addr *addr, char text[ADDR_TEXT_SIZE]);
bool addr_is_unix(const struct host_addr *addr);

#endif
