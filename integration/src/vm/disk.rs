//! Disks of machines: raw files with a filesystem, holes where nothing was written.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context as _, Error, Result};
use crate::place::binary;

/// Size of the disk with the replicated directories, seen at `/srv`.
const DATA: &str = "1G";

/// What a machine has of this workspace, in `/opt/safed/bin`.
const PROGRAMS: [&str; 5] = ["safed", "safe-replicator", "safectl", "guest", "ledger"];

/// A disk with the system, for one machine.
pub fn system(image: &Path, at: &Path) -> Result<()> {
    run(Command::new("cp").args(["--sparse=always"]).args([image, at]))
}

/// An empty disk for data.
pub fn data(at: &Path) -> Result<()> {
    format(at, DATA, "data", None)
}

/// The disk with the programs under test, for all machines of a test: read only.
pub fn programs(directory: &Path) -> Result<PathBuf> {
    let (stage, disk) = (directory.join("programs"), directory.join("programs.img"));
    let bin = stage.join("bin");
    std::fs::create_dir_all(&bin)?;
    for name in PROGRAMS {
        // Without the tables for debuggers a tenth is left.
        let target = bin.join(name);
        run(Command::new("strip").arg("-o").arg(&target).arg(binary(name)?))?;
    }
    let used =
        std::fs::read_dir(&bin)?.flatten().filter_map(|entry| entry.metadata().ok()).map(|it| it.len());
    let mebibytes = used.sum::<u64>() / (1024 * 1024) * 11 / 10 + 16;
    format(&disk, &format!("{mebibytes}M"), "programs", Some(&stage))?;
    std::fs::remove_dir_all(&stage)?;
    Ok(disk)
}

fn format(at: &Path, size: &str, label: &str, content: Option<&Path>) -> Result<()> {
    run(Command::new("truncate").args(["-s", size]).arg(at))?;
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-L", label, "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
    if let Some(content) = content {
        make.arg("-d").arg(content);
    }
    run(make.arg(at))
}

/// Runs it with the places in its path that only administrators have.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let what = command.get_program().to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let said = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output().context(|| what.clone())?;
    if said.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{what}: {}", String::from_utf8_lossy(&said.stderr).trim())))
}
