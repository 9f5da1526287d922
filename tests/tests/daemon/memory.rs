//! Where the bytes of keys are found after they were used: in the daemon's memory, in a core file, and in
//! every file of the store.
//!
//! The test knows 1,000 keys, since it made them and handed them in. What it looks for is each half of
//! each key, as it is, in the two other orders in which libraries keep numbers, and as HMAC pads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aes_kw::{AesKwp, KeyInit as _};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _, single_shot_seal_with_rng};
use kms_agent::release::receive;
use kms_client::Client;
use kms_client::v1::{self, Algorithm, Mechanism};
use kms_tests::proposal::{approve, execute_fully, propose_export};
use kms_tests::request::{create, import_job, key, quorum, requirement, sign, step, trust};
use kms_tests::{Daemon, daemon, refused};
use p256::pkcs8::EncodePrivateKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sha2::{Digest as _, Sha256};

const PLANTED: usize = 1000;
const MEASUREMENT: [u8; 48] = [0x4d; 48];
/// Stands in the name of a key, so it is in ordinary memory: who does not find it finds nothing.
const CONTROL: &[u8; 16] = b"memory-control-9";

/// A key that the test knows.
struct Planted {
    secret: [u8; 32],
    algorithm: Algorithm,
    /// What is handed in.
    material: Vec<u8>,
    name: String,
    /// The name of its version.
    version: String,
}

impl Planted {
    fn new(number: usize) -> Self {
        let secret = random("planted", number);
        let (algorithm, material) = match number % 20 {
            0..5 => (Algorithm::Aes256, secret.to_vec()),
            5..10 => (Algorithm::GenericSecret, secret.to_vec()),
            10..14 => (Algorithm::OpaqueSecret, secret.to_vec()),
            14..19 => {
                let pair = p256::SecretKey::from_slice(&secret).unwrap();
                (Algorithm::EcP256, pair.to_pkcs8_der().unwrap().as_bytes().to_vec())
            }
            // RFC 8410 §7: what stands before the 32 bytes.
            _ => {
                let head = hex::decode("302e020100300506032b657004220420").unwrap();
                (Algorithm::Ed25519, [head, secret.to_vec()].concat())
            }
        };
        let name = format!("dev/planted-{number}");
        let version = format!("{name}@1");
        Self { secret, algorithm, material, name, version }
    }

    fn is_private(&self) -> bool {
        matches!(self.algorithm, Algorithm::EcP256 | Algorithm::Ed25519)
    }

    fn request(&self, number: usize) -> v1::CreateKeyRequest {
        let mut request = key(&self.name, self.algorithm);
        let wanted = request.key.as_mut().unwrap();
        match self.algorithm {
            // Some are wrapped by another key, some go to a workload, some to whom a quorum approves.
            Algorithm::Aes256 => wanted.exportable = true,
            Algorithm::OpaqueSecret if is_released(number) => {
                wanted.release_requirement = Some(requirement(&MEASUREMENT));
            }
            Algorithm::OpaqueSecret if is_exported(number) => {
                wanted.exportable = true;
                wanted.quorum = Some(quorum(&["ExportKeyVersion"], 1, &["users/alice"]));
            }
            _ => {}
        }
        request
    }
}

const fn is_released(number: usize) -> bool {
    number % 200 == 10
}

const fn is_exported(number: usize) -> bool {
    number % 400 == 11
}

/// 32 bytes that look like any others, the same in each run.
fn random(label: &str, number: usize) -> [u8; 32] {
    Sha256::new().chain_update(label).chain_update(number.to_be_bytes()).finalize().into()
}

/// The doors that material comes in by.
struct Doors {
    client: Client,
    x_wing: v1::ImportJob,
    rsa: v1::ImportJob,
    /// An AES key that the test knows as well.
    wrapping: String,
    wrapping_key: [u8; 32],
}

