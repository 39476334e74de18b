#pull
# ---- A pull on its own

# The first command inspects, the second pulls, the third tells where the runtime keeps its files. A fourth asks
# docker's daemon to pull, which tells more than its client does.
#
# Where $naming is the number of a command, the image is pulled under a name that leads to prepull: that command tells
# whether the image can get its own name here, the next one gives it that name, and the one after that removes the
# other name, which is left behind at no end.
run_supervisor() {
    at_term='forget_secret; signal TERM leader; exit 143'
    trap "$at_term" INT TERM
    read_uptime
    since=$uptime
    lock_image
    read_uptime
    waited=$((uptime - since))
    frame stage inspect
    run_command 1
    if [ "$code" -ne 0 ] || [ "$action" = pull-always ]; then
        if [ -n "$naming" ]; then
            frame stage pull
            run_command "$naming"
            [ "$code" -eq 0 ] || finish
            has_local_name=yes
        fi
        answered=
        read_uptime
        since=$((uptime - waited))
        frame stage pull
        ! may_ask_daemon || run_command 4 3
        if [ -z "$answered" ]; then
            frame stage pull
            run_command 2 3
        fi
        if [ "$code" -eq 0 ] && [ -n "$naming" ]; then
            frame stage verify
            run_command $((naming + 1))
            [ "$code" -ne 0 ] || has_local_name=
        fi
        if [ "$code" -eq 0 ]; then
            frame stage verify
            is_pulled=yes
            run_command 1
        fi
    fi
    finish
}

