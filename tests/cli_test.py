#!/usr/bin/python3
"""The command line as people and programs use it, and the daemon's own.

    tests/cli_test.py [NAME ...]      tests whose name contains one of these
"""
import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import harness
import nvme_wire as wire
from harness import GIB, MIB, expect, new_id

DIST = os.path.join(harness.ROOT, "dist")


def pool_option(directory):
    return ["--init-pool", f"{directory}/pool,{GIB}"]


def oxbow(daemon, *arguments, status=0, env=None):
    """The finished process; its status must be the one given."""
    done = subprocess.run([harness.OXBOW, "-s", daemon.socket, *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, env=env)
    expect(done.returncode == status, f"oxbow {' '.join(arguments)}: status {done.returncode}, wanted {status}\n"
           f"{done.stdout}{done.stderr}")
    return done


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False, **options)


# ---- nouns and verbs -----------------------------------------------------------------------------------------------------

def hosts_are_allowed_and_disallowed(daemon, directory):
    expect(re.search(r"hosts allowed +any", oxbow(daemon, "volume", "show", "data").stdout), "no list is for anybody")
    made = oxbow(daemon, "volume", "allow", "data", "nqn.x:a", "--generate-secret").stdout.splitlines()[-1]
    expect(re.fullmatch(r"DHHC-1:01:[A-Za-z0-9+/]{48}:", made), made)
    again = json.loads(oxbow(daemon, "-o", "json", "volume", "allow", "data", "nqn.x:a", "--generate-secret").stdout)
    expect(again["has_secret"] and again["secret"] != made, f"{again}")
    file = os.path.join(directory, "secret")
    with open(file, "w", encoding="utf-8") as out:
        out.write(made + "\n")
    oxbow(daemon, "volume", "allow", "data", "nqn.x:b", "--secret-file", file, "--controller-secret-file", file)
    oxbow(daemon, "volume", "allow", "data", "nqn.x:c")
    shown = oxbow(daemon, "volume", "show", "data").stdout
    for line in ("nqn.x:a, with a secret\n", "nqn.x:b, with a secret on both sides\n", "nqn.x:c\n"):
        expect(line in shown, f"{line} in {shown}")
    expect(made not in shown, "a secret is shown")
    both = oxbow(daemon, "volume", "allow", "data", "nqn.x:c", "--generate-secret", "--generate-tls-key").stdout.splitlines()
    expect(both[-2].startswith("DHHC-1:01:") and both[-1].startswith("NVMeTLSkey-1:01:"), f"{both}")
    shown = oxbow(daemon, "volume", "show", "data").stdout
    expect("nqn.x:c, through TLS, with a secret\n" in shown and both[-1] not in shown, shown)
    with open(file, "w", encoding="utf-8") as out:
        out.write(both[-1] + "\n")
    oxbow(daemon, "volume", "allow", "data", "nqn.x:c", "--tls-key-file", file)
    oxbow(daemon, "volume", "allow", "data", "nqn.x:c", "--secret-file", file, status=1)
    oxbow(daemon, "volume", "allow", "data", "nqn.x:d", "--secret-file", directory + "/none", status=2)
    oxbow(daemon, "volume", "allow", "data", "nqn.x:d", "--secret-file", file, "--generate-secret", status=2)
    oxbow(daemon, "volume", "disallow", "data", "nqn.x:a")
    oxbow(daemon, "volume", "disallow", "data", "nqn.x:a")
    oxbow(daemon, "volume", "disallow", "data", "nqn.x:b")
    expect("--yes" in oxbow(daemon, "volume", "disallow", "data", "nqn.x:c", status=1).stderr, "the last one")
    oxbow(daemon, "volume", "disallow", "data", "nqn.x:c", "--yes")
    oxbow(daemon, "volume", "allow", "data", "nqn.x:c")
    oxbow(daemon, "volume", "disallow", "data", status=2)
    oxbow(daemon, "volume", "disallow", "data", "nqn.x:c", "--all", status=2)
    expect("--yes" in oxbow(daemon, "volume", "disallow", "data", "--all", status=2).stderr, "nobody is there to ask")
    oxbow(daemon, "volume", "disallow", "data", "--all", "--yes")
    expect(re.search(r"hosts allowed +any", oxbow(daemon, "volume", "show", "data").stdout), "the list is gone")


