//! `safectl version`

use safe_proto::node::GetVersionRequest;
use serde::Serialize;

use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::output;

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Versions {
    safectl: &'static str,
    safed: Option<String>,
    protocols: Vec<u32>,
    node: Option<String>,
    cluster: Option<String>,
}

/// Says which release `safectl` is, and `safed` if it answers.
pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let (versions, failure) = match ask(context).await {
        Ok(versions) => (versions, None),
        Err(failure) => (Versions::of_safectl(), Some(failure)),
    };
    let mut text = format!("safectl {}", versions.safectl);
    if let Some(safed) = &versions.safed {
        text.push_str(&format!("\nsafed   {safed}"));
        match (&versions.node, &versions.cluster) {
            (Some(node), Some(cluster)) => text.push_str(&format!(", node {node} of cluster {cluster}")),
            _ => text.push_str(", in no cluster yet"),
        }
    }
    context.printer.text(&versions, &text)?;
    if versions.safed.is_some() && !versions.protocols.contains(&safe_proto::PROTOCOL) {
        output::note("warning: this safectl and this safed have no version of the API in common");
    }
    failure.map_or(Ok(Exit::Done), Err)
}

impl Versions {
    fn of_safectl() -> Self {
        Self {
            safectl: env!("CARGO_PKG_VERSION"),
            safed: None,
            protocols: vec![safe_proto::PROTOCOL],
            node: None,
            cluster: None,
        }
    }
}

async fn ask(context: &Context) -> Result<Versions, Failure> {
    let client = Client::connect(context).await?;
    let answer = client.call(client.node().get_version(GetVersionRequest {})).await?;
    Ok(Versions {
        safed: Some(answer.version),
        protocols: answer.protocols,
        node: Some(answer.node).filter(|name| !name.is_empty()),
        cluster: Some(answer.cluster).filter(|name| !name.is_empty()),
        ..Versions::of_safectl()
    })
}
