/*
 * nvmf_frame_double.h: the frame of the target's tests: frame_double.h with a target in it. Not part of any product binary.
 *
 *     WITH_TARGET(what_is_true) { struct host h = host_begin(ADDRESS, target.nqn, 0); ... }
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_FRAME_DOUBLE_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_FRAME_DOUBLE_H

#include "base/test.h"
#include "data/frontend/frame_double.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_host_double.h"

#define ADDRESS "tcp:127.0.0.1:4420"
#define SIZE	FRAME_SIZE
#define DNR	NVME_STATUS_DNR

struct target {
	struct nvmf_server *server; /* NULL: a test closed it */
	struct nvmf_options options;
	char nqn[NVMF_NQN_SIZE]; /* of the volume */
};

extern struct target target;

/* A target at ADDRESS, by the options that stand in `target`. */
void target_start(void);
/* Run `body` as a fiber beside a target, under three seeds. */
void target_run(struct nvmf_options options, uint32_t lba_bytes, void (*body)(void));

#define WITH_BLOCKS(test_name, lba_bytes, ...)                                                               \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		target_run((struct nvmf_options){__VA_ARGS__}, lba_bytes, test_name##_body);                 \
	}                                                                                                    \
	static void test_name##_body(void)

#define WITH_OPTIONS(test_name, ...) WITH_BLOCKS(test_name, 512, __VA_ARGS__)
#define WITH_TARGET(test_name)	     WITH_BLOCKS(test_name, 512, 0)

/* Put this host on the volume's list, alone if `alone`; NULL and alone: nobody is. */
void target_allow(const char *nqn, const struct nvmf_access_texts *texts, bool alone);

/* A host's two connections. */
struct pair {
	struct host admin, io;
};
void detach(struct pair *p);

#endif
