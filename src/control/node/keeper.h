/*
 * keeper.h: when to open a pool, when to close it, and how long to wait between attempts: the policy alone, as a pure step.
 *
 * A failing disk must never make a hot loop (design, Manager: no loop without progress). So the wait between attempts doubles
 * from 1 s to 60 s, with jitter, and is forgotten only after the pool has stood open for a minute: a pool that opens well and
 * fails at once is as bad as one that does not open.
 *
 *     state      event            next      what to do
 *     WAITING    TICK when due    OPENING   KEEPER_OPEN
 *     WAITING    POKE             OPENING   KEEPER_OPEN     (a person asked: import)
 *     OPENING    OPENED           OPEN
 *     OPENING    REFUSED          WAITING                   (backoff)
 *     OPENING    TAKEN            WAITING                   (a process that was just killed may hold the disk until the kernel
 *                                                            has wound up its I/O: look again soon, for a minute)
 *     OPEN       FAILED           CLOSING   KEEPER_CLOSE    (a device error stopped the pool)
 *     CLOSING    CLOSED           WAITING                   (backoff)
 *     CLOSING    HELD             CLOSING                   (clients still hold volumes: look again in a second)
 *     CLOSING    TICK when due    CLOSING   KEEPER_CLOSE
 *
 * Every other pair changes nothing.
 */
#ifndef OXBOW_CONTROL_NODE_KEEPER_H
#define OXBOW_CONTROL_NODE_KEEPER_H

#include "base/base.h"

#define KEEPER_BACKOFF_MIN_NS (1 * NS_PER_S)
#define KEEPER_BACKOFF_MAX_NS (60 * NS_PER_S)
#define KEEPER_TAKEN_NS	      (250 * NS_PER_MS)
#define KEEPER_TAKEN_MAX      240
#define KEEPER_HELD_NS	      (1 * NS_PER_S)
#define KEEPER_STEADY_NS      (60 * NS_PER_S)

enum keeper_state { KEEPER_WAITING, KEEPER_OPENING, KEEPER_IS_OPEN, KEEPER_CLOSING };
enum keeper_event {
	KEEPER_TICK,
	KEEPER_POKE,
	KEEPER_OPENED,
	KEEPER_REFUSED,
	KEEPER_TAKEN,
	KEEPER_FAILED,
	KEEPER_CLOSED,
	KEEPER_HELD
};
enum keeper_action { KEEPER_REST, KEEPER_OPEN, KEEPER_CLOSE };

struct keeper {
	enum keeper_state state;
	unsigned failures;
	unsigned taken;	    /* TAKEN in a row */
	uint64_t due_ns;    /* WAITING and CLOSING: when the next attempt is due; 0: at once */
	uint64_t opened_ns; /* IS_OPEN: since when */
};

/* Zero-fill is the start: WAITING, due at once. `chance` is any random number. */
enum keeper_action keeper_step(struct keeper *k, enum keeper_event event, uint64_t now_ns, uint64_t chance);

#endif
