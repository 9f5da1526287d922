//! What every backend must do; each runs [`run`] in its own tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kms_core::audit::merkle::{Frontier, leaf_hash, verify_inclusion};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::watch::EVENTS_MAX;
use crate::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, Batch, BatchFault, Change, Committed, Condition, Expected,
    KEY_BYTES_MAX, LEAF_BYTES_MAX, Outcome, PAGE_BYTES_MAX, RowSet, SCAN_MAX, Store, StoreError,
    VALUE_BYTES_MAX, Write,
};

/// Runs the whole suite; `fresh` gives an empty store each time.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn run(fresh: impl AsyncFn() -> Arc<dyn Store>) {
    revisions_count_up_over_deletions(&*fresh().await).await;
    a_failed_condition_stops_the_whole_batch(&*fresh().await).await;
    a_name_is_applied_once(&*fresh().await).await;
    pages_follow_each_other(&*fresh().await).await;
    large_pages_are_cut(&*fresh().await).await;
    leaves_stand_where_the_receipt_says(&*fresh().await).await;
    proofs_lead_to_the_head_of_every_size(&*fresh().await).await;
    concurrent_commits_have_one_order(fresh().await).await;
    one_of_many_wins_a_race(fresh().await).await;
    of_many_at_once_each_stands_alone(&*fresh().await).await;
    reads_are_never_older_than_what_was_acknowledged(fresh().await).await;
    the_row_set_tells_of_every_row(&*fresh().await).await;
    slots_are_kept_until_erased(&*fresh().await).await;
    batches_beyond_the_bounds_are_refused(&*fresh().await).await;
    watchers_hear_of_changes_and_of_gaps(&*fresh().await).await;
    a_closed_store_says_so(&*fresh().await).await;
}

/// A batch that puts one row.
pub fn put(key: &str, value: &[u8]) -> Batch {
    let write = Write::Put { key: key.to_owned(), value: value.to_vec() };
    Batch { writes: vec![write], ..Batch::default() }
}

/// A batch that deletes one row.
pub fn delete(key: &str) -> Batch {
    Batch { writes: vec![Write::Delete { key: key.to_owned() }], ..Batch::default() }
}

/// A batch that appends leaves.
pub fn append(leaves: &[&[u8]]) -> Batch {
    let leaves = leaves.iter().map(|leaf| leaf.to_vec()).collect();
    Batch { leaves, ..Batch::default() }
}

/// Commits what must succeed.
///
/// # Panics
/// When it does not.
pub async fn committed(store: &dyn Store, batch: Batch) -> Committed {
    match store.commit(batch).await {
        Ok(Outcome::Committed(committed)) => committed,
        other => panic!("not committed: {other:?}"),
    }
}

/// All rows under `prefix`, page by page.
///
/// # Panics
/// When the store fails.
pub async fn all_rows(store: &dyn Store, prefix: &str) -> Vec<(String, u64, Vec<u8>)> {
    let mut rows: Vec<(String, u64, Vec<u8>)> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.0.clone());
        let page = store.scan(prefix, after.as_deref(), SCAN_MAX).await.expect("a page");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page.into_iter().map(|(key, row)| (key, row.revision, row.value.to_vec())));
    }
}

/// Checks the whole log against itself: leaves, head and the proof of every leaf. Returns the
/// leaves.
///
/// # Panics
/// When something does not fit.
pub async fn verified_log(store: &dyn Store) -> Vec<Vec<u8>> {
    let frontier = store.log_frontier().await;
    let (mut leaves, mut rebuilt) = (Vec::new(), Frontier::default());
    while (leaves.len() as u64) < frontier.size() {
        let page = store.leaves(leaves.len() as u64, SCAN_MAX).await.expect("leaves");
        assert!(!page.is_empty(), "the log ends early");
        leaves.extend(page);
    }
    leaves.iter().for_each(|leaf| rebuilt.append(leaf_hash(leaf)));
    assert_eq!(rebuilt, frontier, "the leaves do not make the head");
    for (index, leaf) in (0..).zip(&leaves) {
        let path = store.inclusion_proof(index, frontier.size()).await.expect("a proof");
        let root = frontier.root();
        assert!(verify_inclusion(&leaf_hash(leaf), index, frontier.size(), &path, &root));
    }
    leaves
}

