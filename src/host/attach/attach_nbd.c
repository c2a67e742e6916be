/*
 * attach_nbd.c: for kernels that have neither NVMe/TCP nor ublk: nbdfuse (of libnbd) shows the volume as a file under
 * STATE/mnt-UUID, and a loop device the file as a disk.
 *
 * It is the poor way: when the daemon is killed nbdfuse loses its connection, and the disk fails whatever it is asked; a size that
 * grows is not seen; every request passes four programs. The loop device carries the volume's id and a word for the state
 * directory in its label, so it is known as ours whoever made it, and the mount and the process by the directory.
 */
#include "host/attach/attach_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 15000
#define END_TIMEOUT_MS	 10000
#define LABEL_PREFIX	 "oxbow:"
#define LOOP_TRIES	 16 /* somebody else may take the free device first */

/* ---- what there is --------------------------------------------------------------------------------------------------- */

static bool program_is_there(const char *name)
{
	char path[ATTACH_PATH_SIZE];
	const char *from_env = getenv("PATH");
	char *all = mem_strdup(from_env ? from_env : "/usr/sbin:/usr/bin:/sbin:/bin"), *rest = all,
	     *directory;
	bool is_there = false;
	while (!is_there && (directory = strsep(&rest, ":"))) {
		path_format(path, "%s/%s", directory, name);
		is_there = access(path, X_OK) == 0;
	}
	free(all);
	return is_there;
}

int attach_nbd_probe(struct attach *a)
{
	if (access("/dev/fuse", F_OK) != 0)
		return attach_why(a, OXE_UNSUPPORTED, "modprobe fuse", "this kernel has no FUSE (/dev/fuse)");
	if (access("/dev/loop-control", F_OK) != 0)
		return attach_why(a, OXE_UNSUPPORTED, "modprobe loop",
				  "this kernel has no loop devices (/dev/loop-control)");
	if (!program_is_there("nbdfuse"))
		return attach_why(a, OXE_UNSUPPORTED, "it is in Debian's package libnbd-bin",
				  "nbdfuse is not installed");
	return 0;
}

static void mountpoint_of(const struct attach *a, const struct uuid *id, char path[ATTACH_PATH_SIZE])
{
	char name[UUID_TEXT_LEN + 1];
	path_format(path, "%s/mnt-%s", a->state_dir, uuid_format(id, name));
}

/* ---- the loop device ------------------------------------------------------------------------------------------------- */

/* FNV-1a: says which state directory, in the few bytes a label has. */
static uint64_t word_of(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325u;
	for (const char *p = text; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
	return hash;
}

static void label_of(const struct attach *a, const struct uuid *id, char label[LO_NAME_SIZE])
{
	char name[UUID_TEXT_LEN + 1];
	snprintf(label, LO_NAME_SIZE, LABEL_PREFIX "%s:%016llx", uuid_format(id, name),
		 (unsigned long long)word_of(a->state_dir));
}

/* Whose it is, by its label. False: not of this state directory. */
static bool label_read(const struct attach *a, const char *device, struct uuid *id)
{
	char label[LO_NAME_SIZE], name[UUID_TEXT_LEN + 1];
	struct loop_info64 info = {0};
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	bool has = fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0;
	if (fd >= 0)
		close(fd);
	snprintf(name, sizeof(name), "%.36s", (const char *)info.lo_file_name + strlen(LABEL_PREFIX));
	if (!has || uuid_parse(name, id))
		return false;
	label_of(a, id, label);
	return strncmp((const char *)info.lo_file_name, label, LO_NAME_SIZE) == 0;
}

/* The loop devices that are ours. Only those whose file is called as ours is are opened: nobody else's notices. */
static void loops_walk(const struct attach *a,
		       void (*fn)(void *ctx, const struct uuid *id, const char *device), void *ctx)
{
	char path[ATTACH_PATH_SIZE], file[ATTACH_PATH_SIZE], device[ATTACH_NAME_SIZE];
	struct dirent *e;
	struct uuid id;
	path_format(path, "%s/block", a->sys);
	DIR *dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (strncmp(e->d_name, "loop", 4) != 0)
			continue;
		path_format(path, "%s/block/%s/loop/backing_file", a->sys, e->d_name);
		if (text_read(path, file, sizeof(file)) != 0 || !strstr(file, "/nbd"))
			continue;
		snprintf(device, sizeof(device), "%s/%.32s", a->dev, e->d_name);
		if (label_read(a, device, &id))
			fn(ctx, &id, device);
	}
	if (dir)
		closedir(dir);
}

struct loop_search {
	const struct uuid *id;
	char *device;
};

static void loop_compare(void *ctx, const struct uuid *id, const char *device)
{
	struct loop_search *s = ctx;
	if (uuid_equal(id, s->id))
		snprintf(s->device, ATTACH_NAME_SIZE, "%s", device);
}

static bool loop_find(const struct attach *a, const struct uuid *id, char device[ATTACH_NAME_SIZE])
{
	struct loop_search s = {id, device};
	device[0] = '\0';
	loops_walk(a, loop_compare, &s);
	return *device;
}

