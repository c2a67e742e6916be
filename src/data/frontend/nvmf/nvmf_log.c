/*
 * nvmf_log.c: log pages. Each is written from its beginning to its end through a window, the part that was asked for, which alone
 * is kept: a discovery log of thousands of volumes is read in thousands of small parts. What lies beyond a page's end is zero.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/prng.h"

#include <stdio.h>

#define REFUSED(status) ((uint16_t)((status) | NVME_STATUS_DNR))
#define UNIT_BYTES	512000u /* what SMART counts in */

struct nvmf_page {
	uint8_t *data;			  /* the window: what of the page is kept, */
	uint64_t offset_bytes, len_bytes; /* and which part of it that is */
	uint64_t at_bytes;		  /* written so far, kept or not */
	bool groups_only;		  /* of the ANA log: without the namespaces in them */
};

static bool is_kept(const struct nvmf_page *p, uint64_t len_bytes)
{
	return p->at_bytes < p->offset_bytes + p->len_bytes && p->at_bytes + len_bytes > p->offset_bytes;
}

void nvmf_page_add(struct nvmf_page *p, const void *data, uint64_t len_bytes)
{
	uint64_t from = u64_max(p->at_bytes, p->offset_bytes);
	uint64_t to = u64_min(p->at_bytes + len_bytes, p->offset_bytes + p->len_bytes);
	if (is_kept(p, len_bytes))
		memcpy(p->data + (from - p->offset_bytes), (const uint8_t *)data + (from - p->at_bytes),
		       to - from);
	p->at_bytes += len_bytes;
}

/* ---- errors, health, firmware ------------------------------------------------------------------------------------------------- */

static void put_errors(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	for (uint64_t i = 0; i < NVMF_ERRORS_KEPT; i++) {
		struct nvme_log_error none = {0}; /* the newest comes first */
		bool is_there = i < ctrl->error_count;
		const struct nvme_log_error *w =
			is_there ? &ctrl->errors[(ctrl->error_count - i) % NVMF_ERRORS_KEPT] : &none;
		nvmf_page_add(out, w, sizeof(*w));
	}
}

struct traffic {
	const char *name;
	struct nvme_log_smart *smart;
};

static void put_count(uint8_t field[16], uint64_t value)
{
	le64 low = le64_of(value);
	memcpy(field, &low, sizeof(low));
}

static bool count_traffic(void *ctx, const char *name, const struct engine_stats *s)
{
	const struct traffic *t = ctx;
	if (strcmp(name, t->name) != 0)
		return true;
	put_count(t->smart->units_read, u64_div_up(s->bytes[ENGINE_READ], UNIT_BYTES));
	put_count(t->smart->units_written, u64_div_up(s->bytes[ENGINE_WRITE], UNIT_BYTES));
	put_count(t->smart->host_reads, s->ops[ENGINE_READ]);
	put_count(t->smart->host_writes, s->ops[ENGINE_WRITE]);
	put_count(t->smart->media_errors, s->errors[ENGINE_READ] + s->errors[ENGINE_WRITE]);
	return false;
}

/* Since the daemon started: what a volume has gone through before is nobody's record. */
static void put_smart(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	struct nvme_log_smart w = {.temperature_kelvin = le16_of(273), .spare = 100, .spare_threshold = 0};
	struct traffic t = {engine_name(ctrl->engine), &w};
	engines_stats_walk(ctrl->server->engines, count_traffic, &t);
	put_count(w.error_entries, ctrl->error_count);
	nvmf_page_add(out, &w, sizeof(w));
}

static void put_firmware(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	struct nvme_log_firmware w = {.active = 1};
	(void)ctrl;
	memset(w.slots[0], ' ', sizeof(w.slots[0]));
	memcpy(w.slots[0], OXBOW_VERSION, u64_min(strlen(OXBOW_VERSION), sizeof(w.slots[0])));
	nvmf_page_add(out, &w, sizeof(w));
}

/* ---- namespaces, effects, access ------------------------------------------------------------------------------------------------ */

static void put_changed(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	struct nvme_id_list w = {0};
	w.nsid[0] = le32_of(ctrl->namespace_changed);
	nvmf_page_add(out, &w, sizeof(w));
}