async fn row(store: &dyn Store, key: &str) -> Option<(u64, Vec<u8>)> {
    store.get(key).await.expect("a read").map(|row| (row.revision, row.value.to_vec()))
}

async fn revisions_count_up_over_deletions(store: &dyn Store) {
    assert_eq!(row(store, "a").await, None);
    committed(store, delete("a")).await;
    committed(store, put("a", b"one")).await;
    assert_eq!(row(store, "a").await, Some((1, b"one".to_vec())));
    committed(store, put("a", b"")).await;
    assert_eq!(row(store, "a").await, Some((2, Vec::new())));
    committed(store, delete("a")).await;
    assert_eq!(row(store, "a").await, None);
    assert_eq!(all_rows(store, "").await, []);
    committed(store, put("a", b"three")).await;
    assert_eq!(row(store, "a").await, Some((3, b"three".to_vec())));
}

async fn a_failed_condition_stops_the_whole_batch(store: &dyn Store) {
    committed(store, put("a", b"one")).await;
    committed(store, put("gone", b"x")).await;
    committed(store, delete("gone")).await;
    let holds = |key: &str, expected| Condition { key: key.into(), expected };
    let table = [
        (vec![holds("a", Expected::Revision(1)), holds("b", Expected::Absent)], vec![]),
        (vec![holds("a", Expected::Absent)], vec!["a"]),
        (vec![holds("gone", Expected::Absent)], vec![]),
        (vec![holds("gone", Expected::Revision(1))], vec!["gone"]),
        (
            vec![holds("a", Expected::Revision(9)), holds("b", Expected::Revision(1))],
            vec!["a", "b"],
        ),
    ];
    for (conditions, failed) in table {
        let size = store.log_size().await;
        let mut batch = put("other", b"new");
        batch.conditions = conditions;
        batch.leaves = vec![b"leaf".to_vec()];
        batch.writes.push(Write::Put { key: "third".into(), value: b"new".to_vec() });
        let outcome = store.commit(batch).await.expect("an outcome");
        if failed.is_empty() {
            assert!(matches!(outcome, Outcome::Committed(_)));
            assert_eq!(store.log_size().await, size + 1);
            assert!(row(store, "other").await.is_some() && row(store, "third").await.is_some());
            committed(store, delete("other")).await;
            committed(store, delete("third")).await;
        } else {
            let failed = failed.into_iter().map(str::to_owned).collect();
            assert_eq!(outcome, Outcome::Conflict(failed));
            assert_eq!((store.log_size().await, row(store, "other").await), (size, None));
            assert_eq!(row(store, "third").await, None);
        }
    }
}

async fn a_name_is_applied_once(store: &dyn Store) {
    let name = [7; 32];
    assert_eq!(store.outcome_of(&name).await.expect("an answer"), None);
    let mut batch = put("a", b"one");
    batch.conditions = vec![Condition { key: "a".into(), expected: Expected::Absent }];
    batch.leaves = vec![b"x".to_vec(), b"y".to_vec()];
    batch.idempotency = Some(name);
    committed(store, append(&[b"before"])).await;
    let first = committed(store, batch.clone()).await;
    assert!(!first.replayed);
    committed(store, append(&[b"after"])).await;
    let second = committed(store, batch).await;
    let third = store.outcome_of(&name).await.expect("an answer").expect("an outcome");
    assert!(second.replayed && third.replayed);
    assert_eq!((&first.receipt, &first.receipt), (&second.receipt, &third.receipt));
    assert_eq!(first.receipt.index_of(&leaf_hash(b"y")), Some(2));
    assert_eq!(row(store, "a").await, Some((1, b"one".to_vec())));
    assert_eq!(store.log_size().await, 4);
}

