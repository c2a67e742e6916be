/*
 * cluster_director.c: what goes wrong.
 *
 * Every few hundred milliseconds the director does one thing to the world, or undoes one: kills, power cuts, cuts between nodes, engines that replace
 * others, a store of views that is away, calls that get lost, slow disks. After a number of them comes peace, and all is healed.
 *
 * Besides, a seed has a climate, by its number, which says what its disks do: nothing, fail requests, lose sectors under data, be small and
 * nearly full, or lie upon a file system that is. And the clocks of its machines run at the same rate, or do not; and processes are paused, or are
 * not.
 */
#include "sim/cluster_private.h"

/* ---- climates ------------------------------------------------------------------------------------------------------------------------------ */

enum climate climate_of(uint64_t seed)
{
	static const enum climate climates[] = {FAIR,	     FAIR, DISK_ERRORS,	 FAIR,
						SMALL_POOLS, FAIR, LOST_SECTORS, NO_SPACE_BELOW};
	return climates[seed / 2 % ARRAY_COUNT(climates)];
}

bool pauses(uint64_t seed)
{
	return seed / 16 % 8 == 1 || seed / 16 % 8 == 3;
}

bool clocks_differ(uint64_t seed)
{
	return seed / 16 % 4 == 1;
}

/* The fastest is a little more than a tenth faster than the slowest: as much as a lease has to bear (V5, mirror.h). */
uint32_t clock_permille(struct run *r)
{
	return r->clocks_differ ? 950 + (uint32_t)chance(r, 101) : 1000;
}

static struct uuid filler_id(void)
{
	return (struct uuid){{0xf1, 0x11}};
}

static void filler_delete(void *arg)
{
	struct cluster_node *n = arg;
	struct uuid id = filler_id();
	int err = volume_delete(n->pool, &id);
	if (err)
		n->has_filler = true;
}

/* There is room again. */
void fillers_delete(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		if (!n->has_filler || !n->is_up || !n->pool)
			continue;
		n->has_filler = false;
		fiber_spawn(sim_node_rt(n->machine), "filler-delete", filler_delete, n);
	}
}

/* A few MiB are left. */
int filler_make(struct cluster_node *n, struct pool *pool)
{
	struct pool_stats stats;
	struct volume_spec spec = {.id = filler_id(), .name = "filler", .size_bytes = DISK_BYTES};
	struct vol *vol = NULL;
	uint8_t *data = cluster_buffer(MiB);
	int err = volume_create(pool, &spec);
	if (!err)
		err = vol_open(pool, &spec.id, &vol);
	memset(data, 1, MiB);
	pool_stats(pool, &stats);
	uint64_t left_bytes = (4 + chance(the_run, 16)) * MiB;
	for (uint64_t at = 0; !err && at + left_bytes < stats.free_bytes; at += MiB)
		err = vol_write(vol, data, at, MiB, 0);
	if (vol)
		vol_close(vol);
	free(data);
	n->has_filler = true;
	return err;
}

/* On one disk at a time: what two lose together may be lost. */
static void disk_errors(struct run *r, struct sim_disk *disk)
{
	struct sim_disk_faults *f = sim_disk_faults(disk);
	f->read_error_one_in = chance(r, 2) ? 30 + (uint32_t)chance(r, 300) : 0;
	f->write_error_one_in = chance(r, 2) ? 30 + (uint32_t)chance(r, 600) : 0;
	f->flush_error_one_in = chance(r, 3) ? 0 : 30;
}

/* Some pages with what clients wrote cannot be read until they are written again. */
static void sectors_lose(struct run *r, struct cluster_node *n)
{
	struct sim_disk *disk = sim_disk_find(n->machine, "/dev/sda");
	uint8_t page[POOL_BLOCK_BYTES];
	n->has_lost_sectors = true;
	for (uint32_t tries = 0, lost = 0; tries < 4000 && lost < 6 && r->lost_count < LOST_MAX; tries++) {
		uint64_t at = chance(r, DISK_BYTES / sizeof(page)) * sizeof(page);
		sim_disk_peek(disk, page, sizeof(page), at);
		if (!history_is_data(page))
			continue;
		sim_disk_make_unreadable(disk, at, sizeof(page));
		r->lost[r->lost_count++] = at;
		lost++;
	}
}

