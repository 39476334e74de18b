# The program that prepull runs on a node, in POSIX sh: dash, bash and busybox ash all run it.
#
# It is sent on standard input (see request.rs), comments and indentation taken out, followed by values.
# A value is data: it is assigned to variables and handed on as "$@", never evaluated.
#
# Needs: mktemp mkfifo mkdir rm head tail cat wc sleep (coreutils and busybox have them all), and a printf
# that is built into the shell. Uses setsid where there is one.
#
# A question or the operator's command is tied to the session: the main shell writes to its output, and a
# watcher sits on its input. When that reads "cancel", or ends because we are gone, the command is ended.
#
# A pull is not. A supervisor runs it and writes the same frames to a file, in a directory that has the
# pull's name; the main shell only shows that file to whoever is there, now or on another connection. A
# keeper ends the pull when nobody asked after it for a whole lease.
# The bootstrap left $n (a newline) and $locale (what LC_ALL was).

frame() {
    printf 'prepull-%s %s\n' "$nonce" "$*"
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

# Whether directory $1 is in memory: the longest mount point above it, the last of equals.
in_memory() {
    here=$(cd -P "$1" 2>/dev/null && pwd -P) || return 1
    best=
    kind=
    while read -r device mount type rest; do
        [ "$mount" = / ] && mount=
        case $here/ in
            "$mount"/*) [ ${#mount} -ge ${#best} ] && best=$mount kind=$type ;;
        esac
    done 2>/dev/null </proc/mounts
    [ "$kind" = tmpfs ] || [ "$kind" = ramfs ]
}

# Calls "$@" with each place in memory that the user may write to, until it succeeds.
in_memories() {
    for base in $memories; do
        in_memory "$base" && "$@" "$base" && return
    done
    return 1
}

# Makes $dir in directory $1. That of a pull is named after it: who comes back finds it.
make_in() {
    if [ -z "$detached" ]; then
        dir=$(mktemp -d "$1/prepull.XXXXXX" 2>/dev/null)
        return
    fi
    dir=$1/prepull.$nonce
    mkdir "$dir" 2>/dev/null && fresh=yes && return
    fresh=
    is_ours "$dir" && return
    dir=
    return 1
}

is_ours() {
    [ -d "$1" ] && ! [ -h "$1" ] && [ -O "$1" ]
}

# Makes the private directory $dir, in memory if it can be. A pull of somebody who is not root goes on
# without a session, and what he has in memory may be taken away with his last one (logind's RemoveIPC).
make_directory() {
    if [ -z "$detached" ] || [ "$(id -u)" = 0 ]; then
        in_memories make_in && return
    fi
    for base in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        make_in "$base" && return
    done
    refuse directory
}

# Puts command $1's secret below directory $2, in a directory of its own.
make_secret() {
    eval "name=\$secret_file_$1 secret=\$secret_$1"
    printf '%s\n' "$2/prepull-secret.$nonce" >"$dir/secret" &&
        mkdir "$2/prepull-secret.$nonce" && printf %s "$secret" >"$2/prepull-secret.$nonce/$name"
}

# Wherever it may lie: what says so may be gone already, or a client may have written beside it when it was first removed.
forget_secret() {
    set -- "$dir/secret"
    for base in "$dir" $memories; do
        set -- "$@" "$base/prepull-secret.$nonce"
    done
    rm -rf "$@" 2>/dev/null
}

# Sends signal $1 to the running command: to its process group, or to it alone where it has none.
signal() {
    read -r leader 2>/dev/null <"$dir/leader" || return 0
    kill -s "$1" -- "-$leader" 2>/dev/null || kill -s "$1" "$leader" 2>/dev/null
}

end_readers() {
    read -r readers 2>/dev/null <"$dir/readers" && kill $readers 2>/dev/null
}

watch() {
    while IFS= read -r line; do
        case $line in
            cancel) break ;;
            # What the command left behind still holds its output open: take what there is.
            enough) end_readers ;;
        esac
    done
    ask_to_end
    force_end
}

# From here on a TERM ends this process together with its last child. A trap runs between two commands, where $! names
# the child already; what it named before is not ours to end, so a child that has nothing to do comes first. A TERM
# would be lost on a child that has not become its program yet.
end_with_child() {
    : &
    trap 'kill -s KILL $!; exit' TERM
}

ask_to_end() {
    : >"$dir/stop"
    forget_secret
    ask_command_to_end
}

# docker 29's dial-stdio ignores TERM and INT. It keeps no state of its own, so HUP harms nothing; podman's clean-up
# after a pull, for one, would be cut short by it.
ask_command_to_end() {
    signal TERM
    [ ! -e "$dir/ends-with-hup" ] || signal HUP
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
    signal KILL
    # Something that left the process group may hold them.
    end_readers
    give_turn
    remove
}

# Whoever looks for a pull must not find half of one.
remove() {
    rm -rf "$dir/supervisor" "$dir"
}

stopped() {
    [ -e "$dir/stop" ] || ! [ -d "$dir" ]
}

finish() {
    [ "$detached" != supervisor ] || finish_pull
    [ -z "$dir" ] || remove
    [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher"; } 2>/dev/null
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
        directory) read -r place <"$dir/secret" && export "$name=$place" ;;
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
    # Without the second test a missing command would be reported in setsid's words, not in the shell's.
    if command -v setsid >/dev/null 2>&1 && command -v "$1" >/dev/null 2>&1; then
        exec setsid -- "$@"
    fi
    exec "$@"
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

# Keeps what docker's daemon answers, but for the sizes of chunks and what has no end: how far the layers on their way
# are. Of that it writes down the newest when measure asks. What is no answer is dropped.
keep_answer() {
    # A line without end is the end of this shell.
    ulimit -d 16384
    end=$(printf '\r')
    layers=
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
}

# Notes in $layers, as ID:BYTES:TOTAL:STATE, how far the layer in $line is. True where that tells of the pull besides: that
# it has come to its layers.
note_layer() {
    state=${line#*'"status":"'}
    case ${state%%'"'*} in
        'Pulling fs layer' | Waiting) state=waits ;;
        Downloading) state=comes ;;
        Extracting) state=unpacks ;;
        'Already exists' | 'Verifying Checksum' | *' complete') state=there ;;
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
        *) [ ${#layers} -lt 8000 ] || return 1 ;;
    esac
    layers="$layers $id:${current:-0}:${total:-0}:$state"
    if [ -e "$dir/ask" ]; then
        printf '%s\n' "$layers" >"$dir/layers"
        rm -f "$dir/ask"
    fi
    [ "$state" = waits ]
}

# Runs command number $1 to its end and sends its output, unless it is a question to docker's daemon that was not answered.
# Leaves its exit status in $code. With a second number, tells meanwhile what arrives.
perform() {
    stopped && finish
    eval "delivery=\$delivery_$1"
    if [ "$delivery" = directory ]; then
        in_memories make_secret "$1" || { [ -n "$may_use_disk" ] && make_secret "$1" "$dir"; } || refuse memory
    fi
    input=/dev/null
    keep=keep_and_forget
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
    (become "$1") <>"$input" >"$dir/stdout-pipe" 2>"$dir/stderr-pipe" &
    client=$!
    readers=
    [ "$delivery" != input ] || { eval "printf %s \"\$secret_$1\"" >"$input" 2>/dev/null & readers=$!; }
    unset "secret_$1" secret
    printf '%s\n' "$client" >"$dir/leader"
    "$keep" "$limit_stdout" <"$dir/stdout-pipe" >"$dir/stdout" 2>/dev/null &
    readers="$readers $!"
    keep "$limit_stderr" <"$dir/stderr-pipe" >"$dir/stderr" 2>/dev/null &
    readers="$readers $!"
    printf '%s\n' "$readers" >"$dir/readers"
    stopped && ask_command_to_end
    measurer=
    if [ -n "$2" ]; then
        measure "$2" &
        measurer=$!
    fi
    wait "$client"
    code=$?
    # It writes frames too: not while we do.
    [ -z "$measurer" ] || { kill "$measurer"; wait "$measurer"; } 2>/dev/null
    [ "$delivery" != directory ] || forget_secret
    # A runtime's client has nothing to leave behind; the operator's command may.
    [ "$action" = run ] || kill -s KILL -- "-$client" 2>/dev/null
    frame exited
    # A client that was ended before it opened its pipes leaves readers that would wait for ever.
    stopped && kill $readers 2>/dev/null
    wait $readers
    rm -f "$dir/leader" "$dir/readers" "$dir/ends-with-hup"
    stopped && finish
    [ "$delivery" != input ] || [ -s "$dir/stdout" ] || return
    answered=yes
    cut=0
    size_stdout=$(($(wc -c <"$dir/stdout")))
    [ "$size_stdout" -le "$limit_stdout" ] || cut=1 size_stdout=$limit_stdout
    size_stderr=$(($(wc -c <"$dir/stderr")))
    [ "$size_stderr" -le "$limit_stderr" ] || cut=1 size_stderr=$limit_stderr
    frame "output $code $size_stdout $size_stderr $cut"
    head -c "$size_stdout" "$dir/stdout"
    head -c "$size_stderr" "$dir/stderr"
}

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

# ---- A pull on its own

# Whether the process that file $1 names is still the one that wrote it down: descriptor $2 is the frames.
is_alive() {
    read -r process <"$dir/$1" && [ "/proc/$process/fd/$2" -ef "$dir/frames" ]
} 2>/dev/null

# The first command inspects, the second pulls, the third tells where the runtime keeps its files. A fourth asks docker's
# daemon to pull, which tells more than its client does.
pull() {
    trap 'forget_secret; signal TERM; exit 143' INT TERM
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
    [ "$delivery_2" = directory ] || ! grep -qs -e '"auth' -e '"cred' "${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json"
}

# One pull of an image at a time: a second one waits here, and then finds what the first one brought.
take_turn() {
    turn=${dir%/*}/prepull-turn.$turn_name
    told=
    until mkdir "$turn" 2>/dev/null; do
        stopped && finish
        is_ours "$turn" || { turn=; return; }
        # Its holder may be about to write down who it is.
        [ -z "$told" ] || holds_turn || rm -rf "$turn"
        [ -n "$told" ] || frame stage turn
        told=yes
        sleep 1
    done
    printf '%s\n' "$dir" >"$turn/holder"
}

holds_turn() {
    read -r holder <"$turn/holder" && read -r process <"$holder/supervisor" && [ "/proc/$process/fd/1" -ef "$holder/frames" ]
} 2>/dev/null

give_turn() {
    turn=${dir%/*}/prepull-turn.$turn_name
    read -r holder <"$turn/holder" && [ "$holder" = "$dir" ] && rm -rf "$turn"
} 2>/dev/null

# The supervisor's end. The frames stay for whoever has not seen them yet.
finish_pull() {
    give_turn
    if stopped; then
        frame end
        end_keeper
        remove
    else
        # Whoever sees the end removes the directory: nothing may be written to it after that.
        : >"$dir/ended"
        frame end
    fi
    exit 0
}

end_keeper() {
    read -r keeper <"$dir/keeper" && kill "$keeper"
} 2>/dev/null

# Ends what shows the pull to a connection, which does not know yet that it is lost: TERM. Or it is not lost, and somebody
# else goes on with the pull: USR1 lets the viewer say so (TAKEN_OVER in talk.rs).
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
        beat=
        read -r beat 2>/dev/null <"$dir/beat"
        quiet=$((quiet + 1))
        [ "$beat" = "$last" ] || quiet=0
        last=$beat
    done
    end_viewer TERM
    ask_to_end
    force_end
}

# Tells what arrives while the pull runs. Command number $1 prints where the runtime keeps its files.
#
# docker's daemon says it where it is asked. Otherwise layers on their way are files that root may read: containerd's
# ingest folders (plugins/content/local) and docker's GetImageBlob files (distribution/pull_v2.go). What has arrived is
# unpacked, which only the disk's use shows. Only changes are told: whoever comes back reads all of it again.
measure() {
    end_with_child
    disk=
    if [ "$delivery" = input ]; then
        frame measured
        : >"$dir/ask"
    else
        (become "$1") >"$dir/root" &
        wait $!
        read_root <"$dir/root"
        content=io.containerd.content.v1.content
        # Where it may be besides: containerd's own place, which docker may use too, and k3s'.
        set -- "$root" "$root/containerd/daemon" /var/lib/containerd /var/lib/rancher/k3s/agent/containerd
        for place in "$@"; do
            [ -x "$place/$content/ingest" ] || [ -x "$place/tmp" ] && disk=$place && break
        done
        if [ -n "$disk" ] && [ -r "$disk" ]; then
            frame measured
        else
            disk=
            set --
        fi
    fi
    now=
    last=' '
    found=
    manifest=
    complete=
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
            now=$(layers "$@")
            [ -z "$now" ] || found=yes
            [ -z "$found" ] || ! is_unpacking || now="$now disk:$(disk_use):0"
            # What docker's client calls done.
            tell_there $(grep -E '^[0-9a-f]{12}: (Already exists|Pull complete)' "$dir/stdout" | cut -c 1-12)
        fi
        [ "$now $complete" != "$last" ] || continue
        last="$now $complete"
        [ -n "$manifest" ] || [ "$delivery" = input ] || find_manifest "$@"
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
            *:there) tell_there "$id" ;;
            # No bytes arrive, but it gets on.
            *:unpacks) tell_there "$id"; now="$now disk${part#"$id"}" ;;
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

# Reads where the runtime keeps its files into $root: its own word, or its usual place where it does not say.
read_root() {
    root=/var/lib/containerd
    # CRI-O never says.
    [ ! -d /var/lib/containers/storage ] || root=/var/lib/containers/storage
    while read -r line; do
        case $line in
            /*) root=$line ;;
            # A line of the CRI's answer, which is JSON.
            *'"containerdRootDir":'*) line=${line#*: \"}; root=${line%%\"*} ;;
        esac
    done
}

# What arrives below the places "$@": names, bytes that are there, bytes in all (0: not known).
layers() {
    [ -n "$disk" ] || return
    for file in "$1"/tmp/GetImageBlob*; do
        size=$(stat -c %s "$file") && printf ' %s:%s:0' "${file##*/}" "$size"
    done
    for place in "$@"; do
        for folder in "$place/$content"/ingest/*/; do
            reference=
            total=0
            read -r reference <"$folder/ref"
            case $reference in *layer-sha256:*) ;; *) continue ;; esac
            read -r total <"$folder/total"
            size=$(stat -c %s "$folder/data") && printf ' %s:%s:%s' "${reference##*sha256:}" "$size" "${total:-0}"
        done
    done
}

# Tells once that each of the layers "$@" is there.
tell_there() {
    for layer in "$@"; do
        case $complete in
            *" $layer"*) continue ;;
        esac
        complete="$complete $layer"
        frame "there $layer"
    done
}

# Sends the newest manifest that names a layer on its way, and which of its layers are there.
find_manifest() {
    layer=${now# }
    layer=${layer%%:*}
    [ ${#layer} = 64 ] || return
    for place in "$@"; do
        blobs=$place/$content/blobs/sha256
        [ -d "$blobs" ] || continue
        manifest=$(find "$blobs" -type f -size -128 -exec grep -l "$layer" {} +)
        [ -n "$manifest" ] || continue
        manifest=$(cat "$(ls -t -d $manifest | head -n 1)")
        tell_manifest
        for digest in $(printf %s "$manifest" | tr -c '0-9a-f' '\n'); do
            [ ${#digest} = 64 ] && [ -e "$blobs/$digest" ] && frame "there $digest"
        done
        return
    done
}

# In one piece: we may be ended between two commands.
tell_manifest() {
    printf 'prepull-%s manifest %s\n%s' "$nonce" $(($(printf %s "$manifest" | wc -c))) "$manifest"
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
    if [ "$(id -u)" != 0 ]; then
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
    # It must be known by its frames from its first moment on (is_alive): they are opened before it begins.
    exec 4>&1 >>"$dir/frames"
    (exec 4>&-; detached=supervisor; pull) </dev/null 2>/dev/null &
    supervisor=$!
    exec >&4 4>&-
    # Nobody else needs a secret.
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        unset "secret_$number"
    done
    (keep_lease) </dev/null >/dev/null 2>&1 &
    printf '%s\n' "$!" >"$dir/keeper"
    printf '%s\n' "$supervisor" >"$dir/supervisor"
    trap - HUP
}

# Finds the pull that an earlier connection left here; false when there is none any more.
pick_up() {
    tries=0
    while is_ours "$dir"; do
        tries=$((tries + 1))
        if [ -e "$dir/supervisor" ] && ! [ -e "$dir/stop" ]; then
            is_alive supervisor 1 || [ -e "$dir/ended" ] && return
            # It was killed, and nobody is left to clean up.
            tries=8
        fi
        # It is being set up or taken down just now.
        [ "$tries" -lt 8 ] || { end_keeper; signal KILL; forget_secret; give_turn; remove; }
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
    trap 'kill $tail; exit 143' HUP INT TERM
    trap 'kill $tail; exit 76' USR1
    printf '%s\n' "$tail" >"$dir/tail"
    beats=0
    while IFS= read -r line <&3; do
        case $line in
            beat)
                beats=$((beats + 1))
                printf '%s\n' "$$ $beats" >"$dir/beat"
                is_alive supervisor 1 || [ -e "$dir/ended" ] || break
                ;;
            cancel)
                end_keeper
                (trap '' HUP; force_end) </dev/null >/dev/null 2>&1 3<&- 9<&- &
                printf '%s\n' "$!" >"$dir/keeper"
                ask_to_end
                ;;
            enough) end_readers ;;
            done)
                end_keeper
                remove
                break
                ;;
        esac
    done
    kill $tail
    wait $tail
} 2>/dev/null

main() {
    # A variable that came with the environment would hand what we assign to every command.
    unset value line lines left secret name delivery
    mask=$(umask)
    umask 077
    dir=
    watcher=
    detached=
    # sshd's path for commands is short. Where clients are: /usr/local (installed by hand), sbin
    # (sudo-less hosts), /opt/bin (Flatcar), /snap/bin (Ubuntu's docker snap), RKE2's and k3s' own.
    PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:/opt/bin:/snap/bin
    PATH=$PATH:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
    export PATH
    memories="/dev/shm /run ${XDG_RUNTIME_DIR:-} /run/user/$(id -u 2>/dev/null)"

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
    case $action in
        # Before we are heard of, for it may take a moment, and beats would queue up.
        pull-*) detached=yes; leave_session || tied=yes ;;
    esac
    frame hello

    # An external printf would show a secret in its arguments.
    [ "$(command -v printf)" = printf ] || refuse tool printf
    for tool in mktemp mkfifo mkdir rm head tail cat wc sleep; do
        command -v "$tool" >/dev/null 2>&1 || refuse tool "$tool"
    done
    make_directory
    if [ -n "$detached" ] && [ -z "$fresh" ] && ! pick_up; then
        make_directory
    fi
    if [ -n "$detached" ]; then
        if [ -n "$fresh" ]; then
            mkfifo "$dir/stdout-pipe" "$dir/stderr-pipe" "$dir/question" || refuse directory
            set_out
        fi
        attend
        exit 0
    fi
    mkfifo "$dir/stdout-pipe" "$dir/stderr-pipe" || refuse directory

    exec 3<&0 </dev/null
    watch <&3 3<&- >/dev/null 2>&1 &
    watcher=$!
    exec 3<&-
    # The watcher sees our input end when we are gone, and does what is left to do.
    trap 'signal TERM; exit 143' HUP INT TERM
    [ "$action" != facts ] || tell_host
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        perform "$number"
        [ "$action$number" != facts1 ] || tell_disk
    done
    finish
}

main
