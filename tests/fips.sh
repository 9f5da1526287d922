#!/usr/bin/env bash
# The daemon on the FIPS build of AWS-LC: it says so, all self tests pass, and it serves approved services.
#
# Run by `tests/run long`, or `tests/run fips`, which builds the programs before.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
binaries=${KMS_BINARIES:-$target/release}
work=$(mktemp -d)
mkdir -p "$target/transcripts"
transcript=$target/transcripts/fips.txt
# shellcheck source=tests/daemon.sh
. tests/daemon.sh

start_daemon "$transcript" --no-tour --approved-only
# shellcheck disable=SC1091
. "$work/state/env"
kmsctl() {
    "$binaries/kmsctl" "$@"
}

status=$(kmsctl --output json appliance self-test) || fail "a self test failed: $status"
for expected in '"fips_module": *true' '"module_version": *"AWS-LC FIPS 4\.2\.0"' \
    '"approved_only": *true' '"error_state": *false'; do
    grep -qE "$expected" <<<"$status" || fail "the status does not say $expected: $status"
done
if grep -qE '"(FAILED|PENDING)"' <<<"$status"; then
    fail "not every mechanism has passed its self test: $status"
fi
kmsctl key create dev/fips --algorithm EC_P256 >>"$transcript"
printf 'message' >"$work/message"
kmsctl --output json key sign dev/fips --message-file "$work/message" --out "$work/signature" >"$work/signed"
grep -qE '"service": *"APPROVED"' "$work/signed" || fail "the answer does not say APPROVED: $(cat "$work/signed")"
if kmsctl key create dev/chacha --algorithm CHACHA20 >>"$transcript" 2>&1; then
    fail "a key of ChaCha20 was made"
fi
grep -q SERVICE_NOT_APPROVED "$transcript" || fail "the refusal does not tell its reason"
stop_daemon "$transcript"
printf 'the FIPS build of AWS-LC serves: %s\n' "$(grep -oE 'AWS-LC FIPS [0-9.]+' <<<"$status" | head -1)"
