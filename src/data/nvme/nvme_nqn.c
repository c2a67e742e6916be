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

char *nvme_nqn_of_volume(const struct uuid *volume_id, char field[NVME_NQN_FIELD])
{
	nvme_nqn_put(field, NVME_NQN_VOLUME_PREFIX);
	uuid_format(volume_id, field + strlen(NVME_NQN_VOLUME_PREFIX));
	return field;
}

int nvme_nqn_to_volume(const char *name, struct uuid *volume_id)
{
	size_t prefix_bytes = strlen(NVME_NQN_VOLUME_PREFIX);
	if (strncmp(name, NVME_NQN_VOLUME_PREFIX, prefix_bytes) != 0)
		return OXE_NOENT;
	return uuid_parse(name + prefix_bytes, volume_id) == 0 ? 0 : OXE_NOENT;
}
