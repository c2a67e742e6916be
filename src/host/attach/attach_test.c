/* attach_test.c: the record, what the kernel is told, and what is found in a sysfs made of files. The rest wants a kernel:
 * tests/attach_test.py and tests/attach_kernel_test.py. */
#include "host/attach/attach_impl.h"

#include "base/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ID	 "6b2b5d05-3a7c-4a39-9c5f-0f2b6a0b7f11"
#define OTHER_ID "0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0de"
#define NQN	 "nqn.2026-11.dev.oxbow:volume:" ID

static const char whole[] =
	"oxbow-attachment 1\nid " ID "\nphase made\nby nvme\nread-only yes\nblock-size 4096\n"
	"volume default/disk\nlink disk\ndevice /dev/nvme0n1\nat 127.0.0.1:4420\n"
	"host-nqn nqn.2014-08.org.nvmexpress:uuid:" OTHER_ID "\nhost-id " OTHER_ID "\n"
	"secret-file /etc/a secret\nowner admin\nowner csi:7\nend\n";

static struct attach_record record_of(const char *text)
{
	struct attach_record r;
	CHECK_OK(attach_record_parse(text, &r));
	return r;
}

TEST(a_record_is_written_as_it_was_read)
{
	struct attach_record r = record_of(whole);
	struct text text = {0};
	attach_record_print(&r, &text);
	CHECK_STR(text_get(&text), whole);
	CHECK(r.phase == ATTACH_MADE && r.by == ATTACH_BY_NVME && r.read_only);
	CHECK_EQ(r.owner_count, 2);
	CHECK_STR(r.owners[1], "csi:7");
	text_free(&text);
}

TEST(every_beginning_of_a_record_is_known_as_one)
{
	struct attach_record r;
	char text[sizeof(whole)];
	for (size_t len = 0; len < sizeof(whole) - 1; len++) {
		memcpy(text, whole, len);
		text[len] = '\0';
		CHECK_ERR(attach_record_parse(text, &r), OXE_CORRUPT);
	}
}

/* `whole` with one piece of it replaced. */
static int parse_with(const char *piece, const char *other)
{
	struct attach_record r;
	struct text text = {0};
	const char *at = strstr(whole, piece);
	CHECK(at != NULL);
	text_add_bytes(&text, whole, (size_t)(at - whole));
	text_add(&text, other);
	text_add(&text, at + strlen(piece));
	int err = attach_record_parse(text_get(&text), &r);
	text_free(&text);
	return err;
}

TEST(a_record_that_makes_no_sense_is_refused)
{
	CHECK_ERR(parse_with("oxbow-attachment 1", "oxbow-attachment 2"), OXE_VERSION);
	static const char *const wrong[][2] = {
		{"phase made", "phase done"},
		{"by nvme", "by magic"},
		{"link disk", "link ../disk"},
		{"link disk", "link /disk"},
		{"link disk", "link a//b"},
		{"link disk", "link a/"},
		{"link disk", "link .hidden"},
		{"link disk\n", ""},
		{"device /dev/nvme0n1", "device /etc/passwd"},
		{"owner admin", "owner a b"},
		{"owner csi:7", "owner admin"},
		{"owner admin\nowner csi:7\n", ""},
		{"block-size 4096", "block-size 77"},
		{"at 127.0.0.1:4420\n", ""},
		{"host-id " OTHER_ID "\n", ""},
		{"read-only yes", "read-only no"},
		{"phase made", "phase made\nphase made"},
		{"secret-file /etc/a secret", "secret-file etc/secret"},
		{"end\n", "end\nend\n"},
		{"volume default/disk", "volume default/\x01"},
		{"id " ID, "id 00000000-0000-0000-0000-000000000000"},
		{"by nvme", "by nvme\nfuture yes"},
	};
	for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
		CHECK_ERR(parse_with(wrong[i][0], wrong[i][1]), OXE_CORRUPT);
}

TEST(an_owner_counts_once_and_there_is_a_bound)
{
	struct attach_record r = {0};
	char name[16];
	for (unsigned i = 0; i < ATTACH_OWNERS_MAX; i++) {
		snprintf(name, sizeof(name), "o%u", i);
		CHECK_OK(attach_owner_add(&r, name));
		CHECK_OK(attach_owner_add(&r, name));
	}
	CHECK_ERR(attach_owner_add(&r, "more"), OXE_TOOBIG);
	attach_owner_remove(&r, "o0");
	attach_owner_remove(&r, "o0");
	CHECK_EQ(r.owner_count, ATTACH_OWNERS_MAX - 1);
	CHECK_STR(r.owners[0], "o1");
	CHECK_EQ(attach_owner_find(&r, "o0"), r.owner_count);
}

