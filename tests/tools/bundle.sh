#!/usr/bin/env bash
# bundle.sh BIN DRIVER FIXTURES LAYER [device]: tern-bundle from ops to answers. Without `device` what needs no OpenCL
# device: making, checking, reports. With it also images and answers on the FPGA emulator (run by tests/opencl/on fpga).
set -euo pipefail
bin=$1 driver=$2 fixtures=$3 layer=$4 stage=${5:-}
tool=$bin/tern-bundle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "bundle.sh: $*" >&2; [ ! -s out ] || cat out >&2; exit 1; }
refuses() { # TEXT COMMAND...: it fails and says why
  local text=$1
  shift
  if "$@" > out 2>&1; then fail "did not fail: $*"; fi
  grep -qF -- "$text" out || fail "does not say \"$text\": $*"
}
unset TERN_OPENCL_BUNDLE TERN_OPENCL_NO_COMPILE TERN_FALLBACK OPENCL_LAYERS
ops=matmul:f32,matmul:i8,softmax:f32,add:f32,exp:f32
vendors=${OCL_ICD_VENDORS-} && mkdir none && export OCL_ICD_VENDORS=$work/none # no OpenCL but the loader

# ---- usage ----
"$tool" --help > out
grep -q 'usage: tern-bundle make' out || fail '--help says nothing'
status=0; "$tool" > out 2>&1 || status=$?; [ $status = 2 ] || fail "without a command: status $status"
status=0; "$tool" make -o x > out 2>&1 || status=$?; [ $status = 2 ] || fail "nothing to make: status $status"
refuses 'no op has that name' "$tool" make -o x --ops frobnicate:f32
refuses 'does not compute in that dtype' "$tool" make -o x --ops exp:i32
refuses 'no such target' "$tool" make -o x --ops add:f32 --target dsp
refuses 'no such trait' "$tool" make -o x --ops add:f32 --trait group=65
refuses 'a hint is' "$tool" make -o x --ops add:f32 --hint nothing
refuses 'cannot be read' "$tool" make -o x none.txt
refuses 'cannot be read' "$tool" check none.json

# ---- making: the text depends on nothing but regions and traits ----
hints=(--hint memory_bank=1 --hint softmax:num_compute_units=2)
"$tool" make -o one --ops $ops "${hints[@]}" 2> out
TERN_OPENCL_GEMM=plain TERN_OPENCL_REPLAY=off "$tool" make -o two.json --ops $ops "${hints[@]}" 2> out
cmp <(sed 1,4d one.cl) <(sed 1,4d two.cl) || fail 'the text differs from one run to the next'
grep -q 'hint memory_bank = 1' one.cl || fail 'no hint in the text'
[ "$(grep -c '__attribute__((num_compute_units(2)))' one.cl)" = 1 ] || fail 'a hint for one section is not in one'
"$tool" check one.json > table 2> out || fail 'not whole'
grep -q 'softmax .*task .*1x1x1' table || fail "the table: $(cat table)"
[ "$("$tool" check one.json --json)" = '{"version":1,"ok":true,"sections":5,"images":0,"findings":[]}' ] ||
  fail "as JSON: $("$tool" check one.json --json)"
"$tool" make -o wide --ops matmul:f32,softmax:f32 --target fpga-ndrange 2> out
"$tool" check wide.json > out
grep -q 'dot_tiled .*ndrange .*16x16x1' out || fail 'no kernel over a range in fpga-ndrange'
cat > graph.txt << 'EOF'
tern.graph 1 "layer" {
  %x = input f32[s0, 37]@cpu:0 #0 // an "@opencl:7" that is none
  %w = input f32[37, 19]@"cpu:0" #1
  %1 "name @cpu" = matmul %x, %w : f32[s0, 19]@cpu:0 on @cpu:0
  %2 = relu %1 : f32[s0, 19]@cpu:0
  return %2
}
EOF
refuses '--size s0=N' "$tool" make -o graph graph.txt
"$tool" make -o graph graph.txt --size s0=8 2> out || fail graph
"$tool" make -o again graph.txt --shape s0=100 2> out || fail 'another batch'
cmp <(sed 1,4d graph.cl) <(sed 1,4d again.cl) || fail 'the text depends on the batch'
sed 's/k < (ix)K/k <= (ix)K/' one.cl > changed && cp one.cl kept && cp changed one.cl
refuses 'one.cl' "$tool" check one.json
cp kept one.cl
sed 's/true/false/' one.json > changed.json
refuses 'was altered' "$tool" check changed.json

