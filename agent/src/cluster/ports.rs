//! The ports of a member, bound before anything is written, so that a wrong address or a port in use is said first.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use safe_proto::settings::ClusterSettings;
use socket2::{Domain, Protocol, Socket, Type};

use super::{ApiListeners, ClusterError};
use crate::heartbeat;

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
    /// Binds all ports on all addresses of this node. With `later` an address need not be on the machine yet: at boot
    /// an interface may come up after safed.
    pub(super) fn of(settings: &ClusterSettings, node: &str, later: bool) -> Result<Self, ClusterError> {
        let node = settings
            .node(node)
            .ok_or_else(|| ClusterError::Failed(format!("node {node} is not in the cluster settings")))?;
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

fn listen(lan: &str, address: SocketAddr, later: bool) -> Result<TcpListener, ClusterError> {
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

fn explain(lan: &str, address: SocketAddr, kind: &str, error: &std::io::Error) -> ClusterError {
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
    ClusterError::Ports(message)
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
        let error = Bound::of(&settings, "n1", false).unwrap_err().to_string();
        assert!(error.contains("9400/tcp") && error.contains("in use"), "{error}");
        drop(other);
        assert!(Bound::of(&settings, "n1", false).is_ok());
        let error = Bound::of(&self::settings("203.0.113.9"), "n1", false).unwrap_err().to_string();
        assert!(error.contains("not on this machine"), "{error}");
    }
}
