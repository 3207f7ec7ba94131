# The vulnerable system call, number 1000: a driver with the mistakes that labs need. Run in ring 0, interrupts off.
#
# It stands before syscall_entry.s (ENTRY), which any other call goes to at once, and to which it goes in the end: the
# kernel returns what it leaves in R9. In: RDI = what to do, RSI, RDX, R8, R10 as docs/reference-guest.md tells;
# gs:[0x70] is the page of the kernel's own data (mmuemu/kernel/vulnerable.py has its layout).
#
# A long NOP whose displacement is four letters marks a place (mmuemu/kernel/alternatives.py): what stands behind
# SITE_BOUNDS, 9 bytes, and SITE_CALL, 5 bytes, is replaced when a mitigation is in force.

.macro mark letters
    .byte 0x0f, 0x1f, 0x84, 0x00
    .ascii "\letters"
.endm

    cmp eax, 1000
    jne ENTRY
.if KPTI == 0
    swapgs
    .byte 0x65, 0x48, 0x89, 0x24, 0x25, 8, 0, 0, 0      # mov gs:[8], rsp
.endif
    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 0, 0, 0, 0      # mov rsp, gs:[0]
    push rbx
    push rcx
    push rsi
    push rdx
    .byte 0x65, 0x48, 0x8b, 0x1c, 0x25, 0x70, 0, 0, 0   # mov rbx, gs:[0x70]
    cmp rdi, 4
    ja refused
    je store
    cmp rdi, 2
    ja flush
    je use
    test rdi, rdi
    jnz dispatch

    # 0: array[RSI], and then a line of the table at RDX (0: the kernel's own) by its value shifted left by R10
    lea rax, [rbx + 0x800]
    mov ecx, 3
    test rdx, rdx
    cmovz rdx, rax
    cmovnz ecx, r10d
    mov r9, qword ptr [rbx]
    cmp rsi, r9
    jae refused
    mark BNDS
    .byte 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
    movzx r9d, byte ptr [rbx + rsi + 0x200]
    mov eax, r9d
    shl rax, cl
    movzx eax, byte ptr [rdx + rax]
leave_call:
    pop rdx
    pop rsi
    pop rcx
    pop rbx
    mov eax, 1000
.if KPTI == 0
    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 8, 0, 0, 0      # mov rsp, gs:[8]
    swapgs
.endif
    jmp ENTRY

    # 1: the function in slot RSI of the table
dispatch:
    cmp rsi, 4
    jae refused
    and esi, 3
    mov rax, qword ptr [rbx + 8*rsi + 0x40]
    mark CALL
    call rax
    .byte 0x0f, 0x1f, 0x00
    jmp leave_call

    # 2: a sum over the secret, which only the kernel sees
use:
    xor ecx, ecx
    xor eax, eax
use_byte:
    movzx esi, byte ptr [rbx + rcx + 0x80]
    add eax, esi
    inc ecx
    cmp ecx, 32
    jb use_byte
    mov qword ptr [rbx + 0xe0], rax
    xor r9d, r9d
    jmp leave_call

    # 3: line RSI of the first four goes out of the caches
flush:
    cmp rsi, 4
    jae refused
    shl esi, 6
    clflush byte ptr [rbx + rsi]
    mfence
    xor r9d, r9d
    jmp leave_call

    # 4: the secret is stored somewhere else, and loaded from there
store:
    xor ecx, ecx
store_word:
    mov rax, qword ptr [rbx + 8*rcx + 0x80]
    mov qword ptr [rbx + 8*rcx + 0xc0], rax
    mov rax, qword ptr [rbx + 8*rcx + 0xc0]
    inc ecx
    cmp ecx, 4
    jb store_word
    xor r9d, r9d
    jmp leave_call

refused:
    mov r9, -22
    jmp leave_call

    # where a fault in what stands above goes on
    mark FIXU
    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 0, 0, 0, 0      # mov rsp, gs:[0]
    sub rsp, 32
    mov r9, -14
    jmp leave_call

    # the functions of the table
    mark EVEN
    lea r9, [rsi + 0x100]
    ret
    mark ODDF
    lea r9, [rsi + 0x200]
    ret

    # a retpoline for RAX
    mark THNK
    call thunk_set
thunk_spin:
    pause
    lfence
    jmp thunk_spin
thunk_set:
    mov qword ptr [rsp], rax
    ret

    # nobody calls this: it makes a byte at R8 visible in the table at RDX
    .balign 64, 0xcc
    mark GADG
    movzx eax, byte ptr [r8]
    mov ecx, r10d
    shl rax, cl
    movzx eax, byte ptr [rdx + rax]
    ret
