//! Who is who: the cluster CA, the certificates it issues, and how a connection is told apart from a stranger's.

pub mod authority;
pub mod identity;
pub mod tls;
mod verify;
mod witness;

pub use authority::{Authority, NodeKey};
pub use identity::{Identity, Role};
pub use tls::Credentials;

/// Why a certificate could not be made, read or believed; one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PkiError(pub String);

impl PkiError {
    fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}
