//! The kernel's side of the mirror: our own small loop on /dev/fuse. No type of the FUSE protocol leaves this folder
//! except [`Request`] and [`Reply`], which carry values, not wire layouts.
//!
//! Reading order: [`request`], [`reply`], [`session`], [`courier`], [`mount`].

pub mod caller;
pub mod courier;
pub mod mount;
pub mod reply;
pub mod request;
pub mod session;
mod wire;

pub use reply::{Attributes, Entry, Reply};
pub use request::{Operation, Request};
