//! Who is not of the cluster, or may not do what he asks.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use safe_proto::cluster::cluster_service_client::ClusterServiceClient;
use safe_proto::cluster::{GetClusterRequest, InviteRequest};
use safe_proto::node::node_service_client::NodeServiceClient;
use safe_proto::node::{GetVersionRequest, InitClusterRequest};
use safe_proto::peer::GreetRequest;
use safe_proto::peer::peer_service_client::PeerServiceClient;
use safed::peer::dial;
use safed::pki::{Authority, Identity, Role};
use tokio::io::AsyncWriteExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::host::{Host, pair};

/// A client of the cluster's first node, with the certificate and key given.
fn config(host: &Host, identity: Option<(String, String)>) -> rustls::ClientConfig {
    let ca = host.cluster.joined().unwrap().held.ca.clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn channel(host: &Host, identity: Option<(String, String)>, address: &str) -> Option<Channel> {
    let config = Arc::new(config(host, identity));
    let stream = dial::connect(address.parse().unwrap(), None, config, Duration::from_secs(5)).await.ok()?;
    dial::channel_over(stream).await.ok()
}

fn user(host: &Host, role: Role) -> (String, String) {
    let held = &host.cluster.joined().unwrap().held;
    let authority = Authority::load("demo", &held.ca, &held.ca_key).unwrap();
    authority.issue_user(&Identity::User { role, name: "ann".to_owned() }, 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nothing_but_join_is_answered() {
    let (first, second) = pair(30).await;
    let channel = channel(&first, None, "127.77.30.1:9400").await.unwrap();
    let version =
        NodeServiceClient::new(channel.clone()).get_version(GetVersionRequest {}).await.unwrap_err();
    assert_eq!(version.code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let health = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(health.code(), Code::Unauthenticated);
    first.audited("stranger at 127.0.0.1").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_ends_the_handshake_with_an_audit_line() {
    let (first, second) = pair(31).await;
    let before = first.cluster_status().await;
    let foreign = Authority::create("demo").unwrap();
    let admin = Identity::User { role: Role::Admin, name: "mallory".to_owned() };
    let identity = foreign.issue_user(&admin, 1).unwrap();
    let refused = match channel(&first, Some(identity), "127.77.31.1:9400").await {
        None => true,
        // In TLS 1.3 the client may think it is done before it is refused.
        Some(channel) => NodeServiceClient::new(channel).get_version(GetVersionRequest {}).await.is_err(),
    };
    assert!(refused);
    first.audited("refused at port 9400").await;
    assert_eq!(first.cluster_status().await.settings_version, before.settings_version);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_checked_on_every_call() {
    let (first, second) = pair(32).await;
    let address = "127.77.32.1:9400";
    let monitor = channel(&first, Some(user(&first, Role::Monitor)), address).await.unwrap();
    let mut cluster = ClusterServiceClient::new(monitor.clone());
    assert_eq!(cluster.get_cluster(GetClusterRequest {}).await.unwrap().into_inner().nodes.len(), 2);
    let error = cluster.invite(InviteRequest { ttl_s: 0 }).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    let greet = GreetRequest { protocols: vec![1], ..GreetRequest::default() };
    let error = PeerServiceClient::new(monitor).greet(greet).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    let admin = channel(&first, Some(user(&first, Role::Admin)), address).await.unwrap();
    let mut cluster = ClusterServiceClient::new(admin.clone());
    assert!(cluster.invite(InviteRequest { ttl_s: 0 }).await.is_ok());
    let error = NodeServiceClient::new(admin).init_cluster(InitClusterRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    first.audited("ann (monitor)").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_version_nobody_knows_is_refused() {
    let (first, second) = pair(33).await;
    let held = first.cluster.joined().unwrap().held.clone();
    let node = channel(&first, Some((held.certificate, held.key)), "127.77.33.2:9400").await.unwrap();
    let greet = GreetRequest { protocols: vec![99], ..GreetRequest::default() };
    let error = PeerServiceClient::new(node).greet(greet).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("99"), "{error}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_to_their_module_and_others_are_closed() {
    let (first, second) = pair(34).await;
    crate::calls::install_db(&first).await;
    let address = "127.77.34.1:9402";
    let knock = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config(&first, None)), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let hello = knock("db");
    let (begin, end) = hello.split_at(100);
    stream.write_all(begin).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(end).await.unwrap();
    first.until("the stream", |told| told.streams == ["db"]).await;
    let mut stranger = tokio::net::TcpStream::connect(address).await.unwrap();
    stranger.write_all(&knock("nobody")).await.unwrap();
    first.audited("module nobody is not on this node").await;
    assert_eq!(first.told.lock().streams.len(), 1);
    first.stop().await;
    second.stop().await;
}
