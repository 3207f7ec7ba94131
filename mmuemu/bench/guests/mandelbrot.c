/* The Mandelbrot set in doubles: count rows of 512 points, at most 256 iterations each. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    for (u64 row = 0; row < count; row++)
        for (int column = 0; column < 512; column++) {
            double cr = column / 170.0 - 2.2, ci = (double)(row % 128) / 53.0 - 1.2, r = 0, i = 0;
            int n = 0;
            while (n < 256 && r * r + i * i < 4) {
                double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                n++;
            }
            sum = sum * 31 + (u64)n;
        }
    hex(&sum, 8);
    return 0;
}
