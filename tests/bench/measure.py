"""Measuring: fio over NBD, what a process costs, the mood of FLUSH, medians."""
import json
import os
import statistics
import subprocess
import tempfile
import time

CPU_CLOCK = 2  # of a process, as the scheduler counts
FLUSH_SAMPLES = 21


def cpu_seconds(pid):
    """User and system time of the whole process so far, its io_uring workers included: by its CPU-time clock (the number that
    clock_getcpuclockid(3) gives), as /proc counts in hundredths of a second."""
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def idle_cpu_percent(pid, seconds):
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / seconds


def flush_us(directory):
    """The median of a 4 KiB overwrite made durable, in microseconds: a disk has moods, and no figure with a flush in it
    means anything without this one beside it."""
    samples = []
    with tempfile.NamedTemporaryFile(dir=directory) as probe:
        for i in range(FLUSH_SAMPLES):
            os.pwrite(probe.fileno(), bytes([i]) * 4096, 0)
            began = time.perf_counter()
            os.fdatasync(probe.fileno())
            samples.append((time.perf_counter() - began) * 1e6)
    return statistics.median(samples)


def fio(target, rw, block, depth, seconds, size, more=()):
    """One fio run; `target` is an NBD URI or a file (then direct, io_uring). Returns {iops, mib_s, ios, p50_us ...}."""
    engine = (["--ioengine=nbd", f"--uri={target}"] if target.startswith("nbd") else
              ["--ioengine=io_uring", "--direct=1", f"--filename={target}"])
    with tempfile.NamedTemporaryFile(prefix="fio.", suffix=".json") as output:
        command = ["fio", "--name=bench", *engine, f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}",
                   f"--size={size}", "--randrepeat=0", f"--output={output.name}", "--output-format=json", *more]
        if seconds:
            command += [f"--runtime={seconds}", "--time_based"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        with open(output.name, encoding="utf-8") as text:
            raw = text.read()
    job = json.loads(raw[raw.index("{"):])["jobs"][0]
    return summarise([job[kind] for kind in ("read", "write") if job[kind]["total_ios"]])


def summarise(kinds):
    """Reads and writes of one job as one figure: rates add up, percentiles are the worse of the two."""
    def percentile(kind, which):
        return kind["clat_ns"].get("percentile", {}).get(which, 0) / 1000

    return {
        "iops": sum(k["iops"] for k in kinds),
        "mib_s": sum(k["bw_bytes"] for k in kinds) / (1 << 20),
        "ios": sum(k["total_ios"] for k in kinds),
        "p50_us": max(percentile(k, "50.000000") for k in kinds),
        "p99_us": max(percentile(k, "99.000000") for k in kinds),
        "p999_us": max(percentile(k, "99.900000") for k in kinds),
        "max_us": max(k["clat_ns"]["max"] for k in kinds) / 1000,
    }


def fio_served(pid, *arguments, **named):
    """fio(), and what it cost the server: CPU seconds per million I/Os."""
    before = cpu_seconds(pid)
    figures = fio(*arguments, **named)
    figures["cpu_s_per_mio"] = (cpu_seconds(pid) - before) * 1e6 / max(figures["ios"], 1)
    return figures


def medians(runs):
    """Figure by figure over several runs of one thing."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}
