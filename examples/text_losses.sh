#!/usr/bin/env bash
# The validation losses of text_rnn and transformer beside PyTorch's for the same models: at most 2 % more.
#   text_losses.sh FIXTURE PROGRAM...     FIXTURE: lines of example, epochs, loss (tests/fixtures/make_text.py)
set -euo pipefail
fixture=$1
shift
for program in "$@"; do
  name=$(basename "$program")
  read -r epochs want < <(awk -v n="$name" '$1 == n { print $2, $3 }' "$fixture")
  got=$("$program" --epochs "$epochs" | sed -n 's/^validation loss: //p')
  echo "$name after $epochs epochs: $got, PyTorch $want"
  awk -v g="$got" -v w="$want" 'BEGIN { exit !(g > 0 && g <= 1.02 * w) }'
done
