"""Interpreters and sqlite3; CPython has a table of its own."""

from __future__ import annotations

from tests.corpus.case import one, script, shell

_LUA = """
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(fib(15), 7 // 2, 7 / 2, 2^53, 10 % 3, "x" .. 1, #"abc", 1 << 40)
local t = setmetatable({}, {__index = function(_, k) return k * 2 end, __call = function(_, a) return a + 1 end})
print(t[21], t(1)); t = {}
for w in io.lines("words.txt") do t[w] = (t[w] or 0) + 1 end
local keys = {}; for k in pairs(t) do keys[#keys + 1] = k end; table.sort(keys)
for i = 1, 5 do print(keys[i], t[keys[i]]) end
local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end); print(co(), co(), co())
print(pcall(error, {code = 1}), select("#", 1, 2, 3), string.format("%5.1f|%q|%x", 3.14159, "a\\nb", 255))
print(("hello world"):gsub("o", "0"), ("key=val"):match("(%w+)=(%w+)"), os.date("!%F", 0), os.getenv("TZ"))
local f = assert(io.open("out", "w")); f:write("text ", 42, "\\n"); f:seek("set", 0); f:write("T"); f:close()
print(math.maxinteger, math.type(1.0), utf8.char(228, 8364), string.pack("<i4", 7):byte(1, -1))
os.exit(5)
"""
_PERL = """
use strict; use warnings; use List::Util qw(sum max); use POSIX qw(floor strftime :sys_wait_h);
my %count; open(my $in, '<', 'people.csv') or die; <$in>;
while (<$in>) { chomp; my ($n, $a, $c) = split /,/; push @{$count{$c}}, $a }
printf "%-6s %3d %6.2f\\n", $_, scalar @{$count{$_}}, sum(@{$count{$_}}) / @{$count{$_}} for sort keys %count;
my $text = do { local $/; open(my $f, '<', 'text.txt') or die; <$f> };
my @w = $text =~ /\\b(ba\\w+)\\b/g; print scalar(@w), " @w[0..3]\\n"; (my $t = $text) =~ tr/a-z//cd; print length $t, "\\n";
print join(',', map { $_ ** 2 } grep { $_ & 1 } 1..9), "\\n"; print "yes\\n" if 'foobar' =~ /^(?<x>foo)(?=bar)/ && $+{x} eq 'foo';
print sprintf('%s %05.1f %x %e %vd', 'a', 2.25, 255, 12345.678, '1.22.333'), "\\n"; print strftime('%F', gmtime 0), "\\n";
my @s = sort { $b <=> $a || $a cmp $b } qw(3 10 2); print "@s\\n"; eval { die { code => 7 } }; print $@->{code}, "\\n";
my $r = pack('NnC a4', 1, 2, 3, 'ab'); print unpack('H*', $r), "\\n"; local $, = '-'; print reverse(1..3); print "\\n";
open(my $o, '>', 'out') or die; print $o "written\\n"; close $o; print -s 'out', "\\n"; warn "to stderr\\n"; exit 6;
"""
_PERL_FORK = """
use strict; use Socket; use IO::Handle; use IO::Select; $| = 1;
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair $!"; $_->autoflush(1) for $a, $b;
my $pid = fork; die unless defined $pid;
if (!$pid) { close $a; while (my $l = <$b>) { print $b uc $l } exit 3 }
close $b; print $a "hello\\n"; print scalar <$a>; print $a "again\\n"; print scalar <$a>; close $a; waitpid $pid, 0; print $? >> 8, "\\n";
pipe(my $r, my $w); my @kids; for my $n (1..4) { my $k = fork; if (!$k) { print $w "kid $n\\n"; exit $n } push @kids, $k } close $w;
print sort <$r>; my $sum = 0; for (@kids) { waitpid $_, 0; $sum += $? >> 8 } print "$sum\\n";
print `echo backticks; exit 4`; print $? >> 8, "\\n"; system('exit 5;'); print $? >> 8, "\\n";
open(my $p, '-|', 'sort', '-r', 'tree/deep/er/c.txt') or die; my @l = <$p>; close $p; print scalar @l, "\\n";
$SIG{ALRM} = sub { die "alarm\\n" }; eval { alarm 1; select(undef, undef, undef, 10); }; print $@;
$SIG{CHLD} = sub { print "child ended\\n" }; my $k = fork; exit 0 unless $k; sleep 1 while waitpid($k, 0) < 0; kill 0, $$ or die; print "end\\n";
"""
_SQL = """
.bail on
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, value REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
INSERT INTO t SELECT i, 'name' || (i * 7919 % 10007), i * 1.5 FROM n;
COMMIT;
CREATE INDEX by_name ON t (name);
SELECT count(*), sum(value), min(name), max(name) FROM t;
SELECT id FROM t WHERE name = 'name77';
EXPLAIN QUERY PLAN SELECT id FROM t WHERE name = 'name77';
UPDATE t SET value = -value WHERE id % 100 = 0; DELETE FROM t WHERE id > 9000;
SELECT id % 7 AS g, count(*), round(avg(value), 3) FROM t GROUP BY g ORDER BY 2 DESC, 1 LIMIT 3;
PRAGMA integrity_check; VACUUM; PRAGMA page_count;
"""
_LOCKS = """
sqlite3 t.db 'CREATE TABLE t (who, n)'
for who in a b; do
    (for n in 1 2 3 4; do echo ".timeout 20000
BEGIN IMMEDIATE; INSERT INTO t VALUES ('$who', $n); COMMIT;"; done | sqlite3 t.db) &
done; wait
sqlite3 t.db 'SELECT who, count(*), sum(n) FROM t GROUP BY who; PRAGMA integrity_check'
sqlite3 t.db 'PRAGMA journal_mode = wal; INSERT INTO t VALUES (1, 2); SELECT count(*) FROM t'
"""
_TCL = """
proc fact n { expr {$n < 2 ? 1 : $n * [fact [expr {$n - 1}]]} }
puts [fact 25]; set d [dict create a 1 b 2]; dict incr d a 5; puts $d; puts [lsort -integer -decreasing {3 11 2}]
set f [open words.txt]; set l [split [string trim [read $f]] \\n]; close $f; puts [llength $l]; puts [lindex [lsort -unique $l] 3]
puts [regsub -all {(\\w)o} "foo boo" {<\\1>}]; puts [catch {error bad} m]$m; puts [exec echo from exec | tr a-z A-Z]
after 50 {set done 1}; vwait done; puts [clock format 0 -gmt 1 -format %Y]; exit 3
"""

