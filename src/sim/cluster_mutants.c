/* cluster_mutants.c: see cluster_mutants.h. */
#include "sim/cluster_mutants.h"

const struct pool_mutant cluster_mutants[] = {
	{201, "V1: a write is acknowledged when one copy has it"},
	{202, "V2: the others do not seal when a copy leaves"},
	{203, "V6: a write does not wait for its intent"},
	{204, "V6: an engine does not settle what the one before was writing"},
	{205, "V8: a joining copy is read"},
	{206, "V6: what a copy missed is not noted when it leaves", .rare = true},
	{207, "V5: reads do not look at the lease", .rare = true},
	{208, "V5: an engine does not wait for the lease of the one before", .rare = true},
	{209, "V7: writes that overlap do not wait for each other"},
	{210, "V2: a write that a lost copy missed is acknowledged before the view says that it is out"},
	{211, "V2: a swap in doubt is taken for done"},
	{212, "V8: a part of a block is written to a joining copy"},
	{213, "V8: zeroes are not filled in"},
	{214, "V6: nothing is settled when the machine of a copy was off", .rare = true},
	{215, "V6: an intent is forgotten without a flush", .rare = true},
	{216, "V6: an intent is forgotten while its region is written", .rare = true},
	{217, "V8: what a joining copy itself has above the common layer is not compared", .rare = true},
	{218, "layers that only some copies have are left", .rare = true},
	{219, "what some copies refused is not settled", .rare = true},
	{220, "V5: a lease begins in the future", .rare = true},
	{221, "V6: the intents of a copy that returns are not looked at"},
	{222, "V6: what a machine lost is settled from any copy", .rare = true},
	{0},
};
