//! The door into a machine: programs are run there for whoever connects on a cable that only this machine's host has.
//!
//! `guest serve` runs in the machine, `guest call -- PROGRAM ARGUMENT...` beside QEMU. A call behaves as the program itself
//! would: input, output, exit code; if the call is killed, or its machine is, the program does not outlive it.

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::error::{Context as _, Error, Result};

mod call;
mod serve;

pub use call::call;
pub use serve::serve;

/// Where a machine listens: the same in each, every host has its own cable.
pub const GUEST: ([u8; 4], u16) = ([192, 168, 77, 2], 77);

/// The host's end of that cable.
pub const HOST: &str = "192.168.77.1/30";

/// Longest content of a frame.
const FRAME_MAX: u32 = 64 * 1024;

fn address() -> SocketAddr {
    SocketAddr::from(GUEST)
}

/// What goes over the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    /// One word of the command line.
    Word(Vec<u8>),
    /// That was the last one.
    Start,
    /// For its standard input.
    Input(Vec<u8>),
    /// No more input.
    InputEnd,
    /// From its standard output.
    Output(Vec<u8>),
    /// From its standard error.
    Errors(Vec<u8>),
    /// It ended, with this exit code.
    End(u8),
}

impl Frame {
    fn write(&self, stream: &mut impl Write) -> Result<()> {
        let end;
        let (kind, content): (u8, &[u8]) = match self {
            Self::Word(word) => (1, word),
            Self::Start => (2, &[]),
            Self::Input(bytes) => (3, bytes),
            Self::InputEnd => (4, &[]),
            Self::Output(bytes) => (5, bytes),
            Self::Errors(bytes) => (6, bytes),
            Self::End(code) => {
                end = [*code];
                (7, &end)
            }
        };
        let length = u32::try_from(content.len()).context(|| "frame too long".to_owned())?;
        let mut bytes = vec![kind];
        bytes.extend(length.to_be_bytes());
        bytes.extend(content);
        Ok(stream.write_all(&bytes)?)
    }

    fn read(stream: &mut impl Read) -> Result<Self> {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        if length > FRAME_MAX {
            return Err(Error::new(format!("a frame of {length} bytes")));
        }
        let mut content = vec![0; usize::try_from(length).context(|| "length".to_owned())?];
        stream.read_exact(&mut content)?;
        Ok(match kind {
            1 => Self::Word(content),
            2 => Self::Start,
            3 => Self::Input(content),
            4 => Self::InputEnd,
            5 => Self::Output(content),
            6 => Self::Errors(content),
            7 => Self::End(content.first().copied().context(|| "no exit code".to_owned())?),
            _ => return Err(Error::new(format!("a frame of kind {kind}"))),
        })
    }
}

/// Passes on what a stream says, piece by piece, until its end.
fn pass_on(mut from: impl Read, mut piece: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        piece(buffer[..length].to_vec())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frames = [Frame::Word(b"ls".to_vec()), Frame::Start, Frame::Output(vec![0; 70]), Frame::End(9)];
        let mut wire = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut wire).unwrap());
        let mut stream = wire.as_slice();
        for frame in &frames {
            assert_eq!(&Frame::read(&mut stream).unwrap(), frame);
        }
        assert!(Frame::read(&mut stream).is_err());
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        assert!(Frame::read(&mut [5, 0xff, 0, 0, 0].as_slice()).is_err());
    }
}
