//! Arbiters: names, targets, and that none is asked whose answer would prove nothing.

use std::net::IpAddr;
use std::time::Duration;

use super::super::{ArbiterKind, ArbiterSpec, Kind, Surroundings, label};
use super::network::MAX_TARGET;
use super::{Report, repeated};

/// Most arbiters of a module.
const MAX_ARBITERS: usize = 8;
/// Below this a command has hardly time to start before its answer is due.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn check(report: &mut Report<'_>, around: Surroundings<'_>) {
    let spec = report.spec;
    report.at_most("arbiter", spec.arbiter.len(), MAX_ARBITERS);
    if spec.module.kind != Kind::Mirror && !spec.arbiter.is_empty() {
        report.error("arbiter", "only a mirror module has arbiters");
    }
    for (index, arbiter) in spec.arbiter.iter().enumerate() {
        one(report, around, index, arbiter);
    }
    let names: Vec<_> = (0..spec.arbiter.len()).filter_map(|index| spec.arbiter_name(index)).collect();
    if let Some(index) = repeated(&names) {
        report.error(&format!("arbiter.{index}"), format!("two arbiters are named \"{}\"", names[index]));
    }
    let locks = spec.arbiter.iter().filter(|arbiter| arbiter.kind.is_lock()).count();
    if locks > 1 {
        let message = "two arbiters that hold a record could each choose another node; leave one";
        report.error("arbiter", message);
    } else if locks == 1 && spec.arbiter.len() > 1 {
        report
            .warning("arbiter", "the arbiter that holds the record decides alone; the others are only shown");
    }
    guarantees(report);
}

fn one(report: &mut Report<'_>, around: Surroundings<'_>, index: usize, arbiter: &ArbiterSpec) {
    let key = format!("arbiter.{index}");
    if let Some(Err(message)) = arbiter.name.as_ref().map(|name| label::check("arbiter", name)) {
        report.error(&format!("{key}.name"), message);
    }
    let target = format!("{key}.target");
    if let Some(message) = fault(arbiter.kind, &arbiter.target) {
        return report.error(&target, message);
    }
    if let Some(message) = own(report, around, arbiter) {
        report.error(&target, message);
    }
    if arbiter.kind == ArbiterKind::Witness
        && let Some(known) = around.witnesses
        && !known.contains(&arbiter.target)
    {
        let message = format!(
            "the cluster knows no witness {:?}; on that machine type: safectl witness init, and here: safectl witness \
             add TOKEN{}",
            arbiter.target,
            if known.is_empty() { String::new() } else { format!(" (known: {})", known.join(", ")) }
        );
        report.error(&target, message);
    }
    if let Some(host) = host(arbiter)
        && host.parse::<IpAddr>().is_err()
    {
        let message = format!(
            "{host:?} is a name: it is resolved while all is well and its last known address is used when it counts; an \
             address is surer"
        );
        report.warning(&target, message);
    }
    if arbiter.kind == ArbiterKind::Command && report.spec.heartbeat.timeout < COMMAND_TIMEOUT {
        let message =
            "a command has 0.3 of heartbeat.timeout to answer; with a timeout below 1s that is hardly enough";
        report.warning(&target, message);
    }
}

/// One line for each kind that is used.
fn guarantees(report: &mut Report<'_>) {
    let spec = report.spec;
    let mut said = Vec::new();
    for (index, arbiter) in spec.arbiter.iter().enumerate() {
        let guarantee = arbiter.kind.guarantee();
        if !said.contains(&guarantee) {
            said.push(guarantee);
            let name = spec.arbiter_name(index).unwrap_or_default();
            report.note(format!("arbiter {name} ({}) {guarantee}", arbiter.kind.as_str()));
        }
    }
}

/// Host of the target, as an address or a name; none: a command.
fn host(arbiter: &ArbiterSpec) -> Option<&str> {
    match arbiter.kind {
        ArbiterKind::Ping => Some(&arbiter.target),
        ArbiterKind::Tcp | ArbiterKind::Witness => {
            arbiter.target.rsplit_once(':').map(|(host, _)| bare(host))
        }
        ArbiterKind::Http => {
            let rest = arbiter.target.split_once("://").map_or(arbiter.target.as_str(), |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            let end = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
            Some(bare(end.map_or(authority, |at| &authority[..at])))
        }
        ArbiterKind::Command | ArbiterKind::Etcd | ArbiterKind::Kubernetes => None,
    }
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Who answers itself is never isolated, and the other node's answer says nothing about anybody else.
fn own(report: &Report<'_>, around: Surroundings<'_>, arbiter: &ArbiterSpec) -> Option<String> {
    let ip: IpAddr = host(arbiter)?.parse().ok()?;
    let spec = report.spec;
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Some(format!("{ip} is no machine beside the nodes: an arbiter is one that both nodes reach"));
    }
    if spec.address.iter().any(|address| address.ip.ip() == ip) {
        return Some(format!("{ip} is a virtual address of this module: it answers where the module serves"));
    }
    let of_module = |node: &String| spec.module.nodes.is_empty() || spec.module.nodes.contains(node);
    let (node, _) = around.addresses.iter().find(|(node, address)| *address == ip && of_module(node))?;
    Some(format!("{ip} is an address of node {node} of this module: an arbiter is a third machine"))
}

fn fault(kind: ArbiterKind, target: &str) -> Option<String> {
    if target.is_empty() || target.len() > MAX_TARGET || target.chars().any(char::is_control) {
        return Some(format!("a target has 1 to {MAX_TARGET} bytes without control characters"));
    }
    let port = |target: &str| {
        target
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match kind {
        ArbiterKind::Tcp | ArbiterKind::Witness if !port(target) => {
            Some(format!("{target:?} has no port; write it as in \"192.168.1.1:443\""))
        }
        ArbiterKind::Http if !target.starts_with("http://") && !target.starts_with("https://") => {
            Some(format!("{target:?} is not a URL; begin with http:// or https://"))
        }
        ArbiterKind::Ping if target.contains(char::is_whitespace) => {
            Some("a ping target is one address or host name".to_owned())
        }
        ArbiterKind::Command if !runnable(target) => Some(format!(
            "{target:?} is not a command; write the name of a script of the module, such as \"check_gateway\", or an \
             absolute path, with its arguments"
        )),
        ArbiterKind::Ping
        | ArbiterKind::Tcp
        | ArbiterKind::Http
        | ArbiterKind::Command
        | ArbiterKind::Witness
        | ArbiterKind::Etcd
        | ArbiterKind::Kubernetes => None,
    }
}

fn runnable(target: &str) -> bool {
    let program = target.split_whitespace().next().unwrap_or_default();
    program.starts_with('/') || (program.starts_with("check_") && !program.contains('/'))
}
