/* rt_test.c: the core on a platform of a few lines: virtual time, a disk that is an array, no network. */
#include "base/prng.h"
#include "base/test.h"
#include "rt/rt_platform.h"
#include "rt/rt_sanitize.h"

#include <fenv.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if OX_TSAN
#define MANY_FIBERS 1200 /* making one is slow there, and 8000 are its limit */
#else
#define MANY_FIBERS 10000
#endif

/* ---- the platform ------------------------------------------------------------------------------------------------- */

struct fake {
	struct rt rt;
	struct list ios;
	uint32_t stacks;
};

struct fake_disk {
	struct rt_disk disk;
	uint8_t bytes[64 * 1024];
};

static uint64_t fake_now(struct rt *rt)
{
	return rt->now_ns;
}

static void *fake_stack_map(struct rt *rt, size_t size_bytes)
{
	int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *low = mmap(NULL, size_bytes, prot, flags, -1, 0);
	((struct fake *)rt)->stacks++;
	return low == MAP_FAILED ? NULL : low;
}

static void fake_stack_unmap(struct rt *rt, void *low, size_t size_bytes)
{
	((struct fake *)rt)->stacks--;
	munmap(low, size_bytes);
}

static void fake_post(struct rt *target, void (*fn)(void *arg), void *arg)
{
	fiber_spawn(target, "post", fn, arg);
}

static void fake_io_submit(struct rt_io *io)
{
	list_add_tail(&((struct fake *)io->disk->rt)->ios, &io->link);
}

static const struct rt_ops fake_ops = {
	.now_exact_ns = fake_now,
	.stack_map = fake_stack_map,
	.stack_unmap = fake_stack_unmap,
	.post = fake_post,
	.io_submit = fake_io_submit,
};

static void fake_init(struct fake *fake)
{
	fake->stacks = 0;
	rt_core_init(&fake->rt, &fake_ops);
	list_init(&fake->ios);
}

static void fake_io_finish(struct rt_io *io)
{
	struct fake_disk *d = (struct fake_disk *)io->disk;
	io->result = 0;
	if (io->op == RT_IO_READ)
		memcpy(io->data, d->bytes + io->offset_bytes, io->len_bytes);
	else if (io->op == RT_IO_WRITE)
		memcpy(d->bytes + io->offset_bytes, io->data, io->len_bytes);
	else if (io->op == RT_IO_DISCARD)
		io->result = OXE_UNSUPPORTED;
	io->done(io);
}

/* One turn; false when nothing can ever happen again. */
static bool fake_turn(struct fake *fake)
{
	if (rt_core_run(&fake->rt, 0))
		return true;
	struct rt_io *io = list_pop(&fake->ios, struct rt_io, link);
	if (io) {
		rt_core_enter(&fake->rt);
		fake_io_finish(io);
		rt_core_enter(NULL);
		return true;
	}
	uint64_t deadline_ns = rt_core_next_deadline_ns(&fake->rt);
	if (deadline_ns != UINT64_MAX)
		fake->rt.now_ns = u64_max(fake->rt.now_ns, deadline_ns);
	return deadline_ns != UINT64_MAX;
}

static void fake_run(struct fake *fake)
{
	while (fake_turn(fake))
		;
}

static void fake_fini(struct fake *fake)
{
	CHECK_EQ(fake->rt.fibers_live, 0);
	rt_core_fini(&fake->rt);
	CHECK_EQ(fake->stacks, 0);
}

/* What happened, as letters in order. */
static struct {
	char text[256];
	size_t len;
} trace;

static void trace_reset(void)
{
	memset(&trace, 0, sizeof(trace));
}

static void trace_add(char c)
{
	CHECK(trace.len + 1 < sizeof(trace.text));
	trace.text[trace.len++] = c;
}

/* A fiber's argument that says who it is. */
static char *letter(char c)
{
	static char letters[128];
	letters[(unsigned)c] = c;
	return &letters[(unsigned)c];
}

/* ---- fibers ------------------------------------------------------------------------------------------------------- */

static void say_twice(void *arg)
{
	char c = *(const char *)arg;
	trace_add(c);
	fiber_yield();
	trace_add(c);
}

