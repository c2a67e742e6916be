/*
 * mirror_fill.c: a joining copy gets what is below its new head (V8), layer by layer, the lowest first.
 *
 *     while the newest layer that both have is not the join layer:
 *         next = the layer above it, in the chain of a member
 *         the old head of the joining copy becomes equal to it: where they may differ is compared, what differs is copied
 *         it is sealed as that layer, which flushes it
 *
 * Where they may differ: if the copy left the view at that very layer, the regions it missed (intents at its departure, and its own).
 * All of it, in each layer, if the view doubts the copy. Else wherever the layer or the copy's old head says something that the layer below does not. Both are derived each time from what the
 * disks say, so that a filling which is interrupted goes on from the layer it had reached, and compares one layer again.
 *
 * What is compared: the blocks that the copy's old head says something of. Of others it has nothing of its own, and they are just copied.
 *
 * The member it is copied from may change at any time; its layers are the same in each. A layer that is deleted meanwhile is not there any
 * more, and the one above it has what it had.
 */
#include "base/bytes.h"
#include "base/log.h"
#include "data/engine/mirror_impl.h"

#define EXTENTS_MAX 128

struct filling {
	struct mirror *m;
	struct copy *to, *from;
	uint64_t to_session, from_session;
	struct replica_layer *there, *here; /* the member's; and the copy's, below its new head */
	size_t there_count, here_count;
	const struct replica_layer *base, *next; /* base NULL: they have none in common */
	uint64_t renames;			 /* of the mirror, before these lists were made */
	uint32_t could_not; /* members, by bit, that cannot read what is being filled (V10) */
	uint8_t *data;
	struct work work;
};

/* ---- who says what --------------------------------------------------------------------------------------------------------- */

enum { FILL_OK, FILL_AGAIN, FILL_OVER };

static bool to_is_joining(const struct filling *f)
{
	struct view_replica *e = mirror_copy_entry(f->to);
	return !mirror_over(f->m) && !f->to->is_forgotten && e && e->role == VIEW_JOINING &&
	       f->to->session == MIRROR_OPEN && f->to->session_number == f->to_session && !f->to->failed;
}

/* What the joining copy answered. */
static int to_said(struct filling *f, int err)
{
	if (!mirror_copy_answered(f->to, f->to_session, err))
		return FILL_OVER;
	if (err)
		mirror_copy_fail(f->to, err, "it could not be filled");
	return err ? FILL_OVER : FILL_OK;
}

/* What the member answered: another may do better, or the layer is gone. */
static int from_said(struct filling *f, int err)
{
	if (mirror_copy_answered(f->from, f->from_session, err) && err)
		f->from->last_err = err;
	if (err == OXE_IO || err == OXE_CORRUPT)
		f->could_not |= mirror_copy_bit(f->from);
	return err ? FILL_AGAIN : FILL_OK;
}

/* ---- which layer is next ----------------------------------------------------------------------------------------------------- */

static size_t index_there(const struct filling *f, const struct uuid *id)
{
	size_t i = 0;
	while (i < f->there_count && !uuid_equal(&f->there[i].id, id))
		i++;
	return i;
}

static int layers_look(struct filling *f)
{
	struct replica *from = f->from->replica, *to = f->to->replica;
	size_t all = 0;
	f->renames = f->m->renames;
	int said = from_said(f, from->ops->layers(from, f->there, REPLICA_LAYERS_MAX, &f->there_count, NULL));
	if (said != FILL_OK)
		return said;
	return to_said(f, to->ops->layers(to, f->here, REPLICA_LAYERS_MAX, &all, &f->here_count));
}

/* 1: none, the chain is whole. */
static int layer_choose(struct filling *f, const struct uuid *join_id)
{
	size_t first = 0;
	f->base = NULL;
	for (size_t i = 0; i < f->here_count; i++) {
		size_t at = index_there(f, &f->here[i].id);
		if (at < f->there_count) {
			f->base = &f->there[at];
			first = at + 1;
		}
	}
	if (f->base && uuid_equal(&f->base->id, join_id))
		return 1;
	f->next = first < f->there_count ? &f->there[first] : NULL;
	f->to->fill_todo_bytes = f->to->fill_done_bytes;
	for (size_t i = first; i < f->there_count; i++)
		f->to->fill_todo_bytes += f->there[i].size_bytes;
	return f->next ? 0 : OXE_NOENT;
}

/* ---- a window ------------------------------------------------------------------------------------------------------------------ */

