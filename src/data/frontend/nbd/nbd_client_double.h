/*
 * nbd_client_double.h: a client that says exactly what a test wants said, right or wrong. Not part of any product binary.
 *
 * Every function CHECKs what it expects; those that may see the connection end say so.
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_CLIENT_DOUBLE_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_CLIENT_DOUBLE_H

#include "data/frontend/nbd/nbd_format.h"
#include "rt/rt.h"

struct client {
	struct rt_conn *conn;
	bool structured, extended;
	/* Instead of the connection, for a client that speaks TLS; NULL: plain. */
	void (*send)(struct client *c, const void *data, size_t len_bytes);
	bool (*recv)(struct client *c, void *data, size_t len_bytes);
	void *tls;
};

/* One reply to an option. */
struct option_reply {
	uint32_t option, type, length;
	uint8_t data[8192];
};

/* One reply, or one chunk of it, in any form. */
struct reply {
	uint64_t cookie, offset;
	uint32_t error; /* simple, or in an error chunk */
	uint16_t flags, type;
	uint64_t length;
	uint8_t *data; /* of a chunk; free it */
};

struct client client_connect(const char *address);
void client_close(struct client *c);
void client_send(struct client *c, const void *data, size_t len_bytes);
/* False at the end of the stream. */
OX_CHECKED
bool client_recv(struct client *c, void *data, size_t len_bytes);
/* True if nothing but the end comes. */
OX_CHECKED
bool client_is_cut(struct client *c);

/* Takes the greeting and answers with flags. */
void client_greet(struct client *c, uint32_t flags);
void client_option(struct client *c, uint32_t option, const void *data, size_t len_bytes);
void client_option_reply(struct client *c, struct option_reply *out);
/* Send an option and take the one reply it has; returns its type. */
uint32_t client_ask(struct client *c, uint32_t option, const void *data, size_t len_bytes);
/* The data of INFO and GO, and of the two META options; return their length. */
size_t client_info_data(uint8_t *out, const char *name, const uint16_t *infos, uint16_t info_count);
size_t client_meta_data(uint8_t *out, const char *name, const char *const *queries, uint32_t query_count);
/* Choose a context; returns its number, 0 if it was not given. */
uint32_t client_choose(struct client *c, const char *export_name, const char *context);
/* Greet, agree on a form, GO. */
enum { FORM_SIMPLE, FORM_STRUCTURED, FORM_EXTENDED };
struct client client_begin(const char *address, const char *export_name, int form);
void client_go(struct client *c, const char *export_name);

void client_request(struct client *c, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
		    uint64_t length, const void *payload, size_t payload_bytes);
/* `read_bytes`: the payload of a simple reply without error. */
void client_reply(struct client *c, struct reply *out, size_t read_bytes);
/* A request and its one reply; returns its error. */
uint32_t client_call(struct client *c, uint16_t flags, uint16_t type, uint64_t offset, uint64_t length);
uint32_t client_write(struct client *c, uint16_t flags, uint64_t offset, const void *data, size_t len_bytes);
uint32_t client_read(struct client *c, uint64_t offset, void *data, size_t len_bytes);
void client_disconnect(struct client *c); /* DISC, and wait for the end */

#endif
