//! The resync on real directories, with a link that applies operations to a second directory in this process. Equality
//! is what rsync says it is.

#[path = "resync/application.rs"]
mod application;
#[path = "resync/concurrent.rs"]
mod concurrent;
#[path = "resync/delta.rs"]
mod delta;
#[path = "resync/full.rs"]
mod full;
#[path = "resync/pair.rs"]
mod pair;
#[path = "resync/random.rs"]
mod random;
