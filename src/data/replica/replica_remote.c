/*
 * replica_remote.c: the verbs of replica.h as commands of an NVMe host, one host a session.
 *
 *     open ---> the host before is closed ---> a new one, live ---> OPEN ---> is_open
 *                 what was in flight ends                                        |
 *                                                                               | said INDOUBT, CLOSED or NOTREADY, or broke
 *                                                                               v
 *                                                       OXE_CLOSED to everybody, until the next open
 *
 * A session has a number. Who was asking in an earlier one touches nothing of the next: what it still wanted to send it does not send.
 */
#include "data/replica/replica_remote.h"

#include "base/log.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_secret.h"
#include "data/replica/nvme_host.h"
#include "data/replica/replica_wire.h"

#include <stdarg.h>
#include <stdio.h>

#define PIECES 8u /* of one call, in flight at once */

struct remote {
	struct replica base;
	struct rt *rt;
	struct replica_remote_options options; /* defaults filled in; texts owned */
	char *address, *secret, *tls_key;
	char hostnqn[NVME_NQN_FIELD], subnqn[NVME_NQN_FIELD];
	struct uuid user_id;	/* of this struct, as the target knows it */
	struct nvme_host *host; /* NULL: none */
	struct fmutex opening;
	uint64_t session; /* its number */
	bool is_open;
	bool was_told; /* that it cannot be reached, since it was the last time */
	uint64_t intents_count;
	char why[200];
};

static struct remote *remote_of(struct replica *r)
{
	return container_of(r, struct remote, base);
}

OX_PRINTF(2, 3) static void say_why(struct remote *m, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(m->why, sizeof(m->why), format, args);
	va_end(args);
}

/* ---- what is said ------------------------------------------------------------------------------------------------------------ */

/* Why the association ended, if it has. */
static void note_why(struct remote *m, int err)
{
	struct nvme_host_status status;
	nvme_host_status(m->host, &status);
	if (status.state == NVME_HOST_LIVE && !status.last_error)
		say_why(m, "the copy says: %s", err_text(err));
	else
		say_why(m, "%s", status.why);
}

static void session_over(struct remote *m, int err)
{
	m->is_open = false;
	note_why(m, err);
	LOG_INFO("replica.remote_lost", "the session with a copy on another node is over",
		 F_UUID("pool", &m->base.pool_id), F_UUID("volume", &m->base.volume_id),
		 F_STR("address", m->address), F_STR("why", m->why), F_ERR(err));
}

/* The host's word, as replica.h has it. `session`: in which it was asked. */
static int said(struct remote *m, uint64_t session, int err, bool changes)
{
	if (err == OXE_TIMEOUT || err == OXE_CANCELLED || err == OXE_INDOUBT)
		err = changes ? OXE_INDOUBT : OXE_CLOSED;
	bool is_over = err == OXE_INDOUBT || err == OXE_CLOSED || err == OXE_NOTREADY || err == OXE_PROTO;
	if (is_over && session == m->session && m->is_open)
		session_over(m, err);
	return err;
}

/* ---- commands ---------------------------------------------------------------------------------------------------------------- */

static int do_io(struct remote *m, struct nvme_host_io *io, bool changes)
{
	uint64_t session = m->session;
	if (!m->is_open)
		return OXE_CLOSED;
	return said(m, session, nvme_host_do(m->host, io), changes);
}

static struct replica_wire_sqe entry_of(enum replica_wire_opcode opcode, const struct uuid *id,
					uint64_t value)
{
	struct replica_wire_sqe w = {.opcode = (uint8_t)opcode, .value = le64_of(value)};
	if (id)
		memcpy(w.id, id->b, sizeof(w.id));
	return w;
}

static struct nvme_host_io io_of(const struct replica_wire_sqe *w, const void *data, uint64_t len_bytes)
{
	return (struct nvme_host_io){.op = NVME_HOST_OTHER,
				     .entry = (const struct nvme_sqe *)w,
				     .data = (void *)data,
				     .len_bytes = len_bytes};
}

