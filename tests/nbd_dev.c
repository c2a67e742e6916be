/*
 * nbd_dev.c: serve arrays over NBD on real sockets, for trying and measuring clients where the store's cost would be in the
 * way. Not installed.
 *
 *     nbd_dev SIZE_MIB ADDRESS... [--tls off|optional|required CERT KEY CLIENT_CA|-]
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
	struct pool *pool = pool_double_new("tank");
	struct uuid id = pool_double_volume(pool, "disk", strtoull(argv_[1], NULL, 10) * MiB, 512);
	struct engines *engines = engines_new(rt);
	pool_double_snapshot(pool, &id, "empty");
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

static void main_fiber(void *arg)
{
	(void)arg;
	int err = serve();
	if (err) {
		fprintf(stderr, "nbd_dev: %s\n", err_text(err));
		exit_code = 1;
		host_rt_stop(rt);
	}
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
