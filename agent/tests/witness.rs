//! A witness and nodes of several clusters, over real connections.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use safe_proto::witness::witness_service_client::WitnessServiceClient;
use safe_proto::witness::{
    ReadRecordRequest, ReadRecordResponse, RegisterRequest, SwapRecordRequest, SwapRecordResponse,
};
use safed::audit::Audit;
use safed::peer::dial;
use safed::pki::authority::Request;
use safed::pki::{Authority, Credentials, NodeKey};
use safed::token::Token;
use safed::witness::{TOKEN, Witness};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(10);

struct Place {
    witness: Arc<Witness>,
    end: CancellationToken,
}

fn start(directory: &Path) -> Place {
    let end = CancellationToken::new();
    let audit = Audit::start(&directory.join("audit.log")).unwrap();
    Place { witness: Witness::start(directory.join("witness"), audit, end.clone()).unwrap(), end }
}

/// A port that was free a moment ago.
fn free(address: &str) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn decoded(token: &str) -> Token {
    Token::decode(token.strip_prefix(TOKEN).unwrap()).unwrap()
}

/// A node of a cluster with a CA of its own.
struct Node {
    cluster: String,
    credentials: Credentials,
}

fn node(authority: &Authority, cluster: &str, name: &str) -> Node {
    let key = NodeKey::generate(name).unwrap();
    let request = Request::parse(&key.request).unwrap();
    let certificate = authority.certify_node(request, name, &["127.0.0.1".parse().unwrap()]).unwrap();
    let credentials = Credentials::new(cluster, authority.certificate(), &certificate, &key.key).unwrap();
    Node { cluster: cluster.to_owned(), credentials }
}

impl Node {
    async fn client(&self, token: &Token) -> WitnessServiceClient<Channel> {
        let config = self.credentials.towards_witness(&token.cluster, token.ca).unwrap();
        let stream = dial::connect(token.endpoints[0], None, Arc::new(config), PATIENCE).await.unwrap();
        WitnessServiceClient::new(dial::channel_over(stream).await.unwrap())
    }

    async fn register(&self, token: &Token) -> Result<(), Status> {
        let request = RegisterRequest {
            protocol: safe_proto::PROTOCOL,
            secret: token.secret.to_vec(),
            cluster: self.cluster.clone(),
        };
        self.client(token).await.register(request).await.map(drop)
    }

    async fn read(&self, token: &Token, module: &str) -> Result<ReadRecordResponse, Status> {
        let request = ReadRecordRequest { module: module.to_owned() };
        Ok(self.client(token).await.read_record(request).await?.into_inner())
    }