# What the client alone can do: find a login of the node's own, and check signatures. A client that is too old to join
# us to the daemon, or does not reach it, has no answer for us. podman in docker's place has no daemon, and says who it
# is when it is asked for an image.
may_ask_daemon() {
    [ "${naming:-$((commands + 1))}" = 5 ] && [ -z "${DOCKER_CONTENT_TRUST:-}" ] || return
    ! grep -qs -e podman -e 'image not known' "$dir/stderr" || return
    [ "$delivery_2" != directory ] || return 0
    config=${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json
    [ ! -e "$config" ] || [ -f "$config" ] && ! grep -qs -e '"auth' -e '"cred' "$config"
}

# One pull of an image at a time: a second one waits here, and then finds what the first one brought. It is the
# operator's side that limits the wait.
lock_image() {
    turn=${dir%/*}/turn.$turn_name
    told=
    until mkdir "$turn" 2>/dev/null; do
        stopped && finish
        is_ours "$turn" || return
        # Its holder may be about to write down who it is.
        [ -z "$told" ] || holds_image_lock || rm -rf "$turn"
        [ -n "$told" ] || frame stage turn
        told=yes
        sleep 1
    done
    printf '%s\n' "$nonce" >"$turn/holder" || rm -rf "$turn"
}

# What an earlier pull of this name left when its directory was removed is not a lock.
holds_image_lock() {
    read_word "$turn/holder" && [ "$word" != "$nonce" ] && is_alive supervisor 8 "${dir%/*}/$word"
}

# The supervisor's end. The frames stay for viewers that have not seen them yet.
finish_supervisor() {
    # A daemon that was asked itself left the login for its client unused.
    forget_secret
    [ -z "$has_local_name" ] || forget_local_name
    unlock_image
    if stopped; then
        frame end
        signal TERM keeper
        remove
    else
        # The viewer that sees the end removes the directory: nothing may be written to it after that. Frames that did
        # not fit are not an end.
        [ -n "$lost" ] || : >"$dir/ended"
        frame end
    fi
    exit 0
}

# Ends what shows the pull to a connection, which does not know yet that it is lost: TERM. Or it is not lost, and
# somebody else goes on with the pull: USR1 lets the viewer say so (TAKEN_OVER in protocol.rs).
end_viewer() {
    ! is_alive viewer 9 || kill -"$1" "$process"
    ! is_alive tail 9 || kill "$process"
}

# Ends the pull when no connection asked after it for a whole lease.
run_keeper() {
    end_with_child
    last=
    quiet=0
    while [ "$quiet" -lt "$ticks" ]; do
        sleep "$tick" &
        wait $!
        read_word "$dir/beat"
        quiet=$((quiet + 1))
        [ "$word" = "$last" ] || quiet=0
        last=$word
    done
    end_viewer TERM
    ask_to_end
    force_end
}

forget_local_name() {
    (exec_command $((naming + 2))) </dev/null >/dev/null 2>&1 8<&- &
    wait $!
}

# Ends the pull. What sees to that ends with the pull, or ends it by force.
cancel_pull() {
    signal TERM keeper
    (trap '' HUP; trap - TERM; force_end) </dev/null >/dev/null 2>&1 3<&- 9<&- &
    record_processes keeper $!
    ask_to_end
}

#both
unlock_image() {
    turn=${dir%/*}/turn.$turn_name
    read_word "$turn/holder" && [ "$word" = "$nonce" ] && rm -rf "$turn"
}

#pull
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
start_detached() {
    : >"$dir/frames"
    [ -z "$tied" ] || frame tied >>"$dir/frames"
    trap '' HUP
    # It must be known by its frames from its first moment on (is_alive): they are opened before it begins, on a
    # descriptor that no redirection replaces for a while.
    exec 8<"$dir/frames"
    (detached=supervisor; run_supervisor) </dev/null >>"$dir/frames" 2>/dev/null &
    supervisor=$!
    exec 8<&-
    # No other process needs a secret.
    number=0
    while [ "$number" -lt "$commands" ]; do
        number=$((number + 1))
        unset "secret_$number"
    done
    (run_keeper) </dev/null >/dev/null 2>&1 &
    record_processes keeper $!
    printf '%s\n' "$supervisor" >"$dir/supervisor"
    trap - HUP
}

# Finds the pull that an earlier connection left here; false when there is none any more. One that came through that
# connection cannot go on: it is ended, unless it has ended.
reattach() {
    read_word "$dir/vault"
    vault=$word
    tries=0
    most=8
    [ -z "$naming" ] || most=$((2 * grace + 8))
    while is_ours "$dir"; do
        tries=$((tries + 1))
        if [ -e "$dir/supervisor" ] && ! [ -e "$dir/stop" ]; then
            is_alive supervisor 8 || [ -e "$dir/ended" ]
            case $?$naming in
                0) return 0 ;;
                0*)
                    [ ! -e "$dir/ended" ] || return 0
                    cancel_pull
                    ;;
                # It was killed, and no process is left to clean up.
                *) tries=$most ;;
            esac
        fi
        # It is being set up or taken down just now.
        [ "$tries" -lt "$most" ] || {
            signal TERM keeper
            signal KILL leader
            forget_secret
            [ -z "$naming" ] || forget_local_name
            unlock_image
            remove
        }
        sleep 1
    done
    return 1
}

# Shows the frames to this session and does what it is told, until the session ends.
serve_viewer() {
    exec 9<"$dir/frames"
    end_viewer USR1
    printf '%s\n' "$$" >"$dir/viewer"
    exec 3<&0 </dev/null
    [ -n "$fresh" ] || frame replay $(($(wc -c <"$dir/frames")))
    tail -c +1 -f "$dir/frames" 3<&- &
    tail=$!
    read_process $tail
    tail_born=$born
    trap 'end_tied_pull; end "$tail" "$tail_born"; exit 143' HUP INT TERM
    trap 'end "$tail" "$tail_born"; exit "$taken_over"' USR1
    printf '%s\n' "$tail" >"$dir/tail"
    beats=0
    while IFS= read -r line <&3; do
        case $line in
            "$say_beat")
                beats=$((beats + 1))
                printf '%s\n' "$$ $beats" >"$dir/beat"
                is_alive supervisor 8 || [ -e "$dir/ended" ] || {
                    printf '%s\n' "the pull's supervisor was killed, or there is no room left in $dir" >&7
                    break
                }
                ;;
            "$say_cancel") cancel_pull ;;
            "$say_enough") signal KILL readers ;;
            # The connection is needed elsewhere, and comes back before the lease ends.
            "$say_leave")
                printf '%s\n' "$$ leaves" >"$dir/beat"
                break
                ;;
            "$say_done")
                signal TERM keeper
                remove
                break
                ;;
        esac
    done
    end_tied_pull
    end "$tail" "$tail_born"
} 2>/dev/null

# What comes through this connection ends with it.
end_tied_pull() {
    [ -z "$naming" ] || [ -e "$dir/ended" ] || ! is_alive supervisor 8 || cancel_pull
}
#both
