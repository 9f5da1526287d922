//! The enrolled people and programs, in memory: what the rows of users say, found by what a request knows.
//!
//! Read on the way of each request, changed by the operations on users when their rows are on disk.

use std::collections::BTreeMap;

use kms_core::id::PrincipalName;
use kms_core::quorum::Keys;
use kms_core::sshsig::SshCredential;

use crate::rows::{Stored, User};

/// Who is enrolled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    users: BTreeMap<PrincipalName, Stored<User>>,
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
        if known.is_none_or(|known| known.revision < user.revision) {
            self.users.insert(user.value.name.clone(), user);
        }
    }

    /// Everybody.
    pub(crate) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|stored| &stored.value)
    }
}

impl Keys for Directory {
    fn keys_of(&self, principal: &PrincipalName) -> Option<Vec<&SshCredential>> {
        Some(self.users.get(principal)?.value.ssh_keys.iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use kms_core::caller::{Grant, Role};

    use super::*;

    #[test]
    fn an_older_row_does_not_replace_a_newer_one() {
        let row = |revision, roles: &[Role]| {
            let grants = roles.iter().map(|role| Grant { role: *role, ring: None }).collect();
            let value = User {
                name: "users/a".parse().unwrap(),
                ssh_keys: Vec::new(),
                certificate_digests: Vec::new(),
                unix_uids: Vec::new(),
                grants,
            };
            Stored { value, sealed: Vec::new(), revision, etag: String::new() }
        };
        let mut directory = Directory::of(vec![row(1, &[])]);
        directory.put(row(3, &[Role::Auditor, Role::Operator]));
        directory.put(row(2, &[Role::Auditor]));
        let user = directory.users().next().unwrap();
        assert_eq!(user.grants.len(), 2);
    }
}
