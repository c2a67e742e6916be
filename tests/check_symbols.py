#!/usr/bin/python3
"""What runs in the simulator calls nothing impure: no clock, no syscall, no thread, no ring (design idea 5).

    tests/check_symbols.py BUILD_DIR      complain about each archive's undefined symbols, status 1 if there are any
    tests/check_symbols.py --self-test    compile each fault and see that it is named

Every undefined symbol of a simulable room's archive must be defined in a room it may use (the table in check_includes.py),
or be on the list of pure functions below. Anything unknown fails: a list of what is forbidden would forget something.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from check_includes import FOREIGN_FILES, OUTSIDE, REAL_ROOMS, ROOMS, self_test  # noqa: E402

# What only computes, or takes memory. malloc is deterministic enough: no address may decide anything.
PURE = set("""
    abort free malloc calloc realloc reallocarray aligned_alloc posix_memalign
    memchr memrchr memcmp memcpy memmem memmove mempcpy memset memccpy bcmp explicit_bzero __explicit_bzero_chk __memcpy_chk __memmove_chk __memset_chk
    stpcpy strcasecmp strcasestr strcat strchr strchrnul strcmp strcpy strcspn strdup strlcpy strlen strncasecmp strncat
    strncmp strncpy strndup strnlen strpbrk strrchr strsep strspn strstr strtok_r strverscmp
    strtod strtol strtoll strtoul strtoull atoi __isoc99_sscanf __ctype_b_loc __ctype_tolower_loc __ctype_toupper_loc
    isalnum isalpha isdigit isprint isspace isupper isxdigit tolower toupper
    snprintf vsnprintf sprintf vasprintf asprintf open_memstream fclose fwrite fputc fputs fflush
    qsort qsort_r bsearch abs labs div ldiv ffs ffsl ffsll
    ceil floor fabs fmod log log2 exp pow sqrt round lround llround isnan isinf
    __errno_location __assert_fail __stack_chk_fail setjmp _setjmp longjmp __sigsetjmp
    _GLOBAL_OFFSET_TABLE_ __tls_get_addr __cpu_model __cpu_indicator_init __divti3 __modti3 __udivti3 __umodti3 __popcountdi2
    gmtime_r timegm
""".split())

# Fortified forms of the above.
PURE_PATTERNS = (re.compile(r"^__(v?snprintf|v?sprintf|v?asprintf|str\w+|stp\w+|mem\w+|longjmp)_chk$"),)

# object file -> (symbols it may also use, why). Writing to stderr before abort() is how a process dies, not how it works.
DYING_WORDS = r"stderr|fprintf|__fprintf_chk|fputs|fwrite"
EXCEPTIONS = {
    "base/mem.c": (DYING_WORDS, "says why it aborts when there is no memory at all"),
    "rt/fiber.c": (DYING_WORDS, "says which fiber overran its stack before it aborts"),
    "sim/sim_disk.c": (DYING_WORDS, "tells a person about the run"),
    "sim/sim_trace.c": (DYING_WORDS, "the same"),
    "sim/pool_run.c": (DYING_WORDS, "the same"),
    **{path.removeprefix("src/"): (foreign.symbols, foreign.why) for path, foreign in FOREIGN_FILES.items()},
}

# (room, symbol) a room calls past the one below it, and why.
CROSSINGS = {
    ("data/frontend", "pool_name_check"): "only looks at text; seen through engine.h",
    ("control/api", "pool_name_check"): "the same, through node.h",
    ("control/api", "pool_job_kind_name"): "a name for a number",
    ("control/api", "engine_op_name"): "a name for a number",
    ("control/api", "engines_stats_walk"): "reads counters, of the engines that node.h hands out",
}

# For the message: what kind of impurity a known name is.
KINDS = (
    (re.compile(r"^(clock_|time$|gettimeofday|nanosleep|usleep|sleep$|localtime)"), "a clock"),
    (re.compile(r"^(pthread_|thrd_|mtx_|sem_)"), "a thread"),
    (re.compile(r"^(io_uring_|__io_uring)"), "a ring"),
    (re.compile(r"^(rand|srand|random|getrandom|arc4random|drand48)"), "chance without a seed"),
    (re.compile(r"^(open|close|read|write|pread|pwrite|fsync|fdatasync|ioctl|mmap|munmap|socket|bind|listen|accept|connect|"
                r"send|recv|poll|epoll_|select|stat|fstat|unlink|rename|mkdir|fork|exec|kill|signal|syscall)"), "a syscall"),
    (re.compile(r"^(getenv|setenv|getpid|printf|puts|fopen)"), "the process's surroundings"),
)


def nm(archive, *options):
    """(object file, type letter, symbol) of each symbol."""
    text = subprocess.run(["nm", "-A", *options, archive], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        where, _, rest = line.rpartition(":")
        fields = rest.split()
        yield where.rpartition(":")[2] or where, fields[-2], fields[-1].partition("@")[0]


def folder_of_archive(build_dir, archive):
    return os.path.relpath(os.path.dirname(archive), os.path.join(build_dir, "src"))


def room_of(folder, member):
    """The room of one object in an archive made in `folder`: meson writes api/api.c as api_api.c.o. None: in no room."""
    fitting = [room for room in ROOMS
               if room == folder or (room.startswith(folder + "/")
                                     and member.startswith(room.removeprefix(folder + "/").replace("/", "_") + "_"))]
    return max(fitting, key=len, default=None)


def is_outside(name):
    """Test doubles, and the store with bugs to plant: never part of a product."""
    return "mutants" in name or OUTSIDE.search(name.removeprefix("lib").removesuffix(".a") + ".c")


def archives_in(build_dir):
    """(path, folder of the house) of each archive."""
    for top, _, names in os.walk(os.path.join(build_dir, "src")):
        for name in sorted(names):
            path = os.path.join(top, name)
            if name.endswith(".a") and not is_outside(name):
                yield path, folder_of_archive(build_dir, path)


def definitions(archives):
    """symbol -> the room that defines it."""
    return {symbol: room_of(folder, os.path.basename(member)) for path, folder in archives
            for member, _, symbol in nm(path, "--defined-only")}


def source_of(room, member):
    """The exception's file for an object: nbd_nbd_server.c.o of data/frontend is data/frontend/nbd/nbd_server.c."""
    mangled = member.removesuffix(".o")
    return next((path for path in EXCEPTIONS if path.startswith(room + "/") and path.replace("/", "_").endswith(mangled)), None)


