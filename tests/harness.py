"""What the whole-process tests share: a real daemon in a directory of its own, its API, its command line, its clients.

Waiting is always for a condition, with a deadline that names it. Nothing here retries what failed.
"""
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
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
SCRATCH = os.environ.get("OXBOW_SCRATCH", "/var/tmp")  # on a disk: tmpfs would hide what O_DIRECT and FLUSH do
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Broken(Exception):
    """A promise of the daemon's that was not kept."""


class Refused(Exception):
    """The API said no: `error` is the name of the OXE_ code, without OXE_."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
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
    shutil.rmtree(path)


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
        self.api = Api(self.socket)
        os.makedirs(self.data_dir, exist_ok=True)

    def spawn(self, *more):
        command = [self.program, "--data-dir", self.data_dir, *self.arguments, *more]
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
            raise Broken(f"oxbowd ended by itself with status {self.process.returncode}\n{self.log_tail()}")
        try:
            self.api.call("GET", "/readyz")
            return True
        except (Gone, Refused):
            return False

    def wait_ready(self, limit_s=30.0):
        wait_until(self.is_ready, "readiness of oxbowd", limit_s, every_s=0.002)

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

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.nbd}"


@contextlib.contextmanager
def running_daemon(directory, *arguments):
    daemon = Daemon(directory, *arguments)
    try:
        daemon.start()
        yield daemon
    except BaseException:
        print(f"---- the end of {daemon.log}\n{daemon.log_tail() if os.path.exists(daemon.log) else ''}", file=sys.stderr)
        raise
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()


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
