/*
 * nvmf_tls_test.c: hosts that come through TLS, or should: hosts that say what a test wants said, the project's own host, and a volume
 * with keys on its list, in virtual time.
 */
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_psk.h"
#include "data/replica/nvme_host.h"

#define FAR    "tcp:10.0.0.1:4420" /* not on loopback */
#define KEY32  "NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:"
#define KEY48  "NVMeTLSkey-1:02:18iqDKHdvAFh2YS5hPylggJQFWJCy8/Z4eIii8qBd2tsjmq3LjkAyidjXyPO9n4bLXrR1A==:"
#define SECRET "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define OTHER  "nqn.2026-11.test:another-host"

#define REFUSED (NVME_STATUS_CONNECT_HOST | DNR)

static void allow(const char *nqn, const char *tls_key)
{
	target_allow(nqn, &(struct nvmf_access_texts){.tls_key = tls_key}, true);
}

static struct tls_psk psk_of(const char *key, uint8_t version, const char *hostnqn, const char *subnqn)
{
	struct nvme_secret configured;
	struct tls_psk psk = {0};
	CHECK_OK(nvme_tls_key_parse(key, &configured));
	CHECK_OK(nvme_psk_make(&configured, version, hostnqn, subnqn, &psk));
	return psk;
}

/* Through TLS, and initialized. */
static struct host come(const char *address, const struct tls_psk *psk)
{
	struct host h = host_open_raw(address);
	CHECK_OK(host_secure(&h, psk));
	host_initialize(&h, 0, 0);
	return h;
}

static uint16_t try_admin(struct host *h)
{
	return host_connect(h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32);
}

static void enable(struct host *h)
{
	CHECK_EQ(host_property_set(h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
}

static struct pair attach(const struct tls_psk *psk)
{
	struct pair p = {.admin = come(ADDRESS, psk), .io = come(ADDRESS, psk)};
	CHECK_EQ(try_admin(&p.admin), 0);
	enable(&p.admin);
	CHECK_EQ(host_connect(&p.io, 1, p.admin.cntlid, target.nqn, 32), 0);
	return p;
}

static void write_and_read(struct host *h)
{
	static uint8_t out[256 * KiB], in[256 * KiB];
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 31 >> 3);
	CHECK_EQ(host_io(h, NVME_IO_WRITE, 8, sizeof(out) / 512, 0, NULL, out, sizeof(out)), 0);
	CHECK_EQ(host_io(h, NVME_IO_READ, 8, sizeof(in) / 512, 0, in, NULL, sizeof(in)), 0);
	CHECK(memcmp(in, out, sizeof(out)) == 0);
	memset(in, 0, sizeof(in));
}

static void expect_no_handshake(const struct tls_psk *psk)
{
	struct host h = host_open_raw(ADDRESS);
	CHECK(host_secure(&h, psk) != 0);
	host_close(&h);
}

static uint64_t dropped(void)
{
	struct nvmf_stats s;
	fiber_sleep(NS_PER_S);
	nvmf_server_stats(target.server, &s);
	return s.connections_dropped;
}

/* ---- the handshake ---------------------------------------------------------------------------------------------------------- */

WITH_OPTIONS(what_is_written_through_tls_is_read_through_tls_with_either_hash_and_name,
	     .tls = NVMF_TLS_ALLOWED)
{
	static const char *const keys[] = {KEY32, KEY48};
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		allow(HOST_NQN, keys[i]);
		for (uint8_t version = 0; version <= 1; version++) {
			struct tls_psk psk = psk_of(keys[i], version, HOST_NQN, target.nqn);
			struct pair p = attach(&psk);
			write_and_read(&p.io);
			detach(&p);
		}
	}
	CHECK_EQ(dropped(), 0);
}

WITH_OPTIONS(another_key_another_host_or_another_volume_is_refused_in_the_handshake, .tls = NVMF_TLS_ALLOWED)
{
	struct uuid other_id = pool_double_volume(frame.pool, "other", SIZE, 512);
	char other_nqn[NVMF_NQN_SIZE];
	nvmf_volume_nqn(&other_id, other_nqn);
	allow(HOST_NQN, KEY32);
	for (uint8_t version = 0; version <= 1; version++) {
		const struct tls_psk bad[] = {
			psk_of(KEY48, version, HOST_NQN, target.nqn),
			psk_of("NVMeTLSkey-1:01:AgkQFx4lLDM6QUhPVl1ka3J5gIeOlZyjqrG4v8bN1Nuz7TWq:", version,
			       HOST_NQN, target.nqn),
			psk_of(KEY32, version, OTHER, target.nqn),
			psk_of(KEY32, version, HOST_NQN, other_nqn),
			psk_of(KEY32, version, HOST_NQN, "nqn.2026-11.test:no-volume-of-ours"),
		};
		for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
			expect_no_handshake(&bad[i]);
	}
	CHECK_EQ(dropped(), 10);
	struct tls_psk right = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	struct pair p = attach(&right);
	detach(&p);
}

