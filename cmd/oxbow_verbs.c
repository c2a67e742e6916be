/*
 * oxbow_verbs.c: the only list of verbs there is: the help, the man page and the completion are made from it. What each verb does is in the file
 * of its noun (oxbow_verbs.h).
 */
#include "oxbow_verbs.h"

const struct option_text option_texts[OPT_COUNT] = {
	[OPT_COPIES] = {"copies", "POOL,POOL",
			"mirror it: a copy in each of these pools, of this node or others"},
	[OPT_TO] = {"to", "NODE", "which node, by name or uuid"},
	[OPT_ACCEPT_LOSS] = {"accept-loss", NULL, "do it; without, it only says what would be lost"},
	[OPT_NAME] = {"name", "NAME", "the pool's name"},
	[OPT_SIZE] = {"size", "SIZE", "like 512M, 10G, 1.5T (powers of 1024), or bytes; rounded up to 4 KiB"},
	[OPT_FORCE] = {"force", NULL, "overwrite what is on that disk"},
	[OPT_POOL] = {"pool", "POOL", "which pool; may be left out while there is one"},
	[OPT_BLOCK_SIZE] = {"block-size", "BYTES", "logical block clients see: 512 (the default) or 4096"},
	[OPT_ID] = {"id", "UUID", "the new object's id, for doing a command again safely"},
	[OPT_YES] = {"yes", NULL, "do not ask", 'y'},
	[OPT_FULL] = {"full", NULL, "copy what is shared, in the background, until nothing is"},
	[OPT_CANCEL] = {"cancel", NULL, "stop copying; what was copied is kept"},
	[OPT_SINCE] = {"since", "SNAPSHOT", "mark what changed since a snapshot of its chain"},
	[OPT_WAIT] = {"wait", NULL, "stay until the background work is done, showing progress"},
	[OPT_WAIT_S] = {"wait", "SECONDS", "wait so long for it, also for a daemon that is not there yet"},
	[OPT_FOLLOW] = {"follow", NULL, "go on with new events as they come", 'f'},
	[OPT_AFTER] = {"since", "ID", "only events with a larger id"},
	[OPT_TAKE_AWAY] = {"force", NULL, "take it away from whoever has it mounted"},
	[OPT_SECRET_FILE] =
		{"secret-file", "FILE",
		 "the host must prove that it has this secret, DHHC-1:...: ('-': standard input)"},
	[OPT_GENERATE_SECRET] = {"generate-secret", NULL,
				 "make a secret for the host, and print it this once"},
	[OPT_CONTROLLER_SECRET_FILE] = {"controller-secret-file", "FILE",
					"and the volume proves to the host that it has this one"},
	[OPT_ALL] = {"all", NULL, "the whole list, also one that cannot be read"},
	[OPT_TLS_KEY_FILE] =
		{"tls-key-file", "FILE",
		 "the host has to come through TLS with this key, NVMeTLSkey-1:...: ('-': standard input)"},
	[OPT_GENERATE_TLS_KEY] = {"generate-tls-key", NULL, "make a key for TLS, and print it this once"},
	[OPT_BY] = {"by", "WAY", "nvme, ublk or nbd; else the first of these that can be done"},
	[OPT_AS] = {"as", "NAME",
		    "the link's name in /dev/oxbow; else VOLUME, or POOL/VOLUME if that is taken"},
	[OPT_OWNER] = {"owner", "NAME", "for whom: it stays until its last owner detaches it [admin]"},
	[OPT_AT] = {"at", "HOST:PORT", "where NVMe over TCP is served, also by a daemon of another host"},
	[OPT_HOST_SECRET_FILE] =
		{"secret-file", "FILE",
		 "the secret this host proves itself with, DHHC-1:...:, in a file that stays"},
	[OPT_VOLUME_SECRET_FILE] = {"controller-secret-file", "FILE",
				    "the secret the volume has to prove itself with"},
	[OPT_STATE_DIR] = {"state-dir", "DIR", "where attachments are on record [/var/lib/oxbow/attach]"},
	[OPT_LINKS] = {"links", "DIR", "where links to devices are made [/dev/oxbow]"},
};

