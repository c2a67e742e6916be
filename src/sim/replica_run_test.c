/*
 * replica_run_test.c: a copy under a seed: random verbs, and at many of its device writes the machine dies. What a start finds then must be
 * what was promised: the epoch (V4), the intents (V6), whether it is joining and for what, its layers and every block (S3); the verb that
 * was cut off is done again and is then done once; and a copy that was joining is brought to its end, which shows what its new
 * head had.
 *
 * The model holds, of each block, the values since the last flush. One verb is under way at a time, beside background jobs and
 * checkpoints; a write step has several writes at once.
 */
#include "base/prng.h"
#include "base/test.h"
#include "data/replica/replica_note.h"
#include "sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK	   "/dev/sda"
#define DISK_BYTES (16 * MiB)
#define BLOCK	   4096u
#define SECTOR	   512u
#define BLOCKS	   80u /* five clusters */
#define LAYERS	   12u
#define HISTORY	   6u
#define WRITES	   4u
#define STEPS	   90u
#ifdef __SANITIZE_ADDRESS__
#define SEEDS 30u /* each takes ten times as long */
#else
#define SEEDS 300u
#endif
#define DIE_ONE_IN	40u /* device writes */
#define DIE_ONE_IN_RARE 8u
#define UNSAID		UINT32_MAX /* nothing was said of the block */
#define ENGINE		100u
#define LIMIT_NS	(600 * NS_PER_S)

/* The last one is what it holds; the first one is durable; those between may be what a power cut leaves. */
struct cell {
	uint32_t values[HISTORY];
	uint32_t count;
	bool pending; /* the last was not answered yet */
};

struct face {
	struct cell cells[BLOCKS];
};

struct layer {
	unsigned id; /* 0: no layer */
	uint32_t values[BLOCKS];
};

enum verb {
	VERB_NONE,
	VERB_OPEN,
	VERB_CREATE,
	VERB_DATA,
	VERB_FLUSH,
	VERB_INTENTS,
	VERB_SEAL,
	VERB_DELETE,
	VERB_REVERT,
	VERB_JOIN_BEGIN,
	VERB_FILL,
	VERB_FILL_SEAL,
	VERB_JOIN_END
};

struct model {
	bool exists, fill_begun, intents_exact;
	uint64_t epoch;
	unsigned join;					 /* layer id; 0: not joining */
	struct face face;				 /* what is read, or when joining is filled */
	struct face top;				 /* the new head of a joining copy */
	struct layer layers[LAYERS], top_layers[LAYERS]; /* in order */
	struct replica_regions intents, left;
	/* The verb under way, and what it is about. */
	enum verb verb;
	uint64_t new_epoch;
	unsigned id, head; /* of a layer */
	struct replica_regions new_intents;
	uint32_t version;
	unsigned next_id;
};

struct life {
	struct model *m;
	struct sim *sim;
	struct pool *pool;
	struct replica_door *door;
	struct replica *r;
	struct prng rng; /* when to die, and how */
	uint64_t seed;
	uint32_t crashes;
	bool power_cut, done;
};

static uint64_t total_crashes;

/* ---- small words ----------------------------------------------------------------------------------------------------------- */

OX_PRINTF(2, 3) _Noreturn static void differ(const struct life *l, const char *format, ...)
{
	char why[300];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	test_fail(__FILE__, __LINE__, "seed %llu, crash %u (%s), verb %d: %s", (unsigned long long)l->seed,
		  l->crashes, l->power_cut ? "power cut" : "kill", (int)l->m->verb, why);
}

static void must(struct life *l, const char *what, int err)
{
	if (err)
		differ(l, "%s: %s", what, err_name(err));
}

