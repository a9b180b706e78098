#!/bin/sh
# check_plugin.sh NM LIBRARY: fails where an op of kernels/ops.def has no CUDA kernel. A shared
# object links with open names, and the loader would be the first to tell.
open=$("$1" -D --undefined-only "$2" | sed -n 's/.* \(meed_cuda_.*\)/\1/p')
if [ -n "$open" ]; then
  echo "$2: no definition of:" $open >&2
  rm -f "$2"
  exit 1
fi
