/*
 * ublk.h: volumes and snapshots as block devices of this machine, by the kernel's ublk driver (rt.h: rt_blk).
 *
 *     attachment     "this volume is to be a device here": wanted from attach to detach, over kills, restarts and reboots
 *     record         the list of attachments, kept durably by the caller, written whole; see ublk_record.h
 *     mark           the device's own word of whose it is: this server and this volume
 *     keeper         a fiber an attachment: brings the device up (recovers it, or makes it), keeps an engine under it, takes it
 *                    down
 *
 * The record is written before anything is made and after everything is gone; the device says by its mark which attachment
 * it belongs to. So whatever a kill leaves half-done is finished at the next start: wanted and not there is made, there and
 * orphaned is recovered, there and not wanted is removed. Other programs' devices are not touched.
 *
 * A request that finds its pool failed or closed, or its mirror fenced or stopped, waits until the volume is served again: users of a
 * device see a pause, not an error. What is inside a mirror that waits keeps a device from being taken down.
 *
 *   who owns memory   the server owns everything; infos are copies
 *   which reactor     that of `engines`; calls are made from its fibers and Suspend unless they say otherwise
 *   what is durable   an attach or detach that returned 0
 *   idempotence       attaching what is attached and detaching what is not are 0
 *   errors            OXE_UNSUPPORTED: this kernel has no ublk, or one before Linux 6.5; OXE_PERM: not root
 *
 * Bounds: RT_BLK_DEPTH requests of RT_BLK_IO_BYTES a device, then the kernel holds requests back; payload bytes of all devices
 * buffer_budget_bytes, and no device more than three times what it leaves for all others; then requests wait their turn. A request that waits
 * for a pool holds no payload; one inside a mirror that waits does.
 */
#ifndef OXBOW_DATA_FRONTEND_UBLK_UBLK_H
#define OXBOW_DATA_FRONTEND_UBLK_UBLK_H

#include "data/engine/engine.h"

#define UBLK_NO_NUMBER	 UINT32_MAX
#define UBLK_MESSAGE_MAX 200

struct ublk_server;

struct ublk_options {
	void *ctx;
	/* The saved record, to be free()d; OXE_NOENT if nothing was ever saved. Suspends. */
	int (*record_load)(void *ctx, char **text);
	/* Replace it, atomically and durably. Suspends. */
	int (*record_save)(void *ctx, const char *text);
	/* "POOL/VOLUME[@SNAPSHOT]" can be reached as /dev/ublkbN; UBLK_NO_NUMBER: no more. May suspend. */
	void (*link)(void *ctx, const char *name, uint32_t number);
	/* Tells this server's devices from those of other ones on this machine; the same at every start. */
	const char *identity;
	uint64_t buffer_budget_bytes; /* 0: 64 MiB */
};

enum ublk_state { UBLK_STARTING, UBLK_SERVING, UBLK_WAITING, UBLK_LEAVING };

struct ublk_info {
	struct uuid id;			       /* the volume's or snapshot's */
	char name[ENGINE_EXPORT_NAME_MAX + 1]; /* as of when it was last seen; "" if never */
	uint32_t number;		       /* N of /dev/ublkbN, or UBLK_NO_NUMBER */
	enum ublk_state state;
	bool read_only;
	uint32_t lba_bytes;
	uint64_t
		size_bytes; /* the device's: smaller than the volume's if that grew and the kernel cannot follow */
	char message[UBLK_MESSAGE_MAX]; /* what it waits for, or what is wrong; "" if nothing */
};
const char *ublk_state_name(enum ublk_state state); /* "starting" ... */

struct ublk_server *ublk_server_new(struct engines *engines, const struct ublk_options *options);
/* Reads the record, removes devices of ours that nobody wants, and starts a keeper for each attachment without waiting for it.
 * An error means that the record could not be read: nothing is touched, and attach and detach return that error. */
OX_CHECKED int ublk_server_start(struct ublk_server *s);
/* Ends the keepers and leaves the devices as they are. For tests, after the devices were taken from us. */
void ublk_server_stop(struct ublk_server *s);
void ublk_server_free(struct ublk_server *s);

/* Returns when the device serves, or with the reason why not; then the attachment is gone again. `out` is filled in both cases. */
OX_CHECKED int ublk_server_attach(struct ublk_server *s, const struct uuid *id, bool *created,
				  struct ublk_info *out);
/* OXE_BUSY: the device is mounted or otherwise held. `force` takes it away nevertheless. Returns when it is gone. */
OX_CHECKED int ublk_server_detach(struct ublk_server *s, const struct uuid *id, bool force);

/* Every attachment is serving, or `fn` is told of one that is not. Do not suspend, nor may `fn`; it returns false to stop. */
void ublk_server_walk(const struct ublk_server *s, bool (*fn)(void *ctx, const struct ublk_info *a),
		      void *ctx);
/* Suspends until some attachment changes. */
void ublk_server_change_wait(struct ublk_server *s);

/* Let go of this pool's volumes, so that it can be closed; the devices wait until it is back. Does not suspend. */
void ublk_server_evict(struct ublk_server *s, const char *pool_name);
/* The same of one volume and its snapshots: a mirror is over, and another may come in its place. */
void ublk_server_evict_volume(struct ublk_server *s, const struct uuid *volume_id);
/* A volume was grown. OXE_UNSUPPORTED: its device keeps its size until it is attached anew. 0 if it is not attached. */
OX_CHECKED int ublk_server_grown(struct ublk_server *s, const struct uuid *id);

#endif
