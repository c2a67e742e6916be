/*
 * attach_hold.c: who has a device open. A claim (O_EXCL) is what decides: the kernel refuses it while the device or a partition of
 * it is mounted in any namespace, swapped to, or part of another device, and while we have it nobody else can do so. Processes
 * that merely have it open are found in /proc, which is also where the names come from that a person wants to read.
 *
 * Opening a device may wait for its server, without end and deaf to signals, so a child does it and hands the descriptor over. A
 * child that stays behind holds nothing of ours.
 */
#include "host/attach/attach_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPEN_TIMEOUT_MS 5000
#define LOOK_TIMEOUT_MS 3000 /* for those who only look at a new disk: udev, blkid */
#define PROBE_BYTES	4096
#define DEVICES_MAX	256
#define NAMED_MAX	4 /* who is named of those who hold a device */

/* ---- opening in a child ---------------------------------------------------------------------------------------------- */

static int fd_send(int socket, int fd, int result)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {&result, sizeof(result)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	return sendmsg(socket, &msg, MSG_NOSIGNAL) == sizeof(result) ? 0 : OXE_SYS;
}

/* The child's word, and the descriptor that came along, or -1. */
static int fd_receive(int socket, int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	int result = OXE_SYS;
	struct iovec iov = {&result, sizeof(result)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	*fd = -1;
	if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != sizeof(result))
		return OXE_SYS;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return result;
}

static _Noreturn void child_open(const char *path, int flags, bool reads, int socket)
{
	if (socket != 3)
		dup2(socket, 3);
	close_range(4, ~0U, 0); /* the lock above all */
	int fd = open(path, flags | O_CLOEXEC), result = fd < 0 ? err_from_errno(errno) : 0;
	void *page = NULL;
	if (!result && reads && posix_memalign(&page, PROBE_BYTES, PROBE_BYTES) == 0 &&
	    pread(fd, page, PROBE_BYTES, 0) < 0)
		result = err_from_errno(errno);
	_exit(fd_send(3, result ? -1 : fd, result) == 0 ? 0 : 1);
}

int hold_open(const char *path, int flags, bool reads, unsigned timeout_ms, int *fd)
{
	int pair[2], err = OXE_TIMEOUT;
	*fd = -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return err_from_errno(errno);
	pid_t child = fork();
	if (child == 0)
		child_open(path, flags, reads, pair[1]);
	close(pair[1]);
	struct pollfd p = {.fd = pair[0], .events = POLLIN};
	if (child < 0)
		err = err_from_errno(errno);
	else if (poll(&p, 1, (int)timeout_ms) == 1)
		err = fd_receive(pair[0], fd);
	close(pair[0]);
	if (child > 0 && err == OXE_TIMEOUT)
		kill(child, SIGKILL); /* it ends when the device answers, or is gone */
	else if (child > 0)
		waitpid(child, NULL, 0);
	return err;
}

/* ---- naming names ---------------------------------------------------------------------------------------------------- */

struct search {
	dev_t devices[DEVICES_MAX]; /* the disk and its partitions */
	unsigned device_count, found, processes;
	struct text who;
};

static bool is_searched(const struct search *s, dev_t device)
{
	for (unsigned i = 0; i < s->device_count; i++) {
		if (s->devices[i] == device)
			return true;
	}
	return false;
}

static bool is_searched_path(const struct search *s, const char *path)
{
	struct stat st;
	return *path == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode) && is_searched(s, st.st_rdev);
}

static void found(struct search *s, const char *how, const char *name)
{
	if (s->found++ < NAMED_MAX)
		text_printf(&s->who, "%s%s %s", s->who.len_bytes ? ", " : "", how, name);
}

static void device_add(struct search *s, const char *directory)
{
	char path[ATTACH_PATH_SIZE], text[32];
	unsigned major_number, minor_number;
	path_format(path, "%s/dev", directory);
	if (s->device_count < DEVICES_MAX && text_read(path, text, sizeof(text)) == 0 &&
	    sscanf(text, "%u:%u", &major_number, &minor_number) == 2)
		s->devices[s->device_count++] = makedev(major_number, minor_number);
}

/* Its own number, its partitions', and the devices made of it. */
static void devices_add(struct attach *a, struct search *s, const char *device)
{
	char path[ATTACH_PATH_SIZE], inside[ATTACH_PATH_SIZE];
	const char *name = strrchr(device, '/') + 1;
	struct dirent *e;
	path_format(path, "%s/class/block/%s", a->sys, name);
	device_add(s, path);
	DIR *dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (strncmp(e->d_name, name, strlen(name)) != 0)
			continue;
		path_format(inside, "%s/%s", path, e->d_name);
		device_add(s, inside);
	}
	if (dir)
		closedir(dir);
	path_format(inside, "%s/holders", path);
	dir = opendir(inside);
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.')
			found(s, "part of", e->d_name);
	}
	if (dir)
		closedir(dir);
}

