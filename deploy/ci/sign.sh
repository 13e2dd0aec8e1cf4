#!/usr/bin/env bash
# Signs the bundles of the x86 half, in a job that runs nothing of the net's: no checkout of its code,
# no build, no graph. The workflows hold the same lines, so that they need no checkout.
#
#   BUNDLES          dist             folder of NAME.ev
#   SIGNING_KEY_PEM                   the private key, from the CI's secrets; kept in a file of this job
#   VERSION                           of this release, more than the last one's: the number of the run.
#                                     A device refuses what is older than what ran on it
#   EXPIRES                           the last day on which devices take it; empty: for ever
#   SIGSTORE                          "true": NAME.ev.sig beside each, OpenSSF model-signing by this job's
#                                     own identity, in a public log. Needs model-signing and a token
set -euo pipefail

: "${BUNDLES:=dist}" "${EXPIRES:=}" "${SIGSTORE:=}"
: "${SIGNING_KEY_PEM:?set SIGNING_KEY_PEM to the private key that devices know}"
: "${VERSION:?set VERSION, too: a signature counts releases, so that an old one can be refused}"

umask 077
key=$(mktemp)
trap 'rm -f "$key"' EXIT
printf '%s\n' "$SIGNING_KEY_PEM" > "$key"
unset SIGNING_KEY_PEM
expires=()
if [ -n "$EXPIRES" ]; then expires=(--expires "$EXPIRES"); fi

for bundle in "$BUNDLES"/*.ev; do
    edgevision sign "$bundle" --key "$key" --version "$VERSION" "${expires[@]}"
    # After ours, which lies in the bundle: it covers every file, signature.json too.
    if [ "$SIGSTORE" = true ]; then
        model_signing sign sigstore "$bundle" --use_ambient_credentials --signature "$bundle.sig"
    fi
done
