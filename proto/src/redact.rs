//! `Debug` for messages with secret bytes: the name and nothing else.

use core::fmt;

use crate::v1;

macro_rules! redacted {
    ($($message:path),+ $(,)?) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), " { redacted }"))
            }
        }
    )+};
}

redacted!(
    v1::DecryptResponse,
    v1::DigestRequest,
    v1::EncryptRequest,
    v1::GenerateRandomResponse,
    v1::LoginTokenRequest,
    v1::MacSignRequest,
    v1::MacVerifyRequest,
    v1::SessionRequest,
    v1::SessionResponse,
    v1::SetTokenPinRequest,
    v1::StreamRequest,
    v1::StreamResponse,
    v1::UnsealRequest,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_and_a_plaintext_do_not_print() {
        let login = v1::LoginTokenRequest { pin: "marker-1234".into(), ..Default::default() };
        let encrypt =
            v1::EncryptRequest { plaintext: b"marker-5678".to_vec(), ..Default::default() };
        let session = v1::SessionRequest {
            id: 1,
            request: Some(v1::session_request::Request::Encrypt(encrypt.clone())),
        };
        for text in [format!("{login:?}"), format!("{encrypt:?}"), format!("{session:?}")] {
            assert!(!text.contains("marker") && !text.contains("109"), "{text}");
        }
    }
}
