/* facts_fuzz.c: any bytes as the key and value of a record: refused, or a fact whose own value says the same again. */
#include "control/node/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const char *key, char *value)
{
	struct facts f;
	struct meta_entry e = {.key = (char *)(uintptr_t)key,
			       .value = value,
			       .value_len_bytes = strlen(value),
			       .mod_revision = 2};
	facts_init(&f);
	int err = facts_apply(&f, &e, 0);
	assert(err == 0);
	facts_clear(&f);
	free(value);
}

/* The key ends at the first newline. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char key[META_KEY_MAX_BYTES + 1] = "";
	struct facts f;
	const uint8_t *end = memchr(data, '\n', size);
	size_t key_len = end ? (size_t)(end - data) : 0;
	if (!end || key_len > META_KEY_MAX_BYTES || memchr(data, 0, key_len))
		return 0;
	memcpy(key, data, key_len);
	facts_init(&f);
	struct meta_entry e = {.key = key,
			       .value = (void *)(uintptr_t)(end + 1),
			       .value_len_bytes = size - key_len - 1,
			       .mod_revision = 1};
	if (facts_apply(&f, &e, 0) == 0) {
		if (!list_empty(&f.volumes))
			again(key, fact_volume_value(list_first(&f.volumes, struct fact_volume, link)));
		if (!list_empty(&f.pools))
			again(key, fact_pool_value(list_first(&f.pools, struct fact_pool, link)));
		if (!list_empty(&f.nodes))
			again(key, fact_node_value(list_first(&f.nodes, struct fact_node, link)));
	}
	facts_clear(&f);
	return 0;
}
