//! What an administrator's command means for this node, in words.

use safe_failover::action::State;
use safe_failover::event::Command;

use crate::scripts::state_name;

/// What happens now that the command was accepted.
#[must_use]
pub fn accepted(module: &str, node: &str, command: Command) -> String {
    match command {
        Command::Start => format!("{module} starts on {node}"),
        Command::Stop => format!("{module} stops on {node}"),
        Command::StopStart => format!("{module} stops and starts again on {node}"),
        Command::Restart => format!("the application of {module} restarts on {node}"),
        Command::Swap => format!("{module} exchanges roles, from {node} on"),
        Command::Verify { repair: false } => format!("{node} compares both copies of {module}"),
        Command::Verify { repair: true } => {
            format!("{node} compares both copies of {module} and resends what differs")
        }
        Command::Unlock => format!("the directories of {module} are being unlocked on {node}"),
        Command::Prim { force: false } => format!("{module} starts as primary on {node}"),
        Command::Prim { force: true } => format!("{module} is forced to be primary on {node}"),
        Command::Second { .. } => format!("{module} starts as secondary on {node}"),
    }
}

/// What became of a command that the core has answered well; `state` is the one after it.
#[must_use]
pub fn done(module: &str, node: &str, command: Command, state: State) -> String {
    match command {
        Command::Start if state != State::Wait => format!("{module} is {} on {node}", state_name(state)),
        Command::Stop => format!("{module} is stopped on {node}"),
        Command::Unlock => format!(
            "the directories of {module} are unlocked on {node}: its copy counts as edited until it is compared"
        ),
        Command::Start
        | Command::StopStart
        | Command::Restart
        | Command::Swap
        | Command::Verify { .. }
        | Command::Prim { .. }
        | Command::Second { .. } => accepted(module, node, command),
    }
}

/// What happens now that resynchronisations are held back for so many seconds, or go on (0).
#[must_use]
pub fn resync_paused(module: &str, node: &str, seconds: u32) -> String {
    if seconds == 0 {
        return format!("resyncs of {module} go on from {node}");
    }
    let time = safe_proto::spec::quantity::format_duration(std::time::Duration::from_secs(seconds.into()));
    format!("resyncs of {module} from {node} are paused for {time}; to go on: safectl resync resume {module}")
}

/// The name as typed.
#[must_use]
pub fn name(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Stop => "stop",
        Command::StopStart => "stopstart",
        Command::Restart => "restart",
        Command::Swap => "swap",
        Command::Verify { .. } => "verify",
        Command::Unlock => "data unlock",
        Command::Prim { force: false } => "prim",
        Command::Prim { force: true } => "prim --force",
        Command::Second { .. } => "second",
    }
}

/// True if the command wants the module to run: what the boot setting held back is then forgotten.
#[must_use]
pub fn wants_running(command: Command) -> bool {
    match command {
        Command::Start | Command::StopStart | Command::Prim { .. } | Command::Second { .. } => true,
        Command::Stop | Command::Restart | Command::Swap | Command::Verify { .. } | Command::Unlock => false,
    }
}
