/*
 * mirrored.h: what the files about mirrored volumes share among themselves; what others in this room may ask is in node_impl.h.
 *
 *     node_mirrored.c       finding, entering, leaving, the record
 *     mirrored_show.c       what is shown
 *     mirrored_create.c     create
 *     mirrored_change.c     rename, grow, delete, move
 *     mirrored_copies.c     copies added and given up, compared
 *     mirrored_notes.c      notes, for whoever serves
 *     mirrored_snapshot.c   snapshots, extents, ids
 *     mirrored_erase.c      the record of a deleted one, for its keeper (node_mirror.c)
 *
 * Nothing here owns anything. Facts (const struct fact_volume *) are good until the caller suspends.
 */
#ifndef OXBOW_CONTROL_NODE_MIRRORED_H
#define OXBOW_CONTROL_NODE_MIRRORED_H

#include "control/node/node_impl.h"

/* ---- node_mirrored.c ---------------------------------------------------------------------------------------------------- */

/* A pool that is open here or on record, by name or uuid. OXE_NOENT, OXE_INVAL: several are called so. */
OX_CHECKED int mirrored_pool_resolve(struct node *n, const char *ref, struct uuid *id, struct node_why *why);
/* Why a reference that names no mirrored volume cannot be meant: there is no such volume, or it is one of one pool (OXE_INVAL). */
OX_CHECKED int mirrored_missing(struct node *n, const char *ref, struct node_why *why);
/* Where its home is. OXE_NOTREADY. */
OX_CHECKED int mirrored_elsewhere(struct node *n, const struct fact_volume *f, struct node_why *why);
/* Its engine runs here and serves: it may have paused for a change a moment ago. Leave it again. OXE_NOTREADY, OXE_NOENT. */
OX_CHECKED int mirrored_engine_enter(struct node *n, const struct uuid *id, struct mirrored **out,
				     struct node_why *why);
/* Returns err. */
int mirrored_engine_leave(struct mirrored *v, int err);
/* What the engine answered to `what` ("grow"), as a sentence; it may have been fenced, or stopped, in the middle of it. Returns err, or
 * OXE_NOTREADY for a fenced one. */
int mirrored_engine_said(struct node_why *why, int err, const char *name, const char *what);
/* Until it serves; or until its copies were refused, which waiting may not mend. */
OX_CHECKED int mirrored_serve_wait(struct node *n, const struct uuid *id, struct node_why *why);

/* Change the record as `edit` says, from whatever it is now. `edit` returns 0, or why not, having filled `why`. */
OX_CHECKED int mirrored_record_edit(struct node *n, const struct uuid *id,
				    int (*edit)(struct fact_volume *f, const void *arg, struct node_why *why),
				    const void *arg, struct node_why *why);

/* ---- mirrored_show.c ------------------------------------------------------------------------------------------------- */

/* Does not suspend. */
void mirrored_info_fill(struct node *n, const struct fact_volume *f, struct node_volume *out);
/* Has the view, as it is known here, a copy of it in this pool, whatever that one's role? */
bool mirrored_has_copy(const struct node *n, const struct uuid *volume_id, const struct uuid *pool_id);

/* ---- mirrored_create.c ----------------------------------------------------------------------------------------------- */

/* No mirrored volume is called so, and none in a pool that is open here. OXE_EXISTS. */
OX_CHECKED int mirrored_name_is_free(struct node *n, const char *name, struct node_why *why);

/* ---- mirrored_erase.c ------------------------------------------------------------------------------------------------ */

/* Take the record of a deleted volume away; its copies are then on record to be reaped. OXE_DIFFERS, OXE_NOTREADY: again later. */
OX_CHECKED int mirrored_erase(struct node *n, const struct fact_volume *known);

#endif
