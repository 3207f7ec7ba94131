"""dash, bash and both busyboxes."""

from __future__ import annotations

from tests.corpus.case import Case, one, script, shell

_COMMON = (
    ("builtins only", """
        f() { local x=$1; shift; echo "$x:$#:$*"; return 4; }
        f a b c; echo $?
        i=0; while [ $i -lt 300 ]; do i=$((i + 1)); case $i in *[05]) continue;; 290) break;; esac; done; echo $i
        set -- one 'two three' four; for a; do printf '<%s>' "$a"; done; echo
        v=path/to/file.tar.gz; echo ${v##*/} ${v%.*} ${v%%.*} ${v#*/} ${#v} ${u:-unset} ${v:+set}
        echo $((0x1f + 010 * 3 % 7)) $((5 > 3 && 2 < 1)) $((1 << 10 | 3))
        IFS=: ; set -- a:b::c; set -- $1; echo $# "$3"
        while getopts ab:c o -a -b val -c rest; do echo "opt $o $OPTARG"; done; echo $OPTIND
        echo *.txt tree/*/ [!a-z]*
     """),
    ("pipes and lists", """
        cat words.txt | sort | uniq -c | sort -rn -k1,1 -k2 | head -n 5
        false | true; echo $?; ! true; echo $?
        true && echo and || echo or; false && echo and || echo or
        { echo one; echo two >&2; } 2>&1 | sort -r
        for i in 1 2 3; do echo $i; done | while read x; do echo "got $x"; done
     """),
    ("here-documents and redirections", """
        name=world
        cat <<END; cat <<'END'; cat <<-END
hello $name $(echo from a command) $((6 * 7))
END
literal $name
END
	tab stripped
	END
        exec 3>out 4<words.txt; echo to three >&3; read first <&4; echo "$first"; exec 3>&- 4<&-
        cat out; echo more >>out; wc -l <out; ls nowhere 2>/dev/null || echo "status $?"
        (echo sub; exit 7); echo $?
        set -C; echo x >out || echo refused
     """),
    ("command substitution and subshells", """
        x=$(echo a; (echo b; echo $(echo c))); echo "$x"; echo `echo old \\`echo style\\``
        y=1; (y=2; echo $y); echo $y; z=$(cat words.txt | wc -l); echo $z
        cd tree; pwd | sed s,.*/,,; (cd deep; ls); cd - >/dev/null; ls | wc -l
     """),
    ("jobs in the background, wait, traps", """
        trap 'echo leaving $?' EXIT; trap 'echo got USR1' USR1; trap '' HUP
        sleep 0.05 & p=$!; (exit 3) & q=$!; wait $q; echo $?; wait $p; echo $?
        kill -USR1 $$; kill -HUP $$; echo alive
        (exec sleep 10) & sleep 0.1; kill $!; wait $!; echo $?
        (trap 'echo term; exit 5' TERM; sh -c 'kill -TERM $PPID'; sleep 5); echo $?
        for i in 3 1 2; do (sleep 0.$i; echo $i) & done; wait; echo all
        exit 9
     """),
    ("set -e and errors", """
        (set -e; false; echo never); echo $?
        (set -u; echo $undefined; echo never) 2>/dev/null; echo $?
        set -e; f() { false; }; if f; then :; else echo handled; fi
        nosuchcommand || echo $?; ./words.txt || echo $?; ./tree || echo $?
        exec cat nowhere
     """),
)  # fmt: skip
_BASH = (
    ("arrays", """
        a=(zero one "two words" [5]=five); echo ${#a[@]} "${a[2]}" "${!a[@]}" "${a[@]:1:2}"
        declare -A m=([x]=1 [y]=2); m[z]=3; for k in x y z; do echo $k=${m[$k]}; done; echo ${#m[@]}
        a+=(six); unset 'a[0]'; printf '%s;' "${a[@]}"; echo
        mapfile -t lines <people.csv; echo ${#lines[@]} "${lines[3]}"
        s="Hello World"; echo ${s^^} ${s,,} ${s/o/0} ${s//o/0} ${s:3:4} ${s: -3} ${s@Q}
     """),
    ("arithmetic, regular expressions, printf", """
        for ((i = 0, s = 0; i < 1000; i++)); do ((s += i ** 2 % 7)); done; echo $s
        [[ "key=value" =~ ^([a-z]+)=(.*)$ ]] && echo ${BASH_REMATCH[1]} ${BASH_REMATCH[2]}
        printf -v x '%08.3f|%-5s|%+d' 3.14159 ab 7; echo "$x"; printf '%(%F)T\\n' 0; echo {a..e}{1..3} {10..0..-5}
        [[ abc < abd && -f words.txt && ! -e nowhere ]] && echo yes; select x in one two; do echo $x; break; done <<<2 2>/dev/null
     """),
    ("process substitution", """
        diff <(sort words.txt) <(sort -u words.txt) | wc -l
        while read -r w; do ((n++)); done < <(cat words.txt); echo $n
        echo text | tee >(tr a-z A-Z >upper) >/dev/null; sleep 0.1; cat upper
     """),
    ("coproc, pipefail, PIPESTATUS", """
        coproc sorter { sort -r; }; printf 'a\\nb\\nc\\n' >&${sorter[1]}; exec {sorter[1]}>&-; cat <&${sorter[0]}; wait
        set -o pipefail; false | true; echo $? ; true | false | (exit 3); echo ${PIPESTATUS[@]}
        shopt -s lastpipe; echo value | read v; echo "$v"
     """),
    ("traps, jobs, wait -n", """
        trap 'echo ERR $?' ERR; false; trap 'echo debug >/dev/null' DEBUG; trap - DEBUG ERR
        sleep 0.2 & (exit 6) & wait -n; echo $?; wait; echo $?
        f() { trap 'echo return' RETURN; echo in $FUNCNAME; }; f
        (trap 'echo int; exit 1' INT; kill -INT $BASHPID; echo no); echo $?
        jobs; sleep 5 & jobs; kill %1; wait %1 2>/dev/null; echo $?; disown -a
     """),
    ("globbing and shell options", """
        shopt -s extglob globstar nullglob dotglob
        echo tree/**/*.txt; echo !(*.txt) *.nothing
        set -f; echo *; set +f; shopt -s nocasematch; [[ ABC == abc ]] && echo same
        echo ${BASH_VERSINFO[0]} | grep -c . ; type -t ls cd; hash -r; command -v cat; help true | head -n 1
     """),
    ("read with time limit, exec, namerefs", """
        read -t 0.05 x <> <(sleep 2) ; echo $(( $? > 128 )); read -n 3 y <words.txt; echo $y
        f() { local -n r=$1; r=changed; }; z=old; f z; echo $z; IFS=, read -ra parts <<<"a,b,c"; echo ${#parts[@]}
        set -- $(seq 5); echo "${@:2:3}" "${!#}"; exec {fd}<words.txt; read -u $fd w; echo $w; exec bash -c 'echo $0 $1' name arg
     """),
)  # fmt: skip
_BUSYBOX = """
    busybox seq 30 | busybox awk '{ s += $1 } END { print s }'
    busybox find tree -type f | busybox sort | busybox xargs busybox sha256sum
    busybox tar cf - tree | busybox gzip | busybox zcat | busybox tar tf - | busybox sort
    busybox sed 's/a/b/g' words.txt | busybox grep -c b; busybox cut -d, -f2 people.csv | busybox sort -n | busybox tail -n 2
    busybox find tree -name '*.txt' -exec busybox wc -c {} \\; | busybox sort
    busybox expr 3 + 4; busybox md5sum <words.txt; busybox dd if=words.txt bs=10 count=2 2>/dev/null; echo
    for i in 1 2 3; do echo $i; done | while read x; do echo "<$x>"; done
    (sleep 0.1; echo later) & echo now; wait; x=$(busybox date -u -d @0 +%F); echo $x
    busybox diff words.txt numbers.txt | busybox head -n 3; busybox bc <<END
2^64
END
    busybox cp -r tree wood; busybox rm -r tree; busybox ls -R wood; busybox printf '%s-' a b c; busybox vi -H 2>/dev/null | busybox head -n 1
"""

