//! Virtual machines: Debian's own kernel and systemd, on disks that are files here.
//!
//! A machine is a [`Host`](crate::host::Host) whose only program is QEMU: the host's cables lead to the machine, so networks, cuts
//! and clients are those of all other tests; and killing the host kills QEMU, which is a loss of power that takes the
//! machine's page cache along. What the machine had written to its disk by then is in the file, and nothing else.
//!
//! In reading order: `image` (what every machine begins with), `disk`, `machine`, `guest` (the door into it), `pair` (two
//! machines that are a cluster), `stress` (load, and what it was told).

pub mod compare;
pub mod disk;
pub mod guest;
pub mod image;
pub mod losses;
pub mod machine;
pub mod pair;
pub mod stress;

pub use losses::Losses;
pub use machine::Machine;
pub use pair::Pair;
pub use stress::{Record, Stress};
