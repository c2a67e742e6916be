/*
 * meta_form.h: the other side of meta.h: what a form of the metastore supplies, and what meta.c has done before.
 *
 * A form embeds `struct meta` and `struct meta_watch` first in its own structs. Requests reach its ops checked: keys are well
 * formed, bounds are kept, no key is written twice. Only the forms and meta.c include this.
 */
#ifndef OXBOW_CONTROL_META_META_FORM_H
#define OXBOW_CONTROL_META_META_FORM_H

#include "control/meta/meta.h"
#include "rt/rt.h"

#define META_CALL_LIMIT_NS (5 * NS_PER_S)
/* A page or a batch ends with the entry that makes it larger than this. */
#define META_PAGE_FULL_BYTES (1 * MiB)
/* History kept unless a form is told another number: for a watch that was cut and a list read slowly. */
#define META_KEEP_REVISIONS 10000

/* What meta_get and meta_range ask for. */
struct meta_query {
	const char *prefix, *after; /* `after` may be NULL */
	bool is_exact;		    /* the key `prefix`, not what starts with it */
	uint64_t revision;
	uint32_t limit;
};

struct meta_ops {
	int (*read)(struct meta *m, const struct meta_query *query, struct meta_list *out);
	int (*commit)(struct meta *m, const struct meta_txn *txn, uint64_t *revision);
	int (*watch_open)(struct meta *m, const char *prefix, uint64_t from_revision,
			  struct meta_watch **out);
	int (*watch_next)(struct meta_watch *w, uint64_t deadline_ns, struct meta_list *out);
	void (*watch_cancel)(struct meta_watch *w);
	void (*watch_close)(struct meta_watch *w);
	int (*lease_grant)(struct meta *m, uint64_t lease, uint32_t ttl_s);
	int (*lease_keep)(struct meta *m, uint64_t lease, uint32_t *ttl_s);
	int (*lease_revoke)(struct meta *m, uint64_t lease);
	void (*close)(struct meta *m);
};

struct meta {
	const struct meta_ops *ops;
	struct rt *rt;
};

struct meta_watch {
	struct meta *meta;
};

/* Copies an entry onto the end. */
void meta_list_add(struct meta_list *list, const struct meta_entry *entry);
size_t meta_entry_size_bytes(const struct meta_entry *entry);
bool meta_key_has_prefix(const char *key, const char *prefix);

/* Bugs to plant, for meta_mutants_test. In a product META_MUTANT() is the constant false. */
enum meta_mutant {
	META_NO_MUTANT,
	META_MUTANT_WATCH_SKIPS,   /* a watch that was cut goes on with what is new, not with where it was */
	META_MUTANT_WATCH_REPEATS, /* or with the last one again */
	META_MUTANT_WATCH_GAP,	   /* a watch is not told that history was compacted under it */
	META_MUTANT_WATCH_SPLITS,  /* the changes of one revision come in two batches */
	META_MUTANT_COMPARES_VALUE, /* a compare looks at the value, so that there and back again is no change */
	META_MUTANT_COMPARES_FIRST,   /* only the first compare counts */
	META_MUTANT_TXN_TEARS,	      /* the first write is done before the last compare is looked at */
	META_MUTANT_LEASE_KEEPS_KEYS, /* a lease ends and its keys stay */
	META_MUTANT_LEASE_IS_SHORT,   /* a lease ends before the time its holder was told */
	META_MUTANT_LEASE_STICKS,     /* a key put again without its lease still vanishes with it */
	META_MUTANT_DOUBT_IS_NO, /* what was answered in doubt and is not there when read counts as not done */
	META_MUTANT_DOUBT_IS_YES,    /* what was answered in doubt counts as done */
	META_MUTANT_PAGE_IS_NEW,     /* the second page is of now, not of the revision of the first */
	META_MUTANT_READ_IS_OLD,     /* reads are answered from the past */
	META_MUTANT_COMPACTS_LIVE,   /* compaction forgets the value that is current */
	META_MUTANT_NO_SYNC,	     /* the SQLite form answers before the disk has it */
	META_MUTANT_LEASE_FORGOTTEN, /* and knows nothing of leases after a start */
	META_MUTANT_COUNT
};
#ifdef OXBOW_MUTANTS
extern enum meta_mutant meta_mutant_active;
#define META_MUTANT(name) (meta_mutant_active == META_MUTANT_##name)
#else
#define META_MUTANT(name) false
#endif

#endif