_PACKAGE = {"busybox": "bin/busybox"}
_DYNAMIC = f"""cat >script <<'SCRIPT'
{_BUSYBOX.strip().replace("busybox ", "./busybox ")}
SCRIPT
exec ./busybox sh script
"""


def _for(program: str, options: tuple[str, ...] = ()) -> tuple[Case, ...]:
    # What a shell says of jobs that die depends on who is faster.
    return tuple(script(program, tried, text, options, errors="jobs" not in tried) for tried, text in _COMMON)


CASES = (
    *_for("dash"),
    *_for("bash"),
    *_for("busybox", ("sh",)),
    *(script("bash", tried, text) for tried, text in _BASH),
    script("busybox", "its own tools from its own shell", _BUSYBOX, ("sh",), errors=False),
    shell("busybox", "linked dynamically, its own tools", _DYNAMIC, packages=_PACKAGE, errors=False, slow=True),
    *(shell("busybox", f"linked dynamically, {tried}", f"cat >script <<'SCRIPT'\n{text.strip()}\nSCRIPT\nexec ./busybox sh script", packages=_PACKAGE, errors="jobs" not in tried, slow=True) for tried, text in _COMMON),
    one("busybox sha256sum words.txt text.txt", "one tool"),
    shell("dash", "a script run by its first line", "printf '#!/bin/sh\\necho $0 $1; exit 3\\n' >s; chmod +x s; ./s arg || echo $?"),
    shell("bash", "login shell with a profile", "HOME=. bash --login -c 'echo $greeting' 2>/dev/null", files={".bash_profile": "greeting=hello\n"}),
)  # fmt: skip
