//! The module through its C interface, against a small daemon.
//!
//! The module's state is that of the process, so the tests take turns.

#![allow(unsafe_code, reason = "the tests stand on the other side of the C border")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the answer")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every block is a call over that border")]

mod support;

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::session_request::Request as Asked;
use p256::ecdsa::signature::Verifier as _;
use support::{Daemon, PIN};

static DAEMON: LazyLock<Daemon> = LazyLock::new(|| {
    let daemon = Daemon::start();
    unsafe { std::env::set_var("KMS_ADDR", format!("unix:{}", daemon.socket.display())) };
    daemon
});
static TURN: Mutex<()> = Mutex::new(());

static FUNCTIONS: LazyLock<CK_FUNCTION_LIST> = LazyLock::new(|| {
    let mut list = null_mut();
    assert_eq!(unsafe { kms_pkcs11::C_GetFunctionList(&raw mut list) }, CKR_OK);
    unsafe { *list }
});

/// Calls a function of the list.
macro_rules! c {
    ($name:ident($($argument:expr),* $(,)?)) => {
        unsafe { FUNCTIONS.$name.unwrap()($($argument),*) }
    };
}

/// An initialised module with an open session, ended when dropped.
struct Fixture {
    session: CK_SESSION_HANDLE,
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new() -> Self {
        Self::on(v1::RingKind::Hardened)
    }

    fn on(kind: v1::RingKind) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        DAEMON.state().compatible = kind == v1::RingKind::Compatible;
        assert_eq!(c!(C_Initialize(null_mut())), CKR_OK);
        Self { session: open_session(), _turn: turn }
    }

    fn logged_in() -> Self {
        let fixture = Self::new();
        assert_eq!(log_in(fixture.session, PIN), CKR_OK);
        fixture
    }

    fn find_one(&self, class: CK_OBJECT_CLASS, label: &str) -> CK_OBJECT_HANDLE {
        let found = find(
            self.session,
            &mut [
                attribute(CKA_CLASS, &class.to_ne_bytes()),
                attribute(CKA_LABEL, label.as_bytes()),
            ],
        );
        assert_eq!(found.len(), 1, "{label}");
        found[0]
    }

    fn sign_init(&self, kind: CK_MECHANISM_TYPE) {
        let key = self.find_one(CKO_PRIVATE_KEY, "web");
        assert_eq!(c!(C_SignInit(self.session, &mut mechanism(kind), key)), CKR_OK);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let mut state = DAEMON.state();
        state.hostile = false;
        state.hang_up = false;
        // Only the keys of the beginning stay.
        state.objects.retain(|_, object| ["web", "old"].contains(&object.label.as_str()));
        state.user_pin = PIN.into();
        drop(state);
        c!(C_Finalize(null_mut()));
    }
}

fn open_session() -> CK_SESSION_HANDLE {
    let mut count = 0;
    assert_eq!(c!(C_GetSlotList(CK_TRUE, null_mut(), &raw mut count)), CKR_OK);
    assert_eq!(count, 1);
    let mut session = 0;
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    assert_eq!(c!(C_OpenSession(0, flags, null_mut(), None, &raw mut session)), CKR_OK);
    session
}

fn log_in(session: CK_SESSION_HANDLE, pin: &str) -> CK_RV {
    c!(C_Login(session, CKU_USER, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG))
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    }
}

fn mechanism(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: null_mut(), ulParameterLen: 0 }
}

fn find(session: CK_SESSION_HANDLE, template: &mut [CK_ATTRIBUTE]) -> Vec<CK_OBJECT_HANDLE> {
    let count = template.len() as CK_ULONG;
    assert_eq!(c!(C_FindObjectsInit(session, template.as_mut_ptr(), count)), CKR_OK);
    let (mut found, mut count) = ([0; 20], 0);
    assert_eq!(c!(C_FindObjects(session, found.as_mut_ptr(), 20, &raw mut count)), CKR_OK);
    assert_eq!(c!(C_FindObjectsFinal(session)), CKR_OK);
    found[..count as usize].to_vec()
}

fn sign(session: CK_SESSION_HANDLE, data: &[u8], room: usize) -> (CK_RV, Vec<u8>) {
    let mut signature = vec![0; room];
    let mut length = room as CK_ULONG;
    let data_length = data.len() as CK_ULONG;
    let output = if room == 0 { null_mut() } else { signature.as_mut_ptr() };
    let data = data.as_ptr().cast_mut();
    let code = c!(C_Sign(session, data, data_length, output, &raw mut length));
    signature.resize(length as usize, 0);
    (code, signature)
}

fn verify(fixture: &Fixture, kind: CK_MECHANISM_TYPE, data: &[u8], signature: &[u8]) -> CK_RV {
    let key = fixture.find_one(CKO_PUBLIC_KEY, "web");
    assert_eq!(c!(C_VerifyInit(fixture.session, &mut mechanism(kind), key)), CKR_OK);
    c!(C_Verify(
        fixture.session,
        data.as_ptr().cast_mut(),
        data.len() as CK_ULONG,
        signature.as_ptr().cast_mut(),
        signature.len() as CK_ULONG,
    ))
}

#[test]
fn initialising_follows_the_standard() {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    LazyLock::force(&DAEMON);
    let mut info = CK_INFO::default();
    assert_eq!(c!(C_GetInfo(&raw mut info)), CKR_CRYPTOKI_NOT_INITIALIZED);
    assert_eq!(c!(C_Finalize(null_mut())), CKR_CRYPTOKI_NOT_INITIALIZED);
    let mut garbage = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: CKF_OS_LOCKING_OK,
        pReserved: 0xdead_beef_usize as *mut c_void,
    };
    let arguments = (&raw mut garbage).cast();
    assert_eq!(c!(C_Initialize(arguments)), CKR_ARGUMENTS_BAD);
    let misaligned = (&raw mut garbage).cast::<u8>().wrapping_add(1).cast();
    assert_eq!(c!(C_Initialize(misaligned)), CKR_ARGUMENTS_BAD);
    garbage.pReserved = null_mut();
    assert_eq!(c!(C_Initialize((&raw mut garbage).cast())), CKR_OK);
    assert_eq!(c!(C_Initialize(null_mut())), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    assert_eq!(c!(C_GetInfo(&raw mut info)), CKR_OK);
    assert_eq!(info.cryptokiVersion.major, 3);
    assert_eq!(c!(C_Finalize(std::ptr::dangling_mut())), CKR_ARGUMENTS_BAD);
    assert_eq!(c!(C_Finalize(null_mut())), CKR_OK);
    drop(turn);
}

