/* meta_contract.c: each promise of meta.h, held against a store through two of its clients. */
#include "control/meta/meta_contract.h"

#include "base/test.h"
#include "rt/rt.h"

#include <stdio.h>

#define SOON_NS (30 * NS_PER_S) /* longer than anything here takes, and short enough to wait for */

/* ---- words for what follows ----------------------------------------------------------------------------------------- */

static uint64_t in_ns(uint64_t ns)
{
	return rt_now_exact_ns(rt_current()) + ns;
}

static uint64_t put(struct meta *m, const char *key, const char *text)
{
	uint64_t revision;
	CHECK_OK(meta_put(m, key, text, strlen(text), META_ANY, 0, &revision));
	return revision;
}

static int swap(struct meta *m, const char *key, const char *text, uint64_t mod_revision, uint64_t *revision)
{
	return meta_put(m, key, text, strlen(text), mod_revision, 0, revision);
}

static bool entry_is(const struct meta_entry *entry, const char *key, const char *text)
{
	return strcmp(entry->key, key) == 0 && !entry->deleted && entry->value_len_bytes == strlen(text) &&
	       memcmp(entry->value, text, strlen(text)) == 0;
}

static uint64_t mod_of(struct meta *m, const char *key)
{
	struct meta_list found;
	CHECK_OK(meta_get(m, key, &found));
	uint64_t mod_revision = found.count ? found.entries[0].mod_revision : 0;
	meta_list_free(&found);
	return mod_revision;
}

static void check_value(struct meta *m, const char *key, const char *text)
{
	struct meta_list found;
	CHECK_OK(meta_get(m, key, &found));
	CHECK_EQ(found.count, 1);
	CHECK(entry_is(&found.entries[0], key, text));
	meta_list_free(&found);
}

static void check_absent(struct meta *m, const char *key)
{
	CHECK_EQ(mod_of(m, key), 0);
}

static struct meta_list next(struct meta_watch *w)
{
	struct meta_list changes;
	CHECK_OK(meta_watch_next(w, in_ns(SOON_NS), &changes));
	CHECK(changes.count > 0);
	return changes;
}

static struct meta_watch *watch(struct meta *m, const char *prefix, uint64_t from_revision)
{
	struct meta_watch *w;
	CHECK_OK(meta_watch_open(m, prefix, from_revision, &w));
	return w;
}

/* ---- one key ---------------------------------------------------------------------------------------------------------- */

static void a_key_that_is_absent_has_revision_0(struct meta *a, struct meta *b)
{
	uint64_t revision, other;
	check_absent(a, "k");
	CHECK_ERR(swap(a, "k", "x", 1, &revision), OXE_DIFFERS);
	CHECK_OK(swap(a, "k", "x", 0, &revision));
	CHECK_ERR(swap(b, "k", "y", 0, &other), OXE_DIFFERS);
	CHECK_EQ(mod_of(b, "k"), revision);
	CHECK_OK(meta_delete(b, "k", revision, &other));
	check_absent(a, "k");
	CHECK_OK(swap(a, "k", "z", 0, &revision));
	CHECK(revision > other);
}

static void each_change_adds_one_and_nothing_else_does(struct meta *a, struct meta *b)
{
	uint64_t revision, first = put(a, "k", "1");
	struct meta_compare here = {"k", first}, absent = {"no", 0};
	CHECK_EQ(put(b, "other", "1"), first + 1);
	CHECK_EQ(put(a, "k", "1"), first + 2); /* the same value is a change too */
	CHECK_OK(meta_delete(a, "no", META_ANY, &revision));
	CHECK_EQ(revision, first + 2);
	CHECK_OK(meta_commit(a, &(struct meta_txn){&absent, 1, NULL, 0}, &revision));
	CHECK_EQ(revision, first + 2);
	CHECK_ERR(meta_commit(a, &(struct meta_txn){&here, 1, NULL, 0}, &revision), OXE_DIFFERS);
	CHECK_OK(meta_delete(a, "k", META_ANY, &revision));
	CHECK_EQ(revision, first + 3);
}