    async fn swap(&self, token: &Token, expect: &[u8], lineage: &[u8]) -> Result<SwapRecordResponse, Status> {
        let request =
            SwapRecordRequest { module: "db".to_owned(), expect: expect.to_vec(), lineage: lineage.to_vec() };
        Ok(self.client(token).await.swap_record(request).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cluster_has_its_own_records_and_they_outlive_the_witness() {
    let directory = tempfile::tempdir().unwrap();
    let place = start(directory.path());
    let address = ["127.77.9.1".to_owned()];
    let (token, _) = place.witness.init("third", &address, free("127.77.9.1")).unwrap();
    let token = decoded(&token);
    let (one, other) = (Authority::create("one").unwrap(), Authority::create("other").unwrap());
    let (n1, n2) = (node(&one, "one", "n1"), node(&one, "one", "n2"));
    let stranger = node(&other, "other", "n1");
    assert_eq!(n1.read(&token, "db").await.unwrap_err().code(), Code::PermissionDenied);
    n1.register(&token).await.unwrap();
    n2.register(&token).await.unwrap();
    // The token was good for one cluster.
    assert_eq!(stranger.register(&token).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(stranger.read(&token, "db").await.unwrap_err().code(), Code::PermissionDenied);

    assert!(n1.read(&token, "db").await.unwrap().record.is_none());
    assert!(n1.swap(&token, &[], &[1; 16]).await.unwrap().swapped);
    let late = n2.swap(&token, &[], &[2; 16]).await.unwrap();
    assert!(!late.swapped);
    let record = late.record.unwrap();
    assert_eq!((record.lineage, record.owner.as_str(), record.serial), (vec![1; 16], "n1", 1));
    assert_eq!(n2.swap(&token, &[1; 3], &[2; 16]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(n2.swap(&token, &[1; 16], &[0; 16]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(n2.read(&token, "../db").await.unwrap_err().code(), Code::InvalidArgument);

    place.end.cancel();
    let again = start(directory.path());
    let (second, _) = again.witness.invite(600).unwrap();
    stranger.register(&decoded(&second)).await.unwrap();
    assert!(stranger.read(&token, "db").await.unwrap().record.is_none(), "records of another cluster");
    assert!(stranger.swap(&token, &[], &[9; 16]).await.unwrap().swapped);
    assert_eq!(n2.read(&token, "db").await.unwrap().record.unwrap().lineage, vec![1; 16]);
    let shown = again.witness.show().unwrap();
    let owners: Vec<_> = shown
        .clusters
        .iter()
        .map(|known| (known.cluster.as_str(), known.modules.len(), known.modules[0].owner.as_str()))
        .collect();
    assert_eq!(owners, [("one", 1, "n1"), ("other", 1, "n1")]);
    again.witness.expel("other").unwrap();
    assert_eq!(stranger.read(&token, "db").await.unwrap_err().code(), Code::PermissionDenied);
    again.end.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let place = start(directory.path());
    let address = ["127.77.9.2".to_owned()];
    let (token, _) = place.witness.init("third", &address, free("127.77.9.2")).unwrap();
    let token = decoded(&token);
    let one = Authority::create("one").unwrap();
    node(&one, "one", "n1").register(&token).await.unwrap();
    // A cluster of the same name with a CA of its own, also with a good token.
    let same = node(&Authority::create("one").unwrap(), "one", "n1");
    let (second, _) = place.witness.invite(600).unwrap();
    assert_eq!(same.register(&decoded(&second)).await.unwrap_err().code(), Code::AlreadyExists);
    // A certificate of one cluster, shown with the CA of another: the handshake ends, or the first call fails.
    let key = NodeKey::generate("n1").unwrap();
    let certificate = Authority::create("one")
        .unwrap()
        .certify_node(Request::parse(&key.request).unwrap(), "n1", &["127.0.0.1".parse().unwrap()])
        .unwrap();
    let mixed = Credentials::new("one", one.certificate(), &certificate, &key.key).unwrap();
    let config = mixed.towards_witness(&token.cluster, token.ca).unwrap();
    let refused = async {
        let stream = dial::connect(token.endpoints[0], None, Arc::new(config), PATIENCE).await.ok()?;
        let channel = dial::channel_over(stream).await.ok()?;
        let request = ReadRecordRequest { module: "db".to_owned() };
        WitnessServiceClient::new(channel).read_record(request).await.ok()
    };
    assert!(refused.await.is_none());
    // Whoever answers in the witness's place has another CA.
    let wrong = node(&one, "one", "n1").credentials.towards_witness(&token.cluster, [7; 32]).unwrap();
    let endpoint: SocketAddr = token.endpoints[0];
    assert!(dial::connect(endpoint, None, Arc::new(wrong), PATIENCE).await.is_err());
    place.end.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_made_once_and_not_half() {
    let directory = tempfile::tempdir().unwrap();
    let place = start(directory.path());
    let port = free("127.77.9.3");
    let at = |ip: &str| [ip.to_owned()];
    assert!(place.witness.invite(0).unwrap_err().to_string().contains("witness init"));
    let error = place.witness.init("third", &at("203.0.113.9"), port).unwrap_err().to_string();
    assert!(error.contains("not on this machine"), "{error}");
    assert!(place.witness.init("Third", &at("127.77.9.3"), port).is_err());
    let other = std::net::TcpListener::bind(("127.77.9.3", port)).unwrap();
    let error = place.witness.init("third", &at("127.77.9.3"), port).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    drop(other);
    assert!(!directory.path().join("witness").exists(), "nothing was left");
    place.witness.init("third", &at("127.77.9.3"), port).unwrap();
    assert!(place.witness.init("third", &at("127.77.9.3"), port).is_err());
    place.end.cancel();
}
