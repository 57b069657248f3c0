# What the scripts share; sourced by the scripts beside it and .ci/run. Bash, called from the root of the tree.
# shellcheck shell=bash

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# What this machine runs.
if [[ -r /etc/os-release ]]; then
    # shellcheck source=/dev/null
    . /etc/os-release
fi
# shellcheck disable=SC2034
distribution=${ID:-unknown} codename=${VERSION_CODENAME:-unknown}

# Runs a command as root, or explains how somebody else could.
as_root() {
    if (( EUID == 0 )); then
        "$@"
    elif command -v sudo >/dev/null; then
        say "needs root: sudo $*"
        sudo "$@"
    else
        die "needs root, and there is no sudo here. As root, run: $*"
    fi
}

apt_updated=false
apt_install() {
    command -v apt-get >/dev/null ||
        die "this is $distribution, without apt: install the equivalents of these Debian packages by hand: $*"
    local options=(-qq -o DPkg::Lock::Timeout=300)
    if ! $apt_updated; then
        say "apt-get update"
        as_root apt-get "${options[@]}" update || say "apt-get update failed; trying with the lists that are here"
        apt_updated=true
    fi
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -y --no-install-recommends "$@" >&2 ||
        die "could not install $*; apt said why above"
}

# Where cargo-nextest and cargo-deny go when this machine lacks them: one directory per pinned set.
TOOLS_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/enclave/tools-$(cksum <scripts/tools.txt | cut -d ' ' -f 1)

# A cargo of rustup comes before the distribution's, which is usually too old.
export PATH="$HOME/.cargo/bin:$PATH:$HOME/.local/bin:$TOOLS_DIR/bin"
