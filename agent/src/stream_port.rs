//! Port 9402: takes replication streams of all modules, reads the module's name in the ClientHello without consuming
//! it, and hands the socket on. TLS itself, with both certificates, is between the replicators.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Time;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::clock;
use crate::node::{NodeEvent, NodeHandle};

mod hello;

/// Time a caller has to say which module it is about.
const PATIENCE: Duration = Duration::from_secs(2);
/// Callers that may be asked at the same time.
const CALLERS: usize = 128;
/// Between two looks at a ClientHello that is not complete.
const GLANCE: Duration = Duration::from_millis(10);
/// After a failed accept: no descriptors are left, most likely.
const BREATH: Duration = Duration::from_millis(200);
/// Between two audit lines.
const QUIET: Duration = Duration::from_secs(10);

struct Port {
    node: NodeHandle,
    refusals: Refusals,
    callers: Arc<Semaphore>,
}

/// Serves the listeners until `shutdown`. Must be called within the runtime.
///
/// # Errors
/// A listener cannot be registered.
pub fn start(
    listeners: Vec<TcpListener>,
    node: NodeHandle,
    audit: Audit,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let refusals = Refusals { audit, state: Mutex::new((0, None)) };
    let port = Arc::new(Port { node, refusals, callers: Arc::new(Semaphore::new(CALLERS)) });
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (port, shutdown) = (Arc::clone(&port), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = accept(&port, &listener) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    Ok(())
}

async fn accept(port: &Arc<Port>, listener: &tokio::net::TcpListener) {
    loop {
        let Ok(permit) = Arc::clone(&port.callers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let port = Arc::clone(port);
                tokio::spawn(async move {
                    port.take(stream, from).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a replication stream could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

impl Port {
    async fn take(&self, stream: TcpStream, from: SocketAddr) {
        let module = match tokio::time::timeout(PATIENCE, peek(&stream)).await {
            Ok(Ok(module)) => module,
            Ok(Err(why)) => return self.refusals.note(from, &why),
            Err(_) => return self.refusals.note(from, "it did not say which module it is about in time"),
        };
        if !self.node.statuses().borrow().contains_key(&module) {
            return self.refusals.note(from, &format!("module {module} is not on this node"));
        }
        let Ok(socket) = stream.into_std() else { return };
        let event = NodeEvent::Stream { module, socket: socket.into() };
        if let Err(error) = self.node.deliver(event).await {
            tracing::warn!(%error, "a replication stream was not taken");
        }
    }
}

/// The name in the ClientHello, once it has arrived. Nothing is consumed.
async fn peek(stream: &TcpStream) -> Result<String, String> {
    let mut buffer = vec![0; hello::MAX];
    loop {
        stream.readable().await.map_err(|error| error.to_string())?;
        let length = stream.peek(&mut buffer).await.map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("it closed without a word".to_owned());
        }
        match hello::server_name(&buffer[..length]) {
            Ok(Some(name)) => return Ok(name),
            Ok(None) if length == buffer.len() => return Err("its ClientHello is too long".to_owned()),
            // What is peeked stays readable, so readiness says nothing about more.
            Ok(None) => tokio::time::sleep(GLANCE).await,
            Err(why) => return Err(why.to_owned()),
        }
    }
}

/// Refused callers, in the audit log, though not at their own rate.
struct Refusals {
    audit: Audit,
    state: Mutex<(u64, Option<Time>)>,
}

impl Refusals {
    fn note(&self, from: SocketAddr, why: &str) {
        let now = clock::now();
        let mut state = self.state.lock();
        state.0 += 1;
        if state.1.is_none_or(|told| now.since(told) >= QUIET) {
            let (count, _) = std::mem::replace(&mut *state, (0, Some(now)));
            self.audit
                .refused("stream port", &format!("{count} connection(s), the last one from {from}: {why}"));
        }
    }
}
