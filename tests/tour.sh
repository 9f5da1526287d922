#!/usr/bin/env bash
# The tour of `kmsd dev` in a fresh folder: each step must be told, in order, and the daemon must serve
# on afterwards until it is ended by SIGTERM. The transcript is kept in target/transcripts/.
#
# Run by tests/run. Needs the built programs and ssh-keygen.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
binaries=${KMS_BINARIES:-$target/release}
transcript=$target/transcripts/tour.txt
work=$(mktemp -d)
mkdir -p "$target/transcripts"
# shellcheck source=tests/daemon.sh
. tests/daemon.sh

# What the tour must tell: for each step, a word that its line cannot do without.
steps=(
    '1\. .*released only'
    '2\. .*EVIDENCE_REQUIRED'
    '3\. .*debug'
    '4\. .*sealed'
    '5\. .*PKCS#11, signed'
    '6\. .*approv'
    '7\. .*verified'
)

main() {
    local step last=0 line
    command -v ssh-keygen >/dev/null || fail "the tour needs ssh-keygen (Debian: openssh-client)"
    start_daemon "$transcript"
    wait_for '^serving on '
    for step in "${steps[@]}"; do
        line=$(grep -nEm1 "^ *$step" "$transcript" | cut -d: -f1) || true
        [ -n "$line" ] || fail_with_log "$transcript" "the tour did not tell: $step"
        [ "$line" -gt "$last" ] || fail_with_log "$transcript" "told out of order: $step"
        last=$line
    done
    grep -qx 'tour: done' "$transcript" || fail_with_log "$transcript" "the tour did not end well"
    kill -0 "$daemon_pid" || fail_with_log "$transcript" "kmsd did not serve on after the tour"
    sed -n '/^tour: /,/^tour: done/p' "$transcript"
    stop_daemon "$transcript"
}

# wait_for PATTERN: until the daemon has printed it, at most 120 seconds.
wait_for() {
    local tries=0
    until grep -q "$1" "$transcript"; do
        kill -0 "$daemon_pid" 2>/dev/null || fail_with_log "$transcript" "kmsd ended during the tour"
        tries=$((tries + 1))
        [ "$tries" -le 1200 ] || fail_with_log "$transcript" "the tour did not end within 120 seconds"
        sleep 0.1
    done
}

main
