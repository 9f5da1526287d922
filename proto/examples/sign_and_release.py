#!/usr/bin/env python3
"""Makes a key, signs and verifies with it, and is refused the release of a gated key.

Speaks gRPC over mutual TLS with stubs generated from proto/kms/v1 (see README.md beside this file).
Where the daemon is and who asks is told by KMS_TCP_PORT, KMS_CA_CERT, KMS_CLIENT_CERT and
KMS_CLIENT_KEY, as `kmsd dev` writes them to DIR/env. The caller needs the roles key-manager and
crypto-user over the ring `dev`. Ends with 0 only if every answer was the expected one.
"""

import hashlib
import os
import secrets
import sys

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from google.rpc import error_details_pb2, status_pb2
from kms.v1 import crypto_pb2, crypto_pb2_grpc
from kms.v1 import key_management_pb2, key_management_pb2_grpc
from kms.v1 import key_pb2, release_pb2, release_pb2_grpc

RING = "dev"
MESSAGE = b"the house stands"
# Only a guest whose hardware is the vendor's, and nobody's debugging, may have the gated key.
POLICY = """package policy

default allow := false

allow if input.root == "vendor"
"""
# Every call has a deadline: a daemon that does not answer is an error, not a wait.
SECONDS_MAX = 20


class Unexpected(Exception):
    """The daemon answered otherwise than this program says it does."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Unexpected(what)


def channel() -> grpc.Channel:
    """Opens a channel on which both sides prove themselves by certificate."""

    def file(variable: str) -> bytes:
        with open(os.environ[variable], "rb") as opened:
            return opened.read()

    credentials = grpc.ssl_channel_credentials(
        root_certificates=file("KMS_CA_CERT"),
        private_key=file("KMS_CLIENT_KEY"),
        certificate_chain=file("KMS_CLIENT_CERT"),
    )
    return grpc.secure_channel(f"localhost:{os.environ['KMS_TCP_PORT']}", credentials)


def reason_of(error: grpc.RpcError) -> str:
    """The published reason of a refusal: the one ErrorInfo in google.rpc.Status."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    raise Unexpected(f"an error without ErrorInfo: {error.code().name}: {error.details()}")


def make_key(keys, key: key_pb2.Key) -> key_management_pb2.CreateKeyResponse:
    """Makes a key. A retry with the same request_id would be the same operation."""
    request = key_management_pb2.CreateKeyRequest(key=key, request_id=secrets.token_bytes(16))
    return keys.CreateKey(request, timeout=SECONDS_MAX)


def sign_and_verify(keys, crypto) -> None:
    name = f"{RING}/python-{secrets.token_hex(8)}"
    algorithm = key_pb2.ALGORITHM_EC_P256
    created = make_key(keys, key_pb2.Key(name=name, algorithm=algorithm))
    print(f"made     {created.version.name}")

    request = crypto_pb2.SignRequest(name=name, message=MESSAGE)
    signed = crypto.Sign(request, timeout=SECONDS_MAX)
    expect(signed.name == created.version.name, "signed with another version")
    print(f"signed   {len(signed.signature)} bytes, audit leaf {signed.audit.audit_index}")

    request = key_management_pb2.GetPublicKeyRequest(name=name)
    spki = keys.GetPublicKey(request, timeout=SECONDS_MAX).public_key
    public_key = load_der_public_key(spki)
    expect(isinstance(public_key, ec.EllipticCurvePublicKey), "not a key on a curve")
    try:
        public_key.verify(signed.signature, MESSAGE, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Unexpected("the signature does not verify here") from None
    print("verified here, with another library")

    for digest, expected in [
        (hashlib.sha256(MESSAGE).digest(), True),
        (hashlib.sha256(MESSAGE + b".").digest(), False),
    ]:
        request = crypto_pb2.VerifyRequest(
            name=signed.name, digest=digest, signature=signed.signature
        )
        answer = crypto.Verify(request, timeout=SECONDS_MAX)
        expect(answer.valid is expected, f"the daemon says {answer.valid} of this message")
    print("verified there; another message is not")


def be_refused_a_release(keys, release) -> None:
    key = key_pb2.Key(
        name=f"{RING}/python-{secrets.token_hex(8)}",
        algorithm=key_pb2.ALGORITHM_AES_256,
        usages=[key_pb2.USAGE_DECRYPT, key_pb2.USAGE_ENCRYPT, key_pb2.USAGE_RELEASE],
        release_requirement=key_pb2.ReleaseRequirement(kinds=["snp"], policy=POLICY),
    )
    gated = make_key(keys, key).version.name
    print(f"made     {gated}, released only on evidence")
    request = release_pb2.ReleaseKeyRequest(name=gated, request_id=secrets.token_bytes(16))
    try:
        release.ReleaseKey(request, timeout=SECONDS_MAX)
    except grpc.RpcError as error:
        reason = reason_of(error)
        expect(reason == "EVIDENCE_REQUIRED", f"refused for another reason: {reason}")
        print(f"refused  {reason}: {error.details()}")
    else:
        raise Unexpected("the gated key was released without evidence")


def main() -> int:
    try:
        with channel() as opened:
            keys = key_management_pb2_grpc.KeyManagementServiceStub(opened)
            sign_and_verify(keys, crypto_pb2_grpc.CryptoServiceStub(opened))
            be_refused_a_release(keys, release_pb2_grpc.ReleaseServiceStub(opened))
    except KeyError as error:
        print(f"set {error.args[0]}; `kmsd dev` writes it to DIR/env", file=sys.stderr)
        return 2
    except (Unexpected, OSError) as error:
        print(f"unexpected: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
