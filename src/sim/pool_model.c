/* pool_model.c: see pool_model.h. */
#include "sim/pool_model.h"

#include "sim/pool_value.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- the model ------------------------------------------------------------------------------------------------------ */

void model_init(struct model *m)
{
	*m = (struct model){.clock = 1};
	for (size_t i = 0; i < MODEL_VOLUMES; i++)
		m->volumes[i].reverting_to = m->volumes[i].new_note_kind = -1;
}

void model_snapshot_drop(struct model_snapshot *s)
{
	content_free(s->content);
	*s = (struct model_snapshot){0};
}

void model_volume_drop(struct model_volume *v)
{
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++)
		model_snapshot_drop(&v->snapshots[i]);
	content_free(v->content);
	content_free(v->grafted);
	*v = (struct model_volume){.reverting_to = -1, .new_note_kind = -1};
}

void model_fini(struct model *m)
{
	for (size_t i = 0; i < MODEL_VOLUMES; i++)
		model_volume_drop(&m->volumes[i]);
}

void model_free(struct model *m)
{
	if (m)
		model_fini(m);
	free(m);
}

struct model *model_copy(const struct model *from)
{
	struct model *m = memcpy(mem_alloc(sizeof(*m)), from, sizeof(*m));
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		struct model_volume *v = &m->volumes[i];
		v->handle = NULL;
		v->users = 0;
		v->content = v->content ? content_copy(v->content) : NULL;
		v->grafted = v->grafted ? content_copy(v->grafted) : NULL;
		for (size_t k = 0; k < MODEL_SNAPSHOTS; k++) {
			struct model_snapshot *s = &v->snapshots[k];
			s->content = s->content ? content_copy(s->content) : NULL;
		}
	}
	return m;
}

struct model_volume *model_volume_free_slot(struct model *m)
{
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		if (m->volumes[i].presence == ABSENT)
			return &m->volumes[i];
	}
	return NULL;
}

struct model_snapshot *model_snapshot_free_slot(struct model_volume *v)
{
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		if (v->snapshots[i].presence == ABSENT)
			return &v->snapshots[i];
	}
	return NULL;
}

void model_snapshot_taken(struct model_volume *v, const struct model_snapshot *s)
{
	v->ancestors |= 1u << (s - v->snapshots);
}

void model_snapshot_gone(struct model_volume *v, struct model_snapshot *s)
{
	uint32_t bit = 1u << (s - v->snapshots);
	v->ancestors &= ~bit;
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++)
		v->snapshots[i].ancestors &= ~bit;
	model_snapshot_drop(s);
}

static bool has_grafted(const struct model_volume *v, const struct volume_info *info)
{
	return v->grafted && uuid_equal(&info->head_id, &v->grafted_head);
}

static struct model_volume *volume_by_id(struct model *m, const struct uuid *id)
{
	for (size_t i = 0; i < MODEL_VOLUMES; i++) {
		if (m->volumes[i].presence != ABSENT && uuid_equal(&m->volumes[i].id, id))
			return &m->volumes[i];
	}
	return NULL;
}

void model_graft_end(struct model *m, struct model_volume *v, bool happened)
{
	struct model_volume *fresh = volume_by_id(m, &v->grafted_id);
	struct content *past = happened ? v->content : v->grafted;
	assert(v->grafted && fresh);
	if (happened) {
		v->content = v->grafted;
		v->size_bytes = v->content->sector_count * VALUE_BYTES;
		model_volume_drop(fresh);
	} else {
		fresh->presence = PRESENT;
		v->grafted_id = (struct uuid){0};
	}
	v->grafted = NULL;
	content_free(past);
}

void model_graft_decide(struct model *m, struct model_volume *v, const struct pool *pool)
{
	struct volume_info info;
	if (v->grafted && volume_get_any(pool, &v->id, &info) == 0)
		model_graft_end(m, v, has_grafted(v, &info));
}

/* ---- what is shared ------------------------------------------------------------------------------------------------------ */

