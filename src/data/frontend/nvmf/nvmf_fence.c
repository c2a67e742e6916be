/*
 * nvmf_fence.c: reservations at work. Who may pass, what is durable before it is answered, who is told.
 *
 *     a command that touches data   asks to come in; is refused, or is inside until it has ended
 *     a reservation command         takes its turn; the step says what comes after; that is made durable (a note of the volume);
 *                                   from here on it counts; hosts are told; then whoever is inside and would be refused now is
 *                                   waited for; only then it is answered
 *
 * So when a preempt is answered, no write of a preempted host is under way, and none will be: what fencing relies on. Nothing that
 * is inside waits for a host, so the wait ends. It is the same for every change, and for preempting with abort: what is at the disk
 * already cannot be called back.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"
#include "base/text.h"

#define REFUSED(status) ((uint16_t)((status) | NVME_STATUS_DNR))

void nvmf_fence_init(struct nvmf_fence *f)
{
	fmutex_init(&f->turn);
	list_init(&f->inside);
	waitq_init(&f->left);
}

static struct nvmf_fence *fence_of(const struct nvmf_controller *ctrl)
{
	return &ctrl->subsystem->fence;
}

/* ---- the gate --------------------------------------------------------------------------------------------------------------- */

static bool is_admitted(const struct nvmf_request *r)
{
	const struct nvmf_controller *ctrl = r->conn->controller;
	return nvmf_reservation_admits(&fence_of(ctrl)->reservation, ctrl->hostid, r->sqe.opcode);
}

bool nvmf_fence_enter(struct nvmf_request *r)
{
	if (unlikely(!is_admitted(r)))
		return false;
	list_add_tail(&fence_of(r->conn->controller)->inside, &r->fence_link);
	return true;
}

void nvmf_fence_leave(struct nvmf_request *r)
{
	struct nvmf_fence *f = fence_of(r->conn->controller);
	list_del(&r->fence_link);
	if (unlikely(!waitq_empty(&f->left)))
		waitq_wake_all(&f->left);
}

static bool has_refused_inside(const struct nvmf_fence *f)
{
	const struct nvmf_request *r;
	list_for_each (r, &f->inside, fence_link)
		if (!is_admitted(r))
			return true;
	return false;
}

/* ---- the note --------------------------------------------------------------------------------------------------------------- */

static int note_read(const struct nvmf_server *server, struct engine *engine, struct nvmf_reservation *r)
{
	uint8_t *note = mem_alloc(POOL_NOTE_BYTES_MAX);
	uint32_t len_bytes;
	int err = engine_note_get(engine, POOL_NOTE_RESERVATION, note, &len_bytes);
	if (err == 0)
		err = nvmf_reservation_note_decode(note, len_bytes, &server->options.boot_id, r);
	free(note);
	return err == OXE_NOENT ? 0 : err;
}

int nvmf_fence_read(struct nvmf_controller *ctrl)
{
	struct nvmf_fence *f = fence_of(ctrl);
	int err = 0;
	fmutex_lock(&f->turn);
	if (!f->is_read)
		err = note_read(ctrl->server, ctrl->engine, &f->reservation);
	f->is_read = err == 0;
	fmutex_unlock(&f->turn);
	if (err)
		LOG_ERROR("nvmf.reservation_unreadable",
			  "nobody may connect to the volume: its reservations cannot be read",
			  F_STR("volume", engine_name(ctrl->engine)), F_ERR(err));
	return err;
}

static int note_write(struct nvmf_controller *ctrl, const struct nvmf_reservation *r)
{
	uint8_t note[NVMF_RESERVATION_NOTE_MAX];
	uint32_t len_bytes = nvmf_reservation_encode(r, &ctrl->server->options.boot_id, note);
	static_assert(sizeof(note) <= POOL_NOTE_BYTES_MAX, "it is one note");
	return engine_note_set(ctrl->engine, POOL_NOTE_RESERVATION, note, len_bytes);
}

/* ---- notices ------------------------------------------------------------------------------------------------------------------ */

/* What is not read in time is lost, as a gap in the counts tells. */
static void notice_add(struct nvmf_controller *ctrl, uint8_t what)
{
	struct nvmf_notices *n = &ctrl->notices;
	if (n->masked & NVME_RESERVATION_MASKED(what))
		return;
	n->count++;
	if (n->kept < NVMF_NOTICES_KEPT)
		n->pages[n->kept++] = (struct nvme_log_reservation){
			.count = le64_of(n->count), .type = what, .nsid = le32_of(1)};
	nvmf_event_raise(ctrl, NVMF_EVENT_RESERVATION);
}

