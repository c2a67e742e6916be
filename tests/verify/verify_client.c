/*
 * verify_client.c: load whose every byte can be checked, on a volume over NBD, across any number of daemon deaths.
 *
 *     verify_client init   LEDGER TAG UNIT_BYTES UNITS
 *     verify_client load   ADDRESS EXPORT LEDGER SEED DEPTH [COMMANDS]
 *     verify_client check  ADDRESS EXPORT LEDGER [settle|after-power-cut]
 *     verify_client within ADDRESS EXPORT LEDGER_BEFORE LEDGER_AFTER
 *     verify_client adopt  ADDRESS EXPORT LEDGER
 *     verify_client hash   ADDRESS EXPORT UNIT_BYTES
 *
 * load    writes, zeroes, trims, flushes and reads back at random, DEPTH at a time, until SIGTERM, COMMANDS or the loss of
 *         the connection, and keeps the ledger. Each command's units are its own while it is in flight, so a read has one
 *         right answer.
 * check   reads everything: each unit must be as last acknowledged, or as a command sent later and never answered. `settle`
 *         writes down what it found, so that what was seen once is the only right answer from then on.
 * within  reads a snapshot that was taken between two copies of the ledger: each unit as of some moment in between.
 * adopt   takes what is there for right (a clone, a revert), and forbids what the ledger's own commands wrote until now.
 * hash    prints the hash alone; every unit must be whole.
 *
 * check, within, adopt and hash print `hash=H units=N zero=N`. Two contents are equal if and only if their hashes are.
 * Exit status: 0 well, 1 a promise broken (what and where is on stderr), 2 could not ask, 3 the connection was lost.
 */
#include "ledger.h"
#include "nbd_client.h"

#include "base/prng.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define DEPTH_MAX	  64
#define COMMAND_UNITS_MAX 16
#define READ_CHUNK_BYTES  (256 * 1024)
#define READS_BYTES_MAX                                                                                      \
	(64 * 1024) /* in flight: what fits the socket, so that our sends never wait for our reads */
#define COMPLAINTS_MAX 8
#define NBD_ENOSPC     28
#define EXIT_BROKEN    1
#define EXIT_CANNOT    2
#define EXIT_LOST      3

static volatile sig_atomic_t stop_asked;

static void ask_stop(int signal_number)
{
	(void)signal_number;
	stop_asked = 1;
}

/* ---- load ---------------------------------------------------------------------------------------------------------- */

struct slot {
	bool busy;
	struct nbd_command command;
	uint32_t first, count, seq; /* units; seq of a change */
};

struct load {
	struct nbd_client nbd;
	struct ledger *ledger;
	struct prng rng;
	struct slot slots[DEPTH_MAX];
	uint32_t depth, in_flight, reads_bytes;
	uint64_t commands, limit, refused;
	uint8_t *unit_busy;
	uint32_t *flush_acked; /* what was acknowledged when the flush in flight was sent */
	bool flushing;
	void *buffer;
};

/* Half of the load on a twentieth of the volume, so that blocks are overwritten while they are still warm. */
static uint32_t pick_unit(struct load *l)
{
	uint32_t units = l->ledger->unit_count;
	uint32_t range = prng_one_in(&l->rng, 2) ? units / 20 + 1 : units;
	return (uint32_t)prng_below(&l->rng, range);
}

static bool units_free(struct load *l, uint32_t first, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (l->unit_busy[first + i])
			return false;
	}
	return true;
}

static void units_mark(struct load *l, const struct slot *s, bool busy)
{
	memset(l->unit_busy + s->first, busy, s->count);
}

static struct slot *slot_free(struct load *l)
{
	for (uint32_t i = 0; i < l->depth; i++) {
		if (!l->slots[i].busy)
			return &l->slots[i];
	}
	return NULL;
}

/* Zeroes by the command the seed likes. TRIM only of whole 4 KiB blocks: of less it is advice, and may change nothing. */
static void slot_plan_zero(struct load *l, struct slot *s)
{
	s->command.type = NBD_WRITE_ZEROES;
	if (l->ledger->unit_bytes == 4096 && prng_one_in(&l->rng, 2))
		s->command.type = NBD_TRIM;
	else if (prng_one_in(&l->rng, 4))
		s->command.flags |= NBD_NO_HOLE;
}