static void put_effects(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	static const uint8_t admin[] = {NVME_ADMIN_GET_LOG_PAGE, NVME_ADMIN_IDENTIFY,
					NVME_ADMIN_ABORT,	 NVME_ADMIN_SET_FEATURES,
					NVME_ADMIN_GET_FEATURES, NVME_ADMIN_ASYNC_EVENT,
					NVME_ADMIN_KEEP_ALIVE};
	static const uint8_t read[] = {NVME_IO_FLUSH,
				       NVME_IO_READ,
				       NVME_IO_COMPARE,
				       NVME_IO_VERIFY,
				       NVME_IO_RESERVATION_REGISTER,
				       NVME_IO_RESERVATION_REPORT,
				       NVME_IO_RESERVATION_ACQUIRE,
				       NVME_IO_RESERVATION_RELEASE};
	static const uint8_t write[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES, NVME_IO_DATASET_MANAGEMENT};
	struct nvme_log_effects w = {0};
	(void)ctrl;
	for (size_t i = 0; i < ARRAY_COUNT(admin); i++)
		w.admin[admin[i]] = le32_of(NVME_EFFECT_SUPPORTED);
	for (size_t i = 0; i < ARRAY_COUNT(read); i++)
		w.io[read[i]] = le32_of(NVME_EFFECT_SUPPORTED);
	for (size_t i = 0; i < ARRAY_COUNT(write); i++)
		w.io[write[i]] = le32_of(NVME_EFFECT_SUPPORTED | NVME_EFFECT_CHANGES_DATA);
	nvmf_page_add(out, &w, sizeof(w));
}

/* One group, and the way to it is good: there is one node. */
static void put_ana(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	struct nvme_log_ana w = {.groups = le16_of(1)};
	struct nvme_log_ana_group group = {.group_id = le32_of(1),
					   .nsid_count = le32_of(!out->groups_only),
					   .state = NVME_ANA_OPTIMIZED};
	le32 nsid = le32_of(1);
	(void)ctrl;
	nvmf_page_add(out, &w, sizeof(w));
	nvmf_page_add(out, &group, sizeof(group));
	if (!out->groups_only)
		nvmf_page_add(out, &nsid, sizeof(nsid));
}

/* ---- discovery ---------------------------------------------------------------------------------------------------------------------- */

/* A volume or a snapshot. */
struct subject {
	struct uuid id, volume_id;
	bool by_tls; /* only */
};

struct discovery {
	struct nvmf_server *server;
	const char *reached;   /* where the host that asks reached us: tcp:HOST:PORT */
	struct nvmf_page *out; /* NULL: only counted */
	uint64_t records, hash;
	bool wants_subjects;
	struct subject *subjects; /* that there are, if they are wanted; then those the host may have */
	size_t count, capacity;
};

/* What of a listener is told to this host: not a wildcard, but where the host has reached us; and nothing of a loopback
 * address to somebody who came another way. False: nothing. */
static bool address_for(const struct discovery *d, const struct listener *l, struct where *out)
{
	struct where reached = where_of(d->reached);
	*out = where_of(l->address);
	if (where_is_host(out, "0.0.0.0") || where_is_host(out, "::")) {
		out->host = reached.host;
		out->host_bytes = reached.host_bytes;
		out->is_v6 = reached.is_v6;
	}
	return !where_is_loopback(out) || where_is_loopback(&reached);
}

static void put_address(struct nvme_discovery_entry *w, const struct where *at)
{
	w->adrfam = at->is_v6 ? NVME_ADRFAM_IPV6 : NVME_ADRFAM_IPV4;
	memcpy(w->traddr, at->host, u64_min(at->host_bytes, sizeof(w->traddr) - 1));
	memcpy(w->trsvcid, at->port, u64_min(strlen(at->port), sizeof(w->trsvcid) - 1));
}

static void put_name(struct nvme_discovery_entry *w, const struct subject *s)
{
	if (uuid_equal(&s->id, &s->volume_id))
		nvme_nqn_of_volume(&s->id, w->subnqn);
	else
		nvme_nqn_of_snapshot(&s->id, w->subnqn);
}

static uint8_t treq_of(const struct discovery *d, bool is_tls)
{
	if (is_tls)
		return NVME_TREQ_SECURE_REQUIRED;
	return d->server->options.tls == NVMF_TLS_OFF ? NVME_TREQ_NOT_SPECIFIED
						      : NVME_TREQ_SECURE_NOT_REQUIRED;
}

