/*
 * nvme_host_prove.c: authentication on a queue that has just connected, from its first message to its last. A refusal, of either
 * side, ends the association with a sentence; it is tried again like any other: the list or the secret may be another then.
 */
#include "data/nvme/nvme_status.h"
#include "data/replica/nvme_host_auth.h"
#include "data/replica/nvme_host_impl.h"

static int send_message(struct nvme_queue *q, const uint8_t *message, size_t len_bytes)
{
	struct nvme_call call = {
		.data = (void *)message, .len_bytes = (uint32_t)len_bytes, .way = NVME_WAY_OUT};
	struct nvme_auth_command *w = (void *)&call.sqe;
	uint32_t capsule_bytes = q->capsule_bytes;
	*w = (struct nvme_auth_command){.opcode = NVME_FABRICS,
					.fctype = NVME_FABRICS_AUTH_SEND,
					.spsp0 = NVME_AUTH_SPSP,
					.spsp1 = NVME_AUTH_SPSP,
					.secp = NVME_AUTH_SECP,
					.length = le32_of((uint32_t)len_bytes)};
	q->capsule_bytes = NVME_HOST_ADMIN_CAPSULE; /* as Connect does it */
	int err = nvme_queue_call(q, &call);
	q->capsule_bytes = capsule_bytes;
	if (err && err != OXE_CLOSED)
		nvme_host_lose(q->host, OXE_PERM, "the target refuses authentication: %s",
			       nvme_status_text(call.status));
	return err;
}

static int receive_message(struct nvme_queue *q, uint8_t message[NVME_AUTH_BYTES_MAX])
{
	struct nvme_call call = {.data = message, .len_bytes = NVME_AUTH_BYTES_MAX, .way = NVME_WAY_IN};
	struct nvme_auth_command *w = (void *)&call.sqe;
	*w = (struct nvme_auth_command){.opcode = NVME_FABRICS,
					.fctype = NVME_FABRICS_AUTH_RECEIVE,
					.spsp0 = NVME_AUTH_SPSP,
					.spsp1 = NVME_AUTH_SPSP,
					.secp = NVME_AUTH_SECP,
					.length = le32_of(NVME_AUTH_BYTES_MAX)};
	memset(message, 0, NVME_AUTH_BYTES_MAX);
	int err = nvme_queue_call(q, &call);
	if (err && err != OXE_CLOSED)
		nvme_host_lose(q->host, OXE_PERM, "the target refuses authentication: %s",
			       nvme_status_text(call.status));
	return err;
}

struct work {
	struct nvme_host_auth *auth;
	int err;
};

static void work(void *arg)
{
	struct work *w = arg;
	w->err = nvme_host_auth_work(w->auth);
}

static int prove(struct nvme_queue *q, struct nvme_host_auth *a, uint8_t *message)
{
	struct work w = {.auth = a};
	int err = send_message(q, message, nvme_host_auth_negotiate(a, message));
	if (!err)
		err = receive_message(q, message);
	if (!err)
		err = nvme_host_auth_take_challenge(a, message, NVME_AUTH_BYTES_MAX);
	if (err)
		return err;
	rt_offload(work, &w);
	return w.err ? w.err : send_message(q, message, nvme_host_auth_reply(a, message));
}

/* Whether the target believes us, and we it. */
static int conclude(struct nvme_queue *q, struct nvme_host_auth *a, uint8_t *message)
{
	int err = receive_message(q, message);
	if (!err)
		err = nvme_host_auth_take_success(a, message, NVME_AUTH_BYTES_MAX);
	if (!nvme_host_auth_wants_proof(a) || (err && !a->doubts))
		return err;
	int unsaid = send_message(q, message,
				  err ? nvme_host_auth_refuse(a, message) : nvme_host_auth_agree(a, message));
	return err ? err : unsaid;
}

int nvme_host_prove(struct nvme_queue *q)
{
	struct nvme_host *h = q->host;
	struct nvme_host_auth *a = mem_zalloc(sizeof(*a));
	uint8_t *message = mem_alloc(NVME_AUTH_BYTES_MAX);
	a->hostnqn = h->host_nqn;
	a->subnqn = h->subsystem_nqn;
	a->secret = h->secret;
	a->controller_secret = h->controller_secret;
	a->least_group = h->options.least_group ? h->options.least_group - 1 : NVME_AUTH_FFDHE2048;
	a->t_id = (uint16_t)rt_random_u64(h->rt);
	a->host_sequence = (uint32_t)rt_random_u64(h->rt) | 1;
	rt_random(h->rt, a->exponent, sizeof(a->exponent));
	rt_random(h->rt, a->host_challenge, sizeof(a->host_challenge));
	int err = prove(q, a, message);
	if (!err)
		err = conclude(q, a, message);
	if (a->because)
		nvme_host_lose_because(h, err, a->because);
	else if (err && err != OXE_CLOSED)
		nvme_host_lose(h, err, "queue %u: authentication failed: %s", q->qid, err_text(err));
	explicit_bzero(a, sizeof(*a));
	free(a);
	free(message);
	return err;
}
