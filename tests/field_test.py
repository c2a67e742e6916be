#!/usr/bin/python3
"""Three daemons in the field: all killed with writes in flight, links cut both ways and one way, hosts over NVMe/TCP, a pool that is full.

    tests/field_test.py [NAME ...]        OXBOW_KILLS says how often all are killed (20), OXBOW_CUTS how often a link is cut (3)

The tests of the network need root, iproute2 and nft; without them they say so and are skipped.
"""
import concurrent.futures
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import cluster_test  # noqa: E402
import guest  # noqa: E402
import harness  # noqa: E402
import mirror_test  # noqa: E402
import nvme_load_test as load_test  # noqa: E402
from cluster_test import cluster, sleep_some, volume_make, wait_healthy  # noqa: E402
from harness import GIB, MIB, expect  # noqa: E402

VOLUME_BYTES = 16 * MIB
NET_VOLUME_BYTES = 4 * MIB  # a copy that comes back is filled in a quarter of the time, beside the load
KILLS = int(os.environ.get("OXBOW_KILLS", "20"))
CUTS = int(os.environ.get("OXBOW_CUTS", "3"))
POOLS = "p0,p1,p2"


def spread_ms(times):
    times = sorted(times)
    return f"median {times[len(times) // 2]:.0f} ms, worst {times[-1]:.0f} ms"


def copies_are_the_same(nodes, *volume_ids):
    """With every daemon gone: each pool is sound, and says the same of each volume."""
    for node in nodes:
        if node.process.poll() is None:
            node.kill()
        check = subprocess.run([harness.OXBOWD, "--check", node.pool_path()], capture_output=True, text=True, timeout=120)
        expect(check.returncode == 0, f"the check of pool {node.pool}: {check.stdout}{check.stderr}")
    for volume_id in volume_ids:
        said = {node.pool: mirror_test.run_copy_print(node.pool_path(), volume_id) for node in nodes}
        expect(len(set(said.values())) == 1, f"the copies differ: {said}")


def scrub_finds_nothing(home, name):
    """The members are compared by checksum, from the beginning to the end."""
    runs = mirror_test.mirror_of(home, name)["scrub"]["runs_done"]
    home.oxbow("volume", "scrub", name)
    harness.wait_until(lambda: mirror_test.mirror_of(home, name)["scrub"]["runs_done"] > runs, f"end of the scrub of {name}", 60, every_s=0.02)
    scrub = mirror_test.mirror_of(home, name)["scrub"]
    expect(scrub["differed_bytes"] == 0, f"members of {name} differ: {scrub}")


def hash_of(check):
    return next(word for word in check.split() if word.startswith("hash="))


def reads_one_way(verifier, name, said):
    """Three readers at a time, whose reads go to whichever member is idle: all see what was seen before."""
    with concurrent.futures.ThreadPoolExecutor(3) as readers:
        again = [f.result() for f in [readers.submit(verifier.hash, name) for _ in range(3)]]
    expect({hash_of(said)} == {hash_of(a) for a in again}, f"{name} reads in two ways: {said}, and then {again}")


def kill_all(nodes):
    for node in nodes:
        node.process.kill()
    for node in nodes:
        node.process.wait()


def start_all(nodes):
    for node in nodes:
        node.process = node.spawn()
    for node in nodes:
        node.wait_ready()


# ---- all killed ------------------------------------------------------------------------------------------------------


class Rounds:
    """Two volumes: `db` under a client that loses its connection, `vm` under an NVMe host, who connects again by himself."""

    def __init__(self, directory, nodes, db_home, vm_home):
        self.nodes, self.db_home, self.vm_home = nodes, db_home, vm_home
        self.ids = [volume_make(db_home, POOLS, "db", VOLUME_BYTES), volume_make(vm_home, POOLS, "vm", VOLUME_BYTES)]
        self.nqn = vm_home.api.volume("vm")["nqn"]
        self.verifier = harness.Verifier(db_home, directory, 4096, VOLUME_BYTES)
        self.healthy_ms, self.pause_ms, self.replayed = [], [], 0

    def one(self, rng, turn):
        self.verifier.load_start("db", seed=turn, depth=16)
        host = load_test.start(self.vm_home, "--address", "tcp:" + self.vm_home.address, "--nqn", self.nqn, "--rw", "mixed", "--reads", "30",
                               "--depth", "16", "--queues", "2", "--verify", "--time", "1", "--seed", str(turn + 1))
        sleep_some(rng, 0.1, 0.6)
        began = time.monotonic()
        kill_all(self.nodes)
        self.verifier.load_end(may_be_lost=True)
        start_all(self.nodes)
        said = self.verifier.check("db")  # at once, whether or not they were compared by now
        for home, name in ((self.db_home, "db"), (self.vm_home, "vm")):
            wait_healthy(home, name=name)
        self.healthy_ms.append((time.monotonic() - began) * 1000)
        reads_one_way(self.verifier, "db", said)
        report = load_test.fine(load_test.end(host))
        self.pause_ms.append(report["longest_pause_ms"])
        self.replayed += report["replayed"]
        for home, name in ((self.db_home, "db"), (self.vm_home, "vm")):
            scrub_finds_nothing(home, name)

    def end(self, copies):
        print(f"   {len(self.healthy_ms)} kills of all; from the kill until healthy and read: {spread_ms(self.healthy_ms)}; "
              f"a host's pause: {spread_ms(self.pause_ms)}; {self.replayed} commands sent again")
        expect(self.replayed > 0, "nothing was in flight at any kill")
        copies_are_the_same(copies, *self.ids)