/* Where TLS is required, a host without a key has nothing to look for. */
static void discovery_add(struct discovery *d, const struct subject *s, const struct listener *l)
{
	struct nvme_discovery_entry w = {
		.trtype = NVME_TRTYPE_TCP,
		.subtype = NVME_SUBTYPE_NVM,
		.treq = treq_of(d, s->by_tls) | NVME_TREQ_NO_SQ_FLOW_CONTROL,
		.portid = le16_of(l->id),
		.cntlid = le16_of(NVME_CNTLID_ANY),
		.asqsz = le16_of(NVMF_ENTRIES_MAX),
		.tsas = {s->by_tls ? NVME_TCP_SECTYPE_TLS : NVME_TCP_SECTYPE_NONE},
	};
	struct where at;
	if (!address_for(d, l, &at) || (nvmf_tls_is_required(d->server, l) && !s->by_tls))
		return;
	d->records++;
	if (!d->out)
		return;
	if (!is_kept(d->out, sizeof(w))) {
		d->out->at_bytes += sizeof(w);
		return;
	}
	put_address(&w, &at);
	put_name(&w, s);
	nvmf_page_add(d->out, &w, sizeof(w));
}

static void remember(struct discovery *d, const struct engine_export *e)
{
	if (d->count == d->capacity) {
		d->capacity = d->capacity ? 2 * d->capacity : 64;
		d->subjects = mem_realloc(d->subjects, d->capacity * sizeof(*d->subjects));
	}
	d->subjects[d->count++] = (struct subject){.id = e->id, .volume_id = e->volume_id};
}

static bool discovery_subject(void *ctx, const struct engine_export *e)
{
	struct discovery *d = ctx;
	const struct listener *l;
	if (e->is_snapshot && !d->server->options.discovers_snapshots)
		return true;
	list_for_each (l, &d->server->listeners.all, link)
		d->hash = hash_u64(d->hash ^ hash_bytes(&e->id, sizeof(e->id)) ^ l->id);
	if (d->wants_subjects)
		remember(d, e);
	return true;
}

uint64_t nvmf_discovery_hash(struct nvmf_server *server)
{
	struct discovery d = {.server = server, .hash = 1 + server->access_changes};
	engines_walk(server->engines, discovery_subject, &d);
	return d.hash;
}

/* The generation is what was seen last; whoever reads it sees what there is now. */
static void generation_update(struct nvmf_server *server, uint64_t hash)
{
	if (hash != server->discovery_hash)
		server->discovery_generation++;
	server->discovery_hash = hash;
}

/* A host is told of what it may connect to, and of nothing else. A volume's snapshots follow it, and its list is read once for
 * all of them. Suspends. */
static void discovery_filter(struct discovery *d, const char *hostnqn)
{
	struct uuid volume_id = {0};
	bool is_shown = false;
	size_t kept = 0;
	bool by_tls = false;
	for (size_t i = 0; i < d->count; i++) {
		struct subject s = d->subjects[i];
		if (!uuid_equal(&s.volume_id, &volume_id))
			is_shown = nvmf_gate_shows(d->server, &s.volume_id, hostnqn, &by_tls);
		volume_id = s.volume_id;
		s.by_tls = by_tls;
		if (is_shown)
			d->subjects[kept++] = s;
	}
	d->count = kept;
}

static bool is_same(const struct where *a, const struct where *b)
{
	return a->host_bytes == b->host_bytes && memcmp(a->host, b->host, a->host_bytes) == 0 &&
	       strcmp(a->port, b->port) == 0;
}

/* Another discovery service; not the one that is being asked, and no loopback address for somebody who came another way. */
static void referral_add(struct discovery *d, const char *address)
{
	struct where at = where_of(address), reached = where_of(d->reached);
	struct nvme_discovery_entry w = {
		.trtype = NVME_TRTYPE_TCP,
		.subtype = NVME_SUBTYPE_REFERRAL,
		.treq = NVME_TREQ_NOT_SPECIFIED | NVME_TREQ_NO_SQ_FLOW_CONTROL,
		.cntlid = le16_of(NVME_CNTLID_ANY),
		.asqsz = le16_of(NVMF_ENTRIES_MAX),
	};
	if (is_same(&at, &reached) || (where_is_loopback(&at) && !where_is_loopback(&reached)))
		return;
	d->records++;
	put_address(&w, &at);
	nvme_nqn_put(w.subnqn, NVME_NQN_DISCOVERY);
	if (d->out)
		nvmf_page_add(d->out, &w, sizeof(w));
}

