/*
 * attach_nvme.c: the kernel's own NVMe/TCP host, by its text interface /dev/nvme-fabrics and by sysfs. A connection is told to look for a
 * target that is gone every second and never to give it up, so a daemon that is killed is a pause. A volume is a subsystem whose
 * name holds its id for ever, so what is ours is known by its name, whatever this process remembers; other subsystems are not
 * looked at twice.
 */
#include "host/attach/attach_impl.h"

#include "data/nvme/nvme_nqn.h"

#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_TIMEOUT_MS  30000
#define GONE_TIMEOUT_MS	  30000
#define SECRET_SIZE	  256
#define DEFAULT_PORT	  "4420"
#define RECONNECT_DELAY_S "1"

/* ---- what the kernel can --------------------------------------------------------------------------------------------- */

static void module_load(const char *name)
{
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDERR_FILENO);
		execlp("modprobe", "modprobe", "-q", name, (char *)NULL);
		_exit(1);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

int attach_nvme_probe(struct attach *a)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/nvme-fabrics", a->dev);
	if (access(path, F_OK) != 0)
		module_load("nvme-tcp");
	return access(path, F_OK) == 0 ? 0
				       : attach_why(a, OXE_UNSUPPORTED, "modprobe nvme-tcp",
						    "this kernel has no NVMe/TCP host (%s)", path);
}

/* ---- sysfs ----------------------------------------------------------------------------------------------------------- */

static bool attribute_is(const char *path, const char *wanted)
{
	char text[ATTACH_NAME_SIZE];
	return text_read(path, text, sizeof(text)) == 0 && strcmp(text, wanted) == 0;
}

static void controller_look(const struct attach *a, const char *name, const char *nqn, struct nvme_found *out)
{
	char path[ATTACH_PATH_SIZE], state[32];
	path_format(path, "%s/class/nvme/%s/subsysnqn", a->sys, name);
	if (!attribute_is(path, nqn) || out->controller_count == NVME_PATHS_MAX ||
	    strlen(name) >= sizeof(out->controllers[0]))
		return;
	path_format(path, "%s/class/nvme/%s/state", a->sys, name);
	if (text_read(path, state, sizeof(state)) == 0 && strncmp(state, "deleting", 8) != 0)
		snprintf(out->controllers[out->controller_count++], sizeof(out->controllers[0]), "%s", name);
}

/* The disk itself, not one path to it: that one is hidden, and named nvme0c0n1. */
static void block_look(const struct attach *a, const char *name, const char *nqn, struct nvme_found *out)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/block/%s/device/subsysnqn", a->sys, name);
	if (strncmp(name, "nvme", 4) != 0 || strlen(name) >= sizeof(out->block) || !attribute_is(path, nqn))
		return;
	path_format(path, "%s/block/%s/hidden", a->sys, name);
	if (!attribute_is(path, "1"))
		snprintf(out->block, sizeof(out->block), "%s", name);
}

static void names_look(const struct attach *a, const char *directory, const char *nqn, struct nvme_found *out,
		       void (*look)(const struct attach *, const char *, const char *, struct nvme_found *))
{
	char path[ATTACH_PATH_SIZE];
	struct dirent *e;
	path_format(path, "%s/%s", a->sys, directory);
	DIR *dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.')
			look(a, e->d_name, nqn, out);
	}
	if (dir)
		closedir(dir);
}

void nvme_find(const struct attach *a, const struct uuid *id, struct nvme_found *out)
{
	char nqn[NVME_NQN_FIELD];
	memset(out, 0, sizeof(*out));
	nvme_nqn_of_volume(id, nqn);
	names_look(a, "class/nvme", nqn, out, controller_look);
	names_look(a, "block", nqn, out, block_look);
}

