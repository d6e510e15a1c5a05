# The two commands of the README, and what they are made of. `make help` lists them.

CARGO ?= cargo
# How many failovers `make bench` and `make lab-bench` do of each kind, and `make lab-soak` in all.
RUNS ?= 10
FAILOVERS ?= 30
DEMO_FLAGS = $(if $(filter 1,$(ONCE)),--once) $(if $(BMC),--bmc $(BMC))

# Features of what is built. Those of the simulator are no harm, and let `.ci/run` build everything only once.
FEATURES ?=
BUILD = $(CARGO) build --release --quiet --workspace $(if $(FEATURES),--features $(FEATURES))
# What the demo starts.
DEMO_BINS = demo rack ha-supervisord hactl ha-agent

# How long `make fuzz` tries each target, and which one; empty: all.
SECONDS ?= 60
TARGET ?=

# Seeds of the simulator that `make test` plays: safety and liveness.
SEEDS ?= 200
LIVENESS_SEEDS ?= 50

.PHONY: help demo bench build test smoke test-chaos test-planted lab lab-demo lab-test lab-bench lab-soak lab-down tools fmt-check clippy unit fix fuzz fuzz-keep agent-static test-openstack

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Watch a hung server come back on other hardware (ONCE=1: every kind of failure; BMC=ipmi_sim: Debian's BMC)
	@$(BUILD) $(DEMO_BINS:%=--bin %)
	@target/release/demo $(DEMO_FLAGS)

bench: build ## Measure failovers; prints medians and ranges (RUNS=10)
	@target/release/demo --bench $(RUNS)
	@target/release/demo --bench-fence $(RUNS)
	@target/release/demo --bench-policy $(RUNS)

build: ## Build everything that runs, optimised
	@$(BUILD) --bins

test: tools fmt-check clippy unit smoke ## Format, lints, all tests; installs openipmi, ipmitool, Open vSwitch, tgt, QEMU and sushy-tools if they are missing

test-chaos: build ## Break the real programs (root; otherwise SKIPPED): 20 scenarios; SOAK=1h: by chance, as long (SEED=n)
	@.ci/chaos-tools
	@target/release/field $(if $(SEED),--seed $(SEED)) $(if $(SOAK),soak $(SOAK),run --all)

lab: tools build ## Real machines to play with (root): QEMU, ipmi_sim, tgt, Open vSwitch, until Ctrl-C or `make lab-down`
	@target/release/lab up

lab-demo: tools build ## One failover of a real machine, and what `hactl failover show` says of it (root)
	@target/release/lab demo

lab-test: tools build ## Let everything go wrong with real machines (root): TRIALS="hang thaw", default: all
	@target/release/lab test $(if $(TRIALS),$(TRIALS),--all)

lab-bench: tools build ## Measure failovers of real machines, to cold and to hot spares by turns (root; RUNS=10 of each)
	@target/release/lab bench --runs $(RUNS)

lab-soak: tools build ## Let a real machine's instance fail over again and again; no write may be lost or doubled (root; FAILOVERS=30)
	@target/release/lab soak --failovers $(FAILOVERS)

lab-down: ## End the lab that is up
	@target/release/lab down

test-openstack: ## OpenStack's real services (root, Debian 12): every call, whole failovers (TRIALS="hang hang-volume", default: all, half an hour)
	@chaos-tests/openstack/test

test-planted: ## Break a copy of the product in known ways, one at a time: the simulator must find each
	$(CARGO) chaos planted

tools:
	@.ci/tools

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked --features chaos-tests/sim -- -D warnings

unit:
	$(CARGO) test --workspace --locked --features chaos-tests/sim

smoke: ## Play the whole product in simulated worlds (SEEDS=200, LIVENESS_SEEDS=50); `cargo chaos --help` for more
	$(CARGO) chaos run --seeds 1..$(SEEDS)
	$(CARGO) chaos run --seeds 1..$(LIVENESS_SEEDS) --mode liveness

fix: ## Format, and take the expected outputs as they are now (read the diff)
	$(CARGO) fmt --all
	UPDATE_EXPECT=1 $(CARGO) test --workspace

fuzz: ## Try to break every parser (SECONDS=60 each, TARGET=bmc for one)
	@chaos-tests/fuzz/run $(SECONDS) $(TARGET)

fuzz-keep: ## Take what fuzzing has found into the kept corpora
	@chaos-tests/fuzz/run keep $(TARGET)

HOST = $(shell rustc -vV | sed -n 's/^host: //p')
agent-static: ## ha-agent as one static file for any Linux of this architecture
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --package ha-agent --target $(HOST)
	ldd target/$(HOST)/release/ha-agent 2>&1 | grep -q 'statically linked'
