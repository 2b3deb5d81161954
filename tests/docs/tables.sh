#!/bin/sh
# The generated parts of the docs are what the code says: docs/ops.md and the guide's table of variables.
#   tables.sh BUILD SOURCE
set -eu
build=$1 source=$2
"$build/bin/tern-info" --ops-markdown | diff -u "$source/docs/ops.md" - || {
  echo "docs/ops.md is old: tern-info --ops-markdown > docs/ops.md"
  exit 1
}
sed -n 's/^OPTION([a-z_]*, "\([A-Z_]*\)".*/\1/p' "$source/core/base/options.def" | while read -r variable; do
  sed -n '/<!-- options -->/,/<!-- \/options -->/p' "$source/docs/guide.md" | grep -q "\`$variable\`" || {
    echo "docs/guide.md's table lacks $variable"
    exit 1
  }
done
echo "the tables are current"
