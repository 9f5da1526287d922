//! Known answers of the ciphers, codes, wraps, derivations and hash functions. One key length stands for
//! all of a mechanism (FIPS 140-3 implementation guidance 10.3.A): the longest.

use kms_core::mechanism::{Hash, Mechanism};

use super::{Known, KnownAnswer};
use crate::CryptoError;
use crate::provider::{CipherParameters, DeriveParameters, Provider};

pub(super) fn known_answer(mechanism: Mechanism) -> Option<KnownAnswer> {
    match mechanism {
        Mechanism::AesCbc | Mechanism::AesCbcPad | Mechanism::AesCtr => Some(mode),
        Mechanism::AesCmac => Some(cmac),
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => Some(aead),
        Mechanism::AesKw | Mechanism::AesKwp => Some(wrap),
        Mechanism::HkdfSha256
        | Mechanism::HkdfSha384
        | Mechanism::HkdfSha512
        | Mechanism::KdfCounterHmacSha256
        | Mechanism::KdfCounterHmacSha384
        | Mechanism::KdfCounterHmacSha512 => Some(derive),
        _ => crate::mechanism::mac::tag_bytes(mechanism).map(|_| hmac as KnownAnswer),
    }
}

/// The example of FIPS 180-4 and FIPS 202: three bytes.
pub(super) fn hash_answer(provider: &dyn Provider, hash: Hash) -> bool {
    let expected = match hash {
        Hash::Sha1 => "a9993e364706816aba3e25717850c26c9cd0d89d",
        Hash::Sha224 => "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
        Hash::Sha256 => "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        Hash::Sha384 => {
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed
             8086072ba1e7cc2358baeca134c825a7"
        }
        Hash::Sha512 => {
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        }
        Hash::Sha512_224 => "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa",
        Hash::Sha512_256 => "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
        Hash::Sha3_224 => "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
        Hash::Sha3_256 => "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        Hash::Sha3_384 => {
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b2
             98d88cea927ac7f539f1edf228376d25"
        }
        Hash::Sha3_512 => {
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e
             10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0"
        }
    };
    let mut stream = provider.hash_stream(hash);
    for part in [&b"a"[..], b"", b"bc"] {
        stream.update(part);
    }
    let expected = crate::mechanism::known(expected);
    provider.digest(hash, b"abc") == expected && stream.finish() == expected
}

/// Both ways, and a ciphertext with one bit changed is refused.
fn aead(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let [key, iv, aad, plaintext, ciphertext] = match mechanism {
        Mechanism::AesGcm => AES_GCM,
        _ => CHACHA20_POLY1305,
    };
    let (key, iv, aad) = (known.key(key)?, known.bytes(iv), known.bytes(aad));
    let parameters = CipherParameters { iv: &iv, aad: &aad };
    let (plaintext, mut ciphertext) = (known.bytes(plaintext), known.answer(ciphertext));
    let sealed = provider.encrypt(mechanism, &key, parameters, &plaintext)? == ciphertext;
    let opened = provider.decrypt(mechanism, &key, parameters, &ciphertext)? == plaintext;
    ciphertext[0] ^= 1;
    let edited = provider.decrypt(mechanism, &key, parameters, &ciphertext);
    Ok(sealed && opened && edited == Err(CryptoError::CiphertextRefused))
}

/// Both ways, with the key and the text of SP 800-38A §F.
fn mode(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let (iv, length, ciphertext) = match mechanism {
        Mechanism::AesCbc => (CBC_IV, 64, CBC_CIPHERTEXT),
        Mechanism::AesCbcPad => (CBC_IV, 40, CBC_PAD_CIPHERTEXT),
        _ => (CTR_COUNTER, 60, CTR_CIPHERTEXT),
    };
    let (key, iv, mut plaintext) = (known.key(MODE_KEY)?, known.bytes(iv), known.bytes(MODE_TEXT));
    plaintext.truncate(length);
    let parameters = CipherParameters { iv: &iv, aad: b"" };
    let ciphertext = known.answer(ciphertext);
    Ok(provider.encrypt(mechanism, &key, parameters, &plaintext)? == ciphertext
        && provider.decrypt(mechanism, &key, parameters, &ciphertext)? == plaintext)
}

fn cmac(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let (key, text) = (known.key(MODE_KEY)?, known.bytes(MODE_TEXT));
    Ok(provider.mac(mechanism, &key, &text[..40])? == known.answer(CMAC_TAG))
}

/// Both ways, and a wrapped key with one bit changed is refused.
fn wrap(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let [parent, key, wrapped] = if mechanism == Mechanism::AesKw { AES_KW } else { AES_KWP };
    let (parent, key, mut wrapped) = (known.key(parent)?, known.key(key)?, known.answer(wrapped));
    let made = provider.wrap(mechanism, &parent, &key)? == wrapped;
    let opened = provider.unwrap(mechanism, &parent, &wrapped)?.expose() == key.expose();
    wrapped[0] ^= 1;
    let edited = provider.unwrap(mechanism, &parent, &wrapped).err();
    Ok(made && opened && edited == Some(CryptoError::CiphertextRefused))
}

