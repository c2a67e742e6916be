/*
 * htab.h: an intrusive chained hash table that grows. The table owns only its buckets; nodes live in the caller's structs.
 *
 *     struct htab by_id;  struct thing { struct hnode id_node; ... };
 *     htab_insert(&by_id, &t->id_node, hash);
 *     for (struct hnode *n = htab_first(&by_id, hash); n; n = htab_next(n)) ... container_of(n, struct thing, id_node)
 *
 * htab_first and htab_next yield the nodes whose full hash is equal; the caller compares keys. Zero-fill is an empty table.
 */
#ifndef OXBOW_BASE_HTAB_H
#define OXBOW_BASE_HTAB_H

#include "base/base.h"

struct hnode {
	struct hnode *next;
	uint64_t hash;
};

struct htab {
	struct hnode **buckets;
	size_t count, bucket_count; /* bucket_count: 0 or a power of two */
};

static inline struct hnode *htab_match(struct hnode *n, uint64_t hash)
{
	while (n && n->hash != hash)
		n = n->next;
	return n;
}

static inline struct hnode *htab_first(const struct htab *t, uint64_t hash)
{
	return t->count ? htab_match(t->buckets[hash & (t->bucket_count - 1)], hash) : NULL;
}

static inline struct hnode *htab_next(struct hnode *n)
{
	return htab_match(n->next, n->hash);
}

void htab_insert(struct htab *t, struct hnode *n, uint64_t hash);
void htab_remove(struct htab *t, struct hnode *n);
void htab_free(struct htab *t);

#endif
