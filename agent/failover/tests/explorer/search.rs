//! The search: depth first, states remembered by their fingerprints, work shared by all processors.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use safe_failover::Time;
use safe_failover::action::Phase;

use super::fault::Fault;
use super::fingerprint;
use safe_failover::world::{Happening, World};

/// At least so often there is a point at which a fault may come, even if nothing is done.
const GRID: Duration = Duration::from_millis(600);
/// Within this a pair must form once nothing more goes wrong.
const LIMIT: Duration = Duration::from_secs(90);
const SHARDS: usize = 256;

/// One fault on a path: at which point since the one before, which fault, how long.
pub(crate) type Choice = (u32, u8, u8);

/// A path that breaks something.
#[derive(Debug)]
pub(crate) struct Counterexample {
    pub(crate) path: Vec<Choice>,
    pub(crate) why: String,
}

/// What is searched, and how far.
pub(crate) struct Search {
    pub(crate) faults: Vec<Fault>,
    /// It may end with a person being asked.
    asks: bool,
    pub(crate) most_states: usize,
    seen: Vec<Mutex<HashMap<u64, u8>>>,
    pub(crate) states: AtomicUsize,
    pub(crate) forks: AtomicU64,
    pub(crate) steps: AtomicU64,
    /// The bound of memory ended it.
    pub(crate) cut_short: AtomicBool,
    found: Mutex<Option<Counterexample>>,
    jobs: Mutex<Vec<Job>>,
    busy: AtomicUsize,
}

struct Job {
    world: World,
    left: u8,
    path: Vec<Choice>,
}

impl Search {
    pub(crate) fn new(faults: Vec<Fault>, asks: bool, most_states: usize) -> Self {
        Self {
            faults,
            asks,
            most_states,
            seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
            states: AtomicUsize::new(0),
            forks: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            cut_short: AtomicBool::new(false),
            found: Mutex::default(),
            jobs: Mutex::default(),
            busy: AtomicUsize::new(0),
        }
    }

    /// Everything that so many faults in a row can lead to.
    pub(crate) fn run(&self, world: World, left: u8) -> Option<Counterexample> {
        self.jobs.lock().unwrap().push(Job { world, left, path: Vec::new() });
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| self.work());
            }
        });
        self.found.lock().unwrap().take()
    }

    /// States, forks, steps, and whether that was all, as columns of a table.
    pub(crate) fn tally(&self) -> String {
        let states = self.states.load(Ordering::Relaxed);
        let (forks, steps) = (self.forks.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed));
        let all = if self.cut_short.load(Ordering::Relaxed) { "cut short" } else { "all" };
        format!("{states} | {forks} | {steps} | {all} |")
    }

    fn work(&self) {
        loop {
            let job = {
                let mut jobs = self.jobs.lock().unwrap();
                let job = jobs.pop();
                if job.is_some() {
                    self.busy.fetch_add(1, Ordering::SeqCst);
                }
                job
            };
            let Some(mut job) = job else {
                if self.busy.load(Ordering::SeqCst) == 0 || self.over() {
                    return;
                }
                std::thread::yield_now();
                continue;
            };
            let mut path = std::mem::take(&mut job.path);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.follow(job.world, job.left, &mut path)
            }));
            let why = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(panic) => Some(panic_text(&*panic)),
            };
            if let Some(why) = why {
                self.found.lock().unwrap().get_or_insert(Counterexample { path, why });
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn over(&self) -> bool {
        let cut = self.states.load(Ordering::Relaxed) >= self.most_states;
        if cut {
            self.cut_short.store(true, Ordering::Relaxed);
        }
        cut || self.found.lock().unwrap().is_some()
    }

    /// True if the state was not seen yet with at least so many faults to come.
    fn is_new(&self, print: u64, left: u8) -> bool {
        let mut shard = self.seen[print as usize % SHARDS].lock().unwrap();
        match shard.insert(print, left) {
            None => {
                self.states.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(before) if before < left => true,
            Some(before) => {
                shard.insert(print, before);
                false
            }
        }
    }

    /// One way through the world until it comes to a state that is known; forks at each point.
    fn follow(&self, mut world: World, left: u8, path: &mut Vec<Choice>) -> Result<(), String> {
        let mut walk = Walk::new(&world);
        loop {
            if walk.at_a_point(&world) {
                if self.over() {
                    return Ok(());
                }
                walk.look(&world, self.asks)?;
                let print = fingerprint::of(&world);
                if !self.is_new(print, left) {
                    return walk.came_back(&world, print, self.asks);
                }
                walk.passed.insert(print);
                if left > 0 {
                    self.fork(&world, left, walk.points, path)?;
                }
                walk.points += 1;
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
            walk.step(&mut world, &self.faults)?;
        }
    }

    fn fork(&self, world: &World, left: u8, point: u32, path: &mut Vec<Choice>) -> Result<(), String> {
        for (index, fault) in self.faults.iter().enumerate().filter(|(_, fault)| fault.fits(world)) {
            for (length, lasts) in fault.lasts().iter().enumerate() {
                self.forks.fetch_add(1, Ordering::Relaxed);
                let mut fork = world.clone();
                inject(&mut fork, *fault, index, *lasts);
                path.push((point, index as u8, length as u8));
                if left > 1 {
                    self.jobs.lock().unwrap().push(Job { world: fork, left: left - 1, path: path.clone() });
                } else {
                    self.follow(fork, 0, path)?;
                }
                path.pop();
            }
        }
        Ok(())
    }

    /// Plays one path and answers what came of it, with everything that happened.
    pub(crate) fn replay(&self, mut world: World, path: &[Choice]) -> (Vec<String>, Result<(), String>) {
        world.verbose = true;
        world.records = true;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut choices = path.iter().copied();
            let mut next = choices.next();
            let mut walk = Walk::new(&world);
            loop {
                if walk.at_a_point(&world) {
                    walk.look(&world, self.asks)?;
                    let print = fingerprint::of(&world);
                    if let Some((point, index, length)) = next
                        && point == walk.points
                    {
                        let fault = self.faults[usize::from(index)];
                        world.note(0, &format!("---- {fault:?}"));
                        inject(&mut world, fault, index.into(), fault.lasts()[usize::from(length)]);
                        next = choices.next();
                        walk = Walk::new(&world);
                        continue;
                    }
                    if !walk.passed.insert(print) && next.is_none() {
                        return walk.came_back(&world, print, self.asks);
                    }
                    walk.points += 1;
                }
                walk.step(&mut world, &self.faults)?;
            }
        }));
        let trace = world.trace.iter().map(ToString::to_string).collect();
        (trace, outcome.unwrap_or_else(|panic| Err(panic_text(&*panic))))
    }

    /// A path for people, and how to see it again.
    pub(crate) fn describe(&self, found: &Counterexample) -> String {
        let faults: Vec<String> = found
            .path
            .iter()
            .map(|(point, index, length)| {
                let fault = self.faults[usize::from(*index)];
                format!("point {point}: {fault:?} for {:?}", fault.lasts()[usize::from(*length)])
            })
            .collect();
        let replay: Vec<String> =
            found.path.iter().map(|(point, index, length)| format!("{point} {index} {length}")).collect();
        let why = found.why.lines().next().unwrap_or_default();
        format!(
            "{}: {} (SAFED_REPLAY='{}')",
            faults.join(", then "),
            &why[..why.len().min(300)],
            replay.join(",")
        )
    }
}

