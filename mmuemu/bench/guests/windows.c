/* A branch on a bit that comes late from memory and that no predictor can know, count times. */
#include "start.h"
int run(u64 count, char **words) {
    static volatile u8 slow[64] __attribute__((aligned(64)));
    u64 state = 1, taken = 0;
    for (u64 i = 0; i < count; i++) {
        state = state * 6364136223846793005ul + 1442695040888963407ul;
        slow[0] = (u8)(state >> 40) & 1;
        __asm__ volatile("clflush %0\n\tmfence" : "+m"(slow[0]));
        if (slow[0]) {
            taken++;
            __asm__ volatile("");
        } else {
            taken += 2;
            __asm__ volatile("nop");
        }
    }
    hex(&taken, 8);
    return 0;
}
