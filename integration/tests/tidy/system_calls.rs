//! Calls to the operating system and unsafe code have their own files.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::purity::{begins, paths};
use crate::source::Source;

/// The crates and modules by which the system is called without the standard library's safety.
const RAW: [&str; 2] = ["libc", "rustix::mount"];

/// Raw calls and unsafe code elsewhere.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let named_for_it = source.file_name() == "linux.rs"
        || source.path.contains("/linux/")
        || source.path.starts_with("replicator/src/fuse/");
    if named_for_it {
        return Vec::new();
    }
    let mut visitor = Unsafe { source, findings: Vec::new() };
    visitor.visit_file(&source.syntax);
    // A test may well make a filesystem full or read-only; what it must not is be unsafe.
    let is_test = source.file_name() == "tests.rs" || source.path.contains("/tests/");
    let raw = if is_test { Vec::new() } else { paths(source) };
    let raw = raw.into_iter().filter(|(_, path)| !is_harmless(path)).collect::<Vec<_>>();
    let raw = raw.into_iter().filter(|(_, path)| RAW.iter().any(|raw| begins(path, raw)));
    let raw = raw.map(|(line, path)| source.finding(line, format!("{path} belongs into linux.rs or linux/")));
    let fuse = paths(source).into_iter().filter(|(_, path)| begins(path, "fuser"));
    let fuse =
        fuse.map(|(line, path)| source.finding(line, format!("{path} belongs into replicator/src/fuse/")));
    visitor.findings.into_iter().chain(raw).chain(fuse).collect()
}

/// Constants of libc, and its arithmetic on device numbers, call nothing.
fn is_harmless(path: &str) -> bool {
    let name = path.rsplit("::").next().unwrap_or_default();
    let constant =
        name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
    path.starts_with("libc") && (constant || ["makedev", "major", "minor"].contains(&name))
}

struct Unsafe<'a> {
    source: &'a Source,
    findings: Vec<String>,
}

impl Unsafe<'_> {
    fn found(&mut self, span: proc_macro2::Span) {
        let what = "unsafe code belongs into linux.rs, linux/ or replicator/src/fuse/";
        self.findings.push(self.source.finding(span.start().line, what));
    }
}

impl<'ast> Visit<'ast> for Unsafe<'_> {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.found(block.span());
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.unsafety.is_some() {
            self.found(signature.span());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.found(item.span());
        }
        visit::visit_item_impl(self, item);
    }
}
