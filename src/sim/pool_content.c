/* pool_content.c: see pool_content.h. */
#include "sim/pool_content.h"

#include <stdio.h>

uint64_t content_cluster_count(const struct content *c)
{
	return u64_div_up(c->sector_count, CONTENT_CLUSTER_SECTORS);
}

uint64_t content_block_count(const struct content *c)
{
	return u64_div_up(c->sector_count, CONTENT_BLOCK_SECTORS);
}

static uint64_t read_as(uint64_t tag)
{
	return tag == TAG_UNSAID || tag == TAG_MAYBE ? 0 : tag;
}

static struct content *content_make(uint64_t sector_count, bool is_fresh)
{
	struct content *c = mem_zalloc(sizeof(*c));
	c->is_fresh = is_fresh;
	content_grow(c, sector_count);
	return c;
}

struct content *content_new(uint64_t sector_count)
{
	return content_make(sector_count, false);
}

struct content *content_new_fresh(uint64_t sector_count)
{
	return content_make(sector_count, true);
}

static void *grown(void *old, uint64_t old_count, uint64_t count, size_t item_bytes)
{
	uint8_t *items = mem_realloc(old, (count + 1) * item_bytes);
	memset(items + old_count * item_bytes, 0, (count - old_count) * item_bytes);
	return items;
}

void content_grow(struct content *c, uint64_t sector_count)
{
	uint64_t clusters = content_cluster_count(c), wanted;
	assert(sector_count >= c->sector_count);
	c->tags = grown(c->tags, c->sector_count, sector_count, sizeof(*c->tags));
	for (uint64_t s = c->sector_count; c->is_fresh && s < sector_count; s++)
		c->tags[s] = TAG_UNSAID;
	c->sets = grown(c->sets, c->sector_count, sector_count, sizeof(*c->sets));
	c->listed = grown(c->listed, c->sector_count, sector_count, sizeof(*c->listed));
	uint64_t blocks = content_block_count(c);
	c->sector_count = sector_count;
	c->stamps = grown(c->stamps, blocks, content_block_count(c), sizeof(*c->stamps));
	wanted = content_cluster_count(c);
	c->touched = grown(c->touched, clusters, wanted, sizeof(*c->touched));
}

void content_free(struct content *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->open_count; i++) {
		free(c->sets[c->open[i]]);
		c->sets[c->open[i]] = NULL;
	}
	free(c->tags);
	free(c->sets);
	free(c->open);
	free(c->listed);
	free(c->touched);
	free(c->stamps);
	free(c);
}

static size_t set_bytes(uint32_t capacity)
{
	return sizeof(struct alt_set) + capacity * sizeof(struct alt);
}

static void open_add(struct content *c, uint64_t sector)
{
	if (c->listed[sector])
		return;
	c->listed[sector] = 1;
	if (c->open_count == c->open_capacity) {
		c->open_capacity = 2 * c->open_capacity + 64;
		c->open = mem_realloc(c->open, c->open_capacity * sizeof(*c->open));
	}
	c->open[c->open_count++] = (uint32_t)sector;
}

struct content *content_copy(const struct content *from)
{
	struct content *c = content_make(from->sector_count, from->is_fresh);
	memcpy(c->tags, from->tags, from->sector_count * sizeof(*c->tags));
	memcpy(c->touched, from->touched, content_cluster_count(from) * sizeof(*c->touched));
	memcpy(c->stamps, from->stamps, content_block_count(from) * sizeof(*c->stamps));
	for (size_t i = 0; i < from->open_count; i++) {
		uint64_t sector = from->open[i];
		const struct alt_set *set = from->sets[sector];
		if (!set)
			continue;
		c->sets[sector] = memcpy(mem_alloc(set_bytes(set->capacity)), set, set_bytes(set->count));
		c->sets[sector]->capacity = set->capacity;
		open_add(c, sector);
	}
	return c;
}

/* The sector's values as a set that can be added to. */
static struct alt_set *set_open(struct content *c, uint64_t sector)
{
	struct alt_set *set = c->sets[sector];
	if (!set) {
		set = c->sets[sector] = mem_alloc(set_bytes(4));
		*set = (struct alt_set){.count = 1, .capacity = 4};
		set->alts[0] = (struct alt){c->tags[sector], 0, 0, NEVER, false};
		open_add(c, sector);
	} else if (set->count == set->capacity) {
		set->capacity *= 2;
		set = c->sets[sector] = mem_realloc(set, set_bytes(set->capacity));
	}
	return set;
}

