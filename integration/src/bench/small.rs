//! Many small files: create, stat, unlink, one after the other, as a mail server or a build does.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::clock;
use crate::error::Result;

/// Makes `count` files of 4 KiB in a new directory, looks at each, removes each; files per second as JSON.
///
/// # Errors
/// The directory exists, or the filesystem refuses.
pub fn run(directory: &Path, count: u32) -> Result<String> {
    fs::create_dir(directory)?;
    let content = [7; 4096];
    let create = each(count, |number| {
        fs::File::create_new(directory.join(number))?.write_all(&content)?;
        Ok(())
    })?;
    let stat = each(count, |number| {
        fs::metadata(directory.join(number))?;
        Ok(())
    })?;
    let unlink = each(count, |number| Ok(fs::remove_file(directory.join(number))?))?;
    fs::remove_dir(directory)?;
    Ok(serde_json::json!({ "create": create, "stat": stat, "unlink": unlink }).to_string())
}

fn each(count: u32, mut work: impl FnMut(String) -> Result<()>) -> Result<f64> {
    let begin = clock::now();
    for number in 0..count {
        work(number.to_string())?;
    }
    Ok(f64::from(count) / clock::now().duration_since(begin).as_secs_f64())
}
