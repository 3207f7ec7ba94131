"""Programs that read and change text."""

from __future__ import annotations

from tests.corpus.case import one, script, shell

_GAWK = """
BEGIN { FS = ","; PROCINFO["sorted_in"] = "@ind_str_asc" }
NR > 1 { count[$3]++; sum[$3] += $2; if ($2 > best) { best = $2; who = $1 } }
function pad(text, width) { return sprintf("%-" width "s|", text) }
END {
    for (colour in count) print pad(colour, 8), count[colour], sprintf("%.2f", sum[colour] / count[colour])
    print who, best, length(count)
    n = split("3 1 2", parts, " "); asort(parts); print parts[1] parts[2] parts[3]
    print gensub(/(.)(.)/, "\\\\2\\\\1", "g", "abcdef"), toupper(substr("hello", 2, 3)), strtonum("0x1f")
    "echo from a command" | getline line; print line
    print "to a command" | "cat -n"; close("cat -n")
    print strftime("%Y-%m-%d", 86400 * 365, 1)
    printf "%s %d %5.2f %c\\n", "text", 42, 3.14159, 65 > "made.txt"
    exit 3
}
"""
_DIFF = "sed 's/,red/,RED/; 20d; 30a new line' people.csv >other.csv; diff -u --label a --label b people.csv other.csv"
_FLEX = r"""
%option noyywrap
%{
int words, lines;
%}
%%
[a-z]+   words++;
\n       lines++;
.        ;
%%
int main(void) { yylex(); printf("%d %d\n", words, lines); return 0; }
"""
_BISON = r"""
%{
#include <ctype.h>
#include <stdio.h>
int yylex(void); void yyerror(const char *text) { puts(text); }
%}
%token NUMBER
%left '+' '-'
%left '*'
%%
input: | input line;
line: '\n' | expression '\n' { printf("%d\n", $1); };
expression: NUMBER | expression '+' expression { $$ = $1 + $3; } | expression '*' expression { $$ = $1 * $3; }
          | '(' expression ')' { $$ = $2; };
%%
int yylex(void) { int c = getchar(); if (isdigit(c)) { yylval = c - '0'; return NUMBER; } return c == EOF ? 0 : c; }
int main(void) { return yyparse(); }
"""

CASES = (
    one("grep -n -E ^(ba|zo)+.a words.txt", "extended expressions, line numbers"),
    one("grep -c -i -w BACO words.txt text.txt", "counts, whole words, case"),
    shell("grep", "recursive, names only", "grep -r -l a tree | sort"),
    one("grep -P '(?<=ba)\\w{2}$' words.txt", "Perl expressions"),
    one("grep -o -b --color=always [a-c]o words.txt", "matches only, offsets, colours"),
    one("grep nothing-like-that words.txt", "finds nothing"),
    one("grep -A1 -B1 -F fox text.txt nowhere", "context, a missing file"),
    one("sed -n -e 2,4p -e '/red$/{s/,/;/g;p}' people.csv", "ranges and substitution"),
    one("sed -i.bak s/a/A/2;y/xyz/XYZ/ words.txt", "edits in place, keeps a copy"),
    one("sed -E ':a;N;$!ba;s/\\n/+/g;h;G' numbers.txt", "loops and hold space"),
    one("sed -s -n -e '1{F;w first' -e '}' -e '$=' words.txt people.csv", "several files, writes one"),
    shell("sed", "executes a command", "sed '1e echo from the shell' tree/a.txt"),
    script("gawk", "arrays, functions, commands, files", _GAWK, ("-f",), files={}, needs=("cat",)),
    shell("gawk", "reads fields by width", "gawk 'BEGIN { FIELDWIDTHS = \"2 2 2\" } { print $2 \"-\" $1 }' words.txt"),
    shell("gawk", "two-way pipe to a coprocess", "gawk 'BEGIN { c = \"sort -r\"; print \"a\\nb\" |& c; close(c, \"to\"); while ((c |& getline x) > 0) print x }'"),
    one("mawk -F, '$2 > 50 { n++; s = s $1 } END { print n, length(s), substr(s, 1, 9), 2 ^ 10, sin(1) }' people.csv", "sums and strings"),
    shell("diff", "unified", _DIFF),
    one("diff -r tree tree/deep", "directories"),
    one("diff -y -W 60 words.txt numbers.txt", "side by side"),
    shell("patch", "applies and takes back", f"{_DIFF} >p || true; patch people.csv p; cmp people.csv other.csv; patch -R people.csv p; ls"),
    shell("patch", "rejects a hunk", f"{_DIFF} >p || true; sed -i 19,21d people.csv; patch -f people.csv p || ls", needs=("diff",)),
    one("cmp words.txt text.txt", "finds the first difference"),
    one("cmp -l tree/a.txt tree/b.sh", "lists all differences"),
    shell("bc", "200 digits of pi", "echo 'scale=200; 4*a(1)' | bc -l"),
    shell("bc", "functions and loops", "printf 'define f(n) { if (n < 2) return n; return f(n-1) + f(n-2) }\\nfor (i = 0; i < 15; i++) f(i)\\n2^300\\nobase=16; 255\\n' | bc"),
    one("dc -e '100k 2 v p [la1+dsa*pla10>y]sy 0sa1 lyx'", "square root, macro"),
    one("file words.txt tree tree/b.sh tree/link /bin/true", "text, directory, script, link, ELF", modules=("/usr/share/misc/magic.mgc",)),
    one("column -t -s, people.csv", "a table"),
    one("rev words.txt", "reverses lines"),
    one("hexdump -C -n 100 text.txt", "canonical"),
    one("xxd -l 100 text.txt", "hex"),
    shell("xxd", "and back", "xxd text.txt | xxd -r | cmp - text.txt"),
    shell("m4", "macros, recursion, include", "printf 'define(`f'\\'', `ifelse($1, 0, done, `$1 f(decr($1))'\\'')'\\'')f(5)\\ninclude(tree/a.txt)syscmd(echo shell)eval(3 ** 7)\\n' | m4"),
    shell("ed", "edits a file", "printf '1,3p\\n/red/s//RED/p\\n$a\\nlast\\n.\\n,s/green/GREEN/\\nw new.csv\\nq\\n' | ed -s people.csv"),
    shell("vim", "silent, a script of ex commands", "vim -u NONE -es -c '%s/red/RED/' -c 'g/blue/d' -c 'normal Goend' -c 'w new.csv' -c 'q!' people.csv || echo $?; wc new.csv", slow=True, errors=False),
    one("jq -n -c '[range(10)] | map(select(. % 2 == 1) * 3) | {sum: add, all: ., text: (map(tostring) | join(\"-\"))}'", "filters"),
    one("less words.txt", "prints when not on a terminal"),
    one("iconv -f UTF-8 -t UTF-16LE tree/a.txt", "UTF-16"),
    shell("look", "binary search", "sort -u words.txt >s; look ba s"),
    shell("flex", "a scanner, compiled and run", "flex -o s.c s.l; gcc -w -o s s.c; ./s <text.txt", files={"s.l": _FLEX.lstrip()}, needs=("gcc", "m4"), volatile=("s",), slow=True),
    shell("bison", "a parser, compiled and run", "bison -o p.c p.y; gcc -w -o p p.c; printf '1+2*3\\n(1+2)*3\\n' | ./p", files={"p.y": _BISON.lstrip()}, needs=("gcc", "m4"), volatile=("p",), slow=True),
)  # fmt: skip