#[test]
fn the_interfaces_are_offered_with_their_tables() {
    let mut count = 0;
    let list = |list: *mut CK_INTERFACE, count: &mut CK_ULONG| unsafe {
        kms_pkcs11::C_GetInterfaceList(list, count)
    };
    assert_eq!(list(null_mut(), &mut count), CKR_OK);
    assert_eq!(count, 3);
    let empty = CK_INTERFACE { pInterfaceName: null_mut(), pFunctionList: null_mut(), flags: 0 };
    let mut interfaces = [empty; 3];
    count = 2;
    assert_eq!(list(interfaces.as_mut_ptr(), &mut count), CKR_BUFFER_TOO_SMALL);
    assert_eq!(list(interfaces.as_mut_ptr(), &mut count), CKR_OK);
    let get = |name: *const u8, version: Option<(u8, u8)>, flags| {
        let mut found: *mut CK_INTERFACE = null_mut();
        let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
        let version = version.as_mut().map_or(null_mut(), |version| &raw mut *version);
        let code =
            unsafe { kms_pkcs11::C_GetInterface(name.cast_mut(), version, &raw mut found, flags) };
        (code == CKR_OK).then(|| unsafe { *(*found).pFunctionList.cast::<CK_VERSION>() })
    };
    let name = c"PKCS 11".as_ptr().cast();
    for version in [(2, 40), (3, 0), (3, 2)] {
        let found = get(name, Some(version), 0).unwrap();
        assert_eq!((found.major, found.minor), version);
    }
    assert_eq!(get(null(), None, 0).map(|version| version.minor), Some(2));
    assert!(get(name, Some((3, 1)), 0).is_none());
    assert!(get(c"PKCS".as_ptr().cast(), None, 0).is_none());
    assert!(get(name, None, CKF_INTERFACE_FORK_SAFE).is_none());
}

#[test]
fn a_key_ring_is_a_token() {
    let _fixture = Fixture::new();
    let mut token = CK_TOKEN_INFO::default();
    assert_eq!(c!(C_GetTokenInfo(0, &raw mut token)), CKR_OK);
    assert_eq!(&token.label[..4], b"web ");
    assert_eq!(&token.serialNumber, b"0123456789abcdef");
    let flags = CKF_LOGIN_REQUIRED | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_RNG;
    assert_eq!(token.flags, flags);
    assert_eq!((token.ulSessionCount, token.ulRwSessionCount), (1, 1));
    assert_eq!(c!(C_GetTokenInfo(1, &raw mut token)), CKR_SLOT_ID_INVALID);
    assert_eq!(c!(C_GetTokenInfo(0, null_mut())), CKR_ARGUMENTS_BAD);
    let mut count = 1;
    let mut one = [0];
    let too_small = c!(C_GetMechanismList(0, one.as_mut_ptr(), &raw mut count));
    assert_eq!((too_small, count), (CKR_BUFFER_TOO_SMALL, 66));
}

#[test]
fn login_is_the_application_s() {
    let fixture = Fixture::new();
    let session = fixture.session;
    let state = || {
        let mut info = CK_SESSION_INFO::default();
        assert_eq!(c!(C_GetSessionInfo(session, &raw mut info)), CKR_OK);
        info.state
    };
    assert_eq!(log_in(session, "wrong"), CKR_PIN_INCORRECT);
    assert_eq!(c!(C_Login(session, CKU_USER, null_mut(), 4)), CKR_ARGUMENTS_BAD);
    assert_eq!(c!(C_Logout(session)), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(state(), CKS_RW_PUBLIC_SESSION);
    assert_eq!(log_in(session, PIN), CKR_OK);
    assert_eq!(log_in(session, PIN), CKR_USER_ALREADY_LOGGED_IN);
    assert_eq!(state(), CKS_RW_USER_FUNCTIONS);
    // Another thread has its own stream, which is logged in with the PIN that was given here.
    let logins = DAEMON.state().logins;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = open_session();
            assert_eq!(find(other, &mut []).len(), 3);
            assert_eq!(c!(C_CloseSession(other)), CKR_OK);
        });
    });
    assert_eq!(DAEMON.state().logins, logins + 1);
    assert_eq!(c!(C_Logout(session)), CKR_OK);
    assert_eq!(state(), CKS_RW_PUBLIC_SESSION);
    assert!(find(session, &mut []).is_empty());
    // The last session takes the login with it.
    assert_eq!(log_in(session, PIN), CKR_OK);
    assert_eq!(c!(C_CloseSession(session)), CKR_OK);
    assert_eq!(c!(C_CloseSession(session)), CKR_SESSION_HANDLE_INVALID);
    assert_eq!(log_in(open_session(), PIN), CKR_OK);
}

#[test]
fn objects_are_found_by_their_attributes() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    assert_eq!(find(session, &mut []).len(), 3);
    assert_eq!(find(session, &mut [attribute(CKA_ID, &[1])]).len(), 2);
    assert_eq!(find(session, &mut [attribute(CKA_DECRYPT, &[CK_TRUE])]).len(), 1);
    let certificate = CKO_CERTIFICATE.to_ne_bytes();
    assert!(find(session, &mut [attribute(CKA_CLASS, &certificate)]).is_empty());
    // Older versions show their number.
    let older = support::object("web", 9, v1::Algorithm::Aes128);
    DAEMON.add(v1::TokenObject { primary: false, ..older.clone() });
    assert_eq!(find(session, &mut [attribute(CKA_LABEL, b"web")]).len(), 2);
    assert_eq!(find(session, &mut [attribute(CKA_LABEL, b"web@1")]).len(), 1);
    DAEMON.state().objects.remove(&older.version);
    // One search at a time; errors in its arguments.
    assert_eq!(c!(C_FindObjectsInit(session, null_mut(), 0)), CKR_OK);
    assert_eq!(c!(C_FindObjectsInit(session, null_mut(), 0)), CKR_OPERATION_ACTIVE);
    let (mut one, mut count) = (0, 0);
    for _ in 0..3 {
        assert_eq!(c!(C_FindObjects(session, &raw mut one, 1, &raw mut count)), CKR_OK);
        assert_eq!(count, 1);
    }
    assert_eq!(c!(C_FindObjects(session, &raw mut one, 1, &raw mut count)), CKR_OK);
    assert_eq!(count, 0);
    assert_eq!(c!(C_FindObjectsFinal(session)), CKR_OK);
    assert_eq!(c!(C_FindObjectsFinal(session)), CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(c!(C_FindObjectsInit(session, null_mut(), 1)), CKR_ARGUMENTS_BAD);
    let mut endless = attribute(CKA_LABEL, b"web");
    endless.ulValueLen = CK_ULONG::MAX;
    let code = c!(C_FindObjectsInit(session, &raw mut endless, 1));
    assert_eq!(code, CKR_ATTRIBUTE_VALUE_INVALID);
    assert_eq!(c!(C_FindObjectsInit(session, &raw mut endless, CK_ULONG::MAX)), CKR_ARGUMENTS_BAD);
}