static void tell_hosts(struct nvmf_subsystem *s, const struct nvmf_reservation_change *ch)
{
	struct nvmf_controller *ctrl;
	for (uint32_t i = 0; i < ch->notice_count; i++)
		list_for_each (ctrl, &s->controllers, link_in_subsystem)
			if (memcmp(ctrl->hostid, ch->notices[i].hostid, sizeof(ctrl->hostid)) == 0)
				notice_add(ctrl, ch->notices[i].what);
}

void nvmf_fence_put_log(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	const struct nvmf_notices *n = &ctrl->notices;
	struct nvme_log_reservation w = {0};
	if (n->kept > 0) {
		w = n->pages[0];
		w.available = n->kept - 1;
	}
	nvmf_page_add(out, &w, sizeof(w));
}

void nvmf_fence_log_seen(struct nvmf_controller *ctrl)
{
	struct nvmf_notices *n = &ctrl->notices;
	if (n->kept > 0)
		memmove(&n->pages[0], &n->pages[1], --n->kept * sizeof(n->pages[0]));
	nvmf_event_seen(ctrl, NVMF_EVENT_RESERVATION);
	if (n->kept > 0)
		nvmf_event_raise(ctrl, NVMF_EVENT_RESERVATION);
}

/* ---- changes ------------------------------------------------------------------------------------------------------------------ */

static void log_change(const struct nvmf_controller *ctrl, const struct nvmf_reservation *r)
{
	LOG_INFO("nvmf.reservation", "a host changed the reservation of a volume",
		 F_STR("volume", engine_name(ctrl->engine)), F_STR("host", ctrl->hostnqn),
		 F_U64("type", r->type), F_U64("registrants", r->count), F_U64("generation", r->generation));
}

/* With the turn. */
static int apply(struct nvmf_controller *ctrl, const struct nvmf_reservation_change *ch)
{
	struct nvmf_fence *f = fence_of(ctrl);
	int err = note_write(ctrl, &ch->next);
	if (err)
		return err;
	memcpy(&f->reservation, &ch->next, sizeof(f->reservation));
	log_change(ctrl, &f->reservation);
	tell_hosts(ctrl->subsystem, ch);
	while (has_refused_inside(f))
		waitq_wait(&f->left);
	return 0;
}

static int run_change(struct nvmf_request *r, uint16_t *status)
{
	struct nvmf_controller *ctrl = r->conn->controller;
	struct nvmf_fence *f = fence_of(ctrl);
	struct nvmf_reservation_command command = nvmf_reservation_decode(&r->sqe, r->payload);
	struct nvmf_reservation_change ch;
	fmutex_lock(&f->turn);
	*status = nvmf_reservation_step(&f->reservation, ctrl->hostid, &command, &ch);
	int err = ch.is_changed ? apply(ctrl, &ch) : 0;
	fmutex_unlock(&f->turn);
	return err;
}

int nvmf_fence_set_persists(struct nvmf_controller *ctrl, bool persists)
{
	struct nvmf_fence *f = fence_of(ctrl);
	struct nvmf_reservation_change ch = {0};
	fmutex_lock(&f->turn);
	memcpy(&ch.next, &f->reservation, sizeof(ch.next));
	ch.next.persists = persists;
	int err = persists == f->reservation.persists ? 0 : apply(ctrl, &ch);
	fmutex_unlock(&f->turn);
	return err;
}

bool nvmf_fence_persists(const struct nvmf_controller *ctrl)
{
	return fence_of(ctrl)->reservation.persists;
}

/* ---- an operator's word -------------------------------------------------------------------------------------------------------- */

/* Everybody who was registered is told, as after a host's Clear. */
static void tell_cleared(struct nvmf_subsystem *s, const struct nvmf_reservation *was)
{
	struct nvmf_reservation_change ch = {0};
	for (size_t i = 0; i < was->count; i++) {
		struct nvmf_reservation_notice *n = &ch.notices[ch.notice_count++];
		memcpy(n->hostid, was->registrants[i].hostid, sizeof(n->hostid));
		n->what = NVME_REGISTRATION_PREEMPTED;
	}
	tell_hosts(s, &ch);
}

/* With the turn. What could not be read is there, whatever it is: hosts are kept out by it. */
static int clear(struct nvmf_subsystem *s, struct engine *engine, bool *was_there)
{
	struct nvmf_fence *f = &s->fence;
	struct nvmf_reservation was = f->reservation;
	*was_there = f->is_read ? was.count > 0 || was.persists : true;
	int err = *was_there ? engine_note_set(engine, POOL_NOTE_RESERVATION, NULL, 0) : 0;
	if (err || !*was_there)
		return err;
	f->reservation = (struct nvmf_reservation){.generation = f->is_read ? was.generation + 1 : 0};
	f->is_read = true;
	LOG_WARN("nvmf.reservation_cleared", "the reservation of a volume was taken away on request",
		 F_STR("volume", engine_name(engine)), F_U64("type", was.type),
		 F_U64("registrants", was.count));
	tell_cleared(s, &was);
	return 0;
}

