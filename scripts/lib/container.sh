# The last resort of scripts/dev: where no root file system can be made or entered, a container of
# Docker or Podman, if there is one. Sourced by bash.
#
# One container per package set stays in the background and commands are run in it, so that programs
# which a command leaves running survive the command.

# explain_no_way: why neither worked here and what to do; ends the script
explain_no_way() {
    if [[ $EUID == 0 ]]; then
        say "this machine does not let root mount file systems; is it a container itself?"
        say "Start it with the right to do so (docker run --privileged), or start from an image"
        say "of Debian 13 (debian:trixie), in which everything runs directly."
    else
        explain_user_setup
    fi
    die "no way into Debian 13 was found: no root file system, no Docker, no Podman"
}

# find_engine: prints the container engine that answers
find_engine() {
    local engine
    for engine in podman docker; do
        if have "$engine" && "$engine" info >/dev/null 2>&1; then
            echo "$engine"
            return 0
        fi
    done
    return 1
}

# build_image ENGINE IMAGE SET
build_image() {
    local packages log=$HONE_CACHE/image.log
    packages=$(package_names_upto "$3")
    say "preparing a Debian 13 image with $1 (once, 1 to 4 minutes)"
    : >"$log"
    if ! "$1" build --network host -t "$2" - >>"$log" 2>&1 <<DOCKERFILE; then
FROM ${HONE_IMAGE:-docker.io/library/debian:trixie}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends $(paste -sd' ' <<<"$packages") && apt-get clean
DOCKERFILE
        tail -n 15 "$log" | sed 's/^/    /' >&2
        die "the image could not be built; see $log"
    fi
}

# start_container ENGINE IMAGE NAME: sees the folders of this machine under their own names
start_container() {
    local path mounts=()
    for path in /* /var/tmp; do
        case $path in
            /bin | /sbin | /lib* | /usr | /etc | /var | /boot | /dev | /proc | /sys | /run) ;;
            *) [[ ! -d $path ]] || mounts+=(-v "$path:$path") ;;
        esac
    done
    local ids=()
    [[ $1 != podman || $EUID == 0 ]] || ids=(--userns keep-id)
    # the shell takes in processes that lost their parent
    "$1" run -d --rm --name "$3" --network host --ipc host "${ids[@]}" \
        "${mounts[@]}" "$2" \
        bash -c 'trap "exit 0" TERM; while :; do sleep 3600 & wait; done' >/dev/null
}

# prepare_container ENGINE IMAGE NAME SET
prepare_container() {
    "$1" image inspect "$2" >/dev/null 2>&1 || build_image "$1" "$2" "$4"
    [[ -n $("$1" ps -q -f "name=^$3\$") ]] || start_container "$1" "$2" "$3"
}

# run_in_container SET CMD...
run_in_container() {
    local set=$1 engine key image name
    shift
    engine=$(find_engine) || explain_no_way
    key=$(package_names_upto "$set" | sha256sum)
    image=hone-dev:${key:0:12}
    name=hone-dev-${key:0:12}-$EUID
    with_lock prepare_container "$engine" "$image" "$name" "$set" ||
        die "the container $name could not be started"
    local options=(-i -w "$PWD" -u "$EUID:$(id -g)" -e HONE_INSIDE=1 -e LC_ALL=C.UTF-8)
    [[ ! -t 0 || ! -t 1 ]] || options+=(-t)
    # the environment of the caller, but for what describes the machine outside
    while IFS= read -r variable; do
        case $variable in
            PATH | LC_* | LANG | LANGUAGE | LD_* | PWD | SHLVL | _) ;;
            *) options+=(-e "$variable") ;;
        esac
    done < <(compgen -e)
    exec "$engine" exec "${options[@]}" "$name" "$@"
}