/* A verb that changes something, and is answered by a status. */
static int do_control(struct remote *m, const struct replica_wire_sqe *w, const void *data,
		      uint64_t len_bytes)
{
	struct nvme_host_io io = io_of(w, data, len_bytes);
	io.timeout_ns = m->options.control_timeout_ns;
	return do_io(m, &io, true);
}

static int do_named(struct remote *m, enum replica_wire_opcode opcode, const struct uuid *id, uint64_t value,
		    const char *name)
{
	struct replica_wire_sqe w = entry_of(opcode, id, value);
	struct replica_wire_name named = {{0}};
	size_t len_bytes = strlen(name);
	if (len_bytes >= sizeof(named.name))
		return OXE_INVAL;
	memcpy(named.name, name, len_bytes);
	return do_control(m, &w, &named, sizeof(named));
}

/* ---- pieces ------------------------------------------------------------------------------------------------------------------- */

/* A call on a range. It may be several commands: PIECES of them at a time. */
struct ranged {
	enum nvme_host_op op;
	struct replica_wire_sqe entry; /* OTHER: but for where */
	uint32_t flags;
	uint8_t *data; /* NULL: none goes with it */
	uint64_t offset_bytes, len_bytes;
	bool changes;
};

struct piece {
	struct nvme_host_io io;
	struct replica_wire_sqe entry;
	struct pieces *all;
};

struct pieces {
	struct piece each[PIECES];
	struct fiber *fiber;
	uint32_t pending;
};

static void piece_done(struct nvme_host_io *io)
{
	struct pieces *all = container_of(io, struct piece, io)->all;
	if (--all->pending == 0)
		fiber_ready(all->fiber);
}

static void piece_start(struct remote *m, struct pieces *all, struct piece *p, const struct ranged *c,
			uint64_t at_bytes, uint64_t len_bytes)
{
	p->all = all;
	p->entry = c->entry;
	p->entry.value = le64_of(c->offset_bytes + at_bytes);
	p->io = (struct nvme_host_io){
		.op = c->op,
		.entry = (const struct nvme_sqe *)&p->entry,
		.flags = c->flags,
		.data = c->data ? c->data + at_bytes : NULL,
		.offset_bytes = c->offset_bytes + at_bytes,
		.len_bytes = len_bytes,
		.done = piece_done,
	};
	nvme_host_submit(m->host, &p->io);
}

/* From *at_bytes of the call on, and it is moved. */
static int pieces_run(struct remote *m, const struct ranged *c, uint64_t *at_bytes)
{
	struct pieces all; /* large: each piece is filled in when it is used */
	uint64_t session = m->session, max_bytes = nvme_host_max_bytes(m->host, c->op);
	uint32_t count = 0;
	int err = 0;
	all.fiber = fiber_current();
	all.pending = 0;
	for (; count < PIECES && *at_bytes < c->len_bytes; count++) {
		uint64_t n = u64_min(c->len_bytes - *at_bytes, max_bytes);
		all.pending++; /* none is done before the submit returns */
		piece_start(m, &all, &all.each[count], c, *at_bytes, n);
		*at_bytes += n;
	}
	while (all.pending > 0)
		fiber_park();
	for (uint32_t i = 0; i < count; i++) {
		int one = said(m, session, all.each[i].io.result, c->changes);
		if (!one && c->op == NVME_HOST_OTHER && !c->changes &&
		    all.each[i].io.got_bytes != all.each[i].io.len_bytes)
			one = said(m, session, OXE_PROTO, false);
		err = err ? err : one;
	}
	return err;
}

static int do_ranged(struct remote *m, const struct ranged *c)
{
	uint64_t session = m->session, at_bytes = 0, end_bytes;
	int err = 0;
	if (!m->is_open)
		return OXE_CLOSED;
	if (!u64_add_checked(c->offset_bytes, c->len_bytes, &end_bytes))
		return OXE_RANGE;
	while (!err && at_bytes < c->len_bytes)
		err = m->is_open && session == m->session ? pieces_run(m, c, &at_bytes) : OXE_CLOSED;
	return err;
}

