/*
 * host_disk.c: regular files and block devices, direct I/O through the ring.
 *
 * A file is held by flock(): exclusive, or shared by readers; a block device by O_EXCL, which mount, LVM and RAID honour too.
 * Opening and growing block, so they run on a worker. A new file appears whole or not at all: it is made without a name,
 * sized, synced, and then linked into place.
 *
 * Holding promises more than that nobody else opens the disk: whoever holds it may rely on nothing that a dead process wrote
 * arriving any more. The ring outlives a killed process. A kernel thread takes it apart, which costs 20 to 80 ms, and then
 * hands the files it held to another, the only one of its kind, which lets go of them one by one; deleting somebody's large
 * file there took 29 s, for which every lock behind it waited (Linux 6.18, ext4 with discard). So where it can be, the lock is
 * on a descriptor of its own that no ring knows, which is gone with the process. That is early: a write may still be under
 * way. But no new one can begin, and the ones under way can be waited for:
 *
 *   - The lock goes when the last thread of the process has given up its files. The kernel's own threads that do what a ring
 *     could not do at once (io-wq) count among them: these do the discards. So nobody is inside a system call or will enter one.
 *   - What the ring still knew of is not begun any more: the kernel thread cancels it (io_should_terminate_tw(), and
 *     io_queue_iowq() refuses in a kernel thread). What is left are direct writes that the file system had accepted.
 *   - ext4 and XFS count those in the inode, and fallocate() waits until the count is 0, before it looks at what is asked.
 *     (truncate() to the same size does not wait on ext4, and fsync() promises nothing about direct I/O.) It is called on
 *     the first block, which every pool uses: nothing changes.
 *
 * Where that is not known of the file system, and on block devices, the descriptor that does the I/O is the one that holds,
 * and a successor waits for the kernel to be done with the ring.
 */
#include "host/host_internal.h"

#include "base/log.h"

#include <fcntl.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_MAX_BYTES GiB /* of one ring entry, whose length has 32 bits */

/* ---- requests ------------------------------------------------------------------------------------------------------ */

/* What a request carries in its private words. */
struct io_state {
	struct host_op op;
	uint64_t moved_bytes;
};
static_assert(sizeof(struct io_state) <= sizeof(((struct rt_io *)0)->private),
	      "state fits the private words");

static struct io_state *io_state(struct rt_io *io)
{
	return (struct io_state *)io->private;
}

static struct host_disk *disk_of(struct rt_disk *disk)
{
	return container_of(disk, struct host_disk, disk);
}

/* Our mistakes and the kernel's refusals are SYS; what the medium or its driver says is IO. */
static int io_error(int os_errno)
{
	switch (os_errno) {
	case ENOSPC:
	case EDQUOT:
		return OXE_NOSPC;
	case EROFS:
		return OXE_ROFS;
	case EINVAL:
	case ENOMEM:
	case EFAULT:
	case EBADF:
	case EPERM:
	case EACCES:
	case EFBIG:
		return OXE_SYS;
	default:
		return OXE_IO;
	}
}

void host_io_finish_later(struct host *h, struct rt_io *io, int result)
{
	io->result = result;
	list_add_tail(&h->done_ios, &io->link);
}

static void io_finish(struct rt_io *io, int result)
{
	struct host_disk *d = disk_of(io->disk);
	d->in_flight--;
	host_of(d->disk.rt)->disk_in_flight--;
	io->result = result;
	io->done(io);
}

static void io_issue(struct rt_io *io);

/* A discard is advice: a disk that takes none has nothing to report. */
static int discard_result(struct host_disk *d, int res)
{
	if (res != -EOPNOTSUPP && res != -ENOSYS && res != -ENOTTY)
		return res < 0 ? io_error(-res) : 0;
	d->disk.info.refuses_discards = true;
	return 0;
}

/* The kernel may move less than was asked: the rest is asked for again. Nothing moved means the end of the disk. */
static void io_complete(struct host_op *op, int res, uint32_t flags)
{
	(void)flags;
	struct rt_io *io = (struct rt_io *)((char *)op - offsetof(struct rt_io, private));
	struct io_state *s = io_state(io);
	if (res == -EINTR || res == -EAGAIN) {
		io_issue(io);
	} else if (io->op == RT_IO_DISCARD) {
		io_finish(io, discard_result(disk_of(io->disk), res));
	} else if (res < 0) {
		io_finish(io, io_error(-res));
	} else if (io->op == RT_IO_FLUSH) {
		io_finish(io, 0);
	} else if (res == 0) {
		io_finish(io, OXE_IO);
	} else if ((s->moved_bytes += (uint64_t)res) < io->len_bytes) {
		io_issue(io);
	} else {
		io_finish(io, 0);
	}
}

