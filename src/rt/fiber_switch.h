/*
 * fiber_switch.h: the one piece of machine code: leave a stack, continue on another.
 *
 * What a called function must preserve is pushed on the old stack, its pointer stored, and the same popped from the new
 * one: general registers, and the floating-point control words (mxcsr and the x87 word; fpcr on aarch64). Signal masks
 * are not switched, so no syscall is made.
 */
#ifndef OXBOW_RT_FIBER_SWITCH_H
#define OXBOW_RT_FIBER_SWITCH_H

/* Store the current stack pointer in *save and continue where `load` was stored. Returns when somebody switches back. */
void fiber_switch(void **save, void *load);

/* Build a first frame below `top` (any alignment), so that a switch to the returned pointer calls fn(arg) on that stack.
 * fn must never return. */
void *fiber_frame_make(void *top, void (*fn)(void *arg), void *arg);

#endif
