/*
 * nvmf_reservation.c: see nvmf_reservation.h.
 *
 *              acquire                           unregister by the holder (of the last one, if all hold it)
 *     none ---------------> held by one or all --------------------------------------------------------------> none
 *                             |         ^        release by a holder; clear
 *                             +---------+
 *                     preempt, with the holder's key (0, if all hold it): another holder, perhaps another type
 *
 * Any other preempt only takes registrations away.
 */
#include "data/frontend/nvmf/nvmf_reservation.h"

#include "base/crc32c.h"
#include "data/frontend/nvmf/nvmf_reservation_format.h"

#define REFUSED(status) ((uint16_t)((status) | NVME_STATUS_DNR))
#define CONFLICT	REFUSED(NVME_STATUS_RESERVATION_CONFLICT)
#define INVALID		REFUSED(NVME_STATUS_INVALID_FIELD)

/* ---- what a state says ---------------------------------------------------------------------------------------------------- */

static bool same_host(const uint8_t a[NVMF_HOSTID_BYTES], const uint8_t b[NVMF_HOSTID_BYTES])
{
	return memcmp(a, b, NVMF_HOSTID_BYTES) == 0;
}

/* Its index; r->count: it is not registered. */
static size_t find(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES])
{
	size_t i = 0;
	while (i < r->count && !same_host(r->registrants[i].hostid, hostid))
		i++;
	return i;
}

static bool is_all(uint8_t type)
{
	return type == NVME_RESERVATION_WRITE_EXCLUSIVE_ALL || type == NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

/* Registrants may do what the holder may; and are told when it ends. */
static bool is_shared(uint8_t type)
{
	return type >= NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS;
}

static bool lets_all_read(uint8_t type)
{
	return type == NVME_RESERVATION_WRITE_EXCLUSIVE ||
	       type == NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS ||
	       type == NVME_RESERVATION_WRITE_EXCLUSIVE_ALL;
}

bool nvmf_reservation_is_registrant(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES])
{
	return find(r, hostid) < r->count;
}

bool nvmf_reservation_is_holder(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES])
{
	if (r->type == NVME_RESERVATION_NONE)
		return false;
	return is_all(r->type) ? nvmf_reservation_is_registrant(r, hostid) : same_host(r->holder, hostid);
}

/* The specification's read group. FLUSH is of the other one. */
static bool only_reads(uint8_t opcode)
{
	return opcode == NVME_IO_READ || opcode == NVME_IO_COMPARE || opcode == NVME_IO_VERIFY;
}

bool nvmf_reservation_admits(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     uint8_t opcode)
{
	if (likely(r->type == NVME_RESERVATION_NONE) || (lets_all_read(r->type) && only_reads(opcode)))
		return true;
	return is_shared(r->type) ? nvmf_reservation_is_registrant(r, hostid) : same_host(r->holder, hostid);
}

static bool registrants_are_sound(const struct nvmf_reservation *r)
{
	for (size_t i = 0; i < r->count; i++) {
		const struct nvmf_registrant *one = &r->registrants[i];
		if (one->key == 0 || bytes_are_zero(one->hostid, NVMF_HOSTID_BYTES) ||
		    find(r, one->hostid) != i)
			return false;
	}
	return true;
}

bool nvmf_reservation_is_sound(const struct nvmf_reservation *r)
{
	bool has_holder = r->type != NVME_RESERVATION_NONE && !is_all(r->type);
	if (r->count > NVMF_REGISTRANTS_MAX || r->type >= NVMF_RESERVATION_TYPES || !registrants_are_sound(r))
		return false;
	if (r->type != NVME_RESERVATION_NONE && r->count == 0)
		return false;
	return has_holder ? nvmf_reservation_is_registrant(r, r->holder)
			  : bytes_are_zero(r->holder, NVMF_HOSTID_BYTES);
}

/* ---- what a step does --------------------------------------------------------------------------------------------------------- */

static void tell(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES], uint8_t what)
{
	struct nvmf_reservation_notice *n = &ch->notices[ch->notice_count++];
	assert(ch->notice_count <= NVMF_REGISTRANTS_MAX);
	memcpy(n->hostid, hostid, NVMF_HOSTID_BYTES);
	n->what = what;
}

/* Every registrant that is left, but the host whose command it is. */
static void tell_released(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES])
{
	for (size_t i = 0; i < ch->next.count; i++)
		if (!same_host(ch->next.registrants[i].hostid, hostid))
			tell(ch, ch->next.registrants[i].hostid, NVME_RESERVATION_RELEASED);
}