void nvme_walk(struct attach *a, void (*fn)(void *ctx, const struct uuid *id), void *ctx)
{
	char path[ATTACH_PATH_SIZE], nqn[NVME_NQN_FIELD];
	struct dirent *e;
	struct uuid id;
	path_format(path, "%s/class/nvme", a->sys);
	DIR *dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		path_format(path, "%s/class/nvme/%s/subsysnqn", a->sys, e->d_name);
		if (text_read(path, nqn, sizeof(nqn)) == 0 && nvme_nqn_to_volume(nqn, &id) == 0)
			fn(ctx, &id);
	}
	if (dir)
		closedir(dir);
}

/* ---- who we are ------------------------------------------------------------------------------------------------------ */

static int uuid_new(struct attach *a, char text[UUID_TEXT_LEN + 1])
{
	uint8_t random[16];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return attach_why(a, OXE_SYS, "", "the kernel gives no random numbers");
	struct uuid id = uuid_from_random(random);
	uuid_format(&id, text);
	return 0;
}

/* /etc/nvme/NAME, or the same file in the state directory. "": there is none. */
static void identity_read(struct attach *a, const char *name, char *out, size_t size)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/nvme/%s", a->etc, name);
	if (text_read(path, out, size) == 0 && *out)
		return;
	path_format(path, "%s/%s", a->state_dir, name);
	if (text_read(path, out, size))
		out[0] = '\0';
}

static bool nqn_is_sane(const char *name)
{
	char field[NVME_NQN_FIELD] = {0};
	if (strlen(name) > NVME_NQN_MAX || strchr(name, ','))
		return false;
	memcpy(field, name, strlen(name));
	return nvme_nqn_is_valid(field);
}

/* Two names for one host: where one of them is known, and holds the other, that is taken. */
int nvme_identity(struct attach *a, struct attach_record *r)
{
	char id[ATTACH_NAME_SIZE];
	const char *prefix = NVME_NQN_HOST_PREFIX;
	struct uuid parsed;
	bool made = false;
	int err = 0;
	identity_read(a, "hostnqn", r->host_nqn, sizeof(r->host_nqn));
	identity_read(a, "hostid", id, sizeof(id));
	if (!*id && strncmp(r->host_nqn, prefix, strlen(prefix)) == 0)
		snprintf(id, sizeof(id), "%s", r->host_nqn + strlen(prefix));
	if (uuid_parse(id, &parsed) != 0) {
		made = true;
		err = uuid_new(a, id);
	}
	snprintf(r->host_id, sizeof(r->host_id), "%.36s", id);
	if (!err && made)
		err = state_text_save(a, "hostid", r->host_id);
	if (!err && !*r->host_nqn) {
		snprintf(r->host_nqn, sizeof(r->host_nqn), "%s%s", prefix, r->host_id);
		err = state_text_save(a, "hostnqn", r->host_nqn);
	}
	if (!err && !nqn_is_sane(r->host_nqn))
		err = attach_why(a, OXE_INVAL, "see /etc/nvme/hostnqn", "\"%s\" is no name of a host",
				 r->host_nqn);
	return err;
}

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

int nvme_address_split(const char *at, char host[ATTACH_NAME_SIZE], char port[8])
{
	const char *end = *at == '[' ? strchr(at, ']') : NULL, *colon = strrchr(at, ':');
	if (*at == '[' && !end)
		return OXE_INVAL;
	const char *begin = end ? at + 1 : at;
	colon = end ? (end[1] == ':' ? end + 1 : NULL) : colon;
	if (end ? !colon && end[1] : colon && strchr(at, ':') != colon)
		return OXE_INVAL; /* an IPv6 address without brackets, or something behind them */
	size_t len = (size_t)((end ? end : colon ? colon : at + strlen(at)) - begin);
	const char *number = colon ? colon + 1 : DEFAULT_PORT;
	size_t digits = strspn(number, "0123456789");
	if (len == 0 || len >= ATTACH_NAME_SIZE || digits == 0 || digits > 5 || number[digits])
		return OXE_INVAL;
	memcpy(host, begin, len);
	host[len] = '\0';
	snprintf(port, 8, "%s", number);
	return 0;
}

