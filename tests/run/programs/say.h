/* What every program here does with a result: print it, and the error's name. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static long say(const char *what, long result) {
    int error = errno;
    printf("%s: %ld", what, result);
    if (result < 0) printf(" (%s)", strerror(error));
    puts("");
    fflush(stdout);
    return result;
}
