/*
 * mirror_work.c: work in the background yields to clients: filling and comparing.
 *
 * It goes window by window. After one during which clients asked for anything it rests, so long that all such work together has at most its
 * share of the time (background_share). While nobody asks it goes on at once. A limit in bytes a second holds beside that.
 */
#include "data/engine/mirror_impl.h"

void mirror_work_begin(struct mirror *m, struct work *w)
{
	w->calls = m->calls;
	w->begin_ns = rt_now_exact_ns(m->rt);
}

static void rest(struct mirror *m, uint64_t until_ns)
{
	while (!mirror_over(m) && rt_now_ns(m->rt) < until_ns)
		mirror_pause(m, until_ns);
}

/* Rests of several such works add up: each rests for what others took, too. */
static void rest_for_clients(struct mirror *m, const struct work *w)
{
	uint64_t now_ns = rt_now_exact_ns(m->rt), share = m->options.background_share;
	bool asked = m->calls != w->calls || m->requests > 0;
	if (!asked || share >= 100 || MUTANT(284))
		return;
	m->rest_until_ns = u64_max(m->rest_until_ns, now_ns) + (now_ns - w->begin_ns) * (100 - share) / share;
	rest(m, m->rest_until_ns);
}

void mirror_work_end(struct mirror *m, struct work *w, uint64_t len_bytes, uint64_t bytes_per_s)
{
	if (bytes_per_s)
		w->paid_ns = u64_max(w->paid_ns, w->begin_ns) + len_bytes * NS_PER_S / bytes_per_s;
	rest_for_clients(m, w);
	rest(m, w->paid_ns);
}
