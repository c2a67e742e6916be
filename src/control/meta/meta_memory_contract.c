/* meta_memory_contract.c: machines in the simulator that share a store in memory, and what must hold for them. */
#include "control/meta/meta_memory_contract.h"

#include "base/test.h"
#include "control/meta/meta_contract.h"
#include "control/meta/meta_linear_contract.h"
#include "control/meta/meta_memory.h"
#include "sim/sim.h"

#include <stdio.h>

#define CLIENTS 3u

/* ---- the world -------------------------------------------------------------------------------------------------------- */

struct world {
	struct sim *sim;
	struct meta_memory *store;
	struct sim_node *nodes[CLIENTS];
	struct meta *clients[CLIENTS];
	struct prng rng; /* the test's own choices */
	unsigned running;
	bool done;
	uint64_t seed;
	void *test;
};

#define PROMISE(w, cond)                                                                                     \
	do {                                                                                                 \
		if (!(cond))                                                                                 \
			test_fail(__FILE__, __LINE__, "%s, seed %llu", #cond,                                \
				  (unsigned long long)(w)->seed);                                            \
	} while (0)

static struct world *world_new(uint64_t seed, uint64_t keep_revisions)
{
	struct world *w = mem_zalloc(sizeof(*w));
	w->seed = seed;
	w->sim = sim_new(seed);
	sim_shuffle(w->sim, seed & 1);
	prng_seed(&w->rng, seed ^ 0x6d657461);
	w->store = meta_memory_new(sim_node_start(sim_node_new(w->sim, "store")), seed, keep_revisions);
	for (unsigned i = 0; i < CLIENTS; i++) {
		w->nodes[i] = sim_node_new(w->sim, "client");
		w->clients[i] = meta_memory_client(w->store, sim_node_start(w->nodes[i]));
	}
	return w;
}

static void world_spawn(struct world *w, unsigned client, void (*fn)(void *arg), void *arg)
{
	w->running++;
	fiber_spawn(sim_node_rt(w->nodes[client]), "client", fn, arg);
}

/* At the end of each fiber. */
static void world_leave(struct world *w)
{
	w->done = --w->running == 0;
}

static void world_run(struct world *w)
{
	w->done = false;
	PROMISE(w, sim_run(w->sim, &w->done, sim_now_ns(w->sim) + 3600 * NS_PER_S) == SIM_DONE);
}

static void world_free(struct world *w)
{
	sim_free(w->sim);
	meta_memory_free(w->store);
	free(w);
}

static uint64_t draw(struct world *w, uint64_t bound)
{
	return prng_below(&w->rng, bound);
}

/* Some of the faults, in some strength. */
static void faults_draw(struct world *w, struct meta_memory_faults *f)
{
	*f = (struct meta_memory_faults){.delay_max_ns = draw(w, 20) * NS_PER_MS,
					 .limit_ns = 200 * NS_PER_MS,
					 .late_ns = 2 * NS_PER_S,
					 .outage_min_ns = NS_PER_MS,
					 .outage_max_ns = NS_PER_S};
	uint32_t *chances[] = {&f->refused_one_in, &f->lost_request_one_in, &f->lost_answer_one_in,
			       &f->reset_one_in,   &f->late_one_in,	    &f->outage_one_in};
	for (unsigned i = 0; i < ARRAY_COUNT(chances); i++)
		*chances[i] = draw(w, 2) ? 4 + (uint32_t)draw(w, 20) : 0;
}

/* ---- contracts ---------------------------------------------------------------------------------------------------------- */

struct contract_run {
	struct world *w;
	const struct meta_contract *contract;
};

static void contract_main(void *arg)
{
	struct contract_run *run = arg;
	run->contract->run(run->w->clients[0], run->w->clients[1]);
	world_leave(run->w);
}

void memory_run_contracts(uint64_t seed)
{
	for (const struct meta_contract *c = meta_contracts; c->name; c++) {
		struct contract_run run = {world_new(seed, META_CONTRACT_KEEP), c};
		struct rt *rt = sim_node_rt(run.w->nodes[0]);
		meta_memory_drop(run.w->clients[1]);
		run.w->clients[1] = meta_memory_client(run.w->store, rt); /* both on one reactor */
		for (unsigned i = 0; i < 2; i++)
			meta_memory_faults(run.w->clients[i])->delay_max_ns = seed % 3 * NS_PER_MS;
		world_spawn(run.w, 0, contract_main, &run);
		world_run(run.w);
		world_free(run.w);
	}
}

