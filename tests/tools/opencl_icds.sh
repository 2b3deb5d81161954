#!/usr/bin/env bash
# What tools/opencl-icds says without installing anything.
set -euo pipefail
tool=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$*" >&2; exit 1; }

"$tool" --help > "$work/out" # not into a pipe that grep -q would close
grep -q 'usage: opencl-icds' "$work/out" || fail '--help says nothing'
status=0
"$tool" > "$work/out" 2>&1 || status=$?
[ $status = 2 ] || fail "without a command: status $status"
if "$tool" --prefix "$work/icds" run intel true 2> "$work/out"; then fail 'ran what is not there'; fi
grep -q 'opencl-icds install intel' "$work/out" || fail "no remedy: $(cat "$work/out")"
[ "$("$tool" --prefix "$work/icds" list | grep -c 'not there')" = 5 ] || fail 'list does not know five'
mkdir -p "$work/icds/vendors/pocl"
# shellcheck disable=SC2016
[ "$("$tool" --prefix "$work/icds" run pocl sh -c 'echo $OCL_ICD_VENDORS')" = "$work/icds/vendors/pocl" ] || fail run
eval "$("$tool" --prefix "$work/icds" env pocl)"
[ "$POCL_CACHE_DIR" = "$work/icds/cache/pocl" ] || fail env
