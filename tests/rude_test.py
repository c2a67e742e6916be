#!/usr/bin/python3
"""Rude treatment that is not kill -9: frozen, started twice, filled up, its socket file removed, its clients cut off.

    tests/rude_test.py [NAME ...]
"""
import os
import signal
import socket
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, Gone, expect  # noqa: E402

VOLUME_BYTES = 32 * MIB
READY_LIMIT_S = 10  # the goal is 1 s; this only catches what is broken
RESTARTS = 5
LARGE_FILE_PIECES = 4000


def pool_option(directory, size_bytes=GIB):
    return ["--init-pool", f"{os.path.join(directory, 'pool')},{size_bytes}"]


def stopped_and_continued_it_goes_on_as_if_nothing_was():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("v", seed=1, depth=16, commands=60000)
        for turn in range(3):
            await_progress(verifier)
            daemon.process.send_signal(signal.SIGSTOP)
            harness.wait_until(lambda: process_state(daemon.process.pid) == "T", "stopped daemon")
            daemon.process.send_signal(signal.SIGCONT)
            harness.wait_until(lambda: process_state(daemon.process.pid) != "T", "continued daemon")
            daemon.api.snapshot_create("v", f"s{turn}")
        verifier.load_end(may_be_lost=False, limit_s=60)
        verifier.check("v")
        daemon.pool_check()


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def ledger_time(verifier):
    """The next command's number: stands still when nothing is answered any more."""
    with open(verifier.ledger, "rb") as ledger:
        return ledger.read(20)[16:20]


def a_second_daemon_on_the_same_directory_refuses_and_harms_nothing():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        second = daemon.spawn()
        status = second.wait(20)
        expect(status not in (0, None) and status > 0, f"the second daemon ended with status {status}")
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("v", seed=2, depth=8, commands=2000)
        verifier.load_end(may_be_lost=False)
        verifier.check("v")
        daemon.pool_check()


def a_second_daemon_cannot_open_the_pool_of_the_first():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        other = harness.Daemon(os.path.join(directory, "other"))
        other.process = other.spawn()
        try:
            harness.wait_until(lambda: answers(other), "answer of the second daemon")
            try:
                other.api.call("POST", "/v1/pools/import", {"path": os.path.join(directory, "pool")})
            except harness.Refused as no:
                expect(no.error == "BUSY", f"importing a pool in use: {no}")
            else:
                raise harness.Broken("two daemons hold one pool")
        finally:
            other.kill()
        daemon.pool_check()


def answers(daemon):
    try:
        return daemon.api.call("GET", "/v1/health")
    except Gone:
        return None


def a_full_pool_says_enospc_and_lives_and_trim_gives_the_space_back():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory, 64 * MIB)) as daemon:
        daemon.api.volume_create("v", 256 * MIB)
        verifier = harness.Verifier(daemon, directory, 4096, 256 * MIB)
        refused = 0
        for seed in range(40):
            verifier.load_start("v", seed=seed, depth=16, commands=4000)
            refused = int(verifier.load_end(may_be_lost=False).rpartition("=")[2])
            if refused:
                break
        expect(refused, "a 64 MiB pool never got full")
        verifier.check("v")
        daemon.api.snapshots("v")
        daemon.kill()
        daemon.start()
        verifier.check("v")
        before = daemon.api.space()["free_bytes"]
        trim_everything(daemon, "v")
        harness.wait_until(lambda: daemon.api.space()["free_bytes"] > before + 16 * MIB, "free space after trim")
        verifier.adopt("v")
        verifier.load_start("v", seed=99, depth=16, commands=200)
        expect(verifier.load_end(may_be_lost=False).endswith("refused=0"), "still full after the trim")
        verifier.check("v")
        daemon.pool_check()


def trim_everything(daemon, export):
    import nbd  # python3-libnbd

    client = nbd.NBD()
    client.connect_uri(daemon.uri(export))
    for offset in range(0, client.get_size(), 16 * MIB):
        client.trim(16 * MIB, offset)
    client.flush()
    client.shutdown()


def removed_socket_files_cost_connected_clients_nothing_and_are_made_anew():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("v", seed=3, depth=8)
        await_progress(verifier)
        os.unlink(daemon.nbd)
        os.unlink(daemon.socket)
        await_progress(verifier)
        harness.wait_until(lambda: os.path.exists(daemon.nbd) and os.path.exists(daemon.socket), "new socket files")
        await_progress(verifier)
        verifier.load_stop()
        verifier.check("v")
        daemon.pool_check()
        daemon.kill()
        daemon.start()
        verifier.check("v")


