/*
 * cluster_rot.c: a bit that rots in one member, when all else is well.
 *
 * Comparing the members must find it. Of three and more that one is repaired; of two nobody knows which is right, so that it is reported
 * and left, and healed by hand for what is looked at next.
 */
#include "sim/cluster_private.h"

/* One bit of every place on a disk where this sector lies. */
static void sector_flip(struct sim_disk *disk, const uint8_t *sector)
{
	uint8_t *found = cluster_buffer(MiB);
	for (uint64_t at = 0; at < DISK_BYTES; at += MiB) {
		sim_disk_peek(disk, found, MiB, at);
		for (uint64_t i = 0; i < MiB; i += HISTORY_SECTOR_BYTES)
			if (memcmp(found + i, sector, HISTORY_SECTOR_BYTES) == 0)
				sim_disk_flip_bit(disk, at + i + 64, 1);
	}
	free(found);
}

/* What is flipped, and flipped again, is as it was. */
static void sector_flip_back(struct sim_disk *disk, uint8_t *sector)
{
	sector[64] ^= 1u << 1;
	sector_flip(disk, sector);
}

static bool is_rotten(struct run *r, const struct cluster_node *n, uint64_t number, const uint8_t *wanted)
{
	uint8_t *found = cluster_buffer(HISTORY_SECTOR_BYTES);
	struct vol *vol;
	int err = vol_open(n->pool, &r->cluster.volume_id, &vol);
	if (!err) {
		err = vol_read(vol, found, number * HISTORY_SECTOR_BYTES, HISTORY_SECTOR_BYTES);
		vol_close(vol);
	}
	bool rotten = !err && memcmp(found, wanted, HISTORY_SECTOR_BYTES) != 0;
	free(found);
	return rotten;
}

static void scrub_judge(struct run *r, const struct mirror_scrub_status *s, uint64_t number, uint32_t members)
{
	uint64_t block = number * HISTORY_SECTOR_BYTES / POOL_BLOCK_BYTES * POOL_BLOCK_BYTES;
	bool found = false;
	for (uint32_t i = 0; i < s->finding_count; i++) {
		const struct mirror_finding *f = &s->findings[i];
		if (f->offset_bytes != block || !uuid_is_nil(&f->layer_id))
			continue;
		found = true;
		if (f->is_repaired != (members > 2) || f->pool_count != (members > 2 ? 1 : members))
			cluster_fail(&r->cluster, "of %u members one rotted: %u named, %s", members,
				     f->pool_count, f->is_repaired ? "repaired" : "left");
	}
	if (!found)
		cluster_fail(&r->cluster, "a rotten block of one of %u members was not found", members);
}

/* Until then a copy that was wrong in a snapshot is filled anew. */
static void even_wait(struct run *r)
{
	uint64_t until_ns = now_ns(r) + WELL_WITHIN_NS;
	while (!all_is_even(r) && now_ns(r) < until_ns)
		fiber_sleep(100 * NS_PER_MS);
	if (!all_is_even(r))
		explain_stuck(r);
}

static void scrub_wait(struct cluster_engine *e, struct mirror_scrub_status *status)
{
	for (mirror_scrub_status(e->mirror, status); status->is_running;
	     mirror_scrub_status(e->mirror, status))
		fiber_sleep(20 * NS_PER_MS);
}

static bool was_fenced(const struct cluster_engine *e)
{
	struct mirror_status status;
	mirror_status(e->mirror, &status);
	return status.was_fenced;
}

/* A bit rots in one member. Of three and more that one is repaired; of two nobody knows, and it is healed by hand. */
int rot_one(struct run *r, struct cluster_engine *e, uint32_t members)
{
	struct cluster_node *n = &r->cluster.nodes[chance(r, CLUSTER_NODES)];
	uint64_t number = chance(r, r->size_bytes / HISTORY_SECTOR_BYTES);
	uint8_t *sector = cluster_buffer(HISTORY_SECTOR_BYTES);
	struct sim_disk *disk = sim_disk_find(n->machine, "/dev/sda");
	struct mirror_scrub_status status;
	bool fenced = false;
	mirror_scrub_stop(e->mirror);
	scrub_wait(e, &status);
	if (members > 1 && view_find(&r->cluster.view, &n->pool_id) &&
	    mirror_read(e->mirror, sector, number * HISTORY_SECTOR_BYTES, HISTORY_SECTOR_BYTES) == 0 &&
	    memcmp(sector, &(uint64_t){0}, 8) != 0) {
		sector_flip(disk, sector);
		bool rotten = is_rotten(r, n, number, sector);
		mirror_scrub_start(e->mirror, 0);
		scrub_wait(e, &status);
		fenced = was_fenced(e);
		if (rotten && !fenced)
			scrub_judge(r, &status, number, members);
		even_wait(r);
		if (members == 2 || fenced)
			sector_flip_back(disk, sector);
	}
	free(sector);
	return fenced ? OXE_FENCED : 0;
}
