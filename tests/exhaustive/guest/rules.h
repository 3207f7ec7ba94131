#include "layout.h"

enum { PML4E, PDPTE, PDE, PTE };
enum { READ, WRITE, FETCH };

struct state {
    int wp, nxe, smep, smap, ac, pke, maxphyaddr;
    u32 pkru;
};

struct outcome {
    int fault, leaf;
    u64 code, after[4];
};

struct outcome expect(const u64 entries[4], int access, int user, const struct state *s);

/* cases.c: the combinations. */
extern const u64 states, cases;
void choose_state(u64 number, struct state *s);
u64 choose_entries(u64 number, u64 entries[4], int maxphyaddr);
