//! TLS between the nodes of many clusters and a witness that belongs to none of them.
//!
//! The witness is known by the fingerprint of its CA, which its token carried. A cluster is known to the witness by the
//! fingerprint of its own: every node shows its certificate and the CA's, and that the one is signed by the other is
//! all that is verified here. Which CA may do what is decided by call.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme,
};

use super::tls::{Clock, client};
use super::verify::Expect;
use super::{Credentials, PkiError};

impl Credentials {
    /// Towards the witness with this name and CA.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn towards_witness(&self, name: &str, ca: [u8; 32]) -> Result<ClientConfig, PkiError> {
        let expect = Expect::Fingerprint { cluster: name.to_owned(), ca };
        let mut config = client(expect, &self.provider)?
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| PkiError::new("the certificate is not usable", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// For the port of a witness: everybody shows a certificate and the CA that signed it, whichever it is.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn as_witness(&self) -> Result<ServerConfig, PkiError> {
        let verifier = Shown { provider: Arc::clone(&self.provider) };
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(Clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| PkiError::new("TLS 1.3 is not available", error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| PkiError::new("the certificate is not usable", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Accepts a certificate signed by the one shown right after it.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let [ca] = intermediates else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_client_cert(end_entity, &[], now)
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
