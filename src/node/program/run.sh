# Finds out when process $1 began, as $born: no other with its number has the same. $parent is the number of its parent.
read_process() {
    stat=
    while IFS= read -r piece || [ -n "$piece" ]; do stat=$stat$piece; done <"/proc/$1/stat"
    # The fields behind its name, which may hold anything.
    # shellcheck disable=SC2086 # its fields
    set -- ${stat##*\) }
    parent=${2:-}
    born=${20:+${20}-$boot}
} 2>/dev/null

is_same() {
    read_process "$1"
    [ -n "$born" ] && [ "$born" = "$2" ]
}

# Ends child $1, which began at $2, and waits for its end.
end() {
    ! is_same "$1" "$2" || kill "$1"
    wait "$1"
} 2>/dev/null

# Writes down in file $1 which processes "$@" are.
record_processes() {
    file=$dir/$1
    shift
    for process in "$@"; do
        read_process "$process"
        printf '%s\n' "$process $born"
    done >"$file"
}

# Sends signal $1 to the processes in file $2 that are still the same, with their process groups where they lead one.
signal() {
    [ ! -f "$dir/$2" ] || while read -r process known; do
        is_same "$process" "$known" || continue
        kill -s "$1" -- "-$process" || kill -s "$1" "$process"
    done <"$dir/$2"
} 2>/dev/null

#call
run_watcher() {
    while IFS= read -r line; do
        case $line in
            "$say_cancel") break ;;
            # What the command left behind still holds its output open: take what there is.
            "$say_enough") signal KILL readers ;;
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
    read_process $!
    child_of=$parent
    read_process self
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
    signal TERM leader
    [ ! -e "$dir/ends-with-hup" ] || signal HUP leader
}

# Ends the running command if it does not end by itself, and removes the directory. The operator's own command may
# have something to put in order; a runtime's client only has a connection to close.
force_end() {
    # Whoever sees to that before ends us; our sleep must go with us.
    end_with_child
    [ "$action" = run ] || [ -n "$naming" ] || grace=1
    sleep "$grace" &
    wait $!
    signal KILL leader
    # Something that left the process group may hold them.
    signal KILL readers
    if is_alive supervisor 8; then
        # It can go on now, and sees to the rest; or it cannot.
        sleep "$grace" &
        wait $!
        ! is_alive supervisor 8 || kill -s KILL "$process"
        frame end >>"$dir/frames"
    fi
    unlock_image
    remove
}

# A connection that looks for a pull must not find half of one.
remove() {
    rm -rf "$dir/supervisor" "$dir"
    # Unless another call is at work.
    rmdir "${dir%/*}"
} 2>/dev/null

stopped() {
    [ -e "$dir/stop" ] || ! [ -d "$dir" ]
}

# Whether the running command was ended, by request or because a pull exceeded a limit.
is_over() {
    stopped || [ -e "$dir/late" ]
}

finish() {
    [ "$detached" != supervisor ] || finish_supervisor
    # First the watcher: when our input ends, it writes into the directory.
    [ -z "$watcher" ] || end "$watcher" "$watcher_born"
    [ -z "$dir" ] || remove
    frame end
    exit 0
}

# Becomes command number $1; runs in a process of its own.
exec_command() {
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
# are. Of that it writes down the newest when measure asks, and the last. What is not an answer is dropped.
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
            *'"progressDetail":{'*'"id":"'*) record_layer || continue ;;
            *[!0-9a-f]*) ;;
            *) continue ;;
        esac
        [ "$kept" -gt "$1" ] || printf '%.65536s\n' "$line"
        kept=$((kept + ${#line} + 1))
    done
    [ -n "$left_out" ] || printf '%s\n' "$layers" >"$dir/heard"
}

# Notes in $layers, as ID:BYTES:TOTAL:STATE, how far the layer in $line is. True where that tells of the pull besides:
# that it has come to its layers.
record_layer() {
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
# Runs command number $1 to its end and sends its output, unless it is a question to docker's daemon that was not
# answered. Leaves its exit status in $code. With a second number it is the pull: tells meanwhile what arrives.
run_command() {
    stopped && finish
    eval "delivery=\$delivery_$1"
    if [ "$delivery" = directory ]; then
        make_secret "$1" || refuse memory
    fi
    input=/dev/null
    keep=keep_and_forget
    [ -z "$2" ] || record_existing_layers "$2"
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
    (exec_command "$1") <>"$input" >"$dir/stdout-pipe" 2>"$dir/stderr-pipe" 8<&- &
    client=$!
    readers=
    [ "$delivery" != input ] || { eval "printf %s \"\$secret_$1\"" >"$input" 2>/dev/null & readers=$!; }
    unset "secret_$1" secret
    record_processes leader "$client"
    "$keep" "$limit_stdout" <"$dir/stdout-pipe" >"$dir/stdout" 2>/dev/null &
    readers="$readers $!"
    keep "$limit_stderr" <"$dir/stderr-pipe" >"$dir/stderr" 2>/dev/null &
    readers="$readers $!"
    # shellcheck disable=SC2086 # two numbers
    record_processes readers $readers
    measurer=
    if [ -n "$2" ]; then
        measure &
        measurer=$!
        read_process "$measurer"
        measurer_born=$born
    fi
    trap "$at_term" TERM
    stopped && ask_command_to_end
    wait "$client"
    code=$?
    # It writes frames too: not while we do.
    [ -z "$measurer" ] || end "$measurer" "$measurer_born"
    [ "$delivery" != directory ] || forget_secret
    # A runtime's client has nothing to leave behind; the operator's command may. Its number, free since a moment ago,
    # stays the group's own while that has a member.
    [ "$action" = run ] || [ -e "/proc/$client" ] || kill -s KILL -- "-$client" 2>/dev/null
    frame exited
    # A client that was ended before it opened its pipes leaves readers that would wait for ever.
    is_over && signal KILL readers
    # shellcheck disable=SC2086 # two numbers
    wait $readers
    [ ! -e "$dir/ends-with-hup" ] || rm -f "$dir/ends-with-hup"
    is_over && finish
    [ "$delivery" != input ] || [ -s "$dir/stdout" ] || return
    answered=yes
    cut=0
    size_stdout=$(($(wc -c <"$dir/stdout")))
    size_stderr=$(($(wc -c <"$dir/stderr")))
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
# Whether the process that file $1 of pull $3 (ours) names is still the one that wrote it down: descriptor $2 is the
# frames.
is_alive() {
    read_word "${3:-$dir}/$1" && process=$word && [ "/proc/$process/fd/$2" -ef "${3:-$dir}/frames" ]
}
