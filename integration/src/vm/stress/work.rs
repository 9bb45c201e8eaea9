//! In the machine: writes in many ways at once, and says what is durable.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustix::fs::XattrFlags;

use super::content::{Dice, SLOT, slot, whole};
use super::facts::{Fact, line};
use super::noise::noise;
use crate::error::{Context as _, Error, Result};

/// Attribute of files that are made once.
pub(super) const ATTRIBUTE: &str = "user.safe";

/// Slots of a file that is written in place.
const SLOTS: u64 = 256;

/// The host answers within this time, or is gone.
const ANSWER: Duration = Duration::from_secs(60);

/// Works below `directory` until standard input ends. Any error of the filesystem that is not the application's own fault ends it.
/// `pace` is the time between two operations of each kind.
pub fn work(directory: &Path, run: u32, pace: Duration) -> Result<()> {
    let own = format!("run-{run}");
    fs::create_dir_all(directory.join(&own)).context(|| own.clone())?;
    sync_directory(directory)?;
    let answers = listen();
    let seed = u64::from(run) << 32;
    let site = &Site { directory, own: &own, seed, pace };
    std::thread::scope(|scope| {
        let tasks: [Task<'_>; 6] = [
            ("log", Box::new(|| site.append())),
            ("slots", Box::new(|| site.overwrite("shared", 1))),
            ("own slots", Box::new(|| site.overwrite(&format!("{own}/slots"), 2))),
            ("whole", Box::new(|| site.replace())),
            ("made", Box::new(move || site.make_and_remove(&answers))),
            (
                "noise",
                Box::new(|| {
                    noise(&directory.join(&own).join("noise"), Dice::new(seed + 9), || site.goes_on())
                }),
            ),
        ];
        let tasks = tasks.map(|(name, task)| {
            scope.spawn(move || {
                let end = task().context(|| name.to_owned());
                STOP.store(true, Ordering::Relaxed);
                end
            })
        });
        let ends = tasks.map(|task| task.join().unwrap_or_else(|_| Err(Error::new("panicked"))));
        ends.into_iter().collect()
    })
}

/// A way to write, by name.
type Task<'a> = (&'static str, Box<dyn FnOnce() -> Result<()> + Send + 'a>);

/// Everybody ends with the one they have in hand.
static STOP: AtomicBool = AtomicBool::new(false);

/// Answers of the host; the end of them is the end of the work.
fn listen() -> Receiver<()> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _an_answer_waits_already = sender.try_send(());
        }
        STOP.store(true, Ordering::Relaxed);
    });
    receiver
}

fn say(path: &str, fact: Fact, index: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line(path, fact, index))?;
    Ok(out.flush()?)
}

fn sync_directory(directory: &Path) -> Result<()> {
    Ok(File::open(directory)?.sync_all()?)
}

/// Permissions of a file that is made once, from its path.
pub(super) fn mode_of(path: &str) -> u32 {
    0o400 | crc32fast::hash(path.as_bytes()) & 0o377
}

struct Site<'a> {
    directory: &'a Path,
    own: &'a str,
    seed: u64,
    pace: Duration,
}

