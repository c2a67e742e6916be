/*
 * nbd_transmission.c: requests received, carried out, and answered in whatever order they finish.
 *
 *     receiver    header -> check -> room in flight -> buffer -> payload -> a fiber for the rest; then the next header
 *     request     one call of the engine, one reply
 *
 * All waiting for memory is the receiver's: a request fiber holds what it needs from its first moment, so requests cannot
 * wait for one another, and a client that asks faster than it is served finds its socket unread.
 */
#include "data/frontend/nbd/nbd_conn.h"

#define RECEIVE_BYTES	 (256 * KiB)
#define CACHE_STEP_BYTES (256 * KiB)
#define LARGE_BYTES	 (32 * KiB)		/* payloads that deserve a receive of their own */
#define HOLE_READ_MIN	 POOL_CLUSTER_BYTES	/* reads that look for holes first */
#define HOLE_MIN	 ((uint64_t)(32 * KiB)) /* holes worth a chunk */
#define HOLE_EXTENTS	 16

/* ---- reads with holes in them ------------------------------------------------------------------------------------------ */

struct run {
	uint64_t offset_bytes, len_bytes;
	bool is_hole;
};

/* Append, joining neighbours of one kind. */
static size_t run_add(struct run *runs, size_t count, uint64_t offset_bytes, uint64_t len_bytes, bool is_hole)
{
	if (count > 0 && runs[count - 1].is_hole == is_hole) {
		runs[count - 1].len_bytes += len_bytes;
		return count;
	}
	runs[count] = (struct run){offset_bytes, len_bytes, is_hole};
	return count + 1;
}

/* The read as runs of data and holes, at most HOLE_EXTENTS + 1; what the extents do not reach counts as data. */
static size_t read_runs(const struct nbd_command *c, const struct vol_extent *extents, size_t extent_count,
			struct run *runs)
{
	size_t count = 0;
	uint64_t at = c->offset, end = c->offset + c->length;
	for (size_t i = 0; i < extent_count; i++) {
		bool is_hole = (extents[i].flags & VOL_EXTENT_ZERO) && extents[i].len_bytes >= HOLE_MIN;
		count = run_add(runs, count, at, extents[i].len_bytes, is_hole);
		at += extents[i].len_bytes;
	}
	if (at < end)
		count = run_add(runs, count, at, end - at, false);
	return count;
}

#define CHUNK_HEAD_MAX (sizeof(struct nbd_extended_reply_wire) + sizeof(struct nbd_offset_hole_wire))

static size_t run_head(const struct nbd_request *r, const struct run *run, uint16_t flags, uint8_t *out)
{
	if (run->is_hole) {
		struct nbd_offset_hole_wire w = {be64_of(run->offset_bytes),
						 be32_of((uint32_t)run->len_bytes)};
		size_t at = nbd_chunk_head(r, flags, NBD_REPLY_TYPE_OFFSET_HOLE, sizeof(w), out);
		memcpy(out + at, &w, sizeof(w));
		return at + sizeof(w);
	}
	struct nbd_offset_data_wire w = {be64_of(run->offset_bytes)};
	size_t at = nbd_chunk_head(r, flags, NBD_REPLY_TYPE_OFFSET_DATA, sizeof(w) + run->len_bytes, out);
	memcpy(out + at, &w, sizeof(w));
	return at + sizeof(w);
}

static int read_data_runs(struct nbd_request *r, const struct run *runs, size_t count)
{
	int err = 0;
	for (size_t i = 0; err == 0 && i < count; i++)
		if (!runs[i].is_hole)
			err = engine_read(r->conn->engine,
					  (uint8_t *)r->payload + (runs[i].offset_bytes - r->command.offset),
					  runs[i].offset_bytes, runs[i].len_bytes);
	return err;
}

