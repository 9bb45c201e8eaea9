//! Carries out conflicting operations one after the other, in the order in which they entered, and everything else
//! side by side. Used by the primary to hold keys and by the secondary to apply operations.
//!
//! An operation enters with all its keys at once and waits only for earlier ones, so there is no deadlock.

use std::collections::HashMap;

use crate::key::Key;

/// One operation inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Entry {
    keys: Vec<Key>,
    /// How many earlier conflicting operations are still inside.
    blockers: usize,
    dependents: Vec<Ticket>,
}

/// The operations inside.
#[derive(Debug, Default)]
pub struct Order {
    next: u64,
    entries: HashMap<Ticket, Entry>,
    objects: HashMap<u64, Vec<(Ticket, Key)>>,
}

impl Order {
    /// Enters; true: it may be carried out now, else when [`Order::leave`] names it.
    pub fn enter(&mut self, keys: &[Key]) -> (Ticket, bool) {
        self.next += 1;
        let ticket = Ticket(self.next);
        let mut earlier: Vec<Ticket> = Vec::new();
        for key in keys {
            let inside = self.objects.entry(key.object).or_default();
            for (other, held) in inside.iter() {
                if *other != ticket && held.conflicts(key) && !earlier.contains(other) {
                    earlier.push(*other);
                }
            }
            inside.push((ticket, *key));
        }
        for other in &earlier {
            if let Some(entry) = self.entries.get_mut(other) {
                entry.dependents.push(ticket);
            }
        }
        let blockers = earlier.len();
        self.entries.insert(ticket, Entry { keys: keys.to_vec(), blockers, dependents: Vec::new() });
        (ticket, blockers == 0)
    }

    /// Leaves, carried out or given up; calls `ready` for each operation that may be carried out now.
    pub fn leave(&mut self, ticket: Ticket, mut ready: impl FnMut(Ticket)) {
        let Some(entry) = self.entries.remove(&ticket) else { return };
        for key in &entry.keys {
            if let Some(inside) = self.objects.get_mut(&key.object) {
                inside.retain(|(other, _)| *other != ticket);
                if inside.is_empty() {
                    self.objects.remove(&key.object);
                }
            }
        }
        for dependent in entry.dependents {
            if let Some(waiting) = self.entries.get_mut(&dependent) {
                waiting.blockers -= 1;
                if waiting.blockers == 0 {
                    ready(dependent);
                }
            }
        }
    }

    /// Nothing is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicting_ones_follow_in_the_order_of_entry() {
        let mut order = Order::default();
        let (first, ready) = order.enter(&[Key::range(1, 0, 10)]);
        assert!(ready);
        let (second, ready) = order.enter(&[Key::range(1, 5, 15)]);
        assert!(!ready);
        // Conflicts only with the second, which waits: it must not overtake it.
        let (third, ready) = order.enter(&[Key::range(1, 12, 20)]);
        assert!(!ready);
        let (_, ready) = order.enter(&[Key::range(1, 30, 40)]);
        assert!(ready);
        let mut woken = Vec::new();
        order.leave(first, |ticket| woken.push(ticket));
        assert_eq!(woken, [second]);
        order.leave(second, |ticket| woken.push(ticket));
        assert_eq!(woken, [second, third]);
    }

    #[test]
    fn two_keys_on_one_object_do_not_block_their_own_operation() {
        let mut order = Order::default();
        let (ticket, ready) = order.enter(&[Key::all(1), Key::meta(1), Key::name(1, b"x")]);
        assert!(ready);
        order.leave(ticket, |_| panic!("nothing waits"));
        assert!(order.is_empty());
        assert!(order.objects.is_empty());
    }

    #[test]
    fn one_that_waits_for_two_is_ready_after_both() {
        let mut order = Order::default();
        let (a, _) = order.enter(&[Key::meta(1)]);
        let (b, _) = order.enter(&[Key::meta(2)]);
        let (c, ready) = order.enter(&[Key::meta(1), Key::meta(2)]);
        assert!(!ready);
        order.leave(a, |_| panic!("b is still inside"));
        let mut woken = Vec::new();
        order.leave(b, |ticket| woken.push(ticket));
        assert_eq!(woken, [c]);
    }
}
