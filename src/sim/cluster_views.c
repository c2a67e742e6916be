/*
 * cluster_views.c: the store of views, as an engine meets it: late, absent for a while, and sometimes without saying what it did.
 *
 * A swap whose outcome the caller is not told may be done at once, never, or later, when the caller has long asked again.
 */
#include "sim/cluster.h"

struct views {
	struct view_store store;
	struct cluster_node *node;
};

static struct views *views_of(struct view_store *s)
{
	return container_of(s, struct views, store);
}

static bool is_absent(struct views *v)
{
	struct cluster *cl = v->node->cluster;
	uint32_t one_in = cl->faults.views_absent_one_in;
	return cl->views_cut[v->node->index] || (one_in && prng_one_in(cl->rng, one_in));
}

static void way(struct cluster *cl)
{
	fiber_sleep(cl->faults.views_min_ns +
		    prng_below(cl->rng, cl->faults.views_max_ns - cl->faults.views_min_ns + 1));
}

static int views_get(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision)
{
	struct cluster *cl = views_of(s)->node->cluster;
	way(cl);
	if (is_absent(views_of(s)))
		return OXE_NOTREADY;
	if (!uuid_equal(volume_id, &cl->volume_id))
		return OXE_NOENT;
	*out = cl->view;
	*revision = cl->revision;
	way(cl);
	return 0;
}

/* Through its bytes and back. */
static bool bytes_tell(const struct view *v)
{
	uint8_t *bytes = mem_zalloc(2 * VIEW_BYTES_MAX);
	struct view *again = mem_zalloc(sizeof(*again));
	size_t len_bytes = view_encode(v, bytes);
	bool same = view_decode(bytes, len_bytes, again) == 0 &&
		    view_encode(again, bytes + VIEW_BYTES_MAX) == len_bytes &&
		    memcmp(bytes, bytes + VIEW_BYTES_MAX, len_bytes) == 0;
	free(bytes);
	free(again);
	return same;
}

static int swap_now(struct cluster *cl, const struct view *v, uint64_t revision)
{
	if (cl->revision != revision)
		return OXE_DIFFERS;
	if (v->epoch < cl->view.epoch)
		cluster_fail(cl, "a swap would take the epoch from %llu back to %llu",
			     (unsigned long long)cl->view.epoch, (unsigned long long)v->epoch);
	if (!bytes_tell(v))
		cluster_fail(cl, "a view is not what its bytes say");
	cl->view = *v;
	cl->revision++;
	cl->swaps++;
	sim_trace(cl->sim, "view", v->epoch, view_count(v, VIEW_MEMBER), view_count(v, VIEW_JOINING));
	return 0;
}

struct late_swap {
	struct cluster *cluster;
	struct view view;
	uint64_t revision;
};

static void swap_late(void *arg)
{
	struct late_swap *l = arg;
	(void)swap_now(l->cluster, &l->view, l->revision);
	free(l);
}

static int swap_unknown(struct cluster *cl, const struct view *v, uint64_t revision)
{
	struct late_swap *l;
	switch (prng_below(cl->rng, 3)) {
	case 0:
		break;
	case 1:
		(void)swap_now(cl, v, revision);
		break;
	case 2:
		l = mem_zalloc(sizeof(*l));
		*l = (struct late_swap){.cluster = cl, .view = *v, .revision = revision};
		sim_at(cl->sim, sim_now_ns(cl->sim) + prng_below(cl->rng, 3 * NS_PER_S), swap_late, l);
		break;
	}
	way(cl);
	return OXE_INDOUBT;
}

static int views_swap(struct view_store *s, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	struct cluster *cl = views_of(s)->node->cluster;
	uint32_t unknown_one_in = cl->faults.views_unknown_one_in;
	way(cl);
	if (is_absent(views_of(s)))
		return OXE_NOTREADY;
	if (unknown_one_in && prng_one_in(cl->rng, unknown_one_in))
		return swap_unknown(cl, v, revision);
	int err = swap_now(cl, v, revision);
	*new_revision = cl->revision;
	way(cl);
	return err;
}

struct view_store *views_new(struct cluster_node *node)
{
	struct views *v = mem_zalloc(sizeof(*v));
	*v = (struct views){.store = {.get = views_get, .swap = views_swap}, .node = node};
	return &v->store;
}
