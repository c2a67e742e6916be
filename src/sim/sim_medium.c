/* sim_medium.c: see sim_medium.h. */
#include "sim/sim_medium.h"

/* ---- writes ---------------------------------------------------------------------------------------------------------- */

/* The sectors of page `index` inside [offset, offset + len). */
static uint8_t sectors_in(uint64_t index, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t start = index * SIM_PAGE_BYTES;
	uint64_t low = u64_max(offset_bytes, start) - start;
	uint64_t high = u64_min(offset_bytes + len_bytes, start + SIM_PAGE_BYTES) - start;
	unsigned first = (unsigned)(low / SIM_SECTOR_BYTES), end = (unsigned)(high / SIM_SECTOR_BYTES);
	return (uint8_t)((0xffu << first) & (0xffu >> (SIM_PAGE_SECTORS - end)));
}

static struct sim_write *write_alloc(uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t first = offset_bytes / SIM_PAGE_BYTES;
	uint64_t count = u64_div_up(offset_bytes + len_bytes, SIM_PAGE_BYTES) - first;
	struct sim_write *w = mem_zalloc(sizeof(*w) + count * sizeof(w->pieces[0]));
	w->refs = 1;
	w->offset_bytes = offset_bytes;
	w->len_bytes = len_bytes;
	w->first_page = first;
	w->piece_count = count;
	return w;
}

/* The part of `data` that falls into piece i. */
static struct sim_page *piece_page(const struct sim_write *w, const uint8_t *data, size_t i)
{
	struct sim_page *page = sim_page_new();
	uint64_t start = (w->first_page + i) * SIM_PAGE_BYTES;
	uint64_t low = u64_max(w->offset_bytes, start);
	uint64_t high = u64_min(w->offset_bytes + w->len_bytes, start + SIM_PAGE_BYTES);
	memcpy(page->data + (low - start), data + (low - w->offset_bytes), high - low);
	return page;
}

struct sim_write *write_new(const void *data, struct sim_page *page, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	struct sim_write *w = write_alloc(offset_bytes, len_bytes);
	for (size_t i = 0; i < w->piece_count; i++) {
		w->pieces[i].sectors = sectors_in(w->first_page + i, offset_bytes, len_bytes);
		w->pieces[i].page = data ? piece_page(w, data, i) : sim_page_ref(page);
	}
	if (!data)
		sim_page_unref(page);
	return w;
}

/* The same write with other sectors of each piece, to be filled in by the caller. */
static struct sim_write *write_clone(const struct sim_write *from)
{
	struct sim_write *w = write_alloc(from->offset_bytes, from->len_bytes);
	for (size_t i = 0; i < w->piece_count; i++)
		w->pieces[i].page = sim_page_ref(from->pieces[i].page);
	return w;
}

void write_unref(struct sim_write *w)
{
	if (!w || --w->refs > 0)
		return;
	for (size_t i = 0; i < w->piece_count; i++)
		sim_page_unref(w->pieces[i].page);
	free(w);
}

static void write_apply(const struct sim_write *w, struct sim_image *image)
{
	for (size_t i = 0; i < w->piece_count; i++)
		image_put(image, w->first_page + i, w->pieces[i].page, w->pieces[i].sectors);
}

/* A tear leaves the start of the write, its end, or any of its units. */
static struct sim_write *write_tear(const struct sim_write *from, uint32_t torn_bytes, struct prng *rng)
{
	struct sim_write *w = write_clone(from);
	uint64_t units = from->len_bytes / torn_bytes, shape = prng_below(rng, 3);
	uint64_t cut = prng_below(rng, units + 1);
	for (size_t i = 0; i < w->piece_count; i++) {
		for (unsigned s = 0; s < SIM_PAGE_SECTORS; s++) {
			uint64_t at = (w->first_page + i) * SIM_PAGE_BYTES + s * SIM_SECTOR_BYTES;
			uint64_t unit = (at - from->offset_bytes) / torn_bytes;
			bool starts = at == from->offset_bytes || at % torn_bytes == 0;
			bool stays = shape == 0 ? unit < cut : shape == 1 ? unit >= cut : false;
			if (shape == 2)
				stays = starts ? prng_one_in(rng, 2)
					       : s > 0 && (w->pieces[i].sectors & (1u << (s - 1)));
			if (stays && (from->pieces[i].sectors & (1u << s)))
				w->pieces[i].sectors |= (uint8_t)(1u << s);
		}
	}
	return w;
}

