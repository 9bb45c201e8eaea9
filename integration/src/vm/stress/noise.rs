//! Operations of all kinds that nobody syncs: what a loss of power may leave half done on either side.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, RenameFlags, XattrFlags};

use super::content::Dice;
use crate::error::{Context as _, Result};

/// Names in each directory.
const NAMES: u64 = 12;

/// Furthest end of a file.
const SIZE: u64 = 200_000;

/// As long as it `goes_on`; errors that the names explain are part of it.
pub(super) fn noise(directory: &Path, mut dice: Dice, goes_on: impl Fn() -> bool) -> Result<()> {
    fs::create_dir_all(directory)?;
    while goes_on() {
        let (kind, path) = (dice.below(14), any(directory, &mut dice));
        let end = one(kind, &path, directory, &mut dice);
        match end {
            Err(error) if !is_expected(&error) => {
                return Err(error).context(|| format!("operation {kind} on {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn any(directory: &Path, dice: &mut Dice) -> PathBuf {
    let mut path = directory.to_path_buf();
    for _ in 0..dice.below(3) {
        path.push(format!("d{}", dice.below(3)));
    }
    path.push(format!("f{}", dice.below(NAMES)));
    path
}

fn one(kind: u64, path: &Path, directory: &Path, dice: &mut Dice) -> io::Result<()> {
    let (at, length) = (dice.below(SIZE), dice.below(20_000));
    let size = usize::try_from(length).unwrap_or(0);
    match kind {
        0..=2 => {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.write_all_at(&dice.bytes(size), at)
        }
        3 => OpenOptions::new().write(true).open(path)?.set_len(at),
        4 => fs::rename(path, any(directory, dice)),
        5 => fs::remove_file(path),
        6 => fs::hard_link(path, any(directory, dice)),
        7 => symlink(format!("f{}", dice.below(NAMES)), path),
        8 => fs::create_dir(path.with_file_name(format!("d{}", dice.below(3)))),
        9 => fs::remove_dir(path.with_file_name(format!("d{}", dice.below(3)))),
        10 => fs::set_permissions(
            path,
            fs::Permissions::from_mode(0o600 | u32::try_from(dice.below(0o200)).unwrap_or(0)),
        ),
        11 => Ok(rustix::fs::setxattr(path, "user.noise", &dice.bytes(20), XattrFlags::empty())?),
        12 => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&File::options().write(true).open(path)?, flags, at, length + 1)?)
        }
        _ => {
            let (one, other) = (path, any(directory, dice));
            Ok(rustix::fs::renameat_with(
                rustix::fs::CWD,
                one,
                rustix::fs::CWD,
                &other,
                RenameFlags::EXCHANGE,
            )?)
        }
    }
}

/// Names that are not there, or are there and of another kind.
fn is_expected(error: &io::Error) -> bool {
    let expected = [
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::ENOTEMPTY,
        libc::EINVAL,
        libc::ELOOP,
        libc::EPERM,
        libc::ETXTBSY,
    ];
    error.raw_os_error().is_some_and(|code| expected.contains(&code))
}
