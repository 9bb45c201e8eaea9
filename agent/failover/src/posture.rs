//! Postures, and the steps from one to another in the model product's order.

use std::collections::VecDeque;

use crate::action::{Script, State};

/// What of the module is active on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Posture {
    /// Nothing; after `poststop`.
    #[default]
    Down,
    /// Nothing; after `prestart`.
    Idle,
    /// The scripts of a secondary.
    Second,
    /// Mounted, addresses, the scripts of a primary.
    Prim,
    /// As `Prim`, and those of both roles.
    Alone,
}

impl Posture {
    pub(crate) const fn serves(self) -> bool {
        matches!(self, Self::Prim | Self::Alone)
    }

    /// Scripts of a role run.
    pub(crate) const fn is_active(self) -> bool {
        matches!(self, Self::Second | Self::Prim | Self::Alone)
    }

    pub(crate) const fn state(self) -> State {
        match self {
            Self::Down => State::Stop,
            Self::Idle => State::Wait,
            Self::Second => State::Second,
            Self::Prim => State::Prim,
            Self::Alone => State::Alone,
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Mount,
    Raise,
    Drop,
    Kill,
    Unmount,
    /// Freeze replies, remove addresses, kill processes: all at once.
    Cut,
    Run(Script),
    Force(Script),
}

pub(crate) const fn stop_of(script: Script) -> Option<Script> {
    match script {
        Script::StartPrim => Some(Script::StopPrim),
        Script::StartBoth => Some(Script::StopBoth),
        Script::StartSecond => Some(Script::StopSecond),
        Script::StartSec => Some(Script::StopSec),
        Script::Prestart
        | Script::StopPrim
        | Script::StopBoth
        | Script::StopSecond
        | Script::StopSec
        | Script::Transition
        | Script::Poststop => None,
    }
}

/// Stop scripts gracefully in this order, then once more with `force`.
pub(crate) fn stopping(scripts: &[Script]) -> impl Iterator<Item = Step> + use<> {
    let twice: Vec<Step> = scripts
        .iter()
        .map(|script| Step::Run(*script))
        .chain(scripts.iter().map(|script| Step::Force(*script)))
        .collect();
    twice.into_iter()
}

/// The steps from one posture to another, in the model product's order.
pub(crate) fn plan(from: Posture, to: Posture, both: bool) -> VecDeque<Step> {
    use Script::{
        Poststop, Prestart, StartBoth, StartPrim, StartSec, StartSecond, StopBoth, StopPrim, StopSec,
        StopSecond, Transition,
    };
    use Step::{Drop, Kill, Mount, Raise, Run, Unmount};
    let mut steps = VecDeque::new();
    let start_both = (!both).then_some(Run(StartBoth));
    match (from, to) {
        (Posture::Down, Posture::Down)
        | (Posture::Idle, Posture::Idle)
        | (Posture::Second, Posture::Second)
        | (Posture::Prim, Posture::Prim)
        | (Posture::Alone, Posture::Alone) => {}
        (Posture::Down, Posture::Idle) => steps.push_back(Run(Prestart)),
        (Posture::Down, Posture::Second | Posture::Prim | Posture::Alone) => {
            steps.push_back(Run(Prestart));
            steps.extend(plan(Posture::Idle, to, both));
        }
        (Posture::Idle, Posture::Down) => steps.extend([Run(Poststop), Run(Transition)]),
        (Posture::Idle, Posture::Second) => {
            steps.push_back(Run(Transition));
            steps.extend(start_both);
            steps.extend([Run(StartSecond), Run(StartSec)]);
        }
        (Posture::Idle, Posture::Prim | Posture::Alone) => {
            steps.extend([Mount, Raise, Run(Transition)]);
            steps.extend(start_both);
            steps.push_back(Run(StartPrim));
            steps.extend((to == Posture::Alone).then_some(Run(StartSec)));
        }
        (Posture::Second, Posture::Alone) => {
            steps.extend([Mount, Raise]);
            steps.extend(stopping(&[StopSecond]));
            steps.extend([Run(Transition), Run(StartPrim)]);
        }
        (Posture::Second, Posture::Prim) => {
            steps.extend([Mount, Raise]);
            steps.extend(stopping(&[StopSec, StopSecond]));
            steps.extend([Run(Transition), Run(StartPrim)]);
        }
        (Posture::Prim, Posture::Alone) => steps.extend([Run(Transition), Run(StartSec)]),
        (Posture::Alone, Posture::Prim) => {
            steps.extend(stopping(&[StopSec]));
            steps.push_back(Run(Transition));
        }
        (Posture::Second, Posture::Idle) => {
            steps.extend(stopping(&[StopSec, StopSecond, StopBoth]));
            steps.extend([Kill, Run(Transition)]);
        }
        (Posture::Prim, Posture::Idle) => {
            steps.push_back(Drop);
            steps.extend(stopping(&[StopPrim, StopBoth]));
            steps.extend([Kill, Unmount, Run(Transition)]);
        }
        (Posture::Alone, Posture::Idle) => {
            steps.push_back(Drop);
            steps.extend(stopping(&[StopSec, StopPrim, StopBoth]));
            steps.extend([Kill, Unmount, Run(Transition)]);
        }
        (Posture::Second | Posture::Prim | Posture::Alone, Posture::Down) => {
            steps.extend(plan(from, Posture::Idle, both));
            steps.extend(plan(Posture::Idle, Posture::Down, false));
        }
        (Posture::Prim | Posture::Alone, Posture::Second) => {
            steps.extend(plan(from, Posture::Idle, both));
            steps.extend(plan(Posture::Idle, Posture::Second, false));
        }
    }
    steps
}

pub(crate) const fn script_name(script: Script) -> &'static str {
    match script {
        Script::Prestart => "prestart",
        Script::StartPrim => "start_prim",
        Script::StopPrim => "stop_prim",
        Script::StartBoth => "start_both",
        Script::StopBoth => "stop_both",
        Script::StartSecond => "start_second",
        Script::StopSecond => "stop_second",
        Script::StartSec => "start_sec",
        Script::StopSec => "stop_sec",
        Script::Transition => "transition",
        Script::Poststop => "poststop",
    }
}

#[cfg(test)]
mod tests {
    use super::{Posture, Step, plan, script_name};

