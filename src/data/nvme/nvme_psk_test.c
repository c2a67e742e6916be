/*
 * nvme_psk_test.c: keys for TLS: their text, and what is derived from them. The digests of the test host are what nvme-cli makes of
 * those keys; the rest was computed with Python's hmac from the words of the RFCs and of the specification.
 */
#include "data/nvme/nvme_psk.h"

#include "base/err.h"
#include "base/test.h"

#include <stdio.h>

#define HOST "nqn.2014-08.org.nvmexpress:uuid:0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0de"
#define SUB  "nqn.2026-11.dev.oxbow:volume:6b2b5d05-3a7c-4a39-9c5f-0f2b6a0b7f11"

static const struct {
	const char *text, *hash, *key_0, *digest, *key_1;
} vectors[] = {
	{"NVMeTLSkey-1:00:AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09pl1OOC:", "01",
	 "3d4fae0035a82a8c8a333f1045c4e4e1138b3618d6477420a9a6ca94597cc2d8",
	 "Q/AlO8H34FeS/C7ECfgu6u3PEBZ4VEhhLPx55mBbWSg=",
	 "31e45f774b26d2459878afb5e7a9b56423d8931b400cefed01efb9b4671d3730"},
	{"NVMeTLSkey-1:01:AgkQFx4lLDM6QUhPVl1ka3J5gIeOlZyjqrG4v8bN1Nuz7TWq:", "01",
	 "2c3de624032016aea830aae898777e2ffbc949317ef24eec9d783bb3a89ceb29",
	 "pQYJeBRACxVRxXFBZ4usU+oIxxTE1sHxiPDvZiMjBH4=",
	 "210e17032d7ed787d7c9ed85f50c8f038ee92a3d8e86c96590a638eb1f8aa301"},
	{"NVMeTLSkey-1:02:AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4/wYNFBsiKTA3PkVMRdxyRQ==:", "02",
	 "c81646aadbf47f9ad08daaa165901c254280ba8c6db1418c9fc1eea6a4c9e03b"
	 "d817a16534c5d6e21fcbe68ed1a8bc18",
	 "nPVG9FQMtc18K4XzYzYju+Fx9EwEv0qy2dcLX9XHBmNETPv5O2V7ZLN/cF7GeSzH",
	 "793f7dbb24b7051cdd62ad4f16ea9cc0642427638f1f28bb33e2323f8ab5ed07"
	 "068e3212be67eb7e7e2b2ec1eeeae6c9"},
	{"NVMeTLSkey-1:00:AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKDH94wg==:", "02",
	 "5b6f36c1664e037a671f01bea0c9ee88bcf60dd5acb4e4d7732c428fa56c4597"
	 "e57fcaea58cb4c9eb7406f1c593a93f7",
	 "OlkZbJTJzdnRUxxVir4m6Fg+dcNoxid2sNm10nt/JDPSUv1A+kAwJTeBSeSZtSjI",
	 "7442cc1be060fb987e7003b141298dd2d0526486be9c8caa35d58ff95d04f0f1"
	 "84d2d12a1e5c98009db2accd16b9c462"},
};

static void expect_key(const struct tls_psk *psk, const char *hex)
{
	char text[2 * TLS_KEY_MAX + 1] = "";
	for (size_t i = 0; i < psk->key_bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", psk->key[i]);
	CHECK_STR(text, hex);
}

TEST(a_key_and_its_name_are_derived_as_the_specification_says)
{
	for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
		struct nvme_secret configured;
		struct tls_psk psk;
		char name[TLS_IDENTITY_MAX + 1];
		CHECK_OK(nvme_tls_key_parse(vectors[i].text, &configured));
		CHECK_OK(nvme_psk_make(&configured, 0, HOST, SUB, &psk));
		snprintf(name, sizeof(name), "NVMe0R%s " HOST " " SUB, vectors[i].hash);
		CHECK_STR(psk.identity, name);
		expect_key(&psk, vectors[i].key_0);
		CHECK_OK(nvme_psk_make(&configured, 1, HOST, SUB, &psk));
		snprintf(name, sizeof(name), "NVMe1R%s " HOST " " SUB " %s", vectors[i].hash,
			 vectors[i].digest);
		CHECK_STR(psk.identity, name);
		expect_key(&psk, vectors[i].key_1);
	}
}

