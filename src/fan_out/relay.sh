umask 077
f=
trap '[ -z "$f" ] || rm -f "$f"' EXIT
trap 'exit 1' HUP INT PIPE TERM
say() { printf 'prepull-relay %s\n' "$*"; }
refuse() { say refused "$*"; exit 0; }
[ "$(uname -s)" = Linux ] || refuse "it runs $(uname -s), not Linux"
tried=
for d in "${XDG_RUNTIME_DIR-}" /run /dev/shm /tmp /var/tmp "${HOME-}"; do
  if [ -z "$d" ] || ! [ -d "$d" ] || ! [ -w "$d" ]; then continue; fi
  tried="$tried $d"
  f=$(mktemp "$d/.prepull-relay.XXXXXXXX" 2>/dev/null) || { f=; continue; }
  # No program runs on a file system that is mounted so.
  if printf '#!/bin/sh\nexit 0\n' >"$f" && chmod 700 "$f" && "$f"; then break; fi 2>/dev/null
  rm -f "$f"
  f=
done
[ -n "$f" ] || refuse "no folder where a program may be run: tried${tried:- none, for none can be written to}"
s=
for d in /var/tmp /tmp "${HOME-}"; do
  if [ -n "$d" ] && [ -d "$d" ] && [ -w "$d" ]; then s=$d; break; fi
done
[ -n "$s" ] || refuse "no folder for what is passed on: neither /var/tmp nor /tmp nor the home directory can be written to"
free=$(df -Pk "$s" 2>/dev/null | { read -r l; read -r a b c k l; echo "$k"; })
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