/* clang-format off */
const struct verb verbs[] = {
	{"pool", "create", "PATH --name NAME", "make a pool on a disk, or in a new file of --size",
	 "A disk that holds anything is refused, and what it holds is said; --force overwrites it all the same.",
	 OPT(NAME) | OPT(SIZE) | OPT(FORCE) | OPT(ID), OPT(NAME), 1, 1, pool_create},
	{"pool", "import", "PATH", "take over a disk that holds a pool",
	 "For a known pool that is not open: look for it there, now.", 0, 0, 1, 1, pool_import},
	{"pool", "export", "POOL", "close a pool and forget it, so that the disk can be moved", NULL, 0, 0, 1, 1, pool_export},
	{"pool", "list", "", "list the known pools", NULL, 0, 0, 0, 0, pool_list},
	{"pool", "show", "POOL", "show one pool, and what is wrong with it", NULL, 0, 0, 1, 1, pool_show},
	{"pool", "grow", "POOL", "use the space a disk has gained, or extend a file to --size", NULL, OPT(SIZE), 0, 1, 1, pool_grow},
	{"pool", "check", "POOL", "verify all metadata of an open pool",
	 "Writes are held meanwhile. A pool that no daemon has open is checked by oxbowd itself, see oxbowd(8).", 0, 0, 1, 1, pool_check},

	{"volume", "create", "NAME --size SIZE", "create a volume", NULL,
	 OPT(SIZE) | OPT(POOL) | OPT(COPIES) | OPT(BLOCK_SIZE) | OPT(ID), OPT(SIZE), 1, 1, volume_create},
	{"volume", "list", "", "list the volumes", NULL, OPT(POOL), 0, 0, 0, volume_list},
	{"volume", "show", "VOLUME", "show one volume, and how to connect to it", NULL, 0, 0, 1, 1, volume_show},
	{"volume", "delete", "VOLUME", "delete a volume and its snapshots",
	 "Clones of its snapshots stay. The space comes back in the background.", OPT(YES) | OPT(WAIT), 0, 1, 1, volume_delete},
	{"volume", "grow", "VOLUME --size SIZE", "make a volume larger", NULL, OPT(SIZE), OPT(SIZE), 1, 1, volume_grow},
	{"volume", "rename", "VOLUME NEW", "give a volume another name", NULL, 0, 0, 2, 2, volume_rename},
	{"volume", "clone", "VOLUME@SNAPSHOT NEW", "make a volume from a snapshot, at once", NULL,
	 OPT(FULL) | OPT(SIZE) | OPT(ID) | OPT(WAIT), 0, 2, 2, volume_clone},
	{"volume", "flatten", "VOLUME", "make a clone independent of its origin", NULL, OPT(CANCEL) | OPT(WAIT), 0, 1, 1, volume_flatten},
	{"volume", "revert", "VOLUME@SNAPSHOT", "throw away what was written since a snapshot",
	 "Newer snapshots stay.", OPT(YES) | OPT(ID), 0, 1, 1, volume_revert},
	{"volume", "allow", "VOLUME HOSTNQN", "let a host connect over NVMe, and none that is not allowed",
	 "Without a secret or a key for TLS it is a matter of names, which anybody can say. Again, it replaces the host's secrets and key.",
	 OPT(SECRET_FILE) | OPT(GENERATE_SECRET) | OPT(CONTROLLER_SECRET_FILE) | OPT(TLS_KEY_FILE) | OPT(GENERATE_TLS_KEY), 0, 2, 2,
	 volume_allow},
	{"volume", "disallow", "VOLUME HOSTNQN", "take a host off that list, and disconnect it",
	 "Without a list anybody who reaches the listener may connect; so the last host, or the list (--all), is only taken off when told twice.",
	 OPT(YES) | OPT(ALL), 0, 1, 2, volume_disallow},
	{"volume", "unreserve", "VOLUME", "take away a volume's NVMe reservation and all registrations",
	 "Also what cannot be read and keeps every host out. Whoever relied on it to fence another is not protected any more.",
	 OPT(YES), 0, 1, 1, volume_unreserve},
	{"volume", "extents", "VOLUME", "list what is allocated, also of VOLUME@SNAPSHOT", NULL, OPT(SINCE), 0, 1, 1, volume_extents},

	{"volume", "move", "VOLUME --to NODE", "let another node serve a mirrored volume",
	 "For a node that is lost, or is to be left alone. Its engine ends, if it lives; clients go to the other node.", OPT(TO), OPT(TO), 1, 1,
	 volume_move},

	{"volume", "salvage", "VOLUME --pool POOL", "go on with one copy of a mirrored volume, when those it waits for never return",
	 "What they have and that copy has not is lost. They have to be off for good: they are not fenced. Should one return all the same, it is compared whole and "
	 "made equal.", OPT(POOL) | OPT(ACCEPT_LOSS), OPT(POOL), 1, 1, volume_salvage},

	{"volume", "scrub", "VOLUME", "compare the copies of a mirrored volume, and repair what more than half agree on",
	 "In the background; where nobody knows who is right it is said and left. --cancel stops it.", OPT(CANCEL), 0, 1, 1, volume_scrub},

	{"copy", "add", "VOLUME POOL", "give a mirrored volume one copy more, filled in the background", NULL, 0, 0, 2, 2, copy_add},
	{"copy", "forget", "VOLUME POOL", "give up one copy of a mirrored volume",
	 "Its space is freed when its pool is there. The last copy that is up to date is not given up.", OPT(YES), 0, 2, 2, copy_forget},

	{"node", "list", "", "list the nodes that share this one's metastore", NULL, 0, 0, 0, 0, node_list},

	{"snapshot", "create", "VOLUME NAME", "take a snapshot", NULL, OPT(ID), 0, 1, 2, snapshot_create},
	{"snapshot", "list", "[VOLUME]", "list the snapshots", NULL, 0, 0, 0, 1, snapshot_list},
	{"snapshot", "show", "VOLUME@SNAPSHOT", "show one snapshot", NULL, 0, 0, 1, 1, snapshot_show},
	{"snapshot", "delete", "VOLUME@SNAPSHOT", "delete a snapshot; its layer is merged in the background", NULL,
	 OPT(WAIT), 0, 1, 1, snapshot_delete},
	{"snapshot", "rename", "VOLUME@SNAPSHOT NEW", "give a snapshot another name", NULL, 0, 0, 2, 2, snapshot_rename},
	{"snapshot", "usage", "VOLUME@SNAPSHOT", "count what a snapshot uses, alone and shared", NULL, 0, 0, 1, 1, snapshot_usage},

	{"nvme", "list", "[VOLUME]", "list the hosts that are connected over NVMe", NULL, 0, 0, 0, 1, nvme_list},

	{"ublk", "attach", "VOLUME", "make a volume, or VOLUME@SNAPSHOT, a block device of this host",
	 "It stays one, over kills, restarts and reboots, until it is detached; while the daemon is away its users wait.",
	 0, 0, 1, 1, ublk_attach},
	{"ublk", "detach", "VOLUME", "take the block device of a volume away; also by /dev/ublkbN", NULL,
	 OPT(TAKE_AWAY), 0, 1, 1, ublk_detach},
	{"ublk", "list", "", "list what is attached", NULL, 0, 0, 0, 0, ublk_list},

	{"attach", NULL, "VOLUME", "make a volume a block device of this host, and print its path",
	 "This host is the one the command runs on, as root. Also of VOLUME@SNAPSHOT. Done again it is the same device; it stays\n"
	 "until 'oxbow detach'. With --at the volume may be served by another host, and is then named by its uuid.",
	 OPT(BY) | OPT(AS) | OPT(OWNER) | OPT(AT) | OPT(HOST_SECRET_FILE) | OPT(VOLUME_SECRET_FILE) | OPT(STATE_DIR) | OPT(LINKS),
	 0, 1, 1, attach_run},
	{"detach", NULL, "VOLUME", "take the block device of a volume away; also by its link, device or uuid",
	 "Refused while somebody has it open, and then it says who. What is not attached is detached already.",
	 OPT(TAKE_AWAY) | OPT(OWNER) | OPT(STATE_DIR) | OPT(LINKS), 0, 1, 1, detach_run},
	{"attachment", "list", "", "list what is attached to this host", NULL, OPT(STATE_DIR) | OPT(LINKS), 0, 0, 0,
	 attachment_list},
	{"attachment", "reap", "", "undo what is half done, make again what a reboot took",
	 "And disconnect what nobody owns, unless somebody has it open. Run at boot by oxbow-attach.service.", OPT(STATE_DIR) | OPT(LINKS), 0, 0, 0,
	 attachment_reap},
	{"attachment", "link", "UUID", "print the name of an attached volume's link, for udev's rule", NULL, OPT(STATE_DIR), 0, 1, 1,
	 attachment_link},

	{"job", "list", "", "list the background work", NULL, 0, 0, 0, 0, job_list},
	{"job", "watch", "[ID]", "follow one job, or all, to the end", NULL, 0, 0, 0, 1, job_watch},
	{"job", "cancel", "ID", "cancel a job that can be", NULL, 0, 0, 1, 1, job_cancel},
	{"job", "throttle", "RATE", "limit background copying to RATE bytes a second (100M; 'none')", NULL, 0, 0, 1, 1, job_throttle},

	{"events", NULL, "", "print what happened, oldest first",
	 "The daemon keeps the last 10,000. With -o json, an event a line.", OPT(FOLLOW) | OPT(AFTER), 0, 0, 0, events_run},
	{"status", NULL, "", "print the daemon's and the pools' state", NULL, 0, 0, 0, 0, status_run},
	{"ready", NULL, "", "tell whether every known pool is serving, and why not", NULL, OPT(WAIT_S), 0, 0, 0, ready_run},
	{"version", NULL, "", "print the command's and the daemon's version", NULL, 0, 0, 0, 0, version_run},
	{"generate", NULL, "man|bash", "print the man page or the bash completion made from this table", NULL, 0, 0, 1, 1, generate_run},
};
/* clang-format on */

const size_t verb_count = ARRAY_COUNT(verbs);
