/*
 * recover.c: the one start path (S5).
 *
 *     superblock      the newest whole one; or the one before, if only that has all of its metadata (S9)
 *     space, catalog  as of its checkpoint
 *     scan            how far the journal goes, and the newest flush mark in it
 *     replay          every record: prepare and apply, exactly as the live pool did
 *     verify          blocks whose last DEFINE lies past the mark: does the data on disk match a CRC? (S2)
 *     reject          in memory, blocks that did not match
 *     start           journal, flusher, checkpointer; make the verdict durable; jobs
 *
 * Being interrupted anywhere and starting again gives the same result: until the verdict is durable nothing is written that
 * the next recovery could take for something else, and after it the records in question are not looked at again.
 */
#include "base/crc32c.h"
#include "base/log.h"
#include "base/prng.h"
#include "data/store/discard.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/resolve.h"
#include "data/store/super.h"
#include "data/store/metapage.h"
#include "data/store/store.h"

#define VERIFY_FIBERS 32u

#define WHOLE_BLOCK SECTORS_PER_BLOCK

struct candidate {
	uint8_t block;
	uint8_t sector; /* WHOLE_BLOCK: of the block */
	uint32_t crc;
};

/* A cluster with blocks that recovery does not believe yet. */
struct tentative {
	struct hnode node;
	struct list link;
	uint64_t layer;
	uint32_t index;
	uint16_t mask; /* blocks in doubt */
	uint16_t zero; /* of these, zero if they turn out not to be; the others become undefined */
	uint16_t rejected;
	uint32_t count, capacity;
	struct candidate *candidates;
};

struct recovery {
	struct pool *pool;
	uint64_t mark; /* records of blocks up to here need no proof */
	struct htab table;
	struct list all;
	struct list unverified;
	struct rt_group verifiers;
	int err;
};

/* ---- doubt --------------------------------------------------------------------------------------------------------------------- */

static struct tentative *tentative_find(struct recovery *r, uint64_t layer, uint32_t index)
{
	uint64_t hash = hash_u64(layer << 32 ^ index);
	for (struct hnode *n = htab_first(&r->table, hash); n; n = htab_next(n)) {
		struct tentative *t = container_of(n, struct tentative, node);
		if (t->layer == layer && t->index == index)
			return t;
	}
	return NULL;
}

static struct tentative *tentative_get(struct recovery *r, uint64_t layer, uint32_t index)
{
	struct tentative *t = tentative_find(r, layer, index);
	if (t)
		return t;
	t = mem_zalloc(sizeof(*t));
	t->layer = layer;
	t->index = index;
	list_add_tail(&r->all, &t->link);
	htab_insert(&r->table, &t->node, hash_u64(layer << 32 ^ index));
	return t;
}

static void tentative_free(struct recovery *r, struct tentative *t)
{
	htab_remove(&r->table, &t->node);
	list_del(&t->link);
	free(t->candidates);
	free(t);
}

static void candidate_add(struct tentative *t, unsigned block, unsigned sector, uint32_t crc)
{
	if (t->count == t->capacity) {
		t->capacity = t->capacity ? t->capacity * 2 : 8;
		t->candidates = mem_realloc(t->candidates, t->capacity * sizeof(*t->candidates));
	}
	t->candidates[t->count++] = (struct candidate){(uint8_t)block, (uint8_t)sector, crc};
}

static void candidates_drop(struct tentative *t, uint16_t mask)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < t->count; i++) {
		if (!(mask >> t->candidates[i].block & 1))
			t->candidates[kept++] = t->candidates[i];
	}
	t->count = kept;
	t->mask &= (uint16_t)~mask;
}

static void doubt_over(struct tentative *t, unsigned block, const struct over_block *over)
{
	candidate_add(t, block, WHOLE_BLOCK, over->crc);
	for (unsigned i = 0; i < SECTORS_PER_BLOCK; i++) {
		candidate_add(t, block, i, over->old_crcs[i]);
		candidate_add(t, block, i, over->new_crcs[i]);
	}
}

