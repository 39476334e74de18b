# The program that prepull runs on a node, in POSIX sh: dash, bash and busybox ash all run it.
#
# It is sent on standard input (see request.rs), comments and indentation taken out, followed by values.
# A value is data: it is assigned to variables and handed on as "$@", never evaluated.
#
# Needs: mkfifo mkdir rmdir rm ls head tail cat wc sleep (coreutils and busybox have them all), and a printf
# that is built into the shell. Uses setsid where there is one, and stat to find memory file systems.
#
# Other users of the node are hostile. All files are in one directory of the user's own (open_private), and a
# process is signalled only once it is proven to be the one that was written down (is_same, is_alive).
#
# A question or the operator's command is tied to the session: the main shell writes to its output, and a
# watcher sits on its input. When that reads "cancel", or ends because we are gone, the command is ended.
#
# A pull is not. A supervisor runs it and writes the same frames to a file, in a directory that has the
# pull's name; the main shell only shows that file to whoever is there, now or on another connection. A
# keeper ends the pull when nobody asked after it for a whole lease.
# What follows a line "#pull" is sent with pulls alone, what follows "#call" with everything else, "#both" with both.
# The bootstrap left $n (a newline) and $locale (what LC_ALL was).

frame() {
    printf 'prepull-%s %s\n' "$nonce" "$*" || lost=yes
}

refuse() {
    frame "refused $*"
    finish
}

# Reads one value into $value: the number of its lines, then the lines.
get() {
    IFS= read -r lines || exit 1
    IFS= read -r value || exit 1
    while [ "$lines" -gt 1 ]; do
        IFS= read -r line || exit 1
        value=$value$n$line
        lines=$((lines - 1))
    done
}

# Reads command number $1 into variables that end in its number. The names are ours; eval sees no value.
get_command() {
    unset "secret_$1"
    get; eval "arguments_$1=\$value"
    left=$value
    while [ "$left" -gt 0 ]; do
        get; eval "argument_$1_$left=\$value"
        left=$((left - 1))
    done
    get; eval "variables_$1=\$value"
    left=$value
    while [ "$left" -gt 0 ]; do
        get; eval "variable_$1_$left=\$value"
        left=$((left - 1))
    done
    get; eval "delivery_$1=\$value"
    get; eval "secret_variable_$1=\$value"
    get; eval "secret_file_$1=\$value"
    get; eval "secret_$1=\$value"
    get; eval "input_$1=\$value"
    value=
    line=
}

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

