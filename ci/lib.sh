# shellcheck shell=bash
# Sourced by the scripts beside it: finds what the project needs, and installs what can be installed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Versions that the workspace's rust-version builds: the newest cargo-nextest asks for more.
NEXTEST=0.9.114
CARGO_DENY=0.20.2
TYPOS=1.52.0
MDBOOK=0.5.4
CARGO_DEB_VERSION=3.8.0

# The Rust whose rustfmt, Clippy and rustdoc decide. Each release adds lints, and a pinned one keeps them
# from failing a change that did not cause them.
LINT_TOOLCHAIN=1.95.0

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '    %s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# A field of os-release, such as ID. A system without the file has none.
os() {
    local file
    for file in /etc/os-release /usr/lib/os-release; do
        [ -r "$file" ] || continue
        # shellcheck disable=SC1090
        (unset "$1"; . "$file"; printf '%s' "${!1-}")
        return
    done
}

# Everything a build and a guest need: $1 is `guests`, or `kernels` for what kernels are built with as
# well. Cargo comes first: without it, nothing is touched.
set_up() {
    need_cargo
    PURPOSE=$1
    need_packages
}

# The oldest Rust that builds the workspace.
minimum_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

# Whether rustup has a toolchain for version $1.
has_toolchain() { have rustup && rustup run "$1" rustc --version >/dev/null 2>&1; }

# Runs cargo of LINT_TOOLCHAIN where rustup has it.
lint_cargo() {
    if has_toolchain "$LINT_TOOLCHAIN"; then
        rustup run "$LINT_TOOLCHAIN" cargo "$@"
    else
        cargo "$@"
    fi
}

# The first cargo that is new enough, the one on the PATH before rustup's. A shell that was open
# when rustup came does not have the latter on its PATH.
need_cargo() {
    local wanted dir version found='' rustup=''
    wanted=$(minimum_rust)
    for dir in "$(dirname "$(command -v cargo || echo /none/cargo)")" "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"; do
        [ -x "$dir/cargo" ] || continue
        [ ! -x "$dir/rustup" ] || rustup=yes
        if ! version=$(PATH="$dir:$PATH" rustc --version 2>&1); then
            found="$dir/cargo does not run: $(head -n 1 <<<"$version")"
            continue
        fi
        version=$(cut -d ' ' -f 2 <<<"$version")
        if at_least "$version" "$wanted"; then
            export PATH="$dir:$PATH"
            return
        fi
        found="the Rust of $dir is version $version"
    done
    rust_advice "${found:-there is no cargo}, and this project needs Rust $wanted or newer" "$rustup"
}

# Ends with the way to a Rust that is new enough, on this distribution. $2 is empty without rustup.
rust_advice() {
    local sudo='' advice
    [ "$EUID" -eq 0 ] || sudo='sudo '
    local site='rustup, as https://rustup.rs tells, and then open a new shell'
    case "$(os ID) $(os ID_LIKE)" in
    debian* | ubuntu* | *debian*)
        local since=13
        [ "$(os ID)" != ubuntu ] || since=24.04
        advice="$site (what this release packages is too old)"
        # A derivative's own numbers tell nothing; testing and unstable have none.
        case "$(os ID)" in
        debian | ubuntu)
            if at_least "$(os VERSION_ID || true)" "$since" || [ -z "$(os VERSION_ID)" ]; then
                advice="${sudo}apt-get update && ${sudo}apt-get install rustup && rustup default stable"
            fi
            ;;
        esac
        ;;
    fedora*) advice="${sudo}dnf install cargo" ;;
    *suse*) advice="${sudo}zypper install rustup && rustup default stable" ;;
    arch* | *arch*) advice="${sudo}pacman -S rustup && rustup default stable" ;;
    *) advice=$site ;;
    esac
    [ -z "$2" ] || advice='rustup update stable && rustup default stable'
    die "$1." "Install it with:  $advice" "Then run this again. Nothing was changed."
}