    fn steps(from: Posture, to: Posture, both: bool) -> String {
        let name = |step: &Step| match step {
            Step::Run(script) => script_name(*script).to_owned(),
            Step::Force(script) => format!("{}!", script_name(*script)),
            Step::Mount | Step::Raise | Step::Drop | Step::Kill | Step::Unmount | Step::Cut => {
                format!("{step:?}")
            }
        };
        plan(from, to, both).iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn entering_service_mounts_before_addresses_before_scripts() {
        let order = "Mount Raise transition start_both start_prim start_sec";
        assert_eq!(steps(Posture::Idle, Posture::Alone, false), order);
        assert_eq!(steps(Posture::Idle, Posture::Prim, true), "Mount Raise transition start_prim");
        assert_eq!(
            steps(Posture::Idle, Posture::Second, false),
            "transition start_both start_second start_sec"
        );
    }

    #[test]
    fn leaving_service_removes_addresses_before_scripts_before_unmounting() {
        let order = "Drop stop_prim stop_both stop_prim! stop_both! Kill Unmount transition";
        assert_eq!(steps(Posture::Prim, Posture::Idle, true), order);
        let order = "Drop stop_sec stop_prim stop_both stop_sec! stop_prim! stop_both! Kill Unmount transition poststop transition";
        assert_eq!(steps(Posture::Alone, Posture::Down, true), order);
        let order = "stop_sec stop_second stop_both stop_sec! stop_second! stop_both! Kill transition";
        assert_eq!(steps(Posture::Second, Posture::Idle, true), order);
    }

    #[test]
    fn a_change_of_role_leaves_the_rest_running() {
        assert_eq!(steps(Posture::Prim, Posture::Alone, true), "transition start_sec");
        assert_eq!(steps(Posture::Alone, Posture::Prim, true), "stop_sec stop_sec! transition");
        let order = "Mount Raise stop_second stop_second! transition start_prim";
        assert_eq!(steps(Posture::Second, Posture::Alone, true), order);
        let order = "Mount Raise stop_sec stop_second stop_sec! stop_second! transition start_prim";
        assert_eq!(steps(Posture::Second, Posture::Prim, true), order);
    }
}