/* ---- registers ------------------------------------------------------------------------------------------------------------ */

#define REGISTERS     2u
#define REGISTER_OPS  16u /* each client */
#define REGISTER_PLAN (CLIENTS * REGISTER_OPS + 1)

static_assert(REGISTER_PLAN <= LINEAR_MAX_OPS, "the checker takes the history of a key whole");

/* What a client last knew of a key. */
struct token {
	uint32_t value;
	uint64_t mod_revision;
};

struct registers {
	struct linear_op ops[REGISTERS][REGISTER_PLAN];
	size_t counts[REGISTERS];
	uint32_t values; /* written so far: each once */
	unsigned unknown;
};

struct register_client {
	struct world *w;
	unsigned index;
	struct token tokens[REGISTERS];
	uint64_t revision; /* the newest it has heard of */
};

static const char *const register_keys[REGISTERS] = {"r/0", "r/1"};

static uint64_t now_ns(void)
{
	return rt_now_exact_ns(rt_current());
}

static void registers_note(struct world *w, unsigned key, struct linear_op op)
{
	struct registers *r = w->test;
	op.answered = now_ns();
	assert(r->counts[key] < REGISTER_PLAN);
	r->ops[key][r->counts[key]++] = op;
	r->unknown += op.kind == LINEAR_UNKNOWN;
}

static void register_hear(struct register_client *c, uint64_t revision)
{
	PROMISE(c->w, revision >= c->revision); /* linearizable, so it never goes back for one client */
	c->revision = revision;
}

static void register_read(struct register_client *c, unsigned key)
{
	struct linear_op op = {.kind = LINEAR_READ, .called = now_ns()};
	struct meta_list found;
	int err = meta_get(c->w->clients[c->index], register_keys[key], &found);
	if (err) {
		PROMISE(c->w, err == OXE_NOTREADY);
		return;
	}
	register_hear(c, found.revision);
	c->tokens[key] = (struct token){0};
	if (found.count) {
		memcpy(&c->tokens[key].value, found.entries[0].value, sizeof(uint32_t));
		c->tokens[key].mod_revision = found.entries[0].mod_revision;
	}
	meta_list_free(&found);
	op.value = c->tokens[key].value;
	registers_note(c->w, key, op);
}

static void register_outcome(struct register_client *c, unsigned key, struct linear_op op, int err,
			     uint64_t revision, bool is_settled)
{
	PROMISE(c->w, err == 0 || err == OXE_DIFFERS || err == OXE_INDOUBT || err == OXE_NOTREADY);
	if (err == OXE_NOTREADY)
		return;
	op.kind = err == 0	       ? LINEAR_SWAP
		  : err == OXE_INDOUBT ? LINEAR_UNKNOWN
		  : is_settled	       ? LINEAR_OR_NOT
				       : LINEAR_DIFFERS;
	registers_note(c->w, key, op);
	if (err)
		return;
	if (!is_settled) /* else it may be of an attempt some time ago */
		register_hear(c, revision);
	c->tokens[key] = (struct token){op.value, op.value ? revision : 0};
}

/* Deletes, and creations, are not settled: see meta.h about names that are used again. */
static void register_swap(struct register_client *c, unsigned key)
{
	struct registers *r = c->w->test;
	struct token *token = &c->tokens[key];
	struct linear_op op = {.expected = token->value, .value = ++r->values, .called = now_ns()};
	struct meta_compare compare = {register_keys[key], token->mod_revision};
	struct meta_write write = {
		.key = register_keys[key], .value = &op.value, .value_len_bytes = sizeof(op.value)};
	bool is_settled = token->value && draw(c->w, 2);
	uint64_t revision = 0;
	if (!is_settled && token->value && draw(c->w, 4) == 0) {
		write = (struct meta_write){.key = register_keys[key], .is_delete = true};
		op.value = 0;
	}
	struct meta_txn txn = {&compare, 1, &write, 1};
	struct meta *m = c->w->clients[c->index];
	int err = is_settled ? meta_commit_settled(m, &txn, now_ns() + draw(c->w, 4) * NS_PER_S, &revision)
			     : meta_commit(m, &txn, &revision);
	register_outcome(c, key, op, err, revision, is_settled);
}