fn inject(world: &mut World, fault: Fault, index: usize, lasts: Duration) {
    fault.inject(world);
    if !lasts.is_zero() {
        world.after(lasts, Happening::Repair(index as u8));
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

/// From one fault on, until everything is known.
struct Walk {
    points: u32,
    deeds: Option<u64>,
    looked: Time,
    /// Since when nothing more went wrong, and how many faults have not ended.
    since: Time,
    paired: bool,
    passed: HashSet<u64>,
}

impl Walk {
    fn new(world: &World) -> Self {
        let (deeds, looked, since) = (None, world.now, world.now);
        Self { points: 0, deeds, looked, since, paired: false, passed: HashSet::new() }
    }

    /// Something was done since the last point, or time passed.
    fn at_a_point(&mut self, world: &World) -> bool {
        if self.deeds == Some(world.deeds) && world.now.since(self.looked) < GRID {
            return false;
        }
        self.deeds = Some(world.deeds);
        self.looked = world.now;
        true
    }

    /// A pair must form, and then nothing acknowledged is missing.
    fn look(&mut self, world: &World, asks: bool) -> Result<(), String> {
        if world.is_paired() && world.pending_repairs() == 0 {
            self.paired = true;
            let lost = world.oracle.acked & !(world.hosts[0].disk.data & world.hosts[1].disk.data);
            if lost != 0 {
                return Err(format!("I3: lost in the end: {lost:b}"));
            }
        }
        if !self.paired && world.now.since(self.since) > LIMIT && !(asks && person_is_asked(world)) {
            return Err(format!("liveness: no pair: {}", world.describe()));
        }
        Ok(())
    }

    /// A known state: either its own way on is known, or this way turns in a circle.
    fn came_back(&self, world: &World, print: u64, asks: bool) -> Result<(), String> {
        if asks && person_is_asked(world) {
            return Ok(());
        }
        if self.passed.contains(&print) && !self.paired && world.pending_repairs() == 0 {
            return Err(format!("liveness: turns in a circle: {}", world.describe()));
        }
        Ok(())
    }

    fn step(&mut self, world: &mut World, faults: &[Fault]) -> Result<(), String> {
        const ENDED_LATE: Duration = Duration::from_millis(100);
        if !world.step(Time(u64::MAX))? {
            return Err("nothing happens any more".to_owned());
        }
        while let Some(index) = world.repaired.pop() {
            if faults[usize::from(index)].repair(world) {
                self.since = world.now;
                self.deeds = None;
            } else {
                world.after(ENDED_LATE, Happening::Repair(index));
            }
        }
        Ok(())
    }
}

/// A node waits for a person, and says what to type.
fn person_is_asked(world: &World) -> bool {
    world.hosts.iter().filter_map(|host| host.agent.as_ref()).any(|agent| {
        let status = agent.core.status();
        status.phase == Phase::Blocked && status.hint.is_some()
    })
}