/* A reader of the pool: a head, or a snapshot. */
struct reader {
	const struct model_volume *volume;
	const struct content *content;
};

/* The next reader after *at, counting heads and snapshots of all volumes. False: that was the last. */
static bool next_reader(const struct model *m, size_t *at, struct reader *out)
{
	for (; *at < (size_t)MODEL_VOLUMES * (MODEL_SNAPSHOTS + 1); ++*at) {
		size_t k = *at % (MODEL_SNAPSHOTS + 1);
		out->volume = &m->volumes[*at / (MODEL_SNAPSHOTS + 1)];
		out->content =
			k == MODEL_SNAPSHOTS ? out->volume->content : out->volume->snapshots[k].content;
		if (!out->content)
			continue;
		++*at;
		return true;
	}
	return false;
}

static bool nobody_else_can_see(const struct model *m, const struct content *c, uint64_t block)
{
	struct reader r;
	for (size_t at = 0; next_reader(m, &at, &r);) {
		if (r.content != c && content_block_may_be_shared(c, r.content, block))
			return false;
	}
	return true;
}

void model_usage_least(const struct model *m, const struct model_snapshot *s, struct model_usage *out)
{
	out->referenced_min = out->exclusive_min = 0;
	for (uint64_t block = 0; block < content_block_count(s->content); block++) {
		if (!content_block_is_data(s->content, block))
			continue;
		out->referenced_min++;
		out->exclusive_min += nobody_else_can_see(m, s->content, block);
	}
}

static bool somebody_else_sees(const struct model *m, const struct model_volume *v, const struct content *c,
			       uint64_t block)
{
	struct reader r;
	for (size_t at = 0; next_reader(m, &at, &r);) {
		bool comparable = r.volume == v || !m->flattened;
		if (r.content != c && comparable && content_block_is_shared(c, r.content, block))
			return true;
	}
	return false;
}

void model_usage_most(const struct model *m, const struct model_volume *v, const struct model_snapshot *s,
		      struct model_usage *out)
{
	out->referenced_max = out->exclusive_max = 0;
	for (uint64_t block = 0; block < content_block_count(s->content); block++) {
		if (!content_block_may_be_data(s->content, block))
			continue;
		bool data = content_block_is_data(s->content, block);
		out->referenced_max++;
		out->exclusive_max += !data || !somebody_else_sees(m, v, s->content, block);
	}
}

/* ---- the check ---------------------------------------------------------------------------------------------------------- */

struct checking {
	const struct model *model;
	struct pool *pool;
	const struct model_check *check;
	struct model_volume *learned; /* where to note what is found, or NULL */
	uint8_t *buf;		      /* one cluster */
	char *why;
	size_t why_size;
	uint32_t volumes_found, snapshots_found;
	uint64_t problems_excused;
};

OX_PRINTF(2, 3) static bool differs(struct checking *c, const char *format, ...)
{
	va_list args;
	if (c->why[0])
		return false;
	va_start(args, format);
	vsnprintf(c->why, c->why_size, format, args);
	va_end(args);
	return false;
}

/* What one volume or snapshot may hold: `other` is a second possibility for the whole of it. */
struct expected {
	const char *what, *name;
	const struct content *content;
	uint64_t since;	       /* what was current then or later; after a power cut anything not struck out */
	uint64_t stamps_since; /* learned stamps from here on are not to be trusted */
};

static bool check_sector(struct checking *c, const struct expected *e, const uint8_t *data, uint64_t sector,
			 struct content *learned)
{
	uint64_t tag = value_tag_of(data);
	char found[120], allowed[200];
	bool whole = value_is(data, sector, tag);
	bool allowed_now = content_allows(e->content, sector, tag, e->since);
	if (whole &&
	    (allowed_now || (c->check->power_cut && content_allows(e->content, sector, tag, ANY_TIME)))) {
		if (learned)
			content_learn(learned, e->content, sector, tag);
		return true;
	}
	value_describe(data, found, sizeof(found));
	content_describe(e->content, sector, allowed, sizeof(allowed));
	return differs(c, "%s %s sector %llu (byte %llu): found %s, allowed version %s", e->what, e->name,
		       (unsigned long long)sector, (unsigned long long)(sector * VALUE_BYTES), found,
		       allowed);
}

