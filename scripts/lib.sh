# Shared by the scripts: finds Python, checks what pip cannot bring, keeps .venv up to date. Sourced, never run.
# shellcheck shell=bash

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
LOG="$VENV/install.log"
STAMP="$VENV/.installed"
cd "$ROOT"

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $1"
    shift
    for line in "$@"; do say "       $line"; done
    exit 2
}

is_supported_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.12 python3.13 python3.11 python; do
        if [[ -n "$candidate" ]] && is_supported_python "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "Python 3.11, 3.12 or 3.13 is needed and was not found." "$(install_line python)" \
        "One that is not on PATH can be named: PYTHON=/path/to/python3.12 $0"
}

# Prints the names, as the package manager $1 has them, of the things in $2...: python, venv, headers, compiler, gmp.
package_names() {
    local manager="$1" thing
    shift
    for thing in "$@"; do
        case "$manager:$thing" in
            apt:python) printf 'python3 ' ;;
            apt:venv) printf 'python3-venv ' ;;
            apt:headers) printf 'python3-dev ' ;;
            apt:compiler) printf 'gcc libc6-dev ' ;;
            apt:gmp) printf 'libgmp-dev ' ;;
            dnf:python | dnf:venv) printf 'python3.12 ' ;;
            dnf:headers) printf 'python3-devel ' ;;
            dnf:compiler) printf 'gcc ' ;;
            dnf:gmp) printf 'gmp-devel ' ;;
            pacman:python | pacman:venv | pacman:headers) printf 'python ' ;;
            pacman:compiler) printf 'gcc ' ;;
            pacman:gmp) printf 'gmp ' ;;
            brew:python | brew:venv | brew:headers) printf 'python@3.12 ' ;;
            brew:compiler) ;; # comes with the command line tools, see install_line
            brew:gmp) printf 'gmp ' ;;
        esac
    done
}

# The exact line that installs the things in $@ on this machine.
install_line() {
    local sudo=""
    [[ "$(id -u)" == 0 ]] || sudo="sudo "
    if command -v apt-get >/dev/null; then
        printf 'Install it with:  %sapt-get install %s\n' "$sudo" "$(package_names apt "$@")"
    elif command -v dnf >/dev/null; then
        printf 'Install it with:  %sdnf install %s\n' "$sudo" "$(package_names dnf "$@")"
    elif command -v pacman >/dev/null; then
        printf 'Install it with:  %spacman -S --needed %s\n' "$sudo" "$(package_names pacman "$@")"
    elif command -v brew >/dev/null; then
        local line
        line="brew install $(package_names brew "$@")"
        [[ " $* " == *" compiler "* ]] && line="xcode-select --install; $line"
        printf 'Install it with:  %s\n' "$line"
    else
        printf 'Install with the package manager of this system: %s\n' "$*"
    fi
}

include_flags() {
    printf '%s ' "${CPPFLAGS:-}" "${CFLAGS:-}"
    if command -v brew >/dev/null; then printf -- '-I%s/include ' "$(brew --prefix)"; fi
}

has_gmp_header() {
    # The flags are meant to be split into words.
    # shellcheck disable=SC2046
    printf '#include <gmp.h>\n' | "${CC:-cc}" $(include_flags) -E -x c - >/dev/null 2>&1
}

# libp2p depends on fastecdsa, which has no wheel for most systems: to build it takes these. Prints what is missing.
missing_for_building() {
    local python="$1"
    command -v "${CC:-cc}" >/dev/null || printf 'compiler '
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || printf 'headers '
    has_gmp_header || printf 'gmp '
}

missing_for_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || printf 'venv '
}

# True where pip need not build fastecdsa: it is installed already, or there is a wheel for this system.
has_fastecdsa() {
    local version folder found=1
    "$VENV/bin/python" -c 'import fastecdsa.curvemath' >/dev/null 2>&1 && return
    version="$(grep -E '^fastecdsa==' constraints.txt)"
    folder="$(mktemp -d)"
    "$VENV/bin/python" -m pip -q download --only-binary=:all: --no-deps -d "$folder" "$version" >/dev/null 2>&1 || found=0
    rm -rf "$folder"
    ((found))
}

