# `make demo` and `make test` do everything on a fresh Debian or Ubuntu machine; the rest is for developers.
# What is done is said on stderr, so that `make -s demo ARGS=--json` leaves only data on stdout.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup dev-setup build image demo test lint bench clean

# Prebuilt tools and a rustup cargo, as scripts/lib.sh has them.
export PATH := $(HOME)/.cargo/bin:$(PATH):$(HOME)/.local/bin:$(shell . scripts/lib.sh && echo $$TOOLS_DIR)/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
ENCLAVE := $(TARGET)/release/enclave

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## install what is missing: packages, Rust, runsc
	@scripts/setup

dev-setup:
	@scripts/setup --dev

build: setup ## build target/release/enclave
	@cargo build --release --locked --package server >&2
	@if [ "$(TARGET)" != target ]; then mkdir -p target/release && ln -sfn "$$(realpath $(ENCLAVE))" target/release/enclave; fi

image: build ## build the sandbox image, if it is not there
	@$(ENCLAVE) image build >&2

demo: image ## run hostile and honest programs in real sandboxes (ARGS=--json for data)
	@$(ENCLAVE) demo $(ARGS)

test: dev-setup image ## every test, on every backend that is here
	@scripts/test

lint: dev-setup ## formatting, clippy, the rules of the tree, licences
	@scripts/lint

bench: image ## measure the platform against bare runsc
	@cargo xtask bench $(ARGS)

clean: ## remove what was built in the tree
	@cargo clean
