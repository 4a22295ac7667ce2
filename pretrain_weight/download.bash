#!/usr/bin/env bash
# Fetch weight files into this folder, or into $ANCHOR_SAM_WEIGHTS. An interrupted file is continued,
# a complete one is verified and gets its name; what is there already is verified and kept.
usage='usage: bash pretrain_weight/download.bash [--list] [sam2|resnet|FILE ...]
  without a name: all files of sam2 and resnet (about 2 GB)
  environment: ANCHOR_SAM_WEIGHTS  folder to write to
               ANCHOR_SAM_URL_SAM2, ANCHOR_SAM_URL_RESNET  mirrors in place of the official addresses'
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=$here/SHA256SUMS
folder=${ANCHOR_SAM_WEIGHTS:-$here}
attempts=4

say() { echo "download: $1"; }
complain() { echo "download: $1" >&2; }

entries() { # the table as lines: file, SHA-256, group, URL, licence
  awk '/^#@ / {split(substr($0, 4), head, " [|] "); next}
       /^[0-9a-f]/ {print $2, $1, head[1], head[2], head[3]}' "$table"
}

choose() { # the entries that one argument names: a group, a file, or a file without its ending
  entries | awk -v name="$1" '
    $3 == name {print; group = 1}
    !group && !one && ($1 == name || index($1, name "-") == 1 || $1 == name ".pt") {one = $0}
    END {if (!group && one) print one; exit !(group || one)}'
}

list() {
  local file sha256 group url licence state
  while read -r file sha256 group url licence; do
    state=absent
    [ -e "$folder/$file" ] && state=present
    printf '%-28s %-7s %-13s %s\n' "$file" "$group" "$licence" "$state"
  done < <(entries)
}

verified() { # FILE SHA256, which may be the first digits only
  local actual
  if command -v sha256sum >/dev/null; then
    actual=$(sha256sum <"$1")
  elif command -v shasum >/dev/null; then
    actual=$(shasum -a 256 <"$1")
  else
    complain "neither sha256sum nor shasum found, files cannot be verified"
    exit 1
  fi
  [ "${actual#"$2"}" != "$actual" ]
}

transfer() { # URL PART: continue PART; sets reason, pause (seconds until the next attempt) and,
  # where asking again is of no use, final
  local status=0 code='' progress
  reason='' final='' pause=1
  if command -v curl >/dev/null; then
    progress=--silent
    [ -t 2 ] && progress=--progress-bar
    code=$(curl --fail --location "$progress" --connect-timeout 30 --speed-limit 1 --speed-time 60 \
      --continue-at - --write-out '%{http_code}' --output "$2" "$1") || status=$?
  elif command -v wget >/dev/null; then
    progress=--no-verbose
    [ -t 2 ] && progress=--show-progress
    code=$(wget --quiet --server-response "$progress" --tries=1 --timeout=60 --continue \
      --output-document="$2" --output-file=/dev/stdout "$1" |
      awk '$1 ~ /^HTTP/ {code = $2} END {print code}') || status=$?
    [ "$status" -ne 3 ] || status=23 # as curl says it
  else
    complain "neither curl nor wget found"
    exit 1
  fi
  case $status:$code in
    0:*) return 0 ;;
    33:* | *:416) rm -f "$2"; reason="the partial file could not be continued" ;;
    23:*) reason="cannot write to $folder, is the disk full?"; final=1 ;;
    *:408 | *:429 | *:5??) reason="the server answers $code for $1"; pause=10 ;; # it is busy
    *:4??) reason="the server answers $code for $1"; final=1 ;;
    *) reason="no connection to $1, or it broke off" ;;
  esac
  return 1
}

complete() { # FILE SHA256: give the verified .part its name
  verified "$folder/$1.part" "$2" && mv "$folder/$1.part" "$folder/$1" && say "$1 is complete, verified"
}

fetch() { # FILE SHA256 GROUP URL
  local mirror url part=$folder/$1.part attempt resumed reason pause final
  if [ -e "$folder/$1" ]; then
    if verified "$folder/$1" "$2"; then say "$1 is there already, verified"; return 0; fi
    complain "$folder/$1 is damaged (its SHA-256 is not $2): delete it and run this again"
    return 1
  fi
  if [ -e "$part" ] && complete "$1" "$2"; then return 0; fi
  mirror=ANCHOR_SAM_URL_$(echo "$3" | tr '[:lower:]' '[:upper:]')
  url=${!mirror:-$4}/$1
  say "$1 from ${url%/*}"
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    resumed=
    [ -s "$part" ] && resumed=1
    if transfer "$url" "$part"; then
      if complete "$1" "$2"; then return 0; fi
      rm -f "$part"
      reason="what $url sends is not the published file (its SHA-256 is not $2)"
      [ -n "$resumed" ] || break # the damage may have been in the part that was there
    elif [ -n "$final" ]; then
      break
    fi
    [ "$attempt" -eq "$attempts" ] || sleep "$pause"
  done
  complain "$1 not fetched: $reason"
  return 1
}

main() {
  local chosen='' entry name failed=0
  for name in "$@"; do
    case $name in
      -h | --help) echo "$usage"; exit 0 ;;
      --list) list; exit 0 ;;
      -*) complain "unknown option $name"; echo "$usage" >&2; exit 2 ;;
    esac
    chosen+=$(choose "$name")$'\n' || {
      complain "unknown file $name, one of: sam2 resnet $(entries | cut -d' ' -f1 | tr '\n' ' ')"
      exit 2
    }
  done
  [ $# -gt 0 ] || chosen=$(entries | awk '$3 != "older"')
  mkdir -p "$folder" || exit 1
  trap 'complain "interrupted, run it again to continue"; exit 130' INT TERM
  while read -r -u 3 entry; do
    [ -z "$entry" ] || fetch $entry || failed=1
  done 3<<<"$chosen"
  exit "$failed"
}

main "$@"
