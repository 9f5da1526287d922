//! What is forbidden while it is being asked for: the log alone must show that nothing was granted that
//! the rules, as they stood at that place of the log, forbid.

use kms_client::Client;
use kms_client::v1::{self, Algorithm, Mechanism, Usage, batch_item, batch_result};
use kms_core::audit::LeafOutcome;
use kms_tests::Daemon;
use kms_tests::log::Export;
use kms_tests::request::{create_key, get_key, sign};

const RING: &str = "races";
/// Callers with one signature each, and with a batch each.
const SINGLE: usize = 12;
const BATCHES: usize = 2;
const BATCH: usize = 32;
/// How many of each kind are tried.
const ROUNDS: usize = 3;

/// What is done to forbid signatures with a key that are under way.
#[derive(Clone, Copy, Debug)]
enum Forbidding {
    Binding,
    Floor,
    RingPolicy,
    Usage,
}

/// Signs until that is refused; says by what reason.
async fn sign_on(client: Client, name: String) -> String {
    loop {
        if let Err(error) = sign(&client, &name, b"x").await {
            return error.reason().unwrap_or_default().to_owned();
        }
    }
}

/// The same in batches.
async fn sign_on_together(client: Client, name: String) -> String {
    let item = || {
        let data = Some(v1::sign_request::Data::Message(b"x".to_vec()));
        let request = v1::SignRequest { name: name.clone(), data, ..Default::default() };
        v1::BatchItem { request: Some(batch_item::Request::Sign(request)) }
    };
    loop {
        let request = v1::BatchRequest { items: (0..BATCH).map(|_| item()).collect() };
        let answer = client.call(client.crypto().batch(request)).await.unwrap();
        assert_eq!(answer.results.len(), BATCH);
        for result in answer.results {
            match result.response.unwrap() {
                batch_result::Response::Sign(_) => {}
                batch_result::Response::Error(error) => return error.reason,
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn update(client: &Client, key: v1::Key, field: &str) -> u64 {
    let update_fields = vec![field.to_owned()];
    let request = v1::UpdateKeyRequest { key: Some(key), update_fields, ..Default::default() };
    let answer = client.call(client.keys().update_key(request)).await.unwrap();
    answer.audit.unwrap().audit_index
}

/// Sets the mechanisms that the ring takes; the place of that in the log.
async fn set_mechanisms(officer: &Client, mechanisms: &[Mechanism]) -> u64 {
    let request = v1::GetKeyRingRequest { name: RING.to_owned() };
    let ring = officer.call(officer.keys().get_key_ring(request)).await.unwrap().key_ring.unwrap();
    let mechanisms = mechanisms.iter().map(|mechanism| (*mechanism).into()).collect();
    let request = v1::SetKeyRingPolicyRequest {
        name: RING.to_owned(),
        etag: ring.etag,
        policy: Some(v1::RingPolicy { mechanisms, ..ring.policy.unwrap_or_default() }),
        request_id: Vec::new(),
    };
    let answer = officer.call(officer.keys().set_key_ring_policy(request)).await.unwrap();
    answer.audit.unwrap().audit_index
}

/// The role that `apps/no-role` has over a key.
fn role_over(key: &str) -> Option<v1::Grant> {
    Some(v1::Grant { role: "crypto-user".into(), scope: key.to_owned(), expire_time: None })
}

/// Takes it away; the place of that in the log.
async fn unbind(officer: &Client, key: &str) -> u64 {
    let (principal, grant) = ("apps/no-role".to_owned(), role_over(key));
    let request = v1::DeleteBindingRequest { principal, grant, ..Default::default() };
    let answer = officer.call(officer.identity().delete_binding(request)).await.unwrap();
    answer.audit.unwrap().audit_index
}

impl Forbidding {
    const ALL: [Self; 4] = [Self::Binding, Self::Floor, Self::RingPolicy, Self::Usage];

    /// Forbids signatures with the first version of `key`; the place of that in the log.
    async fn act(self, client: &Client, officer: &Client, key: &str) -> u64 {
        let described = async || get_key(client, key).await.unwrap();
        match self {
            Self::Binding => unbind(officer, key).await,
            Self::Floor => {
                let raised = v1::Key { protect_floor: 2, ..described().await };
                update(client, raised, "protect_floor").await
            }
            Self::RingPolicy => set_mechanisms(officer, &[Mechanism::AesGcm]).await,
            Self::Usage => {
                let usages = vec![Usage::Verify.into()];
                update(client, v1::Key { usages, ..described().await }, "usages").await
            }
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Binding => "NOT_FOUND",
            Self::Floor => "BELOW_FLOOR",
            Self::RingPolicy => "RING_POLICY",
            Self::Usage => "USAGE_REFUSED",
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_after_the_leaf_of_what_forbids_it() {
    let daemon = Daemon::start();
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    let ring = v1::CreateKeyRingRequest { name: RING.to_owned(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
    let mut forbidden = Vec::new();
    for round in 0..ROUNDS {
        for how in Forbidding::ALL {
            let key = format!("{RING}/{}-{round}", format!("{how:?}").to_lowercase());
            let version = create_key(&client, &key, Algorithm::EcP256).await.name;
            let next = v1::CreateKeyVersionRequest { parent: key.clone(), ..Default::default() };
            client.call(client.keys().create_key_version(next)).await.unwrap();
            // Who signs holds its role over this key alone, so that one can be taken without the others.
            let (principal, grant) = ("apps/no-role".to_owned(), role_over(&key));
            let request = v1::CreateBindingRequest { principal, grant, ..Default::default() };
            officer.call(officer.identity().create_binding(request)).await.unwrap();
            let signer = daemon.as_no_role().await;
            let single =
                (0..SINGLE).map(|_| tokio::spawn(sign_on(signer.clone(), version.clone())));
            let together = (0..BATCHES)
                .map(|_| tokio::spawn(sign_on_together(signer.clone(), version.clone())));
            let signing: Vec<_> = single.chain(together).collect();
            // Until they are all under way.
            for _ in 0..20 {
                sign(&client, &version, b"x").await.unwrap();
            }
            let index = how.act(&client, &officer, &key).await;
            for one in signing {
                assert_eq!(one.await.unwrap(), how.reason(), "{how:?}");
            }
            if let Forbidding::RingPolicy = how {
                set_mechanisms(&officer, &[]).await;
            }
            forbidden.push((how, version, index));
        }
    }
    let log = Export::fetch(&client).await;
    log.assert_whole(None);
    let leaves = log.leaves();
    for (how, version, index) in forbidden {
        let signed = |from: usize, to: usize| {
            let of_key = leaves[from..to].iter().filter(|leaf| leaf.resource == version);
            of_key.filter(|leaf| leaf.action == "Sign" && leaf.outcome() == LeafOutcome::Granted)
        };
        let index = usize::try_from(index).unwrap();
        assert!(signed(0, index).count() > 20, "{how:?}: nobody was signing");
        let late = signed(index, leaves.len()).count();
        assert_eq!(late, 0, "{how:?}: granted after leaf {index}, which forbids it");
    }
}