#[test]
fn attributes_are_told_one_by_one() {
    let fixture = Fixture::logged_in();
    let key = fixture.find_one(CKO_PRIVATE_KEY, "web");
    let mut label = [0; 10];
    let mut point = [0; 67];
    let mut template = [
        attribute(CKA_MODULUS, &[0; 8]),
        attribute(CKA_LABEL, &label),
        attribute(CKA_VALUE, &[0; 8]),
        attribute(CKA_EC_POINT, &point),
        CK_ATTRIBUTE { type_: CKA_ID, pValue: null_mut(), ulValueLen: 0 },
    ];
    template[1].pValue = label.as_mut_ptr().cast();
    template[3].pValue = point.as_mut_ptr().cast();
    let code = c!(C_GetAttributeValue(fixture.session, key, template.as_mut_ptr(), 5));
    assert_eq!(code, CKR_ATTRIBUTE_TYPE_INVALID);
    assert_eq!(
        template.map(|attribute| attribute.ulValueLen),
        [CK_UNAVAILABLE_INFORMATION, 3, CK_UNAVAILABLE_INFORMATION, 67, 1]
    );
    assert_eq!(&label[..3], b"web");
    assert_eq!(point[2..], *key_point());
    let code = c!(C_GetAttributeValue(fixture.session, 9999, template.as_mut_ptr(), 5));
    assert_eq!(code, CKR_OBJECT_HANDLE_INVALID);
}

fn key_point() -> Box<[u8]> {
    support::key().verifying_key().to_sec1_point(false).to_bytes()
}

#[test]
fn a_signature_is_made_by_the_daemon_and_checked_here() {
    let fixture = Fixture::logged_in();
    fixture.sign_init(CKM_ECDSA_SHA256);
    let (code, signature) = sign(fixture.session, b"message", 64);
    assert_eq!(code, CKR_OK);
    let parsed = p256::ecdsa::Signature::from_slice(&signature).unwrap();
    support::key().verifying_key().verify(b"message", &parsed).unwrap();
    let check = |data: &[u8], signature: &[u8]| verify(&fixture, CKM_ECDSA_SHA256, data, signature);
    assert_eq!(check(b"message", &signature), CKR_OK);
    assert_eq!(check(b"massage", &signature), CKR_SIGNATURE_INVALID);
    assert_eq!(check(b"message", &signature[1..]), CKR_SIGNATURE_LEN_RANGE);
    // In parts, of a digest, and by the digest alone.
    fixture.sign_init(CKM_ECDSA_SHA256);
    for part in [b"mess".as_slice(), b"age"] {
        let (start, length) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
        assert_eq!(c!(C_SignUpdate(fixture.session, start, length)), CKR_OK);
    }
    let (mut signature, mut length) = ([0; 64], 64);
    let code = c!(C_SignFinal(fixture.session, signature.as_mut_ptr(), &raw mut length));
    assert_eq!((code, length), (CKR_OK, 64));
    assert_eq!(check(b"message", &signature), CKR_OK);
    fixture.sign_init(CKM_ECDSA);
    let (code, signature) = sign(fixture.session, &[3; 32], 64);
    assert_eq!(code, CKR_OK);
    assert_eq!(verify(&fixture, CKM_ECDSA, &[3; 32], &signature), CKR_OK);
}

#[test]
fn asking_for_the_length_does_not_end_the_operation_and_errors_do() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    fixture.sign_init(CKM_ECDSA);
    let key = fixture.find_one(CKO_PRIVATE_KEY, "web");
    let again = c!(C_SignInit(session, &mut mechanism(CKM_ECDSA), key));
    assert_eq!(again, CKR_OPERATION_ACTIVE);
    assert_eq!(sign(session, &[1; 32], 0), (CKR_OK, vec![0; 64]));
    assert_eq!(sign(session, &[1; 32], 63), (CKR_BUFFER_TOO_SMALL, vec![0; 64]));
    assert_eq!(sign(session, &[1; 32], 64).0, CKR_OK);
    assert_eq!(sign(session, &[1; 32], 64).0, CKR_OPERATION_NOT_INITIALIZED);
    // An error in the data, and in the arguments, ends it.
    fixture.sign_init(CKM_ECDSA);
    assert_eq!(sign(session, &[1; 31], 64).0, CKR_DATA_LEN_RANGE);
    assert_eq!(sign(session, &[1; 32], 64).0, CKR_OPERATION_NOT_INITIALIZED);
    fixture.sign_init(CKM_ECDSA);
    assert_eq!(c!(C_Sign(session, null_mut(), 32, null_mut(), null_mut())), CKR_ARGUMENTS_BAD);
    assert_eq!(sign(session, &[1; 32], 64).0, CKR_OPERATION_NOT_INITIALIZED);
    // No mechanism ends it, too.
    fixture.sign_init(CKM_ECDSA);
    assert_eq!(c!(C_SignInit(session, null_mut(), key)), CKR_OK);
    assert_eq!(c!(C_SignInit(session, null_mut(), key)), CKR_ARGUMENTS_BAD);
    assert_eq!(c!(C_SignInit(session, &mut mechanism(CKM_ECDSA), 9999)), CKR_KEY_HANDLE_INVALID);
    let public = fixture.find_one(CKO_PUBLIC_KEY, "web");
    assert_eq!(
        c!(C_SignInit(session, &mut mechanism(CKM_ECDSA), public)),
        CKR_KEY_FUNCTION_NOT_PERMITTED
    );
}

#[test]
fn the_daemon_makes_the_iv_and_the_buffer_is_filled() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let key = fixture.find_one(CKO_SECRET_KEY, "old");
    let mut iv = [0; 12];
    let mut parameters = CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: null_mut(),
        ulAADLen: 0,
        ulTagBits: 128,
    };
    let mut gcm = CK_MECHANISM {
        mechanism: CKM_AES_GCM,
        pParameter: (&raw mut parameters).cast(),
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
    };
    let gcm = &raw mut gcm;
    assert_eq!(c!(C_EncryptInit(session, gcm, key)), CKR_OK);
    // In place: input and output are the same buffer.
    let mut buffer = [0; 64];
    buffer[..5].copy_from_slice(b"hello");
    let (start, mut length) = (buffer.as_mut_ptr(), 64);
    assert_eq!(c!(C_Encrypt(session, start, 5, start, &raw mut length)), CKR_OK);
    assert_eq!((length, iv), (21, [9; 12]));
    assert_eq!(c!(C_EncryptInit(session, gcm, key)), CKR_MECHANISM_PARAM_INVALID);
    // In parts.
    assert_eq!(c!(C_DecryptInit(session, gcm, key)), CKR_OK);
    let mut plain = [0; 64];
    for part in [0..10, 10..21] {
        let mut length = 64;
        let (from, count) = (buffer[part.clone()].as_mut_ptr(), part.len() as CK_ULONG);
        let code = c!(C_DecryptUpdate(session, from, count, plain.as_mut_ptr(), &raw mut length));
        assert_eq!((code, length), (CKR_OK, 0));
    }
    let mut length = 64;
    assert_eq!(c!(C_DecryptFinal(session, plain.as_mut_ptr(), &raw mut length)), CKR_OK);
    assert_eq!(&plain[..length as usize], b"hello");
    // A damaged ciphertext.
    buffer[20] ^= 1;
    assert_eq!(c!(C_DecryptInit(session, gcm, key)), CKR_OK);
    let mut length = 64;
    let code = c!(C_Decrypt(session, buffer.as_mut_ptr(), 21, plain.as_mut_ptr(), &raw mut length));
    assert_eq!(code, CKR_ENCRYPTED_DATA_INVALID);
}

