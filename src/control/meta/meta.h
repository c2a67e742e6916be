/*
 * meta.h: the small consistent store of the control plane: keys with values, compare-and-swap, watches, leases.
 *
 * One interface, several forms: in memory under the simulator (meta_memory.h), SQLite inside the daemon on one machine
 * (meta_sqlite.h), later etcd on many. Each passes the same contract tests (meta_contract.h); what is written here is what
 * every form keeps, and no more.
 *
 *     struct meta_list views;
 *     err = meta_range(m, &(struct meta_range){.prefix = "view/"}, &views);    all of them, as of views.revision
 *     err = meta_watch_open(m, "view/", views.revision + 1, &watch);           and every change since, in order
 *     err = meta_put(m, key, value, len_bytes, views.entries[0].mod_revision, 0, &revision);
 *
 * Revisions. The whole store has one revision. Each transaction that changes anything adds one, and everything it writes gets
 * that number as its mod_revision. A revision never goes back and never means two things, over any crash. A key that is
 * absent has mod_revision 0. Some history is kept, so that a list can be read page by page at one revision and a watch can
 * be taken up again where it was cut; what is older has been compacted.
 *
 * Answers and doubts. Calls are linearizable: each takes effect at one moment between being made and being answered. But an
 * answer may be lost where the store is another process, so a caller of anything that changes must handle three endings:
 *
 *     0, or an error that says what is wrong   done; or not done, and it never will be
 *     OXE_NOTREADY                             the store cannot be reached. Not done, and it never will be: ask later
 *     OXE_INDOUBT                              it was done, or it was not, or it is still under way and WILL BE DONE LATER
 *
 * Because of the last one, reading the key and not finding the write proves nothing: it may arrive after the read. Finding it
 * proves that it was done, if the value carries an id that its writer chose. What settles the matter is to ask for the very
 * same compare-and-swap again: both compare with the same revision, so at most one of them ever happens, and when the answer is
 * OXE_DIFFERS the first can no longer come. meta_commit_settled() does just that, which is how V2's "wait and ask; do not guess" is
 * kept. A write that compares nothing may arrive at any time later and undo what came after: nothing that matters is written so.
 * And a compare with 0 holds again once somebody has deleted the key: a creation that was in doubt may then come a second time.
 * Where keys are deleted and their names used again, it compares with another key too, which the deletion changes.
 *
 * Leases. A key put with a lease vanishes when the lease ends, in one transaction with all other keys of it, and watchers see the
 * deletes. The store's clock decides when; the holder's clock only tells the holder how long it can be sure, see
 * meta_lease_grant. After the store itself was away every lease starts anew with its whole time.
 *
 *   who owns memory   what is passed in stays the caller's and may go when the call has returned. A meta_list is filled
 *                     by a call that returned 0 and freed by the caller (meta_list_free); after an error there is nothing to free
 *   which reactor     a client (struct meta) belongs to the reactor it was made on, and so do its watches. Any number of
 *                     fibers may call at the same time
 *   what is durable   what was answered with 0, over kill -9 and power loss. The memory form loses all with its process
 *   how long          over a network every call but meta_watch_next ends within 5 s; on a disk of this machine it takes what the disk takes
 *   errors            OXE_INVAL (a key or a request that this page does not allow), OXE_TOOBIG (over a bound below),
 *                     OXE_NOTREADY, OXE_INDOUBT (only of calls that change something), OXE_FAILED (the store has stopped
 *                     because its disk failed it), OXE_NOSPC, and what each call names
 *
 * Everything here suspends, but for meta_watch_cancel and what frees lists.
 */
#ifndef OXBOW_CONTROL_META_META_H
#define OXBOW_CONTROL_META_META_H

#include "base/base.h"
#include "base/err.h"

struct meta;	   /* a client of a store; a form's header says how to get one */
struct meta_watch; /* a stream of changes */

/* A key is text, 1 to this many printable ASCII characters without spaces; keys are ordered byte by byte. */
#define META_KEY_MAX_BYTES   512
#define META_VALUE_MAX_BYTES (64 * KiB) /* any bytes, also none */
#define META_TXN_MAX_COUNT   64		/* compares, and as many writes */
#define META_TXN_MAX_BYTES   (1 * MiB)	/* keys and values of a transaction together */
#define META_PAGE_MAX_COUNT  256
#define META_LEASE_MAX_S     86400
#define META_LEASE_MAX_ID    INT64_MAX

/* ---- reading ------------------------------------------------------------------------------------------------------ */

struct meta_entry {
	char *key;
	void *value; /* NULL if `deleted` */
	size_t value_len_bytes;
	uint64_t mod_revision; /* of the transaction that wrote it, or deleted it */
	uint64_t lease;	       /* 0: none */
	bool deleted;	       /* only in what a watch says */
};

struct meta_list {
	uint64_t revision; /* the list is as of this one */
	struct meta_entry *entries;
	size_t count;
	bool more; /* of a page: another one follows */
};

/* Frees what it holds and makes it an empty one. Harmless on one that is. */
void meta_list_free(struct meta_list *list);

