# The program that prepull runs on a node, in POSIX sh: dash, bash and busybox ash all run it.
#
# It is sent on standard input (see request.rs), comments and indentation taken out, followed by values.
# A value is data: it is assigned to variables and handed on as "$@", never evaluated.
#
# Needs: mktemp mkfifo mkdir rm head cat wc sleep (coreutils and busybox have them all), and a printf
# that is built into the shell. Uses setsid where there is one.
#
# Only the main shell writes to the session's output. A watcher sits on the session's input: when it reads
# "cancel", or the input ends because we are gone, it ends the running command and removes the directory.
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

# Makes the private directory $dir, in memory if it can be.
make_directory() {
    memory=yes
    for base in /dev/shm /run "${XDG_RUNTIME_DIR:-/nowhere}" "/run/user/$(id -u 2>/dev/null)"; do
        in_memory "$base" && dir=$(mktemp -d "$base/prepull.XXXXXX" 2>/dev/null) && return
    done
    memory=no
    for base in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        dir=$(mktemp -d "$base/prepull.XXXXXX" 2>/dev/null) && return
    done
    refuse directory
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
    # The main shell ends us when it has cleaned up; our sleep must go with us.
    pause=
    trap 'kill $pause; exit' TERM
    : >"$dir/stop"
    rm -rf "$dir/secret"
    signal TERM
    sleep 5 &
    pause=$!
    wait $pause
    signal KILL
    # Something that left the process group may hold them.
    end_readers
    rm -rf "$dir"
}

stopped() {
    [ -e "$dir/stop" ] || ! [ -d "$dir" ]
}

finish() {
    [ -z "$dir" ] || rm -rf "$dir"
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
        directory) export "$name=$dir/secret" ;;
        environment) export "$name=$secret" ;;
    esac
    if [ "$action" = run ]; then
        LC_ALL=$locale
        [ -n "$locale" ] || unset LC_ALL
        umask "$mask"
    fi
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

# Runs command number $1 to its end and sends its output. Leaves its exit status in $code.
perform() {
    stopped && finish
    eval "delivery=\$delivery_$1"
    if [ "$delivery" = directory ]; then
        [ "$memory" = yes ] || refuse memory
        mkdir "$dir/secret" && eval "printf %s \"\$secret_$1\" >\"\$dir/secret/\$secret_file_$1\"" || refuse directory
    fi
    input=/dev/null
    if eval "[ -n \"\$input_$1\" ]"; then
        input=$dir/input
        eval "printf %s \"\$input_$1\" >\"\$input\""
    fi
    # Opening the pipes holds the command back until they have readers: by then its leader is written down.
    (become "$1") <"$input" >"$dir/stdout-pipe" 2>"$dir/stderr-pipe" &
    client=$!
    printf '%s\n' "$client" >"$dir/leader"
    keep "$limit_stdout" <"$dir/stdout-pipe" >"$dir/stdout" 2>/dev/null &
    readers=$!
    keep "$limit_stderr" <"$dir/stderr-pipe" >"$dir/stderr" 2>/dev/null &
    readers="$readers $!"
    printf '%s\n' "$readers" >"$dir/readers"
    stopped && signal TERM
    wait "$client"
    code=$?
    [ "$delivery" = none ] || { rm -rf "$dir/secret"; unset "secret_$1"; }
    # A runtime's client has nothing to leave behind; the operator's command may.
    [ "$action" = run ] || kill -s KILL -- "-$client" 2>/dev/null
    frame exited
    # A client that was ended before it opened its pipes leaves readers that would wait for ever.
    stopped && kill $readers 2>/dev/null
    wait $readers
    rm -f "$dir/leader" "$dir/readers"
    stopped && finish
    cut=0
    size_stdout=$(($(wc -c <"$dir/stdout")))
    [ "$size_stdout" -le "$limit_stdout" ] || cut=1 size_stdout=$limit_stdout
    size_stderr=$(($(wc -c <"$dir/stderr")))
    [ "$size_stderr" -le "$limit_stderr" ] || cut=1 size_stderr=$limit_stderr
    frame "output $code $size_stdout $size_stderr $cut"
    head -c "$size_stdout" "$dir/stdout"
    head -c "$size_stderr" "$dir/stderr"
}

main() {
    # A variable that came with the environment would hand what we assign to every command.
    unset value line lines left secret name delivery
    mask=$(umask)
    umask 077
    dir=
    watcher=
    # sshd's path for commands is short. Where clients are: /usr/local (installed by hand), sbin
    # (sudo-less hosts), /opt/bin (Flatcar), /snap/bin (Ubuntu's docker snap), RKE2's and k3s' own.
    PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:/opt/bin:/snap/bin
    PATH=$PATH:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
    export PATH

    get; nonce=$value
    get; action=$value
    get; limit_stdout=$value
    get; limit_stderr=$value
    get; commands=$value
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        get_command "$number"
    done
    frame hello

    # An external printf would show a secret in its arguments.
    [ "$(command -v printf)" = printf ] || refuse tool printf
    for tool in mktemp mkfifo mkdir rm head cat wc sleep; do
        command -v "$tool" >/dev/null 2>&1 || refuse tool "$tool"
    done
    make_directory
    mkfifo "$dir/stdout-pipe" "$dir/stderr-pipe" || refuse directory

    exec 3<&0 </dev/null
    watch <&3 3<&- >/dev/null 2>&1 &
    watcher=$!
    exec 3<&-
    # The watcher sees our input end when we are gone, and does what is left to do.
    trap 'rm -rf "$dir/secret"; signal TERM; exit 143' HUP INT TERM

    case $action in
        pull-missing | pull-always)
            frame stage inspect
            perform 1
            if [ "$code" -ne 0 ] || [ "$action" = pull-always ]; then
                frame stage pull
                perform 2
                if [ "$code" -eq 0 ]; then
                    frame stage verify
                    perform 1
                fi
            fi
            ;;
        *)
            number=0
            while [ "$number" -lt "$commands" ]; do
                number=$((number + 1))
                perform "$number"
            done
            ;;
    esac
    finish
}

main