/* ---- the head ------------------------------------------------------------------------------------------------------------------ */

static int remote_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct ranged c = {
		.op = NVME_HOST_READ, .data = data, .offset_bytes = offset_bytes, .len_bytes = len_bytes};
	return do_ranged(remote_of(r), &c);
}

static int remote_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
			unsigned vol_flags)
{
	struct ranged c = {.op = NVME_HOST_WRITE,
			   .flags = vol_flags & VOL_FUA ? NVME_HOST_FUA : 0,
			   .data = (uint8_t *)data,
			   .offset_bytes = offset_bytes,
			   .len_bytes = len_bytes,
			   .changes = true};
	return do_ranged(remote_of(r), &c);
}

static int remote_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	struct ranged c = {.op = NVME_HOST_ZERO,
			   .flags = (vol_flags & VOL_FUA ? NVME_HOST_FUA : 0) |
				    (vol_flags & VOL_NO_HOLE ? NVME_HOST_NO_HOLE : 0),
			   .offset_bytes = offset_bytes,
			   .len_bytes = len_bytes,
			   .changes = true};
	return do_ranged(remote_of(r), &c);
}

static int remote_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct ranged c = {
		.op = NVME_HOST_TRIM, .offset_bytes = offset_bytes, .len_bytes = len_bytes, .changes = true};
	return do_ranged(remote_of(r), &c);
}

static int remote_flush(struct replica *r)
{
	struct nvme_host_io io = {.op = NVME_HOST_FLUSH};
	return do_io(remote_of(r), &io, true);
}

static int remote_intents_set(struct replica *r, const struct replica_regions *regions)
{
	struct remote *m = remote_of(r);
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_INTENTS_SET, NULL, ++m->intents_count);
	return do_control(m, &w, regions, sizeof(*regions));
}

static int remote_made_good(struct replica *r)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_MADE_GOOD, NULL, 0);
	return do_control(remote_of(r), &w, NULL, 0);
}

/* ---- layers --------------------------------------------------------------------------------------------------------------------- */

static int remote_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	return do_named(remote_of(r), REPLICA_WIRE_SEAL, layer_id, epoch, name);
}

static int remote_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_LAYER_DELETE, layer_id, 0);
	return do_control(remote_of(r), &w, NULL, 0);
}

static int remote_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return do_named(remote_of(r), REPLICA_WIRE_LAYER_RENAME, layer_id, 0, name);
}

static int remote_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_REVERT, layer_id, 0);
	memcpy(w.other_id, head_id->b, sizeof(w.other_id));
	return do_control(remote_of(r), &w, NULL, 0);
}

static int remote_grow(struct replica *r, uint64_t size_bytes)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_GROW, NULL, size_bytes);
	return do_control(remote_of(r), &w, NULL, 0);
}

/* What came in place of the list becomes the list. */
static int layers_take(struct replica_layer *layers, size_t count)
{
	static_assert(sizeof(struct replica_layer) == sizeof(struct replica_wire_layer),
		      "a list of one kind has room for the other");
	for (size_t i = 0; i < count; i++) {
		struct replica_wire_layer w;
		memcpy(&w, &layers[i], sizeof(w));
		if (!memchr(w.name.name, 0, sizeof(w.name.name)))
			return OXE_PROTO;
		layers[i] = (struct replica_layer){.size_bytes = le64_get(w.size_bytes),
						   .is_origins = w.flags & REPLICA_WIRE_ORIGINS};
		memcpy(layers[i].id.b, w.id, sizeof(w.id));
		memcpy(layers[i].name, w.name.name, strlen(w.name.name));
	}
	return 0;
}