TEST(fibers_run_in_the_order_of_the_queue)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	fiber_spawn(&fake.rt, "a", say_twice, letter('a'));
	fiber_spawn(&fake.rt, "b", say_twice, letter('b'));
	fiber_spawn_big(&fake.rt, "c", say_twice, letter('c'));
	fake_run(&fake);
	CHECK_STR(trace.text, "abcabc");
	CHECK(!rt_current() && !fiber_current());
	fake_fini(&fake);
}

TEST(a_turn_ends_after_the_switches_it_was_given)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	fiber_spawn(&fake.rt, "a", say_twice, letter('a'));
	fiber_spawn(&fake.rt, "b", say_twice, letter('b'));
	CHECK(rt_core_run(&fake.rt, 3));
	CHECK_STR(trace.text, "aba");
	CHECK(!rt_core_run(&fake.rt, 3));
	CHECK_STR(trace.text, "abab");
	fake_fini(&fake);
}

static void count_deep(void *arg)
{
	volatile char page[8192];
	memset((void *)page, 1, sizeof(page));
	fiber_yield();
	*(uint32_t *)arg += (uint32_t)page[4096];
}

TEST(ten_thousand_fibers_live_at_once_and_their_stacks_are_reused)
{
	struct fake fake;
	uint32_t count = 0;
	fake_init(&fake);
	for (int i = 0; i < MANY_FIBERS; i++)
		fiber_spawn(&fake.rt, "deep", count_deep, &count);
	CHECK_EQ(fake.rt.fibers_live, MANY_FIBERS);
	fake_run(&fake);
	CHECK_EQ(count, MANY_FIBERS);
	CHECK(fake.stacks <= 1024);
	for (int i = 0; i < 50000; i++) {
		fiber_spawn(&fake.rt, "deep", count_deep, &count);
		fake_run(&fake);
	}
	CHECK_EQ(count, MANY_FIBERS + 50000);
	CHECK(fake.stacks <= 1024);
	fake_fini(&fake);
}

/* Enough live values that some rest in callee-saved registers across the switch. */
static uint64_t mix_across_yields(uint64_t seed)
{
	uint64_t a = seed, b = seed * 3, c = seed ^ 5, d = seed + 7, e = seed * 11, f = seed ^ 13;
	double g = (double)seed;
	for (int i = 0; i < 100; i++) {
		fiber_yield();
		a += b, b ^= c, c += d, d ^= e, e += f, f ^= a, g += 0.5;
	}
	return a ^ b ^ c ^ d ^ e ^ f ^ (uint64_t)g;
}

static uint64_t mix_alone(uint64_t seed)
{
	uint64_t a = seed, b = seed * 3, c = seed ^ 5, d = seed + 7, e = seed * 11, f = seed ^ 13;
	for (int i = 0; i < 100; i++)
		a += b, b ^= c, c += d, d ^= e, e += f, f ^= a;
	return a ^ b ^ c ^ d ^ e ^ f ^ (seed + 50);
}

static void mix_fiber(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	*(uint64_t *)arg = mix_across_yields(seed) == mix_alone(seed);
}

TEST(registers_survive_a_switch)
{
	struct fake fake;
	uint64_t words[20];
	fake_init(&fake);
	for (uint64_t i = 0; i < ARRAY_COUNT(words); i++) {
		words[i] = i + 1;
		fiber_spawn(&fake.rt, "mix", mix_fiber, &words[i]);
	}
	fake_run(&fake);
	for (size_t i = 0; i < ARRAY_COUNT(words); i++)
		CHECK_EQ(words[i], 1);
	fake_fini(&fake);
}

static void round_down(void *arg)
{
	CHECK_EQ(fegetround(), FE_TONEAREST);
	fesetround(FE_DOWNWARD);
	fiber_yield();
	CHECK_EQ(fegetround(), FE_DOWNWARD);
	fesetround(FE_TONEAREST);
	(void)arg;
}

static void round_nearest(void *arg)
{
	CHECK_EQ(fegetround(), FE_TONEAREST);
	(void)arg;
}