def hosts_and_reservations_are_listed_and_taken_away(daemon):
    nqn = daemon.api.volume("data")["nqn"]
    with wire.Queue(("127.0.0.1", int(re.search(r"nvme\+tcp://[^/]+:(\d+)/", str(daemon.api.volume("data")["uris"]))[1]))) as host:
        host.connect(nqn)
        for arguments in ((), ("data",)):
            listed = oxbow(daemon, "nvme", "list", *arguments).stdout
            expect(wire.host_nqn(wire.HOST_ID) in listed and "/data " in listed, listed)
        expect(oxbow(daemon, "-q", "nvme", "list").stdout.strip() == wire.host_nqn(wire.HOST_ID), "names only")
        shown = oxbow(daemon, "volume", "show", "data").stdout
        expect(re.search(rf"hosts connected +{wire.host_nqn(wire.HOST_ID)}, from 127.0.0.1:", shown), shown)
        expect(re.search(r"reservation +none", shown), shown)
    daemon.api.close_wait("volume", "data")
    expect(re.search(r"hosts connected +none", oxbow(daemon, "volume", "show", "data").stdout), "it left")
    oxbow(daemon, "nvme", "list", "nobody", status=1)
    expect("--yes" in oxbow(daemon, "volume", "unreserve", "data", status=2).stderr, "nobody is there to ask")
    for _ in range(2):
        oxbow(daemon, "volume", "unreserve", "data", "--yes")


def every_verb_does_what_its_help_says():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, "--nvme", "tcp:127.0.0.1:0") as daemon:
        disk = os.path.join(directory, "disk")
        expect("created" in oxbow(daemon, "pool", "create", disk, "--name", "fast", "--size", "256M").stdout, "pool create")
        oxbow(daemon, "volume", "create", "db", "--size", "1.1G", "--block-size", "4096")
        expect(daemon.api.volume("db")["size_bytes"] % 4096 == 0, "a size is rounded up to 4 KiB")
        oxbow(daemon, "volume", "grow", "db", "--size", "2G")
        oxbow(daemon, "volume", "rename", "db", "data")
        hosts_are_allowed_and_disallowed(daemon, directory)
        hosts_and_reservations_are_listed_and_taken_away(daemon)
        expect("data@monday" in oxbow(daemon, "snapshot", "create", "data", "monday").stdout, "snapshot create")
        oxbow(daemon, "snapshot", "create", "data@tuesday")
        oxbow(daemon, "snapshot", "rename", "data@tuesday", "wednesday")
        oxbow(daemon, "volume", "clone", "data@monday", "copy", "--size", "3G")
        oxbow(daemon, "volume", "clone", "data@monday", "whole", "--full", "--wait")
        oxbow(daemon, "volume", "flatten", "copy", "--wait")
        oxbow(daemon, "volume", "flatten", "copy", "--cancel")
        oxbow(daemon, "volume", "revert", "data@wednesday", "--yes")
        expect("hole" in oxbow(daemon, "volume", "extents", "data", "--since", "monday").stdout, "volume extents")
        expect("Exclusive" in oxbow(daemon, "snapshot", "usage", "data@monday").stdout, "snapshot usage")
        for command in (["pool", "list"], ["pool", "show", "fast"], ["pool", "check", "fast"], ["volume", "list"],
                        ["volume", "list", "--pool", "fast"], ["volume", "show", "fast/data"], ["snapshot", "list"],
                        ["snapshot", "list", "data"], ["snapshot", "show", "data@monday"], ["job", "list"], ["job", "watch"],
                        ["job", "throttle", "100M"], ["job", "throttle", "none"], ["events"], ["status"], ["ready"], ["version"]):
            oxbow(daemon, *command)
            done = oxbow(daemon, "-o", "json", *command)
            for line in done.stdout.splitlines():
                json.loads(line)
        oxbow(daemon, "snapshot", "delete", "data@monday", "--wait")
        for volume in ("data", "copy", "whole"):
            oxbow(daemon, "volume", "delete", volume, "--yes", "--wait")
        oxbow(daemon, "pool", "grow", "fast", "--size", "512M")
        oxbow(daemon, "pool", "export", "fast")
        oxbow(daemon, "pool", "import", disk)


