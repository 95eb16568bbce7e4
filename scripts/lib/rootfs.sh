# The Debian 13 root file system in the cache: made once, completed on demand. Sourced by bash.
#
# What must stay true: a folder named debian13-<hash> is always complete, because it is made under
# another name and renamed last. A lock lets two runs start at once; the second one waits. As an
# ordinary user the work happens in a user namespace in which the user is root.

MIRROR=${HONE_MIRROR:-http://deb.debian.org/debian}
SUITE=trixie
ROOTFS_VERSION=1 # raise when the way the file system is made changes

TOOLS=$HONE_CACHE/tools

# rootfs_path: where the file system for the present package list is or will be. The hash is
# over the names, so that a better comment does not cost anybody a new environment.
rootfs_path() {
    local key
    key=$({ echo "$ROOTFS_VERSION $SUITE $MIRROR"; package_names build; } | sha256sum)
    echo "$HONE_CACHE/debian13-${key:0:12}"
}

# set_stamp ROOT SET: the file that says that today's set (test, bench) is installed in ROOT
set_stamp() {
    local key
    key=$(package_names "$2" | sha256sum)
    echo "$1.$2-${key:0:12}"
}

have() { command -v "$1" >/dev/null 2>&1; }

# as_root CMD...: with the rights to own files as any user: root itself, or a user namespace
as_root() {
    if [[ $EUID == 0 ]]; then
        unshare --mount -- "$@"
    else
        unshare --user --map-root-user --map-auto --mount -- "$@"
    fi
}

# run_logged LOG CMD...: quiet when it works; else the end of the log is shown
run_logged() {
    local log=$1
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        say "this failed: $1 ... The last lines of $log:"
        tail -n 15 "$log" | sed 's/^/    /' >&2
        return 1
    fi
}

# What an administrator has to do so that an ordinary user can prepare the environment.
explain_user_setup() {
    local me
    me=$(id -un)
    if ! unshare --user --map-root-user --mount true 2>/dev/null; then
        say "this machine does not let ordinary users create user namespaces. As root, run:"
        say "    sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
        say "    sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   # Ubuntu only"
        return 0
    fi
    if ! have newuidmap; then
        say "the program newuidmap is missing. As root, run:"
        say "    apt-get install uidmap"
    fi
    if ! grep -q "^\($me\|$EUID\):" /etc/subuid 2>/dev/null ||
        ! grep -q "^\($me\|$EUID\):" /etc/subgid 2>/dev/null; then
        # behind the ranges of all other users
        local first range
        first=$(cat /etc/subuid /etc/subgid 2>/dev/null |
            awk -F: 'BEGIN { n = 100000 } $2 + $3 > n { n = $2 + $3 } END { print n }')
        range=$first-$((first + 65535))
        say "user $me has no range of subordinate ids. As root, run:"
        say "    usermod --add-subuids $range --add-subgids $range $me"
    fi
}

# Where the kernel and the rights allow to make and enter a root file system.
can_make_rootfs() { have unshare && as_root true 2>/dev/null; }

# fetch_tools: makes mmdebstrap available: installed by root, else unpacked into the cache
fetch_tools() {
    local log=$1
    PATH=$PATH:/usr/sbin:/sbin:$TOOLS/usr/bin
    have mmdebstrap && return 0
    if [[ $EUID == 0 ]] && have debootstrap; then return 0; fi
    have apt-get || return 1
    say "fetching mmdebstrap, the tool that makes Debian file systems"
    if [[ $EUID == 0 ]]; then
        run_logged "$log" apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive run_logged "$log" apt-get install -y -qq \
            --no-install-recommends mmdebstrap
        return
    fi
    local dir
    dir=$(mktemp -d "$HONE_CACHE/tools.XXXXXX")
    (
        cd "$dir"
        # without package lists on the machine, read them into the cache
        if ! apt-get download mmdebstrap >>"$log" 2>&1; then
            mkdir -p lists/partial
            run_logged "$log" apt-get -o Dir::State::Lists="$dir/lists" update &&
                run_logged "$log" apt-get -o Dir::State::Lists="$dir/lists" download mmdebstrap
        fi && run_logged "$log" dpkg-deb -x mmdebstrap_*.deb .
    ) || { rm -rf "$dir"; return 1; }
    rm -rf "$dir"/lists "$dir"/*.deb "$TOOLS"
    mv "$dir" "$TOOLS"
    have mmdebstrap
}

# install_inside ROOT LOG SET: apt-get in ROOT; goes on where an interrupted run stopped
install_inside() {
    local packages
    mapfile -t packages < <(package_names "$3")
    run_logged "$2" as_root "$HONE_TOP/scripts/lib/enter" --writable "$1" / sh -c '
        export DEBIAN_FRONTEND=noninteractive
        dpkg --configure -a && apt-get update -qq &&
            apt-get install -y -qq --no-install-recommends "$@" && apt-get clean &&
            rm -rf /var/lib/apt/lists/*
    ' sh "${packages[@]}"
}

# bootstrap DIR LOG: the base system and the build set into DIR
bootstrap() {
    local dir=$1 log=$2 packages
    packages=$({ echo mount; package_names build; } | paste -sd,) # mount: for lib/enter
    # manuals and translations are of no use here: this halves what is written
    local lean=(
        --dpkgopt=force-unsafe-io
        --dpkgopt='path-exclude=/usr/share/man/*'
        --dpkgopt='path-exclude=/usr/share/info/*'
        --dpkgopt='path-exclude=/usr/share/locale/*'
        --dpkgopt='path-exclude=/usr/share/doc/*'
        --dpkgopt='path-include=/usr/share/doc/*/copyright'
    )
    if have mmdebstrap; then
        run_logged "$log" as_root env TMPDIR=/tmp mmdebstrap --mode=root --variant=apt \
            --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
            --aptopt='Acquire::Retries "3"' \
            "${lean[@]}" --include="$packages" "$SUITE" "$dir" "$MIRROR"
    else
        # debootstrap orders only simple dependencies: the rest is for apt
        run_logged "$log" debootstrap --variant=minbase --include=mount "$SUITE" "$dir" "$MIRROR" &&
            install_inside "$dir" "$log" build
    fi
}