/* Before a DEFINE past the mark is applied. Blocks that hold proven data stay proven: at worst they hold the older content. */
static void doubt_define(struct recovery *r, const struct record_define *d)
{
	const struct over_block *over = d->head.type == RECORD_DEFINE_OVER ? (const void *)d->crc : NULL;
	struct layer *l = catalog_layer(r->pool->catalog, number_get(d->layer));
	struct page *leaf = page_peek(&l->map, 0, d->index / PAGE_FANOUT, NULL);
	if (!leaf)
		return; /* lost: nobody reads it */
	const struct map_entry *e = map_entry_view(leaf, d->index);
	struct tentative *t = tentative_get(r, l->number, d->index);
	uint16_t proven = e->defined & (uint16_t)~e->zero & (uint16_t)~t->mask;
	const uint32_t *crc = d->crc;
	for (unsigned block = 0; block < BLOCKS_PER_CLUSTER; block++) {
		uint16_t bit = (uint16_t)(1u << block);
		if (!(d->mask & bit))
			continue;
		if (!(proven & bit)) {
			if (!(t->mask & bit))
				t->zero = (uint16_t)((t->zero & ~bit) | (e->zero & bit));
			t->mask |= bit;
			if (over)
				doubt_over(t, block, over);
			else
				candidate_add(t, block, WHOLE_BLOCK, *crc);
		}
		over = over ? over + 1 : NULL;
		crc++;
	}
}

static void doubt_none(struct recovery *r, uint64_t layer, uint32_t index, uint32_t count, uint16_t mask)
{
	for (uint32_t i = 0; r->table.count > 0 && i < count; i++) {
		struct tentative *t = tentative_find(r, layer, index + i);
		if (t)
			candidates_drop(t, mask);
	}
}

/* Records after which earlier doubts about the blocks do not matter. */
static void doubt_settled_by(struct recovery *r, const struct record_head *head)
{
	const struct record_reject *reject = (const void *)head;
	const struct record_zero *zero = (const void *)head;
	const struct record_drop *drop = (const void *)head;
	const struct record_merge *merge = (const void *)head;
	if (head->type == RECORD_REJECT)
		doubt_none(r, number_get(reject->layer), reject->index, 1, reject->undefined | reject->zero);
	else if (head->type == RECORD_ZERO)
		doubt_none(r, number_get(zero->layer), zero->index, zero->count, zero->mask);
	else if (head->type == RECORD_DROP)
		doubt_none(r, number_get(drop->layer), drop->index, drop->count, UINT16_MAX);
	else if (head->type == RECORD_MERGE) {
		doubt_none(r, number_get(merge->layer), merge->index, 1, UINT16_MAX);
		doubt_none(r, number_get(merge->child), merge->index, 1, UINT16_MAX);
	}
}

/* ---- replay -------------------------------------------------------------------------------------------------------------------- */

static int replay(void *ctx, uint64_t seq, const struct record_head *record)
{
	struct recovery *r = ctx;
	struct pool *pool = r->pool;
	struct pins pins;
	int err = record_check(record);
	if (!err)
		err = record_prepare(pool, record, &pins);
	if (!err) {
		bool defines = record->type == RECORD_DEFINE || record->type == RECORD_DEFINE_OVER;
		if (defines && seq > r->mark)
			doubt_define(r, (const void *)record);
		else
			doubt_settled_by(r, record);
		err = record_apply(pool, seq, record);
		pins_release(&pins);
		pool->recovery_records++;
		if (!err && MUTANT(21))
			err = record_apply(pool, seq, record);
	}
	if (err)
		LOG_ERROR("pool.replay_failed", "a journal record contradicts the checkpoint",
			  F_UUID("pool", &pool->ident.id), F_U64("block", seq), F_U64("type", record->type),
			  F_ERR(err));
	return err;
}

/* ---- verify -------------------------------------------------------------------------------------------------------------------- */

