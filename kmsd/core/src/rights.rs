//! What is held over what: roles, their scopes, and the rights that come of them.
//!
//! A role is held over the appliance, a tenant, a location, a ring or a key, and for everything below that. To ask
//! costs the same however many are held: at most five places are looked at.

use core::fmt;
use core::str::FromStr;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::caller::Role;
use crate::id::{Home, IdError, KeyName, Resource, RingName, Segment, Timestamp};

/// Over what a role is held.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Scope {
    /// Everything.
    Appliance,
    /// One key and its versions.
    Key(KeyName),
    /// What a tenant has in one location.
    Location(Home),
    /// One ring and its keys.
    Ring(RingName),
    /// What a tenant has, wherever that is.
    Tenant(Segment),
}

impl Scope {
    /// Reads `tenants/{tenant}`, `tenants/{tenant}/locations/{region}`, or a ring's or key's name, in the full
    /// form or in the short one within `home`.
    ///
    /// # Errors
    /// [`IdError`] when the text is none of them.
    pub fn parse(text: &str, home: &Home) -> Result<Self, IdError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["tenants", tenant] => Ok(Self::Tenant(tenant.parse()?)),
            ["tenants", tenant, "locations", region] => {
                Ok(Self::Location(Home { tenant: tenant.parse()?, region: region.parse()? }))
            }
            [_] | ["tenants", _, "locations", _, "keyRings", _] => {
                RingName::parse(text, home).map(Self::Ring)
            }
            _ => KeyName::parse(text, home).map(Self::Key),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appliance => f.write_str(APPLIANCE),
            Self::Key(name) => name.fmt(f),
            Self::Location(home) => home.fmt(f),
            Self::Ring(name) => name.fmt(f),
            Self::Tenant(tenant) => write!(f, "tenants/{tenant}"),
        }
    }
}

/// The full form only, as stored rows hold it.
impl FromStr for Scope {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == APPLIANCE {
            return Ok(Self::Appliance);
        }
        if !text.starts_with("tenants/") {
            return Err(IdError::Shape { expected: "appliance, or tenants/…, the full form" });
        }
        // The home is read from the text itself, so the one given here is never used.
        let unused: Segment = "unused".parse()?;
        Self::parse(text, &Home { tenant: unused.clone(), region: unused })
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A role that somebody holds.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What may be done.
    pub role: Role,
    /// Over what.
    pub scope: Scope,
    /// Until when; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    /// `role` over `scope`, for good.
    pub const fn over(role: Role, scope: Scope) -> Self {
        Self { role, scope, expires_at: None }
    }

    /// Whether it is the same role over the same thing, whenever it ends. Nobody holds that twice.
    pub fn is_same_binding(&self, other: &Self) -> bool {
        self.role == other.role && self.scope == other.scope
    }
}

/// What somebody may do, made once for many questions.
#[derive(Debug, Default)]
pub struct Rights {
    grants: Vec<Grant>,
    appliance: Held,
    tenants: HashMap<Segment, Held>,
    locations: HashMap<Home, Held>,
    rings: HashMap<RingName, Held>,
    keys: HashMap<KeyName, Held>,
}

impl Rights {
    /// What comes of `grants`.
    pub fn of(grants: Vec<Grant>) -> Self {
        let mut rights = Self::default();
        for Grant { role, scope, expires_at } in &grants {
            let held = match scope.clone() {
                Scope::Appliance => &mut rights.appliance,
                Scope::Key(key) => rights.keys.entry(key).or_default(),
                Scope::Location(home) => rights.locations.entry(home).or_default(),
                Scope::Ring(ring) => rights.rings.entry(ring).or_default(),
                Scope::Tenant(tenant) => rights.tenants.entry(tenant).or_default(),
            };
            held.take(*role, expires_at.unwrap_or(Timestamp::MAX));
        }
        rights.grants = grants;
        rights
    }

    /// The roles as they were granted, those that have ended among them.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The first of `roles` that is held over `resource` at `now`.
    pub fn role_over(&self, roles: &[Role], resource: &Resource, now: Timestamp) -> Option<Role> {
        let held = self.over(resource);
        roles.iter().copied().find(|role| held.until(*role) > now)
    }

    /// Whether any role at all is held over `resource` at `now`.
    pub fn reach(&self, resource: &Resource, now: Timestamp) -> bool {
        self.over(resource).is_any(now)
    }

    /// Whether any role at all is held over everything in `home` at `now`.
    pub fn reach_home(&self, home: &Home, now: Timestamp) -> bool {
        self.over_home(home).is_any(now)
    }

    /// Whether any role at all is held at `now` over `ring` or one of its keys.
    pub fn reach_into(&self, ring: &RingName, now: Timestamp) -> bool {
        let held = self.over_home(&ring.home).with(self.rings.get(ring));
        held.is_any(now)
            || self.keys.iter().any(|(key, held)| key.ring == *ring && held.is_any(now))
    }

    fn over(&self, resource: &Resource) -> Held {
        let Some(ring) = resource.ring() else { return self.appliance };
        let held = self.over_home(&ring.home).with(self.rings.get(ring));
        match resource.key() {
            Some(key) => held.with(self.keys.get(key)),
            None => held,
        }
    }

    fn over_home(&self, home: &Home) -> Held {
        self.appliance.with(self.tenants.get(&home.tenant)).with(self.locations.get(home))
    }
}

/// Until when each role is held; the beginning of time for one that is not.
#[derive(Clone, Copy, Debug, Default)]
struct Held([Timestamp; Role::ALL.len()]);

