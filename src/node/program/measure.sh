#pull
# ---- What arrives

# Tells what arrives while the pull runs.
#
# docker's daemon says it where it is asked. Otherwise layers on their way are files that root may read: containerd's
# ingest folders (plugins/content/local), docker's GetImageBlob files (distribution/pull_v2.go), and what CRI-O and
# podman stage (containers/image, storage). That such a place exists does not show that this pull uses it: "measured" is
# said when the runtime itself named the place, or once something new is there. What has arrived is unpacked, which only
# the disk's use shows. Only changes are told: a later connection reads all of it again.
#
# It also keeps the limits of the pull, for a connection may be away: "guarded" says that it does.
measure() {
    end_with_child
    read_uptime
    changed=$uptime
    frame guarded
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
        read_uptime
        ! exceeds_limit || { end_late_pull; return; }
        [ "$seconds" -lt 300 ] || [ $((seconds % 5)) = 0 ] || continue
        if [ "$delivery" = input ]; then
            [ -e "$dir/ask" ] || read_docker_layers
        else
            now=$(layers)
            [ -z "$now" ] || found=yes
            [ -z "$found" ] || ! is_unpacking || now="$now disk:$(disk_use):0"
            tell_named_layers
        fi
        [ -n "$is_measured" ] || [ -z "$found" ] || { is_measured=yes; changed=$uptime; frame measured; }
        [ "$now $told" != "$last" ] || continue
        last="$now $told"
        changed=$uptime
        [ -n "$manifest" ] || [ "$delivery" = input ] || find_manifest
        [ ${#now} -lt 3000 ] && frame "progress$now"
    done
} 2>/dev/null

# The clock that no operator or time server sets.
read_uptime() {
    uptime=
    read -r uptime line </proc/uptime
    uptime=${uptime%%.*}
    uptime=${uptime:-0}
} 2>/dev/null

# Whether limit $1, if there is one, has passed since $2.
has_passed() {
    [ -n "$1" ] && [ $((uptime - $2)) -ge "$1" ]
}

# A connection that watches acts a few seconds earlier.
exceeds_limit() {
    late=
    if [ -n "$is_measured" ]; then
        ! has_passed "$stall_limit" "$changed" || late=stall
    else
        ! has_passed "$unseen_limit" "$since" || late=unseen
    fi
    ! has_passed "$pull_limit" "$since" || late=limit
    [ -n "$late" ]
}

# The supervisor ends us once its command has ended.
end_late_pull() {
    frame late "$late"
    : >"$dir/late"
    ask_command_to_end
    sleep 1 &
    wait $!
    signal KILL leader
    signal KILL readers
}

# Takes what the daemon answered when it was last asked, and asks again. Once the sizes of all layers are known, they
# make a manifest.
read_docker_layers() {
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
            *:there) report_layer there "$id" ;;
            *:came) report_layer came "$id:$size:$size" ;;
            # No bytes arrive, but it gets on.
            *:unpacks) report_layer came "$id:$size:$size"; now="$now disk${part#"$id"}" ;;
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

# Before the pull: where layers may arrive, and which are there. Command number $1 prints where the runtime keeps its
# files; docker's daemon tells all of that itself.
record_existing_layers() {
    : >"$dir/began"
    [ "$delivery" != input ] || return
    trap - TERM
    (exec_command "$1") </dev/null >"$dir/root" 8<&- &
    asked=$!
    record_processes leader "$asked"
    trap "$at_term" TERM
    ! stopped || signal TERM leader
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
# Reads where the runtime keeps its files into $root: its own word, or its usual place where it does not say. $root_of
# is the layout that they have there, as far as that is known (Runtime::data_dir in ports.rs).
read_root() {
    root_of=
    root=/var/lib/containerd
    # CRI-O says no more than its name, and podman in docker's place does not say it as docker would.
    [ ! -d "$storage" ] || root=$storage root_of=storage
    while read -r line; do
        case $line in
            'containerd /'* | 'docker /'* | 'storage /'*)
                root=${line#* } root_of=${line%% *}
                [ "$root_of" != storage ] || storage=$root
                ;;
            # Lines of the CRI's answer, which is JSON.
            *'"crio":'*) root=$storage root_of=storage ;;
            *'"containerdRootDir":'*) line=${line#*: \"}; root=${line%%\"*} root_of=containerd ;;
        esac
    done
}

#pull
# What arrives: names, bytes that are there, bytes in all (0: not known). Files that are older than the pull are
# another's.
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
report_layer() {
    case "$told " in *" $2 "*) return ;; esac
    told="$told $2"
    frame "$@"
}

# What docker's client says of layers has no sizes.
tell_named_layers() {
    for layer in $(grep -E '^[0-9a-f]{12}: (Already exists|Pull complete)' "$dir/stdout" | tr -d ' '); do
        case $layer in
            *exists) report_layer there "${layer%%:*}" ;;
            *) report_layer came "${layer%%:*}:0:0" ;;
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
        # shellcheck disable=SC2012,SC2086 # names of digests, without spaces
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
        # shellcheck disable=SC2086 # a list of digests
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

# Prints the newest manifest among the blobs "$@". An index stands for the manifests in it: the node has fetched its
# own.
read_manifest() {
    [ $# -gt 0 ] || return
    for blob in $(cd "$blobs" && ls -t -d "$@"); do
        [ "$(wc -c <"$blobs/$blob")" -lt 65536 ] || continue
        if grep -q '"manifests" *:' "$blobs/$blob"; then
            # shellcheck disable=SC2046 # a list of digests
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
#both