/* They can be read again. */
static void sectors_heal(struct run *r)
{
	uint8_t page[POOL_BLOCK_BYTES];
	for (uint32_t i = 0; i < r->lost_count; i++) {
		struct sim_disk *disk = sim_disk_find(r->cluster.nodes[0].machine, "/dev/sda");
		sim_disk_peek(disk, page, sizeof(page), r->lost[i]);
		sim_disk_poke(disk, page, sizeof(page), r->lost[i]);
	}
	r->lost_count = 0;
	r->cluster.nodes[0].has_lost_sectors = false;
}

static void disk_act(struct run *r)
{
	struct cluster_node *n = &r->cluster.nodes[chance(r, CLUSTER_NODES)];
	struct sim_disk *disk = sim_disk_find(n->machine, "/dev/sda");
	switch (r->climate) {
	case DISK_ERRORS:
		heal_all(r);
		disk_errors(r, disk);
		break;
	case LOST_SECTORS:
		if (another_has_all(r, &r->cluster.nodes[0]))
			sectors_lose(r, &r->cluster.nodes[0]);
		break;
	case NO_SPACE_BELOW:
		sim_disk_faults(disk)->space_bytes =
			sim_disk_faults(disk)->space_bytes ? 0 : (6 + chance(r, 12)) * MiB;
		break;
	case FAIR:
	case SMALL_POOLS:
		break;
	}
}

/* ---- the director -------------------------------------------------------------------------------------------------------------------------- */

static void all_down(struct run *r, bool power_too)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		node_down(r, &r->cluster.nodes[i], power_too);
	if (power_too)
		history_power_loss(r->cluster.history);
}

static void isolate(struct run *r, const struct cluster_node *n)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		r->cluster.cut[n->index][i] = r->cluster.cut[i][n->index] = i != n->index;
}

/* What an engine knows and no disk says is gone. */
static void engines_forget(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		if (n->engine && !n->engine->is_over)
			node_down(r, n, false);
	}
}

/* At any time. Should it be the last one that has everything, then what was not flushed may be lost. */
static void power_cut_one(struct run *r, struct cluster_node *n)
{
	bool is_last = !another_has_all(r, n);
	if (!n->is_up || (is_last && chance(r, 3) > 0)) {
		node_down(r, n, false);
		return;
	}
	node_down(r, n, true);
	if (is_last)
		history_power_loss(r->cluster.history);
	n->restart_ns = now_ns(r) + 50 * NS_PER_MS + chance(r, chance(r, 2) ? NS_PER_S : 6 * NS_PER_S);
	if (chance(r, 2) == 0)
		engines_forget(r);
	if (chance(r, 4) == 0)
		isolate(r, &r->cluster.nodes[chance(r, CLUSTER_NODES)]);
}

static void cut_some(struct run *r)
{
	uint32_t a = (uint32_t)chance(r, CLUSTER_NODES), b = (uint32_t)chance(r, CLUSTER_NODES);
	bool one_way = chance(r, 3) == 0;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		if (i == a || (chance(r, 2) && i != b))
			continue;
		r->cluster.cut[a][i] = true;
		r->cluster.cut[i][a] = !one_way;
	}
}

/* Cut off the node of an engine, from the store of views as well perhaps, and start another engine at once: it must not serve before the old
 * one's lease is over (V5). */
static void engine_replace(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		if (!n->engine || n->engine->is_over)
			continue;
		isolate(r, n);
		r->cluster.views_cut[i] = chance(r, 2);
		break;
	}
	engine_start(r);
}

void heal_all(struct run *r)
{
	memset(r->cluster.views_cut, 0, sizeof(r->cluster.views_cut));
	memset(r->cluster.cut, 0, sizeof(r->cluster.cut));
	r->cluster.faults = (struct cluster_faults){.call_min_ns = 100 * NS_PER_US,
						    .call_max_ns = 2 * NS_PER_MS,
						    .call_timeout_ns = NS_PER_S,
						    .views_min_ns = NS_PER_MS,
						    .views_max_ns = 10 * NS_PER_MS};
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct sim_disk_faults *f =
			sim_disk_faults(sim_disk_find(r->cluster.nodes[i].machine, "/dev/sda"));
		f->latency_min_ns = 50 * NS_PER_US;
		f->latency_max_ns = 500 * NS_PER_US;
		f->flush_ns = NS_PER_MS;
		f->stall_one_in = 0;
		f->read_error_one_in = f->write_error_one_in = f->flush_error_one_in = 0;
		f->space_bytes = 0;
	}
}

