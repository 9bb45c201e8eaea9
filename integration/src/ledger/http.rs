//! As much of HTTP/1.1 as the ledger and its client speak: requests and answers with `Content-Length`, connections
//! kept alive.

use std::io::{BufRead, Read as _, Write};

use crate::error::{Context as _, Error, Result};

/// Longest line of a head.
const LINE_MAX: u64 = 8 * 1024;

/// Most lines of a head.
const LINES_MAX: usize = 64;

/// First line and body of a request or an answer.
#[derive(Debug)]
pub(super) struct Message {
    /// As it came, without line end.
    pub(super) first: String,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Reads one message whose body has at most `limit` bytes; none at the end of the stream.
pub(super) fn read(stream: &mut impl BufRead, limit: usize) -> Result<Option<Message>> {
    let Some(first) = read_line(stream)? else { return Ok(None) };
    let mut length = 0;
    for _ in 0..LINES_MAX {
        let line = read_line(stream)?.context(|| "head cut short".to_owned())?;
        if line.is_empty() {
            if length > limit {
                return Err(Error::new(format!("body of {length} bytes; at most {limit}")));
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            return Ok(Some(Message { first, body }));
        }
        let (name, value) = line.split_once(':').context(|| "not a header".to_owned())?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context(|| "content-length".to_owned())?;
        }
    }
    Err(Error::new("head too long"))
}

fn read_line(stream: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut bytes)?;
    match bytes.pop() {
        None => Ok(None),
        Some(b'\n') => {
            let text = String::from_utf8(bytes).context(|| "not text".to_owned())?;
            Ok(Some(text.trim_end_matches('\r').to_owned()))
        }
        Some(_) => Err(Error::new("line too long or cut short")),
    }
}

/// Writes one message in one piece.
pub(super) fn write(stream: &mut impl Write, first: &str, body: &[u8]) -> Result<()> {
    let head = format!("{first}\r\nHost: ledger\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut message = head.into_bytes();
    message.extend_from_slice(body);
    Ok(stream.write_all(&message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut wire = Vec::new();
        write(&mut wire, "POST /entries HTTP/1.1", b"7\tseven").unwrap();
        let mut stream = wire.as_slice();
        let message = read(&mut stream, 100).unwrap().unwrap();
        assert_eq!(
            (message.first.as_str(), message.body.as_slice()),
            ("POST /entries HTTP/1.1", &b"7\tseven"[..])
        );
        assert!(read(&mut stream, 100).unwrap().is_none());
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused() {
        let mut wire = Vec::new();
        write(&mut wire, "POST / HTTP/1.1", &[0; 101]).unwrap();
        assert!(read(&mut wire.as_slice(), 100).is_err());
    }
}
