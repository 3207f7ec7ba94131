/* Where things are; tests/exhaustive/machine.py has the same numbers. */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

/* No two pages in use have a number with the same low byte: the engine's TLB then never has to evict one. */
#define RESULTS 0xffffffff90000000UL
#define USER_PAGE 0x420000UL
/* Eight pages through which the guest reaches tables and frames by number. */
#define WINDOW 0xffffffff90010000UL
enum { AT_ROOT, AT_PDPT, AT_PD, AT_PT, AT_FRAME, AT_FRAME_2M, AT_FRAME_1G, AT_USER };
#define PROGRESS_PORT 0x100

/* Physical places of the tables under test. A table that a large entry could map stands where it maps a page. */
#define PD 0x40000000UL     /* 1 GiB aligned */
#define PT 0x60000000UL     /* 2 MiB aligned */
#define PDPT 0x70000000UL
#define FRAME 0x70001000UL

/* The linear address under test, and its index at each level. */
#define PML4_INDEX 3UL
#define PDPT_INDEX 1UL
#define PD_INDEX 5UL
#define PT_INDEX 0x60UL
#define LINEAR (PML4_INDEX << 39 | PDPT_INDEX << 30 | PD_INDEX << 21 | PT_INDEX << 12)

/* In every page that LINEAR may mean: what a read finds, where a write goes, code for ring 3 and for ring 0. */
#define AT_READ 0x128UL
#define AT_WRITE 0x130UL
#define AT_USER_CODE 0x800UL
#define AT_SUPERVISOR_CODE 0x840UL

#define P (1UL << 0)
#define RW (1UL << 1)
#define US (1UL << 2)
#define A (1UL << 5)
#define D (1UL << 6)
#define PS (1UL << 7)
#define NX (1UL << 63)

#define KEY 5UL             /* of the pages under test */
#define OTHER_KEY 9UL       /* in entries that map no page, where it means nothing; denied everything */

struct mismatch {
    u64 number, set, state, kind; /* kind: access + 3 * user */
    u64 before[4], expected[4], after[4];
    u64 expected_fault, expected_code;
    u64 fault, code, address;
};

struct results {
    u64 part, parts;            /* in: check number `part`, `part + parts`, ... */
    u64 total, position;        /* combinations there are; the number reached */
    u64 checks, faults, mismatches;
    u64 deviations;             /* nothing but the accessed bit of a refused 1 GiB page set */
    u64 finished;
    u64 fatal, fatal_at, fatal_words[2], fatal_cr2;
    struct mismatch list[16];
};
