//! Trees with everything that a filesystem has, from a seed.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// A small generator, so that a seed gives the same tree for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }

    pub(crate) const fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len() as u64) as usize])
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let seed = self.below(u64::MAX);
        (0..len as u64).map(|at| (at.wrapping_mul(seed | 1) >> 11) as u8 ^ at as u8).collect()
    }

    /// Few names, so that two trees share some; some of them odd.
    pub(crate) fn name(&mut self) -> PathBuf {
        let odd: [&[u8]; 6] = [b"a b", b"-n", b"\xff\xfe", b"line\nbreak", b"*[x]", b"\xc3\xa4'\""];
        if self.chance(8) {
            return PathBuf::from(std::ffi::OsStr::from_bytes(odd[self.below(6) as usize]));
        }
        PathBuf::from(format!("n{}", self.below(24)))
    }
}

/// Every path beneath a directory, and whether it is a directory.
pub(crate) fn walk(base: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    let mut left = vec![base.to_path_buf()];
    while let Some(dir) = left.pop() {
        // What vanishes while it is walked is left out.
        let Ok(listed) = std::fs::read_dir(&dir) else { continue };
        let mut entries: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        for path in entries {
            let Ok(meta) = path.symlink_metadata() else { continue };
            let directory = meta.is_dir();
            if directory {
                left.push(path.clone());
            }
            found.push((path, directory));
        }
    }
    found
}

/// Adds about `count` things.
pub(crate) fn grow(base: &Path, random: &mut Random, count: usize) {
    let mut dirs = vec![base.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    for _ in 0..count {
        let path = random.pick(&dirs).unwrap().join(random.name());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(12) {
            0..=2 => {
                std::fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            3 => symlink(format!("target {}", random.below(5)), &path).unwrap(),
            4 if !files.is_empty() => {
                std::fs::hard_link(random.pick(&files).unwrap(), &path).unwrap();
            }
            5 => special(&path, random),
            _ => {
                content(&path, random);
                files.push(path.clone());
            }
        }
        attributes(&path, random);
    }
    for dir in dirs {
        set_mtime(&dir, random.below(1 << 31) as i64 - (1 << 29), random.below(1_000_000_000) as i64);
    }
}

fn content(path: &Path, random: &mut Random) {
    use std::os::unix::fs::FileExt as _;
    let len = [0, 1, 100, 4096, 5000, 131_072, 200_000, 400_000][random.below(8) as usize];
    let bytes = random.bytes(len);
    std::fs::write(path, &bytes).unwrap();
    if random.chance(4) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"far", 1 << 21).unwrap();
        if random.chance(2) {
            file.set_len((1 << 22) + 17).unwrap();
        }
    }
}

fn special(path: &Path, random: &mut Random) {
    let kind = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice]
        [random.below(4) as usize];
    let device = if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        rustix::fs::makedev(7, 100 + random.below(3) as u32)
    } else {
        0
    };
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Owner, mode, xattrs, ACLs, times.
pub(crate) fn attributes(path: &Path, random: &mut Random) {
    let meta = path.symlink_metadata().unwrap();
    if random.chance(3) {
        let (uid, gid) =
            (Uid::from_raw(random.below(3) as u32 * 1000), Gid::from_raw(random.below(3) as u32 * 100));
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    if !meta.is_symlink() {
        if random.chance(3) {
            let name = format!("user.x{}", random.below(3));
            let name = if meta.is_file() || meta.is_dir() { name } else { name.replace("user", "trusted") };
            set_xattr(path, &name, &random.bytes(20));
        }
        if random.chance(5) {
            set_xattr(path, "system.posix_acl_access", &acl(random));
        }
        if meta.is_dir() && random.chance(5) {
            set_xattr(path, "system.posix_acl_default", &acl(random));
        }
        if random.chance(3) {
            let modes = [0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o000];
            let mode = modes[random.below(6) as usize];
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        if meta.is_file() && random.chance(8) {
            // cap_net_raw+ep, which a write or a change of owner takes away.
            set_xattr(
                path,
                "security.capability",
                &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            );
        }
    }
    set_mtime(path, random.below(1 << 31) as i64 - (1 << 29), random.below(1_000_000_000) as i64);
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, CString::new(name).unwrap(), value, XattrFlags::empty()).unwrap();
}

/// user::rwx, user:1001:r--, group::r-x, mask::rwx, other::r-- in the kernel's form, with some variation.
fn acl(random: &mut Random) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    let named = random.below(8) as u16;
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, named, 1001), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 4, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

pub(crate) fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Changes a tree here and there, without telling anyone.
pub(crate) fn edit(base: &Path, random: &mut Random, count: usize) {
    for _ in 0..count {
        let all = walk(base);
        let Some((path, directory)) = random.pick(&all).cloned() else { break };
        match random.below(6) {
            0 if directory => std::fs::remove_dir_all(&path).unwrap(),
            0 | 1 if !directory => std::fs::remove_file(&path).unwrap(),
            2 if path.symlink_metadata().unwrap().is_file() => content(&path, random),
            3 => {
                let to = base.join(random.name());
                if to.symlink_metadata().is_err() && !to.starts_with(&path) {
                    std::fs::rename(&path, &to).unwrap();
                }
            }
            _ => attributes(&path, random),
        }
    }
    grow(base, random, count);
}
