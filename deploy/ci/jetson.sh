#!/usr/bin/env bash
# The device half: finishes a bundle's engine on this machine, verifies it, gates its speed.
#
# Run it on the board, from the folder where the x86 half's bundle lies. Never run on a Jetson by its
# authors: our tests run it with TARGET=local-cpu, which needs no GPU.
#
#   BUNDLE           dist/model-int8.ev
#   TARGET           local        local-cpu: a dry run without a GPU
#   PUBLIC_KEY                    file of the public key; empty: the signature is not asked for
#   MINIMUM_VERSION               refuse a bundle that was signed with a lower one
#   EVALUATE                      folder of labelled frames: scores the finished engine, too
#   BASELINE                      an earlier bundle, finished on this board; empty: no speed gate
#   GATE             5%           the slow-down that must not pass
#   REPORTS          reports      folder for the gate's reports
#
# Ends with edgevision's own exit codes: 0 done, 1 the answer is no, 3 something is missing here.
set -euo pipefail

: "${BUNDLE:=dist/model-int8.ev}" "${TARGET:=local}" "${PUBLIC_KEY:=}" "${MINIMUM_VERSION:=}"
: "${EVALUATE:=}" "${BASELINE:=}" "${GATE:=5%}" "${REPORTS:=reports}"

mkdir -p "$REPORTS"
edgevision doctor | tee "$REPORTS/doctor.txt"

signed=()
if [ -n "$PUBLIC_KEY" ]; then signed+=(--key "$PUBLIC_KEY"); fi
if [ -n "$MINIMUM_VERSION" ]; then signed+=(--minimum-version "$MINIMUM_VERSION"); fi
# Nothing of a bundle goes to a builder before its files and its signer are known.
edgevision verify "$BUNDLE" --files-only "${signed[@]}"

finish=(--target "$TARGET")
if [ -n "$EVALUATE" ]; then finish+=(--evaluate "$EVALUATE"); fi
edgevision finish "$BUNDLE" "${finish[@]}"

edgevision verify "$BUNDLE" "${signed[@]}"

if [ -n "$BASELINE" ]; then
    edgevision bench compare "$BASELINE" "$BUNDLE" --gate "$GATE" \
        --junit "$REPORTS/speed.xml" --markdown "$REPORTS/speed.md"
fi
