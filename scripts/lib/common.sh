# Shared by the scripts in this folder: messages, paths, settings. Sourced by bash.

say() { printf 'hone: %s\n' "$*" >&2; }
die() { printf 'hone: error: %s\n' "$*" >&2; exit 1; }

# The checkout, by its real path: that is how it is seen inside the environment too.
HONE_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Everything that is made once and kept lies here, outside the checkout.
: "${HONE_CACHE:=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/hone}"
[[ $HONE_CACHE == /* ]] || HONE_CACHE=$PWD/$HONE_CACHE
export HONE_CACHE
export CCACHE_DIR=${CCACHE_DIR:-$HONE_CACHE/ccache}

# The package names in a list: comments and empty lines are left out.
package_names() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$HONE_TOP/scripts/packages/$1.txt"; }

# package_names_upto SET: those of SET and of the sets that it adds to: build, test, bench
package_names_upto() {
    local set
    for set in build test bench; do
        package_names "$set"
        [[ $set != "$1" ]] || return 0
    done
}

# elapsed SECONDS_AT_START: "1 m 05 s"
elapsed() { local s=$((SECONDS - $1)); printf '%d m %02d s' $((s / 60)) $((s % 60)); }
