//! Ctrl-C: whoever waits, stops waiting and returns, so that everything is taken down in good order.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Context as _, Error, Result};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM are remembered; a second one ends the program at once (the guardians clean up).
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context(|| "signals".to_owned());
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if HAPPENED.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

/// Whether it happened.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// An error once it happened.
pub fn check() -> Result<()> {
    if happened() { Err(Error::new("interrupted")) } else { Ok(()) }
}
