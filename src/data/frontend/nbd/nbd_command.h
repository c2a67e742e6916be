/*
 * nbd_command.h: what a request's header says, and whether it may be carried out. Pure functions over bytes from outside.
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_COMMAND_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_COMMAND_H

#include "data/frontend/nbd/nbd_format.h"

/* The largest payload of one READ or WRITE, advertised as the maximum block size. */
#define NBD_PAYLOAD_MAX (32 * MiB)
/* Payloads larger than this are not even read to be thrown away. */
#define NBD_SKIP_MAX UINT32_MAX

struct nbd_command {
	uint16_t flags, type;
	uint64_t cookie, offset, length;
};

/* What a command is measured against. */
struct nbd_bounds {
	uint64_t size_bytes;
	uint32_t lba_bytes;
	bool read_only, extended, has_contexts;
};

/* The header's length in bytes, by the negotiated form. */
static inline size_t nbd_header_bytes(bool extended)
{
	return extended ? sizeof(struct nbd_extended_request_wire) : sizeof(struct nbd_request_wire);
}

/* False if the magic is wrong: the stream has lost its place and nothing after it means anything. */
OX_CHECKED bool nbd_command_decode(const void *header, bool extended, struct nbd_command *out);
/* How many bytes follow the header: all of them belong to it, whatever is thought of it. */
uint64_t nbd_command_payload_bytes(const struct nbd_command *c, bool extended);
/* 0, or the error (NBD_E...) to refuse it with. DISC is not asked about. */
OX_CHECKED uint32_t nbd_command_check(const struct nbd_command *c, const struct nbd_bounds *b);

/* The wire's error for an OXE_ code. */
uint32_t nbd_error_of(int err);

#endif