require() {
    local reason="$1" missing="$2"
    # The names are meant to be split into words.
    # shellcheck disable=SC2086
    [[ -z "$missing" ]] || die "missing: ${missing% }" "$reason" "$(install_line $missing)"
}

make_venv() {
    local python
    python="$(find_python)"
    require "The packages go into a virtual environment." "$(missing_for_venv "$python")"
    say "Making .venv with $("$python" --version)"
    "$python" -m venv "$VENV"
}

check_build_tools() {
    local missing
    missing="$(missing_for_building "$VENV/bin/python")"
    if [[ -n "$missing" ]] && ! has_fastecdsa; then
        require "fastecdsa, which libp2p needs, is built here with a C compiler, Python.h and gmp.h." "$missing"
    fi
}

# The dependencies as they are declared, and the Python they are for.
fingerprint() {
    "$VENV/bin/python" - pyproject.toml constraints.txt <<'PYTHON'
import hashlib, sys, tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
declared = repr((sys.version, project["dependencies"], project["optional-dependencies"]))
print(hashlib.sha256(declared.encode() + open(sys.argv[2], "rb").read()).hexdigest()[:16])
PYTHON
}

# True when the stamp says that these extras ($1, comma separated) are installed as declared now.
is_installed() {
    local extra installed_print installed_extras
    [[ -f "$STAMP" ]] || return 1
    read -r installed_print installed_extras <"$STAMP"
    [[ "$installed_print" == "$(fingerprint)" ]] || return 1
    [[ ",$installed_extras," != *",all,"* ]] || installed_extras+=",torch,openvino"
    for extra in ${1//,/ }; do
        [[ ",$installed_extras," == *",$extra,"* ]] || return 1
    done
}

# Runs pip with its output in the log, and says every ten seconds how far it is.
pip_with_progress() {
    local pid began=$SECONDS next=$((SECONDS + 10)) last
    CPPFLAGS="$(include_flags)" "$VENV/bin/python" -m pip --no-input --disable-pip-version-check "$@" >>"$LOG" 2>&1 &
    pid=$!
    # Set aside for INT and TERM, so that an interrupted script leaves no pip behind.
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        if ((SECONDS >= next)); then
            next=$((SECONDS + 10))
            last="$(grep -aE '^ *(Collecting|Downloading|Processing|Building|Installing)' "$LOG" | tail -1)"
            last="$(sed -E 's/^ *//; s/^(Installing collected packages).*/\1/; s/ \(from .*//' <<<"$last" | cut -c1-90)"
            say "  $((SECONDS - began)) s  $last"
        fi
    done
    trap - INT TERM
    wait "$pid"
}

fail_with_log() {
    say "error: pip could not install it. The end of $LOG:"
    tail -25 "$LOG" >&2
    exit 1
}

# ensure_installed EXTRAS: makes .venv where there is none, installs what changed since last time.
ensure_installed() {
    local extras="$1"
    [[ -x "$VENV/bin/python" ]] || make_venv
    is_supported_python "$VENV/bin/python" || die ".venv holds an unsupported Python." "Remove it: rm -r $VENV"
    if ! is_installed "$extras"; then
        check_build_tools
        install_all "$extras"
    fi
    # A strict editable install does not see new files until it is made again.
    "$VENV/bin/python" -m pip install -q --no-input --disable-pip-version-check --no-build-isolation --no-deps -e . \
        >>"$LOG" 2>&1 || fail_with_log
}

install_all() {
    local extras="$1" began=$SECONDS
    : >"$LOG"
    say "Installing ipfs-accel-node${extras:+[$extras]}; the first time this downloads a lot. The log is $LOG"
    pip_with_progress install -c constraints.txt setuptools -e ".${extras:+[$extras]}" || fail_with_log
    printf '%s %s\n' "$(fingerprint)" "$extras" >"$STAMP"
    say "Installed in $((SECONDS - began)) s"
}

run_checks() {
    local packages
    # libp2p brings trio-typing, whose old stubs hide trio's own types from mypy unless trio is found first.
    packages="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    mkdir -p "$VENV/mypy-path"
    ln -sfn "$packages/trio" "$VENV/mypy-path/trio"
    "$VENV/bin/ruff" check .
    "$VENV/bin/ruff" format --check .
    "$VENV/bin/mypy"
}