static bool is_excused(const struct checking *c, int err)
{
	return c->check->damage && damage_excuses_object(c->check->damage, c->pool, err);
}

static bool unreadable(struct checking *c, const struct expected *e, uint64_t sector, int err)
{
	return differs(c, "%s %s cannot be read at %llu: %s", e->what, e->name,
		       (unsigned long long)(sector * VALUE_BYTES), err_name(err));
}

static bool check_sectors(struct checking *c, const struct expected *e, uint64_t first, uint64_t count,
			  struct content *learned)
{
	for (uint64_t i = 0; i < count; i++) {
		if (!check_sector(c, e, c->buf + i * VALUE_BYTES, first + i, learned))
			return false;
	}
	return true;
}

/* Block by block, as what is damaged may cost one of them and not its neighbours. */
static bool check_damaged(struct checking *c, const struct expected *e, struct vol *vol, uint64_t first,
			  uint64_t end)
{
	for (uint64_t at = first; at < end; at += CONTENT_BLOCK_SECTORS) {
		uint64_t count = u64_min(CONTENT_BLOCK_SECTORS, end - at);
		int err = vol_read(vol, c->buf, at * VALUE_BYTES, count * VALUE_BYTES);
		bool excused = err && damage_excuses_io(c->check->damage, c->pool, &vol_info(vol)->id,
							at / CONTENT_BLOCK_SECTORS, err);
		if (err && !excused)
			return unreadable(c, e, at, err);
		if (!err && !check_sectors(c, e, at, count, NULL))
			return false;
	}
	return true;
}

static bool check_cluster(struct checking *c, const struct expected *e, struct vol *vol, uint64_t cluster,
			  struct content *learned)
{
	uint64_t first = cluster * CONTENT_CLUSTER_SECTORS;
	uint64_t count = u64_min(CONTENT_CLUSTER_SECTORS, e->content->sector_count - first);
	int err = vol_read(vol, c->buf, first * VALUE_BYTES, count * VALUE_BYTES);
	if (err && c->check->damage)
		return check_damaged(c, e, vol, first, first + count);
	return err ? unreadable(c, e, first, err) : check_sectors(c, e, first, count, learned);
}

/* Without `full`: what is open, what was touched lately, one in ten of the rest. */
static bool cluster_matters(const struct checking *c, const struct content *content, uint64_t cluster)
{
	uint64_t lately = c->model->clock > 60 ? c->model->clock - 60 : 0;
	return c->check->full || content->touched[cluster] > lately || content_is_open(content, cluster) ||
	       prng_one_in(c->check->rng, 10);
}

/* Beyond the clock of the model they are nobody else's. */
static void learn_stamps(const struct checking *c, const struct expected *e, struct content *learned)
{
	memcpy(learned->stamps, e->content->stamps, content_block_count(learned) * sizeof(*learned->stamps));
	content_restamp(learned, e->content, e->stamps_since, c->model->clock + 1);
}

static bool check_content(struct checking *c, const struct expected *e, const struct uuid *id,
			  struct content *learned)
{
	struct vol *vol;
	int err = vol_open(c->pool, id, &vol);
	bool ok = true;
	if (err)
		return is_excused(c, err) ||
		       differs(c, "%s %s cannot be opened: %s", e->what, e->name, err_name(err));
	if (vol_info(vol)->size_bytes != e->content->sector_count * VALUE_BYTES)
		ok = differs(c, "%s %s opens with size %llu, wanted %llu", e->what, e->name,
			     (unsigned long long)vol_info(vol)->size_bytes,
			     (unsigned long long)(e->content->sector_count * VALUE_BYTES));
	for (uint64_t i = 0; ok && i < content_cluster_count(e->content); i++) {
		if (cluster_matters(c, e->content, i))
			ok = check_cluster(c, e, vol, i, learned);
	}
	if (ok && learned)
		learn_stamps(c, e, learned);
	vol_close(vol);
	return ok;
}

