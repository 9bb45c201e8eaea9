//! Regenerates `src/gen/` from the `.proto` files: `cargo run -p safe-proto --example gen`.
//!
//! With `--check` nothing is written and the exit code is 1 if the committed code differs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FILES: [&str; 7] = [
    "safe/cluster/v1/cluster.proto",
    "safe/module/v1/module.proto",
    "safe/node/v1/node.proto",
    "safe/peer/v1/peer.proto",
    "safe/replication/v1/control.proto",
    "safe/replication/v1/replication.proto",
    "safe/witness/v1/witness.proto",
];

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let check = std::env::args().any(|argument| argument == "--check");
    let same = run(check)?;
    Ok(if same || !check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Generates, and installs unless it only checks; answers whether the committed code was the same.
pub(crate) fn run(check: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let fresh = std::env::temp_dir().join(format!("safe-proto-gen-{}", std::process::id()));
    std::fs::create_dir_all(&fresh)?;
    generate(&root, &fresh)?;
    let committed = root.join("src/gen");
    let same = install(&fresh, &committed, check)?;
    std::fs::remove_dir_all(&fresh)?;
    Ok(same)
}

fn generate(root: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(FILES, [root])?;
    std::fs::write(out.join("descriptors.bin"), prost_types_encode(&descriptors))?;
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".safe.replication.v1")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

fn prost_types_encode(descriptors: &prost_types::FileDescriptorSet) -> Vec<u8> {
    use prost::Message as _;
    descriptors.encode_to_vec()
}

/// Copies what differs; answers whether nothing did.
fn install(fresh: &Path, committed: &Path, check: bool) -> std::io::Result<bool> {
    std::fs::create_dir_all(committed)?;
    let mut same = true;
    for entry in std::fs::read_dir(fresh)? {
        let entry = entry?;
        let target = committed.join(entry.file_name());
        let content = std::fs::read(entry.path())?;
        if std::fs::read(&target).ok().as_deref() != Some(content.as_slice()) {
            same = false;
            if !check {
                std::fs::write(target, content)?;
            }
        }
    }
    Ok(same)
}
