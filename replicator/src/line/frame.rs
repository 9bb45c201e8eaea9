//! Frames as bytes: two lengths of four bytes (least significant first), a `Frame`, and behind it the content of a write,
//! which the message leaves out so that it need not be copied to be encoded.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use safe_proto::replication::{Frame, frame, operation};

use crate::wire::Malformed;

const LENGTHS: usize = 8;
/// Most bytes of a message; the largest ones are lists of entries with long targets of symbolic links.
const MESSAGE: usize = 8 << 20;
/// Most bytes of content.
const CONTENT: usize = 1 << 20;

/// A frame to be sent: both parts one after the other.
#[derive(Debug)]
pub struct Encoded {
    /// The lengths and the message.
    pub message: Vec<u8>,
    /// Content of a write.
    pub content: Bytes,
}

/// A frame as bytes.
#[must_use]
pub fn encode(mut frame: Frame) -> Encoded {
    let content = content_of(&mut frame).map(std::mem::take).unwrap_or_default();
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let size = frame.encoded_len();
    let mut message = Vec::with_capacity(LENGTHS + size);
    message.extend_from_slice(&length(size));
    message.extend_from_slice(&length(content.len()));
    // A vector has room for everything.
    let _fits = frame.encode(&mut message);
    Encoded { message, content }
}

const fn content_of(frame: &mut Frame) -> Option<&mut Bytes> {
    match &mut frame.kind {
        Some(frame::Kind::Operation(operation)) => match &mut operation.op {
            Some(operation::Op::Write(write)) => Some(&mut write.data),
            _ => None,
        },
        _ => None,
    }
}

/// Puts frames together from bytes as they come.
#[derive(Debug, Default)]
pub struct Assembler {
    lengths: [u8; LENGTHS],
    /// How many bytes of the lengths have come.
    known: usize,
    message: usize,
    /// Bytes of message and content together.
    wanted: usize,
    bytes: BytesMut,
}

impl Assembler {
    /// Takes what came; what is complete goes to `frames`.
    ///
    /// # Errors
    /// It is nothing that the protocol allows.
    pub fn take(&mut self, mut bytes: &[u8], frames: &mut VecDeque<Frame>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.known < LENGTHS {
                let (some, rest) = bytes.split_at(bytes.len().min(LENGTHS - self.known));
                self.lengths[self.known..self.known + some.len()].copy_from_slice(some);
                self.known += some.len();
                bytes = rest;
                if self.known == LENGTHS {
                    self.begin()?;
                }
            } else {
                let (some, rest) = bytes.split_at(bytes.len().min(self.wanted - self.bytes.len()));
                self.bytes.extend_from_slice(some);
                bytes = rest;
            }
            if self.known == LENGTHS && self.bytes.len() == self.wanted {
                frames.push_back(self.finish()?);
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Malformed> {
        let length = |at: usize| {
            let bytes = [self.lengths[at], self.lengths[at + 1], self.lengths[at + 2], self.lengths[at + 3]];
            usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (message, content) = (length(0), length(4));
        if message == 0 || message > MESSAGE || content > CONTENT {
            return Err(Malformed("length of a frame"));
        }
        (self.message, self.wanted) = (message, message + content);
        self.bytes = BytesMut::with_capacity(self.wanted);
        Ok(())
    }

    fn finish(&mut self) -> Result<Frame, Malformed> {
        self.known = 0;
        let mut bytes = std::mem::take(&mut self.bytes).freeze();
        let content = bytes.split_off(self.message);
        let mut frame = Frame::decode(bytes).map_err(|_| Malformed("message"))?;
        match content_of(&mut frame) {
            // None: it is refused where its length is checked.
            Some(data) if data.is_empty() => *data = content,
            Some(_) => return Err(Malformed("content of a write in its message")),
            None if content.is_empty() => {}
            None => return Err(Malformed("content of what is not a write")),
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use safe_replication::op::{Number, ObjectId, Op, Timestamp};

    use super::*;

    fn write(data: &'static [u8]) -> Frame {
        let time = Timestamp { seconds: 1, nanos: 2 };
        let op =
            Op::Write { id: ObjectId(70_000), offset: 3, data: Bytes::from_static(data), time, mode: None };
        Frame { kind: Some(frame::Kind::Operation(crate::wire::operation(Number(2), Number(1), &op))) }
    }

    fn bytes(frame: Frame) -> Vec<u8> {
        let Encoded { mut message, content } = encode(frame);
        message.extend_from_slice(&content);
        message
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let refusal = Frame { kind: Some(frame::Kind::Refusal("no".into())) };
        let sent = [write(b"some content"), refusal, write(&[7; 5000])];
        let stream: Vec<u8> = sent.iter().cloned().flat_map(bytes).collect();
        for step in [1, 2, 7, 8, 9, 4096, stream.len()] {
            let (mut assembler, mut frames) = (Assembler::default(), VecDeque::new());
            for piece in stream.chunks(step) {
                assembler.take(piece, &mut frames).expect("valid");
            }
            assert_eq!(Vec::from(frames), sent, "in pieces of {step}");
        }
    }

    #[test]
    fn what_is_too_long_or_out_of_place_is_refused_before_it_takes_memory() {
        let refused = |stream: &[u8]| Assembler::default().take(stream, &mut VecDeque::new()).unwrap_err().0;
        let lengths = |message: u32, content: u32| [message.to_le_bytes(), content.to_le_bytes()].concat();
        assert_eq!(refused(&lengths(u32::MAX, 0)), "length of a frame");
        assert_eq!(refused(&lengths(1, u32::MAX)), "length of a frame");
        assert_eq!(refused(&lengths(0, 0)), "length of a frame");
        let mut with_content = bytes(Frame { kind: Some(frame::Kind::Refusal("no".into())) });
        with_content[4] = 1;
        with_content.push(0);
        assert_eq!(refused(&with_content), "content of what is not a write");
        let twice = write(b"inside").encode_to_vec();
        let length = u32::try_from(twice.len()).expect("short");
        assert_eq!(refused(&[lengths(length, 0), twice].concat()), "content of a write in its message");
    }
}
