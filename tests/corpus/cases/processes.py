"""Programs that start, time, lock, signal and connect other programs."""

from __future__ import annotations

from tests.corpus.case import one, script, shell

CASES = (
    shell("find", "names, types, formats", "find tree -type f -name '*.txt' -printf '%p %s %m\\n' | sort"),
    shell("find", "size, empty", "find . -size +3k -o -empty | sort"),
    shell("find", "-exec, -execdir, -delete", "find tree -name '*.txt' -exec cksum {} + | sort; find tree -name c.txt -execdir pwd \\; | sed s,.*/,,; find tree -empty -delete; ls -R tree"),
    shell("xargs", "batches, replacement, status", "seq 20 | xargs -n 6 echo; echo a b | xargs -I{} echo '<{}>'; echo 1 | xargs sh -c 'exit 3' || echo $?"),
    shell("xargs", "four at a time", "seq 12 | xargs -n 1 -P 4 sh -c 'sleep 0.0$0; echo $0' | sort -n | tr '\\n' ' '"),
    shell("env", "changed environment, split string", "env -u HOME X=5 sh -c 'echo ${HOME-none} $X'; env -S 'A=1 sh -c' 'echo $A'; env nosuch || echo $?"),
    shell("timeout", "ends in time, does not, dies of KILL", "timeout 5 true; echo $?; timeout 0.1 sleep 9 || echo $?; timeout -s KILL 0.1 sleep 9 || echo $?; timeout 0.1 sh -c 'trap \"echo caught; exit 2\" TERM; sleep 5 & wait' || echo $?"),
    shell("nohup", "survives a hangup", "nohup sh -c 'kill -HUP $$; echo alive' 2>/dev/null"),
    shell("nice", "lower priority", "nice -n 5 nice"),
    shell("setsid", "new session", "setsid -w sh -c 'test $$ = $(ps -o sid= -p $$ 2>/dev/null || echo $$) && echo leader; exit 3' || echo $?"),
    shell("mkfifo", "a writer and a reader", "mkfifo p; (echo through the pipe; seq 1000) >p & cksum <p; wait; rm p"),
    shell("mkfifo", "in the guest's own /tmp", "mkfifo /tmp/fifo.$$; (echo through the pipe; seq 1000) >/tmp/fifo.$$ & cksum </tmp/fifo.$$; wait; rm /tmp/fifo.$$"),
    shell("flock", "exclusive between two processes", "(flock 9; echo first >>log; sleep 0.2; echo second >>log) 9>lock & sleep 0.1; flock lock sh -c 'echo third >>log'; wait; cat log; flock -n lock flock -n lock true || echo $?"),
    shell("script", "a terminal of its own", "script -qec 'tty | cut -c1-9; stty size; echo done' log | tr -d '\\r'", volatile=("log",)),
    shell("kill", "signals by name", "sleep 9 & kill -s INT $!; sh -c 'kill -9 $$' || echo $?; /bin/kill -l 15; sleep 9 & /bin/kill $!; wait $! || echo $?", errors=False),
    shell("ps", "its own process", "ps -o comm= -p $$; ps -o ppid= -p $$ | grep -c ."),
    shell("pgrep", "children", "sleep 3 & pgrep -P $$ -x sleep | wc -l; pkill -P $$ -x sleep; wait"),
    shell("getopt", "parses options", "getopt -o ab:c -l long,with: -- -a -bval --with=x rest -c; getopt -o a -- -z || echo $?"),
    shell("id", "names itself to itself", 'test "$(id -u)" = "$(id -ru)"; id -un >/dev/null; test "$(whoami)" = "$(id -un)"; echo same'),
    shell("tput", "terminal descriptions", "TERM=xterm tput bold | od -c; TERM=xterm tput cols; TERM=vt100 tput longname"),
    one("getconf PAGESIZE", "page size"),
    one("logger --version", "version"),
    one("locale", "settings"),
    one("which cat nosuch", "a shell script"),
    shell("run-parts", "scripts of a directory", "mkdir d; cp tree/b.sh d/b; run-parts d; run-parts --list d"),
    shell("time", "of a command", "time -f %x sh -c 'exit 3' || echo $?"),
    shell("prlimit", "file size limit kills", "prlimit --fsize=1000 dd if=/dev/zero of=big bs=100 count=50 2>/dev/null || echo $?; wc -c big"),
    shell("dash", "ulimit, umask, times", "(ulimit -n 10; exec 11>x) 2>/dev/null || echo refused; umask 077; echo x >secret; mkdir private; times >/dev/null"),
    shell("dash", "a hundred short processes", "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done; echo $i", slow=True),
    shell("dash", "a ring of pipes", "seq 500 | cat | cat | cat | cat | cat | cat | md5sum"),
    shell("dash", "a reader gone: SIGPIPE", "(trap 'echo trapped >&2' PIPE; while echo line; do :; done) 2>errors | head -n 1; grep -c . errors >/dev/null; echo end"),
    script("bash", "an orphan outlives its parent", "(sleep 0.2; echo orphan >log) & disown; wait; ( (sleep 0.1; echo grandchild) & ); sleep 0.4; cat log\n"),
)  # fmt: skip
