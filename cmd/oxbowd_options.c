/* oxbowd_options.c: the daemon's command line; dist/oxbowd.8 says the same at length. */
#include "oxbowd.h"

#include "base/size.h"
#include "data/nvme/nvme_auth_proof.h"
#include "data/nvme/nvme_secret.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char help[] =
	"Usage: oxbowd [OPTION]...\n"
	"Serve volumes from pools on this host, to NVMe over TCP hosts, NBD clients and the oxbow command.\n"
	"\n"
	"  --data-dir DIR          list of known pools, lock and sockets [/var/lib/oxbow]\n"
	"  --socket PATH           the API's unix socket [DIR/oxbow.sock]\n"
	"  --init-pool PATH,SIZE   open the pool on PATH; make it, as a sparse file, if nothing is there\n"
	"  --scan PATTERN          where to look for a pool that moved, e.g. '/dev/disk/by-id/*'; "
	"repeatable\n"
	"  --cache-size SIZE       memory for each pool's metadata [64M]\n"
	"  --ublk-links DIR        where attached block devices are linked by name [/dev/oxbow]\n"
	"  --node NAME             what this node is called among those that share its metastore [the host's "
	"name]\n"
	"  --cluster-secret-file FILE\n"
	"                          what nodes prove to each other for copies, as 'nvme gen-dhchap-key' makes "
	"it;\n"
	"                          without one copies are served to loopback addresses alone\n"
	"  --copy-timeout SECONDS  how long a copy on another node may be silent until it counts as lost "
	"[3]\n"
	"  --copy-grace SECONDS    how long a lost copy is waited for until the volume goes on without it "
	"[2]\n"
	"  --metastore sqlite:PATH records of nodes, pools and mirrored volumes [DIR/metastore.db]\n"
	"  --no-discard            keep space that becomes free, instead of giving it back to the disk\n"
	"  --nbd ADDRESS           unix:PATH or tcp:HOST:PORT; repeatable [unix:DIR/nbd.sock]\n"
	"  --nbd-insecure          allow TCP beyond this host without required TLS\n"
	"  --nvme tcp:HOST:PORT    serve NVMe over TCP there, 4420 being the usual port; repeatable "
	"[nowhere]\n"
	"  --nvme-tls off|allowed|required\n"
	"                          TLS 1.3 for NVMe, by the keys of volumes' lists (oxbow volume allow); "
	"when\n"
	"                          required, --nvme may be an address beyond this host [off]\n"
	"  --nvme-authenticated    serve a volume to hosts it has a secret or a key for, and to no others; "
	"then\n"
	"                          --nvme may be an address beyond this host (what comes without TLS is in "
	"the\n"
	"                          clear all the same)\n"
	"  --nvme-dh-group GROUP   the least that authentication uses: null, ffdhe2048, ffdhe3072, "
	"ffdhe4096,\n"
	"                          ffdhe6144 or ffdhe8192 [ffdhe2048, or null with a host that has no "
	"other]\n"
	"  --nvme-discover-snapshots  discovery lists snapshots, too; without it who knows their name finds "
	"them\n"
	"  --nvme-referral tcp:IP:PORT  another discovery service that hosts are told of; repeatable\n"
	"  --nvme-insecure         allow that beyond this host without it\n"
	"  --tls off|optional|required [off, or required if --tls-cert is given]\n"
	"  --tls-cert FILE, --tls-key FILE, --tls-ca FILE\n"
	"                          PEM; with a CA, clients must show a certificate it signed\n"
	"  --log-format text|json  [text; with priorities for the journal when started by systemd]\n"
	"  --log-level LEVEL       debug, info, warn or error [info]\n"
	"  --check PATH            examine the pool on PATH without changing it, and exit\n"
	"  --routes                print the API's table of routes, and exit\n"
	"  --version, --help\n"
	"\n"
	"oxbowd may be killed at any moment: starting is recovery. Exit status: 0 after SIGTERM or SIGINT,\n"
	"1 when it could not start, 2 for a mistake on the command line.\n";

