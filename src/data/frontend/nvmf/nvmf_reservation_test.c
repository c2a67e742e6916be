/*
 * nvmf_reservation_test.c: the tables of the specification, and every state that three hosts with two keys can reach.
 */
#include "data/frontend/nvmf/nvmf_reservation.h"

#include "base/crc32c.h"
#include "base/test.h"
#include "data/frontend/nvmf/nvmf_reservation_format.h"

#define HOSTS	 3
#define DNR	 NVME_STATUS_DNR
#define CONFLICT (NVME_STATUS_RESERVATION_CONFLICT | DNR)
#define INVALID	 (NVME_STATUS_INVALID_FIELD | DNR)

static const uint8_t hosts[HOSTS][NVMF_HOSTID_BYTES] = {{'a'}, {'b'}, {'c'}};

/* ---- short forms ---------------------------------------------------------------------------------------------------------- */

static struct nvmf_reservation now;
static struct nvmf_reservation_change ch;

static uint16_t act(unsigned host, struct nvmf_reservation_command c)
{
	uint16_t status = nvmf_reservation_step(&now, hosts[host], &c, &ch);
	if (status == 0)
		now = ch.next;
	return status;
}

static uint16_t reg(unsigned host, uint8_t action, uint64_t current, uint64_t new_key)
{
	return act(host, (struct nvmf_reservation_command){.opcode = NVME_IO_RESERVATION_REGISTER,
							   .action = action,
							   .current = current,
							   .other = new_key});
}

static uint16_t acquire(unsigned host, uint8_t action, uint8_t type, uint64_t current, uint64_t preempted)
{
	return act(host, (struct nvmf_reservation_command){.opcode = NVME_IO_RESERVATION_ACQUIRE,
							   .action = action,
							   .type = type,
							   .current = current,
							   .other = preempted});
}

static uint16_t release(unsigned host, uint8_t action, uint8_t type, uint64_t current)
{
	return act(host, (struct nvmf_reservation_command){.opcode = NVME_IO_RESERVATION_RELEASE,
							   .action = action,
							   .type = type,
							   .current = current});
}

/* Hosts 0 and 1 are registered with keys 1 and 2, host 2 is not; 0 holds it. */
static void begin(uint8_t type)
{
	now = (struct nvmf_reservation){0};
	CHECK_EQ(reg(0, NVME_REGISTER, 0, 1), 0);
	CHECK_EQ(reg(1, NVME_REGISTER, 0, 2), 0);
	if (type)
		CHECK_EQ(acquire(0, NVME_ACQUIRE, type, 1, 0), 0);
}

/* 0: it is told nothing. */
static uint8_t told(unsigned host)
{
	for (uint32_t i = 0; i < ch.notice_count; i++)
		if (memcmp(ch.notices[i].hostid, hosts[host], NVMF_HOSTID_BYTES) == 0)
			return ch.notices[i].what;
	return 0;
}

static bool is_registered(unsigned host)
{
	return nvmf_reservation_is_registrant(&now, hosts[host]);
}

static bool holds(unsigned host)
{
	return nvmf_reservation_is_holder(&now, hosts[host]);
}

/* ---- what is let pass ------------------------------------------------------------------------------------------------------ */

/* "Command behavior in the presence of a reservation": by type, what a host that is not registered, a registrant that does not
 * hold it, and the holder may do; r reads, w writes. */
static const struct {
	const char *stranger, *registrant, *holder;
} table[NVMF_RESERVATION_TYPES] = {
	[NVME_RESERVATION_NONE] = {"rw", "rw", "rw"},
	[NVME_RESERVATION_WRITE_EXCLUSIVE] = {"r", "r", "rw"},
	[NVME_RESERVATION_EXCLUSIVE_ACCESS] = {"", "", "rw"},
	[NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS] = {"r", "rw", "rw"},
	[NVME_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS] = {"", "rw", "rw"},
	[NVME_RESERVATION_WRITE_EXCLUSIVE_ALL] = {"r", "rw", "rw"},
	[NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL] = {"", "rw", "rw"},
};

static const uint8_t reading[] = {NVME_IO_READ, NVME_IO_COMPARE, NVME_IO_VERIFY};
static const uint8_t writing[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES,	      NVME_IO_DATASET_MANAGEMENT,
				  NVME_IO_FLUSH, NVME_IO_WRITE_UNCORRECTABLE, NVME_IO_COPY};