def await_progress(verifier):
    before = ledger_time(verifier)
    harness.wait_until(lambda: ledger_time(verifier) != before, "progress of the client")


def abandon_load(verifier):
    verifier.process.kill()
    verifier.process.communicate()
    verifier.process = None


def clients_that_vanish_in_the_middle_leave_nothing_open():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        for seed in range(10):
            verifier.load_start("v", seed=seed, depth=32)
            await_progress(verifier)
            abandon_load(verifier)
            daemon.api.close_wait("volume", "v")
            verifier.check("v")
            daemon.api.close_wait("volume", "v")
        daemon.api.volume_delete("v")
        daemon.api.jobs_wait()
        daemon.pool_check()


def sigterm_ends_it_cleanly_under_load():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", VOLUME_BYTES)
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("v", seed=4, depth=16)
        await_progress(verifier)
        status = daemon.stop()
        expect(status == 0, f"SIGTERM: status {status}")
        verifier.load_end(may_be_lost=True)
        daemon.start()
        verifier.check("v")


def large_file_of_a_process_that_is_killed(path):
    """Made of many pieces, and its name removed: when the last holder lets go of it, the file system has much to do."""
    with open(path, "wb") as large:
        for number in range(LARGE_FILE_PIECES):
            os.pwrite(large.fileno(), b"x" * 4096, number * 128 * 1024)
        os.fsync(large.fileno())
    holder = harness.DiskHolder(path, 8)
    holder.expect_word("held")
    holder.send_writes()
    os.unlink(path)
    return holder


def greeted_client(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(path)
    expect(client.recv(8) == b"NBDMAGIC", "no greeting")
    return client


def end_awaited(client):
    """How long until it hears that its connection is over."""
    begin = time.monotonic()
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        pass
    client.close()
    return time.monotonic() - begin


def neither_a_knock_at_the_dead_nor_a_neighbours_deleted_file_delays_the_restart_or_the_end_of_connections():
    """The kernel takes a killed process's ring apart in its own time, and releases the files of all dead rings in one row."""
    with harness.scratch_dir() as directory:
        outside, port = os.path.join(directory, "outside.sock"), harness.free_port()
        listen = ["--nbd", f"unix:{directory}/data/nbd.sock", "--nbd", f"unix:{outside}", "--nbd", f"tcp:127.0.0.1:{port}"]
        with harness.running_daemon(directory, *pool_option(directory), *listen) as daemon:
            daemon.api.volume_create("v", VOLUME_BYTES)
            verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
            times, ends = [], []
            for seed in range(RESTARTS):
                neighbour = large_file_of_a_process_that_is_killed(os.path.join(directory, "large"))
                verifier.load_start("v", seed=seed, depth=64)
                await_progress(verifier)
                client = greeted_client(daemon.nbd)
                neighbour.kill()
                daemon.kill()
                ends.append(end_awaited(client))
                harness.knock(daemon.nbd, daemon.socket, outside, ("127.0.0.1", port))
                times.append(daemon.start())
                abandon_load(verifier)  # its connection is in the dead ring, and ends with it
                verifier.check("v")
            daemon.pool_check()
            expect(max(times) < READY_LIMIT_S, f"ready only after {max(times):.1f} s")
            expect(max(ends) < READY_LIMIT_S, f"a connection ended only after {max(ends):.1f} s")
            print(f"{RESTARTS} kills; ready in {harness.spread(times)}")
            print(f"a connection ended after {harness.spread(ends)}")


TESTS = (
    stopped_and_continued_it_goes_on_as_if_nothing_was,
    a_second_daemon_on_the_same_directory_refuses_and_harms_nothing,
    a_second_daemon_cannot_open_the_pool_of_the_first,
    a_full_pool_says_enospc_and_lives_and_trim_gives_the_space_back,
    removed_socket_files_cost_connected_clients_nothing_and_are_made_anew,
    clients_that_vanish_in_the_middle_leave_nothing_open,
    sigterm_ends_it_cleanly_under_load,
    neither_a_knock_at_the_dead_nor_a_neighbours_deleted_file_delays_the_restart_or_the_end_of_connections,
)

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