TEST(an_address_is_host_and_port_and_an_ipv6_one_stands_in_brackets)
{
	static const struct {
		const char *at, *host, *port;
	} cases[] = {{"127.0.0.1:4421", "127.0.0.1", "4421"},
		     {"node-1", "node-1", "4420"},
		     {"[::1]:9", "::1", "9"},
		     {"[::1]", "::1", "4420"},
		     {"::1", NULL, NULL},
		     {"[::1", NULL, NULL},
		     {"[::1]x", NULL, NULL},
		     {"a:", NULL, NULL},
		     {"a:x", NULL, NULL},
		     {":1", NULL, NULL},
		     {"", NULL, NULL},
		     {"a:123456", NULL, NULL}};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		char host[ATTACH_NAME_SIZE], port[8];
		int err = nvme_address_split(cases[i].at, host, port);
		CHECK_EQ(err, cases[i].host ? 0 : OXE_INVAL);
		if (err)
			continue;
		CHECK_STR(host, cases[i].host);
		CHECK_STR(port, cases[i].port);
	}
}

TEST(the_kernel_is_told_to_look_every_second_and_never_to_give_up)
{
	struct attach_record r = record_of(whole);
	struct text text = {0};
	CHECK_OK(nvme_connect_text(&r, "127.0.0.1", "4420", "DHHC-1:00:aaaa:", "", &text));
	CHECK_STR(text_get(&text), "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=" NQN
				   ",hostnqn=nqn.2014-08.org.nvmexpress:uuid:" OTHER_ID ",hostid=" OTHER_ID
				   ",reconnect_delay=1,ctrl_loss_tmo=-1,dhchap_secret=DHHC-1:00:aaaa:");
	text_free(&text);
}

TEST(a_value_with_a_comma_does_not_bring_another_option_along)
{
	struct attach_record r = record_of(whole);
	struct text text = {0};
	CHECK_ERR(nvme_connect_text(&r, "127.0.0.1,nr_io_queues=1", "4420", "", "", &text), OXE_INVAL);
	CHECK_ERR(nvme_connect_text(&r, "127.0.0.1", "4420", "DHHC-1:00:a,b:", "", &text), OXE_INVAL);
	text_free(&text);
}

/* ---- a host made of files -------------------------------------------------------------------------------------------- */

static struct world {
	char root[64], sys[80], state[80], etc[80];
	struct attach a;
} w;

static void world_begin(void)
{
	snprintf(w.root, sizeof(w.root), "/tmp/oxbow-attach-test.XXXXXX");
	CHECK(mkdtemp(w.root) != NULL);
	snprintf(w.sys, sizeof(w.sys), "%s/sys", w.root);
	snprintf(w.state, sizeof(w.state), "%s/state", w.root);
	snprintf(w.etc, sizeof(w.etc), "%s/etc", w.root);
	w.a = (struct attach){
		.state_dir = w.state, .sys = w.sys, .dev = "/dev", .etc = w.etc, .links_dir = w.root};
	CHECK(mkdir(w.state, 0750) == 0);
}

static void world_end(void)
{
	char command[100];
	snprintf(command, sizeof(command), "rm -r %s", w.root);
	CHECK_EQ(system(command), 0);
}

