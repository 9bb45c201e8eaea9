//! The ports of a member, bound before anything is written, so that a wrong address or a port in use is said first.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use safe_proto::settings::ClusterSettings;
use socket2::{Domain, Protocol, Socket, Type};

use super::{ApiListeners, ClusterError};
use crate::{clock, heartbeat};

/// How long a killed predecessor may take to let go of its ports.
const DYING: Duration = Duration::from_secs(2);
/// Between two attempts meanwhile.
const GLANCE: Duration = Duration::from_millis(20);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Everything bound.
#[derive(Debug)]
pub(super) struct Bound {
    /// Heartbeat socket of each lan.
    pub(super) heartbeats: BTreeMap<String, Arc<UdpSocket>>,
    streams: Vec<TcpListener>,
    api: Vec<TcpListener>,
}

impl Bound {
    /// Binds all ports on all addresses of this node, as a member that starts again: an address need not be on the
    /// machine yet, because at boot an interface may come up after safed; and a port may be in use for a moment, by a
    /// predecessor that was killed and is not quite dead.
    pub(super) fn again(settings: &ClusterSettings, node: &str) -> Result<Self, ClusterError> {
        let deadline = clock::now() + DYING;
        loop {
            match Self::bind(settings, node, true) {
                Err(failure) if failure.kind == ErrorKind::AddrInUse && clock::now() < deadline => {
                    std::thread::sleep(GLANCE);
                }
                outcome => return outcome.map_err(|failure| ClusterError::Ports(failure.message)),
            }
        }
    }

    /// Binds all ports on all addresses of this node, as a new member.
    pub(super) fn first(settings: &ClusterSettings, node: &str) -> Result<Self, ClusterError> {
        Self::bind(settings, node, false).map_err(|failure| ClusterError::Ports(failure.message))
    }

    fn bind(settings: &ClusterSettings, node: &str, later: bool) -> Result<Self, Failure> {
        let missing = || Failure {
            kind: ErrorKind::NotFound,
            message: format!("node {node} is not in the cluster settings"),
        };
        let node = settings.node(node).ok_or_else(missing)?;
        let ports = settings.ports;
        let mut bound = Self { heartbeats: BTreeMap::new(), streams: Vec::new(), api: Vec::new() };
        for (lan, address) in &node.addresses {
            let at = |port| SocketAddr::new(*address, port);
            let beat = at(ports.heartbeat);
            let socket = heartbeat::bind(beat, later).map_err(|error| explain(lan, beat, "udp", &error))?;
            bound.heartbeats.insert(lan.clone(), Arc::new(socket));
            bound.streams.push(listen(lan, at(ports.stream), later)?);
            bound.api.push(listen(lan, at(ports.api), later)?);
        }
        Ok(bound)
    }

    /// Keeps the heartbeat sockets, gives the listeners away: those of the streams, those of the API.
    pub(super) fn split(mut self) -> (Self, Vec<TcpListener>, ApiListeners) {
        let streams = std::mem::take(&mut self.streams);
        let api = std::mem::take(&mut self.api);
        (self, streams, api)
    }
}

fn listen(lan: &str, address: SocketAddr, later: bool) -> Result<TcpListener, Failure> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        heartbeat::free(&socket, address.ip(), later)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    listen().map_err(|error| explain(lan, address, "tcp", &error))
}

/// Why a port is not bound.
struct Failure {
    kind: ErrorKind,
    message: String,
}

fn explain(lan: &str, address: SocketAddr, kind: &str, error: &std::io::Error) -> Failure {
    let (ip, port) = (address.ip(), address.port());
    let kind_of = error.kind();
    let message = if kind_of == ErrorKind::AddrNotAvailable {
        format!("address {ip} of lan {lan} is not on this machine: give one that `ip address` shows")
    } else if kind_of == ErrorKind::AddrInUse {
        format!(
            "port {port}/{kind} is in use on {ip}: end the program that has it (`ss -lnp`), or set another port in safed.toml before `cluster init`"
        )
    } else if kind_of == ErrorKind::PermissionDenied {
        format!("port {port}/{kind} on {ip} is not permitted: run safed as root")
    } else {
        format!("cannot listen on {ip} port {port}/{kind}: {error}")
    };
    Failure { kind: kind_of, message }
}

#[cfg(test)]
mod tests {
    use safe_proto::settings::{NodeSettings, Ports};

    use super::*;

    fn settings(address: &str) -> ClusterSettings {
        let node = NodeSettings {
            name: "n1".to_owned(),
            addresses: BTreeMap::from([("default".to_owned(), address.parse().unwrap())]),
            joined: 1,
            changed: 1,
            key: "ab".repeat(32),
        };
        ClusterSettings::new("demo", vec!["default".to_owned()], Ports::default(), node).unwrap()
    }

    #[test]
    fn a_port_in_use_and_an_absent_address_are_named() {
        let settings = settings("127.77.2.1");
        let other = TcpListener::bind("127.77.2.1:9400").unwrap();
        let error = Bound::first(&settings, "n1").unwrap_err().to_string();
        assert!(error.contains("9400/tcp") && error.contains("in use"), "{error}");
        drop(other);
        assert!(Bound::first(&settings, "n1").is_ok());
        let error = Bound::first(&self::settings("203.0.113.9"), "n1").unwrap_err().to_string();
        assert!(error.contains("not on this machine"), "{error}");
    }
}
