//! The virtual addresses of one module on this node.
//!
//! One task per module raises and drops them in the order it is told. What may be on an interface is written down
//! before it is put there, so that whoever comes after a crash can take it away. Every step may be repeated.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::Event;
use safe_proto::module::AddressStatus;
use safe_proto::spec::{AddressPrefix, AddressSpec};
use tokio::sync::{mpsc, watch};

mod announce;
mod carrier;
mod netlink;
mod record;

use carrier::Carrier;
use netlink::{Interface, Present};
use record::Line;

pub use netlink::Netlink;
pub use record::Record;

use crate::events::Events;
use crate::node::{Membership, Reporter, What};

/// Orders that may wait.
const QUEUE: usize = 64;

/// When the announcements of a burst are sent, after the address was raised: neighbours may miss some.
const BURST: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];

/// Longest wait at the start of a version for addresses that it has no more.
const SHED: Duration = Duration::from_secs(2);

/// Pause between two attempts to drop an address: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Put them on their interfaces and announce them; then `AddressesRaised`.
    Raise,
    /// Take them away; then `AddressesDropped`.
    Drop,
    /// Take them away, out of turn: tried once, without touching a disk, and not reported, for `Drop` follows.
    DropEarly,
    /// The module serves, perhaps with other addresses than before: take away what it has no more, add what is new.
    Follow,
    /// Report how they are.
    Look,
}

/// What the task needs.
#[derive(Debug)]
pub struct Setup {
    /// Module.
    pub module: String,
    /// This node.
    pub node: String,
    /// `[[address]]`
    pub addresses: Vec<AddressSpec>,
    /// Where what may be on an interface is written down.
    pub record: Record,
    /// The cluster: its default lan is where an address goes that fits nowhere.
    pub membership: watch::Receiver<Option<Arc<Membership>>>,
    /// The kernel.
    pub netlink: Netlink,
    /// The record of events.
    pub events: Events,
    /// The owner loop.
    pub reporter: Reporter,
}

/// A way to the task.
#[derive(Debug, Clone)]
pub struct Addresses {
    orders: mpsc::Sender<Order>,
}

impl Addresses {
    /// Starts the task; it ends when the last way to it is dropped.
    #[must_use]
    pub fn keep(setup: Setup) -> Self {
        let (orders, mut inbox) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut carrier = Carrier::new(&setup);
            let mut strangers = BTreeSet::new();
            loop {
                tokio::select! {
                    order = inbox.recv() => match order {
                        Some(Order::Raise) => setup.raise().await,
                        Some(Order::Drop) => setup.drop().await,
                        Some(Order::DropEarly) => setup.drop_early().await,
                        Some(Order::Follow) => setup.follow().await,
                        Some(Order::Look) => {}
                        None => return,
                    },
                    () = carrier.changed() => {}
                }
                setup.look(&mut carrier, &mut strangers).await;
            }
        });
        Self { orders }
    }

    /// A way to whoever takes the orders in a test.
    #[cfg(test)]
    pub(crate) const fn taken_by(orders: mpsc::Sender<Order>) -> Self {
        Self { orders }
    }

    /// Gives an order if there is room.
    pub fn offer(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Gives an order, in order; waits for room.
    pub async fn order(&self, order: Order) {
        // The task ends only with its module's runtime.
        let _ended = self.orders.send(order).await;
    }
}

impl Setup {
    async fn raise(&self) {
        let mut result = Ok(());
        for spec in &self.addresses {
            result = self
                .raise_one(spec)
                .await
                .map_err(|why| format!("address {} cannot be raised: {why}", spec.ip));
            if result.is_err() {
                break;
            }
        }
        self.reporter.event(Event::AddressesRaised(result)).await;
    }

    async fn raise_one(&self, spec: &AddressSpec) -> Result<(), String> {
        let interfaces = self.netlink.interfaces().await?;
        let present = self.netlink.addresses().await?;
        let interface = self.choose(spec, &interfaces, &present)?;
        if let Some(elsewhere) =
            present.iter().find(|other| other.ip == spec.ip.ip() && other.index != interface.index)
        {
            let name = name_of(&interfaces, elsewhere.index);
            return Err(format!(
                "it is on interface {name} already; type: ip address del {} dev {name}",
                spec.ip
            ));
        }
        self.record.add(Line { ip: spec.ip, interface: interface.name.clone() }).await?;
        self.netlink.add(interface.index, spec.ip).await?;
        self.announce(interface, spec.ip.ip());
        Ok(())
    }

