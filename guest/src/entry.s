// Into 64-bit code: the first CPU from PVH's entry, the others from where a start-up interrupt leaves them.

.set CODE32, 0x08
.set DATA, 0x10
.set CODE64, 0x18

// "Enter me here, in 32-bit mode": Xen's note 18, which QEMU looks for.
.section .note.pvh, "a", @note
.balign 4
.long 4, 8, 18
.asciz "Xen"
.quad pvh_start

.section .text.entry, "ax", @progbits
.code32
.global pvh_start
pvh_start:
    cli
    cld
    movl $boot_stack_top, %esp
    movl %ebx, %esi                     // where the start information is
    // The first 4 GiB at their own addresses, in pages of 2 MiB. The kernel refines that before it starts another CPU.
    movl $page_pds, %edi
    movl $0x83, %eax
    movl $2048, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $(page_pds + 3), %eax
    movl $page_pdpt, %edi
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    decl %ecx
    jnz 2b
    movl $(page_pdpt + 3), page_pml4
    call enable_long_mode
    lgdtl boot_gdtr
    ljmpl $CODE64, $first_cpu_64

// Another CPU, from the trampoline: paging off.
ap_start32:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    // Each takes a number, and the stack that goes with it: until it has found out who it is, it has nothing else.
    movl $1, %esi
    lock xaddl %esi, ap_tickets
    movl %esi, %esp
    incl %esp
    imull $AP_STACK, %esp
    addl $ap_stacks, %esp
    call enable_long_mode
    ljmpl $CODE64, $other_cpu_64

// Compilers use SSE from the first function on, so it is turned on here.
enable_long_mode:
    movl %cr4, %eax
    orl $0x620, %eax                    // PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $page_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              // EFER
    rdmsr
    orl $0x900, %eax                    // long mode, no-execute
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffffb, %eax              // caches on; no emulation of the FPU
    orl $0x80010023, %eax               // paging, write protection for ourselves as well, native FPU errors
    movl %eax, %cr0
    ret

.code64
first_cpu_64:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movl $boot_stack_top, %esp
    movl %esi, %edi
    xorl %ebp, %ebp
    call first_cpu
    ud2

other_cpu_64:
    movl %esp, %esp
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    xorl %ebp, %ebp
    call other_cpu
    ud2

// Copied to TRAMPOLINE, below 1 MiB: a start-up interrupt leads there, in 16-bit mode.
.code16
.global ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl (ap_gdtr - ap_trampoline + TRAMPOLINE)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $CODE32, $ap_start32
.balign 4
ap_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:
.code64

.section .rodata
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            // "accessed" is set in all, so that nobody writes it here
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

.bss
.balign 4096
.global page_pml4, page_pdpt, page_pds
page_pml4: .skip 4096
page_pdpt: .skip 4096
page_pds: .skip 4 * 4096
boot_stack: .skip 65536
boot_stack_top:
.global ap_tickets
ap_tickets: .skip 4
