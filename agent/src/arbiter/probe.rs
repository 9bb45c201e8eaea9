//! One reachability arbiter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use safe_proto::spec::{ArbiterKind, ArbiterSpec};
use tokio::net::TcpStream;

use super::command::Command;
use super::host::{Host, is_own};
use super::{http, ping};
use crate::children::Children;
use crate::clock;
use crate::module::Module;

/// After a quick no the question is asked again after this part of the time.
const AGAIN: u32 = 8;

/// How it is asked.
#[derive(Debug)]
pub(super) enum Probe {
    /// An ICMP echo.
    Ping(Host),
    /// A TCP connection to this port.
    Tcp(Host, u16),
    /// An HTTP request.
    Http(Host, ::http::Uri),
    /// A command.
    Command(Command),
    /// The target makes no sense, although it was checked when the module was installed.
    Broken(String),
}

impl Probe {
    /// From the module's spec; none: no arbiter of this sort.
    pub(super) fn of(module: &Arc<Module>, children: &Children, spec: &ArbiterSpec) -> Option<Self> {
        let broken = || Self::Broken(format!("{:?} is no target", spec.target));
        match spec.kind {
            ArbiterKind::Ping => Some(Self::Ping(Host::new(&spec.target))),
            ArbiterKind::Tcp => Some(tcp(&spec.target).unwrap_or_else(broken)),
            ArbiterKind::Http => Some(web(&spec.target).unwrap_or_else(broken)),
            ArbiterKind::Command => Some(Self::Command(Command::new(module, children, &spec.target))),
            ArbiterKind::Witness | ArbiterKind::Etcd | ArbiterKind::Kubernetes => None,
        }
    }

    /// Asks the name service, where the target is a name.
    pub(super) async fn resolve(&self, patience: Duration) {
        match self {
            Self::Ping(host) | Self::Tcp(host, _) | Self::Http(host, _) => host.resolve(patience).await,
            Self::Command(_) | Self::Broken(_) => {}
        }
    }

    /// Asks until it answers or the time is over.
    ///
    /// # Errors
    /// Why it did not answer.
    pub(super) async fn ask(&self, patience: Duration) -> Result<(), String> {
        let deadline = clock::now() + patience;
        loop {
            let left = deadline.since(clock::now());
            let outcome = tokio::time::timeout(left, self.once(left)).await;
            let why = match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} ms", patience.as_millis()),
            };
            let pause = patience / AGAIN;
            // A command takes its time once: starting it over and over helps nobody.
            if deadline.since(clock::now()) <= pause || matches!(self, Self::Command(_)) {
                return Err(why);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, left: Duration) -> Result<(), String> {
        let host = match self {
            Self::Command(command) => return command.run(left).await,
            Self::Broken(why) => return Err(why.clone()),
            Self::Ping(host) | Self::Tcp(host, _) | Self::Http(host, _) => host,
        };
        let addresses = host.addresses()?;
        let asked = addresses.into_iter().map(|ip| Box::pin(self.address(ip, left)));
        select_ok(asked).await.map(|((), _)| ())
    }

    async fn address(&self, ip: IpAddr, left: Duration) -> Result<(), String> {
        if is_own(ip) {
            return Err(format!("{ip} is an address of this machine now: its answer says nothing"));
        }
        match self {
            Self::Ping(_) => ping::ping(ip, left).await.map_err(|error| error.to_string()),
            Self::Tcp(_, port) => TcpStream::connect(SocketAddr::new(ip, *port))
                .await
                .map(drop)
                .map_err(|error| error.to_string()),
            Self::Http(_, uri) => http::get(ip, uri).await,
            Self::Command(_) | Self::Broken(_) => Ok(()),
        }
    }
}

fn tcp(target: &str) -> Option<Probe> {
    let (host, port) = target.rsplit_once(':')?;
    Some(Probe::Tcp(Host::new(host), port.parse().ok()?))
}

fn web(target: &str) -> Option<Probe> {
    let uri: ::http::Uri = target.parse().ok()?;
    let host = Host::new(uri.host()?);
    Some(Probe::Http(host, uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_understood() {
        let Some(Probe::Tcp(host, 443)) = tcp("[fd00::1]:443") else { panic!("no TCP") };
        assert_eq!(host.addresses(), Ok(vec!["fd00::1".parse().unwrap()]));
        let Some(Probe::Http(host, _)) = web("http://[fd00::1]:8080/x") else { panic!("no HTTP") };
        assert_eq!(host.addresses(), Ok(vec!["fd00::1".parse().unwrap()]));
        assert!(tcp("gw").is_none() && web("http://").is_none());
    }

    #[tokio::test]
    async fn an_own_address_is_no_witness() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let probe = tcp(&listener.local_addr().unwrap().to_string()).unwrap();
        let why = probe.ask(Duration::from_millis(100)).await.unwrap_err();
        assert!(why.contains("this machine"), "{why}");
    }
}