static void register_main(void *arg)
{
	struct register_client *c = arg;
	for (unsigned i = 0; i < REGISTER_OPS; i++) {
		unsigned key = (unsigned)draw(c->w, REGISTERS);
		if (draw(c->w, 3) == 0)
			register_read(c, key);
		else
			register_swap(c, key);
		if (draw(c->w, 3) == 0)
			fiber_sleep(draw(c->w, 100) * NS_PER_MS);
	}
	world_leave(c->w);
}

/* When everything late has arrived, what is there is a read like any other. */
static void register_end_main(void *arg)
{
	struct register_client *c = arg;
	*meta_memory_faults(c->w->clients[c->index]) = (struct meta_memory_faults){0};
	fiber_sleep(10 * NS_PER_S);
	for (unsigned key = 0; key < REGISTERS; key++)
		register_read(c, key);
	world_leave(c->w);
}

static uint64_t registers_hash(const struct registers *r)
{
	uint64_t hash = 0;
	for (unsigned key = 0; key < REGISTERS; key++) {
		for (size_t i = 0; i < r->counts[key]; i++) {
			const struct linear_op *op = &r->ops[key][i];
			hash = hash_u64(hash ^ op->kind) ^ op->expected;
			hash = hash_u64(hash ^ (uint64_t)op->value << 32);
			hash = hash_u64(hash ^ op->called) ^ op->answered;
		}
	}
	return hash;
}

uint64_t memory_run_registers(uint64_t seed, unsigned *unknown)
{
	struct world *w = world_new(seed, 1 + seed % 7);
	struct registers *r = w->test = mem_zalloc(sizeof(*r));
	struct register_client clients[CLIENTS];
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct register_client){.w = w, .index = i};
		faults_draw(w, meta_memory_faults(w->clients[i]));
		world_spawn(w, i, register_main, &clients[i]);
	}
	world_run(w);
	world_spawn(w, 0, register_end_main, &clients[0]);
	world_run(w);
	for (unsigned key = 0; key < REGISTERS; key++)
		PROMISE(w, linear_check(r->ops[key], r->counts[key]));
	*unknown = r->unknown;
	uint64_t hash = registers_hash(r);
	free(r);
	world_free(w);
	return hash;
}

/* ---- watches --------------------------------------------------------------------------------------------------------------- */

#define WATCH_ROUNDS 40u
#define WATCH_KEYS   5u
#define WATCHES	     2u
#define WATCH_END    "w/end"

struct heard {
	uint64_t hash; /* of every change, in order */
	uint64_t count, revision, batches;
};

struct watches {
	struct heard truth, heard[WATCHES];
	unsigned cuts;
	bool written;
};

struct watch_client {
	struct world *w;
	unsigned index;
};

static void heard_add(struct heard *h, const struct meta_entry *e)
{
	h->hash = hash_u64(h->hash ^ hash_bytes(e->key, strlen(e->key)));
	h->hash = hash_u64(h->hash ^ hash_u64(e->mod_revision * 2 + e->deleted));
	h->hash = hash_u64(h->hash ^ hash_bytes(e->deleted ? "" : e->value, e->value_len_bytes));
	h->count++;
}

/* True once the last change is among them. */
static bool heard_list(struct world *w, struct heard *h, const struct meta_list *changes)
{
	bool is_end = false;
	for (size_t i = 0; i < changes->count; i++) {
		heard_add(h, &changes->entries[i]);
		is_end |= strcmp(changes->entries[i].key, WATCH_END) == 0;
	}
	PROMISE(w, changes->entries[0].mod_revision > h->revision);
	PROMISE(w, changes->entries[changes->count - 1].mod_revision == changes->revision);
	h->revision = changes->revision;
	h->batches++;
	return is_end;
}

/* Hears everything. One in a few times it closes the watch and opens another from where it was. */
static void heard_all(struct world *w, struct meta *m, struct heard *h)
{
	struct meta_watch *watch = NULL;
	for (bool is_end = false; !is_end;) {
		struct meta_list changes;
		if (!watch)
			CHECK_OK(meta_watch_open(m, "w/", h->revision + 1, &watch));
		int err = meta_watch_next(watch, now_ns() + (1 + draw(w, 30)) * NS_PER_S, &changes);
		PROMISE(w, err == 0 || err == OXE_TIMEOUT);
		if (!err)
			is_end = heard_list(w, h, &changes);
		meta_list_free(&changes);
		if (is_end || draw(w, 8) == 0) {
			meta_watch_close(watch);
			watch = NULL;
		}
	}
}

