/* attach.c: what is done in which order, so that a kill between any two steps leaves something that the next one understands. */
#include "host/attach/attach_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 15000
#define UDEV_TIMEOUT_MS	  10000

typedef void (*told_fn)(struct attach *a, const struct attach_record *r, const char *what, int err);

static const struct attach_way *way_of(const struct attach *a, const struct attach_record *r)
{
	return r->by == ATTACH_BY_NVME	? &attach_way_nvme
	       : r->by == ATTACH_BY_NBD ? &attach_way_nbd
					: a->ublk;
}

static int look(struct attach *a, const struct attach_record *r, struct attach_device *out)
{
	const struct attach_way *way = way_of(a, r);
	*out = (struct attach_device){0};
	return way ? way->look(a, r, out) : attach_why(a, OXE_UNSUPPORTED, "", "%s is by ublk", r->volume);
}

/* ---- links ----------------------------------------------------------------------------------------------------------- */

static void link_path(const struct attach *a, const char *link, char path[ATTACH_PATH_SIZE])
{
	path_format(path, "%s/%s", a->links_dir, link);
}

/* Where it is made before it is renamed to its place; no link's name begins with a dot. */
static void link_beside(const struct attach *a, const char *link, char path[ATTACH_PATH_SIZE])
{
	const char *slash = strrchr(link, '/'), *name = slash ? slash + 1 : link;
	path_format(path, "%s/%.*s.%s", a->links_dir, (int)(name - link), link, name);
}

static bool same_device(const char *path, const char *device)
{
	struct stat one, other;
	return stat(path, &one) == 0 && stat(device, &other) == 0 && S_ISBLK(one.st_mode) &&
	       one.st_rdev == other.st_rdev;
}

/* A link of the kind that is made here: another kind of thing is somebody's. */
static bool is_link_to_device(const char *path)
{
	static const char *const kinds[] = {"nvme", "ublkb", "loop"};
	char target[ATTACH_PATH_SIZE];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return false;
	target[n] = '\0';
	const char *name = strrchr(target, '/') ? strrchr(target, '/') + 1 : target;
	for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
		if (strncmp(name, kinds[i], strlen(kinds[i])) == 0)
			return true;
	}
	return false;
}

/* udev has done with the device, and with it with its links, when it has noted it and has nothing else to do: what it has noted
 * may be of an earlier device of the same number. False: it does not run here. */
static bool udev_wait(const struct attach_record *r, const char *link)
{
	char noted[ATTACH_PATH_SIZE];
	struct stat st;
	if (r->by != ATTACH_BY_NVME || access("/run/udev/control", F_OK) != 0 || stat(r->device, &st) != 0)
		return false;
	path_format(noted, "/run/udev/data/b%u:%u", major(st.st_rdev), minor(st.st_rdev));
	struct deadline end = deadline_in(UDEV_TIMEOUT_MS);
	while (!same_device(link, r->device) &&
	       (access(noted, F_OK) != 0 || access("/run/udev/queue", F_OK) == 0) && deadline_wait(&end))
		;
	return true;
}

/* Made beside and renamed over, so that it is never missing. */
static int link_make(struct attach *a, const struct attach_record *r)
{
	char path[ATTACH_PATH_SIZE], beside[ATTACH_PATH_SIZE];
	struct stat st;
	link_path(a, r->link, path);
	bool has_udev = udev_wait(r, path);
	if (same_device(path, r->device))
		return 0;
	if (lstat(path, &st) == 0 && !is_link_to_device(path))
		return attach_why(a, OXE_EXISTS, "--as NAME gives it another one",
				  "%s is there, and no link to a device", path);
	link_beside(a, r->link, beside);
	parents_make(path, 0755);
	unlink(beside);
	if (symlink(r->device, beside) != 0 || rename(beside, path) != 0)
		return attach_why(a, err_from_errno(errno), "", "cannot make the link %s: %m", path);
	if (r->by == ATTACH_BY_NVME)
		attach_note(a, "%s, so %s was made by this command",
			    has_udev ? "udev did not (is 60-oxbow.rules installed?)"
				     : "udev does not run here",
			    path);
	return 0;
}

static void link_remove(struct attach *a, const struct attach_record *r)
{
	char path[ATTACH_PATH_SIZE];
	struct stat st;
	link_beside(a, r->link, path);
	if (is_link_to_device(path))
		unlink(path);
	link_path(a, r->link, path);
	if (is_link_to_device(path) && (stat(path, &st) != 0 || same_device(path, r->device)))
		unlink(path);
	for (char *slash = strrchr(path, '/'); slash && (size_t)(slash - path) > strlen(a->links_dir);
	     slash = strrchr(path, '/')) {
		*slash = '\0';
		if (rmdir(path) != 0)
			break;
	}
}

