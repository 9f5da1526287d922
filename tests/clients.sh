#!/usr/bin/env bash
# Programs that are not ours against a real daemon: pkcs11-tool, openssl with the pkcs11 engine, and
# Python over mutual TLS. What they were asked and what they said is kept in target/transcripts/.
#
# Run by tests/run. Needs the built programs; what is not installed is named and skipped.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
binaries=${KMS_BINARIES:-$target/release}
transcripts=$target/transcripts
work=$(mktemp -d)
mkdir -p "$transcripts"
# shellcheck source=tests/daemon.sh
. tests/daemon.sh

main() {
    start_daemon "$transcripts/kmsd.txt" --no-tour
    load_environment
    printf 'the house stands\n' >"$work/message"
    printf 'the house fell\n' >"$work/other"
    if command -v pkcs11-tool >/dev/null && command -v openssl >/dev/null; then
        pkcs11_tool
        openssl_engine
    else
        skipped "pkcs11-tool and openssl (Debian: opensc openssl)"
    fi
    python_example
    stop_daemon "$transcripts/kmsd.txt"
    find_all_again
    printf 'transcripts: %s\n' "$transcripts"
}

# What the daemon wrote for its clients; each name must be there.
load_environment() {
    local name
    set -a
    # shellcheck source=/dev/null
    . "$work/state/env"
    set +a
    for name in KMS_ADDR KMS_TCP_PORT KMS_CA_CERT KMS_CLIENT_CERT KMS_CLIENT_KEY \
        KMS_PKCS11_MODULE KMS_TOKEN_LABEL KMS_USER_PIN KMS_SO_PIN; do
        [ -n "${!name:-}" ] || fail "DIR/env does not set $name"
    done
}

pkcs11_tool() {
    local transcript=$transcripts/pkcs11-tool.txt
    : >"$transcript"
    token --list-objects
    token --keypairgen --key-type EC:prime256v1 --label client-ec --id 01 --usage-sign
    token --keypairgen --key-type rsa:3072 --label client-rsa --id 02 --usage-sign
    token --list-objects
    sign_and_check 01 ec ECDSA-SHA256 --signature-format openssl
    sign_and_check 02 rsa SHA256-RSA-PKCS
    # A wrong PIN is refused, and says so.
    if KMS_USER_PIN=not-the-pin token --list-objects; then fail "a wrong PIN was taken"; fi
    grep -q CKR_PIN_INCORRECT "$transcript" || fail "a wrong PIN was not refused as CKR_PIN_INCORRECT"
    printf 'pkcs11-tool: two keys, two signatures, verified by openssl; a wrong PIN refused\n'
}

# sign_and_check ID NAME MECHANISM [ARGUMENT...]: signs and lets openssl judge, also another message.
sign_and_check() {
    local id=$1 name=$2 mechanism=$3
    shift 3
    token --sign --id "$id" --mechanism "$mechanism" "$@" \
        --input-file "$work/message" --output-file "$work/$name.sig"
    token --read-object --type pubkey --id "$id" --output-file "$work/$name.der"
    run openssl pkey -pubin -inform DER -in "$work/$name.der" -out "$work/$name.pem"
    run openssl dgst -sha256 -verify "$work/$name.pem" -signature "$work/$name.sig" "$work/message"
    if run openssl dgst -sha256 -verify "$work/$name.pem" -signature "$work/$name.sig" "$work/other"
    then
        fail "the $name signature verifies over another message"
    fi
}

openssl_engine() {
    local transcript=$transcripts/openssl.txt name
    local engine
    engine=$(openssl version -e | sed 's/^ENGINESDIR: "\(.*\)"$/\1/')/pkcs11.so
    if [ ! -e "$engine" ]; then
        skipped "openssl with the pkcs11 engine (Debian: libengine-pkcs11-openssl)"
        return
    fi
    : >"$transcript"
    # The file holds the PIN, so it stands in the private folder.
    cat >"$work/openssl.cnf" <<CONFIGURATION
openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = $engine
MODULE_PATH = $KMS_PKCS11_MODULE
PIN = $KMS_USER_PIN
init = 0
[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
CONFIGURATION
    for name in ec rsa; do
        OPENSSL_CONF=$work/openssl.cnf run openssl req -new -x509 -sha256 -days 30 \
            -engine pkcs11 -keyform engine \
            -key "pkcs11:token=$KMS_TOKEN_LABEL;object=client-$name;type=private" \
            -subj "/CN=client $name" -out "$work/$name.crt"
        run openssl x509 -in "$work/$name.crt" -noout -subject -issuer -fingerprint -sha256
        # Without the option openssl takes a self-signed certificate at its word.
        run openssl verify -check_ss_sig -CAfile "$work/$name.crt" "$work/$name.crt"
        run openssl x509 -in "$work/$name.crt" -noout -pubkey -out "$work/$name.crt.pem"
        cmp "$work/$name.crt.pem" "$work/$name.pem" || fail "the certificate is for another key"
    done
    printf 'openssl: two self-signed certificates made through the engine and verified\n'
}

python_example() {
    local transcript=$transcripts/python.txt python=${KMS_PYTHON:-$target/venv/bin/python}
    if ! "$python" -c 'import cryptography, google.rpc, grpc, grpc_tools' 2>/dev/null; then
        skipped "the Python example (no Python environment in target/venv; tests/run makes it)"
        return
    fi
    : >"$transcript"
    mkdir -p "$work/stubs"
    run "$python" -m grpc_tools.protoc -I proto \
        --python_out="$work/stubs" --grpc_python_out="$work/stubs" proto/kms/v1/*.proto
    PYTHONPATH=$work/stubs PYTHONDONTWRITEBYTECODE=1 run "$python" proto/examples/sign_and_release.py
    printf 'python: made a key, signed, verified, and was refused a release\n'
}

# A second start finds everything as it was.
find_all_again() {
    local transcript=$transcripts/second-start.txt
    start_daemon "$transcripts/kmsd-second.txt" --no-tour
    load_environment
    : >"$transcript"
    if command -v pkcs11-tool >/dev/null; then
        token --list-objects
        grep -q client-ec "$transcript" || fail "the key client-ec is gone after a restart"
        grep -q client-rsa "$transcript" || fail "the key client-rsa is gone after a restart"
        printf 'second start: all keys are there\n'
    fi
    stop_daemon "$transcripts/kmsd-second.txt"
}

# token ARGUMENT...: pkcs11-tool on the daemon's token; the PIN is not in the arguments.
token() {
    run pkcs11-tool --module "$KMS_PKCS11_MODULE" --token-label "$KMS_TOKEN_LABEL" \
        --login --pin env:KMS_USER_PIN "$@"
}

# run COMMAND...: runs it for at most 60 seconds and notes command, output and status.
run() {
    local status=0
    printf '$ %s\n' "${*//"$work"/DIR}" >>"$transcript"
    timeout 60 "$@" >"$work/output" 2>&1 || status=$?
    sed "s|$work|DIR|g" "$work/output" >>"$transcript"
    [ "$status" -eq 0 ] || printf '[status %s]\n' "$status" >>"$transcript"
    return "$status"
}

skipped() {
    printf 'skipped: %s\n' "$*"
}

# A command that fails without a word of ours shows the end of its transcript.
trap 'tail -n 20 "$transcripts"/*.txt >&2' ERR

main