# Calls "$@" with each place for a private directory until it succeeds. A pull by a user other than root goes on without a
# session, and what the user has in memory may go with the last one (logind's RemoveIPC). The home directory comes last, for
# a user whose names in /tmp are all taken.
in_places() {
    if [ -z "$detached" ] || [ "$uid" = 0 ]; then
        in_memories "$@" && return
    fi
    for base in "${TMPDIR:-}" /tmp /var/tmp "${HOME:-}"; do
        case $base in /*) "$@" "$base" && return ;; esac
    done
    return 1
}

# Judges what ls says of a private directory and of all above it. $said becomes "ours" if the private directory is there with
# the mode that we give it, "safe" if it can be made, or the line of what others could put something in the place of.
judge() {
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

# Opens this user's private directory in directory $1, as $private: of mode 0700, ours by owner, no link and below none, and
# where nobody else can put another under its name. Whatever else has the name is left alone; $said tells why.
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
    listed=$(QUOTING_STYLE=literal ls -ldn / "$@" 2>/dev/null)
    judge <<EOF
$listed
EOF
    case $said in
        ours) is_ours "$private" && return ;;
        safe)
            mkdir -m 700 "$private" 2>/dev/null && return
            said=$(mkdir -m 700 "$private" 2>&1)
            ;;
    esac
    return 1
}

# Makes $dir and its pipes in the private directory of place $1.
make_in() {
    # Another call may just have made the private directory, or removed it at its end.
    for again in 1 2 3 4; do
        open_private "$1" || continue
        dir=$private/$nonce
        said='not writable'
        mkdir "$dir" || continue
        said='no room for 16 KiB'
        # Only writing shows that a place is full.
        printf %16384s '' >"$dir/stdout" && mkfifo "$dir/stdout-pipe" "$dir/stderr-pipe" "$dir/question" &&
            fresh=yes && return
        remove
        break
    done 2>/dev/null
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
    in_memory "$1" && open_private "$1" && mkdir "$private/$nonce" 2>/dev/null && vault=$private/$nonce
}

# Puts command $1's secret into the vault.
make_secret() {
    eval "name=\$secret_file_$1 secret=\$secret_$1"
    [ -n "$vault" ] && printf %s "$secret" >"$vault/$name"
}

#both
forget_secret() {
    [ -n "$vault" ] && is_ours "${vault%/*}" && rm -rf "$vault" && rmdir "${vault%/*}"
} 2>/dev/null

# Reads the first line of our file $1 into $word; a FIFO would hold us for ever.
load() {
    word=
    [ -f "$1" ] && read -r word <"$1"
} 2>/dev/null

# Finds out when process $1 began, as $born: no other with its number has the same. $parent is the number of its parent.
look_at() {
    stat=
    while IFS= read -r piece || [ -n "$piece" ]; do stat=$stat$piece; done <"/proc/$1/stat"
    # The fields behind its name, which may hold anything.
    set -- ${stat##*\) }
    parent=${2:-}
    born=${20:+${20}-$boot}
} 2>/dev/null

is_same() {
    look_at "$1"
    [ -n "$born" ] && [ "$born" = "$2" ]
}

# Ends child $1, which began at $2, and waits for its end.
end() {
    ! is_same "$1" "$2" || kill "$1"
    wait "$1"
} 2>/dev/null

# Writes down in file $1 which processes "$@" are.
note() {
    file=$dir/$1
    shift
    for process in "$@"; do
        look_at "$process"
        printf '%s\n' "$process $born"
    done >"$file"
}

# Sends signal $1 to the processes in file $2 that are still the same, with their process groups where they lead one.
send() {
    [ ! -f "$dir/$2" ] || while read -r process known; do
        is_same "$process" "$known" || continue
        kill -s "$1" -- "-$process" || kill -s "$1" "$process"
    done <"$dir/$2"
} 2>/dev/null

#call
watch() {
    while IFS= read -r line; do
        case $line in
            cancel) break ;;
            # What the command left behind still holds its output open: take what there is.
            enough) send KILL readers ;;
        esac
    done
    ask_to_end
    force_end
}

#both
# From here on a TERM ends this process together with its last child. A trap runs between two commands, where $! names
# the child already. A TERM would be lost on a child that has not become its program yet.
end_with_child() {
    trap 'end_child; exit' TERM
}

# What $! names may have ended long ago.
end_child() {
    look_at $!
    child_of=$parent
    look_at self
    [ "$child_of" = "${stat%% *}" ] && kill -s KILL $!
} 2>/dev/null

ask_to_end() {
    : >"$dir/stop"
    forget_secret
    ask_command_to_end
}

# docker 29's dial-stdio ignores TERM and INT. It keeps no state of its own, so HUP harms nothing; podman's clean-up
# after a pull, for one, would be cut short by it.
ask_command_to_end() {
    send TERM leader
    [ ! -e "$dir/ends-with-hup" ] || send HUP leader
}

# Ends the running command if it does not end by itself, and removes the directory. The operator's own command may
# have something to put in order; a runtime's client only has a connection to close.
force_end() {
    # Whoever sees to that before ends us; our sleep must go with us.
    end_with_child
    grace=1
    [ "$action" != run ] || grace=5
    sleep "$grace" &
    wait $!
    send KILL leader
    # Something that left the process group may hold them.
    send KILL readers
    if is_alive supervisor 8; then
        # It can go on now, and sees to the rest; or it cannot.
        sleep 5 &
        wait $!
        ! is_alive supervisor 8 || kill -s KILL "$process"
        frame end >>"$dir/frames"
    fi
    give_turn
    remove
}

# Whoever looks for a pull must not find half of one.
remove() {
    rm -rf "$dir/supervisor" "$dir"
    # Unless another call is at work.
    rmdir "${dir%/*}"
} 2>/dev/null

stopped() {
    [ -e "$dir/stop" ] || ! [ -d "$dir" ]
}

finish() {
    [ "$detached" != supervisor ] || finish_pull
    [ -z "$dir" ] || remove
    [ -z "$watcher" ] || end "$watcher" "$watcher_born"
    frame end
    exit 0
}

# Becomes command number $1; runs in a process of its own.
become() {
    eval "left=\$variables_$1 delivery=\$delivery_$1 name=\$secret_variable_$1 secret=\$secret_$1"
    while [ "$left" -gt 0 ]; do
        eval "export \"\$variable_$1_$left\""
        left=$((left - 1))
    done
    case $delivery in
        directory) export "$name=$vault" ;;
        environment) export "$name=$secret" ;;
    esac
    if [ "$action" = run ]; then
        LC_ALL=$locale
        [ -n "$locale" ] || unset LC_ALL
        umask "$mask"
    fi
    # A pull ignores HUP, and its client would inherit that.
    trap - HUP
    number=$1
    eval "left=\$arguments_$1"
    set --
    while [ "$left" -gt 0 ]; do
        eval "set -- \"\$@\" \"\$argument_${number}_$left\""
        left=$((left - 1))
    done
    # The shell's own words for a missing command would name this program and one of its lines.
    said='command not found'
    code=127
    set -f
    IFS=:
    for folder in $PATH; do
        file=${folder:-.}/$1
        case $1 in */*) file=$1 ;; esac
        [ -e "$file" ] || continue
        if [ -f "$file" ] && [ -x "$file" ]; then
            unset IFS
            ! command -v setsid >/dev/null || exec setsid -- "$@"
            exec "$@"
        fi
        said='not an executable file'
        code=126
    done
    printf '%s: %s\n' "$1" "$said" >&2
    exit "$code"
}