static void reply_runs(struct nbd_request *r, const struct run *runs, size_t count)
{
	r->extra = mem_alloc(count * (CHUNK_HEAD_MAX + 2 * sizeof(struct rt_iovec)));
	r->parts = r->extra;
	uint8_t *head = (uint8_t *)(r->parts + 2 * count);
	for (size_t i = 0; i < count; i++) {
		size_t head_bytes = run_head(r, &runs[i], i + 1 == count ? NBD_REPLY_FLAG_DONE : 0, head);
		r->parts[r->part_count++] = (struct rt_iovec){head, head_bytes};
		if (!runs[i].is_hole)
			r->parts[r->part_count++] = (struct rt_iovec){
				(uint8_t *)r->payload + (runs[i].offset_bytes - r->command.offset),
				runs[i].len_bytes};
		head += head_bytes;
	}
	nbd_reply_parts(r);
}

static_assert(2 * (HOLE_EXTENTS + 1) <= NBD_REPLY_PARTS_MAX, "runs fit a reply");

/* False if the read is all data as far as is known: then nothing has been done. */
static bool answer_read_holes(struct nbd_request *r)
{
	struct vol_extent extents[HOLE_EXTENTS];
	struct run runs[HOLE_EXTENTS + 1];
	size_t extent_count;
	if (engine_extents(r->conn->engine, NULL, r->command.offset, r->command.length, extents, HOLE_EXTENTS,
			   &extent_count))
		return false;
	size_t count = read_runs(&r->command, extents, extent_count, runs);
	if (count == 1 && !runs[0].is_hole)
		return false;
	int err = read_data_runs(r, runs, count);
	if (err)
		nbd_reply_done(r, err);
	else
		reply_runs(r, runs, count);
	return true;
}

/* ---- the commands ------------------------------------------------------------------------------------------------------- */

static void answer_read(struct nbd_request *r)
{
	const struct nbd_command *c = &r->command;
	if (c->length >= HOLE_READ_MIN && r->conn->form != NBD_FORM_SIMPLE && !(c->flags & NBD_CMD_FLAG_DF) &&
	    answer_read_holes(r))
		return;
	int err = engine_read(r->conn->engine, r->payload, c->offset, c->length);
	if (err || c->length == 0)
		nbd_reply_done(r, err);
	else
		nbd_reply_data(r);
}

/* V11: a client that outlives our power loss need never learn that anything was lost: what it sends again is what was not answered. So
 * for one on another node all that is answered is durable, whether it asks for that or not. */
static unsigned fua_of(const struct nbd_request *r)
{
	return r->command.flags & NBD_CMD_FLAG_FUA || !r->conn->is_near ? VOL_FUA : 0;
}

static void answer_write(struct nbd_request *r)
{
	const struct nbd_command *c = &r->command;
	nbd_reply_done(r, engine_write(r->conn->engine, r->payload, c->offset, c->length, fua_of(r)));
}

static void answer_flush(struct nbd_request *r)
{
	nbd_reply_done(r, engine_flush(r->conn->engine));
}

static void answer_trim(struct nbd_request *r)
{
	const struct nbd_command *c = &r->command;
	int err = engine_trim(r->conn->engine, c->offset, c->length);
	if (err == 0 && fua_of(r))
		err = engine_flush(r->conn->engine);
	nbd_reply_done(r, err);
}

static void answer_zero(struct nbd_request *r)
{
	const struct nbd_command *c = &r->command;
	unsigned flags = fua_of(r) | (c->flags & NBD_CMD_FLAG_NO_HOLE ? VOL_NO_HOLE : 0);
	nbd_reply_done(r, engine_zero(r->conn->engine, c->offset, c->length, flags));
}

/* A hint: what is read is thrown away, and beyond the largest request nothing is done. */
static void answer_cache(struct nbd_request *r)
{
	const struct nbd_command *c = &r->command;
	uint64_t end = c->offset + u64_min(c->length, NBD_PAYLOAD_MAX);
	int err = 0;
	for (uint64_t at = c->offset; err == 0 && at < end; at += CACHE_STEP_BYTES)
		err = engine_read(r->conn->engine, r->payload, at, u64_min(end - at, CACHE_STEP_BYTES));
	nbd_reply_done(r, err);
}

static void (*const answers[])(struct nbd_request *r) = {
	[NBD_CMD_READ] = answer_read,
	[NBD_CMD_WRITE] = answer_write,
	[NBD_CMD_FLUSH] = answer_flush,
	[NBD_CMD_TRIM] = answer_trim,
	[NBD_CMD_WRITE_ZEROES] = answer_zero,
	[NBD_CMD_CACHE] = answer_cache,
	[NBD_CMD_BLOCK_STATUS] = nbd_status_answer,
};

