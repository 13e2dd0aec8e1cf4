#!/usr/bin/env bash
# The x86 half of the way to a Jetson, without a GPU: bundles, their accuracy, preflight.
#
# Nothing is signed here: whoever writes the net decides what runs here. sign.sh signs, in a job of its
# own that runs nothing of the net's.
#
# Run it from your repository's root. It is what edgevision.github.yml and edgevision.gitlab.yml call.
# Everything is set by environment; what stands here are the defaults.
#
#   SOURCE       unet-camvid      a shipped net, package.module:factory, FILE.onnx, or FILE.toml
#   BUILD_ARGS                    more arguments of `edgevision build`, e.g. "--size 360x480"
#   CALIBRATION                   folder of typical frames; without it there is no INT8 bundle
#   EVALUATE                      folder of labelled frames; without it there is no accuracy gate
#   MAX_LOSS                      how much of the task's headline figure a form may lose against
#                                 PyTorch; by default what the task allows
#   TARGETS      "host-cpu rtx jetson-orin-jp6"
#   CHECK        jetson-orin-jp6  the target that preflight looks at
#   NAME         model            the bundles are NAME-fp16.ev and NAME-int8.ev
#   OUT          dist             folder for bundles and reports
#   INSTALL      "-e .[host]"     what pip installs; empty: edgevision is already here. In your own
#                                 repository e.g. edgevision[host]; the shipped nets come with ours
#   CACHE_BYTES  2GB              what is kept of the engine cache ($EDGEVISION_CACHE)
#
# Ends with 0 when every bundle is as good as this machine can make it, though plans are pending on
# the device (edgevision's exit code 4); else with the exit code of the step that failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${SOURCE:=unet-camvid}" "${BUILD_ARGS:=}" "${CALIBRATION:=}" "${EVALUATE:=}" "${MAX_LOSS:=}"
: "${TARGETS:=host-cpu rtx jetson-orin-jp6}" "${CHECK:=jetson-orin-jp6}" "${NAME:=model}"
: "${OUT:=dist}" "${INSTALL=-e .[host]}" "${CACHE_BYTES:=2GB}"

if [ -n "$INSTALL" ]; then
    python3 -m venv .venv-ci
    PATH="$PWD/.venv-ci/bin:$PATH"
    constraints=()
    if [ -f constraints.txt ]; then constraints=(-c constraints.txt); fi
    read -ra wanted <<<"$INSTALL"
    pip install --quiet --disable-pip-version-check "${constraints[@]}" "${wanted[@]}"
fi

mkdir -p "$OUT"
# Split on purpose: these are lists.
read -ra more <<<"$BUILD_ARGS"
read -ra targets <<<"$TARGETS"
arguments=("$SOURCE" "${more[@]}")
for target in "${targets[@]}"; do arguments+=(--target "$target"); done
if [ -n "$CALIBRATION" ]; then arguments+=(--calibration "$CALIBRATION"); fi
if [ -n "$EVALUATE" ]; then arguments+=(--evaluate "$EVALUATE"); fi

precisions=(fp16)
if [ -n "$CALIBRATION" ]; then precisions+=(int8); fi

for precision in "${precisions[@]}"; do
    bundle="$OUT/$NAME-$precision.ev"
    report="$OUT/$NAME-$precision.json"
    echo "== $bundle"

    code=0
    edgevision build "${arguments[@]}" --precision "$precision" --out "$bundle" \
        --json-file "$report" || code=$?
    # 4: made, and a plan is pending on the device. That is what an x86 machine can do.
    if [ "$code" -ne 0 ] && [ "$code" -ne 4 ]; then exit "$code"; fi

    python3 "$here/accuracy_gate.py" "$report" "$precision" "$MAX_LOSS"
    edgevision verify "$bundle"
    edgevision check "$bundle" --target "$CHECK"
    if [ "$code" -eq 4 ]; then python3 "$here/finishing_command.py" "$report"; fi
done

edgevision cache prune --max-bytes "$CACHE_BYTES"
