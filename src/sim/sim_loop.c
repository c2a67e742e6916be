/*
 * sim_loop.c: virtual time. Fibers of every node run until none is ready; then the earliest event or timer is next.
 *
 * Events are a heap by (time, order of arrival), so that ties fall the same way in each run. With shuffling, a ready fiber
 * is picked by the seed before each switch, and nodes take turns in an order the seed chooses.
 */
#include "rt/rt_sanitize.h"
#include "sim/sim_private.h"

#include <stdio.h>
#include <sys/mman.h>

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->when_ns != b->when_ns ? a->when_ns < b->when_ns : a->order < b->order;
}

void sim_at(struct sim *sim, uint64_t when_ns, void (*fn)(void *arg), void *arg)
{
	struct sim_event e = {u64_max(when_ns, sim->now_ns), sim->next_order++, fn, arg};
	if (sim->event_count + 2 > sim->event_capacity) {
		sim->event_capacity = 2 * sim->event_capacity + 64;
		sim->events = mem_realloc(sim->events, sim->event_capacity * sizeof(e));
	}
	size_t at = ++sim->event_count;
	for (; at > 1 && event_before(&e, &sim->events[at / 2]); at /= 2)
		sim->events[at] = sim->events[at / 2];
	sim->events[at] = e;
}

void sim_after(struct sim *sim, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	sim_at(sim, sim->now_ns + delay_ns, fn, arg);
}

static struct sim_event event_pop(struct sim *sim)
{
	struct sim_event first = sim->events[1], last = sim->events[sim->event_count--];
	size_t at = 1, child;
	for (; (child = 2 * at) <= sim->event_count; at = child) {
		if (child < sim->event_count && event_before(&sim->events[child + 1], &sim->events[child]))
			child++;
		if (event_before(&last, &sim->events[child]))
			break;
		sim->events[at] = sim->events[child];
	}
	sim->events[at] = last;
	return first;
}

/* ---- chance ------------------------------------------------------------------------------------------------------------- */

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
	return high > low ? low + prng_below(&sim->rng, high - low + 1) : low;
}

bool sim_chance(struct sim *sim, uint32_t one_in)
{
	return one_in && prng_one_in(&sim->rng, one_in);
}

/* ---- the platform's small ops ------------------------------------------------------------------------------------------- */

static uint64_t op_now_exact_ns(struct rt *rt)
{
	return node_clock_ns(node_of(rt));
}

static uint64_t op_wall_ns(struct rt *rt)
{
	return 1767225600 * NS_PER_S +
	       node_of(rt)->sim->now_ns; /* the world began on the first of January 2026 */
}

static void op_random(struct rt *rt, void *data, size_t len_bytes)
{
	prng_fill(&node_of(rt)->sim->rng, data, len_bytes);
}

/* Stacks outlive simulations: a crash state is over in less time than a mmap and its page faults take. */
static struct spare_stack {
	struct spare_stack *next;
} * spare_stacks[2];

static struct spare_stack **spare_list(size_t size_bytes)
{
	assert(size_bytes == RT_STACK_BYTES || size_bytes == RT_BIG_STACK_BYTES);
	return &spare_stacks[size_bytes == RT_BIG_STACK_BYTES];
}

