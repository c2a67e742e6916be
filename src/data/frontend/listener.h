/*
 * listener.h: where a server of the network frontends can be reached, and how many connections it has at most.
 *
 *     struct listeners l;   of one server; listeners_init, listeners_listen as often as wanted
 *     ops->start            is given each connection; when it is over, listeners_left
 *     listeners_close       nobody comes in any more; then the server ends its connections, and listeners_fini
 *
 * A listener is a fiber that accepts. What comes beyond `connections_max` is closed as soon as accepted, and logged once each
 * time the limit is reached. Out of descriptors it waits, for some will be closed.
 *
 *   who owns memory   the structs are the server's; a listener is ours, and stays until listeners_fini or until it is replaced
 *   which reactor     that of `rt`
 */
#ifndef OXBOW_DATA_FRONTEND_LISTENER_H
#define OXBOW_DATA_FRONTEND_LISTENER_H

#include "rt/rt.h"

struct listener {
	struct list link;
	struct listeners *set;
	struct rt_listener *listener;
	char *address; /* with the port that was picked */
	uint16_t id;   /* 1, 2 … as they were made */
	bool is_unix, is_closed;
	bool is_replaced; /* another listens at its address: it is in no list, and goes when its fiber ends */
};

struct listener_ops {
	const char *fiber_name, *full_event; /* static text */
	/* Takes the connection, which is counted already. Does not suspend. */
	void (*start)(struct listener *l, struct rt_conn *conn);
};

struct listeners {
	struct rt *rt;
	const struct listener_ops *ops;
	void *server;
	struct list all; /* struct listener */
	struct rt_group fibers;
	uint64_t accepted, refused; /* connections ever; refused: beyond the limit */
	uint32_t connections, connections_max;
	uint16_t last_id;
	bool is_closing, was_full;
};

void listeners_init(struct listeners *s, struct rt *rt, const struct listener_ops *ops, void *server,
		    uint32_t connections_max);
/* Listen at one more address, as rt_listen. Where one listened before (a unix socket whose file is gone: nobody can reach the old one
 * any more) the new takes the place of the old, whose connections stay. Suspends. */
OX_CHECKED int listeners_listen(struct listeners *s, const char *address, const struct listener **out);
/* A connection is over. */
void listeners_left(struct listeners *s);
/* Nobody comes in any more. Does not suspend. */
void listeners_close(struct listeners *s);
/* Suspends until the fibers have ended, and frees. */
void listeners_fini(struct listeners *s);

#endif
