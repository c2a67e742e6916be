/*
 * nvmf_tls.c: how a connection begins: in the clear, or with TLS 1.3 by the key that a volume's list has for the host (NVMe TCP
 * transport specification 1.1, 3.6). The first byte says which: a hello of TLS begins with 22, a PDU that may come first with 0.
 *
 *     off        TLS is refused
 *     allowed    both; but a host whose entry on the list has a key must come through TLS (nvmf_gate.c)
 *     required   what is in the clear is refused, but on loopback addresses, where it is as if allowed
 *
 * The client names its key, and with it the host and the subsystem it comes for: Connect must say the same. Discovery is nobody's
 * volume, so a host comes there with its key for any volume: with a name of version 1, which says which key it is, or with the key of
 * the first volume that has one for it.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"
#include "data/nvme/nvme_psk.h"

#define TLS_HANDSHAKE 22 /* the type of a record that holds a hello */

bool nvmf_tls_is_required(const struct nvmf_server *server, const struct listener *l)
{
	struct where where = where_of(l->address);
	return server->options.tls == NVMF_TLS_REQUIRED && !where_is_loopback(&where);
}

/* ---- the key ---------------------------------------------------------------------------------------------------------------- */

static bool is_key(const struct nvme_secret *key, const char *identity, const struct nvme_psk_name *name,
		   struct tls_psk *out)
{
	bool is_it = nvme_secret_is_set(key) &&
		     nvme_psk_make(key, name->version, name->hostnqn, name->subnqn, out) == 0 &&
		     strcmp(out->identity, identity) == 0;
	if (!is_it)
		explicit_bzero(out, sizeof(*out));
	return is_it;
}

/* Is the key of this volume's list for the host the one that is named? 0, OXE_NOENT, or why that cannot be said. Suspends. */
static int find_in_volume(struct nvmf_server *server, const struct uuid *volume_id, const char *identity,
			  const struct nvme_psk_name *name, struct tls_psk *out)
{
	struct nvmf_access *access;
	int err = nvmf_gate_read(server, volume_id, &access);
	if (err)
		return err;
	const struct nvmf_access_host *host = nvmf_access_find(access, name->hostnqn);
	bool is_it = host && is_key(&host->tls_key, identity, name, out);
	nvmf_gate_free(access);
	return is_it ? 0 : OXE_NOENT;
}

struct volumes {
	struct uuid *ids;
	size_t count, capacity;
};

static bool remember(void *ctx, const struct engine_export *e)
{
	struct volumes *v = ctx;
	if (e->is_snapshot)
		return true;
	if (v->count == v->capacity) {
		v->capacity = v->capacity ? 2 * v->capacity : 64;
		v->ids = mem_realloc(v->ids, v->capacity * sizeof(*v->ids));
	}
	v->ids[v->count++] = e->volume_id;
	return true;
}

static bool find_in_any(struct nvmf_server *server, const char *identity, const struct nvme_psk_name *name,
			struct tls_psk *out)
{
	struct volumes v = {0};
	bool is_found = false;
	engines_walk(server->engines, remember, &v);
	for (size_t i = 0; i < v.count && !is_found; i++)
		is_found = find_in_volume(server, &v.ids[i], identity, name, out) == 0;
	free(v.ids);
	return is_found;
}

/* What is not here may be in a moment: its pool is being opened, say. An alert would tell the host that its key is none, and some hosts
 * give up for good then; so it is left without a word, and comes again. */
static bool left_without_a_word(struct nvmf_conn *c, const char *because)
{
	nvmf_drop(c, because);
	link_shutdown(&c->link);
	return false;
}

