//! When another core can take over: nothing is lost with the one that ends.

#![allow(clippy::unwrap_used, reason = "in a test a wrong assumption is a failed test")]

use std::time::Duration;

use safe_failover::world::{Chance, World};

/// A broken stream suspends the right to promote; another core would not have it any more, and the primary may be lost before
/// the nodes are in step again.
#[test]
fn a_suspended_right_to_promote_is_not_given_up() {
    let mut world = World::new(1, 1, Chance::without(Duration::from_millis(1)), |_| {});
    world.boot(0, true);
    world.boot(1, true);
    assert!(world.run_until(Duration::from_secs(20), World::is_paired).unwrap());
    let second = |world: &World| {
        let core = &world.hosts[1].agent.as_ref().unwrap().core;
        (core.may_promote(), core.status().reason.contains("in step"), core.at_rest())
    };
    world.run(Duration::from_secs(1)).unwrap();
    assert_eq!(second(&world), (true, true, true));
    world.stream_cut = true;
    world.break_stream();
    let suspended = |world: &World| matches!(second(world), (true, false, _));
    assert!(world.run_until(Duration::from_secs(2), suspended).unwrap());
    let mut seen = 0;
    let ends = world.now + Duration::from_millis(1500);
    while suspended(&world) && world.step(ends).unwrap() {
        assert!(!suspended(&world) || !second(&world).2, "at rest, with a right that would be lost");
        seen += 1;
    }
    assert!(seen > 0);
}