static void *op_stack_map(struct rt *rt, size_t size_bytes)
{
	struct spare_stack **spares = spare_list(size_bytes), *spare = *spares;
	(void)rt;
	if (spare) {
		san_unpoison(spare, size_bytes);
		*spares = spare->next;
		return spare;
	}
	uint8_t *low = mmap(NULL, size_bytes + RT_IO_ALIGN, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (low == MAP_FAILED || mprotect(low, RT_IO_ALIGN, PROT_NONE) != 0)
		return NULL;
	return low + RT_IO_ALIGN;
}

static void op_stack_unmap(struct rt *rt, void *low, size_t size_bytes)
{
	struct spare_stack *spare = low, **spares = spare_list(size_bytes);
	(void)rt;
	san_unpoison(low, size_bytes);
	spare->next = *spares;
	*spares = spare;
}

struct posted {
	struct sim_node *target;
	uint64_t incarnation;
	void (*fn)(void *arg);
	void *arg;
};

static void posted_arrive(void *arg)
{
	struct posted *p = arg;
	if (p->target->runs && p->target->incarnation == p->incarnation)
		fiber_spawn(&p->target->rt, "posted", p->fn, p->arg);
	free(p);
}

static void op_post(struct rt *target, void (*fn)(void *arg), void *arg)
{
	struct sim_node *node = node_of(target);
	struct posted *p = mem_alloc(sizeof(*p));
	*p = (struct posted){node, node->incarnation, fn, arg};
	sim_after(node->sim, NS_PER_US, posted_arrive, p);
}

static void op_offload(struct rt *rt, void (*fn)(void *arg), void *arg)
{
	fiber_sleep(node_of(rt)->sim->offload_ns);
	fn(arg);
}

static const struct rt_ops sim_ops = {
	.now_exact_ns = op_now_exact_ns,
	.wall_ns = op_wall_ns,
	.random = op_random,
	.stack_map = op_stack_map,
	.stack_unmap = op_stack_unmap,
	.post = op_post,
	.offload = op_offload,
	.disk_open = disk_op_open,
	.disk_close = disk_op_close,
	.disk_grow = disk_op_grow,
	.disk_probe = disk_op_probe,
	.io_submit = disk_op_submit,
	.listen = net_op_listen,
	.listener_address = net_op_listener_address,
	.accept = net_op_accept,
	.listener_close = net_op_listener_close,
	.connect = net_op_connect,
	.recv = net_op_recv,
	.send = net_op_send,
	.conn_shutdown = net_op_shutdown,
	.conn_close = net_op_close,
	.conn_peer = net_op_peer,
	.conn_local = net_op_local,
};

/* ---- the world ------------------------------------------------------------------------------------------------------------ */

struct sim *sim_new(uint64_t seed)
{
	struct sim *sim = mem_zalloc(sizeof(*sim));
	prng_seed(&sim->rng, seed);
	sim->offload_ns = 50 * NS_PER_US;
	sim->trace = mem_alloc(TRACE_KEPT * sizeof(*sim->trace));
	list_init(&sim->nodes);
	net_init(sim);
	return sim;
}

static void node_free(struct sim_node *node)
{
	if (node->runs)
		sim_node_kill(node);
	node_disks_free(node);
	list_del(&node->link);
	free(node);
}

/* Events that carry memory free it when they run, as they find their node gone. */
static void events_drain(struct sim *sim)
{
	while (sim->event_count > 0) {
		struct sim_event e = event_pop(sim);
		sim->now_ns = e.when_ns;
		e.fn(e.arg);
	}
}

void sim_free(struct sim *sim)
{
	struct sim_node *node, *next;
	list_for_each (node, &sim->nodes, link) {
		if (node->runs)
			sim_node_kill(node);
	}
	events_drain(sim);
	net_fini(sim);
	list_for_each_safe (node, next, &sim->nodes, link)
		node_free(node);
	free(sim->events);
	free(sim->trace);
	free(sim->cuts);
	free(sim);
}

struct prng *sim_prng(struct sim *sim)
{
	return &sim->rng;
}

uint64_t sim_now_ns(const struct sim *sim)
{
	return sim->now_ns;
}

void sim_shuffle(struct sim *sim, bool shuffle)
{
	sim->shuffle = shuffle;
}

void sim_set_offload_ns(struct sim *sim, uint64_t cost_ns)
{
	sim->offload_ns = cost_ns;
}

/* ---- machines --------------------------------------------------------------------------------------------------------------- */

struct sim_node *sim_node_new(struct sim *sim, const char *name)
{
	struct sim_node *node = mem_zalloc(sizeof(*node));
	node->sim = sim;
	node->name = name;
	node->clock_permille = 1000;
	node->index = ++sim->node_count;
	assert(node->index < 255);
	snprintf(node->address, sizeof(node->address), "10.0.0.%u", node->index & 0xff);
	list_init(&node->disks);
	list_add_tail(&sim->nodes, &node->link);
	return node;
}

void sim_node_set_clock(struct sim_node *node, uint32_t permille)
{
	assert(!node->runs && permille > 0);
	node->clock_permille = permille;
}

uint64_t node_clock_ns(const struct sim_node *node)
{
	return node->sim->now_ns / 1000 * node->clock_permille +
	       node->sim->now_ns % 1000 * node->clock_permille / 1000;
}

/* The first one at which the clock says so much, or a little more. A deadline beyond all time stays one. */
uint64_t node_moment_ns(const struct sim_node *node, uint64_t clock_ns)
{
	uint64_t permille = node->clock_permille;
	if (permille == 1000 || clock_ns > UINT64_MAX / 2000)
		return clock_ns;
	return (clock_ns * 1000 + permille - 1) / permille;
}

const char *sim_node_address(const struct sim_node *node)
{
	return node->address;
}

struct rt *sim_node_start(struct sim_node *node)
{
	assert(!node->runs);
	memset(&node->rt, 0, sizeof(node->rt));
	rt_core_init(&node->rt, &sim_ops);
	node->rt.now_ns = node_clock_ns(node);
	node->runs = node->has_power = true;
	node->incarnation++;
	sim_trace(node->sim, "node.start", node->index, node->incarnation, 0);
	return &node->rt;
}

struct rt *sim_node_rt(struct sim_node *node)
{
	return node->runs ? &node->rt : NULL;
}

bool sim_node_has_power(const struct sim_node *node)
{
	return node->has_power;
}

void sim_node_stop(struct sim_node *node)
{
	assert(node->runs);
	sim_trace(node->sim, "node.stop", node->index, 0, 0);
	assert(!node->paused);
	net_node_gone(node, false);
	node_disks_crash(node, false);
	rt_core_fini(&node->rt);
	node->runs = false;
}

static void node_crash(struct sim_node *node, bool power_cut)
{
	if (node->runs) {
		assert(!node->rt.current);
		rt_core_abandon(&node->rt);
		rt_core_fini(&node->rt);
		node->runs = false;
	}
	node->paused = false;
	node->has_power = !power_cut;
	net_node_gone(node, power_cut);
	node_disks_crash(node, power_cut);
}

void sim_node_kill(struct sim_node *node)
{
	sim_trace(node->sim, "node.kill", node->index, 0, 0);
	node_crash(node, false);
}

void sim_node_power_cut(struct sim_node *node)
{
	sim_trace(node->sim, "node.power_cut", node->index, 0, 0);
	node_crash(node, true);
}

void sim_node_pause(struct sim_node *node)
{
	assert(node->runs && !node->rt.current);
	node->paused = true;
	sim_trace(node->sim, "node.pause", node->index, 0, 0);
}

void sim_node_resume(struct sim_node *node)
{
	if (!node->paused)
		return;
	assert(node->runs);
	node->paused = false;
	sim_trace(node->sim, "node.resume", node->index, 0, 0);
	node_disks_tell(node);
}

bool sim_node_is_paused(const struct sim_node *node)
{
	return node->paused;
}

void node_enter(struct sim_node *node)
{
	node->rt.now_ns = node_clock_ns(node);
	rt_core_enter(&node->rt);
}

void node_leave(void)
{
	rt_core_enter(NULL);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------------ */

/* Bring a ready fiber that the seed chooses to the front. */
static void run_queue_shuffle(struct sim *sim, struct list *queue)
{
	uint64_t count = 0;
	for (struct list *item = queue->next; item != queue; item = item->next)
		count++;
	if (count < 2)
		return;
	struct list *item = queue->next;
	for (uint64_t skip = prng_below(&sim->rng, count); skip > 0; skip--)
		item = item->next;
	list_del(item);
	list_add_head(queue, item);
}

static void node_run(struct sim_node *node)
{
	struct sim *sim = node->sim;
	if (!node->runs || node->paused)
		return;
	node->rt.now_ns = node_clock_ns(node);
	if (!sim->shuffle) {
		rt_core_run(&node->rt, 0);
		return;
	}
	do
		run_queue_shuffle(sim, &node->rt.run_queue);
	while (rt_core_run(&node->rt, 1));
}

/* Every node once, the first chosen by the seed. */
static void nodes_run(struct sim *sim)
{
	struct list *start = &sim->nodes, *item;
	if (sim->shuffle && sim->node_count > 1) {
		for (uint64_t skip = prng_below(&sim->rng, sim->node_count); skip > 0; skip--)
			start = start->next;
	}
	for (item = start->next; item != start; item = item->next) {
		if (item != &sim->nodes)
			node_run(list_entry(item, struct sim_node, link));
	}
	if (start != &sim->nodes)
		node_run(list_entry(start, struct sim_node, link));
}

/* The next moment at which anything happens. */
static uint64_t next_moment(struct sim *sim)
{
	uint64_t next = sim->event_count ? sim->events[1].when_ns : UINT64_MAX;
	struct sim_node *node;
	list_for_each (node, &sim->nodes, link) {
		if (node->runs && !node->paused)
			next = u64_min(next, node_moment_ns(node, rt_core_next_deadline_ns(&node->rt)));
	}
	return next == UINT64_MAX ? next : u64_max(next, sim->now_ns);
}

static bool fibers_ready(struct sim *sim)
{
	struct sim_node *node;
	list_for_each (node, &sim->nodes, link) {
		if (node->runs && !node->paused && !list_empty(&node->rt.run_queue))
			return true;
	}
	return false;
}

enum sim_end sim_run(struct sim *sim, const bool *done, uint64_t deadline_ns)
{
	for (;;) {
		nodes_run(sim);
		if (done && *done)
			return SIM_DONE;
		if (fibers_ready(sim))
			continue;
		uint64_t next = next_moment(sim);
		if (next == UINT64_MAX)
			return done ? SIM_STUCK : SIM_DONE;
		if (next > deadline_ns) {
			sim->now_ns = u64_max(sim->now_ns, deadline_ns);
			return SIM_LATE;
		}
		sim->now_ns = next;
		if (sim->event_count > 0 && sim->events[1].when_ns <= next) {
			struct sim_event e = event_pop(sim);
			e.fn(e.arg);
		}
	}
}
