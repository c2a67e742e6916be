/*
 * nvmf_controller.c: subsystems and controllers.
 *
 *     Connect on queue 0 makes a controller --- Connect on queue n joins it --- its admin connection goes: all go, it is freed
 *                                                                             with the last of them
 *
 * Controllers are dynamic: an association gets a new id each time. Ids start at a random one, so that two nodes that serve one
 * volume seldom give out the same.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"
#include "data/nvme/nvme_status.h"

#define CNTLID_MAX	  0xffef /* above are reserved ones */
#define DISCOVERY_KATO_MS 120000
#define WAIT_STEP_NS	  (NS_PER_S / 2) /* how late a broken connection is noticed by who waits for a mirror */
#define ANSWER(result_value, status)                                                                         \
	({                                                                                                   \
		*result = (result_value);                                                                    \
		(uint16_t)(status);                                                                          \
	})

/* ---- found ---------------------------------------------------------------------------------------------------------------- */

struct nvmf_subsystem *nvmf_subsystem_find(struct nvmf_server *server, const struct uuid *id)
{
	struct nvmf_subsystem *s;
	list_for_each (s, &server->subsystems, link)
		if (uuid_equal(&s->id, id))
			return s;
	return NULL;
}

static struct nvmf_controller *controller_find(struct nvmf_server *server, uint16_t cntlid)
{
	struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server)
		if (ctrl->cntlid == cntlid)
			return ctrl;
	return NULL;
}

bool nvmf_is_of_host(const struct nvmf_controller *ctrl, const struct nvme_connect_data *data)
{
	return memcmp(ctrl->hostid, data->hostid, sizeof(ctrl->hostid)) == 0 &&
	       strcmp(ctrl->hostnqn, data->hostnqn) == 0 && strcmp(ctrl->subnqn, data->subnqn) == 0;
}

/* Has the host left commands behind that have not ended? */
static bool has_left_commands(struct nvmf_server *server, const struct nvme_connect_data *data)
{
	const struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server)
		if (ctrl->parting_count > 0 && nvmf_is_of_host(ctrl, data))
			return true;
	return false;
}

/* Whatever Connect waits for, it is answered: well before the time is over that the host has to connect in. */
static uint64_t answer_by_ns(const struct nvmf_conn *c)
{
	uint64_t now_ns = rt_now_ns(c->server->rt), deadline_ns = c->link.overall_deadline_ns;
	return deadline_ns > now_ns ? now_ns + (deadline_ns - now_ns) / 2 : now_ns;
}

/* False if that takes too long. */
static bool wait_for_departures(struct nvmf_conn *c, const struct nvme_connect_data *data, uint64_t until_ns)
{
	while (!c->is_broken && has_left_commands(c->server, data))
		if (!waitq_wait_until(&c->server->departures, until_ns))
			return false;
	return !c->is_broken;
}

/* ---- made ------------------------------------------------------------------------------------------------------------------ */

static struct nvmf_subsystem *subsystem_take(struct nvmf_server *server, const struct engine *engine)
{
	struct nvmf_subsystem *s = nvmf_subsystem_find(server, &engine_info(engine)->id);
	if (s)
		return s;
	s = mem_zalloc(sizeof(*s));
	s->id = engine_info(engine)->id;
	s->volume_id = *engine_volume_id(engine);
	list_init(&s->controllers);
	list_init(&s->writes);
	list_init(&s->fused);
	waitq_init(&s->ranges);
	nvmf_fence_init(&s->fence);
	list_add_tail(&server->subsystems, &s->link);
	return s;
}

static void subsystem_drop(struct nvmf_subsystem *s)
{
	if (!list_empty(&s->controllers) || s->users > 0)
		return;
	assert(list_empty(&s->writes) && list_empty(&s->fused) && list_empty(&s->fence.inside));
	assert(s->lent_bytes == 0);
	list_del(&s->link);
	free(s);
}

struct nvmf_subsystem *nvmf_subsystem_get(struct nvmf_server *server, const struct engine *engine)
{
	struct nvmf_subsystem *s = subsystem_take(server, engine);
	s->users++;
	return s;
}

