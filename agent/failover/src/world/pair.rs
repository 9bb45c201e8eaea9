//! What the two hosts are to each other, as people see it.

use super::World;
use crate::action::{Phase, State};

impl World {
    /// PRIM and SECOND, ready to take over.
    pub fn is_paired(&self) -> bool {
        let state = |host: usize| {
            let agent = self.hosts[host].agent.as_ref()?;
            let status = agent.core.status();
            (status.phase == Phase::Ready).then_some((status.state, agent.core.may_promote()))
        };
        matches!(
            (state(0), state(1)),
            (Some((State::Prim, _)), Some((State::Second, true)))
                | (Some((State::Second, true)), Some((State::Prim, _)))
        )
    }

    /// State, reason and hint of both.
    pub fn describe(&self) -> String {
        let one = |host: usize| {
            let machine = &self.hosts[host];
            let Some(agent) = &machine.agent else { return format!("{}: no agent", machine.config.node) };
            let status = agent.core.status();
            format!(
                "{}: {:?}/{:?} {} {:?}",
                machine.config.node, status.state, status.phase, status.reason, status.hint
            )
        };
        format!("{}; {}", one(0), one(1))
    }
}