CASES = (
    script("lua5.4", "language, files, patterns, coroutines", _LUA),
    shell("lua5.4", "pipes to and from commands", "lua5.4 -e 'local p = io.popen(\"sort -r words.txt\"); print(p:read(\"l\")); print(p:close()); print(os.execute(\"exit 3\"))'"),
    script("perl", "regular expressions, hashes, files, formats", _PERL),
    script("perl", "fork, socketpair, pipes, alarm, SIGCHLD", _PERL_FORK),
    one("perl -MDigest::SHA=sha256_hex -MMIME::Base64 -MStorable=dclone -MTime::HiRes=sleep -e 'sleep 0.01; print sha256_hex(\"x\"), encode_base64(\"abc\"), dclone([1, 2])->[1]'", "extension modules"),
    shell("perl", "in-place edits, one-liners", "perl -pi -e 's/(\\w+),(\\d+)/$2,$1/' people.csv; perl -lane 'print $F[0] if $. < 4' text.txt"),
    script("perl", "threads", "use threads; use threads::shared; my $n :shared = 0; my @t = map { threads->create(sub { for (1..50) { lock $n; $n++ } $_[0] * 2 }, $_) } 1..3; print join(',', map { $_->join } @t), \" $n\\n\";\n"),
    shell("sqlite3", "10,000 rows, index, queries, integrity", "sqlite3 t.db <q.sql", files={"q.sql": _SQL.lstrip()}, volatile=("t.db",)),
    shell("sqlite3", "two writers with locks, write-ahead log", _LOCKS, volatile=("t.db",), slow=True),
    one("sqlite3 -json :memory: 'SELECT 1 AS a, json_extract(\"{}\", \"$\") AS b, printf(\"%.3f\", sqrt(2)) AS c'", "JSON and mathematics in memory"),
    script("tclsh", "procedures, files, exec, event loop", _TCL),
    one("node -e 'console.log(1)'", "starts", slow=True),
)  # fmt: skip
