# The program that prepull runs on a node, in POSIX sh: dash, bash and busybox ash all run it. Its parts, joined in this
# order:
#
#   values.sh    the values that the program is sent, and the frames that it sends back
#   private.sh   the user's private directory, and secrets in memory
#   run.sh       starting a command, collecting its output, ending it
#   measure.sh   what arrives while a pull runs, and which layers were there before
#   detached.sh  pulls that go on without a connection
#   main.sh      what is done with the values
#
# It is sent on standard input (see request.rs), comments and indentation removed, followed by values.
# A value is data: it is assigned to variables and passed on as "$@", never evaluated.
#
# Needs: mkfifo mkdir rmdir rm ls head tail cat wc sleep (coreutils and busybox have them all), and a printf
# that is built into the shell. Uses setsid where there is one, and stat to find memory file systems.
#
# Other users of the node are hostile. All files are in one directory of the user's own (open_private), and a
# process is signalled only once it is proven to be the one that was recorded (is_same, is_alive).
#
# Roles. A question or the operator's command is tied to the session: the main shell writes to its output, and a
# watcher reads its input. When that says "cancel", or ends because the connection is gone, the command is ended.
#
# A pull is not tied to its session. A supervisor runs it and writes the same frames to a file, in a directory that has
# the pull's name. The main shell is then only the viewer: it shows that file to the current connection, now or later. A
# keeper ends the pull when no connection asked after it for a whole lease.
#
# What follows a line "#pull" is sent with pulls alone, what follows "#call" with everything else, "#both" with both.
# The bootstrap left $n (a newline) and $locale (what LC_ALL was); request.rs adds the words and times of protocol.rs:
# $say_cancel, $say_enough, $say_beat, $say_leave, $say_done, $grace and $taken_over.

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

# Reads the first line of our file $1 into $word; a FIFO would hold us for ever.
read_word() {
    word=
    [ -f "$1" ] && read -r word <"$1"
} 2>/dev/null