async fn pages_follow_each_other(store: &dyn Store) {
    let keys = ["a", "k/", "k/1", "k/10", "k/2", "k0", "l"];
    for key in keys.iter().rev() {
        committed(store, put(key, key.as_bytes())).await;
    }
    let page = async |prefix: &str, after: Option<&str>, limit| {
        let rows = store.scan(prefix, after, limit).await.expect("a page");
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(page("", None, SCAN_MAX).await, keys);
    assert_eq!(page("k/", None, 2).await, ["k/", "k/1"]);
    assert_eq!(page("k/", Some("k/1"), 2).await, ["k/10", "k/2"]);
    assert_eq!(page("k/", Some("k/2"), 2).await, Vec::<String>::new());
    assert_eq!(page("k/", Some("a"), 9).await.len(), 4);
    assert_eq!(page("k/", Some("z"), 9).await, Vec::<String>::new());
    assert_eq!(page("none", None, 9).await, Vec::<String>::new());
    for limit in [0, SCAN_MAX + 1] {
        let refused = store.scan("", None, limit).await;
        assert!(matches!(refused, Err(StoreError::LimitExceeded { .. })));
        let refused = store.leaves(0, limit).await;
        assert!(matches!(refused, Err(StoreError::LimitExceeded { .. })));
    }
}

async fn large_pages_are_cut(store: &dyn Store) {
    let count = PAGE_BYTES_MAX / VALUE_BYTES_MAX + 2;
    for i in 0..count {
        committed(store, put(&format!("{i:03}"), &vec![7; VALUE_BYTES_MAX])).await;
    }
    let page = store.scan("", None, SCAN_MAX).await.expect("a page");
    assert!(page.len() < count && page.len() > count / 2);
    assert_eq!(all_rows(store, "").await.len(), count);
}

async fn leaves_stand_where_the_receipt_says(store: &dyn Store) {
    assert_eq!(store.leaves(0, 1).await.expect("an empty page"), Vec::<Vec<u8>>::new());
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for i in 0..40_u8 {
        let leaves: Vec<Vec<u8>> = (0..i % 20).map(|k| vec![i, k]).collect();
        let batch = Batch { leaves: leaves.clone(), ..Batch::default() };
        let receipt = committed(store, batch).await.receipt;
        for leaf in leaves {
            assert_eq!(receipt.index_of(&leaf_hash(&leaf)), Some(expected.len() as u64));
            expected.push(leaf);
        }
        assert_eq!(receipt.index_of(&leaf_hash(b"another")), None);
    }
    assert_eq!(verified_log(store).await, expected);
    for begin in [0, 1, 255, 256, 257, 300, expected.len()] {
        let page = store.leaves(begin as u64, 17).await.expect("a page");
        assert_eq!(page, expected[begin..expected.len().min(begin + 17)]);
    }
    let beyond = store.leaves(expected.len() as u64 + 1, 1).await;
    assert!(matches!(beyond, Err(StoreError::LogRange { .. })));
}

async fn proofs_lead_to_the_head_of_every_size(store: &dyn Store) {
    let mut roots = vec![store.log_frontier().await.root()];
    for i in 0..600_u64 {
        committed(store, append(&[&i.to_be_bytes()])).await;
        roots.push(store.log_frontier().await.root());
    }
    for size in (1..=600_u64).step_by(37).chain([255, 256, 257, 511, 512, 513, 600]) {
        let root = &roots[usize::try_from(size).expect("small")];
        for index in (0..size).step_by(13).chain([size - 1]) {
            let path = store.inclusion_proof(index, size).await.expect("a proof");
            let leaf = leaf_hash(&index.to_be_bytes());
            assert!(verify_inclusion(&leaf, index, size, &path, root), "{index} of {size}");
        }
        let path = store.inclusion_proof(size, size).await;
        assert!(matches!(path, Err(StoreError::LogRange { .. })));
    }
    let path = store.inclusion_proof(0, 601).await;
    assert!(matches!(path, Err(StoreError::LogRange { .. })));
    let full = store.hash_tile(0, 1, 256).await.expect("a tile");
    assert_eq!(full[..32], *leaf_hash(&256_u64.to_be_bytes()).as_bytes());
    let narrow = store.hash_tile(0, 1, 9).await.expect("a tile");
    assert_eq!(full[..9 * 32], narrow);
    assert_eq!(store.hash_tile(1, 0, 2).await.expect("a tile").len(), 64);
    assert!(matches!(store.hash_tile(1, 0, 3).await, Err(StoreError::LogRange { .. })));
}

async fn concurrent_commits_have_one_order(store: Arc<dyn Store>) {
    let mut tasks = JoinSet::new();
    for i in 0..100_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut batch = put("counter", &i.to_be_bytes());
            batch.leaves = vec![i.to_be_bytes().to_vec()];
            let receipt = committed(&*store, batch).await.receipt;
            let index = receipt.index_of(&leaf_hash(&i.to_be_bytes())).expect("its own leaf");
            (index, i)
        });
    }
    let order: BTreeSet<(u64, u64)> = tasks.join_all().await.into_iter().collect();
    let leaves = verified_log(&*store).await;
    assert_eq!(leaves.len(), 100);
    for ((index, i), place) in order.iter().zip(0..) {
        assert_eq!((*index, &i.to_be_bytes()[..]), (place, &leaves[*index as usize][..]));
    }
    // The last leaf and the row that stands are of the same commit: leaves and rows have one order.
    assert_eq!(row(&*store, "counter").await, leaves.last().map(|last| (100, last.clone())));
}

