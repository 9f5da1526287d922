//! Known answers of ECDSA, Ed25519 and the Diffie-Hellman agreements.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

use super::Known;
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{ecdsa as curve, eddsa, key_form};
use crate::provider::{Provider, SignInput};

/// Accepts the published signatures of the mechanism, refuses them over another message, and accepts what
/// it signed itself with the published keys.
pub(super) fn ecdsa(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let mut passed = 0;
    for answer in SIGNATURES.iter().filter(|answer| answer.mechanism == mechanism) {
        let Signature { algorithm, scalar, point, signature, .. } = *answer;
        let key =
            provider.import(algorithm, &curve::from_scalar(algorithm, &known.bytes(scalar))?)?;
        let public_key = key_form::public_key_from_raw(algorithm, &known.bytes(point))?;
        let signature = known.answer(signature);
        let own = provider.private_key(algorithm, &key.material)?.sign(
            mechanism,
            SignInput::Message(b"sample"),
            b"",
        )?;
        let verify = |message, signature: &[u8]| {
            let input = SignInput::Message(message);
            provider.verify(algorithm, mechanism, &public_key, input, b"", signature)
        };
        let good = key.public_key == public_key
            && verify(b"sample", &signature)?
            && !verify(b"test", &signature)?
            && verify(b"sample", &own)?;
        if !good {
            return Ok(false);
        }
        passed += 1;
    }
    Ok(passed > 0)
}

/// Makes the signature of RFC 8032 §7.1, test 2, accepts it, and refuses it over another message.
pub(super) fn ed25519(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let algorithm = Algorithm::Ed25519;
    let given = eddsa::new_key(algorithm, &known.bytes(ED25519_SECRET))?;
    let key = provider.import(algorithm, &given.material)?;
    let signature = known.answer(ED25519_SIGNATURE);
    let own = provider.private_key(algorithm, &key.material)?.sign(
        mechanism,
        SignInput::Message(&[0x72]),
        b"",
    )?;
    let verify = |message: &[u8]| {
        let input = SignInput::Message(message);
        provider.verify(algorithm, mechanism, &key.public_key, input, b"", &signature)
    };
    let public_key = key_form::raw_public_key(algorithm, &key.public_key)?;
    Ok(public_key == known.bytes(ED25519_PUBLIC)
        && own == signature
        && verify(&[0x72])?
        && !verify(&[0x73])?)
}

/// Agrees to the published secrets, and refuses a peer of small order.
pub(super) fn agreement(
    provider: &dyn Provider,
    _: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    for Agreement { algorithm, secret_key, peer, secret } in AGREEMENTS {
        let secret_key = known.bytes(secret_key);
        let given = match algorithm {
            Algorithm::X25519 => eddsa::new_key(algorithm, &secret_key)?.material,
            _ => curve::from_scalar(algorithm, &secret_key)?,
        };
        let key = provider.import(algorithm, &given)?.material;
        let peer = key_form::public_key_from_raw(algorithm, &known.bytes(peer))?;
        let agreed: Material = provider.private_key(algorithm, &key)?.agree(&peer)?;
        if agreed.expose() != known.answer(secret) {
            return Ok(false);
        }
    }
    let algorithm = Algorithm::X25519;
    let zero = key_form::public_key_from_raw(algorithm, &[0; 32])?;
    let key = eddsa::new_key(algorithm, &known.bytes(ED25519_SECRET))?.material;
    let refused = provider.private_key(algorithm, &key)?.agree(&zero).err();
    Ok(refused == Some(CryptoError::PublicKeyInvalid { algorithm }))
}

struct Signature {
    algorithm: Algorithm,
    mechanism: Mechanism,
    scalar: &'static str,
    point: &'static str,
    signature: &'static str,
}

struct Agreement {
    algorithm: Algorithm,
    secret_key: &'static str,
    peer: &'static str,
    secret: &'static str,
}

