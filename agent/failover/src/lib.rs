//! The decision core of safed: who serves, with which data.
//!
//! Pure: no clock, no randomness, no input or output. One [`Failover`](crate::failover::Failover) per module takes
//! one [`Event`] at a time together with the present [`Time`] and answers with an ordered list of [`Action`]s.
//! The order is the contract: persist, then act, then speak.
//!
//! Reading order: [`time`], [`lineage`], [`hard`], [`view`], [`config`], [`event`], [`action`].

pub mod action;
pub mod config;
pub mod event;
pub mod hard;
pub mod lineage;
pub mod time;
pub mod view;

pub use action::Action;
pub use event::Event;
pub use time::Time;