#[test]
fn digests_are_made_here() {
    let fixture = Fixture::new();
    let session = fixture.session;
    assert_eq!(c!(C_DigestInit(session, &mut mechanism(CKM_SHA256))), CKR_OK);
    let (mut digest, mut length) = ([0; 32], 32);
    let message = b"abc".as_ptr().cast_mut();
    assert_eq!(c!(C_DigestUpdate(session, message, 3)), CKR_OK);
    assert_eq!(c!(C_DigestFinal(session, null_mut(), &raw mut length)), CKR_OK);
    assert_eq!(c!(C_DigestFinal(session, digest.as_mut_ptr(), &raw mut length)), CKR_OK);
    // FIPS 180-4, the example "abc".
    assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
    assert_eq!(c!(C_DigestInit(session, &mut mechanism(CKM_MD5))), CKR_MECHANISM_INVALID);
}

#[test]
fn keys_are_made_renamed_and_destroyed() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let mut public = [attribute(CKA_EC_PARAMS, &p256), attribute(CKA_LABEL, b"fresh")];
    let mut private = [attribute(CKA_LABEL, b"fresh"), attribute(CKA_ID, b"\x77")];
    let (mut public_key, mut private_key) = (0, 0);
    let mut generate = |private: &mut [CK_ATTRIBUTE]| {
        c!(C_GenerateKeyPair(
            session,
            &mut mechanism(CKM_EC_KEY_PAIR_GEN),
            public.as_mut_ptr(),
            2,
            private.as_mut_ptr(),
            private.len() as CK_ULONG,
            &raw mut public_key,
            &raw mut private_key,
        ))
    };
    assert_eq!(generate(&mut [attribute(CKA_SENSITIVE, &[CK_FALSE])]), CKR_TEMPLATE_INCONSISTENT);
    assert_eq!(generate(&mut private), CKR_OK);
    assert_eq!(fixture.find_one(CKO_PRIVATE_KEY, "fresh"), private_key);
    assert_eq!(fixture.find_one(CKO_PUBLIC_KEY, "fresh"), public_key);
    let mut label = attribute(CKA_LABEL, b"renamed");
    assert_eq!(c!(C_SetAttributeValue(session, private_key, &raw mut label, 1)), CKR_OK);
    assert_eq!(fixture.find_one(CKO_PUBLIC_KEY, "renamed"), public_key);
    let mut local = attribute(CKA_LOCAL, &[CK_FALSE]);
    let code = c!(C_SetAttributeValue(session, private_key, &raw mut local, 1));
    assert_eq!(code, CKR_ATTRIBUTE_READ_ONLY);
    assert_eq!(c!(C_DestroyObject(session, public_key)), CKR_ACTION_PROHIBITED);
    assert_eq!(c!(C_DestroyObject(session, private_key)), CKR_OK);
    assert_eq!(c!(C_DestroyObject(session, private_key)), CKR_OBJECT_HANDLE_INVALID);
    assert!(find(session, &mut [attribute(CKA_LABEL, b"renamed")]).is_empty());
    // A session that only reads, and nobody logged in.
    let mut reading = 0;
    let flags = CKF_SERIAL_SESSION;
    assert_eq!(c!(C_OpenSession(0, flags, null_mut(), None, &raw mut reading)), CKR_OK);
    let mut key = 0;
    let mut aes = mechanism(CKM_AES_KEY_GEN);
    let code = c!(C_GenerateKey(reading, &raw mut aes, null_mut(), 0, &raw mut key));
    assert_eq!(code, CKR_SESSION_READ_ONLY);
    let code = c!(C_GenerateKey(session, &raw mut aes, null_mut(), 0, null_mut()));
    assert_eq!(code, CKR_ARGUMENTS_BAD);
    assert_eq!(c!(C_Logout(session)), CKR_OK);
    let code = c!(C_GenerateKey(session, &raw mut aes, null_mut(), 0, &raw mut key));
    assert_eq!(code, CKR_USER_NOT_LOGGED_IN);
}

#[test]
fn random_bytes_come_from_the_daemon() {
    let fixture = Fixture::logged_in();
    let mut bytes = [0; 5000];
    assert_eq!(c!(C_GenerateRandom(fixture.session, bytes.as_mut_ptr(), 5000)), CKR_OK);
    assert_eq!(bytes, [4; 5000]);
    let refused = c!(C_GenerateRandom(fixture.session, bytes.as_mut_ptr(), CK_ULONG::MAX));
    assert_eq!(refused, CKR_ARGUMENTS_BAD);
    let seeded = c!(C_SeedRandom(fixture.session, bytes.as_mut_ptr(), 8));
    assert_eq!(seeded, CKR_RANDOM_SEED_NOT_SUPPORTED);
}

#[test]
fn a_broken_stream_is_replaced_and_logged_in_again() {
    let fixture = Fixture::logged_in();
    fixture.sign_init(CKM_ECDSA);
    let streams = DAEMON.state().streams;
    let logins = DAEMON.state().logins;
    DAEMON.state().hang_up = true;
    assert_eq!(sign(fixture.session, &[1; 32], 64).0, CKR_OK);
    assert_eq!(DAEMON.state().streams, streams + 1);
    assert_eq!(DAEMON.state().logins, logins + 1);
    // If the PIN was changed meanwhile, the application is logged out, after one attempt.
    fixture.sign_init(CKM_ECDSA);
    DAEMON.state().user_pin = "another one".into();
    DAEMON.state().hang_up = true;
    assert_eq!(sign(fixture.session, &[1; 32], 64).0, CKR_USER_NOT_LOGGED_IN);
    let mut info = CK_SESSION_INFO::default();
    assert_eq!(c!(C_GetSessionInfo(fixture.session, &raw mut info)), CKR_OK);
    assert_eq!(info.state, CKS_RW_PUBLIC_SESSION);
}

#[test]
fn a_hostile_daemon_is_a_device_error() {
    let fixture = Fixture::logged_in();
    fixture.sign_init(CKM_ECDSA);
    DAEMON.state().hostile = true;
    assert_eq!(sign(fixture.session, &[1; 32], 512).0, CKR_DEVICE_ERROR);
    assert_eq!(c!(C_FindObjectsInit(fixture.session, null_mut(), 0)), CKR_DEVICE_ERROR);
}

#[test]
fn what_is_not_there_says_so() {
    let fixture = Fixture::new();
    let session = fixture.session;
    let mut handle = 0;
    let code = c!(C_CreateObject(session, null_mut(), 0, &raw mut handle));
    assert_eq!(code, CKR_FUNCTION_NOT_SUPPORTED);
    assert_eq!(c!(C_CancelFunction(session)), CKR_FUNCTION_NOT_PARALLEL);
    assert_eq!(c!(C_WaitForSlotEvent(CKF_DONT_BLOCK, &raw mut handle, null_mut())), CKR_NO_EVENT);
}

/// A function of the table of 3.2.
fn table_3_2() -> CK_FUNCTION_LIST_3_2 {
    let mut found = null_mut();
    let name = c"PKCS 11".as_ptr().cast_mut().cast();
    let mut version = CK_VERSION { major: 3, minor: 2 };
    let code = unsafe { kms_pkcs11::C_GetInterface(name, &raw mut version, &raw mut found, 0) };
    assert_eq!(code, CKR_OK);
    unsafe { *(*found).pFunctionList.cast() }
}