impl Site<'_> {
    /// Whether to go on, a moment later.
    fn goes_on(&self) -> bool {
        std::thread::sleep(self.pace);
        !STOP.load(Ordering::Relaxed)
    }

    /// A log: fsync behind some records, as a database does.
    fn append(&self) -> Result<()> {
        let path = format!("{}/log", self.own);
        let mut file = OpenOptions::new().append(true).create_new(true).open(self.directory.join(&path))?;
        sync_directory(&self.directory.join(self.own))?;
        let (mut dice, mut sum, mut length) = (Dice::new(self.seed), crc32fast::Hasher::new(), 0);
        while self.goes_on() {
            for _ in 0..=dice.below(4) {
                let size = usize::try_from(dice.below(3000)).unwrap_or(0) + 1;
                let record = dice.bytes(size);
                file.write_all(&record)?;
                sum.update(&record);
                length += record.len() as u64;
            }
            file.sync_data()?;
            say(&path, Fact::Log { length, sum: sum.clone().finalize() }, 0)?;
        }
        Ok(())
    }

    /// A file that is written in place; some of it synced at once, some by fsync, some not before the next one.
    fn overwrite(&self, path: &str, stream: u64) -> Result<()> {
        let place = self.directory.join(path);
        let options = |flags| {
            OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(&place)
        };
        let (file, direct) = (options(0)?, options(libc::O_DSYNC)?);
        sync_directory(place.parent().unwrap_or(self.directory))?;
        let (mut dice, mut generation) = (Dice::new(self.seed + stream), self.seed);
        let mut written = std::collections::BTreeMap::new();
        while self.goes_on() {
            generation += 1;
            let index = dice.below(SLOTS);
            let bytes = slot(index, generation);
            let at = index * SLOT as u64;
            match dice.below(8) {
                0 => {
                    direct.write_all_at(&bytes, at)?;
                    written.remove(&index);
                    say(path, Fact::Slot(generation), index)?;
                }
                1 => {
                    file.sync_data()?;
                    for (index, generation) in std::mem::take(&mut written) {
                        say(path, Fact::Slot(generation), index)?;
                    }
                }
                _ => {
                    file.write_all_at(&bytes, at)?;
                    written.insert(index, generation);
                }
            }
        }
        Ok(())
    }

    /// Files that are written beside and renamed over the old ones.
    fn replace(&self) -> Result<()> {
        let mut dice = Dice::new(self.seed + 3);
        let parent = self.directory.join(self.own);
        let mut generation = 0;
        while self.goes_on() {
            generation += 1;
            let path = format!("{}/whole-{}", self.own, dice.below(8));
            let (place, beside) = (self.directory.join(&path), parent.join("beside"));
            let mut file = File::create(&beside)?;
            file.write_all(&whole(&path, generation))?;
            file.sync_all()?;
            fs::rename(&beside, &place)?;
            sync_directory(&parent)?;
            say(&path, Fact::Whole(generation), 0)?;
        }
        Ok(())
    }

    /// Files that are made once, with mode and attribute, and some of them removed; directories as they fill.
    fn make_and_remove(&self, answers: &Receiver<()>) -> Result<()> {
        let mut dice = Dice::new(self.seed + 4);
        let mut present = Vec::new();
        for serial in 0_u64.. {
            if !self.goes_on() {
                break;
            }
            let inside = format!("{}/made-{}", self.own, serial / 40);
            let parent = self.directory.join(&inside);
            if serial % 40 == 0 {
                fs::create_dir(&parent)?;
                sync_directory(&self.directory.join(self.own))?;
            }
            let path = format!("{inside}/{serial}");
            make(&self.directory.join(&path), &path)?;
            sync_directory(&parent)?;
            say(&path, Fact::Made, 0)?;
            present.push(path);
            if dice.below(3) == 0 {
                let path =
                    present.swap_remove(usize::try_from(dice.below(present.len() as u64)).unwrap_or(0));
                self.remove(&path, answers)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &str, answers: &Receiver<()>) -> Result<()> {
        // From here on it may be gone: the host must know before it is.
        say(path, Fact::Doubt, 0)?;
        while answers.recv_timeout(ANSWER).is_err() {
            if STOP.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let place = self.directory.join(path);
        fs::remove_file(&place)?;
        sync_directory(place.parent().unwrap_or(self.directory))?;
        say(path, Fact::Gone, 0)
    }
}

fn make(place: &Path, path: &str) -> Result<()> {
    let mut file = File::create_new(place)?;
    file.write_all(&whole(path, 0))?;
    let mode = mode_of(path);
    rustix::fs::fsetxattr(&file, ATTRIBUTE, mode.to_string().as_bytes(), XattrFlags::empty())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file.sync_all()?)
}
