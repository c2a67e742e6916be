/* pool.c: format, identify, open, close, grow, and what the pool says about itself. See pool.h; the parts are in store.h. */
#include "base/log.h"
#include "data/store/cluster_op.h"
#include "data/store/discard.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/readahead.h"
#include "data/store/resolve.h"
#include "data/store/super.h"
#include "data/store/metapage.h"
#include "data/store/store.h"

#define CACHE_BYTES_DEFAULT (64 * MiB)
#define CACHE_BYTES_MIN	    (4 * MiB)
#define ZERO_BYTES	    (256 * KiB)
#define DIRTY_PAGES_MAX	    8192u      /* so that a replay has few pages to read (S5) */
#define JOURNAL_SHARE	    64u	       /* by default the journal is this part of the disk ... */
#define JOURNAL_BYTES_USUAL (64 * MiB) /* ... and at most this */

int pool_name_check(const char *name)
{
	size_t len_bytes = strlen(name);
	if (len_bytes < 1 || len_bytes > POOL_NAME_MAX || name[0] == '.' || name[0] == '-')
		return OXE_INVAL;
	for (const char *p = name; *p; p++) {
		bool fine = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			    (*p >= '0' && *p <= '9') || *p == '.' || *p == '_' || *p == '-';
		if (!fine)
			return OXE_INVAL;
	}
	return 0;
}

int pool_system_name_check(const char *name)
{
	return pool_name_is_system(name) && strlen(name) <= POOL_NAME_MAX ? pool_name_check(name + 1)
									  : OXE_INVAL;
}

/* ---- format ------------------------------------------------------------------------------------------------------------------- */

static int fits(uint64_t disk_bytes, uint64_t *journal_bytes)
{
	if (*journal_bytes == 0)
		*journal_bytes =
			u64_max(u64_min(disk_bytes / JOURNAL_SHARE, JOURNAL_BYTES_USUAL), JOURNAL_BYTES_MIN);
	*journal_bytes = u64_align_down(*journal_bytes, POOL_CLUSTER_BYTES);
	if (*journal_bytes < JOURNAL_BYTES_MIN || *journal_bytes > JOURNAL_BYTES_MAX)
		return OXE_INVAL;
	return disk_bytes < POOL_SIZE_MIN || disk_bytes < 4 * *journal_bytes ? OXE_TOOSMALL : 0;
}

/* A format of exactly this pool that was cut off while it wrote its superblock: the other slot is wiped, what there is of this
 * one is generation 1, and no journal block was ever written. Nothing can have been stored in it. */
static bool interrupted_format(struct rt_disk *disk, const struct uuid *id, uint8_t *image)
{
	const struct super_disk *s = (const void *)image;
	const struct journal_block_disk *j = (const void *)image;
	uint64_t first_block = JOURNAL_FIRST_CLUSTER * (uint64_t)POOL_CLUSTER_BYTES + JOURNAL_BLOCK_BYTES;
	if (rt_disk_read(disk, image, SUPER_BYTES, 0) || !bytes_are_zero(image, SUPER_BYTES))
		return false;
	if (rt_disk_read(disk, image, SUPER_BYTES, SUPER_SLOT_BYTES) || le64_get(s->generation) != 1 ||
	    memcmp(s->pool_id, id->b, sizeof(id->b)) != 0)
		return false;
	if (rt_disk_read(disk, image, JOURNAL_BLOCK_BYTES, first_block))
		return false;
	return memcmp(j->pool_id, id->b, sizeof(id->b)) != 0;
}

static bool may_start_over(struct rt_disk *disk, const struct uuid *id)
{
	uint8_t *image = page_image_alloc();
	bool may = interrupted_format(disk, id, image);
	free(image);
	return may;
}

/* 0: may be formatted; 1: already holds exactly this pool. */
static int what_is_there(struct rt_disk *disk, const struct uuid *id, bool overwrite)
{
	struct super newest, older;
	int err = super_read(disk, &newest, &older, NULL);
	if (!err && uuid_equal(&newest.pool_id, id))
		return 1;
	if (err && err != OXE_NOTPOOL && err != OXE_CORRUPT && err != OXE_VERSION)
		return err;
	if (err == OXE_NOTPOOL || overwrite || (err == OXE_CORRUPT && may_start_over(disk, id)))
		return 0;
	return OXE_OCCUPIED;
}

