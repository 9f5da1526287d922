//! What a change changes: a ring, a key or a version, each with what it stands in.

use std::fmt::Debug;
use std::future::Future;

use kms_core::action::Action;
use kms_core::id::{KeyName, Resource, RingName, VersionName};
use kms_core::key::{Key, Ring, Version};
use kms_core::lifecycle::Transition;
use kms_core::permit::Subject;
use kms_proto::v1;

use super::changes::{change_key, change_version, erased};
use super::{Found, load_key, load_key_or_tombstone, load_ring, load_version};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::rows::{self, Draft, Record, Stored};
use crate::wire::{KeyOrVersion, key_out, object_out, ring_out, version_out};

/// Something with one row of its own that operations change.
pub(crate) trait Target: Send + Sync + Sized {
    /// What it is called.
    type Name: Clone + Debug + Send + Sync;
    /// Its row.
    type Row: Record;
    /// What callers see of it.
    type Shown: Send;

    /// The resource of that name.
    fn resource(name: &Self::Name) -> Resource;

    /// Reads it. For a retry of the very request that deleted it, it is still there.
    fn load(
        cx: &Context,
        name: &Self::Name,
        is_retry: bool,
    ) -> impl Future<Output = Result<Option<Self>, Early>> + Send;

    /// Its row.
    fn row(&self) -> &Stored<Self::Row>;

    /// What the rules are to know, when the operation takes `transition`.
    fn subject(&self, transition: Option<Transition>) -> Subject<'_>;

    /// What the rules are to know when nothing is changed, since it was before.
    fn subject_unchanged(&self) -> Subject<'_>;

    /// Drafts `after` in place of the row, and what belongs to the change; the row comes first.
    fn drafts(
        &self,
        cx: &Context,
        stamp: &Stamp,
        action: Action,
        after: &Self::Row,
    ) -> Result<Vec<Draft>, Early>;

    /// The slot that is to be erased when `after` is on record.
    fn erased(&self, _after: &Self::Row) -> Option<u64> {
        None
    }

    /// Shows it with `row`, which callers will name by `etag`.
    fn shown(&self, row: &Self::Row, etag: &str, stamp: &Stamp) -> Self::Shown;
}

/// A ring.
#[derive(Debug)]
pub(crate) struct FoundRing(pub(crate) Stored<Ring>);

/// A key in its ring.
#[derive(Debug)]
pub(crate) struct FoundKey {
    pub(crate) ring: Stored<Ring>,
    pub(crate) key: Stored<Key>,
}

/// A key, as PKCS#11 sees it by one of its versions.
#[derive(Debug)]
pub(crate) struct FoundObject {
    pub(crate) ring: Stored<Ring>,
    pub(crate) key: Stored<Key>,
    pub(crate) version: Stored<Version>,
}

impl Target for FoundRing {
    type Name = RingName;
    type Row = Ring;
    type Shown = v1::KeyRing;

    fn resource(name: &RingName) -> Resource {
        Resource::Ring(name.clone())
    }

    async fn load(cx: &Context, name: &RingName, _is_retry: bool) -> Result<Option<Self>, Early> {
        Ok(load_ring(cx, name).await?.map(Self))
    }

    fn row(&self) -> &Stored<Ring> {
        &self.0
    }

    fn subject(&self, _transition: Option<Transition>) -> Subject<'_> {
        Subject::Plain
    }

    fn subject_unchanged(&self) -> Subject<'_> {
        Subject::Plain
    }

    fn drafts(
        &self,
        cx: &Context,
        stamp: &Stamp,
        _action: Action,
        after: &Ring,
    ) -> Result<Vec<Draft>, Early> {
        Ok(vec![rows::replace(&*cx.vault()?, &stamp.operation_id, after, &[], &self.0)?])
    }

    fn shown(&self, row: &Ring, etag: &str, _stamp: &Stamp) -> v1::KeyRing {
        ring_out(row, etag)
    }
}

