#!/usr/bin/env bash
# run.sh BUILD [CC]: install BUILD into a temporary prefix and use it from outside: a consumer by
# find_package(tern), the same by pkg-config, the template plugin built out of tree, and the prefix moved elsewhere
# afterwards.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1 cc=${2:-cc}
want='tern.Tensor([5. 7. 9.], shape=(3,), dtype=float32)'
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unset TERN_PLUGIN_PATH TERN_DEVICE LD_LIBRARY_PATH PKG_CONFIG_PATH
export TERN_FALLBACK=error

# expect NAME COMMAND...: the command prints the wanted line
expect() {
  local name=$1 got
  shift
  got=$("$@" 2>&1) || { echo "FAIL $name: exit $?: $got"; exit 1; }
  [ "$got" = "$want" ] || { printf 'FAIL %s: got\n%s\nwant\n%s\n' "$name" "$got" "$want"; exit 1; }
  echo "ok   $name"
}

cmake --install "$build" --prefix "$tmp/prefix" > "$tmp/install.log" || { cat "$tmp/install.log"; exit 1; }
pc=$(dirname "$(find "$tmp/prefix" -name tern.pc)")
lib=$(dirname "$pc")
[ -e "$lib/tern/libtern-cpu.so" ] || { echo "FAIL no CPU plugin in $lib/tern"; exit 1; }
"$tmp/prefix/bin/tern-info" > /dev/null || { echo "FAIL installed tern-info"; exit 1; }
echo "ok   installed tern-info"

cmake -S "$here/consumer" -B "$tmp/out" -G Ninja -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$tmp/prefix" \
  -DPLUGIN_SOURCES="$here/../../plugins/template" > "$tmp/cmake.log" 2>&1 || { cat "$tmp/cmake.log"; exit 1; }
ninja -C "$tmp/out" > "$tmp/ninja.log" || { cat "$tmp/ninja.log"; exit 1; }
expect 'find_package' "$tmp/out/consumer"
[ "$(cat "$tmp/out/plugin-dir")" = "$lib/tern" ] || { echo "FAIL TERN_PLUGIN_DIR"; exit 1; }
expect 'plugin built out of tree' env TERN_PLUGIN_PATH="$tmp/out" TERN_DEVICE=template "$tmp/out/consumer"

export PKG_CONFIG_PATH=$pc
plugindir=$(realpath "$(pkg-config --variable=plugindir tern)")
[ "$plugindir" = "$(realpath "$lib/tern")" ] || { echo "FAIL plugindir $plugindir"; exit 1; }
# shellcheck disable=SC2046  # the flags are words
"$cc" -Wall -Wextra -Werror "$here/consumer/main.c" -o "$tmp/by-pkg-config" $(pkg-config --cflags --libs tern)
expect 'pkg-config' env LD_LIBRARY_PATH="$lib" "$tmp/by-pkg-config"

mv "$tmp/prefix" "$tmp/moved"
expect 'prefix moved' env LD_LIBRARY_PATH="${lib/#"$tmp/prefix"/"$tmp/moved"}" "$tmp/by-pkg-config"
