/*
 * oxbow_client.h: calls to the daemon's API over its unix socket.
 *
 * A call whose connection is lost half way is sent again, for up to RETRY_S seconds: the daemon may have been killed and be
 * back in a moment. That is safe because every change names its object by an id chosen here, before the first try.
 *
 *   who owns memory   the answer is the caller's: answer_free
 */
#ifndef OXBOW_CMD_OXBOW_CLIENT_H
#define OXBOW_CMD_OXBOW_CLIENT_H

#include "base/text.h"
#include "control/js.h"

#define CLIENT_RETRY_S 15

struct client;

struct answer {
	int status;	 /* 0: the daemon was not reached; `why` says more */
	struct text raw; /* the body as it came */
	struct js *body; /* NULL if there is none, or it is not JSON */
	char why[256];
};

struct client *client_new(const char *socket_path);
void client_free(struct client *client);
/* While a call waits for its answer `fn` is called now and then: several times a second at first, then about once. It may call
 * through another client. NULL: nothing is called. */
void client_on_wait(struct client *client, void (*fn)(void *ctx), void *ctx);
const char *client_socket(const struct client *client);
enum client_patience {
	CLIENT_ONCE,	/* one try: the caller has a loop of its own */
	CLIENT_RESEND,	/* send again when the connection was lost half way */
	CLIENT_PATIENT, /* and also when nobody listens */
};
/* `body` may be NULL, and stays the caller's. `target` is encoded already. */
void client_call(struct client *client, const char *method, const char *target, const struct js *body,
		 enum client_patience patience, struct answer *out);
void answer_free(struct answer *answer);
/* Appends `text` percent-encoded, so that it may be one part of a path or a query's value. */
void target_add(struct text *target, const char *text);

#endif
