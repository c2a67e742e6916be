/* sim_trace.c: what happened, as a hash to compare and as the last lines to read. */
#include "sim/sim_private.h"

static uint64_t mix(uint64_t hash, uint64_t word)
{
	return hash_u64(hash ^ word) + 0x9e3779b97f4a7c15ULL;
}

void sim_trace(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t h = sim->trace_hash;
	for (const char *p = what; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ULL;
	sim->trace_hash = mix(mix(mix(mix(h, sim->now_ns), a), b), c);
	sim->trace[sim->trace_count++ % TRACE_KEPT] = (struct trace_entry){sim->now_ns, a, b, c, what};
}

uint64_t sim_trace_hash(const struct sim *sim)
{
	return sim->trace_hash;
}

void sim_trace_print(const struct sim *sim, FILE *out, size_t last_count)
{
	uint64_t kept = u64_min(sim->trace_count, u64_min(last_count, TRACE_KEPT));
	for (uint64_t i = sim->trace_count - kept; i < sim->trace_count; i++) {
		const struct trace_entry *e = &sim->trace[i % TRACE_KEPT];
		fprintf(out, "%12.6f ms  %-24s %#llx %#llx %#llx\n", (double)e->when_ns / 1e6, e->what,
			(unsigned long long)e->a, (unsigned long long)e->b, (unsigned long long)e->c);
	}
}