_Noreturn OX_PRINTF(1, 2) static void mistake(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "oxbowd: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\nhint: oxbowd --help\n");
	va_end(args);
	exit(2);
}

static void list_add(const char **list, size_t *count, const char *value, const char *name)
{
	if (*count == OPTION_LIST_MAX)
		mistake("more than %d times --%s", OPTION_LIST_MAX, name);
	list[(*count)++] = value;
}

/* The index of `value` among `choices`. */
static unsigned choice(const char *name, const char *value, const char *const *choices)
{
	for (unsigned i = 0; choices[i]; i++) {
		if (strcmp(choices[i], value) == 0)
			return i;
	}
	mistake("--%s takes no \"%s\"", name, value);
}

static uint64_t size_option(const char *name, const char *value)
{
	uint64_t bytes;
	if (size_parse(value, &bytes) != 0)
		mistake("--%s: \"%s\" is no size (like 64M, 10G)", name, value);
	return bytes;
}

/* In seconds, with a fraction if wanted: from a tenth to an hour. */
static uint64_t seconds_option(const char *name, const char *value)
{
	char *end;
	double seconds = strtod(value, &end);
	if (end == value || *end || !(seconds >= 0.1 && seconds <= 3600))
		mistake("--%s: \"%s\" is not a number of seconds from 0.1 to 3600", name, value);
	return (uint64_t)(seconds * NS_PER_S);
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

static struct daemon_options given;
static bool tls_is_given;

static void nvme_tls_option(const char *value)
{
	static const char *const modes[] = {"off", "allowed", "required", NULL};
	given.nvme_tls = (enum nvmf_tls_mode)choice("nvme-tls", value, modes);
}

static void tls_option(const char *value)
{
	static const char *const modes[] = {"off", "optional", "required", NULL};
	given.tls.mode = (enum nbd_tls_mode)choice("tls", value, modes);
	tls_is_given = true;
}

static void log_format_option(const char *value)
{
	static const char *const formats[] = {"text", "json", NULL};
	given.log_json = choice("log-format", value, formats) == 1;
}

static void log_level_option(const char *value)
{
	static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
	given.log_level = (enum log_level)choice("log-level", value, levels);
}

static void cache_size_option(const char *value)
{
	given.cache_bytes = size_option("cache-size", value);
}

static void copy_timeout_option(const char *value)
{
	given.copy_timeout_ns = seconds_option("copy-timeout", value);
}

static void copy_grace_option(const char *value)
{
	given.copy_grace_ns = seconds_option("copy-grace", value);
}

static void init_pool_option(const char *value)
{
	const char *comma = strrchr(value, ',');
	if (!comma || comma == value)
		mistake("--init-pool takes PATH,SIZE");
	given.init_pool_bytes = u64_align_up(size_option("init-pool", comma + 1), POOL_BLOCK_BYTES);
	char *path = mem_strdup(value);
	path[comma - value] = '\0';
	given.init_pool_path = path;
}

static void cluster_secret_option(const char *value)
{
	struct nvme_secret secret;
	given.cluster_secret = cluster_secret_read(value);
	if (!given.cluster_secret || nvme_secret_parse(given.cluster_secret, &secret) != 0)
		mistake("--cluster-secret-file: the first line of %s is no secret (DHHC-1:...)", value);
	explicit_bzero(&secret, sizeof(secret));
}

/* 1 + its number. */
static void dh_group_option(const char *value)
{
	uint8_t group;
	if (nvme_auth_group_parse(value, &group) != 0)
		mistake("--nvme-dh-group takes null, ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144 or "
			"ffdhe8192, not \"%s\"",
			value);
	given.nvme_dh_group = (uint8_t)(group + 1);
}

_Noreturn static void version_option(const char *value)
{
	(void)value;
	printf("oxbowd " OXBOW_VERSION "\n");
	exit(0);
}

_Noreturn static void help_option(const char *value)
{
	(void)value;
	fputs(help, stdout);
	exit(0);
}

/* What an option does with its value: the one of these that is there. */
static const struct option_row {
	const char *name;
	bool *flag;	   /* takes no value */
	const char **text; /* the last one given */
	const char **list; /* all of them */
	size_t *list_count;
	void (*take)(const char *value);
	bool is_bare; /* `take` gets no value */
} rows[] = {
	{"data-dir", .text = &given.data_dir},
	{"socket", .text = &given.socket_path},
	{"init-pool", .take = init_pool_option},
	{"scan", .list = given.scan, &given.scan_count},
	{"cache-size", .take = cache_size_option},
	{"node", .text = &given.node_name},
	{"cluster-secret-file", .take = cluster_secret_option},
	{"copy-grace", .take = copy_grace_option},
	{"copy-timeout", .take = copy_timeout_option},
	{"metastore", .text = &given.metastore},
	{"no-discard", .flag = &given.no_discard},
	{"nbd", .list = given.nbd, &given.nbd_count},
	{"nbd-insecure", .flag = &given.nbd_insecure},
	{"nvme", .list = given.nvme, &given.nvme_count},
	{"nvme-authenticated", .flag = &given.nvme_authenticated},
	{"nvme-dh-group", .take = dh_group_option},
	{"nvme-discover-snapshots", .flag = &given.nvme_discover_snapshots},
	{"nvme-insecure", .flag = &given.nvme_insecure},
	{"nvme-referral", .list = given.nvme_referrals, &given.nvme_referral_count},
	{"nvme-tls", .take = nvme_tls_option},
	{"tls", .take = tls_option},
	{"tls-cert", .text = &given.tls.certificate_file},
	{"tls-key", .text = &given.tls.key_file},
	{"tls-ca", .text = &given.tls.client_ca_file},
	{"log-format", .take = log_format_option},
	{"log-level", .take = log_level_option},
	{"check", .text = &given.check_path},
	{"ublk-links", .text = &given.ublk_links},
	{"routes", .flag = &given.print_routes},
	{"version", .take = version_option, .is_bare = true},
	{"help", .take = help_option, .is_bare = true},
};

static void option_take(const struct option_row *row, const char *value)
{
	if (row->flag)
		*row->flag = true;
	else if (row->text)
		*row->text = value;
	else if (row->list)
		list_add(row->list, row->list_count, value, row->name);
	else
		row->take(value);
}

/* ---- what is not said, and what cannot be ----------------------------------------------------------------------------------------- */

static const char *path_in(const char *dir, const char *prefix, const char *name)
{
	char *path;
	if (asprintf(&path, "%s%s/%s", prefix, dir, name) < 0)
		abort();
	return path;
}

static bool is_loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]:", 6) == 0 ||
	       strncmp(host, "localhost:", 10) == 0;
}