static void expect_access(unsigned host, const char *may)
{
	for (size_t i = 0; i < ARRAY_COUNT(reading); i++)
		CHECK_EQ(nvmf_reservation_admits(&now, hosts[host], reading[i]), strchr(may, 'r') != NULL);
	for (size_t i = 0; i < ARRAY_COUNT(writing); i++)
		CHECK_EQ(nvmf_reservation_admits(&now, hosts[host], writing[i]), strchr(may, 'w') != NULL);
}

TEST(each_type_lets_pass_what_the_table_of_the_specification_lets_pass)
{
	for (uint8_t type = 0; type < NVMF_RESERVATION_TYPES; type++) {
		begin(type);
		expect_access(0, table[type].holder);
		expect_access(1, table[type].registrant);
		expect_access(2, table[type].stranger);
	}
}

/* The reservation commands' rows of it: a stranger may register, and nothing else; nobody acquires what is held. */
TEST(a_stranger_may_only_register_and_a_registrant_acquires_nothing_that_is_held)
{
	for (uint8_t type = 1; type < NVMF_RESERVATION_TYPES; type++) {
		bool of_all = type >= NVME_RESERVATION_WRITE_EXCLUSIVE_ALL;
		begin(type);
		CHECK_EQ(acquire(2, NVME_ACQUIRE, type, 9, 0), CONFLICT);
		CHECK_EQ(acquire(2, NVME_PREEMPT, type, 9, 1), CONFLICT);
		CHECK_EQ(acquire(2, NVME_PREEMPT_ABORT, type, 9, 1), CONFLICT);
		CHECK_EQ(release(2, NVME_RELEASE, type, 9), CONFLICT);
		CHECK_EQ(release(2, NVME_CLEAR, type, 9), CONFLICT);
		CHECK_EQ(acquire(1, NVME_ACQUIRE, type, 2, 0), of_all ? 0 : CONFLICT);
		CHECK_EQ(acquire(0, NVME_ACQUIRE, type, 1, 0), 0);
		CHECK_EQ(acquire(0, NVME_ACQUIRE, type % 6 + 1, 1, 0), CONFLICT);
		CHECK_EQ(reg(2, NVME_REGISTER, 0, 3), 0);
	}
}

/* ---- registering -------------------------------------------------------------------------------------------------------------- */

TEST(registering_again_with_the_same_key_is_no_error_and_with_another_a_conflict)
{
	begin(0);
	CHECK_EQ(reg(0, NVME_REGISTER, 0, 1), 0);
	CHECK_EQ(reg(0, NVME_REGISTER, 0, 7), CONFLICT);
	CHECK_EQ(now.count, 2);
	CHECK_EQ(now.generation, 3);
}

TEST(a_key_is_replaced_by_who_knows_it_or_does_not_care)
{
	begin(NVME_RESERVATION_EXCLUSIVE_ACCESS);
	CHECK_EQ(reg(0, NVME_REPLACE, 9, 5), CONFLICT);
	CHECK_EQ(reg(0, NVME_REPLACE, 1, 5), 0);
	CHECK(holds(0));
	CHECK_EQ(now.registrants[0].key, 5);
	CHECK_EQ(reg(2, NVME_REPLACE, 0, 5), CONFLICT);
	struct nvmf_reservation_command c = {.opcode = NVME_IO_RESERVATION_REGISTER,
					     .action = NVME_REPLACE,
					     .ignore_key = true,
					     .other = 6};
	CHECK_EQ(act(0, c), 0);
	CHECK_EQ(now.registrants[0].key, 6);
	CHECK_EQ(act(2, c), 0); /* "without regard to its registration status" */
	CHECK(is_registered(2) && now.registrants[2].key == 6);
}

TEST(a_holder_that_unregisters_releases_and_those_who_shared_it_are_told)
{
	for (uint8_t type = 1; type < NVMF_RESERVATION_TYPES; type++) {
		bool of_all = type >= NVME_RESERVATION_WRITE_EXCLUSIVE_ALL;
		bool is_shared = !of_all && type >= NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS;
		begin(type);
		CHECK_EQ(reg(0, NVME_UNREGISTER, 9, 0), CONFLICT);
		CHECK_EQ(reg(2, NVME_UNREGISTER, 0, 0), CONFLICT);
		CHECK_EQ(reg(0, NVME_UNREGISTER, 1, 0), 0);
		CHECK_EQ(told(1), is_shared ? NVME_RESERVATION_RELEASED : 0);
		CHECK_EQ(now.type, of_all ? type : NVME_RESERVATION_NONE);
		CHECK_EQ(holds(1), of_all);
		CHECK_EQ(reg(1, NVME_UNREGISTER, 2, 0), 0);
		CHECK_EQ(now.type, NVME_RESERVATION_NONE);
	}
}

