#!/usr/bin/python3
"""Three daemons that share a metastore, each with a pool: volumes mirrored over them, while daemons are killed, frozen, and lost.

    tests/cluster_test.py [NAME ...]
"""
import contextlib
import os
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import mirror_test  # noqa: E402
from harness import GIB, MIB, Refused, expect  # noqa: E402

VOLUME_BYTES = 32 * MIB
NODES = 3
REPLICA_KILLS = 50
HOME_KILLS = 8


class Node(harness.Daemon):
    """n0, with the pool p0 ..."""

    def __init__(self, directory, index, address=None, options=()):
        self.index, self.name, self.pool = index, f"n{index}", f"p{index}"
        host = f"127.0.0.{index + 2}"
        self.address = address or f"{host}:{harness.free_port(host)}"
        super().__init__(os.path.join(directory, self.name), "--metastore", f"sqlite:{directory}/metastore.db", "--node", self.name,
                         "--nvme", "tcp:" + self.address, *options)

    def pool_path(self):
        return os.path.join(self.directory, "pool")

    def pool_make(self, size_bytes):
        self.api.call("POST", "/v1/pools", {"name": self.pool, "path": self.pool_path(), "size_bytes": size_bytes})


def pools_known(node):
    """A node hears of what another has put on record a tenth of a second later."""
    return sum(n["pool_count"] for n in node.api.call("GET", "/v1/nodes")["nodes"])


@contextlib.contextmanager
def cluster(make=Node, pool_bytes=(GIB,) * NODES):
    with harness.scratch_dir() as directory, contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(harness.running(make(directory, i))) for i in range(NODES)]
        for node in nodes:
            node.pool_make(pool_bytes[node.index])
        harness.wait_until(lambda: all(pools_known(node) == len(nodes) for node in nodes), "the pools on record, in the eyes of every node")
        yield directory, nodes


def volume_make(node, copies="p0,p1,p2", name="db", size_bytes=VOLUME_BYTES):
    return node.api.call("POST", "/v1/volumes", {"name": name, "size_bytes": size_bytes, "copies": copies})["id"]


def copies_are_the_same(nodes, volume_id):
    """With every daemon gone."""
    said = set()
    for node in nodes:
        if node.process.poll() is None:
            node.kill()
        said.add(mirror_test.run_copy_print(node.pool_path(), volume_id))
    expect(len(said) == 1, f"the copies differ: {said}")


def role_of(home, pool, name="db"):
    return mirror_test.copy_of(home, pool, name)["role"]


def is_healthy(home, name="db"):
    try:
        return mirror_test.is_whole(home, name)
    except (harness.Gone, Refused):
        return False


def wait_healthy(home, limit_s=60, name="db"):
    began = time.monotonic()
    try:
        harness.wait_until(lambda: is_healthy(home, name), "every copy a member", limit_s, every_s=0.01)
    except harness.Broken as late:
        raise harness.Broken(f"{late}: {mirror_test.mirror_of(home, name)}") from None
    return time.monotonic() - began


def sleep_some(rng, least_s, most_s):
    time.sleep(rng.uniform(least_s, most_s))  # the moment is the test


# ---- the tests -------------------------------------------------------------------------------------------------------


def a_replica_process_killed_fifty_times_is_healthy_each_time_and_the_client_sees_no_error():
    rng = random.Random(50)
    times = []
    with cluster() as (directory, nodes):
        home, victim = nodes[0], nodes[1]
        volume_id = volume_make(home)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=16)
        epoch = mirror_test.mirror_of(home)["epoch"]
        for _ in range(REPLICA_KILLS):
            victim.kill()
            victim.start()
            times.append(wait_healthy(home))
            sleep_some(rng, 0, 0.05)
        verifier.load_stop()
        verifier.check("db")
        changes = mirror_test.mirror_of(home)["epoch"] - epoch
        copies_are_the_same(nodes, volume_id)
    times.sort()
    print(f"   {REPLICA_KILLS} kills; healthy after it was ready: median {times[len(times) // 2] * 1000:.0f} ms, "
          f"worst {times[-1] * 1000:.0f} ms; {changes} changes of the view")


def a_replica_that_is_away_for_long_is_left_behind_and_brought_up_to_date_when_it_returns():
    with cluster() as (directory, nodes):
        home, victim = nodes[0], nodes[2]
        volume_id = volume_make(home)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=8)
        victim.kill()
        harness.wait_until(lambda: role_of(home, "p2") == "absent", "a view without p2", 30)
        message = mirror_test.mirror_of(home)["conditions"][0]["message"]
        expect("p2 on node n2" in message, f"without n2 it says: {message}")
        verifier.load_stop()
        verifier.check("db")
        victim.start()
        wait_healthy(home)
        verifier.check("db")
        copies_are_the_same(nodes, volume_id)