static struct uuid an_id(unsigned n)
{
	struct uuid id = {{0x0e, (uint8_t)(n >> 8), (uint8_t)n}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	return id;
}

static void name_of(unsigned id, char name[16])
{
	snprintf(name, 16, "~%u", id);
}

static void fill_block(uint8_t *data, unsigned block, uint32_t value)
{
	struct prng rng;
	prng_seed(&rng, (uint64_t)value << 16 | block);
	if (value == 0 || value == UNSAID)
		memset(data, 0, BLOCK);
	else
		prng_fill(&rng, data, BLOCK);
}

static bool block_is(const uint8_t *data, unsigned block, uint32_t value)
{
	uint8_t wanted[BLOCK];
	fill_block(wanted, block, value);
	return memcmp(data, wanted, BLOCK) == 0;
}

static uint32_t last(const struct cell *c)
{
	return c->values[c->count - 1];
}

static void cell_set(struct cell *c, uint32_t value)
{
	*c = (struct cell){.values = {value}, .count = 1};
}

static void face_set(struct face *f, const uint32_t *values, uint32_t all)
{
	for (unsigned b = 0; b < BLOCKS; b++)
		cell_set(&f->cells[b], values ? values[b] : all);
}

static void face_flushed(struct face *f)
{
	for (unsigned b = 0; b < BLOCKS; b++)
		cell_set(&f->cells[b], last(&f->cells[b]));
}

static void all_flushed(struct model *m)
{
	face_flushed(&m->face);
	face_flushed(&m->top);
}

static unsigned layer_count(const struct layer *layers)
{
	unsigned count = 0;
	while (count < LAYERS && layers[count].id)
		count++;
	return count;
}

static struct face *writable(struct model *m)
{
	return m->join ? &m->top : &m->face;
}

/* ---- what may be found ----------------------------------------------------------------------------------------------------- */

/* Which sectors of the block, as bits, may hold what was read: a write in place may be torn. `base` is what lies below where nothing is
 * said. */
static unsigned sectors_allowed(const struct life *l, const struct cell *c, const struct cell *base,
				unsigned block, const uint8_t *data)
{
	uint32_t first = l->power_cut ? 0 : c->count - 1 - (c->pending && c->count > 1);
	unsigned allowed = 0;
	for (uint32_t i = first; i < c->count; i++) {
		uint8_t wanted[BLOCK];
		if (c->values[i] == UNSAID && base)
			allowed |= sectors_allowed(l, base, NULL, block, data);
		fill_block(wanted, block, c->values[i]);
		for (unsigned s = 0; s < BLOCK / SECTOR && !(c->values[i] == UNSAID && base); s++)
			allowed |= (unsigned)(memcmp(data + s * SECTOR, wanted + s * SECTOR, SECTOR) == 0)
				   << s;
	}
	return allowed;
}

static bool cell_allows(const struct life *l, const struct cell *c, const struct cell *base, unsigned block,
			const uint8_t *data)
{
	return sectors_allowed(l, c, base, block, data) == (1u << BLOCK / SECTOR) - 1;
}

/* For people. */
static const char *found_value(const struct life *l, const uint8_t *data, unsigned block)
{
	static char text[16];
	for (uint32_t value = 0; value <= l->m->version; value++) {
		if (block_is(data, block, value)) {
			snprintf(text, sizeof(text), "%u", value);
			return text;
		}
	}
	return "nothing ever written";
}

static void expect_face(struct life *l, const char *what, const uint8_t *data, const struct face *f,
			const struct face *base)
{
	for (unsigned b = 0; b < BLOCKS; b++) {
		if (!cell_allows(l, &f->cells[b], base ? &base->cells[b] : NULL, b, data + b * BLOCK))
			differ(l, "%s block %u is %s, not %u (of %u, the first %u)", what, b,
			       found_value(l, data + b * BLOCK, b), last(&f->cells[b]), f->cells[b].count,
			       f->cells[b].values[0]);
	}
}

static void expect_values(struct life *l, const char *what, const uint8_t *data, const uint32_t *values)
{
	for (unsigned b = 0; b < BLOCKS; b++) {
		if (!block_is(data + b * BLOCK, b, values[b]))
			differ(l, "%s block %u is %s, not %u", what, b, found_value(l, data + b * BLOCK, b),
			       values[b]);
	}
}

static uint8_t *read_of(struct life *l, unsigned layer)
{
	uint8_t *data = aligned_alloc(BLOCK, BLOCKS * BLOCK);
	struct uuid id = an_id(layer);
	must(l, "layer_read", l->r->ops->layer_read(l->r, layer ? &id : NULL, data, 0, BLOCKS * BLOCK));
	return data;
}

static bool has(const struct replica_regions *all, const struct replica_regions *some)
{
	for (size_t i = 0; i < sizeof(all->bits); i++) {
		if (some->bits[i] & ~all->bits[i])
			return false;
	}
	return true;
}

static void check_intents(struct life *l, const struct replica_state *s)
{
	const struct model *m = l->m;
	struct replica_regions wanted = m->intents, new_wanted = m->new_intents;
	if (m->join) {
		regions_unite(&wanted, &m->left);
		regions_unite(&new_wanted, &m->left);
	}
	bool old = has(&s->intents, &wanted), new = m->verb == VERB_INTENTS &&has(&s->intents, &new_wanted);
	if (!old && !new)
		differ(l, "intents are lost (V6)");
	if (m->intents_exact && !m->join && !(old && has(&wanted, &s->intents)) &&
	    !(new &&has(&new_wanted, &s->intents)))
		differ(l, "intents were never set");
	bool lacks = memcmp(&s->may_lack, &s->intents, sizeof(s->intents)) == 0;
	if (l->power_cut ? !lacks : !regions_none(&s->may_lack))
		differ(l, "it lacks too much or too little (V3)");
}

/* What it turned out to be is written into the model: from here on it is certain. */
static void check_state(struct life *l, const struct replica_state *s)
{
	struct model *m = l->m;
	uint64_t pending = m->verb == VERB_OPEN || m->verb == VERB_SEAL ? m->new_epoch : m->epoch;
	if (s->exists != m->exists && m->verb != VERB_CREATE)
		differ(l, "exists: %d", s->exists);
	if (!s->exists)
		return;
	bool created = m->verb == VERB_CREATE && s->epoch_before == 0;
	if (s->epoch_before != m->epoch && s->epoch_before != pending && !created)
		differ(l, "the epoch is %llu, wanted %llu (V4)", (unsigned long long)s->epoch_before,
		       (unsigned long long)m->epoch);
	struct uuid old = an_id(m->join), new = an_id(m->id);
	bool is_old = s->is_joining ? m->join && uuid_equal(&s->join_id, &old) : !m->join;
	bool is_new = m->verb == VERB_JOIN_BEGIN ? !s->is_joining || uuid_equal(&s->join_id, &new)
						 : m->verb == VERB_JOIN_END && !s->is_joining;
	if (!is_old && !is_new)
		differ(l, "joining: %d", s->is_joining);
	bool fill_begun = m->fill_begun && !(m->verb == VERB_JOIN_END && !s->is_joining);
	if (s->fill_begun != fill_begun && !(m->verb == VERB_FILL && s->fill_begun))
		differ(l, "fill_begun: %d", s->fill_begun);
	check_intents(l, s);
}

/* ---- the layers ------------------------------------------------------------------------------------------------------------ */

static const struct layer *layer_find(const struct layer *layers, const struct uuid *id)
{
	for (unsigned i = 0; i < LAYERS && layers[i].id; i++) {
		struct uuid its = an_id(layers[i].id);
		if (uuid_equal(&its, id))
			return &layers[i];
	}
	return NULL;
}

/* A layer that nobody promised: the one whose seal was cut off. A fill_seal flushes first, a seal does not. */
static void check_new_layer(struct life *l, const struct replica_layer *found, bool of_top)
{
	struct model *m = l->m;
	struct uuid id = an_id(m->id);
	enum verb verb = of_top || !m->join ? VERB_SEAL : VERB_FILL_SEAL;
	if (m->verb != verb || !uuid_equal(&found->id, &id))
		differ(l, "a layer %s that was never sealed", found->name);
	if (of_top)
		return;
	uint8_t *data = read_of(l, m->id);
	struct face current_only = m->face;
	if (verb == VERB_FILL_SEAL)
		face_flushed(&current_only);
	expect_face(l, "the new layer's", data, &current_only, NULL);
	free(data);
}

static void check_layers(struct life *l, const struct layer *wanted, const struct replica_layer *found,
			 size_t count, bool of_top)
{
	size_t next = 0;
	for (size_t i = 0; i < count; i++) {
		const struct layer *layer = layer_find(wanted, &found[i].id);
		if (!layer) {
			check_new_layer(l, &found[i], of_top);
			continue;
		}
		if (l->m->verb == VERB_DELETE && wanted[next].id == l->m->id && layer != &wanted[next])
			next++;
		if (layer != &wanted[next++])
			differ(l, "layer %s is in another place", found[i].name);
		if (of_top)
			continue;
		uint8_t *data = read_of(l, layer->id);
		expect_values(l, "a layer's", data, layer->values);
		free(data);
	}
	if (l->m->verb == VERB_DELETE && next < LAYERS && wanted[next].id == l->m->id)
		next++;
	if (next < LAYERS && wanted[next].id)
		differ(l, "layer %u is lost", wanted[next].id);
}

static void check_all_layers(struct life *l, bool is_joining)
{
	struct model *m = l->m;
	struct replica_layer *found = mem_zalloc(2 * LAYERS * sizeof(*found));
	size_t count, filled;
	must(l, "layers", l->r->ops->layers(l->r, found, 2 * LAYERS, &count, &filled));
	bool ended = m->verb == VERB_JOIN_END && !is_joining;
	if (ended)
		filled = layer_count(m->layers);
	check_layers(l, m->layers, found, filled, false);
	bool dropped = m->verb == VERB_JOIN_BEGIN && m->join;
	if (m->join && !(dropped && count == filled))
		check_layers(l, m->top_layers, found + filled, count - filled, true);
	free(found);
}

/* ---- verbs ----------------------------------------------------------------------------------------------------------------- */

static struct replica_state *open_copy(struct life *l, uint64_t epoch)
{
	struct replica_state *s = mem_zalloc(sizeof(*s));
	struct uuid engine = an_id(ENGINE);
	must(l, "open", l->r->ops->open(l->r, epoch, &engine, s));
	return s;
}

static int create_copy(struct life *l)
{
	struct volume_spec spec = {.id = an_id(2), .name = "v", .size_bytes = BLOCKS * BLOCK};
	return l->r->ops->create(l->r, &spec);
}

static int do_verb(struct life *l)
{
	struct model *m = l->m;
	const struct replica_ops *o = l->r->ops;
	struct uuid id = an_id(m->id), head = an_id(m->head);
	char name[16];
	name_of(m->id, name);
	switch (m->verb) {
	case VERB_CREATE:
		return create_copy(l);
	case VERB_FLUSH:
		return o->flush(l->r);
	case VERB_INTENTS:
		return o->intents_set(l->r, &m->new_intents);
	case VERB_SEAL:
		return o->seal(l->r, m->new_epoch, &id, name);
	case VERB_DELETE:
		return o->layer_delete(l->r, &id);
	case VERB_REVERT:
		return o->revert(l->r, &id, &head);
	case VERB_JOIN_BEGIN:
		return o->join_begin(l->r, &id, BLOCKS * BLOCK);
	case VERB_FILL_SEAL:
		return o->fill_seal(l->r, &id, name);
	case VERB_JOIN_END:
		return o->join_end(l->r);
	default:
		return 0;
	}
}

static void layer_add(struct layer *layers, unsigned id, const struct face *f)
{
	struct layer *layer = &layers[layer_count(layers)];
	layer->id = id;
	for (unsigned b = 0; b < BLOCKS; b++)
		layer->values[b] = last(&f->cells[b]);
}

static void layer_drop(struct layer *layers, unsigned id)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < LAYERS; i++) {
		if (layers[i].id != id)
			layers[kept++] = layers[i];
	}
	while (kept < LAYERS)
		layers[kept++] = (struct layer){0};
}