static void there_and_back_again_is_a_change(struct meta *a, struct meta *b)
{
	uint64_t revision, first = put(a, "k", "x");
	put(b, "k", "y");
	uint64_t third = put(b, "k", "x");
	CHECK_ERR(swap(a, "k", "z", first, &revision), OXE_DIFFERS);
	check_value(a, "k", "x");
	CHECK_OK(swap(a, "k", "z", third, &revision));
}

static void a_value_may_be_any_bytes_up_to_the_bound(struct meta *a, struct meta *b)
{
	uint64_t revision;
	struct meta_list found;
	uint8_t *value = mem_alloc(META_VALUE_MAX_BYTES + 1);
	for (size_t i = 0; i <= META_VALUE_MAX_BYTES; i++)
		value[i] = (uint8_t)(i * 7 + (i >> 8));
	CHECK_OK(meta_put(a, "large", value, META_VALUE_MAX_BYTES, 0, 0, &revision));
	CHECK_OK(meta_put(a, "none", NULL, 0, 0, 0, &revision));
	CHECK_ERR(meta_put(a, "larger", value, META_VALUE_MAX_BYTES + 1, 0, 0, &revision), OXE_TOOBIG);
	CHECK_OK(meta_get(b, "large", &found));
	CHECK_EQ(found.entries[0].value_len_bytes, META_VALUE_MAX_BYTES);
	CHECK(memcmp(found.entries[0].value, value, META_VALUE_MAX_BYTES) == 0);
	meta_list_free(&found);
	check_value(b, "none", "");
	check_absent(b, "larger");
	free(value);
}

static void what_no_store_could_hold_is_refused(struct meta *a, struct meta *b)
{
	uint64_t revision;
	char key[META_KEY_MAX_BYTES + 2];
	struct meta_write twice[] = {{.key = "k", .value = "1", .value_len_bytes = 1},
				     {.key = "k", .is_delete = true}};
	struct meta_compare compares[META_TXN_MAX_COUNT + 1];
	struct meta_watch *w;
	struct meta_list list;
	(void)b;
	memset(key, 'k', sizeof(key));
	key[META_KEY_MAX_BYTES + 1] = '\0';
	CHECK_ERR(swap(a, key, "x", META_ANY, &revision), OXE_TOOBIG);
	key[META_KEY_MAX_BYTES] = '\0';
	CHECK_OK(swap(a, key, "x", META_ANY, &revision));
	CHECK_ERR(swap(a, "", "x", META_ANY, &revision), OXE_INVAL);
	CHECK_ERR(swap(a, "a b", "x", META_ANY, &revision), OXE_INVAL);
	CHECK_ERR(swap(a, "\xc3\xa4", "x", META_ANY, &revision), OXE_INVAL);
	CHECK_ERR(meta_commit(a, &(struct meta_txn){NULL, 0, twice, 2}, &revision), OXE_INVAL);
	CHECK_ERR(meta_commit(a, &(struct meta_txn){0}, &revision), OXE_INVAL);
	for (size_t i = 0; i < ARRAY_COUNT(compares); i++)
		compares[i] = (struct meta_compare){"no", 0};
	CHECK_OK(meta_commit(a, &(struct meta_txn){compares, META_TXN_MAX_COUNT, NULL, 0}, &revision));
	CHECK_ERR(meta_commit(a, &(struct meta_txn){compares, META_TXN_MAX_COUNT + 1, NULL, 0}, &revision),
		  OXE_TOOBIG);
	CHECK_ERR(meta_watch_open(a, "", 0, &w), OXE_INVAL);
	CHECK_ERR(meta_range(a, &(struct meta_range){.prefix = "a b"}, &list), OXE_INVAL);
	CHECK_ERR(meta_lease_grant(a, 0, 5, &revision), OXE_INVAL);
	CHECK_ERR(meta_lease_grant(a, 7, 0, &revision), OXE_INVAL);
}

