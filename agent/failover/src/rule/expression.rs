//! Expressions and what they are worth.

use crate::resource::Value;

/// Of which node a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// This one.
    Local,
    /// The other one of the module.
    Remote,
}

/// Which resources a comparison is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// This one.
    One(String),
    /// All whose names begin so; false if there is none.
    All(String),
    /// At least one of those whose names begin so.
    Any(String),
}

/// `name == value` or `name != value`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// Of which node.
    pub place: Place,
    /// Which resources.
    pub pattern: Pattern,
    /// `==`, else `!=`.
    pub equal: bool,
    /// The value compared with.
    pub value: Value,
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expression {
    /// A comparison.
    Is(Comparison),
    /// `!`
    Not(Box<Self>),
    /// `&&`
    All(Vec<Self>),
    /// `||`
    Any(Vec<Self>),
}

/// What is known of resources.
pub trait Known {
    /// Value of a resource; `Unknown` where there is none of that name.
    fn value(&self, place: Place, name: &str) -> Value;

    /// Resources whose names begin so, with their values.
    fn beginning(&self, place: Place, prefix: &str) -> Vec<(String, Value)>;
}

/// A value that took part in what an expression was worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Name, with `remote.` in front if it is the other node's.
    pub name: String,
    /// Value.
    pub value: Value,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}", self.name, self.value)
    }
}

impl Expression {
    /// What it is worth.
    pub fn holds(&self, known: &impl Known) -> bool {
        match self {
            Self::Is(comparison) => comparison.holds(known),
            Self::Not(inner) => !inner.holds(known),
            Self::All(parts) => parts.iter().all(|part| part.holds(known)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(known)),
        }
    }

    /// The values that make it true, each once; of an alternative only the parts that hold.
    pub fn facts(&self, known: &impl Known) -> Vec<Fact> {
        let mut once = Vec::new();
        for fact in self.reasons(known) {
            if !once.contains(&fact) {
                once.push(fact);
            }
        }
        once
    }

    fn reasons(&self, known: &impl Known) -> Vec<Fact> {
        match self {
            Self::Is(comparison) => comparison.facts(known),
            Self::Not(inner) => inner.all_facts(known),
            Self::All(parts) => parts.iter().flat_map(|part| part.reasons(known)).collect(),
            Self::Any(parts) => {
                parts.iter().filter(|part| part.holds(known)).flat_map(|part| part.reasons(known)).collect()
            }
        }
    }

    /// Every value that it looks at.
    pub fn all_facts(&self, known: &impl Known) -> Vec<Fact> {
        match self {
            Self::Is(comparison) => comparison.subjects(known),
            Self::Not(inner) => inner.all_facts(known),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().flat_map(|part| part.all_facts(known)).collect()
            }
        }
    }
}

impl Comparison {
    fn holds(&self, known: &impl Known) -> bool {
        let fits = |fact: &Fact| (fact.value == self.value) == self.equal;
        let subjects = self.subjects(known);
        match self.pattern {
            Pattern::One(_) | Pattern::Any(_) => subjects.iter().any(fits),
            Pattern::All(_) => !subjects.is_empty() && subjects.iter().all(fits),
        }
    }

    fn facts(&self, known: &impl Known) -> Vec<Fact> {
        let mut subjects = self.subjects(known);
        subjects.retain(|fact| (fact.value == self.value) == self.equal);
        subjects
    }

    fn subjects(&self, known: &impl Known) -> Vec<Fact> {
        let fact = |name: &str, value| match self.place {
            Place::Local => Fact { name: name.to_owned(), value },
            Place::Remote => Fact { name: format!("remote.{name}"), value },
        };
        match &self.pattern {
            Pattern::One(name) => vec![fact(name, known.value(self.place, name))],
            Pattern::All(prefix) | Pattern::Any(prefix) => known
                .beginning(self.place, prefix)
                .into_iter()
                .map(|(name, value)| fact(&name, value))
                .collect(),
        }
    }
}