/// A mechanism with a structure, which must outlive it.
fn with<T>(kind: CK_MECHANISM_TYPE, parameter: &mut T) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism: kind,
        pParameter: (&raw mut *parameter).cast(),
        ulParameterLen: size_of::<T>() as CK_ULONG,
    }
}

fn number(value: &CK_ULONG) -> &[u8] {
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<CK_ULONG>()) }
}

impl Fixture {
    /// Adds a key to the ring, and finds one half of it.
    fn with_key(
        &self,
        class: CK_OBJECT_CLASS,
        label: &str,
        algorithm: v1::Algorithm,
    ) -> CK_OBJECT_HANDLE {
        DAEMON.add(support::object(label, label.len() as u8 + 100, algorithm));
        self.find_one(class, label)
    }

    /// Signs in one part.
    fn signed(&self, mechanism: &mut CK_MECHANISM, key: CK_OBJECT_HANDLE, data: &[u8]) -> Vec<u8> {
        assert_eq!(c!(C_SignInit(self.session, mechanism, key)), CKR_OK);
        let (_, signature) = sign(self.session, data, 0);
        let (code, signature) = sign(self.session, data, signature.len());
        assert_eq!(code, CKR_OK);
        signature
    }

    fn verified(
        &self,
        mechanism: &mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> CK_RV {
        assert_eq!(c!(C_VerifyInit(self.session, mechanism, key)), CKR_OK);
        let (length, signature_length) = (data.len() as CK_ULONG, signature.len() as CK_ULONG);
        let (data, signature) = (data.as_ptr().cast_mut(), signature.as_ptr().cast_mut());
        c!(C_Verify(self.session, data, length, signature, signature_length))
    }

    /// Encrypts or decrypts in one part: asks for the length, then for the result.
    fn ciphered(
        &self,
        encrypt: bool,
        mechanism: &mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Result<Vec<u8>, CK_RV> {
        let session = self.session;
        let begun = if encrypt {
            c!(C_EncryptInit(session, mechanism, key))
        } else {
            c!(C_DecryptInit(session, mechanism, key))
        };
        if begun != CKR_OK {
            return Err(begun);
        }
        let (start, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let call = |output: *mut u8, length: &mut CK_ULONG| {
            if encrypt {
                c!(C_Encrypt(session, start, count, output, length))
            } else {
                c!(C_Decrypt(session, start, count, output, length))
            }
        };
        let mut length = 0;
        match call(null_mut(), &mut length) {
            CKR_OK => {}
            code => return Err(code),
        }
        let mut output = vec![0; length as usize];
        match call(output.as_mut_ptr(), &mut length) {
            CKR_OK => output.truncate(length as usize),
            code => return Err(code),
        }
        Ok(output)
    }

    fn value(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let mut question = attribute(kind, &bytes);
        question.pValue = bytes.as_mut_ptr().cast();
        let code = c!(C_GetAttributeValue(self.session, object, &raw mut question, 1));
        assert_eq!(code, CKR_OK, "{kind:#x}");
        bytes.truncate(question.ulValueLen as usize);
        bytes
    }
}

#[test]
fn one_rsa_key_signs_with_both_paddings() {
    let fixture = Fixture::logged_in();
    let private = fixture.with_key(CKO_PRIVATE_KEY, "rsa", v1::Algorithm::Rsa2048);
    let public = fixture.find_one(CKO_PUBLIC_KEY, "rsa");
    let mut pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA384, mgf: CKG_MGF1_SHA384, sLen: 48 };
    let mut wrong = CK_RSA_PKCS_PSS_PARAMS { sLen: 20, ..pss };
    for mut kind in [
        mechanism(CKM_SHA256_RSA_PKCS),
        mechanism(CKM_SHA512_RSA_PKCS),
        with(CKM_SHA384_RSA_PKCS_PSS, &mut pss),
    ] {
        let signature = fixture.signed(&mut kind, private, b"message");
        assert_eq!(signature.len(), 256);
        assert_eq!(fixture.verified(&mut kind, public, b"message", &signature), CKR_OK);
        let other = fixture.verified(&mut kind, public, b"massage", &signature);
        assert_eq!(other, CKR_SIGNATURE_INVALID);
    }
    // A DigestInfo made outside is the same signature; one of SHA-1 is not made, but could be checked.
    let mut info = vec![
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    info.extend(<sha2::Sha256 as sha2::Digest>::digest(b"message"));
    let signature = fixture.signed(&mut mechanism(CKM_RSA_PKCS), private, &info);
    let mut hashed = mechanism(CKM_SHA256_RSA_PKCS);
    assert_eq!(fixture.verified(&mut hashed, public, b"message", &signature), CKR_OK);
    let mut raw = mechanism(CKM_RSA_PKCS);
    assert_eq!(fixture.verified(&mut raw, public, &info, &signature), CKR_OK);
    assert_eq!(c!(C_SignInit(fixture.session, &raw mut raw, private)), CKR_OK);
    assert_eq!(sign(fixture.session, &[1; 32], 256).0, CKR_DATA_INVALID);
    let sha1 = c!(C_SignInit(fixture.session, &mut mechanism(CKM_SHA1_RSA_PKCS), private));
    assert_eq!(sha1, CKR_MECHANISM_INVALID);
    // Parameters: of another salt, short, and none.
    let mut short = with(CKM_RSA_PKCS_PSS, &mut pss);
    short.ulParameterLen -= 1;
    let mut null = with(CKM_RSA_PKCS_PSS, &mut pss);
    null.pParameter = null_mut();
    for mut bad in [with(CKM_RSA_PKCS_PSS, &mut wrong), short, null, mechanism(CKM_RSA_PKCS_PSS)] {
        let refused = c!(C_SignInit(fixture.session, &raw mut bad, private));
        assert_eq!(refused, CKR_MECHANISM_PARAM_INVALID);
    }
}

#[test]
fn what_is_not_hashed_here_goes_to_the_daemon_whole() {
    let fixture = Fixture::logged_in();
    let private = fixture.with_key(CKO_PRIVATE_KEY, "edwards", v1::Algorithm::Ed25519);
    let public = fixture.find_one(CKO_PUBLIC_KEY, "edwards");
    assert_eq!(fixture.value(public, CKA_EC_POINT), [5; 32]);
    let signature = fixture.signed(&mut mechanism(CKM_EDDSA), private, b"message");
    let check = |data: &[u8], signature: &[u8]| {
        fixture.verified(&mut mechanism(CKM_EDDSA), public, data, signature)
    };
    assert_eq!(check(b"message", &signature), CKR_OK);
    assert_eq!(check(b"massage", &signature), CKR_SIGNATURE_INVALID);
    assert_eq!(check(b"message", &signature[1..]), CKR_SIGNATURE_LEN_RANGE);
    assert_eq!(c!(C_SignInit(fixture.session, &mut mechanism(CKM_EDDSA), private)), CKR_OK);
    assert_eq!(sign(fixture.session, &vec![0; 65_537], 64).0, CKR_DATA_LEN_RANGE);
    // Message authentication codes, with their lengths.
    let hmac = fixture.with_key(CKO_SECRET_KEY, "hmac", v1::Algorithm::GenericSecret);
    let aes = fixture.with_key(CKO_SECRET_KEY, "a", v1::Algorithm::Aes256);
    for (kind, key, bytes) in
        [(CKM_SHA256_HMAC, hmac, 32), (CKM_SHA512_HMAC, hmac, 64), (CKM_AES_CMAC, aes, 16)]
    {
        let tag = fixture.signed(&mut mechanism(kind), key, b"message");
        assert_eq!(tag.len(), bytes);
        assert_eq!(fixture.verified(&mut mechanism(kind), key, b"message", &tag), CKR_OK);
        let damaged = fixture.verified(&mut mechanism(kind), key, b"massage", &tag);
        assert_eq!(damaged, CKR_SIGNATURE_INVALID);
    }
    // The old hash function only checks.
    let refused = c!(C_SignInit(fixture.session, &mut mechanism(CKM_SHA_1_HMAC), hmac));
    assert_eq!(refused, CKR_MECHANISM_INVALID);
    assert_eq!(
        fixture.verified(&mut mechanism(CKM_SHA_1_HMAC), hmac, b"m", &[0; 20]),
        CKR_SIGNATURE_INVALID
    );
}

#[test]
fn block_ciphers_pad_chain_and_refuse() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let key = fixture.with_key(CKO_SECRET_KEY, "cipher", v1::Algorithm::Aes256);
    let mut iv = [3_u8; 16];
    let padded = &mut with(CKM_AES_CBC_PAD, &mut iv);
    let ciphertext = fixture.ciphered(true, padded, key, b"hello").unwrap();
    assert_eq!(ciphertext.len(), 16);
    assert_eq!(fixture.ciphered(false, padded, key, &ciphertext).unwrap(), b"hello");
    // A buffer that is too small for what was padded is told the true length, and may try again.
    assert_eq!(c!(C_DecryptInit(session, padded, key)), CKR_OK);
    let (mut small, mut length) = ([0; 5], 4);
    let start = ciphertext.as_ptr().cast_mut();
    let output = small.as_mut_ptr();
    let code = c!(C_Decrypt(session, start, 16, output, &raw mut length));
    assert_eq!((code, length), (CKR_BUFFER_TOO_SMALL, 5));
    assert_eq!(c!(C_Decrypt(session, start, 16, output, &raw mut length)), CKR_OK);
    assert_eq!(&small, b"hello");
    assert_eq!(fixture.ciphered(false, padded, key, &[0; 15]), Err(CKR_ENCRYPTED_DATA_LEN_RANGE));
    let mut iv = [3_u8; 16];
    let whole = &mut with(CKM_AES_CBC, &mut iv);
    assert_eq!(fixture.ciphered(true, whole, key, &[0; 15]), Err(CKR_DATA_LEN_RANGE));
    whole.ulParameterLen = 15;
    assert_eq!(fixture.ciphered(true, whole, key, &[0; 16]), Err(CKR_MECHANISM_PARAM_INVALID));
    // More than the daemon takes at once: in pieces, the second with the IV that the first leaves.
    let mut counter = CK_AES_CTR_PARAMS { ulCounterBits: 128, cb: [0xff; 16] };
    let ctr = &mut with(CKM_AES_CTR, &mut counter);
    let long: Vec<u8> = (0..70_000).map(|n| n as u8).collect();
    let ciphertext = fixture.ciphered(true, ctr, key, &long).unwrap();
    let Asked::Encrypt(second) = DAEMON.last() else { panic!("an encryption") };
    assert_eq!(second.plaintext.len(), 70_000 - 65_536);
    assert_eq!(second.initialization_vector[13..], [0, 0x0f, 0xff]);
    assert_eq!(fixture.ciphered(false, ctr, key, &ciphertext).unwrap(), long);
    // And in parts, of which the first full piece comes out as soon as something follows it.
    assert_eq!(c!(C_EncryptInit(session, ctr, key)), CKR_OK);
    let mut out = vec![0; 70_000];
    let (start, mut length) = (long.as_ptr().cast_mut(), 70_000);
    let output = out.as_mut_ptr();
    let code = c!(C_EncryptUpdate(session, start, 70_000, output, &raw mut length));
    assert_eq!((code, length), (CKR_OK, 65_536));
    let mut rest = 70_000 - 65_536;
    let code = c!(C_EncryptFinal(session, out[65_536..].as_mut_ptr(), &raw mut rest));
    assert_eq!((code, rest), (CKR_OK, 4464));
    assert_eq!(out, ciphertext);
    let mut counter = CK_AES_CTR_PARAMS { ulCounterBits: 4, cb: [0xff; 16] };
    let short = &mut with(CKM_AES_CTR, &mut counter);
    assert_eq!(fixture.ciphered(true, short, key, &[0; 17]), Err(CKR_DATA_LEN_RANGE));
}

#[test]
fn a_compatible_ring_takes_the_caller_s_iv_and_old_paddings() {
    let fixture = Fixture::on(v1::RingKind::Compatible);
    assert_eq!(log_in(fixture.session, PIN), CKR_OK);
    let key = fixture.with_key(CKO_SECRET_KEY, "own iv", v1::Algorithm::Aes256);
    let mut iv = [4; 12];
    let mut parameters = CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: null_mut(),
        ulAADLen: 0,
        ulTagBits: 128,
    };
    let gcm = &mut with(CKM_AES_GCM, &mut parameters);
    assert_eq!(fixture.ciphered(true, gcm, key, b"m").unwrap().len(), 17);
    let Asked::Encrypt(request) = DAEMON.last() else { panic!("an encryption") };
    assert_eq!((request.initialization_vector, iv), (vec![4; 12], [4; 12]));
    let mut info = CK_MECHANISM_INFO::default();
    assert_eq!(c!(C_GetMechanismInfo(0, CKM_RSA_X_509, &raw mut info)), CKR_OK);
    assert_eq!(info.flags, CKF_ENCRYPT | CKF_DECRYPT);
    assert_eq!((info.ulMinKeySize, info.ulMaxKeySize), (2048, 4096));
    let public = fixture.with_key(CKO_PUBLIC_KEY, "old rsa", v1::Algorithm::Rsa2048);
    let mut raw = mechanism(CKM_RSA_X_509);
    assert_eq!(fixture.ciphered(true, &mut raw, public, &[1; 5]).unwrap().len(), 256);
    drop(fixture);
    let _hardened = Fixture::logged_in();
    let refused = c!(C_GetMechanismInfo(0, CKM_RSA_X_509, &raw mut info));
    assert_eq!(refused, CKR_MECHANISM_INVALID);
}

#[test]
fn keys_are_made_out_of_others() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let base = fixture.with_key(CKO_SECRET_KEY, "base", v1::Algorithm::GenericSecret);
    let (aes, length) = (CKK_AES, 16);
    let mut template = [
        attribute(CKA_KEY_TYPE, number(&aes)),
        attribute(CKA_VALUE_LEN, number(&length)),
        attribute(CKA_LABEL, b"derived"),
        attribute(CKA_ENCRYPT, &[CK_TRUE]),
    ];
    let template = template.as_mut_ptr();
    let mut made = 0;
    let mut info = *b"info";
    let mut hkdf = CK_HKDF_PARAMS {
        bExtract: CK_TRUE,
        bExpand: CK_TRUE,
        prfHashMechanism: CKM_SHA256,
        ulSaltType: CKF_HKDF_SALT_NULL,
        pSalt: null_mut(),
        ulSaltLen: 0,
        hSaltKey: 0,
        pInfo: info.as_mut_ptr(),
        ulInfoLen: 4,
    };
    let mut by_hkdf = with(CKM_HKDF_DERIVE, &mut hkdf);
    let code = c!(C_DeriveKey(session, &raw mut by_hkdf, base, template, 4, &raw mut made));
    assert_eq!(code, CKR_OK);
    let Asked::DeriveKey(request) = DAEMON.last() else { panic!("a derivation") };
    assert_eq!((request.mechanism(), &request.info[..]), (v1::Mechanism::HkdfSha256, &b"info"[..]));
    let key = request.key.unwrap();
    assert_eq!((key.algorithm(), &*key.pkcs11_label), (v1::Algorithm::Aes128, "derived"));
    assert_eq!(key.usages, [i32::from(v1::Usage::Encrypt)]);
    assert!(key.name.starts_with(support::RING));
    assert_eq!(fixture.find_one(CKO_SECRET_KEY, "derived"), made);
    assert_eq!(fixture.value(made, CKA_VALUE_LEN), number(&length));
    assert_eq!(fixture.value(made, CKA_NEVER_EXTRACTABLE), [CK_FALSE]);
    // Half of HKDF, a salt that is a key, and no place for the handle.
    for bad in [
        CK_HKDF_PARAMS { bExpand: CK_FALSE, ..hkdf },
        CK_HKDF_PARAMS { ulSaltType: CKF_HKDF_SALT_KEY, ..hkdf },
        CK_HKDF_PARAMS { prfHashMechanism: CKM_SHA_1, ..hkdf },
        CK_HKDF_PARAMS { pInfo: null_mut(), ..hkdf },
        CK_HKDF_PARAMS { ulInfoLen: CK_ULONG::MAX, ..hkdf },
    ] {
        let mut bad_parameters = bad;
        let mut bad = with(CKM_HKDF_DERIVE, &mut bad_parameters);
        let code = c!(C_DeriveKey(session, &raw mut bad, base, template, 4, &raw mut made));
        assert_eq!(code, CKR_MECHANISM_PARAM_INVALID);
    }
    let code = c!(C_DeriveKey(session, &raw mut by_hkdf, base, template, 4, null_mut()));
    assert_eq!(code, CKR_ARGUMENTS_BAD);
    // Agreement with a point, as it is or wrapped; the shared secret's length is the key's.
    let private = fixture.find_one(CKO_PRIVATE_KEY, "web");
    let mut point = key_point().to_vec();
    let mut ecdh = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: null_mut(),
        ulPublicDataLen: 65,
        pPublicData: point.as_mut_ptr(),
    };
    let mut agree = with(CKM_ECDH1_DERIVE, &mut ecdh);
    let code = c!(C_DeriveKey(session, &raw mut agree, private, null_mut(), 0, &raw mut made));
    assert_eq!(code, CKR_OK);
    let Asked::AgreeKey(request) = DAEMON.last() else { panic!("an agreement") };
    let web = support::object("web", 1, v1::Algorithm::EcP256);
    assert_eq!(request.peer_public_key, web.public_key);
    let key = request.key.unwrap();
    assert_eq!((key.algorithm(), key.length_bytes), (v1::Algorithm::GenericSecret, 32));
    let mut with_kdf_parameters = CK_ECDH1_DERIVE_PARAMS { kdf: CKD_NULL + 1, ..ecdh };
    let mut with_kdf = with(CKM_ECDH1_DERIVE, &mut with_kdf_parameters);
    let code = c!(C_DeriveKey(session, &raw mut with_kdf, private, null_mut(), 0, &raw mut made));
    assert_eq!(code, CKR_MECHANISM_PARAM_INVALID);
}

