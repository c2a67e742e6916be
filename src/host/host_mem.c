/*
 * host_mem.c: "mem:SIZE_BYTES:NAME": a disk that is plain memory of this process, for tests and for measuring our own cost.
 *
 * It lives from its first open to the end of the process, whichever reactor opens it, one at a time. Memory is taken as it
 * is touched and given back by discard. A request is carried out when it is submitted; only its `done` waits for the loop.
 */
#include "host/host_internal.h"

#include <stdio.h>
#include <sys/mman.h>

struct mem_disk {
	struct mem_disk *next;
	char *name;
	uint8_t *bytes;
	uint64_t size_bytes;
	bool open;
};

/* All of the process, under the lock; the bytes belong to whoever has the disk open. */
static struct {
	pthread_mutex_t lock;
	struct mem_disk *first;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool mem_path(const char *path)
{
	return strncmp(path, "mem:", 4) == 0;
}

static int path_parse(const char *path, uint64_t *size_bytes, const char **name)
{
	const char *digits = path + 4;
	char *end;
	if (*digits < '0' || *digits > '9')
		return OXE_INVAL;
	errno = 0;
	*size_bytes = strtoull(digits, &end, 10);
	*name = end + 1;
	if (errno || *end != ':' || !**name || *size_bytes == 0)
		return OXE_INVAL;
	return u64_is_aligned(*size_bytes, RT_IO_ALIGN) ? 0 : OXE_INVAL;
}

static struct mem_disk *registry_find(const char *name)
{
	struct mem_disk *m = registry.first;
	while (m && strcmp(m->name, name) != 0)
		m = m->next;
	return m;
}

static int registry_add(const char *name, uint64_t size_bytes, struct mem_disk **out)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (bytes == MAP_FAILED)
		return err_from_errno(errno);
	struct mem_disk *m = mem_alloc(sizeof(*m));
	*m = (struct mem_disk){registry.first, mem_strdup(name), bytes, size_bytes, false};
	registry.first = m;
	*out = m;
	return 0;
}

static int registry_open(const char *name, uint64_t size_bytes, unsigned flags, struct mem_disk **out)
{
	struct mem_disk *m = registry_find(name);
	int result = 0;
	if (m && flags & RT_DISK_CREATE)
		result = OXE_EXISTS;
	else if (m && m->open)
		result = OXE_BUSY;
	else if (m && m->size_bytes < size_bytes)
		result = OXE_INVAL; /* it may have grown past the size in its path, never shrunk below */
	else if (!m)
		result = registry_add(name, size_bytes, &m);
	if (!result) {
		m->open = true;
		*out = m;
	}
	return result;
}

int mem_disk_open(struct host_disk *d, const char *path, unsigned flags)
{
	uint64_t size_bytes;
	const char *name;
	int result = path_parse(path, &size_bytes, &name);
	if (result)
		return result;
	pthread_mutex_lock(&registry.lock);
	result = registry_open(name, size_bytes, flags, &d->mem);
	pthread_mutex_unlock(&registry.lock);
	if (!result)
		d->disk.info = (struct rt_disk_info){.size_bytes = d->mem->size_bytes,
						     .lba_bytes = 512,
						     .is_memory = true,
						     .never_waits = true};
	return result;
}

void mem_disk_close(struct host_disk *d)
{
	pthread_mutex_lock(&registry.lock);
	d->mem->open = false;
	pthread_mutex_unlock(&registry.lock);
}

int mem_disk_grow(struct host_disk *d, uint64_t size_bytes)
{
	struct mem_disk *m = d->mem;
	void *bytes = mremap(m->bytes, m->size_bytes, size_bytes, MREMAP_MAYMOVE);
	if (bytes == MAP_FAILED)
		return err_from_errno(errno);
	m->bytes = bytes;
	m->size_bytes = d->disk.info.size_bytes = size_bytes;
	return 0;
}

/* Whole pages go back to the system; the rest stays as it was, which is as undefined as anything. */
static void mem_discard(struct mem_disk *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t first = u64_align_up(offset_bytes, RT_IO_ALIGN);
	uint64_t end = u64_align_down(offset_bytes + len_bytes, RT_IO_ALIGN);
	if (first < end)
		madvise(m->bytes + first, end - first, MADV_DONTNEED);
}

int mem_disk_io(struct host_disk *d, struct rt_io *io)
{
	struct mem_disk *m = d->mem;
	uint64_t end;
	if (!u64_add_checked(io->offset_bytes, io->len_bytes, &end) || end > m->size_bytes)
		return OXE_IO;
	if (io->op == RT_IO_READ)
		memcpy(io->data, m->bytes + io->offset_bytes, io->len_bytes);
	else if (io->op == RT_IO_WRITE)
		memcpy(m->bytes + io->offset_bytes, io->data, io->len_bytes);
	else if (io->op == RT_IO_DISCARD)
		mem_discard(m, io->offset_bytes, io->len_bytes);
	return 0;
}

/* A name nobody has used is a new disk, as an empty file is. */
int mem_disk_probe(const char *path, char *what, size_t what_size_bytes)
{
	uint64_t size_bytes;
	const char *name, *found = "";
	int result = path_parse(path, &size_bytes, &name);
	if (result)
		return result;
	pthread_mutex_lock(&registry.lock);
	struct mem_disk *m = registry_find(name);
	if (m && m->open) {
		result = OXE_BUSY;
	} else if (m) {
		size_t end_bytes = u64_min(PROBE_END_BYTES, m->size_bytes);
		found = probe_bytes(m->bytes, end_bytes, m->bytes + m->size_bytes - end_bytes, end_bytes);
	}
	pthread_mutex_unlock(&registry.lock);
	snprintf(what, what_size_bytes, "%s", found);
	return result;
}
