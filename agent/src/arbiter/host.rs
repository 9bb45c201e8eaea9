//! Where an arbiter is: an address, or a name whose last known addresses are used when it counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use parking_lot::Mutex;

/// Most addresses of one name that are asked.
const MOST: usize = 4;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    text: String,
    known: Mutex<Vec<IpAddr>>,
}

impl Host {
    /// From an address, with or without brackets, or a name.
    pub(super) fn new(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        Self { text: bare.to_owned(), known: Mutex::new(bare.parse().into_iter().collect()) }
    }

    /// Asks the name service, if it is a name. Without an answer what was known stays.
    pub(super) async fn resolve(&self, patience: Duration) {
        if self.text.parse::<IpAddr>().is_ok() {
            return;
        }
        let looked = tokio::time::timeout(patience, tokio::net::lookup_host((self.text.as_str(), 0))).await;
        let Ok(Ok(found)) = looked else { return };
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).take(MOST).collect();
        addresses.dedup();
        if !addresses.is_empty() {
            *self.known.lock() = addresses;
        }
    }

    /// What is known now.
    ///
    /// # Errors
    /// A name that was never resolved.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let known = self.known.lock().clone();
        if known.is_empty() { Err(format!("the name {} is not known", self.text)) } else { Ok(known) }
    }
}

/// Whether this machine itself answers at the address: then an answer says nothing. Asks the routing table, sends
/// nothing.
pub(super) fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(ip, 9))?;
        socket.local_addr()
    };
    ip.is_loopback() || source().is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known_as_such() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own([127, 8, 8, 8].into()));
        assert!(!is_own([203, 0, 113, 7].into()));
    }

    #[tokio::test]
    async fn a_name_keeps_its_last_addresses() {
        assert_eq!(Host::new("[fd00::1]").addresses(), Ok(vec!["fd00::1".parse().unwrap()]));
        let host = Host::new("no-such-host.invalid");
        host.resolve(Duration::from_millis(500)).await;
        assert!(host.addresses().unwrap_err().contains("no-such-host.invalid"));
        let host = Host::new("localhost");
        host.resolve(Duration::from_secs(5)).await;
        assert!(host.addresses().unwrap().iter().all(IpAddr::is_loopback));
    }
}
