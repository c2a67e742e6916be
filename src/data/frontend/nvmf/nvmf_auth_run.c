/*
 * nvmf_auth_run.c: authentication on a queue: Authentication Send and Receive carried out by nvmf_auth.h, one at a time.
 *
 *     Connect       says whether the queue has to; then nothing else passes until it has, and a timer ends who takes too long
 *     NEGOTIATE     the volume's list is read, so that a new secret counts from the next transaction on
 *     arithmetic    on a worker thread: it touches the exchange alone, and the turn keeps everybody else from that
 *     failure       the host is told (FAILURE1), and then the connection ends; on an admin queue the association with it
 *     again         a queue that has proved itself may do so again at any time, and works on meanwhile
 *
 * Whoever fails from one address, as one host, at one volume, three times in a row waits before each further challenge, twice as
 * long each time up to 8 s, however many connections it tries at once; beyond 15 s of such waiting it is refused unheard.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"
#include "base/prng.h"
#include "data/frontend/nvmf/nvmf_auth.h"

#define FREE_FAILURES	2 /* and then it costs time */
#define DELAY_MIN_NS	(250 * NS_PER_MS)
#define DELAY_MAX_NS	(8 * NS_PER_S)
#define DELAY_QUEUED_NS (15 * NS_PER_S)
#define DELAY_SHIFT_MAX 5

struct nvmf_auth {
	struct nvmf_conn *conn;
	struct fmutex turn;
	enum nvmf_auth_state state;
	bool is_required, has_proved;
	uint16_t t_id;
	uint8_t explanation;
	const char *because; /* static text */
	struct rt_timer timer;
	struct nvmf_auth_exchange x;
};

/* ---- its life ------------------------------------------------------------------------------------------------------------- */

static void too_late(struct rt_timer *timer)
{
	struct nvmf_auth *a = container_of(timer, struct nvmf_auth, timer);
	nvmf_drop(a->conn, "it did not authenticate in time");
	nvmf_conn_break(a->conn);
}

static struct nvmf_auth *auth_of(struct nvmf_conn *c)
{
	struct nvmf_auth *a = c->auth;
	if (a)
		return a;
	a = c->auth = mem_zalloc(sizeof(*a));
	a->conn = c;
	fmutex_init(&a->turn);
	timer_init(&a->timer, too_late);
	return a;
}

static void timer_start(struct nvmf_auth *a)
{
	struct nvmf_server *server = a->conn->server;
	timer_arm(server->rt, &a->timer, rt_now_ns(server->rt) + server->options.handshake_timeout_ns);
}

void nvmf_auth_require(struct nvmf_conn *c)
{
	struct nvmf_auth *a = auth_of(c);
	a->is_required = true;
	timer_start(a);
}

void nvmf_auth_free(struct nvmf_conn *c)
{
	if (!c->auth)
		return;
	timer_cancel(c->server->rt, &c->auth->timer);
	explicit_bzero(c->auth, sizeof(*c->auth));
	free(c->auth);
	c->auth = NULL;
}

bool nvmf_auth_has_proved(const struct nvmf_conn *c)
{
	return c->auth && c->auth->has_proved;
}

bool nvmf_auth_admits(const struct nvmf_conn *c, const struct nvme_sqe *sqe)
{
	const struct nvmf_auth *a = c->auth;
	uint8_t fctype = ((const struct nvme_connect *)sqe)->fctype;
	if (!a || !a->is_required || a->has_proved)
		return true;
	return sqe->opcode == NVME_FABRICS &&
	       (fctype == NVME_FABRICS_AUTH_SEND || fctype == NVME_FABRICS_AUTH_RECEIVE);
}

/* ---- who keeps failing ------------------------------------------------------------------------------------------------------ */

static struct nvmf_auth_failures *failures_of(const struct nvmf_conn *c)
{
	const struct nvmf_controller *ctrl = c->controller;
	struct where peer = where_of(rt_conn_peer(c->link.conn));
	uint64_t key = hash_u64(hash_bytes(peer.host, peer.host_bytes) ^
				hash_u64(hash_bytes(ctrl->hostnqn, strlen(ctrl->hostnqn)) ^
					 hash_bytes(ctrl->subnqn, strlen(ctrl->subnqn))));
	struct nvmf_auth_failures *f = &c->server->auth_failures[key % NVMF_AUTH_FAILURES_KEPT];
	if (f->key != key)
		*f = (struct nvmf_auth_failures){.key = key};
	return f;
}