static int loop_configure(const struct attach *a, const struct attach_record *r, int control, int file,
			  char device[ATTACH_NAME_SIZE])
{
	struct loop_config config = {.fd = (uint32_t)file, .block_size = r->block_size_bytes};
	char label[LO_NAME_SIZE];
	int number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		return errno;
	label_of(a, &r->id, label);
	memcpy(config.info.lo_file_name, label, sizeof(label));
	config.info.lo_flags = r->read_only ? LO_FLAGS_READ_ONLY : 0;
	snprintf(device, ATTACH_NAME_SIZE, "%s/loop%d", a->dev, number);
	int fd = open(device, (r->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int failed = ioctl(fd, LOOP_CONFIGURE, &config) == 0 ? 0 : errno;
	close(fd);
	return failed;
}

static int loop_make(struct attach *a, struct attach_record *r, const char *file_path)
{
	char device[ATTACH_NAME_SIZE];
	int failed = EBUSY, control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(file_path, (r->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (control < 0 || file < 0)
		failed = errno;
	for (unsigned i = 0; i < LOOP_TRIES && failed == EBUSY && control >= 0 && file >= 0; i++)
		failed = loop_configure(a, r, control, file, device);
	if (file >= 0)
		close(file);
	if (control >= 0)
		close(control);
	if (failed)
		return attach_why(a, err_from_errno(failed),
				  failed == EACCES || failed == EPERM ? "run it as root" : "",
				  "no loop device for %s: %s", r->volume, strerror(failed));
	snprintf(r->device, sizeof(r->device), "%s", device);
	return 0;
}

struct id_call {
	void (*fn)(void *ctx, const struct uuid *id);
	void *ctx;
};

static void id_pass(void *ctx, const struct uuid *id, const char *device)
{
	const struct id_call *call = ctx;
	(void)device;
	call->fn(call->ctx, id);
}

void nbd_walk(struct attach *a, void (*fn)(void *ctx, const struct uuid *id), void *ctx)
{
	struct id_call call = {fn, ctx};
	loops_walk(a, id_pass, &call);
}

bool nbd_is_there(const struct attach *a, const struct uuid *id)
{
	char path[ATTACH_PATH_SIZE], device[ATTACH_NAME_SIZE];
	struct stat st;
	mountpoint_of(a, id, path);
	return lstat(path, &st) == 0 || loop_find(a, id, device);
}

/* ---- nbdfuse --------------------------------------------------------------------------------------------------------- */

/* Is one of the arguments of this process the directory, and the process nbdfuse? */
static bool serves(const char *pid, const char *mountpoint)
{
	char path[ATTACH_PATH_SIZE], arguments[4096];
	path_format(path, "/proc/%s/cmdline", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, arguments, sizeof(arguments) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	arguments[n] = '\0';
	const char *slash = strrchr(arguments, '/');
	bool is_nbdfuse = strcmp(slash ? slash + 1 : arguments, "nbdfuse") == 0, has = false;
	for (const char *p = arguments; p < arguments + n; p += strlen(p) + 1)
		has |= strcmp(p, mountpoint) == 0;
	return is_nbdfuse && has;
}

/* How many there are; each is sent `signal_number` unless 0. One whose maker was killed may not have mounted yet. */
static unsigned servers_signal(const char *mountpoint, int signal_number)
{
	struct dirent *e;
	unsigned count = 0;
	DIR *dir = opendir("/proc");
	while (dir && (e = readdir(dir))) {
		if (!isdigit((unsigned char)e->d_name[0]) || !serves(e->d_name, mountpoint))
			continue;
		count++;
		if (signal_number)
			kill(atoi(e->d_name), signal_number);
	}
	if (dir)
		closedir(dir);
	return count;
}

static _Noreturn void child_serve(const struct attach_record *r, const char *mountpoint, const char *log)
{
	int null = open("/dev/null", O_RDWR), out = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0640);
	setsid();
	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	if (chdir("/") == 0 && r->read_only)
		execlp("nbdfuse", "nbdfuse", "-r", mountpoint, r->at, (char *)NULL);
	else
		execlp("nbdfuse", "nbdfuse", mountpoint, r->at, (char *)NULL);
	dprintf(STDERR_FILENO, "cannot run nbdfuse: %m\n");
	_exit(127);
}

static void log_path(const char *mountpoint, char path[ATTACH_PATH_SIZE])
{
	path_format(path, "%s.log", mountpoint);
}

static int serve_failed(struct attach *a, const struct attach_record *r, const char *log)
{
	char text[400];
	if (text_read(log, text, sizeof(text)))
		text[0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return attach_why(a, OXE_FAILED, "", "nbdfuse could not serve %s from %s: %s", r->volume, r->at,
			  text);
}

/* It stays when we end, and ends when its directory is unmounted. */
static int serve(struct attach *a, const struct attach_record *r, const char *mountpoint, const char *file)
{
	char log[ATTACH_PATH_SIZE];
	struct stat st;
	log_path(mountpoint, log);
	if (mkdir(mountpoint, 0700) != 0 && errno != EEXIST)
		return attach_why(a, err_from_errno(errno), "", "cannot make %s: %m", mountpoint);
	pid_t child = fork();
	if (child == 0)
		child_serve(r, mountpoint, log);
	if (child < 0)
		return attach_why(a, err_from_errno(errno), "", "cannot start nbdfuse: %m");
	struct deadline end = deadline_in(START_TIMEOUT_MS);
	while (stat(file, &st) != 0 || !S_ISREG(st.st_mode)) {
		if (waitpid(child, NULL, WNOHANG) == child || !deadline_wait(&end))
			return serve_failed(a, r, log);
	}
	return 0;
}

/* ---- the way --------------------------------------------------------------------------------------------------------- */

static int look(struct attach *a, const struct attach_record *r, struct attach_device *out)
{
	char mountpoint[ATTACH_PATH_SIZE];
	struct stat st;
	mountpoint_of(a, &r->id, mountpoint);
	if (snprintf(out->probe, sizeof(out->probe), "%s/nbd", mountpoint) >= (int)sizeof(out->probe))
		return OXE_NOENT;
	if (!loop_find(a, &r->id, out->path))
		return OXE_NOENT;
	if (stat(out->probe, &st) == 0 && S_ISREG(st.st_mode))
		return 0;
	return attach_why(a, OXE_FAILED, "", "%s has lost its nbdfuse", out->path);
}

/* With others at the device it would be cleared when the last of them has closed it, which is not "now". */
static int loop_clear(struct attach *a, const struct attach_record *r, int claim, bool force)
{
	char device[ATTACH_NAME_SIZE];
	bool is_there = loop_find(a, &r->id, device);
	if (!is_there && claim >= 0)
		close(claim);
	if (!is_there)
		return 0;
	int fd = claim >= 0 ? claim : open(device, O_RDONLY | O_CLOEXEC);
	int failed = fd >= 0 && ioctl(fd, LOOP_CLR_FD) == 0 ? 0 : errno;
	if (fd >= 0)
		close(fd);
	struct deadline end = deadline_in(END_TIMEOUT_MS);
	while (!failed && !force && loop_find(a, &r->id, device)) {
		if (!deadline_wait(&end))
			failed = EBUSY;
	}
	return failed && failed != ENXIO ? attach_why(a, err_from_errno(failed), "",
						      "%s is not let go of: %s", device, strerror(failed))
					 : 0;
}

static int unmount(struct attach *a, const char *mountpoint, bool force)
{
	struct deadline end = deadline_in(END_TIMEOUT_MS);
	while (umount2(mountpoint, force ? MNT_FORCE | MNT_DETACH : UMOUNT_NOFOLLOW) != 0) {
		if (errno == EINVAL || errno == ENOENT)
			return 0;
		if (errno != EBUSY || !deadline_wait(&end))
			return attach_why(a, err_from_errno(errno), "", "cannot unmount %s: %m", mountpoint);
	}
	return 0;
}

static int servers_end(struct attach *a, const char *mountpoint)
{
	struct deadline end = deadline_in(END_TIMEOUT_MS);
	while (servers_signal(mountpoint, SIGTERM)) {
		while (waitpid(-1, NULL, WNOHANG) > 0) /* ours, if this process made it */
			;
		if (!deadline_wait(&end))
			break;
	}
	return servers_signal(mountpoint, SIGKILL)
		       ? attach_why(a, OXE_TIMEOUT, "", "nbdfuse on %s does not end", mountpoint)
		       : 0;
}

static int unmake(struct attach *a, const struct attach_record *r, int claim, bool force)
{
	char mountpoint[ATTACH_PATH_SIZE], log[ATTACH_PATH_SIZE];
	mountpoint_of(a, &r->id, mountpoint);
	log_path(mountpoint, log);
	int err = loop_clear(a, r, claim, force);
	if (!err)
		err = unmount(a, mountpoint, force);
	if (!err)
		err = servers_end(a, mountpoint);
	if (!err) /* one that was just about to mount has */
		err = unmount(a, mountpoint, force);
	if (err)
		return err;
	unlink(log);
	if (rmdir(mountpoint) != 0 && errno != ENOENT)
		return attach_why(a, err_from_errno(errno), "", "cannot remove %s: %m", mountpoint);
	return 0;
}

static int make(struct attach *a, struct attach_record *r)
{
	char mountpoint[ATTACH_PATH_SIZE], file[ATTACH_PATH_SIZE + 8];
	mountpoint_of(a, &r->id, mountpoint);
	snprintf(file, sizeof(file), "%s/nbd", mountpoint);
	int err = unmake(a, r, -1, false); /* the halves of an earlier try */
	if (!err)
		err = serve(a, r, mountpoint, file);
	return err ? err : loop_make(a, r, file);
}

const struct attach_way attach_way_nbd = {.look = look, .make = make, .unmake = unmake};
