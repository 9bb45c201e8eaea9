//! Names: of clusters, nodes, lans, modules. All are DNS labels, because they stand in certificates, host names and
//! paths.

/// Longest name.
pub const MAX_LEN: usize = 63;

/// Checks that `name` is a DNS label: 1 to 63 of `a-z`, `0-9`, `-`, no `-` at either end.
///
/// # Errors
/// What is wrong, with a name that would do where one can be made from it.
pub fn check(what: &str, name: &str) -> Result<(), String> {
    if is_label(name) {
        return Ok(());
    }
    let rule = "a name is 1 to 63 of a-z, 0-9 and -, and begins and ends with a letter or digit";
    let near: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_LEN)
        .collect();
    let near = near.trim_matches('-');
    let shown: String = name.chars().take(80).collect();
    if is_label(near) {
        Err(format!("{what} {shown:?} cannot be used: {rule}; {near:?} would do"))
    } else {
        Err(format!("{what} {shown:?} cannot be used: {rule}"))
    }
}

fn is_label(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= MAX_LEN && fits(first) && fits(last) && bytes.iter().all(|&b| fits(b) || b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "n1", "db-1", "0"] {
            assert_eq!(check("node", good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", "a b", &"x".repeat(64)] {
            assert!(check("node", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn suggests_a_name() {
        let message = check("node", "My_Node.").unwrap_err();
        assert!(message.ends_with("\"my-node\" would do"), "{message}");
    }
}