struct link_search {
	const struct attach_record *mine;
	bool is_taken;
};

static void link_compare(void *ctx, const struct attach_record *r, int err)
{
	struct link_search *s = ctx;
	if (!err && strcmp(r->link, s->mine->link) == 0 && !uuid_equal(&r->id, &s->mine->id))
		s->is_taken = true;
}

/* By another volume's record. */
static bool link_is_taken(struct attach *a, const struct attach_record *r)
{
	struct link_search s = {.mine = r};
	return attach_walk(a, link_compare, &s) == 0 && s.is_taken;
}

/* Is it the volume's own name, or one that was made up for it? */
static bool is_own_name(const struct attach_record *r)
{
	const char *slash = strchr(r->volume, '/');
	return slash && strcmp(slash + 1, r->link) == 0;
}

/* Where the volume's own name is a directory or another volume's, its whole name. */
static int link_choose(struct attach *a, struct attach_record *r)
{
	char path[ATTACH_PATH_SIZE], asked[ATTACH_NAME_SIZE];
	struct stat st;
	memcpy(asked, r->link, sizeof(asked));
	for (unsigned i = 0; i < 2; i++) {
		link_path(a, r->link, path);
		bool is_directory = lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
		if (!is_directory && !link_is_taken(a, r))
			return 0;
		if (!is_own_name(r) || !attach_link_is_sane(r->volume))
			break;
		snprintf(r->link, sizeof(r->link), "%s", r->volume);
	}
	return attach_why(a, OXE_EXISTS, "--as NAME gives it another one", "%s/%s is another volume's",
			  a->links_dir, asked);
}

/* ---- making ---------------------------------------------------------------------------------------------------------- */

/* The device answers, where its users will ask it. */
static int answers(struct attach *a, const struct attach_record *r, const struct attach_device *d)
{
	int fd, err = hold_open(d->probe, O_RDONLY | O_DIRECT, true, ANSWER_TIMEOUT_MS, &fd);
	if (fd >= 0)
		close(fd);
	if (err == OXE_TIMEOUT)
		return attach_why(a, err, "it does once its daemon is back: it is not given up by itself",
				  "%s is %s, which does not answer", r->volume, d->path);
	return err ? attach_why(a, err, "", "%s is %s, which fails: %s", r->volume, d->path, err_text(err))
		   : 0;
}

/* What is there and broken (nbdfuse has lost its daemon) is made anew, if nobody has it open. Then there is none: OXE_NOENT. */
static int broken_remove(struct attach *a, const struct attach_record *r, const struct attach_device *d)
{
	char held[sizeof(a->why)];
	int claim, err = hold_claim(a, d->path, &claim);
	if (err) {
		memcpy(held, a->why, sizeof(held));
		return attach_why(a, err, "unmount it; --force of 'oxbow detach' takes it away as it is",
				  "%s lost its daemon and serves no more; %s", r->volume, held);
	}
	attach_note(a, "%s lost its daemon, and is made anew", d->path);
	err = way_of(a, r)->unmake(a, r, claim, false);
	return err ? err : OXE_NOENT;
}

static int device_ensure(struct attach *a, struct attach_record *r)
{
	struct attach_device d;
	int err = look(a, r, &d);
	if (!err && way_of(a, r)->adopt)
		way_of(a, r)->adopt(a, r);
	if (!err)
		err = answers(a, r, &d);
	/* By the other ways what fails now may come back by itself. */
	if (err && err != OXE_TIMEOUT && *d.path && r->by == ATTACH_BY_NBD)
		err = broken_remove(a, r, &d);
	if (err == OXE_NOENT) {
		err = way_of(a, r)->make(a, r);
		if (!err)
			err = look(a, r, &d);
		if (!err)
			err = answers(a, r, &d);
	}
	if (!err)
		snprintf(r->device, sizeof(r->device), "%s", d.path);
	return err;
}

/* From a record on disk to a device that answers and a link to it. */
static int bring_up(struct attach *a, struct attach_record *r)
{
	int err = device_ensure(a, r);
	if (!err)
		err = link_make(a, r);
	if (err)
		return err;
	r->phase = ATTACH_MADE;
	return state_save(a, r);
}

static int take_down(struct attach *a, struct attach_record *r, bool force)
{
	struct attach_device d;
	int claim = -1, err = look(a, r, &d);
	if (err && err != OXE_NOENT && err != OXE_FAILED)
		return err;
	if (*d.path)
		snprintf(r->device, sizeof(r->device), "%s", d.path);
	err = *d.path ? hold_claim(a, d.path, &claim) : 0;
	if (err && !force)
		return err;
	r->phase = ATTACH_LEAVING;
	err = r->owner_count ? state_save(a, r) : 0; /* without owners: there was no record */
	if (err) {
		if (claim >= 0)
			close(claim);
		return err;
	}
	link_remove(a, r);
	err = way_of(a, r)->unmake(a, r, claim, force);
	return err ? err : state_remove(a, &r->id);
}

