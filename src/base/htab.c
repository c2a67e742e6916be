/* htab.c: see htab.h. */
#include "base/htab.h"

static void rehash(struct htab *t)
{
	struct htab old = *t;
	size_t count = old.bucket_count ? old.bucket_count * 2 : 16;
	size_t size_bytes = count * sizeof(*t->buckets);
	struct hnode **buckets = old.bucket_count ? mem_try_realloc(NULL, size_bytes) : mem_alloc(size_bytes);
	if (!buckets)
		return; /* the chains grow longer, until there is memory again */
	memset(buckets, 0, count * sizeof(*buckets));
	t->bucket_count = count;
	t->buckets = buckets;
	for (size_t i = 0; i < old.bucket_count; i++) {
		for (struct hnode *n = old.buckets[i], *next; n; n = next) {
			struct hnode **link = &t->buckets[n->hash & (t->bucket_count - 1)];
			next = n->next;
			n->next = *link;
			*link = n;
		}
	}
	free(old.buckets);
}

void htab_insert(struct htab *t, struct hnode *n, uint64_t hash)
{
	if (t->count >= t->bucket_count)
		rehash(t);
	struct hnode **link = &t->buckets[hash & (t->bucket_count - 1)];
	n->hash = hash;
	n->next = *link;
	*link = n;
	t->count++;
}

void htab_remove(struct htab *t, struct hnode *n)
{
	struct hnode **link = &t->buckets[n->hash & (t->bucket_count - 1)];
	while (*link != n)
		link = &(*link)->next;
	*link = n->next;
	t->count--;
}

void htab_free(struct htab *t)
{
	assert(t->count == 0);
	free(t->buckets);
	*t = (struct htab){0};
}
