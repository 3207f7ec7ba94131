/* What CPUID and the kernel's files say of the processor and its flaws. */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void text(const char *path)
{
    char line[4096];
    FILE *file = fopen(path, "r");
    if (file && fgets(line, sizeof line, file))
        printf("%s: %s", path, line);
    if (file)
        fclose(file);
}

int main(void)
{
    static const unsigned leaves[][2] = {
        {0, 0}, {1, 0}, {4, 0}, {4, 1}, {4, 2}, {4, 3}, {7, 0}, {0x15, 0}, {0x16, 0}, {0x80000002, 0}, {0x80000003, 0},
        {0x80000004, 0}, {0x80000005, 0}, {0x80000006, 0}, {0x80000008, 0}, {0x40000000, 0},
    };
    static const char *const files[] = {
        "l1tf", "mds", "meltdown", "spec_store_bypass", "spectre_v1", "spectre_v2", "retbleed", "srbds",
        "tsx_async_abort", "itlb_multihit", "mmio_stale_data", "gather_data_sampling", "spec_rstack_overflow",
        "reg_file_data_sampling",
    };
    static const char *const facts[] = {"level", "type", "size", "ways_of_associativity", "number_of_sets", "coherency_line_size"};
    for (unsigned n = 0; n < sizeof leaves / sizeof *leaves; n++) {
        unsigned a, b, c, d;
        __cpuid_count(leaves[n][0], leaves[n][1], a, b, c, d);
        printf("%x.%x: %x %x %x %x\n", leaves[n][0], leaves[n][1], a, b, c, d);
    }
    char path[256];
    for (unsigned n = 0; n < sizeof files / sizeof *files; n++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/vulnerabilities/%s", files[n]);
        text(path);
    }
    for (unsigned index = 0; index < 4; index++)
        for (unsigned n = 0; n < sizeof facts / sizeof *facts; n++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/%s", index, facts[n]);
            text(path);
        }
    printf("dcache: %ld %ld %ld\n", sysconf(_SC_LEVEL1_DCACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE));
    char line[4096];
    FILE *info = fopen("/proc/cpuinfo", "r");
    while (info && fgets(line, sizeof line, info))
        fputs(line, stdout);
    return 0;
}