    fn choose<'a>(
        &self,
        spec: &AddressSpec,
        interfaces: &'a [Interface],
        present: &[Present],
    ) -> Result<&'a Interface, String> {
        if spec.interface != "auto" {
            return interfaces.iter().find(|interface| interface.name == spec.interface).ok_or_else(|| {
                let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
                format!("there is no interface {}; there are: {}", spec.interface, names.join(", "))
            });
        }
        let index = choose_auto(spec.ip, present).or_else(|| {
            let lan = self.lan_address()?;
            present.iter().find(|one| one.ip == lan).map(|one| one.index)
        });
        interfaces.iter().find(|interface| Some(interface.index) == index).ok_or_else(|| {
            "no interface has an address in that network; name one: interface = \"…\"".to_owned()
        })
    }

    /// This node's address on the default lan.
    fn lan_address(&self) -> Option<IpAddr> {
        let membership = self.membership.borrow();
        let membership = membership.as_ref()?;
        let member = membership.nodes.iter().find(|member| member.name == self.node)?;
        member.addresses.get(membership.lans.first()?).copied()
    }

    fn announce(&self, interface: &Interface, ip: IpAddr) {
        let Some(mac) = interface.mac else { return };
        let (index, module) = (interface.index, self.module.clone());
        tokio::spawn(async move {
            let mut elapsed = Duration::ZERO;
            for at in BURST {
                tokio::time::sleep(at.saturating_sub(elapsed)).await;
                elapsed = at;
                if let Err(error) = announce::announce(index, mac, ip) {
                    // The address has left with its interface, or the link is down: nobody hears it.
                    tracing::warn!(module, %ip, %error, "cannot announce the address");
                    return;
                }
            }
        });
    }

    /// The peer is told that they are gone: tried until it is true.
    async fn drop(&self) {
        self.until_removed(|| self.drop_all()).await;
        self.reporter.event(Event::AddressesDropped).await;
    }

    /// Takes away what this version has no more, or elsewhere. To be called before the replicator is told of this version:
    /// should this process die, the replicator removes only what it was told.
    pub async fn shed(&self) {
        let shed = async {
            let gone = self.superseded().await;
            self.remove(&gone).await.map(|()| gone)
        };
        match tokio::time::timeout(SHED, shed).await {
            Ok(Ok(gone)) => self.record.forget(&gone).await,
            Ok(Err(why)) => {
                let text = format!("addresses of an earlier version cannot be removed: {why}; trying on");
                self.events.record(&self.module, true, &text);
            }
            Err(_) => tracing::error!(
                module = self.module,
                "addresses of an earlier version are not removed in time"
            ),
        }
    }

    /// What safed has put on an interface, and this version does not have there.
    async fn superseded(&self) -> Vec<AddressPrefix> {
        let here = |line: &Line, spec: &AddressSpec| {
            spec.ip == line.ip && (spec.interface == "auto" || spec.interface == line.interface)
        };
        let lines = self.record.lines().await.unwrap_or_default();
        let gone = lines.iter().filter(|line| !self.addresses.iter().any(|spec| here(line, spec)));
        gone.map(|line| line.ip).collect()
    }

    /// Removes, until it is done.
    async fn until_removed<F: Future<Output = Result<(), String>>>(&self, remove: impl Fn() -> F) {
        let mut pause = RETRY.0;
        while let Err(why) = remove().await {
            if pause == RETRY.0 {
                self.events.record(
                    &self.module,
                    true,
                    &format!("addresses cannot be removed: {why}; trying on"),
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn follow(&self) {
        let gone = self.superseded().await;
        self.until_removed(|| self.remove(&gone)).await;
        self.record.forget(&gone).await;
        let present = self.netlink.addresses().await.unwrap_or_default();
        for spec in self.addresses.iter().filter(|spec| present.iter().all(|one| one.ip != spec.ip.ip())) {
            if let Err(why) = self.raise_one(spec).await {
                let text = format!("address {} cannot be raised: {why}", spec.ip);
                self.events.record(&self.module, true, &text);
            }
        }
    }

    async fn drop_early(&self) {
        if let Err(why) = self.remove(&self.own().await).await {
            tracing::warn!(module = self.module, why, "addresses cannot be removed at once");
        }
    }

    /// What safed has put on an interface: the same address may be there by somebody else's doing, from before the
    /// module was installed. While that cannot be told, all that it may have put there.
    async fn own(&self) -> Vec<AddressPrefix> {
        match self.record.lines().await {
            Some(lines) => lines.iter().map(|line| line.ip).collect(),
            None => self.addresses.iter().map(|spec| spec.ip).collect(),
        }
    }

    async fn remove(&self, gone: &[AddressPrefix]) -> Result<(), String> {
        if gone.is_empty() {
            return Ok(());
        }
        for present in self.netlink.addresses().await? {
            if gone.iter().any(|gone| gone.ip() == present.ip && gone.len() == present.prefix) {
                self.netlink.remove(&present).await?;
            }
        }
        Ok(())
    }

    async fn drop_all(&self) -> Result<(), String> {
        self.remove(&self.own().await).await?;
        self.record.clear().await;
        Ok(())
    }

    async fn look(&self, carrier: &mut Carrier, strangers: &mut BTreeSet<String>) {
        let (interfaces, present) = match (self.netlink.interfaces().await, self.netlink.addresses().await) {
            (Ok(interfaces), Ok(present)) => (interfaces, present),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(module = self.module, error, "cannot list addresses");
                return;
            }
        };
        let chosen = self.addresses.iter().map(|spec| self.choose(spec, &interfaces, &present).ok());
        if let Some(carrier) = carrier.judge(chosen, &interfaces) {
            self.reporter.event(Event::Carrier(carrier)).await;
        }
        self.tell_strangers(strangers, &interfaces, &present).await;
        let status = self.addresses.iter().map(|spec| {
            let found = present.iter().find(|one| one.ip == spec.ip.ip());
            let interface = match found {
                Some(found) => name_of(&interfaces, found.index),
                None => {
                    self.choose(spec, &interfaces, &present).map_or(String::new(), |one| one.name.clone())
                }
            };
            AddressStatus { ip: spec.ip.to_string(), present: found.is_some(), interface }
        });
        self.reporter.tell(What::Addresses(status.collect())).await;
    }
}

impl Setup {
    /// An address that is here by somebody else's doing is told of once: clients may reach a node that does not serve.
    async fn tell_strangers(
        &self,
        known: &mut BTreeSet<String>,
        interfaces: &[Interface],
        present: &[Present],
    ) {
        let own = self.own().await;
        let mut found = BTreeSet::new();
        for spec in &self.addresses {
            let Some(one) = present.iter().find(|one| one.ip == spec.ip.ip()) else { continue };
            if own.iter().any(|own| own.ip() == one.ip) {
                continue;
            }
            let (ip, prefix, name) = (one.ip, one.prefix, name_of(interfaces, one.index));
            found.insert(format!(
                "address {ip} is on {name}, where safed has not put it: clients may reach a node that does not \
                 serve; take it out of this node's network settings and type: ip address del {ip}/{prefix} dev {name}"
            ));
        }
        for text in found.difference(known) {
            self.events.record(&self.module, true, text);
        }
        *known = found;
    }
}

fn name_of(interfaces: &[Interface], index: u32) -> String {
    let found = interfaces.iter().find(|interface| interface.index == index);
    found.map_or_else(|| format!("number {index}"), |interface| interface.name.clone())
}

/// The interface that has an address, other than this one, whose network holds it; of several the narrowest network.
fn choose_auto(address: AddressPrefix, present: &[Present]) -> Option<u32> {
    present
        .iter()
        .filter(|one| {
            one.ip != address.ip() && !one.ip.is_loopback() && holds(one.ip, one.prefix, address.ip())
        })
        .max_by_key(|one| one.prefix)
        .map(|one| one.index)
}

/// True if the network of `ip/prefix` holds `other`.
fn holds(ip: IpAddr, prefix: u8, other: IpAddr) -> bool {
    let (a, b, width) = match (ip, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let host = width - u32::from(prefix).min(width);
    host >= 128 || (a >> host) == (b >> host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_hosts() {
        let holds =
            |ip: &str, prefix, other: &str| holds(ip.parse().unwrap(), prefix, other.parse().unwrap());
        assert!(holds("10.1.2.3", 16, "10.1.9.9"));
        assert!(!holds("10.1.2.3", 24, "10.1.9.9"));
        assert!(holds("2001:db8::1", 64, "2001:db8::50"));
        assert!(!holds("10.1.2.3", 0, "::1"));
        assert!(holds("10.1.2.3", 0, "192.168.0.1"));
    }
}