static void slot_plan_change(struct load *l, struct slot *s)
{
	s->seq = l->ledger->next_seq++;
	s->command.type = NBD_WRITE;
	if (prng_one_in(&l->rng, 32))
		s->command.flags |= NBD_FUA;
	if (command_is_zero(l->ledger->tag, s->seq))
		slot_plan_zero(l, s);
}

static void slot_plan_flush(struct load *l, struct slot *s)
{
	s->command.type = NBD_FLUSH;
	l->flushing = true;
	for (uint32_t i = 0; i < l->ledger->unit_count; i++)
		l->flush_acked[i] = l->ledger->units[i].acked;
}

/* Decide what to do next on free units. False: nothing fits right now. */
static bool slot_plan(struct load *l, struct slot *s)
{
	uint32_t unit_bytes = l->ledger->unit_bytes;
	*s = (struct slot){.command.cookie = (uint64_t)(s - l->slots)};
	if (!l->flushing && prng_one_in(&l->rng, 200)) {
		slot_plan_flush(l, s);
		return true;
	}
	s->first = pick_unit(l);
	s->count = prng_one_in(&l->rng, 4) ? 1 + (uint32_t)prng_below(&l->rng, COMMAND_UNITS_MAX) : 1;
	if (s->count > l->ledger->unit_count - s->first)
		s->count = l->ledger->unit_count - s->first;
	if (!units_free(l, s->first, s->count))
		return false;
	s->command.offset_bytes = (uint64_t)s->first * unit_bytes;
	s->command.len_bytes = s->count * unit_bytes;
	if (!prng_one_in(&l->rng, 4)) {
		slot_plan_change(l, s);
	} else if (l->reads_bytes + s->command.len_bytes > READS_BYTES_MAX) {
		return false;
	}
	return true;
}

static bool slot_send(struct load *l, struct slot *s)
{
	struct ledger *g = l->ledger;
	for (uint32_t i = 0; s->seq && i < s->count; i++) {
		g->units[s->first + i].issued = s->seq;
		if (s->command.type != NBD_WRITE)
			g->units[s->first + i].zeroed = s->seq;
		else
			stamp_fill((char *)l->buffer + i * g->unit_bytes, g->unit_bytes, g->tag, s->first + i,
				   s->seq);
	}
	units_mark(l, s, true);
	if (s->command.type == NBD_READ)
		l->reads_bytes += s->command.len_bytes;
	s->busy = true;
	l->in_flight++;
	l->commands++;
	return nbd_client_send(&l->nbd, &s->command, l->buffer);
}

static void change_acknowledged(struct ledger *g, const struct slot *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		struct ledger_unit *u = &g->units[s->first + i];
		u->acked_tag = g->tag;
		u->acked = s->seq;
	}
}

/* The pool was full: nothing has changed in the blocks this names (vol_write in pool.h). */
static void change_refused(struct load *l, const struct slot *s)
{
	l->refused++;
	for (uint32_t i = 0; i < s->count; i++) {
		struct ledger_unit *u = &l->ledger->units[s->first + i];
		u->issued = u->acked;
	}
}

static void flush_acknowledged(struct load *l)
{
	l->flushing = false;
	for (uint32_t i = 0; i < l->ledger->unit_count; i++)
		l->ledger->units[i].flushed = l->flush_acked[i];
}

static void read_verify(struct load *l, const struct slot *s)
{
	struct ledger *g = l->ledger;
	for (uint32_t i = 0; i < s->count; i++) {
		const struct ledger_unit *u = &g->units[s->first + i];
		struct content c = content_of((char *)l->buffer + i * g->unit_bytes, g->unit_bytes);
		if (content_is(c, s->first + i, u->acked_tag, u->acked))
			continue;
		fprintf(stderr, "unit %u reads as %s; acknowledged was command %u of tag %u (%s)\n",
			s->first + i, content_text(c), u->acked, u->acked_tag,
			command_is_zero(u->acked_tag, u->acked) ? "zeroes" : "a stamp");
		exit(EXIT_BROKEN);
	}
}

static void slot_failed(struct load *l, const struct slot *s, uint32_t error)
{
	if (error == NBD_ENOSPC && s->seq) {
		change_refused(l, s);
		return;
	}
	fprintf(stderr, "command type %u at %llu, %u bytes, failed with NBD error %u\n", s->command.type,
		(unsigned long long)s->command.offset_bytes, s->command.len_bytes, error);
	exit(EXIT_BROKEN);
}

/* Take one reply. False: the connection is gone. */
static bool slot_complete(struct load *l)
{
	uint64_t cookie;
	uint32_t error;
	if (!nbd_client_reply(&l->nbd, &cookie, &error))
		return false;
	if (cookie >= l->depth || !l->slots[cookie].busy) {
		fprintf(stderr, "a reply names cookie %llu, which is not in flight\n",
			(unsigned long long)cookie);
		exit(EXIT_BROKEN);
	}
	struct slot *s = &l->slots[cookie];
	bool is_read = s->command.type == NBD_READ;
	if (is_read && !error && !nbd_client_data(&l->nbd, l->buffer, s->command.len_bytes))
		return false;
	if (error)
		slot_failed(l, s, error);
	else if (is_read)
		read_verify(l, s);
	else if (s->command.type == NBD_FLUSH)
		flush_acknowledged(l);
	else
		change_acknowledged(l->ledger, s);
	if (is_read)
		l->reads_bytes -= s->command.len_bytes;
	units_mark(l, s, false);
	s->busy = false;
	l->in_flight--;
	return true;
}

static bool load_wants_more(const struct load *l)
{
	return !stop_asked && (l->limit == 0 || l->commands < l->limit);
}

/* Until told to stop (true) or the connection is gone (false). */
static bool load_run(struct load *l)
{
	while (load_wants_more(l) || l->in_flight > 0) {
		struct slot *s = load_wants_more(l) ? slot_free(l) : NULL;
		if (s && slot_plan(l, s)) {
			if (!slot_send(l, s))
				return false;
		} else if (l->in_flight > 0 && !slot_complete(l)) {
			return false;
		}
	}
	return true;
}

/* The ledger follows the volume's size: a grown volume has new units, which read as zeroes. */
static void ledger_follow(struct ledger *g, const struct nbd_client *nbd)
{
	ledger_resize(g, (uint32_t)(nbd->size_bytes / g->unit_bytes));
}

static struct nbd_client open_or_exit(const char *address, const char *export_name)
{
	struct nbd_client nbd;
	if (!nbd_client_open(&nbd, address, export_name))
		exit(EXIT_LOST);
	return nbd;
}

static int command_load(char **args, int count)
{
	struct load l = {.ledger = ledger_open(args[2]), .depth = (uint32_t)atoi(args[4])};
	l.limit = count > 5 ? strtoull(args[5], NULL, 0) : 0;
	l.nbd = open_or_exit(args[0], args[1]);
	ledger_follow(l.ledger, &l.nbd);
	prng_seed(&l.rng, strtoull(args[3], NULL, 0));
	if (l.depth < 1 || l.depth > DEPTH_MAX)
		return EXIT_CANNOT;
	l.unit_busy = mem_zalloc(l.ledger->unit_count);
	l.flush_acked = mem_zalloc(l.ledger->unit_count * sizeof(*l.flush_acked));
	l.buffer = mem_alloc((size_t)COMMAND_UNITS_MAX * l.ledger->unit_bytes);
	bool stayed = load_run(&l);
	printf("%s after commands=%llu refused=%llu\n", stayed ? "stopped" : "lost",
	       (unsigned long long)l.commands, (unsigned long long)l.refused);
	nbd_client_close(&l.nbd);
	free(l.unit_busy);
	free(l.flush_acked);
	free(l.buffer);
	return stayed ? 0 : EXIT_LOST;
}

/* ---- reading it all ------------------------------------------------------------------------------------------------- */

struct survey {
	const struct ledger *before; /* within */
	struct ledger *ledger;
	bool (*is_right)(const struct survey *s, uint32_t index, struct content c);
	void (*keep)(struct ledger_unit *unit, struct content c); /* may be NULL */
	uint32_t unit_bytes;
	uint64_t units, zero, complaints, hash;
};

