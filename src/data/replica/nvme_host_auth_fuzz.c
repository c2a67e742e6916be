/*
 * nvme_host_auth_fuzz.c: any messages from a target that authenticates. Byte 0: the least group, and whether the target must prove
 * itself. Two bytes of the challenge's length, then it at its own
 * length in memory; the rest answers the reply. No arithmetic over groups: that is numbers, and slow.
 */
#include "data/replica/nvme_host_auth.h"

static void must(bool holds)
{
	if (!holds)
		abort();
}

static uint8_t *own_copy(const uint8_t *data, size_t len_bytes)
{
	uint8_t *copy = mem_alloc(len_bytes + 1);
	memcpy(copy, data, len_bytes);
	return copy;
}

static void take_challenge(struct nvme_host_auth *a, const uint8_t *data, size_t len_bytes)
{
	uint8_t out[NVME_AUTH_BYTES_MAX], *message = own_copy(data, len_bytes);
	int err = nvme_host_auth_take_challenge(a, message, len_bytes);
	must(err == 0 || err == OXE_PERM || err == OXE_PROTO || err == OXE_UNSUPPORTED);
	must((err == 0) == (a->because == NULL));
	must(err ||
	     (auth_hash_bytes(a->hash) > 0 && a->group >= a->least_group && a->group < NVME_AUTH_GROUPS));
	if (err) /* not to be believed: the next message is looked at all the same */
		a->hash = 1 + a->least_group % 3;
	if (err == 0 && a->group == NVME_AUTH_GROUP_NULL)
		must(nvme_host_auth_work(a) == 0);
	must(nvme_host_auth_reply(a, out) <= sizeof(out));
	free(message);
}

static void take_success(struct nvme_host_auth *a, const uint8_t *data, size_t len_bytes)
{
	uint8_t *message = own_copy(data, len_bytes);
	int err = nvme_host_auth_take_success(a, message, len_bytes);
	must(err == 0 || err == OXE_PERM || err == OXE_PROTO);
	free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvme_host_auth a = {.hostnqn = "nqn.h",
				   .subnqn = "nqn.s",
				   .secret = {.len_bytes = 32, .key = {1}},
				   .t_id = 0x0101,
				   .host_sequence = 9};
	if (size < 3)
		return 0;
	a.least_group = data[0] % NVME_AUTH_GROUPS;
	a.controller_secret.len_bytes = data[0] & 0x40 ? 32 : 0;
	memset(a.wanted, 0x5a, sizeof(a.wanted));
	size_t len_bytes = u64_min((size_t)(data[1] | data[2] << 8), size - 3);
	take_challenge(&a, data + 3, len_bytes);
	a.because = NULL;
	take_success(&a, data + 3 + len_bytes, size - 3 - len_bytes);
	return 0;
}
