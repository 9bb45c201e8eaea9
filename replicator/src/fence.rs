//! What else must go when this node fences itself without an agent: the module's processes and addresses.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Boottime;

/// Kills every process whose environment carries `SAFE_MODULE=module` and `SAFE_DIR=module_dir` (that one unless it is
/// empty), until there is none or the time is up.
pub fn kill_processes(module: &str, module_dir: &str, limit: Duration) {
    let begun = Boottime::now();
    loop {
        let found = processes(module, module_dir);
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

fn processes(module: &str, module_dir: &str) -> Vec<Pid> {
    let mut marks = vec![format!("SAFE_MODULE={module}")];
    if !module_dir.is_empty() {
        marks.push(format!("SAFE_DIR={module_dir}"));
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| *pid != own && carries(*pid, &marks))
        .collect()
}

fn carries(pid: Pid, marks: &[String]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
        return false;
    };
    marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
}

/// Takes the virtual addresses (`ip/prefix`, or `ip/prefix@interface`) off this node, from whichever interface.
pub fn drop_addresses(addresses: &[String]) {
    for address in addresses {
        let (ip, interfaces) = match address.split_once('@') {
            Some((ip, interface)) => (ip, vec![interface.to_owned()]),
            None => (address.as_str(), interfaces(address)),
        };
        let removed: Vec<String> = interfaces.into_iter().filter(|interface| remove(ip, interface)).collect();
        tracing::info!(address, ?removed, "virtual address removed");
    }
}

/// Interfaces that carry the address. Asked of ip(8): /sys may show another network namespace.
fn interfaces(ip: &str) -> Vec<String> {
    let bare = ip.split('/').next().unwrap_or(ip);
    match Command::new("ip").args(["-o", "address", "show", "to", bare]).stdin(Stdio::null()).output() {
        Ok(output) => interfaces_in(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            tracing::error!(ip, %error, "cannot run ip(8) to find a virtual address");
            Vec::new()
        }
    }
}

fn interfaces_in(text: &str) -> Vec<String> {
    let name = |line: &str| line.split_whitespace().nth(1)?.split('@').next().map(str::to_owned);
    text.lines().filter_map(name).collect()
}

/// False: it was not there, or cannot be removed.
fn remove(ip: &str, interface: &str) -> bool {
    let removed = Command::new("ip")
        .args(["address", "del", ip, "dev", interface])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match removed {
        Ok(status) => status.success(),
        Err(error) => {
            tracing::error!(ip, interface, %error, "cannot run ip(8) to remove a virtual address");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_ip() {
        let text = "2: eth0    inet 10.0.0.1/24 scope global eth0\\ valid_lft forever\n3: v@if4    inet 10.0.0.1/24 x\n";
        assert_eq!(interfaces_in(text), ["eth0", "v"]);
        assert!(interfaces_in("").is_empty());
    }

    #[test]
    fn only_processes_of_the_module_are_found() {
        let module = format!("fence-test-{}", std::process::id());
        let mut child = Command::new("sleep").arg("60").env("SAFE_MODULE", &module).spawn().expect("sleep");
        let mut other = Command::new("sleep").arg("60").env("SAFE_MODULE", "another").spawn().expect("sleep");
        kill_processes(&module, "", Duration::from_secs(5));
        let ended = child.wait().expect("wait");
        assert!(!ended.success());
        assert!(other.try_wait().expect("wait").is_none(), "a process of another module lives");
        other.kill().expect("kill");
        other.wait().expect("wait");
    }
}