struct fill_window {
	uint64_t offset_bytes, len_bytes;
	bool touched[WINDOW_BLOCKS];
	bool has_any;		 /* the copy says something of a block that is touched, */
	bool has[WINDOW_BLOCKS]; /* of this one */
	uint64_t copied_bytes;
};

static int run_copy(struct filling *f, struct fill_window *w, uint64_t first, uint64_t count)
{
	uint64_t at = first * REPLICA_CHECKSUM_BYTES,
		 len_bytes = u64_min(count * REPLICA_CHECKSUM_BYTES, w->len_bytes - at);
	struct replica *from = f->from->replica, *to = f->to->replica;
	int said = from_said(
		f, from->ops->layer_read(from, &f->next->id, f->data, w->offset_bytes + at, len_bytes));
	if (said != FILL_OK)
		return said;
	bool zero = bytes_are_zero(f->data, len_bytes);
	if (!zero || !MUTANT(213))
		said = to_said(f, to->ops->fill(to, zero ? NULL : f->data, w->offset_bytes + at, len_bytes));
	f->to->filled_bytes += len_bytes;
	w->copied_bytes += len_bytes;
	return said;
}

/* Checksums of both: what the copy has, and has right, is not touched any more. */
static int window_compare(struct filling *f, struct fill_window *w)
{
	uint32_t theirs[WINDOW_BLOCKS], ours[WINDOW_BLOCKS];
	struct replica *from = f->from->replica, *to = f->to->replica;
	uint64_t count = u64_div_up(w->len_bytes, REPLICA_CHECKSUM_BYTES);
	int said = from_said(
		f, from->ops->layer_checksums(from, &f->next->id, w->offset_bytes, w->len_bytes, theirs));
	int err = said ? 0 : to->ops->layer_checksums(to, NULL, w->offset_bytes, w->len_bytes, ours);
	bool unreadable = err == OXE_IO || err == OXE_CORRUPT; /* then it gets all of it */
	if (said == FILL_OK)
		said = to_said(f, unreadable && !MUTANT(228) ? 0 : err);
	f->to->compared_bytes += w->len_bytes;
	for (uint64_t b = 0; said == FILL_OK && b < count; b++)
		w->touched[b] &= !w->has[b] || unreadable || theirs[b] != ours[b];
	return said;
}

/* In runs. */
static int window_even(struct filling *f, struct fill_window *w)
{
	uint64_t count = u64_div_up(w->len_bytes, REPLICA_CHECKSUM_BYTES);
	int said = w->has_any ? window_compare(f, w) : FILL_OK;
	for (uint64_t b = 0, run = 0; said == FILL_OK && b <= count; b++) {
		bool differs = b < count && w->touched[b];
		if (!differs && run)
			said = run_copy(f, w, b - run, run);
		run = differs ? run + 1 : 0;
	}
	return said;
}

/* ---- which windows ------------------------------------------------------------------------------------------------------------- */

static void extent_note(const struct fill_window *w, bool *set, const struct vol_extent *e, bool since)
{
	if (since ? !(e->flags & VOL_EXTENT_CHANGED) : (e->flags & VOL_EXTENT_HOLE) != 0)
		return;
	uint64_t first = (e->offset_bytes - w->offset_bytes) / REPLICA_CHECKSUM_BYTES;
	uint64_t last = (e->offset_bytes + e->len_bytes - w->offset_bytes - 1) / REPLICA_CHECKSUM_BYTES;
	for (uint64_t b = first; b <= last; b++)
		set[b] = true;
}

static int touched_by(struct copy *c, const struct uuid *layer_id, const struct replica_layer *base,
		      const struct fill_window *w, bool *set)
{
	struct vol_extent extents[EXTENTS_MAX];
	uint64_t at = w->offset_bytes, end = w->offset_bytes + w->len_bytes;
	while (at < end) {
		size_t count = 0;
		int err = c->replica->ops->layer_extents(c->replica, layer_id, base ? &base->id : NULL, at,
							 end - at, extents, EXTENTS_MAX, &count);
		if (err)
			return err;
		for (size_t i = 0; i < count; i++) {
			extent_note(w, set, &extents[i], base != NULL);
			at = extents[i].offset_bytes + extents[i].len_bytes;
		}
		if (count == 0)
			return OXE_PROTO;
	}
	return 0;
}

/* Either side says something that the layer below does not. */
static int window_touched(struct filling *f, struct fill_window *w, bool *any)
{
	memset(w->touched, 0, sizeof(w->touched));
	memset(w->has, 0, sizeof(w->has));
	int said = from_said(f, touched_by(f->from, &f->next->id, f->base, w, w->touched));
	if (said == FILL_OK && !MUTANT(217))
		said = to_said(f, touched_by(f->to, NULL, f->base, w, w->has));
	*any = w->has_any = false;
	for (uint64_t b = 0; b < WINDOW_BLOCKS; b++) {
		w->has_any |= w->has[b];
		w->touched[b] |= w->has[b];
		*any |= w->touched[b];
	}
	return said;
}