static int remote_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
			 size_t *filled_count)
{
	struct remote *m = remote_of(r);
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_LAYERS, NULL, 0);
	uint64_t session = m->session;
	max = u64_min(max, REPLICA_LAYERS_MAX);
	struct nvme_host_io io = io_of(&w, layers, max * sizeof(*layers));
	io.timeout_ns = m->options.control_timeout_ns;
	int err = do_io(m, &io, false);
	if (err)
		return err;
	*count = (uint32_t)io.value;
	size_t filled = io.value >> 32;
	err = *count > max || filled > *count || io.got_bytes != *count * sizeof(*layers) ? OXE_PROTO : 0;
	if (!err)
		err = layers_take(layers, *count);
	if (filled_count)
		*filled_count = filled;
	return said(m, session, err, false);
}

static int remote_layer_read(struct replica *r, const struct uuid *layer_id, void *data,
			     uint64_t offset_bytes, uint64_t len_bytes)
{
	struct ranged c = {.op = NVME_HOST_OTHER,
			   .entry = entry_of(REPLICA_WIRE_LAYER_READ, layer_id, 0),
			   .data = data,
			   .offset_bytes = offset_bytes,
			   .len_bytes = len_bytes};
	return do_ranged(remote_of(r), &c);
}

/* One after the other from `offset_bytes` on, and none beyond the end. */
static int extents_take(struct vol_extent *extents, size_t count, uint64_t offset_bytes, uint64_t end_bytes)
{
	static_assert(sizeof(struct vol_extent) == sizeof(struct replica_wire_extent),
		      "a list of one kind has room for the other");
	for (size_t i = 0; i < count; i++) {
		struct replica_wire_extent w;
		memcpy(&w, &extents[i], sizeof(w));
		struct vol_extent e = {le64_get(w.offset_bytes), le64_get(w.len_bytes), le32_get(w.flags)};
		if (e.offset_bytes != offset_bytes || e.len_bytes == 0 ||
		    e.len_bytes > end_bytes - offset_bytes)
			return OXE_PROTO;
		offset_bytes += e.len_bytes;
		extents[i] = e;
	}
	return 0;
}

static int extents_some(struct remote *m, struct replica_wire_sqe *w, uint64_t offset_bytes,
			uint64_t len_bytes, struct vol_extent *extents, size_t max, size_t *count)
{
	uint64_t session = m->session;
	w->value = le64_of(replica_wire_range(offset_bytes, len_bytes));
	struct nvme_host_io io = io_of(w, extents, max * sizeof(*extents));
	int err = do_io(m, &io, false);
	if (err)
		return err;
	*count = io.value;
	if (io.value == 0 || io.value > max || io.got_bytes != io.value * sizeof(*extents))
		return said(m, session, OXE_PROTO, false);
	return said(m, session, extents_take(extents, *count, offset_bytes, offset_bytes + len_bytes), false);
}

static int remote_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
				uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
				size_t max_extents, size_t *extent_count)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_EXTENTS, layer_id, 0);
	uint64_t end_bytes;
	size_t count = 0;
	int err = 0;
	*extent_count = 0;
	if ((offset_bytes | len_bytes) % REPLICA_WIRE_LBA)
		return OXE_ALIGN;
	if (!u64_add_checked(offset_bytes, len_bytes, &end_bytes) || end_bytes > VOLUME_SIZE_MAX)
		return OXE_RANGE;
	if (since_id)
		memcpy(w.other_id, since_id->b, sizeof(w.other_id));
	while (!err && offset_bytes < end_bytes && *extent_count < max_extents) {
		uint64_t n = u64_min(end_bytes - offset_bytes, REPLICA_WIRE_RANGE_MAX);
		size_t max = u64_min(max_extents - *extent_count, REPLICA_WIRE_EXTENTS_MAX);
		err = extents_some(remote_of(r), &w, offset_bytes, n, extents + *extent_count, max, &count);
		if (err)
			break;
		*extent_count += count;
		offset_bytes = extents[*extent_count - 1].offset_bytes + extents[*extent_count - 1].len_bytes;
	}
	return err;
}