static void hold(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES], uint8_t type)
{
	r->type = type;
	memset(r->holder, 0, sizeof(r->holder));
	if (!is_all(type))
		memcpy(r->holder, hostid, sizeof(r->holder));
}

static void release(struct nvmf_reservation *r)
{
	r->type = NVME_RESERVATION_NONE;
	memset(r->holder, 0, sizeof(r->holder));
}

static void registrant_add(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES], uint64_t key)
{
	struct nvmf_registrant *one = &r->registrants[r->count++];
	memcpy(one->hostid, hostid, NVMF_HOSTID_BYTES);
	one->key = key;
}

static void registrant_remove(struct nvmf_reservation *r, size_t i)
{
	struct nvmf_registrant *one = &r->registrants[i];
	r->count--;
	memmove(one, one + 1, (r->count - i) * sizeof(*one));
	memset(&r->registrants[r->count], 0, sizeof(*one));
	if (r->count == 0 && is_all(r->type))
		release(r);
}

/* ---- register -------------------------------------------------------------------------------------------------------------------- */

static uint16_t add(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES], uint64_t key)
{
	if (r->count == NVMF_REGISTRANTS_MAX)
		return REFUSED(NVME_STATUS_INTERNAL);
	registrant_add(r, hostid, key);
	return 0;
}

static uint16_t step_register(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES],
			      const struct nvmf_reservation_command *c)
{
	size_t i = find(r, hostid);
	if (c->other == 0)
		return INVALID;
	if (i == r->count)
		return add(r, hostid, c->other);
	return r->registrants[i].key == c->other ? 0 : CONFLICT;
}

static uint16_t step_replace(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     const struct nvmf_reservation_command *c)
{
	size_t i = find(r, hostid);
	if (c->other == 0)
		return INVALID;
	if (i == r->count)
		return c->ignore_key ? add(r, hostid, c->other) : CONFLICT;
	if (!c->ignore_key && r->registrants[i].key != c->current)
		return CONFLICT;
	r->registrants[i].key = c->other;
	return 0;
}

static uint16_t step_unregister(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
				const struct nvmf_reservation_command *c)
{
	struct nvmf_reservation *r = &ch->next;
	size_t i = find(r, hostid);
	uint8_t type = r->type;
	if (i == r->count || (!c->ignore_key && r->registrants[i].key != c->current))
		return CONFLICT;
	bool was_the_holder = nvmf_reservation_is_holder(r, hostid) && !is_all(type);
	registrant_remove(r, i);
	if (was_the_holder)
		release(r);
	if (was_the_holder && is_shared(type))
		tell_released(ch, hostid);
	return 0;
}

static uint16_t step_registration(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
				  const struct nvmf_reservation_command *c)
{
	uint16_t status = INVALID;
	if (c->persist == NVME_PERSIST_RESERVED)
		return INVALID;
	if (c->action == NVME_REGISTER)
		status = step_register(&ch->next, hostid, c);
	else if (c->action == NVME_UNREGISTER)
		status = step_unregister(ch, hostid, c);
	else if (c->action == NVME_REPLACE)
		status = step_replace(&ch->next, hostid, c);
	if (status)
		return status;
	if (c->persist != NVME_PERSIST_AS_IT_IS)
		ch->next.persists = c->persist == NVME_PERSIST;
	ch->next.generation++;
	return 0;
}

/* ---- acquire ----------------------------------------------------------------------------------------------------------------------- */

static uint16_t step_acquire(struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     const struct nvmf_reservation_command *c)
{
	if (r->type != NVME_RESERVATION_NONE)
		return nvmf_reservation_is_holder(r, hostid) && r->type == c->type ? 0 : CONFLICT;
	hold(r, hostid, c->type);
	return 0;
}

/* Take registrations away: with this key (0: any), of everybody or of all others. How many? */
static size_t remove_by_key(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
			    uint64_t key, bool keep_own)
{
	struct nvmf_reservation *r = &ch->next;
	size_t removed = 0;
	for (size_t i = r->count; i-- > 0;) {
		const struct nvmf_registrant *one = &r->registrants[i];
		bool is_own = same_host(one->hostid, hostid);
		if ((key && one->key != key) || (is_own && keep_own))
			continue;
		if (!is_own)
			tell(ch, one->hostid, NVME_REGISTRATION_PREEMPTED);
		registrant_remove(r, i);
		removed++;
	}
	return removed;
}

