//! Synchronous file replication of one mirror module: FUSE capture, stream, apply, journal and resync.
//!
//! Reading order: [`fuse`] what the kernel asks, [`files`] how it is answered, [`operation`] how a change is decided,
//! [`carry`] and [`backing`] how it is done to the files below; [`session`], [`attend`], [`stream`] and [`mod@line`] the other
//! node, [`apply`] its side; [`knowledge`], [`journal`], [`epoch`], [`marker`] what differs; [`resync`]; [`replica`] and
//! [`control`] the agent's commands, [`watch`] what happens without it.

pub mod agent;
pub mod apply;
pub mod archive;
pub mod attend;
pub mod backing;
pub mod carry;
pub mod change;
pub mod clock;
pub mod control;
pub mod crash;
pub mod epoch;
pub mod exclude;
pub mod fds;
pub mod fence;
pub mod files;
pub mod fuse;
pub mod introduce;
pub mod journal;
pub mod keys;
pub mod knowledge;
pub mod legacy;
pub mod line;
pub mod linux;
pub mod marker;
pub mod member;
pub mod mounts;
pub mod node;
pub mod operation;
pub mod pause;
pub mod prepare;
pub mod progress;
pub mod replica;
pub mod report;
pub mod resync;
pub mod search;
pub mod session;
pub mod settings;
pub mod source;
pub mod space;
pub mod state;
pub mod stream;
pub mod sync;
pub mod throttle;
pub mod tls;
pub mod untouched;
pub mod waiter;
pub mod watch;
pub mod wire;