static struct model_snapshot *learn_snapshot(struct checking *c, const struct model_volume *v,
					     const struct model_snapshot *from,
					     const struct snapshot_info *info)
{
	if (!c->learned)
		return NULL;
	struct model_snapshot *s = &c->learned->snapshots[from - v->snapshots];
	s->presence = PRESENT;
	s->ancestors = from->ancestors;
	if (from->presence == APPEARING)
		model_snapshot_taken(c->learned, s);
	s->id = info->id;
	s->size_bytes = info->size_bytes;
	snprintf(s->name, sizeof(s->name), "%s", info->name);
	s->content = v->is_fresh ? content_new_fresh(info->size_bytes / VALUE_BYTES)
				 : content_new(info->size_bytes / VALUE_BYTES);
	return s;
}

static bool name_fits(const char *found, const char *name, const char *new_name)
{
	return strcmp(found, name) == 0 || (new_name[0] && strcmp(found, new_name) == 0);
}

static bool check_snapshot(struct checking *c, const struct model_volume *v, const struct model_snapshot *s)
{
	struct snapshot_info info;
	int err = layer_get_any(c->pool, &s->id, &info);
	if (err == OXE_NOENT && s->presence != PRESENT)
		return true;
	if (err)
		return is_excused(c, err) ||
		       differs(c, "snapshot %s of %s: %s", s->name, v->name, err_name(err));
	c->snapshots_found += !pool_name_is_system(info.name);
	if (!name_fits(info.name, s->name, s->new_name))
		return differs(c, "snapshot %s of %s is called %s", s->name, v->name, info.name);
	bool other =
		!uuid_equal(&info.volume_id, &v->id) && !is_excused(c, OXE_CORRUPT); /* the volume is lost */
	if (other || info.size_bytes != s->size_bytes)
		return differs(c, "snapshot %s of %s has another volume or size", s->name, v->name);
	bool appearing = s->presence == APPEARING;
	struct expected e = {"snapshot", s->name, appearing ? v->content : s->content,
			     appearing ? s->begin : NEVER, appearing ? s->begin : NEVER};
	struct model_snapshot *learned = learn_snapshot(c, v, s, &info);
	return check_content(c, &e, &s->id, learned ? learned->content : NULL);
}

static bool check_snapshots(struct checking *c, const struct model_volume *v)
{
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		if (v->snapshots[i].presence != ABSENT && !check_snapshot(c, v, &v->snapshots[i]))
			return false;
	}
	return true;
}

static void learn_volume(struct checking *c, const struct model_volume *v, const struct volume_info *info,
			 bool reverted)
{
	struct model *learned = c->check->learned;
	c->learned = learned ? model_volume_free_slot(learned) : NULL;
	if (!c->learned)
		return;
	*c->learned = (struct model_volume){
		.presence = PRESENT,
		.is_fresh = v->is_fresh,
		.id = info->id,
		.serial = v->serial,
		.size_bytes = info->size_bytes,
		.lba_bytes = info->lba_bytes,
		.reverting_to = -1,
		.new_note_kind = -1,
		.ancestors = v->ancestors,
		.content = v->is_fresh ? content_new_fresh(info->size_bytes / VALUE_BYTES)
				       : content_new(info->size_bytes / VALUE_BYTES),
	};
	if (reverted)
		c->learned->ancestors = v->snapshots[v->reverting_to].ancestors | 1u << v->reverting_to;
	snprintf(c->learned->name, sizeof(c->learned->name), "%s", info->name);
}

