/*
 * replica_server.c: commands decoded, verbs called, answers encoded. What comes from outside is checked here for what it is made of; what it
 * means is checked by the copy. Answers are made in the memory that came with the command: nothing is allocated for it.
 */
#include "data/replica/replica_server.h"

#include "base/log.h"
#include "data/nvme/nvme_nqn.h"
#include "data/replica/replica_server_impl.h"
#include "data/replica/replica_wire.h"

#define MALFORMED  ((uint16_t)(NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR))
#define OFFSET_END VOLUME_SIZE_MAX

struct replica_session {
	struct replica_server *server;
	struct list link;
	struct uuid pool_id, volume_id;
	struct replica *replica; /* NULL: never opened, or evicted */
	struct fmutex opening;
	struct rt_group under_way; /* of the replica */
	bool is_closing;
	struct waitq closed;
	uint64_t size_bytes;
	uint64_t intents_number; /* the newest set, */
	struct replica_regions intents;
};

/* A command while it is carried out. A verb returns an OXE_ code, or sets `malformed`. */
struct asked {
	struct replica_session *session;
	struct replica *replica;
	const struct nvme_sqe *sqe;
	const struct replica_wire_sqe *wire; /* the same */
	void *data;
	uint32_t data_bytes, answer_bytes;
	uint64_t result;
	bool malformed;
};

static int malformed(struct asked *a)
{
	a->malformed = true;
	return 0;
}

static struct uuid id_of(const uint8_t wire[16])
{
	struct uuid id;
	memcpy(id.b, wire, sizeof(id.b));
	return id;
}

static uint64_t value_of(const struct asked *a)
{
	return le64_get(a->wire->value);
}

static const char *name_of(const struct replica_wire_name *name)
{
	return memchr(name->name, 0, sizeof(name->name)) ? name->name : NULL;
}

/* ---- the head: commands of NVMe ---------------------------------------------------------------------------------------------- */

struct range {
	uint64_t offset_bytes, len_bytes;
};

/* False: no volume is so large. */
static bool range_of(uint64_t lba, uint64_t blocks, struct range *out)
{
	const uint64_t end = OFFSET_END / REPLICA_WIRE_LBA;
	if (lba > end || blocks > end - lba)
		return false;
	*out = (struct range){lba * REPLICA_WIRE_LBA, blocks * REPLICA_WIRE_LBA};
	return true;
}

static int verb_read(struct asked *a)
{
	struct range at;
	if ((uint64_t)nvme_rw_blocks(a->sqe) * REPLICA_WIRE_LBA != a->data_bytes)
		return malformed(a);
	if (!range_of(nvme_rw_lba(a->sqe), nvme_rw_blocks(a->sqe), &at))
		return OXE_RANGE;
	a->answer_bytes = a->data_bytes;
	return a->replica->ops->read(a->replica, a->data, at.offset_bytes, at.len_bytes);
}

static unsigned fua_of(const struct asked *a)
{
	return le32_get(a->sqe->cdw12) & NVME_RW_FUA ? VOL_FUA : 0;
}

static int verb_write(struct asked *a)
{
	struct range at;
	if ((uint64_t)nvme_rw_blocks(a->sqe) * REPLICA_WIRE_LBA != a->data_bytes)
		return malformed(a);
	if (!range_of(nvme_rw_lba(a->sqe), nvme_rw_blocks(a->sqe), &at))
		return OXE_RANGE;
	return a->replica->ops->write(a->replica, a->data, at.offset_bytes, at.len_bytes, fua_of(a));
}

static int verb_zero(struct asked *a)
{
	struct range at;
	unsigned no_hole = le32_get(a->sqe->cdw12) & NVME_RW_DEALLOCATE ? 0 : VOL_NO_HOLE;
	if (!range_of(nvme_rw_lba(a->sqe), nvme_rw_blocks(a->sqe), &at))
		return OXE_RANGE;
	return a->replica->ops->zero(a->replica, at.offset_bytes, at.len_bytes, fua_of(a) | no_hole);
}