/* False: it has to come again later. Suspends. */
static bool wait_after_failures(const struct nvmf_conn *c)
{
	struct nvmf_auth_failures *f = failures_of(c);
	uint64_t now_ns = rt_now_ns(c->server->rt);
	if (f->count <= FREE_FAILURES)
		return true;
	unsigned shift = (unsigned)u64_min(f->count - FREE_FAILURES - 1, DELAY_SHIFT_MAX);
	uint64_t at_ns = u64_max(now_ns, f->next_ns) + u64_min(DELAY_MIN_NS << shift, DELAY_MAX_NS);
	if (at_ns - now_ns > DELAY_QUEUED_NS)
		return false;
	f->next_ns = at_ns;
	fiber_sleep(at_ns - now_ns);
	return true;
}

/* ---- steps -------------------------------------------------------------------------------------------------------------------- */

/* FAILURE1 is to be fetched, and says why. */
static void refuse(struct nvmf_auth *a, uint8_t explanation, const char *because)
{
	a->state = AUTH_REFUSING;
	a->explanation = explanation;
	a->because = because;
	explicit_bzero(&a->x, sizeof(a->x));
}

static void succeed(struct nvmf_auth *a)
{
	const struct nvmf_conn *c = a->conn;
	a->has_proved = true;
	c->server->stats.hosts_proved++;
	*failures_of(c) = (struct nvmf_auth_failures){0};
	timer_cancel(c->server->rt, &a->timer);
	LOG_INFO("nvmf.authenticated", "a host has proved itself", F_STR("peer", rt_conn_peer(c->link.conn)),
		 F_STR("host", c->controller->hostnqn), F_STR("subsystem", c->controller->subnqn),
		 F_U64("queue", c->qid), F_U64("hash", a->x.hash), F_U64("group", a->x.group),
		 F_U64("both", a->x.wants_proof));
	explicit_bzero(&a->x, sizeof(a->x));
}

/* Both sides' secrets, as the volume's list has them now; of what is foreign it is one. */
static bool take_secrets(struct nvmf_auth *a)
{
	const struct nvmf_controller *ctrl = a->conn->controller;
	struct nvmf_access *access;
	memcpy(a->x.hostnqn, ctrl->hostnqn, sizeof(a->x.hostnqn));
	memcpy(a->x.subnqn, ctrl->subnqn, sizeof(a->x.subnqn));
	if (ctrl->foreign) {
		a->x.secret = a->x.controller_secret = ctrl->server->foreign_secret;
		return nvme_secret_is_set(&a->x.secret);
	}
	if (!nvmf_is_volume(ctrl) || nvmf_gate_read(ctrl->server, &ctrl->subsystem->volume_id, &access))
		return false;
	const struct nvmf_access_host *host = nvmf_access_find(access, ctrl->hostnqn);
	bool is_there = host && nvme_secret_is_set(&host->secret);
	if (is_there) {
		a->x.secret = host->secret;
		a->x.controller_secret = host->controller_secret;
	}
	nvmf_gate_free(access);
	return is_there;
}

struct work {
	struct nvmf_auth_exchange *x;
	int result;
};

static void make_key(void *arg)
{
	struct work *w = arg;
	w->result = nvmf_auth_key_make(w->x);
}

static void verify(void *arg)
{
	struct work *w = arg;
	w->result = nvmf_auth_verify(w->x);
}

static int offload(struct nvmf_auth *a, void (*fn)(void *arg))
{
	struct work w = {.x = &a->x};
	rt_offload(fn, &w);
	return w.result;
}

static void negotiate(struct nvmf_auth *a, const void *message, size_t len_bytes)
{
	struct nvmf_server *server = a->conn->server;
	struct nvmf_auth_exchange *x = &a->x;
	struct nvmf_auth_offer offer;
	timer_start(a);
	memset(x, 0, sizeof(*x));
	x->t_id = a->t_id;
	int explanation = nvmf_auth_negotiate_decode(message, len_bytes, &offer);
	if (explanation)
		return refuse(a, (uint8_t)explanation, "its offer of authentication cannot be read");
	if (!wait_after_failures(a->conn))
		return refuse(a, NVME_AUTH_FAILED, "it failed to prove itself too often");
	if (!take_secrets(a))
		return refuse(a, NVME_AUTH_FAILED, "there is no secret for it");
	explanation = nvmf_auth_choose(&offer, x->secret.len_bytes, server->options.auth_group, &x->hash,
				       &x->group);
	if (explanation)
		return refuse(a, (uint8_t)explanation, "it has no hash or group that may be used");
	x->sequence = (uint32_t)rt_random_u64(server->rt) | 1;
	rt_random(server->rt, x->challenge, sizeof(x->challenge));
	rt_random(server->rt, x->exponent, sizeof(x->exponent));
	if (offload(a, make_key))
		refuse(a, NVME_AUTH_FAILED, "the arithmetic failed");
}

