#!/usr/bin/python3
"""Compare NBD servers over memory with one client (fio's nbd engine), interleaved, medians.

    tests/nbd_bench.py BUILD_DIR [--seconds N] [--rounds N] [--only SUBSTRING]

Each figure is k-IOPS (or MiB/s for sequential jobs) and the server's CPU microseconds an I/O. The store is left out on
purpose (nbd_dev serves arrays): this measures the frontend.
"""
import argparse, json, os, shutil, signal, statistics, subprocess, sys, tempfile, time

SIZE_MIB = 512
JOBS = [(f"{rw} 4k qd{qd}", rw, "4k", qd) for qd in (1, 32, 128) for rw in ("randread", "randwrite")] + \
       [(f"{rw} 128k qd8", rw, "128k", 8) for rw in ("read", "write")]


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def servers(build, work):
    raw = os.path.join("/dev/shm", f"nbd_bench.{os.getpid()}.raw")
    with open(raw, "wb") as f:
        f.truncate(SIZE_MIB << 20)
    yield "oxbow", [f"{build}/tests/nbd_dev", str(SIZE_MIB), f"unix:{work}/oxbow.sock"], "disk", None
    yield "nbdkit", ["nbdkit", "-f", "-U", f"{work}/nbdkit.sock", "memory", f"{SIZE_MIB}M"], "", None
    yield "qemu", ["qemu-storage-daemon",
                   "--blockdev", f"driver=file,node-name=f,filename={raw},cache.direct=on,aio=io_uring",
                   "--blockdev", "driver=raw,node-name=disk,file=f",
                   "--nbd-server", f"addr.type=unix,addr.path={work}/qemu.sock,max-connections=0",
                   "--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on"], "disk", raw


def fio(work, name, export, job, seconds):
    _, rw, bs, qd = job
    uri = f"nbd+unix:///{export}?socket={work}/{name}.sock"
    out = os.path.join(work, "fio.json")
    subprocess.run(["fio", "--name=j", "--ioengine=nbd", f"--uri={uri}", f"--rw={rw}", f"--bs={bs}", f"--iodepth={qd}",
                    f"--runtime={seconds}", "--time_based", "--randrepeat=0", "--norandommap", "--output-format=json",
                    f"--output={out}"], check=True, stdout=subprocess.DEVNULL, cwd=work)
    job = json.load(open(out))["jobs"][0]
    side = job["read"] if "read" in rw else job["write"]
    return side["total_ios"], side["runtime"] / 1000, side["clat_ns"]["percentile"].get("99.000000", 0) / 1000


def fill(work, name, export):
    uri = f"nbd+unix:///{export}?socket={work}/{name}.sock"
    subprocess.run(["fio", "--name=fill", "--ioengine=nbd", f"--uri={uri}", "--rw=write", "--bs=1M", "--iodepth=4",
                    f"--size={SIZE_MIB}M", f"--output={work}/fill"], check=True, stdout=subprocess.DEVNULL, cwd=work)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", default="")
    p.add_argument("--servers", default="oxbow,nbdkit,qemu")
    a = p.parse_args()
    work, running, temporary = tempfile.mkdtemp(prefix="nbd_bench."), {}, []
    try:
        for name, command, export, raw in servers(os.path.abspath(a.build), work):
            if raw:
                temporary.append(raw)
            if name not in a.servers.split(","):
                continue
            running[name] = (subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), export)
            while not os.path.exists(f"{work}/{name}.sock"):
                time.sleep(0.05)
            fill(work, name, export)
        print(f"{'':22}" + "".join(f"{n:>26}" for n in running) + "   (k-IOPS, CPU us/IO, p99 us)")
        for job in JOBS:
            if a.only not in job[0]:
                continue
            seen = {n: [] for n in running}
            for _ in range(a.rounds):
                for n, (process, export) in running.items():
                    before = cpu_seconds(process.pid)
                    ios, elapsed, p99 = fio(work, n, export, job, a.seconds)
                    seen[n].append((ios / elapsed / 1000, (cpu_seconds(process.pid) - before) / ios * 1e6, p99))
            line = f"{job[0]:22}"
            for n in running:
                iops, cpu, p99 = (statistics.median(x) for x in zip(*seen[n]))
                line += f"{iops:10.1f} {cpu:7.2f} {p99:7.0f}"
            print(line, flush=True)
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        for path in temporary:
            os.unlink(path)
        shutil.rmtree(work)


main()