TEST(a_registrant_that_does_not_hold_it_unregisters_and_nothing_else_changes)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS);
	CHECK_EQ(reg(1, NVME_UNREGISTER, 2, 0), 0);
	CHECK_EQ(ch.notice_count, 0);
	CHECK(holds(0));
}

TEST(the_65th_registrant_is_refused_and_those_there_are_stay)
{
	now = (struct nvmf_reservation){0};
	struct nvmf_reservation_command c = {.opcode = NVME_IO_RESERVATION_REGISTER, .other = 1};
	uint8_t hostid[NVMF_HOSTID_BYTES] = {0};
	for (hostid[0] = 1; hostid[0] <= NVMF_REGISTRANTS_MAX; hostid[0]++) {
		CHECK_EQ(nvmf_reservation_step(&now, hostid, &c, &ch), 0);
		now = ch.next;
	}
	CHECK_EQ(nvmf_reservation_step(&now, hostid, &c, &ch), NVME_STATUS_INTERNAL | DNR);
	CHECK_EQ(ch.next.count, NVMF_REGISTRANTS_MAX);
	CHECK(!ch.is_changed);
}

TEST(a_key_of_zero_is_refused_for_it_could_not_be_preempted)
{
	begin(0);
	CHECK_EQ(reg(2, NVME_REGISTER, 0, 0), INVALID);
	CHECK_EQ(reg(0, NVME_REPLACE, 1, 0), INVALID);
}

TEST(persistence_is_set_and_cleared_by_registering)
{
	begin(0);
	struct nvmf_reservation_command c = {
		.opcode = NVME_IO_RESERVATION_REGISTER, .persist = NVME_PERSIST, .other = 1};
	CHECK_EQ(act(0, c), 0);
	CHECK(now.persists);
	CHECK_EQ(reg(1, NVME_REGISTER, 0, 2), 0);
	CHECK(now.persists);
	c.persist = NVME_PERSIST_RESERVED;
	CHECK_EQ(act(0, c), INVALID);
	c.persist = NVME_PERSIST_NOT;
	CHECK_EQ(act(0, c), 0);
	CHECK(!now.persists);
}

/* ---- preempting ---------------------------------------------------------------------------------------------------------------- */

TEST(preempting_the_holders_key_takes_the_reservation_and_its_registration)
{
	for (uint8_t type = 1; type < NVME_RESERVATION_WRITE_EXCLUSIVE_ALL; type++)
		for (uint8_t to = 1; to < NVMF_RESERVATION_TYPES; to++) {
			begin(type);
			CHECK_EQ(reg(2, NVME_REGISTER, 0, 3), 0);
			CHECK_EQ(acquire(1, NVME_PREEMPT, to, 2, 1), 0);
			CHECK(!is_registered(0) && holds(1) && now.type == to && is_registered(2));
			CHECK_EQ(told(0), NVME_REGISTRATION_PREEMPTED);
			CHECK_EQ(told(1), 0);
			CHECK_EQ(told(2), type == to ? 0 : NVME_RESERVATION_RELEASED);
			CHECK_EQ(now.generation, 4);
		}
}

TEST(preempting_another_key_takes_registrations_and_leaves_the_reservation)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(reg(2, NVME_REGISTER, 0, 2), 0); /* the same key as host 1 */
	CHECK_EQ(acquire(0, NVME_PREEMPT_ABORT, NVME_RESERVATION_EXCLUSIVE_ACCESS, 1, 2), 0);
	CHECK(!is_registered(1) && !is_registered(2) && holds(0));
	CHECK_EQ(now.type, NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(told(1), NVME_REGISTRATION_PREEMPTED);
	CHECK_EQ(told(2), NVME_REGISTRATION_PREEMPTED);
}

TEST(preempting_a_key_that_nobody_has_is_a_conflict)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 2, 9), CONFLICT);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 9, 1), CONFLICT);
	begin(0);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 2, 9), CONFLICT);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 2, 0), CONFLICT);
}

