/*
 * nvme_target_double.h: a small NVMe/TCP target over an array, for tests of the host: obedient, unless a hook says otherwise.
 *
 * Each command is a fiber of its own, after a pause the seed draws, so that answers come in any order. A subsystem of any
 * name, one namespace (id 1) of any host. One reactor; the caller owns the struct, which stays until double_close() returned.
 */
#ifndef OXBOW_DATA_REPLICA_NVME_TARGET_DOUBLE_H
#define OXBOW_DATA_REPLICA_NVME_TARGET_DOUBLE_H

#include "base/prng.h"
#include "data/nvme/nvmetcp_pdu.h"
#include "rt/rt.h"

struct double_conn;

struct nvme_target_double {
	/* Set before double_open(); 0 means the default in brackets. */
	uint64_t size_bytes;	/* [1 MiB] */
	uint32_t lba_bytes;	/* [512] */
	uint32_t capsule_bytes; /* of data [8192]; UINT32_MAX: none */
	uint32_t r2t_bytes;	/* the most one R2T asks for [all] */
	uint32_t data_bytes;	/* the most one C2HData carries [all] */
	uint32_t maxh2cdata;	/* [128 KiB] */
	uint32_t entries;	/* of a queue [128] */
	uint32_t queues_max;	/* [8] */
	uint8_t cpda, digests;	/* digests it agrees to */
	bool no_success_flag;	/* reads are answered by a response, not by the last data */
	uint64_t pause_max_ns;	/* before a command is carried out [0] */
	uint64_t seed;
	struct uuid uuid;
	/* Called with each command before it is obeyed, and before data is asked for: true if the hook has seen to it. May Suspend. */
	bool (*hook)(struct nvme_target_double *t, struct double_conn *c, const struct nvme_sqe *sqe);
	void *hook_arg;

	/* Its own. */
	struct rt *rt;
	struct prng rng;
	struct rt_listener *listener;
	struct rt_group fibers;
	struct list conns;
	uint8_t *bytes;
	bool is_closing;
	uint32_t next_cntlid;
	struct nvme_sqe events[16]; /* event requests that wait */
	struct double_conn *event_conn;
	uint32_t event_count;
	/* What has happened. */
	uint64_t connections, admin_commands, io_commands, keep_alives, aborts, h2c_pdus, writes;
};

/* The end of one connection. */
struct double_conn {
	struct list link;
	struct nvme_target_double *target;
	struct rt_conn *conn;
	struct nvmetcp_terms terms;
	uint16_t qid;
	bool is_connected, is_enabled;
	struct fmutex sending;
	struct rt_group commands;
	struct list transfers; /* writes that wait for their data */
	uint16_t next_ttag;
};

void double_open(struct nvme_target_double *t, struct rt *rt, const char *address);
void double_close(struct nvme_target_double *t);
/* Ends every connection, as if the process had died and were back. Does not suspend. */
void double_cut(struct nvme_target_double *t);
/* The namespace has another size; the host is told. */
void double_grow(struct nvme_target_double *t, uint64_t size_bytes);

/* For hooks. Errors of a connection that is gone are ignored: its receiver sees it too. */
void double_send(struct double_conn *c, const void *head, size_t head_bytes, const void *data,
		 size_t data_bytes);
void double_respond(struct double_conn *c, uint16_t cid, uint16_t status, uint64_t result);
void double_c2h(struct double_conn *c, uint16_t cid, uint8_t flags, uint32_t offset_bytes, const void *data,
		uint32_t len_bytes);

#endif