/* The fresh volume is there, or the other has what it had. */
static bool check_graft(struct checking *c, const struct model_volume *v, const struct volume_info *info)
{
	struct volume_info fresh;
	if (uuid_is_nil(&v->grafted_id))
		return true;
	int err = volume_get_any(c->pool, &v->grafted_id, &fresh);
	bool grafted = !v->grafted || has_grafted(v, info);
	return (err == OXE_NOENT) == grafted || is_excused(c, err) ||
	       differs(c, "volume %s is grafted: %d, and the fresh one: %s", v->name, grafted, err_name(err));
}

static bool check_volume_facts(struct checking *c, const struct model_volume *v,
			       const struct volume_info *info, bool reverted)
{
	bool size_fits = info->size_bytes == v->size_bytes || info->size_bytes == v->new_size_bytes;
	if (v->grafted)
		size_fits = info->size_bytes ==
			    (has_grafted(v, info) ? v->grafted->sector_count * VALUE_BYTES : v->size_bytes);
	if (v->reverting_to >= 0)
		size_fits = info->size_bytes == (reverted ? v->new_size_bytes : v->size_bytes);
	if (!size_fits)
		return differs(c, "volume %s has size %llu, wanted %llu", v->name,
			       (unsigned long long)info->size_bytes, (unsigned long long)v->size_bytes);
	if (!name_fits(info->name, v->name, v->new_name))
		return differs(c, "volume %s is called %s", v->name, info->name);
	if (info->lba_bytes != v->lba_bytes)
		return differs(c, "volume %s has blocks of %u", v->name, info->lba_bytes);
	return true;
}

uint32_t model_note_fill(uint8_t data[POOL_NOTE_BYTES_MAX], uint64_t version)
{
	struct prng rng;
	if (version == 0)
		return 0;
	prng_seed(&rng, version);
	uint32_t len_bytes =
		(uint32_t)(sizeof(version) + prng_below(&rng, POOL_NOTE_BYTES_MAX - sizeof(version) + 1));
	prng_fill(&rng, data, len_bytes);
	memcpy(data, &version, sizeof(version));
	return len_bytes;
}

/* The version of a note that was read; UINT64_MAX: it is nothing that was ever written. */
static uint64_t note_version(const uint8_t *data, uint32_t len_bytes)
{
	uint8_t wanted[POOL_NOTE_BYTES_MAX];
	uint64_t version = 0;
	if (len_bytes >= sizeof(version))
		memcpy(&version, data, sizeof(version));
	bool whole = version && model_note_fill(wanted, version) == len_bytes &&
		     memcmp(data, wanted, len_bytes) == 0;
	return whole ? version : UINT64_MAX;
}

static bool check_notes(struct checking *c, const struct model_volume *v)
{
	uint8_t data[POOL_NOTE_BYTES_MAX];
	for (int kind = 0; kind < POOL_NOTE_KINDS; kind++) {
		uint32_t len_bytes = 0;
		int err = pool_note_get(c->pool, &v->id, (enum pool_note_kind)kind, data, &len_bytes);
		if (err && err != OXE_NOENT)
			return differs(c, "note %d of %s: %s", kind, v->name, err_name(err));
		uint64_t version = err ? 0 : note_version(data, len_bytes);
		bool is_new = v->new_note_kind == kind && version == v->new_note;
		if (version != v->notes[kind] && !is_new)
			return differs(c, "note %d of %s is version %llu, wanted %llu", kind, v->name,
				       (unsigned long long)version, (unsigned long long)v->notes[kind]);
		if (c->learned)
			c->learned->notes[kind] = version;
	}
	return true;
}

/* A volume caught growing may have either size: what was added is zeroes. */
static bool check_head(struct checking *c, const struct model_volume *v, const struct volume_info *info,
		       const struct content *content)
{
	struct expected e = {"volume", v->name, content, NEVER, NEVER};
	struct content *resized = NULL;
	if (info->size_bytes / VALUE_BYTES > content->sector_count) {
		resized = content_copy(content);
		content_grow(resized, info->size_bytes / VALUE_BYTES);
		e.content = resized;
	}
	bool ok = check_content(c, &e, &v->id, c->learned ? c->learned->content : NULL);
	content_free(resized);
	return ok;
}

