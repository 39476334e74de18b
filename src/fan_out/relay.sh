umask 077
f=
trap '[ -z "$f" ] || rm -f "$f"' EXIT
trap 'exit 1' HUP INT PIPE TERM
say() { printf 'prepull-relay %s\n' "$*"; }
refuse() { say refused "$*"; exit 0; }
[ "$(uname -s)" = Linux ] || refuse "it runs $(uname -s), not Linux"
tried=
for d in "${XDG_RUNTIME_DIR-}" /run /dev/shm /tmp /var/tmp "${HOME-}"; do
  if [ -z "$d" ] || ! [ -d "$d" ]; then continue; fi
  if ! [ -w "$d" ]; then tried="$tried; $d: not writable"; continue; fi
  # Where it fails, this is the message.
  f=$(mktemp "$d/.prepull-relay.XXXXXXXX" 2>&1) || { tried="$tried; $d: ${f##*: }"; f=; continue; }
  if ! e=$({ printf '#!/bin/sh\nexit 0\n' >"$f" && chmod 700 "$f"; } 2>&1); then
    tried="$tried; $d: ${e##*: }"
  elif "$f" 2>/dev/null; then
    break
  else
    tried="$tried; $d: no program may run there (mounted noexec?)"
  fi
  rm -f "$f"
  f=
done
[ -n "$f" ] || refuse "no folder where a program can be put and run${tried}"
s=
for d in /var/tmp /tmp "${HOME-}"; do
  if [ -n "$d" ] && [ -d "$d" ] && [ -w "$d" ]; then s=$d; break; fi
done
[ -n "$s" ] || refuse "no folder for what is passed on: neither /var/tmp nor /tmp nor the home directory can be written to"
# Its free kilobytes and its mount point.
disk() { df -Pk "$1" 2>/dev/null | { read -r l; read -r a b c k e m; echo "${k:-0} $m"; }; }
own=$(disk "$s")
free=${own%% *}
for d in /var/lib/docker /var/lib/containerd /var/lib/containers /var/lib/rancher; do
  other=$(disk "$d")
  # There the runtime needs three times as much: what comes, and twice that unpacked.
  if [ "${other#* }" = "${own#* }" ]; then free=$((free / 4)); break; fi
done
c=${SSH_CONNECTION-}
# shellcheck disable=SC2086 # its words are what is wanted
set -- $c
say here "$(uname -m)" "${free:-0}" "${3:--}" "$s"
IFS=' ' read -r size sum || exit 1
head -c "$size" >"$f" 2>/dev/null || refuse "no room for the relay in ${f%/*}"
is=$(sha256sum <"$f") || refuse "it has no sha256sum"
[ "${is%% *}" = "$sum" ] || refuse "the relay arrived damaged: its SHA-256 is ${is%% *}, not $sum"
say started
exec "$f"