impl Doors {
    async fn open(daemon: &Daemon) -> Self {
        let client = daemon.client().await;
        let job = async |method| import_job(&client, "dev", method).await;
        let x_wing = job(v1::ImportMethod::XWingHkdfSha256Aes256Gcm).await;
        let rsa = job(v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp).await;
        let wrapping_key = random("wrapping", 0);
        let mut doors = Self { client, x_wing, rsa, wrapping: String::new(), wrapping_key };
        let mut request = key("dev/memory-wrapping", Algorithm::Aes256);
        let mechanisms = [Mechanism::AesKwp, Mechanism::AesGcm].map(i32::from).to_vec();
        request.key.as_mut().unwrap().mechanisms = mechanisms;
        doors.wrapping = doors.import(request, &wrapping_key, 0).await;
        // What is known outside wraps nothing in a hardened ring.
        let mut request = key("dev/memory-wraps", Algorithm::Aes256);
        request.key.as_mut().unwrap().mechanisms = vec![Mechanism::AesKwp.into()];
        create(&doors.client, request).await;
        trust(daemon, "dev/memory-wraps").await;
        doors
    }

    /// Brings a key in by the door that its number says.
    async fn plant(&self, planted: &Planted, number: usize) {
        let request = planted.request(number);
        // A secret that is no key to the daemon is no key to be unwrapped.
        if number.is_multiple_of(3) || planted.algorithm == Algorithm::OpaqueSecret {
            self.import(request, &planted.material, number).await;
        } else {
            self.unwrap(request, &planted.material, number).await;
        }
    }

    async fn import(&self, mut request: v1::CreateKeyRequest, key: &[u8], number: usize) -> String {
        request.pending_import = true;
        let name = create(&self.client, request).await.name;
        let (import_job, ciphertext) = if number.is_multiple_of(15) {
            (self.rsa.name.clone(), seal_to_rsa(&self.rsa, key, number))
        } else {
            (self.x_wing.name.clone(), seal_to_x_wing(&self.x_wing, key, number))
        };
        let sealed = v1::SealedMaterial { import_job, ciphertext };
        let request = v1::ImportKeyVersionRequest {
            name: name.clone(),
            material: Some(v1::import_key_version_request::Material::Sealed(sealed)),
            ..Default::default()
        };
        self.client.call(self.client.keys().import_key_version(request)).await.unwrap();
        step(&self.client, "Activate", &name).await.unwrap();
        name
    }

    async fn unwrap(&self, request: v1::CreateKeyRequest, key: &[u8], number: usize) -> String {
        let mut wrap = v1::UnwrapKeyRequest {
            name: self.wrapping.clone(),
            mechanism: Mechanism::AesKwp.into(),
            wrapped_key: wrap(&self.wrapping_key, key),
            key: request.key,
            ..Default::default()
        };
        if number.is_multiple_of(2) {
            wrap.mechanism = Mechanism::AesGcm.into();
            wrap.initialization_vector = random("iv", number)[..12].to_vec();
            wrap.wrapped_key = seal(&self.wrapping_key, &wrap.initialization_vector, key);
        }
        let made = self.client.call(self.client.crypto().unwrap_key(wrap)).await;
        made.unwrap().version.unwrap().name
    }

    /// Uses a key as it can be used. Twice, so that one use finds it opened.
    async fn put_to_use(&self, daemon: &Daemon, planted: &Planted, number: usize) {
        for _ in 0..2 {
            self.use_once(daemon, planted, number).await;
        }
    }

    async fn use_once(&self, daemon: &Daemon, planted: &Planted, number: usize) {
        let (client, name) = (&self.client, planted.version.clone());
        match planted.algorithm {
            Algorithm::Aes256 if number.is_multiple_of(4) => {
                let request = v1::WrapKeyRequest {
                    name: "dev/memory-wraps".to_owned(),
                    target: name,
                    mechanism: Mechanism::AesKwp.into(),
                    ..Default::default()
                };
                client.call(client.crypto().wrap_key(request)).await.unwrap();
            }
            Algorithm::Aes256 => {
                let plaintext = b"plain".to_vec();
                let request = v1::EncryptRequest { name, plaintext, ..Default::default() };
                let made = client.call(client.crypto().encrypt(request)).await.unwrap();
                let request = v1::DecryptRequest {
                    name: made.name,
                    initialization_vector: made.initialization_vector,
                    ciphertext: made.ciphertext,
                    ..Default::default()
                };
                client.call(client.crypto().decrypt(request)).await.unwrap();
            }
            Algorithm::GenericSecret => {
                let request = v1::MacSignRequest { name, data: vec![1; 99], ..Default::default() };
                client.call(client.crypto().mac_sign(request)).await.unwrap();
            }
            Algorithm::OpaqueSecret if is_exported(number) => {
                let proposal = propose_export(client, &name, self.rsa.public_key.clone()).await;
                approve(daemon, client, &proposal, "alice").await.unwrap();
                execute_fully(client, &proposal).await.unwrap();
            }
            Algorithm::OpaqueSecret => {}
            _ => {
                sign(client, &name, b"message").await.unwrap();
            }
        }
    }

    async fn destroy(&self, planted: &Planted) {
        step(&self.client, "Deactivate", &planted.version).await.unwrap();
        step(&self.client, "Destroy", &planted.version).await.unwrap();
    }
}

/// CKM_RSA_AES_KEY_WRAP.
fn seal_to_rsa(job: &v1::ImportJob, key: &[u8], number: usize) -> Vec<u8> {
    let public = rsa::RsaPublicKey::from_public_key_der(&job.public_key).unwrap();
    let transport = random("transport", number);
    let oaep = rsa::Oaep::<Sha256>::new();
    let wrapped = public.encrypt(&mut Stream::new(number), oaep, &transport).unwrap();
    [wrapped, wrap(&transport, key)].concat()
}

fn seal_to_x_wing(job: &v1::ImportJob, key: &[u8], number: usize) -> Vec<u8> {
    let public = <XWing as Kem>::PublicKey::from_bytes(&job.public_key).unwrap();
    let prefixed = |part: &[u8]| [&(part.len() as u32).to_be_bytes(), part].concat();
    let info = [prefixed(b"kms-import"), prefixed(job.name.as_bytes())].concat();
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        &public,
        &info,
        key,
        b"",
        &mut Stream::new(number),
    )
    .unwrap();
    [&encapsulated.to_bytes()[..], &ciphertext].concat()
}

fn wrap(wrapping_key: &[u8; 32], key: &[u8]) -> Vec<u8> {
    let mut wrapped = vec![0; key.len().next_multiple_of(8) + 8];
    let wrapping = AesKwp::<aes::Aes256>::new_from_slice(wrapping_key).unwrap();
    wrapping.wrap_key(key, &mut wrapped).unwrap();
    wrapped
}

/// AES-256-GCM, the tag behind the ciphertext.
fn seal(wrapping_key: &[u8; 32], iv: &[u8], key: &[u8]) -> Vec<u8> {
    use aes_gcm::aead::Aead as _;
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(wrapping_key).unwrap();
    let iv: [u8; 12] = iv.try_into().unwrap();
    cipher.encrypt(&iv.into(), key).unwrap()
}

/// Numbers that look random, for the sealing side.
struct Stream {
    seed: usize,
    drawn: usize,
}

impl Stream {
    const fn new(seed: usize) -> Self {
        Self { seed, drawn: 0 }
    }
}

impl TryRng for Stream {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        rand_bytes(self).map(u32::from_be_bytes)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        rand_bytes(self).map(u64::from_be_bytes)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for part in bytes.chunks_mut(32) {
            self.drawn += 1;
            let drawn = random(&format!("stream {}", self.seed), self.drawn);
            part.copy_from_slice(&drawn[..part.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

fn rand_bytes<const N: usize>(stream: &mut Stream) -> Result<[u8; N], core::convert::Infallible> {
    let mut bytes = [0; N];
    stream.try_fill_bytes(&mut bytes).map(|()| bytes)
}

/// Many byte strings of 16 bytes, looked for at once.
struct Needles {
    /// Which first three bytes there are: one bit each, so that nearly every place is passed by at once.
    begins: Vec<u64>,
    owners: BTreeMap<[u8; NEEDLE_BYTES], usize>,
}

const NEEDLE_BYTES: usize = 16;

impl Needles {
    fn new<'a>(secrets: impl IntoIterator<Item = (usize, &'a [u8])>) -> Self {
        let mut needles = Self { begins: vec![0; 1 << 18], owners: BTreeMap::new() };
        for (owner, secret) in secrets {
            let reversed = secret.iter().rev().copied().collect();
            let swapped = secret.chunks_exact(4).flat_map(|word| word.iter().rev().copied());
            // The two pads of HMAC.
            let padded = |with: u8| secret.iter().map(|byte| byte ^ with).collect::<Vec<_>>();
            let forms = [secret.to_vec(), reversed, swapped.collect(), padded(0x36), padded(0x5c)];
            for form in forms {
                for half in form.chunks_exact(NEEDLE_BYTES) {
                    needles.begins[begin(half) / 64] |= 1 << (begin(half) % 64);
                    needles.owners.insert(half.try_into().unwrap(), owner);
                }
            }
        }
        needles
    }

    /// Whose are found.
    fn search(&self, bytes: &[u8], found: &mut BTreeSet<usize>) {
        // Most of what a process has mapped was never touched.
        if bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        for part in bytes.windows(NEEDLE_BYTES) {
            let begin = begin(part);
            if self.begins[begin / 64] >> (begin % 64) & 1 == 1 {
                found.extend(self.owners.get(part));
            }
        }
    }
}

const fn begin(part: &[u8]) -> usize {
    part[0] as usize | (part[1] as usize) << 8 | (part[2] as usize) << 16
}

/// What a look into the daemon found: whose keys, in the arena and elsewhere.
#[derive(Debug, Default)]
struct Seen {
    arena: BTreeSet<usize>,
    elsewhere: BTreeSet<usize>,
    bytes: usize,
}

/// Reads all memory of a process that can be read. `None` where this may not be done.
fn look_into(pid: u32, needles: &Needles) -> Option<Seen> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut seen = Seen::default();
    let mut page = vec![0; LOOK_BYTES + NEEDLE_BYTES];
    for Region { begin, end, is_arena } in regions(pid)? {
        let found = if is_arena { &mut seen.arena } else { &mut seen.elsewhere };
        let mut at = begin;
        while at < end {
            // A little of what comes next, for what lies across.
            let wanted = (end - at).min(page.len() as u64) as usize;
            // Pages that are secret even to the kernel cannot be read.
            let read = memory.read_at(&mut page[..wanted], at).unwrap_or(0);
            needles.search(&page[..read], found);
            seen.bytes += read;
            at += LOOK_BYTES as u64;
        }
    }
    Some(seen)
}

/// So many bytes are read at once.
const LOOK_BYTES: usize = 64 * 1024;

struct Region {
    begin: u64,
    end: u64,
    /// Not in core files and not in children: nothing else in the daemon is mapped so.
    is_arena: bool,
}

fn regions(pid: u32) -> Option<Vec<Region>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let mut regions: Vec<Region> = Vec::new();
    let mut readable = false;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag| flags.split_ascii_whitespace().any(|one| one == flag);
            if let Some(last) = regions.last_mut().filter(|_| readable) {
                last.is_arena = has("dd") && has("dc");
            }
        } else if let Some((range, rest)) = line.split_once(' ')
            && let Some((begin, end)) = range.split_once('-')
            && let (Ok(begin), Ok(end)) =
                (u64::from_str_radix(begin, 16), u64::from_str_radix(end, 16))
        {
            readable = rest.starts_with('r') && !rest.ends_with("[vsyscall]");
            if readable {
                regions.push(Region { begin, end, is_arena: false });
            }
        }
    }
    Some(regions)
}

/// Whose keys stand in a file.
fn look_into_file(path: &Path, needles: &Needles) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut file = File::open(path).unwrap();
    let (mut bytes, mut begin) = (Vec::new(), 0);
    loop {
        bytes.clear();
        file.seek(SeekFrom::Start(begin)).unwrap();
        // A little of what comes next, for what lies across.
        let limit = LOOK_BYTES + NEEDLE_BYTES;
        if (&file).take(limit as u64).read_to_end(&mut bytes).unwrap() == 0 {
            return found;
        }
        needles.search(&bytes, &mut found);
        begin += LOOK_BYTES as u64;
    }
}

