/* host_text.c: see host_text.h. */
#include "host/host_text.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int text_write(int fd, const char *text)
{
	size_t len = strlen(text), done = 0;
	while (done < len) {
		ssize_t n = write(fd, text + done, len - done);
		if (n < 0 && errno != EINTR)
			return err_from_errno(errno);
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) == 0 ? 0 : err_from_errno(errno);
}

int host_directory_sync(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || fsync(fd) != 0 ? err_from_errno(errno) : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

int host_text_replace(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX], beside[PATH_MAX];
	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= PATH_MAX ||
	    snprintf(beside, sizeof(beside), "%s.new", path) >= PATH_MAX)
		return OXE_INVAL;
	int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	int err = fd < 0 ? err_from_errno(errno) : text_write(fd, text);
	if (fd >= 0)
		close(fd);
	if (!err && rename(beside, path) != 0)
		err = err_from_errno(errno);
	return err ? err : host_directory_sync(dir);
}
