//! The directory of a module: `module.toml`, `scripts/`, and whatever else the application needs.

use std::collections::BTreeSet;

use super::{FILE, Finding, MAX_BYTES, suggest};
use crate::module::{ModuleFile, ModuleFiles};

/// Scripts that safed calls, by name, in `scripts/`; `check_*` besides.
pub const SCRIPTS: [&str; 11] = [
    "prestart",
    "start_prim",
    "stop_prim",
    "start_both",
    "stop_both",
    "start_second",
    "stop_second",
    "start_sec",
    "stop_sec",
    "transition",
    "poststop",
];

/// Most files beside `module.toml`.
pub const MAX_FILES: usize = 256;
/// Most bytes of these files in all.
pub const MAX_TOTAL: usize = 16 * 1024 * 1024;
/// Longest path of a file.
const MAX_PATH: usize = 512;

/// Checks the files around `module.toml`: bounds, paths that stay inside, scripts that can be called.
#[must_use]
pub fn check(module: &ModuleFiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    if module.spec.len() > MAX_BYTES {
        findings.push(Finding::error(FILE, format!("the file is larger than {} KiB", MAX_BYTES / 1024)));
    }
    if module.files.len() > MAX_FILES {
        let message = format!(
            "the module has {} files besides {FILE}; at most {MAX_FILES} are allowed",
            module.files.len()
        );
        findings.push(Finding::error("", message));
        return findings;
    }
    let total: usize = module.files.iter().map(|file| file.content.len()).sum();
    if total > MAX_TOTAL {
        let message =
            format!("the module's files have {total} bytes; at most {} MiB are allowed", MAX_TOTAL >> 20);
        findings.push(Finding::error("", message));
    }
    let mut seen = BTreeSet::new();
    for file in &module.files {
        findings.extend(fault(file));
        if !seen.insert(file.path.as_str()) {
            findings.push(Finding::error(&file.path, "the file is there twice".to_owned()));
        }
    }
    findings.extend(pairs(&seen));
    let starts = ["scripts/start_prim", "scripts/start_both"];
    if !starts.iter().any(|name| seen.contains(name)) {
        let message = "no application is started: there is no scripts/start_prim".to_owned();
        findings.push(Finding::warning(FILE, message));
    }
    findings
}

/// True for a relative path whose components are all plain names.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_PATH
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
}

fn fault(file: &ModuleFile) -> Option<Finding> {
    if !is_inside(&file.path) || file.path == FILE {
        let shown: String = file.path.chars().take(120).collect();
        return Some(Finding::error(&shown, "not a path inside the module's directory".to_owned()));
    }
    let name = file.path.strip_prefix("scripts/").filter(|name| !name.contains('/'))?;
    if SCRIPTS.contains(&name) || name.starts_with("check_") {
        return unusable(file);
    }
    let near = suggest::nearest(name, SCRIPTS).filter(|_| !name.contains('.'))?;
    Some(Finding::warning(&file.path, format!("safed calls no script \"{name}\"; did you mean \"{near}\"?")))
}

fn unusable(file: &ModuleFile) -> Option<Finding> {
    if !file.executable {
        return Some(Finding::error(
            &file.path,
            format!("the script is not executable; type: chmod +x {}", file.path),
        ));
    }
    if file.content.is_empty() {
        return Some(Finding::error(&file.path, "the script is empty; write it or remove it".to_owned()));
    }
    if !file.content.starts_with(b"#!") && !file.content.starts_with(b"\x7fELF") {
        let message = "the script has no first line such as #!/bin/sh: the system cannot run it".to_owned();
        return Some(Finding::error(&file.path, message));
    }
    let first = file.content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if first.starts_with(b"#!") && first.ends_with(b"\r") {
        let message =
            "the first line ends with a carriage return: save the script with Unix line ends".to_owned();
        return Some(Finding::error(&file.path, message));
    }
    None
}

/// A start script without its stop script leaves the application running on both nodes.
fn pairs(files: &BTreeSet<&str>) -> Vec<Finding> {
    let has = |name: &str| files.contains(format!("scripts/{name}").as_str());
    ["prim", "both", "second", "sec"]
        .iter()
        .filter(|role| has(&format!("start_{role}")) && !has(&format!("stop_{role}")))
        .map(|role| {
            let message =
                format!("there is no scripts/stop_{role}: what it starts will be killed, not stopped");
            Finding::warning(&format!("scripts/start_{role}"), message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &str, content: &str, executable: bool) -> ModuleFile {
        ModuleFile { path: path.to_owned(), content: content.as_bytes().to_vec(), executable }
    }

    fn messages(files: Vec<ModuleFile>) -> Vec<String> {
        check(&ModuleFiles { spec: String::new(), files }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_scripts_pass() {
        let files = vec![
            script("scripts/start_prim", "#!/bin/sh\n", true),
            script("scripts/stop_prim", "#!/bin/sh\n", true),
            script("scripts/lib.sh", "x=1\n", false),
            script("conf/app.conf", "", false),
        ];
        assert_eq!(messages(files), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named() {
        let files = vec![
            script("scripts/start_prim", "#!/bin/sh\n", false),
            script("scripts/stop_prim", "echo\n", true),
            script("scripts/stop_both", "#!/bin/sh\r\n", true),
            script("scripts/strat_both", "#!/bin/sh\n", true),
            script("../evil", "", false),
        ];
        let messages = messages(files);
        assert_eq!(messages.len(), 5, "{messages:#?}");
        assert!(messages[0].contains("chmod +x scripts/start_prim"));
        assert!(messages[1].contains("#!/bin/sh"));
        assert!(messages[2].contains("carriage return"));
        assert!(messages[3].contains("did you mean \"start_both\""));
        assert!(messages[4].contains("not a path inside"));
    }

    #[test]
    fn a_start_without_stop_is_told() {
        let messages = messages(vec![script("scripts/start_prim", "#!/bin/sh\n", true)]);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].contains("no scripts/stop_prim"));
    }
}