/* Data in the clear on a network is somebody's explicit decision. */
static void nbd_address_check(const struct daemon_options *o, const char *address)
{
	if (strncmp(address, "unix:/", 6) == 0)
		return;
	if (strncmp(address, "tcp:", 4) != 0)
		mistake("--nbd takes unix:/PATH or tcp:HOST:PORT, not \"%s\"", address);
	if (!is_loopback(address + 4) && o->tls.mode != NBD_TLS_REQUIRED && !o->nbd_insecure)
		mistake("%s is reachable from other hosts without TLS: give --tls-cert and --tls-key, or say "
			"--nbd-insecure",
			address);
}

static void nvme_address_check(const struct daemon_options *o, const char *address)
{
	if (strncmp(address, "tcp:", 4) != 0)
		mistake("--nvme takes tcp:HOST:PORT, not \"%s\"", address);
	if (!is_loopback(address + 4) && o->nvme_tls != NVMF_TLS_REQUIRED && !o->nvme_authenticated &&
	    !o->nvme_insecure)
		mistake("%s is reachable from other hosts, and volumes may have no list of who may connect: "
			"say --nvme-tls required, --nvme-authenticated or --nvme-insecure",
			address);
}

/* Hosts connect to what they are told as it stands: a name would mean something else to each of them. */
static void referral_check(const char *address)
{
	char host[INET6_ADDRSTRLEN + 2];
	uint8_t raw[16];
	const char *colon = strrchr(address, ':');
	size_t length = colon && colon > address + 4 ? (size_t)(colon - address - 4) : 0;
	bool is_right = strncmp(address, "tcp:", 4) == 0 && length > 0 && length < sizeof(host) && colon[1];
	if (is_right) {
		bool is_v6 = address[4] == '[' && colon[-1] == ']';
		snprintf(host, sizeof(host), "%.*s", (int)(length - (is_v6 ? 2 : 0)), address + 4 + is_v6);
		is_right = inet_pton(is_v6 ? AF_INET6 : AF_INET, host, raw) == 1 &&
			   strspn(colon + 1, "0123456789") == strlen(colon + 1) && atoi(colon + 1) > 0 &&
			   atoi(colon + 1) < 65536;
	}
	if (!is_right)
		mistake("--nvme-referral takes tcp:IP:PORT, not \"%s\"", address);
}

