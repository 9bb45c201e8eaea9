//! The other nodes: how views travel, how nodes are called, and how whoever is behind catches up.

pub mod convert;