/* ---- lists of writes ---------------------------------------------------------------------------------------------------- */

static void list_push(struct write_list *l, struct sim_write *w)
{
	if (l->count == l->capacity) {
		l->capacity = 2 * l->capacity + 8;
		l->items = mem_realloc(l->items, l->capacity * sizeof(*l->items));
	}
	l->items[l->count++] = w;
}

static void list_remove(struct write_list *l, size_t index)
{
	l->count--;
	memmove(l->items + index, l->items + index + 1, (l->count - index) * sizeof(*l->items));
}

static void list_clear(struct write_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		write_unref(l->items[i]);
	free(l->items);
	*l = (struct write_list){0};
}

static void list_copy(struct write_list *to, const struct write_list *from)
{
	*to = (struct write_list){0};
	for (size_t i = 0; i < from->count; i++) {
		from->items[i]->refs++;
		list_push(to, from->items[i]);
	}
}

/* A write in flight changes when it lands, so a copy of the medium has its own. */
static void flying_copy(struct write_list *to, const struct write_list *from)
{
	*to = (struct write_list){0};
	for (size_t i = 0; i < from->count; i++) {
		struct sim_write *w = write_clone(from->items[i]);
		for (size_t p = 0; p < w->piece_count; p++)
			w->pieces[p].sectors = from->items[i]->pieces[p].sectors;
		list_push(to, w);
	}
}

/* ---- the medium ------------------------------------------------------------------------------------------------------------ */

void medium_init(struct sim_medium *m, uint64_t size_bytes, uint64_t fill_seed)
{
	*m = (struct sim_medium){.torn_bytes = SIM_SECTOR_BYTES};
	image_init(&m->durable, size_bytes, fill_seed);
	image_init(&m->current, size_bytes, fill_seed);
}

void medium_copy(struct sim_medium *to, const struct sim_medium *from)
{
	*to = *from;
	image_copy(&to->durable, &from->durable);
	image_copy(&to->current, &from->current);
	list_copy(&to->done, &from->done);
	flying_copy(&to->flying, &from->flying);
	size_t bytes = from->unreadable_count * sizeof(*from->unreadable);
	to->unreadable = bytes ? memcpy(mem_alloc(bytes), from->unreadable, bytes) : NULL;
}

void medium_fini(struct sim_medium *m)
{
	image_fini(&m->durable);
	image_fini(&m->current);
	list_clear(&m->done);
	list_clear(&m->flying);
	free(m->unreadable);
}

void medium_fly(struct sim_medium *m, struct sim_write *w)
{
	w->refs++;
	list_push(&m->flying, w);
}

void medium_drop(struct sim_medium *m, struct sim_write *w)
{
	for (size_t i = 0; i < m->flying.count; i++) {
		if (m->flying.items[i] == w) {
			list_remove(&m->flying, i);
			write_unref(w);
			return;
		}
	}
}

/* What stands first and is firm need not wait for anything. */
static void settle_firm(struct sim_medium *m)
{
	while (m->done.count > 0 && m->done.items[0]->firm) {
		write_apply(m->done.items[0], &m->durable);
		write_unref(m->done.items[0]);
		list_remove(&m->done, 0);
	}
}

/* Writing a range makes it readable again, page by page. */
static void unreadable_cut(struct sim_medium *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	for (size_t i = 0; i < m->unreadable_count;) {
		struct sim_range *r = &m->unreadable[i];
		bool covered = offset_bytes <= r->offset_bytes &&
			       r->offset_bytes + r->len_bytes <= offset_bytes + len_bytes;
		if (covered)
			*r = m->unreadable[--m->unreadable_count];
		else
			i++;
	}
}

void medium_land(struct sim_medium *m, struct sim_write *w, bool firm)
{
	w->refs++;
	medium_drop(m, w);
	write_apply(w, &m->current);
	unreadable_cut(m, w->offset_bytes, w->len_bytes);
	w->done_order = ++m->last_order;
	w->firm = firm;
	list_push(&m->done, w);
	settle_firm(m);
}