/* The kernel takes numbers only. */
static int host_resolve(struct attach *a, char host[ATTACH_NAME_SIZE])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	int failed = getaddrinfo(host, NULL, &hints, &found);
	if (failed)
		return attach_why(a, OXE_NOENT, "", "host \"%s\": %s", host, gai_strerror(failed));
	failed = getnameinfo(found->ai_addr, found->ai_addrlen, host, ATTACH_NAME_SIZE, NULL, 0,
			     NI_NUMERICHOST);
	freeaddrinfo(found);
	return failed ? attach_why(a, OXE_SYS, "", "%s", gai_strerror(failed)) : 0;
}

/* Values stand between commas, and must not bring one along. */
static bool is_plain(const char *value)
{
	return !strpbrk(value, ", \t\r\n");
}

int nvme_connect_text(const struct attach_record *r, const char *host, const char *port, const char *secret,
		      const char *controller_secret, struct text *out)
{
	char nqn[NVME_NQN_FIELD];
	if (!is_plain(host) || !is_plain(port) || !is_plain(r->host_nqn) || !is_plain(secret) ||
	    !is_plain(controller_secret))
		return OXE_INVAL;
	text_printf(out,
		    "transport=tcp,traddr=%s,trsvcid=%s,nqn=%s,hostnqn=%s,hostid=%s,"
		    "reconnect_delay=" RECONNECT_DELAY_S ",ctrl_loss_tmo=-1",
		    host, port, nvme_nqn_of_volume(&r->id, nqn), r->host_nqn, r->host_id);
	if (*secret)
		text_printf(out, ",dhchap_secret=%s", secret);
	if (*controller_secret)
		text_printf(out, ",dhchap_ctrl_secret=%s", controller_secret);
	return 0;
}

static int secret_read(struct attach *a, const char *file, char secret[SECRET_SIZE])
{
	secret[0] = '\0';
	int err = *file ? text_read(file, secret, SECRET_SIZE) : 0;
	secret[strcspn(secret, "\r\n")] = '\0';
	if (err || (*file && strncmp(secret, "DHHC-1:", 7) != 0))
		return attach_why(a, err ? err : OXE_INVAL,
				  "it has the form DHHC-1:..., 'oxbow volume allow' makes one",
				  "cannot read a secret from %s%s%s", file, err ? ": " : "",
				  err ? err_text(err) : "");
	return 0;
}

static int refused(struct attach *a, const struct attach_record *r, int os_errno)
{
	const char *hint = "'dmesg' has the kernel's own words";
	if (os_errno == ECONNREFUSED || os_errno == EHOSTUNREACH || os_errno == ENETUNREACH ||
	    os_errno == ETIMEDOUT)
		hint = "is oxbowd running there, with --nvme?";
	else if (os_errno == EACCES || os_errno == EPERM)
		hint = "run it as root";
	else if (os_errno == EINVAL)
		hint = "it does not know one of the options (an older kernel, or one without "
		       "authentication), or the "
		       "volume is not served there, or not to this host; 'dmesg' says which";
	return attach_why(a, os_errno == ECONNREFUSED ? OXE_CLOSED : err_from_errno(os_errno), hint,
			  "the kernel could not connect to %s at %s: %s", r->volume, r->at,
			  strerror(os_errno));
}

static int text_tell(struct attach *a, const struct attach_record *r, const struct text *text)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/nvme-fabrics", a->dev);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return attach_why(a, err_from_errno(errno), "run it as root", "cannot open %s: %m", path);
	ssize_t n = write(fd, text->data, text->len_bytes);
	int failed = n < 0 ? errno : 0;
	close(fd);
	return failed && failed != EALREADY ? refused(a, r, failed) : 0;
}