static void disk_worse(struct run *r)
{
	struct cluster_node *n = &r->cluster.nodes[chance(r, CLUSTER_NODES)];
	struct sim_disk_faults *f = sim_disk_faults(sim_disk_find(n->machine, "/dev/sda"));
	if (chance(r, 2)) {
		f->stall_one_in = 20;
		f->stall_ns = 3 * NS_PER_S;
	} else {
		f->latency_max_ns = 60 * NS_PER_MS;
	}
}

static void pause_over(void *arg)
{
	struct cluster_node *n = arg;
	if (!the_run->is_done)
		sim_node_resume(n->machine);
}

/* For longer than a lease, mostly; often it is an engine's process, and another engine has the volume when it goes on. */
static void pause_one(struct run *r)
{
	struct cluster_node *n = &r->cluster.nodes[chance(r, CLUSTER_NODES)];
	bool an_engine = chance(r, 2);
	for (uint32_t i = 0; an_engine && i < CLUSTER_NODES; i++)
		if (r->cluster.nodes[i].engine && !r->cluster.nodes[i].engine->is_over)
			n = &r->cluster.nodes[i];
	if (!n->is_up || sim_node_is_paused(n->machine))
		return;
	sim_node_pause(n->machine);
	sim_at(r->cluster.sim, now_ns(r) + 100 * NS_PER_MS + chance(r, 8 * NS_PER_S), pause_over, n);
	if (chance(r, 2))
		engine_start(r);
}

static void act(struct run *r)
{
	struct cluster_node *n = &r->cluster.nodes[chance(r, CLUSTER_NODES)];
	switch (chance(r, 16)) {
	case 0 ... 3:
		node_down(r, n, false);
		break;
	case 4 ... 5:
		power_cut_one(r, n);
		break;
	case 6:
		all_down(r, false);
		break;
	case 7:
		if (chance(r, 3) == 0)
			all_down(r, true);
		break;
	case 8 ... 10:
		cut_some(r);
		break;
	case 11:
		if (chance(r, 3) == 0)
			engine_start(r);
		else
			engine_replace(r);
		break;
	case 12:
		r->cluster.faults.views_absent_one_in = 1 + (uint32_t)chance(r, 4);
		r->cluster.faults.views_unknown_one_in = 1 + (uint32_t)chance(r, 4);
		break;
	case 13:
		r->cluster.faults.call_lost_one_in = 20 + (uint32_t)chance(r, 200);
		break;
	case 14:
		disk_worse(r);
		break;
	default:
		heal_all(r);
	}
}

/* The same for a wire. */
static void net_follow(struct run *r)
{
	struct cluster *cl = &r->cluster;
	struct sim_net_faults *f = sim_net_faults(cl->sim);
	f->latency_min_ns = cl->faults.call_min_ns;
	f->latency_max_ns = cl->faults.call_max_ns;
	f->reset_one_in = 4 * cl->faults.call_lost_one_in; /* messages are more than calls */
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		for (uint32_t j = 0; j < CLUSTER_NODES; j++) {
			if (cl->cut[i][j])
				sim_net_cut(cl->sim, cl->nodes[i].machine, cl->nodes[j].machine);
			else
				sim_net_heal(cl->sim, cl->nodes[i].machine, cl->nodes[j].machine);
		}
	}
}

void director(void *arg)
{
	struct run *r = arg;
	if (r->is_done)
		return;
	if (r->actions_left == 0) {
		heal_all(r);
		net_follow(r);
		sectors_heal(r);
		r->faults_are_over = true;
		r->swaps_at_peace = r->cluster.swaps;
		sim_trace(r->cluster.sim, "peace", 0, 0, 0);
		return;
	}
	r->actions_left--;
	if (chance(r, 3) == 0)
		disk_act(r);
	if (r->pauses && chance(r, 4) == 0)
		pause_one(r);
	act(r);
	net_follow(r);
	sim_at(r->cluster.sim,
	       now_ns(r) + 100 * NS_PER_MS + chance(r, chance(r, 4) ? NS_PER_S : 8 * NS_PER_S), director, r);
}
