/* copy_service.c: see copy_service.h. */
#include "copy_service.h"

#include "data/nvme/nvme_nqn.h"
#include "data/replica/replica_wire.h"

static_assert(NVMF_FOREIGN_LBA == REPLICA_WIRE_LBA, "both speak of the same blocks");

static bool knows(void *ctx, const char *subnqn)
{
	struct uuid pool_id, volume_id;
	(void)ctx;
	return nvme_nqn_to_copy(subnqn, &pool_id, &volume_id) == 0;
}

static void *attach(void *ctx, const char *subnqn, struct uuid *id)
{
	struct uuid pool_id;
	int err = nvme_nqn_to_copy(subnqn, &pool_id, id);
	assert(err == 0);
	return replica_session_new(ctx, subnqn);
}

static void detach(void *session)
{
	replica_session_end(session);
}

static uint16_t run(void *session, const struct nvme_sqe *sqe, void *data, uint32_t data_bytes,
		    uint32_t *answer_bytes, uint64_t *result)
{
	return replica_session_command(session, sqe, data, data_bytes, answer_bytes, result);
}

static uint64_t size_bytes(const void *session)
{
	return replica_session_size(session);
}

struct nvmf_foreign copy_service(struct replica_server *server)
{
	return (struct nvmf_foreign){
		.model = "Oxbow copy",
		.ctx = server,
		.knows = knows,
		.attach = attach,
		.detach = detach,
		.run = run,
		.size_bytes = size_bytes,
	};
}
