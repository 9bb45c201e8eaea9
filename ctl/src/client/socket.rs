//! The `safed` of this machine.

use std::io;
use std::path::Path;

use tonic::transport::Channel;

use crate::error::Failure;

/// Connects to the socket.
#[cfg(unix)]
pub(super) async fn connect(path: &Path, root: Option<&Path>) -> Result<Channel, Failure> {
    use hyper_util::rt::TokioIo;
    use tokio::net::UnixStream;

    // The first connection is made here, where its error can be told apart; tonic makes any further one.
    let first = UnixStream::connect(path).await.map_err(|error| explain(&error, path, root))?;
    let mut first = Some(first);
    let again = path.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let (first, path) = (first.take(), again.clone());
        async move {
            match first {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => UnixStream::connect(path).await.map(TokioIo::new),
            }
        }
    });
    let failed = |error| {
        Failure::failed(format!("something at {} answers, but not as safed does", path.display()))
            .cause(error)
    };
    super::endpoint("safed")?
        .connect_with_connector(connector)
        .await
        .map_err(|error| failed(crate::error::deepest(&error)))
}

/// There are no Unix sockets here.
#[cfg(not(unix))]
pub(super) async fn connect(path: &Path, root: Option<&Path>) -> Result<Channel, Failure> {
    let error = io::Error::from(io::ErrorKind::Unsupported);
    Err(explain(&error, path, root)
        .hint("safectl --endpoint https://HOST:9400 --cert FILE --key FILE --ca FILE"))
}

fn explain(error: &io::Error, path: &Path, root: Option<&Path>) -> Failure {
    let start = match root {
        Some(root) => format!("start it: safed --root {}", root.display()),
        None => "start it, as root: safed".to_owned(),
    };
    let shown = path.display();
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        return Failure::failed("safed does not run on this machine")
            .cause(format!("there is no {shown}"))
            .hint(start);
    }
    if kind == io::ErrorKind::ConnectionRefused {
        return Failure::failed("safed does not run on this machine")
            .cause(format!("{shown} is left over from one that ended"))
            .hint(start);
    }
    if kind == io::ErrorKind::PermissionDenied {
        return Failure::failed(format!("you may not talk to the safed of this machine: you are {}", who()))
            .cause(format!("{shown} is open to root and to the group named by socket_group in safed.toml"))
            .hint("type the command as root: sudo safectl ...");
    }
    Failure::failed(format!("cannot connect to {shown}")).cause(error).hint(start)
}

/// The user, as the system knows it.
fn who() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    match (user_id(), name.as_str()) {
        (Some(id), "") => format!("user {id}"),
        (Some(id), name) => format!("{name} (user {id})"),
        (None, "") => "not root".to_owned(),
        (None, name) => name.to_owned(),
    }
}

#[cfg(unix)]
fn user_id() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn user_id() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_hint() {
        let path = Path::new("/r/run/safed.sock");
        let absent = explain(&io::ErrorKind::NotFound.into(), path, Some(Path::new("/r")));
        assert_eq!(absent.hint.as_deref(), Some("start it: safed --root /r"));
        let denied = explain(&io::ErrorKind::PermissionDenied.into(), path, None);
        let absent = explain(&io::ErrorKind::NotFound.into(), path, None);
        assert_eq!(absent.hint.as_deref(), Some("start it, as root: safed"));
        assert!(denied.message.contains("you are "), "{}", denied.message);
        assert!(denied.hint.is_some_and(|hint| hint.contains("sudo")));
    }
}