TEST(floating_point_control_belongs_to_the_fiber)
{
	struct fake fake;
	fake_init(&fake);
	fiber_spawn(&fake.rt, "down", round_down, NULL);
	fiber_spawn(&fake.rt, "nearest", round_nearest, NULL);
	fake_run(&fake);
	CHECK_EQ(fegetround(), FE_TONEAREST);
	fake_fini(&fake);
}

static void print_on_fiber(void *arg)
{
	/* printf of a double uses aligned vector stores: it faults if a fiber starts on a misaligned stack. */
	snprintf(arg, 32, "%.3f %s", 1.5, "x");
}

TEST(a_fiber_starts_with_the_alignment_the_abi_promises)
{
	struct fake fake;
	char text[32] = "";
	fake_init(&fake);
	fiber_spawn(&fake.rt, "print", print_on_fiber, text);
	fake_run(&fake);
	CHECK_STR(text, "1.500 x");
	fake_fini(&fake);
}

/* The message a child process dies with. */
static void child_message(void (*fn)(void), char *text, size_t size_bytes)
{
	int ends[2];
	CHECK(pipe(ends) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ends[1], 2);
		fn();
		_exit(0);
	}
	close(ends[1]);
	size_t used = 0;
	for (ssize_t n; (n = read(ends[0], text + used, size_bytes - 1 - used)) > 0;)
		used += (size_t)n;
	text[used] = '\0';
	close(ends[0]);
	int status;
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

static void park_in_timer(struct rt_timer *t)
{
	(void)t;
	fiber_park();
}

static void die_parking_on_the_loop(void)
{
	struct fake fake;
	struct rt_timer t;
	fake_init(&fake);
	timer_init(&t, park_in_timer);
	timer_arm(&fake.rt, &t, 0);
	rt_core_run(&fake.rt, 0);
}

TEST(suspending_on_the_loops_stack_stops_the_process_with_a_sentence)
{
	char text[4096];
	child_message(die_parking_on_the_loop, text, sizeof(text));
	CHECK(strstr(text, "on the loop's stack"));
}

/* ---- waiting ------------------------------------------------------------------------------------------------------ */

static struct waitq shared_waitq;

static void wait_and_say(void *arg)
{
	waitq_wait(&shared_waitq);
	trace_add(*(const char *)arg);
}

static void wake_one_then_all(void *arg)
{
	waitq_wake_one(&shared_waitq);
	fiber_yield();
	trace_add('|');
	waitq_wake_all(&shared_waitq);
	(void)arg;
}

TEST(a_waitq_wakes_in_order)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	waitq_init(&shared_waitq);
	fiber_spawn(&fake.rt, "a", wait_and_say, letter('a'));
	fiber_spawn(&fake.rt, "b", wait_and_say, letter('b'));
	fiber_spawn(&fake.rt, "c", wait_and_say, letter('c'));
	fiber_spawn(&fake.rt, "wake", wake_one_then_all, NULL);
	fake_run(&fake);
	CHECK_STR(trace.text, "a|bc");
	CHECK(waitq_empty(&shared_waitq));
	fake_fini(&fake);
}

static void wait_a_while(void *arg)
{
	bool woken = waitq_wait_until(&shared_waitq, *(uint64_t *)arg);
	trace_add(woken ? 'w' : 't');
	trace_add((char)('0' + rt_now_ns(rt_current())));
}

static void wake_at_two(void *arg)
{
	fiber_sleep(2);
	waitq_wake_one(&shared_waitq);
	(void)arg;
}

TEST(waiting_until_ends_by_the_clock_or_by_a_wake_whichever_is_first)
{
	struct fake fake;
	uint64_t one = 1, three = 3;
	fake_init(&fake);
	trace_reset();
	waitq_init(&shared_waitq);
	fiber_spawn(&fake.rt, "one", wait_a_while, &one);
	fiber_spawn(&fake.rt, "three", wait_a_while, &three);
	fiber_spawn(&fake.rt, "wake", wake_at_two, NULL);
	fake_run(&fake);
	CHECK_STR(trace.text, "t1w2");
	CHECK_EQ(fake.rt.timer_count, 0);
	fake_fini(&fake);
}