/* A right key with a wrong name, so that only the end of the handshake can tell. */
WITH_OPTIONS(a_name_without_its_key_is_refused, .tls = NVMF_TLS_ALLOWED)
{
	struct tls_psk psk = psk_of(KEY32, 0, HOST_NQN, target.nqn);
	allow(HOST_NQN, KEY32);
	psk.key[7] ^= 1;
	expect_no_handshake(&psk);
	CHECK_EQ(dropped(), 1);
}

static void expect_left_without_a_word(const struct tls_psk *psk)
{
	struct host h = host_open_raw(ADDRESS);
	CHECK_ERR(host_secure(&h, psk), OXE_CLOSED);
	host_close(&h);
}

/* An alert would make some hosts give up for good. */
WITH_OPTIONS(a_host_whose_volume_or_snapshot_is_not_here_yet_or_has_an_unreadable_list_is_left_without_a_word,
	     .tls = NVMF_TLS_ALLOWED)
{
	struct uuid absent = {.b = {7}};
	char nqn[NVMF_NQN_SIZE];
	nvmf_volume_nqn(&absent, nqn);
	struct tls_psk psk = psk_of(KEY32, 0, HOST_NQN, nqn);
	expect_left_without_a_word(&psk);
	nvmf_snapshot_nqn(&absent, nqn);
	psk = psk_of(KEY32, 0, HOST_NQN, nqn);
	expect_left_without_a_word(&psk);
	psk = psk_of(KEY32, 0, HOST_NQN, target.nqn);
	allow(HOST_NQN, KEY32);
	CHECK_OK(pool_note_set(frame.pool, &frame.volume, POOL_NOTE_ACCESS, "rubbish", 7));
	expect_left_without_a_word(&psk);
	CHECK_EQ(dropped(), 3);
}

WITH_OPTIONS(a_handshake_that_stalls_is_dropped_in_time, .tls = NVMF_TLS_ALLOWED,
	     .handshake_timeout_ns = 5 * NS_PER_S)
{
	static const uint8_t half[] = {22, 3, 1, 2, 0, 1, 0};
	uint64_t began_ns = rt_now_ns(frame.rt);
	struct host h = host_open_raw(ADDRESS);
	size_t got;
	host_send(&h, half, sizeof(half));
	while (rt_recv(h.conn, &(char){0}, 1, &got) == 0 && got > 0)
		;
	CHECK(rt_now_ns(frame.rt) - began_ns >= 5 * NS_PER_S);
	CHECK(rt_now_ns(frame.rt) - began_ns < 10 * NS_PER_S);
	CHECK_EQ(dropped(), 1);
	host_close(&h);
}

WITH_TARGET(tls_that_is_off_is_refused)
{
	struct tls_psk psk = psk_of(KEY32, 0, HOST_NQN, target.nqn);
	allow(HOST_NQN, KEY32);
	expect_no_handshake(&psk);
	CHECK_EQ(dropped(), 1);
}

/* ---- who may come how ---------------------------------------------------------------------------------------------------------- */

WITH_OPTIONS(a_host_with_a_key_on_the_list_does_not_get_in_in_the_clear, .tls = NVMF_TLS_ALLOWED)
{
	struct host h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(try_admin(&h), 0);
	host_close(&h);
	allow(HOST_NQN, KEY32);
	h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(try_admin(&h), REFUSED);
	host_close(&h);
}

WITH_TARGET(a_host_with_a_key_on_the_list_does_not_get_in_where_tls_is_off)
{
	struct host h = host_open(ADDRESS, 0, 0);
	allow(HOST_NQN, KEY32);
	CHECK_EQ(try_admin(&h), REFUSED);
	host_close(&h);
}

WITH_OPTIONS(a_host_in_the_clear_is_sent_away_when_it_gets_a_key, .tls = NVMF_TLS_ALLOWED)
{
	struct host plain = host_begin(ADDRESS, target.nqn, 0);
	struct tls_psk psk = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	uint16_t fes;
	allow(HOST_NQN, KEY32);
	CHECK(host_is_cut(&plain, &fes));
	host_close(&plain);
	struct pair p = attach(&psk);
	allow(HOST_NQN, KEY48); /* for the next time */
	write_and_read(&p.io);
	allow(OTHER, KEY48);
	CHECK(host_is_cut(&p.admin, &fes));
	CHECK(host_is_cut(&p.io, &fes));
	detach(&p);
}