def tables_have_a_line_an_object_and_quiet_lists_have_names_only():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        for name in ("a", "bbbbbbbbbbbbbbbbbbbb"):
            daemon.api.volume_create(name, MIB)
        lines = oxbow(daemon, "volume", "list").stdout.splitlines()
        expect(len(lines) == 3 and lines[0].startswith("NAME") and "1 MiB" in lines[1], f"{lines}")
        expect(lines[0].index("POOL") == lines[1].index("default") == lines[2].index("default"), "columns are straight")
        expect(oxbow(daemon, "-q", "volume", "list").stdout == "a\nbbbbbbbbbbbbbbbbbbbb\n", "names only")
        expect(oxbow(daemon, "-q", "volume", "create", "c", "--size", "1M").stdout == "", "quiet is quiet")


def options_may_stand_anywhere_and_the_environment_names_the_socket():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        env = dict(os.environ, OXBOW_SOCKET=daemon.socket)
        for command in (["volume", "create", "--size=1M", "one", "-o", "json"], ["-o", "json", "volume", "create", "two", "--size", "1M"]):
            done = run(harness.OXBOW, *command, env=env)
            expect(json.loads(done.stdout)["size_bytes"] == MIB, f"{command}: {done}")


# ---- mistakes --------------------------------------------------------------------------------------------------------------

