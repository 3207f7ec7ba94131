/* What a program finds at its start: arguments, environment, auxiliary vector, stack alignment. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;
static __thread int local = 5;
static __thread char zeroed[300];
static int constructed;

static void __attribute__((constructor)) first(void) { constructed = 11; }

int main(int argc, char **argv) {
    printf("argc %d\n", argc);
    for (int i = 0; i <= argc; i++) printf("argv[%d] = %s\n", i, i == 0 ? "program" : argv[i] ? argv[i] : "NULL");
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    printf("getenv %s %s\n", getenv("COLOUR"), getenv("NOTHING") ? "set" : "unset");
    setenv("NEW", "value", 1);
    printf("%s\n", getenv("NEW"));
    printf("page size %lu, clock ticks %lu, flags %lu, secure %lu\n", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK),
           getauxval(AT_FLAGS), getauxval(AT_SECURE));
    printf("phnum %lu phent %lu\n", getauxval(AT_PHNUM), getauxval(AT_PHENT));
    Elf64_Phdr *header = (Elf64_Phdr *)getauxval(AT_PHDR);
    for (unsigned i = 0; i < getauxval(AT_PHNUM); i++)
        printf("phdr %u: type %x flags %x memory %lx\n", i, header[i].p_type, header[i].p_flags, header[i].p_memsz);
    printf("platform %s\n", (char *)getauxval(AT_PLATFORM));
    printf("execfn is argv[0]: %d\n", strcmp((char *)getauxval(AT_EXECFN), argv[0]) == 0);
    uint64_t random[2];
    memcpy(random, (void *)getauxval(AT_RANDOM), 16);
    printf("random bytes: %d\n", random[0] != 0 && random[0] != random[1]);
    printf("argv above the stack pointer: %d, page aligned entry: %d\n", (char *)argv > (char *)__builtin_frame_address(0),
           getauxval(AT_ENTRY) != 0);
    printf("thread local %d %d, constructed %d, stdin %d\n", local, zeroed[299], constructed, isatty(0));
    return argc;
}