WITH_OPTIONS(where_tls_is_required_what_is_in_the_clear_is_told_so_and_dropped, .tls = NVMF_TLS_REQUIRED)
{
	uint8_t icreq[sizeof(struct nvmetcp_icreq)];
	uint16_t fes;
	CHECK_OK(nvmf_server_listen(target.server, FAR, NULL));
	struct host h = host_open_raw(FAR);
	host_send(&h, icreq, nvmetcp_icreq_build(icreq, 0, 0, 0));
	CHECK(host_is_cut(&h, &fes));
	CHECK_EQ(fes, NVMETCP_FES_SEQUENCE);
	host_close(&h);
	CHECK_EQ(dropped(), 1);
	allow(HOST_NQN, KEY32);
	struct tls_psk psk = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	h = come(FAR, &psk);
	CHECK_EQ(try_admin(&h), 0);
	host_close(&h);
	h = host_open(ADDRESS, 0, 0); /* on loopback: as if allowed */
	h.hostnqn = OTHER;
	CHECK_EQ(try_admin(&h), REFUSED); /* but it is not on the list */
	host_close(&h);
}

WITH_OPTIONS(a_host_may_only_connect_as_what_its_key_is_for, .tls = NVMF_TLS_ALLOWED)
{
	allow(HOST_NQN, KEY32);
	target_allow(OTHER, &(struct nvmf_access_texts){0}, false);
	struct tls_psk psk = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	struct host h = come(ADDRESS, &psk);
	h.hostnqn = OTHER;
	CHECK_EQ(try_admin(&h), REFUSED);
	host_close(&h);
	h = come(ADDRESS, &psk);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), REFUSED);
	host_close(&h);
}

WITH_OPTIONS(a_queue_in_the_clear_cannot_join_a_controller_that_came_through_tls, .tls = NVMF_TLS_ALLOWED)
{
	allow(HOST_NQN, KEY32);
	struct tls_psk psk = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	struct pair p = attach(&psk);
	struct host plain = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&plain, 2, p.admin.cntlid, target.nqn, 32), REFUSED);
	host_close(&plain);
	detach(&p);
}

WITH_OPTIONS(who_comes_by_a_key_counts_as_authenticated_and_proves_its_secret_too_if_it_has_one,
	     .tls = NVMF_TLS_ALLOWED, .authenticated_only = true)
{
	uint64_t result;
	struct tls_psk psk = psk_of(KEY32, 1, HOST_NQN, target.nqn);
	allow(HOST_NQN, KEY32);
	struct pair p = attach(&psk);
	write_and_read(&p.io);
	detach(&p);
	target_allow(HOST_NQN, &(struct nvmf_access_texts){.secret = SECRET, .tls_key = KEY32}, true);
	struct host h = come(ADDRESS, &psk);
	CHECK_EQ(try_admin(&h), 0);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CAP, true, &result), NVME_STATUS_AUTH_REQUIRED | DNR);
	host_close(&h);
}

/* ---- discovery ------------------------------------------------------------------------------------------------------------------ */

struct found {
	struct nvme_log_discovery head;
	struct nvme_discovery_entry entries[4];
};

static struct found discover(struct host *h)
{
	struct found f;
	CHECK_EQ(host_connect(h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), 0);
	CHECK_EQ(host_property_set(h, NVME_PROPERTY_CC, NVME_CC_EN), 0);
	CHECK_EQ(host_log(h, NVME_LOG_DISCOVERY, &f, sizeof(f), 0), 0);
	host_close(h);
	return f;
}

WITH_OPTIONS(discovery_says_what_is_to_be_reached_through_tls, .tls = NVMF_TLS_REQUIRED)
{
	struct host h = host_open(ADDRESS, 0, 0);
	struct found f = discover(&h);
	CHECK_EQ(le64_get(f.head.records), 1);
	CHECK_EQ(f.entries[0].tsas[0], NVME_TCP_SECTYPE_NONE);
	CHECK_EQ(f.entries[0].treq & 3, NVME_TREQ_SECURE_NOT_REQUIRED);
	CHECK_OK(nvmf_server_listen(target.server, FAR, NULL));
	h = host_open(ADDRESS, 0, 0);
	f = discover(&h); /* the far one is nothing for a host without a key */
	CHECK_EQ(le64_get(f.head.records), 1);
	allow(HOST_NQN, KEY32);
	h = host_open(ADDRESS, 0, 0);
	f = discover(&h);
	CHECK_EQ(le64_get(f.head.records), 2);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(f.entries[i].tsas[0], NVME_TCP_SECTYPE_TLS);
		CHECK_EQ(f.entries[i].treq & 3, NVME_TREQ_SECURE_REQUIRED);
	}
}

