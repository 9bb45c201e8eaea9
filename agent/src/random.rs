//! The only place of the agent that draws random numbers (beside the TLS library).

/// This many bytes of the kernel's random source.
///
/// # Panics
/// The kernel has none to give, which no Linux since 3.17 does once it has booted: going on with guessable keys or
/// ids would be worse than ending.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random numbers: {error}"),
        }
    }
    bytes
}

/// A random number that is not zero.
#[must_use]
pub fn nonzero() -> u64 {
    loop {
        let number = u64::from_le_bytes(bytes());
        if number != 0 {
            return number;
        }
    }
}
