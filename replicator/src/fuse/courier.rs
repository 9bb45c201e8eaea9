//! A small process that has the kernel write back what it keeps of a file.
//!
//! Whoever asks the kernel for that cannot be killed before it is done, and it is done by the workers of the replicator. A
//! thread of the replicator would keep it from dying, and the next one from taking its place; this process may wait until
//! the next one has done it.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::reply::finish;
use super::wire::{Body, NOTIFY_INVAL_INODE, OUT_HEADER};

/// How the program is called for it.
pub const ARGUMENT: &str = "write-back";

/// One such process.
#[derive(Debug)]
pub(super) struct Courier {
    child: Child,
    line: UnixStream,
}

impl Courier {
    /// Starts one.
    pub(super) fn start(device: &OwnedFd) -> std::io::Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        // The program that runs, also when its file was replaced.
        let child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(device.try_clone()?))
            .spawn()?;
        Ok(Self { child, line })
    }

    /// Returns when the kernel has written back all that it had of a file, and was answered. An error of that is told to
    /// whoever makes the file durable or closes it.
    pub(super) fn flush(&mut self, file: u64) -> std::io::Result<()> {
        self.line.write_all(&file.to_ne_bytes())?;
        self.line.read_exact(&mut [0; 8])
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // It ends with its line. One that still waits for the kernel is left to whoever ends the connection.
        let _ended = self.line.shutdown(std::net::Shutdown::Both);
        let _reaped = self.child.try_wait();
    }
}

/// What the process does: takes the numbers of files from its standard input, whose device is its standard output.
pub fn serve() {
    crate::linux::process::prepare();
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let Ok(line) = input.as_fd().try_clone_to_owned() else { return };
    let mut line = UnixStream::from(line);
    let mut file = [0; 8];
    while line.read_exact(&mut file).is_ok() {
        write_back(output.as_fd(), u64::from_ne_bytes(file));
        if line.write_all(&file).is_err() {
            return;
        }
    }
}

fn write_back(device: BorrowedFd<'_>, file: u64) {
    let mut body = Body::default();
    // The whole of it: from 0, of no length. What was written back is forgotten.
    body.zeros(OUT_HEADER).u64(file).u64(0).u64(0);
    if let Err(error) = rustix::io::write(device, &finish(body, 0, NOTIFY_INVAL_INODE, 0)) {
        tracing::debug!(%error, file, "nothing to write back");
    }
}