/* What was vanishing may be gone: nothing stands on it. */
static void forget_absent(struct model_volume *learned)
{
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		if (learned->snapshots[i].presence == ABSENT)
			model_snapshot_gone(learned, &learned->snapshots[i]);
	}
}

static bool check_volume(struct checking *c, const struct model_volume *v)
{
	struct volume_info info;
	int err = volume_get_any(c->pool, &v->id, &info);
	if (err == OXE_NOENT && (v->presence == APPEARING || v->presence == VANISHING))
		return true;
	if (err)
		return is_excused(c, err) ? check_snapshots(c, v)
					  : differs(c, "volume %s: %s", v->name, err_name(err));
	bool reverted = v->reverting_to >= 0 && uuid_equal(&info.head_id, &v->reverting_head);
	c->volumes_found += !v->is_fresh;
	learn_volume(c, v, &info, reverted);
	if (!check_volume_facts(c, v, &info, reverted) || !check_graft(c, v, &info) || !check_notes(c, v))
		return false;
	const struct content *content = reverted		? v->snapshots[v->reverting_to].content
					: has_grafted(v, &info) ? v->grafted
								: v->content;
	bool ok = check_head(c, v, &info, content) && check_snapshots(c, v);
	if (ok && c->learned)
		forget_absent(c->learned);
	return ok;
}

static void problem_note(void *ctx, const struct pool_problem *p)
{
	struct checking *c = ctx;
	if (c->check->damage && damage_excuses_problem(c->check->damage, p))
		c->problems_excused++;
	else
		differs(c, "pool_check: %s", p->text);
}

static bool check_structure(struct checking *c)
{
	struct pool_check_result result;
	int err = pool_check(c->pool, problem_note, c, &result);
	if (err)
		return differs(c, "pool_check: %s", err_name(err));
	return result.problem_count == c->problems_excused || differs(c, "pool_check found problems");
}

static bool check_counts(struct checking *c)
{
	struct pool_stats stats;
	pool_stats(c->pool, &stats);
	if (c->check->damage && stats.catalog_damaged)
		return true;
	if (stats.total_bytes != c->model->pool_bytes && stats.total_bytes != c->model->new_pool_bytes)
		return differs(c, "the pool has %llu bytes, wanted %llu",
			       (unsigned long long)stats.total_bytes,
			       (unsigned long long)c->model->pool_bytes);
	if (c->check->learned)
		c->check->learned->pool_bytes = stats.total_bytes;
	if (stats.volume_count != c->volumes_found)
		return differs(c, "the pool has %u volumes, %u of them known", stats.volume_count,
			       c->volumes_found);
	if (stats.snapshot_count != c->snapshots_found)
		return differs(c, "the pool has %u snapshots, %u of them known", stats.snapshot_count,
			       c->snapshots_found);
	return true;
}

bool model_check_pool(const struct model *m, struct pool *pool, const struct model_check *check, char *why,
		      size_t why_size)
{
	struct checking c = {.model = m, .pool = pool, .check = check, .why = why, .why_size = why_size};
	bool ok = true;
	why[0] = '\0';
	c.buf = aligned_alloc(RT_IO_ALIGN, POOL_CLUSTER_BYTES);
	ok = check_structure(&c);
	for (size_t i = 0; ok && i < MODEL_VOLUMES; i++) {
		if (m->volumes[i].presence != ABSENT)
			ok = check_volume(&c, &m->volumes[i]);
	}
	ok = ok && check_counts(&c);
	if (ok && check->learned) {
		check->learned->clock = m->clock + 1;
		check->learned->flattened = m->flattened;
		check->learned->version = m->version;
		check->learned->serial = m->serial;
	}
	free(c.buf);
	return ok;
}
