//! PKCS#11 logins: right and wrong PINs, counted per peer and over restarts, and alike from outside.

use std::time::{Duration, Instant};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, Config};
use kms_tests::{Daemon, Refusal, is_long, log, refused, refused_for};

const WRONG: &str = "PIN_INCORRECT";
/// What the log says where the answer is [`WRONG`], right PIN or not.
const LOCKED: &str = "PIN_LOCKED";

fn log_in(session: &mut Session, pin: &str) -> Result<Answered, ClientError> {
    log_in_to(session, "dev", pin)
}

fn log_in_to(session: &mut Session, ring: &str, pin: &str) -> Result<Answered, ClientError> {
    let role = v1::PinRole::User.into();
    let request = v1::LoginTokenRequest { ring: ring.to_owned(), role, pin: pin.to_owned() };
    session.call(Asked::LoginToken(request))
}

fn session(config: &Config) -> Session {
    Session::connect(config).unwrap()
}

/// What the log has for a refusal.
fn logged(daemon: &Daemon, refusal: &Refusal) -> String {
    let index = refusal.audit_index.unwrap();
    let leaf = async { log::leaf(&daemon.client().await, index).await };
    let leaf = runtime().block_on(leaf);
    assert_eq!(leaf.action, "LoginToken");
    leaf.reason
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Tries a PIN that does not open, and gives what the log says of it.
fn fail(daemon: &Daemon, session: &mut Session, pin: &str) -> String {
    logged(daemon, &refused_for(log_in(session, pin), WRONG))
}

fn pin_locks(daemon: &Daemon, by: impl AsyncFnOnce(&Daemon) -> Client) -> Vec<v1::PinLock> {
    let listed = async {
        let client = by(daemon).await;
        let answer = client.call(client.token().list_tokens(v1::ListTokensRequest {})).await;
        answer.unwrap().tokens
    };
    let tokens = runtime().block_on(listed);
    tokens.into_iter().find(|token| token.label == "dev").unwrap().pin_locks
}

#[test]
fn wrong_pins_are_counted_per_peer_and_over_restarts() {
    let mut daemon = Daemon::start_with_clock();
    let pin = daemon.text("user.pin");
    let mut local = session(&daemon.unix());
    for wrong in ["", "12345678", &format!("{pin}0")] {
        assert_eq!(fail(&daemon, &mut local, wrong), WRONG);
    }
    for waited in [1, 2, 4] {
        daemon.advance(Duration::from_secs(waited));
        assert_eq!(fail(&daemon, &mut local, "12345678"), WRONG, "after {waited}");
    }
    // Now even the right one waits, for this peer, 8 seconds; another's programs do not.
    assert_eq!(fail(&daemon, &mut local, &pin), LOCKED);
    let mut remote = session(&daemon.tls("client"));
    log_in(&mut remote, &pin).unwrap();

    daemon.kill9();
    daemon.restart();
    let mut local = session(&daemon.unix());
    // A counter that was forgotten would give three tries without waiting.
    daemon.advance(Duration::from_secs(8));
    assert_eq!(fail(&daemon, &mut local, "12345678"), WRONG);
    assert_eq!(fail(&daemon, &mut local, "12345678"), LOCKED);
    // Who has to wait does not wait longer for having asked. The right one forgives.
    daemon.advance(Duration::from_secs(16));
    log_in(&mut local, &pin).unwrap();
    for _ in 0..2 {
        assert_eq!(fail(&daemon, &mut local, "12345678"), WRONG);
    }
    log_in(&mut local, &pin).unwrap();
}

#[test]
fn ten_wrong_pins_lock_a_peer_out_also_after_a_restart_until_there_is_another_pin() {
    let mut daemon = Daemon::start_with_clock();
    let pin = daemon.text("user.pin");
    let mut local = session(&daemon.unix());
    for n in 1..=10 {
        daemon.advance(Duration::from_secs(300));
        assert_eq!(fail(&daemon, &mut local, "12345678"), WRONG, "{n}");
    }
    for kill in [false, true] {
        if kill {
            daemon.kill9();
            daemon.restart();
        }
        let mut local = session(&daemon.unix());
        daemon.advance(Duration::from_secs(2 * 24 * 60 * 60));
        for any in [&pin, "12345678", ""] {
            assert_eq!(fail(&daemon, &mut local, any), LOCKED);
        }
        // The officer sees who is locked out, the auditor too, and nobody else.
        let locked = v1::PinLock {
            role: v1::PinRole::User.into(),
            peer: "users/developer".to_owned(),
            retry_time: None,
        };
        let seen = pin_locks(&daemon, async |daemon| daemon.officer_client().await);
        assert_eq!(seen, std::slice::from_ref(&locked));
        assert_eq!(pin_locks(&daemon, async |daemon| daemon.client().await), [locked]);
        assert_eq!(pin_locks(&daemon, async |daemon| daemon.tls_client().await), []);
    }
    let mut local = session(&daemon.unix());
    let set = async {
        let (role, pin) = (v1::PinRole::User.into(), "another PIN".to_owned());
        let request = v1::SetTokenPinRequest { ring: "dev".to_owned(), role, pin };
        let officer = daemon.officer_client().await;
        officer.call(officer.token().set_token_pin(request)).await.unwrap();
    };
    runtime().block_on(set);
    assert_eq!(pin_locks(&daemon, async |daemon| daemon.officer_client().await), []);
    log_in(&mut local, "another PIN").unwrap();
}

/// Why a PIN does not open, by the ring that it is tried for, always by the same peer.
const RINGS: [&str; 4] = ["pin-wrong", "pin-locked", "pin-unset", "pin-none"];

/// The goal: who tries PINs hears neither from the words nor from the time whether the PIN was wrong, the
/// peer is locked out, there is no PIN, or there is no ring. PINs are made cheap here, so that their hash
/// does not hide what else is done.
#[test]
fn what_does_not_open_looks_alike_and_takes_as_long() {
    let daemon = &Daemon::start_with_clock_and(&["--pin-memory-kib", "8"]);
    let prepare = async {
        let officer = daemon.officer_client().await;
        for name in &RINGS[..3] {
            let ring = v1::CreateKeyRingRequest { name: name.to_string(), ..Default::default() };
            officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
        }
        for ring in &RINGS[..2] {
            let (ring, role, pin) = (ring.to_string(), v1::PinRole::User.into(), RIGHT.to_owned());
            let request = v1::SetTokenPinRequest { ring, role, pin };
            officer.call(officer.token().set_token_pin(request)).await.unwrap();
        }
    };
    runtime().block_on(prepare);
    let mut local = session(&daemon.unix());
    for _ in 0..10 {
        refused_for(log_in_to(&mut local, "pin-locked", "12345678"), WRONG);
        daemon.advance(Duration::from_secs(300));
    }
    let reasons = RINGS.map(|ring| {
        let refusal = refused(log_in_to(&mut local, ring, "12345678"));
        let reason = logged(daemon, &refusal);
        (reason, Refusal { audit_index: None, ..refusal })
    });
    assert_eq!(
        reasons.each_ref().map(|(reason, _)| reason.as_str()),
        [WRONG, LOCKED, WRONG, WRONG]
    );
    for (_, told) in &reasons {
        assert_eq!(told, &reasons[0].1);
    }
    // The right PIN of who is locked out, too.
    let right = refused(log_in_to(&mut local, "pin-locked", RIGHT));
    assert_eq!(Refusal { audit_index: None, ..right }, reasons[0].1);

    let rounds = if is_long() { 2_000 } else { 200 };
    // A busy machine differs now and then; what is real does each time.
    let differences: Vec<_> =
        (0..3).map_while(|seed| difference(&times(&mut local, rounds, seed))).collect();
    assert!(differences.len() < 3, "{differences:?}");
}

/// How long tries take, sorted, by the ring.
fn times(local: &mut Session, rounds: usize, seed: u64) -> [Vec<f64>; 4] {
    let mut times = RINGS.map(|_| Vec::with_capacity(rounds));
    let mut random = seed + 1;
    for _ in 0..rounds {
        // In an order by chance, so that what comes before is nobody's.
        let mut order = [0, 1, 2, 3];
        for at in (1..order.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
        }
        for ring in order {
            let begun = Instant::now();
            let answer = log_in_to(local, RINGS[ring], "12345678");
            let took = begun.elapsed();
            refused_for(answer, WRONG);
            times[ring].push(took.as_secs_f64());
        }
        // Forgives, so that the wrong ones stay no more than wrong.
        log_in_to(local, "pin-wrong", RIGHT).unwrap();
        local.call(Asked::LogoutToken(v1::LogoutTokenRequest {})).unwrap();
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    times
}

/// The first two rings whose times differ by more than chance.
fn difference(times: &[Vec<f64>; 4]) -> Option<String> {
    let mut found = None;
    for (ring, times) in RINGS.iter().zip(times) {
        println!("{ring}: median {:.0} microseconds", times[times.len() / 2] * 1e6);
    }
    for one in 0..RINGS.len() {
        for other in 0..one {
            let (t, d) = (welch(&times[one], &times[other]), distance(&times[one], &times[other]));
            let pair = format!("{} and {}: t = {t:.2}, d = {d:.2}", RINGS[one], RINGS[other]);
            println!("{pair}");
            if t.abs() >= 4.5 || d >= 2.5 {
                found = found.or(Some(pair));
            }
        }
    }
    found
}

const RIGHT: &str = "the right PIN";

/// Welch's t of two sorted samples: beyond 4.5 in one of 100,000 cases where there is no difference. The
/// slowest twentieth, in which the disk or the machine was busy with something else, counts as the next slower
/// ones do, in both alike.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let slow = |sorted: &[f64]| sorted[sorted.len() - sorted.len() / 20 - 1];
    let slowest = slow(one).max(slow(other));
    let moments = |sorted: &[f64]| {
        let count = sorted.len() as f64;
        let mean = sorted.iter().map(|x| x.min(slowest)).sum::<f64>() / count;
        let squares = sorted.iter().map(|x| (x.min(slowest) - mean).powi(2)).sum::<f64>();
        (mean, squares / (count - 1.0) / count)
    };
    let ((mean, error), (other_mean, other_error)) = (moments(one), moments(other));
    (mean - other_mean) / (error + other_error).sqrt()
}

/// The scaled distance of Kolmogorov and Smirnov of two sorted samples: beyond 2.5 in one of 100,000 cases
/// where there is no difference, whatever the form of the two.
fn distance(one: &[f64], other: &[f64]) -> f64 {
    let share = |sample: &[f64], up_to: f64| {
        sample.partition_point(|x| *x <= up_to) as f64 / sample.len() as f64
    };
    let apart = |x: &f64| (share(one, *x) - share(other, *x)).abs();
    let widest = one.iter().chain(other).map(apart).fold(0.0, f64::max);
    let (n, m) = (one.len() as f64, other.len() as f64);
    widest * (n * m / (n + m)).sqrt()
}

/// Tries for two rings at once get in each other's way no more and no less if the rings are not there.
#[test]
fn tries_at_once_tell_nothing_of_rings() {
    let daemon = Daemon::start_with(&["--pin-memory-kib", "8"]);
    let tries: Vec<_> = (0..8)
        .map(|n| {
            let config = daemon.unix();
            std::thread::spawn(move || {
                let mut session = session(&config);
                let ring = format!("pin-none-{n}");
                (0..20).for_each(|_| {
                    refused_for(log_in_to(&mut session, &ring, "12345678"), WRONG);
                });
            })
        })
        .collect();
    tries.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_login_holds_for_its_stream_and_ends_with_the_logout() {
    let daemon = Daemon::start();
    // The officer uses no keys, so what it can do after the login it can by the PIN alone.
    let mut officer = session(&daemon.tls("officer"));
    let make = || {
        Asked::CreateObjectKey(v1::CreateObjectKeyRequest {
            ring: "dev".to_owned(),
            algorithm: Algorithm::EcP256.into(),
            label: "by pin".to_owned(),
            ..Default::default()
        })
    };
    refused_for(officer.call(make()), "ROLE_MISSING");
    log_in(&mut officer, &daemon.text("user.pin")).unwrap();
    let Answered::CreateObjectKey(made) = officer.call(make()).unwrap() else {
        panic!("another answer");
    };
    let version = made.object.unwrap().version;
    let sign = || {
        let data = Some(v1::sign_request::Data::Message(b"x".to_vec()));
        Asked::Sign(v1::SignRequest { name: version.clone(), data, ..Default::default() })
    };
    officer.call(sign()).unwrap();
    let mut second = session(&daemon.tls("officer"));
    refused_for(second.call(sign()), "ROLE_MISSING");
    officer.call(Asked::LogoutToken(v1::LogoutTokenRequest {})).unwrap();
    refused_for(officer.call(sign()), "ROLE_MISSING");
}

/// Whoever made its own certificate gets no try at all, right PIN or wrong.
#[test]
fn a_workload_logs_in_by_no_pin() {
    let daemon = Daemon::shared();
    let mut stranger = session(&daemon.stranger());
    for pin in ["12345678", &daemon.text("user.pin")] {
        refused_for(log_in(&mut stranger, pin), WRONG);
    }
}
