//! Waiting for a condition with a deadline: no test sleeps for a fixed time.

use std::thread::sleep;
use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::interrupt;

/// Between two looks at a cheap condition.
const STEP: Duration = Duration::from_millis(20);

/// Looks again and again until `condition` answers something. At the deadline the error names `what` and the last
/// reason the condition gave for "not yet".
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = clock::now() + within;
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!("; last: {error}"),
        };
        interrupt::check()?;
        if clock::now() >= deadline {
            return Err(Error::new(format!("not within {within:?}: {what}{last}")));
        }
        sleep(STEP);
    }
}

/// As [`eventually`], for a condition that is either true or not.
pub fn eventually_true(within: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually(within, what, || Ok(condition().then_some(())))
}

/// Watches that `condition` holds all the time; an error as soon as it does not.
pub fn throughout(time: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = clock::now() + time;
    while clock::now() < end {
        interrupt::check()?;
        if !condition()? {
            return Err(Error::new(format!("did not hold for {time:?}: {what}")));
        }
        sleep(STEP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_told() {
        let error = eventually::<()>(Duration::from_millis(30), "spring", || Err(Error::new("winter")));
        assert!(error.unwrap_err().to_string().ends_with("spring; last: winter"));
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let mut looks = 0;
        let got = eventually(Duration::from_secs(5), "third look", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(got.unwrap(), 3);
    }
}
