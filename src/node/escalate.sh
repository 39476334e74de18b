# Becomes root on a node, in POSIX sh, before the program is sent: through sudo, else through doas.
#
# It is sent like the program, followed by two lines: a mark for what it prints, and whether we have a
# password. Only `read` touches the input (single bytes from a pipe): the password that sudo may read and
# all that follows is still there. The bootstrap left $locale (what LC_ALL was); messages are in C.

main() {
    IFS= read -r mark || exit 1
    IFS= read -r password || exit 1
    # What root runs. Its line says that our input is no longer read for a password.
    start='printf "prepull-%s root begun\n" "$1"; if [ -n "$2" ]; then LC_ALL=$2; else unset LC_ALL; fi; IFS= read -r l; eval "$l"'
    tell=root
    tool=
    if [ "$(id -u)" != 0 ]; then
        for tell in sudo doas none; do
            # sshd's path for commands is short; NixOS has its own place for both.
            tool=$(PATH=${PATH:-/usr/bin:/bin}:/usr/bin:/bin:/usr/local/bin:/run/wrappers/bin; command -v "$tell") && break
        done
    fi
    # exec keeps the process number.
    printf 'prepull-%s root %s %s\n' "$mark" "$tell" "$$"
    case $tell-$password in
        root-*) exec sh -c "$start" sh "$mark" "$locale" ;;
        # -k: neither use nor leave a time stamp that lets others in without the password.
        # -u: sudoers may name another default (runas_default).
        sudo-yes) exec "$tool" -k -S -u root -p "prepull-$mark password$n" -- sh -c "$start" sh "$mark" "$locale" ;;
        sudo-*) exec "$tool" -k -n -u root -- sh -c "$start" sh "$mark" "$locale" ;;
        doas-*) exec "$tool" -n -- sh -c "$start" sh "$mark" "$locale" ;;
    esac
    exit 1
}

main
