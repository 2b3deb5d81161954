#!/usr/bin/env bash
# tern-tune on the machine's first OpenCL device: measures, remembers, forgets what is damaged, and refuses what is wrong.
#   tune.sh TERN-TUNE
set -euo pipefail
tool=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "tune.sh: $*" >&2; exit 1; }
export TERN_CACHE_DIR=$work/cache

"$tool" --help > "$work/out"
grep -q 'usage: tern-tune' "$work/out" || fail '--help says nothing'
for wrong in --bogus '--shapes 0x3' '--shapes 4x4x' '--shapes conv:1x2' '--dtype float'; do
  status=0
  # shellcheck disable=SC2086
  "$tool" $wrong > "$work/out" 2>&1 || status=$?
  [ $status = 2 ] || fail "$wrong: status $status"
done
if "$tool" --device cpu 2> "$work/out"; then fail 'tuned the CPU'; fi
grep -q 'not an OpenCL device' "$work/out" || fail "cpu: $(cat "$work/out")"

"$tool" --shapes 48x64x40 > "$work/first"
[ "$(grep -c '^DOT float32 48 x 64 x 40 .* \*$' "$work/first")" = 1 ] || fail "no single winner: $(cat "$work/first")"
[ "$(wc -l < "$work/first")" -gt 1 ] || fail 'one form only'
winner() { sed -n 's/.*"form": "\([^"]*\)".*"fastest": true.*/\1/p'; }
"$tool" --list --json > "$work/known"
form=$(winner < "$work/known")
grep -q "(1)  *$form  *[0-9.]* us  \*$" "$work/first" || fail "remembered $form: $(cat "$work/first")"
"$tool" --shapes 48x64x40 > "$work/again"
grep -q 'nothing new' "$work/again" || fail "measured what is known: $(cat "$work/again")"
"$tool" --shapes 48x64x40 --redo --json > "$work/redone"
grep -q '"measured": true' "$work/redone" || fail '--redo did not measure'

for file in "$work"/cache/*tune*; do printf 'x' | dd of="$file" bs=1 seek=9 conv=notrunc 2> /dev/null; done
[ -z "$("$tool" --list --json | winner)" ] || fail 'believed a damaged file'
"$tool" --shapes 48x64x40 --json > "$work/anew"
grep -q '"measured": true' "$work/anew" || fail 'did not measure anew'
echo 'tern-tune measures, remembers and refuses as it should'
