//! Installed modules on disk: one directory each, replaced as a whole, versions in a hash chain.
//!
//! `spec/` holds the version in force, `spec.next/` one that was prepared, `spec.old/` the one before. A commit is one
//! exchange of two directories, so a crash leaves either the old version or the new one in force.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use safe_proto::module::{ModuleFile, ModuleFiles};
use safe_proto::spec::{self, files};
use serde::{Deserialize, Serialize};

use crate::paths::{ModulePaths, Paths, make_private};
use crate::store::sync_parent;

/// Beside the files of a version: which one it is.
const LABEL: &str = ".version.json";

/// How many earlier versions the label names.
const BEFORE: usize = 64;

/// What the label of a version says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Name under which the module is installed.
    pub name: String,
    /// 64 hexadecimal digits.
    pub version: String,
    /// Versions before, newest first.
    pub before: Vec<String>,
    /// The module's nodes in order, as they were resolved when this version was installed.
    pub nodes: Vec<String>,
}

/// blake3 of the content and of the version before.
#[must_use]
pub fn version(files: &ModuleFiles, parent: Option<&str>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(parent.unwrap_or_default().as_bytes());
    part(files.spec.as_bytes());
    let mut sorted: Vec<&ModuleFile> = files.files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for file in sorted {
        part(file.path.as_bytes());
        part(&[u8::from(file.executable)]);
        part(&file.content);
    }
    hasher.finalize().to_hex().to_string()
}

/// Names of installed modules, sorted.
///
/// # Errors
/// The directory cannot be read.
pub fn installed(paths: &Paths) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(paths.modules()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().join("spec").is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Label of the version in force.
///
/// # Errors
/// It cannot be read.
pub fn label(module: &ModulePaths) -> io::Result<Label> {
    read_label(&module.spec())
}

/// Version in force; none: not installed.
#[must_use]
pub fn head(paths: &Paths, name: &str) -> Option<String> {
    label(&paths.module(name)).ok().map(|label| label.version)
}

/// Versions before the one in force, newest first.
#[must_use]
pub fn before(paths: &Paths, name: &str) -> Vec<String> {
    label(&paths.module(name)).map(|label| label.before).unwrap_or_default()
}

/// The files of the version in force.
///
/// # Errors
/// They cannot be read, or are more than a module may have.
pub fn files(paths: &Paths, name: &str) -> io::Result<ModuleFiles> {
    let dir = paths.module(name).spec();
    let spec = std::fs::read_to_string(dir.join(spec::FILE))?;
    let mut files = Vec::new();
    read_tree(&dir, Path::new(""), &mut files)?;
    files.retain(|file| file.path != spec::FILE && file.path != LABEL);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(ModuleFiles { spec, files })
}

/// Writes a version beside the one in force, durably.
///
/// # Errors
/// The disk refuses.
pub fn prepare(module: &ModulePaths, label: &Label, content: &ModuleFiles) -> io::Result<()> {
    make_private(module.lib())?;
    let next = next(module);
    remove_tree(&next)?;
    DirBuilder::new().mode(0o700).create(&next)?;
    write_file(&next, spec::FILE, content.spec.as_bytes(), 0o600)?;
    for file in &content.files {
        if !files::is_inside(&file.path) || file.path == LABEL || file.path == spec::FILE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad path {:?}", file.path)));
        }
        write_file(&next, &file.path, &file.content, if file.executable { 0o700 } else { 0o600 })?;
    }
    write_file(&next, LABEL, &serde_json::to_vec_pretty(label)?, 0o600)?;
    sync_tree(&next)?;
    sync_parent(&next)
}

/// Label and `module.toml` of the version, if it is prepared and not in force.
#[must_use]
pub fn prepared(module: &ModulePaths, version: &str) -> Option<(Label, String)> {
    let label = read_label(&next(module)).ok().filter(|label| label.version == version)?;
    Some((label, std::fs::read_to_string(next(module).join(spec::FILE)).ok()?))
}

/// Puts the prepared version in force, durably. Done already if it is.
///
/// # Errors
/// That version was not prepared, or the disk refuses.
pub fn commit(module: &ModulePaths, version: &str) -> io::Result<()> {
    if read_label(&module.spec()).is_ok_and(|label| label.version == version) {
        return remove_tree(&next(module));
    }
    let prepared = read_label(&next(module)).ok().filter(|label| label.version == version);
    if prepared.is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("version {version} was not prepared")));
    }
    let flags = if module.spec().exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, next(module), CWD, module.spec(), flags)?;
    sync_parent(&module.spec())?;
    if flags == RenameFlags::EXCHANGE {
        remove_tree(&old(module))?;
        std::fs::rename(next(module), old(module))?;
    }
    Ok(())
}

/// Forgets a prepared version.
///
/// # Errors
/// The disk refuses.
pub fn abort(module: &ModulePaths, version: &str) -> io::Result<()> {
    match read_label(&next(module)) {
        Ok(label) if label.version != version => Ok(()),
        Ok(_) | Err(_) => {
            remove_tree(&next(module))?;
            // A module that never was installed leaves nothing behind.
            if !module.spec().exists() {
                let _not_empty = std::fs::remove_dir(module.lib());
            }
            Ok(())
        }
    }
}

/// Removes everything of a module, durably.
///
/// # Errors
/// The disk refuses.
pub fn remove(module: &ModulePaths) -> io::Result<()> {
    // The spec first and under another name: what a crash leaves is no module.
    if module.spec().exists() {
        remove_tree(&old(module))?;
        std::fs::rename(module.spec(), old(module))?;
        sync_parent(&module.spec())?;
    }
    remove_tree(module.lib())?;
    remove_tree(module.run())?;
    sync_parent(module.lib())
}

fn next(module: &ModulePaths) -> PathBuf {
    module.lib().join("spec.next")
}

fn old(module: &ModulePaths) -> PathBuf {
    module.lib().join("spec.old")
}

/// The label of a version that follows `parent`, whose label is `present` if this node has it.
#[must_use]
pub fn next_label(
    present: Option<&Label>,
    name: &str,
    version: &str,
    parent: Option<&str>,
    nodes: Vec<String>,
) -> Label {
    let mut before: Vec<String> = parent.map(str::to_owned).into_iter().collect();
    if let Some(present) = present {
        let known = std::iter::once(&present.version).chain(&present.before);
        before.extend(known.filter(|version| Some(version.as_str()) != parent).cloned());
    }
    before.truncate(BEFORE);
    Label { name: name.to_owned(), version: version.to_owned(), before, nodes }
}

fn read_label(dir: &Path) -> io::Result<Label> {
    Ok(serde_json::from_slice(&std::fs::read(dir.join(LABEL))?)?)
}

fn read_tree(root: &Path, below: &Path, found: &mut Vec<ModuleFile>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let relative = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_tree(root, &relative, found)?;
        } else if kind.is_file() {
            if found.len() > files::MAX_FILES + 2 {
                return Err(io::Error::other(format!("{} holds too many files", root.display())));
            }
            let path =
                relative.to_str().ok_or_else(|| io::Error::other("a file name is not UTF-8"))?.to_owned();
            let executable = entry.metadata()?.mode() & 0o100 != 0;
            found.push(ModuleFile { path, content: std::fs::read(entry.path())?, executable });
        }
    }
    Ok(())
}

fn write_file(dir: &Path, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let target = dir.join(path);
    if let Some(parent) = target.parent() {
        make_private(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes names durable: every directory, from below.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
