/* nbd_command.c: see nbd_command.h. */
#include "data/frontend/nbd/nbd_command.h"

#include "base/err.h"

bool nbd_command_decode(const void *header, bool extended, struct nbd_command *out)
{
	/* Both headers agree up to the length. */
	const struct nbd_extended_request_wire *w = header;
	const struct nbd_request_wire *compact = header;
	*out = (struct nbd_command){
		.flags = be16_get(w->flags),
		.type = be16_get(w->type),
		.cookie = be64_get(w->cookie),
		.offset = be64_get(w->offset),
		.length = extended ? be64_get(w->length) : be32_get(compact->length),
	};
	return be32_get(w->magic) == (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
}

uint64_t nbd_command_payload_bytes(const struct nbd_command *c, bool extended)
{
	if (c->type == NBD_CMD_WRITE)
		return c->length;
	return extended && (c->flags & NBD_CMD_FLAG_PAYLOAD_LEN) ? c->length : 0;
}

/* What each command may carry, and what it is refused with beyond the end. */
struct command_rule {
	uint16_t flags;
	bool known, changes, has_range;
	uint32_t beyond_end;
};

#define FUA NBD_CMD_FLAG_FUA /* accepted everywhere: what changes nothing is as durable as asked */

static const struct command_rule command_rules[] = {
	/*                        flags                                              known  changes range  beyond */
	[NBD_CMD_READ] = {FUA | NBD_CMD_FLAG_DF, true, false, true, NBD_EINVAL},
	[NBD_CMD_WRITE] = {FUA, true, true, true, NBD_ENOSPC},
	[NBD_CMD_FLUSH] = {FUA, true, false, false, 0},
	[NBD_CMD_TRIM] = {FUA, true, true, true, NBD_EINVAL},
	[NBD_CMD_CACHE] = {FUA, true, false, true, NBD_EINVAL},
	[NBD_CMD_WRITE_ZEROES] = {FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true, true, true,
				  NBD_ENOSPC},
	[NBD_CMD_BLOCK_STATUS] = {FUA | NBD_CMD_FLAG_REQ_ONE, true, false, true, NBD_EINVAL},
};

/* PAYLOAD_LEN belongs to WRITE and BLOCK_STATUS, and only under extended headers. */
static uint16_t allowed_flags(const struct nbd_command *c, const struct command_rule *rule, bool extended)
{
	bool may_carry = c->type == NBD_CMD_WRITE || c->type == NBD_CMD_BLOCK_STATUS;
	return rule->flags | (extended && may_carry ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
}

static uint32_t check_range(const struct nbd_command *c, const struct nbd_bounds *b, uint32_t beyond_end)
{
	uint64_t end;
	if (!u64_add_checked(c->offset, c->length, &end) || end > b->size_bytes)
		return beyond_end;
	if (!u64_is_aligned(c->offset | c->length, b->lba_bytes))
		return NBD_EINVAL;
	return 0;
}

/* Zeroing here is a mark in the map, except what must be allocated or shares a block with other data. */
static bool is_zero_slow(const struct nbd_command *c)
{
	return (c->flags & NBD_CMD_FLAG_NO_HOLE) || !u64_is_aligned(c->offset | c->length, 4096);
}

static uint32_t check_details(const struct nbd_command *c, const struct nbd_bounds *b)
{
	switch (c->type) {
	case NBD_CMD_READ:
		return c->length > NBD_PAYLOAD_MAX ? NBD_EOVERFLOW : 0;
	case NBD_CMD_WRITE:
		return c->length > NBD_PAYLOAD_MAX ? NBD_EINVAL : 0;
	case NBD_CMD_WRITE_ZEROES:
		return (c->flags & NBD_CMD_FLAG_FAST_ZERO) && is_zero_slow(c) ? NBD_ENOTSUP : 0;
	case NBD_CMD_BLOCK_STATUS:
		return b->has_contexts && c->length > 0 ? 0 : NBD_EINVAL;
	default:
		return 0;
	}
}

uint32_t nbd_command_check(const struct nbd_command *c, const struct nbd_bounds *b)
{
	static const struct command_rule unknown = {0};
	const struct command_rule *rule =
		c->type < ARRAY_COUNT(command_rules) ? &command_rules[c->type] : &unknown;
	if (!rule->known || (c->flags & ~allowed_flags(c, rule, b->extended)))
		return NBD_EINVAL;
	if (rule->changes && b->read_only)
		return NBD_EPERM;
	uint32_t error = check_details(c, b);
	/* The length of a BLOCK_STATUS with a payload is the payload's: its range is checked when that is read. */
	bool has_range = rule->has_range &&
			 !(c->type == NBD_CMD_BLOCK_STATUS && (c->flags & NBD_CMD_FLAG_PAYLOAD_LEN));
	return error == 0 && has_range ? check_range(c, b, rule->beyond_end) : error;
}

uint32_t nbd_error_of(int err)
{
	switch (err) {
	case 0:
		return 0;
	case OXE_NOMEM:
		return NBD_ENOMEM;
	case OXE_NOSPC:
		return NBD_ENOSPC;
	case OXE_INVAL:
	case OXE_RANGE:
	case OXE_ALIGN:
	case OXE_NOENT:
		return NBD_EINVAL;
	case OXE_ROFS:
	case OXE_PERM:
		return NBD_EPERM;
	case OXE_UNSUPPORTED:
		return NBD_ENOTSUP;
	case OXE_TOOBIG:
		return NBD_EOVERFLOW;
	default:
		return NBD_EIO;
	}
}
