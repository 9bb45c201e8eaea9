//! From text to an expression.
//!
//! ```text
//! any        = all ("||" all)*
//! all        = not ("&&" not)*
//! not        = "!" not | "(" any ")" | comparison
//! comparison = ["local." | "remote."] name ("==" | "!=") value
//! name       = class ("." part)* [".*" | ".?"]
//! value      = init | up | down | unknown, and for state: STOP WAIT ALONE PRIM SECOND
//! ```

use std::fmt;
use std::str::FromStr;

use winnow::Parser;
use winnow::combinator::{alt, repeat};
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, take_while};

use super::expression::{Comparison, Expression, Pattern, Place};
use crate::resource::{Value, check_name};

/// Deepest nesting of an expression.
const DEPTH: usize = 32;

/// Longest expression, in bytes.
const LONGEST: usize = 4096;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// Character at which it is wrong, from 1.
    pub at: usize,
    /// What is wrong there, and what may be meant.
    pub what: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.what)
    }
}

impl std::error::Error for ExpressionError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    And,
    Or,
    Equal,
    Differs,
    Not,
    Open,
    Close,
    Word(&'a str),
    /// Not part of the language.
    Stray(char),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And => f.write_str("&&"),
            Self::Or => f.write_str("||"),
            Self::Equal => f.write_str("=="),
            Self::Differs => f.write_str("!="),
            Self::Not => f.write_str("!"),
            Self::Open => f.write_str("("),
            Self::Close => f.write_str(")"),
            Self::Word(word) => f.write_str(word),
            Self::Stray(stray) => write!(f, "{stray}"),
        }
    }
}

type Input<'a> = LocatingSlice<&'a str>;

fn token<'a>(input: &mut Input<'a>) -> winnow::Result<(usize, Token<'a>)> {
    let part = |c: char| c.is_ascii_alphanumeric() || "._-:/*?".contains(c);
    let start = input.current_token_start();
    let token = alt((
        "&&".value(Token::And),
        "||".value(Token::Or),
        "==".value(Token::Equal),
        "!=".value(Token::Differs),
        "!".value(Token::Not),
        "(".value(Token::Open),
        ")".value(Token::Close),
        take_while(1.., part).map(Token::Word),
        any.map(Token::Stray),
    ))
    .parse_next(input)?;
    take_while(0.., char::is_whitespace).parse_next(input)?;
    Ok((start, token))
}