def mistakes_are_told_with_a_hint_and_their_own_status():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        usage = (["nonsense"], ["volume"], ["volume", "nonsense"], ["volume", "show"], ["volume", "show", "a", "b"],
                 ["volume", "create", "a"], ["volume", "create", "a", "--size"], ["volume", "create", "a", "--size", "1GB"],
                 ["volume", "create", "a", "--size", "99999P"], ["volume", "create", "a", "--sizes", "1"], ["-o", "xml", "status"],
                 ["volume", "revert", "a", "--yes"], ["events", "--since", "x"], ["volume", "show", ""], [])
        for command in usage:
            done = oxbow(daemon, *command, status=2)
            expect(done.stderr or "Usage" in done.stdout, f"{command} says nothing")
            expect("Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 3, f"{command}: {done.stderr}")
        failed = (["volume", "show", "nobody"], ["volume", "create", "../x", "--size", "1M"], ["pool", "create", "/dev/nothing", "--name", "p"],
                  ["job", "cancel", new_id()], ["snapshot", "show", "a@"])
        for command in failed:
            done = oxbow(daemon, *command, status=1)
            expect(done.stderr.startswith("oxbow: "), f"{command}: {done.stderr}")
        done = oxbow(daemon, "volume", "show", "nobody", status=1)
        expect("\nhint: " in done.stderr, f"no hint: {done.stderr}")
        expect(json.loads(oxbow(daemon, "-o", "json", "volume", "show", "nobody", status=1).stderr)["error"] == "NOENT", "as JSON")
        daemon.stop()
        done = oxbow(daemon, "volume", "list", status=3)
        expect("hint: start it" in done.stderr, done.stderr)


def what_cannot_be_undone_is_asked_on_a_terminal_and_refused_without_one():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", MIB)
        expect("--yes" in oxbow(daemon, "volume", "delete", "v", status=2).stderr, "the hint names --yes")
        for answer, left in ((b"n\n", ["v"]), (b"y\n", [])):
            output = on_terminal([harness.OXBOW, "-s", daemon.socket, "volume", "delete", "v"], answer)
            expect("1 MiB" in output and "[y/N]" in output, output)
            expect([v["name"] for v in daemon.api.volumes()] == left, f"after {answer}: {left}")


def on_terminal(command, answer):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    output, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                chunk = os.read(fd, 4096)
            except OSError:
                break
            if not chunk:
                break
            output += chunk
            if b"[y/N]" in output and answer:
                os.write(fd, answer)
                answer = b""
    os.waitpid(pid, 0)
    os.close(fd)
    return output.decode()


# ---- lost connections ------------------------------------------------------------------------------------------------------

class Dropper(threading.Thread):
    """A socket before the daemon's that passes the first request on and drops the answer."""

    def __init__(self, path, target):
        super().__init__(daemon=True)
        self.target, self.dropped = target, 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.connect(self.target)
                server.sendall(client.recv(65536))
                answer = server.recv(65536)
                if self.dropped:
                    client.sendall(answer)
                self.dropped += 1


def a_command_whose_answer_is_lost_is_sent_again_and_works_once():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        dropper = Dropper(f"{directory}/dropper.sock", daemon.socket)
        dropper.start()
        done = run(harness.OXBOW, "-s", f"{directory}/dropper.sock", "volume", "create", "v", "--size", "1M")
        expect(done.returncode == 0 and dropper.dropped == 2, f"{dropper.dropped} calls: {done}")
        expect(len(daemon.api.volumes()) == 1, "one volume")
        dropper.listener.close()


class SlowCheck(threading.Thread):
    """Answers as a daemon whose check of pool "p" ends when it has been asked three times how far it is."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.asked, self.enough = 0, threading.Event()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client):
        with client:
            if client.recv(65536).startswith(b"POST /v1/pools/p/check"):
                self.enough.wait(20)
                body = {"problem_count": 0, "pages_read": 1024, "clusters_reachable": 0, "layers": 0, "problems": []}
            else:
                self.asked += 1
                body = {"check": {"pages_read": 256 * self.asked, "pages_total": 1024}}
            text = json.dumps(body)
            client.sendall(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        if self.asked == 3:
            self.enough.set()


def a_pool_check_shows_how_far_it_is_on_a_terminal_and_json_stays_clean():
    for options in ([], ["-o", "json"], ["-q"]):
        with harness.scratch_dir() as directory:
            server = SlowCheck(f"{directory}/slow.sock")
            server.start()
            terminal, error = pty.openpty()
            if options == ["-q"]:
                server.enough.set()  # nobody will ask
            done = subprocess.run([harness.OXBOW, "-s", f"{directory}/slow.sock", *options, "pool", "check", "p"], stderr=error,
                                  stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, timeout=60)
            os.close(error)
            shown = b""
            with contextlib.suppress(OSError):
                while chunk := os.read(terminal, 4096):
                    shown += chunk
            os.close(terminal)
            server.listener.close()
            expect(done.returncode == 0, f"{options}: {done}")
            if options == ["-q"]:
                expect(not shown and not done.stdout and not server.asked, f"quiet: {shown} {done.stdout}")
                continue
            expect(b" 25 %" in shown and b" 75 %" in shown and b"3 MiB of 4 MiB" in shown, f"{options}: {shown}")
            expect(shown.endswith(b"\r\033[K"), f"the bar is left there: {shown}")
            if options:
                expect(json.loads(done.stdout)["problem_count"] == 0, f"{done.stdout}")
            else:
                expect(done.stdout.startswith("pool p: 0 problems"), f"{done.stdout}")


def ready_waits_for_a_daemon_that_is_yet_to_start():
    with harness.scratch_dir() as directory:
        daemon = harness.Daemon(directory, *pool_option(directory))
        waiting = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "ready", "--wait", "30"], stdout=subprocess.PIPE)
        harness.wait_until(lambda: waiting.poll() is None, "the command")
        daemon.process = daemon.spawn()
        try:
            expect(waiting.wait(30) == 0, "ready")
        finally:
            daemon.kill()


def events_are_followed_over_a_restart():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        follower = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "events", "-f"], stdout=subprocess.PIPE, text=True)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(follower.stdout.readline, "")), daemon=True)
        reader.start()
        daemon.api.volume_create("before", MIB)
        harness.wait_until(lambda: any("volume_name=before" in l for l in list(lines)), "the first event")
        daemon.kill()
        daemon.start()
        daemon.api.volume_create("after", MIB)
        harness.wait_until(lambda: any("volume_name=after" in l for l in list(lines)), "the event after the restart")
        follower.kill()
        follower.wait()
        expect(sum("volume_name=before" in l for l in lines) == 1, "an event came twice")


def jobs_are_listed_throttled_cancelled_and_waited_for():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", 8 * MIB)
        run("qemu-io", "-f", "raw", "-c", "write 0 1M", daemon.uri("v"))
        daemon.api.close_wait("volume", "v")
        for name in ("s", "t"):
            oxbow(daemon, "snapshot", "create", "v", name)
        for end in (["volume", "flatten", "copy", "--cancel"], ["job", "cancel", "ID"]):
            expect("limited to 1 B a second" in oxbow(daemon, "job", "throttle", "1").stdout, "job throttle")
            waiting = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "volume", "clone", "v@s", "copy", "--full", "--wait"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            job = harness.wait_until(daemon.api.jobs, "the job")[0]
            table = oxbow(daemon, "job", "list").stdout.splitlines()
            expect(len(table) == 2 and job["id"] in table[1] and "flatten" in table[1] and "copy" in table[1], f"{table}")
            oxbow(daemon, *(job["id"] if word == "ID" else word for word in end))
            expect(oxbow(daemon, "-q", "job", "list").stdout == "", "it is still running")
            output, complaint = waiting.communicate(timeout=30)
            expect(waiting.returncode == 1 and "was cancelled" in complaint and not output, f"{waiting.returncode} {output} {complaint}")
            oxbow(daemon, "volume", "delete", "copy", "--yes")
            expect("not limited" in oxbow(daemon, "job", "throttle", "none").stdout, "job throttle none")
            daemon.api.jobs_wait()
        oxbow(daemon, "job", "throttle", "1")
        oxbow(daemon, "volume", "clone", "v@s", "copy", "--full")
        oxbow(daemon, "snapshot", "delete", "v@t")
        merge = harness.wait_until(lambda: [j for j in daemon.api.jobs() if j["kind"] == "merge"], "the merge")[0]
        refused = oxbow(daemon, "job", "cancel", merge["id"], status=1)
        expect("a merge cannot be cancelled" in refused.stderr and "throttle" in refused.stderr, refused.stderr)
        waiting = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "job", "watch", daemon.api.volume("copy")["id"]])
        daemon.kill()
        daemon.start()
        expect(len(daemon.api.jobs()) >= 1, "the jobs are gone")
        oxbow(daemon, "job", "throttle", "none")
        expect(waiting.wait(timeout=30) == 0, "watching did not outlive the restart")
        daemon.api.jobs_wait()
        expect(daemon.api.volume("copy")["origin_id"] is None, "the copy was not finished")
        daemon.pool_check()


# ---- the daemon's own command line -----------------------------------------------------------------------------------------

def the_daemon_refuses_mistakes_with_status_2_and_a_hint():
    mistakes = (["--nonsense"], ["extra"], ["--nbd", "tcp:0.0.0.0:10809"], ["--nbd", "nonsense"], ["--nvme", "tcp:0.0.0.0:4420"],
                ["--nvme", "unix:/tmp/x"], ["--init-pool", "x"], ["--nvme-referral", "tcp:other:8009"],
                ["--nvme-referral", "tcp:10.0.0.1"], ["--nvme-referral", "tcp:10.0.0.1:0"], ["--nvme-referral", "tcp:fd00::1:8009"],
                ["--nvme-dh-group", "ffdhe1024"],
                ["--nvme-tls", "optional"], ["--nvme", "tcp:0.0.0.0:4420", "--nvme-tls", "allowed"],
                ["--init-pool", "x,1GB"], ["--log-format", "xml"], ["--log-level", "all"], ["--tls", "required"], ["--cache-size", "-1"])
    for arguments in mistakes:
        done = run(harness.OXBOWD, *arguments)
        expect(done.returncode == 2 and "hint:" in done.stderr, f"{arguments}: {done}")
    for arguments in (["--help"], ["--version"], ["--routes"]):
        done = run(harness.OXBOWD, *arguments)
        expect(done.returncode == 0 and done.stdout and not done.stderr, f"{arguments}: {done}")


def a_second_daemon_says_who_holds_the_directory():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        done = run(harness.OXBOWD, "--data-dir", daemon.data_dir)
        expect(done.returncode == 1 and str(daemon.process.pid) in done.stderr and "hint:" in done.stderr, f"{done}")


def a_volume_tells_its_nvme_subsystem_and_where_it_is_served():
    with harness.scratch_dir() as directory, \
            harness.running_daemon(directory, *pool_option(directory), "--nvme", "tcp:127.0.0.1:0") as daemon:
        volume = daemon.api.volume_create("disk", 16 * harness.MIB)
        nqn = f"nqn.2026-11.dev.oxbow:volume:{volume['id']}"
        expect(volume["nqn"] == nqn, f"{volume}")
        expect(any(re.fullmatch(rf"nvme\+tcp://127\.0\.0\.1:[1-9]\d*/{nqn}", uri) for uri in volume["uris"]), f"{volume['uris']}")
        shown = oxbow(daemon, "volume", "show", "disk")
        expect(nqn in shown.stdout, f"{shown}")


def the_log_is_text_or_json_and_has_priorities_under_systemd():
    text = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info |warn |error) [a-z_.]+: .+$")
    journal = re.compile(r"^<[3467]>[a-z_.]+: .+$")
    with harness.scratch_dir() as directory:
        for arguments, env, check in (([], {}, text.match), ([], {"JOURNAL_STREAM": "8:1"}, journal.match),
                                      (["--log-format", "json"], {}, lambda l: json.loads(l)["event"])):
            daemon = harness.Daemon(directory, *pool_option(directory), *arguments)
            with open(daemon.log, "wb") as log:
                command = [harness.OXBOWD, "--data-dir", daemon.data_dir, *daemon.arguments]
                daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=dict(os.environ, **env))
            daemon.wait_ready()
            expect(daemon.stop() == 0, "SIGTERM is status 0")
            with open(daemon.log, encoding="utf-8") as log:
                for line in log:
                    expect(check(line.rstrip("\n")), f"{arguments} {env}: {line}")


def systemd_is_told_when_it_is_ready_and_not_before():
    with harness.scratch_dir() as directory:
        path = os.path.join(directory, "notify.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            listener.settimeout(20)
            daemon = harness.Daemon(directory, *pool_option(directory))
            daemon.process = subprocess.Popen([harness.OXBOWD, "--data-dir", daemon.data_dir, *daemon.arguments],
                                              stderr=subprocess.DEVNULL, env=dict(os.environ, NOTIFY_SOCKET=path))
            try:
                expect(b"READY=1" in listener.recv(4096), "READY=1")
                expect(daemon.api.call("GET", "/v1/ready")["ready"], "ready when it said so")
                daemon.process.send_signal(signal.SIGINT)
                expect(b"STOPPING=1" in listener.recv(4096), "STOPPING=1")
                expect(daemon.process.wait(10) == 0, "SIGINT is status 0")
            finally:
                daemon.kill()


def content_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def a_pool_is_checked_without_a_daemon_and_not_beside_one():
    with harness.scratch_dir() as directory, \
            harness.running_daemon(directory, "--init-pool", f"{directory}/pool,{64 * MIB}") as daemon:
        daemon.api.volume_create("v", MIB)
        expect(run(harness.OXBOWD, "--check", f"{directory}/pool").returncode == 1, "beside a daemon")
        daemon.kill()

        def check():
            return run(harness.OXBOWD, "--check", f"{directory}/pool")
        harness.wait_until(lambda: check().returncode == 0, "release of the disk by the killed daemon")
        before = content_of(f"{directory}/pool")  # the first check has waited for the dead daemon's last writes
        expect("0 problems" in check().stdout, "check")
        expect(content_of(f"{directory}/pool") == before, "the check wrote to the pool")
        expect(run(harness.OXBOWD, "--check", "/etc/passwd").returncode == 1, "no pool")


# ---- what is made from the table of verbs -----------------------------------------------------------------------------------

def the_man_page_and_the_completion_are_those_of_this_program():
    for kind, name in (("man", "oxbow.1"), ("bash", "oxbow.bash")):
        with open(os.path.join(DIST, name), encoding="utf-8") as file:
            made = run(harness.OXBOW, "generate", kind).stdout
            expect(file.read() == made, f"dist/{name} is old: oxbow generate {kind} >dist/{name}")


def the_man_pages_format_without_a_complaint():
    for page in ("oxbow.1", "oxbow-sim.1", "oxbowd.8"):
        done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", os.path.join(DIST, page), env=dict(os.environ, LC_ALL="C.UTF-8"))
        expect(done.returncode == 0 and not done.stderr, f"{page}: {done.stderr}")


def bash_completes_nouns_verbs_options_and_names():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("database", MIB)
        for words, wanted in ((["oxbow", "vol"], "volume"), (["oxbow", "volume", "cre"], "create"),
                              (["oxbow", "volume", "create", "x", "--si"], "--size"), (["oxbow", "volume", "show", "dat"], "database"),
                              (["oxbow", "events", "--fo"], "--follow"), (["oxbow", "attach", "dat"], "database"),
                              (["oxbow", "attach", "database", "--ow"], "--owner")):
            script = (f'. "{DIST}/oxbow.bash"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _oxbow; '
                      'echo "${COMPREPLY[@]}"')
            env = dict(os.environ, OXBOW_SOCKET=daemon.socket, PATH=f"{os.path.dirname(harness.OXBOW)}:{os.environ['PATH']}")
            done = run("bash", "-c", script, env=env)
            expect(wanted in done.stdout.split(), f"{words}: {done}")


TESTS = [
    every_verb_does_what_its_help_says,
    tables_have_a_line_an_object_and_quiet_lists_have_names_only,
    options_may_stand_anywhere_and_the_environment_names_the_socket,
    mistakes_are_told_with_a_hint_and_their_own_status,
    what_cannot_be_undone_is_asked_on_a_terminal_and_refused_without_one,
    a_command_whose_answer_is_lost_is_sent_again_and_works_once,
    a_pool_check_shows_how_far_it_is_on_a_terminal_and_json_stays_clean,
    ready_waits_for_a_daemon_that_is_yet_to_start,
    events_are_followed_over_a_restart,
    jobs_are_listed_throttled_cancelled_and_waited_for,
    the_daemon_refuses_mistakes_with_status_2_and_a_hint,
    a_second_daemon_says_who_holds_the_directory,
    a_volume_tells_its_nvme_subsystem_and_where_it_is_served,
    the_log_is_text_or_json_and_has_priorities_under_systemd,
    systemd_is_told_when_it_is_ready_and_not_before,
    a_pool_is_checked_without_a_daemon_and_not_beside_one,
    the_man_page_and_the_completion_are_those_of_this_program,
    the_man_pages_format_without_a_complaint,
    bash_completes_nouns_verbs_options_and_names,
]

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
