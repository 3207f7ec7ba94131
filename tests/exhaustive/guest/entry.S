/* Entry, accesses in both rings, and what comes back from them. AT&T syntax. */

        .section .entry, "ax"
        .globl start
start:
        lea     stack_top(%rip), %rsp
        call    main
        hlt

        .text
/* void supervisor_access(u64 address, u64 value, u64 kind, u64 ac): kind 0 read, 1 write, 2 fetch. */
        .globl supervisor_access
supervisor_access:
        movq    $0, faulted(%rip)
        lea     3f(%rip), %r11
        mov     %r11, resume(%rip)
        test    %rcx, %rcx
        jz      0f
        stac
0:      cmp     $1, %rdx
        je      1f
        ja      2f
        mov     (%rdi), %rax
        mov     %rax, loaded(%rip)
        jmp     3f
1:      mov     %rsi, (%rdi)
        jmp     3f
2:      jmp     *%rdi                   /* the code there is: jmp *%r11 */
3:      clac
        ret

/* void user_access(u64 address, u64 value, u64 stub): runs `stub` of the user page in ring 3. */
        .globl user_access
user_access:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        movq    $0, faulted(%rip)
        movq    $0, resume(%rip)
        mov     %rsp, kernel_rsp(%rip)
        mov     %rdx, %rcx
        mov     $2, %r11d
        sysretq

back_in_kernel:
        mov     kernel_rsp(%rip), %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .globl system_call
system_call:
        mov     %rax, loaded(%rip)
        jmp     back_in_kernel

        .globl page_fault
page_fault:
        pop     fault_code(%rip)
        mov     %cr2, %rax
        mov     %rax, fault_address(%rip)
        mov     (%rsp), %rax
        mov     %rax, fault_rip(%rip)
        movq    $1, faulted(%rip)
        mov     resume(%rip), %rax
        test    %rax, %rax
        jz      back_in_kernel          /* from ring 3 */
        mov     %rax, (%rsp)
        iretq

/* Whatever else arrives ends the run: 16 bytes for each vector, told apart by their place. */
        .globl others
        .balign 16
others:
        .rept   32
        call    unexpected
        .balign 16
        .endr
unexpected:
        pop     %rdi
        mov     (%rsp), %rsi
        mov     8(%rsp), %rdx
        call    fatal
        hlt

/* A page that is copied to where ring 3 may execute it. */
        .globl user_stubs
        .balign 16
user_stubs:
        mov     (%rdi), %rax
        syscall
        .balign 16
        mov     %rsi, (%rdi)
        syscall
        .balign 16
        jmp     *%rdi                   /* the code there is: syscall */
        .balign 16

        .bss
        .balign 16
        .skip   16384
stack_top:
