//! Identities: what the one URI name of a certificate says.

use x509_parser::extensions::GeneralName;

use super::PkiError;

/// What a caller may do. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Monitor,
    /// Start, stop, swap.
    Control,
    /// Everything.
    Admin,
}

impl Role {
    /// As written in certificates and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Control => "control",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Monitor, Self::Control, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A node of the cluster: `safed://CLUSTER/NODE`.
    Node(String),
    /// A person or program: `safed://CLUSTER/role/ROLE/NAME`.
    User {
        /// What it may do.
        role: Role,
        /// Who it is.
        name: String,
    },
}

impl Identity {
    /// The URI name.
    #[must_use]
    pub fn uri(&self, cluster: &str) -> String {
        match self {
            Self::Node(node) => format!("safed://{cluster}/{node}"),
            Self::User { role, name } => format!("safed://{cluster}/role/{}/{name}", role.name()),
        }
    }

    /// Reads a URI name of this cluster.
    #[must_use]
    pub fn parse(uri: &str, cluster: &str) -> Option<Self> {
        let path = uri.strip_prefix("safed://")?.strip_prefix(cluster)?.strip_prefix('/')?;
        let well = |name: &str| safe_proto::settings::label("identity", name).is_ok();
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [node] if well(node) => Some(Self::Node((*node).to_owned())),
            ["role", role, name] if well(name) => {
                Some(Self::User { role: Role::parse(role)?, name: (*name).to_owned() })
            }
            _ => None,
        }
    }

    /// The identity in a certificate whose chain was verified.
    ///
    /// # Errors
    /// It is not readable, or does not carry exactly one name of this cluster.
    pub fn of_certificate(der: &[u8], cluster: &str) -> Result<Self, PkiError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| PkiError::new("the certificate is not readable", error))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| PkiError::new("the certificate's names are not readable", error))?
            .ok_or_else(|| PkiError("the certificate carries no name".to_owned()))?;
        let mut found = None;
        for name in &names.value.general_names {
            let GeneralName::URI(uri) = name else { continue };
            if found.is_some() {
                return Err(PkiError("the certificate carries more than one URI name".to_owned()));
            }
            found = Some(Self::parse(uri, cluster).ok_or_else(|| {
                let shown: String = uri.chars().take(100).flat_map(char::escape_default).collect();
                PkiError(format!("the certificate's name {shown} is not of cluster {cluster}"))
            })?);
        }
        found.ok_or_else(|| PkiError("the certificate carries no URI name of a cluster".to_owned()))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::User { role, name } => write!(f, "{name} ({})", role.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_come_back() {
        let node = Identity::Node("role".to_owned());
        let user = Identity::User { role: Role::Control, name: "ann".to_owned() };
        for identity in [node, user] {
            assert_eq!(Identity::parse(&identity.uri("demo"), "demo"), Some(identity));
        }
    }

    #[test]
    fn foreign_and_odd_uris_are_nobody() {
        for uri in [
            "safed://demo2/n1",
            "safed://demo/",
            "safed://demo",
            "safed://demo/role/king/ann",
            "safed://demo/role/admin/",
            "safed://demo/role/admin/a/b",
            "safed://demo/n1/x",
            "safed://demo/N1",
            "https://demo/n1",
        ] {
            assert_eq!(Identity::parse(uri, "demo"), None, "{uri}");
        }
    }
}
