/*
 * oxbow-bench: load on volumes served over NVMe/TCP, with the project's own host, and how fast it was.
 *
 * One thread, one reactor. See bench_load.h for what is done, and for what --verify knows.
 */
#include "base/log.h"
#include "base/size.h"
#include "bench_load.h"
#include "control/js.h"
#include "data/nvme/nvme_auth_proof.h"
#include "data/nvme/nvme_nqn.h"
#include "host/host.h"
#include "oxbow_client.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define DEFAULT_SOCKET "/var/lib/oxbow/oxbow.sock"

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHED = 3 };

static struct {
	struct load_options load;
	const char *address, *socket;
	const char *volumes[LOAD_TARGETS_MAX];
	uint32_t volume_count;
	bool json, address_waits; /* an --address without an --nqn yet */
} options;

static struct {
	struct load_result result;
	int err;
	struct rt *rt;
} run;

static const char usage_text[] =
	"usage: oxbow-bench (--nqn NQN | --volume NAME)... [OPTION]...\n"
	"  --address tcp:HOST:PORT  where the NQNs that follow are served [tcp:127.0.0.1:4420]\n"
	"  --nqn NQN                a target; repeatable\n"
	"  --volume NAME            a volume of the daemon on this host, which tells where it is served; "
	"repeatable\n"
	"  --socket PATH            that daemon's socket [$OXBOW_SOCKET, or " DEFAULT_SOCKET "]\n"
	"  --rw KIND                randread, randwrite, read, write, or mixed [randread]\n"
	"  --reads PERCENT          of mixed [70]\n"
	"  --block SIZE             bytes of a request [4K]\n"
	"  --size SIZE              use this much of each target, from its beginning [all of it]\n"
	"  --depth N                requests in flight on each target, 1 to 8128 [32]\n"
	"  --queues N               I/O queues to each target, 1 to 64, a connection each [1]\n"
	"  --time SECONDS           how long [5]\n"
	"  --connect SECONDS        how long to wait for the first connection [10]\n"
	"  --seed N                 what is drawn, and with --verify what is written [the time]\n"
	"  --verify                 check what is read against what was written, and all of it at the end\n"
	"  --host-nqn NQN           what this host calls itself [a new uuid each time]\n"
	"  --tls-key-file FILE      come through TLS with the key in it, NVMeTLSkey-1:...:\n"
	"  --digests                CRC-32C of headers and data, if the target agrees\n"
	"  --no-in-capsule          send data only when asked for it\n"
	"  --secret-file FILE       prove that we have the secret in it, if asked to (oxbow volume allow)\n"
	"  --controller-secret-file FILE  and have the target prove that it has this one, or leave it alone\n"
	"  --dh-group GROUP         the least to agree to: null, ffdhe2048, ffdhe3072, ffdhe4096, "
	"ffdhe6144,\n"
	"                           ffdhe8192 [ffdhe2048]\n"
	"  --json                   print an object for programs\n"
	"  --help                   print this, and exit\n"
	"Writes destroy what is on the target. Lost connections are pauses: what was in flight is sent "
	"again.\n"
	"exit: 0 fine, 1 a request failed or held something wrong, 2 usage, 3 a target was not reached\n";

static _Noreturn void mistake(const char *format, ...) OX_PRINTF(1, 2);

static _Noreturn void mistake(const char *format, ...)
{
	va_list args;
	fprintf(stderr, "oxbow-bench: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nTry 'oxbow-bench --help'.\n");
	exit(EXIT_USAGE);
}

/* ---- options ------------------------------------------------------------------------------------------------------------------ */

static uint64_t number(const char *text, const char *name, uint64_t least, uint64_t most)
{
	char *end;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n < least || n > most)
		mistake("--%s takes a number from %llu to %llu, not \"%s\"", name, (unsigned long long)least,
			(unsigned long long)most, text);
	return n;
}

static uint64_t seconds_ns(const char *text, const char *name)
{
	char *end;
	double s = strtod(text, &end);
	if (*end || end == text || !(s > 0 && s <= 1e6))
		mistake("--%s takes seconds, not \"%s\"", name, text);
	return (uint64_t)(s * 1e9);
}

static uint64_t size(const char *text, const char *name)
{
	uint64_t bytes;
	if (size_parse(text, &bytes) || bytes == 0)
		mistake("--%s takes a size like 4K or 10G, not \"%s\"", name, text);
	return bytes;
}

static void rw_option(const char *text)
{
	for (int i = 0; i < LOAD_KINDS; i++) {
		if (strcmp(load_kind_names[i], text) == 0) {
			options.load.kind = (enum load_kind)i;
			return;
		}
	}
	mistake("--rw takes randread, randwrite, read, write or mixed, not \"%s\"", text);
}

