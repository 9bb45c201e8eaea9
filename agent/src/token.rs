//! The join token: what a new node is told out of band, in one line.
//!
//! base64url of: version (1) · cluster (length, text) · endpoints (count; each 4 or 6, address, port) · fingerprint of
//! the cluster CA (32) · one-time secret (32) · expiry (8, Unix seconds, LE) · checksum (8). The checksum tells a token
//! that was cut or mistyped from one that is refused; it is no proof of anything.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub mod issued;

const VERSION: u8 = 1;
const CHECK: usize = 8;
const CHECK_CONTEXT: &str = "safed 2026-11 join token checksum v1";
/// Most characters of a token.
pub const MAX_TEXT: usize = 2048;
const MAX_ENDPOINTS: usize = 16;

/// Why a token does not let a node in. The words are the ones people see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Cut, mistyped or not a token.
    #[error(
        "the token is altered or incomplete ({0}): copy it whole, or make another with `safectl cluster invite`"
    )]
    Altered(&'static str),
    /// Of another release.
    #[error(
        "the token is of version {0}, which this safed does not know: use the same release on both nodes"
    )]
    Version(u8),
    /// Its time is over.
    #[error("the token has expired: make another with `safectl cluster invite`")]
    Expired,
    /// Somebody joined with it.
    #[error("the token was used by node {0}: make another with `safectl cluster invite`")]
    Used(String),
    /// The cluster does not know it.
    #[error(
        "the token is of another cluster or another node: it is good only at the node that made it; make another with `safectl cluster invite`"
    )]
    Foreign,
}

/// What a token says.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Cluster name.
    pub cluster: String,
    /// Where the node that made it listens.
    pub endpoints: Vec<SocketAddr>,
    /// Fingerprint of the cluster CA.
    pub ca: [u8; 32],
    /// Good for one join.
    pub secret: [u8; 32],
    /// Unix seconds.
    pub expires: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("cluster", &self.cluster)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// The line to hand over.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        push(&mut bytes, self.cluster.as_bytes());
        bytes.push(u8::try_from(self.endpoints.len()).unwrap_or(u8::MAX));
        for endpoint in &self.endpoints {
            match endpoint.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&endpoint.port().to_le_bytes());
        }
        bytes.extend_from_slice(&self.ca);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.expires.to_le_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`TokenError::Altered`] or [`TokenError::Version`].
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TokenError::Altered("it is too long"));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| TokenError::Altered("it is not whole, or has characters that no token has"))?;
        let length = bytes.len().checked_sub(CHECK).ok_or(TokenError::Altered("it is too short"))?;
        let (content, sum) = bytes.split_at(length);
        if check(content) != sum {
            return Err(TokenError::Altered("its checksum is wrong"));
        }
        let mut reader = Reader(content);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(TokenError::Version(version));
        }
        let token = reader.token()?;
        if !reader.0.is_empty() {
            return Err(TokenError::Altered("it is too long"));
        }
        Ok(token)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn token(&mut self) -> Result<Token, TokenError> {
        let length = usize::from(self.byte()?);
        let cluster = std::str::from_utf8(self.take(length)?).map_err(|_| BROKEN)?.to_owned();
        safe_proto::settings::label("cluster", &cluster).map_err(|_| BROKEN)?;
        let count = usize::from(self.byte()?);
        if count == 0 || count > MAX_ENDPOINTS {
            return Err(BROKEN);
        }
        let endpoints = (0..count).map(|_| self.endpoint()).collect::<Result<_, _>>()?;
        let (ca, secret) = (self.array()?, self.array()?);
        Ok(Token { cluster, endpoints, ca, secret, expires: u64::from_le_bytes(self.array()?) })
    }

    fn endpoint(&mut self) -> Result<SocketAddr, TokenError> {
        let ip: IpAddr = match self.byte()? {
            4 => self.array::<4>()?.into(),
            6 => self.array::<16>()?.into(),
            _ => return Err(BROKEN),
        };
        Ok(SocketAddr::new(ip, u16::from_le_bytes(self.array()?)))
    }

    fn byte(&mut self) -> Result<u8, TokenError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], TokenError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(taken)
    }
}

const BROKEN: TokenError = TokenError::Altered("its content makes no sense");

fn push(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(usize::from(u8::MAX))];
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text);
}

fn check(content: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&blake3::derive_key(CHECK_CONTEXT, content)[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            cluster: "demo".to_owned(),
            endpoints: vec!["10.0.0.1:9400".parse().unwrap(), "[fd00::1]:9400".parse().unwrap()],
            ca: [1; 32],
            secret: [2; 32],
            expires: 1_900_000_000,
        }
    }

    #[test]
    fn a_token_comes_back() {
        let text = token().encode();
        assert!(text.len() < 200, "{}", text.len());
        assert_eq!(Token::decode(&format!(" {text}\n")).unwrap(), token());
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let text = token().encode();
        for index in 0..text.len() {
            let mut altered = text.clone();
            let other = if &text[index..=index] == "A" { "B" } else { "A" };
            altered.replace_range(index..=index, other);
            assert!(matches!(Token::decode(&altered), Err(TokenError::Altered(_))), "character {index}");
        }
        for length in 0..text.len() {
            assert!(matches!(Token::decode(&text[..length]), Err(TokenError::Altered(_))), "cut at {length}");
        }
        assert!(Token::decode(&"A".repeat(MAX_TEXT + 1)).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = URL_SAFE_NO_PAD.decode(token().encode()).unwrap();
        bytes.truncate(bytes.len() - CHECK);
        bytes[0] = 9;
        let sum = check(&bytes);
        bytes.extend_from_slice(&sum);
        assert_eq!(Token::decode(&URL_SAFE_NO_PAD.encode(bytes)), Err(TokenError::Version(9)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            drop(Token::decode(&text));
        }

        #[test]
        fn no_content_with_a_right_checksum_panics(content in proptest::collection::vec(0_u8.., 0..200)) {
            let mut bytes = content;
            let sum = check(&bytes);
            bytes.extend_from_slice(&sum);
            drop(Token::decode(&URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
