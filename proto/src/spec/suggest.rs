//! "Did you mean".

/// The candidate nearest to `given`, if one is near enough to be meant.
pub(super) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    let most = 1.max(given.chars().count() / 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&given, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Makes serde's "unknown field" and "unknown variant" messages helpful; other messages stay.
pub(super) fn explain(message: &str) -> String {
    let (what, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant `") {
        ("value", rest)
    } else {
        return message
            .replace('`', "")
            .replace("expected a string", "expected a text in quotes")
            .replace("expected u32", "expected a number");
    };
    let Some((given, expected)) = rest.split_once('`') else { return message.to_owned() };
    let given: String = given.chars().take(80).collect();
    let candidates: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let known = candidates.join(", ");
    match nearest(&given, candidates) {
        Some(near) => format!("unknown {what} \"{given}\"; did you mean \"{near}\"? (known here: {known})"),
        None => format!("unknown {what} \"{given}\" (known here: {known})"),
    }
}