/* The first line of a file; never an argument, which anybody on this machine may see. */
static const char *secret_of(const char *path)
{
	struct nvme_secret secret;
	char *line = NULL;
	size_t size_bytes = 0;
	FILE *file = fopen(path, "re");
	if (!file || getline(&line, &size_bytes, file) < 0)
		mistake("no secret can be read from %s", path);
	fclose(file);
	line[strcspn(line, "\r\n")] = '\0';
	if (nvme_secret_parse(line, &secret))
		mistake("%s holds no secret: it is DHHC-1:00:...: with a right sum", path);
	explicit_bzero(&secret, sizeof(secret));
	return line;
}

static void secret_option(const char *path)
{
	options.load.secret = secret_of(path);
}

static void controller_secret_option(const char *path)
{
	options.load.controller_secret = secret_of(path);
}

/* 1 + its number. */
static void dh_group_option(const char *text)
{
	uint8_t group;
	if (nvme_auth_group_parse(text, &group))
		mistake("--dh-group takes null, ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144 or ffdhe8192, not "
			"\"%s\"",
			text);
	options.load.least_group = (uint8_t)(group + 1);
}

static void target_add_nqn(const char *address, const char *nqn)
{
	if (options.load.target_count == LOAD_TARGETS_MAX)
		mistake("at most %d targets", LOAD_TARGETS_MAX);
	options.load.targets[options.load.target_count++] =
		(struct load_target){mem_strdup(address), mem_strdup(nqn)};
}

static void address_option(const char *text)
{
	options.address = text;
	options.address_waits = true;
}

static void nqn_option(const char *text)
{
	options.address_waits = false;
	target_add_nqn(options.address, text);
}

static void volume_option(const char *name)
{
	if (options.volume_count == LOAD_TARGETS_MAX)
		mistake("at most %d targets", LOAD_TARGETS_MAX);
	options.volumes[options.volume_count++] = name;
}

/* The first line of a file. */
static void tls_key_option(const char *path)
{
	char *line = NULL;
	size_t size_bytes = 0;
	FILE *file = fopen(path, "re");
	if (!file || getline(&line, &size_bytes, file) < 0)
		mistake("cannot read a key from %s", path);
	line[strcspn(line, "\r\n")] = '\0';
	fclose(file);
	options.load.tls_key = line;
}

static void seed_option(const char *text)
{
	options.load.seed = number(text, "seed", 0, UINT64_MAX);
}

/* What an option does with its value: the one of these that is there. */
static const struct option_row {
	const char *name;
	bool *flag; /* takes no value */
	const char **text;
	uint64_t *size_bytes, *time_ns;
	uint32_t *number;
	uint32_t least, most; /* of the number */
	void (*take)(const char *text);
} rows[] = {
	{"address", .take = address_option},
	{"nqn", .take = nqn_option},
	{"volume", .take = volume_option},
	{"socket", .text = &options.socket},
	{"rw", .take = rw_option},
	{"reads", .number = &options.load.read_percent, 0, 100},
	{"block", .size_bytes = &options.load.block_bytes},
	{"size", .size_bytes = &options.load.size_bytes},
	{"depth", .number = &options.load.depth, 1, 64 * 127},
	{"queues", .number = &options.load.queues, 1, NVME_HOST_QUEUES_MAX},
	{"time", .time_ns = &options.load.time_ns},
	{"connect", .time_ns = &options.load.connect_ns},
	{"seed", .take = seed_option},
	{"verify", .flag = &options.load.verify},
	{"host-nqn", .text = &options.load.host_nqn},
	{"tls-key-file", .take = tls_key_option},
	{"digests", .flag = &options.load.digests},
	{"no-in-capsule", .flag = &options.load.no_in_capsule},
	{"secret-file", .take = secret_option},
	{"controller-secret-file", .take = controller_secret_option},
	{"dh-group", .take = dh_group_option},
	{"json", .flag = &options.json},
};

static void option_take(const struct option_row *row, const char *text)
{
	if (row->flag)
		*row->flag = true;
	else if (row->text)
		*row->text = text;
	else if (row->size_bytes)
		*row->size_bytes = size(text, row->name);
	else if (row->time_ns)
		*row->time_ns = seconds_ns(text, row->name);
	else if (row->number)
		*row->number = (uint32_t)number(text, row->name, row->least, row->most);
	else
		row->take(text);
}

