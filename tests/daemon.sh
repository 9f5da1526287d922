# shellcheck shell=bash
# Starts and stops a development daemon. Sourced by clients.sh and tour.sh, not run.
#
# The caller sets `binaries` (folder of the built programs) and `work` (a private folder of its own,
# which is removed at the end) before it sources this file.

binaries=${binaries:?} work=${work:?}
daemon_pid=""

# Ends what is still running and removes the private folder, however the script ends.
tidy() {
    if [ -n "$daemon_pid" ] && kill -0 "$daemon_pid" 2>/dev/null; then
        kill -KILL "$daemon_pid" 2>/dev/null || true
        wait "$daemon_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap tidy EXIT

fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

# start_daemon TRANSCRIPT [ARGUMENT...]: starts `kmsd dev` on $work/state and waits until it is ready.
start_daemon() {
    local transcript=$1
    shift
    printf '$ kmsd dev --state DIR %s\n' "$*" >"$transcript"
    "$binaries/kmsd" dev --state "$work/state" "$@" >>"$transcript" 2>"$transcript.log" &
    daemon_pid=$!
    local tries=0
    until grep -qx ready "$transcript"; do
        kill -0 "$daemon_pid" 2>/dev/null || fail_with_log "$transcript" "kmsd ended before it was ready"
        tries=$((tries + 1))
        [ "$tries" -le 600 ] || fail_with_log "$transcript" "kmsd was not ready after 60 seconds"
        sleep 0.1
    done
}

# stop_daemon TRANSCRIPT: ends the daemon by SIGTERM and insists on an end in order, with status 0.
stop_daemon() {
    local transcript=$1 tries=0 status=0
    kill -TERM "$daemon_pid"
    while kill -0 "$daemon_pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -le 200 ] || fail_with_log "$transcript" "kmsd did not end within 20 seconds of SIGTERM"
        sleep 0.1
    done
    wait "$daemon_pid" || status=$?
    daemon_pid=""
    [ "$status" -eq 0 ] || fail_with_log "$transcript" "kmsd ended with $status after SIGTERM"
    printf 'kmsd ended with 0 after SIGTERM\n'
}

fail_with_log() {
    local transcript=$1
    shift
    tail -n 40 "$transcript" "$transcript.log" >&2
    fail "$@"
}