#[test]
fn keys_are_wrapped_unwrapped_and_copied() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let wrapping = fixture.with_key(CKO_SECRET_KEY, "wrapping", v1::Algorithm::Aes256);
    let kept = fixture.with_key(CKO_SECRET_KEY, "kept", v1::Algorithm::Aes128);
    let free = support::object("leaving", 90, v1::Algorithm::Aes128);
    DAEMON.add(v1::TokenObject { exportable: true, ever_exportable: true, ..free });
    let leaving = fixture.find_one(CKO_SECRET_KEY, "leaving");
    let mut kw = mechanism(CKM_AES_KEY_WRAP);
    let kw = &raw mut kw;
    let (mut wrapped, mut length) = ([0; 64], 0);
    let code = c!(C_WrapKey(session, kw, wrapping, kept, null_mut(), &raw mut length));
    assert_eq!(code, CKR_KEY_UNEXTRACTABLE);
    let code = c!(C_WrapKey(session, kw, wrapping, leaving, null_mut(), &raw mut length));
    assert_eq!((code, length), (CKR_OK, 24));
    length = 23;
    let output = wrapped.as_mut_ptr();
    let code = c!(C_WrapKey(session, kw, wrapping, leaving, output, &raw mut length));
    assert_eq!((code, length), (CKR_BUFFER_TOO_SMALL, 24));
    assert_eq!(c!(C_WrapKey(session, kw, wrapping, leaving, output, &raw mut length)), CKR_OK);
    let code = c!(C_WrapKey(session, kw, 9999, leaving, output, &raw mut length));
    assert_eq!(code, CKR_WRAPPING_KEY_HANDLE_INVALID);
    let (class, aes) = (CKO_SECRET_KEY, CKK_AES);
    let mut template = [
        attribute(CKA_CLASS, number(&class)),
        attribute(CKA_KEY_TYPE, number(&aes)),
        attribute(CKA_LABEL, b"back"),
    ];
    let template = template.as_mut_ptr();
    let mut key = 0;
    let code = c!(C_UnwrapKey(session, kw, wrapping, output, 24, template, 3, &raw mut key));
    assert_eq!(code, CKR_OK);
    let Asked::UnwrapKey(request) = DAEMON.last() else { panic!("an unwrapping") };
    assert_eq!(request.mechanism(), v1::Mechanism::AesKw);
    assert_eq!(request.key.unwrap().algorithm(), v1::Algorithm::Aes128);
    assert_eq!(fixture.value(key, CKA_LOCAL), [CK_FALSE]);
    wrapped[0] = 0;
    let output = wrapped.as_mut_ptr();
    let code = c!(C_UnwrapKey(session, kw, wrapping, output, 24, template, 3, &raw mut key));
    assert_eq!(code, CKR_WRAPPED_KEY_INVALID);
    let code = c!(C_UnwrapKey(session, kw, wrapping, output, 23, template, 3, &raw mut key));
    assert_eq!(code, CKR_KEY_SIZE_RANGE);
    let mut rename = attribute(CKA_LABEL, b"copied");
    let mut copy = 0;
    let code = c!(C_CopyObject(session, kept, &raw mut rename, 1, &raw mut copy));
    assert_eq!(code, CKR_OK);
    assert_eq!(fixture.find_one(CKO_SECRET_KEY, "copied"), copy);
    let public = fixture.find_one(CKO_PUBLIC_KEY, "web");
    let code = c!(C_CopyObject(session, public, null_mut(), 0, &raw mut copy));
    assert_eq!(code, CKR_ACTION_PROHIBITED);
    let mut loosen = attribute(CKA_EXTRACTABLE, &[CK_TRUE]);
    let code = c!(C_CopyObject(session, kept, &raw mut loosen, 1, &raw mut copy));
    assert_eq!(code, CKR_TEMPLATE_INCONSISTENT);
}

