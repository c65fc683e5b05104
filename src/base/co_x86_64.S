// The coroutine switch of x86-64 (System V ABI): saves the callee-saved registers on the stack that is left, takes them
// from the one that is entered. The control words of the two floating-point units are the same everywhere in this
// program and are not switched.
#if defined(__x86_64__) && !defined(CO_UCONTEXT)
        .text

// void co_switch(void **save_sp, void *to_sp)
        .globl  co_switch
        .hidden co_switch
        .type   co_switch, @function
        .p2align 4
co_switch:
        .cfi_startproc
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        .cfi_adjust_cfa_offset -8
        popq    %r14
        .cfi_adjust_cfa_offset -8
        popq    %r13
        .cfi_adjust_cfa_offset -8
        popq    %r12
        .cfi_adjust_cfa_offset -8
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size   co_switch, .-co_switch

// Where a new stack's first switch returns to: %rbx holds the function, %r12 its argument (co.c lays them there).
        .globl  co_start
        .hidden co_start
        .type   co_start, @function
        .p2align 4
co_start:
        .cfi_startproc
        .cfi_undefined rip
        xorl    %ebp, %ebp
        movq    %r12, %rdi
        call    *%rbx
        ud2
        .cfi_endproc
        .size   co_start, .-co_start
#endif
        .section .note.GNU-stack, "", @progbits
