/* sim_test.c: every fault does what it says, nothing more, and the same seed does it again. */
#include "base/bytes.h"
#include "base/test.h"
#include "rt/rt.h"
#include "sim/sim.h"

#define DISK	   "/dev/sda"
#define DISK_BYTES (16 * MiB)
#define PAGE	   4096u

/* ---- a machine with one disk and one fiber -------------------------------------------------------------------------------- */

struct world {
	struct sim *sim;
	struct sim_node *node;
	struct sim_disk *disk;
	void (*script)(struct world *w, struct rt_disk *disk);
	bool done;
	int err;
	uint8_t *buf; /* 64 KiB, aligned */
};

static void world_main(void *arg)
{
	struct world *w = arg;
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	w->script(w, disk);
	rt_disk_close(disk);
	w->done = true;
}

static struct world world_new(uint64_t seed)
{
	struct world w = {.sim = sim_new(seed)};
	w.node = sim_node_new(w.sim, "a");
	w.disk = sim_disk_new(w.node, DISK, DISK_BYTES, 512);
	w.buf = aligned_alloc(PAGE, 64 * KiB);
	return w;
}

static void world_free(struct world *w)
{
	sim_free(w->sim);
	free(w->buf);
}

static void world_run(struct world *w, void (*script)(struct world *w, struct rt_disk *disk))
{
	w->script = script;
	w->done = false;
	fiber_spawn(sim_node_start(w->node), "script", world_main, w);
	CHECK_EQ(sim_run(w->sim, &w->done, UINT64_MAX), SIM_DONE);
	sim_run(w->sim, NULL, UINT64_MAX);
	sim_node_stop(w->node);
}

static int write_byte(struct world *w, struct rt_disk *disk, uint8_t byte, uint64_t offset, uint64_t len,
		      unsigned flags)
{
	memset(w->buf, byte, len);
	return rt_disk_write(disk, w->buf, len, offset, flags);
}

static bool all_bytes(const uint8_t *p, uint8_t byte, size_t len)
{
	return p[0] == byte && memcmp(p, p + 1, len - 1) == 0;
}

/* The byte a sector is full of; -1 if it holds several. */
static int sector_byte(const struct sim_disk *disk, uint64_t offset)
{
	uint8_t sector[512];
	sim_disk_peek(disk, sector, sizeof(sector), offset);
	return all_bytes(sector, sector[0], sizeof(sector)) ? sector[0] : -1;
}

/* How many of the sectors in [offset, offset + len) are full of `byte`. */
static unsigned sectors_of(const struct sim_disk *disk, uint64_t offset, uint64_t len, int byte)
{
	unsigned count = 0;
	for (uint64_t at = 0; at < len; at += 512)
		count += sector_byte(disk, offset + at) == byte;
	return count;
}

/* ---- the disk when nothing goes wrong ---------------------------------------------------------------------------------------- */

static void write_and_read(struct world *w, struct rt_disk *disk)
{
	CHECK_EQ(rt_disk_info(disk)->size_bytes, DISK_BYTES);
	CHECK_OK(write_byte(w, disk, 7, 4096 * 3 + 512, 8192, 0));
	CHECK_OK(rt_disk_read(disk, w->buf, 16384, 4096 * 3));
	CHECK(all_bytes(w->buf, 0, 512) && all_bytes(w->buf + 512, 7, 8192) && w->buf[8704] == 0);
	CHECK_OK(rt_disk_flush(disk));
	struct rt_disk *again;
	CHECK_ERR(rt_disk_open(rt_current(), DISK, 0, 0, &again), OXE_BUSY);
	CHECK_ERR(rt_disk_open(rt_current(), "/dev/none", 0, 0, &again), OXE_NOENT);
}

TEST(a_read_finds_what_was_written)
{
	struct world w = world_new(1);
	world_run(&w, write_and_read);
	CHECK_EQ(sim_disk_counts(w.disk)->writes, 1);
	CHECK(sim_now_ns(w.sim) > 0);
	world_free(&w);
}

static void fill_is_garbage(struct world *w, struct rt_disk *disk)
{
	CHECK_OK(rt_disk_read(disk, w->buf, PAGE, 8 * PAGE));
	CHECK(!bytes_are_zero(w->buf, PAGE));
	uint32_t word;
	memcpy(&word, w->buf, 4);
	CHECK_OK(rt_disk_read(disk, w->buf, PAGE, 8 * PAGE));
	CHECK(memcmp(&word, w->buf, 4) == 0);
}

TEST(a_used_disk_holds_garbage_that_stays_the_same)
{
	struct world w = world_new(1);
	sim_disk_fill(w.disk, 99);
	world_run(&w, fill_is_garbage);
	world_free(&w);
}

