"""What the whole-process tests share: a real daemon in a directory of its own, its API, its command line, its clients.

Waiting is always for a condition, with a deadline that names it. Nothing here retries what failed.
"""
import contextlib
import glob
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("OXBOW_BUILD", os.path.join(ROOT, "build", "release"))
OXBOWD = os.path.join(BUILD, "cmd", "oxbowd")
OXBOW = os.path.join(BUILD, "cmd", "oxbow")
VERIFY = os.path.join(BUILD, "tests", "verify_client")
DISK_HOLDER = os.path.join(BUILD, "tests", "disk_holder")
SCRATCH = os.environ.get("OXBOW_SCRATCH", "/var/tmp")  # on a disk: tmpfs would hide what O_DIRECT and FLUSH do
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Broken(Exception):
    """A promise of the daemon's that was not kept."""


class Refused(Exception):
    """The API said no: `error` is the name of the OXE_ code, without OXE_."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body
        self.error = body.get("error") if isinstance(body, dict) else None


class Gone(Exception):
    """The daemon went away before it answered: the call may have happened or not."""


def expect(condition, sentence):
    if not condition:
        raise Broken(sentence)


def skip(reason):
    """End this part as skipped (tests/run)."""
    print(reason)
    sys.exit(77)


def free_port(host="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def wait_until(condition, what, limit_s=30.0, every_s=0.005):
    """Returns the first true value of condition()."""
    deadline = time.monotonic() + limit_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise Broken(f"no {what} within {limit_s:g} s")
        time.sleep(every_s)


def new_id(rng=random):
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


@contextlib.contextmanager
def scratch_dir(prefix="oxbow-test."):
    """Removed when the test passes; kept, and named, when it fails."""
    path = tempfile.mkdtemp(prefix=prefix, dir=SCRATCH)
    try:
        yield path
    except BaseException:
        print(f"left for you to look at: {path}", file=sys.stderr)
        raise
    remove_tree(path)


def remove_tree(path):
    """Emptied first, then removed: a file that a killed process's ring still holds would else be freed by the kernel's one thread
    that releases such files, and every socket and lock of every killed process on the machine would wait for it."""
    for directory, _, names in os.walk(path):
        for file in (os.path.join(directory, name) for name in names):
            if os.path.isfile(file) and not os.path.islink(file):
                os.truncate(file, 0)
    shutil.rmtree(path)


@contextlib.contextmanager
def bench_dir(place=None):
    """Removed whatever happens."""
    path = tempfile.mkdtemp(prefix="oxbow-bench.", dir=place or SCRATCH)
    try:
        yield path
    finally:
        remove_tree(path)


# ---- the API --------------------------------------------------------------------------------------------------------

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """The HTTP API on its unix socket. One method a verb the tests use."""

    def __init__(self, socket_path, timeout_s=60):
        self.socket_path, self.timeout_s = socket_path, timeout_s

    def call(self, method, path, body=None):
        connection = UnixConnection(self.socket_path, self.timeout_s)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read()
        except TimeoutError as late:
            raise Broken(f"{method} {path}: no answer within {self.timeout_s} s") from late
        except (OSError, http.client.HTTPException) as why:
            raise Gone(f"{method} {path}: {why}") from why
        finally:
            connection.close()
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = {"text": text.decode(errors="replace")}
        if response.status >= 400:
            raise Refused(response.status, answer)
        return answer

    def pools(self):
        return self.call("GET", "/v1/pools")["pools"]

    def space(self):
        """Of the only pool: total_bytes, data_bytes, metadata_bytes, journal_bytes, free_bytes, reserve_bytes."""
        return self.pools()[0]["space"]

    def pool_check(self, pool=None):
        """The check's result; a problem is a broken promise."""
        result = self.call("POST", f"/v1/pools/{pool or self.pools()[0]['id']}/check")
        texts = [problem["text"] for problem in result["problems"][:10]]
        expect(result["problem_count"] == 0, f"pool check found {result['problem_count']} problems: {texts}")
        return result

    def volumes(self):
        return self.call("GET", "/v1/volumes")["volumes"]

    def volume(self, ref):
        return self.call("GET", f"/v1/volumes/{ref}")

    def volume_create(self, name, size_bytes, volume_id=None, block_size_bytes=512):
        return self.call("POST", "/v1/volumes", {"name": name, "size_bytes": size_bytes, "id": volume_id or new_id(),
                                                 "block_size_bytes": block_size_bytes})

    def volume_grow(self, ref, size_bytes):
        return self.call("PATCH", f"/v1/volumes/{ref}", {"size_bytes": size_bytes})

    def volume_rename(self, ref, name):
        return self.call("PATCH", f"/v1/volumes/{ref}", {"name": name})

    def volume_delete(self, ref):
        return self.call("DELETE", f"/v1/volumes/{ref}")

    def volume_revert(self, ref, snapshot, head_id=None):
        return self.call("POST", f"/v1/volumes/{ref}/revert", {"snapshot": snapshot, "head_id": head_id or new_id()})

    def snapshots(self, volume):
        return self.call("GET", f"/v1/volumes/{volume}/snapshots")["snapshots"]

    def snapshot(self, ref):
        return self.call("GET", f"/v1/snapshots/{ref}")

    def snapshot_create(self, volume, name, snapshot_id=None):
        return self.call("POST", f"/v1/volumes/{volume}/snapshots", {"name": name, "id": snapshot_id or new_id()})

    def snapshot_delete(self, ref):
        return self.call("DELETE", f"/v1/snapshots/{ref}")

    def clone(self, snapshot, name, volume_id=None, full_copy=False):
        return self.call("POST", f"/v1/snapshots/{snapshot}/clone",
                         {"name": name, "id": volume_id or new_id(), "full_copy": full_copy})

    def jobs(self):
        return self.call("GET", "/v1/jobs")["jobs"]

    def jobs_wait(self, limit_s=60):
        wait_until(lambda: not self.jobs(), "end of all jobs", limit_s, every_s=0.02)

    def close_wait(self, kind, ref):
        """Until the daemon has noticed that the last client of a volume or snapshot is gone."""
        wait_until(lambda: self.call("GET", f"/v1/{kind}s/{ref}")["open_count"] == 0, f"closing of {kind} {ref}")