/// Tokens with the byte at which they begin; every text has some.
fn tokens(text: &str) -> Vec<(usize, Token<'_>)> {
    let space = take_while::<_, Input<'_>, winnow::error::ContextError>(0.., char::is_whitespace);
    let all =
        (space, repeat(0.., token)).map(|(_, tokens): (_, Vec<_>)| tokens).parse(LocatingSlice::new(text));
    all.unwrap_or_default()
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST {
            return Err(ExpressionError { at: 1, what: format!("longer than {LONGEST} bytes") });
        }
        let mut reader = Reader { text, tokens: tokens(text), next: 0, depth: 0 };
        let expression = reader.any()?;
        match reader.peek() {
            None => Ok(expression),
            Some(Token::Close) => Err(reader.error("this ) closes nothing")),
            Some(token) => Err(reader.error(expected_operator(token))),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token<'a>)>,
    next: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).map(|(_, token)| *token)
    }

    fn take(&mut self, wanted: Token<'_>) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    /// At the next token.
    fn error(&self, what: impl Into<String>) -> ExpressionError {
        let byte = self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at);
        let at = self.text.get(..byte).map_or(0, |before| before.chars().count()) + 1;
        ExpressionError { at, what: what.into() }
    }

    fn any(&mut self) -> Result<Expression, ExpressionError> {
        let mut parts = vec![self.all()?];
        while self.take(Token::Or) {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self) -> Result<Expression, ExpressionError> {
        let mut parts = vec![self.not()?];
        while self.take(Token::And) {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn not(&mut self) -> Result<Expression, ExpressionError> {
        if self.depth >= DEPTH {
            return Err(self.error(format!("nested deeper than {DEPTH}")));
        }
        self.depth += 1;
        let expression = if self.take(Token::Not) {
            Expression::Not(Box::new(self.not()?))
        } else if self.take(Token::Open) {
            let inner = self.any()?;
            if !self.take(Token::Close) {
                return Err(match self.peek() {
                    None => self.error("a ) is missing"),
                    Some(token) => self.error(expected_operator(token)),
                });
            }
            inner
        } else {
            Expression::Is(self.comparison()?)
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Comparison, ExpressionError> {
        let Some(Token::Word(name)) = self.peek() else {
            let found =
                self.peek().map_or("the expression ends".to_owned(), |token| format!("found {token}"));
            return Err(
                self.error(format!("{found}, where the name of a resource was expected, as in check.tcp.db"))
            );
        };
        let (place, pattern) = self.name(name)?;
        self.next += 1;
        let equal = if self.take(Token::Equal) {
            true
        } else if self.take(Token::Differs) {
            false
        } else {
            return Err(self.error(format!("a comparison is missing: write {name} == up, or {name} == down")));
        };
        let value = self.value(&pattern)?;
        self.next += 1;
        Ok(Comparison { place, pattern, equal, value })
    }

    fn name(&self, name: &str) -> Result<(Place, Pattern), ExpressionError> {
        let (place, rest) = match name.split_once('.') {
            Some(("local", rest)) => (Place::Local, rest),
            Some(("remote", rest)) => (Place::Remote, rest),
            Some(_) | None => (Place::Local, name),
        };
        let pattern = if let Some(prefix) = rest.strip_suffix(".*") {
            Pattern::All(format!("{prefix}."))
        } else if let Some(prefix) = rest.strip_suffix(".?") {
            Pattern::Any(format!("{prefix}."))
        } else {
            Pattern::One(rest.to_owned())
        };
        let plain = match &pattern {
            Pattern::One(name) => name.clone(),
            Pattern::All(prefix) | Pattern::Any(prefix) => format!("{prefix}x"),
        };
        if plain.contains(['*', '?']) {
            return Err(self.error(format!(
                "* and ? stand only for the end of a name, as in check.tcp.*, not in {name}"
            )));
        }
        check_name(&plain).map_err(|what| self.error(what))?;
        Ok((place, pattern))
    }

    fn value(&self, pattern: &Pattern) -> Result<Value, ExpressionError> {
        let of_state = matches!(pattern, Pattern::One(name) if name == "state");
        let choice =
            if of_state { "STOP, WAIT, ALONE, PRIM, SECOND or unknown" } else { "init, up, down or unknown" };
        let Some(Token::Word(word)) = self.peek() else {
            let hint = match self.peek() {
                Some(Token::Stray('"' | '\'')) => "; values are written without quotes",
                Some(_) | None => "",
            };
            return Err(self.error(format!("a value was expected: {choice}{hint}")));
        };
        let value = word.parse().ok().filter(|value| match value {
            Value::State(_) => of_state,
            Value::Unknown => true,
            Value::Init | Value::Up | Value::Down => !of_state,
        });
        value.ok_or_else(|| {
            let upper = word.to_uppercase();
            let near = if of_state { upper } else { word.to_lowercase() };
            let meant = near != word && choice.split([',', ' ']).any(|one| one == near);
            let hint = if meant { format!("; did you mean {near}?") } else { String::new() };
            self.error(format!("{word} is not one of the values of this resource: {choice}{hint}"))
        })
    }
}

fn expected_operator(token: Token<'_>) -> String {
    let hint = match token {
        Token::Word("and" | "AND") | Token::Stray('&') => "; did you mean &&?",
        Token::Word("or" | "OR") | Token::Stray('|') => "; did you mean ||?",
        Token::Stray('=') | Token::Equal | Token::Differs => "; a comparison has one name on its left",
        Token::Word(_)
        | Token::Stray(_)
        | Token::And
        | Token::Or
        | Token::Not
        | Token::Open
        | Token::Close => "",
    };
    format!("found {token}, where && or || was expected{hint}")
}
