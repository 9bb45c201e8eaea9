//! `--endpoint`: TLS with a client certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::fake::{Fake, Script};
use super::{Said, pair, safectl};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self, names: Vec<SanType>) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a client's files and answers the options that name them.
    fn client(&self, directory: &Path, name: &str) -> Vec<String> {
        let (certificate, key) = self.issue(Vec::new());
        let write = |kind: &str, text: String| {
            let path: PathBuf = directory.join(format!("{name}-{kind}.pem"));
            std::fs::write(&path, text).unwrap();
            [format!("--{kind}"), path.display().to_string()]
        };
        let files = [
            write("ca", self.certificate.pem()),
            write("cert", certificate.pem()),
            write("key", key.serialize_pem()),
        ];
        files.concat()
    }

    fn server(&self) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let (certificate, key) = self.issue(vec![SanType::IpAddress(HERE)]);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// Ends TLS in front of the fake's socket; answers its port.
fn tls_in_front(fake: &Fake, authority: &Authority) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(authority.server()));
    let socket = fake.root().join("run/safed.sock");
    let listener = fake.runtime().block_on(TcpListener::bind((HERE, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    fake.runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = UnixStream::connect(socket).await.unwrap();
                // Either end may close first.
                drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
            });
        }
    });
    port
}

fn from_afar(url: &str, files: &[String], command: &str) -> Said {
    let mut words = vec!["--endpoint", url];
    words.extend(files.iter().map(String::as_str));
    words.push(command);
    safectl(&words)
}

#[test]
fn an_endpoint_is_reached_with_a_certificate_of_its_cluster_only() {
    let fake = Fake::start(Script { status: pair(), ..Script::default() });
    let authority = Authority::new();
    let url = format!("https://{HERE}:{}", tls_in_front(&fake, &authority));
    let files = authority.client(fake.root(), "ours");
    let said = from_afar(&url, &files, "status");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("PRIM"), "{}", said.out);

    let strangers = Authority::new().client(fake.root(), "theirs");
    let said = from_afar(&url, &strangers, "status");
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.err.contains("--ca must be the certificate of that cluster's CA"), "{}", said.err);

    // The right CA, but a certificate of another one: refused by the server.
    let mixed = [&files[..2], &strangers[2..]].concat();
    let said = from_afar(&url, &mixed, "status");
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.err.contains("did not accept your certificate"), "{}", said.err);
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let files = Authority::new().client(directory.path(), "ours");
    // Nobody listens on the discard port.
    let said = from_afar("https://127.0.0.1:9", &files, "status");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("cannot connect to the safed at 127.0.0.1:9"), "{}", said.err);
    assert!(said.err.contains("is 9/tcp open?"), "{}", said.err);
    let absent = [&files[..4], &["--key".to_owned(), "/absent.pem".to_owned()]].concat();
    let said = from_afar("https://127.0.0.1:9", &absent, "status");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("cannot use /absent.pem (--key)"), "{}", said.err);
}