# Keeps at least one byte more than limit $1, which tells that something was cut; the rest is read and
# dropped. head would be shorter, but holds back what it has read until its buffer is full.
keep() {
    # In blocks of 512 bytes, which some shells take for 1024; cat is ended by the signal XFSZ there.
    (ulimit -c 0; ulimit -f $(($1 / 512 + 1)); exec cat)
    exec cat >/dev/null
}

# What a client prints, it prints after it has read its login and asked the registry.
keep_and_forget() {
    if [ "$delivery" = directory ]; then
        IFS= read -r line || { printf %s "$line"; return; }
        forget_secret
        printf '%s\n' "$line"
    fi
    keep "$1"
}

#pull
# Keeps what docker's daemon answers, but for the sizes of chunks and what has no end: how far the layers on their way
# are. Of that it writes down the newest when measure asks, and the last. What is no answer is dropped.
keep_answer() {
    # A line without end is the end of this shell.
    ulimit -d 16384
    end=$(printf '\r')
    layers=
    left_out=
    body=
    kept=0
    IFS= read -r line
    case $line in HTTP/*) printf '%.999s\n' "$line" ;; *) exec cat >/dev/null ;; esac
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line%"$end"}
        case $line in
            '') [ -z "$body" ] || continue; body=yes ;;
            # The last chunk has no bytes: all is there.
            0) ;;
            *'"progressDetail":{'*'"id":"'*) note_layer || continue ;;
            *[!0-9a-f]*) ;;
            *) continue ;;
        esac
        [ "$kept" -gt "$1" ] || printf '%.65536s\n' "$line"
        kept=$((kept + ${#line} + 1))
    done
    [ -n "$left_out" ] || printf '%s\n' "$layers" >"$dir/heard"
}

# Notes in $layers, as ID:BYTES:TOTAL:STATE, how far the layer in $line is. True where that tells of the pull besides: that
# it has come to its layers.
note_layer() {
    state=${line#*'"status":"'}
    case ${state%%'"'*} in
        'Pulling fs layer' | Waiting) state=waits ;;
        Downloading) state=comes ;;
        Extracting) state=unpacks ;;
        'Already exists') state=there ;;
        'Verifying Checksum' | *' complete') state=came ;;
        *) return 1 ;;
    esac
    id=${line##*'"id":"'}
    id=${id%%'"'*}
    current=${line#*'"current":'}
    current=${current%%[!0-9]*}
    total=${line#*'"total":'}
    total=${total%%[!0-9]*}
    case $id in *[!0-9a-f]*) return 1 ;; esac
    [ ${#id} = 12 ] && [ ${#current} -lt 16 ] && [ ${#total} -lt 16 ] || return 1
    case $layers in
        *" $id:"*)
            old=${layers#*" $id:"}
            old=${old%% *}
            layers=${layers%%" $id:"*}${layers#*" $id:$old"}
            old=${old%:*}
            total=${total:-${old##*:}}
            ;;
        *) [ ${#layers} -lt 8000 ] || { left_out=yes; return 1; } ;;
    esac
    layers="$layers $id:${current:-0}:${total:-0}:$state"
    if [ -e "$dir/ask" ]; then
        printf '%s\n' "$layers" >"$dir/layers"
        rm -f "$dir/ask"
    fi
    [ "$state" = waits ]
}

#both
# Runs command number $1 to its end and sends its output, unless it is a question to docker's daemon that was not answered.
# Leaves its exit status in $code. With a second number it is the pull: tells meanwhile what arrives.
perform() {
    stopped && finish
    eval "delivery=\$delivery_$1"
    if [ "$delivery" = directory ]; then
        make_secret "$1" || refuse memory
    fi
    input=/dev/null
    keep=keep_and_forget
    [ -z "$2" ] || note_what_is_there "$2"
    if [ "$delivery" = input ]; then
        input=$dir/question
        keep=keep_answer
        : >"$dir/ends-with-hup"
    elif eval "[ -n \"\$input_$1\" ]"; then
        input=$dir/input
        eval "printf %s \"\$input_$1\" >\"\$input\""
    fi
    # Opening the pipes holds the command back until they have readers: by then its leader is written down. A pipe for
    # its input has no end, as it holds that open for writing itself: docker's daemon takes an end for a cancel.
    # A signal to a new child is lost while that still has a trap of ours, in dash and ash: it never gets one.
    trap - TERM
    (become "$1") <>"$input" >"$dir/stdout-pipe" 2>"$dir/stderr-pipe" 8<&- &
    client=$!
    readers=
    [ "$delivery" != input ] || { eval "printf %s \"\$secret_$1\"" >"$input" 2>/dev/null & readers=$!; }
    unset "secret_$1" secret
    note leader "$client"
    "$keep" "$limit_stdout" <"$dir/stdout-pipe" >"$dir/stdout" 2>/dev/null &
    readers="$readers $!"
    keep "$limit_stderr" <"$dir/stderr-pipe" >"$dir/stderr" 2>/dev/null &
    readers="$readers $!"
    note readers $readers
    measurer=
    if [ -n "$2" ]; then
        measure &
        measurer=$!
        look_at "$measurer"
        measurer_born=$born
    fi
    trap "$at_term" TERM
    stopped && ask_command_to_end
    wait "$client"
    code=$?
    # It writes frames too: not while we do.
    [ -z "$measurer" ] || end "$measurer" "$measurer_born"
    [ "$delivery" != directory ] || forget_secret
    # A runtime's client has nothing to leave behind; the operator's command may. Its number, free since a moment ago, stays
    # the group's own while that has a member.
    [ "$action" = run ] || [ -e "/proc/$client" ] || kill -s KILL -- "-$client" 2>/dev/null
    frame exited
    # A client that was ended before it opened its pipes leaves readers that would wait for ever.
    stopped && send KILL readers
    wait $readers
    [ ! -e "$dir/ends-with-hup" ] || rm -f "$dir/ends-with-hup"
    stopped && finish
    [ "$delivery" != input ] || [ -s "$dir/stdout" ] || return
    answered=yes
    cut=0
    {
        read -r size_stdout line
        read -r size_stderr line
    } <<EOF
$(wc -c "$dir/stdout" "$dir/stderr")
EOF
    [ "$size_stdout" -le "$limit_stdout" ] || cut=1 size_stdout=$limit_stdout
    [ "$size_stderr" -le "$limit_stderr" ] || cut=1 size_stderr=$limit_stderr
    [ -z "$2" ] || count_new
    [ -z "$is_pulled" ] || count_image
    frame "output $code $size_stdout $size_stderr $cut"
    [ "$size_stdout" = 0 ] || head -c "$size_stdout" "$dir/stdout" || lost=yes
    [ "$size_stderr" = 0 ] || head -c "$size_stderr" "$dir/stderr" || lost=yes
}

#call
# ---- What the node is and has

# The clock comes first: what runs before it blurs it.
tell_host() {
    clock=$(date +%s.%N)
    system=
    while IFS= read -r line; do
        case $line in PRETTY_NAME=*) system=${line#*=} ;; esac
    done </etc/os-release
    frame host "$clock" "$(uname -s)" "$(uname -m)" "$system"
} 2>/dev/null

# After the question where the runtime keeps its files.
tell_disk() {
    read_root <"$dir/stdout"
    free=$(df -P -k "$root" | {
        read -r line
        read -r device size used free line
        printf %s "$free"
    })
    frame disk "${free:--}" "$root"
} 2>/dev/null

#both
# Whether the process that file $1 of pull $3 (ours) names is still the one that wrote it down: descriptor $2 is the frames.
is_alive() {
    load "${3:-$dir}/$1" && process=$word && [ "/proc/$process/fd/$2" -ef "${3:-$dir}/frames" ]
}

#pull
# ---- A pull on its own

# The first command inspects, the second pulls, the third tells where the runtime keeps its files. A fourth asks docker's
# daemon to pull, which tells more than its client does.
pull() {
    at_term='forget_secret; send TERM leader; exit 143'
    trap "$at_term" INT TERM
    take_turn
    frame stage inspect
    perform 1
    if [ "$code" -ne 0 ] || [ "$action" = pull-always ]; then
        answered=
        frame stage pull
        ! may_ask_daemon || perform 4 3
        if [ -z "$answered" ]; then
            frame stage pull
            perform 2 3
        fi
        if [ "$code" -eq 0 ]; then
            frame stage verify
            is_pulled=yes
            perform 1
        fi
    fi
    finish
}

# What the client alone can do: find a login of the node's own, and check signatures. A client that is too old to join us
# to the daemon, or does not reach it, has no answer for us. podman in docker's place has no daemon, and says who it is when it
# is asked for an image.
may_ask_daemon() {
    [ "$commands" = 4 ] && [ -z "${DOCKER_CONTENT_TRUST:-}" ] || return
    ! grep -qs -e podman -e 'image not known' "$dir/stderr" || return
    [ "$delivery_2" != directory ] || return 0
    config=${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json
    [ ! -e "$config" ] || [ -f "$config" ] && ! grep -qs -e '"auth' -e '"cred' "$config"
}

# One pull of an image at a time: a second one waits here, and then finds what the first one brought. It is the operator's
# side that limits the wait.
take_turn() {
    turn=${dir%/*}/turn.$turn_name
    told=
    until mkdir "$turn" 2>/dev/null; do
        stopped && finish
        is_ours "$turn" || return
        # Its holder may be about to write down who it is.
        [ -z "$told" ] || holds_turn || rm -rf "$turn"
        [ -n "$told" ] || frame stage turn
        told=yes
        sleep 1
    done
    printf '%s\n' "$nonce" >"$turn/holder" || rm -rf "$turn"
}

holds_turn() {
    load "$turn/holder" && is_alive supervisor 8 "${dir%/*}/$word"
}

# The supervisor's end. The frames stay for whoever has not seen them yet.
finish_pull() {
    # A daemon that was asked itself left the login for its client unused.
    forget_secret
    give_turn
    if stopped; then
        frame end
        send TERM keeper
        remove
    else
        # Whoever sees the end removes the directory: nothing may be written to it after that. Frames that did not fit
        # are no end.
        [ -n "$lost" ] || : >"$dir/ended"
        frame end
    fi
    exit 0
}

# Ends what shows the pull to a connection, which does not know yet that it is lost: TERM. Or it is not lost, and somebody
# else goes on with the pull: USR1 lets the viewer say so (TAKEN_OVER in protocol.rs).
end_viewer() {
    ! is_alive viewer 9 || kill -"$1" "$process"
    ! is_alive tail 9 || kill "$process"
}

# Ends the pull when nobody asked after it for a whole lease.
keep_lease() {
    end_with_child
    last=
    quiet=0
    while [ "$quiet" -lt "$ticks" ]; do
        sleep "$tick" &
        wait $!
        load "$dir/beat"
        quiet=$((quiet + 1))
        [ "$word" = "$last" ] || quiet=0
        last=$word
    done
    end_viewer TERM
    ask_to_end
    force_end
}

# ---- What arrives

# Tells what arrives while the pull runs.
#
# docker's daemon says it where it is asked. Otherwise layers on their way are files that root may read: containerd's
# ingest folders (plugins/content/local), docker's GetImageBlob files (distribution/pull_v2.go), and what CRI-O and podman
# stage (containers/image, storage). That such a place exists does not show that this pull uses it: "measured" is said when
# the runtime itself named the place, or once something new is there. What has arrived is unpacked, which only the disk's
# use shows. Only changes are told: a later connection reads all of it again.
measure() {
    end_with_child
    is_measured=
    if [ "$delivery" = input ]; then
        : >"$dir/ask"
        is_measured=yes
    else
        is_measured=$is_certain
    fi
    [ -z "$is_measured" ] || frame measured
    now=
    last=' '
    found=
    manifest=
    told=
    seconds=0
    # A killed supervisor leaves us behind, until its directory goes.
    while [ /proc/self/fd/1 -ef "$dir/frames" ]; do
        sleep 1 &
        wait $!
        seconds=$((seconds + 1))
        [ "$seconds" -lt 300 ] || [ $((seconds % 5)) = 0 ] || continue
        if [ "$delivery" = input ]; then
            [ -e "$dir/ask" ] || hear_layers
        else
            now=$(layers)
            [ -z "$now" ] || found=yes
            [ -z "$found" ] || ! is_unpacking || now="$now disk:$(disk_use):0"
            tell_named_layers
        fi
        [ -n "$is_measured" ] || [ -z "$found" ] || { is_measured=yes; frame measured; }
        [ "$now $told" != "$last" ] || continue
        last="$now $told"
        [ -n "$manifest" ] || [ "$delivery" = input ] || find_manifest
        [ ${#now} -lt 3000 ] && frame "progress$now"
    done
} 2>/dev/null

# Takes what the daemon answered when it was last asked, and asks anew. Once the sizes of all layers are known, they make
# a manifest.
hear_layers() {
    now=
    sizes=
    are_known=yes
    read -r heard <"$dir/layers"
    : >"$dir/ask"
    for layer in $heard; do
        id=${layer%%:*}
        part=${layer%:*}
        size=${part##*:}
        case $layer in
            *:there) tell there "$id" ;;
            *:came) tell came "$id:$size:$size" ;;
            # No bytes arrive, but it gets on.
            *:unpacks) tell came "$id:$size:$size"; now="$now disk${part#"$id"}" ;;
            *:0:[a-z]*) are_known= ;;
            *) now="$now $part" ;;
        esac
        sizes="$sizes,{\"digest\":\"$id\",\"size\":$size}"
    done
    sizes="{\"layers\":[${sizes#,}]}"
    # Before one of them comes, not all may have been named.
    [ -n "$are_known" ] && [ -n "$now" ] && [ "$manifest" != "$sizes" ] || return
    manifest=$sizes
    tell_manifest
}

# Before the pull: where layers may arrive, and which are there. Command number $1 prints where the runtime keeps its files;
# docker's daemon tells all of that itself.
note_what_is_there() {
    : >"$dir/began"
    [ "$delivery" != input ] || return
    trap - TERM
    (become "$1") </dev/null >"$dir/root" 8<&- &
    asked=$!
    note leader "$asked"
    trap "$at_term" TERM
    ! stopped || send TERM leader
    wait "$asked"
    rm -f "$dir/leader"
    stopped && finish
    is_certain=
    staging=
    read_root <"$dir/root"
    case $root_of in
        containerd)
            stores=$root
            [ ! -r "$root/$content/ingest" ] || [ ! -x "$root/$content/ingest" ] || is_certain=yes
            ;;
        docker) stores="$root $root/containerd/daemon" ;;
        storage)
            stores=
            staging="/var/tmp $(sed -n 's/^ *big_files_temporary_dir *= *"\(.*\)".*/\1/p' /etc/crio/crio.conf /etc/crio/crio.conf.d/*)"
            ;;
        *) stores="$root /var/lib/rancher/k3s/agent/containerd" ;;
    esac
    disk=$root
    list_layers >"$dir/before"
} 2>/dev/null