/* The part of a read or write that is still to move. */
static void transfer_prep(struct io_uring_sqe *sqe, struct rt_io *io, int fd)
{
	uint64_t moved_bytes = io_state(io)->moved_bytes;
	char *data = (char *)io->data + moved_bytes;
	uint64_t offset_bytes = io->offset_bytes + moved_bytes;
	unsigned len_bytes = (unsigned)u64_min(io->len_bytes - moved_bytes, CHUNK_MAX_BYTES);
	if (io->op == RT_IO_READ) {
		io_uring_prep_read(sqe, fd, data, len_bytes, offset_bytes);
	} else {
		io_uring_prep_write(sqe, fd, data, len_bytes, offset_bytes);
		sqe->rw_flags = io->flags & RT_IO_FUA ? RWF_DSYNC : 0;
	}
}

static void io_prep(struct io_uring_sqe *sqe, struct rt_io *io, int fd)
{
	if (io->op == RT_IO_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (io->op == RT_IO_DISCARD)
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)io->offset_bytes, (off_t)io->len_bytes);
	else
		transfer_prep(sqe, io, fd);
}

static void io_issue(struct rt_io *io)
{
	struct host_disk *d = disk_of(io->disk);
	struct io_uring_sqe *sqe = host_sqe(host_of(d->disk.rt));
	io_prep(sqe, io, d->slot >= 0 ? d->slot : d->fd);
	if (d->slot >= 0)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, &io_state(io)->op);
}

struct device_discard {
	struct host_job job;
	struct rt_io *io;
	int res;
};

static void device_discard_work(struct host_job *job)
{
	struct device_discard *dd = container_of(job, struct device_discard, job);
	uint64_t range[2] = {dd->io->offset_bytes, dd->io->len_bytes};
	dd->res = ioctl(disk_of(dd->io->disk)->fd, BLKDISCARD, range) ? -errno : 0;
}

static void device_discard_finish(struct host_job *job)
{
	struct device_discard *dd = container_of(job, struct device_discard, job);
	struct rt_io *io = dd->io;
	int result = discard_result(disk_of(io->disk), dd->res);
	free(dd);
	io_finish(io, result);
}

static void device_discard_start(struct host *h, struct rt_io *io)
{
	struct device_discard *dd = mem_alloc(sizeof(*dd));
	*dd = (struct device_discard){.job = {.work = device_discard_work, .finish = device_discard_finish},
				      .io = io};
	host_job_start(h, &dd->job);
}

/* A file in memory (tmpfs) never makes anybody wait, but the ring does not know and hands each request to a kernel thread:
 * two changes of thread for one copy. Here it is carried out where it is submitted. */
