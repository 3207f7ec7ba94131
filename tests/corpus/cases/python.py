"""CPython and its standard library: threads, processes, sockets, databases."""

from __future__ import annotations

from tests.corpus.case import Case

_SCRIPTS = (
    ("json, hashlib, re, decimal, itertools", """
import collections, decimal, hashlib, itertools, json, math, re, struct, zlib, base64, datetime, fractions, textwrap
words = open("words.txt").read().split()
print(json.dumps(collections.Counter(words).most_common(3), indent=1), hashlib.sha3_256(b"x").hexdigest())
print(hashlib.md5(open("text.txt", "rb").read()).hexdigest(), zlib.crc32(b"abc"), zlib.decompress(zlib.compress(b"a" * 99))[:3])
print(decimal.Decimal(2).sqrt(), fractions.Fraction(1, 3) + 1, math.factorial(30), re.findall(r"b(a.)", " ".join(words))[:4])
print(list(itertools.islice(itertools.permutations("abc"), 3)), struct.pack("<Id", 7, 1.5), base64.b85encode(b"text"))
print(datetime.datetime.fromtimestamp(0, datetime.timezone.utc).isoformat(), f"{3.14159:08.3f} {255:#x}", 2 ** 200 % 997)
print(json.loads('{"a": [1, 2.5, null, true, "\\\\u00e4"]}'), textwrap.fill("word " * 20, 30), sorted(set(words))[:3])
class Point:
    def __init__(self, x): self.x = x
    def __add__(self, other): return Point(self.x + other.x)
print((Point(1) + Point(2)).x, [*map(lambda n: n * n, range(5))], {**{"a": 1}, "b": 2})
try: {}["missing"]
except KeyError as error: print(repr(error))
raise SystemExit(4)
"""),
    ("a traceback", """
def f(n): return 1 / n if n == 0 else f(n - 1)
f(3)
"""),
    ("subprocess: pipes, timeouts, signals", """
import subprocess, signal, sys, os
print(subprocess.run(["sort", "-r"], input="a\\nb\\n", text=True, capture_output=True).stdout.split())
print(subprocess.run("echo out; echo err >&2; exit 3", shell=True, capture_output=True))
p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE); print(p.communicate(b"text" * 50000)[0][-4:], p.returncode)
try: subprocess.run(["sleep", "30"], timeout=0.1)
except subprocess.TimeoutExpired: print("timeout")
p = subprocess.Popen(["sleep", "30"]); p.send_signal(signal.SIGTERM); print(p.wait())
try: subprocess.run(["/nonexistent"])
except FileNotFoundError as error: print(error)
print(subprocess.check_output([sys.executable, "-c", "import os; print(os.environ['X'], os.getcwd() != '/')"], env={"X": "1"}, cwd="tree"))
pid = os.fork()
if not pid: os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); r, w = os.pipe()
if not os.fork(): os.write(w, b"from the child"); os._exit(0)
os.close(w); print(os.read(r, 99), os.wait()[1])
"""),
    ("threading: locks, conditions, queues, events, timers", """
import threading, queue, time, concurrent.futures
q, results, lock = queue.Queue(3), [], threading.Lock()
def work(n):
    while (item := q.get()) is not None:
        with lock: results.append(item * item)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for i in range(100): q.put(i)
for t in threads: q.put(None)
for t in threads: t.join()
print(sum(results), len(results)); e = threading.Event(); threading.Timer(0.05, e.set).start(); print(e.wait(5), e.is_set())
with concurrent.futures.ThreadPoolExecutor(3) as pool: print(list(pool.map(lambda x: x + 1, range(9))))
b = threading.Barrier(3); out = []
def meet(): b.wait(); out.append(1)
ts = [threading.Thread(target=meet) for _ in range(3)]; [t.start() for t in ts]; [t.join() for t in ts]; print(len(out))
local = threading.local(); local.x = 1; t = threading.Thread(target=lambda: print(hasattr(local, "x"))); t.start(); t.join()
print(lock.acquire(timeout=0.01), lock.acquire(timeout=0.01), threading.active_count()); s = threading.Semaphore(2); s.acquire(); time.sleep(0.01)
"""),
    ("multiprocessing: pool, queue, shared values", """
import multiprocessing as mp
def square(n): return n * n
def feed(q, v, a):
    for i in range(5): q.put(i)
    with v.get_lock(): v.value += 10
    a[1] = 2.5
if __name__ == "__main__":
    mp.set_start_method("fork")
    with mp.Pool(2) as pool: print(pool.map(square, range(10)))
    q, v, a = mp.Queue(), mp.Value("i", 1), mp.Array("d", 3); p = mp.Process(target=feed, args=(q, v, a)); p.start()
    print([q.get() for _ in range(5)]); p.join(); print(p.exitcode, v.value, a[:])
    here, there = mp.Pipe(); p = mp.Process(target=lambda c: c.send({"x": [1, 2]}), args=(there,)); p.start(); print(here.recv()); p.join()
"""),
    ("sqlite3 module", """
import sqlite3
c = sqlite3.connect("t.db"); c.execute("create table t (a integer primary key, b text)")
with c: c.executemany("insert into t (b) values (?)", [(w.strip(),) for w in open("words.txt")])
print(c.execute("select count(*), min(b), max(b) from t").fetchone(), c.execute("pragma integrity_check").fetchone())
c.create_function("twice", 1, lambda x: x * 2); print(c.execute("select twice(b) from t where a = 5").fetchall())
try: c.execute("insert into t values (1, 'again')")
except sqlite3.IntegrityError as error: print(error)
c.close()
"""),
    ("tempfile, shutil, pathlib, zipfile, tarfile, glob", """
import tempfile, shutil, pathlib, zipfile, tarfile, glob, os, gzip, lzma, bz2, io, stat, filecmp, fnmatch
with tempfile.TemporaryDirectory(dir=".") as d:
    p = pathlib.Path(d); shutil.copytree("tree", p / "t", symlinks=True); print(sorted(str(x.relative_to(p)) for x in p.rglob("*")))
    with zipfile.ZipFile(p / "z.zip", "w", zipfile.ZIP_DEFLATED) as z: z.write("words.txt"); z.writestr("made", "up")
    with zipfile.ZipFile(p / "z.zip") as z: print(z.namelist(), z.testzip(), z.read("made"))
    with tarfile.open(p / "t.tar.xz", "w:xz") as t: t.add("tree")
    with tarfile.open(p / "t.tar.xz") as t: print(sorted(t.getnames())); t.extractall(p / "x")
    print(filecmp.cmp("tree/a.txt", p / "x/tree/a.txt"), len(gzip.compress(b"a" * 1000)) < 50, lzma.decompress(lzma.compress(b"abc")), bz2.compress(b"")[:2])
with tempfile.NamedTemporaryFile("w+") as f: f.write("x"); f.flush(); print(os.stat(f.name).st_size, stat.filemode(os.stat(f.name).st_mode))
with tempfile.TemporaryFile() as f: f.write(b"gone"); f.seek(0); print(f.read())
os.rename("words.txt", "w2"); os.symlink("w2", "s"); os.link("w2", "h"); print(os.readlink("s"), os.stat("h").st_nlink, sorted(glob.glob("tree/**/*.txt", recursive=True)))
os.utime("w2", (5, 6)); print(os.stat("w2").st_mtime, sorted(e.name for e in os.scandir("tree")), os.access("w2", os.X_OK), shutil.disk_usage(".").total > 0)
"""),
    ("asyncio: tasks, streams, subprocess, timeouts", """
import asyncio, sys, os
async def sub(n): await asyncio.sleep(0.02 * n); return n * 10
async def main():
    print(await asyncio.gather(*(sub(n) for n in (3, 1, 2))))
    try: await asyncio.wait_for(asyncio.sleep(10), 0.05)
    except asyncio.TimeoutError: print("timeout")
    p = await asyncio.create_subprocess_exec("sort", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    print((await p.communicate(b"b\\na\\n"))[0], p.returncode)
    async def serve(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()
    s = await asyncio.start_unix_server(serve, "\\0corpus-a"); r, w = await asyncio.open_unix_connection("\\0corpus-a")
    w.write(b"hello\\n"); print(await r.readline()); w.close(); s.close()
    print(await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2, 3])); q = asyncio.Queue(); await q.put(1); print(await q.get())
asyncio.run(main())
"""),
    ("socketpair, select, poll, epoll", """
import socket, select, selectors, threading
a, b = socket.socketpair(); a.sendall(b"ping"); print(b.recv(10)); print(select.select([a], [a], [], 0)[1] == [a]); b.close(); print(a.recv(1)); a.close()
s = socket.socket(socket.AF_UNIX); s.bind("\\0corpus-b"); s.listen()
def serve(): c, _ = s.accept(); c.sendall(c.recv(99)[::-1]); c.close()
t = threading.Thread(target=serve); t.start(); c = socket.socket(socket.AF_UNIX); c.connect("\\0corpus-b"); c.sendall(b"abc"); print(c.recv(9)); t.join(); c.close(); s.close()
x, y = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); x.send(b"one"); x.send(b"two"); print(y.recv(9), y.recv(9))
e = select.epoll(); e.register(y, select.EPOLLIN); print(e.poll(0)); x.send(b"3"); print(len(e.poll(1))); p = select.poll(); p.register(y); print(p.poll(0)[0][1] & select.POLLIN)
y.recv(9); y.setblocking(False); r, w = socket.socketpair(); socket.send_fds(r, [b"fd"], [0]); print(socket.recv_fds(w, 9, 1)[0])
try: y.recv(1)
except BlockingIOError as error: print(error)
"""),
    ("signal handlers, alarms, masks", """
import signal, os, time
def handler(n, frame): print("got", signal.Signals(n).name)
signal.signal(signal.SIGUSR1, handler); os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2); print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]))
print(signal.sigtimedwait([signal.SIGUSR2], 0.01)); signal.alarm(1); time.sleep(0.01); print(signal.alarm(0))
pid = os.fork()
if not pid: signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT); os._exit(1)
print(os.waitpid(pid, 0)[1]); os.kill(os.getpid(), signal.SIGKILL)
"""),
    ("ctypes, mmap, resource, locale, uuid, random", """
import ctypes, mmap, os, random, resource, uuid, locale, platform, secrets, time, math
libc = ctypes.CDLL(None); print(libc.abs(-5), ctypes.CDLL("libm.so.6").floor is not None); libc.strlen.argtypes = [ctypes.c_char_p]; print(libc.strlen(b"four"))
cb = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda a, b: a[0] - b[0])
arr = (ctypes.c_int * 5)(3, 1, 5, 2, 4); libc.qsort(arr, 5, 4, cb); print(list(arr))
with open("words.txt", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[:4] = b"MMAP"; m.flush(); print(m.find(b"\\n"), len(m)); m.close()
m = mmap.mmap(-1, 8192)
if not os.fork(): m[:5] = b"child"; os._exit(0)
os.wait(); print(m[:5]); random.seed(1); print(random.random(), random.sample(range(100), 4), len(secrets.token_hex(8)), uuid.UUID(int=5))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 10, platform.machine(), time.strftime("%F", time.gmtime(0)), time.monotonic() > 0, math.gamma(5))
"""),
    ("fcntl locks, pwd, os calls", """
import fcntl, os, pty, pwd, struct, errno, termios, tty
f = open("lock", "w"); fcntl.flock(f, fcntl.LOCK_EX)
pid = os.fork()
if not pid:
    g = open("lock", "w")
    try: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except BlockingIOError: os._exit(0)
print(os.waitpid(pid, 0)[1]); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print(fcntl.fcntl(f, fcntl.F_GETFL) & os.O_ACCMODE, pwd.getpwuid(0).pw_name)
print(os.getpid() == os.getpgrp() or True, os.umask(0o22), os.path.exists("/proc/self/maps"), os.sysconf("SC_PAGESIZE"), sorted(os.listdir("/proc/self/fd"))[:3])
for call in (lambda: os.open("nowhere", 0), lambda: os.mkdir("tree"), lambda: os.rmdir("tree"), lambda: os.read(99, 1), lambda: os.kill(4000000, 0), lambda: os.listdir("words.txt")):
    try: call()
    except OSError as error: print(errno.errorcode[error.errno], error)
print(os.pread(os.open("words.txt", 0), 5, 10), os.get_terminal_size is not None, os.sched_getaffinity(0) is not None, os.memfd_create("m") > 2)
"""),
    ("pty", """
import os, pty, tty
m, s = pty.openpty(); os.write(s, b"line\\n"); print(os.read(m, 99), os.isatty(s), os.ttyname(s).startswith("/dev/pts/"))
tty.setraw(s); os.write(m, b"x"); print(os.read(s, 1))
"""),
    ("a socket in the file system", """
import socket
s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect("sock"); print(s.accept() is not None)
"""),
    ("http.server and urllib on the loopback", """
import http.server, threading, urllib.request
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"path " + self.path.encode())
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H); threading.Thread(target=s.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/x").read()); s.shutdown()
"""),
    ("unittest and doctest", """
import unittest, doctest, logging, argparse, csv, configparser, pickle, copy, dataclasses, enum, functools, heapq, bisect, typing, inspect, io
@dataclasses.dataclass(order=True)
class D: a: int; b: str = "x"
class T(unittest.TestCase):
    def test_pickle(self): self.assertEqual(pickle.loads(pickle.dumps(D(1))), D(1))
    def test_csv(self): self.assertEqual(len(list(csv.DictReader(open("people.csv")))), 60)
    @unittest.expectedFailure
    def test_bad(self): self.fail()
out = io.StringIO(); r = unittest.TextTestRunner(out).run(unittest.defaultTestLoader.loadTestsFromTestCase(T)); print(r, functools.reduce(lambda a, b: a * b, range(1, 9)))
"""),
)  # fmt: skip

_FAILS = {
    "http.server and urllib on the loopback": "there is no network: AF_INET sockets are refused",
}
_PYTHON = "/usr/bin/python3"
_SLOW = ("multiprocessing", "asyncio", "http.server", "subprocess")

CASES = tuple(
    Case("python3", tried, (_PYTHON, "-B", "script"), {"script": text.lstrip()}, modules=(_PYTHON,),
         volatile=("t.db",), slow=tried.startswith(_SLOW), fails=_FAILS.get(tried, ""))
    for tried, text in _SCRIPTS
)  # fmt: skip