/* Nobody was told of it: so it goes, and the first reason stays the reason. */
static void undo(struct attach *a, struct attach_record *r)
{
	char why[sizeof(a->why)], hint[sizeof(a->hint)];
	memcpy(why, a->why, sizeof(why));
	memcpy(hint, a->hint, sizeof(hint));
	if (take_down(a, r, false))
		attach_note(a, "what was begun could not be undone (%s): 'oxbow attachment reap' tries again",
			    a->why);
	memcpy(a->why, why, sizeof(why));
	memcpy(a->hint, hint, sizeof(hint));
}

/* From here on the name of the link is this volume's. */
static int intend(struct attach *a, struct attach_record *r, const char *owner)
{
	int lock, err = state_lock(a, NULL, &lock);
	if (err)
		return err;
	err = link_choose(a, r);
	if (!err && r->by == ATTACH_BY_NVME)
		err = nvme_identity(a, r);
	r->phase = ATTACH_INTENDED;
	r->owner_count = 0;
	if (!err && attach_owner_add(r, owner))
		err = attach_why(a, OXE_TOOBIG, "", "too many owners");
	if (!err)
		err = state_save(a, r);
	close(lock);
	return err;
}

static int make_new(struct attach *a, struct attach_record *r, const char *owner)
{
	int err = intend(a, r, owner);
	if (err)
		return err;
	err = bring_up(a, r);
	if (err)
		undo(a, r);
	return err;
}

/* On record already: what it says counts. */
static int make_again(struct attach *a, struct attach_record *r, const struct attach_record *have,
		      const char *owner, bool any_way)
{
	bool was_made = have->phase == ATTACH_MADE;
	if (!any_way && have->by != r->by)
		return attach_why(a, OXE_EXISTS, "'oxbow detach' first", "%s is attached by %s already",
				  have->volume, attach_by_name(have->by));
	*r = *have;
	if (!way_of(a, r))
		return attach_why(a, OXE_UNSUPPORTED, "", "%s is by ublk", r->volume);
	if (attach_owner_add(r, owner))
		return attach_why(a, OXE_TOOBIG, "'oxbow attachment list' shows them",
				  "%s has %d owners already", r->volume, ATTACH_OWNERS_MAX);
	int err = bring_up(a, r);
	if (err && !was_made)
		undo(a, r);
	return err;
}

/* Of what is half made nobody was told: it is gone on with only where it is what is wanted now. */
static bool is_obsolete(const struct attach_record *have, const struct attach_record *wanted)
{
	return have->phase == ATTACH_LEAVING ||
	       (have->phase == ATTACH_INTENDED &&
		(have->by != wanted->by || strcmp(have->at, wanted->at) != 0));
}

static int make_locked(struct attach *a, struct attach_record *r, const char *owner, bool any_way)
{
	struct attach_record have;
	int err = attach_load(a, &r->id, &have);
	if (!err && is_obsolete(&have, r)) {
		err = take_down(a, &have, false);
		if (!err)
			err = OXE_NOENT;
	}
	if (err == OXE_NOENT)
		return make_new(a, r, owner);
	return err ? err : make_again(a, r, &have, owner, any_way);
}

int attach_make(struct attach *a, struct attach_record *r, const char *owner, bool any_way)
{
	int lock, err = state_lock(a, &r->id, &lock);
	if (err)
		return err;
	err = make_locked(a, r, owner, any_way);
	close(lock);
	return err;
}

/* ---- taking away ----------------------------------------------------------------------------------------------------- */

/* Is there anything of this kind that belongs to the volume? What the daemon has by ublk is on a record of its own. */
static bool is_stray(struct attach *a, const struct attach_record *r)
{
	struct nvme_found f;
	nvme_find(a, &r->id, &f);
	return r->by == ATTACH_BY_NVME ? f.controller_count > 0 : nbd_is_there(a, &r->id);
}

/* On no record, and yet there: connected by hand, or the record was lost; or a record that was never finished. `r` is the last
 * that was looked at. */
static int strays_remove(struct attach *a, const struct uuid *id, bool force, struct attach_record *r,
			 told_fn told)
{
	static const enum attach_by ways[] = {ATTACH_BY_NBD, ATTACH_BY_NVME};
	char name[UUID_TEXT_LEN + 1];
	int err = 0;
	for (size_t i = 0; i < ARRAY_COUNT(ways) && !err; i++) {
		memset(r, 0, sizeof(*r));
		r->id = *id;
		r->by = ways[i];
		snprintf(r->volume, sizeof(r->volume), "%s", uuid_format(id, name));
		if (!is_stray(a, r))
			continue;
		err = take_down(a, r, force);
		if (told)
			told(a, r, "had no owner, and is taken away", err);
	}
	return err ? err : state_remove(a, id);
}