void nvmf_subsystem_put(struct nvmf_subsystem *s)
{
	s->users--;
	subsystem_drop(s);
}

static uint16_t cntlid_next(struct nvmf_server *server)
{
	do
		server->last_cntlid = (uint16_t)(server->last_cntlid % CNTLID_MAX + 1);
	while (controller_find(server, server->last_cntlid));
	return server->last_cntlid;
}

static uint64_t keep_alive_ns(const struct nvmf_controller *ctrl)
{
	return u64_div_up(ctrl->kato_ms, NVMF_KATO_UNIT_MS) * NVMF_KATO_UNIT_MS * NS_PER_MS;
}

/* A host may count on the end of an association that has heard nothing for twice the time, even where this process itself
 * stood still for a while: what it has in its sockets then is nothing it may carry out any more. */
static void keep_alive_fired(struct rt_timer *timer)
{
	struct nvmf_controller *ctrl = container_of(timer, struct nvmf_controller, keep_alive);
	uint64_t late_ns = rt_now_ns(ctrl->server->rt) - timer->deadline_ns;
	if (ctrl->was_heard && late_ns < keep_alive_ns(ctrl))
		nvmf_keep_alive_set(ctrl, ctrl->kato_ms);
	else
		nvmf_controller_end(ctrl, "it kept silent for longer than its keep alive time-out");
}

void nvmf_keep_alive_set(struct nvmf_controller *ctrl, uint32_t kato_ms)
{
	struct rt *rt = ctrl->server->rt;
	ctrl->kato_ms = kato_ms;
	ctrl->was_heard = false;
	if (kato_ms && !ctrl->is_ending)
		timer_arm(rt, &ctrl->keep_alive, rt_now_ns(rt) + keep_alive_ns(ctrl));
	else
		timer_cancel(rt, &ctrl->keep_alive);
}

/* Who only asks for the list has an end, too, as the specification wants it; so has who reads and writes a copy. */
static uint32_t kato_of(const struct nvmf_controller *ctrl, uint32_t asked_ms)
{
	return asked_ms == 0 && !nvmf_is_volume(ctrl) ? DISCOVERY_KATO_MS : asked_ms;
}

static struct nvmf_controller *controller_make(struct nvmf_conn *c, const struct nvme_connect_data *data,
					       struct engine *engine)
{
	struct nvmf_server *server = c->server;
	struct nvmf_controller *ctrl = mem_zalloc(sizeof(*ctrl));
	ctrl->server = server;
	ctrl->engine = engine;
	ctrl->cntlid = cntlid_next(server);
	ctrl->since_wall_ns = rt_wall_ns(server->rt);
	ctrl->is_tls = c->tls_peer != NULL;
	ctrl->is_near = where_is_near(rt_conn_local(c->link.conn), rt_conn_peer(c->link.conn));
	memcpy(ctrl->hostid, data->hostid, sizeof(ctrl->hostid));
	memcpy(ctrl->hostnqn, data->hostnqn, sizeof(ctrl->hostnqn));
	memcpy(ctrl->subnqn, data->subnqn, sizeof(ctrl->subnqn));
	timer_init(&ctrl->keep_alive, keep_alive_fired);
	list_init(&ctrl->event_requests);
	list_init(&ctrl->link_in_subsystem);
	list_add_tail(&server->controllers, &ctrl->link_in_server);
	server->stats.controllers++;
	if (engine) {
		ctrl->size_told = engine_info(engine)->size_bytes;
		ctrl->subsystem = subsystem_take(server, engine);
		list_add_tail(&ctrl->subsystem->controllers, &ctrl->link_in_subsystem);
	}
	return ctrl;
}

static void queue_add(struct nvmf_controller *ctrl, struct nvmf_conn *c, const struct nvme_connect *sqe)
{
	c->controller = ctrl;
	c->qid = le16_get(sqe->qid);
	c->entries = (uint16_t)(le16_get(sqe->sqsize) + 1);
	c->sq_head = 1; /* Connect was the first */
	c->no_flow_control = sqe->cattr & NVME_CATTR_NO_SQ_FLOW_CONTROL;
	ctrl->queues[c->qid] = c;
	ctrl->conn_count++;
}