static void files_and_memory(struct world *w, struct rt_disk *disk)
{
	struct rt_disk *file, *memory;
	char what[64];
	(void)disk;
	CHECK_OK(rt_disk_open(rt_current(), "/var/pool", RT_DISK_CREATE, 4 * MiB, &file));
	CHECK_OK(write_byte(w, file, 9, 0, 512, 0));
	CHECK_OK(rt_disk_grow(file, 8 * MiB));
	CHECK_EQ(rt_disk_info(file)->size_bytes, 8 * MiB);
	CHECK_OK(write_byte(w, file, 9, 8 * MiB - 512, 512, 0));
	rt_disk_close(file);
	CHECK_ERR(rt_disk_open(rt_current(), "/var/pool", RT_DISK_CREATE, 4 * MiB, &file), OXE_EXISTS);
	CHECK_OK(rt_disk_probe(rt_current(), "/var/pool", what, sizeof(what)));
	CHECK_STR(what, "unknown data");
	CHECK_OK(rt_disk_probe(rt_current(), DISK, what, sizeof(what)));
	CHECK_STR(what, "");
	CHECK_OK(rt_disk_open(rt_current(), "mem:1048576:x", 0, 0, &memory));
	CHECK(rt_disk_info(memory)->is_memory);
	rt_disk_close(memory);
}

TEST(files_are_made_grown_and_probed)
{
	struct world w = world_new(1);
	world_run(&w, files_and_memory);
	world_free(&w);
}

/* ---- crashes --------------------------------------------------------------------------------------------------------------------- */

static void write_flush_write(struct world *w, struct rt_disk *disk)
{
	CHECK_OK(write_byte(w, disk, 1, 0, 4096, 0));
	CHECK_OK(rt_disk_flush(disk));
	for (uint8_t i = 0; i < 16; i++)
		CHECK_OK(write_byte(w, disk, 2, i * 4096u, 4096, 0));
	CHECK_OK(write_byte(w, disk, 3, 4096 * 20, 4096, RT_IO_FUA));
}

TEST(flushed_and_fua_writes_survive_the_plug_and_others_may_not)
{
	bool lost = false, kept = false, torn = false;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct world w = world_new(seed);
		world_run(&w, write_flush_write);
		sim_node_power_cut(w.node);
		unsigned old = sectors_of(w.disk, 0, 4096, 1), new = sectors_of(w.disk, 0, 4096, 2);
		CHECK_EQ(old + new, 8);
		CHECK_EQ(sectors_of(w.disk, 20 * 4096, 4096, 3), 8);
		lost |= old == 8;
		kept |= new == 8;
		torn |= old && new;
		world_free(&w);
	}
	CHECK(lost && kept && torn);
}

TEST(a_kill_loses_nothing_that_was_done)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct world w = world_new(seed);
		world_run(&w, write_flush_write);
		sim_node_kill(w.node);
		CHECK_EQ(sectors_of(w.disk, 0, 65536, 2), 128);
		world_free(&w);
	}
}

TEST(writes_tear_at_the_granularity_asked_for)
{
	bool torn = false;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct world w = world_new(seed);
		sim_disk_faults(w.disk)->torn_bytes = 4096;
		world_run(&w, write_flush_write);
		sim_node_power_cut(w.node);
		for (uint64_t at = 0; at < 65536; at += 4096)
			CHECK_EQ(sectors_of(w.disk, at, 4096, sector_byte(w.disk, at)), 8);
		torn |= sectors_of(w.disk, 4096, 61440, 2) != 0;
		world_free(&w);
	}
	CHECK(torn);
}

static void older_write_under_fua(struct world *w, struct rt_disk *disk)
{
	CHECK_OK(write_byte(w, disk, 1, 0, 8192, 0));
	CHECK_OK(write_byte(w, disk, 2, 0, 4096, RT_IO_FUA));
}

TEST(an_unflushed_write_never_comes_out_on_top_of_a_later_durable_one)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w = world_new(seed);
		world_run(&w, older_write_under_fua);
		sim_node_power_cut(w.node);
		CHECK_EQ(sectors_of(w.disk, 0, 4096, 2), 8);
		CHECK_EQ(sectors_of(w.disk, 4096, 4096, 0) + sectors_of(w.disk, 4096, 4096, 1), 8);
		world_free(&w);
	}
}

static struct rt_io loose_io;

static void io_ignored(struct rt_io *io)
{
	(void)io;
}

/* Leaves a write of 16 pages in flight. */
static void submit_and_hang(struct world *w, struct rt_disk *disk)
{
	memset(w->buf, 5, 65536);
	loose_io = (struct rt_io){
		.disk = disk, .op = RT_IO_WRITE, .data = w->buf, .len_bytes = 65536, .done = io_ignored};
	rt_io_submit(&loose_io);
	w->done = true;
	fiber_park();
}