static int window_missed(struct fill_window *w, const struct view_replica *e, bool *any)
{
	uint64_t shift = e->missed_shift, end = w->offset_bytes + w->len_bytes;
	*any = false;
	for (uint64_t r = w->offset_bytes >> shift; r <= (end - 1) >> shift && r < REPLICA_REGIONS; r++)
		*any |= regions_has(&e->missed, (uint32_t)r);
	w->has_any = *any;
	memset(w->touched, *any, sizeof(w->touched));
	memset(w->has, *any, sizeof(w->has));
	return FILL_OK;
}

/* Nothing that is looked at costs nothing: only what is compared or copied is work. */
static int window_fill(struct filling *f, struct fill_window *w)
{
	struct view_replica *e = mirror_copy_entry(f->to);
	bool any = false;
	if (!to_is_joining(f))
		return FILL_OVER;
	mirror_work_begin(f->m, &f->work);
	w->copied_bytes = 0;
	bool by_regions = uuid_equal(&e->seal_id, &f->next->id) || view_replica_is_doubted(e);
	int said = by_regions ? window_missed(w, e, &any) : window_touched(f, w, &any);
	if (said == FILL_OK && any)
		said = window_even(f, w);
	f->to->fill_done_bytes += said == FILL_OK ? w->len_bytes : 0;
	mirror_work_end(f->m, &f->work, w->copied_bytes, f->m->options.fill_bytes_per_s);
	return said;
}

/* V10: what one member cannot read another may. Its layers are the same. */
static bool another_can(struct filling *f)
{
	struct copy *c = f->could_not && !MUTANT(229) ? mirror_copy_to_read(f->m, f->could_not) : NULL;
	if (!c)
		return false;
	f->from = c;
	f->from_session = c->session_number;
	return true;
}

