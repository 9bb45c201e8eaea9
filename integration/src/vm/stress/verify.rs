//! In the machine: is everything there that must be?

use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::content::{SECTOR, SLOT, generation, whole};
use super::facts::{Fact, Thing, parse};
use super::work::{ATTRIBUTE, mode_of};
use crate::error::{Context as _, Error, Result};

/// Most findings that are told.
const TOLD: usize = 20;

/// Reads facts from `input` and looks below `directory`; tells what is not so. Whether all is.
pub fn verify(directory: &Path, input: impl BufRead, mut out: impl Write) -> Result<bool> {
    let (mut checked, mut wrong) = (0_u64, 0);
    for line in input.lines() {
        let (thing, fact) = parse(&line?)?;
        checked += u64::from(fact != Fact::Doubt);
        if let Err(error) = look(directory, &thing, fact) {
            wrong += 1;
            if wrong <= TOLD {
                writeln!(out, "LOST {} {} ({fact:?}): {error}", thing.0, thing.1)?;
            }
        }
    }
    writeln!(out, "{checked} checked, {wrong} lost")?;
    Ok(wrong == 0)
}

fn look(directory: &Path, (path, index): &Thing, fact: Fact) -> Result<()> {
    let place = directory.join(path);
    match fact {
        Fact::Slot(least) => slot_is(&place, *index, least),
        Fact::Log { length, sum } => log_is(&place, length, sum),
        Fact::Whole(least) => whole_is(&place, path, least),
        Fact::Made => made_is(&place, path),
        Fact::Doubt => Ok(()),
        Fact::Gone => match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Error::new("it is there")),
        },
    }
}

fn slot_is(place: &Path, index: u64, least: u64) -> Result<()> {
    let mut bytes = vec![0; SLOT];
    fs::File::open(place)?.read_exact_at(&mut bytes, index * 4096)?;
    for sector in bytes.chunks(SECTOR) {
        let found = generation(sector, index).context(|| "damaged".to_owned())?;
        if found < least {
            return Err(Error::new(format!("it is of generation {found}")));
        }
    }
    Ok(())
}

fn log_is(place: &Path, length: u64, sum: u32) -> Result<()> {
    let bytes = fs::read(place)?;
    let length = usize::try_from(length).context(|| "length".to_owned())?;
    let start = bytes.get(..length).context(|| format!("it has {} bytes", bytes.len()))?;
    if crc32fast::hash(start) == sum { Ok(()) } else { Err(Error::new("damaged")) }
}

fn whole_is(place: &Path, path: &str, least: u64) -> Result<()> {
    let bytes = fs::read(place)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let found = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    let found: u64 = found.context(|| format!("{} bytes without a generation", bytes.len()))?;
    if bytes != whole(path, found) {
        return Err(Error::new(format!("generation {found} is not whole")));
    }
    if found < least { Err(Error::new(format!("it is of generation {found}"))) } else { Ok(()) }
}

fn made_is(place: &Path, path: &str) -> Result<()> {
    if fs::read(place)? != whole(path, 0) {
        return Err(Error::new("damaged"));
    }
    let mode = fs::metadata(place)?.mode() & 0o7777;
    if mode != mode_of(path) {
        return Err(Error::new(format!("its mode is {mode:o}")));
    }
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(place, ATTRIBUTE, &mut value[..])?;
    if &value[..length] == mode.to_string().as_bytes() {
        Ok(())
    } else {
        Err(Error::new("another attribute"))
    }
}
