/*
 * mirrored.h: what the files about mirrored volumes share among themselves; what others in this room may ask is in node_impl.h.
 *
 *     node_mirrored.c     finding, entering, leaving, the record
 *     mirrored_show.c     what is shown
 *     mirrored_create.c   create
 *
 * Nothing here owns anything. Facts (const struct fact_volume *) are good until the caller suspends.
 */
#ifndef OXBOW_CONTROL_NODE_MIRRORED_H
#define OXBOW_CONTROL_NODE_MIRRORED_H

#include "control/node/node_impl.h"

/* ---- node_mirrored.c ---------------------------------------------------------------------------------------------------- */

/* A pool that is open here or on record, by name or uuid. OXE_NOENT, OXE_INVAL: several are called so. */
OX_CHECKED int mirrored_pool_resolve(struct node *n, const char *ref, struct uuid *id, struct node_why *why);
/* Until it serves; or until its copies were refused, which waiting may not mend. */
OX_CHECKED int mirrored_serve_wait(struct node *n, const struct uuid *id, struct node_why *why);

/* ---- mirrored_show.c ------------------------------------------------------------------------------------------------- */

/* Does not suspend. */
void mirrored_info_fill(struct node *n, const struct fact_volume *f, struct node_volume *out);
/* Has the view, as it is known here, a copy of it in this pool, whatever that one's role? */
bool mirrored_has_copy(const struct node *n, const struct uuid *volume_id, const struct uuid *pool_id);

/* ---- mirrored_create.c ----------------------------------------------------------------------------------------------- */

/* No mirrored volume is called so, and none in a pool that is open here. OXE_EXISTS. */
OX_CHECKED int mirrored_name_is_free(struct node *n, const char *name, struct node_why *why);

#endif