/* ---- several keys ------------------------------------------------------------------------------------------------------ */

static void a_transaction_happens_wholly_or_not_at_all(struct meta *a, struct meta *b)
{
	uint64_t revision, of_k = put(a, "k", "old"), of_gone = put(a, "gone", "old");
	struct meta_compare compares[] = {{"k", of_k}, {"new", 0}, {"gone", of_gone}};
	struct meta_write writes[] = {{.key = "new", .value = "n", .value_len_bytes = 1},
				      {.key = "k", .value = "k", .value_len_bytes = 1},
				      {.key = "gone", .is_delete = true}};
	put(b, "gone", "newer");
	CHECK_ERR(meta_commit(a, &(struct meta_txn){compares, 3, writes, 3}, &revision), OXE_DIFFERS);
	check_absent(b, "new");
	check_value(b, "k", "old");
	check_value(b, "gone", "newer");
	CHECK_OK(meta_commit(a, &(struct meta_txn){compares, 2, writes, 3}, &revision));
	CHECK_EQ(mod_of(b, "new"), revision);
	CHECK_EQ(mod_of(b, "k"), revision);
	check_absent(b, "gone");
}

static void add_keys(struct meta *m, const char *format_prefix, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char key[32];
		snprintf(key, sizeof(key), "%s%03u", format_prefix, i);
		put(m, key, key);
	}
}

/* Reads all pages, and between two of them lets `b` change what is ahead and what is behind. */
static unsigned read_pages(struct meta *a, struct meta *b, uint32_t limit)
{
	struct meta_list page;
	char last[32] = "p/";
	uint64_t revision = 0, ignored;
	unsigned count = 0;
	do {
		CHECK_OK(meta_range(a, &(struct meta_range){"p/", last, revision, limit}, &page));
		CHECK(page.count <= limit);
		CHECK(!revision || page.revision == revision);
		revision = page.revision;
		for (size_t i = 0; i < page.count; i++, count++) {
			char key[32];
			snprintf(key, sizeof(key), "p/%03u", count);
			CHECK(entry_is(&page.entries[i], key, key));
			memcpy(last, key, sizeof(last));
		}
		bool more = page.more;
		meta_list_free(&page);
		put(b, "p/000", "changed");
		put(b, "p/019", "changed");
		put(b, "p/0190", "new");
		CHECK_OK(meta_delete(b, "p/018", META_ANY, &ignored));
		if (!more)
			return count;
	} while (true);
}

static void pages_are_of_one_moment(struct meta *a, struct meta *b)
{
	put(a, "o/before", "");
	put(a, "p0", "after");
	for (uint32_t limit = 1; limit <= 21; limit += 5) {
		uint64_t ignored;
		add_keys(a, "p/", 20);
		CHECK_OK(meta_delete(a, "p/0190", META_ANY, &ignored));
		CHECK_EQ(read_pages(a, b, limit), 20);
	}
}

static void a_page_of_large_values_ends_early_and_says_so(struct meta *a, struct meta *b)
{
	char *value = mem_zalloc(META_VALUE_MAX_BYTES), last[16] = "v";
	uint64_t revision = 0;
	unsigned count = 0, pages = 0;
	bool more = true;
	for (unsigned i = 0; i < 40; i++) {
		char key[16];
		snprintf(key, sizeof(key), "v%02u", i);
		CHECK_OK(meta_put(a, key, value, META_VALUE_MAX_BYTES, 0, 0, &revision));
	}
	for (revision = 0; more; pages++) {
		struct meta_list page;
		CHECK_OK(meta_range(b, &(struct meta_range){"v", last, revision, 0}, &page));
		CHECK(page.count > 0);
		count += (unsigned)page.count;
		revision = page.revision;
		more = page.more;
		snprintf(last, sizeof(last), "%s", page.entries[page.count - 1].key);
		meta_list_free(&page);
	}
	CHECK_EQ(count, 40);
	CHECK(pages > 1);
	free(value);
}

