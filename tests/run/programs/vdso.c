/* Finds the vDSO as vdso(7) says, calls its functions, compares with the system calls; "list" names its symbols. */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static ElfW(Sym) *symbols;
static const char *strings;
static unsigned *hash;
static unsigned short *versions;
static ElfW(Verdef) *definitions;
static char *base;

static void *find(const char *name) {
    for (unsigned i = 0; i < hash[1]; i++) {
        if (strcmp(strings + symbols[i].st_name, name) || symbols[i].st_shndx == SHN_UNDEF) continue;
        ElfW(Verdef) *d = definitions;
        while (d->vd_ndx != (versions[i] & 0x7fff)) d = (void *)((char *)d + d->vd_next);
        ElfW(Verdaux) *aux = (void *)((char *)d + d->vd_aux);
        if (!strcmp(strings + aux->vda_name, "LINUX_2.6")) return base + symbols[i].st_value;
    }
    return 0;
}

static int seen(struct dl_phdr_info *info, size_t size, void *data) {
    if (strstr(info->dlpi_name, "vdso")) printf("loaded %s: %d\n", info->dlpi_name, (char *)info->dlpi_addr == base);
    return 0;
}

int main(int argc, char **argv) {
    base = (char *)getauxval(AT_SYSINFO_EHDR);
    ElfW(Ehdr) *header = (void *)base;
    if (!base || memcmp(header->e_ident, ELFMAG, SELFMAG)) return 1;
    ElfW(Phdr) *ph = (void *)(base + header->e_phoff);
    const char *soname = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        if (ph[i].p_type != PT_DYNAMIC) continue;
        ElfW(Dyn) *first = (void *)(base + ph[i].p_vaddr);
        for (ElfW(Dyn) *d = first; d->d_tag; d++) {
            if (d->d_tag == DT_STRTAB) strings = base + d->d_un.d_ptr;
            if (d->d_tag == DT_SYMTAB) symbols = (void *)(base + d->d_un.d_ptr);
            if (d->d_tag == DT_HASH) hash = (void *)(base + d->d_un.d_ptr);
            if (d->d_tag == DT_VERSYM) versions = (void *)(base + d->d_un.d_ptr);
            if (d->d_tag == DT_VERDEF) definitions = (void *)(base + d->d_un.d_ptr);
        }
        for (ElfW(Dyn) *d = first; d->d_tag; d++)
            if (d->d_tag == DT_SONAME) soname = strings + d->d_un.d_val;
    }
    printf("soname %s\n", soname);
    static const char *const names[] = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time",
                                        "__vdso_getcpu", "__vdso_clock_getres", "clock_gettime", "gettimeofday",
                                        "time", "getcpu", "clock_getres"};
    for (int i = 0; i < 10; i++) printf("%s %d\n", names[i], find(names[i]) != 0);
    int (*gettime)(clockid_t, struct timespec *) = find("__vdso_clock_gettime");
    int (*getres)(clockid_t, struct timespec *) = find("__vdso_clock_getres");
    int (*timeofday)(struct timeval *, void *) = find("__vdso_gettimeofday");
    time_t (*seconds)(time_t *) = find("__vdso_time");
    int (*cpu)(unsigned *, unsigned *, void *) = find("__vdso_getcpu");
    struct timespec before, between, after, resolution;
    struct timeval now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &before);
    printf("gettime %d\n", gettime(CLOCK_REALTIME, &between));
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &after);
    printf("in order %d\n", before.tv_sec * 1000000000l + before.tv_nsec <= between.tv_sec * 1000000000l + between.tv_nsec
           && between.tv_sec * 1000000000l + between.tv_nsec <= after.tv_sec * 1000000000l + after.tv_nsec);
    printf("getres %d", getres(CLOCK_MONOTONIC, &resolution));
    printf(" %ld %ld\n", (long)resolution.tv_sec, resolution.tv_nsec);
    printf("timeofday %d", timeofday(&now, 0));
    printf(" %d\n", now.tv_sec - before.tv_sec < 2);
    printf("time %d\n", seconds(0) - before.tv_sec < 3);
    printf("bad clock %d\n", gettime(99, &after));
    unsigned which = 99;
    printf("getcpu %d", cpu(&which, 0, 0));
    printf(" %d\n", which < 99);
    dl_iterate_phdr(seen, 0);
    if (argc > 1) {
        char line[300];
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            if (strstr(line, "[vdso]")) printf("%s", strchr(line, ' '));
        fflush(stdout);
        *(volatile char *)base = 1;
    }
    return 0;
}