TEST(preempting_where_nothing_is_held_takes_registrations_and_holds_nothing)
{
	begin(0);
	CHECK_EQ(acquire(0, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 1, 2), 0);
	CHECK(!is_registered(1));
	CHECK_EQ(now.type, NVME_RESERVATION_NONE);
}

TEST(a_holder_that_preempts_itself_changes_the_type_and_stays)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(acquire(0, NVME_PREEMPT, NVME_RESERVATION_EXCLUSIVE_ACCESS, 1, 1), 0);
	CHECK(holds(0) && is_registered(0) && now.type == NVME_RESERVATION_EXCLUSIVE_ACCESS);
	CHECK_EQ(told(1), NVME_RESERVATION_RELEASED);
}

TEST(key_zero_preempts_everybody_where_all_hold_it_and_is_invalid_where_one_does)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE_ALL);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_EXCLUSIVE_ACCESS, 2, 0), 0);
	CHECK(!is_registered(0) && holds(1) && now.type == NVME_RESERVATION_EXCLUSIVE_ACCESS);
	CHECK_EQ(told(0), NVME_REGISTRATION_PREEMPTED);
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_EXCLUSIVE_ACCESS, 2, 0), INVALID);
}

TEST(where_all_hold_it_a_key_preempts_its_registrants_and_the_last_one_releases)
{
	begin(NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 2, 1), 0);
	CHECK(!is_registered(0) && holds(1));
	CHECK_EQ(now.type, NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL);
	CHECK_EQ(acquire(1, NVME_PREEMPT, NVME_RESERVATION_WRITE_EXCLUSIVE, 2, 2), 0);
	CHECK_EQ(now.type, NVME_RESERVATION_NONE);
	CHECK_EQ(now.count, 0);
}

/* ---- releasing ------------------------------------------------------------------------------------------------------------------- */

