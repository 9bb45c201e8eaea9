//! What a resync came to, in a sentence.

use safe_proto::replication::Progress;

/// For the record of events; programs take the figures from it: `resync: F files, B bytes compared, S bytes sent`.
pub(super) fn ended(progress: &Progress) -> String {
    format!(
        "resync: {} files, {} bytes compared, {} bytes sent",
        progress.files_done, progress.bytes_done, progress.bytes_sent
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told() {
        let progress =
            Progress { files_done: 3, bytes_done: 4096, bytes_sent: 5, done: true, ..Progress::default() };
        assert_eq!(ended(&progress), "resync: 3 files, 4096 bytes compared, 5 bytes sent");
    }
}