static int write_first_super(struct rt_disk *disk, const struct pool_format_spec *spec,
			     uint64_t journal_bytes)
{
	struct rt *rt = rt_current();
	uint64_t clusters = u64_min(rt_disk_info(disk)->size_bytes / POOL_CLUSTER_BYTES, UINT32_MAX - 1);
	uint64_t first = JOURNAL_FIRST_CLUSTER + journal_bytes / POOL_CLUSTER_BYTES;
	struct super s = {
		.pool_id = spec->id,
		.generation = 1,
		.created_wall_ns = rt_wall_ns(rt),
		.cluster_count = clusters,
		.journal_blocks = journal_bytes / JOURNAL_BLOCK_BYTES,
		.replay_seq = 1,
		.replay_chain = (uint32_t)rt_random_u64(rt), /* nothing an older journal left can follow it */
		.next_number = 1,
		.free_clusters = clusters - first};
	memcpy(s.name, spec->name, sizeof(s.name));
	return super_write(disk, &s);
}

/* Zeroes over the other slot, and in a file over the journal: a sparse file must not run out of its file system's space in the
 * one place where that would stop the pool. */
static int write_zeroes(struct rt_disk *disk, uint64_t journal_bytes)
{
	uint8_t *zeroes = io_alloc(ZERO_BYTES);
	if (!zeroes)
		return OXE_NOMEM;
	memset(zeroes, 0, ZERO_BYTES);
	int err = rt_disk_write(disk, zeroes, SUPER_BYTES, 0, RT_IO_FUA);
	const struct rt_disk_info *info = rt_disk_info(disk);
	uint64_t at = JOURNAL_FIRST_CLUSTER * (uint64_t)POOL_CLUSTER_BYTES, end = at + journal_bytes;
	for (; !err && at < end && !info->is_block_device && !info->is_memory; at += ZERO_BYTES)
		err = rt_disk_write(disk, zeroes, u64_min(ZERO_BYTES, end - at), at, 0);
	free(zeroes);
	return err;
}

int pool_format(struct rt_disk *disk, const struct pool_format_spec *spec, bool overwrite)
{
	uint64_t journal_bytes = spec->journal_bytes;
	int err = pool_name_check(spec->name);
	if (!err)
		err = fits(rt_disk_info(disk)->size_bytes, &journal_bytes);
	if (err)
		return err;
	int there = what_is_there(disk, &spec->id, overwrite);
	if (there > 0) /* whoever wrote it may not have lived to see it durable */
		return rt_disk_flush(disk);
	if (there)
		return there;
	err = write_zeroes(disk, journal_bytes);
	return err ? err : write_first_super(disk, spec, journal_bytes);
}

int pool_identify(struct rt_disk *disk, struct pool_ident *out)
{
	struct super newest, older;
	int err = super_read(disk, &newest, &older, NULL);
	if (err)
		return err;
	*out = (struct pool_ident){.id = newest.pool_id,
				   .size_bytes = newest.cluster_count * POOL_CLUSTER_BYTES,
				   .generation = newest.generation,
				   .format_version = newest.version};
	memcpy(out->name, newest.name, sizeof(out->name));
	return 0;
}

/* ---- open and close ----------------------------------------------------------------------------------------------------------- */

void pool_size_limits(struct pool *pool)
{
	uint64_t maps = pool->cluster_count / PAGE_FANOUT +
			64; /* pages that the map of a full pool takes, and a few */
	pool->dirty_limit =
		u64_min(maps, u64_min(DIRTY_PAGES_MAX, pool->options.cache_bytes / PAGE_BYTES / 2));
}

static void state_new(struct pool *pool)
{
	pool->cache = cache_new(pool, pool->options.cache_bytes);
	pool->space = space_new(pool);
	pool->metapages = metapages_new(pool);
	pool->catalog = catalog_new(pool);
	pool->journal = NULL; /* until its size is known */
}

