//! What an archive of a copy that was given up says: its manifest and its entries, one line of JSON each.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::Kind;
use crate::op::Timestamp;
use crate::tree::Entry as Found;

/// Version of the format.
pub const VERSION: u32 = 1;

/// The end of the name of an archive that is not whole.
pub const UNFINISHED: &str = ".new";

/// Name of the manifest in the directory of an archive; written last.
pub const MANIFEST: &str = "manifest.json";
/// Name of the list of entries.
pub const ENTRIES: &str = "entries.jsonl";
/// Name of the directory of contents: below it one directory for each replicated directory, by its index.
pub const DATA: &str = "data";

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this format: [`VERSION`].
    pub version: u32,
    /// Module.
    pub module: String,
    /// Node whose copy it was.
    pub node: String,
    /// Node whose copy took its place.
    pub peer: String,
    /// Seconds since 1970, by this node's clock.
    pub at: i64,
    /// Files with content.
    pub files: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Names that this copy had removed.
    pub removed: u64,
    /// Lines of [`ENTRIES`].
    pub entries: u64,
    /// The replicated directories, by index.
    pub directories: Vec<Text>,
}

impl Manifest {
    /// Reads it. None: it is none, or of another version.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|manifest: &Self| manifest.version == VERSION)
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Of such a struct nothing can fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// What is kept of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "what", content = "ranges")]
pub enum What {
    /// All of its content.
    Content,
    /// These ranges of its content, each from and to; they lie at their places in a file with holes.
    Ranges(Vec<[u64; 2]>),
    /// It has no content, or that was not changed.
    Attributes,
    /// It was removed; nothing of it is kept.
    Removed,
}

/// Bytes that are mostly text. As text a backslash is doubled, and what is not UTF-8 is written `\xNN`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// As text.
    #[must_use]
    pub fn escaped(&self) -> String {
        let mut text = String::new();
        for chunk in self.0.utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }

    /// From text. None: a backslash that means nothing.
    #[must_use]
    pub fn unescape(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = match (first, after) {
                (b'\\', [b'\\', after @ ..]) => {
                    bytes.push(b'\\');
                    after
                }
                (b'\\', [b'x', high, low, after @ ..]) => {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                    after
                }
                (b'\\', _) => return None,
                (byte, after) => {
                    bytes.push(*byte);
                    after
                }
            };
        }
        Some(Self(bytes))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.escaped())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::unescape(&text).ok_or_else(|| serde::de::Error::custom("a backslash that means nothing"))
    }
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Index of the replicated directory.
    pub directory: u16,
    /// Below that directory; empty: the directory itself.
    pub path: Text,
    /// What is kept.
    #[serde(flatten)]
    pub what: What,
    /// Everything but content; absent of what was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// Attributes of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Its number as in [`Kind::number`].
    pub kind: u8,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Size of a file.
    pub size: u64,
    /// Device number of a device.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub target: Text,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Text, Text)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

const fn is_empty(text: &Text) -> bool {
    text.0.is_empty()
}

impl Attributes {
    /// Of what was found.
    #[must_use]
    pub fn of(found: &Found, xattrs: Vec<(Text, Text)>) -> Self {
        Self {
            kind: found.kind.number(),
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            mtime: (found.mtime.seconds, found.mtime.nanos),
            size: found.size,
            rdev: found.rdev,
            target: Text(found.target.to_vec()),
            xattrs,
        }
    }

    /// Type. None: of no type that this version knows.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }

    /// Modification time.
    #[must_use]
    pub const fn modified(&self) -> Timestamp {
        Timestamp { seconds: self.mtime.0, nanos: self.mtime.1 }
    }
}

impl Entry {
    /// The line, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line. None: it is none, or leads out of its directory.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let entry: Self = serde_json::from_str(line).ok()?;
        let plain = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
        let inside = entry.path.0.is_empty() || entry.path.0.split(|byte| *byte == b'/').all(plain);
        inside.then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8], what: What) -> Entry {
        let attributes = Attributes {
            kind: 1,
            mode: 0o640,
            uid: 5,
            gid: 6,
            mtime: (-3, 9),
            size: 70,
            rdev: 0,
            target: Text::default(),
            xattrs: vec![(Text(b"user.x".to_vec()), Text(vec![0xff, b'\\', 0]))],
        };
        Entry { directory: 1, path: Text(path.to_vec()), what, attributes: Some(attributes) }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        for what in [What::Content, What::Ranges(vec![[0, 4096], [8192, 9000]]), What::Attributes] {
            let entry = entry(b"a/b \\ \xff\n\"c", what);
            let line = entry.to_line();
            assert_eq!(line.lines().count(), 1, "{line}");
            assert_eq!(Entry::parse(&line), Some(entry));
        }
        let removed =
            Entry { directory: 0, path: Text(b"gone".to_vec()), what: What::Removed, attributes: None };
        assert_eq!(Entry::parse(&removed.to_line()), Some(removed));
    }

    #[test]
    fn what_leads_out_is_no_entry() {
        for path in [&b"../x"[..], b"a/../b", b"/etc/passwd", b"a//b", b"a/.", b"a\0b"] {
            assert_eq!(Entry::parse(&entry(path, What::Content).to_line()), None, "{path:?}");
        }
        assert_eq!(Entry::parse("{}"), None);
        assert_eq!(Entry::parse("not json"), None);
    }
}
