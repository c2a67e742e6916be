/* keeper.c: the table of keeper.h. */
#include "control/node/keeper.h"

/* Doubling, capped, and spread over 75 % to 125 % so that many pools on one failing controller do not march in step. */
static uint64_t backoff_ns(unsigned failures, uint64_t chance)
{
	uint64_t wait_ns = KEEPER_BACKOFF_MIN_NS << u64_min(failures ? failures - 1 : 0, 6);
	wait_ns = u64_min(wait_ns, KEEPER_BACKOFF_MAX_NS);
	return wait_ns * 3 / 4 + chance % (wait_ns / 2);
}

static void rest_and_retry(struct keeper *k, uint64_t now_ns, uint64_t chance)
{
	k->state = KEEPER_WAITING;
	k->due_ns = now_ns + backoff_ns(k->failures, chance);
}

static enum keeper_action step_waiting(struct keeper *k, enum keeper_event event, uint64_t now_ns)
{
	if (event != KEEPER_POKE && !(event == KEEPER_TICK && now_ns >= k->due_ns))
		return KEEPER_REST;
	k->state = KEEPER_OPENING;
	return KEEPER_OPEN;
}

static enum keeper_action step_opening(struct keeper *k, enum keeper_event event, uint64_t now_ns,
				       uint64_t chance)
{
	if (event == KEEPER_OPENED) {
		k->state = KEEPER_IS_OPEN;
		k->opened_ns = now_ns;
		k->taken = 0;
	} else if (event == KEEPER_TAKEN && k->taken < KEEPER_TAKEN_MAX) {
		k->taken++;
		k->state = KEEPER_WAITING;
		k->due_ns = now_ns + KEEPER_TAKEN_NS;
	} else if (event == KEEPER_REFUSED || event == KEEPER_TAKEN) {
		k->failures++;
		rest_and_retry(k, now_ns, chance);
	}
	return KEEPER_REST;
}

static enum keeper_action step_open(struct keeper *k, enum keeper_event event, uint64_t now_ns)
{
	if (event != KEEPER_FAILED)
		return KEEPER_REST;
	if (now_ns - k->opened_ns >= KEEPER_STEADY_NS)
		k->failures = 0;
	k->failures++;
	k->state = KEEPER_CLOSING;
	k->due_ns = now_ns + KEEPER_HELD_NS;
	return KEEPER_CLOSE;
}

static enum keeper_action step_closing(struct keeper *k, enum keeper_event event, uint64_t now_ns,
				       uint64_t chance)
{
	if (event == KEEPER_CLOSED)
		rest_and_retry(k, now_ns, chance);
	else if (event == KEEPER_HELD)
		k->due_ns = now_ns + KEEPER_HELD_NS;
	else if (event == KEEPER_TICK && now_ns >= k->due_ns)
		return KEEPER_CLOSE;
	return KEEPER_REST;
}

enum keeper_action keeper_step(struct keeper *k, enum keeper_event event, uint64_t now_ns, uint64_t chance)
{
	switch (k->state) {
	case KEEPER_WAITING:
		return step_waiting(k, event, now_ns);
	case KEEPER_OPENING:
		return step_opening(k, event, now_ns, chance);
	case KEEPER_IS_OPEN:
		return step_open(k, event, now_ns);
	case KEEPER_CLOSING:
		return step_closing(k, event, now_ns, chance);
	}
	return KEEPER_REST;
}