def the_home_killed_under_load_loses_nothing():
    rng = random.Random(8)
    with cluster() as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        for turn in range(HOME_KILLS):
            verifier.load_start("db", seed=turn, depth=16)
            sleep_some(rng, 0.05, 0.4)
            home.kill()
            verifier.load_end(may_be_lost=True)
            home.start()
            verifier.check("db")
        wait_healthy(home)
        copies_are_the_same(nodes, volume_id)


def all_killed_at_once_come_back_and_nothing_is_lost():
    rng = random.Random(4)
    with cluster() as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        for turn in range(4):
            verifier.load_start("db", seed=turn, depth=16)
            sleep_some(rng, 0.05, 0.4)
            for node in rng.sample(nodes, NODES):
                node.kill()
            verifier.load_end(may_be_lost=True)
            for node in nodes:
                node.process = node.spawn()
            for node in nodes:
                node.wait_ready()
            verifier.check("db")
        wait_healthy(home)
        copies_are_the_same(nodes, volume_id)


def a_replica_that_is_frozen_is_done_without_and_comes_back():
    with cluster() as (directory, nodes):
        home, victim = nodes[0], nodes[1]
        volume_id = volume_make(home)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=8)
        began = time.monotonic()
        victim.process.send_signal(signal.SIGSTOP)
        try:
            harness.wait_until(lambda: role_of(home, "p1") == "absent", "a view without p1", 30)
            print(f"   out of the view after {time.monotonic() - began:.1f} s")
        finally:
            victim.process.send_signal(signal.SIGCONT)
        wait_healthy(home)
        verifier.load_stop()
        verifier.check("db")
        copies_are_the_same(nodes, volume_id)


def moved_from_a_home_that_is_dead_it_is_served_elsewhere_and_the_old_home_serves_no_more():
    with cluster() as (directory, nodes):
        volume_id = volume_make(nodes[0])
        verifier = harness.Verifier(nodes[0], directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=8, commands=2000)
        verifier.load_end(may_be_lost=False)
        try:
            nodes[1].api.snapshot_create("db", "s1")
        except Refused as no:
            expect("n0" in str(no), f"asked of another than its home: {no}")
        else:
            raise harness.Broken("a node that is not its home took a snapshot")
        nodes[0].kill()
        nodes[1].oxbow("volume", "move", "db", "--to", "n1")
        harness.wait_until(lambda: mirror_test.serves(nodes[1]), "service by n1", 30)
        verifier.daemon = nodes[1]
        verifier.check("db")
        nodes[0].start()
        wait_healthy(nodes[1])
        expect(not mirror_test.mirror_of(nodes[0])["is_here"], "n0 believes to be its home")
        nodes[1].oxbow("volume", "move", "db", "--to", "n2")  # from one that lives, this time
        harness.wait_until(lambda: mirror_test.serves(nodes[2]), "service by n2", 30)
        verifier.daemon = nodes[2]
        verifier.check("db")
        wait_healthy(nodes[2])
        copies_are_the_same(nodes, volume_id)


def a_volume_deleted_leaves_no_copy_on_any_node():
    with cluster() as (_, nodes):
        volume_id = volume_make(nodes[0])
        nodes[2].kill()
        nodes[0].api.volume_delete("db")
        nodes[2].start()
        harness.wait_until(lambda: all(mirror_test.reaped(n) == 1 for n in nodes), "the copies gone", 30, every_s=0.05)
        for node in nodes:
            node.kill()
            expect(mirror_test.run_copy_print(node.pool_path(), volume_id) == "absent\n", f"{node.name} still has a copy")


TESTS = [
    a_replica_process_killed_fifty_times_is_healthy_each_time_and_the_client_sees_no_error,
    a_replica_that_is_away_for_long_is_left_behind_and_brought_up_to_date_when_it_returns,
    the_home_killed_under_load_loses_nothing,
    all_killed_at_once_come_back_and_nothing_is_lost,
    a_replica_that_is_frozen_is_done_without_and_comes_back,
    moved_from_a_home_that_is_dead_it_is_served_elsewhere_and_the_old_home_serves_no_more,
    a_volume_deleted_leaves_no_copy_on_any_node,
]

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
