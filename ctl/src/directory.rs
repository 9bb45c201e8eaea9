//! The directory of a module, read as it is sent to `safed`.

use std::fs::{self, Metadata};
use std::path::Path;

use safe_proto::module::{ModuleFile, ModuleFiles};
use safe_proto::spec::files::{MAX_FILES, MAX_TOTAL};
use safe_proto::spec::{FILE, MAX_BYTES};

use crate::error::Failure;

/// Deepest folder in a module.
const MAX_DEPTH: usize = 8;

/// Reads `module.toml` and every file beside and below it. What begins with a dot is left out.
pub(crate) fn read(directory: &Path) -> Result<ModuleFiles, Failure> {
    let shown = directory.display();
    let spec_path = directory.join(FILE);
    let metadata = fs::metadata(&spec_path).map_err(|error| {
        Failure::failed(format!("{shown} is not the directory of a module"))
            .cause(format!("{}: {error}", spec_path.display()))
            .hint("a module is a directory with a file module.toml and a folder scripts: safectl help module")
    })?;
    if metadata.len() > MAX_BYTES as u64 {
        return Err(Failure::failed(format!(
            "{} is larger than {} KiB",
            spec_path.display(),
            MAX_BYTES >> 10
        )));
    }
    let spec = fs::read_to_string(&spec_path).map_err(|error| unreadable(&spec_path).cause(error))?;
    let mut reader = Reader { files: Vec::new(), total: 0 };
    reader.folder(directory, "", 0)?;
    reader.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(ModuleFiles { spec, files: reader.files })
}

struct Reader {
    files: Vec<ModuleFile>,
    total: u64,
}

impl Reader {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(Failure::failed(format!("{} is nested too deep for a module", folder.display())));
        }
        for entry in fs::read_dir(folder).map_err(|error| unreadable(folder).cause(error))? {
            let entry = entry.map_err(|error| unreadable(folder).cause(error))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Failure::failed(format!("{} has a name that is not UTF-8", path.display())));
            };
            if name.starts_with('.') || (prefix.is_empty() && name == FILE) {
                continue;
            }
            let inside = format!("{prefix}{name}");
            let metadata = entry.metadata().map_err(|error| unreadable(&path).cause(error))?;
            if metadata.is_dir() {
                self.folder(&path, &format!("{inside}/"), depth + 1)?;
            } else if metadata.is_file() {
                self.file(&path, inside, &metadata)?;
            } else {
                return Err(Failure::failed(format!("{} is not a regular file", path.display()))
                    .hint("a module holds files and folders only; put a copy in place of a link"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, inside: String, metadata: &Metadata) -> Result<(), Failure> {
        self.total += metadata.len();
        if self.files.len() >= MAX_FILES || self.total > MAX_TOTAL as u64 {
            let bound = format!("at most {MAX_FILES} files and {} MiB", MAX_TOTAL >> 20);
            return Err(Failure::failed(format!("the module is too large: {bound}"))
                .hint("keep data and programs elsewhere; a module holds settings and scripts"));
        }
        let content = fs::read(path).map_err(|error| unreadable(path).cause(error))?;
        self.files.push(ModuleFile { path: inside, content, executable: is_executable(metadata) });
        Ok(())
    }
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

/// There is no such mode here: scripts are taken for executable.
#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    true
}

fn unreadable(path: &Path) -> Failure {
    Failure::failed(format!("cannot read {}", path.display()))
}
