#!/usr/bin/env bash
# headers.sh INCLUDE [CC]: each public header compiles alone, twice included, without a warning, as C11 to the
# compiler's newest C, and as C++17 where a C++ compiler is there.
set -euo pipefail
include=$1 cc=${2:-cc} fail=0
flags=(-Wall -Wextra -Wshadow -Werror -fsyntax-only -I "$include")
count=0 cxx=$(command -v c++ || true)
check() { # COMPILER LANGUAGE STANDARD HEADER
  printf '#include <%s>\n#include <%s>\n' "$4" "$4" | "$1" -x "$2" -std="$3" "${flags[@]}" - ||
    { echo "FAIL $4 as $3"; fail=1; }
}
for header in "$include"/tern/*.h; do
  count=$((count + 1))
  name=tern/$(basename "$header")
  for std in c11 c17 c2x; do check "$cc" c "$std" "$name"; done
  if [ -n "$cxx" ]; then check "$cxx" c++ c++17 "$name"; fi
done
[ "$fail" = 0 ] && echo "ok   $count headers${cxx:+, C++ too}"
exit "$fail"
