//! Who will serve after a command that takes a node away: said before it is done.

use crate::goal::find;
use crate::status::{Entry, State};

/// After `nodes` stop the module.
pub(crate) fn after_stop(module: &str, now: &[Entry], nodes: &[String]) -> String {
    let stays = |entry: &&Entry| !nodes.contains(&entry.node);
    let serving: Vec<&Entry> = now.iter().filter(|entry| entry.state.serves()).collect();
    if serving.is_empty() {
        return format!("{module}: nobody serves now, nor after this");
    }
    let kept: Vec<&str> = serving.iter().copied().filter(stays).map(|entry| entry.node.as_str()).collect();
    if !kept.is_empty() {
        let lost = now.iter().any(|entry| nodes.contains(&entry.node) && entry.state == State::Second);
        let alone = if lost { ", without a copy in step" } else { "" };
        return format!("{module}: {} goes on serving{alone}", kept.join(", "));
    }
    let heir = now.iter().filter(stays).find(|entry| entry.state == State::Second && entry.is_ready());
    match heir {
        Some(heir) if heir.failover.as_deref() == Some("off") => {
            format!("{module}: nobody will serve: {} could, but failover is off", heir.node)
        }
        Some(heir) => format!("{module}: {} will serve", heir.node),
        None => match now.iter().find(stays) {
            Some(other) => {
                format!("{module}: nobody will serve: {} is {}", other.node, other.state_and_phase())
            }
            None => format!("{module}: nobody will serve"),
        },
    }
}

/// After a swap from one node to the other.
pub(crate) fn after_swap(module: &str, now: &[Entry], from: &str, to: &str) -> String {
    match find(now, to) {
        Some(entry) if entry.state == State::Second && entry.is_ready() => {
            format!("{module}: {to} will serve, {from} will follow")
        }
        Some(entry) => {
            format!("{module}: {from} serves; {to} cannot take over now: it is {}", entry.state_and_phase())
        }
        None => format!("{module}: {from} serves; there is no other node"),
    }
}

#[cfg(test)]
mod tests {
    use safe_proto::module::{ModuleStatus, Phase, State as Wire};

    use super::*;

    fn entry(node: &str, state: Wire, phase: Phase) -> Entry {
        Entry::from(ModuleStatus {
            module: "db".to_owned(),
            node: node.to_owned(),
            state: state.into(),
            phase: phase.into(),
            failover: "on".to_owned(),
            ..ModuleStatus::default()
        })
    }

    fn pair() -> [Entry; 2] {
        [entry("n1", Wire::Prim, Phase::Ready), entry("n2", Wire::Second, Phase::Ready)]
    }

    #[test]
    fn stop() {
        let on = |node: &str| vec![node.to_owned()];
        assert_eq!(after_stop("db", &pair(), &on("n1")), "db: n2 will serve");
        assert_eq!(after_stop("db", &pair(), &on("n2")), "db: n1 goes on serving, without a copy in step");
        let all = vec!["n1".to_owned(), "n2".to_owned()];
        assert_eq!(after_stop("db", &pair(), &all), "db: nobody will serve");
        let resync = [entry("n1", Wire::Alone, Phase::Ready), entry("n2", Wire::Second, Phase::Transient)];
        assert_eq!(after_stop("db", &resync, &on("n1")), "db: nobody will serve: n2 is SECOND/transient");
        let off = pair().map(|entry| Entry { failover: Some("off".to_owned()), ..entry });
        assert!(after_stop("db", &off, &on("n1")).contains("failover is off"));
    }

    #[test]
    fn swap() {
        assert_eq!(after_swap("db", &pair(), "n1", "n2"), "db: n2 will serve, n1 will follow");
    }
}
