"""Compilers, binary tools, make and git."""

from __future__ import annotations

from tests.corpus.case import one, shell

_HELLO = '#include <stdio.h>\nint main(int argc, char **argv) { printf("hello %d %s\\n", argc, argv[1]); return 7; }\n'
_ASM = """
.globl _start
.text
_start: mov $1, %eax; mov $1, %edi; lea text(%rip), %rsi; mov $6, %edx; syscall; mov $60, %eax; mov $5, %edi; syscall
.data
text: .ascii "as+ld\\n"
"""
_MAKE = """
all: one two three
	@echo linked $^ in $(notdir $(CURDIR)) | sed 's/in .*/in x/'
one two:
	@sleep 0.05; echo $@ >$@
three: sub/done
	@cat $< >$@
sub/done:
	@$(MAKE) --no-print-directory -C sub done
broken:
	@false
"""
_SUB = "done: a b\n\t@cat a b >done\na b:\n\t@echo $@ >$@\n"
_GIT = """
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' HOME=$PWD
git init -q -b main r; cd r; git config user.name N; git config user.email e@example.org; git config gc.auto 0
cp -r ../tree ../words.txt .; git add .; git commit -q -m first; echo more >>words.txt; git diff --stat; git commit -qam second
git log --format='%h %an %s'; git status --short; git checkout -q -b side HEAD~1; echo side >s; git add s; git commit -qm side
git merge -q -m merged main; git log --oneline --graph | head; git ls-files -s; git show HEAD:tree/a.txt; git rev-parse HEAD
"""
_GIT_MORE = """
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' HOME=$PWD
git init -q -b main r; cd r; git config user.name N; git config user.email e@example.org; cp ../words.txt .; git add .; git commit -qm first
git tag v1; sed -i 5d words.txt; git stash -q; git stash pop -q; git diff; git commit -qam second; git blame -s words.txt | head -n 2
cd ..; git clone -q r copy; cd copy; git log --oneline; git fsck --strict; git gc -q; git count-objects; git archive v1 | tar -t; git grep -c ba
"""
_OBJECTS = ("s.o", "s", "hello", "hello.o", "lib*", "main")
_LIB = "gcc -fPIC -shared -o libf.so f.c; gcc -c f.c; ar rcD libf.a f.o; gcc -o main main.c -L. -lf -Wl,-rpath,.; ./main; nm -D libf.so | grep f$"

_CLOCK = ("--clock", "host")
"""With a seed the guest lives in January 2024, and make wonders at files from the future."""

CASES = (
    one("as -o s.o s.s", "assembles", files={"s.s": _ASM}),
    shell("ld", "assembled, linked and run", "as -o s.o s.s; ld -o s s.o; ./s || echo $?", files={"s.s": _ASM}, needs=("as",)),
    one("objdump -d -M intel --no-show-raw-insn --stop-address=0x2500 /bin/true", "disassembles"),
    one("objdump -h -p /bin/cat", "headers"),
    one("readelf -h -l -d /bin/cat", "headers, segments, dynamic section"),
    one("nm -D --defined-only /lib/x86_64-linux-gnu/libm.so.6", "symbols", modules=("/lib/x86_64-linux-gnu/libm.so.6",)),
    one("strings -n 8 /bin/true", "finds text"),
    one("size /bin/true /bin/cat", "sections"),
    one("objcopy -O binary -j .rodata /bin/true ro", "one section"),
    one("strip -o true.stripped /bin/true", "strips"),
    one("ldd --version", "a bash script"),
    shell("gcc", "hello: compiled, linked and run", "gcc -o hello hello.c; ./hello world || echo $?", files={"hello.c": _HELLO}, slow=True),
    shell("gcc", "compiles without linking", "gcc -O2 -c hello.c; gcc -S -o - hello.c | grep -c call", files={"hello.c": _HELLO}, slow=True),
    shell("gcc", "reports an error", "gcc -c bad.c", files={"bad.c": "int main(void) { return x; }\n"}),
    shell("gcc", "shared and static library", _LIB, files={"f.c": "int f(void) { return 42; }\n", "main.c": "#include <stdio.h>\nint f(void);\nint main(void) { printf(\"%d\\n\", f()); return 0; }\n"}, slow=True),
    shell("musl-gcc", "static hello", "musl-gcc -static -o hello hello.c; ./hello world || echo $?", files={"hello.c": _HELLO}, slow=True),
    shell("make", "jobs in parallel, recursive", "make -j2 -s; cat three; make -s; make -n one; make broken || echo $?", files={"Makefile": _MAKE, "sub/Makefile": _SUB}, options=_CLOCK),
    one("make -s -f m", "functions and variables", files={"m": "L := $(sort b a c)\n$(info $(words $(L)) $(patsubst %,%.o,$(L)) $(shell echo from the shell))\nall: ; @:\n"}, options=_CLOCK),
    shell("git", "init, add, commit, branch, merge, log", _GIT, volatile=("r/.git/index", "r/.git/logs/*"), slow=True),
    shell("git", "stash, blame, clone, gc, archive", _GIT_MORE, volatile=("*/.git/*",), slow=True),
    shell("git", "init and hash-object", "HOME=$PWD git init -q -b main r; git hash-object words.txt; cd r; git hash-object -w ../text.txt; git cat-file -s $(git hash-object ../text.txt)"),
    one("git diff --no-index --no-color words.txt numbers.txt", "differences of two files"),
)  # fmt: skip