#[test]
fn a_shared_secret_is_told_by_a_ciphertext() {
    let fixture = Fixture::logged_in();
    let session = fixture.session;
    let functions = table_3_2();
    let public = fixture.with_key(CKO_PUBLIC_KEY, "kem", v1::Algorithm::MlKem768);
    let private = fixture.find_one(CKO_PRIVATE_KEY, "kem");
    assert_eq!(fixture.value(public, CKA_PARAMETER_SET), number(&CKP_ML_KEM_768));
    assert_eq!(fixture.value(public, CKA_VALUE).len(), 1184);
    assert_eq!(fixture.value(public, CKA_ENCAPSULATE), [CK_TRUE]);
    let mut kem = mechanism(CKM_ML_KEM);
    let mut encapsulate = |key, output: *mut u8, length: &mut CK_ULONG, made: *mut CK_ULONG| unsafe {
        let call = functions.C_EncapsulateKey.unwrap();
        call(session, &raw mut kem, key, null_mut(), 0, output, length, made)
    };
    let (mut ciphertext, mut length, mut made) = (vec![0; 1088], 0, 0);
    assert_eq!(encapsulate(public, null_mut(), &mut length, null_mut()), CKR_OK);
    assert_eq!(length, 1088);
    let output = ciphertext.as_mut_ptr();
    length = 1087;
    let small = encapsulate(public, output, &mut length, &raw mut made);
    assert_eq!((small, made), (CKR_BUFFER_TOO_SMALL, 0));
    assert_eq!(encapsulate(public, output, &mut length, null_mut()), CKR_ARGUMENTS_BAD);
    assert_eq!(encapsulate(public, output, &mut length, &raw mut made), CKR_OK);
    assert_eq!((made != 0, &ciphertext[..2]), (true, &[0xcc, 0xcc][..]));
    let refused = encapsulate(private, output, &mut length, &raw mut made);
    assert_eq!(refused, CKR_KEY_FUNCTION_NOT_PERMITTED);
    let decapsulate = |count, made: *mut CK_ULONG| unsafe {
        let call = functions.C_DecapsulateKey.unwrap();
        call(session, &mut mechanism(CKM_ML_KEM), private, null_mut(), 0, output, count, made)
    };
    assert_eq!(decapsulate(1088, &raw mut made), CKR_OK);
    let Asked::DecapsulateKey(request) = DAEMON.last() else { panic!("a decapsulation") };
    assert_eq!(request.key.unwrap().algorithm(), v1::Algorithm::GenericSecret);
    assert_eq!(decapsulate(1087, &raw mut made), CKR_WRAPPED_KEY_LEN_RANGE);
}

