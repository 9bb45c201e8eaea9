//! A `safed` on the network: TLS 1.3 with a client certificate, the server proven by the cluster's CA.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use safe_proto::spec::quantity;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use crate::context::Endpoint;
use crate::error::{Failure, deepest};

/// Connects.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Channel, Failure> {
    let connector = TlsConnector::from(Arc::new(config(endpoint)?));
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|error| Failure::usage(format!("{:?} is not a host", endpoint.host)).cause(error))?;
    let address = (endpoint.host.clone(), endpoint.port);
    let dial = tower::service_fn(move |_| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    super::endpoint("safed")?
        .connect_with_connector(dial)
        .await
        .map_err(|error| explain(&deepest(&error), endpoint))
}

/// Nobody answered in time: neither a refusal nor a handshake.
pub(super) fn silent(endpoint: &Endpoint, waited: Duration) -> Failure {
    explain(&format!("nothing answered within {}", quantity::format_duration(waited)), endpoint)
}

fn explain(cause: &str, endpoint: &Endpoint) -> Failure {
    let (host, port) = (&endpoint.host, endpoint.port);
    let failure = Failure::failed(format!("cannot connect to the safed at {host}:{port}")).cause(cause);
    if cause.contains("UnknownIssuer") || cause.contains("BadSignature") {
        return failure
            .hint("--ca must be the certificate of that cluster's CA (on its nodes: cluster/ca.pem below /var/lib/safed, or DIR/lib with safed --root DIR)");
    }
    if cause.contains("NotValidForName") {
        return failure
            .hint("use an address of the node on one of the cluster's lans: safectl cluster status");
    }
    failure.hint(format!("on that machine: does safed run (safectl version), and is {port}/tcp open?"))
}

fn config(endpoint: &Endpoint) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&endpoint.ca, "--ca")? {
        roots.add(certificate).map_err(|error| unusable(&endpoint.ca, "--ca").cause(error))?;
    }
    let chain = certificates(&endpoint.cert, "--cert")?;
    let key = PrivateKeyDer::from_pem_file(&endpoint.key)
        .map_err(|error| unusable(&endpoint.key, "--key").cause(error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Failure::failed("TLS 1.3 is not available").cause(error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable(&endpoint.cert, "--cert and --key do not fit together").cause(error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unusable = || unusable(path, option);
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable().cause(error))?.collect();
    let all = all.map_err(|error| unusable().cause(error))?;
    if all.is_empty() { Err(unusable().cause("it holds no certificate")) } else { Ok(all) }
}

fn unusable(path: &Path, option: &str) -> Failure {
    Failure::failed(format!("cannot use {} ({option})", path.display()))
}
