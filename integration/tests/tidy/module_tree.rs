//! Every Rust file is compiled by something: a file that no `mod` names is dead, and a test in it never runs.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use crate::source::Source;

/// Files that cargo does not reach.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    for source in sources.iter().filter(|source| is_root(&source.path)) {
        reach(sources, source, true, &mut reached);
    }
    let lost = sources.iter().filter(|source| !reached.contains(source.path.as_str()));
    lost.map(|source| source.finding(1, "no module declares this file")).collect()
}

/// What cargo finds by itself.
fn is_root(path: &str) -> bool {
    let parts: Vec<_> = path.split('/').collect();
    let folders = ["tests", "benches", "examples", "fuzz_targets", "bin"];
    match parts.as_slice() {
        [.., "src", "lib.rs" | "main.rs"] | [.., "build.rs"] => true,
        [.., folder, _] if folders.contains(folder) => true,
        [.., folder, _, "main.rs"] => folders.contains(folder),
        _ => false,
    }
}

fn reach<'a>(sources: &'a [Source], source: &'a Source, root: bool, reached: &mut BTreeSet<&'a str>) {
    if !reached.insert(&source.path) {
        return;
    }
    let stem = source.path.trim_end_matches(".rs");
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = if root { folder } else { stem };
    let mut modules = Modules { names: Vec::new(), within: Vec::new() };
    modules.visit_file(&source.syntax);
    for name in modules.names {
        let by_name = sources.iter().find(|other| other.path == format!("{below}/{name}.rs"));
        let by_path = sources.iter().find(|other| other.path == format!("{folder}/{name}"));
        if let Some(next) = by_name.or(by_path) {
            // What a `#[path]` names has its modules beside it, as a root has.
            reach(sources, next, by_name.is_none(), reached);
        }
    }
}

/// `mod name;`, with the inline modules around it; or the text of a `#[path]`.
struct Modules {
    names: Vec<String>,
    within: Vec<String>,
}

impl<'ast> Visit<'ast> for Modules {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string().trim_start_matches("r#").to_owned();
        if item.content.is_some() {
            self.within.push(name);
            visit::visit_item_mod(self, item);
            self.within.pop();
            return;
        }
        let path = item.attrs.iter().find_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
        let inline = self.within.iter().chain([&name]).cloned().collect::<Vec<_>>().join("/");
        self.names.push(path.unwrap_or(inline));
    }
}
