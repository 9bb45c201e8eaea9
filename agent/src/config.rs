//! Settings of the daemon: defaults, then `safed.toml`, then `SAFED_*`.

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::node::Startup;
use crate::paths::Paths;

/// What `safed.toml` may hold. Ports count for a new cluster; an existing one has its own in the cluster settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,safed::replica=debug`.
    pub log: String,
    /// Group that may use the local socket; empty: root only.
    pub socket_group: String,
    /// Port of the gRPC API.
    pub port_api: u16,
    /// Port of the heartbeats.
    pub port_heartbeat: u16,
    /// Port of the replication streams.
    pub port_stream: u16,
}

/// Keys taken from the environment; `SAFED_ROOT` and anything else with that beginning are not settings.
const KEYS: [&str; 5] = ["log", "socket_group", "port_api", "port_heartbeat", "port_stream"];

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            socket_group: String::new(),
            port_api: 9400,
            port_heartbeat: 9401,
            port_stream: 9402,
        }
    }
}

impl Config {
    /// Reads and checks all layers.
    ///
    /// # Errors
    /// One line: which key of which layer is wrong.
    pub fn load(paths: &Paths) -> Result<Self, Startup> {
        let file = paths.settings_file();
        let config: Self = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(&file))
            .merge(Env::prefixed("SAFED_").only(&KEYS))
            .extract()
            .map_err(|error| {
                Startup(format!("cannot use the settings of {}: {}", file.display(), told(&error)))
            })?;
        config.check().map_err(|wrong| Startup(format!("{}: {wrong}", file.display())))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let ports = [self.port_api, self.port_heartbeat, self.port_stream];
        if ports.contains(&0) {
            return Err("a port cannot be 0; choose 1 to 65535".to_owned());
        }
        if self.port_api == self.port_stream {
            return Err(format!("port_api and port_stream are both {}; choose two", self.port_api));
        }
        Ok(())
    }
}

/// In words for people; the library's own name its layers.
fn told(error: &figment::Error) -> String {
    let key = error.path.last().map_or("", String::as_str);
    if let Kind::UnknownField(found, known) = &error.kind {
        return format!("there is no key {found}; keys are {}", known.join(", "));
    }
    if let Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) = &error.kind {
        return format!("{key} is {found}; it must be {wanted}");
    }
    error.to_string().replace("default.", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_or_value_is_told_in_words() {
        let wrong = load("port_ap = 1\n").unwrap_err().0;
        assert!(wrong.contains("there is no key port_ap"), "{wrong}");
        assert!(wrong.contains("port_api") && !wrong.contains("default."), "{wrong}");
        let wrong = load("port_api = \"x\"\n").unwrap_err().0;
        assert!(wrong.contains("port_api is string \"x\"; it must be u16"), "{wrong}");
    }

    fn place(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/safed.toml"), text).unwrap();
        dir
    }

    fn load(text: &str) -> Result<Config, Startup> {
        Config::load(&Paths::new(Some(place(text).path())))
    }

    #[test]
    fn defaults_without_file_then_file() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        assert_eq!(Config::load(&paths).unwrap(), Config::default());
        assert_eq!(load("port_api = 19400\n").unwrap().port_api, 19400);
    }

    #[test]
    fn refuses_unknown_keys_and_clashes() {
        assert!(load("prot_api = 1\n").unwrap_err().0.contains("prot_api"));
        assert!(load("port_api = 9402\n").unwrap_err().0.contains("choose two"));
        assert!(load("port_api = 0\n").is_err());
    }
}