TEST(a_name_is_the_one_that_nvme_cli_makes)
{
	static const uint8_t key[] = {0x55, 0x12, 0xdb, 0xb6, 0x73, 0x7d, 0x01, 0x06, 0xf6, 0x59, 0x75,
				      0xb7, 0x73, 0xdf, 0xb0, 0x11, 0xff, 0xc3, 0x44, 0xbc, 0xf4, 0x42,
				      0xe2, 0xdd, 0x6d, 0x8b, 0xc4, 0x87, 0x0b, 0x5d, 0x5b, 0x03};
	struct nvme_secret configured = {.hash = 1, .len_bytes = 32};
	struct tls_psk psk;
	memcpy(configured.key, key, sizeof(key));
	CHECK_OK(nvme_psk_make(&configured, 1, "nqn.psk-test-host", "nqn.psk-test-subsys", &psk));
	CHECK_STR(psk.identity, "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys "
				"iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=");
	configured.hash = 2;
	configured.len_bytes = 48;
	memcpy(configured.key + 32, key + 16, 16);
	CHECK_OK(nvme_psk_make(&configured, 1, "nqn.psk-test-host", "nqn.psk-test-subsys", &psk));
	CHECK_STR(psk.identity, "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys "
				"QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a");
}

TEST(keys_that_nvme_cli_makes_are_read_and_written_back_the_same)
{
	static const char *const texts[] = {
		"NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:",
		"NVMeTLSkey-1:02:18iqDKHdvAFh2YS5hPylggJQFWJCy8/Z4eIii8qBd2tsjmq3LjkAyidjXyPO9n4bLXrR1A==:"};
	for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
		struct nvme_secret s;
		char text[NVME_SECRET_TEXT_SIZE];
		CHECK_OK(nvme_tls_key_parse(texts[i], &s));
		CHECK_EQ(s.hash, i + 1);
		CHECK(nvme_tls_key_is_sound(&s));
		CHECK_STR(nvme_tls_key_format(&s, text), texts[i]);
		for (size_t at = 0; at < strlen(texts[i]); at++) {
			strcpy(text, texts[i]);
			text[at] = text[at] == 'A' ? 'B' : 'A';
			CHECK_ERR(nvme_tls_key_parse(text, &s), OXE_INVAL);
			CHECK(!nvme_secret_is_set(&s));
		}
	}
}

TEST(a_key_whose_length_is_not_its_hash_s_is_none)
{
	struct nvme_secret s;
	CHECK_ERR(nvme_tls_key_parse("NVMeTLSkey-1:02:AgkQFx4lLDM6QUhPVl1ka3J5gIeOlZyjqrG4v8bN1Nuz7TWq:", &s),
		  OXE_INVAL);
	CHECK_ERR(
		nvme_tls_key_parse("NVMeTLSkey-1:01:AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4/wYNFBsi"
				   "KTA3PkVMRdxyRQ==:",
				   &s),
		OXE_INVAL);
	CHECK_ERR(nvme_tls_key_parse("NVMeTLSkey-1:03:AgkQFx4lLDM6QUhPVl1ka3J5gIeOlZyjqrG4v8bN1Nuz7TWq:", &s),
		  OXE_INVAL);
	CHECK_ERR(nvme_tls_key_parse("DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:", &s),
		  OXE_INVAL);
}

TEST(a_name_is_taken_apart_and_what_is_none_is_refused)
{
	static const char *const wrong[] = {"",
					    "NVMe",
					    "NVMe0R01",
					    "NVMe0R01 ",
					    "NVMe0R01 " HOST,
					    "NVMe0R01 " HOST " ",
					    "NVMe2R01 " HOST " " SUB,
					    "NVMe0R03 " HOST " " SUB,
					    "NVMe0G01 " HOST " " SUB,
					    "NVMe0R01 " HOST " " SUB " ",
					    "NVMe0R01 " HOST "  " SUB,
					    "NVMe1R01 " HOST " " SUB,
					    "NVMe1R01 " HOST " " SUB " short",
					    "NVMe0R01 host " SUB,
					    "nvme0R01 " HOST " " SUB};
	struct nvme_psk_name n;
	for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
		CHECK_ERR(nvme_psk_name_parse(wrong[i], &n), OXE_INVAL);
	CHECK_OK(nvme_psk_name_parse("NVMe0R02 " HOST " " SUB, &n));
	CHECK(n.version == 0 && n.hash == TLS_SHA384);
	CHECK_STR(n.hostnqn, HOST);
	CHECK_STR(n.subnqn, SUB);
	CHECK_OK(nvme_psk_name_parse("NVMe1R01 " HOST " " SUB " Q/AlO8H34FeS/C7ECfgu6u3PEBZ4VEhhLPx55mBbWSg=",
				     &n));
	CHECK(n.version == 1 && n.hash == TLS_SHA256);
}

TEST(a_name_of_version_0_that_does_not_fit_its_label_is_refused)
{
	struct nvme_secret configured = {.hash = 1, .len_bytes = 32};
	struct tls_psk psk;
	char host[NVME_NQN_FIELD] = "nqn.";
	memset(host + 4, 'x', NVME_NQN_MAX - 4);
	CHECK_ERR(nvme_psk_make(&configured, 0, host, SUB, &psk), OXE_RANGE);
	CHECK_OK(nvme_psk_make(&configured, 1, host, host, &psk));
}