static int verb_trim(struct asked *a)
{
	const struct nvme_dsm_range *ranges = a->data;
	uint32_t count = (le32_get(a->sqe->cdw10) & 0xff) + 1;
	struct range at;
	int err = 0;
	if (count * sizeof(*ranges) > a->data_bytes)
		return malformed(a);
	if (!(le32_get(a->sqe->cdw11) & NVME_DSM_CDW11_DEALLOCATE))
		return 0; /* a hint we have no use for */
	for (uint32_t i = 0; !err && i < count; i++) {
		if (!range_of(le64_get(ranges[i].lba), le32_get(ranges[i].blocks), &at))
			return OXE_RANGE;
		err = a->replica->ops->trim(a->replica, at.offset_bytes, at.len_bytes);
	}
	return err;
}

static int verb_flush(struct asked *a)
{
	return a->replica->ops->flush(a->replica);
}

/* ---- sessions' own ------------------------------------------------------------------------------------------------------------- */

static int verb_ping(struct asked *a)
{
	return a->replica->ops->ping(a->replica);
}

static int verb_create(struct asked *a)
{
	const struct replica_wire_spec *w = a->data;
	struct volume_spec spec = {.id = id_of(w->id),
				   .size_bytes = le64_get(w->size_bytes),
				   .lba_bytes = le32_get(w->lba_bytes)};
	if (!name_of(&w->name))
		return malformed(a);
	memcpy(spec.name, w->name.name, sizeof(spec.name));
	int err = a->replica->ops->create(a->replica, &spec);
	if (!err)
		a->session->size_bytes = spec.size_bytes;
	return err;
}

static void state_put(const struct replica_state *state, struct replica_wire_state *w)
{
	*w = (struct replica_wire_state){
		.major = le16_of(REPLICA_WIRE_MAJOR),
		.minor = le16_of(REPLICA_WIRE_MINOR),
		.flags = (uint8_t)((state->exists ? REPLICA_WIRE_EXISTS : 0) |
				   (state->is_joining ? REPLICA_WIRE_JOINING : 0) |
				   (state->fill_begun ? REPLICA_WIRE_FILL_BEGUN : 0)),
		.epoch_before = le64_of(state->epoch_before),
		.size_bytes = le64_of(state->size_bytes),
		.lba_bytes = le32_of(state->lba_bytes),
		.intents = state->intents,
		.may_lack = state->may_lack,
	};
	memcpy(w->boot_id, state->boot_id.b, sizeof(w->boot_id));
	memcpy(w->join_id, state->join_id.b, sizeof(w->join_id));
}

static int verb_open(struct asked *a)
{
	struct replica_session *s = a->session;
	struct uuid engine_id = id_of(a->wire->id);
	struct replica_state state;
	int err = a->replica->ops->open(a->replica, value_of(a), &engine_id, &state);
	if (err)
		return err;
	s->size_bytes = state.size_bytes;
	s->intents_number = 0;
	state_put(&state, a->data);
	a->answer_bytes = sizeof(struct replica_wire_state);
	return 0;
}

/* Two connections keep no order: what was asked earlier and comes later must not undo what was asked last. */
static int verb_intents_set(struct asked *a)
{
	struct replica_session *s = a->session;
	if (value_of(a) > s->intents_number) {
		s->intents_number = value_of(a);
		memcpy(&s->intents, a->data, sizeof(s->intents));
	}
	return a->replica->ops->intents_set(a->replica, &s->intents);
}

