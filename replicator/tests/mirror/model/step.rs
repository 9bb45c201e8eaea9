//! One step: what it is, and how it is carried out on a filesystem.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, RenameFlags, XattrFlags};

/// Few names, so that steps meet.
const NAMES: u8 = 4;

/// Names from the top, one to three.
pub(crate) type Names = Vec<u8>;

/// What rename does with an existing name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create(Names),
    Temporary(Names, u8),
    Mkdir(Names),
    Symlink(Names),
    Write(Names, u32, u32, u8),
    Append(Names, u32, u8),
    Truncate(Names, u32),
    Punch(Names, u32, u32),
    Copy(Names, Names, u32, u32),
    Unlink(Names),
    Rmdir(Names),
    Rename(Names, Names, How),
    Link(Names, Names),
    Chmod(Names, u32),
    SetXattr(Names, u8, u8),
    RemoveXattr(Names, u8),
    Sync(Names),
}

fn names() -> impl Strategy<Value = Names> {
    prop::collection::vec(0..NAMES, 1..=3)
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![3 => Just(How::Replace), 1 => Just(How::NoReplace), 1 => Just(How::Exchange)]
}

fn step() -> impl Strategy<Value = Step> {
    const MOST: u32 = 200_000;
    prop_oneof![
        4 => names().prop_map(Step::Create),
        1 => (names(), any::<u8>()).prop_map(|(at, fill)| Step::Temporary(at, fill)),
        4 => names().prop_map(Step::Mkdir),
        1 => names().prop_map(Step::Symlink),
        6 => (names(), 0..MOST, 1..50_000u32, 1..255u8).prop_map(|(at, o, l, fill)| Step::Write(at, o, l, fill)),
        2 => (names(), 1..9000u32, 1..255u8).prop_map(|(at, l, fill)| Step::Append(at, l, fill)),
        2 => (names(), 0..MOST).prop_map(|(at, size)| Step::Truncate(at, size)),
        1 => (names(), 0..MOST, 1..50_000u32).prop_map(|(at, o, l)| Step::Punch(at, o, l)),
        1 => (names(), names(), 0..MOST, 1..MOST).prop_map(|(from, to, o, l)| Step::Copy(from, to, o, l)),
        2 => names().prop_map(Step::Unlink),
        1 => names().prop_map(Step::Rmdir),
        4 => (names(), names(), how()).prop_map(|(from, to, how)| Step::Rename(from, to, how)),
        2 => (names(), names()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => (names(), 0..0o1000u32).prop_map(|(at, mode)| Step::Chmod(at, mode | 0o700)),
        1 => (names(), 0..3u8, any::<u8>()).prop_map(|(at, key, value)| Step::SetXattr(at, key, value)),
        1 => (names(), 0..3u8).prop_map(|(at, key)| Step::RemoveXattr(at, key)),
        1 => names().prop_map(Step::Sync),
    ]
}

pub(crate) fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), length)
}

pub(crate) fn path(base: &Path, names: &Names) -> PathBuf {
    names.iter().fold(base.to_path_buf(), |path, name| path.join(format!("n{name}")))
}

pub(crate) fn key(key: u8) -> String {
    format!("user.k{key}")
}

/// What symbolic links lead to.
pub(crate) const NOWHERE: &str = "nowhere";

type Outcome = Result<(), i32>;

fn code(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

fn done(result: rustix::io::Result<()>) -> Outcome {
    result.map_err(rustix::io::Errno::raw_os_error)
}

impl Step {
    /// Carries it out beneath a directory.
    pub(crate) fn carry_out(&self, base: &Path) -> Outcome {
        let at = |names: &Names| path(base, names);
        let open = |names: &Names| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(at(names))
                .map_err(code)
        };
        match self {
            Self::Create(names) => File::create_new(at(names)).map(drop).map_err(code),
            Self::Temporary(names, fill) => temporary(base, &at(names), *fill),
            Self::Mkdir(names) => std::fs::create_dir(at(names)).map_err(code),
            Self::Symlink(names) => std::os::unix::fs::symlink(NOWHERE, at(names)).map_err(code),
            Self::Write(names, offset, length, fill) => {
                open(names)?.write_all_at(&vec![*fill; *length as usize], u64::from(*offset)).map_err(code)
            }
            Self::Append(names, length, fill) => {
                use std::io::Write as _;
                let mut file = OpenOptions::new()
                    .append(true)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(at(names))
                    .map_err(code)?;
                file.write_all(&vec![*fill; *length as usize]).map_err(code)
            }
            Self::Truncate(names, size) => open(names)?.set_len(u64::from(*size)).map_err(code),
            Self::Punch(names, offset, length) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let file = open(names)?;
                done(rustix::fs::fallocate(&file, flags, u64::from(*offset), u64::from(*length)))
            }
            Self::Copy(from, to, offset, length) => {
                let (from, to) = (open(from)?, open(to)?);
                copy(&from, &to, u64::from(*offset), *length as usize)
            }
            Self::Unlink(names) => std::fs::remove_file(at(names)).map_err(code),
            Self::Rmdir(names) => std::fs::remove_dir(at(names)).map_err(code),
            Self::Rename(from, to, how) => {
                let flags = match how {
                    How::Replace => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::NOREPLACE,
                    How::Exchange => RenameFlags::EXCHANGE,
                };
                done(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags))
            }
            Self::Link(from, to) => std::fs::hard_link(at(from), at(to)).map_err(code),
            Self::Chmod(names, mode) => {
                done(rustix::fs::chmodat(CWD, at(names), Mode::from_raw_mode(*mode), AtFlags::empty()))
            }
            Self::SetXattr(names, name, value) => {
                done(rustix::fs::lsetxattr(at(names), key(*name), &[*value], XattrFlags::empty()))
            }
            Self::RemoveXattr(names, name) => done(rustix::fs::lremovexattr(at(names), key(*name))),
            Self::Sync(names) => open(names)?.sync_all().map_err(code),
        }
    }
}

/// A file made without a name gets one.
fn temporary(base: &Path, at: &Path, fill: u8) -> Outcome {
    use std::os::fd::AsRawFd as _;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(base).map_err(code)?;
    file.write_all_at(&vec![fill; usize::from(fill)], 0).map_err(code)?;
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    done(rustix::fs::linkat(CWD, open, CWD, at, AtFlags::SYMLINK_FOLLOW))
}

/// To the place where it comes from, in as many calls as it takes.
fn copy(from: &File, to: &File, offset: u64, length: usize) -> Outcome {
    let (mut source, mut target, mut left) = (offset, offset, length);
    while left > 0 {
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) => break,
            Ok(count) => left -= count,
            Err(error) => return Err(error.raw_os_error()),
        }
    }
    Ok(())
}
