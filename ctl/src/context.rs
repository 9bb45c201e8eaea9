//! What was meant: resolved arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Cli, Command, Format, GlobalArgs, Until};
use crate::error::Failure;
use crate::output::Printer;
use crate::paths::Paths;

/// Where the `safed` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this machine.
    Socket {
        /// Its socket.
        path: PathBuf,
        /// The root it was started with.
        root: Option<PathBuf>,
    },
    /// Somewhere on the network.
    Tls(Endpoint),
}

/// A `safed` on the network and who is talking to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

/// Everything a command needs besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) target: Target,
    pub(crate) paths: Paths,
    pub(crate) timeout: Duration,
    /// None: do not wait.
    pub(crate) wait: Option<Until>,
    pub(crate) wait_timeout: Duration,
    pub(crate) yes: bool,
}

/// The usual port of the API.
const PORT: u16 = 9400;

impl Context {
    /// Makes sense of the raw arguments.
    pub(crate) fn resolve(cli: Cli) -> Result<(Self, Command), Failure> {
        let mut global = cli.global;
        // Not by clap, whose usage lines would show --root as if it were required.
        global.root = global
            .root
            .or_else(|| std::env::var_os("SAFED_ROOT").filter(|root| !root.is_empty()).map(Into::into));
        if global.no_wait && global.wait.is_some() {
            return Err(Failure::usage("--wait and --no-wait exclude each other"));
        }
        if global.timeout.is_zero() || global.wait_timeout.is_zero() {
            return Err(Failure::usage("--timeout and --wait-timeout are longer than 0s"));
        }
        let context = Self {
            printer: Printer::new(global.output, global.no_color),
            paths: Paths::new(global.root.as_deref()),
            target: target(&global)?,
            timeout: global.timeout,
            wait: if global.no_wait { None } else { Some(global.wait.unwrap_or(Until::Ready)) },
            wait_timeout: global.wait_timeout,
            yes: global.yes,
        };
        Ok((context, cli.command))
    }

    pub(crate) fn is_table(&self) -> bool {
        self.printer.format == Format::Table
    }
}

fn target(global: &GlobalArgs) -> Result<Target, Failure> {
    let Some(url) = &global.endpoint else {
        if global.cert.is_some() || global.key.is_some() || global.ca.is_some() {
            return Err(Failure::usage("--cert, --key and --ca belong to --endpoint"));
        }
        let path = Paths::new(global.root.as_deref()).socket();
        return Ok(Target::Socket { path, root: global.root.clone() });
    };
    let file = |option: &Option<PathBuf>, name: &str| {
        option.as_deref().map(Path::to_path_buf).ok_or_else(|| {
            Failure::usage(format!("--endpoint needs {name} FILE"))
                .hint("safectl --endpoint https://HOST:9400 --cert FILE --key FILE --ca FILE status")
        })
    };
    let (host, port) = host_and_port(url)?;
    Ok(Target::Tls(Endpoint {
        host,
        port,
        cert: file(&global.cert, "--cert")?,
        key: file(&global.key, "--key")?,
        ca: file(&global.ca, "--ca")?,
    }))
}

fn host_and_port(url: &str) -> Result<(String, u16), Failure> {
    let wrong = || {
        Failure::usage(format!("{url:?} is not an endpoint; write it as in https://10.99.0.1:9400"))
            .cause("only https is spoken, without a path")
    };
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, uri.port_u16().unwrap_or(PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(host_and_port("https://10.0.0.1:9400"), Ok(("10.0.0.1".to_owned(), 9400)));
        assert_eq!(host_and_port("https://n1"), Ok(("n1".to_owned(), 9400)));
        assert_eq!(host_and_port("https://[fe80::1]:1/"), Ok(("fe80::1".to_owned(), 1)));
        for bad in ["n1:9400", "http://n1", "https://n1/x", "", "https://"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