static void wake_at_the_same_time(void *arg)
{
	fiber_sleep(1);
	waitq_wake_one(&shared_waitq);
	(void)arg;
}

TEST(a_wake_and_the_deadline_in_one_turn_resume_the_waiter_once)
{
	struct fake fake;
	uint64_t one = 1;
	fake_init(&fake);
	trace_reset();
	waitq_init(&shared_waitq);
	fiber_spawn(&fake.rt, "wake", wake_at_the_same_time, NULL);
	fiber_spawn(&fake.rt, "one", wait_a_while, &one);
	fake_run(&fake);
	CHECK_STR(trace.text, "t1");
	fake_fini(&fake);
}

static struct fmutex shared_mutex;

static void lock_and_say(void *arg)
{
	fmutex_lock(&shared_mutex);
	trace_add(*(const char *)arg);
	fiber_yield();
	trace_add(*(const char *)arg);
	fmutex_unlock(&shared_mutex);
}

TEST(a_mutex_is_held_across_suspension_and_passes_in_order)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	fmutex_init(&shared_mutex);
	fiber_spawn(&fake.rt, "a", lock_and_say, letter('a'));
	fiber_spawn(&fake.rt, "b", lock_and_say, letter('b'));
	fiber_spawn(&fake.rt, "c", lock_and_say, letter('c'));
	fake_run(&fake);
	CHECK_STR(trace.text, "aabbcc");
	CHECK(!shared_mutex.holder);
	fake_fini(&fake);
}

static struct rt_group shared_group;

static void work_a_while(void *arg)
{
	fiber_sleep(*(uint64_t *)arg);
	trace_add('w');
	group_done(&shared_group);
}

static void wait_for_group(void *arg)
{
	group_wait(&shared_group);
	trace_add('g');
	CHECK_EQ(rt_now_ns(rt_current()), *(uint64_t *)arg);
}

TEST(a_group_is_waited_for_until_its_last_member_is_done)
{
	struct fake fake;
	uint64_t times[] = {7, 2, 9};
	fake_init(&fake);
	trace_reset();
	group_init(&shared_group);
	fiber_spawn(&fake.rt, "none", wait_for_group, &(uint64_t){0});
	rt_core_run(&fake.rt, 0);
	group_add(&shared_group, ARRAY_COUNT(times));
	for (size_t i = 0; i < ARRAY_COUNT(times); i++)
		fiber_spawn(&fake.rt, "work", work_a_while, &times[i]);
	fiber_spawn(&fake.rt, "wait", wait_for_group, &times[2]);
	fiber_spawn(&fake.rt, "wait", wait_for_group, &times[2]);
	fake_run(&fake);
	CHECK_STR(trace.text, "gwwwgg");
	fake_fini(&fake);
}

/* ---- timers ------------------------------------------------------------------------------------------------------- */

#define TIMERS 500

static struct {
	struct rt_timer timers[TIMERS];
	uint64_t last_ns;
	size_t last_index, fired;
} clockwork;

static void timer_tick(struct rt_timer *t)
{
	size_t index = (size_t)(t - clockwork.timers);
	CHECK(rt_current() && !fiber_current());
	CHECK(t->heap_index == 0);
	CHECK(t->deadline_ns >= clockwork.last_ns);
	if (t->deadline_ns == clockwork.last_ns && clockwork.fired)
		CHECK(index > clockwork.last_index);
	clockwork.last_ns = t->deadline_ns;
	clockwork.last_index = index;
	clockwork.fired++;
}

TEST(timers_fire_by_deadline_then_in_the_order_armed)
{
	struct fake fake;
	fake_init(&fake);
	memset(&clockwork, 0, sizeof(clockwork));
	for (size_t i = 0; i < TIMERS; i++) {
		timer_init(&clockwork.timers[i], timer_tick);
		timer_arm(&fake.rt, &clockwork.timers[i], 1 + hash_u64(i) % 20);
	}
	fake_run(&fake);
	CHECK_EQ(clockwork.fired, TIMERS);
	fake_fini(&fake);
}

