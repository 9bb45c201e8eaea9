//! Budgets: a function fits on a screen, a file is read in one go.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::source::Source;

const FUNCTION: usize = 70;
const FILE: usize = 1000;
const FILE_TO_REVIEW: usize = 500;

/// What is over budget.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let mut visitor = Functions { source, findings: Vec::new() };
    if lines > FILE {
        visitor.findings.push(source.finding(FILE, format!("{lines} lines; at most {FILE}: split it")));
    }
    visitor.visit_file(&source.syntax);
    visitor.findings
}

/// Files that someone should look at.
pub(crate) fn to_review(sources: &[Source]) -> Vec<String> {
    let mut long: Vec<_> = sources.iter().map(|source| (source.text.lines().count(), &source.path)).collect();
    long.retain(|(lines, _)| *lines > FILE_TO_REVIEW);
    long.sort();
    long.iter().map(|(lines, path)| format!("to review: {path} has {lines} lines")).collect()
}

struct Functions<'a> {
    source: &'a Source,
    findings: Vec<String>,
}

impl Functions<'_> {
    /// Lines of code between the braces; blank lines and comments cost nothing, as clippy counts.
    fn measure(&mut self, name: &syn::Ident, body: &syn::Block) {
        let (from, to) =
            (body.brace_token.span.open().start().line, body.brace_token.span.close().end().line);
        let within = self.source.text.lines().skip(from).take(to.saturating_sub(from + 1)).map(str::trim);
        let lines = within.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        if lines > FUNCTION {
            let what = format!("fn {name} has {lines} lines; at most {FUNCTION}");
            self.findings.push(self.source.finding(name.span().start().line, what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig.ident, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        debug_assert!(closure.span().start().line > 0, "spans have places");
        visit::visit_expr_closure(self, closure);
    }
}
