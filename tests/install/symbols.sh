#!/usr/bin/env bash
# symbols.sh BUILD: what the shared objects show to the world. libtern.so exports tern_* (never tern__*) and links no
# backend's library; a plugin exports tern_plugin_query alone and imports nothing of tern.
set -euo pipefail
lib=$1/lib fail=0
say() { echo "FAIL $*"; fail=1; }

defined() { nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }'; }
strange=$(defined "$lib/libtern.so" | grep -Ev '^tern_[a-zA-Z0-9]' || true)
[ -z "$strange" ] || say "libtern.so exports ${strange//$'\n'/ }"
[ "$(defined "$lib/libtern.so" | grep -c '^tern_')" -gt 0 ] || say "libtern.so exports nothing"
linked=$(ldd "$lib/libtern.so" | grep -Ei 'opencl|cuda|blas|llvm|dnnl|sleef|gomp|clblast' || true)
[ -z "$linked" ] || say "libtern.so links $linked"

count=0
for plugin in "$lib"/tern/libtern-*.so "$1"/plugins-test/libtern-*.so; do
  [ -e "$plugin" ] || continue
  count=$((count + 1))
  exported=$(defined "$plugin" | tr '\n' ' ')
  [ "$exported" = 'tern_plugin_query ' ] || say "$plugin exports $exported"
  wanted=$(nm -D --undefined-only "$plugin" | grep -o ' tern_.*' || true)
  [ -z "$wanted" ] || say "$plugin imports $wanted"
done
[ "$count" -gt 0 ] || say "no plugin in $lib/tern"
[ "$fail" = 0 ] && echo "ok   libtern.so and $count plugins"
exit "$fail"