impl Held {
    const fn until(self, role: Role) -> Timestamp {
        self.0[role as usize]
    }

    fn take(&mut self, role: Role, until: Timestamp) {
        let held = &mut self.0[role as usize];
        *held = until.max(*held);
    }

    /// What is held here and there, by the longer of the two.
    fn with(self, more: Option<&Self>) -> Self {
        let Some(more) = more else { return self };
        Self(core::array::from_fn(|role| self.0[role].max(more.0[role])))
    }

    fn is_any(self, now: Timestamp) -> bool {
        self.0.iter().any(|until| *until > now)
    }
}

const APPLIANCE: &str = "appliance";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100);

    fn home() -> Home {
        Home { tenant: "t".parse().unwrap(), region: "l".parse().unwrap() }
    }

    fn key(text: &str) -> Resource {
        Resource::Version(KeyName::parse(text, &home()).unwrap().version(1))
    }

    fn signs(scope: &str, resource: &Resource) -> bool {
        let grant = Grant::over(Role::CryptoUser, scope.parse().unwrap());
        let rights = Rights::of(vec![grant]);
        let may = rights.role_over(&[Role::CryptoUser], resource, NOW).is_some();
        assert_eq!(may, rights.reach(resource, NOW));
        assert_eq!(rights.role_over(&[Role::KeyManager], resource, NOW), None);
        may
    }

    #[test]
    fn a_role_is_held_over_what_its_scope_names_and_all_below() {
        let elsewhere = |t: &str, l: &str| {
            let home = Home { tenant: t.parse().unwrap(), region: l.parse().unwrap() };
            Resource::Key(KeyName::parse("r/k", &home).unwrap())
        };
        let user = Resource::User("users/a".parse().unwrap());
        let resources = [
            key("r/k"),
            key("r/other"),
            Resource::Ring(RingName::parse("r", &home()).unwrap()),
            key("s/k"),
            elsewhere("t", "m"),
            elsewhere("u", "l"),
            Resource::Appliance,
            user,
        ];
        for (scope, reached) in [
            ("tenants/t/locations/l/keyRings/r/keys/k", 1),
            ("tenants/t/locations/l/keyRings/r", 3),
            ("tenants/t/locations/l", 4),
            ("tenants/t", 5),
            ("appliance", 8),
        ] {
            let seen: Vec<_> = resources.iter().map(|resource| signs(scope, resource)).collect();
            let expected: Vec<_> = (0..resources.len()).map(|at| at < reached).collect();
            assert_eq!(seen, expected, "{scope}");
        }
    }

    #[test]
    fn a_role_ends_at_its_time_and_the_longer_one_counts() {
        let until = |at| Grant {
            expires_at: Some(Timestamp(at)),
            ..Grant::over(Role::Auditor, Scope::Appliance)
        };
        let over = |grants: Vec<Grant>, now| {
            Rights::of(grants).role_over(&[Role::Auditor], &Resource::Appliance, Timestamp(now))
        };
        assert_eq!(over(vec![until(100)], 99), Some(Role::Auditor));
        assert_eq!(over(vec![until(100)], 100), None);
        let ring = Scope::parse("r", &home()).unwrap();
        let longer = Grant { expires_at: Some(Timestamp(200)), ..Grant::over(Role::Auditor, ring) };
        let rights = Rights::of(vec![until(100), longer]);
        let at = |now| rights.reach(&key("r/k"), Timestamp(now));
        assert!(at(99) && at(199) && !at(200));
        assert!(!rights.reach(&Resource::Appliance, Timestamp(150)));
    }

    #[test]
    fn the_first_role_that_is_asked_for_is_the_one_that_is_told() {
        let roles = [Role::KeyManager, Role::Auditor, Role::SecurityOfficer];
        let grants = roles.map(|role| Grant::over(role, Scope::Appliance)).to_vec();
        let rights = Rights::of(grants);
        let asked = [Role::CryptoUser, Role::SecurityOfficer, Role::Auditor];
        let told = rights.role_over(&asked, &Resource::Appliance, NOW);
        assert_eq!(told, Some(Role::SecurityOfficer));
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for (short, full) in [
            ("r", "tenants/t/locations/l/keyRings/r"),
            ("r/k", "tenants/t/locations/l/keyRings/r/keys/k"),
            ("tenants/u", "tenants/u"),
            ("tenants/u/locations/m", "tenants/u/locations/m"),
        ] {
            let scope = Scope::parse(short, &home()).unwrap();
            assert_eq!(scope.to_string(), full);
            assert_eq!(full.parse(), Ok(scope));
        }
        assert_eq!("appliance".parse(), Ok(Scope::Appliance));
        for bad in ["", "R", "tenants/", "tenants/t/", "tenants/t/locations", "r/k@1", "a/b/c"] {
            assert!(Scope::parse(bad, &home()).is_err(), "{bad:?}");
        }
        assert!("r".parse::<Scope>().is_err());
    }

    /// Ten thousand roles are asked as fast as one: no list of them is walked.
    #[test]
    fn many_roles_are_held_apart() {
        let scope = |at: usize| Scope::parse(&format!("r/k{at}"), &home()).unwrap();
        let grants = (0..10_000).map(|at| Grant::over(Role::CryptoUser, scope(at))).collect();
        let rights = Rights::of(grants);
        let may = |name: &str| rights.role_over(&[Role::CryptoUser], &key(name), NOW).is_some();
        assert!(may("r/k0") && may("r/k9999") && !may("r/k10000"));
    }
}
