//! Virtual addresses, arbiters, and what a full isolation does.

use super::super::{ArbiterKind, Isolation, Kind, Surroundings, label};
use super::{Report, repeated};

/// Most virtual addresses of a module.
const MAX_ADDRESSES: usize = 16;
/// Most arbiters of a module.
const MAX_ARBITERS: usize = 8;
/// Longest name of an interface in Linux.
const MAX_INTERFACE: usize = 15;
/// Longest target of an arbiter or a checker.
pub(super) const MAX_TARGET: usize = 1024;

pub(super) fn check(report: &mut Report<'_>, around: Surroundings<'_>) {
    addresses(report);
    arbiters(report);
    isolation(report, around);
}

fn addresses(report: &mut Report<'_>) {
    let spec = report.spec;
    report.at_most("address", spec.address.len(), MAX_ADDRESSES);
    if spec.module.kind == Kind::Light && !spec.address.is_empty() {
        report.error(
            "address",
            "a light module has no virtual address; it needs kind = \"mirror\" or \"farm\"",
        );
    }
    let ips: Vec<_> = spec.address.iter().map(|address| address.ip.ip()).collect();
    if let Some(index) = repeated(&ips) {
        report.error(&format!("address.{index}.ip"), format!("address {} is given twice", ips[index]));
    }
    for (index, address) in spec.address.iter().enumerate() {
        let name = &address.interface;
        let fits = (1..=MAX_INTERFACE).contains(&name.len())
            && !matches!(name.as_str(), "." | "..")
            && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
        if !fits {
            let message = format!("{name:?} cannot be an interface; write its name, or \"auto\"");
            report.error(&format!("address.{index}.interface"), message);
        }
    }
}

fn arbiters(report: &mut Report<'_>) {
    let spec = report.spec;
    report.at_most("arbiter", spec.arbiter.len(), MAX_ARBITERS);
    for (index, arbiter) in spec.arbiter.iter().enumerate() {
        let key = format!("arbiter.{index}");
        if let Some(Err(message)) = arbiter.name.as_ref().map(|name| label::check("arbiter", name)) {
            report.error(&format!("{key}.name"), message);
        }
        if let Some(message) = target_fault(arbiter.kind, &arbiter.target) {
            report.error(&format!("{key}.target"), message);
        }
    }
    let names: Vec<_> = (0..spec.arbiter.len()).filter_map(|index| spec.arbiter_name(index)).collect();
    if let Some(index) = repeated(&names) {
        report.error(&format!("arbiter.{index}"), format!("two arbiters are named \"{}\"", names[index]));
    }
    if spec.module.kind != Kind::Mirror && !spec.arbiter.is_empty() {
        report.error("arbiter", "only a mirror module has arbiters");
    }
}

fn target_fault(kind: ArbiterKind, target: &str) -> Option<String> {
    if target.is_empty() || target.len() > MAX_TARGET || target.chars().any(char::is_control) {
        return Some(format!("a target has 1 to {MAX_TARGET} bytes without control characters"));
    }
    let port = |target: &str| {
        target
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match kind {
        ArbiterKind::Tcp if !port(target) => {
            Some(format!("{target:?} has no port; write it as in \"192.168.1.1:443\""))
        }
        ArbiterKind::Http if !target.starts_with("http://") && !target.starts_with("https://") => {
            Some(format!("{target:?} is not a URL; begin with http:// or https://"))
        }
        ArbiterKind::Ping if target.contains(char::is_whitespace) => {
            Some("a ping target is one address or host name".to_owned())
        }
        ArbiterKind::Ping
        | ArbiterKind::Tcp
        | ArbiterKind::Http
        | ArbiterKind::Command
        | ArbiterKind::Witness
        | ArbiterKind::Etcd
        | ArbiterKind::Kubernetes => None,
    }
}

/// Says in one line what a full isolation will do: nobody should learn it on the day.
fn isolation(report: &mut Report<'_>, around: Surroundings<'_>) {
    let spec = report.spec;
    if spec.module.kind != Kind::Mirror || spec.arbiter.iter().any(|arbiter| arbiter.kind.is_lock()) {
        return;
    }
    if !spec.arbiter.is_empty() {
        report.note(
            "if every lan is cut, a node that reaches its arbiters serves: a ping, tcp, http or command arbiter excludes \
             nothing, so both may serve where both reach it",
        );
    } else {
        report.note(match spec.module.isolation {
            Isolation::Alone => {
                "no arbiter: if every lan is cut, both nodes serve, and on repair the changes of one are given up \
                 (isolation = \"wait\" avoids that)"
            }
            Isolation::Wait => {
                "no arbiter: if every lan is cut, or the serving node dies, nobody serves until the lans are back or \
                 a person decides (isolation = \"wait\")"
            }
        });
    }
    if around.lans.is_some_and(|lans| lans.len() == 1) {
        report.note("the cluster has one lan: its failure alone is a full isolation; two are advised");
    }
}