TEST(a_release_by_one_who_does_not_hold_it_succeeds_and_changes_nothing)
{
	begin(NVME_RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(release(1, NVME_RELEASE, NVME_RESERVATION_WRITE_EXCLUSIVE, 2), 0);
	CHECK(holds(0) && !ch.is_changed);
	begin(0);
	CHECK_EQ(release(1, NVME_RELEASE, NVME_RESERVATION_WRITE_EXCLUSIVE, 2), 0);
}

TEST(a_release_names_the_right_type_and_tells_those_who_shared_it)
{
	for (uint8_t type = 1; type < NVMF_RESERVATION_TYPES; type++) {
		begin(type);
		CHECK_EQ(release(0, NVME_RELEASE, type % 6 + 1, 1), INVALID);
		CHECK_EQ(release(0, NVME_RELEASE, type, 9), CONFLICT);
		CHECK_EQ(release(0, NVME_RELEASE, type, 1), 0);
		CHECK_EQ(now.type, NVME_RESERVATION_NONE);
		CHECK_EQ(now.count, 2);
		CHECK_EQ(told(1), type >= NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS
					  ? NVME_RESERVATION_RELEASED
					  : 0);
		CHECK_EQ(now.generation, 2);
	}
}

TEST(a_clear_by_any_registrant_takes_everything_and_tells_the_others)
{
	begin(NVME_RESERVATION_EXCLUSIVE_ACCESS);
	CHECK_EQ(release(1, NVME_CLEAR, 0, 2), 0);
	CHECK_EQ(now.count, 0);
	CHECK_EQ(now.type, NVME_RESERVATION_NONE);
	CHECK_EQ(told(0), NVME_RESERVATION_PREEMPTED);
	CHECK_EQ(told(1), 0);
	CHECK_EQ(now.generation, 3);
}

TEST(what_the_specification_calls_invalid_is_refused)
{
	begin(0);
	struct nvmf_reservation_command c = {
		.opcode = NVME_IO_RESERVATION_ACQUIRE, .type = 1, .ignore_key = true, .current = 1};
	CHECK_EQ(act(0, c), INVALID);
	c.opcode = NVME_IO_RESERVATION_RELEASE;
	CHECK_EQ(act(0, c), INVALID);
	CHECK_EQ(acquire(0, NVME_ACQUIRE, 0, 1, 0), INVALID);
	CHECK_EQ(acquire(0, NVME_ACQUIRE, 7, 1, 0), INVALID);
	CHECK_EQ(acquire(0, 3, 1, 1, 0), INVALID);
	CHECK_EQ(release(0, 2, 1, 1), INVALID);
	CHECK_EQ(reg(0, 3, 1, 1), INVALID);
}

TEST(an_entry_is_read_bit_by_bit)
{
	struct nvme_reservation_keys keys = {le64_of(0x1122334455667788), le64_of(7)};
	struct nvme_sqe e = {.opcode = NVME_IO_RESERVATION_REGISTER, .cdw10 = le32_of(0xc000000a)};
	struct nvmf_reservation_command c = nvmf_reservation_decode(&e, &keys);
	CHECK(c.action == NVME_REPLACE && c.ignore_key && c.persist == NVME_PERSIST && c.type == 0);
	CHECK(c.current == 0x1122334455667788 && c.other == 7);
	e = (struct nvme_sqe){.opcode = NVME_IO_RESERVATION_ACQUIRE, .cdw10 = le32_of(0x0402)};
	c = nvmf_reservation_decode(&e, &keys);
	CHECK(c.action == NVME_PREEMPT_ABORT && !c.ignore_key && c.type == 4 && c.other == 7);
	e = (struct nvme_sqe){.opcode = NVME_IO_RESERVATION_RELEASE, .cdw10 = le32_of(0x0301)};
	c = nvmf_reservation_decode(&e, &keys.current); /* eight bytes only */
	CHECK(c.action == NVME_CLEAR && c.type == 3 && c.other == 0);
}

/* ---- every state --------------------------------------------------------------------------------------------------------------- */

/* Each sequence of commands of three hosts with two keys, told apart by the states it leads to: searched until there is no new one,
 * which is beyond every length. */

#define STATES_MAX   20000
#define STATES_SLOTS 65536

static struct nvmf_reservation states[STATES_MAX];
static uint32_t state_count, slots[STATES_SLOTS];

static void state_add(const struct nvmf_reservation *r)
{
	struct nvmf_reservation key;
	memcpy(&key, r, sizeof(key));
	key.generation = 0;
	uint32_t slot = crc32c(0, &key, sizeof(key)) % STATES_SLOTS;
	for (; slots[slot]; slot = (slot + 1) % STATES_SLOTS)
		if (memcmp(&states[slots[slot] - 1], &key, sizeof(key)) == 0)
			return;
	CHECK(state_count < STATES_MAX);
	memcpy(&states[state_count++], &key, sizeof(key));
	slots[slot] = state_count;
}

/* 0: it is not registered. */
static uint64_t key_of(const struct nvmf_reservation *r, unsigned host)
{
	for (size_t i = 0; i < r->count; i++)
		if (memcmp(r->registrants[i].hostid, hosts[host], NVMF_HOSTID_BYTES) == 0)
			return r->registrants[i].key;
	return 0;
}

static bool counts(const struct nvmf_reservation_command *c)
{
	return c->opcode == NVME_IO_RESERVATION_REGISTER ||
	       (c->opcode == NVME_IO_RESERVATION_ACQUIRE && c->action != NVME_ACQUIRE) ||
	       (c->opcode == NVME_IO_RESERVATION_RELEASE && c->action == NVME_CLEAR);
}

static bool is_of_all(uint8_t type)
{
	return type >= NVME_RESERVATION_WRITE_EXCLUSIVE_ALL;
}

/* Who may do what in the state, whatever led to it. */
static void check_state(const struct nvmf_reservation *r)
{
	unsigned holders = 0, registrants = 0;
	CHECK(nvmf_reservation_is_sound(r));
	for (unsigned h = 0; h < HOSTS; h++) {
		bool is_registrant = key_of(r, h) != 0, is_holder = nvmf_reservation_is_holder(r, hosts[h]);
		bool writes = nvmf_reservation_admits(r, hosts[h], NVME_IO_WRITE);
		bool reads = nvmf_reservation_admits(r, hosts[h], NVME_IO_READ);
		holders += is_holder;
		registrants += is_registrant;
		CHECK(!is_holder || (is_registrant && writes && reads));
		CHECK(r->type == 0 || is_registrant || !writes);
		CHECK(!writes || reads);
		const char *may = is_holder	  ? table[r->type].holder
				  : is_registrant ? table[r->type].registrant
						  : table[r->type].stranger;
		CHECK_EQ(writes, strchr(may, 'w') != NULL);
		CHECK_EQ(reads, strchr(may, 'r') != NULL);
	}
	CHECK_EQ(holders, r->type == 0 ? 0 : is_of_all(r->type) ? registrants : 1);
}

/* A registration ends by its host, by a preempt that names its key (or all, where all hold it), or by a clear; whoever did not do it
 * himself is told. */
static void check_lost(const struct nvmf_reservation *r, unsigned host,
		       const struct nvmf_reservation_command *c, unsigned lost)
{
	if (host == lost && c->opcode == NVME_IO_RESERVATION_REGISTER) {
		CHECK_EQ(c->action, NVME_UNREGISTER);
		return;
	}
	bool is_clear = c->opcode == NVME_IO_RESERVATION_RELEASE && c->action == NVME_CLEAR;
	bool is_preempt = c->opcode == NVME_IO_RESERVATION_ACQUIRE && c->action != NVME_ACQUIRE;
	CHECK(is_clear || is_preempt);
	CHECK(!is_preempt || c->other == key_of(r, lost) || (c->other == 0 && is_of_all(r->type)));
	if (host != lost)
		CHECK_EQ(told(lost), is_clear ? NVME_RESERVATION_PREEMPTED : NVME_REGISTRATION_PREEMPTED);
}

static void check_preempted(const struct nvmf_reservation *r, unsigned host,
			    const struct nvmf_reservation_command *c)
{
	bool was_holders = false;
	for (unsigned h = 0; h < HOSTS; h++) {
		CHECK(h == host || c->other == 0 || key_of(&ch.next, h) != c->other);
		was_holders |= nvmf_reservation_is_holder(r, hosts[h]) && key_of(r, h) == c->other &&
			       !is_of_all(r->type);
	}
	if (was_holders || c->other == 0)
		CHECK(ch.next.type == c->type && nvmf_reservation_is_holder(&ch.next, hosts[host]));
	else if (!(is_of_all(r->type) && ch.next.count == 0))
		CHECK_EQ(ch.next.type, r->type);
}

static void check_step(const struct nvmf_reservation *r, unsigned host,
		       const struct nvmf_reservation_command *c, uint16_t status)
{
	CHECK(status == 0 || (!ch.is_changed && ch.notice_count == 0));
	CHECK_EQ(ch.next.generation, r->generation + (status == 0 && counts(c)));
	CHECK_EQ(told(host), 0);
	bool is_stranger = key_of(r, host) == 0;
	CHECK(!is_stranger || !ch.is_changed || c->opcode == NVME_IO_RESERVATION_REGISTER);
	for (unsigned h = 0; h < HOSTS; h++) {
		if (key_of(r, h) && !key_of(&ch.next, h))
			check_lost(r, host, c, h);
		else if (h != host)
			CHECK_EQ(key_of(r, h), key_of(&ch.next, h));
	}
	if (ch.next.type && !r->type)
		CHECK(c->opcode == NVME_IO_RESERVATION_ACQUIRE && c->action == NVME_ACQUIRE &&
		      nvmf_reservation_is_holder(&ch.next, hosts[host]));
	if (status == 0 && c->opcode == NVME_IO_RESERVATION_ACQUIRE && c->action != NVME_ACQUIRE)
		check_preempted(r, host, c);
}

static void visit(const struct nvmf_reservation *r, unsigned host, struct nvmf_reservation_command c)
{
	uint16_t status = nvmf_reservation_step(r, hosts[host], &c, &ch);
	check_step(r, host, &c, status);
	if (status == 0)
		state_add(&ch.next);
}

/* Every action, type and key, reserved ones among them. */
static void visit_host(const struct nvmf_reservation *r, unsigned host)
{
	static const uint8_t opcodes[] = {NVME_IO_RESERVATION_REGISTER, NVME_IO_RESERVATION_ACQUIRE,
					  NVME_IO_RESERVATION_RELEASE};
	for (unsigned i = 0; i < 3 * 4 * 2 * 8 * 3 * 3; i++) {
		struct nvmf_reservation_command c = {.opcode = opcodes[i % 3],
						     .action = i / 3 % 4,
						     .ignore_key = i / 12 % 2,
						     .type = i / 24 % 8,
						     .current = i / 192 % 3,
						     .other = i / 576 % 3};
		if (c.opcode == NVME_IO_RESERVATION_REGISTER && c.type)
			continue; /* it has none */
		visit(r, host, c);
	}
}

TEST(every_state_that_three_hosts_can_reach_is_one_that_may_be)
{
	state_count = 0;
	state_add(&(struct nvmf_reservation){0});
	for (uint32_t i = 0; i < state_count; i++) {
		struct nvmf_reservation r;
		memcpy(&r, &states[i], sizeof(r));
		check_state(&r);
		for (unsigned host = 0; host < HOSTS; host++)
			visit_host(&r, host);
	}
	/* 16 orders of registration, two keys each: 1 + 3*2 + 6*4 + 6*8 with none held; the rest by type and holder. */
	CHECK_EQ(state_count, 79 + (6 * 1 + 24 * 2 + 48 * 3) * 4 + (6 + 24 + 48) * 2);
}

/* ---- the note ------------------------------------------------------------------------------------------------------------------- */

static const struct uuid boot = {.b = {1}}, next_boot = {.b = {2}};
static uint8_t note[NVMF_RESERVATION_NOTE_MAX];

static uint32_t note_begin(bool persists)
{
	begin(NVME_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS);
	now.persists = persists;
	return nvmf_reservation_encode(&now, &boot, note);
}

static void note_sign(uint32_t len_bytes)
{
	struct reservation_note_wire *w = (void *)note;
	w->crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct reservation_note_wire, crc)));
}

