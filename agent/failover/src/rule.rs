//! Failover rules: `if <expression over resources> then stop|stopstart|restart|swap|wait`.
//!
//! The language is total: every expression ends, and has a value whatever is known of the resources.

use std::time::Duration;

mod expression;
mod grammar;

pub use expression::{Comparison, Expression, Fact, Known, Pattern, Place};
pub use grammar::ExpressionError;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// The module stops here; the other node takes over if it can.
    Stop,
    /// The module stops and starts here; the other node takes over meanwhile if it can.
    StopStart,
    /// The application is stopped and started; the state stays.
    Restart,
    /// The roles are exchanged.
    Swap,
    /// The module waits until the expression is false.
    Wait,
}

impl Reaction {
    /// As in `module.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopStart => "stopstart",
            Self::Restart => "restart",
            Self::Swap => "swap",
            Self::Wait => "wait",
        }
    }
}

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was made from the module's settings; a rule of the module with the same label replaces it.
    Default,
    /// `[[rule]]` of the module.
    Module,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Name, unique within the module.
    pub label: String,
    /// The expression as it was written.
    pub text: String,
    /// The expression.
    pub expression: Expression,
    /// What is done when it holds.
    pub then: Reaction,
    /// How long it must hold.
    pub after: Duration,
    /// Where it comes from.
    pub origin: Origin,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The expression is not one: where, and what was meant.
    pub fn new(
        label: &str,
        text: &str,
        then: Reaction,
        after: Duration,
        origin: Origin,
    ) -> Result<Self, ExpressionError> {
        let expression = text.parse()?;
        Ok(Self { label: label.to_owned(), text: text.to_owned(), expression, then, after, origin })
    }
}
