/*
 * mirror_plan.h: what an engine does next: a pure function of what it knows (V1-V5, V9, V12). No I/O, no clock, no memory of its own.
 *
 * Level-triggered: it is asked again after whatever happened, and answers from the facts alone. So nothing is ever in the middle of
 * something that could be forgotten: after a failure, a change of mind elsewhere or a crash the next answer is the next right step.
 *
 *     facts, in this order                                                  -> to do
 *     somebody newer was seen, or has the view                              -> STOP       for ever: this engine is over
 *     the view was never read, or nobody knows what the last swap did       -> ASK
 *     the view is another engine's                                          -> CLAIM      V3: a higher epoch, ours
 *     a person said salvage, and nobody who may have more is just silent    -> SALVAGE    V9: that copy alone; or why not
 *     no member answers                                                     -> WAIT       V9, V12: for whom, the status says
 *     those that answer may lack something, and there are others            -> WAIT       V3, V9: one of them may have it
 *     a copy in the view has failed, or did not answer for grace_ns,
 *     and a member is left without it that has everything                   -> PUT_OUT    V2: before anything it missed is acknowledged
 *     a copy in the view does not answer                                    -> WAIT       what needs it stands still, until its grace ends
 *     the view names a revert                                               -> REVERT     all of them, before anything is sealed
 *     the view names seals that we have not seen done                       -> SEAL       on all of them, in order
 *     an older engine may still have a lease                                -> WAIT       V5: until it cannot
 *     we do not serve                                                       -> SERVE
 *     the seals are done, or the wait is over, and the view does not say so -> TIDY
 *     a request from before a copy was lost is not finished                 -> WAIT
 *     a joining copy has its chain                                          -> ADMIT      V8
 *     somebody asked for a snapshot, or the like                            -> ORDER
 *     an absent copy answers, and its turn to try has come                  -> JOIN       V8
 *     nothing                                                               -> WAIT
 *
 * How many seals a view can name: JOIN comes after TIDY, so it adds the first, and each PUT_OUT takes at least one copy out and adds
 * one: VIEW_REPLICAS_MAX at most.
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_PLAN_H
#define OXBOW_DATA_ENGINE_MIRROR_PLAN_H

#include "data/engine/view.h"

enum mirror_session {
	MIRROR_NEVER, /* not opened yet by this engine */
	MIRROR_OPEN,
	MIRROR_LOST, /* it was open */
};

/* A copy, in the order of the view. */
struct mirror_copy_facts {
	enum mirror_session session;
	uint64_t silent_since_ns; /* not open: since when */
	bool failed;		  /* it answers, and can not be used: it refuses writes, or is empty */
	bool may_lack; /* what was acknowledged and not flushed: its machine was off, and it has not been made good */
	bool has_chain;	 /* joining: all layers below its new head are there */
	bool is_empty;	 /* it is open, and the volume is not there */
	bool is_partial; /* its chain was being filled: it is of no moment */
	bool may_join;	 /* absent: it is open and nothing speaks against it */
	uint64_t join_not_before_ns;
};

struct mirror_facts {
	uint64_t now_ns, grace_ns;
	struct uuid engine_id;
	bool was_fenced;    /* a copy, or a swap, showed somebody newer */
	bool view_is_known; /* false also while the outcome of a swap is not known */
	const struct view *view;
	bool seals_done; /* all of view->seals, on everybody who is in it now */
	bool serves;
	uint64_t wait_until_ns; /* of view->must_wait: 0 if no member has been opened yet */
	bool has_unfinished;	/* requests that some copies have and others may not have */
	bool has_order;
	bool has_salvage;
	uint32_t salvage; /* the copy, by bit; 0: it is none of these */
	struct mirror_copy_facts copies[VIEW_REPLICAS_MAX];
};

enum mirror_todo {
	MIRROR_STOP,
	MIRROR_ASK,
	MIRROR_CLAIM,
	MIRROR_SALVAGE,
	MIRROR_PUT_OUT,
	MIRROR_REVERT,
	MIRROR_SEAL,
	MIRROR_SERVE,
	MIRROR_TIDY,
	MIRROR_ADMIT,
	MIRROR_ORDER,
	MIRROR_JOIN,
	MIRROR_WAIT,
	MIRROR_TODOS
};
const char *mirror_todo_name(enum mirror_todo todo); /* "stop" ... */

struct mirror_step {
	enum mirror_todo todo;
	uint32_t copies;   /* PUT_OUT: bit i for copy i. SALVAGE, ADMIT, JOIN: one of them */
	uint32_t awaited;  /* WAIT: copies that keep it from going on */
	uint64_t until_ns; /* WAIT: ask again then at the latest; UINT64_MAX: when something happens */
};

struct mirror_step mirror_plan(const struct mirror_facts *f);

/* V9: may the copy be gone on with alone, if a person says so? 0. OXE_NOENT: there is no such copy, or the volume is not in it. OXE_EXISTS: there
 * is no need, the members that answer have what there is. OXE_NOTREADY: it does not answer. OXE_BUSY: its chain was being filled. */
int mirror_salvage_check(const struct mirror_facts *f);

#endif
