/*
 * disk_holder.c: a process that holds a disk as the daemon does, and can be killed while it writes.
 *
 *     disk_holder FILE WRITES
 *
 * Opens FILE, prints "held", and for a line on standard input hands WRITES writes of 4 KiB of 'N', from the start of the file
 * on, to the kernel, prints "sent", and stays.
 */
#include "host/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_BYTES RT_IO_ALIGN
#define WRITES_MAX  64

static const char *path;
static size_t writes;

static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

static void line_wait(void *arg)
{
	int c;
	while ((c = getchar()) != '\n' && c != EOF)
		;
	(void)arg;
}

static void write_done(struct rt_io *io)
{
	(void)io;
}

static void writes_send(struct rt_disk *disk)
{
	static struct rt_io ios[WRITES_MAX];
	void *data = aligned_alloc(RT_IO_ALIGN, WRITE_BYTES);
	memset(data, 'N', WRITE_BYTES);
	for (size_t i = 0; i < writes; i++) {
		ios[i] = (struct rt_io){.disk = disk,
					.op = RT_IO_WRITE,
					.data = data,
					.offset_bytes = i * WRITE_BYTES,
					.len_bytes = WRITE_BYTES,
					.done = write_done};
		rt_io_submit(&ios[i]);
	}
	fiber_sleep(NS_PER_MS); /* the ring is handed over at the end of a turn: now it has been */
}

static void hold_main(void *arg)
{
	struct rt_disk *disk;
	(void)arg;
	int err = rt_disk_open(rt_current(), path, 0, 0, &disk);
	if (err) {
		fprintf(stderr, "%s: %s\n", path, err_text(err));
		host_rt_stop(rt_current());
		return;
	}
	say("held");
	rt_offload(line_wait, NULL);
	writes_send(disk);
	say("sent");
	fiber_park();
}

int main(int argc, char **argv)
{
	if (argc != 3 || (writes = strtoul(argv[2], NULL, 10)) > WRITES_MAX) {
		fprintf(stderr, "usage: disk_holder FILE WRITES\n");
		return 2;
	}
	path = argv[1];
	struct rt *rt = host_rt_new(&(struct host_options){0});
	if (!rt)
		return 2;
	fiber_spawn(rt, "hold", hold_main, NULL);
	host_rt_run(rt);
	_Exit(2);
}
