/*
 * attach_state.c: the state directory: a file an attachment, named by the volume's id, and one lock file. A file is replaced whole:
 * written beside, made durable, renamed, and the directory made durable. The lock is a byte of the lock file for each volume,
 * of an open file description: it is free when every process that has it is gone, and no file is left of it.
 */
#include "host/attach/attach_impl.h"
#include "host/host_text.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_STEP_NS (10 * NS_PER_MS)

/* ---- words ----------------------------------------------------------------------------------------------------------- */

int attach_why(struct attach *a, int err, const char *hint, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(a->why, sizeof(a->why), format, args);
	va_end(args);
	snprintf(a->hint, sizeof(a->hint), "%s", hint);
	return err;
}

void attach_note(struct attach *a, const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (a->note)
		a->note(a, text);
}

void path_format(char path[ATTACH_PATH_SIZE], const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int len = vsnprintf(path, ATTACH_PATH_SIZE, format, args);
	va_end(args);
	if (len < 0 || len >= ATTACH_PATH_SIZE) /* names no file, rather than another one */
		path[0] = '\0';
}

/* ---- time ------------------------------------------------------------------------------------------------------------ */

static uint64_t clock_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct deadline deadline_in(unsigned timeout_ms)
{
	return (struct deadline){clock_ns() + timeout_ms * NS_PER_MS};
}

bool deadline_wait(const struct deadline *d)
{
	const struct timespec step = {.tv_nsec = WAIT_STEP_NS};
	if (clock_ns() >= d->at_ns)
		return false;
	nanosleep(&step, NULL);
	return true;
}

/* ---- files ----------------------------------------------------------------------------------------------------------- */

void parents_make(const char *path, mode_t mode)
{
	char *part = mem_strdup(path);
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(part, mode);
		*p = '/';
	}
	free(part);
}

static ssize_t bytes_read(int fd, char *out, size_t size)
{
	size_t used = 0;
	ssize_t n = 1;
	while (used < size && (n = read(fd, out + used, size - used)) > 0)
		used += (size_t)n;
	return n < 0 ? n : (ssize_t)used;
}

int text_read(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	out[0] = '\0';
	if (fd < 0)
		return err_from_errno(errno);
	ssize_t n = bytes_read(fd, out, size - 1);
	int err = n < 0 ? err_from_errno(errno) : 0;
	close(fd);
	out[n > 0 ? n : 0] = '\0';
	if (n > 0 && out[n - 1] == '\n')
		out[n - 1] = '\0';
	return err;
}

int state_text_save(struct attach *a, const char *name, const char *text)
{
	int err = host_text_replace(a->state_dir, name, text);
	return err ? attach_why(a, err, "", "cannot write %s/%s: %s", a->state_dir, name, err_text(err)) : 0;
}

/* ---- records --------------------------------------------------------------------------------------------------------- */

int state_save(struct attach *a, const struct attach_record *r)
{
	char id[UUID_TEXT_LEN + 1];
	struct text text = {0};
	attach_record_print(r, &text);
	int err = state_text_save(a, uuid_format(&r->id, id), text_get(&text));
	text_free(&text);
	return err;
}

int state_remove(struct attach *a, const struct uuid *id)
{
	char path[ATTACH_PATH_SIZE], name[UUID_TEXT_LEN + 1];
	path_format(path, "%s/%s.new", a->state_dir, uuid_format(id, name));
	unlink(path);
	path_format(path, "%s/%s", a->state_dir, name);
	if (unlink(path) != 0 && errno != ENOENT)
		return attach_why(a, err_from_errno(errno), "", "cannot remove %s: %m", path);
	return host_directory_sync(a->state_dir);
}

int attach_load(struct attach *a, const struct uuid *id, struct attach_record *out)
{
	char path[ATTACH_PATH_SIZE], name[UUID_TEXT_LEN + 1], text[ATTACH_RECORD_MAX + 1];
	memset(out, 0, sizeof(*out));
	path_format(path, "%s/%s", a->state_dir, uuid_format(id, name));
	int err = text_read(path, text, sizeof(text));
	if (err)
		return attach_why(a, err, "", "%s: %s", path, err_text(err));
	size_t len = strlen(text);
	if (len < ATTACH_RECORD_MAX) /* text_read took the last newline, which belongs to the form */
		memcpy(text + len, "\n", 2);
	err = attach_record_parse(text, out);
	if (!err && !uuid_equal(&out->id, id))
		err = OXE_CORRUPT;
	if (!err)
		return 0;
	memset(out, 0, sizeof(*out));
	out->id = *id;
	return attach_why(a, err, "correct it, or remove it if nothing of this volume is in use on this host",
			  "%s is no record of an attachment: %s", path, err_text(err));
}

int attach_walk(struct attach *a, void (*fn)(void *ctx, const struct attach_record *r, int err), void *ctx)
{
	DIR *dir = opendir(a->state_dir);
	struct dirent *e;
	if (!dir)
		return errno == ENOENT ? 0
				       : attach_why(a, err_from_errno(errno), "run it as root",
						    "cannot read %s: %m", a->state_dir);
	while ((e = readdir(dir))) {
		struct uuid id;
		struct attach_record r;
		if (uuid_parse(e->d_name, &id))
			continue;
		int err = attach_load(a, &id, &r);
		if (err != OXE_NOENT) /* just gone */
			fn(ctx, &r, err);
	}
	closedir(dir);
	return 0;
}

/* ---- the lock -------------------------------------------------------------------------------------------------------- */

static struct flock lock_of(const struct uuid *id)
{
	uint64_t place = 0;
	if (id) {
		memcpy(&place, id->b, sizeof(place));
		place = 1 + (place & INT32_MAX);
	}
	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)place, .l_len = 1};
}

int state_lock(struct attach *a, const struct uuid *id, int *lock)
{
	char path[ATTACH_PATH_SIZE];
	struct flock want = lock_of(id);
	path_format(path, "%s/lock", a->state_dir);
	parents_make(path, 0750);
	*lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (*lock < 0)
		return attach_why(a, err_from_errno(errno), "run it as root, or choose another --state-dir",
				  "cannot open %s: %m", path);
	if (fcntl(*lock, F_OFD_SETLK, &want) == 0)
		return 0;
	if (id)
		attach_note(a, "waiting for another process that is at work on this volume");
	while (fcntl(*lock, F_OFD_SETLKW, &want) != 0) {
		if (errno == EINTR)
			continue;
		close(*lock);
		return attach_why(a, OXE_SYS, "", "cannot lock %s: %m", path);
	}
	return 0;
}
