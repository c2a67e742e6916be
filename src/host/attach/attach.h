/*
 * attach.h: a volume as a block device of a host that is its client. Three ways to one:
 *
 *     nvme   a connection of the kernel's NVMe/TCP host: attach_nvme.c
 *     ublk   a device that the daemon on this host makes; whoever calls brings this way along
 *     nbd    nbdfuse shows the volume as a file, a loop device the file as a disk: attach_nbd.c, for kernels with neither
 *
 * Whatever is made on the host is on record first (attach_record.h), one file an attachment in the state directory, replaced whole
 * and durable before what it speaks of is done. A process that is killed leaves a record that says what it was about; the next
 * attach of the volume finishes it, the next detach or attach_reap undoes it. A device is only taken away when nobody has it open,
 * unless told by force.
 *
 *     phases        intended -> made -> leaving -> no record
 *     owners        names on the record; the device goes with the last one
 *     links         LINKS/NAME leads to the device. udev makes it where it runs (dist/60-oxbow.rules), else this does
 *     at once       one process a volume: a lock in the state directory, which is free when its holder is dead
 *     who may       root
 *     blocks        yes: for use by commands, not on a reactor
 *     errors        OXE_ codes; a->why is the sentence, a->hint what can be done, "" if there is no more to say
 */
#ifndef OXBOW_HOST_ATTACH_H
#define OXBOW_HOST_ATTACH_H

#include "host/attach/attach_record.h"

#include <sys/types.h>

struct attach;

struct attach_device {
	char path[ATTACH_NAME_SIZE];
	char probe[ATTACH_ADDRESS_SIZE]; /* where a read goes to the volume itself, past every cache */
};

struct attach_way {
	/* OXE_NOENT: it is not there, and *out is as it was, empty; or it is there and has no node in /dev, and out->path says which it
	 * would be. OXE_FAILED: it is there, but serves no more. */
	int (*look)(struct attach *a, const struct attach_record *r, struct attach_device *out);
	/* Until look() finds it. What an earlier try has left is in nobody's hands. Fills r->device. */
	int (*make)(struct attach *a, struct attach_record *r);
	/* Of one that look() has found, whoever made it: see that it is as make() makes them. NULL: there is no other kind. */
	void (*adopt)(struct attach *a, const struct attach_record *r);
	/* Until nothing is left, also of what is half made. Takes `claim`, a descriptor of the device or -1, and closes it. */
	int (*unmake)(struct attach *a, const struct attach_record *r, int claim, bool force);
};

struct attach {
	const char *state_dir, *links_dir;
	const char *sys, *dev, *etc;   /* "/sys", "/dev", "/etc", but for tests */
	const struct attach_way *ublk; /* NULL: cannot be done here */
	/* A sentence that a person should read though nothing failed. Whoever needs more has this struct in one of its own. */
	void (*note)(struct attach *a, const char *text);
	char why[600], hint[300];
};

/* OXE_UNSUPPORTED: this kernel has no NVMe/TCP host; a->why says what is missing. May load the module. */
OX_CHECKED int attach_nvme_probe(struct attach *a);
/* OXE_UNSUPPORTED: no FUSE, loop devices or nbdfuse. */
OX_CHECKED int attach_nbd_probe(struct attach *a);

/* `r` says id, by, volume, link, at and so on; it becomes what is on record, which counts where there is one already. Again, it is
 * the same device. OXE_EXISTS: it is attached by another way (`any_way` false) or the link leads elsewhere. */
OX_CHECKED int attach_make(struct attach *a, struct attach_record *r, const char *owner, bool any_way);
/* One owner less; the device is taken away with the last. Nothing on record and nothing there: 0. `r` is what is left: no owners, and
 * an empty device: nothing. OXE_BUSY: somebody has it open, a->why says who. */
OX_CHECKED int attach_remove(struct attach *a, const struct uuid *id, const char *owner, bool force,
			     struct attach_record *r);
/* What is half made and unused is undone, what is leaving is taken away, what was made and is not there any more (a reboot) is made
 * again, and what has no record is taken away if nobody uses it. `told` hears of each; `err` 0: done, OXE_BUSY: left, as
 * it is in use. Returns how many failed, or an OXE_ code if nothing could be looked at. */
OX_CHECKED int attach_reap(struct attach *a, void (*told)(struct attach *a, const struct attach_record *r,
							  const char *what, int err));
/* The records there are, in no order; a file that is no record is told with an id and `err`. */
OX_CHECKED int attach_walk(struct attach *a, void (*fn)(void *ctx, const struct attach_record *r, int err),
			   void *ctx);
/* OXE_NOENT: none. */
OX_CHECKED int attach_load(struct attach *a, const struct uuid *id, struct attach_record *out);
/* "attached", "gone" (made, and not there), "half made", "leaving". */
const char *attach_state(struct attach *a, const struct attach_record *r);

#endif