# The digests of what the stores hold. containers/storage names its layers in one file.
list_layers() {
    {
        for place in $stores; do
            ls "$place/$content/blobs/sha256"
        done
        grep -o '"compressed-diff-digest":"sha256:[0-9a-f]*' "$storage/overlay-layers/layers.json" | cut -d : -f 3
    } | sort -u
}

#both
give_turn() {
    turn=${dir%/*}/turn.$turn_name
    load "$turn/holder" && [ "$word" = "$nonce" ] && rm -rf "$turn"
}

# Reads where the runtime keeps its files into $root: its own word, or its usual place where it does not say. $root_of is
# what has its files there, as far as that is known.
read_root() {
    root_of=
    root=/var/lib/containerd
    # CRI-O says no more than its name, and podman does not say it as docker would.
    [ ! -d "$storage" ] || root=$storage root_of=storage
    while read -r line; do
        case $line in
            /*) root=$line root_of=docker ;;
            # Lines of the CRI's answer, which is JSON.
            *'"crio":'*) root=$storage root_of=storage ;;
            *'"containerdRootDir":'*) line=${line#*: \"}; root=${line%%\"*} root_of=containerd ;;
        esac
    done
}

#pull
# What arrives: names, bytes that are there, bytes in all (0: not known). Files that are older than the pull are another's.
layers() {
    for file in "$root"/tmp/GetImageBlob*; do
        arriving "$file" "${file##*/}" 0
    done
    for place in $stores; do
        for folder in "$place/$content"/ingest/*/; do
            reference=
            total=0
            read -r reference <"$folder/ref"
            case $reference in *layer-sha256:*) ;; *) continue ;; esac
            read -r total <"$folder/total"
            arriving "$folder/data" "${reference##*sha256:}" "${total:-0}"
        done
    done
    for place in $staging; do
        for folder in "$place"/container_images_storage* "$place"/storage*; do
            # Anybody may make one there.
            is_ours "$folder" || continue
            for file in "$folder"/*; do
                [ -h "$file" ] || arriving "$file" "staged-${file##*/}" 0
            done
        done
    done
}

