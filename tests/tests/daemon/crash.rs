//! Killed at any moment: nothing that was acknowledged is lost, and the log verifies.

use std::collections::BTreeSet;
use std::time::Duration;

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};
use kms_core::audit::LeafOutcome;
use kms_tests::log::Export;
use kms_tests::request::{key, sign};
use kms_tests::{Daemon, daemon};

/// What the daemon has acknowledged: where in the log, what, and to which version.
struct Acknowledged {
    audit_index: u64,
    action: &'static str,
    version: String,
}

/// A kill of the process is not a loss of power; what that can lose is tested below the store.
#[tokio::test]
async fn twenty_kills_under_eight_writers_lose_nothing_that_was_acknowledged() {
    let mut daemon = Daemon::start();
    let mut acknowledged = Vec::new();
    let mut heads = Vec::new();
    for round in 0..ROUNDS {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let config = daemon.unix();
            writers
                .spawn(async move { write(&daemon::connect(&config).await, round, writer).await });
        }
        // Each round another moment, from within the first commits to well under way.
        tokio::time::sleep(Duration::from_millis(10 + 17 * round)).await;
        daemon.kill9();
        acknowledged.extend(writers.join_all().await.into_iter().flatten());
        daemon.restart();
        if round % 5 == 0 {
            heads.push(Export::fetch(&daemon.client().await).await.checkpoint());
        }
    }
    let writes = usize::try_from(ROUNDS * WRITERS).unwrap();
    assert!(acknowledged.len() > writes, "only {} writes were made", acknowledged.len());

    let client = daemon.client().await;
    let export = Export::fetch(&client).await;
    for head in &heads {
        export.assert_whole(Some(head));
    }
    let leaves = export.leaves();
    for Acknowledged { audit_index, action, version } in &acknowledged {
        let leaf = &leaves[usize::try_from(*audit_index).unwrap()];
        assert_eq!(leaf.outcome(), LeafOutcome::Granted, "{version}");
        assert_eq!(leaf.action, *action, "{version}");
        assert!(version.starts_with(&leaf.resource), "{version} is not {}", leaf.resource);
    }
    let made: BTreeSet<_> = acknowledged.iter().map(|done| &done.version).collect();
    for version in &made {
        let message = b"after all";
        let signature = sign(&client, version, message).await.unwrap().signature;
        let data = Some(v1::verify_request::Data::Message(message.to_vec()));
        let request =
            v1::VerifyRequest { name: (*version).clone(), data, signature, ..Default::default() };
        assert!(client.call(client.crypto().verify(request)).await.unwrap().valid, "{version}");
    }
    println!("{} writes on {} keys were acknowledged", acknowledged.len(), made.len());
}

/// Makes keys and signs with them until the daemon is gone.
async fn write(client: &Client, round: u64, writer: u64) -> Vec<Acknowledged> {
    let mut done = Vec::new();
    for number in 0..WRITES_MAX {
        let name = format!("crash-{round}-{writer}-{number}");
        match make_and_sign(client, &format!("dev/{name}"), &mut done).await {
            Ok(()) => {}
            Err(ClientError::Refused { reason, message, .. }) => panic!("{reason}: {message}"),
            Err(_) => return done,
        }
    }
    done
}

async fn make_and_sign(
    client: &Client,
    name: &str,
    done: &mut Vec<Acknowledged>,
) -> Result<(), ClientError> {
    let request = key(name, Algorithm::EcP256);
    let made = client.call(client.keys().create_key(request)).await?;
    let version = made.version.unwrap().name;
    let mut note = |audit: Option<v1::AuditReference>, action| {
        let audit_index = audit.unwrap().audit_index;
        done.push(Acknowledged { audit_index, action, version: version.clone() });
    };
    note(made.audit, "CreateKey");
    note(sign(client, name, b"under way").await?.audit, "Sign");
    Ok(())
}

const ROUNDS: u64 = 20;
const WRITERS: u64 = 8;
const WRITES_MAX: u64 = 10_000;