static void options_take(int argc, char **argv)
{
	struct option forms[ARRAY_COUNT(rows) + 2] = {[ARRAY_COUNT(rows)] = {"help", no_argument, NULL, 'h'}};
	int answer, index;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		forms[i].name = rows[i].name;
		forms[i].has_arg = rows[i].flag ? no_argument : required_argument;
	}
	while ((answer = getopt_long(argc, argv, "h", forms, &index)) == 0)
		option_take(&rows[index], optarg);
	if (answer != -1) {
		fputs(usage_text, answer == 'h' ? stdout : stderr);
		exit(answer == 'h' ? EXIT_FINE : EXIT_USAGE);
	}
}

static void options_read(int argc, char **argv)
{
	const char *environment = getenv("OXBOW_SOCKET");
	options.socket = environment && *environment ? environment : DEFAULT_SOCKET;
	options.address = "tcp:127.0.0.1:4420";
	options.load = (struct load_options){
		.block_bytes = 4 * KiB,
		.depth = 32,
		.queues = 1,
		.read_percent = 70,
		.time_ns = 5 * NS_PER_S,
		.connect_ns = 10 * NS_PER_S,
		.seed = (uint64_t)time(NULL),
	};
	options_take(argc, argv);
	if (optind < argc)
		mistake("what is \"%s\"?", argv[optind]);
	if (options.load.target_count + options.volume_count == 0)
		mistake("no target: give --nqn or --volume");
	if (options.address_waits)
		mistake("--address goes before the --nqn that it is for");
	if (options.load.target_count + options.volume_count > LOAD_TARGETS_MAX)
		mistake("at most %d targets", LOAD_TARGETS_MAX);
	if (options.load.controller_secret && !options.load.secret)
		mistake("--controller-secret-file goes with --secret-file");
	if (options.load.block_bytes % 512)
		mistake("--block takes a multiple of 512");
}

/* ---- where a volume is served ----------------------------------------------------------------------------------------------------- */

static _Noreturn void unreached(const char *name, const char *why)
{
	fprintf(stderr, "oxbow-bench: volume \"%s\": %s\n", name, why);
	exit(EXIT_UNREACHED);
}

/* "nvme+tcp://HOST:PORT/NQN" among its addresses. */
static bool uri_take(const char *uri)
{
	static const char prefix[] = "nvme+tcp://";
	char address[256];
	const char *slash =
		strncmp(uri, prefix, sizeof(prefix) - 1) == 0 ? strchr(uri + sizeof(prefix) - 1, '/') : NULL;
	if (!slash)
		return false;
	snprintf(address, sizeof(address), "tcp:%.*s", (int)(slash - uri - (int)sizeof(prefix) + 1),
		 uri + sizeof(prefix) - 1);
	target_add_nqn(address, slash + 1);
	return true;
}

static void volume_resolve(struct client *client, const char *name)
{
	struct text path = {0};
	struct answer answer;
	bool found = false;
	text_add(&path, "/v1/volumes/");
	target_add(&path, name);
	client_call(client, "GET", text_get(&path), NULL, CLIENT_RESEND, &answer);
	text_free(&path);
	if (answer.status != 200)
		unreached(name, answer.status ? "the daemon knows none of this name" : answer.why);
	const struct js *uris = js_get(answer.body, "uris");
	for (size_t i = 0; !found && i < js_length(uris); i++)
		found = uri_take(js_text(js_at(uris, i)));
	if (!found)
		unreached(name, "the daemon does not serve NVMe over TCP (oxbowd --nvme)");
	answer_free(&answer);
}

static void volumes_resolve(void)
{
	struct client *client = options.volume_count ? client_new(options.socket) : NULL;
	for (uint32_t i = 0; i < options.volume_count; i++)
		volume_resolve(client, options.volumes[i]);
	if (client)
		client_free(client);
}