static void run_and_leave_in_flight(struct world *w)
{
	w->script = submit_and_hang;
	fiber_spawn(sim_node_start(w->node), "script", world_main, w);
	CHECK_EQ(sim_run(w->sim, &w->done, UINT64_MAX), SIM_DONE);
}

TEST(a_kill_keeps_whole_pages_of_what_was_in_flight)
{
	bool part = false;
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w = world_new(seed);
		run_and_leave_in_flight(&w);
		sim_node_kill(w.node);
		for (uint64_t at = 0; at < 65536; at += 4096)
			CHECK_EQ(sectors_of(w.disk, at, 4096, 5) % 8, 0);
		unsigned there = sectors_of(w.disk, 0, 65536, 5);
		part |= there > 0 && there < 128;
		world_free(&w);
	}
	CHECK(part);
}

/* ---- forks ------------------------------------------------------------------------------------------------------------------------- */

static struct sim_frozen *frozen_seen;

static void freeze_third(void *ctx, struct sim_disk *disk)
{
	unsigned *count = ctx;
	if (++*count == 3)
		frozen_seen = sim_disk_freeze(disk);
}

static void three_pages(struct world *w, struct rt_disk *disk)
{
	for (uint8_t i = 0; i < 3; i++)
		CHECK_OK(write_byte(w, disk, (uint8_t)(i + 1), i * 4096u, 4096, 0));
	CHECK_OK(rt_disk_flush(disk));
}

TEST(every_subset_of_unflushed_writes_can_be_made)
{
	struct world w = world_new(3);
	unsigned count = 0;
	sim_disk_watch(w.disk, freeze_third, &count);
	world_run(&w, three_pages);
	CHECK_EQ(sim_frozen_unflushed(frozen_seen), 3);
	CHECK_EQ(sim_frozen_in_flight(frozen_seen), 1);
	for (unsigned subset = 0; subset < 8; subset++) {
		uint8_t fates[3];
		struct sim *sim = sim_new(subset);
		struct sim_node *node = sim_node_new(sim, "fork");
		for (unsigned i = 0; i < 3; i++)
			fates[i] = subset & (1u << i) ? SIM_KEPT : SIM_LOST;
		struct sim_disk *disk = sim_disk_fork_power_cut(node, DISK, frozen_seen, fates);
		for (unsigned i = 0; i < 3; i++)
			CHECK_EQ(sector_byte(disk, i * 4096u), subset & (1u << i) ? (int)i + 1 : 0);
		sim_free(sim);
	}
	sim_frozen_free(frozen_seen);
	world_free(&w);
}

TEST(a_fork_after_a_kill_keeps_what_was_done_still_unflushed)
{
	struct world w = world_new(3);
	unsigned count = 0;
	sim_disk_watch(w.disk, freeze_third, &count);
	world_run(&w, three_pages);
	bool lost = false;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct sim *sim = sim_new(seed);
		struct sim_node *node = sim_node_new(sim, "fork");
		struct sim_disk *disk = sim_disk_fork_kill(node, DISK, frozen_seen);
		CHECK_EQ(sector_byte(disk, 0), 1);
		CHECK_EQ(sector_byte(disk, 4096), 2);
		sim_node_power_cut(node);
		lost |= sector_byte(disk, 0) == 0;
		sim_free(sim);
	}
	CHECK(lost);
	sim_frozen_free(frozen_seen);
	world_free(&w);
}

/* ---- errors and damage ------------------------------------------------------------------------------------------------------------------ */

static void nth_fails(struct world *w, struct rt_disk *disk)
{
	sim_disk_faults(w->disk)->fail_write_nth = 2;
	CHECK_OK(write_byte(w, disk, 1, 0, 4096, 0));
	CHECK_ERR(write_byte(w, disk, 2, 4096, 4096, 0), OXE_IO);
	CHECK_OK(write_byte(w, disk, 3, 8192, 4096, 0));
	sim_disk_faults(w->disk)->fail_read_nth = 1;
	CHECK_ERR(rt_disk_read(disk, w->buf, 4096, 0), OXE_IO);
	CHECK_OK(rt_disk_read(disk, w->buf, 4096, 0));
	sim_disk_faults(w->disk)->flush_error_one_in = 1;
	CHECK_ERR(rt_disk_flush(disk), OXE_IO);
}

TEST(the_nth_request_fails_once)
{
	struct world w = world_new(1);
	world_run(&w, nth_fails);
	CHECK_EQ(sectors_of(w.disk, 4096, 4096, 2) + sectors_of(w.disk, 4096, 4096, 0), 8);
	CHECK_EQ(sim_disk_counts(w.disk)->errors, 3);
	world_free(&w);
}

static void random_errors(struct world *w, struct rt_disk *disk)
{
	sim_disk_faults(w->disk)->write_error_one_in = 4;
	for (unsigned i = 0; i < 200; i++)
		w->err += write_byte(w, disk, 1, 0, 4096, 0) == OXE_IO;
}

