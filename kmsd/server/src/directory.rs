//! The enrolled people and programs, in memory: what the rows of users say, found by what a request knows.
//!
//! Read on the way of each request, changed by the operations on users when their rows are on disk. It may be a
//! moment behind the store, so whatever is decided by it is recorded only while the rows stand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kms_core::caller::{Role, RowAt};
use kms_core::credential::{Credential, Proof, ssh_key_digest};
use kms_core::id::{Digest, PrincipalName, Timestamp};
use kms_core::quorum::Keys;
use kms_core::rights::{Rights, Scope};
use kms_core::sshsig::SshCredential;

use crate::rows::{Record as _, Stored, User, UserState};

/// Who is enrolled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    users: BTreeMap<PrincipalName, Arc<Enrolled>>,
    /// By a digest of the credential, also of those that were revoked.
    holders: HashMap<Digest, PrincipalName>,
}

/// Somebody who is enrolled, or was.
#[derive(Debug)]
pub(crate) struct Enrolled {
    stored: Stored<User>,
    rights: Arc<Rights>,
}

impl Enrolled {
    /// Who that row tells of.
    pub(crate) fn of(stored: Stored<User>) -> Self {
        let grants = match stored.value.state {
            UserState::Active => stored.value.grants.clone(),
            UserState::Deleted | UserState::Disabled => Vec::new(),
        };
        Self { stored, rights: Arc::new(Rights::of(grants)) }
    }

    /// What its row says.
    pub(crate) const fn user(&self) -> &User {
        &self.stored.value
    }

    /// What it may do.
    pub(crate) fn rights(&self) -> Arc<Rights> {
        self.rights.clone()
    }

    /// The row that says so.
    pub(crate) fn row(&self) -> RowAt {
        RowAt { place: self.stored.value.place(), revision: self.stored.revision }
    }

    /// Until when it is let in by `proof`: the beginning of time for who is shut out.
    pub(crate) fn until(&self, proof: &Proof) -> Timestamp {
        let user = self.user();
        let credential = user.credential(proof).filter(|_| user.state == UserState::Active);
        credential.map_or_else(Timestamp::default, |credential| credential.until())
    }
}

impl Directory {
    /// The directory of these rows.
    pub(crate) fn of(users: Vec<Stored<User>>) -> Self {
        let mut directory = Self::default();
        users.into_iter().for_each(|user| directory.put(user));
        directory
    }

    /// Takes note of a row that is on disk. Two changes of one user may come here in another order than
    /// they were written in, and the later one stands.
    pub(crate) fn put(&mut self, user: Stored<User>) {
        let known = self.users.get(&user.value.name);
        if known.is_some_and(|known| known.stored.revision >= user.revision) {
            return;
        }
        for credential in &user.value.credentials {
            for held in credential.proof.held_by(&user.value.name) {
                self.holders.insert(held, user.value.name.clone());
            }
        }
        self.users.insert(user.value.name.clone(), Arc::new(Enrolled::of(user)));
    }

    /// Who holds `proof`, or held it.
    pub(crate) fn holder(&self, proof: &Proof) -> Option<&Enrolled> {
        self.holder_of(&proof.digest())
    }

    /// Who holds what has that digest ([`Proof::held_by`]), or held it.
    pub(crate) fn holder_of(&self, digest: &Digest) -> Option<&Enrolled> {
        self.find(self.holders.get(digest)?)
    }

    /// Who has that name, or had it.
    pub(crate) fn find(&self, name: &PrincipalName) -> Option<&Enrolled> {
        self.users.get(name).map(|enrolled| &**enrolled)
    }

    /// Everybody, in the order of their names.
    pub(crate) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|enrolled| enrolled.user())
    }

    /// Whether somebody else than `name` could still enrol people and grant roles.
    pub(crate) fn has_another_officer(&self, name: &PrincipalName) -> bool {
        self.users().any(|user| user.name != *name && is_lasting_officer(user))
    }
}

/// Whether `user` is a security officer of the whole appliance for good, and can log in.
pub(crate) fn is_lasting_officer(user: &User) -> bool {
    let officer = user.grants.iter().any(|grant| {
        let holds = grant.role == Role::SecurityOfficer && grant.scope == Scope::Appliance;
        holds && grant.expires_at.is_none()
    });
    let logs_in = user
        .credentials
        .iter()
        .any(|credential| credential.proof.logs_in() && credential.until() == Timestamp::MAX);
    user.state == UserState::Active && officer && logs_in
}

