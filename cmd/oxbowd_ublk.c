/*
 * oxbowd_ublk.c: what ublk.h needs of this host: the record in the data directory, links in /dev/oxbow, and readiness that
 * waits until every device that was attached serves again.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOLD "ublk"

static struct {
	const struct daemon_options *options;
	struct node *node;
	struct ublk_server *server;
} the;

void ublk_pool_evict(const char *pool_name)
{
	if (the.server)
		ublk_server_evict(the.server, pool_name);
}

void ublk_volume_evict(const struct uuid *volume_id)
{
	if (the.server)
		ublk_server_evict_volume(the.server, volume_id);
}

/* ---- links --------------------------------------------------------------------------------------------------------------- */

struct link_work {
	const char *dir, *name;
	uint32_t number;
	int err;
};

static void parents_make(char *path)
{
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
}

static bool is_ours(const char *path)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	return strncmp(target, "/dev/ublkb", strlen("/dev/ublkb")) == 0;
}

/* In the same directory, POOL's if the name is POOL/VOLUME. No volume's name begins with a dot, so that none is there. */
static void link_beside(const struct link_work *w, char path[PATH_MAX])
{
	const char *slash = strrchr(w->name, '/');
	size_t pool_bytes = slash ? (size_t)(slash + 1 - w->name) : 0;
	snprintf(path, PATH_MAX, "%s/%.*s.%s.tmp", w->dir, (int)pool_bytes, w->name, w->name + pool_bytes);
}

/* Made beside and renamed over, so that it is never missing; only what we made ourselves is replaced or removed. */
static void link_work(void *arg)
{
	struct link_work *w = arg;
	char path[PATH_MAX], tmp[PATH_MAX], device[32];
	struct stat st;
	snprintf(path, sizeof(path), "%s/%s", w->dir, w->name);
	link_beside(w, tmp);
	snprintf(device, sizeof(device), "/dev/ublkb%u", w->number);
	if (lstat(path, &st) == 0 && !is_ours(path)) {
		w->err = OXE_EXISTS;
	} else if (w->number == UBLK_NO_NUMBER) {
		w->err = unlink(path) && errno != ENOENT ? err_from_errno(errno) : 0;
	} else {
		parents_make(path);
		unlink(tmp);
		w->err = symlink(device, tmp) || rename(tmp, path) ? err_from_errno(errno) : 0;
	}
}

static void device_link(void *ctx, const char *name, uint32_t number)
{
	(void)ctx;
	struct link_work w = {.dir = the.options->ublk_links, .name = name, .number = number};
	rt_offload(link_work, &w);
	if (w.err)
		LOG_WARN("ublk.link_failed", "the link to a device could not be changed", F_STR("dir", w.dir),
			 F_STR("name", name), F_ERR(w.err));
}

/* ---- readiness ------------------------------------------------------------------------------------------------------------ */

static bool first_waiting(void *ctx, const struct ublk_info *a)
{
	struct ublk_info *out = ctx;
	if (a->state == UBLK_SERVING || a->state == UBLK_LEAVING)
		return true;
	*out = *a;
	return false;
}

static void hold(const struct ublk_info *a)
{
	char message[480], id[UUID_TEXT_LEN + 1];
	snprintf(message, sizeof(message), "the block device of %s is not served yet%s%s",
		 *a->name ? a->name : uuid_format(&a->id, id), *a->message ? ": " : "", a->message);
	node_hold(the.node, HOLD, "UblkNotServing", message,
		  "it is tried again by itself; 'oxbow ublk detach' gives it up");
}

/* Every device that was attached when we were killed is served again, or given up by a person. */
static void settle_main(void *arg)
{
	(void)arg;
	for (;;) {
		struct ublk_info waiting = {.number = 0};
		ublk_server_walk(the.server, first_waiting, &waiting);
		if (uuid_is_nil(&waiting.id))
			break;
		hold(&waiting);
		ublk_server_change_wait(the.server);
	}
	node_release(the.node, HOLD);
}

void ublk_start(const struct daemon_options *o, struct node *node, struct engines *engines)
{
	struct ublk_options options = {.record_load = files_ublk_load,
				       .record_save = files_ublk_save,
				       .link = device_link,
				       .identity = o->data_dir};
	the.options = o;
	the.node = node;
	node_hold(node, HOLD, "UblkNotServing", "block devices are being looked at", "");
	the.server = ublk_server_new(engines, &options);
	node_ublk_set(node, the.server);
	int err = ublk_server_start(the.server);
	if (!err) {
		fiber_spawn(node_rt(node), "ublk-settle", settle_main, NULL);
		return;
	}
	LOG_ERROR("ublk.record_unreadable", "the record of attached devices cannot be read; none is touched",
		  F_STR("data_dir", o->data_dir), F_ERR(err));
	node_hold(node, HOLD, "UblkRecordUnreadable",
		  "the file ublk in the data directory, the record of attached block devices, cannot be read",
		  "correct it, or remove it if no device of this daemon is in use, and restart");
}
