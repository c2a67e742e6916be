/*
 * host_probe.c: what a foreign program would see on a disk, so that nothing is formatted that somebody still needs.
 *
 * Asked in order: our own superblock's first bytes; libblkid, which knows file systems, RAID and LVM members, encrypted
 * containers and partition tables; and last, whether the first or the last MiB holds anything at all. The disk is opened
 * for reading only.
 */
#include "host/host_internal.h"

#include "base/bytes.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define OXBOW_MAGIC	   "OXBOWSB1"
#define OXBOW_SECOND_BYTES (64 * KiB) /* where the other superblock lies */

static bool magic_at(const uint8_t *head, size_t head_bytes, size_t offset_bytes)
{
	return offset_bytes + 8 <= head_bytes && memcmp(head + offset_bytes, OXBOW_MAGIC, 8) == 0;
}

bool probe_is_oxbow(const uint8_t *head, size_t head_bytes)
{
	return magic_at(head, head_bytes, 0) || magic_at(head, head_bytes, OXBOW_SECOND_BYTES);
}

const char *probe_bytes(const uint8_t *head, size_t head_bytes, const uint8_t *tail, size_t tail_bytes)
{
	if (probe_is_oxbow(head, head_bytes))
		return "Oxbow pool";
	bool zero = bytes_are_zero(head, head_bytes) && bytes_are_zero(tail, tail_bytes);
	return zero ? "" : "non-zero data";
}

struct probe {
	const char *path;
	char *what;
	size_t what_size_bytes;
	int result;
};

static const char *probe_value(blkid_probe pr, const char *name)
{
	const char *value;
	return blkid_probe_lookup_value(pr, name, &value, NULL) == 0 ? value : NULL;
}

static const char *table_name(const char *type)
{
	return strcmp(type, "gpt") == 0 ? "GPT" : strcmp(type, "dos") == 0 ? "DOS" : type;
}

/* A superblock counts before a partition table: it is what would be lost first. */
static void probe_describe(blkid_probe pr, struct probe *p)
{
	const char *type = probe_value(pr, "TYPE"), *usage = probe_value(pr, "USAGE");
	const char *table = probe_value(pr, "PTTYPE");
	if (type && usage && strcmp(usage, "filesystem") == 0)
		snprintf(p->what, p->what_size_bytes, "%s file system", type);
	else if (type)
		snprintf(p->what, p->what_size_bytes, "%s", type);
	else if (table)
		snprintf(p->what, p->what_size_bytes, "%s partition table", table_name(table));
}

/* Fills `what` if libblkid knows anything. Signs of two things at once are something too. */
static int probe_foreign(int fd, struct probe *p)
{
	blkid_probe pr = blkid_new_probe();
	if (!pr || blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		return OXE_SYS;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
	blkid_probe_enable_partitions(pr, 1);
	int found = blkid_do_safeprobe(pr);
	if (found == 0)
		probe_describe(pr, p);
	else if (found == -2)
		snprintf(p->what, p->what_size_bytes, "several signatures");
	blkid_free_probe(pr);
	return found == -1 ? OXE_IO : 0;
}

/* All of `len_bytes`, or an error. */
static int read_all(int fd, uint8_t *data, size_t len_bytes, uint64_t offset_bytes)
{
	for (size_t done = 0; done < len_bytes;) {
		ssize_t n = pread(fd, data + done, len_bytes - done, (off_t)(offset_bytes + done));
		if (n <= 0 && !(n < 0 && errno == EINTR))
			return OXE_IO;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int probe_sized(int fd, uint64_t size_bytes, struct probe *p)
{
	size_t end_bytes = u64_min(PROBE_END_BYTES, size_bytes);
	uint8_t *head = mem_alloc(2 * end_bytes), *tail = head + end_bytes;
	int result = read_all(fd, head, end_bytes, 0);
	if (!result)
		result = read_all(fd, tail, end_bytes, size_bytes - end_bytes);
	if (!result && !probe_is_oxbow(head, end_bytes))
		result = probe_foreign(fd, p);
	if (!result && !*p->what)
		snprintf(p->what, p->what_size_bytes, "%s", probe_bytes(head, end_bytes, tail, end_bytes));
	free(head);
	return result;
}

static int probe_fd(int fd, struct probe *p)
{
	struct stat st;
	if (fstat(fd, &st))
		return err_from_errno(errno);
	uint64_t size_bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size_bytes))
		return err_from_errno(errno);
	return size_bytes ? probe_sized(fd, size_bytes, p) : 0;
}

static void probe_work(void *arg)
{
	struct probe *p = arg;
	struct stat st;
	if (stat(p->path, &st)) {
		p->result = err_from_errno(errno);
		return;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		p->result = OXE_INVAL;
		return;
	}
	int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		p->result = err_from_errno(errno);
		return;
	}
	p->result = probe_fd(fd, p);
	close(fd);
}

int host_disk_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes)
{
	what[0] = '\0';
	if (mem_path(path))
		return mem_disk_probe(path, what, what_size_bytes);
	struct probe p = {.path = path, .what = what, .what_size_bytes = what_size_bytes};
	host_offload(rt, probe_work, &p);
	return p.result;
}