async fn one_of_many_wins_a_race(store: Arc<dyn Store>) {
    let mut tasks = JoinSet::new();
    for i in 0..60_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut batch = put("lock", &[i]);
            batch.conditions = vec![Condition { key: "lock".into(), expected: Expected::Absent }];
            // Three callers share each name: the retries of a batch that is still on its way.
            batch.idempotency = Some([i / 3; 32]);
            store.commit(batch).await.expect("an outcome")
        });
    }
    let outcomes = tasks.join_all().await;
    let won = |replayed| {
        let of_that_kind =
            |o: &&Outcome| matches!(o, Outcome::Committed(c) if c.replayed == replayed);
        outcomes.iter().filter(of_that_kind).count()
    };
    assert_eq!((won(false), won(true)), (1, 2));
    assert_eq!(row(&*store, "lock").await.map(|row| row.0), Some(1));
}

async fn of_many_at_once_each_stands_alone(store: &dyn Store) {
    assert!(store.commit_each(Vec::new()).await.is_empty());
    let absent = |batch: Batch| Batch {
        conditions: vec![Condition { key: "a".into(), expected: Expected::Absent }],
        ..batch
    };
    let large = || append(&[&[7; LEAF_BYTES_MAX][..]; 40]);
    let batches = vec![
        absent(put("a", b"one")),
        append(&[b"x"]),
        absent(put("b", b"one")),
        put("", b"no key"),
        large(),
        large(),
        put("c", b"one"),
    ];
    let outcomes = store.commit_each(batches).await;
    let first = |outcome: &Result<Outcome, StoreError>| match outcome {
        Ok(Outcome::Committed(Committed { receipt, .. })) => receipt.clone(),
        other => panic!("not committed: {other:?}"),
    };
    assert_eq!(outcomes.len(), 7);
    assert_eq!(first(&outcomes[1]).index_of(&leaf_hash(b"x")), Some(0));
    assert!(matches!(&outcomes[2], Ok(Outcome::Conflict(keys)) if keys == &["a"]));
    assert!(matches!(outcomes[3], Err(StoreError::BatchRefused(BatchFault::Key))));
    [0, 4, 5, 6].into_iter().for_each(|place| drop(first(&outcomes[place])));
    assert_eq!(verified_log(store).await.len(), 81);
    let rows = all_rows(store, "").await;
    assert_eq!(rows, ["a", "c"].map(|key| (key.to_owned(), 1, b"one".to_vec())));
}

