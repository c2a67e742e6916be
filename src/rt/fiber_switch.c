/* fiber_switch.c: the switch for x86_64 (System V) and aarch64 (AAPCS64); see fiber_switch.h. Includes nothing of ours, so
 * that any cross assembler can check it alone. */
#include "fiber_switch.h"

#include <stdint.h>

void fiber_entry(void);

#if defined(__x86_64__)

/* A frame, from the stack pointer up: control words, r15 r14 r13 r12 rbx rbp, return address. */
__asm__(".text\n"
	".globl fiber_switch\n"
	".hidden fiber_switch\n"
	".type fiber_switch, @function\n"
	".p2align 4\n"
	"fiber_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	subq $8, %rsp\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	addq $8, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	/* Not ret: the processor would predict a return to our caller and be wrong each time, at twice the cost. */
	"	popq %rdx\n"
	"	jmp *%rdx\n"
	".size fiber_switch, . - fiber_switch\n"
	/* The bottom of every fiber: no caller, so that backtraces end here. */
	".globl fiber_entry\n"
	".hidden fiber_entry\n"
	".type fiber_entry, @function\n"
	".p2align 4\n"
	"fiber_entry:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined rip\n"
	"	movq %r13, %rdi\n"
	"	call *%r12\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size fiber_entry, . - fiber_entry\n");

void *fiber_frame_make(void *top, void (*fn)(void *arg), void *arg)
{
	enum { CONTROL, R15, R14, R13, R12, RBX, RBP, RETURN, FRAME_WORDS };
	/* fiber_entry starts with an aligned stack, so that its call leaves what the ABI promises a function. */
	uint64_t *frame = (uint64_t *)((uintptr_t)top & ~(uintptr_t)63) - FRAME_WORDS;
	for (int i = 0; i < FRAME_WORDS; i++)
		frame[i] = 0;
	frame[CONTROL] = 0x1f80 | (uint64_t)0x037f << 32; /* as the ABI has them at process start */
	frame[R12] = (uint64_t)(uintptr_t)fn;
	frame[R13] = (uint64_t)(uintptr_t)arg;
	frame[RETURN] = (uint64_t)(uintptr_t)fiber_entry;
	return frame;
}

#elif defined(__aarch64__)

/* A frame, from the stack pointer up: x19..x28, x29, x30, d8..d15, fpcr, padding. */
__asm__(".text\n"
	".globl fiber_switch\n"
	".hidden fiber_switch\n"
	".type fiber_switch, %function\n"
	".p2align 4\n"
	"fiber_switch:\n"
	"	sub sp, sp, #176\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mrs x9, fpcr\n"
	"	str x9, [sp, #160]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldr x9, [sp, #160]\n"
	"	msr fpcr, x9\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #176\n"
	"	br x30\n" /* not ret: see above */
	".size fiber_switch, . - fiber_switch\n"
	".globl fiber_entry\n"
	".hidden fiber_entry\n"
	".type fiber_entry, %function\n"
	".p2align 4\n"
	"fiber_entry:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined x30\n"
	"	mov x0, x20\n"
	"	blr x19\n"
	"	brk #1\n"
	"	.cfi_endproc\n"
	".size fiber_entry, . - fiber_entry\n");

void *fiber_frame_make(void *top, void (*fn)(void *arg), void *arg)
{
	enum { X19 = 0, X20 = 1, X30 = 11, FRAME_WORDS = 22 };
	uint64_t *frame = (uint64_t *)((uintptr_t)top & ~(uintptr_t)63) - FRAME_WORDS;
	for (int i = 0; i < FRAME_WORDS; i++)
		frame[i] = 0;
	frame[X19] = (uint64_t)(uintptr_t)fn;
	frame[X20] = (uint64_t)(uintptr_t)arg;
	frame[X30] = (uint64_t)(uintptr_t)fiber_entry;
	return frame;
}

#else
#error "fibers need a switch for this machine"
#endif
