#!/usr/bin/env bash
# The device half: finishes a bundle's engine on this machine, verifies it, gates its speed.
#
# Run it on the board, from the folder where the x86 half's bundle lies. Never run on a Jetson by its
# authors: our tests run it with TARGET=local-cpu, which needs no GPU.
#
#   BUNDLE           dist/model-int8.ev
#   TARGET           local        local-cpu: a dry run without a GPU
#   PUBLIC_KEY                    file of the public key, or several with spaces between, as while keys
#                                 change; without one nothing is built
#   MINIMUM_VERSION               refuse a bundle that was signed with a lower one. What is older than
#                                 what ran on this board (EDGEVISION_STATE) is refused without it
#   MODEL                         refuse a bundle of another model
#   EVALUATE                      folder of labelled frames: scores the finished engine, too
#   BASELINE                      an earlier bundle, finished on this board; empty: no speed gate
#   GATE             5%           the slow-down that must not pass
#   REPORTS          reports      folder for the gate's reports
#
# Ends with edgevision's own exit codes: 0 done, 1 the answer is no, 3 something is missing here.
set -euo pipefail

: "${BUNDLE:=dist/model-int8.ev}" "${TARGET:=local}" "${MINIMUM_VERSION:=}" "${MODEL:=}"
: "${EVALUATE:=}" "${BASELINE:=}" "${GATE:=5%}" "${REPORTS:=reports}"

# A plan is machine code: what nobody signed is not built here.
: "${PUBLIC_KEY:?set PUBLIC_KEY to the file of the public key that bundles are signed for}"

# Where the start page installs it: no CI runner enters a virtual environment by itself.
if ! command -v edgevision >/dev/null; then PATH="${HOME:-}/ev/bin:$PATH"; fi

mkdir -p "$REPORTS"
edgevision doctor | tee "$REPORTS/doctor.txt"

read -ra keys <<<"$PUBLIC_KEY"
known=()
for key in "${keys[@]}"; do known+=(--key "$key"); done
signed=("${known[@]}")
if [ -n "$MINIMUM_VERSION" ]; then signed+=(--minimum-version "$MINIMUM_VERSION"); fi
if [ -n "$MODEL" ]; then signed+=(--name "$MODEL"); fi

# Each command judges the bundle that it opens itself: what is exchanged in between is refused.
finish=(--target "$TARGET" --json-file "$REPORTS/finish.json")
if [ -n "$EVALUATE" ]; then finish+=(--evaluate "$EVALUATE"); fi
edgevision finish "$BUNDLE" "${signed[@]}" "${finish[@]}"
edgevision verify "$BUNDLE" "${signed[@]}"

if [ -n "$BASELINE" ]; then
    edgevision bench compare "$BASELINE" "$BUNDLE" "${known[@]}" --gate "$GATE" \
        --junit "$REPORTS/speed.xml" --markdown "$REPORTS/speed.md"
fi