/* Another holder: this host. */
static void take_over(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
		      const struct nvmf_reservation_command *c)
{
	uint8_t old = ch->next.type;
	remove_by_key(ch, hostid, c->other, true);
	hold(&ch->next, hostid, c->type);
	if (old != c->type)
		tell_released(ch, hostid);
}

static uint16_t step_preempt(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     const struct nvmf_reservation_command *c)
{
	struct nvmf_reservation *r = &ch->next;
	bool is_held = r->type != NVME_RESERVATION_NONE;
	bool is_of_all = is_held && is_all(r->type);
	bool is_holders_key = is_held && !is_of_all && r->registrants[find(r, r->holder)].key == c->other;
	if (is_holders_key || (is_of_all && c->other == 0)) {
		take_over(ch, hostid, c);
		return 0;
	}
	if (c->other == 0)
		return is_held ? INVALID : CONFLICT;
	return remove_by_key(ch, hostid, c->other, false) > 0 ? 0 : CONFLICT;
}

static bool has_key(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES], uint64_t key)
{
	size_t i = find(r, hostid);
	return i < r->count && r->registrants[i].key == key;
}

static uint16_t step_acquisition(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
				 const struct nvmf_reservation_command *c)
{
	if (c->ignore_key || c->type == NVME_RESERVATION_NONE || c->type >= NVMF_RESERVATION_TYPES ||
	    c->action > NVME_PREEMPT_ABORT)
		return INVALID;
	if (!has_key(&ch->next, hostid, c->current))
		return CONFLICT;
	if (c->action == NVME_ACQUIRE)
		return step_acquire(&ch->next, hostid, c);
	uint16_t status = step_preempt(ch, hostid, c);
	if (status == 0)
		ch->next.generation++;
	return status;
}

/* ---- release ----------------------------------------------------------------------------------------------------------------------- */

/* A registrant that does not hold it has nothing to release, which is no error. */
static uint16_t step_release(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     const struct nvmf_reservation_command *c)
{
	struct nvmf_reservation *r = &ch->next;
	if (!nvmf_reservation_is_holder(r, hostid))
		return 0;
	if (r->type != c->type)
		return INVALID;
	release(r);
	if (is_shared(c->type))
		tell_released(ch, hostid);
	return 0;
}

static void step_clear(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES])
{
	struct nvmf_reservation *r = &ch->next;
	for (size_t i = 0; i < r->count; i++)
		if (!same_host(r->registrants[i].hostid, hostid))
			tell(ch, r->registrants[i].hostid, NVME_RESERVATION_PREEMPTED);
	memset(r->registrants, 0, sizeof(r->registrants));
	r->count = 0;
	r->generation++;
	release(r);
}

static uint16_t step_giving_up(struct nvmf_reservation_change *ch, const uint8_t hostid[NVMF_HOSTID_BYTES],
			       const struct nvmf_reservation_command *c)
{
	if (c->ignore_key || c->action > NVME_CLEAR)
		return INVALID;
	if (!has_key(&ch->next, hostid, c->current))
		return CONFLICT;
	if (c->action == NVME_RELEASE)
		return step_release(ch, hostid, c);
	step_clear(ch, hostid);
	return 0;
}

/* ---- a command ----------------------------------------------------------------------------------------------------------------------- */

uint32_t nvmf_reservation_key_bytes(uint8_t opcode)
{
	return opcode == NVME_IO_RESERVATION_RELEASE ? sizeof(le64) : sizeof(struct nvme_reservation_keys);
}

struct nvmf_reservation_command nvmf_reservation_decode(const struct nvme_sqe *e, const void *keys)
{
	uint32_t cdw10 = le32_get(e->cdw10);
	struct nvme_reservation_keys w = {0};
	memcpy(&w, keys, nvmf_reservation_key_bytes(e->opcode));
	bool is_register = e->opcode == NVME_IO_RESERVATION_REGISTER;
	return (struct nvmf_reservation_command){
		.opcode = e->opcode,
		.action = NVME_RESERVATION_ACTION(cdw10),
		.ignore_key = cdw10 & NVME_RESERVATION_IGNORE_KEY,
		.type = is_register ? 0 : NVME_RESERVATION_TYPE(cdw10),
		.persist = is_register ? NVME_RESERVATION_PERSIST(cdw10) : 0,
		.current = le64_get(w.current),
		.other = le64_get(w.other),
	};
}

static void change_begin(struct nvmf_reservation_change *ch, const struct nvmf_reservation *now)
{
	memset(ch, 0, sizeof(*ch));
	memcpy(&ch->next, now, sizeof(*now)); /* whole: they are compared as bytes */
}