/* A set of one answered value is a plain value again. Entries of `open` are purged by content_flushed. */
static void set_close(struct content *c, uint64_t sector)
{
	struct alt_set *set = c->sets[sector];
	if (set->count != 1 || set->alts[0].done == NEVER)
		return;
	c->tags[sector] = set->alts[0].tag;
	free(set);
	c->sets[sector] = NULL;
}

static void alt_remove(struct alt_set *set, uint32_t index)
{
	set->count--;
	memmove(&set->alts[index], &set->alts[index + 1], (set->count - index) * sizeof(struct alt));
}

static void touch(struct content *c, uint64_t first, uint64_t count, uint64_t now)
{
	for (uint64_t s = first; s < first + count; s += CONTENT_CLUSTER_SECTORS)
		c->touched[s / CONTENT_CLUSTER_SECTORS] = now;
	if (count)
		c->touched[(first + count - 1) / CONTENT_CLUSTER_SECTORS] = now;
	uint64_t block = first / CONTENT_BLOCK_SECTORS;
	for (; block < u64_div_up(first + count, CONTENT_BLOCK_SECTORS) && count; block++)
		c->stamps[block] = now;
}

void content_write_begin(struct content *c, uint64_t first, uint64_t count, uint64_t tag, uint64_t now)
{
	assert(first + count <= c->sector_count);
	for (uint64_t s = first; s < first + count; s++) {
		struct alt_set *set = set_open(c, s);
		set->alts[set->count++] = (struct alt){tag, now, NEVER, NEVER, false};
	}
	touch(c, first, count, now);
}

static struct alt *alt_submitted_at(struct alt_set *set, uint64_t submitted)
{
	for (uint32_t i = set->count; i > 0; i--) {
		if (set->alts[i - 1].submitted == submitted)
			return &set->alts[i - 1];
	}
	assert(!"a write that was never begun has ended");
	return NULL;
}

/* The write is answered: what was done before it was handed in is past. */
static void set_supersede(struct alt_set *set, uint64_t submitted, uint64_t now, bool durable)
{
	for (uint32_t i = 0; i < set->count; i++) {
		struct alt *a = &set->alts[i];
		bool past = a->done < submitted && a->submitted != submitted;
		if (past && a->superseded == NEVER)
			a->superseded = now;
		a->struck |= past && durable;
	}
}

void content_write_end(struct content *c, uint64_t first, uint64_t count, uint64_t submitted, uint64_t now,
		       enum content_answer answer)
{
	for (uint64_t s = first; s < first + count; s++) {
		struct alt_set *set = c->sets[s];
		struct alt *a = alt_submitted_at(set, submitted);
		if (answer == ANSWER_UNCHANGED) {
			alt_remove(set, (uint32_t)(a - set->alts));
		} else {
			a->done = now;
			if (answer != ANSWER_UNKNOWN)
				set_supersede(set, submitted, now, answer == ANSWER_DURABLE);
		}
		set_close(c, s);
	}
	touch(c, first, count, now);
}

static void set_flushed(struct alt_set *set, uint64_t submitted, uint64_t oldest_read)
{
	for (uint32_t i = 0; i < set->count;) {
		struct alt *a = &set->alts[i];
		a->struck |= a->superseded <= submitted;
		if (a->struck && a->superseded <= oldest_read)
			alt_remove(set, i);
		else
			i++;
	}
}

void content_flushed(struct content *c, uint64_t submitted, uint64_t oldest_read)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->open_count; i++) {
		uint64_t sector = c->open[i];
		if (c->sets[sector]) {
			set_flushed(c->sets[sector], submitted, oldest_read);
			set_close(c, sector);
		}
		if (c->sets[sector])
			c->open[kept++] = (uint32_t)sector;
		else
			c->listed[sector] = 0;
	}
	c->open_count = kept;
}