static void nth_of_all_fails(struct world *w, struct rt_disk *disk)
{
	for (uint64_t nth = 1; nth <= 4; nth++) {
		sim_disk_faults(w->disk)->fail_nth = nth;
		CHECK_ERR(write_byte(w, disk, 1, 0, 4096, 0), nth == 1 ? OXE_IO : 0);
		CHECK_ERR(rt_disk_flush(disk), nth == 2 ? OXE_IO : 0);
		CHECK_ERR(rt_disk_read(disk, w->buf, 4096, 0), nth == 3 ? OXE_IO : 0);
		CHECK_EQ(sim_disk_faults(w->disk)->fail_nth, nth == 4 ? 1 : 0);
	}
}

TEST(the_nth_request_of_any_kind_fails_once)
{
	struct world w = world_new(1);
	world_run(&w, nth_of_all_fails);
	world_free(&w);
}

TEST(one_in_four_requests_fails)
{
	struct world w = world_new(1);
	world_run(&w, random_errors);
	CHECK(w.err > 25 && w.err < 80);
	world_free(&w);
}

static void unreadable_until_written(struct world *w, struct rt_disk *disk)
{
	CHECK_OK(write_byte(w, disk, 1, 0, 16384, 0));
	sim_disk_make_unreadable(w->disk, 4096, 4096);
	CHECK_ERR(rt_disk_read(disk, w->buf, 16384, 0), OXE_IO);
	CHECK_OK(rt_disk_read(disk, w->buf, 4096, 0));
	CHECK_OK(write_byte(w, disk, 2, 4096, 4096, 0));
	CHECK_OK(rt_disk_read(disk, w->buf, 16384, 0));
	CHECK(w->buf[0] == 1 && w->buf[4096] == 2);
}

TEST(a_latent_error_lasts_until_the_place_is_written)
{
	struct world w = world_new(1);
	world_run(&w, unreadable_until_written);
	world_free(&w);
}

static void rot_latent_misdirect(struct world *w, struct rt_disk *disk)
{
	sim_disk_flip_bit(w->disk, 100, 3);
	CHECK_OK(rt_disk_read(disk, w->buf, 4096, 0));
	CHECK_EQ(w->buf[100], 8);
	sim_disk_faults(w->disk)->latent_one_in = 1;
	CHECK_OK(write_byte(w, disk, 1, 0, 4096, 0));
	sim_disk_faults(w->disk)->latent_one_in = 0;
	for (uint64_t at = 0; at < DISK_BYTES; at += 65536)
		w->err += rt_disk_read(disk, w->buf, 65536, at) == OXE_IO;
	CHECK_EQ(w->err, 1);
	sim_disk_faults(w->disk)->misdirect_one_in = 1;
	CHECK_OK(write_byte(w, disk, 0x77, 0, 4096, 0));
	sim_disk_faults(w->disk)->misdirect_one_in = 0;
}

TEST(bits_rot_pages_die_and_writes_go_astray)
{
	struct world w = world_new(1);
	world_run(&w, rot_latent_misdirect);
	CHECK(sector_byte(w.disk, 0) != 0x77);
	CHECK_EQ(sectors_of(w.disk, 0, DISK_BYTES, 0x77), 8);
	world_free(&w);
}

static void discard_as(struct world *w, struct rt_disk *disk)
{
	static const enum sim_discard kinds[] = {SIM_DISCARD_KEEPS, SIM_DISCARD_ZEROES, SIM_DISCARD_GARBAGE};
	for (unsigned i = 0; i < 3; i++) {
		sim_disk_faults(w->disk)->discard = kinds[i];
		CHECK_OK(write_byte(w, disk, 6, 0, 65536, 0));
		CHECK_OK(rt_disk_discard(disk, 32768, 4096));
		CHECK_OK(rt_disk_read(disk, w->buf, 65536, 0));
		CHECK(w->buf[0] == 6 && w->buf[4095] == 6 && w->buf[36864] == 6);
		CHECK_EQ(all_bytes(w->buf + 4096, 6, 32768), i == 0);
		CHECK_EQ(all_bytes(w->buf + 4096, 0, 32768), i == 1);
	}
}

TEST(a_discard_keeps_zeroes_or_scrambles)
{
	struct world w = world_new(1);
	world_run(&w, discard_as);
	world_free(&w);
}

static void fill_up(struct world *w, struct rt_disk *disk)
{
	sim_disk_faults(w->disk)->space_bytes = 40960;
	for (uint64_t i = 0; i < 10; i++)
		CHECK_OK(write_byte(w, disk, 1, i * 8 * 4096, 4096, 0));
	CHECK_ERR(write_byte(w, disk, 1, 11 * 8 * 4096, 4096, 0), OXE_NOSPC);
	CHECK_OK(write_byte(w, disk, 2, 8 * 4096, 4096, 0));
}

