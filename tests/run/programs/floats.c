/* Floating point: printing, parsing, SSE arithmetic, x87, rounding, the math library. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <emmintrin.h>

static uint64_t bits(double value) {
    uint64_t out;
    memcpy(&out, &value, 8);
    return out;
}

static void printing(void) {
    const double values[] = {0.0, -0.0, 1.0 / 3, 1e300 * 10, 5e-324, DBL_MAX, DBL_MIN, M_PI, 123456789.125, -2.5, 1e22, 1e23, 0.1};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        printf("%.17g %e %f %a %.3f %10.2e|%-12g|%+G\n", values[i], values[i], values[i], values[i], values[i], values[i],
               values[i], values[i]);
    printf("%f %f %F\n", INFINITY, -INFINITY, NAN);
    printf("%.50f\n%.0f %.0f %.0f\n", 0.1, 0.5, 1.5, 2.5);
    printf("%Lf %.20Lg %La\n", 1.0L / 3, 1.0L / 3, 1.0L / 3);
}

static void parsing(void) {
    const char *texts[] = {"3.14159", "1e-400", "1e400", "0x1.8p3", "2.2250738585072014e-308", "inf", "nan", "-7e5xyz", "."};
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *end;
        double value = strtod(texts[i], &end);
        printf("%s -> %016llx rest '%s'\n", texts[i], isnan(value) ? 0ull : (unsigned long long)bits(value), end);
    }
    printf("%.9g %.21Lg\n", strtof("16777217", NULL), strtold("0.1", NULL));
}

static void arithmetic(void) {
    double sum = 0, product = 1;
    for (int i = 1; i <= 2000; i++) sum += 1.0 / i, product *= 1 + 1.0 / ((double)i * i);
    printf("%016llx %016llx\n", (unsigned long long)bits(sum), (unsigned long long)bits(product));
    float single = 0;
    for (int i = 1; i <= 2000; i++) single += 1.0f / (float)i;
    printf("%.9g\n", single);
    volatile long double extended = 1;
    for (int i = 1; i < 30; i++) extended = extended * i + 1.0L / i;
    printf("%.20Lg\n", extended);
    const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        volatile double one = 1, ten = 10, half = 2.5;
        double tenth = one / ten;
        printf("%016llx %ld %g\n", (unsigned long long)bits(tenth), lrint(half), rint(-half));
    }
    fesetround(FE_TONEAREST);
    __m128d a = _mm_set_pd(1.5, -2.25), b = _mm_set_pd(4, 9);
    double lanes[2];
    _mm_storeu_pd(lanes, _mm_div_pd(_mm_mul_pd(a, b), _mm_sqrt_pd(b)));
    printf("%g %g\n", lanes[0], lanes[1]);
    __m128i words = _mm_madd_epi16(_mm_set1_epi16(300), _mm_set_epi16(1, 2, 3, 4, 5, 6, 7, -8));
    int out[4];
    _mm_storeu_si128((__m128i *)out, _mm_shuffle_epi32(words, 0x1b));
    printf("%d %d %d %d\n", out[0], out[1], out[2], out[3]);
    printf("%lld %lld %d\n", (long long)-1e15, (long long)(uint64_t)1e19, (int)-3.99);
}

static void library(void) {
    for (double x = -3; x <= 3; x += 0.75)
        printf("%g: %.15g %.15g %.15g %.15g %.15g %.15g\n", x, sin(x), cos(x), atan(x), exp(x), tanh(x), cbrt(x));
    for (double x = 0.125; x <= 8; x *= 2)
        printf("%g: %.15g %.15g %.15g %.15g\n", x, log(x), sqrt(x), pow(x, 1.7), lgamma(x));
    int exponent;
    double whole, fraction = frexp(1234.5, &exponent);
    printf("%g %d %g", fraction, exponent, modf(-9.75, &whole));
    printf(" %g %g %g %g %g\n", whole, floor(-0.5), ceil(0.2), fmod(10, 3.3), hypot(3, 4));
    printf("%.15g %.15g\n", fma(1e16, 3, 1), remainder(10, 3.3));
    printf("%d %d %d\n", isnan(sqrt(-1.0)), isinf(log(0)), fpclassify(5e-324) == FP_SUBNORMAL);
}

int main(void) {
    printing();
    parsing();
    arithmetic();
    library();
    return 0;
}