/// Does something with each of many keys, some at once.
async fn each<F: Future<Output = ()> + Send + 'static>(
    numbers: impl Iterator<Item = usize>,
    deed: impl Fn(usize) -> F,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in numbers {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(deed(number));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

const AT_ONCE: usize = 24;

/// The daemon, its keys and its store, through a whole life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_keys_none_is_found_in_memory_core_file_or_store() {
    let daemon = Arc::new(Daemon::start());
    let pid = daemon.id();
    let doors = Arc::new(Doors::open(&daemon).await);
    let control = format!("dev/{}", String::from_utf8_lossy(CONTROL));
    create(&doors.client, key(&control, Algorithm::Aes256)).await;
    let planted: Arc<Vec<_>> = Arc::new((0..PLANTED).map(Planted::new).collect());
    let secrets = planted.iter().enumerate().map(|(at, one)| (at, &one.secret[..]));
    let others = [(WRAPPING_AT, &doors.wrapping_key[..]), (CONTROL_AT, CONTROL)];
    let needles = Needles::new(secrets.chain(others));
    each(0..PLANTED, |at| {
        let (daemon, doors, planted) = (daemon.clone(), doors.clone(), planted.clone());
        async move {
            doors.plant(&planted[at], at).await;
            doors.put_to_use(&daemon, &planted[at], at).await;
        }
    })
    .await;
    for at in (0..PLANTED).filter(|at| is_released(*at)) {
        let (stranger, guest) = (daemon.stranger_client().await, daemon.guest(MEASUREMENT, false));
        let released = receive(&stranger, &planted[at].version, &guest, None).await.unwrap();
        assert_eq!(*released.bytes, planted[at].secret);
    }

    // While they are open, private keys are in the library's memory as well; nothing else is.
    let Some(seen) = look_into(pid, &needles) else {
        println!("skipped: the memory of another process cannot be read (as root it can)");
        return;
    };
    let is_private = |at: &usize| planted.get(*at).is_some_and(Planted::is_private);
    assert!(seen.elsewhere.contains(&CONTROL_AT), "it finds nothing, not even what is there");
    let (private, found): (Vec<usize>, Vec<usize>) =
        seen.elsewhere.iter().copied().partition(is_private);
    assert!(!private.is_empty(), "it does not know the form in which the library keeps keys");
    assert_eq!(found, [CONTROL_AT], "secrets outside the locked memory");
    if !seen.arena.is_empty() {
        println!("the locked memory of this kernel can be read by root");
    }

    let store = daemon.state().join("store");
    let before = tempfile::tempdir().unwrap();
    copy(&store, before.path());
    let slots_before = slots(&store);
    each((0..PLANTED).filter(|at| is_destroyed(*at)), |at| {
        let (doors, planted) = (doors.clone(), planted.clone());
        async move { doors.destroy(&planted[at]).await }
    })
    .await;
    // Whoever destroys a key has all keys forgotten that were open: they open again when they are used.
    let seen = look_into(pid, &needles).unwrap();
    assert_eq!(seen.elsewhere, BTreeSet::from([CONTROL_AT]), "keys outside the locked memory");
    let destroyed: Vec<_> = seen.arena.iter().filter(|at| is_destroyed(**at)).collect();
    assert!(destroyed.is_empty(), "destroyed keys in the locked memory: {destroyed:?}");
    let core = daemon::temporary();
    if let Some(core) = core_of(pid, core.path()) {
        let found = look_into_file(&core, &needles);
        assert_eq!(found, BTreeSet::from([CONTROL_AT]), "keys in a core file");
    } else {
        println!("skipped: the core file (Debian: gdb)");
    }

    let officer = daemon.officer_client().await;
    officer.call(officer.seal().seal(v1::SealRequest {})).await.unwrap();
    let seen = look_into(pid, &needles).unwrap();
    assert!(seen.elsewhere.contains(&CONTROL_AT));
    let kept: Vec<_> = seen.arena.union(&seen.elsewhere).filter(|at| **at != CONTROL_AT).collect();
    assert!(kept.is_empty(), "a sealed daemon keeps keys: {kept:?}");

    let Ok(doors) = Arc::try_unwrap(doors) else { panic!("something is still under way") };
    drop((doors, officer));
    let mut daemon = Arc::into_inner(daemon).unwrap();
    // This takes a snapshot and reduces the journal.
    daemon.terminate();
    assert_nothing_in_files(&daemon, &needles, &slots_before);
    bring_back(&mut daemon, before.path(), &planted).await;
}

