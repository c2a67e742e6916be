/*
 * oxbowd_files.c: the data directory and what the operating system says, for the node (struct node_platform). File work goes
 * to worker threads: a slow disk under the data directory must not hold up the reactor.
 */
#include "oxbowd.h"

#include "base/log.h"
#include "host/host_text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STATE_MAX_BYTES	 (1 * MiB)
#define LOCK_TRIES	 100
#define LOCK_INTERVAL_NS 10000000 /* 10 ms: a second in all */

static const struct daemon_options *options;
static uint64_t process_start_wall_ns;

/* ---- the directory and its lock ------------------------------------------------------------------------------------ */

static void directory_make(const char *path)
{
	char *part = mem_strdup(path);
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(part, 0755);
		*p = '/';
	}
	if (mkdir(path, 0750) != 0 && errno != EEXIST) {
		fprintf(stderr, "oxbowd: cannot make %s: %s\nhint: choose another with --data-dir\n", path,
			strerror(errno));
		exit(1);
	}
	free(part);
}

static char *path_of(const char *name)
{
	char *path;
	if (asprintf(&path, "%s/%s", options->data_dir, name) < 0)
		abort();
	return path;
}

static _Noreturn void lock_is_held(int fd, const char *dir)
{
	char pid[32] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
	pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
	fprintf(stderr, "oxbowd: %s is in use by oxbowd with process id %s\n", dir, *pid ? pid : "unknown");
	fprintf(stderr, "hint: stop that one first, or choose another directory with --data-dir\n");
	exit(1);
}

/* A process that was killed a moment ago may not be quite gone. */
static bool lock_take(int fd)
{
	const struct timespec interval = {.tv_nsec = LOCK_INTERVAL_NS};
	for (unsigned i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return true;
		nanosleep(&interval, NULL);
	}
	return false;
}

/* The kernel drops the lock with the process, however that ends. The descriptor stays open until then. */
void data_dir_take(const char *dir)
{
	char path[4096];
	directory_make(dir);
	snprintf(path, sizeof(path), "%s/lock", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0) {
		fprintf(stderr, "oxbowd: cannot open %s: %s\n", path, strerror(errno));
		exit(1);
	}
	if (!lock_take(fd))
		lock_is_held(fd, dir);
	if (ftruncate(fd, 0) != 0 || dprintf(fd, "%d\n", (int)getpid()) < 0)
		fprintf(stderr, "oxbowd: cannot write %s: %s\n", path, strerror(errno));
}

/* ---- small files: the list of known pools, the record of block devices --------------------------------------------------------------------------------------- */

struct state_work {
	const char *name; /* of the file to save */
	char *path;	  /* of the one to load */
	char *text;	  /* out when loading, in when saving */
	int err;
};

static int file_read(int fd, char **text)
{
	size_t used = 0;
	char *data = mem_alloc(STATE_MAX_BYTES + 1);
	ssize_t n;
	while ((n = read(fd, data + used, STATE_MAX_BYTES - used)) > 0)
		used += (size_t)n;
	data[used] = '\0';
	*text = data;
	return n < 0 ? err_from_errno(errno) : used == STATE_MAX_BYTES ? OXE_TOOBIG : 0;
}

static void state_load_work(void *arg)
{
	struct state_work *w = arg;
	int fd = open(w->path, O_RDONLY | O_CLOEXEC);
	w->err = fd < 0 ? err_from_errno(errno) : file_read(fd, &w->text);
	if (fd >= 0)
		close(fd);
}

static int text_load(const char *name, char **text)
{
	struct state_work w = {.path = path_of(name)};
	rt_offload(state_load_work, &w);
	free(w.path);
	if (w.err)
		free(w.text);
	else
		*text = w.text;
	return w.err;
}

static void state_save_work(void *arg)
{
	struct state_work *w = arg;
	w->err = host_text_replace(options->data_dir, w->name, w->text);
}

static int text_save(const char *name, const char *text)
{
	struct state_work w = {.name = name, .text = mem_strdup(text)};
	rt_offload(state_save_work, &w);
	free(w.text);
	return w.err;
}

