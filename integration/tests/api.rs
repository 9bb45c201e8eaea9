//! The API as others see it: found by reflection, health told, spoken by a third-party client (buf curl).

use std::path::Path;

use safe_integration::cluster::Cluster;
use safe_integration::error::{Error, Result};
use safe_integration::node::{Node, ROOT};

/// The client, as `make tools` installs it.
fn buf(node: &Node, words: &[&str]) -> Result<String> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/buf");
    if !tool.exists() {
        return Err(Error::new("no buf: run `make tools`"));
    }
    let program = node.program(&tool.to_string_lossy())?.arg("curl");
    program
        .arg(format!("--unix-socket={ROOT}/run/safed.sock"))
        .arg("--http2-prior-knowledge")
        .args(words.iter().copied())
        .run()
}

#[test]
fn services_are_found_by_reflection_and_say_how_they_are() -> Result<()> {
    let c = Cluster::two_nodes("api")?;
    let node = c.node(0);
    for version in ["grpc-v1", "grpc-v1alpha"] {
        let listed = buf(
            node,
            &["--list-services", "--protocol", "grpc", "--reflect-protocol", version, "http://localhost"],
        )?;
        for service in ["safe.module.v1.ModuleService", "safe.node.v1.NodeService", "grpc.health.v1.Health"] {
            assert!(listed.contains(service), "{version} does not list {service}: {listed}");
        }
    }
    let method = |name: &str| format!("http://localhost/{name}");
    let call = |name: &str, data: &str| buf(node, &["--protocol", "grpc", "--data", data, &method(name)]);
    let health = call("grpc.health.v1.Health/Check", "{}")?;
    assert!(health.contains("SERVING"), "{health}");
    let version = call("safe.node.v1.NodeService/GetVersion", "{}")?;
    assert!(version.contains("\"cluster\": \"api\"") || version.contains("\"cluster\":\"api\""), "{version}");
    c.finish()
}

#[test]
fn answers_for_programs_are_json() -> Result<()> {
    let c = Cluster::two_nodes("json")?;
    for line in [
        "status -o json",
        "cluster status -o json",
        "module list -o json",
        "version -o json",
        "events -o json",
    ] {
        let said = c.node(1).safectl(line)?;
        serde_json::from_str::<serde_json::Value>(&said)
            .map_err(|error| Error::new(format!("{line}: {error}: {said}")))?;
    }
    c.finish()
}
