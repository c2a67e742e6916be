/* sqlite_disk_double.c: see sqlite_disk_double.h. Every call goes on to the real file; the memory of what is durable is kept beside it. */
#include "control/meta/sqlite_disk_double.h"

#include "base/list.h"
#include "base/test.h"

#include <dirent.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#define TORN_BYTES 512

/* Since the last sync: a write, or a cut to `offset`. */
struct change {
	struct list link;
	bool is_truncate;
	size_t offset, len_bytes;
	uint8_t data[];
};

struct tracked {
	struct list link;
	char path[512];
	bool is_named;	   /* its name is on stable storage */
	bool is_deleted;   /* but that is not */
	bool syncs_folder; /* its first sync does, as SQLite's own VFS has it for journals */
	uint8_t *data;	   /* what is on stable storage */
	size_t len_bytes;
	struct list changes;
};

struct disk_file {
	sqlite3_file base;
	struct tracked *tracked; /* NULL: none of ours */
	sqlite3_file *real;	 /* behind this struct */
};

static struct {
	sqlite3_vfs vfs, *real;
	char folder[256];
	struct list files;
	void (*moment)(void *ctx, const char *path, enum disk_op op);
	void *ctx;
	uint64_t counts[DISK_OPS], fail_at[DISK_OPS];
	bool fail_is_full;
} disk;

static struct disk_file *file_of(sqlite3_file *f)
{
	return container_of(f, struct disk_file, base);
}

/* ---- what is durable ------------------------------------------------------------------------------------------------------- */

static struct tracked *tracked_find(const char *path)
{
	struct tracked *t;
	list_for_each (t, &disk.files, link) {
		if (strcmp(t->path, path) == 0 && !t->is_deleted)
			return t;
	}
	return NULL;
}

static size_t capacity_for(size_t len_bytes)
{
	size_t capacity = 4096;
	while (capacity < len_bytes)
		capacity *= 2;
	return len_bytes ? capacity : 0;
}

static void bytes_write(uint8_t **data, size_t *len_bytes, const void *from, size_t count, size_t offset)
{
	if (offset + count >
	    *len_bytes) { /* capacity is the next power of two: a file grows by many small writes */
		if (capacity_for(offset + count) != capacity_for(*len_bytes))
			*data = mem_realloc(*data, capacity_for(offset + count));
		memset(*data + *len_bytes, 0, offset + count - *len_bytes);
		*len_bytes = offset + count;
	}
	memcpy(*data + offset, from, count);
}

/* What is there when it is first opened is durable. */
static void tracked_load(struct tracked *t)
{
	FILE *in = fopen(t->path, "rb");
	uint8_t part[4096];
	size_t count;
	while (in && (count = fread(part, 1, sizeof(part), in)) > 0)
		bytes_write(&t->data, &t->len_bytes, part, count, t->len_bytes);
	t->is_named = t->len_bytes > 0;
	if (in)
		fclose(in);
}

static struct tracked *tracked_get(const char *path)
{
	size_t folder_len = strlen(disk.folder);
	if (!path || !folder_len || strncmp(path, disk.folder, folder_len) != 0 || path[folder_len] != '/')
		return NULL;
	struct tracked *t = tracked_find(path);
	if (!t) {
		t = mem_zalloc(sizeof(*t));
		snprintf(t->path, sizeof(t->path), "%s", path);
		list_init(&t->changes);
		list_add_tail(&disk.files, &t->link);
		tracked_load(t);
	}
	return t;
}

/* A sync that failed: what it was to write is clean in memory and will never be written, whatever a later sync says. */
static void tracked_forget(struct tracked *t)
{
	struct change *c;
	while ((c = list_pop(&t->changes, struct change, link)))
		free(c);
}

static void tracked_free(struct tracked *t)
{
	tracked_forget(t);
	free(t->data);
	list_del(&t->link);
	free(t);
}

static void change_apply(const struct change *c, uint8_t **data, size_t *len_bytes, size_t count)
{
	if (!c->is_truncate && count)
		bytes_write(data, len_bytes, c->data, count, c->offset);
	else if (c->is_truncate && c->offset < *len_bytes)
		*len_bytes = c->offset;
}

static void change_add(struct tracked *t, bool is_truncate, const void *data, size_t len_bytes, size_t offset)
{
	struct change *c = mem_alloc(sizeof(*c) + len_bytes);
	*c = (struct change){.is_truncate = is_truncate, .offset = offset, .len_bytes = len_bytes};
	memcpy(c->data, len_bytes ? data : "", len_bytes);
	list_add_tail(&t->changes, &c->link);
}