/* A snapshot's name opens no volume. */
static int open_snapshot(struct engines *engines, const struct uuid *id, struct engine **out)
{
	int err = engine_open_id(engines, id, out);
	if (err || !uuid_equal(engine_volume_id(*out), id))
		return err;
	engine_close(*out);
	*out = NULL;
	return OXE_NOENT;
}

/* The engine of the subsystem that is named; NULL for discovery, and for what is foreign. A volume that is not here may be tomorrow: its pool is not open
 * yet, say. So the host may try again. */
static uint16_t open_subsystem(struct nvmf_conn *c, const struct nvme_connect_data *data, struct engine **out,
			       uint64_t *result)
{
	struct engines *engines = c->server->engines;
	struct uuid id;
	int err;
	*out = NULL;
	if (strcmp(data->subnqn, NVME_NQN_DISCOVERY) == 0 || nvmf_foreign_knows(c->server, data->subnqn))
		return 0;
	if (nvme_nqn_to_volume(data->subnqn, &id) == 0)
		err = engine_open_volume(engines, &id, out);
	else if (nvme_nqn_to_snapshot(data->subnqn, &id) == 0)
		err = open_snapshot(engines, &id, out);
	else
		return ANSWER(NVME_CONNECT_IN_DATA(subnqn), NVME_STATUS_CONNECT_INVALID | NVME_STATUS_DNR);
	if (err)
		return ANSWER(NVME_CONNECT_IN_DATA(subnqn), NVME_STATUS_CONNECT_INVALID);
	return 0;
}

/* A mirror that no copy has answered yet may serve in a moment: a host's first attempt then succeeds. Else the host is told to try
 * again. */
static uint16_t wait_until_served(struct nvmf_conn *c, struct engine *e, uint64_t until_ns)
{
	struct rt *rt = c->server->rt;
	int err;
	do
		err = engine_wait(e, u64_min(until_ns, rt_now_ns(rt) + WAIT_STEP_NS));
	while (err == OXE_TIMEOUT && !c->is_broken && rt_now_ns(rt) < until_ns);
	return err ? NVME_STATUS_CONNECT_BUSY : 0;
}

static void controller_free(struct nvmf_controller *ctrl);

/* Who may use the volume is known before anybody does. Without it there is no controller, and the host may try again. */
static uint16_t settle(struct nvmf_controller *ctrl, const char *peer)
{
	uint16_t status = 0;
	if (ctrl->foreign)
		status = nvmf_foreign_check(ctrl, peer);
	else if (nvmf_is_volume(ctrl) && nvmf_fence_read(ctrl))
		status = NVME_STATUS_INTERNAL;
	else if (nvmf_is_volume(ctrl))
		status = nvmf_gate_check(ctrl, peer);
	if (status == 0 && ctrl->is_ending) /* meanwhile */
		status = NVME_STATUS_CONNECT_BUSY;
	if (status)
		controller_free(ctrl);
	return status;
}

uint16_t nvmf_controller_new(struct nvmf_conn *c, const struct nvme_connect *sqe,
			     const struct nvme_connect_data *data, uint64_t *result)
{
	struct engine *engine;
	uint64_t until_ns = answer_by_ns(c);
	if (le16_get(data->cntlid) != NVME_CNTLID_ANY)
		return ANSWER(NVME_CONNECT_IN_DATA(cntlid), NVME_STATUS_CONNECT_INVALID | NVME_STATUS_DNR);
	uint16_t status = open_subsystem(c, data, &engine, result);
	bool is_foreign = nvmf_foreign_knows(c->server, data->subnqn);
	if (status == 0 && engine)
		status = wait_until_served(c, engine, until_ns);
	if (status == 0 && !(is_foreign ? nvmf_foreign_end_older(c, data, until_ns)
					: wait_for_departures(c, data, until_ns)))
		status = NVME_STATUS_CONNECT_BUSY;
	if (status) {
		if (engine)
			engine_close(engine);
		return status;
	}
	struct nvmf_controller *ctrl = controller_make(c, data, engine);
	if (is_foreign)
		ctrl->foreign =
			c->server->foreign.attach(c->server->foreign.ctx, data->subnqn, &ctrl->foreign_id);
	status = settle(ctrl, rt_conn_peer(c->link.conn));
	if (status == (NVME_STATUS_CONNECT_HOST | NVME_STATUS_DNR))
		return ANSWER(NVME_CONNECT_IN_DATA(hostnqn), status);
	if (status)
		return status;
	queue_add(ctrl, c, sqe);
	nvmf_keep_alive_set(ctrl, kato_of(ctrl, le32_get(sqe->kato_ms)));
	*result = ctrl->cntlid;
	return 0;
}

