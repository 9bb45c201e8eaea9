//! Protocol versions: what two sides have in common, or why not.

use safe_proto::PROTOCOL;

/// All versions this release speaks, ascending.
pub const SPOKEN: [u32; 1] = [PROTOCOL];

/// Most versions anybody may offer.
const LIMIT: usize = 64;

/// The newest version both speak.
///
/// # Errors
/// There is none: one sentence for people.
pub fn common(offered: &[u32]) -> Result<u32, String> {
    let offered = &offered[..offered.len().min(LIMIT)];
    SPOKEN.iter().rev().find(|version| offered.contains(version)).copied().ok_or_else(|| {
        format!(
            "no common protocol version: offered {offered:?}, spoken here {SPOKEN:?}; upgrade the node with the older release"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_counts_and_none_is_refused() {
        assert_eq!(common(&[PROTOCOL, 99]), Ok(PROTOCOL));
        assert!(common(&[99]).unwrap_err().contains("99"));
        assert!(common(&[]).is_err());
    }
}
