/*
 * nbd_client.h: a small NBD client of our own, so that what verifies the daemon shares no code with it: fixed newstyle,
 * one connection, simple replies, many commands in flight, blocking.
 */
#ifndef OXBOW_TESTS_VERIFY_NBD_CLIENT_H
#define OXBOW_TESTS_VERIFY_NBD_CLIENT_H

#include "base/base.h"

enum { NBD_READ = 0, NBD_WRITE = 1, NBD_FLUSH = 3, NBD_TRIM = 4, NBD_WRITE_ZEROES = 6 };
enum { NBD_FUA = 1, NBD_NO_HOLE = 2 };

struct nbd_client {
	int fd;
	uint64_t size_bytes;
	uint16_t flags; /* the export's transmission flags */
};

struct nbd_command {
	uint16_t type, flags;
	uint64_t cookie, offset_bytes;
	uint32_t len_bytes;
};

/* `address` is the path of a unix socket, or HOST:PORT. False with a message on stderr. */
bool nbd_client_open(struct nbd_client *c, const char *address, const char *export_name);
/* False: the connection is gone. `data` only for NBD_WRITE. */
bool nbd_client_send(struct nbd_client *c, const struct nbd_command *command, const void *data);
/* The next reply's head; if the command was a read and *error is 0, its data follows: nbd_client_data. False: gone. */
bool nbd_client_reply(struct nbd_client *c, uint64_t *cookie, uint32_t *error);
bool nbd_client_data(struct nbd_client *c, void *data, uint32_t len_bytes);
void nbd_client_close(struct nbd_client *c);

#endif
