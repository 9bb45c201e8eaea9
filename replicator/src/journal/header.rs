//! The first page of a journal.

use super::Binding;

/// Its size.
pub(super) const SIZE: u64 = 4096;

const MAGIC: &[u8; 8] = b"safedjnl";
const VERSION: u32 = 2;
const CHECKED: usize = 44;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What the journal belongs to.
    pub(super) binding: Binding,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(4096);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.binding.lineage.to_le_bytes());
        page.extend_from_slice(&self.binding.boot.to_le_bytes());
        page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        page.resize(4096, 0);
        page
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, rest) = bytes.get(..4096)?.split_at_checked(CHECKED)?;
        let crc = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        let magic = checked.get(..8)? == MAGIC;
        let version = u32::from_le_bytes(checked.get(8..12)?.try_into().ok()?);
        if !magic || version != VERSION || crc != crc32fast::hash(checked) {
            return None;
        }
        let lineage = u128::from_le_bytes(checked.get(12..28)?.try_into().ok()?);
        let boot = u128::from_le_bytes(checked.get(28..44)?.try_into().ok()?);
        Some(Self { binding: Binding { lineage, boot } })
    }
}
