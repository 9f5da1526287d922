//! The life of a version as time goes by: dates, schedules, counts, the way back. What each state allows is in
//! `states.rs`.

use kms_client::Client;
use kms_client::v1::{self, Algorithm};
use kms_core::lifecycle;
use kms_tests::request::{self, create, create_key, get_key, key, sign, step, update};
use kms_tests::{Daemon, log, refused_for};

#[tokio::test]
async fn a_version_that_has_made_its_number_of_protections_is_followed_by_the_next() {
    let client = Daemon::shared().client().await;
    let mut request = key("dev/used-up", Algorithm::GenericSecret);
    request.key.as_mut().unwrap().rotation =
        Some(v1::Rotation { uses_max: 3, ..Default::default() });
    create(&client, request).await;
    for _ in 0..3 {
        assert_eq!(get_key(&client, "dev/used-up").await.unwrap().latest_version, 1);
        let request = v1::MacSignRequest {
            name: "dev/used-up".to_owned(),
            data: b"used".to_vec(),
            ..Default::default()
        };
        client.call(client.crypto().mac_sign(request)).await.unwrap();
    }
    until(async || get_key(&client, "dev/used-up").await.unwrap().primary_version == 2).await;
    let name = get_key(&client, "dev/used-up").await.unwrap().name;
    recorded(&client, "CreateKeyVersion", &name).await;
}

#[tokio::test]
async fn what_a_copy_protects_uses_its_original_up() {
    let client = Daemon::shared().client().await;
    let mut request = key("dev/line-used-up", Algorithm::Aes256);
    let rotation = v1::Rotation { uses_max: 3, ..Default::default() };
    request.key.as_mut().unwrap().rotation = Some(rotation);
    let original = create(&client, request).await.name;
    let copy = Some(v1::Key { name: "dev/line-used-up-copy".to_owned(), ..Default::default() });
    let request = v1::CopyKeyRequest { name: original, key: copy, ..Default::default() };
    client.call(client.crypto().copy_key(request)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(get_key(&client, "dev/line-used-up").await.unwrap().latest_version, 1);
        let (name, plaintext) = ("dev/line-used-up-copy".to_owned(), b"used".to_vec());
        let request = v1::EncryptRequest { name, plaintext, ..Default::default() };
        client.call(client.crypto().encrypt(request)).await.unwrap();
    }
    until(async || get_key(&client, "dev/line-used-up").await.unwrap().primary_version == 2).await;
    let copy = get_key(&client, "dev/line-used-up-copy").await.unwrap();
    assert_eq!(copy.latest_version, 1, "it has no schedule of its own");
}

/// `kmsd/LIFECYCLE.md` says what the code decides.
#[test]
fn the_published_table_is_the_codes() {
    const BEGIN: &str = "<!-- begin of the tables -->\n";
    const END: &str = "<!-- end of the tables -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../kmsd/LIFECYCLE.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (tables, after) = rest.split_once(END).unwrap();
    let printed = lifecycle::table();
    if std::env::var_os("KMS_REWRITE_DOCUMENTS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{printed}{END}{after}")).unwrap();
        return;
    }
    assert!(tables == printed, "run this test with KMS_REWRITE_DOCUMENTS=1:\n{printed}");
}

#[tokio::test]
async fn dates_act_when_they_come_and_the_daemon_puts_the_steps_on_record() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let request = v1::CreateKeyRequest {
        activate_time: later(DAY),
        deactivate_time: later(2 * DAY),
        ..key("dev/dated", Algorithm::EcP256)
    };
    let made = create(&client, request).await;
    assert_eq!(made.state(), v1::State::PreActive);
    refused_for(sign(&client, &made.name, b"x").await, "STATE_REFUSES");
    daemon.advance(DAY);
    sign(&client, &made.name, b"x").await.unwrap();
    assert_eq!(request::version(&client, &made.name).await.state(), v1::State::Active);
    recorded(&client, "ActivateKeyVersion", &made.name).await;
    // What a date has brought about is not taken back.
    refused_for(step(&client, "Undo", &made.name).await, "NOTHING_TO_UNDO");
    daemon.advance(DAY);
    refused_for(sign(&client, &made.name, b"x").await, "STATE_REFUSES");
    recorded(&client, "DeactivateKeyVersion", &made.name).await;
    let shown = request::version(&client, &made.name).await;
    assert_eq!(shown.state_change_time, shown.deactivate_time);
    assert_eq!(
        actions(&client, "dev/dated").await,
        [
            ("DeactivateKeyVersion", "apps/kmsd"),
            ("ActivateKeyVersion", "apps/kmsd"),
            ("CreateKey", "users/developer"),
        ]
        .map(|(action, actor)| (action.to_owned(), actor.to_owned()))
    );

    // Dates that are cleared do not act.
    let other = create_key(&client, "dev/dated-not", Algorithm::EcP256).await;
    let set = async |deactivate_time| {
        let request = v1::SetKeyVersionDatesRequest {
            name: other.name.clone(),
            deactivate_time,
            ..Default::default()
        };
        client.call(client.keys().set_key_version_dates(request)).await.unwrap();
    };
    set(later(3 * DAY)).await;
    set(None).await;
    daemon.advance(3 * DAY);
    sign(&client, &other.name, b"x").await.unwrap();
}