/// Test case 1 of RFC 4231, also with the hash functions that the RFC does not have.
fn hmac(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let tag = match mechanism {
        Mechanism::HmacSha1 => "b617318655057264e28bc0b6fb378c8ef146be00",
        Mechanism::HmacSha224 => "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
        Mechanism::HmacSha256 => "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        Mechanism::HmacSha384 => {
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
             faea9ea9076ede7f4af152e8b2fa9cb6"
        }
        Mechanism::HmacSha512 => {
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
        }
        Mechanism::HmacSha512_224 => "b244ba01307c0e7a8ccaad13b1067a4cf6b961fe0c6a20bda3d92039",
        Mechanism::HmacSha512_256 => {
            "9f9126c3d9c3c330d760425ca8a217e31feae31bfe70196ff81642b868402eab"
        }
        Mechanism::HmacSha3_224 => "3b16546bbc7be2706a031dcafd56373d9884367641d8c59af3c860f7",
        Mechanism::HmacSha3_256 => {
            "ba85192310dffa96e2a3a40e69774351140bb7185e1202cdcc917589f95e16bb"
        }
        Mechanism::HmacSha3_384 => {
            "68d2dcf7fd4ddd0a2240c8a437305f61fb7334cfb5d0226e1bc27dc10a2e723a
             20d370b47743130e26ac7e3d532886bd"
        }
        Mechanism::HmacSha3_512 => {
            "eb3fbd4b2eaab8f5c504bd3a41465aacec15770a7cabac531e482f860b5ec7ba
             47ccb2c6f2afce8f88d22b6dc61380f23a668fd3888bb80537c0a0b86407689e"
        }
        _ => return Ok(false),
    };
    let key = known.key(HMAC_KEY)?;
    Ok(provider.mac(mechanism, &key, b"Hi There")? == known.answer(tag))
}

/// HKDF has the input of test case 1 of RFC 5869; counter mode a key of 32 bytes `0b` and the fixed input
/// `"label" || 00 || "context"`. What the documents do not have was made with OpenSSL and with Python's
/// `cryptography`.
fn derive(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let (key, salt, info, derived) = match mechanism {
        Mechanism::HkdfSha256 => (
            HKDF_KEY,
            HKDF_SALT,
            HKDF_INFO,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        Mechanism::HkdfSha384 => (
            HKDF_KEY,
            HKDF_SALT,
            HKDF_INFO,
            "9b5097a86038b805309076a44b3a9f38063e25b516dcbf369f394cfab43685f748b6457763e4f0204fc5",
        ),
        Mechanism::HkdfSha512 => (
            HKDF_KEY,
            HKDF_SALT,
            HKDF_INFO,
            "832390086cda71fb47625bb5ceb168e4c8e26a1a16ed34d9fc7fe92c1481579338da362cb8d9f925d7cb",
        ),
        Mechanism::KdfCounterHmacSha256 => (
            KDF_KEY,
            "",
            KDF_FIXED,
            "ef3196f0fe41c0a4700190f9e16c694e05f418e20a64a187033f2b5506aeb8ab5c3cb04269a7431000a8",
        ),
        Mechanism::KdfCounterHmacSha384 => (
            KDF_KEY,
            "",
            KDF_FIXED,
            "9cfb67094acc39e4edf41cf3ccfdaeabbc3afdbadd6679177f4ae172ebeccd834863b425f3d5cbacb479",
        ),
        Mechanism::KdfCounterHmacSha512 => (
            KDF_KEY,
            "",
            KDF_FIXED,
            "a72405e79eca5313d7880a3d2c6496092b31fb8279a053c7641e92f2d20132bd12f3f149099698730e81",
        ),
        _ => return Ok(false),
    };
    let (salt, info, derived) = (known.bytes(salt), known.bytes(info), known.answer(derived));
    let parameters = DeriveParameters { salt: &salt, info: &info };
    let made = provider.derive(mechanism, &known.key(key)?, parameters, derived.len())?;
    Ok(made.expose() == derived)
}

/// Test case 16 of the GCM specification: key, IV, additional data, plaintext, ciphertext with tag.
const AES_GCM: [&str; 5] = [
    "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    "cafebabefacedbaddecaf888",
    "feedfacedeadbeeffeedfacedeadbeefabaddad2",
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
     1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
];

/// RFC 8439 §2.8.2, in the same order.
const CHACHA20_POLY1305: [&str; 5] = [
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "070000004041424344454647",
    "50515253c0c1c2c3c4c5c6c7",
    "4c616469657320616e642047656e746c656d656e206f662074686520636c6173
     73206f66202739393a204966204920636f756c64206f6666657220796f75206f
     6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73
     637265656e20776f756c642062652069742e",
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
     3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
     92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
     3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
];

/// SP 800-38A §F.2.5 and §F.5.5, and SP 800-38B §D.3.
const MODE_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
const MODE_TEXT: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
    30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
const CBC_IV: &str = "000102030405060708090a0b0c0d0e0f";
const CBC_CIPHERTEXT: &str = "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
    39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b";
/// The first 40 bytes of the text, made with OpenSSL.
const CBC_PAD_CIPHERTEXT: &str = "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
    0f7ed91f0529268e4d17fb3ebf5beec4";
const CTR_COUNTER: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
/// The first 60 bytes of the text.
const CTR_CIPHERTEXT: &str = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5
    2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08";
/// The first 40 bytes of the text.
const CMAC_TAG: &str = "aaf3d8f1de5640c232f5b169b9c911e6";

/// RFC 3394 §4.6: parent, key, wrapped key.
const AES_KW: [&str; 3] = [
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
    "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
];

/// RFC 5649 §6, which has a parent of 192 bits.
const AES_KWP: [&str; 3] = [
    "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8",
    "c37b7e6492584340bed12207808941155068f738",
    "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
];

const HMAC_KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";
const HKDF_KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";
const HKDF_SALT: &str = "000102030405060708090a0b0c";
const HKDF_INFO: &str = "f0f1f2f3f4f5f6f7f8f9";
const KDF_KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";
const KDF_FIXED: &str = "6c6162656c00636f6e74657874";