static bool is_candidate(const struct tentative *t, unsigned block, unsigned sector, const uint8_t *data,
			 size_t len_bytes)
{
	uint32_t crc = crc32c(0, data, len_bytes);
	for (uint32_t i = 0; i < t->count; i++) {
		const struct candidate *c = &t->candidates[i];
		if (c->block == block && c->sector == sector && c->crc == crc &&
		    !(MUTANT(20) && i + 1 < t->count))
			return true;
	}
	return false;
}

/* Is it one of the contents the records tell of, or after a device error two of them, sector by sector? */
static bool matches(const struct tentative *t, unsigned block, const uint8_t *data)
{
	if (is_candidate(t, block, WHOLE_BLOCK, data, POOL_BLOCK_BYTES))
		return true;
	for (unsigned i = 0; i < SECTORS_PER_BLOCK; i++) {
		if (!is_candidate(t, block, i, data + i * SECTOR_BYTES, SECTOR_BYTES) || MUTANT(40))
			return false;
	}
	return true;
}

/* A block that cannot be read is not proven to be absent: it stays, and reading it is an error (V10 in miniature). */
static int verify_block(struct recovery *r, struct tentative *t, unsigned block, uint32_t cluster,
			uint8_t *buffer)
{
	uint64_t offset_bytes = (uint64_t)cluster * POOL_CLUSTER_BYTES + block * POOL_BLOCK_BYTES;
	int err = rt_disk_read(r->pool->disk, buffer, POOL_BLOCK_BYTES, offset_bytes);
	r->pool->recovery_blocks_verified++;
	if (!err && !matches(t, block, buffer))
		t->rejected |= (uint16_t)(1u << block);
	return err == OXE_IO ? 0 : err;
}

static int verify_cluster(struct recovery *r, struct tentative *t, uint8_t *buffer)
{
	struct layer *l = catalog_layer(r->pool->catalog, t->layer);
	struct page *leaf;
	if (!l || !t->mask)
		return 0;
	int err = page_get(&l->map, 0, t->index / PAGE_FANOUT, false, &leaf);
	if (err)
		return err;
	uint32_t cluster = map_entry_view(leaf, t->index)->cluster;
	page_unpin(leaf);
	for (unsigned block = 0; !err && block < BLOCKS_PER_CLUSTER; block++) {
		if (t->mask >> block & 1)
			err = verify_block(r, t, block, cluster, buffer);
	}
	return err;
}

static void verifier(void *arg)
{
	struct recovery *r = arg;
	uint8_t *buffer = page_image_alloc();
	struct tentative *t;
	while (!r->err && (t = list_pop(&r->unverified, struct tentative, link))) {
		int err = verify_cluster(r, t, buffer);
		r->err = r->err ? r->err : err;
		list_add_tail(&r->all, &t->link);
	}
	free(buffer);
	group_done(&r->verifiers);
}

static int verify(struct recovery *r)
{
	list_splice_tail(&r->unverified, &r->all);
	group_init(&r->verifiers);
	group_add(&r->verifiers, VERIFY_FIBERS);
	for (unsigned i = 0; i < VERIFY_FIBERS; i++)
		fiber_spawn(r->pool->rt, "verify", verifier, r);
	group_wait(&r->verifiers);
	list_splice_tail(&r->all, &r->unverified);
	return r->err;
}

/* Take back in memory what did not arrive. No record says so: make_rejects_durable does. */
static int reject(struct recovery *r, const struct tentative *t)
{
	struct pool *pool = r->pool;
	struct record_reject record = {.head = {.type = RECORD_REJECT, .len_bytes = sizeof(record)},
				       .layer = number_of(t->layer),
				       .index = t->index,
				       .undefined = t->rejected & (uint16_t)~t->zero,
				       .zero = t->rejected & t->zero};
	struct pins pins;
	int err = record_prepare(pool, &record.head, &pins);
	if (err)
		return err;
	err = record_apply(pool, 0, &record.head);
	pins_release(&pins);
	pool->recovery_blocks_rejected += (unsigned)__builtin_popcount(t->rejected);
	return err;
}

