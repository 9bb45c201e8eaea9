//! Rules of the protocol that a proof leaves out, one at a time, to see that it finds the harm.

use crate::failover::Failover;

/// A rule of DESIGN section 5 or 6 that closes a counterexample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOut {
    /// Who slept loses the rights that stand on silence.
    PauseCostsRights,
    /// A primary that slept a whole timeout fences itself at once.
    LongPauseFences,
    /// The arbiter's record is replaced only by who follows it.
    RecordMustBeFollowed,
    /// A serving node fences itself at 0.9 of the timeout without the record.
    FencedBeforeTheOtherAsks,
    /// The source holds to the session before it forgets that it was alone.
    BarrierBeforePairing,
    /// A copy recorded outdated is not served.
    OutdatedIsNotServed,
}

impl LeftOut {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PauseCostsRights,
        Self::LongPauseFences,
        Self::RecordMustBeFollowed,
        Self::FencedBeforeTheOtherAsks,
        Self::BarrierBeforePairing,
        Self::OutdatedIsNotServed,
    ];
}

impl Failover {
    /// The rule is left out; never outside proofs.
    pub(crate) fn lacks(&self, rule: LeftOut) -> bool {
        self.config.left_out == Some(rule)
    }
}
