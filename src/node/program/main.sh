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
    read_word /proc/sys/kernel/random/boot_id
    boot=$word
    storage=/var/lib/containers/storage
    content=io.containerd.content.v1.content
    is_pulled=
    has_local_name=

    get; nonce=$value
    get; action=$value
    get; limit_stdout=$value
    get; limit_stderr=$value
    get; turn_name=$value
    get; tick=$value
    get; ticks=$value
    get; may_use_disk=$value
    get; naming=$value
#pull
    get; stall_limit=$value
    get; pull_limit=$value
    get; unseen_limit=$value
#both
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
    if [ -z "$fresh" ] && ! reattach; then
        make_directory
    fi
    if [ -n "$fresh" ]; then
        [ "$action" != pull-cancel ] || finish
        [ "$delivery_2" != directory ] || make_vault
        start_detached
    fi
    serve_viewer 7>&2
#call
    exec 3<&0 </dev/null
    run_watcher <&3 3<&- >/dev/null 2>&1 &
    watcher=$!
    read_process "$watcher"
    watcher_born=$born
    exec 3<&-
    # The watcher sees our input end when we are gone, and does what is left to do.
    at_term='signal TERM leader; exit 143'
    trap "$at_term" HUP INT TERM
    [ "$action" != facts ] || tell_host
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        run_command "$number"
        [ "$action$number" != facts1 ] || tell_disk
    done
    finish
#both
}

main