static void request_run(void *arg)
{
	struct nbd_request *r = arg;
	answers[r->command.type](r);
}

/* ---- the receiver ------------------------------------------------------------------------------------------------------- */

/* The memory a request needs of the pool. */
static uint64_t payload_need(const struct nbd_conn *c, const struct nbd_command *command)
{
	switch (command->type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return command->length;
	case NBD_CMD_CACHE:
		return u64_min(command->length, CACHE_STEP_BYTES);
	case NBD_CMD_BLOCK_STATUS:
		return nbd_status_payload_bytes(c);
	default:
		return 0;
	}
}

/* Buffers come in powers of two; accounts are kept in what they really take. */
static uint64_t buffer_bytes(uint64_t need_bytes)
{
	uint64_t pages = u64_div_up(need_bytes, RT_IO_ALIGN);
	return pages <= 1 ? pages * RT_IO_ALIGN : (uint64_t)RT_IO_ALIGN << (64 - __builtin_clzll(pages - 1));
}

/* A connection may hold as much as it leaves for all others together. So a few that take and never read cannot hold
 * everything: each newcomer finds something left, and small requests find a way past large ones. All connections to an export may hold
 * three times what they leave: one that waits for its copies keeps what was asked of it, also when those who asked are gone. */
static bool has_memory(const struct nbd_conn *c, uint64_t bytes)
{
	const struct nbd_options *o = &c->server->options;
	uint64_t mine = c->in_flight_bytes + bytes, lent = c->server->lent_bytes + bytes;
	if (bytes == 0)
		return true;
	if (c->in_flight_bytes > 0 && mine > o->connection_bytes_max)
		return false;
	if (lent > o->buffer_budget_bytes)
		return false;
	uint64_t left = o->buffer_budget_bytes - lent;
	return mine <= left && c->share->lent_bytes + bytes <= 3 * left;
}

static void wait_for_room(struct nbd_conn *c, uint64_t bytes)
{
	for (;;) {
		if (c->in_flight >= c->server->options.requests_max)
			waitq_wait(&c->room);
		else if (!has_memory(c, bytes))
			waitq_wait(&c->server->memory);
		else
			return;
	}
}

static struct nbd_request *request_admit(struct nbd_conn *c, const struct nbd_command *command)
{
	uint64_t bytes = buffer_bytes(payload_need(c, command));
	wait_for_room(c, bytes);
	struct nbd_request *r = nbd_request_new(c, command);
	r->payload_bytes = bytes;
	c->in_flight_bytes += bytes;
	c->server->lent_bytes += bytes;
	c->share->lent_bytes += bytes;
	r->payload = bytes ? rt_buf_get(c->server->payloads, bytes) : NULL;
	return r;
}

/* Answer without carrying out; the payload is read past. */
static int refuse(struct nbd_conn *c, const struct nbd_command *command, uint64_t payload_bytes,
		  uint32_t error)
{
	if (payload_bytes > NBD_SKIP_MAX)
		return nbd_drop(c, "a payload nobody could send in good faith");
	int err = link_skip(&c->link, payload_bytes);
	if (err)
		return err;
	wait_for_room(c, 0);
	nbd_reply_error(nbd_request_new(c, command), error, NULL);
	return 0;
}

/* The payload of BLOCK_STATUS: the range it is about, and the contexts by number. */
static int receive_status_payload(struct nbd_conn *c, struct nbd_command *command, uint32_t *context_mask,
				  uint32_t *error)
{
	uint8_t bytes[sizeof(struct nbd_block_status_payload_wire) + NBD_CONTEXTS_MAX * sizeof(be32)];
	size_t len_bytes = command->length;
	int err = link_read(&c->link, bytes, len_bytes);
	if (err)
		return err;
	const struct nbd_block_status_payload_wire *w = (const void *)bytes;
	*context_mask = 0;
	for (size_t at = sizeof(*w); at < len_bytes; at += sizeof(be32)) {
		uint32_t id = be32_get(*(const be32 *)(bytes + at)); /* from 1 on */
		if (id < 1 || id > c->context_count || (*context_mask & 1u << (id - 1)))
			*error = NBD_EINVAL;
		else
			*context_mask |= 1u << (id - 1);
	}
	command->length = be64_get(w->effect_length);
	command->flags &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
	return 0;
}

