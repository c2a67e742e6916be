/*
 * meta_sqlite.h: the metastore of one machine: an SQLite file, used by this process alone, or shared by several.
 *
 *     err = meta_sqlite_open(rt, "/var/lib/oxbow/meta.db", 0, &store, why);
 *     struct meta *m = meta_sqlite_client(store, rt);
 *
 * What is answered is on the disk (WAL, synchronous=FULL); kill -9 and power cuts at any moment lose no answered write, and no revision is
 * given twice. SQLite works on worker threads, one request after another. A call takes as long as the disk takes.
 *
 *   which reactor     the store has the one it was opened on; clients may be on any, and cross over by themselves
 *   who owns memory   meta_sqlite_close frees the store; its clients are closed before
 *   errors            those of meta.h. OXE_INDOUBT only if the disk failed a commit; then the store has stopped and all is OXE_FAILED: close
 *                     it and open it again, which reads from the disk what is true
 *
 * All of it suspends.
 */
#ifndef OXBOW_CONTROL_META_META_SQLITE_H
#define OXBOW_CONTROL_META_META_SQLITE_H

#include "base/uuid.h"
#include "control/meta/meta.h"
#include "rt/rt.h"

struct meta_sqlite;

#define META_SQLITE_WHY_BYTES 256

/* A new, empty store under an id that the caller chose. Doing it twice is doing it once; a creation that was killed is gone on with.
 * OXE_EXISTS: another store is there. OXE_OCCUPIED: something else is. Neither is touched. `why` says it in words. */
OX_CHECKED int meta_sqlite_create(struct rt *rt, const char *path, const struct uuid *id,
				  char why[META_SQLITE_WHY_BYTES]);
/* Open one that is there, check all of it, and bring its schema up to date. keep_revisions: how much history; 0: META_KEEP_REVISIONS.
 * Leases begin anew. OXE_NOENT: there is none, or its creation was never finished. OXE_BUSY: it is open already, perhaps in a process
 * that is just dying. OXE_CORRUPT, OXE_OCCUPIED, OXE_VERSION: it is left as it is, for a person to look at; `why` says in words what is
 * wrong with it. */
OX_CHECKED int meta_sqlite_open(struct rt *rt, const char *path, uint64_t keep_revisions,
				struct meta_sqlite **out, char why[META_SQLITE_WHY_BYTES]);
const struct uuid *meta_sqlite_id(const struct meta_sqlite *store);
/* The same, beside other processes of this machine that opened it shared. A watch hears of what they did within META_SQLITE_LOOK_NS. There
 * are no leases: OXE_INVAL. OXE_BUSY of any call: another one held it for long; nothing was done. */
#define META_SQLITE_LOOK_NS (100 * NS_PER_MS)
OX_CHECKED int meta_sqlite_open_shared(struct rt *rt, const char *path, uint64_t keep_revisions,
				       struct meta_sqlite **out, char why[META_SQLITE_WHY_BYTES]);
/* Every client is closed. */
void meta_sqlite_close(struct meta_sqlite *store);

/* A client on a reactor, made by a fiber of it. */
struct meta *meta_sqlite_client(struct meta_sqlite *store, struct rt *rt);

#endif