static void watch_main(void *arg)
{
	struct watch_client *c = arg;
	struct watches *t = c->w->test;
	heard_all(c->w, c->w->clients[c->index], &t->heard[c->index]);
	world_leave(c->w);
}

static void watch_truth_main(void *arg)
{
	struct watch_client *c = arg;
	struct watches *t = c->w->test;
	*meta_memory_faults(c->w->clients[c->index]) = (struct meta_memory_faults){0};
	heard_all(c->w, c->w->clients[c->index], &t->truth);
	world_leave(c->w);
}

/* Once, whatever outages the others still cause. */
static void watch_write_end(struct meta *m)
{
	struct meta_compare absent = {WATCH_END, 0};
	struct meta_write end = {.key = WATCH_END, .value = "the end", .value_len_bytes = 7};
	uint64_t revision;
	CHECK_OK(meta_commit_settled(m, &(struct meta_txn){&absent, 1, &end, 1}, UINT64_MAX, &revision));
}

static void watch_writer_main(void *arg)
{
	struct watch_client *c = arg;
	struct watches *t = c->w->test;
	struct meta *m = c->w->clients[c->index];
	char keys[WATCH_KEYS][16];
	for (unsigned i = 0; i < WATCH_ROUNDS; i++) {
		struct meta_write writes[WATCH_KEYS];
		uint64_t revision, count = 1 + draw(c->w, WATCH_KEYS);
		for (unsigned k = 0; k < count; k++) {
			snprintf(keys[k], sizeof(keys[k]), "%c/%u", draw(c->w, 4) ? 'w' : 'x', k);
			writes[k] = (struct meta_write){.key = keys[k], .value = &i, .value_len_bytes = 4};
			if (draw(c->w, 3) == 0)
				writes[k] = (struct meta_write){.key = keys[k], .is_delete = true};
		}
		(void)!meta_commit(m, &(struct meta_txn){NULL, 0, writes, count}, &revision);
		fiber_sleep(draw(c->w, 300) * NS_PER_MS);
	}
	*meta_memory_faults(m) = (struct meta_memory_faults){0};
	fiber_sleep(5 * NS_PER_S); /* what is late arrives before the end */
	watch_write_end(m);
	t->written = true;
	world_leave(c->w);
}

/* Partitions of the two that watch. */
static void watch_chaos_main(void *arg)
{
	struct watch_client *c = arg;
	struct watches *t = c->w->test;
	while (!t->written) {
		struct meta_memory_faults *f = meta_memory_faults(c->w->clients[draw(c->w, WATCHES)]);
		f->cut = !f->cut;
		t->cuts += f->cut;
		fiber_sleep(draw(c->w, 3000) * NS_PER_MS);
	}
	for (unsigned i = 0; i < WATCHES; i++)
		meta_memory_faults(c->w->clients[i])->cut = false;
	world_leave(c->w);
}

unsigned memory_run_watches(uint64_t seed)
{
	struct world *w = world_new(seed, 0);
	struct watches *t = w->test = mem_zalloc(sizeof(*t));
	struct watch_client clients[CLIENTS];
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct watch_client){w, i};
		faults_draw(w, meta_memory_faults(w->clients[i]));
		world_spawn(w, i, i < WATCHES ? watch_main : watch_writer_main, &clients[i]);
	}
	world_spawn(w, 2, watch_chaos_main, &clients[2]);
	world_run(w);
	world_spawn(w, 2, watch_truth_main, &clients[2]);
	world_run(w);
	for (unsigned i = 0; i < WATCHES; i++) {
		PROMISE(w, t->heard[i].count == t->truth.count);
		PROMISE(w, t->heard[i].hash == t->truth.hash);
	}
	unsigned cuts = t->cuts;
	free(t);
	world_free(w);
	return cuts;
}

/* ---- locks ------------------------------------------------------------------------------------------------------------------ */

