//! TLS settings of every connection: version 1.3 only, both sides certified.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::PkiError;
use super::verify::{Expect, Verifier};
use crate::clock;

/// 2026-01-01: no safed ran before. A clock that says less is a clock that was never set.
const EPOCH: u64 = 1_767_225_600;

/// A node's certificate, key and CA, ready for TLS.
#[derive(Debug)]
pub struct Credentials {
    cluster: String,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Credentials {
    /// Reads PEM.
    ///
    /// # Errors
    /// Any of them is not readable.
    pub fn new(cluster: &str, ca: &str, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let ca = CertificateDer::from_pem_slice(ca.as_bytes())
            .map_err(|error| PkiError::new("the CA certificate is not readable", error))?;
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| PkiError::new("the certificate is not readable", error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| PkiError::new("the key is not readable", error))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|error| PkiError::new("the CA certificate is not usable", error))?;
        // The CA goes along, so that a joining node can compare it with its token.
        let chain = vec![leaf, ca];
        Ok(Self { cluster: cluster.to_owned(), chain, key, roots: Arc::new(roots), provider: provider() })
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// For port 9400. A client certificate is not demanded here because a joining node has none; whoever shows one
    /// must have it from this CA. What a caller without one may do is decided per call.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn server(&self) -> Result<ServerConfig, PkiError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| PkiError::new("the CA is not usable", error))?;
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(Clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| PkiError::new("TLS 1.3 is not available", error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| PkiError::new("the node certificate is not usable", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // No resumption: every connection proves its identity anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Towards a node of the cluster, which must be the one named.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn client(&self, node: &str) -> Result<ClientConfig, PkiError> {
        let expect = Expect::Node {
            cluster: self.cluster.clone(),
            node: node.to_owned(),
            roots: Arc::clone(&self.roots),
        };
        let mut config = client(expect, &self.provider)?
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| PkiError::new("the certificate is not usable", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// For joining: the server must show the CA with this fingerprint before anything is said to it.
///
/// # Errors
/// TLS 1.3 is not available.
pub fn joining(cluster: &str, ca: [u8; 32]) -> Result<ClientConfig, PkiError> {
    let provider = provider();
    let expect = Expect::Fingerprint { cluster: cluster.to_owned(), ca };
    let mut config = client(expect, &provider)?.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Whether a failed connection failed because the server is of another cluster than the token.
#[must_use]
pub fn is_foreign(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(super::verify::FOREIGN)
            || format!("{error:?}").contains(super::verify::FOREIGN)
        {
            return true;
        }
        next = error.source();
    }
    false
}

pub(super) type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

pub(super) fn client(expect: Expect, provider: &Arc<CryptoProvider>) -> Result<ClientBuilder, PkiError> {
    let verifier = Verifier { expect, provider: Arc::clone(provider) };
    Ok(ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| PkiError::new("TLS 1.3 is not available", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The wall clock as far as certificates are concerned.
#[derive(Debug)]
pub(super) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = clock::unix_s().max(EPOCH);
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