static int checksums_some(struct remote *m, struct replica_wire_sqe *w, uint64_t offset_bytes, uint32_t *crcs,
			  uint64_t count)
{
	uint64_t session = m->session;
	w->value = le64_of(offset_bytes);
	struct nvme_host_io io = io_of(w, crcs, count * sizeof(*crcs));
	int err = do_io(m, &io, false);
	if (!err && io.got_bytes != io.len_bytes)
		err = said(m, session, OXE_PROTO, false);
	return err;
}

static int remote_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
				  uint64_t len_bytes, uint32_t *crcs)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_CHECKSUMS, layer_id, 0);
	int err = 0;
	if (!u64_is_aligned(offset_bytes | len_bytes, REPLICA_CHECKSUM_BYTES))
		return OXE_ALIGN;
	while (!err && len_bytes > 0) {
		uint64_t n = u64_min(len_bytes, REPLICA_WIRE_CHECKED_MAX);
		err = checksums_some(remote_of(r), &w, offset_bytes, crcs, n / REPLICA_CHECKSUM_BYTES);
		crcs += n / REPLICA_CHECKSUM_BYTES;
		offset_bytes += n;
		len_bytes -= n;
	}
	return err;
}

/* ---- joining -------------------------------------------------------------------------------------------------------------------- */

static int remote_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_JOIN_BEGIN, join_id, size_bytes);
	return do_control(remote_of(r), &w, NULL, 0);
}

static int remote_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct ranged c = {.op = NVME_HOST_OTHER,
			   .entry = entry_of(REPLICA_WIRE_FILL, NULL, 0),
			   .data = (uint8_t *)data,
			   .offset_bytes = offset_bytes,
			   .len_bytes = len_bytes,
			   .changes = true};
	if (data)
		return do_ranged(remote_of(r), &c);
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_FILL_ZEROES, NULL, offset_bytes);
	w.len_bytes = le64_of(len_bytes);
	return do_control(remote_of(r), &w, NULL, 0);
}

static int remote_fill_grow(struct replica *r, uint64_t size_bytes)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_FILL_GROW, NULL, size_bytes);
	return do_control(remote_of(r), &w, NULL, 0);
}

static int remote_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return do_named(remote_of(r), REPLICA_WIRE_FILL_SEAL, layer_id, 0, name);
}

static int remote_join_end(struct replica *r)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_JOIN_END, NULL, 0);
	return do_control(remote_of(r), &w, NULL, 0);
}

/* ---- sessions --------------------------------------------------------------------------------------------------------------------- */

static int remote_ping(struct replica *r)
{
	struct remote *m = remote_of(r);
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_PING, NULL, 0);
	struct nvme_host_io io = io_of(&w, NULL, 0);
	io.timeout_ns = m->options.ping_timeout_ns;
	io.is_urgent = true;
	return do_io(m, &io, false);
}

static int remote_create(struct replica *r, const struct volume_spec *spec)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_CREATE, NULL, 0);
	struct replica_wire_spec wire = {.size_bytes = le64_of(spec->size_bytes),
					 .lba_bytes = le32_of(spec->lba_bytes)};
	memcpy(wire.id, spec->id.b, sizeof(wire.id));
	memcpy(wire.name.name, spec->name, sizeof(wire.name.name));
	return do_control(remote_of(r), &w, &wire, sizeof(wire));
}

/* Whatever is under way ends with it. */
static void host_end(struct remote *m)
{
	struct nvme_host *h = m->host;
	m->is_open = false;
	m->session++;
	m->host = NULL;
	if (h)
		nvme_host_close(h);
}

