//! The decision core of safed: who serves, with which data.
//!
//! Pure: no clock, no randomness, no input or output. One [`Failover`] per module takes
//! one [`Event`] at a time together with the present [`Time`] and answers with an ordered list of [`Action`]s.
//! The order is the contract: persist, then act, then speak.
//!
//! Reading order: [`time`], [`lineage`], [`hard`], [`view`], [`config`], [`event`], [`action`]: the words. Then
//! [`failover`], [`meeting`], and the rules beside them. [`world`] lets two cores live, for proofs and for `safectl
//! simulate`; [`story`] reads what is to happen in it.

pub mod action;
mod archive;
mod commands;
pub mod config;
mod dropped;
mod edited;
pub mod event;
mod explain;
pub mod failover;
pub mod hard;
mod identity;
pub mod invariant;
pub mod left_out;
pub mod lineage;
pub mod lock;
mod loss;
pub mod meeting;
mod peer;
mod posture;
mod procedure;
mod reaction;
mod replicator;
pub mod resource;
mod rest;
mod rights;
mod room;
pub mod rule;
mod session;
mod settle;
mod stale;
mod start;
mod status;
pub mod story;
mod swap;
mod tell;
pub mod terms;
pub mod time;
pub mod timer;
pub mod view;
pub mod world;

pub use action::Action;
pub use config::Config;
pub use event::Event;
pub use explain::Explanation;
pub use failover::Failover;
pub use hard::HardState;
pub use reaction::Standing;
pub use terms::pace;
pub use time::Time;