static bool is_status_payload_sane(uint64_t len_bytes)
{
	return len_bytes > sizeof(struct nbd_block_status_payload_wire) &&
	       len_bytes <= sizeof(struct nbd_block_status_payload_wire) + NBD_CONTEXTS_MAX * sizeof(be32) &&
	       len_bytes % sizeof(be32) == 0;
}

static struct nbd_bounds bounds_of(const struct nbd_conn *c)
{
	const struct vol_info *info = engine_info(c->engine);
	return (struct nbd_bounds){
		.size_bytes = info->size_bytes,
		.lba_bytes = info->lba_bytes,
		.read_only = info->read_only,
		.extended = c->form == NBD_FORM_EXTENDED,
		.has_contexts = c->context_count > 0,
	};
}

static int receive_payload(struct nbd_conn *c, struct nbd_request *r)
{
	int err = link_read(&c->link, r->payload, r->command.length);
	if (err)
		nbd_request_free(r);
	return err;
}

/* One request whose header was taken: carry it out, refuse it, or fail because the connection is to end. */
static int take_request(struct nbd_conn *c, struct nbd_command *command)
{
	struct nbd_bounds bounds = bounds_of(c);
	uint64_t payload_bytes = nbd_command_payload_bytes(command, bounds.extended);
	uint32_t error = nbd_command_check(command, &bounds);
	uint32_t context_mask = UINT32_MAX;
	bool has_status_payload = command->type == NBD_CMD_BLOCK_STATUS && payload_bytes > 0;
	if (error == 0 && has_status_payload && !is_status_payload_sane(payload_bytes))
		error = NBD_EINVAL;
	if (error == 0 && has_status_payload) {
		int err = receive_status_payload(c, command, &context_mask, &error);
		if (err)
			return err;
		payload_bytes = 0;
		if (error == 0)
			error = nbd_command_check(command, &bounds);
	}
	if (error)
		return refuse(c, command, payload_bytes, error);
	struct nbd_request *r = request_admit(c, command);
	r->context_mask = context_mask;
	int err = payload_bytes > 0 ? receive_payload(c, r) : 0;
	if (err == 0)
		fiber_spawn(c->server->rt, "nbd-request", request_run, r);
	return err;
}

/* Suspends for one request. After a large write the next header is received alone: another large payload likely follows it,
 * and should land where it is wanted rather than in the buffer. */
static int receive_request(struct nbd_conn *c, bool *after_large, bool *is_disconnect)
{
	bool extended = c->form == NBD_FORM_EXTENDED;
	size_t header_bytes = nbd_header_bytes(extended);
	struct nbd_command command;
	int err = link_fill(&c->link, header_bytes, *after_large);
	if (err)
		return err;
	bool has_magic = nbd_command_decode(link_bytes(&c->link), extended, &command);
	link_take(&c->link, header_bytes);
	if (!has_magic)
		return nbd_drop(c, "a request without its magic number");
	c->server->stats.requests++;
	*is_disconnect = command.type == NBD_CMD_DISC;
	if (*is_disconnect)
		return 0;
	*after_large = command.type == NBD_CMD_WRITE && command.length >= LARGE_BYTES;
	return take_request(c, &command);
}

void nbd_transmission(struct nbd_conn *c)
{
	bool after_large = false, is_disconnect = false;
	link_resize(&c->link, RECEIVE_BYTES);
	int err = 0;
	while (err == 0 && !is_disconnect && !c->is_broken)
		err = receive_request(c, &after_large, &is_disconnect);
	if (err == OXE_TIMEOUT)
		nbd_drop(c, "it stalled in the middle of a request");
	if (err && err != OXE_CLOSED) { /* who only stopped sending still gets its answers */
		nbd_conn_break(c);
	}
	group_wait(&c->requests);
}
