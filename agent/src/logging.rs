//! The daemon's own log: to stderr, where the service manager collects it.

use tracing_subscriber::EnvFilter;

use crate::node::Startup;

/// Begins logging.
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: &str) -> Result<(), Startup> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Startup(format!(
            "log = {filter:?} is not a log filter ({error}); write error, warn, info, debug or trace"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| Startup(format!("cannot start logging: {error}")))
}
