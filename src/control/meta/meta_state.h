/*
 * meta_state.h: the content of a metastore in plain memory: keys with their history, and leases. A pure step function: no fiber, no
 * clock, no chance; the memory form puts a network with faults in front of it.
 *
 *   errors   those meta.h names for the same verb; requests have passed the checks of meta.c
 *   time     nanoseconds of whatever clock the caller has
 */
#ifndef OXBOW_CONTROL_META_META_STATE_H
#define OXBOW_CONTROL_META_META_STATE_H

#include "base/list.h"
#include "control/meta/meta_form.h"

struct meta_state {
	struct meta_item **items; /* by key; those that have a version */
	size_t item_count, item_capacity;
	struct list log;    /* versions newer than `compacted`, in order */
	struct list leases; /* in the order granted */
	uint64_t revision, compacted, keep_revisions;
};

void meta_state_init(struct meta_state *s, uint64_t keep_revisions);
void meta_state_free(struct meta_state *s);

OX_CHECKED int meta_state_read(struct meta_state *s, const struct meta_query *query, struct meta_list *out);
OX_CHECKED int meta_state_commit(struct meta_state *s, const struct meta_txn *txn, uint64_t *revision);
/* The changes from a revision on, whole revisions only; none is 0 and an empty list. Up to out->revision these are all. */
OX_CHECKED int meta_state_events(struct meta_state *s, const char *prefix, uint64_t from_revision,
				 struct meta_list *out);

OX_CHECKED int meta_state_lease_grant(struct meta_state *s, uint64_t lease, uint32_t ttl_s, uint64_t now_ns);
OX_CHECKED int meta_state_lease_keep(struct meta_state *s, uint64_t lease, uint64_t now_ns, uint32_t *ttl_s);
void meta_state_lease_revoke(struct meta_state *s, uint64_t lease);
/* End those whose time is over. */
void meta_state_leases_expire(struct meta_state *s, uint64_t now_ns);
/* The store was away until now_ns: each has its whole time again. */
void meta_state_leases_renew(struct meta_state *s, uint64_t now_ns);
/* UINT64_MAX if there is none. */
uint64_t meta_state_next_expiry_ns(const struct meta_state *s);

#endif
