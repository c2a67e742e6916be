/*
 * engine.h: what frontends serve. One engine a served volume or snapshot, of a pool of this process or of a mirror (mirror.h).
 *
 * The engine is the frontends' only way in: it finds things by export name, counts and times what passes, and bounds what is
 * in flight. What is behind it, one copy or several, they need not know.
 *
 *   names             of a pool's: "VOLUME", "VOLUME@SNAPSHOT", either with "POOL/" in front; without it the name must be unique.
 *                     Of a mirrored one: "VOLUME", "VOLUME@SNAPSHOT", and that must be unique, too. A copy in a pool, whose name
 *                     is a system's (pool.h), is not to be had by name, by id, or by listing
 *   which reactor     all calls from fibers of the pool's, or the mirror's, reactor; calls Suspend unless they say otherwise
 *   errors            those of data/store/pool.h, and of a mirrored volume OXE_FENCED; see engine_is_lost
 *   waiting           a call on a mirrored volume waits for as long as no copy answers (V9): it never fails for that
 */
#ifndef OXBOW_DATA_ENGINE_ENGINE_H
#define OXBOW_DATA_ENGINE_ENGINE_H

#include "base/hist.h"
#include "data/engine/mirror.h"
#include "data/store/pool.h"

#define ENGINE_EXPORT_NAME_MAX (3 * POOL_NAME_MAX + 2)

struct engines; /* everything this process serves */
struct engine;

struct engines *engines_new(struct rt *rt);
void engines_free(struct engines *set); /* no engine may be open */
/* Do not suspend. A pool is removed before it is closed: OXE_BUSY while an engine of it is open. */
void engines_add_pool(struct engines *set, struct pool *pool);
OX_CHECKED int engines_remove_pool(struct engines *set, struct pool *pool);

/* ---- mirrored volumes -------------------------------------------------------------------------------------------------- */

/* A mirrored volume's notes, which lie in no pool. Calls suspend, for as long as it takes to know what came of them: as pool_note_set and
 * pool_note_get, so an error of set means that the note is what it was, for good, whatever a frontend does next. An engine whose
 * volume another has taken sets none. Of what cannot be asked now get is OXE_NOTREADY, and soon: hosts are kept out meanwhile. */
struct engine_notes {
	int (*set)(struct engine_notes *n, const struct uuid *volume_id, enum pool_note_kind kind,
		   const void *data, uint32_t len_bytes);
	int (*get)(struct engine_notes *n, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		   uint32_t *len_bytes);
};

struct engine_mirror_options {
	const char *name; /* what people call the volume */
	/* The caller's, until the volume is removed here. */
	struct mirror *mirror;
	struct engine_notes *notes;
};
/* Served from now on, once the mirror serves. OXE_INVAL: no volume can have such a name. OXE_EXISTS: another mirrored volume is
 * called so, or anything here has that id. Does not suspend. */
OX_CHECKED int engines_add_mirror(struct engines *set, const struct engine_mirror_options *o);
/* Who has it open goes on. OXE_NOENT, OXE_INVAL, OXE_EXISTS. Does not suspend. */
OX_CHECKED int engines_rename_mirror(struct engines *set, const struct uuid *volume_id, const char *name);
/* OXE_BUSY while an engine of it, or of a snapshot, is open. To take it away from clients: mirror_stop, whereupon nobody opens it any
 * more; then let the frontends evict the volume and try this, until it is 0; then mirror_close. 0 if it is not here. Does not suspend. */
OX_CHECKED int engines_remove_mirror(struct engines *set, const struct uuid *volume_id);

/* ---- what can be served ------------------------------------------------------------------------------------------------- */

struct engine_export {
	char name[ENGINE_EXPORT_NAME_MAX + 1]; /* the shortest name that is unique */
	struct uuid id, volume_id;	       /* equal unless it is a snapshot */
	uint64_t size_bytes;
	uint32_t lba_bytes;
	bool read_only, is_snapshot, is_mirrored;
};
/* Every volume, followed by its snapshots; mirrored ones last, without a size until a copy has said it. Does not suspend, nor may `fn`;
 * it returns false to stop. */
void engines_walk(struct engines *set, bool (*fn)(void *ctx, const struct engine_export *e), void *ctx);

/* Counted: every open of one name shares one engine. OXE_NOENT; OXE_INVAL if the bare name could mean two. OXE_FENCED, OXE_SHUTDOWN: the
 * mirror is over, and another may come in its place. OXE_NOTREADY: a mirror does not serve, and says only then which snapshots it has. */