static int verb_made_good(struct asked *a)
{
	return a->replica->ops->made_good(a->replica);
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------------- */

static int verb_seal(struct asked *a)
{
	struct uuid layer_id = id_of(a->wire->id);
	const char *name = name_of(a->data);
	return name ? a->replica->ops->seal(a->replica, value_of(a), &layer_id, name) : malformed(a);
}

static int verb_layer_delete(struct asked *a)
{
	struct uuid layer_id = id_of(a->wire->id);
	return a->replica->ops->layer_delete(a->replica, &layer_id);
}

static int verb_layer_rename(struct asked *a)
{
	struct uuid layer_id = id_of(a->wire->id);
	const char *name = name_of(a->data);
	return name ? a->replica->ops->layer_rename(a->replica, &layer_id, name) : malformed(a);
}

static int verb_revert(struct asked *a)
{
	struct uuid layer_id = id_of(a->wire->id), head_id = id_of(a->wire->other_id);
	return a->replica->ops->revert(a->replica, &layer_id, &head_id);
}

static int verb_grow(struct asked *a)
{
	int err = a->replica->ops->grow(a->replica, value_of(a));
	if (!err)
		a->session->size_bytes = value_of(a);
	return err;
}

/* Each where the layer itself was. */
static void layers_put(void *data, size_t count)
{
	static_assert(sizeof(struct replica_layer) == sizeof(struct replica_wire_layer) &&
			      _Alignof(struct replica_layer) <= RT_IO_ALIGN,
		      "a list of one kind has room for the other");
	const struct replica_layer *layers = data;
	struct replica_wire_layer *w = data;
	for (size_t i = 0; i < count; i++) {
		struct replica_layer l = layers[i];
		w[i] = (struct replica_wire_layer){.size_bytes = le64_of(l.size_bytes),
						   .flags = l.is_origins ? REPLICA_WIRE_ORIGINS : 0};
		memcpy(w[i].id, l.id.b, sizeof(w[i].id));
		memcpy(w[i].name.name, l.name, strlen(l.name));
	}
}

static int verb_layers(struct asked *a)
{
	size_t max = u64_min(a->data_bytes / sizeof(struct replica_wire_layer), REPLICA_LAYERS_MAX);
	size_t count = 0, filled_count = 0;
	int err = a->replica->ops->layers(a->replica, a->data, max, &count, &filled_count);
	if (err)
		return err;
	layers_put(a->data, count);
	a->answer_bytes = (uint32_t)(count * sizeof(struct replica_wire_layer));
	a->result = count | (uint64_t)filled_count << 32;
	return 0;
}

/* NULL: the head. */
static const struct uuid *layer_or_head(const uint8_t wire[16], struct uuid *id)
{
	*id = id_of(wire);
	return uuid_is_nil(id) ? NULL : id;
}

static int verb_layer_read(struct asked *a)
{
	struct uuid id;
	a->answer_bytes = a->data_bytes;
	return a->replica->ops->layer_read(a->replica, layer_or_head(a->wire->id, &id), a->data, value_of(a),
					   a->data_bytes);
}

static void extents_put(void *data, size_t count)
{
	static_assert(sizeof(struct vol_extent) == sizeof(struct replica_wire_extent),
		      "a list of one kind has room for the other");
	const struct vol_extent *extents = data;
	struct replica_wire_extent *w = data;
	for (size_t i = 0; i < count; i++) {
		struct vol_extent e = extents[i];
		w[i] = (struct replica_wire_extent){.offset_bytes = le64_of(e.offset_bytes),
						    .len_bytes = le64_of(e.len_bytes),
						    .flags = le32_of(e.flags)};
	}
}

static int verb_extents(struct asked *a)
{
	struct uuid id, since_id;
	size_t count = 0;
	size_t max = u64_min(a->data_bytes / sizeof(struct replica_wire_extent), REPLICA_WIRE_EXTENTS_MAX);
	uint64_t first = value_of(a) & (((uint64_t)1 << REPLICA_WIRE_SECTOR_BITS) - 1);
	uint64_t sectors = (value_of(a) >> REPLICA_WIRE_SECTOR_BITS) + 1;
	if (max == 0)
		return malformed(a);
	int err = a->replica->ops->layer_extents(
		a->replica, layer_or_head(a->wire->id, &id), layer_or_head(a->wire->other_id, &since_id),
		first * REPLICA_WIRE_LBA, sectors * REPLICA_WIRE_LBA, a->data, max, &count);
	if (err)
		return err;
	extents_put(a->data, count);
	a->answer_bytes = (uint32_t)(count * sizeof(struct replica_wire_extent));
	a->result = count;
	return 0;
}

static int verb_checksums(struct asked *a)
{
	struct uuid id;
	uint64_t count = a->data_bytes / sizeof(uint32_t);
	if (a->data_bytes % sizeof(uint32_t) || count * REPLICA_CHECKSUM_BYTES > REPLICA_WIRE_CHECKED_MAX)
		return malformed(a);
	a->answer_bytes = a->data_bytes;
	return a->replica->ops->layer_checksums(a->replica, layer_or_head(a->wire->id, &id), value_of(a),
						count * REPLICA_CHECKSUM_BYTES, a->data);
}

/* ---- joining --------------------------------------------------------------------------------------------------------------------- */

static int verb_join_begin(struct asked *a)
{
	struct uuid join_id = id_of(a->wire->id);
	int err = a->replica->ops->join_begin(a->replica, &join_id, value_of(a));
	if (!err)
		a->session->size_bytes = value_of(a);
	return err;
}

static int verb_fill(struct asked *a)
{
	return a->replica->ops->fill(a->replica, a->data, value_of(a), a->data_bytes);
}

static int verb_fill_zeroes(struct asked *a)
{
	return a->replica->ops->fill(a->replica, NULL, value_of(a), le64_get(a->wire->len_bytes));
}

static int verb_fill_grow(struct asked *a)
{
	return a->replica->ops->fill_grow(a->replica, value_of(a));
}

static int verb_fill_seal(struct asked *a)
{
	struct uuid layer_id = id_of(a->wire->id);
	const char *name = name_of(a->data);
	return name ? a->replica->ops->fill_seal(a->replica, &layer_id, name) : malformed(a);
}

static int verb_join_end(struct asked *a)
{
	return a->replica->ops->join_end(a->replica);
}

/* ---- which ----------------------------------------------------------------------------------------------------------------------- */

enum data_rule { ANY, AT_LEAST, EXACTLY };

static const struct verb {
	int (*run)(struct asked *a);
	enum data_rule rule;
	uint32_t data_bytes;
} verbs[256] = {
	[NVME_IO_READ] = {verb_read, AT_LEAST, REPLICA_WIRE_LBA},
	[NVME_IO_WRITE] = {verb_write, AT_LEAST, REPLICA_WIRE_LBA},
	[NVME_IO_WRITE_ZEROES] = {verb_zero, ANY, 0},
	[NVME_IO_DATASET_MANAGEMENT] = {verb_trim, AT_LEAST, sizeof(struct nvme_dsm_range)},
	[NVME_IO_FLUSH] = {verb_flush, ANY, 0},
	[REPLICA_WIRE_PING] = {verb_ping, ANY, 0},
	[REPLICA_WIRE_CREATE] = {verb_create, EXACTLY, sizeof(struct replica_wire_spec)},
	[REPLICA_WIRE_OPEN] = {verb_open, ANY, 0}, /* its version comes first */
	[REPLICA_WIRE_LAYER_DELETE] = {verb_layer_delete, ANY, 0},
	[REPLICA_WIRE_INTENTS_SET] = {verb_intents_set, EXACTLY, sizeof(struct replica_regions)},
	[REPLICA_WIRE_LAYERS] = {verb_layers, ANY, 0},
	[REPLICA_WIRE_REVERT] = {verb_revert, ANY, 0},
	[REPLICA_WIRE_SEAL] = {verb_seal, EXACTLY, sizeof(struct replica_wire_name)},
	[REPLICA_WIRE_LAYER_READ] = {verb_layer_read, AT_LEAST, 1},
	[REPLICA_WIRE_GROW] = {verb_grow, ANY, 0},
	[REPLICA_WIRE_LAYER_RENAME] = {verb_layer_rename, EXACTLY, sizeof(struct replica_wire_name)},
	[REPLICA_WIRE_EXTENTS] = {verb_extents, AT_LEAST, sizeof(struct replica_wire_extent)},
	[REPLICA_WIRE_JOIN_BEGIN] = {verb_join_begin, ANY, 0},
	[REPLICA_WIRE_FILL] = {verb_fill, AT_LEAST, 1},
	[REPLICA_WIRE_CHECKSUMS] = {verb_checksums, AT_LEAST, sizeof(uint32_t)},
	[REPLICA_WIRE_FILL_ZEROES] = {verb_fill_zeroes, ANY, 0},
	[REPLICA_WIRE_FILL_SEAL] = {verb_fill_seal, EXACTLY, sizeof(struct replica_wire_name)},
	[REPLICA_WIRE_FILL_GROW] = {verb_fill_grow, ANY, 0},
	[REPLICA_WIRE_JOIN_END] = {verb_join_end, ANY, 0},
	[REPLICA_WIRE_MADE_GOOD] = {verb_made_good, ANY, 0},
};

static uint16_t check(const struct asked *a, const struct verb *v)
{
	uint32_t nsid = le32_get(a->sqe->nsid);
	if (!v->run)
		return NVME_STATUS_INVALID_OPCODE | NVME_STATUS_DNR;
	if (nsid != 1 && !(nsid == NVME_NSID_ALL && a->sqe->opcode == NVME_IO_FLUSH))
		return NVME_STATUS_INVALID_NAMESPACE | NVME_STATUS_DNR;
	if ((v->rule == AT_LEAST && a->data_bytes < v->data_bytes) ||
	    (v->rule == EXACTLY && a->data_bytes != v->data_bytes))
		return MALFORMED;
	return 0;
}

/* ---- sessions ------------------------------------------------------------------------------------------------------------------- */

static uint16_t settle(struct asked *a, int err)
{
	if (!err && !a->malformed)
		return 0;
	a->answer_bytes = 0;
	return a->malformed ? MALFORMED : replica_wire_status_of(err);
}

static uint16_t run(struct asked *a, const struct verb *v)
{
	struct replica_session *s = a->session;
	a->replica = s->replica;
	if (!a->replica)
		return replica_wire_status_of(OXE_CLOSED);
	group_add(&s->under_way, 1);
	int err = v->run(a);
	group_done(&s->under_way);
	return settle(a, err);
}

/* Whatever else an open of another version may say, this it says in the same place. */
static bool speaks_ours(struct asked *a)
{
	const struct replica_wire_version *w = &a->wire->version;
	if (le16_get(w->major) == REPLICA_WIRE_MAJOR)
		return true;
	a->result = REPLICA_WIRE_MAJOR | REPLICA_WIRE_MINOR << 16;
	LOG_WARN("replica.version", "an engine speaks another version of the protocol of copies",
		 F_UUID("pool", &a->session->pool_id), F_UUID("volume", &a->session->volume_id),
		 F_U64("its", le16_get(w->major)), F_U64("ours", REPLICA_WIRE_MAJOR));
	return false;
}

/* One at a time: each association has one replica. */
static uint16_t open(struct asked *a, const struct verb *v)
{
	struct replica_session *s = a->session;
	if (!speaks_ours(a))
		return replica_wire_status_of(OXE_VERSION);
	if (a->data_bytes < sizeof(struct replica_wire_state))
		return MALFORMED;
	fmutex_lock(&s->opening);
	while (s->is_closing)
		waitq_wait(&s->closed);
	if (!s->replica)
		s->replica = s->server->replica_new(s->server, &s->pool_id, &s->volume_id);
	uint16_t status = s->replica ? run(a, v) : replica_wire_status_of(OXE_NOTREADY);
	fmutex_unlock(&s->opening);
	return status;
}

uint16_t replica_session_command(struct replica_session *s, const struct nvme_sqe *sqe, void *data,
				 uint32_t data_bytes, uint32_t *answer_bytes, uint64_t *result)
{
	const struct verb *v = &verbs[sqe->opcode];
	struct asked a = {
		.session = s, .sqe = sqe, .wire = (const void *)sqe, .data = data, .data_bytes = data_bytes};
	uint16_t status = check(&a, v);
	if (!status)
		status = sqe->opcode == REPLICA_WIRE_OPEN ? open(&a, v) : run(&a, v);
	*answer_bytes = a.answer_bytes;
	*result = a.result;
	return status;
}

struct replica_session *replica_session_new(struct replica_server *server, const char *subnqn)
{
	struct uuid pool_id, volume_id;
	if (nvme_nqn_to_copy(subnqn, &pool_id, &volume_id))
		return NULL;
	struct replica_session *s = mem_zalloc(sizeof(*s));
	s->server = server;
	s->pool_id = pool_id;
	s->volume_id = volume_id;
	fmutex_init(&s->opening);
	group_init(&s->under_way);
	waitq_init(&s->closed);
	list_add_tail(&server->sessions, &s->link);
	return s;
}

/* Nothing begins on the replica any more; what is under way ends first. */
static void session_close(struct replica_session *s)
{
	struct replica *r = s->replica;
	s->replica = NULL;
	s->size_bytes = 0;
	s->is_closing = true;
	group_wait(&s->under_way);
	r->ops->close(r);
	s->is_closing = false;
	waitq_wake_all(&s->closed);
}

void replica_session_end(struct replica_session *s)
{
	while (s->is_closing)
		waitq_wait(&s->closed);
	if (s->replica)
		session_close(s);
	assert(s->under_way.pending == 0 && waitq_empty(&s->closed));
	list_del(&s->link);
	free(s);
}

uint64_t replica_session_size(const struct replica_session *s)
{
	return s->size_bytes;
}

const struct uuid *replica_session_pool(const struct replica_session *s)
{
	return &s->pool_id;
}

/* ---- the server ----------------------------------------------------------------------------------------------------------------- */

static struct replica *local_new(struct replica_server *server, const struct uuid *pool_id,
				 const struct uuid *volume_id)
{
	struct replica_door *door = server->door_find(server->ctx, pool_id);
	return door ? replica_local_new(door, volume_id) : NULL;
}

struct replica_server *replica_server_new(struct replica_door *(*door_find)(void *ctx,
									    const struct uuid *pool_id),
					  void *ctx)
{
	struct replica_server *server = mem_zalloc(sizeof(*server));
	server->door_find = door_find;
	server->ctx = ctx;
	server->replica_new = local_new;
	list_init(&server->sessions);
	return server;
}

void replica_server_free(struct replica_server *server)
{
	assert(list_empty(&server->sessions));
	free(server);
}

/* One that holds a replica of the pool, or is just giving it back. */
static struct replica_session *session_of_pool(struct replica_server *server, const struct uuid *pool_id)
{
	struct replica_session *s;
	list_for_each (s, &server->sessions, link)
		if (uuid_equal(&s->pool_id, pool_id) && (s->replica || s->is_closing))
			return s;
	return NULL;
}

/* While this waits sessions may end and begin: each time it looks anew. */
void replica_server_evict(struct replica_server *server, const struct uuid *pool_id)
{
	struct replica_session *s;
	while ((s = session_of_pool(server, pool_id))) {
		if (s->is_closing)
			waitq_wait(&s->closed);
		else
			session_close(s);
	}
}