def is_pure(room, member, symbol):
    if symbol in PURE or any(p.match(symbol) for p in PURE_PATTERNS):
        return True
    source = source_of(room, member)
    return source is not None and re.fullmatch(EXCEPTIONS[source][0], symbol) is not None


def complaint_about(room, member, symbol, defined):
    if symbol in defined:
        other = defined[symbol]
        if other == room or other in ROOMS[room] or (room, symbol) in CROSSINGS:
            return None
        return f"{symbol} is defined in {other}/, which {room}/ may not use"
    if is_pure(room, member, symbol):
        return None
    kind = next((text for pattern, text in KINDS if pattern.match(symbol)), "not on the list of pure functions")
    return f"{symbol}: {kind}"


def check(build_dir):
    archives = list(archives_in(build_dir))
    defined = definitions(archives)
    complaints, checked = [], []
    for path, folder in archives:
        short = os.path.relpath(path, build_dir)
        if folder in REAL_ROOMS:
            continue
        checked.append(short)
        for member, _, symbol in nm(path, "--undefined-only"):
            member = os.path.basename(member)
            room = room_of(folder, member)
            complaint = complaint_about(room, member, symbol, defined) if room else "is in no room of the table"
            if complaint:
                complaints.append(f"{short}({member}): {complaint}")
    return complaints, checked


# ---- does it see what it should? ------------------------------------------------------------------------------------

# (source of src/data/store/s.c, what the complaint must contain; None: there must be none)
SAMPLES = (
    ("#include <string.h>\nint f(const char *s) { return (int)strlen(s); }", None),
    ("#include <time.h>\nlong f(void) { return time(0); }", "time: a clock"),
    ("#include <unistd.h>\nlong f(void *p) { return read(0, p, 1); }", "read: a syscall"),
    ("#include <pthread.h>\nint f(pthread_mutex_t *m) { return pthread_mutex_lock(m); }", "pthread_mutex_lock: a thread"),
    ("int io_uring_submit(void *); int f(void) { return io_uring_submit(0); }", "io_uring_submit: a ring"),
    ("#include <stdlib.h>\nint f(void) { return rand(); }", "rand: chance without a seed"),
    ("#include <stdlib.h>\nchar *f(void) { return getenv(\"X\"); }", "getenv: the process's surroundings"),
    ("int some_novelty(void); int f(void) { return some_novelty(); }", "some_novelty: not on the list"),
    ("int host_thing(void); int f(void) { return host_thing(); }", "host_thing is defined in host/"),
    ("int base_thing(void); int f(void) { return base_thing(); }", None),
)


def compile_archive(build_dir, room, source):
    folder = os.path.join(build_dir, "src", room)
    os.makedirs(folder)
    with open(os.path.join(folder, "s.c"), "w", encoding="utf-8") as sample:
        sample.write(source + "\n")
    subprocess.run(["gcc", "-O1", "-c", "s.c", "-o", "s.o"], cwd=folder, check=True)
    subprocess.run(["ar", "rcs", f"lib{os.path.basename(room)}.a", "s.o"], cwd=folder, check=True)


def check_sample(source):
    with tempfile.TemporaryDirectory() as build_dir:
        compile_archive(build_dir, "base", "int base_thing(void) { return 1; }")
        compile_archive(build_dir, "host", "int host_thing(void) { return 1; }")
        compile_archive(build_dir, "data/store", source)
        return check(build_dir)[0]


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test(SAMPLES, check_sample)
    if len(arguments) != 1:
        print(__doc__)
        return 2
    complaints, checked = check(arguments[0])
    print("\n".join(complaints) or f"{len(checked)} archives are pure: {' '.join(checked)}")
    return 1 if complaints or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
