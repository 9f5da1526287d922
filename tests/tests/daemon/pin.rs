//! PKCS#11 logins: right and wrong PINs, counted per peer and over restarts.

use std::time::{Duration, Instant};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::{self, Algorithm};
use kms_client::{ClientError, Config};
use kms_tests::{Daemon, refused_for};

const WRONG: &str = "PIN_INCORRECT";
const LOCKED: &str = "PIN_LOCKED";

fn log_in(session: &mut Session, pin: &str) -> Result<Answered, ClientError> {
    let role = v1::PinRole::User.into();
    let request = v1::LoginTokenRequest { ring: "dev".to_owned(), role, pin: pin.to_owned() };
    session.call(Asked::LoginToken(request))
}

fn session(config: &Config) -> Session {
    Session::connect(config).unwrap()
}

/// Tries until the back-off is over.
fn when_unlocked(session: &mut Session, pin: &str) -> Result<Answered, ClientError> {
    let begun = Instant::now();
    loop {
        match log_in(session, pin) {
            Err(error) if error.reason() == Some(LOCKED) => {
                assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
                std::thread::sleep(Duration::from_millis(50));
            }
            answer => return answer,
        }
    }
}

#[test]
fn wrong_pins_are_counted_per_peer_and_over_restarts() {
    let mut daemon = Daemon::start();
    let pin = daemon.text("user.pin");
    let mut local = session(&daemon.unix());
    for wrong in ["", "12345678", &format!("{pin}0")] {
        refused_for(log_in(&mut local, wrong), WRONG);
    }
    // Now even the right one waits, for this peer; another's programs do not.
    refused_for(log_in(&mut local, &pin), LOCKED);
    let mut remote = session(&daemon.tls("client"));
    log_in(&mut remote, &pin).unwrap();

    daemon.kill9();
    daemon.restart();
    let mut local = session(&daemon.unix());
    // A counter that was forgotten would give three tries without waiting.
    refused_for(when_unlocked(&mut local, "12345678"), WRONG);
    refused_for(log_in(&mut local, "12345678"), LOCKED);
    // The right one forgives.
    when_unlocked(&mut local, &pin).unwrap();
    for _ in 0..2 {
        refused_for(log_in(&mut local, "12345678"), WRONG);
    }
    log_in(&mut local, &pin).unwrap();
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
