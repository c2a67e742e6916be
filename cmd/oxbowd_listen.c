/*
 * oxbowd_listen.c: an address that is to be served, whatever over: brought up with patience if it is taken. Until it stands the
 * daemon is not ready.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <stdio.h>

#define RETRY_MIN_NS (5 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)

void address_init(struct address *a, const struct address_kind *kind, struct node *node, const char *text,
		  size_t index)
{
	char message[100];
	*a = (struct address){.kind = kind, .node = node, .text = text};
	snprintf(a->hold, sizeof(a->hold), "%s-%zu", kind->hold, index);
	snprintf(message, sizeof(message), "%s is being started", kind->name);
	node_hold(node, a->hold, kind->reason, message, "");
}

static int listen_once(struct address *a, const char **bound)
{
	char message[400];
	int err = a->kind->listen(a->text, bound);
	if (err) {
		snprintf(message, sizeof(message), "cannot serve %s on %s: %s", a->kind->name, a->text,
			 err_text(err));
		node_hold(a->node, a->hold, a->kind->reason, message,
			  "see who uses the address ('ss -lnp'); it is tried again by itself");
	}
	return err;
}

static void complain(const struct address *a, int err)
{
	char message[100];
	snprintf(message, sizeof(message), "cannot serve %s there; it is tried again", a->kind->name);
	LOG_ERROR(a->kind->failed_event, message, F_STR("address", a->text), F_ERR(err));
}

/* A process that is being killed may hold the address a little longer. So the first tries follow quickly, and only one who
 * stays is worth a line in the log. */
void address_bring_up(struct address *a, bool tls)
{
	const char *bound;
	uint64_t wait_ns = RETRY_MIN_NS;
	bool complained = false;
	int err;
	while ((err = listen_once(a, &bound)) != 0) {
		if (wait_ns > NS_PER_S && !complained)
			complain(a, err);
		complained = wait_ns > NS_PER_S;
		fiber_sleep(wait_ns);
		wait_ns = u64_min(wait_ns * 2, RETRY_MAX_NS);
	}
	node_address_add(a->node, bound, a->kind->protocol, tls);
	node_release(a->node, a->hold);
}
