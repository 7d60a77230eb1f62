#!/usr/bin/env bash
# Runs a cargo command for 64-bit ARM, its binaries under emulation (qemu-user, all CPU features).
#
#   arm64.sh                                     test -p secateur-simd -p secateur-engine --lib --tests
#   arm64.sh test -p secateur-simd --lib dot     any other cargo command; doc tests are never cross-run
#
# As root on Debian it installs what is missing, and adds the architecture arm64 for that: rustc-web and
# libstd-rust-web-dev:arm64 (a compiler with the ARM standard library), gcc-aarch64-linux-gnu and
# libc6-dev-arm64-cross (a linker), qemu-user. Where that cannot be, it prints `skipped: reason` and exits 0.
# Emulation proves correctness, not speed.
set -eu

target=aarch64-unknown-linux-gnu
packages=(rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
apt=(apt-get -qq -o DPkg::Lock::Timeout=300)

skip() {
  echo "skipped: $1"
  exit 0
}

installed() {
  [ -d "/usr/lib/rustlib/$target" ] && command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null
}

install_packages() {
  dpkg --add-architecture arm64 && "${apt[@]}" update \
    && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
}

[ $# -gt 0 ] || set -- test -p secateur-simd -p secateur-engine --lib --tests
cd "$(dirname "$0")/.."

if ! installed; then
  command -v apt-get >/dev/null || skip "no apt-get here to install ${packages[*]}"
  [ "$(id -u)" = 0 ] || skip "not root, so these cannot be installed: ${packages[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  install_packages >"$log" 2>&1 && installed || skip "cannot install ${packages[*]}: $(tail -n 1 "$log")"
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] \
  || skip "Debian's rustc is $found, the workspace needs $wanted"

export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max"
# Dynamically linked programs hang in this qemu when they start a thread.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/arm64"
command=$1
shift
cargo "$command" --target "$target" "$@"