/* With the turn. A volume without a note has nothing to clear; one whose note cannot be read has. */
static void read_to_clear(struct nvmf_server *server, struct nvmf_subsystem *s, struct engine *engine)
{
	if (!s->fence.is_read)
		s->fence.is_read = note_read(server, engine, &s->fence.reservation) == 0;
	if (!s->fence.is_read)
		s->fence.reservation = (struct nvmf_reservation){0};
}

int nvmf_server_reservation_clear(struct nvmf_server *server, const struct uuid *volume_id, bool *was_there)
{
	struct engine *engine;
	int err = engine_open_volume(server->engines, volume_id, &engine);
	if (err)
		return err;
	struct nvmf_subsystem *s = nvmf_subsystem_get(server, engine);
	fmutex_lock(&s->fence.turn);
	read_to_clear(server, s, engine);
	err = clear(s, engine, was_there);
	fmutex_unlock(&s->fence.turn);
	nvmf_subsystem_put(s);
	engine_close(engine);
	return err;
}

/* ---- the report --------------------------------------------------------------------------------------------------------------- */

static void put_registrant(struct text *out, const struct nvmf_reservation *r,
			   const struct nvmf_registrant *one, uint16_t cntlid)
{
	struct nvme_registrant_extended w = {
		.cntlid = le16_of(cntlid),
		.is_holder = nvmf_reservation_is_holder(r, one->hostid),
		.key = le64_of(one->key),
	};
	memcpy(w.hostid, one->hostid, sizeof(w.hostid));
	text_add_bytes(out, &w, sizeof(w));
}

/* One entry a controller of the host; one without, if it is not here. */
static uint16_t put_host(struct text *out, const struct nvmf_subsystem *s, const struct nvmf_registrant *one)
{
	const struct nvmf_controller *ctrl;
	uint16_t count = 0;
	list_for_each (ctrl, &s->controllers, link_in_subsystem) {
		if (memcmp(ctrl->hostid, one->hostid, sizeof(ctrl->hostid)) != 0)
			continue;
		put_registrant(out, &s->fence.reservation, one, ctrl->cntlid);
		count++;
	}
	if (count == 0)
		put_registrant(out, &s->fence.reservation, one, NVME_CNTLID_ANY);
	return count ? count : 1;
}

static void put_report(struct text *out, const struct nvmf_subsystem *s)
{
	static const uint8_t
		padding[sizeof(struct nvme_registrant_extended) - sizeof(struct nvme_reservation_report)];
	const struct nvmf_reservation *r = &s->fence.reservation;
	struct nvme_reservation_report w = {
		.generation = le32_of(r->generation), .type = r->type, .persist = r->persists};
	uint16_t count = 0;
	text_add_bytes(out, &w, sizeof(w));
	text_add_bytes(out, padding, sizeof(padding));
	for (size_t i = 0; i < r->count; i++)
		count += put_host(out, s, &r->registrants[i]);
	w.registrants = le16_of(count);
	memcpy(out->data, &w, sizeof(w));
}

/* Hosts have identifiers of 128 bits here: the short form has no room for them. */
static uint16_t run_report(struct nvmf_request *r)
{
	struct text report = {0};
	if (!(le32_get(r->sqe.cdw11) & NVME_RESERVATION_EXTENDED))
		return REFUSED(NVME_STATUS_HOSTID_INCONSISTENT);
	put_report(&report, r->conn->controller->subsystem);
	size_t there = u64_min(report.len_bytes, r->command.data_bytes);
	memcpy(r->payload, report.data, there);
	memset((uint8_t *)r->payload + there, 0, r->command.data_bytes - there);
	r->answer_bytes = r->command.data_bytes;
	text_free(&report);
	return 0;
}

int nvmf_fence_run(struct nvmf_request *r, uint16_t *status)
{
	const struct nvmf_controller *ctrl = r->conn->controller;
	if (engine_info(ctrl->engine)
		    ->read_only) { /* a snapshot: nobody can change it, so nobody need be fenced */
		*status = REFUSED(NVME_STATUS_INVALID_OPCODE);
		return 0;
	}
	if (r->sqe.opcode == NVME_IO_RESERVATION_REPORT) {
		*status = run_report(r);
		return 0;
	}
	if (bytes_are_zero(ctrl->hostid, sizeof(ctrl->hostid))) { /* a host without an identity */
		*status = REFUSED(NVME_STATUS_SEQUENCE_ERROR);
		return 0;
	}
	return run_change(r, status);
}