# remove_tree DIR: also what belongs to subordinate ids
remove_tree() { [[ ! -e $1 ]] || as_root rm -rf --one-file-system "$1"; }

# remove_rootfs: every root file system of this cache, also those of earlier package lists
remove_rootfs() {
    local path
    for path in "$HONE_CACHE"/debian13[-.]* "$HONE_CACHE/tools" "$HONE_CACHE/enter"; do
        [[ $path == *.lock ]] || remove_tree "$path"
    done
}

# finish DIR: what entering relies on
finish() {
    as_root sh -eu -c '
        cd "$1"
        rm -f etc/resolv.conf etc/hosts etc/hostname
        : >etc/resolv.conf; : >etc/hosts; : >etc/hostname
        # no package may start a daemon in here
        printf "#!/bin/sh\nexit 101\n" >usr/sbin/policy-rc.d
        chmod 755 usr/sbin/policy-rc.d
    ' sh "$1"
}

make_rootfs() {
    local root=$1 log=$HONE_CACHE/debian13.log start=$SECONDS dir
    : >"$log"
    can_make_rootfs || return 1
    fetch_tools "$log" || die "mmdebstrap could not be fetched; see $log"
    # leftovers of interrupted runs: we hold the lock, so nobody is using them
    for dir in "$HONE_CACHE"/debian13.new.*; do remove_tree "$dir"; done
    dir=$HONE_CACHE/debian13.new.$$
    say "preparing the Debian 13 environment in $root (once, 1 to 4 minutes)"
    (exec {CACHE_LOCK}>&-; watch_log "$log") &
    local watcher=$!
    if ! bootstrap "$dir" "$log" || ! finish "$dir"; then
        kill "$watcher" 2>/dev/null || true
        remove_tree "$dir"
        die "the Debian 13 environment could not be prepared from $MIRROR; see $log"
    fi
    kill "$watcher" 2>/dev/null || true
    mv "$dir" "$root"
    say "the environment is ready after $(elapsed "$start")"
}

# add_packages ROOT SET: completes ROOT with the packages of SET, from inside
add_packages() {
    local root=$1 set=$2 log=$HONE_CACHE/debian13-$2.log start=$SECONDS
    : >"$log"
    case $set in
        test) say "adding what the tests need (once, about 1 minute)" ;;
        bench) say "adding PyTorch, the peer of training (once, about 1 GB, some minutes)" ;;
    esac
    if ! install_inside "$root" "$log" "$set"; then
        die "the packages of the set '$set' could not be installed; see $log"
    fi
    : >"$(set_stamp "$root" "$set")"
    say "they are there after $(elapsed "$start")"
}

# has_sets ROOT SET: SET and the sets that it adds to are installed
has_sets() {
    [[ -d $1 ]] && { [[ $2 == build ]] || [[ -e $(set_stamp "$1" test) ]]; } &&
        { [[ $2 != bench ]] || [[ -e $(set_stamp "$1" bench) ]]; }
}

# watch_log LOG: names the phases of mmdebstrap as they come
watch_log() {
    local seen='' now
    while sleep 1; do
        [[ -d /proc/$PPID ]] && kill -0 $$ 2>/dev/null || return 0
        case $(tail -n 1 "$1" 2>/dev/null) in
            *'running apt-get update'* | Get:*) now='reading the package lists' ;;
            *'downloading packages'*) now='downloading packages' ;;
            *'extracting'*) now='unpacking the base system' ;;
            *'installing essential'* | *'installing remaining'*) now='installing packages' ;;
            *) now='' ;;
        esac
        if [[ -n $now && $now != "$seen" ]]; then say "    $now"; seen=$now; fi
    done
}

# with_lock CMD...: one at a time for this cache. Programs that CMD starts hold the lock too: a run
# that was killed keeps others out until the last of its programs has ended.
with_lock() {
    local status=0
    exec {CACHE_LOCK}>"$HONE_CACHE/debian13.lock"
    if ! flock -n "$CACHE_LOCK"; then
        say "another run is preparing the environment; waiting for it"
        flock "$CACHE_LOCK"
    fi
    "$@" || status=$?
    exec {CACHE_LOCK}>&-
    return $status
}

# prepare_locked ROOT SET: looks again, now that nobody else is at work
prepare_locked() {
    local root=$1
    [[ -d $root ]] || make_rootfs "$root" || return 1
    [[ $2 == build || -e $(set_stamp "$root" test) ]] || add_packages "$root" test
    [[ $2 != bench || -e $(set_stamp "$root" bench) ]] || add_packages "$root" bench
}

# prepare_rootfs ROOT SET: afterwards ROOT holds the package set "build", "test" or "bench".
# Returns 1 where this machine cannot make or enter a root file system at all.
prepare_rootfs() {
    local root=$1
    if has_sets "$root" "$2"; then return 0; fi
    can_make_rootfs || return 1
    with_lock prepare_locked "$root" "$2"
}