/* "36 35 98:0 /root /mountpoint options - ext4 /dev/source ..." */
static void mount_look(struct search *s, char *line)
{
	char *words[5] = {0}, *rest = line, *source = strstr(line, " - ");
	unsigned major_number, minor_number;
	for (unsigned i = 0; i < ARRAY_COUNT(words); i++)
		words[i] = strsep(&rest, " ");
	if (!words[4] || !source || sscanf(words[2], "%u:%u", &major_number, &minor_number) != 2)
		return;
	strsep(&source, " "), strsep(&source, " "), strsep(&source, " "); /* "", "-", the type */
	char *path = source ? strsep(&source, " ") : NULL;
	if (is_searched(s, makedev(major_number, minor_number)) || (path && is_searched_path(s, path)))
		found(s, "mounted at", words[4]);
}

static void lines_look(struct search *s, const char *path, void (*look)(struct search *s, char *line))
{
	char *line = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "re");
	while (file && getline(&line, &size, file) > 0) {
		line[strcspn(line, "\n")] = '\0';
		look(s, line);
	}
	if (file)
		fclose(file);
	free(line);
}

static void swap_look(struct search *s, char *line)
{
	char *path = strsep(&line, " \t");
	if (is_searched_path(s, path))
		found(s, "swapped to as", path);
}

/* A process that has one of them open, but for ourselves. */
static void process_look(struct search *s, const char *pid)
{
	char path[ATTACH_PATH_SIZE], inside[ATTACH_PATH_SIZE], name[64];
	struct stat st;
	struct dirent *e;
	bool has = false;
	path_format(path, "/proc/%s/fd", pid);
	DIR *dir = opendir(path);
	while (dir && !has && (e = readdir(dir))) {
		path_format(inside, "%s/%s", path, e->d_name);
		has = stat(inside, &st) == 0 && S_ISBLK(st.st_mode) && is_searched(s, st.st_rdev);
	}
	if (dir)
		closedir(dir);
	if (!has)
		return;
	path_format(path, "/proc/%s/comm", pid);
	if (text_read(path, name, sizeof(name)))
		name[0] = '\0';
	snprintf(inside, sizeof(inside), "process %s (%s)", pid, name);
	s->processes++;
	found(s, "open by", inside);
}

static void processes_look(struct search *s)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	while (dir && (e = readdir(dir))) {
		if (isdigit((unsigned char)e->d_name[0]) && atoi(e->d_name) != getpid())
			process_look(s, e->d_name);
	}
	if (dir)
		closedir(dir);
}

static void search_run(struct attach *a, struct search *s, const char *device)
{
	text_free(&s->who);
	s->device_count = s->found = s->processes = 0;
	devices_add(a, s, device);
	lines_look(s, "/proc/self/mountinfo", mount_look);
	lines_look(s, "/proc/swaps", swap_look);
	processes_look(s);
	if (s->found > NAMED_MAX)
		text_printf(&s->who, " and %u more", s->found - NAMED_MAX);
}

/* ---- claiming -------------------------------------------------------------------------------------------------------- */

int hold_claim(struct attach *a, const char *device, int *claim)
{
	static const char hint[] =
		"end that first; --force takes it away, and what was not written back is lost";
	struct search s = {0};
	int err = hold_open(device, O_RDONLY | O_EXCL, false, OPEN_TIMEOUT_MS, claim);
	if (err == OXE_TIMEOUT)
		return attach_why(a, err, "it does once its daemon is back; --force gives it up",
				  "%s does not answer", device);
	if (err && err != OXE_BUSY)
		return attach_why(a, err, "", "cannot open %s: %s", device, err_text(err));
	struct deadline end = deadline_in(LOOK_TIMEOUT_MS);
	do {
		search_run(a, &s, device);
	} while (!err && s.found && s.found == s.processes && deadline_wait(&end));
	if (err || s.found)
		err = attach_why(a, OXE_BUSY, hint, "%s is in use: %s", device,
				 s.found ? text_get(&s.who) : "by a mount elsewhere or another device");
	if (err && *claim >= 0) {
		close(*claim);
		*claim = -1;
	}
	text_free(&s.who);
	return err;
}