TEST(a_cancelled_timer_never_fires_and_a_rearmed_one_fires_once)
{
	struct fake fake;
	fake_init(&fake);
	memset(&clockwork, 0, sizeof(clockwork));
	for (size_t i = 0; i < TIMERS; i++) {
		timer_init(&clockwork.timers[i], timer_tick);
		timer_cancel(&fake.rt, &clockwork.timers[i]);
		timer_arm(&fake.rt, &clockwork.timers[i], 1 + hash_u64(i) % 1000);
	}
	size_t cancelled = 0;
	for (size_t i = 0; i < TIMERS; i++) {
		if (hash_u64(i + TIMERS) % 2) {
			timer_cancel(&fake.rt, &clockwork.timers[i]);
			cancelled++;
		} else {
			timer_arm(&fake.rt, &clockwork.timers[i], 1 + hash_u64(i + 2 * TIMERS) % 1000);
		}
	}
	fake_run(&fake);
	CHECK_EQ(clockwork.fired, TIMERS - cancelled);
	fake_fini(&fake);
}

static void timer_rearm_now(struct rt_timer *t)
{
	if (clockwork.fired++ < 3)
		timer_arm(rt_current(), t, 0);
}

TEST(a_timer_that_rearms_itself_in_the_past_does_not_stop_the_fibers)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	memset(&clockwork, 0, sizeof(clockwork));
	timer_init(&clockwork.timers[0], timer_rearm_now);
	timer_arm(&fake.rt, &clockwork.timers[0], 0);
	fiber_spawn(&fake.rt, "a", say_twice, letter('a'));
	rt_core_run(&fake.rt, 0);
	CHECK_EQ(clockwork.fired, 1);
	CHECK_STR(trace.text, "aa");
	fake_run(&fake);
	CHECK_EQ(clockwork.fired, 4);
	fake_fini(&fake);
}

/* ---- disks and reactors -------------------------------------------------------------------------------------------- */

static void read_what_was_written(void *arg)
{
	struct rt_disk *disk = arg;
	uint8_t *page = aligned_alloc(4096, 8192);
	memset(page, 0x5a, 4096);
	CHECK_OK(rt_disk_write(disk, page, 4096, 8192, RT_IO_FUA));
	CHECK_OK(rt_disk_read(disk, page + 4096, 4096, 8192));
	CHECK(memcmp(page, page + 4096, 4096) == 0);
	CHECK_OK(rt_disk_flush(disk));
	CHECK_ERR(rt_disk_discard(disk, 4096, 0), OXE_UNSUPPORTED);
	free(page);
	trace_add('d');
}

TEST(a_disk_request_suspends_its_fiber_until_it_is_done)
{
	struct fake fake;
	static struct fake_disk disk;
	fake_init(&fake);
	trace_reset();
	disk.disk = (struct rt_disk){.rt = &fake.rt,
				     .info = {.size_bytes = sizeof(disk.bytes), .lba_bytes = 512}};
	fiber_spawn(&fake.rt, "disk", read_what_was_written, &disk);
	fake_run(&fake);
	CHECK_STR(trace.text, "d");
	fake_fini(&fake);
}

struct across {
	struct rt *target, *seen;
};

static void note_reactor(void *arg)
{
	fiber_yield();
	((struct across *)arg)->seen = rt_current();
}

static void call_across(void *arg)
{
	struct across *a = arg;
	rt_call(a->target, note_reactor, a);
	CHECK(a->seen == a->target);
	trace_add('c');
}

TEST(a_call_runs_on_the_other_reactor_and_returns_to_its_own)
{
	struct fake one, two;
	fake_init(&one);
	fake_init(&two);
	trace_reset();
	struct across there = {.target = &two.rt}, here = {.target = &one.rt};
	fiber_spawn(&one.rt, "there", call_across, &there);
	fiber_spawn(&one.rt, "here", call_across, &here);
	for (int i = 0; i < 4; i++) {
		fake_run(&one);
		fake_run(&two);
	}
	CHECK_STR(trace.text, "cc");
	fake_fini(&one);
	fake_fini(&two);
}

