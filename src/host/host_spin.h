/*
 * host_spin.h: whether to look again for a moment before going to sleep.
 *
 * To sleep and be woken costs 10 to 25 µs on a virtual machine (the processor halts and is kicked awake); a client that sends
 * its next request at once is often back sooner. Looking again pays when something usually comes within SPIN_NS, and is heat
 * otherwise. Nobody can tell beforehand, so it is tried, and remembered:
 *
 *     it came in time     try again next time
 *     it did not          after SPIN_WINS in a row: forgiven once. Else the next 1, 3, 7 ... SPIN_SKIP_MAX waits sleep at once
 *
 * In vain it costs SPIN_NS of a processor, in time it saves half of that: so it has to come in time nearly always.
 * So an idle or disk-bound reactor spins for less than SPIN_NS in SPIN_SKIP_MAX waits. The disk and everything else are
 * remembered apart, because a wait with disk I/O under way ends on the disk's time. A disk is looked for no longer than it takes to
 * be woken: one that answers within 40 µs made a 4 KiB read at depth 1 no faster, and a quarter dearer. Pure: no clock, no I/O.
 */
#ifndef OXBOW_HOST_HOST_SPIN_H
#define OXBOW_HOST_HOST_SPIN_H

#include "base/base.h"

#define SPIN_NS	      40000ull /* twice what a client on the same machine takes to come back */
#define SPIN_DISK_NS  12000ull /* with disk I/O under way */
#define SPIN_SKIP_MAX 255u
#define SPIN_WINS     8u

struct host_spin {
	uint32_t skip;	  /* waits still to go to sleep at once */
	uint32_t backoff; /* how many it was the last time it failed */
	uint32_t wins;	  /* in a row */
};

/* Before a wait: spin first? */
static inline bool spin_wanted(struct host_spin *s)
{
	if (s->skip == 0)
		return true;
	s->skip--;
	return false;
}

/* After spinning: did something come? */
static inline void spin_learn(struct host_spin *s, bool came)
{
	if (came) {
		s->wins++;
	} else if (s->wins >= SPIN_WINS) {
		s->wins = s->backoff = 0;
	} else {
		s->wins = 0;
		s->backoff = (uint32_t)u64_min(2 * s->backoff + 1, SPIN_SKIP_MAX);
		s->skip = s->backoff;
	}
}

#endif