WITH_OPTIONS(a_host_comes_to_discovery_with_the_key_of_any_volume, .tls = NVMF_TLS_REQUIRED)
{
	pool_double_volume(frame.pool, "another", SIZE, 512);
	CHECK_OK(nvmf_server_listen(target.server, FAR, NULL));
	allow(HOST_NQN, KEY48);
	for (uint8_t version = 0; version <= 1; version++) {
		struct tls_psk psk = psk_of(KEY48, version, HOST_NQN, NVME_NQN_DISCOVERY);
		struct host h = come(FAR, &psk);
		struct found f = discover(&h);
		CHECK_EQ(le64_get(f.head.records), 1); /* it has no key for the other */
		CHECK_STR(f.entries[0].subnqn, target.nqn);
	}
	struct tls_psk other = psk_of(KEY32, 1, HOST_NQN, NVME_NQN_DISCOVERY);
	expect_no_handshake(&other);
}

/* ---- the project's own host ------------------------------------------------------------------------------------------------------ */

static struct nvme_host *host_new(const char *key, bool old_name)
{
	struct nvme_host *h;
	CHECK_OK(nvme_host_new(frame.rt,
			       &(struct nvme_host_options){.address = ADDRESS,
							   .subsystem_nqn = target.nqn,
							   .host_nqn = HOST_NQN,
							   .tls_key = key,
							   .tls_old_name = old_name,
							   .queues = 3,
							   .lost = NVME_HOST_REPLAY},
			       &h));
	return h;
}

static void expect_never_live(const char *key, const char *why)
{
	struct nvme_host_status status;
	struct nvme_host *h = host_new(key, false);
	CHECK_ERR(nvme_host_wait(h, rt_now_ns(frame.rt) + 10 * NS_PER_S), OXE_TIMEOUT);
	nvme_host_status(h, &status);
	CHECK_STR(status.why, why);
	nvme_host_close(h);
}

WITH_OPTIONS(the_projects_own_host_writes_and_reads_through_tls, .tls = NVMF_TLS_REQUIRED)
{
	static const char *const keys[] = {KEY32, KEY48};
	static uint8_t out[1 * MiB], in[1 * MiB];
	for (size_t i = 0; i < 4; i++) {
		allow(HOST_NQN, keys[i / 2]);
		struct nvme_host *h = host_new(keys[i / 2], i % 2);
		CHECK_OK(nvme_host_wait(h, UINT64_MAX));
		memset(out, (int)(i + 1), sizeof(out));
		CHECK_OK(nvme_host_write(h, out, 4096, sizeof(out), 0));
		CHECK_OK(nvme_host_flush(h));
		CHECK_OK(nvme_host_read(h, in, 4096, sizeof(in)));
		CHECK(memcmp(in, out, sizeof(out)) == 0);
		nvme_host_close(h);
	}
	CHECK_EQ(dropped(), 0);
}

WITH_OPTIONS(the_projects_own_host_says_why_it_gets_no_tls, .tls = NVMF_TLS_ALLOWED)
{
	allow(HOST_NQN, KEY32);
	expect_never_live(KEY48, "queue 0: no TLS: tlsv1 alert unknown psk identity");
	expect_never_live(NULL, "the target refuses the connection: connect: invalid host");
}

WITH_OPTIONS(the_projects_own_host_goes_on_through_tls_when_it_was_cut_off, .tls = NVMF_TLS_ALLOWED)
{
	static uint8_t out[4096], in[4096];
	allow(HOST_NQN, KEY32);
	struct nvme_host *h = host_new(KEY32, false);
	CHECK_OK(nvme_host_wait(h, UINT64_MAX));
	for (uint8_t i = 1; i <= 5; i++) {
		memset(out, i, sizeof(out));
		CHECK_OK(nvme_host_write(h, out, 0, sizeof(out), 0));
		nvmf_server_close(target.server);
		target_start();
		CHECK_OK(nvme_host_read(h, in, 0, sizeof(in)));
		CHECK(memcmp(in, out, sizeof(out)) == 0);
	}
	nvme_host_close(h);
}

WITH_TARGET(a_host_with_a_key_never_goes_on_in_the_clear)
{
	struct nvme_host_status status;
	struct nvme_host *h = host_new(KEY32, false);
	CHECK_ERR(nvme_host_wait(h, rt_now_ns(frame.rt) + 10 * NS_PER_S), OXE_TIMEOUT);
	nvme_host_status(h, &status);
	CHECK(strncmp(status.why, "queue 0: no TLS: ", 17) == 0);
	nvme_host_close(h);
	CHECK(nvme_host_new(frame.rt,
			    &(struct nvme_host_options){
				    .address = ADDRESS, .subsystem_nqn = target.nqn, .tls_key = "nonsense"},
			    &h) == OXE_INVAL);
}
