/*
 * oxbowd_nbd.c: the NBD listeners. Each has a fiber that brings it up, with patience if the address is taken, and puts its
 * unix socket back within a second if somebody removes the file. Until all stand the daemon is not ready.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <stdio.h>
#include <sys/stat.h>

#define LOOK_NS	      NS_PER_S
#define RETRY_MAX_NS  (30 * NS_PER_S)
#define HOLD_NAME_MAX 32

struct listener {
	struct node *node;
	struct nbd_server *server;
	const char *address;
	bool tls;
	char hold[HOLD_NAME_MAX];
	struct rt_group *first_try;
	uint64_t device, inode; /* of the unix socket's file; 0: gone */
};

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
	int err = nbd_server_listen(l->server, l->address, bound);
	if (err) {
		snprintf(message, sizeof(message), "cannot serve NBD on %s: %s", l->address, err_text(err));
		node_hold(l->node, l->hold, "NbdNotListening", message,
			  "see who uses the address ('ss -lnp'); it is tried again by itself");
	}
	return err;
}

static void listen_first(struct listener *l)
{
	const char *bound;
	uint64_t wait_ns = NS_PER_S;
	int err = listen_once(l, &bound);
	if (err)
		LOG_ERROR("nbd.listen_failed", "cannot serve NBD there; it is tried again",
			  F_STR("address", l->address), F_ERR(err));
	group_done(l->first_try);
	for (; err; err = listen_once(l, &bound)) {
		fiber_sleep(wait_ns);
		wait_ns = u64_min(wait_ns * 2, RETRY_MAX_NS);
	}
	node_address_add(l->node, bound, l->tls);
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
		if (nbd_server_listen(l->server, l->address, &bound) == 0)
			LOG_WARN("nbd.socket_remade", "the socket file was gone, and was made anew",
				 F_STR("address", bound));
		rt_offload(socket_look, l);
	}
}

static struct nbd_server *server_make(const struct daemon_options *o, struct node *node,
				      struct engines *engines)
{
	struct nbd_options options = {.tls = o->tls};
	struct nbd_server *server;
	int err = nbd_server_new(engines, &options, &server);
	if (!err)
		return server;
	node_hold(node, "nbd", "NbdNotServing", "NBD cannot be served: the TLS files are not usable",
		  "see the log ('oxbow events'), correct --tls-cert, --tls-key and --tls-ca, and restart");
	return NULL;
}

void nbd_start(const struct daemon_options *o, struct node *node, struct engines *engines)
{
	struct rt_group first_try;
	struct nbd_server *server = server_make(o, node, engines);
	group_init(&first_try);
	for (size_t i = 0; server && i < o->nbd_count; i++) {
		struct listener *l = mem_zalloc(sizeof(*l));
		bool is_unix = strncmp(o->nbd[i], "unix:", 5) == 0;
		*l = (struct listener){.node = node,
				       .server = server,
				       .address = o->nbd[i],
				       .tls = !is_unix && o->tls.mode != NBD_TLS_OFF,
				       .first_try = &first_try};
		snprintf(l->hold, sizeof(l->hold), "nbd-%zu", i);
		node_hold(node, l->hold, "NbdNotListening", "NBD is being started", "");
		group_add(&first_try, 1);
		fiber_spawn(node_rt(node), "nbd-listener", listener_main, l);
	}
	group_wait(&first_try);
}