void content_settle(struct content *c, uint64_t sector, uint64_t tag, uint64_t submitted, uint64_t now)
{
	struct alt_set *set = c->sets[sector];
	bool known = false;
	if (!set)
		return;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct alt *a = &set->alts[i];
		if (a->superseded == NEVER && (a->done == NEVER || a->done >= submitted))
			return;
		known |= a->superseded == NEVER && read_as(a->tag) == tag;
	}
	for (uint32_t i = 0; known && i < set->count; i++) {
		if (set->alts[i].superseded == NEVER && read_as(set->alts[i].tag) != tag)
			set->alts[i].superseded = now;
	}
}

void content_set(struct content *c, uint64_t sector, uint64_t tag)
{
	assert(!c->sets[sector]);
	c->tags[sector] = tag;
}

void content_learn(struct content *c, const struct content *from, uint64_t sector, uint64_t tag)
{
	const struct alt_set *set = from->sets[sector];
	bool said = false, unsaid = false;
	for (uint32_t i = 0; i < (set ? set->count : 1); i++) {
		uint64_t its = set ? set->alts[i].tag : from->tags[sector];
		said |= its == tag || (tag == 0 && its == TAG_MAYBE);
		unsaid |= tag == 0 && (its == TAG_UNSAID || its == TAG_MAYBE);
	}
	content_set(c, sector, !unsaid ? tag : said ? TAG_MAYBE : TAG_UNSAID);
}

bool content_allows(const struct content *c, uint64_t sector, uint64_t tag, uint64_t since)
{
	const struct alt_set *set = c->sets[sector];
	if (!set)
		return read_as(c->tags[sector]) == tag;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct alt *a = &set->alts[i];
		if (read_as(a->tag) == tag && (since == ANY_TIME ? !a->struck : a->superseded >= since))
			return true;
	}
	return false;
}

bool content_is_open(const struct content *c, uint64_t cluster)
{
	uint64_t first = cluster * CONTENT_CLUSTER_SECTORS;
	uint64_t end = u64_min(first + CONTENT_CLUSTER_SECTORS, c->sector_count);
	for (uint64_t s = first; s < end; s++) {
		if (c->sets[s])
			return true;
	}
	return false;
}

