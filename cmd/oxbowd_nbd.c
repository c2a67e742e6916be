/*
 * oxbowd_nbd.c: the NBD listeners. Each has a fiber that brings it up, with patience if the address is taken, and puts its
 * unix socket back within a second if somebody removes the file. Until all stand the daemon is not ready.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <stdio.h>
#include <sys/stat.h>

#define LOOK_NS	      NS_PER_S
#define RETRY_MIN_NS  (5 * NS_PER_MS)
#define RETRY_MAX_NS  (2 * NS_PER_S)
#define HOLD_NAME_MAX 32

struct listener {
	struct node *node;
	const char *address;
	bool tls;
	char hold[HOLD_NAME_MAX];
	bool complained;
	uint64_t device, inode; /* of the unix socket's file; 0: gone */
};

static struct nbd_server *server; /* NULL: not started, or it could not be */

void nbd_pool_evict(void *ctx, const char *pool_name)
{
	(void)ctx;
	if (server)
		nbd_server_evict(server, pool_name);
}

static void socket_look(void *arg)
{
	struct listener *l = arg;
	struct stat st;
	bool there = lstat(l->address + 5, &st) == 0 && S_ISSOCK(st.st_mode);
	l->device = there ? st.st_dev : 0;
	l->inode = there ? st.st_ino : 0;
}

static int listen_once(struct listener *l, const char **bound)
{
	char message[400];
	int err = nbd_server_listen(server, l->address, bound);
	if (err) {
		snprintf(message, sizeof(message), "cannot serve NBD on %s: %s", l->address, err_text(err));
		node_hold(l->node, l->hold, "NbdNotListening", message,
			  "see who uses the address ('ss -lnp'); it is tried again by itself");
	}
	return err;
}

/* A process that is being killed may hold the address a little longer. So the first tries follow quickly, and only one who
 * stays is worth a line in the log. */
static void listen_first(struct listener *l)
{
	const char *bound;
	uint64_t wait_ns = RETRY_MIN_NS;
	int err;
	while ((err = listen_once(l, &bound)) != 0) {
		if (wait_ns > NS_PER_S && !l->complained)
			LOG_ERROR("nbd.listen_failed", "cannot serve NBD there; it is tried again",
				  F_STR("address", l->address), F_ERR(err));
		l->complained = wait_ns > NS_PER_S;
		fiber_sleep(wait_ns);
		wait_ns = u64_min(wait_ns * 2, RETRY_MAX_NS);
	}
	node_address_add(l->node, bound, NODE_NBD, l->tls);
	node_release(l->node, l->hold);
}

static void listener_main(void *arg)
{
	struct listener *l = arg;
	const char *bound;
	listen_first(l);
	if (strncmp(l->address, "unix:", 5) != 0)
		return;
	rt_offload(socket_look, l);
	for (;;) {
		uint64_t device = l->device, inode = l->inode;
		fiber_sleep(LOOK_NS);
		rt_offload(socket_look, l);
		if (inode == l->inode && device == l->device && inode)
			continue;
		if (nbd_server_listen(server, l->address, &bound) == 0)
			LOG_WARN("nbd.socket_remade", "the socket file was gone, and was made anew",
				 F_STR("address", bound));
		rt_offload(socket_look, l);
	}
}

static struct nbd_server *server_make(const struct daemon_options *o, struct node *node,
				      struct engines *engines)
{
	struct nbd_options options = {.tls = o->tls};
	struct nbd_server *made;
	int err = nbd_server_new(engines, &options, &made);
	if (!err)
		return made;
	node_hold(node, "nbd", "NbdNotServing", "NBD cannot be served: the TLS files are not usable",
		  "see the log ('oxbow events'), correct --tls-cert, --tls-key and --tls-ca, and restart");
	return NULL;
}

void nbd_start(const struct daemon_options *o, struct node *node, struct engines *engines)
{
	server = server_make(o, node, engines);
	for (size_t i = 0; server && i < o->nbd_count; i++) {
		struct listener *l = mem_zalloc(sizeof(*l));
		bool is_unix = strncmp(o->nbd[i], "unix:", 5) == 0;
		*l = (struct listener){
			.node = node, .address = o->nbd[i], .tls = !is_unix && o->tls.mode != NBD_TLS_OFF};
		snprintf(l->hold, sizeof(l->hold), "nbd-%zu", i);
		node_hold(node, l->hold, "NbdNotListening", "NBD is being started", "");
		fiber_spawn(node_rt(node), "nbd-listener", listener_main, l);
	}
}