#[tokio::test]
async fn a_scheduled_destruction_can_be_restored_until_its_time_and_then_erases() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/scheduled", Algorithm::Aes256).await.name;
    step(&client, "Deactivate", &version).await.unwrap();
    let scheduled = step(&client, "ScheduleDestroy", &version).await.unwrap();
    assert_eq!(scheduled.state(), v1::State::DestroyScheduled);
    let seconds = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
    let delay = seconds(scheduled.destroy_time) - seconds(scheduled.state_change_time);
    assert_eq!(delay, 7 * 24 * 60 * 60);
    let restored = step(&client, "Restore", &version).await.unwrap();
    assert_eq!((restored.state(), restored.destroy_time), (v1::State::Deactivated, None));
    daemon.advance(8 * DAY);
    assert_eq!(request::version(&client, &version).await.state(), v1::State::Deactivated);

    step(&client, "ScheduleDestroy", &version).await.unwrap();
    let slots = daemon.state().join("store/slots");
    let before = std::fs::read(&slots).unwrap();
    daemon.advance(7 * DAY);
    refused_for(step(&client, "Restore", &version).await, "ILLEGAL_TRANSITION");
    recorded(&client, "DestroyKeyVersion", &version).await;
    let erased = async || {
        for _ in 0..500 {
            if std::fs::read(&slots).unwrap() != before {
                return true;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        false
    };
    assert!(erased().await, "the slot is as it was");
}

#[tokio::test]
async fn the_last_step_is_undone_within_a_day_and_a_compromise_stays_known() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/undone", Algorithm::EcP256).await.name;
    refused_for(step(&client, "Undo", &version).await, "NOTHING_TO_UNDO");
    for (verb, undo) in [("Suspend", "ACTIVE"), ("Deactivate", "ACTIVE"), ("Compromise", "ACTIVE")]
    {
        let after = step(&client, verb, &version).await.unwrap();
        assert_eq!(after.undo_state().as_str_name(), format!("STATE_{undo}"), "{verb}");
        let back = step(&client, "Undo", &version).await.unwrap();
        assert_eq!(back.state(), v1::State::Active, "{verb}");
        refused_for(step(&client, "Undo", &version).await, "NOTHING_TO_UNDO");
    }
    assert!(request::version(&client, &version).await.compromise.is_some());
    step(&client, "Suspend", &version).await.unwrap();
    daemon.advance(DAY);
    let refusal = refused_for(step(&client, "Undo", &version).await, "NOTHING_TO_UNDO");
    log::assert_recorded(&client, &refusal, "UndoKeyVersionStep").await;
}

#[tokio::test]
async fn a_compromise_is_told_with_its_date_and_reason() {
    let client = Daemon::shared().client().await;
    let made = create_key(&client, "dev/compromised-when", Algorithm::EcP256).await;
    let compromise = v1::Compromise {
        occur_time: made.create_time,
        reason: v1::CompromiseReason::KeyCompromise.into(),
    };
    let request = v1::CompromiseKeyVersionRequest {
        name: made.name,
        compromise: Some(compromise),
        ..Default::default()
    };
    let answer = client.call(client.keys().compromise_key_version(request)).await.unwrap();
    assert_eq!(answer.version.unwrap().compromise, Some(compromise));
}

#[tokio::test]
async fn what_is_disabled_is_not_used_whatever_its_state() {
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/disabled", Algorithm::EcP256).await.name;
    assert!(!step(&client, "Disable", &version).await.unwrap().enabled);
    let refusal = refused_for(sign(&client, &version, b"x").await, "KEY_DISABLED");
    log::assert_recorded(&client, &refusal, "Sign").await;
    step(&client, "Enable", &version).await.unwrap();
    sign(&client, &version, b"x").await.unwrap();
}

#[tokio::test]
async fn a_schedule_makes_the_next_version_and_goes_on() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let mut request = key("dev/rotated", Algorithm::EcP256);
    request.key.as_mut().unwrap().rotation = Some(v1::Rotation {
        period: Some(prost_types::Duration { seconds: 24 * 60 * 60, nanos: 0 }),
        ..Default::default()
    });
    create(&client, request).await;
    for latest in [2, 3] {
        daemon.advance(DAY);
        until(async || get_key(&client, "dev/rotated").await.unwrap().latest_version == latest)
            .await;
        let key = get_key(&client, "dev/rotated").await.unwrap();
        assert_eq!(key.primary_version, latest);
        assert!(
            sign(&client, "dev/rotated", b"x").await.unwrap().name.ends_with(&latest.to_string())
        );
    }
    recorded(&client, "CreateKeyVersion", &get_key(&client, "dev/rotated").await.unwrap().name)
        .await;
    update(&client, "dev/rotated", &["rotation"], |key| key.rotation = None).await.unwrap();
    daemon.advance(2 * DAY);
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(get_key(&client, "dev/rotated").await.unwrap().latest_version, 3);
}

/// What has happened to a key: action and actor, newest first.
async fn actions(client: &Client, parent: &str) -> Vec<(String, String)> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let (parent, page_size) = (parent.to_owned(), 2);
        let request = v1::ListKeyHistoryRequest { parent, page_size, page_token };
        let page = client.call(client.keys().list_key_history(request)).await.unwrap();
        events.extend(page.events.into_iter().map(|event| (event.action, event.actor)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

/// Waits for the daemon's own step on `resource`.
async fn recorded(client: &Client, action: &str, resource: &str) {
    until(async || {
        let leaves = log::Export::fetch(client).await.leaves();
        leaves.iter().any(|leaf| {
            leaf.action == action && leaf.resource == resource && leaf.actor == "apps/kmsd"
        })
    })
    .await;
}

/// Waits for what the daemon does by itself, for ten seconds.
async fn until(come: impl AsyncFn() -> bool) {
    for _ in 0..200 {
        if come().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it did not come about");
}

/// So much from now, as the machine has it.
fn later(by: std::time::Duration) -> Option<prost_types::Timestamp> {
    Some((std::time::SystemTime::now() + by).into())
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
