//! Services that a module's scripts start and that the init system starts at boot as well: they would run where the module
//! does not serve, on a copy that nobody replicates.
//!
//! Found by the links that `systemctl enable` makes: nothing is asked, and nothing is waited for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Scripts in which a service is started for the one that serves.
const SCRIPTS: [&str; 2] = ["start_prim", "start_both"];
/// Where units are made to start at boot.
const SYSTEMD: &str = "/etc/systemd/system";
/// Where the older init system has its links.
const RC: [&str; 4] = ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d"];
/// Longest script that is read for names.
const LONGEST: u64 = 1 << 20;

/// One sentence for each service of these scripts that starts at boot on this node, with what to type.
pub fn warnings<'a>(scripts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (name, text) in scripts {
        if SCRIPTS.contains(&name) {
            let text = String::from_utf8_lossy(text);
            found.extend(text.lines().flat_map(started).map(|unit| (unit, name.to_owned())));
        }
    }
    found.into_iter().filter_map(|(unit, script)| warning(&unit, &script)).collect()
}

/// The same for scripts in a directory. Blocks.
#[must_use]
pub fn warnings_of(scripts: &Path) -> Vec<String> {
    let read = |name: &'static str| {
        let path = scripts.join(name);
        let short = path.metadata().is_ok_and(|meta| meta.len() <= LONGEST);
        short.then(|| std::fs::read(path).ok()).flatten().map(|text| (name, text))
    };
    let texts: Vec<_> = SCRIPTS.into_iter().filter_map(read).collect();
    warnings(texts.iter().map(|(name, text)| (*name, text.as_slice())))
}

fn warning(unit: &str, script: &str) -> Option<String> {
    let link = enabled(unit)?;
    Some(format!(
        "{unit} is started by scripts/{script}, and at boot by {}: it would run where the module does not serve; type: \
         systemctl disable {unit}",
        link.display()
    ))
}

/// Units that a line of shell starts; a name that is computed is not known.
fn started(line: &str) -> Vec<String> {
    let line = line.split('#').next().unwrap_or_default();
    let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || ";&|()`\"'".contains(c)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let mut units = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let rest = &words[at + 1..];
        match word.rsplit('/').next() {
            Some("systemctl") => {
                let mut rest = rest.iter().skip_while(|word| word.starts_with('-'));
                if matches!(rest.next(), Some(&("start" | "restart" | "reload-or-restart"))) {
                    let names = rest.take_while(|word| **word != "systemctl" && !word.contains('='));
                    units.extend(names.filter(|word| !word.starts_with('-')).filter_map(|word| unit(word)));
                }
            }
            Some("service") if matches!(rest.get(1), Some(&("start" | "restart"))) => {
                units.extend(rest.first().and_then(|word| unit(word)));
            }
            Some(name)
                if word.starts_with("/etc/init.d/")
                    && matches!(rest.first(), Some(&("start" | "restart"))) =>
            {
                units.extend(unit(name));
            }
            _ => {}
        }
    }
    units
}

/// Its full name, if it is one.
fn unit(word: &str) -> Option<String> {
    let name = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    if word.is_empty() || word.len() > 255 || !word.chars().all(name) || word.starts_with('.') {
        return None;
    }
    let typed = [".service", ".socket", ".target", ".timer", ".path"].iter().any(|kind| word.ends_with(kind));
    Some(if typed { word.to_owned() } else { format!("{word}.service") })
}

/// What makes it start at boot.
fn enabled(unit: &str) -> Option<PathBuf> {
    let targets = std::fs::read_dir(SYSTEMD).into_iter().flatten().flatten().map(|entry| entry.path());
    let wants =
        targets.filter(|path| path.extension().is_some_and(|kind| kind == "wants" || kind == "requires"));
    let link = wants.map(|path| path.join(unit)).find(|path| path.symlink_metadata().is_ok());
    link.or_else(|| {
        let name = unit.strip_suffix(".service")?;
        let links = RC.iter().flat_map(|path| std::fs::read_dir(path).into_iter().flatten().flatten());
        links.map(|entry| entry.path()).find(|path| is_start_link(path, name))
    })
}

/// `S20mysql` for mysql.
fn is_start_link(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let rest = file.strip_prefix('S').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_where_a_script_starts_them() {
        for (line, units) in [
            ("systemctl start mariadb", &["mariadb.service"] as &[&str]),
            ("exec /usr/bin/systemctl --no-block restart a.socket b && echo", &["a.socket", "b.service"]),
            ("if ! systemctl is-active x; then systemctl start x; fi", &["x.service"]),
            ("service apache2 start", &["apache2.service"]),
            ("/etc/init.d/nginx restart", &["nginx.service"]),
            ("systemctl stop mariadb", &[]),
            ("systemctl start \"$UNIT\"", &[]),
            ("# systemctl start mariadb", &[]),
            ("echo service is up", &[]),
        ] {
            let found = started(line);
            for unit in units {
                assert!(found.contains(&(*unit).to_owned()), "{line}: {found:?}");
            }
            if units.is_empty() {
                assert!(found.is_empty(), "{line}: {found:?}");
            }
        }
    }

    #[test]
    fn links_of_the_older_init_system_are_told_by_their_name() {
        assert!(is_start_link(Path::new("/etc/rc3.d/S20mysql"), "mysql"));
        assert!(!is_start_link(Path::new("/etc/rc3.d/K20mysql"), "mysql"));
        assert!(!is_start_link(Path::new("/etc/rc3.d/S20mysql2"), "mysql"));
    }
}
