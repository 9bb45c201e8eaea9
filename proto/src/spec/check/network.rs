//! Virtual addresses, and what a full isolation does.

use super::super::{Kind, Surroundings};
use super::{Report, repeated};

/// Most virtual addresses of a module.
const MAX_ADDRESSES: usize = 16;
/// Longest name of an interface in Linux.
const MAX_INTERFACE: usize = 15;
/// Longest target of an arbiter or a checker.
pub(super) const MAX_TARGET: usize = 1024;

pub(super) fn check(report: &mut Report<'_>, around: Surroundings<'_>) {
    addresses(report, around);
    isolation(report, around);
}

fn addresses(report: &mut Report<'_>, around: Surroundings<'_>) {
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
        if let Some((node, ip)) = around.addresses.iter().find(|(_, ip)| *ip == address.ip.ip()) {
            let message = format!(
                "{ip} is node {node}'s own address; a virtual address is one that no node has by itself"
            );
            report.error(&format!("address.{index}.ip"), message);
        }
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

/// Says in one line what a full isolation will do: nobody should learn it on the day.
fn isolation(report: &mut Report<'_>, around: Surroundings<'_>) {
    let Some(sentence) = report.spec.isolation() else { return };
    report.note(sentence);
    if around.lans.is_some_and(|lans| lans.len() == 1) {
        report.note("the cluster has one lan: its failure alone is a full isolation; two are advised");
    }
}