# Prints how much of layer $2 is there in file $1, of $3 bytes.
arriving() {
    ! [ "$1" -ot "$dir/began" ] && size=$(stat -c %s "$1") && printf ' %s:%s:%s' "$2" "$size" "$3"
}

# Tells something of a layer, once.
tell() {
    case "$told " in *" $2 "*) return ;; esac
    told="$told $2"
    frame "$@"
}

# What docker's client says of layers has no sizes.
tell_named_layers() {
    for layer in $(grep -E '^[0-9a-f]{12}: (Already exists|Pull complete)' "$dir/stdout" | tr -d ' '); do
        case $layer in
            *exists) tell there "${layer%%:*}" ;;
            *) tell came "${layer%%:*}:0:0" ;;
        esac
    done
}

# Sends the newest manifest that names a layer on its way, and which of its layers were there before the pull.
find_manifest() {
    layer=${now# }
    layer=${layer%%:*}
    [ ${#layer} = 64 ] || return
    for place in $stores; do
        blobs=$place/$content/blobs/sha256
        [ -d "$blobs" ] || continue
        manifest=$(find "$blobs" -type f -size -128 -exec grep -l "$layer" {} +)
        [ -n "$manifest" ] || continue
        manifest=$(cat "$(ls -t -d $manifest | head -n 1)")
        tell_manifest
        tell_old_layers
        return
    done
}

# In one piece: we may be ended between two commands.
tell_manifest() {
    printf 'prepull-%s manifest %s\n%s' "$nonce" $(($(printf %s "$manifest" | wc -c))) "$manifest"
}

# Which layers of $manifest were there before the pull.
tell_old_layers() {
    for digest in $(digests_in "$manifest"); do
        grep -qxF "$digest" "$dir/before" && frame there "$digest"
    done
}

digests_in() {
    printf '%s\n' "$1" | grep -o '[0-9a-f]\{64\}' | sort -u
}

# ---- What arrived

# The pull has ended, well or not: tells each layer that came, with its compressed size, and each that was there before.
count_new() {
    told=
    if [ "$delivery" = input ]; then
        read -r heard <"$dir/heard" || return
        for layer in $heard; do
            id=${layer%%:*}
            size=${layer%:*}
            size=${size##*:}
            case $layer in
                *:there) frame there "$id" ;;
                *:came | *:unpacks) frame came "$id:$size:$size" ;;
            esac
        done
        [ "$code" -ne 0 ] || frame counted
        return
    fi
    tell_named_layers
    [ "$code" -ne 0 ] || ! grep -q '^Status: ' "$dir/stdout" || frame counted
    { cat "$dir/before" "$dir/before"; list_layers; } | sort | uniq -u | head -n 900 | while read -r digest; do
        size=0
        for place in $stores; do
            size=$(stat -c %s "$place/$content/blobs/sha256/$digest") && break
            size=0
        done
        frame came "$digest:$size:$size"
    done
} 2>/dev/null

# $dir/stdout is what the runtime says of the image that it pulled: finds its manifest, and with it which layers came.
count_image() {
    [ ! -e "$dir/heard" ] || return
    named=$(digests_in "$(cat "$dir/stdout")")
    manifest=
    for place in $stores; do
        blobs=$place/$content/blobs/sha256
        manifest=$(read_manifest $named) && break
    done
    for digest in $named; do
        [ -n "$manifest" ] || manifest=$(cat "$storage/overlay-images/$digest/manifest")
    done
    [ -n "$manifest" ] || return
    tell_manifest
    tell_old_layers
    frame counted
} 2>/dev/null

# Prints the newest manifest among the blobs "$@". An index stands for the manifests in it: the node has fetched its own.
read_manifest() {
    [ $# -gt 0 ] || return
    for blob in $(cd "$blobs" && ls -t -d "$@"); do
        [ "$(wc -c <"$blobs/$blob")" -lt 65536 ] || continue
        if grep -q '"manifests" *:' "$blobs/$blob"; then
            read_manifest $(digests_in "$(cat "$blobs/$blob")")
            return
        fi
        ! grep -q '"layers" *:' "$blobs/$blob" || { cat "$blobs/$blob"; return; }
    done
    return 1
}

# Whether something that has arrived may be unpacked just now.
is_unpacking() {
    [ -z "$now" ] || [ "$(grep -c ': Download complete' <"$dir/stdout")" -gt "$(grep -c ': Pull complete' <"$dir/stdout")" ]
}

disk_use() {
    df -P "$disk" | {
        read -r line
        read -r device size used line
        printf %s "$used"
    }
}

# Where the login manager ends what a session leaves running (KillUserProcesses), a pull has to leave the session: for
# a scope of the system's, or of the user's own manager where that lingers. False where it cannot.
leave_session() {
    login=org.freedesktop.login1
    [ "$(busctl get-property $login /org/freedesktop/login1 $login.Manager KillUserProcesses)" = "b true" ] || return 0
    manager=--system
    if [ "$uid" != 0 ]; then
        manager=--user
        [ "$(busctl get-property $login /org/freedesktop/login1/user/self $login.User Linger)" = "b true" ] || return 1
    fi
    systemd=org.freedesktop.systemd1
    busctl $manager call $systemd /org/freedesktop/systemd1 $systemd.Manager StartTransientUnit \
        'ssa(sv)a(sa(sv))' "prepull-$nonce.scope" fail 1 PIDs au 1 $$ 0 || return 1
    tries=0
    until [ "$(busctl $manager get-property $systemd "/org/freedesktop/systemd1/unit/prepull_2d${nonce}_2escope" \
        $systemd.Unit ActiveState)" = 's "active"' ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || return 1
        sleep 1
    done
} </dev/null >/dev/null 2>&1

# Starts the supervisor and the keeper, with nothing of the session in their hands.
set_out() {
    : >"$dir/frames"
    [ -z "$tied" ] || frame tied >>"$dir/frames"
    trap '' HUP
    # It must be known by its frames from its first moment on (is_alive): they are opened before it begins, on a
    # descriptor that no redirection replaces for a while.
    exec 8<"$dir/frames"
    (detached=supervisor; pull) </dev/null >>"$dir/frames" 2>/dev/null &
    supervisor=$!
    exec 8<&-
    # Nobody else needs a secret.
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        unset "secret_$number"
    done
    (keep_lease) </dev/null >/dev/null 2>&1 &
    note keeper $!
    printf '%s\n' "$supervisor" >"$dir/supervisor"
    trap - HUP
}

# Finds the pull that an earlier connection left here; false when there is none any more.
pick_up() {
    load "$dir/vault"
    vault=$word
    tries=0
    while is_ours "$dir"; do
        tries=$((tries + 1))
        if [ -e "$dir/supervisor" ] && ! [ -e "$dir/stop" ]; then
            is_alive supervisor 8 || [ -e "$dir/ended" ] && return
            # It was killed, and nobody is left to clean up.
            tries=8
        fi
        # It is being set up or taken down just now.
        [ "$tries" -lt 8 ] || { send TERM keeper; send KILL leader; forget_secret; give_turn; remove; }
        sleep 1
    done
    return 1
}

# Shows the frames to this session and does what it is told, until the session ends.
attend() {
    exec 9<"$dir/frames"
    end_viewer USR1
    printf '%s\n' "$$" >"$dir/viewer"
    exec 3<&0 </dev/null
    tail -c +1 -f "$dir/frames" 3<&- &
    tail=$!
    look_at $tail
    tail_born=$born
    trap 'end "$tail" "$tail_born"; exit 143' HUP INT TERM
    trap 'end "$tail" "$tail_born"; exit 76' USR1
    printf '%s\n' "$tail" >"$dir/tail"
    beats=0
    while IFS= read -r line <&3; do
        case $line in
            beat)
                beats=$((beats + 1))
                printf '%s\n' "$$ $beats" >"$dir/beat"
                is_alive supervisor 8 || [ -e "$dir/ended" ] || {
                    printf '%s\n' "the pull's supervisor was killed, or there is no room left in $dir" >&7
                    break
                }
                ;;
            cancel)
                send TERM keeper
                (trap '' HUP; trap - TERM; force_end) </dev/null >/dev/null 2>&1 3<&- 9<&- &
                note keeper $!
                ask_to_end
                ;;
            enough) send KILL readers ;;
            done)
                send TERM keeper
                remove
                break
                ;;
        esac
    done
    end "$tail" "$tail_born"
} 2>/dev/null

