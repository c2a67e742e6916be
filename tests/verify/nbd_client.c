/* nbd_client.c: see nbd_client.h. The protocol is the NBD project's doc/proto.md. */
#include "nbd_client.h"

#include "base/bytes.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define INIT_MAGIC	   UINT64_C(0x4e42444d41474943)
#define OPTION_MAGIC	   UINT64_C(0x49484156454f5054)
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define REQUEST_MAGIC	   0x25609513u
#define REPLY_MAGIC	   0x67446698u
#define OPTION_GO	   7u
#define REPLY_ACK	   1u
#define REPLY_INFO	   3u
#define CLIENT_FLAGS	   3u /* fixed newstyle, no zeroes */
#define INFO_BYTES_MAX	   4096

struct option_head {
	be64 magic;
	be32 option, len;
};
struct option_reply {
	be64 magic;
	be32 option, type, len;
};
struct info_export {
	be16 type;
	be64 size;
	be16 flags;
};
struct request_head {
	be32 magic;
	be16 flags, type;
	be64 cookie, offset;
	be32 len;
};
struct reply_head {
	be32 magic, error;
	be64 cookie;
};

static bool send_all(int fd, const void *data, size_t len_bytes)
{
	const char *p = data;
	while (len_bytes > 0) {
		ssize_t n = send(fd, p, len_bytes, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len_bytes -= (size_t)n;
	}
	return true;
}

static bool recv_all(int fd, void *data, size_t len_bytes)
{
	char *p = data;
	while (len_bytes > 0) {
		ssize_t n = recv(fd, p, len_bytes, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len_bytes -= (size_t)n;
	}
	return true;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int connect_tcp(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -1;
	int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

static int connect_to(const char *address)
{
	const char *colon = strrchr(address, ':');
	if (address[0] == '/' || !colon)
		return connect_unix(address);
	char host[256];
	snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	return connect_tcp(host, colon + 1);
}

static bool send_go(int fd, const char *export_name)
{
	char message[sizeof(struct option_head) + sizeof(be32) + 256 + sizeof(be16)];
	size_t name_len = strlen(export_name);
	if (name_len > 256)
		return false;
	struct option_head head = {be64_of(OPTION_MAGIC), be32_of(OPTION_GO),
				   be32_of((uint32_t)(name_len + 6))};
	be32 len = be32_of((uint32_t)name_len);
	be16 no_infos = be16_of(0);
	char *p = message;
	p = (char *)memcpy(p, &head, sizeof(head)) + sizeof(head);
	p = (char *)memcpy(p, &len, sizeof(len)) + sizeof(len);
	p = (char *)memcpy(p, export_name, name_len) + name_len;
	p = (char *)memcpy(p, &no_infos, sizeof(no_infos)) + sizeof(no_infos);
	return send_all(fd, message, (size_t)(p - message));
}

/* Read option replies until the server says go, or no. */
static bool await_go(struct nbd_client *c)
{
	for (;;) {
		struct option_reply head;
		char data[INFO_BYTES_MAX];
		if (!recv_all(c->fd, &head, sizeof(head)) || be64_get(head.magic) != OPTION_REPLY_MAGIC ||
		    be32_get(head.len) > sizeof(data) || !recv_all(c->fd, data, be32_get(head.len)))
			return false;
		if (be32_get(head.type) == REPLY_ACK)
			return true;
		if (be32_get(head.type) != REPLY_INFO)
			return false;
		struct info_export info;
		if (be32_get(head.len) != sizeof(info))
			continue;
		memcpy(&info, data, sizeof(info));
		if (be16_get(info.type) == 0) {
			c->size_bytes = be64_get(info.size);
			c->flags = be16_get(info.flags);
		}
	}
}

static bool handshake(struct nbd_client *c, const char *export_name)
{
	struct {
		be64 magic, option_magic;
		be16 flags;
	} greeting;
	be32 flags = be32_of(CLIENT_FLAGS);
	return recv_all(c->fd, &greeting, sizeof(greeting)) && be64_get(greeting.magic) == INIT_MAGIC &&
	       be64_get(greeting.option_magic) == OPTION_MAGIC && send_all(c->fd, &flags, sizeof(flags)) &&
	       send_go(c->fd, export_name) && await_go(c);
}

bool nbd_client_open(struct nbd_client *c, const char *address, const char *export_name)
{
	*c = (struct nbd_client){.fd = connect_to(address)};
	if (c->fd < 0) {
		fprintf(stderr, "cannot connect to %s: %s\n", address, strerror(errno));
		return false;
	}
	if (!handshake(c, export_name)) {
		fprintf(stderr, "%s does not serve %s\n", address, export_name);
		nbd_client_close(c);
		return false;
	}
	return true;
}

bool nbd_client_send(struct nbd_client *c, const struct nbd_command *command, const void *data)
{
	struct request_head head = {
		be32_of(REQUEST_MAGIC),	  be16_of(command->flags),	  be16_of(command->type),
		be64_of(command->cookie), be64_of(command->offset_bytes), be32_of(command->len_bytes),
	};
	return send_all(c->fd, &head, sizeof(head)) &&
	       (command->type != NBD_WRITE || send_all(c->fd, data, command->len_bytes));
}

bool nbd_client_reply(struct nbd_client *c, uint64_t *cookie, uint32_t *error)
{
	struct reply_head head;
	if (!recv_all(c->fd, &head, sizeof(head)))
		return false;
	if (be32_get(head.magic) != REPLY_MAGIC) {
		fprintf(stderr, "a reply begins with 0x%08x\n", be32_get(head.magic));
		exit(1);
	}
	*cookie = be64_get(head.cookie);
	*error = be32_get(head.error);
	return true;
}

bool nbd_client_data(struct nbd_client *c, void *data, uint32_t len_bytes)
{
	return recv_all(c->fd, data, len_bytes);
}

void nbd_client_close(struct nbd_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}