static int reject_all(struct recovery *r)
{
	int err = 0;
	struct tentative *t;
	list_for_each (t, &r->all, link) {
		if (!err && t->rejected && !MUTANT(10))
			err = reject(r, t);
	}
	return err;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------ */

static void adopt(struct pool *pool, const struct super *s)
{
	pool->ident.id = s->pool_id;
	memcpy(pool->ident.name, s->name, sizeof(pool->ident.name));
	pool->ident.generation = s->generation;
	pool->ident.format_version = s->version;
	pool->created_wall_ns = s->created_wall_ns;
	pool->cluster_count = s->cluster_count;
	pool->ident.size_bytes = s->cluster_count * POOL_CLUSTER_BYTES;
	pool->journal_blocks = s->journal_blocks;
	pool->first_cluster =
		JOURNAL_FIRST_CLUSTER + s->journal_blocks * JOURNAL_BLOCK_BYTES / POOL_CLUSTER_BYTES;
	pool_size_limits(pool);
}

static int load_checkpoint(struct pool *pool, const struct super *s)
{
	int err = metapages_load(pool->metapages, s->usage_page, s->usage_pages);
	if (!err)
		err = space_load(pool->space, s->bitmap);
	return err ? err : catalog_load(pool->catalog, s->catalog, s->next_number);
}

static int replay_journal(struct recovery *r, const struct super *s, struct journal_position *at)
{
	struct pool *pool = r->pool;
	struct journal_position start = {
		.last_seq = s->replay_seq - 1, .chain = s->replay_chain, .settled_seq = s->replay_seq - 1};
	*at = start;
	int err = journal_scan(pool, s->journal_blocks, at, UINT64_MAX, NULL, NULL);
	r->mark = MUTANT(19) ? UINT64_MAX : at->settled_seq;
	pool->replaying = true;
	if (!err)
		err = journal_scan(pool, s->journal_blocks, &start, at->last_seq, replay, r);
	pool->replaying = false;
	if (err || !pool->records_lost)
		return err;
	LOG_ERROR("pool.records_lost", "journal records are about metadata that is lost",
		  F_UUID("pool", &pool->ident.id), F_U64("records", pool->records_lost));
	return catalog_disown_lost(pool->catalog);
}

/* From here on nobody may look at those records again: what they describe may be overwritten in place. With nothing rejected
 * a durable flush mark says that they need no proof. With something rejected only a checkpoint can, and a second one, so that
 * the fallback superblock does not need them either. The first of the two says that it overrules: should we die between them, the
 * next start rejects nothing, but a mark of its would vouch for what was rejected if the newest superblock were lost after. */
static int make_verdict_durable(struct pool *pool, const struct super *s, const struct journal_position *at)
{
	bool has_rejected = pool->recovery_blocks_rejected > 0;
	if (MUTANT(15))
		return 0;
	if (!has_rejected && (!s->overrules || MUTANT(67)))
		return flush_settle(pool->flush, at->last_seq);
	pool->overruling = has_rejected;
	int err = checkpoint_wait(pool);
	pool->overruling = false;
	return err || !has_rejected ? err : checkpoint_wait(pool);
}

/* Before any record that an older program does not know: both superblocks send it away. */
static int upgrade(struct pool *pool)
{
	LOG_INFO("pool.upgraded", "the pool has the newest format from here on",
		 F_UUID("pool", &pool->ident.id), F_U64("version", SUPER_FORMAT_VERSION));
	int err = checkpoint_wait(pool);
	return err ? err : checkpoint_wait(pool);
}

static int start(struct recovery *r, const struct journal_position *at, const struct super *s,
		 uint64_t vouched_seq)
{
	struct pool *pool = r->pool;
	int err = reject_all(r);
	if (err || pool->options.read_only)
		return err;
	err = space_rebuild_lost(pool->space);
	pool->recovering = false;
	if (err)
		return err;
	journal_start(pool->journal, *at);
	/* Only what both superblocks vouch for is certainly durable: a mark that was read may still be in the device's cache. */
	flush_start(pool->flush, vouched_seq);
	checkpoint_start(pool->checkpoint, s->replay_seq);
	err = make_verdict_durable(pool, s, at);
	if (!err && s->version < SUPER_FORMAT_VERSION)
		err = upgrade(pool);
	if (err)
		return err;
	jobs_start(pool->jobs);
	discard_start(pool->discard);
	return 0;
}

static void tentatives_free(struct recovery *r)
{
	struct tentative *t, *tmp;
	list_for_each_safe (t, tmp, &r->all, link)
		tentative_free(r, t);
	list_for_each_safe (t, tmp, &r->unverified, link)
		tentative_free(r, t);
}

/* The state as of one superblock and the journal after it. Nothing is written. */
static int fold(struct recovery *r, const struct super *s, struct journal_position *at)
{
	struct pool *pool = r->pool;
	tentatives_free(r);
	pool_state_reset(pool);
	adopt(pool, s);
	int err = journal_new(pool, s->journal_blocks, &pool->journal);
	if (!err)
		err = load_checkpoint(pool, s);
	return err ? err : replay_journal(r, s, at);
}

static bool is_damaged(const struct pool *pool, int err)
{
	return err == OXE_CORRUPT || err == OXE_IO || pool->pages_lost || pool->records_lost ||
	       (!err && catalog_is_damaged(pool->catalog));
}

/* S9: the checkpoint has damaged metadata. What it replaced is still there, and the journal since then too: if that is whole,
 * nothing is lost. The newest superblock goes, so that no later checkpoint of its number is taken for it. */
static int fold_either(struct recovery *r, struct super *newest, struct super *older,
		       struct journal_position *at)
{
	struct pool *pool = r->pool;
	int err = fold(r, newest, at);
	if (!older->generation || !is_damaged(pool, err))
		return err;
	int older_err = fold(r, older, at);
	if (older_err || is_damaged(pool, 0) || at->last_seq + 1 < newest->replay_seq)
		return fold(r, newest, at);
	LOG_WARN("pool.fell_back", "the newest checkpoint has damaged metadata; the one before it has not",
		 F_UUID("pool", &pool->ident.id), F_U64("generation", newest->generation));
	err = pool->options.read_only ? 0 : super_wipe(pool->disk, newest->generation);
	*newest = *older;
	older->generation = 0;
	return err;
}

/* The superblock that cannot be read may be the newest. If it came back after the next checkpoint has begun to write over its pages,
 * it would be believed. */
static int unreadable_super_wipe(struct pool *pool, const struct super *readable)
{
	if (pool->options.read_only || MUTANT(74))
		return 0;
	LOG_WARN("pool.super_unreadable", "one of the two superblocks cannot be read, and is written anew",
		 F_UUID("pool", &pool->ident.id), F_U64("generation", readable->generation));
	return super_wipe(pool->disk, readable->generation + 1);
}

static int recover_with(struct recovery *r, struct super *newest, struct super *older, bool unreadable)
{
	struct journal_position at;
	int err = fold_either(r, newest, older, &at);
	if (!err)
		err = verify(r);
	if (!err && unreadable)
		err = unreadable_super_wipe(r->pool, newest);
	if (err)
		return err;
	at.tail_seq = older->generation ? older->replay_seq : newest->replay_seq;
	/* Everything before the newest superblock is settled by it, and may be written over in place. Should it be lost, the journal must
	 * say so to the one before: a mark is due. */
	if (at.settled_seq < newest->replay_seq)
		at.settled_seq = at.tail_seq - 1;
	return start(r, &at, newest, at.tail_seq - 1);
}

int pool_recover(struct pool *pool)
{
	struct recovery r = {.pool = pool};
	struct super newest, older;
	uint64_t begin_ns = rt_now_exact_ns(pool->rt);
	list_init(&r.all);
	list_init(&r.unverified);
	bool unreadable;
	int err = super_read(pool->disk, &newest, &older, &unreadable);
	pool->recovering = true;
	if (!err)
		err = recover_with(&r, &newest, &older, unreadable);
	pool->recovering = false;
	tentatives_free(&r);
	htab_free(&r.table);
	pool->recovery_ns = rt_now_exact_ns(pool->rt) - begin_ns;
	return err;
}