static int state_load(void *ctx, char **text)
{
	(void)ctx;
	return text_load("pools.json", text);
}

static int state_save(void *ctx, const char *text)
{
	(void)ctx;
	return text_save("pools.json", text);
}

int files_ublk_load(void *ctx, char **text)
{
	(void)ctx;
	return text_load("ublk", text);
}

int files_ublk_save(void *ctx, const char *text)
{
	(void)ctx;
	return text_save("ublk", text);
}

/* ---- the look around ----------------------------------------------------------------------------------------------- */

struct scan_work {
	char **paths;
	struct stat *stats; /* of each, to know one disk under two names */
	size_t count;
};

static bool may_hold_pool(const struct stat *st)
{
	return S_ISBLK(st->st_mode) || (S_ISREG(st->st_mode) && (uint64_t)st->st_size >= POOL_SIZE_MIN);
}

static bool is_same_disk(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
		return a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static void scan_add(struct scan_work *w, const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0 || !may_hold_pool(&st))
		return;
	for (size_t i = 0; i < w->count; i++) {
		if (is_same_disk(&st, &w->stats[i]))
			return;
	}
	w->paths = mem_realloc(w->paths, (w->count + 1) * sizeof(*w->paths));
	w->stats = mem_realloc(w->stats, (w->count + 1) * sizeof(*w->stats));
	w->paths[w->count] = mem_strdup(path);
	w->stats[w->count++] = st;
}

static void scan_pattern(struct scan_work *w, const char *pattern)
{
	struct stat st;
	char inside[4096];
	glob_t found;
	bool is_dir = stat(pattern, &st) == 0 && S_ISDIR(st.st_mode);
	snprintf(inside, sizeof(inside), is_dir ? "%s/*" : "%s", pattern);
	if (glob(inside, GLOB_NOSORT, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		scan_add(w, found.gl_pathv[i]);
	globfree(&found);
}

static void scan_work(void *arg)
{
	for (size_t i = 0; i < options->scan_count; i++)
		scan_pattern(arg, options->scan[i]);
}

static size_t paths_scan(void *ctx, char ***paths)
{
	(void)ctx;
	struct scan_work w = {0};
	rt_offload(scan_work, &w);
	free(w.stats);
	*paths = w.paths;
	return w.count;
}

/* ---- ourselves ------------------------------------------------------------------------------------------------------- */

static uint32_t entries_count(const char *path)
{
	uint32_t count = 0;
	DIR *dir = opendir(path);
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count > 2 ? count - 2 : 0; /* . and .. */
}

static void process_work(void *arg)
{
	struct node_process *p = arg;
	struct timespec cpu;
	unsigned long long size = 0, resident = 0;
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	FILE *statm = fopen("/proc/self/statm", "re");
	if (statm && fscanf(statm, "%llu %llu", &size, &resident) == 2) {
		p->virtual_bytes = size * page_bytes;
		p->resident_bytes = resident * page_bytes;
	}
	if (statm)
		fclose(statm);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	p->cpu_ns = (uint64_t)cpu.tv_sec * NS_PER_S + (uint64_t)cpu.tv_nsec;
	p->open_files = entries_count("/proc/self/fd");
	p->threads = entries_count("/proc/self/task");
	p->start_wall_ns = process_start_wall_ns;
}

static void process_stats(void *ctx, struct node_process *out)
{
	(void)ctx;
	rt_offload(process_work, out);
}

struct uuid boot_id_read(void)
{
	struct uuid id = {0};
	char text[UUID_TEXT_LEN + 1] = "";
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (!file)
		return id;
	if (!fgets(text, sizeof(text), file) || uuid_parse(text, &id))
		id = (struct uuid){0};
	fclose(file);
	return id;
}

struct node_platform files_platform(const struct daemon_options *o)
{
	struct timespec now;
	options = o;
	clock_gettime(CLOCK_REALTIME, &now);
	process_start_wall_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	return (struct node_platform){.state_load = state_load,
				      .state_save = state_save,
				      .paths_scan = paths_scan,
				      .process_stats = process_stats};
}
