/*
 * mirrored.h: what the files about mirrored volumes share among themselves; what others in this room may ask is in node_impl.h.
 *
 *     node_mirrored.c   finding, entering, leaving, the record
 *     mirrored_show.c   what is shown
 *
 * Nothing here owns anything. Facts (const struct fact_volume *) are good until the caller suspends.
 */
#ifndef OXBOW_CONTROL_NODE_MIRRORED_H
#define OXBOW_CONTROL_NODE_MIRRORED_H

#include "control/node/node_impl.h"

/* ---- mirrored_show.c ------------------------------------------------------------------------------------------------- */

/* Does not suspend. */
void mirrored_info_fill(struct node *n, const struct fact_volume *f, struct node_volume *out);
/* Has the view, as it is known here, a copy of it in this pool, whatever that one's role? */
bool mirrored_has_copy(const struct node *n, const struct uuid *volume_id, const struct uuid *pool_id);

#endif