static void take_reply(struct nvmf_auth *a, const void *message, size_t len_bytes)
{
	int explanation = nvmf_auth_reply_decode(message, len_bytes, &a->x);
	if (explanation == 0)
		explanation = offload(a, verify);
	if (explanation == 0) {
		a->state = a->x.wants_proof ? AUTH_PROVED : AUTH_AGREED;
		return;
	}
	if (explanation == NVME_AUTH_FAILED) /* a guess */
		failures_of(a->conn)->count++;
	a->conn->server->stats.proofs_failed++;
	refuse(a, (uint8_t)explanation,
	       explanation == NVME_AUTH_FAILED ? "it did not prove itself: its secret is another"
					       : "its proof cannot be read");
}

static void host_refuses(struct nvmf_auth *a)
{
	nvmf_drop(a->conn, "it did not believe our proof: the controller secret is another");
	a->conn->is_leaving = true; /* the sender closes behind the answer */
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------ */

static void take_message(struct nvmf_auth *a, const void *message, size_t len_bytes)
{
	enum nvmf_auth_event event = AUTH_ON_FETCH;
	uint16_t t_id = a->t_id;
	int explanation = nvmf_auth_event_of(message, len_bytes, &event, &t_id);
	bool is_other = event != AUTH_ON_NEGOTIATE && t_id != a->t_id;
	if (a->state == AUTH_OVER)
		return;
	if (explanation || is_other)
		return refuse(a, explanation ? (uint8_t)explanation : NVME_AUTH_WRONG_PAYLOAD,
			      "it sent no message of this authentication");
	enum nvmf_auth_state before = a->state;
	a->state = nvmf_auth_next(before, event);
	a->t_id = t_id;
	if (a->state == AUTH_REFUSING)
		refuse(a, NVME_AUTH_WRONG_MESSAGE, "it sent a message of authentication out of turn");
	else if (event == AUTH_ON_NEGOTIATE)
		negotiate(a, message, len_bytes);
	else if (event == AUTH_ON_REPLY)
		take_reply(a, message, len_bytes);
	else if (event == AUTH_ON_SUCCESS2)
		succeed(a);
	else
		host_refuses(a);
}

static size_t give_message(struct nvmf_auth *a, uint8_t *out)
{
	enum nvmf_auth_state before = a->state;
	size_t len_bytes = 0;
	a->state = nvmf_auth_next(before, AUTH_ON_FETCH);
	if (a->state == AUTH_REFUSING) /* there is nothing to fetch */
		refuse(a, NVME_AUTH_WRONG_MESSAGE, "it fetched a message of authentication out of turn");
	if (before == AUTH_CHALLENGING)
		len_bytes = nvmf_auth_challenge_build(&a->x, out);
	else if (before == AUTH_AGREED || before == AUTH_PROVED)
		len_bytes = nvmf_auth_success1_build(&a->x, out);
	else
		len_bytes = nvmf_auth_failure1_build(a->t_id, a->explanation, out);
	if (before == AUTH_AGREED)
		succeed(a);
	return len_bytes;
}

static uint16_t run_receive(struct nvmf_request *r, struct nvmf_auth *a)
{
	uint8_t *message = mem_zalloc(NVME_AUTH_BYTES_MAX);
	size_t len_bytes = give_message(a, message), room_bytes = r->command.data_bytes;
	bool fits = len_bytes <= room_bytes;
	memset(r->payload, 0, room_bytes);
	if (fits)
		memcpy(r->payload, message, len_bytes);
	free(message);
	bool is_over = a->state == AUTH_REFUSING || a->state == AUTH_OVER;
	if (!fits || is_over) {
		nvmf_drop(r->conn, fits ? a->because : "it has no room for a message of authentication");
		a->state = AUTH_OVER;
		r->conn->is_leaving = true; /* the sender closes behind the answer */
	}
	r->answer_bytes = fits ? r->command.data_bytes : 0;
	return fits ? 0 : NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR;
}

uint16_t nvmf_auth_run(struct nvmf_request *r)
{
	const struct nvme_auth_command *w = (const void *)&r->sqe;
	struct nvmf_auth *a = auth_of(r->conn);
	uint16_t status = 0;
	if (w->secp != NVME_AUTH_SECP || w->spsp0 != NVME_AUTH_SPSP || w->spsp1 != NVME_AUTH_SPSP)
		return NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR;
	fmutex_lock(&a->turn);
	if (w->fctype == NVME_FABRICS_AUTH_SEND)
		take_message(a, r->payload, r->command.data_bytes);
	else
		status = run_receive(r, a);
	fmutex_unlock(&a->turn);
	return status;
}
