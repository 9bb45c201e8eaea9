//! What a new version changes for a module that runs.

use safe_proto::module::{ModuleFiles, State};
use safe_proto::spec::ModuleSpec;
use tonic::Status;

use crate::rpc::Desk;
use crate::spec_store;

/// A line for everything that is other than in the version in force here; none if the module does not run on this node.
pub(super) async fn over_running(
    desk: &Desk,
    name: &str,
    spec: &ModuleSpec,
    files: &ModuleFiles,
) -> Result<Vec<String>, Status> {
    let statuses = desk.context.node.statuses();
    let runs = statuses.borrow().get(name).is_some_and(|status| status.state() != State::Stop);
    if !runs {
        return Ok(Vec::new());
    }
    let (paths, name, spec, files) =
        (desk.context.paths.clone(), name.to_owned(), spec.clone(), files.clone());
    crate::rpc::blocking(move || {
        let Ok(held) = spec_store::files(&paths, &name) else { return Ok(Vec::new()) };
        let before = ModuleSpec::parse(&held.spec);
        let changes = before.map(|before| before.changes(&spec)).unwrap_or_default();
        let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        lines.extend(other_files(&held, &files));
        Ok(lines)
    })
    .await
}

fn other_files(before: &ModuleFiles, after: &ModuleFiles) -> Vec<String> {
    let mut paths: Vec<&String> = before.files.iter().chain(&after.files).map(|file| &file.path).collect();
    paths.sort();
    paths.dedup();
    let of = |files: &ModuleFiles, path: &String| files.files.iter().find(|file| file.path == *path).cloned();
    let other = paths.into_iter().filter(|path| of(before, path) != of(after, path));
    other.map(|path| format!("{path}: from its next run on")).collect()
}
