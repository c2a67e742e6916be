/* nvme_nqn.c: see nvme_nqn.h. */
#include "data/nvme/nvme_nqn.h"

#include "base/err.h"

bool nvme_nqn_is_valid(const char field[NVME_NQN_FIELD])
{
	size_t length = strnlen(field, NVME_NQN_FIELD);
	if (length < sizeof("nqn.") || length > NVME_NQN_MAX || memcmp(field, "nqn.", 4) != 0)
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)field[i] <= ' ' || field[i] == 0x7f)
			return false;
	return true;
}

void nvme_nqn_put(char field[NVME_NQN_FIELD], const char *name)
{
	size_t length = strlen(name);
	assert(length <= NVME_NQN_MAX);
	memset(field, 0, NVME_NQN_FIELD);
	memcpy(field, name, length);
}

static char *name_put(const char *prefix, const struct uuid *id, char field[NVME_NQN_FIELD])
{
	nvme_nqn_put(field, prefix);
	uuid_format(id, field + strlen(prefix));
	return field;
}

static int name_take(const char *prefix, const char *name, struct uuid *id)
{
	size_t prefix_bytes = strlen(prefix);
	if (strncmp(name, prefix, prefix_bytes) != 0)
		return OXE_NOENT;
	return uuid_parse(name + prefix_bytes, id) == 0 ? 0 : OXE_NOENT;
}

char *nvme_nqn_of_volume(const struct uuid *volume_id, char field[NVME_NQN_FIELD])
{
	return name_put(NVME_NQN_VOLUME_PREFIX, volume_id, field);
}

int nvme_nqn_to_volume(const char *name, struct uuid *volume_id)
{
	return name_take(NVME_NQN_VOLUME_PREFIX, name, volume_id);
}

char *nvme_nqn_of_snapshot(const struct uuid *snapshot_id, char field[NVME_NQN_FIELD])
{
	return name_put(NVME_NQN_SNAPSHOT_PREFIX, snapshot_id, field);
}

int nvme_nqn_to_snapshot(const char *name, struct uuid *snapshot_id)
{
	return name_take(NVME_NQN_SNAPSHOT_PREFIX, name, snapshot_id);
}

char *nvme_nqn_of_copy(const struct uuid *pool_id, const struct uuid *volume_id, char field[NVME_NQN_FIELD])
{
	name_put(NVME_NQN_COPY_PREFIX, pool_id, field);
	char *at = field + strlen(field);
	*at = ':';
	uuid_format(volume_id, at + 1);
	return field;
}

int nvme_nqn_to_copy(const char *name, struct uuid *pool_id, struct uuid *volume_id)
{
	char pool[UUID_TEXT_LEN + 1] = "";
	size_t prefix_bytes = strlen(NVME_NQN_COPY_PREFIX);
	if (strlen(name) != prefix_bytes + UUID_TEXT_LEN + 1 + UUID_TEXT_LEN ||
	    name[prefix_bytes + UUID_TEXT_LEN] != ':' ||
	    strncmp(name, NVME_NQN_COPY_PREFIX, prefix_bytes) != 0)
		return OXE_NOENT;
	memcpy(pool, name + prefix_bytes, UUID_TEXT_LEN);
	int err = uuid_parse(pool, pool_id);
	if (!err)
		err = uuid_parse(name + prefix_bytes + UUID_TEXT_LEN + 1, volume_id);
	return err ? OXE_NOENT : 0;
}
