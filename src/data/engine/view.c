/* view.c: see view.h. Pure: records checked, counted, and turned to bytes and back. */
#include "data/engine/view.h"

#include "base/crc32c.h"
#include "data/engine/view_format.h"

const char *view_role_name(enum view_role role)
{
	switch (role) {
	case VIEW_MEMBER:
		return "member";
	case VIEW_JOINING:
		return "joining";
	case VIEW_ABSENT:
		return "absent";
	}
	return "unknown";
}

uint32_t view_count(const struct view *v, enum view_role role)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < v->replica_count; i++)
		count += v->replicas[i].role == role;
	return count;
}

void view_replica_unknown(struct view_replica *r)
{
	struct view_replica was = *r;
	*r = (struct view_replica){.pool_id = was.pool_id, .role = VIEW_ABSENT};
	if (!view_replica_is_doubted(&was))
		return;
	r->seal_id = was.seal_id;
	r->missed_shift = was.missed_shift;
	r->missed = was.missed;
}

struct view_replica *view_find(struct view *v, const struct uuid *pool_id)
{
	for (uint32_t i = 0; i < v->replica_count; i++)
		if (uuid_equal(&v->replicas[i].pool_id, pool_id))
			return &v->replicas[i];
	return NULL;
}

/* ---- is it one? ------------------------------------------------------------------------------------------------------- */

static bool seal_is_sound(const struct view *v, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++)
		if (uuid_equal(&v->seals[i], &v->seals[index]))
			return false;
	return !uuid_is_nil(&v->seals[index]);
}

static bool replica_is_sound(const struct view *v, uint32_t index)
{
	const struct view_replica *r = &v->replicas[index];
	for (uint32_t i = 0; i < index; i++)
		if (uuid_equal(&v->replicas[i].pool_id, &r->pool_id))
			return false;
	if (uuid_is_nil(&r->pool_id) || r->role < VIEW_MEMBER || r->role > VIEW_ABSENT)
		return false;
	if ((r->role == VIEW_JOINING) == uuid_is_nil(&r->join_id))
		return false;
	if (r->role == VIEW_MEMBER || uuid_is_nil(&r->seal_id))
		return uuid_is_nil(&r->seal_id) && r->missed_shift == 0 && regions_empty(&r->missed);
	return r->missed_shift >= REPLICA_REGION_SHIFT_MIN && r->missed_shift < 64;
}