OX_CHECKED int engine_open(struct engines *set, const char *export_name, struct engine **out);
/* A volume by its id, which no rename changes. OXE_NOENT; OXE_INVAL if it is here twice. */
OX_CHECKED int engine_open_volume(struct engines *set, const struct uuid *volume_id, struct engine **out);
/* The same for a volume or a snapshot. */
OX_CHECKED int engine_open_id(struct engines *set, const struct uuid *id, struct engine **out);
void engine_close(struct engine *e);
/* Does anybody have it open, a volume or a snapshot? A mirrored one that is open is not to be deleted. Does not suspend. */
bool engines_is_open(const struct engines *set, const struct uuid *id);
/* By how many; 0 also while the last one is closing it. Does not suspend. */
uint32_t engines_open_count(const struct engines *set, const struct uuid *id);

/* Until it is served: until then a mirrored volume may not know its size, and calls of it wait. 0 at once for a pool's. OXE_TIMEOUT,
 * OXE_FENCED, OXE_SHUTDOWN. */
OX_CHECKED int engine_wait(struct engine *e, uint64_t deadline_ns);
/* What is served so has gone, and clients may find it again, here or elsewhere: its pool failed or is being closed, its mirror was fenced or
 * stopped. What was asked may or may not have happened. A frontend does not answer, which a client would take for the end of its data:
 * it ends the client's connection, closes the engine, and lets the client come again. */
static inline bool engine_is_lost(int err)
{
	return err == OXE_FAILED || err == OXE_SHUTDOWN || err == OXE_FENCED;
}

/* Do not suspend; valid until engine_close. */
const struct vol_info *engine_info(const struct engine *e);
const char *engine_name(
	const struct engine *e); /* "POOL/VOLUME[@SNAPSHOT]"; of a mirrored volume without "POOL/" */
const struct uuid *engine_volume_id(const struct engine *e);	       /* of a snapshot: its volume's */
bool engine_is_of_pool(const struct engine *e, const char *pool_name); /* no mirrored volume is */
bool engine_is_of_volume(const struct engine *e, const struct uuid *volume_id);
/* The names of the volume's snapshots in order of age, of a snapshot those of its volume. Not all need be ancestors:
 * engine_extents says. Does not suspend, nor may `fn`; it returns false to stop. */
void engine_snapshot_walk(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot), void *ctx);

OX_CHECKED int engine_read(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int engine_write(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
			    unsigned vol_flags);
OX_CHECKED int engine_zero(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags);
OX_CHECKED int engine_trim(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int engine_flush(struct engine *e);
/* As vol_extents, with `since` by snapshot name (NULL: none). */
OX_CHECKED int engine_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes,
			      uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			      size_t *extent_count);

/* A note of the volume (pool_note_set, pool_note_get): what a frontend must know of it after a restart. Durable when set returns 0;
 * up to POOL_NOTE_BYTES_MAX bytes. Of a mirrored volume it is where engine_mirror_options say. A snapshot has none: OXE_ROFS, OXE_NOENT. */
OX_CHECKED int engine_note_set(struct engine *e, enum pool_note_kind kind, const void *data,
			       uint32_t len_bytes);
OX_CHECKED int engine_note_get(struct engine *e, enum pool_note_kind kind, void *data, uint32_t *len_bytes);
/* The same of a volume that nobody has to have open. OXE_NOENT: it has none, or there is no such volume. */
OX_CHECKED int engines_note_get(struct engines *set, const struct uuid *volume_id, enum pool_note_kind kind,
				void *data, uint32_t *len_bytes);

/* The volume that a snapshot is of; a volume is its own. OXE_NOENT. */
OX_CHECKED int engines_volume_of(struct engines *set, const struct uuid *id, struct uuid *volume_id);

enum engine_op { ENGINE_READ, ENGINE_WRITE, ENGINE_ZERO, ENGINE_TRIM, ENGINE_FLUSH, ENGINE_OPS };
const char *engine_op_name(enum engine_op op); /* "read" ... */

struct engine_stats {
	uint64_t ops[ENGINE_OPS], bytes[ENGINE_OPS], errors[ENGINE_OPS];
	struct hist latency_ns[ENGINE_OPS];
	uint32_t in_flight, open_count;
};
/* Statistics outlive engine_close, per export name, until the volume, or its mirror, is gone. Does not suspend. */
void engines_stats_walk(struct engines *set,
			bool (*fn)(void *ctx, const char *name, const struct engine_stats *s), void *ctx);

#endif
