/*
 * meta_linear_contract.c: a search for the order, depth first, one operation at a time, remembering where it has been (after Wing and Gong).
 *
 * An operation may be next if no other that must happen was answered before this one was called. Those that may have happened
 * or not are left out where that fits; but one that is over by some time cannot come after what began later.
 */
#include "control/meta/meta_linear_contract.h"

#include "base/prng.h"

struct place {
	uint64_t done; /* a bit each */
	uint32_t value;
	bool used;
};

struct search {
	const struct linear_op *ops;
	size_t count;
	struct place *seen; /* open addressing, a power of two */
	size_t seen_count, seen_size;
};

static bool op_is_required(const struct linear_op *op)
{
	return op->kind == LINEAR_READ || op->kind == LINEAR_SWAP || op->kind == LINEAR_DIFFERS;
}

static struct place *place_find(const struct search *s, uint64_t done, uint32_t value)
{
	size_t at = hash_u64(done ^ hash_u64(value)) & (s->seen_size - 1);
	while (s->seen[at].used && (s->seen[at].done != done || s->seen[at].value != value))
		at = (at + 1) & (s->seen_size - 1);
	return &s->seen[at];
}

static void places_grow(struct search *s)
{
	struct place *old = s->seen;
	size_t old_size = s->seen_size;
	s->seen_size = 2 * old_size;
	s->seen = mem_zalloc(s->seen_size * sizeof(*s->seen));
	for (size_t i = 0; i < old_size; i++) {
		if (old[i].used)
			*place_find(s, old[i].done, old[i].value) = old[i];
	}
	free(old);
}

/* False if it was there before. */
static bool place_add(struct search *s, uint64_t done, uint32_t value)
{
	struct place *place = place_find(s, done, value);
	if (place->used)
		return false;
	*place = (struct place){done, value, true};
	if (++s->seen_count > s->seen_size / 2)
		places_grow(s);
	return true;
}

static bool op_may_be_next(const struct search *s, uint64_t done, const struct linear_op *op)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct linear_op *other = &s->ops[i];
		bool is_done = done >> i & 1;
		if (!is_done && op_is_required(other) && other->answered < op->called)
			return false;
		if (is_done && op->kind == LINEAR_OR_NOT && other->called > op->answered)
			return false;
	}
	return true;
}

/* Whether a variable that holds *value gives this answer; what it holds then. */
static bool op_fits(const struct linear_op *op, uint32_t *value)
{
	if (op->kind == LINEAR_READ)
		return *value == op->value;
	if (op->kind == LINEAR_DIFFERS)
		return *value != op->expected;
	if (*value != op->expected)
		return false;
	*value = op->value;
	return true;
}

static bool search_from(struct search *s, uint64_t done, uint32_t value)
{
	bool is_whole = true;
	if (!place_add(s, done, value))
		return false;
	for (size_t i = 0; i < s->count; i++)
		is_whole &= done >> i & 1 || !op_is_required(&s->ops[i]);
	for (size_t i = 0; i < s->count && !is_whole; i++) {
		uint32_t next_value = value;
		if (done >> i & 1 || !op_may_be_next(s, done, &s->ops[i]) ||
		    !op_fits(&s->ops[i], &next_value))
			continue;
		if (search_from(s, done | (uint64_t)1 << i, next_value))
			return true;
	}
	return is_whole;
}

bool linear_check(const struct linear_op *ops, size_t count)
{
	struct search s = {.ops = ops, .count = count, .seen_size = 1024};
	assert(count <= LINEAR_MAX_OPS);
	s.seen = mem_zalloc(s.seen_size * sizeof(*s.seen));
	bool found = search_from(&s, 0, 0);
	free(s.seen);
	return found;
}
