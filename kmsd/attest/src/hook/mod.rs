//! The policy hook: what a key's owner demands of verified evidence beyond the hard checks.

pub mod rego;
