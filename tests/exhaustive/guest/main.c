/* Every access right of 4-level paging, tried: the guest edits its own tables and handles its own page faults. */
#include "rules.h"

#define RESULT ((volatile struct results *)RESULTS)
#define AT(page, offset) ((volatile u64 *)(WINDOW + ((u64)(page) << 12) + (offset)))
#define SIGNATURE 0x5ec0de0000000000UL
#define SPREAD 1000003UL /* a prime that does not divide the number of checks of a state */

extern u8 page_fault[], others[], user_stubs[], system_call[];
void supervisor_access(u64 address, u64 value, u64 kind, u64 ac);
void user_access(u64 address, u64 value, u64 stub);

volatile u64 faulted, fault_code, fault_address, fault_rip, loaded, resume, kernel_rsp;

static u64 gdt[9] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff,
                      0x00affb000000ffff };
static u64 idt[256 * 2];
static u32 tss[26];
static u8 fault_stack[4096] __attribute__((aligned(16)));
static volatile u64 *slots[4];

void *memcpy(void *to, const void *from, u64 count)
{
    for (u64 i = 0; i < count; i++)
        ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}

void *memset(void *to, int value, u64 count)
{
    for (u64 i = 0; i < count; i++)
        ((volatile u8 *)to)[i] = value;
    return to;
}

static u64 read_cr4(void)
{
    u64 value;
    __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

static u64 read_cr0(void)
{
    u64 value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static u64 read_cr3(void)
{
    u64 value;
    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

static void write_msr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static u64 read_msr(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}

static void set_gate(int vector, u64 handler)
{
    idt[2 * vector] = (handler & 0xffff) | 0x10UL << 16 | 0x8eUL << 40 | (handler >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = handler >> 32;
}

void fatal(u64 behind, u64 first, u64 second)
{
    RESULT->fatal = (behind - (u64)others) / 16 + 1;
    RESULT->fatal_at = RESULT->position;
    RESULT->fatal_words[0] = first;
    RESULT->fatal_words[1] = second;
    u64 cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    RESULT->fatal_cr2 = cr2;
}

static void set_tables_up(void)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) table = { sizeof gdt - 1, (u64)gdt };
    u64 base = (u64)tss, top = (u64)fault_stack + sizeof fault_stack;
    memcpy(&tss[1], &top, 8);
    gdt[7] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89UL << 40 | (base >> 24 & 0xff) << 56;
    gdt[8] = base >> 32;
    __asm__ volatile("lgdt %0" : : "m"(table));
    __asm__ volatile("ltr %w0" : : "r"(0x38));
    for (int vector = 0; vector < 32; vector++)
        set_gate(vector, vector == 14 ? (u64)page_fault : (u64)others + 16 * vector);
    table.limit = sizeof idt - 1;
    table.base = (u64)idt;
    __asm__ volatile("lidt %0" : : "m"(table));
    write_msr(0xc0000081, 0x23UL << 48 | 0x10UL << 32);
    write_msr(0xc0000082, (u64)system_call);
    write_msr(0xc0000084, 0x40700);
}

/* Data and code in each page that the linear address can mean. */
static void fill_pages(void)
{
    for (int page = AT_FRAME; page <= AT_FRAME_1G; page++) {
        *AT(page, AT_READ) = SIGNATURE + page;
        *AT(page, AT_USER_CODE) = 0x050f;         /* syscall */
        *AT(page, AT_SUPERVISOR_CODE) = 0xe3ff41; /* jmp *%r11 */
    }
}

static void enter_state(const struct state *s)
{
    u64 cr0 = (read_cr0() & ~(1UL << 16)) | (u64)s->wp << 16;
    u64 efer = (read_msr(0xc0000080) & ~(1UL << 11)) | (u64)s->nxe << 11;
    u64 cr4 = read_cr4() & ~(7UL << 20);
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | 1UL << 22));
    __asm__ volatile("wrpkru" : : "a"(s->pkru), "c"(0), "d"(0));
    cr4 |= (u64)s->smep << 20 | (u64)s->smap << 21 | (u64)s->pke << 22;
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
    write_msr(0xc0000080, efer);
    __asm__ volatile("mov %0, %%cr3" : : "r"(read_cr3()) : "memory");
}

