#!/usr/bin/python3
"""The documents are right where a machine can tell.

    tests/check_docs.py [BUILD_DIR]

Every relative link in every Markdown file resolves, anchors included; every file a document names in `backticks` under src/,
tests/, docs/, scripts/ or cmd/ exists; every `make` target a document shows exists. With a build that has the programs: each
option in --help is in the man page and the other way round.
"""
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:src|tests|docs|scripts|cmd|dist)/[A-Za-z0-9_./-]+)`")
MAKE_TARGET = re.compile(r"`make ([a-z]+)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
PROGRAMS = {"oxbowd": "oxbowd.8", "oxbow": "oxbow.1", "oxbow-bench": "oxbow-bench.1", "oxbow-sim": "oxbow-sim.1"}


def read(path):
    with open(path, encoding="utf-8") as document:
        return document.read()


def documents():
    return sorted(glob.glob(os.path.join(ROOT, "*.md")) + glob.glob(os.path.join(ROOT, "docs", "**", "*.md"), recursive=True))


def anchors(text):
    """As the usual renderers make them from headings."""
    plain = (re.sub(r"[`*_]", "", heading).strip().lower() for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def link_complaints(path, text):
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        full = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(full):
            yield f"link to {target}, which does not exist"
        elif anchor and full.endswith(".md") and anchor not in anchors(read(full)):
            yield f"link to {target}, which has no such heading"


def name_complaints(text, targets):
    for name in NAMED_FILE.findall(text):
        if not glob.glob(os.path.join(ROOT, name.rstrip("."))):
            yield f"names {name}, which does not exist"
    for target in MAKE_TARGET.findall(text):
        if target not in targets:
            yield f"shows `make {target}`, which the Makefile does not have"


def make_targets():
    return set(re.findall(r"^([a-z]+):", read(os.path.join(ROOT, "Makefile")), re.MULTILINE))


def options_of_help(program):
    done = subprocess.run([program, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    return set(OPTION.findall(done.stdout + done.stderr))


def options_of_man(page):
    return set(OPTION.findall(read(page).replace("\\-", "-")))


def man_complaints(build_dir):
    """Of each program that is built and has a man page in the source tree."""
    for program, page_name in PROGRAMS.items():
        binary = os.path.join(build_dir, "cmd", program)
        pages = [p for p in glob.glob(os.path.join(ROOT, "**", page_name), recursive=True) if "/build" not in p]
        if not os.path.exists(binary) or not pages:
            print(f"SKIP {program}: no {'program' if pages else 'man page'} yet")
            continue
        in_help, in_man = options_of_help(binary), options_of_man(pages[0])
        page = os.path.relpath(pages[0], ROOT)
        yield from (f"{page}: {option} of {program} --help is missing" for option in sorted(in_help - in_man))
        yield from (f"{page}: {option} is not in {program} --help" for option in sorted(in_man - in_help))


def main(arguments):
    targets, complaints = make_targets(), []
    for path in documents():
        text, short = read(path), os.path.relpath(path, ROOT)
        found = [*link_complaints(path, text), *name_complaints(text, targets)]
        complaints += [f"{short}: {complaint}" for complaint in found]
    if arguments:
        complaints += man_complaints(arguments[0])
    print("\n".join(complaints) or f"{len(documents())} documents are right")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