impl Target for FoundKey {
    type Name = KeyName;
    type Row = Key;
    type Shown = v1::Key;

    fn resource(name: &KeyName) -> Resource {
        Resource::Key(name.clone())
    }

    async fn load(cx: &Context, name: &KeyName, is_retry: bool) -> Result<Option<Self>, Early> {
        let found = match is_retry {
            true => load_key_or_tombstone(cx, name).await?,
            false => load_key(cx, name).await?,
        };
        Ok(found.map(|(ring, key)| Self { ring, key }))
    }

    fn row(&self) -> &Stored<Key> {
        &self.key
    }

    fn subject(&self, _transition: Option<Transition>) -> Subject<'_> {
        Subject::Key(&self.key.value)
    }

    fn subject_unchanged(&self) -> Subject<'_> {
        Subject::Key(&self.key.value)
    }

    fn drafts(
        &self,
        cx: &Context,
        stamp: &Stamp,
        action: Action,
        after: &Key,
    ) -> Result<Vec<Draft>, Early> {
        change_key(cx, stamp, action, &self.key, after)
    }

    fn shown(&self, row: &Key, etag: &str, _stamp: &Stamp) -> v1::Key {
        key_out(row, etag)
    }
}

impl Target for FoundObject {
    type Name = VersionName;
    type Row = Key;
    type Shown = v1::TokenObject;

    fn resource(name: &VersionName) -> Resource {
        Resource::Key(name.key.clone())
    }

    async fn load(
        cx: &Context,
        name: &VersionName,
        _is_retry: bool,
    ) -> Result<Option<Self>, Early> {
        let found = Found::load(cx, name, false).await?;
        Ok(found.map(|Found { ring, key, version }| Self {
            ring: Stored::clone(&ring),
            key: Stored::clone(&key),
            version: Stored::clone(&version),
        }))
    }

    fn row(&self) -> &Stored<Key> {
        &self.key
    }

    fn subject(&self, _transition: Option<Transition>) -> Subject<'_> {
        Subject::Key(&self.key.value)
    }

    fn subject_unchanged(&self) -> Subject<'_> {
        Subject::Key(&self.key.value)
    }

    fn drafts(
        &self,
        cx: &Context,
        stamp: &Stamp,
        action: Action,
        after: &Key,
    ) -> Result<Vec<Draft>, Early> {
        change_key(cx, stamp, action, &self.key, after)
    }

    fn shown(&self, row: &Key, _etag: &str, stamp: &Stamp) -> v1::TokenObject {
        object_out(row, &self.version.value, stamp.now)
    }
}

impl Target for Found {
    type Name = VersionName;
    type Row = Version;
    type Shown = v1::KeyVersion;

    fn resource(name: &VersionName) -> Resource {
        Resource::Version(name.clone())
    }

    async fn load(
        cx: &Context,
        name: &VersionName,
        _is_retry: bool,
    ) -> Result<Option<Self>, Early> {
        Ok(load_version(cx, &KeyOrVersion::Version(name.clone())).await?.found)
    }

    fn row(&self) -> &Stored<Version> {
        &self.version
    }

    fn subject(&self, transition: Option<Transition>) -> Subject<'_> {
        Subject::Version {
            ring: &self.ring.value,
            key: &self.key.value,
            version: &self.version.value,
            transition,
            mechanism: None,
            manner: kms_core::permit::Manner::default(),
        }
    }

    fn subject_unchanged(&self) -> Subject<'_> {
        Subject::Key(&self.key.value)
    }

    fn drafts(
        &self,
        cx: &Context,
        stamp: &Stamp,
        action: Action,
        after: &Version,
    ) -> Result<Vec<Draft>, Early> {
        change_version(cx, stamp, action, &self.version, after)
    }

    fn erased(&self, after: &Version) -> Option<u64> {
        erased(&self.version.value, after)
    }

    fn shown(&self, row: &Version, etag: &str, stamp: &Stamp) -> v1::KeyVersion {
        version_out(row, etag, stamp.now)
    }
}
