# Everything by its short name; the work is done by Meson and Ninja (scripts/build) and by scripts/run-tests.
#
#   make            install what is missing, build build/mendfs and build/mendfs-sim
#   make up         start an array of this machine and mount it;  make down  stops it, data kept
#   make test       everything that must pass before a change goes in;  make lint  only the lints
#   make test-mutants  each rule of src/base/mutant.h left out once: all must be found
#   make test-long  the next piece of the long tests, at most 40 minutes (scripts/test-long --help; ARGS="--piece NAME")
#   make tidy       clang-tidy over all sources (.clang-tidy)
#   make fuzz       the fuzzers, FUZZ_SECONDS each
#   make install    into PREFIX given to the first build (/usr/local), under DESTDIR;  make clean
#
# ARGS goes to `mendfs up`, `mendfs down` and test-long: make up ARGS="--ioms 5 --mount /mnt/x"
ARGS =
export FUZZ_SECONDS ?= 20

# Without the unit tests, which are built where they are run.
programs = $(if $(wildcard src/cli/main.c),mendfs) $(if $(wildcard sim/main.c),mendfs-sim)

.PHONY: all deps up down test test-mutants test-long lint tidy fuzz clean install

all: deps
	@scripts/build build $(programs)

deps:
	@scripts/install-deps

up: all
	@build/mendfs up $(ARGS)

down:
	@build/mendfs down $(ARGS)

test:
	@scripts/run-tests deps build lint unit asan live sim spin

test-mutants: deps
	@tests/sim/mutants.sh $(ARGS)

test-long: all
	@scripts/test-long $(ARGS)

lint:
	@scripts/run-tests deps build lint

fuzz:
	@scripts/run-tests deps fuzz

clean:
	rm -rf build build-asan build-fuzz

install: all
	meson install -C build --no-rebuild

tidy: all
	clang-tidy -p build --quiet $(wildcard src/*/*.c sim/*.c)