/* Messages and the list of pools name things from the root. */
static const char *absolute(const char *path)
{
	if (*path == '/' || strncmp(path, "mem:", 4) == 0)
		return path;
	char *cwd = getcwd(NULL, 0);
	if (!cwd)
		mistake("the current directory is gone");
	const char *result = path_in(cwd, "", path);
	free(cwd);
	return result;
}

static const char *host_name(void)
{
	static char name[NODE_NAME_SIZE];
	return gethostname(name, sizeof(name) - 1) == 0 && *name ? name : "localhost";
}

static void options_complete(struct daemon_options *o)
{
	o->data_dir = absolute(o->data_dir);
	if (!o->node_name)
		o->node_name = host_name();
	if (!*o->node_name || strlen(o->node_name) >= NODE_NAME_SIZE)
		mistake("--node takes a name of 1 to %d bytes", NODE_NAME_SIZE - 1);
	if (o->metastore && strncmp(o->metastore, "sqlite:/", 8) != 0)
		mistake("--metastore takes sqlite:/PATH, not \"%s\"", o->metastore);
	o->ublk_links = absolute(o->ublk_links);
	if (!o->socket_path)
		o->socket_path = path_in(o->data_dir, "", "oxbow.sock");
	if (o->tls.certificate_file && !tls_is_given)
		o->tls.mode = NBD_TLS_REQUIRED;
	if (o->tls.mode != NBD_TLS_OFF && (!o->tls.certificate_file || !o->tls.key_file))
		mistake("TLS needs --tls-cert and --tls-key");
	if (!o->nbd_count)
		list_add(o->nbd, &o->nbd_count, path_in(o->data_dir, "unix:", "nbd.sock"), "nbd");
	for (size_t i = 0; i < o->nbd_count; i++)
		nbd_address_check(o, o->nbd[i]);
	for (size_t i = 0; i < o->nvme_count; i++)
		nvme_address_check(o, o->nvme[i]);
	for (size_t i = 0; i < o->nvme_referral_count; i++)
		referral_check(o->nvme_referrals[i]);
	if (o->init_pool_path)
		o->init_pool_path = absolute(o->init_pool_path);
}

void options_parse(int argc, char **argv, struct daemon_options *out)
{
	struct option forms[ARRAY_COUNT(rows) + 1] = {0};
	int answer, index;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		forms[i].name = rows[i].name;
		forms[i].has_arg = rows[i].flag || rows[i].is_bare ? no_argument : required_argument;
	}
	given = (struct daemon_options){
		.data_dir = "/var/lib/oxbow", .ublk_links = "/dev/oxbow", .log_level = LOG_LEVEL_INFO};
	while ((answer = getopt_long(argc, argv, "", forms, &index)) == 0)
		option_take(&rows[index], optarg);
	if (answer != -1) { /* getopt has said why */
		fprintf(stderr, "hint: oxbowd --help\n");
		exit(2);
	}
	if (optind < argc)
		mistake("\"%s\" is no option", argv[optind]);
	options_complete(&given);
	*out = given;
}