/// However a backend holds what it reads.
async fn reads_are_never_older_than_what_was_acknowledged(store: Arc<dyn Store>) {
    const ROUNDS: u64 = 200;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        readers.spawn(async move {
            let mut last = 0;
            while last < ROUNDS {
                let at_least = acknowledged.load(Ordering::Acquire);
                let revision = row(&*store, "a").await.map_or(0, |row| row.0);
                assert!(revision >= at_least.max(last), "{revision} after {at_least} and {last}");
                last = revision;
                tokio::task::yield_now().await;
            }
        });
    }
    for revision in 1..=ROUNDS {
        let changes = store.row_changes();
        committed(&*store, put("a", &revision.to_be_bytes())).await;
        assert!(changes.is_none() || store.row_changes() > changes, "a change that is not counted");
        acknowledged.store(revision, Ordering::Release);
    }
    readers.join_all().await;
}

async fn the_row_set_tells_of_every_row(store: &dyn Store) {
    let set = async || store.row_set().await.expect("a row set");
    let at = async |sequence| store.row_set_at(sequence).await.expect("an answer");
    let empty = set().await;
    assert_eq!(empty.sequence, 0);
    let mut earlier = vec![empty];
    let changes = [put("a", b"1"), put("b", b"1"), put("a", b"2"), delete("b"), put("b", b"1")];
    for batch in changes {
        committed(store, batch).await;
        let now = set().await;
        assert!(earlier.iter().all(|set| set.root != now.root && set.sequence < now.sequence));
        committed(store, append(&[b"a leaf changes no row"])).await;
        let after = set().await;
        assert_eq!((after.root, after.sequence), (now.root, now.sequence + 1));
        earlier.push(now);
    }
    // Named in the log or not, what was asked for once can be compared with later.
    let now = set().await;
    committed(store, Batch { binds_rows: Some(now.sequence), ..append(&[b"root"]) }).await;
    for RowSet { root, sequence } in earlier {
        assert_eq!(at(sequence).await, Some(root));
    }
    assert_eq!(at(now.sequence + 1).await, Some(now.root), "the leaf between changed no row");
    assert_eq!(at(now.sequence + 100).await, None, "not there yet");
}

async fn slots_are_kept_until_erased(store: &dyn Store) {
    let first = store.put_slot(Zeroizing::new([1; 32])).await.expect("a slot");
    let second = store.put_slot(Zeroizing::new([2; 32])).await.expect("a slot");
    assert_ne!(first, second);
    assert_eq!(*store.read_slot(first).await.expect("a secret"), [1; 32]);
    store.erase_slot(first).await.expect("erased");
    store.erase_slot(first).await.expect("erased again");
    let erased = store.read_slot(first).await;
    assert!(matches!(erased, Err(StoreError::SlotErased { slot }) if slot == first));
    assert_eq!(*store.read_slot(second).await.expect("a secret"), [2; 32]);
    let third = store.put_slot(Zeroizing::new([3; 32])).await.expect("a slot");
    assert!(third != first && third != second, "a slot number names one secret for ever");
    for slot in [third + 1, u64::MAX] {
        assert!(matches!(store.read_slot(slot).await, Err(StoreError::SlotUnknown { .. })));
        assert!(matches!(store.erase_slot(slot).await, Err(StoreError::SlotUnknown { .. })));
    }
    let more = store.put_slots([4, 5, 6].map(|byte| Zeroizing::new([byte; 32])).into()).await;
    for (slot, byte) in more.expect("slots").into_iter().zip(4..=6) {
        assert_eq!(*store.read_slot(slot).await.expect("a secret"), [byte; 32]);
        assert!(![first, second, third].contains(&slot));
    }
    assert_eq!(store.put_slots(Vec::new()).await.expect("nothing"), [0; 0]);
}

