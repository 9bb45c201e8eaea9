//! The one thing wanted of a ClientHello: the server name. Pure; trusts no length.

/// Most bytes looked at.
pub(super) const MAX: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What is wrong with it.
type Wrong = &'static str;

/// The server name in the beginning of a TLS connection; none: more bytes are needed. It is a DNS label.
///
/// # Errors
/// This is no ClientHello, or it names no server.
pub(super) fn server_name(bytes: &[u8]) -> Result<Option<String>, Wrong> {
    let Some(message) = handshake(bytes)? else { return Ok(None) };
    let name = find(&message).ok_or("its ClientHello makes no sense")?.ok_or("it names no module")?;
    let name = std::str::from_utf8(name).map_err(|_| "the name it gives is not one of a module")?;
    safe_proto::settings::label("module", name).map_err(|_| "the name it gives is not one of a module")?;
    Ok(Some(name.to_owned()))
}

/// Puts the ClientHello together from its records, without its own header.
fn handshake(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Wrong> {
    let mut message = Vec::new();
    loop {
        if let Some((head, body)) = message.split_at_checked(4) {
            if head[0] != CLIENT_HELLO {
                return Err("it does not begin with a ClientHello");
            }
            let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            if length > MAX {
                return Err("its ClientHello is too long");
            }
            if let Some(body) = body.get(..length) {
                return Ok(Some(body.to_vec()));
            }
        }
        match bytes.first() {
            Some(kind) if *kind != HANDSHAKE => return Err("it does not speak TLS"),
            _ => {}
        }
        let Some((head, rest)) = bytes.split_at_checked(5) else { return Ok(None) };
        if head[1] != 3 {
            return Err("it does not speak TLS");
        }
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > MAX {
            return Err("a record of it has an odd length");
        }
        let taken = length.min(rest.len());
        message.extend_from_slice(&rest[..taken]);
        bytes = &rest[taken..];
    }
}

/// The host name within a ClientHello: none, there is no such extension; outer none, it makes no sense.
#[expect(clippy::option_option, reason = "broken and absent are different answers")]
fn find(message: &[u8]) -> Option<Option<&[u8]>> {
    let mut reader = Reader(message);
    reader.take(2 + 32)?;
    reader.block8()?;
    reader.block16()?;
    reader.block8()?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(reader.block16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.block16()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = Reader(Reader(content).block16()?);
        while !names.0.is_empty() {
            let kind = names.take(1)?[0];
            let name = names.block16()?;
            if kind == HOST_NAME {
                return Some(Some(name));
            }
        }
    }
    Some(None)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn block8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length)
    }

    fn block16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.number()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;

    use super::*;

    /// What rustls really sends.
    fn real(name: &str) -> Vec<u8> {
        let config = crate::pki::tls::joining("demo", [0; 32]).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of this size.
    fn cut(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[5..].chunks(size);
        records
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1], length.as_slice(), part].concat()
            })
            .collect()
    }

    #[test]
    fn the_name_is_found_whole_in_pieces_and_in_records() {
        let hello = real("db");
        assert_eq!(server_name(&hello), Ok(Some("db".to_owned())));
        for length in 0..hello.len() {
            assert_eq!(server_name(&hello[..length]), Ok(None), "{length} bytes");
        }
        assert_eq!(server_name(&cut(&hello, 7)), Ok(Some("db".to_owned())));
    }

    #[test]
    fn without_a_name_or_with_an_odd_one_it_is_refused() {
        assert_eq!(server_name(&real("10.0.0.1")), Err("it names no module"));
        assert!(server_name(&real("a.b")).is_err());
        assert!(server_name(b"GET / HTTP/1.1\r\n").is_err());
        assert!(server_name(&[22, 3, 1, 0, 0]).is_err());
        assert!(server_name(&[22, 3, 1, 255, 255]).is_err());
        assert!(server_name(&[22, 3, 1, 0, 4, 1, 255, 255, 255]).is_err());
        assert!(server_name(&[22, 3, 1, 0, 4, 2, 0, 0, 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            drop(server_name(&bytes));
        }

        #[test]
        fn no_damage_panics_or_reads_beyond(index in 0_usize..250, byte in 0_u8.., length in 0_usize..2000) {
            let mut hello = real("db");
            let index = index % hello.len();
            hello[index] = byte;
            hello.truncate(length);
            drop(server_name(&hello));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(0_u8.., 0..200)) {
            let length = u16::try_from(body.len() + 4).unwrap().to_be_bytes();
            let inner = u16::try_from(body.len()).unwrap().to_be_bytes();
            let hello = [&[22, 3, 1], length.as_slice(), &[1, 0], inner.as_slice(), &body].concat();
            drop(server_name(&hello));
        }
    }
}
