in_memory() {
    case $(stat -f -c %T "$1" 2>/dev/null) in
        tmpfs | ramfs) ;;
        *) return 1 ;;
    esac
}

# Calls "$@" with each place that may be in memory until it succeeds. In the first ones no other user can do anything.
in_memories() {
    for base in /run "${XDG_RUNTIME_DIR:-}" "/run/user/$uid" /dev/shm; do
        case $base in /*) "$@" "$base" && return ;; esac
    done
    return 1
}

# Calls "$@" with each place for a private directory until it succeeds. A pull by a user other than root goes on without
# a session, and what the user has in memory may go with the last one (logind's RemoveIPC). The home directory comes
# last, for a user whose names in /tmp are all taken.
in_places() {
    if [ -z "$detached" ] || [ "$uid" = 0 ]; then
        in_memories "$@" && return
    fi
    for base in "${TMPDIR:-}" /tmp /var/tmp "${HOME:-}"; do
        case $base in /*) "$@" "$base" && return ;; esac
    done
    return 1
}

# Judges what ls says of a private directory and of all above it. $said becomes "ours" if the private directory is there
# with the mode that we give it, "safe" if it can be made, or the line of what others could put something in the place
# of.
check_places() {
    said=
    while read -r mode links owner rest; do
        case $rest in
            */"prepull-$uid") case $mode in drwx--[-S]---*) said=ours; continue ;; esac ;;
            *)
                case $mode in
                    d????-??-* | d????????[tT]*)
                        said=${said:-safe}
                        case $owner in 0 | "$uid") continue ;; esac
                        ;;
                esac
                ;;
        esac
        said="$mode $owner $rest"
        break
    done
}

# Opens this user's private directory in directory $1, as $private: of mode 0700, ours by owner, no link and below none,
# and where nobody else can put another under its name. Whatever else has the name is left alone; $said tells why.
open_private() {
    said='not writable'
    place=${1%/}
    private=$place/prepull-$uid
    [ -w "$1" ] || return
    set -- "$private"
    while [ -n "$place" ]; do
        set -- "$@" "$place"
        place=${place%/*}
    done
    # No here-document: bash before 5.1 writes it to a file in a place that may be full.
    listed=$(QUOTING_STYLE=literal ls -ldn / "$@" 2>/dev/null)
    said=$(printf '%s\n' "$listed" | { check_places; printf %s "$said"; })
    case $said in
        ours) is_ours "$private" && return ;;
        safe)
            mkdir -m 700 "$private" 2>/dev/null && return
            said=$(mkdir -m 700 "$private" 2>&1)
            ;;
    esac
    return 1
}

# Makes $private/$nonce in place $1.
make_own_directory() {
    # Another call may just have made the private directory, or removed it at its end.
    for again in 1 2 3 4; do
        open_private "$1" || continue
        said='not writable'
        mkdir "$private/$nonce" && return
    done 2>/dev/null
    return 1
}

# Makes $dir and its pipes in the private directory of place $1.
make_in() {
    if make_own_directory "$1"; then
        dir=$private/$nonce
        said='no room for 16 KiB'
        # Only writing shows that a place is full.
        printf %16384s '' >"$dir/stdout" && mkfifo "$dir/stdout-pipe" "$dir/stderr-pipe" "$dir/question" &&
            fresh=yes && return
        remove
    fi 2>/dev/null
    why="$why; $private: $said"
    dir=
    return 1
}

is_ours() {
    ! [ -h "$1" ] && [ -d "$1" ] && [ -O "$1" ]
}

# Finds $dir in the private directory of place $1: that of a pull which an earlier connection began.
find_in() {
    is_ours "$1/prepull-$uid" && open_private "$1" && dir=$private/$nonce && is_ours "$dir"
}

make_directory() {
    why=
    fresh=
    [ -n "$detached" ] && in_places find_in && return
    in_places make_in && return
    dir=
    set -f
    # shellcheck disable=SC2086 # spaces are folded
    refuse directory $why
}

#pull
# Makes $vault, where a file with a login may lie: in memory, or on a disk where that is allowed.
make_vault() {
    vault=$dir/login
    in_memory "$dir" || in_memories vault_in || [ -n "$may_use_disk" ] || { vault=; return; }
    [ -d "$vault" ] || mkdir "$vault"
    printf '%s\n' "$vault" >"$dir/vault"
}

vault_in() {
    vault=$dir/login
    in_memory "$1" && make_own_directory "$1" && vault=$private/$nonce
}

# Puts command $1's secret into the vault.
make_secret() {
    eval "name=\$secret_file_$1 secret=\$secret_$1"
    # That of an earlier command went when its client had read it.
    [ -d "$vault" ] || make_vault
    [ -n "$vault" ] && printf %s "$secret" >"$vault/$name"
}

#both
forget_secret() {
    [ -n "$vault" ] && is_ours "${vault%/*}" && rm -rf "$vault" && rmdir "${vault%/*}"
} 2>/dev/null
