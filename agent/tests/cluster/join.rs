//! init, invite, join: what lets a node in, and what does not.

use std::os::unix::fs::PermissionsExt as _;

use safe_proto::node::GetVersionRequest;
use safed::token::Token;
use tonic::Code;

use crate::host::{Host, pair};

#[tokio::test(flavor = "multi_thread")]
async fn version_is_answered_before_there_is_a_cluster() {
    let host = Host::new("127.77.10.1");
    let version = host.node().await.get_version(GetVersionRequest {}).await.unwrap().into_inner();
    assert_eq!((version.node.as_str(), version.cluster.as_str()), ("", ""));
    assert_eq!(version.protocols, [safe_proto::PROTOCOL]);
    let error =
        host.node().await.init_cluster(safe_proto::node::InitClusterRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_join_and_hear_each_other() {
    let (first, second) = pair(11).await;
    let status = second.cluster_status().await;
    assert_eq!((status.cluster.as_str(), status.node.as_str(), status.settings_version), ("demo", "n2", 2));
    let version = second.node().await.get_version(GetVersionRequest {}).await.unwrap().into_inner();
    assert_eq!((version.node.as_str(), version.cluster.as_str()), ("n2", "demo"));
    for entry in std::fs::read_dir(second.context.paths.cluster()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let error = second.init("other", "n9").await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    first.audited("join as node n2 | done").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_with_its_reason_and_nothing_is_written() {
    let (first, second) = (Host::new("127.77.12.1"), Host::new("127.77.12.2"));
    let token = first.init("demo", "n1").await.unwrap();
    second.join(&token, "n2").await.unwrap();
    let third = Host::new("127.77.12.3");

    let used = third.join(&token, "n3").await.unwrap_err();
    assert_eq!(used.code(), Code::Unauthenticated);
    assert!(used.message().contains("was used by node n2"), "{used}");

    let fresh = first.invite().await;
    let mut altered = fresh.clone();
    altered.replace_range(20..=20, if &fresh[20..=20] == "A" { "B" } else { "A" });
    let error = third.join(&altered, "n3").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("altered"), "{error}");

    let (expired, _) = first.cluster.invite(1).unwrap();
    let mut said = String::new();
    for _ in 0..500 {
        // The name is taken until the token expires: nobody gets in.
        said = third.join(&expired, "n2").await.unwrap_err().message().to_owned();
        if said.contains("expired") {
            break;
        }
    }
    assert!(said.contains("the token has expired"), "{said}");

    let taken = third.join(&fresh, "n2").await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    assert!(!third.is_member());
    // A refused name does not spend the token.
    third.join(&fresh, "n3").await.unwrap();
    third.reaches(&["n1", "n2", "n3"]).await;
    second.reaches(&["n1", "n2", "n3"]).await;
    for host in [first, second, third] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_is_refused() {
    let (ours, theirs) = (Host::new("127.77.13.1"), Host::new("127.77.13.2"));
    let ours_token = Token::decode(&ours.init("demo", "n1").await.unwrap()).unwrap();
    let theirs_token = Token::decode(&theirs.init("demo", "n1").await.unwrap()).unwrap();
    let joiner = Host::new("127.77.13.3");
    // It leads to a node of another CA: the secret is not even sent.
    let led_astray = Token { endpoints: theirs_token.endpoints.clone(), ..ours_token.clone() };
    let error = joiner.join(&led_astray.encode(), "n2").await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    assert!(error.message().contains("another cluster"), "{error}");
    // A secret that the node does not know.
    let unknown = Token { secret: [9; 32], ..theirs_token };
    let error = joiner.join(&unknown.encode(), "n2").await.unwrap_err();
    assert!(error.message().contains("another cluster"), "{error}");
    // Nobody there.
    let nowhere = Token { endpoints: vec!["127.77.13.99:9400".parse().unwrap()], ..ours_token };
    let error = joiner.join(&nowhere.encode(), "n2").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(!joiner.is_member());
    for host in [ours, theirs, joiner] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_in_with_one_token() {
    let first = Host::new("127.77.14.1");
    let token = first.init("demo", "n1").await.unwrap();
    let joiners: Vec<Host> = (2..6).map(|number| Host::new(&format!("127.77.14.{number}"))).collect();
    let names = ["n2", "n3", "n4", "n5"];
    let attempts = joiners.iter().zip(names).map(|(host, name)| host.join(&token, name));
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(joiners.iter().filter(|host| host.is_member()).count(), 1);
    assert_eq!(first.cluster_status().await.nodes.len(), 2);
    first.stop().await;
    for host in joiners {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_refused_before_anything_is_written() {
    let host = Host::new("203.0.113.5");
    let error = host.init("demo", "n1").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("not on this machine"), "{error}");
    assert!(!host.is_member());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_learns_of_new_nodes_also_when_the_one_that_admitted_them_is_gone() {
    let (first, second) = pair(15).await;
    let second = second.pause().await;
    let third = Host::new("127.77.15.3");
    third.join(&first.invite().await, "n3").await.unwrap();
    third.reaches(&["n1", "n3"]).await;
    first.stop().await;
    let second = second.resume();
    second.reaches(&["n2", "n3"]).await;
    third.reaches(&["n2", "n3"]).await;
    assert_eq!(second.cluster_status().await.settings_version, 3);
    second.stop().await;
    third.stop().await;
}