#both
main() {
    # A variable that came with the environment would hand what we assign to every command.
    unset value line lines left secret name delivery
    mask=$(umask)
    umask 077
    dir=
    lost=
    vault=
    watcher=
    detached=
    # sshd's path for commands is short. Where clients are: /usr/local (installed by hand), sbin
    # (sudo-less hosts), /opt/bin (Flatcar), /snap/bin (Ubuntu's docker snap), RKE2's and k3s' own.
    PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:/opt/bin:/snap/bin
    PATH=$PATH:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
    export PATH
    uid=$(id -u 2>/dev/null)
    load /proc/sys/kernel/random/boot_id
    boot=$word
    storage=/var/lib/containers/storage
    content=io.containerd.content.v1.content
    is_pulled=

    get; nonce=$value
    get; action=$value
    get; limit_stdout=$value
    get; limit_stderr=$value
    get; turn_name=$value
    get; tick=$value
    get; ticks=$value
    get; may_use_disk=$value
    get; commands=$value
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        get_command "$number"
    done
    tied=
#pull
    detached=yes
    # Before we are heard of, for it may take a moment, and beats would queue up.
    leave_session || tied=yes
#both
    frame hello

    # An external printf would show a secret in its arguments.
    [ "$(command -v printf)" = printf ] || refuse tool printf
    for tool in mkfifo mkdir rmdir rm ls head tail cat wc sleep; do
        command -v "$tool" >/dev/null 2>&1 || refuse tool "$tool"
    done
    make_directory
#pull
    if [ -z "$fresh" ] && ! pick_up; then
        make_directory
    fi
    if [ -n "$fresh" ]; then
        [ "$delivery_2" != directory ] || make_vault
        set_out
    fi
    attend 7>&2
#call
    exec 3<&0 </dev/null
    watch <&3 3<&- >/dev/null 2>&1 &
    watcher=$!
    look_at "$watcher"
    watcher_born=$born
    exec 3<&-
    # The watcher sees our input end when we are gone, and does what is left to do.
    at_term='send TERM leader; exit 143'
    trap "$at_term" HUP INT TERM
    [ "$action" != facts ] || tell_host
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        perform "$number"
        [ "$action$number" != facts1 ] || tell_disk
    done
    finish
#both
}

main