static int host_start(struct remote *m)
{
	const struct replica_remote_options *o = &m->options;
	struct nvme_host_options options = {
		.address = m->address,
		.subsystem_nqn = m->subnqn,
		.host_nqn = m->hostnqn,
		.host_id = m->user_id,
		.tls_key = m->tls_key,
		.secret = m->secret,
		.controller_secret = m->secret,
		.queues = o->queues,
		.waiting_max = UINT32_MAX, /* the engine bounds its requests */
		.lost = NVME_HOST_REPORT,
		.is_copy = true,
		.connect_timeout_ns = o->connect_timeout_ns,
		.command_timeout_ns = o->command_timeout_ns,
		.keep_alive_ns = o->ping_timeout_ns,
	};
	int err = nvme_host_new(m->rt, &options, &m->host);
	if (err) {
		m->host = NULL;
		say_why(m, "it cannot be asked: %s", err_text(err));
		return OXE_CLOSED;
	}
	err = nvme_host_wait(m->host, rt_now_ns(m->rt) + o->connect_timeout_ns + NS_PER_S);
	if (err)
		note_why(m, err);
	return err ? OXE_CLOSED : 0;
}

static bool state_take(const struct replica_wire_state *w, struct replica_state *out)
{
	*out = (struct replica_state){
		.epoch_before = le64_get(w->epoch_before),
		.size_bytes = le64_get(w->size_bytes),
		.lba_bytes = le32_get(w->lba_bytes),
		.exists = w->flags & REPLICA_WIRE_EXISTS,
		.is_joining = w->flags & REPLICA_WIRE_JOINING,
		.fill_begun = w->flags & REPLICA_WIRE_FILL_BEGUN,
		.intents = w->intents,
		.may_lack = w->may_lack,
	};
	memcpy(out->boot_id.b, w->boot_id, sizeof(w->boot_id));
	memcpy(out->join_id.b, w->join_id, sizeof(w->join_id));
	return !out->exists || ((out->lba_bytes == 512 || out->lba_bytes == 4096) && out->size_bytes > 0 &&
				out->size_bytes <= VOLUME_SIZE_MAX && out->size_bytes % out->lba_bytes == 0);
}

static int ask_open(struct remote *m, uint64_t epoch, const struct uuid *engine_id, struct replica_state *out)
{
	struct replica_wire_sqe w = entry_of(REPLICA_WIRE_OPEN, engine_id, epoch);
	struct replica_wire_state *state = mem_zalloc(sizeof(*state));
	w.version = (struct replica_wire_version){.major = le16_of(REPLICA_WIRE_MAJOR),
						  .minor = le16_of(REPLICA_WIRE_MINOR)};
	struct nvme_host_io io = io_of(&w, state, sizeof(*state));
	io.timeout_ns = m->options.control_timeout_ns;
	int err = nvme_host_do(m->host, &io);
	bool is_whole = io.got_bytes == sizeof(*state) && state_take(state, out);
	free(state);
	err = said(m, m->session, err ? err : is_whole ? 0 : OXE_PROTO, true);
	if (err == OXE_VERSION)
		say_why(m, "it speaks version %u.%u of the protocol of copies, this program %u.%u",
			(uint16_t)io.value, (uint16_t)(io.value >> 16), REPLICA_WIRE_MAJOR,
			REPLICA_WIRE_MINOR);
	else if (err)
		note_why(m, err);
	return err;
}

static void tell(struct remote *m, int err)
{
	bool is_news = err ? !m->was_told : m->was_told;
	m->was_told = err != 0;
	if (!is_news)
		return;
	if (err)
		LOG_WARN("replica.unreachable", "a copy on another node cannot be opened; trying on",
			 F_UUID("pool", &m->base.pool_id), F_UUID("volume", &m->base.volume_id),
			 F_STR("address", m->address), F_STR("why", m->why), F_ERR(err));
	else
		LOG_INFO("replica.reached", "the copy on another node is open again",
			 F_UUID("pool", &m->base.pool_id), F_UUID("volume", &m->base.volume_id),
			 F_STR("address", m->address));
}

