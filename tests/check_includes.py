#!/usr/bin/python3
"""Each room includes only the rooms the design lets it (docs/architecture.md, "The house"), and nothing runs in circles.

    tests/check_includes.py [ROOT]        complain as `file:line: rule`, status 1 if there is anything
    tests/check_includes.py --self-test   plant each fault in a scratch tree and see that it is named
"""
import os
import re
import sys
import tempfile
from typing import NamedTuple

BELOW = ("base", "rt")

# room -> the other rooms whose headers it may include. A file belongs to the longest room its path starts with.
ROOMS = {
    "base": (),
    "rt": ("base",),
    "data/store": BELOW,
    "data/nvme": BELOW + ("data/tls",),  # the words of NVMe over TCP, for whoever speaks them
    "data/tls": BELOW,  # TLS, for whoever speaks over a network
    "data/replica": BELOW + ("data/store", "data/nvme", "data/tls"),
    "data/engine": BELOW + ("data/store", "data/replica"),
    "data/frontend": BELOW + ("data/engine", "data/nvme", "data/tls"),
    "control": BELOW,  # the files that lie there themselves: what all of control/ shares
    "control/meta": BELOW + ("control",),
    "control/node": BELOW + ("control", "control/meta", "data/store", "data/replica", "data/engine", "data/frontend"),
    "control/manager": BELOW + ("control", "control/meta", "control/node"),
    "control/csi": BELOW + ("control", "control/manager", "control/node"),
    "control/api": BELOW + ("control", "control/manager", "control/node"),
    "host": BELOW,
    "host/attach": BELOW + ("data/nvme", "host"),  # volumes as block devices of a client: for commands, not for reactors
    "sim": BELOW + ("data/store", "data/replica", "data/engine"),  # its model of a pool and its workload speak the store's interface
}

# Mains and tests stand outside the house: they choose the world (host, sim or a double of their own) the rest runs in.
OUTSIDE = re.compile(r"^(cmd|tests)/|_(test|fuzz|bench|testrt|testclient|double|contract)\.[ch]$|(^|/)test_main\.c$")

# header -> the only rooms that may include it, whatever ROOMS says.
PRIVATE_HEADERS = {
    "rt/rt_platform.h": ("rt", "host", "sim"),
}

TEST_HEADERS = ("src/base/test.h", "src/base/fuzz.h")

# A room that runs in the simulator includes, of the system, only what computes: no clock, syscall, thread or ring.
PURE_HEADERS = {
    "assert.h", "ctype.h", "errno.h", "float.h", "inttypes.h", "limits.h", "math.h", "setjmp.h", "stdalign.h",
    "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "stdnoreturn.h", "string.h",
    "strings.h", "immintrin.h", "nmmintrin.h", "arm_acle.h",
    "sanitizer/asan_interface.h", "sanitizer/tsan_interface.h", "sanitizer/lsan_interface.h",
    "sanitizer/common_interface_defs.h",
    "valgrind/valgrind.h", "valgrind/memcheck.h",
}
REAL_ROOMS = ("host", "host/attach")


class Foreign(NamedTuple):
    headers: str  # regular expressions
    symbols: str
    why: str


