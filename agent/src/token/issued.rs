//! Tokens this node has issued: durable, hashed, each good for one join.

use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::settings_store::hex;

const FORMAT: u32 = 1;
/// Most tokens kept.
const LIMIT: usize = 256;
/// Seconds a spent or expired token is remembered, so that its refusal can say why.
const MEMORY: u64 = 30 * 86_400;
const HASH_CONTEXT: &str = "safed 2026-11 join secret hash v1";

/// All of them, as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedTokens {
    format: u32,
    tokens: Vec<Issued>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issued {
    hash: String,
    expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<Used>,
}

/// Who used a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// Node name.
    pub node: String,
    /// Hash of its public key: the same process may ask again when the answer was lost.
    pub key: String,
}

/// Whether a token was spent now or, by the same process, before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// Now.
    Now,
    /// Before: the answer may have been lost.
    Again,
}

impl Default for IssuedTokens {
    fn default() -> Self {
        Self { format: FORMAT, tokens: Vec::new() }
    }
}

impl IssuedTokens {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Not of this form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if tokens.format != FORMAT {
            return Err(format!("format {} is not known to this safed", tokens.format));
        }
        Ok(tokens)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Adds a token.
    ///
    /// # Errors
    /// Too many are open.
    pub fn add(&mut self, secret: &[u8; 32], expires: u64, now: u64) -> Result<(), String> {
        self.tokens.retain(|token| token.expires.saturating_add(MEMORY) > now);
        if self.tokens.len() >= LIMIT {
            let spent = self.tokens.iter().position(|token| token.used.is_some() || token.expires <= now);
            match spent {
                Some(index) => drop(self.tokens.remove(index)),
                None => return Err(format!("{LIMIT} tokens are open: wait until some expire")),
            }
        }
        self.tokens.push(Issued { hash: hash(secret), expires, used: None });
        Ok(())
    }

    /// Spends a token.
    ///
    /// # Errors
    /// [`TokenError::Foreign`], [`TokenError::Used`] or [`TokenError::Expired`].
    pub fn redeem(&mut self, secret: &[u8; 32], by: Used, now: u64) -> Result<Redeemed, TokenError> {
        let hash = hash(secret);
        let token = self.tokens.iter_mut().find(|token| token.hash == hash).ok_or(TokenError::Foreign)?;
        match &token.used {
            Some(used) if *used == by && token.expires > now => Ok(Redeemed::Again),
            Some(used) => Err(TokenError::Used(used.node.clone())),
            None if token.expires <= now => Err(TokenError::Expired),
            None => {
                token.used = Some(by);
                Ok(Redeemed::Now)
            }
        }
    }
}

fn hash(secret: &[u8; 32]) -> String {
    hex(&blake3::derive_key(HASH_CONTEXT, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(node: &str, key: &str) -> Used {
        Used { node: node.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn a_token_is_good_once_and_says_why_not() {
        let mut tokens = IssuedTokens::default();
        tokens.add(&[1; 32], 100, 0).unwrap();
        tokens.add(&[2; 32], 100, 0).unwrap();
        assert_eq!(tokens.redeem(&[9; 32], by("n2", "k"), 1), Err(TokenError::Foreign));
        assert_eq!(tokens.redeem(&[1; 32], by("n2", "k"), 1), Ok(Redeemed::Now));
        assert_eq!(tokens.redeem(&[1; 32], by("n2", "k"), 2), Ok(Redeemed::Again));
        assert_eq!(tokens.redeem(&[1; 32], by("n3", "l"), 2), Err(TokenError::Used("n2".to_owned())));
        assert_eq!(tokens.redeem(&[2; 32], by("n3", "l"), 100), Err(TokenError::Expired));
        assert_eq!(IssuedTokens::parse(&tokens.to_json()).unwrap(), tokens);
        assert!(!tokens.to_json().contains(&hex(&[1; 32])));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut tokens = IssuedTokens::default();
        for number in 0..LIMIT {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&number.to_le_bytes());
            tokens.add(&secret, 100, 0).unwrap();
        }
        assert!(tokens.add(&[9; 32], 100, 0).is_err());
        assert!(tokens.add(&[9; 32], 300, 200).is_ok());
    }
}