TEST(a_full_file_system_refuses_new_pages_and_takes_old_ones)
{
	struct world w = world_new(1);
	world_run(&w, fill_up);
	world_free(&w);
}

static void stall(struct world *w, struct rt_disk *disk)
{
	uint64_t start_ns = rt_now_ns(rt_current());
	CHECK_OK(write_byte(w, disk, 1, 0, 4096, 0));
	uint64_t fast_ns = rt_now_ns(rt_current()) - start_ns;
	sim_disk_faults(w->disk)->stall_one_in = 1;
	CHECK_OK(write_byte(w, disk, 1, 0, 4096, 0));
	CHECK(fast_ns <= 120 * NS_PER_US);
	CHECK(rt_now_ns(rt_current()) - start_ns - fast_ns >= 50 * NS_PER_MS);
}

TEST(a_request_may_stall)
{
	struct world w = world_new(1);
	world_run(&w, stall);
	world_free(&w);
}

/* What a paused process had asked its disk for is done, and heard of later; killed, it never hears of it. */
static void write_and_note(void *arg)
{
	struct world *w = arg;
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(write_byte(w, disk, 7, 0, 4096, 0));
	w->done = true;
}

TEST(what_a_paused_process_had_asked_for_is_done_and_told_when_it_goes_on)
{
	for (int killed = 0; killed < 2; killed++) {
		struct world w = world_new(1);
		sim_disk_faults(w.disk)->latency_min_ns = sim_disk_faults(w.disk)->latency_max_ns = NS_PER_MS;
		fiber_spawn(sim_node_start(w.node), "script", write_and_note, &w);
		CHECK_EQ(sim_run(w.sim, &w.done, 500 * NS_PER_US), SIM_LATE);
		sim_node_pause(w.node);
		CHECK(sim_node_is_paused(w.node));
		CHECK_EQ(sim_run(w.sim, &w.done, NS_PER_S), SIM_STUCK);
		CHECK_EQ(sector_byte(w.disk, 0), 7);
		if (killed)
			sim_node_kill(w.node);
		sim_node_resume(w.node);
		CHECK_EQ(sim_run(w.sim, &w.done, 2 * NS_PER_S), killed ? SIM_STUCK : SIM_DONE);
		CHECK_EQ(w.done, !killed);
		world_free(&w);
	}
}

/* A read while a write of the same place is in flight. */
static struct rt_io racing_io;
static uint8_t *racing_buf;

static void read_during_write(struct world *w, struct rt_disk *disk)
{
	sim_disk_faults(w->disk)->latency_min_ns = 1000;
	sim_disk_faults(w->disk)->latency_max_ns = 100000;
	memset(racing_buf, 4, 65536);
	racing_io = (struct rt_io){
		.disk = disk, .op = RT_IO_WRITE, .data = racing_buf, .len_bytes = 65536, .done = io_ignored};
	rt_io_submit(&racing_io);
	CHECK_OK(rt_disk_read(disk, w->buf, 65536, 0));
	unsigned new = 0;
	for (unsigned at = 0; at < 65536; at += 512) {
		CHECK(all_bytes(w->buf + at, w->buf[at], 512) && (w->buf[at] == 0 || w->buf[at] == 4));
		new += w->buf[at] == 4;
	}
	w->err |= new == 0 ? 1 : new == 128 ? 2 : 4;
	CHECK_OK(rt_disk_flush(disk));
	fiber_sleep(NS_PER_S);
}

TEST(a_read_sees_old_new_or_a_mix_of_a_write_in_flight)
{
	int seen = 0;
	racing_buf = aligned_alloc(PAGE, 65536);
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w = world_new(seed);
		world_run(&w, read_during_write);
		seen |= w.err;
		world_free(&w);
	}
	free(racing_buf);
	CHECK_EQ(seen, 7);
}

/* ---- determinism ----------------------------------------------------------------------------------------------------------------------------- */

static struct {
	struct rt_group group;
	struct rt_disk *disk;
} crowd;

static void crowd_member(void *arg)
{
	uint8_t *buf = aligned_alloc(PAGE, PAGE);
	(void)arg;
	for (unsigned i = 0; i < 30; i++) {
		uint64_t at = rt_random_u64(rt_current()) % 64 * PAGE;
		memset(buf, (int)i, PAGE);
		if (i % 3)
			CHECK_OK(rt_disk_write(crowd.disk, buf, PAGE, at, 0));
		else
			CHECK_OK(rt_disk_read(crowd.disk, buf, PAGE, at));
		if (i % 7 == 0)
			fiber_sleep(rt_random_u64(rt_current()) % 50000);
	}
	free(buf);
	group_done(&crowd.group);
}