void medium_flush(struct sim_medium *m, uint64_t order)
{
	size_t kept = 0, i = 0;
	for (; i < m->done.count && m->done.items[i]->done_order <= order; i++) {
		write_apply(m->done.items[i], &m->durable);
		write_unref(m->done.items[i]);
	}
	for (; i < m->done.count; i++)
		m->done.items[kept++] = m->done.items[i];
	m->done.count = kept;
	settle_firm(m);
}

void medium_set_unreadable(struct sim_medium *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += SIM_SECTOR_BYTES) {
		size_t bytes = (m->unreadable_count + 1) * sizeof(*m->unreadable);
		m->unreadable = mem_realloc(m->unreadable, bytes);
		m->unreadable[m->unreadable_count++] =
			(struct sim_range){offset_bytes + at, SIM_SECTOR_BYTES};
	}
}

bool medium_is_readable(const struct sim_medium *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	for (size_t i = 0; i < m->unreadable_count; i++) {
		const struct sim_range *r = &m->unreadable[i];
		if (r->offset_bytes < offset_bytes + len_bytes &&
		    offset_bytes < r->offset_bytes + r->len_bytes)
			return false;
	}
	return true;
}

/* ---- crashes ------------------------------------------------------------------------------------------------------------------ */

static size_t soft_count(const struct sim_medium *m)
{
	size_t count = 0;
	for (size_t i = 0; i < m->done.count; i++)
		count += m->done.items[i]->firm ? 0 : 1;
	return count;
}

size_t medium_unflushed(const struct sim_medium *m)
{
	return soft_count(m) + m->flying.count;
}

struct sim_write *medium_unflushed_at(const struct sim_medium *m, size_t index)
{
	for (size_t i = 0; i < m->done.count; i++) {
		if (!m->done.items[i]->firm && index-- == 0)
			return m->done.items[i];
	}
	assert(index < m->flying.count);
	return m->flying.items[index];
}

/* Some power cuts lose everything, some nothing, most of them something. */
static uint8_t fate_draw(uint64_t mood, struct prng *rng)
{
	if (mood < 2)
		return mood == 0 ? SIM_LOST : SIM_KEPT;
	return (uint8_t)prng_below(rng, mood == 2 ? 2 : 3);
}

static void fate_apply(struct sim_medium *m, const struct sim_write *w, uint8_t fate, struct prng *rng)
{
	if (fate == SIM_LOST)
		return;
	if (fate == SIM_KEPT || m->torn_bytes == 0 || w->len_bytes <= m->torn_bytes) {
		write_apply(w, &m->durable);
		return;
	}
	struct sim_write *torn = write_tear(w, m->torn_bytes, rng);
	write_apply(torn, &m->durable);
	write_unref(torn);
}

/* Writes that were done keep their order where they overlap; those in flight have none. */
void medium_power_cut(struct sim_medium *m, const uint8_t *fates, struct prng *rng)
{
	uint64_t mood = fates ? 0 : prng_below(rng, 5);
	size_t soft = 0, flying = m->flying.count;
	for (size_t i = 0; i < m->done.count; i++) {
		const struct sim_write *w = m->done.items[i];
		if (w->firm)
			write_apply(w, &m->durable);
		else
			fate_apply(m, w, fates ? fates[soft++] : fate_draw(mood, rng), rng);
	}
	bool backwards = flying > 1 && prng_one_in(rng, 2);
	for (size_t i = 0; i < flying; i++) {
		size_t at = backwards ? flying - 1 - i : i;
		fate_apply(m, m->flying.items[at], fates ? fates[soft + at] : fate_draw(mood, rng), rng);
	}
	list_clear(&m->done);
	list_clear(&m->flying);
	image_fini(&m->current);
	image_copy(&m->current, &m->durable);
}

void medium_kill(struct sim_medium *m, struct prng *rng)
{
	uint64_t mood = prng_below(rng, 4);
	while (m->flying.count > 0) {
		struct sim_write *w = m->flying.items[0], *part = write_clone(w);
		for (size_t i = 0; i < w->piece_count; i++) {
			bool stays = mood < 2 ? mood == 1 : prng_one_in(rng, 2);
			part->pieces[i].sectors = stays ? w->pieces[i].sectors : 0;
		}
		medium_drop(m, w);
		medium_land(m, part, false);
		write_unref(part);
	}
}