static void discovery_add_all(struct discovery *d)
{
	const struct nvmf_options *o = &d->server->options;
	for (size_t i = 0; i < o->referral_count; i++)
		referral_add(d, o->referrals[i]);
	const struct listener *l;
	for (size_t i = 0; i < d->count; i++)
		list_for_each (l, &d->server->listeners.all, link)
			discovery_add(d, &d->subjects[i], l);
}

static void put_discovery(struct nvmf_controller *ctrl, struct nvmf_page *out)
{
	const struct nvmf_conn *admin = ctrl->queues[NVME_ADMIN_QUEUE];
	struct discovery d = {.server = ctrl->server,
			      .reached = rt_conn_local(admin->link.conn),
			      .hash = 1 + ctrl->server->access_changes,
			      .wants_subjects = true};
	engines_walk(ctrl->server->engines, discovery_subject, &d);
	generation_update(ctrl->server, d.hash);
	discovery_filter(&d, ctrl->hostnqn);
	discovery_add_all(&d); /* counted: the head comes first */
	struct nvme_log_discovery w = {.generation = le64_of(ctrl->server->discovery_generation),
				       .records = le64_of(d.records)};
	nvmf_page_add(out, &w, sizeof(w));
	d.out = out;
	discovery_add_all(&d);
	free(d.subjects);
}

/* ---- which ----------------------------------------------------------------------------------------------------------------------------- */

struct log_rule {
	uint8_t id;
	bool is_discovery;
	void (*put)(struct nvmf_controller *ctrl, struct nvmf_page *out);
};

static const struct log_rule rules[] = {
	{NVME_LOG_ERROR, false, put_errors},	   {NVME_LOG_SMART, false, put_smart},
	{NVME_LOG_FIRMWARE, false, put_firmware},  {NVME_LOG_CHANGED_NAMESPACES, false, put_changed},
	{NVME_LOG_EFFECTS, false, put_effects},	   {NVME_LOG_ANA, false, put_ana},
	{NVME_LOG_DISCOVERY, true, put_discovery}, {NVME_LOG_RESERVATION, false, nvmf_fence_put_log},
};

static const struct log_rule *rule_of(const struct nvmf_controller *ctrl, uint8_t id)
{
	for (size_t i = 0; i < ARRAY_COUNT(rules); i++)
		if (rules[i].id == id && rules[i].is_discovery == nvmf_is_discovery(ctrl))
			return &rules[i];
	return NULL;
}

/* Reading a log tells that its notice has arrived, unless it says otherwise. */
static void notice_seen(struct nvmf_controller *ctrl, uint8_t id)
{
	if (id == NVME_LOG_CHANGED_NAMESPACES) {
		ctrl->namespace_changed = false;
		nvmf_event_seen(ctrl, NVMF_EVENT_NAMESPACE);
	} else if (id == NVME_LOG_ANA) {
		nvmf_event_seen(ctrl, NVMF_EVENT_ANA);
	} else if (id == NVME_LOG_RESERVATION) {
		nvmf_fence_log_seen(ctrl);
	} else if (id == NVME_LOG_DISCOVERY) {
		nvmf_event_seen(ctrl, NVMF_EVENT_DISCOVERY);
	}
}

uint16_t nvmf_log_run(struct nvmf_request *r)
{
	struct nvmf_controller *ctrl = r->conn->controller;
	uint8_t id = le32_get(r->sqe.cdw10) & 0xff;
	const struct log_rule *rule = rule_of(ctrl, id);
	struct nvmf_page page = {.data = r->payload,
				 .offset_bytes =
					 (uint64_t)le32_get(r->sqe.cdw13) << 32 | le32_get(r->sqe.cdw12),
				 .len_bytes = r->command.data_bytes,
				 .groups_only = le32_get(r->sqe.cdw10) & NVME_LOG_ANA_GROUPS};
	uint64_t end;
	if (!rule)
		return REFUSED(NVME_STATUS_INVALID_LOG_PAGE);
	if (page.offset_bytes % 4 || !u64_add_checked(page.offset_bytes, page.len_bytes, &end))
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	memset(r->payload, 0, page.len_bytes);
	rule->put(ctrl, &page);
	if (page.offset_bytes > page.at_bytes)
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	r->answer_bytes = r->command.data_bytes;
	if (!(le32_get(r->sqe.cdw10) & NVME_LOG_RETAIN))
		notice_seen(ctrl, id);
	return 0;
}
