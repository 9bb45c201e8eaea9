//! Who writes to a directory although it is covered: by a file that was opened before.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::processes::find;

/// The first one found, as a sentence. Blocks for as long as looking at all processes takes.
pub(super) fn of(directory: &Path) -> Option<String> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let own = directory.to_owned();
    let pid =
        find(move |pid| writes(&PathBuf::from(format!("/proc/{pid}")), &own, device)).into_iter().next()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let (name, shown) = (name.trim(), directory.display());
    Some(format!(
        "process {pid} ({name}) has files in {shown} open for writing although the module does not serve here"
    ))
}

fn writes(process: &Path, directory: &Path, device: u64) -> bool {
    writes_open(process, directory, device) || writes_mapped(process, directory, device)
}

fn writes_open(process: &Path, directory: &Path, device: u64) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        let beneath = std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(directory));
        beneath
            && std::fs::metadata(file.path()).is_ok_and(|meta| meta.is_file() && meta.dev() == device)
            && for_writing(&process.join("fdinfo").join(file.file_name()))
    })
}

/// `flags:` in octal; the last two bits say how it was opened.
fn for_writing(info: &Path) -> bool {
    let info = std::fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
}

/// A shared writable mapping needs no descriptor any more.
fn writes_mapped(process: &Path, directory: &Path, device: u64) -> bool {
    let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
    let wanted = (libc::major(device), libc::minor(device));
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let shared =
            fields.nth(1).is_some_and(|mode| mode.get(1..2) == Some("w") && mode.get(3..4) == Some("s"));
        let device = fields.nth(1).and_then(|text| text.split_once(':'));
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).ok();
        let same = device.is_some_and(|(major, minor)| {
            (hexadecimal(major), hexadecimal(minor)) == (Some(wanted.0), Some(wanted.1))
        });
        let path = line.split_once('/').map(|(_, rest)| PathBuf::from(format!("/{rest}")));
        shared && same && path.is_some_and(|path| path.starts_with(directory))
    })
}
