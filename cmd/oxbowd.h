/*
 * oxbowd.h: the daemon's parts. cmd/oxbowd*.c together are a thin main: options, a log, files, and the wiring of rooms.
 *
 *     oxbowd.c          main: wires reactor, node, API, NBD; readiness to systemd; the end
 *     oxbowd_options.c  the command line
 *     oxbowd_log.c      events as lines on stderr and into the ring
 *     oxbowd_files.c    the data directory: lock, list of pools, the look around; what /proc says about us
 *     oxbowd_listen.c   what the addresses that are served have in common: patience
 *     oxbowd_nbd.c      NBD's listeners: brought up, kept up
 *     oxbowd_nvmf.c     those of NVMe over TCP
 *     oxbowd_ublk.c     block devices of this host: record, links, readiness
 *     oxbowd_meta.c     the metastore
 *     oxbowd_copies.c   copies in this node's pools, for engines of others
 *     oxbowd_check.c    --check: a pool examined without a daemon
 */
#ifndef OXBOW_CMD_OXBOWD_H
#define OXBOW_CMD_OXBOWD_H

#include "control/node/events.h"
#include "control/node/node.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nvmf/nvmf.h"

#define OPTION_LIST_MAX 16

struct daemon_options {
	const char *data_dir, *socket_path;
	const char *nbd[OPTION_LIST_MAX], *nvme[OPTION_LIST_MAX], *scan[OPTION_LIST_MAX];
	const char *nvme_referrals[OPTION_LIST_MAX];
	size_t nbd_count, nvme_count, scan_count, nvme_referral_count;
	bool nbd_insecure, nvme_insecure, nvme_authenticated, nvme_discover_snapshots;
	uint8_t nvme_dh_group; /* as struct nvmf_options has it */
	enum nvmf_tls_mode nvme_tls;
	struct nbd_tls_options tls;
	bool log_json;
	enum log_level log_level;
	uint64_t cache_bytes;
	const char *ublk_links; /* directory */
	bool no_discard;
	const char *node_name;			 /* NULL: the host's */
	const char *cluster_secret;		 /* of copies behind NVMe; NULL: none */
	uint64_t copy_timeout_ns, copy_grace_ns; /* 0: the usual */
	const char *metastore;			 /* "sqlite:PATH"; NULL: in the data directory */
	const char *init_pool_path;		 /* NULL: none */
	uint64_t init_pool_bytes;
	const char *check_path; /* NULL: run as a daemon */
	bool print_routes;
};

/* Fills everything, with defaults. Ends the process after --help, --version (0) or a mistake (2). */
void options_parse(int argc, char **argv, struct daemon_options *out);

/* The sink: lines at the chosen level and above, info and above into the ring. `rt` runs on the calling thread. */
void daemon_log_start(const struct daemon_options *options, struct rt *rt, struct events *ring);

/* Makes the directory and takes its lock for the life of the process; ends the process with 1, saying who holds it. */
void data_dir_take(const char *path);
struct node_platform files_platform(const struct daemon_options *options);
/* Of this machine since it was switched on. Nil if the kernel does not say. */
struct uuid boot_id_read(void);

/* What the target is to serve beside volumes. */
struct nvmf_foreign copies_start(const struct daemon_options *options, struct node *node);
/* For struct node_platform. */
void copies_evict(void *ctx, const struct uuid *pool_id);
/* The file's first line, to be kept; NULL: there is none. */
const char *cluster_secret_read(const char *path);

/* For struct node_platform. */
void meta_platform(const struct daemon_options *options, struct node_platform *platform);

/* One address that is to be served. It holds back readiness under a name of its own until it stands. */
struct address_kind { /* all static text */
	const char *name, *hold, *reason, *failed_event;
	enum node_protocol protocol;
	int (*listen)(const char *address, const char **bound); /* suspends */
};

struct address {
	const struct address_kind *kind;
	struct node *node;
	const char *text; /* as it was asked for */
	char hold[32];
};

/* The index is that among its kind. Does not suspend. */
void address_init(struct address *a, const struct address_kind *kind, struct node *node, const char *text,
		  size_t index);
/* Suspends until it stands, however long that takes, and tells the node. */
void address_bring_up(struct address *a, bool tls);

/* In a fiber: starts to serve the addresses, and holds back readiness until each stands. */
void nbd_start(const struct daemon_options *options, struct node *node, struct engines *engines);
/* For struct node_platform. */
void nbd_pool_evict(void *ctx, const char *pool_name);

void nbd_volume_evict(const struct uuid *volume_id);

/* In a fiber: brings the block devices back that were attached, and holds back readiness until each serves. */
void ublk_start(const struct daemon_options *options, struct node *node, struct engines *engines);
void ublk_pool_evict(const char *pool_name);
void ublk_volume_evict(const struct uuid *volume_id);
/* For struct ublk_options: the file "ublk" in the data directory. */
int files_ublk_load(void *ctx, char **text);
int files_ublk_save(void *ctx, const char *text);

/* The same for NVMe over TCP. */
void nvmf_start(const struct daemon_options *options, struct node *node, struct engines *engines);
void nvmf_pool_evict(const char *pool_name);
void nvmf_volume_evict(const struct uuid *volume_id);
void nvmf_volumes_changed(void *ctx);
void nvmf_access_changed(void *ctx, const struct uuid *volume_id);

/* Runs a reactor of its own; the exit status: 0 clean, 1 problems or unreadable. */
int check_run(const struct daemon_options *options);

#endif