TEST(a_note_gives_back_what_was_noted)
{
	struct nvmf_reservation r;
	for (int persists = 0; persists < 2; persists++) {
		uint32_t len_bytes = note_begin(persists);
		CHECK_EQ(len_bytes, 56 + 2 * 24);
		CHECK_OK(nvmf_reservation_note_decode(note, len_bytes, &boot, &r));
		CHECK(memcmp(&r, &now, sizeof(r)) == 0);
	}
}

TEST(only_what_persists_is_left_after_the_machine_was_off)
{
	struct nvmf_reservation r, none = {0};
	CHECK_OK(nvmf_reservation_note_decode(note, note_begin(true), &next_boot, &r));
	CHECK(memcmp(&r, &now, sizeof(r)) == 0);
	CHECK_OK(nvmf_reservation_note_decode(note, note_begin(false), &next_boot, &r));
	CHECK(memcmp(&r, &none, sizeof(r)) == 0);
}

TEST(a_note_with_any_bit_wrong_is_corrupt)
{
	struct nvmf_reservation r;
	uint32_t len_bytes = note_begin(true);
	for (uint32_t bit = 0; bit < len_bytes * 8; bit++) {
		note[bit / 8] ^= 1 << bit % 8;
		CHECK_ERR(nvmf_reservation_note_decode(note, len_bytes, &boot, &r), OXE_CORRUPT);
		note[bit / 8] ^= 1 << bit % 8;
	}
	for (uint32_t n = 0; n < len_bytes; n++)
		CHECK_ERR(nvmf_reservation_note_decode(note, n, &boot, &r), OXE_CORRUPT);
}

