/*
 * nvmf_auth_fuzz.c: any messages from a host, and the states they lead through. Byte 0: the hash, the group, the state. Each further
 * message: two bytes of its length, then it, at its own length in memory. No arithmetic over groups: that is numbers, and slow.
 */
#include "data/frontend/nvmf/nvmf_auth.h"

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void take(const uint8_t *message, size_t len_bytes, struct nvmf_auth_exchange *x,
		 enum nvmf_auth_state *state)
{
	enum nvmf_auth_event event;
	struct nvmf_auth_offer offer;
	uint8_t out[NVME_AUTH_BYTES_MAX], hash, group;
	int why = nvmf_auth_event_of(message, len_bytes, &event, &x->t_id);
	must(why >= 0 && why <= NVME_AUTH_WRONG_MESSAGE);
	if (why)
		return;
	*state = nvmf_auth_next(*state, event);
	must(*state < AUTH_STATES);
	if (event == AUTH_ON_NEGOTIATE && nvmf_auth_negotiate_decode(message, len_bytes, &offer) == 0 &&
	    nvmf_auth_choose(&offer, 32, x->group, &hash, &group) == 0) {
		must(auth_hash_bytes(hash) > 0 && (offer.hashes & 1u << hash));
		must(group < NVME_AUTH_GROUPS && (offer.groups & 1u << group));
		x->hash = hash;
		x->group = group;
		must(nvmf_auth_challenge_build(x, out) <= sizeof(out));
	}
	if (event == AUTH_ON_REPLY && nvmf_auth_reply_decode(message, len_bytes, x) == 0) {
		must(nvmf_auth_success1_build(x, out) <= sizeof(out));
		must(x->group || nvmf_auth_verify(x) == NVME_AUTH_FAILED); /* nobody guesses */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nvmf_auth_exchange x;
	if (size == 0)
		return 0;
	x = (struct nvmf_auth_exchange){.hash = (uint8_t)(1 + data[0] % 3),
					.group = (uint8_t)(data[0] / 4 % NVME_AUTH_GROUPS),
					.secret = {.len_bytes = 32, .key = {1}},
					.hostnqn = "nqn.h",
					.subnqn = "nqn.s"};
	enum nvmf_auth_state state = (enum nvmf_auth_state)(data[0] / 32 % AUTH_STATES);
	for (size_t at = 1; at + 2 <= size;) {
		size_t len_bytes = u64_min((size_t)(data[at] | data[at + 1] << 8), size - at - 2);
		uint8_t *message = mem_alloc(len_bytes + 1);
		memcpy(message, data + at + 2, len_bytes);
		take(message, len_bytes, &x, &state);
		free(message);
		at += 2 + len_bytes;
	}
	return 0;
}