/* ---- racing --------------------------------------------------------------------------------------------------------------- */

struct racer {
	struct meta *m;
	unsigned wins;
	struct rt_group *group;
};

#define RACERS	     6u
#define RACER_ROUNDS 10u

/* Adds one to a counter, again and again, by swaps only. */
static void racer_main(void *arg)
{
	struct racer *r = arg;
	while (r->wins < RACER_ROUNDS) {
		struct meta_list found;
		char text[16];
		uint64_t revision;
		CHECK_OK(meta_get(r->m, "counter", &found));
		unsigned value = found.count ? (unsigned)atoi(found.entries[0].value) : 0;
		uint64_t mod_revision = found.count ? found.entries[0].mod_revision : 0;
		meta_list_free(&found);
		snprintf(text, sizeof(text), "%u", value + 1);
		int err = meta_put(r->m, "counter", text, strlen(text) + 1, mod_revision, 0, &revision);
		CHECK(err == 0 || err == OXE_DIFFERS);
		r->wins += err == 0;
	}
	group_done(r->group);
}

static void of_swaps_that_race_one_wins(struct meta *a, struct meta *b)
{
	struct racer racers[RACERS];
	struct rt_group group;
	struct meta_list found;
	group_init(&group);
	group_add(&group, RACERS);
	for (unsigned i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){.m = i % 2 ? b : a, .group = &group};
		fiber_spawn(rt_current(), "racer", racer_main, &racers[i]);
	}
	group_wait(&group);
	CHECK_OK(meta_get(a, "counter", &found));
	CHECK_EQ(atoi(found.entries[0].value), RACERS * RACER_ROUNDS);
	CHECK_EQ(found.entries[0].mod_revision, RACERS * RACER_ROUNDS);
	meta_list_free(&found);
}

/* ---- watching -------------------------------------------------------------------------------------------------------------- */

struct writer {
	struct meta *m;
	struct rt_group *group;
};

#define WRITER_ROUNDS 30u

/* Each transaction changes "w/1", "w/2" and something that is not watched. */
static void writer_main(void *arg)
{
	struct writer *w = arg;
	for (unsigned i = 0; i < WRITER_ROUNDS; i++) {
		struct meta_write writes[] = {{.key = "w/1", .value = &i, .value_len_bytes = sizeof(i)},
					      {.key = "x/1", .value = &i, .value_len_bytes = sizeof(i)},
					      {.key = "w/2", .value = &i, .value_len_bytes = sizeof(i)}};
		uint64_t revision;
		CHECK_OK(meta_commit(w->m, &(struct meta_txn){NULL, 0, writes, 3}, &revision));
		put(w->m, "x/2", "not watched");
	}
	group_done(w->group);
}

static void check_two_of_each(struct meta_watch *w, unsigned wanted)
{
	uint64_t last_revision = 0;
	for (unsigned seen = 0; seen < wanted;) {
		struct meta_list changes = next(w);
		CHECK_EQ(changes.count % 2, 0);
		for (size_t i = 0; i < changes.count; i += 2, seen += 2) {
			const struct meta_entry *e = &changes.entries[i];
			CHECK(e[0].mod_revision > last_revision);
			CHECK_EQ(e[0].mod_revision, e[1].mod_revision);
			CHECK(strncmp(e[0].key, "w/", 2) == 0 && strncmp(e[1].key, "w/", 2) == 0);
			CHECK(strcmp(e[0].key, e[1].key) != 0);
			CHECK(memcmp(e[0].value, e[1].value, sizeof(unsigned)) == 0);
			last_revision = e[0].mod_revision;
		}
		CHECK_EQ(changes.revision, last_revision);
		meta_list_free(&changes);
	}
}