#[test]
fn a_certificate_of_a_version_is_an_object() {
    let fixture = Fixture::logged_in();
    let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let inner = [
        element(0x02, &[9]),
        element(0x30, &[]),
        element(0x30, b"issuer"),
        element(0x30, &[]),
        element(0x30, b"subject"),
        element(0x30, b"key"),
    ];
    let rest = [element(0x30, &[]), element(0x03, &[0])].concat();
    let certificate = element(0x30, &[element(0x30, &inner.concat()), rest].concat());
    let plain = support::object("certified", 80, v1::Algorithm::EcP256);
    let bare = v1::TokenObject { certificate: certificate.clone(), ..plain.clone() };
    DAEMON.add(bare);
    let found = fixture.find_one(CKO_CERTIFICATE, "certified");
    assert_eq!(fixture.value(found, CKA_VALUE), certificate);
    assert_eq!(fixture.value(found, CKA_ISSUER), element(0x30, b"issuer"));
    assert_eq!(fixture.value(found, CKA_SUBJECT), element(0x30, b"subject"));
    assert_eq!(fixture.value(found, CKA_SERIAL_NUMBER), element(0x02, &[9]));
    assert_eq!(fixture.value(found, CKA_ID), [80]);
    assert_eq!(fixture.value(found, CKA_PRIVATE), [CK_FALSE]);
    assert_eq!(c!(C_DestroyObject(fixture.session, found)), CKR_ACTION_PROHIBITED);
    let code = c!(C_SignInit(fixture.session, &mut mechanism(CKM_ECDSA), found));
    assert_eq!(code, CKR_KEY_FUNCTION_NOT_PERMITTED);
    DAEMON.add(v1::TokenObject { certificate: vec![0x30, 0x80], ..plain.clone() });
    let damaged = c!(C_FindObjectsInit(fixture.session, null_mut(), 0));
    assert_eq!(damaged, CKR_DEVICE_ERROR);
    DAEMON.state().objects.remove(&plain.version);
}

/// The child of a fork must initialise anew and get its own stream; the parent's goes on.
#[test]
fn a_child_process_initialises_anew() {
    let fixture = Fixture::logged_in();
    fixture.sign_init(CKM_ECDSA);
    let streams = DAEMON.state().streams;
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Only this thread is here, so nothing but the module may be used; the exit code tells.
        let code = child_of_a_fork();
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child failed at that step");
    assert!(libc::WIFEXITED(status));
    assert_eq!(DAEMON.state().streams, streams + 1);
    assert_eq!(sign(fixture.session, &[1; 32], 64).0, CKR_OK);
    assert_eq!(DAEMON.state().streams, streams + 1);
}

fn child_of_a_fork() -> i32 {
    let mut count = 0;
    if c!(C_GetSlotList(CK_TRUE, null_mut(), &raw mut count)) != CKR_CRYPTOKI_NOT_INITIALIZED {
        return 1;
    }
    if c!(C_Initialize(null_mut())) != CKR_OK {
        return 2;
    }
    if c!(C_GetSlotList(CK_TRUE, null_mut(), &raw mut count)) != CKR_OK || count != 1 {
        return 3;
    }
    let mut session = 0;
    if c!(C_OpenSession(0, CKF_SERIAL_SESSION, null_mut(), None, &raw mut session)) != CKR_OK {
        return 4;
    }
    if log_in(session, PIN) != CKR_OK {
        return 5;
    }
    if c!(C_Finalize(null_mut())) == CKR_OK { 0 } else { 6 }
}
