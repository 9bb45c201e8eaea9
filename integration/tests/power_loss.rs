//! Real loss of power: virtual machines whose page cache is gone with them.
//!
//! All are long: `make test-vm`.

use safe_integration::error::Result;
use safe_integration::vm::{Machine, Pair};

/// The machines themselves: they see each other, and a disk keeps what was flushed and nothing else.
#[test]
#[ignore = "long: make test-vm"]
fn smoke_a_machine_without_power_loses_what_it_did_not_flush() -> Result<()> {
    let pair = Pair::boot("vm-smoke")?;
    let [one, other] = [pair.machine(0), pair.machine(1)];
    one.shell("ping -c 1 -W 5 10.99.0.2 && ping -c 1 -W 5 10.98.0.2")?;
    let before = [one.boot_id()?, other.boot_id()?];
    for machine in pair.machines() {
        machine.shell("cd /srv && echo flushed >kept && sync kept . && echo not >lost")?;
    }
    for machine in pair.machines() {
        machine.power_off()?;
        machine.power_on()?;
    }
    pair.machines().iter().try_for_each(Machine::wait_up)?;
    for (machine, before) in pair.machines().iter().zip(before) {
        assert_ne!(machine.boot_id()?, before);
        assert_eq!(machine.shell("cat /srv/kept")?, "flushed");
        assert_eq!(machine.shell("cat /srv/lost 2>/dev/null || true")?, "");
    }
    one.shell("ping -c 1 -W 5 10.99.0.2")?;
    pair.finish()
}