async fn batches_beyond_the_bounds_are_refused(store: &dyn Store) {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let condition = Condition { key: "a".into(), expected: Expected::Absent };
    let mut twice = put("a", b"");
    twice.writes.push(Write::Delete { key: "a".into() });
    let many = (0..=BATCH_ITEMS_MAX).map(|i| Write::Delete { key: i.to_string() }).collect();
    let total = BATCH_BYTES_MAX / LEAF_BYTES_MAX + 1;
    let conditions = vec![condition; BATCH_ITEMS_MAX + 1];
    let of_leaves = |leaves| Batch { leaves, ..Batch::default() };
    let table = [
        (put("", b""), BatchFault::Key),
        (put(&long, b""), BatchFault::Key),
        (put("a", &vec![0; VALUE_BYTES_MAX + 1]), BatchFault::Value),
        (twice, BatchFault::KeyTwice),
        (Batch { writes: many, ..Batch::default() }, BatchFault::Writes),
        (Batch { conditions, ..Batch::default() }, BatchFault::Conditions),
        (of_leaves(vec![vec![]; BATCH_ITEMS_MAX + 1]), BatchFault::Leaves),
        (of_leaves(vec![vec![0; LEAF_BYTES_MAX + 1]]), BatchFault::Leaf),
        (of_leaves(vec![vec![0; LEAF_BYTES_MAX]; total]), BatchFault::Bytes),
    ];
    for (batch, expected) in table {
        match store.commit(batch).await {
            Err(StoreError::BatchRefused(fault)) => assert_eq!(fault, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    assert_eq!((all_rows(store, "").await.len(), store.log_size().await), (0, 0));
    // The largest batch that is allowed goes through, and comes back.
    let largest = of_leaves(vec![vec![7; LEAF_BYTES_MAX]; total - 1]);
    committed(store, largest).await;
    let key = "k".repeat(KEY_BYTES_MAX);
    committed(store, put(&key, &vec![9; VALUE_BYTES_MAX])).await;
    assert_eq!(row(store, &key).await, Some((1, vec![9; VALUE_BYTES_MAX])));
    assert_eq!(verified_log(store).await.len(), total - 1);
}

async fn watchers_hear_of_changes_and_of_gaps(store: &dyn Store) {
    committed(store, put("before", b"")).await;
    let (mut attentive, mut asleep) = (store.watch(), store.watch());
    let mut batch = put("a", b"1");
    batch.writes.push(Write::Put { key: "b".into(), value: Vec::new() });
    committed(store, batch).await;
    assert_eq!(attentive.next().await, Some(Change::Keys(["a".into(), "b".into()].into())));
    committed(store, delete("a")).await;
    assert_eq!(attentive.next().await, Some(Change::Keys(["a".into()].into())));
    for _ in 0..EVENTS_MAX {
        committed(store, put("c", b"")).await;
    }
    assert_eq!(asleep.next().await, Some(Change::Missed(2)));
    assert_eq!(asleep.next().await, Some(Change::Keys(["c".into()].into())));
}

async fn a_closed_store_says_so(store: &dyn Store) {
    committed(store, put("a", b"")).await;
    let slot = store.put_slot(Zeroizing::new([1; 32])).await.expect("a slot");
    store.close().await.expect("closed");
    store.close().await.expect("closed again");
    assert!(matches!(store.get("a").await, Err(StoreError::Closed)));
    assert!(matches!(store.scan("", None, 1).await, Err(StoreError::Closed)));
    assert!(matches!(store.commit(put("a", b"")).await, Err(StoreError::Closed)));
    assert!(matches!(store.outcome_of(&[0; 32]).await, Err(StoreError::Closed)));
    assert!(matches!(store.leaves(0, 1).await, Err(StoreError::Closed)));
    assert!(matches!(store.read_slot(slot).await, Err(StoreError::Closed)));
    assert!(matches!(store.put_slot(Zeroizing::new([1; 32])).await, Err(StoreError::Closed)));
    assert!(matches!(store.erase_slot(slot).await, Err(StoreError::Closed)));
}
