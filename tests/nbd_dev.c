/*
 * nbd_dev.c: serve arrays over NBD on real sockets, for trying and measuring clients where the store's cost would be in the
 * way. Not installed.
 *
 *     nbd_dev SIZE_MIB ADDRESS... [--tls off|optional|required CERT KEY CLIENT_CA|-]
 *
 * It starts with the volume "disk", unless its size is 0. A line "volume NAME SIZE_MIB" or "snapshot VOLUME NAME" on standard input makes more.
 */
#include "base/log.h"
#include "data/engine/pool_double.h"
#include "data/frontend/nbd/nbd.h"
#include "host/host.h"

#include <signal.h>
#include <stdio.h>

static struct rt *rt;
static int argc_, exit_code;
static char **argv_;
static struct pool *the_pool;

static void print_event(void *ctx, const struct log_event *event)
{
	char line[1024];
	(void)ctx;
	log_format_text(event, line, sizeof(line));
	fprintf(stderr, "%s\n", line);
}

static void stop(int signo)
{
	(void)signo;
	host_rt_stop(rt);
}

static int tls_options(int at, struct nbd_tls_options *out)
{
	static const char *const modes[] = {"off", "optional", "required"};
	if (argc_ - at != 5)
		return OXE_INVAL;
	for (int i = 0; i < 3; i++)
		if (strcmp(argv_[at + 1], modes[i]) == 0)
			out->mode = (enum nbd_tls_mode)i;
	out->certificate_file = argv_[at + 2];
	out->key_file = argv_[at + 3];
	out->client_ca_file = strcmp(argv_[at + 4], "-") == 0 ? NULL : argv_[at + 4];
	return 0;
}

static int serve(void)
{
	struct nbd_options options = {0};
	struct nbd_server *server;
	const char *bound;
	int end = 2, err = 0;
	while (end < argc_ && strcmp(argv_[end], "--tls") != 0)
		end++;
	if (end < argc_)
		err = tls_options(end, &options.tls);
	struct pool *pool = the_pool = pool_double_new("tank");
	struct engines *engines = engines_new(rt);
	uint64_t size_bytes = strtoull(argv_[1], NULL, 10) * MiB;
	if (size_bytes > 0)
		pool_double_volume(pool, "disk", size_bytes, 512);
	engines_add_pool(engines, pool);
	if (err == 0)
		err = nbd_server_new(engines, &options, &server);
	for (int i = 2; err == 0 && i < end; i++) {
		err = nbd_server_listen(server, argv_[i], &bound);
		if (err == 0)
			printf("%s\n", bound);
	}
	fflush(stdout);
	return err;
}

static char line[256];

static void read_line(void *arg)
{
	*(bool *)arg = fgets(line, sizeof(line), stdin) != NULL;
}

static void obey(void)
{
	char verb[32], first[64], second[64];
	struct volume_info volume;
	if (sscanf(line, "%31s %63s %63s", verb, first, second) != 3)
		return;
	if (strcmp(verb, "volume") == 0)
		pool_double_volume(the_pool, first, strtoull(second, NULL, 10) * MiB, 512);
	else if (strcmp(verb, "snapshot") == 0 && volume_find(the_pool, first, &volume) == 0)
		pool_double_snapshot(the_pool, &volume.id, second);
	printf("done\n");
	fflush(stdout);
}

static void obey_lines(void)
{
	bool more = true;
	while (rt_offload(read_line, &more), more)
		obey();
}

static void main_fiber(void *arg)
{
	(void)arg;
	int err = serve();
	if (err) {
		fprintf(stderr, "nbd_dev: %s\n", err_text(err));
		exit_code = 1;
		host_rt_stop(rt);
		return;
	}
	obey_lines();
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	argc_ = argc;
	argv_ = argv;
	log_sink_set(print_event, NULL, LOG_LEVEL_INFO);
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	rt = host_rt_new(&(struct host_options){0});
	fiber_spawn(rt, "main", main_fiber, NULL);
	host_rt_run(rt);
	return exit_code;
}