static void tracked_synced(struct tracked *t)
{
	struct change *c;
	while ((c = list_pop(&t->changes, struct change, link))) {
		change_apply(c, &t->data, &t->len_bytes, c->len_bytes);
		free(c);
	}
}

/* Names that are there, and deletions, are durable now. */
static void folder_synced(void)
{
	struct tracked *t, *next;
	list_for_each_safe (t, next, &disk.files, link) {
		t->is_named = true;
		if (t->is_deleted)
			tracked_free(t);
	}
}

/* Counts it, tells of it, and says whether it fails. */
static bool moment(struct tracked *t, enum disk_op op)
{
	if (!t)
		return false;
	if (disk.moment)
		disk.moment(disk.ctx, t->path, op);
	return ++disk.counts[op] == disk.fail_at[op];
}

/* ---- images --------------------------------------------------------------------------------------------------------------------- */

static void folder_empty(const char *folder)
{
	DIR *dir = opendir(folder);
	CHECK(dir);
	for (struct dirent *e; (e = readdir(dir));) {
		char path[768];
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (e->d_name[0] != '.')
			CHECK_EQ(unlink(path), 0);
	}
	closedir(dir);
}

enum fate { ALL_LOST, ALL_KEPT, EACH_DRAWN, FATES };

static size_t change_kept(const struct change *c, enum fate fate, struct prng *rng)
{
	if (fate != EACH_DRAWN)
		return fate == ALL_KEPT ? c->len_bytes : 0;
	uint64_t drawn = prng_below(rng, 3);
	return drawn < 2 ? drawn * c->len_bytes
			 : u64_align_down(prng_below(rng, c->len_bytes + 1), TORN_BYTES);
}

static void tracked_image(const struct tracked *t, const char *folder, struct prng *rng)
{
	enum fate fate = (enum fate)prng_below(rng, FATES);
	size_t len_bytes = t->len_bytes;
	uint8_t *data = mem_alloc(capacity_for(len_bytes) + 1);
	const struct change *c;
	char path[1024];
	if ((!t->is_named || t->is_deleted) && fate == ALL_LOST) {
		free(data);
		return;
	}
	memcpy(data, t->data ? t->data : (const uint8_t *)"", len_bytes);
	list_for_each (c, &t->changes, link) {
		if (!c->is_truncate || (fate != ALL_LOST && (fate == ALL_KEPT || prng_one_in(rng, 2))))
			change_apply(c, &data, &len_bytes, change_kept(c, fate, rng));
	}
	snprintf(path, sizeof(path), "%s/%s", folder, strrchr(t->path, '/') + 1);
	FILE *out = fopen(path, "wb");
	CHECK(out && fwrite(data, 1, len_bytes, out) == len_bytes && fclose(out) == 0);
	free(data);
}

void sqlite_disk_image(const char *folder, struct prng *rng)
{
	const struct tracked *t;
	folder_empty(folder);
	list_for_each (t, &disk.files,
		       link) /* one that was deleted and made again is there once, as either */
		tracked_image(t, folder, rng);
}

/* ---- a file ---------------------------------------------------------------------------------------------------------------------- */

static int disk_close(sqlite3_file *f)
{
	return file_of(f)->real->pMethods->xClose(file_of(f)->real);
}

static int disk_read(sqlite3_file *f, void *data, int len_bytes, sqlite3_int64 offset)
{
	return file_of(f)->real->pMethods->xRead(file_of(f)->real, data, len_bytes, offset);
}

static int disk_write(sqlite3_file *f, const void *data, int len_bytes, sqlite3_int64 offset)
{
	struct disk_file *file = file_of(f);
	if (moment(file->tracked, DISK_WRITE))
		return disk.fail_is_full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	if (file->tracked)
		change_add(file->tracked, false, data, (size_t)len_bytes, (size_t)offset);
	return file->real->pMethods->xWrite(file->real, data, len_bytes, offset);
}

static int disk_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct disk_file *file = file_of(f);
	if (moment(file->tracked, DISK_TRUNCATE))
		return SQLITE_IOERR_TRUNCATE;
	if (file->tracked)
		change_add(file->tracked, true, NULL, 0, (size_t)size);
	return file->real->pMethods->xTruncate(file->real, size);
}

static int disk_sync(sqlite3_file *f, int flags)
{
	struct disk_file *file = file_of(f);
	if (moment(file->tracked, DISK_SYNC)) {
		tracked_forget(file->tracked);
		return SQLITE_IOERR_FSYNC;
	}
	(void)flags; /* the real file needs none: nobody cuts the power of this machine */
	if (file->tracked)
		tracked_synced(file->tracked);
	if (file->tracked && file->tracked->syncs_folder) {
		file->tracked->syncs_folder = false;
		folder_synced();
	}
	return SQLITE_OK;
}