static void a_watch_sees_every_change_once_in_order_and_whole(struct meta *a, struct meta *b)
{
	struct rt_group group;
	struct writer writers[] = {{a, &group}, {b, &group}};
	struct meta_watch *live = watch(a, "w/", 1), *late;
	struct meta_list nothing;
	group_init(&group);
	group_add(&group, 2);
	for (unsigned i = 0; i < 2; i++)
		fiber_spawn(rt_current(), "writer", writer_main, &writers[i]);
	check_two_of_each(live, 2 * 2 * WRITER_ROUNDS);
	group_wait(&group);
	late = watch(b, "w/", 1);
	check_two_of_each(late, 2 * 2 * WRITER_ROUNDS);
	CHECK_ERR(meta_watch_next(live, in_ns(20 * NS_PER_MS), &nothing), OXE_TIMEOUT);
	CHECK_ERR(meta_watch_next(late, 0, &nothing), OXE_TIMEOUT);
	meta_watch_close(live);
	meta_watch_close(late);
}

static void a_list_and_a_watch_from_there_miss_nothing(struct meta *a, struct meta *b)
{
	struct meta_list list, changes, nothing;
	uint64_t deleted;
	put(a, "k/1", "old");
	CHECK_OK(meta_range(a, &(struct meta_range){.prefix = "k/"}, &list));
	uint64_t put_at = put(b, "k/2", "new");
	CHECK_OK(meta_delete(b, "k/1", META_ANY, &deleted));
	struct meta_watch *w = watch(a, "k/", list.revision + 1);
	changes = next(w);
	CHECK(entry_is(&changes.entries[0], "k/2", "new"));
	CHECK_EQ(changes.entries[0].mod_revision, put_at);
	if (changes.count == 1) {
		meta_list_free(&changes);
		changes = next(w);
	}
	const struct meta_entry *last = &changes.entries[changes.count - 1];
	CHECK(last->deleted && strcmp(last->key, "k/1") == 0 && !last->value);
	CHECK_EQ(last->mod_revision, deleted);
	CHECK_ERR(meta_watch_next(w, in_ns(20 * NS_PER_MS), &nothing), OXE_TIMEOUT);
	meta_list_free(&list);
	meta_list_free(&changes);
	meta_watch_close(w);
}

struct canceller {
	struct meta_watch *w;
	struct rt_group group;
	int err;
};

static void waiter_main(void *arg)
{
	struct canceller *c = arg;
	struct meta_list nothing;
	c->err = meta_watch_next(c->w, UINT64_MAX, &nothing);
	group_done(&c->group);
}

static void a_watch_can_be_cancelled(struct meta *a, struct meta *b)
{
	struct canceller c = {.w = watch(a, "", 1)};
	struct meta_list nothing;
	(void)b;
	group_init(&c.group);
	group_add(&c.group, 1);
	fiber_spawn(rt_current(), "waiter", waiter_main, &c);
	fiber_yield(); /* it waits, or is about to: both must end */
	meta_watch_cancel(c.w);
	group_wait(&c.group);
	CHECK_ERR(c.err, OXE_CANCELLED);
	CHECK_ERR(meta_watch_next(c.w, UINT64_MAX, &nothing), OXE_CANCELLED);
	meta_watch_close(c.w);
}

/* ---- compaction -------------------------------------------------------------------------------------------------------------- */

static void what_is_compacted_is_refused_and_what_is_current_stays(struct meta *a, struct meta *b)
{
	struct meta_list list;
	uint64_t revision = put(a, "kept", "long ago"), deleted;
	put(a, "gone", "long ago");
	CHECK_OK(meta_delete(a, "gone", META_ANY, &deleted));
	struct meta_watch *slow = watch(b, "", 1), *late;
	for (unsigned i = 0; i < META_CONTRACT_KEEP + 20; i++)
		revision = put(a, "busy", "often");
	CHECK_ERR(meta_watch_next(slow, in_ns(SOON_NS), &list), OXE_COMPACTED);
	meta_watch_close(slow);
	CHECK_ERR(meta_range(b, &(struct meta_range){.prefix = "", .revision = 3}, &list), OXE_COMPACTED);
	CHECK_ERR(meta_range(b, &(struct meta_range){.prefix = "", .revision = revision + 1}, &list),
		  OXE_RANGE);
	CHECK_OK(meta_range(b, &(struct meta_range){.prefix = ""}, &list));
	CHECK_EQ(list.count, 2);
	CHECK(entry_is(&list.entries[0], "busy", "often") && entry_is(&list.entries[1], "kept", "long ago"));
	meta_list_free(&list);
	late = watch(b, "", revision - META_CONTRACT_KEEP + 1);
	for (unsigned seen = 0; seen < META_CONTRACT_KEEP; meta_list_free(&list)) {
		list = next(late);
		seen += (unsigned)list.count;
		CHECK(seen <= META_CONTRACT_KEEP);
	}
	meta_watch_close(late);
	late = watch(b, "", revision + 2);
	CHECK_ERR(meta_watch_next(late, in_ns(SOON_NS), &list), OXE_RANGE);
	meta_watch_close(late);
}

