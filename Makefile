# The thin way in: everything here is one call to meson, ninja or a script that says what it does.
.DEFAULT_GOAL := build
.PHONY: help build deps run test asan tsan fuzz bench field cover soak sim lint format install uninstall clean

help:               ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build:              ## a release build in build/release
	@scripts/deps build
	@scripts/build release

deps:               ## install what building and testing need, from Debian's packages
	@scripts/deps build test

run:                ## build, start a daemon on ./var, make a volume, say what to try; Ctrl-C stops it
	@scripts/deps build
	@scripts/build release --quiet
	@exec scripts/serve

test: deps          ## everything CI runs, in at most 15 minutes on 2 cores
	@tests/run

asan: deps          ## unit tests under AddressSanitizer and UBSan
	@tests/run unit-asan
	@meson test -C build/asan --no-rebuild --suite heavy --timeout-multiplier 4

tsan: deps          ## unit tests under ThreadSanitizer
	@scripts/build tsan
	@setarch -R meson test -C build/tsan --no-rebuild --no-suite slow --no-suite sim --no-suite solo --timeout-multiplier 8

FUZZ_SECONDS ?= 60
fuzz: deps          ## each fuzz target for FUZZ_SECONDS (60)
	@scripts/build fuzz
	@tests/fuzz --seconds $(FUZZ_SECONDS) build/fuzz

bench:              ## measure against peers, write docs/performance.md; QUICK=1: three minutes, writes nothing
	@scripts/deps build test bench
	@scripts/build release
	@tests/bench/run $(if $(QUICK),--quick)

field: deps         ## mirrored volumes over daemons, networks and disks that fail: all of it, ten minutes
	@scripts/build release
	@tests/field_test.py
	@tests/field_kernel_test.py

cover:              ## line and branch coverage of the unit tests, in build/cover/report
	@scripts/deps build test cover
	@scripts/build cover
	@meson test -C build/cover --no-rebuild
	@mkdir -p build/cover/report
	@gcovr --root . --filter src/ --exclude '.*_test\.c' --html-details build/cover/report/index.html \
		--print-summary build/cover

SOAK_KILLS ?= 1000
soak: deps          ## kill the daemon SOAK_KILLS (1000) times under verified load, and three with a mirrored volume
	@scripts/build release
	@tests/kill_test.py --kills $(SOAK_KILLS)
	@OXBOW_KILLS=$(SOAK_KILLS) tests/field_test.py all_killed

SIM_FOR ?= 1h
sim: deps           ## the simulator on seeds of its own for SIM_FOR (1h)
	@scripts/build release
	@build/release/cmd/oxbow-sim --for $(SIM_FOR)

lint: deps          ## format, include table, pure archives, links in the documents
	@tests/run format includes 'symbols*' docs

format:             ## let clang-format-14 lay out every C file
	@tests/check_format --fix

install: build      ## install daemon, command line, man pages, completion and systemd unit (DESTDIR, PREFIX)
	@meson configure build/release $(if $(PREFIX),--prefix $(PREFIX)) >/dev/null
	@meson install -C build/release $(if $(DESTDIR),--destdir $(abspath $(DESTDIR))) --strip

uninstall:          ## undo `make install`
	@ninja -C build/release uninstall

clean:              ## remove what was built; ./var, where `make run` keeps data, is left alone
	@rm -rf build
