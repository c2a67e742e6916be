/* cluster_op.c: see cluster_op.h. */
#include "data/store/cluster_op.h"

#include "base/prng.h"

#define INPLACE_SLOTS                                                                                        \
	4096u /* clusters share a slot by hash: a hold alone may wait for a neighbour, never too little */

struct cluster_op {
	struct hnode node;
	const struct layer *layer;
	uint32_t index, waiting;
	uint16_t busy;
	bool alone;
	struct list holds;
	struct waitq released;
};

struct cluster_ops {
	struct htab table;
	uint16_t inplace[INPLACE_SLOTS];
	struct waitq inplace_left;
};

struct cluster_ops *cluster_ops_new(void)
{
	struct cluster_ops *ops = mem_zalloc(sizeof(*ops));
	waitq_init(&ops->inplace_left);
	return ops;
}

void cluster_ops_free(struct cluster_ops *ops)
{
	htab_free(&ops->table);
	free(ops);
}

static uint64_t hash_of(const struct layer *layer, uint32_t index)
{
	return hash_u64(layer->number << 32 ^ index);
}

static struct cluster_op *op_find(struct cluster_ops *ops, const struct layer *layer, uint32_t index)
{
	if (ops->table.count == 0)
		return NULL;
	for (struct hnode *n = htab_first(&ops->table, hash_of(layer, index)); n; n = htab_next(n)) {
		struct cluster_op *op = container_of(n, struct cluster_op, node);
		if (op->layer == layer && op->index == index)
			return op;
	}
	return NULL;
}

static struct cluster_op *op_get(struct cluster_ops *ops, const struct layer *layer, uint32_t index)
{
	struct cluster_op *op = op_find(ops, layer, index);
	if (op)
		return op;
	op = mem_zalloc(sizeof(*op));
	op->layer = layer;
	op->index = index;
	list_init(&op->holds);
	waitq_init(&op->released);
	htab_insert(&ops->table, &op->node, hash_of(layer, index));
	return op;
}

static void op_put(struct cluster_ops *ops, struct cluster_op *op)
{
	if (!list_empty(&op->holds) || op->waiting > 0)
		return;
	htab_remove(&ops->table, &op->node);
	free(op);
}

static bool conflicts(const struct cluster_op *op, uint16_t mask)
{
	return op->alone || (op->busy & mask);
}

static void op_wait(struct cluster_ops *ops, struct cluster_op *op, uint16_t mask)
{
	op->waiting++;
	while (conflicts(op, mask))
		waitq_wait(&op->released);
	op->waiting--;
	op_put(ops, op);
}

static uint16_t *inplace_slot(struct cluster_ops *ops, const struct layer *layer, uint32_t index)
{
	return &ops->inplace[hash_of(layer, index) % INPLACE_SLOTS];
}

void cluster_hold(struct cluster_ops *ops, struct cluster_hold *h, struct layer *layer, uint32_t index,
		  uint16_t mask, bool alone)
{
	struct cluster_op *op = op_get(ops, layer, index);
	op->waiting++;
	while (conflicts(op, mask) || (alone && op->busy))
		waitq_wait(&op->released);
	op->waiting--;
	op->busy |= mask;
	op->alone = alone;
	*h = (struct cluster_hold){.op = op, .mask = mask};
	list_add_tail(&op->holds, &h->link);
	while (alone && *inplace_slot(ops, layer, index) > 0 && !MUTANT(35))
		waitq_wait(&ops->inplace_left);
}

void cluster_hold_changed(struct cluster_hold *h, const struct map_entry *old)
{
	h->changed = true;
	h->old = *old;
}

void cluster_release(struct cluster_ops *ops, struct cluster_hold *h)
{
	struct cluster_op *op = h->op;
	if (!op)
		return;
	h->op = NULL;
	list_del(&h->link);
	op->busy &= (uint16_t)~h->mask;
	op->alone = false;
	waitq_wake_all(&op->released);
	op_put(ops, op);
}

bool inplace_enter(struct cluster_ops *ops, const struct layer *layer, uint32_t index, uint16_t mask)
{
	struct cluster_op *op = op_find(ops, layer, index);
	if (op && conflicts(op, mask))
		return false;
	uint16_t *slot = inplace_slot(ops, layer, index);
	assert(*slot < UINT16_MAX);
	++*slot;
	return true;
}

void inplace_leave(struct cluster_ops *ops, const struct layer *layer, uint32_t index)
{
	uint16_t *slot = inplace_slot(ops, layer, index);
	assert(*slot > 0);
	if (--*slot == 0 && !waitq_empty(&ops->inplace_left))
		waitq_wake_all(&ops->inplace_left);
}

void inplace_wait(struct cluster_ops *ops, const struct layer *layer, uint32_t index, uint16_t mask)
{
	struct cluster_op *op = op_find(ops, layer, index);
	if (op)
		op_wait(ops, op, mask);
}

struct map_entry cluster_visible(struct cluster_ops *ops, const struct layer *layer, uint32_t index,
				 const struct map_entry *now, uint16_t *mask)
{
	struct cluster_op *op = op_find(ops, layer, index);
	struct cluster_hold *h;
	if (!op)
		return *now;
	uint16_t lowest = *mask & (uint16_t) - *mask, elsewhere = 0;
	list_for_each (h, &op->holds, link) {
		if (!h->changed)
			continue;
		if (h->mask & lowest) {
			*mask &= h->mask;
			return h->old;
		}
		elsewhere |= h->mask;
	}
	*mask &= (uint16_t)~elsewhere;
	return *now;
}