static void quiet_main(void *arg)
{
	struct canceller *c = arg;
	struct meta_list changes = {0};
	c->err = meta_watch_next(c->w, in_ns(SOON_NS), &changes);
	CHECK(c->err || entry_is(&changes.entries[0], "quiet/1", "x"));
	meta_list_free(&changes);
	group_done(&c->group);
}

static void a_watch_that_waits_is_not_cut_by_what_others_change(struct meta *a, struct meta *b)
{
	struct canceller c = {.w = watch(b, "quiet/", 1)};
	group_init(&c.group);
	group_add(&c.group, 1);
	fiber_spawn(rt_current(), "quiet", quiet_main, &c);
	for (unsigned i = 0; i < 2 * META_CONTRACT_KEEP; i++)
		put(a, "busy", "often");
	put(a, "quiet/1", "x");
	group_wait(&c.group);
	CHECK_OK(c.err);
	meta_watch_close(c.w);
}

/* ---- leases -------------------------------------------------------------------------------------------------------------------- */

static void keys_vanish_with_their_lease_at_once_and_not_too_soon(struct meta *a, struct meta *b)
{
	uint64_t until_ns, revision;
	CHECK_OK(meta_lease_grant(a, 77, 1, &until_ns));
	CHECK_OK(meta_put(a, "l/1", "x", 1, 0, 77, &revision));
	CHECK_OK(meta_put(a, "l/2", "x", 1, 0, 77, &revision));
	CHECK_OK(meta_put(a, "l/3", "x", 1, 0, 77, &revision));
	CHECK_OK(meta_put(a, "l/3", "x", 1, META_ANY, 0, &revision));
	struct meta_watch *w = watch(b, "l/", revision + 1);
	struct meta_list changes = next(w);
	CHECK(rt_now_exact_ns(rt_current()) >= until_ns);
	CHECK_EQ(changes.count, 2);
	for (size_t i = 0; i < 2; i++) {
		CHECK(changes.entries[i].deleted);
		CHECK_EQ(changes.entries[i].mod_revision, revision + 1);
	}
	meta_list_free(&changes);
	meta_watch_close(w);
	check_absent(a, "l/1");
	check_absent(a, "l/2");
	check_value(a, "l/3", "x");
	CHECK_ERR(meta_lease_keep(a, 77, &until_ns), OXE_NOENT);
	CHECK_ERR(meta_put(a, "l/1", "x", 1, 0, 77, &revision), OXE_NOENT);
}

/* Held as long as its holder could be sure of it; a machine that stalls makes the holder unsure, not the store wrong. */
static void a_lease_that_is_kept_alive_lasts(struct meta *a, struct meta *b)
{
	uint64_t until_ns, revision, began_ns = in_ns(0);
	struct meta_list found;
	CHECK_OK(meta_lease_grant(a, 5, 2, &until_ns));
	CHECK_OK(meta_put(a, "held", "x", 1, 0, 5, &revision));
	for (unsigned i = 0; i < 8; i++) {
		fiber_sleep(500 * NS_PER_MS);
		uint64_t was_until_ns = until_ns;
		CHECK_OK(meta_get(b, "held", &found));
		CHECK(found.count == 1 || in_ns(0) >= was_until_ns);
		meta_list_free(&found);
		int err = meta_lease_keep(a, 5, &until_ns);
		if (err && in_ns(0) >= was_until_ns)
			return;
		CHECK_OK(err);
		CHECK(until_ns >= was_until_ns);
	}
	CHECK(in_ns(0) > began_ns + 3 * NS_PER_S);
}

