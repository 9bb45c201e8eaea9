//! Verification of a node this process connects to: by chain and node name, or by the fingerprint in a token.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::authority::fingerprint;
use super::{Identity, PkiError};

/// Whom the connection must lead to.
#[derive(Debug)]
pub(super) enum Expect {
    /// This node of the cluster with this CA. Addresses do not matter: they may change, names do not.
    Node { cluster: String, node: String, roots: Arc<RootCertStore> },
    /// Any node whose chain ends in the CA with this fingerprint.
    Fingerprint { cluster: String, ca: [u8; 32] },
}

/// The verifier.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) expect: Expect,
    pub(super) provider: Arc<CryptoProvider>,
}

/// The CA the server shows is not the one of the token.
pub(super) const FOREIGN: &str = "the server does not belong to the cluster of the token";

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match &self.expect {
            Expect::Node { cluster, node, roots } => {
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms)?;
                let found = Identity::of_certificate(end_entity, cluster).map_err(other)?;
                if found != Identity::Node(node.clone()) {
                    return Err(other(PkiError(format!("node {node} was expected, {found} answered"))));
                }
            }
            Expect::Fingerprint { cluster, ca } => {
                let root = intermediates.iter().find(|certificate| fingerprint(certificate) == *ca);
                let root = root.ok_or_else(|| other(PkiError(FOREIGN.to_owned())))?;
                let mut roots = RootCertStore::empty();
                roots.add(root.clone().into_owned())?;
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
                let found = Identity::of_certificate(end_entity, cluster).map_err(other)?;
                if !matches!(found, Identity::Node(_)) {
                    return Err(other(PkiError(format!("a node was expected, {found} answered"))));
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn other(error: PkiError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