static int remote_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		       struct replica_state *out)
{
	struct remote *m = remote_of(r);
	*out = (struct replica_state){0};
	fmutex_lock(&m->opening);
	host_end(m);
	int err = host_start(m);
	if (!err)
		err = ask_open(m, epoch, engine_id, out);
	tell(m, err);
	if (err) {
		host_end(m);
	} else {
		m->is_open = true;
		m->why[0] = 0;
	}
	fmutex_unlock(&m->opening);
	return err;
}

static void remote_close(struct replica *r)
{
	struct remote *m = remote_of(r);
	host_end(m);
	if (m->secret)
		explicit_bzero(m->secret, strlen(m->secret));
	if (m->tls_key)
		explicit_bzero(m->tls_key, strlen(m->tls_key));
	free(m->secret);
	free(m->tls_key);
	free(m->address);
	free(m);
}

static const struct replica_ops remote_ops = {
	.open = remote_open,
	.ping = remote_ping,
	.create = remote_create,
	.read = remote_read,
	.write = remote_write,
	.zero = remote_zero,
	.trim = remote_trim,
	.flush = remote_flush,
	.intents_set = remote_intents_set,
	.made_good = remote_made_good,
	.seal = remote_seal,
	.layer_delete = remote_layer_delete,
	.layer_rename = remote_layer_rename,
	.revert = remote_revert,
	.grow = remote_grow,
	.layers = remote_layers,
	.layer_read = remote_layer_read,
	.layer_extents = remote_layer_extents,
	.layer_checksums = remote_layer_checksums,
	.join_begin = remote_join_begin,
	.fill = remote_fill,
	.fill_grow = remote_fill_grow,
	.fill_seal = remote_fill_seal,
	.join_end = remote_join_end,
	.close = remote_close,
};

/* ---- birth ---------------------------------------------------------------------------------------------------------------------- */

static bool options_are_good(const struct replica_remote_options *o)
{
	struct nvme_secret parsed;
	bool good = o->address && strncmp(o->address, "tcp:", 4) == 0 &&
		    (!o->secret || nvme_secret_parse(o->secret, &parsed) == 0) &&
		    (!o->tls_key || nvme_tls_key_parse(o->tls_key, &parsed) == 0);
	explicit_bzero(&parsed, sizeof(parsed));
	return good;
}

static void names_put(struct remote *m, const struct uuid *host_id)
{
	char text[UUID_TEXT_LEN + 1];
	snprintf(m->hostnqn, sizeof(m->hostnqn), "%s%s", NVME_NQN_HOST_PREFIX, uuid_format(host_id, text));
	nvme_nqn_of_copy(&m->base.pool_id, &m->base.volume_id, m->subnqn);
}

struct replica *replica_remote_new(struct rt *rt, const struct replica_remote_options *options)
{
	if (!options_are_good(options))
		return NULL;
	struct remote *m = mem_zalloc(sizeof(*m));
	m->base = (struct replica){
		.ops = &remote_ops, .pool_id = options->pool_id, .volume_id = options->volume_id};
	m->rt = rt;
	m->options = *options;
	m->options.queues = (uint32_t)u64_or(options->queues, 2);
	m->options.connect_timeout_ns = u64_or(options->connect_timeout_ns, 3 * NS_PER_S);
	m->options.ping_timeout_ns = u64_or(options->ping_timeout_ns, 3 * NS_PER_S);
	m->options.command_timeout_ns = u64_or(options->command_timeout_ns, 30 * NS_PER_S);
	m->options.control_timeout_ns = u64_or(options->control_timeout_ns, 60 * NS_PER_S);
	m->options.address = m->options.secret = m->options.tls_key = NULL; /* the texts are the caller's */
	m->address = mem_strdup(options->address);
	m->secret = options->secret ? mem_strdup(options->secret) : NULL;
	m->tls_key = options->tls_key ? mem_strdup(options->tls_key) : NULL;
	m->user_id = rt_random_uuid(rt);
	fmutex_init(&m->opening);
	names_put(m, &options->host_id);
	return &m->base;
}

const char *replica_remote_why(const struct replica *r)
{
	return container_of(r, struct remote, base)->why;
}