const WRAPPING_AT: usize = PLANTED;
const CONTROL_AT: usize = PLANTED + 1;

/// How many slots the daemon makes when it has no spare one.
const SLOTS_AT_ONCE: usize = 16;

const fn is_destroyed(at: usize) -> bool {
    at < PLANTED && at.is_multiple_of(2)
}

/// Neither a key nor what opened a destroyed one is in any file.
fn assert_nothing_in_files(daemon: &Daemon, needles: &Needles, slots_before: &[[u8; 32]]) {
    let store = daemon.state().join("store");
    let living: BTreeSet<_> = slots(&store).into_iter().collect();
    let gone = slots_before.iter().filter(|secret| !living.contains(*secret));
    let gone: Vec<_> = gone.enumerate().map(|(at, secret)| (at, &secret[..])).collect();
    let count = (0..PLANTED).filter(|at| is_destroyed(*at)).count();
    // At the end the daemon erases the spare ones, too.
    let erased = count..count + SLOTS_AT_ONCE;
    assert!(erased.contains(&gone.len()), "{} slots are erased of {count} keys", gone.len());
    let one_that_lives = living.iter().next().map(|secret| (count, &secret[..]));
    let erased = Needles::new(gone.into_iter().chain(one_that_lives));
    let (mut keys, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for file in files(&daemon.state()) {
        keys.extend(look_into_file(&file, needles));
        secrets.extend(look_into_file(&file, &erased));
    }
    assert_eq!(keys, BTreeSet::from([CONTROL_AT]), "keys in the state folder");
    assert_eq!(secrets, BTreeSet::from([count]), "what opened destroyed keys is on disk");
}

/// An older copy of the store, with its rows of keys that were destroyed since, does not bring them back:
/// their slots are erased.
async fn bring_back(daemon: &mut Daemon, before: &Path, planted: &[Planted]) {
    let store = daemon.state().join("store");
    let slots = fs::read(store.join("slots")).unwrap();
    fs::remove_dir_all(&store).unwrap();
    copy(before, &store);
    fs::write(store.join("slots"), slots).unwrap();
    daemon.restart();
    let client = daemon.client().await;
    let is_signing = |at: &usize| planted[*at].algorithm == Algorithm::EcP256;
    let (gone, living): (Vec<_>, Vec<_>) =
        (0..PLANTED).filter(is_signing).take(20).partition(|at| is_destroyed(*at));
    for at in living {
        sign(&client, &planted[at].version, b"message").await.unwrap();
    }
    for at in gone {
        refused(sign(&client, &planted[at].version, b"message").await);
    }
}

/// The secrets of all slots that hold one. The table's form is that of `kms-store`.
fn slots(store: &Path) -> Vec<[u8; 32]> {
    let table = fs::read(store.join("slots")).unwrap();
    let live = table[4096..].chunks_exact(64).filter(|slot| slot.starts_with(b"LIVE"));
    live.map(|slot| slot[20..52].try_into().unwrap()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// Copies what a running store has written, without its index, which is made from the rest.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let is_index = name.to_string_lossy().starts_with("index");
        if entry.path().is_dir() && !is_index {
            copy(&entry.path(), &to.join(name));
        } else if entry.path().is_file() && !is_index {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// A core file of a running process; `None` where there is no debugger to make one.
fn core_of(pid: u32, folder: &Path) -> Option<PathBuf> {
    let (core, pid) = (folder.join("core"), pid.to_string());
    let made = Command::new("gcore").arg("-o").arg(&core).arg(&pid).output().ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(core.with_extension(pid))
}

/// The kernel is told to leave no image of a daemon that fails, however it is set up.
#[test]
fn a_daemon_that_aborts_leaves_no_core_file() {
    // As much as this process may give to its children.
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
    let mut daemon = Daemon::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let [.., soft, hard, _] = core.split_ascii_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{core}");
    };
    assert_eq!((soft, hard), ("0", "0"));
    let ended = daemon.abort();
    assert_eq!(ended.status.signal(), Some(6));
    assert!(!ended.status.core_dumped());
}

/// What is not used any more is closed by itself (ADR 7).
#[tokio::test]
#[ignore = "takes over two minutes; tests/run memory"]
async fn two_minutes_after_its_last_use_a_key_is_in_memory_no_more() {
    let daemon = Daemon::start();
    let doors = Doors::open(&daemon).await;
    let planted: Vec<_> = (0..100).map(Planted::new).filter(Planted::is_private).collect();
    for (at, one) in planted.iter().enumerate() {
        doors.import(one.request(at), &one.material, at).await;
        doors.put_to_use(&daemon, one, at).await;
    }
    let needles = Needles::new(planted.iter().enumerate().map(|(at, one)| (at, &one.secret[..])));
    let Some(seen) = look_into(daemon.id(), &needles) else {
        println!("skipped: the memory of another process cannot be read (as root it can)");
        return;
    };
    assert_eq!(seen.elsewhere.len(), planted.len(), "it does not find keys that are open");
    tokio::time::sleep(std::time::Duration::from_secs(125)).await;
    let seen = look_into(daemon.id(), &needles).unwrap();
    assert!(seen.elsewhere.is_empty(), "still open: {:?}", seen.elsewhere);
}

/// What is refused takes no slot, and what lost a race gives its slot back.
#[tokio::test]
async fn keys_that_did_not_come_about_leave_no_slot_behind() {
    let mut daemon = Daemon::start();
    let store = daemon.state().join("store");
    let mut doors = Doors::open(&daemon).await;
    let mut request = key("dev/slot-import", Algorithm::Aes256);
    request.pending_import = true;
    let name = create(&doors.client, request).await.name;
    // Spare slots are made many at a time, and erased at the end: what is left is taken.
    daemon.terminate();
    let before = slots(&store).len();
    daemon.restart();
    doors.client = daemon.client().await;
    // A key of another length, and something that is not sealed to the job.
    for ciphertext in [seal_to_x_wing(&doors.x_wing, &[7; 31], 1), vec![7; 1200]] {
        let import_job = doors.x_wing.name.clone();
        let sealed = v1::SealedMaterial { import_job, ciphertext };
        let request = v1::ImportKeyVersionRequest {
            name: name.clone(),
            material: Some(v1::import_key_version_request::Material::Sealed(sealed)),
            ..Default::default()
        };
        refused(doors.client.call(doors.client.keys().import_key_version(request)).await);
    }
    let unwrap = |wrapped_key: Vec<u8>| v1::UnwrapKeyRequest {
        name: doors.wrapping.clone(),
        mechanism: Mechanism::AesKwp.into(),
        wrapped_key,
        key: key("dev/slot-unwrapped", Algorithm::Aes256).key,
        ..Default::default()
    };
    let request = unwrap(wrap(&doors.wrapping_key, &[7; 31]));
    refused(doors.client.call(doors.client.crypto().unwrap_key(request)).await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (client, request) = (doors.client.clone(), unwrap(wrap(&doors.wrapping_key, &[7; 32])));
        tasks.spawn(async move { client.call(client.crypto().unwrap_key(request)).await });
    }
    let made = tasks.join_all().await.into_iter().filter(Result::is_ok).count();
    drop(doors);
    daemon.terminate();
    assert_eq!((made, slots(&store).len()), (1, before + 1));
}