def all_killed_with_writes_in_flight_no_copies_differ_and_no_block_reads_two_ways():
    rng = random.Random(20)
    with cluster() as (directory, nodes):
        rounds = Rounds(directory, nodes, nodes[0], nodes[1])
        for turn in range(KILLS - KILLS // 2):
            rounds.one(rng, turn)
        rounds.end(nodes)


def all_killed_with_a_home_that_has_no_copy_it_is_the_same_whichever_is_read():
    rng = random.Random(21)
    with cluster() as (directory, nodes), harness.running(cluster_test.Node(directory, len(nodes))) as home:
        rounds = Rounds(directory, [*nodes, home], home, home)
        for turn in range(max(KILLS // 2, 1)):
            rounds.one(rng, turn)
        home.kill()
        rounds.end(nodes)


# ---- the network -----------------------------------------------------------------------------------------------------


NETS = [guest.netns(f"oxfield{i}") for i in range(cluster_test.NODES)]
BRIDGE = guest.netns("oxfieldb")
DROPS = {"both": ("in", "out"), "to": ("in",), "from": ("out",), "none": ()}  # as seen by the node that is cut


class NetNode(cluster_test.Node):
    """A daemon in a network namespace, with one link, to a bridge."""
    grace_s = 1

    def __init__(self, directory, index):
        super().__init__(directory, index, f"10.91.0.{index + 2}:4420",
                         ("--nvme-insecure", "--copy-timeout", "1", "--copy-grace", str(self.grace_s)))

    def wrapper(self):
        return ["ip", "netns", "exec", NETS[self.index]]

    def cut(self, how):
        """Of what this node receives, or sends, nothing arrives, and nobody is told."""
        rules = ["add table inet cut", "flush table inet cut"]
        for hook in DROPS[how]:
            rules.append(f"add chain inet cut {hook} {{ type filter hook {hook}put priority 0; }}")
            rules.append(f"add rule inet cut {hook} meta {'iifname' if hook == 'in' else 'oifname'} eth0 drop")
        subprocess.run(["ip", "netns", "exec", NETS[self.index], "nft", "-f", "-"], input="\n".join(rules), text=True, check=True)


class PatientNetNode(NetNode):
    """Who waits long for a copy that is lost."""
    grace_s = 5


def why_no_network():
    if os.geteuid() != 0:
        return "network namespaces need root"
    return next((f"{tool} is not installed" for tool in ("ip", "nft") if not shutil.which(tool)), None)


@contextlib.contextmanager
def network():
    made = []
    try:
        for name in (BRIDGE, *NETS):
            guest.ip("netns", "add", name)
            made.append(name)
        guest.ip("-n", BRIDGE, "link", "add", "br0", "type", "bridge")
        guest.ip("-n", BRIDGE, "link", "set", "br0", "up")
        for i, name in enumerate(NETS):
            guest.ip("-n", name, "link", "set", "lo", "up")
            guest.ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}", "netns", BRIDGE)
            guest.ip("-n", BRIDGE, "link", "set", f"port{i}", "master", "br0", "up")
            guest.ip("-n", name, "addr", "add", f"10.91.0.{i + 2}/24", "dev", "eth0")
            guest.ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in made:
            guest.ip("netns", "del", name)


def no_refusals(said):
    expect("refused=0" in said, f"the client was refused something: {said}")
    return said


def links_cut(rng, home, victims, ways):
    """CUTS times, for moments shorter and longer than it takes to do without a copy; healed for long enough or not."""
    longest = 0.0
    for turn in range(CUTS):
        victim, how = rng.choice(victims), ways[turn % len(ways)]
        victim.cut(how)
        sleep_some(rng, 0.1, 3.5)
        victim.cut("none")
        if rng.random() < 0.5:
            longest = max(longest, wait_healthy(home))
        else:
            sleep_some(rng, 0, 0.5)
    return max(longest, wait_healthy(home))


def cut_under_load(ways, pick, seed):
    if reason := why_no_network():
        return reason
    rng = random.Random(seed)
    with network(), cluster(NetNode) as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=NET_VOLUME_BYTES)
        epoch = mirror_test.mirror_of(home)["epoch"]
        verifier = harness.Verifier(home, directory, 4096, NET_VOLUME_BYTES)
        verifier.load_start("db", seed=seed, depth=8)
        longest = links_cut(rng, home, pick(nodes), ways)
        no_refusals(verifier.load_stop())
        changes = mirror_test.mirror_of(home)["epoch"] - epoch
        print(f"   {CUTS} cuts; healthy after the last was healed: {longest:.1f} s at worst; {changes} changes of the view")
        verifier.check("db")
        scrub_finds_nothing(home, "db")
        copies_are_the_same(nodes, volume_id)
    return None


def a_link_cut_both_ways_again_and_again_is_a_pause():
    return cut_under_load(("both",), lambda nodes: nodes[1:], 31)


def a_link_cut_in_one_direction_again_and_again_is_a_pause():
    return cut_under_load(("to", "from"), lambda nodes: nodes[1:], 32)


def a_home_cut_off_from_all_other_copies_serves_from_its_own():
    return cut_under_load(("both", "to", "from"), lambda nodes: nodes[:1], 33)


def has_lost_the_others(home):
    return sum(c["session"] == "lost" for c in mirror_test.mirror_of(home)["copies"]) == cluster_test.NODES - 1


def a_home_cut_off_and_given_up_for_another_serves_no_more_and_its_writes_are_there():
    if reason := why_no_network():
        return reason
    with network(), cluster(PatientNetNode) as (directory, nodes):
        volume_id = volume_make(nodes[0], size_bytes=NET_VOLUME_BYTES)
        verifier = harness.Verifier(nodes[0], directory, 4096, NET_VOLUME_BYTES)
        for turn, (old, new) in enumerate(((nodes[0], nodes[1]), (nodes[1], nodes[2]))):
            verifier.daemon = old
            verifier.load_start("db", seed=turn, depth=8)
            harness.wait_until(lambda home=old: mirror_test.mirror_of(home)["intents"], "writes", every_s=0.02)
            old.cut("both")
            harness.wait_until(lambda home=old: has_lost_the_others(home), "loss of the others", every_s=0.02)
            time.sleep(0.3)  # load that must not be answered: nobody else has it
            new.oxbow("volume", "move", "db", "--to", new.name)
            verifier.load_end(may_be_lost=True, limit_s=60)
            harness.wait_until(lambda home=new: mirror_test.serves(home), f"service by {new.name}", 60)
            verifier.daemon = new
            verifier.check("db")
            expect(not mirror_test.serves(old), f"{old.name} serves what is {new.name}'s")
            old.cut("none")
            wait_healthy(new)
            verifier.check("db")
        copies_are_the_same(nodes, volume_id)
    return None


# ---- hosts over NVMe/TCP ---------------------------------------------------------------------------------------------


def a_host_over_nvme_sees_pauses_while_replicas_and_its_home_are_killed():
    rng = random.Random(40)
    with cluster() as (_, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=VOLUME_BYTES)
        host = load_test.start(home, "--volume", "db", "--rw", "mixed", "--depth", "32", "--queues", "2", "--verify", "--time", "12")
        for turn in range(9):
            sleep_some(rng, 0.1, 0.7)
            victim = nodes[(turn + 1) % len(nodes)]
            victim.kill()
            if turn % 3 == 1:
                sleep_some(rng, 0, 3)
            victim.start()
        report = load_test.fine(load_test.end(host))
        print(f"   9 kills: {report['associations']} associations, {report['replayed']} commands replayed, "
              f"{report['checked_units']} units checked, longest pause {report['longest_pause_ms']} ms")
        expect(report["associations"] > 1 and report["replayed"] > 0, f"nobody noticed: {report}")
        wait_healthy(home)
        scrub_finds_nothing(home, "db")
        copies_are_the_same(nodes, volume_id)


# ---- a pool that is full ---------------------------------------------------------------------------------------------


def qemu_io(home, *commands):
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(["qemu-io", "-f", "raw", *words, home.uri("db")], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def a_full_pool_of_one_node_is_an_error_to_the_client_and_no_copy_is_lost():
    with cluster(pool_bytes=(GIB, GIB, 64 * MIB)) as (_, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=256 * MIB)
        said = qemu_io(home, "write -P 7 0 128M")
        expect("No space" in said, f"writing more than fits: {said}")
        expect(cluster_test.is_healthy(home), f"a full pool cost a copy: {mirror_test.mirror_of(home)}")
        nodes[2].kill()  # full, and killed
        nodes[2].start()
        wait_healthy(home)
        said = qemu_io(home, "discard 0 256M", "write -P 9 0 1M", "read -P 9 0 1M")
        expect("failed" not in said and "No space" not in said, f"after making room: {said}")
        expect(cluster_test.is_healthy(home), f"a full pool cost a copy: {mirror_test.mirror_of(home)}")
        copies_are_the_same(nodes, volume_id)


# ---- that the checks can fail ----------------------------------------------------------------------------------------


def fails(sentence, check, *arguments):
    try:
        check(*arguments)
    except harness.Broken as why:
        expect(sentence in str(why), f"another complaint than '{sentence}': {why}")
    else:
        raise harness.Broken(f"nobody complained that {sentence}")


def what_is_written_into_one_copy_behind_a_daemons_back_is_found_by_scrub_and_by_comparing():
    with cluster(pool_bytes=(64 * MIB,) * cluster_test.NODES) as (_, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=VOLUME_BYTES)
        qemu_io(home, "write -P 0xab 0 1M", "flush")
        harness.wait_until(lambda: mirror_test.mirror_of(home)["intents"] == 0, "regions at rest", 30, every_s=0.05)
        scrub_finds_nothing(home, "db")
        kill_all(nodes)
        mirror_test.rot_one_block(nodes[1].pool_path(), 0xab)
        fails("the copies differ", copies_are_the_same, nodes, volume_id)
        start_all(nodes)
        wait_healthy(home)
        fails("members of db differ", scrub_finds_nothing, home, "db")


TESTS = [
    what_is_written_into_one_copy_behind_a_daemons_back_is_found_by_scrub_and_by_comparing,
    all_killed_with_writes_in_flight_no_copies_differ_and_no_block_reads_two_ways,
    all_killed_with_a_home_that_has_no_copy_it_is_the_same_whichever_is_read,
    a_link_cut_both_ways_again_and_again_is_a_pause,
    a_link_cut_in_one_direction_again_and_again_is_a_pause,
    a_home_cut_off_from_all_other_copies_serves_from_its_own,
    a_home_cut_off_and_given_up_for_another_serves_no_more_and_its_writes_are_there,
    a_host_over_nvme_sees_pauses_while_replicas_and_its_home_are_killed,
    a_full_pool_of_one_node_is_an_error_to_the_client_and_no_copy_is_lost,
]

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
