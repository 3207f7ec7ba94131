/* Shows its own mappings. */
#include "free.h"
#if defined(LIB_A)
char filled[9000] = {1};
char zeros[20000];
char *const pointer = zeros;
const char text[100] = {1};
int work(void) { return filled[0] + zeros[19999]; }
#else
extern int work(void);
int run(u64 *stack) {
    char buffer[4096];
    long n, fd = call(2, (long)"/proc/self/maps", 0, 0);
    while ((n = call(0, fd, (long)buffer, sizeof buffer)) > 0) call(1, 1, (long)buffer, n);
    return work();
}
#endif