/* ---- the report -------------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *title;
	unsigned permille;
} quantiles[] = {
	{"p50_ns", "p50", 500}, {"p90_ns", "p90", 900}, {"p99_ns", "p99", 990}, {"p999_ns", "p99.9", 999}};

static double cpu_s_per_million(const struct load_result *r)
{
	uint64_t n = r->operations[0] + r->operations[1];
	return n ? r->cpu_s * 1e6 / (double)n : 0;
}

static double per_s(const struct load_result *r, uint64_t n)
{
	return r->took_ns ? (double)n * 1e9 / (double)r->took_ns : 0;
}

static void report_way(const struct load_result *r, int way, const char *name)
{
	char text[SIZE_TEXT_MAX];
	const struct hist *h = &r->latency_ns[way];
	if (h->count == 0)
		return;
	printf("%-6s %10.0f IOPS %9.1f MiB/s  latency us: mean %.1f", name, per_s(r, r->operations[way]),
	       per_s(r, r->bytes[way]) / (double)MiB, (double)h->sum / (double)h->count / 1e3);
	for (size_t i = 0; i < ARRAY_COUNT(quantiles); i++)
		printf(" %s %.1f", quantiles[i].title, (double)hist_quantile(h, quantiles[i].permille) / 1e3);
	printf("  (%s)\n", size_format(r->bytes[way], text));
}

static void report_text(const struct load_result *r)
{
	report_way(r, 0, "read");
	report_way(r, 1, "write");
	printf("cpu %.3f s per million I/Os; longest pause %.1f ms; associations %llu, replayed %llu, errors "
	       "%llu\n",
	       cpu_s_per_million(r), (double)r->longest_pause_ns / 1e6, (unsigned long long)r->associations,
	       (unsigned long long)r->replayed, (unsigned long long)r->errors);
	if (options.load.verify)
		printf("verified: %llu units read were checked, %llu wrong (seed %llu)\n",
		       (unsigned long long)r->checked_units, (unsigned long long)r->wrong_units,
		       (unsigned long long)options.load.seed);
}

static struct js *way_js(const struct load_result *r, int way)
{
	struct js *o = js_object();
	const struct hist *h = &r->latency_ns[way];
	js_set_u64(o, "operations", r->operations[way]);
	js_set_u64(o, "iops", (uint64_t)per_s(r, r->operations[way]));
	js_set_u64(o, "bytes_per_s", (uint64_t)per_s(r, r->bytes[way]));
	js_set_u64(o, "mean_ns", h->count ? h->sum / h->count : 0);
	for (size_t i = 0; i < ARRAY_COUNT(quantiles); i++)
		js_set_u64(o, quantiles[i].name, hist_quantile(h, quantiles[i].permille));
	return o;
}

static void report_json(const struct load_result *r)
{
	struct js *o = js_object();
	js_set_text(o, "rw", load_kind_names[options.load.kind]);
	js_set_u64(o, "block_bytes", options.load.block_bytes);
	js_set_u64(o, "depth", options.load.depth);
	js_set_u64(o, "queues", options.load.queues);
	js_set_u64(o, "targets", options.load.target_count);
	js_set_u64(o, "seed", options.load.seed);
	js_set_u64(o, "took_ms", r->took_ns / NS_PER_MS);
	js_set(o, "read", way_js(r, 0));
	js_set(o, "write", way_js(r, 1));
	js_set_u64(o, "cpu_ms_per_million", (uint64_t)(cpu_s_per_million(r) * 1e3));
	js_set_u64(o, "longest_pause_ms", r->longest_pause_ns / NS_PER_MS);
	js_set_u64(o, "longest_pause_us", r->longest_pause_ns / NS_PER_US);
	js_set_u64(o, "associations", r->associations);
	js_set_u64(o, "replayed", r->replayed);
	js_set_u64(o, "errors", r->errors);
	js_set_u64(o, "checked_units", r->checked_units);
	js_set_u64(o, "wrong_units", r->wrong_units);
	char *text = js_print(o, true);
	puts(text);
	free(text);
	js_free(o);
}

static int verdict(const struct load_result *r)
{
	if (r->errors)
		fprintf(stderr, "oxbow-bench: %llu requests failed, the first because: %s\n",
			(unsigned long long)r->errors, err_text(r->first_error));
	if (r->wrong_units)
		fprintf(stderr, "oxbow-bench: WRONG: %s\n", r->first_wrong);
	return r->errors || r->wrong_units ? EXIT_FAILED : EXIT_FINE;
}

/* ---- the process --------------------------------------------------------------------------------------------------------------------- */

static void log_line(void *ctx, const struct log_event *event)
{
	char line[600];
	(void)ctx;
	log_format_text(event, line, sizeof(line));
	fprintf(stderr, "oxbow-bench: %s\n", line);
}

static void main_fiber(void *arg)
{
	(void)arg;
	run.err = load_run(run.rt, &options.load, &run.result);
	host_rt_stop(run.rt);
}

static void targets_free(void)
{
	for (uint32_t i = 0; i < options.load.target_count; i++) {
		free(options.load.targets[i].address);
		free(options.load.targets[i].nqn);
	}
}

int main(int argc, char **argv)
{
	options_read(argc, argv);
	log_sink_set(log_line, NULL, LOG_LEVEL_WARN);
	volumes_resolve();
	run.rt = host_rt_new(&(struct host_options){.worker_threads = 1});
	if (!run.rt)
		return EXIT_FAILED;
	fiber_spawn_big(run.rt, "bench", main_fiber, NULL);
	host_rt_run(run.rt);
	targets_free();
	if (run.err) {
		fprintf(stderr, "oxbow-bench: %s: %s\n", err_text(run.err), run.result.first_wrong);
		return EXIT_UNREACHED;
	}
	if (options.json)
		report_json(&run.result);
	else
		report_text(&run.result);
	return verdict(&run.result);
}