static void reverted(struct model *m)
{
	unsigned keep = 0;
	while (m->layers[keep].id != m->id)
		keep++;
	face_set(&m->face, m->layers[keep].values, 0);
	for (unsigned i = keep + 1; i < LAYERS; i++)
		m->layers[i] = (struct layer){0};
}

static uint32_t over(uint32_t above, uint32_t below)
{
	return above == UNSAID ? below : above;
}

static void join_ended(struct model *m)
{
	struct layer *tops = m->top_layers;
	for (unsigned i = 0, count = layer_count(m->layers); i < LAYERS && tops[i].id; i++) {
		m->layers[count + i].id = tops[i].id;
		for (unsigned b = 0; b < BLOCKS; b++)
			m->layers[count + i].values[b] = over(tops[i].values[b], last(&m->face.cells[b]));
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		cell_set(&m->face.cells[b], over(last(&m->top.cells[b]), last(&m->face.cells[b])));
	memset(tops, 0, sizeof(m->top_layers));
	regions_unite(&m->intents, &m->left);
	m->left = (struct replica_regions){{0}};
	m->join = 0;
	m->fill_begun = m->intents_exact = false;
}

/* The verb was answered with 0. All that change more than data end with a flush. */
static void verb_done(struct model *m)
{
	if (m->verb != VERB_DATA && m->verb != VERB_FILL && m->verb != VERB_OPEN)
		all_flushed(m);
	switch (m->verb) {
	case VERB_OPEN:
		m->epoch = m->new_epoch;
		break;
	case VERB_CREATE:
		m->exists = m->intents_exact = true;
		break;
	case VERB_INTENTS:
		m->intents = m->new_intents;
		m->intents_exact = !m->join;
		break;
	case VERB_SEAL:
		m->epoch = m->new_epoch;
		layer_add(m->join ? m->top_layers : m->layers, m->id, writable(m));
		break;
	case VERB_DELETE:
		layer_drop(m->layers, m->id);
		layer_drop(m->top_layers, m->id);
		break;
	case VERB_REVERT:
		reverted(m);
		break;
	case VERB_JOIN_BEGIN:
		m->join = m->id;
		regions_unite(&m->left, &m->intents);
		m->intents = (struct replica_regions){{0}};
		face_set(&m->top, NULL, UNSAID);
		memset(m->top_layers, 0, sizeof(m->top_layers));
		break;
	case VERB_FILL:
		m->fill_begun = true;
		break;
	case VERB_FILL_SEAL:
		layer_add(m->layers, m->id, &m->face);
		m->left = (struct replica_regions){{0}};
		break;
	case VERB_JOIN_END:
		join_ended(m);
		break;
	default:
		break;
	}
	m->verb = VERB_NONE;
}

/* ---- after a crash --------------------------------------------------------------------------------------------------------- */

static void pool_up(struct life *l)
{
	struct pool_format_spec spec = {.id = an_id(1), .name = "p"};
	struct uuid boot_id = an_id(l->power_cut ? 4 : 3), volume_id = an_id(2);
	struct rt_disk *disk;
	must(l, "disk", rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	must(l, "format", pool_format(disk, &spec, false));
	must(l, "pool_open", pool_open(disk, NULL, &l->pool));
	l->door = replica_door_new(l->pool, &boot_id);
	l->r = replica_local_new(l->door, &volume_id);
}

static void pool_down(struct life *l)
{
	l->r->ops->close(l->r);
	replica_door_free(l->door);
	must(l, "pool_close", pool_close(l->pool));
}

static void problem(void *ctx, const struct pool_problem *p)
{
	differ(ctx, "pool_check: %s", p->text);
}

static void check_pool(struct life *l)
{
	struct pool_check_result result;
	must(l, "pool_check", pool_check(l->pool, problem, l, &result));
}

/* V4: nobody older than what was promised. */
static void check_fence(struct life *l)
{
	struct replica_state *s = mem_zalloc(sizeof(*s));
	struct uuid engine = an_id(ENGINE);
	if (l->m->exists && l->m->epoch > 1 &&
	    l->r->ops->open(l->r, l->m->epoch - 1, &engine, s) != OXE_FENCED)
		differ(l, "an older engine got in (V4)");
	free(s);
}

/* Brings a joining copy to its end: what its new head says is over what was filled. */
static void join_to_the_end(struct life *l, const struct face *top, const struct face *below)
{
	struct uuid id = an_id(l->m->join);
	char name[16];
	name_of(l->m->join, name);
	must(l, "fill_seal", l->r->ops->fill_seal(l->r, &id, name));
	int err = l->r->ops->join_end(l->r);
	if (err == OXE_INVAL && layer_find(l->m->layers, &id))
		return; /* it had been filled further */
	must(l, "join_end", err);
	uint8_t *data = read_of(l, 0);
	expect_face(l, "joined", data, top, below);
	free(data);
}

static void check_content(struct life *l, bool is_joining)
{
	struct model *m = l->m;
	uint8_t *data = read_of(l, 0);
	if (m->verb == VERB_JOIN_END && !is_joining)
		expect_face(l, "joined", data, &m->top, &m->face);
	else
		expect_face(l, "head", data, &m->face, NULL);
	free(data);
}

/* A revert may have happened. */
static bool has_reverted(const struct life *l)
{
	struct volume_info info;
	struct uuid volume = an_id(2), head = an_id(l->m->head);
	return l->m->verb == VERB_REVERT && volume_get_any(l->pool, &volume, &info) == 0 &&
	       uuid_equal(&info.head_id, &head);
}

static void check_found(struct life *l, const struct replica_state *s)
{
	struct model *m = l->m;
	check_state(l, s);
	if (!s->exists) {
		must(l, "create", create_copy(l));
		return;
	}
	if (has_reverted(l))
		verb_done(m);
	check_all_layers(l, s->is_joining);
	check_content(l, s->is_joining);
	/* Again: it is then as if it had happened once. */
	struct face top = m->top, below = m->face;
	bool is_new = m->verb == VERB_JOIN_BEGIN;
	must(l, "the verb again", do_verb(l));
	if (m->verb == VERB_FILL || m->verb == VERB_DATA)
		m->verb = VERB_NONE;
	unsigned join = is_new ? m->id : m->verb == VERB_JOIN_END ? 0 : m->join;
	if (is_new)
		face_set(&top, NULL, UNSAID);
	m->join = join;
	if (join)
		join_to_the_end(l, &top, &below);
}

static void crash_main(void *arg)
{
	struct life *l = arg;
	pool_up(l);
	check_pool(l);
	check_fence(l);
	uint64_t above = u64_max(l->m->epoch, l->m->new_epoch) + 1;
	struct replica_state *s = open_copy(l, above);
	check_found(l, s);
	free(s);
	check_pool(l);
	pool_down(l);
	l->done = true;
}

static struct sim_disk *fork_disk(struct life *l, struct sim_node *node, const struct sim_frozen *frozen)
{
	uint8_t fates[1024];
	if (!l->power_cut)
		return sim_disk_fork_kill(node, DISK, frozen);
	CHECK(sim_frozen_unflushed(frozen) <= sizeof(fates));
	/* All lost, or one in this many. */
	uint64_t one_in = (uint64_t[]){1, 2, 4, 8}[prng_below(&l->rng, 4)];
	for (size_t i = 0; i < sim_frozen_unflushed(frozen); i++)
		fates[i] = !prng_one_in(&l->rng, one_in)	   ? SIM_KEPT
			   : one_in > 1 && prng_one_in(&l->rng, 4) ? SIM_TORN
								   : SIM_LOST;
	return sim_disk_fork_power_cut(node, DISK, frozen, fates);
}

static void crash_try(struct life *outer, struct sim_disk *disk)
{
	struct model m = *outer->m;
	struct life l = {.m = &m,
			 .seed = outer->seed,
			 .crashes = ++outer->crashes,
			 .power_cut = prng_one_in(&outer->rng, 2)};
	prng_seed(&l.rng, prng_u64(&outer->rng));
	l.sim = sim_new(outer->seed * 1000 + outer->crashes);
	struct sim_node *node = sim_node_new(l.sim, "after");
	struct sim_frozen *frozen = sim_disk_freeze(disk);
	fork_disk(&l, node, frozen);
	sim_frozen_free(frozen);
	fiber_spawn_big(sim_node_start(node), "after", crash_main, &l);
	enum sim_end end = sim_run(l.sim, &l.done, LIMIT_NS);
	if (end != SIM_DONE)
		differ(&l, "it did not come to an end");
	sim_node_stop(node);
	sim_free(l.sim);
	total_crashes++;
}

static void watch(void *ctx, struct sim_disk *disk)
{
	struct life *l = ctx;
	bool rare = l->m->verb > VERB_INTENTS; /* and has more to lose */
	if (l->r && prng_one_in(&l->rng, rare ? DIE_ONE_IN_RARE : DIE_ONE_IN))
		crash_try(l, disk);
}

/* ---- the life -------------------------------------------------------------------------------------------------------------- */

static uint64_t below(struct life *l, uint64_t bound)
{
	return prng_below(sim_prng(l->sim), bound);
}

struct one_write {
	struct life *l;
	struct rt_group *group;
	struct face *face;
	unsigned first, count;
	uint32_t value;
	bool fill;
	unsigned how;
};

/* Until the next flush, every value counts. */
static bool has_room(const struct one_write *w)
{
	for (unsigned b = w->first; b < w->first + w->count; b++) {
		if (w->face->cells[b].count == HISTORY)
			return false;
	}
	return true;
}

static void write_begin(struct one_write *w)
{
	for (unsigned b = w->first; b < w->first + w->count; b++) {
		struct cell *c = &w->face->cells[b];
		c->values[c->count++] = w->value;
		c->pending = true;
	}
}

static void write_main(void *arg)
{
	struct one_write *w = arg;
	struct replica *r = w->l->r;
	uint64_t at = w->first * BLOCK, len_bytes = w->count * BLOCK;
	uint8_t *data = aligned_alloc(BLOCK, len_bytes);
	int err;
	for (unsigned i = 0; i < w->count; i++)
		fill_block(data + i * BLOCK, w->first + i, w->value);
	if (w->fill)
		err = r->ops->fill(r, w->value ? data : NULL, at, len_bytes);
	else if (w->value)
		err = r->ops->write(r, data, at, len_bytes, 0);
	else
		err = w->how ? r->ops->zero(r, at, len_bytes, w->how == 1 ? VOL_NO_HOLE : 0)
			     : r->ops->trim(r, at, len_bytes);
	must(w->l, "write", err);
	free(data);
	for (unsigned b = w->first; b < w->first + w->count; b++)
		w->face->cells[b].pending = false;
	group_done(w->group);
}

/* Several at once, that do not overlap. */
static void step_write(struct life *l, bool fill)
{
	struct model *m = l->m;
	struct one_write writes[WRITES];
	struct rt_group group;
	unsigned share = BLOCKS / WRITES;
	bool any = false;
	m->verb = fill ? VERB_FILL : VERB_DATA;
	group_init(&group);
	for (unsigned i = 0; i < WRITES; i++) {
		unsigned first = (unsigned)below(l, share), count = 1 + (unsigned)below(l, share - first);
		count = below(l, 3) ? 1 : count;
		writes[i] = (struct one_write){.l = l,
					       .group = &group,
					       .face = fill ? &m->face : writable(m),
					       .first = i * share + first,
					       .count = count,
					       .value = below(l, 3) ? ++m->version : 0,
					       .fill = fill,
					       .how = (unsigned)below(l, 3)};
		if (below(l, 2) || !has_room(&writes[i]))
			continue;
		any = true;
		write_begin(&writes[i]);
		group_add(&group, 1);
		fiber_spawn(rt_current(), "write", write_main, &writes[i]);
	}
	group_wait(&group);
	m->fill_begun |= fill && any;
	m->verb = VERB_NONE;
}

static void step(struct life *l, enum verb verb)
{
	l->m->verb = verb;
	must(l, "a verb", do_verb(l));
	verb_done(l->m);
}

static unsigned pick_layer(struct life *l, const struct layer *layers)
{
	unsigned count = layer_count(layers);
	return count ? layers[below(l, count)].id : 0;
}

static void step_delete(struct life *l)
{
	struct model *m = l->m;
	m->id = pick_layer(l, m->join && below(l, 2) ? m->top_layers : m->layers);
	if (m->id && m->id != m->join)
		step(l, VERB_DELETE);
}

static void step_seal(struct life *l)
{
	struct model *m = l->m;
	if (layer_count(m->layers) + layer_count(m->top_layers) >= LAYERS - 2)
		return;
	m->id = m->next_id++;
	m->new_epoch = m->epoch + below(l, 2);
	step(l, VERB_SEAL);
}

static void step_intents(struct life *l)
{
	struct model *m = l->m;
	m->new_intents = (struct replica_regions){{0}};
	for (unsigned i = (unsigned)below(l, 40); i > 0; i--)
		m->new_intents.bits[below(l, sizeof(m->new_intents.bits))] |= (uint8_t)(1u << below(l, 8));
	step(l, VERB_INTENTS);
}

static void step_reopen(struct life *l)
{
	struct model *m = l->m;
	struct uuid volume_id = an_id(2);
	m->verb = VERB_OPEN;
	m->new_epoch = m->epoch + below(l, 3);
	struct replica *older = l->r;
	l->r = replica_local_new(l->door, &volume_id);
	free(open_copy(l, m->new_epoch));
	if (m->join) { /* they can no longer be told apart */
		regions_unite(&m->left, &m->intents);
		m->intents = (struct replica_regions){{0}};
	}
	verb_done(m);
	older->ops->close(older);
}

/* A joining copy whose chain ends in the join layer is joined; else it is filled and sealed, in the end as that layer. */
static void step_joining(struct life *l)
{
	struct model *m = l->m;
	unsigned count = layer_count(m->layers);
	if (count && m->layers[count - 1].id == m->join) {
		step(l, VERB_JOIN_END);
	} else if (below(l, 3)) {
		step_write(l, true);
	} else if (count + layer_count(m->top_layers) < LAYERS - 2 || below(l, 2)) {
		m->id = below(l, 2) || count + layer_count(m->top_layers) >= LAYERS - 2 ? m->join
											: m->next_id++;
		step(l, VERB_FILL_SEAL);
	}
}

static void step_revert(struct life *l)
{
	struct model *m = l->m;
	m->id = pick_layer(l, m->layers);
	m->head = m->next_id++;
	if (m->id)
		step(l, VERB_REVERT);
}

static void step_join(struct life *l)
{
	l->m->id = l->m->next_id++;
	step(l, VERB_JOIN_BEGIN);
}

/* What lies below one of a new head is not there yet: what is read of that is not looked at, but it may be remembered. */
static void step_read(struct life *l)
{
	struct model *m = l->m;
	const struct layer *layers = m->join && below(l, 2) ? m->top_layers : m->layers;
	unsigned id = below(l, 2) ? pick_layer(l, layers) : 0;
	struct uuid uuid = an_id(id);
	uint8_t *data = read_of(l, id);
	if (!id)
		expect_face(l, "the head's", data, &m->face, NULL);
	else if (layers == m->layers)
		expect_values(l, "a layer's", data, layer_find(layers, &uuid)->values);
	free(data);
}

static void step_any(struct life *l)
{
	struct model *m = l->m;
	uint64_t pick = below(l, 100);
	if (pick < 35)
		step_write(l, false);
	else if (pick < 45)
		step(l, VERB_FLUSH);
	else if (pick < 55)
		step_intents(l);
	else if (pick < 62)
		step_seal(l);
	else if (pick < 68)
		step_delete(l);
	else if (pick < 73)
		step_reopen(l);
	else if (pick < 75)
		must(l, "checkpoint", pool_checkpoint(l->pool));
	else if (pick < 80)
		step_read(l);
	else if (m->join && pick < 98)
		step_joining(l);
	else if (pick < 90 || m->join)
		step_join(l);
	else if (pick < 93)
		step_revert(l);
}

static void life_main(void *arg)
{
	struct life *l = arg;
	struct model *m = l->m;
	pool_up(l);
	m->verb = VERB_OPEN;
	m->new_epoch = 1;
	free(open_copy(l, 1));
	verb_done(m);
	step(l, VERB_CREATE);
	for (unsigned i = 0; i < STEPS; i++)
		step_any(l);
	check_pool(l);
	pool_down(l);
	l->r = NULL;
	l->done = true;
}

static void run(uint64_t seed)
{
	struct model m = {.next_id = 1000};
	struct life l = {.m = &m, .seed = seed, .sim = sim_new(seed)};
	face_set(&m.face, NULL, 0);
	face_set(&m.top, NULL, UNSAID);
	prng_seed(&l.rng, seed);
	struct sim_node *node = sim_node_new(l.sim, "a");
	struct sim_disk *disk = sim_disk_new(node, DISK, DISK_BYTES, 512);
	sim_disk_watch(disk, watch, &l);
	fiber_spawn_big(sim_node_start(node), "life", life_main, &l);
	enum sim_end end = sim_run(l.sim, &l.done, LIMIT_NS);
	if (end != SIM_DONE)
		differ(&l, "it did not come to an end");
	sim_node_stop(node);
	sim_free(l.sim);
}

TEST(a_copy_is_what_it_promised_to_be_whenever_its_machine_dies)
{
	const char *only = getenv("OXBOW_SEED");
	for (uint64_t seed = only ? strtoull(only, NULL, 10) : 1;
	     seed <= (only ? strtoull(only, NULL, 10) : SEEDS); seed++)
		run(seed);
	printf("   %llu crashes\n", (unsigned long long)total_crashes);
}
