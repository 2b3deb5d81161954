#!/usr/bin/env bash
# fpga_infer.sh PROGRAM TERN-BUNDLE [SHAPE]: a model from training to answers on a device without a compiler. Trains
# PROGRAM's perceptron on the CPU, bundles its inference (float32 and int8), has the emulator compile the image in one
# process, and predicts in others, where nothing may be compiled and nothing may run on the CPU: answers must be the
# CPU's, and the trace must show every kernel on the emulator. DEVICE: opencl:fpga-emu. LAYER: a library for
# OPENCL_LAYERS that takes the compiler away as a board does (tests/support/ocl_layer.c).
set -euo pipefail
program=$1 bundle=$2 shape=${3:-100}
device=${DEVICE:-opencl:fpga-emu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "fpga_infer.sh: $*" >&2; exit 1; }
unset TERN_OPENCL_BUNDLE TERN_OPENCL_NO_COMPILE TERN_TRACE TERN_DUMP

echo "1. training on the CPU, and the CPU's answers"
TERN_DEVICE=cpu "$program" train "$work/weights"
mkdir "$work/dump"
for way in "" --int8; do # TERN_DUMP: the graphs, as they were traced
  # shellcheck disable=SC2086
  TERN_DEVICE=cpu TERN_DUMP="$work/dump" "$program" predict "$work/weights" "$work/cpu$way" $way --shape "$shape" |
    tee "$work/cpu$way.said"
done

echo "2. the bundle: one .cl and its manifest"
"$bundle" make -o "$work/model" --target fpga "$work"/dump/*-predict-1-traced.txt \
  "$work"/dump/*-predict_int8-1-traced.txt

echo "3. the image, made by the emulator's compiler in a process of its own"
"$bundle" image "$work/model.json" --device "$device"
"$bundle" check "$work/model.json"

echo "4. answers on $device, with nothing but the image"
export TERN_OPENCL_BUNDLE="$work/model.json" TERN_OPENCL_NO_COMPILE=1 TERN_FALLBACK=error TERN_DEVICE=$device
if [ -e "${LAYER:-}" ]; then
  export OPENCL_LAYERS=$LAYER OCL_LAYER_NO_COMPILER=1
  echo "   (the loader's layer refuses every compilation)"
fi
for way in "" --int8; do
  # shellcheck disable=SC2086
  TERN_TRACE="$work/trace$way" "$program" predict "$work/weights" "$work/fpga$way" $way --shape "$shape" |
    tee "$work/fpga$way.said"
  cmp "$work/cpu$way" "$work/fpga$way" || fail "the answers${way:+ of }$way differ from the CPU's"
  # the trace, an event a line: a process is a device, and a launch names it
  name=$(sed -n 's/.*"name":"to".*"device":"\([^"]*\)".*/\1/p' "$work/trace$way" | head -1)
  emulator=$(sed -n "s/.*\"process_name\",\"pid\":\([0-9]*\),.*\"$name.*/\1/p" "$work/trace$way" | head -1)
  launches=$(grep -c '"cat":"launch"' "$work/trace$way" || true)
  elsewhere=$(grep '"cat":"launch"' "$work/trace$way" | grep -vc "\"pid\":$emulator," || true)
  if [ -z "$emulator" ] || [ "$launches" = 0 ] || [ "$elsewhere" != 0 ]; then
    fail "$elsewhere of $launches launches are not on $device"
  fi
  echo "   $launches launches, all on $device"
done
paste "$work/fpga.said" "$work/fpga--int8.said" | awk '{ d = $3 - $7; if (d < 0) d = -d; exit d > 0.01 }' ||
  fail "int8 is more than 1 % away from float32"
echo "answers equal the CPU's, int8 within 1 % of float32"
