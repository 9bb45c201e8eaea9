//! Signals that end the daemon.
//!
//! Ending the daemon is not stopping its modules: the replicators go on, as after a crash of the daemon, and the next
//! daemon adopts them. Handing modules over before a reboot is a command, not a signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::node::Startup;

/// Cancels the token at SIGTERM or SIGINT.
///
/// # Errors
/// Signal handlers cannot be set.
pub fn watch(token: CancellationToken) -> Result<(), Startup> {
    let failed = |error: std::io::Error| Startup(format!("cannot watch signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(
            signal = name,
            "ending; modules go on under their replicators, for agent_timeout (10s by default)"
        );
        token.cancel();
    });
    Ok(())
}
