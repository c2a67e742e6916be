/*
 * views.h: the engines' store of views (view.h), kept in the metastore: one key a volume, changed by compare-and-swap alone.
 *
 * The outcome of a swap that the metastore does not tell is asked for again for SETTLE_NS, by the same swap; after that it is OXE_INDOUBT
 * and the engine asks, again by the same swap: which finds its own bytes there if it was done. They name the engine and its epoch, so
 * nobody else ever writes the same. A metastore that is away, stopped, or busy with another process is OXE_NOTREADY.
 *
 *   who owns memory   the caller; what `ctx` points to stays as long as an engine uses the store
 *   which reactor     that of the metastore's client; calls suspend
 */
#ifndef OXBOW_CONTROL_NODE_VIEWS_H
#define OXBOW_CONTROL_NODE_VIEWS_H

#include "control/meta/meta.h"
#include "data/engine/view.h"

struct views {
	struct view_store store;
	/* A client, held until `leave`; NULL: there is none now. `err` is what the metastore said. */
	struct meta *(*enter)(void *ctx);
	void (*leave)(void *ctx, int err);
	void *ctx;
};

void views_init(struct views *v, struct meta *(*enter)(void *ctx), void (*leave)(void *ctx, int err),
		void *ctx);

#endif
