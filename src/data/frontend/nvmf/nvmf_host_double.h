/*
 * nvmf_host_double.h: a host that says exactly what a test wants said, right or wrong. Not part of any product binary.
 *
 * One connection each. Every function CHECKs what it expects; those that may see the connection end say so.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_HOST_DOUBLE_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_HOST_DOUBLE_H

#include "data/nvme/nvmetcp_pdu.h"
#include "data/tls/tls.h"

#define HOST_NQN "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001"

struct host {
	struct rt_conn *conn;
	struct tls *tls; /* NULL: in the clear */
	struct nvmetcp_terms terms;
	uint32_t maxh2cdata;
	uint16_t next_cid, cntlid, qid;
	uint8_t cattr;	     /* of the next Connect */
	uint32_t kato_ms;    /* the same */
	uint8_t hostid;	     /* all sixteen bytes of it */
	const char *hostnqn; /* NULL: HOST_NQN */
};

/* What came: one PDU. */
struct host_pdu {
	struct nvmetcp_pdu pdu;
	uint8_t head[NVMETCP_HEAD_MAX];
	uint8_t *data; /* free it */
};

/* Connected and initialized: digests are NVMETCP_DIGEST_ bits. */
struct host host_open(const char *address, uint8_t digests, uint8_t hpda);
/* Connected, and nothing said. */
struct host host_open_raw(const char *address);
/* The TLS handshake on one of these: 0, or what tls_connect_key returns. */
OX_CHECKED int host_secure(struct host *h, const struct tls_psk *psk);
/* ICReq and what answers it. */
void host_initialize(struct host *h, uint8_t digests, uint8_t hpda);
void host_close(struct host *h);
void host_send(struct host *h, const void *data, size_t len_bytes);
/* False at the end of the stream. */
OX_CHECKED bool host_recv(struct host *h, void *data, size_t len_bytes);
/* The next PDU, checked; false at the end of the stream. */
OX_CHECKED bool host_pdu(struct host *h, struct host_pdu *out);
/* True if nothing but the end comes; a TermReq before it leaves its fes here (0: none). */
OX_CHECKED bool host_is_cut(struct host *h, uint16_t *fes);

/* A command, with `data` in its capsule (in_capsule) or described as to be asked for. Sets the cid, and returns it. */
uint16_t host_command(struct host *h, struct nvme_sqe *sqe, const void *data, uint32_t data_bytes,
		      bool in_capsule);
/* H2CData, as it is told. */
void host_data(struct host *h, uint8_t flags, uint16_t cid, uint16_t ttag, uint32_t offset, const void *data,
	       uint32_t len_bytes);
/* Until the response to cid: what it reads goes to `in`, what is asked for comes from `out`. Returns the status. */
uint16_t host_finish(struct host *h, uint16_t cid, void *in, const void *out, uint64_t *result);

/* Connect a queue; returns the status. */
uint16_t host_connect(struct host *h, uint16_t qid, uint16_t cntlid, const char *subnqn, uint16_t entries);
uint16_t host_property_set(struct host *h, uint32_t offset, uint32_t value);
uint16_t host_property_get(struct host *h, uint32_t offset, bool is_wide, uint64_t *value);
/* An admin queue, enabled. */
struct host host_begin(const char *address, const char *subnqn, uint8_t digests);
/* An I/O queue beside it. */
struct host host_queue(const char *address, const struct host *admin, const char *subnqn, uint16_t qid,
		       uint8_t digests);

/* Whole commands; return the status. Writes of up to 8 KiB go in the capsule. */
uint16_t host_admin(struct host *h, uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11, void *in,
		    uint32_t in_bytes, uint64_t *result);
uint16_t host_io(struct host *h, uint8_t opcode, uint64_t lba, uint32_t blocks, uint32_t flags, void *in,
		 const void *out, uint32_t data_bytes);
uint16_t host_log(struct host *h, uint8_t log, void *in, uint32_t in_bytes, uint64_t offset);

#endif