# A foreign library lives in host/ or in one file. These are the files, and all they may reach beyond what is pure.
FOREIGN_FILES = {
    "src/data/tls/tls.c": Foreign(
        r"openssl/\w+\.h", r"(SSL|TLS|BIO|ERR|EVP|HMAC|X509|OPENSSL)_\w+|HMAC", "TLS; its bytes come and go through callbacks, so it touches no socket"),
    "src/data/nvme/nvme_auth_crypto.c": Foreign(
        r"gnutls/\w+\.h|gmp\.h", r"gnutls_\w+|__gmpz_\w+", "hashes and modular exponentiation: numbers in, numbers out"),
    "src/control/js.c": Foreign(r"jansson\.h|time\.h", r"json_\w+|strftime", "JSON text and times given to it as text: it reads no clock"),
    "src/control/meta/meta_sqlite_db.c": Foreign(
        r"sqlite3\.h", r"sqlite3_\w+|strerror", "the metastore of one machine; it runs on worker threads and never in the simulator"),
    "src/control/api/http_server.c": Foreign(
        r"microhttpd\.h|time\.h|pthread\.h|poll\.h|fcntl\.h|signal\.h|unistd\.h|sys/(socket|stat|un)\.h",
        r"MHD_\w+|pthread_\w+|poll|fcntl|f?chmod|l?stat(64)?|unlink|umask|socket|bind|listen|accept4?|connect|close|shutdown|"
        r"read|write|pipe2?|eventfd|send|recv|sig(empty|fill|add)set|setsockopt|getsockopt|signal|sigaction|clock_gettime",
        "HTTP on real sockets and a thread of its own; the routes behind it are functions and run anywhere"),
    "src/sim/sim_loop.c": Foreign(r"sys/mman\.h", r"(mmap|munmap|mprotect)(64)?", "stacks for fibers, with a guard page"),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')


def source_files(root):
    for top in ("src", "cmd", "tests"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def includes_of(root, path):
    """(line number, is a system header, header as written) of each include."""
    with open(os.path.join(root, path), encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            if match := INCLUDE.match(line):
                yield number, match[1] == "<", match[2]


def room_of(path):
    inside = path.removeprefix("src/")
    fitting = [room for room in ROOMS if inside.startswith(room + "/")]
    return max(fitting, key=len, default=None)


def resolve(root, path, header):
    """The project's file that `header` names in `path`, or None."""
    for candidate in (os.path.join(os.path.dirname(path), header), os.path.join("src", header)):
        candidate = os.path.normpath(candidate)
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def foreign_complaint(path, header):
    room = room_of(path)
    foreign = FOREIGN_FILES.get(path)
    if room in REAL_ROOMS or header in PURE_HEADERS or (foreign and re.fullmatch(foreign.headers, header)):
        return None
    return f"{room}/ runs in the simulator and may not include <{header}>; foreign libraries live in host/"


def room_complaint(path, target):
    room, other = room_of(path), room_of(target)
    header = target.removeprefix("src/")
    if room not in PRIVATE_HEADERS.get(header, (room,)):
        return f"{header} is for {', '.join(PRIVATE_HEADERS[header])} only"
    if target in TEST_HEADERS:
        return f"{header} is for tests only"
    if other is None:
        return f"{target} belongs to no room"
    if other != room and other not in ROOMS[room]:
        allowed = ", ".join(ROOMS[room]) or "nothing"
        return f"{room}/ may not include {other}/ (it may: {allowed})"
    return None


def complaint_about(root, path, is_system, header):
    if OUTSIDE.search(path):
        return None
    if room_of(path) is None:
        return "this file is in no room of the table"
    if is_system:
        return foreign_complaint(path, header)
    target = resolve(root, path, header)
    return room_complaint(path, target) if target else f'"{header}" is no file of the project'


def circles(graph):
    """Each circle once, as a list of nodes."""
    found, done = [], set()

    def visit(node, trail):
        if node in trail:
            found.append(trail[trail.index(node):] + [node])
            return
        if node in done:
            return
        for neighbour in sorted(graph.get(node, ())):
            visit(neighbour, trail + [node])
        done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return found


def check(root):
    complaints, files, rooms = [], {}, {}
    for path in source_files(root):
        for number, is_system, header in includes_of(root, path):
            if complaint := complaint_about(root, path, is_system, header):
                complaints.append(f"{path}:{number}: {complaint}")
            target = None if is_system else resolve(root, path, header)
            if target:
                files.setdefault(path, set()).add(target)
                if not OUTSIDE.search(path) and room_of(path) != room_of(target):
                    rooms.setdefault(room_of(path) or path, set()).add(room_of(target) or target)
    for circle in circles(files):
        complaints.append(f"{circle[0]}:1: includes run in a circle: {' -> '.join(circle)}")
    for circle in circles(rooms):
        complaints.append(f"src/{circle[0]}:1: rooms include each other: {' -> '.join(circle)}")
    return complaints


# ---- does it see what it should? ------------------------------------------------------------------------------------

# (files of a scratch tree, what the one complaint must contain; None: there must be none)
SAMPLES = (
    ({"src/base/a.h": "#include <string.h>\n", "src/rt/r.h": '#include "base/a.h"\n'}, None),
    ({"src/data/store/s.c": '#include "data/engine/e.h"\n', "src/data/engine/e.h": ""},
     "src/data/store/s.c:1: data/store/ may not include data/engine/"),
    ({"src/data/frontend/n.c": "\n#include \"data/store/p.h\"\n", "src/data/store/p.h": ""},
     "src/data/frontend/n.c:2: data/frontend/ may not include data/store/"),
    ({"src/data/engine/e.c": '#include "control/api/a.h"\n', "src/control/api/a.h": ""}, "may not include control/api/"),
    ({"src/data/store/s.c": '#include "host/h.h"\n', "src/host/h.h": ""}, "may not include host/"),
    ({"src/sim/m.c": '#include "data/store/p.h"\n', "src/data/store/p.h": ""}, None),
    ({"src/data/store/s.c": '#  include "sim/h.h"\n', "src/sim/h.h": ""}, "may not include sim/"),
    ({"src/data/store/s.c": '#include "../../host/h.h"\n', "src/host/h.h": ""}, "may not include host/"),
    ({"src/data/store/s_test.c": '#include "sim/h.h"\n', "src/sim/h.h": ""}, None),
    ({"src/data/store/s.c": "#include <time.h>\n"}, "may not include <time.h>"),
    ({"src/host/h.c": "#include <liburing.h>\n"}, None),
    ({"src/control/js.c": "#include <jansson.h>\n"}, None),
    ({"src/control/node/n.c": "#include <jansson.h>\n"}, "may not include <jansson.h>"),
    ({"src/data/engine/pool_double.c": "#include <time.h>\n"}, None),
    ({"src/control/node/n.c": '#include "control/js.h"\n', "src/control/js.h": ""}, None),
    ({"src/control/js.h": '#include "control/node/n.h"\n', "src/control/node/n.h": ""}, "may not include control/node/"),
    ({"src/data/store/s.c": '#include "rt/rt_platform.h"\n', "src/rt/rt_platform.h": ""}, "is for rt, host, sim only"),
    ({"src/base/a.h": '#include "base/b.h"\n', "src/base/b.h": '#include "base/a.h"\n'}, "includes run in a circle"),
    ({"src/stray/a.c": '#include "base/b.h"\n', "src/base/b.h": ""}, "in no room"),
    ({"src/base/a.c": '#include "base/gone.h"\n'}, "no file of the project"),
    ({"src/base/a.c": '#include "base/test.h"\n', "src/base/test.h": ""}, "for tests only"),
    ({"src/rt/a.c": '#include "base/fuzz.h"\n', "src/base/fuzz.h": ""}, "for tests only"),
)


def check_sample(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as sample:
                sample.write(text)
        return check(root)


def self_test(samples, complaints_about):
    """Each sample is a pair: what is planted, and what the one complaint about it must contain (None: there is none)."""
    failures = 0
    for planted, wanted in samples:
        got = complaints_about(planted)
        good = not got if wanted is None else len(got) == 1 and wanted in got[0]
        if not good:
            failures += 1
            print(f"FAILED: {planted}\n  wanted: {wanted}\n  got:    {got}")
    print(f"{len(samples) - failures} passed, {failures} failed")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test(SAMPLES, check_sample)
    root = arguments[0] if arguments else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    complaints = check(root)
    print("\n".join(complaints) or "every include follows the table")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