static void survey_unit(struct survey *s, uint32_t index, const void *data)
{
	struct content c = content_of(data, s->unit_bytes);
	if (c.kind == CONTENT_GARBAGE || !s->is_right(s, index, c)) {
		if (s->complaints++ < COMPLAINTS_MAX)
			fprintf(stderr, "unit %u (offset %llu) reads as %s", index,
				(unsigned long long)index * s->unit_bytes, content_text(c));
		if (s->complaints <= COMPLAINTS_MAX && s->ledger) {
			const struct ledger_unit *u = &s->ledger->units[index];
			fprintf(stderr, "; acknowledged %u of tag %u, issued %u, flushed %u", u->acked,
				u->acked_tag, u->issued, u->flushed);
		}
		if (s->complaints <= COMPLAINTS_MAX)
			fprintf(stderr, "\n");
	}
	s->units++;
	s->zero += c.kind == CONTENT_ZERO;
	uint64_t identity[3] = {c.kind, ((uint64_t)c.tag << 32) | c.seq, c.unit};
	s->hash = hash_u64(s->hash ^ hash_bytes(identity, sizeof(identity)));
	if (s->keep)
		s->keep(&s->ledger->units[index], c);
}

static bool read_chunk(struct nbd_client *nbd, void *data, uint64_t offset_bytes, uint32_t len_bytes)
{
	struct nbd_command read = {.type = NBD_READ, .offset_bytes = offset_bytes, .len_bytes = len_bytes};
	uint64_t cookie;
	uint32_t error;
	if (!nbd_client_send(nbd, &read, NULL) || !nbd_client_reply(nbd, &cookie, &error))
		exit(EXIT_LOST);
	if (error) {
		fprintf(stderr, "read of %u bytes at %llu failed with NBD error %u\n", len_bytes,
			(unsigned long long)offset_bytes, error);
		return false;
	}
	if (!nbd_client_data(nbd, data, len_bytes))
		exit(EXIT_LOST);
	return true;
}

static int survey_run(struct survey *s, struct nbd_client *nbd)
{
	char *data = mem_alloc(READ_CHUNK_BYTES);
	for (uint64_t at = 0; at < nbd->size_bytes; at += READ_CHUNK_BYTES) {
		uint32_t len_bytes = (uint32_t)u64_min(READ_CHUNK_BYTES, nbd->size_bytes - at);
		if (!read_chunk(nbd, data, at, len_bytes))
			return EXIT_BROKEN;
		for (uint32_t i = 0; i < len_bytes / s->unit_bytes; i++)
			survey_unit(s, (uint32_t)(at / s->unit_bytes) + i, data + (size_t)i * s->unit_bytes);
	}
	free(data);
	nbd_client_close(nbd);
	if (s->complaints)
		fprintf(stderr, "%llu units are not what was promised\n", (unsigned long long)s->complaints);
	return s->complaints ? EXIT_BROKEN : 0;
}

static int survey_print(const struct survey *s, int status)
{
	if (status == 0)
		printf("hash=%016llx units=%llu zero=%llu\n", (unsigned long long)s->hash,
		       (unsigned long long)s->units, (unsigned long long)s->zero);
	return status;
}

static bool right_anything(const struct survey *s, uint32_t index, struct content c)
{
	(void)s;
	return c.kind == CONTENT_ZERO || c.unit == index;
}

static bool right_acknowledged(const struct survey *s, uint32_t index, struct content c)
{
	const struct ledger_unit *u = &s->ledger->units[index];
	return content_is(c, index, u->acked_tag, u->acked) ||
	       (u->issued != u->acked && content_is(c, index, s->ledger->tag, u->issued));
}

/* As some command after `after` left it. A stamp of command `seq` in the unit means that the command was on this unit, so the
 * numbers in between need not be known one by one; zeroes need a zeroing command on this unit. */
static bool right_later(const struct survey *s, uint32_t index, struct content c, uint32_t after)
{
	const struct ledger_unit *u = &s->ledger->units[index];
	after = (uint32_t)u64_max(after, s->ledger->floor_seq);
	if (c.kind == CONTENT_STAMP)
		return c.unit == index && c.tag == s->ledger->tag && c.seq > after && c.seq <= u->issued;
	return u->zeroed > after;
}

static bool right_since_flush(const struct survey *s, uint32_t index, struct content c)
{
	uint32_t flushed = s->ledger->units[index].flushed;
	return right_acknowledged(s, index, c) || content_is(c, index, s->ledger->tag, flushed) ||
	       right_later(s, index, c, flushed);
}