# ---- images that somebody else made, and their reports ----
echo 'what a board would be given' > board.aocx
cp one.json board.json
"$tool" add-image board.json board.aocx --board 'p520 : a board' > out
"$tool" report board.json "$fixtures/acl_quartus_report.txt" > out
grep -q 'kernel fmax 233.71 MHz, logic 98214 of 427200.*DSP blocks 137 of 1518' out || fail "the report"
"$tool" report board.json "$fixtures/xclbin.info" > out
grep -q 'ulp_ucs_aclk_kernel_00 287.4 MHz.*2 kernels' out || fail "AMD's report"
"$tool" report board.json "$fixtures/xclbin.info" --json > out
grep -q '"platform":"xilinx_u200_gen3x16_xdma_2_202110_1"' out || fail 'its JSON'
refuses 'is neither' "$tool" report board.json one.cl
"$tool" check board.json > out || fail 'a bundle with an image'
echo more >> board.aocx
refuses 'board.aocx has' "$tool" check board.json
refuses 'names a section that the bundle lacks' "$tool" add-image board.json board.aocx --only nothing

[ "$stage" = device ] || exit 0

# ---- the emulator makes images; nothing else compiles from here on ----
device=opencl:fpga-emu
export OCL_ICD_VENDORS=$vendors
export TERN_OPENCL_EMULATORS=1 TERN_FALLBACK=error TERN_DEVICE=$device
"$tool" image one.json --device $device > out 2>&1 || fail image
"$tool" check one.json > out || fail 'with an image'
export TERN_OPENCL_NO_COMPILE=1
refuses 'does not compute' "$driver" --drive
export TERN_OPENCL_BUNDLE=$work/one.json
[ "$("$driver" --drive 3 2> out)" = right ] || fail 'answers'
board() { OPENCL_LAYERS=$layer OCL_LAYER_NO_COMPILER=1 "$@"; } # as on a board
[ "$(board "$driver" --drive 3 2> out)" = right ] || fail 'answers without a compiler'
if [ -x "$bin/tern-info" ]; then
  cp one.json told.json && "$tool" report told.json "$fixtures/acl_quartus_report.txt" > out
  TERN_OPENCL_BUNDLE=$work/told.json "$bin/tern-info" > out
  grep -q 'image:one-fpga-emu.bin (kernel fmax 233.71 MHz' out || fail tern-info
fi

# an op that the bundle lacks: the CPU's, which is said, or an error
unset TERN_OPENCL_NO_COMPILE
"$tool" make -o less --ops matmul:f32,softmax:f32 2> out && "$tool" image less.json --device $device > out 2>&1
export TERN_OPENCL_NO_COMPILE=1 TERN_OPENCL_BUNDLE=$work/less.json
refuses 'does not compute' "$driver" --drive
[ "$(TERN_FALLBACK=warn "$driver" --drive 2> out)" = right ] || fail 'with the CPU for the rest'
grep -q 'it runs on the host' out || fail 'the CPU is not reported'

