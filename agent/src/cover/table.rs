//! The mount table, as far as a cover is told from it: no path is touched.

use std::io;
use std::path::{Path, PathBuf};

use crate::processes::unescape;

/// All mounts that this process sees; of two at one path the later one is on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    id: u64,
    parent: u64,
    device: String,
    /// What of the filesystem is mounted.
    root: PathBuf,
    point: PathBuf,
    read_only: bool,
}

impl Table {
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse).collect())
    }

    /// The directory is mounted over itself, read-only, whatever is mounted above that.
    pub(super) fn is_covered(&self, directory: &Path) -> bool {
        self.at(directory).any(|line| self.covers(line))
    }

    /// The same, and nothing is mounted above it.
    pub(super) fn is_topmost(&self, directory: &Path) -> bool {
        self.at(directory).last().is_some_and(|line| self.covers(line))
    }

    fn at(&self, directory: &Path) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.point == directory)
    }

    fn covers(&self, line: &Line) -> bool {
        let Some(below) = self.0.iter().find(|below| below.id == line.parent) else { return false };
        let Ok(rest) = line.point.strip_prefix(&below.point) else { return false };
        let same = if rest.as_os_str().is_empty() {
            line.root == below.root
        } else {
            line.root == below.root.join(rest)
        };
        line.read_only && line.device == below.device && same
    }
}

/// A line: id parent major:minor root point options … - type source options.
fn parse(line: &str) -> Option<Line> {
    let (before, _) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let device = fields.next()?.to_owned();
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    Some(Line { id, parent, device, root, point, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "40 20 8:1 / / rw - ext4 /dev/sda1 rw\n";

    fn covered(lines: &str) -> (bool, bool) {
        let table = Table::parse(&format!("{DISK}{lines}"));
        (table.is_covered(Path::new("/srv/my db")), table.is_topmost(Path::new("/srv/my db")))
    }

    #[test]
    fn a_cover_is_a_read_only_mount_of_the_directory_over_itself() {
        let cover = "50 40 8:1 /srv/my\\040db /srv/my\\040db ro - ext4 /dev/sda1 rw\n";
        assert_eq!(covered(cover), (true, true));
        let fuse = "51 50 0:40 / /srv/my\\040db rw - fuse.safed safed:db rw\n";
        assert_eq!(covered(&format!("{cover}{fuse}")), (true, false));
        assert_eq!(covered(&cover.replace(" ro ", " rw ")), (false, false), "a bind mount of somebody else");
        assert_eq!(covered("50 40 8:2 / /srv/my\\040db ro - ext4 /dev/sdb1 ro\n"), (false, false), "a disk");
        assert_eq!(covered(&cover.replacen("/srv/my", "/opt/my", 1)), (false, false), "another directory");
    }

    #[test]
    fn a_disk_of_its_own_is_covered_by_its_root() {
        let disk = "45 40 8:2 / /srv/my\\040db rw - ext4 /dev/sdb1 rw\n";
        let cover = "50 45 8:2 / /srv/my\\040db ro - ext4 /dev/sdb1 rw\n";
        assert_eq!(covered(&format!("{disk}{cover}")), (true, true));
        assert_eq!(covered(disk), (false, false));
        let read_only = disk.replace(" rw ", " ro ");
        assert_eq!(covered(&read_only), (false, false));
        assert_eq!(covered(&format!("{read_only}{cover}")), (true, true));
    }
}
