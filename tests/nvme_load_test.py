#!/usr/bin/python3
"""oxbow-bench against the real daemon: verified load over NVMe/TCP through kills, and that the verification can fail.

    tests/nvme_load_test.py [PART-OF-A-NAME ...]
"""
import json
import os
import random
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import MIB, expect, running_daemon, scratch_dir  # noqa: E402

BENCH = os.path.join(harness.BUILD, "cmd", "oxbow-bench")
KILLS = int(os.environ.get("OXBOW_KILLS", "12"))


def served(directory):
    """A daemon with an NVMe address that stays the same through restarts."""
    pool = os.path.join(directory, "pool")
    return running_daemon(directory, "--init-pool", f"{pool},2G", "--nvme", f"tcp:127.0.0.1:{harness.free_port()}")


def bench_command(daemon, *arguments):
    return [BENCH, "--socket", daemon.socket, "--json", *arguments]


def start(daemon, *arguments):
    return subprocess.Popen(bench_command(daemon, *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def end(process, limit_s=120):
    """(exit status, the report, what it said on stderr)"""
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, json.loads(out) if out.strip() else {}, err


def bench(daemon, *arguments):
    return end(start(daemon, *arguments))


def fine(answer):
    status, report, err = answer
    expect(status == 0, f"oxbow-bench: status {status}: {err}")
    return report


def every_kind_of_load_is_counted_and_verified():
    with scratch_dir() as directory, served(directory) as daemon:
        for name in ("one", "two"):
            daemon.api.volume_create(name, 64 * MIB, block_size_bytes=4096 if name == "two" else 512)
        for kind in ("write", "read", "randwrite", "randread", "mixed"):
            for more in ((), ("--queues", "4", "--digests"), ("--no-in-capsule", "--block", "64k")):
                report = fine(bench(daemon, "--volume", "one", "--volume", "two", "--rw", kind, "--time", "0.3", "--depth", "8",
                                    "--verify", *more))
                expect(report["targets"] == 2 and report["errors"] == 0 and report["wrong_units"] == 0, report)
                expect((report["read"]["operations"] > 0) == (kind in ("read", "randread", "mixed")), report)
                expect((report["write"]["operations"] > 0) == (kind in ("write", "randwrite", "mixed")), report)
        daemon.pool_check()


def a_killed_daemon_is_a_pause_and_nothing_answered_is_lost():
    rng = random.Random(7)
    with scratch_dir() as directory, served(directory) as daemon:
        daemon.api.volume_create("one", 128 * MIB)
        load = start(daemon, "--volume", "one", "--rw", "mixed", "--reads", "50", "--depth", "64", "--queues", "4", "--verify",
                     "--time", str(KILLS * 1.5 + 1))
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.0))  # when to kill
            daemon.kill()
            daemon.start()
        report = fine(end(load))
        print(f"  {KILLS} kills: {report['associations']} associations, {report['replayed']} commands replayed, "
              f"{report['checked_units']} units checked, longest pause {report['longest_pause_ms']} ms")
        expect(report["associations"] > KILLS // 2, f"only {report['associations']} associations: it was not there to be killed")
        expect(report["replayed"] > 0, "nothing was in flight at any kill")
        expect(report["longest_pause_ms"] < 10000, "a dead daemon's connections took a time-out to be given up")
        daemon.pool_check()


def what_somebody_else_writes_under_it_is_noticed():
    with scratch_dir() as directory, served(directory) as daemon:
        daemon.api.volume_create("one", 16 * MIB)
        load = start(daemon, "--volume", "one", "--rw", "mixed", "--time", "3", "--verify", "--depth", "2")
        while load.poll() is None:
            subprocess.run(["qemu-io", "-f", "raw", "-c", "write -z 0 16M", daemon.uri("one")], check=True, capture_output=True)
        status, report, err = end(load)
        expect(status == 1 and report["wrong_units"] > 0 and "reads as zeroes" in err, f"{status} {report} {err}")


def a_snapshot_is_read_under_load_and_refuses_writes_at_once():
    with scratch_dir() as directory, served(directory) as daemon:
        daemon.api.volume_create("one", 16 * MIB)
        fine(bench(daemon, "--volume", "one", "--rw", "write", "--time", "0.3", "--verify", "--size", "8M"))
        nqn = daemon.api.snapshot_create("one", "monday")["nqn"]
        uri = next(uri for uri in daemon.api.volume("one")["uris"] if uri.startswith("nvme+tcp://"))
        where = ("--address", "tcp:" + uri.split("/")[2], "--nqn", nqn, "--time", "0.3")
        expect(fine(bench(daemon, *where, "--rw", "randread"))["read"]["operations"] > 0, "nothing was read")
        status, _, err = bench(daemon, *where, "--rw", "randwrite")
        expect(status != 0 and "read-only" in err, f"{status}: {err}")
        daemon.api.close_wait("snapshot", "one@monday")
        daemon.pool_check()


HOST = "nqn.2026-11.test:host"


def secret_file(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text + "\n")
    return path


def a_load_proves_its_secret_and_has_the_target_prove_its_own():
    with scratch_dir() as directory, served(directory) as daemon:
        daemon.api.volume_create("one", 16 * MIB)
        made = daemon.oxbow("volume", "allow", "one", HOST, "--generate-secret")["secret"]
        other = daemon.oxbow("volume", "allow", "one", "nqn.2026-11.test:other", "--generate-secret")["secret"]
        ours, theirs = secret_file(directory, "ours", made), secret_file(directory, "theirs", other)
        daemon.api.call("PUT", f"/v1/volumes/one/hosts/{HOST}", {"secret": made, "controller_secret": other})
        who = ("--volume", "one", "--host-nqn", HOST, "--time", "0.3", "--connect", "1")
        for more in ((), ("--controller-secret-file", theirs), ("--dh-group", "ffdhe4096")):
            report = fine(bench(daemon, *who, "--secret-file", ours, "--rw", "mixed", "--verify", "--size", "4M", *more))
            expect(report["checked_units"] > 0, report)
        for more, why in (((), "wants authentication"),
                          (("--secret-file", ours, "--controller-secret-file", ours), "did not prove itself"),
                          (("--secret-file", theirs), "does not believe us")):  # the last one: who guesses has to wait after it
            status, _, err = bench(daemon, *who, *more)
            expect(status == 3 and why in err, f"{more}: status {status}: {err}")
        for more in (("--secret-file", "/nowhere"), ("--secret-file", daemon.log), ("--dh-group", "ffdhe1024"),
                     ("--controller-secret-file", theirs)):
            expect(bench(daemon, *who, *more)[0] == 2, f"{more} was no mistake")


def mistakes_and_absent_targets_have_a_status_of_their_own():
    with scratch_dir() as directory, served(directory) as daemon:
        daemon.api.volume_create("one", 16 * MIB)
        nqn = daemon.api.volume("one")["nqn"]
        for arguments in ((), ("--nqn",), ("--volume", "one", "--rw", "both"), ("--volume", "one", "--depth", "0"),
                          ("--nqn", nqn, "--address", "tcp:127.0.0.1:1"), ("--volume", "one", "more"), ("--novel",)):
            expect(bench(daemon, *arguments)[0] == 2, f"{arguments} was no mistake")
        for arguments in (("--volume", "none"), ("--address", "tcp:127.0.0.1:1", "--nqn", nqn, "--connect", "0.2"),
                          ("--volume", "one", "--size", "1G"), ("--volume", "one", "--block", "4M"),
                          ("--socket", "/nowhere", "--volume", "one")):
            status, _, err = bench(daemon, *arguments)
            expect(status == 3 and err, f"{arguments}: status {status}, not 3: {err}")


if __name__ == "__main__":
    sys.exit(harness.run_tests((every_kind_of_load_is_counted_and_verified,
                                a_killed_daemon_is_a_pause_and_nothing_answered_is_lost,
                                what_somebody_else_writes_under_it_is_noticed,
                                a_load_proves_its_secret_and_has_the_target_prove_its_own,
                                a_snapshot_is_read_under_load_and_refuses_writes_at_once,
                                mistakes_and_absent_targets_have_a_status_of_their_own), sys.argv[1:]))