static void record(u64 number, u64 set, u64 state, u64 kind, const u64 before[4], const struct outcome *expected)
{
    u64 place = RESULT->mismatches++;
    if (place >= 16)
        return;
    volatile struct mismatch *m = &RESULT->list[place];
    m->number = number;
    m->set = set;
    m->state = state;
    m->kind = kind;
    for (int level = 0; level < 4; level++) {
        m->before[level] = before[level];
        m->expected[level] = expected->after[level];
        m->after[level] = *slots[level];
    }
    m->expected_fault = expected->fault;
    m->expected_code = expected->code;
    m->fault = faulted;
    m->code = fault_code;
    m->address = fault_address;
}

static int page_of(int leaf)
{
    return leaf == PTE ? AT_FRAME : leaf == PDE ? AT_FRAME_2M : AT_FRAME_1G;
}

/* The access itself; whether a load or store reached the right memory. */
static int perform(int access, int user, const struct state *s, const struct outcome *expected, u64 value)
{
    static const u64 offsets[2][3] = { { AT_READ, AT_WRITE, AT_SUPERVISOR_CODE }, { AT_READ, AT_WRITE, AT_USER_CODE } };
    u64 address = LINEAR + offsets[user][access];
    int page = page_of(expected->leaf);
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
    if (user)
        user_access(address, value, USER_PAGE + 16 * access);
    else
        supervisor_access(address, value, access, s->ac);
    if (faulted)
        return fault_address == address;
    return access == FETCH || (access == READ ? loaded == SIGNATURE + page : *AT(page, AT_WRITE) == value);
}

static void check(u64 number, u64 state, u64 rest, const struct state *s)
{
    u64 entries[4];
    u64 kind = rest % 6;
    int access = kind % 3, user = kind >= 3;
    u64 set = choose_entries(rest / 6, entries, s->maxphyaddr);
    struct outcome expected = expect(entries, access, user, s);
    for (int level = 0; level < 4; level++)
        *slots[level] = entries[level];
    int right = perform(access, user, s, &expected, number | 1UL << 60);
    right &= faulted == (u64)expected.fault && (!faulted || fault_code == expected.code);
    u64 wrong = 0;
    for (int level = 0; level < 4; level++)
        if (level != PDPTE)
            wrong |= *slots[level] ^ expected.after[level];
    u64 difference = *slots[PDPTE] ^ expected.after[PDPTE];
    RESULT->checks++;
    RESULT->faults += faulted;
    if (right && !wrong && difference == A && faulted && expected.code & 1 && entries[PDPTE] & PS)
        RESULT->deviations++;
    else if (!right || wrong || difference)
        record(number, set, state, kind, entries, &expected);
}

void main(void)
{
    struct state s;
    u64 per_state = cases * 6, total = states * per_state, current = ~0UL;
    u32 a = 0x80000008, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    s.maxphyaddr = a & 0xff;
    set_tables_up();
    memcpy((void *)AT(AT_USER, 0), user_stubs, 64);
    fill_pages();
    slots[0] = AT(AT_ROOT, 8 * PML4_INDEX);
    slots[1] = AT(AT_PDPT, 8 * PDPT_INDEX);
    slots[2] = AT(AT_PD, 8 * PD_INDEX);
    slots[3] = AT(AT_PT, 8 * PT_INDEX);
    RESULT->total = total;
    for (u64 number = RESULT->part; number < total; number += RESULT->parts) {
        u64 state = number / per_state;
        if (state != current) {
            choose_state(state, &s);
            enter_state(&s);
            current = state;
        }
        RESULT->position = number;
        check(number, state, number % per_state * SPREAD % per_state, &s);
        if (!(RESULT->checks & 1023))
            __asm__ volatile("outl %0, %w1" : : "a"((u32)RESULT->checks), "d"(PROGRESS_PORT));
    }
    RESULT->position = total;
    RESULT->finished = 1;
}
