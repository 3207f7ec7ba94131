/* The combinations: paging states, and the four entries of a walk. */
#include "rules.h"

#define ENTRY_CASES (192 + 4)
/* R/W, U/S and NX of every entry of a walk that ends at a PTE, a PDE or a PDPTE. */
#define RIGHTS_4K 4096
#define RIGHTS_2M 512
#define RIGHTS_1G 64
#define RIGHTS (RIGHTS_4K + RIGHTS_2M + RIGHTS_1G)
/* Every value of one entry under open others: of all four, of two above a 2 MiB page, of one above a 1 GiB page. */
#define SINGLES (ENTRY_CASES * 7)
/* Which of several faults comes first: each entry good, absent, reserved, or read-only and not executable. */
#define ORDERS 256

const u64 states = 2 * 2 * 2 * 3 * 4;
const u64 cases = RIGHTS + SINGLES + ORDERS;

static const u64 targets[4] = { PDPT, PD, PT, FRAME };

void choose_state(u64 n, struct state *s)
{
    s->wp = n & 1;
    s->nxe = n >> 1 & 1;
    s->smep = n >> 2 & 1;
    n >>= 3;
    s->smap = n % 3 != 0;
    s->ac = n % 3 == 2;
    n /= 3;
    s->pke = n != 0;
    /* Without PKE the key denies everything, and nothing comes of it. */
    s->pkru = 3u << 2 * OTHER_KEY | (n == 0 ? 3u : n == 1 ? 0u : n == 2 ? 1u : 2u) << 2 * KEY;
}

static u64 rights(u64 three)
{
    return P | (three & 1 ? RW : 0) | (three & 2 ? US : 0) | (three & 4 ? NX : 0);
}

static u64 reserved_bit(int level, u64 flags, int which, int maxphyaddr)
{
    if (which == 0)
        return 0;
    if (which == 1)
        return 1UL << maxphyaddr;
    return (level == PDPTE || level == PDE) && flags & PS ? 1UL << 13 : 1UL << 51;
}

/* Flags of one entry: all of R/W, U/S, NX, A, D, PS and the reserved bits when present; a few when not. */
static u64 single(int level, u64 n, int maxphyaddr)
{
    static const u64 absent[4] = { 0, RW | US | A | D | PS | NX, RW | US | 1UL << 51, PS | 1UL << 13 };
    if (n >= 192)
        return absent[n - 192];
    u64 flags = rights(n & 7) | (n & 8 ? A : 0) | (n & 16 ? D : 0) | (n & 32 ? PS : 0);
    return flags | reserved_bit(level, flags, n >> 6, maxphyaddr);
}

static u64 order(int level, u64 which, int maxphyaddr)
{
    static const u64 flags[4] = { P | RW | US, RW | US | 1UL << 51, P | RW | US, P | US | NX };
    return flags[which] | (which == 2 ? reserved_bit(level, 0, 1, maxphyaddr) : 0);
}

/* Fill `entries`; the set that case `n` belongs to. */
u64 choose_entries(u64 n, u64 entries[4], int maxphyaddr)
{
    u64 set;
    for (int level = 0; level < 4; level++)
        entries[level] = P | RW | US;
    if (n < RIGHTS) {
        int depth = n < RIGHTS_4K ? 4 : n < RIGHTS_4K + RIGHTS_2M ? 3 : 2;
        n -= depth == 4 ? 0 : depth == 3 ? RIGHTS_4K : RIGHTS_4K + RIGHTS_2M;
        for (int level = 0; level < depth; level++)
            entries[level] = rights(n >> 3 * level & 7);
        if (depth < 4)
            entries[depth - 1] |= PS;
        set = 0;
    } else if (n < RIGHTS + SINGLES) {
        static const u8 varied[7] = { PML4E, PDPTE, PDE, PTE, PML4E, PDPTE, PML4E };
        u64 place = (n - RIGHTS) / ENTRY_CASES;
        entries[varied[place]] = single(varied[place], (n - RIGHTS) % ENTRY_CASES, maxphyaddr);
        if (place >= 4)
            entries[place < 6 ? PDE : PDPTE] |= PS;
        set = 1;
    } else {
        n -= RIGHTS + SINGLES;
        for (int level = 0; level < 4; level++)
            entries[level] = order(level, n >> 2 * level & 3, maxphyaddr);
        set = 2;
    }
    for (int level = 0; level < 4; level++) {
        int leaf = level == PTE || (level != PML4E && entries[level] & PS);
        entries[level] |= targets[level] | (leaf ? KEY : OTHER_KEY) << 59;
    }
    return set;
}