int view_check(const struct view *v)
{
	if (uuid_is_nil(&v->volume_id) || v->seal_count > VIEW_SEALS_MAX ||
	    v->replica_count > VIEW_REPLICAS_MAX)
		return OXE_INVAL;
	for (uint32_t i = 0; i < v->seal_count; i++)
		if (!seal_is_sound(v, i))
			return OXE_INVAL;
	for (uint32_t i = 0; i < v->replica_count; i++)
		if (!replica_is_sound(v, i))
			return OXE_INVAL;
	if (view_is_reverting(v) && (uuid_is_nil(&v->revert_head_id) || view_count(v, VIEW_JOINING) > 0))
		return OXE_INVAL;
	return view_count(v, VIEW_MEMBER) > 0 ? 0 : OXE_INVAL;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void head_put(const struct view *v, struct view_head_disk *head)
{
	bool reverts = !uuid_is_nil(&v->revert_head_id);
	*head = (struct view_head_disk){.magic = le32_of(VIEW_MAGIC),
					.version = le32_of(reverts ? VIEW_VERSION : VIEW_VERSION_FIRST),
					.flags = le32_of((v->must_wait ? VIEW_FLAG_MUST_WAIT : 0u) |
							 (reverts ? VIEW_FLAG_REVERT : 0u)),
					.epoch = le64_of(v->epoch),
					.seal_count = le32_of(v->seal_count),
					.replica_count = le32_of(v->replica_count)};
	memcpy(head->volume_id, v->volume_id.b, 16);
	memcpy(head->engine_id, v->engine_id.b, 16);
	for (uint32_t i = 0; i < v->seal_count; i++)
		memcpy(head->seals[i], v->seals[i].b, 16);
}

/* Returns how many bytes. */
static size_t revert_put(const struct view *v, uint8_t *bytes)
{
	struct view_revert_disk revert;
	if (uuid_is_nil(&v->revert_head_id))
		return 0;
	memcpy(revert.layer_id, v->revert_layer_id.b, 16);
	memcpy(revert.head_id, v->revert_head_id.b, 16);
	memcpy(bytes, &revert, sizeof(revert));
	return sizeof(revert);
}

static void replica_put(const struct view_replica *r, struct view_replica_disk *out)
{
	*out = (struct view_replica_disk){.role = le32_of(r->role),
					  .missed_shift = (uint8_t)r->missed_shift,
					  .has_missed = !regions_empty(&r->missed)};
	memcpy(out->pool_id, r->pool_id.b, 16);
	memcpy(out->seal_id, r->seal_id.b, 16);
	memcpy(out->join_id, r->join_id.b, 16);
}

size_t view_encode(const struct view *v, uint8_t *bytes)
{
	struct view_head_disk head;
	struct view_replica_disk replica;
	size_t len_bytes = sizeof(head);
	assert(view_check(v) == 0);
	head_put(v, &head);
	len_bytes += revert_put(v, bytes + len_bytes);
	for (uint32_t i = 0; i < v->replica_count; i++) {
		replica_put(&v->replicas[i], &replica);
		memcpy(bytes + len_bytes, &replica, sizeof(replica));
		len_bytes += sizeof(replica);
	}
	for (uint32_t i = 0; i < v->replica_count; i++) {
		if (regions_empty(&v->replicas[i].missed))
			continue;
		memcpy(bytes + len_bytes, &v->replicas[i].missed, sizeof(struct replica_regions));
		len_bytes += sizeof(struct replica_regions);
	}
	memcpy(bytes, &head, sizeof(head));
	head.crc = le32_of(crc32c_around(bytes, len_bytes, offsetof(struct view_head_disk, crc)));
	memcpy(bytes, &head, sizeof(head));
	return len_bytes;
}

struct reader {
	const uint8_t *at;
	size_t left_bytes;
};

static bool take(struct reader *in, void *out, size_t len_bytes)
{
	if (in->left_bytes < len_bytes)
		return false;
	memcpy(out, in->at, len_bytes);
	in->at += len_bytes;
	in->left_bytes -= len_bytes;
	return true;
}

static int head_take(const struct view_head_disk *head, struct view *v)
{
	uint32_t version = le32_get(head->version);
	if (version < VIEW_VERSION_FIRST || version > VIEW_VERSION)
		return OXE_VERSION;
	v->must_wait = le32_get(head->flags) & VIEW_FLAG_MUST_WAIT;
	v->epoch = le64_get(head->epoch);
	v->seal_count = le32_get(head->seal_count);
	v->replica_count = le32_get(head->replica_count);
	memcpy(v->volume_id.b, head->volume_id, 16);
	memcpy(v->engine_id.b, head->engine_id, 16);
	if (v->seal_count > VIEW_SEALS_MAX || v->replica_count > VIEW_REPLICAS_MAX)
		return OXE_CORRUPT;
	for (uint32_t i = 0; i < v->seal_count; i++)
		memcpy(v->seals[i].b, head->seals[i], 16);
	return 0;
}

static int revert_take(const struct view_head_disk *head, struct reader *in, struct view *v)
{
	struct view_revert_disk revert;
	if (!(le32_get(head->flags) & VIEW_FLAG_REVERT))
		return 0;
	if (le32_get(head->version) == VIEW_VERSION_FIRST || !take(in, &revert, sizeof(revert)))
		return OXE_CORRUPT;
	memcpy(v->revert_layer_id.b, revert.layer_id, 16);
	memcpy(v->revert_head_id.b, revert.head_id, 16);
	return uuid_is_nil(&v->revert_head_id) ? OXE_CORRUPT : 0;
}

static void replica_take(const struct view_replica_disk *in, struct view_replica *r)
{
	r->role = (enum view_role)le32_get(in->role);
	r->missed_shift = in->missed_shift;
	memcpy(r->pool_id.b, in->pool_id, 16);
	memcpy(r->seal_id.b, in->seal_id, 16);
	memcpy(r->join_id.b, in->join_id, 16);
}

static int replicas_take(struct reader *in, struct view *v)
{
	struct view_replica_disk replica[VIEW_REPLICAS_MAX];
	for (uint32_t i = 0; i < v->replica_count; i++) {
		if (!take(in, &replica[i], sizeof(replica[i])))
			return OXE_CORRUPT;
		replica_take(&replica[i], &v->replicas[i]);
	}
	for (uint32_t i = 0; i < v->replica_count; i++)
		if (replica[i].has_missed &&
		    !take(in, &v->replicas[i].missed, sizeof(struct replica_regions)))
			return OXE_CORRUPT;
	return in->left_bytes == 0 ? 0 : OXE_CORRUPT;
}

int view_decode(const uint8_t *bytes, size_t len_bytes, struct view *out)
{
	struct view_head_disk head;
	struct reader in = {bytes, len_bytes};
	memset(out, 0, sizeof(*out));
	if (!take(&in, &head, sizeof(head)) || le32_get(head.magic) != VIEW_MAGIC)
		return OXE_CORRUPT;
	if (crc32c_around(bytes, len_bytes, offsetof(struct view_head_disk, crc)) != le32_get(head.crc))
		return OXE_CORRUPT;
	int err = head_take(&head, out);
	if (!err)
		err = revert_take(&head, &in, out);
	if (!err)
		err = replicas_take(&in, out);
	return err ? err : view_check(out) ? OXE_CORRUPT : 0;
}