static void state_free(struct pool *pool)
{
	if (pool->journal)
		journal_free(pool->journal);
	catalog_free(pool->catalog);
	cache_free(pool->cache);
	space_free(pool->space);
	metapages_free(pool->metapages);
}

static struct pool *pool_new(struct rt_disk *disk, const struct pool_options *options)
{
	struct pool *pool = mem_zalloc(sizeof(*pool));
	pool->rt = rt_current();
	pool->disk = disk;
	if (options)
		pool->options = *options;
	if (pool->options.cache_bytes == 0)
		pool->options.cache_bytes = CACHE_BYTES_DEFAULT;
	pool->options.cache_bytes = u64_max(pool->options.cache_bytes, CACHE_BYTES_MIN);
	fmutex_init(&pool->control);
	pool->discard = discard_new(pool);
	state_new(pool);
	pool->flush = flush_new(pool);
	pool->checkpoint = checkpoint_new(pool);
	pool->jobs = jobs_new(pool);
	pool->ops = cluster_ops_new();
	pool->resolved = resolve_cache_new(pool->options.cache_bytes / 8);
	pool->readahead = readahead_new(pool);
	return pool;
}

void pool_state_reset(struct pool *pool)
{
	state_free(pool);
	state_new(pool);
	pool->pages_lost = 0;
	pool->given_up_count = 0; /* each is asked for again */
	pool->records_lost = pool->recovery_records = 0;
}

/* Background fibers end, each after what it is doing; then everything is freed. */
static void pool_end(struct pool *pool)
{
	jobs_stop(pool->jobs);
	discard_stop(pool->discard);
	checkpoint_stop(pool->checkpoint);
	flush_stop(pool->flush);
	if (pool->journal)
		journal_stop(pool->journal);
	state_free(pool);
	cluster_ops_free(pool->ops);
	resolve_cache_free(pool->resolved);
	readahead_free(pool->readahead);
	flush_free(pool->flush);
	checkpoint_free(pool->checkpoint);
	jobs_free(pool->jobs);
	free(pool->given_up);
	discard_free(pool->discard);
	rt_disk_close(pool->disk);
	free(pool);
}

static void log_opened(const struct pool *pool)
{
	LOG_INFO("pool.opened", "the pool is ready", F_UUID("pool", &pool->ident.id),
		 F_STR("name", pool->ident.name), F_STR("path", rt_disk_info(pool->disk)->path),
		 F_U64("generation", pool->ident.generation),
		 F_U64("volumes", catalog_volume_count(pool->catalog)),
		 F_U64("layers", catalog_layer_count(pool->catalog)),
		 F_U64("records_replayed", pool->recovery_records),
		 F_U64("blocks_verified", pool->recovery_blocks_verified),
		 F_U64("blocks_rejected", pool->recovery_blocks_rejected),
		 F_U64("recovery_us", pool->recovery_ns / NS_PER_US));
}

int pool_open(struct rt_disk *disk, const struct pool_options *options, struct pool **out)
{
	struct pool *pool = pool_new(disk, options);
	int err = pool_recover(pool);
	if (err) {
		LOG_ERROR("pool.open_failed", "the pool could not be opened",
			  F_STR("path", rt_disk_info(disk)->path), F_ERR(err));
		pool->failed = true; /* nothing that waits should wait on */
		pool_end(pool);
		return err;
	}
	log_opened(pool);
	*out = pool;
	return 0;
}

int pool_close(struct pool *pool)
{
	int err = 0;
	if (pool->open_handles > 0)
		return OXE_BUSY;
	fmutex_lock(&pool->control);
	pool->closing = true;
	jobs_stop(pool->jobs);
	if (!pool->options.read_only && !pool->failed)
		err = checkpoint_wait(pool);
	LOG_INFO("pool.closed", "the pool is closed", F_UUID("pool", &pool->ident.id), F_ERR(err));
	fmutex_unlock(&pool->control);
	pool_end(pool);
	return 0; /* an error cost the checkpoint, not the data: the next start replays */
}

