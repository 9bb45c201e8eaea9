//! What can go wrong with membership, in the words people see.

use safe_proto::settings::SettingsError;

use crate::pki::PkiError;
use crate::settings_store::StoreError;
use crate::token::TokenError;

/// Why something about the cluster is not done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The node belongs to a cluster already.
    #[error(
        "this node belongs to cluster {0} already, as node {1}; `safectl cluster invite` lets another node join it, \
         `safectl help security` says how a node leaves its cluster"
    )]
    Member(String, String),
    /// It belongs to none.
    #[error(
        "this node belongs to no cluster yet: type `safectl cluster init --name NAME --node NODE --address default=IP`, or `safectl cluster join TOKEN ...`"
    )]
    NoCluster,
    /// Something given is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A name or address is taken.
    #[error("{0}")]
    Taken(String),
    /// Address not here, or port in use.
    #[error("{0}")]
    Ports(String),
    /// The token does not let the node in.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// The disk or the system refuses.
    #[error("{0}")]
    Failed(String),
}

impl From<SettingsError> for ClusterError {
    fn from(error: SettingsError) -> Self {
        Self::Invalid(error.0)
    }
}

impl From<StoreError> for ClusterError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<PkiError> for ClusterError {
    fn from(error: PkiError) -> Self {
        Self::Failed(error.0)
    }
}

impl From<ClusterError> for tonic::Status {
    fn from(error: ClusterError) -> Self {
        let message = error.to_string();
        match error {
            ClusterError::Member(..) | ClusterError::Taken(_) => Self::already_exists(message),
            ClusterError::NoCluster | ClusterError::Ports(_) => Self::failed_precondition(message),
            ClusterError::Invalid(_)
            | ClusterError::Token(TokenError::Altered(_) | TokenError::Version(_)) => {
                Self::invalid_argument(message)
            }
            ClusterError::Token(TokenError::Expired | TokenError::Used(_) | TokenError::Foreign) => {
                Self::unauthenticated(message)
            }
            ClusterError::Unreachable(_) => Self::unavailable(message),
            ClusterError::Failed(_) => Self::internal(message),
        }
    }
}