static int memory_file_io(struct host_disk *d, struct rt_io *io)
{
	for (uint64_t moved_bytes = 0; moved_bytes < io->len_bytes;) {
		char *data = (char *)io->data + moved_bytes;
		uint64_t len_bytes = u64_min(io->len_bytes - moved_bytes, CHUNK_MAX_BYTES);
		off_t offset_bytes = (off_t)(io->offset_bytes + moved_bytes);
		ssize_t n = io->op == RT_IO_READ ? pread(d->fd, data, len_bytes, offset_bytes)
						 : pwrite(d->fd, data, len_bytes, offset_bytes);
		if (n < 0 && errno != EINTR)
			return io_error(errno);
		if (n == 0)
			return OXE_IO;
		moved_bytes += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

void host_io_submit(struct rt_io *io)
{
	struct host_disk *d = disk_of(io->disk);
	struct host *h = host_of(d->disk.rt);
	bool changes = io->op == RT_IO_WRITE || io->op == RT_IO_DISCARD;
	if (d->read_only && changes) {
		host_io_finish_later(h, io, OXE_ROFS);
	} else if (d->mem) {
		host_io_finish_later(h, io, mem_disk_io(d, io));
	} else if (d->is_memory_file && (io->op == RT_IO_READ || io->op == RT_IO_WRITE)) {
		host_io_finish_later(h, io, memory_file_io(d, io));
	} else if (io->op == RT_IO_DISCARD && (d->disk.info.refuses_discards || io->len_bytes == 0)) {
		host_io_finish_later(h, io, 0);
	} else {
		d->in_flight++;
		h->disk_in_flight++;
		*io_state(io) = (struct io_state){.op = {io_complete}};
		if (io->op == RT_IO_DISCARD && d->disk.info.is_block_device)
			device_discard_start(h, io);
		else
			io_issue(io);
	}
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

/* One call to the kernel's disk side, made on a worker. */
struct disk_task {
	const char *path;
	unsigned flags;
	uint64_t size_bytes;
	struct rt_disk_info info;
	int fd, hold_fd;
	long fs_type; /* *_SUPER_MAGIC; 0: a block device */
	bool buffered;
	int result;
};

static int dir_sync(const char *path)
{
	char *copy = mem_strdup(path);
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = fd < 0 || fsync(fd) ? err_from_errno(errno) : 0;
	if (fd >= 0)
		close(fd);
	free(copy);
	return result;
}

static int file_size_set(int fd, uint64_t size_bytes)
{
	if (ftruncate(fd, (off_t)size_bytes) || fsync(fd))
		return err_from_errno(errno);
	return 0;
}

/* For file systems without nameless files. If it fails half-way the name is taken back: nothing was in it. */
static int file_create_named(const char *path, uint64_t size_bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_from_errno(errno);
	int result = file_size_set(fd, size_bytes);
	if (result)
		unlink(path);
	close(fd);
	return result;
}

static int file_create_nameless(const char *path, uint64_t size_bytes)
{
	char *copy = mem_strdup(path), proc[64];
	int fd = open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	free(copy);
	if (fd < 0)
		return err_from_errno(errno == EISDIR ? EOPNOTSUPP : errno);
	int result = file_size_set(fd, size_bytes);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (!result && linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
		result = err_from_errno(errno == ENOENT ? EOPNOTSUPP : errno); /* no /proc here */
	else if (!result && fsync(fd)) /* the inode's link count has changed */
		result = err_from_errno(errno);
	close(fd);
	return result;
}

static int file_create(const char *path, uint64_t size_bytes)
{
	struct stat st;
	if (size_bytes == 0 || !u64_is_aligned(size_bytes, RT_IO_ALIGN) || size_bytes > INT64_MAX)
		return OXE_INVAL;
	if (lstat(path, &st) == 0)
		return OXE_EXISTS;
	int result = file_create_nameless(path, size_bytes);
	if (result == OXE_UNSUPPORTED)
		result = file_create_named(path, size_bytes);
	return result ? result : dir_sync(path);
}

static int type_check(mode_t mode)
{
	return S_ISREG(mode) || S_ISBLK(mode) ? 0 : OXE_INVAL;
}

/* The type is looked at before opening, because opening some devices and pipes does things; and again after. */
static int fd_open(struct disk_task *t)
{
	struct stat st;
	int flags = (t->flags & RT_DISK_READONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	if (stat(t->path, &st))
		return err_from_errno(errno);
	if (type_check(st.st_mode))
		return OXE_INVAL;
	if (S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	t->fd = open(t->path, flags | O_DIRECT);
	if (t->fd < 0 && errno == EINVAL) {
		t->fd = open(t->path, flags);
		t->buffered = true;
	}
	if (t->fd < 0)
		return err_from_errno(errno);
	struct statfs fs;
	if (fstat(t->fd, &st) || fstatfs(t->fd, &fs))
		return err_from_errno(errno);
	t->fs_type = S_ISREG(st.st_mode) ? fs.f_type : 0;
	t->info.is_block_device = S_ISBLK(st.st_mode);
	return type_check(st.st_mode);
}

/* Does fallocate() wait for direct writes under way? tmpfs has none: there a write is done when the system call is. */
static bool writes_can_be_awaited(const struct disk_task *t)
{
	return t->fs_type == EXT4_SUPER_MAGIC || t->fs_type == XFS_SUPER_MAGIC || t->fs_type == TMPFS_MAGIC;
}

static int writes_await(int fd)
{
	int result;
	do
		result = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, RT_IO_ALIGN);
	while (result && errno == EINTR);
	return result ? err_from_errno(errno) : 0;
}

static int lock_take(int fd, unsigned flags)
{
	int how = flags & RT_DISK_READONLY ? LOCK_SH : LOCK_EX;
	if (flock(fd, how | LOCK_NB))
		return errno == EWOULDBLOCK ? OXE_BUSY : err_from_errno(errno);
	return 0;
}

static bool is_same_file(int a, int b)
{
	struct stat sa, sb;
	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* A reader needs to write for waiting, too; one who may not write takes what it finds. */
static int hold_apart(struct disk_task *t)
{
	bool may_write = true;
	int result = 0;
	t->hold_fd = open(t->path, O_RDWR | O_CLOEXEC);
	if (t->hold_fd < 0 && t->flags & RT_DISK_READONLY) {
		may_write = false;
		t->hold_fd = open(t->path, O_RDONLY | O_CLOEXEC);
	}
	if (t->hold_fd < 0)
		return err_from_errno(errno);
	if (!is_same_file(t->fd, t->hold_fd))
		return OXE_BUSY; /* somebody is putting another file there */
	result = lock_take(t->hold_fd, t->flags);
	return result || !may_write ? result : writes_await(t->hold_fd);
}

/* An old ext4 file without extents knows no fallocate(): that is so for each of its openers, so all hold it the other way. */
static int file_hold(struct disk_task *t)
{
	if (writes_can_be_awaited(t)) {
		int result = hold_apart(t);
		if (result != OXE_UNSUPPORTED)
			return result;
		close(t->hold_fd);
	}
	t->hold_fd = t->fd;
	return lock_take(t->hold_fd, t->flags);
}

/* O_EXCL holds a block device. */
static int fd_hold(struct disk_task *t)
{
	t->hold_fd = t->fd;
	return t->info.is_block_device ? 0 : file_hold(t);
}

static int device_measure(int fd, struct rt_disk_info *info)
{
	int lba_bytes;
	if (ioctl(fd, BLKGETSIZE64, &info->size_bytes) || ioctl(fd, BLKSSZGET, &lba_bytes))
		return err_from_errno(errno);
	info->lba_bytes = (uint32_t)lba_bytes;
	return 0;
}

static int file_measure(int fd, struct rt_disk_info *info)
{
	struct statx stx = {0};
	if (statx(fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_DIOALIGN, &stx))
		return err_from_errno(errno);
	info->size_bytes = stx.stx_size;
	info->lba_bytes = 512;
	if (stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align > 512)
		info->lba_bytes = stx.stx_dio_offset_align;
	return 0;
}

static int fd_measure(int fd, struct rt_disk_info *info)
{
	int result = info->is_block_device ? device_measure(fd, info) : file_measure(fd, info);
	if (result)
		return result;
	if (info->lba_bytes != 512 && info->lba_bytes != 4096)
		return OXE_UNSUPPORTED;
	info->size_bytes = u64_align_down(info->size_bytes, info->lba_bytes);
	return 0;
}

static void fds_close(int fd, int hold_fd)
{
	if (hold_fd >= 0 && hold_fd != fd)
		close(hold_fd);
	if (fd >= 0)
		close(fd);
}

static int disk_take(struct disk_task *t)
{
	int result = fd_open(t);
	if (!result)
		result = fd_hold(t);
	if (!result)
		result = fd_measure(t->fd, &t->info);
	if (result) {
		fds_close(t->fd, t->hold_fd);
		t->fd = t->hold_fd = -1;
	}
	return result;
}

/* A process that was killed a moment ago may still hold it. On a worker: it may wait. */
static void disk_open_work(void *arg)
{
	struct disk_task *t = arg;
	struct timespec pause = {.tv_nsec = HOST_BUSY_PAUSE_NS};
	t->result = t->flags & RT_DISK_CREATE ? file_create(t->path, t->size_bytes) : 0;
	if (!t->result)
		t->result = disk_take(t);
	for (int i = 0; t->result == OXE_BUSY && i < HOST_BUSY_TRIES; i++) {
		nanosleep(&pause, NULL);
		t->result = disk_take(t);
	}
}

/* A registered descriptor saves the kernel a lookup per request. There are 64 places; later disks do without. */
static void slot_take(struct host *h, struct host_disk *d)
{
	d->slot = -1;
	if (!h->has_file_slots || h->file_slots_used == UINT64_MAX)
		return;
	int slot = __builtin_ctzll(~h->file_slots_used);
	if (io_uring_register_files_update(&h->ring, (unsigned)slot, &d->fd, 1) != 1)
		return;
	h->file_slots_used |= (uint64_t)1 << slot;
	d->slot = slot;
}

static void slot_return(struct host *h, struct host_disk *d)
{
	int none = -1;
	if (d->slot < 0)
		return;
	io_uring_register_files_update(&h->ring, (unsigned)d->slot, &none, 1);
	h->file_slots_used &= ~((uint64_t)1 << d->slot);
}

static int kernel_disk_open(struct host_disk *d, const char *path, unsigned flags, uint64_t size_bytes)
{
	struct disk_task t = {
		.path = path, .flags = flags, .size_bytes = size_bytes, .fd = -1, .hold_fd = -1};
	host_offload(d->disk.rt, disk_open_work, &t);
	if (t.result)
		return t.result;
	if (t.buffered)
		LOG_WARN("disk.buffered", "the file system refuses direct I/O: its cache is in between",
			 F_STR("path", path));
	d->disk.info = t.info;
	d->fd = t.fd;
	d->is_memory_file = d->disk.info.never_waits = t.fs_type == TMPFS_MAGIC;
	d->hold_fd = t.hold_fd;
	slot_take(host_of(d->disk.rt), d);
	return 0;
}

int host_disk_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes, struct rt_disk **out)
{
	struct host_disk *d = mem_alloc(sizeof(*d));
	*d = (struct host_disk){.disk = {.rt = rt},
				.fd = -1,
				.hold_fd = -1,
				.slot = -1,
				.read_only = flags & RT_DISK_READONLY};
	int result =
		mem_path(path) ? mem_disk_open(d, path, flags) : kernel_disk_open(d, path, flags, size_bytes);
	if (result) {
		free(d);
		return result;
	}
	snprintf(d->disk.info.path, sizeof(d->disk.info.path), "%s", path);
	host_of(rt)->open_objects++;
	*out = &d->disk;
	return 0;
}

/* The lock is dropped by name: the ring may hold the open file a moment longer than the descriptor. */
void host_disk_close(struct rt_disk *disk)
{
	struct host_disk *d = disk_of(disk);
	struct host *h = host_of(disk->rt);
	assert(d->in_flight == 0);
	if (d->mem) {
		mem_disk_close(d);
	} else {
		slot_return(h, d);
		if (!disk->info.is_block_device)
			flock(d->hold_fd, LOCK_UN);
		fds_close(d->fd, d->hold_fd);
	}
	h->open_objects--;
	free(d);
}

static void disk_grow_work(void *arg)
{
	struct disk_task *t = arg;
	if (!t->info.is_block_device && t->size_bytes > t->info.size_bytes)
		t->result = file_size_set(t->fd, t->size_bytes);
	if (!t->result)
		t->result = fd_measure(t->fd, &t->info);
}

int host_disk_grow(struct rt_disk *disk, uint64_t size_bytes)
{
	struct host_disk *d = disk_of(disk);
	struct rt_disk_info *info = &disk->info;
	if (!info->is_block_device &&
	    (size_bytes < info->size_bytes || !u64_is_aligned(size_bytes, RT_IO_ALIGN)))
		return OXE_INVAL;
	if (d->read_only)
		return OXE_ROFS;
	if (d->mem)
		return mem_disk_grow(d, size_bytes);
	struct disk_task t = {.info = *info, .fd = d->fd, .size_bytes = size_bytes};
	host_offload(disk->rt, disk_grow_work, &t);
	if (!t.result)
		info->size_bytes = t.info.size_bytes;
	return t.result;
}

/* ---- space ahead ------------------------------------------------------------------------------------------------------- */

/* Nobody waits for it, so it has a descriptor of its own: the disk may be closed meanwhile. */
struct expectation {
	struct host_job job;
	int fd;
	off_t offset_bytes, len_bytes;
};

/* If there is no space, or the file system cannot: the writes themselves will say. Bytes stay as they are. */
static void expect_work(struct host_job *job)
{
	struct expectation *e = container_of(job, struct expectation, job);
	(void)fallocate(e->fd, FALLOC_FL_KEEP_SIZE, e->offset_bytes, e->len_bytes);
	close(e->fd);
}

static void expect_finish(struct host_job *job)
{
	free(container_of(job, struct expectation, job));
}

void host_disk_expect(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes)
{
	struct host_disk *d = disk_of(disk);
	uint64_t end_bytes = u64_min(offset_bytes + len_bytes, disk->info.size_bytes);
	if (d->mem || d->read_only || d->is_memory_file || disk->info.is_block_device ||
	    end_bytes <= offset_bytes)
		return;
	struct expectation *e = mem_alloc(sizeof(*e));
	*e = (struct expectation){.job = {.work = expect_work, .finish = expect_finish},
				  .fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 0),
				  .offset_bytes = (off_t)offset_bytes,
				  .len_bytes = (off_t)(end_bytes - offset_bytes)};
	if (e->fd < 0)
		free(e);
	else
		host_job_start(host_of(disk->rt), &e->job);
}
