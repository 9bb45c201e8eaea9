//! What a marker says, as one line of text, so that `getfattr` shows it to people.

use super::linux::Filesystem;

const VERSION: &str = "safed2";
/// Without a generation.
const FIRST: &str = "safed1";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) module: String,
    pub(super) node: String,
    pub(super) lineage: u128,
    pub(super) filesystem: Filesystem,
    pub(super) inode: u64,
    /// Raised whenever a run of the module begins or ends, and whenever it is marked.
    pub(super) generation: u64,
}

impl Content {
    pub(super) fn encode(&self) -> String {
        let Self { module, node, lineage, filesystem, inode, generation } = self;
        let (kind, id) = filesystem.parts();
        let line = format!("{VERSION} {module} {node} {lineage:032x} {kind} {id:032x} {inode} {generation}");
        format!("{line} {:08x}", crc32fast::hash(line.as_bytes()))
    }

    /// None: it was not written by this program, or is damaged.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (line, crc) = text.rsplit_once(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(line.as_bytes()) {
            return None;
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.first() == Some(&FIRST) {
            words.push("0");
        } else if words.first() != Some(&VERSION) {
            return None;
        }
        let [_, module, node, lineage, kind, id, inode, generation] = <[&str; 8]>::try_from(words).ok()?;
        Some(Self {
            module: module.into(),
            node: node.into(),
            lineage: u128::from_str_radix(lineage, 16).ok()?,
            filesystem: Filesystem::from_parts(kind, u128::from_str_radix(id, 16).ok()?)?,
            inode: inode.parse().ok()?,
            generation: generation.parse().ok()?,
        })
    }

    /// Why it does not fit what is found now.
    pub(super) fn mismatch(&self, now: &Self) -> Option<String> {
        if self.module != now.module || self.node != now.node {
            return Some(format!("it is of module {} on node {}", self.module, self.node));
        }
        if self.inode != now.inode {
            return Some("the directory was replaced or copied".into());
        }
        self.filesystem.differs(&now.filesystem).then(|| "the directory is on another filesystem".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let content = Content {
            module: "db".into(),
            node: "n1".into(),
            lineage: u128::MAX - 1,
            filesystem: Filesystem::Uuid(7),
            inode: 2,
            generation: 3,
        };
        let text = content.encode();
        assert_eq!(Content::decode(text.as_bytes()), Some(content.clone()));
        let first = text.replace(VERSION, FIRST);
        let line = first.rsplit_once(" 3 ").expect("with a generation").0;
        let first = format!("{line} {:08x}", crc32fast::hash(line.as_bytes()));
        assert_eq!(Content::decode(first.as_bytes()), Some(Content { generation: 0, ..content }));
        assert_eq!(Content::decode(text.replace("db", "dc").as_bytes()), None);
        assert_eq!(Content::decode(b""), None);
        assert_eq!(Content::decode(&[0xff; 300]), None);
    }
}