static void crowd_script(struct world *w, struct rt_disk *disk)
{
	(void)w;
	crowd.disk = disk;
	group_init(&crowd.group);
	group_add(&crowd.group, 8);
	for (unsigned i = 0; i < 8; i++)
		fiber_spawn(rt_current(), "member", crowd_member, NULL);
	group_wait(&crowd.group);
}

static uint64_t crowd_hash(uint64_t seed, bool shuffle)
{
	struct world w = world_new(seed);
	sim_shuffle(w.sim, shuffle);
	world_run(&w, crowd_script);
	sim_node_power_cut(w.node);
	sim_trace(w.sim, "end", (uint64_t)sector_byte(w.disk, 0), 0, 0);
	uint64_t hash = sim_trace_hash(w.sim);
	world_free(&w);
	return hash;
}

TEST(the_same_seed_gives_the_same_run_and_another_seed_another)
{
	for (unsigned shuffle = 0; shuffle < 2; shuffle++) {
		uint64_t first = crowd_hash(42, shuffle);
		void *disturbance = mem_alloc(123457); /* other addresses, same run */
		CHECK(crowd_hash(42, shuffle) == first);
		free(disturbance);
		CHECK(crowd_hash(43, shuffle) != first);
	}
	CHECK(crowd_hash(42, false) != crowd_hash(42, true));
}

static void nested(void *ctx, struct sim_disk *disk)
{
	(void)ctx, (void)disk;
	CHECK(crowd_hash(42, true) != 0);
}

TEST(simulations_nest_without_touching_each_other)
{
	struct world plain = world_new(5), watched = world_new(5);
	world_run(&plain, three_pages);
	sim_disk_watch(watched.disk, nested, NULL);
	world_run(&watched, three_pages);
	CHECK(sim_trace_hash(plain.sim) == sim_trace_hash(watched.sim));
	world_free(&plain);
	world_free(&watched);
}

static void hang(struct world *w, struct rt_disk *disk)
{
	(void)w, (void)disk;
	fiber_park();
}

/* Three machines with clocks of their own: each sleeps a second by its own. */
struct clocked {
	struct sim *sim;
	uint64_t from_ns, to_ns, woke_ns;
};

static void clock_script(void *arg)
{
	struct clocked *c = arg;
	c->from_ns = rt_now_exact_ns(rt_current());
	fiber_sleep(NS_PER_S);
	c->to_ns = rt_now_ns(rt_current());
	c->woke_ns = sim_now_ns(c->sim);
}

TEST(a_clock_that_runs_slow_wakes_its_machine_late_and_one_that_runs_fast_early)
{
	static const uint32_t permilles[] = {900, 1000, 1037};
	struct clocked clocks[3];
	struct sim *sim = sim_new(5);
	for (unsigned i = 0; i < 3; i++) {
		struct sim_node *node = sim_node_new(sim, "a");
		clocks[i] = (struct clocked){.sim = sim};
		sim_node_set_clock(node, permilles[i]);
		fiber_spawn(sim_node_start(node), "script", clock_script, &clocks[i]);
	}
	CHECK_EQ(sim_run(sim, NULL, UINT64_MAX), SIM_DONE);
	for (unsigned i = 0; i < 3; i++) {
		CHECK(clocks[i].to_ns - clocks[i].from_ns >= NS_PER_S);
		CHECK(clocks[i].to_ns - clocks[i].from_ns < NS_PER_S + 2);
		CHECK_EQ(clocks[i].woke_ns, (NS_PER_S * 1000 + permilles[i] - 1) / permilles[i]);
	}
	sim_free(sim);
}

TEST(a_hang_is_noticed)
{
	struct world w = world_new(1);
	w.script = hang;
	fiber_spawn(sim_node_start(w.node), "script", world_main, &w);
	CHECK_EQ(sim_run(w.sim, &w.done, UINT64_MAX), SIM_STUCK);
	world_free(&w);
}

/* ---- the network --------------------------------------------------------------------------------------------------------------------------------- */

struct talk {
	struct sim *sim;
	struct sim_node *server, *client;
	struct rt_conn *conn; /* the client's end */
	uint64_t echoed, short_reads;
	bool listening, poured, done;
	int server_err, client_err;
	uint64_t total_bytes;
};

/* Echo until the peer ends. */
static void echo_main(void *arg)
{
	struct talk *t = arg;
	struct rt_listener *l;
	struct rt_conn *c;
	uint8_t buf[1000];
	size_t got;
	CHECK_OK(rt_listen(rt_current(), "tcp:10.0.0.1:4420", &l));
	CHECK_STR(rt_listener_address(l), "tcp:10.0.0.1:4420");
	t->listening = true;
	CHECK_OK(rt_accept(l, &c));
	while ((t->server_err = rt_recv(c, buf, sizeof(buf), &got)) == 0 && got > 0) {
		struct rt_iovec part = {buf, got};
		t->short_reads += got < sizeof(buf);
		t->server_err = rt_send(c, &part, 1);
		if (t->server_err)
			break;
	}
	rt_conn_close(c);
	rt_listener_close(l);
}

