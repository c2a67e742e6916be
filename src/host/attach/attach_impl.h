/* attach_impl.h: what the files of host/attach share; see attach.h. */
#ifndef OXBOW_HOST_ATTACH_IMPL_H
#define OXBOW_HOST_ATTACH_IMPL_H

#include "host/attach/attach.h"

#include "base/err.h"

#define ATTACH_PATH_SIZE 1024

/* Sets why and hint ("" for none), and returns err. */
int attach_why(struct attach *a, int err, const char *hint, const char *format, ...) OX_PRINTF(4, 5);
void attach_note(struct attach *a, const char *format, ...) OX_PRINTF(2, 3);

/* ---- attach_state.c: the state directory ----------------------------------------------------------------------------- */

/* Makes the directory if it is not there, and waits for the volume's lock; NULL: for the one of the names of links, which may be
 * taken under a volume's. close() gives it back. */
OX_CHECKED int state_lock(struct attach *a, const struct uuid *id, int *lock);
/* Durable when it returns 0. */
OX_CHECKED int state_save(struct attach *a, const struct attach_record *r);
OX_CHECKED int state_remove(struct attach *a, const struct uuid *id);
/* A small text file of its own: OXE_NOENT. The text, without its newline, in `out`. */
OX_CHECKED int text_read(const char *path, char *out, size_t size);
OX_CHECKED int state_text_save(struct attach *a, const char *name, const char *text);
void path_format(char path[ATTACH_PATH_SIZE], const char *format, ...) OX_PRINTF(2, 3);
void parents_make(const char *path, mode_t mode);

/* ---- attach_hold.c: who has a device open ---------------------------------------------------------------------------- */

/* Open a device in a child, so that one whose server is away cannot hold this process up, and read its first block if
 * `reads`. OXE_TIMEOUT: no answer. Else as open() and read() fail. */
OX_CHECKED int hold_open(const char *path, int flags, bool reads, unsigned timeout_ms, int *fd);
/* Open it so that nobody can mount it any more. OXE_BUSY: somebody has it open; a->why says who. OXE_TIMEOUT. */
OX_CHECKED int hold_claim(struct attach *a, const char *device, int *claim);

/* ---- the ways -------------------------------------------------------------------------------------------------------- */

extern const struct attach_way attach_way_nvme, attach_way_nbd;

/* Is there a mount or a loop device of this volume? */
bool nbd_is_there(const struct attach *a, const struct uuid *id);
/* Each volume that has a loop device of ours. */
void nbd_walk(struct attach *a, void (*fn)(void *ctx, const struct uuid *id), void *ctx);

#define NVME_PATHS_MAX 16
struct nvme_found {
	unsigned controller_count;
	char controllers[NVME_PATHS_MAX][16]; /* "nvme0" */
	char block[32];			      /* "nvme0n1", empty: none yet */
};
/* The kernel's connections to a volume. */
void nvme_find(const struct attach *a, const struct uuid *id, struct nvme_found *out);
/* Each volume that the kernel is connected to. */
void nvme_walk(struct attach *a, void (*fn)(void *ctx, const struct uuid *id), void *ctx);
/* Who this host is to NVMe targets: /etc/nvme, or made once and kept in the state directory. */
OX_CHECKED int nvme_identity(struct attach *a, struct attach_record *r);
/* What the kernel is told to connect; OXE_INVAL: a value would say more than it should. Secrets "": none. */
OX_CHECKED int nvme_connect_text(const struct attach_record *r, const char *host, const char *port,
				 const char *secret, const char *controller_secret, struct text *out);
/* "HOST:PORT", "[HOST]:PORT" or HOST alone, which is port 4420. OXE_INVAL. */
OX_CHECKED int nvme_address_split(const char *at, char host[ATTACH_NAME_SIZE], char port[8]);

/* ---- waiting --------------------------------------------------------------------------------------------------------- */

struct deadline {
	uint64_t at_ns;
};
struct deadline deadline_in(unsigned timeout_ms);
/* Sleeps a moment between two looks; false when the time is over. */
bool deadline_wait(const struct deadline *d);

#endif