# ---- the dead daemon ------------------------------------------------------------------------------------------------

def knock(*addresses):
    """Connect to where a killed daemon listened: to a path, or to (host, port). It must be refused, at once."""
    for address in addresses:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as visitor:
            visitor.settimeout(5)
            try:
                visitor.connect(address)
            except ConnectionRefusedError:
                continue
            raise Broken(f"somebody listens on {address} for a dead daemon")


def spread(seconds):
    """The times of many starts, in one line."""
    ms = sorted(round(s * 1000) for s in seconds)
    return f"{ms[0]} ms at best, {statistics.median(ms):.0f} at the median, {ms[len(ms) * 9 // 10]} at the 90th of 100, {ms[-1]} at worst"


# ---- the daemon -----------------------------------------------------------------------------------------------------

class Daemon:
    """oxbowd on DIR/data, logging to DIR/oxbowd.log. start() as often as it is killed."""

    def __init__(self, directory, *arguments, program=OXBOWD):
        self.directory = directory
        self.data_dir = os.path.join(directory, "data")
        self.socket = os.path.join(self.data_dir, "oxbow.sock")
        self.nbd = os.path.join(self.data_dir, "nbd.sock")
        self.log = os.path.join(directory, "oxbowd.log")
        self.arguments, self.program = list(arguments), program
        self.process = None
        self.why_not_ready = None
        self.api = Api(self.socket)
        os.makedirs(self.data_dir, exist_ok=True)

    def wrapper(self):
        """What the daemon is started by, as words before its own."""
        return []

    def spawn(self, *more):
        command = [*self.wrapper(), self.program, "--data-dir", self.data_dir, *self.arguments, *more]
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        """Starts it, waits until it is ready, and returns the seconds from exec to ready."""
        began = time.monotonic()
        self.process = self.spawn()
        self.wait_ready()
        return time.monotonic() - began

    def is_ready(self):
        if self.process.poll() is not None:
            raise Broken(f"oxbowd {self.fate()} before it was ready")
        try:
            self.api.call("GET", "/v1/ready")
            return True
        except (Gone, Refused) as why:
            self.why_not_ready = why
            return False

    def wait_ready(self, limit_s=30.0):
        try:
            wait_until(self.is_ready, "readiness of oxbowd", limit_s, every_s=0.002)
        except Broken as late:
            raise Broken(f"{late}: {self.why_not_ready}\n{self.log_tail()}") from None

    def kill(self):
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, limit_s=30):
        """The polite way: SIGTERM. Returns its exit status."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"oxbowd did not end within {limit_s} s of SIGTERM") from None

    def fate(self):
        status = self.process.poll() if self.process else None
        if status is None:
            return "is running" if self.process else "never ran"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def log_tail(self, lines=30):
        with open(self.log, errors="replace", encoding="utf-8") as log:
            return "".join(log.readlines()[-lines:])

    def oxbow(self, *arguments, check=True):
        """The command line. With check, its parsed JSON output; otherwise the finished process."""
        command = [OXBOW, "-s", self.socket, "-o", "json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if not check:
            return done
        if done.returncode != 0:
            raise Broken(f"oxbow {' '.join(arguments)}: status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def pool_check(self):
        return self.api.pool_check()

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.nbd}"


def running_daemon(directory, *arguments):
    return running(Daemon(directory, *arguments))


@contextlib.contextmanager
def running(daemon):
    """Started, and killed at the end; if the test fails its log is shown."""
    try:
        daemon.start()
        yield daemon
    except BaseException:
        print(f"---- the end of {daemon.log}\n{daemon.log_tail() if os.path.exists(daemon.log) else ''}---- "
              f"oxbowd {daemon.fate()}", file=sys.stderr)
        raise
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()


# ---- a process that holds a disk ------------------------------------------------------------------------------------

class DiskHolder:
    """tests/verify/disk_holder.c on `file`."""

    def __init__(self, file, writes):
        self.process = subprocess.Popen([DISK_HOLDER, file, str(writes)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def has_spoken(self):
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def expect_word(self, word):
        wait_until(self.has_spoken, f"word from the holder ({word})")
        said = self.process.stdout.readline().strip()
        expect(said == word, f"the holder said '{said}' and not '{word}'")

    def send_writes(self):
        self.process.stdin.write("\n")
        self.expect_word("sent")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def is_inside(self, system_call):
        for stack in glob.glob(f"/proc/{self.process.pid}/task/*/stack"):
            with contextlib.suppress(OSError), open(stack, encoding="ascii") as lines:
                if system_call in lines.read():
                    return True
        return False


# ---- verified load -------------------------------------------------------------------------------------------------

LOST = 3  # verify_client's status when the connection went away


class Verifier:
    """verify_client on one volume: its ledger, its load, its checks (tests/verify/verify_client.c)."""
    next_tag = 1

    def __init__(self, daemon, directory, unit_bytes, size_bytes):
        self.daemon, self.unit_bytes = daemon, unit_bytes
        self.tag = Verifier.next_tag
        Verifier.next_tag += 1
        self.ledger = os.path.join(directory, f"ledger.{self.tag}")
        self.process = None
        self.run("init", self.ledger, self.tag, unit_bytes, size_bytes // unit_bytes)

    @staticmethod
    def run(*arguments):
        """Its output; Gone if the connection was lost, Broken if a promise was."""
        command = [VERIFY, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode == LOST:
            raise Gone(f"verify_client {arguments[0]}: {done.stderr.strip()}")
        expect(done.returncode == 0, f"verify_client {' '.join(map(str, arguments))}:\n{done.stderr}")
        return done.stdout.strip()

    def on(self, verb, export, *arguments):
        return self.run(verb, self.daemon.nbd, export, *arguments)

    def load_start(self, export, seed, depth, commands=0):
        expect(self.process is None, f"tag {self.tag} has a load already")
        command = [VERIFY, "load", self.daemon.nbd, export, self.ledger, str(seed), str(depth), str(commands)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)

    def load_end(self, may_be_lost, limit_s=30, stopped=False):
        """Wait for the load to end by itself: after its commands, or because the daemon died. Returns what it printed."""
        process, self.process = self.process, None
        out, err = process.communicate(timeout=limit_s)
        good = (0,) + ((LOST,) if may_be_lost else ()) + ((-signal.SIGTERM,) if stopped else ())  # before it had begun
        expect(process.returncode in good, f"the load of tag {self.tag} ended with status {process.returncode}: {out}{err}")
        return out.strip()

    def load_stop(self, may_be_lost=False):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            return self.load_end(may_be_lost, stopped=True)
        return ""

    def check(self, export):
        """Everything acknowledged is there; what was found is the truth from now on. Returns the hash line."""
        return self.on("check", export, self.ledger, "settle")

    def adopt(self, export):
        return self.on("adopt", export, self.ledger)

    def hash(self, export):
        return self.on("hash", export, self.unit_bytes)

    def copy(self, name):
        """The ledger as it is now, for `within`."""
        path = f"{self.ledger}.{name}"
        shutil.copyfile(self.ledger, path)
        return path


# ---- running named tests --------------------------------------------------------------------------------------------

def run_tests(tests, names):
    """Each test is a function whose name is the sentence it proves. Prints a line each; returns the exit status."""
    failed, chosen = 0, [t for t in tests if not names or any(n in t.__name__ for n in names)]
    for test in chosen:
        began = time.monotonic()
        try:
            reason = test()
        except Exception as why:  # any: the next test still runs  # noqa: BLE001
            failed += 1
            print(f"FAILED {test.__name__}: {type(why).__name__}: {why}", flush=True)
            continue
        if reason:
            print(f"SKIP {test.__name__}: {reason}", flush=True)
        else:
            print(f"ok {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0