static void pour(void *arg)
{
	struct talk *t = arg;
	uint8_t *buf = mem_alloc(t->total_bytes);
	for (uint64_t i = 0; i < t->total_bytes; i++)
		buf[i] = (uint8_t)(i * 7);
	struct rt_iovec parts[2] = {{buf, t->total_bytes / 3},
				    {buf + t->total_bytes / 3, t->total_bytes - t->total_bytes / 3}};
	t->client_err = rt_send(t->conn, parts, 2);
	t->poured = true;
	free(buf);
}

static void client_main(void *arg)
{
	struct talk *t = arg;
	uint8_t buf[777];
	size_t got;
	while (!t->listening)
		fiber_sleep(1000);
	CHECK_OK(rt_connect(rt_current(), "tcp:10.0.0.1:4420", UINT64_MAX, &t->conn));
	fiber_spawn(rt_current(), "pour", pour, t);
	while (t->echoed < t->total_bytes) {
		if (rt_recv(t->conn, buf, sizeof(buf), &got) != 0 || got == 0)
			break;
		for (size_t i = 0; i < got; i++)
			CHECK_EQ(buf[i], (uint8_t)((t->echoed + i) * 7));
		t->echoed += got;
	}
	while (!t->poured)
		fiber_sleep(NS_PER_MS);
	rt_conn_close(t->conn);
	t->done = true;
}

static struct talk talk_new(uint64_t seed)
{
	struct talk t = {.sim = sim_new(seed), .total_bytes = 300000};
	t.server = sim_node_new(t.sim, "server");
	t.client = sim_node_new(t.sim, "client");
	sim_net_faults(t.sim)->bytes_per_s = 100 * MiB;
	return t;
}

static void talk_start(struct talk *t)
{
	fiber_spawn(sim_node_start(t->server), "echo", echo_main, t);
	fiber_spawn(sim_node_start(t->client), "client", client_main, t);
}

TEST(bytes_arrive_in_order_and_in_any_pieces)
{
	struct talk t = talk_new(1);
	sim_net_faults(t.sim)->window_bytes = 20000;
	talk_start(&t);
	CHECK_EQ(sim_run(t.sim, NULL, UINT64_MAX), SIM_DONE);
	CHECK_EQ(t.echoed, t.total_bytes);
	CHECK(t.done && t.server_err == 0);
	CHECK(t.short_reads > 20);
	sim_node_stop(t.server);
	sim_node_stop(t.client);
	sim_free(t.sim);
}

TEST(a_reset_breaks_both_ends)
{
	struct talk t = talk_new(2);
	t.total_bytes = 3000000;
	sim_net_faults(t.sim)->reset_one_in = 20;
	talk_start(&t);
	sim_run(t.sim, NULL, UINT64_MAX);
	CHECK(t.done && t.echoed < t.total_bytes);
	CHECK_ERR(t.server_err, OXE_CLOSED);
	CHECK_ERR(t.client_err, OXE_CLOSED);
	sim_free(t.sim);
}

TEST(a_partition_holds_bytes_back_until_it_heals)
{
	struct talk t = talk_new(3);
	talk_start(&t);
	CHECK_EQ(sim_run(t.sim, &t.done, 500 * NS_PER_US), SIM_LATE);
	sim_net_cut(t.sim, t.server, t.client);
	CHECK_EQ(sim_run(t.sim, &t.done, 2 * NS_PER_S), SIM_LATE);
	uint64_t before = t.echoed;
	CHECK(before < t.total_bytes);
	sim_net_heal(t.sim, t.server, t.client);
	CHECK_EQ(sim_run(t.sim, &t.done, UINT64_MAX), SIM_DONE);
	CHECK_EQ(t.echoed, t.total_bytes);
	sim_free(t.sim);
}

TEST(a_killed_process_resets_its_peers)
{
	struct talk t = talk_new(4);
	talk_start(&t);
	CHECK_EQ(sim_run(t.sim, &t.done, 500 * NS_PER_US), SIM_LATE);
	sim_node_kill(t.server);
	CHECK_EQ(sim_run(t.sim, &t.done, NS_PER_S), SIM_DONE);
	CHECK(t.echoed < t.total_bytes);
	sim_free(t.sim);
}

TEST(a_paused_process_keeps_its_connections_and_hears_nothing_until_it_goes_on)
{
	struct talk t = talk_new(4);
	talk_start(&t);
	CHECK_EQ(sim_run(t.sim, &t.done, 500 * NS_PER_US), SIM_LATE);
	sim_node_pause(t.server);
	uint64_t before = t.echoed;
	CHECK_EQ(sim_run(t.sim, &t.done, 20 * NS_PER_S), SIM_STUCK);
	CHECK(t.echoed - before < t.total_bytes / 2);
	sim_node_resume(t.server);
	CHECK_EQ(sim_run(t.sim, &t.done, UINT64_MAX), SIM_DONE);
	CHECK_EQ(t.echoed, t.total_bytes);
	sim_free(t.sim);
}

