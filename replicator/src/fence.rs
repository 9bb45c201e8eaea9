//! What else must go when this node fences itself without an agent: the module's processes and addresses.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Boottime;

/// Kills every process that carries `SAFE_MODULE=module` in its environment, until there is none or the time is up.
pub fn kill_processes(module: &str, limit: Duration) {
    let begun = Boottime::now();
    loop {
        let found = processes(module);
        if found.is_empty() {
            return;
        }
        for pid in &found {
            // It may have ended by itself.
            let _gone = kill_process(*pid, Signal::KILL);
        }
        if begun.elapsed() > limit {
            tracing::error!(count = found.len(), "processes of the module do not end");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes(module: &str) -> Vec<Pid> {
    let mark = format!("SAFE_MODULE={module}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| *pid != own && carries(*pid, mark.as_bytes()))
        .collect()
}

fn carries(pid: Pid, mark: &[u8]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
        return false;
    };
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// Takes the virtual addresses (`ip/prefix@interface`) off this node.
pub fn drop_addresses(addresses: &[String]) {
    for address in addresses {
        let Some((ip, interface)) = address.split_once('@') else {
            tracing::error!(address, "a virtual address without an interface");
            continue;
        };
        let removed = Command::new("ip")
            .args(["address", "del", ip, "dev", interface])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match removed {
            // Failure: it was not there.
            Ok(status) => tracing::info!(address, done = status.success(), "virtual address removed"),
            Err(error) => tracing::error!(address, %error, "cannot run ip(8) to remove a virtual address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_the_module_are_found() {
        let module = format!("fence-test-{}", std::process::id());
        let mut child = Command::new("sleep").arg("60").env("SAFE_MODULE", &module).spawn().expect("sleep");
        let mut other = Command::new("sleep").arg("60").env("SAFE_MODULE", "another").spawn().expect("sleep");
        kill_processes(&module, Duration::from_secs(5));
        let ended = child.wait().expect("wait");
        assert!(!ended.success());
        assert!(other.try_wait().expect("wait").is_none(), "a process of another module lives");
        other.kill().expect("kill");
        other.wait().expect("wait");
    }
}
