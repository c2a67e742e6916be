/*
 * oxbowd_nbd.c: the NBD listeners. Each has a fiber that brings it up, and puts its unix socket back within a second if somebody
 * removes the file.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <stdio.h>
#include <sys/stat.h>

#define LOOK_NS NS_PER_S

struct listener {
	struct address address;
	bool tls;
	uint64_t device, inode; /* of the unix socket's file; 0: gone */
};

static struct nbd_server *server; /* NULL: not started, or it could not be */

void nbd_pool_evict(void *ctx, const char *pool_name)
{
	(void)ctx;
	if (server)
		nbd_server_evict(server, pool_name);
}

void nbd_volume_evict(const struct uuid *volume_id)
{
	if (server)
		nbd_server_evict_volume(server, volume_id);
}

static int nbd_listen(const char *address, const char **bound)
{
	return nbd_server_listen(server, address, bound);
}

static const struct address_kind kind = {
	.name = "NBD",
	.hold = "nbd",
	.reason = "NbdNotListening",
	.failed_event = "nbd.listen_failed",
	.protocol = NODE_NBD,
	.listen = nbd_listen,
};

static void socket_look(void *arg)
{
	struct listener *l = arg;
	struct stat st;
	bool there = lstat(l->address.text + 5, &st) == 0 && S_ISSOCK(st.st_mode);
	l->device = there ? st.st_dev : 0;
	l->inode = there ? st.st_ino : 0;
}

static void listener_main(void *arg)
{
	struct listener *l = arg;
	const char *bound;
	address_bring_up(&l->address, l->tls);
	if (strncmp(l->address.text, "unix:", 5) != 0)
		return;
	rt_offload(socket_look, l);
	for (;;) {
		uint64_t device = l->device, inode = l->inode;
		fiber_sleep(LOOK_NS);
		rt_offload(socket_look, l);
		if (inode == l->inode && device == l->device && inode)
			continue;
		if (nbd_server_listen(server, l->address.text, &bound) == 0)
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
		l->tls = !is_unix && o->tls.mode != NBD_TLS_OFF;
		address_init(&l->address, &kind, node, o->nbd[i], i);
		fiber_spawn(node_rt(node), "nbd-listener", listener_main, l);
	}
}