static bool find_in_here(struct nvmf_conn *c, const struct uuid *volume_id, const char *identity,
			 const struct nvme_psk_name *name, struct tls_psk *out)
{
	struct engine *engine;
	int err = engine_open_volume(c->server->engines, volume_id, &engine);
	bool is_there = err == 0;
	if (is_there) {
		err = find_in_volume(c->server, volume_id, identity, name, out);
		engine_close(engine);
	}
	if (!is_there)
		return left_without_a_word(c, "its volume is not here");
	if (err && err != OXE_NOENT)
		return left_without_a_word(c, "its volume's list cannot be read");
	return err == 0;
}

/* The key is on the list of the volume that is named, or of that whose snapshot is. */
static bool find_in_named(struct nvmf_conn *c, const char *identity, const struct nvme_psk_name *name,
			  struct tls_psk *out)
{
	struct uuid volume_id, snapshot_id;
	if (nvme_nqn_to_snapshot(name->subnqn, &snapshot_id) == 0) {
		if (engines_volume_of(c->server->engines, &snapshot_id, &volume_id))
			return left_without_a_word(c, "its snapshot is not here");
	} else if (nvme_nqn_to_volume(name->subnqn, &volume_id)) {
		return false;
	}
	return find_in_here(c, &volume_id, identity, name, out);
}

static bool find_key(void *ctx, const char *identity, struct tls_psk *out)
{
	struct nvmf_conn *c = ctx;
	struct nvme_psk_name name;
	bool is_found = false;
	if (nvme_psk_name_parse(identity, &name))
		return false;
	if (nvmf_foreign_knows(c->server, name.subnqn))
		is_found = is_key(&c->server->foreign_tls_key, identity, &name, out);
	else if (c->server->options.tls == NVMF_TLS_OFF)
		nvmf_drop(c, "it comes through TLS for a volume, which is off here (--nvme-tls)");
	else if (strcmp(name.subnqn, NVME_NQN_DISCOVERY) == 0)
		is_found = find_in_any(c->server, identity, &name, out);
	else
		is_found = find_in_named(c, identity, &name, out);
	if (is_found) {
		c->tls_peer = mem_alloc(sizeof(*c->tls_peer));
		memcpy(c->tls_peer->hostnqn, name.hostnqn, sizeof(name.hostnqn));
		memcpy(c->tls_peer->subnqn, name.subnqn, sizeof(name.subnqn));
	}
	return is_found;
}

/* ---- the beginning ------------------------------------------------------------------------------------------------------------ */

static int shake_hands(struct nvmf_conn *c)
{
	const struct tls_keys keys = {find_key, c};
	const char *because;
	size_t early_bytes = link_buffered(&c->link);
	int err = tls_accept_key(&keys, c->link.conn, link_bytes(&c->link), early_bytes, &c->link.tls,
				 &because);
	if (err == 0)
		link_take(&c->link, early_bytes);
	else if (c->link.timed_out)
		err = OXE_TIMEOUT;
	else
		nvmf_drop(c, because);
	return err;
}

int nvmf_tls_begin(struct nvmf_conn *c, bool *is_refused)
{
	int err = link_fill(&c->link, 1, false);
	*is_refused = false;
	if (err)
		return err;
	if (*link_bytes(&c->link) != TLS_HANDSHAKE) {
		*is_refused = c->tls_required;
		return 0;
	}
	if (c->server->options.tls == NVMF_TLS_OFF && !nvme_secret_is_set(&c->server->foreign_tls_key))
		return nvmf_drop(c, "it speaks TLS, which is off here (--nvme-tls)");
	return shake_hands(c);
}

bool nvmf_tls_admits(const struct nvmf_conn *c, const struct nvme_connect_data *data)
{
	if (!c->tls_peer || (strcmp(c->tls_peer->hostnqn, data->hostnqn) == 0 &&
			     strcmp(c->tls_peer->subnqn, data->subnqn) == 0))
		return true;
	LOG_WARN("nvmf.refused", "a host may not connect to the volume",
		 F_STR("peer", rt_conn_peer(c->link.conn)), F_STR("host", data->hostnqn),
		 F_STR("subsystem", data->subnqn), F_STR("because", "its key is for another host or volume"));
	return false;
}
