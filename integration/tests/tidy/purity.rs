//! The pure crates: no input, no output, no clock, no dice.

use syn::visit::{self, Visit};

use crate::source::Source;

/// Sources of the pure crates.
pub(crate) const PURE: [&str; 2] = ["agent/failover/src/", "replicator/core/src/"];

/// What they may not name, also in part: modules and types by path.
const BANNED: [&str; 16] = [
    "tokio",
    "rustix",
    "libc",
    "rand",
    "getrandom",
    "std::net",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "std::io",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
];

/// Names of what is banned in a pure source.
pub(crate) fn check(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|crate_sources| source.path.starts_with(crate_sources)) {
        return Vec::new();
    }
    paths(source)
        .into_iter()
        .filter(|(_, path)| BANNED.iter().any(|banned| begins(path, banned)))
        .map(|(line, path)| source.finding(line, format!("a pure crate names {path}")))
        .collect()
}

/// `path` is `prefix` or below it.
pub(crate) fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path in the file, imports written out, with its line.
pub(crate) fn paths(source: &Source) -> Vec<(usize, String)> {
    let mut visitor = Paths { found: Vec::new() };
    visitor.visit_file(&source.syntax);
    visitor.found
}

struct Paths {
    found: Vec<(usize, String)>,
}

impl Paths {
    fn import(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| format!("{prefix}{}{name}", if prefix.is_empty() { "" } else { "::" });
        match tree {
            syn::UseTree::Path(path) => self.import(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.found.push((name.ident.span().start().line, join(&name.ident))),
            syn::UseTree::Rename(name) => {
                self.found.push((name.ident.span().start().line, join(&name.ident)))
            }
            syn::UseTree::Glob(glob) => {
                self.found.push((glob.star_token.span.start().line, prefix.to_owned()))
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.found.push((first.ident.span().start().line, names.join("::")));
        }
        visit::visit_path(self, path);
    }
}
