/* copy_service.h: introduces the server of copies (data/replica) to the NVMe/TCP target (data/frontend/nvmf), which know nothing of each
 * other. */
#ifndef OXBOW_CMD_COPY_SERVICE_H
#define OXBOW_CMD_COPY_SERVICE_H

#include "data/frontend/nvmf/nvmf.h"
#include "data/replica/replica_server.h"

/* Everything but who may connect: secret, tls_key and insecure are the caller's to fill in. `server` stays until the target is closed. */
struct nvmf_foreign copy_service(struct replica_server *server);

#endif
