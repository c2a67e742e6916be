/*
 * meta_sqlite_db.h: the content of a metastore in an SQLite file. Blocking: for a worker thread, any, but one at a time.
 *
 *   errors       those meta.h names for the same verb. A write that fails was not done, but for OXE_INDOUBT: the disk failed it
 *                at a moment when either may be true. After that, and after any other error of the device, all is OXE_FAILED until the
 *                file is opened anew, which derives what is true from the disk
 *   durable      what is answered with 0 (WAL, synchronous=FULL)
 *   shared       several processes of one machine may have it open at once, if each opens it shared: then each verb begins by reading
 *                how far the others have come, and OXE_BUSY says that one of them held it for SHARED_BUSY_MS. Leases have a clock in one
 *                process only: in a shared store there are none
 */
#ifndef OXBOW_CONTROL_META_META_SQLITE_DB_H
#define OXBOW_CONTROL_META_META_SQLITE_DB_H

#include "base/uuid.h"
#include "control/meta/meta_form.h"

#define META_WHY_BYTES 256

struct meta_db;

/* See meta_sqlite.h. `why` says in words what is wrong. */
OX_CHECKED int meta_db_create(const char *path, const struct uuid *id, char why[META_WHY_BYTES]);
OX_CHECKED int meta_db_open(const char *path, uint64_t keep_revisions, struct meta_db **out,
			    char why[META_WHY_BYTES]);
OX_CHECKED int meta_db_open_shared(const char *path, uint64_t keep_revisions, struct meta_db **out,
				   char why[META_WHY_BYTES]);
void meta_db_close(struct meta_db *db);
const struct uuid *meta_db_id(const struct meta_db *db);
/* All is OXE_FAILED from now on. */
bool meta_db_has_failed(const struct meta_db *db);

OX_CHECKED int meta_db_read(struct meta_db *db, const struct meta_query *query, struct meta_list *out);
OX_CHECKED int meta_db_commit(struct meta_db *db, const struct meta_txn *txn, uint64_t *revision);
/* As meta_state_events(). */
OX_CHECKED int meta_db_events(struct meta_db *db, const char *prefix, uint64_t from_revision,
			      struct meta_list *out);

/* Leases without their clock: that they are there, and with how long a time. Calls `each` for all. */
OX_CHECKED int meta_db_leases(struct meta_db *db, void (*each)(void *ctx, uint64_t lease, uint32_t ttl_s),
			      void *ctx);
OX_CHECKED int meta_db_lease_add(struct meta_db *db, uint64_t lease, uint32_t ttl_s);
/* And deletes its keys. */
OX_CHECKED int meta_db_lease_end(struct meta_db *db, uint64_t lease);

#endif
