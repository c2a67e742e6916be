/* regions_test.c: sets of regions, against a look at each one. */
#include "base/prng.h"
#include "base/test.h"
#include "data/engine/regions.h"

static struct replica_regions set;

static uint32_t next_slowly(uint32_t region)
{
	while (region < REPLICA_REGIONS && !regions_has(&set, region))
		region++;
	return region;
}

static void check_at(uint32_t first, uint32_t last)
{
	uint32_t next = next_slowly(first);
	CHECK_EQ(regions_next(&set, first), next);
	CHECK_EQ(regions_any(&set, first, last), next <= last);
}

TEST(the_next_region_and_whether_there_is_any_are_found_from_everywhere)
{
	static const uint32_t edges[] = {
		0, 1, 62, 63, 64, 65, 127, 128, REPLICA_REGIONS - 64, REPLICA_REGIONS - 1};
	struct prng rng;
	prng_seed(&rng, 3);
	for (size_t only = 0; only < ARRAY_COUNT(edges); only++) {
		memset(&set, 0, sizeof(set));
		regions_add(&set, edges[only]);
		for (size_t i = 0; i < ARRAY_COUNT(edges); i++)
			for (size_t j = i; j < ARRAY_COUNT(edges); j++)
				check_at(edges[i], edges[j]);
		for (unsigned i = 0; i < 200; i++)
			regions_add(&set, (uint32_t)prng_below(&rng, REPLICA_REGIONS));
		for (unsigned i = 0; i < 2000; i++) {
			uint32_t first = (uint32_t)prng_below(&rng, REPLICA_REGIONS);
			check_at(first,
				 first + (uint32_t)prng_below(&rng, u64_min(REPLICA_REGIONS - first, 200)));
		}
	}
}

TEST(an_empty_set_has_no_next_region)
{
	memset(&set, 0, sizeof(set));
	CHECK_EQ(regions_next(&set, 0), REPLICA_REGIONS);
	CHECK_EQ(regions_next(&set, REPLICA_REGIONS), REPLICA_REGIONS);
	CHECK(!regions_any(&set, 0, REPLICA_REGIONS - 1));
	CHECK(regions_empty(&set));
}
