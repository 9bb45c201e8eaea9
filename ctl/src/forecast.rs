//! Who will serve after a command that takes a node away: said before it is done.

use crate::goal::find;
use crate::status::{Entry, State};

/// After `nodes` stop the module.
pub(crate) fn after_stop(module: &str, now: &[Entry], nodes: &[String]) -> String {
    let stays = |entry: &&Entry| !nodes.contains(&entry.node);
    let serving: Vec<&Entry> = now.iter().filter(|entry| entry.state.serves()).collect();
    if serving.is_empty() {
        let runs = |entry: &&Entry| matches!(entry.state, State::Second | State::Wait);
        return match now.iter().filter(stays).find(runs) {
            Some(other) => format!(
                "{module}: nobody serves now; {} is {} and may come to serve",
                other.node,
                other.state_and_phase()
            ),
            None => format!("{module}: nobody serves now, nor after this"),
        };
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

/// The node that serves and is about to stop, and the one that runs but cannot take over yet: nobody would serve,
/// where one might think that the other does.
pub(crate) fn gap<'a>(now: &'a [Entry], nodes: &[String]) -> Option<(&'a Entry, &'a Entry)> {
    let stops = |entry: &&Entry| nodes.contains(&entry.node);
    let serving = now.iter().filter(|entry| entry.state.serves());
    let leaving = serving.clone().find(stops)?;
    if serving.clone().count() != serving.filter(stops).count() {
        return None;
    }
    let other = now.iter().find(|entry| !nodes.contains(&entry.node))?;
    let waits = match other.state {
        State::Second => !other.is_ready(),
        State::Wait => true,
        State::Stop | State::Alone | State::Prim | State::Up | State::Unknown => false,
    };
    waits.then_some((leaving, other))
}

/// While and after `nodes` stop the module and start it again.
pub(crate) fn after_stopstart(module: &str, now: &[Entry], nodes: &[String]) -> String {
    let serves = now.iter().any(|entry| nodes.contains(&entry.node) && entry.state.serves());
    let heir = now
        .iter()
        .filter(|entry| !nodes.contains(&entry.node))
        .find(|entry| entry.state == State::Second && entry.is_ready());
    let again = nodes.join(" and ");
    let verb = if nodes.len() == 1 { "stops and starts" } else { "stop and start" };
    match (serves, heir) {
        (true, Some(heir)) => {
            format!("{module}: {again} {verb} again; then {} or {} serves", again, heir.node)
        }
        (true, None) => format!("{module}: {again} {verb} again; until then nobody serves"),
        (false, _) => format!("{module}: {again} {verb} again"),
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
    fn stop_where_nobody_serves() {
        let on = |node: &str| vec![node.to_owned()];
        let loops = [entry("n1", Wire::Wait, Phase::Transient), entry("n2", Wire::Second, Phase::Ready)];
        let text = "db: nobody serves now; n2 is SECOND/ready and may come to serve";
        assert_eq!(after_stop("db", &loops, &on("n1")), text);
        let stopped = [entry("n1", Wire::Wait, Phase::Blocked), entry("n2", Wire::Stop, Phase::Ready)];
        assert_eq!(after_stop("db", &stopped, &on("n1")), "db: nobody serves now, nor after this");
    }

    #[test]
    fn a_gap_is_where_the_other_node_is_not_ready_yet() {
        let on = |node: &str| vec![node.to_owned()];
        let resync = [entry("n1", Wire::Alone, Phase::Ready), entry("n2", Wire::Second, Phase::Transient)];
        let found = gap(&resync, &on("n1")).map(|(one, other)| (one.node.as_str(), other.node.as_str()));
        assert_eq!(found, Some(("n1", "n2")));
        assert_eq!(gap(&resync, &on("n2")), None);
        assert_eq!(gap(&resync, &["n1".to_owned(), "n2".to_owned()]), None);
        assert_eq!(gap(&pair(), &on("n1")), None);
        let single = [entry("n1", Wire::Alone, Phase::Ready), entry("n2", Wire::Stop, Phase::Ready)];
        assert_eq!(gap(&single, &on("n1")), None, "who stopped it there knows");
    }

    #[test]
    fn stopstart() {
        let on = |node: &str| vec![node.to_owned()];
        let text = "db: n1 stops and starts again; then n1 or n2 serves";
        assert_eq!(after_stopstart("db", &pair(), &on("n1")), text);
        assert_eq!(after_stopstart("db", &pair(), &on("n2")), "db: n2 stops and starts again");
        let all = vec!["n1".to_owned(), "n2".to_owned()];
        let text = "db: n1 and n2 stop and start again; until then nobody serves";
        assert_eq!(after_stopstart("db", &pair(), &all), text);
    }

    #[test]
    fn swap() {
        assert_eq!(after_swap("db", &pair(), "n1", "n2"), "db: n2 will serve, n1 will follow");
    }
}