bool content_may_equal(const struct content *a, const struct content *b, uint64_t sector, uint64_t since)
{
	const struct alt_set *set = sector < b->sector_count ? b->sets[sector] : NULL;
	if (!set)
		return content_allows(a, sector, sector < b->sector_count ? read_as(b->tags[sector]) : 0,
				      since);
	for (uint32_t i = 0; i < set->count; i++) {
		if (set->alts[i].superseded == NEVER &&
		    content_allows(a, sector, read_as(set->alts[i].tag), since))
			return true;
	}
	return false;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------- */

static uint64_t block_end(const struct content *c, uint64_t block)
{
	return u64_min((block + 1) * CONTENT_BLOCK_SECTORS, c->sector_count);
}

static bool set_is_in_flight(const struct alt_set *set)
{
	for (uint32_t i = 0; set && i < set->count; i++) {
		if (set->alts[i].done == NEVER)
			return true;
	}
	return false;
}

bool content_block_is_untouched(const struct content *c, uint64_t block, uint64_t begin)
{
	for (uint64_t s = block * CONTENT_BLOCK_SECTORS; s < block_end(c, block); s++) {
		if (set_is_in_flight(c->sets[s]))
			return false;
	}
	return c->stamps[block] < begin;
}

bool content_block_is_data(const struct content *c, uint64_t block)
{
	bool data = false;
	for (uint64_t s = block * CONTENT_BLOCK_SECTORS; s < block_end(c, block); s++) {
		if (c->sets[s])
			return false;
		data |= read_as(c->tags[s]) != 0;
	}
	return data;
}

bool content_block_may_be_data(const struct content *c, uint64_t block)
{
	return c->stamps[block] != 0 || content_block_is_data(c, block);
}

bool content_block_may_be_shared(const struct content *a, const struct content *b, uint64_t block)
{
	for (uint64_t s = block * CONTENT_BLOCK_SECTORS; s < block_end(a, block); s++) {
		if (s >= b->sector_count || !(content_allows(b, s, read_as(a->tags[s]), ANY_TIME) ||
					      content_allows(b, s, read_as(a->tags[s]), NEVER)))
			return false;
	}
	return true;
}

bool content_block_is_shared(const struct content *a, const struct content *b, uint64_t block)
{
	if (block >= content_block_count(b) || a->stamps[block] != b->stamps[block] || !a->stamps[block])
		return false;
	return content_block_is_data(b, block) && content_block_may_be_shared(a, b, block);
}

void content_restamp(struct content *c, const struct content *from, uint64_t begin, uint64_t stamp)
{
	for (uint64_t block = 0; block < content_block_count(c); block++) {
		if (!content_block_is_untouched(from, block, begin))
			c->stamps[block] = stamp;
	}
}

static void graft_add(struct content *c, uint64_t sector, const struct alt *like, uint64_t tag)
{
	struct alt_set *set = set_open(c, sector);
	set->alts[set->count] = *like;
	set->alts[set->count++].tag = tag;
}

/* Every value that the sector may have above, or where that is nothing the one below. */
static void graft_set(struct content *c, uint64_t sector, uint64_t below, const struct alt *alts,
		      uint32_t count)
{
	c->sets[sector] = mem_alloc(set_bytes(4));
	*c->sets[sector] = (struct alt_set){.capacity = 4};
	open_add(c, sector);
	for (uint32_t i = 0; i < count; i++) {
		if (alts[i].tag != TAG_UNSAID)
			graft_add(c, sector, &alts[i], read_as(alts[i].tag));
		if (alts[i].tag == TAG_UNSAID || alts[i].tag == TAG_MAYBE)
			graft_add(c, sector, &alts[i], below);
	}
}

static void graft_sector(struct content *c, const struct content *below, const struct content *above,
			 uint64_t sector, uint64_t now)
{
	const struct alt_set *set = above->sets[sector];
	uint64_t tag = above->tags[sector],
		 tag_below = sector < below->sector_count ? below->tags[sector] : 0;
	struct alt maybe = {TAG_MAYBE, 0, 0, NEVER, false};
	if (set)
		graft_set(c, sector, tag_below, set->alts, set->count);
	else if (tag == TAG_MAYBE)
		graft_set(c, sector, tag_below, &maybe, 1);
	else
		content_set(c, sector, tag == TAG_UNSAID ? tag_below : tag);
	if (set || tag != TAG_UNSAID)
		touch(c, sector, 1, now);
}

struct content *content_graft(const struct content *below, const struct content *above, uint64_t now)
{
	struct content *c = content_new(above->sector_count);
	uint64_t blocks = u64_min(content_block_count(c), content_block_count(below));
	uint64_t clusters = u64_min(content_cluster_count(c), content_cluster_count(below));
	memcpy(c->stamps, below->stamps, blocks * sizeof(*c->stamps));
	memcpy(c->touched, below->touched, clusters * sizeof(*c->touched));
	for (uint64_t s = 0; s < c->sector_count; s++)
		graft_sector(c, below, above, s, now);
	return c;
}

struct content *content_snapshot(const struct content *from, uint64_t begin, uint64_t now)
{
	struct content *c = content_copy(from);
	for (size_t i = 0; i < c->open_count; i++) {
		struct alt_set *set = c->sets[c->open[i]];
		for (uint32_t k = 0; k < set->count; k++) {
			struct alt *a = &set->alts[k];
			if (a->superseded != NEVER && a->superseded >= begin) {
				a->superseded = NEVER;
				a->struck = false;
			}
			a->done = u64_min(a->done, now);
		}
	}
	content_restamp(c, from, begin, now);
	return c;
}

void content_describe(const struct content *c, uint64_t sector, char *text, size_t size_bytes)
{
	const struct alt_set *set = c->sets[sector];
	size_t used = 0;
	if (!set) {
		snprintf(text, size_bytes, "%llu", (unsigned long long)(c->tags[sector] & 0xffffffffff));
		return;
	}
	for (uint32_t i = 0; i < set->count && used < size_bytes; i++) {
		const struct alt *a = &set->alts[i];
		used += (size_t)snprintf(text + used, size_bytes - used, "%s%llu (%s)", i ? ", " : "",
					 (unsigned long long)(a->tag & 0xffffffffff),
					 a->done == NEVER	  ? "in flight"
					 : a->struck		  ? "struck out"
					 : a->superseded != NEVER ? "superseded, not flushed"
								  : "current");
	}
}
