"""Real programs for the loader's tests, compiled once per session, and the host's kernel as oracle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

PROBE = r"""
/* Freestanding and position-independent: says what the kernel made of its address space.
   No arguments: /proc/self/maps, then the program break. "s": its stack. "p" ADDRESS SIZE: that memory. */
typedef unsigned long u64;
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
static u64 hex(const char *s) {
    u64 v = 0;
    for (; *s; s++) v = v * 16 + (*s <= '9' ? *s - '0' : *s - 'a' + 10);
    return v;
}
static void put(u64 v) {
    char text[17];
    for (int i = 15; i >= 0; i--, v >>= 4) text[i] = "0123456789abcdef"[v & 15];
    text[16] = '\n';
    call(1, 1, (long)text, 17);
}
static void dump(u64 start, u64 size) {
    while (size) {
        long n = call(1, 1, start, size);
        if (n <= 0) call(231, 9, 0, 0);
        start += n, size -= n;
    }
}
__attribute__((used)) void begin(u64 *sp) {
    char **argv = (char **)(sp + 1);
    if (sp[0] > 1 && argv[1][0] == 's') {
        dump((u64)sp, 0x7ffffffff000 - (u64)sp);
    } else if (sp[0] > 3 && argv[1][0] == 'p') {
        dump(hex(argv[2]), hex(argv[3]));
    } else {
        char buffer[4096];
        long n, fd = call(2, (long)"/proc/self/maps", 0, 0);
        while ((n = call(0, fd, (long)buffer, sizeof buffer)) > 0) dump((u64)buffer, n);
        put(call(12, 0, 0, 0));
    }
    call(231, 0, 0, 0);
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
"""

DATA = r"""
char initialized[5000] = {1, 2, 3};
char zeroed[30000];
static const char *const pointers[] = {initialized, zeroed, "text"};
const char *const *volatile use = pointers;
"""

LIBC_PROGRAM = r"""
#include <stdio.h>
__thread int counter = 7;
int main(int argc, char **argv) { printf("%d %s\n", counter + argc, argv[0]); return 0; }
"""

LIBRARY = r"""
extern int puts(const char *);
extern void nowhere(void) __attribute__((weak));
int shared_value = 42;
int other_value = 43;
__thread long local_counter = 5;
static __thread long hidden_counter[3] = {1, 2, 3};
static int chosen(void) { return 1234; }
static int (*choose(void))(void) { return chosen; }
int picked(void) __attribute__((ifunc("choose")));
static int picked_inside(void) __attribute__((ifunc("choose")));
int *pointer = &shared_value;
int *pointer_past = &shared_value + 3;
static int *inner = &other_value;
void (*maybe)(void) = nowhere;
int (*pick_pointer)(void) = picked_inside;
long work(void) {
    puts("x");
    if (nowhere) nowhere();
    return picked() + picked_inside() + local_counter + hidden_counter[2]++ + *inner + (long)pick_pointer;
}
"""

IFUNC = r"""
static int chosen(void) { return 1234; }
static int (*choose(void))(void) { return chosen; }
int picked(void) __attribute__((ifunc("choose")));
void _start(void) { picked(); }
"""

USER = r"""
extern int shared_value;
extern long work(void);
int main(void) { return shared_value + (int)work(); }
"""

FREE = ["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-O1"]
MUSL = "/usr/lib/x86_64-linux-musl"
MUSL_STATIC_PIE = ["-O1", "-static-pie", "-fPIE", "-nostdlib", "-nostdinc"]
MUSL_STATIC_PIE += ["-isystem", "/usr/include/x86_64-linux-musl"]
MUSL_STATIC_PIE += [f"{MUSL}/rcrt1.o", "@source", f"{MUSL}/libc.a", "-lgcc"]
"""musl-gcc of Debian 12 knows no -static-pie: what its specs would say."""

RECIPES: dict[str, tuple[str, str, list[str]]] = {
    "probe-static": ("gcc", PROBE + DATA, [*FREE, "-static", "-no-pie", "-fno-pie"]),
    "probe-pie": ("gcc", PROBE, [*FREE, "-static-pie", "-fPIE"]),
    "free-pie": ("gcc", PROBE + DATA, [*FREE, "-static-pie", "-fPIE"]),
    "free-relr": ("gcc", PROBE + DATA, [*FREE, "-static-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"]),
    "free-ifunc": ("gcc", IFUNC, [*FREE, "-static", "-no-pie", "-fno-pie"]),
    "free-ifunc-emit": ("gcc", IFUNC, [*FREE, "-static", "-no-pie", "-fno-pie", "-Wl,--emit-relocs"]),
    "glibc-dynamic": ("gcc", LIBC_PROGRAM, ["-O1"]),
    "glibc-static": ("gcc", LIBC_PROGRAM, ["-O1", "-static"]),
    "glibc-static-stripped": ("gcc", LIBC_PROGRAM, ["-O1", "-static", "-s"]),
    "glibc-static-pie": ("gcc", LIBC_PROGRAM, ["-O1", "-static-pie"]),
    "glibc-static-pie-stripped": ("gcc", LIBC_PROGRAM, ["-O1", "-static-pie", "-s"]),
    "musl-static": ("musl-gcc", LIBC_PROGRAM, ["-O1", "-static"]),
    "musl-dynamic": ("musl-gcc", LIBC_PROGRAM, ["-O1"]),
    "musl-static-pie": ("gcc", LIBC_PROGRAM, MUSL_STATIC_PIE),
    "musl-static-pie-stripped": ("gcc", LIBC_PROGRAM, ["-s", *MUSL_STATIC_PIE]),
    "library": ("gcc", LIBRARY, ["-O1", "-shared", "-fPIC", "-Wl,-z,now", "-Wl,--hash-style=gnu"]),
    "library-relr": ("gcc", LIBRARY, ["-O1", "-shared", "-fPIC", "-Wl,-z,pack-relative-relocs",
                                      "-Wl,--hash-style=sysv"]),
    "library-ie": ("gcc", LIBRARY, ["-O1", "-shared", "-fPIC", "-ftls-model=initial-exec"]),
    "user": ("gcc", USER, ["-O1", "-no-pie", "-fno-pie", "@library"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile a recipe by name, once; skips the test when its compiler is missing or cannot."""
    directory = tmp_path_factory.mktemp("programs")

    @cache
    def make(name: str) -> Path:
        compiler, source, options = RECIPES[name]
        if sys.platform != "linux" or shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not here")
        code, target = directory / f"{name}.c", directory / name
        code.write_text(source)
        arguments = [str(code) if option == "@source" else option for option in options]
        if "@source" not in options:
            arguments.insert(0, str(code))
        arguments = [str(make(a[1:])) if a.startswith("@") else a for a in arguments]
        done = subprocess.run([compiler, *arguments, "-o", str(target)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{compiler} cannot build {name}: {done.stderr.splitlines()[-1]}")
        return target

    return make


@pytest.fixture(scope="session")
def fixed() -> list[str]:
    """The command prefix that runs a program without address-space randomization on the host."""
    setarch = shutil.which("setarch")
    if sys.platform != "linux" or setarch is None:
        pytest.skip("no Linux host with setarch")
    return [setarch, "x86_64", "-R"]