static int layer_fill(struct filling *f)
{
	struct replica *to = f->to->replica;
	struct fill_window w;
	int said = to_said(f, to->ops->fill_grow(to, f->next->size_bytes));
	for (w.offset_bytes = 0; said == FILL_OK && w.offset_bytes < f->next->size_bytes;
	     w.offset_bytes += WINDOW_BYTES) {
		w.len_bytes = u64_min(WINDOW_BYTES, f->next->size_bytes - w.offset_bytes);
		f->could_not = 0;
		do
			said = window_fill(f, &w);
		while (said == FILL_AGAIN && another_can(f));
	}
	if (said == FILL_OK && !to_is_joining(f))
		return FILL_OVER;
	return said == FILL_OK ? to_said(f, to->ops->fill_seal(to, &f->next->id, f->next->name)) : said;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------ */

/* Layers of the copy that no member has any more; a new one may have the name of such a one. */
static int stray_delete(struct replica *to, const struct uuid *id, bool *busy)
{
	int err = to->ops->layer_delete(to, id);
	*busy |= err == OXE_BUSY; /* somebody reads it: the next round sees */
	return err == OXE_BUSY ? 0 : err;
}

static int strays_delete(struct filling *f)
{
	struct replica *to = f->to->replica;
	int said = FILL_OK;
	bool suspect = false, busy = false;
	for (size_t i = 0; said == FILL_OK && i < f->here_count; i++) {
		suspect |= uuid_equal(&f->here[i].id, &f->to->suspect_id);
		if (suspect || index_there(f, &f->here[i].id) == f->there_count)
			said = to_said(f, stray_delete(to, &f->here[i].id, &busy));
	}
	if (said == FILL_OK && suspect) {
		f->to->suspect_id = busy ? f->to->suspect_id : (struct uuid){0};
		said = FILL_AGAIN; /* it has fewer layers now */
	}
	return said;
}

/* A layer that the members have, and the copy not, although it has one above it: a member that was put out may have deleted a snapshot for
 * the engine before, which nobody was told of. What is above is filled anew from there. What the view says of where the copy may differ
 * is of its head as it was, and has to be forgotten first. */
static int hole_look(struct filling *f)
{
	size_t have = 0; /* layers of the member's chain, from the root on, that the copy has */
	struct view_replica *e = mirror_copy_entry(f->to);
	for (size_t i = 0; i < f->here_count; i++) {
		size_t at = index_there(f, &f->here[i].id);
		if (at == f->there_count || MUTANT(226))
			continue;
		if (at == have) {
			have++;
			continue;
		}
		f->to->suspect_id = f->here[i].id;
		if (!uuid_is_nil(&e->seal_id))
			mirror_copy_fail(f->to, OXE_NOENT, "it lacks a layer below others that it has");
		return FILL_AGAIN;
	}
	return FILL_OK;
}

static bool name_differs(const struct filling *f, size_t here)
{
	size_t at = index_there(f, &f->here[here].id);
	return at < f->there_count && !f->here[here].is_origins &&
	       strcmp(f->there[at].name, f->here[here].name) != 0;
}

/* What was renamed while the copy was away. All go out of each other's way first. */
static int names_even(struct filling *f, bool out_of_the_way)
{
	struct replica *to = f->to->replica;
	int said = FILL_OK;
	for (size_t i = 0; said == FILL_OK && i < f->here_count && !MUTANT(256); i++) {
		char name[POOL_NAME_MAX + 1];
		if (!name_differs(f, i))
			continue;
		mirror_seal_name(&f->here[i].id, name);
		const char *wanted = f->there[index_there(f, &f->here[i].id)].name;
		said = to_said(f, to->ops->layer_rename(to, &f->here[i].id, out_of_the_way ? name : wanted));
	}
	return said;
}

static int one_layer(struct filling *f)
{
	struct uuid join_id = mirror_copy_entry(f->to)->join_id;
	f->from = mirror_copy_to_read(f->m, 0);
	if (!f->from)
		return FILL_AGAIN;
	f->from_session = f->from->session_number;
	int said = layers_look(f);
	if (said != FILL_OK)
		return said;
	said = strays_delete(f);
	if (said == FILL_OK)
		said = hole_look(f);
	if (said == FILL_OK)
		said = names_even(f, true);
	if (said == FILL_OK)
		said = names_even(f, false);
	if (said != FILL_OK)
		return said;
	int none = layer_choose(f, &join_id);
	if (none < 0)
		return FILL_AGAIN;
	if (!none && !(MUTANT(240) && f->next == &f->there[f->there_count - 1]))
		return layer_fill(f);
	if (f->renames != f->m->renames)
		return FILL_OK; /* the lists may be of before it: once more */
	f->to->has_chain = true;
	return FILL_OVER;
}

static void fill_fiber(void *arg)
{
	struct filling *f = arg;
	struct mirror *m = f->m;
	uint32_t tries = 0;
	while (to_is_joining(f)) {
		int said = one_layer(f);
		if (said == FILL_OVER)
			break;
		tries = said == FILL_AGAIN ? tries + 1 : 0;
		if (tries)
			mirror_pause(m, rt_now_ns(m->rt) + mirror_backoff_ns(m, tries));
	}
	LOG_INFO("copy.filled",
		 f->to->has_chain ? "a joining copy has its layers"
				  : "a joining copy could not be filled further",
		 F_UUID("volume", &m->options.volume_id), F_UUID("pool", &f->to->pool_id),
		 F_U64("copied_bytes", f->to->filled_bytes), F_U64("compared_bytes", f->to->compared_bytes));
	f->to->is_filling = false;
	mirror_copy_release(f->to);
	rt_buf_put(m->buffers, f->data, WINDOW_BYTES);
	free(f->there);
	free(f->here);
	free(f);
	mirror_kick(m);
	group_done(&m->fibers);
}

static void fill_begin(void *arg)
{
	struct filling *f = arg;
	f->there = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*f->there));
	f->here = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*f->here));
	f->data = rt_buf_get(f->m->buffers, WINDOW_BYTES);
	fill_fiber(f);
}

static uint32_t fillings(const struct mirror *m)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		count += m->copies[i]->is_filling;
	return count;
}

void mirror_fill_start(struct mirror *m)
{
	for (uint32_t i = 0; m->serves && i < m->view.replica_count; i++) {
		struct copy *c = m->copies[i];
		if (fillings(m) >= m->options.fills_max)
			break;
		if (m->view.replicas[i].role != VIEW_JOINING || c->is_filling || c->has_chain || c->failed ||
		    c->session != MIRROR_OPEN)
			continue;
		struct filling *f = mem_zalloc(sizeof(*f));
		*f = (struct filling){.m = m, .to = mirror_copy_hold(c), .to_session = c->session_number};
		c->is_filling = true;
		c->filled_bytes = c->compared_bytes = c->fill_done_bytes = c->fill_todo_bytes = 0;
		group_add(&m->fibers, 1);
		fiber_spawn(m->rt, "mirror-fill", fill_begin, f);
	}
}