static bool right_within(const struct survey *s, uint32_t index, struct content c)
{
	const struct ledger_unit *before = &s->before->units[index];
	return content_is(c, index, before->acked_tag, before->acked) ||
	       right_later(s, index, c, before->acked_tag == s->ledger->tag ? before->acked : 0);
}

static void keep_found(struct ledger_unit *unit, struct content c)
{
	*unit = (struct ledger_unit){.acked = c.seq, .acked_tag = c.tag, .issued = c.seq, .flushed = c.seq};
}

/* Nothing is settled unless all of it is right. */
static int survey_settle(struct survey *s, struct nbd_client *nbd)
{
	s->keep = keep_found;
	s->units = s->zero = s->hash = 0;
	return survey_run(s, nbd);
}

static int command_check(char **args, int count)
{
	const char *mode = count > 3 ? args[3] : "";
	struct nbd_client nbd = open_or_exit(args[0], args[1]);
	struct survey s = {.ledger = ledger_open(args[2]), .is_right = right_acknowledged};
	s.unit_bytes = s.ledger->unit_bytes;
	if (strcmp(mode, "after-power-cut") == 0)
		s.is_right = right_since_flush;
	if (nbd.size_bytes / s.unit_bytes < s.ledger->unit_count) {
		fprintf(stderr, "the volume has shrunk to %llu bytes\n", (unsigned long long)nbd.size_bytes);
		return EXIT_BROKEN;
	}
	ledger_follow(s.ledger, &nbd);
	int status = survey_run(&s, &nbd);
	if (status == 0 && mode[0]) {
		nbd = open_or_exit(args[0], args[1]);
		status = survey_settle(&s, &nbd);
	}
	return survey_print(&s, status);
}

static int command_within(char **args, int count)
{
	(void)count;
	struct nbd_client nbd = open_or_exit(args[0], args[1]);
	struct survey s = {
		.before = ledger_open(args[2]), .ledger = ledger_open(args[3]), .is_right = right_within};
	s.unit_bytes = s.ledger->unit_bytes;
	return survey_print(&s, survey_run(&s, &nbd));
}

static int command_adopt(char **args, int count)
{
	(void)count;
	struct nbd_client nbd = open_or_exit(args[0], args[1]);
	struct survey s = {.ledger = ledger_open(args[2]), .is_right = right_anything, .keep = keep_found};
	s.unit_bytes = s.ledger->unit_bytes;
	ledger_follow(s.ledger, &nbd);
	s.ledger->floor_seq = s.ledger->next_seq - 1;
	return survey_print(&s, survey_run(&s, &nbd));
}

static int command_hash(char **args, int count)
{
	(void)count;
	struct nbd_client nbd = open_or_exit(args[0], args[1]);
	struct survey s = {.is_right = right_anything, .unit_bytes = (uint32_t)atoi(args[2])};
	return survey_print(&s, survey_run(&s, &nbd));
}

static int command_init(char **args, int count)
{
	(void)count;
	ledger_create(args[0], (uint32_t)atoi(args[1]), (uint32_t)atoi(args[2]), (uint32_t)atoi(args[3]));
	return 0;
}

static const struct verb {
	const char *name;
	int args_min, args_max;
	int (*fn)(char **args, int count);
} verbs[] = {
	{"init", 4, 4, command_init},	  {"load", 5, 6, command_load},	  {"check", 3, 4, command_check},
	{"within", 4, 4, command_within}, {"adopt", 3, 3, command_adopt}, {"hash", 3, 3, command_hash},
};

int main(int argc, char **argv)
{
	struct sigaction on_term = {.sa_handler = ask_stop, .sa_flags = SA_RESTART};
	sigaction(SIGTERM, &on_term, NULL);
	for (size_t i = 0; argc > 1 && i < ARRAY_COUNT(verbs); i++) {
		if (strcmp(verbs[i].name, argv[1]) == 0 && argc - 2 >= verbs[i].args_min &&
		    argc - 2 <= verbs[i].args_max)
			return verbs[i].fn(argv + 2, argc - 2);
	}
	fprintf(stderr, "usage: see the head of tests/verify/verify_client.c\n");
	return EXIT_CANNOT;
}
