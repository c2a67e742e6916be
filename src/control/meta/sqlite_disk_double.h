/*
 * sqlite_disk_double.h: a disk under SQLite that can lose power and fail: a VFS around the real one, for tests.
 *
 * It remembers, of each file in one directory, what was on stable storage and what was written since. At any moment it can leave an image of
 * what a power cut would: each write since the last sync lost, kept or torn, each for itself. One thread at a time.
 */
#ifndef OXBOW_CONTROL_META_SQLITE_DISK_DOUBLE_H
#define OXBOW_CONTROL_META_SQLITE_DISK_DOUBLE_H

#include "base/base.h"
#include "base/prng.h"

enum disk_op { DISK_WRITE, DISK_SYNC, DISK_TRUNCATE, DISK_DELETE, DISK_OPS };

/* A new folder, in memory where there is a file system of it. */
void sqlite_disk_folder_new(char *folder, size_t size_bytes);
extern const char *sqlite_disk_parent; /* or in this one, unless it is NULL */
/* From now on SQLite uses it. Files directly in `folder` are watched; a second call forgets the first. With "" SQLite uses the real one, which
 * alone can share a file among processes. */
void sqlite_disk_install(const char *folder);
/* Called before each operation on a watched file. */
void sqlite_disk_on_moment(void (*fn)(void *ctx, const char *path, enum disk_op op), void *ctx);
/* The nth operation of this kind from now on fails, once: a sync or write as a device fails it, or a write for which there is no room. */
void sqlite_disk_fail(enum disk_op op, uint64_t nth, bool is_full);
uint64_t sqlite_disk_count(enum disk_op op);

/* What a power cut now would leave, in another folder (which is emptied). */
void sqlite_disk_image(const char *folder, struct prng *rng);

#endif
