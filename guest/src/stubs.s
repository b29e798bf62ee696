// Every vector has a stub of 16 bytes: it pushes what the CPU did not, and the number.

.section .text
.balign 16
.global interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
.balign 16
// These bring an error code.
.set errs, (vector == 8) | ((vector >= 10) & (vector <= 14)) | (vector == 17) | (vector == 21)
.if errs | (vector == 29) | (vector == 30)
.else
    pushq $0
.endif
    pushq $vector
    jmp interrupt_common
.set vector, vector + 1
.endr

.balign 16
interrupt_common:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rdi
    pushq %rsi
    pushq %rbp
    pushq %rbx
    pushq %rdx
    pushq %rcx
    pushq %rax
    movq %rsp, %rbp
    // What was interrupted may have been using SSE, as the handler will.
    subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    cld
    movq %rbp, %rdi
    call interrupt
    fxrstor64 (%rsp)
    movq %rbp, %rsp
    popq %rax
    popq %rcx
    popq %rdx
    popq %rbx
    popq %rbp
    popq %rsi
    popq %rdi
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    addq $16, %rsp
    iretq
