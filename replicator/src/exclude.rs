//! Which paths are not replicated.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The globs of one directory, relative to it. A directory that matches is excluded with everything below.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    globs: GlobSet,
    patterns: Vec<String>,
}

impl Exclude {
    /// From the patterns of `exclude`.
    ///
    /// # Errors
    /// One sentence for people about the first pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| format!("exclude pattern {pattern:?} is not valid: {error}"))?;
            builder.add(glob);
        }
        let globs = builder.build().map_err(|error| format!("exclude patterns are not valid: {error}"))?;
        Ok(Self { globs, patterns: patterns.to_vec() })
    }

    /// There are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether this path (without a leading slash) itself matches; what lies above it is the caller's to ask.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        !self.patterns.is_empty() && self.globs.is_match(std::path::Path::new(as_os(path)))
    }

    /// Whether a pattern could match anything below this directory: moving it could carry files across the border.
    #[must_use]
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        self.patterns.iter().any(|pattern| could_reach(pattern, &path))
    }
}

fn as_os(path: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(path)
}

/// Compares component by component as long as the pattern's are plain; anything else could match.
fn could_reach(pattern: &str, directory: &str) -> bool {
    let mut patterns = pattern.split('/');
    for name in directory.split('/') {
        match patterns.next() {
            Some("**") => return true,
            Some(plain) if !plain.contains(['*', '?', '[', '{', '\\']) => {
                if plain != name {
                    return false;
                }
            }
            Some(_) => return true,
            // The pattern ends above: everything below is on one side of the border.
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_relative_and_respect_separators() {
        let exclude = Exclude::new(&["tmp/**".into(), "*.log".into()]).expect("valid");
        assert!(exclude.matches(b"tmp/a/b"));
        assert!(!exclude.matches(b"tmp"));
        assert!(exclude.matches(b"x.log"));
        assert!(!exclude.matches(b"a/x.log"));
        assert!(!Exclude::default().matches(b"anything"));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        assert!(Exclude::new(&["a[".into()]).is_err());
    }

    #[test]
    fn only_directories_that_a_pattern_can_reach_are_at_the_border() {
        let exclude = Exclude::new(&["tmp/**".into(), "a/b/c".into()]).expect("valid");
        assert!(exclude.may_match_below(b"tmp"));
        assert!(exclude.may_match_below(b"a"));
        assert!(!exclude.may_match_below(b"data"));
        assert!(!exclude.may_match_below(b"a/x"));
    }
}
