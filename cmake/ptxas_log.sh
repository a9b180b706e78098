#!/bin/sh
# ptxas_log.sh FOLDER COMPILER ARGUMENT…: runs nvcc and keeps what it and ptxas say of a source in
# FOLDER/STEM.log. It is printed only where the compiler fails: `-Xptxas -v` has a line a kernel.
set -u
folder=$1
shift
stem=
for argument in "$@"; do
  case $argument in
    *.cu) stem=$(basename "$argument" .cu) ;;
  esac
done
log=$folder/${stem:-nvcc}.log
"$@" > "$log" 2>&1
status=$?
if [ $status -ne 0 ]; then
  cat "$log" >&2
fi
exit $status