static void a_lease_can_be_asked_for_twice_and_ended_twice(struct meta *a, struct meta *b)
{
	uint64_t until_ns, revision, last;
	CHECK_OK(meta_lease_grant(a, 9, 60, &until_ns));
	CHECK_OK(meta_lease_grant(b, 9, 60, &until_ns));
	CHECK_ERR(meta_lease_grant(b, 9, 61, &until_ns), OXE_EXISTS);
	CHECK_OK(meta_put(b, "mine", "x", 1, 0, 9, &revision));
	CHECK_OK(meta_put(b, "other", "x", 1, 0, 0, &revision));
	CHECK_OK(meta_lease_revoke(b, 9));
	CHECK_OK(meta_lease_revoke(a, 9));
	check_absent(a, "mine");
	check_value(a, "other", "x");
	CHECK_OK(meta_delete(a, "mine", META_ANY, &last));
	CHECK_EQ(last, revision + 1);
	CHECK_OK(meta_lease_grant(a, 9, 61, &until_ns)); /* a new one: nothing hangs on it */
	CHECK_OK(meta_lease_revoke(a, 9));
}

/* ---- outcomes --------------------------------------------------------------------------------------------------------------------- */

static void what_is_settled_is_done_once(struct meta *a, struct meta *b)
{
	uint64_t revision, again;
	struct meta_compare absent = {"s", 0};
	struct meta_write write = {.key = "s", .value = "id 1", .value_len_bytes = 4};
	struct meta_txn txn = {&absent, 1, &write, 1};
	CHECK_OK(meta_commit_settled(a, &txn, in_ns(SOON_NS), &revision));
	CHECK_ERR(meta_commit_settled(b, &txn, in_ns(SOON_NS), &again), OXE_DIFFERS);
	CHECK_EQ(mod_of(a, "s"), revision);
	txn.compare_count = 0;
	CHECK_ERR(meta_commit_settled(a, &txn, in_ns(SOON_NS), &revision), OXE_INVAL);
}

#define CONTRACT(fn)                                                                                         \
	{                                                                                                    \
#fn, fn                                                                                      \
	}

const struct meta_contract meta_contracts[] = {
	CONTRACT(a_key_that_is_absent_has_revision_0),
	CONTRACT(each_change_adds_one_and_nothing_else_does),
	CONTRACT(there_and_back_again_is_a_change),
	CONTRACT(a_value_may_be_any_bytes_up_to_the_bound),
	CONTRACT(what_no_store_could_hold_is_refused),
	CONTRACT(a_transaction_happens_wholly_or_not_at_all),
	CONTRACT(pages_are_of_one_moment),
	CONTRACT(a_page_of_large_values_ends_early_and_says_so),
	CONTRACT(of_swaps_that_race_one_wins),
	CONTRACT(a_watch_sees_every_change_once_in_order_and_whole),
	CONTRACT(a_list_and_a_watch_from_there_miss_nothing),
	CONTRACT(a_watch_can_be_cancelled),
	CONTRACT(what_is_compacted_is_refused_and_what_is_current_stays),
	CONTRACT(a_watch_that_waits_is_not_cut_by_what_others_change),
	CONTRACT(keys_vanish_with_their_lease_at_once_and_not_too_soon),
	CONTRACT(a_lease_that_is_kept_alive_lasts),
	CONTRACT(a_lease_can_be_asked_for_twice_and_ended_twice),
	CONTRACT(what_is_settled_is_done_once),
	{NULL, NULL},
};