# What is missing, by purpose. Each is looked for as it will be used, not by a package's name.
missing() {
    have "${DMARIG_QEMU:-qemu-system-x86_64}" || echo qemu
    have cc || echo cc
    # The guest's agent is static. A compiler that is missing can't tell where libc.a is.
    case $(cc -print-file-name=libc.a 2>/dev/null) in
    /*) ;;
    *) echo libc ;;
    esac
    # Cargo reads the system's certificates; minimal images have none.
    [ -n "${SSL_CERT_FILE-}" ] || [ -e /etc/ssl/certs/ca-certificates.crt ] ||
        [ -e /etc/pki/tls/certs/ca-bundle.crt ] || [ -e /etc/ssl/ca-bundle.pem ] || echo certificates
    [ "$PURPOSE" = kernels ] || return 0
    local tool
    for tool in make flex bison bc perl git; do
        have "$tool" || echo "$tool"
    done
    have strip || echo binutils
    # objtool, which goes over each object of a kernel, reads them with it.
    ! have cc || echo '#include <gelf.h>' | cc -E - >/dev/null 2>&1 || echo libelf
}

need_packages() {
    local lacks manager names=() what
    lacks=$(missing)
    [ -n "$lacks" ] || return 0
    for manager in apt-get dnf zypper pacman ''; do
        have "${manager:-true}" && break
    done
    [ -n "$manager" ] || die "missing: ${lacks//$'\n'/, }; and no package manager that this script knows." \
        "Install qemu-system-x86_64, a C compiler as cc, and a static C library (libc.a)."
    for what in $lacks; do
        case $manager:$what in
        apt-get:qemu) names+=(qemu-system-x86) ;;
        dnf:qemu) names+=(qemu-system-x86-core) ;;
        zypper:qemu) names+=(qemu-x86) ;;
        pacman:qemu) names+=(qemu-system-x86) ;;
        apt-get:libc) names+=(libc6-dev) ;;
        dnf:libc) names+=(glibc-static) ;;
        zypper:libc) names+=(glibc-devel-static) ;;
        pacman:libc) names+=(glibc) ;;
        apt-get:libelf) names+=(libelf-dev) ;;
        dnf:libelf) names+=(elfutils-libelf-devel) ;;
        zypper:libelf) names+=(libelf-devel) ;;
        pacman:libelf) names+=(libelf) ;;
        *:make | *:flex | *:bison | *:bc | *:perl | *:git | *:binutils) names+=("$what") ;;
        *:cc) names+=(gcc) ;;
        *:certificates) names+=(ca-certificates) ;;
        esac
    done
    say "missing: ${lacks//$'\n'/, }; installing ${names[*]} through $manager"
    case $manager in
    apt-get)
        # Lists that one source can't renew may still be good enough.
        as_root apt-get update || say "apt-get update failed; trying with the lists that are there"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${names[@]}"
        ;;
    dnf) as_root dnf install -y "${names[@]}" ;;
    zypper) as_root zypper --non-interactive install --no-recommends "${names[@]}" ;;
    pacman) as_root pacman -S --needed --noconfirm "${names[@]}" ;;
    esac || die "$manager could not install ${names[*]}: see above."
    lacks=$(missing)
    [ -z "$lacks" ] || die "still missing after the installation: ${lacks//$'\n'/, }."
}

# Runs a command as root, and says so. Without a terminal sudo can't ask for a password: then it
# must not try.
as_root() {
    local sudo=()
    if [ "$EUID" -ne 0 ]; then
        have sudo || die "this needs root, and there is no sudo. As root, run:" "$*"
        sudo=(sudo)
        [ -t 0 ] || sudo+=(-n)
    fi
    say "running: ${sudo[*]}${sudo:+ }$*"
    # What package managers print is progress, not the result of the script.
    "${sudo[@]}" "$@" >&2
}

# need_program COMMAND CRATE OLDEST PINNED [OPTION...]: builds version PINNED of a program into ~/.cargo/bin if
# COMMAND is missing or older than OLDEST. It is hardly optimized, because that would take longer than it saves. The
# options go to `cargo install`.
need_program() {
    local command=$1 crate=$2 oldest=$3 pinned=$4 version
    shift 4
    # shellcheck disable=SC2086  # the command has two words
    version=$(cd / && $command --version 2>/dev/null | sed -n '1s/^[a-z-]* v\{0,1\}\([0-9.]*\).*/\1/p') || true
    if [ -n "$version" ] && at_least "$version" "$oldest"; then
        return
    fi
    say "$crate is ${version:-missing}${version:+, too old}; building $pinned (some minutes, once)"
    (cd / && CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 lint_cargo install --locked --force "$@" "$crate@$pinned") >&2
}

# Without what only nextest's self-update needs.
need_nextest() {
    local oldest
    oldest=$(sed -n 's/^nextest-version = "\(.*\)"/\1/p' "$ROOT/.config/nextest.toml")
    need_program 'cargo nextest' cargo-nextest "$oldest" "$NEXTEST" --no-default-features
}

need_cargo_deny() { need_program 'cargo deny' cargo-deny "$CARGO_DENY" "$CARGO_DENY"; }

need_typos() { need_program typos typos-cli "$TYPOS" "$TYPOS"; }

need_cargo_deb() { need_program "cargo deb" cargo-deb "$CARGO_DEB_VERSION" "$CARGO_DEB_VERSION"; }

need_mdbook() { need_program mdbook mdbook "$MDBOOK" "$MDBOOK" --no-default-features --features search; }

# Installs the programs of ci/prose from its lock file.
need_prose_programs() {
    local directory=$ROOT/ci/prose
    cmp -s "$directory/package-lock.json" "$directory/node_modules/.installed" && return
    say "installing textlint and remark"
    npm ci --prefix "$directory" --no-audit --no-fund >&2 &&
        cp "$directory/package-lock.json" "$directory/node_modules/.installed"
}

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --manifest-path "$ROOT/Cargo.toml" --format-version 1 --no-deps --locked |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# stage DIR: builds the release and puts what belongs below a prefix such as /usr into DIR.
stage() {
    local target shell file
    target=$(target_dir)
    say "building dmarig"
    cargo build --manifest-path "$ROOT/Cargo.toml" --release --locked --package dmarig --package dmarig-reference
    rm -rf "$1"
    mkdir -p "$1/bin" "$1/share/man/man1"
    install -m 755 "$target/release/dmarig" "$1/bin/dmarig"
    "$target/release/dmarig-reference" man "$1/share/man/man1"
    for shell in bash:bash-completion/completions/dmarig zsh:zsh/site-functions/_dmarig \
        fish:fish/vendor_completions.d/dmarig.fish; do
        file=$1/share/${shell#*:}
        mkdir -p "$(dirname "$file")"
        # Called by its name alone, so that the completion calls whichever dmarig is in PATH.
        PATH="$1/bin:$PATH" COMPLETE=${shell%%:*} dmarig >"$file"
    done
}