/// All over the ASCII text `sample`.
const SIGNATURES: [Signature; 7] = [
    // RFC 6979 §A.2.5.
    Signature {
        algorithm: Algorithm::EcP256,
        mechanism: Mechanism::EcdsaSha256,
        scalar: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        point: "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe
            1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        signature: "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf37
            16022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    },
    // RFC 6979 §A.2.6.
    Signature {
        algorithm: Algorithm::EcP384,
        mechanism: Mechanism::EcdsaSha384,
        scalar: "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e
            4c70a825f872c9ea60d2edf5",
        point: "04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0
            ea9055866064a254515480bc138015d9b72d7d57244ea8ef9ac0c621896708a59367f9df
            b9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720",
        signature: "306602310094edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad13
            3c81a648152e44acf96e36dd1e80fabe4602310099ef4aeb15f178cea1fe40db2603138f
            130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
    },
    // RFC 6979 §A.2.7.
    Signature {
        algorithm: Algorithm::EcP521,
        mechanism: Mechanism::EcdsaSha512,
        scalar: "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb
            32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
        point: "0401894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123
            d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a400493101c9
            62cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a8
            28008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5",
        signature: "308187024200c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c
            5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa02
            41617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623ea
            a63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
    },
    // The scalar of RFC 6979 §A.2.5 on secp256k1; signed by OpenSSL 3.
    Signature {
        algorithm: Algorithm::EcSecp256k1,
        mechanism: Mechanism::EcdsaSha256,
        scalar: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        point: "042c8c31fc9f990c6b55e3865a184a4ce50e09481f2eaeb3e60ec1cea13a6ae64564b95e
            4fdb6948c0386e189b006a29f686769b011704275e4459822dc3328085",
        signature: "3046022100cb6e4d301fabebf7fac53ab8f2864fab1544e7cd12815424a851fd269abf29
            8f022100d4ab46427a4a3a6060521ed12cfb805d2a609c50fac797a878cf4a6b6a25addb",
    },
    // The same key; signed by OpenSSL 3.
    Signature {
        algorithm: Algorithm::EcP256,
        mechanism: Mechanism::EcdsaSha3_256,
        scalar: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        point: "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe
            1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        signature: "3045022100df19c11d60dd2e1b944291c68d74e7d1f18e4de5690c8b9ef533a8128b4260
            590220368daf0cb8f0320bbb0e8254cd0ec3849cda7f63611d8717a4c7ddf994b5fa58",
    },
    // The same key; signed by OpenSSL 3.
    Signature {
        algorithm: Algorithm::EcP256,
        mechanism: Mechanism::EcdsaSha3_384,
        scalar: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        point: "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe
            1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        signature: "30440220404ef1da9382c0c647fbc8ead4819add503e18d5cc052a8940d4c36be09607b7
            022058445acd4d657256dc3812ebaa6f89744d70355ee6aa02a365da05a7068fe5db",
    },
    // The same key; signed by OpenSSL 3.
    Signature {
        algorithm: Algorithm::EcP256,
        mechanism: Mechanism::EcdsaSha3_512,
        scalar: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        point: "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe
            1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        signature: "30440220735eaf6de57f177dce3d6bd51e414e7b693c2360f2f621a5c5e56df22d840fcc
            02206577b1a29d100d2d568c064bdacb07bc095eb4b9abab035d064e09a9629783f3",
    },
];

const AGREEMENTS: [Agreement; 4] = [
    // RFC 5903 §8.1: i, gr and the x-coordinate of gir.
    Agreement {
        algorithm: Algorithm::EcP256,
        secret_key: "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        peer: "04d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3
            ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        secret: "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    },
    // RFC 5903 §8.2.
    Agreement {
        algorithm: Algorithm::EcP384,
        secret_key: "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b5380
            41e649ee3faef896783ab194",
        peer: "04e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac4
            3a0336def96fda41d0774a3571dcfbec7aacf3196472169e838430367f66eebe3c6e70c4
            16dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
        secret: "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d6031355
            69b9e9d09cf5d4a270f59746",
    },
    // RFC 5903 §8.3.
    Agreement {
        algorithm: Algorithm::EcP521,
        secret_key: "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa85a3
            0fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d4a52",
        peer: "0400d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97c3
            56436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9460f015c682263
            83956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87220b6536c5c408a1d2
            aebb8e86d678ae49cb57091f4732296579ab44fcd17f0fc56a",
        secret: "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73
            ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3ddea",
    },
    // RFC 7748 §6.1: Alice's private key, Bob's public key, K.
    Agreement {
        algorithm: Algorithm::X25519,
        secret_key: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        peer: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        secret: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    },
];

const ED25519_SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const ED25519_PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const ED25519_SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
    085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