static void sleep_for_ever(void *arg)
{
	char *page = alloca(4096);
	memset(page, 1, 4096);
	fiber_sleep(1000);
	CHECK(!"an abandoned fiber ran");
	(void)arg;
}

TEST(a_crash_forgets_every_fiber_and_its_stack_serves_again)
{
	struct fake fake;
	fake_init(&fake);
	trace_reset();
	waitq_init(&shared_waitq);
	for (int round = 0; round < 3; round++) {
		fiber_spawn(&fake.rt, "sleep", sleep_for_ever, NULL);
		fiber_spawn(&fake.rt, "wait", wait_and_say, letter('x'));
		rt_core_run(&fake.rt, 0);
		fiber_spawn(&fake.rt, "ready", sleep_for_ever, NULL);
		rt_core_abandon(&fake.rt);
		waitq_init(&shared_waitq);
		CHECK_EQ(fake.rt.fibers_live, 0);
		CHECK(rt_core_next_deadline_ns(&fake.rt) == UINT64_MAX);
		fiber_spawn(&fake.rt, "a", say_twice, letter('a'));
		fake_run(&fake);
	}
	CHECK_STR(trace.text, "aaaaaa");
	CHECK_EQ(fake.stacks, 3);
	fake_fini(&fake);
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

static struct rt_bufpool *shared_pool;

struct buf_user {
	size_t len_bytes;
	char letter;
};

static void use_buf(void *arg)
{
	struct buf_user *u = arg;
	uint8_t *buf = rt_buf_get(shared_pool, u->len_bytes);
	CHECK(u64_is_aligned((uintptr_t)buf, RT_IO_ALIGN));
	memset(buf, u->letter, u->len_bytes);
	trace_add(u->letter);
	fiber_sleep(10);
	CHECK(buf[u->len_bytes - 1] == (uint8_t)u->letter);
	rt_buf_put(shared_pool, buf, u->len_bytes);
}

TEST(an_empty_buffer_pool_makes_askers_wait_in_order_and_the_large_one_does_not_starve)
{
	struct fake fake;
	struct buf_user users[] = {
		{12 * KiB, 'a'}, {8 * KiB, 'b'}, {16 * KiB, 'c'}, {1, 'd'}, {4 * KiB, 'e'}};
	fake_init(&fake);
	trace_reset();
	shared_pool = rt_bufpool_new(&fake.rt, 20 * KiB);
	for (size_t i = 0; i < ARRAY_COUNT(users); i++)
		fiber_spawn(&fake.rt, "user", use_buf, &users[i]);
	rt_core_run(&fake.rt, 0);
	CHECK_STR(trace.text, "a");
	CHECK(!rt_buf_try(shared_pool, 1));
	fake_run(&fake);
	CHECK_STR(trace.text, "abcde");
	CHECK_EQ(rt_now_ns(&fake.rt), 40);
	rt_bufpool_free(shared_pool);
	fake_fini(&fake);
}

TEST(kept_buffers_of_one_size_make_room_for_another)
{
	struct fake fake;
	void *bufs[16];
	fake_init(&fake);
	struct rt_bufpool *pool = rt_bufpool_new(&fake.rt, 64 * KiB);
	for (size_t i = 0; i < 16; i++)
		CHECK((bufs[i] = rt_buf_try(pool, 4096)));
	CHECK(!rt_buf_try(pool, 4096));
	for (size_t i = 0; i < 16; i++)
		rt_buf_put(pool, bufs[i], 4096);
	void *large = rt_buf_try(pool, 48 * KiB);
	CHECK(large);
	CHECK(!rt_buf_try(pool, 4096)); /* 48 KiB counts as 64 */
	rt_buf_put(pool, large, 48 * KiB);
	CHECK((bufs[0] = rt_buf_try(pool, 100)));
	rt_buf_put(pool, bufs[0], 100);
	rt_bufpool_free(pool);
	fake_fini(&fake);
}

TEST(a_request_as_large_as_the_budget_is_served_whatever_its_power_of_two)
{
	struct fake fake;
	fake_init(&fake);
	struct rt_bufpool *pool = rt_bufpool_new(&fake.rt, 20 * KiB);
	for (int i = 0; i < 3; i++) {
		void *buf = rt_buf_try(pool, 20 * KiB);
		CHECK(buf && !rt_buf_try(pool, 1));
		rt_buf_put(pool, buf, 20 * KiB);
	}
	rt_bufpool_free(pool);
	fake_fini(&fake);
}

static uint64_t unneeded_bytes;

static void count_unneeded(struct rt *rt, void *low, size_t size_bytes)
{
	(void)rt;
	CHECK(u64_is_aligned((uintptr_t)low, RT_IO_ALIGN));
	unneeded_bytes += size_bytes;
}

/* Ten seconds of a buffer at a time. */
static void use_one(void *arg)
{
	for (unsigned i = 0; i < 100; i++) {
		void *buf = rt_buf_try(arg, 4096);
		fiber_sleep(NS_PER_S / 20);
		rt_buf_put(arg, buf, 4096);
		fiber_sleep(NS_PER_S / 20);
	}
	CHECK_EQ(unneeded_bytes, 15 * 4096); /* all but the one in use */
}

TEST(buffers_that_lay_unused_give_their_memory_back_and_those_in_use_do_not)
{
	struct fake fake;
	struct rt_ops ops = fake_ops;
	void *bufs[16];
	fake_init(&fake);
	ops.memory_unneeded = count_unneeded;
	fake.rt.ops = &ops;
	unneeded_bytes = 0;
	struct rt_bufpool *pool = rt_bufpool_new(&fake.rt, MiB);
	CHECK(rt_core_next_deadline_ns(&fake.rt) == UINT64_MAX);
	for (size_t i = 0; i < 16; i++)
		CHECK((bufs[i] = rt_buf_try(pool, 4096)));
	for (size_t i = 0; i < 16; i++)
		rt_buf_put(pool, bufs[i], 4096);
	fiber_spawn(&fake.rt, "use", use_one, pool);
	fake_run(&fake); /* until no timer is armed: idle is idle */
	CHECK_EQ(unneeded_bytes, 16 * 4096);
	CHECK(rt_now_ns(&fake.rt) < 13 * NS_PER_S);
	CHECK((bufs[0] = rt_buf_try(pool, 4096)) && (bufs[1] = rt_buf_try(pool, 4096)));
	rt_buf_put(pool, bufs[0], 4096);
	rt_buf_put(pool, bufs[1], 4096);
	fake_run(&fake);
	CHECK_EQ(unneeded_bytes, 18 * 4096); /* what was used again is given back again */
	rt_bufpool_free(pool);
	fake_fini(&fake);
}

TEST(much_memory_is_given_back_a_little_at_a_time)
{
	struct fake fake;
	struct rt_ops ops = fake_ops;
	void *bufs[16];
	fake_init(&fake);
	ops.memory_unneeded = count_unneeded;
	fake.rt.ops = &ops;
	unneeded_bytes = 0;
	struct rt_bufpool *pool = rt_bufpool_new(&fake.rt, 16 * MiB);
	for (size_t i = 0; i < 16; i++)
		CHECK((bufs[i] = rt_buf_try(pool, MiB)));
	for (size_t i = 0; i < 16; i++)
		rt_buf_put(pool, bufs[i], MiB);
	while (unneeded_bytes == 0)
		CHECK(fake_turn(&fake));
	CHECK_EQ(unneeded_bytes, 4 * MiB);
	fake_run(&fake);
	CHECK_EQ(unneeded_bytes, 16 * MiB);
	rt_bufpool_free(pool);
	fake_fini(&fake);
}

#if OX_ASAN
TEST(a_buffer_nobody_holds_is_poisoned)
{
	struct fake fake;
	fake_init(&fake);
	struct rt_bufpool *pool = rt_bufpool_new(&fake.rt, MiB);
	uint8_t *buf = rt_buf_try(pool, 5000);
	CHECK(!__asan_address_is_poisoned(buf + 4999));
	rt_buf_put(pool, buf, 5000);
	CHECK(__asan_address_is_poisoned(buf) && __asan_address_is_poisoned(buf + 4999));
	rt_bufpool_free(pool);
	fake_fini(&fake);
}
#endif