static int connect_once(struct attach *a, const struct attach_record *r)
{
	char host[ATTACH_NAME_SIZE], port[8], secret[SECRET_SIZE], controller_secret[SECRET_SIZE] = "";
	struct text text = {0};
	if (nvme_address_split(r->at, host, port))
		return attach_why(a, OXE_INVAL, "HOST:PORT or [HOST]:PORT", "\"%s\" is no address", r->at);
	int err = host_resolve(a, host);
	if (!err)
		err = secret_read(a, r->secret_file, secret);
	if (!err)
		err = secret_read(a, r->controller_secret_file, controller_secret);
	if (!err && nvme_connect_text(r, host, port, secret, controller_secret, &text))
		err = attach_why(a, OXE_INVAL, "",
				 "a comma or blank in the address, the host's name or a secret");
	if (!err)
		err = text_tell(a, r, &text);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(controller_secret, sizeof(controller_secret));
	if (text.data)
		explicit_bzero(text.data, text.len_bytes);
	text_free(&text);
	return err;
}

/* ---- the way --------------------------------------------------------------------------------------------------------- */

static int look(struct attach *a, const struct attach_record *r, struct attach_device *out)
{
	struct nvme_found f;
	struct stat st;
	char path[ATTACH_NAME_SIZE];
	nvme_find(a, &r->id, &f);
	snprintf(path, sizeof(path), "%s/%s", a->dev, f.block);
	if (!f.controller_count || !*f.block)
		return OXE_NOENT;
	snprintf(out->path, sizeof(out->path), "%s", path);
	snprintf(out->probe, sizeof(out->probe), "%s", path);
	return stat(path, &st) == 0 ? 0 : OXE_NOENT;
}

static void attribute_write(const struct attach *a, const char *controller, const char *name,
			    const char *value)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/class/nvme/%s/%s", a->sys, controller, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0) {
		/* a controller that is just going; who waits for the effect sees */
	}
	close(fd);
}

/* One that was made by hand may be given up some time. */
static void adopt(struct attach *a, const struct attach_record *r)
{
	struct nvme_found f;
	nvme_find(a, &r->id, &f);
	for (unsigned i = 0; i < f.controller_count; i++) {
		attribute_write(a, f.controllers[i], "ctrl_loss_tmo", "-1");
		attribute_write(a, f.controllers[i], "fast_io_fail_tmo", "-1");
		attribute_write(a, f.controllers[i], "reconnect_delay", RECONNECT_DELAY_S);
	}
}

static int make(struct attach *a, struct attach_record *r)
{
	struct nvme_found f;
	struct attach_device d;
	nvme_find(a, &r->id, &f);
	int err = f.controller_count ? 0 : connect_once(a, r);
	if (err)
		return err;
	adopt(a, r);
	struct deadline end = deadline_in(READY_TIMEOUT_MS);
	while (look(a, r, &d) != 0) {
		if (!deadline_wait(&end))
			return attach_why(a, OXE_TIMEOUT, "'dmesg' has the kernel's own words",
					  "%s is connected, but no disk of it has appeared", r->volume);
	}
	snprintf(r->device, sizeof(r->device), "%s", d.path);
	return 0;
}

static int unmake(struct attach *a, const struct attach_record *r, int claim, bool force)
{
	struct nvme_found f;
	struct deadline end = deadline_in(GONE_TIMEOUT_MS);
	(void)force;
	do {
		nvme_find(a, &r->id, &f);
		for (unsigned i = 0; i < f.controller_count; i++)
			attribute_write(a, f.controllers[i], "delete_controller", "1");
		if (claim >= 0) /* the disk stays as long as it is open */
			close(claim);
		claim = -1;
		nvme_find(a, &r->id, &f);
		if (!f.controller_count && !*f.block)
			return 0;
	} while (deadline_wait(&end));
	return attach_why(a, OXE_TIMEOUT, "", "the kernel does not let go of %s",
			  f.controller_count ? f.controllers[0] : f.block);
}

const struct attach_way attach_way_nvme = {.look = look, .make = make, .adopt = adopt, .unmake = unmake};