#define LOCK_KEY   "lock"
#define LOCK_TTL_S 2u
#define LOCK_FOR   (60 * NS_PER_S)

struct locks {
	uint64_t sure_until_ns[CLIENTS]; /* each client of itself; 0: not at all */
	unsigned taken;
};

struct lock_client {
	struct world *w;
	unsigned index;
	uint64_t lease;
};

static void lock_sure(struct lock_client *c, uint64_t until_ns)
{
	struct locks *t = c->w->test;
	for (unsigned i = 0; i < CLIENTS; i++)
		PROMISE(c->w, i == c->index || t->sure_until_ns[i] <= now_ns());
	t->sure_until_ns[c->index] = until_ns;
}

/* Whether the key is there with this client's lease: then it was this client that put it. */
static bool lock_is_mine(struct lock_client *c)
{
	struct meta_list found;
	if (meta_get(c->w->clients[c->index], LOCK_KEY, &found))
		return false;
	bool is_mine = found.count && found.entries[0].lease == c->lease;
	meta_list_free(&found);
	return is_mine;
}

static bool lock_take(struct lock_client *c, uint64_t *until_ns)
{
	struct meta *m = c->w->clients[c->index];
	uint64_t revision;
	c->lease = 1 + draw(c->w, META_LEASE_MAX_ID);
	if (meta_lease_grant(m, c->lease, LOCK_TTL_S, until_ns))
		return false;
	int err = meta_put(m, LOCK_KEY, "", 0, 0, c->lease, &revision);
	return err == 0 || (err == OXE_INDOUBT && lock_is_mine(c));
}

/* Until it is told otherwise, or cannot be sure, or lets go. */
static void lock_hold(struct lock_client *c, uint64_t until_ns)
{
	struct locks *t = c->w->test;
	struct meta *m = c->w->clients[c->index];
	bool is_held = now_ns() < until_ns;
	t->taken += is_held;
	while (is_held && draw(c->w, 10)) {
		uint64_t next_ns;
		lock_sure(c, until_ns);
		fiber_sleep(draw(c->w, 1000) * NS_PER_MS);
		if (meta_lease_keep(m, c->lease, &next_ns) == 0)
			until_ns = u64_max(until_ns, next_ns);
		is_held = now_ns() < until_ns;
	}
	t->sure_until_ns[c->index] = 0;
	(void)!meta_lease_revoke(m, c->lease);
}

static void lock_main(void *arg)
{
	struct lock_client *c = arg;
	while (sim_now_ns(c->w->sim) < LOCK_FOR) {
		uint64_t until_ns;
		if (lock_take(c, &until_ns))
			lock_hold(c, until_ns);
		fiber_sleep(draw(c->w, 500) * NS_PER_MS);
	}
	world_leave(c->w);
}

static void lock_start(struct world *w, struct lock_client *c)
{
	faults_draw(w, meta_memory_faults(w->clients[c->index]));
	meta_memory_faults(w->clients[c->index])->cut = draw(w, 8) == 0;
	world_spawn(w, c->index, lock_main, c);
}

/* kill -9 of one machine's process, and a new one. */
static void lock_kill(void *arg)
{
	struct lock_client *c = arg;
	struct locks *t = c->w->test;
	if (sim_now_ns(c->w->sim) >= LOCK_FOR)
		return;
	sim_node_kill(c->w->nodes[c->index]);
	meta_memory_drop(c->w->clients[c->index]);
	t->sure_until_ns[c->index] = 0;
	c->w->running--;
	c->w->clients[c->index] = meta_memory_client(c->w->store, sim_node_start(c->w->nodes[c->index]));
	lock_start(c->w, c);
	sim_at(c->w->sim, sim_now_ns(c->w->sim) + (1 + draw(c->w, 20)) * NS_PER_S, lock_kill, c);
}

unsigned memory_run_locks(uint64_t seed)
{
	struct world *w = world_new(seed, 0);
	struct locks *t = w->test = mem_zalloc(sizeof(*t));
	struct lock_client clients[CLIENTS];
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct lock_client){.w = w, .index = i};
		lock_start(w, &clients[i]);
		sim_at(w->sim, (1 + draw(w, 30)) * NS_PER_S, lock_kill, &clients[i]);
	}
	world_run(w);
	unsigned taken = t->taken;
	world_free(w);
	free(t);
	return taken;
}
