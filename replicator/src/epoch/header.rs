//! The first page of a segment.

/// Its size.
pub const SIZE: u64 = 4096;

const MAGIC: &[u8; 8] = b"safedepo";
const VERSION: u32 = 1;
const CHECKED: usize = 69;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Lineage of the copy.
    pub lineage: u128,
    /// Boot id of the machine.
    pub boot: u128,
    /// Counts the segments of this node.
    pub serial: u64,
    /// The epoch whose changes are recorded.
    pub epoch: u64,
    /// The last epoch that was known to be durable on both nodes.
    pub closed: u64,
    /// There is a journal too: what it says is missing here.
    pub journalled: bool,
    /// With the journal these records say everything in which the copies may differ. False until they are in step, if
    /// what was known before is lost.
    pub complete: bool,
}

impl Header {
    /// The page.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(4096);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.lineage.to_le_bytes());
        page.extend_from_slice(&self.boot.to_le_bytes());
        for number in [self.serial, self.epoch, self.closed] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        page.push(u8::from(self.journalled) | u8::from(self.complete) << 1);
        page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        page.resize(4096, 0);
        page
    }

    /// What a page says. None: the segment is not in use.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let checked = bytes.get(..CHECKED).ok_or("is too short")?;
        if checked[..64].iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let id = |at: usize| bytes.get(at..at + 16)?.try_into().ok().map(u128::from_le_bytes);
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        if checked[..8] != *MAGIC || word(CHECKED) != Some(crc32fast::hash(checked)) {
            return Err("has no valid header");
        }
        if word(8) != Some(VERSION) {
            return Err("is of a version that is not known");
        }
        let header = || {
            Some(Self {
                lineage: id(12)?,
                boot: id(28)?,
                serial: number(44)?,
                epoch: number(52)?,
                closed: number(60)?,
                journalled: checked[68] & 1 != 0,
                complete: checked[68] & 2 != 0,
            })
        };
        header().map(Some).ok_or("is too short")
    }
}
