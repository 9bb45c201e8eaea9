//! Where an archive is written.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use safe_replication::archive::{DATA, ENTRIES, Entry, MANIFEST, Manifest};

use super::{Refused, human};
use crate::backing::Root;

/// The archive leaves so much of its filesystem free, or a twentieth of it if that is less.
const KEPT_FREE: u64 = 1 << 30;

/// An archive that is being written.
pub(super) struct Place {
    path: PathBuf,
    data: OwnedFd,
    entries: BufWriter<File>,
}

impl Place {
    pub(super) fn make(path: &Path) -> Result<Self, Refused> {
        let data = path.join(DATA);
        DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(Refused::io(&data))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened =
            rustix::fs::open(&data, flags, Mode::empty()).map_err(Refused::at(data.display().to_string()))?;
        let list = path.join(ENTRIES);
        let entries = File::options().write(true).create_new(true).open(&list).map_err(Refused::io(&list))?;
        Ok(Self { path: path.to_owned(), data: opened, entries: BufWriter::new(entries) })
    }

    pub(super) fn line(&mut self, entry: &Entry) -> Result<(), Refused> {
        self.entries.write_all(entry.to_line().as_bytes()).map_err(Refused::io(&self.path))
    }

    /// A file for the content of a path.
    pub(super) fn create(&self, root: &Root, path: &[Bytes]) -> Result<OwnedFd, Refused> {
        let failed = |errno| Refused::at(self.path.display().to_string())(errno);
        let (directory, name) = self.above(root, path).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&directory, &name[..], flags, Mode::from_raw_mode(0o600)).map_err(failed)
    }

    /// Another name of a file that is there already.
    pub(super) fn link(&self, root: &Root, first: &[Bytes], path: &[Bytes]) -> Result<(), Refused> {
        let failed = |errno| Refused::at(self.path.display().to_string())(errno);
        let (from, first) = self.above(root, first).map_err(failed)?;
        let (to, name) = self.above(root, path).map_err(failed)?;
        rustix::fs::linkat(&from, &first[..], &to, &name[..], AtFlags::empty()).map_err(failed)
    }

    /// The directory for a path, made if need be, and its last name.
    fn above(&self, root: &Root, path: &[Bytes]) -> Result<(OwnedFd, Bytes), Errno> {
        let (name, above) = path.split_last().ok_or(Errno::ISDIR)?;
        let mut at = make_directory(&self.data, root.index.to_string().as_bytes())?;
        for part in above {
            at = make_directory(&at, part)?;
        }
        Ok((at, name.clone()))
    }

    /// Everything is durable, then the manifest says so.
    pub(super) fn finish(self, manifest: &Manifest) -> Result<(), Refused> {
        let failed = Refused::io(&self.path);
        self.entries.into_inner().map_err(|error| failed(error.into_error()))?;
        rustix::fs::syncfs(&self.data).map_err(Refused::at(self.path.display().to_string()))?;
        let path = self.path.join(MANIFEST);
        let mut file =
            File::options().write(true).create_new(true).open(&path).map_err(Refused::io(&path))?;
        file.write_all(manifest.to_json().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(Refused::io(&path))?;
        sync(&self.path)
    }
}

fn make_directory(at: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// The names in a directory are durable.
pub(super) fn sync(directory: &Path) -> Result<(), Refused> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(Refused::io(directory))
}

/// Bytes that the archives of the module take, without the one of this name.
fn used(directory: &Path, without: &str) -> io::Result<u64> {
    let mut used = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !path.ends_with(without) {
            let manifest = fs::read(path.join(MANIFEST)).ok().and_then(|text| Manifest::parse(&text));
            used += manifest.map_or(0, |manifest| manifest.bytes);
        }
    }
    Ok(used)
}

/// There is room for an archive of `needs` bytes beside the others of the module; `instead` is replaced by it.
pub(super) fn must_fit(directory: &Path, instead: &str, needs: u64, limit: u64) -> Result<(), Refused> {
    let used = used(directory, instead).map_err(Refused::io(directory))?;
    let stat = rustix::fs::statvfs(directory).map_err(Refused::at(directory.display().to_string()))?;
    let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let free = free.saturating_sub(KEPT_FREE.min(all / 20));
    let allowed = limit.saturating_sub(used);
    let left = allowed.min(free);
    if needs <= left {
        return Ok(());
    }
    let bound = if free < allowed {
        format!("the space on {}", directory.display())
    } else if used == 0 {
        format!("archive_limit = {}", human(limit))
    } else {
        format!("archive_limit = {}, of which older archives take {}", human(limit), human(used))
    };
    Err(Refused::Room { needs: human(needs), left: human(left), bound })
}