/// Who approves at that time: the keys of those who are let in, without what was revoked or has ended.
#[derive(Debug)]
pub(crate) struct Approvers<'a> {
    /// Who is enrolled.
    pub(crate) directory: &'a Directory,
    /// The time.
    pub(crate) now: Timestamp,
}

impl Keys for Approvers<'_> {
    fn keys_of(&self, principal: &PrincipalName) -> Option<Vec<&SshCredential>> {
        let user = self.directory.find(principal)?.user();
        let good = user.credentials.iter().filter(|credential| credential.is_good(self.now));
        let keys = good.filter_map(|credential| match &credential.proof {
            Proof::SshKey(key) => Some(&**key),
            _ => None,
        });
        (user.state == UserState::Active).then(|| keys.collect())
    }

    fn holder_of(&self, key: &Digest) -> Option<(&PrincipalName, bool)> {
        let user = self.directory.holder_of(&ssh_key_digest(key))?.user();
        let is_it = |credential: &&Credential| match &credential.proof {
            Proof::SshKey(ssh) => ssh.key().is_some_and(|own| own.identity() == *key),
            _ => false,
        };
        let credential = user.credentials.iter().find(is_it);
        let is_good = credential.is_some_and(|credential| credential.is_good(self.now));
        Some((&user.name, is_good && user.state == UserState::Active))
    }
}

#[cfg(test)]
mod tests {
    use kms_core::credential::{Credential, Revocation};
    use kms_core::lifecycle::CompromiseReason;
    use kms_core::rights::Grant;

    use super::*;

    const NOW: Timestamp = Timestamp(10);

    fn user(name: &str, uid: u32, roles: &[Role]) -> User {
        User {
            name: name.parse().unwrap(),
            credentials: vec![Credential::new(Proof::UnixUid(uid), Timestamp(1))],
            grants: roles.iter().map(|role| Grant::over(*role, Scope::Appliance)).collect(),
            state: UserState::Active,
            created_at: Timestamp(1),
        }
    }

    fn row(revision: u64, value: User) -> Stored<User> {
        Stored { value, sealed: Vec::new(), revision, etag: String::new() }
    }

    fn revoked(mut user: User) -> User {
        let reason = CompromiseReason::KeyCompromise;
        user.credentials[0].revoked = Some(Revocation { at: NOW, reason });
        user
    }

    #[test]
    fn an_older_row_does_not_replace_a_newer_one() {
        let mut directory = Directory::of(vec![row(1, user("users/a", 1, &[]))]);
        directory.put(row(3, user("users/a", 1, &[Role::Auditor, Role::Operator])));
        directory.put(row(2, user("users/a", 1, &[Role::Auditor])));
        assert_eq!(directory.users().next().unwrap().grants.len(), 2);
    }

    #[test]
    fn who_is_revoked_or_disabled_is_known_and_not_let_in() {
        let proof = Proof::UnixUid(1);
        let until = |user: User| {
            let directory = Directory::of(vec![row(1, user)]);
            directory.holder(&proof).unwrap().until(&proof)
        };
        let active = user("users/a", 1, &[Role::Auditor]);
        assert_eq!(until(active.clone()), Timestamp::MAX);
        assert_eq!(until(revoked(active.clone())), Timestamp(0));
        for state in [UserState::Deleted, UserState::Disabled] {
            let barred = User { state, ..active.clone() };
            assert_eq!(until(barred.clone()), Timestamp(0));
            assert!(Enrolled::of(row(1, barred)).rights().grants().is_empty());
        }
        assert!(Directory::of(vec![row(1, active)]).holder(&Proof::UnixUid(2)).is_none());
    }

    #[test]
    fn an_officer_counts_who_stays_one_and_can_log_in() {
        let officer = user("users/a", 1, &[Role::SecurityOfficer]);
        assert!(is_lasting_officer(&officer));
        let mut ends = officer.clone();
        ends.grants[0].expires_at = Some(Timestamp(u64::MAX - 1));
        let mut of_a_tenant = officer.clone();
        of_a_tenant.grants[0].scope = "tenants/t".parse().unwrap();
        let disabled = User { state: UserState::Disabled, ..officer.clone() };
        let nobody = User { credentials: Vec::new(), ..officer.clone() };
        for other in [ends, of_a_tenant, disabled, nobody, revoked(officer.clone())] {
            assert!(!is_lasting_officer(&other), "{other:?}");
        }
        let both = vec![row(1, officer), row(1, user("users/b", 2, &[Role::Auditor]))];
        let directory = Directory::of(both);
        assert!(directory.has_another_officer(&"users/b".parse().unwrap()));
        assert!(!directory.has_another_officer(&"users/a".parse().unwrap()));
    }
}
