//! What the machine must offer for hosts in namespaces.

use std::fs::OpenOptions;
use std::path::Path;

use crate::error::{Error, Result};

/// One line that says what is missing and what to do.
pub fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new("hosts in namespaces need root: run it again with sudo"));
    }
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Err(Error::new(
            "/dev/fuse cannot be opened: load the module (`modprobe fuse`), or give the container the device \
             (`--device /dev/fuse --privileged`)",
        ));
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("nsenter", "util-linux"),
        ("rsync", "rsync"),
        ("ping", "iputils-ping"),
    ] {
        if !is_installed(program) {
            return Err(Error::new(format!("no program {program}: run `apt-get install {package}`")));
        }
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_path_buf(), Path::new("/sbin").to_path_buf()])
        .any(|directory| directory.join(program).is_file())
}