uint16_t nvmf_controller_join(struct nvmf_conn *c, const struct nvme_connect *sqe,
			      const struct nvme_connect_data *data, uint64_t *result)
{
	uint16_t qid = le16_get(sqe->qid), cntlid = le16_get(data->cntlid);
	if (!wait_for_departures(c, data, answer_by_ns(c)))
		return NVME_STATUS_CONNECT_BUSY;
	struct nvmf_controller *ctrl = controller_find(c->server, cntlid);
	if (!ctrl || ctrl->is_ending || strcmp(ctrl->subnqn, data->subnqn) != 0)
		return ANSWER(NVME_CONNECT_IN_DATA(cntlid), NVME_STATUS_CONNECT_INVALID | NVME_STATUS_DNR);
	if (!nvmf_is_of_host(ctrl, data) || ctrl->is_tls != (c->tls_peer != NULL))
		return NVME_STATUS_CONNECT_HOST | NVME_STATUS_DNR;
	if (!(ctrl->csts & NVME_CSTS_RDY))
		return NVME_STATUS_SEQUENCE_ERROR | NVME_STATUS_DNR;
	if (nvmf_is_discovery(ctrl) || qid > NVMF_QUEUES_MAX)
		return ANSWER(NVME_CONNECT_IN_SQE(qid), NVME_STATUS_CONNECT_INVALID | NVME_STATUS_DNR);
	if (ctrl->queues[qid])
		return ANSWER(NVME_CONNECT_IN_SQE(qid), NVME_STATUS_SEQUENCE_ERROR | NVME_STATUS_DNR);
	queue_add(ctrl, c, sqe);
	*result = ctrl->cntlid;
	return 0;
}

/* ---- ended ------------------------------------------------------------------------------------------------------------------- */

void nvmf_controller_end(struct nvmf_controller *ctrl, const char *because)
{
	struct nvmf_conn *admin = ctrl->queues[NVME_ADMIN_QUEUE];
	if (ctrl->is_ending)
		return;
	ctrl->is_ending = true;
	timer_cancel(ctrl->server->rt, &ctrl->keep_alive);
	if (because && admin)
		nvmf_drop(admin, because);
	for (size_t qid = 0; qid <= NVMF_QUEUES_MAX; qid++)
		if (ctrl->queues[qid])
			nvmf_conn_break(ctrl->queues[qid]);
}

void nvmf_controller_part(struct nvmf_conn *c)
{
	struct nvmf_controller *ctrl = c->controller;
	struct nvmf_request *r;
	ctrl->parting_count++;
	if (c->qid != NVME_ADMIN_QUEUE)
		return;
	nvmf_controller_end(ctrl, NULL);
	while ((r = list_pop(&ctrl->event_requests, struct nvmf_request, link)))
		nvmf_request_free(r);
}

static void controller_free(struct nvmf_controller *ctrl)
{
	struct nvmf_server *server = ctrl->server;
	timer_cancel(server->rt, &ctrl->keep_alive);
	assert(list_empty(&ctrl->event_requests));
	ctrl->is_ending = true;
	if (ctrl->foreign) /* until it is over the host, should it come again, waits */
		server->foreign.detach(ctrl->foreign);
	list_del(&ctrl->link_in_server);
	list_del(&ctrl->link_in_subsystem);
	server->stats.controllers--;
	if (ctrl->subsystem)
		subsystem_drop(ctrl->subsystem);
	if (ctrl->engine)
		engine_close(ctrl->engine);
	free(ctrl);
	waitq_wake_all(&server->departures);
}

