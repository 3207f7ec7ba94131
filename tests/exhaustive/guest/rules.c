/* The expectation: what the manual says of one access (SDM volume 3, sections 4.5 to 4.8). */
#include "rules.h"

static u64 reserved(int level, u64 entry, const struct state *s)
{
    u64 bits = ~0UL >> 12 & ~((1UL << s->maxphyaddr) - 1);
    if (!s->nxe)
        bits |= NX;
    if (level == PML4E)
        bits |= PS;
    if (level == PDPTE && entry & PS)
        bits |= 0x3fffe000;
    if (level == PDE && entry & PS)
        bits |= 0x1fe000;
    return bits;
}

static int is_leaf(int level, u64 entry)
{
    return level == PTE || ((level == PDPTE || level == PDE) && entry & PS);
}

/* PK bits of section 4.7: what the protection key takes away. */
static int key_denies(u64 leaf, int access, int user, const struct state *s)
{
    u32 rights = s->pkru >> (leaf >> 59 & 15) * 2;
    if (!s->pke || access == FETCH)
        return 0;
    return rights & 1 || (rights & 2 && access == WRITE && (user || s->wp));
}

static int allowed(int access, int user, int user_page, int writable, int executable, const struct state *s)
{
    if (user && !user_page)
        return 0;
    if (access == FETCH)
        return executable && !(!user && user_page && s->smep);
    if (!user && user_page && s->smap && !s->ac)
        return 0;
    return access == READ || writable || (!user && !s->wp);
}

struct outcome expect(const u64 entries[4], int access, int user, const struct state *s)
{
    struct outcome out = { 0 };
    u64 all = RW | US, any = 0;
    u64 base = (access == WRITE ? 2 : 0) | (user ? 4 : 0) | (access == FETCH && (s->nxe || s->smep) ? 16 : 0);
    int level;
    for (level = 0; level < 4; level++)
        out.after[level] = entries[level];
    for (level = 0; level < 4; level++) {
        u64 entry = entries[level];
        if (!(entry & P)) {
            out.fault = 1;
            out.code = base;
            return out;
        }
        if (entry & reserved(level, entry, s)) {
            out.fault = 1;
            out.code = base | 9;
            return out;
        }
        all &= entry;
        any |= entry;
        if (is_leaf(level, entry))
            break;
        out.after[level] |= A;
    }
    out.leaf = level;
    int denied = all & US && key_denies(entries[level], access, user, s);
    if (denied || !allowed(access, user, !!(all & US), !!(all & RW), !(any & NX), s)) {
        out.fault = 1;
        out.code = base | 1 | (denied ? 32 : 0);
        return out;
    }
    out.after[level] |= A | (access == WRITE ? D : 0);
    return out;
}