/* One key: out->count is 1, or 0 if there is none. */
OX_CHECKED int meta_get(struct meta *m, const char *key, struct meta_list *out);

/* A page of the keys that start with `prefix`, in order. For the next page put the last key into `after` and out->revision into
 * `revision`: all pages are then of one moment. OXE_COMPACTED: that moment is too long ago, begin again. OXE_RANGE: the store has not
 * come to that revision. */
struct meta_range {
	const char *prefix; /* "" is all */
	const char *after;  /* NULL: from the start */
	uint64_t revision;  /* 0: now */
	uint32_t
		limit; /* entries; 0, or more than META_PAGE_MAX_COUNT: that many. A page of large values may hold less. */
};
OX_CHECKED int meta_range(struct meta *m, const struct meta_range *range, struct meta_list *out);

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct meta_compare {
	const char *key;
	uint64_t mod_revision; /* must be this; 0: the key must be absent */
};

struct meta_write {
	const char *key;
	const void *value;
	size_t value_len_bytes;
	uint64_t lease; /* 0: none, also if it had one */
	bool is_delete; /* instead; of a key that is absent it is nothing */
};

struct meta_txn {
	const struct meta_compare *compares;
	size_t compare_count;
	const struct meta_write *writes; /* no key twice */
	size_t write_count;
};

/* If every compare holds, do every write; all of it is one moment. *revision is the store's after it. OXE_DIFFERS: a compare does
 * not hold, and nothing was written. OXE_NOENT: a lease it names is none. */
OX_CHECKED int meta_commit(struct meta *m, const struct meta_txn *txn, uint64_t *revision);

/* The same, and while its outcome is unknown, wait and ask, until the clock passes deadline_ns: only then OXE_INDOUBT, or
 * OXE_NOTREADY if it was surely not done. Every key it writes must be compared too, and its first put must carry an id that
 * nobody else ever writes (OXE_INVAL is all that can be checked of that). OXE_DIFFERS is final too: nothing more will come of it.
 * If another writer followed at once, it cannot be told whether this one was there for a moment; it is not there now. */
OX_CHECKED int meta_commit_settled(struct meta *m, const struct meta_txn *txn, uint64_t deadline_ns,
				   uint64_t *revision);

/* One key. mod_revision as in a compare, or META_ANY: do not compare. */
#define META_ANY UINT64_MAX
OX_CHECKED int meta_put(struct meta *m, const char *key, const void *value, size_t value_len_bytes,
			uint64_t mod_revision, uint64_t lease, uint64_t *revision);
OX_CHECKED int meta_delete(struct meta *m, const char *key, uint64_t mod_revision, uint64_t *revision);

/* ---- watching ------------------------------------------------------------------------------------------------------ */

/* Every change of a key that starts with `prefix`, from a revision on (a list's revision + 1). Lost connections are its own affair:
 * it takes up where it was cut. */
OX_CHECKED int meta_watch_open(struct meta *m, const char *prefix, uint64_t from_revision,
			       struct meta_watch **out);
/* The next changes, at least one: in the order of revisions, none twice, none left out, and those of one revision together;
 * out->revision is the last one. OXE_TIMEOUT: none before deadline_ns; call again. OXE_COMPACTED: some were forgotten before this watch
 * had them, because it was slow or cut off for long: close it, list again and watch from there. OXE_CANCELLED. OXE_RANGE: the store has
 * not come to the revision before the one asked for, so it is not the store that was listed. One fiber at a time. */
OX_CHECKED int meta_watch_next(struct meta_watch *w, uint64_t deadline_ns, struct meta_list *out);
/* A fiber inside meta_watch_next returns OXE_CANCELLED soon, and so does every later call. */
void meta_watch_cancel(struct meta_watch *w);
/* No fiber may be inside meta_watch_next. */
void meta_watch_close(struct meta_watch *w);

/* ---- leases -------------------------------------------------------------------------------------------------------- */

/* A lease with an id that the caller chose at random, 1 to META_LEASE_MAX_ID, so that asking again after OXE_INDOUBT is harmless: if
 * it is there with this ttl it is kept alive and that is success; OXE_EXISTS if it is there with another. On success the
 * lease lasts at least until *until_ns, on the caller's clock, counted from before the call: whoever acts on holding it stops
 * before then, with a margin for how differently two clocks may run. */
OX_CHECKED int meta_lease_grant(struct meta *m, uint64_t lease, uint32_t ttl_s, uint64_t *until_ns);
/* Its whole time again. OXE_NOENT: it has ended, and its keys with it. OXE_INDOUBT: count on the old time only. */
OX_CHECKED int meta_lease_keep(struct meta *m, uint64_t lease, uint64_t *until_ns);
/* End it now. One that is gone is success. */
OX_CHECKED int meta_lease_revoke(struct meta *m, uint64_t lease);

/* ---- the client ----------------------------------------------------------------------------------------------------- */

/* Frees it. Its watches are closed and no fiber is in a call of it. Leases go on until they end by themselves. */
void meta_close(struct meta *m);

#endif
