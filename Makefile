# Two commands for people: `make demo` and `make test`. Both install what is missing, build with
# CMake and Ninja, and run. `make help` lists every target with its sentence.
BUILD ?= build
GENERATOR ?= Ninja
CMAKE_FLAGS ?=
CTEST_FLAGS ?=
JOBS ?= $(shell nproc)
OUT ?= out/demo

.DEFAULT_GOAL := help
.PHONY: help packages build demo test test-asan test-tsan fuzz bench format golden clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages: ## install the distribution packages of packages.txt (root), or print the line that does
	@sh cmake/packages.sh

build: packages ## build build/meed
	@cmake -S . -B $(BUILD) -G $(GENERATOR) $(CMAKE_FLAGS) > $(BUILD).configure.log 2>&1 \
	  || { cat $(BUILD).configure.log; exit 1; }
	@mkdir -p $(BUILD) && mv $(BUILD).configure.log $(BUILD)/configure.log
	@cmake --build $(BUILD) -j $(JOBS) --target meed -- --quiet

demo: build ## six clients fine-tune the embedded model over gRPC; ends with who earned what
	@rm -rf $(OUT)
	@$(BUILD)/meed up examples/tiny/federation.yaml --state $(OUT) --json $(OUT)/report.json

test: packages ## build and run every test
	@cmake -S . -B $(BUILD) -G $(GENERATOR) $(CMAKE_FLAGS) > /dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target meed meed_tests -- --quiet
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure $(CTEST_FLAGS)

test-asan: ## the test suite under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory test BUILD=build-asan CMAKE_FLAGS=-DMEED_SANITIZE=address

test-tsan: ## server, transport and worker threads under ThreadSanitizer
	@TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1" \
	  $(MAKE) --no-print-directory test BUILD=build-tsan CMAKE_FLAGS=-DMEED_SANITIZE=thread \
	  CTEST_FLAGS="-R 'threads|rpc|service|settle|federation|worker'"

fuzz: packages ## every decoder under libFuzzer, a minute each (clang)
	@sh tests/fuzz/run.sh

bench: build ## measure this machine: kernels, lora, train, coalitions, generate, codec, rpc
	@bench/run all

format: ## clang-format every source
	@clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh')

clean: ## remove the build folders
	@rm -rf build build-asan build-tsan build-fuzz out