TEST(a_note_that_says_what_cannot_be_is_corrupt_though_its_sum_is_right)
{
	struct nvmf_reservation r;
	struct reservation_note_wire *w = (void *)note;
	struct reservation_registrant_wire *registrants = (void *)(w + 1);
#define EXPECT(change, err)                                                                                  \
	do {                                                                                                 \
		uint32_t len_bytes = note_begin(true);                                                       \
		change;                                                                                      \
		note_sign(len_bytes);                                                                        \
		CHECK_ERR(nvmf_reservation_note_decode(note, len_bytes, &boot, &r), err);                    \
	} while (0)
	EXPECT(w->version = le16_of(2), OXE_VERSION);
	EXPECT(w->type = 7, OXE_CORRUPT);
	EXPECT(w->type = NVME_RESERVATION_NONE, OXE_CORRUPT);		     /* with a holder */
	EXPECT(w->type = NVME_RESERVATION_WRITE_EXCLUSIVE_ALL, OXE_CORRUPT); /* the same */
	EXPECT(w->flags = 2, OXE_CORRUPT);
	EXPECT(w->holder[0] = 'c', OXE_CORRUPT);
	EXPECT(w->count = le16_of(1), OXE_CORRUPT);
	EXPECT(w->count = le16_of(65), OXE_CORRUPT);
	EXPECT(w->reserved[5] = 1, OXE_CORRUPT);
	EXPECT(registrants[1].key = le64_of(0), OXE_CORRUPT);
	EXPECT(registrants[1].hostid[0] = 'a', OXE_CORRUPT); /* twice */
	EXPECT(registrants[1].hostid[0] = 0, OXE_CORRUPT);
}
