//! Addresses of interfaces, by netlink.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{Handle, MulticastGroup};
use safe_proto::spec::AddressPrefix;
use tokio::sync::watch;

/// The kernel answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// None: no Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    /// It is up and its cable is plugged in.
    pub(super) carrier: bool,
}

/// An address on an interface.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    message: AddressMessage,
}

/// A way to the kernel's tables.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    /// Counts what the kernel told about interfaces.
    changes: watch::Receiver<u64>,
}

impl Netlink {
    /// Opens netlink sockets; their tasks live as long as the runtime.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, changes: watch_links()? })
    }

    /// Sees a change whenever an interface comes, goes, or changes. Some may be missed when very many come at once.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    pub(super) async fn interfaces(&self) -> Result<Vec<Interface>, String> {
        let links = bounded(self.handle.link().get().execute().try_collect::<Vec<_>>()).await?;
        Ok(links
            .into_iter()
            .filter_map(|link| {
                let carrier = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
                let mut interface =
                    Interface { index: link.header.index, name: String::new(), mac: None, carrier };
                for attribute in link.attributes {
                    if let LinkAttribute::IfName(name) = attribute {
                        interface.name = name;
                    } else if let LinkAttribute::Address(mac) = attribute {
                        interface.mac = mac.try_into().ok().filter(|mac| *mac != [0; 6]);
                    }
                }
                (!interface.name.is_empty()).then_some(interface)
            })
            .collect())
    }

    pub(super) async fn addresses(&self) -> Result<Vec<Present>, String> {
        let messages = bounded(self.handle.address().get().execute().try_collect::<Vec<_>>()).await?;
        Ok(messages.into_iter().filter_map(present).collect())
    }

    /// Adds an address. Present already: well.
    pub(super) async fn add(&self, index: u32, address: AddressPrefix) -> Result<(), String> {
        let mut request = self.handle.address().add(index, address.ip(), address.len());
        if address.ip().is_ipv6() {
            // The address is known to be ours; duplicate detection would keep it unusable for a second.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match tokio::time::timeout(PATIENCE, request.execute()).await {
            Ok(Err(error)) if code(&error) == Some(-libc::EEXIST) => Ok(()),
            Ok(done) => done.map_err(|error| say(&error)),
            Err(_) => Err("the kernel does not answer".to_owned()),
        }
    }

    /// Removes an address. Absent already: well.
    pub(super) async fn remove(&self, present: &Present) -> Result<(), String> {
        let request = self.handle.address().del(present.message.clone());
        match tokio::time::timeout(PATIENCE, request.execute()).await {
            Ok(Err(error)) if matches!(code(&error), Some(code) if code == -libc::EADDRNOTAVAIL || code == -libc::ENODEV) => {
                Ok(())
            }
            Ok(done) => done.map_err(|error| say(&error)),
            Err(_) => Err("the kernel does not answer".to_owned()),
        }
    }
}

fn watch_links() -> std::io::Result<watch::Receiver<u64>> {
    let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    let (seen, changes) = watch::channel(0);
    tokio::spawn(async move {
        // What they say is not kept, only that there was one: readers look for themselves.
        while messages.next().await.is_some() {
            seen.send_modify(|seen| *seen += 1);
        }
    });
    Ok(changes)
}

async fn bounded<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| say(&error)),
        Err(_) => Err("the kernel does not answer".to_owned()),
    }
}

fn present(message: AddressMessage) -> Option<Present> {
    let mut ip = None;
    for attribute in &message.attributes {
        // IPv4 has both and means the local one; IPv6 has only the other.
        if let AddressAttribute::Local(local) = attribute {
            ip = Some(*local);
        } else if let AddressAttribute::Address(address) = attribute {
            ip = ip.or(Some(*address));
        }
    }
    Some(Present { index: message.header.index, ip: ip?, prefix: message.header.prefix_len, message })
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error { message.code.map(i32::from) } else { None }
}

fn say(error: &rtnetlink::Error) -> String {
    match code(error) {
        Some(code) => std::io::Error::from_raw_os_error(code.saturating_abs()).to_string(),
        None => error.to_string(),
    }
}
