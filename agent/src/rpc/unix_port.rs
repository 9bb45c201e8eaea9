//! The Unix socket: who may open it may do everything.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Caller, Connection};
use crate::node::Startup;

/// Connections at the same time.
const CONNECTIONS: usize = 128;
/// After a failed accept.
const BREATH: Duration = Duration::from_millis(200);

/// Makes the socket, 0600, or 0660 for a group. It appears under its name with the right mode from the first moment.
pub(super) fn bind(path: &Path, group: &str) -> Result<UnixListener, Startup> {
    let failed =
        |error: std::io::Error| Startup(format!("cannot make the socket {}: {error}", path.display()));
    let group = if group.is_empty() { None } else { Some(group_id(group)?) };
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    if let Some(group) = group {
        chown(&fresh, None, Some(group)).map_err(failed)?;
        if let Some(directory) = path.parent() {
            chown(directory, None, Some(group)).map_err(failed)?;
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o710)).map_err(failed)?;
        }
    }
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    Ok(listener)
}

/// A group by number, or by name in /etc/group.
fn group_id(group: &str) -> Result<u32, Startup> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(group)).then(|| parts.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| {
        Startup(format!("socket_group in safed.toml: there is no group {group} in /etc/group"))
    })
}

/// Takes connections until `shutdown`.
pub(super) async fn accept(
    listener: UnixListener,
    connections: mpsc::Sender<std::io::Result<Connection<UnixStream>>>,
    shutdown: CancellationToken,
) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let caller = stream.peer_cred().map_or(Caller::Local { uid: u32::MAX, pid: 0 }, |cred| {
                    Caller::Local { uid: cred.uid(), pid: cred.pid().unwrap_or(0) }
                });
                if connections.send(Ok(Connection::new(stream, caller, permit))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_replaces_a_stale_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("safed.sock");
        drop(bind(&path, "").unwrap());
        let _listener = bind(&path, "").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).await.is_ok());
        assert!(bind(&path, "no-such-group").unwrap_err().0.contains("no-such-group"));
    }
}
