/* mirror_range_test.c: who waits for whom (V7), against the plain rule; and what it costs, printed. */
#include "base/prng.h"
#include "base/test.h"
#include "data/engine/mirror_range.h"
#include "sim/sim.h"

#include <stdio.h>
#include <time.h>

#define PEOPLE 40u
#define ROUNDS 200u
#define SPACE  (4 * MiB)
#define MANY   1024u

struct person {
	uint64_t begin, end, came;
	bool changes, holds;
};

static struct ranges ranges;
static struct prng rng;
static struct person people[PEOPLE];
static uint64_t arrivals, done_count;
static bool done;

static bool in_the_way(const struct person *a, const struct person *b)
{
	return a->begin < b->end && b->begin < a->end && (a->changes || b->changes);
}

/* Nobody holds what overlaps, and nobody who came before still waits for it. */
static void check_turn(const struct person *me)
{
	for (uint32_t i = 0; i < PEOPLE; i++) {
		const struct person *p = &people[i];
		if (p != me && p->came && in_the_way(p, me))
			CHECK(!p->holds && p->came > me->came);
	}
}

static void person_choose(struct person *p)
{
	uint64_t len = prng_one_in(&rng, 8) ? SPACE / 2 : (1 + prng_below(&rng, 64)) * 4 * KiB;
	p->begin = prng_below(&rng, SPACE / 4096) * 4096;
	p->end = p->begin + len;
	p->changes = prng_one_in(&rng, 2);
	p->came = ++arrivals;
}

static void person_main(void *arg)
{
	struct person *p = arg;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct range r;
		person_choose(p);
		mirror_range_lock(&ranges, &r, p->begin, p->end, p->changes);
		check_turn(p);
		p->holds = true;
		fiber_sleep(prng_below(&rng, 2000));
		p->holds = false;
		p->came = 0;
		mirror_range_unlock(&ranges, &r);
		if (prng_one_in(&rng, 2))
			fiber_sleep(prng_below(&rng, 4000));
	}
	done = ++done_count == PEOPLE;
}

TEST(who_overlaps_takes_turns_in_the_order_they_came_and_nobody_else_waits)
{
	struct sim *sim = sim_new(3);
	struct sim_node *node = sim_node_new(sim, "a");
	struct rt *rt = sim_node_start(node);
	prng_seed(&rng, 7);
	mirror_ranges_init(&ranges);
	for (uint32_t i = 0; i < PEOPLE; i++)
		fiber_spawn(rt, "person", person_main, &people[i]);
	CHECK(sim_run(sim, &done, 3600 * NS_PER_S) == SIM_DONE);
	sim_node_stop(node);
	sim_free(sim);
}

static uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* One more comes and goes while so many are at other places. */
static uint64_t cost_ns(uint32_t held, uint64_t stride, uint64_t len)
{
	static struct range all[MANY];
	struct range r;
	uint64_t times = 200000, begin_ns;
	mirror_ranges_init(&ranges);
	for (uint32_t i = 0; i < held; i++)
		mirror_range_lock(&ranges, &all[i], i * stride, i * stride + len, true);
	begin_ns = clock_ns();
	for (uint64_t i = 0; i < times; i++) {
		mirror_range_lock(&ranges, &r, held * stride, held * stride + len, true);
		mirror_range_unlock(&ranges, &r);
	}
	uint64_t ns = (clock_ns() - begin_ns) / times;
	for (uint32_t i = 0; i < held; i++)
		mirror_range_unlock(&ranges, &all[i]);
	return ns;
}

TEST(what_a_turn_costs_beside_many_others)
{
	static const uint32_t held[] = {0, 31, 1023};
	for (size_t i = 0; i < ARRAY_COUNT(held); i++)
		printf("beside %4u: sequential 4 KiB %llu ns, scattered 4 KiB %llu ns, 128 KiB %llu ns, 1 "
		       "MiB %llu ns\n",
		       held[i], (unsigned long long)cost_ns(held[i], 4 * KiB, 4 * KiB),
		       (unsigned long long)cost_ns(held[i], 777 * 4 * KiB, 4 * KiB),
		       (unsigned long long)cost_ns(held[i], 128 * KiB, 128 * KiB),
		       (unsigned long long)cost_ns(held[i], MiB, MiB));
}