# ---- refused before the runtime sees it ----
bad() { # TEXT: opening the device fails
  refuses "$1" env TERN_OPENCL_BUNDLE="$work/bad.json" "$driver" --drive
  refuses "$1" env OPENCL_LAYERS="$layer" OCL_LAYER_NO_COMPILER=1 TERN_OPENCL_BUNDLE="$work/bad.json" "$driver" --drive
}
image=$(sed -n 's/.*"file":.*"\(one-.*\.bin\)".*/\1/p' one.json)
cp one.json bad.json
cp "$image" kept.bin
head -c 1000 kept.bin > "$image"; bad 'has 1000 bytes'
cp kept.bin "$image"; printf 'XX' | dd of="$image" bs=1 seek=500 conv=notrunc 2> /dev/null; bad 'was altered'
rm "$image"; bad 'cannot be read'
cp kept.bin "$image"
head -c 700 one.json > bad.json; bad 'cut short'
sed 's/"task"/"tusk"/' one.json > bad.json; bad 'was altered'
echo '{"format": "tern-bundle", "version": 9}' > bad.json; bad 'version 9'
rm bad.json; bad 'cannot be read'
cp board.json bad.json; bad 'p520 : a board' # an image for another device
cp graph.json bad.json; bad 'has no image'
# what a vendor's compiler made for whatever board there is: a binary that this board takes, and one that it does not
"$tool" make -o any --ops $ops 2> out
cp kept.bin any.bin && "$tool" add-image any.json any.bin > out
[ "$(TERN_OPENCL_BUNDLE=$work/any.json board "$driver" --drive 2> out)" = right ] || fail 'an added image'

# ---- several images: one at a time, and memory survives the changes ----
unset TERN_OPENCL_NO_COMPILE TERN_OPENCL_BUNDLE
"$tool" make -o parts --ops $ops 2> out
"$tool" image parts.json --device $device --file dots.bin --only DOT > out 2>&1 || fail 'an image of some sections'
refuses 'is in no image' "$tool" check parts.json
others=$({ "$tool" check parts.json 2> out || true; } | awk '/region_0/ {print $1}' | paste -sd,)
"$tool" image parts.json --device $device --file others.bin --only "$others" > out 2>&1 || fail 'an image of the others'
"$tool" check parts.json > out || fail 'in two images'
export TERN_OPENCL_NO_COMPILE=1 TERN_OPENCL_BUNDLE=$work/parts.json TERN_OPENCL_BUNDLE_SCRUB=1
[ "$(TERN_LOG=info board "$driver" --drive 12 2> out)" = right ] || fail 'answers from two images'
[ "$(grep -c 'change of image number' out)" = 23 ] || fail "$(grep -c 'change of image number' out) changes"
grep -q 'put the kernels that run in turn into one image' out || fail 'no warning of the changes'
# two bundles for one device
unset TERN_OPENCL_NO_COMPILE TERN_OPENCL_BUNDLE
"$tool" make -o a --ops matmul:f32,matmul:i8 2> out && "$tool" image a.json --device $device > out 2>&1
"$tool" make -o b --ops softmax:f32,add:f32,exp:f32 2> out && "$tool" image b.json --device $device > out 2>&1
export TERN_OPENCL_NO_COMPILE=1
[ "$(TERN_OPENCL_BUNDLE=$work/a.json:$work/b.json "$driver" --drive 2 2> out)" = right ] || fail 'two bundles'
unset TERN_OPENCL_NO_COMPILE
"$tool" make -o b --ops softmax:f32 --trait group=64 2> out && "$tool" image b.json --device $device > out 2>&1
cp b.json bad.json
refuses 'other traits' env TERN_OPENCL_BUNDLE="$work/a.json:$work/b.json" "$driver" --drive

# ---- kernels over ranges, from an image as well ----
"$tool" make -o wide --ops $ops --target fpga-ndrange 2> out && "$tool" image wide.json --device $device > out 2>&1
export TERN_OPENCL_NO_COMPILE=1 TERN_OPENCL_BUNDLE=$work/wide.json
[ "$(board "$driver" --drive 2> out)" = right ] || fail fpga-ndrange