void nvmf_controller_leave(struct nvmf_conn *c)
{
	struct nvmf_controller *ctrl = c->controller;
	c->controller = NULL;
	ctrl->queues[c->qid] = NULL;
	ctrl->parting_count--;
	waitq_wake_all(&c->server->departures);
	if (--ctrl->conn_count == 0)
		controller_free(ctrl);
}

/* ---- asynchronous events ------------------------------------------------------------------------------------------------------ */

struct event_kind {
	uint32_t wanted; /* the bit of the feature that asks for it; 0: nobody has to */
	uint32_t notice;
};

static const struct event_kind event_kinds[NVMF_EVENTS] = {
	[NVMF_EVENT_NAMESPACE] = {NVME_OAES_NAMESPACE, NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_NAMESPACE,
								  NVME_LOG_CHANGED_NAMESPACES)},
	[NVMF_EVENT_ANA] = {NVME_OAES_ANA, NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_ANA, NVME_LOG_ANA)},
	[NVMF_EVENT_DISCOVERY] = {NVME_OAES_DISCOVERY,
				  NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_DISCOVERY, NVME_LOG_DISCOVERY)},
	[NVMF_EVENT_RESERVATION] = {0, NVME_EVENT(NVME_EVENT_COMMAND_SET, NVME_RESERVATION_AVAILABLE,
						  NVME_LOG_RESERVATION)},
};

static void events_tell(struct nvmf_controller *ctrl)
{
	for (unsigned event = 0; event < NVMF_EVENTS; event++) {
		uint32_t bit = 1u << event;
		if (!(ctrl->events_due & ~ctrl->events_told & bit) || list_empty(&ctrl->event_requests))
			continue;
		struct nvmf_request *r = list_pop(&ctrl->event_requests, struct nvmf_request, link);
		ctrl->events_due &= ~bit;
		ctrl->events_told |= bit;
		r->result = event_kinds[event].notice;
		nvmf_answer(r, 0);
	}
}

void nvmf_event_raise(struct nvmf_controller *ctrl, enum nvmf_event event)
{
	uint32_t wanted = event_kinds[event].wanted;
	if (ctrl->is_ending || (ctrl->events_wanted & wanted) != wanted)
		return;
	ctrl->events_due |= 1u << event;
	events_tell(ctrl);
}

void nvmf_event_seen(struct nvmf_controller *ctrl, enum nvmf_event event)
{
	ctrl->events_told &= ~(1u << event);
	events_tell(ctrl);
}

void nvmf_event_wait(struct nvmf_request *r)
{
	struct nvmf_controller *ctrl = r->conn->controller;
	const struct nvmf_request *waiting;
	size_t count = 0;
	list_for_each (waiting, &ctrl->event_requests, link)
		count++;
	if (count == NVMF_EVENTS_MAX) {
		nvmf_answer(r, NVME_STATUS_ASYNC_EVENT_LIMIT | NVME_STATUS_DNR);
		return;
	}
	list_add_tail(&ctrl->event_requests, &r->link);
	events_tell(ctrl);
}

/* ---- errors --------------------------------------------------------------------------------------------------------------------- */

void nvmf_error_note(struct nvmf_request *r, uint16_t status)
{
	struct nvmf_conn *c = r->conn;
	struct nvmf_controller *ctrl = c->controller;
	LOG_DEBUG("nvmf.command_failed", nvme_status_text(status), F_STR("peer", rt_conn_peer(c->link.conn)),
		  F_U64("queue", c->qid), F_U64("opcode", r->sqe.opcode), F_U64("status", status));
	c->server->stats.errors++;
	if (!ctrl)
		return;
	ctrl->error_count++;
	ctrl->errors[ctrl->error_count % NVMF_ERRORS_KEPT] = (struct nvme_log_error){
		.count = le64_of(ctrl->error_count),
		.sqid = le16_of(c->qid),
		.cid = r->sqe.cid,
		.status = le16_of((uint16_t)(status << 1)),
		.location = le16_of(0xffff),
		.lba = le64_of(c->qid ? nvme_rw_lba(&r->sqe) : 0),
		.nsid = c->qid ? r->sqe.nsid : le32_of(0),
		.trtype = NVME_TRTYPE_TCP,
	};
}