static int disk_file_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return file_of(f)->real->pMethods->xFileSize(file_of(f)->real, size);
}

static int disk_lock(sqlite3_file *f, int level)
{
	return file_of(f)->real->pMethods->xLock(file_of(f)->real, level);
}

static int disk_unlock(sqlite3_file *f, int level)
{
	return file_of(f)->real->pMethods->xUnlock(file_of(f)->real, level);
}

static int disk_check_lock(sqlite3_file *f, int *out)
{
	return file_of(f)->real->pMethods->xCheckReservedLock(file_of(f)->real, out);
}

static int disk_control(sqlite3_file *f, int op, void *arg)
{
	return file_of(f)->real->pMethods->xFileControl(file_of(f)->real, op, arg);
}

static int disk_sector_size(sqlite3_file *f)
{
	return file_of(f)->real->pMethods->xSectorSize(file_of(f)->real);
}

static int disk_characteristics(sqlite3_file *f)
{
	return file_of(f)->real->pMethods->xDeviceCharacteristics(file_of(f)->real);
}

static const sqlite3_io_methods disk_methods = {
	.iVersion = 1, /* no shared memory: a lock that is exclusive needs none */
	.xClose = disk_close,
	.xRead = disk_read,
	.xWrite = disk_write,
	.xTruncate = disk_truncate,
	.xSync = disk_sync,
	.xFileSize = disk_file_size,
	.xLock = disk_lock,
	.xUnlock = disk_unlock,
	.xCheckReservedLock = disk_check_lock,
	.xFileControl = disk_control,
	.xSectorSize = disk_sector_size,
	.xDeviceCharacteristics = disk_characteristics,
};

/* ---- the file system -------------------------------------------------------------------------------------------------------------- */

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *out_flags)
{
	struct disk_file *file = file_of(f);
	(void)vfs;
	file->real = (sqlite3_file *)(file + 1);
	int rc = disk.real->xOpen(disk.real, path, file->real, flags, out_flags);
	file->base.pMethods = rc == SQLITE_OK ? &disk_methods : NULL;
	file->tracked = rc == SQLITE_OK ? tracked_get(path) : NULL;
	if (file->tracked && !file->tracked->is_named)
		file->tracked->syncs_folder = flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL);
	return rc;
}

/* One that is deleted may be there again after a power cut. */
static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_folder)
{
	struct tracked *t = tracked_find(path);
	(void)vfs;
	if (moment(t, DISK_DELETE))
		return SQLITE_IOERR_DELETE;
	int rc = disk.real->xDelete(disk.real, path, sync_folder);
	if (t && rc == SQLITE_OK)
		t->is_deleted = true;
	if (t && rc == SQLITE_OK && sync_folder)
		folder_synced();
	return rc;
}

const char *sqlite_disk_parent;

void sqlite_disk_folder_new(char *folder, size_t size_bytes)
{
	const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	if (sqlite_disk_parent)
		parent = sqlite_disk_parent;
	snprintf(folder, size_bytes, "%s/oxbow-meta-XXXXXX", parent);
	CHECK(mkdtemp(folder));
}

void sqlite_disk_install(const char *folder)
{
	if (!disk.real) {
		disk.real = sqlite3_vfs_find(NULL);
		disk.vfs = *disk.real;
		disk.vfs.zName = "oxbow-disk-double";
		disk.vfs.szOsFile = (int)sizeof(struct disk_file) + disk.real->szOsFile;
		disk.vfs.xOpen = vfs_open;
		disk.vfs.xDelete = vfs_delete;
		list_init(&disk.files);
	}
	CHECK_EQ(sqlite3_vfs_register(*folder ? &disk.vfs : disk.real, 1), SQLITE_OK);
	while (!list_empty(&disk.files))
		tracked_free(list_first(&disk.files, struct tracked, link));
	snprintf(disk.folder, sizeof(disk.folder), "%s", folder);
	memset(disk.counts, 0, sizeof(disk.counts));
	memset(disk.fail_at, 0, sizeof(disk.fail_at));
	disk.moment = NULL;
}

void sqlite_disk_on_moment(void (*fn)(void *ctx, const char *path, enum disk_op op), void *ctx)
{
	disk.moment = fn;
	disk.ctx = ctx;
}

void sqlite_disk_fail(enum disk_op op, uint64_t nth, bool is_full)
{
	disk.fail_at[op] = nth ? disk.counts[op] + nth : 0;
	disk.fail_is_full = is_full;
}

uint64_t sqlite_disk_count(enum disk_op op)
{
	return disk.counts[op];
}
