#!/usr/bin/env bash
# same_losses.sh PROGRAM: runs mnist_mlp for three epochs on the CPU and on OpenCL; the losses must agree to 1e-4.
set -euo pipefail
losses() { TERN_DEVICE=$1 "$2" --epochs 3 | sed -n 's/.*mean loss //p'; }
cpu=$(losses cpu "$1") opencl=$(losses opencl:0 "$1")
printf 'cpu: %s\nopencl:0: %s\n' "$(echo $cpu)" "$(echo $opencl)"
paste <(echo "$cpu") <(echo "$opencl") |
  awk '{ d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || d > 1e-4) bad = 1 } END { exit bad || NR != 3 }'
