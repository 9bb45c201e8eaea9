//! Everything of safed that crosses a process boundary: the gRPC packages, the settings and module files, and the
//! conversions between generated and domain types.

/// Generated code, one module per package; regenerate with `cargo run -p safe-proto --example gen`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod r#gen {
    pub mod cluster {
        include!("gen/safe.cluster.v1.rs");
    }
    pub mod module {
        include!("gen/safe.module.v1.rs");
    }
    pub mod node {
        include!("gen/safe.node.v1.rs");
    }
    pub mod peer {
        include!("gen/safe.peer.v1.rs");
    }
    pub mod replication {
        include!("gen/safe.replication.v1.rs");
    }
    pub mod witness {
        include!("gen/safe.witness.v1.rs");
    }
}

pub use r#gen::{cluster, module, node, peer, replication, witness};

/// Descriptors of all packages, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

/// Version of the API that this release speaks; a peer that offers no common one is refused.
pub const PROTOCOL: u32 = 1;

pub mod datagram;
pub mod settings;
pub mod spec;