TEST(a_machine_without_power_leaves_its_peers_waiting_until_it_is_back)
{
	struct talk t = talk_new(5);
	talk_start(&t);
	CHECK_EQ(sim_run(t.sim, &t.done, 500 * NS_PER_US), SIM_LATE);
	sim_node_power_cut(t.server);
	CHECK_EQ(sim_run(t.sim, &t.done, 3 * NS_PER_S), SIM_LATE);
	sim_node_start(t.server);
	CHECK_EQ(sim_run(t.sim, &t.done, 9 * NS_PER_S), SIM_DONE);
	CHECK(t.echoed < t.total_bytes);
	sim_free(t.sim);
}

static void dial_main(void *arg)
{
	struct talk *t = arg;
	struct rt_conn *c;
	t->client_err = rt_connect(rt_current(), "tcp:10.0.0.1:9", sim_now_ns(t->sim) + NS_PER_S, &c);
	t->done = true;
}

TEST(a_connect_is_refused_or_times_out)
{
	struct talk t = talk_new(6);
	sim_node_start(t.server);
	fiber_spawn(sim_node_start(t.client), "dial", dial_main, &t);
	CHECK_EQ(sim_run(t.sim, &t.done, UINT64_MAX), SIM_DONE);
	CHECK_ERR(t.client_err, OXE_CLOSED);
	sim_node_power_cut(t.server);
	t.done = false;
	fiber_spawn(sim_node_rt(t.client), "dial", dial_main, &t);
	CHECK_EQ(sim_run(t.sim, &t.done, UINT64_MAX), SIM_DONE);
	CHECK_ERR(t.client_err, OXE_TIMEOUT);
	sim_free(t.sim);
}

/* ---- other doors -------------------------------------------------------------------------------------------------------------------------------------- */

static unsigned posted_count;

static void posted(void *arg)
{
	CHECK(fiber_current() != NULL && rt_current() == arg);
	posted_count++;
}

static void offloaded(void *arg)
{
	*(int *)arg = 1;
}

static void doors(struct world *w, struct rt_disk *disk)
{
	int ran = 0;
	uint64_t start_ns = rt_now_ns(rt_current());
	(void)w, (void)disk;
	rt_offload(offloaded, &ran);
	CHECK(ran && rt_now_ns(rt_current()) - start_ns >= 50 * NS_PER_US);
	rt_post(rt_current(), posted, rt_current());
	fiber_sleep(NS_PER_MS);
	CHECK_EQ(posted_count, 1);
	CHECK(rt_wall_ns(rt_current()) > 1767225600 * NS_PER_S);
}

TEST(offloaded_work_costs_virtual_time_and_messages_arrive)
{
	struct world w = world_new(1);
	world_run(&w, doors);
	world_free(&w);
}

/* ---- a listener that goes --------------------------------------------------------------------------------------------------- */

struct closing {
	struct rt_listener *listener;
	bool accepted, closed, done;
};

static void busy_acceptor_main(void *arg)
{
	struct closing *g = arg;
	struct rt_conn *c;
	CHECK_OK(rt_accept(g->listener, &c));
	g->accepted = true;
	rt_conn_close(c);
	while (!g->closed) /* it is busy with this one */
		fiber_sleep(NS_PER_MS);
	CHECK_ERR(rt_accept(g->listener, &c), OXE_SHUTDOWN);
	g->done = true;
}

static void closer_main(void *arg)
{
	struct closing *g = arg;
	struct rt_conn *c;
	CHECK_OK(rt_listen(rt_current(), "tcp:127.0.0.1:4420", &g->listener));
	fiber_spawn(rt_current(), "acceptor", busy_acceptor_main, g);
	CHECK_OK(rt_connect(rt_current(), "tcp:127.0.0.1:4420", 5 * NS_PER_S, &c));
	while (!g->accepted)
		fiber_sleep(NS_PER_MS);
	rt_listener_close(g->listener);
	g->closed = true;
	rt_conn_close(c);
}

TEST(an_acceptor_that_is_busy_when_its_listener_is_closed_may_still_ask)
{
	struct closing g = {0};
	struct sim *sim = sim_new(1);
	struct sim_node *node = sim_node_new(sim, "a");
	fiber_spawn_big(sim_node_start(node), "closer", closer_main, &g);
	CHECK_EQ(sim_run(sim, &g.done, 10 * NS_PER_S), SIM_DONE);
	CHECK_EQ(sim_run(sim, NULL, 20 * NS_PER_S), SIM_DONE);
	sim_node_stop(node);
	sim_free(sim);
}
