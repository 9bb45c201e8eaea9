//! The other nodes: how views travel, how nodes are called, and how whoever is behind catches up.

pub mod catch_up;
pub mod convert;
pub mod dial;
pub mod nodes;
pub mod versions;

pub use nodes::Nodes;
