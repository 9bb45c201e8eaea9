//! The kernel and the disk that every machine begins with. `.ci/tools vm` makes them, once.

use std::path::PathBuf;

use crate::error::{Context as _, Error, Result};

/// Kept between tests, unless `SAFE_VM_DIR` names another directory.
const BASE: &str = "/var/tmp/safed-vm";

/// What decides how the image is, in the order of `recipe` in `image/build`.
const RECIPE: [&str; 5] = [
    include_str!("image/build"),
    include_str!("image/packages"),
    include_str!("image/setup"),
    include_str!("image/guest.service"),
    include_str!("image/safed.service"),
];

/// An image that is there and is the one that these tests were written for.
#[derive(Debug, Clone)]
pub struct Image {
    directory: PathBuf,
}

impl Image {
    /// Finds it; an error says how to make it.
    pub fn find() -> Result<Self> {
        let directory = std::env::var_os("SAFE_VM_DIR").map_or_else(|| PathBuf::from(BASE), PathBuf::from);
        let missing = "run `.ci/tools vm`";
        let recipe = std::fs::read_to_string(directory.join("recipe"))
            .context(|| format!("no image of the machines in {}: {missing}", directory.display()))?;
        if recipe != RECIPE.concat() {
            return Err(Error::new(format!(
                "the image of the machines in {} is of another version: {missing}",
                directory.display()
            )));
        }
        Ok(Self { directory })
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// Its initial file system.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// The disk with the system; to be copied.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.img")
    }
}