static void file_put(const char *directory, const char *name, const char *text)
{
	char path[ATTACH_PATH_SIZE];
	path_format(path, "%s/%s", directory, name);
	parents_make(path, 0755);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

TEST(a_connection_is_known_by_the_name_of_its_subsystem_and_its_disk_is_the_one_that_is_not_hidden)
{
	struct nvme_found f;
	struct uuid id;
	CHECK_OK(uuid_parse(ID, &id));
	world_begin();
	nvme_find(&w.a, &id, &f);
	CHECK(f.controller_count == 0 && !*f.block);
	file_put(w.sys, "class/nvme/nvme0/subsysnqn", "nqn.2014-08.org.nvmexpress.discovery\n");
	file_put(w.sys, "class/nvme/nvme0/state", "live\n");
	file_put(w.sys, "class/nvme/nvme1/subsysnqn", NQN "\n");
	file_put(w.sys, "class/nvme/nvme1/state", "connecting\n");
	file_put(w.sys, "class/nvme/nvme2/subsysnqn", NQN "\n");
	file_put(w.sys, "class/nvme/nvme2/state", "deleting (no IO)\n");
	file_put(w.sys, "block/nvme0n1/device/subsysnqn", NQN "x\n");
	file_put(w.sys, "block/nvme1c1n1/device/subsysnqn", NQN "\n");
	file_put(w.sys, "block/nvme1c1n1/hidden", "1\n");
	file_put(w.sys, "block/nvme1n1/device/subsysnqn", NQN "\n");
	file_put(w.sys, "block/nvme1n1/hidden", "0\n");
	nvme_find(&w.a, &id, &f);
	CHECK_EQ(f.controller_count, 1);
	CHECK_STR(f.controllers[0], "nvme1");
	CHECK_STR(f.block, "nvme1n1");
	world_end();
}

static void id_count(void *ctx, const struct uuid *id)
{
	char text[UUID_TEXT_LEN + 1];
	CHECK_STR(uuid_format(id, text), ID);
	++*(unsigned *)ctx;
}

TEST(only_connections_to_volumes_of_ours_are_looked_at)
{
	unsigned count = 0;
	world_begin();
	file_put(w.sys, "class/nvme/nvme0/subsysnqn", "nqn.2026-11.dev.other:volume:" OTHER_ID "\n");
	file_put(w.sys, "class/nvme/nvme1/subsysnqn", NQN "\n");
	file_put(w.sys, "class/nvme/nvme2/subsysnqn", "nqn.2026-11.dev.oxbow:volume:" ID "-not\n");
	nvme_walk(&w.a, id_count, &count);
	CHECK_EQ(count, 1);
	world_end();
}

TEST(who_this_host_is_is_made_once_and_kept)
{
	struct attach_record first = {0}, second = {0};
	world_begin();
	CHECK_OK(nvme_identity(&w.a, &first));
	CHECK_OK(nvme_identity(&w.a, &second));
	CHECK_STR(first.host_id, second.host_id);
	CHECK_STR(first.host_nqn, second.host_nqn);
	CHECK(strstr(first.host_nqn, first.host_id) != NULL);
	world_end();
}

TEST(who_this_host_is_already_is_not_made_up)
{
	struct attach_record r = {0}, with_both = {0};
	world_begin();
	file_put(w.etc, "nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:" ID "\n");
	CHECK_OK(nvme_identity(&w.a, &r));
	CHECK_STR(r.host_id, ID);
	file_put(w.etc, "nvme/hostid", OTHER_ID "\n");
	CHECK_OK(nvme_identity(&w.a, &with_both));
	CHECK_STR(with_both.host_id, OTHER_ID);
	CHECK_STR(with_both.host_nqn, "nqn.2014-08.org.nvmexpress:uuid:" ID);
	file_put(w.etc, "nvme/hostnqn", "a name, and more\n");
	CHECK_ERR(nvme_identity(&w.a, &with_both), OXE_INVAL);
	world_end();
}

static void record_count(void *ctx, const struct attach_record *r, int err)
{
	unsigned *counts = ctx;
	(void)r;
	counts[err != 0]++;
}

TEST(records_are_saved_listed_and_removed_and_a_spoilt_one_is_told)
{
	struct attach_record r = record_of(whole), loaded;
	unsigned counts[2] = {0};
	world_begin();
	CHECK_ERR(attach_load(&w.a, &r.id, &loaded), OXE_NOENT);
	CHECK_OK(state_save(&w.a, &r));
	CHECK_OK(attach_load(&w.a, &r.id, &loaded));
	CHECK(memcmp(&r, &loaded, sizeof(r)) == 0);
	file_put(w.state, OTHER_ID, whole); /* another's name on it */
	file_put(w.state, ID ".new", "half");
	CHECK_OK(attach_walk(&w.a, record_count, counts));
	CHECK(counts[0] == 1 && counts[1] == 1);
	CHECK_OK(state_remove(&w.a, &r.id));
	CHECK_ERR(attach_load(&w.a, &r.id, &loaded), OXE_NOENT);
	world_end();
}

TEST(the_lock_of_a_volume_is_free_when_its_holder_is_dead_and_no_sooner)
{
	int lock, pipes[2];
	char byte;
	struct uuid id;
	CHECK_OK(uuid_parse(ID, &id));
	world_begin();
	CHECK(pipe2(pipes, O_CLOEXEC) == 0);
	pid_t child = fork();
	if (child == 0) {
		CHECK_OK(state_lock(&w.a, &id, &lock));
		CHECK(write(pipes[1], "x", 1) == 1);
		pause();
	}
	CHECK(read(pipes[0], &byte, 1) == 1);
	pid_t waiter = fork();
	if (waiter == 0)
		_exit(state_lock(&w.a, &id, &lock) == 0 ? 0 : 1);
	int status;
	CHECK_EQ(waitpid(waiter, &status, WNOHANG), 0);
	CHECK_OK(state_lock(&w.a, NULL, &lock)); /* another one */
	close(lock);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	CHECK_EQ(waitpid(waiter, &status, 0), waiter);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	world_end();
}

TEST(a_device_that_cannot_be_opened_is_told_as_the_kernel_tells_it)
{
	int fd;
	CHECK_ERR(hold_open("/nonexistent", O_RDONLY, false, 5000, &fd), OXE_NOENT);
	CHECK_EQ(fd, -1);
	CHECK_OK(hold_open("/dev/zero", O_RDONLY, true, 5000, &fd));
	CHECK(fd >= 0 && read(fd, &(char){0}, 1) == 1);
	close(fd);
}

TEST(a_device_that_never_answers_holds_nobody_up)
{
	int fd;
	char path[ATTACH_PATH_SIZE];
	world_begin();
	path_format(path, "%s/fifo", w.root);
	CHECK(mkfifo(path, 0600) == 0); /* opening one waits for the other end */
	CHECK_ERR(hold_open(path, O_RDONLY, false, 50, &fd), OXE_TIMEOUT);
	world_end();
}
