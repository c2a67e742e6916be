/*
 * oxbowd.c: the daemon. Wires the rooms together, and then is a reactor until it is stopped or killed.
 *
 * Serving starts first: the API answers before the first pool is looked at, each pool recovers in a fiber of its own, and
 * /v1/ready tells when all is there. The end is an exit without a last word to the disks: killing it is as good (design
 * idea 2), and so there is one way to start, which is recovery, and it is the one that is tested.
 */
#include "oxbowd.h"

#include "base/log.h"
#include "control/api/http_server.h"
#include "host/host.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define INIT_POOL_NAME	    "default"
#define INIT_RETRY_MAX_NS   (60 * NS_PER_S)
#define DAEMON_WORKERS	    4
#define DAEMON_FILES_WANTED 65536

struct daemon {
	struct daemon_options options;
	struct rt *rt;
	struct events *events;
	struct engines *engines;
	struct node *node;
	struct api *api;
	struct http_server *http;
};

static struct rt *signalled_rt;
static volatile sig_atomic_t signalled;

/* ---- systemd ----------------------------------------------------------------------------------------------------------- */

/* One datagram to the socket the service manager named; "@" means the abstract namespace. Without one, nothing. */
static void notify(void *arg)
{
	const char *text = arg, *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path));
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (*path == '@')
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		LOG_WARN("daemon.notify_failed", "the service manager could not be told",
			 F_STR("text", text));
	if (fd >= 0)
		close(fd);
}

static void ready_main(void *arg)
{
	static char text[] = "READY=1\nSTATUS=every known pool is serving";
	struct daemon *d = arg;
	uint64_t start_ns = rt_now_exact_ns(d->rt);
	node_ready_wait(d->node, UINT64_MAX);
	LOG_INFO("daemon.ready", "every known pool is serving",
		 F_U64("after_us", (rt_now_exact_ns(d->rt) - start_ns) / NS_PER_US));
	rt_offload(notify, text);
}

/* ---- start ------------------------------------------------------------------------------------------------------------- */

static void init_pool_main(void *arg)
{
	struct daemon *d = arg;
	struct node_why why;
	uint64_t wait_ns = NS_PER_S;
	const char *path = d->options.init_pool_path;
	while (node_pool_ensure(d->node, path, d->options.init_pool_bytes, INIT_POOL_NAME, &why) != 0) {
		if (wait_ns == NS_PER_S)
			LOG_ERROR("daemon.init_pool_failed", why.message, F_STR("path", path));
		node_hold(d->node, "init-pool", "InitPoolFailed", why.message, why.hint);
		fiber_sleep(wait_ns);
		wait_ns = u64_min(2 * wait_ns, INIT_RETRY_MAX_NS);
	}
	node_release(d->node, "init-pool");
}

static void start_main(void *arg)
{
	struct daemon *d = arg;
	LOG_INFO("daemon.started", "oxbowd starts", F_STR("version", OXBOW_VERSION),
		 F_U64("process_id", (uint64_t)getpid()), F_STR("data_dir", d->options.data_dir),
		 F_STR("socket", d->options.socket_path));
	fiber_spawn(d->rt, "ready", ready_main, d);
	node_start(d->node);
	if (d->options.init_pool_path)
		fiber_spawn(d->rt, "init-pool", init_pool_main, d);
	nbd_start(&d->options, d->node, d->engines);
	nvmf_start(&d->options, d->node, d->engines);
	ublk_start(&d->options, d->node, d->engines);
	node_release(d->node, "start");
}

static void on_signal(int number)
{
	signalled = number;
	host_rt_stop(signalled_rt);
}

static void signals_set(struct rt *rt)
{
	struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
	signalled_rt = rt;
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

static void files_limit_raise(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max < DAEMON_FILES_WANTED ? limit.rlim_max : DAEMON_FILES_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int failed(const char *what, int err, const char *hint)
{
	fprintf(stderr, "oxbowd: %s: %s\nhint: %s\n", what, err_text(err), hint);
	return 1;
}

static void pool_evict(void *ctx, const char *pool_name)
{
	nbd_pool_evict(ctx, pool_name);
	nvmf_pool_evict(pool_name);
	ublk_pool_evict(pool_name);
}

static void volume_evict(void *ctx, const struct uuid *volume_id)
{
	(void)ctx;
	nbd_volume_evict(volume_id);
	nvmf_volume_evict(volume_id);
	ublk_volume_evict(volume_id);
}

static void rooms_make(struct daemon *d)
{
	struct node_options node = {.rt = d->rt,
				    .cache_bytes = d->options.cache_bytes,
				    .no_discard = d->options.no_discard,
				    .name = d->options.node_name,
				    .boot_id = boot_id_read()};
	d->events = events_new(d->rt, EVENTS_CAPACITY);
	daemon_log_start(&d->options, d->rt, d->events);
	d->engines = engines_new(d->rt);
	node.engines = d->engines;
	node.platform = files_platform(&d->options);
	meta_platform(&d->options, &node.platform);
	node.meta_is_shared = d->options.metastore != NULL;
	node.platform.copies_evict = copies_evict;
	node.cluster_secret = d->options.cluster_secret;
	node.copy_timeout_ns = d->options.copy_timeout_ns;
	node.copy_grace_ns = d->options.copy_grace_ns;
	node.platform.pool_evict = pool_evict;
	node.platform.volume_evict = volume_evict;
	node.platform.volumes_changed = nvmf_volumes_changed;
	node.platform.access_changed = nvmf_access_changed;
	d->node = node_new(&node);
	node_hold(d->node, "start", "Starting", "the daemon is starting", "");
	if (d->options.init_pool_path)
		node_hold(d->node, "init-pool", "Starting", "the initial pool is being opened", "");
	d->api = api_new(d->node, d->events);
}

static int daemon_run(struct daemon *d)
{
	static char stopping[] = "STOPPING=1";
	files_limit_raise();
	d->rt = host_rt_new(&(struct host_options){.worker_threads = DAEMON_WORKERS});
	if (!d->rt)
		return failed("cannot start", OXE_SYS,
			      "the kernel must allow io_uring (see sysctl kernel.io_uring_disabled)");
	rooms_make(d);
	signals_set(d->rt);
	int err = http_server_start(d->rt, d->api, d->options.socket_path, &d->http);
	if (err)
		return failed(d->options.socket_path, err, "choose another path with --socket");
	fiber_spawn_big(d->rt, "start", start_main, d);
	host_rt_run(d->rt);
	LOG_INFO("daemon.stopped", "stopped on request", F_U64("signal", (uint64_t)signalled));
	notify(stopping);
	return 0;
}

static int routes_print(void)
{
	struct text out = {0};
	api_routes_print(&out);
	fputs(text_get(&out), stdout);
	text_free(&out);
	return 0;
}

int main(int argc, char **argv)
{
	static struct daemon d;
	options_parse(argc, argv, &d.options);
	if (d.options.print_routes)
		return routes_print();
	if (d.options.check_path)
		return check_run(&d.options);
	if (host_survivor_start())
		fprintf(stderr,
			"oxbowd: no second process: connections may end late when this one is killed\n");
	data_dir_take(d.options.data_dir);
	int status = daemon_run(&d);
	fflush(NULL);
	_exit(status); /* other threads still run, and nothing is left to be done */
}
