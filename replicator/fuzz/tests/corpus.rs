//! Every file of the corpus, and so many of what chance makes of them: the same ones each time.

use std::fs;
use std::path::Path;

/// Longest input that is made.
const LONGEST: usize = 4096;
/// Inputs made for each target.
const MADE: usize = 30_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file of the corpus")).collect()
}

/// One of the usual ways to spoil an input.
fn spoil(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    match random.u8(..7) {
        0 => input.truncate(at),
        1 => input.insert(at, random.u8(..)),
        2 if at < input.len() => drop(input.remove(at)),
        3 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        4 if at < input.len() => input[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).expect("one of them"),
        5 => {
            let other = random.choice(corpus).expect("the corpus is not empty");
            input.truncate(at);
            input.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        _ => {
            let end = random.usize(at..=input.len().min(at + 64).max(at));
            let piece = input[at..end].to_vec();
            drop(input.splice(at..at, piece));
        }
    }
    input.truncate(LONGEST);
}

fn run(target: &str, check: fn(&[u8])) {
    let mut pool = corpus(target);
    assert!(pool.len() > 3, "the corpus of {target} has only {} files", pool.len());
    pool.iter().for_each(|input| check(input));
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..MADE {
        let mut input = random.choice(&pool).expect("not empty").clone();
        for _ in 0..random.u8(1..6) {
            spoil(&mut input, &pool, &mut random);
        }
        check(&input);
        // Now and then one is kept, so that changes add up.
        if random.u8(..64) == 0 {
            let at = random.usize(..pool.len());
            pool[at] = input;
        }
    }
}

#[test]
fn any_stream_is_read_or_refused() {
    run("frames", safe_replicator_fuzz::frames::check);
}

#[test]
fn any_journal_is_read_or_refused() {
    run("journal", safe_replicator_fuzz::journal::check);
}

#[test]
fn any_record_of_an_epoch_is_read_or_refused() {
    run("epoch", safe_replicator_fuzz::epoch::check);
}