void pool_fail(struct pool *pool, int err, const char *why)
{
	if (pool->failed)
		return;
	pool->failed = true;
	LOG_ERROR("pool.failed", why, F_UUID("pool", &pool->ident.id),
		  F_STR("path", rt_disk_info(pool->disk)->path), F_ERR(err));
	if (pool->journal)
		journal_fail(pool->journal);
	checkpoint_fail(pool->checkpoint);
	flush_fail(pool->flush);
	discard_fail(pool->discard);
	jobs_kick(pool->jobs);
}

/* ---- grow --------------------------------------------------------------------------------------------------------------------- */

int pool_grow(struct pool *pool)
{
	if (pool->options.read_only)
		return OXE_ROFS;
	fmutex_lock(&pool->control);
	int err = rt_disk_grow(pool->disk, rt_disk_info(pool->disk)->size_bytes);
	uint64_t clusters =
		u64_min(rt_disk_info(pool->disk)->size_bytes / POOL_CLUSTER_BYTES, UINT32_MAX - 1);
	struct record_pool_grow r = {.head = {.type = RECORD_POOL_GROW, .len_bytes = sizeof(r)},
				     .cluster_count = (uint32_t)clusters};
	if (!err && clusters > pool->cluster_count)
		err = record_do(pool, &r.head, true);
	if (!err && !MUTANT(51))
		err = checkpoint_wait(pool); /* the superblock knows the new size from here on */
	fmutex_unlock(&pool->control);
	return err;
}

int pool_checkpoint(struct pool *pool)
{
	return pool->options.read_only ? OXE_ROFS : checkpoint_wait(pool);
}

/* ---- what it says about itself -------------------------------------------------------------------------------------------------- */

const struct pool_ident *pool_ident(const struct pool *pool)
{
	return &pool->ident;
}

void pool_set_background_rate(struct pool *pool, uint64_t bytes_per_s)
{
	pool->options.background_bytes_per_s = bytes_per_s;
	jobs_rate_changed(pool->jobs);
}

void pool_stats(const struct pool *pool, struct pool_stats *out)
{
	struct space_numbers n;
	space_numbers(pool->space, &n);
	uint64_t used = pool->cluster_count - pool->first_cluster - n.free_clusters;
	*out = (struct pool_stats){
		.total_bytes = pool->cluster_count * POOL_CLUSTER_BYTES,
		.data_bytes = (used - n.metadata_clusters) * POOL_CLUSTER_BYTES,
		.metadata_bytes = (n.metadata_clusters + JOURNAL_FIRST_CLUSTER) * POOL_CLUSTER_BYTES,
		.journal_bytes = pool->journal_blocks * JOURNAL_BLOCK_BYTES,
		.free_bytes = n.free_clusters * POOL_CLUSTER_BYTES,
		.reserve_bytes = n.reserve_clusters * POOL_CLUSTER_BYTES,
		.journal_used_bytes = journal_used_blocks(pool->journal) * JOURNAL_BLOCK_BYTES,
		.journal_blocks_written = journal_blocks_written(pool->journal),
		.journal_records_written = journal_records_written(pool->journal),
		.checkpoints = checkpoint_count(pool->checkpoint),
		.device_flushes = flush_count(pool->flush),
		.discarded_bytes = discard_bytes(pool->discard),
		.cache_used_bytes = cache_page_count(pool->cache) * PAGE_BYTES,
		.cache_misses = cache_miss_count(pool->cache),
		.readahead_bytes = readahead_served_bytes(pool->readahead),
		.recovery_ns = pool->recovery_ns,
		.recovery_records = pool->recovery_records,
		.recovery_blocks_verified = pool->recovery_blocks_verified,
		.recovery_blocks_rejected = pool->recovery_blocks_rejected,
		.volume_count = catalog_volume_count(pool->catalog),
		.snapshot_count = catalog_snapshot_count(pool->catalog),
		.layer_count = catalog_layer_count(pool->catalog),
		.metadata_pages_lost = pool->pages_lost,
		.damaged_volume_count = catalog_damaged_volumes(pool->catalog),
		.catalog_damaged = catalog_is_damaged(pool->catalog),
		.failed = pool->failed,
		.check_pages_read = pool->check_pages_read,
		.check_pages_total = pool->check_pages_total,
	};
}
