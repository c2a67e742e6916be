/*
 * bench_load.h: the load of oxbow-bench: so many requests in flight on each target, for so long, and what came of it.
 *
 * With `verify`, every 512 bytes written say which seed, target, unit and generation they are; a table in memory knows which
 * generation each unit must have, and a unit has one request in flight at a time. So each read is right or wrong by itself,
 * through lost connections and killed daemons: those are pauses, and nothing that was answered may be gone.
 *
 *   who owns memory   the load, everything; names are the caller's
 *   which reactor     the one load_run() is called on, from a fiber of it
 */
#ifndef OXBOW_CMD_BENCH_LOAD_H
#define OXBOW_CMD_BENCH_LOAD_H

#include "base/hist.h"
#include "data/replica/nvme_host.h"

#define LOAD_TARGETS_MAX 64

enum load_kind { LOAD_RANDREAD, LOAD_RANDWRITE, LOAD_READ, LOAD_WRITE, LOAD_MIXED, LOAD_KINDS };
extern const char *const load_kind_names[LOAD_KINDS];

struct load_target {
	char *address, *nqn;
};

struct load_options {
	enum load_kind kind;
	uint64_t block_bytes, size_bytes; /* size 0: all of the target */
	uint32_t depth, queues, read_percent;
	uint64_t time_ns, connect_ns, seed;
	bool verify, digests, no_in_capsule;
	const char *host_nqn, *tls_key;		/* NULL: any; in the clear */
	const char *secret, *controller_secret; /* as struct nvme_host_options has them */
	uint8_t least_group;			/* the same */
	struct load_target targets[LOAD_TARGETS_MAX];
	uint32_t target_count;
};

struct load_result {
	uint64_t operations[2], bytes[2]; /* of reads, of writes; the checks at the end are not counted */
	struct hist latency_ns[2];
	uint64_t errors, wrong_units, checked_units;
	uint64_t associations, replayed;
	uint64_t longest_pause_ns; /* in which nothing was answered by some target */
	uint64_t took_ns;
	double cpu_s; /* of this process, meanwhile */
	int first_error;
	char first_wrong
		[200]; /* the first unit that was not what it had to be, or why there was nothing to measure */
};

/* 0, or OXE_: no association, or the options do not fit the target: first_wrong says. Suspends. */
OX_CHECKED int load_run(struct rt *rt, const struct load_options *options, struct load_result *result);

#endif