static int remove_locked(struct attach *a, const struct uuid *id, const char *owner, bool force,
			 struct attach_record *r)
{
	int err = attach_load(a, id, r);
	if (err == OXE_NOENT)
		return strays_remove(a, id, force, r, NULL);
	if (err)
		return err;
	struct attach_record left = *r;
	attach_owner_remove(&left, owner);
	if (left.owner_count && r->phase == ATTACH_MADE) {
		*r = left;
		return state_save(a, r);
	}
	err = take_down(a, r, force);
	if (!err)
		r->owner_count = 0;
	return err;
}

int attach_remove(struct attach *a, const struct uuid *id, const char *owner, bool force,
		  struct attach_record *r)
{
	int lock, err = state_lock(a, id, &lock);
	if (err)
		return err;
	err = remove_locked(a, id, owner, force, r);
	close(lock);
	return err;
}

/* ---- reaping --------------------------------------------------------------------------------------------------------- */

struct ids {
	struct uuid *list;
	size_t count;
};

static void id_add(void *ctx, const struct uuid *id)
{
	struct ids *ids = ctx;
	for (size_t i = 0; i < ids->count; i++) {
		if (uuid_equal(&ids->list[i], id))
			return;
	}
	ids->list = mem_realloc(ids->list, (ids->count + 1) * sizeof(*ids->list));
	ids->list[ids->count++] = *id;
}

/* Everything this could be about: records, half-written records, mounts and loop devices of ours, connections to volumes. */
static int ids_collect(struct attach *a, struct ids *ids)
{
	static const char mount_prefix[] = "mnt-";
	DIR *dir = opendir(a->state_dir);
	struct dirent *e;
	struct uuid id;
	if (!dir && errno != ENOENT)
		return attach_why(a, err_from_errno(errno), "run it as root", "cannot read %s: %m",
				  a->state_dir);
	while (dir && (e = readdir(dir))) {
		char name[UUID_TEXT_LEN + 1];
		const char *text = e->d_name;
		text += strncmp(text, mount_prefix, strlen(mount_prefix)) == 0 ? strlen(mount_prefix) : 0;
		snprintf(name, sizeof(name), "%s", text);
		if (uuid_parse(name, &id) == 0)
			id_add(ids, &id);
	}
	if (dir)
		closedir(dir);
	nvme_walk(a, id_add, ids);
	nbd_walk(a, id_add, ids);
	return 0;
}

/* What is in use is left until it is not, and that is as it should be. */
static unsigned is_failure(int err)
{
	return err && err != OXE_BUSY;
}

static unsigned record_reap(struct attach *a, struct attach_record *r, told_fn told)
{
	const char *what =
		r->phase == ATTACH_INTENDED ? "was half made, and is undone" : "was leaving, and is gone";
	struct attach_device d;
	int err;
	if (r->phase != ATTACH_MADE) {
		err = take_down(a, r, false);
		if (err == OXE_BUSY && r->phase == ATTACH_INTENDED && bring_up(a, r) == 0)
			told(a, r, "was half made and is in use, and is finished", 0);
		else
			told(a, r, what, err);
		return is_failure(err);
	}
	int seen = look(a, r, &d);
	if (seen == 0 && strcmp(d.path, r->device) == 0)
		err = link_make(a, r);
	else
		err = bring_up(a, r);
	if (err || seen)
		told(a, r, "was not there any more, and is made again", err);
	return is_failure(err);
}

static unsigned reap_one(struct attach *a, const struct uuid *id, told_fn told)
{
	struct attach_record r = {.id = *id};
	int lock, err = state_lock(a, id, &lock);
	unsigned left = 1;
	if (err) {
		told(a, &r, "", err);
		return 1;
	}
	err = attach_load(a, id, &r);
	if (err == OXE_NOENT)
		left = is_failure(strays_remove(a, id, false, &r, told));
	else if (err)
		told(a, &r, "", err);
	else
		left = record_reap(a, &r, told);
	close(lock);
	return left;
}

int attach_reap(struct attach *a, told_fn told)
{
	struct ids ids = {0};
	unsigned left = 0;
	int err = ids_collect(a, &ids);
	for (size_t i = 0; i < ids.count && !err; i++)
		left += reap_one(a, &ids.list[i], told);
	free(ids.list);
	return err ? err : (int)left;
}

/* ---- telling --------------------------------------------------------------------------------------------------------- */

const char *attach_state(struct attach *a, const struct attach_record *r)
{
	struct attach_device d;
	if (r->phase != ATTACH_MADE)
		return r->phase == ATTACH_INTENDED ? "half made" : "leaving";
	return way_of(a, r) && look(a, r, &d) == 0 ? "attached" : "gone";
}
