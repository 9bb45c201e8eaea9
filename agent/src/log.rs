//! A module's log: what its scripts and the daemons they start write.
//!
//! Processes write to the file itself, never to a pipe of the daemon: an application that inherited a pipe would die
//! of the daemon's restart. So the file is kept within bounds by copying and truncating, never by renaming.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock;

/// A log this long is set aside (as `log.1`) and begun anew.
pub const FILE_LIMIT: u64 = 8 << 20;

/// Lines of one answer, and the longest line; what is longer is cut.
const BATCH_LINES: usize = 500;
const LINE_LIMIT: usize = 16 << 10;

/// How often a follower looks for more.
const FOLLOW: Duration = Duration::from_millis(250);

/// Opens the log for a process that is to write into it.
///
/// # Errors
/// As of `open(2)`.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes a line of the daemon's own between what processes write.
pub fn note(path: &Path, text: &str) {
    let now = stamp(clock::unix_ms());
    if let Err(error) =
        open(path).and_then(|mut file| file.write_all(format!("--- {now} {text}\n").as_bytes()))
    {
        tracing::warn!(%error, file = %path.display(), "cannot write the module's log");
    }
}

/// RFC 3339 in UTC, always with three digits of the second, so that the lines stand in columns.
fn stamp(unix_ms: i64) -> String {
    let second = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000));
    let second = second.ok().and_then(|second| second.format(&Rfc3339).ok()).unwrap_or_default();
    format!("{}.{:03}Z", second.trim_end_matches('Z'), unix_ms.rem_euclid(1000))
}

/// Sets the log aside if it has grown too long. What is written between copying and truncating is lost.
///
/// # Errors
/// As of the file operations.
pub fn bound(path: &Path) -> io::Result<()> {
    let Ok(mut file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
    let length = file.metadata()?.len();
    if length <= FILE_LIMIT {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - FILE_LIMIT))?;
    let aside = aside(path);
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    let copied = io::copy(&mut (&file).take(FILE_LIMIT), &mut copy);
    // On a full disk the copy fails: the log is cut all the same, or it would grow for ever.
    file.set_len(0)?;
    copied.map(|_| ())
}

/// Bounds the logs of all modules, now and then, until cancelled.
pub async fn keep_bounded(modules: PathBuf, shutdown: tokio_util::sync::CancellationToken) {
    let mut interval = tokio::time::interval(Duration::from_secs(10));
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let modules = modules.clone();
        let bounded = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(modules).into_iter().flatten().flatten() {
                for name in ["log", "replicator.log"] {
                    let path = entry.path().join(name);
                    if let Err(error) = bound(&path) {
                        tracing::warn!(%error, file = %path.display(), "cannot bound a log");
                    }
                }
            }
        });
        if bounded.await.is_err() {
            return;
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// Reads a log from its last lines on.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    offset: u64,
    first: Vec<String>,
}

impl Reader {
    /// Begins with the last `lines` lines. Reads files: not for the owner loop.
    ///
    /// # Errors
    /// As of the file operations; a log that does not exist yet is empty.
    pub fn open(path: &Path, lines: usize) -> io::Result<Self> {
        let mut first = Vec::new();
        let mut offset = 0;
        for file in [aside(path), path.to_owned()] {
            match File::open(&file) {
                Ok(mut file) => {
                    offset = 0;
                    while !read_lines(&mut file, &mut offset, &mut first, true)? {
                        first.drain(..first.len().saturating_sub(lines));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => offset = 0,
                Err(error) => return Err(error),
            }
        }
        first.drain(..first.len().saturating_sub(lines));
        Ok(Self { path: path.to_owned(), offset, first })
    }

    /// The next lines: at first the last ones (even if there are none), then what was written since (waiting for it).
    ///
    /// # Errors
    /// As of the file operations.
    pub async fn next(&mut self, follow: bool) -> io::Result<Option<Vec<String>>> {
        if !self.first.is_empty() {
            let rest = self.first.split_off(self.first.len().min(BATCH_LINES));
            return Ok(Some(std::mem::replace(&mut self.first, rest)));
        }
        if !follow {
            return Ok(None);
        }
        loop {
            let (path, offset) = (self.path.clone(), self.offset);
            let read = tokio::task::spawn_blocking(move || read_more(&path, offset));
            let (lines, offset) = read.await.map_err(io::Error::other)??;
            self.offset = offset;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            tokio::time::sleep(FOLLOW).await;
        }
    }
}

/// Lines from `offset` on, and where the next ones begin.
fn read_more(path: &Path, mut offset: u64) -> io::Result<(Vec<String>, u64)> {
    let mut lines = Vec::new();
    match File::open(path) {
        Ok(mut file) => {
            if file.metadata()?.len() < offset {
                offset = 0;
            }
            read_lines(&mut file, &mut offset, &mut lines, false)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok((lines, offset))
}

/// Reads at most a batch of whole lines from `offset`, which moves behind them. True at the end of the file.
fn read_lines(file: &mut File, offset: &mut u64, lines: &mut Vec<String>, all: bool) -> io::Result<bool> {
    file.seek(SeekFrom::Start(*offset))?;
    let mut reader = BufReader::new(file);
    for _ in 0..BATCH_LINES {
        let mut line = Vec::new();
        let mut limited = reader.by_ref().take(LINE_LIMIT as u64);
        let read = limited.read_until(b'\n', &mut line)?;
        let whole = line.last() == Some(&b'\n') || line.len() >= LINE_LIMIT;
        if read == 0 || (!whole && !all) {
            return Ok(true);
        }
        *offset += read as u64;
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_same_width() {
        assert_eq!(stamp(1_795_358_520_000), "2026-11-22T14:42:00.000Z");
        assert_eq!(stamp(1_795_358_520_980), "2026-11-22T14:42:00.980Z");
    }

    #[tokio::test]
    async fn last_lines_then_what_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..1200).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let mut reader = Reader::open(&path, 700).unwrap();
        let mut seen = reader.next(true).await.unwrap().unwrap();
        seen.extend(reader.next(true).await.unwrap().unwrap());
        assert_eq!((seen.len(), seen[0].as_str()), (700, "line 500"));
        open(&path).unwrap().write_all(b"half").unwrap();
        note(&path, "whole");
        let more = reader.next(true).await.unwrap().unwrap();
        assert!(more[0].starts_with("half---") && more[0].ends_with("whole"), "{more:?}");
        // Truncated: from its beginning.
        File::create(&path).unwrap();
        open(&path).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(reader.next(true).await.unwrap(), Some(vec!["new".to_owned()]));
    }

    #[tokio::test]
    async fn no_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(&dir.path().join("log"), 10).unwrap();
        assert_eq!(reader.next(false).await.unwrap(), None);
    }

    #[test]
    fn a_long_log_is_set_aside_under_its_writers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = open(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            writer.write_all(&chunk).unwrap();
        }
        bound(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(aside(&path)).unwrap().len(), FILE_LIMIT);
        writer.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after\n");
    }
}