uint16_t nvmf_reservation_step(const struct nvmf_reservation *now, const uint8_t hostid[NVMF_HOSTID_BYTES],
			       const struct nvmf_reservation_command *c, struct nvmf_reservation_change *out)
{
	uint16_t status = INVALID;
	change_begin(out, now);
	if (c->opcode == NVME_IO_RESERVATION_REGISTER)
		status = step_registration(out, hostid, c);
	else if (c->opcode == NVME_IO_RESERVATION_ACQUIRE)
		status = step_acquisition(out, hostid, c);
	else if (c->opcode == NVME_IO_RESERVATION_RELEASE)
		status = step_giving_up(out, hostid, c);
	if (status)
		change_begin(out, now);
	out->is_changed = memcmp(&out->next, now, sizeof(*now)) != 0;
	assert(nvmf_reservation_is_sound(&out->next));
	return status;
}

/* ---- the note -------------------------------------------------------------------------------------------------------------------------- */

uint32_t nvmf_reservation_encode(const struct nvmf_reservation *r, const struct uuid *boot,
				 uint8_t note[NVMF_RESERVATION_NOTE_MAX])
{
	struct reservation_note_wire w = {
		.magic = le32_of(RESERVATION_NOTE_MAGIC),
		.version = le16_of(RESERVATION_NOTE_VERSION),
		.type = r->type,
		.flags = r->persists ? RESERVATION_NOTE_PERSISTS : 0,
		.generation = le32_of(r->generation),
		.count = le16_of(r->count),
	};
	struct reservation_registrant_wire *registrants = (void *)(note + sizeof(w));
	uint32_t len_bytes = (uint32_t)(sizeof(w) + r->count * sizeof(*registrants));
	memcpy(w.boot, boot->b, sizeof(w.boot));
	memcpy(w.holder, r->holder, sizeof(w.holder));
	memcpy(note, &w, sizeof(w));
	for (size_t i = 0; i < r->count; i++) {
		memcpy(registrants[i].hostid, r->registrants[i].hostid, NVMF_HOSTID_BYTES);
		registrants[i].key = le64_of(r->registrants[i].key);
	}
	w.crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct reservation_note_wire, crc)));
	memcpy(note, &w, sizeof(w));
	return len_bytes;
}

/* Is it ours, of a version we know, and whole? */
static int check_note(const void *note, size_t len_bytes)
{
	const struct reservation_note_wire *w = note;
	if (len_bytes < sizeof(*w) || le32_get(w->magic) != RESERVATION_NOTE_MAGIC)
		return OXE_CORRUPT;
	if (le32_get(w->crc) != crc32c_around(note, len_bytes, offsetof(struct reservation_note_wire, crc)))
		return OXE_CORRUPT;
	if (le16_get(w->version) != RESERVATION_NOTE_VERSION)
		return OXE_VERSION;
	size_t count = le16_get(w->count);
	if (count > NVMF_REGISTRANTS_MAX ||
	    len_bytes != sizeof(*w) + count * sizeof(struct reservation_registrant_wire))
		return OXE_CORRUPT;
	bool is_plain = (w->flags & ~RESERVATION_NOTE_PERSISTS) == 0 &&
			bytes_are_zero(w->reserved, sizeof(w->reserved));
	return is_plain ? 0 : OXE_CORRUPT;
}

static void take_note(const void *note, struct nvmf_reservation *out)
{
	const struct reservation_note_wire *w = note;
	const struct reservation_registrant_wire *registrants = (const void *)(w + 1);
	memset(out, 0, sizeof(*out));
	out->generation = le32_get(w->generation);
	out->type = w->type;
	out->persists = w->flags & RESERVATION_NOTE_PERSISTS;
	memcpy(out->holder, w->holder, sizeof(out->holder));
	for (size_t i = 0; i < le16_get(w->count); i++)
		registrant_add(out, registrants[i].hostid, le64_get(registrants[i].key));
}

int nvmf_reservation_note_decode(const void *note, size_t len_bytes, const struct uuid *boot,
				 struct nvmf_reservation *out)
{
	const struct reservation_note_wire *w = note;
	memset(out, 0, sizeof(*out));
	int err = check_note(note, len_bytes);
	if (err)
		return err;
	take_note(note, out);
	bool is_sound = nvmf_reservation_is_sound(out);
	if (!is_sound || (!out->persists && memcmp(w->boot, boot->b, sizeof(w->boot)) != 0))
		memset(out, 0, sizeof(*out));
	return is_sound ? 0 : OXE_CORRUPT;
}
